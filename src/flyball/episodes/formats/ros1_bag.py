"""ROS 1 bags (version 2.0) as episodes.

In: a ``.bag`` file. Out: one ``Episode``; what its messages mean is decided in ``formats.messages``. The container is
read by us, chunk by chunk: a bag's usual reader needs its index, keeps an entry of it in memory for every message, and
unpacks whatever size a chunk grows to.

The format has no checksums of its own (bz2 has, and lz4 where the writer asked for them). What it says twice is
compared: the index of each chunk gives connection, time and place of every message in it, the end of the file the
number of chunks and connections. A changed byte within an uncompressed payload cannot be told.

Format: wiki.ros.org/Bags/Format/2.0.
"""

from __future__ import annotations

import bz2
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import lz4.frame
import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, Unsupported
from flyball.episodes.episode import Episode
from flyball.episodes.formats import foreign
from flyball.episodes.formats.mcap import MAX_CHUNK_BYTES, Channel, Schema
from flyball.episodes.formats.messages import Messages
from flyball.episodes.intake import Intake

MAX_HEADER = 1 << 20  # bytes of a record's header
_MESSAGE, _BAG, _INDEX, _CHUNK, _INFO, _CONNECTION = range(2, 8)
_ENTRY = np.dtype([("sec", "<u4"), ("nsec", "<u4"), ("offset", "<u4")])
_PIECE = 4 << 20


class RosBag:
    """The log format ``ros1_bag``."""

    suffixes = (".bag",)

    def claims(self, folder: Path) -> bool:
        """See ``LogFormat.claims``."""
        return False

    def complete(self, path: Path) -> bool:
        """Whether the recorder has written the index, which it does last; for ``episodes.watch``."""
        with open(path, "rb") as f:
            head = f.read(4096)
        at = head.find(b"index_pos=") + 10
        return at < 10 or any(head[at : at + 8])

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """See ``LogFormat.read``."""
        messages = Messages(intake, str(path))
        with open(path, "rb") as file:
            for channel, log_ns, payloads in BagFile(file, str(path), intake).messages():
                if messages.wanted(channel):
                    messages.add(channel, log_ns, log_ns, payloads)
        yield foreign.episode(messages.finish(), path, {})


FORMAT = RosBag()


@dataclass
class _Chunk:
    """Messages of a chunk, by connection, that its index has not confirmed yet."""

    at: int
    entries: dict[int, list[tuple[int, int, int]]] = field(default_factory=dict)
    payloads: dict[int, list[bytes]] = field(default_factory=dict)
    confirmed: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class _Record:
    op: int
    fields: dict[str, bytes]
    data_at: int
    size: int

    @property
    def end(self) -> int:
        return self.data_at + self.size

    def u32(self, name: str) -> int:
        return int.from_bytes(self._of(name, 4), "little")

    def u64(self, name: str) -> int:
        return int.from_bytes(self._of(name, 8), "little")

    def _of(self, name: str, size: int) -> bytes:
        value = self.fields.get(name)
        if value is None or len(value) != size:
            raise _Broken(f"a record of type {self.op} without a sound {name!r}")
        return value


class _Broken(Exception):
    """What is wrong with the record that is being read."""


