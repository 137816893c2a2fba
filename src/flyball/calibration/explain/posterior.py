"""What one log says of many parameters, from a few dozen replays.

In: candidates, summaries of their replays, the log's own, what was believed before. Out: a normal posterior.

The replays around the log are fitted by a linear map from parameters to summaries, whose residuals (sensor noise, and
all that is not linear) are the likelihood; what was believed is the prior. That is one step of an ensemble Kalman
smoother (Evensen and van Leeuwen 2000); drawing the next candidates from its answer makes it an iterated one. Against
a regression of parameters on summaries it needs far fewer replays than there are summaries, and it keeps the prior.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

SHRINK = 0.5
"""Share of the residuals' correlations that is not believed: they are estimated from few replays."""
TEMPER = 0.5
"""The likelihood counts for so much: the linear map is estimated, too."""
OUTLIER = 2.0
"""Summaries further off than so many standard deviations count less and less, as under Huber's loss."""
RIDGE = 1.0
"""Penalty of the linear map, in units of one candidate."""
FURTHEST = 3.0
"""The answer stays within so many standard deviations of the candidates."""


def tempered(log: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Weights (k,) that sum to one, in proportion to ``exp(log / heat)``; at least so many count effectively."""
    heat = 1.0
    while True:
        w = np.exp((log - log.max()) / heat)
        if w.sum() ** 2 / (w**2).sum() >= min(least, 0.9 * len(w)) or heat > 1e6:
            return w / w.sum()
        heat *= 1.4


def updated(
    units: NDArray[np.float64], sims: NDArray[np.float64], real: NDArray[np.float64], weights: NDArray[np.float64],
    noise: NDArray[np.float64], prior: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """The posterior's mean (p,) and covariance (p, p).

    Args:
      units: candidates (k, p).
      sims: summaries of their replays (k, s).
      real: the log's summaries (s,).
      weights: how much each candidate counts (k,), sum one.
      noise: standard deviation of the summaries from sensor noise alone (s,).
      prior: mean (p,) and covariance (p, p).
    """
    count = 1 / float((weights**2).sum())
    at, spread = weights @ units, np.sqrt(weights @ (units - weights @ units) ** 2) + 1e-4
    x = (units - at) / spread
    centre = weights @ sims
    scale = np.sqrt(weights @ (sims - centre) ** 2 + noise**2)
    y, t, floor = (sims - centre) / scale, (real - centre) / scale, noise / scale
    w = weights[:, None]
    gram = count * (x.T @ (w * x))
    regular = gram + RIDGE * np.eye(len(gram))
    b = np.linalg.solve(regular, count * (x.T @ (w * y)))
    left = max(count - float(np.trace(np.linalg.solve(regular, gram))), 0.3 * count)
    e = y - x @ b
    residual = (e.T @ (w * e)) * count / left
    sd = np.sqrt(np.maximum(residual.diagonal(), 1e-12))
    correlation = (1 - SHRINK) * residual / np.outer(sd, sd) + SHRINK * np.eye(len(sd))
    np.fill_diagonal(correlation, 1.0)
    sd = np.maximum(sd, floor)
    mean0, inverse0 = (prior[0] - at) / spread, np.linalg.inv(prior[1] / np.outer(spread, spread))
    wide = np.ones(len(sd))
    for _ in range(3):
        likely = np.linalg.solve(correlation * np.outer(sd * wide, sd * wide) / TEMPER, np.column_stack([b.T, t]))
        cov = np.linalg.inv(inverse0 + b @ likely[:, :-1])
        mean = np.clip(cov @ (inverse0 @ mean0 + b @ likely[:, -1]), -FURTHEST, FURTHEST)
        wide = np.sqrt(np.maximum(1.0, np.abs(t - mean @ b) / sd / OUTLIER))
    return at + spread * mean, cov * np.outer(spread, spread)
