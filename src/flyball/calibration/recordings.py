"""Calibration from recordings of real set-ups.

In: the episodes of a workspace. Out: one ``Calibration`` per rig that has episodes, stored as an artifact. The report
is about recordings that took no part in the fit; the uncertainty is that of refits with recordings left out, widened
until its predictive bands cover held-out samples, since the residuals of an imperfect model are not independent.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing
from flyball.base.steps import json_of, step
from flyball.base.workspace import Workspace
from flyball.calibration.calibration import (
    GAIN,
    Calibration,
    FoldError,
    HeldOut,
    Verdict,
    describe,
    scene_digest,
)
from flyball.calibration.fit import (
    STEP,
    Fit,
    Progress,
    Silent,
    bootstrap_minima,
    cma_es,
    from_unit,
    jackknife,
    least_squares,
    profile,
    to_unit,
    weights,
)
from flyball.calibration.problem import Replay, ReplayProblem
from flyball.calibration.rigs import Fold, Rig, rig_for, rigs
from flyball.engines import engines
from flyball.episodes.catalogue import Catalogue

Array = NDArray[np.float64]

VERSION = 1
_PRODUCER = "flyball.calibration.recordings"
_WIDENINGS = (1.0, 1.5, 2.0, 3.0)
_COVER, _BAND = 0.9, 1.645
_PAYS = 0.03  # the smallest spread within this much of the most coverage is taken


@dataclass(frozen=True)
class Budget:
    """What a calibration may cost.

    Attributes:
      starts: starts of each least-squares fit.
      iterations: Gauss-Newton steps of a fit from scratch.
      refits: Gauss-Newton steps of a refit with a recording left out.
      population, generations: of CMA-ES.
      members: joint samples kept, at most.
      threads: CPU threads of the engine.
    """

    starts: int = 8
    iterations: int = 30
    refits: int = 5
    population: int = 12
    generations: int = 20
    members: int = 48
    threads: int = 1


def calibrate_recordings(
    workspace: Workspace | Path | str,
    *,
    rig: str | None = None,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> list[Calibration]:
    """Calibrate every rig that the workspace has recordings of.

    Repeating it costs nothing: the answer for the same episodes, scene, seed and budget is stored.

    Args:
      rig: only this one.
      seed: of everything random.

    Raises:
      Missing: no such rig, or no episodes of one.
      InputError: the recordings show no motion, or are too few to hold any out.
    """
    place = workspace if isinstance(workspace, Workspace) else Workspace(workspace, create=False)
    budget, progress = budget or Budget(), progress or Silent()
    catalogue = Catalogue(place.store)
    names = [rig] if rig is not None else rigs.names()
    found: dict[str, dict[str, Replay]] = {}
    skipped: list[str] = []
    progress.stage("recordings")
    for row in catalogue.query("origin != 'simulation' AND verdict != 'rejected'"):
        episode = catalogue.load(row.digest)
        name = rig_for(episode, names)
        if name:
            try:
                found.setdefault(name, {})[row.digest] = rigs.load(name)().replay(episode)
            except InputError as err:
                skipped.append(err.line())
    for line in skipped:
        progress.note(f"left out: {line}")
    if not found:
        raise Missing(
            f"no recordings of {rig or 'any rig'}",
            where=str(place.path),
            allowed=f"episodes of {', '.join(names)}",
            run_next=f"flyball ingest DIR --workspace {place.path}",
        )
    out = []
    for name, replays in found.items():
        body: Rig = rigs.load(name)()
        inputs = {
            "rig": name,
            "scene": body.scene.digest,
            "engine": _engine(body),
            "episodes": sorted(replays),
            "seed": seed,
            "budget": replace(budget, threads=1),
        }
        made = functools.partial(
            calibrate, body, list(replays.values()), data=list(replays), seed=seed, budget=budget, progress=progress
        )
        artifact = step(
            place.store, _PRODUCER, VERSION, inputs, functools.partial(_document, made), kind="calibration",
            labels={"rig": name, "seed": seed},
        )  # fmt: skip
        out.append(Calibration.from_json(json_of(place.store, artifact), where=artifact.digest[:12]))
    return out


def _document(made: Callable[[], Calibration]) -> dict[str, Any]:
    return made().to_json()


def calibrate(
    rig: Rig,
    replays: Sequence[Replay],
    *,
    data: Sequence[str] = (),
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit a rig's scene to recordings and say how well that carries over to recordings held out.

    Args:
      data: digests of the episodes, for the record.

    Raises:
      InputError: no motion, or too few recordings.
    """
    budget, progress = budget or Budget(), progress or Silent()
    moved = max(float(np.ptp(r.measured, axis=0).max()) for r in replays)
    if moved <= 10 * rig.compared.noise:
        raise InputError(
            f"no motion: {rig.compared.signal} changes by {moved:.2g} at most in {len(replays)} recordings",
            where=rig.name,
            allowed=f"more than {10 * rig.compared.noise:g}",
        )
    folds = rig.folds(replays)
    if len(folds) < 2 and any(not f.test or not f.train for f in folds):
        everything = [r.name for r in replays]
        folds = [Fold(n, tuple(m for m in everything if m != n), (n,)) for n in everything]
    if any(not f.test or not f.train for f in folds):
        raise InputError("one recording leaves none to hold out", where=rig.name, allowed="two recordings or more")
    run = _Run(rig, {r.name: r for r in replays}, folds, seed, budget, progress)
    return run.contact(tuple(data)) if rig.method == "cma-es" else run.smooth(tuple(data))


