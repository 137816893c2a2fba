"""The control loop: what is recorded, and that nothing unsafe reaches the robot."""

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError
from flyball.policies import ActionChunk
from flyball.policies.runner import DeadlinePolicy, Late, run_attempt
from flyball.policies.supervisor import Supervisor
from flyball.policies.testing import FakePolicy, check_policy
from flyball.robots.testing import FAKE_BODY, FakeRobot

LOW, HIGH = FAKE_BODY.action_limits()


class Log:
    def __init__(self):
        self.samples, self.events = {}, []

    def write(self, name, t_ns, values):
        self.samples.setdefault(name, []).append((t_ns, np.array(values)))

    def event(self, t_ns, name, text=""):
        self.events.append((t_ns, name, text))


def attempt(policy, robot=None, steps=40, execute=2, **more):
    robot = robot or FakeRobot()
    robot.prepare(5, 0)
    log = Log()
    supervisor = Supervisor(FAKE_BODY, 0.02)
    more = {"instruction": "go", "seed": 1, "record": log} | more
    result = run_attempt(robot, policy, supervisor, steps=steps, execute=execute, **more)
    return result, robot, log


def spoil(kind, robot):
    def fault(actions):
        actions = actions.copy()
        if kind == "nan":
            actions[-1, 0] = np.nan
        elif kind == "infinite":
            actions[0, 1] = np.inf
        elif kind == "far":
            actions[:] = 50.0
        elif kind == "late":
            robot.clock_ns += 500_000_000
        elif kind == "shape":
            return actions[:, :1]
        elif kind == "raise":
            raise RuntimeError("out of memory")
        elif kind == "none":
            return None
        return actions

    return fault


KINDS = ["nan", "infinite", "far", "late", "shape", "raise", "none"]


def test_the_fake_policy_keeps_the_contract():
    goal = np.array([1.0, 0.2])
    check_policy(FakePolicy(), {"goal": goal}, 2, batched={"goal": np.tile(goal, (3, 1))})
    with pytest.raises(AssertionError, match="finite"):
        check_policy(FakePolicy(gain=np.nan), {"goal": goal}, 2)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.integers(0, 25), st.sampled_from(KINDS), max_size=12), st.integers(1, 4), st.integers(1, 4))
def test_no_fault_at_any_moment_reaches_the_motors(faults, execute, horizon):
    robot = FakeRobot()
    policy = FakePolicy(horizon, faults={call: spoil(kind, robot) for call, kind in faults.items()})
    result, robot, log = attempt(policy, robot, execute=execute)
    sent = np.array(robot.sent).reshape(-1, 2)
    assert np.isfinite(sent).all() and (sent >= LOW).all() and (sent <= HIGH).all()
    assert robot.stops >= 1, "an attempt ends with a robot that stands still"
    assert len(sent) == result.steps
    events = [name for _, name, _ in log.events]
    assert events.count("supervisor.hold") == result.holds
    assert ("supervisor.stop" in events) == bool(result.stopped) == (result.incident is not None)
    assert result.steps == 40 or result.stopped


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "raise"])
def test_one_fault_is_held_and_the_attempt_goes_on(kind):
    robot = FakeRobot()
    result, robot, log = attempt(FakePolicy(faults={6: spoil(kind, robot)}), robot)
    assert result.steps == 40 and result.holds == 1 and not result.stopped
    assert any(name == "supervisor.hold" and text for _, name, text in log.events)
    held = [i for i in range(1, 40) if (robot.sent[i] == robot.sent[i - 1]).all()]
    assert 12 in held


