"""MJCF to OpenUSD.

In: an imported model. Out: one USD layer that is a reusable part: everything below its default prim, joints relative
to that prim and not to the world, so that a reference to the file can be put anywhere; the physics scene (gravity,
solver) beside it, where a reference does not reach. Bodies nest as they do in MJCF.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
from pxr import Kind, Sdf, Usd, UsdGeom, UsdPhysics

from flyball.base import InputError
from flyball.robots.models.facts import facts, multiply, rotation
from flyball.robots.models.imported import Imported
from flyball.robots.models.model import Body, Joint, Model
from flyball.robots.models.settings import settings
from flyball.scenes.usd.author import IDENTITY, Author, apply, exact, pose, put, quatf, vec3f
from flyball.scenes.usd.mechanisms import Mechanisms
from flyball.scenes.usd.read_back import several, untold
from flyball.scenes.usd.shapes import Shapes
from flyball.scenes.usd.vocabulary import (
    DISABLE,
    ENABLE,
    FREE,
    FREE_SOLVER,
    JOINT,
    OPTION,
    VERSION,
    WORDS,
    authored,
    quat_between,
    radians,
    same,
    single,
)

SUFFIXES = (".usda", ".usdc", ".usd", ".usdz")


def write(imported: Imported, path: Path) -> list[str]:
    """Write a model as a USD file; the suffix says how: .usda text, .usdc binary, .usdz package.

    Returns:
      What USD and its schemas cannot carry; empty when everything came through.

    Raises:
      InputError: unknown suffix, or the model does not compile.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"no USD file has the suffix {path.suffix!r}", where=str(path), allowed=" ".join(SUFFIXES))
    compiled = imported.compile()
    stage, losses = author(compiled, imported, imported.name or path.stem)
    losses += untold(compiled, imported, stage, losses)
    layer = stage.GetRootLayer()
    if path.suffix != ".usdz":
        _export(layer, path)
        return losses
    from pxr import UsdUtils

    inner = path.with_suffix(".usdc")
    fresh = not inner.exists()
    inner = inner if fresh else path.with_name(f".{path.stem}.part.usdc")
    try:
        _export(layer, inner)
        path.unlink(missing_ok=True)
        if not UsdUtils.CreateNewUsdzPackage(str(inner), str(path)):
            raise InputError("the package could not be written", where=str(path))
    finally:
        inner.unlink(missing_ok=True)
    return losses


def _export(layer: Any, path: Path) -> None:
    from pxr import Tf

    # an open layer of the same file would keep its old content in this process
    known = Sdf.Layer.Find(str(path))
    try:
        if known is not None:
            known.TransferContent(layer)
            known.Save()
        elif not layer.Export(str(path)):
            raise InputError("the layer could not be written", where=str(path))
    except Tf.ErrorException as err:
        raise InputError("the layer could not be written", where=str(path)) from err


def author(compiled: Any, imported: Imported, name: str) -> tuple[Usd.Stage, list[str]]:
    """The stage of a compiled model, in memory, and what it does not carry."""
    model = facts(compiled)
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    from pxr import Tf

    root = UsdGeom.Xform.Define(stage, f"/{Tf.MakeValidIdentifier(name or 'model')}").GetPrim()
    stage.SetDefaultPrim(root)
    if root.GetName() != name and name:
        root.SetDisplayName(name)
    Usd.ModelAPI(root).SetKind(Kind.Tokens.component)
    root.SetCustomDataByKey("flyball:version", VERSION)
    writer = _Tree(stage, root.GetPath(), model, compiled, imported)
    writer.everything()
    _scene(stage, compiled, settings(fromstring(imported.mjcf)))
    return stage, writer.losses


