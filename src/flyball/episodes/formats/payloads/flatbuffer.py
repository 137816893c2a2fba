"""Payloads ``flatbuffer/flatbuffer``: FlatBuffers tables, described by a binary schema (``.bfbs``).

In: the schema, and buffers. Out: a ``Decoder``. Nothing in a buffer is trusted: every offset is checked against its
end, and what is visited is counted, because offsets may lead to the same place many times. Numbers that are absent have
their default, texts and arrays that are absent are empty; unions are left out.

Format: flatbuffers.dev/internals, and reflection/reflection.fbs of google/flatbuffers for the schema.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flyball.base import Damaged
from flyball.episodes.formats.payloads import Column, Path, layout
from flyball.episodes.formats.payloads.layout import Layout, Leaf, deeper, lifted, limit
from flyball.episodes.formats.payloads.rows import TIMES, VECTORS

_BOOL, _STRING, _VECTOR, _OBJECT, _UNION, _ARRAY = 2, 13, 14, 15, 16, 17
_NUMBERS = (
    ("uint8", "B"), ("bool", "?"), ("int8", "b"), ("uint8", "B"), ("int16", "h"), ("uint16", "H"),
    ("int32", "i"), ("uint32", "I"), ("int64", "q"), ("uint64", "Q"), ("float32", "f"), ("float64", "d"),
)  # fmt: skip
_SCALARS = {i + 1: dtype for i, (dtype, _) in enumerate(_NUMBERS)}
"""Reflection's base types -> numpy types."""
_READ = {dtype: struct.Struct("<" + code).unpack_from for dtype, code in _NUMBERS}


class _Buffer(Layout):
    """Bounds-checked access to one buffer; what is read through it leads the walk."""

    def number(self, dtype: str, at: int) -> Any:
        if at < 0:
            raise struct.error("a negative offset")
        self.visit()
        self.fixed.append((at, at + int(np.dtype(dtype).itemsize)))
        return _READ[dtype](self.data, at)[0]

    def follow(self, at: int) -> int:
        """Where the offset at a place leads."""
        return at + self.number("uint32", at)

    def field(self, table: int, offset: int) -> int:
        """Where a table's field lies, 0 when it is absent; ``offset`` is its place in the vtable."""
        vtable = table - self.number("int32", table)
        if offset + 2 > self.number("uint16", vtable):
            return 0
        place = self.number("uint16", vtable + offset)
        return table + place if place else 0

    def vector(self, at: int, size: int) -> tuple[int, int]:
        """(number of elements, place of the first) of the vector that the offset at a place leads to."""
        begin = self.follow(at)
        n = self.number("uint32", begin)
        if n * size > len(self.data) - begin - 4:
            raise struct.error(f"a vector of {n} elements")
        return n, begin + 4

    def text(self, at: int) -> str:
        n, begin = self.vector(at, 1)
        return bytes(self.data[begin : begin + n]).decode()


@dataclass(frozen=True)
class _Field:
    name: str
    kind: int
    element: int
    index: int
    length: int
    offset: int
    default: Any


@dataclass(frozen=True)
class _Object:
    name: str
    is_struct: bool
    size: int
    fields: tuple[_Field, ...]


