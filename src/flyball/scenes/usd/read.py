"""OpenUSD to MJCF.

In: a composed stage, ours or any other tool's. Out: MJCF text, mesh files, what was converted or assumed, and every
prim that did not come through. What UsdPhysics alone says is enough; what Newton's, MuJoCo's and our own attributes
add is taken where it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from pxr import Usd, UsdGeom, UsdPhysics

from flyball.robots.models.facts import rotation
from flyball.robots.models.model import Array
from flyball.scenes.usd.parsed import Parsed
from flyball.scenes.usd.read_actuators import ActuatorsReader
from flyball.scenes.usd.read_mechanisms import MechanismsReader
from flyball.scenes.usd.read_records import RecordsReader
from flyball.scenes.usd.read_shapes import ShapesReader
from flyball.scenes.usd.references import References, label
from flyball.scenes.usd.stage import foreign
from flyball.scenes.usd.tree import Forest, Link, Node, angle_between, is_body, is_kinematic
from flyball.scenes.usd.values import Names, Values, inverse, placed, quat, word
from flyball.scenes.usd.vocabulary import DISABLE, ENABLE, FREE, JOINT, MJCF_WORDS, OPTION, authored, radians

NO_BASE = Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)
OFF_ZERO = 1e-5
"""Angle [rad] or distance [m] from which on an authored pose is taken to stand away from the joint's zero; single
precision leaves 1e-6."""
GRAVITY = 9.81
UNBREAKABLE = 1e30
"""Break force from which on a joint does not break; some tools write the largest float for infinity."""
_DOFS = ("transX", "transY", "transZ", "rotX", "rotY", "rotZ")


def read_stage(stage: Usd.Stage, where: str, name: str) -> Parsed:
    """Turn a composed stage into MJCF.

    Args:
      where: what messages call the file.
      name: of the model, if its root prim has none.

    Raises:
      InputError: naming the prim.
    """
    values = Values(stage, where)
    with foreign(where, lambda: values.last):
        return _Reader(stage, values, name).read()


class _Reader:
    def __init__(self, stage: Usd.Stage, values: Values, name: str) -> None:
        self.stage, self.values, self.names = stage, values, Names()
        default = stage.GetDefaultPrim()
        self.name = (default.GetDisplayName() or default.GetName()) if default else name
        self.notes, self.losses = self.values.notes(), list[str]()
        self._drives: dict[Any, tuple[str, str, bool]] = {}
        self._degrees = True
        self.prims = [*Usd.PrimRange.Stage(stage, NO_BASE)]
        bodies = [p for p in self.prims if is_body(p)]
        joints = [p for p in self.prims if p.IsA(UsdPhysics.Joint)]
        for prim in bodies:
            if not prim.IsA(UsdGeom.Xformable):
                raise self.values.bad(prim, "a rigid body without a place", "an Xform or another Xformable")
        self.forest = Forest(self.values, bodies, joints)
        for kind, found in (("body", bodies), ("joint", joints)):
            for prim in found:
                self.names.want(kind, prim.GetPath(), label(prim))

    def read(self) -> Parsed:
        nodes = self.forest.ordered()
        for node in nodes:
            self._want_joints(node)
        self.shapes = ShapesReader(self.values, self.names, self.forest, self.prims)
        root = Element("mujoco", model=self.name)
        # what USD states is final: angles in radians, no range invented, no frame moved
        SubElement(root, "compiler", angle="radian", autolimits="false", boundmass="0", boundinertia="0")
        self._scene(root)
        assets = SubElement(root, "asset")
        world = SubElement(root, "worldbody")
        elements: dict[Any, Element] = {None: world}
        for node in nodes:
            elements[node.prim.GetPath()] = self._body(elements[node.parent], node)
        self.shapes.write(elements, assets)
        refs = References(self.values, self.names, self.forest, self.shapes, self.prims)
        parts = {k: SubElement(root, k) for k in ("contact", "tendon", "equality", "actuator", "sensor", "keyframe")}
        MechanismsReader(refs).write(parts["contact"], parts["tendon"], parts["equality"])
        ActuatorsReader(refs, self._drives).write(parts["actuator"])
        RecordsReader(refs).write(root, parts["sensor"], parts["keyframe"])
        self._unread(refs)
        for element in [e for e in root if e.tag not in ("compiler", "worldbody") and len(e) == 0 and not e.attrib]:
            root.remove(element)
        indent(root, " ")
        losses = [*self.forest.losses, *self.losses, *self.shapes.losses, *refs.losses]
        notes = [*self.notes, *self.values.said, *self.shapes.notes, *refs.notes]
        return Parsed(
            self.name,
            tostring(root, encoding="unicode") + "\n",
            self.shapes.assets,
            tuple(dict.fromkeys(notes)),
            tuple(dict.fromkeys(losses)),
            self._places(),
        )

    def _places(self) -> dict[str, str]:
        kinds = ("body", "joint", "geom", "site", "camera", "light", "mesh", "actuator", "tendon", "sensor", "equality")
        return {f"{k} {self.names(k, p)}": str(p) for k in kinds for p in self.names._wanted.get(k, {})}

    def _unread(self, refs: References) -> None:
        """List what nobody took: nothing is dropped in silence."""
        quiet = {"", "Scope", "Xform", "Material", "Shader", "NodeGraph", "GeomSubset", "PhysicsScene", "SkelRoot",
                 "RenderSettings", "RenderProduct", "RenderVar", "PhysicsCollisionGroup"}  # fmt: skip
        taken = self.shapes.taken | refs.taken
        kinds: dict[str, list[str]] = {}
        for prim in self.prims:
            name = str(prim.GetTypeName())
            if prim.GetPath() not in taken and name not in quiet and not prim.IsA(UsdPhysics.Joint):
                kinds.setdefault(name, []).append(str(prim.GetPath()))
        for name, paths in kinds.items():
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            self.losses.append(f"{paths[0]}{more}: prims of type {name} are not carried")

    # scene ------------------------------------------------------------------------------------------------

    def _scene(self, root: Element) -> None:
        option = SubElement(root, "option")
        scenes = [p for p in self.prims if p.IsA(UsdPhysics.Scene)]
        if not scenes:
            self.notes.append(f"no physics scene: gravity {GRAVITY} m/s^2 downwards and MuJoCo's time step were taken")
            return
        prim = min(scenes, key=lambda p: p.GetPath().pathElementCount)
        if len(scenes) > 1:
            self.notes.append(f"{len(scenes)} physics scenes: {prim.GetPath()} counts")
        scene, v = UsdPhysics.Scene(prim), self.values
        size = v.number(prim, scene.GetGravityMagnitudeAttr(), -np.inf)
        way = v.vector(prim, scene.GetGravityDirectionAttr())
        assert size is not None and way is not None
        down = v.turn @ (way / np.linalg.norm(way)) if np.any(way) else np.array([0.0, 0.0, -1.0])
        strength = GRAVITY if np.isneginf(size) else size * v.metres
        if not np.isfinite(strength):
            raise v.bad(prim, f"gravity of {size}", "a finite magnitude, or -inf for the earth's")
        option.set("gravity", word(np.where(np.abs(down) < 1e-12, 0.0, down) * strength))
        for key, value in v.attributes(prim, OPTION).items():
            option.set(key, MJCF_WORDS.get(value, value) if not _is_number(value) else value)
        steps = v.get(prim, "newton:timeStepsPerSecond", "Int")
        if "timestep" not in option.attrib and steps:
            option.set("timestep", word(1 / steps))
        iterations = v.get(prim, "newton:maxSolverIterations", "Int")
        if "iterations" not in option.attrib and iterations and iterations > 0:
            option.set("iterations", word(iterations))
        flags = {}
        for names in (DISABLE, ENABLE):
            for flag in names:
                on = v.get(prim, f"mjc:flag:{flag}", "Bool")
                if on is not None:
                    flags[flag] = "enable" if on else "disable"
        if v.get(prim, "newton:gravityEnabled", "Bool") is False:
            flags["gravity"] = "disable"
        if flags:
            SubElement(option, "flag", flags)
        off = v.get(prim, "mjc:option:actuatorgroupdisable", "IntArray")
        if off is not None and len(off):
            option.set("actuatorgroupdisable", word(off))
        # other tools' files leave the unit of mjc:ref and mjc:springref to this, whose fallback is degrees
        self._degrees = v.get(prim, "mjc:compiler:angle", "Token") != "radian"

    # bodies -----------------------------------------------------------------------------------------------

    def _body(self, parent: Element, node: Node) -> Element:
        prim, v = node.prim, self.values
        path = prim.GetPath()
        e = SubElement(parent, "body", {"name": self.names("body", path), **placed(self.forest.pose(node))})
        gravcomp = v.get(prim, "mjc:gravcomp", "Float")
        if gravcomp is None:
            gravcomp = v.get(prim, "mjc:body:gravcomp", "Float")
        if gravcomp:
            e.set("gravcomp", word(gravcomp))
        if is_kinematic(prim):
            if node.parent is None and not node.links and not self._has_children(path):
                e.set("mocap", "true")
            else:
                self.losses.append(f"{path}: a kinematic body in a chain is held where it stands")
        elif node.free:
            self._free(e, prim)
        for link, backward in node.links:
            if is_kinematic(prim):
                break
            self._joint(e, node, link, backward)
        self._mass(e, prim)
        return e

    def _has_children(self, path: Any) -> bool:
        return any(n.parent == path for n in self.forest.nodes.values())

    def _want_joints(self, node: Node) -> None:
        """A free body's joint needs a name; a generic joint becomes one joint per free direction."""
        path = node.prim.GetPath()
        if node.free:
            self.names.want(
                "joint", path, self.values.get(node.prim, "flyball:free:name", "String") or label(node.prim)
            )
        for link, _ in node.links:
            if link.kind == "generic":
                for dof in _DOFS:
                    self.names.want("joint", f"{link.prim.GetPath()}:{dof}", f"{label(link.prim)}_{dof}")

    def _free(self, e: Element, prim: Usd.Prim) -> None:
        joint = SubElement(e, "joint", name=self.names("joint", prim.GetPath()), type="free")
        for key in FREE:
            value = self.values.get(prim, f"flyball:free:{key}", "Double")
            if value:
                joint.set(key, word(value))

    def _mass(self, e: Element, prim: Usd.Prim) -> None:
        """Explicit mass properties. Without them MuJoCo computes them from colliders, as UsdPhysics means it."""
        v, path = self.values, prim.GetPath()
        if v.get(prim, "flyball:massless", "Bool"):
            com = v.get(prim, "physics:centerOfMass", "Point3f")
            SubElement(e, "inertial", pos=word(np.zeros(3) if com is None else com), mass="0", diaginertia="0 0 0")
            return
        if not prim.HasAPI(UsdPhysics.MassAPI):
            return
        api = UsdPhysics.MassAPI(prim)
        mass = v.number(prim, api.GetMassAttr(), 0.0)
        assert mass is not None
        if not np.isfinite(mass) or mass < 0:
            raise v.bad(prim, f"physics:mass = {mass:g}", "a number above 0 kg, or 0 for computed from density")
        _, scale = v.split(prim, v.frame(prim))
        scale = np.where(np.abs(scale - 1) < 1e-9, 1.0, scale)
        inertia = self._inertia(prim, api, scale)
        com = v.vector(prim, api.GetCenterOfMassAttr()) if api.GetCenterOfMassAttr().HasAuthoredValue() else None
        if mass == 0:
            if inertia is not None:
                self.losses.append(f"{path}: inertia without mass is not carried; both come from its shapes")
            return
        if inertia is None:
            self.shapes.body_mass[path] = mass * v.kilograms
            if com is not None:
                self.losses.append(f"{path}: centre of mass without inertia is not carried; it comes from its shapes")
            return
        if com is None or not np.isfinite(com).all():
            com = np.zeros(3)
        moments, axes = inertia
        stated = self._inertial(prim, moments * v.kilograms)
        where = {"pos": word(com * scale), "quat": word(axes)}
        SubElement(e, "inertial", {**where, "mass": word(mass * v.kilograms), "diaginertia": word(stated)})

    def _inertia(self, prim: Usd.Prim, api: Any, scale: Array) -> tuple[Array, Array] | None:
        """Principal moments [stage's mass unit * m^2], (3,), and the quaternion of their axes; None when not stated."""
        v = self.values
        unit = float(np.mean(scale)) ** 2
        moments = v.vector(prim, api.GetDiagonalInertiaAttr())
        axes = v.vector(prim, api.GetPrincipalAxesAttr())
        axes = axes if axes is not None and np.any(axes) else np.array([1.0, 0, 0, 0])
        full = v.get(prim, "newton:inertia", "DoubleArray")
        if full is None or not len(full):
            return None if moments is None or not np.any(moments) else (moments * unit, axes)
        if len(full) != 6:
            raise v.bad(prim, f"newton:inertia has {len(full)} numbers", "6")
        xx, yy, zz, xy, xz, yz = full
        tensor = np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
        if moments is not None:
            r = rotation(axes)
            if np.abs(r @ np.diag(moments) @ r.T - tensor).max() <= 1e-9 * np.abs(tensor).max():
                return moments * unit, axes
        found, columns = np.linalg.eigh(tensor)
        return found * unit, quat(columns * np.array([1.0, 1.0, np.linalg.det(columns)]))

    def _inertial(self, prim: Usd.Prim, moments: Array) -> Array:
        """Moments that a body can have.

        Raises:
          InputError: these are not.
        """
        big = int(np.argmax(moments))
        others = float(moments.sum() - moments[big])
        if moments.min() < 0:
            raise self.values.bad(prim, f"moments of inertia {word(moments)}", "none below 0 kg m^2")
        if moments[big] > others * (1 + 1e-5):
            what = f"moments of inertia {word(moments)} belong to no body"
            raise self.values.bad(prim, what, "none larger than the other two together")
        if moments[big] > others:  # a flat body's are equal to that, and rounding takes one over it
            moments = moments.copy()
            moments[big] = others
        return moments

    # joints -----------------------------------------------------------------------------------------------

    def _joint(self, e: Element, node: Node, link: Link, backward: bool) -> None:
        mine = 0 if backward else 1
        near, far = link.frames[mine], link.frames[1 - mine]
        end = link.ends[mine]
        local = link.local[mine]
        if end is None or end.GetPath() != node.prim.GetPath():
            local = inverse(self.values.rigid(node.prim)) @ near
        kinds: dict[str, Callable[..., None]] = {"fixed": self._fixed, "generic": self._generic}
        kinds.get(link.kind, self._simple if link.kind in ("hinge", "slide", "ball") else self._fixed)(
            e, link, local, far, near, -1.0 if backward else 1.0
        )

    def _fixed(self, e: Element, link: Link, local: Array, far: Array, near: Array, sign: float) -> None:
        gap = np.linalg.norm(far[:3, 3] - near[:3, 3])
        turn = float(np.arccos(np.clip((np.trace(far[:3, :3].T @ near[:3, :3]) - 1) / 2, -1, 1)))
        if gap > 1e-4 or turn > 1e-3:
            self._apart(link, float(gap))

    def _apart(self, link: Link, gap: float) -> None:
        self.notes.append(
            f"{link.prim.GetPath()}: its two frames stand apart ({gap:.2g} m); bodies stay where they are drawn"
        )

    def _simple(self, e: Element, link: Link, local: Array, far: Array, near: Array, sign: float) -> None:
        prim, v = link.prim, self.values
        joint = SubElement(e, "joint", name=self.names("joint", prim.GetPath()), type=link.kind)
        if np.any(np.abs(local[:3, 3]) > 1e-15):
            joint.set("pos", word(tidy(local[:3, 3])))
        angular = link.kind != "slide"
        offset = 0.0
        if link.kind == "ball":
            self._cone(joint, prim)
        else:
            typed = UsdPhysics.RevoluteJoint(prim) if angular else UsdPhysics.PrismaticJoint(prim)
            letter = str(typed.GetAxisAttr().Get() or "X")
            if letter not in ("X", "Y", "Z"):
                raise v.bad(prim, f"physics:axis = {letter!r}", "X, Y or Z")
            unit = np.eye(3)["XYZ".index(letter)]
            joint.set("axis", word(tidy(sign * local[:3, :3] @ unit)))
            turn, tilt = angle_between(far, near, unit)
            along = far[:3, :3].T @ (near[:3, 3] - far[:3, 3])
            offset = sign * (turn if angular else float(along @ unit))
            away = along if angular else along - unit * (along @ unit)
            if tilt > 1e-3 or np.linalg.norm(away) > 1e-4:
                self._apart(link, float(np.linalg.norm(away)))
            low, high = (v.number(prim, a) for a in (typed.GetLowerLimitAttr(), typed.GetUpperLimitAttr()))
            self._limits(joint, prim, low, high, angular)
        self._passive(joint, prim, angular)
        if "ref" not in joint.attrib and link.kind != "ball" and abs(offset) > OFF_ZERO:
            joint.set("ref", word(offset))
            self.notes.append(f"{prim.GetPath()}: drawn {offset:.3g} {'rad' if angular else 'm'} away from its zero")
        token = "angular" if angular else "linear"
        if prim.HasAPI(UsdPhysics.DriveAPI, token) and link.kind != "ball":
            self._drives[prim.GetPath()] = (joint.get("name", ""), token, angular)
        elif link.kind == "ball" and prim.HasAPI(UsdPhysics.DriveAPI, token):
            self.losses.append(f"{prim.GetPath()}: drives of spherical joints are not carried")
        breaks = [
            a.Get() for a in (UsdPhysics.Joint(prim).GetBreakForceAttr(), UsdPhysics.Joint(prim).GetBreakTorqueAttr())
        ]
        if any(b is not None and b < UNBREAKABLE for b in breaks):
            self.losses.append(f"{prim.GetPath()}: a joint that breaks is not carried")

    def _limits(self, joint: Element, prim: Usd.Prim, low: float | None, high: float | None, angular: bool) -> None:
        low, high = -np.inf if low is None else low, np.inf if high is None else high
        if not (np.isfinite(low) or np.isfinite(high)):
            return
        if low > high:
            raise self.values.bad(prim, f"limits {low:g} > {high:g}", "the lower first")
        if not (np.isfinite(low) and np.isfinite(high)):
            self.notes.append(f"{prim.GetPath()}: limited on one side; the other was put far away")
        metres = self.values.metres
        ends = []
        for x, far in ((low, -1e3), (high, 1e3)):
            ends.append(far if not np.isfinite(x) else radians(x) if angular else self._length(x, metres))
        if ends[0] == ends[1]:
            ends[1] += 1e-9  # MuJoCo asks for an interval
        joint.set("range", word(ends))
        joint.set("limited", "true")

    @staticmethod
    def _length(x: float, metres: float) -> float:
        return authored(x, lambda s: s * metres, lambda s: s / metres)

    def _cone(self, joint: Element, prim: Usd.Prim) -> None:
        typed = UsdPhysics.SphericalJoint(prim)
        ends = [self.values.number(prim, a) for a in (typed.GetConeAngle0LimitAttr(), typed.GetConeAngle1LimitAttr())]
        angles = [x for x in ends if x is not None and np.isfinite(x) and x >= 0]
        if angles:
            joint.set("range", f"0 {word(radians(max(angles)))}")
            joint.set("limited", "true")
            if len(set(angles)) > 1:
                self.losses.append(f"{prim.GetPath()}: its cone has two angles; the larger counts both ways")

    def _passive(self, joint: Element, prim: Usd.Prim, angular: bool) -> None:
        v = self.values
        found = v.attributes(prim, JOINT)
        for new, old in (("newton:armature", "mjc:armature"), ("newton:friction", "mjc:frictionloss")):
            rule = next(r for r in JOINT if r.usd == new)
            if rule.mjcf not in found and (value := v.get(prim, old, "Double")) is not None:
                found[rule.mjcf] = word(value)
        if angular and self._degrees:
            for key in ("ref", "springref"):
                if key in found:
                    found[key] = word(np.radians(float(found[key])))
        joint.attrib.update(found)
        raw = v.get(prim, "newton:damping", "Float")
        if raw is not None:
            unit = np.pi / 180 if angular else 1.0
            damping: Any = authored(raw, lambda x: x / unit, lambda x: x * unit)
        else:
            damping = v.get(prim, "mjc:damping", "Double")
        for key, first in (("damping", damping), ("stiffness", v.get(prim, "mjc:stiffness", "Double"))):
            rest = v.get(prim, f"flyball:{key}:polynomial", "DoubleArray")
            if first is not None or rest is not None:
                joint.set(key, word(first or 0.0) + ("" if rest is None else " " + word(rest)))
        low, high = (v.get(prim, f"mjc:actuatorfrcrange:{end}", "Double") for end in ("min", "max"))
        if low is not None and high is not None and v.get(prim, "mjc:actuatorfrclimited", "Token") != "false":
            joint.set("actuatorfrcrange", word([low, high]))
            joint.set("actuatorfrclimited", "true")
        group = v.get(prim, "mjc:group", "Int")
        if group:
            joint.set("group", word(group))
        for name in ("newton:velocityLimit", "newton:limitStiffness", "newton:limitDamping"):
            value = prim.GetAttribute(name).Get() if prim.HasAttribute(name) else None
            if value is not None and np.isfinite(value):
                self.losses.append(f"{prim.GetPath()}: {name} is not carried")

    def _generic(self, e: Element, link: Link, local: Array, far: Array, near: Array, sign: float) -> None:
        """One joint per direction that is not locked: slides first, then hinges, as their axes nest."""
        prim, v = link.prim, self.values
        free = []
        for k, dof in enumerate(_DOFS):
            low: float | None = None
            high: float | None = None
            if prim.HasAPI(UsdPhysics.LimitAPI, dof):
                limit = UsdPhysics.LimitAPI(prim, dof)
                low, high = v.number(prim, limit.GetLowAttr()), v.number(prim, limit.GetHighAttr())
                if low is not None and high is not None and low > high:
                    continue
            free.append((k, dof, low, high))
        turning = [f for f in free if f[0] >= 3]
        ball = len(turning) == 3 and all(f[2] in (None, -np.inf) for f in turning)
        for k, dof, low, high in [f for f in free if not (ball and f[0] >= 3)]:
            angular = k >= 3
            name = self.names("joint", f"{prim.GetPath()}:{dof}")
            joint = SubElement(e, "joint", name=name, type="hinge" if angular else "slide")
            joint.set("axis", word(tidy(sign * local[:3, k % 3])))
            joint.set("pos", word(tidy(local[:3, 3])))
            self._limits(joint, prim, low, high, angular)
            self._passive(joint, prim, angular)
            if prim.HasAPI(UsdPhysics.DriveAPI, dof):
                self._drives[f"{prim.GetPath()}:{dof}"] = (name, dof, angular)
        if ball:
            joint = SubElement(e, "joint", name=self.names("joint", prim.GetPath()), type="ball")
            joint.set("pos", word(tidy(local[:3, 3])))
            self._passive(joint, prim, True)


def tidy(x: Array) -> Array:
    """Without the dust that products of rotations leave."""
    near = np.round(x)
    return np.where(np.abs(x - near) < 1e-12, near, x) + 0.0


def _is_number(text: str) -> bool:
    try:
        float(text.split()[0])
    except ValueError:
        return False
    return True
