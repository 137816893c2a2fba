"""Summaries: the numbers that numpy would give, whatever is not finite left out, in pieces or whole."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball.base import SignalSpec, Timed
from flyball.episodes import Episode, Event, summaries
from flyball.episodes.episode import Frames
from flyball.episodes.summaries import STATISTICS, elements, summarise


def signal(values, name="q", hz=10, unit=""):
    values = np.asarray(values)
    t_ns = np.arange(len(values), dtype=np.int64) * (10**9 // hz)
    return Timed(SignalSpec(name, values.shape[1:], unit=unit), t_ns, values)


def table(episode):
    stats = np.frombuffer(summarise(episode).stats, "<f8").reshape(-1, len(STATISTICS))
    return [dict(zip(STATISTICS, row, strict=True)) for row in stats]


@settings(max_examples=60, deadline=None)
@given(
    values=hnp.arrays(
        np.float64,
        st.tuples(st.integers(0, 40), st.integers(1, 4)),
        elements=st.floats(-1e3, 1e3) | st.sampled_from([np.nan, np.inf, -np.inf]),
    ),
    piece=st.integers(1, 50),
)
def test_numbers_are_those_of_the_finite_samples(values, piece):
    usual, summaries._PIECE = summaries._PIECE, piece
    try:
        rows = table(Episode("arm", signals={"q": signal(values)}))
    finally:
        summaries._PIECE = usual
    for column, row in zip(values.T, rows, strict=True):
        good = column[np.isfinite(column)]
        assert row["count"] == len(column) and row["nan"] == len(column) - len(good)
        if not len(good):
            assert all(np.isnan(row[k]) for k in ("min", "max", "mean", "std", "first", "last"))
            continue
        assert (row["min"], row["max"], row["first"], row["last"]) == (good.min(), good.max(), good[0], good[-1])
        assert row["mean"] == pytest.approx(good.mean(), abs=1e-9) and row["std"] == pytest.approx(good.std(), abs=1e-6)


def test_rate_shapes_and_order():
    e = Episode("arm", signals={"b": signal(np.zeros((5, 2, 3))), "a": signal(np.arange(5), hz=4)})
    s = summarise(e)
    assert [x[:2] for x in json.loads(s.layout)] == [["a", []], ["b", [2, 3]]]
    rows = table(e)
    assert len(rows) == 7 and rows[0]["rate"] == pytest.approx(4) and rows[1]["rate"] == pytest.approx(10)
    assert elements((2, 3)) == ["[0,0]", "[0,1]", "[0,2]", "[1,0]", "[1,1]", "[1,2]"] and elements(()) == [""]


def test_a_large_sample_is_summarised_as_a_whole():
    depth = np.arange(4 * 20 * 20).reshape(4, 20, 20).astype(float)
    (row,) = table(Episode("arm", signals={"depth": signal(depth)}))
    assert (row["count"], row["min"], row["max"], row["mean"]) == (4, 0, 1599, pytest.approx(799.5))
    assert np.isnan(row["first"]) and np.isnan(row["last"])


def test_single_samples_and_signals_without_any_have_no_rate():
    e = Episode(
        "arm", signals={"one": signal([3.0]), "none": signal(np.zeros((0, 2))), "odd": signal(np.zeros((3, 0)))}
    )
    none, also, one = table(e)
    assert none["count"] == also["count"] == 0 and one["last"] == 3
    assert all(np.isnan(r["rate"]) for r in (none, also, one))


def test_events_and_cameras():
    t = np.array([10, 20, 30], np.int64) * 10**9
    f = Frames("cam", "jpeg", 48, 64, "0" * 64, t, np.array([0, 5, 9]), np.array([5, 9, 20]), np.ones(3, bool))
    events = (Event(11 * 10**9, "slip"), Event(14 * 10**9, "slip"), Event(30 * 10**9, "end"))
    facts = json.loads(summarise(Episode("arm", frames={"cam": f}, events=events)).facts)
    assert facts["events"] == {"slip": [2, pytest.approx(1), pytest.approx(4)], "end": [1, 20, 20]}
    assert facts["frames"] == {"cam": ["jpeg", 48, 64, 3, pytest.approx(0.1), 20]}


def test_huge_numbers_do_not_raise():
    (row,) = table(Episode("arm", signals={"q": signal([1e308, -1e308, 1e308])}))
    assert row["max"] == 1e308 and row["min"] == -1e308
