"""Geoms, sites, cameras and lights as USD prims.

In: elements of a model's facts. Out: Gprims with colliders, materials and colours; guides; cameras; lights. Ellipsoids
and height fields, which UsdPhysics has no collider for, become meshes that say what they stand for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from pxr import Gf, Sdf, Usd, UsdGeom, UsdLux, UsdPhysics, UsdShade

from flyball.robots.models.model import Array, Camera, Geom, Light, Mesh, Site
from flyball.scenes.usd.author import Author, apply, exact, pose, put, vec3f
from flyball.scenes.usd.vocabulary import GEOM, LIGHT, quat_between, single

VISIBLE_GROUPS = 3
"""MuJoCo's viewer shows groups 0 to 2; the others are guides in USD too."""
SHOWN_PLANE = 20.0
"""Side of an infinite plane in a viewer [m]; its collider has no bounds."""
FRICTION = (1.0, 0.005, 0.0001)
IPD = 0.068
"""What MuJoCo takes for the distance between two eyes [m]."""
APERTURE = 24.0
"""Vertical aperture written for cameras that state only a field of view; only its ratio to the focal length counts."""


class Shapes:
    """Writes what is fixed to bodies.

    Args:
      author: where to.
      meshes: the model's meshes, by name.
      paired: geoms that an explicit contact pair names: colliders whatever their filters say.
    """

    def __init__(self, author: Author, meshes: dict[str, Mesh], hull: dict[str, int], paired: set[str]) -> None:
        self.author, self.meshes, self.hull, self.paired = author, meshes, hull, paired
        self._materials: dict[tuple[float, ...], Sdf.Path] = {}
        self._prototypes: dict[str, Sdf.Path] = {}

    def geom(self, geom: Geom, field: dict[str, Any] | None = None) -> Usd.Prim:
        """A geom below its body's prim; field: data of its height field."""
        parent = self.author.paths["body", geom.body]
        if geom.kind == "mesh":
            prim = self.author.define(parent, geom.name, "Mesh", "geom")
            prim.GetReferences().AddInternalReference(self._prototype(geom.mesh))
            pose(prim, geom.pos, geom.quat)
        elif geom.kind == "hfield":
            assert field is not None
            prim = self.author.define(parent, geom.name, "Mesh", "geom")
            _height_field(prim, field)
            pose(prim, geom.pos, geom.quat)
        else:
            prim = self._primitive(parent, geom.name, "geom", geom.kind, geom.pos, geom.quat, geom.size)
        _colour(prim, geom.rgba)
        if geom.group >= VISIBLE_GROUPS:
            UsdGeom.Imageable(prim).CreatePurposeAttr(UsdGeom.Tokens.guide)
        self.author.rules(prim, GEOM, geom)
        if np.any(geom.other != _OTHER):
            put(prim, "flyball:geom:other", "DoubleArray", geom.other)
        if geom.collides or geom.name in self.paired:
            UsdPhysics.CollisionAPI.Apply(prim)
            apply(prim, "NewtonCollisionAPI", "MjcCollisionAPI")
            if geom.kind in ("mesh", "ellipsoid", "hfield"):
                exact = geom.kind == "hfield"
                token = UsdPhysics.Tokens.none if exact else UsdPhysics.Tokens.convexHull
                UsdPhysics.MeshCollisionAPI.Apply(prim).CreateApproximationAttr(token)
        elif geom.group:
            apply(prim, "MjcImageableAPI")
        self._material(prim, geom)
        return prim

    def site(self, site: Site, rgba: Array, group: int) -> Usd.Prim:
        """A site: a guide that other elements refer to."""
        parent = self.author.paths["body", site.body]
        prim = self._primitive(parent, site.name, "site", site.kind, site.pos, site.quat, site.size)
        UsdGeom.Imageable(prim).CreatePurposeAttr(UsdGeom.Tokens.guide)
        apply(prim, "NewtonSiteAPI", "MjcSiteAPI")
        _colour(prim, rgba)
        if group:
            put(prim, "mjc:group", "Int", group)
        return prim

    def _primitive(
        self, parent: Sdf.Path, name: str, element: str, kind: str, pos: Array, quat: Array, size: Array
    ) -> Usd.Prim:
        types = {"plane": "Plane", "sphere": "Sphere", "capsule": "Capsule", "cylinder": "Cylinder", "box": "Cube"}
        prim = self.author.define(parent, name, types.get(kind, "Mesh"), element)
        scale = None
        if kind == "plane":
            plane = UsdGeom.Plane(prim)
            plane.CreateAxisAttr("Z")
            plane.CreateWidthAttr(2 * float(size[0]) or SHOWN_PLANE)
            plane.CreateLengthAttr(2 * float(size[1]) or SHOWN_PLANE)
            put(prim, "flyball:plane:size", "Double3", size)
        elif kind == "sphere":
            UsdGeom.Sphere(prim).CreateRadiusAttr(float(size[0]))
        elif kind in ("capsule", "cylinder"):
            tall = UsdGeom.Capsule(prim) if kind == "capsule" else UsdGeom.Cylinder(prim)
            tall.CreateAxisAttr("Z")
            tall.CreateRadiusAttr(float(size[0]))
            tall.CreateHeightAttr(2 * float(size[1]))
        elif kind == "box":
            UsdGeom.Cube(prim).CreateSizeAttr(2.0)
            scale = size
        else:
            _ellipsoid(prim, size)
        pose(prim, pos, quat, scale)
        boundable = UsdGeom.Boundable(prim)
        extent = UsdGeom.Boundable.ComputeExtentFromPlugins(boundable, Usd.TimeCode.Default())
        if extent:
            boundable.CreateExtentAttr(extent)
        return prim

    def _prototype(self, name: str) -> Sdf.Path:
        """The mesh, written once; geoms refer to it."""
        if name not in self._prototypes:
            home = self.author.paths.get(("scope", "Meshes"))
            if home is None:
                home = self.author.stage.CreateClassPrim(self.author.path(self.author.root, "Meshes")).GetPath()
                self.author.paths["scope", "Meshes"] = home
            prim = self.author.define(home, name, "Mesh")
            mesh = self.meshes[name]
            _triangles(prim, mesh.vertices, mesh.faces)
            put(prim, "flyball:mesh", "String", name)
            if self.hull.get(name, -1) >= 0:
                apply(prim, "NewtonMeshCollisionAPI")
                put(prim, "newton:maxHullVertices", "Int", self.hull[name])
            self._prototypes[name] = prim.GetPath()
        return self._prototypes[name]

    def _material(self, prim: Usd.Prim, geom: Geom) -> None:
        key = tuple(float(x) for x in geom.friction)
        if not geom.collides and key == FRICTION:
            return
        if key not in self._materials:
            home = self.author.scope("PhysicsMaterials")
            made = UsdShade.Material(self.author.define(home, f"friction_{len(self._materials)}", "Material")).GetPrim()
            api = UsdPhysics.MaterialAPI.Apply(made)
            api.CreateStaticFrictionAttr(key[0])
            api.CreateDynamicFrictionAttr(key[0])
            apply(made, "NewtonMaterialAPI")
            put(made, "newton:torsionalFriction", "Float", key[1])
            put(made, "newton:rollingFriction", "Float", key[2])
            names = ("physics:dynamicFriction", "newton:torsionalFriction", "newton:rollingFriction")
            for name, value in zip(names, key, strict=True):
                exact(made, name, value)
            self._materials[key] = made.GetPath()
        binding = UsdShade.MaterialBindingAPI.Apply(prim)
        material = UsdShade.Material(self.author.stage.GetPrimAtPath(self._materials[key]))
        binding.Bind(material, UsdShade.Tokens.weakerThanDescendants, "physics")

    def camera(self, camera: Camera, ipd: float = IPD) -> None:
        """A camera; USD's looks along -z too. ipd: between two eyes [m]."""
        prim = self.author.define(self.author.paths["body", camera.body], camera.name, "Camera", "camera")
        pose(prim, camera.pos, camera.quat)
        made = UsdGeom.Camera(prim)
        if camera.orthographic:
            # apertures of an orthographic camera are in tenths of a scene unit, fovy is its height
            made.CreateProjectionAttr(UsdGeom.Tokens.orthographic)
            made.CreateVerticalApertureAttr(10 * camera.fovy)
        elif np.any(camera.sensor > 0):
            made.CreateHorizontalApertureAttr(1e3 * float(camera.sensor[0]))
            made.CreateVerticalApertureAttr(1e3 * float(camera.sensor[1]))
            made.CreateFocalLengthAttr(1e3 * float(camera.intrinsic[1]))
            put(prim, "flyball:camera:intrinsic", "DoubleArray", camera.intrinsic)
            put(prim, "flyball:camera:sensor", "DoubleArray", camera.sensor)
        else:
            made.CreateVerticalApertureAttr(APERTURE)
            focal = APERTURE / 2 / float(np.tan(np.radians(camera.fovy) / 2))
            made.CreateFocalLengthAttr(focal)
            exact(prim, "focalLength", focal)
        if np.any(camera.resolution != 1):
            put(prim, "flyball:camera:resolution", "IntArray", camera.resolution)
        if single(ipd) != IPD:
            put(prim, "flyball:camera:ipd", "Double", single(ipd))
        if camera.mode != "fixed":
            put(prim, "flyball:camera:mode", "Token", camera.mode)
        if camera.target:
            self.author.targets(prim, "flyball:camera:target", "body", [camera.target])

    def light(self, light: Light, softness: float = 0.2) -> None:
        """A light; USD's shine along -z. softness: of a spot's edge."""
        distant = light.kind == "directional"
        kind = "DistantLight" if distant else "SphereLight"
        prim = self.author.define(self.author.paths["body", light.body], light.name, kind, "light")
        turn = quat_between(np.array([0.0, 0.0, -1.0]), light.dir / np.linalg.norm(light.dir))
        pose(prim, light.pos, turn)
        diffuse = [single(x) for x in light.diffuse]
        UsdLux.LightAPI(prim).CreateColorAttr(Gf.Vec3f(*diffuse))
        cutoff, exponent, bulb, intensity, reach = (single(x) for x in light.other)
        if not distant:
            UsdLux.SphereLight(prim).CreateRadiusAttr(bulb)
            if light.kind == "spot":
                UsdLux.ShapingAPI.Apply(prim).CreateShapingConeAngleAttr(cutoff)
        facts: dict[str, Any] = {r.fact: getattr(light, r.fact, None) for r in LIGHT}
        facts |= {k: [single(x) for x in getattr(light, k)] for k in ("ambient", "specular", "attenuation")}
        facts |= {"cutoff": cutoff, "exponent": exponent, "bulbradius": bulb, "intensity": intensity, "range": reach}
        facts["softness"] = single(softness)
        self.author.rules(prim, LIGHT, facts)
        if light.target:
            self.author.targets(prim, "flyball:light:target", "body", [light.target])


