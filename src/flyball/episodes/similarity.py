"""Finding more like this: windows of other episodes in which a signal moves as it does in a given one.

In: an episode, a signal, a window of time. Out: ``Match``es, nearest first. Every episode's signal is kept once more,
resampled to a coarse rate that suits the window (files under ``index/``, derived, made on first use and appended to);
all windows of all episodes are compared there by sliding dot products (FFT), and the best are measured again on the
recorded samples. Source of the method: Mueen et al., "The fastest similarity search algorithm for time series
subsequences" (MASS).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, FlyballError, InputError, Missing, Timed
from flyball.base.durable import make_folder
from flyball.base.store import locked
from flyball.episodes import codec
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.episode import Episode
from flyball.episodes.summaries import MOST_ELEMENTS

By = Literal["shape", "motion", "values"]

RATES = (5.0, 20.0, 80.0, 320.0)
"""Rates of the coarse copies [Hz]."""

POINTS = 16
"""A window has at least so many coarse points, where the rates allow it."""

FEWEST = 4
"""A window holds at least so many recorded samples."""

QUIET = 0.2
"""By shape, a window that moves less than this share of the given one counts as moving so much: noise has no shape."""

_BLOCK = 1 << 16  # coarse points that are compared at once: fits the caches
_FINE = 256  # points of a window that is measured on recorded samples, at most
_SHIFTS = 4  # places between two of them that are tried
_SCHEMA = """
CREATE TABLE resampled (
  key TEXT NOT NULL, digest TEXT NOT NULL, begin_ns INTEGER NOT NULL, first INTEGER NOT NULL, n INTEGER NOT NULL,
  level BLOB NOT NULL, PRIMARY KEY (key, digest))
"""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Match:
    """A window like the given one.

    Attributes:
      digest: the episode.
      start_s, end_s: since the episode's start [s].
      distance: by ``shape`` from 0 (the same) over 1.41 (unrelated) to 2 (the opposite); by ``motion`` and ``values``
        the root mean square of the difference, in the signal's unit (in standard deviations where units differ).
    """

    digest: str
    start_s: float
    end_s: float
    distance: float


def like(
    catalogue: Catalogue,
    digest: str,
    signal: str,
    start_s: float = 0.0,
    end_s: float | None = None,
    *,
    by: By = "shape",
    stretch: float = 1.0,
    top: int = 10,
    among: Collection[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Match]:
    """Windows in which a signal behaves as it does in a window of an episode; that window itself is left out.

    Args:
      catalogue: where to look.
      digest: the episode.
      signal: its name, or one element of it: ``joint.position``, ``joint.position[2]``.
      start_s, end_s: the window, since the episode's start [s]; by default the whole episode.
      by: what counts. ``shape``: only the shape, neither offset nor amplitude (one amplitude for all elements);
        ``motion``: shape and amplitude; ``values``: the values themselves.
      stretch: also find what is up to this factor slower or faster.
      top: how many, at most.
      among: digests to look among; None for all.
      progress: told of episodes that are resampled first, because nobody has yet: (done, all).

    Raises:
      Missing: no such episode or signal.
      InputError: a window outside the episode or too short, one that holds NaN, or (by shape) in which nothing moves.
    """
    if by not in get_args(By):
        raise InputError(f"cannot compare by {by!r}", allowed=", ".join(get_args(By)))
    if not 1.0 <= stretch <= 4.0:
        raise InputError(f"stretch {stretch:g}", allowed="1 to 4")
    query = _query(catalogue, digest, signal, start_s, end_s, by)
    copy = _Copy(catalogue, query.name, query.shape, query.rate)
    copy.refresh(progress)
    rows = copy.rows()
    if among is not None:
        among = frozenset(among)
    steps = 1 if stretch == 1.0 else 2 * math.ceil(math.log(stretch) / math.log(1.15)) + 1
    spans = query.span_s * np.geomspace(1 / stretch, stretch, steps) if steps > 1 else np.array([query.span_s])
    rough = _scan(query, copy, rows, spans, among, keep=20 * top + 100)
    found: list[Match] = []
    chosen: list[Match] = []
    for candidate in rough:
        own = candidate.digest == digest and _overlap(candidate, query.start_s, query.end_s) > 0
        if own or any(
            c.digest == candidate.digest and _overlap(c, candidate.start_s, candidate.end_s) > 0.5 for c in chosen
        ):
            continue
        chosen.append(candidate)
        found.append(_refined(catalogue, query, candidate))
        if len(chosen) >= 2 * top + 8:
            break
    return sorted((m for m in found if math.isfinite(m.distance)), key=lambda m: m.distance)[:top]


# ---- the window that is looked for


@dataclass(frozen=True)
class _Query:
    """The given window, and how to compare with it."""

    episode: str
    name: str
    shape: tuple[int, ...]
    elements: NDArray[np.int64]
    """Which elements of the flattened signal count."""
    start_s: float
    end_s: float
    by: By
    rate: float
    """Of the coarse copy [Hz]."""
    t_s: Array
    values: Array
    """Recorded samples around the window: (n,) since the episode's start, and (n, elements)."""
    weight: Array
    """(elements,): one over the spread of each where their units differ."""

    @property
    def span_s(self) -> float:
        return self.end_s - self.start_s

    def sampled(self, n: int) -> Array:
        """The window at n points, (n, elements), weighted."""
        return _at(np.linspace(self.start_s, self.end_s, n), self.t_s, self.values) * self.weight

    def prepared(self, window: Array) -> Array:
        """What is compared of a weighted window: (..., n, elements)."""
        return window if self.by == "values" else window - window.mean(axis=-2, keepdims=True)


