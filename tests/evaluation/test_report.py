"""Reports and protocols: identity, round trip, seeds."""

from __future__ import annotations

import dataclasses
import json

from flyball.evaluation import ComparisonRule, EvaluationReport, Protocol, TrialRow

ROWS = tuple(
    TrialRow(
        "lift-fragile-v1", "mujoco", f"robot-{i % 3}", i, "success" if i % 4 else "failure", "" if i % 4 else "slipped"
    )
    for i in range(24)
)


def test_report_survives_json_and_keeps_its_digest() -> None:
    report = EvaluationReport("p" * 64, "q" * 64, ROWS, {"verdict": "better"})
    text = json.dumps(report.to_json(), allow_nan=False)
    again = EvaluationReport.from_json(json.loads(text))
    assert again == report and again.digest == report.digest
    changed = dataclasses.replace(report, rows=ROWS[:-1])
    assert changed.digest != report.digest


def test_report_estimates() -> None:
    report = EvaluationReport("p", "q", ROWS)
    assert report.success().mean == 18 / 24
    assert report.failures() == {"slipped": 6}
    assert {k: v.mean for k, v in report.per_robot().items()} == {f"robot-{i}": 0.75 for i in range(3)}
    assert report.environment["numpy"] and report.environment["python"]


def test_seeds_depend_on_the_protocol_and_not_on_how_they_are_asked_for() -> None:
    p = Protocol("lift-fragile-v1", ("s" * 64,))
    assert p.seeds(6) == p.seeds(2) + p.seeds(4, start=2)
    assert len(set(p.seeds(200))) == 200
    assert all(0 <= s < 2**63 for s in p.seeds(50))
    for other in (dataclasses.replace(p, stratum="nominal"), dataclasses.replace(p, rule=ComparisonRule(margin=0.2))):
        assert set(other.seeds(50)).isdisjoint(p.seeds(50))
