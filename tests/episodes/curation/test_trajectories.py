"""Ways do not depend on length; failures that leave where successes go are seen, and sorted by how they leave."""

from dataclasses import replace

import numpy as np
import pytest

from flyball.base import SignalSpec, Timed
from flyball.episodes.curation import Seen, checks
from flyball.episodes.curation.defects import DEFECTS, arm
from flyball.episodes.curation.tracks import resampled, scale_of, track, way
from flyball.episodes.curation.trajectories import coverage, departures, novelties
from flyball.episodes.episode import Episode

IDLE = next(d for d in DEFECTS if d.kind == "idle")


def seen(episodes):
    return [Seen(str(i), ("", ""), e.outcome, track(e)) for i, e in enumerate(episodes)]


@pytest.fixture(scope="module")
def arms():
    return [arm(i, camera=False).episode for i in range(16)]


def longer(e, how):
    """The same attempt, three times as slow, or waiting 6 s in the middle, or sampled three times as often."""
    x = arm(e.seed, camera=False)
    if how == "slower":
        return arm(e.seed, camera=False, slow=3.0).episode
    if how == "waiting":
        return IDLE.plant(x, 6.0, np.random.default_rng(e.seed)).episode
    signals = {}
    for name, s in e.signals.items():
        t = np.linspace(s.t_ns[0], s.t_ns[-1], 3 * len(s.t_ns)).astype(np.int64)
        v = np.stack([np.interp(t, s.t_ns, c) for c in np.asarray(s.values).reshape(len(s.t_ns), -1).T], axis=1)
        signals[name] = Timed(s.spec, t, v.reshape(len(t), *s.spec.shape))
    return replace(e, signals=signals)


@pytest.mark.parametrize("how", ["slower", "waiting", "denser"])
def test_lengthening_alone_moves_no_score(arms, how):
    base = seen(arms)
    scores, new = [d.score for d in departures(base)[0]], novelties(base)
    change, more = [], []
    for i in range(0, 16, 3):
        mixed = [*base[:i], Seen(str(i), ("", ""), "success", track(longer(arms[i], how))), *base[i + 1 :]]
        change.append(departures(mixed)[0][i].score - scores[i])
        more.append(novelties(mixed)[i] - new[i])
    # Other attempts at the same task differ by more than that from one another.
    assert abs(np.mean(change)) < 0.5 * np.std(scores) + 0.1 and np.abs(change).max() < 0.6
    assert np.abs(more).max() < 0.15


def test_a_way_is_as_long_as_the_movement_not_as_the_time(arms):
    tracks = [track(e) for e in arms]
    scale = scale_of(tracks)
    length = len(way(tracks[0], scale).points)
    for how in ("slower", "waiting"):
        assert len(way(track(longer(arms[0], how)), scale).points) == pytest.approx(length, rel=0.12)


def reach(seed, fault=""):
    """A point goes to a goal; a fault leaves it short of it, or off to one side in the middle."""
    rng = np.random.default_rng([seed, 5])
    t = np.linspace(0, 1, 80)
    end = 0.5 if fault == "short" else 1.0
    goal = rng.uniform(0.9, 1.1, 2)
    at = t[:, None] ** 2 * (3 - 2 * t[:, None]) * goal * end
    if fault == "swerve":
        at = at + 0.4 * np.exp(-(((t - 0.5) / 0.1) ** 2))[:, None] * [1, -1]
    stamps = (t * 3.2e9).astype(np.int64)

    def timed(name, x):
        noisy = x + rng.normal(0, 0.004, x.shape)
        return Timed(SignalSpec(name, (2,), unit="m", frame="table"), stamps, noisy)

    signals = {"object.position": timed("object.position", at), "mark.position": timed("mark.position", at * 0 + goal)}
    outcome = "failure" if fault else "success"
    return Episode("point", outcome=outcome, group=fault, signals=signals, seed=seed)


def test_failures_depart_and_are_sorted_by_how():
    faults = ["short"] * 5 + ["swerve"] * 4
    episodes = [reach(i) for i in range(20)] + [reach(50 + i, f) for i, f in enumerate(faults)]
    rows, _ = departures(seen(episodes))
    good, bad = rows[:20], rows[20:]
    assert min(d.score for d in bad) > 1.25 > np.quantile([d.score for d in good], 0.9)
    kinds = [d.kind for d in bad]
    assert kinds == [0] * 5 + [1] * 4, "two kinds, the larger first"
    assert all(d.kind == -1 for d in good)
    assert all(d.at_end for d in bad[:5])
    swerves = [d.t_ns * 1e-9 for d in bad[5:]]
    assert all(0.8 < t < 1.7 for t in swerves), swerves


def test_the_finding_names_when_what_and_kind():
    episodes = [reach(i) for i in range(12)] + [reach(50, "swerve")]
    check = checks.load("departure")
    findings = check.judged(seen(episodes))
    (finding,) = findings.pop("12")
    assert sum(map(bool, findings.values())) <= 1, "successes are where successes are"
    assert "position" in finding.what and "from 1." in finding.what and "kind 1 of 1" in finding.what


def test_places_relative_to_one_another_tell_what_places_alone_do_not():
    """Goals scatter widely: an end that misses its own goal lies where others rightly ended."""
    t = track(reach(0))
    assert ("object.position - mark.position", 0) in t.elements or ("mark.position - object.position", 0) in t.elements


def test_no_verdict_from_few_successes():
    assert departures(seen([reach(i) for i in range(4)]), enough=5) == ([], None)


def test_a_way_nobody_else_takes_is_new():
    new = novelties(seen([*(reach(i) for i in range(30)), reach(70, "swerve")]))
    assert new[30] > 0.25 and np.median(new[:30]) == 0.0 and np.mean(np.array(new[:30]) > 0.25) <= 0.1
    again = novelties(seen([*(reach(i) for i in range(30)), reach(70, "swerve"), reach(70, "swerve")]))
    assert again[30] < 0.25, "twice is no longer new"


def test_coverage_counts_cells_once():
    few, many = coverage(seen([reach(i) for i in range(4)])), coverage(seen([reach(i) for i in range(12)]))
    swerving = coverage(seen([*(reach(i) for i in range(12)), reach(70, "swerve")]))
    assert many.episodes == 12 and many.once < many.cells and many.enough <= 12
    assert swerving.cells > many.cells and few.episodes == 4


def test_resampling_a_way_keeps_its_ends():
    points = np.array([[0.0, 0], [1, 0], [1, 1]])
    out = resampled(points, 5)
    assert out[0].tolist() == [0, 0] and out[2].tolist() == [1, 0] and out[-1].tolist() == [1, 1]
