"""Writing MCAP files with every checksum and index. Recording on a robot is ``episodes.recorder``; this is for files
made of messages that were read from another.

In: blocks of messages, metadata, attachments. Out: one file; payloads, times and sequence numbers as they were.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Mapping
from typing import BinaryIO

import lz4.frame
import numpy as np
import zstandard

from flyball.episodes.formats.mcap_records import (
    ATTACHMENT,
    ATTACHMENT_INDEX,
    CHUNK,
    CHUNK_INDEX,
    DATA_END,
    FOOTER,
    HEADER,
    MAGIC,
    MESSAGE_HEAD,
    MESSAGE_INDEX,
    METADATA,
    METADATA_INDEX,
    STATISTICS,
    Attachment,
    Block,
    Channel,
    Schema,
    channel_record,
    record,
    schema_record,
    sized,
    text,
    texts,
)

_PACK = {"": bytes, "zstd": zstandard.ZstdCompressor(3).compress, "lz4": lz4.frame.compress}


class McapWriter:
    """Writes one file; memory is bounded by the largest block.

    Args:
      file: open for writing, empty. It is neither flushed nor closed here.
      profile, library: what the header says.
      codec: compression of chunks: ``zstd``, ``lz4`` or empty for none.
    """

    def __init__(self, file: BinaryIO, *, profile: str = "", library: str = "flyball", codec: str = "zstd") -> None:
        self._file, self._codec = file, codec
        self._size = self._crc = 0
        self._schemas: dict[Schema, int] = {}
        self._channels: dict[int, Channel] = {}
        self._counts: dict[int, int] = {}
        self._chunks: list[bytes] = []
        self._attachments: list[bytes] = []
        self._metadata: list[bytes] = []
        self._first, self._last = 2**64 - 1, 0
        self._write(MAGIC)
        self._write(record(HEADER, text(profile), text(library)))

    def write(self, block: Block, channels: Mapping[int, Channel]) -> None:
        """One chunk of the messages in a block, as ``McapFile.blocks`` yields them.

        Args:
          block: the messages; at least one.
          channels: by the ids that the block uses.
        """
        head, parts = self._definitions(np.unique(block.channel).tolist(), channels), []
        n = MESSAGE_HEAD.itemsize
        begin = block.start - n
        cuts = np.flatnonzero(begin[1:] != block.stop[:-1]) + 1
        view = memoryview(block.data)
        for a, b in zip([0, *cuts.tolist()], [*cuts.tolist(), len(block)], strict=True):
            parts.append(view[int(begin[a]) : int(block.stop[b - 1])])
        records = bytearray(b"".join([head, *parts]))
        sizes = block.stop - begin
        at = len(head) + np.cumsum(sizes) - sizes
        heads = np.ndarray((len(records) - n + 1,), MESSAGE_HEAD, records, strides=(1,))
        heads["channel"][at] = block.channel
        self._chunk(bytes(records), block, at)

    def metadata(self, name: str, values: Mapping[str, str]) -> None:
        """A metadata record."""
        made = record(METADATA, text(name), texts(values))
        self._metadata.append(record(METADATA_INDEX, struct.pack("<QQ", self._size, len(made)), text(name)))
        self._write(made)

    def attach(self, attachment: Attachment) -> None:
        """A copy of an attachment, piece by piece."""
        a = attachment
        times = struct.pack("<QQ", a.log_ns, a.create_ns)
        head = times + text(a.name) + text(a.media_type) + struct.pack("<Q", a.size)
        length = len(head) + a.size + 4
        index = struct.pack("<QQ", self._size, length + 9), times, struct.pack("<Q", a.size)
        self._attachments.append(record(ATTACHMENT_INDEX, *index, text(a.name), text(a.media_type)))
        self._write(struct.pack("<BQ", ATTACHMENT, length) + head)
        crc = zlib.crc32(head)
        for piece in a.pieces():
            crc = zlib.crc32(piece, crc)
            self._write(piece)
        self._write(struct.pack("<I", crc))

    def close(self) -> None:
        """Write the summary and the closing mark."""
        self._write(record(DATA_END, struct.pack("<I", self._crc)))
        start, self._crc = self._size, 0
        self._all(schema_record(n, schema) for schema, n in self._schemas.items())
        for c in self._channels.values():
            self._write(channel_record(c, self._schemas[c.schema] if c.schema else 0))
        totals = sum(self._counts.values()), len(self._schemas), len(self._channels), len(self._attachments)
        first = self._first if totals[0] else 0
        times = struct.pack("<QHIIIIQQ", *totals, len(self._metadata), len(self._chunks), first, self._last)
        by_channel = b"".join(struct.pack("<HQ", *item) for item in self._counts.items())
        self._write(record(STATISTICS, times, sized(by_channel)))
        self._all([*self._chunks, *self._attachments, *self._metadata])
        self._write(struct.pack("<BQQQ", FOOTER, 20, start, 0))
        self._write(struct.pack("<I", self._crc) + MAGIC)

    def _definitions(self, ids: Iterable[int], channels: Mapping[int, Channel]) -> bytes:
        """Records of the channels that the file does not know yet."""
        out = b""
        for c in (channels[i] for i in ids if i not in self._channels):
            if c.schema is not None and c.schema not in self._schemas:
                self._schemas[c.schema] = len(self._schemas) + 1
                out += schema_record(len(self._schemas), c.schema)
            out += channel_record(c, self._schemas[c.schema] if c.schema else 0)
            self._channels[c.id] = c
        return out

    def _chunk(self, records: bytes, block: Block, at: np.ndarray) -> None:
        packed = _PACK[self._codec](records)
        first, last = int(block.log_ns.min()), int(block.log_ns.max())
        self._first, self._last = min(self._first, first), max(self._last, last)
        times, begin = struct.pack("<QQ", first, last), self._size
        self._write(
            record(
                CHUNK,
                times,
                struct.pack("<QI", len(records), zlib.crc32(records)),
                text(self._codec),
                struct.pack("<Q", len(packed)),
                packed,
            )
        )
        length, offsets = self._size - begin, b""
        for c in np.unique(block.channel).tolist():
            mine = block.channel == c
            self._counts[c] = self._counts.get(c, 0) + int(mine.sum())
            offsets += struct.pack("<HQ", c, self._size)
            entries = np.stack([block.log_ns[mine], at[mine].astype(np.uint64)], axis=1).tobytes()
            self._write(record(MESSAGE_INDEX, struct.pack("<H", c), sized(entries)))
        where = struct.pack("<QQ", begin, length), sized(offsets), struct.pack("<Q", self._size - begin - length)
        sizes = struct.pack("<QQ", len(packed), len(records))
        self._chunks.append(record(CHUNK_INDEX, times, *where, text(self._codec), sizes))

    def _all(self, records: Iterable[bytes]) -> None:
        for r in records:
            self._write(r)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._size += len(data)
        self._crc = zlib.crc32(data, self._crc)
