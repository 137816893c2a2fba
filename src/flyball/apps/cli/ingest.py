"""``flyball ingest [PATH ...]``: logs become episodes; a second time adds nothing."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.base import InputError

if TYPE_CHECKING:
    from flyball.episodes import Episode, Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the logs are."""
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="files or folders; none: the inbox")


def run(args: argparse.Namespace, out: Output) -> int:
    """Ingest; exit code 3 when a file was quarantined or an episode could not be judged, each with its reason."""
    from flyball.base.workspace import Workspace
    from flyball.episodes.formats import formats
    from flyball.episodes.ingest import ingest

    for path in args.paths:
        if not path.exists():
            raise InputError("no such file or folder", where=str(path))
    space = Workspace(args.workspace, create=bool(args.paths))
    with progress() as display:
        display.stage("ingest")
        report = ingest(space, args.paths or None, _judge, progress=display.at)
    if args.paths and not (report.added or report.known or report.quarantined):
        suffixes = sorted({s for name in formats.names() for s in formats.load(name).suffixes})
        raise InputError("no log found", where=", ".join(map(str, args.paths)), allowed=", ".join(suffixes))
    for kind, losses in (("quarantined", report.quarantined), ("not judged", report.unjudged)):
        for what, reason in losses:
            out.note(f"{kind}: {what}: {reason.removeprefix(f'{what}: ')}")
    document = {
        "added": list(report.added),
        "known": list(report.known),
        "quarantined": [{"path": p, "reason": r} for p, r in report.quarantined],
        "unjudged": [{"episode": d, "reason": r} for d, r in report.unjudged],
    }
    counts = f"{len(report.added)} episodes added, {len(report.known)} were known"
    out.result(document, [f"{counts}, {len(report.quarantined)} files quarantined"])
    return 3 if report.quarantined or report.unjudged else 0


def _judge(episode: Episode) -> tuple[Outcome, str, dict[str, Any]]:
    """The verdict of the episode's task on its logged signals; unknown when no such task is installed."""
    from flyball.tasks.task import tasks

    if episode.task not in tasks.names():
        return "unknown", "", {}
    signals = {name: s.values for name, s in episode.signals.items()}
    verdict = tasks.load(episode.task).judge(signals, [e.name for e in episode.events])
    return verdict.outcome, verdict.group, {"progress": verdict.progress}
