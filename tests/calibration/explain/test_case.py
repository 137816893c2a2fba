"""When an attempt went wrong, told from verdicts on ever longer beginnings of it: no simulator."""

from types import SimpleNamespace

import numpy as np
import pytest

from flyball.calibration.explain.case import Failure, failures
from flyball.tasks.task import Judgement
from flyball.tasks.world import Attempts

HZ, HORIZON = 25.0, 4.0
STEPS = round(HZ * HORIZON)


def judged(script):
    """A task whose verdict on a beginning of k periods is the last entry of a script [(from period, group)]."""

    def judge(signals, events):
        k = len(signals["x"])
        group = [g for at, g in script if at <= k][-1]
        return Judgement("failure" if group else "success", group, 0.0)

    return SimpleNamespace(name="fake-v1", horizon_s=HORIZON, control_hz=HZ, judge=judge)


def one(steps=STEPS):
    return Attempts({"x": np.zeros((1, steps, 1))}, [[]])


def found(script, passed=("late",), steps=STEPS):
    return failures(judged(script), one(steps), frozenset(passed))[0]


def test_the_first_of_the_last_verdicts_is_when_it_went_wrong():
    assert found([(0, "late"), (50, "slipped"), (70, "crushed")]) == Failure("crushed", "slipped", pytest.approx(2.04))


def test_a_verdict_that_was_taken_back_is_not_when_it_went_wrong():
    said = found([(0, "late"), (20, "slipped"), (26, "late"), (60, "crushed")])
    assert (said.first, said.at_s) == ("crushed", pytest.approx(2.4))


def test_what_only_the_end_shows_is_not_clear():
    said = found([(0, "missed"), (30, "late")], passed=("late", "missed"))
    assert said == Failure("late", "late", pytest.approx(1.2), False)


def test_a_success_and_a_beginning_that_went_well_so_far_did_not_fail():
    assert not found([(0, "late"), (90, "")]).group
    assert not found([(0, "late"), (50, "slipped")], steps=48).group, "a mere beginning of 48 periods"
    assert found([(0, "late"), (42, "slipped")], steps=48).group == "slipped"
