"""The gate: may this candidate be released?

In: an evaluation report. Out: yes or no, with every reason. A pure function: the same report gets the same answer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from flyball.base import Refused
from flyball.evaluation.report import EvaluationReport


@dataclass(frozen=True)
class GateRules:
    """What a report must show.

    Attributes:
      min_trials: fewest trials; fewer prove nothing.
      min_success: success rate over all trials that must be reached.
      first_success: the same for a first release, which has nothing deployed to be compared with.
      worst_robot: success rate that must be reached on every robot (or its calibrated scene).
      max_violations: most interventions of the supervisor per trial.
    """

    min_trials: int = 20
    min_success: float = 0.0
    first_success: float = 0.0
    worst_robot: float = 0.0
    max_violations: float = 1.0


@dataclass(frozen=True)
class GateDecision:
    """The answer.

    Attributes:
      allowed: whether it may be released.
      reasons: what speaks against it; when allowed, what spoke for it.
    """

    allowed: bool
    reasons: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        return asdict(self)


def decide(
    report: EvaluationReport, *, candidate: str, task: str, deployed: bool, rules: GateRules | None = None
) -> GateDecision:
    """Judge a candidate by its report.

    Args:
      report: trials of the candidate; its ``comparison`` is against what is deployed.
      candidate: digest of the policy that would be released.
      task: the task it is for.
      deployed: whether there is something deployed to be compared with.
      rules: what the report must show.
    """
    rules = rules or GateRules()
    against: list[str] = []
    if report.policy != candidate:
        against.append(f"the report is about policy {report.policy[:12]}, not {candidate[:12]}")
    other = sorted({r.task for r in report.rows} - {task})
    if other:
        against.append(f"the report has trials of {', '.join(other)}, not only of {task}")
    n = len(report.rows)
    if n < max(rules.min_trials, 1):
        against.append(f"{n} trials, at least {max(rules.min_trials, 1)} are needed")
        return GateDecision(False, tuple(against))
    rate = sum(r.outcome == "success" for r in report.rows) / n
    needed = max(rules.min_success, 0.0 if deployed else rules.first_success)
    if rate < needed:
        against.append(f"success {rate:.1%} of {n} trials, {needed:.1%} is needed")
    for robot, interval in report.per_robot().items():
        if interval.mean < rules.worst_robot:
            against.append(f"success {interval.mean:.1%} on {robot}, {rules.worst_robot:.1%} is needed on every robot")
    violations = sum(r.violations for r in report.rows) / n
    if violations > rules.max_violations:
        against.append(f"{violations:.2f} interventions per trial, at most {rules.max_violations:g} are allowed")
    verdict = report.comparison.get("verdict", "")
    if deployed and verdict not in ("better", "not_worse"):
        against.append(f"compared with what is deployed: {verdict or 'not compared'}")
    if against:
        return GateDecision(False, tuple(against))
    reasons = [f"success {rate:.1%} of {n} trials"]
    if deployed:
        rule = report.comparison.get("rule", {})
        text = f"compared with what is deployed: {verdict} after {report.comparison.get('pairs', '?')} pairs"
        reasons.append(text + (f" (error rate <= {rule['alpha']:g}, margin {rule['margin']:g})" if rule else ""))
    else:
        reasons.append("nothing is deployed yet")
    return GateDecision(True, tuple(reasons))


def require(decision: GateDecision, name: str) -> None:
    """Raise unless allowed.

    Raises:
      Refused: with every reason.
    """
    if not decision.allowed:
        raise Refused("the gate says no: " + "; ".join(decision.reasons), where=name)
