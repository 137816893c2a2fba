"""TFRecord files and the messages in them (tf.train.Example, tf.train.SequenceExample), without TensorFlow.

In: a file. Out: its records, each with its checksum verified, as spans of the file; and of each record the features,
decoded when asked for. Memory is bounded by the largest value that is asked for, not by a record.

Formats: TFRecord (tensorflow.org/tutorials/load_data/tfrecord): length (u64), masked CRC-32C of the length, data,
masked CRC-32C of the data. Example (tensorflow/core/example/{example,feature}.proto) in protobuf's wire format.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged
from flyball.episodes.intake import Intake

_PIECE = 1 << 20  # bytes of which a checksum is computed at once
_LANE = 64  # bytes that are walked one after the other, side by side with those of all other lanes
_POLYNOMIAL = 0x82F63B78  # CRC-32C (Castagnoli), reflected
_READ_AHEAD = 64 << 10


def crc32c(data: bytes | memoryview, crc: int = 0) -> int:
    """CRC-32C of bytes, going on from ``crc``: lanes are walked side by side by numpy, then joined two by two."""
    array = np.frombuffer(data, np.uint8)
    for at in range(0, len(array), _PIECE):
        crc = _piece(array[at : at + _PIECE], crc ^ 0xFFFFFFFF) ^ 0xFFFFFFFF
    return crc


def _piece(data: NDArray[np.uint8], crc: int) -> int:
    single, double, joins = _tables()
    if len(data) < 16:
        for byte in data.tolist():
            crc = int(single[(crc ^ byte) & 0xFF]) ^ crc >> 8
        return crc
    lanes = 1 << (-(-len(data) // _LANE) - 1).bit_length()
    padded = np.zeros(lanes * _LANE, np.uint8)  # zeros before a message change nothing once the start is folded in
    message = padded[len(padded) - len(data) :]
    message[:] = data
    message[:4] ^= np.frombuffer(crc.to_bytes(4, "little"), np.uint8)
    words = np.ascontiguousarray(padded.view("<u2").reshape(lanes, -1).T)
    state = np.zeros(lanes, np.uint32)
    for i in range(0, len(words), 4):
        low, high = words[i] ^ (state & 0xFFFF), words[i + 1] ^ (state >> 16)
        state = double[3][low] ^ double[2][high] ^ double[1][words[i + 2]] ^ double[0][words[i + 3]]
    for join in joins:
        if len(state) == 1:
            break
        left = np.ascontiguousarray(state[0::2]).view(np.uint8).reshape(-1, 4)
        state = join[0][left[:, 0]] ^ join[1][left[:, 1]] ^ join[2][left[:, 2]] ^ join[3][left[:, 3]] ^ state[1::2]
    return int(state[0])


@cache
def _tables() -> tuple[NDArray[np.uint32], list[NDArray[np.uint32]], list[NDArray[np.uint32]]]:
    """Effect of one byte; of two bytes with 0, 2, 4, 6 zero bytes behind; of 64, 128, ... zero bytes on a checksum."""
    single: NDArray[np.uint32] = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        single = ((single >> 1) ^ (single & 1) * np.uint32(_POLYNOMIAL)).astype(np.uint32)

    def zero_byte(state: NDArray[np.uint32]) -> NDArray[np.uint32]:
        return single[state & 0xFF] ^ (state >> 8)

    double = [zero_byte(zero_byte(np.arange(1 << 16, dtype=np.uint32)))]
    for _ in range(3):
        double.append(zero_byte(zero_byte(double[-1])))
    values = np.arange(256, dtype=np.uint32)
    join = np.stack([values << 8 * k for k in range(4)])
    for _ in range(_LANE):
        join = zero_byte(join)
    joins = [join]
    for _ in range((_PIECE // _LANE).bit_length() - 2):
        b = np.ascontiguousarray(joins[-1]).view(np.uint8).reshape(4, 256, 4)
        joins.append(np.bitwise_xor.reduce([joins[-1][k][b[:, :, k]] for k in range(4)]))
    return single, double, joins


def masked(crc: int) -> int:
    """A checksum as TFRecord stores it: rotated, and a constant added, for it may be part of checked data itself."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


