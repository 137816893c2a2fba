"""The contract of Task, kept by the zoo and broken on purpose."""

import numpy as np
import pytest

from flyball.tasks import tasks
from flyball.tasks.task import Judgement
from flyball.tasks.testing import check_calibration_side, check_judgement, check_policy_side, check_task
from flyball.tasks.world import World


@pytest.mark.parametrize("name", ["insert-peg-v1", "lift-fragile-v1", "slide-puck-v1"])
def test_zoo_tasks_keep_the_contract(name):
    check_task(tasks.load(name), draws=64, seed=1)


@pytest.mark.parametrize("name", ["insert-peg-v1", "lift-fragile-v1", "slide-puck-v1"])
def test_calibration_is_needed(name):
    """Nominal beliefs solve at most 60 % of the realities, the best fixed script at most 75 %."""
    task, n = tasks.load(name), 40
    values = task.scene.nominal(n) | task.draw_reality(np.random.default_rng(2), n)
    nominal = task.told(task.scene.nominal(n))
    world = World(task, n)

    def share(controller):
        judged = world.run(controller, values, list(range(n))).judge(task)
        return np.mean([j.outcome == "success" for j in judged])

    assert share(task.expert(nominal)) <= 0.6
    fixed = [b for name, b in task.baselines().items() if name.startswith("fixed-")]
    assert len(fixed) >= 5
    assert max(share(b(n)) for b in fixed[1::4]) <= 0.75


def broken(**changes):
    task = tasks.load("slide-puck-v1")
    return type("Broken", (type(task),), changes)()


@pytest.fixture(scope="module")
def attempts():
    task, n = tasks.load("slide-puck-v1"), 3
    values = task.scene.nominal(n)
    return World(task, n).run(task.expert(task.told(values)), values, [1, 2, 3])


def test_contract_notices_a_judge_that_never_fails_short_attempts(attempts):
    task = broken(judge=lambda self, signals, events: Judgement("success", "", 1.0))
    with pytest.raises(AssertionError, match="samples are judged"):
        check_judgement(task, attempts)


def test_contract_notices_a_group_nobody_declared(attempts):
    task = broken(judge=lambda self, signals, events: Judgement("failure", "exploded", 0.0))
    with pytest.raises(AssertionError):
        check_judgement(task, attempts)


def test_contract_notices_a_coding_without_inverse(attempts):
    task = broken(decode=lambda self, observation, told, code: code)
    with pytest.raises(AssertionError, match="inverse"):
        check_policy_side(task, attempts)


def test_contract_notices_features_that_modify_the_observation(attempts):
    def features(self, observation, told):
        observation["object.pose"] += 1.0
        return np.ones((len(told), 2))

    with pytest.raises(AssertionError, match="modified"):
        check_policy_side(broken(features=features), attempts)


def test_contract_notices_summaries_that_mix_attempts(attempts):
    def summaries(self, signals, actions):
        x = signals["object.pose"][:, -1, :2]
        return x - x.mean(axis=0), x

    with pytest.raises(AssertionError, match="depend on the others"):
        check_calibration_side(broken(summaries=summaries), attempts)


def test_contract_notices_an_expert_that_cannot(monkeypatch):
    task = broken(told=lambda self, values: 0.5 * type(tasks.load("slide-puck-v1")).told(self, values))
    with pytest.raises(AssertionError):
        check_task(task, draws=8)


def test_contract_notices_randomness_that_is_not_seeded():
    calls = iter(range(100))
    task = broken(draw_reality=lambda self, rng, n: {"object.friction": np.full(n, 0.04 + 0.001 * next(calls))})
    with pytest.raises(AssertionError, match="equal seeds"):
        check_task(task, draws=2)
