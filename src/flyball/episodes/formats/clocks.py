"""Clocks: which of the times in a log a topic's samples get, and how good it is.

In: per message the log time, the publish time and, where messages carry one, the stamp of the sensor. Out: one time
per message, in an order that runs forwards, and what was measured. The stamp is taken when it is a clock at all:

- more than half of the stamps lie after 1970 and before 2262, and the median of stamp minus log time is under
  ``NEAR_NS`` (otherwise it is another clock, simulated time for example);
- they do not stand still while the log time goes on, and never run back by more than ``SET_BACK_NS`` (a clock that was
  set).

Single stamps that are missing, or further than ``NEAR_NS`` from their usual offset, are replaced by the log time plus
that offset. Times that run backwards are put in order (for more than ``SORTABLE`` messages, and for video, which cannot
be reordered: raised to the one before). Every repair is counted and noted, none is silent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.episodes.intake import Column, Intake, release

NEAR_NS = 10 * 10**9
SET_BACK_NS = 10**9
SORTABLE = 8_000_000
_PIECE = 1 << 20
_SAMPLE = 1 << 16
_YEAR_2000 = 946_684_800 * 10**9
_DAY_NS = 86_400 * 10**9


@dataclass(frozen=True)
class Times:
    """When the samples of a topic were taken.

    Attributes:
      t_ns: one per message in the order of the log [ns], shape (n,), int64.
      order: puts messages in order of time, shape (n,); None when they are.
      facts: which clock and why, offsets and jitter [ms].
    """

    t_ns: NDArray[np.int64]
    order: NDArray[np.int64] | None
    facts: dict[str, Any]

    @property
    def sorted_ns(self) -> NDArray[np.int64]:
        """Non-decreasing [ns], shape (n,)."""
        return self.t_ns if self.order is None else self.t_ns[self.order]


class Clock:
    """The times of one topic, as they come."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._log = intake.column(np.int64)
        self._stamp: Column | None = None
        self._stamp_offset, self._publish_offset = _Sample(), _Sample()
        self._no_stamp = 0

    @property
    def n(self) -> int:
        """Messages so far."""
        return self._log.length

    def add(self, log_ns: NDArray[np.int64], publish_ns: NDArray[Any], stamp: NDArray[np.int64] | None) -> None:
        """Further messages, shape (k,) each; stamps are -1 where they are none."""
        if stamp is not None and self._stamp is None:
            self._stamp = self._intake.column(np.int64)
            for at in range(0, self.n, _PIECE):
                self._stamp.append(np.full(min(_PIECE, self.n - at), -1))
        self._log.append(log_ns)
        self._publish_offset.add(publish_ns.astype(np.int64) - log_ns)
        if self._stamp is not None:
            stamp = np.full(len(log_ns), -1) if stamp is None else stamp
            sound = stamp > 0
            self._no_stamp += int((~sound).sum())
            self._stamp.append(stamp)
            self._stamp_offset.add((stamp - log_ns)[sound])

    def settle(self, topic: str, *, video: bool = False, ours: bool = False) -> Times:
        """Choose a clock and put it right; what is repaired is noted under the topic's name.

        Args:
          topic: for notes.
          video: messages must keep their order.
          ours: the log time is the sensor's own (our recorder's), no other is looked at.
        """
        log = self._log.array()
        stamp = None if self._stamp is None or ours else self._stamp.array()
        facts: dict[str, Any] = {"clock": "log"}
        times = log
        if stamp is not None:
            why = self._unfit(log, stamp)
            if why:
                facts["why"] = why
                self._intake.note("clock", f"{topic}: time of the log, {why}")
            else:
                facts = {"clock": "header"}
                times = self._mended(topic, log, stamp)
            if self._stamp_offset.any:
                facts["header_ms"] = self._stamp_offset.spread_ms()
        elif not ours:
            facts["why"] = "messages carry no stamp"
        if not ours:
            if self._publish_offset.any and self._publish_offset.varied:
                facts["publish_ms"] = self._publish_offset.spread_ms()
            self._look_at_log(topic, log)
        said = f"messages run backwards in {facts['clock']} time"
        times, order = forwards(self._intake, topic, times, said, sortable=not video)
        return Times(times, order, facts)

    def _unfit(self, log: NDArray[np.int64], stamp: NDArray[np.int64]) -> str:
        """Why the stamps are no clock; "" when they are one."""
        if 2 * self._no_stamp > len(stamp):
            return f"{self._no_stamp} of {len(stamp)} stamps are 0 or absurd"
        median = self._stamp_offset.median()
        if abs(median) >= NEAR_NS:
            return f"stamps are {median / 1e9:+.1f} s from it"
        first, moves, ticks = int(stamp[0]), False, False
        for a, b in _pieces(stamp, log, overlap=1):
            s, t = stamp[a:b], log[a:b]
            moves, ticks = moves or bool((s != first).any()), ticks or bool((t != log[0]).any())
            sound = (s > 0) & (np.abs(s - t - median) < NEAR_NS)
            s, t = s[sound], t[sound]
            back = (s[1:] < s[:-1] - SET_BACK_NS) & (t[1:] >= t[:-1])
            if back.any():
                i = int(np.flatnonzero(back)[0])
                return f"the stamps' clock was set back by {(int(s[i]) - int(s[i + 1])) / 1e9:.1f} s"
        return "the stamps stand still" if len(stamp) > 2 and ticks and not moves else ""

    def _mended(self, topic: str, log: NDArray[np.int64], stamp: NDArray[np.int64]) -> NDArray[np.int64]:
        median, bad = self._stamp_offset.median(), 0
        for a, b in _pieces(stamp, log):
            bad += int(((stamp[a:b] <= 0) | (np.abs(stamp[a:b] - log[a:b] - median) >= NEAR_NS)).sum())
        if not bad:
            return stamp
        out = self._intake.column(np.int64)
        for a, b in _pieces(stamp, log):
            s, t = stamp[a:b], log[a:b] + median
            out.append(np.where((s <= 0) | (np.abs(s - t) >= NEAR_NS), t, s))
        self._intake.note(
            "clock", f"{topic}: {bad} of {len(stamp)} stamps are missing or absurd, replaced by log times"
        )
        return out.array()

    def _look_at_log(self, topic: str, log: NDArray[np.int64]) -> None:
        jump = 0
        for a, b in _pieces(log, overlap=1):
            if b - a > 1:
                jump = max(jump, int(np.abs(np.diff(log[a:b])).max()))
        if jump > _DAY_NS:
            self._intake.note("clock", f"{topic}: the log time jumps by {jump / _DAY_NS:.1f} days")
        if len(log) and int(log[0]) < _YEAR_2000:
            self._intake.note(
                "clock", "log times lie before the year 2000: simulated time, or a clock that was not set"
            )


