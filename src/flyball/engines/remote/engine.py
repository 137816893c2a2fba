"""An engine in a process of its own, behind the same interface.

In: the name of an engine and the Python that has its library. Out: ``RemoteEngine``, which a caller cannot tell from
the engine itself, but for the time a call takes. The other Python needs numpy and the engine's library, not flyball: it
runs this very code, loaded from where it lies.
"""

from __future__ import annotations

import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import flyball
from flyball import base
from flyball.base import FlyballError, InputError, NotPossible
from flyball.engines.engine import Level, Reduce, Traits
from flyball.engines.portable import Layout, PortableState
from flyball.engines.remote.wire import Channel, Closed, Shared
from flyball.scenes import Scene

Array = NDArray[np.float64]
Worlds = NDArray[np.int64] | None

_LOOK_S = 0.2
"""How often a waiting caller looks whether the process still lives [s]."""
_GRACE_S = 2.0
"""How long a process that was told to end may take [s]."""
_PACKAGE = Path(flyball.__file__).parent
_BOOT = """
import importlib.util, sys
folder = sys.argv.pop(1)
spec = importlib.util.spec_from_file_location("flyball", folder + "/__init__.py", submodule_search_locations=[folder])
sys.modules["flyball"] = module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
from flyball.engines.remote.host import main
main()
"""
"""Loads flyball from where the caller has it, and nothing else from there."""


