"""Payloads ``protobuf/protobuf``: messages of Protocol Buffers, described by a ``FileDescriptorSet``.

In: the serialized descriptors, and messages. Out: a ``Decoder``. Enumerations are numbers, ``oneof`` and ``optional``
fields are there when they are set, maps with texts or numbers as keys are ``name[key]``. Needs ``protobuf``.
"""

from __future__ import annotations

from typing import Any

from flyball.base import Damaged, NotPossible
from flyball.episodes.formats.payloads import Path
from flyball.episodes.formats.payloads.rows import VECTORS, Rows, deeper, limit

_TIMES = ("google.protobuf.Timestamp", "google.protobuf.Duration")


class ProtobufDecoder(Rows):
    """See ``payloads.Decoder``."""

    def __init__(self, name: str, data: bytes) -> None:
        super().__init__()
        try:
            from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory
        except ModuleNotFoundError as err:
            raise NotPossible(
                "protobuf messages need the Python package 'protobuf'", run_next="pip install 'flyball[logs]'"
            ) from err
        self._error = message.DecodeError
        where = f"definition of {name}"
        try:
            files = {f.name: f for f in descriptor_pb2.FileDescriptorSet.FromString(data).file}
            pool = descriptor_pool.DescriptorPool()
            done: set[str] = set()
            while left := [f for f in files.values() if f.name not in done]:
                ready = [f for f in left if done.issuperset(f.dependency)]
                if not ready:
                    missing = sorted({d for f in left for d in f.dependency} - set(files))
                    raise Damaged(f"{missing[0]} is missing" if missing else "files import each other", where=where)
                for f in ready:
                    pool.Add(f)
                    done.add(f.name)
            descriptor = pool.FindMessageTypeByName(name)
            self._class = message_factory.GetMessageClass(descriptor)
        except (message.DecodeError, TypeError, KeyError, ValueError) as err:
            raise Damaged(f"it does not describe {name} ({str(err).strip()[:120]})", where=where) from err
        self.name = name
        self.fields = tuple(f.name for f in descriptor.fields)
        self._plans: dict[str, list[tuple[Any, ...]]] = {}

    def row(self, payload: bytes) -> dict[Path, Any]:
        """See ``payloads.Decoder.row``."""
        try:
            found = self._class.FromString(payload)
        except self._error as err:
            raise Damaged(f"a payload is no {self.name} ({str(err).strip()[:80]})") from err
        row: dict[Path, Any] = {}
        self._message(row, (), found)
        return row

    def _message(self, row: dict[Path, Any], path: Path, found: Any) -> None:
        for name, dtype, many, presence, of, entry in self._plan(found.DESCRIPTOR):
            if presence and not found.HasField(name):
                continue
            value = getattr(found, name)
            inner = deeper(path, name)
            if entry:
                limit(len(value), inner)
                for key in sorted(value):
                    self._value(row, deeper(path, name, key), value[key], dtype, of)
            elif not many:
                self._value(row, inner, value, dtype, of)
            elif dtype:
                self.put(row, inner, list(value), dtype)
            elif of is not None and (places := self._vector(of)) is not None and len(value):
                unit = VECTORS[frozenset(f.name for f in of.fields)][1]
                self.put(row, inner, [[_at(v, p) for p in places] for v in value], "float64", unit)
            else:
                limit(len(value), inner)
                for i, element in enumerate(value):
                    self._value(row, deeper(path, name, i), element, dtype, of)

    def _value(self, row: dict[Path, Any], path: Path, value: Any, dtype: str, of: Any) -> None:
        if of is None:
            self.put(row, path, memoryview(value) if isinstance(value, bytes) else value, dtype)
        elif of.full_name in _TIMES:
            self.put(row, (*path, "sec"), value.seconds, "int64")
            self.put(row, (*path, "nanosec"), value.nanos, "int64")
        elif (places := self._vector(of)) is not None:
            unit = VECTORS[frozenset(f.name for f in of.fields)][1]
            self.put(row, path, [_at(value, p) for p in places], "float64", unit)
        else:
            self._message(row, path, value)

    def _plan(self, descriptor: Any) -> list[tuple[Any, ...]]:
        """(name, numpy type or "", repeated, has presence, message type or None, is a map) of each field."""
        plan = self._plans.get(descriptor.full_name)
        if plan is None:
            plan = self._plans[descriptor.full_name] = []
            for f in descriptor.fields:
                of, entry = f.message_type, False
                kind = f.cpp_type
                if of is not None and of.GetOptions().map_entry:
                    entry, value = True, of.fields_by_name["value"]
                    of, kind = value.message_type, value.cpp_type
                many = _repeated(f)
                plan.append((f.name, _DTYPES.get(kind, ""), many, f.has_presence, of, entry))
        return plan

    def _vector(self, of: Any) -> tuple[Path, ...] | None:
        """Where the elements of a message lie that is a vector; None for any other."""
        known = VECTORS.get(frozenset(f.name for f in of.fields))
        if known is None:
            return None
        for path in known[0]:
            inner, f = of, None
            for k in path:
                f = inner.fields_by_name.get(k) if inner is not None and len(inner.fields) <= 4 else None
                if f is None or _repeated(f):
                    return None
                inner = f.message_type
            if f is None or not _DTYPES.get(f.cpp_type, "").startswith("float"):
                return None
        return known[0]


_DTYPES = {1: "int32", 2: "int64", 3: "uint32", 4: "uint64", 5: "float64", 6: "float32", 7: "bool", 8: "int32"}
"""By the C++ types of google.protobuf.descriptor.FieldDescriptor; 9 is text or bytes, 10 a message."""


def _repeated(f: Any) -> bool:
    return f.is_repeated if hasattr(f, "is_repeated") else f.label == f.LABEL_REPEATED  # before protobuf 6.30


def _at(message: Any, path: Path) -> float:
    for k in path:
        message = getattr(message, k)
    return float(message)


def protobuf(name: str, data: bytes) -> ProtobufDecoder:
    """A type described by a serialized ``FileDescriptorSet``."""
    return ProtobufDecoder(name, data)