def _query(catalogue: Catalogue, digest: str, signal: str, start_s: float, end_s: float | None, by: By) -> _Query:
    episode = catalogue.load(digest)
    place = f"episode {digest[:12]}"
    name, elements = _elements(episode, signal, place)
    recorded = episode.signals[name]
    begin, end = codec.span_ns(episode)
    length = (end - begin) * 1e-9
    end_s = length if end_s is None else end_s
    if not 0 <= start_s < end_s <= length + 1e-6:
        raise InputError(
            f"a window from {start_s:g} to {end_s:g} s", where=place, allowed=f"within 0 to {length:.3f} s, from < to"
        )
    t_s, values = _samples(recorded, begin, elements)
    inside = (t_s >= start_s) & (t_s <= end_s)
    if inside.sum() < FEWEST:
        raise InputError(
            f"only {inside.sum()} samples of {signal} from {start_s:g} to {end_s:g} s",
            where=place,
            allowed=f"a window of at least {FEWEST} samples, and recorded throughout",
        )
    bad = ~np.isfinite(values[inside]).all(axis=1)
    if bad.any():
        raise InputError(
            f"{signal} is NaN or infinite at {t_s[inside][bad][0]:.3f} s", where=place, allowed="a window without"
        )
    if t_s[inside][0] - start_s > 0.25 * (end_s - start_s) or end_s - t_s[inside][-1] > 0.25 * (end_s - start_s):
        raise InputError(f"{signal} is recorded only from {t_s[inside][0]:.3f} to {t_s[inside][-1]:.3f} s", where=place)
    if by != "values" and not np.ptp(values[inside], axis=0).any():
        raise InputError(f"{signal} does not move in this window", where=place, allowed="another window, or by values")
    rate = next((r for r in RATES if (end_s - start_s) * r >= POINTS), RATES[-1])
    if (end_s - start_s) * rate < FEWEST:
        raise InputError(f"a window of {end_s - start_s:g} s", where=place, allowed=f"{FEWEST / rate:g} s and more")
    units = recorded.spec.unit.split()
    weight = np.ones(len(elements))
    if len(set(units)) > 1:
        spread = np.nanstd(np.where(np.isfinite(values), values, np.nan), axis=0)
        weight = 1 / np.where(spread > 0, spread, 1.0)
    return _Query(digest, name, recorded.spec.shape, elements, start_s, end_s, by, rate, t_s, values, weight)


