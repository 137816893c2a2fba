"""A MultibodyPlant made from the facts of a compiled model, element by element.

In: a compiled MuJoCo model (masses, frames, joints, drives, equalities, geometry). Out: ``Built``: a Drake diagram
whose state and forces stand for the model's, with the places where everything is found. Drake's own MJCF parser is not
used: it drops actuator damping and lets bases float. What Drake cannot do is refused by name; see ``Refusals``.

Drake steps velocities first and positions with the new velocities. Contacts, joint limits, equalities, joint damping
and servos (stiffness and damping both) are solved implicitly, together, by its SAP solver.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray
from pydrake.math import RigidTransform
from pydrake.multibody.plant import AddMultibodyPlantSceneGraph, ContactModel, DiscreteContactApproximation
from pydrake.multibody.tree import (
    FixedOffsetFrame,
    PdControllerGains,
    PrismaticJoint,
    QuaternionFloatingJoint,
    RevoluteJoint,
    RotationalInertia,
    SpatialInertia,
)
from pydrake.systems.framework import DiagramBuilder

from flyball.base import InputError, Unsupported
from flyball.engines.drake import contact
from flyball.engines.drake.drives import Drives, read_drives

_JOINT, _EQ = mujoco.mjtJoint, mujoco.mjtEq
_CREEP = 1e-4
"""Speed at which dry friction of a joint is fully there [rad/s or m/s]."""
_NO_MASS = 1e-9
"""Of a body that has inertia but no mass, which Drake cannot say [kg]."""
IGNORABLE = {
    "condim": "torsional and rolling friction of points (boxes, cylinders and meshes touch in patches that have it)",
    "margin": "contacts that push before they touch",
    "anisotropic friction": "friction that differs with direction",
    "tendon": "springs, limits, damping and friction of tendons",
    "sensor": "sensors that Drake has no counterpart for",
}
"""What a scene may ask for and Drake lacks, but the user may choose to do without: option ``ignore``."""


@dataclass
class Refusals:
    """What to do about what Drake lacks: an error that names it, unless the user chose to ignore the feature.

    Attributes:
      scene: name, for messages.
      ignored: features of ``IGNORABLE``.
    """

    scene: str
    ignored: frozenset[str] = frozenset()

    def refuse(self, feature: str, where: str) -> None:
        """Raise ``Unsupported``, or return when the feature is ignored."""
        if feature in self.ignored:
            return
        hint = f"option ignore = {feature!r} does without {IGNORABLE[feature]}" if feature in IGNORABLE else ""
        raise Unsupported(f"{where}: Drake has no {feature}", where=f"scene {self.scene}", allowed=hint)


@dataclass
class Place:
    """Where a joint lives in Drake's state.

    Attributes:
      q: first position.
      v: first velocity.
      free: a free joint: quaternion first, angular velocity first and in world axes.
    """

    q: int
    v: int
    free: bool


@dataclass
class Built:
    """A diagram and where things are in it.

    Attributes:
      model: the compiled model it was made from.
      places: per joint of the model.
      start: Drake's state [q, v] at the model's start.
      bodies: Drake's body per body of the model.
      owner: Drake's geometry id -> geom of the model.
      drives: what the actuators do.
      instances: Drake's model instances that have actuators.
      servos: of each servo, its model instance and place among that one's actuators.
    """

    model: Any
    diagram: Any
    plant: Any
    places: list[Place]
    start: NDArray[np.float64]
    bodies: list[Any]
    owner: dict[Any, int]
    drives: Drives
    instances: list[Any] = field(default_factory=list)
    servos: list[tuple[Any, int]] = field(default_factory=list)

    def inputs(self, controls: NDArray[np.float64]) -> tuple[list[NDArray[np.float64]], NDArray[np.float64]]:
        """Targets per model instance [q, v] (T, 2 actuators) and forces on velocities (T, nv), of controls (T, nu)."""
        position, velocity, besides = self.drives.inputs(controls)
        targets = []
        for k in self.instances:
            count = self.plant.num_actuators(k)
            x = np.zeros((len(controls), 2 * count))
            for s, (instance, place) in enumerate(self.servos):
                if instance == k:
                    x[:, place], x[:, count + place] = position[:, s], velocity[:, s]
            targets.append(x)
        forces = np.zeros((len(controls), self.plant.num_velocities()))
        for j, at in enumerate(self.places):
            if not at.free:
                forces[:, at.v] = besides[:, self.model.jnt_dofadr[j]]
        return targets, forces


def build(m: Any, refusals: Refusals, scheme: str) -> Built:
    """Make the diagram.

    Args:
      m: MjModel; nothing in it is changed.
      refusals: what to do about what Drake lacks.
      scheme: contact approximation, ``lagged``, ``similar`` or ``sap``.

    Raises:
      Unsupported: naming the element and what Drake lacks.
      InputError: Drake does not accept a number, e.g. an inertia.
    """
    _check(m, refusals)
    try:
        return _build(m, refusals, scheme)
    except RuntimeError as err:  # how Drake reports what it does not accept
        raise InputError(f"Drake does not accept the model: {err}", where=f"scene {refusals.scene}") from err


def _build(m: Any, refusals: Refusals, scheme: str) -> Built:
    builder = DiagramBuilder()
    plant, scene_graph = AddMultibodyPlantSceneGraph(builder, time_step=float(m.opt.timestep))
    kind = {"sap": "kSap", "lagged": "kLagged", "similar": "kSimilar"}[scheme]
    plant.set_discrete_contact_approximation(getattr(DiscreteContactApproximation, kind))
    plant.set_contact_model(ContactModel.kHydroelasticWithFallback)
    plant.SetUseSampledOutputPorts(False)  # contact forces are read for the step that is about to be made
    pull = not m.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_GRAVITY
    plant.mutable_gravity_field().set_gravity_vector(m.opt.gravity if pull else np.zeros(3))
    weightless = plant.AddModelInstance("weightless")
    plant.set_gravity_enabled(weightless, False)
    usual = plant.AddModelInstance("usual")
    instances = [weightless if g == 1 else usual for g in m.body_gravcomp]
    bodies, joints = _bodies(plant, m, instances)
    drives = read_drives(m, refusals.refuse)
    servos = _drive(plant, m, joints, drives)
    _equalities(plant, m, bodies, joints)
    pairs = contact.find_pairs(m, refusals.refuse)
    owner, allowed = contact.register(plant, bodies, m, pairs)
    plant.Finalize()
    contact.let_collide(scene_graph, allowed)
    diagram = builder.Build()
    places = [Place(j.position_start(), j.velocity_start(), j.num_positions() == 7) for j in joints]
    armed = [k for k in (weightless, usual) if plant.num_actuators(k)]
    built = Built(m, diagram, plant, places, np.empty(0), bodies, owner, drives, armed, servos)
    built.start = from_mujoco(built, np.asarray(m.qpos0), np.zeros(m.nv))
    return built


# parts ----------------------------------------------------------------------------------------------------


def _frame(position: Any, quat: Any = (1, 0, 0, 0)) -> Any:
    return RigidTransform(contact.rotation(quat), position)


def _bodies(plant: Any, m: Any, instances: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Bodies and joints; several joints on a body are chained through bodies without mass."""
    bodies: list[Any] = [plant.world_body()]
    joints: list[Any] = [None] * m.njnt
    for b in range(1, m.nbody):
        body = plant.AddRigidBody(f"b{b}", instances[b], _inertia(m, b))
        bodies.append(body)
        parent, start = bodies[m.body_parentid[b]], _frame(m.body_pos[b], m.body_quat[b])
        own = range(m.body_jntadr[b], m.body_jntadr[b] + m.body_jntnum[b])
        if not own:
            plant.WeldFrames(parent.body_frame(), body.body_frame(), start)
            continue
        if m.jnt_type[own[0]] == _JOINT.mjJNT_FREE:
            v = m.jnt_dofadr[own[0]]
            linear, angular = float(m.dof_damping[v]), float(m.dof_damping[v + 3])
            world, name = plant.world_frame(), f"j{own[0]}"
            joint = QuaternionFloatingJoint(name, world, body.body_frame(), angular, linear)
            joints[own[0]] = plant.AddJoint(joint)
            continue
        for j in own:
            child = body if j == own[-1] else plant.AddRigidBody(f"b{b}.{j}", instances[b], SpatialInertia.Zero())
            anchor = _frame(m.jnt_pos[j])
            inboard = FixedOffsetFrame(f"f{j}", parent.body_frame(), start @ anchor)
            outboard = FixedOffsetFrame(f"m{j}", child.body_frame(), anchor)
            make = RevoluteJoint if m.jnt_type[j] == _JOINT.mjJNT_HINGE else PrismaticJoint
            limited = m.jnt_limited[j] and not m.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_LIMIT
            low, high = m.jnt_range[j] - m.qpos0[m.jnt_qposadr[j]] if limited else (-np.inf, np.inf)
            joints[j] = plant.AddJoint(
                make(
                    f"j{j}",
                    plant.AddFrame(inboard),
                    plant.AddFrame(outboard),
                    m.jnt_axis[j],
                    pos_lower_limit=low,
                    pos_upper_limit=high,
                    damping=float(m.dof_damping[m.jnt_dofadr[j]]),
                )
            )
            parent, start = child, _frame(np.zeros(3))
    return bodies, joints


