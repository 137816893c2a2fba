"""Proof: policies against each other on equal seeds in the calibrated scenes, until a sequential test answers.

In: a policy that was trained. Out: whether it is worth having; an evaluation report, in the store, and the gate's
decision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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

Told = Mapping[str, Sequence[float]]
"""Robot -> what its policy is told."""


def preferred(stages: Stages, standing: Standing, trained: str, told: Told) -> bool:
    """Is a policy that was just trained better than the deployed one, told the same? When in doubt, it is not.

    A policy that was trained anew is a little different everywhere, also on robots that were well; where the deployed
    one does as well once it is told the new calibrations, it stays. This is a choice between two candidates, without a
    stated error rate: the gate has that. More pairs won than lost by a standard error are enough.
    """
    rule = replace(stages.budget.rule, goal="better")
    test = PairedComparison(rule)
    protocol, sides = _protocol(stages, standing), ((trained, told), (standing.policy, told))
    with stages.stage("evaluate", rule.n_max):
        for _, _, (new, old) in _paired(stages, standing, protocol, sides):
            test.update_all(_successes(new), _successes(old))
            stages.display.at(test.n, rule.n_max)
            if test.verdict != "continue":
                break
    better = test.wins - test.losses > math.sqrt(test.wins + test.losses)
    stages.display.note(
        f"turn {stages.number}: trained anew, the policy wins {test.wins} and loses {test.losses} of {test.n} pairs "
        f"against the deployed one, both told the new calibrations: {'taken' if better else 'the deployed one stays'}"
    )
    return better


def prove(stages: Stages, standing: Standing, policy: str, told: Told) -> tuple[EvaluationReport, str, dict[str, Any]]:
    """Candidate against deployed on equal seeds in the calibrated scenes, until the sequential test answers.

    Returns:
      The report, its digest in the store, and the gate's decision.
    """
    rule = stages.budget.rule
    protocol, sides = _protocol(stages, standing), ((policy, told), (standing.policy, standing.told))
    test = PairedComparison(rule)
    rows: list[TrialRow] = []
    with stages.stage("evaluate", rule.n_max):
        for who, seeds, (new, old) in _paired(stages, standing, protocol, sides):
            rows += [TrialRow(stages.task.name, "mujoco", w, s, **t) for w, s, t in zip(who, seeds, new, strict=True)]
            test.update_all(_successes(new), _successes(old))
            stages.display.at(test.n, rule.n_max)
            if test.verdict != "continue":
                break
    with stages.stage("gate"):
        report = EvaluationReport(protocol.digest, policy, tuple(rows), test.to_json(), locked_environment())
        stored = stages.store.put("report", json.dumps(report.to_json(), sort_keys=True).encode(), parents=[policy],
                                producer="flyball.evaluation@1", labels={"turn": stages.number})  # fmt: skip
        decision = decide(report, candidate=policy, task=stages.task.name, deployed=True, rules=GateRules())
    stages.display.note(
        f"turn {stages.number}: gate {'allows' if decision.allowed else 'refuses'}: " + "; ".join(decision.reasons)
    )
    return report, stored.digest, decision.to_json()


def _protocol(stages: Stages, standing: Standing) -> EvaluationProtocol:
    """Of this look: the calibrated scenes of all robots that are known."""
    scenes = tuple(standing.fits[r] for r in sorted(standing.fits))
    return EvaluationProtocol(stages.task.name, scenes, stratum=stages.name, rule=stages.budget.rule)


def _paired(
    stages: Stages, standing: Standing, protocol: EvaluationProtocol, sides: Sequence[tuple[str, Told]]
) -> Iterator[tuple[list[str], list[int], list[list[dict[str, Any]]]]]:
    """Batches of trials on equal seeds, up to the rule's most pairs; the same protocol gives the same trials.

    Args:
      sides: per side the digest of a policy and what it is told; who is not named is told nominal values.

    Yields:
      Robots that the trials stand for, their seeds, and per side the trials (``work.trials``).
    """
    robots, most = sorted(standing.fits), protocol.rule.n_max
    nominal = stages.task.told(stages.task.scene.nominal(1))[0]
    for start in range(0, most, stages.budget.pairs):
        seeds = protocol.seeds(min(stages.budget.pairs, most - start), start=start)
        rng = np.random.default_rng(seeds[0])
        who = [robots[i] for i in rng.integers(len(robots), size=len(seeds))]
        values = drawn(stages, standing, who, rng)
        stages.steps["simulated"] += len(sides) * len(seeds) * stages.length
        given = [np.array([told.get(r, nominal) for r in who]) for _, told in sides]
        jobs = [
            lambda p=policy, t=t, v=values, s=seeds: json_of(stages.store, stages.cached(
                "trials", 1, [stages.task.name, p, t, v, s, stages.budget.execute], work.trials,
                stages.task.name, stages.store.get(p), t, v, s, stages.budget.execute))
            for (policy, _), t in zip(sides, given, strict=True)
        ]  # fmt: skip
        yield who, list(seeds), stages.spread(jobs)


def _successes(trials: Sequence[Mapping[str, Any]]) -> list[bool]:
    return [t["outcome"] == "success" for t in trials]


def drawn(
    stages: Stages, standing: Standing, who: Sequence[str], rng: np.random.Generator
) -> dict[str, NDArray[np.float64]]:
    """One posterior draw per trial, of the robot it stands for."""
    posts = {r: samples(stages, standing, r) for r in set(who)}
    picks = [int(rng.integers(len(next(iter(posts[r].values()))))) for r in who]
    paths = [p.path for p in stages.task.scene.parameters]
    return {p: np.array([posts[r][p][i] for r, i in zip(who, picks, strict=True)]) for p in paths}
