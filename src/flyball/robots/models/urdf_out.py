"""URDF out.

In: a model of any source. Out: ``NAME.urdf``, its meshes in ``meshes/`` and ``NAME.urdf.flyball.json`` with what it
cannot say. The URDF is read back at once: the sidecar is the difference, and what that cannot mend either is returned.

- Bodies with several joints, or a joint that is not at the body's origin, become a chain of links without mass.
- Capsules and ellipsoids become meshes; planes and height fields, sites, tendons, actuators, sensors, cameras, lights,
  keyframes and other constraints than mimic joints live in the sidecar only.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np

from flyball.base.durable import make_folder, write_durably
from flyball.robots.models import elements, settings, sidecar
from flyball.robots.models.elements import number, numbers
from flyball.robots.models.facts import rotation
from flyball.robots.models.imported import Imported, ReadOptions
from flyball.robots.models.markup import Document, parse
from flyball.robots.models.meshes import obj
from flyball.robots.models.mjcf import file_stem
from flyball.robots.models.model import WORLD, Array, Body, Equality, Geom, Joint, Model
from flyball.robots.models.references import Files
from flyball.robots.models.urdf_in import UNLIMITED, imported_from

_POSE = 1e-6
"""Poses that differ by less [m, rad] are equal: MuJoCo keeps vertices, and so meshes' frames, in single precision."""
_EQUAL = 1e-12
"""Relative difference of other numbers: rounding of a few double precision operations."""


def write(imported: Imported, folder: Path) -> tuple[Path, list[str]]:
    """Write a model; see ``ModelFormat.write``."""
    writer = _Writer(imported)
    stem = file_stem(imported.name)
    path = folder / f"{stem}.urdf"
    text = writer.text()
    if writer.files:
        make_folder(folder / "meshes")
    for name, data in writer.files.items():
        write_durably(folder / "meshes" / name, data)
    write_durably(path, text.encode())
    extra, lost = _difference(imported, writer, path, text)
    sidecar.write_beside(path, extra)
    return path, [*writer.lost, *lost]


def _difference(imported: Imported, writer: _Writer, path: Path, text: str) -> tuple[dict[str, Any], list[str]]:
    """The sidecar that makes the written URDF say what the model says, and what it cannot mend."""
    model = imported.model
    bare: dict[str, Any] = {"flyball_sidecar": sidecar.VERSION, "join": writer.join}
    files = Files(path, ReadOptions(root=path.parent, largest_file=1 << 40))
    back = imported_from(parse(text.encode(), path.name), files, ReadOptions(base="fixed"), bare, path).model
    kinds = (
        "sites",
        "tendons",
        "actuators",
        "excludes",
        "pairs",
        "sensors",
        "cameras",
        "lights",
        "keyframes",
        "option",
    )
    extra, lost = sidecar.extras(model, kinds)
    add = extra.setdefault("add", [])
    for e in model.equalities.values():
        same = [x for x in back.equalities.values() if (x.kind, x.first, x.second) == (e.kind, e.first, e.second)]
        if not same or _changes(elements.equality(e), elements.equality(same[0])):
            spelled = elements.equality(e)
            if spelled is None:
                lost.append(f"equality {e.name}: the sidecar does not carry constraints of kind {e.kind}")
            else:
                add.append(sidecar.added("equality", spelled))
    change: dict[str, dict[str, dict[str, str]]] = {"joint": {}, "geom": {}, "body": {}}
    for j in model.joints.values():
        if j.name not in back.joints:
            add.insert(0, sidecar.added(f"body:{j.body}", elements.joint(j)))
        else:
            change["joint"][j.name] = _changes(elements.joint(j), elements.joint(back.joints[j.name]))
            change["joint"][j.name] |= elements.further("joints", model.rest["joints"][j.name])
    for g in model.geoms.values():
        spelled = elements.geom(g)
        if spelled is None:
            lost.append(f"geom {g.name}: the sidecar does not carry shapes of kind {g.kind}")
        elif g.name not in back.geoms:
            add.insert(0, sidecar.added(f"body:{g.body}", spelled))
        else:
            changes = _changes(spelled, elements.geom(back.geoms[g.name]))
            if g.kind == "mesh":
                changes.pop("mesh", None)  # named after its file
            change["geom"][g.name] = changes | elements.further("geoms", model.rest["geoms"][g.name])
    for b in model.bodies.values():
        own = elements.further("bodies", model.rest["bodies"][b.name])
        own |= {"gravcomp": number(b.gravcomp)} if b.gravcomp else {}
        change["body"][b.name] = own | ({"mocap": "true"} if b.mocap else {})
    extra["set"] = {
        kind: kept for kind, table in change.items() if (kept := {name: a for name, a in table.items() if a})
    }
    extra["join"] = writer.join
    extra["settings"] = settings.settings(parse(imported.mjcf.encode(), imported.name).root)
    lost += [f"{what}: neither URDF nor the sidecar carries them" for what in model.uncovered]
    return {k: v for k, v in extra.items() if v}, lost


