"""Clocks: which one is taken and why, and that no repair is silent."""

import numpy as np
import pytest

from flyball.episodes.formats import clocks as module
from flyball.episodes.formats.clocks import Clock, rate_hz, stamp_ns
from flyball.episodes.intake import Intake

START = 1_760_000_000_000_000_000
N = 1000
LOG = START + np.arange(N) * 10_000_000
S = 10**9


def settled(tmp_path, stamp=None, log=LOG, publish=None, pieces=3, **how):
    """(times, notes) of messages that come in some pieces."""
    intake = Intake(tmp_path)
    clock = Clock(intake)
    for rows in np.array_split(np.arange(len(log)), pieces):
        part = (log if publish is None else publish)[rows].astype(np.uint64)
        clock.add(log[rows], part, None if stamp is None else stamp[rows])
    return clock.settle("/x", **how), [n.text for n in intake.notes]


def test_the_header_is_taken_and_its_offset_and_jitter_measured(tmp_path):
    rng = np.random.default_rng(0)
    late = rng.integers(1_000_000, 5_000_000, N)
    times, notes = settled(tmp_path, LOG - late, publish=LOG - 500_000)
    np.testing.assert_array_equal(times.sorted_ns, LOG - late)
    offset, jitter = times.facts["header_ms"]
    assert times.facts["clock"] == "header" and notes == []
    assert offset == pytest.approx(-np.median(late) / 1e6, abs=1e-3)
    assert jitter == pytest.approx(np.percentile(np.abs(late - np.median(late)), 95) / 1e6, abs=2e-3)
    assert times.facts["publish_ms"] == [-0.5, 0.0]


def test_without_stamps_it_is_the_log_time(tmp_path):
    times, notes = settled(tmp_path)
    assert times.facts == {"clock": "log", "why": "messages carry no stamp"} and notes == []
    np.testing.assert_array_equal(times.sorted_ns, LOG)


@pytest.mark.parametrize(
    ("stamp", "why"),
    [
        (LOG + 3600 * S, "stamps are +3600.0 s from it"),
        (np.arange(N) * 10_000_000 + 1, "stamps are -1760000000.0 s from it"),
        (np.full(N, -1), "1000 of 1000 stamps are 0 or absurd"),
        (np.full(N, START), "the stamps stand still"),
        (np.where(np.arange(N) < 600, LOG + 2 * S, LOG - 2 * S), "set back by 4.0 s"),
    ],
)
def test_stamps_that_are_no_clock(tmp_path, stamp, why):
    times, notes = settled(tmp_path, stamp)
    assert times.facts["clock"] == "log" and why in times.facts["why"]
    assert notes == [f"/x: time of the log, {times.facts['why']}"]
    np.testing.assert_array_equal(times.sorted_ns, LOG)


@pytest.mark.parametrize("piece", [64, 1 << 20])
def test_single_absurd_stamps_are_replaced_and_counted(tmp_path, monkeypatch, piece):
    monkeypatch.setattr(module, "_PIECE", piece)
    stamp = LOG - 3_000_000
    stamp[[0, 500]] = -1
    stamp[700] += 1000 * S
    times, notes = settled(tmp_path, stamp)
    np.testing.assert_array_equal(times.sorted_ns, LOG - 3_000_000)
    assert notes == ["/x: 3 of 1000 stamps are missing or absurd, replaced by log times"]


def test_times_that_run_backwards_are_put_in_order_and_counted(tmp_path):
    stamp = LOG.copy()
    stamp[[10, 11]] = stamp[[11, 10]]
    times, notes = settled(tmp_path, stamp)
    assert times.order is not None and times.order[10:12].tolist() == [11, 10]
    np.testing.assert_array_equal(times.sorted_ns, LOG)
    np.testing.assert_array_equal(times.t_ns, stamp)
    assert notes == ["/x: 1 of 1000 messages run backwards in header time, put in order"]


@pytest.mark.parametrize("video", [True, False])
def test_video_and_what_is_too_long_to_sort_is_raised(tmp_path, monkeypatch, video):
    monkeypatch.setattr(module, "_PIECE", 7)
    monkeypatch.setattr(module, "SORTABLE", 10)
    log = LOG.copy()
    log[[13, 14]] = log[[14, 13]]
    times, notes = settled(tmp_path, log=log, video=video)
    assert times.order is None and (np.diff(times.t_ns) >= 0).all()
    assert times.t_ns[14] == times.t_ns[13] == LOG[14] and times.t_ns[15] == LOG[15]
    assert notes == ["/x: 1 of 1000 messages run backwards in log time, raised to the one before"]


def test_a_log_whose_own_clock_was_set_is_reported(tmp_path):
    log = np.where(np.arange(N) < 20, np.arange(N) * 10_000_000, LOG)
    _, notes = settled(tmp_path, log=log)
    assert notes == [
        f"/x: the log time jumps by {(START + 10_000_000) / 86_400e9:.1f} days",
        "log times lie before the year 2000: simulated time, or a clock that was not set",
    ]


def test_stamps_come_after_1970_and_before_2262():
    sec = np.array([0, 0, 1, -5, 2**31 - 1, 10_000_000_000, 5], np.int64)
    nano = np.array([0, 3, 999_999_999, 0, 0, 0, 10**9], np.int64)
    assert stamp_ns(sec, nano).tolist() == [-1, 3, 1_999_999_999, -1, (2**31 - 1) * S, -1, -1]


def test_rates(monkeypatch):
    assert rate_hz(LOG) == 100 and rate_hz(LOG[:2]) == 0
    assert rate_hz(np.delete(LOG, 500)) == 0
    monkeypatch.setattr(module, "_SAMPLE", 10)
    monkeypatch.setattr(module, "_PIECE", 64)
    assert rate_hz(LOG) == 100 and rate_hz(np.delete(LOG, 501)) == 0
