"""Checks find what was planted, say nothing about clean recordings, and bear whatever a log may hold."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from flyball.episodes.curation import Seen, checks
from flyball.episodes.curation.defects import DEFECTS, arm
from flyball.episodes.curation.motion import activity
from flyball.episodes.curation.testing import check_check, found

CLEAN = {packed: [arm(100 + i, task=7, packed=packed) for i in range(10)] for packed in (False, True)}
TIER_0 = [n for n in checks.names() if checks.load(n).tier == 0]


@cache
def looked_at(name, packed):
    """What a check keeps of the clean recordings."""
    kept = [checks.load(name).look_at(x.episode, x.pictures) for x in CLEAN[packed]]
    return [Seen(str(i), ("", ""), "success", k) for i, k in enumerate(kept) if k is not None]


@pytest.mark.parametrize("name", checks.names())
def test_contract(name):
    check_check(checks.load(name))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", TIER_0)
def test_clean_recordings_raise_nothing(name, packed):
    assert not any(checks.load(name).judged(looked_at(name, packed)).values())


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda d: d.kind)
def test_planted_defect_is_found(defect):
    check = checks.load(defect.check)
    planted = 0
    for packed, seed in ((False, 1), (False, 2), (True, 3)):
        group = CLEAN[packed]
        bad = defect.plant(group[4], _obvious(defect), np.random.default_rng(seed))
        if bad is None:
            continue
        planted += 1
        seen = list(looked_at(defect.check, packed))
        mine = Seen("bad", ("", ""), "success", check.look_at(bad.episode, bad.pictures))
        seen[4:5] = [seen[4], mine] if defect.check == "copies" else [mine]
        assert [d for d, f in check.judged(seen).items() if f] == ["bad"], f"{defect.kind}, packed {packed}"
    assert planted >= 1


def plant(kind, x, severity, seed=0):
    return next(d for d in DEFECTS if d.kind == kind).plant(x, severity, np.random.default_rng(seed))


def _obvious(defect):
    # A large unit error, offset or gap; for pictures of another moment the lag must still fit in the search.
    return {"pictures of another moment": 0.5, "copy": 2}.get(defect.kind, defect.severities[-1])


def test_every_kind_has_its_check_and_there_are_enough():
    assert len({d.kind for d in DEFECTS}) >= 12
    assert {d.check for d in DEFECTS} == set(TIER_0)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("offset", ["joint.position", "rad", "usual is"]),
        ("gap", ["a gap of", "s are usual"]),
        ("NaN", ["numbers NaN"]),
        ("another unit", ["times as large as usual"]),
        ("frozen pictures", ["camera.side", "the same picture for"]),
    ],
)
def test_reason_names_the_place_and_the_figures(kind, names):
    defect = next(d for d in DEFECTS if d.kind == kind)
    group = CLEAN[False]
    bad = defect.plant(group[4], defect.severities[-1], np.random.default_rng(5))
    (reason, *_) = found(checks.load(defect.check), [*group[:4], bad, *group[5:]])[4]
    for name in names:
        assert name in str(reason)


def test_a_finding_says_when_it_begins():
    defect = next(d for d in DEFECTS if d.kind == "frozen pictures")
    group = CLEAN[False]
    bad = defect.plant(group[0], 1.5, np.random.default_rng(1))
    (finding,) = found(checks.load("frozen"), [bad])[0]
    held = np.flatnonzero((np.diff(bad.images["camera.side"].astype(int), axis=0) == 0).all(axis=(1, 2, 3)))
    assert finding.t_ns in bad.episode.frames["camera.side"].t_ns[held[0] : held[0] + 3]


def test_a_still_picture_of_a_still_scene_is_not_frozen():
    x = CLEAN[False][0]
    still = plant("idle", x, 4.0)
    images = still.images["camera.side"].copy()
    repeats = np.flatnonzero(~_busy(still))[10:-10]
    assert len(repeats) > 20
    images[repeats] = images[repeats[0]]
    assert not found(checks.load("frozen"), [replace(still, images={"camera.side": images})])[0]
    moving = np.flatnonzero(_busy(still))[:20]
    images[moving] = images[moving[0]]
    assert found(checks.load("frozen"), [replace(still, images={"camera.side": images})])[0]


def _busy(x):
    t, busy = activity(x.episode, 0.5)
    stamps = x.episode.frames["camera.side"].t_ns
    return busy[np.clip(np.searchsorted(t, stamps), 0, len(t) - 1)]


@pytest.mark.parametrize("how", [0, 1])
def test_an_exact_copy_is_certain_without_any_usual_distance(how):
    three = list(CLEAN[False][:3])
    first, second, third, copy = found(checks.load("copies"), [*three, plant("copy", three[1], how)])
    assert not (first or second or third) and "bit by bit, those of episode 1" in copy[0].what


def test_an_offset_that_everybody_has_is_usual_and_one_alone_is_judged_by_itself():
    defect, check = next(d for d in DEFECTS if d.kind == "offset"), checks.load("offset")

    def off(x):
        return defect.plant(x, 17.0, np.random.default_rng(3))

    assert not any(found(check, [off(x) for x in CLEAN[False]]))
    assert found(check, [off(CLEAN[False][0])])[0]


def test_other_parameters_show_in_the_version():
    check = checks.load("offset")
    assert check.stamp == str(check.version)
    stricter = check.with_parameters(angle=0.005)
    assert stricter.stamp == f"{check.version} angle=0.005" and "0.005" in stricter.stated()
    small = next(d for d in DEFECTS if d.kind == "offset").plant(CLEAN[False][0], 1.0, np.random.default_rng(0))
    group = [small, *CLEAN[False][1:]]
    assert not found(check, group)[0] and found(stricter, group)[0]


def test_a_rule_that_does_not_apply_says_nothing():
    bare = arm(1, camera=False)
    for name in ("black", "frozen", "sync", "drift"):
        assert found(checks.load(name), [bare]) == [None]
    assert found(checks.load("departure"), CLEAN[False][:3]) == [None] * 3


def test_seen_keeps_little_of_an_episode():
    """What is kept of all episodes at once must not be the episodes: a million of them would not fit."""
    from flyball.episodes.curation.tracks import MOST_SAMPLES, track

    long = arm(3, slow=20.0, camera=False)
    t = track(long.episode)
    assert len(t.x) <= MOST_SAMPLES and t.x.dtype == np.float32 and len(t.sketch) <= 512
    assert isinstance(Seen("", ("", ""), "", t), Seen)


def test_the_published_tables_have_every_kind_and_check():
    from pathlib import Path

    import flyball.episodes.curation as package

    text = (Path(package.__file__).parent / "README.md").read_text()
    for d in DEFECTS:
        for severity in d.severities:
            assert f"| {d.kind} | {d.check} | {f'{severity:g} {d.unit}'.strip()} |" in text, d.kind
    for name in checks.names():
        assert name in text
