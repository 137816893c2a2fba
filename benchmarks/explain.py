"""How well failures are explained: ``python benchmarks/explain.py [--cases N] [--outside N] [--seed S] [--json FILE]``.

planted   on every task, one thing leaves what was believed, in a cell whose policy then fails and otherwise succeeds.
          Counted: is it named first; does the band of the sentence's least change cover the change that the TRUE cell
          needs (a direct sweep, noise seeds in the majority; where no change helps there, only a band without an
          end does).
          What is planted is what an engineer with the log and the calibration could tell: (1) without the change the
          policy succeeds in >= 80 % of noise seeds, with it it fails in >= 80 %; (2) the logged commands, replayed in
          the TRUE cell, fail alike in >= 80 %: what a twin of the robot does not repeat nobody can reproduce; (3)
          replayed in the true cell WITHOUT the change they do not do so on the log's course: else the log shows
          nothing of it (which policy acted and what it was told is on record and exempt). Cells that break a rule are
          counted.
outside   what no parameter describes: a pushed object, a stuck joint, a corrupted observation, another drive law, a
          parameter beyond its range. Counted: "not reproduced" or "cannot tell".

A calibration is drawn around the true cell before the change: its centre is off by as much as it says (log-normal,
5 %), so that it is honest and not exact. Truths are known to this file alone. Intervals are Wilson's.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.explain import Case, Explanation, explain
from flyball.calibration.explain.case import PolicyMaker, Variant, _limited
from flyball.calibration.explain.counterfactual import Change
from flyball.calibration.explain.levers import Lever, levers_of, parameter_lever
from flyball.calibration.explain.replays import placed
from flyball.robots import Observation
from flyball.tasks import Task, tasks
from flyball.tasks.task import Controller
from flyball.tasks.world import Attempts, Unmodelled, World

SPREAD = 0.05
"""Of a calibration: relative for what is judged by ratio, else of 0.6 of the range."""
SAMPLES = 200
TRIES = 40
"""Cells that are drawn until a change of the wanted kind makes one fail that succeeded."""
SWEEP, FINE, NOISES = 25, 8, 5
"""Values of the direct sweep under the truth, and between its first success and the failure before; noise seeds."""
REPLAYS = 8
"""Replays in the true cell that show whether a failure is repeated and shown by the log."""


@dataclass
class Planted:
    """A failure whose cause is known here.

    Attributes:
      cause: what was changed; "" for something outside the model.
      case: what the explainer gets.
      truth: the failing cell, path -> value.
      seed: of its start and noise.
      kind: what is outside the model.
    """

    task: Task
    cause: str
    case: Case
    truth: dict[str, float]
    seed: int
    kind: str = "planted"


def calibration(task: Task, cell: dict[str, float], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    """Joint samples around a cell, as far off as they are wide."""
    out = {}
    for p in task.scene.parameters:
        x = cell[p.path]
        if placed(p):
            out[p.path] = np.full(SAMPLES, x)
            continue
        off, z = rng.standard_normal(), rng.standard_normal(SAMPLES)
        wide = x * np.exp(SPREAD * (off + z)) if p.scale == "log" else x + 0.6 * SPREAD * (p.high - p.low) * (off + z)
        out[p.path] = np.clip(wide, p.low, p.high)
    return out


def attempt(
    task: Task, cell: dict[str, float], told: NDArray[np.float64], seed: int, n: int = 1, **reality: Any
) -> Attempts:
    """n attempts of the informed expert in a cell; their seeds follow each other."""
    values = {k: np.full(n, v) for k, v in cell.items()}
    return World(task, n, **reality).run(task.expert(np.tile(told, (n, 1))), values, range(seed, seed + n))


def failed(task: Task, done: Attempts) -> bool:
    """Whether the first attempt failed."""
    return done.judge(task)[0].outcome == "failure"


def causes_of(task: Task) -> list[str]:
    """Everything that may leave what was believed: parameters of the scene, what is told, the policy itself."""
    noise = {p.path for p in task.scene.parameters for b in p.binds if b.target.endswith(".noise")}
    return [
        *(p.path for p in task.scene.parameters if not placed(p) and p.path not in noise),
        *(f"told:{name}" for name in task.conditioning),
        "policy",
    ]


def bad_release(task: Task, factor: float) -> PolicyMaker:
    """A policy that makes more or less of the first thing it is told (grip, friction, press) than the one before."""

    def make(told: NDArray[np.float64]) -> Controller:
        bent = told.copy()
        bent[:, 0] *= factor
        return task.expert(bent)

    return make


def plant(task: Task, cause: str, seed: int) -> Planted | None:
    """A failure of that cause; None when none is found in ``TRIES`` cells."""
    rng = np.random.default_rng([seed, 7])
    n = TRIES
    drawn = task.scene.nominal(n) | task.draw_reality(rng, n)
    cells = [{k: float(v[i]) for k, v in drawn.items()} for i in range(n)]
    beliefs = [calibration(task, c, rng) for c in cells]
    told = np.stack([task.tell(task.scene.nominal(SAMPLES) | b) for b in beliefs])
    seeds = rng.integers(2**31, size=n)
    after, said = [dict(c) for c in cells], told.copy()
    policy: PolicyMaker = task.expert
    others: dict[str, PolicyMaker] = {}
    if cause == "policy":
        policy = bad_release(task, float(np.exp(rng.choice([-1, 1]) * rng.uniform(0.25, 0.7))))
        others = {"the release before": task.expert}
    for i, c in enumerate(after if cause != "policy" else []):
        if cause.startswith("told:"):
            j = task.conditioning.index(cause[5:])
            own = {p.path: p for p in task.scene.parameters}.get(cause[5:])
            if own is None:
                said[i, j] *= np.exp(rng.choice([-1, 1]) * rng.uniform(0.25, 0.7))
            else:
                u = float(own.to_unit(told[i, j])) + rng.choice([-1, 1]) * rng.uniform(0.15, 0.5)
                said[i, j] = float(own.from_unit(np.clip(u, 0, 1)))
        else:
            p = task.scene.parameter(cause)
            u = float(p.to_unit(c[cause])) + rng.choice([-1, 1]) * rng.uniform(0.12, 0.5)
            if not 0.01 <= u <= 0.99:
                continue
            c[cause] = float(p.from_unit(u))
    world, values = World(task, n), lambda cs: {k: np.array([c[k] for c in cs]) for k in cs[0]}
    before = world.run(task.expert(told), values(cells), seeds.tolist()).judge(task)
    done = world.run(policy(said), values(after), seeds.tolist())
    for i, (was, now) in enumerate(zip(before, done.judge(task), strict=True)):
        if was.outcome == "success" and now.outcome == "failure":
            usual = [
                _often(task, make(np.tile(t[i], (NOISES + 1, 1))), c[i], int(seeds[i]))
                for make, t, c in ((task.expert, told, cells), (policy, said, after))
            ]
            if usual[0] < 0.8 or usual[1] > 0.2:
                REJECTED["a matter of chance"] += 1
                continue
            log = Attempts({k: x[i : i + 1] for k, x in done.signals.items()}, [done.events[i]])
            case = Case(task, log, said[i], policy, beliefs[i], others, seed=seed, threads=1)
            alike, on = _replayed(case, after[i], int(seeds[i]))
            if not alike.mean() >= 0.8:
                REJECTED["not repeated in the true cell"] += 1
                continue
            alike, on = _replayed(case, cells[i], int(seeds[i]))
            if cause in case.task.scene.nominal(1) and (alike & on).mean() > 0.5:
                REJECTED["not shown by the log"] += 1
                continue
            return Planted(task, cause, case, after[i], int(seeds[i]))
    return None


REJECTED: Counter[str] = Counter()


def _replayed(case: Case, cell: dict[str, float], seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Replays of the logged commands from the true start: which fail alike, which stay on the log's course."""
    values = {k: np.full(REPLAYS, v) for k, v in cell.items()}
    rngs = [np.random.Generator(np.random.Philox(key=seed)) for _ in range(REPLAYS)]
    actions = np.repeat(case.actions[:, : case.periods], REPLAYS, axis=0)
    world = World(case.task, REPLAYS)
    done = world.replay(values, actions, case.task.starts(values, rngs), range(seed + 1, seed + 1 + REPLAYS))
    return case.alike(done), case.follows(done)


