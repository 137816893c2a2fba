"""Numbers that are drawn, and arithmetic with them.

In: numbers, distributions, formulas, nested at will. Out: one value per world.

A ``Number`` is a float, a distribution (``distributions``), or what ``compositions`` makes of such: a ``Mixture``, a
``Ramp`` over a curriculum's progress, a ``Formula`` over other parameters, a ``Conditional``, or arithmetic:
``Uniform(0.2, 0.4) * 2 + Normal(0, 0.01)``. Parameters of a distribution are numbers themselves: ``Uniform(0.1,
Ramp(0.2, 0.9))`` widens as training goes on, ``Normal(Formula("object.mass"), 0.1)`` is hierarchical. Every occurrence
of a distribution is a draw of its own (``d + d`` is a sum of two independent draws); to use one value twice, give it a
path and refer to it in a formula.

Where the randomness comes from: see ``streams``. Each node has a stream named by its path and place in the expression,
so that a world's draw of one node depends on no other node, world or call.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np

from flyball.base import InputError
from flyball.scenes import streams
from flyball.scenes.portable import Array


@dataclass
class Draws:
    """What a draw needs: the run, the worlds, the progress, and values drawn before.

    Attributes:
      seed: of the run.
      worlds: world numbers, (n,).
      progress: of the curriculum in [0, 1], (n,).
      known: values that formulas may refer to, path -> (n,).
    """

    seed: int
    worlds: Any
    progress: Array
    known: dict[str, Array] = field(default_factory=dict)

    def uniform(self, name: str, lane: int = 0) -> Array:
        """A uniform number in (0, 1) per world, (n,)."""
        return streams.uniform(streams.words(self.seed, name, self.worlds, lane))


@dataclass(frozen=True)
class Law:
    """A distribution whose parameters are known: quantile and distribution function, elementwise over worlds."""

    quantile: Callable[[Array], Array]
    cdf: Callable[[Array], Array] | None = None


class Distribution:
    """What stands for a number. Subclasses are frozen dataclasses; their fields are their data.

    ``kind`` is the name in files. A subclass states ``law``, or overrides ``sample`` when it has no quantile function.
    """

    kind: ClassVar[str] = ""

    def _normalise(self) -> None:
        """Plain numbers become floats and lists tuples: 1 and 1.0 are one number, with one digest."""
        for f in fields(self):  # type: ignore[arg-type]
            object.__setattr__(self, f.name, _as_data(getattr(self, f.name)))

    def law(self, draws: Draws, name: str) -> Law:
        """The distribution with its parameters resolved for every world.

        Raises:
          InputError: it has no quantile function, or its parameters are impossible.
        """
        raise InputError(
            f"a {self.kind} has no quantile function", where=f"[{name}]", allowed="a single distribution, scaled or not"
        )

    def sample(self, draws: Draws, name: str) -> Array:
        """One value per world, (n,)."""
        return self.law(draws, name).quantile(draws.uniform(name))

    def parts(self) -> list[tuple[str, Number]]:
        """Nested numbers with their place."""
        return [(f.name, getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]

    def refers_to(self) -> set[str]:
        """Paths that formulas inside refer to."""
        return set().union(*(x.refers_to() for _, x in self.parts() if isinstance(x, Distribution)))

    def __add__(self, other: Number) -> Distribution:
        return Arithmetic("+", self, other)

    def __radd__(self, other: float) -> Distribution:
        return Arithmetic("+", other, self)

    def __sub__(self, other: Number) -> Distribution:
        return Arithmetic("-", self, other)

    def __rsub__(self, other: float) -> Distribution:
        return Arithmetic("-", other, self)

    def __mul__(self, other: Number) -> Distribution:
        return Arithmetic("*", self, other)

    def __rmul__(self, other: float) -> Distribution:
        return Arithmetic("*", other, self)

    def __truediv__(self, other: Number) -> Distribution:
        return Arithmetic("/", self, other)

    def __rtruediv__(self, other: float) -> Distribution:
        return Arithmetic("/", other, self)

    def __neg__(self) -> Distribution:
        return Arithmetic("*", -1.0, self)


Number: TypeAlias = "float | Distribution"


def _as_data(x: Any) -> Any:
    if isinstance(x, (list, tuple)):
        return tuple(_as_data(y) for y in x)
    return float(x) if isinstance(x, (int, np.integer, np.floating)) and not isinstance(x, bool) else x


def value(x: Number, draws: Draws, name: str) -> Array:
    """A number's value per world, (n,)."""
    if isinstance(x, Distribution):
        return x.sample(draws, name)
    return np.full(len(draws.worlds), float(x))


def check_number(x: object, where: str, key: str) -> None:
    """Refuse what is neither a finite number nor a distribution.

    Raises:
      InputError: naming the key.
    """
    if isinstance(x, Distribution):
        return
    if isinstance(x, bool) or not isinstance(x, (int, float, np.integer, np.floating)) or not np.isfinite(x):
        hint = "; a path belongs to Vary(path, distribution)" if isinstance(x, str) else ""
        raise InputError(f"{key} = {x!r}", where=where, allowed=f"a finite number or a distribution{hint}")


_OPERATORS: Mapping[str, Callable[[Any, Any], Any]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv,
}  # fmt: skip


@dataclass(frozen=True)
class Arithmetic(Distribution):
    """Two numbers added, subtracted, multiplied or divided; with a plain number on one side: shifted or scaled."""

    op: Literal["+", "-", "*", "/"]
    left: Number
    right: Number
    kind = "arithmetic"

    def __post_init__(self) -> None:
        self._normalise()
        if self.op not in _OPERATORS:
            raise InputError(f"op = {self.op!r}", where=self.kind, allowed=" ".join(_OPERATORS))
        check_number(self.left, self.kind, "left")
        check_number(self.right, self.kind, "right")
        if self.op == "/" and not isinstance(self.right, Distribution) and self.right == 0:
            raise InputError("right = 0", where=self.kind, allowed="a divisor that is not 0")

    def parts(self) -> list[tuple[str, Number]]:
        return [("left", self.left), ("right", self.right)]

    def sample(self, draws: Draws, name: str) -> Array:
        left, right = value(self.left, draws, f"{name}/left"), value(self.right, draws, f"{name}/right")
        if self.op == "/" and np.any(right == 0):
            raise InputError("division by 0", where=f"[{name}]")
        return _OPERATORS[self.op](left, right)

    def law(self, draws: Draws, name: str) -> Law:
        """Of a distribution that is scaled or shifted by a plain number."""
        left, right, op = self.left, self.right, _OPERATORS[self.op]
        if isinstance(left, Distribution) and not isinstance(right, Distribution):
            inner, forth = left.law(draws, f"{name}/left"), lambda x: op(x, right)
            falling = self.op in "*/" and right < 0
        elif isinstance(right, Distribution) and not isinstance(left, Distribution) and self.op != "/":
            inner, forth = right.law(draws, f"{name}/right"), lambda x: op(left, x)
            falling = self.op == "-" or (self.op == "*" and left < 0)
        else:
            return super().law(draws, name)
        scale, shift = forth(1.0) - forth(0.0), forth(0.0)
        if scale == 0 or inner.cdf is None:
            return Law(lambda u: forth(inner.quantile(1 - u if falling else u)))
        cdf = inner.cdf
        return Law(
            lambda u: forth(inner.quantile(1 - u if falling else u)),
            lambda y: 1 - cdf((y - shift) / scale) if falling else cdf((y - shift) / scale),
        )
