"""What an engine in a process of its own costs: a call through it against the same call in this process.

    python benchmarks/remote_engine.py [--engine mujoco] [--blocks 12] [--seconds 0.5] [--json FILE]

The lift scene, 10 substeps a call, one thread, with the reads of the task, at 1, 64 and 4,096 worlds; and a call that
does nothing (``lag``), which is the round trip. Both sides are timed in blocks that alternate; printed are the median
and the quartiles of the blocks' ratios. Wall time, because two processes work in turn: the machine should be idle.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flyball.engines import engines
from flyball.engines.remote import RemoteEngine
from flyball.tasks import tasks

SUBSTEPS = 10
TASK = "lift-fragile-v1"
WORLDS = (1, 64, 4096)


def seconds_per_call(call: Callable[[], Any], calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def compare(here: Callable[[], Any], there: Callable[[], Any], seconds: float, blocks: int) -> dict[str, float]:
    """Ratio of here to there, and seconds per call of both: medians, and quartiles of the ratio."""
    sides = (here, there)
    calls = [max(1, round(seconds / seconds_per_call(call, 2))) for call in sides]
    took = np.empty((blocks, 2))
    for k in range(blocks):
        for i in (0, 1) if k % 2 else (1, 0):
            took[k, i] = seconds_per_call(sides[i], calls[i])
    low, ratio, high = np.percentile(took[:, 0] / took[:, 1], (25, 50, 75))
    return {
        "ratio": float(ratio),
        "quartile_low": float(low),
        "quartile_high": float(high),
        "here_us": 1e6 * float(np.median(took[:, 0])),
        "there_us": 1e6 * float(np.median(took[:, 1])),
    }


def measure(engine: str, worlds: tuple[int, ...], seconds: float, blocks: int) -> list[dict[str, Any]]:
    task = tasks.load(TASK)
    rest = task.control(task.rest_action(task.scene.nominal(1)))
    reads = dict(task.reads)
    remote = RemoteEngine(engine)
    rows = []
    for n in worlds:
        controls = np.tile(rest[:, None], (n, SUBSTEPS, 1))
        here, there = (e.open(task.scene, n, threads=1) for e in (engines.in_process(engine)(), remote))
        same = [s.step(controls, reads) for s in (here, there)]
        if not all(np.array_equal(same[0][k], same[1][k]) for k in reads):
            raise SystemExit(f"{n} worlds: the bits differ")
        if n == 1:
            row = compare(lambda s=here: s.lag("time"), lambda s=there: s.lag("time"), seconds, blocks)
            rows.append({"what": "round trip", **row})
        row = compare(
            lambda s=here, c=controls: s.step(c, reads), lambda s=there, c=controls: s.step(c, reads), seconds, blocks
        )
        rows.append({"what": f"{n} worlds", **row})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--engine", default="mujoco")
    parser.add_argument("--blocks", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("--json", type=Path)
    a = parser.parse_args()
    rows = measure(a.engine, WORLDS, a.seconds, a.blocks)
    for r in rows:
        span = f"{r['ratio']:.3f} ({r['quartile_low']:.3f} to {r['quartile_high']:.3f})"
        print(f"{r['what']:<12} {span:<26} {r['here_us']:12,.1f} us here {r['there_us']:12,.1f} us there")
    if a.json:
        a.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
