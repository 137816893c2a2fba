"""``flyball drift``: which robots have changed since they were calibrated, with a stated rate of false alarms."""

from __future__ import annotations

import argparse
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.base import InputError

if TYPE_CHECKING:
    from flyball.calibration.fit import Progress
    from flyball.loop.drift import Watched


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stated rate, what counts as sound, and whether to stay."""
    parser.add_argument(
        "--rate", default="1 per 1000 h", metavar="TEXT",
        help="false alarms per robot and hours of its episodes, at most (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--baseline", type=int, default=30, metavar="N",
        help="episodes after a calibration that are taken for the sound robot (default: %(default)s); a small change "
        "is found sooner after 60 or 100 of them",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="breaks ties among residuals (default: %(default)s)")
    parser.add_argument("--watch", action="store_true", help="stay, and say so when a robot changes its state")
    parser.add_argument(
        "--every", type=float, default=60.0, metavar="S", help="with --watch: seconds between looks (default: 60)"
    )
    parser.add_argument(
        "--serviced",
        metavar="ROBOT",
        help="the robot was repaired: the loop calibrates it again from its next attempts",
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Look at new episodes; exit code 1 when a robot drifts, 3 when an episode could not be replayed."""
    for name, value, least in (("--seed", args.seed, 0), ("--baseline", args.baseline, 2)):
        if value < least:
            raise InputError(f"{name} {value}", where="flyball drift", allowed=f"{least} or more")
    if not 0 < args.every <= 86_400:
        raise InputError(f"--every {args.every:g}", where="flyball drift", allowed="more than 0 s, at most a day")
    if args.serviced is not None and args.watch:
        raise InputError("--watch and --serviced", where="flyball drift", allowed="one of them")
    from flyball.calibration.drift import hours_per_alarm

    hours = hours_per_alarm(args.rate)
    from flyball.base.workspace import Workspace

    space = Workspace(args.workspace, create=False)
    from flyball.loop.drift import alarms, serviced, watch

    if args.serviced is not None:
        line = serviced(space, args.serviced)
        out.result({"serviced": args.serviced, "text": line}, [line])
        return 0

    def look(display: Progress | None = None) -> list[Watched]:
        return watch(space, hours=hours, baseline=args.baseline, seed=args.seed, progress=display)

    if args.watch:
        found = _stay(look, args.every, out, _interrupted())
    else:
        with progress() as display:
            found = look(display)
    told = alarms(space)
    for robot in found:
        for line in robot.unreadable:
            out.note(f"left out: {line}")
    document: dict[str, Any] = {"hours_per_false_alarm": hours, "robots": [asdict(w) for w in found], "alarms": told}
    out.result(document, [*(w.line() for w in found), *(f"turn {a['turn']}: {a['text']}" for a in told)])
    return _code(found)


def _interrupted() -> threading.Event:
    """Set by Ctrl-C, or when the process is asked to end."""
    stop = threading.Event()
    if threading.current_thread() is threading.main_thread():
        for s in (signal.SIGINT, signal.SIGTERM):
            signal.signal(s, lambda *_: stop.set())
    return stop


def _stay(look: Callable[[], list[Watched]], every: float, out: Output, stop: threading.Event) -> list[Watched]:
    """Look again and again until told to stop; says what has become another. Returns what was found last."""
    states: dict[tuple[str, str], tuple[str, str]] = {}
    out.note(f"a look every {every:g} s; Ctrl-C ends it")
    while True:
        found = look()
        for robot in found:
            who, state = (robot.robot, robot.of), (robot.state, robot.calibration)
            if states.get(who) != state:
                out.note(robot.line())
            states[who] = state
        if stop.wait(every):
            return found


def _code(found: Sequence[Watched]) -> int:
    if any(w.state == "drifting" for w in found):
        return 1
    return 3 if any(w.unreadable for w in found) else 0
