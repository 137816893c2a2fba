"""Readable fields of a Newton simulation.

In: ``kind:name.field``. Out: which arrays of the state it comes from, and how. Bodies are read where the solver has put
them, not from joint coordinates: a solver whose joints are constraints may leave them open, and a read must show it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines.mujoco.fields import bodies_in_contact
from flyball.engines.mujoco.fields import joint_slice as _joint_slice
from flyball.engines.mujoco.names import id_of, split
from flyball.engines.newton import kernels, runtime
from flyball.engines.newton.joints import rotate
from flyball.engines.newton.model import Worlds

Array = NDArray[np.float64]

STATE = ("joint_q", "joint_qd", "body_q", "body_qd", "particle_q", "particle_qd")
_READABLE = (
    "time, joint:NAME.position|velocity, body:NAME.position|quat|velocity, site:NAME.position, tendon:NAME.length|"
    "velocity, actuator:NAME.force, sensor:NAME of touch, contact:BODY|BODY.wrench, cloth|soft|granular:NAME.positions|"
    "velocities"
)
_SITES = {int(mujoco.mjtGeom.mjGEOM_SPHERE): 0, int(mujoco.mjtGeom.mjGEOM_BOX): 1}


@dataclass(frozen=True)
class Field:
    """A readable field.

    Attributes:
      arrays: state arrays, or ``force``, ``tally``, ``time``, each (..., size).
      of: ``state``, or ``force`` for what acted during the substep.
      value: from the arrays to (..., *shape).
    """

    arrays: tuple[str, ...]
    of: Literal["state", "force"]
    value: Callable[..., Array]


@dataclass(frozen=True)
class Pair:
    """A pair of bodies whose contact wrench is asked for, by index; -1 is the world."""

    a: int
    b: int


@dataclass(frozen=True)
class Touch:
    """A touch sensor, by its site."""

    site: int


class Tally:
    """Wrenches of body pairs and touch sensors, summed on the device after each step."""

    def __init__(self, m: mujoco.MjModel, n: int, device: Any) -> None:
        self._m, self._n, self._device = m, n, device
        self._pairs: list[Pair] = []
        self._sites: list[Touch] = []
        self._out: Any = None

    @property
    def wanted(self) -> bool:
        """Whether there is anything to sum."""
        return bool(self._pairs or self._sites)

    def add(self, what: Pair | Touch) -> None:
        """One more."""
        if isinstance(what, Pair):
            self._pairs.append(what)
        else:
            self._sites.append(what)
        m, wp = self._m, runtime.warp()
        sites = [t.site for t in self._sites]
        pose = np.concatenate([m.site_pos[sites], np.roll(m.site_quat[sites], -1, axis=1)], axis=1).reshape(-1, 7)

        def device_array(x: Any, dtype: Any) -> Any:
            return wp.array(x, dtype=dtype, device=self._device)

        pairs = np.asarray([(p.a, p.b) for p in self._pairs], np.int32).reshape(-1, 2)
        self._fixed = [
            device_array(pairs, wp.int32),
            device_array(m.site_bodyid[sites].astype(np.int32) - 1, wp.int32),
            device_array(np.asarray([_SITES[int(m.site_type[s])] for s in sites], np.int32), wp.int32),
            device_array(m.site_size[sites].astype(np.float32).reshape(-1, 3), wp.vec3),
            device_array(pose.astype(np.float32), wp.transform),
        ]
        self._out = wp.zeros((self._n, 6 * len(self._pairs) + len(self._sites)), dtype=float, device=self._device)

    def column(self, what: Pair | Touch) -> int:
        """Where its first number is."""
        if isinstance(what, Pair):
            return 6 * self._pairs.index(what)
        return 6 * len(self._pairs) + self._sites.index(what)

    def launch(self, contacts: Any, wrench: Any, model: Any, state: Any) -> None:
        """Sum over the contacts of the last step."""
        c = contacts
        self._out.zero_()
        runtime.warp().launch(
            kernels.tally,
            dim=c.rigid_contact_max,
            inputs=[c.rigid_contact_count, c.rigid_contact_shape0, c.rigid_contact_shape1, c.rigid_contact_point0,
                    c.rigid_contact_normal, wrench, model.shape_body, model.shape_world, state.body_q, model.body_com,
                    self._m.nbody - 1, *self._fixed],
            outputs=[self._out],
        )  # fmt: skip

    def values(self) -> Array:
        """(n, columns)."""
        return np.asarray(self._out.numpy(), float)


def find(m: mujoco.MjModel, worlds: Worlds, name: str, engine: str, tally: Tally) -> Field:
    """The field of that name; what it needs of the contacts is added to the tally.

    Raises:
      Missing: no such element.
      Unsupported: no such field; says what can be read.
    """
    kind, item, field = split(name)
    joints = worlds.joints
    if name == "time":
        return Field(("time",), "state", lambda t: t)
    if pair := bodies_in_contact(m, name):
        a, b = (id_of(m, "body", x) for x in pair)
        return _tallied(tally, Pair(a - 1, b - 1), 6)
    if kind == "joint" and field in ("position", "velocity"):
        at, k = joint_slice(m, item, field), 0 if field == "position" else 1
        return Field(("joint_q", "joint_qd"), "state", lambda q, v: joints.from_newton(q, v)[k][..., at])
    if kind in ("body", "site") and field in ("position", "quat", "velocity"):
        if kind == "site" and field == "position":
            i = id_of(m, "site", item)
            return _position(int(m.site_bodyid[i]), m.site_pos[i])
        if kind == "body":
            return _body(m, id_of(m, "body", item), field)
    if kind == "tendon" and field in ("length", "velocity"):
        return _tendon(m, joints, id_of(m, "tendon", item), field)
    if kind == "actuator" and field == "force":
        i = id_of(m, "actuator", item)
        return Field(("force",), "force", lambda f: f[..., i : i + 1])
    if kind == "sensor":
        return _sensor(m, id_of(m, "sensor", item), engine, tally)
    if kind in ("cloth", "soft", "granular") and field in ("positions", "velocities"):
        rows_ = worlds.particles.get(f"{kind}:{item}")
        if rows_ is None:
            raise InputError(f"no {kind} named {item!r}", where=engine, allowed=", ".join(worlds.particles) or "none")
        array = "particle_q" if field == "positions" else "particle_qd"
        return Field((array,), "state", lambda x: x.reshape(*x.shape[:-1], -1, 3)[..., rows_, :])
    if kind in ("joint", "body", "site", "tendon", "actuator"):
        id_of(m, kind, item)
    raise Unsupported(f"cannot read {name!r}", where=engine, allowed=_READABLE)


def joint_slice(m: mujoco.MjModel, name: str, field: str) -> slice:
    """A joint's numbers in qpos (``position``) or qvel (``velocity``)."""
    start, size = _joint_slice(m, name, field)
    return slice(start, start + size)


