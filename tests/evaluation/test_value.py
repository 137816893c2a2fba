"""Measured value: planted truths come out, and nothing is claimed of episodes that make no difference."""

import numpy as np
import pytest

from flyball.base import InputError
from flyball.evaluation.value import ValueRule, judge_value, measure_value

TRIALS = 40


def planted(effect, world, *, between=0.08, collapses=0.0):
    """A training whose success depends on its seed more than on most data, and on ``x`` being among the episodes."""

    def train_and_evaluate(episodes, seed):
        trials = np.random.default_rng([world, seed, 0]).random(TRIALS)
        luck = np.random.default_rng([world, seed, 1 + ("x" in episodes)])
        rate = 0.6 + luck.normal(0, between) + effect * ("x" in episodes) - 0.3 * (luck.random() < collapses)
        return trials < rate

    return train_and_evaluate


def verdicts(effect, worlds, rule, **noise):
    return [measure_value(planted(effect, w, **noise), ["x"], ["a", "b"], rule).verdict for w in range(worlds)]


@pytest.mark.parametrize("collapses", [0.0, 0.1])
def test_a_subset_without_effect_is_undecided_at_the_stated_rate(collapses):
    rule = ValueRule(seeds=6, alpha=0.05)
    wrong = sum(v != "undecided" for v in verdicts(0.0, 300, rule, collapses=collapses))
    assert wrong <= 300 * 0.05 + 3 * np.sqrt(300 * 0.05 * 0.95)


def test_a_harmful_subset_is_dropped_and_a_helpful_one_kept():
    rule = ValueRule(seeds=8)
    harmful, helpful = verdicts(-0.25, 60, rule), verdicts(0.25, 60, rule)
    assert harmful.count("drop") >= 54 and harmful.count("keep") == 0
    assert helpful.count("keep") >= 54 and helpful.count("drop") == 0


def test_a_difference_below_the_noise_floor_is_not_claimed():
    """Trainings that agree by chance prove little where each arm alone scatters widely."""
    arms = np.array([0.2, 0.4, 0.6, 0.8])
    pairs = [[np.arange(TRIALS) < TRIALS * (r + 0.1), np.arange(TRIALS) < TRIALS * r] for r in arms]
    found = judge_value(pairs, ValueRule(seeds=4))
    assert found.difference.low > 0 and found.noise_floor > abs(found.difference.mean)
    assert found.verdict == "undecided"


def test_equal_outcomes_say_nothing():
    found = judge_value([[[True] * 5, [True] * 5]] * 3, ValueRule(seeds=3))
    assert (found.verdict, found.difference.mean, found.p) == ("undecided", 0.0, 1.0)


def test_interval_covers_the_planted_difference():
    inside = 0
    for world in range(150):
        d = measure_value(planted(-0.2, world), ["x"], ["a"], ValueRule(seeds=5)).difference
        inside += d.low <= -0.2 <= d.high
    assert inside >= 0.95 * 150 - 3 * np.sqrt(150 * 0.95 * 0.05)


def test_both_sets_meet_the_same_seeds():
    calls = []

    def train_and_evaluate(episodes, seed):
        calls.append((episodes, seed))
        return [True, False]

    done = []
    measure_value(
        train_and_evaluate, ["x"], ["a"], ValueRule(seeds=3, first_seed=7), progress=lambda *at: done.append(at)
    )
    assert calls == [(e, s) for s in (7, 8, 9) for e in (("a", "x"), ("a",))]
    assert done[-1] == (6, 6)


def test_the_line_gives_difference_interval_and_floor():
    found = measure_value(planted(-0.3, 1), ["x"], ["a"], ValueRule(seeds=8))
    assert "8 trainings x 40 paired trials" in found.line() and "noise floor" in found.line()
    assert found.to_json()["verdict"] == found.verdict == "drop"


@pytest.mark.parametrize(
    ("run", "says"),
    [
        (lambda: ValueRule(seeds=2), "3 or more"),
        (lambda: ValueRule(alpha=0.7), "alpha"),
        (lambda: measure_value(planted(0, 0), [], ["a"]), "at least one of each"),
        (lambda: measure_value(planted(0, 0), ["a"], ["a"]), "not the same"),
        (lambda: measure_value(planted(0, 0), ["a"], []), "at least one of each"),
        (lambda: measure_value(lambda e, s: [True] * len(e), ["x"], ["a"]), "the same trials"),
        (lambda: judge_value([[[True], [True]]] * 4, ValueRule(seeds=3)), "as fixed beforehand"),
    ],
)
def test_refusals(run, says):
    with pytest.raises(InputError, match=says):
        run()
