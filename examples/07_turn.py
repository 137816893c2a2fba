"""A turn of the loop on a tiny budget: attempts to rollout, through real processes.

    python examples/07_turn.py [--workspace DIR] [--turns N] [--robots N]

About a minute. The budget is far too small to learn well; ``flyball demo`` is the real thing.
"""

import argparse
import tempfile
from pathlib import Path

from flyball.apps.cli.progress import progress
from flyball.apps.web.report import render
from flyball.calibration.fleet import ReplayConfig
from flyball.datagen.demonstrations import DemonstrationConfig
from flyball.evaluation.verdicts import ComparisonRule
from flyball.learning.flow import FlowConfig
from flyball.loop.config import Budget, DemoConfig
from flyball.loop.demo import run_demo

TINY = Budget(
    attempts=4,
    replay=ReplayConfig(candidates=(24, 24), attempts=(1, 2), threads=1),
    demonstrations=24,
    windows=DemonstrationConfig(threads=1),
    first=FlowConfig(steps=150, width=64),
    later=FlowConfig(steps=150, width=64),
    rule=ComparisonRule(n_max=24, margin=0.3),
    pairs=24,
    canary=4,
    reproductions=2,
    workers=1,
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workspace", type=Path)
    parser.add_argument("--turns", type=int, default=1)
    parser.add_argument("--robots", type=int, default=2)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.workspace or Path(temporary)
        with progress() as display:
            document = run_demo(DemoConfig(folder, robots=args.robots, turns=args.turns, budget=TINY), display)
        for turn in document["turns"]:
            fleet = turn["fleet"]
            print(f"turn {turn['turn']}: {fleet['successes']} of {fleet['trials']} succeed; {turn['verdict']}")
        (folder / "report.html").write_text(render(document))
        print(f"report: {len(render(document)) // 1000} kB")


if __name__ == "__main__":  # the workers import this file
    main()
