"""Policies that drive a whole batch of worlds.

In: a policy with batched observations, or one policy per world. Out: one action per world and control period.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from flyball.base import FlyballError
from flyball.policies.policy import Policy
from flyball.policies.supervisor import Supervisor
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


class Supervised:
    """One policy and one supervisor per world, as ``run_attempt`` has them: what robots do, to the bit, but together.

    Slower than ``Batched``, whose policy answers all worlds at once and is trusted.

    Args:
      policies: one per world, each reset for its attempt.
      supervisors: one per world.
      execute: actions of a chunk that are executed.

    Attributes:
      stopped: per world, why its robot was stopped; "" when it was not. Its last action is repeated from then on.
    """

    def __init__(self, policies: Sequence[Policy], supervisors: Sequence[Supervisor], execute: int) -> None:
        self._policies, self._supervisors, self._execute = list(policies), list(supervisors), execute
        self._chunks: list[NDArray[np.float64] | None] = [None] * len(self._policies)
        self._used = [0] * len(self._policies)
        self._why = [""] * len(self._policies)
        self._begun = False

    @property
    def stopped(self) -> list[str]:
        return [s.stopped for s in self._supervisors]

    def __call__(self, observation: Observation) -> NDArray[np.float64]:
        """The next action of every world, (n, a)."""
        rows = [{k: v[i] for k, v in observation.items()} for i in range(len(self._policies))]
        if not self._begun:
            for supervisor, row in zip(self._supervisors, rows, strict=True):
                supervisor.reset(row)
            self._begun = True
        return np.stack([self._one(i, row) for i, row in enumerate(rows)])

    def _one(self, i: int, observation: Observation) -> NDArray[np.float64]:
        supervisor, chunk = self._supervisors[i], self._chunks[i]
        if supervisor.stopped:
            return supervisor.judge(None).action
        if chunk is None or self._used[i] >= min(self._execute, len(chunk)):
            self._chunks[i], self._used[i] = None, 0
            try:
                answer = self._policies[i].act(observation)
                self._why[i] = supervisor.check_chunk(answer)
                self._chunks[i] = None if self._why[i] else answer.actions
            except FlyballError as err:
                self._why[i] = err.line()
        chunk = self._chunks[i]
        verdict = supervisor.judge(None if chunk is None else chunk[self._used[i]], why=self._why[i])
        if verdict.held:
            self._chunks[i] = None
        self._used[i] += 1
        return verdict.action
