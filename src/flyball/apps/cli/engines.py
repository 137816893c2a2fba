"""``flyball engines``: physics engines, what they declare they can do, and what the laws of mechanics say of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flyball.apps.cli.output import Output
from flyball.base import InputError, Missing, NotPossible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which engine."""
    parser.usage = "%(prog)s [check [NAME ...] [--law LAW ...] [--html FILE]] [--workspace DIR] [--json]"
    parser.add_argument("what", nargs="?", default="list", metavar="check", help="put engines to the laws of mechanics")
    parser.add_argument("names", nargs="*", metavar="NAME", help="which (default: all that are installed)")
    parser.add_argument("--law", action="append", metavar="LAW", help="with check: this law alone; may be repeated")
    parser.add_argument("--html", type=Path, metavar="FILE", help="with check: also write the card as a page")


def run(args: argparse.Namespace, out: Output) -> int:
    """List engines, or check them; exit code 1 when a law is broken."""
    if args.what == "list" and not args.names:
        return _list(out)
    if args.what != "check":
        where = "flyball engines"
        raise InputError(f"unknown word {args.what!r}", where=where, allowed="check", run_next="flyball engines --help")
    return _check(args.names, args.law, args.html, out)


def _list(out: Output) -> int:
    """One that lacks its library is listed with what it needs."""
    from flyball.engines.engine import engines

    found: list[dict[str, Any]] = []
    for name in engines.names():
        try:
            engine = engines.load(name)()
            found.append({"name": name, "version": engine.version, "capabilities": dict(engine.capabilities)})
        except NotPossible as err:
            found.append({"name": name, "version": "", "capabilities": {}, "missing": err.line()})
    rows = [
        (
            e["name"],
            e["version"] or "not installed",
            e.get("missing") or ", ".join(k if v == "exact" else f"{k} ({v})" for k, v in e["capabilities"].items()),
        )
        for e in found
    ]
    out.table(found, ("engine", "version", "capabilities"), rows, "no engines")
    return 0


def _check(names: list[str], laws: list[str] | None, page: Path | None, out: Output) -> int:
    from flyball.apps.web.card import render
    from flyball.base.durable import write_durably
    from flyball.engines.card import LAWS, examine
    from flyball.engines.engine import engines

    known = {law.name: law for law in LAWS}
    for name in laws or ():
        if name not in known:
            raise Missing.named("law", name, known, where="--law")
    cards = []
    for name in names or engines.names():
        try:
            cards.append(examine(engines.load(name)(), [known[n] for n in laws] if laws else None))
        except NotPossible as err:
            if names:
                raise
            out.note(f"{name}: {err.line()}")
    lines = []
    for card in cards:
        lines += [f"{card.engine} {card.version}: {'passed' if card.passed else 'FAILED'}"]
        for m in card.marks:
            result = "FAILED" if m.result == "failed" else m.result
            error = "" if m.result == "unsupported" else f"{m.error:.2g} (at most {m.tolerance:.2g})"
            lines.append(f"  {result:<12}{m.law:<24}{error:<26}{m.note}")
    document = [c.to_json() for c in cards]
    if page is not None:
        write_durably(page, render(document).encode())
        lines.append(f"{page} written")
    out.result(document, lines)
    return 0 if all(c.passed for c in cards) else 1
