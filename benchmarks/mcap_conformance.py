"""Reads the conformance suite of foxglove/mcap: ``python benchmarks/mcap_conformance.py DIR``.

DIR is a checkout of that repository, or its folder ``tests/conformance/data``. Each file is read twice, record by
record and through ``McapFile``, and compared with the suite's own list of expected records. Where the checkout holds
only pointers (Git LFS), the file is generated (``tests/episodes/formats/mcap_variants.py``) and must have the digest
that the pointer names. Exit code 1 when anything differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/episodes/formats"))

import mcap_variants

from flyball.episodes.formats.mcap import McapFile, runs
from flyball.episodes.formats.mcap_records import Fields, Source, chain, chunk_head, unpack

NAMES = {op: kind for kind, op in mcap_variants.OPS.items()}
# The fields of each record in the order of the bytes.
FIELDS = {
    "Header": "profile:text library:text",
    "Footer": "summary_start:8 summary_offset_start:8 summary_crc:4",
    "Schema": "id:2 name:text encoding:text data:bytes4",
    "Channel": "id:2 schema_id:2 topic:text message_encoding:text metadata:texts",
    "Message": "channel_id:2 sequence:4 log_time:8 publish_time:8 data:rest",
    "ChunkIndex": "message_start_time:8 message_end_time:8 chunk_start_offset:8 chunk_length:8 "
    "message_index_offsets:2to8 message_index_length:8 compression:text compressed_size:8 uncompressed_size:8",
    "Attachment": "log_time:8 create_time:8 name:text media_type:text data:bytes8",
    "AttachmentIndex": "offset:8 length:8 log_time:8 create_time:8 data_size:8 name:text media_type:text",
    "Statistics": "message_count:8 schema_count:2 channel_count:4 attachment_count:4 metadata_count:4 chunk_count:4 "
    "message_start_time:8 message_end_time:8 channel_message_counts:2to8",
    "Metadata": "name:text metadata:texts",
    "MetadataIndex": "offset:8 length:8 name:text",
    "SummaryOffset": "group_opcode:1 group_start:8 group_length:8",
    "DataEnd": "data_section_crc:4",
}


def records(blob: bytes) -> Iterator[dict[str, Any]]:
    """Every record of a file as the suite writes it down; a chunk's records in its place, message indexes left out."""
    source = Source(blob)
    for run in runs(source, 8):
        for a, b in zip(run.at.tolist(), run.ends().tolist(), strict=True):
            yield from record(run.base + a, blob[run.base + a : run.base + b])
            if run.piece[a] == mcap_variants.OPS["Footer"]:
                return
        if run.big:
            yield from record(run.big[1], blob[run.big[1] : run.big[2]])


def record(begin: int, data: bytes) -> Iterator[dict[str, Any]]:
    kind = NAMES[data[0]]
    if kind == "Chunk":
        inner, at, stop = unpack(chunk_head(data, 0, len(data)), data, 1 << 20)
        begins, end = chain(inner, at, stop)
        for a, b in zip(begins.tolist(), [*begins[1:].tolist(), end], strict=True):
            yield from record(begin, inner[a:b])
    elif kind != "MessageIndex":
        f = Fields(data, 9, len(data))
        read = {
            "text": f.text,
            "texts": f.texts,
            "bytes4": lambda: f.bytes_(f.number(4)),
            "bytes8": lambda: f.bytes_(f.number(8)),
            "rest": lambda: f.bytes_(f.stop - f.at),
            "2to8": lambda: f.numbers(2, 8),
        }
        values = {
            n: read[t]() if t in read else f.number(int(t)) for n, t in (x.split(":") for x in FIELDS[kind].split())
        }
        yield {"type": kind, "fields": [[n, written(values[n])] for n in sorted(values)]}


def written(value: Any) -> Any:
    """A value as the suite's JSON has it: numbers as text, bytes as lists."""
    if isinstance(value, dict):
        return {str(k): written(v) for k, v in value.items()}
    if isinstance(value, bytes):
        return [str(x) for x in value]
    return value if isinstance(value, str) else str(value)


