"""Proof: candidate against deployed on equal seeds in the calibrated scenes, until a sequential test answers.

In: a policy that was trained. Out: an evaluation report, in the store, and the gate's decision.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base.steps import json_of
from flyball.evaluation.protocol import Protocol as EvaluationProtocol
from flyball.evaluation.report import EvaluationReport, TrialRow, locked_environment
from flyball.evaluation.verdicts import PairedComparison
from flyball.loop import work
from flyball.loop.fitting import samples
from flyball.loop.stages import Stages, Standing
from flyball.releases.gate import GateRules, decide


def prove(
    stages: Stages, standing: Standing, policy: str, told: Mapping[str, Sequence[float]]
) -> tuple[EvaluationReport, str, dict[str, Any]]:
    """Candidate against deployed on equal seeds in the calibrated scenes, until the sequential test answers.

    Returns:
      The report, its digest in the store, and the gate's decision.
    """
    robots = sorted(standing.fits)
    rule, nominal = stages.budget.rule, stages.task.told(stages.task.scene.nominal(1))[0]
    scenes = tuple(standing.fits[r] for r in robots)
    protocol = EvaluationProtocol(stages.task.name, scenes, stratum=stages.name, rule=rule)
    test = PairedComparison(rule)
    rows: list[TrialRow] = []
    with stages.stage("evaluate", rule.n_max):
        while test.verdict == "continue" and test.n < rule.n_max:
            k = min(stages.budget.pairs, rule.n_max - test.n)
            seeds = protocol.seeds(k, start=test.n)
            rng = np.random.default_rng(seeds[0])
            who = [robots[i] for i in rng.integers(len(robots), size=k)]
            values = drawn(stages, standing, who, rng)
            both = stages.spread(
                [
                    lambda d=d, t=t, v=values, s=seeds: json_of(stages.store, stages.cached(  # type: ignore[misc]
                        "trials", 1, [stages.task.name, d, t, v, s, stages.budget.execute], work.trials,
                        stages.task.name, stages.store.get(d), t, v, s, stages.budget.execute))
                    for d, t in (
                        (policy, np.array([told.get(r, nominal) for r in who])),
                        (standing.policy, np.array([standing.told.get(r, nominal) for r in who])),
                    )
                ]
            )  # fmt: skip
            stages.steps["simulated"] += 2 * k * stages.length
            new, old = ([t["outcome"] == "success" for t in side] for side in both)
            rows += [
                TrialRow(stages.task.name, "mujoco", w, s, **t) for w, s, t in zip(who, seeds, both[0], strict=True)
            ]
            test.update_all(new, old)
            stages.display.at(test.n, rule.n_max)
    with stages.stage("gate"):
        report = EvaluationReport(protocol.digest, policy, tuple(rows), test.to_json(), locked_environment())
        stored = stages.store.put("report", json.dumps(report.to_json(), sort_keys=True).encode(), parents=[policy],
                                producer="flyball.evaluation@1", labels={"turn": stages.number})  # fmt: skip
        decision = decide(report, candidate=policy, task=stages.task.name, deployed=True, rules=GateRules())
    stages.display.note(
        f"turn {stages.number}: gate {'allows' if decision.allowed else 'refuses'}: " + "; ".join(decision.reasons)
    )
    return report, stored.digest, decision.to_json()


def drawn(
    stages: Stages, standing: Standing, who: Sequence[str], rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """One posterior draw per trial, of the robot it stands for."""
    posts = {r: samples(stages, standing, r) for r in set(who)}
    picks = [int(rng.integers(len(next(iter(posts[r].values()))))) for r in who]
    paths = [p.path for p in stages.task.scene.parameters]
    return {p: np.array([posts[r][p][i] for r, i in zip(who, picks, strict=True)]) for p in paths}