def _often(task: Task, controller: Controller, cell: dict[str, float], seed: int) -> float:
    """Success rate from the start of a seed, over noise seeds; the controller is repeated over them."""
    n = NOISES + 1
    values = {k: np.full(n, v) for k, v in cell.items()}
    starts = task.starts(values, [np.random.Generator(np.random.Philox(key=seed)) for _ in range(n)])
    done = World(task, n).run(controller, values, range(seed + 1, seed + 1 + n), starts=starts)
    return float(np.mean([j.outcome == "success" for j in done.judge(task)]))


# what no parameter describes ------------------------------------------------------------------------------


def outside(task: Task, kind: str, seed: int) -> Planted | None:
    """A failure that nothing in the scene can make."""
    rng = np.random.default_rng([seed, 8])
    for _ in range(TRIES):
        drawn = task.scene.nominal(1) | task.draw_reality(rng, 1)
        cell = {k: float(v[0]) for k, v in drawn.items()}
        belief = calibration(task, cell, rng)
        told = task.tell(task.scene.nominal(SAMPLES) | belief)
        at = int(rng.integers(2**31))
        if failed(task, attempt(task, cell, told, at)):
            continue
        done = OUTSIDE[kind](task, cell, told, at, rng)
        if done is not None and failed(task, done):
            return Planted(task, "", Case(task, done, told, task.expert, belief, seed=seed, threads=1), cell, at, kind)
    return None


