"""``flyball ingest [PATH ...]``: logs become episodes; a second time adds nothing. ``--watch``: for ever."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import LogProgress, progress
from flyball.base import InputError

if TYPE_CHECKING:
    from flyball.base.workspace import Workspace
    from flyball.episodes import Episode, Outcome
    from flyball.episodes.ingest import IngestReport

_SHOWN = 5
"""Logs of one kind of note that are named."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the logs are, and how they are read."""
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files or folders; none: the inbox")
    parser.add_argument("--watch", action="store_true", help="stay, and ingest what comes into the inbox and the PATHs")
    parser.add_argument(
        "--workers", type=int, default=_cores(), metavar="N", help="processes that read logs (default: %(default)s)"
    )
    parser.add_argument(
        "--salvage", action="store_true", help="take the intact part of damaged logs, and list what was lost"
    )
    parser.add_argument(
        "--again",
        action="store_true",
        help="read known logs anew, with the channel maps as they are now; without PATH all logs of the workspace",
    )
    parser.add_argument(
        "--option", action="append", default=[], metavar="KEY=VALUE", help="a setting of a format; may be repeated"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Ingest; exit code 3 when a log was put aside, held back or not taken whole, each listed with its reason."""
    from flyball.base.workspace import Workspace

    if args.workers < 1:
        raise InputError(f"--workers {args.workers}", allowed="1 or more")
    if args.watch and args.again:
        raise InputError("--watch and --again", allowed="one of them")
    options = dict(_option(text) for text in args.option)
    for path in args.paths:
        _there(path)
    space = Workspace(args.workspace, create=bool(args.paths) or args.watch)
    return _watch(args, space, out) if args.watch else _once(args, space, options, out)


def _there(path: Path) -> None:
    """Refuse what is not there before a workspace is made for it."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError) as err:
        raise InputError("no such file or folder", where=str(path)) from err
    except OSError as err:
        raise InputError(f"cannot be read ({err.strerror})", where=str(path)) from err


def _once(args: argparse.Namespace, space: Workspace, options: dict[str, str], out: Output) -> int:
    from flyball.episodes.formats import formats_by_suffix
    from flyball.episodes.ingest import ingest

    with progress() as display:
        if sys.stderr.isatty():
            display.stage("ingest")
        report = ingest(
            space, args.paths or None, _judge, progress=_told(display), workers=args.workers,
            salvage=args.salvage, again=args.again, options=options,
        )  # fmt: skip
    if args.paths and not report.logs:
        where = ", ".join(map(str, args.paths))
        raise InputError("no log found", where=where, allowed=", ".join(sorted(formats_by_suffix())))
    if args.paths and not (report.added or report.known) and len(report.logs) == 1:
        (log,) = report.logs
        if not log.episodes and (log.status == "held" or Path(log.path).exists()):
            raise _refusal(log.path, log.reason)  # all that was asked for is not possible
    _tell(report, out)
    out.result(_document(report), [_summary(report)])
    if args.paths and all(x.status in ("quarantined", "held") and os.path.lexists(x.path) for x in report.logs):
        return 2
    return 3 if report.losses else 0


def _watch(args: argparse.Namespace, space: Workspace, out: Output) -> int:
    from flyball.episodes.watch import Watcher

    watcher = Watcher(space, args.paths, _judge, args.salvage, args.workers)
    reports: list[IngestReport] = []

    def each(report: IngestReport) -> None:
        reports.append(report)
        _tell(report, out)
        out.note(_summary(report))

    if threading.current_thread() is threading.main_thread():
        for s in (signal.SIGINT, signal.SIGTERM):
            signal.signal(s, lambda *_: watcher.stop.set())
    folders = ", ".join(str(p) for p in (space.inbox, *args.paths))
    out.note(f"watching {folders}; Ctrl-C ends it")
    watcher.run(each)
    counts = Counter(x.status for r in reports for x in r.logs)
    document = {"logs": dict(counts), "added": [d for r in reports for d in r.added]}
    out.result(document, [f"{len(document['added'])} episodes added from {sum(counts.values())} logs"])
    return 3 if any(r.losses for r in reports) else 0


def _told(display: LogProgress) -> Any:
    """Progress on a terminal; elsewhere a line every quarter of many logs."""
    if sys.stderr.isatty():
        return display.at
    told = 0

    def at(done: int, total: int) -> None:
        nonlocal told
        if total >= 200 and done < total and done * 4 // total > told:
            told = done * 4 // total
            display.note(f"{done} of {total} logs")

    return at


def _refusal(path: str, reason: str) -> InputError:
    return InputError(reason, where="" if reason.startswith(path) else path)


def _tell(report: IngestReport, out: Output) -> None:
    """One line for each loss, and one for each kind of note, however many logs it is about."""
    for kind, losses in (
        ("quarantined", report.quarantined),
        ("held back", report.held),
        ("salvaged", report.salvaged),
        ("not judged", report.unjudged),
    ):
        for what, reason in losses:
            said = "not taken" if kind == "quarantined" and os.path.lexists(what) else kind
            place = " ".join(what.split())  # a name may have several lines
            out.note(f"{said}: {reason}" if reason.startswith(place) else f"{said}: {place}: {reason}")
    notes: dict[tuple[str, str], list[str]] = {}
    for log in report.logs:
        for note in log.notes:
            if note.kind != "salvaged":
                notes.setdefault((note.kind, note.text), []).append(Path(log.path).name)
    for (kind, text), names in notes.items():
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        out.note(f"{kind}: {text} ({', '.join(names[:_SHOWN])}{more})")
    for path in report.maps:
        out.note(f"channel map: {path} (what it says holds for further logs; edit it, then: flyball ingest --again)")


def _summary(report: IngestReport) -> str:
    text = f"{len(report.added)} episodes added, {len(report.known)} were known"
    text += f", {len(report.quarantined)} files quarantined"
    for count, what in (
        (len(report.held), "held back"),
        (len(report.salvaged), "salvaged in part"),
        (len(report.superseded), "episodes superseded"),
    ):
        text += f", {count} {what}" if count else ""
    return text


def _document(report: IngestReport) -> dict[str, Any]:
    return {
        "added": list(report.added),
        "known": list(report.known),
        "superseded": list(report.superseded),
        "quarantined": [{"path": p, "reason": r} for p, r in report.quarantined],
        "held": [{"path": p, "reason": r} for p, r in report.held],
        "salvaged": [{"path": p, "lost": r} for p, r in report.salvaged],
        "unjudged": [{"episode": d, "reason": r} for d, r in report.unjudged],
        "maps": list(report.maps),
        "logs": [{**vars(x), "notes": [vars(n) for n in x.notes]} for x in report.logs],
    }


def _option(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"--option {text}", allowed="KEY=VALUE, for example table.time=t")
    return key, value


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not everywhere
        return os.cpu_count() or 1


def _judge(episode: Episode) -> tuple[Outcome, str, dict[str, Any]]:
    """The verdict of the episode's task on its logged signals; what the log says when no such task is installed."""
    from flyball.tasks.task import tasks

    if episode.task not in tasks.names():
        return episode.outcome, episode.group, {}
    signals = {name: s.values for name, s in episode.signals.items()}
    verdict = tasks.load(episode.task).judge(signals, [e.name for e in episode.events])
    return verdict.outcome, verdict.group, {"progress": verdict.progress}
