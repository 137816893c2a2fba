"""The records of MCAP files, and the bytes they lie in.

In: bytes, or a file of which only the piece at hand is in memory. Out: fields, chunks' contents, messages as columns.
Strict reading (``mcap``), salvage (``mcap_salvage``) and writing (``mcap_writer``) share what is here.

Format: https://mcap.dev/spec (version 0).
"""

from __future__ import annotations

import errno
import os
import shlex
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import lz4.frame
import numpy as np
import zstandard
from numpy.typing import NDArray

from flyball.base import Damaged, FlyballError, InputError, Missing, NotPossible, Unsupported

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, CHUNK_INDEX = range(1, 9)
ATTACHMENT, ATTACHMENT_INDEX, STATISTICS, METADATA, METADATA_INDEX, SUMMARY_OFFSET, DATA_END = range(9, 16)

MAX_CHUNK_BYTES = 256 << 20
"""Bytes that a chunk, or another record that is read as a whole, may have unless the caller says otherwise."""

BLOCK_MESSAGES = 1 << 16  # messages in one block: what bounds the memory of a chunk of tiny messages
PIECE = 1 << 20  # bytes of a large record that are in memory at once where it need not be whole

CODECS = ("", "zstd", "lz4")

record_head = struct.Struct("<BQ").unpack_from
_length = struct.Struct("<Q").unpack_from
_chunk_head = struct.Struct("<QQQII").unpack_from

MESSAGE_HEAD = np.dtype(
    [("op", "u1"), ("length", "<u8"), ("channel", "<u2"), ("sequence", "<u4"), ("log", "<u8"), ("publish", "<u8")]
)


class Misfit(Exception):
    """Bytes that are not the record they are read as; the text says why."""


class Broken(Exception):
    """A place in a file that is not sound; becomes ``Damaged`` once it is known what was intact before it."""

    def __init__(self, offset: int, what: str, *, allowed: str = "") -> None:
        super().__init__(what)
        self.offset, self.what, self.allowed = offset, what, allowed

    def error(self, name: str, intact: int, doubtful: int = 0) -> FlyballError:
        """The error to show: names file, offset and how many messages before it are sound, by a checksum or not."""
        kind = Unsupported if self.allowed else Damaged
        more = f"; {doubtful} more have no checksum of their own" if doubtful else ""
        what = f"{self.what} ({intact} messages before it are intact{more})"
        salvage = f"flyball salvage {shlex.quote(name)}" if kind is Damaged and intact + doubtful else ""
        return kind(what, where=f"{name} at byte {self.offset}", allowed=self.allowed, run_next=salvage)


@dataclass(frozen=True)
class Schema:
    """How the payload of a channel is described."""

    name: str
    encoding: str
    data: bytes


@dataclass(frozen=True)
class Channel:
    """A topic; ``schema`` is None when payloads describe themselves."""

    id: int
    topic: str
    message_encoding: str
    schema: Schema | None
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Attachment:
    """A file within the file; ``data`` and ``pieces`` read it from there."""

    log_ns: int
    create_ns: int
    name: str
    media_type: str
    size: int
    source: Source = field(repr=False, compare=False)
    begin: int = field(repr=False, compare=False)  # of the record
    data_at: int = field(repr=False, compare=False)

    def pieces(self) -> Iterator[bytes]:
        """The content, piece by piece."""
        return self.source.pieces(self.data_at, self.data_at + self.size)

    @property
    def data(self) -> bytes:
        """The content, checked against its CRC where it has one.

        Raises:
          Damaged: the CRC is wrong.
        """
        try:
            check_attachment(self)
        except Broken as err:
            raise err.error(self.source.name, 0) from None
        return self.source.read(self.data_at, self.size)


@dataclass(frozen=True)
class Block:
    """Messages that lie in one buffer, in file order; all arrays have shape (n,).

    Attributes:
      data: the buffer.
      start, stop: payload of message i is ``data[start[i]:stop[i]]``.
      channel: channel ids.
      sequence: sequence numbers.
      log_ns, publish_ns: time stamps [ns], uint64.
    """

    data: bytes
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    channel: NDArray[np.uint16]
    sequence: NDArray[np.uint32]
    log_ns: NDArray[np.uint64]
    publish_ns: NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.start)

    def where(self, keep: NDArray[np.bool_]) -> Block:
        """The messages for which ``keep``, shape (n,), is true."""
        return replace(self, **{f.name: getattr(self, f.name)[keep] for f in fields(self) if f.name != "data"})


