"""A whole run of the loop on a tiny budget, in a process of its own so that it can be killed.

Usage: tiny.py WORKSPACE OUT [--seed N] [--turns N] [--robots N] [--reality FILE] [--task NAME]. Writes the document to
OUT (JSON).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from flyball.base import FlyballError
from flyball.base.durable import write_durably
from flyball.calibration.fleet import ReplayConfig
from flyball.datagen.demonstrations import DemonstrationConfig
from flyball.evaluation.verdicts import ComparisonRule
from flyball.learning.flow import FlowConfig
from flyball.loop.config import Budget, DemoConfig
from flyball.loop.demo import run_demo

LEARN = FlowConfig(steps=150, width=64, depth=2, batch=128, warm_up=10)
TINY = Budget(
    attempts=4,
    replay=ReplayConfig(candidates=(24, 24), attempts=(1, 2), threads=1),
    demonstrations=24,
    windows=DemonstrationConfig(threads=1),
    first=LEARN,
    later=LEARN,
    rule=ComparisonRule(n_max=24, margin=0.3),
    pairs=24,
    canary=4,
    reproductions=2,
    workers=1,
)


class Lines:
    """Progress as lines on stderr, flushed, so that a test can see where the run is."""

    def stage(self, name, total=0):
        print(f"stage {name}", file=sys.stderr, flush=True)

    def at(self, done, total):
        pass

    def note(self, text):
        print(f"note {text}", file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("workspace", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--robots", type=int, default=2)
    parser.add_argument("--reality", type=Path)
    parser.add_argument("--task", default="lift-fragile-v1")
    a = parser.parse_args()
    config = DemoConfig(a.workspace, a.seed, a.robots, a.turns, a.reality, task=a.task, budget=TINY)
    try:
        document = run_demo(config, Lines())
    except FlyballError as err:
        print(err.line(), file=sys.stderr)
        return err.exit_code
    write_durably(a.out, json.dumps(document).encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
