"""Clocks: every repair is said, and what cannot be aligned is left out rather than believed."""

import numpy as np
import pytest

from flyball.base import InputError, SignalSpec, Timed
from flyball.episodes.episode import Episode, Event, Frames
from flyball.episodes.intake import Intake
from flyball.episodes.timeline import DAY_NS, repaired

NOW = 1_700_000_000 * 10**9
YEAR = 365 * DAY_NS


@pytest.fixture
def intake(tmp_path):
    return Intake(tmp_path)


def signal(name, t_ns):
    t_ns = np.asarray(t_ns, np.int64)
    return Timed(SignalSpec(name), t_ns, np.arange(len(t_ns), dtype=float))


def episode(*signals, **rest):
    return Episode("x", signals={s.spec.name: s for s in signals}, **rest)


def texts(intake):
    return [n.text for n in intake.notes if n.kind == "clock"]


STEADY = NOW + np.arange(100) * 10_000_000


def test_sound_clocks_are_left_alone(intake):
    e = episode(signal("a", STEADY), signal("b", STEADY + 5 * 10**9), signal("none", []))
    assert repaired(e, intake) is e and intake.notes == []


def test_samples_out_of_order_are_put_in_order_and_counted(intake):
    t = STEADY.copy()
    t[10], t[11] = t[11], t[10]
    out = repaired(episode(signal("a", t)), intake).signals["a"]
    assert (np.diff(out.t_ns) > 0).all() and out.values[10:12].tolist() == [11, 10]
    assert texts(intake) == ["a: 1 time stamps ran backwards by up to 10 ms, put in order"]


def test_stamps_from_before_the_clock_was_set_are_left_out(intake):
    t = np.concatenate([np.arange(5) * 10**7, STEADY])
    out = repaired(episode(signal("a", t)), intake)
    assert len(out.signals["a"].t_ns) == 100 and out.signals["a"].values[0] == 5
    assert texts(intake) == ["a: 5 samples more than a day from the rest, left out"]


def test_a_stream_on_another_clock_is_left_out_until_its_offset_is_known(intake):
    e = episode(signal("a", STEADY), signal("b", STEADY - 10 * YEAR), events=(Event(NOW + YEAR, "x"), Event(NOW, "y")))
    out = repaired(e, intake)
    assert set(out.signals) == {"a"} and [v.name for v in out.events] == ["y"]
    assert "b: its clock is 9.99 years from the others', left out; set its clock_s" in texts(intake)
    assert set(repaired(e, intake, {"b": 10 * YEAR / 1e9}).signals) == {"a", "b"}


def test_the_clock_with_most_samples_counts(intake):
    few = signal("few", STEADY[:10])
    assert set(repaired(episode(few, signal("many", STEADY - YEAR)), intake).signals) == {"many"}


def test_long_logs_are_no_fault(intake):
    e = episode(signal("daily", NOW + np.arange(30) * DAY_NS), signal("a", STEADY + 3 * DAY_NS))
    assert repaired(e, intake) is e


def test_cameras_are_on_the_same_line(intake):
    n = len(STEADY)
    f = Frames("cam", "jpeg", 1, 1, "0" * 64, STEADY - YEAR, np.arange(n), np.arange(n) + 1, np.ones(n, bool))
    a = signal("a", np.concatenate([STEADY, STEADY[-1:] + 1]))
    out = repaired(episode(a, frames={"cam": f}), intake)
    assert out.frames == {} and any("cam: its clock is 365 days" in t for t in texts(intake))


def test_negative_stamps_are_refused(intake):
    with pytest.raises(InputError, match="a: a negative time stamp"):
        repaired(episode(signal("a", np.arange(-5, 5))), intake)
