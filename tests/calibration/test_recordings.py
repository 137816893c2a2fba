import json
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from flyball.base import InputError, Missing
from flyball.base.workspace import Workspace
from flyball.calibration.learning import Budget, groups_of, learn
from flyball.calibration.recordings import (
    calibrate,
    calibrate_recordings,
    noise_floor,
    pressed_bounds,
    score,
    verdict,
)
from flyball.calibration.rigs import Fold
from flyball.calibration.rigs.cube import TossedCube
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record, servo_episode
from flyball.episodes.catalogue import Catalogue
from flyball.scenes import Scene

SMALL = Budget(starts=3, iterations=12, scouting=4, refits=2, members=32, tracks=16)
TINY = replace(SMALL, starts=1, iterations=4, refits=1, tracks=8)


class Notes:
    def __init__(self):
        self.lines = []

    def stage(self, name, total=0): ...

    def advance(self, done=1): ...

    def note(self, text):
        self.lines.append(text)


class BasicServo(ServoPendulum):
    """The model that made the simulated recordings, of a servo of which nothing is known, and no ladder to climb."""

    levels = (tuple(TRUTH),)
    priors: ClassVar[dict[str, tuple[float, float]]] = {}


@pytest.fixture(scope="module")
def fitted(bench):
    rig = BasicServo()
    recordings = [rig.replay(e) for e in bench if e.labels["position_gain_kp"] != 200]
    return calibrate(rig, recordings, data=["x"], seed=0, budget=SMALL)


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
    assert [f.name for f in h.folds] == ["kp 100", "kp 400", "kp 800"]
    assert h.after < 0.005 < 0.05 < h.before
    assert h.low <= h.after <= h.high
    assert h.coverage >= 0.8 and all(f.coverage > 0.5 for f in h.folds)
    assert h.after == pytest.approx(h.noise_floor, rel=0.15)  # the planted model is the right one
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
    c = calibrate(rig, [rig.replay(e) for e in bench[:2]], budget=TINY)
    assert [f.name for f in c.held_out.folds] == ["sweep_kp100", "drop_kp100"]


def test_what_the_recordings_do_not_show_is_not_called_identified():
    rig = BasicServo()
    # Small motions at low gain never saturate the drive: they show gain times stall torque and neither alone.
    calm = [rig.replay(e) for e in record(TRUTH, gains=(100, 200), seconds=2.0, amplitude=0.3)]
    c = calibrate(rig, calm, budget=replace(SMALL, refits=1))
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
    budget = TINY
    (first,) = calibrate_recordings(workspace, seed=1, budget=budget, progress=notes)
    assert any("held out" in line for line in notes.lines)
    assert len(first.data) == 4

    def explode(*_args, **_kwargs):
        raise AssertionError("fitted again")

    monkeypatch.setattr("flyball.calibration.recordings.calibrate", explode)
    tracks = {}
    (second,) = calibrate_recordings(workspace.path, rig="servo-pendulum", seed=1, budget=budget, tracks=tracks)
    assert second.digest == first.digest
    (shown,) = tracks.values()
    assert [t.rank for t in shown] == ["worst", "median"] and {t.fold for t in shown} <= {"kp 100", "kp 200"}
    (artifact,) = workspace.store.find("calibration", rig="servo-pendulum")
    assert set(artifact.parents) >= set(first.data)
    assert json.loads(workspace.store.get(artifact.digest))["verdict"] == first.verdict


def test_an_unknown_rig_is_refused_by_name(tmp_path, bench):
    workspace = Workspace(tmp_path / "w")
    Catalogue(workspace.store).add(bench[0], producer="test")
    with pytest.raises(Missing, match="servo-pendulum"):
        calibrate_recordings(workspace, rig="servo-pendulun")


