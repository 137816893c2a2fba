"""insert-peg-v1: what happens when, that offset and press must be known, and what is told."""

import numpy as np
import pytest

from flyball.tasks import tasks
from flyball.tasks.world import World
from flyball.tasks.zoo.insert_peg import HOME, HOME_Z, capacity

TASK = tasks.load("insert-peg-v1")


def run(told, given, seeds=(1, 2)):
    """Groups ("" for success) of attempts in cells that are nominal but for ``given``."""
    n = len(seeds)
    values = TASK.scene.nominal(n) | {path: np.full(n, float(v)) for path, v in given.items()}
    expert = TASK.expert(TASK.told(values) if told is None else np.tile(told, (n, 1)))
    attempts = World(TASK, n).run(expert, values, list(seeds))
    return [j.group for j in attempts.judge(TASK)], attempts


NOMINAL = TASK.told(TASK.scene.nominal(1))[0]


@pytest.mark.parametrize(
    ("given", "told", "expected"),
    [
        ({}, NOMINAL, ""),
        ({"marker.offset_m.x": -0.010, "marker.offset_m.y": 0.010}, None, ""),
        ({"marker.offset_m.x": -0.010, "marker.offset_m.y": 0.010}, NOMINAL, "jammed"),
        ({"object.seat_force": 18.0, "object.friction": 0.9}, None, ""),
        ({"object.seat_force": 18.0, "object.friction": 0.9}, NOMINAL, "loose"),
        ({"object.seat_force": 4.0, "object.friction": 0.2}, None, ""),
        ({"object.seat_force": 4.0, "object.friction": 0.2}, NOMINAL, "slipped"),
        ({"gripper.force_scale": 0.6, "object.friction": 0.15}, NOMINAL, "slipped"),
    ],
)
def test_what_becomes_of_an_attempt(given, told, expected):
    assert run(told, given)[0] == [expected] * 2


def test_a_hand_that_never_comes_down_has_missed():
    _, attempts = run(NOMINAL, {})
    signals = {k: x[:10].repeat(8, axis=0) for k, x in attempts.one(0).items()}
    assert TASK.judge(signals, []).group == "missed"


def test_a_click_alone_is_no_success():
    """The switch clicked, but the peg was pushed up through the fingers."""
    groups, attempts = run(np.array([30.0, *NOMINAL[1:]]), {"object.friction": 0.4})
    assert all(e and e[0][1] == "seated" for e in attempts.events)
    assert groups == ["slipped"] * 2


def test_offset_and_press_each_decide():
    n = 32
    values = TASK.scene.nominal(n) | TASK.draw_reality(np.random.default_rng(3), n)
    nominal = TASK.scene.nominal(n)
    world = World(TASK, n)

    def solved(believed):
        judged = world.run(TASK.expert(TASK.told(believed)), values, list(range(n))).judge(TASK)
        return np.mean([j.outcome == "success" for j in judged])

    press = [p.path for p in TASK.scene.parameters if p.path.startswith(("object.", "gripper."))]
    offset = [f"marker.offset_m.{a}" for a in "xy"]
    assert solved(values) >= 0.97
    assert solved(nominal) <= 0.5
    assert solved(values | {p: nominal[p] for p in press}) <= 0.85
    assert solved(values | {p: nominal[p] for p in offset}) <= 0.75


def test_attempts_start_with_the_peg_between_the_pads_and_keep_it():
    _, attempts = run(None, {"arm.gain_scale": 0.6})
    peg, hand_z = attempts.signals["object.pose"][:, :8, 2], HOME[2]
    assert np.abs(peg.mean() - hand_z) < 0.02
    assert (attempts.signals["object.pose"][:, -5:, 2].mean(axis=1) < HOME_Z + 0.004).all()


def test_tell_prefers_the_press_that_most_samples_forgive():
    """A posterior with a long tail: the geometric mean of the mean window would click in few of its sockets."""
    seat = np.concatenate([np.full(80, 12.0), np.full(20, 3.0)])
    nominal = {p.path: np.full(100, p.nominal) for p in TASK.scene.parameters}
    friction = np.concatenate([np.full(80, 0.6), np.full(20, 0.2)])
    samples = nominal | {"object.seat_force": seat, "object.friction": friction}
    press = TASK.tell(samples)[0]
    bears = capacity(samples)
    assert ((press > seat) & (press < bears)).mean() == pytest.approx(0.8)
