"""How well calibration works: ``python benchmarks/calibration.py [servo] [cube] [drake] [planted] [mujoco]``.

servo    real XL330 recordings, every gain held out once, open loop from the commands
cube     real tosses, whole-toss position error on the published split
drake    the same tosses on a second engine, with a contact said as spring and damper; fewer tosses fitted (slow)
planted  simulated servos with drawn truths: share of truths within the 90 % bands
mujoco   the servo fit without load-dependent friction, replayed in MuJoCo instead (slow)

Without names: servo, cube, planted. ``--against`` also fits the first three by ``mujoco.sysid`` (needs
``pip install 'mujoco[sysid]'``) and by plain CMA-ES: on the same folds, with the model that our ladder chose and at
least as many simulated steps as our whole fold took, refits and bands included. Their bands are their own covariance's.

Real recordings are looked for in ../shared/realdata (``--data``). Every line of a table is one fold; seconds are those
of the fold's fit with everything that its bands need, the coverage is of held-out samples by 90 % bands.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import calibration_baselines as baselines
import numpy as np

from flyball.calibration.calibration import Calibration
from flyball.calibration.learning import Budget, learn
from flyball.calibration.problem import Replay
from flyball.calibration.recordings import Score, calibrate, checked_folds, problem_of, report, score
from flyball.calibration.rigs import Fold, Rig
from flyball.calibration.rigs.cube import SpringCube, TossedCube
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record
from flyball.episodes.formats import read_one

PLANTED = Budget(starts=6, iterations=20, refits=4)


class NativeServo(ServoPendulum):
    """The rig with what MuJoCo has a name for."""

    engine = "mujoco"
    levels = ServoPendulum.levels[:1]


class DrakeCube(SpringCube):
    """The cube on Drake: a thousandth of the speed, so that a third of the tosses must do."""

    engine = "drake"

    def folds(self, replays: Sequence[Replay]) -> list[Fold]:
        return [replace(f, train=f.train[:20]) for f in super().folds(replays)]


class BasicServo(ServoPendulum):
    """The rig with the model that makes the planted recordings."""

    levels = ServoPendulum.levels[:1]


def replays(rig: Rig, folder: Path) -> list[Replay]:
    """Every recording of a folder, prepared."""
    return [rig.replay(read_one(p)) for p in sorted(folder.glob("*.mcap"))]


def real(rig: Rig, folder: Path, seed: int, budget: Budget, against: Sequence[str]) -> dict[str, Any]:
    """Every fold of real recordings, by us and by others; then the calibration itself."""
    recordings = replays(rig, folder)
    print(f"{rig.name} on {rig.engine}, seed {seed}, unit {rig.unit}", flush=True)
    print(f"  {'held out':16}{'method':36}{'error':>8}{'coverage':>10}{'M steps':>9}{'seconds':>9}", flush=True)
    rows: list[dict[str, Any]] = []

    def row(fold: Fold, method: str, detail: str, error: float, coverage: float, steps: float, seconds: float) -> None:
        figures = {"error": error, "coverage": coverage, "steps": steps, "seconds": seconds}
        rows.append({"fold": fold.name, "method": method, "detail": detail} | figures)
        line = f"{error:8.4f}{coverage:10.0%}{steps / 1e6:9.1f}{seconds:9.0f}"
        print(f"  {fold.name:16}{f'{method}, {detail}':36}{line}", flush=True)

    scores: list[Score] = []
    for fold in checked_folds(rig, recordings):
        begin = time.perf_counter()
        ours = score(rig, recordings, fold, seed=seed, budget=budget)
        seconds = time.perf_counter() - begin
        scores.append(ours)
        e, level = ours.error, f"model {ours.learned.level + 1}"
        row(fold, "flyball", level, e.after, e.coverage, ours.learned.steps, seconds)
        held = [r for r in recordings if r.name in fold.test]
        test = problem_of(rig, held, ours.learned.problem.paths, budget.threads)
        for method in against:
            train = replace(ours.learned.problem)
            begin = time.perf_counter()
            other = _METHODS[method](train, ours.learned.steps, seed=seed, members=budget.tracks)
            seconds = time.perf_counter() - begin
            error = float(test.errors(other.best[None]).mean())
            share = baselines.coverage(test, other.samples)
            row(fold, method, f"{other.restarts} starts", error, share, train.steps, seconds)
    answer = learn(rig, recordings, seed=seed, budget=budget) if len(scores) > 1 else scores[0].learned
    c = report(rig, answer, scores, sum(s.steps for s in scores), (), seed, budget)
    print("\n".join(c.lines()), flush=True)
    for method in ("flyball", *against):
        mine = [r for r in rows if r["method"] == method]
        mean, most = np.mean([r["error"] for r in mine]), max(r["seconds"] for r in mine)
        print(f"  {'mean':16}{method:36}{mean:8.4f}{'':19}{most:9.0f} at most")
    print(flush=True)
    return asdict(c.held_out) | {"seed": seed, "rows": rows, "steps": c.steps, "verdict": c.verdict}


_METHODS: dict[str, Callable[..., baselines.Baseline]] = {
    "mujoco.sysid defaults": functools.partial(baselines.sysid, restart=False),
    "mujoco.sysid": baselines.sysid,
    "CMA-ES": functools.partial(baselines.plain_cma, population=16),
}


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
    kinds = ["servo", "cube", "drake", "planted", "mujoco"]
    parser.add_argument("what", nargs="*", choices=[*kinds, []], default=[])
    parser.add_argument("--against", action="store_true", help="also fit by mujoco.sysid and by CMA-ES")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--truths", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--data", type=Path, default=Path("../shared/realdata"))
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    rigs: dict[str, tuple[Rig, str, Budget]] = {
        "servo": (ServoPendulum(), "servo_xl330", Budget()),
        "cube": (TossedCube(), "cube_tosses", Budget()),
        "drake": (DrakeCube(), "cube_tosses", Budget(population=8, generations=8, members=12, tracks=6)),
        "mujoco": (NativeServo(), "servo_xl330", Budget(starts=4)),
    }
    out: dict[str, Any] = {}
    for what in args.what or ("servo", "cube", "planted"):
        if what == "planted":
            out[what] = planted(args.truths)
        elif not (args.data / rigs[what][1]).is_dir():
            print(f"{what}: left out, no recordings at {args.data / rigs[what][1]}")
        else:
            rig, folder, budget = rigs[what]
            budget = replace(budget, threads=args.threads)
            against = list(_METHODS) if args.against and what != "mujoco" else []
            out[what] = [real(rig, args.data / folder, s, budget, against) for s in range(args.seeds)]
    if args.json:
        args.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
