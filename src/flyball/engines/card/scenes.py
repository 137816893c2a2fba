"""Scenes of the card. In: an engine and a few lines of MJCF. Out: a simulation, and the course of its fields."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.engines.engine import Engine, Simulation
from flyball.scenes import Scene

Array = NDArray[np.float64]

GRAVITY = 9.81
STEP_S = 0.001
"""Time step of all scenes [s], unless a law varies it."""
WEIGHTLESS = 'gravity="0 0 0"'

BOX = '<geom name="g" type="box" size=".1 .1 .05" mass="1"/>'
PENDULUM = (
    '<body name="p" pos="0 0 2"><joint name="p" type="hinge" axis="0 1 0"/>'
    '<inertial pos="0 0 -.5" mass="1" diaginertia=".02 .02 .02"/></body>'
)
PENDULUM_INERTIA = 0.02 + 0.5**2
"""About its hinge [kg m^2]."""


def open_scene(
    engine: Engine,
    body: str,
    *,
    n: int = 1,
    option: str = "",
    extra: str = "",
    step: float = STEP_S,
    threads: int = 1,
    options: Mapping[str, float | str] | None = None,
) -> Simulation:
    """n worlds of a scene.

    Args:
      body: what stands in ``<worldbody>``.
      option: attributes of ``<option>``.
      extra: elements beside ``<worldbody>``.
      options: of the engine.
    """
    model = (
        f'<mujoco><compiler angle="radian"/><option timestep="{step}" {option}/>'
        f"<worldbody>{body}</worldbody>{extra}</mujoco>"
    )
    return engine.open(Scene("card", model, ()), n, threads=threads, options=options)


def run(
    sim: Simulation, seconds: float, reads: Sequence[str], control: Sequence[float] = (), every: int = 1
) -> dict[str, Array]:
    """Fields of world 0 at the end of every ``every``-th step, (T, *shape), under a constant control.

    Raises:
      InputError: a world has failed.
    """
    steps = round(seconds / sim.timestep / every) * every
    controls = np.tile(np.asarray(control, float), (sim.n, steps, 1)).reshape(sim.n, steps, len(control))
    out = sim.rollout(controls, every, {name: "last" for name in reads})
    check(sim)
    return {name: x[0] for name, x in out.items()}


def check(sim: Simulation) -> None:
    """Refuse a world that the engine has given up on: standing still, it might look as if it kept the law.

    Raises:
      InputError: it has failed.
    """
    if not sim.status().all():
        raise InputError("the engine gives up: the state is not finite, or out of bounds", where="world")


def free(geom: str, height: float = 0.0, name: str = "b") -> str:
    """A free body."""
    return f'<body name="{name}" pos="0 0 {height}"><freejoint name="{name}"/>{geom}</body>'


def floor(mu: float) -> str:
    """A stiff floor whose friction counts for all that stands on it."""
    return f'<geom name="floor" type="plane" size="20 20 1" friction="{mu} .005 .0001" priority="1" solref=".004 1"/>'


def tilted(angle: float) -> str:
    """A horizontal plane under tilted gravity is a ramp that goes down along x."""
    return f'gravity="{GRAVITY * np.sin(angle):.9f} 0 {-GRAVITY * np.cos(angle):.9f}" cone="elliptic" impratio="10"'


def rotate(quat: Array, vector: Array) -> Array:
    """Vectors (..., 3) turned by unit quaternions w x y z (..., 4)."""
    w, u = quat[..., :1], quat[..., 1:]
    return np.asarray(vector + 2 * np.cross(u, np.cross(u, vector) + w * vector))
