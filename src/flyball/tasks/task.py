"""The task protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flyball.base import PluginTable
from flyball.episodes import Outcome
from flyball.robots import Embodiment, Observation
from flyball.scenes import Scene

tasks = PluginTable(
    "task",
    "flyball.tasks",
    {
        "lift-fragile-v1": "flyball.tasks.zoo.lift_fragile:LIFT_FRAGILE",
        "slide-puck-v1": "flyball.tasks.zoo.slide_puck:SLIDE_PUCK",
    },
)

Values: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Parameter path -> value per world, (n,)."""

Controller: TypeAlias = Callable[[Observation], NDArray[np.float64]]
"""Batched observation -> actions (n, a). What an expert or a scripted baseline is, before it is wrapped as a policy."""


@dataclass(frozen=True)
class Judgement:
    """What became of an attempt.

    Attributes:
      outcome: success, failure or unknown.
      group: for failures, what happened, e.g. ``slipped``; "" otherwise.
      progress: 0 to 1.
    """

    outcome: Outcome
    group: str
    progress: float


@dataclass(frozen=True)
class Derived:
    """A combination of parameters that matters more than its parts, e.g. friction over mass.

    Attributes:
      path: its name.
      unit: SI unit.
      of: parameters -> value, elementwise.
    """

    path: str
    unit: str
    of: Callable[[Values], NDArray[np.float64]]


class Task(Protocol):
    """What is to be done. Everything that depends on the task is asked of this object; no code branches on its name.

    Attributes:
      name: ``name-vN``.
      instruction: in words.
      embodiment: the body it is done with.
      scene: where; its parameters are everything that may differ between robots.
      horizon_s: length of an attempt [s].
      control_hz: control rate [1/s].
      groups: names of the ways to fail.
      conditioning: parameters (or derived names) that a policy may be told, because a release carries the robot's calibration.
      derived: combinations worth reporting.
    """

    name: str
    instruction: str
    embodiment: Embodiment
    scene: Scene
    horizon_s: float
    control_hz: float
    groups: tuple[str, ...]
    conditioning: tuple[str, ...]
    derived: tuple[Derived, ...]

    def judge(self, signals: Mapping[str, NDArray[np.float64]], events: Sequence[str]) -> Judgement:
        """Judge one attempt from its signals, logged or simulated.

        Args:
          signals: signal name -> (T, *shape), at the control rate.
          events: names of what happened, e.g. ``crushed``.
        """

    def draw_reality(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n realities that an informed expert can solve: path -> (n,). Parameters left out are nominal."""

    def starts(self, values: Values, rng: Sequence[np.random.Generator]) -> dict[str, NDArray[np.float64]]:
        """Start states, one generator per world: joint name -> positions (n, nq). Joints left out start as authored."""

    def expert(self, knowledge: Values) -> Controller:
        """The informed expert: acts on observations and on what it believes the parameters are, path -> (n,)."""

    def baselines(self) -> Mapping[str, Callable[[int], Controller]]:
        """Scripted baselines without calibration: name -> (number of worlds -> controller)."""

    def features(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a learned policy sees, (n, f), standardised to about unit size.

        Args:
          observation: batched observation.
          told: values of ``conditioning`` as the policy is told, (n, len(conditioning)).
        """

    def encode(self, observation: Observation, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Actions (n, h, a) in the coordinates a policy learns in (relative, standardised), (n, h, b)."""

    def decode(self, observation: Observation, code: NDArray[np.float64]) -> NDArray[np.float64]:
        """Inverse of ``encode``."""
