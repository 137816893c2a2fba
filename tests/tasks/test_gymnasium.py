"""Tasks as Gymnasium environments: the library's own checker, one world against many, and what an attempt is worth."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from flyball.base import FlyballError
from flyball.scenes import LogUniform, Ramp, Vary
from flyball.tasks import tasks
from flyball.tasks.gymnasium import TaskEnv, TaskVectorEnv

NAMES = ["lift-fragile-v1", "slide-puck-v1"]
VARY = [LogUniform("object.mass", 0.2, 0.4)]


@pytest.mark.parametrize("name", NAMES)
def test_gymnasiums_own_checker_finds_nothing(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|not symmetric|normalized|spec).*")
        check_env(TaskEnv(name), skip_render_check=True)


def test_every_task_is_found_by_name():
    ids = [i for i in gymnasium.registry if i.startswith("flyball/")]
    assert sorted(ids) == sorted(f"flyball/{n}" for n in tasks.names())
    env = gymnasium.make("flyball/lift-fragile-v1", vary="reality")
    assert isinstance(env.unwrapped, TaskEnv)
    many = gymnasium.make_vec("flyball/lift-fragile-v1", 3)
    assert isinstance(many.unwrapped, TaskVectorEnv) and many.num_envs == 3


def test_many_worlds_give_the_bits_of_single_ones_across_a_reset():
    seeds = [5, 6, 7]
    many = TaskVectorEnv(NAMES[0], 3, vary=VARY, threads=1)
    single = SyncVectorEnv([lambda: TaskEnv(NAMES[0], vary=VARY)] * 3, autoreset_mode=AutoresetMode.NEXT_STEP)
    rng = np.random.default_rng(0)
    at, alone = many.reset(seed=seeds)[0], single.reset(seed=seeds)[0]
    ends = 0
    for _ in range(many._episodes.world.steps + 5):
        assert all(np.array_equal(at[k], alone[k]) for k in alone)
        action = rng.uniform(-0.1, 0.1, many.action_space.shape)
        (at, *one, info), (alone, *other, info_alone) = many.step(action), single.step(action)
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))
        if one[2].any():
            ends += 1
            assert np.array_equal(info["progress"], info_alone["progress"])
            assert list(info["group"]) == list(info_alone["group"])
    assert ends == 1 and not one[2].any(), "the step after the end began a new attempt"


def test_an_attempt_is_worth_what_the_task_judges():
    task = tasks.load(NAMES[0])
    env = TaskVectorEnv(task, 4, threads=1)
    mass = np.array([0.3, 0.3, 0.3, 0.3])
    observation, _ = env.reset(seed=1, options={"values": {"object.mass": mass}})
    expert = task.expert(task.told(task.scene.nominal(4) | {"object.mass": mass}))
    rewards = []
    for _ in range(env._episodes.world.steps):
        observation, reward, terminated, truncated, info = env.step(expert(observation))
        rewards.append(reward)
        assert not terminated.any()
    assert truncated.all() and info["success"].all() and np.array_equal(rewards[-1], np.ones(4))
    assert not np.any(rewards[:-1])
    env.reset(seed=1)
    for _ in range(env._episodes.world.steps):
        _, reward, _, truncated, info = env.step(np.zeros((4, task.embodiment.action_size)))
    assert truncated.all() and not info["success"].any() and (reward < 1).all()
    assert set(info["group"]) <= set(task.groups)


def test_seeds_decide_everything_and_differ_between_worlds():
    env = TaskVectorEnv(NAMES[0], 2, vary="reality", threads=1)
    first, again, other = (env.reset(seed=s)[0] for s in (3, 3, 4))
    assert all(np.array_equal(first[k], again[k]) for k in first)
    assert np.array_equal(first["object.pose"][1], other["object.pose"][0]), "world i of seed s is world 0 of s + i"
    assert not np.array_equal(first["object.pose"][0], first["object.pose"][1])


def test_what_makes_no_sense_is_refused():
    with pytest.raises(FlyballError, match="nominal, reality"):
        TaskEnv(NAMES[0], vary="wild")
    env = TaskVectorEnv(NAMES[0], 2, threads=1)
    with pytest.raises(FlyballError, match="one for each of 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(FlyballError, match=r"object\.mas"):
        env.reset(seed=1, options={"values": {"object.mas": np.ones(2)}})
    with pytest.raises(FlyballError, match="no option named 'value'.*values"):
        env.reset(seed=1, options={"value": {}})


def test_a_curriculum_goes_by_an_option():
    env = TaskVectorEnv(NAMES[0], 2, vary=[Vary("object.mass", Ramp(0.2, 0.4))], threads=1)
    for progress, mass in ((0.0, 0.2), (0.5, 0.3), (1.0, 0.4)):
        env.reset(seed=1, options={"progress": progress})
        assert env._episodes.world.values["object.mass"] == pytest.approx([mass, mass])
