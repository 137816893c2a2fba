"""An episode for Rerun (https://rerun.io), a viewer of robot data over time. Needs the library ``rerun-sdk``.

In: an episode and where its pictures lie. Out: a recording in a file, or in a viewer that is opened. Signals become
scalars, one curve per element; pictures go as they are encoded; events become a text log. The timeline ``episode``
counts seconds since the episode's start. Rerun's own viewer reports anonymous usage to its makers unless it is told not
to: ``rerun analytics disable``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flyball.base import FlyballError, InputError, NotPossible
from flyball.episodes import codec
from flyball.episodes.episode import Episode, Frames
from flyball.episodes.frames import decoded

INSTALL = "pip install 'flyball[rerun]'"
TIMELINE = "episode"
_PIECE = 1 << 16  # samples that are handed over at once
_MEDIA = {"jpeg": "image/jpeg", "png": "image/png"}
_CODECS = {"h264": "H264", "h265": "H265", "vp9": "VP9", "av1": "AV1"}


def show(episode: Episode, blob: Callable[[str], Path], *, name: str, save: Path | None = None) -> None:
    """Open an episode in a Rerun viewer, or save it as a recording.

    Args:
      episode: which.
      blob: where the pictures of a digest lie, ``store.path``.
      name: of the recording, e.g. the episode's digest.
      save: the file to write, ``*.rrd``; None to open the viewer.

    Raises:
      NotPossible: Rerun is not installed, or no viewer can be started.
      InputError: the file cannot be written.
    """
    try:
        import rerun as rr
    except ImportError as err:
        raise NotPossible(f"Rerun is not installed ({err})", where="--rerun", run_next=INSTALL) from err
    if save is None and sys.platform == "linux" and not {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys():
        raise NotPossible("there is no display here", where="--rerun", run_next="--rerun --save FILE.rrd")
    recording = rr.RecordingStream("flyball", recording_id=name)
    try:
        if save is not None:
            recording.save(save)
        else:
            recording.spawn()
        _write(rr, recording, episode, blob)
        recording.flush()
        recording.disconnect()
    except FlyballError:
        raise
    except Exception as err:  # the library declares no types: a file that cannot be made, a viewer that does not start
        if save is not None:
            raise InputError(f"cannot be written ({err})", where=str(save)) from err
        raise NotPossible(f"the viewer cannot be reached ({err})", run_next="--rerun --save FILE.rrd") from err


def _write(rr: Any, recording: Any, episode: Episode, blob: Callable[[str], Path]) -> None:
    begin, _ = codec.span_ns(episode)
    facts = {k: str(getattr(episode, k)) for k in ("robot", "embodiment", "task", "origin", "outcome", "group")}
    recording.log("facts", rr.TextDocument("\n".join(f"{k}: {v}" for k, v in facts.items() if v)), static=True)
    _signals(rr, recording, episode, begin)
    for name, frames in sorted(episode.frames.items()):
        _pictures(rr, recording, frames, blob(frames.blob), f"cameras/{name}", begin)
    for e in episode.events:
        recording.set_time(TIMELINE, duration=(e.t_ns - begin) * 1e-9)
        recording.log("events", rr.TextLog(f"{e.name} {e.text}".strip()))


def _signals(rr: Any, recording: Any, episode: Episode, begin: int) -> None:
    for name, s in sorted(episode.signals.items()):
        path = f"signals/{name}"
        flat = np.asarray(s.values).reshape(len(s.t_ns), s.spec.size)
        labels = [f"{name}[{','.join(map(str, i))}]" for i in np.ndindex(*s.spec.shape)] if s.spec.shape else [name]
        recording.log(path, rr.SeriesLines(names=labels), static=True)
        for at in range(0, len(flat), _PIECE):
            seconds = (np.asarray(s.t_ns[at : at + _PIECE]) - begin) * 1e-9
            values = flat[at : at + _PIECE].astype(np.float64)
            recording.send_columns(
                path, [rr.TimeColumn(TIMELINE, duration=seconds)], rr.Scalars.columns(scalars=values)
            )


def _pictures(rr: Any, recording: Any, frames: Frames, blob: Path, path: str, begin: int) -> None:
    seconds = (frames.t_ns - begin) * 1e-9
    if frames.encoding.startswith("raw:"):
        for i, picture in decoded(frames, blob, range(len(seconds))):
            recording.set_time(TIMELINE, duration=seconds[i])
            recording.log(path, rr.Image(picture) if picture.dtype == np.uint8 else rr.DepthImage(picture[..., 0]))
        return
    if frames.encoding in _CODECS:
        recording.log(path, rr.VideoStream(codec=getattr(rr.VideoCodec, _CODECS[frames.encoding])), static=True)
    with open(blob, "rb") as f:
        for i, t in enumerate(seconds):
            f.seek(int(frames.start[i]))
            data = f.read(int(frames.stop[i] - frames.start[i]))
            recording.set_time(TIMELINE, duration=t)
            if frames.encoding in _CODECS:
                recording.log(path, rr.VideoStream.from_fields(sample=data))
            else:
                recording.log(path, rr.EncodedImage(contents=data, media_type=_MEDIA.get(frames.encoding)))
