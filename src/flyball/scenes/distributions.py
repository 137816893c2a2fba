"""Distributions: uniform, normal, on a logarithmic scale, truncated, a choice.

In: parameters, which are numbers themselves (see ``expressions``). Out: quantile and distribution functions. A path in
front makes a variation: ``Uniform("object.mass", 0.2, 0.4)``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from flyball.base import InputError
from flyball.scenes import portable
from flyball.scenes.drawing import Vary
from flyball.scenes.expressions import Distribution, Draws, Law, Number, check_number, value
from flyball.scenes.portable import Array


def _order(low: Any, high: Any, where: str, least: float = -np.inf) -> None:
    """Bounds in order; what is not a plain number is checked when it is drawn."""
    bad = np.flatnonzero(np.atleast_1d(np.asarray(low) > np.asarray(high)))
    lows, highs = np.atleast_1d(low), np.atleast_1d(high)
    if len(bad):
        raise InputError(f"low = {lows[bad[0]]:g} is above high = {highs[bad[0]]:g}", where=where)
    if np.any(lows <= least):
        raise InputError(f"low = {lows.min():g}", where=where, allowed=f"> {least:g}")


class _Named(Distribution):
    """``Uniform("object.mass", 0.2, 0.4)`` is short for ``Vary("object.mass", Uniform(0.2, 0.4))``."""

    def __new__(cls, *args: Any, **rest: Any) -> Any:
        if args and isinstance(args[0], str):
            return Vary(args[0], cls(*args[1:], **rest))
        return super().__new__(cls)


class _Checked(_Named):
    """Checks its numbers when made: those that are plain at once, those that are drawn per world."""

    def __post_init__(self) -> None:
        self._normalise()
        for key, x in self.parts():
            check_number(x, self.kind, key)
        plain = {k: x for k, x in self.parts() if not isinstance(x, Distribution)}
        self._check(plain, self.kind)

    def _check(self, given: Mapping[str, Any], where: str) -> None:
        if "low" in given and "high" in given:
            _order(given["low"], given["high"], where)

    def _resolve(self, draws: Draws, name: str) -> dict[str, Array]:
        found = {k: value(x, draws, f"{name}/{k}") for k, x in self.parts() if k != "of"}
        self._check(found, f"[{name}]")
        return found


@dataclass(frozen=True)
class Uniform(_Checked):
    """Uniform over [low, high]."""

    low: Number
    high: Number
    kind = "uniform"

    def law(self, draws: Draws, name: str) -> Law:
        low, high = self._resolve(draws, name).values()
        width = np.where(high > low, high - low, 1.0)
        return Law(
            lambda u: np.minimum(low + (high - low) * u, high),
            lambda x: np.where(high > low, np.clip((x - low) / width, 0, 1), (x >= low) * 1.0),
        )


@dataclass(frozen=True)
class LogUniform(_Checked):
    """Log-uniform over [low, high], both positive."""

    low: Number
    high: Number
    kind = "log_uniform"

    def _check(self, given: Mapping[str, Any], where: str) -> None:
        _order(given.get("low", given.get("high", 1.0)), given.get("high", np.inf), where, least=0.0)

    def law(self, draws: Draws, name: str) -> Law:
        low, high = self._resolve(draws, name).values()
        a = portable.log(low)
        span = portable.log(high) - a
        return Law(
            lambda u: np.clip(portable.exp(a + span * u), low, high),
            lambda x: np.clip(
                (portable.log(np.clip(x, low, high)) - a) / np.where(span > 0, span, 1.0) + (span <= 0) * (x >= low),
                0,
                1,
            ),
        )


def _spread(given: Mapping[str, Any], key: str, where: str) -> None:
    if key in given and np.any(np.asarray(given[key]) <= 0):
        raise InputError(f"{key} = {np.min(given[key]):g}", where=where, allowed="> 0")


@dataclass(frozen=True)
class Normal(_Checked):
    """Normal with mean and standard deviation."""

    mean: Number
    std: Number
    kind = "normal"

    def _check(self, given: Mapping[str, Any], where: str) -> None:
        _spread(given, "std", where)

    def law(self, draws: Draws, name: str) -> Law:
        mean, std = self._resolve(draws, name).values()
        return Law(
            lambda u: mean + std * portable.normal_quantile(u),
            lambda x: portable.normal_cdf((x - mean) / std),
        )


@dataclass(frozen=True)
class LogNormal(_Checked):
    """``median`` times e to a normal number of standard deviation ``sigma``: sigma 0.1 is about 10 % either way."""

    median: Number
    sigma: Number
    kind = "log_normal"

    def _check(self, given: Mapping[str, Any], where: str) -> None:
        _spread(given, "median", where)
        _spread(given, "sigma", where)

    def law(self, draws: Draws, name: str) -> Law:
        median, sigma = self._resolve(draws, name).values()
        return Law(
            lambda u: median * portable.exp(sigma * portable.normal_quantile(u)),
            lambda x: portable.normal_cdf(portable.log(np.maximum(x, 1e-300) / median) / sigma),
        )


@dataclass(frozen=True)
class Truncated(_Checked):
    """Another distribution, given that it lies in [low, high]: by inversion, so that each draw costs one word."""

    of: Distribution
    low: Number | None = None
    high: Number | None = None
    kind = "truncated"

    def __post_init__(self) -> None:
        if not isinstance(self.of, Distribution):
            raise InputError(f"of = {self.of!r}", where=self.kind, allowed="a distribution")
        super().__post_init__()

    def parts(self) -> list[tuple[str, Number]]:
        return [(k, x) for k, x in super().parts() if x is not None]

    def law(self, draws: Draws, name: str) -> Law:
        bounds = self._resolve(draws, name)
        low, high = bounds.get("low", np.full(1, -np.inf)), bounds.get("high", np.full(1, np.inf))
        inner = self.of.law(draws, f"{name}/of")
        if inner.cdf is None:
            raise InputError(
                f"a {self.of.kind} cannot be truncated", where=f"[{name}]", allowed="a continuous distribution"
            )
        cdf, quantile = inner.cdf, inner.quantile
        a = cdf(low) if "low" in bounds else np.zeros(1)
        b = cdf(high) if "high" in bounds else np.ones(1)
        if np.any(b - a < 1e-9):  # below that, inversion has no digits left
            raise InputError(
                f"[{np.max(low):g}, {np.min(high):g}] holds almost nothing of the {self.of.kind}",
                where=f"[{name}]",
                allowed="bounds that keep more than 1e-9 of it",
            )
        tiny = 2.0**-53
        return Law(
            lambda u: np.clip(quantile(np.clip(a + (b - a) * u, tiny, 1 - tiny)), low, high),
            lambda x: np.clip((cdf(x) - a) / (b - a), 0, 1),
        )


def cumulative(weights: tuple[float, ...], n: int, where: str) -> Array:
    """Cumulative shares, (n,)."""
    w = np.asarray(weights or (1.0,) * n, float)
    if n == 0 or len(w) != n or not np.all(np.isfinite(w)) or np.any(w < 0) or not w.sum() > 0:
        raise InputError(f"weights = {list(weights)}", where=where, allowed=f"{max(n, 1)} numbers >= 0, not all 0")
    total = np.cumsum(w)
    return total / total[-1]


@dataclass(frozen=True)
class Choice(_Named):
    """One of several values, with weights (default: equal)."""

    values: tuple[float, ...]
    weights: tuple[float, ...] = ()
    kind = "choice"

    def __post_init__(self) -> None:
        self._normalise()
        for x in self.values:
            check_number(x, self.kind, "values")
            if isinstance(x, Distribution):
                raise InputError("values are distributions", where=self.kind, allowed="numbers, or a mixture")
        cumulative(self.weights, len(self.values), self.kind)

    def parts(self) -> list[tuple[str, Number]]:
        return []

    def law(self, draws: Draws, name: str) -> Law:
        shares, values = cumulative(self.weights, len(self.values), name), np.asarray(self.values, float)
        last = int(np.flatnonzero(np.diff(shares, prepend=0.0))[-1])  # never a value of weight 0 by rounding
        return Law(lambda u: values[np.minimum(np.searchsorted(shares, u, side="right"), last)])
