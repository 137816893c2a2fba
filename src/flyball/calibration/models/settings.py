"""The file of parameters: what is known before any recording, and what is to be fitted.

In: TOML. Out: ``Settings``, and a model's parameters with these applied.

    fit = ["torque_limit"]          # kinds besides the ladder's; see ``parameters.KINDS``
    leave = ["payload"]             # kinds that are not fitted
    [signals]                       # where recordings hold what, if not under the usual names
    position = "joint_states.position"
    command = "joint_commands.position"
    [parts]                         # joint -> part number of its servo: ranges from the tables
    shoulder = "XL330-M288-T"
    [parameters."shoulder.friction"]
    low = 0.01
    high = 0.5
    nominal = 0.1
    owner = "robot"                 # shared: one for all robots of the kind; episode: each recording its own
    [parameters."wrist.armature"]
    fixed = 0.002                   # known
    [parameters."pad.friction"]     # one of your own, with what it does to the model
    low = 0.2
    high = 1.5
    bind = ["geom:pad.friction"]
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from flyball.base import InputError, Missing
from flyball.base.config import from_plain
from flyball.calibration.models.parameters import KINDS
from flyball.scenes import Bind, Parameter

Owner = Literal["robot", "shared", "episode"]
_HOW = ("set", "scale", "add")


@dataclass(frozen=True)
class Signals:
    """Names of signals; "" for the usual ones."""

    position: str = ""
    command: str = ""


@dataclass(frozen=True)
class Change:
    """What the file says of one parameter; None: as it is.

    Attributes:
      fixed: its value is known; it is not fitted.
      bind: engine fields, for a parameter of one's own; how: what it does to them.
    """

    low: float | None = None
    high: float | None = None
    nominal: float | None = None
    fixed: float | None = None
    scale: str | None = None
    owner: str | None = None
    unit: str | None = None
    bind: tuple[str, ...] = ()
    how: str = "set"


@dataclass(frozen=True)
class Settings:
    """The file, checked; see the module's text.

    Attributes:
      where: the file, for messages.
    """

    fit: tuple[str, ...] = ()
    leave: tuple[str, ...] = ()
    signals: Signals = field(default_factory=Signals)
    parts: Mapping[str, Any] = field(default_factory=dict)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    where: str = "parameters"


def read_settings(source: Path | str | None) -> Settings:
    """Read a file, or its text.

    Raises:
      InputError: not TOML, unknown keys or kinds, values of the wrong type.
    """
    if source is None:
        return Settings()
    is_text = isinstance(source, str) and ("\n" in source or "=" in source)
    where = "parameters" if is_text else str(source)
    try:
        data = tomllib.loads(str(source) if is_text else Path(source).read_text(encoding="utf-8"))
    except OSError as err:
        raise InputError(err.strerror or "cannot be read", where=where) from err
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise InputError(f"not TOML ({err})", where=where) from err
    if "where" in data:
        raise Missing.named("key", "where", ("fit", "leave", "signals", "parts", "parameters"), where=where)
    out = replace(from_plain(Settings, data, where=where), where=where)
    for kind in (*out.fit, *out.leave):
        if kind not in KINDS:
            raise Missing.named("kind of parameter", kind, KINDS, where=where)
    for name in ("parts", "parameters"):
        if not isinstance(getattr(out, name), Mapping):
            raise InputError(f"{name} is no table", where=where)
    return out


def apply(
    settings: Settings, known: Mapping[str, Parameter], joints: Sequence[str]
) -> tuple[dict[str, Parameter], set[str], list[str]]:
    """A model's parameters with the file's changes.

    Args:
      known: path -> parameter.
      joints: measured, for part numbers.

    Returns:
      Path -> parameter; paths that are not to be fitted; paths that are the file's own.

    Raises:
      Missing: a parameter or joint that does not exist.
      InputError: bounds the wrong way round, values outside of them.
    """
    out, fixed, own = dict(known), set[str](), list[str]()
    for joint, part in settings.parts.items():
        if joint not in joints:
            raise Missing.named("joint", str(joint), joints, where=f"{settings.where}: parts")
        out |= _from_part(out, str(joint), str(part))
    for path, row in settings.parameters.items():
        where = f"{settings.where}: parameters.{path}"
        change = from_plain(Change, row, where=where)
        if change.bind:
            own.append(path)
            out[path] = _new(path, change, where)
        elif path not in out:
            raise Missing.named("parameter", path, out, where=settings.where)
        out[path] = _changed(out[path], change, where)
        if change.fixed is not None:
            fixed.add(path)
    return out, fixed, own


def _from_part(known: Mapping[str, Parameter], joint: str, part: str) -> dict[str, Parameter]:
    """Ranges of a servo's published facts, for those parameters that the model has."""
    from flyball.calibration.priors import prior

    out = {}
    for kind, r in prior(part).ranges().items():
        if (p := known.get(f"{joint}.{kind}")) is not None:
            out[p.path] = replace(
                p, low=r.low, nominal=r.nominal, high=r.high, scale="log", text=f"{p.text}; {r.source}"
            )
    return out


def _new(path: str, change: Change, where: str) -> Parameter:
    if change.low is None or change.high is None:
        raise InputError("a parameter of one's own needs low and high", where=where)
    if change.how not in _HOW:
        raise InputError(f"how = {change.how!r}", where=where, allowed=", ".join(_HOW))
    binds = tuple(Bind(target, cast(Any, change.how)) for target in change.bind)
    middle = math.sqrt(change.low * change.high) if change.low > 0 else (change.low + change.high) / 2
    scale: Literal["log", "linear"] = "log" if change.low > 0 else "linear"
    return Parameter(path, change.unit or "", middle, change.low, change.high, scale, "robot", binds)


def _changed(p: Parameter, change: Change, where: str) -> Parameter:
    low = p.low if change.low is None else change.low
    high = p.high if change.high is None else change.high
    numbers = [x for x in (low, high, change.nominal, change.fixed) if x is not None]
    if not all(math.isfinite(x) for x in numbers):
        raise InputError("values that are not finite", where=where)
    if low >= high:
        raise InputError(f"low = {low:g} is not below high = {high:g}: bounds the wrong way round", where=where)
    scale = change.scale or ("linear" if low <= 0 else p.scale)
    if scale not in ("log", "linear") or (scale == "log" and low <= 0):
        raise InputError(f"scale = {scale!r} from {low:g}", where=where, allowed="linear, or log where low is above 0")
    owner = change.owner or p.owner
    if owner not in get_args(Owner):
        raise InputError(f"owner = {owner!r}", where=where, allowed=", ".join(get_args(Owner)))
    said = change.fixed if change.fixed is not None else change.nominal
    if said is not None and change.fixed is None and not low <= said <= high:
        raise InputError(f"nominal = {said:g}", where=where, allowed=f"[{low:g}, {high:g}] {p.unit}".strip())
    nominal = min(max(p.nominal, low), high) if said is None else said
    return replace(p, low=low, high=high, nominal=nominal, scale=cast(Any, scale), owner=cast(Any, owner))


def kinds_of(settings: Settings) -> tuple[str, ...]:
    """Kinds to fit besides the ladder's, without those left out."""
    return tuple(k for k in dict.fromkeys(settings.fit) if k not in settings.leave)


def without(levels: Iterable[Sequence[str]], gone: set[str]) -> tuple[tuple[str, ...], ...]:
    """A ladder without some parameters, and without rungs that add nothing."""
    out: list[tuple[str, ...]] = []
    for level in levels:
        kept = tuple(p for p in level if p not in gone)
        if kept and (not out or kept != out[-1]):
            out.append(kept)
    return tuple(out)
