"""Drives, actuators, tendons, loops, filters, sensors and keyframes as MJCF elements.

In: a stage's prims and the bodies, joints and shapes already read. Out: the sections of MJCF that refer to them. A
relationship that names a prim which is not there is an error; one that names a prim that did not come through is a
loss.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import numpy as np
from pxr import Usd, UsdPhysics

from flyball.base import InputError
from flyball.robots.models.elements import sensor
from flyball.robots.models.facts import conjugate, multiply, rotation
from flyball.robots.models.model import Sensor
from flyball.scenes.usd.mechanisms import drive_gains
from flyball.scenes.usd.read_shapes import ShapesReader
from flyball.scenes.usd.tree import Forest, Link
from flyball.scenes.usd.values import Names, Values, inverse, quat, word
from flyball.scenes.usd.vocabulary import ACTUATOR, EQUALITY, PAIR, TENDON, authored

DRIVE_TOLERANCE = 1e-4
"""Relative difference from which on a drive and the actuator on the same joint disagree."""
_KIND = {"xbody": "body"}


class MechanismsReader:
    """Reads what refers to bodies, joints and shapes.

    Attributes:
      drives: joint path (with the direction, for a generic joint) -> (MJCF joint, drive's name, angular).
    """

    def __init__(
        self, values: Values, names: Names, forest: Forest, shapes: ShapesReader, prims: list[Usd.Prim]
    ) -> None:
        self.values, self.names, self.forest, self.shapes, self.prims = values, names, forest, shapes, prims
        self.notes, self.losses, self.taken = list[str](), [*shapes.filters.losses], set[Any]()
        self.drives: dict[Any, tuple[str, str, bool]] = {}
        self._joints: set[Any] = {p for n in forest.nodes.values() for p in self._joint_paths(n)}

    def _joint_paths(self, node: Any) -> list[Any]:
        own = [node.prim.GetPath()] if node.free else []
        return own + [link.prim.GetPath() for link, _ in node.links if link.kind in ("hinge", "slide", "ball")]

    def write(self, root: Element) -> None:
        """Append the sections."""
        sections = {k: SubElement(root, k) for k in ("contact", "tendon", "equality", "actuator", "sensor", "keyframe")}
        for prim in self.prims:
            for kind in ("tendon", "actuator", "sensor"):
                if self._is(prim, kind):
                    self.names.want(kind, prim.GetPath(), str(prim.GetDisplayName() or prim.GetName()))
            if prim.HasAttribute("flyball:key:time"):
                self.names.want("key", prim.GetPath(), str(prim.GetDisplayName() or prim.GetName()))
        self._name_equalities()
        self._filters(sections["contact"])
        for prim in self.prims:
            if self._is(prim, "tendon"):
                self._tendon(sections["tendon"], prim)
        self._equalities(sections["equality"])
        self._actuators(sections["actuator"])
        self._sensors(root, sections["sensor"])
        for prim in self.prims:
            if prim.HasAttribute("flyball:key:time"):
                self._key(root, sections["keyframe"], prim)

    def _is(self, prim: Usd.Prim, kind: str) -> bool:
        if kind == "sensor":
            return bool(prim.HasAttribute("flyball:sensor:kind"))
        return bool(prim.GetTypeName() == {"tendon": "MjcTendon", "actuator": "MjcActuator"}[kind])

    # references -------------------------------------------------------------------------------------------

    def _targets(self, prim: Usd.Prim, relation: str) -> list[Any]:
        rel = prim.GetRelationship(relation)
        targets = rel.GetTargets() if rel else []
        for target in targets:
            if not self.values.stage.GetPrimAtPath(target):
                raise self.values.bad(prim, f"{relation} names {target}, which does not exist", "a prim of this scene")
        return [*targets]

    def _name(self, kind: str, path: Any) -> str | None:
        """Name of an element of that kind, None when the prim became none."""
        if kind == "joint":
            return self.names("joint", path) if path in self._joints else None
        if kind == "body":
            owner = self.names.has("body", path)
            return self.names("body", path) if owner else "world" if self.forest.owner(
                self.values.stage.GetPrimAtPath(path)) is None else None  # fmt: skip
        there = self.names.has(kind, path) and (path in self.shapes.taken or path in self.taken)
        return self.names(kind, path) if there else None

    def _lost(self, prim: Usd.Prim, relation: str, target: Any) -> None:
        self.losses.append(f"{prim.GetPath()}: {relation} names {target}, which is not carried; so is this")

    # contacts ---------------------------------------------------------------------------------------------

    def _filters(self, section: Element) -> None:
        for prim in self.prims:
            if prim.HasAPI(UsdPhysics.FilteredPairsAPI):
                for target in UsdPhysics.FilteredPairsAPI(prim).GetFilteredPairsRel().GetTargets():
                    self._exclude(section, prim, target)
            if prim.GetRelationship("flyball:contact:between"):
                names = [self._name("geom", t) for t in self._targets(prim, "flyball:contact:between")]
                if len(names) != 2 or None in names:
                    self._lost(prim, "flyball:contact:between", "geoms")
                    continue
                attributes = self.values.attributes(prim, PAIR)
                SubElement(section, "pair", {"geom1": str(names[0]), "geom2": str(names[1]), **attributes})

    def _exclude(self, section: Element, prim: Usd.Prim, target: Any) -> None:
        other = self.values.stage.GetPrimAtPath(target)
        if not other:
            raise self.values.bad(prim, f"physics:filteredPairs names {target}, which does not exist", "a prim")
        ends = []
        for p in (prim, other):
            name = self._name("body", p.GetPath())
            if name is None:
                owner = self.forest.owner(p)
                alone = [k for k, v in self.shapes.kinds.items() if v == "geom" and self._owner_of(k) == owner]
                name = self.names("body", owner) if owner and alone == [p.GetPath()] else None
            ends.append(name)
        if None in ends or ends[0] == ends[1]:
            self.losses.append(f"{prim.GetPath()}: a filter against {target} is not between two bodies; not carried")
        else:
            SubElement(section, "exclude", body1=str(ends[0]), body2=str(ends[1]))

    def _owner_of(self, path: Any) -> Any:
        return self.forest.owner(self.values.stage.GetPrimAtPath(path))

    # tendons ----------------------------------------------------------------------------------------------

    def _tendon(self, section: Element, prim: Usd.Prim) -> None:
        v = self.values
        fixed = v.get(prim, "mjc:type", "Token") == "fixed"
        attributes = {"name": self.names("tendon", prim.GetPath()), **v.attributes(prim, TENDON)}
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
        elements = self._targets(prim, "mjc:path")
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
        self.taken.add(prim.GetPath())

    def _fixed_path(self, prim: Usd.Prim, elements: list[Any], order: Any) -> list[tuple[str, dict[str, str]]] | None:
        coefs = self.values.get(prim, "mjc:path:coef", "DoubleArray")
        if coefs is None or len(coefs) != len(order):
            raise self.values.bad(prim, "mjc:path:coef does not fit mjc:path", "one number per element")
        path = []
        for k, coef in zip(order, coefs, strict=True):
            name = self._name("joint", elements[k])
            if name is None:
                self._lost(prim, "mjc:path", elements[k])
                return None
            path.append(("joint", {"joint": name, "coef": word(coef)}))
        return path

    def _spatial_path(self, prim: Usd.Prim, elements: list[Any], order: Any) -> list[tuple[str, dict[str, str]]] | None:
        v = self.values
        segments = v.get(prim, "mjc:path:segments", "IntArray")
        divisors = v.get(prim, "mjc:path:divisors", "DoubleArray")
        sides, which = self._targets(prim, "mjc:sideSites"), v.get(prim, "mjc:sideSites:indices", "IntArray")
        segments = np.zeros(len(order), int) if segments is None else segments
        divisors = np.ones(1) if divisors is None else divisors
        which = np.full(len(order), -1) if which is None else which
        if not len(segments) == len(which) == len(order) or segments.max(initial=0) >= len(divisors):
            raise v.bad(prim, "mjc:path, its segments and its side sites do not fit", "one entry per element")
        path: list[tuple[str, dict[str, str]]] = []
        at = 0
        if divisors[0] != 1:
            path.append(("pulley", {"divisor": word(divisors[0])}))
        for k, segment, side in zip(order, segments, which, strict=True):
            if segment != at:
                at = int(segment)
                path.append(("pulley", {"divisor": word(divisors[at])}))
            kind = self.shapes.kinds.get(elements[k], "")
            name = self._name(kind, elements[k]) if kind in ("site", "geom") else None
            if name is None:
                self._lost(prim, "mjc:path", elements[k])
                return None
            element = {kind: name}
            if kind == "geom" and 0 <= side < len(sides):
                beside = self._name("site", sides[side])
                if beside is None:
                    self._lost(prim, "mjc:sideSites", sides[side])
                    return None
                element["sidesite"] = beside
            path.append((kind, element))
        return path

    # equalities -------------------------------------------------------------------------------------------

    def _equalities(self, section: Element) -> None:
        loops = {link.prim.GetPath(): link for link in self.forest.loops}
        for prim in self.prims:
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
        loops = {link.prim.GetPath() for link in self.forest.loops}
        for prim in self.prims:
            own = str(prim.GetDisplayName() or prim.GetName())
            if self._mimics(prim):
                own = self.values.get(prim, "flyball:equality:name", "String") or f"{own}_mimics"
            elif prim.GetPath() not in loops and not prim.GetRelationship("flyball:equality:between"):
                continue
            self.names.want("equality", prim.GetPath(), own)

    def _active(self, on: Any) -> dict[str, str]:
        return {} if on is None or on else {"active": "false"}

    def _mimic(self, section: Element, prim: Usd.Prim) -> None:
        v = self.values
        # the relation and coefficients had other names in MuJoCo's schema before Newton's
        old = not prim.GetRelationship("newton:mimicJoint")
        leader = self._targets(prim, "mjc:target" if old else "newton:mimicJoint")
        names = [self._name("joint", p) for p in (prim.GetPath(), *leader)]
        if len(names) != 2 or None in names:
            self._lost(prim, "newton:mimicJoint", leader[0] if leader else "nothing")
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
            "name": self.names("equality", prim.GetPath()), "joint1": str(names[0]),
            "joint2": str(names[1]), "polycoef": word(coef),
            **self._active(v.get(prim, "newton:mimicEnabled", "Bool")), **v.attributes(prim, EQUALITY),
        })  # fmt: skip

    def _polynomial(self, section: Element, prim: Usd.Prim) -> None:
        v = self.values
        kind = v.get(prim, "flyball:equality:kind", "Token")
        if kind not in ("joint", "tendon"):
            raise v.bad(prim, f"flyball:equality:kind = {kind!r}", "joint or tendon")
        names = [self._name(kind, t) for t in self._targets(prim, "flyball:equality:between")]
        if None in names or not 1 <= len(names) <= 2:
            self._lost(prim, "flyball:equality:between", kind)
            return
        coef = v.get(prim, "flyball:equality:polynomial", "DoubleArray")
        SubElement(section, kind, {
            "name": self.names("equality", prim.GetPath()),
            **{f"{kind}{k + 1}": str(n) for k, n in enumerate(names)},
            **({} if coef is None else {"polycoef": word(coef)}),
            **self._active(v.get(prim, "flyball:equality:active", "Bool")), **v.attributes(prim, EQUALITY),
        })  # fmt: skip

    def _loop(self, section: Element, link: Link) -> None:
        """A joint that closes a loop: MuJoCo knows points that coincide, and bodies that are one."""
        prim, v = link.prim, self.values
        path = prim.GetPath()
        active = self._active(UsdPhysics.Joint(prim).GetJointEnabledAttr().Get())
        common = {"name": self.names("equality", path), **active, **v.attributes(prim, EQUALITY)}
        kinds = [self.shapes.kinds.get(p.GetPath(), "") if p else "" for p in link.ends]
        tag = {"fixed": "weld", "ball": "connect"}.get(link.kind, "")
        if kinds == ["site", "site"] and tag:
            one, two = (self._name("site", p.GetPath()) for p in link.ends)
            e = SubElement(section, tag, {**common, "site1": str(one), "site2": str(two)})
        else:
            owners, frames = (link.first, link.second), link.frames
            if owners[0] == owners[1]:
                self.losses.append(f"{path}: it joins {owners[0] or 'the world'} to itself and is not carried")
                return
            local = [inverse(v.rigid(v.stage.GetPrimAtPath(o)) if o else np.eye(4)) @ f
                     for o, f in zip(owners, frames, strict=True)]  # fmt: skip
            names = {f"body{k + 1}": self.names("body", o) if o else "world" for k, o in enumerate(owners)}
            if tag == "weld":
                e = SubElement(section, "weld", {**common, **names, **self._weld(prim, local)})
            elif tag == "connect":
                e = SubElement(section, "connect", {**common, **names, "anchor": word(local[0][:3, 3])})
            elif link.kind == "hinge":
                axis = "XYZ".index(str(UsdPhysics.RevoluteJoint(prim).GetAxisAttr().Get() or "X"))
                self.notes.append(f"{path}: closes a loop; carried as two coinciding points 10 cm apart on its axis")
                for k, shift in enumerate((0.05, -0.05)):
                    anchor = local[0][:3, 3] + shift * local[0][:3, axis]
                    own = {**common, "name": f"{common['name']}_{k}"}
                    SubElement(section, "connect", {**own, **names, "anchor": word(anchor)})
                return
            else:
                self.losses.append(f"{path}: a {link.kind} joint that closes a loop is not carried")
                return
        scale = v.get(prim, "mjc:torqueScale", "Float")
        if tag == "weld" and scale is not None:
            e.set("torquescale", word(scale))

    def _weld(self, prim: Usd.Prim, local: list[Any]) -> dict[str, str]:
        turn = multiply(quat(local[0]), conjugate(quat(local[1])))
        anchor = local[1][:3, 3]
        pos = local[0][:3, 3] - rotation(turn) @ anchor
        return {"anchor": word(anchor), "relpose": word([*pos, *turn])}

    # actuators --------------------------------------------------------------------------------------------

    def _actuators(self, section: Element) -> None:
        driven: dict[Any, Usd.Prim] = {}
        for prim in self.prims:
            if self._is(prim, "actuator"):
                self._actuator(section, prim, driven)
        for key, (joint, name, angular) in self.drives.items():
            path = str(key).partition(":")[0]
            prim = self.values.stage.GetPrimAtPath(path)
            if prim.GetPath() in driven:
                self._compare(prim, name, angular, driven[prim.GetPath()])
            else:
                self._drive(section, prim, joint, name, angular)

    def _actuator(self, section: Element, prim: Usd.Prim, driven: dict[Any, Usd.Prim]) -> None:
        v = self.values
        targets = self._targets(prim, "mjc:target")
        if len(targets) != 1:
            raise v.bad(prim, f"mjc:target names {len(targets)} prims", "one joint, tendon, site or body")
        target = targets[0]
        slider = self._targets(prim, "mjc:sliderSite")
        e = {"name": self.names("actuator", prim.GetPath())}
        for kind in ("joint", "tendon", "site", "body"):
            if kind == "body" and not self.names.has("body", target):
                continue
            if (name := self._name(kind, target)) is not None:
                key = "jointinparent" if kind == "joint" and v.get(prim, "mjc:jointInParent", "Bool") else kind
                e["cranksite" if slider else key] = name
                break
        else:
            self._lost(prim, "mjc:target", target)
            return
        for relation, key in (("mjc:sliderSite", "slidersite"), ("mjc:refSite", "refsite")):
            for other in self._targets(prim, relation):
                second = self._name("site", other)
                if second is None:
                    self._lost(prim, relation, other)
                    return
                e[key] = second
        e |= {k: x for k, x in v.attributes(prim, ACTUATOR).items() if not (k == "input" and not x)}
        self._shorten(prim, e)
        for kind in ("ctrl", "force", "act"):
            low, high = (v.get(prim, f"mjc:{kind}Range:{end}", "Double") for end in ("min", "max"))
            limited = v.get(prim, f"mjc:{kind}Limited", "Token")
            if low is not None and high is not None and limited != "false" and (low < high or limited == "true"):
                e |= {f"{kind}range": word([low, high]), f"{kind}limited": "true"}
        SubElement(section, "general", e)
        self.taken.add(prim.GetPath())
        if "joint" in e:
            driven[target] = prim

    def _shorten(self, prim: Usd.Prim, e: dict[str, str]) -> None:
        """MJCF's own limits on how many numbers an attribute may have."""
        for key in ("dynprm", "gainprm", "biasprm"):
            if key in e and len(e[key].split()) > 10:
                raise self.values.bad(prim, f"{key} has {len(e[key].split())} numbers", "up to 10")

    def _compare(self, prim: Usd.Prim, name: str, angular: bool, actuator: Usd.Prim) -> None:
        bias = self.values.get(actuator, "mjc:biasPrm", "DoubleArray")
        gear = self.values.get(actuator, "mjc:gear", "DoubleArray")
        drive = UsdPhysics.DriveAPI(prim, name)
        if bias is None or len(bias) < 3:
            return
        ours = drive_gains(bias, np.ones(6) if gear is None else gear, angular)
        theirs = [self.values.number(prim, a, 0.0) or 0.0 for a in (drive.GetStiffnessAttr(), drive.GetDampingAttr())]
        if any(abs(a - b) > DRIVE_TOLERANCE * max(abs(a), abs(b)) for a, b in zip(ours, theirs, strict=True)):
            self.losses.append(
                f"{prim.GetPath()}: its drive (stiffness {theirs[0]:g}, damping {theirs[1]:g}) disagrees with "
                f"{actuator.GetPath()} ({ours[0]:g}, {ours[1]:g}); the actuator counts"
            )

    def _drive(self, section: Element, prim: Usd.Prim, joint: str, name: str, angular: bool) -> None:
        """A drive without an actuator beside it, as a position or velocity servo."""
        v, drive = self.values, UsdPhysics.DriveAPI(prim, name)
        unit = 180 / np.pi if angular else 1.0
        mass = v.kilograms * (v.metres**2 if angular else 1.0)
        force = v.kilograms * v.metres ** (2 if angular else 1)
        kp, kd, most, target, speed = (
            v.number(prim, a, 0.0) or 0.0
            for a in (drive.GetStiffnessAttr(), drive.GetDampingAttr(), drive.GetMaxForceAttr(),
                      drive.GetTargetPositionAttr(), drive.GetTargetVelocityAttr())
        )  # fmt: skip
        if min(kp, kd) < 0 or not np.isfinite([kp, kd]).all():
            raise v.bad(prim, f"drive:{name} has stiffness {kp:g} and damping {kd:g}", "finite numbers from 0 on")
        if drive.GetTypeAttr().Get() == UsdPhysics.Tokens.acceleration:
            self.losses.append(f"{prim.GetPath()}: drive:{name} acts on acceleration; taken as a force drive")
        stiffness, damping = (authored(x, lambda s: s * unit, lambda s: s / unit) * mass for x in (kp, kd))
        if not stiffness and not damping:
            attributes = {"gaintype": "fixed"}
        elif stiffness:
            attributes = {"biastype": "affine", "gainprm": word(stiffness), "biasprm": word([0, -stiffness, -damping])}
        else:
            attributes = {"biastype": "affine", "gainprm": word(damping), "biasprm": word([0, 0, -damping])}
        if np.isfinite(most):
            attributes |= {"forcerange": word([-most * force, most * force]), "forcelimited": "true"}
        taken = {e.get("name") for e in section}
        label = joint if joint not in taken else f"{joint}_drive"
        SubElement(section, "general", {"name": label, "joint": joint, **attributes})
        wanted = target if stiffness else speed
        if wanted:
            # MJCF has no place for a target; the first control of a caller is it
            self.losses.append(f"{prim.GetPath()}: its target {wanted:g} is not carried; set it as control {label!r}")
        else:
            self.notes.append(f"{prim.GetPath()}: its drive is actuator {label!r}")

    # sensors and keyframes --------------------------------------------------------------------------------

    def _sensors(self, root: Element, section: Element) -> None:
        facts = [f for p in self.prims if self._is(p, "sensor") and (f := self._sensor(p)) is not None]
        spelled = {f.name: sensor(f) for f in facts}
        others = [f for f in facts if spelled[f.name] is None]
        rare = self._by_mujoco(root, others) if others else {}
        for fact in facts:
            short = spelled[fact.name]
            e = Element(short.tag, short.attributes) if short is not None else rare[fact.name]
            section.append(e)

    def _sensor(self, prim: Usd.Prim) -> Sensor | None:
        v = self.values
        kind = v.get(prim, "flyball:sensor:kind", "Token")
        ends: list[str] = []
        for end in ("object", "reference"):
            targets = self._targets(prim, f"flyball:sensor:{end}")
            what = v.get(prim, f"flyball:sensor:{end}:kind", "Token") or "site"
            called = self._name(_KIND.get(what, what), targets[0]) if targets else ""
            if called is None:
                self._lost(prim, f"flyball:sensor:{end}", targets[0])
                return None
            ends += [what, called] if targets else ["", ""]
        numbers = v.get(prim, "flyball:sensor:parameters", "DoubleArray")
        if numbers is not None and len(numbers) != 5:
            raise v.bad(prim, f"flyball:sensor:parameters has {len(numbers)} numbers", "5")
        self.taken.add(prim.GetPath())
        return Sensor(
            self.names("sensor", prim.GetPath()),
            kind,
            ends[0],
            ends[1],
            ends[2],
            ends[3],
            v.get(prim, "flyball:sensor:cutoff", "Double") or 0.0,
            v.get(prim, "flyball:sensor:noise", "Double") or 0.0,
            np.zeros(5) if numbers is None else numbers,
        )

    def _by_mujoco(self, root: Element, facts: list[Sensor]) -> dict[str, Element]:
        """Rare kinds, which all name what they are on in their own way: MuJoCo itself writes the elements."""
        import mujoco

        try:
            spec = mujoco.MjSpec.from_string(tostring(root, encoding="unicode"), assets=dict(self.shapes.assets))
            for f in facts:
                kind = getattr(mujoco.mjtSensor, f"mjSENS_{f.kind.upper()}", None)
                if kind is None or f.kind in ("plugin", "user", "tactile"):
                    what = f"flyball:sensor:kind = {f.kind!r} of {f.name}"
                    raise InputError(what, where=self.values.where, allowed="a kind of sensor of MuJoCo")
                made = spec.add_sensor(name=f.name, type=kind, cutoff=f.cutoff, noise=f.noise)
                made.intprm = [int(x) for x in f.other[:3]]
                made.delay = float(f.other[3])
                for word1, kind_, name in (("obj", f.object_kind, f.object), ("ref", f.reference_kind, f.reference)):
                    if name:
                        setattr(made, f"{word1}type", getattr(mujoco.mjtObj, f"mjOBJ_{kind_.upper()}"))
                        setattr(made, f"{word1}name", name)
            written = fromstring(spec.to_xml())
        except (ValueError, AttributeError) as err:
            raise InputError(refused(err), where=self.values.where) from err
        found = {e.get("name", ""): e for section in written.iter("sensor") for e in section}
        for f in facts:
            found[f.name].attrib |= {k: word(x) for k, x in (("cutoff", f.cutoff), ("noise", f.noise)) if x}
        return found

    def _key(self, root: Element, section: Element, prim: Usd.Prim) -> None:
        """Every joint's part, in the model's order; parts that the keyframe does not have stay at the start."""
        v = self.values
        key = {"name": self.names("key", prim.GetPath())}
        time = v.get(prim, "flyball:key:time", "Double")
        if time:
            key["time"] = word(time)
        positions = self._parts(prim, "joint:position", "joint")
        velocities = self._parts(prim, "joint:velocity", "joint")
        qpos: list[float] = []
        qvel: list[float] = []
        for joint in [e for e in root.iter() if e.tag in ("joint", "freejoint") and e.get("type")]:
            kind, name = str(joint.get("type")), joint.get("name")
            nq, nv = {"free": (7, 6), "ball": (4, 3)}.get(kind, (1, 1))
            start = [float(joint.get("ref") or 0.0)] if nq == 1 else [1.0, 0, 0, 0]
            if kind == "free":
                start = self._start(root, joint)
            qpos += _fit(positions.get(name, np.array(start)), nq, prim, v)
            qvel += _fit(velocities.get(name, np.zeros(nv)), nv, prim, v)
        if positions:
            key["qpos"] = word(qpos)
        if any(qvel):
            key["qvel"] = word(qvel)
        controls, acts = (self._parts(prim, f"actuator:{x}", "actuator") for x in ("control", "activation"))
        order = [e.get("name") for section_ in root.iter("actuator") for e in section_]
        if controls:
            key["ctrl"] = word([x for n in order for x in controls.get(n, np.zeros(1))])
        if acts:
            key["act"] = word([x for n in order for x in acts.get(n, np.zeros(0))])
        mocap = self._parts(prim, "mocap:pose", "body")
        if mocap:
            bodies = [e.get("name") for e in root.iter("body") if e.get("mocap") == "true"]
            poses = [mocap.get(n, np.array([0, 0, 0, 1.0, 0, 0, 0])) for n in bodies]
            key["mpos"], key["mquat"] = word([p[:3] for p in poses]), word([p[3:] for p in poses])
        SubElement(section, "key", key)
        self.taken.add(prim.GetPath())

    def _start(self, root: Element, joint: Element) -> list[float]:
        body = next(b for b in root.iter("body") if joint in [*b])
        pos = [float(x) for x in (body.get("pos") or "0 0 0").split()]
        return pos + [float(x) for x in (body.get("quat") or "1 0 0 0").split()]

    def _parts(self, prim: Usd.Prim, what: str, kind: str) -> dict[str | None, Any]:
        """Element name -> its numbers, from a flat array beside a relationship."""
        v = self.values
        numbers = v.get(prim, f"flyball:key:{what}", "DoubleArray")
        if numbers is None:
            return {}
        targets = self._targets(prim, f"flyball:key:{what}:of")
        sizes = [self._size(t, what) for t in targets]
        if sum(sizes) != len(numbers):
            raise v.bad(prim, f"flyball:key:{what} has {len(numbers)} numbers", f"{sum(sizes)}")
        parts = np.split(numbers, np.cumsum(sizes)[:-1]) if sizes else []
        return {self._name(kind, t): x for t, x in zip(targets, parts, strict=True)}

    def _size(self, path: Any, what: str) -> int:
        if what == "mocap:pose":
            return 7
        prim = self.values.stage.GetPrimAtPath(path)
        if what.startswith("actuator"):
            if what.endswith("activation") and prim.HasAttribute("mjc:actDim"):
                return max(1, int(self.values.get(prim, "mjc:actDim", "Int")))
            return 1
        if not prim.IsA(UsdPhysics.Joint):
            return 7 if what.endswith("position") else 6
        ball = prim.IsA(UsdPhysics.SphericalJoint)
        return (4 if what.endswith("position") else 3) if ball else 1


def refused(err: Exception) -> str:
    """What MuJoCo said against a model, in one line."""
    return "MuJoCo refuses the model: " + " ".join(str(err).split())[:300]


def _fit(x: Any, n: int, prim: Usd.Prim, v: Values) -> list[float]:
    if len(x) != n:
        raise v.bad(prim, f"a joint's part has {len(x)} numbers", str(n))
    return [float(k) for k in x]
