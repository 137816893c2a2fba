"""What a URDF link is made of: inertia, visual and collision shapes.

In: link elements. Out: elements of an MJCF body; what was assumed and what was dropped is added to the lists it is
given.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from flyball.base import InputError, Unsupported
from flyball.robots.models.elements import number, numbers
from flyball.robots.models.facts import rotation
from flyball.robots.models.imported import ReadOptions
from flyball.robots.models.markup import Document
from flyball.robots.models.meshes import Prepared, prepare
from flyball.robots.models.model import Array
from flyball.robots.models.references import Files
from flyball.robots.models.urdf_numbers import Numbers

ROUNDED = 0.01
"""Share by which a principal inertia may exceed the sum of the others and still count as rounded: published models
give three digits."""
_LEAST = 1e-15
"""What MuJoCo takes for no inertia [kg m^2]."""


def shapes_of(link: Element) -> list[Element]:
    """Visual shapes of a link, then its collision shapes."""
    return [*link.findall("visual"), *link.findall("collision")]


class Links:
    """The links of one robot, on their way into an MJCF document.

    Args:
      source: the URDF document; document: the MJCF one, with ``asset``, its section of meshes.
      links: name -> element.
      notes, losses: lists to add to.

    Attributes:
      mended: inertias that were changed, in words.
    """

    def __init__(
        self,
        source: Document,
        document: Document,
        asset: Element,
        links: Mapping[str, Element],
        files: Files,
        options: ReadOptions,
        notes: list[str],
        losses: list[str],
    ) -> None:
        self.source, self.document, self.asset, self.files, self.options = source, document, asset, files, options
        self.notes, self.losses = notes, losses
        self._links, self._numbers = links, Numbers(source)
        self._materials = {e.get("name"): e for e in source.root.findall("material") if e.get("name")}
        self._used_names = Counter(name for x in links.values() for name in {s.get("name") for s in shapes_of(x)})
        self._meshes: dict[tuple[str, str], str] = {}
        self._mesh_colour: dict[str, str] = {}
        self.mended: list[str] = []
        self._settings()

    def _settings(self) -> None:
        """MuJoCo's own extension of URDF: where meshes lie."""
        compiler: dict[str, str] = {}
        for e in self.source.root.iterfind("mujoco/compiler"):
            compiler |= e.attrib
        self._strip = compiler.pop("strippath", "false") == "true"
        meshes = self.files.folder / compiler.pop("meshdir", compiler.pop("assetdir", ""))
        self._folders = [meshes, self.files.folder]
        rest = sorted(set(compiler) - {"discardvisual", "fusestatic", "angle", "texturedir", "assetdir"})
        if rest:
            self.losses.append(f"MuJoCo compiler settings in the file: {', '.join(rest)}")

    def inertial(self, link: str, body: Element) -> None:
        """Give a body the inertia of its link."""
        e = self._links[link].find("inertial")
        if e is None:
            return
        mass_element, inertia_element = e.find("mass"), e.find("inertia")
        if mass_element is None:
            raise InputError("an inertial without a mass", where=self.source.at(e))
        mass = self._numbers.number(mass_element, "value", 0.0)
        if mass < 0:
            raise InputError(f"mass = {mass:g} kg", where=self.source.at(mass_element, "value"), allowed=">= 0")
        keys = ("ixx", "iyy", "izz", "ixy", "ixz", "iyz")
        i = [0.0] * 6 if inertia_element is None else [self._numbers.number(inertia_element, k, 0.0) for k in keys]
        pos, quat = self._numbers.origin(e)
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
        self.mended.append(said)
        (self.notes if excess <= ROUNDED * values[2] and values[0] > _LEAST else self.losses).append(said)
        return np.asarray(axes @ np.diag(mended) @ axes.T)

    def shapes(self, link: str, body: Element) -> None:
        """Give a body (or the world) the visual and collision shapes of its link, as geoms."""
        element = self._links[link]
        seen = any(True for _ in element.iter("visual"))
        touching = {self._signature(c): c for c in element.findall("collision") if c.get("name")}
        done: set[tuple[Any, ...]] = set()
        for shape in shapes_of(element):
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
            pos, quat = self._numbers.origin(shape)
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
        pos, quat = self._numbers.origin(shape)
        return (shape.get("name"), *pos, *quat, inner)

    def _name(self, shape: Element, link: str, attributes: dict[str, str]) -> None:
        """MuJoCo wants a geom's name once in a model; URDF does not."""
        name = shape.get("name")
        if name and self._used_names[name] == 1:
            twins = [s for s in shapes_of(self._links[link]) if s.get("name") == name]
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
            "box": lambda: self._numbers.vector(inner, "size", 3) / 2,
            "sphere": lambda: [self._numbers.number(inner, "radius")],
            "cylinder": lambda: [self._numbers.number(inner, "radius"), self._numbers.number(inner, "length") / 2],
            "capsule": lambda: [self._numbers.number(inner, "radius"), self._numbers.number(inner, "length") / 2],
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
        scale = self._numbers.vector(e, "scale", 3, "1 1 1")
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
        if material is not None and material.find("color") is None and material.get("name") in self._materials:
            material = self._materials[material.get("name")]
        if material is not None:
            if material.find("texture") is not None:
                self.losses.append(f"{self.source.at(shape)}: its texture")
            colour = material.find("color")
            if colour is not None:
                return numbers(np.clip(self._numbers.vector(colour, "rgba", 4), 0, 1))
        mesh = shape.find("geometry/mesh")
        if mesh is not None:
            for (path, _), name in self._meshes.items():
                if Path(path).name == mesh.get("filename", "").replace("\\", "/").rsplit("/", 1)[-1]:
                    return self._mesh_colour.get(name, "")
        return ""
