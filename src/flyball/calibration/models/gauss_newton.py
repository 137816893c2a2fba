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

from flyball.calibration.fit import Progress, Silent
from flyball.calibration.models.linear import Linear, Replays

Array = NDArray[np.float64]

_TRIALS = (0.1, 1.0, 10.0)
_SMALL = 0.1
"""A step that lowers the cost by less has converged: a parameter one standard deviation off costs 0.5."""
_TINY = 1e-4
"""So has one that lowers it by less than this share: there, what is left is the model's own error."""
_STUCK = 10.0
"""Damping at which the derivatives are to blame."""


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
    """Minimise the robust cost and the prior from u, (P,), until a step lowers them by less than a share ``tiny``."""
    progress, own = progress or Silent(), replays.own
    u = np.clip(u, *_box(replays))
    predicted = replays.predict(u)[0]
    damping, small, k = 1e-3, 0, 0
    at = replays.linearise(u, predicted)
    for k in range(1, iterations + 1):
        progress.advance()
        h, g = at.hessian.sum(axis=0), at.gradient.sum(axis=0) + own.precision * (u - own.centre)
        h[np.diag_indices_from(h)] += own.precision
        free = _free(replays, u, g)
        tried = np.stack([_bounded(replays, u, _step(h, g, free, damping * t)) for t in _TRIALS])
        new = replays.predict(tried)
        costs = replays.cost(new, at.scale) + 0.5 * ((tried - own.centre) ** 2 @ own.precision)
        before = at.cost + 0.5 * float((u - own.centre) ** 2 @ own.precision)
        b = int(np.argmin(costs))
        gain = before - float(costs[b])
        import os

        if os.environ.get("K2"):
            print(
                k,
                f"{before:.2f} gain {gain:.3f} damping {damping:.1e} b {b} free {free.sum()} coarse {replays._coarse is not replays.problem}",
                np.round(u[:12], 3),
            )
        if gain > 0:
            u, predicted, damping = tried[b], new[b], max(damping * _TRIALS[b] / 3, 1e-7)
            at = replays.linearise(u, predicted)
            small = small + 1 if gain < max(_SMALL, tiny * before) else 0
        else:
            damping *= 100
            if damping > _STUCK:
                small += 1
                if replays.refine():
                    at, damping, small = replays.linearise(u, predicted), 1e-3, 0
        if small >= 2:
            break
    g = at.gradient.sum(axis=0) + own.precision * (u - own.centre)
    return Fitted(at, _free(replays, u, g), small >= 1, k)


def refit(replays: Replays, fitted: Fitted, without: Sequence[int]) -> Array:
    """The optimum without some clusters, one step from that of everything, (P,)."""
    own, at = replays.own, fitted.at
    keep = np.setdiff1d(np.arange(len(at.hessian)), without)
    h = at.hessian[keep].sum(axis=0) + np.diag(own.precision)
    g = at.gradient[keep].sum(axis=0) + own.precision * (at.u - own.centre)
    return _bounded(replays, at.u, _step(h, g, fitted.free, 0.0))


def _step(h: Array, g: Array, free: NDArray[np.bool_], damping: float) -> Array:
    d = np.zeros(len(g))
    if free.any():
        a = h[np.ix_(free, free)]
        d[free] = -np.linalg.solve(a + damping * np.diag(np.diag(a)), g[free])
    return d


def _box(replays: Replays) -> tuple[Array, Array]:
    deviation = replays.own.deviations
    return np.where(deviation, -1.0, 0.0), np.ones(len(deviation))


def _bounded(replays: Replays, u: Array, step: Array) -> Array:
    """No unknown moves by more than a quarter of its range at once."""
    return np.clip(u + np.clip(step, -0.25, 0.25), *_box(replays))


def _free(replays: Replays, u: Array, g: Array) -> NDArray[np.bool_]:
    low, high = _box(replays)
    return np.asarray(~(((u <= low) & (g > 0)) | ((u >= high) & (g < 0))))
