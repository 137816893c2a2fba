"""What may be varied besides a scene's parameters, and how drawn values become fields.

In: drawn values by path. Out: what the engine must set, what befalls the observation, what the scene's parameters are.

A field is ``kind:NAME.field``, with ``[i]`` for one element of it: ``body:box.mass``, ``geom:box.friction[0]``,
``camera:wrist.position[2]``. Kinds that engines apply: ``body geom joint actuator tendon equality site light material
camera option``. An engine that cannot set a field refuses it by name (``Unsupported``); nothing here knows which those
are. ``sensor:SIGNAL.delay|noise|bias|walk|dropout|quantum`` befalls the observation and works on every engine; see
``observation``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing

if TYPE_CHECKING:
    from flyball.scenes.scene import Scene
    from flyball.scenes.variation import Variation

How = Literal["set", "scale", "add"]
HOWS = ("set", "scale", "add")
ENGINE_KINDS = (
    "actuator", "body", "camera", "equality", "geom", "joint", "light", "material", "option", "site", "tendon",
)  # fmt: skip
EFFECTS = {"delay": "s", "noise": "unit", "bias": "unit", "walk": "unit/sqrt(s)", "dropout": "", "quantum": "unit"}
"""What can befall an observation signal, and in which unit ("unit": the signal's own)."""

_FIELD = re.compile(r"([a-z]+):(.*?)(?:\[(\d{1,6})\])?")


@dataclass(frozen=True)
class Field:
    """A field's name, taken apart: ``target`` is ``kind:NAME.field``; ``index`` None means all elements."""

    target: str
    kind: str
    name: str
    field: str
    index: int | None


def field_of(path: str) -> Field | None:
    """The field that a path names; None when it names a scene's parameter (no ``kind:``).

    Raises:
      Missing, InputError: an unknown kind or effect, or no field.
    """
    if ":" not in path:
        return None
    found = _FIELD.fullmatch(path)
    if found is None:
        raise InputError(f"path {path!r}", where="variation", allowed="kind:NAME.field or kind:NAME.field[i]")
    kind, rest, index = found.groups()
    if kind not in (*ENGINE_KINDS, "sensor"):
        raise Missing.named("kind of field", kind, (*ENGINE_KINDS, "sensor"), where=path)
    name, dot, field = rest.rpartition(".")
    if kind == "option":  # of the whole world: option:gravity[2]
        name, field = "", rest
    elif not dot or not name or not field:
        raise InputError(f"path {path!r}", where="variation", allowed=f"{kind}:NAME.field")
    if kind == "sensor" and field not in EFFECTS:
        raise Missing.named("effect on an observation", field, EFFECTS, where=path)
    return Field(f"{kind}:{rest}", kind, name, field, None if index is None else int(index))


def check_path(path: object) -> None:
    """Refuse what cannot be a path.

    Raises:
      InputError: naming it.
    """
    if not isinstance(path, str) or not path or path != path.strip() or "," in path or not path.isprintable():
        raise InputError(f"path {path!r}", where="variation", allowed="a name without commas")
    field_of(path)


def check_how(path: str, how: object) -> None:
    """Refuse a ``how`` that the path does not have.

    Raises:
      InputError, Missing: naming it.
    """
    if how not in HOWS:
        raise Missing.named("way to vary", str(how), HOWS, where=f"[{path}] how")
    field = field_of(path)
    if how != "set" and (field is None or field.kind == "sensor"):
        raise InputError(f"how = {how!r}", where=f"[{path}]", allowed="set, unless the path is a field of the engine")


@dataclass(frozen=True)
class Routed:
    """Drawn values by who must act on them.

    Attributes:
      parameters: the scene's parameters, path -> (n,).
      engine: fields that an engine sets, ``kind:NAME.field`` -> (n, k); whole fields, elements merged into the model's
        own values.
      observation: ``sensor:SIGNAL.effect`` or with ``[i]`` -> (n,).
    """

    parameters: dict[str, NDArray[np.float64]]
    engine: dict[str, NDArray[np.float64]]
    observation: dict[str, NDArray[np.float64]]


def route(
    drawn: Mapping[str, NDArray[np.float64]],
    own: Callable[[str], NDArray[Any]],
    *,
    variations: Iterable[Variation] = (),
    scene: Scene | None = None,
) -> Routed:
    """Sort drawn values by who must act on them.

    Args:
      drawn: path -> (n,).
      own: reads the model's own value of an engine field, (n, k): ``Simulation.get``, which refuses what the engine
        lacks.
      variations: where ``how`` is taken from.
      scene: whose parameters exist, and whose bindings turn parameters into engine fields and observation effects;
        None: only fields may be named.

    Raises:
      Missing: a path that is neither a parameter nor a field.
      Unsupported: a field that the engine lacks, from ``own``.
      InputError: an element that the field does not have.
    """
    hows = {p: getattr(v, "how", "set") for v in variations for p in v.paths}
    out = Routed({}, {}, {})
    for path, x in drawn.items():
        field = field_of(path)
        if field is None:
            if scene is None:
                raise Missing.named("field", path, (f"{k}:NAME.field" for k in ENGINE_KINDS), where="variation")
            for bind in scene.parameter(path).binds:
                if bind.target.partition(":")[0] == "sensor":
                    out.observation[f"{bind.target}[{bind.index}]"] = x
                elif bind.target.partition(":")[0] in ENGINE_KINDS:
                    _merge(out.engine, bind.target, bind.index, bind.how, x, own)
            out.parameters[path] = x
        elif field.kind == "sensor":
            out.observation[path] = x
        else:
            _merge(out.engine, field.target, field.index, hows.get(path, "set"), x, own)
    return out


def _merge(
    fields: dict[str, NDArray[np.float64]],
    target: str,
    index: int | None,
    how: str,
    x: NDArray[np.float64],
    own: Callable[[str], NDArray[Any]],
) -> None:
    now = fields[target] if target in fields else np.array(own(target), float)
    if index is not None and index >= now.shape[1]:
        raise InputError(f"{target} has no element {index}", where="variation", allowed=f"0 to {now.shape[1] - 1}")
    if index is None and now.shape[1] > 1 and how != "scale":  # e.g. rolling friction set to the sliding one's value
        raise InputError(
            f"{target} has {now.shape[1]} elements", where="variation", allowed=f"{target}[0], ... or how = 'scale'"
        )
    at = slice(None) if index is None else slice(index, index + 1)
    v = np.asarray(x, float)[:, None]
    now[:, at] = {"set": np.broadcast_to(v, now[:, at].shape), "scale": now[:, at] * v, "add": now[:, at] + v}[how]
    fields[target] = now
