"""The table of engines, with those that live in environments of their own.

In: a name. Out: an engine class, or something that opens one in another process. A TOML file says which:

    [engines.newton-gpu]
    python = "/opt/newton/bin/python"   # the interpreter that has the library; relative to this file
    engine = "newton"                   # its name over there, when it differs
    timeout_s = 600                     # a call that takes longer has failed

The file is the one that the environment variable ``FLYBALL_ENGINES`` names, else the first ``flyball.toml`` in the
current folder and in the workspace (``FLYBALL_WORKSPACE``, or ``workspace`` below the current folder). A name that is
also an engine of this environment means the one in the file.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flyball.base import InputError, Missing, PluginTable
from flyball.base.config import from_plain

VARIABLE = "FLYBALL_ENGINES"


@dataclass(frozen=True)
class Elsewhere:
    """Where an engine lives.

    Attributes:
      python: interpreter of its environment.
      engine: its name over there; "": the same.
      timeout_s: a call that takes longer has failed [s].
    """

    python: str
    engine: str = ""
    timeout_s: float = 1800.0


def configured() -> dict[str, Elsewhere]:
    """Engines of the file, by name; empty without a file.

    Raises:
      InputError: naming the file, the key and what is allowed there.
    """
    named = os.environ.get(VARIABLE)
    workspace = Path(os.environ.get("FLYBALL_WORKSPACE", "workspace"))
    places = [Path(named)] if named else [Path("flyball.toml"), workspace / "flyball.toml"]
    path = next((p for p in (place.expanduser() for place in places) if p.exists()), None)
    if path is None:
        if named:
            raise Missing("no such file", where=f"{VARIABLE}={named}")
        return {}
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise InputError(f"cannot be read: {err}", where=str(path), allowed="TOML") from err
    table = data.get("engines", {})
    if not isinstance(table, dict):
        raise InputError(f"got {table!r}", where=f"{path}: engines", allowed="tables [engines.NAME]")
    return {name: _elsewhere(row, f"{path}: engines.{name}", path.absolute().parent) for name, row in table.items()}


def _elsewhere(row: Any, where: str, folder: Path) -> Elsewhere:
    found = from_plain(Elsewhere, row, where=where)
    if not (found.python and found.timeout_s > 0):
        raise InputError(f"got {row!r}", where=where, allowed="python: an interpreter, timeout_s: more than 0")
    # a link is not followed: an interpreter knows its environment by where the link to it lies
    return replace(found, python=str(folder / Path(found.python).expanduser()))


class _Maker:
    """Stands for the class of an engine that lives elsewhere: makes one when called."""

    def __init__(self, name: str, elsewhere: Elsewhere) -> None:
        self._name, self._elsewhere = name, elsewhere

    def __call__(self) -> Any:
        from flyball.engines.remote import RemoteEngine  # opens processes: only for who has such an engine

        return RemoteEngine(self._name, **vars(self._elsewhere))


class EngineTable(PluginTable):
    """Plug-ins, and engines in other environments."""

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted({*super().names(), *configured()})

    def load(self, name: str) -> Any:
        """What makes the engine of that name when it is called.

        Raises:
          Missing: unknown name.
          NotPossible: a library is not installed.
        """
        elsewhere = configured().get(name)
        if elsewhere is None:
            return super().load(name)
        return _Maker(name, elsewhere)

    def in_process(self, name: str) -> Any:
        """The engine of this environment, whatever the file says."""
        return super().load(name)


engines = EngineTable(
    "engine",
    "flyball.engines",
    {
        "drake": "flyball.engines.drake:DrakeEngine",
        "mujoco": "flyball.engines.mujoco:MujocoEngine",
        "mujoco-warp": "flyball.engines.newton.engine:MujocoWarpEngine",
        "newton-featherstone": "flyball.engines.newton.engine:featherstone",
        "newton-mpm": "flyball.engines.newton.engine:mpm",
        "newton-semi-implicit": "flyball.engines.newton.engine:semi_implicit",
        "newton-steel": "flyball.engines.newton.engine:steel",
        "newton-vbd": "flyball.engines.newton.engine:vbd",
        "newton-xpbd": "flyball.engines.newton.engine:xpbd",
        "servo": "flyball.engines.servo:ServoEngine",
    },
)
"""All engines."""
