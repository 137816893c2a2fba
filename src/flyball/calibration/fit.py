"""Fitters: a ``Problem`` in, best parameter vectors out, with every candidate that was near.

``least_squares`` for smooth dynamics: Gauss-Newton with damping (Levenberg, Marquardt) from many starts, the Jacobian
by finite differences. ``cma_es`` for contact and other rugged problems. Both work on the unit cube of the parameters'
scales and evaluate in large batches: all starts, all refits with recordings left out, all differences go into one call.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from flyball.base import InputError
from flyball.calibration.problem import Problem
from flyball.scenes import Parameter

Array = NDArray[np.float64]

STEP = 5e-3
"""Finite differences on the unit cube: large for a derivative, but friction makes the cost rough below this."""


class Progress(Protocol):
    """Where long work says how far it is."""

    def stage(self, name: str, total: int = 0) -> None:
        """A stage begins; ``total`` units of work when known."""

    def advance(self, done: int = 1) -> None:
        """So many more units are done."""

    def note(self, text: str) -> None:
        """Something worth telling the user now."""


class Silent:
    """Progress that nobody watches."""

    def stage(self, name: str, total: int = 0) -> None:
        """Ignored."""

    def advance(self, done: int = 1) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""


@dataclass(frozen=True)
class Fit:
    """Result of a fit.

    Attributes:
      values: candidates, best first, (c, p). Least squares: the end of every start. CMA-ES: everything evaluated.
      costs: their costs, (c,); weighted mean of the loss, times exp(penalty) with a prior.
      evaluations: parameter vectors evaluated.
      seed: of the starts.
      converged: whether the best candidate had stopped improving when the fit ended.
    """

    values: Array
    costs: Array
    evaluations: int
    seed: int
    converged: bool = True

    @property
    def best(self) -> Array:
        """The best candidate, (p,)."""
        return self.values[0]

    def near(self, ratio: float = 1.1) -> Array:
        """Candidates whose cost is within ``ratio`` of the best, (c, p)."""
        return self.values[self.costs <= ratio * self.costs[0]]


def to_unit(parameters: Sequence[Parameter], values: Array) -> Array:
    """Parameter vectors (..., p) on the unit cube."""
    return np.stack([p.to_unit(values[..., j]) for j, p in enumerate(parameters)], axis=-1)


def from_unit(parameters: Sequence[Parameter], u: Array) -> Array:
    """Inverse of ``to_unit``."""
    return np.stack([p.from_unit(u[..., j]) for j, p in enumerate(parameters)], axis=-1)


def weights(problem: Problem, without: Sequence[Sequence[str]], kind: str = "episode") -> Array:
    """Rows of residual weights that leave groups out; every recording that stays counts the same.

    Args:
      without: labels left out, one list per row; an empty list leaves nothing out.

    Returns:
      (rows, m), each row summing to 1.
    """
    episode, label = problem.groups["episode"], problem.groups[kind]
    _, inverse, count = np.unique(episode, return_inverse=True, return_counts=True)
    rows = np.stack([np.where(np.isin(label, list(w)), 0.0, 1.0 / count[inverse]) for w in without])
    if not (rows.sum(axis=1) > 0).all():
        raise InputError("nothing is left to fit", where=kind)
    return rows / rows.sum(axis=1, keepdims=True)


def starts(parameters: Sequence[Parameter], n: int, seed: int, near: Array | None = None) -> Array:
    """n start vectors on the unit cube, (n, p): the nominal or given one, then Sobol points away from the bounds."""
    given = np.array([[p.to_unit(p.nominal) for p in parameters]], float) if near is None else np.atleast_2d(near)
    sobol = qmc.Sobol(len(parameters), seed=seed).random(max(1, 1 << (max(n, 1) - 1).bit_length()))
    return np.clip(np.concatenate([given, 0.1 + 0.8 * sobol])[:n], 0.02, 0.98)


def knowledge(parameters: Sequence[Parameter], priors: Mapping[str, tuple[float, float]]) -> Array:
    """Priors on the unit cube: centre and 1 / standard deviation, (2, p); 0 where nothing is known.

    Args:
      priors: path -> value and standard deviation; the latter a share (of the natural logarithm) on a log scale.
    """
    out = np.zeros((2, len(parameters)))
    for j, p in enumerate(parameters):
        if p.path in priors:
            centre, sd = priors[p.path]
            width = np.log(p.high / p.low) if p.scale == "log" else p.high - p.low
            out[:, j] = p.to_unit(centre), width / sd
    return out


def least_squares(
    problem: Problem,
    rows: Array,
    *,
    prior: Array | None = None,
    seed: int,
    starts_per_row: int = 8,
    initial: Array | None = None,
    hold: NDArray[np.bool_] | None = None,
    iterations: int = 30,
    scouting: int = 0,
    finalists: int = 3,
    progress: Progress | None = None,
) -> list[Fit]:
    """Fit every row of weights from several starts, all at once.

    The loss is smoothed absolute, 2 (sqrt(1 + r^2) - 1): recordings that no setting explains do not rule. The damping
    is Levenberg's and Marquardt's, four trials of it a step.

    A prior is weighed against recordings by how far the model itself is from them: what is minimised is
    log(loss) + |(u - centre) / sd|^2 / n, the logarithm of the posterior with n recordings, each one observation since
    the error of a model is alike all along a recording, and a variance that is not known. Of a model that explains
    everything, recordings say all.

    Args:
      rows: residual weights, (f, m); see ``weights``.
      prior: of all rows; see ``knowledge``.
      starts_per_row: Sobol starts, when ``initial`` is None.
      initial: start values instead, (s, p) for every row or (f, s, p).
      hold: parameters that keep their start value, (s, p) with ``initial``; for profiles.
      iterations: most Gauss-Newton steps per start.
      scouting: after so many steps only the best starts of a row go on; 0: all do.
      finalists: how many go on.

    Returns:
      One ``Fit`` per row.
    """
    ps, p = problem.parameters, len(problem.parameters)
    if initial is None:
        u = np.tile(starts(ps, starts_per_row, seed), (len(rows), 1))
    else:
        u = np.clip(to_unit(ps, np.broadcast_to(initial, (len(rows), *initial.shape[-2:]))), 0, 1).reshape(-1, p)
    per_row = len(u) // len(rows)
    w = np.repeat(np.arange(len(rows)), per_row)
    held = np.zeros(u.shape, bool) if hold is None else np.tile(hold, (len(rows), 1))

    def evaluate(x: Array) -> Array:
        return problem.residuals(from_unit(ps, x))

    centre, precision = np.zeros((2, p)) if prior is None else prior
    counted = np.array([len(np.unique(problem.groups["episode"][row > 0])) for row in rows])[w]

    def penalised(loss: Array, x: Array, n: Array) -> Array:
        return loss * np.exp(np.square((x - centre) * precision).sum(axis=-1) / n)

    r = evaluate(u)
    loss = np.einsum("lm,lm->l", rows[w], _loss(r))
    cost = penalised(loss, u, counted)
    evaluations, damping, stalled = len(u), np.full(len(u), 1e-2), np.zeros(len(u), int)
    given_up = np.zeros(len(u), bool)
    trials = np.array([0.1, 1.0, 10.0, 100.0])
    for k in range(iterations):
        if k and k == scouting:
            rank = np.argsort(np.argsort(cost.reshape(len(rows), -1), axis=1, kind="stable"), axis=1)
            given_up = rank.ravel() >= finalists
        active = np.flatnonzero((stalled < 3) & ~given_up)
        if len(active) == 0:
            break
        sign = np.where(u[active] + STEP <= 1, STEP, -STEP)
        x = np.repeat(u[active][:, None], p, axis=1)
        x[:, np.arange(p), np.arange(p)] += sign
        nudged = evaluate(x.reshape(-1, p)).reshape(len(active), p, -1)
        proposals = []
        for i, lane in enumerate(active):
            jacobian = (nudged[i] - r[lane]) / sign[i][:, None]
            weight = rows[w[lane]] / np.sqrt(1 + r[lane] ** 2)
            pull = loss[lane] / counted[lane] * precision**2
            gradient = jacobian @ (weight * r[lane]) + pull * (u[lane] - centre)
            hessian = (jacobian * weight) @ jacobian.T + np.diag(pull)
            # A parameter on its bound that wants to leave the cube is held there.
            free = ~(((u[lane] <= 0) & (gradient > 0)) | ((u[lane] >= 1) & (gradient < 0)) | held[lane])
            scale = np.maximum(np.diag(hessian), 1e-6 * max(np.diag(hessian).max(), 1e-12))[free]
            for t in trials:
                d = np.zeros(p)
                if free.any():
                    normal = hessian[np.ix_(free, free)] + damping[lane] * t * np.diag(scale)
                    d[free] = np.linalg.lstsq(normal, -gradient[free], rcond=None)[0]
                proposals.append(np.clip(u[lane] + d, 0, 1))
        tried = np.array(proposals)
        new = evaluate(tried)
        evaluations += len(x) * p + len(tried)
        for i, lane in enumerate(active):
            mine = slice(i * len(trials), (i + 1) * len(trials))
            losses = _loss(new[mine]) @ rows[w[lane]]
            costs = penalised(losses, tried[mine], counted[lane])
            b = int(np.argmin(costs))
            if costs[b] < cost[lane]:
                stalled[lane] = stalled[lane] + 1 if costs[b] > 0.999 * cost[lane] else 0
                u[lane], r[lane], loss[lane], cost[lane] = tried[mine][b], new[mine][b], losses[b], costs[b]
                damping[lane] = np.clip(damping[lane] * trials[b] / 2, 1e-6, 1e6)
            else:
                stalled[lane] += 1
                damping[lane] = min(damping[lane] * 100, 1e6)
        if progress is not None:
            progress.advance()
    fits = []
    for f in range(len(rows)):
        lanes = np.arange(f * per_row, (f + 1) * per_row)
        order = lanes[np.argsort(cost[lanes], kind="stable")]
        stopped = bool(stalled[order[0]] > 0)
        fits.append(Fit(from_unit(ps, u[order]), cost[order], evaluations // len(rows), seed, stopped))
    return fits


def profile(problem: Problem, row: Array, fit: Fit, *, prior: Array | None = None, iterations: int = 5) -> Fit:
    """The fit with further candidates: each parameter held off its best, the others fitted again.

    Where the recordings leave a valley open, its ends are among these.
    """
    ps, p = problem.parameters, len(problem.parameters)
    best = to_unit(ps, fit.best)
    u = np.tile(best, (4 * p, 1))
    hold = np.tile(np.eye(p, dtype=bool), (4, 1))
    u[hold] = np.clip(u[hold] + np.repeat([-0.35, -0.15, 0.15, 0.35], p), 0, 1)
    (new,) = least_squares(
        problem, row[None], prior=prior, seed=fit.seed, initial=from_unit(ps, u), hold=hold, iterations=iterations
    )
    values, costs = np.concatenate([fit.values, new.values]), np.concatenate([fit.costs, new.costs])
    order = np.argsort(costs, kind="stable")
    converged = fit.converged if order[0] < len(fit.costs) else new.converged
    return Fit(values[order], costs[order], fit.evaluations + new.evaluations, fit.seed, converged)


def jackknife(
    problem: Problem,
    fit: Fit,
    train: Sequence[str],
    without: Sequence[str] = (),
    *,
    prior: Array | None = None,
    iterations: int = 5,
) -> Array:
    """How far a fit would move between sets of recordings such as ``train``, on the unit cube, (len(train), p).

    Refits on nearly the same recordings differ by too little: of n, by sqrt(n - 1) less than the estimate would between
    sets of n (delete-one jackknife, Tukey 1958). No move at all when there is one recording.
    """
    ps, n = problem.parameters, len(train)
    if n < 2:
        return np.zeros((1, len(ps)))
    rows = weights(problem, [(*without, name) for name in train])
    refits = least_squares(problem, rows, prior=prior, seed=fit.seed, initial=fit.values[:1], iterations=iterations)
    return np.sqrt(n - 1) * (to_unit(ps, np.stack([f.best for f in refits])) - to_unit(ps, fit.best))


def cma_es(
    problem: Problem,
    *,
    seed: int,
    population: int = 12,
    generations: int = 20,
    spread: float = 0.25,
    progress: Progress | None = None,
) -> tuple[Fit, Array]:
    """Minimise the mean error over recordings, from the middle of the unit cube.

    Returns:
      The fit, its candidates all vectors evaluated, best first; and each one's errors, (c, episodes).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says at import that it cannot plot
        import cma
    ps = problem.parameters
    options = {"bounds": [0, 1], "popsize": population, "seed": seed + 1, "verbose": -9, "maxiter": generations}
    search = cma.CMAEvolutionStrategy(np.full(len(ps), 0.5), spread, options)
    seen, errors = [], []
    for _ in range(generations):
        if search.stop():
            break
        ask = np.array(search.ask())
        seen.append(from_unit(ps, np.clip(ask, 0, 1)))
        errors.append(problem.errors(seen[-1]))
        search.tell(list(ask), errors[-1].mean(axis=1).tolist())
        if progress is not None:
            progress.advance()
    values, losses = np.concatenate(seen), np.concatenate(errors)
    order = np.argsort(losses.mean(axis=1), kind="stable")
    return Fit(values[order], losses[order].mean(axis=1), len(values), seed), losses[order]


def bootstrap_minima(values: Array, losses: Array, *, draws: int, seed: int) -> Array:
    """Where the optimum would have been, had other recordings been made.

    Recordings are drawn with replacement and the candidates ranked again; needs no new simulation, and its resolution
    is that of the candidates.

    Args:
      values: candidates, (c, p).
      losses: their error on every recording, (c, episodes).

    Returns:
      (draws, p).
    """
    rng = np.random.default_rng(seed)
    n = losses.shape[1]
    counts = np.stack([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(draws)])
    return values[np.argmin(losses @ counts.T, axis=0)]


def _loss(r: Array) -> Array:
    return 2 * (np.sqrt(1 + r * r) - 1)
