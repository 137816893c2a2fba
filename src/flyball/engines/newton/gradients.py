"""Derivatives of a course through Newton's Featherstone solver, by reverse-mode differentiation of every step.

In: a simulation in its current state, controls. Out: dy_end/dx for y = (q, v). One world per row of the Jacobian: all
are in the same state, each is seeded with another component of y, so that one backward pass gives the matrix of a step.
Matrices are then multiplied: one tape over all steps is off by 2 % after 40 steps of a double pendulum, where single
steps agree with finite differences to 2e-5, probably because the solver overwrites the poses in its input state.

Joints are hinges and slides, whose coordinates are their own tangent space; nothing may touch. The kernels are compiled
a second time, with their derivatives: some 20 s of CPU, once.
"""

from __future__ import annotations

from typing import Any, Literal

import mujoco
import numpy as np
import warp as wp
from numpy.typing import NDArray

from flyball.base import Unsupported
from flyball.engines.newton import fields, kernels, runtime
from flyball.engines.newton.drives import Drives
from flyball.engines.newton.model import Worlds, build
from flyball.engines.newton.solvers import Solver
from flyball.scenes import Scene

Array = NDArray[np.float64]

_PER_WORLD = ("body_mass", "body_inv_mass", "body_inertia", "body_inv_inertia", "joint_armature", "joint_damping")


def rollout_gradient(
    scene: Scene, solver: Solver, m: mujoco.MjModel, own: Worlds, state: Any, drives: Drives, controls: Array,
    wrt: Literal["state", "control"],
) -> Array:  # fmt: skip
    """dy_end/dx of the first of n worlds from its state, which stays as it is.

    Args:
      m: the scene's compiled model.
      own: the worlds.
      state: Newton's, of all worlds.
      drives: their actuators.
      controls: (k, nu).

    Returns:
      (2 nv, 2 nv) for the state; (2 nv, k nu) for the controls, held over each substep.

    Raises:
      Unsupported: the solver, a joint, a contact or an actuator's limit does not allow it.
    """
    _check(solver, m, own)
    nv, n, device = m.nv, own.model.world_count, own.model.device
    nt, rows = runtime.newton(), 2 * nv
    import newton._src.solvers.featherstone.kernels as featherstone
    import newton._src.solvers.semi_implicit.kernels_body as bodies

    for module in (featherstone, bodies):  # compiled without, see ``runtime.newton``
        wp.set_module_options({"enable_backward": True}, module)
    with wp.ScopedDevice(device):
        worlds = build(m, scene, solver, rows, device, gradient=True)
        for name in _PER_WORLD:
            first = fields.rows(getattr(own.model, name), n)[:1]
            fields.assign(getattr(worlds.model, name), np.repeat(first, rows, axis=0))
        worlds.model.set_gravity(own.model.gravity.numpy()[0])
        stepper = nt.solvers.SolverFeatherstone(worlds.model, **solver.arguments)
        matrices = [wp.array(x.astype(np.float32), dtype=float) for x in _linear(m, own, drives, controls)]
        u = wp.zeros((rows, m.nu), dtype=float, requires_grad=True)
        now, after = (worlds.model.state(requires_grad=True) for _ in range(2))
        control = worlds.model.control(requires_grad=True)
        q, v, f = (x.reshape((rows, -1)) for x in (now.joint_q, now.joint_qd, control.joint_f))
        at_q, at_v = worlds.joints.q, worlds.joints.qd
        for name in ("joint_q", "joint_qd"):
            fields.assign(getattr(now, name), np.repeat(fields.rows(getattr(state, name), n)[:1], rows, 0))
        seeds = [np.zeros((rows, worlds.joints.nq)), np.zeros((rows, worlds.joints.nqd))]
        seeds[0][np.arange(nv), at_q] = seeds[1][nv + np.arange(nv), at_v] = 1.0
        ends = {x: wp.array(s.ravel().astype(np.float32), dtype=float)
                for x, s in zip((after.joint_q, after.joint_qd), seeds, strict=True)}  # fmt: skip
        by_state, by_control = np.eye(rows), np.zeros((rows, 0))
        for row in controls:
            fields.assign(u, np.repeat(row[None], rows, axis=0))
            nt.eval_fk(worlds.model, now.joint_q, now.joint_qd, now)
            now.clear_forces()
            tape = wp.Tape()
            with tape:
                wp.launch(kernels.torque, dim=(rows, nv), inputs=[*matrices, q, v, u], outputs=[f])
                stepper.step(now, after, control, None, m.opt.timestep)
            tape.backward(grads=ends)
            by_q, by_v = (fields.rows(x.grad, rows) for x in (now.joint_q, now.joint_qd))
            one = np.concatenate([by_q[:, at_q], by_v[:, at_v]], axis=1)
            by_state = one @ by_state
            by_control = np.concatenate([one @ by_control, fields.rows(u.grad, rows)], axis=1)
            tape.zero()
            for name in ("joint_q", "joint_qd"):
                wp.copy(getattr(now, name), getattr(after, name))
        return by_state if wrt == "state" else by_control


def _check(solver: Solver, m: mujoco.MjModel, worlds: Worlds) -> None:
    where = f"engine newton-{solver.name}"
    refused = [
        (solver.name != "featherstone", "derivatives", "newton-featherstone"),
        (bool((m.jnt_type < 2).any()), "derivatives through free or ball joints", "hinges and slides"),
        (len(worlds.met.pairs) > 0, "derivatives with bodies that may touch", "no contacts: contype and conaffinity 0"),
        (bool(m.jnt_limited.any()), "derivatives through joint limits", "joints without limits"),
        (bool(m.neq), "derivatives with equalities", "none"),
    ]
    for no, what, allowed in refused:
        if no:
            raise Unsupported(what, where=where, allowed=allowed, run_next="finite differences")


def _linear(m: mujoco.MjModel, worlds: Worlds, d: Drives, controls: Array) -> tuple[Array, Array, Array, Array]:
    """Torque as A q + B v + C u + c.

    Raises:
      Unsupported: an actuator may reach a limit, or multiplies control and state.
    """
    gain, bias, moment = d.values("gain")[0], d.values("bias")[0], d.moment
    low, high = d.range[:, 0], d.range[:, 1]
    limited = (np.abs(d.values("limit")[0]) < 1e29).any() or (np.abs(d.values("pull")[0]) < 1e29).any()
    if gain[:, 1:].any() or limited or (controls < low).any() or (controls > high).any():
        raise Unsupported("derivatives through an actuator's limit or a gain that depends on the state",
                          where="engine newton-featherstone", run_next="finite differences")  # fmt: skip
    spring = np.diag(m.jnt_stiffness[m.dof_jntid])
    rest = m.qpos_spring[m.jnt_qposadr[m.dof_jntid]]
    order = np.argsort(worlds.joints.qd)  # the rows and columns as Newton has them

    def turned(x: Array) -> Array:
        return x[np.ix_(order, order)]

    of_q = moment.T @ (bias[:, 1:2] * moment) - spring
    of_v = moment.T @ (bias[:, 2:3] * moment)
    constant = moment.T @ bias[:, 0] + spring @ rest
    return turned(of_q), turned(of_v), (moment.T * gain[:, 0])[order], constant[order]
