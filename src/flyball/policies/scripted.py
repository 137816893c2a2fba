"""A script as a policy. In: a controller of batched observations, made anew for every attempt. Out: a ``Policy``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from flyball.policies.policy import ActionChunk
from flyball.robots import Observation


class Scripted:
    """One action per call, for one robot; what the script remembers, ``reset`` forgets.

    Args:
      make: makes a fresh controller: batched observation of one world -> actions (1, a).
      dt_s: control period [s].
    """

    def __init__(self, make: Callable[[], Callable[[Observation], NDArray[np.float64]]], dt_s: float) -> None:
        self._make, self._dt_s = make, dt_s
        self._controller = make()

    def reset(self, instruction: str, seed: int) -> None:
        self._controller = self._make()

    def act(self, observation: Observation) -> ActionChunk:
        return ActionChunk(self._controller({k: np.asarray(v)[None] for k, v in observation.items()}), self._dt_s)
