"""Rollout: a candidate is signed, tried on a canary, then goes to everybody or nobody.

In: a policy that the gate allows, and what it is told of each robot. Out: the standing with what is deployed now.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from flyball.evaluation.report import EvaluationReport, locked_environment
from flyball.evaluation.verdicts import CanaryVerdict
from flyball.loop.stages import Stages, Standing

CANARY_DROP = 0.3
"""A release whose success on the canary is this much below what the evaluation expects goes back."""


def release(
    stages: Stages,
    standing: Standing,
    policy: str,
    state: str,
    told: Mapping[str, Sequence[float]],
    report: EvaluationReport,
    proof: str,
    row: dict[str, Any],
) -> Standing:
    """Sign the candidate, try it on a canary, then everybody or nobody.

    A canary that fails may itself be misunderstood: the candidate is then signed once more without that robot's new
    calibration and tried on another. Two tries, each with its stated error rate, and no more.

    Args:
      policy, state: digests of the candidate and of its training state.
      told: robot -> what the policy is told.
      report, proof: of the evaluation, and its digest.
      row: of the turn; verdict and rollout are written into it.
    """
    rested: list[str] = []
    row.setdefault("rollout", [])
    for suffix in ("", "-b"):
        name = stages.name + suffix
        with stages.stage("release"):
            kept = {r: standing.told[r] for r in rested if r in standing.told}
            given = {r: tuple(v) for r, v in told.items() if r not in rested} | kept
            files = {"policy.onnx": stages.store.get(policy), "calibrations.json": stages.calibrations_file(given)}
            stages.operator.publish(
                name, files, (proof,), execute=stages.budget.execute, rollback_to=standing.release,
                runtime=locked_environment(),
            )  # fmt: skip
        with stages.stage("rollout"):
            robot, good = canary(stages, report, rested)
            test = CanaryVerdict(good, good - CANARY_DROP)
            rollout = stages.operator.roll_out(name, standing.release, robot, test, stages.number, stages.budget.canary)
        row["rollout"] += [asdict(r) | {"turn": stages.number} for r in rollout.rows if r.kind != "outcome"]
        counted = rollout.counted
        stages.display.note(
            f"turn {stages.number}: {name} {rollout.phase} after {sum(r.success for r in counted)} of {len(counted)} "
            f"canary attempts on {robot}"
        )
        if rollout.phase == "done":
            row["released"], row["verdict"] = True, "promoted"
            return replace(standing, release=name, policy=policy, state=state, told=given)
        row["verdict"] = "rolled back"
        rested.append(robot)
    return standing


def canary(stages: Stages, report: EvaluationReport, rested: Sequence[str]) -> tuple[str, float]:
    """The robot on which the evaluation expects most, and the success rate it must show there.

    Where simulation is surest, a failure says most about the release. Those in ``rested`` have failed.
    """
    proven = {r: i.mean for r, i in report.per_robot().items()}
    robot = max(stages.operator.robots, key=lambda r: (r not in rested, proven.get(r, 0.0), r))
    return robot, float(np.clip(proven.get(robot, 0.0) - 0.05, 0.5, 0.9))
