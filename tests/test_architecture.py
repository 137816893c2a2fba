"""The walls hold: light imports stay light, arrows point downward, a start is quick."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "mujoco", "scipy", "warp", "pxr", "ray", "onnx", "rosbags", "cma"}


def loaded_by(statement: str) -> set[str]:
    """Top-level modules in sys.modules after a statement, in a fresh interpreter."""
    code = f"{statement}\nimport sys, json\nprint(json.dumps(sorted({{m.split('.')[0] for m in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import flyball",
        "import flyball.base, flyball.robots, flyball.episodes, flyball.scenes",
        "import flyball.releases",
        "import flyball.evaluation",
        "import flyball.fleet.agent",
        "import flyball.fleet.hub",
        "import flyball.apps.cli.main",
        "import flyball.apps.web.report",
        "from flyball.apps.cli.main import main; main(['--help'])",
    ],
)
def test_light_imports_stay_light(statement: str) -> None:
    assert loaded_by(statement) & HEAVY == set()


def test_import_contract() -> None:
    command = shutil.which("lint-imports", path=str(Path(sys.executable).parent)) or shutil.which("lint-imports")
    assert command, "import-linter is part of the dev extra"
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_import_contract_names_every_package() -> None:
    layers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    named = {name.strip() for layer in layers for name in layer.split("|")}
    there = {p.parent.name for p in (ROOT / "src" / "flyball").glob("*/__init__.py")}
    assert named == there


def test_pins_cover_what_is_declared() -> None:
    """Every dependency of the demo and of the tests is pinned, and pinned to a version the declaration allows."""
    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = {}
    for row in (ROOT / "constraints.txt").read_text().splitlines():
        if row and not row.startswith("#"):
            assert not row.startswith("-") and "/" not in row, f"{row}: no index, file or host belongs here"
            name, version = row.split("==")
            pins[name.lower().replace("_", "-")] = version
    extras = project["optional-dependencies"]
    for text in [*project["dependencies"], *(r for group in extras.values() for r in group)]:
        need = Requirement(text)
        if need.name == "flyball":
            continue
        assert need.specifier.contains(pins[need.name.lower().replace("_", "-")]), text