class Source:
    """Bytes in memory, or a file that is read as it is needed.

    Args:
      source: the bytes, or the path.
      name: what errors call it; empty for the path.

    Raises:
      Missing, InputError: there is no such file, or it cannot be opened.
      NotPossible: it cannot be opened now: the disk fails, too many files are open.
    """

    def __init__(self, source: bytes | os.PathLike[str] | str, name: str = "") -> None:
        if isinstance(source, (bytes, bytearray, memoryview)):
            self._blob, self.name, self.size = memoryview(source), name, len(source)
            self._file = None
            return
        path = Path(source)
        self.name = name or str(path)
        try:
            self._file = open(path, "rb", buffering=0)  # noqa: SIM115 - closed with the last reference to the source
            self.size = os.fstat(self._file.fileno()).st_size
        except FileNotFoundError as err:
            raise Missing("no such file", where=self.name) from err
        except OSError as err:
            # Not the log's fault: it must not be put aside as a bad one.
            passing = err.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
            raise (NotPossible if passing else InputError)(f"cannot be read ({err.strerror})", where=self.name) from err

    def read(self, at: int, n: int) -> bytes:
        """At most n bytes from an offset; fewer only at the end.

        Raises:
          Broken: the disk does not give them.
        """
        if self._file is None:
            return bytes(self._blob[at : at + n])
        out = b""
        try:
            while n > len(out) and (more := os.pread(self._file.fileno(), min(n - len(out), 1 << 30), at + len(out))):
                out = out + more if out else more
        except OSError as err:
            raise Broken(at, f"cannot be read ({err.strerror})") from err
        return out

    def pieces(self, at: int, stop: int) -> Iterator[bytes]:
        """Bytes from ``at`` to ``stop``, some at a time."""
        while at < stop:
            piece = self.read(at, min(PIECE, stop - at))
            if not piece:
                raise Broken(at, "the file became shorter while it was read")
            yield piece
            at += len(piece)


@dataclass
class Fields:
    """The fields of a record, read in order; ``Misfit`` where they exceed it."""

    data: bytes
    at: int
    stop: int

    def bytes_(self, n: int) -> bytes:
        if n > self.stop - self.at:
            raise Misfit("the fields of a record do not fit it")
        self.at += n
        return bytes(self.data[self.at - n : self.at])

    def number(self, size: int) -> int:
        return int.from_bytes(self.bytes_(size), "little")

    def text(self) -> str:
        try:
            return self.bytes_(self.number(4)).decode()
        except UnicodeDecodeError:
            raise Misfit("a text is not UTF-8") from None

    def sub(self) -> Fields:
        n = self.number(4)
        return Fields(self.bytes_(n), 0, n)

    def texts(self) -> dict[str, str]:
        inner, out = self.sub(), {}
        while inner.at < inner.stop:
            key = inner.text()
            out[key] = inner.text()
        return out

    def numbers(self, key: int, value: int) -> dict[int, int]:
        inner, out = self.sub(), {}
        while inner.at < inner.stop:
            k = inner.number(key)
            out[k] = inner.number(value)
        return out


@dataclass(frozen=True)
class ChunkHead:
    """The fields of a chunk: times [ns], size and CRC of the records, codec; the packed bytes are ``[at:stop]``."""

    start_ns: int
    end_ns: int
    size: int
    crc: int
    codec: str
    at: int
    stop: int


def chunk_head(data: bytes, begin: int, end: int) -> ChunkHead:
    """The head of the chunk record in ``data[begin:end]``.

    Raises:
      Misfit: it is none. A chunk may have fields that we do not know behind those we do; but where it has, and no CRC
        that vouches for it, a head overwritten with zeros would read as an empty chunk.
    """
    try:
        start, stop, size, crc, n = _chunk_head(data, begin + 9)
        at = begin + 41 + n + 8
        codec = bytes(data[begin + 41 : at - 8]).decode() if n <= 64 else "?"
        packed = _length(data, at - 8)[0]
    except (struct.error, UnicodeDecodeError):
        raise Misfit("the fields of a chunk do not fit it") from None
    if packed > end - at or (packed < end - at and crc == 0):
        raise Misfit("the fields of a chunk do not fit it")
    return ChunkHead(start, stop, size, crc, codec, at, at + packed)


def unpack(head: ChunkHead, data: bytes, bound: int) -> tuple[bytes, int, int]:
    """The records of a chunk, as a range of a buffer; size and CRC are checked.

    Raises:
      Misfit: they are not what the head says.
    """
    if head.size > bound:
        raise Misfit(f"a chunk claims {head.size} bytes, allowed are {bound}")
    packed = memoryview(data)[head.at : head.stop]
    if head.codec == "":
        out, a, b = data, head.at, head.stop
    else:
        try:
            out = _DECOMPRESS[head.codec](packed, head.size)
        except (zstandard.ZstdError, RuntimeError, ValueError, EOFError, MemoryError) as err:
            raise Misfit(f"a chunk does not decompress ({str(err).strip()[:80]})") from err
        a, b = 0, len(out)
    if b - a != head.size:
        raise Misfit(f"a chunk decompresses to {b - a} bytes instead of {head.size}")
    if head.crc and zlib.crc32(memoryview(out)[a:b]) != head.crc:
        raise Misfit("the CRC of a chunk is wrong")
    return out, a, b


