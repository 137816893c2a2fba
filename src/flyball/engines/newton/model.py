"""A scene as n worlds of a Newton model.

In: MJCF and the MuJoCo model compiled from it, the truth. Out: a Newton model, and where each body, joint and geom is
in it. Newton's importer makes bodies, joints and shapes; every number that it might read differently is then written
from the compiled model (masses, limits, gains, friction, which geoms may touch, no contact gap), and the kinematics are
compared at random states. What a solver lacks is refused before anything is built.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines.newton import deformables, joints, runtime
from flyball.engines.newton.materials import Meetings, contact_pairs, friction, meetings, springs
from flyball.engines.newton.solvers import Solver
from flyball.scenes import Scene

Array = NDArray[np.float64]
_FAR = 1e10
_SAME_M, _SAME_PER_S = 1e-4, 1e-3
"""Single precision over a chain of a dozen bodies: how far kinematics may be apart [m], [1/s]."""


@dataclass(frozen=True)
class Worlds:
    """n worlds in one Newton model.

    Attributes:
      model: Newton's; world w holds the rows [w k, (w + 1) k) of everything there are k of in a world.
      met: what stands for which geom, and which may touch.
      shapes: shape of each of these, within a world.
      joints: where joint coordinates are.
      particles: kind:name of a deformable -> its rows within a world.
    """

    model: Any
    met: Meetings
    shapes: NDArray[np.int64]
    joints: joints.Joints
    particles: Mapping[str, slice]


def needs(m: mujoco.MjModel, scene: Scene) -> dict[str, str]:
    """What a scene asks of a solver: feature -> the first element that does."""
    out: dict[str, str] = {}

    def note(feature: str, kind: str, i: int) -> None:
        name = mujoco.mj_id2name(m, getattr(mujoco.mjtObj, f"mjOBJ_{kind.upper()}"), i)
        out.setdefault(feature, f"{kind} {name!r}" if name else f"{kind} number {i}")

    kinds = ("free", "ball", "slide", "hinge")
    per_body = np.bincount(m.jnt_bodyid, minlength=m.nbody) if m.njnt else np.zeros(m.nbody)
    for i in range(1, m.nbody):
        if not per_body[i] and m.body_weldid[i]:
            note("fixed to a moving body", "body", i)
    for i in range(m.njnt):
        note(kinds[m.jnt_type[i]], "joint", i)
        if per_body[m.jnt_bodyid[i]] > 1:
            note("several joints", "joint", i)
        if m.jnt_stiffness[i]:
            note("spring", "joint", i)
        if m.jnt_limited[i]:
            note("limit", "joint", i)
        if m.jnt_actfrclimited[i]:
            note("limited joint torque", "joint", i)
    for i in range(m.nv):
        for name in ("armature", "damping", "frictionloss"):
            if getattr(m, f"dof_{name}")[i]:
                note(name, "joint", m.dof_jntid[i])
    for i in range(m.nactuator):
        linear = int(m.actuator_trntype[i]) in (int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_TENDON))
        affine = m.actuator_gaintype[i] <= 1 and m.actuator_biastype[i] <= 1  # fixed, affine; none, affine
        single = m.actuator_ctrlnum[i] == m.actuator_outnum[i] == 1
        plain = linear and affine and single and int(m.actuator_dyntype[i]) == int(mujoco.mjtDyn.mjDYN_NONE)
        other = "actuator with dynamics, several outputs, or not of a joint or tendon"
        note("actuator" if plain else other, "actuator", i)
    for i in range(m.ntendon):
        first = m.tendon_adr[i]
        fixed = m.wrap_type[first] == int(mujoco.mjtWrap.mjWRAP_JOINT)
        passive = m.tendon_stiffness[i] or m.tendon_damping[i] or m.tendon_frictionloss[i] or m.tendon_limited[i]
        if not fixed or passive:
            note("spatial tendon, or one with forces of its own", "tendon", i)
    names = {0: "connect equality", 1: "weld equality", 2: "joint equality"}
    for i in range(m.neq):
        note(names.get(int(m.eq_type[i]), "other equality"), "equality", i)
    touching = {int(g) for pair in contact_pairs(m) for g in pair}
    for g in touching:
        note("contact", "geom", g)
        if m.geom_condim[g] > 3:
            note("torsional friction", "geom", g)
        # a direct or underdamped contact says how soft it is meant to be; the default is numerical
        if m.geom_solref[g, 0] <= 0 or m.geom_solref[g, 1] < 1:
            note("soft contact", "geom", g)
    for i in range(m.nbody):
        if m.body_mocapid[i] >= 0:
            note("mocap", "body", i)
        if m.body_gravcomp[i]:
            note("gravity compensation", "body", i)
    if m.npair:
        out["contact pair"] = "<pair>"
    if m.nflex or m.nskin:
        out["flex"] = "<flexcomp>"
    if m.opt.density or m.opt.viscosity:
        out["fluid"] = "<option>"
    for d in scene.deformables:
        out.setdefault(deformables.kind(d), f"{deformables.kind(d)} {d.name!r}")
    return out


def build(m: mujoco.MjModel, scene: Scene, solver: Solver, n: int, device: Any, gradient: bool = False) -> Worlds:
    """n worlds.

    Raises:
      Unsupported: the solver lacks something that the scene has, or Newton reads the model differently.
    """
    engine = f"engine newton-{solver.name}"
    for feature, element in needs(m, scene).items():
        if feature not in solver.takes:
            allowed = ", ".join(sorted(solver.takes))
            raise Unsupported(f"{feature} ({element})", where=engine, allowed=allowed, run_next="the engine mujoco")
    nt = runtime.newton()
    kind = getattr(nt.solvers, solver.solver)
    one = nt.ModelBuilder()
    kind.register_custom_attributes(one)
    one.rigid_gap = 0.0
    if m.nbody > 1 or m.ngeom:
        _import(one, scene)
    if one.body_count != m.nbody - 1:
        raise Unsupported(f"Newton makes {one.body_count} bodies of {m.nbody - 1}", where=engine)
    met = meetings(m, solver)
    shapes = _copied(one, met, _shapes(one, m, engine), nt)
    _write(one, m, solver, met, shapes)
    particles = deformables.add(one, scene.deformables, nt)
    if solver.name == "vbd":
        one.color(include_bending=True)
    every = nt.ModelBuilder()
    kind.register_custom_attributes(every)
    every.rigid_gap = 0.0
    every.replicate(one, n)
    model = every.finalize(device=device, requires_grad=gradient)
    model.set_gravity(np.asarray(m.opt.gravity, np.float32))
    if solver.penalty and one.particle_count:  # particles against shapes, by the same rule as shapes against shapes
        mass, t = min(x for x in one.particle_mass if x > 0), 10 * m.opt.timestep
        model.soft_contact_ke, model.soft_contact_kd, model.soft_contact_kf = mass / t**2, mass / t, mass / t
    where = joints.Joints.of(m, one)
    worlds = Worlds(model, met, shapes, where, particles)
    if one.body_count:
        _compare(m, worlds, nt, engine)
    return worlds


def _import(builder: Any, scene: Scene) -> None:
    """Newton's own importer; meshes come from the scene's assets, through a folder of their own."""
    with tempfile.TemporaryDirectory() as folder:
        for name, data in scene.assets.items():
            Path(folder, os.path.basename(name)).write_bytes(data)
        try:
            builder.add_mjcf(
                scene.model,
                parse_sites=False,
                path_resolver=lambda _, path: str(Path(folder, os.path.basename(path))),
            )
        except (ValueError, NotImplementedError, KeyError, OSError) as err:
            raise InputError(f"Newton does not read the model: {err}", where=f"scene {scene.name}") from err


def _shapes(builder: Any, m: mujoco.MjModel, engine: str) -> NDArray[np.int64]:
    """The shape of each geom: both keep the order of a body's geoms."""
    out = np.full(m.ngeom, -1)
    owner = np.asarray(builder.shape_body)
    for body in range(m.nbody):
        mine, theirs = np.flatnonzero(m.geom_bodyid == body), np.flatnonzero(owner == body - 1)
        if len(mine) != len(theirs):
            name = m.body(body).name or f"number {body}"
            raise Unsupported(f"body {name}: Newton makes {len(theirs)} shapes of {len(mine)} geoms", where=engine)
        out[mine] = theirs
    return out


