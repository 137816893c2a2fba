"""Payloads ``protobuf/protobuf``: messages of Protocol Buffers, described by a ``FileDescriptorSet``.

In: the serialized descriptors, and messages. Out: a ``Decoder``. The library ``protobuf`` reads the descriptors; the
messages are walked here, so that those of one layout can be decoded together. Enumerations are numbers, fields with
presence (``optional``, ``oneof``, messages) are there when they are set, entries of maps are ``name[key]``.

Format: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from flyball.base import Damaged, NotPossible, Unsupported
from flyball.episodes.formats.payloads import Column, Path, layout
from flyball.episodes.formats.payloads.layout import Layout, Leaf, deeper, lifted, limit
from flyball.episodes.formats.payloads.rows import VECTORS

_TIMES = ("google.protobuf.Timestamp", "google.protobuf.Duration")
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5
_NUMBERS = {
    1: ("<f8", "float64", 1), 2: ("<f4", "float32", 5), 3: ("varint", "int64", 0), 4: ("varint", "uint64", 0),
    5: ("varint", "int32", 0), 6: ("<u8", "uint64", 1), 7: ("<u4", "uint32", 5), 8: ("varint", "bool", 0),
    13: ("varint", "uint32", 0), 14: ("varint", "int32", 0), 15: ("<i4", "int32", 5), 16: ("<i8", "int64", 1),
    17: ("zigzag", "int32", 0), 18: ("zigzag", "int64", 0),
}  # fmt: skip
"""Field type of a descriptor -> kind of leaf, numpy type, wire type; 9 is text, 12 bytes, 11 a message."""
_STRING, _GROUP, _MESSAGE, _BYTES = 9, 10, 11, 12

Region = tuple[int, int]
"""Where a message lies: begin, end."""


@dataclass(frozen=True)
class _Field:
    number: int
    name: str
    kind: int
    many: bool
    presence: bool
    of: str  # message type, "" for none
    is_map: bool


class ProtobufDecoder:
    """See ``payloads.Decoder``."""

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self._plans = _plans(name, data)
        self.fields = tuple(f.name for f in self._plans[name])
        self._walk = partial(_Message, self._plans, name)

    def decode(self, payloads: Sequence[bytes]) -> tuple[list[Column], list[str]]:
        """See ``payloads.Decoder.decode``."""
        return layout.decode(self._walk, payloads)

    def row(self, payload: bytes) -> dict[Path, Any]:
        """See ``payloads.Decoder.row``."""
        return layout.row(self._walk(payload))


def _plans(name: str, data: bytes) -> dict[str, tuple[_Field, ...]]:
    """The fields of a message type, and of all it needs, by full name."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message
    except ModuleNotFoundError as err:
        raise NotPossible(
            "protobuf messages need the Python package 'protobuf'", run_next="pip install 'flyball[logs]'"
        ) from err
    where = f"definition of {name}"
    try:
        files = {f.name: f for f in descriptor_pb2.FileDescriptorSet.FromString(data).file}
        pool = descriptor_pool.DescriptorPool()
        left = list(files.values())
        while left:
            later = [f for f in left if any(d in {x.name for x in left} for d in f.dependency)]
            if len(later) == len(left):
                raise Damaged("files import each other", where=where)
            for f in left:
                if f not in later:
                    pool.Add(f)
            left = later
        waiting, plans = [pool.FindMessageTypeByName(name)], {}
    except (message.DecodeError, TypeError, KeyError, ValueError) as err:
        raise Damaged(f"it does not describe {name} ({str(err).strip()[:120]})", where=where) from err
    while waiting:
        descriptor = waiting.pop()
        if descriptor.full_name not in plans:
            plans[descriptor.full_name] = tuple(_field(f) for f in descriptor.fields)
            waiting += [f.message_type for f in descriptor.fields if f.message_type is not None]
    return plans