def _scene(stage: Usd.Stage, m: Any, stated: Mapping[str, Mapping[str, str]]) -> None:
    scene = UsdPhysics.Scene.Define(stage, "/PhysicsScene")
    gravity = np.array(m.opt.gravity, float)
    size = float(np.linalg.norm(gravity))
    scene.CreateGravityMagnitudeAttr(size)
    scene.CreateGravityDirectionAttr(vec3f(gravity / size if size else np.array([0.0, 0.0, -1.0])))
    prim = scene.GetPrim()
    exact(prim, "physics:gravityMagnitude", size)
    exact(prim, "physics:gravityDirection", gravity / size if size else (0, 0, -1))
    apply(prim, "NewtonSceneAPI", "MjcSceneAPI")
    put(prim, "mjc:compiler:angle", "Token", "radian")
    put(prim, "newton:timeStepsPerSecond", "Int", round(1 / m.opt.timestep))
    values = {r.fact: getattr(m.opt, r.fact) for r in OPTION}
    values |= {word: names[int(values[word])] for word, names in WORDS.items()}
    for rule in OPTION:
        if rule.fact == "timestep" or not same(values[rule.fact], rule.default):
            put(prim, rule.usd, rule.kind, values[rule.fact])
    for bits, names, normal in ((m.opt.disableflags, DISABLE, True), (m.opt.enableflags, ENABLE, False)):
        for bit, flag in enumerate(names):
            if int(bits) >> bit & 1:
                put(prim, f"mjc:flag:{flag}", "Bool", not normal)
    if int(m.opt.disableactuator):
        off = [g for g in range(31) if int(m.opt.disableactuator) >> g & 1]
        put(prim, "mjc:option:actuatorgroupdisable", "IntArray", off)
    for place, attributes in stated.items():
        for key, text in attributes.items():
            put(prim, f"flyball:{place.replace('/', ':')}:{key}", "String", text)


