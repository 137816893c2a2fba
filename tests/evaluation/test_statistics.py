"""Intervals and e-values: known values, laws, and planted truths."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from flyball.base import InputError
from flyball.evaluation import (
    anytime_interval,
    clopper_pearson,
    cluster_interval,
    difference_interval,
    equivalent,
    holm,
    mcnemar,
    wilson,
)
from flyball.evaluation.statistics import log_e_difference, log_e_paired, log_e_rate

counts = st.integers(0, 120).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))


@pytest.mark.parametrize("s, n", [(0, 10), (3, 10), (10, 10), (57, 60), (200, 400)])
def test_one_rate_agrees_with_scipy(s: int, n: int) -> None:
    for ours, theirs in ((clopper_pearson(s, n), "exact"), (wilson(s, n), "wilson")):
        ref = stats.binomtest(s, n).proportion_ci(0.95, theirs)
        assert ours.low == pytest.approx(ref.low, abs=1e-9)
        assert ours.high == pytest.approx(ref.high, abs=1e-9)


@pytest.mark.parametrize("w, lost", [(0, 0), (9, 1), (1, 9), (5, 5), (30, 18)])
def test_mcnemar_agrees_with_the_binomial_test(w: int, lost: int) -> None:
    if w + lost:
        assert mcnemar(w, lost) == pytest.approx(stats.binomtest(w, w + lost).pvalue)
        assert mcnemar(w, lost, "greater") == pytest.approx(stats.binomtest(w, w + lost, alternative="greater").pvalue)
    else:
        assert mcnemar(w, lost) == 1.0


@given(counts)
@settings(max_examples=60, deadline=None)
def test_intervals_hold_the_estimate_mirror_and_nest(c: tuple[int, int]) -> None:
    s, n = c
    for f in (wilson, clopper_pearson, anytime_interval):
        i, mirror = f(s, n), f(n - s, n)
        assert 0 <= i.low <= i.high <= 1
        if n:
            assert i.low <= i.mean <= i.high
        assert (mirror.low, mirror.high) == pytest.approx((1 - i.high, 1 - i.low), abs=1e-9)
    exact, always = clopper_pearson(s, n), anytime_interval(s, n)
    # Looking after every trial costs width against a number of trials fixed beforehand.
    assert always.high - always.low >= exact.high - exact.low - 0.02


def test_clopper_pearson_covers_at_every_rate() -> None:
    n = 40
    intervals = [clopper_pearson(s, n) for s in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 50):
        covered = sum(stats.binom.pmf(s, n, p) for s, i in enumerate(intervals) if i.low <= p <= i.high)
        assert covered >= 0.95


def test_anytime_interval_holds_at_every_n_at_once() -> None:
    rng = np.random.default_rng(0)
    for rate in (0.5, 0.93):
        misses = 0
        for _ in range(400):
            s = np.cumsum(rng.random(300) < rate)
            misses += any(log_e_rate(int(x), i + 1, rate) >= math.log(20) for i, x in enumerate(s))
        assert misses / 400 <= 0.05
        # A claim that could not be wrong would be no claim: it is tight enough to exclude a rate 0.15 away.
        i = anytime_interval(round(300 * rate), 300)
        assert i.low > rate - 0.15


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_paired_e_value_is_a_fair_bet(side: str) -> None:
    """Averaged over all sequences of n discordant pairs between equals, the e-value is exactly 1."""
    n = 12
    mean = sum(math.comb(n, w) * math.exp(log_e_paired(w, n - w, side)) for w in range(n + 1)) / 2**n  # type: ignore[arg-type]
    assert mean == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("bound", [-0.2, 0.0, 0.1])
@pytest.mark.parametrize("side, sign", [("greater", 1), ("less", -1)])
def test_difference_e_value_never_gains_under_its_hypothesis(bound: float, side: str, sign: int) -> None:
    """Exact expectation over all outcomes of n pairs, at the hypothesis' edge and inside it."""
    n = 6
    for d in (bound, bound - sign * 0.15):
        win = 0.3 + d / 2
        p = {1: win, -1: win - d, 0: 1 - 2 * win + d}
        total = 0.0
        for xs in itertools.product((1, 0, -1), repeat=n):
            w, lost = xs.count(1), xs.count(-1)
            e = math.exp(log_e_difference(w, lost, n - w - lost, bound, side))  # type: ignore[arg-type]
            total += math.prod(p[x] for x in xs) * e
        assert total <= 1 + 1e-9


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 60))
@settings(max_examples=60, deadline=None)
def test_difference_interval_holds_the_estimate_and_mirrors(w: int, lost: int, ties: int) -> None:
    i, m = difference_interval(w, lost, ties), difference_interval(lost, w, ties)
    if w + lost + ties:
        assert -1 <= i.low <= i.mean <= i.high <= 1
    assert (m.low, m.high) == pytest.approx((-i.high, -i.low), abs=1e-6)


def test_equivalence_needs_both_sides() -> None:
    assert equivalent(2, 2, 200, 0.1)
    assert not equivalent(2, 2, 10, 0.1)  # too few to know
    assert not equivalent(60, 2, 140, 0.1)  # better by more than the margin


def test_holm_is_the_textbook_example() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([]) == []


def test_cluster_interval_covers_the_fleet_when_robots_differ() -> None:
    """Robots drawn from a population with mean 0.8: the plain interval misses it often, the clustered one seldom."""
    rng = np.random.default_rng(1)
    runs, robots, trials = 400, 8, 30
    clustered = plain = 0
    for _ in range(runs):
        s = rng.binomial(trials, rng.beta(4.0, 1.0, robots))
        c = cluster_interval(s.tolist(), [trials] * robots)
        p = wilson(float(s.sum()), trials * robots)
        clustered += c.low <= 0.8 <= c.high
        plain += p.low <= 0.8 <= p.high
    assert clustered / runs >= 0.92
    assert plain / runs <= 0.75


def test_cluster_interval_is_wilsons_for_one_robot_and_for_perfect_fleets() -> None:
    assert cluster_interval([9], [10]).low == wilson(9, 10).low
    assert cluster_interval([10] * 6, [10] * 6).low == pytest.approx(wilson(60, 60).low)
    uneven = cluster_interval([10, 0, 10, 10], [10] * 4)
    assert uneven.high - uneven.low > 2 * (wilson(30, 40).high - wilson(30, 40).low)


@pytest.mark.parametrize(
    "call, says",
    [
        (lambda: clopper_pearson(5, 3), "5 successes of 3 trials"),
        (lambda: wilson(1, 2, level=1.5), "allowed: an error rate in (0, 1)"),
        (lambda: log_e_difference(1, 1, 1, -1.0), "allowed: (-1, 1)"),
        (lambda: cluster_interval([5], [3]), "do not fit"),
    ],
)
def test_nonsense_is_refused(call, says: str) -> None:
    with pytest.raises(InputError) as err:
        call()
    assert says in err.value.line()
