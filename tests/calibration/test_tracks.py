import json
from dataclasses import replace

import numpy as np
import pytest

from flyball.calibration.learning import Budget
from flyball.calibration.recordings import checked_folds, score
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record
from flyball.calibration.tracks import Track, held_out_tracks


class BasicServo(ServoPendulum):
    levels = ServoPendulum.levels[:1]
    stride = 10


@pytest.fixture(scope="module")
def scored():
    rig = BasicServo()
    replays = [rig.replay(e) for e in record(TRUTH, gains=(100, 400), seconds=1.0)]
    budget = Budget(starts=1, iterations=3, refits=1, members=8, tracks=6)
    return rig, replays, [score(rig, replays, f, budget=budget) for f in checked_folds(rig, replays)]


def test_the_worst_and_the_median_held_out_recording_are_shown_as_they_were_predicted(scored):
    rig, replays, scores = scored
    worst, median = held_out_tracks(rig, replays, scores, most=50)
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


def test_a_single_held_out_recording_is_shown_once(scored):
    rig, replays, scores = scored
    mine = [replace(s, by_recording=s.by_recording[:1]) for s in scores[:1]]

    class OneFold(BasicServo):
        def folds(self, replays):
            (first, *_) = super().folds(replays)
            return [replace(first, test=first.test[:1])]

    (only,) = held_out_tracks(OneFold(), replays, mine)
    assert only.rank == "worst"


def test_json_brings_back_the_same_track(scored):
    (track, _) = held_out_tracks(*scored)
    again = Track.from_json(json.loads(json.dumps(track.to_json())))
    assert again.to_json() == track.to_json() and isinstance(again.low, np.ndarray)
