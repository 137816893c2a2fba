"""Calibration from recordings of real set-ups.

In: the episodes of a workspace. Out: one ``Calibration`` per rig that has episodes, stored as an artifact. The report
is about recordings that took no part in the fit it judges, nor in the choice of its model or the width of its bands:
what is held out is given to nothing but the score.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from flyball.base import InputError
from flyball.base.steps import json_of, step
from flyball.base.workspace import Workspace
from flyball.calibration.audit_setups import audit_episode
from flyball.calibration.calibration import (
    GAIN,
    Calibration,
    FoldError,
    HeldOut,
    ParameterRow,
    Verdict,
    describe,
    scene_digest,
)
from flyball.calibration.fit import Progress, Silent, from_unit, to_unit
from flyball.calibration.learning import Budget, Learned, as_good, learn, on_bounds
from flyball.calibration.problem import Replay, ReplayProblem
from flyball.calibration.rigs import Fold, Rig, no_recordings, rig_for, rigs
from flyball.calibration.tracks import Held, Track, held_out_tracks
from flyball.engines import engines
from flyball.episodes.catalogue import Catalogue

Array = NDArray[np.float64]

VERSION = 2
_PRODUCER = "flyball.calibration.recordings"
_INSIDE = 0.1  # well off a bound: share of the range, on the parameter's scale


def calibrate_recordings(
    workspace: Workspace | Path | str,
    *,
    rig: str | None = None,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress | None = None,
    tracks: dict[str, list[Track]] | None = None,
) -> list[Calibration]:
    """Calibrate every rig that the workspace has recordings of.

    Repeating it costs nothing: the answer for the same episodes, scene, seed and budget is stored. A recording that the
    audit refuses is left out, and said.

    Args:
      rig: only this one.
      seed: of everything random.
      tracks: is filled with replays to look at, by name of the rig.

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
            body = rigs.load(name)()
            try:
                if refused := next((f for f in audit_episode(episode, body).findings if f.level == "refuse"), None):
                    raise InputError(f"{refused.what}: {refused.text}", where=f"{name}, {row.digest[:12]}")
                found.setdefault(name, {})[row.digest] = body.replay(episode)
            except InputError as err:
                skipped.append(err.line())
    for line in skipped:
        progress.note(f"left out: {line}")
    if not found and skipped:
        more = f" (and {len(skipped) - 1} more)" if len(skipped) > 1 else ""
        raise InputError(f"{skipped[0]}{more}", run_next="flyball calibrate --audit")
    if not found:
        raise no_recordings(rig, names, place.path)
    out = []
    for name, replays in found.items():
        body = rigs.load(name)()
        inputs = {
            "rig": name,
            "scene": body.scene.digest,
            "engine": _engine(body),
            "episodes": sorted(replays),
            "seed": seed,
            "budget": replace(budget, threads=1),
        }
        scores: list[Score] = []
        made = functools.partial(
            calibrate, body, list(replays.values()), data=list(replays), seed=seed, budget=budget, progress=progress,
            scores=scores,
        )  # fmt: skip
        artifact = step(
            place.store, _PRODUCER, VERSION, inputs, functools.partial(_to_json, made), kind="calibration",
            labels={"rig": name, "seed": seed},
        )  # fmt: skip
        if scores or tracks is not None:
            shown = functools.partial(_tracks_json, body, scores, made)
            stored = step(place.store, f"{_PRODUCER}.tracks", VERSION, inputs, shown, kind="calibration tracks")
            if tracks is not None:
                tracks[name] = [Track.from_json(t) for t in json_of(place.store, stored)]
        out.append(Calibration.from_json(json_of(place.store, artifact), where=artifact.digest[:12]))
    return out


def _to_json(made: Callable[[], Calibration]) -> dict[str, Any]:
    return made().to_json()


def _tracks_json(rig: Rig, scores: list[Score], made: Callable[[], Calibration]) -> list[dict[str, Any]]:
    """Tracks of the scores; where the calibration was stored without them, of the same scores once more."""
    if not scores:
        made()
    return [t.to_json() for t in tracks_of(rig, scores)]


