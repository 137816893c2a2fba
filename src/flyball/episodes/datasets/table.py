"""An episode as a table: every feature at i/fps.

In: an episode with signals at rates of their own, and a ``Layout``. Out: one array per feature, one row per frame, and
what was done to get there: how old the samples are, how many were repeated or skipped, how much was cut off.

The table begins when every feature has its first sample and ends with the first of state, action and cameras to end.
Row i is at ``begin + i / fps``; see ``TableOptions.rule`` for the sample it gets. Nothing is interpolated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.episodes.datasets.layout import Layout, Rule, stream
from flyball.episodes.episode import Episode

SLACK = 100
"""A sample may be this part of a period (1/100) late and still count as in time: stamps are rounded and jitter."""


@dataclass
class Resampling:
    """What resampling did to a feature, over all episodes.

    Attributes:
      age_s: largest distance in time between a row and its sample [s].
      repeated: rows that got the sample of the row before.
      skipped: samples, within the time of the table, that no row got.
      begin_s, end_s: most that was cut off at the beginning and the end of an episode [s].
      not_finite: values that are NaN or infinite.
    """

    age_s: float = 0.0
    repeated: int = 0
    skipped: int = 0
    begin_s: float = 0.0
    end_s: float = 0.0
    not_finite: int = 0


@dataclass(frozen=True)
class Table:
    """An episode at a fixed rate.

    Attributes:
      begin_ns: time of row 0 [ns].
      length: number of rows.
      columns: key -> values, (length, *shape), for features that are numbers.
      pictures: key -> which picture of the camera each row shows, (length,), non-decreasing.
    """

    begin_ns: int
    length: int
    columns: Mapping[str, NDArray[Any]]
    pictures: Mapping[str, NDArray[np.int64]]


@dataclass
class Sampler:
    """Makes tables of one layout and keeps account.

    Args:
      layout: what to make.

    Attributes:
      done: key -> what was done so far.
    """

    layout: Layout
    done: dict[str, Resampling] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.done = {f.key: Resampling() for f in self.layout.features}

    def table(self, episode: Episode, *, where: str) -> Table:
        """The table of an episode.

        Args:
          episode: what to sample.
          where: how to call it in messages.

        Raises:
          InputError: a feature without samples, features that share no time, or a sample that is too old.
        """
        layout, fps = self.layout, self.layout.fps
        times = {f.key: stream(episode, f) for f in layout.features}
        for key, stamps in times.items():
            if not all(map(len, stamps)):
                raise InputError(f"no sample of {key}", where=where, run_next="--without SIGNAL, or leave it out")
        begin = max(int(t[0]) for stamps in times.values() for t in stamps)
        required = [f.key for f in layout.features if f.required] or list(times)
        end = min(int(t[-1]) for key in required for t in times[key])
        if end < begin:
            raise InputError(f"its features share no time ({(begin - end) * 1e-9:.3f} s apart)", where=where)
        slack = 10**9 // (SLACK * fps)
        length = int((end - begin + slack) * fps // 10**9) + 1
        grid = begin + (np.arange(length, dtype=np.int64) * 10**9 + fps // 2) // fps
        columns: dict[str, NDArray[Any]] = {}
        pictures: dict[str, NDArray[np.int64]] = {}
        for f in layout.features:
            rows = [self._pick(f.key, t, grid, layout.options.rule, slack, where) for t in times[f.key]]
            if f.kind != "numbers":
                pictures[f.key] = rows[0]
                continue
            parts = [
                np.asarray(episode.signals[s.name].values)[r].astype(f.dtype).reshape(length, -1)
                for s, r in zip(f.signals, rows, strict=True)
            ]
            column = (parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)).reshape(length, *f.shape)
            if column.dtype.kind == "f":
                self.done[f.key].not_finite += int((~np.isfinite(column)).sum())
            columns[f.key] = column
        return Table(begin, length, columns, pictures)

    def _pick(
        self, key: str, t: NDArray[np.int64], grid: NDArray[np.int64], rule: Rule, slack: int, where: str
    ) -> NDArray[np.int64]:
        """Which sample each row gets."""
        rows = np.maximum(np.searchsorted(t, grid + (slack if rule == "last" else 0), "right") - 1, 0)
        if rule == "nearest":
            after = np.minimum(rows + 1, len(t) - 1)
            rows = np.where(np.abs(t[after] - grid) < np.abs(grid - t[rows]), after, rows)
        done, age = self.done[key], float(np.abs(grid - t[rows]).max()) * 1e-9
        limit = self.layout.options.max_age_s
        if limit is not None and age > limit:
            at = int(np.abs(grid - t[rows]).argmax())
            raise InputError(
                f"row {at} of {key} would get a sample {age:.4g} s away", where=where, allowed=f"{limit:g} s"
            )
        steps = np.diff(rows)
        done.age_s = max(done.age_s, age)
        done.repeated += int((steps == 0).sum())
        done.skipped += int((steps[steps > 1] - 1).sum())
        done.begin_s = max(done.begin_s, float(grid[0] - t[0]) * 1e-9)
        done.end_s = max(done.end_s, float(t[-1] - grid[-1]) * 1e-9)
        return rows.astype(np.int64)
