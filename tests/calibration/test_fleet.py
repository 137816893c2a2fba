"""Calibration of robots from their own logs: planted truths come back, what logs cannot show stays open."""

import numpy as np
import pytest

from flyball.calibration.calibration import IDENTIFIED
from flyball.calibration.fleet import Fitted, ReplayConfig, event_of, fit_robot, pick
from flyball.calibration.reproduction import gap, reproduce
from flyball.tasks import tasks
from flyball.tasks.world import World

TASK = tasks.load("lift-fragile-v1")
REDUCED = ReplayConfig(candidates=(96, 80, 64), attempts=(2, 2, 3), threads=1)
TINY = ReplayConfig(candidates=(16, 16), attempts=(1, 1), threads=1)
ROBOTS = {
    "slips": {
        "object.mass": 0.6, "object.friction": 0.35, "arm.gain_scale": 0.8, "arm.delay_s": 0.035,
        "gripper.force_scale": 1.2,
    },
    "crushes": {"object.crush_force": 6.0, "object.mass": 0.25, "gripper.force_scale": 0.8, "arm.delay_s": 0.01},
    "behaves": {"arm.gain_scale": 1.15},
}  # fmt: skip


def logged(truth, grip=0.0, n=6):
    """Attempts of the expert who takes the robot for a nominal one; grip: the force it is told instead [N]."""
    told = np.repeat(TASK.told(TASK.scene.nominal(1)), n, axis=0)
    if grip:
        told[:, 0] = grip
    values = {path: np.full(n, v) for path, v in truth.items()}
    return World(TASK, n).run(TASK.expert(told), values, range(100, 100 + n))


LOGS = {name: logged(truth, 5.0 if name == "slips" else 0.0) for name, truth in ROBOTS.items()}


@pytest.fixture(scope="module")
def fits():
    return {name: fit_robot(TASK, logs, REDUCED, seed=3) for name, logs in LOGS.items()}


def truth_of(robot, path):
    return ROBOTS[robot].get(path, TASK.scene.parameter(path).nominal)


def band(fit, path):
    """90 % band in units of the parameter's range: (low, high)."""
    return np.quantile(TASK.scene.parameter(path).to_unit(fit.values()[path]), [0.05, 0.95])


def test_the_robots_are_what_their_names_say():
    groups = {name: {j.group for j in logs.judge(TASK)} for name, logs in LOGS.items()}
    assert groups == {"slips": {"slipped"}, "crushes": {"crushed"}, "behaves": {""}}


@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("path", ["gripper.force_scale", "arm.gain_scale", "arm.delay_s", "object.size_scale"])
def test_what_every_log_shows_is_found(fits, robot, path):
    low, high = band(fits[robot], path)
    truth = float(TASK.scene.parameter(path).to_unit(truth_of(robot, path)))
    assert high - low < 0.12, "of the range that was possible"
    assert low - 0.03 <= truth <= high + 0.03


def test_slipping_shows_friction_over_mass_but_hardly_the_mass(fits):
    ratio = next(d for d in TASK.derived if d.path == "friction/mass")
    low, high = np.log(np.quantile(ratio.of(fits["slips"].values()), [0.05, 0.95]))
    assert low - 0.25 <= np.log(0.35 / 0.6) <= high + 0.25
    assert high - low < IDENTIFIED * np.log(8 * 10), "80 times: what the ranges of the two would allow"
    assert np.ptp(band(fits["slips"], "object.mass")) > 0.1, "the box was never carried"


@pytest.mark.parametrize("robot", ROBOTS)
def test_what_logs_cannot_show_keeps_the_width_of_its_prior(fits, robot):
    along, across = (np.ptp(band(fits[robot], f"tracker.bias_m.{axis}")) for axis in "xy")
    assert along > IDENTIFIED, "boxes are not turned here: an error along the pads moves nothing"
    assert across < 0.6 * along, "but the fingers feel one across"


def test_one_crush_brackets_what_the_box_bears_and_none_bounds_it(fits):
    crushed = fits["crushes"].values()["object.crush_force"]
    low, high = np.quantile(crushed, [0.05, 0.95])
    assert low / 1.05 <= 6.0 <= high * 1.05 and high / low < 1.25
    held = fits["behaves"].values()["object.crush_force"]
    felt = LOGS["behaves"].signals["gripper.force"].max()
    assert held.min() > 0.85 * felt, "it bore what was felt"
    assert np.quantile(held, 0.95) > 1.8 * np.quantile(held, 0.05), "how much more is open"


