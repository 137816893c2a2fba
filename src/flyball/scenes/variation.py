"""Variations: distributions that may stand wherever a number stands, alone or jointly over several parameters.

In: what may vary, a run's seed, world numbers. Out: values per world, path -> (n,). Calibration returns a variation,
randomization samples one: they share the type.

What may vary is named by a path: a scene's parameter (``object.mass``) or a field as ``targets`` describes them
(``geom:box.friction``, ``light:lamp.diffuse[0]``, ``sensor:object.pose.delay``). How they are drawn: see ``drawing``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.scenes import portable
from flyball.scenes.distributions import Choice, LogUniform, Uniform
from flyball.scenes.drawing import Streamed, Variation, Vary, draw_worlds, sample
from flyball.scenes.expressions import Distribution, Draws, Number, check_number, value
from flyball.scenes.targets import check_path

__all__ = [
    "Choice", "Constant", "Correlated", "JointSamples", "LogUniform", "Uniform", "Variation", "Vary", "draw_worlds",
    "sample",
]  # fmt: skip


@dataclass(frozen=True)
class Constant:
    """One value."""

    path: str
    value: float

    @property
    def paths(self) -> tuple[str, ...]:
        """The one path."""
        return (self.path,)

    def draw_in(self, draws: Draws) -> dict[str, NDArray[np.float64]]:
        """The value, in every world."""
        return {self.path: np.full(len(draws.worlds), float(self.value))}

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """The value, n times."""
        return {self.path: np.full(n, self.value)}


@dataclass(frozen=True, eq=False)
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

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, JointSamples):
            return NotImplemented
        same = self.paths == other.paths and self.jitter == other.jitter
        return same and np.array_equal(self.samples, other.samples)

    def __hash__(self) -> int:
        return hash((self.paths, self.jitter, self.samples.shape))

    def draw_in(self, draws: Draws) -> dict[str, NDArray[np.float64]]:
        """A row per world, drawn with replacement."""
        name = ", ".join(self.paths)
        rows = np.minimum((draws.uniform(name) * len(self.samples)).astype(int), len(self.samples) - 1)
        out = {p: self.samples[rows, j].astype(float) for j, p in enumerate(self.paths)}
        for j, rel in enumerate(self.jitter):
            out[self.paths[j]] *= portable.exp(rel * portable.normal_quantile(draws.uniform(name, lane=1 + j)))
        return out

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n rows, drawn with replacement."""
        rows = self.samples[rng.integers(len(self.samples), size=n)].astype(float)
        for j, rel in enumerate(self.jitter):
            rows[:, j] *= np.exp(rel * rng.standard_normal(n))
        return {p: rows[:, j] for j, p in enumerate(self.paths)}


@dataclass(frozen=True)
class Correlated(Streamed):
    """Any marginals, tied by a Gaussian copula: x_k = F_k^-1(Phi(z_k)) with z normal and correlated.

    ``correlation`` is that of the underlying normal numbers z; the rank correlation of the values is
    (6 / pi) arcsin(r / 2) (Kruskal 1958), their linear correlation depends on the marginals.

    Attributes:
      paths: what varies.
      marginals: one number per path, each with a quantile function.
      correlation: symmetric, ones on the diagonal, positive definite, (k, k).
    """

    paths: tuple[str, ...]
    marginals: tuple[Number, ...]
    correlation: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        where, k = f"[{', '.join(self.paths)}]", len(self.paths)
        for path, x in zip(self.paths, self.marginals, strict=False):
            check_path(path)
            check_number(x, where, path)
        if k < 2 or len(set(self.paths)) < k or len(self.marginals) != k:
            raise InputError(f"{len(self.marginals)} marginals", where=where, allowed="one for each of the paths")
        if len(self.correlation) != k or any(len(row) != k for row in self.correlation):
            raise InputError("correlation has the wrong shape", where=where, allowed=f"{k} rows of {k}")
        object.__setattr__(self, "correlation", tuple(tuple(float(x) for x in row) for row in self.correlation))
        object.__setattr__(
            self, "marginals", tuple(m if isinstance(m, Distribution) else float(m) for m in self.marginals)
        )
        c = np.array(self.correlation)
        for i in range(k):
            for j in range(i + 1):
                if c[i, j] != c[j, i] or not abs(c[i, j]) <= 1 or (i == j and c[i, j] != 1):
                    raise InputError(
                        f"correlation[{i}][{j}] = {c[i, j]:g}, correlation[{j}][{i}] = {c[j, i]:g}",
                        where=where,
                        allowed="a symmetric matrix in [-1, 1] with ones on its diagonal",
                    )
        least = float(np.linalg.eigvalsh(c)[0])
        if least < 1e-9:
            raise InputError(
                f"correlation is not positive definite: its smallest eigenvalue is {least:.2g}",
                where=where,
                allowed="correlations that can hold together; shrink them toward 0",
            )

    def _factor(self) -> list[list[float]]:
        """Cholesky factor, row by row with plain arithmetic: LAPACK's last bits differ between machines."""
        c, k = self.correlation, len(self.paths)
        low = [[0.0] * k for _ in range(k)]
        for i in range(k):
            for j in range(i + 1):
                rest = c[i][j]
                for m in range(j):
                    rest -= low[i][m] * low[j][m]
                low[i][j] = float(np.sqrt(rest)) if i == j else rest / low[j][j]
        return low

    def refers_to(self) -> set[str]:
        return set().union(*(m.refers_to() for m in self.marginals if isinstance(m, Distribution)))

    def draw_in(self, draws: Draws) -> dict[str, NDArray[np.float64]]:
        z = [portable.normal_quantile(draws.uniform(p)) for p in self.paths]
        out = {}
        for p, marginal, row in zip(self.paths, self.marginals, self._factor(), strict=True):
            if not isinstance(marginal, Distribution):
                out[p] = value(marginal, draws, p)
                continue
            x = np.zeros(len(draws.worlds))
            for share, independent in zip(row, z, strict=True):
                if share:
                    x = x + share * independent
            u = np.clip(portable.normal_cdf(x), 2.0**-60, 1 - 2.0**-53)
            out[p] = marginal.law(draws, p).quantile(u)
        return out
