"""What deviates from what was believed, as far as the log shows.

In: a case. Out: ``Found``: joint samples of the world in which it failed, each with the parameters that deviate from
what was believed there; whether replays of the logged commands fail alike, and follow the log's course.

With a calibration, deviations are sparse: hypotheses are single parameters that have left what the calibration says
(then pairs of them), each over its whole range, all others as calibrated. Every hypothesis is fitted to this one
attempt in rounds of replays (``posterior``), and weighed by how well replays of its posterior predict the log's
summaries (a synthetic likelihood, Wood 2010) and its verdict, and by how far it must leave what was believed.
Without one, all parameters are fitted to this attempt at once, as ``calibration.fleet`` does, and deviate as a whole
from what the policy was told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.explain.case import Case
from flyball.calibration.explain.posterior import tempered, updated
from flyball.calibration.explain.replays import Population, Replays
from flyball.calibration.fleet import ReplayConfig, _reflect, event_of, fit_robot
from flyball.tasks import Task
from flyball.tasks.task import Values
from flyball.tasks.world import Attempts

SCALE = 0.25
"""Typical size of a deviation, as a share of the parameter's range: larger ones need more evidence."""
DEGREES = 4.0
"""Of freedom of Student's t in the synthetic likelihood: summaries are not normal."""
WORTH = 15.0
"""Summaries depend on each other; all together are worth about so many independent ones."""
NEVER = 1e-5
"""Likelihood of a verdict that no replay of a hypothesis gives: what never fails alike explains nothing."""
OFF_COURSE = 10.0
"""Log weight that a hypothesis loses when the log is off its replays' course by as much again as is allowed."""
HOPELESS = 12.0
"""Hypotheses whose best replay is by so much less likely (log) than another's are given up."""
OFTEN = 8
"""So many replays that fail alike show that the scene can make it."""
TOO_NARROW = 1.3
"""Calibrations are off by so much more than they say: what stays within one costs by that much less."""
REACH = 4.0
"""How many of its own standard deviations a calibration may be off before that counts as a deviation."""


@dataclass(frozen=True)
class Search:
    """Budget of the search.

    Attributes:
      base: replays of what is believed.
      strata: replays per parameter in the first look.
      rounds: replays per surviving hypothesis and round.
      keep: hypotheses that survive the first look.
      draws: samples of the posterior, replayed for the verdict.
    """

    base: int = 24
    strata: int = 12
    rounds: tuple[int, ...] = (24, 24)
    keep: int = 6
    draws: int = 24


@dataclass(frozen=True)
class Found:
    """What the log says.

    Attributes:
      values: the world it failed in, path -> (s,).
      believed: the same worlds as believed, path -> (s,): differ in ``deviating`` alone.
      usual: worlds as believed in everything, path -> (s,).
      deviating: per sample, the parameters that deviate.
      odds: hypothesis -> probability; () is "nothing deviates".
      alike: share of replays that fail alike.
      misfit: how much further the log is off the replays than these are off each other; at most 1 when it is one of
        them.
      parted_s: when the log leaves their course [s]; NaN when it does not.
    """

    values: Values
    believed: Values
    usual: Values
    deviating: Sequence[tuple[str, ...]]
    odds: Mapping[tuple[str, ...], float]
    alike: float
    misfit: float
    parted_s: float


@dataclass
class _Fitted:
    """A hypothesis after its rounds: posterior draws, their replays, and how well these predict the log."""

    units: NDArray[np.float64]
    replays: Attempts
    alike: NDArray[np.bool_]
    score: float
    misfit: float = 0.0
    parted_s: float = float("nan")
    believed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def as_told(task: Task, told: NDArray[np.float64], n: int) -> dict[str, NDArray[np.float64]]:
    """The world that the policy was told of: nominal, but for the parameters it was told; path -> (n,)."""
    own = {p.path: p for p in task.scene.parameters}
    said = {
        p: np.full(n, float(np.clip(x, own[p].low, own[p].high)))
        for p, x in zip(task.conditioning, told, strict=True)
        if p in own
    }
    return task.scene.nominal(n) | said


def find(case: Case, search: Search | None = None) -> Found:
    """What deviates; see the module's text."""
    return _Finder(case, search or Search()).found()


