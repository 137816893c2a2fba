"""Joint coordinates: MuJoCo's, and Newton's of the same state.

In: qpos (n, nq) and qvel (n, nv) in MuJoCo's conventions. Out: joint_q and joint_qd in Newton's, and back. Hinges and
slides are the same numbers at another place. A free joint is w x y z in MuJoCo, x y z w in Newton; MuJoCo's linear
velocity is that of the body's origin and its angular one in the body's axes, Newton's that of the centre of mass and in
world axes. A ball's angular velocity is in the child's axes in MuJoCo, in the parent's in Newton.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_FREE, _BALL = int(mujoco.mjtJoint.mjJNT_FREE), int(mujoco.mjtJoint.mjJNT_BALL)


@dataclass(frozen=True)
class Joints:
    """Where coordinates are, within a world.

    Attributes:
      q, qd: Newton's index of each of MuJoCo's coordinates and degrees of freedom.
      nq, nqd: how many Newton has.
      free, ball: (first qpos, first qvel) of joints with a quaternion.
      com: centre of mass of each free body in its frame [m].
    """

    q: Indices
    qd: Indices
    nq: int
    nqd: int
    free: tuple[tuple[int, int], ...]
    ball: tuple[tuple[int, int], ...]
    com: Array

    @classmethod
    def of(cls, m: mujoco.MjModel, builder: Any) -> Joints:
        """From the model and Newton's builder of one world: joints of a body become one, slides before hinges."""
        child = list(builder.joint_child)
        q, qd = np.zeros(m.nq, np.int64), np.zeros(m.nv, np.int64)
        free, ball, com = [], [], []
        for body in range(1, m.nbody):
            mine = [j for j in range(m.njnt) if m.jnt_bodyid[j] == body]
            mine.sort(key=lambda j: m.jnt_type[j] == int(mujoco.mjtJoint.mjJNT_HINGE))
            if not mine:
                continue
            k = child.index(body - 1)
            at_q, at_qd = builder.joint_q_start[k], builder.joint_qd_start[k]
            for j in mine:
                a, d = m.jnt_qposadr[j], m.jnt_dofadr[j]
                kind = int(m.jnt_type[j])
                nq, nv = {_FREE: (7, 6), _BALL: (4, 3)}.get(kind, (1, 1))
                q[a : a + nq], qd[d : d + nv] = at_q + np.arange(nq), at_qd + np.arange(nv)
                at_q, at_qd = at_q + nq, at_qd + nv
                if kind == _FREE:
                    free.append((int(a), int(d)))
                    com.append(m.body_ipos[body])
                elif kind == _BALL:
                    ball.append((int(a), int(d)))
        return cls(q, qd, len(builder.joint_q), len(builder.joint_qd), tuple(free), tuple(ball),
                   np.asarray(com, float).reshape(-1, 3))  # fmt: skip

    def to_newton(self, qpos: Array, qvel: Array) -> tuple[Array, Array]:
        """joint_q (n, nq) and joint_qd (n, nqd)."""
        p, v = qpos.copy(), qvel.copy()
        for (a, d), com in zip(self.free, self.com, strict=True):
            quat = unit(qpos[:, a + 3 : a + 7])
            spin = rotate(quat, qvel[:, d + 3 : d + 6])
            p[:, a + 3 : a + 7] = np.roll(quat, -1, axis=1)
            v[:, d : d + 3] = qvel[:, d : d + 3] + np.cross(spin, rotate(quat, com))
            v[:, d + 3 : d + 6] = spin
        for a, d in self.ball:
            quat = unit(qpos[:, a : a + 4])
            p[:, a : a + 4] = np.roll(quat, -1, axis=1)
            v[:, d : d + 3] = rotate(quat, qvel[:, d : d + 3])
        q, qd = np.zeros((len(p), self.nq)), np.zeros((len(v), self.nqd))
        q[:, self.q], qd[:, self.qd] = p, v
        return q, qd

    def from_newton(self, joint_q: Array, joint_qd: Array) -> tuple[Array, Array]:
        """qpos (..., nq) and qvel (..., nv)."""
        p, v = joint_q[..., self.q].astype(float), joint_qd[..., self.qd].astype(float)
        for (a, d), com in zip(self.free, self.com, strict=True):
            quat = np.roll(p[..., a + 3 : a + 7], 1, axis=-1)
            spin = v[..., d + 3 : d + 6].copy()
            p[..., a + 3 : a + 7] = quat
            v[..., d : d + 3] -= np.cross(spin, rotate(quat, np.broadcast_to(com, spin.shape)))
            v[..., d + 3 : d + 6] = rotate(conjugate(quat), spin)
        for a, d in self.ball:
            quat = np.roll(p[..., a : a + 4], 1, axis=-1)
            p[..., a : a + 4] = quat
            v[..., d : d + 3] = rotate(conjugate(quat), v[..., d : d + 3])
        return p, v


def rotate(quat: Array, x: Array) -> Array:
    """Vectors (..., 3) turned by quaternions w x y z, (..., 4)."""
    w, u = quat[..., :1], quat[..., 1:]
    x = np.broadcast_to(x, (*quat.shape[:-1], 3))
    return np.asarray(x + 2 * np.cross(u, np.cross(u, x) + w * x))


def conjugate(quat: Array) -> Array:
    """The inverse turn."""
    return quat * np.array([1.0, -1.0, -1.0, -1.0])


def unit(quat: Array) -> Array:
    """Of length 1; zero becomes no turn, as in MuJoCo."""
    norm = np.linalg.norm(quat, axis=-1, keepdims=True)
    return np.where(norm > 0, quat / np.where(norm > 0, norm, 1), np.array([1.0, 0, 0, 0]))
