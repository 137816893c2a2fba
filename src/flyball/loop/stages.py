"""What the stages of a turn have in common: workspace, workers, clocks, counters, and what is known between turns.

In: the settings of a run and the hands on its fleet. Out: a place where pieces of work are cached, spread over
processes, timed and shown.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

from flyball.base import Artifact, digest_of
from flyball.base.steps import step
from flyball.base.store import Store
from flyball.loop.config import DemoConfig
from flyball.loop.executors import Executor
from flyball.loop.operate import Operator


class Display(Protocol):
    """Where progress goes; see ``flyball.apps.cli.progress``."""

    def stage(self, name: str, total: int = 0) -> None:
        """A stage begins."""

    def at(self, done: int, total: int) -> None:
        """So much of it is done."""

    def note(self, text: str) -> None:
        """Something worth telling."""


@dataclass(frozen=True)
class Standing:
    """What the loop knows between turns. Plain data: it is stored with every turn.

    Attributes:
      release: name of the deployed release.
      policy: digest of its policy file.
      state: digest of the training state behind it ("" when it was not trained here).
      told: robot -> what its release tells the policy, in the order of the task's conditioning.
      fits: robot -> digest of its calibration.
      since: robot -> first turn whose logs describe the robot as it is now.
      success: robot -> success rate of the last turn.
      from_ns: robot -> start of the first attempt that describes the robot as it is now [ns], where more is known of
        that than the turn.
    """

    release: str
    policy: str
    state: str = ""
    told: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    fits: Mapping[str, str] = field(default_factory=dict)
    since: Mapping[str, int] = field(default_factory=dict)
    success: Mapping[str, float] = field(default_factory=dict)
    from_ns: Mapping[str, int] = field(default_factory=dict)


def standing_from(data: Mapping[str, Any]) -> Standing:
    """Inverse of ``asdict``, from JSON."""
    return Standing(**{**data, "told": {r: tuple(v) for r, v in data["told"].items()}})


class Stages:
    """What turns have in common: workspace, workers, clocks, counters.

    Args:
      config: of the run.
      operator: the hands on the fleet.
      executor: where work runs.
      display: where progress goes.

    Attributes:
      seconds: stage -> time spent in it [s].
      steps: simulated control periods and gradient steps so far.
      length: control periods of an attempt.
      number: of the turn.
      again: whether this is the turn's second look at robots that still fail.
    """

    def __init__(self, config: DemoConfig, operator: Operator, executor: Executor, display: Display) -> None:
        self.config, self.operator, self.executor, self.display = config, operator, executor, display
        self.budget, self.task = config.budget, operator.task
        self.store: Store = operator.workspace.store
        self.seconds: dict[str, float] = {}
        self.steps = {"simulated": 0, "gradient": 0}
        self.length = round(self.task.horizon_s * self.task.control_hz)
        self.number, self.again = 0, False

    @property
    def name(self) -> str:
        """Of the turn's present look: its orders, its release, its stratum of seeds."""
        return self.looks[-1]

    @property
    def looks(self) -> tuple[str, ...]:
        """Names of the turn's looks so far."""
        first = f"turn-{self.number:03d}"
        return (first, f"{first}-again") if self.again else (first,)

    def seed(self, *what: Any) -> int:
        """A seed for one purpose, from the run's seed."""
        return int(digest_of([self.config.seed, self.config.task, *what])[:12], 16)

    @contextmanager
    def stage(self, name: str, total: int = 0) -> Iterator[None]:
        """Time a stage and show it."""
        self.display.stage(name, total)
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - start

    def cached(
        self, name: str, version: int, inputs: Any, fn: Callable[..., Any], *args: Any, kind: str = ""
    ) -> Artifact:
        """One piece of work through the step cache, on a worker."""
        return step(
            self.store,
            f"flyball.loop.{name}",
            version,
            inputs,
            lambda: self.executor.submit(fn, *args).result(),
            kind=kind,
        )

    def spread(self, jobs: Sequence[Callable[[], Any]]) -> list[Any]:
        """Run jobs side by side (each waits for a worker); shows how many are done."""
        with ThreadPoolExecutor(self.budget.workers) as threads:
            futures = [threads.submit(job) for job in jobs]
            out = []
            for k, future in enumerate(futures):
                out.append(future.result())
                self.display.at(k + 1, len(jobs))
            return out

    def calibrations_file(self, told: Mapping[str, Sequence[float]]) -> bytes:
        """``calibrations.json`` of a release."""
        table = {r: dict(zip(self.task.conditioning, map(float, v), strict=True)) for r, v in told.items()}
        return json.dumps(table, sort_keys=True).encode()