@dataclass(frozen=True)
class _Bands:
    """How held-out samples lie in the members' 90 % bands; see ``HeldOut``."""

    widened: float
    coverage: float
    discrepancy: float


class _Run:
    """One calibration; its two methods are the two ways through."""

    def __init__(
        self,
        rig: Rig,
        replays: Mapping[str, Replay],
        folds: Sequence[Fold],
        seed: int,
        budget: Budget,
        progress: Progress,
    ) -> None:
        self.rig, self.replays, self.folds = rig, replays, folds
        self.seed, self.budget, self.progress = seed, budget, progress
        self.problems: list[ReplayProblem] = []

    def problem(self, names: Sequence[str], paths: Sequence[str], stride: int) -> ReplayProblem:
        """Replays of these recordings with these parameters free."""
        rig = self.rig
        self.problems.append(
            ReplayProblem(
                rig.scene, rig.compared, [self.replays[n] for n in names], paths, engine=rig.engine,
                threads=self.budget.threads, stride=stride, unit_size=rig.unit_size,
            )
        )  # fmt: skip
        return self.problems[-1]

    def smooth(self, data: tuple[str, ...]) -> Calibration:
        """Ladder of least-squares fits; refits with single recordings left out."""
        rig, budget, names = self.rig, self.budget, list(self.replays)
        level, fits, folds = 0, None, None
        for i, paths in enumerate(rig.levels):
            self.progress.stage(f"{rig.name}: model {i + 1} of {len(rig.levels)}", budget.iterations)
            coarse = self.problem(names, paths, rig.stride)
            rows = weights(coarse, [f.test for f in self.folds])
            new = least_squares(
                coarse, rows, seed=self.seed, starts_per_row=budget.starts, iterations=budget.iterations,
                progress=self.progress,
            )  # fmt: skip
            full = self.problem(names, paths, 1)
            errors = full.errors(np.stack([_nominal(full), *(f.best for f in new)]))
            scored = self.fold_errors(errors)
            after = float(np.mean([f.after for f in scored]))
            self.progress.note(f"{rig.name}: {len(paths)} parameters, held-out error {after:.4g} {rig.unit}")
            if folds is not None and after > (1 - GAIN) * float(np.mean([f.after for f in folds])):
                break
            level, fits, folds, problem, held = i, new, scored, coarse, errors[1:]
        assert fits is not None and folds is not None
        self.progress.stage(f"{rig.name}: refits with recordings left out", len(self.folds))
        members, targets = [], []
        for fold, fit in zip(self.folds, fits, strict=True):
            members.append((fit.best, self.ensemble(problem, fit, fold.train, fold.test)))
            targets.append(np.isin(problem.groups["episode"][:: rig.compared.size], fold.test))
            self.progress.advance()
        bands = self.widen(problem, members, targets)
        self.progress.stage(f"{rig.name}: fit to all recordings", 2 * budget.iterations)
        (everything,) = weights(problem, [()])
        (final,) = least_squares(
            problem, everything[None], seed=self.seed, starts_per_row=budget.starts, iterations=budget.iterations,
            progress=self.progress,
        )  # fmt: skip
        final = profile(problem, everything, final)
        spread = self.ensemble(problem, final, names, ())
        samples = stretch(problem, final.best, spread, bands.widened)
        by_fold = [held[i, np.isin(names, f.test)] for i, f in enumerate(self.folds)]
        return self.document(problem, final.best, samples, folds, by_fold, bands, data, level)

    def ensemble(self, problem: ReplayProblem, fit: Fit, train: Sequence[str], without: Sequence[str]) -> Array:
        """Joint samples around a fit, (m, p): every end of a start that is as good, moved as refits move.

        Starts end all along a valley that the recordings leave open; the jackknife shows the rest. No band is narrower
        than a tenth of the fitter's step.
        """
        ps, rng = problem.parameters, np.random.default_rng(self.seed)
        centres = to_unit(ps, as_good(problem, fit, train))
        moves = jackknife(problem, fit, train, without, iterations=self.budget.refits)
        cloud = (centres[:, None] + moves).reshape(-1, len(ps))
        cloud = np.repeat(cloud, int(np.ceil(self.budget.members / len(cloud))), axis=0)
        return from_unit(ps, np.clip(cloud + STEP / 10 * rng.standard_normal(cloud.shape), 0, 1))

    def contact(self, data: tuple[str, ...]) -> Calibration:
        """CMA-ES on one split; bootstrap over the recordings fitted."""
        rig, budget = self.rig, self.budget
        fold, paths = self.folds[0], rig.levels[-1]
        self.progress.stage(f"{rig.name}: CMA-ES", budget.generations)
        train, test = self.problem(fold.train, paths, rig.stride), self.problem(fold.test, paths, 1)
        fit, losses = cma_es(
            train, seed=self.seed, population=budget.population, generations=budget.generations, progress=self.progress
        )
        nominal = _nominal(train)
        errors = test.errors(np.stack([nominal, fit.best]))
        fitted = float(train.errors(fit.best[None]).mean())
        folds = [FoldError(fold.name, float(errors[0].mean()), float(errors[1].mean()), fitted)]
        spread = bootstrap_minima(fit.values, losses, draws=4 * budget.members, seed=self.seed)
        spread = np.concatenate([fit.near(1.02)[: budget.members], spread])
        self.progress.stage(f"{rig.name}: predictive bands", 0)
        some = self.problem(fold.test[:40], paths, rig.stride)
        everywhere = np.ones(len(some.measured), bool)
        bands = self.widen(some, [(fit.best, _thin(spread, 24, self.seed))], [everywhere])
        samples = stretch(train, fit.best, _thin(spread, budget.members, self.seed), bands.widened)
        return self.document(train, fit.best, samples, folds, [errors[1]], bands, data, 0)

    def fold_errors(self, errors: Array) -> list[FoldError]:
        """Rows of ``errors`` (1 + folds, recordings): nominal, then each fold's fit."""
        names, out = list(self.replays), []
        for i, fold in enumerate(self.folds):
            test, train = np.isin(names, fold.test), np.isin(names, fold.train)
            before, after, fitted = errors[0, test].mean(), errors[1 + i, test].mean(), errors[1 + i, train].mean()
            out.append(FoldError(fold.name, float(before), float(after), float(fitted)))
        return out

    def widen(
        self, problem: ReplayProblem, members: Sequence[tuple[Array, Array]], targets: Sequence[NDArray[np.bool_]]
    ) -> _Bands:
        """Spread the members until their 90 % bands cover 90 % of the held-out samples, or more spread stops paying.

        What is then still missing is no matter of parameters: it is reported as the model's discrepancy.
        """
        tried: list[_Bands] = []
        for factor in _WIDENINGS:
            outside = []
            for (best, spread), target in zip(members, targets, strict=True):
                cloud = stretch(problem, best, _thin(spread, 24, self.seed), factor)
                low, high = np.quantile(problem.predict(cloud)[:, target], [0.05, 0.95], axis=0)
                y = problem.measured[target]
                outside.append(np.maximum(np.maximum(low - y, y - high), 0.0).ravel())
            gap = np.maximum(np.concatenate(outside) - _BAND * self.rig.compared.noise, 0.0)
            tried.append(_Bands(factor, float((gap == 0).mean()), float(np.quantile(gap, _COVER)) / self.rig.unit_size))
            if tried[-1].coverage >= _COVER:
                return tried[-1]
        most = max(b.coverage for b in tried)
        return next(b for b in tried if b.coverage >= most - _PAYS)

    def document(
        self, problem: ReplayProblem, best: Array, samples: Array, folds: Sequence[FoldError],
        by_fold: Sequence[Array], bands: _Bands, data: tuple[str, ...], level: int,
    ) -> Calibration:  # fmt: skip
        """The calibration with interval, identifiability and verdict."""
        rig, rng = self.rig, np.random.default_rng(self.seed)
        samples = _thin(samples, self.budget.members, self.seed)
        draws = [np.mean([e[rng.integers(len(e), size=len(e))].mean() for e in by_fold]) for _ in range(2000)]
        low, high = np.quantile(draws, [0.05, 0.95])
        before, after = (float(np.mean([getattr(f, k) for f in folds])) for k in ("before", "after"))
        held = HeldOut(
            rig.unit,
            tuple(folds),
            before,
            after,
            float(low),
            float(high),
            bands.coverage,
            bands.widened,
            bands.discrepancy,
        )
        rows = describe(problem.parameters, samples, silent_parameters(problem, best))
        notes = [f"model {level + 1} of {len(rig.levels)}: {', '.join(problem.paths)}"]
        notes += [
            f"{r.path} is not excited: record motions that depend on it"
            for r in rows
            if r.note.startswith("not excited")
        ]
        return Calibration(
            rig.name, scene_digest(rig.scene), tuple(problem.paths), samples, best, rows, held, verdict(held, rows),
            tuple(notes), self.seed, _engine(rig), sum(p.steps for p in self.problems), data,
        )  # fmt: skip


