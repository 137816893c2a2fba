"""Who acts on what a variation draws.

In: drawn values by path. Out: what the engine must set, what only a picture shows, what befalls the observation, what
the scene's parameters are. Every path ends up with somebody, or is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.scenes.drawing import Variation
from flyball.scenes.scene import Scene
from flyball.scenes.targets import KINDS, Field, field_of

Array = NDArray[np.float64]
Own = Callable[[str], NDArray[Any]]
"""Reads the model's own value of a field, (n, k), and refuses what nobody can set."""


@dataclass(frozen=True)
class Routed:
    """Drawn values by who must act on them.

    Attributes:
      parameters: the scene's parameters, path -> (n,).
      engine: fields that an engine sets, ``kind:NAME.field`` -> (n, k); whole fields, elements merged into the model's
        own values.
      visual: fields that a renderer sets, likewise.
      observation: ``sensor:SIGNAL.effect`` or with ``[i]`` -> (n,), named by the variations themselves.
      sensors: likewise, from bindings of the scene's parameters.
    """

    parameters: dict[str, Array]
    engine: dict[str, Array]
    visual: dict[str, Array]
    observation: dict[str, Array]
    sensors: dict[str, Array]


def route(
    drawn: Mapping[str, Array], own: Own, *, variations: Iterable[Variation] = (), scene: Scene | None = None
) -> Routed:
    """Sort drawn values by who must act on them.

    Args:
      drawn: path -> (n,).
      own: the model's own value of an engine's or a renderer's field.
      variations: where ``how`` is taken from.
      scene: whose parameters exist, and whose bindings turn parameters into fields and observation effects; bindings of
        other kinds (``command``, ``event``, ``start``) are left to the caller. None: only fields may be named.

    Raises:
      Missing: a path that is neither a parameter nor a field.
      Unsupported: a field that nobody can set, naming the path.
      InputError: an element that the field does not have.
    """
    hows = {p: getattr(v, "how", "set") for v in variations for p in v.paths}
    out = Routed({}, {}, {}, {}, {})
    for path, x in drawn.items():
        field = field_of(path)
        if field is None:
            if scene is None:
                raise Missing.named("field", path, (f"{k}:NAME.field" for k in KINDS), where="variation")
            for bind in scene.parameter(path).binds:
                kind = bind.target.partition(":")[0]
                if kind == "sensor":
                    out.sensors[f"{bind.target}[{bind.index}]"] = x
                elif kind in KINDS and (bound := field_of(bind.target)) is not None:
                    _merge(out, path, bound, bind.index, bind.how, x, own)
            out.parameters[path] = x
        elif field.kind == "sensor":
            out.observation[path] = x
        else:
            _merge(out, path, field, field.index, hows.get(path, "set"), x, own)
    return out


def _merge(out: Routed, path: str, field: Field, index: int | None, how: str, x: Array, own: Own) -> None:
    """Write a value into its field, over the model's own values or what was merged before."""
    fields, target = out.visual if field.visual else out.engine, field.target
    try:
        now = fields[target] if target in fields else np.array(own(target), float)
    except (Unsupported, Missing) as err:
        named = err.where if path in err.what or path == err.where else f"{path}: {err.where}"
        raise type(err)(err.what, where=named, allowed=err.allowed, run_next=err.run_next) from err
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
