"""Derivatives of a simulated course, by whatever means an engine has.

In: a simulation, a state, controls, and what to differentiate by. Out: a Jacobian, with the method that made it. One
call for all engines: where an engine differentiates by itself (capability ``gradient``, see ``Differentiable``) that is
used, else central finite differences over a batch of worlds. ``check_gradient`` compares the two.

The state is y = (q, v): the positions of all joints of the layout, in order, then their velocities. Differences of
positions live in the tangent space: a free or ball joint counts its rotation as a rotation vector in the body's axes,
so that y has 2 nv numbers and no quaternion is ever differenced.

Contacts make derivatives wrong, whoever computes them: where a contact opens, closes or begins to slip within the
course, the end is no smooth function of the start, and a step of time in which it happens makes it jump. A ball that
falls 0.2 m and bounces (0.23 s, steps of 1 ms, MuJoCo) has dz/dz0 = 0.49 by either method, in perfect agreement, while
over 4 mm of start height its end really moves by -0.13 a metre: not even the sign is right. Neither a smaller step nor
an engine's own gradient helps; averages over scattered starts do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.engine import Engine, Simulation, traits
from flyball.engines.portable import JointLayout, Layout
from flyball.scenes import Scene

Array = NDArray[np.float64]
By = Literal["state", "control", "params"]

_MOST_WORLDS = 4096


def step_of(engine: Engine) -> float:
    """Step of a central difference in units of the variable's own size (at least 1): 6e-6, 5e-3 in single precision.

    Truncation grows with its square and rounding falls with it, so that the cube root of the machine epsilon balances
    the two (Press et al., Numerical Recipes, 5.7). A solver that stops at a tolerance of its own needs a larger one.
    """
    return float(np.cbrt(traits(engine).epsilon))


class Differentiable(Protocol):
    """What a simulation has besides, when its engine declares ``gradient``."""

    def gradient(self, controls: Array, wrt: Literal["state", "control"], step: float) -> tuple[Array, str]:
        """dy_end/dx of the first world from its current state, as in ``Jacobian``, and the method's name.

        Args:
          controls: (k, nu).
          step: for an engine that takes differences itself.

        Raises:
          Unsupported: not for this scene, or not by this.
        """


@dataclass(frozen=True)
class Jacobian:
    """Derivatives of the end of a course.

    Attributes:
      values: dy_end/dx, (2 nv, m). Rows: positions of all joints in the layout's order (rotations as rotation vectors
        in the body's axes), then velocities. Columns for ``state``: the same of the start; for ``control``: (steps, nu)
        flattened, the control held over each substep; for ``params``: the parameters in the order given.
      columns: what each column is.
      method: how it was made: ``mjd_transitionFD``, ``finite differences``, or what the engine calls its own.
    """

    values: Array
    columns: tuple[str, ...]
    method: str


def jacobian(
    engine: Engine,
    scene: Scene,
    state: Array,
    controls: Array,
    wrt: By,
    *,
    params: Mapping[str, float] | None = None,
    method: Literal["best", "finite differences"] = "best",
    step: float | None = None,
    options: Mapping[str, float | str] | None = None,
) -> Jacobian:
    """Derivative of the state after k substeps by the start state, the controls or the parameters.

    Args:
      state: saved state of one world (``Simulation.save`` row), (s,) or (1, s).
      controls: (k, nu).
      params: settable field -> value, set in every world; for ``params`` also what is differentiated by.
      method: ``best``: the engine's own where it has one for this, else finite differences.
      step: of the finite differences, relative to the larger of the variable's size and 1; an engine that takes
        differences itself uses the same. ``step_of(engine)`` by default.
      options: of ``Engine.open``.

    Raises:
      InputError: shapes do not fit, or a world fails within the course.
      Unsupported: the engine lacks what is asked.
    """
    controls, step = np.atleast_2d(np.asarray(controls, float)), step_of(engine) if step is None else step
    if wrt == "params" and not params:
        raise InputError("no parameters are given", where="jacobian", allowed="params={field: value}")
    values = dict(params or {})
    probe = engine.open(scene, 1, threads=1, options=options)
    if controls.ndim != 2 or controls.shape[1] != probe.layout.nu or not np.isfinite(controls).all():
        allowed = f"finite, (k, {probe.layout.nu})"
        raise InputError(f"controls of shape {controls.shape}", where="jacobian", allowed=allowed)
    columns = _columns(probe.layout, controls, values, wrt)
    _prepare(probe, state, values)
    own = getattr(probe, "gradient", None)
    if own is not None and method == "best" and wrt != "params":
        try:
            found, name = own(controls, wrt, step)
            return Jacobian(found, columns, name)
        except Unsupported:
            pass  # not for this scene; differences can be had of any
    found = _differences(engine, scene, probe, state, controls, wrt, values, step, options)
    return Jacobian(found, columns, "finite differences")


def check_gradient(
    engine: Engine,
    scene: Scene,
    state: Array,
    controls: Array,
    wrt: By,
    *,
    params: Mapping[str, float] | None = None,
    step: float | None = None,
    options: Mapping[str, float | str] | None = None,
) -> float:
    """Greatest difference between the engine's derivative and finite differences, over the greatest of the latter."""
    kept = {"params": params, "step": step, "options": options}
    best = jacobian(engine, scene, state, controls, wrt, **kept)  # type: ignore[arg-type]
    plain = jacobian(engine, scene, state, controls, wrt, method="finite differences", **kept)  # type: ignore[arg-type]
    return float(np.abs(best.values - plain.values).max() / max(np.abs(plain.values).max(), 1e-300))


