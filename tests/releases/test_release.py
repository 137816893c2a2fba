"""Releases as data, and the gate."""

import dataclasses
import json

import pytest

from flyball.base import InputError
from flyball.evaluation import EvaluationReport, TrialRow
from flyball.policies.supervisor import Envelope
from flyball.releases import Release, release_for
from flyball.releases.gate import GateRules, decide
from flyball.robots.testing import FAKE_BODY

FILES = {"policy.txt": b"1.0", "calibrations.json": b"{}"}


def release(**changes):
    facts = {"name": "turn-000", "task": "", "control_hz": 50, "format": "fake"}
    return release_for(FAKE_BODY, FILES, "policy.txt", **{**facts, **changes})


def test_a_release_survives_json_with_its_digest():
    a = release(envelope=Envelope(tolerance=0.1), reports=("ab",), runtime={"onnxruntime": "1.20"})
    b = Release.from_json(json.loads(json.dumps(a.to_json())))
    assert a == b and a.digest == b.digest
    assert release(control_hz=50).digest == release(control_hz=50.0).digest
    assert release(control_hz=50).digest != release(control_hz=51).digest


def test_it_fits_only_the_body_it_was_made_for():
    assert release().mismatch(FAKE_BODY) == ""
    slower = dataclasses.replace(FAKE_BODY.joints[0], velocity=1.0)
    swapped = FAKE_BODY.observations[::-1]
    narrower = (dataclasses.replace(FAKE_BODY.actions[0], high=(1.0,)), FAKE_BODY.actions[1])
    for change, word in (
        ({"name": "fake-3"}, "embodiment fake-2"),
        ({"observations": swapped}, "other observations"),
        ({"actions": narrower}, "other actions"),
        ({"joints": (slower, FAKE_BODY.joints[1])}, "other embodiment"),
    ):
        assert word in release().mismatch(dataclasses.replace(FAKE_BODY, **change))


@pytest.mark.parametrize(
    "change", [{"name": "../x"}, {"name": ""}, {"control_hz": 0}, {"control_hz": float("nan")}, {"execute": 0}]
)
def test_a_senseless_release_is_refused(change):
    with pytest.raises(InputError):
        release(**change)
    with pytest.raises(InputError, match=r"policy\.onnx"):
        release_for(FAKE_BODY, FILES, "policy.onnx", name="x", task="", control_hz=50)


POLICY = "c" * 64


def report(successes, n, robots=2, *, verdict="not_worse", violations=0, policy=POLICY, task="t-v1"):
    rows = [
        TrialRow(
            task, "mujoco", f"robot-{i % robots}", i, "success" if i < successes else "failure", "", 0.0, violations
        )
        for i in range(n)
    ]
    comparison = {"verdict": verdict, "pairs": n, "rule": {"alpha": 0.05, "margin": 0.1}} if verdict else {}
    return EvaluationReport("p", policy, tuple(rows), comparison, {})


def judge(r, deployed=True, **rules):
    return decide(r, candidate=POLICY, task="t-v1", deployed=deployed, rules=GateRules(**rules))


@pytest.mark.parametrize("verdict", ["better", "not_worse"])
def test_the_gate_allows_what_was_shown(verdict):
    decision = judge(report(38, 40, verdict=verdict))
    assert decision.allowed and verdict in " ".join(decision.reasons) and "0.05" in " ".join(decision.reasons)


@pytest.mark.parametrize("verdict", ["worse", "undecided", "continue", ""])
def test_the_gate_refuses_what_was_not_shown(verdict):
    decision = judge(report(40, 40, verdict=verdict))
    assert not decision.allowed and decision.reasons == (
        f"compared with what is deployed: {verdict or 'not compared'}",
    )


def test_a_first_release_needs_no_comparison_but_its_own_level():
    assert judge(report(30, 40, verdict=""), deployed=False).allowed
    assert not judge(report(30, 40, verdict=""), deployed=False, first_success=0.8).allowed


@pytest.mark.parametrize(
    ("r", "rules", "word"),
    [
        (report(5, 5), {}, "5 trials"),
        (report(0, 0), {"min_trials": 0}, "0 trials"),
        (report(20, 40), {"min_success": 0.6}, "50.0%"),
        (report(20, 40, policy="d" * 64), {}, "about policy"),
        (report(20, 40, task="other-v1"), {}, "other-v1"),
        (report(40, 40, violations=2), {}, "2.00 interventions"),
        (report(30, 40, robots=40), {"worst_robot": 0.5}, "robot-39"),
    ],
)
def test_every_rule_can_refuse_and_says_so(r, rules, word):
    decision = judge(r, **rules)
    assert not decision.allowed and word in " ".join(decision.reasons)


def test_all_reasons_are_given_at_once():
    decision = judge(report(10, 40, verdict="worse", violations=3), min_success=0.5)
    assert len(decision.reasons) == 3
