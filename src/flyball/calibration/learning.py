"""What a set of recordings teaches about a rig: the one way from recordings to a fit, joint samples and bands.

In: a rig and the recordings to learn from. Out: ``Learned``: model of the ladder, best fit, joint samples, predictive
bands. Every choice is made on these recordings alone, by leaving groups of them out: how far the ladder is climbed, how
wide the samples are, what the bands add. So whatever was not given can judge it.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.bands import Bands, LeftOut, learn_bands
from flyball.calibration.calibration import GAIN
from flyball.calibration.fit import (
    STEP,
    Fit,
    Progress,
    Silent,
    bootstrap_minima,
    cma_es,
    from_unit,
    jackknife,
    knowledge,
    least_squares,
    profile,
    starts,
    to_unit,
    weights,
)
from flyball.calibration.problem import Replay, ReplayProblem
from flyball.calibration.rigs import Rig

Array = NDArray[np.float64]

_GROUPS = 5
"""Most groups that recordings of one regime are split into."""
_CHANCE = 1.645
_AT_BOUND = 0.005  # share of a parameter's range, on its scale


@dataclass(frozen=True)
class Budget:
    """What a calibration may cost.

    Attributes:
      starts: starts of each least-squares fit.
      iterations: Gauss-Newton steps of a fit from scratch.
      scouting: of these, with all starts; the best go on.
      refits: Gauss-Newton steps of a refit with a recording left out.
      population, generations: of CMA-ES.
      members: joint samples kept, at most.
      tracks: joint samples whose replays make a band.
      threads: CPU threads of the engine.
    """

    starts: int = 5
    iterations: int = 20
    scouting: int = 5
    refits: int = 4
    population: int = 12
    generations: int = 20
    members: int = 48
    tracks: int = 24
    threads: int = 1


@dataclass(frozen=True)
class Learned:
    """What recordings taught.

    Attributes:
      rig: what was recorded.
      names: the recordings.
      level: model of the ladder, index into ``rig.levels``.
      ladder: error with groups left out of every model tried, in the rig's unit.
      fit: candidates, best first, in the order of ``rig.levels[level]``.
      spread: joint samples around the best, (m, p), before they are widened.
      bands: for predictions.
      problem: the recordings as a fitting problem.
      error: of the best on these recordings, in the rig's unit.
      steps: substeps simulated.
      tracks: joint samples whose replays make a band.
    """

    rig: Rig
    names: tuple[str, ...]
    level: int
    ladder: tuple[float, ...]
    fit: Fit
    spread: Array
    bands: Bands
    problem: ReplayProblem = field(repr=False)
    error: float
    steps: int
    tracks: int

    @property
    def best(self) -> Array:
        """The best fit, (p,)."""
        return self.fit.best

    def samples(self, most: int) -> Array:
        """At most so many joint samples, widened as the bands ask, (m, p)."""
        thinned = _thin(self.spread, most, self.fit.seed)
        return stretch(self.problem, self.best, thinned, self.bands.widened)

    def inside(self, problem: ReplayProblem) -> NDArray[np.bool_]:
        """Which measurements of other recordings lie within the bands, (samples, size)."""
        return self.bands.inside(problem.predict(self.samples(self.tracks)), problem.measured, problem.elapsed)


def learn(
    rig: Rig,
    replays: Sequence[Replay],
    *,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Learned:
    """Fit a rig's scene to recordings.

    Args:
      replays: two or more.
      seed: of everything random.
    """
    run = _Run(rig, list(replays), seed, budget or Budget(), progress or Silent())
    return run.contact() if rig.method == "cma-es" else run.smooth()


def groups_of(replays: Sequence[Replay]) -> list[tuple[str, ...]]:
    """What is left out together: each regime; of a single regime, a few groups of its recordings."""
    regimes: dict[str, list[str]] = {}
    for r in replays:
        regimes.setdefault(r.regime, []).append(r.name)
    if len(regimes) > 1:
        return [tuple(names) for names in regimes.values()]
    names = [r.name for r in replays]
    return [tuple(names[i::_GROUPS]) for i in range(min(_GROUPS, len(names)))] if len(names) > 1 else []


class _Run:
    """One set of recordings; its two methods are the two ways through."""

    def __init__(self, rig: Rig, replays: list[Replay], seed: int, budget: Budget, progress: Progress) -> None:
        self.rig, self.replays, self.seed = rig, replays, seed
        self.budget, self.progress = budget, progress
        self.names, self.groups = [r.name for r in replays], groups_of(replays)
        self.problems: list[ReplayProblem] = []

    def problem(self, names: Sequence[str], paths: Sequence[str]) -> ReplayProblem:
        """Replays of these recordings with these parameters free."""
        rig = self.rig
        self.problems.append(
            ReplayProblem(
                rig.scene, rig.compared, [r for r in self.replays if r.name in set(names)], paths, engine=rig.engine,
                threads=self.budget.threads, stride=rig.stride, unit_size=rig.unit_size,
            )
        )  # fmt: skip
        return self.problems[-1]

    def smooth(self) -> Learned:
        """Ladder of least-squares fits, to everything and with each group left out."""
        rig, budget = self.rig, self.budget
        without = [(), *self.groups]
        problem, level = None, 0
        fits: list[Fit] = []
        ladder: list[float] = []
        for i, paths in enumerate(rig.levels):
            self.progress.stage(f"{rig.name}: model {i + 1} of {len(rig.levels)}", budget.iterations)
            new = self.problem(self.names, paths)
            found = least_squares(
                new, weights(new, without), prior=knowledge(new.parameters, rig.priors), seed=self.seed,
                initial=self.starts(new, problem, fits),
                iterations=budget.iterations, scouting=budget.scouting, progress=self.progress,
            )  # fmt: skip
            errors = new.errors(np.stack([f.best for f in found]))
            left_out = [errors[1 + j, np.isin(self.names, g)].mean() for j, g in enumerate(self.groups)]
            ladder.append(float(np.mean(left_out)) if left_out else float(errors[0].mean()))
            self.progress.note(f"{rig.name}: {len(paths)} parameters, error left out {ladder[-1]:.4g} {rig.unit}")
            pays = bool(left_out) and ladder[-1] < (1 - GAIN) * ladder[level]
            # A richer model whose fit runs to a bound says that it is not the right one, however well it interpolates.
            if i and (not pays or on_bounds(new, found[0].best)):
                break
            level, problem, fits = i, new, found
        assert problem is not None
        everything = weights(problem, without)[0]
        self.progress.stage(f"{rig.name}: refits with recordings left out", len(self.groups))
        whole = profile(problem, everything, fits[0], prior=knowledge(problem.parameters, rig.priors))
        spread = self.ensemble(problem, whole, self.names, ())
        left = []
        for group, fit in zip(self.groups, fits[1:], strict=True):
            others = [n for n in self.names if n not in group]
            left.append(self.left_out(group, problem, fit.best, self.ensemble(problem, fit, others, group)))
            self.progress.advance()
        return self.learned(problem, whole, spread, left, level, ladder)

    def starts(self, problem: ReplayProblem, simpler: ReplayProblem | None, fits: Sequence[Fit]) -> Array:
        """Start values of every row, (rows, s, p): Sobol points, and the end of the simpler model's fit."""
        ps = problem.parameters
        u = np.tile(starts(ps, self.budget.starts, self.seed), (1 + len(self.groups), 1, 1))
        if simpler is not None:
            own = np.array([[p.nominal for p in ps]] * len(fits))
            at = [problem.paths.index(path) for path in simpler.paths]
            own[:, at] = np.stack([f.best for f in fits])
            u = np.concatenate([np.clip(to_unit(ps, own), 0.02, 0.98)[:, None], u], axis=1)
        return from_unit(ps, u)

    def ensemble(self, problem: ReplayProblem, fit: Fit, train: Sequence[str], without: Sequence[str]) -> Array:
        """Joint samples around a fit, (m, p): every end of a start that is as good, moved as refits move.

        Starts end all along a valley that the recordings leave open; the jackknife shows the rest. No band is narrower
        than a tenth of the fitter's step.
        """
        ps, rng = problem.parameters, np.random.default_rng(self.seed)
        centres = to_unit(ps, as_good(problem, fit, train))
        known = knowledge(ps, self.rig.priors)
        moves = jackknife(problem, fit, train, without, prior=known, iterations=self.budget.refits)
        cloud = (centres[:, None] + moves).reshape(-1, len(ps))
        cloud = np.repeat(cloud, int(np.ceil(self.budget.members / len(cloud))), axis=0)
        return from_unit(ps, np.clip(cloud + STEP / 10 * rng.standard_normal(cloud.shape), 0, 1))

    def contact(self) -> Learned:
        """CMA-ES once; what other recordings would have made of it by ranking its candidates again (bootstrap)."""
        rig, budget = self.rig, self.budget
        self.progress.stage(f"{rig.name}: CMA-ES", budget.generations)
        problem = self.problem(self.names, rig.levels[-1])
        fit, losses = cma_es(
            problem, seed=self.seed, population=budget.population, generations=budget.generations,
            progress=self.progress,
        )  # fmt: skip
        self.progress.stage(f"{rig.name}: predictive bands", len(self.groups))

        def cloud(columns: NDArray[np.bool_]) -> tuple[Array, Array]:
            some = losses[:, columns]
            drawn = bootstrap_minima(fit.values, some, draws=4 * budget.members, seed=self.seed)
            order = np.argsort(some.mean(axis=1), kind="stable")
            near = fit.values[order[some.mean(axis=1)[order] <= 1.02 * some[order[0]].mean()]]
            return fit.values[order[0]], np.concatenate([near[: budget.members], drawn])

        left = []
        for group in self.groups:
            best, spread = cloud(~np.isin(self.names, group))
            left.append(self.left_out(group, problem, best, spread))
            self.progress.advance()
        _, spread = cloud(np.ones(len(self.names), bool))
        return self.learned(problem, fit, spread, left, len(rig.levels) - 1, [float(fit.costs[0])])

    def left_out(self, group: Sequence[str], problem: ReplayProblem, best: Array, spread: Array) -> LeftOut:
        """A group and what samples fitted without it predict of it."""
        some = self.problem(group, problem.paths)
        few = _thin(spread, self.budget.tracks, self.seed)
        predict = functools.cache(lambda factor: some.predict(stretch(problem, best, few, factor)))
        return LeftOut(predict, some.measured, some.elapsed)

    def learned(
        self, problem: ReplayProblem, fit: Fit, spread: Array, left: Sequence[LeftOut], level: int,
        ladder: Sequence[float],
    ) -> Learned:  # fmt: skip
        """The answer; with nothing left out, the bands are those of the recordings fitted."""
        seen = self.left_out(self.names, problem, fit.best, spread)
        bands = learn_bands(left or [seen], self.rig.compared.noise, seen if left else None)
        error = float(problem.errors(fit.best[None]).mean())
        return Learned(
            self.rig, tuple(self.names), level, tuple(ladder), fit, spread, bands, problem, error,
            sum(p.steps for p in self.problems), self.budget.tracks,
        )  # fmt: skip


