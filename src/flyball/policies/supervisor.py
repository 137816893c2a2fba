"""The supervisor between every policy and every motor.

In: the chunks and actions of an untrusted policy, observations, the robot's clock. Out: actions that are finite, in
time, within the embodiment's limits and joint speeds, or a hold, or a stop; every intervention as an event. It works
above the robot's own certified controller, never in its place.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.policies.policy import ActionChunk
from flyball.robots import Embodiment, Observation


@dataclass(frozen=True)
class Envelope:
    """How far a policy is trusted. A release carries one.

    Attributes:
      tolerance: how far beyond a limit an action is still clamped rather than refused, as a fraction of the range
        between the limits. (A command that runs ahead of its joint's speed is always clamped: harmless, and counted.)
      deadline_s: how late an action may be, counted from the moment it was meant for [s].
      hold_s: how long the last good action is held before the robot is stopped [s].
    """

    tolerance: float = 0.05
    deadline_s: float = 0.1
    hold_s: float = 0.2


@dataclass(frozen=True)
class Verdict:
    """What to do in one control period.

    Attributes:
      kind: ``send`` the action, or ``stop`` the robot.
      action: finite and within limits, shape (a,); meaningless for ``stop``.
      held: the policy's action was refused; ``action`` is the last good one.
      clamped: the policy's action was moved onto a limit.
      reason: why, for people; "" when nothing was done.
    """

    kind: Literal["send", "stop"]
    action: NDArray[np.float64]
    held: bool = False
    clamped: bool = False
    reason: str = ""


def joint_of_action(embodiment: Embodiment) -> NDArray[np.int64]:
    """Which joint each action element commands the position of, (a,); -1 for none.

    Actions and joints are matched in order, as far as the units agree (rad with revolute, m with prismatic).
    """
    units: list[str] = []
    for s in embodiment.actions:
        per_element = s.unit.split() or [""]
        units += per_element if len(per_element) == s.size else per_element[:1] * s.size
    kinds = {"rad": "revolute", "m": "prismatic"}
    out = np.full(len(units), -1)
    for i, (unit, joint) in enumerate(zip(units, embodiment.joints, strict=False)):
        if kinds.get(unit) != joint.kind:
            break
        out[i] = i
    return out


class Supervisor:
    """Checks every action of one robot. Small excursions are clamped, anything else is held, then stopped.

    Args:
      embodiment: limits, joint speeds, the safe action.
      period_s: the control period [s].
      envelope: how far the policy is trusted.
      report: called with (event name, text) at every intervention.
    """

    def __init__(
        self,
        embodiment: Embodiment,
        period_s: float,
        envelope: Envelope | None = None,
        report: Callable[[str, str], None] | None = None,
    ) -> None:
        if not period_s > 0:
            raise InputError(f"control period must be positive, got {period_s}", where=embodiment.name)
        self.embodiment, self.period_s = embodiment, period_s
        self.envelope = envelope or Envelope()
        self.report = report or (lambda name, text: None)
        self.low, self.high = embodiment.action_limits()
        self._joint = joint_of_action(embodiment)
        speed = np.array([j.velocity for j in embodiment.joints] + [np.inf])  # [-1]: elements without a joint
        self.step = speed[self._joint] * period_s
        span = np.where(np.isfinite(self.high - self.low), self.high - self.low, 1.0)
        self._slack = self.envelope.tolerance * span
        self.reset({})

    def reset(self, observation: Observation) -> None:
        """Begin an attempt: until the policy has given a good action, the good action is to stay."""
        self.clamps = self.holds = 0
        self.stopped = ""
        self._held_s = 0.0
        stay = np.array(self.embodiment.safe_action, dtype=float)
        position = observation.get("joint.position")
        if position is not None:
            position = np.asarray(position, dtype=float).ravel()
            known = (self._joint >= 0) & (self._joint < len(position)) & np.isnan(stay)
            stay[known] = position[self._joint[known]]
        self._last = np.clip(stay, self.low, self.high)  # a NaN stays NaN: no reference for that element

    def check_chunk(self, chunk: ActionChunk) -> str:
        """Why a chunk cannot be used at all, "" when it can."""
        a = self.embodiment.action_size
        actions = chunk.actions
        if not isinstance(actions, np.ndarray) or actions.ndim != 2 or actions.shape[1] != a or len(actions) == 0:
            return f"chunk of shape {np.shape(actions)}, expected (h, {a}) with h >= 1"
        if not np.issubdtype(actions.dtype, np.floating):
            return f"chunk of {actions.dtype}, expected floating point"
        if not abs(chunk.dt_s - self.period_s) <= 0.01 * self.period_s:
            return f"chunk for a control period of {chunk.dt_s} s, this robot's is {self.period_s} s"
        if not np.isfinite(actions).all():
            row, col = np.argwhere(~np.isfinite(actions))[0]
            return f"action {row} of the chunk is not finite in element {col}"
        return ""

    def judge(self, action: NDArray[np.float64] | None, *, late_s: float = 0.0, why: str = "") -> Verdict:
        """Judge the action meant for this control period.

        Args:
          action: what the policy wants, (a,); None when it has nothing usable.
          late_s: how long after the moment it was meant for it would be sent [s].
          why: why there is no action.
        """
        if self.stopped:
            return Verdict("stop", self._last, reason=self.stopped)
        if action is None:
            return self._hold(why or "the policy has no action")
        if not late_s <= self.envelope.deadline_s:
            return self._hold(f"action is {late_s:.3f} s late, allowed {self.envelope.deadline_s:g} s")
        if not np.isfinite(action).all():
            return self._hold(f"action is not finite in element {np.argmin(np.isfinite(action))}")
        excess = np.maximum(self.low - action, action - self.high)
        if (excess > self._slack).any():
            i = int(np.argmax(excess - self._slack))
            return self._hold(f"element {i} is {action[i]:.4g}, limits {self.low[i]:.4g} to {self.high[i]:.4g}")
        good = np.clip(action, self.low, self.high)
        # A position command may run ahead of its joint by at most what the joint can do in a period.
        with np.errstate(invalid="ignore"):
            lower, upper = self._last - self.step, self._last + self.step
        good = np.clip(good, np.where(np.isnan(lower), -np.inf, lower), np.where(np.isnan(upper), np.inf, upper))
        moved = np.abs(good - action) > 1e-12
        self._held_s = 0.0
        self._last = good
        if not moved.any():
            return Verdict("send", good.copy())
        self.clamps += 1
        return Verdict("send", good.copy(), clamped=True, reason=f"element {int(np.argmax(moved))} clamped")

    def _hold(self, reason: str) -> Verdict:
        self._held_s += self.period_s
        if self._held_s > self.envelope.hold_s + 1e-9 or not np.isfinite(self._last).all():
            return self.stop(reason)
        self.holds += 1
        self.report("supervisor.hold", reason)
        return Verdict("send", self._last.copy(), held=True, reason=reason)

    def stop(self, reason: str) -> Verdict:
        """Stop for good (until ``reset``); the runner calls the robot's ``stop``."""
        if not self.stopped:
            self.stopped = reason
            self.report("supervisor.stop", reason)
        return Verdict("stop", self._last, reason=self.stopped)
