"""The process that reads, composes and validates USD files, and may die of them.

In: one order on stdin. Out: one answer on stdout: plain data and files, or the error to raise; see
``flyball.scenes.usd.guard`` for the other end.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from flyball.base import errors
from flyball.scenes.usd.guard import MEMORY
from flyball.scenes.usd.parsed import Parsed


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
