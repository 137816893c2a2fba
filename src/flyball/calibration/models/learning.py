"""What recordings teach about a robot model: the ladder climbed, samples, bands, and the score of what was held out.

In: a ``ModelRig`` and its replays. Out: ``Learned`` and one ``Score`` per fold, as ``flyball.calibration.recordings``
reports them. An arm has some thirty parameters, so each level is fitted once, to everything; fits without a group of
recordings, or without two, are steps from there (see ``gauss_newton.refit``). For the score of a group, the level and
the width of the bands are chosen by what the other groups say of one another in fits without it.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.bands import Bands, LeftOut, learn_bands
from flyball.calibration.calibration import GAIN, FoldError
from flyball.calibration.fit import Fit, Progress, Silent, from_unit
from flyball.calibration.learning import Budget, Learned
from flyball.calibration.models.gauss_newton import Fitted, descend, refit
from flyball.calibration.models.linear import Replays, clusters, owners
from flyball.calibration.models.posterior import Posterior, alike, posterior
from flyball.calibration.models.regression import regressed
from flyball.calibration.models.rig import ModelRig
from flyball.calibration.models.starts import carried, starts
from flyball.calibration.problem import Replay, ReplayProblem
from flyball.calibration.recordings import Score, noise_floor
from flyball.calibration.rigs import Fold
from flyball.calibration.tracks import Held

Array = NDArray[np.float64]

BUDGET = Budget(starts=3, iterations=20, members=48, tracks=24)
_SCOUTS = 3
"""Recordings of a robot that a fit begins with."""
_ROUGH, _RUNG, _FINE = 3e-2, 3e-3, 1e-6
"""Scouting, a level that may be but a rung, and the level that is kept end when a step lowers the cost by less."""
_STUCK = 0.8
"""Where the friction of a joint that no recording moves is taken to be, on the unit cube: high enough to hold it."""
_EXPLAINED = 1.3
"""A fit that leaves this much of the noise needs no other start."""
_FINEST_S = 5e-4
_HALVINGS = 2
_DISCRETE = 0.25
"""A step of the engine is short enough when half of it changes predictions by less than this share of the noise."""


@dataclass(frozen=True)
class Level:
    """One level of the ladder, fitted.

    Attributes:
      replays: the recordings with its parameters free.
      left: predictions with groups left out, (groups, samples, size): row i, recording e: without group i and without
        e's own group, or where nothing else is left, without e's own.
      errors: of those predictions, (groups, recordings).
      vectors: the unknowns of those fits, (groups, recordings, P).
    """

    replays: Replays
    fitted: Fitted
    posterior: Posterior
    left: Array
    errors: Array
    vectors: Array


@dataclass(frozen=True)
class Taught:
    """What was learned, and how well it carries over.

    Attributes:
      learned: from all recordings.
      scores: one per fold.
      level: the level of ``learned``.
      steps: substeps simulated.
    """

    learned: Learned
    scores: tuple[Score, ...]
    level: Level
    steps: int

    def of(self, robot: str, seed: int, budget: Budget) -> Learned:
        """What was learned of one robot; "": of a robot of the kind that was not recorded."""
        level, learned = self.level, self.learned
        parameters, own = level.replays.parameters, level.replays.own
        draws = level.posterior.draw(np.random.default_rng(seed), budget.members)
        best = from_unit(parameters, type_locals(level.replays, level.fitted.at.u[None], robot))
        local = type_locals(level.replays, draws, robot)
        if not robot:
            spread = {path: 1 / np.sqrt(p) for (path, of, _), p in zip(own.names, own.precision, strict=True) if of}
            more = np.array([spread.get(p.path, 0.0) for p in parameters])
            local = np.clip(local + more * np.random.default_rng(seed + 1).standard_normal(local.shape), 0, 1)
        fit = replace(learned.fit, values=best)
        return replace(learned, fit=fit, spread=from_unit(parameters, local))


class _Run:
    """One set of recordings."""

    def __init__(
        self, rig: ModelRig, replays: Sequence[Replay], folds: Sequence[Fold], seed: int, budget: Budget,
        progress: Progress,
    ) -> None:  # fmt: skip
        self.rig, self.replays, self.seed = rig, list(replays), seed
        self.budget, self.progress = budget, progress
        self.folds = list(folds)
        names = [r.name for r in replays]
        self.group = np.array([next(i for i, f in enumerate(folds) if n in f.test) for n in names])
        self.levels: list[Level] = []
        self.problems: list[ReplayProblem] = []
        self.answers: dict[int, Learned] = {}
        moves = np.max([np.ptp(r.measured, axis=0) for r in replays], axis=0)
        self.still = [d.joint for d, m in zip(rig.driven, moves, strict=True) if m <= 10 * rig.compared.noise]
        self.timestep = self.short_step()
        self.estimate = regressed(rig, self.some())

    def short_step(self) -> float:
        """A step with which the engine's integration is no source of error that parameters would have to explain [s].

        The model's own, halved while half of it changes the predictions of the first recording by more than its noise
        allows, but not for ever.
        """
        rig = self.rig
        problem = ReplayProblem(rig.scene, rig.compared, self.replays[:1], rig.levels[0], engine=rig.engine)
        nominal = np.array([p.nominal for p in problem.parameters])
        dt, coarse = problem.step_s, problem.predict(nominal)
        for _ in range(_HALVINGS):
            if dt / 2 < _FINEST_S:
                break
            fine = replace(problem, timestep=dt / 2).predict(nominal)
            if np.sqrt(np.mean((fine - coarse) ** 2)) <= _DISCRETE * rig.compared.noise:
                break
            dt, coarse = dt / 2, fine
        return dt

    def taught(self) -> Taught:
        """Climb, then report the level that all recordings choose and the score of every fold at the level it chose."""
        k = len(self.folds)
        inner: list[list[float]] = []
        whole: list[float] = []
        while len(self.levels) < len(self.rig.levels):
            self.levels.append(self.fit_level(len(self.levels)))
            errors = self.levels[-1].errors
            whole.append(float(np.mean([errors[i, self.group == i].mean() for i in range(k)])))
            inner.append([self._inner_error(errors, i) for i in range(k)])
            self.progress.note(
                f"{self.rig.name}: {len(self.levels[-1].replays.parameters)} parameters,"
                f" error left out {whole[-1]:.4g} {self.rig.unit}"
            )
            chosen = [_climbed([e[i] for e in inner]) for i in range(k)]
            best = len(self.levels) - 1
            if max(_climbed(whole), *chosen) < best or (1 - GAIN) * whole[-1] < noise_floor(self.rig):
                break  # nothing is left that a richer model could explain
        level = _climbed(whole)
        if level + 1 < len(self.rig.levels):
            self.progress.stage(f"{self.rig.name}: the model that is kept", self.budget.iterations)
            self.levels[level] = self.descended(self.levels[level].replays, self.levels[level].fitted.at.u, _FINE)
        scores = tuple(self.score(i, chosen[i]) for i in range(k))
        return Taught(self.learned(level, whole), scores, self.levels[level], sum(p.steps for p in self.problems))

    def fit_level(self, i: int) -> Level:
        """Fit one level to everything, and take groups out."""
        rig, paths = self.rig, self.rig.levels[i]
        self.progress.stage(f"{rig.name}: model {i + 1} of {len(rig.levels)}", self.budget.iterations)
        begun = None if not self.levels else (self.levels[-1].replays.own.names, self.levels[-1].fitted.at.u)
        scouts = self.open(self.some(), paths)
        best: Fitted | None = None
        most = self.budget.starts if i + 1 == len(rig.levels) else 1
        for u in starts(scouts, begun, self.estimate, self.seed, most):
            scouts.coarsen(u)
            fitted = descend(scouts, u, iterations=self.budget.iterations, tiny=_ROUGH, progress=self.progress)
            if best is None or self.left_over(scouts, fitted) < self.left_over(scouts, best):
                best = fitted
            if self.left_over(scouts, best) <= _EXPLAINED:
                break
        assert best is not None
        replays = self.open(self.replays, paths)
        u, _ = carried(replays.own, (scouts.own.names, best.at.u))
        return self.descended(replays, u, _RUNG if i + 1 < len(rig.levels) else _FINE)

    def left_over(self, replays: Replays, fitted: Fitted) -> float:
        """Typical size of what a fit leaves, over the sensor's noise."""
        left = np.abs(fitted.at.predicted - replays.problem.measured)
        return float(1.2533 * left.mean() / self.rig.compared.noise)

    def descended(self, replays: Replays, u: Array, tiny: float) -> Level:
        """A level from a start, with groups left out."""
        replays.coarsen(u)
        fitted = descend(replays, u, iterations=self.budget.iterations, tiny=tiny, progress=self.progress)
        if replays.own.deviations.any():
            alike(replays, fitted)
            fitted = descend(replays, fitted.at.u, iterations=self.budget.iterations, tiny=tiny, progress=self.progress)
        problem = replays.problem
        vectors = self.without(replays, fitted)
        predicted = problem.predict(from_unit(problem.parameters, self._locals(replays, vectors)))
        return Level(replays, fitted, posterior(replays, fitted), predicted, self.errors(problem, predicted), vectors)

    def some(self) -> list[Replay]:
        """A few recordings of each robot, to scout with."""
        kept: dict[str, int] = {}
        out = []
        for r in self.replays:
            kept[r.robot] = kept.get(r.robot, 0) + 1
            if kept[r.robot] <= _SCOUTS:
                out.append(r)
        return out

    def open(self, some: Sequence[Replay], paths: Sequence[str]) -> Replays:
        """Recordings with these parameters free."""
        rig = self.rig
        problem = ReplayProblem(
            rig.scene, rig.compared, some, paths, engine=rig.engine, threads=self.budget.threads, stride=rig.stride,
            unit_size=rig.unit_size, timestep=self.timestep,
        )  # fmt: skip
        self.problems.append(problem)
        stuck = {f"{joint}.friction" for joint in self.still}
        centre = np.array([_STUCK if p.path in stuck else _centre(p.to_unit(p.nominal)) for p in problem.parameters])
        return Replays(problem, owners(problem.parameters, some, centre), clusters(problem))

    def without(self, replays: Replays, fitted: Fitted) -> Array:
        """Unknowns with groups left out; see ``Level.vectors``."""
        k, of = len(self.folds), self.group[self._recording_of_cluster(replays)]
        out = np.empty((k, len(self.replays), len(fitted.at.u)))
        found: dict[frozenset[int], Array] = {}
        for i, e in itertools.product(range(k), range(len(self.replays))):
            gone = frozenset({i, int(self.group[e])})
            gone = gone if len(gone) < k else frozenset({int(self.group[e])})
            if gone not in found:
                found[gone] = refit(replays, fitted, np.flatnonzero(np.isin(of, list(gone))))
            out[i, e] = found[gone]
        return out

    def _recording_of_cluster(self, replays: Replays) -> NDArray[np.int_]:
        _, first = np.unique(replays.cluster, return_index=True)
        return np.asarray(replays.episode[first])

    def _locals(self, replays: Replays, vectors: Array) -> Array:
        """Local vectors of unknowns that every recording has of its own, (k, e, P) -> (k, e, p)."""
        return np.clip(np.einsum("epg,keg->kep", replays.own.design, vectors), 0.0, 1.0)

    def errors(self, problem: ReplayProblem, predicted: Array) -> Array:
        """Mean distance per recording in the rig's unit, (k, samples, size) -> (k, recordings)."""
        d = np.linalg.norm(np.nan_to_num(predicted, nan=1e3) - problem.measured, axis=2) / self.rig.unit_size
        return np.stack([d[:, problem.episode == e].mean(axis=1) for e in range(len(self.replays))], axis=1)

    def _inner_error(self, errors: Array, i: int) -> float:
        """What groups other than i say of one another."""
        return float(np.mean([errors[i, self.group == g].mean() for g in range(len(self.folds)) if g != i]))

    def tracks(self, level: Level, i: int, recording: int, rng: np.random.Generator) -> Array:
        """Predictions of draws around the fit of row i for a recording, by its derivatives, (m, samples, size)."""
        rows = level.replays.episode == recording
        u = level.vectors[i, recording]
        moved = np.clip(level.posterior.draw(rng, self.budget.tracks, u), -1.0, 1.0) - u
        local = moved @ level.replays.own.design[recording].T
        slope = level.fitted.at.slope[rows]
        return np.asarray(level.left[i, rows] + np.einsum("nsp,mp->mns", slope, local))

    def left_out(self, level: Level, i: int, group: int, rng: np.random.Generator) -> LeftOut:
        """A group and what fits without it, and without group i, say of it."""
        problem, members = level.replays.problem, np.flatnonzero(self.group == group)
        tracks = np.concatenate([self.tracks(level, i, int(e), rng) for e in members], axis=1)
        rows = np.concatenate([np.flatnonzero(problem.episode == e) for e in members])
        return LeftOut(lambda _: tracks, problem.measured[rows], problem.elapsed[rows])

    def score(self, i: int, chosen: int) -> Score:
        """One fold: what the others say of it."""
        level, fold = self.levels[chosen], self.folds[i]
        rng, problem = np.random.default_rng(self.seed + i), level.replays.problem
        others = [g for g in range(len(self.folds)) if g != i]
        bands = self.bands([self.left_out(level, i, g, rng) for g in others])
        held = self.left_out(level, i, i, rng)
        low, high = bands.limits(held.predict(1.0), held.elapsed)
        inside = (held.measured >= low) & (held.measured <= high)
        mine = self.group == i
        nominal = np.array([p.nominal for p in problem.parameters])
        vector = level.vectors[i, np.flatnonzero(mine)[0]]
        fit = level.replays.values(vector[None])
        predicted = np.concatenate([problem.predict(nominal[None]), problem.predict(fit)])
        before, trained = self.errors(problem, predicted)
        after = level.errors[i, mine]
        error = FoldError(
            fold.name,
            float(before[mine].mean()),
            float(after.mean()),
            float(trained[~mine].mean()),
            float(inside.mean()),
        )
        of = np.concatenate([np.full(int((problem.episode == e).sum()), k) for k, e in enumerate(np.flatnonzero(mine))])
        rows = np.concatenate([np.flatnonzero(problem.episode == e) for e in np.flatnonzero(mine)])
        names = tuple(r.name for r, m in zip(self.replays, mine, strict=True) if m)
        shown = Held(fold.name, names, after, of, held.elapsed, held.measured, level.left[i, rows], low, high)
        return Score(error, after, inside, self.learned(chosen), 0, shown)

    def bands(self, groups: Sequence[LeftOut]) -> Bands:
        """Bands of groups left out."""
        return learn_bands(groups, self.rig.compared.noise)

    def learned(self, chosen: int, ladder: Sequence[float] = ()) -> Learned:
        """The answer of a level."""
        if chosen in self.answers:
            return replace(self.answers[chosen], ladder=tuple(ladder))
        level = self.levels[chosen]
        problem, rng = level.replays.problem, np.random.default_rng(self.seed)
        draws = np.clip(level.posterior.draw(rng, self.budget.members), *self._box(level))
        spread = from_unit(problem.parameters, type_locals(level.replays, draws))
        best = from_unit(problem.parameters, type_locals(level.replays, level.fitted.at.u[None]))
        fit = Fit(best, np.array([level.fitted.at.cost]), level.fitted.iterations, self.seed, level.fitted.converged)
        bands = self.bands([self.left_out(level, g, g, rng) for g in range(len(self.folds))])
        error = float(self.errors(problem, level.fitted.at.predicted[None]).mean())
        self.answers[chosen] = Learned(
            self.rig, tuple(r.name for r in self.replays), chosen, tuple(ladder), fit, spread, bands, problem, error,
            sum(p.steps for p in self.problems), self.budget.tracks,
        )  # fmt: skip
        return self.answers[chosen]

    def _box(self, level: Level) -> tuple[Array, Array]:
        deviation = level.replays.own.deviations
        return np.where(deviation, -1.0, 0.0), np.ones(len(deviation))


