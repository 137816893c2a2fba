"""Pictures in logs: which messages are pictures, how they are encoded, and which can be decoded alone.

In: messages of the types in ``PICTURES``, in any payload encoding. Out: ``Frames``. Nothing is decoded: JPEG, PNG and
video go into the blob as they are, raw pictures without the padding of their rows. What a message says of its format is
believed only where its bytes agree. Video before its first key picture is left out (nobody can decode it), and a key
picture without parameter sets gets those seen before it, so that decoding can begin there.

Formats: ITU-T H.264 and H.265 Annex B, VP9 bitstream section 6.2, AV1 bitstream section 5.3 to 5.9; the messages are
those of sensor_msgs, foxglove and ffmpeg_image_transport_msgs, and the depth PNG of compressed_depth_image_transport.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Unsupported
from flyball.episodes.episode import Frames
from flyball.episodes.formats.clocks import Clock, Times
from flyball.episodes.formats.payloads import Path
from flyball.episodes.frames import MAX_PIXELS, RAW, VIDEO
from flyball.episodes.intake import FramesWriter, Intake

PICTURES = frozenset(
    (
        "sensor_msgs/CompressedImage", "sensor_msgs/Image", "foxglove.CompressedImage", "foxglove.RawImage",
        "foxglove.CompressedVideo", "ffmpeg_image_transport_msgs/FFMPEGPacket",
    )
)  # fmt: skip
"""Message types, ``foxglove_msgs/X`` being ``foxglove.X``."""

_RAW_NAMES = {"8UC1": "mono8", "16UC1": "mono16", "8UC3": "bgr8", "8UC4": "bgra8"}
_VIDEO_NAMES = {
    **{"h264": "h264", "avc": "h264", "libx264": "h264", "h265": "h265", "hevc": "h265", "libx265": "h265"},
    **{"vp9": "vp9", "av1": "av1", "libsvtav1": "av1"},
}
_MAX_REASONS = 20  # why pictures were left out, counted apart
_DEPTH_HEAD = 12  # bytes that compressedDepth puts before the PNG


class Pictures:
    """The pictures of one topic on their way into ``Frames``.

    Args:
      name: of the camera.
      intake: room and reports.
    """

    def __init__(self, name: str, intake: Intake) -> None:
        self.name, self._intake = name, intake
        self._writer: FramesWriter | None = None
        self._kind: tuple[str, int, int] = ("", 0, 0)
        self._sets: dict[int, bytes] = {}
        self._skipped: dict[str, int] = {}
        self._n = 0

    def add(self, row: Mapping[Path, Any]) -> bool:
        """A message; False when no picture can be made of it, which is counted and noted at the end."""
        try:
            self._add(row)
        except Unsupported as err:
            why = err.what if err.what in self._skipped or len(self._skipped) < _MAX_REASONS else "other reasons"
            self._skipped[why] = self._skipped.get(why, 0) + 1
            return False
        return True

    def _add(self, row: Mapping[Path, Any]) -> None:
        data = row.get(("data",))
        if isinstance(data, str):  # JSON whose schema does not say how
            try:
                data = binascii.a2b_base64(data, strict_mode=True)
            except ValueError as err:
                raise Unsupported("data that are not base64") from err
        if not isinstance(data, (bytes, memoryview)) or not len(data):
            raise Unsupported("no data")
        if ("step",) in row:
            kind, data = _raw(row, data)
        else:
            kind, data = _compressed(str(row.get(("format",), row.get(("encoding",), ""))), data)
        key = True
        if kind[0] in VIDEO:
            data, key = self._video(kind[0], data)
            if self._writer is None and not key:
                raise Unsupported("before the first key picture")
        if self._writer is None:
            self._kind = kind
            self._writer = self._intake.frames(self.name, *kind)
        if kind[0] != self._kind[0] or (kind[0].startswith("raw:") and kind != self._kind):
            raise Unsupported(f"{kind[0]} of {kind[2]} x {kind[1]}, the others are {self._kind[0]}")
        self._writer.append(self._n, data, key=key)  # times are known at the end
        self._n += 1

    def _video(self, encoding: str, data: bytes | memoryview) -> tuple[bytes | memoryview, bool]:
        """The access unit with parameter sets where it is a key picture, and whether it is one."""
        if encoding == "vp9":
            return data, _vp9_key(data)
        if encoding == "av1":
            return data, _av1_key(data)
        key, sets = False, {}
        hevc = encoding == "h265"
        found = False
        for kind, begin, end in nal_units(data, hevc=hevc):
            found = True
            key = key or (16 <= kind <= 21 if hevc else kind == 5)
            if kind in ((32, 33, 34) if hevc else (7, 8)):
                sets[kind] = bytes(data[begin:end])
        if not found:
            raise Unsupported(f"{encoding} that is not in Annex B form")
        self._sets |= sets
        missing = [k for k in sorted(self._sets) if k not in sets] if key else []
        return b"".join([*(b"\0\0\0\1" + self._sets[k] for k in missing), data]) if missing else data, key

    def finish(self, clock: Clock) -> tuple[Frames, Times]:
        """The camera's frames, and their times.

        Args:
          clock: the times of the messages that were not left out.

        Raises:
          Unsupported: all were left out; says why.
        """
        if self._writer is None:
            raise Unsupported(", ".join(self._skipped))
        for why, count in self._skipped.items():
            self._intake.note("skipped", f"{self.name}: {count} pictures left out ({why})")
        frames = self._writer.close()
        video = frames.encoding in VIDEO
        times = clock.settle(self.name, video=video)
        keep = slice(None) if times.order is None else times.order
        if video and self._intake.salvage:
            keep = self._connected(times.t_ns, frames.key)
        index = {k: getattr(frames, k)[keep] for k in ("start", "stop", "key")}
        return replace(frames, t_ns=np.array(times.t_ns[keep]), **index), times

    def _connected(self, t_ns: NDArray[np.int64], key: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Which pictures of a damaged log no gap parts from their key picture; behind one, a decoder would guess."""
        steps = np.diff(t_ns)
        gap = np.concatenate([[False], steps > 1.5 * np.median(steps)]) if len(steps) else np.zeros(len(t_ns), bool)
        i = np.arange(len(t_ns))
        connected = np.maximum.accumulate(np.where(key, i, -1)) >= np.maximum.accumulate(np.where(gap, i, -1))
        if not connected.all():
            lost = int((~connected).sum())
            self._intake.note(
                "salvaged", f"{self.name}: {lost} pictures behind a gap, up to the next key picture, left out"
            )
        return np.flatnonzero(connected)