def tracks_of(rig: Rig, scores: Sequence[Score]) -> list[Track]:
    """Replays to look at: the worst and the median held-out recording."""
    parts = [f.partition(":")[2].rpartition(".")[0] for f in rig.compared.fields]
    return held_out_tracks(
        [s.held for s in scores if s.held is not None], rig.compared.signal, components=parts if len(parts) > 1 else (),
        unit=rig.unit if rig.unit in ("rad", "m") else "",
    )  # fmt: skip


def calibrate(
    rig: Rig,
    replays: Sequence[Replay],
    *,
    data: Sequence[str] = (),
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress | None = None,
    scores: list[Score] | None = None,
) -> Calibration:
    """Fit a rig's scene to recordings and say how well that carries over to recordings held out.

    A rig with several folds is fitted once more to all recordings, and that is the answer; one with a single fold has
    recordings to spare, and its answer is the fit of that fold.

    Args:
      data: digests of the episodes, for the record.
      scores: is filled with those of the folds.

    Raises:
      InputError: no motion, or too few recordings.
    """
    budget, progress, scores = budget or Budget(), progress or Silent(), [] if scores is None else scores
    folds = checked_folds(rig, replays)
    scores += [score(rig, replays, fold, seed=seed, budget=budget, progress=progress) for fold in folds]
    if len(folds) == 1:
        answer = scores[0].learned
    else:
        answer = learn(rig, replays, seed=seed, budget=budget, progress=progress)
    steps = sum(s.steps for s in scores) + (answer.steps if len(folds) > 1 else 0)
    return report(rig, answer, scores, steps, tuple(data), seed, budget)


def checked_folds(rig: Rig, replays: Sequence[Replay]) -> list[Fold]:
    """How the recordings are held out.

    Raises:
      InputError: no motion, or too few recordings.
    """
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
    return folds


@dataclass(frozen=True)
class Score:
    """One fold.

    Attributes:
      error: in the rig's unit, and coverage.
      by_recording: errors after, (recordings held out,).
      inside: which held-out measurements lie within the bands, (samples, size).
      learned: from the other recordings.
      steps: substeps simulated.
      held: the recordings held out, as they were predicted; to be looked at.
    """

    error: FoldError
    by_recording: Array
    inside: NDArray[np.bool_]
    learned: Learned
    steps: int
    held: Held | None = None


