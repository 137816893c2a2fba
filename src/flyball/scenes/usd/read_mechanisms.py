"""Filters, tendons, mimics and closed loops as MJCF elements.

In: a stage's prims and the bodies, joints and shapes already read. Out: the sections of MJCF that tie them together. A
relationship that names a prim which is not there is an error; one that names a prim that did not come through is a
loss.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from pxr import Usd, UsdPhysics

from flyball.robots.models.facts import conjugate, multiply, rotation
from flyball.scenes.usd.references import References, is_kind, label
from flyball.scenes.usd.tree import Link
from flyball.scenes.usd.values import inverse, quat, word
from flyball.scenes.usd.vocabulary import EQUALITY, PAIR, TENDON, authored


class MechanismsReader:
    """Reads what ties bodies, joints and shapes together."""

    def __init__(self, refs: References) -> None:
        self.refs = refs

    def write(self, contact: Element, tendon: Element, equality: Element) -> None:
        """Append to the three sections."""
        self._name_equalities()
        self._filters(contact)
        for prim in self.refs.prims:
            if is_kind(prim, "tendon"):
                self._tendon(tendon, prim)
        self._equalities(equality)

    # contacts ---------------------------------------------------------------------------------------------

    def _filters(self, section: Element) -> None:
        for prim in self.refs.prims:
            if prim.HasAPI(UsdPhysics.FilteredPairsAPI):
                for target in UsdPhysics.FilteredPairsAPI(prim).GetFilteredPairsRel().GetTargets():
                    self._exclude(section, prim, target)
            if prim.GetRelationship("flyball:contact:between"):
                names = [self.refs.name("geom", t) for t in self.refs.targets(prim, "flyball:contact:between")]
                if len(names) != 2 or None in names:
                    self.refs.lost(prim, "flyball:contact:between", "geoms")
                    continue
                attributes = self.refs.values.attributes(prim, PAIR)
                ends = {"geom1": str(names[0]), "geom2": str(names[1])}
                SubElement(section, "pair", {"name": label(prim), **ends, **attributes})

    def _exclude(self, section: Element, prim: Usd.Prim, target: Any) -> None:
        other = self.refs.values.stage.GetPrimAtPath(target)
        if not other:
            raise self.refs.values.bad(prim, f"physics:filteredPairs names {target}, which does not exist", "a prim")
        ends = []
        for p in (prim, other):
            name = self.refs.name("body", p.GetPath())
            if name is None:
                owner = self.refs.forest.owner(p)
                alone = [k for k, v in self.refs.shapes.kinds.items() if v == "geom" and self._owner_of(k) == owner]
                name = self.refs.names("body", owner) if owner and alone == [p.GetPath()] else None
            ends.append(name)
        if None in ends or ends[0] == ends[1]:
            self.refs.losses.append(
                f"{prim.GetPath()}: a filter against {target} is not between two bodies; not carried"
            )
        else:
            SubElement(section, "exclude", body1=str(ends[0]), body2=str(ends[1]))

    def _owner_of(self, path: Any) -> Any:
        return self.refs.forest.owner(self.refs.values.stage.GetPrimAtPath(path))

    # tendons ----------------------------------------------------------------------------------------------

    def _tendon(self, section: Element, prim: Usd.Prim) -> None:
        v = self.refs.values
        fixed = v.get(prim, "mjc:type", "Token") == "fixed"
        attributes = {"name": self.refs.names("tendon", prim.GetPath()), **v.attributes(prim, TENDON)}
        if fixed:
            attributes.pop("width", None)
        rest = v.get(prim, "flyball:polynomials", "DoubleArray")
        if rest is not None and len(rest) == 4:
            for key, part in (("stiffness", rest[:2]), ("damping", rest[2:])):
                attributes[key] = attributes.get(key, "0") + " " + word(part)
        for key, usd in (("range", "range"), ("actuatorfrcrange", "actuatorfrcrange")):
            low, high = (v.get(prim, f"mjc:{usd}:{end}", "Double") for end in ("min", "max"))
            flag = "limited" if key == "range" else "actuatorfrclimited"
            limited = v.get(prim, f"mjc:{flag}", "Token")
            if low is not None and high is not None and limited != "false":
                attributes |= {key: word([low, high]), flag: "true"}
        elements = self.refs.targets(prim, "mjc:path")
        order = v.get(prim, "mjc:path:indices", "IntArray")
        order = np.arange(len(elements)) if order is None else order
        if len(order) and not (order.min() >= 0 and order.max() < len(elements)):
            raise v.bad(prim, f"mjc:path:indices reaches {order.max()} of {len(elements)} targets", "their numbers")
        path = self._fixed_path(prim, elements, order) if fixed else self._spatial_path(prim, elements, order)
        if path is None:
            return
        e = SubElement(section, "fixed" if fixed else "spatial", attributes)
        for tag, values in path:
            SubElement(e, tag, values)
        self.refs.taken.add(prim.GetPath())

    def _fixed_path(self, prim: Usd.Prim, elements: list[Any], order: Any) -> list[tuple[str, dict[str, str]]] | None:
        coefs = self.refs.values.get(prim, "mjc:path:coef", "DoubleArray")
        if coefs is None or len(coefs) != len(order):
            raise self.refs.values.bad(prim, "mjc:path:coef does not fit mjc:path", "one number per element")
        path = []
        for k, coef in zip(order, coefs, strict=True):
            name = self.refs.name("joint", elements[k])
            if name is None:
                self.refs.lost(prim, "mjc:path", elements[k])
                return None
            path.append(("joint", {"joint": name, "coef": word(coef)}))
        return path

    def _spatial_path(self, prim: Usd.Prim, elements: list[Any], order: Any) -> list[tuple[str, dict[str, str]]] | None:
        v = self.refs.values
        segments = v.get(prim, "mjc:path:segments", "IntArray")
        divisors = v.get(prim, "mjc:path:divisors", "DoubleArray")
        sides, which = self.refs.targets(prim, "mjc:sideSites"), v.get(prim, "mjc:sideSites:indices", "IntArray")
        segments = np.zeros(len(order), int) if segments is None else segments
        divisors = np.ones(1) if divisors is None else divisors
        which = np.full(len(order), -1) if which is None else which
        if not len(segments) == len(which) == len(order) or not _inside(segments, divisors):
            raise v.bad(prim, "mjc:path, its segments and its side sites do not fit", "one entry per element")
        path: list[tuple[str, dict[str, str]]] = []
        at = 0
        if divisors[0] != 1:
            path.append(("pulley", {"divisor": word(divisors[0])}))
        for k, segment, side in zip(order, segments, which, strict=True):
            if segment != at:
                at = int(segment)
                path.append(("pulley", {"divisor": word(divisors[at])}))
            kind = self.refs.shapes.kinds.get(elements[k], "")
            name = self.refs.name(kind, elements[k]) if kind in ("site", "geom") else None
            if name is None:
                self.refs.lost(prim, "mjc:path", elements[k])
                return None
            element = {kind: name}
            if kind == "geom" and 0 <= side < len(sides):
                beside = self.refs.name("site", sides[side])
                if beside is None:
                    self.refs.lost(prim, "mjc:sideSites", sides[side])
                    return None
                element["sidesite"] = beside
            path.append((kind, element))
        return path

    # equalities -------------------------------------------------------------------------------------------

    def _equalities(self, section: Element) -> None:
        loops = {link.prim.GetPath(): link for link in self.refs.forest.loops}
        for prim in self.refs.prims:
            if prim.GetPath() in loops:
                self._loop(section, loops[prim.GetPath()])
            if self._mimics(prim):
                self._mimic(section, prim)
            elif prim.GetRelationship("flyball:equality:between"):
                self._polynomial(section, prim)

    @staticmethod
    def _mimics(prim: Usd.Prim) -> bool:
        schemas = prim.GetPrimTypeInfo().GetAppliedAPISchemas()
        return bool(prim.GetRelationship("newton:mimicJoint")) or "MjcEqualityJointAPI" in schemas

    def _name_equalities(self) -> None:
        loops = {link.prim.GetPath() for link in self.refs.forest.loops}
        for prim in self.refs.prims:
            own = label(prim)
            if self._mimics(prim):
                own = self.refs.values.get(prim, "flyball:equality:name", "String") or f"{own}_mimics"
            elif prim.GetPath() not in loops and not prim.GetRelationship("flyball:equality:between"):
                continue
            self.refs.names.want("equality", prim.GetPath(), own)

    def _active(self, on: Any) -> dict[str, str]:
        return {} if on is None or on else {"active": "false"}

    def _mimic(self, section: Element, prim: Usd.Prim) -> None:
        v = self.refs.values
        # the relation and coefficients had other names in MuJoCo's schema before Newton's
        old = not prim.GetRelationship("newton:mimicJoint")
        leader = self.refs.targets(prim, "mjc:target" if old else "newton:mimicJoint")
        names = [self.refs.name("joint", p) for p in (prim.GetPath(), *leader)]
        if len(names) != 2 or None in names:
            self.refs.lost(prim, "newton:mimicJoint", leader[0] if leader else "nothing")
            return
        angular = prim.IsA(UsdPhysics.RevoluteJoint)
        zero = v.get(prim, "newton:mimicCoef0", "Float") or 0.0
        one = v.get(prim, "newton:mimicCoef1", "Float")
        unit = np.pi / 180 if angular else 1.0
        coef = [authored(zero, lambda x: x * unit, lambda x: x / unit), 1.0 if one is None else one]
        if old:
            coef = [v.get(prim, "mjc:coef0", "Double") or 0.0, v.get(prim, "mjc:coef1", "Double")]
            coef[1] = 1.0 if coef[1] is None else coef[1]
        coef += [v.get(prim, f"mjc:coef{k}", "Double") or 0.0 for k in (2, 3, 4)]
        SubElement(section, "joint", {
            "name": self.refs.names("equality", prim.GetPath()), "joint1": str(names[0]),
            "joint2": str(names[1]), "polycoef": word(coef),
            **self._active(v.get(prim, "newton:mimicEnabled", "Bool")), **v.attributes(prim, EQUALITY),
        })  # fmt: skip

    def _polynomial(self, section: Element, prim: Usd.Prim) -> None:
        v = self.refs.values
        kind = v.get(prim, "flyball:equality:kind", "Token")
        if kind not in ("joint", "tendon"):
            raise v.bad(prim, f"flyball:equality:kind = {kind!r}", "joint or tendon")
        names = [self.refs.name(kind, t) for t in self.refs.targets(prim, "flyball:equality:between")]
        if None in names or not 1 <= len(names) <= 2:
            self.refs.lost(prim, "flyball:equality:between", kind)
            return
        coef = v.get(prim, "flyball:equality:polynomial", "DoubleArray")
        SubElement(section, kind, {
            "name": self.refs.names("equality", prim.GetPath()),
            **{f"{kind}{k + 1}": str(n) for k, n in enumerate(names)},
            **({} if coef is None else {"polycoef": word(coef)}),
            **self._active(v.get(prim, "flyball:equality:active", "Bool")), **v.attributes(prim, EQUALITY),
        })  # fmt: skip

    def _loop(self, section: Element, link: Link) -> None:
        """A joint that closes a loop: MuJoCo knows points that coincide, and bodies that are one."""
        prim, v = link.prim, self.refs.values
        path = prim.GetPath()
        active = self._active(UsdPhysics.Joint(prim).GetJointEnabledAttr().Get())
        common = {"name": self.refs.names("equality", path), **active, **v.attributes(prim, EQUALITY)}
        ends = self.refs.targets(prim, "flyball:equality:sites") or [p.GetPath() for p in link.ends if p]
        kinds = [self.refs.shapes.kinds.get(p, "") for p in ends]
        tag = {"fixed": "weld", "ball": "connect"}.get(link.kind, "")
        if kinds == ["site", "site"] and tag:
            one, two = (self.refs.name("site", p) for p in ends)
            e = SubElement(section, tag, {**common, "site1": str(one), "site2": str(two)})
        else:
            owners, frames = (link.first, link.second), link.frames
            if owners[0] == owners[1]:
                self.refs.losses.append(f"{path}: it joins {owners[0] or 'the world'} to itself and is not carried")
                return
            local = [inverse(v.rigid(v.stage.GetPrimAtPath(o)) if o else np.eye(4)) @ f
                     for o, f in zip(owners, frames, strict=True)]  # fmt: skip
            names = {f"body{k + 1}": self.refs.names("body", o) if o else "world" for k, o in enumerate(owners)}
            if tag == "weld":
                e = SubElement(section, "weld", {**common, **names, **self._weld(prim, local)})
            elif tag == "connect":
                e = SubElement(section, "connect", {**common, **names, "anchor": word(local[0][:3, 3])})
            elif link.kind == "hinge":
                axis = "XYZ".index(self.refs.values.axis(prim, UsdPhysics.RevoluteJoint(prim).GetAxisAttr()))
                self.refs.notes.append(
                    f"{path}: closes a loop; carried as two coinciding points 10 cm apart on its axis"
                )
                for k, shift in enumerate((0.05, -0.05)):
                    anchor = local[0][:3, 3] + shift * local[0][:3, axis]
                    own = {**common, "name": f"{common['name']}_{k}"}
                    SubElement(section, "connect", {**own, **names, "anchor": word(anchor)})
                return
            else:
                self.refs.losses.append(f"{path}: a {link.kind} joint that closes a loop is not carried")
                return
        scale = v.get(prim, "mjc:torqueScale", "Float")
        if tag == "weld" and scale is not None:
            e.set("torquescale", word(scale))

    def _weld(self, prim: Usd.Prim, local: list[Any]) -> dict[str, str]:
        turn = multiply(quat(local[0]), conjugate(quat(local[1])))
        anchor = local[1][:3, 3]
        pos = local[0][:3, 3] - rotation(turn) @ anchor
        return {"anchor": word(anchor), "relpose": word([*pos, *turn])}


def _inside(indices: Any, of: Any) -> bool:
    """Whether indices name elements of an array."""
    return (bool(len(of)) and not len(indices)) or bool(indices.min() >= 0 and indices.max() < len(of))
