"""PX4 flight logs (ULog) as episodes.

In: a ``.ulg`` file. Out: one ``Episode``. The rules:

- A topic's field is a signal ``topic.field``, of a second instance ``topic[1].field``; arrays stay arrays, a struct in
  an array is ``topic.esc[3].rpm``. Time is that of the topic, since boot, from microseconds.
- Texts (char arrays) that never change are labels, others are events when they change. Logged messages are events named
  after their level (``log.warning``), parameters changed in flight ``parameter.NAME``, losses ``dropout``.
- Information is a label, and so is each initial parameter (``parameter.NAME``).
- The file has no checksums: what breaks its structure is refused (with ``salvage`` skipped up to the next
  synchronisation mark), a changed value within a message cannot be told. Nor can a cut between two messages.

The file is read in pieces; ``pyulog``, which holds a log in memory and reads on past damage, is what the tests compare
with. Format: docs.px4.io, "ULog File Format", version 1.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, SignalSpec, Timed, Unsupported
from flyball.episodes.episode import Episode, Event
from flyball.episodes.formats.clocks import forwards, rate_hz
from flyball.episodes.intake import Column, Intake, release

MAGIC = b"ULog\x01\x12\x35"
SYNC = bytes([0x2F, 0x73, 0x13, 0x20, 0x25, 0x0C, 0xBB, 0x12])
PIECE = 4 << 20  # bytes of the file whose messages are decoded together
MAX_FIELDS, MAX_DEPTH = 4096, 16
MAX_EVENTS = 100_000
MAX_NAMES = 20_000  # labels, formats and columns of one log: real ones have about 2,000
MAX_NS = 2**63 - 1

_TYPES = {
    "int8_t": "<i1", "uint8_t": "<u1", "int16_t": "<i2", "uint16_t": "<u2", "int32_t": "<i4", "uint32_t": "<u4",
    "int64_t": "<i8", "uint64_t": "<u8", "float": "<f4", "double": "<f8", "bool": "|b1", "char": "|S1",
}  # fmt: skip
_LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")

Field = tuple[str, str, int]
"""(type, name, elements): 0 for a single value."""


class ULog:
    """The log format ``ulog``."""

    suffixes = (".ulg",)

    def claims(self, folder: Path) -> bool:
        """See ``LogFormat.claims``."""
        return False

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """See ``LogFormat.read``."""
        with open(path, "rb") as file:
            yield _Reader(file, path, intake).episode()


FORMAT = ULog()


@dataclass
class _Topic:
    """A subscription: what one message id stands for."""

    name: str
    dtype: np.dtype[Any]
    most: int  # bytes of a message with the padding at its end, which may be missing
    time: Column
    columns: dict[str, Column]
    waiting: list[bytes] = field(default_factory=list)
    last_us: int = 0


class _Reader:
    """One log on its way to an episode."""

    def __init__(self, file: BinaryIO, path: Path, intake: Intake) -> None:
        self.file, self.path, self.intake = file, path, intake
        self.size = file.seek(0, 2)
        self.formats: dict[str, list[Field]] = {}
        self.topics: dict[int, _Topic] = {}
        self.named: dict[str, _Topic] = {}
        self.labels: dict[str, Any] = {"file": path.stem}
        self.events: list[Event] = []
        self.more_events = 0
        self.multiple: dict[str, int] = {}
        self.appended: list[int] = []
        self.start_us = 0
        self.latest: _Topic | None = None
        self.lost_ms = 0
        self.losses = 0

    def episode(self) -> Episode:
        self.file.seek(0)
        head = self.file.read(16)
        if len(head) < 16 or head[:7] != MAGIC:
            raise Damaged("not a ULog (wrong first bytes)", where=str(self.path))
        if head[7] > 1:
            self.intake.note("skipped", f"{self.path}: version {head[7]} of the format, read as version 1")
        self.start_us = int.from_bytes(head[8:], "little")
        at = 16
        while at < self.size:
            at = self._piece(at)
        for topic in self.named.values():
            self._flush(topic)
        if self.losses:
            self.intake.note("skipped", f"{self.path}: {self.losses} dropouts of {self.lost_ms} ms together, "
                             "lost while recording")  # fmt: skip
        if self.more_events:
            self.intake.note("skipped", f"{self.path}: {self.more_events} events beyond the first {MAX_EVENTS}")
        for name, count in sorted(self.multiple.items()):
            self.intake.note("unmapped", f"{name}: information in {count} parts")
        signals = self._signals()
        if not signals and not self.events:
            raise InputError("holds no messages", where=str(self.path))
        folder = self.path.absolute().parent.name
        embodiment = str(self.labels.get("sys_name") or ("unknown" if folder == "inbox" else folder))
        return Episode(
            embodiment=embodiment,
            robot=str(self.labels.get("sys_uuid", "")),
            signals=signals,
            events=tuple(sorted(self.events, key=lambda e: e.t_ns)),
            labels=self.labels,
        )

    def _piece(self, at: int) -> int:
        """Decode the messages that lie whole in the next piece; returns where the first other one begins."""
        end = min([b for b in self.appended if b > at], default=self.size)
        self.file.seek(at)
        data = self.file.read(min(PIECE, end - at))
        offset = 0
        while offset + 3 <= len(data):
            size, kind = data[offset] | data[offset + 1] << 8, data[offset + 2]
            begin = offset + 3
            if begin + size > len(data):
                break
            if kind == 68 and size >= 2:  # D, nearly all of them
                topic = self.topics.get(data[begin] | data[begin + 1] << 8)
                if topic is not None and topic.dtype.itemsize <= size - 2 <= topic.most:
                    topic.waiting.append(data[begin + 2 : begin + 2 + topic.dtype.itemsize])
                    self.latest = topic
                    offset = begin + size
                    continue
            try:
                self._message(chr(kind), data[begin : begin + size])
            except (Damaged, ValueError, IndexError, struct.error) as err:
                what = err.what if isinstance(err, Damaged) else f"not a sound message of type {chr(kind)!r}"
                return self._broken(at + offset, what)
            offset = begin + size
            if kind == 66:  # flags say where the piece must end
                break
        for topic in self.topics.values():
            self._flush(topic)
        if offset or at == end:
            return at + offset  # a message that the piece cuts is read again, whole
        if end < self.size:
            self.intake.note("skipped", f"{self.path}: {end - at} bytes of an unfinished message before appended data")
            return end
        return self._broken(at, f"ends within a message, {end - at} bytes of it are there")

    def _broken(self, at: int, what: str) -> int:
        if not self.intake.salvage:
            raise Damaged(f"offset {at}: {what}", where=str(self.path), run_next="--salvage keeps what is sound")
        begin, tail = at + 1, b""
        self.file.seek(begin)
        while data := self.file.read(PIECE):
            if (found := (tail + data).find(SYNC)) >= 0:
                resume = begin - len(tail) + found + len(SYNC)
                break
            begin += len(data)
            tail = (tail + data)[-len(SYNC) + 1 :]
        else:
            resume = self.size
        self.intake.note("salvaged", f"{self.path}: offset {at}: {what}; left out up to offset {resume}")
        return resume

    def _message(self, kind: str, data: bytes) -> None:
        """One message other than sound data."""
        if kind == "D":
            raise Damaged(self._why_not(data))
        if kind == "B":
            if any(data[9:16]) or data[8] & ~1:
                raise Unsupported("incompatible flags", where=str(self.path))
            if data[8] & 1:
                self.appended = sorted(a for a in struct.unpack_from("<3Q", data, 16) if 0 < a < self.size)
        elif kind == "F":
            name, colon, text = data.decode().partition(":")
            if not colon:
                raise Damaged(f"cannot read the format {name!r}")
            if len(self.formats) >= MAX_NAMES:
                raise Damaged(f"more than {MAX_NAMES} formats")
            self.formats[name] = [_field(part) for part in text.split(";") if part]
        elif kind == "A":
            self._subscribe(data[0], data[1] | data[2] << 8, data[3:].decode())
        elif kind == "R":
            self.topics.pop(data[0] | data[1] << 8, None)
        elif kind == "I":
            key, value = _value(data)
            self._label(key, value)
        elif kind == "M":
            key, _ = _value(data[1:])
            if key in self.multiple or len(self.multiple) < MAX_NAMES:
                self.multiple[key] = self.multiple.get(key, 0) + 1
        elif kind == "P":
            key, value = _value(data)
            if self.latest:
                self._event(self._now_us(), f"parameter.{key}", str(value))
            else:
                self._label(f"parameter.{key}", value)
        elif kind in "LC":
            begin = 1 if kind == "L" else 3  # C has a tag of two bytes before the time
            (t_us,) = struct.unpack_from("<Q", data, begin)
            level = _LEVELS[data[0] - 48] if 48 <= data[0] < 56 else f"level{data[0]}"
            self._event(t_us, f"log.{level}", data[begin + 8 :].decode(errors="replace"))
        elif kind == "O":
            (lost,) = struct.unpack("<H", data)
            self.losses, self.lost_ms = self.losses + 1, self.lost_ms + lost
            self._event(self._now_us(), "dropout", f"{lost} ms")
        elif kind == "S":
            if data != SYNC:
                raise Damaged("a synchronisation mark that is none")
        elif kind == "Q":
            _value(data[1:])
        elif kind.isascii() and kind.isupper():
            self.intake.note("skipped", f"{self.path}: messages of the unknown type {kind!r}")
        else:
            raise Damaged(f"no message begins with the type {ord(kind)}")

    def _why_not(self, data: bytes) -> str:
        if len(data) < 2:
            return "data without a message id"
        number = data[0] | data[1] << 8
        topic = self.topics.get(number)
        if topic is None:
            return f"data with the message id {number}, which nothing announced"
        return f"{len(data) - 2} bytes of data for {topic.name}, which has {topic.dtype.itemsize}"

    def _subscribe(self, multi: int, number: int, name: str) -> None:
        leaves: list[tuple[str, Any]] = []
        self._leaves(name, "", leaves, 0)
        most = np.dtype(leaves).itemsize
        while leaves and leaves[-1][0].startswith("_padding"):
            leaves.pop()
        if "timestamp" not in dict(leaves) or dict(leaves)["timestamp"] != "<u8":
            raise Damaged(f"the format of {name} has no timestamp of type uint64_t")
        full = name if not multi else f"{name}[{multi}]"
        dtype = np.dtype(leaves)
        topic = self.named.get(full)
        if topic is not None and topic.dtype != dtype:
            raise Damaged(f"{full} is announced twice, with different formats")
        if topic is None:
            columns = {
                leaf: self.intake.column(np.dtype(kind).base, np.dtype(kind).shape)
                for leaf, kind in leaves
                if leaf != "timestamp" and not leaf.rpartition(".")[2].startswith("_padding")
            }
            if sum(len(t.columns) for t in self.named.values()) + len(columns) > MAX_NAMES:
                raise Damaged(f"more than {MAX_NAMES} fields in all topics together")
            topic = _Topic(full, dtype, most, self.intake.column(np.int64), columns)
            self.named[full] = topic
        self.topics[number] = topic

    def _leaves(self, name: str, prefix: str, into: list[tuple[str, Any]], depth: int) -> None:
        """Fields of a format, those of the formats within it with a prefix."""
        if name not in self.formats:
            raise Damaged(f"the format {name!r} is used and not defined")
        if depth > MAX_DEPTH:
            raise Damaged(f"formats within formats, more than {MAX_DEPTH} deep")
        for kind, label, elements in self.formats[name]:
            path = prefix + label
            if kind == "char" and elements:
                into.append((path, f"|S{elements}"))
            elif kind in _TYPES:
                into.append((path, np.dtype((_TYPES[kind], (elements,))) if elements else _TYPES[kind]))
            else:
                for i in range(elements or 1):
                    self._leaves(kind, f"{path}[{i}]." if elements else f"{path}.", into, depth + 1)
            if len(into) > MAX_FIELDS:
                raise Damaged(f"more than {MAX_FIELDS} fields")

    def _flush(self, topic: _Topic) -> None:
        """Move the messages of a topic that wait into its columns."""
        if not topic.waiting:
            return
        rows = np.frombuffer(b"".join(topic.waiting), topic.dtype)
        topic.waiting = []
        t_us = rows["timestamp"]
        topic.last_us = int(t_us[-1])
        if int(t_us.max()) > MAX_NS // 1000:
            raise Damaged(f"{topic.name}: a time stamp of {int(t_us.max())} us", where=str(self.path))
        topic.time.append(t_us.astype(np.int64) * 1000)
        for name, column in topic.columns.items():
            column.append(rows[name])

    def _now_us(self) -> int:
        """Time of the latest data [us]; that of the log's start before there is any."""
        if self.latest is None:
            return self.start_us
        if not self.latest.waiting:
            return int(self.latest.last_us)
        return int(np.frombuffer(self.latest.waiting[-1], self.latest.dtype)["timestamp"][0])

    def _label(self, name: str, value: Any) -> None:
        if len(self.labels) >= MAX_NAMES:
            raise Damaged(f"more than {MAX_NAMES} pieces of information and parameters")
        self.labels[name] = value

    def _event(self, t_us: int, name: str, text: str) -> None:
        if t_us > MAX_NS // 1000:
            raise Damaged(f"a time stamp of {t_us} us")
        if len(self.events) < MAX_EVENTS:
            self.events.append(Event(t_us * 1000, name, text.rstrip("\0\n")))
        else:
            self.more_events += 1

    def _signals(self) -> dict[str, Timed]:
        found: dict[str, Timed] = {}
        for topic in sorted(self.named.values(), key=lambda t: t.name):
            t_ns = topic.time.array()
            if not len(t_ns):
                continue
            t_ns, order = forwards(self.intake, topic.name, t_ns, "messages run backwards in time")
            t_ns = t_ns if order is None else t_ns[order]
            rate = rate_hz(t_ns)
            for leaf, column in topic.columns.items():
                name, values = f"{topic.name}.{leaf}", column.ordered(order)
                if values.dtype.kind == "S":
                    self._texts(name, t_ns, values)
                elif values[:1].size:
                    found[name] = Timed(
                        SignalSpec(name, values.shape[1:], values.dtype.name, rate_hz=rate), t_ns, values
                    )
        return found

    def _texts(self, name: str, t_ns: NDArray[np.int64], values: NDArray[np.bytes_]) -> None:
        said: list[tuple[int, bytes]] = []
        for at in range(0, len(values), PIECE // 8):
            part = values[at : at + PIECE // 8]
            changes = np.flatnonzero(
                np.concatenate([np.array([not said or part[0] != said[-1][1]]), part[1:] != part[:-1]])
            )
            said += [(at + i, bytes(part[i])) for i in changes.tolist()[: MAX_EVENTS + 1 - len(said)]]
            release(values)
        texts = [text.split(b"\0")[0].decode(errors="replace") for _, text in said]
        if len(said) == 1:
            if texts[0]:
                self.labels[name] = texts[0]
            return
        for (i, _), text in zip(said, texts, strict=True):
            self._event(int(t_ns[i]) // 1000, name, text)


def _field(text: str) -> Field:
    """``float[3] position`` as a field."""
    kind, _, name = text.strip().partition(" ")
    kind, bracket, count = kind.partition("[")
    elements = int(count.removesuffix("]")) if bracket else 0
    if not name or (bracket and not 0 < elements <= 0xFFFF):
        raise Damaged(f"cannot read the field {text!r}")
    return kind, name, elements


def _value(data: bytes) -> tuple[str, Any]:
    """(name, value) of information or a parameter."""
    length = data[0]
    kind, _, name = data[1 : 1 + length].decode().partition(" ")
    raw = data[1 + length :]
    if len(data) < 1 + length or not name:
        raise Damaged("information without a name")
    if kind.startswith("char["):
        return name, raw.split(b"\0")[0].decode(errors="replace")
    kind, _, elements = _field(f"{kind} {name}")
    if kind not in _TYPES or kind == "char":
        raise Damaged(f"information of type {kind!r}")
    values = np.frombuffer(raw, _TYPES[kind])
    if len(values) != (elements or 1):
        raise Damaged(f"information {name!r} of {len(raw)} bytes")
    value = values.tolist()
    return name, value if elements else value[0]
