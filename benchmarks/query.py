"""How long questions to a large catalogue take: ``python benchmarks/query.py [--episodes N] [--workspace DIR]``.

Makes N synthetic episodes (10 s of a seven-joint arm at 50 Hz, a gripper's force, events, labels, verdicts), unless the
folder holds them from an earlier run, and prints the median and range of the seconds (and of the processor's, which a
loaded machine inflates less) that each kind of question takes:
conditions over rows, labels, signals, events and verdicts, aggregates, and "find more like this window". A motif is
planted in some episodes, noisy, shifted in time and scaled: how many of the nearest matches are planted is printed too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, Timed
from flyball.base.workspace import Workspace
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.codec import encode
from flyball.episodes.episode import Event
from flyball.episodes.query import ask, select
from flyball.episodes.similarity import like

HZ, SECONDS, JOINTS = 50, 10.0, 7
PLANTED_EVERY = 200
MOTIF_S = 1.2

Array = NDArray[np.float64]


def moves(rng: np.random.Generator, n: int) -> Array:
    """Minimum-jerk moves between random poses, with pauses and sensor noise: (n, JOINTS) [rad]."""
    q, out = rng.uniform(-1, 1, JOINTS), np.empty((n, JOINTS))
    at = 0
    while at < n:
        steps = int(rng.integers(20, 100))
        s = np.linspace(0, 1, steps)[:, None]
        goal = q + rng.uniform(-1, 1, JOINTS) * (rng.random() < 0.8)
        path = q + (goal - q) * s**3 * (10 - 15 * s + 6 * s**2)
        out[at : at + steps] = path[: n - at]
        at, q = at + steps, goal
    return out + rng.normal(0, 2e-3, out.shape)


def motif(t: Array) -> Array:
    """What happens when the arm strikes something: a damped oscillation on top of whatever it does."""
    ring = np.exp(-3 * t) * np.sin(2 * np.pi * 4 * t) * (t >= 0) * (t <= MOTIF_S)
    return ring[:, None] * np.linspace(0.1, 0.6, JOINTS)


def episode(i: int, seed: int) -> tuple[Episode, float]:
    """An episode and when the motif begins in it [s], -1 where it was not planted."""
    rng = np.random.default_rng([seed, i])
    n = int(HZ * SECONDS)
    t_ns = (np.arange(n) * 10**9 // HZ).astype(np.int64) + i * 3600 * 10**9
    position = moves(rng, n)
    begin = -1.0
    if i % PLANTED_EVERY == 0:
        begin = float(rng.uniform(1, SECONDS - MOTIF_S - 1))
        still = slice(int((begin - 0.1) * HZ), int((begin + MOTIF_S + 0.1) * HZ))
        position[still] = position[still].mean(axis=0) + rng.normal(0, 2e-3, position[still].shape)
        position += rng.uniform(0.6, 1.6) * motif(np.arange(n) / HZ - begin)
    force = np.abs(rng.normal(0, 1, n)) + 5 * (begin >= 0)
    signals = {
        "joint.position": Timed(SignalSpec("joint.position", (JOINTS,), "float32", "rad"), t_ns, position.astype("f4")),
        "gripper.force": Timed(SignalSpec("gripper.force", (), "float32", "N"), t_ns, force.astype("f4")),
    }
    e = Episode(
        "flyarm",
        robot=f"robot-{i % 20:02d}",
        task="lift-fragile-v1",
        outcome="failure" if rng.random() < 0.2 else "success",
        signals=signals,
        events=(Event(int(t_ns[n // 2]), "crushed"),) if rng.random() < 0.05 else (),
        labels={"turn": i // 500, "kp": float(rng.uniform(50, 150)), "operator": f"op-{i % 7}"},
        seed=i,
    )
    return e, begin


def build(catalogue: Catalogue, n: int, seed: int) -> None:
    """Make what is missing of the n episodes."""
    store = catalogue.store
    for at in range(len(catalogue.query()), n, 256):
        made = [episode(i, seed)[0] for i in range(at, min(at + 256, n))]
        digests = store.keep(*map(encode, made))
        with store.transaction():
            for j, (digest, e) in enumerate(zip(digests, made, strict=True)):
                catalogue.register(digest, e, producer="benchmarks/query.py")
                verdict = "drop" if (at + j) % 10 == 0 else "keep"
                catalogue.add_verdict(digest, "frozen-signal", verdict, "for the benchmark", "1")


def rows_of(catalogue: Catalogue, sql: str) -> list[tuple[Any, ...]]:
    """The rows that answer an SQL query."""
    return ask(catalogue, sql).rows


def timed(name: str, ask_it: Callable[[], Any], repeat: int) -> Any:
    """Ask repeatedly; prints the first time, and the median and range of the others."""
    seconds, busy = [], []
    for _ in range(repeat + 1):
        begin, used = time.perf_counter(), time.process_time()
        found = ask_it()
        seconds.append(time.perf_counter() - begin)
        busy.append(time.process_time() - used)
    rest = sorted(seconds[1:])
    print(
        f"{name:<68} first {seconds[0]:7.3f} s, then median {rest[len(rest) // 2]:.3f} s"
        f" ({rest[0]:.3f} to {rest[-1]:.3f} s; {sorted(busy[1:])[len(rest) // 2]:.3f} s of CPU), {len(found)} rows",
        flush=True,
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=10_000)
    parser.add_argument("--workspace", type=Path, help="kept for the next run (default: a temporary folder)")
    parser.add_argument("--repeat", type=int, default=9)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run(Catalogue(Workspace(args.workspace or Path(temporary) / "w").store), args)


def run(catalogue: Catalogue, args: argparse.Namespace) -> None:
    begin = time.perf_counter()
    build(catalogue, args.episodes, args.seed)
    print(f"{args.episodes} episodes made in {time.perf_counter() - begin:.1f} s")
    for where in (
        "outcome = 'failure' AND robot = 'robot-03'",
        "labels.turn >= 10 AND labels.kp < 60",
        "joint.position[2].max > 1.5 AND gripper.force.mean > 0.7",
        "event.crushed.count > 0 AND outcome = 'success'",
        "\"verdict.frozen-signal\" = 'drop' AND joint.position.max > 2",
    ):
        timed(f"--where {where}", partial(select, catalogue, where), args.repeat)
    for sql in (
        "SELECT robot, count(*), avg(gripper.force.max) FROM episodes GROUP BY robot ORDER BY robot",
        "SELECT signal, element, max(max) FROM signals GROUP BY ALL",
    ):
        timed(f"--sql {sql}"[:66], partial(rows_of, catalogue, sql), args.repeat)

    rows = catalogue.query()
    truth = {rows[i].digest: episode(i, args.seed)[1] for i in range(0, min(args.episodes, len(rows)), PLANTED_EVERY)}
    digest, start = next(iter(truth.items()))
    top = min(10, len(truth) - 1)
    for signal, by, stretch in (
        ("joint.position", "shape", 1.0),
        ("joint.position", "motion", 1.0),
        ("joint.position", "values", 1.0),
        ("joint.position[6]", "shape", 1.0),
        ("joint.position", "shape", 1.3),
    ):
        question = partial(like, catalogue, digest, signal, start, start + MOTIF_S, by=by, stretch=stretch, top=top)
        found = timed(f"like {signal} by {by}, stretch {stretch:g}", question, args.repeat)
        right = sum(abs(m.start_s - truth.get(m.digest, -9)) < 0.1 for m in found)
        print(f"    {right} of the nearest {len(found)} are the planted motif, {len(truth) - 1} others were planted")


if __name__ == "__main__":
    main()