def forwards(
    intake: Intake, name: str, times: NDArray[np.int64], said: str, *, sortable: bool = True
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Repair times that run backwards, with a note.

    Args:
      intake: room and reports.
      name: of what the times are.
      times: in the order of the log [ns], shape (n,).
      said: what they are, for the note: ``messages run backwards in log time``.
      sortable: whether things may be put in another order.

    Returns:
      (times [ns], and what puts them in order; None when they are, or were raised to the one before).
    """
    back = sum(int((times[a + 1 : b] < times[a : b - 1]).sum()) for a, b in _pieces(times, overlap=1))
    if not back:
        return times, None
    if sortable and len(times) <= SORTABLE:
        intake.note("clock", f"{name}: {back} of {len(times)} {said}, put in order")
        return times, np.argsort(times, kind="stable")
    intake.note("clock", f"{name}: {back} of {len(times)} {said}, raised to the one before")
    out, last = intake.column(np.int64), np.iinfo(np.int64).min
    for a, b in _pieces(times):
        raised = np.maximum.accumulate(np.maximum(times[a:b], last))
        last = int(raised[-1])
        out.append(raised)
    return out.array(), None


class _Sample:
    """Evenly spread samples of a stream of numbers, at most ``2 * _SAMPLE`` of them."""

    def __init__(self) -> None:
        self._parts: list[NDArray[np.int64]] = []
        self._held, self._seen, self._stride = 0, 0, 1

    def add(self, values: NDArray[np.int64]) -> None:
        part = values[-self._seen % self._stride :: self._stride]
        self._seen += len(values)
        self._parts.append(np.array(part))
        self._held += len(part)
        while self._held >= 2 * _SAMPLE:
            self._parts = [np.concatenate(self._parts)[::2]]
            self._held, self._stride = len(self._parts[0]), 2 * self._stride

    @property
    def any(self) -> bool:
        return self._held > 0

    @property
    def varied(self) -> bool:
        return any(bool(p.any()) for p in self._parts)

    def median(self) -> int:
        return int(np.median(np.concatenate(self._parts))) if self._held else 0

    def spread_ms(self) -> list[float]:
        """Median, and 95th percentile of the distance from it [ms]."""
        values = np.concatenate(self._parts)
        median = float(np.median(values))
        return [round(median / 1e6, 3), round(float(np.percentile(np.abs(values - median), 95)) / 1e6, 3)]


def _pieces(*arrays: NDArray[Any], overlap: int = 0) -> Iterator[tuple[int, int]]:
    """Where pieces of arrays of one length begin and end; each is given back when the next is asked for."""
    for a in range(0, len(arrays[0]), _PIECE):
        yield max(0, a - overlap), min(len(arrays[0]), a + _PIECE)
        release(*arrays)


def stamp_ns(sec: NDArray[Any], nanosec: NDArray[Any]) -> NDArray[np.int64]:
    """Stamps [ns], shape (n,); -1 where they are no time after 1970 and before 2262."""
    seconds, nanos = sec.astype(np.int64), nanosec.astype(np.int64)
    sound = (seconds >= 0) & (seconds < 9_223_372_036) & (nanos >= 0) & (nanos < 10**9) & (seconds + nanos > 0)
    return np.where(sound, np.where(sound, seconds, 0) * 10**9 + nanos, -1)


def rate_hz(t_ns: NDArray[np.int64]) -> float:
    """The rate of a regular signal; 0 where the median period is missed by more than 5 %."""
    if len(t_ns) < 3:
        return 0.0
    stride = max(1, len(t_ns) // _SAMPLE)
    steps = np.concatenate([np.diff(t_ns[a:b])[::stride] for a, b in _pieces(t_ns, overlap=1)])
    period = float(np.median(steps))
    missed = max(float(np.abs(np.diff(t_ns[a:b]) - period).max(initial=0)) for a, b in _pieces(t_ns, overlap=1))
    return round(1e9 / period, 3) if period > 0 and missed <= 0.05 * period else 0.0
