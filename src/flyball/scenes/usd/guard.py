"""Reading in a process of its own.

In: a USD file that may be hostile, chosen variants. Out: what was read, or one line that says why not. OpenUSD is C++
that allocates what a file asks for and composes as many prims as references multiply to; so a child with bounded
memory and CPU time reads, and what it dies of becomes an ``InputError``. MJCF, assets and sentences come back.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from flyball.base import InputError, NotPossible, errors
from flyball.scenes.usd.parsed import Parsed

MEMORY = 8 << 30
"""Address space of the child [bytes]."""
CPU_S = 60
"""CPU time for one file [s]; the largest published robot takes under 5."""
WALL_S = 1200.0


def need_pxr() -> None:
    """Refuse where there is no OpenUSD.

    Raises:
      NotPossible: saying how to get it.
    """
    if find_spec("pxr") is None:
        raise NotPossible(
            "reading and writing USD needs OpenUSD's Python package", run_next="pip install 'flyball[usd]'"
        )


def read_guarded(
    path: Path, variants: Mapping[str, str] | None = None, largest_file: int | None = None, root: Path | None = None
) -> Parsed:
    """Read a file out of process; see ``stage.open_stage`` and ``read.read_stage``.

    Raises:
      InputError: bad content, naming the prim; or the file crashes OpenUSD or needs too much memory or time.
      NotPossible: OpenUSD is not installed.
    """
    need_pxr()
    order = {"path": str(path), "variants": dict(variants or {}), "largest_file": largest_file}
    answer, data = call("read", order | {"root": str(root) if root else None}, where=str(path))
    assets, at = {}, 0
    for name, size in answer.pop("assets").items():
        assets[name] = data[at : at + size]
        at += size
    plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in answer.items()}
    return Parsed(assets=assets, **plain)


def call(what: str, order: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], bytes]:
    """Have the child do something: ``read``, ``compose`` or ``validate``.

    Raises:
      FlyballError: as the child raised it, or what the child died of.
    """
    command = [sys.executable, "-c", "from flyball.scenes.usd.child import serve; serve()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PXR_WORK_THREAD_LIMIT": "1"}
    text = json.dumps({"what": what, "cpu_s": CPU_S, **order}).encode()
    try:
        done = subprocess.run(command, input=text, capture_output=True, env=environment, timeout=WALL_S, check=False)
    except subprocess.TimeoutExpired as err:
        raise InputError(f"it takes more than {WALL_S:g} s", where=where) from err
    head, _, data = done.stdout.partition(b"\n")
    try:
        answer: dict[str, Any] = json.loads(head)
    except ValueError:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        if done.returncode == 1 and any(line.startswith("Traceback") for line in said):
            raise RuntimeError(f"in the guarded process: {said[-1]}") from None  # ours, not the file's
        raise InputError(_death(done.returncode), where=where) from None
    if "error" in answer:
        kind = getattr(errors, answer.pop("error"))
        raise kind(answer.pop("what"), **answer)
    return answer, data


def _death(code: int) -> str:
    if -code == signal.SIGXCPU:
        return f"it takes more than {CPU_S} s of CPU time"
    if code < 0:
        return f"OpenUSD crashed on it ({signal.Signals(-code).name})"
    return f"it needs more than {MEMORY >> 30} GB of memory, or OpenUSD ended the process"