def _closed(
    task: Task, cell: dict[str, float], told: NDArray[np.float64], seed: int,
    see: Callable[[int, Observation], Observation] | None = None,
    send: Callable[[int, NDArray[np.float64]], NDArray[np.float64]] | None = None,
    disturb: Callable[[int, World], None] | None = None,
) -> Attempts:  # fmt: skip
    """One attempt step by step, with something wrong: what the policy sees, what reaches the robot, what befalls it."""
    world = World(task, 1)
    seen = world.reset({k: np.array([v]) for k, v in cell.items()}, [seed])
    controller: Controller = task.expert(told[None])
    low, high = task.embodiment.action_limits()
    rows: dict[str, list[NDArray[np.float64]]] = {k: [] for k in seen}
    actions = []
    for k in range(world.steps):
        for name, x in seen.items():
            rows[name].append(x)
        action = np.clip(controller(see(k, seen) if see else seen), low, high)
        actions.append(action)
        if disturb:
            disturb(k, world)
        seen = world.step(send(k, action) if send else action)
    signals = {k: np.stack(x, axis=1) for k, x in rows.items()}
    return Attempts(signals | world.action_signals(np.stack(actions, axis=1)), world.events)


def _free_joint(task: Task) -> str:
    world = World(task, 1)
    values = task.scene.nominal(1)
    starts = task.starts(values, [np.random.Generator(np.random.Philox(key=0))])
    world.reset(values, [0])
    return next(j for j, x in starts.items() if x.shape[1] == 7)


def _bumped(task: Task, cell: dict[str, float], told: NDArray[np.float64], seed: int, rng: np.random.Generator):
    """Somebody knocks the object."""
    joint, when = _free_joint(task), int(rng.uniform(0.35, 0.6) * task.horizon_s * task.control_hz)
    blow = np.concatenate([rng.choice([-1, 1], 2) * rng.uniform(0.4, 0.9, 2), [0.0, 0, 0, 0]])
    return _closed(task, cell, told, seed,
                   disturb=lambda k, w: w.simulation.push(joint, blow[None]) if k == when else None)  # fmt: skip


def _stuck(task: Task, cell: dict[str, float], told: NDArray[np.float64], seed: int, rng: np.random.Generator):
    """A drive holds still from some moment on."""
    j = int(rng.integers(3))
    when, last = int(rng.uniform(0.05, 0.2) * task.horizon_s * task.control_hz), [np.zeros(0)]

    def send(k: int, action: NDArray[np.float64]) -> NDArray[np.float64]:
        if k < when:
            last[0] = action.copy()
            return action
        out = action.copy()
        out[:, j] = last[0][:, j]
        return out

    return _closed(task, cell, told, seed, send=send)


def _corrupted(task: Task, cell: dict[str, float], told: NDArray[np.float64], seed: int, rng: np.random.Generator):
    """The policy sees the object elsewhere than the log does."""
    off = np.zeros(4)
    off[:2] = rng.choice([-1, 1], 2) * rng.uniform(0.02, 0.05, 2)
    return _closed(task, cell, told, seed, see=lambda k, o: {**o, "object.pose": o["object.pose"] + off})


