"""Numbers out of a stage: found, finite, in SI units, in MuJoCo's frame.

In: a composed stage. Out: attribute values, world frames in metres with z up, and names that are unique per kind. A
number that is not finite, or a frame that no rigid body can have, is one line that names the prim.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pxr import Gf, Usd, UsdGeom, UsdPhysics

from flyball.base import InputError
from flyball.robots.models.model import Array
from flyball.scenes.usd.vocabulary import ARRAYS, UNITS, Rule, single

SKEW = 1e-5
"""Largest cosine between the axes of a frame that still counts as a right angle; single precision leaves 1e-7."""
Y_UP = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
"""Turns a stage whose y points up into one whose z does."""


class Values:
    """Reads one stage.

    Args:
      where: what messages call the file.
    """

    def __init__(self, stage: Usd.Stage, where: str) -> None:
        self.stage, self.where = stage, where
        self.metres = self._unit("metersPerUnit", float(UsdGeom.GetStageMetersPerUnit(stage)))
        self.kilograms = self._unit("kilogramsPerUnit", float(UsdPhysics.GetStageKilogramsPerUnit(stage)))
        up = UsdGeom.GetStageUpAxis(stage)
        self.turn = Y_UP if up == UsdGeom.Tokens.y else np.eye(3)
        self._cache = UsdGeom.XformCache(Usd.TimeCode.Default())
        self._frames: dict[Any, Array] = {}
        self.said: list[str] = []
        self.last = ""

    def _unit(self, name: str, value: float) -> float:
        if not np.isfinite(value) or value <= 0:
            raise InputError(f"{name} = {value}", where=self.where, allowed="a positive number")
        return value

    def notes(self) -> list[str]:
        """What was converted."""
        out = []
        if self.metres != 1:
            out.append(f"lengths are in units of {self.metres:g} m (metersPerUnit); converted to metres")
        if not self.stage.HasAuthoredMetadata("metersPerUnit"):
            out.append("metersPerUnit is not stated: USD's own default, 0.01 m, was taken; a model in metres is 100 "
                       "times too small then")  # fmt: skip
        if self.kilograms != 1:
            out.append(f"masses are in units of {self.kilograms:g} kg (kilogramsPerUnit); converted to kilograms")
        if self.turn is Y_UP:
            out.append("y is up (upAxis); turned so that z is")
        return out

    def bad(self, prim: Usd.Prim, what: str, allowed: str = "") -> InputError:
        """An error at a prim."""
        return InputError(what, where=f"{self.where} {prim.GetPath()}", allowed=allowed)

    def axis(self, prim: Usd.Prim, attribute: Any) -> str:
        """``X``, ``Y`` or ``Z``; an axis that is declared and not authored has its schema's default.

        Raises:
          InputError: something else.
        """
        letter = str(attribute.Get())
        if letter not in ("X", "Y", "Z"):
            raise self.bad(prim, f"{attribute.GetName()} = {letter!r}", "X, Y or Z")
        return letter

    # attributes -------------------------------------------------------------------------------------------

    def get(self, prim: Usd.Prim, name: str, kind: str = "") -> Any:
        """An authored value as plain Python or numpy, None when nothing is authored.

        Raises:
          InputError: not finite, or not of the kind asked for.
        """
        self.last = str(prim.GetPath())
        attribute = prim.GetAttribute(name)
        if not attribute or not attribute.HasAuthoredValue():
            return None
        raw = attribute.Get()
        if kind == "Float" and isinstance(raw, float) and (digits := self._exact(prim, name, [raw])) is not None:
            return float(digits[0])
        return self.value(prim, name, raw, kind)

    def _exact(self, prim: Usd.Prim, name: str, raw: Any) -> Array | None:
        """All digits of what is stored in single precision, if they stand beside it and still belong to it."""
        attribute = prim.GetAttribute(f"flyball:exact:{name}")
        if not attribute or not attribute.HasAuthoredValue():
            return None
        digits = np.asarray(self.value(prim, attribute.GetName(), attribute.Get(), "DoubleArray"))
        stored = np.asarray(raw, np.float32)
        return digits if digits.shape == stored.shape and np.array_equal(digits.astype(np.float32), stored) else None

    def value(self, prim: Usd.Prim, name: str, raw: Any, kind: str = "") -> Any:
        """A value made plain and checked."""
        if raw is None:
            return None
        try:
            if kind in ARRAYS:
                out: Any = np.atleast_1d(np.asarray(raw, ARRAYS[kind]))
            elif kind in ("Double3", "Float3", "Point3f"):
                out = np.array([single(x) for x in raw] if kind != "Double3" else raw, float).reshape(3)
            elif kind in UNITS:
                if isinstance(raw, str) != (kind in ("Token", "String")):
                    raise TypeError
                out = single(raw) if kind == "Float" else UNITS[kind](raw)
            else:
                out = raw
        except (TypeError, ValueError, OverflowError) as err:
            raise self.bad(prim, f"{name} is a {type(raw).__name__}", f"a {kind}") from err
        if isinstance(out, (float, np.ndarray)) and not np.all(np.isfinite(out)):
            raise self.bad(prim, f"{name} is not finite", "finite numbers")
        return out

    def number(self, prim: Usd.Prim, attribute: Any, default: float | None = None) -> float | None:
        """A schema attribute's resolved value in shortest decimal; infinite ones are allowed.

        Raises:
          InputError: not a number.
        """
        self.last = str(prim.GetPath())
        raw = attribute.Get() if attribute else None
        if raw is None:
            return default
        if isinstance(raw, bool) or not isinstance(raw, (int, float)):
            raise self.bad(prim, f"{attribute.GetName()} is a {type(raw).__name__}", "a number")
        if np.isnan(raw):
            raise self.bad(prim, f"{attribute.GetName()} is not a number", "a number")
        if attribute.GetTypeName() != "float":
            return float(raw)
        digits = self._exact(prim, attribute.GetName(), [raw])
        return single(raw) if digits is None else float(digits[0])

    def vector(self, prim: Usd.Prim, attribute: Any) -> Array | None:
        """A schema attribute of three numbers, or of a quaternion (wxyz); None without a value."""
        self.last = str(prim.GetPath())
        raw = attribute.Get() if attribute else None
        if raw is None:
            return None
        if isinstance(raw, (Gf.Quatf, Gf.Quatd, Gf.Quath)):
            out = np.array([raw.GetReal(), *raw.GetImaginary()], float)
            digits = self._exact(prim, attribute.GetName(), out)
            out = out if digits is None else digits
            size = float(np.linalg.norm(out))
            if not np.isfinite(size):
                raise self.bad(prim, f"{attribute.GetName()} is not finite", "a unit quaternion")
            if size and abs(size - 1) > 1e-2:
                name = attribute.GetName()
                self.said.append(f"{prim.GetPath()}: {name} has length {size:.3g}; taken with length 1")
            if not size:
                return np.array([1.0, 0, 0, 0])
            return out if abs(size - 1) < 1e-12 else out / size
        plain = np.asarray(self.value(prim, attribute.GetName(), raw, "Float3"))
        digits = self._exact(prim, attribute.GetName(), raw)
        return plain if digits is None else digits

    def array(self, prim: Usd.Prim, attribute: Any, width: int = 1, kind: type = float) -> Array | None:
        """A schema attribute that is an array, (n,) or (n, width); None without a value."""
        self.last = str(prim.GetPath())
        raw = attribute.Get() if attribute else None
        if raw is None:
            return None
        try:
            out: Array = np.asarray(raw, kind)
            out = out.reshape(-1, width) if width > 1 else out.reshape(-1)
        except (TypeError, ValueError, OverflowError) as err:
            raise self.bad(prim, f"{attribute.GetName()} is a {type(raw).__name__}", "an array of numbers") from err
        if not np.isfinite(out).all():
            raise self.bad(prim, f"{attribute.GetName()} is not finite", "finite numbers")
        return out

    def attributes(self, prim: Usd.Prim, rules: Iterable[Rule]) -> dict[str, str]:
        """MJCF attributes of what is authored."""
        out = {}
        for rule in rules:
            if rule.kind == "Range":
                low, high = (self.get(prim, f"{rule.usd}:{end}", "Double") for end in ("min", "max"))
                value = None if low is None or high is None else np.array([low, high])
            else:
                value = self.get(prim, rule.usd, rule.kind)
            if value is not None:
                out[rule.mjcf] = word(value)
        return out

    # frames -----------------------------------------------------------------------------------------------

    def frame(self, prim: Usd.Prim | None) -> Array:
        """World frame of a prim with its scale, in metres, z up, (4, 4); of the stage when None."""
        path = prim.GetPath() if prim else None
        self.last = str(path or "")
        found = self._frames.get(path)
        if found is None:
            found = np.eye(4)
            found[:3, :3] = self.metres * self.turn
            if prim:
                found = found @ np.array(self._cache.GetLocalToWorldTransform(prim), float).T
            if not np.all(np.isfinite(found)):
                raise self.bad(prim or self.stage.GetPseudoRoot(), "its transform is not finite", "finite numbers")
            self._frames[path] = found
        return found

    def rigid(self, prim: Usd.Prim | None) -> Array:
        """The same without the scale."""
        return self.split(prim, self.frame(prim))[0]

    def within(self, owner: Usd.Prim | None, prim: Usd.Prim, mirrored: bool = False) -> tuple[Array, Array]:
        """A prim's pose in the frame of a prim above it, (4, 4), and its scale [m per local unit], (3,).

        Along the chain between the two, so that authored numbers come back as they are and not by way of the world.
        """
        above = self.frame(owner)
        chain = np.eye(4)
        at = prim
        while at and not at.IsPseudoRoot() and (owner is None or at.GetPath() != owner.GetPath()):
            matrix, resets = self._cache.GetLocalTransformation(at)
            if resets:
                break
            chain = np.array(matrix, float).T @ chain
            at = at.GetParent()
        else:
            if not np.all(np.isfinite(chain)):
                raise self.bad(prim, "its transform is not finite", "finite numbers")
            _, scale = self.split(owner, above)
            scale = np.where(np.abs(scale - 1) < 1e-9, 1.0, scale)
            chain[:3] = np.diag(scale) @ chain[:3]
            if owner is None:
                chain[:3] = self.turn @ chain[:3]
            return self.split(prim, chain, mirrored)
        rigid, scale = self.split(prim, self.frame(prim), mirrored)
        return inverse(self.rigid(owner) if owner else np.eye(4)) @ rigid, scale

    def split(self, prim: Usd.Prim | None, frame: Array, mirrored: bool = False) -> tuple[Array, Array]:
        """A frame as (rigid frame, scale along its axes).

        Args:
          mirrored: whether a mirrored one is fine; its scale along x is negative then.

        Raises:
          InputError: it is skewed, mirrored or flat.
        """
        a = frame[:3, :3]
        scale = np.linalg.norm(a, axis=0)
        scale = np.where(np.abs(scale - 1) < 1e-12, 1.0, scale)
        at = prim or self.stage.GetPseudoRoot()
        if np.any(scale < 1e-12):
            raise self.bad(at, "its transform has a scale of zero", "positive scales")
        unit = a / scale
        if np.abs(unit.T @ unit - np.eye(3)).max() > SKEW:
            raise self.bad(at, "its transform is skewed", "translations, rotations and scales along its own axes")
        if np.linalg.det(unit) < 0:
            if mirrored:
                flip = np.array([-1.0, 1.0, 1.0])
                out = np.eye(4)
                out[:3, :3], out[:3, 3] = unit * flip, frame[:3, 3]
                return out, scale * flip
            raise self.bad(at, "its transform is mirrored", "positive scales")
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = unit, frame[:3, 3]
        return out, scale


def inverse(rigid: Array) -> Array:
    """Of a rigid frame, (4, 4)."""
    out = np.eye(4)
    out[:3, :3] = rigid[:3, :3].T
    out[:3, 3] = -rigid[:3, :3].T @ rigid[:3, 3]
    return out


def quat(rigid: Array) -> Array:
    """Quaternion wxyz of a rotation matrix or rigid frame, real part not negative."""
    q = Gf.Matrix3d(*map(float, rigid[:3, :3].T.ravel())).ExtractRotation().GetQuat()
    out = np.array([q.GetReal(), *q.GetImaginary()])
    return -out if out[0] < 0 else out


def placed(rigid: Array) -> dict[str, str]:
    """``pos`` and ``quat`` of a pose, as far as they are not the identity."""
    out = {}
    pos = np.where(np.abs(rigid[:3, 3]) < 1e-15, 0.0, rigid[:3, 3])
    if np.any(pos):
        out["pos"] = word(pos)
    turn = quat(rigid)
    if np.abs(turn[1:]).max() > 1e-15:
        out["quat"] = word(np.where(np.abs(turn) < 1e-15, 0.0, turn))
    return out


def word(value: Any) -> str:
    """A value as MJCF writes it, with every digit it has."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, str):
        return value
    return " ".join(_digits(x) for x in np.ravel(value))