def _inertia(m: Any, b: int) -> Any:
    mass = float(m.body_mass[b])
    if mass == 0:
        if not m.body_inertia[b].any():
            return SpatialInertia.Zero()
        mass = _NO_MASS
    moments = RotationalInertia(*m.body_inertia[b]).ReExpress(contact.rotation(m.body_iquat[b]))
    return SpatialInertia.MakeFromCentralInertia(mass, m.body_ipos[b], moments)


def _drive(plant: Any, m: Any, joints: Sequence[Any], drives: Drives) -> list[tuple[Any, int]]:
    """Servos with their stiffness and damping, springs, dry friction and armature, each as an actuator of its joint.

    Returns:
      Of each servo, its model instance and place among that one's actuators.
    """
    count: Counter[Any] = Counter()
    driven = set()

    def add(name: str, j: int, p: float, d: float, limit: float) -> tuple[Any, int]:
        actuator = plant.AddJointActuator(name, joints[j], limit)
        if p or d:
            actuator.set_controller_gains(PdControllerGains(p=p, d=d))
        driven.add(j)
        # of several actuators on a joint, Drake takes the last one's
        actuator.set_default_rotor_inertia(float(m.dof_armature[m.jnt_dofadr[j]]))
        actuator.set_default_gear_ratio(1.0)
        instance = actuator.model_instance()
        count[instance] += 1
        return instance, count[instance] - 1

    servos = [add(f"servo{k}", s.joint, s.stiffness, s.damping, s.limit) for k, s in enumerate(drives.servos)]
    for j in range(m.njnt):
        friction = float(m.dof_frictionloss[m.jnt_dofadr[j]])
        if friction > 0 and joints[j].num_velocities() == 1:
            add(f"friction{j}", j, 0.0, friction / _CREEP, friction)
        elif m.dof_armature[m.jnt_dofadr[j]] > 0 and j not in driven:
            add(f"armature{j}", j, 0.0, 0.0, np.inf)
    return servos


