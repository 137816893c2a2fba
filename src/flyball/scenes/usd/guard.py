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
from dataclasses import replace
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
    command = [sys.executable, "-c", "from flyball.scenes.usd.guard import serve; serve()"]
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


def serve() -> None:
    """The child: one order on stdin, one answer on stdout."""
    import resource

    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    order = json.loads(sys.stdin.buffer.read())
    resource.setrlimit(resource.RLIMIT_CPU, (order.pop("cpu_s"), resource.RLIM_INFINITY))
    answer: dict[str, Any]
    data: list[bytes] = []
    try:
        answer, data = _work(order.pop("what"), order)
    except errors.FlyballError as err:
        answer = {"error": type(err).__name__, **{k: getattr(err, k) for k in ("what", "where", "allowed", "run_next")}}
    except OSError as err:
        place = str(err.filename or order.get("path") or order.get("out"))
        answer = {"error": "InputError", "what": err.strerror or str(err), "where": place}
    except (MemoryError, RecursionError) as err:
        what = f"it needs too much memory or depth ({type(err).__name__})"
        answer = {"error": "InputError", "what": what, "where": order.get("path") or order.get("out")}
    out.write(json.dumps(answer).encode() + b"\n")
    for part in data:
        out.write(part)
    out.flush()
    out.close()
    os._exit(0)  # OpenUSD's static destructors have nothing to add


def _work(what: str, order: dict[str, Any]) -> tuple[dict[str, Any], list[bytes]]:
    if what == "compose":
        from flyball.scenes.usd.composition import compose_here
        from flyball.scenes.usd.stage import foreign

        with foreign(order["out"]):
            return compose_here(order), []
    if what == "validate":
        from flyball.scenes.usd.validate import validate_here

        return validate_here(order), []
    root = Path(order["root"]) if order["root"] else None
    parsed = read_here(Path(order["path"]), order["variants"], order["largest_file"], root)
    answer = {k: v for k, v in vars(parsed).items() if k != "assets"}
    return answer | {"assets": {k: len(v) for k, v in parsed.assets.items()}}, [*parsed.assets.values()]


def read_here(
    path: Path, variants: Mapping[str, str] | None = None, largest_file: int | None = None, root: Path | None = None
) -> Parsed:
    """Read a file in this process; what ``read_guarded`` does elsewhere."""
    from flyball.scenes.usd.read import read_stage
    from flyball.scenes.usd.stage import LARGEST_FILE, foreign, open_stage, quiet

    with quiet(), foreign(path):
        opened = open_stage(path, variants, largest_file or LARGEST_FILE, root)
        parsed = read_stage(opened.stage, str(path), path.stem)
        choices = {
            f"{prim}.{name}": [selected, *opened.stage.GetPrimAtPath(prim).GetVariantSet(name).GetVariantNames()]
            for prim, sets in opened.selected.items()
            for name, selected in sets.items()
        }
        return replace(parsed, layers=opened.layers, variants=choices)
