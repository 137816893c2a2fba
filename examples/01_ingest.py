"""From log files to episodes: kept as they came, judged, never twice, and a broken one does not stop the others.

    python examples/01_ingest.py [--workspace DIR]

A virtual cell records three attempts to lift a box; a fourth log is cut off. Takes a few seconds.
"""

import argparse
import tempfile

import numpy as np

from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.ingest import ingest
from flyball.episodes.recorder import Recorder
from flyball.loop.logs import judge
from flyball.tasks import tasks
from flyball.tasks.world import World


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace")
    args = parser.parse_args()
    task = tasks.load("lift-fragile-v1")
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace(args.workspace or temporary)

        # Three boxes of different weight, and an expert who takes all of them for the nominal one.
        weights = task.scene.nominal(3) | {"object.mass": np.array([0.2, 0.35, 0.9])}
        done = World(task, 3).run(task.expert(task.told(task.scene.nominal(3))), weights, seeds=[1, 2, 3])
        period = round(1e9 / task.control_hz)
        for i in range(3):
            path = workspace.inbox / f"attempt-{i}.mcap"
            with Recorder(path, task.embodiment, {"robot": "bench", "task": task.name, "seed": i}) as log:
                for name, values in done.one(i).items():
                    for k, value in enumerate(values):
                        log.write(name, k * period, value)
                for t, event in done.events[i]:
                    log.event(round(t * 1e9), event)
        whole = (workspace.inbox / "attempt-0.mcap").read_bytes()
        (workspace.inbox / "cut.mcap").write_bytes(whole[: len(whole) // 2])

        report = ingest(workspace, judge=judge)
        for path, why in report.quarantined:
            print(f"quarantined {path.rpartition('/')[2]}: {why.rpartition(': ')[2]}")
        catalogue = Catalogue(workspace.store)
        for row in catalogue.query("task = 'lift-fragile-v1' AND labels.progress >= 0"):
            print(f"episode {row.digest[:12]} of log {row.log_digest[:12]}: {row.outcome} {row.grp}")

        # A log that comes again, under another name, is known by its content.
        (workspace.inbox / "again.mcap").write_bytes(whole)
        again = ingest(workspace, judge=judge)
        print(f"the second time: {len(again.added)} added, {len(again.known)} known")


if __name__ == "__main__":
    main()
