"""Payloads ``json/jsonschema`` and schemaless ``json/``.

In: JSON texts, one per message, perhaps with a JSON Schema. Out: a ``Decoder``. The schema says which numbers are
integers and which texts are bytes in base64; without one every number is float64, and a field that holds an integer
beyond 2^53 is left out. ``null`` is NaN where the schema says ``number``, else the field is not there.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged
from flyball.episodes.formats.payloads import MAX_DEPTH, MAX_FIELDS, Column, Path
from flyball.episodes.formats.payloads.layout import deeper, limit
from flyball.episodes.formats.payloads.rows import TIMES, VECTORS, Rows, columns, vector

_EXACT = 1 << 53


class JsonDecoder(Rows):
    """See ``payloads.Decoder``."""

    def __init__(self, name: str, schema: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.name, self._schema = name, schema
        self._types: dict[int, Mapping[str, Any]] = {}
        self.fields = tuple(self._properties(schema)) if schema is not None else ()

    def row(self, payload: bytes) -> dict[Path, Any]:
        """See ``payloads.Decoder.row``."""
        return self._row(_parsed(payload))

    def decode(self, payloads: Sequence[bytes]) -> tuple[list[Column], list[str]]:
        """See ``payloads.Decoder.decode``."""
        found = [_parsed(p) for p in payloads]
        out: list[Column] = []
        try:
            self._together((), found, self._schema, out)
        except (_Differ, OverflowError):
            return columns([self._row(f) for f in found], self.kinds)
        return out, []

    def _row(self, found: Any) -> dict[Path, Any]:
        row: dict[Path, Any] = {}
        if isinstance(found, dict):
            self._object(row, (), found, self._schema)
        else:
            self._value(row, ("value",), found, self._schema)
        return row

    def _object(self, row: dict[Path, Any], path: Path, found: dict[str, Any], schema: Any) -> None:
        properties = self._properties(schema)
        for key, value in found.items():
            self._value(row, deeper(path, _sound(key)), value, properties.get(key))

    def _value(self, row: dict[Path, Any], path: Path, value: Any, schema: Any) -> None:
        schema = self._resolved(schema)
        declared = schema.get("type")
        if value is None:
            if declared == "number":
                self.put(row, path, math.nan, "float64")
        elif isinstance(value, bool):
            self.put(row, path, value, "bool")
        elif isinstance(value, (int, float)):
            self._number(row, path, value, declared)
        elif isinstance(value, str):
            self.put(
                row, path, _decoded(value, path) if schema.get("contentEncoding") == "base64" else _sound(value), ""
            )
        elif isinstance(value, list):
            self._list(row, path, value, self._resolved(schema.get("items")))
        elif (names := TIMES.get(frozenset(value))) is not None and all(_is_int(v) for v in value.values()):
            self.put(row, (*path, "sec"), value[names[0]], "int64")
            self.put(row, (*path, "nanosec"), value[names[1]], "int64")
        elif (lifted := vector(value)) is not None:
            self.put(row, path, lifted[0], "float64", lifted[1])
        else:
            self._object(row, path, value, schema)

    def _number(self, row: dict[Path, Any], path: Path, value: float, declared: Any) -> None:
        if declared == "integer":
            if value != int(value) if math.isfinite(value) else True:
                raise Damaged(f"{'.'.join(path)} is {value}, its schema says integer")
            self.put(row, path, int(value), "int64")
        else:
            self.put(row, path, value, "float64")
            if isinstance(value, int) and abs(value) > _EXACT:
                self.kinds[path] = None

    def _list(self, row: dict[Path, Any], path: Path, values: list[Any], schema: Mapping[str, Any]) -> None:
        leaves = _leaves(values)
        if leaves is not None:
            if schema.get("type") == "integer" and all(_is_int(v) for v in leaves):
                self.put(row, path, values, "int64")
            elif leaves and all(isinstance(v, bool) for v in leaves):
                self.put(row, path, values, "bool")
            else:
                self.put(row, path, _numbers(values), "float64")
                if any(_is_int(v) and abs(v) > _EXACT for v in leaves):
                    self.kinds[path] = None
            return
        lifted = [v for v in (vector(v) if isinstance(v, dict) else None for v in values) if v is not None]
        if len(lifted) == len(values) and len({(len(v), unit) for v, unit in lifted}) == 1:
            self.put(row, path, [v for v, _ in lifted], "float64", lifted[0][1])
            return
        limit(len(values), path)
        for i, value in enumerate(values):
            self._value(row, deeper(path[:-1], path[-1], i), value, schema)

    def _together(self, path: Path, values: list[Any], schema: Any, out: list[Column]) -> None:
        """What ``_value`` does, for a field of all messages at once; raises _Differ where these are not alike."""
        schema = self._resolved(schema)
        kinds, kind = set(map(type, values)), type(values[0])
        if len(out) > MAX_FIELDS or (not path and kinds != {dict}):
            raise _Differ
        if kinds == {dict}:
            self._objects(path, values, schema, out)
        elif kinds == {str} and schema.get("contentEncoding") != "base64":
            out.append(Column(path, "", [_sound(v) for v in values]))
        elif kinds == {bool}:
            out.append(Column(path, "", np.array(values)))
        elif kinds <= {int, float}:
            integers = schema.get("type") == "integer"
            if integers and kinds != {int}:
                raise _Differ
            out.append(Column(path, "", _array(values, integers)))
        elif kind is list and kinds == {list} and len(set(map(len, values))) == 1:
            flat = list(chain.from_iterable(values))
            inner = set(map(type, flat))
            if not inner or not inner <= {int, float}:
                raise _Differ
            integers = self._resolved(schema.get("items")).get("type") == "integer" and inner == {int}
            out.append(Column(path, "", _array(flat, integers).reshape(len(values), -1)))
        else:
            raise _Differ

    def _objects(self, path: Path, values: list[dict[str, Any]], schema: Mapping[str, Any], out: list[Column]) -> None:
        keys = tuple(values[0])
        if len(set(map(tuple, values))) > 1:
            raise _Differ
        if path and (names := TIMES.get(frozenset(keys))) is not None:
            for name, said in zip(names, ("sec", "nanosec"), strict=True):
                part = [v[name] for v in values]
                if set(map(type, part)) != {int}:
                    raise _Differ
                out.append(Column((*path, said), "", np.array(part, np.int64)))
        elif path and (known := VECTORS.get(frozenset(keys))) is not None:
            parts = []
            for place in known[0]:
                inner: list[Any] = values
                for k in place:
                    if set(map(type, inner)) != {dict} or max(map(len, inner)) > 4:
                        raise _Differ
                    inner = [v.get(k) for v in inner]
                if not set(map(type, inner)) <= {int, float}:
                    raise _Differ
                parts.append(np.array(inner, np.float64))
            out.append(Column(path, known[1], np.stack(parts, axis=1)))
        else:
            properties = self._properties(schema)
            for key in keys:
                self._together(deeper(path, _sound(key)), [v[key] for v in values], properties.get(key), out)

    def _resolved(self, schema: Any) -> Mapping[str, Any]:
        """A schema without ``$ref`` into the same document; empty where there is none."""
        for _ in range(MAX_DEPTH):
            if not isinstance(schema, dict):
                return {}
            ref = schema.get("$ref")
            if not isinstance(ref, str):
                return schema
            schema = self._schema if ref.startswith("#") else None
            for key in ref.lstrip("#").split("/")[1:]:
                schema = schema.get(key) if isinstance(schema, dict) else None
        return {}

    def _properties(self, schema: Any) -> Mapping[str, Any]:
        found = self._resolved(schema).get("properties")
        return found if isinstance(found, dict) else {}


class _Differ(Exception):
    """Messages are not alike; they are read one by one."""


def _parsed(payload: bytes) -> Any:
    try:
        return json.loads(bytes(payload).decode())
    except (ValueError, RecursionError) as err:
        reason = "nested too deeply" if isinstance(err, RecursionError) else str(err)[:80]
        raise Damaged(f"a payload is no JSON ({reason})") from err


def _array(values: list[Any], integers: bool) -> NDArray[Any]:
    """Numbers as int64, or as float64 where that is exact for those that are integers."""
    if not integers and any(type(v) is int and abs(v) > _EXACT for v in values):
        raise _Differ
    return np.array(values, np.int64 if integers else np.float64)


def _leaves(values: list[Any], depth: int = 0) -> list[Any] | None:
    """The numbers in lists within lists, NaN for null; None when there is anything else."""
    out: list[Any] = []
    for v in values:
        if isinstance(v, list):
            inner = _leaves(v, depth + 1) if depth < 4 else None
            if inner is None:
                return None
            out += inner
        elif isinstance(v, (int, float)) or v is None:
            out.append(math.nan if v is None else v)
        else:
            return None
    return out


def _numbers(values: list[Any]) -> list[Any]:
    """NaN for null, in lists within lists."""
    return [_numbers(v) if isinstance(v, list) else math.nan if v is None else v for v in values]


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _decoded(text: str, path: Path) -> memoryview:
    try:
        return memoryview(binascii.a2b_base64(text, strict_mode=True))
    except (ValueError, binascii.Error) as err:
        raise Damaged(f"{'.'.join(path)} is not base64 ({err})") from err


def _sound(text: str) -> str:
    """Text without halves of surrogate pairs, which JSON can hold and no file can."""
    return text if text.isascii() else text.encode(errors="replace").decode()


def jsonschema(name: str, data: bytes) -> JsonDecoder:
    """A type described by a JSON Schema."""
    try:
        schema = json.loads(data or b"{}")
    except (ValueError, RecursionError) as err:
        raise Damaged(f"no JSON ({str(err)[:80]})", where=f"definition of {name}") from err
    if not isinstance(schema, dict):
        raise Damaged("no JSON Schema", where=f"definition of {name}")
    return JsonDecoder(name, schema)


def schemaless(name: str, data: bytes) -> JsonDecoder:
    """Messages that describe themselves."""
    return JsonDecoder(name, None)
