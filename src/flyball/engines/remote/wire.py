"""Values between two processes: a JSON header through a socket, arrays in shared memory.

In: a value made of None, numbers, text, bytes, sequences, mappings with text keys, arrays and flyball's dataclasses.
Out: the same value on the other side, arrays bit for bit. Nothing is pickled, and nothing that arrives is executed.

The shared memory is a file without a name (one for each direction), inherited by the other process: the system frees it
with the last of the two, however they end. Whoever writes may make it larger, and says so in the header.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import mmap
import os
import socket
import struct
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

_HEAD = struct.Struct("<QQ")
"""Length of the header, size of the shared memory [bytes]."""
_ALIGN = 64
_LONGEST = 2**30
"""Longest header [bytes]; every array is in shared memory, so that only something broken is longer."""
_KINDS = "biuf"
"""Kinds of arrays that are passed: truth values, whole numbers, numbers."""


class Closed(Exception):
    """The other side is gone."""


class Shared:
    """Memory shared by two processes, seen from one of them.

    Args:
      descriptor: of the file.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._map: mmap.mmap | None = None
        self._size = 0

    @classmethod
    def create(cls) -> Shared:
        """New, empty, nameless."""
        if hasattr(os, "memfd_create"):  # not bound by the size of /dev/shm, which is small in containers
            return cls(os.memfd_create("flyball"))
        with tempfile.TemporaryFile() as file:
            return cls(os.dup(file.fileno()))

    def grow(self, size: int) -> None:
        """Make room for ``size`` bytes."""
        if size > self._size:
            size = max(size, 2 * self._size, 1 << 16)
            os.ftruncate(self.descriptor, size)
            self.see(size)

    def see(self, size: int) -> None:
        """Map it again when the other side has made it larger."""
        if size > self._size:
            # arrays of the old map keep it alive
            self._map, self._size = mmap.mmap(self.descriptor, size), size

    def array(self, start: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
        """A view of part of it."""
        if not all(shape):
            return np.empty(shape, dtype)
        return np.ndarray(shape, dtype, self._map, start)

    @property
    def size(self) -> int:
        """Bytes that are mapped."""
        return self._size

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last map of it."""
        os.close(self.descriptor)
        self._map = None


class Channel:
    """One end of the connection.

    Args:
      connection: a connected stream socket.
      outgoing: memory that this side writes.
      incoming: memory that the other side writes.
    """

    def __init__(self, connection: socket.socket, outgoing: Shared, incoming: Shared) -> None:
        self.connection, self._out, self._in = connection, outgoing, incoming

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; arrays may be changed as soon as this returns.

        Raises:
          TypeError: a value that cannot be passed.
          Closed: the other side is gone.
        """
        arrays: list[tuple[int, np.ndarray]] = []
        header = json.dumps(_pack(message, arrays)).encode()
        if arrays:
            start, last = arrays[-1]
            self._out.grow(start + last.nbytes)
        for start, x in arrays:
            self._out.array(start, x.dtype, x.shape)[...] = x
        try:
            self.connection.sendall(_HEAD.pack(len(header), self._out.size) + header)
        except OSError as err:
            raise Closed from err

    def receive(self) -> dict[str, Any]:
        """The next message; its arrays are copies.

        Raises:
          Closed: the other side is gone.
        """
        length, size = _HEAD.unpack(self._read(_HEAD.size))
        if length > _LONGEST:
            raise Closed
        message = json.loads(self._read(length))
        self._in.see(size)
        return dict(_unpack(message, self._in))

    def _read(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            try:
                part = self.connection.recv(min(size - len(parts), 1 << 20))
            except OSError as err:
                raise Closed from err
            if not part:
                raise Closed
            parts += part
        return bytes(parts)

    def close(self) -> None:
        """Close the socket and the memory."""
        self.connection.close()
        self._out.close()
        self._in.close()


def _pack(value: Any, arrays: list[tuple[int, np.ndarray]]) -> Any:
    """JSON for a value; arrays are appended with the place where they shall lie."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value.item() if isinstance(value, np.generic) else value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, bytes):
        return {"$": "bytes", "of": _pack(np.frombuffer(value, np.uint8), arrays)}
    if isinstance(value, np.ndarray):
        if value.dtype.kind not in _KINDS:
            raise TypeError(f"arrays of {value.dtype} do not pass between processes")
        start = arrays[-1][0] + arrays[-1][1].nbytes if arrays else 0
        start = -(-start // _ALIGN) * _ALIGN
        arrays.append((start, value))
        return {"$": "array", "start": start, "dtype": value.dtype.str, "shape": value.shape}
    if isinstance(value, Mapping):
        return {"$": "map", "of": {_text(k): _pack(v, arrays) for k, v in value.items()}}
    if isinstance(value, tuple):
        return {"$": "tuple", "of": [_pack(v, arrays) for v in value]}
    if isinstance(value, (list, set, frozenset)):
        return [_pack(v, arrays) for v in value]
    kind = type(value)
    if dataclasses.is_dataclass(kind) and kind.__module__.startswith("flyball."):
        inside = {f.name: _pack(getattr(value, f.name), arrays) for f in dataclasses.fields(kind) if f.init}
        return {"$": f"{kind.__module__}:{kind.__qualname__}", "of": inside}
    raise TypeError(f"{kind.__name__} does not pass between processes")


def _text(key: Any) -> str:
    if not isinstance(key, str):
        raise TypeError(f"a mapping with the key {key!r} does not pass between processes")
    return key


def _unpack(value: Any, memory: Shared) -> Any:
    if isinstance(value, list):
        return [_unpack(v, memory) for v in value]
    if not isinstance(value, dict):
        return value
    kind = value["$"]
    if kind == "array":
        return memory.array(value["start"], np.dtype(value["dtype"]), tuple(value["shape"])).copy()
    if kind == "bytes":
        return _unpack(value["of"], memory).tobytes()
    if kind == "tuple":
        return tuple(_unpack(v, memory) for v in value["of"])
    inside = {k: _unpack(v, memory) for k, v in value["of"].items()}
    return inside if kind == "map" else _dataclass(kind)(**inside)


def _dataclass(name: str) -> type:
    """One of flyball's own dataclasses."""
    module, _, attribute = name.partition(":")
    if not module.startswith("flyball."):
        raise TypeError(f"{name} does not pass between processes")
    found = getattr(importlib.import_module(module), attribute, None)
    if not (isinstance(found, type) and dataclasses.is_dataclass(found)):
        raise TypeError(f"{name} does not pass between processes")
    return found
