"""``flyball demo``: the whole loop on a virtual fleet, then a report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.apps.cli.tasks import list_parameters
from flyball.base import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the demo can be told."""
    parser.add_argument("--reality", type=Path, metavar="FILE", help="hidden physics of the robots (JSON); else drawn")
    parser.add_argument("--list-parameters", action="store_true", help="print what a reality may set, and exit")
    parser.add_argument(
        "--control", metavar="NAME", help="run a baseline instead of the loop, e.g. nominal, fixed-grip"
    )
    parser.add_argument("--seed", type=int, default=0, help="decides everything random (default: %(default)s)")
    parser.add_argument("--robots", type=int, default=6, metavar="N", help="robots in the fleet (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=4, metavar="N", help="turns of the loop (default: %(default)s)")
    parser.add_argument("--task", default="lift-fragile-v1", metavar="NAME", help="default: %(default)s")


def run(args: argparse.Namespace, out: Output) -> int:
    """Run the demo and write ``report.json`` and ``report.html``."""
    if args.list_parameters:
        list_parameters(args.task, out)
        return 0
    for name, value, least in (("--robots", args.robots, 1), ("--turns", args.turns, 1), ("--seed", args.seed, 0)):
        if value < least:
            raise InputError(f"{name} {value}", where="flyball demo", allowed=f"{least} or more")

    from flyball.apps.web.report import render
    from flyball.base.durable import write_durably
    from flyball.loop.demo import DemoConfig, run_demo

    config = DemoConfig(
        workspace=args.workspace,
        seed=args.seed,
        robots=args.robots,
        turns=args.turns,
        reality=args.reality,
        control=args.control,
        task=args.task,
    )
    with progress() as display:
        document = run_demo(config, display)
    folder = args.workspace / "reports"
    write_durably(folder / "report.json", json.dumps(document, indent=1).encode())
    write_durably(folder / "report.html", render(document).encode())
    out.result(document, [*_summary(document), "", f"report: {folder / 'report.html'}"])
    return 0


def _summary(document: dict[str, Any]) -> list[str]:
    lines = [f"{'turn':>4}  {'success of the fleet':<28}{'gap':>8}  {'released':<9}{'verdict':<11}failures"]
    for t in document["turns"]:
        f = t["fleet"]
        rate = f"{100 * f['success']:5.1f} %  [{100 * f['low']:.1f}, {100 * f['high']:.1f}]  of {f['trials']}"
        failures = ", ".join(f"{n} {g}" for g, n in t["failures"].items() if n) or "none"
        gap = "-" if t["gap"] is None else f"{t['gap']:.3g}"
        released = "yes" if t["released"] else "no"
        lines.append(f"{t['turn']:>4}  {rate:<28}{gap:>8}  {released:<9}{t['verdict'] or '-':<11}{failures}")
    return lines
