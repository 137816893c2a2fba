"""``flyball engines``: physics engines and what they declare they can do."""

from __future__ import annotations

import argparse

from flyball.apps.cli.output import Output
from flyball.base import NotPossible


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def run(args: argparse.Namespace, out: Output) -> int:
    """List engines; one whose library is missing is listed with what it needs."""
    from flyball.engines.engine import engines

    found = []
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
