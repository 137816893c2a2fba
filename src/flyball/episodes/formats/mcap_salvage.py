"""Salvage: what is intact of a damaged MCAP file, also behind the damage, and how much of it there is.

In: a file that strict reading (``mcap``) refuses. Out: the same interface, with every message that a checksum vouches
for and none that might be wrong; a report; on request a sound new file. What may be trusted, and why:

- A chunk whose CRC is right. Its place is found by following lengths, and where they break by looking for the next
  bytes that read as a chunk and have the right CRC.
- A schema or channel within such a chunk, or in the summary if its CRC is right. Ids mean something within one
  recording only, and what lies behind any damage may be of another. A chunk there takes them from the summary if its
  chunk index names the chunk, else from chunks behind the same damage: no message gets a wrong topic.
- An attachment whose CRC is right.
- Everything in the data section if its CRC is right (the damage is in the summary then).
- Metadata records have no checksum. They are kept where lengths lead to them, and counted as unverified.
- Messages outside chunks, and chunks whose writer left the CRC out, have none either. They are kept if the only damage
  is that the file stops early (all but the last of them), since strict reading would believe the same bytes in a file
  that is complete; else only if the caller asks for what is unverified.

What remains: in a file that has lost its summary, an MCAP file within a damaged attachment or message cannot be told
from the file itself.
"""

from __future__ import annotations