def nal_units(data: bytes | memoryview, *, hevc: bool) -> Iterator[tuple[int, int, int]]:
    """The NAL units of an Annex B stream: (type, begin, end), without their start codes; nothing when it is none."""
    raw = bytes(data)
    if not raw.startswith((b"\0\0\1", b"\0\0\0\1")):
        return
    starts = [m.end() for m in re.finditer(b"\0\0\1", raw)]
    for i, begin in enumerate(starts):
        end = starts[i + 1] - 3 if i + 1 < len(starts) else len(raw)
        while i + 1 < len(starts) and end > begin and raw[end - 1] == 0:
            end -= 1
        if begin < len(raw):
            yield (raw[begin] >> 1 & 63 if hevc else raw[begin] & 31), begin, end


def _raw(row: Mapping[Path, Any], data: bytes | memoryview) -> tuple[tuple[str, int, int], bytes | memoryview]:
    """(encoding, height, width), and the pixels without padding, little endian."""
    try:
        height, width, step = (int(row[(k,)]) for k in ("height", "width", "step"))
        name = str(row[("encoding",)])
    except (KeyError, ValueError, TypeError) as err:
        raise Unsupported(f"a picture without a size ({err})") from err
    name = _RAW_NAMES.get(name, name)
    if name not in RAW:
        raise Unsupported(f"raw pictures of {name!r}", allowed=", ".join([*RAW, *_RAW_NAMES]))
    dtype, channels, _ = RAW[name]
    size = width * channels * int(dtype[-1])
    if not 0 < height * width <= MAX_PIXELS or step < size or len(data) < step * (height - 1) + size:
        raise Unsupported(f"{len(data)} bytes are no {width} x {height} pixels of {name} in rows of {step} bytes")
    if step != size or len(data) != size * height:
        padded = np.frombuffer(bytes(data[: step * height]).ljust(step * height, b"\0"), np.uint8)
        data = padded.reshape(height, step)[:, :size].tobytes()
    if row.get(("is_bigendian",)) and int(dtype[-1]) > 1:
        data = np.frombuffer(data, np.dtype(dtype).newbyteorder(">")).astype(dtype).tobytes()
    return (f"raw:{name}", height, width), data


