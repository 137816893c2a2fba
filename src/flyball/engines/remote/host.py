"""The process that an engine runs in: ``python -m flyball.engines.remote.host ENGINE SOCKET OUT IN``.

In: requests of one caller (see ``wire``), which started this process and passed it three open descriptors. Out:
answers. It ends when the caller closes the connection or dies. What an engine prints goes to the error stream.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from flyball.base import FlyballError, Unsupported
from flyball.engines.derivatives import Differentiable
from flyball.engines.engine import Simulation, traits
from flyball.engines.remote.wire import Channel, Closed, Shared
from flyball.engines.table import engines
from flyball.scenes import Scene

METHODS = frozenset(
    name
    for protocol in (Simulation, Differentiable)
    for name, x in vars(protocol).items()
    if callable(x) and not name.startswith("_")
)
"""What may be called: the engine interface, nothing else."""
_LOOK_S = 0.5
"""How often the process looks whether its caller still lives [s]."""


def main() -> None:
    """Serve one caller until it is gone."""
    name, (connection, outgoing, incoming) = sys.argv[1], (int(x) for x in sys.argv[2:5])
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the caller decides what an interrupt means
    os.dup2(2, 1)
    channel = Channel(socket.socket(fileno=connection), Shared(outgoing), Shared(incoming))
    with contextlib.suppress(Closed):
        serve(channel, name)


def serve(channel: Channel, name: str) -> None:
    """Load the engine, tell the caller about it, then answer.

    Raises:
      Closed: the caller is gone.
    """
    try:
        engine = engines.in_process(name)()
        hello = {
            "version": engine.version,
            "capabilities": dict(engine.capabilities),
            "traits": asdict(traits(engine)),
        }
    except Exception as err:
        channel.send({"id": 0, "error": _told(err)})
        raise Closed from err
    channel.send({"id": 0, "value": hello})
    opened: dict[int, Any] = {}
    numbers = itertools.count(1)
    while True:
        request = channel.receive()
        for key in request["left"]:
            del opened[key]
        try:
            answer = {"id": request["id"], "value": _answer(engine, opened, numbers, request)}
            channel.send(answer)
        except Closed:
            raise
        except Exception as err:  # everything is told to the caller, who raises it there
            channel.send({"id": request["id"], "error": _told(err)})


def _answer(engine: Any, opened: dict[int, Any], numbers: itertools.count, request: Mapping[str, Any]) -> Any:
    do = request["do"]
    if do == "open":
        scene = Scene(parameters=(), **request["scene"])
        sim = engine.open(scene, request["n"], threads=request["threads"], options=request["options"])
        key = next(numbers)
        opened[key] = sim
        return {"sim": key, "n": sim.n, "timestep": sim.timestep, "layout": sim.layout}
    sim, method = opened[request["sim"]], request["method"]
    if method not in METHODS or not hasattr(sim, method):
        raise Unsupported(f"no {method}", where=f"engine {engine.name}", allowed=", ".join(sorted(METHODS)))
    return getattr(sim, method)(*request["args"], **request["kwargs"])


def _told(err: Exception) -> dict[str, Any]:
    """An error as the caller can raise it again."""
    if isinstance(err, FlyballError):
        kinds = [kind.__name__ for kind in type(err).__mro__ if issubclass(kind, FlyballError)]
        return {"kinds": kinds, "what": err.what, "where": err.where, "allowed": err.allowed, "run_next": err.run_next}
    return {"kinds": [], "what": f"{type(err).__name__}: {err}", "where": "", "allowed": "", "run_next": ""}


def _end_with(parent: int) -> None:
    """End this process, whatever it is doing, when its caller has died."""
    while os.getppid() == parent:
        time.sleep(_LOOK_S)
    os._exit(0)


if __name__ == "__main__":
    main()