@dataclass
class Span:
    """A stretch of a file.

    Attributes:
      file: open for reading.
      name: of the file, for messages.
      start, stop: offsets in it.
    """

    file: BinaryIO
    name: str
    start: int
    stop: int
    _at: int = 0
    _ahead: bytes = b""

    def read(self, at: int, n: int) -> bytes:
        """n bytes from offset ``at`` of the file.

        Raises:
          Damaged: they would lie outside of the span.
        """
        if n < 0 or at < self.start or at + n > self.stop:
            raise self.damaged(at, "a value reaches beyond its record")
        if not (self._at <= at and at + n <= self._at + len(self._ahead)):
            self._ahead = _exactly(self, at, min(max(n, _READ_AHEAD), self.stop - at))
            self._at = at
        return self._ahead[at - self._at : at - self._at + n]

    def damaged(self, at: int, what: str) -> Damaged:
        """The error to raise for what was found at an offset."""
        return Damaged(f"offset {at}: {what} (record at offset {self.start})", where=self.name)


def _exactly(span: Span, at: int, n: int) -> bytes:
    data = os.pread(span.file.fileno(), n, at)
    if len(data) != n:
        raise Damaged(f"offset {at}: the file became shorter while it was read", where=span.name)
    return data


def records(file: BinaryIO, name: str, intake: Intake) -> Iterator[Span]:
    """The records of a file whose checksums hold, in order.

    Damage is refused, or with ``intake.salvage`` skipped with a note, up to the next record whose length is sound.

    Args:
      file: open for reading.
      name: of the file, for messages.
      intake: where to report.

    Raises:
      Damaged: a checksum does not hold, or the file ends within a record.
    """
    at, end = 0, file.seek(0, 2)
    while at < end:
        complaint, following = "", end
        whole = Span(file, name, at, end)
        if at + 12 > end:
            complaint = f"ends within the head of a record, {end - at} of 12 bytes"
        else:
            head = whole.read(at, 12)
            length = int.from_bytes(head[:8], "little")
            if masked(crc32c(head[:8])) != int.from_bytes(head[8:], "little"):
                complaint = "the checksum of a record's length does not hold"
            elif at + 16 + length > end:
                complaint = f"ends within a record of {length} bytes, {end - at - 12} of them are there"
            else:
                following = at + 16 + length
                crc = 0
                for begin in range(at + 12, at + 12 + length, _PIECE):
                    crc = crc32c(_exactly(whole, begin, min(_PIECE, at + 12 + length - begin)), crc)
                if masked(crc) != int.from_bytes(whole.read(at + 12 + length, 4), "little"):
                    complaint = f"the checksum of a record of {length} bytes does not hold"
        if not complaint:
            yield Span(file, name, at + 12, at + 12 + length)
        elif not intake.salvage:
            raise Damaged(
                f"offset {at}: {complaint}", where=name, run_next="--salvage keeps the records that are sound"
            )
        else:
            if following == end and at + 12 < end:
                following = _next_head(whole, at + 1)
            intake.note("salvaged", f"{name}: offset {at}: {complaint}; left out up to offset {following}")
        at = following


def _next_head(span: Span, at: int) -> int:
    """Offset of the next place where a length, its checksum and the size of the file agree; the end if none."""
    single, _, _ = _tables()
    while at + 12 <= span.stop:
        data = np.frombuffer(_exactly(span, at, min(_PIECE, span.stop - at)), np.uint8)
        n = len(data) - 11
        state = np.full(n, 0xFFFFFFFF, np.uint32)
        for k in range(8):
            state = single[(state ^ data[k : k + n]) & 0xFF] ^ (state >> 8)
        state ^= np.uint32(0xFFFFFFFF)
        wanted = ((state >> 15) | (state << 17)) + np.uint32(0xA282EAD8)
        stored = sum(data[8 + k : 8 + k + n].astype(np.uint32) << 8 * k for k in range(4))
        for i in np.flatnonzero(wanted == stored).tolist():
            if at + i + 16 + int.from_bytes(data[i : i + 8].tobytes(), "little") <= span.stop:
                return at + i
        at += n
    return span.stop