def test_what_is_held_out_changes_nothing_but_the_score(bench):
    """Model, fit, samples and bands are bit by bit the same whatever the held-out recordings show."""
    rig = BasicServo()
    replays = [rig.replay(e) for e in bench[:6]]
    fold = Fold("kp 400", tuple(r.name for r in replays[:4]), tuple(r.name for r in replays[4:]))
    spoilt = [replace(r, measured=r.measured + 0.7 * (r.name in fold.test) * np.sin(9 * r.t)[:, None]) for r in replays]
    one, two = (score(rig, some, fold, seed=0, budget=TINY) for some in (replays, spoilt))
    np.testing.assert_array_equal(one.learned.fit.values, two.learned.fit.values)
    np.testing.assert_array_equal(one.learned.spread, two.learned.spread)
    assert one.learned.bands == two.learned.bands and one.learned.ladder == two.learned.ladder
    assert two.error.after > one.error.after + 0.2 and two.error.coverage < one.error.coverage - 0.3


def test_the_ladder_is_not_climbed_for_what_the_recordings_do_not_ask(bench):
    class Laddered(BasicServo):
        levels = (tuple(TRUTH)[:2], tuple(TRUTH), (*TRUTH, "servo.drive_friction", "servo.load_friction"))

    rig = Laddered()
    learned = learn(rig, [rig.replay(e) for e in bench[2:6]], seed=0, budget=replace(TINY, iterations=12))
    # Gain and stall torque alone do not do; the bench has no friction that depends on load.
    assert learned.level == 1 and len(learned.ladder) == 3
    assert learned.ladder[1] < 0.5 * learned.ladder[0]


def test_a_fit_that_presses_on_a_bound_is_a_verdict(bench, fitted):
    rig = BasicServo()
    # The encoder's zero is at -0.017: outside of what is allowed here.
    narrow = tuple(replace(p, low=-0.005) if p.path == "servo.offset" else p for p in rig.scene.parameters)
    rig.scene = Scene("servo-pendulum", rig.scene.model, narrow)
    replays = [rig.replay(e) for e in bench[2:6]]
    assert pressed_bounds(learn(rig, replays, seed=0, budget=replace(TINY, iterations=12))) == ["servo.offset"]
    held, rows = fitted.held_out, fitted.parameters
    assert verdict(held, rows, bounded=["servo.offset"]) == "wrong model"
    assert verdict(held, rows, converged=False) == "not identifiable"


def test_groups_are_regimes_or_parts_of_one(bench):
    rig = ServoPendulum()
    replays = [rig.replay(e) for e in bench]
    assert [len(g) for g in groups_of(replays)] == [2, 2, 2, 2]
    assert groups_of(replays[:2]) == [("sweep_kp100",), ("drop_kp100",)]
    assert groups_of(replays[:1]) == []
    tosses = [replace(replays[0], name=f"toss {i}", regime="toss") for i in range(12)]
    assert [len(g) for g in groups_of(tosses)] == [3, 3, 2, 2, 2]


def test_the_noise_floor_is_that_of_the_sensor():
    rng = np.random.default_rng(0)
    for rig in (ServoPendulum(), TossedCube()):
        seen = rng.normal(0, rig.compared.noise, (20000, rig.compared.size))
        floor = np.linalg.norm(seen, axis=1).mean() / rig.unit_size
        assert noise_floor(rig) == pytest.approx(floor, rel=0.02)


def test_verdicts(fitted):
    held, rows = fitted.held_out, fitted.parameters
    dull = [replace(r, identified=False) for r in rows]
    assert verdict(held, rows) == "improved"
    assert verdict(held, dull) == "not identifiable"
    worse = (replace(held.folds[0], after=1.1 * held.folds[0].before), *held.folds[1:])
    assert verdict(replace(held, folds=worse), rows) == "no improvement"
    nothing = tuple(replace(f, train=f.before, after=f.before) for f in held.folds)
    assert verdict(replace(held, after=held.before, folds=nothing), rows) == "wrong model"
