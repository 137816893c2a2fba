"""Drivers by name.

In: a driver's name and its configuration. Out: a ``Robot`` that can be driven. A driver is a callable
``(config, robot, workdir) -> Robot``; packages add theirs through the entry-point group ``flyball.drivers``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flyball.base import PluginTable
from flyball.robots.robot import Robot

drivers = PluginTable(
    "driver",
    "flyball.drivers",
    {
        "virtual": "flyball.tasks.virtual:open_robot",
        "fake": "flyball.robots.testing:open_fake_robot",
    },
)


class Driver(Protocol):
    """Opens a robot."""

    def __call__(self, config: Mapping[str, Any], robot: str, workdir: Path) -> Robot:
        """Connect.

        Args:
          config: the driver's own settings.
          robot: name of the robot.
          workdir: folder for files that the driver keeps.

        Raises:
          InputError: naming the bad key of ``config``.
        """


@runtime_checkable
class Preparable(Protocol):
    """What a driver may offer besides ``Robot``: set-up of an attempt."""

    def prepare(self, seed: int, turn: int) -> None:
        """Get ready for an attempt (a virtual cell places a fresh box). Equal arguments prepare equal attempts."""
