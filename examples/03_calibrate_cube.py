"""From tracked tosses of a real cube to contact parameters.

    python examples/03_calibrate_cube.py [FOLDER] [--workspace DIR]

FOLDER holds MCAP recordings of the tosses; 60 are fitted, 200 others scored. Takes about a minute on one core.
"""

import argparse
import tempfile
from pathlib import Path

from flyball.base.workspace import Workspace
from flyball.calibration.recordings import calibrate_recordings
from flyball.episodes.ingest import ingest


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path, default=Path("../shared/realdata/cube_tosses"))
    parser.add_argument("--workspace", type=Path)
    args = parser.parse_args()
    if not args.folder.is_dir():
        raise SystemExit(f"{args.folder}: no recordings here; name a folder of MCAP files of the tosses")
    with tempfile.TemporaryDirectory() as temporary:
        workspace = Workspace(args.workspace or temporary)
        ingest(workspace, [args.folder])
        (calibration,) = calibrate_recordings(workspace, rig="tossed-cube", seed=0)
        print("\n".join(calibration.lines()))
        held = calibration.held_out
        print(f"\nwhole tosses, mean position error: {held.before:.1%} -> {held.after:.1%} of the cube's width")


if __name__ == "__main__":
    main()