def on_bounds(problem: ReplayProblem, best: Array) -> list[str]:
    """Parameters that a fit left on a bound; not those whose bound is the nominal value, whose effect is absent."""
    found = []
    for p, u in zip(problem.parameters, to_unit(problem.parameters, best), strict=True):
        bound = float(np.round(u))
        if abs(u - bound) <= _AT_BOUND and abs(p.to_unit(p.nominal) - bound) > _AT_BOUND:
            found.append(p.path)
    return found


def as_good(problem: ReplayProblem, fit: Fit, train: Sequence[str]) -> Array:
    """Candidates that the recordings cannot tell from the best, (c, p).

    One is worse when its error, recording by recording, exceeds the best's by more than chance (paired, one-sided 5 %)
    and by more than 1 %.
    """
    rows = np.isin([r.name for r in problem.replays], train)
    errors = problem.errors(fit.values)[:, rows]
    excess = errors - errors[0]
    chance = _CHANCE * excess.std(axis=1, ddof=1) / np.sqrt(rows.sum()) if rows.sum() > 1 else 0.0
    return fit.values[excess.mean(axis=1) <= np.maximum(chance, 0.01 * errors[0].mean())]


def stretch(problem: ReplayProblem, centre: Array, members: Array, factor: float) -> Array:
    """Members moved away from the centre by a factor, on the unit cube and within it, (m, p)."""
    c, u = to_unit(problem.parameters, centre), to_unit(problem.parameters, members)
    return from_unit(problem.parameters, np.clip(c + factor * (u - c), 0, 1))


def _thin(samples: Array, most: int, seed: int) -> Array:
    """At most so many rows, drawn without replacement."""
    if len(samples) <= most:
        return samples
    return samples[np.random.default_rng(seed).choice(len(samples), most, replace=False)]
