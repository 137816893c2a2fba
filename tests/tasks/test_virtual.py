"""The virtual robot: the Robot contract, hidden changes, and the same bits as a batch."""

import json

import numpy as np
import pytest

from flyball.base import InputError, Missing, Refused
from flyball.robots.drivers import Preparable, drivers
from flyball.robots.testing import check_robot
from flyball.tasks import tasks
from flyball.tasks.reality import attempt_seed, batched, load_reality
from flyball.tasks.world import World

REALITY = {
    "robots": [
        {
            "name": "robot-01",
            "seed": 11,
            "parameters": {"object.friction": 0.06, "arm.delay_s": 0.033},
            "unmodelled": {"timestep": 0.001, "backlash_rad": 0.002},
            "changes": [{"turn": 2, "parameters": {"object.friction": 0.03}}],
        },
        {"name": "robot-02"},
    ]
}


@pytest.fixture
def config(tmp_path):
    (tmp_path / "reality.json").write_text(json.dumps(REALITY))
    return {"reality": str(tmp_path / "reality.json"), "task": "slide-puck-v1"}


@pytest.fixture
def open_robot(config, tmp_path):
    return lambda name="robot-01": drivers.load("virtual")(config, name, tmp_path)


def play(robot, actions):
    """Send actions (T, a); returns observations (T + 1), events and what was sent."""
    seen, events, sent = [robot.observe()], [], []
    for a in actions:
        sent.append(robot.act(a))
        seen.append(robot.observe())
        events += robot.events()
    return seen, events, np.array(sent)


def test_it_keeps_the_contract(open_robot):
    check_robot(open_robot)
    assert isinstance(open_robot(), Preparable)


def test_one_attempt_equals_the_batched_world_bit_for_bit(open_robot, config):
    task = tasks.load(config["task"])
    reality = load_reality(config["reality"], task)
    values, unmodelled = reality.at("robot-01", 1)
    attempts = [3, 4, 5]
    seeds = [attempt_seed(11, k, 1) for k in attempts]
    world = World(task, 3, unmodelled=unmodelled)
    batch = world.run(task.expert(task.told(batched(values, 3))), batched(values, 3), seeds)
    robot = open_robot()
    for i, k in enumerate(attempts):
        robot.prepare(k, 1)
        signals = batch.one(i)
        actions = np.concatenate([signals[s.name] for s in task.embodiment.actions], axis=1)
        seen, _, sent = play(robot, actions)
        assert (sent == actions).all()
        for spec in task.embodiment.observations:
            assert (np.array([o[spec.name] for o in seen[:-1]]) == signals[spec.name]).all(), spec.name


def test_equal_preparations_give_equal_attempts_and_robots_differ(open_robot):
    robot, other = open_robot(), open_robot("robot-02")
    first = []
    for r, seed in ((robot, 1), (robot, 2), (robot, 1), (other, 1)):
        r.prepare(seed, 0)
        first.append(r.observe()["object.pose"])
    assert (first[0] == first[2]).all()
    assert (first[0] != first[1]).any() and (first[0] != first[3]).any()


def test_the_world_changes_at_its_turn_and_nothing_says_so(open_robot, config):
    task = tasks.load(config["task"])
    robot = open_robot()

    def rests_at(turn):
        robot.prepare(1, turn)
        told = task.told(
            task.scene.nominal(1) | {"object.friction": np.array([0.06]), "arm.delay_s": np.array([0.033])}
        )
        expert = task.expert(told)
        for _ in range(round(task.horizon_s * task.control_hz)):
            seen = robot.observe()
            assert set(seen) == {s.name for s in task.embodiment.observations}
            robot.act(expert({k: x[None] for k, x in seen.items()})[0])
        return robot.observe()["object.pose"][1]

    at = [rests_at(turn) for turn in range(4)]
    assert abs(at[1] - at[0]) < 0.06
    assert at[2] > at[1] + 0.2 and at[3] > at[1] + 0.2  # half the friction: further


def test_the_clock_is_simulated_and_never_goes_back(open_robot):
    robot = open_robot()
    action = np.append(robot.observe()["joint.position"], -6.0)
    times = []
    for attempt in range(3):
        robot.prepare(attempt, 0)
        times.append(robot.now_ns())
        for _ in range(4):
            robot.act(action)
            times.append(robot.now_ns())
    assert (np.diff(times) == 40_000_000).all()


def test_what_was_really_sent_is_returned(open_robot):
    robot = open_robot()
    low, high = robot.embodiment.action_limits()
    assert (robot.act(high + 1.0) == high).all() and (robot.act(low - 1.0) == low).all()


def test_after_stop_and_after_the_attempt_nothing_is_accepted(open_robot):
    robot = open_robot()
    action = np.append(robot.observe()["joint.position"], -6.0)
    robot.act(action)
    robot.stop()
    robot.stop()
    clock = robot.now_ns()
    with pytest.raises(Refused, match="robot-01.*stopped.*prepare"):
        robot.act(action)
    assert robot.now_ns() == clock
    robot.prepare(1, 0)
    for _ in range(75):
        robot.act(action)
    with pytest.raises(Refused, match="75 control periods"):
        robot.act(action)


def test_the_station_reports_a_crushed_box_once_on_the_robots_clock(tmp_path):
    reality = {"robots": [{"name": "r", "parameters": {"object.crush_force": 3.0, "object.mass": 0.2}}]}
    (tmp_path / "reality.json").write_text(json.dumps(reality))
    config = {"reality": str(tmp_path / "reality.json"), "task": "lift-fragile-v1"}
    task = tasks.load(config["task"])
    robot = drivers.load("virtual")(config, "r", tmp_path)
    robot.prepare(1, 0)
    robot.prepare(2, 0)
    began, events = robot.now_ns(), []
    expert = task.expert(task.told(task.scene.nominal(1)))
    for _ in range(90):
        before = robot.now_ns()
        robot.act(expert({k: x[None] for k, x in robot.observe().items()})[0])
        for t_ns, name in robot.events():
            assert before < t_ns <= robot.now_ns()
            events.append((t_ns - began, name))
    assert [name for _, name in events] == ["crushed"]
    robot.prepare(3, 0)
    assert robot.events() == []


def test_bad_configurations_are_refused_by_name(config, tmp_path):
    open_robot = drivers.load("virtual")
    for bad, text in (
        ({"task": "slide-puck-v1"}, "'reality' is missing"),
        (config | {"color": "red"}, "'color'"),
        (config | {"task": "slide-puck-v2"}, "did you mean 'slide-puck-v1'"),
        (config | {"reality": str(tmp_path / "none.json")}, "none.json"),
    ):
        with pytest.raises(InputError, match=text):
            open_robot(bad, "robot-01", tmp_path)
    with pytest.raises(Missing, match="robot-03.*robot-01"):
        open_robot(config, "robot-03", tmp_path)
