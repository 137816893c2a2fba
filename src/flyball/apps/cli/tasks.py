"""``flyball tasks [NAME]``: tasks, or the parameters of one."""

from __future__ import annotations

import argparse
from typing import Any

from flyball.apps.cli.output import Output


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task to show."""
    parser.add_argument("name", nargs="?", help="show the parameters of this task")


def run(args: argparse.Namespace, out: Output) -> int:
    """List tasks, or show one."""
    from flyball.tasks.task import tasks

    if args.name:
        list_parameters(args.name, out)
        return 0
    found = []
    for name in tasks.names():
        task = tasks.load(name)
        found.append(
            {
                "name": name,
                "instruction": task.instruction,
                "embodiment": task.embodiment.name,
                "horizon_s": task.horizon_s,
                "control_hz": task.control_hz,
                "failure_groups": list(task.groups),
                "parameters": len(task.scene.parameters),
            }
        )
    rows = [(t["name"], t["embodiment"], f"{t['horizon_s']:g} s", t["instruction"]) for t in found]
    out.table(found, ("task", "embodiment", "horizon", "instruction"), rows, "no tasks")
    return 0


def list_parameters(task: str, out: Output) -> None:
    """Every parameter of a task's scene with unit, nominal value and allowed range.

    Raises:
      Missing: unknown task.
    """
    from flyball.tasks.task import tasks

    found: list[dict[str, Any]] = [
        {
            "path": p.path,
            "unit": p.unit,
            "nominal": p.nominal,
            "range": [p.low, p.high],
            "scale": p.scale,
            "owner": p.owner,
            "text": p.text,
        }
        for p in tasks.load(task).scene.parameters
    ]
    rows = [
        (p["path"], p["unit"] or "-", f"{p['nominal']:g}", "[{:g}, {:g}]".format(*p["range"]), p["owner"], p["text"])
        for p in found
    ]
    out.table(
        {"task": task, "parameters": found}, ("parameter", "unit", "nominal", "range", "of", "what"), rows, "none"
    )
