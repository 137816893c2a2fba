"""MCAP containers, read strictly: every length and every CRC is checked, decompressed sizes are bounded.

In: the bytes of a file. Out: channels with their schemas, metadata, attachments, and messages as blocks of columns
(one block per chunk), which numpy can decode without a Python object per message. What is not sound raises ``Damaged``
with the file, the byte offset and the number of messages that were intact before it. Where a writer left the CRC of
the data section out (it is optional), bytes outside chunks are covered by structure and statistics only.

Format: https://mcap.dev/spec (version 0).
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import lz4.frame
import numpy as np
import zstandard
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, Unsupported

MAGIC = b"\x89MCAP0\r\n"
HEADER, FOOTER, SCHEMA, CHANNEL, MESSAGE, CHUNK = 1, 2, 3, 4, 5, 6
STATISTICS, ATTACHMENT, METADATA, DATA_END = 11, 9, 12, 15

_prefix = struct.Struct("<BQ").unpack_from
_length = struct.Struct("<Q").unpack_from
_MESSAGE = np.dtype(
    [("op", "u1"), ("length", "<u8"), ("channel", "<u2"), ("sequence", "<u4"), ("log", "<u8"), ("publish", "<u8")]
)


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
    """A file within the file."""

    log_ns: int
    create_ns: int
    name: str
    media_type: str
    data: bytes


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


class _Short(Exception):
    """A record ends before its fields do."""


@dataclass
class _Fields:
    """The fields of a record, read in order."""

    data: bytes
    at: int
    stop: int

    def bytes_(self, n: int) -> bytes:
        if n > self.stop - self.at:
            raise _Short
        self.at += n
        return bytes(self.data[self.at - n : self.at])

    def number(self, size: int) -> int:
        return int.from_bytes(self.bytes_(size), "little")

    def text(self) -> str:
        return self.bytes_(self.number(4)).decode()

    def sub(self) -> _Fields:
        n = self.number(4)
        return _Fields(self.bytes_(n), 0, n)

    def texts(self) -> dict[str, str]:
        inner, out = self.sub(), {}
        while inner.at < inner.stop:
            key = inner.text()
            out[key] = inner.text()
        return out


class McapFile:
    """An MCAP file in memory. Opening checks the structure; ``blocks`` and ``messages`` check the rest as they go.

    Args:
      blob: the whole file.
      name: what error messages call it.
      max_chunk_bytes: refuse chunks that claim to decompress to more.

    Attributes:
      profile, library: what the writer says of itself.
      channels: id -> channel; complete once ``blocks`` has been read to its end.
      metadata: (record name, {key: value}) in file order.
      attachments: in file order.

    Raises:
      Damaged: the bytes are not a complete, sound MCAP file.
      Unsupported: a compression that the specification does not name.
    """

    def __init__(self, blob: bytes, name: str = "", *, max_chunk_bytes: int = 256 << 20) -> None:
        self.blob, self.name, self.max_chunk_bytes = blob, name, max_chunk_bytes
        self.channels: dict[int, Channel] = {}
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self.attachments: list[Attachment] = []
        self.profile = self.library = ""
        self._schemas: dict[int, Schema] = {}
        self._groups: list[tuple[int, int, int]] = []  # (op, begin, end): a chunk, or a run of bare messages
        self._statistics: tuple[int, _Fields] | None = None
        self._scan()

    def messages(self) -> Iterator[tuple[Channel, int, int, memoryview]]:
        """Messages in file order: (channel, log time [ns], publish time [ns], payload)."""
        for block in self.blocks():
            view = memoryview(block.data)
            channels = self.channels
            for c, log, publish, a, b in zip(
                block.channel.tolist(),
                block.log_ns.tolist(),
                block.publish_ns.tolist(),
                block.start.tolist(),
                block.stop.tolist(),
                strict=True,
            ):
                yield channels[c], log, publish, view[a:b]

    def blocks(self) -> Iterator[Block]:
        """Messages as columns, chunk by chunk.

        Raises:
          Damaged: at the first chunk that is not sound, or at the end when the file's own statistics disagree.
        """
        seen: Counter[int] = Counter()
        for op, begin, end in self._groups:
            intact = seen.total()
            if op == CHUNK:
                data = self._chunk(begin, end, intact)
                block = self._block(data, 0, len(data), begin, intact)
            else:
                block = self._block(self.blob, begin, end, begin, intact)
            ids, counts = np.unique(block.channel, return_counts=True)
            seen.update(dict(zip(ids.tolist(), counts.tolist(), strict=True)))
            if len(block.start):
                yield block
        self._check_statistics(seen)

    # ---- structure

    def _scan(self) -> None:
        blob, size = self.blob, len(self.blob)
        if blob[:8] != MAGIC:
            raise Damaged("not an MCAP file (wrong first bytes)", where=f"{self.name} at byte 0")
        p, first = 8, True
        while True:
            op, begin, p = self._next(p)
            if first != (op == HEADER):
                self._damaged(begin, "the header is not the first record" if first else "a second header")
            first = False
            with _Guard(self, begin):
                fields = _Fields(blob, begin + 9, p)
                if op == HEADER:
                    self.profile, self.library = fields.text(), fields.text()
                elif op in (SCHEMA, CHANNEL):
                    self._define(op, fields, begin)
                elif op == CHUNK:
                    self._groups.append((CHUNK, begin, p))
                elif op == MESSAGE:
                    if self._groups and self._groups[-1][0] == MESSAGE and self._groups[-1][2] == begin:
                        self._groups[-1] = (MESSAGE, self._groups[-1][1], p)
                    else:
                        self._groups.append((MESSAGE, begin, p))
                elif op == METADATA:
                    self.metadata.append((fields.text(), fields.texts()))
                elif op == ATTACHMENT:
                    self._attach(fields, begin)
                elif op == FOOTER or op == 0:
                    self._damaged(begin, f"record of type {op:#04x} within the data")
                elif op == DATA_END:
                    crc = fields.number(4)
                    if crc and zlib.crc32(memoryview(blob)[:begin]) != crc:
                        self._damaged(
                            begin, "the CRC of the data section is wrong: damage outside its chunks", locate=True
                        )
                    break
        summary = p
        while True:
            op, begin, p = self._next(p)
            with _Guard(self, begin):
                fields = _Fields(blob, begin + 9, p)
                if op == STATISTICS:
                    self._statistics = (begin, fields)
                elif op == FOOTER:
                    start, _, crc = fields.number(8), fields.number(8), fields.number(4)
                    if start and start != summary:
                        self._damaged(begin, "the footer misplaces the summary")
                    if crc and zlib.crc32(memoryview(blob)[start or begin : p - 4]) != crc:
                        self._damaged(begin, "the CRC of the summary is wrong")
                    break
                elif op in (HEADER, MESSAGE, CHUNK, METADATA, ATTACHMENT, DATA_END, 0):
                    self._damaged(begin, f"record of type {op:#04x} within the summary")
        if blob[p:] != MAGIC:
            self._damaged(p, "the file does not end with the closing mark" + (" (truncated)" if size < p + 8 else ""))

    def _next(self, p: int) -> tuple[int, int, int]:
        left = len(self.blob) - p
        if left < 9:
            self._damaged(p, "the file ends here, incomplete (truncated)")
        op, n = _prefix(self.blob, p)
        if n > left - 9:
            self._damaged(p, f"a record of type {op:#04x} claims {n} bytes where {left - 9} are left (truncated)")
        return op, p, p + 9 + n

    def _define(self, op: int, fields: _Fields, begin: int, intact: int | None = None) -> None:
        n = fields.number(2)
        if op == SCHEMA:
            schema = Schema(fields.text(), fields.text(), fields.bytes_(fields.number(4)))
            if n == 0 or self._schemas.setdefault(n, schema) != schema:
                self._damaged(begin, f"schema {n} is defined twice, differently" if n else "schema id 0", intact)
            return
        schema_id = fields.number(2)
        if schema_id and schema_id not in self._schemas:
            self._damaged(begin, f"channel {n} names schema {schema_id}, which is not defined", intact)
        topic, encoding, metadata = fields.text(), fields.text(), fields.texts()
        channel = Channel(n, topic, encoding, self._schemas.get(schema_id), metadata)
        if self.channels.setdefault(n, channel) != channel:
            self._damaged(begin, f"channel {n} is defined twice, differently", intact)

    def _attach(self, fields: _Fields, begin: int) -> None:
        start = fields.at
        log_ns, create_ns, name, media = fields.number(8), fields.number(8), fields.text(), fields.text()
        data = fields.bytes_(fields.number(8))
        crc = zlib.crc32(memoryview(self.blob)[start : fields.at])
        if fields.number(4) not in (0, crc):
            self._damaged(begin, f"the CRC of attachment {name!r} is wrong")
        self.attachments.append(Attachment(log_ns, create_ns, name, media, data))

    def _check_statistics(self, seen: Counter[int]) -> None:
        if self._statistics is None:
            return
        begin, f = self._statistics
        f = _Fields(f.data, begin + 9, f.stop)
        with _Guard(self, begin, seen.total()):
            messages, _, _, attachments, metadata, chunks = (f.number(n) for n in (8, 2, 4, 4, 4, 4))
            f.bytes_(16)
            inner, by_channel = f.sub(), {}
            while inner.at < inner.stop:
                key = inner.number(2)
                by_channel[key] = inner.number(8)
        groups = sum(op == CHUNK for op, _, _ in self._groups)
        for what, said, found in (
            ("messages", messages, seen.total()),
            ("chunks", chunks, groups),
            ("attachments", attachments, len(self.attachments)),
            ("metadata records", metadata, len(self.metadata)),
            ("messages per channel", {k: v for k, v in by_channel.items() if v}, dict(seen)),
        ):
            # Writers may leave the per-channel table out.
            if said != found and not (said == {} and isinstance(said, dict)):
                self._damaged(begin, f"the statistics say {said} {what}, the file holds {found}", seen.total())

    # ---- chunks

    def _chunk(self, begin: int, end: int, intact: int) -> bytes:
        with _Guard(self, begin, intact):
            f = _Fields(self.blob, begin + 9, end)
            f.bytes_(16)
            size, crc, codec = f.number(8), f.number(4), f.text()
            packed = f.bytes_(f.number(8))
        if size > self.max_chunk_bytes:
            self._damaged(begin, f"a chunk claims {size} bytes, allowed are {self.max_chunk_bytes}", intact)
        try:
            data = _unpack(codec, packed, size)
        except (zstandard.ZstdError, RuntimeError, ValueError, EOFError, MemoryError) as err:
            self._damaged(begin, f"a chunk does not decompress ({str(err).strip()[:80]})", intact)
        if data is None:
            raise Unsupported(f"compression {codec!r}", where=f"{self.name} at byte {begin}", allowed="zstd, lz4, none")
        if len(data) != size:
            self._damaged(begin, f"a chunk decompresses to {len(data)} bytes instead of {size}", intact)
        if crc and zlib.crc32(data) != crc:
            self._damaged(begin, "the CRC of a chunk is wrong", intact)
        return data

    def _block(self, data: bytes, p: int, end: int, begin: int, intact: int) -> Block:
        """The messages among the records of ``data[p:end]``; ``begin`` is where that lies in the file."""
        positions: list[int] = []
        append = positions.append
        try:
            while p < end:
                append(p)
                p += 9 + _length(data, p + 1)[0]
        except struct.error:
            p = -1
        if p != end:
            self._damaged(begin, "the records of a chunk do not end where it does", intact)
        at = np.array(positions, dtype=np.int64)
        stop = np.append(at[1:], end)
        raw = np.frombuffer(data, np.uint8)
        op = raw[at]
        for i in np.flatnonzero(op != MESSAGE).tolist():
            with _Guard(self, begin, intact):
                if op[i] in (SCHEMA, CHANNEL):
                    self._define(int(op[i]), _Fields(data, int(at[i]) + 9, int(stop[i])), begin, intact)
                elif op[i] < 0x80:
                    self._damaged(begin, f"record of type {int(op[i]):#04x} within a chunk", intact)
        is_message = op == MESSAGE
        at, stop = at[is_message], stop[is_message]
        if len(at) and int((stop - at).min()) < _MESSAGE.itemsize:
            self._damaged(begin, "a message is shorter than its own head", intact)
        heads = np.ascontiguousarray(raw[at[:, None] + np.arange(_MESSAGE.itemsize)]).view(_MESSAGE)[:, 0]
        unknown = sorted(set(np.unique(heads["channel"]).tolist()) - set(self.channels))
        if unknown:
            self._damaged(begin, f"messages of channel {unknown[0]}, which is not defined", intact)
        start = at + _MESSAGE.itemsize
        return Block(data, start, stop, heads["channel"], heads["sequence"], heads["log"], heads["publish"])

    def _damaged(self, offset: int, what: str, intact: int | None = None, *, locate: bool = False) -> NoReturn:
        if intact is None:  # found while scanning: count what can still be read before it
            intact, self._statistics = 0, None
            groups, self._groups = self._groups, []
            for group in groups:
                self._groups = [group]
                try:
                    intact += sum(len(block.start) for block in self.blocks())
                except InputError as err:
                    if not locate or not isinstance(err, Damaged):
                        break
                    raise Damaged(
                        f"{err.what.rpartition(' (')[0]} ({intact} messages before it are intact)", where=err.where
                    ) from None
        raise Damaged(f"{what} ({intact} messages before it are intact)", where=f"{self.name} at byte {offset}")


class _Guard:
    """Turns fields that do not fit their record into ``Damaged``."""

    def __init__(self, file: McapFile, offset: int, intact: int | None = None) -> None:
        self.file, self.offset, self.intact = file, offset, intact

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, err: BaseException | None, trace: Any) -> None:
        if isinstance(err, (_Short, UnicodeDecodeError)):
            self.file._damaged(self.offset, "the fields of a record do not fit it", self.intact)


def _unpack(codec: str, packed: bytes, size: int) -> bytes | None:
    """At most ``size`` + 1 bytes of the decompressed data; None for an unknown codec."""
    if codec == "":
        return packed
    if codec == "zstd":
        claimed = zstandard.frame_content_size(packed)
        if claimed == size:
            return zstandard.ZstdDecompressor().decompress(packed, max_output_size=size)
        with zstandard.ZstdDecompressor().stream_reader(packed, read_across_frames=True) as reader:
            return reader.read(size + 1)
    if codec == "lz4":
        unpacker = lz4.frame.LZ4FrameDecompressor()
        return unpacker.decompress(packed, max_length=size + 1)
    return None
