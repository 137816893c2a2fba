"""Relations between objects, as data and as words.

In: sentences such as ``cup left of plate by 5 cm``. Out: ``Relation`` objects; ``str`` is the inverse of ``parse``.

Directions are those of somebody at the base who looks along x: left is +y, right -y, behind +x, in front -x.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from flyball.base import InputError, Missing

Kind = Literal[
    "on", "inside", "left of", "right of", "behind", "in front of", "clear of", "near", "facing", "reachable by"
]
KINDS: tuple[str, ...] = get_args(Kind)
DIRECTIONS = {"left of": (0.0, 1.0), "right of": (0.0, -1.0), "behind": (1.0, 0.0), "in front of": (-1.0, 0.0)}
EVERYTHING = "everything"

_UNITS = {"m": 1.0, "cm": 0.01, "mm": 0.001}
_NAME = r"[A-Za-z_][\w./-]*"
_SENTENCE = re.compile(
    rf"({_NAME})\s+({'|'.join(KINDS)})\s+({_NAME})(?:\s+by\s+(at least\s+)?([0-9.eE+-]+)\s*(m|cm|mm))?"
)
_DISTANCES = {"on": "margin", "inside": "margin", "clear of": "clearance", "near": "distance"}


@dataclass(frozen=True)
class Relation:
    """Where an object is with respect to another.

    Attributes:
      item: the object.
      kind: ``on`` and ``inside`` keep its footprint within the other's top or inner floor, ``distance`` from the edge.
        ``left of`` and its kin ask for a gap of at least ``distance`` between the footprints along that direction; with
        ``exact`` for that gap, and that they stand side by side across it. ``clear of`` asks for ``distance`` all
        around, ``near`` for at most that between the centres. ``facing`` turns the object's x axis to the other's
        centre. ``reachable by`` asks a robot.
      other: the other object, a robot, or ``everything`` for ``clear of``.
      distance: [m].
      exact: for directions: ``by 5 cm`` is, ``by at least 5 cm`` and a mere ``left of`` are not.
    """

    item: str
    kind: Kind
    other: str
    distance: float = 0.0
    exact: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise Missing.named("relation", self.kind, KINDS, where=f"{self.item} ... {self.other}")
        where = f"relation {self.item} {self.kind} {self.other}"
        for name in (self.item, self.other):
            if not re.fullmatch(_NAME, name):
                raise InputError(f"name {name!r}", where=where, allowed="letters, digits, _ . / -")
        if not (np.isfinite(self.distance) and self.distance >= 0):
            raise InputError(f"distance {self.distance} m", where=where, allowed=">= 0")
        if self.item == self.other:
            raise InputError("an object with itself", where=where, allowed="two objects")
        if self.exact and self.kind not in DIRECTIONS:
            raise InputError("exact", where=where, allowed="only for " + ", ".join(DIRECTIONS))
        if self.distance and self.kind in ("facing", "reachable by"):
            raise InputError(f"distance {self.distance} m", where=where, allowed="none")
        if self.kind == "near" and self.distance == 0:
            raise InputError("no distance", where=where, allowed="near ... by 30 cm")
        if self.other == EVERYTHING and self.kind != "clear of":
            raise InputError(EVERYTHING, where=where, allowed="only for clear of")

    def __str__(self) -> str:
        if not self.distance and not self.exact:
            return f"{self.item} {self.kind} {self.other}"
        least = "at least " if self.kind in DIRECTIONS and not self.exact else ""
        return f"{self.item} {self.kind} {self.other} by {least}{self.distance!r} m"


def parse(text: str) -> Relation:
    """A relation from its sentence; ``by`` takes m, cm or mm.

    Raises:
      InputError: naming the sentence and what is understood.
    """
    found = _SENTENCE.fullmatch(" ".join(text.split())) if isinstance(text, str) and len(text) < 500 else None
    if found is None:
        allowed = f"OBJECT {' | '.join(KINDS)} OBJECT [by [at least] 5 cm]"
        raise InputError(f"cannot read the relation {str(text)[:80]!r}", where="placement", allowed=allowed)
    item, kind, other, least, number, unit = found.groups()
    try:
        # one rounding, so that 0.05 m and what str writes are the same number
        distance = 0.0 if number is None else float(f"{number}e-2") if unit == "cm" else float(number) * _UNITS[unit]
    except ValueError:
        raise InputError(f"cannot read the distance {number!r}", where=f"relation {text!r}", allowed="5 cm") from None
    exact = kind in DIRECTIONS and number is not None and not least
    if least and kind not in DIRECTIONS and kind != "clear of":
        raise InputError("at least", where=f"relation {text!r}", allowed="for directions and clear of")
    return Relation(item, kind, other, distance, exact)  # type: ignore[arg-type]


def relations(texts: Iterable[str | Relation]) -> tuple[Relation, ...]:
    """Relations from sentences, relations or a mix of both."""
    return tuple(t if isinstance(t, Relation) else parse(t) for t in texts)
