"""Readable fields. In: ``kind:name.field``. Out: a function of one world at one moment.

What belongs to the state is taken from the state at the end of a substep, through Drake's own kinematics. Forces are
those that Drake's solver finds for a substep: contact forces are evaluated where the substep begins, from the same
solution that the substep then takes; a servo's force is the one that it has at the end, as its feedback is implicit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.drake.build import Built, turn
from flyball.engines.drake.parameters import WHERE
from flyball.engines.mujoco import names

Array = NDArray[np.float64]

READABLE = (
    "time, joint:NAME.position|velocity, body:NAME.position|quat|velocity, site:NAME.position, "
    "tendon:NAME.length|velocity, actuator:NAME.force, contact:BODY|BODY.wrench, "
    "sensor:NAME (touch, joint*, frame*, gyro, velocimeter, tendon*, actuatorfrc, clock)"
)
_SENSOR, _OBJ = mujoco.mjtSensor, mujoco.mjtObj


Contact = tuple[int, int, Array, Array, Array, Array]
"""Geoms, point, force and torque on the second about that point, normal out of the first; in world axes."""


@dataclass
class Moment:
    """One world at one moment.

    Attributes:
      context: of the plant.
      time: [s].
      qpos, qvel: in MuJoCo's order and axes.
      controls: those applied last, (nu,).
      contacts: see ``contacts_of``; empty unless a field needs them.
    """

    built: Built
    context: Any
    time: float
    qpos: Array
    qvel: Array
    controls: Array
    contacts: list[Contact]

    def pose(self, body: int) -> tuple[Array, Array]:
        """Position and rotation matrix of a body's frame in the world."""
        X = self.built.plant.EvalBodyPoseInWorld(self.context, self.built.bodies[body])
        return X.translation(), X.rotation().matrix()

    def twist(self, body: int) -> tuple[Array, Array]:
        """Linear velocity of the origin of a body's frame, and angular velocity, in world axes."""
        V = self.built.plant.EvalBodySpatialVelocityInWorld(self.context, self.built.bodies[body])
        return V.translational(), V.rotational()


@dataclass(frozen=True)
class Read:
    """A readable field.

    Attributes:
      of: ``state`` or ``force``.
      contact: it needs the contacts, and is evaluated where a substep begins.
      value: of a moment, (k,).
    """

    of: Literal["state", "force"]
    contact: bool
    value: Callable[[Moment], Array]


def contacts_of(built: Built, context: Any) -> list[Contact]:
    """Contacts of the substep that begins at the context's state."""
    results = built.plant.get_contact_results_output_port().Eval(context)
    none, out = np.zeros(3), []
    for k in range(results.num_point_pair_contacts()):
        info = results.point_pair_contact_info(k)
        pair = info.point_pair()
        a, b = built.owner[pair.id_A], built.owner[pair.id_B]
        out.append((a, b, info.contact_point(), info.contact_force(), none, -pair.nhat_BA_W))
    for k in range(results.num_hydroelastic_contacts()):
        info = results.hydroelastic_contact_info(k)
        surface, wrench = info.contact_surface(), info.F_Ac_W()
        normal = np.zeros(3)
        for f in range(surface.num_faces()):
            normal -= surface.area(f) * surface.face_normal(f)  # face normals point out of N into M
        normal /= np.linalg.norm(normal) or 1.0
        a, b = built.owner[surface.id_M()], built.owner[surface.id_N()]
        out.append((a, b, surface.centroid(), -wrench.translational(), -wrench.rotational(), normal))
    return out


def find(m: Any, name: str) -> Read:
    """The field of that name.

    Raises:
      Missing: no such element.
      Unsupported: no such field.
    """
    if name == "time":
        return Read("state", False, lambda at: np.array([at.time]))
    kind, item, field = names.split(name)
    if kind == "contact" and field == "wrench":
        return _wrench(m, name, item)
    i = _id(m, kind, item)
    if kind == "joint" and field in ("position", "velocity"):
        array, start, size = _joint(m, i, field)
        return Read("state", False, lambda at: getattr(at, array)[start : start + size])
    if kind == "body" and field in ("position", "quat", "velocity"):
        return _frame(m, _OBJ.mjOBJ_XBODY, i, field)
    if kind == "site" and field == "position":
        return _frame(m, _OBJ.mjOBJ_SITE, i, field)
    if kind == "tendon" and field in ("length", "velocity"):
        return _tendon(m, i, field, name)
    if kind == "actuator" and field == "force":
        return Read("force", False, lambda at: _drive(at)[i : i + 1])
    if kind == "sensor":
        return _sensor(m, i, name)
    raise Unsupported(f"cannot read {name!r}", where=WHERE, allowed=READABLE)


