"""Messages read one by one, put into columns: for JSON, and what is a vector or a time in any encoding.

In: per message the value of each field, by path. Out: what ``payloads.Decoder.decode`` returns. Nested fields that make
a point, a pose, a twist, ... become one vector, as they do in ROS messages; times become ``sec`` and ``nanosec``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from flyball.base import Unsupported
from flyball.episodes.formats.payloads import MAX_FIELDS, Column, Path

_XYZ, _WXYZ = ("x", "y", "z"), ("w", "x", "y", "z")
_POSE_UNIT = "m m m 1 1 1 1"
VECTORS: dict[frozenset[str], tuple[tuple[Path, ...], str]] = {
    frozenset(_XYZ): (tuple((k,) for k in _XYZ), ""),
    frozenset(_WXYZ): (tuple((k,) for k in _WXYZ), ""),
}
"""Fields of a message that is a vector: where its elements are, in order, and their units."""
for first, second, last, unit in (
    ("position", "orientation", _WXYZ, _POSE_UNIT),
    ("translation", "rotation", _WXYZ, _POSE_UNIT),
    ("linear", "angular", _XYZ, ""),
    ("force", "torque", _XYZ, "N N N N*m N*m N*m"),
):
    VECTORS[frozenset((first, second))] = (tuple((first, k) for k in _XYZ) + tuple((second, k) for k in last), unit)

TIMES = {frozenset(k): k for k in (("sec", "nsec"), ("sec", "nanosec"), ("secs", "nsecs"), ("seconds", "nanos"))}
"""Fields of a message that is a time: seconds, nanoseconds."""


class Rows:
    """Collects the fields of messages; a decoder derives from it and calls ``put`` for each field.

    Attributes:
      kinds: path -> (numpy type, unit); None once a path was of two kinds.
    """

    name = ""

    def __init__(self) -> None:
        self.kinds: dict[Path, tuple[str, str] | None] = {}

    def put(self, row: dict[Path, Any], path: Path, value: Any, dtype: str, unit: str = "") -> None:
        """A field of numbers (or, with dtype "", of text or bytes) of the message in hand.

        Raises:
          Unsupported: too many fields.
        """
        kind = (dtype, unit)
        if self.kinds.setdefault(path, kind) != kind:
            self.kinds[path] = None
        row[path] = value
        if len(row) > MAX_FIELDS or len(self.kinds) > 4 * MAX_FIELDS:
            raise Unsupported(f"more than {MAX_FIELDS} fields in one message", where=self.name)


def vector(value: Mapping[str, Any]) -> tuple[list[float], str] | None:
    """The elements and units of a message that is a vector; None for any other."""
    known = VECTORS.get(frozenset(value))
    if known is None:
        return None
    out = []
    for path in known[0]:
        inner: Any = value
        for k in path:
            inner = inner.get(k) if isinstance(inner, dict) and len(inner) <= 4 else None
        if not isinstance(inner, (int, float)) or isinstance(inner, bool):
            return None
        out.append(float(inner))
    return out, known[1]


def columns(
    rows: Sequence[Mapping[Path, Any]], kinds: Mapping[Path, tuple[str, str] | None]
) -> tuple[list[Column], list[str]]:
    """Rows as columns; a path that is missing somewhere, or has not one shape and kind, varies."""
    made: list[Column] = []
    varying: list[str] = []
    paths = dict.fromkeys(rows[0])
    for row in rows:
        if row.keys() != paths.keys():
            paths |= dict.fromkeys(row)
    for path in paths:
        kind = kinds[path]
        column = None
        if kind is not None:
            with suppress(KeyError, ValueError, OverflowError):  # missing, ragged, beyond the type
                column = _column(path, kind, [row[path] for row in rows])
        if column is None:
            varying.append(".".join(path))
        else:
            made.append(column)
    return made, varying


def _column(path: Path, kind: tuple[str, str], values: list[Any]) -> Column | None:
    dtype, unit = kind
    if dtype:
        return Column(path, unit, np.array(values, dtype))
    if isinstance(values[0], str):
        return Column(path, "", values)
    if len({len(v) for v in values}) == 1:
        return Column(path, "", np.frombuffer(b"".join(values), np.uint8).reshape(len(values), -1))
    return None
