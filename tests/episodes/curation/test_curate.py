"""Verdicts are rows: said once, with reason, version and inputs; taken back by further rows; nothing disappears."""

import json
from dataclasses import replace

import numpy as np
import pytest

from flyball.base import InputError
from flyball.base.store import Store
from flyball.episodes import codec
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.curation import Finding, check, checks, curate, take_back
from flyball.episodes.curation.defects import DEFECTS, arm
from flyball.episodes.episode import Frames
from flyball.episodes.frames import encode_frames

SIGNALS = [checks.load(n) for n in ("finite", "offset", "outcome", "idle")]


def plant(kind, x, severity, seed=0):
    return next(d for d in DEFECTS if d.kind == kind).plant(x, severity, np.random.default_rng(seed))


@pytest.fixture
def catalogue(tmp_path):
    c = Catalogue(Store(tmp_path))
    for i in range(8):
        x = arm(i, camera=False)
        if i == 3:
            x = plant("NaN", x, 5)
        if i == 5:
            x = plant("offset", x, 10)
        e = replace(x.episode, outcome="failure" if i == 6 else "success", group="slipped" if i == 6 else "")
        c.add(e, producer="tests@1")
    return c


def digests(catalogue, *seeds):
    return [r.digest for r in catalogue.query(f"seed IN ({', '.join(map(str, seeds))})")]


def standing(catalogue):
    return {(v.check, v.digest): v for v in catalogue.verdicts()}


def test_what_is_wrong_is_flagged_with_reason_version_and_inputs(catalogue):
    report = curate(catalogue, SIGNALS)
    held = standing(catalogue)
    assert len(held) == 8 * len(SIGNALS)
    nan, off, failed = digests(catalogue, 3, 5, 6)
    assert {k for k, v in held.items() if v.verdict == "flag"} == {("finite", nan), ("offset", off)}
    assert {k for k, v in held.items() if v.verdict == "note"} == {("outcome", failed)}
    assert "5 of" in held["finite", nan].reason and held["finite", nan].version == "1"
    assert held["outcome", failed].reason == "failure (slipped)"
    (compared,) = held["offset", off].inputs
    listing = json.loads(catalogue.store.get(compared))
    assert [d for d, _ in listing["episodes"]] == sorted(r.digest for r in catalogue.query())
    tally = next(t for t in report.tallies if t.check.name == "offset")
    assert tally.counts == {"flag": 1, "pass": 7} and tally.found[0][0] == off


def test_again_adds_nothing(catalogue):
    curate(catalogue, SIGNALS)
    before = catalogue.verdicts(current=False)
    assert sum(t.added for t in curate(catalogue, SIGNALS).tallies) == 0
    assert catalogue.verdicts(current=False) == before


def test_another_limit_is_another_version_and_says_so(catalogue):
    offset = checks.load("offset")
    curate(catalogue, [offset])
    (tally,) = curate(catalogue, [offset.with_parameters(angle=1.0)]).tallies
    assert tally.added == 8
    (off,) = digests(catalogue, 5)
    assert [(v.verdict, v.version) for v in catalogue.verdicts(off, current=False)] == [
        ("flag", "1"),
        ("pass", "1 angle=1"),
    ]


def test_taken_back_by_further_rows_and_said_again(catalogue):
    curate(catalogue, SIGNALS)
    first = catalogue.verdicts(current=False)
    assert take_back(catalogue, ["finite"], "seed < 4", reason="not so") == 4
    assert catalogue.verdicts(current=False)[: len(first)] == first
    (nan,) = digests(catalogue, 3)
    assert ("finite", nan) not in standing(catalogue) and ("offset", nan) in standing(catalogue)
    assert catalogue.verdicts(nan, current=False)[-1].reason == "not so"
    assert take_back(catalogue, ["finite"], "seed < 4") == 0
    (tally,) = curate(catalogue, [checks.load("finite")]).tallies
    assert tally.added == 4 and standing(catalogue)["finite", nan].verdict == "flag"
    assert take_back(catalogue) == 8 * len(SIGNALS) and catalogue.verdicts() == []


def test_episodes_and_their_bytes_are_left_alone(catalogue):
    before = [(r.digest, catalogue.store.get(r.digest)) for r in catalogue.query()]
    curate(catalogue, SIGNALS)
    take_back(catalogue)
    assert [(r.digest, catalogue.store.get(r.digest)) for r in catalogue.query()] == before


