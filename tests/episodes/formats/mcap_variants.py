"""Six small recordings in every way the MCAP format can lay them out: the 416 files of foxglove/mcap's conformance
suite, byte for byte (``DIGEST``), so that they need not be kept here.

In: nothing. Out: (name, bytes, expected records) of each. Written from the format's specification and from what the
suite says of its files.
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

MAGIC = b"\x89MCAP0\r\n"
DIGEST = "eabcfbf8e6525dd4022cb979a3d1793443a31f427cc163be4ddb98e295cd8d01"
"""sha256 of the lines ``NAME SHA256`` of all variants, in order of name."""

OPS = {
    "Header": 1,
    "Footer": 2,
    "Schema": 3,
    "Channel": 4,
    "Message": 5,
    "Chunk": 6,
    "MessageIndex": 7,
    "ChunkIndex": 8,
    "Attachment": 9,
    "AttachmentIndex": 10,
    "Statistics": 11,
    "Metadata": 12,
    "MetadataIndex": 13,
    "SummaryOffset": 14,
    "DataEnd": 15,
}
UNPADDED = ("Footer", "Message", "Chunk", "DataEnd")
"""Records that have no room for fields of a later version behind those that are known."""

FEATURES = {
    "ch": "one chunk for everything",
    "mx": "message indexes",
    "st": "statistics",
    "rsh": "schemas repeated in the summary",
    "rch": "channels repeated in the summary",
    "ax": "attachment indexes",
    "mdx": "metadata indexes",
    "chx": "chunk indexes",
    "sum": "summary offsets",
    "pad": "unknown bytes at the end of records",
}


@dataclass(frozen=True)
class Rec:
    """A record: its kind, and its fields as (name, type, value) in the order of the bytes."""

    kind: str
    fields: tuple[tuple[str, str, Any], ...]

    def value(self, name: str) -> Any:
        return next(v for n, _, v in self.fields if n == name)

    def body(self) -> bytes:
        out = b""
        for name, kind, value in self.fields:
            out += struct.pack("<I", zlib.crc32(out)) if name == "crc" else PACK[kind](value)
        return out

    def packed(self, pad: bool) -> bytes:
        body = self.body() + (b"\x01\xff\xff" if pad and self.kind not in UNPADDED else b"")
        return struct.pack("<BQ", OPS[self.kind], len(body)) + body


def sized(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


PACK: dict[str, Callable[[Any], bytes]] = {
    "1": lambda v: struct.pack("<B", v),
    "2": lambda v: struct.pack("<H", v),
    "4": lambda v: struct.pack("<I", v),
    "8": lambda v: struct.pack("<Q", v),
    "text": lambda v: sized(v.encode()),
    "texts": lambda v: sized(b"".join(sized(a.encode()) + sized(b.encode()) for a, b in v.items())),
    "bytes4": sized,
    "bytes8": lambda v: struct.pack("<Q", len(v)) + v,
    "rest": bytes,
    "2to8": lambda v: sized(b"".join(struct.pack("<HQ", a, b) for a, b in v.items())),
    "pairs": lambda v: sized(b"".join(struct.pack("<QQ", a, b) for a, b in v)),
}


def schema() -> Rec:
    what = ("id", "2", 1), ("name", "text", "Example"), ("encoding", "text", "c"), ("data", "bytes4", b"\4\5\6")
    return Rec("Schema", what)


def channel(schema_id: int, encoding: str, metadata: dict[str, str]) -> Rec:
    names = ("topic", "text", "example"), ("message_encoding", "text", encoding)
    return Rec("Channel", (("id", "2", 1), ("schema_id", "2", schema_id), *names, ("metadata", "texts", metadata)))


def message(sequence: int, log: int, publish: int) -> Rec:
    head = ("channel_id", "2", 1), ("sequence", "4", sequence), ("log_time", "8", log), ("publish_time", "8", publish)
    return Rec("Message", (*head, ("data", "rest", b"\1\2\3")))


def attachment() -> Rec:
    names = ("name", "text", "myFile"), ("media_type", "text", "application/octet-stream")
    times = ("log_time", "8", 2), ("create_time", "8", 1)
    return Rec("Attachment", (*times, *names, ("data", "bytes8", b"\1\2\3"), ("crc", "4", None)))


METADATA = Rec("Metadata", (("name", "text", "myMetadata"), ("metadata", "texts", {"foo": "bar"})))
DEFINED = (schema(), channel(1, "a", {"foo": "bar"}))
RECORDINGS: dict[str, tuple[Rec, ...]] = {
    "NoData": (),
    "OneSchemalessMessage": (channel(0, "text", {}), message(10, 2, 1)),
    "OneMessage": (*DEFINED, message(10, 2, 1)),
    "OneAttachment": (attachment(),),
    "OneMetadata": (METADATA,),
    "TenMessages": (*DEFINED, *(message(i, t, t) for i, t in enumerate((0, 2, 1, 3, 3, 5, 4, 7, 8, 9)))),
}


def sensible(features: frozenset[str], records: tuple[Rec, ...]) -> bool:
    """Whether the features have something to show in this recording."""
    kinds = {r.kind for r in records}
    needs = {"ax": {"Attachment"}, "mdx": {"Metadata"}, "rsh": {"Schema"}, "rch": {"Channel"}}
    needs |= {feature: {"Message", "Channel", "Schema"} for feature in ("ch", "chx", "mx")}
    return (
        all(needs[f] & kinds for f in features & needs.keys())
        and ("sum" not in features or bool(features & {"chx", "rsh", "rch", "mdx", "ax", "st"}))
        and ("ch" in features or not features & {"chx", "mx"})
    )


@dataclass
class File:
    """A file on its way, and what a reader is to find in it."""

    pad: bool
    data: bytes = MAGIC
    found: list[Rec] = field(default_factory=list)

    def add(self, *records: Rec) -> int:
        """Append records; returns how many bytes they took."""
        before = len(self.data)
        for r in records:
            self.data += r.packed(self.pad)
            self.found.append(r)
        return len(self.data) - before


def generate(features: frozenset[str], records: tuple[Rec, ...]) -> tuple[bytes, list[Rec]]:
    """One file, and the records in it in the order a reader meets them (those of a chunk in place of the chunk)."""
    file = File("pad" in features)
    file.add(Rec("Header", (("profile", "text", ""), ("library", "text", ""))))
    indexes: list[Rec] = []
    loose = [r for r in records if "ch" not in features or r.kind in ("Attachment", "Metadata")]
    for r in loose:
        begin = ("offset", "8", len(file.data))
        length = ("length", "8", file.add(r))
        if r.kind == "Attachment" and "ax" in features:
            copied = [f for f in r.fields if f[0] in ("log_time", "create_time")]
            names = [f for f in r.fields if f[0] in ("name", "media_type")]
            size = ("data_size", "8", len(r.value("data")))
            indexes.append(Rec("AttachmentIndex", (begin, length, *copied, size, *names)))
        elif r.kind == "Metadata" and "mdx" in features:
            indexes.append(Rec("MetadataIndex", (begin, length, ("name", "text", r.value("name")))))
    times = [r.value("log_time") for r in records if r.kind == "Message"] or [0]
    span = ("message_start_time", "8", min(times)), ("message_end_time", "8", max(times))
    chunks: list[Rec] = []
    if "ch" in features:
        chunks = add_chunk(file, [r for r in records if r not in loose], span, "mx" in features)
    file.add(Rec("DataEnd", (("data_section_crc", "4", zlib.crc32(file.data)),)))
    start = len(file.data)
    groups = [
        [r for r in records if r.kind == "Schema" and "rsh" in features],
        [r for r in records if r.kind == "Channel" and "rch" in features],
        [statistics(records, span, int("ch" in features))] if "st" in features else [],
        indexes,
        chunks if "chx" in features else [],
    ]
    offsets = []
    for group in filter(None, groups):
        begin = ("group_start", "8", len(file.data))
        length = ("group_length", "8", file.add(*group))
        offsets.append(Rec("SummaryOffset", (("group_opcode", "1", OPS[group[0].kind]), begin, length)))
    summary = start if len(file.data) > start else 0
    offset_start = len(file.data) if "sum" in features else 0
    file.add(*(offsets if "sum" in features else []))
    where = struct.pack("<BQQQ", OPS["Footer"], 20, summary, offset_start)
    crc = zlib.crc32(where, zlib.crc32(file.data[start:]))
    at = ("summary_start", "8", summary), ("summary_offset_start", "8", offset_start)
    file.add(Rec("Footer", (*at, ("summary_crc", "4", crc))))
    return file.data + MAGIC, file.found


def add_chunk(file: File, records: list[Rec], span: tuple[Any, ...], indexed: bool) -> list[Rec]:
    """Append one chunk of the records, and its message index; returns its chunk index."""
    content, places = b"", {}
    for r in records:
        if r.kind == "Channel":
            places.setdefault(r.value("id"), [])
        elif r.kind == "Message":
            places.setdefault(r.value("channel_id"), []).append((r.value("log_time"), len(content)))
        content += r.packed(False)
    size, codec = ("uncompressed_size", "8", len(content)), ("compression", "text", "")
    crc = ("uncompressed_crc", "4", zlib.crc32(content))
    begin = len(file.data)
    file.data += Rec("Chunk", (*span, size, crc, codec, ("records", "bytes8", content))).packed(False)
    length, offsets = len(file.data) - begin, {}
    for c, pairs in (places if indexed else {}).items():
        offsets[c] = len(file.data)
        file.data += Rec("MessageIndex", (("channel_id", "2", c), ("records", "pairs", pairs))).packed(file.pad)
    file.found += records
    where = (
        ("chunk_start_offset", "8", begin),
        ("chunk_length", "8", length),
        ("message_index_offsets", "2to8", offsets),
    )
    index = ("message_index_length", "8", len(file.data) - begin - length), codec
    return [Rec("ChunkIndex", (*span, *where, *index, ("compressed_size", "8", len(content)), size))]


def statistics(records: tuple[Rec, ...], span: tuple[Any, ...], chunks: int) -> Rec:
    """The statistics of a recording."""

    def count(kind: str) -> int:
        return sum(r.kind == kind for r in records)

    counts = (
        ("message_count", "8", count("Message")),
        ("schema_count", "2", count("Schema")),
        ("channel_count", "4", count("Channel")),
        ("attachment_count", "4", count("Attachment")),
        ("metadata_count", "4", count("Metadata")),
        ("chunk_count", "4", chunks),
    )
    by_channel = {1: count("Message")} if count("Message") else {}
    return Rec("Statistics", (*counts, *span, ("channel_message_counts", "2to8", by_channel)))


def variants() -> Iterator[tuple[str, bytes, list[Rec]]]:
    """All files: (name, bytes, records in them)."""
    for base, records in RECORDINGS.items():
        for n in range(len(FEATURES) + 1):
            for chosen in itertools.combinations(FEATURES, n):
                features = frozenset(chosen)
                if sensible(features, records):
                    yield "-".join([base, *sorted(features)]), *generate(features, records)
