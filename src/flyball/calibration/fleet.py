"""Calibration of a robot from its own logs, by replaying their commands in many candidate scenes.

In: a task and a robot's logged attempts. Out: joint samples of the scene's parameters.

Method: regression-adjusted approximate Bayesian computation in rounds (Beaumont, Zhang, Balding 2002; Fearnhead,
Prangle 2012). Candidates are drawn, every candidate replays the logged commands with sensor noise of its own, the
task's summaries of the replays are regressed on the candidates, and the next round is drawn where the real summaries
point to. The spread of the last round's leave-one-out residuals is the posterior's spread: it contains the sensors'
noise and everything that the summaries cannot tell apart, so a parameter that the logs do not show keeps the width of
its prior. Thresholds of events are read off the replays, as far as these stay on the log's course: a crossing was
observed at a known time, or none up to a known peak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.scenes import Parameter
from flyball.tasks import Task
from flyball.tasks.world import Attempts, World

LEAST = 15.0
"""Effective number of candidates that a regression rests on at least."""
TIMING_S = 0.006
"""How well a replay's forces are in step with the robot's [s]: thresholds are bracketed that far around an event."""
HANDLED = 0.15
"""Progress from which on an attempt is taken to have handled the object."""
OFF_COURSE = 2.0
"""A replay whose observations are this many of the log's own spreads off has lost the log's course."""
BEFORE_S = 0.2
"""So long before that is seen, the two may have parted [s]."""


@dataclass(frozen=True)
class ReplayConfig:
    """Budget of one robot's calibration.

    Attributes:
      candidates: candidates per round.
      attempts: logged attempts replayed per round; the last round uses the last entry.
      ridge: grid of ridge penalties, chosen by leave-one-out error.
      threads: CPU threads of the engine.
    """

    candidates: tuple[int, ...] = (96, 80, 96)
    attempts: tuple[int, ...] = (2, 2, 4)
    ridge: tuple[float, ...] = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0)
    threads: int = 2


@dataclass(frozen=True)
class Fitted:
    """What logs say about one robot.

    Attributes:
      paths: parameter names.
      samples: joint samples, (m, len(paths)).
      replays: simulated attempts spent.
    """

    paths: tuple[str, ...]
    samples: NDArray[np.float64]
    replays: int

    def values(self) -> dict[str, NDArray[np.float64]]:
        """path -> (m,)."""
        return {p: self.samples[:, j] for j, p in enumerate(self.paths)}


def event_of(p: Parameter) -> str:
    """The event whose threshold a parameter is, or ""."""
    for b in p.binds:
        if b.target.startswith("event:"):
            return b.target.removeprefix("event:").removesuffix(".threshold")
    return ""


def pick(attempts: Attempts, task: Task, k: int) -> NDArray[np.int64]:
    """k attempts of as many different outcomes as there are, the most informative (furthest) first within each."""
    judged = attempts.judge(task)
    groups: dict[str, list[int]] = {}
    handled = any(j.progress >= HANDLED for j in judged)
    for i in np.argsort([-j.progress for j in judged], kind="stable"):
        if judged[i].progress >= HANDLED or not handled:
            groups.setdefault(judged[i].group, []).append(int(i))
    order: list[int] = []
    while len(order) < min(k, sum(map(len, groups.values())) + len(order)):
        for members in groups.values():
            if members:
                order.append(members.pop(0))
    return np.array(order[:k])


def fit_robot(task: Task, logged: Attempts, config: ReplayConfig, *, seed: int, start: Fitted | None = None) -> Fitted:
    """Joint samples of a robot's parameters given its logged attempts.

    Args:
      task: gives scene, summaries, start states.
      logged: the robot's attempts, signals (n, T, size) and events.
      config: budget.
      seed: of everything random.
      start: an earlier fit: the first round is drawn from it (widened) instead of the prior.

    Raises:
      InputError: there is no complete attempt.
    """
    if not logged.events:
        raise InputError(
            "no complete attempt to learn from", where=task.name, run_next="let the robot attempt the task"
        )
    rng = np.random.default_rng(seed)
    scene = task.scene
    seen = set(task.observed(logged.signals, scene.nominal(2), rng))
    swept = [p for p in scene.parameters if p.path not in seen and not event_of(p)]
    order = pick(logged, task, max(config.attempts))
    m = config.candidates[0]
    units = np.column_stack([_strata(rng, m) for _ in swept])
    if start is not None:
        own = np.column_stack([p.to_unit(start.values()[p.path]) for p in swept])
        units = _reflect(own[rng.integers(len(own), size=m)] + 0.04 * rng.standard_normal((m, len(swept))))
    replays = 0
    for round_, (m, k) in enumerate(zip(config.candidates, config.attempts, strict=True)):
        values = {p.path: p.from_unit(units[:, j]) for j, p in enumerate(swept)}
        values |= task.observed(logged.signals, scene.nominal(m) | values, rng)
        real, sim, apart, traces, until = _replay(task, logged, order[:k], values, m, config.threads, rng)
        replays += m * k
        fit = _regress(units, sim, real, config.ridge, apart, rng)
        if round_ < len(config.candidates) - 1:
            units = _propose(rng, fit, units, config.candidates[round_ + 1])
    post, picked = _posterior(rng, fit, units, 40 * m, 1.15)
    out = {p.path: p.from_unit(post[:, j]) for j, p in enumerate(swept)}
    for p in scene.parameters:
        event = event_of(p)
        if event:
            out[p.path] = _threshold(
                task, p, traces[event], until, logged, order[: config.attempts[-1]], event, picked, rng
            )
    weights = task.plausible(scene.nominal(len(picked)) | out) + 1e-9
    kept = rng.choice(len(picked), size=4 * m, p=weights / weights.sum())
    out = {path: x[kept] for path, x in out.items()}
    out |= task.observed(logged.signals, scene.nominal(len(kept)) | out, rng)
    paths = tuple(p.path for p in scene.parameters if p.path in out)
    return Fitted(paths, np.column_stack([out[p] for p in paths]), replays)


def _replay(
    task: Task, logged: Attempts, order: NDArray[np.int64], values: Mapping[str, NDArray[np.float64]], m: int,
    threads: int, rng: np.random.Generator,
) -> tuple[
    NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], dict[str, list[NDArray[np.float64]]],
    list[NDArray[np.float64]],
]:  # fmt: skip
    """What replays show.

    Returns:
      Summaries of the logs (s,), of the replays (m, s), how far apart their courses are (m,); per event and attempt,
      the highest value so far that its sources had (m, simulation steps); per attempt, the share of it for which a
      replay surely stayed on the log's course (m,).
    """
    world = World(task, m, threads=threads)
    names = [s.name for s in task.embodiment.actions]
    real_means, sim_means, real_apart, sim_apart = [], [], [], []
    traces: dict[str, list[NDArray[np.float64]]] = {r.name: [] for r in task.event_rules}
    until: list[NDArray[np.float64]] = []
    for i in order:
        one = {k: x[i : i + 1] for k, x in logged.signals.items()}
        actions = np.concatenate([one[a] for a in names], axis=-1)
        tiled = {k: np.repeat(x, m, axis=0) for k, x in one.items()}
        starts = task.seen_starts(tiled, values)
        acted = np.repeat(actions, m, axis=0)
        replay = world.replay(values, acted, starts, seeds=rng.integers(2**62, size=m).tolist())
        a, b = task.summaries(one, actions)
        c, d = task.summaries(replay.signals, acted)
        real_means.append(a[0])
        real_apart.append(b[0])
        sim_means.append(c)
        sim_apart.append(d)
        until.append(_on_course(task, one, replay.signals))
        for name in traces:
            traces[name].append(np.maximum.accumulate(world.traces[name], axis=1))
    real = np.concatenate([np.mean(real_means, axis=0), *real_apart])
    sim = np.concatenate([np.mean(sim_means, axis=0), *sim_apart], axis=1)
    apart = np.sqrt(np.mean((np.concatenate(sim_apart, axis=1) - np.concatenate(real_apart)) ** 2, axis=1))
    return real, sim, apart, traces, until


def _on_course(
    task: Task, real: Mapping[str, NDArray[np.float64]], sim: Mapping[str, NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Share of an attempt up to which replays surely feel and see what the log does, (m,).

    A robot that hits something and bounces off does not do so twice in the same way; what a replay feels after such a
    moment is no evidence.
    """
    worst = np.zeros(next(iter(sim.values())).shape[:2])
    for spec in task.embodiment.observations:
        y = real[spec.name][0]
        scale = np.maximum(y.std(axis=0), 5 * np.asarray(task.noise[spec.name]))
        off = (np.abs(sim[spec.name] - y) / scale).max(axis=2)
        padded = np.pad(off, ((0, 0), (1, 1)), mode="edge")
        worst = np.maximum(worst, (padded[:, :-2] + off + padded[:, 2:]) / 3)
    lost = worst > OFF_COURSE
    parted = np.argmax(lost, axis=1) / lost.shape[1] - BEFORE_S / task.horizon_s
    return np.where(lost.any(axis=1), np.maximum(parted, 0.0), 1.0)


