from dataclasses import replace

import numpy as np
import pytest

from flyball.base import InputError, Refused
from flyball.calibration.calibration import Calibration, HeldOut, scene_digest
from flyball.calibration.fleet import Fitted
from flyball.calibration.residual import (
    REPLAY_ERROR,
    attempt_residuals,
    recording_residuals,
    shifted,
    watched_paths,
)
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record
from flyball.tasks import tasks
from flyball.tasks.world import World

RIG = ServoPendulum()


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


@pytest.mark.parametrize("part", ["friction", "armature"])
def test_wear_shows_most_in_its_own_parameter_and_by_the_right_amount(calibration, part):
    r, sound = found(calibration)
    _, worn = found(calibration, **{part: 1.2})
    assert r.streams == (*TRUTH, "servo: all friction", REPLAY_ERROR) and r.regime == "kp 400" and r.duration_s == pytest.approx(3, abs=0.05)
    change = {p: worn[p] - sound[p] for p in TRUTH}
    path = f"servo.{part}"
    value = shifted(RIG.scene.parameter(path), TRUTH[path], change[path])
    assert value / TRUTH[path] == pytest.approx(1.2, abs=0.05)
    # Half of what moved leaks at most: inertia and delay act alike while the motion is slow.
    assert all(abs(c) < 0.5 * abs(change[path]) for p, c in change.items() if p != path)
    assert worn[REPLAY_ERROR] > sound[REPLAY_ERROR] + 0.5


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
    assert attempt_residuals(task, fitted, logged)[0].regime == task.name


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