def _copied(b: Any, met: Meetings, own: NDArray[np.int64], nt: Any) -> NDArray[np.int64]:
    """The shape of each geom and of each copy; copies are made here, of everything that a shape has."""
    out = list(own)
    lists = [x for name, x in vars(b).items() if name.startswith("shape_") and isinstance(x, list)]
    lists = [x for x in lists if len(x) == b.shape_count]
    for geom in met.geoms[len(own) :]:
        shape = int(own[geom])
        cfg, scale = nt.ModelBuilder.ShapeConfig(density=0.0), b.shape_scale[shape]
        kind, source = b.shape_type[shape], b.shape_source[shape]
        out.append(b.add_shape(body=b.shape_body[shape], type=kind, scale=scale, src=source, cfg=cfg))
        for x in lists:
            x[-1] = x[shape]
        b.shape_flags[-1] &= ~int(nt.ShapeFlags.COLLIDE_PARTICLES | nt.ShapeFlags.VISIBLE)
    return np.asarray(out, np.int64)


def _write(b: Any, m: mujoco.MjModel, solver: Solver, met: Meetings, shapes: NDArray[np.int64]) -> None:
    """The compiled model's numbers."""
    wp = runtime.warp()
    still = m.body_weldid == 0
    for i in range(1, m.nbody):
        inertia = inertia_of(m.body_inertia[i], m.body_iquat[i])
        held = bool(still[i]) and solver.coordinates == "body"  # joints are springs there: what is fixed does not move
        b.body_mass[i - 1] = float(m.body_mass[i])
        b.body_inv_mass[i - 1] = 0.0 if held or not m.body_mass[i] else 1 / float(m.body_mass[i])
        b.body_com[i - 1] = wp.vec3(*m.body_ipos[i])
        b.body_inertia[i - 1] = wp.mat33(*inertia.ravel())
        b.body_inv_inertia[i - 1] = wp.mat33(*(np.zeros(9) if held else np.linalg.inv(inertia).ravel()))
    where = joints.Joints.of(m, b)
    for j in range(len(b.joint_target_ke)):
        b.joint_target_ke[j] = b.joint_target_kd[j] = 0.0
        b.joint_damping[j] = 0.0
    b.joint_stiffness = [0.0] * len(b.joint_stiffness)  # drives and springs are ``kernels.drive``, with per-world gains
    for dof in range(m.nv):
        k, i = int(where.qd[dof]), m.dof_jntid[dof]
        b.joint_armature[k] = float(m.dof_armature[dof])
        b.joint_damping[k] = float(m.dof_damping[dof])
        if m.jnt_type[i] >= int(mujoco.mjtJoint.mjJNT_SLIDE):
            low, high = m.jnt_range[i] if m.jnt_limited[i] else (-_FAR, _FAR)
            b.joint_limit_lower[k], b.joint_limit_upper[k] = float(low), float(high)
    for mu, shape in zip(friction(m, met, m.geom_friction[:, 0], solver), shapes, strict=True):
        b.shape_material_mu[shape] = float(mu)
        b.shape_material_restitution[shape] = 0.0
    if solver.penalty:
        springs(b, m, met.geoms, shapes)