def _field(f: Any) -> _Field:
    of = f.message_type
    many = f.is_repeated if hasattr(f, "is_repeated") else f.label == f.LABEL_REPEATED  # before protobuf 6.30
    is_map = of is not None and of.GetOptions().map_entry
    return _Field(f.number, f.name, f.type, many, f.has_presence, of.full_name if of is not None else "", is_map)


class _Message(Layout):
    """The layout of one message."""

    def __init__(self, plans: dict[str, tuple[_Field, ...]], name: str, data: bytes) -> None:
        super().__init__(data, name)
        self.plans = plans
        self._read: dict[Region, dict[int, list[tuple[int, int, int]]]] = {}
        self._message((0, len(data)), name, ())

    def _damaged(self, why: str) -> Damaged:
        return Damaged(f"a payload is no {self.name} ({why})")

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """(value, place behind it)."""
        value = 0
        for i in range(10):
            if at + i >= end:
                raise self._damaged("it is cut off")
            value |= (self.data[at + i] & 0x7F) << 7 * i
            if self.data[at + i] < 0x80:
                return value, at + i + 1
        raise self._damaged("a number has more than 10 bytes")

    def _records(self, region: Region) -> dict[int, list[tuple[int, int, int]]]:
        """Field number -> (wire type, begin, end) of each value."""
        if region in self._read:
            return self._read[region]
        at, end = region
        out = self._read[region] = {}
        while at < end:
            self.visit()
            tag, begin = self._varint(at, end)
            self.fixed.append((at, begin))
            wire = tag & 7
            if wire == _VARINT:
                _, at = self._varint(begin, end)
                self.high += range(begin, at)
            elif wire == _LENGTH:
                size, after = self._varint(begin, end)
                self.fixed.append((begin, after))
                begin, at = after, after + size
            elif wire in (_FIXED64, _FIXED32):
                at = begin + (8 if wire == _FIXED64 else 4)
            else:
                raise self._damaged(f"wire type {wire}")
            if at > end:
                raise self._damaged("it is cut off")
            out.setdefault(tag >> 3, []).append((wire, begin, at))
        return out

    def _message(self, region: Region, kind: str, path: Path) -> None:
        records = self._records(region)
        for f in self.plans[kind]:
            found, inner = records.get(f.number, []), deeper(path, f.name)
            self.visit()
            if f.kind == _GROUP:
                raise Unsupported("groups", where=".".join(inner))
            if f.kind in _NUMBERS:
                leaf = self._numbers(f, found, inner)
                if leaf is not None:
                    self.leaves.append(leaf)
                continue
            spans = [(begin, end) for wire, begin, end in found if wire == _LENGTH]
            if f.is_map:
                limit(len(spans), inner)
                for span in spans:
                    self._entry(f, span, path)
            elif f.many:
                self._repeated(f, spans, path)
            elif spans or not f.presence:
                if f.of and len(spans) > 1:
                    raise Unsupported("a message in two pieces", where=".".join(inner))
                self._one(f, spans[-1] if spans else (0, 0), inner)

    def _repeated(self, f: _Field, spans: list[Region], path: Path) -> None:
        if f.of and spans and (places := self._vector(f.of)) is not None:
            parts = [self._scalar(span, f.of, place) for span in spans for place in places[0]]
            self.leaves.append(lifted(parts, (*path, f.name), (len(spans), len(places[0])), places[1]))
            return
        limit(len(spans), (*path, f.name))
        for i, span in enumerate(spans):
            self._one(f, span, deeper(path, f.name, i))

    def _one(self, f: _Field, span: Region, path: Path) -> None:
        """A text, bytes or a message."""
        begin, end = span
        if f.kind == _STRING:
            self.leaves.append(Leaf(path, "text", "", begin, end - begin, (end - begin,)))
        elif f.kind == _BYTES:
            self.leaves.append(Leaf(path, "bytes", "uint8", begin, end - begin, (end - begin,)))
        elif f.of in _TIMES:
            for name, said in (("seconds", "sec"), ("nanos", "nanosec")):
                self.leaves.append(self._scalar(span, f.of, (name,), (*path, said), "int64"))
        elif (places := self._vector(f.of)) is not None:
            parts = [self._scalar(span, f.of, place) for place in places[0]]
            self.leaves.append(lifted(parts, path, (len(parts),), places[1]))
        else:
            self._message(span, f.of, path)

    def _entry(self, f: _Field, span: Region, path: Path) -> None:
        """An entry of a map: its key is part of the path, and so of the layout."""
        key, value = self.plans[f.of]
        records = self._records(span)
        self.fixed.append(span if not records.get(2) else (span[0], records[2][-1][1]))
        _, begin, end = records.get(1, [(0, 0, 0)])[-1]
        name = (
            self.data[begin:end].decode(errors="replace") if key.kind == _STRING else str(self._varint(begin, end)[0])
        )
        inner = deeper(path, f.name, name)
        if value.kind in _NUMBERS:
            leaf = self._numbers(value, records.get(2, []), inner)
            if leaf is not None:
                self.leaves.append(leaf)
        else:
            spans = [(begin, end) for wire, begin, end in records.get(2, []) if wire == _LENGTH]
            self._one(value, spans[-1] if spans else (0, 0), inner)

    def _numbers(self, f: _Field, found: list[tuple[int, int, int]], path: Path) -> Leaf | None:
        kind, dtype, wire = _NUMBERS[f.kind]
        size = 0 if wire == _VARINT else int(kind[2])
        if not f.many:
            last = next(((begin, end) for w, begin, end in reversed(found) if w == wire), None)
            if last is None:
                return None if f.presence else Leaf(path, "constant", dtype)
            return Leaf(path, kind, dtype, last[0], last[1] - last[0])
        parts = []
        for w, begin, end in found:
            if w == wire:
                parts.append(Leaf(path, kind, dtype, begin, end - begin))
            elif w == _LENGTH and size:
                if (end - begin) % size:
                    raise self._damaged("an array is cut off")
                parts.append(Leaf(path, kind, dtype, begin, end - begin, ((end - begin) // size,)))
            elif w == _LENGTH:
                while begin < end:
                    self.visit()
                    _, after = self._varint(begin, end)
                    self.high += range(begin, after)
                    parts.append(Leaf(path, kind, dtype, begin, after - begin))
                    begin = after
        if len(parts) == 1 and parts[0].shape:
            return parts[0]
        n = sum(p.shape[0] if p.shape else 1 for p in parts)
        return Leaf(path, "parts", dtype, shape=(n,), parts=tuple(parts))

    def _scalar(self, region: Region | None, kind: str, path: Path, named: Path = (), dtype: str = "") -> Leaf:
        """A number within messages within the message that lies in a region; a default where one is absent."""
        f = next(f for f in self.plans[kind] if f.name == path[0])
        found = self._records(region).get(f.number, []) if region is not None else []
        if len(path) > 1:
            spans = [(begin, end) for wire, begin, end in found if wire == _LENGTH]
            return self._scalar(spans[-1] if spans else None, f.of, path[1:], named, dtype)
        leaf = self._numbers(f, found, named)
        leaf = leaf if leaf is not None else Leaf(named, "constant", _NUMBERS[f.kind][1])
        return leaf if not dtype else Leaf(named, leaf.kind, dtype, leaf.begin, leaf.size)

    def _vector(self, kind: str) -> tuple[tuple[Path, ...], str] | None:
        """Where the elements of a message lie that is a vector, and their units; None for any other."""
        known = VECTORS.get(frozenset(f.name for f in self.plans[kind]))
        if known is None:
            return None
        for path in known[0]:
            of, f = kind, None
            for k in path:
                f = next((f for f in self.plans[of] if f.name == k), None) if of and len(self.plans[of]) <= 4 else None
                if f is None or f.many:
                    return None
                of = f.of
            if f is None or f.kind not in (1, 2):
                return None
        return known


def protobuf(name: str, data: bytes) -> ProtobufDecoder:
    """A type described by a serialized ``FileDescriptorSet``."""
    return ProtobufDecoder(name, data)
