"""``flyball scenes``: USD scenes, looked at, checked, composed of parts, and made of and into other formats."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flyball.apps.cli.output import Output
from flyball.base import InputError

if TYPE_CHECKING:
    from flyball.robots.models import Imported

_MOST_LINES = 40
"""Changes shown on a terminal; the report has them all."""
_USD = (".usda", ".usdc", ".usd", ".usdz")
_WORDS = ("show", "validate", "compose", "import", "export")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which file."""
    parser.usage = (
        "%(prog)s show FILE [--variant SET=CHOICE ...]\n"
        "       %(prog)s validate FILE\n"
        "       %(prog)s compose OUT.usda --part NAME=FILE ... [--under NAME=PRIM ...] [--option SET/CHOICE=FILE ...]\n"
        "                              [--layer FILE ...]\n"
        "       %(prog)s import MODEL --to OUT.usda|.usdc|.usdz\n"
        "       %(prog)s export FILE --to FOLDER [--as mjcf|urdf|usd] [--variant SET=CHOICE ...]"
    )
    parser.add_argument("what", metavar="show|validate|compose|import|export", help="what to do")
    parser.add_argument("file", type=Path, metavar="FILE", help="a .usda, .usdc, .usd or .usdz file; import: any model")
    parser.add_argument(
        "--variant", action="append", default=[], metavar="SET=CHOICE", help="show, export: choose, for this reading"
    )
    parser.add_argument(
        "--part",
        action="append",
        default=[],
        metavar="NAME=FILE[@x,y,z[,yaw]]",
        help="compose: a part, placed [m, deg]",
    )
    parser.add_argument(
        "--under", action="append", default=[], metavar="NAME=PRIM", help="compose: hang a part on another's prim"
    )
    parser.add_argument(
        "--payload",
        action="append",
        default=[],
        metavar="NAME",
        help="compose: the part of that name is a payload, which a viewer may leave unloaded",
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="SET/CHOICE=FILE[@x,y,z[,yaw]]",
        help="compose: one alternative of a variant set, the first is selected",
    )
    parser.add_argument(
        "--layer", action="append", default=[], type=Path, metavar="FILE",
        help="compose: somebody's layer over the parts, strongest first",
    )  # fmt: skip
    parser.add_argument("--to", type=Path, metavar="PATH", help="import: the file to write; export: the folder")
    parser.add_argument(
        "--as", dest="form", default="mjcf", metavar="FORMAT", help="export: mjcf | urdf | usd (default: mjcf)"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """One of the five; exit code 3 when something of a model was not carried."""
    verbs = {"show": _show, "validate": _validate, "compose": _compose, "import": _import, "export": _export}
    if args.what not in verbs:
        where = "flyball scenes"
        raise InputError(
            f"unknown word {args.what!r}", where=where, allowed=", ".join(_WORDS), run_next=f"{where} --help"
        )
    if args.what != "import" and args.file.suffix.lower() not in _USD:
        model = args.what != "compose" and args.file.suffix.lower() in (".xml", ".mjcf", ".urdf")
        raise InputError(
            f"{args.file} is no USD file by its name",
            where=f"flyball scenes {args.what}",
            allowed=", ".join(_USD),
            run_next=f"flyball scenes import {args.file} --to {args.file.stem}.usda" if model else "",
        )
    return verbs[args.what](args, out)


def _pairs(texts: Sequence[str], option: str, form: str) -> list[tuple[str, str]]:
    found = []
    for text in texts:
        key, equals, value = text.partition("=")
        if not (key and equals and value):
            raise InputError(f"{option} {text!r}", where="flyball scenes", allowed=form)
        found.append((key, value))
    return found


def _show(args: argparse.Namespace, out: Output) -> int:
    from flyball.scenes.usd.format import look

    imported, parsed = look(args.file, dict(_pairs(args.variant, "--variant", "SET=CHOICE")))
    m = imported.model
    counts = {k: len(getattr(m, k)) for k in ("bodies", "joints", "geoms", "actuators", "sensors", "cameras", "lights")}
    document = {
        "name": imported.name,
        "layers": list(parsed.layers),
        "variants": {k: {"selected": v[0], "choices": v[1:]} for k, v in parsed.variants.items()},
        **counts,
        "mass_kg": m.mass,
        "notes": list(imported.notes),
        "losses": list(imported.losses),
    }
    lines = [f"{imported.name}: {', '.join(f'{n} {k}' for k, n in counts.items() if n)}; {m.mass:.4g} kg"]
    lines += [f"  body   {b.name:<28} {b.mass:>9.4g} kg  on {b.parent}" for b in m.bodies.values()]
    lines += [f"  layer  {x}" for x in parsed.layers]
    for key, (selected, *choices) in parsed.variants.items():
        lines.append(f"  variant {key}: {', '.join(f'[{c}]' if c == selected else c for c in choices)}")
    out.result(document, lines)
    return _say(imported.notes, imported.losses, out)


def _say(notes: Sequence[str], losses: Sequence[str], out: Output) -> int:
    for note in notes:
        out.note(f"note: {note}")
    for loss in losses:
        out.note(f"lost: {loss}")
    return 3 if losses else 0


def _validate(args: argparse.Namespace, out: Output) -> int:
    from flyball.scenes.usd.validate import validate

    found = validate(args.file)
    lines = [
        f"{f.level}: {', '.join(f.sites)}: {f.text} ({f.rule}{', ' + f.variant if f.variant else ''})"
        for f in found.findings
    ]
    lines.append(f"{args.file}: {found.errors} errors, {found.warnings} warnings by {len(found.validators)} validators")
    document = {
        "errors": found.errors,
        "warnings": found.warnings,
        "findings": [vars(f) for f in found.findings],
        "validators": list(found.validators),
    }
    out.result(document, lines)
    return 1 if found.errors else 0


def _compose(args: argparse.Namespace, out: Output) -> int:
    from flyball.scenes.usd.composition import Part, VariantSet, compose

    under = dict(_pairs(args.under, "--under", "NAME=PRIM"))

    def part(name: str, text: str) -> Any:
        source, at, place = text.rpartition("@") if "@" in text else (text, "", "")
        pos, quat = _place(place, text) if at else ((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
        arc = "payload" if name in args.payload else "reference"
        return Part(name, Path(source), pos, quat, under=under.get(name, ""), arc=arc)  # type: ignore[arg-type]

    form = "NAME=FILE or NAME=FILE@x,y,z[,yaw]"
    parts = [part(n, text) for n, text in _pairs(args.part, "--part", form)]
    sets: dict[str, dict[str, Any]] = {}
    for key, text in _pairs(args.option, "--option", "SET/CHOICE=FILE[@x,y,z[,yaw]]"):
        name, _, choice = key.partition("/")
        if not choice:
            raise InputError(f"--option {key!r}", where="flyball scenes compose", allowed="SET/CHOICE=FILE")
        sets.setdefault(name, {})[choice] = [part(name, text)]
    unknown = [n for n in (*under, *args.payload) if n not in {p.name for p in parts} | set(sets)]
    if unknown:
        raise InputError(f"no part named {unknown[0]!r}", where="flyball scenes compose", allowed="names of --part")
    notes = compose(args.file, parts, variants=[VariantSet(n, c) for n, c in sets.items()], layers=args.layer)
    out.result({"file": str(args.file), "notes": notes}, [f"{args.file} written"])
    return _say(notes, (), out)


def _place(text: str, whole: str) -> tuple[tuple[float, float, float], tuple[float, float, float, float]]:
    try:
        numbers = [float(x) for x in text.split(",")]
        if len(numbers) not in (3, 4) or not np.isfinite(numbers).all():
            raise ValueError
    except ValueError:
        raise InputError(f"{whole!r}", where="flyball scenes compose", allowed="FILE@x,y,z or FILE@x,y,z,yaw") from None
    half = np.radians(numbers[3] if len(numbers) == 4 else 0.0) / 2
    return (numbers[0], numbers[1], numbers[2]), (float(np.cos(half)), 0.0, 0.0, float(np.sin(half)))


def _target(args: argparse.Namespace, what: str) -> Path:
    if args.to is None:
        raise InputError(f"--to says {what}", where=f"flyball scenes {args.what}", allowed="--to PATH")
    return Path(args.to)


def _import(args: argparse.Namespace, out: Output) -> int:
    from flyball.robots.models import load
    from flyball.scenes.usd.guard import need_pxr

    to = _target(args, "which file to write")
    need_pxr()
    imported = load(args.file)
    from flyball.scenes.usd.write import write

    return _judged(imported, to, write(imported, to), out)


def _export(args: argparse.Namespace, out: Output) -> int:
    from flyball.robots.models.imported import model_formats
    from flyball.scenes.usd.format import look

    to = _target(args, "which folder to write into")
    writer = model_formats.load(args.form)()
    imported, _ = look(args.file, dict(_pairs(args.variant, "--variant", "SET=CHOICE")))
    to.mkdir(parents=True, exist_ok=True)
    path, more = writer.write(imported, to)
    return _judged(imported, path, more, out)


def _judged(imported: Imported, path: Path, lost: Sequence[str], out: Output) -> int:
    """Read back what was written, compare elements and motion, and leave the report beside it."""
    from flyball.base.durable import write_durably
    from flyball.engines.compare import compare
    from flyball.robots.models import load
    from flyball.robots.models.diff import diff

    back = load(path)
    report = diff(imported.model, back.model)
    losses = [*imported.losses, *lost]
    document: dict[str, Any] = {"file": str(path), "notes": list(imported.notes), "losses": losses}
    document |= {"diff": report.to_json(), "motion": None}
    lines = [f"{path} written; " + ("every element equal" if report.equal else f"{len(report.changes)} changes")]
    lines += [f"  {c.line()}" for c in report.changes[:_MOST_LINES]]
    if imported.model.joints:
        motion = compare(imported, back)
        document["motion"] = motion.to_json()
        lines += motion.lines()
    place = path.with_name(f"{path.name}.report.json")
    write_durably(place, json.dumps(document, indent=1, default=str).encode())
    out.result(document, [*lines, f"{place} written"])
    return _say(imported.notes, losses, out) or (0 if report.equal else 3)
