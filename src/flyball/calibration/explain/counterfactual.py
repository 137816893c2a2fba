"""What would have made it succeed: the policy tries again in worlds that differ in one thing.

In: a case, and the worlds in which it failed. Out: shares of the deviations in the failure, least changes with bands,
a margin map. All of it in closed loop, over posterior samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import factorial

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.explain.case import Case, Variant
from flyball.calibration.explain.levers import Lever

OPEN = 0.8
"""Where fewer flip, the others count as needing more than any change: the band has no far end."""
FLIPS = 0.5
"""A change that turns fewer of the posterior's failures into successes is no answer."""
BAND = (0.05, 0.95)
WIDEN = 1.6
"""Bands of few samples, each tried under noise of its own, are too narrow: this much wider than their quantiles."""


@dataclass(frozen=True)
class Change:
    """A least change that would have helped.

    Attributes:
      path, label, unit, actionable: of the lever.
      relative: whether the change is a ratio minus one, else a difference in ``unit``.
      before, after: medians of its value.
      change, low, high: the least change that flips, median and 90 % band; an infinite end where no change flips
        many of the samples.
      flips: share of the posterior samples in which some change of it flips.
      size: of the change, in shares of the range.
    """

    path: str
    label: str
    unit: str
    actionable: bool
    relative: bool
    before: float
    after: float
    change: float
    low: float
    high: float
    flips: float
    size: float

    def text(self) -> str:
        """E.g. ``+14 % [9, 21]``."""
        k, unit = (100.0, "%") if self.relative else (1.0, self.unit)
        low, high = (f"{k * x:.3g}" if np.isfinite(x) else "open" for x in (self.low, self.high))
        return f"{k * self.change:+.3g} {unit} [{low}, {high}]".replace("  ", " ")


@dataclass(frozen=True)
class MarginMap:
    """Share of successes over two levers: xs (i,), ys (j,), share (j, i), and where the attempt was (x, y)."""

    x: Lever
    y: Lever
    xs: NDArray[np.float64]
    ys: NDArray[np.float64]
    share: NDArray[np.float64]
    at: tuple[float, float]


def shapley(
    players: Sequence[Sequence[str]], tries: Callable[[Sequence[tuple[int, frozenset[str]]]], NDArray[np.float64]]
) -> tuple[dict[str, float], NDArray[np.float64], NDArray[np.float64]]:
    """Shapley's value of each player (Shapley 1953), exact over all coalitions, averaged over samples.

    Args:
      players: per sample, who may be put back.
      tries: [(sample, who is put back)] -> success of each, 0 or 1.

    Returns:
      Player -> mean value; success with nobody and with everybody put back, per sample (s,).
    """
    jobs = [
        (s, frozenset(c)) for s, own in enumerate(players) for k in range(len(own) + 1) for c in combinations(own, k)
    ]
    won = dict(zip(jobs, np.asarray(tries(jobs), float).tolist(), strict=True))
    out: dict[str, float] = {}
    for s, own in enumerate(players):
        n = len(own)
        for p in own:
            rest = [q for q in own if q != p]
            value = 0.0
            for k in range(n):
                weight = factorial(k) * factorial(n - k - 1) / factorial(n)
                for c in combinations(rest, k):
                    value += weight * (won[s, frozenset((*c, p))] - won[s, frozenset(c)])
            out[p] = out.get(p, 0.0) + value / len(players)
    nobody = np.array([won[s, frozenset()] for s in range(len(players))])
    everybody = np.array([won[s, frozenset(own)] for s, own in enumerate(players)])
    return out, nobody, everybody


@dataclass(frozen=True)
class Budget:
    """Of the search for least changes.

    Attributes:
      first: samples in which every lever is tried over its whole range.
      grid: values per lever.
      samples: in which the levers that helped are searched.
      near: values per lever, from what was to somewhat further than what helped.
      halvings: of the interval between failure and success.
    """

    first: int = 2
    grid: int = 9
    samples: int = 12
    near: int = 6
    halvings: int = 3