def score(
    rig: Rig,
    replays: Sequence[Replay],
    fold: Fold,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Score:
    """Learn from the recordings of a fold that are not held out, and see what that says of those that are."""
    budget, progress = budget or Budget(), progress or Silent()
    learned = learn(rig, [r for r in replays if r.name in fold.train], seed=seed, budget=budget, progress=progress)
    test = problem_of(rig, [r for r in replays if r.name in fold.test], learned.problem.paths, budget.threads)
    predicted = test.predict(np.stack([_nominal(test), learned.best]))
    before, after = test.errors_of(predicted)
    low, high = learned.bands.limits(test.predict(learned.samples(learned.tracks)), test.elapsed)
    inside = (test.measured >= low) & (test.measured <= high)
    error = FoldError(fold.name, float(before.mean()), float(after.mean()), learned.error, float(inside.mean()))
    progress.note(f"{rig.name}: {fold.name} held out, error {error.after:.4g} {rig.unit}")
    held = Held(
        fold.name, tuple(r.name for r in test.replays), after, test.episode, test.elapsed, test.measured, predicted[1],
        low, high,
    )  # fmt: skip
    return Score(error, after, inside, learned, learned.steps + test.steps, held)


def problem_of(rig: Rig, replays: Sequence[Replay], paths: Sequence[str], threads: int = 1) -> ReplayProblem:
    """Whole recordings, every measurement of them."""
    return ReplayProblem(
        rig.scene, rig.compared, replays, paths, engine=rig.engine, threads=threads, unit_size=rig.unit_size
    )


def report(
    rig: Rig,
    answer: Learned,
    scores: Sequence[Score],
    steps: int,
    data: tuple[str, ...],
    seed: int,
    budget: Budget,
    *,
    rows: Sequence[ParameterRow] | None = None,
    bounded: Sequence[str] | None = None,
    notes: Sequence[str] = (),
) -> Calibration:
    """The calibration: intervals, identifiability and verdict.

    Args:
      answer: what is kept.
      scores: how others like it did on recordings held out.
      steps: substeps simulated in all.
      data: digests of the episodes.
      rows: what is known of each parameter, if the learner says so itself; else it is read off samples and replays.
      bounded: parameters that the fit left on a bound, likewise.
      notes: more to mind.
    """
    rng, paths = np.random.default_rng(seed), answer.problem.paths
    samples = answer.samples(budget.members)
    draws = [
        np.mean([s.by_recording[rng.integers(n, size=n)].mean() for s in scores for n in [len(s.by_recording)]])
        for _ in range(2000)
    ]
    low, high = np.quantile(draws, [0.05, 0.95])
    folds = tuple(s.error for s in scores)
    held = HeldOut(
        rig.unit,
        folds,
        float(np.mean([f.before for f in folds])),
        float(np.mean([f.after for f in folds])),
        float(low),
        float(high),
        float(np.concatenate([s.inside.ravel() for s in scores]).mean()),
        answer.bands.widened,
        float(np.mean(answer.bands.discrepancy)) / rig.unit_size,
        noise_floor(rig),
    )
    if rows is None:
        silent = silent_parameters(answer.problem, answer.best)
        rows = describe(answer.problem.parameters, samples, silent)
    silent = [r.path for r in rows if r.note.startswith("not excited")]
    said = [f"model {answer.level + 1} of {len(rig.levels)}: {', '.join(paths)}"]
    said += [f"{path} is not excited: record motions that depend on it" for path in silent]
    bounded = [p for p in (pressed_bounds(answer) if bounded is None else bounded) if p not in silent]
    if bounded:
        said.append(f"the fit ends on a bound of {', '.join(bounded)}: the range is too narrow or the model is wrong")
    if not answer.fit.converged:
        said.append(f"the fit had not converged after {budget.iterations} iterations")
    return Calibration(
        rig.name, scene_digest(rig.scene), tuple(paths), samples, answer.best, tuple(rows), held,
        verdict(held, rows, bounded=bounded, converged=answer.fit.converged), (*said, *notes), seed, _engine(rig),
        steps, data,
    )  # fmt: skip


def verdict(
    held: HeldOut, rows: Sequence[ParameterRow], *, bounded: Sequence[str] = (), converged: bool = True
) -> Verdict:
    """The answer in two words; see ``Calibration.verdict``.

    Args:
      bounded: parameters that the fit left on a bound: what would fit best is not among what was allowed.
      converged: whether the fit had stopped improving; of one that had not, no value means anything yet.
    """
    if held.after > (1 - GAIN) * held.before or any(f.after > (1 + GAIN) * f.before for f in held.folds):
        explained = np.mean([f.train for f in held.folds]) <= (1 - GAIN) * held.before
        return "no improvement" if explained else "wrong model"
    if bounded:
        return "wrong model"
    return "improved" if converged and any(r.identified for r in rows) else "not identifiable"


def pressed_bounds(answer: Learned) -> list[str]:
    """Parameters that the fit left on a bound although values inside the range are worse by more than chance."""
    problem, found = answer.problem, []
    best, near = (to_unit(problem.parameters, x) for x in (answer.best, answer.fit.near()))
    for path in on_bounds(problem, answer.best):
        j = problem.paths.index(path)
        bound, probe = float(np.round(best[j])), best.copy()
        probe[j] = abs(bound - _INSIDE)
        inside = np.concatenate([probe[None], near[np.abs(near[:, j] - bound) >= _INSIDE][:16]])
        values = np.concatenate([answer.best[None], from_unit(problem.parameters, inside)])
        candidates = replace(answer.fit, values=values, costs=np.zeros(len(values)))
        if len(as_good(problem, candidates, answer.names)) == 1:
            found.append(path)
    return found


def noise_floor(rig: Rig) -> float:
    """Mean distance between a perfect prediction and what would be measured, in the rig's unit.

    Of normal noise with the same deviation in every one of k components: the mean of the chi distribution.
    """
    k = rig.compared.size
    return float(rig.compared.noise * np.sqrt(2) * np.exp(gammaln((k + 1) / 2) - gammaln(k / 2)) / rig.unit_size)


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


def _engine(rig: Rig) -> str:
    return f"{rig.engine} {engines.load(rig.engine).version}"