def _schema(data: bytes) -> tuple[list[_Object], str]:
    """The objects of a binary schema, and the name of its root table."""
    b = _Buffer(data, "schema")
    b.visits_left = len(data)  # each byte of a sound schema is looked at about once
    if data[4:8] != b"BFBS":
        raise Damaged("no binary schema of FlatBuffers (.bfbs)")

    def field(at: int) -> _Field:
        def scalar(table: int, offset: int, dtype: str, default: Any = 0) -> Any:
            place = b.field(table, offset)
            return b.number(dtype, place) if place else default

        kind = b.follow(b.field(at, 6))
        base, element = scalar(kind, 4, "int8"), scalar(kind, 6, "int8")
        default = scalar(at, 14, "float64", 0.0) if base in (11, 12) else scalar(at, 12, "int64")
        return _Field(
            b.text(b.field(at, 4)), base, element, scalar(kind, 8, "int32", -1), scalar(kind, 10, "uint16"),
            scalar(at, 10, "uint16"), bool(default) if base == _BOOL else default,
        )  # fmt: skip

    def vector(table: int, offset: int) -> list[int]:
        n, begin = b.vector(b.field(table, offset), 4)
        return [b.follow(begin + 4 * i) for i in range(n)]

    root = b.follow(0)
    objects = []
    for at in vector(root, 4):
        size, flag = b.field(at, 12), b.field(at, 8)
        fields = sorted(
            ((b.field(f, 8), f) for f in vector(at, 6)), key=lambda x: b.number("uint16", x[0]) if x[0] else 0
        )
        objects.append(
            _Object(
                b.text(b.field(at, 4)),
                bool(flag and b.number("bool", flag)),
                b.number("int32", size) if size else 0,
                tuple(field(f) for _, f in fields),
            )
        )
    place = b.field(root, 12)
    return objects, b.text(b.field(b.follow(place), 4)) if place else ""


class FlatbufferDecoder:
    """See ``payloads.Decoder``."""

    def __init__(self, name: str, data: bytes) -> None:
        where = f"definition of {name}"
        try:
            objects, root = _schema(data)
        except (struct.error, UnicodeDecodeError) as err:
            raise Damaged(f"cannot be read ({err})", where=where) from err
        named = {o.name: o for o in objects}
        found = named.get(name) or named.get(root)
        if found is None or found.is_struct:
            raise Damaged("it does not define the type it is for", where=where)
        for o in objects:
            for f in o.fields:
                if _OBJECT in (f.kind, f.element) and not 0 <= f.index < len(objects):
                    raise Damaged(f"{o.name}.{f.name} is of a type that is not defined", where=where)
        self.name, self.fields = name or root, tuple(f.name for f in found.fields)
        self._parts = (objects, found)

    def _walk(self, payload: bytes) -> Layout:
        try:
            return _Message(*self._parts, payload)
        except (struct.error, UnicodeDecodeError) as err:
            raise Damaged(f"a payload is no {self.name} ({err})") from err

    def decode(self, payloads: Sequence[bytes]) -> tuple[list[Column], list[str]]:
        """See ``payloads.Decoder.decode``."""
        return layout.decode(self._walk, payloads)

    def row(self, payload: bytes) -> dict[Path, Any]:
        """See ``payloads.Decoder.row``."""
        return layout.row(self._walk(payload))