@pytest.mark.parametrize("kind", KINDS)
def test_a_lasting_fault_stops_the_robot_and_leaves_an_incident(kind):
    robot = FakeRobot()
    faults = {call: spoil(kind, robot) for call in range(6, 99)}
    result, robot, log = attempt(FakePolicy(faults=faults), robot)
    assert result.steps == (12 if kind == "raise" else 12 + 10)  # 0.2 s of holding, or at once
    assert result.stopped and log.events[-1][1] == "supervisor.stop"
    incident = result.incident
    assert incident.reason == result.stopped
    assert len(incident.recent) == result.steps + 1
    assert incident.recent[-1]["t_ns"] <= incident.t_ns
    np.testing.assert_array_equal(incident.recent[3]["turn.target"], robot.sent[3][:1])
    plain = incident.to_json()
    assert plain["events"][-1][1] == "supervisor.stop" and "goal" in plain["recent"][0]


def test_an_incident_keeps_the_last_seconds_only():
    faults = {call: spoil("nan", None) for call in range(60, 99)}
    result, *_ = attempt(FakePolicy(faults=faults), steps=300, recent_s=1.0)
    assert len(result.incident.recent) == 50


def test_the_log_has_what_was_seen_and_what_was_really_sent():
    result, robot, log = attempt(FakePolicy(), steps=60, started_ns=7_000_000_000)
    assert set(log.samples) == {"joint.position", "goal", "turn.target", "slide.target"}
    times = [t for t, _ in log.samples["goal"]]
    assert times == [7_000_000_000 + i * 20_000_000 for i in range(60)]
    for i in range(60):
        np.testing.assert_array_equal(log.samples["turn.target"][i][1], robot.sent[i][:1])
        np.testing.assert_array_equal(log.samples["slide.target"][i][1], robot.sent[i][1:])
    assert "reached" in result.events and result.steps == 60
    reached = next(t for t, name, _ in log.events if name == "reached")
    assert times[0] < reached <= times[-1] + 20_000_000


def test_a_chunk_is_used_for_m_actions_then_the_policy_is_asked_again():
    for horizon, execute, calls in ((8, 4, 10), (8, 8, 5), (2, 4, 20), (1, 1, 40)):
        policy = FakePolicy(horizon)
        attempt(policy, execute=execute)
        assert policy.calls == calls


def test_events_from_before_the_attempt_are_not_of_it():
    robot = FakeRobot()
    robot._events.append((0, "bump"))
    _, _, log = attempt(FakePolicy(), robot, steps=3)
    assert not log.events


def test_a_policy_that_cannot_reset_stops_the_robot_before_it_moves():
    class Broken(FakePolicy):
        def reset(self, instruction, seed):
            raise ValueError("no weights")

    result, robot, _ = attempt(Broken())
    assert result.stopped.endswith("ValueError: no weights") and not robot.sent


def test_a_policy_that_says_no_is_held_like_one_that_says_nothing():
    def no(actions):
        raise InputError("the answer is not finite")

    result, *_ = attempt(FakePolicy(faults={3: no, 9: no}))
    assert result.steps == 40 and result.holds == 2 and not result.stopped


def test_a_driver_that_fails_still_leaves_the_robot_stopped():
    class Broken(FakeRobot):
        def act(self, action):
            if self.clock_ns > 100_000_000:
                raise OSError("bus off")
            return super().act(action)

    robot = Broken()
    with pytest.raises(OSError, match="bus off"):
        attempt(FakePolicy(), robot)
    assert robot.stops == 1


def test_a_policy_that_hangs_cannot_hang_the_loop():
    go_on = threading.Event()

    class Hangs(FakePolicy):
        def act(self, observation):
            if self.calls == 3:
                self.calls += 1
                go_on.wait(30)
            return super().act(observation)

    policy = DeadlinePolicy(Hangs(), wait_s=0.5)
    result, _, _ = attempt(policy)
    assert "no answer within 0.5 s" in result.stopped and result.steps == 6 + 10
    with pytest.raises(Late):
        policy.reset("", 0)
    go_on.set()


def test_the_deadline_policy_passes_answers_and_errors_on():
    policy = DeadlinePolicy(FakePolicy(), wait_s=5)
    policy.reset("", 0)
    assert isinstance(policy.act({"goal": np.zeros(2)}), ActionChunk)
    with pytest.raises(KeyError):
        policy.act({})
