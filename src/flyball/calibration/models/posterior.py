"""How far a fit can be trusted: joint samples, and what the recordings say of each parameter.

In: the end of a fit with what every cluster of samples says there. Out: ``Posterior``: a covariance that holds when
errors within a recording are alike, draws from it, and per parameter whether it is identified, only in combination with
others, or not excited.

The covariance of independent errors (inverse Hessian) is multiplied, parameter by parameter, by how much more refits
with a cluster left out differ than it says (delete-one jackknife, Tukey 1958). Few clusters know that factor badly, so
each parameter's is drawn towards that of all (Smyth 2004, "Linear models and empirical Bayes", moderated variances),
and draws are Student's with the degrees of freedom that result. The uniform prior enters as a normal one of the same
variance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from flyball.calibration.calibration import IDENTIFIED
from flyball.calibration.fit import STEP
from flyball.calibration.models.gauss_newton import Fitted
from flyball.calibration.models.linear import Replays

Array = NDArray[np.float64]

_POOLED = 10.0
"""Degrees of freedom of the factor that is common to all parameters."""
_TAIL = 1.645
WIDEST = IDENTIFIED / (2 * _TAIL)
"""Standard deviation of a parameter whose 90 % band is just narrow enough."""
_PARTNERS = 3
_PROBE, _FLAT = 0.2, 2.0
"""Moved by two standard deviations of what is just identified, a parameter that is must cost as much as that."""


@dataclass(frozen=True)
class Posterior:
    """What is known around the best fit, on the unit cube.

    Attributes:
      u: best fit, (P,).
      covariance: (P, P).
      alone: standard deviation of each unknown if all others were known, (P,).
      sensed: the same if the sensor's noise were the model's only error, (P,).
      freedom: degrees of freedom of the draws.
      open: unknowns that the recordings bound on one side only: moved the other way, nothing changes, (P,).
    """

    u: Array
    covariance: Array
    alone: Array
    sensed: Array
    freedom: float
    open: NDArray[np.bool_]

    @property
    def sd(self) -> Array:
        """Standard deviations, (P,)."""
        return np.asarray(np.sqrt(np.diag(self.covariance)))

    def draw(self, rng: np.random.Generator, n: int, u: Array | None = None) -> Array:
        """n draws around the best fit or another vector, (n, P); not bounded."""
        root = np.linalg.cholesky(self.covariance + 1e-12 * np.eye(len(self.u)))
        size = np.sqrt(self.freedom / rng.chisquare(self.freedom, n))[:, None]
        return (self.u if u is None else u) + size * (rng.standard_normal((n, len(self.u))) @ root.T)

    def identified(self, g: int) -> bool:
        """Whether the 90 % band of an unknown is narrow enough."""
        return bool(self.sd[g] <= WIDEST)

    def excited(self, g: int) -> bool:
        """Whether it would be identified if all others were known."""
        return bool(self.alone[g] <= WIDEST)

    def hidden(self, g: int) -> bool:
        """Whether it would be excited but for the error of the model itself."""
        return bool(not self.excited(g) and self.sensed[g] <= WIDEST)

    def partners(self, g: int, among: Sequence[int]) -> list[int]:
        """Which unknowns would have to be known for this one to be, at most three, the most important first."""
        c, found = self.covariance.copy(), list[int]()
        while c[g, g] > WIDEST**2 and len(found) < _PARTNERS:
            others = np.array([k for k in among if k != g and k not in found and c[k, k] > 1e-12])
            if not len(others):
                break
            explained = c[g, others] ** 2 / c[others, others]
            k = int(others[np.argmax(explained)])
            if explained.max() < 0.1 * c[g, g]:
                break
            found.append(k)
            c = c - np.outer(c[:, k], c[k]) / c[k, k]
        return found


def posterior(replays: Replays, fitted: Fitted) -> Posterior:
    """The posterior at the end of a fit."""
    own, at = replays.own, fitted.at
    n, prior = len(at.hessian), np.diag(own.precision)
    hessian = at.hessian.sum(axis=0)
    gradient = at.gradient.sum(axis=0) + own.precision * (at.u - own.centre)
    free = np.flatnonzero(fitted.free)
    some = np.ix_(free, free)
    independent = np.ones(len(at.u))
    independent[free] = np.diag(np.linalg.inv((hessian + prior)[some]))
    moves = np.zeros((n, len(at.u)))  # what is held on a bound stays there
    for move, h, g in zip(moves, at.hessian, at.gradient, strict=True):
        move[free] = -np.linalg.solve((hessian - h + prior)[some], (gradient - g)[free])
    jackknife = (n - 1) / n * ((moves - moves.mean(axis=0)) ** 2).sum(axis=0)
    ratio = jackknife / independent
    known = (independent < 0.25 / own.precision) & fitted.free
    middle = chi2.median(n - 1) / (n - 1)  # of a ratio that is 1 but for the number of clusters
    common = max(1.0, float(np.median(ratio[known])) / middle) if known.any() else 1.0
    factor = np.maximum((_POOLED * common + (n - 1) * np.where(known, ratio, common)) / (_POOLED + n - 1), 0.7)
    shrunk = hessian / np.sqrt(np.outer(factor, factor))
    covariance = np.linalg.inv(shrunk + prior) + (STEP / 50) ** 2 * np.eye(len(at.u))
    alone = 1 / np.sqrt(np.diag(shrunk) + own.precision)
    climbs = replays.climbs(at, _PROBE) / factor
    flat = (climbs.min(axis=0) < _FLAT) & ~own.deviations
    return Posterior(at.u, covariance, alone, _sensed(replays, fitted), _POOLED + n - 1, flat)


def _sensed(replays: Replays, fitted: Fitted) -> Array:
    """See ``Posterior``."""
    own, slope, information = replays.own, fitted.at.slope, replays.own.precision.copy()
    for e, design in enumerate(own.design):
        rows = replays.episode == e
        moved = slope[rows] @ design / replays.problem.compared.noise
        information += np.einsum("ns,nsg->g", replays.weight[rows], moved**2)
    return np.asarray(1 / np.sqrt(information))


_LEAST_APART = 0.003
"""Robots of a kind are never taken to be more alike than this, on the unit cube."""
_ROUNDS = 20


def alike(replays: Replays, fitted: Fitted) -> None:
    """Set how far robots are from their kind to what the recordings say, parameter by parameter.

    Expectation-maximisation of the variance between robots under the linear model at the fit (Dempster, Laird and
    Rubin 1977): where robots differ by no more than their recordings leave open, they are drawn together.
    """
    own, at = replays.own, fitted.at
    hessian, gradient = at.hessian.sum(axis=0), at.gradient.sum(axis=0)
    paths = dict.fromkeys(path for path, robot, _ in own.names if robot)
    members = [np.array([g for g, (p, robot, _) in enumerate(own.names) if robot and p == path]) for path in paths]
    for _ in range(_ROUNDS):
        covariance = np.linalg.inv(hessian + np.diag(own.precision))
        u = covariance @ (hessian @ at.u - gradient + own.precision * own.centre)
        for gs in members:
            variance = float(np.mean((u[gs] - own.centre[gs]) ** 2 + np.diag(covariance)[gs]))
            own.precision[gs] = 1 / max(variance, _LEAST_APART**2)