class _Process:
    """The engine's process, and the connection to it.

    Args:
      label: name for messages.
      engine: name of the engine inside.
      python: interpreter.
      timeout_s: longest answer.

    Attributes:
      left: simulations over there that nobody uses any more.
    """

    def __init__(self, label: str, engine: str, python: str, timeout_s: float) -> None:
        self.label, self._timeout_s = label, timeout_s
        self._lock, self._numbers, self._dead, self._owner = threading.Lock(), itertools.count(1), "", os.getpid()
        self.left: list[int] = []
        mine, theirs = socket.socketpair()
        outgoing, incoming = Shared.create(), Shared.create()
        self._words = tempfile.TemporaryFile()  # noqa: SIM115  its error stream, read when it dies
        passed = (theirs.fileno(), incoming.descriptor, outgoing.descriptor)
        environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
        arguments = [str(_PACKAGE), engine, *(str(d) for d in passed)]
        try:
            self._child = subprocess.Popen(
                [python, "-P", "-c", _BOOT, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._words,
                pass_fds=passed,
                env=environment,
            )
        except OSError as err:
            mine.close()
            raise NotPossible(f"cannot start {python}: {err.strerror}", where=f"engine {label}") from err
        finally:
            theirs.close()
        mine.settimeout(timeout_s)
        self._channel, self._poll = Channel(mine, outgoing, incoming), select.poll()
        self._poll.register(mine, select.POLLIN)
        self._finalizer = weakref.finalize(self, _end, self._child, self._channel, self._words, os.getpid())
        self.hello: dict[str, Any] = self._wait(0, "starting")

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._child.pid

    def ask(self, doing: str, request: Mapping[str, Any]) -> Any:
        """One request and its answer.

        Raises:
          FlyballError: as the engine raised it.
          NotPossible: the process died, or did not answer in time; so does every later call.
        """
        with self._lock:
            if os.getpid() != self._owner:
                raise NotPossible("belongs to another process", where=f"engine {self.label}", run_next="open it here")
            if self._dead:
                raise NotPossible(self._dead, where=f"engine {self.label}")
            number = next(self._numbers)
            try:
                left, self.left = self.left, []
                self._channel.send({"id": number, "left": left, **request})
            except TypeError as err:
                raise InputError(str(err), where=f"engine {self.label}") from err
            except Closed:
                self._fail(doing)
            return self._wait(number, doing)

    def _wait(self, number: int, doing: str) -> Any:
        until = time.monotonic() + self._timeout_s
        while True:
            if not self._poll.poll(1000 * _LOOK_S):
                if self._child.poll() is not None:
                    self._fail(doing)
                if time.monotonic() > until:
                    self._fail(doing, late=True)
                continue
            try:
                answer = self._channel.receive()
            except Closed:
                self._fail(doing)
            if answer["id"] != number:
                continue  # of a call that was interrupted
            if "error" in answer:
                raise self._raised(answer["error"])
            return answer["value"]

    def _raised(self, told: Mapping[str, Any]) -> FlyballError:
        for name in told["kinds"]:
            kind = getattr(base, name, None)
            if isinstance(kind, type) and issubclass(kind, FlyballError):
                parts = {k: told[k] for k in ("where", "allowed", "run_next")}
                return kind(told["what"], **parts)
        return NotPossible(told["what"], where=f"engine {self.label}")

    def _fail(self, doing: str, late: bool = False) -> None:
        """The process is of no use any more: say what became of it, now and to every later call.

        Raises:
          NotPossible: always.
        """
        if late:
            how = f"did not answer within {self._timeout_s:g} s"
            self._child.kill()
        else:
            how = "closed the connection"
        try:
            code = self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            code = self._child.wait()
        if not late:
            how = f"died of {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        self._words.seek(0, os.SEEK_END)
        self._words.seek(max(0, self._words.tell() - 2000))
        lines = self._words.read().decode(errors="replace").strip().splitlines()
        said = f"; last words: {lines[-1].strip()[:300]}" if lines else ""
        self._dead = f"its process {self._child.pid} {how} ({doing}){said}"
        raise NotPossible(self._dead, where=f"engine {self.label}")

    def close(self) -> None:
        """End the process."""
        self._dead = self._dead or "it was closed"
        self._finalizer()


def _end(child: subprocess.Popen, channel: Channel, words: Any, owner: int) -> None:
    """End the process: it leaves by itself when the connection closes."""
    if os.getpid() != owner:
        return  # a fork has its own copies, and no say
    channel.close()
    try:
        child.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    words.close()


class RemoteEngine:
    """An engine in a process of its own. The process ends with the last object that uses it, or with the caller.

    Args:
      name: what it is called here.
      python: interpreter of the environment that has the engine's library; this one's by default.
      engine: its name in the engine table over there; ``name`` by default.
      timeout_s: a call that takes longer has failed.

    Raises:
      NotPossible: the interpreter does not start, or the library is not there.
      Missing: no engine of that name.
    """

    def __init__(self, name: str, python: str | Path = "", *, engine: str = "", timeout_s: float = 1800.0) -> None:
        self._process = _Process(name, engine or name, os.path.expanduser(python or sys.executable), timeout_s)
        hello = self._process.hello
        self.name = name
        self.version: str = hello["version"]
        self.capabilities: Mapping[str, Level] = hello["capabilities"]
        said = Traits(**hello["traits"])
        self.formulation, self.precision, self.warm_up = said.formulation, said.precision, said.warm_up

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> RemoteSimulation:
        """Build n worlds over there; see ``flyball.engines.Engine.open``."""
        # parameters and variations are the business of tasks, not of engines
        sent = {f.name: getattr(scene, f.name) for f in fields(scene) if f.name not in ("parameters", "variations")}
        request = {"do": "open", "scene": sent, "n": n, "threads": threads, "options": dict(options or {})}
        return RemoteSimulation(self._process, self._process.ask("opening a scene", request))

    def close(self) -> None:
        """End the process; every simulation of it is of no use then."""
        self._process.close()


class RemoteSimulation:
    """n worlds in another process; see ``flyball.engines.Simulation`` for the contract."""

    def __init__(self, process: _Process, opened: Mapping[str, Any]) -> None:
        self._process, self._key = process, opened["sim"]
        self.n: int = opened["n"]
        self.timestep: float = opened["timestep"]
        self.layout: Layout = opened["layout"]

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        request = {"do": "call", "sim": self._key, "method": method, "args": list(args), "kwargs": kwargs}
        return self._process.ask(method, request)

    def __del__(self) -> None:
        self._process.left.append(self._key)  # told with the next request: this may run in the midst of one

    def reset(self, worlds: Worlds = None) -> None:
        self._call("reset", worlds)

    def place(self, joint: str, position: Array, worlds: Worlds = None) -> None:
        self._call("place", joint, position, worlds)

    def push(self, joint: str, velocity: Array, worlds: Worlds = None) -> None:
        self._call("push", joint, velocity, worlds)

    def step(self, controls: Array, reads: Mapping[str, Reduce] | None = None) -> dict[str, Array]:
        return dict(self._call("step", controls, reads))

    def rollout(self, controls: Array, every: int, reads: Mapping[str, Reduce]) -> dict[str, Array]:
        return dict(self._call("rollout", controls, every, reads))

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        return dict(self._call("read", list(names)))

    def lag(self, name: str) -> float:
        return float(self._call("lag", name))

    def set(self, values: Mapping[str, Array]) -> None:
        self._call("set", values)

    def get(self, name: str) -> Array:
        return np.asarray(self._call("get", name))

    def settable(self) -> list[str]:
        return list(self._call("settable"))

    def facts(self) -> list[str]:
        return list(self._call("facts"))

    def save(self) -> Array:
        return np.asarray(self._call("save"))

    def restore(self, state: Array, worlds: Worlds = None) -> None:
        self._call("restore", state, worlds)

    def portable(self) -> tuple[PortableState, list[str]]:
        state, left = self._call("portable")
        return state, left

    def place_portable(self, state: PortableState, worlds: Worlds = None) -> list[str]:
        return list(self._call("place_portable", state, worlds))

    def status(self) -> NDArray[np.bool_]:
        return np.asarray(self._call("status"))

    def gradient(self, controls: Array, wrt: Literal["state", "control"], step: float) -> tuple[Array, str]:
        """See ``flyball.engines.derivatives.Differentiable``; ``Unsupported`` where the engine has none."""
        values, method = self._call("gradient", controls, wrt, step)
        return values, method
