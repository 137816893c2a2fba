import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from flyball.base import Damaged, InputError
from flyball.calibration.drift import _EDGES, Alarm, Detector, DriftTest, _bets, hours_per_alarm, p_value


def run(values, *, streams=("friction", "gain"), regimes=None, seconds=5.0, **settings):
    test = DriftTest(streams, **settings)
    for i, x in enumerate(values):
        test.update(f"e{i}", x, duration_s=seconds, regime="" if regimes is None else regimes[i])
    return test


def worn(shift, *, before=30, after=30, seed=0):
    x = np.random.default_rng(seed).standard_normal((before + after, 2))
    x[before:, 0] += shift
    return x


def test_bets_are_fair():
    average = _bets() @ np.diff(_EDGES)
    np.testing.assert_allclose(average, 1.0, atol=1e-9)


def test_p_values_are_uniform_and_independent_whatever_the_residuals():
    rng, earlier, p = np.random.default_rng(1), [], []
    for x in np.round(rng.standard_t(1.5, 1500), 1).tolist():  # heavy tails, ties
        p.append(p_value(x, earlier, rng.random()))
        earlier = sorted([*earlier, x])
    assert kstest(p, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(p[1:], p[:-1])[0, 1]) < 0.08
    assert p_value(1.0, [0.0, 2.0, 3.0], 0.999) < 0.75 and p_value(9.0, [0.0, 2.0], 0.0) == 0.0


def test_false_alarms_are_no_more_than_promised():
    rng, streams, episodes, threshold = np.random.default_rng(3), 60, 1000, 250.0
    tests, alarms, total = Detector(streams), 0, []
    for i in range(30, 30 + episodes):
        tests.begin(i, 1.0)
        tests.bet(rng.random(streams), np.where(tests.starts < 0, 1.0, (i + 1 - tests.starts) / (i + 1)))
        over = tests.total >= threshold
        alarms += over.sum()
        total.append(np.minimum(tests.total, threshold).mean())
        tests.forget(over)
    promised = streams * episodes / threshold
    assert 0.1 * promised < alarms <= promised  # neither too many nor asleep
    assert all(tests.total[over] == 0)


def test_one_martingale_keeps_its_stake_on_average():
    rng = np.random.default_rng(5)
    tests = Detector(20_000, window=1)
    tests.begin(30, 2.0)
    for i in range(30, 34):
        tests.bet(rng.random(20_000), np.array([(i - 29) / (i + 1)]))
    assert tests.total.mean() == pytest.approx(2.0, rel=0.1)


@pytest.mark.parametrize("shift", [4.0, -4.0])
def test_a_change_is_found_at_the_stated_rate_and_named(shift):
    test = run(worn(shift))
    assert isinstance(test.alarm, Alarm) and 30 < test.alarm.episode < 45
    assert test.alarm.stream == "friction" and abs(test.alarm.since - 30) <= 3
    first, second = test.moves()
    assert (first.stream, second.stream) == ("friction", "gain") and first.effect > 3 > second.effect
    assert first.shift == pytest.approx(shift, abs=1.0)


def test_a_sound_robot_stays_quiet_and_has_no_moves():
    test = run(worn(0.0, after=400))
    assert test.alarm is None and test.moves() == [] and test.evidence < 1
    assert test.hours_watched == pytest.approx(430 * 5 / 3600)


def test_slow_wear_is_found_too():
    x = worn(0.0, before=40, after=160)
    x[40:, 0] += np.linspace(0, 6, 160)
    assert run(x).alarm is not None


def test_a_stricter_rate_needs_more_episodes():
    found = [run(worn(3.0), hours=h).alarm.episode for h in (1.0, 1000.0, 1e6)]
    assert found[0] < found[1] < found[2]


def test_evidence_is_counted_in_hours():
    short, long = run(worn(2.0, after=4), seconds=1.0), run(worn(2.0, after=4), seconds=60.0)
    assert long.evidence == pytest.approx(60 * short.evidence)


