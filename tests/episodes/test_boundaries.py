"""Where episodes begin and end: each rule, that pieces are views, and that nothing gets lost between them."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.base import InputError, SignalSpec, Timed
from flyball.base.workspace import Workspace
from flyball.episodes.boundaries import Boundaries, between, cut
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.episode import Episode, Event, Frames
from flyball.episodes.ingest import ingest

from .foreign import START, number, text, write_log

S = 10**9


def timed(name, seconds, values=None, unit=""):
    t_ns = (np.asarray(seconds, float) * S).astype(np.int64)
    values = np.arange(len(t_ns), dtype=float) if values is None else np.asarray(values, float)
    return Timed(SignalSpec(name, values.shape[1:], unit=unit), t_ns, values)


def log(*signals, events=()):
    return Episode(
        "x", signals={s.spec.name: s for s in signals}, events=tuple(Event(int(t * S), *e) for t, *e in events)
    )


def spans(found, name="q"):
    return [(e.signals[name].t_ns[0] / S, e.signals[name].t_ns[-1] / S) for e in found.episodes]


HALF_HOUR = np.arange(0, 1800, 0.5)


def test_a_log_without_pauses_or_marks_is_one_episode_unchanged():
    e = log(timed("q", np.arange(0, 60, 0.1)))
    found = cut(e, Boundaries())
    assert found.rule == "file" and found.episodes == (e,) and found.episodes[0] is e


def test_start_and_stop_events():
    e = log(
        timed("q", np.arange(0, 30, 0.5)),
        events=[(2, "episode.start"), (5, "note"), (8, "episode.stop"), (10, "episode.start"), (15, "episode.start")],
    )
    found = cut(e, Boundaries())
    assert found.rule == "events"
    assert spans(found) == [(2, 8), (10, 14.5), (15, 29.5)]
    assert [len(x.events) for x in found.episodes] == [3, 1, 1]
    assert [(x.labels["part"], x.labels["parts"], x.labels["boundaries"]) for x in found.episodes] == [
        (1, 3, "events"), (2, 3, "events"), (3, 3, "events"),
    ]  # fmt: skip
    assert found.left_out_s == pytest.approx(4, abs=0.01)  # before the first start, and between stop and start


def test_events_by_text_and_only_stops():
    e = log(timed("q", np.arange(0, 30, 0.5)), events=[(10, "mark", "end"), (20, "mark", "end"), (25, "mark", "x")])
    found = cut(e, Boundaries(start=(), stop=("mark=end",)))
    assert spans(found) == [(0, 10), (10.5, 20)]


def test_demanded_events_must_be_there():
    with pytest.raises(InputError, match=r"allowed: .*episode\.start"):
        cut(log(timed("q", [0, 1])), Boundaries(rule="events"))


def test_a_silence_of_every_stream_cuts_in_its_middle():
    twice = np.concatenate([np.arange(0, 20, 0.1), np.arange(50, 60, 0.1)])
    found = cut(log(timed("q", twice), timed("slow", [0, 18, 52])), Boundaries())
    assert found.rule == "idle" and found.left_out_s == 0
    assert spans(found) == [(0, pytest.approx(19.9)), (50, pytest.approx(59.9))]
    assert spans(found, "slow") == [(0, 18), (52, 52)]
    # another stream that goes on, or the rule switched off: no cut
    assert len(cut(log(timed("q", twice), timed("beat", np.arange(0, 60, 5))), Boundaries()).episodes) == 1
    assert len(cut(log(timed("q", twice)), Boundaries(gap_s=0)).episodes) == 1
    assert len(cut(log(timed("q", twice)), Boundaries(rule="file")).episodes) == 1


def test_a_standstill_cuts_where_there_is_a_signal_of_motion():
    move = np.where((HALF_HOUR > 600) & (HALF_HOUR < 1200), 0, np.sin(HALF_HOUR))
    noise = np.random.default_rng(0).normal(0, 1e-4, len(move))
    found = cut(log(timed("q", HALF_HOUR, move + noise, "rad")), Boundaries())
    assert found.rule == "idle"
    ((_, end), (begin, _)) = spans(found)
    assert 880 < end < begin < 920
    assert cut(log(timed("q", HALF_HOUR, move + noise, "V")), Boundaries()).rule == "file"
    assert cut(log(timed("q", HALF_HOUR, move + noise, "rad")), Boundaries(still_s=0)).rule == "file"


def test_pieces_are_views_and_too_short_ones_are_left_out():
    e = log(timed("q", np.concatenate([np.arange(0, 20, 0.1), [100], np.arange(200, 220, 0.1)])))
    found = cut(e, Boundaries(shortest_s=80))
    assert [np.shares_memory(x.signals["q"].values, e.signals["q"].values) for x in found.episodes] == [True]
    assert found.left_out_s == pytest.approx(150 + 10 - 60, abs=60)
    with pytest.raises(InputError, match="no piece is as long"):
        cut(e, Boundaries(shortest_s=1e6))


def test_a_video_begins_at_a_key_picture():
    n = 20
    f = Frames(
        "cam",
        "h264",
        4,
        4,
        "0" * 64,
        np.arange(n) * S,
        np.arange(n) * 10,
        np.arange(n) * 10 + 10,
        np.arange(n) % 8 == 0,
    )
    part = between(Episode("x", frames={"cam": f}), 10 * S, 15 * S).frames["cam"]
    assert part.t_ns[0] == 8 * S and part.t_ns[-1] == 14 * S and part.start[0] == 80 and part.key[0]
    still = Frames("cam", "jpeg", 4, 4, "0" * 64, f.t_ns, f.start, f.stop, np.ones(n, bool))
    assert between(Episode("x", frames={"cam": still}), 10 * S, 15 * S).frames["cam"].t_ns[0] == 10 * S


@given(
    gaps=st.lists(st.floats(0.01, 40), min_size=1, max_size=40),
    other=st.lists(st.floats(0, 400), max_size=20),
    gap_s=st.floats(1, 30),
)
def test_cutting_at_silences_loses_and_doubles_nothing(gaps, other, gap_s):
    e = log(timed("q", np.cumsum(gaps)), timed("r", np.sort(other)))
    found = cut(e, Boundaries(gap_s=gap_s, still_s=0, shortest_s=0))
    for name in ("q", "r"):
        joined = [x.signals[name].t_ns for x in found.episodes if name in x.signals]
        np.testing.assert_array_equal(np.concatenate([*joined, np.zeros(0, np.int64)]), e.signals[name].t_ns)
    every = np.unique(np.concatenate([e.signals["q"].t_ns, e.signals["r"].t_ns]))
    assert len(found.episodes) == 1 + int((np.diff(every) > round(gap_s * S)).sum())
    edges = [max(s.t_ns[-1] for s in x.signals.values() if len(s.t_ns)) for x in found.episodes]
    assert all(a < b for a, b in pairwise(edges))


def test_ingest_cuts_and_says_by_what_rule(tmp_path):
    def rows():
        for i in range(100):
            t = START + i * S // 10
            if i in (20, 60):
                yield t, "/episode", text("start")
            elif i in (50, 90):
                yield t, "/episode", text("stop")
            yield t, "/q", number(i)

    path = write_log(tmp_path / "rig" / "long.mcap", rows())
    w = Workspace(tmp_path / "w")
    report = ingest(w, [path])
    assert len(report.added) == 2 and report.logs[0].rule == "events" and report.logs[0].episodes == report.added
    assert any(n.kind == "skipped" and "belong to no episode" in n.text for n in report.logs[0].notes)
    first, second = (Catalogue(w.store).load(d) for d in report.added)
    assert first.signal("q").values[[0, -1]].tolist() == [20, 50] and second.signal("q").values[0] == 60
    assert first.log_digest == second.log_digest
    assert len(ingest(w, [path]).known) == 2
    # the rule changed in the file, the log read again
    file = w.path / "channels" / "rig.toml"
    file.write_text(file.read_text().replace('rule = "auto"', 'rule = "file"'))
    again = ingest(w, [path], again=True)
    assert len(again.added) == 1 and set(again.superseded) == set(report.added)
