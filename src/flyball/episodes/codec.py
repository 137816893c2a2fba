"""Episodes as bytes: the same episode gives the same bytes, and so the same digest, on any machine.

In: an ``Episode``. Out: bytes, and back. Layout: 8 bytes of magic, the header's length (uint32, little endian), a
canonical JSON header, then the arrays in order of signal name (time stamps, values), then those of each camera (time
stamps, starts, stops, key pictures), each little endian in C order and aligned to 8 bytes. No pickle; nothing in the
bytes is executed or trusted. Pictures themselves lie in blobs of their own.
"""

from __future__ import annotations

import io
import json
import re
from typing import Any, BinaryIO, get_args

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, SignalSpec, Timed
from flyball.episodes.episode import Episode, Event, Frames, Origin, Outcome
from flyball.episodes.intake import release

MAGIC = b"FLYEP\x00\x00\x01"
_TEXTS = ("embodiment", "robot", "task", "instruction", "origin", "outcome", "group", "release", "scene", "log_digest")
_INDEX = (("t_ns", "<i8"), ("start", "<i8"), ("stop", "<i8"), ("key", "|b1"))
MAX_HEADER = 64 << 20  # bytes; larger claims are not believed
_PIECE = 16 << 20  # bytes of an array that are in memory at once while it is written


def encode(episode: Episode) -> bytes:
    """The episode as bytes; see ``write``."""
    out = io.BytesIO()
    write(episode, out)
    return out.getvalue()