def teach(
    rig: ModelRig,
    replays: Sequence[Replay],
    folds: Sequence[Fold],
    *,
    seed: int = 0,
    budget: Budget = BUDGET,
    progress: Progress | None = None,
) -> Taught:
    """Climb a rig's ladder on its replays; see the module's text.

    Args:
      folds: every recording is held out in exactly one; two or more.
    """
    return _Run(rig, replays, folds, seed, budget, progress or Silent()).taught()


def type_locals(replays: Replays, u: Array, robot: str = "") -> Array:
    """Local vectors of a robot, or of the type, from unknowns, (k, P) -> (k, p).

    A parameter of single recordings is one of them at random, row by row: the spread of the samples is that of the
    recordings.
    """
    paths = [p.path for p in replays.parameters]
    out = np.zeros((len(u), len(paths)))
    single: dict[str, list[int]] = {}
    for g, (path, of, recording) in enumerate(replays.own.names):
        if recording:
            single.setdefault(path, []).append(g)
        elif not of or of == robot:
            out[:, paths.index(path)] += u[:, g]
    for path, gs in single.items():
        out[:, paths.index(path)] = u[np.arange(len(u)), np.array(gs)[np.arange(len(u)) % len(gs)]]
    return np.clip(out, 0.0, 1.0)


def _centre(nominal: Array) -> float:
    """Middle of a prior: the nominal value, unless that is a bound, of which it is known only that it is absent."""
    u = float(nominal)
    return u if 0.05 < u < 0.95 else 0.5


def _climbed(errors: Sequence[float]) -> int:
    """How far a ladder is climbed: while each level's error is lower by more than ``GAIN``."""
    level = 0
    for i in range(1, len(errors)):
        if errors[i] >= (1 - GAIN) * errors[level]:
            break
        level = i
    return level
