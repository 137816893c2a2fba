"""Compiling in a process of its own.

In: MJCF text and assets that may be hostile. Out: the compiled model, or what is wrong in one line. MuJoCo 3.17 aborts
on a ``%n`` in a class name, never comes back from ``<replicate count="1000000000">`` and allocates what a file asks
for; so a worker with bounded memory and CPU time compiles first, and what it dies of becomes an ``InputError``. The
worker is started when first needed, serves many models, and ends with its parent.
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from flyball.base import InputError, NotPossible

MEMORY = 8 << 30
"""Address space of the worker [bytes]."""
CPU_S = 120
"""CPU time for one model [s]; the largest published robots take under 10."""
WALL_S = 1200.0
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Compiled:
    """A model that compiled.

    Attributes:
      model: the ``mujoco.MjModel``.
      flat: MJCF text without attached models; "" when it was not asked for.
    """

    model: Any
    flat: str = ""
    rounded: bool = False
    """Whether the numbers of ``flat`` have six digits only."""
    notes: tuple[str, ...] = ()
    """What had to be assumed to compile it."""


class CompileError(InputError):
    """The model does not compile; ``line`` is where in the text, 0 when unknown."""

    line_number = 0


def compile_guarded(
    mjcf: str, assets: Mapping[str, bytes], include: Mapping[str, bytes] | None = None, *, where: str = ""
) -> Compiled:
    """Compile out of process; with ``include`` (models to be attached), also flatten.

    Raises:
      CompileError: it does not compile, crashes the compiler, or needs too much memory or time.
      NotPossible: MuJoCo is not installed.
    """
    answer, payload = _worker.ask(mjcf, assets, include or {}, where)
    if "missing" in answer:
        raise NotPossible("reading robot models needs MuJoCo", where=where, run_next="pip install 'flyball[sim]'")
    if "error" in answer:
        raise _error(answer["error"], where)
    import mujoco

    size = answer["model"]
    model = mujoco.MjModel.from_binary_path("model.mjb", assets={"model.mjb": payload[:size]})
    return Compiled(model, payload[size:].decode(), bool(answer["rounded"]))


def _error(text: str, where: str) -> CompileError:
    import re

    err = CompileError(" ".join(text.split()), where=where)
    found = re.findall(r"line (\d+)", text, re.IGNORECASE)
    err.line_number = int(found[-1]) if found else 0
    return err


class _Worker:
    """The parent's end."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._owner = 0

    def ask(
        self, mjcf: str, assets: Mapping[str, bytes], include: Mapping[str, bytes], where: str
    ) -> tuple[dict[str, Any], bytes]:
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            parts = [mjcf.encode(), *assets.values(), *include.values()]
            head = {"assets": list(assets), "include": list(include), "cpu_s": CPU_S, "sizes": [len(p) for p in parts]}
            try:
                _send(process.stdin, head, parts)
                _wait(process.stdout.fileno(), time.monotonic() + WALL_S)
                return _receive(process.stdout)
            except (OSError, EOFError, TimeoutError) as err:
                process.kill()
                code = process.wait()
                self._process = None
                if isinstance(err, TimeoutError) or -code == signal.SIGXCPU:
                    reason = f"compiling takes more than {CPU_S} s of CPU time"
                elif code < 0:
                    reason = f"MuJoCo crashed while compiling ({signal.Signals(-code).name})"
                else:
                    reason = "MuJoCo ended the compiling process"
                raise CompileError(reason, where=where) from err

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None or self._owner != os.getpid():
            self._owner = os.getpid()
            command = [sys.executable, "-c", "from flyball.robots.models.guard import serve; serve()"]
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        return self._process

    def close(self) -> None:
        """End the worker."""
        if self._process is not None and self._owner == os.getpid():
            self._process.kill()
            self._process.wait()
            self._process = None


_worker = _Worker()
atexit.register(_worker.close)


def serve() -> None:
    """The worker: answer requests on stdin until it closes."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints is no answer
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    try:
        import mujoco
    except ImportError:
        mujoco = None
    while True:
        try:
            head, data = _receive(sys.stdin.buffer)
        except EOFError:
            return
        used = time.process_time()
        resource.setrlimit(resource.RLIMIT_CPU, (int(used) + head["cpu_s"], resource.RLIM_INFINITY))
        parts, at = [], 0
        for size in head["sizes"]:
            parts.append(data[at : at + size])
            at += size
        assets = dict(zip(head["assets"], parts[1:], strict=False))
        include = dict(zip(head["include"], parts[1 + len(assets) :], strict=False))
        if mujoco is None:
            _send(out, {"missing": "mujoco", "sizes": []}, [])
            continue
        try:
            _send(out, *_compile(mujoco, parts[0].decode(), assets, include))
        except MemoryError:
            _send(out, {"error": "compiling needs too much memory", "sizes": []}, [])
        except Exception as err:  # the bindings raise ValueError, RuntimeError, FatalError, UnicodeDecodeError
            _send(out, {"error": f"{err}" or type(err).__name__, "sizes": []}, [])


def _compile(
    mujoco: Any, mjcf: str, assets: dict[str, bytes], include: dict[str, bytes]
) -> tuple[dict[str, Any], list[bytes]]:
    import numpy as np

    spec = mujoco.MjSpec.from_string(mjcf, include=include, assets=assets)
    model = spec.compile()
    flat, rounded = b"", False
    if include:
        rounded = not _write_all_digits(mujoco)
        flat = spec.to_xml().encode()
    buffer = np.zeros(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    parts = [buffer.tobytes(), flat]
    return {"model": len(parts[0]), "rounded": rounded, "sizes": [len(p) for p in parts]}, parts


def _write_all_digits(mujoco: Any) -> bool:
    """Let ``to_xml`` write 17 digits instead of 6; False where the library does not offer it."""
    import ctypes
    import glob

    for path in glob.glob(os.path.join(os.path.dirname(mujoco.__file__), "libmujoco*.so*")):
        setter = getattr(ctypes.CDLL(path), "_mjPRIVATE__set_xml_precision", None)
        if setter is not None:
            setter(17)
            return True
    return False


def _send(to: BinaryIO | Any, head: dict[str, Any], parts: list[bytes]) -> None:
    text = json.dumps(head).encode()
    to.write(_LENGTH.pack(len(text)) + text)
    for part in parts:
        to.write(part)
    to.flush()


def _receive(source: BinaryIO | Any) -> tuple[dict[str, Any], bytes]:
    head = json.loads(_exactly(source, _LENGTH.unpack(_exactly(source, _LENGTH.size))[0]))
    return head, _exactly(source, sum(head["sizes"]))


def _exactly(source: BinaryIO | Any, size: int) -> bytes:
    data = source.read(size)
    if len(data) < size:
        raise EOFError
    return bytes(data)


def _wait(fd: int, until: float) -> None:
    ready, _, _ = select.select([fd], [], [], max(0.0, until - time.monotonic()))
    if not ready:
        raise TimeoutError
