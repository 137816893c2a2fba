"""The contract test of ``Robot`` and a fake that keeps the contract without physics.

In: a callable that opens a robot. Out: assertions, or a ``FakeRobot`` on a simulated clock, whose joints go where they
are told at their permitted speed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, SignalSpec
from flyball.base.config import from_plain
from flyball.robots.embodiment import Embodiment, Joint
from flyball.robots.robot import Observation, Robot

FAKE_BODY = Embodiment(
    name="fake-2",
    joints=(Joint("turn", "revolute", -2.0, 2.0, 2.0, 10.0), Joint("slide", "prismatic", 0.0, 0.5, 0.5, 50.0)),
    observations=(
        SignalSpec("joint.position", (2,), unit="rad m", rate_hz=50),
        SignalSpec("goal", (2,), unit="rad m", rate_hz=50),
    ),
    actions=(
        SignalSpec("turn.target", (1,), unit="rad", rate_hz=50, low=(-2.0,), high=(2.0,)),
        SignalSpec("slide.target", (1,), unit="m", rate_hz=50, low=(0.0,), high=(0.5,)),
    ),
    model_digest="",
    safe_action=(float("nan"), float("nan")),
)


class FakeRobot:
    """Two joints and a goal that is drawn for each attempt; the control period is 20 ms of simulated time.

    Attributes:
      sent: every action that reached the motors, in order.
      stops: how often ``stop`` was called.
      clock_ns: the simulated clock; a test may push it on.
    """

    period_ns = 20_000_000

    def __init__(self, embodiment: Embodiment = FAKE_BODY) -> None:
        self.embodiment = embodiment
        self.sent: list[NDArray[np.float64]] = []
        self.stops = 0
        self.clock_ns = 0
        self.prepared: list[tuple[int, int]] = []
        self._position = np.zeros(2)
        self._goal = np.zeros(2)
        self._events: list[tuple[int, str]] = []
        self._reached = False

    def prepare(self, seed: int, turn: int) -> None:
        """Draw a goal; joints go home."""
        self.prepared.append((seed, turn))
        self._position, self._reached = np.zeros(2), False
        low, high = self.embodiment.action_limits()
        self._goal = np.random.default_rng(seed).uniform(low, high)

    def now_ns(self) -> int:
        return self.clock_ns

    def observe(self) -> Observation:
        return {"joint.position": self._position.copy(), "goal": self._goal.copy()}

    def act(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        action = np.asarray(action, dtype=float)
        if action.shape != (self.embodiment.action_size,) or not np.isfinite(action).all():
            raise InputError(f"action {action} is not finite or not of shape ({self.embodiment.action_size},)")
        self.sent.append(action.copy())
        step = np.array([j.velocity for j in self.embodiment.joints]) * self.period_ns * 1e-9
        self._position = self._position + np.clip(action - self._position, -step, step)
        self.clock_ns += self.period_ns
        if not self._reached and np.abs(self._position - self._goal).max() < 1e-3:
            self._reached = True
            self._events.append((self.clock_ns, "reached"))
        return action

    def events(self) -> list[tuple[int, str]]:
        out, self._events = self._events, []
        return out

    def stop(self) -> None:
        self.stops += 1


def open_fake_robot(config: Mapping[str, Any], robot: str, workdir: Path) -> FakeRobot:
    """The driver ``fake``: for trying out a hub and its agents without a simulator. It has no settings."""
    from_plain(_NoSettings, config, where=f"driver fake of {robot}")
    return FakeRobot()


@dataclass(frozen=True)
class _NoSettings:
    pass


def check_robot(open_robot: Callable[[], Robot], *, steps: int = 5) -> None:
    """Assert that a driver keeps the contract of ``Robot``; three lines prove a new one.

    Args:
      open_robot: opens a robot that is ready and at rest.
      steps: control periods to drive.
    """
    robot = open_robot()
    body = robot.embodiment
    low, high = body.action_limits()
    assert len(body.safe_action) == body.action_size == len(low) == len(high)
    assert body.spec_hash() == open_robot().embodiment.spec_hash(), "the specification must not differ between openings"

    observation = robot.observe()
    for spec in body.observations:
        value = np.asarray(observation[spec.name])
        assert value.shape == spec.shape, f"{spec.name}: shape {value.shape}, declared {spec.shape}"

    middle = np.where(np.isfinite(low + high), (low + high) / 2, 0.0)
    for bad in (np.full(body.action_size, np.nan), np.full(body.action_size, np.inf), np.zeros(body.action_size + 1)):
        before = robot.now_ns()
        try:
            robot.act(bad)
        except InputError:
            pass
        else:
            raise AssertionError(f"act accepted {bad}")
        assert robot.now_ns() >= before

    clock = robot.now_ns()
    for _ in range(steps):
        sent = robot.act(middle)
        assert sent.shape == (body.action_size,) and np.isfinite(sent).all()
        assert ((sent >= low - 1e-9) & (sent <= high + 1e-9)).all(), "more was sent than the limits allow"
        now = robot.now_ns()
        assert now > clock, "the clock must move on with each control period"
        clock = now
        robot.observe()
        assert all(isinstance(t, int) and isinstance(name, str) for t, name in robot.events())
    assert robot.events() == [], "events are handed out once"
    robot.stop()
    robot.stop()
