"""Values of engine fields written into an MJCF text.

In: MJCF text and what fields such as ``joint:elbow.damping`` are to be. Out: the same text with those numbers, every
changed attribute by name, and the fields that MJCF has no place for, each with the reason. Whatever the text derives a
number from (default classes, geoms that make a mass, shortcuts such as ``<position kp=...>``), the number is stated at
the element itself, so nothing else moves with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from flyball.base import Unsupported
from flyball.robots.models.elements import number, numbers
from flyball.robots.models.facts import facts
from flyball.robots.models.markup import Document, parse
from flyball.robots.models.model import Actuator

Array = NDArray[np.float64]

_LINE = ("name", "class", "group", "ctrllimited", "forcelimited", "actlimited", "ctrlrange", "forcerange", "actrange",
         "lengthrange", "gear", "cranklength", "joint", "jointinparent", "tendon", "cranksite", "slidersite", "site",
         "refsite", "body", "user", "armature", "damping", "delay", "nsample", "interp")  # fmt: skip
"""Attributes that every kind of actuator has; the others belong to MJCF's shortcuts."""
_WORDS = ("none", "integrator", "filter", "filterexact", "fixed", "affine", "muscle")


@dataclass(frozen=True)
class Change:
    """One attribute of the model that is another now.

    Attributes:
      element: kind and name, e.g. ``joint elbow``.
      attribute: of MJCF.
      before, after: as MJCF writes them; "" where nothing was written.
    """

    element: str
    attribute: str
    before: str
    after: str


@dataclass(frozen=True)
class Patched:
    """A patched text.

    Attributes:
      mjcf: the text.
      changes: what differs.
      refused: field -> why it could not be written.
    """

    mjcf: str
    changes: tuple[Change, ...]
    refused: Mapping[str, str]


def patch(mjcf: str, assets: Mapping[str, bytes], values: Mapping[str, Array], timestep: float = 0.0) -> Patched:
    """Write fields into a text.

    Args:
      mjcf: text that compiles with ``assets``.
      values: ``kind:NAME.field`` -> (k,), as ``Simulation.get`` gives them. Masses carry their inertia with them, and
        a servo's stiffness and damping go with its gain, as in ``Simulation.set``.
      timestep: of the engine, written too [s]; 0: as authored.
    """
    import mujoco

    editor = _Editor(parse(mjcf.encode(), "the model"), mujoco.MjSpec.from_string(mjcf, assets=dict(assets)).compile())
    refused = {}
    # gains first: a damping of its own outlives a change of the gain
    for name in sorted(values, key=lambda k: not k.endswith(".gain")):
        try:
            editor.write(name, np.asarray(values[name], float))
        except Unsupported as err:
            refused[name] = err.what
    editor.finish()
    if timestep:
        editor.step(timestep)
    return Patched(editor.document.text()[0], tuple(editor.changes()), refused)


