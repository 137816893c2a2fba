"""Videos as datasets hold them: one mp4 for many episodes, frame i at exactly i/fps.

In: pictures, or packets that are encoded already. Out: an mp4 in which every picture can be found by its time. Each
episode begins with a key picture and can be decoded without its neighbours; every second picture is a key picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import NotPossible
from flyball.episodes.episode import Frames
from flyball.episodes.frames import encode_frames

KEY_EVERY = 2
CRF = {"h264": 23, "av1": 30}
NAMES = {"h264": "h264", "av1": "av1"}


class VideoFile:
    """An mp4 that grows by encoded pictures.

    Args:
      path: the file to make.
      codec: ``h264`` (Annex B) or ``av1``.
      fps: pictures per second.
      height, width: of a picture [pixels].

    Attributes:
      count: pictures so far.
      size: bytes of pictures so far.
    """

    def __init__(self, path: Path, codec: str, fps: int, height: int, width: int) -> None:
        try:
            import av
        except ModuleNotFoundError as err:
            raise NotPossible("videos need the Python package 'av'", run_next="pip install 'flyball[logs]'") from err
        self._packet = av.Packet
        self._base = Fraction(1, fps)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container: Any = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream = self._container.add_mux_stream(codec, rate=fps, width=width, height=height)
        self._stream.time_base = self._base
        self.count = self.size = 0

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add(self, data: bytes, key: bool) -> None:
        """Append the next picture."""
        packet = self._packet(data)
        packet.stream, packet.time_base = self._stream, self._base
        packet.pts = packet.dts = self.count
        packet.duration, packet.is_keyframe = 1, key
        self._container.mux(packet)
        self.count += 1
        self.size += len(data)

    def close(self) -> None:
        """Complete the file."""
        self._container.close()


def encoded(
    pictures: Iterable[NDArray[np.uint8]], codec: str, fps: int, crf: int | None
) -> Iterator[tuple[bytes, bool]]:
    """Pictures of one episode as (packet, is a key picture)."""
    return encode_frames(pictures, codec, key_every=KEY_EVERY, rate=fps, crf=str(CRF[codec] if crf is None else crf))


def packets(frames: Frames, blob: Path, which: NDArray[np.int64], codec: str) -> Iterator[tuple[bytes, bool]] | None:
    """The camera's own packets, when they are just what an episode's video needs; None when it must be encoded.

    That is so when the pictures wanted follow each other without repeats or gaps, in the same encoding, begin with a
    key picture, and have another one at least at every second.
    """
    if frames.encoding != codec or not frames.key[which[0]] or (np.diff(which) != 1).any():
        return None
    keys = np.flatnonzero(frames.key[which])
    if (np.diff(np.append(keys, len(which))) > KEY_EVERY).any():
        return None
    return _read(frames, blob, which)


def _read(frames: Frames, blob: Path, which: NDArray[np.int64]) -> Iterator[tuple[bytes, bool]]:
    with open(blob, "rb") as f:
        for i in which.tolist():
            f.seek(int(frames.start[i]))
            yield f.read(int(frames.stop[i] - frames.start[i])), bool(frames.key[i])
