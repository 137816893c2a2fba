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
    n, whole = len(values), math.prod(values.shape[1:]) > MOST_ELEMENTS
    flat = values.reshape(-1, 1) if whole else values.reshape(n, -1)
    size = flat.shape[1]
    low, high = np.full(size, np.inf), np.full(size, -np.inf)
    first, last = np.full(size, np.nan), np.full(size, np.nan)
    good, total, squares = np.zeros(size, np.int64), np.zeros(size), np.zeros(size)
    rows = max(1, _PIECE // max(size, 1))
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, len(flat), rows):
            x = flat[at : at + rows].astype(np.float64)
            sound = np.isfinite(x)
            there = sound.any(axis=0)
            count = sound.sum(axis=0)
            new = there & np.isnan(first)
            first[new] = x[sound.argmax(axis=0), np.arange(size)][new]
            last[there] = x[len(x) - 1 - sound[::-1].argmax(axis=0), np.arange(size)][there]
            if count.min(initial=len(x)) != len(x):
                low = np.minimum(low, np.where(sound, x, np.inf).min(axis=0))
                high = np.maximum(high, np.where(sound, x, -np.inf).max(axis=0))
                x = np.where(sound, x, 0.0)
            else:
                low, high = np.minimum(low, x.min(axis=0)), np.maximum(high, x.max(axis=0))
            # Mean and squared deviations of this piece, joined to those before (Chan, Golub, LeVeque 1979).
            some = np.maximum(count, 1)
            mean = x.sum(axis=0) / some
            off = np.where(good > 0, mean - total / np.maximum(good, 1), 0.0)
            squares += (np.where(sound, x - mean, 0.0) ** 2).sum(axis=0)
            squares += off**2 * good * count / np.maximum(good + count, 1)
            total, good = total + x.sum(axis=0), good + count
        seen = good > 0
        some = np.maximum(good, 1)
        out = np.column_stack(
            [
                np.full(size, n),
                (len(flat) - good),
                np.where(seen, low, np.nan),
                np.where(seen, high, np.nan),
                np.where(seen, total / some, np.nan),
                np.where(seen, np.sqrt(squares / some), np.nan),
                np.full(size, np.nan) if whole else first,
                np.full(size, np.nan) if whole else last,
                np.full(size, _rate(t_ns)),
            ]
        )
    return out


def _rate(t_ns: NDArray[np.int64]) -> float:
    """Samples per second; NaN below two samples."""
    span = int(t_ns[-1]) - int(t_ns[0]) if len(t_ns) > 1 else 0
    return (len(t_ns) - 1) / (span * 1e-9) if span > 0 else math.nan