def _changes(new: elements.Spelled | None, old: elements.Spelled | None) -> dict[str, str]:
    """Attributes to set so that ``old`` becomes ``new``; "" takes one away."""
    if new is None or old is None:
        return {}
    out = {}
    for key in {**old.attributes, **new.attributes}:
        a, b = new.attributes.get(key, ""), old.attributes.get(key, "")
        if a != b and not _alike(key, a, b):
            out[key] = a
    return out


def _alike(key: str, a: str, b: str) -> bool:
    try:
        x = np.array([float(w) for w in a.split()])
        y = np.array([float(w) for w in b.split()])
    except ValueError:
        return False
    if key == "pos" and not (len(x) and len(y)):  # left out where zero
        x, y = (v if len(v) else np.zeros(3) for v in (x, y))
    if key == "quat":
        x, y = (v if len(v) else np.array([1.0, 0, 0, 0]) for v in (x, y))
        return len(x) == len(y) == 4 and min(np.abs(x - y).max(), np.abs(x + y).max()) < _POSE
    if len(x) != len(y) or not len(x):
        return False
    tolerance = _POSE if key == "pos" else _EQUAL * max(1.0, float(np.abs(x).max()))
    return bool(np.abs(x - y).max() <= tolerance)


class _Writer:
    """One model as URDF."""

    def __init__(self, imported: Imported) -> None:
        self.imported, self.model = imported, imported.model
        self.velocity: dict[str, float] = dict(imported.sidecar.get("velocity_limits", {}))
        self.files: dict[str, bytes] = {}
        self.join: dict[str, list[str]] = {}
        self.lost: list[str] = []
        self.robot = Element("robot", {"name": imported.name})
        self._mesh_files: dict[str, tuple[str, str]] = {}
        self._sources = _mesh_sources(imported)

    def text(self) -> str:
        """The URDF document."""
        self._link(WORLD, None)
        mimics = {e.first: e for e in self.model.equalities.values() if _is_mimic(e, self.model)}
        for body in self.model.bodies.values():
            self._connect(body, mimics)
            self._link(body.name, body)
        return Document(self.robot, "").text()[0]

    # links ------------------------------------------------------------------------------------------------

    def _link(self, name: str, body: Body | None) -> None:
        link = SubElement(self.robot, "link", {"name": name})
        if body is not None and (body.mass > 0 or np.any(body.inertia)):
            inertial = SubElement(link, "inertial")
            SubElement(inertial, "origin", {"xyz": numbers(body.com), "rpy": "0 0 0"})
            SubElement(inertial, "mass", {"value": number(body.mass)})
            i = body.inertia
            values = {"ixx": i[0, 0], "ixy": i[0, 1], "ixz": i[0, 2], "iyy": i[1, 1], "iyz": i[1, 2], "izz": i[2, 2]}
            SubElement(inertial, "inertia", {k: number(v) for k, v in values.items()})
        for geom in self.model.geoms_of(name):
            if geom.kind in ("plane", "hfield", "sdf"):
                continue
            if not geom.collides or geom.group <= 2:  # MuJoCo's viewer shows the groups 0 to 2
                self._shape(link, geom, "visual")
            if geom.collides:
                self._shape(link, geom, "collision")

    def _shape(self, link: Element, geom: Geom, tag: str) -> None:
        shape = SubElement(link, tag, {"name": geom.name})
        SubElement(shape, "origin", {"xyz": numbers(geom.pos), "rpy": numbers(rpy(geom.quat))})
        geometry = SubElement(shape, "geometry")
        size = geom.size
        if geom.kind == "box":
            SubElement(geometry, "box", {"size": numbers(2 * size)})
        elif geom.kind == "sphere":
            SubElement(geometry, "sphere", {"radius": number(size[0])})
        elif geom.kind == "cylinder":
            SubElement(geometry, "cylinder", {"radius": number(size[0]), "length": number(2 * size[1])})
        else:
            name, scale = self._mesh(geom)
            attributes = {"filename": f"meshes/{name}"} | ({"scale": scale} if scale else {})
            SubElement(geometry, "mesh", attributes)
        if tag == "visual":
            material = SubElement(shape, "material", {"name": f"colour_{geom.name}"})
            SubElement(material, "color", {"rgba": numbers(np.round(geom.rgba, 9))})

    def _mesh(self, geom: Geom) -> tuple[str, str]:
        """File and scale of a geom's mesh; the authored file where it says all, else one made of the facts."""
        key = geom.mesh if geom.kind == "mesh" else f"{geom.kind} {numbers(geom.size)}"
        if key not in self._mesh_files:
            if geom.kind == "mesh":
                data, suffix, scale = self._sources.get(geom.mesh, (b"", "", ""))
                if not data:
                    mesh = self.model.meshes[geom.mesh]
                    data, suffix = obj(mesh.vertices, mesh.faces), ".obj"
                stem = file_stem(geom.mesh)
            else:
                data, suffix, scale, stem = obj(*_round_shape(geom)), ".obj", "", file_stem(geom.name)
            name, n = f"{stem}{suffix}", 2
            while name.lower() in {x.lower() for x in self.files}:
                name, n = f"{stem}_{n}{suffix}", n + 1
            self.files[name] = data
            self._mesh_files[key] = name, scale
        return self._mesh_files[key]

    # joints -----------------------------------------------------------------------------------------------

    def _connect(self, body: Body, mimics: dict[str, Equality]) -> None:
        """The joint, or chain of joints, between a body and its parent."""
        own = self.model.joints_of(body.name)
        moving = [j for j in own if j.kind in ("hinge", "slide")]
        free = [j for j in own if j.kind == "free"]
        r = rotation(body.quat)
        if free:
            self._joint(free[0].name, "floating", body.parent, body.name, body.pos, body.quat)
            return
        if not moving:
            self._joint(f"{body.parent}_to_{body.name}", "fixed", body.parent, body.name, body.pos, body.quat)
            return
        parent, pos, quat, at = body.parent, body.pos + r @ moving[0].anchor, body.quat, moving[0].anchor
        links = []
        for k, j in enumerate(moving):
            last = k == len(moving) - 1 and not np.any(j.anchor)
            child = body.name if last else f"{body.name}__{j.name}"
            e = self._joint(j.name, self._kind(j), parent, child, pos, quat)
            self._moving(e, j, mimics.get(j.name))
            if last:
                break
            links.append(child)
            SubElement(self.robot, "link", {"name": child})
            following = moving[k + 1].anchor if k + 1 < len(moving) else np.zeros(3)
            parent, pos, quat, at = child, following - at, np.array([1.0, 0, 0, 0]), following
        if np.any(moving[-1].anchor):
            self._joint(f"{body.name}__frame", "fixed", parent, body.name, pos, quat)
        if links:
            self.join[body.name] = links

    def _joint(self, name: str, kind: str, parent: str, child: str, pos: Array, quat: Array) -> Element:
        joint = SubElement(self.robot, "joint", {"name": name, "type": kind})
        SubElement(joint, "origin", {"xyz": numbers(pos), "rpy": numbers(rpy(quat))})
        SubElement(joint, "parent", {"link": parent})
        SubElement(joint, "child", {"link": child})
        return joint

    def _kind(self, j: Joint) -> str:
        if j.kind == "slide":
            return "prismatic"
        return "revolute" if np.isfinite(j.range).all() else "continuous"

    def _moving(self, e: Element, j: Joint, mimic: Equality | None) -> None:
        SubElement(e, "axis", {"xyz": numbers(j.axis)})
        limit = {"effort": number(self._effort(j)), "velocity": number(self.velocity.get(j.name, UNLIMITED))}
        low, high = j.range - j.ref if np.isfinite(j.range).all() else (-UNLIMITED, UNLIMITED)
        if self._kind(j) != "continuous":
            limit |= {"lower": number(low), "upper": number(high)}
        SubElement(e, "limit", limit)
        SubElement(e, "dynamics", {"damping": number(j.damping), "friction": number(j.frictionloss)})
        if mimic is not None:
            offset, multiplier = mimic.data[:2]
            attributes = {"joint": mimic.second, "multiplier": number(multiplier), "offset": number(offset)}
            SubElement(e, "mimic", attributes)

    def _effort(self, j: Joint) -> float:
        """The joint's own limit, else what its actuators can do together."""
        if np.isfinite(j.effort).all():
            return float(np.abs(j.effort).max())
        drives = [u for u in self.model.actuators.values() if u.target == j.name and u.target_kind == "joint"]
        strength = sum(float(np.abs(u.forcerange).max() * abs(u.gear[0])) for u in drives)
        return strength if drives and math.isfinite(strength) and strength > 0 else UNLIMITED