class _Finder(Replays):
    def __init__(self, case: Case, search: Search) -> None:
        super().__init__(case)
        self.search = search

    # hypotheses -------------------------------------------------------------------------------------------

    def found(self) -> Found:
        if self.case.believed is None:
            return self._as_a_whole()
        s = self.search
        looks: dict[tuple[str, ...], Population] = {(): self.population(self.believed_units(s.base))}
        for part in _chunks([p.path for p in self.swept], max(1, 96 // s.strata)):
            units = self.believed_units(s.strata * len(part))
            for k, path in enumerate(part):
                self._spread(units[k * s.strata : (k + 1) * s.strata], path)
            tried = self.population(units)
            for k, path in enumerate(part):
                looks[path,] = tried.take(np.arange(k * s.strata, (k + 1) * s.strata))
        fitted = self._fit(looks, s.keep)
        if max(f.alike.mean() for f in fitted.values()) < 0.8 or min(f.misfit for f in fitted.values()) > 1:
            fitted |= self._pairs(fitted)
        return self._weigh(fitted)

    def _spread(self, units: NDArray[np.float64], path: str) -> None:
        """Let one parameter deviate anywhere in its range; a threshold whose event was logged is read off later."""
        j, n = self.column[path], len(units)
        units[:, j] = (self.rng.permutation(n) + self.rng.random(n)) / n
        name = event_of(self.swept[j])
        if name and any(e == name for _, e in self.case.logged.events[0]):
            units[:, j] = np.nan

    def _pairs(self, fitted: Mapping[tuple[str, ...], _Fitted]) -> dict[tuple[str, ...], _Fitted]:
        """The best single deviation, and one more beside it."""
        best = max((h for h in fitted if len(h) == 1), key=lambda h: fitted[h].score, default=())
        if not best:
            return {}
        looks: dict[tuple[str, ...], Population] = {}
        others = [p.path for p in self.swept if p.path not in best]
        n = max(4, self.search.strata // 2)
        for part in _chunks(others, max(1, 96 // n)):
            rows = self.rng.integers(len(fitted[best].units), size=n * len(part))
            units = fitted[best].units[rows].copy()
            for k, path in enumerate(part):
                self._spread(units[k * n : (k + 1) * n], path)
            tried = self.population(units)
            for k, path in enumerate(part):
                looks[(*best, path)] = tried.take(np.arange(k * n, (k + 1) * n))
        return self._fit(looks, 2)

    def _fit(self, looks: Mapping[tuple[str, ...], Population], keep: int) -> dict[tuple[str, ...], _Fitted]:
        """The most promising hypotheses, each fitted in rounds."""
        everybody = np.concatenate([x.sims for x in looks.values()])
        base = looks[()].sims if () in looks else everybody
        self.least = np.maximum(self.noise, 1e-3 * everybody.std(axis=0) + 1e-9)
        spread = np.minimum(base.std(axis=0), np.quantile(np.abs(base - np.median(base, axis=0)), 0.7, axis=0) * 1.5)
        self.scale = np.sqrt(self.least**2 + spread**2)
        alive = {h: x for h, x in looks.items() if not h}
        best = {h: float(np.max(self._near(h, x))) for h, x in looks.items()}
        alive |= {h: looks[h] for h in sorted((h for h in looks if h), key=lambda h: -best[h])[:keep]}
        for k, m in enumerate(self.search.rounds):
            alive = self._hopeful(alive, verdict=k > 0)
            alive = {h: x.joined(self.population(self._again(h, x, m))) for h, x in alive.items()}
        return {h: self._posterior_of(h, x) for h, x in self._hopeful(alive, verdict=True).items()}

    def _hopeful(
        self, alive: Mapping[tuple[str, ...], Population], *, verdict: bool
    ) -> dict[tuple[str, ...], Population]:
        """Without those that are far off.

        Later also without those that never fail alike and are no nearer than others that do, and those that are no
        nearer than what is believed, if that fails alike.
        """
        best = {h: float(np.max(self._near(h, x))) for h, x in alive.items()}
        top = max(best.values())
        if verdict:
            alike = max((best[h] for h, x in alive.items() if x.alike.sum() >= OFTEN), default=-np.inf)
            usual = best[()] - 1 if () in alive and alive[()].alike.mean() >= 0.5 else -np.inf
            alive = {
                h: x for h, x in alive.items() if not h or ((x.alike.any() or best[h] > alike) and best[h] > usual)
            }
        return {h: x for h, x in alive.items() if best[h] > top - HOPELESS}

    def _near(self, h: tuple[str, ...], x: Population) -> NDArray[np.float64]:
        """Log weight of a hypothesis's candidates, (k,)."""
        mean, cov = self._prior(h)
        drift = x.units - mean
        off = (drift * np.linalg.solve(cov, drift.T).T).sum(axis=1) - len(mean)  # a usual one is off by its length
        z = (x.sims - self.real) / self.scale
        return (
            _student(z) + np.log(np.where(x.alike, 1.0, 100 * NEVER)) - 0.5 * np.maximum(off, 0) / TOO_NARROW**2
        )  # fmt: skip

    def _again(self, h: tuple[str, ...], x: Population, m: int) -> NDArray[np.float64]:
        """m more candidates of a hypothesis: where the nearest so far are, and where the linear map points to."""
        guessed = self._drawn(h, x, m, 1.6)
        w = tempered(self._near(h, x), 4.0)
        rows = self.rng.choice(len(w), size=m, p=w)
        width = np.sqrt(w @ (x.units - w @ x.units) ** 2)
        around = x.units[rows] + 0.5 * width * self.rng.standard_normal((m, len(self.swept)))
        out = np.where((self.rng.random(m) < 0.6)[:, None], guessed, _reflect(around))
        return self._held(h, out)

    def _drawn(self, h: tuple[str, ...], x: Population, n: int, widen: float) -> NDArray[np.float64]:
        """n draws of a hypothesis's posterior (n, p), as far as ``x`` tells it; ``widen``: of its spread."""
        mean, cov = self._prior(h)
        weights = tempered(self._near(h, x), 2.0 * (len(self.swept) + 1))
        mean, cov = updated(x.units, x.sims, self.real, weights, self.least, (mean, cov))
        drawn = self.rng.multivariate_normal(mean, cov * widen**2, size=8 * n, method="eigh")
        # the verdict is no summary: draws are kept where the candidates nearest in what deviates fail alike
        columns = [self.column[path] for path in h]
        chance = np.ones(len(drawn))
        if columns and 0 < x.alike.sum() < len(x.alike):
            off = (drawn[:, None, columns] - x.units[None][..., columns]) / (x.units[:, columns].std(axis=0) + 1e-6)
            kernel = np.exp(-0.5 * (off**2).sum(axis=2) / 0.2**2) + 1e-9
            chance = (kernel @ x.alike) / kernel.sum(axis=1) + 1e-6
        inside = ((drawn >= 0) & (drawn <= 1))[:, columns].all(axis=1) + 1e-3
        # what the log does not show is rather little off than much
        p = chance * inside * np.exp(-np.abs(drawn - self._prior(())[0])[:, columns].sum(axis=1) / SCALE) + 1e-12
        return np.asarray(_reflect(drawn[self.rng.choice(len(drawn), size=n, replace=False, p=p / p.sum())]))

    def _prior(self, h: tuple[str, ...]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean (p,) and covariance (p, p) of what is believed; what deviates may be anywhere."""
        believed = self.believed_units(256)
        mean, cov = believed.mean(axis=0), np.cov(believed.T) + 1e-6 * np.eye(len(self.swept))
        for path in h:
            j = self.column[path]
            cov[j, :] = cov[:, j] = 0.0
            mean[j], cov[j, j] = 0.5, 0.5**2
        return mean, cov

    def _held(self, h: tuple[str, ...], units: NDArray[np.float64]) -> NDArray[np.float64]:
        """All but the deviating parameters kept within what is believed."""
        believed = self.believed_units(128)
        middle, reach = believed.mean(axis=0), REACH * believed.std(axis=0) + 0.01
        out = np.clip(units, np.maximum(middle - reach, 0), np.minimum(middle + reach, 1))
        for path in h:
            j = self.column[path]
            out[:, j] = np.clip(units[:, j], 0, 1)
            name = event_of(self.swept[j])
            if name and any(e == name for _, e in self.case.logged.events[0]):
                out[:, j] = np.nan
        return out

    def _posterior_of(self, h: tuple[str, ...], x: Population) -> _Fitted:
        tried, replays = self.replayed(self._held(h, self._drawn(h, x, self.search.draws, 1.0)))
        centre, var = tried.sims.mean(axis=0), tried.sims.var(axis=0, ddof=1)
        scale = np.sqrt(var + self.least**2)
        score = float(_student(((self.real - centre) / scale)[None], np.log(scale / self.least))[0])
        score += float(np.log(max(tried.alike.mean(), NEVER)))
        mean, cov = self._prior(h)
        drift = tried.units.mean(axis=0) - mean
        score -= 0.5 * float(drift @ np.linalg.solve(cov, drift)) / TOO_NARROW**2
        middle = self._prior(())[0]
        for path in h:
            j = self.column[path]
            score -= np.log(2 * len(self.swept)) + float(np.abs(np.median(tried.units[:, j]) - middle[j])) / SCALE
        misfit, parted = self.course(replays)
        score -= OFF_COURSE * max(0.0, misfit - 1)
        return _Fitted(tried.units, replays, tried.alike, score, misfit, parted)

    def _weigh(self, fitted: Mapping[tuple[str, ...], _Fitted]) -> Found:
        """Draws of all hypotheses, in proportion to what each is worth."""
        names = list(fitted)
        score = np.array([fitted[h].score for h in names])
        odds = np.exp(score - score.max())
        odds /= odds.sum()
        n = self.search.draws
        counts = np.floor(odds * n + 0.5).astype(int)
        counts[np.argmax(odds)] += n - counts.sum()
        units, deviating, alike = [], [], []
        for h, k in zip(names, counts, strict=True):
            rows = np.arange(max(k, 0))
            units.append(fitted[h].units[rows])
            alike += fitted[h].alike[rows].tolist()
            deviating += [h] * len(rows)
        drawn = np.concatenate(units)
        back = drawn.copy()
        usual = self.believed_units(len(drawn))
        for i, h in enumerate(deviating):
            for path in h:
                back[i, self.column[path]] = usual[i, self.column[path]]
        best = fitted[names[int(np.argmax(odds))]]
        values, believed, calibrated = (self.values(x) for x in (drawn, back, usual))
        seen = {p: values[p] for p in values if p not in self.column}  # what is read off the log is no belief
        share = dict(zip(names, odds.tolist(), strict=True))
        return Found(values, believed | seen, calibrated | seen, deviating, share, float(np.mean(alike)), best.misfit,
                     best.parted_s)  # fmt: skip

    def _as_a_whole(self) -> Found:
        """Without a calibration: everything is fitted to this attempt at once."""
        config = ReplayConfig(attempts=(1, 1, 1), threads=self.case.threads)
        fit = fit_robot(self.task, self.case.logged, config, seed=self.case.seed)
        self.case.attempts += fit.replays
        n = self.search.draws
        rows = self.rng.choice(len(fit.samples), size=n, replace=False)
        got = self.task.scene.nominal(n) | {p: x[rows] for p, x in fit.values().items()}
        drawn = np.column_stack([p.to_unit(got[p.path]) for p in self.swept])
        tried, replays = self.replayed(np.clip(drawn, 0, 1))
        told = as_told(self.task, self.case.told, n)
        usual = np.column_stack([p.to_unit(told[p.path]) for p in self.swept])
        spread = tried.units.std(axis=0) + 1e-9
        off = np.abs(np.median(tried.units, axis=0) - usual[0])
        clear = [j for j in np.argsort(-off) if off[j] > 1.64 * spread[j] and spread[j] < 0.15][:4]
        h = tuple(self.swept[j].path for j in clear)
        back = tried.units.copy()
        back[:, clear] = usual[:, clear]
        misfit, parted = self.course(replays)
        values, believed = self.values(tried.units), self.values(back)
        seen = {p: values[p] for p in values if p not in self.column}
        return Found(
            values,
            believed | seen,
            self.values(usual) | seen,
            [h] * n,
            {h: 1.0},
            float(tried.alike.mean()),
            misfit,
            parted,
        )


def _student(z: NDArray[np.float64], log_scale: NDArray[np.float64] | float = 0.0) -> NDArray[np.float64]:
    """Log density of summaries (k, s) under Student's t, counted as ``WORTH`` independent ones, (k,)."""
    each = -0.5 * (DEGREES + 1) * np.log1p(z**2 / DEGREES) - log_scale
    return each.sum(axis=1) * min(1.0, WORTH / z.shape[1])


def _chunks(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[i : i + size] for i in range(0, len(names), size)]
