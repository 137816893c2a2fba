"""Actuators of all worlds as MuJoCo means them. In: controls. Out: joint torques for a Newton solver."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from flyball.engines.newton import fields, kernels, runtime
from flyball.engines.newton.model import Worlds

Array = NDArray[np.float64]
_HINGE = int(mujoco.mjtJoint.mjJNT_SLIDE)
_FAR = 1e30


class Drives:
    """Torques before each step.

    Attributes:
      control: applied last, (n, nu).
      force: of each actuator [N or N m], on the device, (n, nu).
      moment: length of each actuator per joint coordinate, (nu, nv).
      range: of the controls, (nu, 2).
    """

    def __init__(self, m: mujoco.MjModel, worlds: Worlds, n: int, device: Any) -> None:
        self._m, self._n, self._worlds = m, n, worlds
        wp = runtime.warp()

        def device_array(x: Any, dtype: Any = float) -> Any:
            return wp.array(np.ascontiguousarray(x, np.float32 if dtype is float else np.int32), dtype=dtype,
                            device=device)  # fmt: skip

        self.control = np.zeros((n, m.nu))
        self.force = wp.zeros((n, m.nu), dtype=float, device=device)
        self._ctrl = wp.zeros((n, m.nu), dtype=float, device=device)
        scalar = m.jnt_type[m.dof_jntid] >= _HINGE if m.nv else np.zeros(0, bool)
        q_of = np.where(scalar, worlds.joints.q[m.jnt_qposadr[m.dof_jntid]] if m.nv else 0, -1)
        rest = m.qpos_spring[m.jnt_qposadr[m.dof_jntid]] if m.nv else np.zeros(0)
        stiff = m.jnt_stiffness[m.dof_jntid] * scalar if m.nv else np.zeros(0)
        limited = np.where(m.actuator_ctrllimited[:, None].astype(bool), m.actuator_ctrlrange, [-_FAR, _FAR])
        tendon = np.where(m.actuator_trntype == int(mujoco.mjtTrn.mjTRN_TENDON), m.actuator_trnid[:, 0], -1)
        self._q_of, self._qd_of = device_array(q_of, wp.int32), device_array(worlds.joints.qd, wp.int32)
        self.moment, self.range = _moment(m), limited.reshape(m.nu, 2)
        self._moment, self._range = device_array(self.moment), device_array(self.range)
        self._tendon, self._stiff, self._rest = device_array(tendon, wp.int32), device_array(stiff), device_array(rest)
        shapes = {"gain": (n, m.nu, 3), "bias": (n, m.nu, 3)}
        shapes |= {"limit": (n, m.nu, 2), "pull": (n, m.ntendon, 2)}
        self._values = {k: wp.zeros(s, dtype=float, device=device) for k, s in shapes.items()}

    def take(self, host: Batch) -> None:
        """Per-world gains and limits."""
        m, n = self._m, self._n
        gain, bias = host.expand("actuator_gainprm")[..., :3].copy(), host.expand("actuator_biasprm")[..., :3].copy()
        gain[:, m.actuator_gaintype == int(mujoco.mjtGain.mjGAIN_FIXED), 1:] = 0
        bias[:, m.actuator_biastype == int(mujoco.mjtBias.mjBIAS_NONE)] = 0
        values = {"gain": gain, "bias": bias}
        for k, ours, limited in (("limit", "actuator_forcerange", m.actuator_forcelimited),
                                 ("pull", "tendon_actfrcrange", m.tendon_actfrclimited)):  # fmt: skip
            own = host.expand(ours).reshape(n, -1, 2)
            set_ = (own != (m.actuator_forcerange if k == "limit" else m.tendon_actfrcrange)).any(axis=-1)
            on = set_ | limited.astype(bool)
            values[k] = np.where(on[..., None], own, [-_FAR, _FAR])
        for k, x in values.items():
            fields.assign(self._values[k], x)

    def values(self, what: str) -> Array:
        """``gain`` or ``bias`` (n, nu, 3), ``limit`` (n, nu, 2), ``pull`` of the tendons (n, ntendon, 2)."""
        return np.asarray(self._values[what].numpy(), float)

    def apply(self, control: Array) -> None:
        """Controls of the next step, (n, nu)."""
        self.control = np.array(control, float)
        if control.size:
            self._ctrl.assign(np.ascontiguousarray(control, np.float32))

    def launch(self, state: Any, control: Any) -> None:
        """Write torques."""
        wp = runtime.warp()
        if not self._m.nv:
            return
        joints = self._worlds.joints
        q = self._rows(state.joint_q, joints.nq)
        qd, f = self._rows(state.joint_qd, joints.nqd), self._rows(control.joint_f, joints.nqd)
        v = self._values
        wp.launch(
            kernels.drive,
            dim=self._n,
            inputs=[self._ctrl, q, qd, self._q_of, self._qd_of, self._moment, self._range, v["gain"], v["bias"],
                    v["limit"], self._tendon, v["pull"], self._stiff, self._rest],
            outputs=[self.force, f],
        )  # fmt: skip

    def _rows(self, x: Any, k: int) -> Any:
        """A flat device array as (n, k), the same memory."""
        return x.reshape((self._n, k))


def _moment(m: mujoco.MjModel) -> Array:
    """Length of each actuator per joint coordinate, (nu, nv): constant for joints and fixed tendons."""
    out = np.zeros((m.nu, m.nv))
    for i in range(m.nu):
        target = int(m.actuator_trnid[i, 0])
        if m.actuator_trntype[i] == int(mujoco.mjtTrn.mjTRN_JOINT):
            out[i, m.jnt_dofadr[target]] = m.actuator_gear[i, 0]
        else:
            for k in range(m.tendon_adr[target], m.tendon_adr[target] + m.tendon_num[target]):
                out[i, m.jnt_dofadr[m.wrap_objid[k]]] = m.wrap_prm[k] * m.actuator_gear[i, 0]
    return out
