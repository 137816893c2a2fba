"""Readable fields of a MuJoCo model.

In: ``kind:name.field``. Out: which arrays of MjData it is computed from, how, and at which end of a substep those are
evaluated. MuJoCo computes positions, velocities and everything else of a state at the start of a step, then advances
joint positions and velocities: after a step, only these are new.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines.mujoco.names import WHERE, id_of, split

Array = NDArray[np.float64]

READABLE = (
    "time, joint:NAME.position|velocity, body:NAME.position|quat|velocity, site:NAME.position, sensor:NAME, "
    "tendon:NAME.length|velocity, actuator:NAME.force, contact:BODY|BODY.wrench"
)
_CONTACT = "flyball contact "
_NQ = {mujoco.mjtJoint.mjJNT_FREE: 7, mujoco.mjtJoint.mjJNT_BALL: 4}
_NV = {mujoco.mjtJoint.mjJNT_FREE: 6, mujoco.mjtJoint.mjJNT_BALL: 3}


@dataclass(frozen=True)
class Field:
    """A readable field.

    Attributes:
      arrays: the fields of MjData it comes from.
      of: ``state``: MuJoCo advances it with the step. ``pose``: computed from the state, at the start of a step;
        current again once the next step's first stages are done. ``force``: computed at the start of a step from the
        forces during it.
      value: from the arrays, each flattened to (..., size), to (..., k).
    """

    arrays: tuple[str, ...]
    of: Literal["state", "pose", "force"]
    value: Callable[..., Array]


def joint_slice(model: mujoco.MjModel, name: str, field: str) -> tuple[int, int]:
    """Start and size of a joint's numbers in qpos (``position``) or qvel (``velocity``)."""
    i = id_of(model, "joint", name)
    kind = mujoco.mjtJoint(model.jnt_type[i])
    if field == "position":
        return int(model.jnt_qposadr[i]), _NQ.get(kind, 1)
    return int(model.jnt_dofadr[i]), _NV.get(kind, 1)


def bodies_in_contact(model: mujoco.MjModel, name: str) -> tuple[str, str] | None:
    """The two bodies of ``contact:A|B.wrench``, None for any other field.

    Raises:
      Missing, InputError: a body is not there, or both are the same.
    """
    kind, item, field = split(name)
    if kind != "contact" or field != "wrench":
        return None
    a, _, b = item.partition("|")
    if id_of(model, "body", a) == id_of(model, "body", b):
        raise InputError(f"{name}: a body does not touch itself", where=WHERE, allowed="contact:BODY|BODY.wrench")
    return a, b


def add_contact_sensor(spec: mujoco.MjSpec, a: str, b: str) -> None:
    """A sensor of the net wrench between two bodies: MuJoCo sums the contacts' forces, those without add nothing."""
    kinds = mujoco.mjtConDataField
    sensor = spec.add_sensor(
        name=f"{_CONTACT}{a}|{b}",
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=mujoco.mjtObj.mjOBJ_BODY,
        objname=a,
        reftype=mujoco.mjtObj.mjOBJ_BODY,
        refname=b,
    )
    data = sum(1 << int(k) for k in (kinds.mjCONDATA_FORCE, kinds.mjCONDATA_TORQUE, kinds.mjCONDATA_POS))
    netforce = 3  # sum over all contacts, in world axes, with the force-weighted centroid as its point
    sensor.intprm[:3] = [data, netforce, 1]


def has_contact_sensor(model: mujoco.MjModel, a: str, b: str) -> bool:
    """Whether ``add_contact_sensor`` was done for this pair."""
    return bool(mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, f"{_CONTACT}{a}|{b}") >= 0)


def find(model: mujoco.MjModel, name: str) -> Field:
    """The field of that name.

    Raises:
      Missing: no such element.
      Unsupported: no such field; says what can be read.
    """
    if name == "time":
        return Field(("time",), "state", lambda t: t)
    kind, item, field = split(name)
    if pair := bodies_in_contact(model, name):
        return _contact(model, *pair)
    if kind == "joint" and field in ("position", "velocity"):
        return _part("qpos" if field == "position" else "qvel", "state", *joint_slice(model, item, field))
    if kind == "sensor":
        return _sensor(model, id_of(model, "sensor", item))
    if kind == "body" and field in ("position", "quat", "velocity"):
        i = id_of(model, "body", item)
        if field == "velocity":
            return _velocity(model, i)
        return _part("xpos", "pose", 3 * i, 3) if field == "position" else _part("xquat", "pose", 4 * i, 4)
    if kind == "site" and field == "position":
        return _part("site_xpos", "pose", 3 * id_of(model, "site", item), 3)
    if kind == "tendon" and field in ("length", "velocity"):
        return _part(f"ten_{field}", "pose", id_of(model, "tendon", item), 1)
    if kind == "actuator" and field == "force":
        return _part("actuator_force", "force", id_of(model, "actuator", item), 1)
    if kind in ("joint", "body", "site", "tendon", "actuator"):
        id_of(model, kind, item)
    raise Unsupported(f"cannot read {name!r}", where=WHERE, allowed=READABLE)


def _part(array: str, of: Literal["state", "pose", "force"], start: int, size: int) -> Field:
    return Field((array,), of, lambda x: x[..., start : start + size])


def _sensor(model: mujoco.MjModel, i: int) -> Field:
    of: Literal["pose", "force"] = "force" if model.sensor_needstage[i] >= int(mujoco.mjtStage.mjSTAGE_ACC) else "pose"
    return _part("sensordata", of, int(model.sensor_adr[i]), int(model.sensor_dim[i]))


def _velocity(model: mujoco.MjModel, i: int) -> Field:
    """MuJoCo's cvel is (angular, linear) in world axes at the centre of mass of the body's kinematic tree."""
    root = int(model.body_rootid[i])

    def value(cvel: Array, xpos: Array, com: Array) -> Array:
        angular, linear = cvel[..., 6 * i : 6 * i + 3], cvel[..., 6 * i + 3 : 6 * i + 6]
        arm = xpos[..., 3 * i : 3 * i + 3] - com[..., 3 * root : 3 * root + 3]
        return np.concatenate([linear + np.cross(angular, arm), angular], axis=-1)

    return Field(("cvel", "xpos", "subtree_com"), "pose", value)


def _contact(model: mujoco.MjModel, a: str, b: str) -> Field:
    """Net wrench on b, its torque shifted from the centroid of the contacts to b's centre of mass."""
    start = int(model.sensor_adr[mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_SENSOR, f"{_CONTACT}{a}|{b}")])
    i = id_of(model, "body", b)

    def value(sensordata: Array, xipos: Array) -> Array:
        force, torque, point = (sensordata[..., start + k : start + k + 3] for k in (0, 3, 6))
        arm = point - xipos[..., 3 * i : 3 * i + 3]
        return np.concatenate([force, torque + np.cross(arm, force)], axis=-1)

    return Field(("sensordata", "xipos"), "force", value)
