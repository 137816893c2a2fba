"""Print what has to be downloaded for the demo and for the edge agent, package by package.

In: pyproject.toml and constraints.txt. Out: a table, and exit code 1 when a budget is exceeded. The wheels are really
resolved and fetched with pip into a temporary folder (or its cache), so the figures are those of the index in use.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BUDGETS_MB = {"demo": 500.0, "edge": 100.0}
"""Largest allowed download [10^6 bytes]; the demo's is with the CPU build of torch."""


def requirements(name: str) -> list[str]:
    """What pip is asked for: the package's own dependencies, and for the demo those of its extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(extras["sim"] + extras["train"] if name == "demo" else [])]


def sizes(name: str) -> dict[str, int]:
    """File name -> bytes of everything pip downloads.

    Raises:
      SystemExit: pip failed; its last line is shown.
    """
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--dest", folder]
        done = subprocess.run(
            [*pip, "-c", str(ROOT / "constraints.txt"), *requirements(name)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            sys.exit(f"pip download failed: {done.stderr.strip().splitlines()[-1]}")
        return {p.name: p.stat().st_size for p in Path(folder).iterdir()}


def main() -> int:
    """Measure, print, compare with the budgets."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="one JSON document")
    args = parser.parse_args()
    measured = {name: sizes(name) for name in BUDGETS_MB}
    total = {name: sum(files.values()) / 1e6 for name, files in measured.items()}
    if args.json:
        print(json.dumps({"megabytes": total, "budget": BUDGETS_MB, "files": measured}, indent=1))
    else:
        for name, files in measured.items():
            print(f"{name}: {total[name]:.1f} MB in {len(files)} files (budget {BUDGETS_MB[name]:.0f} MB)")
            for file, size in sorted(files.items(), key=lambda kv: -kv[1]):
                print(f"  {size / 1e6:8.2f}  {file}")
    return int(any(total[name] > BUDGETS_MB[name] for name in BUDGETS_MB))


if __name__ == "__main__":
    sys.exit(main())
