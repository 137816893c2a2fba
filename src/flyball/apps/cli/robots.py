"""``flyball robots``: the bodies that tasks are done with, and their drivers."""

from __future__ import annotations

import argparse
from typing import Any

from flyball.apps.cli.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def run(args: argparse.Namespace, out: Output) -> int:
    """List every embodiment a task names, with its joints, signals and specification hash."""
    from flyball.tasks.task import tasks

    found: dict[str, dict[str, Any]] = {}
    for name in tasks.names():
        body = tasks.load(name).embodiment
        entry = found.setdefault(
            body.name,
            {
                "name": body.name,
                "joints": [vars(j) for j in body.joints],
                "observations": [s.to_json() for s in body.observations],
                "actions": [s.to_json() for s in body.actions],
                "spec_hash": body.spec_hash(),
                "tasks": [],
            },
        )
        entry["tasks"].append(name)
    rows = [(r["name"], len(r["joints"]), r["spec_hash"][:12], ", ".join(r["tasks"])) for r in found.values()]
    out.table(list(found.values()), ("robot", "joints", "spec", "tasks"), rows, "no robots")
    return 0
