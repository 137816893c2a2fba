"""What an episode is like, in numbers that are cheap to search.

In: an episode. Out: a ``Summary``: statistics of every element of every signal, counts and times of events, facts about
cameras. A pure function of the episode, so that any process may compute it; the catalogue keeps it beside the row.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.episodes import codec
from flyball.episodes.episode import Episode
from flyball.episodes.intake import release

VERSION = 1
"""Rises when the numbers mean something else; older summaries are then made anew."""

STATISTICS = {
    "count": "number of samples",
    "nan": "number of samples that are NaN or infinite; they count in nothing but count, nan and rate",
    "min": "smallest value",
    "max": "largest value",
    "mean": "mean over samples",
    "std": "standard deviation over samples (population)",
    "first": "first value",
    "last": "last value",
    "rate": "samples per second",
}
WHOLE = ("count", "nan", "min", "max", "rate")
"""Statistics that a signal with several elements also has as a whole."""

MOST_ELEMENTS = 64
"""A signal with more elements (a depth image, a point cloud) is summarised as a whole."""

_PIECE = 1 << 20  # elements in memory at once: signals may be mapped from files larger than the memory


@dataclass(frozen=True)
class Summary:
    """What the catalogue keeps of an episode's contents.

    Attributes:
      layout: JSON, [[signal, shape, unit, dtype], ...] in order of name; equal for episodes of one kind.
      stats: float64 little endian, (elements of all signals, len(STATISTICS)); NaN where there is no such number.
      facts: JSON, {"events": {name: [count, first s, last s]}, "frames": {name: [encoding, height, width, count,
        rate, bytes]}}; seconds since the episode began.
    """

    layout: str
    stats: bytes
    facts: str


def summarise(episode: Episode) -> Summary:
    """The summary of an episode."""
    layout, stats = [], []
    for name in sorted(episode.signals):
        s = episode.signals[name]
        layout.append([name, list(s.spec.shape), s.spec.unit, np.asarray(s.values).dtype.str.lstrip("<>=|")])
        stats.append(_statistics(np.asarray(s.t_ns), np.asarray(s.values)))
    begin, _ = codec.span_ns(episode)
    events: dict[str, list[Any]] = {}
    for e in episode.events:
        t = (e.t_ns - begin) * 1e-9
        count, first, last = events.get(e.name, (0, t, t))
        events[e.name] = [count + 1, min(first, t), max(last, t)]
    frames = {
        name: [
            f.encoding,
            f.height,
            f.width,
            len(f.t_ns),
            None if math.isnan(hz) else hz,
            int((f.stop - f.start).sum()),
        ]
        for name, f in sorted(episode.frames.items())
        for hz in [_rate(f.t_ns)]
    }
    return Summary(
        json.dumps(layout, separators=(",", ":")),
        np.concatenate([*stats, np.zeros((0, len(STATISTICS)))]).astype("<f8").tobytes(),
        json.dumps({"events": events, "frames": frames}, separators=(",", ":")),
    )


def elements(shape: tuple[int, ...] | list[int]) -> list[str]:
    """How the summarised elements of a signal are written behind its name: ``[""]``, ``["[0]", "[1]"]``, ..."""
    if not shape or math.prod(shape) > MOST_ELEMENTS:
        return [""]
    return [f"[{','.join(map(str, i))}]" for i in np.ndindex(*shape)]


def _statistics(t_ns: NDArray[np.int64], values: NDArray[Any]) -> NDArray[np.float64]:
    n, size = len(values), math.prod(values.shape[1:])
    whole = size > MOST_ELEMENTS
    flat = values.reshape(-1, 1) if whole else values.reshape(n, size)
    out = np.full((flat.shape[1], len(STATISTICS)), np.nan)
    rows = max(1, _PIECE // max(flat.shape[1], 1))
    with np.errstate(over="ignore", invalid="ignore"):
        pieces = []
        for at in range(0, len(flat), rows):
            pieces.append(_piece(flat[at : at + rows]))
            release(values)
        if pieces:
            out[:, 1:-1] = _joined(pieces)
    out[:, 0], out[:, -1] = n, _rate(t_ns)
    out[:, 1] = len(flat) - out[:, 1] if pieces else 0
    if whole:
        out[:, 6:8] = np.nan
    return out


def _piece(values: NDArray[Any]) -> NDArray[np.float64]:
    """Of some samples (k, elements): number of finite ones, min, max, mean, std, first, last, (elements, 7)."""
    x = np.ascontiguousarray(values.T, dtype=np.float64)
    k = x.shape[1]
    low, high = x.min(axis=1), x.max(axis=1)
    if np.isfinite(low).all() and np.isfinite(high).all():  # what is not finite would show in one of them
        mean = x.mean(axis=1)
        off = x - mean[:, None]
        std = np.sqrt(np.einsum("ek,ek->e", off, off) / k)
        return np.stack([np.full(len(x), float(k)), low, high, mean, std, x[:, 0], x[:, -1]], axis=1)
    out = np.full((len(x), 7), np.nan)
    for e, row in enumerate(x):
        good = row[np.isfinite(row)]
        out[e, 0] = len(good)
        if len(good):
            out[e, 1:] = good.min(), good.max(), good.mean(), good.std(), good[0], good[-1]
    return out


def _joined(pieces: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Pieces of one signal, in order, as one piece (Chan, Golub, LeVeque 1979)."""
    out = pieces[0]
    for more in pieces[1:]:
        some = np.where((out[:, 0] == 0)[:, None], more, out)
        a, b = out[:, 0], more[:, 0]
        both, share = (a > 0) & (b > 0), b / np.maximum(a + b, 1)
        off = more[:, 3] - out[:, 3]
        mean = out[:, 3] + off * share
        std = np.sqrt(out[:, 4] ** 2 * (1 - share) + more[:, 4] ** 2 * share + off**2 * share * (1 - share))
        merged = [np.fmin(out[:, 1], more[:, 1]), np.fmax(out[:, 2], more[:, 2]), mean, std, out[:, 5], more[:, 6]]
        some[:, 1:] = np.where(both[:, None], np.stack(merged, axis=1), some[:, 1:])
        some[:, 0] = a + b
        out = some
    return out


def _rate(t_ns: NDArray[np.int64]) -> float:
    """Samples per second; NaN below two samples."""
    span = int(t_ns[-1]) - int(t_ns[0]) if len(t_ns) > 1 else 0
    return (len(t_ns) - 1) / (span * 1e-9) if span > 0 else math.nan