class _Tree:
    """Writes one model: bodies with what is fixed to them, then joints, then what refers to all of these."""

    def __init__(self, stage: Usd.Stage, root: Sdf.Path, model: Model, compiled: Any, imported: Imported) -> None:
        import mujoco

        self.author, self.model, self.m = Author(stage, root), model, compiled
        self.stage = stage
        self.speeds = dict(imported.sidecar.get("velocity_limits", {}))
        spec = mujoco.MjSpec.from_string(imported.mjcf, assets=dict(imported.assets))
        hull = {k: int(mesh.maxhullvert) for k, mesh in zip(model.meshes, spec.meshes, strict=False)}
        names = [*model.geoms]
        paired = {names[int(k)] for k in np.concatenate([compiled.pair_geom1, compiled.pair_geom2])}
        self.shapes = Shapes(self.author, dict(model.meshes), hull, paired)
        self.losses: list[str] = []

    def everything(self) -> None:
        for body in self.model.bodies.values():
            self._body(body)
        fields = self._fields()
        for index, geom in enumerate(self.model.geoms.values()):
            if geom.kind == "sdf":
                self.losses.append(f"geom {geom.name}: a signed distance field is not carried")
                continue
            self.shapes.geom(geom, fields.get(int(self.m.geom_dataid[index])) if geom.kind == "hfield" else None)
        for index, site in enumerate(self.model.sites.values()):
            self.shapes.site(site, self.model.rest["sites"][site.name]["rgba"], int(self.m.site_group[index]))
        for camera in self.model.cameras.values():
            self.shapes.camera(camera, float(self.model.rest["cameras"][camera.name]["ipd"][0]))
        for light in self.model.lights.values():
            if light.kind == "image":
                self.losses.append(f"light {light.name}: an image light is not carried")
            else:
                self.shapes.light(light, float(self.model.rest["lights"][light.name]["softness"][0]))
        self._nest()
        for body in self.model.bodies.values():
            self._hold(body)
        self._mind()
        mechanisms = Mechanisms(self.author, self.model, self.m)
        mechanisms.everything()
        self.losses += mechanisms.losses

    def _mind(self) -> None:
        """What comes back to us, and is misread by who knows UsdPhysics only."""
        moving = [j for j in self.model.joints.values() if j.kind != "free"]
        stacked = [b for b in self.model.bodies if sum(j.body == b for j in moving) > 1]
        shifted = [j.name for j in moving if j.ref[0]]
        if stacked:
            self.losses.append(
                f"{several(stacked, 'body')}: joints stacked on one body; readers that do not know "
                "newton:jointsAddMobility take them for a closed loop"
            )
        if shifted:
            self.losses.append(
                f"{several(shifted, 'joint')}: reference positions stand in mjc:ref; readers that do not know it count "
                "limits from the authored pose"
            )
        used = {g.mesh for g in self.model.geoms.values()}
        unused = [m for m in self.model.meshes if m not in used]
        if unused:
            self.losses.append(f"{several(unused, 'mesh')}: no geom uses them; not carried")

    def _fields(self) -> dict[int, dict[str, Any]]:
        m, out = self.m, {}
        for i in range(m.nhfield):
            rows, columns, at = int(m.hfield_nrow[i]), int(m.hfield_ncol[i]), int(m.hfield_adr[i])
            data = np.asarray(m.hfield_data[at : at + rows * columns], float).reshape(rows, columns)
            name = m.hfield(i).name or f"hfield{i}"
            size = m.hfield_size[i]
            out[i] = {"name": name, "rows": rows, "columns": columns, "size": size, "data": data}
        return out

    def _body(self, body: Body) -> None:
        prim = self.author.define(self.author.paths["body", body.parent], body.name, "Xform", "body")
        pose(prim, body.pos, body.quat)
        rigid = UsdPhysics.RigidBodyAPI.Apply(prim)
        if body.mocap:
            rigid.CreateKinematicEnabledAttr(True)
        mass = UsdPhysics.MassAPI.Apply(prim)
        mass.CreateMassAttr(body.mass)
        exact(prim, "physics:mass", body.mass)
        if body.mass == 0:
            # a mass of zero means "not stated" in UsdPhysics
            put(prim, "flyball:massless", "Bool", True)
        elif not np.any(self.m.body_inertia[[*self.model.bodies].index(body.name) + 1]):
            # and so does an inertia of zero, which a body that is held by another may have
            put(prim, "flyball:point", "Bool", True)
        mass.CreateCenterOfMassAttr(vec3f(body.com))
        exact(prim, "physics:centerOfMass", body.com)
        index = [*self.model.bodies].index(body.name) + 1
        moments, axes = self.m.body_inertia[index], self.m.body_iquat[index]
        if np.any(moments > 0):
            mass.CreateDiagonalInertiaAttr(vec3f(moments))
            mass.CreatePrincipalAxesAttr(quatf(axes))
            exact(prim, "physics:diagonalInertia", moments)
            exact(prim, "physics:principalAxes", axes)
            apply(prim, "NewtonMassAPI")
            i = body.inertia
            put(prim, "newton:inertia", "DoubleArray", (i[0, 0], i[1, 1], i[2, 2], i[0, 1], i[0, 2], i[1, 2]))
        sleep = self.model.rest["bodies"][body.name].get("sleep", "auto")
        if sleep != "auto":
            put(prim, "flyball:sleep", "Token", sleep)
        if body.gravcomp:
            put(prim, "mjc:gravcomp", "Float", body.gravcomp)

    def _nest(self) -> None:
        """Name the root of every articulation."""
        moved = {j.body for j in self.model.joints.values() if j.kind != "free"}
        for body in self.model.children("world"):
            if body in moved or any(self._below(body, moved)):
                prim = self.stage.GetPrimAtPath(self.author.paths["body", body])
                UsdPhysics.ArticulationRootAPI.Apply(prim)
                stacked = [len([j for j in self.model.joints_of(b) if j.kind != "free"]) for b in self._tree(body)]
                if max(stacked) > 1:
                    apply(prim, "NewtonArticulationRootAPI")
                    put(prim, "newton:jointsAddMobility", "Bool", True)

    def _tree(self, body: str) -> list[str]:
        out = [body]
        for b in out:
            out += self.model.children(b)
        return out

    def _below(self, body: str, moved: set[str]) -> Iterable[bool]:
        return (b in moved for b in self._tree(body)[1:])

    def _hold(self, body: Body) -> None:
        """What joins a body to its parent."""
        joints = self.model.joints_of(body.name)
        if not joints and not body.mocap:
            home = self.author.paths["body", body.name]
            path = self.author.path(home, "fixed")
            self._frames(UsdPhysics.FixedJoint.Define(self.stage, path), body, np.zeros(3), IDENTITY)
        for joint in joints:
            if joint.kind == "free":
                self._free(body, joint)
            else:
                self._joint(body, joint)

    def _frames(self, joint: Any, body: Body, anchor: Any, turn: Any) -> None:
        joint.CreateBody0Rel().SetTargets([self.author.paths["body", body.parent]])
        joint.CreateBody1Rel().SetTargets([self.author.paths["body", body.name]])
        joint.CreateLocalPos0Attr(vec3f(body.pos + rotation(body.quat) @ anchor))
        joint.CreateLocalRot0Attr(quatf(multiply(body.quat, turn)))
        joint.CreateLocalPos1Attr(vec3f(anchor))
        joint.CreateLocalRot1Attr(quatf(turn))
        exact(joint.GetPrim(), "physics:localPos1", anchor)
        exact(joint.GetPrim(), "physics:localRot1", turn)

    def _joint(self, body: Body, joint: Joint) -> None:
        types = {"hinge": "RevoluteJoint", "slide": "PrismaticJoint", "ball": "SphericalJoint"}
        prim = self.author.define(
            self.author.paths["body", body.name], joint.name, f"Physics{types[joint.kind]}", "joint"
        )
        made = getattr(UsdPhysics, types[joint.kind])(prim)
        letter, turn = _axis(joint.axis) if joint.kind != "ball" else ("X", IDENTITY)
        made.CreateAxisAttr(letter)
        self._frames(made, body, joint.anchor, turn)
        angular = joint.kind in ("hinge", "ball")
        low, high = (np.degrees(joint.range) if angular else joint.range) * 1.0
        if joint.kind == "ball" and np.isfinite(high):
            made.CreateConeAngle0LimitAttr(float(high))
            made.CreateConeAngle1LimitAttr(float(high))
        elif joint.kind != "ball" and np.isfinite(low):
            made.CreateLowerLimitAttr(float(low))
            made.CreateUpperLimitAttr(float(high))
            for end, shown, own in (("lower", low, joint.range[0]), ("upper", high, joint.range[1])):
                exact(prim, f"physics:{end}Limit", shown, recovered=angular and radians(single(shown)) == own)
        apply(prim, "NewtonJointAPI", "MjcJointAPI")
        self.author.rules(prim, JOINT, joint)
        if joint.damping:
            unit = np.pi / 180 if angular else 1.0
            put(prim, "newton:damping", "Float", joint.damping * unit)
            back = authored(single(joint.damping * unit), lambda x: x / unit, lambda x: x * unit)
            exact(prim, "newton:damping", joint.damping * unit, recovered=back == joint.damping)
        if np.any(joint.damping_poly):
            put(prim, "flyball:damping:polynomial", "DoubleArray", joint.damping_poly)
        if np.any(joint.stiffness_poly):
            put(prim, "flyball:stiffness:polynomial", "DoubleArray", joint.stiffness_poly)
        if np.isfinite(joint.effort).all():
            put(prim, "mjc:actuatorfrclimited", "Token", "true")
            put(prim, "mjc:actuatorfrcrange:min", "Double", joint.effort[0])
            put(prim, "mjc:actuatorfrcrange:max", "Double", joint.effort[1])
        if joint.name in self.speeds:
            speed = float(self.speeds[joint.name])
            put(prim, "newton:velocityLimit", "Float", np.degrees(speed) if angular else speed)
        group = int(self.m.jnt_group[[*self.model.joints].index(joint.name)])
        if group:
            put(prim, "mjc:group", "Int", group)

    def _free(self, body: Body, joint: Joint) -> None:
        """A body is free in USD unless something holds it: only the joint's name and numbers need a place."""
        path = self.author.paths["body", body.name]
        prim = self.stage.GetPrimAtPath(path)
        self.author.paths["joint", joint.name] = path
        put(prim, "flyball:free:name", "String", joint.name)
        for fact in FREE:
            if getattr(joint, fact):
                put(prim, f"flyball:free:{fact}", "Double", getattr(joint, fact))
        self.author.rules(prim, FREE_SOLVER, joint)
        group = int(self.m.jnt_group[[*self.model.joints].index(joint.name)])
        if group:
            put(prim, "flyball:free:group", "Int", group)


def _axis(axis: Any) -> tuple[str, Any]:
    """USD's axis letter and the rotation that takes it to the axis, exact for axes along the frame."""
    near = int(np.argmax(np.abs(axis)))
    unit = np.eye(3)[near]
    if axis[near] == 1:
        return "XYZ"[near], IDENTITY
    if axis[near] == -1:
        return "XYZ"[near], np.concatenate([[0.0], np.eye(3)[(near + 1) % 3]])
    return "XYZ"[near], quat_between(unit, axis / np.linalg.norm(axis))