_zstd = zstandard.ZstdDecompressor()


def _unzstd(packed: memoryview, size: int) -> bytes:
    if zstandard.frame_content_size(packed) == size:  # else a frame that lies would be unpacked as a whole
        return _zstd.decompress(packed, max_output_size=size)
    with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
        return reader.read(size + 1)


def _unlz4(packed: memoryview, size: int) -> bytes:
    return lz4.frame.LZ4FrameDecompressor().decompress(packed, max_length=size + 1)


_DECOMPRESS = {"zstd": _unzstd, "lz4": _unlz4}


def check_attachment(attachment: Attachment) -> bool:
    """Whether the attachment has a CRC, which is right.

    Raises:
      Broken: it is wrong.
    """
    source, crc, end = attachment.source, 0, attachment.data_at + attachment.size
    told = int.from_bytes(source.read(end, 4), "little")
    if told:
        for piece in source.pieces(attachment.begin + 9, end):
            crc = zlib.crc32(piece, crc)
        if crc != told:
            raise Broken(attachment.begin, f"the CRC of attachment {attachment.name!r} is wrong")
    return told != 0


def read_attachment(source: Source, begin: int, end: int) -> Attachment:
    """The attachment record in a file's bytes ``begin`` to ``end``; its content stays there.

    Raises:
      Misfit: it is none.
    """
    f = Fields(source.read(begin + 9, min(end - begin - 9, PIECE)), 0, min(end - begin - 9, PIECE))
    log_ns, create_ns, name, media = f.number(8), f.number(8), f.text(), f.text()
    size = f.number(8)
    data_at = begin + 9 + f.at
    if size + 4 > end - data_at:
        raise Misfit("the fields of a record do not fit it")
    return Attachment(log_ns, create_ns, name, media, size, source, begin, data_at)


@dataclass
class Definitions:
    """Schemas and channels by id."""

    schemas: dict[int, Schema] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)

    def define(self, op: int, fields: Fields, *, lenient: bool = False) -> Channel | None:
        """Take a schema or channel record; returns the channel.

        Args:
          op: which of the two.
          fields: the record.
          lenient: leave out a channel whose schema is not known, instead of refusing it.

        Raises:
          Misfit: the record contradicts an earlier one, or names a schema that is not there.
        """
        n = fields.number(2)
        if op == SCHEMA:
            schema = Schema(fields.text(), fields.text(), fields.bytes_(fields.number(4)))
            if n and self.schemas.setdefault(n, schema) != schema:  # id 0 is to be ignored
                raise Misfit(f"schema {n} is defined twice, differently")
            return None
        schema_id = fields.number(2)
        if schema_id and schema_id not in self.schemas:
            if lenient:
                return None
            raise Misfit(f"channel {n} names schema {schema_id}, which is not defined")
        topic, encoding, metadata = fields.text(), fields.text(), fields.texts()
        channel = Channel(n, topic, encoding, self.schemas.get(schema_id), metadata)
        if self.channels.setdefault(n, channel) != channel:
            raise Misfit(f"channel {n} is defined twice, differently")
        return channel


@dataclass(frozen=True)
class Statistics:
    """What a file says it holds; ``by_channel`` is empty where the writer left it out."""

    messages: int
    schemas: int
    channels: int
    attachments: int
    metadata: int
    chunks: int
    start_ns: int
    end_ns: int
    by_channel: dict[int, int]


def read_statistics(f: Fields) -> Statistics:
    """A statistics record."""
    messages, schemas, channels, attachments, metadata, chunks, start, end = (
        f.number(n) for n in (8, 2, 4, 4, 4, 4, 8, 8)
    )
    return Statistics(messages, schemas, channels, attachments, metadata, chunks, start, end, f.numbers(2, 8))


CHUNK_ENTRY = np.dtype(
    [("offset", "u8"), ("length", "u8"), ("start", "u8"), ("end", "u8"), ("packed", "u8"), ("size", "u8"), ("c", "u8")]
)


