"""slide-puck-v1: the judge's groups, and that friction and delay are what must be known."""

import numpy as np
import pytest

from flyball.robots.zoo import flyarm
from flyball.tasks import tasks
from flyball.tasks.world import World

TASK = tasks.load("slide-puck-v1")


def slid_to(x, y, *, bias=(0.0, 0.0), moving=0.0):
    """Signals of a puck that slides from (0.45, -0.15) to (x, y) with a mark at (0.45, 0.47)."""
    steps = round(TASK.horizon_s * TASK.control_hz)
    share = np.clip(np.arange(steps) / 40, 0, 1)[:, None]
    puck = np.array([0.45, -0.15]) + share * (np.array([x, y]) - np.array([0.45, -0.15]))
    puck[:, 1] += moving * np.clip(np.arange(steps) - 40, 0, None) / TASK.control_hz
    pose = np.column_stack([puck + bias, np.full(steps, 0.02), np.zeros(steps)])
    return {"object.pose": pose, "mark.position": np.tile(np.array([0.45, 0.47]) + bias, (steps, 1))}


@pytest.mark.parametrize(
    ("x", "y", "expected"),
    [
        (0.45, 0.47, ""),
        (0.48, 0.48, ""),
        (0.45, 0.35, "short"),
        (0.46, 0.60, "long"),
        (0.55, 0.47, "wide"),
        (0.45, -0.13, "missed"),
    ],
)
def test_judge_says_what_happened(x, y, expected):
    judged = TASK.judge(slid_to(x, y), [])
    assert (judged.outcome, judged.group) == ("failure" if expected else "success", expected)


def test_a_common_bias_of_the_tracker_does_not_change_the_judgement():
    for y in (0.44, 0.41):
        assert TASK.judge(slid_to(0.45, y), []).group == TASK.judge(slid_to(0.45, y, bias=(0.006, -0.006)), []).group


def test_a_puck_that_only_passes_the_mark_is_no_success():
    assert TASK.judge(slid_to(0.45, 0.40, moving=0.08), []).group == "long"


@pytest.mark.parametrize("unknown", ["object.friction", "arm.delay_s"])
def test_each_of_friction_and_delay_decides(unknown):
    n = 48
    values = TASK.scene.nominal(n) | TASK.draw_reality(np.random.default_rng(3), n)
    believed = values | {unknown: TASK.scene.nominal(n)[unknown]}
    world = World(TASK, n)

    def solved(told):
        judged = world.run(TASK.expert(told), values, list(range(n))).judge(TASK)
        return np.mean([j.outcome == "success" for j in judged])

    assert solved(TASK.told(values)) >= 0.97
    assert solved(TASK.told(believed)) <= 0.5


def test_the_mark_is_out_of_reach_and_the_hand_lets_go_before_it():
    n = 8
    values = TASK.scene.nominal(n)
    world = World(TASK, n)
    done = world.run(TASK.expert(TASK.told(values)), values, list(range(n)))
    hand = flyarm.forward(done.signals["joint.position"])[..., :2]
    mark = done.signals["mark.position"].mean(axis=1)
    reach = flyarm.UPPER + flyarm.FORE
    assert np.hypot(*mark.T).min() > reach
    assert np.linalg.norm(hand - mark[:, None], axis=2).min() > 0.25
    assert [j.outcome for j in done.judge(TASK)] == ["success"] * n


def test_tell_prefers_the_friction_that_most_samples_forgive():
    """A posterior with a long tail: the mean would miss what most samples agree on."""
    friction = np.concatenate([np.full(80, 0.040), np.full(20, 0.075)])
    samples = {p.path: np.full(100, p.nominal) for p in TASK.scene.parameters} | {"object.friction": friction}
    assert TASK.tell(samples)[0] == pytest.approx(0.040, rel=0.02)
