"""The contract test of ``Policy`` and a fake with faults on order.

In: a policy and observations it accepts. Out: assertions, or a ``FakePolicy`` that goes to a goal and misbehaves at the
moments it is told to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.policies.policy import ActionChunk, Policy
from flyball.robots import Observation

Fault = Callable[[NDArray[np.float64]], NDArray[np.float64]]
"""Good actions (h, a) -> what the policy returns instead. It may also raise, or push on a simulated clock."""


class FakePolicy:
    """Commands the observation ``goal``, in chunks.

    Args:
      horizon: actions per chunk.
      dt_s: control period [s].
      faults: number of the call (from 0, counted from ``reset``) -> fault.
      gain: the command is ``gain * goal``.
    """

    def __init__(
        self, horizon: int = 4, dt_s: float = 0.02, faults: Mapping[int, Fault] | None = None, gain: float = 1.0
    ) -> None:
        self.horizon, self.dt_s, self.faults, self.gain = horizon, dt_s, dict(faults or {}), gain
        self.calls = 0

    def reset(self, instruction: str, seed: int) -> None:
        self.calls = 0

    def act(self, observation: Observation) -> ActionChunk:
        goal = self.gain * np.asarray(observation["goal"], dtype=float)
        actions = np.repeat(goal[..., None, :], self.horizon, axis=-2)
        fault = self.faults.get(self.calls)
        self.calls += 1
        return ActionChunk(fault(actions) if fault else actions, self.dt_s)

    @classmethod
    def load(cls, path: Path, task: Any, told: Mapping[str, float]) -> FakePolicy:
        """The policy format ``fake``: a file whose text is the gain."""
        return cls(gain=float(path.read_text()))


def check_policy(
    policy: Policy, observation: Observation, action_size: int, *, batched: Observation | None = None
) -> None:
    """Assert that a policy keeps the contract of ``Policy``; three lines prove a new one.

    Args:
      policy: the policy.
      observation: of one robot.
      action_size: length of an action.
      batched: the same kind of observation with a leading axis n, for policies that accept one.
    """
    before = {k: np.array(v) for k, v in observation.items()}

    def chunks(seed: int) -> list[NDArray[np.float64]]:
        policy.reset("", seed)
        out = []
        for _ in range(3):
            chunk = policy.act(observation)
            assert chunk.actions.ndim == 2 and chunk.actions.shape[0] >= 1, f"shape {chunk.actions.shape}"
            assert chunk.actions.shape[1] == action_size, f"{chunk.actions.shape[1]} elements, expected {action_size}"
            assert np.isfinite(chunk.actions).all(), "actions must be finite"
            assert chunk.dt_s > 0
            assert np.isnan(chunk.confidence) or 0 <= chunk.confidence <= 1
            out.append(np.array(chunk.actions))
        return out

    first, again = chunks(3), chunks(3)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b, err_msg="reset and the seed must decide everything random")
    for name, value in before.items():
        np.testing.assert_array_equal(observation[name], value, err_msg=f"the policy changed the observation {name}")
    if batched is not None:
        policy.reset("", 3)
        n = len(next(iter(batched.values())))
        chunk = policy.act(batched)
        assert chunk.actions.ndim == 3 and chunk.actions.shape[0] == n and chunk.actions.shape[2] == action_size


load_fake_policy = FakePolicy.load
