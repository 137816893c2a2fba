"""MCAP containers, read strictly: every length and every CRC is checked, decompressed sizes are bounded.

In: the path of a file (or its bytes). Out: channels with their schemas, metadata, attachments, and messages as blocks
of columns in file order, which numpy can decode without a Python object per message. At most one chunk is in memory,
and every byte is read once, in order; opening hops from record to record and looks at what lies outside chunks. What
is not sound raises ``Damaged`` with the file, the byte offset and the number of messages that were intact before it.

The format makes every checksum optional. With the CRC of the data section every byte before it is vouched for. Without
it, these are covered by structure alone: the header, the heads of chunks, message indexes, metadata records, schemas
and channels outside chunks, messages outside chunks, private records. Lengths must fit then, and where the summary has
counts, copies of schemas and channels, or a chunk index, they must agree with the data. ``McapFile.unchecked`` counts
the messages for which no checksum speaks.

Format: https://mcap.dev/spec (version 0).
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.episodes.formats.mcap_records import (
    ATTACHMENT,
    CHANNEL,
    CHUNK,
    CHUNK_ENTRY,
    CHUNK_INDEX,
    CODECS,
    DATA_END,
    FOOTER,
    HEADER,
    MAGIC,
    MAX_CHUNK_BYTES,
    MESSAGE,
    MESSAGE_INDEX,
    METADATA,
    SCHEMA,
    STATISTICS,
    Attachment,
    Block,
    Broken,
    Channel,
    Definitions,
    Fields,
    Misfit,
    Schema,
    Source,
    Statistics,
    chain,
    check_attachment,
    chunk_blocks,
    chunk_head,
    message_block,
    read_attachment,
    read_chunk_index,
    read_statistics,
    record_head,
    unpack,
)

__all__ = ["MAGIC", "MAX_CHUNK_BYTES", "Attachment", "Block", "Channel", "McapFile", "Schema"]

IN_DATA = (SCHEMA, CHANNEL, MESSAGE, CHUNK, MESSAGE_INDEX, ATTACHMENT, METADATA, DATA_END)
IN_SUMMARY = (SCHEMA, CHANNEL, CHUNK_INDEX, 10, STATISTICS, 13, 14, FOOTER)
FUTURE = 0x10  # records of this type and above are none that the format defines

_SMALL, _LARGE = 4 << 10, 256 << 10  # bytes read at once: where large records are hopped over, where all are small


class McapFile:
    """An MCAP file. Opening checks the structure; ``blocks`` and ``messages`` check the rest as they go.

    What ``blocks`` has yielded is final only once it came to its end: the CRC of the data section and the file's own
    statistics are known last.

    Args:
      source: the file, or its bytes.
      name: what error messages call it; the path unless given.
      max_chunk_bytes: refuse chunks, and other records that are read as a whole, that claim to be larger.

    Attributes:
      profile, library: what the writer says of itself.
      channels: id -> channel; complete once ``blocks`` has been read to its end, or before where the file ends with
        copies of them.
      metadata: (record name, {key: value}) in file order.
      attachments: in file order; their content stays in the file until it is asked for.
      statistics: what the file says it holds, None when it does not.
      chunks, unchecked: chunks that the last ``blocks`` read; messages in it that no checksum covers.

    Raises:
      Missing: there is no such file.
      Damaged: the bytes are not a complete, sound MCAP file.
      Unsupported: a compression that the specification does not name.
    """

    def __init__(
        self, source: bytes | os.PathLike[str] | str, name: str = "", *, max_chunk_bytes: int = MAX_CHUNK_BYTES
    ) -> None:
        self._source = Source(source, name)
        self.name, self.max_chunk_bytes = self._source.name, max_chunk_bytes
        self._known = Definitions()
        self.channels = self._known.channels
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self.attachments: list[Attachment] = []
        self.profile = self.library = ""
        self.statistics: Statistics | None = None
        self.unchecked = self.chunks = 0
        self._data_crc = 0
        self._index = np.zeros(0, CHUNK_ENTRY)
        try:
            self._scan_summary(self._scan_data())
        except Broken as err:
            raise err.error(self.name, *self._count_before(err.offset)) from err

    def blocks(self) -> Iterator[Block]:
        """Messages as columns, some ten thousand at most in a block, in file order.

        Raises:
          Damaged: at the first chunk that is not sound, or at the end when a checksum or the statistics disagree.
        """
        reading = _Reading(self)
        try:
            yield from reading.blocks()
            reading.check_totals()
        except Broken as err:
            raise err.error(self.name, *reading.counts()) from err
        self.unchecked, self.chunks = 0 if self._data_crc else reading.bare, reading.chunks

    def messages(self) -> Iterator[tuple[Channel, int, int, memoryview]]:
        """Messages in file order: (channel, log time [ns], publish time [ns], payload)."""
        channels = self.channels
        for block in self.blocks():
            view = memoryview(block.data)
            for c, log, publish, a, b in zip(
                block.channel.tolist(),
                block.log_ns.tolist(),
                block.publish_ns.tolist(),
                block.start.tolist(),
                block.stop.tolist(),
                strict=True,
            ):
                yield channels[c], log, publish, view[a:b]

    # ---- structure

    def _count_before(self, offset: int) -> tuple[int, int]:
        """Messages that can be read before the record at an offset, with and without a CRC of their own."""
        reading = _Reading(self)
        try:
            for _ in reading.blocks(offset):
                pass
        except Broken:
            pass
        return reading.counts()

    def _scan_data(self) -> int:
        """Look at all records outside chunks up to the end of the data; returns where the summary begins."""
        if self._source.read(0, 8) != MAGIC:
            raise Broken(0, "not an MCAP file (wrong first bytes)")
        first = True
        for run in runs(self._source, 8):
            for op, begin, end, fields in run.records():
                if first != (op == HEADER):
                    raise Broken(begin, "the header is not the first record" if first else "a second header")
                first = False
                with _at(begin):
                    if op != CHUNK:
                        self._refuse_chunk(op, begin, end, fields)
                    fields = fields or self._fields(op, begin, end)
                    if op == HEADER:
                        self.profile, self.library = fields.text(), fields.text()
                    elif op in (SCHEMA, CHANNEL):
                        self._known.define(op, fields)
                    elif op == METADATA:
                        self.metadata.append((fields.text(), fields.texts()))
                    elif op == ATTACHMENT:
                        self.attachments.append(read_attachment(self._source, begin, end))
                    elif op == DATA_END:
                        self._data_crc = _last(fields, 4).number(4)
                        return end
                    elif op < FUTURE and op not in IN_DATA:
                        raise Misfit(f"record of type {op:#04x} within the data")
        raise AssertionError("runs() ends with an error")

    def _scan_summary(self, start: int) -> None:
        crc, entries = 0, []
        for run in runs(self._source, start):
            for op, begin, end, fields in run.records():
                with _at(begin):
                    if fields is None:
                        for piece in self._source.pieces(begin, end):
                            crc = zlib.crc32(piece, crc)
                        fields = self._fields(op, begin, end)
                    else:
                        crc = zlib.crc32(
                            memoryview(run.piece)[begin - run.base : end - run.base - 4 * (op == FOOTER)], crc
                        )
                    if op in (SCHEMA, CHANNEL):
                        self._known.define(op, fields, lenient=True)
                    elif op == STATISTICS:
                        self.statistics, self._statistics_at = read_statistics(fields), begin
                    elif op == CHUNK_INDEX:
                        entries.append(read_chunk_index(fields))
                    elif op == FOOTER:
                        said, _, told = _last(fields, 20).number(8), fields.number(8), fields.number(4)
                        if said and said != start:
                            raise Misfit("the footer misplaces the summary")
                        if told and told != crc:
                            raise Misfit("the CRC of the summary is wrong")
                        self._index = np.sort(np.array(entries, CHUNK_ENTRY), order="offset")
                        if self._source.read(end, 9) != MAGIC:
                            short = " (truncated)" if self._source.size < end + 8 else ""
                            raise Broken(end, "the file does not end with the closing mark" + short)
                        return
                    elif op < FUTURE and op not in IN_SUMMARY:
                        raise Misfit(f"record of type {op:#04x} within the summary")

    def _fields(self, op: int, begin: int, end: int) -> Fields:
        """The fields of a record outside chunks that is too large for a piece."""
        if op in (CHUNK, MESSAGE_INDEX, ATTACHMENT) or op >= FUTURE:
            return Fields(b"", 0, 0)  # hopped over
        return Fields(self._whole(op, begin, end), 9, end - begin)

    def _whole(self, op: int, begin: int, end: int) -> bytes:
        if end - begin > self.max_chunk_bytes + 256:  # a chunk's head comes on top
            raise Broken(
                begin, f"a record of type {op:#04x} claims {end - begin} bytes, allowed are {self.max_chunk_bytes}"
            )
        data = self._source.read(begin, end - begin)
        if len(data) < end - begin:
            raise Broken(begin, "the file became shorter while it was read")
        return data

    def _refuse_chunk(self, op: int, begin: int, end: int, fields: Fields | None) -> None:
        """One wrong bit in its type turns a chunk into a record that is to be skipped, and its messages vanish."""
        head = self._source.read(begin + 9, 64) if fields is None else fields.data[fields.at : fields.at + 64]
        n = int.from_bytes(head[28:32], "little")
        if n <= 4 and head[32 : 32 + n] in (b"", b"lz4", b"zstd"):
            packed = int.from_bytes(head[32 + n : 40 + n], "little")
            if begin + 49 + n + packed == end:
                raise Misfit(f"a chunk marked as a record of type {op:#04x}")


@dataclass(frozen=True)
class _Run:
    """Records that are whole in one piece of the file, then perhaps a large one that is not in memory."""

    base: int
    piece: bytes
    at: NDArray[np.int64]
    stop: int
    big: tuple[int, int, int] | None  # (op, begin, end)

    def ends(self) -> NDArray[np.int64]:
        return np.append(self.at, self.stop)[1:]

    def others(self) -> list[int]:
        """Which of the records in the piece are no messages."""
        found: list[int] = np.flatnonzero(np.frombuffer(self.piece, np.uint8)[self.at] != MESSAGE).tolist()
        return found

    def records(self) -> Iterator[tuple[int, int, int, Fields | None]]:
        """The records other than messages: (op, begin, end, fields if in memory)."""
        ends = self.ends()
        for i in self.others():
            a, b = int(self.at[i]), int(ends[i])
            yield self.piece[a], self.base + a, self.base + b, Fields(self.piece, a + 9, b)
        if self.big and self.big[0] != MESSAGE:
            yield *self.big, None


def runs(source: Source, at: int, limit: int | None = None) -> Iterator[_Run]:
    """The records of a file from an offset to ``limit``, piece by piece.

    Raises:
      Broken: at the first that the file is too short for, after those before it.
    """
    size, step = source.size, _SMALL
    while limit is None or at < limit:
        piece = source.read(at, step if limit is None else min(step, limit - at))
        begins, stop = chain(piece, 0, len(piece))
        big, broken = None, None
        begin = at + stop
        left = size - begin
        if left < 9:
            broken = Broken(begin, "the file ends here, incomplete (truncated)")
        elif len(piece) - stop >= 9:
            op, n = record_head(piece, stop)
            if n > left - 9:
                broken = Broken(
                    begin, f"a record of type {op:#04x} claims {n} bytes where {left - 9} are left (truncated)"
                )
            elif n + 9 > len(piece) // 2 or stop == 0:
                big = (op, begin, begin + 9 + n)
        elif at + len(piece) < min(size, at + step) and limit is None:
            broken = Broken(at + len(piece), "the file became shorter while it was read")
        yield _Run(at, piece, begins, stop, big)
        if broken is not None and (limit is None or begin < limit):
            raise broken
        at = big[2] if big else begin
        step = _SMALL if big else min(4 * step, _LARGE)


class _at:
    """Gives a ``Misfit`` its place in the file."""

    def __init__(self, offset: int) -> None:
        self.offset = offset

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, err: BaseException | None, trace: object) -> None:
        if isinstance(err, Misfit):
            raise Broken(self.offset, str(err)) from err


def _last(fields: Fields, size: int) -> Fields:
    if fields.stop - fields.at != size:
        raise Misfit(f"a record of {fields.stop - fields.at} bytes where it has {size}")
    return fields


class _Reading:
    """One pass over the data section, from its first byte to its last."""

    def __init__(self, file: McapFile) -> None:
        self.file, self.source = file, file._source
        self.count = self.bare = self.chunks = 0
        self._per_channel = np.zeros(1 << 16, np.int64)
        self._defined = np.zeros(1 << 16, bool)
        self._crc = zlib.crc32(MAGIC)
        self._entry = 0  # of the chunk index
        self._with_crc, self._without_crc = False, 0  # whether a chunk has one; offset of a chunk that has none

    def blocks(self, limit: int | None = None) -> Iterator[Block]:
        """See ``McapFile.blocks``; of the records before ``limit``."""
        for run in runs(self.source, 8, limit):
            ends, first = run.ends(), 0
            view = memoryview(run.piece)
            for i in run.others():
                yield from self._bare(run, ends, first, i)
                first, a, b = i + 1, int(run.at[i]), int(ends[i])
                if run.piece[a] == DATA_END:
                    self._check_data(zlib.crc32(view[:a], self._crc), run.base + a)
                    return
                yield from self._record(run.piece[a], run.base + a, run.piece, a, b)
            yield from self._bare(run, ends, first, len(run.at))
            if self.file._data_crc:
                self._crc = zlib.crc32(view[: run.stop], self._crc)
            if run.big:
                yield from self._big(*run.big)

    def _big(self, op: int, begin: int, end: int) -> Iterator[Block]:
        if op in (CHUNK, MESSAGE, SCHEMA, CHANNEL):
            data = self.file._whole(op, begin, end)
            if self.file._data_crc:
                self._crc = zlib.crc32(data, self._crc)
            if op == MESSAGE:
                yield self._counted(_message(data, begin), begin, False)
            else:
                yield from self._record(op, begin, data, 0, len(data))
            return
        if self.file._data_crc:
            for piece in self.source.pieces(begin, end):
                self._crc = zlib.crc32(piece, self._crc)
        yield from self._record(op, begin, b"", 0, end - begin)

    def _record(self, op: int, begin: int, data: bytes, a: int, b: int) -> Iterator[Block]:
        with _at(begin):
            if op == CHUNK:
                yield from self._chunk(begin, data, a, b)
            elif op in (SCHEMA, CHANNEL):
                self._take(op, Fields(data, a + 9, b))
            elif op == ATTACHMENT:
                check_attachment(read_attachment(self.source, begin, begin + b - a))

    def _bare(self, run: _Run, ends: NDArray[np.int64], first: int, last: int) -> Iterator[Block]:
        """Messages outside chunks."""
        if last > first:
            with _at(run.base + int(run.at[first])):
                block = message_block(run.piece, run.at[first:last], ends[first:last])
            yield self._counted(block, run.base + int(run.at[first]), False)

    def _chunk(self, begin: int, data: bytes, a: int, b: int) -> Iterator[Block]:
        head = chunk_head(data, a, b)
        if head.codec not in CODECS:
            raise Broken(begin, f"compression {head.codec!r}", allowed="zstd, lz4, none")
        index = self.file._index
        if self._entry < len(index) and begin >= int(index[self._entry]["offset"]):
            facts = (begin, b - a, head.start_ns, head.end_ns, head.stop - head.at, head.size, CODECS.index(head.codec))
            if index[self._entry].item() != facts:
                raise Misfit("a chunk is not what the chunk index says")
            self._entry += 1
        records = unpack(head, data, self.file.max_chunk_bytes)
        if not self.file._data_crc:
            if head.crc:
                self._with_crc = True
            elif not self._without_crc and zlib.crc32(memoryview(records[0])[records[1] : records[2]]):
                self._without_crc = begin
            if self._with_crc and self._without_crc:
                raise Broken(self._without_crc, "a chunk has no CRC where others have one")
        self.chunks += 1
        for block in chunk_blocks(*records, self._take):
            yield self._counted(block, begin, head.crc != 0)

    def _take(self, op: int, fields: Fields) -> None:
        if op in (SCHEMA, CHANNEL):
            channel = self.file._known.define(op, fields)
            if channel is not None:
                self._defined[channel.id] = True
        elif op < FUTURE:
            raise Misfit(f"record of type {op:#04x} within a chunk")

    def _counted(self, block: Block, begin: int, checked: bool) -> Block:
        counts = np.bincount(block.channel)
        unknown = np.flatnonzero((counts > 0) & ~self._defined[: len(counts)])
        if len(unknown):
            raise Broken(begin, f"messages of channel {unknown[0]}, which is not defined")
        self._per_channel[: len(counts)] += counts
        self.count += len(block)
        self.bare += 0 if checked else len(block)
        return block

    def counts(self) -> tuple[int, int]:
        """Messages so far: with a CRC of their own, and without."""
        return self.count - self.bare, self.bare

    def _check_data(self, crc: int, at: int) -> None:
        if self.file._data_crc and self.file._data_crc != crc:
            raise Broken(at, "the CRC of the data section is wrong: damage outside its chunks")
        if self._entry < len(self.file._index):
            offset = int(self.file._index[self._entry]["offset"])
            raise Broken(offset, "the chunk index names a chunk here, where none is")

    def check_totals(self) -> None:
        """Compare what was read with the file's statistics."""
        said = self.file.statistics
        if said is None:
            return
        by_channel = {int(k): int(self._per_channel[k]) for k in np.flatnonzero(self._per_channel)}
        for what, a, b in (
            ("messages", said.messages, self.count),
            ("chunks", said.chunks, self.chunks),
            ("attachments", said.attachments, len(self.file.attachments)),
            ("metadata records", said.metadata, len(self.file.metadata)),
            # Writers may leave the per-channel table out.
            ("messages per channel", {k: v for k, v in said.by_channel.items() if v} or by_channel, by_channel),
        ):
            if a != b:
                raise Broken(self.file._statistics_at, f"the statistics say {a} {what}, the file holds {b}")


def _message(data: bytes, begin: int) -> Block:
    with _at(begin):
        return message_block(data, np.zeros(1, np.int64), np.array([len(data)], np.int64))