@dataclass
class Feature:
    """A feature of an example: a list of byte strings, of float32, or of int64.

    Attributes:
      span: the record that it lies in.
      kind: ``bytes``, ``float`` or ``int``; "" when it is empty.
      parts: where its values lie: one (start, stop) for each byte string, or for each stretch of numbers.
      packed: of each stretch of numbers: whether it holds any number of them, or one by itself.
      rows: number of values of each ``Feature`` of a feature list (SequenceExample); empty else.
    """

    span: Span
    kind: str = ""
    parts: list[tuple[int, int]] = field(default_factory=list)
    packed: bool = True
    rows: list[int] = field(default_factory=list)

    def blobs(self) -> Iterator[bytes]:
        """The byte strings, one by one."""
        for start, stop in self.parts:
            yield self.span.read(start, stop - start)

    def numbers(self) -> NDArray[np.float32] | NDArray[np.int64]:
        """The numbers, shape (n,).

        Raises:
          Damaged: a stretch holds no whole number of them.
        """
        if self.kind == "float":
            raw = b"".join(self.span.read(a, b - a) for a, b in self.parts)
            if len(raw) % 4:
                raise self.span.damaged(self.parts[0][0], f"{len(raw)} bytes are no whole number of float32")
            return np.frombuffer(raw, "<f4").astype(np.float32)
        raw = b"".join(self.span.read(a, b - a) for a, b in self.parts)
        return self._integers(np.frombuffer(raw, np.uint8))

    def _integers(self, raw: NDArray[np.uint8]) -> NDArray[np.int64]:
        last = np.flatnonzero(raw < 128)
        begin = np.concatenate([np.zeros(1, np.int64), last[:-1] + 1])[: len(last)]
        sizes = last - begin + 1
        if (len(raw) and not (len(last) and last[-1] == len(raw) - 1)) or (sizes > 10).any():
            raise self.span.damaged(self.parts[0][0], "not a list of whole numbers")
        values = np.zeros(len(last), np.uint64)
        for k in range(int(sizes.max(initial=0))):
            there = sizes > k
            values[there] |= (raw[begin[there] + k] & 0x7F).astype(np.uint64) << np.uint64(7 * k)
        return values.view(np.int64)


_KINDS = {1: "bytes", 2: "float", 3: "int"}


def example(span: Span) -> dict[str, Feature]:
    """The features of a record: of an ``Example``, or the context and the feature lists of a ``SequenceExample``.

    Raises:
      Damaged: not such a message.
    """
    found: dict[str, Feature] = {}
    for number, _, start, stop in _fields(span, span.start, span.stop):
        if number not in (1, 2):
            raise span.damaged(start, f"neither an Example nor a SequenceExample (field {number})")
        for entry, _, a, b in _fields(span, start, stop):
            if entry != 1:
                raise span.damaged(a, f"not a map of features (field {entry})")
            name, value = "", (a, a)
            for key, _, c, d in _fields(span, a, b):
                if key == 1:
                    try:
                        name = span.read(c, d - c).decode()
                    except UnicodeDecodeError as err:
                        raise span.damaged(c, "the name of a feature is not text") from err
                elif key == 2:
                    value = (c, d)
            feature = Feature(span)
            if number == 1:
                _fill(feature, *value)
            else:
                for _, _, c, d in _fields(span, *value):
                    before = len(feature.parts)
                    _fill(feature, c, d)
                    alone = feature.kind == "bytes" or not feature.packed
                    feature.rows.append(len(feature.parts) - before if alone else _count(feature, before))
            found[name] = feature
    return found


def _count(feature: Feature, before: int) -> int:
    return len(Feature(feature.span, feature.kind, feature.parts[before:]).numbers()) if feature.parts[before:] else 0


def _fill(feature: Feature, start: int, stop: int) -> None:
    """Add the values of one ``Feature`` message."""
    span = feature.span
    for number, _, a, b in _fields(span, start, stop):
        kind = _KINDS.get(number, "")
        if not kind or (feature.kind and feature.kind != kind):
            raise span.damaged(a, "a feature that is not one list of bytes, floats or integers")
        feature.kind = kind
        for _, wire, c, d in _fields(span, a, b):
            if wire != 2:
                if wire != {"float": 5, "int": 0}.get(kind):
                    raise span.damaged(c, f"a value that is no {kind}")
                feature.packed = False
            feature.parts.append((c, d))


def _fields(span: Span, at: int, stop: int) -> Iterator[tuple[int, int, int, int]]:
    """(number, wire type, start, stop) of each field of a message."""
    while at < stop:
        tag, at = _varint(span, at)
        wire = tag & 7
        if wire == 2:
            length, at = _varint(span, at)
        elif wire == 0:
            _, length = _varint(span, at)
            length -= at
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise span.damaged(at, f"wire type {wire}")
        if at + length > stop:
            raise span.damaged(at, "a field reaches beyond its message")
        yield tag >> 3, wire, at, at + length
        at += length


def _varint(span: Span, at: int) -> tuple[int, int]:
    value = shift = 0
    for byte in span.read(at, min(10, span.stop - at)):
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
    raise span.damaged(at, "a number that does not end")
