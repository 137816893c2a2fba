"""The engine interface: about a dozen calls, numpy only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.engines.portable import Layout, PortableState
from flyball.scenes import Scene

Level = Literal["exact", "approximate", "unsupported"]
Precision = Literal["double", "single"]
Reduce = Literal["last", "max", "min", "mean", "all"]
"""How a read is reduced over substeps; ``all`` keeps them, adding an axis."""


class Simulation(Protocol):
    """n independent worlds of one scene. Worlds never influence each other.

    Fields are addressed as ``kind:name.field``. Readable, as far as the engine has them (else ``Unsupported``):

    - ``time`` [s]
    - ``joint:NAME.position|velocity`` in the conventions of ``place`` and ``push``
    - ``body:NAME.position`` [m], ``body:NAME.quat`` of the body's frame in the world
    - ``body:NAME.velocity`` (6,): linear velocity of the origin of the body's frame [m/s], angular velocity [rad/s],
      both in world axes
    - ``site:NAME.position`` [m]
    - ``tendon:NAME.length|velocity`` [m, m/s]
    - ``actuator:NAME.force`` [N or N m]
    - ``sensor:NAME``: every sensor of the model in its own unit: touch, force, torque, accelerometer, gyro, ...
    - ``contact:A|B.wrench`` (6,): force [N] and torque [N m] on body B from body A through their contacts, in world
      axes, the torque about B's centre of mass (about the origin where B is ``world``, which names what is fixed).
      Counted by force: a contact that is listed but carries none adds nothing, and two bodies apart read zero.

    Every read has a defined time. In ``read`` all fields belong to the current state, whose clock is ``time``; forces
    are those that would act under the controls applied last. In ``step`` and ``rollout`` positions, velocities and
    sensors of them belong to the end of a substep, as its ``time`` does; forces, accelerations and sensors of them are
    those that acted during it, which an explicit step evaluates at its start. ``lag`` gives the difference.
    """

    n: int
    timestep: float
    """Length of a substep [s]."""
    layout: Layout
    """Names and sizes of what the scene has."""

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
        """Fields at the current state: name -> (n, *shape). Reading never changes the course of the worlds."""

    def lag(self, name: str) -> float:
        """How long before the end of its substep a value from ``step`` or ``rollout`` was evaluated [s].

        0 for what belongs to the state, ``timestep`` for forces, accelerations and sensors of them.
        """

    def set(self, values: Mapping[str, NDArray[np.float64]]) -> None:
        """Set model fields per world: field -> (n,) or (n, k).

        Masses carry their inertia with them, derived constants follow.

        Raises:
          Unsupported: naming the field and what can be set. Nothing is set then.
        """

    def get(self, name: str) -> NDArray[np.float64]:
        """Read back a model field, (n, k): one that is settable, or one of ``facts``."""

    def settable(self) -> list[str]:
        """Fields that ``set`` accepts."""

    def facts(self) -> list[str]:
        """Fields that ``get`` gives besides: what the engine made of the model, and ``set`` cannot change.

        ``body:NAME.inertia`` is (xx yy zz xy xz yz) [kg m^2] about the centre of mass, in the axes of the body's frame.
        """

    def save(self) -> NDArray[np.float64]:
        """Opaque full state, (n, s); restoring it resumes bit-identically."""

    def restore(self, state: NDArray[np.float64], worlds: NDArray[np.int64] | None = None) -> None:
        """Inverse of ``save``."""

    def portable(self) -> tuple[PortableState, list[str]]:
        """The state as every engine can take it, and what of the full state it leaves out, in words."""

    def place_portable(self, state: PortableState, worlds: NDArray[np.int64] | None = None) -> list[str]:
        """Write a portable state (rows: the worlds); gives what did not carry over, in words, empty when all did."""

    def status(self) -> NDArray[np.bool_]:
        """Which worlds are healthy, (n,).

        A world fails when its state or its controls are not finite, or the engine gives up on it. It keeps the state
        that it had before the call in which it failed, and stands still until it is reset or restored.
        """


class Engine(Protocol):
    """A physics engine.

    ``capabilities`` says how an engine does a thing, by these names among others: ``rigid``, ``contact``,
    ``contact_wrench`` (reads ``contact:A|B.wrench``), ``restitution`` (sets ``geom:NAME.restitution``),
    ``per_world_parameters``, ``save_restore``, ``gradient`` (see ``flyball.engines.derivatives``), ``cloth``,
    ``granular``. A name that is missing means unsupported, and asking for it raises ``Unsupported``.

    An engine says more of itself by the attributes that ``Traits`` names, where the defaults there are not right.
    """

    name: str
    version: str
    capabilities: Mapping[str, Level]

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> Simulation:
        """Build n worlds of a scene.

        Args:
          threads: CPU threads (0: all).
          options: engine settings that override the model's: ``timestep`` [s], ``cone`` (elliptic | pyramidal),
            ``jacobian`` (dense | sparse).

        Raises:
          InputError: the model does not compile.
          Unsupported: an option the engine lacks.
        """


@dataclass(frozen=True)
class Traits:
    """What an engine is, beside what it can do.

    Attributes:
      formulation: kind of physics, in a word; its name by default. Engines of one formulation make the same errors, so
        that they count as one vote in ``flyball.evaluation.agreement``.
      precision: of the numbers that it steps.
      warm_up: what has to be done before its first step and takes long, in words; empty where nothing has.
    """

    formulation: str
    precision: Precision = "double"
    warm_up: str = ""

    @property
    def epsilon(self) -> float:
        """Machine epsilon of its numbers: the distance from 1 to the next."""
        return float(np.finfo(np.float64 if self.precision == "double" else np.float32).eps)


def traits(engine: Engine) -> Traits:
    """Of an engine."""
    said = {f.name: getattr(engine, f.name) for f in fields(Traits) if hasattr(engine, f.name)}
    return Traits(**{"formulation": engine.name, **said})
