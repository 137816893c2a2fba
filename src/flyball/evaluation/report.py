"""Evaluation reports: what was tried, under which protocol, with which result.

In: one row per trial. Out: a report with estimates and intervals, JSON-able and content-addressed.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flyball.base import digest_of
from flyball.episodes import Outcome
from flyball.evaluation.statistics import Interval, clopper_pearson, cluster_interval

_PACKAGES = ("flyball", "numpy", "scipy", "mujoco", "torch", "onnxruntime")


@dataclass(frozen=True)
class TrialRow:
    """One trial.

    Attributes:
      task, engine: what was tried, and in which engine ("" on hardware).
      robot: which robot, or whose calibrated scene.
      seed: seed of the trial.
      outcome: judged by ``Task.judge``.
      group: for failures, what happened.
      progress: 0 to 1.
      violations: interventions of the supervisor.
    """

    task: str
    engine: str
    robot: str
    seed: int
    outcome: Outcome
    group: str = ""
    progress: float = 0.0
    violations: int = 0


def locked_environment() -> dict[str, str]:
    """Versions that a result depends on, read from package metadata: nothing is imported."""
    out = {"python": platform.python_version(), "machine": platform.machine(), "system": platform.system()}
    for name in _PACKAGES:
        try:
            out[name] = version(name)
        except PackageNotFoundError:
            continue
    return out


@dataclass(frozen=True)
class EvaluationReport:
    """What an evaluation found.

    Attributes:
      protocol: digest of the protocol.
      policy: digest of the policy.
      rows: one per trial.
      comparison: ``PairedComparison.to_json()`` against the deployed policy; empty when there was none.
      environment: versions.
    """

    protocol: str
    policy: str
    rows: tuple[TrialRow, ...]
    comparison: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=locked_environment)

    @property
    def digest(self) -> str:
        """Identity of the report."""
        return digest_of(self)

    def per_robot(self, level: float = 0.95) -> dict[str, Interval]:
        """Success rate of each robot, with exact intervals."""
        return {r: clopper_pearson(s, n, level) for r, (s, n) in _counts(self.rows).items()}

    def success(self, level: float = 0.95) -> Interval:
        """Success rate over all trials, with robots as clusters."""
        counts = list(_counts(self.rows).values())
        return cluster_interval([s for s, _ in counts], [n for _, n in counts], level)

    def failures(self) -> dict[str, int]:
        """Failure group -> number of trials, most frequent first."""
        groups: dict[str, int] = {}
        for row in self.rows:
            if row.outcome != "success":
                groups[row.group or row.outcome] = groups.get(row.group or row.outcome, 0) + 1
        return dict(sorted(groups.items(), key=lambda kv: (-kv[1], kv[0])))

    def to_json(self) -> dict[str, Any]:
        """The report as a JSON-able dict, with its estimates; ``from_json`` reads it back."""
        return {
            "digest": self.digest,
            "protocol": self.protocol,
            "policy": self.policy,
            "success": self.success().to_json(),
            "per_robot": {k: v.to_json() for k, v in self.per_robot().items()},
            "failures": self.failures(),
            "comparison": dict(self.comparison),
            "environment": dict(self.environment),
            "rows": [dict(vars(r)) for r in self.rows],
        }

    @classmethod
    def from_json(cls, d: Mapping[str, Any]) -> EvaluationReport:
        """Inverse of ``to_json``; estimates are computed anew from the rows."""
        rows = tuple(TrialRow(**r) for r in d["rows"])
        return cls(d["protocol"], d["policy"], rows, dict(d["comparison"]), dict(d["environment"]))


def _counts(rows: Sequence[TrialRow]) -> dict[str, tuple[int, int]]:
    """Robot -> (successes, trials), in order of first appearance."""
    out: dict[str, tuple[int, int]] = {}
    for row in rows:
        s, n = out.get(row.robot, (0, 0))
        out[row.robot] = (s + (row.outcome == "success"), n + 1)
    return out
