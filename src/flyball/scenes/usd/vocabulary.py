"""Which fact stands in which USD attribute: the one table that writing and reading share.

In: nothing. Out: rules (fact, MJCF attribute, USD attribute, USD type), and the conversions between SI in double
precision and what USD stores. UsdPhysics says bodies, joints, limits, drives, filters; the Newton schemas
(``newton:``) and the MuJoCo ones (``mjc:``) say what it cannot; what no schema says stands in ``flyball:`` attributes.
USD measures angles in degrees, and MuJoCo's attributes here in radians, which ``mjc:compiler:angle`` says.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

VERSION = 1
"""Of the ``flyball:`` attributes; a file with a higher one is refused."""
UNITS = {"Float": float, "Double": float, "Int": int, "Bool": bool, "Token": str, "String": str}
ARRAYS = {"DoubleArray": float, "IntArray": int}


class Rule(NamedTuple):
    """One fact in both formats.

    Attributes:
      fact: field of the element in ``flyball.robots.models.model``.
      mjcf: MJCF attribute.
      usd: USD attribute.
      kind: USD value type.
      default: what both sides assume when nothing is written.
    """

    fact: str
    mjcf: str
    usd: str
    kind: str
    default: Any


_SOLREF, _SOLIMP = (0.02, 1.0), (0.9, 0.95, 0.001, 0.5, 2.0)

JOINT = (
    Rule("armature", "armature", "newton:armature", "Float", 0.0),
    Rule("frictionloss", "frictionloss", "newton:friction", "Float", 0.0),
    Rule("stiffness", "stiffness", "mjc:stiffness", "Double", 0.0),
    Rule("springref", "springref", "mjc:springref", "Double", 0.0),
    Rule("ref", "ref", "mjc:ref", "Double", 0.0),
    Rule("margin", "margin", "mjc:margin", "Double", 0.0),
    Rule("solref", "solreflimit", "mjc:solreflimit", "DoubleArray", _SOLREF),
    Rule("solimp", "solimplimit", "mjc:solimplimit", "DoubleArray", _SOLIMP),
    Rule("friction_solref", "solreffriction", "mjc:solreffriction", "DoubleArray", _SOLREF),
    Rule("friction_solimp", "solimpfriction", "mjc:solimpfriction", "DoubleArray", _SOLIMP),
    Rule("gravcomp_in_effort", "actuatorgravcomp", "mjc:actuatorgravcomp", "Bool", False),
)
"""Damping, limits and effort have rules of their own in the code: they change unit or shape."""

FREE = ("damping", "armature", "frictionloss", "margin", "stiffness")
"""What a free joint may have besides its name; it has no prim of its own."""
FREE_SOLVER = tuple(
    Rule(r.fact, r.mjcf, f"flyball:free:{r.mjcf}", r.kind, r.default) for r in JOINT if r.mjcf.startswith("sol")
)
"""Likewise, its softness."""

GEOM = (
    Rule("condim", "condim", "mjc:condim", "Int", 3),
    Rule("contype", "contype", "mjc:contype", "Int", None),
    Rule("conaffinity", "conaffinity", "mjc:conaffinity", "Int", None),
    Rule("group", "group", "mjc:group", "Int", 0),
    Rule("priority", "priority", "mjc:priority", "Int", 0),
    Rule("solref", "solref", "mjc:solref", "DoubleArray", _SOLREF),
    Rule("solimp", "solimp", "mjc:solimp", "DoubleArray", _SOLIMP),
    Rule("solmix", "solmix", "mjc:solmix", "Double", 1.0),
    Rule("margin", "margin", "newton:contactMargin", "Float", 0.0),
    Rule("gap", "gap", "newton:contactGap", "Float", 0.0),
)

PAIR = (
    Rule("condim", "condim", "mjc:condim", "Int", 3),
    Rule("friction", "friction", "flyball:friction", "DoubleArray", None),
    Rule("margin", "margin", "mjc:margin", "Double", 0.0),
    Rule("gap", "gap", "mjc:gap", "Double", 0.0),
    Rule("solref", "solref", "mjc:solref", "DoubleArray", _SOLREF),
    Rule("solimp", "solimp", "mjc:solimp", "DoubleArray", _SOLIMP),
    Rule("solref_friction", "solreffriction", "flyball:solreffriction", "DoubleArray", (0.0, 0.0)),
    Rule("adhesion", "adhesion", "flyball:adhesion", "Double", 0.0),
)

EQUALITY = (
    Rule("solref", "solref", "mjc:solref", "DoubleArray", _SOLREF),
    Rule("solimp", "solimp", "mjc:solimp", "DoubleArray", _SOLIMP),
)

ACTUATOR = (
    Rule("gear", "gear", "mjc:gear", "DoubleArray", (1.0, 0, 0, 0, 0, 0)),
    Rule("dynamics", "dyntype", "mjc:dynType", "Token", "none"),
    Rule("dynamics_prm", "dynprm", "mjc:dynPrm", "DoubleArray", (1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
    Rule("gain", "gaintype", "mjc:gainType", "Token", "fixed"),
    Rule("gain_prm", "gainprm", "mjc:gainPrm", "DoubleArray", (1.0, 0, 0, 0, 0, 0, 0, 0, 0, 0)),
    Rule("bias", "biastype", "mjc:biasType", "Token", "none"),
    Rule("bias_prm", "biasprm", "mjc:biasPrm", "DoubleArray", (0.0,) * 10),
    Rule("group", "group", "mjc:group", "Int", 0),
    Rule("early", "actearly", "mjc:actEarly", "Bool", False),
    Rule("dim", "actdim", "mjc:actDim", "Int", -1),
    Rule("lengthrange", "lengthrange", "mjc:lengthRange", "Range", None),
    Rule("crank_length", "cranklength", "mjc:crankLength", "Double", 0.0),
    Rule("input", "input", "flyball:input", "Token", ""),
    Rule("delay", "delay", "flyball:delay", "Double", 0.0),
    Rule("samples", "nsample", "flyball:samples", "Int", 0),
    Rule("interpolation", "interp", "flyball:interpolation", "Token", "zoh"),
    Rule("armature", "armature", "flyball:armature", "Double", 0.0),
    Rule("damping", "damping", "flyball:damping", "DoubleArray", (0.0, 0.0, 0.0)),
)

TENDON = (
    Rule("stiffness", "stiffness", "mjc:stiffness", "Double", 0.0),
    Rule("damping", "damping", "mjc:damping", "Double", 0.0),
    Rule("frictionloss", "frictionloss", "mjc:frictionloss", "Double", 0.0),
    Rule("armature", "armature", "mjc:armature", "Double", 0.0),
    Rule("springlength", "springlength", "mjc:springlength", "DoubleArray", (-1.0, -1.0)),
    Rule("margin", "margin", "mjc:margin", "Double", 0.0),
    Rule("solref", "solreflimit", "mjc:solreflimit", "DoubleArray", _SOLREF),
    Rule("solimp", "solimplimit", "mjc:solimplimit", "DoubleArray", _SOLIMP),
    Rule("friction_solref", "solreffriction", "mjc:solreffriction", "DoubleArray", _SOLREF),
    Rule("friction_solimp", "solimpfriction", "mjc:solimpfriction", "DoubleArray", _SOLIMP),
    Rule("group", "group", "mjc:group", "Int", 0),
    Rule("width", "width", "mjc:width", "Double", 0.003),
    Rule("rgba", "rgba", "flyball:rgba", "DoubleArray", (0.5, 0.5, 0.5, 1.0)),
)

OPTION = (
    Rule("timestep", "timestep", "mjc:option:timestep", "Double", 0.002),
    Rule("integrator", "integrator", "mjc:option:integrator", "Token", "euler"),
    Rule("cone", "cone", "mjc:option:cone", "Token", "pyramidal"),
    Rule("jacobian", "jacobian", "mjc:option:jacobian", "Token", "auto"),
    Rule("solver", "solver", "mjc:option:solver", "Token", "newton"),
    Rule("iterations", "iterations", "mjc:option:iterations", "Int", 100),
    Rule("tolerance", "tolerance", "mjc:option:tolerance", "Double", 1e-8),
    Rule("ls_iterations", "ls_iterations", "mjc:option:ls_iterations", "Int", 50),
    Rule("ls_tolerance", "ls_tolerance", "mjc:option:ls_tolerance", "Double", 0.01),
    Rule("noslip_iterations", "noslip_iterations", "mjc:option:noslip_iterations", "Int", 0),
    Rule("noslip_tolerance", "noslip_tolerance", "mjc:option:noslip_tolerance", "Double", 1e-6),
    Rule("ccd_iterations", "ccd_iterations", "mjc:option:ccd_iterations", "Int", 35),
    Rule("ccd_tolerance", "ccd_tolerance", "mjc:option:ccd_tolerance", "Double", 1e-6),
    Rule("sdf_iterations", "sdf_iterations", "mjc:option:sdf_iterations", "Int", 10),
    Rule("sdf_initpoints", "sdf_initpoints", "mjc:option:sdf_initpoints", "Int", 40),
    Rule("sleep_tolerance", "sleep_tolerance", "flyball:option:sleep_tolerance", "Double", 1e-3),
    Rule("impratio", "impratio", "mjc:option:impratio", "Double", 1.0),
    Rule("density", "density", "mjc:option:density", "Double", 0.0),
    Rule("viscosity", "viscosity", "mjc:option:viscosity", "Double", 0.0),
    Rule("wind", "wind", "mjc:option:wind", "Double3", (0.0, 0.0, 0.0)),
    Rule("magnetic", "magnetic", "mjc:option:magnetic", "Double3", (0.0, -0.5, 0.0)),
    Rule("o_margin", "o_margin", "mjc:option:o_margin", "Double", 0.0),
    Rule("o_solref", "o_solref", "mjc:option:o_solref", "DoubleArray", _SOLREF),
    Rule("o_solimp", "o_solimp", "mjc:option:o_solimp", "DoubleArray", _SOLIMP),
    Rule("o_friction", "o_friction", "mjc:option:o_friction", "DoubleArray", (1.0, 1.0, 0.005, 0.0001, 0.0001)),
)

WORDS = {
    "integrator": ("euler", "rk4", "implicit", "implicitfast", "discrete"),
    "cone": ("pyramidal", "elliptic"),
    "jacobian": ("dense", "sparse", "auto"),
    "solver": ("pgs", "cg", "newton"),
}
"""MuJoCo's numbering of the words."""
MJCF_WORDS = {"euler": "Euler", "rk4": "RK4", "pgs": "PGS", "cg": "CG", "newton": "Newton"}

