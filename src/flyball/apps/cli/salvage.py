"""``flyball salvage FILE [-o OUT]``: a sound new MCAP file of what is intact in a damaged one."""

from __future__ import annotations

import argparse
import io
import shlex
import sys
from pathlib import Path

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import LogProgress, progress
from flyball.base import Damaged, InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which file, and where to."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a damaged MCAP file; it is not changed")
    parser.add_argument(
        "-o", "--out", type=Path, metavar="OUT", help="the new file (default: FILE's name.salvaged.mcap)"
    )
    parser.add_argument(
        "--unverified", action="store_true", help="keep also what no checksum vouches for; it may be wrong"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Salvage; exit code 3 when something is lost, or may be, and 2 when there is nothing to save."""
    from flyball.episodes.formats.mcap_salvage import KINDS, SalvagedMcap, write_salvaged

    if args.file.exists() and not args.file.is_file():
        raise InputError("not a file", where=str(args.file), allowed="an MCAP file")
    # Files are read several times: a spinner for those who wait, but nothing else than errors in a log.
    with progress() if sys.stderr.isatty() else LogProgress(io.StringIO()) as display:
        display.stage(f"reading {args.file}")
        file = SalvagedMcap(args.file, unverified=args.unverified)
    report = file.report
    if not report.recovered.total() and not report.complete:
        why = f"{report.withheld} messages that no checksum vouches for" if report.withheld else report.complaint
        hint = f"flyball salvage --unverified {shlex.quote(str(args.file))}" if report.withheld else ""
        raise Damaged(
            f"nothing can be saved ({why.removeprefix(f'{args.file} ')})", where=str(args.file), run_next=hint
        )
    target = args.out or args.file.with_name(f"{args.file.stem}.salvaged.mcap")
    if report.sound and args.out is None:
        out.note(f"{args.file}: sound, there is nothing to salvage")
        target = None
    else:
        write_salvaged(file, target)
    for offset, what in report.reasons:
        out.note(f"{args.file} at byte {offset}: {what}")
    counts = ("recovered", "discarded", "unverified")
    document = {
        "file": str(args.file),
        "out": str(target) if target else None,
        "complaint": report.complaint,
        "sound": report.sound,
        "complete": report.complete,
        "mixed": report.mixed,
        **{name: {kind: getattr(report, name)[kind] for kind in KINDS} for name in counts},
        "withheld": report.withheld,
        "reasons": [{"offset": offset, "what": what} for offset, what in report.reasons],
    }
    out.result(document, [report.line(), *([f"written to {target}"] if target else [])])
    return 0 if report.complete else 3
