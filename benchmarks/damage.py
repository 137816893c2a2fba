"""Damages MCAP files in every way we could think of, and reads them: ``python benchmarks/damage.py [--files 10000]``.

Sound recordings in several settings are truncated, spliced, overwritten, shortened, filled with bombs, ... Each
damaged file is read twice. Strictly: an error that names file, offset and what was intact, or exactly the messages
that were written. By salvage: no error, and only messages that were written, bit by bit, with topic, schema, sequence
number and times; and all those whose chunk is untouched, where the summary still says which chunks belong together.
Each file has a time limit; the process's peak memory is reported. Exit code 1 when anything of this fails.

Recordings whose writer left every checksum out are damaged too: reading them must neither crash nor hang, but what a
changed payload does to them nobody can see, so for them only truncations are judged; the rest is counted as
``undetected`` (by strict reading) and ``silent`` (by salvage). ``flagged`` are files damaged twice in which the report
itself says that no checksum covers the messages; ``altered`` are files without a data section CRC whose metadata or
attachments changed unseen, the messages being right.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import foxglove
import lz4.frame
import zstandard
from foxglove.mcap import MCAPCompression, MCAPWriteOptions

from flyball.base import FlyballError, InputError
from flyball.episodes.formats.mcap import McapFile, runs
from flyball.episodes.formats.mcap_records import CHUNK, MAGIC, Source, record, text
from flyball.episodes.formats.mcap_salvage import SalvagedMcap, write_salvaged

LIMIT_S = 20  # of the processor, per damaged file
BASE_BYTES = 96 << 20  # what the interpreter and its libraries take, at most

MINIMAL = {
    "emit_statistics": False,
    "emit_summary_offsets": False,
    "emit_message_indexes": False,
    "emit_chunk_indexes": False,
    "repeat_channels": False,
    "repeat_schemas": False,
}
UNCHECKED = {
    "calculate_chunk_crcs": False,
    "calculate_data_section_crc": False,
    "calculate_summary_section_crc": False,
    "calculate_attachment_crcs": False,
}
SETTINGS: dict[str, tuple[dict[str, Any], int]] = {  # how each recording is written, and bytes of a payload
    "zstd": ({"compression": MCAPCompression.Zstd}, 60),
    "lz4": ({"compression": MCAPCompression.Lz4}, 60),
    "none": ({"compression": None}, 60),
    "twin": ({"compression": None}, 60),  # of the same layout as ``none``
    "no data CRC": ({"calculate_data_section_crc": False}, 60),
    "no data CRC, no statistics": ({"calculate_data_section_crc": False, "emit_statistics": False}, 60),
    "no data CRC, no summary": ({"calculate_data_section_crc": False, **MINIMAL}, 60),
    "pictures": ({"chunk_size": 32768}, 15000),
    "no chunks": ({"use_chunks": False}, 60),
    "no chunks, no checksum": ({"use_chunks": False, **UNCHECKED}, 60),
    "no checksum": ({"compression": None, **UNCHECKED}, 60),
}
WITHOUT_SUMMARY = "no data CRC, no summary"


@dataclass
class Recording:
    """A sound file."""

    name: str
    blob: bytes
    messages: list[tuple[Any, ...]]
    extras: tuple[Any, ...]
    records: list[tuple[int, int, int]]  # (op, begin, end)
    chunks: list[tuple[int, int, Counter[Any]]] = field(default_factory=list)  # (begin, end, messages)

    @property
    def checked(self) -> bool:
        return "no checksum" not in self.name

    @property
    def indexed(self) -> bool:
        return bool(self.chunks) and self.checked and self.name != WITHOUT_SUMMARY


def contents(file: McapFile | SalvagedMcap) -> list[tuple[Any, ...]]:
    """The messages of a file, with everything that belongs to them."""
    out = []
    for block in file.blocks():
        for i in range(len(block)):
            c = file.channels[int(block.channel[i])]
            schema = (c.schema.name, c.schema.encoding, c.schema.data) if c.schema else None
            times = int(block.log_ns[i]), int(block.publish_ns[i]), int(block.sequence[i])
            payload = (
                block.data[block.start[i] : block.stop[i]] if block.stop[i] - block.start[i] < 1 << 20 else b"large"
            )
            out.append((c.topic, c.message_encoding, tuple(c.metadata.items()), schema, times, payload))
    return out


def extras(file: McapFile | SalvagedMcap) -> tuple[Any, ...]:
    """What a file holds besides messages."""
    attachments = tuple((a.log_ns, a.create_ns, a.name, a.media_type, a.data) for a in file.attachments)
    return tuple((name, tuple(values.items())) for name, values in file.metadata), attachments


def recordings(folder: Path, seed: int = 0) -> list[Recording]:
    """Some sound files whose channel ids mean different things."""
    out = []
    for k, (name, (options, size)) in enumerate(SETTINGS.items()):
        rng, context, path = random.Random(seed if k != 3 else seed + 1), foxglove.Context(), folder / f"{k}.mcap"
        schemas = [foxglove.Schema(name=f"pkg{k}/S{i}", encoding="ros2msg", data=b"uint8[] data") for i in range(2)]
        settings = MCAPWriteOptions(**{"chunk_size": 4096, "compression_threads": 0, **options})
        writer = foxglove.open_mcap(path, context=context, writer_options=settings)
        writer.write_metadata("rig", {"robot": f"robot-{k}", "kp": "100"})
        topics = [
            foxglove.Channel(f"/f{k}/t{i}", schema=schemas[i % 2], message_encoding="cdr", context=context)
            for i in range(5)
        ]
        for i in range(400 if size < 1000 else 40):
            payload = rng.randbytes(size if name in ("none", "twin") else rng.randrange(1, 2 * size))
            # A new channel now and then: its definition lies in a later chunk.
            topics[min(i % 5, i // 60)].log(payload, log_time=(k + 1) * 10**12 + i * 10**7)
        writer.attach(log_time=1, create_time=2, name="a.bin", media_type="x/y", data=rng.randbytes(3000))
        writer.write_metadata("end", {"outcome": "success"})
        writer.close()
        blob = path.read_bytes()
        file = McapFile(blob)
        made = Recording(name, blob, contents(file), extras(file), [])
        for run in runs(Source(blob), 8, len(blob) - 8):
            begins, ends = run.at.tolist(), run.ends().tolist()
            made.records += [(run.piece[a], run.base + a, run.base + b) for a, b in zip(begins, ends, strict=True)]
            made.records += [run.big] if run.big else []
        taken = 0
        for op, a, b in made.records:
            if op == CHUNK:
                n = sum(len(x) for x in McapFile(one_chunk(made, a, b)).blocks())
                made.chunks.append((a, b, Counter(made.messages[taken : taken + n])))
                taken += n
        assert not made.chunks or taken == len(made.messages)
        out.append(made)
    return out


def one_chunk(recording: Recording, begin: int, end: int) -> bytes:
    """A file of one chunk and every definition in the recording."""
    from flyball.episodes.formats.mcap_records import channel_record, schema_record

    file = McapFile(recording.blob)
    for _ in file.blocks():
        pass
    schemas = {c.schema: int(c.schema.name[-1]) + 1 for c in file.channels.values() if c.schema}
    ids = {s: i for i, s in file._known.schemas.items()}
    head = b"".join(schema_record(ids[s], s) for s in schemas)
    head += b"".join(channel_record(c, ids[c.schema] if c.schema else 0) for c in file.channels.values())
    data = MAGIC + record(1, text(""), text("")) + head + recording.blob[begin:end] + record(15, bytes(4))
    return data + record(2, bytes(20)) + MAGIC


# ---- damages: (rng, recordings, recording) -> (bytes, what was mixed in, first and last byte touched)

Damage = tuple[bytes, list[Recording], tuple[int, int]]


def truncate(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    at = rng.choice([rng.randrange(len(r.blob)), rng.choice(r.records)[1]])
    return r.blob[:at], [], (at, len(r.blob))


def flip(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    bad, a = bytearray(r.blob), rng.randrange(len(r.blob))
    spots = [min(a + rng.randrange(64), len(bad) - 1) for _ in range(rng.choice([1, 1, 1, 2, 8]))]
    for at in spots:
        bad[at] ^= 1 << rng.randrange(8)
    return bytes(bad), [], (min(spots), max(spots) + 1)


def flip_head(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    bad, (_, begin, end) = bytearray(r.blob), rng.choice(r.records)
    at = min(begin + rng.randrange(60), end - 1)
    bad[at] ^= 1 << rng.randrange(8)
    return bytes(bad), [], (at, at + 1)


def overwrite(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    n = rng.choice([4, 16, 512, 4096])
    at = rng.randrange(len(r.blob)) if rng.random() < 0.7 else rng.choice(r.records)[1] + rng.randrange(64)
    what = rng.choice([bytes(n), bytes(n), b"\xff" * n, rng.randbytes(n)])[: max(0, len(r.blob) - at)]
    return r.blob[:at] + what + r.blob[at + len(what) :], [], (at, at + len(what))


def drop(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    at, n = rng.randrange(len(r.blob)), rng.choice([1, 7, 512, 4096, 20000])
    return r.blob[:at] + r.blob[at + n :], [], (at, min(at + n, len(r.blob)))


def insert(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    at, n = rng.randrange(len(r.blob)), rng.choice([1, 9, 512, 4096])
    return r.blob[:at] + rng.choice([bytes(n), rng.randbytes(n)]) + r.blob[at:], [], (at, at)


def stale(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    """A disk block of another recording, or of another place."""
    other, n = rng.choice([*all_, r, r]), rng.choice([512, 4096, 16384])
    at = rng.randrange(len(r.blob)) // n * n
    source = at if rng.random() < 0.5 else rng.randrange(len(other.blob)) // n * n
    what = other.blob[source : source + n][: len(r.blob) - at]
    return r.blob[:at] + what + r.blob[at + len(what) :], [other], (at, at + len(what))


def splice(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    other = rng.choice(all_)
    at, on = rng.randrange(len(r.blob)), rng.randrange(len(other.blob))
    if rng.random() < 0.2:
        on = min(at, len(other.blob) - 1)
    elif rng.random() < 0.3 and other.name != WITHOUT_SUMMARY and other.checked:
        # Exactly between two records. What has neither summary nor data CRC cannot tell that from a sound file.
        at, on = rng.choice(r.records)[1], rng.choice(other.records)[1]
    return r.blob[:at] + other.blob[on:], [other], (at, len(r.blob))


def length(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    bad, (op, begin, end) = bytearray(r.blob), rng.choice(r.records)
    inner = [1] if op != CHUNK else [1, 25, 37, end - begin]
    at = begin + rng.choice(inner)
    value = rng.choice([0, 1, 2**63, 2**64 - 1, 2**40, 2**31, len(r.blob), rng.randrange(1 << 24)])
    bad[at : at + 8] = struct.pack("<Q", value)
    return bytes(bad[: len(r.blob)]), [], (at, at + 8)


def bomb(rng: random.Random, all_: list[Recording], r: Recording) -> Damage:
    """A chunk that claims little and unpacks to much, or claims much, in place of one or between two records."""
    _, begin, end = rng.choice(r.records)
    head = struct.pack("<HIQQ", 1, 0, 1, 1)
    size = rng.choice([8 << 20, 200 << 20, 300 << 20])
    if rng.random() < 0.3:
        size = 8 << 20
    records = _bomb(size, head)
    codec, pack = rng.choice([("zstd", records[1]), ("lz4", records[2]), ("zstd", records[3])])
    claim = rng.choice([size, 1000, 1 << 60, 0])
    # A chunk that is right in every respect is no damage; only a chunk index can tell that it was not written.
    genuine = claim == size and not (r.indexed and begin < r.records[-1][1] - 4000)
    crc = rng.choice([1, 2] if genuine else [records[0], 1])
    chunk = record(CHUNK, struct.pack("<QQQI", 0, 0, claim, crc), text(codec), struct.pack("<Q", len(pack)), pack)
    stop = end if rng.random() < 0.5 else begin
    return r.blob[:begin] + chunk + r.blob[stop:], [], (begin, stop)


_bombs: dict[int, tuple[int, bytes, bytes, bytes]] = {}


def _bomb(size: int, head: bytes) -> tuple[int, bytes, bytes, bytes]:
    """A message of that many zeros: its CRC; packed by zstd, by lz4, and by zstd without a size in the frame."""
    if size not in _bombs:
        pieces = [
            struct.pack("<BQ", 5, size - 9) + head + bytes((1 << 20) - 31),
            *[bytes(1 << 20)] * ((size >> 20) - 1),
        ]
        crc, packers = 0, [zstandard.ZstdCompressor().compressobj(size), zstandard.ZstdCompressor().compressobj()]
        lz4_packer = lz4.frame.LZ4FrameCompressor()
        packed = [b"", b"", lz4_packer.begin()]
        for piece in pieces:  # never as a whole: the peak of this process's memory is to be the reader's
            crc = zlib.crc32(piece, crc)
            packed[:2] = [p + c.compress(piece) for p, c in zip(packed, packers, strict=False)]
            packed[2] += lz4_packer.compress(piece)
        packed[:2] = [p + c.flush() for p, c in zip(packed, packers, strict=False)]
        _bombs[size] = crc, packed[0], packed[2] + lz4_packer.flush(), packed[1]
    return _bombs[size]


KINDS: tuple[Callable[[random.Random, list[Recording], Recording], Damage], ...] = (
    truncate, flip, flip_head, overwrite, drop, insert, stale, splice, length, bomb,
)  # fmt: skip


def twice(rng: random.Random, all_: list[Recording], r: Recording) -> tuple[str, Damage]:
    """Two damages, one after the other."""
    kinds = [rng.choice([k for k in KINDS if k not in (bomb, splice)]) for _ in range(2)]
    blob, mixed, _ = kinds[0](rng, all_, r)
    worse = Recording(r.name, blob or b"x", [], (), [x for x in r.records if x[2] < len(blob)] or [(1, 0, 1)])
    blob, more, _ = kinds[1](rng, all_, worse)
    return "twice", (blob, mixed + more, (0, len(r.blob)))


# ---- judgement


class TooSlow(BaseException):
    """A file took longer than it may."""


def judge(kind: str, damage: Damage, r: Recording, name: str, folder: Path | None) -> dict[str, Any]:
    """What reading a damaged file came to; ``wrong`` lists what must not be."""
    blob, mixed, (lo, hi) = damage
    sources = [r, *mixed]
    checked = all(s.checked for s in sources)
    out: dict[str, Any] = {"kind": kind, "wrong": [], "silent": 0, "altered": 0, "flagged": 0, "strict": "error"}
    path = name
    try:
        file = McapFile(blob, path)
        got = contents(file)
    except InputError as err:
        if not err.where.startswith(f"{path} at byte ") or "intact" not in err.what or "\n" in err.line():
            out["wrong"].append(f"an error without file, offset or what was saved: {err.line()}")
        got = None
    except FlyballError as err:
        out["wrong"].append(f"another error: {err!r}")
        got = None
    if got is not None:
        same = any(got == s.messages for s in sources)
        out["strict"] = "sound" if same else "undetected"
        if not same and (checked or kind == "truncate"):
            out["wrong"].append("strict reading gave other messages without an error")
        try:
            out["altered"] = int(not any(extras(file) == s.extras for s in sources))
        except InputError:
            out["altered"] = 0
        if out["altered"] and r.name in ("zstd", "lz4", "none", "pictures", "no chunks") and not mixed:
            out["wrong"].append("metadata or attachments changed without an error, though a CRC covers them")
    saved = SalvagedMcap(blob, path)
    messages = Counter(contents(saved))
    known = Counter[Any]()
    for s in sources:
        known |= Counter(s.messages)
    if messages - known:
        if kind == "twice" and saved.report.unverified["messages"]:
            out["flagged"] = 1
        elif checked or kind == "truncate":
            out["wrong"].append(f"salvage gave {(messages - known).total()} messages that were never written")
        else:
            out["silent"] = 1
    if messages.total() != saved.report.recovered["messages"]:
        out["wrong"].append("the report counts other messages than there are")
    if saved.report.complete and checked and not mixed and messages != Counter(r.messages):
        out["wrong"].append("the report says complete, but messages are missing")
    out["recovered"], out["total"] = messages.total(), len(r.messages)
    intact = Counter[Any]()
    for a, b, held in r.chunks:
        if b <= lo or a >= hi:
            intact += held
    out["intact"], out["intact_recovered"] = intact.total(), (intact & messages).total()
    if r.indexed and not mixed and kind not in ("twice", "bomb") and intact - messages and kind != "insert":
        in_summary = lo >= r.records[-1][1] - 4000
        if not in_summary:
            out["wrong"].append(f"{(intact - messages).total()} messages of intact chunks were not saved")
    if folder is not None and messages:
        made = folder / "saved.mcap"
        made.unlink(missing_ok=True)
        write_salvaged(saved, made)
        again = McapFile(made)
        if Counter(contents(again)) != messages or extras(again) != extras(saved) or again.unchecked:
            out["wrong"].append("the file that salvage wrote holds something else")
    return out


def campaign(files: int, seed: int, folder: Path, *, bombs: bool = True, keep: Path | None = None) -> dict[str, Any]:
    """Damage and read so many files.

    Args:
      files: how many.
      seed: of everything.
      folder: for temporary files.
      bombs: also those that unpack to hundreds of megabytes.
      keep: where damaged files that were read wrongly are put.

    Returns:
      Counts, and a line for each thing that went wrong.
    """

    def alarm(signum: int, frame: Any) -> None:
        raise TooSlow

    all_ = recordings(folder, seed)
    old = signal.signal(signal.SIGPROF, alarm)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    wrong, slowest, crashes, hangs = [], 0.0, 0, 0
    for i in range(files):
        rng = random.Random(f"{seed}/{i}")
        r = rng.choice(all_)
        kinds = [k for k in KINDS if bombs or k is not bomb]
        f = rng.choice([*kinds, twice])
        kind, damage = twice(rng, all_, r) if f is twice else (f.__name__, f(rng, all_, r))  # type: ignore[operator]
        name = f"damaged-{i}.mcap"
        begin = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, LIMIT_S)
        try:
            result = judge(kind, damage, r, name, folder if i % 20 == 0 else None)
        except TooSlow:
            hangs += 1
            result = {"wrong": [f"took more than {LIMIT_S} s"]}
        except Exception as err:
            crashes += 1
            result = {"wrong": [f"{type(err).__name__}: {err}"]}
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        slowest = max(slowest, time.process_time() - begin)
        for what in result["wrong"]:
            wrong.append(f"{name} ({r.name}, {kind}): {what}")
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / name).write_bytes(damage[0])
        group = counts[kind if r.checked and all(s.checked for s in damage[1]) else f"{kind}, no checksum"]
        group["files"] += 1
        if "strict" in result:
            group[result["strict"]] += 1
            for key in ("altered", "silent", "flagged", "recovered", "intact", "intact_recovered"):
                group[key] += result[key]
    signal.signal(signal.SIGPROF, old)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
    return {
        "files": files,
        "seed": seed,
        "crashes": crashes,
        "hangs": hangs,
        "wrong": wrong,
        "slowest_s": round(slowest, 2),
        "peak_memory_MB": peak >> 20,
        "by_kind": {k: dict(v) for k, v in sorted(counts.items())},
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--no-bombs", action="store_true", help="leave out what unpacks to hundreds of megabytes")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="put damaged files that were read wrongly there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = campaign(args.files, args.seed, Path(folder), bombs=not args.no_bombs, keep=args.keep)
    print(json.dumps(result, indent=1))
    return 1 if result["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
