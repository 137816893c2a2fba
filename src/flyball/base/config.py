"""Frozen dataclasses from plain data (JSON, TOML), with one-line refusals."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar, Union

from flyball.base.errors import InputError, Missing

T = TypeVar("T")


def from_plain(cls: type[T], data: Any, *, where: str) -> T:
    """Build a (nested) dataclass from a mapping; unknown keys and wrong types are refused by name.

    Raises:
      InputError: naming ``where`` and the key.
    """
    if not isinstance(data, Mapping):
        raise InputError(f"expected a table of keys, got {type(data).__name__}", where=where)
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    kwargs: dict[str, Any] = {}
    for key, value in data.items():
        if key not in fields:
            raise Missing.named("key", str(key), fields, where=where)
        kwargs[key] = _convert(hints[key], value, where=f"{where}: {key}")
    for f in fields.values():
        if f.name not in kwargs and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING:
            raise InputError(f"key {f.name!r} is missing", where=where, allowed=", ".join(fields))
    return cls(**kwargs)


def _convert(hint: Any, value: Any, *, where: str) -> Any:
    origin = typing.get_origin(hint)
    if hint is Any:
        return value
    if origin in (Union, types.UnionType):
        options = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        return _convert(next(o for o in options if o is not type(None)), value, where=where)
    if dataclasses.is_dataclass(hint):
        return from_plain(typing.cast(type, hint), value, where=where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise InputError(f"expected a list, got {value!r}", where=where)
        inner = typing.get_args(hint)[0]
        return tuple(_convert(inner, v, where=f"{where}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and (not isinstance(value, hint) or (hint is int and isinstance(value, bool))):
        raise InputError(f"expected {hint.__name__}, got {value!r}", where=where)
    if hint is float:
        raise InputError(f"expected a number, got {value!r}", where=where)
    return value
