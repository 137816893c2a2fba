"""Numbers made of numbers: mixtures, ramps, formulas, conditions, arithmetic.

In: numbers as ``distributions`` has them. Out: numbers again; ``KINDS`` names them all for files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flyball.base import InputError, Missing
from flyball.scenes.distributions import (
    Choice,
    LogNormal,
    LogUniform,
    Normal,
    Truncated,
    Uniform,
    cumulative,
)
from flyball.scenes.expressions import Arithmetic, Distribution, Draws, Law, Number, check_number, value
from flyball.scenes.formula import evaluate, parse
from flyball.scenes.portable import Array


@dataclass(frozen=True)
class Mixture(Distribution):
    """One of several distributions, with weights (default: equal)."""

    of: tuple[Number, ...]
    weights: tuple[float, ...] = ()
    kind = "mixture"

    def __post_init__(self) -> None:
        self._normalise()
        for x in self.of:
            check_number(x, self.kind, "of")
        cumulative(self.weights, len(self.of), self.kind)

    def parts(self) -> list[tuple[str, Number]]:
        return [(f"of.{i}", x) for i, x in enumerate(self.of)]

    def sample(self, draws: Draws, name: str) -> Array:
        which = Choice(tuple(range(len(self.of))), self.weights).sample(draws, name).astype(int)
        drawn = np.stack([value(x, draws, f"{name}/{place}") for place, x in self.parts()])
        return drawn[which, np.arange(drawn.shape[1])]

    def law(self, draws: Draws, name: str) -> Law:
        """Quantiles by bisection of the mixed distribution function, for use as a marginal."""
        shares: list[float] = np.diff(cumulative(self.weights, len(self.of), name), prepend=0.0).tolist()
        laws = [x.law(draws, f"{name}/{place}") for place, x in self.parts() if isinstance(x, Distribution)]
        if len(laws) < len(self.of) or any(one.cdf is None for one in laws):
            return super().law(draws, name)

        def cdf(x: Array) -> Array:
            out: Array = np.zeros(np.shape(x))
            for w, one in zip(shares, laws, strict=True):
                assert one.cdf is not None
                out = out + w * one.cdf(x)
            return out

        def quantile(u: Array) -> Array:
            ends = [one.quantile(u) for one in laws]
            low, high = np.minimum.reduce(ends), np.maximum.reduce(ends)
            for _ in range(60):
                middle = (low + high) / 2
                below = cdf(middle) < u
                low, high = np.where(below, middle, low), np.where(below, high, middle)
            return (low + high) / 2

        return Law(quantile, cdf)


@dataclass(frozen=True)
class Ramp(Distribution):
    """A number that goes from ``start`` to ``end`` as the curriculum's progress goes from ``begin`` to ``finish``."""

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0
    kind = "ramp"

    def __post_init__(self) -> None:
        self._normalise()
        for key, x in self.parts():
            check_number(x, self.kind, key)
            if isinstance(x, Distribution):
                raise InputError(f"{key} is a distribution", where=self.kind, allowed="a number")
        if not 0 <= self.begin < self.finish <= 1:
            raise InputError(
                f"begin = {self.begin:g}, finish = {self.finish:g}", where=self.kind, allowed="0 <= begin < finish <= 1"
            )

    def law(self, draws: Draws, name: str) -> Law:
        x = self.sample(draws, name)
        return Law(lambda u: x)

    def sample(self, draws: Draws, name: str) -> Array:
        s = np.clip((draws.progress - self.begin) / (self.finish - self.begin), 0.0, 1.0)
        return self.start * (1 - s) + self.end * s


@dataclass(frozen=True)
class Formula(Distribution):
    """A number as a function of other parameters, e.g. ``Formula("0.4 * object.mass ** 2")``; see ``formula``."""

    text: str
    kind = "formula"

    def __post_init__(self) -> None:
        parse(self.text)

    def parts(self) -> list[tuple[str, Number]]:
        return []

    def refers_to(self) -> set[str]:
        return parse(self.text).paths

    def sample(self, draws: Draws, name: str) -> Array:
        return evaluate(parse(self.text), draws.known, len(draws.worlds), where=f"[{name}]")


@dataclass(frozen=True)
class Conditional(Distribution):
    """The number that belongs to another parameter's value, e.g. friction by material.

    Attributes:
      on: path of a parameter that takes few values.
      cases: value of ``on`` -> number.
      otherwise: for all other values; None: they are an error.
    """

    on: str
    cases: tuple[tuple[float, Number], ...]
    otherwise: Number | None = None
    kind = "conditional"

    def __post_init__(self) -> None:
        self._normalise()
        if not self.cases:
            raise InputError("no cases", where=self.kind)
        for when, x in self.cases:
            check_number(when, self.kind, "cases")
            check_number(x, self.kind, "cases")
        if self.otherwise is not None:
            check_number(self.otherwise, self.kind, "otherwise")

    def parts(self) -> list[tuple[str, Number]]:
        cases: list[tuple[str, Number]] = [(f"cases.{when!r}", x) for when, x in self.cases]
        return cases if self.otherwise is None else [*cases, ("otherwise", self.otherwise)]

    def refers_to(self) -> set[str]:
        return {self.on} | super().refers_to()

    def sample(self, draws: Draws, name: str) -> Array:
        if self.on not in draws.known:
            raise Missing.named("parameter", self.on, draws.known, where=f"[{name}]")
        on, numbers = draws.known[self.on], dict(self.parts())
        out, left = np.zeros(len(on)), np.ones(len(on), bool)
        for when, _ in self.cases:
            here = left & (on == when)
            out = np.where(here, value(numbers[f"cases.{when!r}"], draws, f"{name}/cases.{when!r}"), out)
            left &= ~here
        if self.otherwise is not None:
            return np.where(left, value(self.otherwise, draws, f"{name}/otherwise"), out)
        if left.any():
            allowed = ", ".join(f"{when:g}" for when, _ in self.cases)
            raise InputError(f"no case for {self.on} = {on[left][0]:g}", where=f"[{name}]", allowed=allowed)
        return out


KINDS: Mapping[str, type[Distribution]] = {
    c.kind: c
    for c in (
        Uniform, LogUniform, Normal, LogNormal, Truncated, Choice, Mixture, Ramp, Formula, Conditional, Arithmetic,
    )
}  # fmt: skip
"""Name in files -> class."""
