"""A policy that drives a whole batch of worlds. In: a policy with batched observations. Out: one action per world and period."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flyball.policies.policy import Policy
from flyball.robots import Observation


class Batched:
    """Executes the first actions of each chunk, then asks again; call it with batched observations.

    Args:
      policy: answers batched observations.
      execute: actions of a chunk that are executed.
    """

    def __init__(self, policy: Policy, execute: int) -> None:
        self._policy, self._execute, self._used = policy, execute, 0
        self._chunk: NDArray[np.float64] | None = None

    def __call__(self, observation: Observation) -> NDArray[np.float64]:
        """The next action of every world, (n, a)."""
        if self._chunk is None or self._used >= min(self._execute, self._chunk.shape[1]):
            self._chunk, self._used = self._policy.act(observation).actions, 0
        action = self._chunk[:, self._used]
        self._used += 1
        return action
