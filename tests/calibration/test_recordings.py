import json
from dataclasses import replace

import numpy as np
import pytest

from flyball.base import InputError, Missing
from flyball.base.workspace import Workspace
from flyball.calibration.recordings import Budget, calibrate, calibrate_recordings, verdict
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record, servo_episode
from flyball.episodes.catalogue import Catalogue

SMALL = Budget(starts=4, iterations=15, refits=3, members=32)


class Notes:
    def __init__(self):
        self.lines = []

    def stage(self, name, total=0): ...

    def advance(self, done=1): ...

    def note(self, text):
        self.lines.append(text)


class BasicServo(ServoPendulum):
    """Without load-dependent friction: the model that made the simulated recordings, and no ladder to climb."""

    levels = ServoPendulum.levels[:1]


@pytest.fixture(scope="module")
def fitted(bench):
    rig = BasicServo()
    return calibrate(rig, [rig.replay(e) for e in bench], data=["x"], seed=0, budget=SMALL)


def test_planted_parameters_lie_within_their_bands(fitted):
    inside = {r.path: r.low <= TRUTH[r.path] <= r.high for r in fitted.parameters}
    # Eight 90 % bands: fewer than six hits would be a one-in-two-hundred event.
    assert sum(inside.values()) >= 6, inside
    best = dict(zip(fitted.paths, fitted.best, strict=True))
    for path in ("servo.gain", "servo.stall_torque", "servo.friction", "servo.armature"):
        assert best[path] == pytest.approx(TRUTH[path], rel=0.1), path
    assert best["servo.offset"] == pytest.approx(TRUTH["servo.offset"], abs=0.002)
    assert best["servo.delay_s"] == pytest.approx(TRUTH["servo.delay_s"], abs=0.002)


def test_the_verdict_on_planted_recordings(fitted):
    h = fitted.held_out
    assert fitted.verdict == "improved"
    assert [f.name for f in h.folds] == ["kp 100", "kp 200", "kp 400", "kp 800"]
    assert h.after < 0.005 < 0.05 < h.before
    assert h.low <= h.after <= h.high
    assert h.coverage >= 0.8
    assert {r.path for r in fitted.parameters if r.identified} >= {"servo.gain", "servo.armature", "servo.offset"}


def test_the_calibrated_scene_carries_the_bands(fitted):
    drawn = fitted.apply(BasicServo.scene).draw(np.random.default_rng(0), 500)
    for row in fitted.parameters:
        share = np.mean((drawn[row.path] >= row.low) & (drawn[row.path] <= row.high))
        assert 0.8 <= share <= 1.0
        assert (drawn[row.path] >= row.prior_low - 1e-12).all() and (drawn[row.path] <= row.prior_high + 1e-12).all()


def test_a_pendulum_at_rest_is_refused_in_one_line():
    t = np.arange(400) * 0.005
    rig = ServoPendulum()
    still = [rig.replay(servo_episode(f"s{kp}", kp, t, np.zeros(400), np.zeros(400))) for kp in (100, 200)]
    with pytest.raises(InputError, match="no motion") as caught:
        calibrate(rig, still)
    assert "\n" not in str(caught.value)


def test_one_recording_is_refused_and_one_gain_is_split_by_recording(bench):
    rig = BasicServo()
    with pytest.raises(InputError, match="hold out"):
        calibrate(rig, [rig.replay(bench[0])], budget=SMALL)
    c = calibrate(rig, [rig.replay(e) for e in bench[:2]], budget=replace(SMALL, starts=2, iterations=4, refits=1))
    assert [f.name for f in c.held_out.folds] == ["sweep_kp100", "drop_kp100"]


def test_what_the_recordings_do_not_show_is_not_called_identified():
    rig = BasicServo()
    # Small motions at low gain never saturate the drive: they show gain times stall torque and neither alone.
    calm = [rig.replay(e) for e in record(TRUTH, gains=(100, 200), seconds=2.0, amplitude=0.3)]
    c = calibrate(rig, calm, budget=replace(SMALL, iterations=10))
    rows = {r.path: r for r in c.parameters}
    assert not rows["servo.stall_torque"].identified
    assert rows["servo.stall_torque"].note == "only in combination with servo.gain"
    product = c.samples[:, c.paths.index("servo.gain")] * c.samples[:, c.paths.index("servo.stall_torque")]
    np.testing.assert_allclose(np.median(product), TRUTH["servo.gain"] * TRUTH["servo.stall_torque"], rtol=0.1)


def test_a_workspace_is_calibrated_once_and_remembers(tmp_path, bench, monkeypatch):
    workspace, notes = Workspace(tmp_path / "w"), Notes()
    catalogue = Catalogue(workspace.store)
    with pytest.raises(Missing, match="no recordings"):
        calibrate_recordings(workspace)
    for e in bench[:4]:
        catalogue.add(e, producer="test")
    catalogue.add(replace(bench[0], labels={}), producer="test")  # of no rig
    budget = replace(SMALL, starts=1, iterations=4, refits=1)
    (first,) = calibrate_recordings(workspace, seed=1, budget=budget, progress=notes)
    assert any("held-out error" in line for line in notes.lines)
    assert len(first.data) == 4

    def explode(*_args, **_kwargs):
        raise AssertionError("fitted again")

    monkeypatch.setattr("flyball.calibration.recordings.calibrate", explode)
    (second,) = calibrate_recordings(workspace.path, rig="servo-pendulum", seed=1, budget=budget)
    assert second.digest == first.digest
    (artifact,) = workspace.store.find("calibration", rig="servo-pendulum")
    assert set(artifact.parents) >= set(first.data)
    assert json.loads(workspace.store.get(artifact.digest))["verdict"] == first.verdict


def test_an_unknown_rig_is_refused_by_name(tmp_path, bench):
    workspace = Workspace(tmp_path / "w")
    Catalogue(workspace.store).add(bench[0], producer="test")
    with pytest.raises(Missing, match="servo-pendulum"):
        calibrate_recordings(workspace, rig="servo-pendulun")


def test_verdicts(fitted):
    held, rows = fitted.held_out, fitted.parameters
    dull = [replace(r, identified=False) for r in rows]
    assert verdict(held, rows) == "improved"
    assert verdict(held, dull) == "not identifiable"
    worse = (replace(held.folds[0], after=1.1 * held.folds[0].before), *held.folds[1:])
    assert verdict(replace(held, folds=worse), rows) == "no improvement"
    nothing = tuple(replace(f, train=f.before, after=f.before) for f in held.folds)
    assert verdict(replace(held, after=held.before, folds=nothing), rows) == "wrong model"