def verdict(held: HeldOut, rows: Sequence) -> Verdict:
    """The answer in two words; see ``Calibration.verdict``."""
    if held.after > (1 - GAIN) * held.before or any(f.after > (1 + GAIN) * f.before for f in held.folds):
        explained = np.mean([f.train for f in held.folds]) <= (1 - GAIN) * held.before
        return "no improvement" if explained else "wrong model"
    return "improved" if any(r.identified for r in rows) else "not identifiable"


def as_good(problem: ReplayProblem, fit: Fit, train: Sequence[str]) -> Array:
    """Candidates that the recordings cannot tell from the best, (c, p).

    One is worse when its error, recording by recording, exceeds the best's by more than chance (paired, one-sided 5 %)
    and by more than 1 %.
    """
    rows = np.isin([r.name for r in problem.replays], train)
    errors = problem.errors(fit.values)[:, rows]
    excess = errors - errors[0]
    chance = _BAND * excess.std(axis=1, ddof=1) / np.sqrt(rows.sum()) if rows.sum() > 1 else 0.0
    return fit.values[excess.mean(axis=1) <= np.maximum(chance, 0.01 * errors[0].mean())]


def stretch(problem: ReplayProblem, centre: Array, members: Array, factor: float) -> Array:
    """Members moved away from the centre by a factor, on the unit cube and within it, (m, p)."""
    c, u = to_unit(problem.parameters, centre), to_unit(problem.parameters, members)
    return from_unit(problem.parameters, np.clip(c + factor * (u - c), 0, 1))


def silent_parameters(problem: ReplayProblem, best: Array) -> list[str]:
    """Paths whose whole prior, others at their best, moves no prediction by more than the measurement's noise."""
    p = len(problem.paths)
    x = np.tile(to_unit(problem.parameters, best), (2 * p, 1))
    x[np.arange(p), np.arange(p)], x[p + np.arange(p), np.arange(p)] = 0, 1
    track = problem.predict(from_unit(problem.parameters, x))
    moved = np.abs(track[p:] - track[:p]).reshape(p, -1).mean(axis=1)
    return [path for path, m in zip(problem.paths, moved, strict=True) if m < problem.compared.noise]


def _nominal(problem: ReplayProblem) -> Array:
    return np.array([p.nominal for p in problem.parameters])


def _thin(samples: Array, most: int, seed: int) -> Array:
    """At most so many rows, drawn without replacement."""
    if len(samples) <= most:
        return samples
    return samples[np.random.default_rng(seed).choice(len(samples), most, replace=False)]


def _engine(rig: Rig) -> str:
    return f"{rig.engine} {engines.load(rig.engine).version}"
