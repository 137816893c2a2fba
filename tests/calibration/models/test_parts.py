"""The pieces that a calibration of a model is made of."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.calibration.models.calibrate import prepared, read_model, rig_of
from flyball.calibration.models.gauss_newton import Fitted, step
from flyball.calibration.models.linear import Replays, clusters, once_each, owners
from flyball.calibration.models.posterior import posterior
from flyball.calibration.models.recording import joint_start, noise_of
from flyball.calibration.models.regression import regressed
from flyball.calibration.models.rig import measured_by
from flyball.calibration.models.testing import NOISE, arm, record
from flyball.calibration.problem import ReplayProblem

TRUTH = {
    "j0.gain": 165.0, "j0.friction": 0.9, "j0.damping": 1.7, "j0.armature": 0.07, "j0.offset": -0.02,
    "command.delay": 0.014,
}  # fmt: skip


@pytest.fixture(scope="module")
def recorded():
    episodes = record(TRUTH, joints=1, episodes=2)
    rig = rig_of(read_model(arm(1)), episodes)
    replays = prepared(rig, episodes).replays
    return measured_by(rig, replays), replays


def problem_of(recorded, paths, timestep=0.001):
    rig, replays = recorded
    return ReplayProblem(rig.scene, rig.compared, replays, paths, engine="mujoco", timestep=timestep)


def test_the_truth_replays_to_the_noise(recorded):
    problem = problem_of(recorded, list(TRUTH))
    left = problem.predict(np.array([list(TRUTH.values())]))[0] - problem.measured
    assert np.std(left) == pytest.approx(NOISE, rel=0.1)


def test_each_recording_may_have_its_own_values(recorded):
    problem = problem_of(recorded, ["j0.gain"])
    alike, other = problem.predict(np.array([[165.0], [80.0]]))
    own = problem.predict(np.array([[[165.0], [80.0]]]))[0]
    assert np.array_equal(own[problem.episode == 0], alike[problem.episode == 0])
    assert np.array_equal(own[problem.episode == 1], other[problem.episode == 1])


def test_held_commands_are_smooth_in_the_delay(recorded):
    # a hundredth of a step more delay moves the prediction a hundredth as far as a step does
    problem = problem_of(recorded, ["command.delay"], timestep=0.004)
    a, b, c = problem.predict(np.array([[0.0141], [0.01414], [0.0181]]))
    assert np.linalg.norm(b - a) == pytest.approx(np.linalg.norm(c - a) / 100, rel=0.1)


def test_the_regression_comes_close(recorded):
    rig, replays = recorded
    found = regressed(rig, replays)
    for path, value in TRUTH.items():
        tolerance = 0.004 if path == "command.delay" else 0.35 * abs(value)  # the grid of delays; errors in variables
        assert found[path] == pytest.approx(value, abs=tolerance), path


def test_the_noise_of_a_moving_joint():
    rng, t = np.random.default_rng(0), np.arange(600) / 100
    q = 0.8 * np.sin(5 * t)
    assert noise_of(q + rng.normal(0, 3e-4, 600)) == pytest.approx(3e-4, rel=0.2)
    assert noise_of(np.round(q / 0.0015) * 0.0015) == pytest.approx(0.0015 / np.sqrt(12), rel=0.3)


def test_the_start_is_taken_from_many_samples():
    rng, t = np.random.default_rng(1), np.arange(300) / 200
    (still,), (v,) = joint_start(t, 0.3 + rng.normal(0, 1e-3, 300))
    assert still == pytest.approx(0.3, abs=4e-4)
    assert v == 0
    (q,), (v,) = joint_start(t, 0.3 + 0.8 * t - t**2 + rng.normal(0, 1e-4, 300))
    assert q == pytest.approx(0.3, abs=3e-4)
    assert v == pytest.approx(0.8, abs=0.02)


@given(st.lists(st.integers(0, 2), min_size=1, max_size=40))
def test_runs_of_equal_readings_count_once(readings):
    x = np.array(readings, float)[:, None]
    weight = once_each(x, np.zeros(len(x), int))
    changes = 1 + int(np.count_nonzero(np.diff(x[:, 0])))
    assert weight.sum() == pytest.approx(changes)
    assert (weight > 0).all()


@given(st.integers(0, 10_000), st.integers(2, 12))
def test_a_step_stays_in_the_box_and_promises_a_fall(seed, n):
    # one direction that nothing is known of: most of a free step would be clipped, and what is left of it climbs
    rng = np.random.default_rng(seed)
    j = rng.normal(size=(n - 1, n)) * 10 ** rng.uniform(-1, 3, n)
    h, u = j.T @ j + 12 * np.eye(n), rng.uniform(0, 1, n)
    g = j.T @ rng.normal(size=n - 1) * 10 ** rng.uniform(0, 2)
    free = SimpleNamespace(own=SimpleNamespace(deviations=np.zeros(n, bool)))
    d = step(free, u, h, g, 1e-9)
    assert ((u + d >= 0) & (u + d <= 1)).all()
    clipped = np.clip(u + np.clip(-np.linalg.solve(h, g), -0.25, 0.25), 0, 1) - u
    least = min(0.0, float(g @ clipped + 0.5 * clipped @ h @ clipped))
    assert float(g @ d + 0.5 * d @ h @ d) <= (1 - 1e-3) * least + 1e-9


def test_the_posterior_knows_what_the_models_own_error_hides(recorded):
    problem = problem_of(recorded, ["j0.gain", "j0.damping"])
    replays = Replays(problem, owners(problem.parameters, problem.replays, np.full(2, 0.5)), clusters(problem))
    u = np.full(2, 0.5)
    slope = np.zeros((*problem.measured.shape, 2))
    slope[..., 0] = 0.02  # a hundred times the noise over the range
    far = replays.weigh(u, problem.measured + np.where(np.arange(len(slope)) % 2, 1.0, -1.0)[:, None], slope)
    found = posterior(replays, Fitted(far, np.ones(2, bool), True, 1))
    assert found.hidden(0)
    assert not found.hidden(1)
    assert not found.excited(1)
