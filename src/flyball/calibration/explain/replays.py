"""Replays of the logged commands in candidate worlds, and what they show.

In: a case and candidates, as shares of the parameters' ranges. Out: per candidate, summaries of its replay, how far it
is off the log, whether it fails alike; and how far the log is off a whole set of replays, over what these are off each
other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.explain.case import Case
from flyball.calibration.fleet import event_of
from flyball.scenes import Parameter
from flyball.tasks.world import Attempts

OFF = 2.0
"""A log may be this much further off the replays than nine in ten of these are: their parameters are fitted to it."""


@dataclass
class Population:
    """Candidates: units (k, p), summaries of their replays (k, s), who fails alike (k,)."""

    units: NDArray[np.float64]
    sims: NDArray[np.float64]
    alike: NDArray[np.bool_]

    def joined(self, other: Population) -> Population:
        """Both."""
        return Population(
            np.concatenate([self.units, other.units]),
            np.concatenate([self.sims, other.sims]),
            np.concatenate([self.alike, other.alike]),
        )

    def take(self, rows: NDArray[np.int64]) -> Population:
        """Some of them."""
        return Population(self.units[rows], self.sims[rows], self.alike[rows])


class Replays:
    """Replays of one case.

    Attributes:
      swept: parameters that are searched: all but those that the log shows without simulation.
      column: path -> column of candidates.
      logged, actions: the attempt, as long as it is replayed.
      real: its summaries (s,).
    """

    def __init__(self, case: Case) -> None:
        self.case, self.task = case, case.task
        self.rng = np.random.default_rng([case.seed, 1])
        seen = set(self.task.observed(case.logged.signals, self.task.scene.nominal(2), self.rng))
        self.swept = [p for p in self.task.scene.parameters if p.path not in seen and not placed(p)]
        self.column = {p.path: j for j, p in enumerate(self.swept)}
        self.logged = {k: x[:, : case.periods] for k, x in case.logged.signals.items()}
        self.actions = case.actions[:, : case.periods]
        means, apart = self.task.summaries(self.logged, self.actions)
        self.real = np.concatenate([means[0], apart[0]])

    def believed_units(self, n: int) -> NDArray[np.float64]:
        """n draws of what is believed, in units of the parameters' ranges, (n, p); anywhere where nothing is said."""
        samples = self.case.believed
        assert samples is not None
        rows = self.rng.integers(len(next(iter(samples.values()))), size=n)
        columns = [
            np.clip(p.to_unit(np.asarray(samples[p.path])[rows]), 0, 1) if p.path in samples else self.rng.random(n)
            for p in self.swept
        ]
        return np.column_stack(columns)

    def values(self, units: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """Units to all parameters; those that the log shows without simulation are read off it."""
        n = len(units)
        out = self.task.scene.nominal(n) | {p.path: p.from_unit(units[:, j]) for j, p in enumerate(self.swept)}
        return out | self.task.observed(self.case.logged.signals, out, self.rng)

    def population(self, units: NDArray[np.float64]) -> Population:
        """Replay candidates."""
        return self.replayed(units)[0]

    def replayed(self, units: NDArray[np.float64]) -> tuple[Population, Attempts]:
        """Replay candidates, and keep the attempts; NaN for a threshold that is read off them, see below."""
        done, traces = self.case.replay(self.values(units), self.rng)
        done = self._with_thresholds(units, done, traces)
        means, apart = self.task.summaries(done.signals, np.repeat(self.actions, len(units), axis=0))
        return Population(units, np.concatenate([means, apart], axis=1), self.case.alike(done)), done

    def _with_thresholds(
        self, units: NDArray[np.float64], done: Attempts, traces: Mapping[str, NDArray[np.float64]]
    ) -> Attempts:
        """Where a threshold deviates and its event was logged, it is what the replay felt at that moment.

        Changes ``units`` in place, and gives the attempts with the event at its time.
        """
        events = [list(e) for e in done.events]
        for p in self.swept:
            name, j = event_of(p), self.column[p.path]
            times = [t for t, e in self.case.logged.events[0] if e == name]
            if not name or not times:
                continue
            for i in np.flatnonzero(np.isnan(units[:, j])):
                trace = traces[name][i]
                rate = len(trace) / self.case.periods * self.task.control_hz
                k = min(len(trace) - 1, round(times[0] * rate) - 1)
                units[i, j] = np.clip(p.to_unit(max(trace[k], p.low)), 0, 1)
                events[i] = [*((t, e) for t, e in events[i] if e != name), (times[0], name)]
        return Attempts(done.signals, events, done.values)

    @cached_property
    def noise(self) -> NDArray[np.float64]:
        """What sensor noise alone does to the summaries, (s,)."""
        return np.asarray(self.population(np.repeat(self.believed_units(1), 16, axis=0)).sims.std(axis=0, ddof=1))

    def course(self, replays: Attempts) -> tuple[float, float]:
        """How far the log is off the replays' course, over how far these are off each other; when it parts [s]."""
        off_log, off_own = [], []
        for spec in self.task.embodiment.observations:
            sim, real = replays.signals[spec.name], self.logged[spec.name][0]
            n = len(sim)
            floor = self.case.floor(spec.name)
            mean, sd = sim.mean(axis=0), np.sqrt(sim.var(axis=0, ddof=1) + floor**2)
            off_log.append((np.abs(real - mean) / sd).max(axis=-1))
            rest = (sim.sum(axis=0) - sim) / (n - 1)
            off_own.append((np.abs(sim - rest) / sd).max(axis=-1))
        end = self.case.course
        log, own = smooth(np.max(off_log, axis=0)[None])[0, :end], smooth(np.max(off_own, axis=0))[:, :end]
        allowed = OFF * np.quantile(own.max(axis=1), 0.9)
        lost = np.flatnonzero(log > allowed)
        return float(log.max() / allowed), float(lost[0] / self.task.control_hz) if len(lost) else float("nan")


def placed(p: Parameter) -> bool:
    """Whether a parameter only says where things are put: an attempt's own start is seen."""
    return bool(p.binds) and all(b.target.startswith("start:") for b in p.binds)


def smooth(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean of five control periods, (n, T)."""
    padded = np.pad(x, ((0, 0), (2, 2)), mode="edge")
    return np.mean([padded[:, i : i + x.shape[1]] for i in range(5)], axis=0)
