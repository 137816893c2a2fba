"""Pictures of an episode's cameras, decoded and encoded.

In: ``Frames`` and the blob they index. Out: arrays of pixels; and back. JPEG, PNG and the video encodings go through
FFmpeg's decoders (library ``av``), one thread, so that the same bytes give the same pixels; raw pictures need numpy
alone. A picture of a video is decoded from the nearest key picture before it. A picture that is damaged, or another
size than it should be, is an error that names the camera and the picture; decoders are told not to conceal. Damage
that still makes sense to a decoder (JPEG and most video have no checksum) shows in the blob's digest alone.
"""

from __future__ import annotations

import operator
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, NotPossible, Unsupported
from flyball.episodes.episode import Frames

MAX_PIXELS = 1 << 25
"""Pixels of one picture; more is taken for damage."""
MAX_BYTES = 4 << 30
"""Bytes of decoded pictures that one call may return."""

RAW: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "rgb8": ("u1", 3, (0, 1, 2)),
    "bgr8": ("u1", 3, (2, 1, 0)),
    "rgba8": ("u1", 4, (0, 1, 2, 3)),
    "bgra8": ("u1", 4, (2, 1, 0, 3)),
    "mono8": ("u1", 1, (0,)),
    "mono16": ("<u2", 1, (0,)),
    "32FC1": ("<f4", 1, (0,)),
}
"""Pixel formats of ``raw:`` encodings: element type, elements per pixel, order that gives red, green, blue, alpha."""
VIDEO = ("h264", "h265", "vp9", "av1")
STILL = ("jpeg", "png")
_DECODERS = {"jpeg": "mjpeg", "png": "png", "h264": "h264", "h265": "hevc", "vp9": "vp9", "av1": "libdav1d"}
_X265 = "log-level=error:pools=none:frame-threads=1"
_ENCODERS = {
    "jpeg": ("mjpeg", {"qmin": "2", "qmax": "2"}),
    "png": ("png", {}),
    "h264": ("libx264", {"preset": "veryfast", "tune": "zerolatency", "crf": "18", "sc_threshold": "0"}),
    "h265": ("libx265", {"preset": "ultrafast", "tune": "zerolatency", "crf": "18", "x265-params": _X265}),
    "vp9": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8", "crf": "20", "b": "0", "lag-in-frames": "0"}),
    "av1": ("libsvtav1", {"preset": "8", "crf": "20", "svtav1-params": "pred-struct=1:lp=1"}),
}  # fmt: skip


def read_frames(
    frames: Frames,
    blob: Path,
    which: slice | Sequence[int] | NDArray[np.int64] | None = None,
    *,
    height: int | None = None,
    width: int | None = None,
) -> NDArray[Any]:
    """Decode pictures.

    Args:
      frames: the camera's index.
      blob: file of its bytes, ``store.path(frames.blob)``.
      which: numbers of pictures in any order, negative from the end; None for all.
      height, width: scale to this size [pixels]; None for the size they have.

    Returns:
      shape (k, height, width, channels): uint8, 3 channels (red, green, blue), 4 where there is transparency, 1 where
      there is no colour; depth and other 16-bit pictures uint16, raw 32FC1 float32, 1 channel each.

    Raises:
      Damaged: a picture does not decode; names camera and picture.
      InputError: pictures of several sizes and no size asked for, a number beyond the last, more than ``MAX_BYTES``.
      Unsupported: another encoding.
      NotPossible: the library ``av`` is missing.
    """
    wanted = _numbers(frames, which)
    out: NDArray[Any] | None = None
    places: dict[int, list[int]] = {}
    for place, i in enumerate(wanted):
        places.setdefault(i, []).append(place)
    for i, picture in decoded(frames, blob, sorted(places), height=height, width=width):
        if out is None:
            if picture.nbytes * len(wanted) > MAX_BYTES:
                raise InputError(
                    f"{len(wanted)} pictures of {picture.nbytes} bytes at once",
                    where=frames.name,
                    allowed=f"{MAX_BYTES >> 30} GiB",
                )
            out = np.empty((len(wanted), *picture.shape), picture.dtype)
        if picture.shape != out.shape[1:] or picture.dtype != out.dtype:
            raise InputError(
                f"picture {i} is {_size(picture)}, others are {_size(out[0])}",
                where=frames.name,
                allowed="one size, or height and width to scale to",
            )
        out[places[i]] = picture
    return np.zeros((0, height or frames.height, width or frames.width, 3), np.uint8) if out is None else out