def through_the_reader(blob: bytes) -> list[tuple[Any, ...]]:
    """What ``McapFile`` makes of a file."""
    file = McapFile(blob)
    out: list[tuple[Any, ...]] = [("Header", file.profile, file.library)]
    for block in file.blocks():
        for i in range(len(block)):
            c = file.channels[int(block.channel[i])]
            schema = (c.schema.name, c.schema.encoding, c.schema.data) if c.schema else None
            times = int(block.log_ns[i]), int(block.publish_ns[i])
            payload = block.data[block.start[i] : block.stop[i]]
            topic = (c.topic, c.message_encoding, dict(c.metadata), schema)
            out.append(("Message", *topic, int(block.sequence[i]), *times, payload))
    out += [("Attachment", a.log_ns, a.create_ns, a.name, a.media_type, a.data) for a in file.attachments]
    out += [("Metadata", name, values) for name, values in file.metadata]
    if (s := file.statistics) is not None:
        counts = s.messages, s.schemas, s.channels, s.attachments, s.metadata, s.chunks
        out.append(("Statistics", *counts, s.start_ns, s.end_ns, s.by_channel))
    return out


def expected(listed: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """The same from the suite's list of records."""
    head: list[tuple[Any, ...]] = []
    messages: list[tuple[Any, ...]] = []
    rest: dict[str, list[tuple[Any, ...]]] = {"Attachment": [], "Metadata": [], "Statistics": []}
    schemas: dict[str, Any] = {}
    channels: dict[str, Any] = {}
    for r in listed:
        v = dict(r["fields"])
        if r["type"] == "Header":
            head.append(("Header", v["profile"], v["library"]))
        elif r["type"] == "Schema":
            schemas[v["id"]] = v["name"], v["encoding"], bytes(map(int, v["data"]))
        elif r["type"] == "Channel":
            channels[v["id"]] = v["topic"], v["message_encoding"], v["metadata"], schemas.get(v["schema_id"])
        elif r["type"] == "Message":
            numbers = (int(v[k]) for k in ("sequence", "log_time", "publish_time"))
            messages.append(("Message", *channels[v["channel_id"]], *numbers, bytes(map(int, v["data"]))))
        elif r["type"] == "Attachment":
            times = int(v["log_time"]), int(v["create_time"])
            rest["Attachment"].append(("Attachment", *times, v["name"], v["media_type"], bytes(map(int, v["data"]))))
        elif r["type"] == "Metadata":
            rest["Metadata"].append(("Metadata", v["name"], v["metadata"]))
        elif r["type"] == "Statistics":
            names = [x.split(":")[0] for x in FIELDS["Statistics"].split()][:-1]
            by_channel = {int(k): int(n) for k, n in v["channel_message_counts"].items()}
            rest["Statistics"].append(("Statistics", *(int(v[n]) for n in names), by_channel))
    return [*head, *messages, *rest["Attachment"], *rest["Metadata"], *rest["Statistics"]]


def check(folder: Path) -> dict[str, Any]:
    """Compare every file of the suite."""
    made = {name: blob for name, blob, _ in mcap_variants.variants()}
    counts = {"files": 0, "pointers": 0, "identical_to_generated": 0, "records_identical": 0, "reader_identical": 0}
    wrong = []
    for path in sorted(folder.rglob("*.json")):
        blob, name = path.with_suffix(".mcap").read_bytes(), path.stem
        counts["files"] += 1
        ours = made.get(name, b"")
        if blob.startswith(b"version https://git-lfs"):
            counts["pointers"] += 1
            same = f"sha256:{hashlib.sha256(ours).hexdigest()}\n" in blob.decode()
            blob = ours
        else:
            same = blob == ours
        want = json.loads(path.read_text())["records"]
        checks = ("identical_to_generated", same), ("records_identical", list(records(blob)) == want)
        for what, right in (*checks, ("reader_identical", through_the_reader(blob) == expected(want))):
            counts[what] += right
            if not right:
                wrong.append(f"{name}: not {what}")
    return {**counts, "wrong": wrong}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="DIR", help="a checkout of foxglove/mcap, or its conformance data")
    args = parser.parse_args()
    data = args.folder / "tests/conformance/data"
    result = check(data if data.is_dir() else args.folder)
    print(json.dumps(result, indent=1))
    return 0 if result["files"] and not result["wrong"] else 1


if __name__ == "__main__":
    sys.exit(main())