def test_more_episodes_with_the_same_answer_are_nothing_new(catalogue):
    curate(catalogue, [checks.load("offset")])
    catalogue.add(arm(20, camera=False).episode, producer="tests@1")
    (tally,) = curate(catalogue, [checks.load("offset")]).tallies
    (new,) = digests(catalogue, 20)
    flagged = digests(catalogue, 5)
    said = [v.digest for v in catalogue.verdicts(current=False)[8:]]
    assert new in said and set(said) <= {new, *flagged} and tally.added == len(said)


def test_a_check_that_fails_stops_nobody_else(catalogue):
    @check("broken", 1, "always fails")
    def broken(episode):
        raise ZeroDivisionError("half a thought")

    @check("broken-too", 1, "fails when it compares", judge=lambda seen: 1 / 0)
    def late(episode):
        return 1

    report = curate(catalogue, [broken, late, checks.load("finite")])
    assert [len(t.failed) for t in report.tallies] == [8, 8, 0]
    assert "half a thought" in report.tallies[0].failed[0][1]
    assert {v.check for v in catalogue.verdicts()} == {"finite"}


def test_a_rule_of_ones_own(catalogue):
    @check("short", 2, "an episode lasts at least a minute")
    def short(episode):
        return [Finding("shorter than a minute", excess=2.0)]

    curate(catalogue, [short], "seed = 1")
    (verdict,) = catalogue.verdicts()
    assert (verdict.check, verdict.verdict, verdict.reason, verdict.version) == (
        "short",
        "flag",
        "shorter than a minute",
        "2",
    )


def test_a_bad_condition_is_refused_before_anything_is_done(catalogue):
    with pytest.raises(InputError, match="seed"):
        curate(catalogue, SIGNALS, "seed = ;")
    assert catalogue.verdicts(current=False) == []


@pytest.mark.parametrize("encoding", ["raw:mono8", "jpeg", "h264"])
def test_pictures_are_read_from_the_store(tmp_path, encoding):
    c = Catalogue(Store(tmp_path))
    clean = arm(1)
    cameras = {
        "clean": clean,
        "frozen": plant("frozen pictures", clean, 2.0),
        "black": plant("black pictures", clean, 9),
    }
    for word, x in cameras.items():
        (name, images), at, stop, key, pieces = *x.images.items(), [0], [], [], []
        images = np.repeat(images, 3, axis=3) if encoding != "raw:mono8" else images
        coded = ((p.tobytes(), True) for p in images) if encoding == "raw:mono8" else encode_frames(images, encoding)
        for piece, alone in coded:
            pieces.append(bytes(piece))
            key.append(alone)
            stop.append(at[-1] + len(piece))
            at.append(stop[-1])
        (blob,) = c.store.keep(b"".join(pieces))
        t = x.episode.frames[name].t_ns
        f = Frames(name, encoding, *images.shape[1:3], blob, t, np.array(at[:-1]), np.array(stop), np.array(key))
        c.add(replace(x.episode, frames={name: f}, robot=word), producer="tests@1")
    curate(c, [checks.load("black"), checks.load("frozen")])
    robots = {r.digest: r.robot for r in c.query()}
    said = {(robots[v.digest], v.check): v for v in c.verdicts()}
    assert {k for k, v in said.items() if v.verdict == "flag"} == {("frozen", "frozen"), ("black", "black")}
    (inputs,) = {v.inputs for (robot, _), v in said.items() if robot == "frozen"}
    blob = c.store.path(inputs[0])
    assert blob.exists()
    blob.rename(tmp_path / "away")  # what was seen of pictures is kept: nothing is decoded twice
    again = curate(c, [checks.load("black"), checks.load("frozen")])
    assert not any(t.failed or t.added for t in again.tallies)


def test_a_missing_blob_is_said_and_the_rest_goes_on(tmp_path):
    c = Catalogue(Store(tmp_path))
    x = arm(1)
    f = replace(x.episode.frames["camera.side"], blob="0" * 64)
    c.add(replace(x.episode, frames={f.name: f}), producer="tests@1")
    report = curate(c, [checks.load("black"), checks.load("finite")])
    assert len(report.tallies[0].failed) == 1 and report.tallies[1].counts == {"pass": 1}


def test_an_unreadable_episode_is_reported(catalogue):
    (bad,) = digests(catalogue, 2)
    path = catalogue.store.path(bad)
    path.chmod(0o644)
    path.write_bytes(codec.MAGIC + b"\0" * 20)
    report = curate(catalogue, SIGNALS)
    assert [d for d, _ in report.unread] == [bad] and report.tallies[0].counts