def write(episode: Episode, stream: BinaryIO) -> None:
    """Write the episode's bytes to a stream, arrays piece by piece: they may be larger than the memory.

    Raises:
      InputError: a signal contradicts its specification, time runs backwards, the seed exceeds 63 bits, or a label
        is not JSON.
    """
    header: dict[str, Any] = {name: getattr(episode, name) for name in _TEXTS}
    header["seed"] = int(episode.seed)
    if not -1 <= header["seed"] < 2**63:
        raise InputError(f"seed {episode.seed}", where="episode", allowed="-1 to 2^63 - 1")
    header["labels"] = dict(episode.labels)
    header["events"] = [[int(e.t_ns), e.name, e.text] for e in episode.events]
    header["signals"] = []
    arrays: list[NDArray[Any]] = []
    for name in sorted(episode.signals):
        signal = episode.signals[name]
        t_ns, values = _checked(name, signal)
        header["signals"].append(
            {"key": name, "spec": signal.spec.to_json(), "n": len(t_ns), "dtype": values.dtype.str}
        )
        arrays += [t_ns, values]
    if episode.frames:
        header["frames"] = []
        for name in sorted(episode.frames):
            f = episode.frames[name]
            index = _checked_index(name, f)
            facts = {"name": f.name, "encoding": f.encoding, "height": f.height, "width": f.width, "blob": f.blob}
            header["frames"].append({"key": name, "n": len(f.t_ns), **facts})
            arrays += index
    try:
        text = json.dumps(header, sort_keys=True, separators=(",", ":"), default=_plain).encode()
    except (TypeError, ValueError) as err:
        raise InputError(f"cannot be written as JSON ({err})", where="labels of an episode") from err
    stream.write(MAGIC + len(text).to_bytes(4, "little") + text)
    size = 12 + len(text)
    for array in arrays:
        gap = -size % 8
        stream.write(bytes(gap))
        rows = max(1, _PIECE // max(1, array.nbytes // max(1, len(array))))
        for at in range(0, len(array), rows):
            stream.write(array[at : at + rows].tobytes())
            release(array)
        size += gap + array.nbytes


def decode(blob: bytes, *, where: str = "episode") -> Episode:
    """Inverse of ``encode``. Arrays are read-only views into the blob.

    Raises:
      Damaged: not what ``encode`` writes.
    """
    if blob[:8] != MAGIC:
        raise Damaged("not an episode (wrong first bytes)", where=where)
    try:
        at = 12 + int.from_bytes(blob[8:12], "little")
        header = json.loads(blob[12:at])
        signals: dict[str, Timed] = {}
        for s in header["signals"]:
            if not re.fullmatch(r"[<|][biuf][1-8]", s["dtype"]):
                raise ValueError(f"dtype {s['dtype']!r}")
            spec, n, dtype = SignalSpec.from_json(s["spec"]), int(s["n"]), np.dtype(s["dtype"])
            at += -at % 8
            t_ns = np.frombuffer(blob, "<i8", n, at)
            at += t_ns.nbytes + (-t_ns.nbytes % 8)
            values = np.frombuffer(blob, dtype, n * spec.size, at).reshape(n, *spec.shape)
            at += values.nbytes
            signals[s["key"]] = Timed(spec, t_ns, values)
        frames: dict[str, Frames] = {}
        for s in header.get("frames", ()):
            index: dict[str, Any] = {}
            for field, kind in _INDEX:
                at += -at % 8
                index[field] = np.frombuffer(blob, kind, int(s["n"]), at)
                at += index[field].nbytes
            facts = (str(s["name"]), str(s["encoding"]), int(s["height"]), int(s["width"]), str(s["blob"]))
            frames[s["key"]] = Frames(*facts, **index)
        if at != len(blob):
            raise ValueError(f"{len(blob) - at} bytes too many")
        if header["origin"] not in get_args(Origin) or header["outcome"] not in get_args(Outcome):
            raise ValueError("unknown origin or outcome")
        return Episode(
            **{name: str(header[name]) for name in _TEXTS},  # type: ignore[arg-type]
            seed=int(header["seed"]),
            labels=dict(header["labels"]),
            events=tuple(Event(int(t), str(name), str(text)) for t, name, text in header["events"]),
            signals=signals,
            frames=frames,
        )
    except (ValueError, KeyError, TypeError, OverflowError) as err:
        raise Damaged(f"not a sound episode ({err})", where=where) from err


def header(stream: BinaryIO, *, where: str = "episode") -> dict[str, Any]:
    """The JSON header of an episode's bytes: everything but the arrays, which are not read.

    Raises:
      Damaged: not what ``encode`` writes.
    """
    start = stream.read(12)
    size = int.from_bytes(start[8:], "little")
    text = stream.read(min(size, MAX_HEADER)) if start[:8] == MAGIC else b""
    try:
        found = json.loads(text)
        return {**found, "signals": list(found["signals"]), "frames": list(found.get("frames", ()))}
    except (ValueError, KeyError, TypeError) as err:
        raise Damaged(f"not an episode ({err})", where=where) from err


def _checked(name: str, signal: Timed) -> tuple[NDArray[np.int64], NDArray[Any]]:
    t_ns, values = np.asarray(signal.t_ns), np.asarray(signal.values)
    want = (len(t_ns), *signal.spec.shape) if t_ns.ndim == 1 else ("n", *signal.spec.shape)
    if values.shape != want:
        raise InputError(f"values of shape {values.shape}", where=f"signal {name}", allowed=str(want))
    if values.dtype.kind not in "biuf":
        raise InputError(f"values of type {values.dtype}", where=f"signal {name}", allowed="numbers and booleans")
    if t_ns.dtype.kind not in "iu" or _decreases(t_ns):
        raise InputError("time stamps must be integers [ns] that never decrease", where=f"signal {name}")
    return _little(t_ns, np.dtype("<i8")), _little(values, values.dtype.newbyteorder("<"))


def _decreases(t_ns: NDArray[Any]) -> bool:
    step = _PIECE // 8
    for at in range(0, len(t_ns), step):
        part = t_ns[at : at + step + 1]
        if (part[1:] < part[:-1]).any():
            return True
        release(t_ns)
    return False


def _little(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array as it is where it fits already (a large one may live in a file), else a copy."""
    return array if array.dtype == dtype and array.flags.c_contiguous else np.ascontiguousarray(array, dtype=dtype)


def _checked_index(name: str, f: Frames) -> list[NDArray[Any]]:
    index = [_little(np.asarray(getattr(f, field)), np.dtype(kind)) for field, kind in _INDEX]
    if any(a.shape != (len(f.t_ns),) for a in index):
        raise InputError("its index has columns of different length", where=f"camera {name}")
    t_ns, start, stop, _ = index
    if _decreases(t_ns) or (start < 0).any() or (stop < start).any():
        raise InputError("time stamps that decrease, or pictures of negative size", where=f"camera {name}")
    return index


def _plain(x: Any) -> Any:
    if isinstance(x, (np.generic, np.ndarray)):
        return x.tolist()
    raise TypeError(f"{type(x).__name__} {x!r}")


def labels_json(episode: Episode) -> str:
    """The labels as JSON text; numbers that JSON has not (NaN, infinity) are null: SQLite reads no others."""
    text = json.dumps(dict(episode.labels), sort_keys=True, default=_plain)
    return json.dumps(json.loads(text, parse_constant=lambda _: None), sort_keys=True)


def span_ns(episode: Episode) -> tuple[int, int]:
    """First and last time stamp of its signals, cameras and events [ns]; (0, 0) when it has none."""
    stamps = [s.t_ns for s in episode.signals.values()] + [f.t_ns for f in episode.frames.values()]
    ends = [int(t[i]) for t in stamps if len(t) for i in (0, -1)]
    ends += [e.t_ns for e in episode.events]
    return (min(ends), max(ends)) if ends else (0, 0)
