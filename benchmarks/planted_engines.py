"""The report card against engines with known faults, each in an environment of its own.

    python benchmarks/planted_engines.py [--folder DIR] [--json FILE]

``mujoco 4.0.0`` factors the Hessian of its Newton solver wrongly where the constraint Jacobian is sparse and the trees
of bodies branch (issue 3767 of that project, fixed in 4.0.1). This makes a virtual environment with it (200 MB on
disk, kept in DIR), runs the card there through ``RemoteEngine``, then on the MuJoCo of this environment, and
says which laws tell the two apart. Exit code 0 when the faulty one fails ``dense against sparse`` and ``tangle``, and
the sound one passes every law.

With FLYBALL_MUJOCO_4_0_0 set to that environment's interpreter, the same is asked in tests/engines/test_card.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from flyball.engines import engines
from flyball.engines.card import Card, examine
from flyball.engines.remote import RemoteEngine

FAULTY = "mujoco==4.0.0"
EXPECTED = ("dense against sparse", "tangle")


def environment(folder: Path, requirement: str) -> Path:
    """The interpreter of a virtual environment with one requirement; made where it is missing."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    have = subprocess.run(
        [str(python), "-c", "import mujoco; print(mujoco.__version__)"], capture_output=True, text=True
    )
    if have.stdout.strip() != requirement.rpartition("=")[2]:
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", requirement], check=True)
    return python


def show(card: Card) -> list[str]:
    failed = [m for m in card.marks if m.result == "failed"]
    print(f"{card.engine} {card.version}: {len(card.marks) - len(failed)} of {len(card.marks)} laws not broken")
    for m in failed:
        print(f"  FAILED {m.law}: off by {m.error:.2g}, at most {m.tolerance:.2g}; {m.note}")
    return [m.law for m in failed]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "flyball-planted-engines")
    parser.add_argument("--json", type=Path, help="also write both cards there")
    a = parser.parse_args()
    python = environment(a.folder / FAULTY.replace("==", "-"), FAULTY)
    faulty, sound = examine(RemoteEngine("mujoco", python)), examine(engines.load("mujoco")())
    caught, broken = show(faulty), show(sound)
    if a.json:
        a.json.write_text(json.dumps([faulty.to_json(), sound.to_json()], indent=1, allow_nan=False))
    print(f"FLYBALL_MUJOCO_4_0_0={python}")
    return 0 if set(EXPECTED) <= set(caught) and not broken else 1


if __name__ == "__main__":
    raise SystemExit(main())