def decoded(
    frames: Frames, blob: Path, which: Sequence[int], *, height: int | None = None, width: int | None = None
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Pictures one by one, so that a whole camera needs the memory of one picture.

    Args:
      frames, blob, height, width: see ``read_frames``.
      which: numbers of pictures, ascending.

    Yields:
      (number, picture of shape (height, width, channels)).

    Raises:
      FlyballError: see ``read_frames``.
    """
    with open(blob, "rb") as file:

        def data(i: int) -> bytes:
            begin, end = int(frames.start[i]), int(frames.stop[i])
            file.seek(begin)
            found = file.read(max(0, end - begin)) if begin >= 0 else b""
            if len(found) != end - begin or not found:
                raise _damaged(frames, i, "its bytes are not in the blob")
            return found

        size = None if height is None and width is None else (height, width)
        if frames.encoding.startswith("raw:"):
            for i in which:
                picture = _raw(frames, i, data(i))
                yield i, picture if size is None else _scaled(picture, size)
        elif frames.encoding in STILL:
            for i in which:
                yield i, _still(frames, i, data(i), size)
        elif frames.encoding in VIDEO:
            yield from _video(frames, which, data, size)
        else:
            raise Unsupported(
                f"encoding {frames.encoding!r}",
                where=frames.name,
                allowed=", ".join([*STILL, *VIDEO, *(f"raw:{k}" for k in RAW)]),
            )


def encode_frames(
    pictures: Iterable[NDArray[Any]], encoding: str, *, key_every: int = 30, rate: int = 30, **options: str
) -> Iterator[tuple[bytes, bool]]:
    """Encode pictures of one camera; the inverse of ``read_frames``.

    Args:
      pictures: each (height, width, channels): uint8 with 1, 3 or 4 channels, or uint16 with 1 (``png`` alone).
      encoding: ``jpeg``, ``png``, ``h264``, ``h265``, ``vp9``, ``av1``; the last four in order of display, without
        B-frames, with the parameter sets in each key picture.
      key_every: pictures from one key picture of a video to the next.
      rate: pictures per second that a video is told [Hz].
      options: of FFmpeg's encoder, e.g. ``crf="23"``.

    Yields:
      (encoded picture, whether it can be decoded alone).

    Raises:
      InputError: a picture that the encoding cannot hold.
      NotPossible: the library ``av`` is missing.
    """
    av = _av()
    if encoding not in _ENCODERS:
        raise Unsupported(f"encoding {encoding!r}", allowed=", ".join(_ENCODERS))
    name, defaults = _ENCODERS[encoding]
    if encoding == "av1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only; the encoder has no other way to be told
    context: Any = None
    for i, picture in enumerate(pictures):
        frame = _frame(av, picture, encoding)
        if context is None or encoding in STILL:
            context = av.codec.CodecContext.create(name, "w")
            context.width, context.height, context.pix_fmt = frame.width, frame.height, frame.format.name
            context.time_base, context.framerate = Fraction(1, rate), Fraction(rate)
            context.thread_count = 1
            context.options = {**defaults, **options}
            if encoding in VIDEO:
                context.gop_size, context.max_b_frames = key_every, 0
        frame.pts, frame.time_base = i, Fraction(1, rate)
        yield from _encoded(av, context, frame, encoding)
    if context is not None and encoding in VIDEO:
        yield from _encoded(av, context, None, encoding)


def _numbers(frames: Frames, which: slice | Sequence[int] | NDArray[np.int64] | None) -> list[int]:
    n = len(frames.t_ns)
    if which is None or isinstance(which, slice):
        return list(range(n))[which if which is not None else slice(None)]
    numbers = [operator.index(i) for i in which]
    for i in numbers:
        if not -n <= i < n:
            raise InputError(f"no picture {i}", where=frames.name, allowed=f"-{n} to {n - 1}" if n else "none")
    return [i % n for i in numbers]


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as err:
        raise NotPossible("pictures need the Python package 'av'", run_next="pip install 'flyball[logs]'") from err
    return av


def _damaged(frames: Frames, i: int, why: str) -> Damaged:
    return Damaged(f"picture {i}: {why}", where=f"camera {frames.name}")


def _size(picture: NDArray[Any]) -> str:
    return f"{picture.shape[1]} x {picture.shape[0]} with {picture.shape[2]} channels of {picture.dtype}"


def _raw(frames: Frames, i: int, data: bytes) -> NDArray[Any]:
    kind = frames.encoding.removeprefix("raw:")
    if kind not in RAW:
        raise Unsupported(f"raw pictures of {kind!r}", where=frames.name, allowed=", ".join(RAW))
    dtype, channels, order = RAW[kind]
    size = frames.height * frames.width * channels * int(dtype[-1])
    if not 0 < frames.height * frames.width <= MAX_PIXELS or len(data) != size:
        raise _damaged(frames, i, f"{len(data)} bytes are no {frames.width} x {frames.height} pixels of {kind}")
    pixels = np.frombuffer(data, dtype).reshape(frames.height, frames.width, channels)
    return pixels if order == tuple(range(channels)) else pixels[..., list(order)]


def _scaled(picture: NDArray[Any], size: tuple[int | None, int | None]) -> NDArray[Any]:
    height, width = size[0] or picture.shape[0], size[1] or picture.shape[1]
    if (height, width) == picture.shape[:2]:
        return picture
    if picture.dtype == np.uint8:
        av = _av()
        kind = {1: "gray", 3: "rgb24", 4: "rgba"}[picture.shape[2]]
        pixels = np.ascontiguousarray(picture[..., 0] if kind == "gray" else picture)
        scaled = av.VideoFrame.from_ndarray(pixels, kind).to_ndarray(height=height, width=width, interpolation="AREA")
        return scaled.reshape(height, width, -1)
    # Depth is picked, not averaged: between a near and a far pixel there is nothing.
    rows = (np.arange(height) * 2 + 1) * picture.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * picture.shape[1] // (2 * width)
    return picture[rows][:, columns]


def _decoder(av: Any, encoding: str) -> Any:
    context = av.codec.CodecContext.create(_DECODERS[encoding], "r")
    context.thread_count = 1
    # What is damaged is an error, not a guess; what claims to be huge is damaged.
    context.options = {"err_detect": "crccheck+bitstream+buffer+explode", "max_pixels": str(MAX_PIXELS)}
    return context


def _pixels(frame: Any, reformatter: Any, size: tuple[int | None, int | None] | None) -> NDArray[Any]:
    name = frame.format.name
    if name.startswith(("gray16", "gray10", "gray12", "ya16")):
        kind = "gray16le"
    elif name.startswith(("gray", "mono")):
        kind = "gray"
    elif name.startswith(("rgb48", "rgba64")):
        kind = "rgb48le"
    else:
        kind = "rgba" if name in ("rgba", "bgra", "argb", "abgr", "ya8") else "rgb24"
    deep = kind.endswith("le")
    height, width = (size[0] or frame.height, size[1] or frame.width) if size and not deep else (None, None)
    frame = reformatter.reformat(frame, width, height, kind, interpolation="AREA" if height else None)
    array = frame.to_ndarray().reshape(frame.height, frame.width, -1)
    return _scaled(array, size) if size and deep else array


def _still(frames: Frames, i: int, data: bytes, size: tuple[int | None, int | None] | None) -> NDArray[Any]:
    av = _av()
    reformatter = av.video.reformatter.VideoReformatter()
    try:
        context = _decoder(av, frames.encoding)
        found = [*context.decode(av.Packet(data)), *context.decode(None)]
        if len(found) != 1 or found[0].is_corrupt:
            raise _damaged(frames, i, "incomplete" if found else "not a picture")
        return _pixels(found[0], reformatter, size)
    except (av.error.FFmpegError, ValueError) as err:
        raise _damaged(frames, i, f"does not decode ({err})") from err


def _video(
    frames: Frames,
    which: Sequence[int],
    data: Callable[[int], bytes],
    size: tuple[int | None, int | None] | None,
) -> Iterator[tuple[int, NDArray[Any]]]:
    av = _av()
    reformatter = av.video.reformatter.VideoReformatter()
    keys = np.flatnonzero(frames.key)
    runs: dict[int, list[int]] = {}
    for i in which:
        at = int(np.searchsorted(keys, i, "right")) - 1
        if at < 0:
            raise _damaged(frames, i, "no key picture before it")
        runs.setdefault(int(keys[at]), []).append(i)
    for key, wanted in runs.items():
        left = set(wanted)
        i = key
        try:
            context = _decoder(av, frames.encoding)
            for i in range(key, wanted[-1] + 1):
                packet = av.Packet(data(i))
                packet.pts = packet.dts = i - key
                for frame in context.decode(packet):
                    yield from _kept(frames, frame, key, left, reformatter, size)
            for frame in context.decode(None):
                yield from _kept(frames, frame, key, left, reformatter, size)
        except (av.error.FFmpegError, ValueError) as err:
            raise _damaged(frames, i, f"does not decode ({err})") from err
        if left:
            raise _damaged(frames, min(left), "the decoder makes no picture of it")


def _kept(
    frames: Frames, frame: Any, key: int, left: set[int], reformatter: Any, size: tuple[int | None, int | None] | None
) -> Iterator[tuple[int, NDArray[Any]]]:
    i = key + (frame.pts if frame.pts is not None else -1)
    if frame.is_corrupt:
        raise _damaged(frames, i, "incomplete")
    if i in left:
        left.remove(i)
        yield i, _pixels(frame, reformatter, size)


def _frame(av: Any, picture: NDArray[Any], encoding: str) -> Any:
    kinds = {("uint8", 1): "gray", ("uint8", 3): "rgb24", ("uint8", 4): "rgba", ("uint16", 1): "gray16le"}
    kind = kinds.get((picture.dtype.name, picture.shape[2])) if picture.ndim == 3 else None
    if kind is None or (encoding != "png" and kind in ("rgba", "gray16le")):
        raise InputError(f"a picture of shape {picture.shape}, {picture.dtype}", where=encoding)
    pixels = np.ascontiguousarray(picture[..., 0] if picture.shape[2] == 1 else picture)
    frame = av.VideoFrame.from_ndarray(pixels, kind)
    if encoding == "png":
        return frame.reformat(format="gray16be") if kind == "gray16le" else frame
    if encoding == "jpeg":
        return frame.reformat(format="gray" if kind == "gray" else "yuvj444p", dst_color_range="JPEG")
    if picture.shape[0] % 2 or picture.shape[1] % 2:
        raise InputError(f"a picture of {picture.shape[1]} x {picture.shape[0]}", where=encoding, allowed="even sizes")
    return frame.reformat(format="yuv420p")


def _encoded(av: Any, context: Any, frame: Any, encoding: str) -> Iterator[tuple[bytes, bool]]:
    try:
        packets = context.encode(frame)
        if encoding in STILL:
            packets = [*packets, *context.encode(None)]
    except (av.error.FFmpegError, ValueError) as err:
        raise InputError(f"cannot be encoded ({err})", where=encoding) from err
    for packet in packets:
        yield bytes(packet), packet.is_keyframe or encoding in STILL
