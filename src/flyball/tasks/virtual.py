"""The driver ``virtual``: a robot whose body is a simulation with hidden physics.

In: ``{"reality": path, "task": name}`` and the robot's name. Out: a ``Robot`` on a simulated clock. This is the only
module of the loop that opens a reality file; everybody else sees the robot's observations, actions and events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Refused
from flyball.base.config import from_plain
from flyball.robots import Observation
from flyball.tasks.reality import Reality, attempt_seed, batched, load_reality
from flyball.tasks.task import tasks
from flyball.tasks.world import World


@dataclass(frozen=True)
class VirtualConfig:
    """Settings of the driver.

    Attributes:
      reality: path of the reality file.
      task: name of the task the cell is built for.
    """

    reality: str
    task: str


def open_robot(config: Mapping[str, Any], robot: str, workdir: Path) -> VirtualRobot:
    """Open one robot of a reality.

    Raises:
      InputError: a bad key, reality file or robot name.
    """
    c = from_plain(VirtualConfig, config, where=f"driver virtual of {robot}")
    return VirtualRobot(load_reality(c.reality, tasks.load(c.task)), robot)


class VirtualRobot:
    """One simulated cell behind the ``Robot`` protocol; the simulated clock moves by a control period with each act."""

    def __init__(self, reality: Reality, robot: str) -> None:
        self._reality, self._name = reality, robot
        self._seed = reality.robot(robot).seed
        self._task = reality.task
        self.embodiment = self._task.embodiment
        self._world = World(self._task, 1, unmodelled=reality.robot(robot).unmodelled)
        self._period_ns = round(1e9 / self._task.control_hz)
        self._low, self._high = self.embodiment.action_limits()
        self._clock_ns = 0
        self.prepare(0, 0)

    def prepare(self, seed: int, turn: int) -> None:
        """Put everything back for a fresh attempt, in the world as it is at that turn. Takes one control period."""
        values, _ = self._reality.at(self._name, turn)
        self._clock_ns += self._period_ns
        self._began_ns, self._steps, self._told = self._clock_ns, 0, 0
        self._stopped = False
        self._seen = self._world.reset(batched(values, 1), [attempt_seed(self._seed, seed, turn)])

    def now_ns(self) -> int:
        return self._clock_ns

    def observe(self) -> Observation:
        return {s.name: self._seen[s.name][0].reshape(s.shape).copy() for s in self.embodiment.observations}

    def act(self, action: NDArray[np.float64]) -> NDArray[np.float64]:
        """Send an action (a,), limited to the embodiment's range; returns what was sent.

        Raises:
          InputError: wrong shape or not finite.
          Refused: the robot is stopped, or the attempt is over.
        """
        action = np.asarray(action, float)
        if action.shape != self._low.shape or not np.isfinite(action).all():
            raise InputError(f"action {action} is not finite or of the wrong shape", where=self._name,
                             allowed=f"finite, shape {self._low.shape}")  # fmt: skip
        if self._stopped or self._steps >= self._world.steps:
            why = "is stopped" if self._stopped else f"has done the {self._steps} control periods of an attempt"
            raise Refused(f"the robot {why}", where=self._name, run_next="prepare it for the next attempt")
        sent = np.clip(action, self._low, self._high)
        self._seen = self._world.step(sent[None])
        self._steps += 1
        self._clock_ns += self._period_ns
        return sent

    def events(self) -> list[tuple[int, str]]:
        new = self._world.events[0][self._told :]
        self._told += len(new)
        return [(self._began_ns + round(t * 1e9), name) for t, name in new]

    def stop(self) -> None:
        """Take the drives out: simulated time stands still and nothing is accepted before the next ``prepare``."""
        self._stopped = True