def _beyond(task: Task, cell: dict[str, float], told: NDArray[np.float64], seed: int, rng: np.random.Generator):
    """The command path is far slower than the scene allows."""
    own = next((p for p in task.scene.parameters if any(b.target == "command.delay" for b in p.binds)), None)
    return own and attempt(task, {**cell, own.path: own.high * rng.uniform(1.6, 2.5)}, told, seed)


def _slack(task: Task, cell: dict[str, float], told: NDArray[np.float64], seed: int, rng: np.random.Generator):
    """Play in every joint, several times what the scene allows."""
    return attempt(task, cell, told, seed, unmodelled=Unmodelled(backlash_rad=float(rng.uniform(0.03, 0.05))))


OUTSIDE = {"bumped": _bumped, "stuck": _stuck, "corrupted": _corrupted, "beyond": _beyond, "slack": _slack}


# counting -------------------------------------------------------------------------------------------------


def needed(p: Planted, change: Change) -> float | None:
    """The least change of a lever that the TRUE cell needs, in the direction of the answer; None when none helps."""
    task, case = p.task, p.case
    lever = next((x for x in levers_of(case) if x.path == change.path), None)
    lever = lever or parameter_lever(case, task.scene.parameter(change.path))
    values = {k: np.full(1, v) for k, v in p.truth.items()}
    # the true start, not the one that is seen
    starts = task.starts(values, [np.random.Generator(np.random.Philox(key=p.seed))])
    one = Variant(values, case.told[None], starts, [p.seed], np.full(1, np.inf), {})
    was = float(lever.to_unit(lever.read(one))[0])

    def wins(us: NDArray[np.float64], noises: int) -> NDArray[np.bool_]:
        n = len(us) * noises
        v = one.take(np.zeros(n, int))
        w = _written(task, lever, v, np.repeat(lever.from_unit(us), noises), p.seed)
        controller = case.policy(w.told)
        if np.isfinite(w.speed).any():
            controller = _limited(task, controller, w)
        seeds = [p.seed + 1000 * (i % noises) for i in range(n)]
        done = World(task, n).run(controller, w.values, seeds, starts=w.starts).judge(task)
        won = np.array([j.outcome == "success" for j in done]).reshape(len(us), noises)
        return np.asarray(won.mean(axis=1) > 0.5)

    side = 1.0 if change.change > 0 else 0.0
    us = was + (side - was) * np.linspace(0, 1, SWEEP)
    good = np.flatnonzero(wins(us, 3))
    if not len(good):
        return None
    first = us[good[0]]
    if good[0]:
        finer = np.linspace(us[good[0] - 1], first, FINE + 1)[1:]
        better = np.flatnonzero(wins(finer, NOISES))
        first = finer[better[0]] if len(better) else first
    x = lever.from_unit(np.array([was, first]))
    return float(lever.change(x[:1], x[1:])[0])


def _written(task: Task, lever: Lever, v: Variant, x: NDArray[np.float64], seed: int) -> Variant:
    """The variant with another value; the object stays where it truly was."""
    if lever.path not in {p.path for p in task.scene.parameters}:
        return lever.write(v, x)
    values = dict(v.values) | {lever.path: x}
    rngs = [np.random.Generator(np.random.Philox(key=seed)) for _ in v.seeds]
    return Variant(values, v.told, task.starts(values, rngs), v.seeds, v.speed, {})