DISABLE = (
    "constraint",
    "equality",
    "frictionloss",
    "limit",
    "contact",
    "spring",
    "damper",
    "gravity",
    "clampctrl",
    "warmstart",
    "filterparent",
    "actuation",
    "refsafe",
    "sensor",
    "midphase",
    "eulerdamp",
    "autoreset",
    "nativeccd",
    "island",
    "multiccd",
)
"""Flags that are on unless their bit is set, bit 0 first."""
ENABLE = ("override", "energy", "fwdinv", "invdiscrete", "sleep", "diagexact", "ipc")
"""Flags that are off unless their bit is set."""
INTERPOLATION = ("zoh", "linear", "cubic")
"""MuJoCo's numbering of how delayed values are interpolated."""
INPUTS = {0: "", 1: "pos", 2: "vel", 32: "pressure"}
"""What an actuator's control is called, by MuJoCo's ``actuator_ctrlspec``."""

LIGHT = (
    Rule("ambient", "ambient", "flyball:light:ambient", "DoubleArray", (0.0, 0.0, 0.0)),
    Rule("specular", "specular", "flyball:light:specular", "DoubleArray", (0.3, 0.3, 0.3)),
    Rule("attenuation", "attenuation", "flyball:light:attenuation", "DoubleArray", (1.0, 0.0, 0.0)),
    Rule("castshadow", "castshadow", "flyball:light:castshadow", "Bool", True),
    Rule("active", "active", "flyball:light:active", "Bool", True),
    Rule("mode", "mode", "flyball:light:mode", "Token", "fixed"),
    Rule("cutoff", "cutoff", "flyball:light:cutoff", "Double", 45.0),
    Rule("exponent", "exponent", "flyball:light:exponent", "Double", 10.0),
    Rule("bulbradius", "bulbradius", "flyball:light:bulbradius", "Double", 0.02),
    Rule("intensity", "intensity", "flyball:light:intensity", "Double", 0.0),
    Rule("range", "range", "flyball:light:range", "Double", 10.0),
    Rule("softness", "softness", "flyball:light:softness", "Double", 0.2),
)


