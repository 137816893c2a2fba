"""Gauss-Newton with damping over ``Replays``: the best vector of unknowns, and how it moves without some recordings.

In: linearised recordings, a start. Out: ``Fitted`` and refits with clusters left out. A refit is one step from the
optimum of everything, with the Hessian and gradient of what is left: no simulation. That is exact for a linear model;
what the refits predict is simulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from scipy.optimize import lsq_linear

from flyball.calibration.fit import Progress, Silent
from flyball.calibration.models.linear import Linear, Replays

Array = NDArray[np.float64]

_SMALL = 0.1
"""A step that lowers the cost by less has converged: a parameter one standard deviation off costs 0.5."""
_TINY = 1e-4
"""So has one that lowers it by less than this share: there, what is left is the model's own error."""
_FARTHEST, _EDGE = 0.25, 1e-12
"""No unknown moves by a larger share of its range at once; room around bounds, in units of the scaled step."""
_POOR, _PATIENCE = 0.35, 2
"""Derivatives are too rough when so many steps in a row gain less than this share of what they promise."""


@dataclass(frozen=True)
class Fitted:
    """End of a fit.

    Attributes:
      at: the linearisation there.
      free: unknowns that are not held on a bound, (P,).
      converged: whether it had stopped improving.
      iterations: linearisations.
    """

    at: Linear
    free: NDArray[np.bool_]
    converged: bool
    iterations: int


def descend(
    replays: Replays, u: Array, *, iterations: int, tiny: float = _TINY, progress: Progress | None = None
) -> Fitted:
    """Minimise the robust cost and the prior from u, (P,), until a step lowers them by less than a share ``tiny``.

    Derivatives are made anew only when that is cheap or they proved poor; in between every step that was tried mends
    them (Broyden 1965).
    """
    progress, own = progress or Silent(), replays.own
    u = np.clip(u, *_box(replays))
    at = replays.linearise(u, replays.predict(u)[0])
    damping, tried_with, poor, k, converged = 1e-3, 0, 0, 0, False
    while not converged and k < iterations:
        k += 1
        progress.advance()
        h, g = at.hessian.sum(axis=0) + np.diag(own.precision), at.gradient.sum(axis=0)
        g = g + own.precision * (at.u - own.centre)
        before = at.cost + _prior(replays, at.u)
        enough = max(_SMALL, tiny * before)
        if _promise(h, g, step(replays, at.u, h, g, 1e-9)) < enough:
            if tried_with == 0:
                converged = True
                break
            at, tried_with = replays.linearise(at.u, at.predicted), 0  # mended derivatives may have gone blind
            continue
        move = step(replays, at.u, h, g, damping)
        tried, promised = at.u + move, _promise(h, g, move)
        new = replays.predict(tried)[0]
        gain = before - float(replays.cost(new[None], at.scale)[0]) - _prior(replays, tried)
        tried_with += 1
        slope = replays.secant(at, tried, new)
        poor = poor + 1 if gain < _POOR * promised else 0
        if gain > 0:
            damping = max(damping / 5, 1e-7)
            at = replays.weigh(tried, new, slope)
            converged = gain < enough and promised < 3 * enough and tried_with == 1
        else:
            damping = 10 * max(damping, 1e-3)
            at = replays.weigh(at.u, at.predicted, slope)
        if converged or (tried_with < replays.worth and poor < _PATIENCE):
            continue
        if poor >= _PATIENCE:
            finer = replays.refine()
            if gain <= 0 and not finer and damping > 10:
                break
            poor = 0
        at, tried_with = replays.linearise(at.u, at.predicted), 0
    g = at.gradient.sum(axis=0) + own.precision * (at.u - own.centre)
    return Fitted(at, _free(replays, at.u, g), converged, k)


def refit(replays: Replays, fitted: Fitted, without: Sequence[int] | NDArray[np.int_]) -> Array:
    """The optimum without some clusters, one step from that of everything, (P,)."""
    own, at = replays.own, fitted.at
    keep = np.setdiff1d(np.arange(len(at.hessian)), without)
    h = at.hessian[keep].sum(axis=0) + np.diag(own.precision)
    g = at.gradient[keep].sum(axis=0) + own.precision * (at.u - own.centre)
    free, d = fitted.free, np.zeros(len(g))
    d[free] = -np.linalg.solve(h[np.ix_(free, free)], g[free])
    return np.clip(at.u + np.clip(d, -_FARTHEST, _FARTHEST), *_box(replays))


def _prior(replays: Replays, u: Array) -> float:
    """Cost of being off the middle of the prior."""
    return 0.5 * float((u - replays.own.centre) ** 2 @ replays.own.precision)


def _promise(h: Array, g: Array, d: Array) -> float:
    """By how much a step lowers the cost, if the cost is what the derivatives say."""
    return -float(g @ d + 0.5 * d @ h @ d)


def step(replays: Replays, u: Array, h: Array, g: Array, damping: float) -> Array:
    """The step within the box that lowers a damped quadratic cost most; nothing moves by more than ``_FARTHEST``.

    A step that is clipped after it was solved for may promise nothing, or even a rise, where a constrained one does.
    """
    low, high = _box(replays)
    size = np.sqrt(np.diag(h))
    root = np.linalg.cholesky(h / np.outer(size, size) + damping * np.eye(len(g))).T
    box = size * np.maximum(low - u, -_FARTHEST) - _EDGE, size * np.minimum(high - u, _FARTHEST) + _EDGE
    found = lsq_linear(root, -solve_triangular(root, g / size, trans="T"), box, method="bvls", max_iter=10 * len(g))
    return np.asarray(np.clip(u + found.x / size, low, high) - u)


def _box(replays: Replays) -> tuple[Array, Array]:
    deviation = replays.own.deviations
    return np.where(deviation, -1.0, 0.0), np.ones(len(deviation))


def _free(replays: Replays, u: Array, g: Array) -> NDArray[np.bool_]:
    low, high = _box(replays)
    return np.asarray(~(((u <= low) & (g > 0)) | ((u >= high) & (g < 0))))
