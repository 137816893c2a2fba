"""URDF in.

In: a URDF file with its meshes, and the sidecar beside it. Out: MJCF made of the same numbers. Conventions where URDF
leaves room (http://wiki.ros.org/urdf/XML):

- The root link is a body of its own, with its mass, fixed to the world or floating as told (``ReadOptions.base``);
  fixed when nothing is told, and noted. A root link called ``world`` is the world.
- A link without inertia has no mass; shapes never make any. Collision meshes act as their convex hulls, as MuJoCo has
  it. Links that a joint connects do not collide, also where the parent is fixed to the world.
- A limit of effort or speed that is 0, or 1e9 and more, is none. Mimic joints become equality constraints. Speed limits
  are kept in the sidecar, for MJCF has none.
- A visual and a collision shape of the same link, name, pose and geometry are one geom.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from flyball.base import InputError, Unsupported
from flyball.robots.models import sidecar
from flyball.robots.models.elements import number, numbers
from flyball.robots.models.facts import facts, multiply, rotation
from flyball.robots.models.imported import Imported, ReadOptions
from flyball.robots.models.markup import Document, parse
from flyball.robots.models.meshes import Prepared, prepare
from flyball.robots.models.mjcf import HUGE, compile_document
from flyball.robots.models.model import WORLD, Array
from flyball.robots.models.plausibility import suspicions
from flyball.robots.models.references import Files, licence_near

UNLIMITED = 1e9
"""What a writer puts where URDF demands a limit and there is none."""
ROUNDED = 0.01
"""Share by which a principal inertia may exceed the sum of the others and still count as rounded: published models
give three digits."""
_LEAST = 1e-15
"""What MuJoCo takes for no inertia [kg m^2]."""
_LONGEST = 400
"""Links in a row; MuJoCo's XML reader takes 500 levels."""
_KINDS = {
    "revolute": "hinge",
    "continuous": "hinge",
    "prismatic": "slide",
    "floating": "free",
    "fixed": "",
    "planar": "",
}


class UrdfFormat:
    """URDF; see ``flyball.robots.models.ModelFormat``."""

    name = "urdf"
    suffixes: tuple[str, ...] = (".urdf",)

    def read(self, path: Path, options: ReadOptions) -> Imported:
        """Read a model; see ``ModelFormat.read``."""
        files = Files(path, options)
        source = parse(files.read(path, path.name), path.name)
        return imported_from(source, files, options, sidecar.read_beside(path), path)

    def write(self, imported: Imported, folder: Path) -> tuple[Path, list[str]]:
        """Write a model with meshes and sidecar; see ``ModelFormat.write``."""
        from flyball.robots.models.urdf_out import write

        return write(imported, folder)


def imported_from(
    source: Document, files: Files, options: ReadOptions, extra: Mapping[str, Any], path: Path
) -> Imported:
    """A parsed URDF document with a sidecar's content, as a model."""
    reader = _Reader(source, files, options, extra)
    document = reader.convert()
    losses = [*reader.losses, *sidecar.apply(document, extra)]
    _drop_unused_meshes(document, files)
    text, compiled, _ = compile_document(document, files.assets)
    model = facts(compiled.model)
    kept = {**extra, "velocity_limits": reader.velocity} if reader.velocity else extra
    return Imported(
        name=source.root.get("name") or path.stem,
        mjcf=text,
        assets=files.assets,
        model=model,
        sidecar=dict(kept),
        notes=(*reader.notes, *suspicions(model)),
        losses=tuple(losses),
        format="urdf",
        source=path,
        licence=licence_near(path, source.comments, files.root),
    )


def _drop_unused_meshes(document: Document, files: Files) -> None:
    """A sidecar may have turned a mesh back into the primitive it stands for."""
    used = {g.get("mesh") for g in document.root.iter("geom")}
    section = document.root.find("asset")
    for mesh in list(section) if section is not None else []:
        if mesh.get("name") not in used and section is not None:
            section.remove(mesh)
            files.assets.pop(mesh.get("file", ""), None)
    if section is not None and not len(section):
        document.root.remove(section)


@dataclass
class _Joint:
    """A URDF joint, its numbers read."""

    element: Element
    name: str
    kind: str
    parent: str
    child: str
    pos: Array
    quat: Array