class BagFile:
    """A bag.

    Args:
      file: open for reading.
      name: of the file, for messages.
      intake: where to report; with ``salvage``, damage is left out up to the next chunk.
    """

    def __init__(self, file: BinaryIO, name: str, intake: Intake) -> None:
        self.file, self.name, self.intake = file, name, intake
        self.size = file.seek(0, os.SEEK_END)
        self.channels: dict[int, Channel] = {}
        self._head = _MessageHead()
        self._chunk: _Chunk | None = None
        self._first = True
        self._counts = {_CHUNK: 0, _INFO: 0, _CONNECTION: 0}
        self._promised: dict[int, int] = {}
        self._index_at = 0

    def messages(self) -> Iterator[tuple[Channel, NDArray[np.int64], list[bytes]]]:
        """Messages of one connection after the other, a chunk at a time: (channel, log times [ns], payloads).

        Raises:
          Damaged: something does not fit; says the offset.
          Unsupported: another version, encryption or compression.
        """
        at = self._magic()
        while True:
            try:
                if at >= self.size:
                    self._ended()
                    yield from self._release(at, whole=True)
                    return
                record = self._record(at)
                if record.op in (_CHUNK, _INFO) or (record.op == _CONNECTION and self._chunk):
                    yield from self._release(at, whole=True)
                self._take(record, at)
                at = record.end
            except _Broken as err:
                if not self.intake.salvage:
                    hint = "--salvage keeps the chunks that are sound"
                    raise Damaged(f"offset {at}: {err}", where=self.name, run_next=hint) from err
                following = self._next_chunk(at + 1) if at < self.size else self.size
                self.intake.note("salvaged", f"{self.name}: offset {at}: {err}; left out up to offset {following}")
                yield from self._release(at, whole=False)
                if at >= self.size:
                    return
                at = following

    def _magic(self) -> int:
        self.file.seek(0)
        line = self.file.read(64).split(b"\n")[0]
        match = re.fullmatch(rb"#ROSBAG V(\d+)\.(\d+)", line)
        if match is None:
            raise Damaged("not a ROS 1 bag (wrong first line)", where=self.name)
        if match.groups() != (b"2", b"0"):
            raise Unsupported(
                f"bag of version {line[9:].decode()}", where=self.name, allowed="2.0", run_next="rosbag fix"
            )
        return len(line) + 1

    def _record(self, at: int) -> _Record:
        self.file.seek(at)
        size = int.from_bytes(self._read(4), "little")
        if size > min(MAX_HEADER, self.size - at - 8):
            raise _Broken(f"a header of {size} bytes, {self.size - at - 4} are left in the file")
        fields = _fields(self._read(size))
        length = int.from_bytes(self._read(4), "little")
        data_at = at + 8 + size
        if data_at + length > self.size:
            raise _Broken(f"ends within a record of {length} bytes, {self.size - data_at} of them are there")
        op = fields.get("op", b"")
        if len(op) != 1:
            raise _Broken("a record without a type")
        return _Record(op[0], fields, data_at, length)

    def _read(self, n: int) -> bytes:
        data = self.file.read(n)
        if len(data) != n:
            raise _Broken("the file ends within a record")
        return data

    def _take(self, record: _Record, at: int) -> None:
        if self._first != (record.op == _BAG):
            raise _Broken("the bag's header is not its first record")
        if record.op in self._counts:
            self._counts[record.op] += 1
        if record.op == _BAG:
            self._first = False
            if record.fields.get("encryptor"):
                raise Unsupported("an encrypted bag", where=self.name)
            self._index_at = record.u64("index_pos")
            if not self._index_at:
                raise _Broken("the recording was not finished, it has no index")
            self._promised = {_CHUNK: record.u32("chunk_count"), _CONNECTION: record.u32("conn_count")}
        elif record.op == _CHUNK:
            if self._counts[_INFO] or self._counts[_CONNECTION]:
                raise _Broken("a chunk behind the index")
            self._unpack(record, at)
        elif record.op == _INDEX:
            self._confirm(record)
        elif record.op == _CONNECTION:
            if self._counts[_CONNECTION] == 1 and self._promised and at != self._index_at:
                raise _Broken(f"the index begins here, the bag's header says at {self._index_at}")
            self.file.seek(record.data_at)
            self._connection(record.fields, self._read(record.size))
        elif record.op != _INFO:
            raise _Broken(f"a record of type {record.op} outside of a chunk")

    def _ended(self) -> None:
        if self._first:
            raise _Broken("holds no records")
        for op, what in ((_CHUNK, "chunks"), (_CONNECTION, "connections")):
            if op in self._promised and self._counts[op] != self._promised[op]:
                raise _Broken(f"ends after {self._counts[op]} of {self._promised[op]} {what}")
        if self._counts[_INFO] != self._counts[_CHUNK]:
            raise _Broken(f"ends after {self._counts[_INFO]} of {self._counts[_CHUNK]} summaries of chunks")

    def _unpack(self, record: _Record, at: int) -> None:
        size, codec = record.u32("size"), record.fields.get("compression", b"")
        if max(size, record.size) > MAX_CHUNK_BYTES:
            raise _Broken(f"a chunk of {max(size, record.size)} bytes, allowed are {MAX_CHUNK_BYTES}")
        self.file.seek(record.data_at)
        data = self._read(record.size)
        try:
            if codec == b"lz4":
                data = lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=size + 1)
            elif codec == b"bz2":
                data = bz2.BZ2Decompressor().decompress(data, max_length=size + 1)
            elif codec != b"none":
                raise _Broken(f"a chunk compressed with {codec[:20]!r}")
        except (RuntimeError, OSError, ValueError, EOFError, MemoryError) as err:
            raise _Broken(f"a chunk does not decompress ({str(err)[:80]})") from err
        if len(data) != size:
            raise _Broken(f"a chunk decompresses to {len(data)} bytes instead of {size}")
        self._chunk = self._records(data, at)

    def _records(self, data: bytes, at: int) -> _Chunk:
        chunk = _Chunk(at)
        begin, end, u32 = 0, len(data), struct.Struct("<I").unpack_from
        while begin < end:
            if begin + 8 > end:
                raise _Broken("a chunk ends within a record")
            (size,) = u32(data, begin)
            body = begin + 4 + size
            if body + 4 > end or body + 4 + u32(data, body)[0] > end:
                raise _Broken(f"a record at {begin} in the chunk reaches beyond it")
            stop = body + 4 + u32(data, body)[0]
            head = data[begin + 4 : body]
            known = self._head.parse(head)
            if known is not None:
                number, sec, nsec = known
                if number not in self.channels:
                    raise _Broken(f"a message of the connection {number}, which nothing announced")
                chunk.entries.setdefault(number, []).append((sec, nsec, begin))
                chunk.payloads.setdefault(number, []).append(data[body + 4 : stop])
            else:
                fields = _fields(head)
                if fields.get("op") != bytes([_CONNECTION]):
                    raise _Broken(f"a record of type {fields.get('op', b'')!r} within a chunk")
                self._connection(fields, data[body + 4 : stop])
            begin = stop
        return chunk

    def _connection(self, fields: dict[str, bytes], data: bytes) -> None:
        about = _fields(data)
        record = _Record(_CONNECTION, fields, 0, 0)
        number = record.u32("conn")
        try:
            topic, kind = fields["topic"].decode(), about["type"].decode()
            definition = about["message_definition"]
        except (KeyError, UnicodeDecodeError) as err:
            raise _Broken(f"the connection {number} has no topic, type or definition") from err
        made = Channel(number, topic, "ros1", Schema(kind, "ros1msg", definition), {})
        if self.channels.setdefault(number, made) != made:
            raise _Broken(f"two connections of the number {number}")

    def _confirm(self, record: _Record) -> None:
        """Compare what an index says with the messages of the chunk before it."""
        number, count = record.u32("conn"), record.u32("count")
        if self._chunk is None or record.u32("ver") != 1 or record.size != count * _ENTRY.itemsize:
            raise _Broken("an index that belongs to no chunk")
        self.file.seek(record.data_at)
        said = np.frombuffer(self._read(record.size), _ENTRY)
        found = np.array(self._chunk.entries.get(number, []), _ENTRY)
        if len(said) != len(found) or (np.sort(said, order="offset") != found).any():
            raise _Broken(f"the index of the chunk at offset {self._chunk.at} contradicts it, connection {number}")
        self._chunk.confirmed.add(number)

    def _release(self, at: int, whole: bool) -> Iterator[tuple[Channel, NDArray[np.int64], list[bytes]]]:
        """The messages of the last chunk that are confirmed; ``whole`` when all of them must be."""
        chunk, self._chunk = self._chunk, None
        if chunk is None:
            return
        missing = chunk.entries.keys() - chunk.confirmed
        if missing and whole:
            if not self.intake.salvage:
                raise Damaged(f"offset {at}: the chunk at offset {chunk.at} has no index", where=self.name)
            whole = False
        if missing and not whole:
            lost = sum(len(chunk.entries[c]) for c in missing)
            said = (
                f"{self.name}: {lost} messages of the chunk at offset {chunk.at}, which no index confirms, are left out"
            )
            self.intake.note("salvaged", said)
        for number in sorted(chunk.confirmed & chunk.entries.keys()):
            rows = np.array(chunk.entries[number], np.int64).reshape(-1, 3)
            yield self.channels[number], rows[:, 0] * 10**9 + rows[:, 1], chunk.payloads[number]

    def _next_chunk(self, at: int) -> int:
        """Offset of the next record that is a chunk; the end of the file if there is none."""
        mark, tail = b"op=" + bytes([_CHUNK]), 256
        while at < self.size:
            self.file.seek(at)
            data = self.file.read(_PIECE)
            for match in re.finditer(re.escape(mark), data):
                for begin in range(max(0, match.start() - 64), match.start() - 7):
                    size = int.from_bytes(data[begin : begin + 4], "little")
                    if match.end() - begin - 4 <= size <= tail:
                        try:
                            record = self._record(at + begin)
                        except _Broken:
                            continue
                        if record.op == _CHUNK and {"compression", "size"} <= record.fields.keys():
                            return at + begin
            at += max(1, len(data) - tail) if at + len(data) < self.size else len(data)
        return self.size


