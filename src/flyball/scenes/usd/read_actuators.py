"""Actuators, and drives that stand for one, as MJCF elements.

In: ``MjcActuator`` prims and UsdPhysics drives. Out: the section ``actuator``. Where both are on a joint the actuator
counts, and a drive that says something else is a loss.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, SubElement

import numpy as np
from pxr import Usd, UsdPhysics

from flyball.scenes.usd.mechanisms import drive_gains
from flyball.scenes.usd.references import References, is_kind
from flyball.scenes.usd.values import word
from flyball.scenes.usd.vocabulary import ACTUATOR, authored

DRIVE_TOLERANCE = 1e-4
"""Relative difference from which on a drive and the actuator on the same joint disagree."""


class ActuatorsReader:
    """Reads actuators and drives.

    Args:
      drives: joint path (with the direction, for a generic joint) -> (MJCF joint, drive's name, angular).
    """

    def __init__(self, refs: References, drives: dict[Any, tuple[str, str, bool]]) -> None:
        self.refs, self.drives = refs, drives

    def write(self, section: Element) -> None:
        """Append to the section."""
        driven: dict[Any, list[Usd.Prim]] = {}
        for prim in self.refs.prims:
            if is_kind(prim, "actuator"):
                self._actuator(section, prim, driven)
        for key, (joint, name, angular) in self.drives.items():
            path = str(key).partition(":")[0]
            prim = self.refs.values.stage.GetPrimAtPath(path)
            if prim.GetPath() in driven:
                self._compare(prim, name, angular, driven[prim.GetPath()])
            else:
                self._drive(section, prim, joint, name, angular)

    def _actuator(self, section: Element, prim: Usd.Prim, driven: dict[Any, list[Usd.Prim]]) -> None:
        v = self.refs.values
        targets = self.refs.targets(prim, "mjc:target")
        if len(targets) != 1:
            raise v.bad(prim, f"mjc:target names {len(targets)} prims", "one joint, tendon, site or body")
        target = targets[0]
        slider = self.refs.targets(prim, "mjc:sliderSite")
        e = {"name": self.refs.names("actuator", prim.GetPath())}
        for kind in ("joint", "tendon", "site", "body"):
            if kind == "body" and not self.refs.names.has("body", target):
                continue
            if (name := self.refs.name(kind, target)) is not None:
                key = "jointinparent" if kind == "joint" and v.get(prim, "mjc:jointInParent", "Bool") else kind
                e["cranksite" if slider else key] = name
                break
        else:
            self.refs.lost(prim, "mjc:target", target)
            return
        for relation, key in (("mjc:sliderSite", "slidersite"), ("mjc:refSite", "refsite")):
            for other in self.refs.targets(prim, relation):
                second = self.refs.name("site", other)
                if second is None:
                    self.refs.lost(prim, relation, other)
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
        self.refs.taken.add(prim.GetPath())
        if "joint" in e:
            driven.setdefault(target, []).append(prim)

    def _shorten(self, prim: Usd.Prim, e: dict[str, str]) -> None:
        """MJCF's own limits on how many numbers an attribute may have."""
        for key in ("dynprm", "gainprm", "biasprm"):
            if key in e and len(e[key].split()) > 10:
                raise self.refs.values.bad(prim, f"{key} has {len(e[key].split())} numbers", "up to 10")

    def _compare(self, prim: Usd.Prim, name: str, angular: bool, actuators: list[Usd.Prim]) -> None:
        """Say so if a drive is none of the servos on its joint."""
        v, drive = self.refs.values, UsdPhysics.DriveAPI(prim, name)
        theirs = [v.number(prim, a, 0.0) or 0.0 for a in (drive.GetStiffnessAttr(), drive.GetDampingAttr())]
        found: list[tuple[Usd.Prim, tuple[float, float]]] = []
        for actuator in actuators:
            bias = v.get(actuator, "mjc:biasPrm", "DoubleArray")
            gear = v.get(actuator, "mjc:gear", "DoubleArray")
            if bias is not None and len(bias) >= 3 and v.get(actuator, "mjc:biasType", "Token") == "affine":
                found.append((actuator, drive_gains(bias, np.ones(6) if gear is None else gear, angular)))
        for _, ours in found:
            if all(abs(a - b) <= DRIVE_TOLERANCE * max(abs(a), abs(b)) for a, b in zip(ours, theirs, strict=True)):
                return
        for actuator, ours in found[:1]:
            self.refs.losses.append(
                f"{prim.GetPath()}: its drive (stiffness {theirs[0]:g}, damping {theirs[1]:g}) disagrees with "
                f"{actuator.GetPath()} ({ours[0]:g}, {ours[1]:g}); the actuator counts"
            )

    def _drive(self, section: Element, prim: Usd.Prim, joint: str, name: str, angular: bool) -> None:
        """A drive without an actuator beside it, as a position or velocity servo."""
        v, drive = self.refs.values, UsdPhysics.DriveAPI(prim, name)
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
            self.refs.losses.append(f"{prim.GetPath()}: drive:{name} acts on acceleration; taken as a force drive")
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
            self.refs.losses.append(
                f"{prim.GetPath()}: its target {wanted:g} is not carried; set it as control {label!r}"
            )
        else:
            self.refs.notes.append(f"{prim.GetPath()}: its drive is actuator {label!r}")