_OTHER = np.zeros(19)
"""A geom without fluid coefficients, surface velocity and adhesion."""


def _colour(prim: Usd.Prim, rgba: Array) -> None:
    gprim = UsdGeom.Gprim(prim)
    gprim.CreateDisplayColorAttr([vec3f(rgba[:3])])
    if rgba[3] != 1:
        gprim.CreateDisplayOpacityAttr([float(rgba[3])])


def _triangles(prim: Usd.Prim, vertices: Array, faces: Any) -> None:
    mesh = UsdGeom.Mesh(prim)
    mesh.CreatePointsAttr(np.ascontiguousarray(vertices, np.float32))
    mesh.CreateFaceVertexCountsAttr(np.full(len(faces), 3, np.int32))
    mesh.CreateFaceVertexIndicesAttr(np.ascontiguousarray(faces, np.int32).ravel())
    mesh.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    low, high = vertices.min(axis=0), vertices.max(axis=0)
    mesh.CreateExtentAttr([vec3f(low), vec3f(high)])


def _ellipsoid(prim: Usd.Prim, size: Array) -> None:
    rings, sides = 12, 24
    polar = np.linspace(0, np.pi, rings + 1)[1:-1]
    around = np.arange(sides) * 2 * np.pi / sides
    ring = np.stack([np.cos(around), np.sin(around)], axis=1)
    middle = [np.column_stack([np.sin(p) * ring, np.full(sides, np.cos(p))]) for p in polar]
    points = np.concatenate([[[0, 0, 1.0]], *middle, [[0, 0, -1.0]]]) * size
    faces = []
    for k in range(sides):
        n = (k + 1) % sides
        faces.append((0, 1 + k, 1 + n))
        for r in range(rings - 2):
            a, b = 1 + r * sides, 1 + (r + 1) * sides
            faces += [(a + k, b + k, b + n), (a + k, b + n, a + n)]
        last = 1 + (rings - 2) * sides
        faces.append((last + k, len(points) - 1, last + n))
    _triangles(prim, points, np.array(faces))
    put(prim, "flyball:ellipsoid", "Double3", size)


def _height_field(prim: Usd.Prim, field: dict[str, Any]) -> None:
    rows, columns, size = field["rows"], field["columns"], field["size"]
    x, y = np.linspace(-size[0], size[0], columns), np.linspace(-size[1], size[1], rows)
    grid = np.stack(np.broadcast_arrays(x[None, :], y[:, None], field["data"] * size[2]), axis=-1)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)[None, :]).ravel()
    lower = np.stack([corner, corner + 1, corner + columns + 1], axis=1)
    upper = np.stack([corner, corner + columns + 1, corner + columns], axis=1)
    _triangles(prim, grid.reshape(-1, 3), np.concatenate([lower, upper]))
    put(prim, "flyball:hfield:name", "String", field["name"])
    put(prim, "flyball:hfield:shape", "IntArray", (rows, columns))
    put(prim, "flyball:hfield:size", "DoubleArray", size)


__all__ = ["Shapes"]