def _is_mimic(e: Equality, model: Model) -> bool:
    """What a mimic joint can say: an active linear relation of two joints with one degree of freedom."""
    if e.kind != "joint" or not e.second or not e.active or np.any(e.data[2:5]):
        return False
    return all(model.joints[name].kind in ("hinge", "slide") for name in (e.first, e.second))


def _mesh_sources(imported: Imported) -> dict[str, tuple[bytes, str, str]]:
    """Mesh -> content, suffix and scale of its authored file, where that says all there is to it."""
    import mujoco

    out = {}
    for mesh in mujoco.MjSpec.from_string(imported.mjcf, assets=dict(imported.assets)).meshes:
        suffix = Path(mesh.file).suffix.lower()
        plain = not np.any(mesh.refpos) and np.array_equal(mesh.refquat, [1, 0, 0, 0])
        if mesh.file in imported.assets and suffix in (".stl", ".obj") and plain:
            scale = "" if np.array_equal(mesh.scale, [1, 1, 1]) else numbers(mesh.scale)
            out[mesh.name] = (imported.assets[mesh.file], suffix, scale)
    return out


def _round_shape(geom: Geom) -> tuple[Array, np.ndarray]:
    """A capsule or an ellipsoid as a closed mesh of 16 by 16 quads; within 2 % of its size."""
    n = 16
    polar, around = np.linspace(0, np.pi, n + 1)[1:-1], np.arange(n) * 2 * np.pi / n
    rings = np.array([[np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)] for p in polar for a in around])
    unit = np.concatenate([[[0, 0, 1]], rings, [[0, 0, -1]]])
    if geom.kind == "capsule":
        vertices = unit * geom.size[0] + np.outer(np.sign(np.round(unit[:, 2], 9)), [0, 0, geom.size[1]])
    else:
        vertices = unit * geom.size
    faces, last = [], len(unit) - 1
    for a in range(n):
        b = (a + 1) % n
        faces += [(0, 1 + a, 1 + b), (last, last - n + b, last - n + a)]
        for ring in range(len(polar) - 1):
            k = 1 + ring * n
            faces += [(k + a, k + n + a, k + n + b), (k + a, k + n + b, k + b)]
    return vertices, np.array(faces)


def rpy(quat: Array) -> Array:
    """Roll, pitch and yaw about fixed axes [rad] of a quaternion wxyz."""
    if np.array_equal(quat, [1, 0, 0, 0]):
        return np.zeros(3)
    r = rotation(quat)
    pitch = math.atan2(-r[2, 0], math.hypot(r[0, 0], r[1, 0]))
    if math.hypot(r[0, 0], r[1, 0]) < 1e-9:  # straight up or down: roll and yaw are one
        return np.array([math.atan2(-r[1, 2], r[1, 1]), pitch, 0.0])
    return np.array([math.atan2(r[2, 1], r[2, 2]), pitch, math.atan2(r[1, 0], r[0, 0])])
