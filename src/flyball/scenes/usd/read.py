"""OpenUSD to MJCF.

In: a composed stage, ours or any other tool's. Out: MJCF text, mesh files, what was converted or assumed, and every
prim that did not come through. What UsdPhysics alone says is enough; what Newton's, MuJoCo's and our own attributes
add is taken where it stands.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
from pxr import Usd, UsdGeom, UsdPhysics

from flyball.robots.models.facts import rotation
from flyball.robots.models.model import Array
from flyball.robots.models.settings import PLACES, put
from flyball.scenes.usd.parsed import Parsed
from flyball.scenes.usd.read_actuators import ActuatorsReader
from flyball.scenes.usd.read_joints import JointsReader
from flyball.scenes.usd.read_mechanisms import MechanismsReader
from flyball.scenes.usd.read_records import RecordsReader
from flyball.scenes.usd.read_shapes import ShapesReader
from flyball.scenes.usd.references import References, label
from flyball.scenes.usd.stage import foreign
from flyball.scenes.usd.tree import Forest, Node, is_body, is_kinematic
from flyball.scenes.usd.values import Names, Values, placed, quat, word
from flyball.scenes.usd.vocabulary import DISABLE, ENABLE, FREE, FREE_SOLVER, MJCF_WORDS, OPTION

NO_BASE = Usd.TraverseInstanceProxies(Usd.PrimDefaultPredicate)
GRAVITY = 9.81


def read_stage(stage: Usd.Stage, where: str, name: str) -> Parsed:
    """Turn a composed stage into MJCF.

    Args:
      where: what messages call the file.
      name: of the model, if its root prim has none.

    Raises:
      InputError: naming the prim.
    """
    with foreign(where):
        values = Values(stage, where)
    with foreign(where, lambda: values.last):
        return _Reader(stage, values, name).read()


class _Reader:
    def __init__(self, stage: Usd.Stage, values: Values, name: str) -> None:
        self.stage, self.values, self.names = stage, values, Names()
        default = stage.GetDefaultPrim()
        self.name = (default.GetDisplayName() or default.GetName()) if default else name
        self.notes, self.losses = self.values.notes(), list[str]()
        self.joints = JointsReader(values, self.names)
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
        ActuatorsReader(refs, self.joints.drives).write(parts["actuator"])
        RecordsReader(refs).write(root, parts["sensor"], parts["keyframe"])
        self._unread(refs)
        for element in [e for e in root if e.tag not in ("compiler", "worldbody") and len(e) == 0 and not e.attrib]:
            root.remove(element)
        indent(root, " ")
        losses = [*self.forest.losses, *self.losses, *self.joints.losses, *self.shapes.losses, *refs.losses]
        notes = [*self.notes, *self.values.said, *self.joints.notes, *self.shapes.notes, *refs.notes]
        return Parsed(
            self.name,
            tostring(root, encoding="unicode") + "\n",
            self.shapes.assets,
            tuple(dict.fromkeys(notes)),
            tuple(dict.fromkeys(losses)),
            self._places(),
            velocity_limits=self.joints.speeds,
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
            option.set(key, MJCF_WORDS.get(value, value))
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
        self._settings(root, prim)
        # other tools' files leave the unit of mjc:ref and mjc:springref to this, whose fallback is degrees
        self.joints.degrees = v.get(prim, "mjc:compiler:angle", "Token") != "radian"

    def _settings(self, root: Element, prim: Usd.Prim) -> None:
        told: dict[str, dict[str, str]] = {}
        for place in PLACES:
            start = f"flyball:{place.replace('/', ':')}:"
            for attribute in prim.GetAttributes():
                name = str(attribute.GetName())
                if name.startswith(start):
                    told.setdefault(place, {})[name.removeprefix(start)] = self.values.get(prim, name, "String") or ""
        put(root, told, f"{self.values.where} {prim.GetPath()}")

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
        sleep = v.get(prim, "flyball:sleep", "Token")
        if sleep:
            e.set("sleep", sleep)
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
            self.joints.write(e, node, link, backward)
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
            self.joints.want(link)

    def _free(self, e: Element, prim: Usd.Prim) -> None:
        joint = SubElement(e, "joint", name=self.names("joint", prim.GetPath()), type="free")
        for key in FREE:
            value = self.values.get(prim, f"flyball:free:{key}", "Double")
            if value:
                joint.set(key, word(value))
        joint.attrib |= self.values.attributes(prim, FREE_SOLVER)
        group = self.values.get(prim, "flyball:free:group", "Int")
        if group:
            joint.set("group", word(group))

    def _mass(self, e: Element, prim: Usd.Prim) -> None:
        """Explicit mass properties. Without them MuJoCo computes them from colliders, as UsdPhysics means it."""
        v, path = self.values, prim.GetPath()
        if v.get(prim, "flyball:massless", "Bool"):
            com = v.get(prim, "physics:centerOfMass", "Point3f")
            found = self._inertia(prim, UsdPhysics.MassAPI(prim), np.ones(3))
            about = {"pos": word(np.zeros(3) if com is None else com), "mass": "0"}
            moments, axes = (np.zeros(3), None) if found is None else found
            turned = {} if axes is None else {"quat": word(axes)}
            SubElement(e, "inertial", {**about, **turned, "diaginertia": word(moments)})
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
        if inertia is None and v.get(prim, "flyball:point", "Bool"):
            inertia = np.zeros(3), np.array([1.0, 0, 0, 0])
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
