"""The supervisor: nothing unsafe passes."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import SignalSpec
from flyball.policies import ActionChunk
from flyball.policies.supervisor import Envelope, Supervisor, joint_of_action
from flyball.robots.testing import FAKE_BODY

LOW, HIGH = FAKE_BODY.action_limits()
STEP = np.array([2.0, 0.5]) * 0.02
AT_HOME = {"joint.position": np.zeros(2)}


def supervisor(**envelope):
    told = []
    s = Supervisor(FAKE_BODY, 0.02, Envelope(**envelope), lambda name, text: told.append((name, text)))
    s.reset(AT_HOME)
    return s, told


numbers = st.one_of(
    st.floats(-1e6, 1e6), st.floats(-3, 3), st.sampled_from([np.nan, np.inf, -np.inf, 1e308, -1e308, 0.0, 5e-324])
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(numbers, numbers, st.floats(-1, 1)), min_size=1, max_size=40))
def test_whatever_the_policy_wants_what_is_sent_is_safe(wants):
    s, _ = supervisor()
    last = np.zeros(2)
    for a, b, late in wants:
        verdict = s.judge(np.array([a, b]), late_s=late)
        if verdict.kind == "stop":
            break
        sent = verdict.action
        assert np.isfinite(sent).all() and (sent >= LOW).all() and (sent <= HIGH).all()
        assert (np.abs(sent - last) <= STEP + 1e-12).all(), "faster than the joints"
        if verdict.held:
            np.testing.assert_array_equal(sent, last)
        last = sent


def test_a_good_action_passes_unchanged():
    s, told = supervisor()
    verdict = s.judge(np.array([0.02, 0.005]))
    np.testing.assert_array_equal(verdict.action, [0.02, 0.005])
    assert not verdict.clamped and not verdict.held and not told and s.clamps == 0


def test_a_small_excursion_is_clamped_and_counted_a_large_one_held():
    s, told = supervisor(tolerance=0.05)  # of a range of 0.5 m: 0.025 m
    verdict = s.judge(np.array([0.0, -0.02]))
    assert verdict.clamped and verdict.action[1] == 0.0 and s.clamps == 1 and not told
    verdict = s.judge(np.array([0.0, -0.03]))
    assert verdict.held and s.holds == 1
    assert told == [("supervisor.hold", "element 1 is -0.03, limits 0 to 0.5")]


def test_hold_lasts_as_long_as_allowed_then_the_robot_stops():
    s, told = supervisor(hold_s=0.1)
    s.judge(np.array([0.01, 0.0]))
    kinds = [s.judge(None, why="nothing came").kind for _ in range(7)]
    assert kinds == ["send"] * 5 + ["stop"] * 2
    assert [name for name, _ in told] == ["supervisor.hold"] * 5 + ["supervisor.stop"]
    assert s.stopped == "nothing came"
    assert s.judge(np.array([0.01, 0.0])).kind == "stop", "a stop is for good"
    s.reset(AT_HOME)
    assert s.judge(np.array([0.01, 0.0])).kind == "send"


def test_a_good_action_ends_a_hold():
    s, _ = supervisor(hold_s=0.1)
    for _ in range(20):
        assert s.judge(None).held
        assert not s.judge(np.zeros(2)).held


def test_late_is_held():
    s, told = supervisor(deadline_s=0.05)
    assert not s.judge(np.zeros(2), late_s=0.05).held
    assert s.judge(np.zeros(2), late_s=0.051).held
    assert s.judge(np.zeros(2), late_s=float("nan")).held
    assert "0.051 s late" in told[0][1]


def test_without_anything_known_to_be_safe_it_stops_at_once():
    s, _ = supervisor()
    s.reset({})  # no joint position, and the safe action is "stay where you are"
    assert s.judge(None).kind == "stop"


@pytest.mark.parametrize(
    ("actions", "dt", "why"),
    [
        (np.zeros((3, 3)), 0.02, "shape"),
        (np.zeros(2), 0.02, "shape"),
        (np.zeros((0, 2)), 0.02, "shape"),
        (np.zeros((2, 3, 2)), 0.02, "shape"),
        ([[0.0, 0.0]], 0.02, "shape"),
        (np.zeros((3, 2), complex), 0.02, "complex"),
        (np.array([[0, 0], [0, np.nan]]), 0.02, "action 1 of the chunk is not finite in element 1"),
        (np.zeros((3, 2)), 0.1, "control period"),
        (np.zeros((3, 2)), float("nan"), "control period"),
    ],
)
def test_a_bad_chunk_is_refused_with_the_reason(actions, dt, why):
    s, _ = supervisor()
    assert why in s.check_chunk(ActionChunk(actions, dt))
    assert s.check_chunk(ActionChunk(np.zeros((3, 2)), 0.02)) == ""


def test_forces_have_no_joint_speed():
    grip = SignalSpec("grip", (1,), unit="N", low=(-30.0,), high=(30.0,))
    body = dataclasses.replace(FAKE_BODY, actions=(FAKE_BODY.actions[0], grip), safe_action=(np.nan, 0.0))
    assert joint_of_action(body).tolist() == [0, -1]
    s = Supervisor(body, 0.02)
    s.reset(AT_HOME)
    np.testing.assert_array_equal(s.judge(np.array([0.0, 30.0])).action, [0.0, 30.0])