import os
import re
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from flyball.base import Damaged, InputError, NotPossible
from flyball.base.durable import move_durably
from flyball.episodes.formats.mcap import FUTURE, McapFile, runs
from flyball.episodes.formats.mcap_records import (
    ATTACHMENT,
    CHANNEL,
    CHUNK,
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
    PIECE,
    SCHEMA,
    STATISTICS,
    Attachment,
    Block,
    Broken,
    Channel,
    ChunkHead,
    Definitions,
    Fields,
    Misfit,
    Source,
    Statistics,
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
from flyball.episodes.formats.mcap_writer import McapWriter

KINDS = ("messages", "chunks", "channels", "attachments", "metadata")
MAX_REASONS = 100

_CHUNK = rb"\x06(?=.{5}\0{3}.{21}\0{3}.{4}(?:\x04\0\0\0zstd|\x03\0\0\0lz4|\0\0\0\0))"
_ATTACHMENT = rb"\x09(?=.{5}\0{3}.{18}\0\0)"
_MESSAGE = rb"\x05(?=.{5}\0{3})"
_CERTAIN = re.compile(rb"(?s)" + _CHUNK + b"|" + _ATTACHMENT)
_ANY = re.compile(rb"(?s)" + _CHUNK + b"|" + _ATTACHMENT + b"|" + _MESSAGE)
_REACH = 64  # bytes that these patterns look ahead


@dataclass
class SalvageReport:
    """What salvage found.

    Attributes:
      complaint: what strict reading says of the file.
      sound: it has nothing to complain about.
      complete: nothing is missing, and that is proven: by a checksum or by the file's own statistics.
      recovered: kind of record -> how many; kinds are ``KINDS``.
      discarded: how many at least are lost, by kind; what nothing counts is not in here.
      unverified: how many of the recovered no checksum covers.
      mixed: it holds chunks of another recording than the one that its summary describes.
      withheld: messages that are there, but no checksum vouches for them or for what their channel is;
        ``unverified=True`` gives what can be given.
      reasons: (offset, what was found there), the first hundred.
    """

    complaint: str = ""
    sound: bool = False
    complete: bool = False
    recovered: Counter[str] = field(default_factory=Counter)
    discarded: Counter[str] = field(default_factory=Counter)
    unverified: Counter[str] = field(default_factory=Counter)
    mixed: bool = False
    withheld: int = 0
    reasons: list[tuple[int, str]] = field(default_factory=list)

    def line(self) -> str:
        """The counts as one line."""

        def some(counts: Counter[str]) -> str:
            return (
                ", ".join(f"{counts[k]} {k.removesuffix('s') if counts[k] == 1 else k}" for k in KINDS if counts[k])
                or "nothing"
            )

        lost = f"at least {some(self.discarded)}" if self.discarded.total() else "an unknown number"
        text = f"{some(self.recovered)} recovered, " + ("nothing lost" if self.complete else f"{lost} lost")
        if self.unverified.total():
            text += f"; no checksum covers {some(self.unverified)} of these"
        if self.mixed:
            text += "; they come from two recordings"
        if self.withheld:
            text += f"; {self.withheld} messages were left out because no checksum covers them or their channel"
        return text

    def _note(self, offset: int, text: str) -> None:
        if len(self.reasons) < MAX_REASONS:
            self.reasons.append((offset, text))


class SalvagedMcap:
    """A damaged MCAP file, with the interface of ``McapFile``; a sound one is read as it is.

    Opening reads the file, some times where it is damaged, and knows the report then.

    Args:
      source: the file, or its bytes.
      name: what error messages call it; the path unless given.
      max_chunk_bytes: chunks that claim to be larger are not read.
      unverified: give also what no checksum vouches for, which may be wrong.

    Attributes:
      profile, library, channels, metadata, attachments: as in ``McapFile``, but complete from the start.
      report: what was found.

    Raises:
      Missing: there is no such file.
    """

    def __init__(
        self,
        source: bytes | os.PathLike[str] | str,
        name: str = "",
        *,
        max_chunk_bytes: int = MAX_CHUNK_BYTES,
        unverified: bool = False,
    ) -> None:
        self._source = Source(source, name)
        self.name, self._bound = self._source.name, max_chunk_bytes
        self._strict: McapFile | None = None
        self.report = SalvageReport()
        try:
            file = McapFile(source, self.name, max_chunk_bytes=max_chunk_bytes)
            self.report.recovered["messages"] = sum(len(block) for block in file.blocks())
        except InputError as err:
            self.report = SalvageReport(complaint=err.line())
        else:
            self._strict = file
            self.report.sound = self.report.complete = True
            self.report.recovered["chunks"] = file.chunks
            self.report.unverified["messages"] = file.unchecked
            self._adopt(file)
            return
        self._layout = _Layout(self._source, max_chunk_bytes)
        self._trust, self._doubted, self._unverified = unverified, -1, unverified
        dry = self._dry_run()
        if dry.report.withheld and not unverified and dry.only_stops_early:
            self._trust, self._doubted = True, dry.last_message
            dry = self._dry_run()
        dry.report.complaint, self.report = self.report.complaint, dry.report
        self._adopt(dry)

    def blocks(self) -> Iterator[Block]:
        """Messages as columns, in file order, the same at every call; raises nothing."""
        if self._strict is not None:
            yield from self._strict.blocks()
        else:
            yield from _Pass(self._layout, self._trust, self._doubted, self._unverified).blocks()

    messages = McapFile.messages

    def _dry_run(self) -> _Pass:
        made = _Pass(self._layout, self._trust, self._doubted, self._unverified)
        for _ in made.blocks():
            pass
        return made

    def _adopt(self, found: McapFile | _Pass) -> None:
        self.profile, self.library = found.profile, found.library
        self.channels, self.metadata, self.attachments = found.channels, found.metadata, found.attachments
        counts = (("channels", self.channels), ("metadata", self.metadata), ("attachments", self.attachments))
        self.report.recovered.update({kind: len(things) for kind, things in counts})


@dataclass(frozen=True)
class _Summary:
    """What a summary says whose CRC is right."""

    start: int
    known: Definitions
    statistics: Statistics | None
    chunks: Counter[tuple[int, ...]]  # (record's bytes, start, end, packed, size, codec) of each

    @property
    def lists_chunks(self) -> bool:
        """Whether a chunk that is not listed belongs to another recording."""
        return bool(self.chunks) or (self.statistics is not None and self.statistics.chunks == 0)


@dataclass(frozen=True)
class _Found:
    """Bytes that read as a record; op is GAP for bytes that do not. Ids are good within a segment, see ``_Layout``."""

    op: int
    begin: int
    end: int
    segment: int
    cut_off: bool = False  # of a gap: whether it looks as if the file had simply stopped there


GAP = -1


class _Layout:
    """Where the records of a damaged file lie.

    A segment is a stretch in which every record begins where the one before it ends; its name is its first offset.

    Attributes:
      summary: None when its CRC is wrong or missing.
      connected: the offset from which on everything up to the summary is sound, where the summary alone may say what
        ids mean; past the end for none.
      sound_to: where the data section ends if it is whole and its CRC right, else 0.
      unbroken: whether the file is one segment from its first byte to its closing mark.
    """

    def __init__(self, source: Source, bound: int) -> None:
        self.source, self.bound = source, bound
        self._window = (0, b"")
        self.summary = self._find_summary()
        self.sound_to = 0
        self.connected = source.size
        self.limit = self.summary.start if self.summary else source.size
        crc, last, damage_ends = 0, _Found(GAP, 0, 0, 0), 0
        self.unbroken = self.read(0, 8) == MAGIC
        for last in self.walk(unverified=False):
            self.unbroken &= last.op != GAP
            if last.op == GAP or (last.op == CHUNK and not self._sound(last)):
                damage_ends = last.end
            if last.op == DATA_END and self.unbroken and crc == 0:
                crc = int.from_bytes(self.peek(last.begin + 9, 4), "little")
                self.sound_to = last.begin if crc != 0 and self._crc(0, last.begin) == crc else 0
        if self.summary and last.op != GAP and last.end == self.limit:
            self.connected = damage_ends

    def walk(self, *, unverified: bool) -> Iterator[_Found]:
        """The records in order. Behind a gap the next is a chunk or attachment with the right CRC, or, where that is
        asked for, a message that two more records follow. A gap begins behind the last record that is certain.
        """
        self._budget = 64 * self.source.size + (1 << 30)  # bytes that searches may check, so that they end
        at, segment, op, floor = 8, 8, 0, 0
        certain: _Found | None = None  # the last record whose CRC can tell whether it is what it seems
        while at < self.limit:
            if op == FOOTER and self.peek(at, 9) == MAGIC:
                return
            record = self._record_at(at)
            if record is None:
                sound, begin = at, at + 1
                if certain is not None and (certain.end == at or not unverified):
                    right = self._verified(certain, unverified)
                    sound, begin = (certain.begin, certain.begin + 1) if right == 0 else (right, right)
                found = self._search(max(begin, floor), unverified)
                yield _Found(GAP, sound, self.limit if found is None else found, segment, self._cut_off(at))
                if found is None:
                    return
                at = segment = found
                floor = found + 1  # nothing is found twice
                continue
            op, end = record
            made = _Found(op, at, end, segment)
            if op in (CHUNK, ATTACHMENT):
                certain = made
            yield made
            at = end
            if op == DATA_END and self.summary is None:
                segment = at  # what follows is a summary that cannot be believed, or another file

    # ---- bytes

    def read(self, at: int, n: int) -> bytes:
        """Bytes of the file; zeros for pages that the disk does not give."""
        try:
            return self.source.read(at, n)
        except Broken:
            if n <= 4096:
                return bytes(max(0, min(n, self.source.size - at)))
            cut = (at + n // 2) // 4096 * 4096 - at
            cut = cut if 0 < cut < n else 4096
            return self.read(at, cut) + self.read(at + cut, n - cut)

    def peek(self, at: int, n: int) -> bytes:
        """Like ``read``, for a few bytes here and there."""
        base, piece = self._window
        if not base <= at <= at + n <= base + len(piece):
            base, piece = self._window = at, self.read(at, max(n, 1 << 16))
        return piece[at - base : at - base + n]

    def _crc(self, at: int, stop: int) -> int:
        crc = 0
        while at < stop and (piece := self.read(at, min(PIECE, stop - at))):
            crc, at = zlib.crc32(piece, crc), at + len(piece)
        return crc

    # ---- records

    def fields(self, begin: int, end: int) -> Fields:
        """The fields of a record, in memory."""
        data = self.read(begin + 9, end - begin - 9)
        return Fields(data, 0, len(data))

    def _record_at(self, at: int) -> tuple[int, int] | None:
        """(op, end) of the record at an offset, None when the bytes there do not read as one."""
        head = self.peek(at, 9)
        if len(head) < 9:
            return None
        op, n = record_head(head, 0)
        end = at + 9 + n
        if end > self.limit:
            return None
        try:
            if n > self.bound and op in (SCHEMA, CHANNEL, METADATA, HEADER, STATISTICS):
                return None
            if op == CHUNK:
                self.chunk_head(at, end)
            elif op in (SCHEMA, CHANNEL):
                f = self.fields(at, end)
                f.number(2 if op == SCHEMA else 4)
                f.text()
                f.text()
                f.sub() if op == SCHEMA else f.texts()
            elif op in (METADATA, HEADER):
                f = self.fields(at, end)
                f.text()
                f.texts() if op == METADATA else f.text()
            elif op == ATTACHMENT:
                read_attachment(self.source, at, end)
            elif op == STATISTICS:
                read_statistics(self.fields(at, end))
            elif op == MESSAGE_INDEX:
                entries = int.from_bytes(self.peek(at + 11, 4), "little")
                if entries % 16 or entries + 6 > n:
                    return None
            elif op >= FUTURE:  # nothing is known of it but that something known follows
                following = self.peek(end, 1)
                if following and not 0 < following[0] < FUTURE:
                    return None
            elif (op == MESSAGE and n < 22) or op == 0 or n != {DATA_END: 4, FOOTER: 20}.get(op, n):
                return None
        except (Misfit, Broken):
            return None
        return op, end

    def chunk_head(self, begin: int, end: int) -> ChunkHead:
        """The head of a chunk; its ``at`` and ``stop`` count from ``begin``."""
        return chunk_head(self.peek(begin, 128), 0, end - begin)

    def signature(self, begin: int, end: int) -> tuple[int, ...]:
        """What a chunk index knows of a chunk besides its place."""
        h = self.chunk_head(begin, end)
        codec = CODECS.index(h.codec) if h.codec in CODECS else 255
        return end - begin, h.start_ns, h.end_ns, h.stop - h.at, h.size, codec

    def indexed(self, begin: int, end: int) -> bool:
        """Whether the summary's chunk index knows this chunk."""
        return self.summary is not None and self.signature(begin, end) in self.summary.chunks

    def records_of(self, begin: int, end: int) -> tuple[bytes, int, int]:
        """The records of a chunk as a range of a buffer; ``Misfit`` when they are not sound."""
        head = self.chunk_head(begin, end)
        if head.codec not in CODECS:
            raise Misfit(f"compression {head.codec!r}")
        if max(head.size, end - begin - 256) > self.bound:
            raise Misfit(f"a chunk claims {max(head.size, end - begin)} bytes, allowed are {self.bound}")
        data = self.read(begin, end - begin)
        return unpack(chunk_head(data, 0, len(data)), data, self.bound)

    def _sound(self, chunk: _Found) -> bool:
        """Whether a chunk's CRC is right, or left out."""
        try:
            self.records_of(chunk.begin, chunk.end)
        except Misfit:
            return False
        return True

    def _verified(self, found: _Found, unverified: bool = False) -> int:
        """Where a chunk or attachment ends if it has a CRC, which is right; else 0. Or none, where that is enough."""
        self._budget -= found.end - found.begin
        try:
            if found.op == ATTACHMENT:
                attachment = read_attachment(self.source, found.begin, found.end)
                sound = self._budget >= 0 and check_attachment(attachment)
                return attachment.data_at + attachment.size + 4 if sound else 0
            head = self.chunk_head(found.begin, found.end)
            self._budget -= head.size
            if (head.crc == 0 and not unverified) or self._budget < 0:
                return 0
            self.records_of(found.begin, found.end)
        except (Misfit, Broken):
            return 0
        return found.begin + head.stop  # what its length says beyond that may be wrong

    def _cut_off(self, at: int) -> bool:
        """Whether a record may begin here that the file is too short for."""
        head = self.peek(at, 9)
        op, n = record_head(head, 0) if len(head) == 9 else (MESSAGE, 0)
        return 0 < op < FUTURE and n <= self.bound

    # ---- finding things

    def _search(self, at: int, unverified: bool) -> int | None:
        """The next record that is certain."""
        while at < self.limit:
            piece = self.read(at, min(PIECE, self.limit - at) + _REACH)
            for match in (_ANY if unverified else _CERTAIN).finditer(piece):
                found = at + match.start()
                if found < min(at + PIECE, self.limit) and self._certain(found, unverified):
                    return found
            at += PIECE
        return None

    def _certain(self, at: int, unverified: bool) -> bool:
        record = self._record_at(at)
        if record is None:
            return False
        op, end = record
        if op == CHUNK and self.summary is not None and self.summary.lists_chunks and not self.indexed(at, end):
            return False
        if op in (CHUNK, ATTACHMENT):
            return self._verified(_Found(op, at, end, at)) > 0
        for _ in range(2):
            record = self._record_at(end)
            if not unverified or record is None:
                return False
            end = record[1]
        return True

    def _find_summary(self) -> _Summary | None:
        """The summary, wherever bytes that are missing or inserted have moved it to."""
        tail_at = max(0, self.source.size - (64 << 10))
        tail = self.read(tail_at, 64 << 10)
        mark = struct.pack("<BQ", FOOTER, 20)
        i = tail.rfind(mark)
        if i < 0 or len(tail) < i + 29:
            return None
        said, _, crc = struct.unpack_from("<QQI", tail, i + 9)
        footer = tail_at + i
        if crc == 0:
            return None
        for start in self._starts(footer, said):
            if self._crc(start, footer + 25) == crc:
                return self._read_summary(start, footer)
        return None

    def _starts(self, footer: int, said: int) -> Iterator[int]:
        """Where the summary may begin: where the footer says, then behind whatever looks like the end of the data."""
        if 8 < said < footer:
            yield said
        mark, stop, tries = struct.pack("<BQ", DATA_END, 4), footer, 0
        while stop > max(0, footer - (64 << 20)) and tries < 64:
            at = max(0, stop - PIECE)
            piece = self.read(at, stop - at + 8)
            i = len(piece)
            while (i := piece.rfind(mark, 0, i)) >= 0:
                if at + i + 13 < footer:
                    tries += 1
                    yield at + i + 13
            stop = at

    def _read_summary(self, start: int, footer: int) -> _Summary | None:
        known, statistics, chunks = Definitions(), None, Counter[tuple[int, ...]]()
        try:
            for run in runs(self.source, start, footer):
                for op, begin, end, fields in run.records():
                    fields = fields or self.fields(begin, end)
                    if op in (SCHEMA, CHANNEL):
                        known.define(op, fields, lenient=True)
                    elif op == STATISTICS:
                        statistics = read_statistics(fields)
                    elif op == CHUNK_INDEX:
                        chunks[read_chunk_index(fields)[1:]] += 1
        except (Misfit, Broken):
            return None
        return _Summary(start, known, statistics, chunks)


class _Pass:
    """One reading of a damaged file, from its first byte to its last.

    Args:
      layout: where its records lie.
      trust: believe also what no checksum covers.
      doubted: offset of a message that is not believed even then.
      search: look for messages outside chunks too, where records do not follow each other.
    """

    def __init__(self, layout: _Layout, trust: bool, doubted: int, search: bool) -> None:
        self.layout, self.trust, self.doubted, self.search = layout, trust, doubted, search
        self.report = SalvageReport()
        self.profile = self.library = ""
        self.channels: dict[int, Channel] = {}
        self.metadata: list[tuple[str, dict[str, str]]] = []
        self.attachments: list[Attachment] = []
        self.last_message = -1  # offset of the message that ends where the file breaks off
        self.only_stops_early = False
        self._known = Definitions()
        self._loose = 0  # attachments without a CRC
        self._run: list[int] = []  # begins of adjacent messages outside chunks, and the end of the last
        self._metadata: list[tuple[_Found, tuple[str, dict[str, str]]]] = []
        self._segment = 8
        self._statistics: Statistics | None = None
        self._seen: Counter[tuple[int, ...]] = Counter()  # signature and CRC of chunks
        self._indexed: Counter[str] = Counter()  # what belongs to the recording that the summary describes

    def blocks(self) -> Iterator[Block]:
        gaps, last = 0, None
        for found in self.layout.walk(unverified=self.search):
            if self._run and (found.op != MESSAGE or found.begin != self._run[-1] or len(self._run) > 1 << 12):
                yield from self._messages()
            if found.segment != self._segment:
                self._segment = found.segment
                self._known = self._known if self.trust else Definitions()
            if found.op == GAP:
                gaps += 1
                self.report._note(
                    found.begin, f"records do not follow each other in these {found.end - found.begin} bytes"
                )
                self.only_stops_early = found.cut_off and found.end == self.layout.source.size and gaps == 1
            elif found.op == CHUNK:
                yield from self._chunk(found)
            elif found.op == MESSAGE:
                self._run = self._run or [found.begin]
                self._run.append(found.end)
            else:
                try:
                    self._other(found)
                except (Misfit, Broken) as err:  # the disk gives other bytes than before
                    self.report._note(found.begin, str(err))
            if found.op != GAP:
                last = found
        if last is not None:
            self.only_stops_early |= gaps == 0 and last.op != FOOTER
            self.last_message = last.begin if last.op == MESSAGE else -1
        yield from self._messages()
        self._conclude()

    def _conclude(self) -> None:
        """Compare what was found with what the file says it holds."""
        layout, report = self.layout, self.report
        summary = layout.summary
        said = summary.statistics if summary else self._statistics if layout.unbroken else None
        # Nothing in a metadata record says which recording it belongs to, but where it lies does.
        self.metadata[:] = [
            values
            for found, values in self._metadata
            if self.trust or found.begin >= layout.connected or (found.segment == 8 and not report.mixed)
        ]
        found = self._indexed if summary and summary.chunks else report.recovered
        found = found | Counter(attachments=len(self.attachments), metadata=len(self.metadata))
        lost = Counter({k: getattr(said, k) - found[k] for k in KINDS if k != "channels"} if said else {})
        if summary and summary.chunks:
            lost["chunks"] = summary.chunks.total() - found["chunks"]
        self.only_stops_early &= not report.discarded.total() and summary is None
        report.discarded["attachments"] += self._loose
        report.discarded |= +lost
        if not layout.sound_to and self.metadata:
            report.unverified["metadata"] = len(self.metadata)
        whole = layout.sound_to > 0 or (layout.unbroken and said is not None and not -lost)
        report.complete = whole and not report.discarded.total() and not report.withheld

    def _other(self, found: _Found) -> None:
        layout = self.layout
        if found.op in (SCHEMA, CHANNEL):
            self._define_bare(found)
        elif found.op == HEADER and found.begin == 8:
            fields = layout.fields(found.begin, found.end)
            self.profile, self.library = fields.text(), fields.text()
        elif found.op == METADATA:
            fields = layout.fields(found.begin, found.end)
            self._metadata.append((found, (fields.text(), fields.texts())))
        elif found.op == STATISTICS:
            self._statistics = read_statistics(layout.fields(found.begin, found.end))
        elif found.op == ATTACHMENT:
            attachment = read_attachment(layout.source, found.begin, found.end)
            try:
                checked = check_attachment(attachment) or found.begin < layout.sound_to
            except Broken as err:
                self._lose("attachments", found, err.what)
                return
            if not checked and not self.trust:
                self._loose += 1
                self.report._note(found.begin, "an attachment without a CRC")
                return
            self.report.unverified["attachments"] += not checked
            self.attachments.append(attachment)

    def _lose(self, kind: str, found: _Found, why: str) -> None:
        self.report.discarded[kind] += 1
        self.report._note(found.begin, why)

    # ---- messages

    def _define_bare(self, found: _Found) -> None:
        """A schema or channel outside chunks: believed if something with a checksum says the same."""
        layout, trial = self.layout, Definitions(dict(self._known.schemas), {})
        try:
            channel = trial.define(found.op, layout.fields(found.begin, found.end), lenient=True)
        except Misfit as err:
            self.report._note(found.begin, str(err))
            return
        said = layout.summary.known if layout.summary else Definitions()
        same = found.op == SCHEMA or (channel is not None and said.channels.get(channel.id) == channel)
        if found.begin < layout.sound_to or self.trust or same:
            self._known.schemas.update(trial.schemas)
            if channel is not None and self._known.channels.setdefault(channel.id, channel) != channel:
                self.report._note(found.begin, f"channel {channel.id} is defined twice, differently")

    def _messages(self) -> Iterator[Block]:
        """The run of messages outside chunks that was found."""
        if not self._run:
            return
        at, stop = np.array(self._run[:-1], np.int64), np.array(self._run[1:], np.int64)
        self._run = []
        checked = int(at[-1]) < self.layout.sound_to
        if not (checked or self.trust):
            self.report.withheld += len(at)
            return
        base = int(at[0])
        believed = at != self.doubted
        data = self.layout.read(base, int(stop[-1]) - base)
        block = message_block(data, at[believed] - base, stop[believed] - base)
        self.report.withheld += int((~believed).sum())
        yield from self._given(block, base, False, checked)

    def _chunk(self, found: _Found) -> Iterator[Block]:
        layout = self.layout
        begin, end = found.begin, found.end
        try:
            records = layout.records_of(begin, end)
        except Misfit as err:
            self._lose("chunks", found, str(err))
            self._known = self._known if self.trust else Definitions()
            return
        known, indexed = bool(layout.summary and layout.summary.lists_chunks), layout.indexed(begin, end)
        head = layout.chunk_head(begin, end)
        checked = head.crc != 0 or begin < layout.sound_to
        mark = (*layout.signature(begin, end), head.crc)
        self._seen[mark] += 1
        if self._seen[mark] > max(1, layout.summary.chunks[mark[:-1]] if layout.summary else 1):
            self._lose("chunks", found, "a chunk that was there before")
            return
        # Before the recording that the summary describes there may be one whose own summary is lost.
        elsewhere = found.segment != 8 or begin >= layout.connected or self._indexed["chunks"] > 0
        if known and not indexed and elsewhere and not self.trust:
            self._lose("chunks", found, "a chunk of another recording")
            return
        local: list[tuple[int, Fields]] = []
        try:
            if not checked and not self.trust:
                self.report.withheld += sum(len(b) for b in chunk_blocks(*records, lambda op, fields: None))
                return

            def take(op: int, fields: Fields) -> None:
                if op in (SCHEMA, CHANNEL):
                    local.append((op, fields))
                    self._define(local)

            for block in chunk_blocks(*records, take):
                yield from self._given(block, begin, indexed, checked)
        except Misfit as err:
            self._lose("chunks", found, str(err))
            return
        self.report.mixed |= known and not indexed and checked
        self.report.recovered["chunks"] += 1
        self._indexed["chunks"] += indexed

    def _define(self, local: list[tuple[int, Fields]]) -> None:
        """Take the last of a chunk's definitions. One that contradicts an earlier chunk begins another recording."""
        try:
            self._known.define(local[-1][0], replace(local[-1][1]), lenient=True)
        except Misfit:
            self._known = Definitions()
            for op, fields in local:
                self._known.define(op, replace(fields), lenient=True)

    def _given(self, block: Block, begin: int, indexed: bool, checked: bool) -> Iterator[Block]:
        """The messages of a block whose channels are known, under the ids that they have in ``channels``."""
        ids, where = np.unique(block.channel, return_inverse=True)
        out = np.array([self._id(self._channel(int(i), begin, indexed)) for i in ids], np.int64)[where]
        keep = out >= 0
        n = int(keep.sum())
        if self.trust:
            self.report.discarded["messages"] += len(block) - n
        else:
            self.report.withheld += len(block) - n
        if n:
            self.report.recovered["messages"] += n
            self._indexed["messages"] += n if indexed else 0
            self.report.unverified["messages"] += 0 if checked else n
            yield replace(block.where(keep), channel=out[keep].astype(np.uint16))

    def _channel(self, i: int, begin: int, indexed: bool) -> Channel | None:
        """The channel that an id means in a chunk, None when that is not certain."""
        summary, known = self.layout.summary, self._known.channels.get(i)
        if summary is None or not (indexed or (not summary.chunks and begin >= self.layout.connected)):
            return known
        said = summary.known.channels.get(i)
        if said is None or known is None:
            return said or known
        return said if said == known else None  # two recordings, cut where a record ends

    def _id(self, channel: Channel | None) -> int:
        """The id of a channel in ``channels``: its own, or another where two recordings use the same for two things."""
        if channel is None:
            return -1
        if self.channels.setdefault(channel.id, channel) == channel:
            return channel.id
        for i, c in self.channels.items():
            if replace(c, id=channel.id) == channel:
                return i
        i = next((i for i in range(1, 1 << 16) if i not in self.channels), -1)
        if i > 0:
            self.channels[i] = replace(channel, id=i)
        return i


def write_salvaged(file: SalvagedMcap, out: Path) -> None:
    """Write what was salvaged as a sound new file: complete and on disk when this returns.

    Args:
      file: what was salvaged.
      out: the file to make.

    Raises:
      InputError: it exists already.
      NotPossible: the disk is full, or the folder cannot be written.
    """
    if out.exists():
        raise InputError("exists already", where=str(out), allowed="the name of a new file")
    part = out.with_name(out.name + ".part")
    try:
        with open(part, "wb") as f:
            writer = McapWriter(f, profile=file.profile, library="flyball salvage")
            for name, values in file.metadata:
                writer.metadata(name, values)
            for block in file.blocks():
                writer.write(block, file.channels)
            for attachment in file.attachments:
                writer.attach(attachment)
            writer.close()
            f.flush()
            os.fsync(f.fileno())
        written = sum(len(block) for block in McapFile(part).blocks())
        if written != file.report.recovered["messages"]:
            raise Damaged(f"{written} messages written, {file.report.recovered['messages']} salvaged", where=str(part))
        move_durably(part, out)
    except OSError as err:
        raise NotPossible(f"cannot be written ({err.strerror})", where=str(out)) from err
    finally:
        part.unlink(missing_ok=True)