def _compressed(said: str, data: bytes | memoryview) -> tuple[tuple[str, int, int], bytes | memoryview]:
    """(encoding, height, width), 0 where unknown, and the encoded picture."""
    head = bytes(data[:64])
    if "compressedDepth" in said:
        if said.lstrip().startswith("32FC1"):
            raise Unsupported("depth pictures quantised from 32FC1")
        data, head = data[_DEPTH_HEAD:], head[_DEPTH_HEAD:]
    if head.startswith(b"\x89PNG\r\n\x1a\n") and len(head) >= 24:
        return ("png", int.from_bytes(head[20:24], "big"), int.from_bytes(head[16:20], "big")), data
    if head.startswith(b"\xff\xd8\xff"):
        return ("jpeg", *_jpeg_size(data)), data
    words = re.split(r"[^a-z0-9]+", said.lower().replace("h.26", "h26"))
    if (encoding := next((_VIDEO_NAMES[w] for w in words if w in _VIDEO_NAMES), None)) is not None:
        return (encoding, 0, 0), data
    if any(w in ("jpeg", "jpg", "png") for w in words):
        raise Unsupported(f"a picture said to be {said!r} does not begin like one")
    raise Unsupported(f"pictures of format {said!r}", allowed=", ".join(["jpeg", "png", *_VIDEO_NAMES]))


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int]:
    """(height, width) from the frame header; zeros when there is none."""
    at = 2
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 1 if marker == 0xFF else 2 + length
    return 0, 0


def _vp9_key(data: bytes | memoryview) -> bool:
    bits = f"{data[0]:08b}"
    if bits[:2] != "10":
        raise Unsupported("vp9 that does not begin with a frame")
    at = 4 + (bits[2:4] == "11")  # frame marker, profile; a reserved bit in profile 3
    return bits[at] == "0" and bits[at + 1] == "0"  # not a repeated picture; a key picture


def _av1_key(data: bytes | memoryview) -> bool:
    """Whether a temporal unit holds a sequence header and begins with a key frame."""
    raw, at, still, sequence = bytes(data), 0, False, False
    while at < len(raw):
        head = raw[at]
        kind, at = head >> 3 & 15, at + 1 + (head >> 2 & 1)
        size = len(raw) - at
        if head & 2:
            size = 0
            for i in range(8):
                if at >= len(raw):
                    raise Unsupported("av1 that is not in the low-overhead form")
                size |= (raw[at] & 127) << 7 * i
                at += 1
                if raw[at - 1] < 128:
                    break
        if head & 0x80 or size > len(raw) - at:
            raise Unsupported("av1 that is not in the low-overhead form")
        if kind == 1 and size:
            sequence, still = True, bool(raw[at] >> 3 & 1)
        elif kind in (3, 6) and size:  # a frame header, alone or with its tiles
            shown, frame_type = raw[at] >> 7, raw[at] >> 5 & 3
            return sequence and (still or (shown == 0 and frame_type == 0))
        at += size
    return False
