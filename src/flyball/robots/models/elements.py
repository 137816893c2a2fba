"""Facts as MJCF elements.

In: elements of ``Model``. Out: ``Spelled`` MJCF elements (tag, attributes, children) with every number to its last
digit and without what MuJoCo assumes anyway. What these words cannot carry is ``None``; the caller says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from flyball.robots.models.model import (
    WORLD,
    Actuator,
    Body,
    Camera,
    Equality,
    Exclude,
    Geom,
    Joint,
    Light,
    Pair,
    Sensor,
    Site,
    Tendon,
)

_SOLREF, _SOLIMP = (0.02, 1.0), (0.9, 0.95, 0.001, 0.5, 2.0)


@dataclass
class Spelled:
    """An MJCF element."""

    tag: str
    attributes: dict[str, str]
    children: list[Spelled] = field(default_factory=list)


def number(x: float) -> str:
    """A number to its last digit, whole ones short."""
    x = float(x)
    return str(int(x)) if x == int(x) and abs(x) < 1e15 else repr(x)


def numbers(values: Iterable[float] | float) -> str:
    """Numbers, separated by blanks."""
    return " ".join(number(float(x)) for x in np.ravel(np.asarray(values, float)))


class _Attributes(dict[str, str]):
    """Attributes; what equals its default is left out."""

    def put(self, key: str, value: object, default: object = None) -> None:
        if isinstance(value, str):
            if value != (default or ""):
                self[key] = value
        elif isinstance(value, bool | np.bool_):
            if bool(value) != default:
                self[key] = "true" if value else "false"
        else:
            values = np.ravel(np.asarray(value, float))
            if default is None or not np.array_equal(values, np.ravel(np.asarray(default, float))):
                self[key] = numbers(values)

    def limits(self, key: str, values: np.ndarray) -> None:
        if np.isfinite(values).all():
            self[key] = numbers(values)

    def poly(self, key: str, value: float, more: np.ndarray) -> None:
        """A coefficient and, where there are any, its higher polynomial ones."""
        self.put(key, [value, *more] if np.any(more) else value, 0)


def pose(pos: np.ndarray, quat: np.ndarray) -> dict[str, str]:
    """Attributes ``pos`` and ``quat``."""
    a = _Attributes()
    a.put("pos", pos, (0, 0, 0))
    a.put("quat", quat, (1, 0, 0, 0))
    return a


def inertial(body: Body) -> Spelled:
    """Mass, centre of mass and full inertia of a body."""
    i = body.inertia
    full = (i[0, 0], i[1, 1], i[2, 2], i[0, 1], i[0, 2], i[1, 2])
    return Spelled("inertial", {"pos": numbers(body.com), "mass": number(body.mass), "fullinertia": numbers(full)})


def joint(j: Joint) -> Spelled:
    """A joint."""
    a = _Attributes(name=j.name)
    a.put("type", j.kind, "hinge")
    if j.kind in ("hinge", "slide"):
        a.put("axis", j.axis, (0, 0, 1))
    if j.kind != "free":
        a.put("pos", j.anchor, (0, 0, 0))
    a.limits("range", j.range)
    a.limits("actuatorfrcrange", j.effort)
    a.poly("damping", j.damping, j.damping_poly)
    a.put("armature", j.armature, 0)
    a.put("frictionloss", j.frictionloss, 0)
    a.poly("stiffness", j.stiffness, j.stiffness_poly)
    if j.kind in ("hinge", "slide"):
        a.put("springref", j.springref, 0)
        a.put("ref", j.ref, 0)
    a.put("margin", j.margin, 0)
    a.put("solreflimit", j.solref, _SOLREF)
    a.put("solimplimit", j.solimp, _SOLIMP)
    a.put("solreffriction", j.friction_solref, _SOLREF)
    a.put("solimpfriction", j.friction_solimp, _SOLIMP)
    a.put("actuatorgravcomp", j.gravcomp_in_effort, False)
    return Spelled("joint", a)


def geom(g: Geom) -> Spelled | None:
    """A geom; height fields are not carried."""
    if g.kind in ("hfield", "sdf"):
        return None
    a = _Attributes(name=g.name)
    a.put("type", g.kind, "sphere")
    a |= pose(g.pos, g.quat)
    if g.kind == "mesh":
        a["mesh"] = g.mesh
    else:
        used = {"sphere": 1, "capsule": 2, "cylinder": 2}.get(g.kind, 3)
        a["size"] = numbers(g.size[:used])
    a |= geom_physics(g)
    a.put("rgba", g.rgba, (0.5, 0.5, 0.5, 1))
    a.put("group", g.group, 0)
    return Spelled("geom", a)


def geom_physics(g: Geom) -> dict[str, str]:
    """Contact attributes of a geom."""
    a = _Attributes()
    a.put("friction", g.friction, (1, 0.005, 0.0001))
    a.put("condim", g.condim, 3)
    a.put("contype", g.contype, 1)
    a.put("conaffinity", g.conaffinity, 1)
    a.put("priority", g.priority, 0)
    a.put("margin", g.margin, 0)
    a.put("gap", g.gap, 0)
    a.put("solref", g.solref, _SOLREF)
    a.put("solimp", g.solimp, _SOLIMP)
    a.put("solmix", g.solmix, 1)
    return a


def site(s: Site) -> Spelled | None:
    """A site; one in the shape of a mesh is not carried."""
    if s.kind == "mesh":
        return None
    a = _Attributes(name=s.name)
    a.put("type", s.kind, "sphere")
    a |= pose(s.pos, s.quat)
    a["size"] = numbers(s.size)
    return Spelled("site", a)


def actuator(u: Actuator) -> Spelled | None:
    """An actuator in general form; PID and DC motor drives, which have more inputs or states, are not carried."""
    a = _Attributes(name=u.name)
    targets = {"joint": "joint", "joint_in_parent": "jointinparent", "tendon": "tendon", "site": "site", "body": "body"}
    if u.target_kind == "slider_crank":
        a |= {"cranksite": u.target, "slidersite": u.second, "cranklength": number(u.other[0])}
    elif u.target_kind in targets and u.target:
        a[targets[u.target_kind]] = u.target
        if u.second:
            a["refsite"] = u.second
    else:
        return None
    plain = {"none", "integrator", "filter", "filterexact", "fixed", "affine", "muscle"}
    if not {u.dynamics, u.gain, u.bias} <= plain or u.controls != 1 or u.other[1]:
        return None
    a.put("gear", u.gear, (1, 0, 0, 0, 0, 0))
    a.put("dyntype", u.dynamics, "none")
    a.put("gaintype", u.gain, "fixed")
    a.put("biastype", u.bias, "none")
    a.put("dynprm", u.dynamics_prm, (1, *[0] * 9))
    a.put("gainprm", u.gain_prm, (1, *[0] * 9))
    a.put("biasprm", u.bias_prm, [0] * 10)
    a.limits("ctrlrange", u.ctrlrange)
    a.limits("forcerange", u.forcerange)
    a.limits("actrange", u.actrange)
    a.put("armature", u.other[2], 0)
    a.poly("damping", u.other[3], u.other[4:6])
    return Spelled("general", a)


def equality(e: Equality) -> Spelled | None:
    """A constraint; those of flexes are not carried."""
    a = _Attributes(name=e.name)
    kind = e.object_kind if e.object_kind in ("body", "site", "joint", "tendon") else ""
    if e.kind not in ("connect", "weld", "joint", "tendon") or not kind:
        return None
    a[f"{kind}1"] = e.first
    if e.second and not (kind == "body" and e.second == WORLD):
        a[f"{kind}2"] = e.second
    if e.kind in ("joint", "tendon"):
        a.put("polycoef", e.data[:5], (0, 1, 0, 0, 0))
    elif kind == "body" and e.kind == "connect":
        a["anchor"] = numbers(e.data[:3])
    elif e.kind == "weld":
        a.put("torquescale", e.data[10], 1)
        if kind == "body":
            a |= {"anchor": numbers(e.data[:3]), "relpose": numbers(e.data[3:10])}
    a.put("active", e.active, True)
    a.put("solref", e.solref, _SOLREF)
    a.put("solimp", e.solimp, _SOLIMP)
    return Spelled(e.kind, a)


def exclude(x: Exclude) -> Spelled:
    """A pair of bodies that never touch."""
    first, second = x.name.split("#")[0].split("|")
    return Spelled("exclude", {"body1": first, "body2": second})


def pair(p: Pair) -> Spelled:
    """A pair of geoms with their own contact."""
    first, second = p.name.split("#")[0].split("|")
    a = _Attributes(geom1=first, geom2=second, condim=str(p.condim), friction=numbers(p.friction))
    a |= {"margin": number(p.margin), "gap": number(p.gap), "solref": numbers(p.solref), "solimp": numbers(p.solimp)}
    a.put("solreffriction", p.solref_friction, (0, 0))
    a.put("adhesion", p.adhesion, 0)
    return Spelled("pair", a)


def tendon(t: Tendon) -> Spelled:
    """A tendon with its path."""
    a = _Attributes(name=t.name)
    a.limits("range", t.range)
    a.limits("actuatorfrcrange", t.effort)
    a.poly("stiffness", t.stiffness, t.solver[14:16])
    a.poly("damping", t.damping, t.solver[16:18])
    a.put("frictionloss", t.frictionloss, 0)
    a.put("armature", t.armature, 0)
    a.put("springlength", t.springlength)
    a.put("margin", t.margin, 0)
    a.put("solreflimit", t.solver[:2], _SOLREF)
    a.put("solimplimit", t.solver[2:7], _SOLIMP)
    a.put("solreffriction", t.solver[7:9], _SOLREF)
    a.put("solimpfriction", t.solver[9:14], _SOLIMP)
    path = []
    for kind, name, value in t.path:
        if kind == "joint":
            path.append(Spelled("joint", {"joint": name, "coef": number(value)}))
        elif kind == "pulley":
            path.append(Spelled("pulley", {"divisor": number(value)}))
        elif kind == "site":
            path.append(Spelled("site", {"site": name}))
        else:
            geom_name, _, side = name.partition("@")
            path.append(Spelled("geom", {"geom": geom_name, **({"sidesite": side} if side else {})}))
    return Spelled("fixed" if t.path and t.path[0][0] == "joint" else "spatial", a, path)


def camera(c: Camera) -> Spelled:
    """A camera."""
    a = _Attributes(name=c.name, **pose(c.pos, c.quat))
    if np.any(c.sensor > 0):
        a |= {"sensorsize": numbers(c.sensor), "focal": numbers(c.intrinsic[:2]), "principal": numbers(c.intrinsic[2:])}
    else:
        a["fovy"] = number(c.fovy)
    a.put("resolution", c.resolution, (1, 1))
    a.put("mode", c.mode, "fixed")
    a.put("target", c.target, "")
    a.put("projection", "orthographic" if c.orthographic else "perspective", "perspective")
    return Spelled("camera", a)


def light(x: Light) -> Spelled | None:
    """A light; image lights are not carried."""
    if x.kind == "image":
        return None
    a = _Attributes(name=x.name)
    a.put("type", x.kind, "spot")
    a |= {"pos": numbers(x.pos), "dir": numbers(x.dir)}
    a.put("mode", x.mode, "fixed")
    a.put("target", x.target, "")
    a.put("active", x.active, True)
    a.put("castshadow", x.castshadow, True)
    for key in ("ambient", "diffuse", "specular", "attenuation"):
        a[key] = numbers(getattr(x, key))
    for key, value in zip(("cutoff", "exponent", "bulbradius", "intensity", "range"), x.other, strict=True):
        a[key] = number(float(value))
    return Spelled("light", a)


_MJCF_SENSOR = {"jointactfrc": "jointactuatorfrc", "tendonactfrc": "tendonactuatorfrc"}
_WITHOUT_OBJECT = ("clock", "e_potential", "e_kinetic")


def sensor(s: Sensor) -> Spelled | None:
    """A sensor; contact, tactile, user-defined and plug-in sensors and those of geom distances are not carried."""
    a = _Attributes(name=s.name)
    tag = _MJCF_SENSOR.get(s.kind, s.kind)
    if s.kind in ("contact", "tactile", "user", "plugin") or s.kind.startswith("geom") or s.other[3] or s.other[4]:
        return None
    if s.kind.startswith("frame"):
        a |= {"objtype": s.object_kind, "objname": s.object}
        if s.reference:
            a |= {"reftype": s.reference_kind, "refname": s.reference}
    elif s.kind == "insidesite":
        a |= {"site": s.reference, "objtype": s.object_kind, "objname": s.object}
    elif s.kind == "camprojection":
        a |= {"site": s.object, "camera": s.reference}
    elif s.kind not in _WITHOUT_OBJECT:
        if s.object_kind not in ("joint", "site", "tendon", "actuator", "body", "camera"):
            return None
        a[s.object_kind] = s.object
        if s.kind == "rangefinder" and s.other[0] > 1:  # more than the distance
            return None
    a.put("cutoff", s.cutoff, 0)
    a.put("noise", s.noise, 0)
    return Spelled(tag, a)


_FURTHER: dict[str, dict[str, object]] = {  # kind -> field of the rest -> default
    "sites": {"group": 0, "rgba": (0.5, 0.5, 0.5, 1), "user": None},
    "cameras": {"ipd": 0.068, "user": None},
    "lights": {"softness": 0.2},
    "tendons": {"group": 0, "width": 0.003, "rgba": (0.5, 0.5, 0.5, 1), "user": None},
    "actuators": {"group": 0, "actearly": False, "lengthrange": (0, 0), "user": None},
    "sensors": {"user": None},
    "joints": {"group": 0, "user": None},
    "geoms": {"user": None},
    "bodies": {"user": None, "sleep": "auto"},
}


def further(kind: str, rest: Mapping[str, object]) -> dict[str, str]:
    """Attributes of what else an element's author said; see ``Model.rest``.

    Args:
      kind: as in ``Model``.
    """
    a = _Attributes()
    for key, default in _FURTHER.get(kind, {}).items():
        value = rest.get(key)
        if isinstance(default, bool):
            value = bool(np.any(np.asarray(value, float)))
        if value is None or (default is None and not np.any(np.asarray(value, float))):
            continue
        if key in ("ipd", "softness", "rgba"):  # which MuJoCo keeps in single precision
            value = [float(str(np.float32(x))) for x in np.ravel(np.asarray(value, float))]
        a.put(key, value, default)
    return a


def option(values: Mapping[str, object]) -> dict[str, str]:
    """Attributes of ``<option>``, without flags."""
    a = _Attributes()
    for key, default in {
        "timestep": 0.002,
        "gravity": (0, 0, -9.81),
        "wind": (0, 0, 0),
        "magnetic": (0, -0.5, 0),
        "density": 0,
        "viscosity": 0,
        "impratio": 1,
        "tolerance": 1e-8,
        "iterations": 100,
        "ls_tolerance": 0.01,
        "ls_iterations": 50,
        "noslip_tolerance": 1e-6,
        "noslip_iterations": 0,
        "ccd_tolerance": 1e-6,
        "ccd_iterations": 35,
        "sdf_iterations": 10,
        "sdf_initpoints": 40,
        "sleep_tolerance": 1e-3,
        "o_margin": 0,
        "o_solref": _SOLREF,
        "o_solimp": _SOLIMP,
        "o_friction": (1, 1, 0.005, 0.0001, 0.0001),
    }.items():
        if key in values:
            a.put(key, values[key], default)
    off = int(np.ravel(np.asarray(values.get("disableactuator", 0), float))[0])
    if off:
        a["actuatorgroupdisable"] = " ".join(str(g) for g in range(31) if off >> g & 1)
    a.put("jacobian", str(values.get("jacobian", "auto")), "auto")
    solvers = {"pgs": "PGS", "cg": "CG", "newton": "Newton"}
    a.put("solver", solvers.get(str(values.get("solver", "newton")), "Newton"), "Newton")
    words = {"rk4": "RK4", "euler": "Euler"}
    integrator = str(values.get("integrator", "euler"))
    a.put("integrator", words.get(integrator, integrator), "Euler")
    a.put("cone", str(values.get("cone", "pyramidal")), "pyramidal")
    return a


def flags(values: Mapping[str, object]) -> Spelled | None:
    """What is switched off and on."""
    a = {word: "disable" for word in str(values.get("disable", "")).split()}
    a |= {word: "enable" for word in str(values.get("enable", "")).split()}
    return Spelled("flag", a) if a else None