def wilson(k: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not n:
        return 0.0, 1.0
    p, c = k / n, 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / c
    return (p + z * z / (2 * n)) / c - half, (p + z * z / (2 * n)) / c + half


def one(p: Planted, verbose: bool) -> dict[str, Any]:
    """Explain a planted failure and count."""
    cpu, wall = time.process_time(), time.perf_counter()
    found: Explanation = explain(p.case, draw_map=False)
    row: dict[str, Any] = {
        "task": p.task.name,
        "cause": p.cause,
        "kind": p.kind,
        "group": found.failure.group,
        "named": found.cause,
        "verdict": found.verdict,
        "right": found.cause == p.cause,
        "attempts": found.attempts,
        "alike": found.alike,
        "misfit": found.misfit,
        "sentence": found.sentence,
        "causes": [(c.path, round(c.share, 3)) for c in found.causes],
        "covered": None,
    }
    row["seconds"], row["cpu_seconds"] = time.perf_counter() - wall, time.process_time() - cpu
    if p.cause and found.verdict == "explained" and found.changes:
        change = next((c for c in found.changes if c.actionable), found.changes[0])
        truth = needed(p, change)
        row |= {"lever": change.path, "band": [change.low, change.high], "needed": truth}
        far = change.high if change.change > 0 else change.low
        row["covered"] = change.low <= truth <= change.high if truth is not None else not math.isfinite(far)
    if verbose:
        print(f"  {p.task.name} {p.cause or p.kind}: {found.sentence}", flush=True)
        print(f"     right {row['right']} covered {row['covered']} needed {row.get('needed')} alike {found.alike:.2f} "
              f"misfit {found.misfit:.2f} {row['cpu_seconds']:.0f} cpu s", flush=True)  # fmt: skip
    return row


def table(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Cause by (n, named first, band covers, seconds), and the sums with intervals."""
    out = [f"{'task':18} {'cause':28} {'n':>3} {'named':>6} {'covers':>7} {'cpu s':>6}"]
    inside = [r for r in rows if r["cause"]]
    for key in dict.fromkeys((r["task"], r["cause"]) for r in inside):
        own = [r for r in inside if (r["task"], r["cause"]) == key]
        banded = [r for r in own if r["covered"] is not None]
        out.append(f"{key[0]:18} {key[1]:28} {len(own):3} {sum(r['right'] for r in own):6} "
                   f"{sum(r['covered'] for r in banded):3}/{len(banded):<3} "
                   f"{np.mean([r['cpu_seconds'] for r in own]):6.0f}")  # fmt: skip
    banded = [r for r in inside if r["covered"] is not None]
    caught = [r for r in rows if not r["cause"]]
    for text, k, n in (
        ("first-named cause right", sum(r["right"] for r in inside), len(inside)),
        ("minimal-change band covers", sum(r["covered"] for r in banded), len(banded)),
        ("outside the model, caught", sum(r["verdict"] != "explained" for r in caught), len(caught)),
    ):
        low, high = wilson(k, n)
        out.append(f"{text}: {k} of {n} ({k / max(n, 1):.0%}, 95 % interval {low:.0%} to {high:.0%})")
    if rows:
        seconds = [r["seconds"] for r in rows]
        out.append(f"seconds a case: median {np.median(seconds):.0f}, "
                   f"most {max(seconds):.0f} (cpu {max(r['cpu_seconds'] for r in rows):.0f})")  # fmt: skip
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=60, help="planted failures (default: %(default)s)")
    parser.add_argument("--outside", type=int, default=15, help="outside the model (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", default=None, metavar="NAME", help="default: every one")
    parser.add_argument("--causes", nargs="+", default=None, metavar="NAME", help="only these")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows")
    parser.add_argument("--quiet", action="store_true", help="only the table")
    args = parser.parse_args()
    loaded = [tasks.load(name) for name in args.tasks or tasks.names()]
    rows: list[dict[str, Any]] = []
    barren: list[str] = []
    rng = np.random.default_rng(args.seed)
    wanted = {t.name: [c for c in rng.permutation(causes_of(t)) if not args.causes or c in args.causes] for t in loaded}
    kinds, seeds = list(OUTSIDE), count(args.seed * 1000 + 1)

    def keep(p: Planted) -> None:
        rows.append(one(p, not args.quiet))
        if args.json:
            args.json.write_text(json.dumps(rows, indent=1))

    inside = outer = tried = 0
    for k in count():  # the two kinds mixed, so that a run that is stopped counts, too
        task = loaded[k % len(loaded)]
        if inside < args.cases and any(wanted.values()) and wanted[task.name]:
            cause = wanted[task.name].pop(0)
            p = plant(task, cause, next(seeds))
            if p is None:
                barren.append(f"{task.name} {cause}")
            else:
                wanted[task.name].append(cause)
                inside += 1
                keep(p)
        done = inside >= args.cases or not any(wanted.values())
        if outer < args.outside and tried < 4 * args.outside and (done or inside * args.outside > outer * args.cases):
            task, kind, tried = loaded[tried % len(loaded)], kinds[(tried // len(loaded)) % len(kinds)], tried + 1
            p = outside(task, kind, next(seeds))
            if p is not None:
                outer += 1
                keep(p)
        elif done:
            break
    print(*table(rows), sep="\n")
    print("cells that were not planted:", ", ".join(f"{n} {why}" for why, n in REJECTED.items()) or "none")
    if barren:
        print("no failure could be planted for:", ", ".join(sorted(barren)))


if __name__ == "__main__":
    main()