def _elements(episode: Episode, signal: str, place: str) -> tuple[str, NDArray[np.int64]]:
    """The signal's name, and which of its flattened elements are meant."""
    name, index = signal, None
    if name not in episode.signals and (m := re.fullmatch(r"(.+)\[(\d+(?:,\s*\d+)*)\]", signal)):
        name, index = m[1], tuple(map(int, m[2].split(",")))
    if name not in episode.signals:
        raise Missing.named("signal", name, episode.signals, where=place)
    spec = episode.signals[name].spec
    if spec.size > MOST_ELEMENTS or spec.size == 0:
        raise InputError(f"{name} has {spec.size} elements", where=place, allowed=f"signals of 1 to {MOST_ELEMENTS}")
    if index is None:
        return name, np.arange(spec.size)
    try:
        return name, np.array([np.ravel_multi_index(index, spec.shape)])
    except ValueError as err:
        raise InputError(f"{name} has no element {list(index)}", where=place, allowed=f"shape {spec.shape}") from err


def _samples(recorded: Timed, begin_ns: int, elements: NDArray[np.int64] | None = None) -> tuple[Array, Array]:
    """Times since the episode's start [s], (n,), and values (n, elements)."""
    values = np.asarray(recorded.values).reshape(len(recorded.t_ns), recorded.spec.size)
    values = values.astype(np.float64) if elements is None else values[:, elements].astype(np.float64)
    return np.multiply(np.asarray(recorded.t_ns) - begin_ns, 1e-9, dtype=np.float64), values


def _at(t: Array, t_s: Array, values: Array) -> Array:
    """Values at times t, (len(t), elements), linear between sound samples; NaN where those are far apart."""
    out: Array = np.full((len(t), values.shape[1]), np.nan)
    far = 3 * float(np.median(np.diff(t_s))) + 1e-9 if len(t_s) > 1 else 0.0
    sound = np.isfinite(values)
    for e in range(values.shape[1]):
        own_t, own = (t_s, values[:, e]) if sound[:, e].all() else (t_s[sound[:, e]], values[sound[:, e], e])
        if not len(own):
            continue
        out[:, e] = np.interp(t, own_t, own)
        after = np.clip(np.searchsorted(own_t, t), 1, max(len(own_t) - 1, 1))
        if len(own_t) > 1:
            gap = own_t[after] - own_t[after - 1]
            nearest = np.minimum(np.abs(t - own_t[after]), np.abs(t - own_t[after - 1]))
            out[(gap > far) & (nearest > far / 2), e] = np.nan
        out[(t < own_t[0] - far) | (t > own_t[-1] + far), e] = np.nan
    return out


# ---- the coarse copies


@dataclass(frozen=True)
class _Rows:
    """Which episodes a copy holds, in the order of their points."""

    digests: list[str]
    begin_s: Array
    """Time of the first point since the episode's start [s]."""
    first: NDArray[np.int64]
    n: NDArray[np.int64]
    level: Array
    """(episodes, elements): subtracted from the points."""


