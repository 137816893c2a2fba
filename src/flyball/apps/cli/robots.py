"""``flyball robots``: the bodies that tasks are done with, models found on this machine, and whether they are sound.

``list`` and ``check`` are here; a further word is one entry of ``_ELSEWHERE``: a module of this package with
``add_robot_words(verb)``, where ``verb(name, text)`` makes the word's parser, and ``run(args, out)``.
"""

from __future__ import annotations

import argparse
import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.base import FlyballError, InputError

if TYPE_CHECKING:
    from flyball.robots.models import Imported, ReadOptions
    from flyball.robots.zoo.check import Check
    from flyball.robots.zoo.found import FoundModel, Search

NAMES = "as listed, the end of such a name, or a model file"
_ELSEWHERE: dict[str, str] = dict.fromkeys(("import", "export", "diff"), "flyball.apps.cli.robot_models")
"""Word -> module."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and where to look."""
    _places(parser, None)
    what = parser.add_subparsers(dest="what", metavar="WHAT", title="what", parser_class=type(parser))

    def verb(name: str, text: str, epilog: str = "") -> argparse.ArgumentParser:
        p = what.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", epilog=epilog or parser.epilog
        )
        p.add_argument("--workspace", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        p.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document on stdout")
        return p

    p = verb("list", "list embodiments and the models found here (as no word at all does)")
    p.add_argument("words", nargs="*", metavar="WORD", help="only models whose name has all of these in it")
    _places(p, argparse.SUPPRESS)
    p = verb(
        "check",
        "import, compile and judge models: masses, limits, actuators, overlaps, half a second of simulation",
        "exit codes: 0 sound, 1 a model has errors, 2 a model does not import",
    )
    p.add_argument("names", nargs="*", metavar="NAME", help=NAMES)
    p.add_argument("--all", action="store_true", help="every model found; one line each")
    add_reading(p)
    for module in sorted(set(_ELSEWHERE.values())):
        importlib.import_module(module).add_robot_words(verb)


def _places(parser: argparse.ArgumentParser, default: Any) -> None:
    parser.add_argument(
        "--site",
        type=Path,
        default=default,
        metavar="DIR",
        help="look at the packages in this folder (of pip install --target, or a venv) instead of this Python's",
    )
    parser.add_argument(
        "--path",
        type=Path,
        action="append",
        default=default,
        metavar="DIR",
        help="look into this folder too; repeat (also: $FLYBALL_ROBOTS, $ROS_PACKAGE_PATH, $AMENT_PREFIX_PATH)",
    )


def add_reading(parser: argparse.ArgumentParser) -> None:
    """How to find and read a model; ``searched`` and ``reading`` take it."""
    _places(parser, argparse.SUPPRESS)
    parser.add_argument(
        "--base", choices=("fixed", "floating"), help="for URDF, which does not say it of the root link"
    )
    parser.add_argument(
        "--mend", action="store_true", help="make inertias of a URDF that no body can have just possible, and list them"
    )
    parser.add_argument(
        "--package",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="where package://NAME lies; repeat (also: the model's own package.xml, then $ROS_PACKAGE_PATH)",
    )
    parser.add_argument("--root", type=Path, metavar="DIR", help="files outside this folder are refused")
    parser.add_argument(
        "--as-it-is", action="store_true", help="take a model although its units are mixed up beyond doubt"
    )


def searched(args: argparse.Namespace) -> Search:
    """Where to look for models, from what ``add_reading`` added."""
    from flyball.robots.zoo.found import Search

    return Search(args.site, tuple(args.path or ()))


def reading(args: argparse.Namespace) -> ReadOptions:
    """Options of reading from what ``add_reading`` added.

    Raises:
      InputError: a package without a folder.
    """
    from flyball.robots.models import ReadOptions
    from flyball.robots.zoo.folders import ros_packages

    packages = {}
    for text in args.package:
        name, equals, folder = text.partition("=")
        if not (name and equals and Path(folder).is_dir()):
            raise InputError(f"--package {text!r}", allowed="NAME=DIR of a folder that exists")
        packages[name] = Path(folder)
    if args.root is not None and not args.root.is_dir():
        raise InputError("no such folder", where=f"--root {args.root}")
    around = ros_packages(os.environ)
    return ReadOptions(base=args.base, packages=packages, elsewhere=around, root=args.root, mend=args.mend)


def refuse_mixed_up(imported: Imported, args: argparse.Namespace) -> None:
    """Refuse what is in the wrong units, unless the user wants it as it is.

    Raises:
      InputError: naming the element.
    """
    from flyball.robots.models.plausibility import mixed_up

    if not args.as_it_is and (found := mixed_up(imported.model)):
        raise InputError(
            f"units are mixed up: {found}", where=str(imported.source), run_next="--as-it-is takes it nevertheless"
        )


def run(args: argparse.Namespace, out: Output) -> int:
    """One of them."""
    if args.what in _ELSEWHERE:
        return int(importlib.import_module(_ELSEWHERE[args.what]).run(args, out))
    where = searched(args)
    return _check(args, where, out) if args.what == "check" else _list(where, getattr(args, "words", []), out)


def _list(where: Search, words: list[str], out: Output) -> int:
    from flyball.robots.zoo.found import search

    bodies = _embodiments()
    models, missing = search(where)
    shown = [m for m in models if all(w in m.name for w in words)]
    document = {
        "embodiments": bodies,
        "models": [_model(m) for m in shown],
        "not_installed": [vars(m) for m in missing],
    }
    lines: list[str] = []
    if not words:
        told = [(b["name"], len(b["joints"]), b["spec_hash"][:12], ", ".join(b["tasks"]) or "-") for b in bodies]
        lines += [*_table(("embodiment", "joints", "spec", "tasks"), told), ""]
    rows = [(m.name, m.format, str(m.licence), m.version or "-") for m in shown]
    lines += _table(("model", "format", "licence", "version"), rows) if rows else ["no models"]
    if not words and missing:
        lines += [
            "",
            *_table(("not here", "what it holds", "how to get it"), [(m.package, m.about, m.get) for m in missing]),
        ]
    out.result(document, lines)
    return 0


def _embodiments() -> list[dict[str, Any]]:
    """Every embodiment in the table or named by a task, with its joints, signals and specification hash."""
    from flyball.robots.zoo import embodiments
    from flyball.tasks.task import tasks

    bodies = {name: (embodiments.load(name), []) for name in embodiments.names()}  # type: dict[str, tuple[Any, list[str]]]
    for name in tasks.names():
        body = tasks.load(name).embodiment
        bodies.setdefault(body.name, (body, []))[1].append(name)
    return [
        {
            "name": name,
            "joints": [vars(j) for j in body.joints],
            "observations": [s.to_json() for s in body.observations],
            "actions": [s.to_json() for s in body.actions],
            "spec_hash": body.spec_hash(),
            "tasks": used,
        }
        for name, (body, used) in sorted(bodies.items())
    ]


def _model(m: FoundModel) -> dict[str, Any]:
    licence = {"name": m.licence.name, "source": m.licence.source, "file": m.licence.file}
    file = None if m.mjcf else m.file
    return {"name": m.name, "format": m.format, "file": file, "version": m.version, "licence": licence}


def _table(columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> list[str]:
    cells = [columns, *[tuple(str(c) for c in row) for row in rows]]
    width = [max(len(x) for x in column) for column in zip(*cells, strict=True)]
    return ["  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip() for row in cells]


def _check(args: argparse.Namespace, where: Search, out: Output) -> int:
    from flyball.robots.zoo.check import check
    from flyball.robots.zoo.found import find, search

    if bool(args.names) == args.all:
        raise InputError(
            "which model?", where="flyball robots check", allowed="NAME ... or --all", run_next="flyball robots"
        )
    found = search(where)[0] if args.all else [find(name, where) for name in args.names]
    worst, document, lines, how = 0, [], [], reading(args)
    for m in found:
        try:
            done = check(m, how, lambda imported: refuse_mixed_up(imported, args))
        except FlyballError as err:
            if len(found) == 1:
                raise
            worst = 2
            document.append({**_model(m), "refused": err.line()})
            lines.append(f"{m.name}: does not import: {err.line()}")
            continue
        worst = max(worst, 0 if done.sound else 1)
        findings = [vars(f) for f in done.findings]
        told = {"sound": done.sound, "facts": done.facts, "mended": done.mended, "findings": findings}
        document.append({**_model(m), **told})
        lines.append(_summary(m, done))
        lines += [] if args.all else [f"  {_origin(m)}", _mended(done), *_told(done)]
    out.result(document, lines)
    return worst


def _summary(m: FoundModel, done: Check) -> str:
    count = {level: sum(f.level == level for f in done.findings) for level in ("error", "warning", "note")}
    told = ", ".join(f"{n} {level}{'s' * (n != 1)}" for level, n in count.items() if n) or "nothing to remark"
    f = done.facts
    parts = f"{f['dof']} dof, {f['actuators']} actuators, {f['bodies']} bodies, base {f['base']}"
    size = f"{f['mass']:.4g} kg, {f['extent']:.3g} m across"
    return f"{m.name}: {'sound' if done.sound else 'NOT SOUND'} ({parts}; {size}); {told}"


def _origin(m: FoundModel) -> str:
    if m.mjcf:
        return f"built by Flyball {m.version}; licence {m.licence}"
    beside = f" ({m.licence.source}{f': {m.licence.file}' if m.licence.file else ''})"
    return f"{m.file} ({m.format}); licence {m.licence}{beside}"


def _mended(done: Check) -> str:
    """Whether the model was changed to be read."""
    n = len(done.mended)
    if not n:
        return "  mended: nothing; what looks like a mix-up of units is said below, and never rescaled"
    return f"  mended: {n} inertia{'s' * (n > 1)}, listed below; what looks like a mix-up of units is never rescaled"


def _told(done: Check) -> list[str]:
    """One line per finding; elements of one kind with the same text share theirs."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for f in done.findings:
        kind, _, name = f.element.partition(" ")
        groups.setdefault((f.level, kind, f.text), []).append(name)
    return [
        f"  {level:<8}{kind} {', '.join(names)}".rstrip() + f": {text}" for (level, kind, text), names in groups.items()
    ]