def inertia_of(diagonal: Array, quat: Array) -> Array:
    """Inertia in the axes of the body's frame, (3, 3) [kg m^2]."""
    mat = np.zeros(9)
    mujoco.mju_quat2Mat(mat, np.asarray(quat, float))
    r = mat.reshape(3, 3)
    return np.asarray(r * diagonal @ r.T)


def _compare(m: mujoco.MjModel, worlds: Worlds, nt: Any, engine: str) -> None:
    """Poses and velocities of all bodies at three random states, in Newton and in MuJoCo."""
    rng = np.random.default_rng(0)
    data = mujoco.MjData(m)
    state = worlds.model.state()
    n, nb = worlds.model.world_count, m.nbody - 1
    for k in range(3):
        data.qpos[:] = m.qpos0
        mujoco.mj_integratePos(m, data.qpos, rng.normal(0, 0.5, m.nv), 1.0 if k else 0.0)
        data.qvel[:] = rng.normal(0, 1, m.nv) if k else 0.0
        mujoco.mj_kinematics(m, data)
        mujoco.mj_comPos(m, data)
        mujoco.mj_comVel(m, data)
        q, qd = worlds.joints.to_newton(np.tile(data.qpos, (n, 1)), np.tile(data.qvel, (n, 1)))
        state.joint_q.assign(q.ravel().astype(np.float32))
        state.joint_qd.assign(qd.ravel().astype(np.float32))
        nt.eval_fk(worlds.model, state.joint_q, state.joint_qd, state)
        pose = state.body_q.numpy().reshape(n, nb, 7)[-1].astype(float)
        twist = state.body_qd.numpy().reshape(n, nb, 6)[-1].astype(float)
        for i in range(nb):
            v = np.zeros(6)
            mujoco.mj_objectVelocity(m, data, mujoco.mjtObj.mjOBJ_BODY, i + 1, v, 0)
            same = abs(float(pose[i, [6, 3, 4, 5]] @ data.xquat[i + 1]))
            off = max(float(np.abs(pose[i, :3] - data.xpos[i + 1]).max()), float(np.sqrt(max(0.0, 1 - same**2))) / 10)
            fast = max(float(np.abs(twist[i, :3] - v[3:]).max()), float(np.abs(twist[i, 3:] - v[:3]).max()))
            if off > _SAME_M * (1 + np.abs(data.xpos[i + 1]).max()) or fast > _SAME_PER_S * (1 + np.abs(v).max()):
                name = m.body(i + 1).name or f"number {i + 1}"
                raise Unsupported(
                    f"Newton reads the joints of body {name} differently: {off:.2g} m and {fast:.2g} m/s off at a "
                    "random state",
                    where=engine,
                    run_next="the engine mujoco",
                )
