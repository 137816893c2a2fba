"""Demonstrations: windows of successful attempts; disturbed in execution, clean as labels; decided by seeds."""

import numpy as np
import pytest

from flyball.base import InputError
from flyball.datagen.demonstrations import DemonstrationConfig, Demonstrations, demonstrate
from flyball.tasks import tasks

TASK = tasks.load("lift-fragile-v1")
STEPS = round(TASK.horizon_s * TASK.control_hz)
SEEDS = [11, 12, 13, 14]
CONFIG = DemonstrationConfig(threads=1)


def shown(seeds, config=CONFIG, controller=None, **values):
    n = len(seeds)
    full = TASK.scene.nominal(n) | {k: np.asarray(v, float) for k, v in values.items()}
    return demonstrate(TASK, full, TASK.told(full), seeds, config, controller=controller)


class Watched:
    """The expert, with everything it saw and answered."""

    def __init__(self, n):
        self.told = TASK.told(TASK.scene.nominal(n))
        self.act, self.saw, self.answered = TASK.expert(self.told), [], []

    def __call__(self, observation):
        action = self.act(observation)
        self.saw.append({k: v.copy() for k, v in observation.items()})
        self.answered.append(action)
        return action


@pytest.fixture(scope="module")
def plain():
    return shown(SEEDS)


def test_one_window_per_period_of_every_successful_attempt(plain):
    assert (plain.attempts, plain.kept) == (4, 4)
    assert plain.features.shape[0] == plain.codes.shape[0] == 4 * STEPS
    assert plain.codes.shape[1] == CONFIG.chunk and plain.features.dtype == plain.codes.dtype == np.float32
    assert np.isfinite(plain.features).all() and np.isfinite(plain.codes).all()


def test_windows_hold_the_clean_actions_that_follow(plain):
    expert = Watched(4)
    watched = shown(SEEDS, controller=expert)
    np.testing.assert_array_equal(watched.codes, plain.codes)
    low, high = TASK.embodiment.action_limits()
    clean = np.clip(np.stack(expert.answered, axis=1), low, high)
    windows = watched.codes.reshape(STEPS, 4, CONFIG.chunk, -1)
    for k in (0, 30, STEPS - 3):
        decoded = TASK.decode(expert.saw[k], expert.told, windows[k].astype(float))
        wanted = np.stack([clean[:, min(k + i, STEPS - 1)] for i in range(CONFIG.chunk)], axis=1)
        np.testing.assert_allclose(decoded[..., :5], wanted[..., :5], atol=1e-5, err_msg=f"window {k}")
    np.testing.assert_allclose(
        watched.features.reshape(STEPS, 4, -1)[30], TASK.features(expert.saw[30], expert.told), rtol=1e-6, atol=1e-6
    )


def test_what_is_executed_is_disturbed_more_when_told_so():
    courses = {}
    for strength in (0.0, 0.08, 0.3):
        expert = Watched(4)
        try:
            shown(SEEDS, DemonstrationConfig(threads=1, disturbance=strength), expert)
        except InputError:
            assert strength == 0.3, "even the undisturbed expert fails"
        courses[strength] = np.stack([o["joint.position"] for o in expert.saw], axis=1)
    small, large = (np.abs(courses[s] - courses[0.0]).mean() for s in (0.08, 0.3))
    assert 1e-4 < small < large


def test_only_successes_are_kept(plain):
    some = shown([*SEEDS[:2], 15], **{"object.crush_force": [15.0, 15.0, 3.0], "object.mass": [0.35, 0.35, 0.9]})
    assert (some.attempts, some.kept) == (3, 2)
    np.testing.assert_array_equal(
        some.codes.reshape(STEPS, 2, -1), plain.codes.reshape(STEPS, 4, -1)[:, :2], "the failed one leaves no trace"
    )
    with pytest.raises(InputError, match="no demonstration succeeded"):
        shown([15], **{"object.crush_force": [3.0], "object.mass": [0.9]})


def test_a_seed_decides_its_attempt_in_any_batch(plain):
    again = shown(SEEDS)
    np.testing.assert_array_equal(again.features, plain.features)
    halves = shown(SEEDS, DemonstrationConfig(threads=1, batch=2))
    backwards = shown(SEEDS[::-1])
    whole = plain.features.reshape(STEPS, 4, -1)
    joined = np.concatenate([h.reshape(STEPS, 2, -1) for h in np.split(halves.features, 2)], axis=1)
    np.testing.assert_array_equal(joined, whole)
    np.testing.assert_array_equal(backwards.features.reshape(STEPS, 4, -1)[:, ::-1], whole)
    other = shown([s + 100 for s in SEEDS])
    assert not np.array_equal(other.features[: len(plain.features)], plain.features[: len(other.features)])


def test_history_stacks_earlier_observations(plain):
    past = shown(SEEDS, DemonstrationConfig(threads=1, history=2))
    f = plain.features.shape[1]
    stacked, single = past.features.reshape(STEPS, 4, 3, f), plain.features.reshape(STEPS, 4, f)
    np.testing.assert_array_equal(stacked[:, :, 2], single)
    np.testing.assert_array_equal(stacked[2:, :, 0], single[:-2])
    np.testing.assert_array_equal(stacked[0, :, 0], single[0], "the first observation stands for what was before it")


def test_sets_are_joined_with_their_counts(plain):
    both = Demonstrations.joined([plain, plain])
    assert len(both.features) == 2 * len(plain.features) and (both.attempts, both.kept) == (8, 8)
