"""Sensors and keyframes as MJCF elements.

In: prims with ``flyball:sensor:`` and ``flyball:key:`` attributes. Out: the sections ``sensor`` and ``keyframe``.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element, SubElement, fromstring, tostring

import numpy as np
from pxr import Usd, UsdPhysics

from flyball.base import InputError
from flyball.robots.models.elements import sensor
from flyball.robots.models.model import Sensor
from flyball.scenes.usd.references import References, is_kind
from flyball.scenes.usd.values import Values, word
from flyball.scenes.usd.vocabulary import INTERPOLATION

_KIND = {"xbody": "body"}


class RecordsReader:
    """Reads sensors and keyframes."""

    def __init__(self, refs: References) -> None:
        self.refs = refs
        self._timing: dict[str, dict[str, str]] = {}

    def write(self, root: Element, sensors: Element, keyframes: Element) -> None:
        """Append to the two sections; root: the model so far."""
        self._sensors(root, sensors)
        for prim in self.refs.prims:
            if is_kind(prim, "key"):
                self._key(root, keyframes, prim)

    def _sensors(self, root: Element, section: Element) -> None:
        facts = [f for p in self.refs.prims if is_kind(p, "sensor") and (f := self._sensor(p)) is not None]
        spelled = {f.name: sensor(f) for f in facts}
        others = [f for f in facts if spelled[f.name] is None]
        rare = self._by_mujoco(root, others) if others else {}
        for fact in facts:
            short = spelled[fact.name]
            e = Element(short.tag, short.attributes) if short is not None else rare[fact.name]
            e.attrib |= self._timing[fact.name]
            section.append(e)

    def _sensor(self, prim: Usd.Prim) -> Sensor | None:
        v = self.refs.values
        kind = v.get(prim, "flyball:sensor:kind", "Token")
        if not kind:
            raise v.bad(prim, "flyball:sensor:kind has no value", "a kind of sensor of MuJoCo")
        ends: list[str] = []
        for end in ("object", "reference"):
            targets = self.refs.targets(prim, f"flyball:sensor:{end}")
            what = v.get(prim, f"flyball:sensor:{end}:kind", "Token") or "site"
            called = self.refs.name(_KIND.get(what, what), targets[0]) if targets else ""
            if called is None:
                self.refs.lost(prim, f"flyball:sensor:{end}", targets[0])
                return None
            ends += [what, called] if targets else ["", ""]
        numbers = v.get(prim, "flyball:sensor:parameters", "DoubleArray")
        if numbers is not None and len(numbers) != 5:
            raise v.bad(prim, f"flyball:sensor:parameters has {len(numbers)} numbers", "5")
        self.refs.taken.add(prim.GetPath())
        name = self.refs.names("sensor", prim.GetPath())
        self._timing[name] = self._times(prim, 0.0 if numbers is None else float(numbers[3]))
        return Sensor(
            name,
            kind,
            ends[0],
            ends[1],
            ends[2],
            ends[3],
            v.get(prim, "flyball:sensor:cutoff", "Double") or 0.0,
            v.get(prim, "flyball:sensor:noise", "Double") or 0.0,
            np.zeros(5) if numbers is None else numbers,
        )

    def _times(self, prim: Usd.Prim, delay: float) -> dict[str, str]:
        """Attributes of a sensor that is read late, or not at every step."""
        v, out = self.refs.values, {"delay": word(delay)} if delay else {}
        history = v.get(prim, "flyball:sensor:history", "IntArray")
        interval = v.get(prim, "flyball:sensor:interval", "DoubleArray")
        if history is not None:
            if len(history) != 2 or not 0 <= history[1] < len(INTERPOLATION):
                raise v.bad(prim, f"flyball:sensor:history = {word(history)}", "samples, and 0 to 2")
            out |= {"nsample": word(history[0]), "interp": INTERPOLATION[int(history[1])]}
        return out if interval is None else out | {"interval": word(interval)}

    def _by_mujoco(self, root: Element, facts: list[Sensor]) -> dict[str, Element]:
        """Rare kinds, which all name what they are on in their own way: MuJoCo itself writes the elements."""
        import mujoco

        try:
            spec = mujoco.MjSpec.from_string(tostring(root, encoding="unicode"), assets=dict(self.refs.shapes.assets))
            for f in facts:
                kind = getattr(mujoco.mjtSensor, f"mjSENS_{f.kind.upper()}", None)
                if kind is None or f.kind in ("plugin", "user", "tactile"):
                    what = f"flyball:sensor:kind = {f.kind!r} of {f.name}"
                    raise InputError(what, where=self.refs.values.where, allowed="a kind of sensor of MuJoCo")
                made = spec.add_sensor(name=f.name, type=kind, cutoff=f.cutoff, noise=f.noise)
                made.intprm = [int(x) for x in f.other[:3]]
                for word1, kind_, name in (("obj", f.object_kind, f.object), ("ref", f.reference_kind, f.reference)):
                    if name:
                        setattr(made, f"{word1}type", getattr(mujoco.mjtObj, f"mjOBJ_{kind_.upper()}"))
                        setattr(made, f"{word1}name", name)
            written = fromstring(spec.to_xml())
        except (ValueError, AttributeError) as err:
            raise InputError(refused(err), where=self.refs.values.where) from err
        found = {e.get("name", ""): e for section in written.iter("sensor") for e in section}
        for f in facts:
            found[f.name].attrib |= {k: word(x) for k, x in (("cutoff", f.cutoff), ("noise", f.noise)) if x}
        return found

    def _key(self, root: Element, section: Element, prim: Usd.Prim) -> None:
        """Every joint's part, in the model's order; parts that the keyframe does not have stay at the start."""
        v = self.refs.values
        key = {"name": self.refs.names("key", prim.GetPath())}
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
        self.refs.taken.add(prim.GetPath())

    def _start(self, root: Element, joint: Element) -> list[float]:
        body = next(b for b in root.iter("body") if joint in [*b])
        pos = [float(x) for x in (body.get("pos") or "0 0 0").split()]
        return pos + [float(x) for x in (body.get("quat") or "1 0 0 0").split()]

    def _parts(self, prim: Usd.Prim, what: str, kind: str) -> dict[str | None, Any]:
        """Element name -> its numbers, from a flat array beside a relationship."""
        v = self.refs.values
        numbers = v.get(prim, f"flyball:key:{what}", "DoubleArray")
        if numbers is None:
            return {}
        targets = self.refs.targets(prim, f"flyball:key:{what}:of")
        sizes = [self._size(t, what) for t in targets]
        if sum(sizes) != len(numbers):
            raise v.bad(prim, f"flyball:key:{what} has {len(numbers)} numbers", f"{sum(sizes)}")
        parts = np.split(numbers, np.cumsum(sizes)[:-1]) if sizes else []
        return {self.refs.name(kind, t): x for t, x in zip(targets, parts, strict=True)}

    def _size(self, path: Any, what: str) -> int:
        if what == "mocap:pose":
            return 7
        prim = self.refs.values.stage.GetPrimAtPath(path)
        if what.startswith("actuator"):
            if what.endswith("activation") and prim.HasAttribute("mjc:actDim"):
                return max(1, int(self.refs.values.get(prim, "mjc:actDim", "Int")))
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
