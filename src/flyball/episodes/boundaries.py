"""Where one episode ends and the next begins, by a stated rule.

In: an episode as long as its log. Out: the episodes in it, whose arrays are views of the log's, and the rule that
applied. Rules, the first that applies:

1. *record*: the log is our own recording, or its format names the episodes in it (LeRobot, RLDS): nothing is cut.
2. *events*: the log has events that the map file names as start or stop. An episode lasts from a start to the next
   stop or start; where there are only stops, from the one before. What lies outside is left out, and noted.
3. *idle*: nothing at all was logged for longer than ``gap_s``, or nothing moved for longer than ``still_s`` (positions
   and velocities, by their unit; moving is more than a hundredth of a signal's range within an eighth of that time).
   The cut is in the middle of the gap, so that nothing is left out.
4. *file*: one file, one episode.

A video that is cut begins at the key picture before the cut, or else it could not be decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Timed
from flyball.episodes.codec import span_ns
from flyball.episodes.episode import Episode, Frames
from flyball.episodes.intake import release

RULES = ("auto", "events", "idle", "file")
_MOVING = {"rad", "m", "rad/s", "m/s", "deg", "deg/s", "mm"}
_STILL = 0.01  # share of a signal's range
_PIECE = 1 << 20  # samples looked at once


@dataclass(frozen=True)
class Boundaries:
    """How logs are cut; section ``[episodes]`` of a map file.

    Attributes:
      rule: ``auto`` (the first that applies), ``events``, ``idle`` or ``file``.
      start, stop: events that begin and end an episode: a name, or ``name=text``.
      gap_s: longest pause without any message [s]; 0 for any.
      still_s: longest pause without motion [s]; 0 for any.
      shortest_s: what is shorter is no episode [s].
    """

    rule: str = "auto"
    start: tuple[str, ...] = ("episode.start", "episode_start", "episode=start", "recording=start")
    stop: tuple[str, ...] = ("episode.stop", "episode_stop", "episode.end", "episode=stop", "recording=stop")
    gap_s: float = 10.0
    still_s: float = 30.0
    shortest_s: float = 0.2

    def checked(self, where: str) -> Boundaries:
        """Itself.

        Raises:
          InputError: an unknown rule, or a time that is none.
        """
        if self.rule not in RULES:
            raise InputError(f"unknown rule {self.rule!r}", where=f"{where}: episodes", allowed=", ".join(RULES))
        for key in ("gap_s", "still_s", "shortest_s"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise InputError(f"{key} = {getattr(self, key)}", where=f"{where}: episodes", allowed="0 or more [s]")
        return self


@dataclass(frozen=True)
class Cut:
    """What became of a log.

    Attributes:
      episodes: in order of time.
      rule: ``events``, ``idle`` or ``file``.
      left_out_s: time that belongs to no episode [s].
    """

    episodes: tuple[Episode, ...]
    rule: str
    left_out_s: float = 0.0


def cut(episode: Episode, by: Boundaries) -> Cut:
    """The episodes in a log.

    Raises:
      InputError: events are demanded and there are none, or every piece is too short.
    """
    begin, end = span_ns(episode)
    spans: list[tuple[int, int]] = []
    rule = "file"
    if by.rule in ("auto", "events"):
        spans = _between_events(episode, by, end)
        rule = "events" if spans else rule
        if by.rule == "events" and not spans:
            raise InputError(
                "none of its events begins or ends an episode",
                allowed=", ".join((*by.start, *by.stop)),
            )
    if not spans and by.rule in ("auto", "idle"):
        at = [begin, *_idle(episode, by, begin, end), end + 1]
        spans = list(pairwise(at)) if len(at) > 2 else []
        rule = "idle" if spans else rule
    if not spans:
        return Cut((episode,), "file")
    whole = [(a, b) for a, b in spans if (b - a) * 1e-9 >= by.shortest_s]
    pieces = [piece for a, b in whole if (piece := between(episode, a, b)) is not None]
    if not pieces:
        raise InputError(f"cut by {rule}, no piece is as long as {by.shortest_s} s", allowed="a smaller shortest_s")
    n = len(pieces)
    labelled = tuple(
        replace(p, labels={**p.labels, "boundaries": rule, "part": i + 1, "parts": n}) for i, p in enumerate(pieces)
    )
    kept = sum(min(b, end) - a for a, b in whole)
    return Cut(labelled, rule, max(0.0, round((end - begin - kept) * 1e-9, 3)))


def between(episode: Episode, begin: int, end: int) -> Episode | None:
    """What was logged in ``begin <= t < end`` [ns], as views; None when nothing was.

    Signals and cameras without a sample in there are missing from it.
    """
    signals = {}
    for name, s in episode.signals.items():
        a, b = np.searchsorted(s.t_ns, (begin, end))
        if b > a:
            signals[name] = Timed(s.spec, s.t_ns[a:b], s.values[a:b])
    frames = {name: f for name, stream in episode.frames.items() if (f := _frames_between(stream, begin, end))}
    events = tuple(e for e in episode.events if begin <= e.t_ns < end)
    if not signals and not frames:
        return None
    return replace(episode, signals=signals, frames=frames, events=events)


def _frames_between(f: Frames, begin: int, end: int) -> Frames | None:
    a, b = (int(i) for i in np.searchsorted(f.t_ns, (begin, end)))
    if a == b:
        return None
    keys = np.flatnonzero(f.key[: a + 1])
    a = int(keys[-1]) if len(keys) else a
    return replace(f, t_ns=f.t_ns[a:b], start=f.start[a:b], stop=f.stop[a:b], key=f.key[a:b])


def _between_events(episode: Episode, by: Boundaries, end: int) -> list[tuple[int, int]]:
    def among(e: Any, names: tuple[str, ...]) -> bool:
        return e.name in names or f"{e.name}={e.text}" in names

    marks = [(e.t_ns, among(e, by.start)) for e in episode.events if among(e, by.start) or among(e, by.stop)]
    if not marks:
        return []
    begin, _ = span_ns(episode)
    since = None if any(starts for _, starts in marks) else begin
    only_stops = since is not None
    spans = []
    for t, starts in marks:
        if since is not None:
            spans.append((since, t if starts else t + 1))  # the stop itself belongs to what it ends
        since = t if starts else (t + 1 if only_stops else None)
    if since is not None and not only_stops:
        spans.append((since, end + 1))
    return spans


def _idle(episode: Episode, by: Boundaries, begin: int, end: int) -> list[int]:
    """Moments in the middle of pauses [ns], in order."""
    found: list[int] = []
    if by.gap_s:
        found += [(a + b) // 2 for a, b in _silences(episode, round(by.gap_s * 1e9), begin, end)]
    if by.still_s:
        found += [(a + b) // 2 for a, b in _stills(episode, round(by.still_s * 1e9), begin, end)]
    if by.gap_s and by.still_s:  # a silence is also a standstill: one cut for both
        near = round(max(by.gap_s, by.still_s) * 5e8)
        found = [t for i, t in enumerate(sorted(found)) if i == 0 or t - sorted(found)[i - 1] > near]
    return sorted(found)


def _silences(episode: Episode, gap: int, begin: int, end: int) -> list[tuple[int, int]]:
    """Stretches longer than ``gap`` in which no stream has a time stamp."""
    streams: list[NDArray[np.int64]] = [s.t_ns for s in episode.signals.values() if len(s.t_ns)]
    streams += [f.t_ns for f in episode.frames.values() if len(f.t_ns)]
    if episode.events:
        streams.append(np.array([e.t_ns for e in episode.events], np.int64))
    silent: list[tuple[int, int]] | None = None
    for t_ns in streams:
        own = [(a, b) for a, b in _gaps(t_ns, gap, begin, end)]
        silent = own if silent is None else list(_common(silent, own, gap))
        if not silent:
            break
    return silent or []


def _gaps(t_ns: NDArray[np.int64], gap: int, begin: int, end: int) -> Iterator[tuple[int, int]]:
    if t_ns[0] - begin > gap:
        yield begin, int(t_ns[0])
    for at in range(0, len(t_ns), _PIECE):
        part = np.asarray(t_ns[at : at + _PIECE + 1])
        for i in np.flatnonzero(np.diff(part) > gap):
            yield int(part[i]), int(part[i + 1])
    if end - t_ns[-1] > gap:
        yield int(t_ns[-1]), end


def _common(a: list[tuple[int, int]], b: list[tuple[int, int]], least: int) -> Iterator[tuple[int, int]]:
    """Where stretches of two sorted lists overlap by more than ``least``."""
    i = j = 0
    while i < len(a) and j < len(b):
        low, high = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if high - low > least:
            yield low, high
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1


def _stills(episode: Episode, pause: int, begin: int, end: int) -> list[tuple[int, int]]:
    """Stretches longer than ``pause`` in which no signal of motion changes; none when there is no such signal."""
    moving = [
        s
        for s in episode.signals.values()
        if len(s.t_ns) and s.values.dtype.kind == "f" and s.spec.unit and set(s.spec.unit.split()) <= _MOVING
    ]
    step = max(1, pause // 8)
    if not moving or (end - begin) // step > 1 << 24:
        return []
    moved = np.zeros((end - begin) // step + 1, bool)
    for s in moving:
        bucket, low, high = _ranges(s, begin, step)
        with np.errstate(invalid="ignore"):
            whole = np.fmax.reduce(high, axis=0) - np.fmin.reduce(low, axis=0)
            moved[bucket] |= (((high - low) > _STILL * whole) & (whole > 0)).any(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[True], moved, [True]]).astype(np.int8)))
    pairs = ((begin + int(a) * step, begin + int(b) * step) for a, b in edges.reshape(-1, 2))
    return [(a, b) for a, b in pairs if b - a > pause and a > begin and b < end]


def _ranges(s: Timed, begin: int, step: int) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[Any]]:
    """Per bucket of time with samples: its number, least and largest of each element, counting the sample before."""
    numbers, lows, highs = [], [], []
    rows = max(1, _PIECE // max(1, s.spec.size))
    for at in range(0, len(s.t_ns), rows):
        t = np.asarray(s.t_ns[at : at + rows])
        values = np.asarray(s.values[max(0, at - 1) : at + rows], float).reshape(-1, s.spec.size)
        before = values[: len(t)] if at else np.concatenate([values[:1], values[:-1]])
        here = values[-len(t) :]
        bucket = (t - begin) // step
        first = np.flatnonzero(np.diff(bucket, prepend=-1))
        numbers.append(bucket[first])
        lows.append(np.fmin.reduceat(np.fmin(here, before), first, axis=0))
        highs.append(np.fmax.reduceat(np.fmax(here, before), first, axis=0))
        release(s.values)
    return np.concatenate(numbers), np.concatenate(lows), np.concatenate(highs)
