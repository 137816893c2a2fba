"""Variations: distributions that may stand wherever a number stands, alone or jointly over several parameters.

Calibration returns one, randomization samples one: they share the type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError


class Variation(Protocol):
    """A distribution over one or several named parameters."""

    paths: tuple[str, ...]

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n joint draws: path -> values of shape (n,)."""


@dataclass(frozen=True)
class Constant:
    """One value."""

    path: str
    value: float

    @property
    def paths(self) -> tuple[str, ...]:
        """The one path."""
        return (self.path,)

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """The value, n times."""
        return {self.path: np.full(n, self.value)}


@dataclass(frozen=True)
class Uniform:
    """Uniform over [low, high]."""

    path: str
    low: float
    high: float

    @property
    def paths(self) -> tuple[str, ...]:
        """The one path."""
        return (self.path,)

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n independent draws."""
        return {self.path: rng.uniform(self.low, self.high, n)}


@dataclass(frozen=True)
class LogUniform:
    """Log-uniform over [low, high], both positive."""

    path: str
    low: float
    high: float

    @property
    def paths(self) -> tuple[str, ...]:
        """The one path."""
        return (self.path,)

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n independent draws."""
        return {self.path: np.exp(rng.uniform(np.log(self.low), np.log(self.high), n))}


@dataclass(frozen=True)
class Choice:
    """One of several values with equal probability."""

    path: str
    values: tuple[float, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The one path."""
        return (self.path,)

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n independent draws with replacement."""
        return {self.path: rng.choice(np.array(self.values), n)}


@dataclass(frozen=True)
class JointSamples:
    """A set of joint samples, drawn with replacement: a posterior, or an empirical distribution.

    Attributes:
      paths: parameter names, one per column.
      samples: joint samples, shape (m, len(paths)).
      jitter: relative spread added to each draw of a column (0: draw the samples as they are), one per column.
    """

    paths: tuple[str, ...]
    samples: NDArray[np.float64]
    jitter: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.samples.ndim != 2 or self.samples.shape[1] != len(self.paths) or len(self.samples) == 0:
            raise InputError(
                f"joint samples have shape {self.samples.shape}",
                allowed=f"(m > 0, {len(self.paths)})",
                where="variation",
            )

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n rows, drawn with replacement."""
        rows = self.samples[rng.integers(len(self.samples), size=n)].astype(float)
        for j, rel in enumerate(self.jitter):
            rows[:, j] *= np.exp(rel * rng.standard_normal(n))
        return {p: rows[:, j] for j, p in enumerate(self.paths)}


def sample(
    variations: Mapping[str, Variation] | list[Variation], rng: np.random.Generator, n: int
) -> dict[str, NDArray[np.float64]]:
    """n draws of all variations; a later variation overrides an earlier one on the same path.

    Returns:
      path -> values, shape (n,).
    """
    out: dict[str, NDArray[np.float64]] = {}
    for v in variations.values() if isinstance(variations, Mapping) else variations:
        out.update(v.draw(rng, n))
    return out