def least_changes(
    case: Case, failed: Variant, levers: Sequence[Lever], guesses: Sequence[NDArray[np.float64] | None],
    budget: Budget, always: Sequence[str] = (),
) -> list[Change]:  # fmt: skip
    """The smallest change of a lever that turns failures into successes; success need not be monotone.

    A grid over the whole range of every lever (and a guess per sample) in some samples; then the best of what is told,
    the best of the other settings and those of ``always`` in all samples, on a grid as far as that has shown necessary,
    and bisection between the success that is nearest to what was and its neighbour on that side.

    Args:
      failed: worlds in which the policy fails, one per posterior sample.
      guesses: per lever, values that might help (s,), or None.
      always: paths that are answered in all samples whatever the others do.

    Returns:
      Those that flip at least ``FLIPS`` of the samples, smallest first.
    """
    n = min(len(failed.seeds), budget.samples)
    first = np.arange(min(budget.first, n))
    whole = [np.tile(np.linspace(0.0, 1.0, budget.grid), (len(first), 1))] * len(levers)
    rough = _nearest(case, failed, levers, guesses, whole, first)
    good = sorted((i for i, f in enumerate(rough) if np.isfinite(f[0]).mean() >= FLIPS), key=lambda i: _size(rough[i]))
    chosen = [i for i in good if levers[i].path in always]
    for told in (True, False):
        chosen += [i for i in good if levers[i].actionable and levers[i].path.startswith("told:") == told][:1]
    chosen = list(dict.fromkeys(chosen))
    grids = [_beyond(rough[i], levers[i], failed.take(np.arange(n)), budget.near) for i in chosen]
    found = _nearest(
        case, failed, [levers[i] for i in chosen], [guesses[i] for i in chosen], grids, np.arange(n)
    )  # fmt: skip
    out = []
    for i, (good_u, bad_u, was_u) in zip(chosen, found, strict=True):
        if np.isfinite(good_u).mean() >= FLIPS:
            good_u, bad_u = _halved(case, failed, levers[i], np.arange(n), good_u, bad_u, budget.halvings)
            out.append(_change(levers[i], good_u, bad_u, was_u))
    return sorted((c for c in out if c.flips >= FLIPS), key=lambda c: c.size)


def _beyond(
    rough: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]], lever: Lever, v: Variant, points: int
) -> NDArray[np.float64]:
    """Values from what was to half as far again as the furthest of the nearest successes, (n, points)."""
    off = (rough[0] - rough[2])[np.isfinite(rough[0])]
    side = 1.0 if np.median(off) >= 0 else -1.0
    reach = 1.5 * np.abs(off[np.sign(off) * side >= 0]).max() + 0.05
    was = np.clip(lever.to_unit(lever.read(v)), 0, 1)
    return np.asarray(np.clip(was[:, None] + side * reach * np.linspace(0, 1, points + 1)[1:], 0, 1))


def _nearest(
    case: Case, failed: Variant, levers: Sequence[Lever], guesses: Sequence[NDArray[np.float64] | None],
    grids: Sequence[NDArray[np.float64]], rows: NDArray[np.int64],
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]]:  # fmt: skip
    """Per lever: nearest success, the failure next to it on the way there, what was; in units, NaN for none."""
    parts, places = [], []
    v = failed.take(rows)
    for lever, guess, own in zip(levers, guesses, grids, strict=True):
        was = np.clip(lever.to_unit(lever.read(v)), 0, 1)
        grid = own
        if guess is not None:
            grid = np.concatenate([grid, np.clip(lever.to_unit(guess[rows]), 0, 1)[:, None]], axis=1)
        grid = np.sort(grid, axis=1)
        where = np.repeat(np.arange(len(rows)), grid.shape[1])
        parts.append(lever.write(v.take(where), lever.from_unit(grid.ravel())))
        places.append((was, grid))
    won = _succeeds(case, parts)
    out = []
    for (was, grid), ok in zip(places, won, strict=True):
        good, bad = np.full(len(was), np.nan), np.full(len(was), np.nan)
        for s, ok_s in enumerate(ok.reshape(grid.shape)):
            at = np.flatnonzero(ok_s)
            if not len(at):
                continue
            k = at[np.argmin(np.abs(grid[s, at] - was[s]))]
            good[s] = grid[s, k]
            between = [u for u in (*grid[s], was[s]) if min(was[s], good[s]) <= u <= max(was[s], good[s])]
            between = [u for u in between if u != good[s]]
            bad[s] = min(between, key=lambda u: abs(u - good[s])) if between else was[s]
        out.append((good, bad, was))
    return out


