"""A fleet on this machine: one hub and its agents as child processes.

In: a workspace, robots with their drivers. Out: running processes, restarted when they die, ended with their parent.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from flyball.base import NotPossible
from flyball.base.durable import make_folder, read_json, write_json
from flyball.base.workspace import Workspace
from flyball.fleet.client import HubClient, Unreachable
from flyball.fleet.updater import enrol
from flyball.releases.release import check_name
from flyball.releases.signing import Repository

BACKOFF_S = (0.2, 10.0)  # first and longest pause before a dead process is started again
LASTING_S = 30.0  # a process that lived this long starts with the first pause again


@dataclass(frozen=True)
class RobotSpec:
    """A robot to start an agent for.

    Attributes:
      name: of the robot.
      driver: name of its driver.
      config: the driver's settings.
    """

    name: str
    driver: str
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class _Child:
    argv: list[str]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    pause_s: float = 0.0
    due_s: float = 0.0
    starts: int = 0


class Fleet:
    """Hub and agents. Use as a context manager, and call ``tend`` now and then.

    Args:
      workspace: the workspace's folder.
      robots: whom to start agents for.
      homes: folder of the robots' homes (default ``workspace/robots``).
      poll_s: how often agents look for orders [s].
    """

    def __init__(
        self, workspace: Path, robots: Sequence[RobotSpec], *, homes: Path | None = None, poll_s: float = 0.2
    ) -> None:
        self.workspace, self.robots, self.poll_s = workspace, tuple(robots), poll_s
        self.homes = homes or workspace / "robots"
        self.url = ""
        self._children: dict[str, _Child] = {}

    def start(self, timeout_s: float = 30.0) -> str:
        """Start everything; returns the hub's URL once it answers.

        Raises:
          InputError: not a workspace.
          NotPossible: the hub does not come up; with its last words.
        """
        Workspace(self.workspace)
        root = Repository(self.workspace).root()
        self._start_hub(timeout_s)
        for spec in self.robots:
            home = make_folder(self.homes / check_name("robot", spec.name))
            enrol(root, home)
            write_json(home / "driver.json", dict(spec.config))
            argv = ["-m", "flyball.fleet.agent", "--robot", spec.name, "--hub", self.url, "--home", str(home)]
            argv += ["--driver", spec.driver, "--driver-config", str(home / "driver.json"), "--poll", str(self.poll_s)]
            self._spawn(spec.name, argv, home / "agent.log")
        return self.url

    def _start_hub(self, timeout_s: float) -> None:
        argv = ["-m", "flyball.fleet.hub", "--workspace", str(self.workspace)]
        child = self._spawn("", argv, self.workspace / "fleet" / "hub.log")
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            assert child.process is not None
            if child.process.poll() is not None:
                break
            where = read_json(self.workspace / "hub.json", {}) if (self.workspace / "hub.json").is_file() else {}
            if where.get("pid") == child.process.pid:
                try:
                    HubClient(where["url"], 1.0).order("nobody")
                except Unreachable:
                    continue
                self.url = where["url"]
                child.argv += ["--port", self.url.rsplit(":", 1)[1]]  # a restarted hub is where the agents look for it
                return
            time.sleep(0.02)
        self.stop()
        raise NotPossible("the hub does not start: " + _last_line(child.log), where=str(self.workspace))

    def _spawn(self, key: str, argv: list[str], log: Path) -> _Child:
        child = self._children.setdefault(key, _Child(argv, log))
        make_folder(log.parent)
        one_thread = {k: os.environ.get(k, "1") for k in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        with open(log, "ab") as out:
            child.process = subprocess.Popen(
                [sys.executable, *child.argv, "--parent", str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env={**os.environ, **one_thread},
            )
        child.started_s, child.starts = time.monotonic(), child.starts + 1
        return child

    def pids(self) -> dict[str, int]:
        """Process ids of what runs; the hub's under ""."""
        return {k: c.process.pid for k, c in self._children.items() if c.process and c.process.poll() is None}

    def tend(self) -> list[str]:
        """Start again what died, each time after a longer pause. Returns what was started, the hub as ""."""
        now, out = time.monotonic(), []
        for key, child in self._children.items():
            if child.process is not None and child.process.poll() is not None:
                lasted = now - child.started_s >= LASTING_S
                child.pause_s = BACKOFF_S[0] if lasted else min(max(2 * child.pause_s, BACKOFF_S[0]), BACKOFF_S[1])
                child.due_s, child.process = now + child.pause_s, None
            if child.process is None and now >= child.due_s:
                self._spawn(key, child.argv, child.log)
                out.append(key)
        return out

    def stop(self, grace_s: float = 5.0) -> None:
        """End everything: asked first, killed after ``grace_s``. Nothing acknowledged is lost either way."""
        running = [c.process for c in self._children.values() if c.process is not None and c.process.poll() is None]
        for process in running:
            process.terminate()
        until = time.monotonic() + grace_s
        for process in running:
            try:
                process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._children.clear()

    def __enter__(self) -> Fleet:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1] if lines else "no word from it"
