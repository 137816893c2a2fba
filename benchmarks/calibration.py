"""How well calibration works: ``python benchmarks/calibration.py [servo] [cube] [planted] [mujoco] [--seeds N]``.

servo    real XL330 recordings, mean over leave-one-gain-out folds, open loop from the commands; per seed
cube     real tosses, whole-toss position error on the published split; per seed
planted  simulated servos with drawn truths: share of truths within the 90 % bands
mujoco   the servo fit without load-dependent friction, replayed in MuJoCo instead (slow)

Without names: servo, cube, planted. Real recordings are looked for in ../shared/realdata (``--data``).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from flyball.calibration.calibration import Calibration
from flyball.calibration.problem import Replay
from flyball.calibration.recordings import Budget, calibrate
from flyball.calibration.rigs import Rig
from flyball.calibration.rigs.cube import TossedCube
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record
from flyball.episodes.formats import read_one

PLANTED = Budget(starts=6, iterations=20, refits=4)


class NativeServo(ServoPendulum):
    """The rig with what MuJoCo has a name for."""

    engine = "mujoco"
    levels = ServoPendulum.levels[:1]


class BasicServo(ServoPendulum):
    """The rig with the model that makes the planted recordings."""

    levels = ServoPendulum.levels[:1]


def replays(rig: Rig, folder: Path) -> list[Replay]:
    """Every recording of a folder, prepared."""
    return [rig.replay(read_one(p)) for p in sorted(folder.glob("*.mcap"))]


def real(rig: Rig, folder: Path, seed: int, budget: Budget) -> dict[str, Any]:
    """One calibration from real recordings."""
    recordings = replays(rig, folder)
    begin = time.perf_counter()
    c = calibrate(rig, recordings, seed=seed, budget=budget)
    seconds = time.perf_counter() - begin
    print("\n".join(c.lines()), f"{c.steps / 1e6:.0f} M substeps, {seconds:.0f} s, seed {seed}\n", sep="\n", flush=True)
    return asdict(c.held_out) | {"seed": seed, "seconds": seconds, "steps": c.steps, "verdict": c.verdict}


def planted(truths: int) -> dict[str, Any]:
    """Bands counted against drawn truths."""
    rig, rng = BasicServo(), np.random.default_rng(11)
    inside: dict[str, list[bool]] = {p: [] for p in TRUTH}
    for k in range(truths):
        truth = {p: float(rig.scene.parameter(p).from_unit(rng.uniform(0.25, 0.75))) for p in TRUTH}
        c: Calibration = calibrate(rig, [rig.replay(e) for e in record(truth, seed=k)], seed=k, budget=PLANTED)
        for row in c.parameters:
            if row.identified:
                inside[row.path].append(row.low <= truth[row.path] <= row.high)
    hits = [h for x in inside.values() for h in x]
    print(f"planted: {sum(hits)} of {len(hits)} identified truths within their 90 % bands ({np.mean(hits):.0%})")
    for path, x in inside.items():
        print(f"  {path:22} {sum(x)} of {len(x)} (of {truths} identified)")
    return {"identified": len(hits), "inside": sum(hits), "truths": truths * len(TRUTH)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["servo", "cube", "planted", "mujoco", []], default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--truths", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", type=Path, default=Path("../shared/realdata"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rigs: dict[str, tuple[Rig, str]] = {
        "servo": (ServoPendulum(), "servo_xl330"),
        "cube": (TossedCube(), "cube_tosses"),
        "mujoco": (NativeServo(), "servo_xl330"),
    }
    out: dict[str, Any] = {}
    for what in args.what or ("servo", "cube", "planted"):
        if what == "planted":
            out[what] = planted(args.truths)
        elif not (args.data / rigs[what][1]).is_dir():
            print(f"{what}: left out, no recordings at {args.data / rigs[what][1]}")
        else:
            rig, folder = rigs[what]
            budget = Budget(threads=args.threads, starts=4 if what == "mujoco" else 8)
            out[what] = [real(rig, args.data / folder, s, budget) for s in range(args.seeds)]
    if args.json:
        args.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
