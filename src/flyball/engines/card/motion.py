"""Laws of motion without contact: falling, swinging, turning, and how errors vanish with the time step."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flyball.engines.card.card import Finding, Law
from flyball.engines.card.scenes import (
    GRAVITY,
    PENDULUM,
    PENDULUM_INERTIA,
    STEP_S,
    WEIGHTLESS,
    Array,
    free,
    open_scene,
    rotate,
    run,
)
from flyball.engines.engine import Engine

_MOMENTS = np.array([0.010, 0.018, 0.025])
_SPIN = np.array([3.0, 0.2, 2.0])
_STEPS = (0.008, 0.004, 0.002, 0.001)


def _fall(engine: Engine) -> Finding:
    sim = open_scene(engine, free('<geom size=".05" mass="2"/>', 10))
    sim.push("b", np.array([[3.0, 0, 4, 0, 0, 0]]))
    end = run(sim, 1.0, ["body:b.position"])["body:b.position"][-1]
    want = np.array([3.0, 0.0, 10 + 4 - GRAVITY / 2])
    error = float(np.linalg.norm(end - want) / (GRAVITY / 2))
    return Finding(error, f"{end[2]:.5f} m high after 1 s, law {want[2]:.5f}")


def _period(engine: Engine) -> Finding:
    sim = open_scene(engine, PENDULUM)
    sim.place("p", np.array([[0.02]]))
    q = run(sim, 10.0, ["joint:p.position"])["joint:p.position"][:, 0]
    t = (np.arange(len(q)) + 1) * sim.timestep
    down = np.flatnonzero((q[:-1] > 0) & (q[1:] <= 0))
    cross = t[down] + sim.timestep * q[down] / (q[down] - q[down + 1])
    found = float(np.diff(cross).mean()) if len(cross) > 1 else float("nan")
    want = 2 * np.pi * np.sqrt(PENDULUM_INERTIA / (GRAVITY * 0.5))
    return Finding(abs(found / want - 1), f"{found:.5f} s, law {want:.5f} s")


def _energy(engine: Engine) -> Finding:
    sim = open_scene(engine, PENDULUM)
    sim.place("p", np.array([[1.5]]))
    done = run(sim, 10.0, ["joint:p.position", "joint:p.velocity"])
    q, v = done["joint:p.position"][:, 0], done["joint:p.velocity"][:, 0]
    energy = PENDULUM_INERTIA * v**2 / 2 - GRAVITY * 0.5 * np.cos(q)
    swing = GRAVITY * 0.5 * (1 - np.cos(1.5))
    # the mean over a period: a symplectic step lets the energy oscillate, drift is what counts
    third = len(energy) // 3
    drift = abs(energy[-third:].mean() - energy[:third].mean()) / swing
    return Finding(float(drift), f"{100 * drift:.4f} % of the swing's energy gone in 10 s")


def _precession(engine: Engine) -> Finding:
    sim = open_scene(engine, _SPINNING, option=WEIGHTLESS)
    sim.push("b", np.concatenate([np.zeros(3), _SPIN])[None])
    start = _MOMENTS * _SPIN
    done = run(sim, 2.0, ["joint:b.velocity", "body:b.quat"])
    world = rotate(done["body:b.quat"], _MOMENTS * done["joint:b.velocity"][:, 3:])
    error = float(np.linalg.norm(world - start, axis=1).max() / np.linalg.norm(start))
    turned = float(np.abs(done["joint:b.velocity"][:, 3:] - _SPIN).max())
    note = f"angular momentum off by {100 * error:.2f} % at most in 2 s"
    return Finding(error if turned > 0.5 else float("inf"), note)


def _floating(engine: Engine) -> Finding:
    """Two bodies on a hinge that a motor drives, nothing else acting: their common centre of mass stays."""
    bodies = (
        '<body name="a" pos="0 0 1"><freejoint name="a"/><inertial pos="0 0 0" mass="2" diaginertia=".02 .03 .04"/>'
        '<body name="c" pos=".1 0 0"><joint name="c" type="hinge" axis="0 1 0"/>'
        '<inertial pos=".2 0 0" mass="1" diaginertia=".005 .01 .01"/></body></body>'
    )
    sim = open_scene(engine, bodies, option=WEIGHTLESS, extra='<actuator><motor name="c" joint="c"/></actuator>')
    done = run(sim, 1.0, ["body:a.position", "body:c.position", "body:c.quat"], [0.05])
    lever = rotate(done["body:c.quat"], np.array([0.2, 0.0, 0.0]))
    com = (2 * done["body:a.position"] + done["body:c.position"] + lever) / 3
    turned = np.abs(lever[-1] - lever[0]).max()
    error = float(np.linalg.norm(com - np.array([0.1, 0, 1.0]), axis=1).max())
    note = f"the common centre of mass moves {1000 * error:.4f} mm in 1 s"
    return Finding(error if turned > 0.1 else float("inf"), note)


# order of accuracy ----------------------------------------------------------------------------------------


def _rk4(rate: Callable[[Array], Array], x: Array, seconds: float, steps: int = 2000) -> Array:
    """The classic Runge-Kutta method of order 4: at these steps the reference is good to 1e-11."""
    h = seconds / steps
    for _ in range(steps):
        a = rate(x)
        b = rate(x + h / 2 * a)
        c = rate(x + h / 2 * b)
        x = x + h / 6 * (a + 2 * b + 2 * c + rate(x + h * c))
    return x


def _sweep(end: Callable[[Engine, float], Array], want: Callable[[], Array]) -> Callable[[Engine], Finding]:
    """Test of the order: the slope of the error over the step, both in logarithms.

    Args:
      end: what an engine arrives at with a time step.
      want: what the law says.
    """

    def test(engine: Engine) -> Finding:
        law = want()
        errors = np.array([float(np.abs(end(engine, step) - law).max()) for step in _STEPS])
        data = {"step [s]": _STEPS, "error": errors.tolist()}
        if (errors < _EXACT).all():
            return Finding(0.0, f"exact to {errors.max():.1g} at every step", data)
        order = float(np.polyfit(np.log(_STEPS), np.log(np.maximum(errors, 1e-15)), 1)[0])
        note = f"halving the step divides the error by {2**order:.1f}: order {order:.2f}"
        return Finding(max(0.0, 1 - order) if np.isfinite(order) else float("inf"), note, data)

    return test


def _fallen(engine: Engine, step: float) -> Array:
    sim = open_scene(engine, free('<geom size=".05" mass="2"/>', 10), step=step)
    return run(sim, 0.8, ["body:b.position"])["body:b.position"][-1, 2:]


def _swung(engine: Engine, step: float) -> Array:
    sim = open_scene(engine, PENDULUM, step=step)
    sim.place("p", np.array([[1.0]]))
    return run(sim, 0.8, ["joint:p.position"])["joint:p.position"][-1]


def _turned(engine: Engine, step: float) -> Array:
    sim = open_scene(engine, _SPINNING, option=WEIGHTLESS, step=step)
    sim.push("b", np.concatenate([np.zeros(3), _SPIN])[None])
    return run(sim, 0.8, ["joint:b.velocity"])["joint:b.velocity"][-1, 3:]


def _swung_law() -> Array:
    w2 = GRAVITY * 0.5 / PENDULUM_INERTIA
    return _rk4(lambda x: np.array([x[1], -w2 * np.sin(x[0])]), np.array([1.0, 0.0]), 0.8)[:1]


def _turned_law() -> Array:
    return _rk4(lambda w: np.cross(_MOMENTS * w, w) / _MOMENTS, _SPIN, 0.8)


_SPINNING = free(
    f'<inertial pos="0 0 0" mass="1" diaginertia="{_MOMENTS[0]} {_MOMENTS[1]} {_MOMENTS[2]}"/>'
)  # fmt: skip
_EXACT = 1e-6
_CONSISTENT = "1 minus the order: any consistent method has order 1 at least, fitted over a factor of 8 in the step"
_FAMILY = "Motion"
LAWS = (
    Law(_FAMILY, "free fall", "thrown, a body falls g t^2 / 2", 1.05 * STEP_S,
        "a first-order step is off by g t dt / 2, which is dt of the way", _fall),
    Law(_FAMILY, "pendulum, period", "small swings take 2 pi sqrt(I / m g l)", 2e-4, "0.02 rad adds 3e-5", _period),
    Law(_FAMILY, "pendulum, energy", "a free swing keeps its energy", 1e-3, "per 10 s, of the swing's energy", _energy),
    Law(_FAMILY, "torque-free precession", "without torque the angular momentum stays", 0.02,
        "2 s at 3 rad/s, first-order step", _precession),
    Law(_FAMILY, "floating base", "a motor inside moves no common centre of mass [m]", 1e-3,
        "a first-order step drifts with dt: 1 mm of a reach of 0.3 m in 1 s", _floating),
    Law(_FAMILY, "order, free fall", "the error of a fall vanishes with the step", 0.1, _CONSISTENT,
        _sweep(_fallen, lambda: np.array([10 - GRAVITY * 0.8**2 / 2]))),
    Law(_FAMILY, "order, pendulum", "the error of a swing of 1 rad vanishes with the step", 0.1, _CONSISTENT,
        _sweep(_swung, _swung_law)),
    Law(_FAMILY, "order, torque-free body", "the error of a free rotation vanishes with the step", 0.1, _CONSISTENT,
        _sweep(_turned, _turned_law)),
)  # fmt: skip
