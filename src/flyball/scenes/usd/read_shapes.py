"""Gprims, guides, cameras and lights as MJCF elements.

In: a stage's prims and its trees of bodies. Out: geoms with friction, filters, mass and colour; sites; cameras;
lights; mesh files. A prim belongs to the nearest rigid body above it, or to the world.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from pxr import Usd, UsdGeom, UsdLux, UsdPhysics, UsdShade

from flyball.robots.models.model import Array
from flyball.scenes.usd.filters import Filters
from flyball.scenes.usd.meshes import Meshes, volume_of
from flyball.scenes.usd.tree import Forest
from flyball.scenes.usd.values import Names, Values, placed, word
from flyball.scenes.usd.vocabulary import GEOM, LIGHT, single

DENSITY = 1000.0
"""What UsdPhysics and MuJoCo both assume [kg/m^3]."""
_AXIS = {
    "X": np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]]),
    "Y": np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "Z": np.eye(3),
}
"""Turns z into that axis."""
_SHAPES = ("Cube", "Sphere", "Capsule", "Cylinder", "Plane", "Cone", "Mesh")


class ShapesReader:
    """Reads what is fixed to bodies.

    Attributes:
      assets: file name -> content of the meshes.
      body_mass: body path -> stated mass [kg] whose inertia its shapes give; filled before ``write``.
      taken: paths of the prims that came through, or of which it was said why not.
    """

    def __init__(self, values: Values, names: Names, forest: Forest, prims: list[Usd.Prim]) -> None:
        self.values, self.names, self.forest, self.prims = values, names, forest, prims
        self.notes, self.losses, self.taken = list[str](), list[str](), set[Any]()
        self.body_mass: dict[Any, float] = {}
        self.meshes = Meshes(values)
        self.assets = self.meshes.files
        self.filters = Filters(values, prims)
        self._weights: dict[Any, list[tuple[Element, float]]] = {}
        self.kinds: dict[Any, str] = {}
        for prim in prims:
            kind = self._kind(prim)
            if kind:
                self.kinds[prim.GetPath()] = kind
                names.want(kind, prim.GetPath(), str(prim.GetDisplayName() or prim.GetName()))

    def _kind(self, prim: Usd.Prim) -> str:
        if prim.IsA(UsdGeom.Camera):
            return "camera"
        if prim.GetTypeName() in ("DistantLight", "SphereLight"):
            return "light"
        schemas = prim.GetPrimTypeInfo().GetAppliedAPISchemas()
        if "MjcSiteAPI" in schemas or "NewtonSiteAPI" in schemas:
            return "site"
        if prim.GetTypeName() not in _SHAPES:
            if prim.HasAPI(UsdPhysics.CollisionAPI):
                self.taken.add(prim.GetPath())
                what = f"a collider of type {prim.GetTypeName() or 'none'}"
                self.losses.append(f"{prim.GetPath()}: {what} is not carried")
            return ""
        image = UsdGeom.Imageable(prim)
        guide = image.ComputePurpose() == UsdGeom.Tokens.guide and not prim.HasAttribute("mjc:group")
        hidden = image.ComputeVisibility() == UsdGeom.Tokens.invisible
        if (guide or hidden) and not prim.HasAPI(UsdPhysics.CollisionAPI):
            self.taken.add(prim.GetPath())
            self.notes.append(f"{prim.GetPath()}: {'a guide' if guide else 'invisible'} and no collider; left out")
            return ""
        return "geom"

    def write(self, elements: dict[Any, Element], assets: Element) -> None:
        """Append every element to its body's."""
        writers = {"geom": self._geom, "site": self._site, "camera": self._camera, "light": self._light}
        for prim in self.prims:
            kind = self.kinds.get(prim.GetPath())
            if kind:
                owner = self.forest.owner(prim)
                writers[kind](elements[owner], prim, owner)
                self.taken.add(prim.GetPath())
        for path, mass in self.body_mass.items():
            self._share(path, mass)
        for name, attributes in self.meshes.entries.items():
            SubElement(assets, attributes.pop("tag"), {"name": name, **attributes})

    def _share(self, path: Any, mass: float) -> None:
        """Share a stated mass among the body's shapes, by density times volume, as UsdPhysics means it."""
        found = self._weights.get(path, [])
        total = sum(w for _, w in found)
        if total <= 0:
            self.losses.append(f"{path}: {mass:g} kg without inertia and without shapes; a ball of 5 cm was taken")
            return
        for element, weight in found:
            element.attrib.pop("density", None)
            element.set("mass", word(mass * weight / total))

    def _place(self, prim: Usd.Prim, owner: Any) -> tuple[Array, Array]:
        """Pose in the body's frame, (4, 4), and scale [m per local unit], (3,)."""
        return self.values.within(self.values.stage.GetPrimAtPath(owner) if owner else None, prim, mirrored=True)

    # geoms and sites --------------------------------------------------------------------------------------

    def _geom(self, parent: Element, prim: Usd.Prim, owner: Any) -> None:
        pose, scale = self._place(prim, owner)
        shape, turned = self._shape(prim, scale, site=False)
        if shape is None:
            return
        pose[:3, :3] = pose[:3, :3] @ turned
        mesh_offset = shape.pop("offset", None)
        if mesh_offset is not None:
            pose[:3, 3] += pose[:3, :3] @ mesh_offset
        name = self.names("geom", prim.GetPath())
        e = SubElement(parent, "geom", {"name": name, **{k: word(x) for k, x in shape.items()}, **placed(pose)})
        collider = prim.HasAPI(UsdPhysics.CollisionAPI)
        if collider and UsdPhysics.CollisionAPI(prim).GetCollisionEnabledAttr().Get() is False:
            collider = False
        own = self.values.attributes(prim, GEOM)
        for new, old in (("margin", "mjc:margin"), ("gap", "mjc:gap")):
            value = self.values.get(prim, old, "Double")
            if new not in own and value is not None:
                own[new] = word(value)
        if not ({"contype", "conaffinity"} & set(own)):
            bits = self.filters.bits(prim) if collider else (0, 0)
            own |= {"contype": str(bits[0]), "conaffinity": str(bits[1])} if bits != (1, 1) else {}
        e.attrib.update(own)
        other = self.values.get(prim, "flyball:geom:other", "DoubleArray")
        if other is not None and len(other) == 19:
            if np.any(other[:12]):
                e.set("fluidshape", "ellipsoid")
                e.set("fluidcoef", word(_fluid(other[:12])))
            if np.any(other[12:18]):
                e.set("surfacevel", word(other[12:18]))
            if other[18]:
                e.set("adhesion", word(other[18]))
        e.set("rgba", word(self._colour(prim)))
        if UsdGeom.Imageable(prim).ComputeVisibility() == UsdGeom.Tokens.invisible and "group" not in own:
            e.set("group", "3")
        self._material(e, prim, collider)
        self._density(e, prim, owner, collider, shape)

    def _shape(self, prim: Usd.Prim, scale: Array, site: bool) -> tuple[dict[str, Any] | None, Array]:
        """``type``, ``size`` and what else a geom of this prim has, and the turn from MuJoCo's axes to the prim's."""
        kind, v, path = str(prim.GetTypeName()), self.values, prim.GetPath()
        if kind not in ("Mesh", "Cone"):
            scale = np.abs(scale)
        even = bool(np.ptp(scale) <= 1e-6 * scale.max())
        if kind == "Cube":
            half = self._positive(prim, UsdGeom.Cube(prim).GetSizeAttr()) / 2
            return {"type": "box", "size": half * scale}, np.eye(3)
        if kind == "Sphere":
            radius = self._positive(prim, UsdGeom.Sphere(prim).GetRadiusAttr())
            return ({"type": "sphere", "size": [radius * scale[0]]} if even
                    else {"type": "ellipsoid", "size": radius * scale}), np.eye(3)  # fmt: skip
        if kind in ("Capsule", "Cylinder"):
            return self._tall(prim, scale)
        if kind == "Plane":
            return self._plane(prim, scale)
        if kind == "Cone":
            self.notes.append(f"{path}: a cone is carried as the convex hull of 32 points around its base and its tip")
            return self.meshes.cone(prim, scale), np.eye(3)
        ellipsoid = v.get(prim, "flyball:ellipsoid", "Double3")
        if ellipsoid is not None:
            return {"type": "ellipsoid", "size": ellipsoid * scale}, np.eye(3)
        if site:
            self.losses.append(f"{path}: a site of type {kind} is carried as a sphere of 5 mm")
            return {"type": "sphere", "size": [0.005]}, np.eye(3)
        return self._mesh(prim, scale), np.eye(3)

    def _positive(self, prim: Usd.Prim, attribute: Any) -> float:
        value = self.values.number(prim, attribute)
        if value is None or not np.isfinite(value) or value <= 0:
            raise self.values.bad(prim, f"{attribute.GetName()} = {value}", "a positive number")
        return value

    def _tall(self, prim: Usd.Prim, scale: Array) -> tuple[dict[str, Any], Array]:
        kind = str(prim.GetTypeName())
        tall = UsdGeom.Capsule(prim) if kind == "Capsule" else UsdGeom.Cylinder(prim)
        letter = self.values.axis(prim, tall.GetAxisAttr())
        along = "XYZ".index(letter)
        across = [k for k in range(3) if k != along]
        if abs(scale[across[0]] - scale[across[1]]) > 1e-6 * scale.max():
            self.losses.append(f"{prim.GetPath()}: squeezed across its axis; the mean radius is carried")
        radius = self._positive(prim, tall.GetRadiusAttr()) * float(np.mean(scale[across]))
        height = self.values.number(prim, tall.GetHeightAttr())
        if height is None or not np.isfinite(height) or height < 0:
            raise self.values.bad(prim, f"height = {height}", "a number from 0 on")
        half = height / 2 * float(scale[along])
        if half == 0 and kind == "Capsule":
            return {"type": "sphere", "size": [radius]}, np.eye(3)
        return {"type": kind.lower(), "size": [radius, max(half, 1e-6)]}, _AXIS[letter]

    def _plane(self, prim: Usd.Prim, scale: Array) -> tuple[dict[str, Any], Array]:
        plane = UsdGeom.Plane(prim)
        letter = self.values.axis(prim, plane.GetAxisAttr())
        size = self.values.get(prim, "flyball:plane:size", "Double3")
        if size is None:
            sides = [self.values.number(prim, a) or 0.0 for a in (plane.GetWidthAttr(), plane.GetLengthAttr())]
            if not np.isfinite(sides).all() or min(sides) < 0:
                raise self.values.bad(prim, f"a plane of {sides[0]} by {sides[1]}", "numbers from 0 on")
            size = np.array([sides[0] / 2 * scale[0], sides[1] / 2 * scale[1], 0.1])
        return {"type": "plane", "size": size}, _AXIS[letter]

    def _mesh(self, prim: Usd.Prim, scale: Array) -> dict[str, Any] | None:
        if prim.HasAPI(UsdPhysics.MeshCollisionAPI):
            token = str(UsdPhysics.MeshCollisionAPI(prim).GetApproximationAttr().Get() or "none")
            if token in ("boundingCube", "boundingSphere"):
                box, middle = self.meshes.bounds(prim, scale)
                size = box if token == "boundingCube" else np.array([float(np.linalg.norm(box))])
                return {"type": "box" if token == "boundingCube" else "sphere", "size": size, "offset": middle}
        elif prim.HasAPI(UsdPhysics.CollisionAPI):
            token = "none"
        else:
            token = "convexHull"
        shape = self.meshes.shape(prim, scale)
        if shape is None:
            self.losses.append(f"{prim.GetPath()}: a mesh without volume or with fewer than 4 points is not carried")
        elif token not in ("convexHull", "none") or (token == "none" and shape["type"] == "mesh"):
            what = "the exact triangles" if token == "none" else token
            self.losses.append(f"{prim.GetPath()}: collides with its convex hull in MuJoCo, not with {what}")
        return shape

    def _colour(self, prim: Usd.Prim) -> list[float]:
        gprim, v = UsdGeom.Gprim(prim), self.values
        colour = v.array(prim, gprim.GetDisplayColorAttr(), 3)
        opacity = v.array(prim, gprim.GetDisplayOpacityAttr())
        rgb, alpha = [0.5, 0.5, 0.5], 1.0
        if colour is not None and len(colour):
            rgb = [single(x) for x in colour[0]]
        else:
            found = self._surface(prim)
            rgb, alpha = found if found else (rgb, alpha)
        if opacity is not None and len(opacity):
            alpha = single(opacity[0])
        return [float(np.clip(x, 0, 1)) for x in (*rgb, alpha)]

    def _surface(self, prim: Usd.Prim) -> tuple[list[float], float] | None:
        """Colour and opacity of the bound preview surface."""
        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
        shader = material.ComputeSurfaceSource()[0] if material else None
        if not shader:
            return None
        out: list[Any] = []
        for name, fallback in (("diffuseColor", (0.18, 0.18, 0.18)), ("opacity", 1.0)):
            wanted = shader.GetInput(name)
            if wanted and wanted.HasConnectedSource():
                self.losses.append(f"{material.GetPath()}: {name} comes from a texture, which is not carried")
                out.append((0.5, 0.5, 0.5) if name == "diffuseColor" else 1.0)
                continue
            value = wanted.Get() if wanted else None
            out.append(fallback if value is None else value)
        return [single(x) for x in out[0]], single(out[1])

    def _material(self, e: Element, prim: Usd.Prim, collider: bool) -> None:
        material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial("physics")
        bound = material.GetPrim() if material else None
        if not bound or not bound.HasAPI(UsdPhysics.MaterialAPI):
            return
        v, api = self.values, UsdPhysics.MaterialAPI(bound)
        dynamic, static, bounce = (
            v.number(bound, a, 0.0)
            for a in (api.GetDynamicFrictionAttr(), api.GetStaticFrictionAttr(), api.GetRestitutionAttr())
        )
        assert dynamic is not None and static is not None and bounce is not None
        if not np.isfinite(dynamic) or dynamic < 0:
            raise v.bad(bound, f"physics:dynamicFriction = {dynamic:g}", "a number from 0 on")
        twist, roll = 0.005, 0.0001
        for new, old in (
            ("newton:torsionalFriction", "mjc:torsionalfriction"),
            ("newton:rollingFriction", "mjc:rollingfriction"),
        ):
            value = v.get(bound, new, "Float")
            value = v.get(bound, old, "Double") if value is None else value
            if value is not None and "torsional" in new:
                twist = value
            elif value is not None:
                roll = value
        e.set("friction", word([dynamic, twist, roll]))
        stated = api.GetStaticFrictionAttr().HasAuthoredValue()
        if stated and abs(static - dynamic) > 1e-6 * max(static, dynamic) and collider:
            self.losses.append(
                f"{bound.GetPath()}: static friction {static:g} is not carried; sliding {dynamic:g} counts"
            )
        if bounce > 0:
            self.losses.append(f"{bound.GetPath()}: restitution {bounce:g} is not carried")
        stiffness, damping = (v.get(bound, f"newton:contact{x}") for x in ("Stiffness", "Damping"))
        soft = [x for x in (stiffness, damping) if x is not None and np.isfinite(x) and x > 0]
        if "solref" not in e.attrib and len(soft) == 2:
            e.set("solref", word([-single(x) for x in soft]))

    def _density(self, e: Element, prim: Usd.Prim, owner: Any, collider: bool, shape: dict[str, Any]) -> None:
        """Only colliders have mass in UsdPhysics; a collider's own mass or density, or its material's."""
        v = self.values
        mass = density = 0.0
        for holder in (prim, v.stage.GetPrimAtPath(owner) if owner else None):
            if holder and holder.HasAPI(UsdPhysics.MassAPI) and (holder != prim or prim != owner):
                api = UsdPhysics.MassAPI(holder)
                density = density or v.number(holder, api.GetDensityAttr(), 0.0) or 0.0
                if holder == prim and owner != prim.GetPath():
                    mass = v.number(holder, api.GetMassAttr(), 0.0) or 0.0
        if not density:
            material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial("physics")
            if material and material.GetPrim().HasAPI(UsdPhysics.MaterialAPI):
                density = v.number(prim, UsdPhysics.MaterialAPI(material.GetPrim()).GetDensityAttr(), 0.0) or 0.0
        if min(mass, density) < 0 or not np.isfinite([mass, density]).all():
            raise v.bad(prim, f"mass {mass:g}, density {density:g}", "finite numbers from 0 on")
        per_metre = density * v.kilograms / v.metres**3
        size = volume_of(shape, self.meshes)
        if not np.isfinite(size):
            raise v.bad(prim, "too large for a volume", "sizes in metres")
        self._weights.setdefault(owner, []).append((e, (per_metre or DENSITY) * size if collider else 0.0))
        if not collider:
            e.set("mass", "0")
        elif mass:
            e.set("mass", word(mass * v.kilograms))
        elif per_metre:
            e.set("density", word(per_metre))

    def _site(self, parent: Element, prim: Usd.Prim, owner: Any) -> None:
        pose, scale = self._place(prim, owner)
        if prim.GetTypeName() in _SHAPES:
            shape, turned = self._shape(prim, scale, site=True)
        else:
            shape, turned = {"type": "sphere", "size": [0.005]}, np.eye(3)
        assert shape is not None
        shape.pop("offset", None)
        if shape["type"] in ("plane", "mesh"):
            shape = {"type": "sphere", "size": [0.005]}
        pose[:3, :3] = pose[:3, :3] @ turned
        name = self.names("site", prim.GetPath())
        e = SubElement(parent, "site", {"name": name, **{k: word(x) for k, x in shape.items()}, **placed(pose)})
        if prim.IsA(UsdGeom.Gprim):
            e.set("rgba", word(self._colour(prim)))
        group = self.values.get(prim, "mjc:group", "Int")
        if group:
            e.set("group", word(group))

    # cameras and lights -----------------------------------------------------------------------------------

    def _camera(self, parent: Element, prim: Usd.Prim, owner: Any) -> None:
        pose, _ = self._place(prim, owner)
        v, api = self.values, UsdGeom.Camera(prim)
        e = SubElement(parent, "camera", {"name": self.names("camera", prim.GetPath()), **placed(pose)})
        height, focal = (
            v.number(prim, a, 0.0) or 0.0 for a in (api.GetVerticalApertureAttr(), api.GetFocalLengthAttr())
        )
        if not (np.isfinite([height, focal]).all() and height > 0):
            raise v.bad(prim, f"aperture {height:g}, focal length {focal:g}", "positive numbers")
        sensor = v.get(prim, "flyball:camera:sensor", "DoubleArray")
        intrinsic = v.get(prim, "flyball:camera:intrinsic", "DoubleArray")
        resolution = v.get(prim, "flyball:camera:resolution", "IntArray")
        if api.GetProjectionAttr().Get() == UsdGeom.Tokens.orthographic:
            e.set("projection", "orthographic")
            e.set("fovy", word(height / 10 * v.metres))
        elif sensor is not None and intrinsic is not None and len(sensor) == 2 and len(intrinsic) == 4:
            e.set("sensorsize", word(sensor))
            e.set("focal", word(intrinsic[:2]))
            e.set("principal", word(intrinsic[2:]))
        elif focal > 0:
            e.set("fovy", word(_short(float(np.degrees(2 * np.arctan(height / 2 / focal))))))
        if resolution is not None and len(resolution) == 2:
            e.set("resolution", word(resolution))
        ipd = v.get(prim, "flyball:camera:ipd", "Double")
        if ipd is not None:
            e.set("ipd", word(ipd))
        mode = v.get(prim, "flyball:camera:mode", "Token")
        if mode:
            e.set("mode", mode)
        self._aim(e, prim, "flyball:camera:target")

    def _aim(self, e: Element, prim: Usd.Prim, relation: str) -> None:
        rel = prim.GetRelationship(relation)
        for target in rel.GetTargets() if rel else []:
            if not self.values.stage.GetPrimAtPath(target):
                raise self.values.bad(prim, f"{relation} names {target}, which does not exist", "a rigid body")
            e.set("target", self.names("body", target) if self.names.has("body", target) else "world")

    def _light(self, parent: Element, prim: Usd.Prim, owner: Any) -> None:
        pose, _ = self._place(prim, owner)
        v = self.values
        distant = prim.GetTypeName() == "DistantLight"
        spot = prim.HasAPI(UsdLux.ShapingAPI)
        e = SubElement(parent, "light", name=self.names("light", prim.GetPath()))
        e.set("type", "directional" if distant else "spot" if spot else "point")
        at = placed(pose)
        if "pos" in at:
            e.set("pos", at["pos"])
        way = -pose[:3, 2]
        e.set("dir", word(np.where(np.abs(way) < 1e-12, 0.0, way)))
        colour = v.vector(prim, UsdLux.LightAPI(prim).GetColorAttr())
        if colour is not None:
            e.set("diffuse", word(np.clip(colour, 0, 1)))
        e.attrib.update(v.attributes(prim, LIGHT))
        self._aim(e, prim, "flyball:light:target")


def _fluid(facts: Array) -> list[float]:
    """The five coefficients an ellipsoid's fluid model was written with, out of MuJoCo's twelve."""
    return [float(x) for x in facts[1:6]]


def _short(x: float) -> float:
    """A computed angle without the dust of its last digits."""
    near = float(f"{x:.9g}")
    return near if abs(near - x) < 1e-12 * abs(x) else x


__all__ = ["ShapesReader"]
