"""Tracks: the way an episode's measured state takes, whatever time it takes for it.

In: episodes. Out: their states as points at equal distances along the way. An episode that is slower, or that waits,
has the same way; that is what keeps comparisons from rewarding or punishing length.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.base import Timed
from flyball.episodes.curation.motion import Array, is_rate, noise, numbers, period_ns, places, whole_grid
from flyball.episodes.episode import Episode

HZ = 25.0
"""Rate at which states are looked at [Hz]: movements that matter take longer than 40 ms."""
SMOOTH_S = 0.1
"""States are averaged over this time [s]: a way is about where things go, not about noise."""
MOST_SAMPLES = 2000
"""Samples kept of an episode; a longer one is looked at less often."""
SHINGLE = 12
"""Consecutive samples that must be equal, bit by bit, to count as copied."""
SKETCH = 512
"""Hashes kept of an episode."""
STEP = 0.04
"""Step along a way, as a share of the group's range of movement."""


@dataclass(frozen=True)
class Track:
    """States of one episode.

    Attributes:
      elements: signal and element of each column.
      t_ns: times [ns], (n,).
      x: states, (n, d), float32, without rates: they depend on how fast the way is taken.
      noise: of each column, (d,).
      sketch: smallest hashes of what was recorded, bit by bit, (at most 512,), ascending.
    """

    elements: tuple[tuple[str, int], ...]
    t_ns: NDArray[np.int64]
    x: NDArray[np.float32]
    noise: Array
    sketch: NDArray[np.uint64]


