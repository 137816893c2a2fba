"""How well calibration works: ``python benchmarks/calibration.py [servo] [cube] [drake] [planted] [mujoco]``.

servo    real XL330 recordings, every gain held out once, open loop from the commands
cube     real tosses, whole-toss position error on the published split
drake    the same tosses on a second engine, with a contact said as spring and damper; fewer tosses fitted (slow)
planted  simulated servos with drawn truths: share of truths within the 90 % bands
mujoco   the servo fit with what MuJoCo has a name for, replayed in MuJoCo instead (slow)

Without names: servo, cube, planted. ``servo`` and ``cube`` are also fitted by ``mujoco.sysid`` (needs
``pip install 'mujoco[sysid]'``) and by plain CMA-ES, on the same recordings with the model that our ladder chose; not
with ``--alone``. On the cube each may simulate as many steps as our whole fold took, on the servo ``--steps`` million.
With ``--whole`` it is our whole fold there too, models that were not chosen, refits and bands included.
Their bands are their own covariance's.

Real recordings are looked for in ../shared/realdata (``--data``). Every line of a table is one fold; seconds are those
of the fold's fit with everything that its bands need, the coverage is of held-out samples by 90 % bands. Differences to
other methods are paired by recording, with 90 % intervals of a bootstrap over the recordings of each fold.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
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
from flyball.episodes import Episode
from flyball.episodes.formats import read_one

PLANTED = Budget(starts=6, iterations=20, refits=4)


class NativeServo(ServoPendulum):
    """The rig with what MuJoCo has a name for: it knows nothing of a warm winding."""

    engine = "mujoco"
    levels = ServoPendulum.levels[:1]

    def replay(self, episode: Episode) -> Replay:
        replay = super().replay(episode)
        return replace(replay, settings={"firmware.kp": replay.settings["firmware.kp"]})


class DrakeCube(SpringCube):
    """The cube on Drake: a thousandth of the speed, so that a third of the tosses must do."""

    engine = "drake"

    def folds(self, replays: Sequence[Replay]) -> list[Fold]:
        return [replace(f, train=f.train[:20]) for f in super().folds(replays)]


class BasicServo(ServoPendulum):
    """The rig with the model that makes the planted recordings, of servos of which nothing is known."""

    levels = (tuple(TRUTH),)
    priors: Mapping[str, tuple[float, float]] = {}


def replays(rig: Rig, folder: Path) -> list[Replay]:
    """Every recording of a folder, prepared."""
    return [rig.replay(read_one(p)) for p in sorted(folder.glob("*.mcap"))]


@dataclass(frozen=True)
class Row:
    """One fold by one method: errors on each recording held out, and what it took."""

    fold: str
    method: str
    detail: str
    errors: list[float]
    coverage: float
    steps: float
    cpu_s: float
    wall_s: float

    @property
    def error(self) -> float:
        return float(np.mean(self.errors))

    def line(self) -> str:
        figures = f"{self.error:8.4f}{self.coverage:10.0%}{self.steps / 1e6:9.0f}{self.cpu_s:7.0f}{self.wall_s:8.0f}"
        return f"  {self.fold:14}{f'{self.method}, {self.detail}':34}{figures}"


class Clock:
    """CPU and wall time since it was made [s]."""

    def __init__(self) -> None:
        self._begin = time.process_time(), time.perf_counter()

    def __call__(self) -> tuple[float, float]:
        return time.process_time() - self._begin[0], time.perf_counter() - self._begin[1]


def real(rig: Rig, folder: Path, seed: int, budget: Budget, against: Sequence[str], steps: float) -> dict[str, Any]:
    """Every fold of real recordings, by us and by others; then the calibration itself."""
    recordings = replays(rig, folder)
    print(f"{rig.name} on {rig.engine}, {len(recordings)} recordings, seed {seed}, errors in {rig.unit}", flush=True)
    print(
        f"  {'held out':14}{'method':34}{'error':>8}{'coverage':>10}{'M steps':>9}{'CPU s':>7}{'wall s':>8}", flush=True
    )
    rows: list[Row] = []

    def note(row: Row) -> None:
        rows.append(row)
        print(row.line(), flush=True)

    scores: list[Score] = []
    for fold in checked_folds(rig, recordings):
        clock = Clock()
        ours = score(rig, recordings, fold, seed=seed, budget=budget)
        scores.append(ours)
        level, errors = f"model {ours.learned.level + 1} of {len(rig.levels)}", ours.by_recording.tolist()
        note(Row(fold.name, "flyball", level, errors, ours.error.coverage, ours.learned.steps, *clock()))
        held = [r for r in recordings if r.name in fold.test]
        test = problem_of(rig, held, ours.learned.problem.paths, budget.threads)
        for method in against:
            train, clock = replace(ours.learned.problem), Clock()
            other = _METHODS[method](train, steps or ours.learned.steps, seed=seed, members=budget.tracks)
            took = clock()
            errors, share = test.errors(other.best[None])[0].tolist(), baselines.coverage(test, other.samples)
            note(Row(fold.name, method, f"{other.restarts} starts", errors, share, train.steps, *took))
    clock = Clock()
    answer = learn(rig, recordings, seed=seed, budget=budget) if len(scores) > 1 else scores[0].learned
    c = report(rig, answer, scores, sum(s.steps for s in scores), (), seed, budget)
    print("\n".join(c.lines()), flush=True)
    if len(scores) > 1:
        print("  fit to all recordings: {:.0f} s CPU, {:.0f} s wall".format(*clock()))
    out: dict[str, Any] = {}
    for method in ("flyball", *against):
        mine, ours_ = ([r for r in rows if r.method == m] for m in (method, "flyball"))
        mean, cpu, wall = np.mean([r.error for r in mine]), max(r.cpu_s for r in mine), max(r.wall_s for r in mine)
        out[method] = {"mean": mean, "cpu_s_at_most": cpu, "wall_s_at_most": wall}
        line = f"  {'mean':14}{method:34}{mean:8.4f}{'at most':>19}{cpu:7.0f}{wall:8.0f}"
        if method != "flyball":
            low, high = difference(mine, ours_, seed)
            worst = min(o.error - u.error for o, u in zip(mine, ours_, strict=True))
            out[method] |= {"more_than_ours": [low, high], "least_more_in_a_fold": worst}
            line += f"   {mean - out['flyball']['mean']:+.4f} [{low:+.4f}, {high:+.4f}] to ours, least {worst:+.4f}"
        print(line)
    print(flush=True)
    table = [asdict(r) | {"error": r.error} for r in rows]
    figures = {"seed": seed, "rows": table, "means": out, "steps": c.steps, "verdict": c.verdict}
    return asdict(c.held_out) | figures | {"paths": c.paths, "best": c.best.tolist()}


def difference(theirs: Sequence[Row], ours: Sequence[Row], seed: int) -> tuple[float, float]:
    """90 % interval of how much more their mean error over folds is than ours, paired by recording."""
    rng = np.random.default_rng(seed)
    excess = [np.subtract(a.errors, b.errors) for a, b in zip(theirs, ours, strict=True)]
    draws = [np.mean([e[rng.integers(len(e), size=len(e))].mean() for e in excess]) for _ in range(4000)]
    low, high = np.quantile(draws, [0.05, 0.95])
    return float(low), float(high)


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
    parser.add_argument("--alone", action="store_true", help="leave out mujoco.sysid and CMA-ES")
    parser.add_argument("--steps", type=float, default=60, help="of each of them [million] (default: %(default)s)")
    parser.add_argument("--whole", action="store_true", help="as many steps for each of them as our whole fold took")
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
            against = [] if args.alone or what not in ("servo", "cube") else list(_METHODS)
            steps = 0.0 if args.whole or what == "cube" else args.steps * 1e6
            out[what] = [real(rig, args.data / folder, s, budget, against, steps) for s in range(args.seeds)]
    if args.json:
        args.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