@dataclass(frozen=True)
class _Fit:
    at: NDArray[np.float64]
    residuals: NDArray[np.float64]
    weights: NDArray[np.float64]
    explained: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def _regress(
    units: NDArray[np.float64], sim: NDArray[np.float64], real: NDArray[np.float64], penalties: Sequence[float],
    apart: NDArray[np.float64], rng: np.random.Generator,
) -> _Fit:  # fmt: skip
    """Candidates on summaries: the prediction at the real summaries and leave-one-out residuals.

    Candidates whose replays took another course (``apart``) count little: what a held box shows of its mass, a
    dropped one does not.
    """
    m = len(units)
    course = np.exp(-0.5 * (apart / max(float(np.quantile(apart, 0.2)), 1.0)) ** 2) + 1e-9
    weights = course / course.sum()
    scale = sim.std(axis=0)
    use = scale > 1e-9
    mean = sim[:, use].mean(axis=0)
    x = (sim[:, use] - mean) / scale[use]
    at = np.clip((real[use] - mean) / scale[use], -4, 4)
    predictions, residuals = np.empty(units.shape[1]), np.empty(units.shape)
    for again in (False, True):
        if again:
            x = x + _misfit(x, at, units, predictions, weights) * rng.standard_normal(x.shape)
        w = np.sqrt(weights * m)[:, None]
        xm = weights @ x
        u, s, vt = np.linalg.svd((x - xm) * w, full_matrices=False)
        for j in range(units.shape[1]):
            ym = weights @ units[:, j]
            y = (units[:, j] - ym) * w[:, 0]
            best = np.inf
            for penalty in penalties:
                shrink = s**2 / (s**2 + penalty * m)
                hat = (u**2 * shrink).sum(axis=1) + weights
                e = (y - u @ (shrink * (u.T @ y))) / np.maximum(1 - hat, 0.05)
                error = float((e**2).sum())
                if error < best:
                    best = error
                    coefficients = vt.T @ ((shrink / np.maximum(s, 1e-12)) * (u.T @ y))
                    predictions[j] = ym + (at - xm) @ coefficients
                    residuals[:, j] = e / w[:, 0]
        if not again:
            spread = np.sqrt(weights @ residuals**2) + 1e-3
            distance = np.sqrt(np.mean(np.clip((units - residuals - predictions) / (4 * spread), -3, 3) ** 2, axis=1))
            width = max(float(np.quantile(distance, 0.3)), 0.5)
            weights = _near(course, distance, width)
            while 1 / (weights**2).sum() < min(LEAST, 0.9 / ((course / course.sum()) ** 2).sum()):
                width *= 1.3
                weights = _near(course, distance, width)
    variance = weights @ (units - weights @ units) ** 2
    explained = 1 - (weights @ residuals**2) / np.maximum(variance, 1e-12)
    return _Fit(predictions, residuals, weights, explained)


