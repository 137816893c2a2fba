from dataclasses import replace

import numpy as np
import pytest

from flyball.base import InputError, Refused
from flyball.calibration.calibration import Calibration, HeldOut, scene_digest
from flyball.calibration.fleet import Fitted
from flyball.calibration.residual import (
    REPLAY_ERROR,
    attempt_residuals,
    frictions,
    recording_residuals,
    replay_errors,
    shifted,
    watched_paths,
)
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record
from flyball.tasks import tasks
from flyball.tasks.world import Attempts, World

RIG = ServoPendulum()
RUBS = "servo: all friction"


@pytest.fixture(scope="module")
def calibration():
    best = np.array(list(TRUTH.values()))
    held = HeldOut("rad", (), 0.0, 0.0, 0.0, 0.0, 0.9, 1.0, 0.0)
    paths = tuple(TRUTH)
    return Calibration(
        RIG.name, scene_digest(RIG.scene), paths, best[None], best, (), held, "improved", (), 0, "", 0, ()
    )


def found(calibration, **factors):
    truth = {p: v * factors.get(p.removeprefix("servo."), 1.0) for p, v in TRUTH.items()}
    (r,) = recording_residuals(RIG, calibration, [RIG.replay(e) for e in record(truth, gains=(400,), seconds=3.0)[:1]])
    return r, dict(zip(r.streams, r.values.tolist(), strict=True))


def test_wear_shows_most_in_its_own_parameter_and_by_the_right_amount(calibration):
    r, sound = found(calibration)
    _, worn = found(calibration, armature=1.2)
    assert r.streams == (*TRUTH, RUBS, REPLAY_ERROR)
    assert r.regime == "kp 400" and r.duration_s == pytest.approx(3, abs=0.05)
    change, path = {p: worn[p] - sound[p] for p in TRUTH}, "servo.armature"
    value = shifted(RIG.scene.parameter(path), TRUTH[path], change[path])
    assert value / TRUTH[path] == pytest.approx(1.2, abs=0.05)
    # Half of what moved leaks at most: inertia and delay act alike while the motion is slow.
    assert all(abs(c) < 0.5 * abs(change[path]) for p, c in change.items() if p != path)
    assert worn[REPLAY_ERROR] > sound[REPLAY_ERROR] + 0.5


@pytest.mark.parametrize("factor", [0.8, 1.2, 1.4])
def test_friction_of_a_joint_is_one_number(calibration, factor):
    _, sound = found(calibration)
    _, worn = found(calibration, friction=factor)
    # One step along the secant of +20 %: exact there but for the encoder's steps, elsewhere to a quarter of the change.
    off = np.exp(worn[RUBS] - sound[RUBS]) - factor
    assert abs(off) < (0.01 if factor == 1.2 else 0.25 * abs(factor - 1))
    assert worn[REPLAY_ERROR] > sound[REPLAY_ERROR] + 0.5


def test_friction_is_gathered_by_joint():
    paths = ("a.friction", "a.damping", "b.load_friction", "b.friction", "frictions.mass")
    assert frictions(paths) == {"a: all friction": ("a.friction",), "b: all friction": paths[2:4]}


def test_several_recordings_together_are_what_each_is_alone(calibration):
    replays = [RIG.replay(e) for e in record(TRUTH, gains=(200,), seconds=1.5)]
    both = recording_residuals(RIG, calibration, replays)
    for r, one in zip(both, replays, strict=True):
        (alone,) = recording_residuals(RIG, calibration, [one])
        np.testing.assert_allclose(r.values, alone.values, rtol=1e-6, atol=1e-9)


def test_a_calibration_of_another_scene_is_refused(calibration):
    with pytest.raises(Refused, match="another scene"):
        recording_residuals(RIG, replace(calibration, scene="0" * 64), [])


def test_an_arm_that_softens_shows_it():
    task, n = tasks.load("lift-fragile-v1"), 4
    paths = tuple(p.path for p in task.scene.parameters)
    nominal = task.scene.nominal(n)
    soft = nominal | {"arm.gain_scale": np.array([1.0, 1.0, 0.8, 0.8])}
    logged = World(task, n).run(task.expert(task.told(nominal)), soft, range(n))
    fitted = Fitted(paths, np.array([[nominal[p][0] for p in paths]]), 0)
    rs = attempt_residuals(task, fitted, logged, regimes=["a", "a", "b", "b"])
    assert [r.regime for r in rs] == ["a", "a", "b", "b"] and rs[0].duration_s == task.horizon_s
    j = rs[0].streams.index("arm.gain_scale")
    gain = [shifted(task.scene.parameter("arm.gain_scale"), 1.0, r.values[j]) for r in rs]
    # Half of the change at least: the box keeps some of it from being seen, and one step does not go all the way.
    assert max(abs(g - 1) for g in gain[:2]) < 0.03 and 0.75 < min(gain[2:]) <= max(gain[2:]) < 0.9
    one = Attempts({k: x[:1] for k, x in logged.signals.items()}, logged.events[:1])
    assert attempt_residuals(task, fitted, one)[0].regime == task.name


def test_replay_errors_tell_which_calibration_is_the_better_one():
    task, n = tasks.load("lift-fragile-v1"), 3
    paths = tuple(p.path for p in task.scene.parameters)
    values = task.scene.nominal(n) | {"arm.gain_scale": np.full(n, 0.8)}
    logged = World(task, n).run(task.expert(task.told(values)), values, range(n))
    stale, right = (Fitted(paths, np.array([[v[p][0] for p in paths]]), 0) for v in (task.scene.nominal(1), values))
    errors = replay_errors(task, [stale, right], logged)
    assert errors.shape == (2, n) and (errors[1] < 0.8 * errors[0]).all()


def test_only_what_moves_a_replay_is_watched():
    task = tasks.load("lift-fragile-v1")
    paths = tuple(p.path for p in task.scene.parameters)
    watched = watched_paths(task, Fitted(paths, np.ones((1, len(paths))), 0))
    assert "arm.gain_scale" in watched and "object.friction" in watched
    assert not {"object.crush_force", "tracker.noise_m", "start.x"} & set(watched)
    with pytest.raises(InputError, match="no parameter"):
        attempt_residuals(task, Fitted(("start.x",), np.ones((1, 1)), 0), None)


def test_a_shift_stays_within_the_range():
    p = RIG.scene.parameter("servo.friction")
    assert shifted(p, 0.02, 0.0) == pytest.approx(0.02)
    assert shifted(p, 0.02, 5.0) == pytest.approx(p.high) and shifted(p, 0.02, -5.0) == pytest.approx(p.low)
