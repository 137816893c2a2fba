"""ROS messages without ROS: message definitions, and CDR (ROS 2) or packed (ROS 1) payloads, decoded in columns.

In: the definition that a log embeds, and the payloads of one channel. Out: one array per field over all messages.
Messages of one layout (same length, same counts) are decoded together: the first shows where each field lies, the
others are checked to agree and sliced by numpy. Poses, twists and the like come as one vector, quaternions as wxyz.

Formats: ROS 2 interface definition (design.ros2.org/articles/legacy_interface_definition.html); OMG CDR with 4-byte
encapsulation header (DDSI-RTPS 2.5, section 10), XCDR version 1, both byte orders; ROS 1 serialization
(wiki.ros.org/roscpp/Overview/MessagesSerializationAndAdaptingTypes): little endian, nothing aligned.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, Unsupported
from flyball.episodes.formats.payloads import MAX_DEPTH, MAX_ELEMENTS, MAX_FIELDS, Column, Path

_PRIMITIVES = {
    "bool": "u1", "byte": "u1", "char": "u1", "uint8": "u1", "int8": "i1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8", "float32": "f4", "float64": "f8",
}  # fmt: skip
_STAMP = (("sec", "int32", None), ("nanosec", "uint32", None))
_BUILTIN = {"builtin_interfaces/Time": _STAMP, "builtin_interfaces/Duration": _STAMP}
_BUILTIN_1 = {
    "time": (("sec", "uint32", None), ("nanosec", "uint32", None)),
    "duration": (_STAMP[0], ("nanosec", "int32", None)),
}
_POSE = (0, 1, 2, 6, 3, 4, 5)  # ROS stores quaternions as xyzw
# Types of nothing but float64 that read better as one vector: the order of its elements, and their units.
VECTORS: dict[str, tuple[tuple[int, ...], str]] = {
    "geometry_msgs/Vector3": ((0, 1, 2), ""),
    "geometry_msgs/Point": ((0, 1, 2), "m"),
    "geometry_msgs/Quaternion": ((3, 0, 1, 2), ""),
    "geometry_msgs/Pose": (_POSE, "m m m 1 1 1 1"),
    "geometry_msgs/Transform": (_POSE, "m m m 1 1 1 1"),
    "geometry_msgs/Twist": (tuple(range(6)), "m/s m/s m/s rad/s rad/s rad/s"),
    "geometry_msgs/Accel": (tuple(range(6)), "m/s^2 m/s^2 m/s^2 rad/s^2 rad/s^2 rad/s^2"),
    "geometry_msgs/Wrench": (tuple(range(6)), "N N N N*m N*m N*m"),
}
_MAX_LAYOUTS = 1000

Field = tuple[str, str, int | None]
"""(name, type, elements): None for a single value, 0 for a sequence, n for an array."""
Types = dict[str, tuple[Field, ...]]
"""Plain name of a message type -> its fields."""


def parse(name: str, text: str, *, ros: int = 2) -> Types:
    """Message types from a definition with its dependencies; the outermost is ``plain(name)``.

    Args:
      name: of the outermost type.
      text: ``ros2msg`` or ``ros1msg``.
      ros: 1 or 2.

    Raises:
      Damaged: a line is not a field, or a type is used and not defined, or contains itself.
    """
    types: Types = dict(_BUILTIN if ros == 2 else _BUILTIN_1)
    for i, section in enumerate(re.split(r"^={20,}\s*$", text, flags=re.MULTILINE)):
        lines = section.strip().splitlines()
        own = plain(name)
        if i:
            if not lines or not lines[0].startswith("MSG:"):
                raise Damaged("a section does not begin with MSG:", where=f"definition of {name}")
            own = plain(lines.pop(0)[4:].strip())
        types[own] = tuple(f for line in lines if (f := _field(line, own, types)) is not None)
    check(types, plain(name))
    return types


def check(types: Types, root: str) -> None:
    """That every type is defined and none contains itself.

    Raises:
      Damaged: naming the type.
      Unsupported: messages lie too deep within messages.
    """
    depth: dict[str, int] = {}

    def visit(kind: str, above: tuple[str, ...]) -> int:
        if kind in above:
            raise Damaged(f"{kind} contains itself", where=f"definition of {root}")
        if len(above) >= MAX_DEPTH:
            raise Unsupported(f"messages within messages, more than {MAX_DEPTH} deep", where=f"definition of {root}")
        if kind not in depth:
            depth[kind] = 1
            for _, of, _ in types[kind]:
                if of in _PRIMITIVES or of in ("string", "wstring"):
                    continue
                if of not in types:
                    raise Damaged(f"{kind} uses {of}, which is not defined", where=f"definition of {root}")
                depth[kind] = max(depth[kind], 1 + visit(of, (*above, kind)))
        if len(above) + depth[kind] > MAX_DEPTH:
            raise Unsupported(f"messages within messages, more than {MAX_DEPTH} deep", where=f"definition of {root}")
        return depth[kind]

    for kind in [root, *types]:
        visit(kind, ())


def plain(name: str) -> str:
    """``pkg/Type`` for ``pkg/msg/Type``."""
    return name.replace("/msg/", "/")


def _field(line: str, owner: str, types: Types) -> Field | None:
    match = re.match(r"\s*([\w/]+)(?:<=\d+)?(?:\[(<=)?(\d*)\])?\s+(\w+)\s*(=)?", line)
    if match is None:
        if line.split("#")[0].strip():
            raise Damaged(f"cannot read {line.strip()[:80]!r}", where=f"definition of {owner}")
        return None
    kind, bounded, count, name, constant = match.groups()
    if constant:
        return None
    kind = plain(kind)
    if "time" in types:  # ROS 1
        kind = {"byte": "int8", "char": "uint8"}.get(kind, kind)
    if kind not in _PRIMITIVES and kind not in ("string", "wstring", "time", "duration") and "/" not in kind:
        kind = "std_msgs/Header" if kind == "Header" else f"{owner.rpartition('/')[0]}/{kind}"
    if len(count or "") > 9:
        raise Damaged(f"an array of {count} elements", where=f"definition of {owner}")
    return name, kind, None if count is None else 0 if bounded or not count else int(count)


@dataclass(frozen=True)
class _Leaf:
    path: Path
    kind: str  # "string", or a numpy type without byte order
    offset: int
    shape: tuple[int, ...]
    order: tuple[int, ...] = ()
    unit: str = ""
    is_bool: bool = False


class _Layout:
    """Where everything lies in one message, found by walking it."""

    def __init__(self, types: Types, root: str, data: bytes, ros: int) -> None:
        self.root, self.types, self.data, self.ros = root, types, data, ros
        self.byte_order, self.origin = "<", 0
        if ros == 2:
            if len(data) < 4 or data[0] != 0 or data[1] not in (0, 1):
                raise Unsupported("a payload is not plain CDR", where=root, allowed="CDR big or little endian")
            self.byte_order, self.origin = "<" if data[1] else ">", 4
        self.leaves: list[_Leaf] = []
        self.counts: list[int] = []
        self.at = self.origin
        self.steps = 0
        self._struct(root, ())
        left = len(data) - self.at  # CDR may be padded at its end
        if left >= (8 if ros == 2 else 1):
            raise Damaged(f"a payload is {left} bytes longer than its definition says", where=root)

    def _take(self, size: int, n: int = 1) -> int:
        """Align to ``size`` and step over n elements; returns where they begin."""
        begin = self.at
        if self.ros == 2:
            begin = self.origin + -(-(self.at - self.origin) // size) * size
        self.at = begin + size * n
        if self.at > len(self.data):
            raise Damaged("a payload is shorter than its definition says", where=self.root)
        return begin

    def _count(self) -> int:
        begin = self._take(4)
        self.counts.append(begin)
        return int.from_bytes(self.data[begin : begin + 4], "little" if self.byte_order == "<" else "big")

    def _struct(self, kind: str, path: Path) -> None:
        if (doubles := _vector(self.types, kind)) is not None:
            order, unit = VECTORS[kind]
            self.leaves.append(_Leaf(path, "f8", self._take(8, doubles), (doubles,), order, unit))
            return
        if not self.types[kind] and self.ros == 2 and self.at < len(self.data):
            self._take(1)  # rosidl gives an empty message one byte
        for name, of, elements in self.types[kind]:
            n = 1 if elements is None else elements or self._count()
            inner = (*path, name)
            self.steps += 1
            if of in _PRIMITIVES:
                dtype = _PRIMITIVES[of]
                begin = self._take(int(dtype[1]), n) if n else self.at
                shape = () if elements is None else (n,)
                self.leaves.append(_Leaf(inner, dtype, begin, shape, is_bool=of == "bool"))
                continue
            if elements is not None and n and (doubles := _vector(self.types, of)) is not None:
                order, unit = VECTORS[of]
                self.leaves.append(_Leaf(inner, "f8", self._take(8, n * doubles), (n, doubles), order, unit))
                continue
            if n > max(MAX_ELEMENTS, elements or 0) or n > len(self.data):
                raise Unsupported(f"{n} elements of {of} in one message", where=".".join(inner))
            for i in range(n):
                self.steps += 1
                if self.steps > 4 * MAX_FIELDS:
                    raise Unsupported(f"more than {MAX_FIELDS} fields in one message", where=self.root)
                deeper = inner if elements is None else (*path, f"{name}[{i}]")
                if of == "string":
                    length = self._count()
                    self.leaves.append(_Leaf(deeper, "string", self._take(1, length), (length,)))
                elif of == "wstring":
                    raise Unsupported("wide strings", where=".".join(inner))
                else:
                    self._struct(of, deeper)


def _vector(types: Types, kind: str) -> int | None:
    """How many float64 a type of ``VECTORS`` consists of; None for any other type."""
    if kind in VECTORS and _doubles(types, kind) == len(VECTORS[kind][0]):
        return len(VECTORS[kind][0])
    return None


def _doubles(types: Types, kind: str) -> int | None:
    """How many float64 a type consists of; None when of anything else."""
    total = 0
    for _, of, elements in types.get(kind, ()):
        n = 1 if of == "float64" else _doubles(types, of) if of in types else None
        if n is None or elements is not None:
            return None
        total += n
    return total


def decode(types: Types, root: str, payloads: Sequence[bytes], *, ros: int = 2) -> tuple[list[Column], list[str]]:
    """All messages of one channel, as columns.

    Args:
      types: from ``parse``.
      root: ``plain`` name of the message type.
      payloads: CDR with encapsulation header (ROS 2) or packed (ROS 1), one per message, at least one.
      ros: 1 or 2.

    Returns:
      (columns of the fields that have one shape throughout, names of the fields that have not).

    Raises:
      Damaged: a payload does not fit the definition.
      Unsupported: wide strings, other encodings than plain CDR, too many different layouts.
    """
    n = len(payloads)
    lengths = np.fromiter(map(len, payloads), np.int64, n)
    groups: list[tuple[NDArray[np.int64], _Layout, NDArray[np.uint8]]] = []
    for length in np.unique(lengths).tolist():
        rest = np.flatnonzero(lengths == length)
        picked = payloads if len(rest) == n else [payloads[i] for i in rest.tolist()]
        matrix = np.frombuffer(b"".join(picked), np.uint8).reshape(len(rest), length)
        while len(rest):
            if len(groups) >= _MAX_LAYOUTS:
                raise Unsupported(f"more than {_MAX_LAYOUTS} different layouts", where=root)
            layout = _Layout(types, root, payloads[int(rest[0])], ros)
            head = range(layout.origin)  # the byte order
            fixed = np.array([*head, *(c + i for c in layout.counts for i in range(4))], np.int64)
            same = (matrix[:, fixed] == matrix[0, fixed]).all(axis=1)
            if same.all():
                groups.append((rest, layout, matrix))
                break
            groups.append((rest[same], layout, matrix[same]))
            rest, matrix = rest[~same], matrix[~same]
    columns, varying = [], []
    leaves = [{leaf.path: leaf for leaf in layout.leaves} for _, layout, _ in groups]
    for path in dict.fromkeys(p for group in leaves for p in group):
        of = [group.get(path) for group in leaves]
        first = of[0]
        if first is None or any(
            leaf is None or leaf.kind != first.kind or (leaf.kind != "string" and leaf.shape != first.shape)
            for leaf in of
        ):
            varying.append(".".join(path))
            continue
        parts = [_values(leaf, layout, matrix) for leaf, (_, layout, matrix) in zip(of, groups, strict=True) if leaf]
        if first.kind == "string":
            texts = [""] * n
            for (rows, _, _), part in zip(groups, parts, strict=True):
                for i, text in zip(rows.tolist(), part, strict=True):
                    texts[i] = text
            columns.append(Column(path, "", texts))
        else:
            values = np.empty((n, *first.shape), np.asarray(parts[0]).dtype)
            for (rows, _, _), part in zip(groups, parts, strict=True):
                values[rows] = part
            columns.append(Column(path, first.unit, values))
    return columns, varying


def _values(leaf: _Leaf, layout: _Layout, matrix: NDArray[np.uint8]) -> NDArray | list[str]:
    if leaf.kind == "string":
        raw = matrix[:, leaf.offset : leaf.offset + leaf.shape[0]]
        if len(raw) and (raw == raw[0]).all():
            return [_text(raw[0])] * len(raw)
        return [_text(row) for row in raw]
    dtype = np.dtype(layout.byte_order + leaf.kind)
    size = dtype.itemsize * int(np.prod(leaf.shape, dtype=int))
    raw = np.ascontiguousarray(matrix[:, leaf.offset : leaf.offset + size])
    values = raw.view(dtype).reshape(len(matrix), *leaf.shape) if size else np.empty((len(matrix), 0), dtype)
    if leaf.is_bool:
        return values != 0
    return (values[..., list(leaf.order)] if leaf.order else values).astype(dtype.newbyteorder("="), copy=False)


def row(types: Types, root: str, payload: bytes, *, ros: int = 2) -> dict[Path, Any]:
    """One message, see ``payloads.Decoder.row``."""
    layout = _Layout(types, root, payload, ros)
    matrix = np.frombuffer(payload, np.uint8)[None]
    out: dict[Path, Any] = {}
    for leaf in layout.leaves:
        if leaf.kind == "u1" and leaf.shape and not leaf.is_bool:
            out[leaf.path] = memoryview(payload)[leaf.offset : leaf.offset + leaf.shape[0]]
        else:
            value = _values(leaf, layout, matrix)[0]
            out[leaf.path] = value if isinstance(value, str) or leaf.shape else value.item()
    return out


def _text(raw: NDArray[np.uint8]) -> str:
    return raw.tobytes().split(b"\0")[0].decode(errors="replace")
