"""What a scene has, by name, and the part of a state that every engine can take.

In: a simulation with a ``layout``. Out: joint positions and velocities and base poses by name, and a list of what such
a view leaves out. A full state (``Simulation.save``) resumes bit for bit but only in the engine that made it; a
portable one can be placed in any engine, and says what it lost.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError

Array = NDArray[np.float64]

_SIZES = {"hinge": (1, 1), "slide": (1, 1), "ball": (4, 3), "free": (7, 6)}


@dataclass(frozen=True)
class JointLayout:
    """A joint.

    Attributes:
      name: how ``place``, ``push`` and reads address it; a free joint without a name goes by its body's.
      kind: hinge [rad], slide [m], ball [w x y z], free [x y z w x y z].
      body: the body that it moves. A body that nothing moves is fixed: bases float only where there is a free joint.
    """

    name: str
    kind: Literal["hinge", "slide", "ball", "free"]
    body: str

    @property
    def nq(self) -> int:
        """Numbers of a position."""
        return _SIZES[self.kind][0]

    @property
    def nv(self) -> int:
        """Numbers of a velocity."""
        return _SIZES[self.kind][1]


@dataclass(frozen=True)
class Layout:
    """Names of everything in a scene, in the engine's order.

    Attributes:
      joints: joints; only those with a name (see ``JointLayout.name``).
      actuators: of the columns of the controls; "" where unnamed.
      bodies: without the world.
      sensors: name -> how many numbers.
      tendons: names.
    """

    joints: tuple[JointLayout, ...]
    actuators: tuple[str, ...]
    bodies: tuple[str, ...]
    sensors: Mapping[str, int]
    tendons: tuple[str, ...]

    @property
    def nu(self) -> int:
        """Columns of the controls."""
        return len(self.actuators)

    def joint(self, name: str) -> JointLayout | None:
        """The joint of that name."""
        return next((j for j in self.joints if j.name == name), None)


@dataclass(frozen=True)
class PortableState:
    """A state by name, of n worlds.

    Attributes:
      time: [s], (n,). Carried for the record: placing a state starts no clock.
      positions: joint -> (n, nq) [rad, m, or w x y z].
      velocities: joint -> (n, nv) [rad/s, m/s].
      bases: body with a free joint -> pose in the world (n, 7): [m] and w x y z of the body's frame.
      twists: body with a free joint -> (n, 6): linear velocity in world axes, angular in the body's [m/s, rad/s].
    """

    time: Array
    positions: Mapping[str, Array]
    velocities: Mapping[str, Array]
    bases: Mapping[str, Array]
    twists: Mapping[str, Array]


class _Worlds(Protocol):
    """The part of a ``Simulation`` that is needed here."""

    n: int
    layout: Layout

    def read(self, names: Sequence[str]) -> dict[str, Array]: ...

    def place(self, joint: str, position: Array, worlds: NDArray[np.int64] | None = None) -> None: ...

    def push(self, joint: str, velocity: Array, worlds: NDArray[np.int64] | None = None) -> None: ...


def take(sim: _Worlds) -> PortableState:
    """The portable part of a simulation's state, through its own reads."""
    names = [f"joint:{j.name}.{f}" for j in sim.layout.joints for f in ("position", "velocity")]
    seen = sim.read(["time", *names])
    parts: tuple[dict[str, Array], ...] = ({}, {}, {}, {})
    for j in sim.layout.joints:
        free = j.kind == "free"
        key = j.body if free else j.name
        parts[2 if free else 0][key] = seen[f"joint:{j.name}.position"]
        parts[3 if free else 1][key] = seen[f"joint:{j.name}.velocity"]
    return PortableState(seen["time"][:, 0], *parts)


def put(sim: _Worlds, state: PortableState, worlds: NDArray[np.int64] | None = None) -> list[str]:
    """Place a portable state through ``place`` and ``push``; joints without a counterpart stay as they are.

    Returns:
      What did not carry over, in words.

    Raises:
      InputError: the state is of another number of worlds, a joint's numbers do not fit, or one is not finite.
    """
    rows = sim.n if worlds is None else len(worlds)
    free = {j.body: j for j in sim.layout.joints if j.kind == "free"}
    other = {j.name: j for j in sim.layout.joints if j.kind != "free"}
    lost, jobs = [], []
    for kind, mine, q, v in (
        ("joint", other, state.positions, state.velocities),
        ("base", free, state.bases, state.twists),
    ):
        for name in q:
            if name not in mine:
                lost.append(f"{kind} {name}: not in this scene")
                continue
            j = mine[name]
            for values, size in ((q[name], j.nq), (v[name], j.nv)):
                if np.shape(values) != (rows, size) or not np.isfinite(values).all():
                    raise InputError(
                        f"{kind} {name}: values of shape {np.shape(values)}",
                        where="place_portable",
                        allowed=f"finite, ({rows}, {size})",
                    )
            jobs.append((j.name, q[name], v[name]))
        lost += [f"{kind} {name}: not in the state, left as it was" for name in mine if name not in q]
    for name, position, velocity in jobs:
        sim.place(name, position, worlds)
        sim.push(name, velocity, worlds)
    return lost


def unnamed(kinds: Sequence[str]) -> list[str]:
    """How a portable view reports joints that nobody can address."""
    return [f"{len(kinds)} joint(s) without a name: {', '.join(sorted(set(kinds)))}"] if kinds else []