def joint_slice(m: Any, joint: str, field: str) -> tuple[str, int, int]:
    """Array (qpos or qvel), start and size of a joint's ``position`` or ``velocity``."""
    return _joint(m, _id(m, "joint", joint), field)


def _id(m: Any, kind: str, item: str) -> int:
    try:
        return names.id_of(m, kind, item)
    except Missing as err:
        raise Missing(err.what, where=WHERE, allowed=err.allowed) from None


def _joint(m: Any, i: int, field: str) -> tuple[str, int, int]:
    free = m.jnt_type[i] == mujoco.mjtJoint.mjJNT_FREE
    if field == "position":
        return "qpos", int(m.jnt_qposadr[i]), 7 if free else 1
    return "qvel", int(m.jnt_dofadr[i]), 6 if free else 1


def _drive(at: Moment) -> Array:
    """Forces of all actuators; joints by degree of freedom, in Drake's zero."""
    m = at.built.model
    positions = np.zeros(m.nv)
    for j in range(m.njnt):
        positions[m.jnt_dofadr[j]] = at.qpos[m.jnt_qposadr[j]] - m.qpos0[m.jnt_qposadr[j]]
    return at.built.drives.forces(at.controls, positions, at.qvel)


def _tendon(m: Any, i: int, field: str, name: str) -> Read:
    span = slice(int(m.tendon_adr[i]), int(m.tendon_adr[i] + m.tendon_num[i]))
    if (m.wrap_type[span] != int(mujoco.mjtWrap.mjWRAP_JOINT)).any():
        raise Unsupported(f"cannot read {name!r}: the tendon is spatial", where=WHERE, allowed="fixed tendons")
    joints, coefficient = m.wrap_objid[span], m.wrap_prm[span]
    array, where = ("qpos", m.jnt_qposadr[joints]) if field == "length" else ("qvel", m.jnt_dofadr[joints])
    return Read("state", False, lambda at: np.array([getattr(at, array)[where] @ coefficient]))


def _frame(m: Any, kind: Any, i: int, what: str, local: bool = False) -> Read:
    """Position, quat, velocity (linear, angular), linear or angular velocity of a body's, site's or geom's frame.

    Args:
      kind: mjtObj.
      local: velocities in the frame's own axes instead of the world's.
    """
    body, offset, quat = i, np.zeros(3), np.array([1.0, 0, 0, 0])
    if kind == _OBJ.mjOBJ_BODY:
        offset, quat = np.array(m.body_ipos[i]), np.array(m.body_iquat[i])
    elif kind == _OBJ.mjOBJ_SITE:
        body, offset, quat = int(m.site_bodyid[i]), np.array(m.site_pos[i]), np.array(m.site_quat[i])
    elif kind == _OBJ.mjOBJ_GEOM:
        body, offset, quat = int(m.geom_bodyid[i]), np.array(m.geom_pos[i]), np.array(m.geom_quat[i])
    elif kind != _OBJ.mjOBJ_XBODY:
        raise Unsupported(f"frame of {kind.name}", where=WHERE, allowed="body, xbody, site, geom")

    def value(at: Moment) -> Array:
        position, axes = at.pose(body)
        if what == "position":
            return np.array(position + axes @ offset)
        if what == "quat":
            own, out = np.empty(4), np.empty(4)
            mujoco.mju_mat2Quat(own, axes.reshape(-1))
            mujoco.mju_mulQuat(out, own, quat)
            return out
        linear, angular = at.twist(body)
        linear = linear + np.cross(angular, axes @ offset)
        if local:
            back = quat * [1, -1, -1, -1]
            linear, angular = turn(back, axes.T @ linear), turn(back, axes.T @ angular)
        parts = {"velocity": (linear, angular), "linear": (linear,), "angular": (angular,)}
        return np.concatenate(parts[what])

    return Read("state", False, value)