def read_chunk_index(f: Fields) -> tuple[int, ...]:
    """A chunk index record as the values of ``CHUNK_ENTRY``."""
    start, end, offset, length = (f.number(8) for _ in range(4))
    f.sub()
    f.number(8)
    codec, packed, size = f.text(), f.number(8), f.number(8)
    return offset, length, start, end, packed, size, CODECS.index(codec) if codec in CODECS else 255


def chain(data: bytes, at: int, stop: int, most: int = 1 << 62) -> tuple[NDArray[np.int64], int]:
    """Where the records of ``data[at:stop]`` begin, at most so many, and where the last of them ends.

    Every length is followed, so the result is exact; but where lengths repeat with a period, as they do in most logs,
    the whole stretch is guessed and checked at once instead of being walked.
    """
    lengths = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,)) if len(data) > 8 else None
    parts: list[NDArray[np.int64]] = []
    left, walk = most, 64
    while True:
        begins: list[int] = []
        append = begins.append
        whole = True
        for _ in range(min(walk, left)):
            if stop - at < 9 or _length(data, at + 1)[0] > stop - at - 9:
                whole = False
                break
            append(at)
            at += 9 + _length(data, at + 1)[0]
        left -= len(begins)
        parts.append(np.array(begins, np.int64))
        if not whole or left == 0 or lengths is None:
            break
        sizes = np.diff(parts[-1], append=at)
        period = next((k for k in range(1, 33) if (sizes[k:] == sizes[:-k]).all()), 0)
        guessed = 0
        if period:
            rhythm = sizes[-period:]
            rounds = min((stop - at) // int(rhythm.sum()), left // period, 1 << 14)
            steps = np.tile(rhythm, rounds)
            begin = at + np.concatenate([[0], np.cumsum(steps)])
            right = lengths[begin[:-1] + 1] == (steps - 9).astype(np.uint64)
            guessed = len(right) if right.all() else int(right.argmin())
            parts.append(begin[:guessed])
            left, at = left - guessed, int(begin[guessed])
        walk = 64 if guessed > 256 else min(4 * walk, 4096)
    return np.concatenate(parts) if len(parts) > 1 else parts[0], at


def message_block(data: bytes, at: NDArray[np.int64], stop: NDArray[np.int64]) -> Block:
    """The message records ``data[at[i]:stop[i]]`` as columns.

    Raises:
      Misfit: one is shorter than its own head.
    """
    n = MESSAGE_HEAD.itemsize
    if len(at) and int((stop - at).min()) < n:
        raise Misfit("a message is shorter than its own head")
    heads: NDArray[Any] = np.ndarray((max(0, len(data) - n + 1),), MESSAGE_HEAD, data, strides=(1,))[at]
    channel, sequence, log, publish = (
        np.ascontiguousarray(heads[k]) for k in ("channel", "sequence", "log", "publish")
    )
    return Block(data, at + n, stop, channel, sequence, log, publish)


def chunk_blocks(data: bytes, at: int, stop: int, take: Any) -> Iterator[Block]:
    """The messages among a chunk's records ``data[at:stop]``; ``take(op, fields)`` gets the others, before them.

    Raises:
      Misfit: the records are not sound.
    """
    while at < stop:
        begins, at_next = chain(data, at, stop, BLOCK_MESSAGES)
        if at_next == at:
            raise Misfit("the records of a chunk do not end where it does")
        at = at_next
        ends = np.append(begins[1:], at)
        op = np.frombuffer(data, np.uint8)[begins]
        is_message = op == MESSAGE
        if not is_message.all():
            for i in np.flatnonzero(~is_message).tolist():
                take(int(op[i]), Fields(data, int(begins[i]) + 9, int(ends[i])))
            begins, ends = begins[is_message], ends[is_message]
        if len(begins):
            yield message_block(data, begins, ends)


def record(op: int, *parts: bytes) -> bytes:
    """A record of these fields."""
    return struct.pack("<BQ", op, sum(map(len, parts))) + b"".join(parts)


def sized(data: bytes) -> bytes:
    """Bytes behind their length, a 32-bit number."""
    return struct.pack("<I", len(data)) + data


def text(value: str) -> bytes:
    """A text field."""
    return sized(value.encode())


def texts(values: Mapping[str, str]) -> bytes:
    """A map of texts."""
    return sized(b"".join(text(k) + text(v) for k, v in values.items()))


def schema_record(n: int, schema: Schema) -> bytes:
    """A schema record."""
    return record(SCHEMA, struct.pack("<H", n), text(schema.name), text(schema.encoding), sized(schema.data))


def channel_record(channel: Channel, schema_id: int) -> bytes:
    """A channel record."""
    ids = struct.pack("<HH", channel.id, schema_id)
    return record(CHANNEL, ids, text(channel.topic), text(channel.message_encoding), texts(channel.metadata))
