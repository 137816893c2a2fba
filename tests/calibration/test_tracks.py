import json
from dataclasses import replace

import numpy as np
import pytest

from flyball.calibration.learning import Budget
from flyball.calibration.recordings import checked_folds, score
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record
from flyball.calibration.tracks import Held, Track, held_out_tracks


class BasicServo(ServoPendulum):
    levels = ServoPendulum.levels[:1]
    stride = 10


@pytest.fixture(scope="module")
def scored():
    rig = BasicServo()
    replays = [rig.replay(e) for e in record(TRUTH, gains=(100, 400), seconds=1.0)]
    budget = Budget(starts=1, iterations=3, refits=1, members=8, tracks=6)
    return replays, [score(rig, replays, f, budget=budget) for f in checked_folds(rig, replays)]


def test_the_worst_and_the_median_held_out_recording_are_shown_as_they_were_predicted(scored):
    replays, scores = scored
    worst, median = held_out_tracks([s.held for s in scores], "joint_states.position", unit="rad", most=50)
    errors = np.sort(np.concatenate([s.by_recording for s in scores]))
    assert worst.error == errors[-1] and median.error == errors[::-1][len(errors) // 2]
    assert (worst.rank, median.rank) == ("worst", "median") and worst.signal == "joint_states.position"
    for t in (worst, median):
        (replay,) = (r for r in replays if r.name == t.name)
        assert t.fold == replay.regime  # predicted by the fit that has not seen it
        assert len(t.t) == 50 and t.t[0] == 0 and t.t[-1] == replay.t[-1]
        np.testing.assert_array_equal(t.measured, replay.measured[np.isin(replay.t, t.t), 0])
        assert (t.low < t.high).all()
        # the shown error is that of the whole recording; of 50 samples of a smooth motion it is nearly the same
        assert np.abs(t.predicted - t.measured).mean() == pytest.approx(t.error, rel=0.2)


def test_what_a_score_shows_is_what_it_counts(scored):
    for s in scored[1]:
        h = s.held
        np.testing.assert_array_equal((h.measured >= h.low) & (h.measured <= h.high), s.inside)
        distance = np.abs(h.predicted - h.measured)[:, 0]
        np.testing.assert_allclose([distance[h.recording == i].mean() for i in range(len(h.names))], s.by_recording)


def held(names, size=1):
    n, rng = 30, np.random.default_rng(0)
    of = np.repeat(np.arange(len(names)), n)
    measured = rng.normal(size=(len(of), size))
    predicted = measured + 0.1
    predicted[:, -1] += 0.3
    errors, elapsed = np.arange(len(names)) + 0.5, np.tile(np.arange(n) * 0.1, len(names))
    return Held("fold", tuple(names), errors, of, elapsed, measured, predicted, predicted - 0.2, predicted + 0.2)


def test_a_single_held_out_recording_is_shown_once_and_of_several_joints_the_worst():
    (only,) = held_out_tracks([held(["a"], size=3)], "joints", components=("yaw", "elbow", "wrist"))
    assert only.rank == "worst" and only.signal == "joints wrist"
    assert only.inside == pytest.approx(2 / 3)


def test_of_joints_that_are_alike_one_that_moves_is_shown():
    h = held(["a"], size=2)
    still = np.zeros((30, 1))
    measured = np.hstack([np.sin(h.elapsed)[:, None], still])
    (only,) = held_out_tracks([replace(h, measured=measured, predicted=measured + np.array([0.010, 0.012]))], "q")
    assert only.signal == "q 0"


def test_json_brings_back_the_same_track():
    (track, _) = held_out_tracks([held("ab"), held("c")], "q")
    assert track.name == "b"
    again = Track.from_json(json.loads(json.dumps(track.to_json())))
    assert again.to_json() == track.to_json() and isinstance(again.low, np.ndarray)
