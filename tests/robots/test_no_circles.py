"""Modules of robots and scenes do not import each other in circles, also not inside functions."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import flyball

SOURCE = Path(flyball.__file__).parent


def imports(file: Path) -> set[str]:
    """Modules of Flyball that a file names anywhere."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{a.name}" for a in node.names)}
        elif isinstance(node, ast.Import):
            found |= {a.name for a in node.names}
    return found


def test_no_circles() -> None:
    files = [f for package in ("robots", "scenes") for f in (SOURCE / package).rglob("*.py") if f.name != "__init__.py"]
    modules = {".".join(("flyball", *f.relative_to(SOURCE).with_suffix("").parts)): f for f in files}
    graph = {m: (imports(f) & modules.keys()) - {m} for m, f in modules.items()}
    assert len(graph) > 60 and graph["flyball.scenes.usd.child"] >= {"flyball.scenes.usd.guard"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
