"""Where a fit begins.

In: unknowns, what a simpler model or fewer recordings gave. Out: a few starts that differ, the best first. Of every
kind of parameter that is new some values are tried, all joints alike and then each joint its own; the delay, which a
model without friction and inertia of the drive must overrate, is tried again; so is a regression. None lies on a bound.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.models.linear import Owners, Replays

Array = NDArray[np.float64]
Known = tuple[Sequence[tuple[str, str, str]], Array]
"""Names and values of unknowns."""

_GRIDS = {"gain": (0.3, 0.5, 0.7), "offset": (0.5,)}
_GRID = (0.1, 0.35, 0.6)
_LESS = (1.0, 0.6, 0.3)
"""Shares of a delay found without the drive's own lag."""
_MOST, _MIXED = 81, 27
_APART = 0.15
"""Starts that differ by less in every unknown are one."""


def carried(own: Owners, known: Known | None) -> tuple[Array, NDArray[np.bool_]]:
    """Unknowns as far as they are known, (P,), and which are new."""
    u, new = own.centre.copy(), np.ones(len(own.names), bool)
    if known is not None:
        values = dict(zip(known[0], known[1], strict=True))
        for g, name in enumerate(own.names):
            if name in values:
                u[g], new[g] = values[name], False
    return u, new


def starts(replays: Replays, known: Known | None, estimate: Mapping[str, float], seed: int, most: int) -> list[Array]:
    """At most so many starts, the best first.

    Args:
      estimate: values that are known roughly, by path.
    """
    own = replays.own
    u, new = carried(own, known)
    kinds: dict[str, list[int]] = {}
    for g in np.flatnonzero(new & ~own.deviations):
        kinds.setdefault(own.names[g][0].rpartition(".")[2], []).append(int(g))
    if not kinds:
        return [u]
    rng = np.random.default_rng(seed)
    grids = {k: _GRIDS.get(k, tuple(sorted({float(np.median(u[gs])), *_GRID}))) for k, gs in kinds.items()}
    delays = [g for g, name in enumerate(own.names) if name[0].endswith("delay") and not new[g] and not name[1]]
    rows = list(itertools.islice(itertools.product(*grids.values(), _LESS if delays else (1.0,)), 16 * _MOST))
    if len(rows) > _MOST:
        rows = [rows[i] for i in rng.choice(len(rows), _MOST, replace=False)]
    x = np.repeat(u[None], 2 + len(rows) + _MIXED, axis=0)
    at = {p.path: p for p in replays.parameters}
    for k, (path, robot, _) in enumerate(own.names):
        if path in estimate and not robot:
            x[-1, k] = float(at[path].to_unit(max(estimate[path], at[path].low)))
    for row, (*values, less) in zip(x[1:], rows, strict=False):
        for gs, value in zip(kinds.values(), values, strict=True):
            row[gs] = value
        row[delays] *= less
    for row in x[1 + len(rows) : -1]:
        for gs, grid in zip(kinds.values(), grids.values(), strict=True):
            row[gs] = rng.choice(grid, len(gs))
        row[delays] *= rng.choice(_LESS)
    x = np.where(own.deviations, x, np.clip(x, 0.02, 0.98))
    predicted = np.nan_to_num(replays.predict_roughly(x), nan=1e3)
    scale = np.maximum(np.abs(predicted - replays.problem.measured).mean(axis=1).min(axis=0), 1e-9)
    chosen: list[Array] = []
    order = np.argsort(replays.cost(predicted, scale), kind="stable")
    if any(own.names[g][0] in estimate for gs in kinds.values() for g in gs):
        order = np.concatenate([[len(x) - 1], order])  # the regression knows more than any grid
    for i in order.tolist():
        if all(np.abs(x[i] - c).max() > _APART for c in chosen):
            chosen.append(x[i])
        if len(chosen) == most:
            break
    return chosen
