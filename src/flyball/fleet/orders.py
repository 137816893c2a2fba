"""Orders: what each robot is to do. Desired state, not commands: a robot that was away for a month reads the newest.

In: an order per robot, written by the loop. Out: ``orders/<robot>.json`` for the hub to hand out, and what the robots
answered, ``status/<robot>.json``, both under ``workspace/fleet`` and durable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flyball.base import InputError
from flyball.base.config import from_plain
from flyball.base.durable import read_json, write_json
from flyball.releases.release import check_name


@dataclass(frozen=True)
class Order:
    """What a robot is to do.

    Attributes:
      id: unique; attempt i of an order is the same attempt for ever.
      release: name of the release to run; "" for none: the robot waits.
      task: what is attempted.
      instruction: in words.
      attempts: how many.
      steps: control periods of an attempt.
      seed0: attempt i has seed ``seed0 + i``.
      turn: turn of the loop.
      started_ns: time stamp of the first attempt's log on a simulated clock [ns].
      labels: further facts for the logs' metadata.
    """

    id: str
    release: str
    task: str = ""
    instruction: str = ""
    attempts: int = 0
    steps: int = 0
    seed0: int = 0
    turn: int = 0
    started_ns: int = 0
    labels: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name("order", self.id)
        if self.release:
            check_name("release", self.release)
        if self.attempts < 0 or self.steps < 0 or (self.attempts and not self.steps):
            raise InputError(f"{self.attempts} attempts of {self.steps} steps", where=f"order {self.id}")

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; ``from_json`` is its inverse."""
        return {**asdict(self), "labels": dict(self.labels)}

    @classmethod
    def from_json(cls, d: Any, *, where: str = "order") -> Order:
        """Inverse of ``to_json``."""
        return from_plain(cls, d, where=where)


def order_file(workspace: Path, robot: str) -> Path:
    """Where a robot's order lies."""
    return workspace / "fleet" / "orders" / f"{check_name('robot', robot)}.json"


def status_file(workspace: Path, robot: str) -> Path:
    """Where a robot's last status lies."""
    return workspace / "fleet" / "status" / f"{check_name('robot', robot)}.json"


def write_order(workspace: Path, robot: str, order: Order) -> None:
    """Tell a robot what to do; durable when it returns. Replaces the robot's former order."""
    write_json(order_file(workspace, robot), order.to_json())


def read_order(workspace: Path, robot: str) -> Order | None:
    """The robot's order, None when it never had one."""
    path = order_file(workspace, robot)
    data = read_json(path)
    return None if data is None else Order.from_json(data, where=str(path))


def read_status(workspace: Path) -> dict[str, dict[str, Any]]:
    """The last status of every robot that ever reported.

    Keys of a status: ``robot, order, done, acknowledged, of, state`` (waiting | running | idle), ``release`` (what it
    runs, "" while waiting), ``installed, installed_digest, refused`` {release: reason}, ``embodiment, spec_hash,
    version, received_ns``.
    """
    folder = workspace / "fleet" / "status"
    return {p.stem: read_json(p) for p in sorted(folder.glob("[!.]*.json"))}


def read_incidents(workspace: Path) -> list[dict[str, Any]]:
    """Every incident the robots sent, oldest first."""
    folder = workspace / "fleet" / "incidents"
    found = [read_json(p) for p in folder.glob("*/[!.]*.json")]
    return sorted(found, key=lambda d: (d.get("received_ns", 0), d.get("id", "")))