def _equalities(plant: Any, m: Any, bodies: Sequence[Any], joints: Sequence[Any]) -> None:
    if any(m.eq_type[e] != int(_EQ.mjEQ_JOINT) for e in np.flatnonzero(m.eq_active0)):
        # Drake 1.51 crashes on constraints to the world's own body, not on those to a body welded to it
        anchor = plant.AddRigidBody("anchor", plant.GetModelInstanceByName("usual"), SpatialInertia.Zero())
        plant.WeldFrames(plant.world_frame(), anchor.body_frame())
        bodies = [anchor, *bodies[1:]]
    for e in np.flatnonzero(m.eq_active0):
        kind, first, second, data = _EQ(m.eq_type[e]), int(m.eq_obj1id[e]), int(m.eq_obj2id[e]), m.eq_data[e]
        if kind == _EQ.mjEQ_JOINT:
            plant.AddCouplerConstraint(joints[first], joints[second], gear_ratio=data[1], offset=data[0])
            continue
        if m.eq_objtype[e] == mujoco.mjtObj.mjOBJ_SITE:
            one, two = (int(m.site_bodyid[s]) for s in (first, second))
            frames = [_frame(m.site_pos[s], m.site_quat[s]) for s in (first, second)]
        else:
            one, two = first, second
            frames = (
                [_frame(data[:3]), _frame(data[3:6])]
                if kind == _EQ.mjEQ_CONNECT
                else [_frame(data[3:6], data[6:10]), _frame(np.zeros(3))]
            )
        if kind == _EQ.mjEQ_CONNECT:
            plant.AddBallConstraint(bodies[one], frames[0].translation(), bodies[two], frames[1].translation())
        else:
            plant.AddWeldConstraint(bodies[one], frames[0], bodies[two], frames[1])


# what Drake lacks -----------------------------------------------------------------------------------------