def test_the_same_log_twice_changes_nothing():
    test = run(worn(2.0, after=5))
    before = json.dumps(test.to_json()), test.evidence
    for i in range(35):
        test.update(f"e{i}", [99.0, 99.0], duration_s=5.0)
    assert (json.dumps(test.to_json()), test.evidence) == before


def test_a_killed_process_goes_on_where_it_was():
    x = worn(4.0)
    whole, part = run(x), run(x[:34])
    again = DriftTest.from_json(json.loads(json.dumps(part.to_json())))
    assert again.evidence == part.evidence and again.keys == part.keys
    for i in range(34, len(x)):
        again.update(f"e{i}", x[i], duration_s=5.0)
    assert again.alarm == whole.alarm and again.evidence == whole.evidence
    assert again.moves() == whole.moves()


def test_a_mix_of_regimes_that_changes_is_no_drift():
    rng = np.random.default_rng(2)
    heavy = rng.random(120) < np.where(np.arange(120) < 60, 0.2, 0.9)
    x = np.stack([rng.standard_normal(120) + 8 * heavy, rng.standard_normal(120)], axis=1)
    names = np.where(heavy, "heavy", "light")
    assert run(x).alarm is not None
    assert run(x, regimes=names).alarm is None
    x[80:, 0] += 5
    found = run(x, regimes=names)
    assert found.alarm.episode >= 80 and found.moves()[0].shift == pytest.approx(5, abs=1.5)


def test_levels_of_regimes_do_not_count():
    x = worn(2.0, after=8)
    names = np.where(np.arange(38) % 2, "heavy", "light")
    apart = x + 100.0 * (names == "heavy")[:, None]
    assert run(x, regimes=names).evidence == run(apart, regimes=names).evidence != run(apart).evidence


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 3.0), st.floats(-5.0, 5.0))
def test_only_the_order_of_residuals_counts(seed, stretch, offset):
    x = worn(1.0, before=8, after=12, seed=seed)
    plain, bent = run(x, baseline=8), run(np.sinh(stretch * x) + offset, baseline=8)
    assert plain.evidence == bent.evidence


def test_equal_residuals_are_no_evidence():
    assert run(np.zeros((200, 2))).alarm is None


@pytest.mark.parametrize(
    ("text", "hours"), [("1 per 1000 h", 1000), ("2 alarms per 1,000 hours", 500), ("1 per 30 days", 720)]
)
def test_rates_in_words(text, hours):
    assert hours_per_alarm(text) == hours


@pytest.mark.parametrize("text", ["", "often", "0 per 10 h", "1 per 0 h", "-1 per 10 h", "1 per 1000", "1e999 per 1 h"])
def test_what_is_no_rate_is_refused(text):
    with pytest.raises(InputError, match="1 per 1000 h"):
        hours_per_alarm(text)


def test_bad_input_is_refused_and_leaves_the_state_as_it_was():
    test = run(worn(0.0, after=2))
    before = json.dumps(test.to_json())
    for residuals, seconds in (([1.0], 5.0), ([1.0, np.nan], 5.0), ([1.0, np.inf], 5.0), ([1.0, 1.0], 0.0)):
        with pytest.raises(InputError, match="episode new"):
            test.update("new", residuals, duration_s=seconds)
    assert json.dumps(test.to_json()) == before
    for wrong in ({"streams": []}, {"streams": ["a", "a"]}, {"streams": ["a"], "hours": 0.0},
                  {"streams": ["a"], "baseline": 1}):  # fmt: skip
        with pytest.raises(InputError, match="drift test"):
            DriftTest(**wrong)


@pytest.mark.parametrize("broken", [{}, {"episodes": [{"key": "x"}]}, {"streams": []}, {"hours": "many"}])
def test_a_damaged_state_is_refused(broken):
    data = run(worn(0.0, after=0)).to_json()
    with pytest.raises(Damaged, match="not the state"):
        DriftTest.from_json({**data, **broken} if broken else {})
