"""Variations: distributions that may stand wherever a number stands, alone or jointly over several parameters.

In: what may vary, a run's seed, world numbers. Out: values per world, path -> (n,). Calibration returns a variation,
randomization samples one: they share the type.

What may vary is named by a path: a scene's parameter (``object.mass``) or a field as ``targets`` describes them
(``geom:box.friction``, ``light:lamp.diffuse[0]``, ``sensor:object.pose.delay``).

Two ways to draw. ``draw_worlds`` is for everything new: world i of run S is the same whatever else is drawn (see
``streams``). ``Variation.draw(rng, n)`` takes a sequential generator, as calibration and the loop do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing
from flyball.scenes import portable, streams
from flyball.scenes.distributions import (
    Choice,
    Distribution,
    Draws,
    LogUniform,
    Number,
    Uniform,
    check_number,
    value,
)
from flyball.scenes.streams import Worlds
from flyball.scenes.targets import How, check_how, check_path

__all__ = [
    "Choice", "Constant", "Correlated", "JointSamples", "LogUniform", "Uniform", "Variation", "Vary", "draw_worlds",
    "sample",
]  # fmt: skip


class Variation(Protocol):
    """A distribution over one or several named parameters."""

    @property
    def paths(self) -> tuple[str, ...]:
        """What it varies."""

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n joint draws: path -> values of shape (n,)."""


class _Streamed:
    """``draw`` in terms of counter-based streams: one word of the generator is the run's seed."""

    paths: tuple[str, ...]

    def refers_to(self) -> set[str]:
        """Paths whose values must be drawn before."""
        return set()

    def draw_in(self, draws: Draws) -> dict[str, NDArray[np.float64]]:
        """Values of the given worlds, path -> (n,)."""
        raise NotImplementedError

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n independent draws from one word of ``rng``."""
        return draw_worlds([self], int(rng.integers(1 << 62)), range(n))


@dataclass(frozen=True)
class Vary(_Streamed):
    """One path varies by a number's distribution.

    Attributes:
      path: what varies.
      by: a number, see ``distributions``.
      how: ``set`` writes the value, ``scale`` multiplies the model's own value, ``add`` adds to it. A scene's parameter
        is always set; what it then does is stated by its bindings.
    """

    path: str
    by: Number
    how: How = "set"

    def __post_init__(self) -> None:
        check_path(self.path)
        check_number(self.by, f"[{self.path}]", "by")
        check_how(self.path, self.how)
        if not isinstance(self.by, Distribution):
            if self.how == "set":
                raise InputError(f"by = {self.by!r}", where=f"[{self.path}]", allowed="Constant(path, value)")
            object.__setattr__(self, "by", float(self.by))

    @property
    def paths(self) -> tuple[str, ...]:  # type: ignore[override]
        """The one path."""
        return (self.path,)

    def refers_to(self) -> set[str]:
        return self.by.refers_to() if isinstance(self.by, Distribution) else set()

    def draw_in(self, draws: Draws) -> dict[str, NDArray[np.float64]]:
        return {self.path: value(self.by, draws, self.path)}


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
class Correlated(_Streamed):
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


def draw_worlds(
    variations: Iterable[Variation],
    run_seed: int,
    worlds: Worlds,
    *,
    progress: float | NDArray[np.float64] = 1.0,
    given: Mapping[str, float | NDArray[np.float64]] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Values of any worlds of a run. World i is the same in any split, order, process or machine.

    Args:
      variations: a later one overrides an earlier one on the same path.
      run_seed: of the run, >= 0.
      worlds: world numbers, a range or (n,).
      progress: of the curriculum, in [0, 1]; scalar or (n,).
      given: values that formulas may refer to besides those drawn, e.g. the scene's nominal ones.

    Returns:
      path -> (n,), in the order of ``variations``.

    Raises:
      InputError: impossible parameters, a progress outside [0, 1], formulas that refer to each other in a circle.
      Missing: a formula refers to what is neither drawn nor given.
    """
    i = streams.world_numbers(worlds)
    level = np.broadcast_to(np.asarray(progress, float), (len(i),))
    if not np.all((level >= 0) & (level <= 1)):
        raise InputError(f"progress {progress}", where="draw_worlds", allowed="[0, 1]")
    all_of = list(variations)
    owner = {p: k for k, v in enumerate(all_of) for p in v.paths}  # the last one
    known = {p: np.broadcast_to(np.asarray(x, float), (len(i),)) for p, x in (given or {}).items() if p not in owner}
    for k, v in enumerate(all_of):
        for path in sorted(_refers_to(v) if k in owner.values() else ()):
            if path not in owner and path not in known:
                raise Missing.named("parameter", path, [*owner, *known], where=f"[{', '.join(v.paths)}]")
    draws = Draws(int(run_seed) if streams.key_of(run_seed, "") else 0, i, level, known)
    for k in _order(all_of, owner):
        found = _draw_in(all_of[k], draws)
        draws.known.update({p: x for p, x in found.items() if owner[p] == k})
    return {p: draws.known[p] for v in all_of for p in v.paths}


def _draw_in(variation: Variation, draws: Draws) -> dict[str, NDArray[np.float64]]:
    if not hasattr(variation, "draw_in"):
        raise InputError(
            f"{type(variation).__name__} cannot be drawn world by world",
            where=f"[{', '.join(variation.paths)}]",
            allowed="variations with draw_in(draws)",
        )
    return variation.draw_in(draws)


def _refers_to(variation: Variation) -> set[str]:
    return variation.refers_to() if isinstance(variation, _Streamed) else set()


def _order(variations: Sequence[Variation], owner: Mapping[str, int]) -> list[int]:
    """Those that formulas refer to come first.

    Raises:
      InputError: a circle, named.
    """
    needs = [
        sorted({owner[p] for p in _refers_to(v) if p in owner}) if k in owner.values() else []
        for k, v in enumerate(variations)
    ]
    try:
        order = list(TopologicalSorter(dict(enumerate(needs))).static_order())
    except CycleError as err:
        circle = " -> ".join(variations[k].paths[0] for k in reversed(err.args[1]))
        raise InputError(f"formulas refer to each other in a circle: {circle}", where="draw_worlds") from err
    return [k for k in order if k in owner.values()]
