"""``flyball drift``: which robots have changed since they were calibrated, with a stated rate of false alarms."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.base import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stated rate, and what counts as sound."""
    parser.add_argument(
        "--rate", default="1 per 1000 h", metavar="TEXT",
        help="false alarms per robot and hours of its episodes, at most (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", type=int, default=30, metavar="N",
        help="episodes after a calibration that are taken for the sound robot (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="breaks ties among residuals (default: %(default)s)")


def run(args: argparse.Namespace, out: Output) -> int:
    """Look at new episodes; exit code 1 when a robot drifts, 3 when an episode could not be replayed."""
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}", where="flyball drift", allowed="0 or more")
    if args.baseline < 2:
        raise InputError(f"--baseline {args.baseline}", where="flyball drift", allowed="2 or more")
    from flyball.calibration.drift import hours_per_alarm

    hours = hours_per_alarm(args.rate)
    from flyball.base.workspace import Workspace

    space = Workspace(args.workspace, create=False)
    from flyball.loop.drift import watch

    with progress() as display:
        found = watch(space, hours=hours, baseline=args.baseline, seed=args.seed, progress=display)
    for robot in found:
        for line in robot.unreadable:
            out.note(f"left out: {line}")
    out.result(
        {"hours_per_false_alarm": hours, "robots": [asdict(w) for w in found]}, [w.line() for w in found]
    )  # fmt: skip
    if any(w.state == "drifting" for w in found):
        return 1
    return 3 if any(w.unreadable for w in found) else 0