def single(value: float) -> float:
    """The shortest decimal that is this single-precision number: 0.1, not 0.10000000149."""
    return float(str(np.float32(value)))


def authored(stored: float, to_si: Callable[[float], float], from_si: Callable[[float], float]) -> float:
    """The number in SI units that a single-precision number in USD's unit was most likely written as.

    2.5 rad is stored as 143.23945 deg, which is 2.50000002 rad, and 70 deg as 70 deg: whichever has fewer digits is
    what a person wrote, and comes back as it was; what was computed comes back to single precision.
    """
    exact = np.float32(stored)
    si = to_si(float(stored))
    if not np.isfinite(si) or single(stored) != stored:  # more digits than single precision has: nothing to guess
        return si
    for digits in range(1, 10):
        if float(f"{stored:.{digits}g}") == stored:
            return si
        short = float(f"{si:.{digits}g}")
        if np.float32(from_si(short)) == exact:
            return short
    return si


def radians(degrees: float) -> float:
    """Radians of an angle that USD stores in degrees."""
    return authored(degrees, lambda x: float(np.radians(x)), lambda x: float(np.degrees(x)))


def same(value: Any, default: Any) -> bool:
    """Whether a fact is what both sides assume."""
    if default is None:
        return False
    if isinstance(default, (str, bool)):
        return bool(value == default)
    a, b = np.atleast_1d(np.asarray(value, float)), np.atleast_1d(np.asarray(default, float))
    return a.shape == b.shape and bool(np.all(a == b))


def quat_between(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit quaternion wxyz that turns unit vector a into unit vector b, both (3,)."""
    w = 1.0 + float(a @ b)
    if w < 1e-12:  # opposite: half a turn about any perpendicular
        side = np.eye(3)[int(np.argmin(np.abs(a)))]
        axis = np.cross(a, side)
        return np.concatenate([[0.0], axis / np.linalg.norm(axis)])
    q = np.concatenate([[w], np.cross(a, b)])
    return np.asarray(q / np.linalg.norm(q))
