"""A hub in a thread, with a repository, robots' homes and releases of the fake policy: for tests at the robot.

In: an empty folder. Out: a ``Site``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from flyball.fleet.hub import Hub, HubServer
from flyball.fleet.updater import ReleaseUpdater, enrol
from flyball.releases import Release, release_for
from flyball.releases.signing import Repository
from flyball.robots import Embodiment
from flyball.robots.testing import FAKE_BODY


def fake_release(
    name: str = "turn-000", gain: str = "1.0", body: Embodiment = FAKE_BODY, **more: Any
) -> tuple[Release, dict[str, bytes]]:
    """A release of ``FakePolicy`` and its files.

    Args:
      name: of the release.
      gain: content of the policy file.
      body: for whom.
      more: further fields of ``Release``.
    """
    files = {"policy.txt": gain.encode(), "calibrations.json": b"{}"}
    facts = {"task": "", "control_hz": 50, "format": "fake", "execute": 4, **more}
    return release_for(body, files, "policy.txt", name=name, **facts), files


class Site:
    """A workspace and its hub.

    Args:
      folder: an empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = folder / "workspace"
        self.repository = Repository(self.workspace)
        self.hub = Hub(self.workspace)
        self.open()

    def open(self, port: int = 0) -> None:
        """Listen (again)."""
        self.server = HubServer(self.hub, port)
        self.url = self.server.url
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        """Stop listening."""
        self.server.shutdown()
        self.server.server_close()

    def publish(self, name: str, gain: str = "1.0", *, now: datetime | None = None, **more: Any) -> Release:
        """Publish a release of the fake policy."""
        release, files = fake_release(name, gain, **more)
        self.repository.publish(release, files, now)
        return release

    def home(self, robot: str) -> Path:
        """The home of an enrolled robot."""
        enrol(self.repository.root(), self.folder / robot)
        return self.folder / robot

    def updater(
        self, robot: str = "robot-01", body: Embodiment = FAKE_BODY, clock_ns: Callable[[], int] | None = None
    ) -> ReleaseUpdater:
        """The updater of a robot."""
        clock = {"clock_ns": clock_ns} if clock_ns else {}
        return ReleaseUpdater(self.home(robot), self.url, robot, body, **clock)