def _wrench(m: Any, name: str, item: str) -> Read:
    """Net force and torque on the second body, about its centre of mass."""
    first, second = (_id(m, "body", part) for part in (item.partition("|")[0], item.partition("|")[2]))
    if first == second:
        raise InputError(f"{name}: a body does not touch itself", where=WHERE, allowed="contact:BODY|BODY.wrench")
    owner, centre = m.geom_bodyid, np.array(m.body_ipos[second])

    def value(at: Moment) -> Array:
        out = np.zeros(6)
        position, axes = at.pose(second)
        for a, b, point, force, torque, _ in at.contacts:
            sign = 1.0 if (owner[a], owner[b]) == (first, second) else -1.0
            if sign > 0 or (owner[a], owner[b]) == (second, first):
                out[:3] += sign * force
                out[3:] += sign * (torque + np.cross(point - position - axes @ centre, force))
        return out

    return Read("force", True, value)


def _sensor(m: Any, i: int, name: str) -> Read:
    kind, target = _SENSOR(m.sensor_type[i]), int(m.sensor_objid[i])
    of = _OBJ(m.sensor_objtype[i])
    frames = {
        _SENSOR.mjSENS_FRAMEPOS: ("position", False),
        _SENSOR.mjSENS_FRAMEQUAT: ("quat", False),
        _SENSOR.mjSENS_FRAMELINVEL: ("linear", False),
        _SENSOR.mjSENS_FRAMEANGVEL: ("angular", False),
        _SENSOR.mjSENS_GYRO: ("angular", True),
        _SENSOR.mjSENS_VELOCIMETER: ("linear", True),
    }
    if kind == _SENSOR.mjSENS_TOUCH:
        read = _touch(m, target)
    elif kind in frames and m.sensor_reftype[i] == _OBJ.mjOBJ_UNKNOWN:
        read = _frame(m, of, target, *frames[kind])
    elif kind in (_SENSOR.mjSENS_JOINTPOS, _SENSOR.mjSENS_JOINTVEL):
        array, start, size = _joint(m, target, "position" if kind == _SENSOR.mjSENS_JOINTPOS else "velocity")
        read = Read("state", False, lambda at: getattr(at, array)[start : start + size])
    elif kind in (_SENSOR.mjSENS_TENDONPOS, _SENSOR.mjSENS_TENDONVEL):
        read = _tendon(m, target, "length" if kind == _SENSOR.mjSENS_TENDONPOS else "velocity", name)
    elif kind == _SENSOR.mjSENS_ACTUATORFRC:
        read = Read("force", False, lambda at: _drive(at)[target : target + 1])
    elif kind == _SENSOR.mjSENS_CLOCK:
        read = Read("state", False, lambda at: np.array([at.time]))
    else:
        what = kind.name.removeprefix("mjSENS_").lower()
        raise Unsupported(f"cannot read {name!r}: a sensor of kind {what}", where=WHERE, allowed=READABLE)
    cutoff = float(m.sensor_cutoff[i])
    if cutoff <= 0 or kind == _SENSOR.mjSENS_FRAMEQUAT:
        return read
    low = 0.0 if kind == _SENSOR.mjSENS_TOUCH else -cutoff
    return Read(read.of, read.contact, lambda at: np.clip(read.value(at), low, cutoff))


def _touch(m: Any, site: int) -> Read:
    """Sum of the normal forces on the site's body at points whose normal passes through the site, as in MuJoCo."""
    body, kind = int(m.site_bodyid[site]), int(m.site_type[site])
    offset, quat, size = np.array(m.site_pos[site]), np.array(m.site_quat[site]), np.array(m.site_size[site])
    own = np.empty(9)
    mujoco.mju_quat2Mat(own, quat)
    owner = m.geom_bodyid

    def value(at: Moment) -> Array:
        total = 0.0
        position, axes = at.pose(body)
        where, how = position + axes @ offset, (axes @ own.reshape(3, 3)).reshape(-1)
        for a, b, point, force, _, normal in at.contacts:
            if body not in (owner[a], owner[b]):
                continue
            push = float(force @ normal)
            ray = normal if owner[a] == body else -normal  # out of the body that feels
            if push > 0 and mujoco.mju_rayGeom(where, how, size, point, ray, kind) >= 0:
                total += push
        return np.array([total])

    return Read("force", True, value)
