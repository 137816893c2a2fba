"""Payloads ``json/jsonschema`` and schemaless ``json/``.

In: JSON texts, one per message, perhaps with a JSON Schema. Out: a ``Decoder``. The schema says which numbers are
integers and which texts are bytes in base64; without one every number is float64, and a field that holds an integer
beyond 2^53 is left out. ``null`` is NaN where the schema says ``number``, else the field is not there.
"""

from __future__ import annotations

import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

from flyball.base import Damaged
from flyball.episodes.formats.payloads import MAX_DEPTH, Path
from flyball.episodes.formats.payloads.layout import deeper, limit
from flyball.episodes.formats.payloads.rows import TIMES, Rows, vector

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
        try:
            found = json.loads(bytes(payload))
        except (ValueError, RecursionError) as err:
            reason = "nested too deeply" if isinstance(err, RecursionError) else str(err)[:80]
            raise Damaged(f"a payload is no JSON ({reason})") from err
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
