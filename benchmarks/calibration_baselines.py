"""What else fits the same recordings: ``mujoco.sysid`` and plain CMA-ES, for ``benchmarks/calibration.py``.

In: a fitting problem of training recordings and a budget of simulated steps. Out: the fit, and joint samples by the
method's own account of its uncertainty. Both get what our fit gets: the model that our ladder chose, parameters on the
unit cube of their scales, the same residuals of whole recordings through the same engine, equal weight per recording,
and as many restarts as the budget allows (Sobol points off the bounds; the best training cost is taken).
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.fit import STEP, from_unit, starts, weights
from flyball.calibration.problem import ReplayProblem

Array = NDArray[np.float64]

STARTS = 64


@dataclass(frozen=True)
class Baseline:
    """A fit by other means.

    Attributes:
      best: (p,).
      samples: joint samples by its own covariance, (m, p).
      restarts: how many fits the budget allowed; the last one is cut off when it ends.
    """

    best: Array
    samples: Array
    restarts: int


class _Spent(Exception):
    """The budget is spent."""


def sysid(problem: ReplayProblem, steps: float, *, seed: int, members: int, restart: bool = True) -> Baseline:
    """``mujoco.sysid``: its own Gauss-Newton and its confidence intervals.

    With ``restart``: ``x_scale="jac"`` as it recommends for parameters of unlike effect, and difference steps as large
    as ours, since friction is rough on its default of 1.5e-8. Without: one start at the nominal values, its defaults.
    """
    from mujoco import sysid as toolbox

    ps, begun = problem.parameters, problem.steps
    root = np.sqrt(weights(problem, [()])[0])
    seen: tuple[float, Array] = (np.inf, np.zeros(len(ps)))

    def residual(x: Array, _params: object) -> tuple[list[Array], None, None]:
        nonlocal seen
        if problem.steps - begun > steps:
            raise _Spent
        columns = x.reshape(len(ps), -1)
        r = problem.residuals(from_unit(ps, np.clip(columns.T, 0, 1))) * root
        costs = np.square(r).sum(axis=1)
        if costs.min() < seen[0]:
            seen = float(costs.min()), np.clip(columns[:, int(np.argmin(costs))], 0, 1)
        return [r.T if x.ndim == 2 else r[0]], None, None

    settings = {"x_scale": "jac", "eps": STEP} if restart else {}
    done = 0
    for u in starts(ps, STARTS if restart else 1, seed):
        params = toolbox.ParameterDict(
            {p.path: toolbox.Parameter(p.path, float(v), 0.0, 1.0) for p, v in zip(ps, u, strict=True)}
        )
        done += 1
        try:
            toolbox.optimize(params, residual, verbose=False, output=io.StringIO(), **settings)
        except _Spent:
            break
    best = seen[1]
    # The intervals are theirs: a normal distribution with the covariance of the Jacobian at the end.
    step = np.where(best + STEP <= 1, STEP, -STEP)
    r = problem.residuals(from_unit(ps, np.concatenate([best[None], best + np.diag(step)]))) * root
    scaled = r * np.sqrt(r.shape[1])  # residuals of unit weight, as their variance estimate expects
    covariance, _ = toolbox.calculate_intervals([scaled[0]], ((scaled[1:] - scaled[0]) / step[:, None]).T)
    return Baseline(from_unit(ps, best), _normal(problem, best, covariance, members, seed), done)


def plain_cma(problem: ReplayProblem, steps: float, *, seed: int, members: int, population: int) -> Baseline:
    """CMA-ES on the mean error over recordings, restarted when it stops; samples from its last search distribution."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says at import that it cannot plot
        import cma
    ps, begun = problem.parameters, problem.steps
    best, covariance, least, done = np.zeros(len(ps)), np.eye(len(ps)), np.inf, 0
    centres = starts(ps, STARTS, seed)
    centres[0] = 0.5
    for u in centres:
        options = {"bounds": [0, 1], "popsize": population, "seed": seed + 1 + done, "verbose": -9}
        search, done, own = cma.CMAEvolutionStrategy(u, 0.25, options), done + 1, np.inf
        while not search.stop() and problem.steps - begun < steps:
            ask = np.array(search.ask())
            costs = problem.errors(from_unit(ps, np.clip(ask, 0, 1))).mean(axis=1)
            search.tell(list(ask), costs.tolist())
            own = min(own, float(costs.min()))
        if own < least:
            least, best = own, np.clip(search.result.xbest, 0, 1)
            covariance = search.sigma**2 * search.C
        if problem.steps - begun >= steps:
            break
    return Baseline(from_unit(ps, best), _normal(problem, best, covariance, members, seed), done)


def coverage(problem: ReplayProblem, samples: Array) -> float:
    """Share of measurements within the samples' 90 % band and the noise of the sensor."""
    low, high = np.quantile(problem.predict(samples), [0.05, 0.95], axis=0)
    more = 1.645 * problem.compared.noise
    return float(((problem.measured >= low - more) & (problem.measured <= high + more)).mean())


def _normal(problem: ReplayProblem, best: Array, covariance: Array, members: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    covariance = np.nan_to_num(covariance, nan=0.0, posinf=1.0, neginf=0.0)
    u = rng.multivariate_normal(best, (covariance + covariance.T) / 2, size=members, check_valid="ignore")
    return from_unit(problem.parameters, np.clip(u, 0, 1))
