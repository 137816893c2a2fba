"""Names of a compiled MuJoCo model. In: ``kind:name.field``. Out: ids, or an error that lists what there is."""

from __future__ import annotations

import mujoco

from flyball.base import Missing
from flyball.engines.portable import JointLayout, Layout

_OBJECTS = {
    "joint": mujoco.mjtObj.mjOBJ_JOINT,
    "body": mujoco.mjtObj.mjOBJ_BODY,
    "geom": mujoco.mjtObj.mjOBJ_GEOM,
    "site": mujoco.mjtObj.mjOBJ_SITE,
    "sensor": mujoco.mjtObj.mjOBJ_SENSOR,
    "actuator": mujoco.mjtObj.mjOBJ_ACTUATOR,
    "tendon": mujoco.mjtObj.mjOBJ_TENDON,
}
_COUNTS = {"joint": "njnt", "actuator": "nu"}
_JOINTS = {
    mujoco.mjtJoint.mjJNT_FREE: "free",
    mujoco.mjtJoint.mjJNT_BALL: "ball",
    mujoco.mjtJoint.mjJNT_SLIDE: "slide",
    mujoco.mjtJoint.mjJNT_HINGE: "hinge",
}
WHERE = "engine mujoco"


def split(name: str) -> tuple[str, str, str]:
    """``kind:name.field`` in three; a sensor has no field, and ``world:field`` no name."""
    kind, _, rest = name.partition(":")
    if kind == "sensor":
        return kind, rest, ""
    item, _, field = rest.rpartition(".")
    return kind, item, field


def names_of(model: mujoco.MjModel, kind: str) -> list[str]:
    """All names of a kind, in order, "" where unnamed."""
    count = getattr(model, _COUNTS.get(kind, f"n{kind}"))
    return [mujoco.mj_id2name(model, _OBJECTS[kind], i) or "" for i in range(count)]


def id_of(model: mujoco.MjModel, kind: str, item: str) -> int:
    """Its index.

    Raises:
      Missing: naming those there are.
    """
    if kind not in _OBJECTS:
        raise Missing.named("kind of element", kind, _OBJECTS, where=WHERE)
    i = mujoco.mj_name2id(model, _OBJECTS[kind], item) if item else -1
    if i < 0 and kind == "joint":  # a free joint without a name goes by its body's
        i = next((k for k in range(model.njnt) if _goes_by(model, k) == item != ""), -1)
    if i < 0:
        known = [_goes_by(model, k) for k in range(model.njnt)] if kind == "joint" else names_of(model, kind)
        raise Missing.named(kind, item, filter(None, known), where=WHERE)
    return int(i)


def _goes_by(model: mujoco.MjModel, joint: int) -> str:
    """The name under which a joint is addressed."""
    name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_JOINT, joint)
    if not name and model.jnt_type[joint] == mujoco.mjtJoint.mjJNT_FREE:
        name = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, model.jnt_bodyid[joint])
    return name or ""


def layout(model: mujoco.MjModel) -> Layout:
    """Everything that has a name."""
    joints = []
    for i in range(model.njnt):
        body = mujoco.mj_id2name(model, mujoco.mjtObj.mjOBJ_BODY, model.jnt_bodyid[i]) or ""
        if name := _goes_by(model, i):
            joints.append(JointLayout(name, _JOINTS[mujoco.mjtJoint(model.jnt_type[i])], body or name))  # type: ignore[arg-type]
    sensors = dict(zip(names_of(model, "sensor"), model.sensor_dim.tolist(), strict=True))
    return Layout(
        tuple(joints),
        tuple(names_of(model, "actuator")),
        tuple(filter(None, names_of(model, "body")[1:])),
        {name: size for name, size in sensors.items() if name},
        tuple(filter(None, names_of(model, "tendon"))),
    )


def unnamed_joints(model: mujoco.MjModel) -> list[str]:
    """Kinds of the joints that nobody can address."""
    return [_JOINTS[mujoco.mjtJoint(model.jnt_type[i])] for i in range(model.njnt) if not _goes_by(model, i)]
