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
from functools import partial
from typing import Any

import numpy as np

from flyball.base import Damaged, Unsupported
from flyball.episodes.formats.payloads import MAX_DEPTH, MAX_ELEMENTS, Column, Path, layout
from flyball.episodes.formats.payloads.layout import Layout, Leaf

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


class _Message(Layout):
    """The layout of one message."""

    def __init__(self, types: Types, root: str, ros: int, data: bytes) -> None:
        super().__init__(data, root)
        self.types, self.ros, self.byte_order, self.origin = types, ros, "<", 0
        if ros == 2:
            if len(data) < 4 or data[0] != 0 or data[1] not in (0, 1):
                raise Unsupported("a payload is not plain CDR", where=root, allowed="CDR big or little endian")
            self.byte_order, self.origin = "<" if data[1] else ">", 4
            self.fixed.append((0, 4))
        self.at = self.origin
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
            raise Damaged("a payload is shorter than its definition says", where=self.name)
        return begin

    def _count(self) -> int:
        begin = self._take(4)
        self.fixed.append((begin, begin + 4))
        return int.from_bytes(self.data[begin : begin + 4], "little" if self.byte_order == "<" else "big")

    def _struct(self, kind: str, path: Path) -> None:
        if _vector(self.types, kind):
            self._vectors(kind, path, None)
            return
        if not self.types[kind] and self.ros == 2 and self.at < len(self.data):
            self._take(1)  # rosidl gives an empty message one byte
        for name, of, elements in self.types[kind]:
            n = 1 if elements is None else elements or self._count()
            inner = (*path, name)
            self.visit()
            if of in _PRIMITIVES:
                code = _PRIMITIVES[of]
                size = int(code[1])
                begin = self._take(size, n) if n else self.at
                shape = () if elements is None else (n,)
                dtype = "bool" if of == "bool" else np.dtype(code).name
                numbers = "bytes" if dtype == "uint8" and shape else self.byte_order + code
                self.leaves.append(Leaf(inner, numbers, dtype, begin, size * n, shape))
            elif elements is not None and n and _vector(self.types, of):
                self._vectors(of, inner, n)
            elif n > max(MAX_ELEMENTS, elements or 0) or n > len(self.data):
                raise Unsupported(f"{n} elements of {of} in one message", where=".".join(inner))
            else:
                for i in range(n):
                    self.visit()
                    self._element(of, inner if elements is None else (*path, f"{name}[{i}]"))

    def _element(self, of: str, path: Path) -> None:
        if of == "string":
            length = self._count()
            self.leaves.append(Leaf(path, "ctext", "", self._take(1, length), length))
        elif of == "wstring":
            raise Unsupported("wide strings", where=".".join(path))
        else:
            self._struct(of, path)

    def _vectors(self, kind: str, path: Path, n: int | None) -> None:
        order, unit = VECTORS[kind]
        shape = (len(order),) if n is None else (n, len(order))
        size = len(order) * (n or 1)
        begin = self._take(8, size)
        self.leaves.append(Leaf(path, self.byte_order + "f8", "float64", begin, 8 * size, shape, order, unit))


def _vector(types: Types, kind: str) -> bool:
    """Whether a type is one of ``VECTORS`` and what it is expected to be."""
    return kind in VECTORS and _doubles(types, kind) == len(VECTORS[kind][0])


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
      Unsupported: wide strings, other encodings than plain CDR, too many elements.
    """
    return layout.decode(partial(_Message, types, root, ros), payloads)


def row(types: Types, root: str, payload: bytes, *, ros: int = 2) -> dict[Path, Any]:
    """One message, see ``payloads.Decoder.row``."""
    return layout.row(_Message(types, root, ros, payload))
