"""Predictive bands: how far a calibrated replay may be from what is measured next.

In: for groups of recordings, what joint samples fitted without each group predict of it, and what was measured. Out:
``Bands``: how much the samples must be spread, and what no spread of parameters explains, to cover 90 % of those
groups. Nothing else enters, so the bands of a fit know only the recordings of that fit; whether they hold on others is
a measurement.

This is cross-conformal prediction with groups as units (CV+; Barber, Candes, Ramdas and Tibshirani 2021, "Predictive
inference with the jackknife+"), with the spread of the samples as the part of the band that varies: where refits
disagree, e.g. in a regime that was never recorded, the band is wide.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError

Array = NDArray[np.float64]

COVER = 0.9
"""Share of samples that bands are made for."""
_TAIL = 1.645  # 95 % quantile of the normal distribution: a 90 % band leaves 5 % on either side
_WIDENINGS = (1.0, 1.5, 2.0, 3.0)
_BLOCKS = 5
_SEEN = 0.368


@dataclass(frozen=True)
class LeftOut:
    """A group of recordings that a fit has not seen.

    Attributes:
      predict: by how much to widen the spread -> what its samples predict, (m, samples, size).
      measured: (samples, size).
      elapsed: time since the start of the recording, (samples,) [s].
    """

    predict: Callable[[float], Array]
    measured: Array
    elapsed: Array


@dataclass(frozen=True)
class Bands:
    """90 % predictive bands around joint samples.

    Attributes:
      widened: factor on the spread of the samples.
      until: ends of blocks of elapsed time [s], the last one infinite: errors of open-loop replays add up.
      discrepancy: what the samples, so spread, leave unexplained in each block, on either side [unit of the signal].
      noise: standard deviation of the measurement [unit of the signal].
      inner_coverage: weighted share of the samples they were learned from that lie within.
    """

    widened: float
    until: tuple[float, ...]
    discrepancy: tuple[float, ...]
    noise: float
    inner_coverage: float

    def limits(self, tracks: Array, elapsed: Array) -> tuple[Array, Array]:
        """Lower and upper limit, (samples, size) each.

        Args:
          tracks: predictions of the samples, spread by ``widened``, (m, samples, size).
          elapsed: (samples,) [s].
        """
        low, high = np.quantile(tracks, [(1 - COVER) / 2, (1 + COVER) / 2], axis=0)
        more = np.asarray(self.discrepancy)[np.searchsorted(self.until, elapsed)] + _TAIL * self.noise
        return low - more[:, None], high + more[:, None]

    def inside(self, tracks: Array, measured: Array, elapsed: Array) -> NDArray[np.bool_]:
        """Which measurements lie within, (samples, size)."""
        low, high = self.limits(tracks, elapsed)
        return (measured >= low) & (measured <= high)


def learn_bands(groups: Sequence[LeftOut], noise: float, fitted: LeftOut | None = None) -> Bands:
    """Bands that cover 90 % of groups of recordings left out.

    A wider spread needs less to be added: the narrowest of the bands that cover enough is taken. Every group counts the
    same. Refits know less than the answer, and their bands are too wide; the recordings that were fitted would make
    them too narrow. With ``fitted`` the latter count 0.368, as in the .632 estimator of prediction error (Efron 1983).

    Args:
      groups: what was left out, with samples fitted without it.
      fitted: all recordings of the answer, with its own samples.

    Raises:
      InputError: no groups.
    """
    if not groups:
        raise InputError("no group of recordings is left out", where="predictive bands")
    seen = 0.0 if fitted is None else _SEEN
    parts = [(g, (1 - seen) / len(groups)) for g in groups] + ([(fitted, seen)] if fitted else [])
    elapsed = np.concatenate([g.elapsed for g, _ in parts])
    weight = np.concatenate([np.full(len(g.elapsed), share / len(g.elapsed)) for g, share in parts])
    until = np.array([*np.quantile(elapsed, np.arange(1, _BLOCKS) / _BLOCKS), np.inf])
    block = np.searchsorted(until, elapsed)
    best: tuple[float, Bands] | None = None
    for factor in _WIDENINGS:
        gaps, widths = [], []
        for g, _ in parts:
            low, high = np.quantile(g.predict(factor), [(1 - COVER) / 2, (1 + COVER) / 2], axis=0)
            gaps.append(np.maximum(np.maximum(low - g.measured, g.measured - high) - _TAIL * noise, 0.0))
            widths.append((high - low).mean(axis=1))
        gap = np.concatenate(gaps)
        at = [block == b for b in range(_BLOCKS)]
        discrepancy = np.array([_quantile(gap[b], weight[b]) if b.any() else 0.0 for b in at])
        width = float(np.average(np.concatenate(widths) + 2 * discrepancy[block], weights=weight))
        share = float(np.average((gap <= discrepancy[block][:, None]).mean(axis=1), weights=weight))
        if best is not None and width >= best[0]:
            break
        best = width, Bands(factor, tuple(until.tolist()), tuple(discrepancy.tolist()), noise, share)
    assert best is not None
    return best[1]


def _quantile(x: Array, weight: Array) -> float:
    """Smallest value that a share ``COVER`` of x (samples, size) does not exceed."""
    values, w = x.ravel(), np.repeat(weight, x.shape[1])
    order = np.argsort(values)
    total = np.cumsum(w[order])
    return float(values[order][min(np.searchsorted(total, COVER * total[-1] * (1 - 1e-12)), len(order) - 1)])
