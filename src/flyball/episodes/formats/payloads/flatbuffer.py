"""Payloads ``flatbuffer/flatbuffer``: FlatBuffers tables, described by a binary schema (``.bfbs``).

In: the schema, and buffers. Out: a ``Decoder``. Nothing in a buffer is trusted: every offset is checked against its
end, and what is visited is counted, because offsets may lead to the same place many times. Numbers that are absent have
their default, texts and arrays that are absent are empty; unions are left out.

Format: flatbuffers.dev/internals, and reflection/reflection.fbs of google/flatbuffers for the schema.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyball.base import Damaged, Unsupported
from flyball.episodes.formats.payloads import MAX_FIELDS, Path
from flyball.episodes.formats.payloads.rows import TIMES, VECTORS, Rows, deeper, limit, vector

_BOOL, _STRING, _VECTOR, _OBJECT, _UNION, _ARRAY = 2, 13, 14, 15, 16, 17
_NUMBERS = (
    ("uint8", "B"), ("bool", "?"), ("int8", "b"), ("uint8", "B"), ("int16", "h"), ("uint16", "H"),
    ("int32", "i"), ("uint32", "I"), ("int64", "q"), ("uint64", "Q"), ("float32", "f"), ("float64", "d"),
)  # fmt: skip
_SCALARS = {i + 1: dtype for i, (dtype, _) in enumerate(_NUMBERS)}
"""Reflection's base types -> numpy types."""
_READ = {dtype: struct.Struct("<" + code).unpack_from for dtype, code in _NUMBERS}


