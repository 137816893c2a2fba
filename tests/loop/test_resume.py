"""``kill -9`` of loop, hub, agents and workers, then the same command: the same run."""

from collections import Counter

from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue


def untimed(document):
    """A document without what a clock decides."""
    turns = [{k: v for k, v in t.items() if k != "seconds"} for t in document["turns"]]
    return {**document, "turns": turns, "seconds": None}


def attempts(run):
    rows = Catalogue(Workspace(run.workspace).store).query()
    return Counter((r.robot, r.labels["order"], r.labels["index"]) for r in rows), {r.log_digest for r in rows}


def test_a_killed_run_ends_as_an_undisturbed_one(killed, undisturbed):
    kills = killed.report["kills"]
    assert sum(kills.values()) >= 8 and min(kills[k] for k in ("loop", "worker", "agent", "hub")) >= 1, killed.report
    assert killed.report["runs"] == kills["loop"] + 1
    assert untimed(killed.document) == untimed(undisturbed.document)


def test_no_episode_is_lost_or_doubled(killed, undisturbed):
    seen, logs = attempts(killed)
    assert set(seen.values()) == {1}, "an attempt is there twice"
    for robot, order in {(robot, order) for robot, order, _ in seen}:
        indices = sorted(i for r, o, i in seen if (r, o) == (robot, order))
        assert indices == list(range(4)), f"{robot} {order}"
    assert (seen, logs) == attempts(undisturbed), "and each log has the same bytes"


def test_nothing_is_left_half_done(killed):
    w = killed.workspace
    assert not list((w / "inbox").iterdir()) and not list((w / "quarantine").iterdir())
    for robot in ("robot-01", "robot-02"):
        assert not list((w / "robots" / robot / "spool").iterdir())
        assert not list((w / "robots" / robot / "recording").iterdir())
