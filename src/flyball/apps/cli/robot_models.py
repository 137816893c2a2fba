"""``flyball robots import | export | diff``: models from one format to another, with what became of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.apps.cli.robots import NAMES, add_reading, reading, refuse_mixed_up, searched
from flyball.base import InputError, Missing

if TYPE_CHECKING:
    from flyball.robots.models import Imported
    from flyball.robots.models.diff import DiffReport

_MOST_LINES = 40
"""Changes shown on a terminal; the report has them all."""


def _reading(p: argparse.ArgumentParser) -> None:
    add_reading(p)
    p.add_argument("--no-motion", action="store_true", help="leave out the comparison of motions")


def add_robot_words(verb: Callable[..., argparse.ArgumentParser]) -> None:
    """The three words."""
    codes = "exit codes: 0 done, 2 the model does not import, 3 done with losses that are listed"
    p = verb("import", "read a URDF, MJCF or USD model and keep it as MJCF with its meshes and a sidecar", codes)
    p.add_argument("name", metavar="NAME", help=NAMES)
    p.add_argument("--out", type=Path, metavar="DIR", help="folder to write (default: the model's name)")
    _reading(p)
    p = verb("export", "write a model in another format, read it back, and say what became of it", codes)
    p.add_argument("name", metavar="NAME", help=NAMES)
    p.add_argument("--to", required=True, metavar="FORMAT", help="mjcf, urdf or usd")
    p.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder to write")
    _reading(p)
    p = verb("diff", "compare two models element by element, and by how they move", "exit codes: 0 equal, 1 not equal")
    p.add_argument("a", metavar="A", help=f"before: {NAMES}")
    p.add_argument("b", metavar="B", help="after: the same")
    _reading(p)


def run(args: argparse.Namespace, out: Output) -> int:
    """One of the words."""
    return {"import": _import, "export": _export, "diff": _diff}[args.what](args, out)


def _model(name: str, args: argparse.Namespace) -> Imported:
    """A model by its name in the zoo or by its file."""
    from flyball.robots.zoo.found import find

    imported = find(name, searched(args)).load(reading(args))
    refuse_mixed_up(imported, args)
    return imported


def _import(args: argparse.Namespace, out: Output) -> int:
    from flyball.robots.models.mjcf import file_stem

    imported = _model(args.name, args)
    return _write(args, imported, "mjcf", args.out or Path(file_stem(imported.name)), out)


def _export(args: argparse.Namespace, out: Output) -> int:
    from flyball.robots.models import model_formats

    if args.to not in model_formats.names():
        raise Missing.named("model format", args.to, model_formats.names(), where="flyball robots export")
    return _write(args, _model(args.name, args), args.to, args.out, out)


def _write(args: argparse.Namespace, imported: Imported, to: str, folder: Path, out: Output) -> int:
    """Write, read back, compare, and leave the report beside the model."""
    from flyball.base.durable import make_folder, write_json
    from flyball.robots.models import load, model_formats, sidecar
    from flyball.robots.models.diff import diff

    if folder.resolve() == imported.source.resolve().parent:
        raise InputError("the model's own folder", where=f"--out {folder}", allowed="another folder")
    make_folder(folder)
    path, lost = model_formats.load(to)().write(imported, folder)
    back = load(path)
    report = diff(imported.model, back.model)
    kept = [] if to == "mjcf" else sidecar.summary(sidecar.read_beside(path))
    document: dict[str, Any] = {
        "file": path,
        "source": imported.source,
        "format": imported.format,
        "base": imported.base,
        "mass": imported.model.mass,
        "licence": imported.licence,
        "notes": list(imported.notes),
        "losses": [*imported.losses, *lost],
        "only_in_sidecar": kept,
        "diff": report.to_json(),
        "motion": None,
    }
    lines = [f"{path} written ({imported.base} base, {imported.model.mass:.6g} kg)"]
    lines += [f"licence: {imported.licence or 'none found'}", *_report(report)]
    if not args.no_motion and imported.model.joints:
        from flyball.engines.compare import compare

        motion = compare(imported, back)
        document["motion"] = motion.to_json()
        lines += motion.lines()
    for text in imported.notes:
        out.note(f"note: {text}")
    for text in document["losses"]:
        out.note(f"warning: lost: {text}")
    for text in kept:
        out.note(f"warning: only in {sidecar.path_beside(path).name}: {text}")
    place = path.with_name(f"{path.name}.report.json")
    write_json(place, _plain(document))
    out.result(document, [*lines, f"{place} written"])
    return 3 if document["losses"] or not report.equal else 0


def _diff(args: argparse.Namespace, out: Output) -> int:
    from flyball.robots.models.diff import diff

    a, b = _model(args.a, args), _model(args.b, args)
    report = diff(a.model, b.model)
    document: dict[str, Any] = {**report.to_json(), "motion": None}
    lines = _report(report)
    if not args.no_motion and a.model.joints and b.model.joints:
        from flyball.engines.compare import compare

        motion = compare(a, b)
        document["motion"] = motion.to_json()
        lines += motion.lines()
    out.result(document, lines)
    return 0 if report.equal else 1


def _report(report: DiffReport) -> list[str]:
    columns = ("kind", "equal", "changed", "lost", "added")
    rows = [[str(x) for x in row] for row in report.rows()]
    width = [max(len(x) for x in column) for column in zip(columns, *rows, strict=True)]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip() for row in (columns, *rows)]
    lines += [c.line() for c in report.changes[:_MOST_LINES]]
    if len(report.changes) > _MOST_LINES:
        lines.append(f"... and {len(report.changes) - _MOST_LINES} more (--json has them all)")
    return lines


def _plain(x: Any) -> Any:
    """For JSON: paths as texts."""
    if isinstance(x, dict):
        return {k: _plain(v) for k, v in x.items()}
    if isinstance(x, list):
        return [_plain(v) for v in x]
    return str(x) if isinstance(x, Path) else x