def test_the_scene_answers_like_the_robot_after_the_fit(fits):
    def apart(values, draws):
        return gap(TASK, LOGS["crushes"], [4, 5], values, draws, seed=0)

    before, after = apart(TASK.scene.nominal(1), 1), apart(fits["crushes"].values(), 4)
    floor = apart({p.path: np.array([truth_of("crushes", p.path)]) for p in TASK.scene.parameters}, 1)
    assert after - floor < 0.5 * (before - floor), "sensor noise sets the floor"


def test_a_failure_comes_back_under_the_truth_and_the_fit_but_not_in_the_nominal_scene(fits):
    truth = {p.path: np.array([truth_of("crushes", p.path)]) for p in TASK.scene.parameters}
    assert (reproduce(TASK, LOGS["crushes"], [0, 1], truth, 4, seed=0) == 1).all()
    assert (reproduce(TASK, LOGS["crushes"], [0, 1], TASK.scene.nominal(1), 4, seed=0) == 0).all()
    assert (reproduce(TASK, LOGS["crushes"], [0, 1], fits["crushes"].values(), 6, seed=0) > 0.5).all()


def test_samples_are_joint_within_range_and_decided_by_the_seed():
    a, b, c = (fit_robot(TASK, LOGS["crushes"], TINY, seed=s) for s in (3, 3, 4))
    np.testing.assert_array_equal(a.samples, b.samples)
    assert not np.array_equal(a.samples, c.samples)
    assert set(a.paths) == {p.path for p in TASK.scene.parameters} and a.replays == 32
    for p in TASK.scene.parameters:
        if not p.path.startswith("start."):  # where boxes are put is read off, not searched
            assert (a.values()[p.path] >= p.low - 1e-9).all() and (a.values()[p.path] <= p.high + 1e-9).all()


def test_a_fit_can_go_on_from_an_earlier_one(fits):
    again = fit_robot(TASK, LOGS["crushes"], TINY, seed=5, start=fits["crushes"])
    fresh = fit_robot(TASK, LOGS["crushes"], TINY, seed=5)

    def width(fit: Fitted) -> float:
        return float(np.mean([np.ptp(band(fit, p)) for p in ("arm.gain_scale", "gripper.force_scale", "object.mass")]))

    assert width(again) < 0.6 * width(fresh)


def test_attempts_of_every_outcome_are_picked_first():
    whole = {k: np.concatenate([LOGS["slips"].signals[k][:4], LOGS["crushes"].signals[k][:1]]) for k in
             LOGS["slips"].signals}  # fmt: skip
    mixed = type(LOGS["slips"])(whole, [*LOGS["slips"].events[:4], LOGS["crushes"].events[0]])
    assert 4 in pick(mixed, TASK, 2), "the only crush is worth more than a fourth slip"
    assert len(set(pick(mixed, TASK, 5).tolist())) == 5 and len(pick(mixed, TASK, 9)) == 5


def test_thresholds_are_known_by_their_event():
    assert [event_of(p) for p in TASK.scene.parameters if event_of(p)] == ["crushed"]


def test_what_a_robot_feels_after_it_has_let_go_says_nothing_of_what_the_box_bears():
    # the hand is empty and bounces around: no replay does so in the same way
    late = [[(3.3, "crushed")] for _ in LOGS["slips"].events]
    fit = fit_robot(TASK, type(LOGS["slips"])(LOGS["slips"].signals, late), TINY, seed=3)
    low, high = np.quantile(fit.values()["object.crush_force"], [0.05, 0.95])
    assert high > 1.8 * low, "the crush is no measurement"
    early = [[(1.04, "crushed")] for _ in LOGS["slips"].events]
    fit = fit_robot(TASK, type(LOGS["slips"])(LOGS["slips"].signals, early), TINY, seed=3)
    low, high = np.quantile(fit.values()["object.crush_force"], [0.05, 0.95])
    assert high < 1.6 * low, "while it holds, one is"