class _MessageHead:
    """Headers of messages. All those of a bag look the same; one glance is enough when it is like the one before."""

    def __init__(self) -> None:
        self._length = -1
        self._fixed: list[tuple[int, int, bytes]] = []
        self._conn = self._time = 0

    def parse(self, raw: bytes) -> tuple[int, int, int] | None:
        """(connection, seconds, nanoseconds); None when it is no message's header."""
        if len(raw) != self._length or any(raw[a:b] != same for a, b, same in self._fixed):
            fields = _fields(raw)
            if fields.get("op") != bytes([_MESSAGE]):
                return None
            if len(fields.get("conn", b"")) != 4 or len(fields.get("time", b"")) != 8:
                raise _Broken("a message without connection or time")
            self._conn, self._time = _value_at(raw, b"conn"), _value_at(raw, b"time")
            cuts = sorted([(self._conn, self._conn + 4), (self._time, self._time + 8), (len(raw), len(raw))])
            begin, self._fixed, self._length = 0, [], len(raw)
            for a, b in cuts:
                self._fixed.append((begin, a, raw[begin:a]))
                begin = b
        return (*struct.unpack_from("<I", raw, self._conn), *struct.unpack_from("<II", raw, self._time))


def _fields(raw: bytes) -> dict[str, bytes]:
    """The ``name=value`` fields of a header."""
    found: dict[str, bytes] = {}
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        name, equals, value = raw[at + 4 : at + 4 + size].partition(b"=")
        if at + 4 + size > len(raw) or not equals:
            raise _Broken("a header that is not a list of fields")
        found[name.decode("latin-1")] = value
        at += 4 + size
    return found


def _value_at(raw: bytes, wanted: bytes) -> int:
    at = 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        if raw[at + 4 : at + 4 + size].startswith(wanted + b"="):
            return at + 5 + len(wanted)
        at += 4 + size
    raise _Broken(f"a header without {wanted.decode()}")
