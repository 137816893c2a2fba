"""What the actuators of a model do, in Drake's terms.

In: a compiled MuJoCo model. Out: ``Drives``: servos on single joints, whose stiffness and damping Drake solves
implicitly, and forces without feedback. MuJoCo's actuator pushes along its length l with
``clip(g ctrl + b0 + b1 l + b2 dl/dt)``; on a joint, with l = gear q, this is

    clip(a - stiffness q - damping dq/dt),  a = gear (g ctrl + b0),  stiffness = -b1 gear^2,  damping = -b2 gear^2

which is what Drake's actuators do, told the target position a / stiffness, or the target velocity a / damping where
there is no stiffness. (Told a as a force besides, Drake would follow it less than it follows a target: it softens gains
that are too stiff for the time step.) A force range that is not symmetric is moved to its middle by a constant force.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

_TRN, _GAIN, _BIAS = mujoco.mjtTrn, mujoco.mjtGain, mujoco.mjtBias

Array = NDArray[np.float64]


class Servo(NamedTuple):
    """Feedback on one joint.

    Attributes:
      joint: of the model.
      dof: its velocity in the model.
      stiffness, damping: of the joint [N m/rad, N m s/rad or N/m, N s/m].
      limit: greatest force about the middle of its range [N m or N].
      middle: of its range.
      actuator: of the model, -1 for a spring.
      gear: force on the joint over force of the actuator.
      spring: constant force of a spring.
    """

    joint: int
    dof: int
    stiffness: float
    damping: float
    limit: float
    middle: float
    actuator: int
    gear: float
    spring: float = 0.0


@dataclass
class Drives:
    """All actuators.

    Attributes:
      servos: Drake's first actuators, in this order.
      gain: force over control, per actuator (nu,).
      bias: constant force, per actuator (nu,).
      control: limits of the controls (nu, 2); infinite where there are none.
      force: limits of the forces (nu, 2).
      reach: force on each degree of freedom per force of an actuator, (nu, nv).
      plain: actuators without feedback, (nu,).
      tendons: length of each fixed tendon per joint position, (ntendon, nv).
    """

    servos: list[Servo]
    gain: Array
    bias: Array
    control: Array
    force: Array
    reach: Array
    plain: NDArray[np.bool_]
    tendons: Array

    def forward(self, controls: Array) -> Array:
        """What does not depend on the state: force of each actuator before its servo's share, (..., nu)."""
        return self.gain * np.clip(controls, self.control[:, 0], self.control[:, 1]) + self.bias

    def inputs(self, controls: Array) -> tuple[Array, Array, Array]:
        """What Drake is told, of controls (..., nu).

        Returns:
          Target position and velocity of each servo (..., servos), forces besides on the degrees of freedom (..., nv).
        """
        force = self.forward(controls)
        besides = (np.clip(force, self.force[:, 0], self.force[:, 1]) * self.plain) @ self.reach
        position, velocity = np.zeros((2, *force.shape[:-1], len(self.servos)))
        for k, s in enumerate(self.servos):
            ahead = s.spring if s.actuator < 0 else force[..., s.actuator] * s.gear - s.middle
            if s.stiffness > 0:
                position[..., k] = ahead / s.stiffness
            else:
                velocity[..., k] = ahead / s.damping
            besides[..., s.dof] += s.middle
        return position, velocity, besides

    def forces(self, controls: Array, positions: Array, velocities: Array) -> Array:
        """Force of each actuator along its length [N or N m], (..., nu); positions and velocities (..., nv)."""
        out = self.forward(controls)
        for s in self.servos:
            if s.actuator >= 0:
                feedback = s.stiffness * positions[..., s.dof] + s.damping * velocities[..., s.dof]
                out[..., s.actuator] -= feedback / s.gear
        return np.clip(out, self.force[:, 0], self.force[:, 1])


