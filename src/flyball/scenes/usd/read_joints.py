"""UsdPhysics joints as MJCF joints.

In: the links of the body trees. Out: joints with axis, anchor, limits, passive forces and reference position. A joint
without a type becomes one joint per direction that is not locked; a fixed one becomes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from pxr import Usd, UsdPhysics

from flyball.robots.models.model import Array
from flyball.scenes.usd.references import label
from flyball.scenes.usd.tree import Link, Node, angle_between
from flyball.scenes.usd.values import Names, Values, inverse, word
from flyball.scenes.usd.vocabulary import JOINT, authored, radians, single

OFF_ZERO = 1e-5
"""Angle [rad] or distance [m] from which on an authored pose is taken to stand away from the joint's zero; single
precision leaves 1e-6."""
UNBREAKABLE = 1e30
"""Break force from which on a joint does not break; some tools write the largest float for infinity."""
_DOFS = ("transX", "transY", "transZ", "rotX", "rotY", "rotZ")


class JointsReader:
    """Reads the joints of body trees.

    Attributes:
      drives: joint path (with the direction, for a generic joint) -> (MJCF joint, drive's name, angular).
      speeds: MJCF joint -> largest speed [rad/s or m/s], which MJCF has no place for.
      degrees: whether ``mjc:ref`` and ``mjc:springref`` are in degrees, which the physics scene says.
    """

    def __init__(self, values: Values, names: Names) -> None:
        self.values, self.names = values, names
        self.notes, self.losses = list[str](), list[str]()
        self.drives: dict[Any, tuple[str, str, bool]] = {}
        self.degrees = True
        self.speeds: dict[str, float] = {}

    def want(self, link: Link) -> None:
        """Ask for the names of a generic joint's joints."""
        if link.kind == "generic":
            for dof in _DOFS:
                self.names.want("joint", f"{link.prim.GetPath()}:{dof}", f"{label(link.prim)}_{dof}")

    def write(self, e: Element, node: Node, link: Link, backward: bool) -> None:
        """Append a link's joints to its body's element."""
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
            unit = np.eye(3)["XYZ".index(v.axis(prim, typed.GetAxisAttr()))]
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
            self.drives[prim.GetPath()] = (joint.get("name", ""), token, angular)
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
        if angular and self.degrees:
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
        speed = v.get(prim, "newton:velocityLimit")
        if isinstance(speed, float) and np.isfinite(speed) and speed >= 0:
            metric = radians(single(speed)) if angular else self._length(single(speed), v.metres)
            self.speeds[joint.get("name", "")] = metric
        for name in ("newton:limitStiffness", "newton:limitDamping"):
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
                self.drives[f"{prim.GetPath()}:{dof}"] = (name, dof, angular)
        if ball:
            joint = SubElement(e, "joint", name=self.names("joint", prim.GetPath()), type="ball")
            joint.set("pos", word(tidy(local[:3, 3])))
            self._passive(joint, prim, True)


def tidy(x: Array) -> Array:
    """Without the dust that products of rotations leave."""
    near = np.round(x)
    return np.where(np.abs(x - near) < 1e-12, near, x) + 0.0
