"""Planted truths: the stated error rates hold although every trial is looked at."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError
from flyball.evaluation import CanaryVerdict, ComparisonRule, Interval, PairedComparison
from flyball.evaluation.statistics import log_e_difference, log_e_paired


def pairs(rng: np.random.Generator, candidate: float, deployed: float, rho: float, n: int) -> np.ndarray:
    """n pairs (n, 2) of outcomes with these rates; a shared seed decides both with probability rho."""
    shared, own = rng.random((n, 1)), rng.random((n, 2))
    u = np.where(rng.random((n, 1)) < rho, shared, own)
    return u < np.array([candidate, deployed])


def share(
    rule: ComparisonRule, candidate: float, deployed: float, rho: float, runs: int, seed: int
) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    said: dict[str, int] = {}
    for _ in range(runs):
        c = PairedComparison(rule)
        for a, b in pairs(rng, candidate, deployed, rho, rule.n_max):
            if c.update(bool(a), bool(b)) != "continue":
                break
        said[c.verdict] = said.get(c.verdict, 0) + 1
    return {k: v / runs for k, v in said.items()}


RULE = ComparisonRule(margin=0.1, alpha=0.05, n_max=150)


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_gate_lets_a_policy_at_the_margin_pass_no_more_than_alpha(rho: float) -> None:
    said = share(RULE, 0.75, 0.85, rho, runs=250, seed=1)
    assert said.get("better", 0) + said.get("not_worse", 0) <= 0.05 + 0.02  # two standard errors of the simulation


@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_equals_are_called_better_or_worse_no_more_than_alpha_each(rho: float) -> None:
    said = share(ComparisonRule(margin=0.1, n_max=150, goal="better"), 0.8, 0.8, rho, runs=250, seed=2)
    assert said.get("better", 0) <= 0.07
    assert said.get("worse", 0) <= 0.07


def test_clear_differences_are_found_quickly_and_shared_seeds_help() -> None:
    assert share(ComparisonRule(goal="better"), 0.95, 0.5, 0.0, runs=60, seed=3) == {"better": 1.0}
    assert share(RULE, 0.5, 0.95, 0.0, runs=60, seed=4) == {"worse": 1.0}
    apart = share(RULE, 0.8, 0.8, 0.0, runs=100, seed=5).get("not_worse", 0)
    together = share(RULE, 0.8, 0.8, 0.8, runs=100, seed=5).get("not_worse", 0)
    assert together > apart + 0.2


def test_error_rate_holds_at_any_stopping_time_over_long_runs() -> None:
    """The e-processes themselves, 600 runs of 800 pairs, looked at after every pair."""
    rng = np.random.default_rng(6)
    x = pairs(rng, 0.7, 0.7, 0.3, 600 * 800).reshape(600, 800, 2).astype(int)
    w = np.cumsum(x[..., 0] > x[..., 1], 1)
    lost = np.cumsum(x[..., 0] < x[..., 1], 1)
    table = np.array([[log_e_paired(i, j, "greater") for j in range(220)] for i in range(220)])
    ever = (table[w, lost] >= np.log(20)).any(1).mean()
    assert 0.005 <= ever <= 0.05 + 0.018
    naive = ((w - lost) / np.sqrt(np.maximum(w + lost, 1)) >= 1.645)[:, 9:].any(1).mean()
    assert naive > 0.2  # what peeking at a fixed-n test would have done


def test_margin_error_rate_holds_at_any_stopping_time() -> None:
    rng = np.random.default_rng(7)
    ever = 0
    for _ in range(150):
        x = pairs(rng, 0.8, 0.9, 0.2, 200).astype(int)
        w, lost = np.cumsum(x[:, 0] > x[:, 1]), np.cumsum(x[:, 0] < x[:, 1])
        n = np.arange(1, 201)
        ever += any(
            log_e_difference(int(a), int(b), int(t), -0.1) >= np.log(20)
            for a, b, t in zip(w, lost, n - w - lost, strict=True)
        )
    assert ever / 150 <= 0.05 + 0.035


def test_comparison_report_counts_and_states_its_interval() -> None:
    c = PairedComparison(ComparisonRule(margin=0.1, n_max=64))
    rng = np.random.default_rng(8)
    x = pairs(rng, 0.95, 0.4, 0.2, 64)
    assert c.update_all(x[:, 0], x[:, 1]) == "better" and c.allowed
    d = c.to_json()
    assert d["pairs"] == 64 == d["wins"] + d["losses"] + d["both"] + d["neither"]
    assert d["difference"]["low"] > 0.2 and d["difference"]["low"] < 0.55 < d["difference"]["high"]
    c.update(False, True)
    assert c.n == 64, "a verdict is final"


def test_nothing_is_allowed_without_evidence() -> None:
    c = PairedComparison(ComparisonRule(n_max=8))
    assert not c.allowed
    assert c.update_all([True] * 8, [True] * 8) == "undecided" and not c.allowed


def run_canary(c: CanaryVerdict, rng: np.random.Generator, rate: float) -> str:
    verdict = "continue"
    while verdict == "continue":
        verdict = c.update(bool(rng.random() < rate))
    return verdict


@pytest.mark.parametrize(
    "good, bad, a, b", [(0.9, 0.7, 0.05, 0.05), (0.95, 0.6, 0.02, 0.1), (0.5, 0.25, 0.1, 0.05), (1.0, 0.8, 0.05, 0.05)]
)
def test_canary_error_rates_hold_and_are_stated_exactly(good: float, bad: float, a: float, b: float) -> None:
    runs = 1500
    rng = np.random.default_rng(9)
    plan = CanaryVerdict(good, bad, a=a, b=b)
    stated = plan.error_rates
    assert stated["abort_good"] <= a and stated["promote_bad"] <= b
    n_max = plan.n_max
    at_good = [run_canary(CanaryVerdict(good, bad, a=a, b=b, n_max=n_max), rng, good) for _ in range(runs)]
    at_bad = [run_canary(CanaryVerdict(good, bad, a=a, b=b, n_max=n_max), rng, bad) for _ in range(runs)]
    for share, exact in (
        (at_good.count("abort"), stated["abort_good"]),
        (at_bad.count("promote"), stated["promote_bad"]),
    ):
        assert abs(share / runs - exact) <= 3.5 * np.sqrt(max(exact * (1 - exact), 1e-4) / runs)


def test_a_plan_for_few_trials_keeps_its_error_rates_or_is_refused() -> None:
    kept = []
    for n_max in range(1, 41):
        try:
            stated = CanaryVerdict(0.9, 0.5, n_max=n_max).error_rates
        except InputError:
            continue
        kept.append(n_max)
        assert stated["abort_good"] <= 0.05 and stated["promote_bad"] <= 0.05
    assert kept and 10 <= kept[0] <= 20  # a test with a fixed number of trials needs 13 here


def test_canary_is_monotone_better_releases_pass_more_often() -> None:
    rng = np.random.default_rng(10)
    passed = [
        np.mean([run_canary(CanaryVerdict(0.9, 0.6, n_max=40), rng, r) == "promote" for _ in range(150)])
        for r in (0.5, 0.75, 0.97)
    ]
    assert passed[0] < 0.05 < passed[1] < passed[2] and passed[2] > 0.97


@given(st.lists(st.booleans(), min_size=1, max_size=60))
@settings(max_examples=50, deadline=None)
def test_canary_resumes_by_replaying_and_never_changes_its_mind(outcomes: list[bool]) -> None:
    whole, resumed = CanaryVerdict(0.9, 0.6, n_max=40), CanaryVerdict(0.9, 0.6, n_max=40)
    said = [whole.update(x) for x in outcomes]
    for x in outcomes:
        resumed.update(x)
    assert resumed.to_json() == whole.to_json()
    final = next((v for v in said if v != "continue"), None)
    if final:
        assert set(said[said.index(final) :]) == {final}
    if len(outcomes) >= 40:
        assert final is not None


def test_an_incident_aborts_whatever_the_successes() -> None:
    c = CanaryVerdict(0.9, 0.6)
    assert [c.update(True), c.update(True)] == ["continue", "continue"]
    assert c.update(True, incident=True) == "abort"
    patient = CanaryVerdict(0.9, 0.6, incidents_allowed=1)
    assert patient.update(True, incident=True) == "continue"


def test_baseline_interval_moves_both_rates() -> None:
    c = CanaryVerdict.against_baseline(Interval(0.93, 0.9, 0.96, 0.95, "wilson"), delta=0.3)
    assert (c.good, c.bad) == (0.9, pytest.approx(0.66))
    point = CanaryVerdict.against_baseline((0.9, 0.9), delta=0.2)
    assert (point.good, point.bad) == (0.9, pytest.approx(0.7))


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: CanaryVerdict(0.7, 0.9), "allowed: 0 <= bad < good <= 1"),
        (lambda: CanaryVerdict(0.9, 0.7, a=0.0), "a = 0"),
        (lambda: CanaryVerdict(0.9, 0.7, n_max=20), "n_max >= "),
        (lambda: CanaryVerdict.against_baseline((0.7, 0.95), 0.2), "an interval narrower than delta = 0.2"),
        (lambda: CanaryVerdict.against_baseline((0.1, 0.1), 0.2), "no release can be 0.2 worse"),
        (lambda: ComparisonRule(margin=0), "margin = 0"),
        (lambda: ComparisonRule(alpha=0.7), "alpha = 0.7"),
        (lambda: ComparisonRule(n_max=0), "n_max = 0"),
    ],
)
def test_nonsense_is_refused(call, says: str) -> None:
    with pytest.raises(InputError) as err:
        call()
    assert says in err.value.line()