def _near(course: NDArray[np.float64], distance: NDArray[np.float64], width: float) -> NDArray[np.float64]:
    weights = course * (np.exp(-0.5 * (distance / width) ** 2) + 1e-9)
    return weights / weights.sum()


def _misfit(
    x: NDArray[np.float64], at: NDArray[np.float64], units: NDArray[np.float64], best: NDArray[np.float64],
    weights: NDArray[np.float64],
) -> NDArray[np.float64]:  # fmt: skip
    """How far the real summaries lie from what the best candidate would give, beyond noise, (s,).

    Such a summary shows something that the scene does not describe. Noise of that size on the replays' summaries makes
    it count less, and the posterior wider.
    """
    w = np.sqrt(weights)[:, None]
    design = np.concatenate([np.ones((len(units), 1)), units - best], axis=1)
    lhs = (design * w).T @ (design * w) + 1e-4 * np.eye(design.shape[1])
    coefficients = np.linalg.solve(lhs, (design * w).T @ (x * w))
    noise = np.sqrt(weights @ (x - design @ coefficients) ** 2)
    off = np.abs(at - coefficients[0])
    return np.where(off > 2.5 * noise, off, 0.0)


def _posterior(
    rng: np.random.Generator, fit: _Fit, units: NDArray[np.float64], n: int, widen: float
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """n draws: prediction plus residuals; where summaries explain nothing, candidates on the right course."""
    picked = rng.choice(len(units), size=n, p=fit.weights)
    out = fit.at + widen * fit.residuals[picked]
    own = units[picked]
    outside = (out < 0) | (out > 1) | (fit.explained < 0.2)
    return np.where(outside, own, out), picked


def _propose(rng: np.random.Generator, fit: _Fit, units: NDArray[np.float64], m: int) -> NDArray[np.float64]:
    """Candidates of the next round: the posterior so far, widened."""
    out, _ = _posterior(rng, fit, units, m, 1.8)
    jitter = np.where(fit.explained < 0.2, 0.06, 0.003)
    return _reflect(out + jitter * rng.standard_normal(out.shape))


def _reflect(u: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values folded back into [0, 1]."""
    return np.clip(np.abs(np.where(u > 1, 2 - u, u)), 0, 1)


def _threshold(
    task: Task, p: Parameter, traces: list[NDArray[np.float64]], until: list[NDArray[np.float64]], logged: Attempts,
    order: NDArray[np.int64], event: str, picked: NDArray[np.int64], rng: np.random.Generator,
) -> NDArray[np.float64]:  # fmt: skip
    """Samples of an event's threshold: what the replay felt when the event came, else something above every peak.

    Peaks count only in attempts that got somewhere, and only as long as the replay is on course: where a robot missed
    or let go, a replay that collides proves nothing.
    """
    judged = logged.judge(task)
    low, high = np.full(len(picked), p.low), np.full(len(picked), p.high)
    for trace, share, i in zip(traces, until, order, strict=True):
        if judged[i].progress < HANDLED:
            continue
        times = [t for t, name in logged.events[i] if name == event]
        last = trace.shape[1] - 1
        end = np.round(share[picked] * (last + 1)).astype(int) - 1
        at, slack = last, 0
        if times:
            at, slack = round(times[0] / task.horizon_s * (last + 1)) - 1, round(TIMING_S / task.horizon_s * (last + 1))
            seen = at + slack <= end
            high = np.where(seen, np.minimum(high, trace[picked, np.clip(at + slack, 0, last)] * 1.01), high)
        low = np.maximum(low, trace[picked, np.clip(np.minimum(at - slack, end), 0, last)])
    low, high = np.clip(np.minimum(low, high), p.low, p.high), np.clip(np.maximum(low, high), p.low, p.high)
    a, b = p.to_unit(low), p.to_unit(high)
    return p.from_unit(a + (b - a) * rng.random(len(picked)))


def _strata(rng: np.random.Generator, m: int) -> NDArray[np.float64]:
    """m uniform draws, one per stratum, shuffled."""
    return (rng.permutation(m) + rng.random(m)) / m