class _Copy:
    """One signal of all episodes, resampled to one rate: a file of float32 points (n, elements), NaN where unknown.

    Rows in the database say whose points are where; they are written after the points are on disk, so what a killed
    writer leaves behind is not named by any row and the next one overwrites it.
    """

    def __init__(self, catalogue: Catalogue, signal: str, shape: tuple[int, ...], rate: float) -> None:
        self.catalogue, self.store = catalogue, catalogue.store
        self.signal, self.shape, self.rate = signal, shape, rate
        self.size = math.prod(shape)
        name = json.dumps([signal, list(shape), rate])
        self.key = hashlib.sha256(name.encode()).hexdigest()[:24]
        self.path: Path = self.store.root / "index" / f"{self.key}.f32"
        self.store.ensure("resampled", _SCHEMA)

    def rows(self) -> _Rows:
        """What is there, checked against the file."""
        sql = "SELECT digest, begin_ns, first, n, level FROM resampled WHERE key = ? ORDER BY first"
        found = self.store.read(sql, (self.key,))
        levels = np.frombuffer(b"".join(r[4] for r in found), "<f8").reshape(len(found), self.size)
        return _Rows(
            [r[0] for r in found],
            np.array([r[1] for r in found], float) * 1e-9,
            np.array([r[2] for r in found], np.int64),
            np.array([r[3] for r in found], np.int64),
            levels,
        )

    def points(self, n: int) -> NDArray[np.float32]:
        """The first n points, mapped from the file."""
        if n == 0:
            return np.zeros((0, self.size), np.float32)
        return np.memmap(self.path, np.float32, "r", shape=(n, self.size))

    def refresh(self, progress: Callable[[int, int], None] | None) -> None:
        """Append the episodes that are missing; everything when the file was lost."""
        self.catalogue.reindex(progress=progress)
        if self._held() * self.size * 4 > self._bytes():
            with self.store.transaction() as db:
                db.execute("DELETE FROM resampled WHERE key = ?", (self.key,))
        if not self._missing():
            return
        make_folder(self.path.parent)
        with locked(self.path.with_suffix(".lock")):
            missing = self._missing()  # another process may have been at it
            for at in range(0, len(missing), 128):
                self._append(missing[at : at + 128])
                if progress is not None:
                    progress(min(at + 128, len(missing)), len(missing))

    def _append(self, digests: Sequence[str]) -> None:
        first = self._held()
        rows, parts = [], [np.zeros((0, self.size), np.float32)]
        for digest in digests:
            begin_s, points, level = self._resampled(digest)
            rows.append((self.key, digest, round(begin_s * 1e9), first, len(points), level.astype("<f8").tobytes()))
            parts.append(points)
            first += len(points)
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        with os.fdopen(fd, "r+b") as f:
            f.truncate(rows[0][3] * self.size * 4)
            f.seek(0, os.SEEK_END)
            f.write(np.concatenate(parts).tobytes())
            f.flush()
            os.fsync(f.fileno())
        with self.store.transaction() as db:
            db.executemany("INSERT OR REPLACE INTO resampled VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _resampled(self, digest: str) -> tuple[float, NDArray[np.float32], Array]:
        """Time of the first point [s], points, and the level that was subtracted; no points when it cannot be read."""
        none = 0.0, np.zeros((0, self.size), np.float32), np.zeros(self.size)
        try:
            episode = self.catalogue.load(digest)
        except FlyballError:
            return none
        recorded = episode.signals[self.signal]
        if len(recorded.t_ns) < FEWEST:
            return none
        t_s, values = _samples(recorded, codec.span_ns(episode)[0])
        sound = np.isfinite(values)
        level = np.where(sound, values, 0.0).sum(axis=0) / np.maximum(sound.sum(axis=0), 1)
        points = resample(t_s, values - level, self.rate)
        return float(t_s[0]) + 0.5 / self.rate, points.astype(np.float32), level

    def _held(self) -> int:
        (row,) = self.store.read("SELECT max(first + n) FROM resampled WHERE key = ?", (self.key,))
        return int(row[0] or 0)

    def _bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def _missing(self) -> list[str]:
        """Episodes with this signal, in this shape, that have no row yet."""
        layouts = [
            id_
            for id_, text in self.store.read("SELECT id, layout FROM layouts")
            if any(x[0] == self.signal and tuple(x[1]) == self.shape for x in json.loads(text))
        ]
        marks = ", ".join("?" * len(layouts))
        sql = (
            f"SELECT s.digest FROM episodes e JOIN summaries s ON s.digest = e.digest WHERE s.layout IN ({marks})"
            " AND NOT EXISTS (SELECT 1 FROM resampled r WHERE r.key = ? AND r.digest = s.digest) ORDER BY e.rowid"
        )
        return [row[0] for row in self.store.read(sql, (*layouts, self.key))]


def resample(t_s: Array, values: Array, rate: float) -> Array:
    """Samples at a lower or higher rate: means over bins, or linear interpolation where samples are farther apart.

    Args:
      t_s: times [s], shape (n,), non-decreasing, n >= 1.
      values: shape (n, elements); what is not finite counts as not recorded.
      rate: of the result [Hz]; point i stands for t_s[0] + i / rate to t_s[0] + (i + 1) / rate.

    Returns:
      Shape (floor((t_s[-1] - t_s[0]) * rate) + 1, elements); NaN where nothing is recorded nearby.
    """
    n = int((t_s[-1] - t_s[0]) * rate + 1e-6) + 1
    centre = t_s[0] + (np.arange(n) + 0.5) / rate
    out = _at(centre, t_s, values)
    edges = np.searchsorted(t_s, t_s[0] + np.arange(n + 1) / rate - 1e-9)
    edges[-1] = len(t_s)
    sound = np.isfinite(values)
    sums = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(np.where(sound, values, 0.0), axis=0)])
    counts = np.concatenate([np.zeros((1, values.shape[1])), np.cumsum(sound, axis=0)])
    count = counts[edges[1:]] - counts[edges[:-1]]
    mean = (sums[edges[1:]] - sums[edges[:-1]]) / np.maximum(count, 1)
    # A bin with one sample is interpolated to its middle, unless that lies beyond the record.
    return np.where((count > 1) | ((count == 1) & np.isnan(out)), mean, out)


