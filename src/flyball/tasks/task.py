"""The task protocol."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flyball.base import PluginTable
from flyball.engines.engine import Reduce
from flyball.episodes import Outcome
from flyball.robots import Embodiment, Observation
from flyball.scenes import Scene, Variation

tasks = PluginTable(
    "task",
    "flyball.tasks",
    {
        "insert-peg-v1": "flyball.tasks.zoo.insert_peg:INSERT_PEG",
        "lift-fragile-v1": "flyball.tasks.zoo.lift_fragile:LIFT_FRAGILE",
        "slide-puck-v1": "flyball.tasks.zoo.slide_puck:SLIDE_PUCK",
    },
)

Values: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Parameter path -> value per world, (n,)."""

Controller: TypeAlias = Callable[[Observation], NDArray[np.float64]]
"""Batched observation -> actions (n, a). What an expert or a scripted baseline is, before it is wrapped as a policy."""


def varied(task: Task, variations: Iterable[Variation]) -> Task:
    """The task in a scene that varies: everything that simulates it draws these, after the scene's own variations."""
    out = copy(task)
    out.scene = replace(task.scene, variations=(*task.scene.variations, *variations))
    return out


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


@dataclass(frozen=True)
class EventRule:
    """What an inspection station reports.

    Attributes:
      name: of the event, e.g. ``crushed``.
      fields: engine fields that are watched every substep; the worst counts.
      lowpass_s: time constant of the first-order filter on each [s].
    """

    name: str
    fields: tuple[str, ...]
    lowpass_s: float


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
      conditioning: parameters (or derived names) that a policy is told; a release carries each robot's calibration.
      derived: combinations worth reporting.
      reads: engine fields that the sensors are made of, and how they are reduced over a control period.
      noise: standard deviation of each observation signal's elements; parameters may override it.
      event_rules: what is watched every substep.
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
    reads: Mapping[str, Reduce]
    noise: Mapping[str, tuple[float, ...]]
    event_rules: tuple[EventRule, ...]

    def sense(self, raw: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Engine fields (``reads``) to clean observations, signal -> (n, size)."""

    def control(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Actions (..., a) to engine controls (..., nu)."""

    def rest_action(self, values: Values) -> NDArray[np.float64]:
        """The action that was in force before the attempt, (n, a)."""

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

    def seen_starts(self, signals: Mapping[str, NDArray[np.float64]], values: Values) -> dict[str, NDArray[np.float64]]:
        """Start states of logged attempts as their first observations show them, given believed parameters.

        Args:
          signals: signal name -> (n, T, size).
          values: believed parameters, path -> (n,).
        """

    def told(self, values: Values) -> NDArray[np.float64]:
        """What somebody who knows the parameters would tell a policy: values of ``conditioning``, (n, c)."""

    def tell(self, samples: Values) -> NDArray[np.float64]:
        """What joint posterior samples, path -> (m,), tell a policy: the choice that is most likely right, (c,)."""

    def expert(self, told: NDArray[np.float64]) -> Controller:
        """The expert: acts on observations and what it is told, (n, c). Told the truth, it is the informed expert."""

    def baselines(self) -> Mapping[str, Callable[[int], Controller]]:
        """Scripted baselines without calibration: name -> (number of worlds -> controller)."""

    def features(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """What a learned policy sees, (n, f), standardised to about unit size.

        Args:
          observation: batched observation.
          told: values of ``conditioning`` as the policy is told, (n, len(conditioning)).
        """

    def encode(
        self, observation: Observation, told: NDArray[np.float64], actions: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Actions (n, h, a) in the coordinates a policy learns in (relative, standardised), (n, h, b)."""

    def decode(
        self, observation: Observation, told: NDArray[np.float64], code: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Inverse of ``encode``."""

    def summaries(
        self, signals: Mapping[str, NDArray[np.float64]], actions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What attempts say about the parameters, in few numbers that change smoothly with them.

        Args:
          signals: observations, signal -> (n, T, size); logged, or replayed with the logged actions.
          actions: the logged actions (n, T, a). Windows are placed by these alone, so that they agree.

        Returns:
          Numbers whose mean over a robot's attempts is informative, (n, s), and numbers that must be kept apart, (n,
          r).
        """

    def plausible(self, values: Values) -> NDArray[np.float64]:
        """How plausible joint values are before any log, beyond the parameters' own ranges: weights (n,), 0 to 1."""

    def observed(
        self, signals: Mapping[str, NDArray[np.float64]], samples: Values, rng: np.random.Generator
    ) -> dict[str, NDArray[np.float64]]:
        """Parameters that logs show without any simulation, given samples (m,) of the others: path -> (m,)."""