def pattern(name: str) -> str:
    """``body:box.mass`` to ``body:NAME.mass``."""
    kind, item, field = split(name)
    return f"{kind}:NAME.{field}" if item else name


def _position(body: int, offset: Array) -> Field:
    """A point fixed to a body, in the world; ``body`` 0 is the world."""
    if body == 0:
        return Field(("time",), "state", lambda t: np.broadcast_to(offset, (*t.shape[:-1], 3)))
    at = 7 * (body - 1)

    def value(pose: Array) -> Array:
        quat = np.roll(pose[..., at + 3 : at + 7], 1, axis=-1)
        return np.asarray(pose[..., at : at + 3] + rotate(quat, offset))

    return Field(("body_q",), "state", value)


def _body(m: mujoco.MjModel, i: int, field: str) -> Field:
    if i == 0:
        still = {"position": np.zeros(3), "quat": np.array([1.0, 0, 0, 0]), "velocity": np.zeros(6)}[field]
        return Field(("time",), "state", lambda t: np.broadcast_to(still, (*t.shape[:-1], len(still))))
    if field == "position":
        return _position(i, np.zeros(3))
    at, com = i - 1, m.body_ipos[i].copy()
    if field == "quat":
        return Field(("body_q",), "state", lambda x: np.roll(x[..., 7 * at + 3 : 7 * at + 7], 1, axis=-1))

    def velocity(pose: Array, twist: Array) -> Array:
        """Newton's is of the centre of mass."""
        quat = np.roll(pose[..., 7 * at + 3 : 7 * at + 7], 1, axis=-1)
        linear, angular = twist[..., 6 * at : 6 * at + 3], twist[..., 6 * at + 3 : 6 * at + 6]
        return np.concatenate([linear - np.cross(angular, rotate(quat, com)), angular], axis=-1)

    return Field(("body_q", "body_qd"), "state", velocity)


def _tendon(m: mujoco.MjModel, joints: Any, i: int, field: str) -> Field:
    parts = range(m.tendon_adr[i], m.tendon_adr[i] + m.tendon_num[i])
    coef = np.array([m.wrap_prm[k] for k in parts])
    address = m.jnt_qposadr if field == "length" else m.jnt_dofadr
    at = (joints.q if field == "length" else joints.qd)[[address[m.wrap_objid[k]] for k in parts]]
    array = "joint_q" if field == "length" else "joint_qd"
    return Field((array,), "state", lambda x: (x[..., at] @ coef)[..., None])


def _sensor(m: mujoco.MjModel, i: int, engine: str, tally: Tally) -> Field:
    kind = mujoco.mjtSensor(m.sensor_type[i])
    site = int(m.sensor_objid[i])
    if kind != mujoco.mjtSensor.mjSENS_TOUCH or int(m.site_type[site]) not in _SITES:
        what = f"sensor {m.sensor(i).name!r} ({kind.name.removeprefix('mjSENS_').lower()})"
        raise Unsupported(what, where=engine, allowed="touch sensors with a box or a sphere as their site")
    return _tallied(tally, Touch(site), 1)


def _tallied(tally: Tally, what: Pair | Touch, size: int) -> Field:
    tally.add(what)

    def value(x: Array) -> Array:
        start = tally.column(what)  # moves when further pairs are asked for
        return x[..., start : start + size]

    return Field(("tally",), "force", value)


def rows(x: Any, n: int) -> Array:
    """A device array as numbers, (n, k), a copy."""
    return np.asarray(x.numpy(), float).reshape(n, -1).copy()


def assign(x: Any, values: Array) -> None:
    """Numbers into a device array, whose vector types are further axes to numpy."""
    if x.size:
        like = x.numpy()
        x.assign(np.ascontiguousarray(np.reshape(values, like.shape), like.dtype))