# ---- comparing


def _scan(
    query: _Query, copy: _Copy, rows: _Rows, spans: Array, among: Collection[str] | None, keep: int
) -> list[Match]:
    """The best windows on the coarse copy, nearest first, neighbours of each other left out."""
    if not rows.digests:
        return []
    points = copy.points(int((rows.first + rows.n).max()))
    wanted = np.array([among is None or d in among for d in rows.digests])
    owner = np.full(len(points), -1, np.int32)
    for i in np.flatnonzero(wanted):
        owner[rows.first[i] : rows.first[i] + rows.n[i]] = i
    patterns = []
    for span in spans:
        m = max(FEWEST, round(span * copy.rate))
        fine = query.sampled(m * max(1, math.ceil(_FINE / m)))
        patterns.append(fine.reshape(m, -1, fine.shape[1]).mean(axis=1))
    best_distance = np.zeros(0)
    best_at = np.zeros((0, 2), np.int64)
    longest = max(len(p) for p in patterns)
    everything = len(query.elements) == copy.size
    for start in range(0, len(points), _BLOCK):
        own = owner[start : start + _BLOCK + longest]
        if (own < 0).all():
            continue
        x = points[start : start + _BLOCK + longest]
        x = (x if everything else x[:, query.elements]).astype(np.float32)
        if query.by == "values":
            x += rows.level[np.maximum(own, 0)][:, query.elements].astype(np.float32)
        x *= query.weight.astype(np.float32)
        for j, distance in enumerate(_distances(x, patterns, query.by)):
            m = len(patterns[j])
            whole = (own[: len(distance)] >= 0) & (own[: len(distance)] == own[m - 1 : m - 1 + len(distance)])
            distance = np.where(whole & np.isfinite(distance), distance, np.inf)[:_BLOCK]
            # Of neighbours only the nearest: a good window's neighbours are nearly as good.
            dip = np.isfinite(distance)
            dip[1:] &= distance[1:] <= distance[:-1]
            dip[:-1] &= distance[:-1] < distance[1:]
            at = np.flatnonzero(dip)
            if len(at) > keep:
                at = at[np.argpartition(distance[at], keep)[:keep]]
            best_distance = np.concatenate([best_distance, distance[at]])
            best_at = np.concatenate([best_at, np.column_stack([start + at, np.full(len(at), j)])])
            if len(best_distance) > keep:
                order = np.argpartition(best_distance, keep)[:keep]
                best_distance, best_at = best_distance[order], best_at[order]
    found = []
    for k in np.argsort(best_distance, kind="stable"):
        at, j = best_at[k]
        i = owner[at]
        begin = rows.begin_s[i] + (at - rows.first[i] - 0.5) / copy.rate
        found.append(Match(rows.digests[i], float(begin), float(begin + spans[j]), float(best_distance[k])))
    return found