def _check(m: Any, refusals: Refusals) -> None:
    """Refuse, before anything is built, what has no counterpart."""
    refuse, flags = refusals.refuse, mujoco.mjtDisableBit
    for bit in ("CONSTRAINT", "EQUALITY", "FRICTIONLOSS", "SPRING", "DAMPER", "ACTUATION"):
        if m.opt.disableflags & getattr(flags, f"mjDSBL_{bit}"):
            refuse(f"switch for {bit.lower()}", "option flag")
    if m.opt.enableflags & mujoco.mjtEnableBit.mjENBL_OVERRIDE:
        refuse("contact override", "option flag")
    if m.opt.density or m.opt.viscosity or np.any(m.opt.wind):
        refuse("fluid", "option density, viscosity, wind")
    for count, what in ((m.nflex, "flex"), (m.nplugin, "plugins")):
        if count:
            refuse(what, "model")
    for b in np.flatnonzero((m.body_gravcomp != 0) & (m.body_gravcomp != 1)):
        refuse("partial gravity compensation", f"body {m.body(b).name}")
    for j in range(m.njnt):
        v, where = m.jnt_dofadr[j], f"joint {m.joint(j).name or j}"
        kind = _JOINT(m.jnt_type[j])
        if kind == _JOINT.mjJNT_BALL:
            refuse("ball joint without a singularity", where)
        size = 6 if kind == _JOINT.mjJNT_FREE else 1
        if m.dof_dampingpoly[v : v + size].any() or m.jnt_stiffnesspoly[j].any():
            refuse("nonlinear damping or stiffness", where)
        if size == 6:
            if m.dof_armature[v : v + 6].any() or m.dof_frictionloss[v : v + 6].any() or m.jnt_stiffness[j]:
                refuse("armature, friction or stiffness of a free joint", where)
            if np.ptp(m.dof_damping[v : v + 3]) or np.ptp(m.dof_damping[v + 3 : v + 6]):
                refuse("damping of a free joint that differs with direction", where)
    for e in np.flatnonzero(m.eq_active0):
        kind, where = _EQ(m.eq_type[e]), f"equality {m.eq(e).name or e}"
        if kind not in (_EQ.mjEQ_JOINT, _EQ.mjEQ_CONNECT, _EQ.mjEQ_WELD):
            refuse(f"equality of kind {kind.name.removeprefix('mjEQ_').lower()}", where)
        if kind == _EQ.mjEQ_JOINT:
            if m.eq_data[e, 2:5].any():
                refuse("joint equality that is not linear", where)
            if m.eq_obj2id[e] < 0:
                refuse("joint equality with a constant", where)
            if any(m.jnt_type[j] < int(_JOINT.mjJNT_SLIDE) for j in (m.eq_obj1id[e], m.eq_obj2id[e])):
                refuse("equality of free joints", where)
    for t in range(m.ntendon):
        passive = m.tendon_stiffness[t] or m.tendon_damping[t] or m.tendon_frictionloss[t] or m.tendon_armature[t]
        if passive or m.tendon_limited[t] or m.tendon_actfrclimited[t]:
            refuse("tendon", f"tendon {m.tendon(t).name or t}")


# state ----------------------------------------------------------------------------------------------------


def to_mujoco(built: Built, x: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Positions and velocities in MuJoCo's order and axes, (..., nq) and (..., nv), of Drake's states (..., nx)."""
    m, nq = built.model, built.plant.num_positions()
    qpos, qvel = np.zeros((*x.shape[:-1], m.nq)), np.zeros((*x.shape[:-1], m.nv))
    for j, at in enumerate(built.places):
        a, d = m.jnt_qposadr[j], m.jnt_dofadr[j]
        if at.free:
            quat = x[..., at.q : at.q + 4]
            quat = quat / np.linalg.norm(quat, axis=-1, keepdims=True)
            qpos[..., a : a + 3], qpos[..., a + 3 : a + 7] = x[..., at.q + 4 : at.q + 7], quat
            qvel[..., d : d + 3] = x[..., nq + at.v + 3 : nq + at.v + 6]
            qvel[..., d + 3 : d + 6] = turn(quat * [1, -1, -1, -1], x[..., nq + at.v : nq + at.v + 3])
        else:
            qpos[..., a] = x[..., at.q] + m.qpos0[a]
            qvel[..., d] = x[..., nq + at.v]
    return qpos, qvel


def from_mujoco(built: Built, qpos: NDArray[np.float64], qvel: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of ``to_mujoco``."""
    m, nq = built.model, built.plant.num_positions()
    x = np.zeros((*qpos.shape[:-1], nq + built.plant.num_velocities()))
    for j, at in enumerate(built.places):
        a, d = m.jnt_qposadr[j], m.jnt_dofadr[j]
        if at.free:
            quat = qpos[..., a + 3 : a + 7]
            quat = quat / np.linalg.norm(quat, axis=-1, keepdims=True)
            x[..., at.q : at.q + 4], x[..., at.q + 4 : at.q + 7] = quat, qpos[..., a : a + 3]
            x[..., nq + at.v : nq + at.v + 3] = turn(quat, qvel[..., d + 3 : d + 6])
            x[..., nq + at.v + 3 : nq + at.v + 6] = qvel[..., d : d + 3]
        else:
            x[..., at.q] = qpos[..., a] - m.qpos0[a]
            x[..., nq + at.v] = qvel[..., d]
    return x


def turn(quat: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """Vectors (..., 3) turned by unit quaternions wxyz (..., 4)."""
    w, u = quat[..., :1], quat[..., 1:]
    return v + 2 * np.cross(u, np.cross(u, v) + w * v)
