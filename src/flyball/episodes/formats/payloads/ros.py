"""ROS payloads: ``cdr/ros2msg``, ``cdr/ros2idl`` and ``ros1/ros1msg``; see ``formats.ros2`` for how they are decoded.

In: a definition as text. Out: a ``Decoder``. IDL definitions are parsed by the library ``rosbags``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flyball.base import Damaged, NotPossible, Unsupported
from flyball.episodes.formats import ros2
from flyball.episodes.formats.payloads import Column, Path


@dataclass(frozen=True)
class RosDecoder:
    """See ``payloads.Decoder``."""

    name: str
    types: ros2.Types
    ros: int = 2

    @property
    def fields(self) -> tuple[str, ...]:
        """See ``payloads.Decoder``."""
        return tuple(name for name, _, _ in self.types[self.name])

    def decode(self, payloads: Sequence[bytes]) -> tuple[list[Column], list[str]]:
        """See ``payloads.Decoder.decode``."""
        return ros2.decode(self.types, self.name, payloads, ros=self.ros)

    def row(self, payload: bytes) -> Mapping[Path, Any]:
        """See ``payloads.Decoder.row``."""
        return ros2.row(self.types, self.name, payload, ros=self.ros)


def ros2msg(name: str, data: bytes) -> RosDecoder:
    """A type defined by ``.msg`` files of ROS 2."""
    return RosDecoder(ros2.plain(name), ros2.parse(name, _text(name, data)))


def ros1msg(name: str, data: bytes) -> RosDecoder:
    """A type defined by ``.msg`` files of ROS 1."""
    return RosDecoder(ros2.plain(name), ros2.parse(name, _text(name, data), ros=1), ros=1)


def ros2idl(name: str, data: bytes) -> RosDecoder:
    """A type defined by ``.idl`` files of ROS 2."""
    try:
        from rosbags.typesys import get_types_from_idl
    except ModuleNotFoundError as err:
        raise NotPossible(
            "IDL definitions need the Python package 'rosbags'", run_next="pip install 'flyball[logs]'"
        ) from err
    from rosbags.interfaces import Nodetype

    found: dict[str, Any] = {}
    text = re.sub(r"^[ \t]*#.*$", "", _text(name, data), flags=re.MULTILINE)  # what a preprocessor is told
    enums = set(re.findall(r"\benum\s+(\w+)", text))
    for section in re.split(r"^={20,}\s*$", text, flags=re.MULTILINE):
        found |= get_types_from_idl(re.sub(r"\A\s*IDL: *\S+", "", section))

    def field(member: str, described: Any, elements: int | None = None) -> ros2.Field:
        node, args = described
        if node == Nodetype.BASE:
            kind = "uint8" if args[0] == "octet" else args[0]
            return member, kind, elements
        if node == Nodetype.NAME:
            is_enum = args not in found and args.rpartition("/")[2] in enums
            return member, "uint32" if is_enum else ros2.plain(args), elements
        if elements is not None:
            raise Unsupported("arrays of arrays", where=f"definition of {name}")
        inner, count = args
        return field(member, inner, count if node == Nodetype.ARRAY else 0)

    types = {ros2.plain(k): tuple(field(*f) for f in fields) for k, (_, fields) in found.items()}
    types = {k: v for k, v in ros2.parse("builtin/None", "").items() if k != "builtin/None"} | types
    if ros2.plain(name) not in types:
        raise Damaged("it does not define the type it is for", where=f"definition of {name}")
    ros2.check(types, ros2.plain(name))
    return RosDecoder(ros2.plain(name), types)


def _text(name: str, data: bytes) -> str:
    try:
        text = data.decode()
    except UnicodeDecodeError as err:
        raise Damaged("is not text", where=f"definition of {name}") from err
    if not name or (not text.strip() and name.rpartition("/")[2] != "Empty"):
        raise Unsupported("the log does not define this type", where=name or "a topic without a type")
    return text
