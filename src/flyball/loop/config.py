"""What a run of the loop is told. In: nothing. Out: frozen dataclasses; the command line is derived from them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from flyball.calibration.fleet import ReplayConfig
from flyball.datagen.demonstrations import DemonstrationConfig
from flyball.evaluation.verdicts import ComparisonRule
from flyball.learning.flow import FlowConfig


@dataclass(frozen=True)
class Budget:
    """How much a turn may spend.

    Attributes:
      attempts: attempts of every robot per turn.
      replay: calibration of one robot.
      demonstrations: simulated demonstrations per training.
      windows: how they are cut.
      first, later: training of the first policy and of its successors.
      execute: actions of a chunk that robots execute before they ask again.
      rule: what the comparison of candidate and deployed release must show.
      pairs: paired trials simulated at once.
      canary: attempts per order while a release is tried on the canary.
      reproductions: posterior draws per replayed failure.
      workers: processes that share the simulated work.
    """

    attempts: int = 16
    replay: ReplayConfig = field(default_factory=lambda: ReplayConfig(threads=1))
    demonstrations: int = 320
    windows: DemonstrationConfig = field(default_factory=lambda: DemonstrationConfig(threads=1))
    first: FlowConfig = field(default_factory=lambda: FlowConfig(steps=1500))
    later: FlowConfig = field(default_factory=lambda: FlowConfig(steps=1200))
    execute: int = 4
    rule: ComparisonRule = field(default_factory=lambda: ComparisonRule(n_max=320))
    pairs: int = 64
    canary: int = 8
    reproductions: int = 5
    workers: int = 2


@dataclass(frozen=True)
class DemoConfig:
    """A whole run on a virtual fleet.

    Attributes:
      workspace: its folder.
      seed: decides everything random; the reality too, when none is given.
      robots: size of the fleet when the reality is drawn.
      turns: turns of the loop.
      reality: file of the hidden physics; None: drawn.
      control: a baseline to run instead of the loop; None: the loop.
      task: plug-in name.
      budget: what a turn may spend.
    """

    workspace: Path
    seed: int = 0
    robots: int = 6
    turns: int = 4
    reality: Path | None = None
    control: str | None = None
    task: str = "lift-fragile-v1"
    budget: Budget = field(default_factory=Budget)