def _digits(x: Any) -> str:
    if isinstance(x, (int, np.integer)):
        return str(x)
    text = repr(float(x))
    return text.removesuffix(".0")


class Names:
    """Names that are unique per kind, taken from display names and, where those repeat, from what sets them apart."""

    def __init__(self) -> None:
        self._wanted: dict[str, dict[Any, str]] = {}
        self._final: dict[str, dict[Any, str]] = {}

    def want(self, kind: str, path: Any, name: str) -> None:
        """Ask for a name; path: of the prim, or any hashable whose text tells where it is."""
        clean = "".join(c for c in name if c.isprintable()) or "unnamed"
        self._wanted.setdefault(kind, {})[path] = clean

    def __call__(self, kind: str, path: Any) -> str:
        """The name that a prim got."""
        if kind not in self._final:
            self._final[kind] = _unique(self._wanted.get(kind, {}))
        return self._final[kind][path]

    def has(self, kind: str, path: Any) -> bool:
        """Whether a prim has a name of that kind."""
        return path in self._wanted.get(kind, {})


def _unique(wanted: dict[Any, str]) -> dict[Any, str]:
    groups: dict[str, list[Any]] = {}
    for path, name in wanted.items():
        groups.setdefault(name, []).append(path)
    out, taken = {}, {n for n, paths in groups.items() if len(paths) == 1}
    for name, paths in groups.items():
        if len(paths) == 1:
            out[paths[0]] = name
            continue
        for path, part in zip(paths, _apart([str(p).strip("/").split("/") for p in paths]), strict=True):
            chosen, n = f"{part}/{name}", 2
            while chosen in taken:
                chosen, n = f"{part}/{name}_{n}", n + 1
            out[path] = chosen
            taken.add(chosen)
    return out


def _apart(paths: Sequence[Sequence[str]]) -> list[str]:
    """The first part at which each of several paths differs from the others' common beginning."""
    depth = 0
    while len({tuple(p[: depth + 1]) for p in paths}) == 1:
        depth += 1
    return [p[depth] if depth < len(p) else p[-1] for p in paths]