def read_drives(m: Any, refuse: Callable[[str, str], None]) -> Drives:
    """The drives of a model.

    Args:
      m: MjModel.
      refuse: told of what cannot be had, (feature, where).
    """
    for several in np.flatnonzero((m.actuator_ctrlnum != 1) | (m.actuator_outnum != 1)):
        refuse("actuator with several controls or outputs", f"actuator {_name(m, int(several))}")
    unlimited = np.array([-np.inf, np.inf])
    clamp = not m.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CLAMPCTRL
    control = np.where(m.actuator_ctrllimited[:, None].astype(bool) & clamp, m.actuator_ctrlrange, unlimited)
    force = np.where(m.actuator_forcelimited[:, None].astype(bool), m.actuator_forcerange, unlimited)
    tendons = np.zeros((m.ntendon, m.nv))
    for t in range(m.ntendon):
        for w in range(m.tendon_adr[t], m.tendon_adr[t] + m.tendon_num[t]):
            if m.wrap_type[w] == mujoco.mjtWrap.mjWRAP_JOINT:
                tendons[t, m.jnt_dofadr[m.wrap_objid[w]]] += m.wrap_prm[w]
            else:
                refuse("tendon", f"tendon {m.tendon(t).name or t}: is spatial")
    reach, gain, bias = np.zeros((m.nu, m.nv)), np.zeros(m.nu), np.zeros(m.nu)
    plain = np.ones(m.nu, bool)
    servos: list[Servo] = []
    for a in range(m.nu):
        reach[a] = _reach(m, a, tendons, refuse)
        stiffness, damping, gain[a], bias[a] = _law(m, a, refuse)
        on = np.flatnonzero(reach[a])
        if len(on) == 1:
            force[a] = _joint_limit(m, a, int(on[0]), reach, force[a], refuse)
        if not (stiffness or damping):
            continue
        if len(on) != 1:
            refuse("feedback through several joints", f"actuator {_name(m, a)}")
        plain[a] = False
        dof, gear = int(on[0]), float(reach[a, on[0]])
        low, high = force[a]
        limit, middle = ((high - low) / 2, (high + low) / 2) if np.isfinite(high - low) else (np.inf, 0.0)
        if np.isfinite(low) != np.isfinite(high):
            refuse("force range with one end", f"actuator {_name(m, a)}")
        # Drake's joint positions start at 0 where MuJoCo's start at qpos0
        joint = int(m.dof_jntid[dof])
        bias[a] -= stiffness * gear * m.qpos0[m.jnt_qposadr[joint]]
        limit, middle = limit * abs(gear), middle * gear
        servos.append(Servo(joint, dof, stiffness * gear**2, damping * gear**2, limit, middle, a, gear))
    for j in np.flatnonzero(m.jnt_stiffness > 0):
        k, at = float(m.jnt_stiffness[j]), m.jnt_qposadr[j]
        pull = k * float(m.qpos_spring[at] - m.qpos0[at])
        servos.append(Servo(int(j), int(m.jnt_dofadr[j]), k, 0.0, np.inf, 0.0, -1, 1.0, pull))
    return Drives(servos, gain, bias, control, force, reach, plain, tendons)


def _law(m: Any, a: int, refuse: Callable[[str, str], None]) -> tuple[float, float, float, float]:
    """Stiffness, damping, gain and constant force along the actuator's length."""
    where = f"actuator {_name(m, a)}"
    if m.actuator_dyntype[a] != mujoco.mjtDyn.mjDYN_NONE:
        refuse("actuator dynamics", where)
    if m.actuator_damping[a].any() or m.actuator_armature[a].any() or m.actuator_delay[a].any():
        refuse("damping, armature or delay of an actuator", where)
    gain, bias = m.actuator_gainprm[a], m.actuator_biasprm[a]
    if _GAIN(m.actuator_gaintype[a]) not in (_GAIN.mjGAIN_FIXED, _GAIN.mjGAIN_AFFINE):
        refuse("gain of this type", where)
    if m.actuator_gaintype[a] == _GAIN.mjGAIN_AFFINE and gain[1:3].any():
        refuse("gain that depends on the state", where)
    if m.actuator_biastype[a] == _BIAS.mjBIAS_NONE:
        return 0.0, 0.0, float(gain[0]), 0.0
    if m.actuator_biastype[a] != _BIAS.mjBIAS_AFFINE:
        refuse("bias of this type", where)
    if bias[1] > 0 or bias[2] > 0:
        refuse("feedback that drives away", where)
    return -float(bias[1]), -float(bias[2]), float(gain[0]), float(bias[0])


def _reach(m: Any, a: int, tendons: Array, refuse: Callable[[str, str], None]) -> Array:
    kind, target, gear = _TRN(m.actuator_trntype[a]), int(m.actuator_trnid[a, 0]), float(m.actuator_gear[a, 0])
    out = np.zeros(m.nv)
    if kind in (_TRN.mjTRN_JOINT, _TRN.mjTRN_JOINTINPARENT) and m.jnt_type[target] >= int(mujoco.mjtJoint.mjJNT_SLIDE):
        out[m.jnt_dofadr[target]] = gear
    elif kind == _TRN.mjTRN_TENDON:
        out[:] = gear * tendons[target]
    else:
        refuse("transmission of this kind", f"actuator {_name(m, a)}")
    return out


def _joint_limit(m: Any, a: int, dof: int, reach: Array, own: Array, refuse: Callable[[str, str], None]) -> Array:
    """The force range, within what the joint may bear."""
    j = int(m.dof_jntid[dof])
    if not m.jnt_actfrclimited[j]:
        return own
    if np.count_nonzero(reach[:a, dof]) or m.jnt_actgravcomp[j]:
        refuse("common force limit of several actuators", f"joint {m.joint(j).name or j}")
    bounds = np.sort(m.jnt_actfrcrange[j] / reach[a, dof])
    return np.array([max(own[0], bounds[0]), min(own[1], bounds[1])])


def _name(m: Any, a: int) -> str:
    return m.actuator(a).name or str(a)