class _Editor:
    def __init__(self, document: Document, model: Any) -> None:
        self.document, self.model = document, model
        self.actuators: dict[str, Actuator] = dict(facts(model).actuators)
        self.before: dict[tuple[str, str], str] = {}
        self.after: dict[tuple[str, str], str] = {}
        self.touched: dict[str, tuple[Element, set[str]]] = {}

    def write(self, name: str, v: Array) -> None:
        kind, _, rest = name.partition(":")
        item, _, field = rest.rpartition(".")
        do: Callable[[str, str, Array], None] | None = {
            "joint": self._joint, "body": self._body, "geom": self._geom, "actuator": self._actuator,
            "tendon": self._tendon,
        }.get(kind)  # fmt: skip
        if do is None:
            raise Unsupported(f"MJCF has no attribute for {name}")
        do(item, field, v)

    def changes(self) -> list[Change]:
        return [Change(*at, self.before[at], after) for at, after in self.after.items() if self.before[at] != after]

    def step(self, timestep: float) -> None:
        option = self.document.root.find("option")
        if option is None:
            option = self.document.add(self.document.root, "option", {}, self.document.root)
        self._set("option", "", option, {"timestep": number(timestep)})

    def _find(self, kind: str, item: str) -> Element:
        sections = {"actuator": "actuator", "tendon": "tendon"}
        tags = {"joint": ("joint", "freejoint"), "body": ("body",), "geom": ("geom",)}.get(kind)
        for section in self.document.root.findall(sections.get(kind, "worldbody")):
            for e in section.iter() if tags else section:
                if e.get("name") == item and (tags is None or e.tag in tags):
                    return e
        raise Unsupported(f"no {kind} of that name stands in the text: it is made by a macro")

    def _set(self, kind: str, item: str, e: Element, attributes: Mapping[str, str | None]) -> None:
        for key, text in attributes.items():
            at = (f"{kind} {item}".strip(), key)
            self.before.setdefault(at, e.get(key, ""))
            if text is None:
                e.attrib.pop(key, None)
            else:
                e.set(key, text)
            self.after[at] = text or ""

    def _joint(self, item: str, field: str, v: Array) -> None:
        e = self._find("joint", item)
        if e.tag == "freejoint":
            raise Unsupported("a freejoint has no such attribute")
        if field not in ("damping", "armature", "frictionloss") or np.ptp(v):
            raise Unsupported(f"MJCF has one {field} for all axes of a joint" if np.ptp(v) else "no attribute of MJCF")
        higher = e.get(field, "").split()[1:]  # damping may be a polynomial in speed
        self._set("joint", item, e, {field: " ".join([number(v[0]), *higher])})

    def _body(self, item: str, field: str, v: Array) -> None:
        if field != "mass":
            raise Unsupported("no attribute of MJCF")
        e, m = self._find("body", item), self.model
        i = m.body(item).id
        ratio = v[0] / m.body_mass[i]
        self._from_shapes()
        inertial = e.find("inertial")
        moments: dict[str, str | None] = {}
        if inertial is None:
            inertial = Element("inertial")
            e.insert(0, inertial)
            moments = {"pos": numbers(m.body_ipos[i]), "quat": numbers(m.body_iquat[i])}
            moments["diaginertia"] = numbers(m.body_inertia[i] * ratio)
        for key in ("diaginertia", "fullinertia"):
            if inertial.get(key):
                moments[key] = numbers(np.array(inertial.get(key, "").split(), float) * ratio)
        self._set("body", item, inertial, {"mass": number(v[0]), **moments})

    def _from_shapes(self) -> None:
        """Let stated masses count where the text has shapes make all of them."""
        compiler = self.document.root.find("compiler")
        if compiler is None or compiler.get("inertiafromgeom") != "true":
            return
        for body in self.document.root.iter("body"):
            for unread in body.findall("inertial"):
                body.remove(unread)
        self._set("compiler", "", compiler, {"inertiafromgeom": "auto"})

    def _geom(self, item: str, field: str, v: Array) -> None:
        if field not in ("friction", "solref"):
            reasons = {"restitution": "MJCF says a rebound by the contact's stiffness and damping, which the engine "
                       "derives from its time step"}  # fmt: skip
            raise Unsupported(reasons.get(field, "no attribute of MJCF"))
        own = np.array(getattr(self.model.geom(item), field), float)
        own[: len(v)] = v
        self._set("geom", item, self._find("geom", item), {field: numbers(own)})

    def _tendon(self, item: str, field: str, v: Array) -> None:
        if field != "force_limit":
            raise Unsupported("no attribute of MJCF")
        self._set("tendon", item, self._find("tendon", item), {"actuatorfrcrange": numbers([-v[0], v[0]])})

    # actuators --------------------------------------------------------------------------------------------

    def _actuator(self, item: str, field: str, v: Array) -> None:
        e, a = self._find("actuator", item), self.actuators[item]
        gain, bias = a.gain_prm.copy(), a.bias_prm.copy()
        if field == "force_limit":
            return self._set("actuator", item, e, {"forcerange": numbers([-v[0], v[0]])})
        if field == "gain":
            if bias[1]:
                bias[1:3] *= v[0] / gain[0]
            gain[0] = v[0]
        elif field == "damping":
            bias[2] = -v[0]
        elif field in ("position_gain", "velocity_gain"):
            gain[1 if field == "position_gain" else 2] = v[0]
        else:
            raise Unsupported("no attribute of MJCF")
        if not {a.dynamics, a.gain, a.bias} <= set(_WORDS):
            raise Unsupported(f"an actuator with {a.dynamics} dynamics is not written anew")
        a.gain_prm[:], a.bias_prm[:] = gain, bias
        self.touched[item] = (e, self.touched.get(item, (e, set()))[1] | {field})

    def finish(self) -> None:
        """Actuators at last: several fields may have changed one."""
        for item, (e, fields) in self.touched.items():
            a = self.actuators[item]
            if e.tag == "position" and fields <= {"gain", "damping"} and a.bias_prm[1] == -a.gain_prm[0]:
                kv = {"kp": number(a.gain_prm[0]), "kv": number(-a.bias_prm[2]), "dampratio": None}
                self._set("actuator", item, e, kv if e.get("dampratio") else {k: kv[k] for k in ("kp", "kv")})
                continue
            if e.tag != "general":
                self._set("actuator", item, e, {k: None for k in [*e.attrib] if k not in _LINE})
                if np.isfinite(a.ctrlrange).all():
                    self._set("actuator", item, e, {"ctrlrange": numbers(a.ctrlrange)})
                types = {"dyntype": a.dynamics, "gaintype": a.gain, "biastype": a.bias}
                self._set("actuator", item, e, {**types, "dynprm": _short(a.dynamics_prm)})
                self.before[f"actuator {item}", "element"], self.after[f"actuator {item}", "element"] = e.tag, "general"
                e.tag = "general"
            self._set("actuator", item, e, {"gainprm": _short(a.gain_prm, e.get("gainprm"))})
            if a.bias != "none":
                self._set("actuator", item, e, {"biasprm": _short(a.bias_prm, e.get("biasprm"))})


def _short(values: Sequence[float] | Array, written: str | None = None) -> str:
    """Numbers without the zeros at their end, but at least as many as were written."""
    v = np.asarray(values, float)
    most = max([1, len((written or "").split()), *(np.flatnonzero(v) + 1)])
    return numbers(v[:most])


__all__ = ["Change", "Patched", "patch"]