def track(episode: Episode) -> Track | None:
    """The states of an episode; None when fewer than 8 samples of any could be compared."""
    found = {n: s for n, s in sorted(places(episode).items()) if not is_rate(n, s)}
    if not found:
        return None
    grid = whole_grid(found.values(), HZ)
    if len(grid) < 8:
        return None
    if len(grid) > MOST_SAMPLES:
        grid = np.linspace(grid[0], grid[-1], MOST_SAMPLES)
    columns, elements, levels = [], [], []
    for name, s in found.items():
        x = numbers(s)
        stamps = s.t_ns.astype(float)
        block = min(max(1, round(SMOOTH_S * 1e9 / period_ns(s.t_ns))), len(x))
        pad = np.pad(x, ((block // 2, block - 1 - block // 2), (0, 0)), mode="edge")
        total = np.cumsum(np.concatenate([np.zeros((1, x.shape[1])), pad]), axis=0)
        smooth = (total[block:] - total[:-block]) / block
        levels.append(noise(x) / np.sqrt(block))
        columns.append(np.stack([np.interp(grid, stamps, smooth[:, j]) for j in range(x.shape[1])], axis=1))
        elements += [(name, j) for j in range(x.shape[1])]
    for a, b, n in _metric_pairs(found):  # what matters to a task is where things are relative to one another
        i, j = elements.index((a, 0)), elements.index((b, 0))
        whole = np.concatenate(columns, axis=1)
        columns.append(whole[:, i : i + n] - whole[:, j : j + n])
        level = np.concatenate(levels)
        levels.append(np.hypot(level[i : i + n], level[j : j + n]))
        elements += [(f"{a} - {b}", k) for k in range(n)]
    states32: NDArray[np.float32] = np.concatenate(columns, axis=1).astype(np.float32)
    return Track(tuple(elements), grid.astype(np.int64), states32, np.concatenate(levels), _sketch(found))


def _metric_pairs(signals: dict[str, Timed]) -> list[tuple[str, str, int]]:
    """Pairs of signals that are places in one frame, and how many coordinates [m] both have."""
    metres = {n: _leading_metres(s) for n, s in signals.items()}
    names = [n for n, k in metres.items() if k >= 2]
    return [
        (a, b, min(metres[a], metres[b]))
        for i, a in enumerate(names)
        for b in names[i + 1 :]
        if signals[a].spec.frame == signals[b].spec.frame
    ]


def _leading_metres(s: Timed) -> int:
    units = s.spec.unit.split()
    units = units * s.spec.size if len(units) == 1 else units
    return next((i for i, u in enumerate(units) if u != "m"), len(units)) if len(s.spec.shape) == 1 else 0


def _sketch(signals: dict[str, Timed]) -> NDArray[np.uint64]:
    hashes: set[int] = set()
    for name, s in signals.items():
        x = np.ascontiguousarray(np.asarray(s.values).reshape(len(s.t_ns), -1))
        changes = np.concatenate([[0], np.cumsum((x[1:] != x[:-1]).any(axis=1))])
        raw, size, salt = x.tobytes(), x.strides[0], name.encode()
        every = max(1, len(x) // 20_000)
        for i in range(0, len(x) - SHINGLE + 1):
            if changes[i + SHINGLE - 1] - changes[i] < SHINGLE // 2:
                continue
            piece = raw[i * size : (i + SHINGLE) * size]
            if every > 1 and piece[0] % every:  # of a long signal a share, chosen by content
                continue
            hashes.add(int.from_bytes(hashlib.blake2b(piece, digest_size=8, key=salt[:64]).digest(), "little"))
    return np.array(sorted(hashes)[:SKETCH], np.uint64)


@dataclass(frozen=True)
class Scale:
    """How states of a group are made comparable.

    Attributes:
      elements: those that all have and that move in some, in order.
      size: what counts as one, per element, (d,): its range over the group, each signal weighing the same.
      step: distance between points of a way, in these units.
    """

    elements: tuple[tuple[str, int], ...]
    size: Array
    step: float


def scale_of(tracks: list[Track], step: float = STEP) -> Scale | None:
    """The common scale of a group; None when nothing moves in common.

    Args:
      tracks: of its episodes.
      step: along a way, as a share of the group's range of movement; never below the noise.
    """
    counts: dict[tuple[str, int], int] = {}
    for t in tracks:
        for e in t.elements:
            counts[e] = counts.get(e, 0) + 1
    common = [e for e, k in counts.items() if k >= 0.8 * len(tracks)]
    if not common:
        return None
    width, level = [], []
    for e in common:
        own = [(t, t.elements.index(e)) for t in tracks if e in t.elements]
        ends = np.array([np.percentile(t.x[:, j], [2, 98]) for t, j in own])
        width.append(float(np.percentile(ends[:, 1], 90) - np.percentile(ends[:, 0], 10)))
        level.append(float(np.median([t.noise[j] for t, j in own])))
    widths, levels = np.array(width), np.array(level)
    moves = widths > 8 * levels
    if not moves.any():
        return None
    elements = tuple(e for e, m in zip(common, moves, strict=True) if m)
    per_signal = {n: sum(1 for e in elements if e[0] == n) for n, _ in elements}
    weight = np.array([per_signal[n] for n, _ in elements], float)
    size = widths[moves] * np.sqrt(weight * len(per_signal))
    step = max(step, 4.0 * float(np.linalg.norm(levels[moves] / size)))
    return Scale(elements, size, step)


@dataclass(frozen=True)
class Way:
    """The way of one episode.

    Attributes:
      points: at equal distances along it, (m, d), in the units of the group's scale; the first and last are its ends.
      t_ns: when each was reached, (m,).
    """

    points: Array
    t_ns: NDArray[np.int64]


def resampled(points: Array, m: int) -> Array:
    """A way as m points at equal shares of its length, (k, d) -> (m, d)."""
    at = np.linspace(0, len(points) - 1, m)
    return np.stack([np.interp(at, np.arange(len(points)), c) for c in points.T], axis=1)


def way(t: Track, scale: Scale) -> Way:
    """Follow an episode's state at a distance of ``scale.step``: what is smaller, noise or waiting, moves nothing."""
    at = {e: j for j, e in enumerate(t.elements)}
    columns = [t.x[:, at[e]].astype(float) if e in at else np.zeros(len(t.x)) for e in scale.elements]
    x = np.stack(columns, axis=1) / scale.size
    here = x[0]
    points, when = [here], [int(t.t_ns[0])]
    for state, now in zip(x, t.t_ns, strict=True):
        away = float(np.linalg.norm(state - here))
        while away >= scale.step:
            here = here + (state - here) * (scale.step / away)
            points.append(here)
            when.append(int(now))
            away -= scale.step
    points.append(x[-1])
    when.append(int(t.t_ns[-1]))
    return Way(np.array(points), np.array(when, np.int64))
