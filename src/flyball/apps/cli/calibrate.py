"""``flyball calibrate``: fit the scenes of recorded set-ups, with held-out errors before and after."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.base import InputError

if TYPE_CHECKING:
    from flyball.calibration.tracks import Track


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which set-up, and what decides randomness."""
    parser.add_argument("--rig", metavar="NAME", help="only this set-up (default: every one with recordings)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything random (default: %(default)s)")
    parser.add_argument("--audit", action="store_true", help="say what the recordings are worth, and fit nothing")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="also write card, overlay (MJCF and USD), samples and a page here"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Calibrate; exit code 1 when a set-up's held-out error did not improve or nothing is identifiable.

    With ``--audit`` it is 1 when recordings would be refused.
    """
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}", where="flyball calibrate", allowed="0 or more")
    from flyball.base.workspace import Workspace

    space = Workspace(args.workspace, create=False)
    from flyball.calibration.audit_setups import audit_recordings

    audits = audit_recordings(space, rig=args.rig)
    if args.audit:
        text = [line for a in audits for line in (*a.lines(), "")]
        out.result({"audits": [a.to_json() for a in audits]}, text[:-1])
        return 1 if any(a.refusals for a in audits) else 0
    refusals = [line for a in audits for line in a.refusals]
    if refusals:
        more = f" (and {len(refusals) - 1} more)" if len(refusals) > 1 else ""
        raise InputError(refusals[0].removeprefix("refuse: ") + more, run_next="flyball calibrate --audit")
    from flyball.calibration.recordings import calibrate_recordings

    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)  # before an hour of fitting
    tracks: dict[str, list[Track]] | None = {} if args.out else None
    with progress() as display:
        found = calibrate_recordings(space, rig=args.rig, seed=args.seed, progress=display, tracks=tracks)
    lines = [line for c in found for line in (*c.lines(), "")]
    files: list[Path] = []
    if tracks is not None:
        from flyball.apps.web.calibration import write_calibration
        from flyball.calibration.rigs import rigs

        for c in found:
            files += write_calibration(c, rigs.load(c.rig)().scene, tracks[c.rig], args.out)
        lines += [*(f"wrote {p}" for p in files), ""]
    document = {"calibrations": [{"digest": c.digest, **c.to_json()} for c in found]}
    out.result(document | ({"files": [str(p) for p in files]} if files else {}), lines[:-1])
    return 0 if all(c.verdict == "improved" for c in found) else 1