# finite differences ---------------------------------------------------------------------------------------


def _differences(
    engine: Engine,
    scene: Scene,
    probe: Simulation,
    state: Array,
    controls: Array,
    wrt: By,
    params: Mapping[str, float],
    step: float,
    options: Mapping[str, float | str] | None,
) -> Array:
    """Central differences, two worlds a column, in as few batches as fit; ``probe`` is at the start."""
    _, v = _state(probe)
    sizes = {
        "state": np.concatenate([np.ones(v.shape[1]), np.maximum(1, np.abs(v[0]))]),
        "control": np.maximum(1, np.abs(controls.ravel())),
        "params": np.maximum(np.abs(list(params.values())), 1e-3) if params else np.ones(0),
    }[wrt]
    moves = step * sizes
    out = np.empty((2 * v.shape[1], len(moves)))
    for first in range(0, len(moves), _MOST_WORLDS // 2):
        some = np.arange(first, min(first + _MOST_WORLDS // 2, len(moves)))
        out[:, some] = _block(engine, scene, state, controls, wrt, params, moves, some, options)
    return out


def _block(
    engine: Engine,
    scene: Scene,
    state: Array,
    controls: Array,
    wrt: By,
    params: Mapping[str, float],
    moves: Array,
    some: NDArray[np.int64],
    options: Mapping[str, float | str] | None,
) -> Array:
    m = len(some)
    sim = engine.open(scene, 2 * m, threads=1, options=options)
    signed = np.zeros((2 * m, len(moves)))
    signed[np.arange(m), some] = moves[some]
    signed[m + np.arange(m), some] = -moves[some]
    values = np.repeat(controls[None], 2 * m, axis=0)
    fields = {name: np.full(2 * m, x, float) for name, x in params.items()}
    if wrt == "params":
        fields = {name: x + signed[:, i] for i, (name, x) in enumerate(fields.items())}
    _prepare(sim, state, fields)
    if wrt == "state":
        nv = len(moves) // 2
        _displace(sim, signed[:, :nv], signed[:, nv:])
    elif wrt == "control":
        values = values + signed.reshape(values.shape)
    sim.step(values)
    if not sim.status().all():
        raise InputError("a world fails within the course", where="jacobian")
    q, v = _state(sim)
    dq = _difference(sim.layout, q[:m], q[m:])
    return np.asarray((np.concatenate([dq, v[:m] - v[m:]], axis=1) / (2 * moves[some])[:, None]).T)


def _prepare(sim: Simulation, state: Array, params: Mapping[str, float] | Mapping[str, Array]) -> None:
    """The same state in every world, with parameters set."""
    if params:
        sim.set({name: np.broadcast_to(np.asarray(x, float), (sim.n,)).copy() for name, x in params.items()})
    row = np.asarray(state, float).reshape(-1)
    sim.restore(np.repeat(row[None], sim.n, axis=0))


def _columns(layout: Layout, controls: Array, params: Mapping[str, float], wrt: By) -> tuple[str, ...]:
    if wrt == "params":
        return tuple(params)
    if wrt == "control":
        names = [name or f"#{i}" for i, name in enumerate(layout.actuators)]
        return tuple(f"actuator:{name}[{k}]" for k in range(len(controls)) for name in names)
    if wrt == "state":
        return tuple(
            f"joint:{j.name}.{field}" + (f"[{i}]" if j.nv > 1 else "")
            for field in ("position", "velocity")
            for j in layout.joints
            for i in range(j.nv)
        )
    raise Missing.named("derivative", wrt, ("state", "control", "params"), where="jacobian")


# positions and their tangent space ------------------------------------------------------------------------


def _state(sim: Simulation) -> tuple[Array, Array]:
    """All joint positions (n, nq) and velocities (n, nv)."""
    joints = sim.layout.joints
    if not joints:
        raise InputError("nothing moves", where="jacobian", allowed="a scene with named joints")
    seen = sim.read([f"joint:{j.name}.{f}" for j in joints for f in ("position", "velocity")])
    q, v = (np.concatenate([seen[f"joint:{j.name}.{f}"] for j in joints], axis=1) for f in ("position", "velocity"))
    return q, v


def _displace(sim: Simulation, dq: Array, dv: Array) -> None:
    """Move every world by tangent vectors of its position, (n, nv), and differences of its velocity, (n, nv)."""
    q, v = _state(sim)
    a = b = 0
    for j in sim.layout.joints:
        move = dq[:, b : b + j.nv]
        here = q[:, a : a + j.nq]
        if j.kind in ("free", "ball"):
            split = 3 if j.kind == "free" else 0
            turned = _multiply(here[:, split:], _rotation(move[:, split:]))
            here = np.concatenate([here[:, :split] + move[:, :split], turned], axis=1)
        else:
            here = here + move
        sim.place(j.name, here)
        sim.push(j.name, v[:, b : b + j.nv] + dv[:, b : b + j.nv])
        a, b = a + j.nq, b + j.nv


def _difference(layout: Layout, to: Array, start: Array) -> Array:
    """Tangent vectors that lead from positions to positions, (n, nv)."""
    parts, a = [], 0
    for j in layout.joints:
        x, y = start[:, a : a + j.nq], to[:, a : a + j.nq]
        parts.append(_step_between(j, x, y))
        a += j.nq
    return np.concatenate(parts, axis=1)


def _step_between(joint: JointLayout, x: Array, y: Array) -> Array:
    if joint.kind not in ("free", "ball"):
        return y - x
    split = 3 if joint.kind == "free" else 0
    turn = _multiply(x[:, split:] * np.array([1, -1, -1, -1]), y[:, split:])
    turn = np.where(turn[:, :1] < 0, -turn, turn)
    sine = np.linalg.norm(turn[:, 1:], axis=1, keepdims=True)
    angle = 2 * np.arctan2(sine, turn[:, :1])
    scale = np.where(sine > 1e-12, angle / np.maximum(sine, 1e-300), 2.0)
    return np.concatenate([y[:, :split] - x[:, :split], scale * turn[:, 1:]], axis=1)


def _rotation(vector: Array) -> Array:
    """Unit quaternions of rotation vectors, (n, 4)."""
    angle = np.linalg.norm(vector, axis=1, keepdims=True)
    half = np.sinc(angle / (2 * np.pi)) / 2
    return np.concatenate([np.cos(angle / 2), half * vector], axis=1)


def _multiply(a: Array, b: Array) -> Array:
    """Products of quaternions, (n, 4)."""
    w = a[:, :1] * b[:, :1] - (a[:, 1:] * b[:, 1:]).sum(axis=1, keepdims=True)
    return np.concatenate([w, a[:, :1] * b[:, 1:] + b[:, :1] * a[:, 1:] + np.cross(a[:, 1:], b[:, 1:])], axis=1)


__all__: Sequence[str] = ["By", "Differentiable", "Jacobian", "check_gradient", "jacobian", "step_of"]
