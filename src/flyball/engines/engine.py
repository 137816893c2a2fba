"""The engine interface: about a dozen calls, numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.base import PluginTable
from flyball.scenes import Scene

Level = Literal["exact", "approximate", "unsupported"]
Reduce = Literal["last", "max", "min", "mean", "all"]
"""How a read is reduced over substeps; ``all`` keeps them, adding an axis."""

engines = PluginTable(
    "engine",
    "flyball.engines",
    {"mujoco": "flyball.engines.mujoco:MujocoEngine", "servo": "flyball.engines.servo:ServoEngine"},
)


class Simulation(Protocol):
    """n independent worlds of one scene. Worlds never influence each other.

    Fields are addressed as ``kind:name.field``. Readable: ``joint:NAME.position|velocity``,
    ``body:NAME.position|quat``, ``sensor:NAME``, ``actuator:NAME.force``, ``time``. Settable: see ``settable``.
    """

    n: int
    timestep: float
    """Length of a substep [s]."""

    def reset(self, worlds: NDArray[np.int64] | None = None) -> None:
        """Put worlds (all when None) back to the model's start state, with their parameters as set."""

    def place(self, joint: str, position: NDArray[np.float64], worlds: NDArray[np.int64] | None = None) -> None:
        """Write joint positions: (n, nq of the joint); free joints take [x y z qw qx qy qz] in m and wxyz."""

    def push(self, joint: str, velocity: NDArray[np.float64], worlds: NDArray[np.int64] | None = None) -> None:
        """Write joint velocities, (n, nv of the joint); a free joint's: linear (world), angular (body) [m/s, rad/s]."""

    def step(
        self,
        controls: NDArray[np.float64],
        reads: Mapping[str, Reduce] | None = None,
    ) -> dict[str, NDArray[np.float64]]:
        """Advance all worlds by k substeps.

        Args:
          controls: control of every substep, (n, k, nu).
          reads: field -> how to reduce it over the k substeps.

        Returns:
          field -> (n, *shape). ``last`` is the state at the end of the call.
        """

    def rollout(
        self,
        controls: NDArray[np.float64],
        every: int,
        reads: Mapping[str, Reduce],
    ) -> dict[str, NDArray[np.float64]]:
        """Advance by T*every substeps, reading after each group of ``every``.

        Args:
          controls: control of every substep, (n, T*every, nu).
          every: substeps per read.
          reads: field -> how to reduce it over each group.

        Returns:
          field -> (n, T, *shape).
        """

    def read(self, names: Sequence[str]) -> dict[str, NDArray[np.float64]]:
        """Fields at the current state: name -> (n, *shape)."""

    def set(self, values: Mapping[str, NDArray[np.float64]]) -> None:
        """Set model fields per world: field -> (n,) or (n, k).

        Masses carry their inertia with them, derived constants follow.

        Raises:
          Unsupported: naming the field and what can be set. Nothing is set then.
        """

    def get(self, name: str) -> NDArray[np.float64]:
        """Read back a settable field, (n, k)."""

    def settable(self) -> list[str]:
        """Fields that ``set`` accepts."""

    def save(self) -> NDArray[np.float64]:
        """Opaque full state, (n, s); restoring it resumes bit-identically."""

    def restore(self, state: NDArray[np.float64], worlds: NDArray[np.int64] | None = None) -> None:
        """Inverse of ``save``."""

    def status(self) -> NDArray[np.bool_]:
        """Which worlds are healthy, (n,). A failed world keeps its last valid state."""


class Engine(Protocol):
    """A physics engine."""

    name: str
    version: str
    capabilities: Mapping[str, Level]

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> Simulation:
        """Build n worlds of a scene.

        Args:
          threads: CPU threads (0: all).
          options: engine settings that override the model's: ``timestep`` [s], ``cone`` (elliptic | pyramidal).

        Raises:
          InputError: the model does not compile.
          Unsupported: an option the engine lacks.
        """
