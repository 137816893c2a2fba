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
from flyball.robots import licences
from flyball.robots.models import sidecar
from flyball.robots.models.elements import number, numbers
from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported, ReadOptions
from flyball.robots.models.markup import Document
from flyball.robots.models.mjcf import compile_document
from flyball.robots.models.model import WORLD, Array
from flyball.robots.models.plausibility import suspicions
from flyball.robots.models.references import Files
from flyball.robots.models.urdf_joints import Joint, joined
from flyball.robots.models.urdf_links import Links, shapes_of
from flyball.robots.models.urdf_numbers import Numbers

UNLIMITED = 1e9
"""What a writer puts where URDF demands a limit and there is none."""
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
        notes=(*reader.notes, *compiled.notes, *suspicions(model)),
        losses=tuple(losses),
        mended=tuple(reader.mended),
        format="urdf",
        source=path,
        licence=licences.near(path, source.comments, files.root),
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
        self._numbers = Numbers(self.source)
        self.links = self._named("link")
        self.joints = [self._joint(e) for e in self._named("joint").values()]
        self._say_ignored()
        self.below: dict[str, list[Joint]] = {name: [] for name in self.links}
        for j in self.joints:
            self.below[j.parent].append(j)
        top = self._root()
        self.document = document = Document.new("mujoco", {"model": root.get("name") or "robot"}, self.source)
        document.add(document.root, "compiler", {"angle": "radian", "inertiafromgeom": "false"}, root)
        asset = document.add(document.root, "asset", {}, root)
        self._contents = Links(
            self.source, document, asset, self.links, self.files, self.options, self.notes, self.losses
        )
        world = document.add(document.root, "worldbody", {}, root)
        self.equalities: list[tuple[Element, dict[str, str]]] = []
        self._tree(top, world)
        if self.equalities:
            section = document.add(document.root, "equality", {}, root)
            for like, attributes in self.equalities:
                document.add(section, "joint", attributes, like)
        if not self.extra and self._static:
            self._filter_neighbours(top)
        if not len(asset):
            document.root.remove(asset)
        return document

    @property
    def mended(self) -> list[str]:
        """Inertias that were changed, in words."""
        return self._contents.mended

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

    def _joint(self, e: Element) -> Joint:
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
        pos, quat = self._numbers.origin(e)
        return Joint(e, str(e.get("name")), kind, ends[0], ends[1], pos, quat)

    def _root(self) -> str:
        """The one link without a parent.

        Raises:
          InputError: naming the joints of a circle, the second parent, or the second root.
        """
        above: dict[str, Joint] = {}
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
            self._contents.shapes(top, world)
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
            pos, quat, frames = joined(chain)
            body = self._body(last.child, parent, pos, quat)
            for part, (anchor, turn) in zip(chain, frames, strict=True):
                self._degrees(part, body, anchor, turn, parent)
            self._fill(last.child, body)
            todo += [(k, body) for k in reversed(self.below[last.child])]

    def _chain(self, j: Joint, join: Mapping[str, list[str]]) -> list[Joint]:
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

    def _hollow(self, j: Joint) -> bool:
        """Whether a joint moves a link that is nothing but a place between two joints, which MuJoCo cannot simulate."""
        link, below = self.links[j.child], self.below[j.child]
        mass = link.find("inertial/mass")
        empty = mass is None or self._numbers.number(mass, "value", 0.0) == 0
        moving = ("revolute", "continuous", "prismatic", "planar")
        if not empty or shapes_of(link) or len(below) != 1:
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
        self._contents.inertial(link, body)
        self._contents.shapes(link, body)

    # joints -----------------------------------------------------------------------------------------------

    def _degrees(self, j: Joint, body: Element, anchor: Array, turn: Array, parent: Element) -> None:
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
        axis = np.array([1.0, 0, 0]) if axis_element is None else self._numbers.vector(axis_element, "xyz", 3, "1 0 0")
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
                value = self._numbers.number(dynamics, key, 0.0)
                if value < 0:
                    raise InputError(f"{key} = {value:g}", where=self.source.at(dynamics, key), allowed=">= 0")
                if value:
                    attributes[name] = number(value)
        self.document.add(body, "joint", attributes, like)
        self._mimic(j)

    def _limits(self, j: Joint, attributes: dict[str, str]) -> None:
        limit = j.element.find("limit")
        if limit is None:
            if j.kind != "continuous":
                self.notes.append(f"joint {j.name} states no limits: taken as unlimited")
            return
        low, high = (self._numbers.number(limit, key, 0.0, np.inf) for key in ("lower", "upper"))
        if low > high:
            raise InputError(f"lower {low:g} > upper {high:g}", where=self.source.at(limit))
        if j.kind != "continuous":
            if low == high:
                self.notes.append(f"joint {j.name}: lower = upper = {low:g}: taken as unlimited")
            elif max(-low, high) < UNLIMITED:
                attributes["range"] = numbers((low, high))
        effort, velocity = (self._numbers.number(limit, key, 0.0, np.inf) for key in ("effort", "velocity"))
        if 0 < abs(effort) < UNLIMITED:
            attributes["actuatorfrcrange"] = numbers((-abs(effort), abs(effort)))
        if 0 < abs(velocity) < UNLIMITED:
            self.velocity[j.name] = abs(velocity)

    def _mimic(self, j: Joint) -> None:
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
        factors = (self._numbers.number(mimic, "offset", 0.0), self._numbers.number(mimic, "multiplier", 1.0), 0, 0, 0)
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

    def _say_ignored(self) -> None:
        root = self.source.root
        counts = Counter(e.tag for e in root if e.tag not in ("link", "joint", "material"))
        for e in root.findall("joint"):
            counts.update(x.tag for x in e if x.tag in ("safety_controller", "calibration"))
        if counts.pop("mujoco", 0) and any(len(m) > len(m.findall("compiler")) for m in root.findall("mujoco")):
            counts["mujoco"] = 1
        self.losses += [f"{n} <{tag[:60]}> element{'s' * (n > 1)}" for tag, n in sorted(counts.items())]
