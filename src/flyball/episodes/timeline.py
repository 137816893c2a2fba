"""Time stamps put in order, and said.

In: an episode as its format read it, whose clocks may jump. Out: the same with every stream in order of time and on one
clock, and a note for each repair. The raw log keeps what was recorded. The rules:

- Samples of a signal whose stamps run backwards are put in order of time (equal stamps keep the log's order).
- A stretch at the beginning or end of a stream, of at most a tenth of its samples, more than a day away from the rest
  (stamps from before the clock was set) is left out.
- So are a whole stream and events more than a day away from the others: they cannot be aligned. ``clock_s`` in the
  map file brings a stream back.
- Stamps beyond the years 1970 to 2262 are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Timed
from flyball.episodes.episode import Episode, Frames
from flyball.episodes.intake import Intake

DAY_NS = 86_400 * 10**9
_PIECE = 1 << 20  # samples looked at once


def repaired(episode: Episode, intake: Intake, shifts: Mapping[str, float] | None = None) -> Episode:
    """The episode on one clock; the same object when nothing was wrong.

    Args:
      episode: as read.
      intake: notes go there.
      shifts: stream -> seconds that will be added to its stamps; known offsets are no fault.

    Raises:
      InputError: a negative time stamp, or nothing is left.
    """
    shifts = shifts or {}
    signals = {name: _ordered(name, s, intake) for name, s in episode.signals.items()}
    streams: dict[str, Timed | Frames] = {**signals, **episode.frames}
    kept: dict[str, tuple[int, int]] = {}
    for name, stream in streams.items():
        if len(stream.t_ns):
            kept[name] = _body(stream.t_ns)
            out = len(stream.t_ns) - (kept[name][1] - kept[name][0])
            if out:
                intake.note("clock", f"{name}: {out} samples more than a day from the rest, left out")
    reference = _reference(streams, kept, shifts)
    far: list[str] = []
    if reference is not None:
        low, high = reference[0] - DAY_NS, reference[1] + DAY_NS
        for name, (a, b) in kept.items():
            t_ns, shift = streams[name].t_ns, round(shifts.get(name, 0.0) * 1e9)
            if int(t_ns[a]) + shift > high or int(t_ns[b - 1]) + shift < low:
                off = (int(t_ns[a]) + shift - reference[0]) * 1e-9
                intake.note("clock", f"{name}: its clock is {_span(off)} from the others', left out; set its clock_s")
                far.append(name)
        stray = [e for e in episode.events if not low <= e.t_ns <= high]
        if stray:
            intake.note("clock", f"{len(stray)} events more than a day from the rest, left out")
            episode = replace(episode, events=tuple(e for e in episode.events if low <= e.t_ns <= high))
    for name in kept:
        if int(streams[name].t_ns[kept[name][0]]) < 0:
            raise InputError(f"{name}: a negative time stamp", allowed="time since 1970 or since the start [ns]")
    whole = all(kept.get(n, (0, len(s.t_ns))) == (0, len(s.t_ns)) for n, s in streams.items())
    if whole and not far and all(signals[n] is s for n, s in episode.signals.items()):
        return episode
    return replace(
        episode,
        signals={n: _part(s, kept.get(n)) for n, s in signals.items() if n not in far},
        frames={n: _frames_part(f, kept.get(n)) for n, f in episode.frames.items() if n not in far},
    )


def _ordered(name: str, s: Timed, intake: Intake) -> Timed:
    t_ns = np.asarray(s.t_ns)
    pieces = range(0, len(t_ns), _PIECE)
    back = np.concatenate(
        [at + np.flatnonzero(np.diff(t_ns[at : at + _PIECE + 1]) < 0) for at in pieces] or [np.zeros(0, np.int64)]
    )
    if not len(back):
        return s
    worst = int((t_ns[back] - t_ns[back + 1]).max()) * 1e-9
    intake.note("clock", f"{name}: {len(back)} time stamps ran backwards by up to {_span(worst)}, put in order")
    order = np.argsort(t_ns, kind="stable")
    return Timed(s.spec, t_ns[order], s.values[order])


def _body(t_ns: NDArray[np.int64]) -> tuple[int, int]:
    """The samples without short stretches at either end that are more than a day away."""
    n = len(t_ns)
    if int(t_ns[-1]) - int(t_ns[0]) <= DAY_NS:
        return 0, n
    steps = np.flatnonzero(np.diff(t_ns) > DAY_NS) + 1
    first = max((int(i) for i in steps if i <= n // 10), default=0)
    last = min((int(i) for i in steps if n - i <= n // 10), default=n)
    return first, last


def _reference(
    streams: Mapping[str, Timed | Frames], kept: Mapping[str, tuple[int, int]], shifts: Mapping[str, float]
) -> tuple[int, int] | None:
    """Begin and end of the group of streams, less than a day apart, that has most samples."""
    moved = {n: round(shifts.get(n, 0.0) * 1e9) for n in kept}
    spans = sorted(
        (int(streams[n].t_ns[a]) + moved[n], int(streams[n].t_ns[b - 1]) + moved[n], b - a)
        for n, (a, b) in kept.items()
    )
    groups: list[tuple[int, int, int]] = []
    for begin, end, n in spans:
        if groups and begin <= groups[-1][1] + DAY_NS:
            groups[-1] = (groups[-1][0], max(groups[-1][1], end), groups[-1][2] + n)
        else:
            groups.append((begin, end, n))
    best = max(groups, key=lambda g: (g[2], g[0]), default=None)  # a clock that was never set is behind
    return best[:2] if best else None


def _part(s: Timed, rows: tuple[int, int] | None) -> Timed:
    return s if rows in (None, (0, len(s.t_ns))) else Timed(s.spec, s.t_ns[slice(*rows)], s.values[slice(*rows)])


def _frames_part(f: Frames, rows: tuple[int, int] | None) -> Frames:
    if rows in (None, (0, len(f.t_ns))):
        return f
    at = slice(*rows)
    return replace(f, t_ns=f.t_ns[at], start=f.start[at], stop=f.stop[at], key=f.key[at])


def _span(seconds: float) -> str:
    size = abs(seconds)
    for unit, length in (("years", 365.25 * 86400), ("days", 86400.0), ("s", 1.0), ("ms", 1e-3)):
        if size >= length or unit == "ms":
            return f"{size / length:.3g} {unit}"
    raise AssertionError
