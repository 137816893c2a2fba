"""From recordings of a real servo to a scene that moves as it does.

    python examples/02_calibrate_servo.py [FOLDER] [--workspace DIR]

FOLDER holds MCAP recordings of the XL330 bench. Takes one to two minutes on one core; a second run with the same
workspace answers at once.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from flyball.base.workspace import Workspace
from flyball.calibration.learning import Budget
from flyball.calibration.recordings import calibrate_recordings
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.episodes.ingest import ingest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/realdata/servo_xl330"))
    parser.add_argument("--workspace", type=Path)
    args = parser.parse_args()
    if not args.folder.is_dir():
        raise SystemExit(f"{args.folder}: no recordings here; name a folder of MCAP files of the XL330 bench")
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace(args.workspace or temporary)
        ingest(workspace, [args.folder])
        budget = Budget(starts=2, iterations=12, scouting=3, refits=2)  # smaller than by default
        (calibration,) = calibrate_recordings(workspace, rig="servo-pendulum", seed=0, budget=budget)

        # What was held out, what it was worth, and what the recordings cannot tell.
        print("\n".join(calibration.lines()))

        # A calibrated scene draws its parameters jointly: what is known only in combination stays in combination.
        scene = calibration.apply(ServoPendulum.scene)
        drawn = scene.draw(np.random.default_rng(0), 5)
        print("\nfive servos that the recordings allow")
        for path in ("servo.stall_torque", "servo.source_resistance", "servo.drive_friction"):
            print(f"  {path:22}", np.round(drawn[path], 4))


if __name__ == "__main__":
    main()