def _distances(x: NDArray[np.float32], patterns: Sequence[Array], by: By) -> Iterator[NDArray[np.float32]]:
    """For each pattern (m, elements) its distance to every window of x (n, elements); NaN where x is unknown."""
    unknown: NDArray[Any] = np.asarray(~np.isfinite(x).all(axis=1))
    x = np.where(np.isfinite(x), x, np.float32(0))
    if by == "values":  # near the pattern's own values float32 is exact enough
        level = np.mean([p.mean(axis=0) for p in patterns], axis=0)
        x = x - level.astype(np.float32)
        patterns = [p - level for p in patterns]
    n, size = x.shape
    longest = max(len(p) for p in patterns)
    length = 1 << max(12, math.ceil(math.log2(4 * longest)))
    hop = length - longest + 1
    blocks = -(-n // hop)
    padded = np.zeros((blocks * hop + longest, size), np.float32)
    padded[:n] = x
    windows = np.lib.stride_tricks.sliding_window_view(padded, length, axis=0)[::hop][:blocks]  # (blocks, size, length)
    spectrum = np.fft.rfft(windows, axis=2)
    squares: NDArray[Any] = np.asarray(np.einsum("ne,ne->n", x, x))
    for pattern in patterns:
        m = len(pattern)
        if m > n:
            yield np.zeros(0, np.float32)
            continue
        p = pattern if by == "values" else pattern - pattern.mean(axis=0)
        transformed = np.conj(np.fft.rfft(p.T.astype(np.float32), length, axis=1))
        product = np.einsum("bef,ef->bf", spectrum, transformed)
        dot = np.fft.irfft(product, length, axis=1)[:, :hop].reshape(-1)[: n - m + 1]
        energy = _sums(squares, m)
        if by != "values":
            sums = _sums(x, m)
            energy = energy - np.einsum("ne,ne->n", sums, sums) / m
        own = float((p**2).sum())
        energy = np.maximum(energy, 0.0)
        if by == "shape":
            scale = np.maximum(np.sqrt(energy), QUIET * math.sqrt(own)) * math.sqrt(own)
            distance = np.sqrt(np.maximum(2 - 2 * dot / scale, 0))
        else:
            distance = np.sqrt(np.maximum(own + energy - 2 * dot, 0) / (m * size))
        if unknown.any():
            distance[_sums(unknown.astype(np.float32), m) > 0.5] = np.nan
        yield distance.astype(np.float32)


def _sums(x: NDArray[Any], m: int) -> NDArray[np.float32]:
    """Sums over every window of m rows, by doubling: log2(m) additions, and no running sum that loses digits."""
    out: NDArray[np.float32] | None = None
    at, power, width = 0, x, 1
    while True:
        if m & width:
            out = power[at:] if out is None else out[: len(power) - at] + power[at : at + len(out)]
            at += width
        if at == m:
            return cast("NDArray[np.float32]", out)[: len(x) - m + 1]
        power, width = power[:-width] + power[width:], 2 * width


def _refined(catalogue: Catalogue, query: _Query, match: Match) -> Match:
    """A match measured on recorded samples, at the shift around it where it is nearest."""
    try:
        episode = catalogue.load(match.digest)
    except Damaged:
        return Match(match.digest, match.start_s, match.end_s, math.inf)
    t_s, values = _samples(episode.signals[query.name], codec.span_ns(episode)[0], query.elements)
    span = match.end_s - match.start_s
    inside = int(((query.t_s >= query.start_s) & (query.t_s <= query.end_s)).sum())
    n = min(max(inside, 2 * FEWEST), _FINE)
    step = span / (n - 1) / _SHIFTS
    around, width = math.ceil(1.5 / query.rate / step), (n - 1) * _SHIFTS + 1
    t: Array = match.start_s + step * np.arange(-around, width + around, dtype=np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(_at(t, t_s, values) * query.weight, width, axis=0)
    windows = np.moveaxis(windows[:, :, ::_SHIFTS], 2, 1)  # (shifts, n, elements)
    inside_t = (t[: len(windows)] >= t_s[0] - step) & (t[width - 1 :] <= t_s[-1] + step)
    a, b = query.prepared(query.sampled(n)), query.prepared(windows)
    if query.by == "shape":
        own = math.sqrt(float((a**2).sum()))
        scale = np.maximum(np.sqrt((b**2).sum(axis=(1, 2))), QUIET * own) * own
        distance = np.sqrt(np.maximum(2 - 2 * (a * b).sum(axis=(1, 2)) / scale, 0))
    else:
        distance = np.sqrt(((a - b) ** 2).mean(axis=(1, 2)))
    distance = np.where(inside_t & np.isfinite(distance), distance, np.inf)
    k = int(distance.argmin())
    begin = max(float(t[k]), 0.0)
    return Match(match.digest, begin, begin + span, float(distance[k]))


def _overlap(match: Match, start_s: float, end_s: float) -> float:
    """Share of the shorter of two windows that lies in the other."""
    shorter = min(match.end_s - match.start_s, end_s - start_s)
    return max(0.0, min(match.end_s, end_s) - max(match.start_s, start_s)) / shorter
