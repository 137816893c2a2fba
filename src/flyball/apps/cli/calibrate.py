"""``flyball calibrate``: fit scenes of recorded set-ups, or a robot's model, with held-out errors before and after."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.base import InputError

if TYPE_CHECKING:
    from flyball.calibration.audit_setups import SetupAudit
    from flyball.calibration.calibration import Calibration
    from flyball.calibration.tracks import Track
    from flyball.scenes import Scene


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What is calibrated from which recordings, and what decides randomness."""
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--rig", metavar="NAME", help="only this set-up (default: every one with recordings)")
    what.add_argument("--model", type=Path, metavar="FILE", help="a robot's model instead: MJCF, URDF or USD")
    parser.add_argument(
        "--parameters", type=Path, metavar="FILE",
        help="with --model: TOML of ranges, fixed values, owners, part numbers, and what else to fit",
    )  # fmt: skip
    parser.add_argument(
        "--episodes", default="", metavar="WHERE",
        help="with --model: a condition as for 'flyball episodes --where' (default: all that fit the model)",
    )  # fmt: skip
    parser.add_argument("--engine", metavar="NAME", help="with --model: the physics engine (default: mujoco)")
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
    for option in ("parameters", "episodes", "engine"):
        if getattr(args, option) and args.model is None:
            raise InputError(
                f"--{option} is of a robot's model", where="flyball calibrate", allowed="with --model FILE"
            )
    if args.out and not args.audit:
        args.out.mkdir(parents=True, exist_ok=True)  # before an hour of fitting
    return _rigs(args, out) if args.model is None else _model(args, out)


def _rigs(args: argparse.Namespace, out: Output) -> int:
    from flyball.base.workspace import Workspace
    from flyball.calibration.audit_setups import audit_recordings

    space = Workspace(args.workspace, create=False)
    audits = audit_recordings(space, rig=args.rig)
    if args.audit:
        return _audits(audits, out)
    if blocked := [line for a in audits for line in a.blocked]:
        more = f" (and {len(blocked) - 1} more)" if len(blocked) > 1 else ""
        raise InputError(blocked[0].removeprefix("refuse: ") + more, run_next="flyball calibrate --audit")
    from flyball.calibration.recordings import calibrate_recordings
    from flyball.calibration.rigs import rigs

    tracks: dict[str, list[Track]] | None = {} if args.out else None
    with progress() as display:
        found = calibrate_recordings(space, rig=args.rig, seed=args.seed, progress=display, tracks=tracks)
    files = [p for c in found for p in _write(args, c, rigs.load(c.rig)().scene, (tracks or {}).get(c.rig))]
    return _calibrations(found, out, files)


def _model(args: argparse.Namespace, out: Output) -> int:
    from flyball.base.workspace import Workspace
    from flyball.calibration.models.workspace import calibrate_found, recordings_of

    space = Workspace(args.workspace, create=False)
    found = recordings_of(
        space, args.model, parameters=args.parameters, where=args.episodes, engine=args.engine or "mujoco"
    )
    if args.audit:
        return _audits([found.audit()], out)
    with progress() as display:
        answer = calibrate_found(space, found, seed=args.seed, progress=display)
    scene = found.rig.scene
    files = [p for c in answer.calibrations for p in _write(args, c, scene, answer.tracks, answer.timestep)]
    return _calibrations(answer.calibrations, out, files)


def _audits(audits: Sequence[SetupAudit], out: Output) -> int:
    text = [line for a in audits for line in (*a.lines(), "")]
    out.result({"audits": [a.to_json() for a in audits]}, text[:-1])
    return 1 if any(a.refusals for a in audits) else 0


def _write(
    args: argparse.Namespace, c: Calibration, scene: Scene, tracks: Sequence[Track] | None, timestep: float = 0.0
) -> list[Path]:
    if not args.out:
        return []
    from flyball.apps.web.calibration import write_calibration

    return write_calibration(c, scene, tracks, args.out, timestep=timestep)


def _calibrations(found: Sequence[Calibration], out: Output, files: Sequence[Path]) -> int:
    lines = [line for c in found for line in (*c.lines(), "")] + [f"wrote {p}" for p in files] + [""] * bool(files)
    document = {"calibrations": [{"digest": c.digest, **c.to_json()} for c in found]}
    out.result(document | ({"files": [str(p) for p in files]} if files else {}), lines[:-1])
    return 0 if all(c.verdict == "improved" for c in found) else 1
