"""From episodes to a dataset: checked, chosen by a condition, exported for LeRobot, read back as windows.

    python examples/08_dataset.py [--workspace DIR]

Six attempts to lift a box are recorded, some too heavy for the grip. Needs pip install 'flyball[sim,logs]'.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.curation import checks
from flyball.episodes.curation.curate import curate
from flyball.episodes.datasets.layout import TableOptions, plan
from flyball.episodes.datasets.lerobot import export
from flyball.episodes.datasets.loader import Loader
from flyball.episodes.datasets.sources import folder_source
from flyball.episodes.datasets.versions import Datasets
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
        workspace = Workspace(args.workspace or Path(temporary) / "workspace")
        masses = task.scene.nominal(6) | {"object.mass": np.array([0.25, 0.3, 0.35, 0.4, 0.85, 0.9])}
        done = World(task, 6).run(task.expert(task.told(task.scene.nominal(6))), masses, seeds=range(6))
        for i in range(6):
            with Recorder(workspace.inbox / f"{i}.mcap", task.embodiment, {"task": task.name, "seed": i}) as log:
                for name, values in done.one(i).items():
                    for k, value in enumerate(values):
                        log.write(name, round(k * 1e9 / task.control_hz), value)
                for t, event in done.events[i]:
                    log.event(round(t * 1e9), event)
        ingest(workspace, judge=judge)
        catalogue = Catalogue(workspace.store)
        curate(catalogue, [checks.load(name) for name in ("finite", "time", "drops")])
        chosen = "outcome = 'success' AND verdict.drops <> 'flag'"
        dataset = Datasets(catalogue).load(Datasets(catalogue).build("lifts", chosen).digest)
        print(f"{len(dataset.episodes)} episodes where {chosen}")
        folder = workspace.reports / "lifts"
        report = export(workspace.store, dataset, plan(workspace.store, dataset, TableOptions()), folder)
        print(f"LeRobotDataset {report.version}: {report.frames} rows at {report.fps} Hz")
        loader = Loader([folder_source(folder)], {"observation.state": (-1, 0), "action": range(8)}, batch=64)
        print({key: values.shape for key, values in next(iter(loader.epoch(0))).items()})


if __name__ == "__main__":
    main()
