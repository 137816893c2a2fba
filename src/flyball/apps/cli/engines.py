"""``flyball engines``: physics engines, what they declare they can do, and what the laws of mechanics say of it."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.base import InputError, Missing, NotPossible

if TYPE_CHECKING:
    from flyball.engines import Engine
    from flyball.engines.card import Card, Law, Mark

_LEVELS = ("exact", "approximate", "unsupported")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which engines."""
    parser.epilog = "exit codes: 0 done, 1 an engine breaks a law (check), 2 no such engine, or one that is not there"
    what = parser.add_subparsers(dest="what", metavar="WHAT", title="what", parser_class=type(parser))

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        p = what.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=parser.epilog)
        p.add_argument("--workspace", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        p.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document on stdout")
        return p

    p = verb("list", "list engines: formulation, version or how to install it, and what it can do (as no word does)")
    p.add_argument("names", nargs="*", metavar="NAME", help="only these")
    p = verb("check", "put engines to the laws of mechanics, each with a tolerance that was declared beforehand")
    p.add_argument(
        "names", nargs="*", metavar="NAME", help="which (default: those installed that need no long compilation)"
    )
    p.add_argument("--all", action="store_true", help="all that are installed; takes many minutes on a CPU")
    p.add_argument("--law", action="append", metavar="LAW", help="this law alone; may be repeated")
    p.add_argument("--html", type=Path, metavar="FILE", help="also write the cards as a page")
    p.add_argument("--markdown", type=Path, metavar="FILE", help="also write laws by engines as a Markdown table")


def run(args: argparse.Namespace, out: Output) -> int:
    """List engines, or check them; exit code 1 when a law is broken."""
    if args.what != "check":
        return _list(getattr(args, "names", []), out)
    laws = _laws(args.law)
    cards = _cards(_chosen(args.names, args.all, out), laws, out)
    lines = [line for card in cards for line in _lines(card)]
    document = [c.to_json() for c in cards]
    for path, render in ((args.html, _page), (args.markdown, _markdown)):
        if path is not None:
            from flyball.base.durable import write_durably

            write_durably(path, render(document).encode())
            lines.append(f"{path} written")
    out.result(document, lines)
    return 0 if all(c.passed for c in cards) else 1


def _list(names: Sequence[str], out: Output) -> int:
    """One that lacks its library is listed with what it needs."""
    from flyball.engines import engines, traits

    found, lines = [], []
    for name in names or engines.names():
        row: dict[str, Any] = {"name": name, "version": "", "capabilities": {}}
        try:
            engine = engines.load(name)()
        except NotPossible as err:
            lines += [name, f"  not installed   {err.line()}"]
            found.append(row | {"missing": err.line()})
            continue
        kind = traits(engine)
        row |= {"version": engine.version, "capabilities": dict(engine.capabilities)}
        found.append(row | {"formulation": kind.formulation, "precision": kind.precision, "warm_up": kind.warm_up})
        lines += [name, f"  version         {engine.version}"]
        lines.append(f"  formulation     {kind.formulation}, {kind.precision} precision")
        for level in _LEVELS:
            features = [k for k, v in engine.capabilities.items() if v == level]
            if features:
                lines.append(f"  {level:<14}  {', '.join(features)}")
    out.result(found, lines)
    return 0


def _laws(names: Sequence[str] | None) -> Sequence[Law]:
    from flyball.engines.card import LAWS

    known = {law.name: law for law in LAWS}
    for name in names or ():
        if name not in known:
            raise Missing.named("law", name, known, where="--law")
    return [known[n] for n in names] if names else LAWS


def _chosen(names: Sequence[str], everything: bool, out: Output) -> list[Engine]:
    """The engines to check. One that is named must be there; of the others it is said why one is left out.

    Raises:
      InputError: names beside ``--all``. Missing: no such engine. NotPossible: a named one is not installed.
    """
    from flyball.engines import engines, traits

    if names:
        if everything:
            raise InputError("names beside --all", where="flyball engines check", allowed="one of the two")
        return [engines.load(name)() for name in dict.fromkeys(names)]
    chosen: list[Engine] = []
    left: dict[str, list[str]] = {}
    for name in engines.names():
        try:
            engine = engines.load(name)()
        except NotPossible as err:
            out.note(f"left out: {name}: {err.line()}")
            continue
        warm_up = "" if everything else traits(engine).warm_up
        if warm_up:
            left.setdefault(warm_up, []).append(name)
        else:
            chosen.append(engine)
    for why, those in left.items():
        out.note(f"left out: {', '.join(those)}: {why}. Name it, or give --all")
    if not chosen:
        raise NotPossible("no engine is installed", where="flyball engines check", run_next="flyball engines list")
    return chosen


def _cards(chosen: Sequence[Engine], laws: Sequence[Law], out: Output) -> list[Card]:
    from flyball.apps.cli.progress import progress
    from flyball.engines.card import examine

    last = {law.family: law.name for law in laws}
    cards = []
    with progress() as p:
        for engine in chosen:
            marks: list[Mark] = []

            def tell(mark: Mark, name: str = engine.name, marks: list[Mark] = marks) -> None:
                marks.append(mark)
                p.advance()
                if mark.law == last[mark.family]:
                    p.note(f"{name}, {mark.family.lower()}: {_counts([m for m in marks if m.family == mark.family])}")

            p.stage(f"{engine.name}: {len(laws)} law{'s' if len(laws) > 1 else ''}", len(laws))
            cards.append(examine(engine, laws, tell))
    return cards


def _counts(marks: Sequence[Mark]) -> str:
    counts = {r: sum(m.result == r for m in marks) for r in ("passed", "failed", "unsupported")}
    return ", ".join(f"{n} {r}" for r, n in counts.items() if n)


def _lines(card: Card) -> list[str]:
    asked = any(m.result != "unsupported" for m in card.marks)
    lines = [f"{card.engine} {card.version}: {'FAILED' if not card.passed else 'passed' if asked else 'unsupported'}"]
    for m in card.marks:
        result = "FAILED" if m.result == "failed" else m.result
        error = "" if m.result == "unsupported" else f"{m.error:.2g} (at most {m.tolerance:.2g})"
        lines.append(f"  {result:<12}{m.law:<24}{error:<26}{m.note}")
    return lines


def _page(document: Sequence[Mapping[str, Any]]) -> str:
    from flyball.apps.web.card import render

    return render(document)


def _markdown(cards: Sequence[Mapping[str, Any]]) -> str:
    """Families of laws by engines, what failed and by how much, and what is declared."""
    families = list(dict.fromkeys(m["family"] for c in cards for m in c["marks"]))
    counted = [[_share([m for m in c["marks"] if m["family"] == f]) for f in families] for c in cards]
    features = list(dict.fromkeys(k for c in cards for k in c["capabilities"]))
    declared = [[c["capabilities"].get(k, "unsupported") for c in cards] for k in features]
    names = [c["engine"] for c in cards]
    kinds = [[c["engine"], c["version"], c["formulation"], c["precision"]] for c in cards]
    broken = [
        [c["engine"], m["law"], "-" if m["error"] is None else f"{m['error']:.2g}", f"{m['tolerance']:.2g}", m["note"]]
        for c in cards
        for m in c["marks"]
        if m["result"] == "failed"
    ]
    parts = [
        "# Physics engines and what mechanics says of them",
        "Written by `flyball engines check --all --markdown docs/engines.md`; not edited by hand. A law's tolerance is "
        "declared with its reason beside the law (`flyball engines check --html FILE` shows both); what an engine "
        "cannot be asked is no failure.",
        _rows(["engine", "version", "formulation", "precision"], kinds),
        "Engines of one formulation make the same errors: they count as one vote where engines are compared.",
        "## Laws kept, of those that an engine can be asked",
        _rows(["engine", *families], [[n, *row] for n, row in zip(names, counted, strict=True)]),
        "## Laws broken",
        _rows(["engine", "law", "off by", "at most", "measured"], broken) if broken else "None.",
        "## What is declared",
        _rows(["feature", *names], [[k, *row] for k, row in zip(features, declared, strict=True)]),
    ]
    return "\n\n".join(parts) + "\n"


def _share(marks: Sequence[Mapping[str, Any]]) -> str:
    kept, broken, unasked = (sum(m["result"] == r for m in marks) for r in ("passed", "failed", "unsupported"))
    asked = f"{kept} of {kept + broken}" + (f", **{broken} broken**" if broken else "") if kept + broken else ""
    return "; ".join(text for text in (asked, f"{unasked} not asked" if unasked else "") if text)


def _rows(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
