"""Variations drawn world by world.

In: variations, a run's seed, world numbers. Out: values per world, path -> (n,).

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
from flyball.scenes import streams
from flyball.scenes.expressions import Distribution, Draws, Number, check_number, value
from flyball.scenes.streams import Worlds
from flyball.scenes.targets import How, check_how, check_path


class Variation(Protocol):
    """A distribution over one or several named parameters."""

    @property
    def paths(self) -> tuple[str, ...]:
        """What it varies."""

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n joint draws: path -> values of shape (n,)."""


class Streamed:
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
class Vary(Streamed):
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
    return variation.refers_to() if isinstance(variation, Streamed) else set()


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