def _halved(
    case: Case, failed: Variant, lever: Lever, rows: NDArray[np.int64], good: NDArray[np.float64],
    bad: NDArray[np.float64], halvings: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Bisection between failures and successes, all samples at once."""
    good, bad = good.copy(), bad.copy()
    open_ = np.flatnonzero(np.isfinite(good))
    v = failed.take(rows[open_])
    for _ in range(halvings if len(open_) else 0):
        middle = (good[open_] + bad[open_]) / 2
        ok = case.succeeds(lever.write(v, lever.from_unit(middle)))
        good[open_] = np.where(ok, middle, good[open_])
        bad[open_] = np.where(ok, bad[open_], middle)
    return good, bad


def _change(lever: Lever, good: NDArray[np.float64], bad: NDArray[np.float64], was: NDArray[np.float64]) -> Change:
    done = np.isfinite(good)
    flips = float(done.mean())
    # most change the same way; the others are noise of single trials
    up = np.median(good[done] - was[done]) >= 0
    same = done & ((good - was >= 0) == up)
    at = (good + bad)[same] / 2
    sizes = np.abs(at - was[same])
    never = np.inf * np.ones(int((~done).sum()) if flips < OPEN else 0)
    low, middle, high = np.quantile(np.concatenate([sizes, never]), [BAND[0], 0.5, BAND[1]], method="nearest")
    middle = middle if np.isfinite(middle) else sizes.max()
    slack = float(np.median(np.abs(good - bad)[same]))
    low = max(0.0, middle - WIDEN * (middle - low) - slack)
    high = middle + WIDEN * (high - middle) + slack
    before = lever.from_unit(np.median(was[same]))
    sign = 1.0 if up else -1.0

    def change(size: float) -> float:
        if not np.isfinite(size):
            return sign * np.inf
        return float(lever.change(before, lever.from_unit(lever.to_unit(before) + sign * size))) if size else 0.0

    ends = [change(float(s)) for s in (low, middle, high)]
    return Change(
        lever.path, lever.label, lever.unit, lever.actionable, lever.scale == "log", float(before),
        float(lever.from_unit(lever.to_unit(before) + sign * middle)), ends[1], min(ends[0], ends[2]),
        max(ends[0], ends[2]), flips, float(middle),
    )  # fmt: skip


def _size(found: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]) -> float:
    return float(np.nanmedian(np.abs((found[0] + found[1]) / 2 - found[2])))


def _succeeds(case: Case, parts: Sequence[Variant]) -> list[NDArray[np.bool_]]:
    """Several variants in one batch."""
    if not parts:
        return []
    won = case.succeeds(joined(parts))
    return np.split(won, np.cumsum([len(p.seeds) for p in parts])[:-1])


def joined(parts: Sequence[Variant]) -> Variant:
    """Variants one after the other."""
    return Variant(
        {k: np.concatenate([np.asarray(p.values[k]) for p in parts]) for k in parts[0].values},
        np.concatenate([p.told for p in parts]),
        {k: np.concatenate([p.starts[k] for p in parts]) for k in parts[0].starts},
        [s for p in parts for s in p.seeds],
        np.concatenate([p.speed for p in parts]),
        {k: np.concatenate([np.asarray(p.seen[k]) for p in parts]) for k in parts[0].seen},
    )


def margin_map(case: Case, failed: Variant, x: Lever, y: Lever, *, points: int = 9, draws: int = 2) -> MarginMap:
    """Share of successes over two levers around where the attempt was; all else as in some posterior samples."""
    some = failed.take(np.arange(min(draws, len(failed.seeds))))
    spans = []
    for lever in (x, y):
        was = float(np.median(lever.to_unit(lever.read(failed))))
        low, high = max(0.0, was - 0.45), min(1.0, was + 0.45)
        spans.append(lever.from_unit(np.linspace(low, high, points)))
    gx, gy = (g.ravel() for g in np.meshgrid(*spans))
    rows = np.tile(np.arange(len(some.seeds)), len(gx))
    many = some.take(rows)
    many = x.write(many, np.repeat(gx, len(some.seeds)))
    many = y.write(many, np.repeat(gy, len(some.seeds)))
    share = case.succeeds(many).reshape(points, points, -1).mean(axis=2)
    at = tuple(float(np.median(lever.read(failed))) for lever in (x, y))
    return MarginMap(x, y, spans[0], spans[1], share, (at[0], at[1]))


def retold(v: Variant, told: NDArray[np.float64]) -> Variant:
    """The same worlds, the policy told something else, (c,) or (n, c)."""
    return replace(v, told=np.broadcast_to(told, v.told.shape).copy())