class _Message(_Buffer):
    """The layout of one message."""

    def __init__(self, objects: list[_Object], root: _Object, data: bytes) -> None:
        super().__init__(data, root.name)
        self.objects = objects
        self._table((), self.follow(0), root)

    def _place(self, at: int, of: _Object, f: _Field) -> int:
        """Where a field of the table or struct at a place lies; 0 when it is absent."""
        return at + f.offset if of.is_struct else self.field(at, f.offset)

    def _table(self, path: Path, at: int, of: _Object) -> None:
        for f in of.fields:
            self._field(deeper(path, f.name), self._place(at, of, f), f)

    def _field(self, path: Path, at: int, f: _Field) -> None:
        self.visit()
        if f.kind in _SCALARS:
            self.leaves.append(self._scalar(path, at, f))
        elif f.kind == _STRING:
            self._text(path, at)
        elif f.kind == _OBJECT:
            if at:
                of = self.objects[f.index]
                self._object(path, at if of.is_struct else self.follow(at), of)
        elif f.kind in (_VECTOR, _ARRAY):
            self._vector(path, at, f)
        else:
            self.skipped.append(path)

    def _scalar(self, path: Path, at: int, f: _Field) -> Leaf:
        dtype = _SCALARS[f.kind]
        if not at:
            return Leaf(path, "constant", dtype, value=f.default)
        return self._run(path, dtype, at, 1, ())

    def _run(self, path: Path, dtype: str, at: int, n: int, shape: tuple[int, ...]) -> Leaf:
        """Numbers that lie side by side."""
        kind = np.dtype("u1" if dtype == "bool" else dtype).newbyteorder("<")
        if at < 0 or at + n * kind.itemsize > len(self.data):
            raise struct.error(f"{n} numbers where the buffer ends")
        return Leaf(path, "bytes" if dtype == "uint8" and shape else kind.str, dtype, at, n * kind.itemsize, shape)

    def _text(self, path: Path, at: int) -> None:
        n, begin = self.vector(at, 1) if at else (0, 0)
        self.leaves.append(Leaf(path, "text", "", begin, n, (n,)))

    def _object(self, path: Path, at: int, of: _Object) -> None:
        names = frozenset(f.name for f in of.fields)
        if names in TIMES:
            for name, said in zip(TIMES[names], ("sec", "nanosec"), strict=True):
                f = next(f for f in of.fields if f.name == name)
                if f.kind not in _SCALARS:
                    raise Damaged(f"{of.name} is no time")
                leaf = self._scalar((*path, said), self._place(at, of, f), f)
                self.leaves.append(replace(leaf, dtype="int64"))
        elif (elements := self._elements(at, of)) is not None:
            self.leaves.append(lifted(elements, path, (len(elements),), VECTORS[names][1]))
        else:
            self._table(path, at, of)

    def _elements(self, at: int, of: _Object) -> list[Leaf] | None:
        """The elements of a table or struct that is a vector; None for any other."""
        known = VECTORS.get(frozenset(f.name for f in of.fields))
        return None if known is None else self._at(known[0], at, of)

    def _at(self, paths: Sequence[Path], at: int, of: _Object) -> list[Leaf] | None:
        out = []
        for path in paths:
            f = next((f for f in of.fields if f.name == path[0]), None)
            if f is None or len(of.fields) > 4:
                return None
            place = self._place(at, of, f) if at else 0
            if len(path) == 1 and f.kind in (11, 12):
                out.append(self._scalar(path, place, f))
            elif len(path) == 2 and f.kind == _OBJECT:
                inner = self.objects[f.index]
                found = self._at([path[1:]], place if inner.is_struct or not place else self.follow(place), inner)
                if found is None:
                    return None
                out += found
            else:
                return None
        return out

    def _vector(self, path: Path, at: int, f: _Field) -> None:
        of = self.objects[f.index] if f.element == _OBJECT else None
        dtype = _SCALARS.get(f.element)
        size = np.dtype(dtype).itemsize if dtype else max(1, of.size) if of is not None and of.is_struct else 4
        n, begin = (f.length, at) if f.kind == _ARRAY else self.vector(at, size) if at else (0, 0)
        if dtype is not None:
            self.leaves.append(self._run(path, dtype, begin, n, (n,)))
            return
        if f.element == _UNION or (of is None and f.element != _STRING):
            self.skipped.append(path)
            return
        places = range(begin, begin + n * size, size)
        if of is not None and frozenset(x.name for x in of.fields) in VECTORS and n:
            found = [self._elements(p if of.is_struct else self.follow(p), of) for p in places]
            parts = [leaf for elements in found if elements is not None for leaf in elements]
            if all(elements is not None for elements in found):
                unit = VECTORS[frozenset(x.name for x in of.fields)][1]
                self.leaves.append(lifted(parts, path, (n, len(parts) // n), unit))
                return
        limit(n, path)
        for i, p in enumerate(places):
            inner = deeper(path[:-1], path[-1], i)
            if of is None:
                self._text(inner, p)
            else:
                self._object(inner, p if of.is_struct else self.follow(p), of)


def flatbuffer(name: str, data: bytes) -> FlatbufferDecoder:
    """A type described by a binary schema."""
    return FlatbufferDecoder(name, data)
