"""Model fields per world. In: ``kind:name.field`` and values (n, k). Out: one compiled model for each world.

What a field means, what moves together with it and which values are refused is the default engine's own code: it writes
into the columns of a batch, and here the columns become models, from which Drake's plants are made.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import Missing, Unsupported
from flyball.engines.mujoco import parameters as fields

Array = NDArray[np.float64]

WHERE = "engine drake"
_LACKS = (
    "actuator:NAME.position_gain",
    "actuator:NAME.velocity_gain",
    "tendon:NAME.force_limit",
    "geom:NAME.restitution",
)
"""Not taken. Restitution: the springs and dampers that stand for e in MuJoCo rebound otherwise under Drake's implicit
step, which damps by itself. A ball that falls 0.5 m with steps of 0.25 ms, for e = 0.3, 0.6, 0.9, rebounds with these
parts of its speed: 0.00, 0.00, 0.01 (lagged and similar), 0.21, 0.32, 0.40 (sap); the report card wants e to 5 %."""
SETTABLE = tuple(name for name in fields.SETTABLE if name not in _LACKS)


class _Columns:
    """Takes the place of a batch: model fields per world, and nothing that steps."""

    def __init__(self, model: Any, n: int) -> None:
        self._model, self._n = model, n
        self.fields: dict[str, Array] = {}

    def expand(self, name: str) -> Array:
        if name not in self.fields:
            own: Any = self._model
            for part in name.split("."):
                own = getattr(own, part)
            self.fields[name] = np.repeat(np.asarray(own)[None], self._n, axis=0)
        return self.fields[name]

    def set_const(self) -> None:
        """Derived constants are computed when a world's model is made."""


class Parameters:
    """What was set, by name.

    Args:
      model: the authored model.
      n: number of worlds.
    """

    def __init__(self, model: Any, n: int) -> None:
        self._model, self._n = model, n
        self._fields = fields.Parameters(model, n)
        self._columns = _Columns(model, n)

    def get(self, name: str) -> Array:
        """(n, k); see ``flyball.engines.Simulation.get``."""
        return self._ours(lambda: self._fields.get(name))

    def set(self, values: Mapping[str, Array]) -> None:
        """All of them, or none when one is refused."""
        for name in values:
            if fields._pattern(name) not in SETTABLE:
                raise Unsupported(f"cannot set {name!r}", where=WHERE, allowed=", ".join(SETTABLE))
        self._ours(lambda: self._fields.set(values, self._columns))

    def key(self, world: int) -> bytes:
        """Equal for worlds with equal fields."""
        return b"".join(name.encode() + x[world].tobytes() for name, x in sorted(self._columns.fields.items()))

    def world_model(self, world: int) -> Any:
        """The model of one world."""
        if not self._columns.fields:
            return self._model
        m = copy.copy(self._model)
        for name, x in self._columns.fields.items():
            owner: Any = m
            *path, last = name.split(".")
            for part in path:
                owner = getattr(owner, part)
            getattr(owner, last)[:] = x[world].reshape(getattr(owner, last).shape)
        mujoco.mj_setConst(m, mujoco.MjData(m))
        return m

    def copy(self) -> Parameters:
        """The same values, independent."""
        other = Parameters(self._model, self._n)
        other._fields._set = dict(self._fields._set)
        other._columns.fields = {name: x.copy() for name, x in self._columns.fields.items()}
        return other

    @staticmethod
    def _ours(call: Any) -> Any:
        """Errors that name this engine."""
        try:
            return call()
        except Missing as err:
            raise Missing(err.what, where=WHERE, allowed=err.allowed) from None
        except Unsupported as err:
            raise Unsupported(err.what, where=WHERE, allowed=err.allowed) from None