@dataclass
class _Reader:
    """One conversion; what it assumes and drops is collected on the way."""

    source: Document
    files: Files
    options: ReadOptions
    extra: Mapping[str, Any]
    notes: list[str] = field(default_factory=list)
    losses: list[str] = field(default_factory=list)
    velocity: dict[str, float] = field(default_factory=dict)

    def convert(self) -> Document:
        """The MJCF document."""
        root = self.source.root
        if root.tag != "robot":
            raise InputError(f"the root element is <{root.tag[:60]}>", where=self.source.where, allowed="<robot>")
        self.links = self._named("link")
        self.joints = [self._joint(e) for e in self._named("joint").values()]
        self.materials = {e.get("name"): e for e in root.findall("material") if e.get("name")}
        self._settings()
        self._say_ignored()
        self.below: dict[str, list[_Joint]] = {name: [] for name in self.links}
        for j in self.joints:
            self.below[j.parent].append(j)
        top = self._root()
        self._used_names = Counter(name for x in self.links.values() for name in {s.get("name") for s in _shapes(x)})
        self.document = document = Document.new("mujoco", {"model": root.get("name") or "robot"}, self.source)
        document.add(document.root, "compiler", {"angle": "radian", "inertiafromgeom": "false"}, root)
        self.asset = document.add(document.root, "asset", {}, root)
        self._meshes: dict[tuple[str, str], str] = {}
        world = document.add(document.root, "worldbody", {}, root)
        self.equalities: list[tuple[Element, dict[str, str]]] = []
        self._tree(top, world)
        if self.equalities:
            section = document.add(document.root, "equality", {}, root)
            for like, attributes in self.equalities:
                document.add(section, "joint", attributes, like)
        if not self.extra and self._static:
            self._filter_neighbours(top)
        if not len(self.asset):
            document.root.remove(self.asset)
        return document

    # structure --------------------------------------------------------------------------------------------

    def _named(self, tag: str) -> dict[str, Element]:
        out: dict[str, Element] = {}
        for e in self.source.root.findall(tag):
            name = e.get("name")
            if not name:
                raise InputError(f"a {tag} without a name", where=self.source.at(e))
            if name in out:
                raise InputError(f"two {tag}s are called {name!r}", where=self.source.at(e))
            out[name] = e
        if tag == "link" and not out:
            raise InputError("no links", where=self.source.where, allowed="at least one <link>")
        return out

    def _joint(self, e: Element) -> _Joint:
        kind = e.get("type", "")
        if kind not in _KINDS:
            raise InputError(f"joint type {kind!r}", where=self.source.at(e, "type"), allowed=", ".join(_KINDS))
        ends = []
        for tag in ("parent", "child"):
            end = e.find(tag)
            link = None if end is None else end.get("link")
            if link not in self.links:
                raise InputError(f"its {tag} link {link!r} does not exist", where=self.source.at(e))
            ends.append(str(link))
        pos, quat = self._origin(e)
        return _Joint(e, str(e.get("name")), kind, ends[0], ends[1], pos, quat)

    def _root(self) -> str:
        """The one link without a parent.

        Raises:
          InputError: naming the joints of a circle, the second parent, or the second root.
        """
        above: dict[str, _Joint] = {}
        for j in self.joints:
            if j.child in above:
                both = f"{above[j.child].name}, {j.name}"
                raise InputError(f"link {j.child!r} has two parents (joints {both})", where=self.source.at(j.element))
            above[j.child] = j
        roots = [name for name in self.links if name not in above]
        reached, todo = {name: 1 for name in roots}, list(roots)
        while todo:
            name = todo.pop()
            for j in self.below[name]:
                reached[j.child] = reached[name] + 1
                if reached[j.child] > _LONGEST:
                    raise InputError("too many links in a row", where=self.source.at(j.element), allowed=str(_LONGEST))
                todo.append(j.child)
        lost = [name for name in self.links if name not in reached]
        if lost:
            name, circle = lost[0], [lost[0]]
            while (name := above[name].parent) not in circle:
                circle.append(name)
            names = " -> ".join([*reversed(circle[circle.index(name) :]), circle[-1]][:6])
            raise InputError(f"links form a circle: {names}", where=self.source.at(above[lost[0]].element))
        if len(roots) > 1:
            raise InputError(
                f"{len(roots)} links have no parent: {', '.join(roots[:4])}",
                where=self.source.at(self.links[roots[1]]),
                allowed="one root link",
            )
        return roots[0]

    def _tree(self, top: str, world: Element) -> None:
        """Bodies from the root outwards."""
        self._static = True
        if top == WORLD and not self.links[top].findall("inertial"):
            self._shapes(top, world)
            if self.options.base is not None:
                self.notes.append("the base stays as the file has it: its root link is the world")
            todo = [(j, world) for j in reversed(self.below[top])]
        else:
            base = self.options.base or "fixed"
            if self.options.base is None:
                self.notes.append(
                    "URDF does not say whether the base is fixed: taken as fixed to the world (else: --base floating)"
                )
            body = self._body(top, world, np.zeros(3), np.array([1.0, 0, 0, 0]))
            self._static = base == "fixed"
            if not self._static:
                self.document.add(body, "joint", {"name": f"{top}_free", "type": "free"}, self.links[top])
            self._fill(top, body)
            todo = [(j, body) for j in reversed(self.below[top])]
        join = self.extra.get("join", {})
        while todo:
            j, parent = todo.pop()
            chain = self._chain(j, join)
            last = chain[-1]
            pos, quat, frames = _joined(chain)
            body = self._body(last.child, parent, pos, quat)
            for part, (anchor, turn) in zip(chain, frames, strict=True):
                self._degrees(part, body, anchor, turn, parent)
            self._fill(last.child, body)
            todo += [(k, body) for k in reversed(self.below[last.child])]

    def _chain(self, j: _Joint, join: Mapping[str, list[str]]) -> list[_Joint]:
        """The joints down to a body that has them all: by a sidecar's word, or past moving links without mass."""
        for body, links in join.items():
            if j.child not in links:
                continue
            chain = [j]
            while chain[-1].child in links and len(self.below[chain[-1].child]) == 1:
                chain.append(self.below[chain[-1].child][0])
            if chain[-1].child == body:
                return chain
            self.losses.append(f"the sidecar joins {', '.join(links)} into {body}, which the links do not fit")
        chain = [j]
        while self._hollow(chain[-1]):
            following = self.below[chain[-1].child][0]
            self.notes.append(f"link {chain[-1].child} has no mass: joint {chain[-1].name} moves {following.child}")
            chain.append(following)
        return chain

    def _hollow(self, j: _Joint) -> bool:
        """Whether a joint moves a link that is nothing but a place between two joints, which MuJoCo cannot simulate."""
        link, below = self.links[j.child], self.below[j.child]
        mass = link.find("inertial/mass")
        empty = mass is None or self._number(mass, "value", 0.0) == 0
        moving = ("revolute", "continuous", "prismatic", "planar")
        if not empty or _shapes(link) or len(below) != 1:
            return False
        return j.kind in moving and below[0].kind in moving

    def _body(self, link: str, parent: Element, pos: Array, quat: Array) -> Element:
        attributes = {"name": link}
        if np.any(pos):
            attributes["pos"] = numbers(pos)
        if not np.array_equal(quat, [1, 0, 0, 0]):
            attributes["quat"] = numbers(quat)
        return self.document.add(parent, "body", attributes, self.links[link])

    def _fill(self, link: str, body: Element) -> None:
        self._inertial(link, body)
        self._shapes(link, body)

    # joints -----------------------------------------------------------------------------------------------

    def _degrees(self, j: _Joint, body: Element, anchor: Array, turn: Array, parent: Element) -> None:
        """The MJCF joints of a URDF joint, whose axis ``turn`` brings into the body's frame."""
        if j.kind == "fixed":
            return
        like = j.element
        if j.kind == "floating":
            if parent.tag != "worldbody":
                where = self.source.at(like, "type")
                raise Unsupported("a floating joint below a body", where=where, allowed="below the link 'world'")
            self.document.add(body, "joint", {"name": j.name, "type": "free"}, like)
            return
        axis_element = like.find("axis")
        axis = np.array([1.0, 0, 0]) if axis_element is None else self._vector(axis_element, "xyz", 3, "1 0 0")
        length = float(np.linalg.norm(axis))
        if length < 1e-9:
            raise InputError("the axis has no direction", where=self.source.at(like))
        axis = turn @ axis
        if j.kind == "planar":
            self.notes.append(f"planar joint {j.name}: two slides and a hinge, {j.name}_x, {j.name}_y, {j.name}_yaw")
            one = np.cross(axis, [0, 0, 1] if abs(axis[2]) < 0.9 * length else [0, 1, 0])
            first = one / np.linalg.norm(one)
            for name, kind, way in (
                ("x", "slide", first),
                ("y", "slide", np.cross(axis / length, first)),
                ("yaw", "hinge", axis),
            ):
                attributes = {"name": f"{j.name}_{name}", "type": kind, "axis": numbers(way)}
                if np.any(anchor):
                    attributes["pos"] = numbers(anchor)
                self.document.add(body, "joint", attributes, like)
            return
        attributes = {"name": j.name, "type": _KINDS[j.kind], "axis": numbers(axis)}
        if np.any(anchor):
            attributes["pos"] = numbers(anchor)
        self._limits(j, attributes)
        dynamics = like.find("dynamics")
        if dynamics is not None:
            for key, name in (("damping", "damping"), ("friction", "frictionloss")):
                value = self._number(dynamics, key, 0.0)
                if value < 0:
                    raise InputError(f"{key} = {value:g}", where=self.source.at(dynamics, key), allowed=">= 0")
                if value:
                    attributes[name] = number(value)
        self.document.add(body, "joint", attributes, like)
        self._mimic(j)

    def _limits(self, j: _Joint, attributes: dict[str, str]) -> None:
        limit = j.element.find("limit")
        if limit is None:
            if j.kind != "continuous":
                self.notes.append(f"joint {j.name} states no limits: taken as unlimited")
            return
        low, high = (self._number(limit, key, 0.0, np.inf) for key in ("lower", "upper"))
        if low > high:
            raise InputError(f"lower {low:g} > upper {high:g}", where=self.source.at(limit))
        if j.kind != "continuous":
            if low == high:
                self.notes.append(f"joint {j.name}: lower = upper = {low:g}: taken as unlimited")
            elif max(-low, high) < UNLIMITED:
                attributes["range"] = numbers((low, high))
        effort, velocity = (self._number(limit, key, 0.0, np.inf) for key in ("effort", "velocity"))
        if 0 < abs(effort) < UNLIMITED:
            attributes["actuatorfrcrange"] = numbers((-abs(effort), abs(effort)))
        if 0 < abs(velocity) < UNLIMITED:
            self.velocity[j.name] = abs(velocity)

    def _mimic(self, j: _Joint) -> None:
        mimic = j.element.find("mimic")
        if mimic is None:
            return
        master = mimic.get("joint", "")
        kinds = {k.name: k.kind for k in self.joints}
        if kinds.get(master) not in ("revolute", "continuous", "prismatic") or master == j.name:
            raise InputError(
                f"mimics {master!r}, which is no other movable joint", where=self.source.at(mimic, "joint")
            )
        told = {
            (e["attributes"].get("joint1"), e["attributes"].get("joint2"))
            for e in self.extra.get("add", [])
            if e["in"] == "equality" and e.get("attributes")
        }
        if (j.name, master) in told:  # the sidecar says it in full
            return
        factors = (self._number(mimic, "offset", 0.0), self._number(mimic, "multiplier", 1.0), 0, 0, 0)
        self.equalities.append((mimic, {"joint1": j.name, "joint2": master, "polycoef": numbers(factors)}))

    def _filter_neighbours(self, top: str) -> None:
        """MuJoCo lets a body and its parent pass through each other, unless the parent is fixed to the world."""

        def rigid(link: str) -> list[str]:
            out = [link]
            for name in out:
                out += [j.child for j in self.below[name] if j.kind == "fixed"]
            return [name for name in out if name != WORLD and self.links[name].find("collision") is not None]

        fixed, moving, todo = rigid(top), [], [top]
        while todo:
            for j in self.below[todo.pop()]:
                if j.kind == "fixed":
                    todo.append(j.child)
                elif j.kind != "floating":
                    moving.append(j)
        section = self.document.add(self.document.root, "contact", {}, self.source.root)
        for j in moving:
            for child in rigid(j.child):
                for parent in fixed:
                    self.document.add(section, "exclude", {"body1": parent, "body2": child}, j.element)
        if not len(section):
            self.document.root.remove(section)

    # bodies -----------------------------------------------------------------------------------------------

    def _inertial(self, link: str, body: Element) -> None:
        e = self.links[link].find("inertial")
        if e is None:
            return
        mass_element, inertia_element = e.find("mass"), e.find("inertia")
        if mass_element is None:
            raise InputError("an inertial without a mass", where=self.source.at(e))
        mass = self._number(mass_element, "value", 0.0)
        if mass < 0:
            raise InputError(f"mass = {mass:g} kg", where=self.source.at(mass_element, "value"), allowed=">= 0")
        keys = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
        i = [0.0] * 6 if inertia_element is None else [self._number(inertia_element, k, 0.0) for k in keys]
        pos, quat = self._origin(e)
        attributes = {"pos": numbers(pos), "mass": number(mass)}
        if max(abs(x) for x in i) < 2 * _LEAST:
            if mass == 0:
                return
            attributes["diaginertia"] = "0 0 0"
        else:
            full = np.array([[i[0], i[3], i[4]], [i[3], i[1], i[5]], [i[4], i[5], i[2]]])
            full = self._physical(full, link, inertia_element if inertia_element is not None else e)
            r = rotation(quat)
            turned = full if np.array_equal(quat, [1, 0, 0, 0]) else r @ full @ r.T
            flat = [turned[0, 0], turned[1, 1], turned[2, 2], turned[0, 1], turned[0, 2], turned[1, 2]]
            attributes["fullinertia" if any(flat[3:]) else "diaginertia"] = numbers(flat if any(flat[3:]) else flat[:3])
        self.document.add(body, "inertial", attributes, e)

    def _physical(self, full: Array, link: str, e: Element) -> Array:
        """An inertia that a body can have; one that is off by rounding is mended and noted, others when asked for."""
        values, axes = np.linalg.eigh(full)
        excess = float(values[2] - values[0] - values[1])
        if values[0] > _LEAST and excess <= 0:
            return full
        text = " ".join(f"{v:.4g}" for v in values)
        if not self.options.mend and (values[0] <= _LEAST or excess > ROUNDED * values[2]):
            raise InputError(
                f"no body has the principal inertias {text} kg m^2",
                where=self.source.at(e),
                allowed="> 0, and each at most the others' sum",
                run_next="--mend makes it just possible",
            )
        least = max(1e-3 * float(np.abs(values).max()), 2 * _LEAST)  # a rod a thirtieth as thick as long
        mended = np.maximum(values, least)
        mended[:2] += 0.5 * max(float(mended[2] - mended[0] - mended[1]), 0.0) * (1 + 1e-6)
        now = " ".join(f"{v:.4g}" for v in mended)
        said = f"link {link}: principal inertias {text} kg m^2, which no body has, became {now}"
        (self.notes if excess <= ROUNDED * values[2] and values[0] > _LEAST else self.losses).append(said)
        return np.asarray(axes @ np.diag(mended) @ axes.T)

    def _shapes(self, link: str, body: Element) -> None:
        """Visual and collision shapes as geoms."""
        element = self.links[link]
        seen = any(True for _ in element.iter("visual"))
        touching = {self._signature(c): c for c in element.findall("collision") if c.get("name")}
        done: set[tuple[Any, ...]] = set()
        for shape in _shapes(element):
            visual = shape.tag == "visual"
            signature = self._signature(shape)
            both = (
                bool(shape.get("name"))
                and signature in touching
                and any(self._signature(v) == signature for v in element.findall("visual"))
            )
            if both and signature in done:
                continue
            done.add(signature)
            attributes: dict[str, str] = {}
            self._name(shape, link, attributes)
            if not self._geometry(shape, attributes, visual and not both):
                continue
            pos, quat = self._origin(shape)
            if np.any(pos):
                attributes["pos"] = numbers(pos)
            if not np.array_equal(quat, [1, 0, 0, 0]):
                attributes["quat"] = numbers(quat)
            if visual and not both:
                attributes |= {"contype": "0", "conaffinity": "0", "group": "2"}
            elif seen and not both:
                attributes["group"] = "3"
            colour = self._colour(shape)
            if colour:
                attributes["rgba"] = colour
            self.document.add(body, "geom", attributes, shape)

    def _signature(self, shape: Element) -> tuple[Any, ...]:
        geometry = shape.find("geometry")
        inner = () if geometry is None or not len(geometry) else (geometry[0].tag, *sorted(geometry[0].attrib.items()))
        pos, quat = self._origin(shape)
        return (shape.get("name"), *pos, *quat, inner)

    def _name(self, shape: Element, link: str, attributes: dict[str, str]) -> None:
        """MuJoCo wants a geom's name once in a model; URDF does not."""
        name = shape.get("name")
        if name and self._used_names[name] == 1:
            twins = [s for s in _shapes(self.links[link]) if s.get("name") == name]
            if len(twins) == 1 or len({self._signature(s) for s in twins}) == 1:
                attributes["name"] = name

    def _geometry(self, shape: Element, attributes: dict[str, str], only_seen: bool) -> bool:
        """Type and size of a shape; False when it is dropped, which is said."""
        geometry = shape.find("geometry")
        inner = None if geometry is None else next(iter(geometry), None)
        if inner is None:
            raise InputError("a shape without a geometry", where=self.source.at(shape))
        if inner.tag == "mesh":
            return self._mesh(inner, attributes, only_seen)
        sizes = {
            "box": lambda: self._vector(inner, "size", 3) / 2,
            "sphere": lambda: [self._number(inner, "radius")],
            "cylinder": lambda: [self._number(inner, "radius"), self._number(inner, "length") / 2],
            "capsule": lambda: [self._number(inner, "radius"), self._number(inner, "length") / 2],
        }
        if inner.tag not in sizes:
            if only_seen:
                self.losses.append(f"{self.source.at(inner)}: visual shape")
                return False
            allowed = ", ".join([*sizes, "mesh"])
            raise Unsupported(f"geometry <{inner.tag}>", where=self.source.at(inner), allowed=allowed)
        size = np.array(sizes[inner.tag](), float)
        if not np.all(size > 0) and only_seen:
            self.losses.append(f"{self.source.at(inner)}: visual shape of size {numbers(size)}")
            return False
        if not np.all(size > 0):
            raise InputError(f"size {numbers(size)}", where=self.source.at(inner), allowed="> 0")
        attributes |= {"type": inner.tag, "size": numbers(size)}
        return True

    def _mesh(self, e: Element, attributes: dict[str, str], only_seen: bool) -> bool:
        where = self.source.at(e, "filename")
        reference = e.get("filename", "")
        if self._strip:
            reference = reference.replace("\\", "/").rsplit("/", 1)[-1]
        path = self.files.find(reference, self._folders, where)
        scale = self._vector(e, "scale", 3, "1 1 1")
        if not np.all(scale):
            raise InputError(f"scale {numbers(scale)}", where=self.source.at(e, "scale"), allowed="not 0")
        variant = "" if np.array_equal(scale, [1, 1, 1]) else numbers(scale)
        key = (str(path), variant)
        if key not in self._meshes:
            prepared = self._prepared(path, where, only_seen)
            if prepared is None:
                return False
            file = self.files.keep(path, where, prepared.suffix, prepared.data)
            taken = {m.get("name") for m in self.asset}
            stem, n = Path(file).stem, 2
            name = stem
            while name in taken:
                name, n = f"{stem}_{n}", n + 1
            mesh = {"name": name, "file": file} | ({"scale": variant} if variant else {})
            # flat visual meshes have no volume; no mass is ever taken from a mesh here
            self.document.add(self.asset, "mesh", mesh | ({"inertia": "shell"} if only_seen else {}), e)
            self._meshes[key] = name
            self._mesh_colour[name] = "" if prepared.rgba is None else numbers(np.round(prepared.rgba, 6))
        elif not only_seen:
            for m in self.asset:
                if m.get("name") == self._meshes[key]:
                    m.attrib.pop("inertia", None)
        attributes |= {"type": "mesh", "mesh": self._meshes[key]}
        return True

    def _prepared(self, path: Path, where: str, only_seen: bool) -> Prepared | None:
        try:
            prepared = prepare(self.files.read(path, where), path.suffix, where)
        except Unsupported:
            if not only_seen:
                raise
            self.losses.append(f"{where}: visual mesh {path.name}: only STL, OBJ and DAE are read")
            return None
        self.notes += [f"{path.name}: {text}" for text in prepared.notes]
        self.losses += [f"{path.name}: {text}" for text in prepared.losses]
        return prepared

    def _colour(self, shape: Element) -> str:
        material = shape.find("material")
        if material is not None and material.find("color") is None and material.get("name") in self.materials:
            material = self.materials[material.get("name")]
        if material is not None:
            if material.find("texture") is not None:
                self.losses.append(f"{self.source.at(shape)}: its texture")
            colour = material.find("color")
            if colour is not None:
                return numbers(np.clip(self._vector(colour, "rgba", 4), 0, 1))
        mesh = shape.find("geometry/mesh")
        if mesh is not None:
            for (path, _), name in self._meshes.items():
                if Path(path).name == mesh.get("filename", "").replace("\\", "/").rsplit("/", 1)[-1]:
                    return self._mesh_colour.get(name, "")
        return ""

    # what else stands in the file -------------------------------------------------------------------------

    def _settings(self) -> None:
        """MuJoCo's own extension of URDF: where meshes lie."""
        compiler: dict[str, str] = {}
        for e in self.source.root.iterfind("mujoco/compiler"):
            compiler |= e.attrib
        self._strip = compiler.pop("strippath", "false") == "true"
        meshes = self.files.folder / compiler.pop("meshdir", compiler.pop("assetdir", ""))
        self._folders = [meshes, self.files.folder]
        self._mesh_colour: dict[str, str] = {}
        rest = sorted(set(compiler) - {"discardvisual", "fusestatic", "angle", "texturedir", "assetdir"})
        if rest:
            self.losses.append(f"MuJoCo compiler settings in the file: {', '.join(rest)}")

    def _say_ignored(self) -> None:
        root = self.source.root
        counts = Counter(e.tag for e in root if e.tag not in ("link", "joint", "material"))
        for e in root.findall("joint"):
            counts.update(x.tag for x in e if x.tag in ("safety_controller", "calibration"))
        if counts.pop("mujoco", 0) and any(len(m) > len(m.findall("compiler")) for m in root.findall("mujoco")):
            counts["mujoco"] = 1
        self.losses += [f"{n} <{tag[:60]}> element{'s' * (n > 1)}" for tag, n in sorted(counts.items())]

    # numbers ----------------------------------------------------------------------------------------------

    def _number(self, e: Element, key: str, default: float | None = None, largest: float = HUGE) -> float:
        text = e.get(key)
        if text is None:
            if default is None:
                raise InputError(f"no {key}", where=self.source.at(e))
            return default
        return float(self._words(e, key, text, 1, largest)[0])

    def _vector(self, e: Element, key: str, n: int, default: str | None = None) -> Array:
        text = e.get(key, default)
        if text is None:
            raise InputError(f"no {key}", where=self.source.at(e))
        return self._words(e, key, text, n)

    def _words(self, e: Element, key: str, text: str, n: int, largest: float = HUGE) -> Array:
        try:
            values = np.array([float(word) for word in text.split()])
        except ValueError:
            values = np.zeros(0)
        if len(values) != n or not np.isfinite(values).all():
            what = "a number" if n == 1 else f"{n} numbers"
            raise InputError(f"{key}={text[:60]!r}", where=self.source.at(e, key), allowed=what)
        if np.abs(values).max() > largest:
            raise InputError(f"{key}={text[:60]!r}", where=self.source.at(e, key), allowed=f"up to {largest:g}")
        return values

    def _origin(self, e: Element) -> tuple[Array, Array]:
        origin = e.find("origin")
        if origin is None:
            return np.zeros(3), np.array([1.0, 0, 0, 0])
        half = self._vector(origin, "rpy", 3, "0 0 0") / 2
        quat = np.array([1.0, 0, 0, 0])
        for k in (2, 1, 0):  # about fixed axes: first roll, then pitch, then yaw
            turn = np.zeros(4)
            turn[0], turn[1 + k] = np.cos(half[k]), np.sin(half[k])
            quat = multiply(quat, turn)
        return self._vector(origin, "xyz", 3, "0 0 0"), quat if np.any(half) else np.array([1.0, 0, 0, 0])


def _shapes(link: Element) -> list[Element]:
    return [*link.findall("visual"), *link.findall("collision")]


def _joined(chain: list[_Joint]) -> tuple[Array, Array, list[tuple[Array, Array]]]:
    """Pose of the body at the end of a chain of joints, and each joint's anchor and turn into the body's frame."""
    pos, r, quat = np.zeros(3), np.eye(3), np.array([1.0, 0, 0, 0])  # the body in the frame of the joint at hand
    frames: list[tuple[Array, Array]] = []
    for j in reversed(chain):
        anchor = -r.T @ pos
        frames.insert(0, (np.where(np.abs(anchor) < 1e-15, 0.0, anchor), r.T.copy()))
        pos = j.pos + rotation(j.quat) @ pos
        r, quat = rotation(j.quat) @ r, multiply(j.quat, quat)
    return pos, quat, frames
