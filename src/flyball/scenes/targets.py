"""What may be varied besides a scene's parameters.

In: a path as text. Out: its parts, or a line that says what is wrong with it.

A field is ``kind:NAME.field``, with ``[i]`` for one element of it: ``body:box.mass``, ``geom:box.friction[0]``,
``world:gravity[2]``. Engines apply the kinds ``body geom joint actuator tendon equality site world``, renderers
``light material camera`` and ``geom:NAME.rgba``; who cannot set a field refuses it by name (``Unsupported``), nothing
here knows which those are. ``sensor:SIGNAL.delay|noise|bias|walk|dropout|quantum`` befalls the observation and works on
every engine; see ``observation``. Who gets which value: see ``routing``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from flyball.base import InputError, Missing

How = Literal["set", "scale", "add"]
HOWS = ("set", "scale", "add")
ENGINE_KINDS = ("actuator", "body", "equality", "geom", "joint", "site", "tendon", "world")
VISUAL_KINDS = ("camera", "light", "material")
KINDS = (*ENGINE_KINDS, *VISUAL_KINDS, "sensor")
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

    @property
    def visual(self) -> bool:
        """Whether only a picture shows it."""
        return self.kind in VISUAL_KINDS or (self.kind == "geom" and self.field == "rgba")


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
    if kind not in KINDS:
        raise Missing.named("kind of field", kind, KINDS, where=path)
    name, dot, field = rest.rpartition(".")
    if kind == "world":  # has no name
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