class _Buffer:
    """Bounds-checked access to one buffer."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.visited = 0

    def number(self, dtype: str, at: int) -> Any:
        if at < 0:
            raise struct.error("a negative offset")
        self.visited += 1
        if self.visited > 64 * MAX_FIELDS:
            raise Unsupported("more than can be visited in one message")
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
    b = _Buffer(data)
    b.visited = -(1 << 24)  # a schema is larger than a message
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


class FlatbufferDecoder(Rows):
    """See ``payloads.Decoder``."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__()
        try:
            self._objects, root = _schema(data)
        except (struct.error, UnicodeDecodeError, KeyError) as err:
            raise Damaged(f"cannot be read ({err})", where=f"definition of {name}") from err
        named = {o.name: o for o in self._objects}
        found = named.get(name) or named.get(root)
        if found is None or found.is_struct:
            raise Damaged("it does not define the type it is for", where=f"definition of {name}")
        for o in self._objects:
            for f in o.fields:
                kinds = (f.kind, f.element) if f.kind in (_VECTOR, _ARRAY) else (f.kind,)
                if _OBJECT in kinds and not 0 <= f.index < len(self._objects):
                    raise Damaged(f"{o.name}.{f.name} is of a type that is not defined", where=f"definition of {name}")
        self._root, self.name = found, name or root
        self.fields = tuple(f.name for f in found.fields)

    def row(self, payload: bytes) -> dict[Path, Any]:
        """See ``payloads.Decoder.row``."""
        row: dict[Path, Any] = {}
        b = _Buffer(payload)
        try:
            self._table(row, (), b, b.follow(0), self._root)
        except (struct.error, UnicodeDecodeError) as err:
            raise Damaged(f"a payload is no {self.name} ({err})") from err
        return row

    def _table(self, row: dict[Path, Any], path: Path, b: _Buffer, at: int, of: _Object) -> None:
        for f in of.fields:
            self._field(row, deeper(path, f.name), b, at + f.offset if of.is_struct else b.field(at, f.offset), f)

    def _field(self, row: dict[Path, Any], path: Path, b: _Buffer, at: int, f: _Field) -> None:
        if (dtype := _SCALARS.get(f.kind)) is not None:
            self.put(row, path, b.number(dtype, at) if at else f.default, dtype)
        elif f.kind == _STRING:
            self.put(row, path, b.text(at) if at else "", "")
        elif f.kind == _OBJECT:
            if at:
                self._object(row, path, b, at, self._objects[f.index])
        elif f.kind in (_VECTOR, _ARRAY):
            self._vector(row, path, b, at, f)
        else:
            self.put(row, path, 0, "")
            self.kinds[path] = None

    def _object(self, row: dict[Path, Any], path: Path, b: _Buffer, at: int, of: _Object) -> None:
        place = at if of.is_struct else b.follow(at)
        names = frozenset(f.name for f in of.fields)
        if names in TIMES:
            for name, said in zip(TIMES[names], ("sec", "nanosec"), strict=True):
                f = next(f for f in of.fields if f.name == name)
                where = place + f.offset if of.is_struct else b.field(place, f.offset)
                value = b.number(_SCALARS.get(f.kind, "uint32"), where) if where else 0
                self.put(row, (*path, said), value, "int64")
        elif names in VECTORS and (lifted := vector(self._numbers(b, place, of))) is not None:
            self.put(row, path, lifted[0], "float64", lifted[1])
        else:
            self._table(row, path, b, place, of)

    def _numbers(self, b: _Buffer, at: int, of: _Object, depth: int = 0) -> dict[str, Any]:
        """The floating point numbers of a small table, by field name."""
        out: dict[str, Any] = {}
        for f in of.fields if len(of.fields) <= 4 else ():
            where = at + f.offset if of.is_struct else b.field(at, f.offset)
            if f.kind in (11, 12):
                out[f.name] = b.number(_SCALARS[f.kind], where) if where else f.default
            elif f.kind == _OBJECT and where and depth < 2:
                inner = self._objects[f.index]
                out[f.name] = self._numbers(b, where if inner.is_struct else b.follow(where), inner, depth + 1)
        return out

    def _vector(self, row: dict[Path, Any], path: Path, b: _Buffer, at: int, f: _Field) -> None:
        of = self._objects[f.index] if f.element == _OBJECT else None
        dtype = _SCALARS.get(f.element)
        size = np.dtype(dtype).itemsize if dtype else of.size if of is not None and of.is_struct else 4
        if f.kind == _ARRAY:
            n, begin = f.length, at
            if at and at + n * size > len(b.data):
                raise struct.error(f"an array of {n} elements")
        else:
            n, begin = b.vector(at, size) if at else (0, 0)
        if dtype == "uint8":
            self.put(row, path, memoryview(b.data)[begin : begin + n], "")
        elif dtype is not None:
            values = np.frombuffer(b.data, np.dtype(dtype).newbyteorder("<"), n, begin)
            self.put(row, path, values != 0 if dtype == "bool" else values, dtype)
        elif f.element == _STRING:
            limit(n, path)
            for i in range(n):
                self.put(row, deeper(path[:-1], path[-1], i), b.text(begin + 4 * i), "")
        elif of is not None:
            self._objects_in(row, path, b, begin, n, size, of)
        else:
            self.put(row, path, 0, "")
            self.kinds[path] = None

    def _objects_in(
        self, row: dict[Path, Any], path: Path, b: _Buffer, at: int, n: int, size: int, of: _Object
    ) -> None:
        names = frozenset(f.name for f in of.fields)
        places = range(at, at + n * size, size or 1) if n else range(0)
        if names in VECTORS and n:
            lifted = [vector(self._numbers(b, p if of.is_struct else b.follow(p), of)) for p in places]
            if all(v is not None for v in lifted):
                self.put(row, path, [v[0] for v in lifted if v is not None], "float64", VECTORS[names][1])
                return
        limit(n, path)
        for i, p in enumerate(places):
            self._object(row, deeper(path[:-1], path[-1], i), b, p, of)


def flatbuffer(name: str, data: bytes) -> FlatbufferDecoder:
    """A type described by a binary schema."""
    return FlatbufferDecoder(name, data)
