"""The protocol of a robot that can be driven."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flyball.robots.embodiment import Embodiment

Observation: TypeAlias = Mapping[str, NDArray[np.float64]]
"""Signal name -> value. For one robot a value has the signal's shape; batched code has a leading world axis."""


class Robot(Protocol):
    """A driver. Leaving the robot safe on ``stop`` is part of the contract (see ``flyball.robots.testing``)."""

    embodiment: Embodiment

    def now_ns(self) -> int:
        """The robot's monotonic control clock [ns]. Simulated robots run on a simulated clock."""

    def observe(self) -> Observation:
        """The newest value of each observation signal."""

    def act(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Send an action (a,) and wait for the end of the control period.

        Returns:
          The action really sent, (a,).

        Raises:
          InputError: wrong shape or not finite. Nothing is sent then.
        """

    def events(self) -> list[tuple[int, str]]:
        """Events since the last call as (time [ns], name), e.g. ``crushed`` from an inspection station."""

    def stop(self) -> None:
        """Bring the robot to a safe state. Safe to call twice."""
