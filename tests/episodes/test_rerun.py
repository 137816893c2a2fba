"""Rerun: a recording is written with every signal, picture and event; without the library, one line says what to do."""

import importlib.util
import sys

import numpy as np
import pytest

from flyball.base import InputError, NotPossible, SignalSpec, Timed
from flyball.episodes import Episode, Event, rerun
from flyball.episodes.episode import Frames

needs_rerun = pytest.mark.skipif(
    importlib.util.find_spec("rerun") is None, reason="rerun-sdk (extra `rerun`, 170 MB) is not installed"
)


def an_episode():
    t = np.arange(50, dtype=np.int64) * 20_000_000
    signals = {
        "joint.position": Timed(SignalSpec("joint.position", (2,)), t, np.ones((50, 2))),
        "none": Timed(SignalSpec("none"), t[:0], np.zeros(0)),
    }
    pixels = Frames("cam", "raw:rgb8", 2, 3, "", t[:2], np.array([0, 18]), np.array([18, 36]), np.ones(2, bool))
    return Episode("arm", signals=signals, frames={"cam": pixels}, events=(Event(int(t[7]), "slip", "a bit"),))


@needs_rerun
def test_a_recording_holds_the_episode(tmp_path):
    (tmp_path / "blob").write_bytes(bytes(36))
    rerun.show(an_episode(), lambda _: tmp_path / "blob", name="x", save=tmp_path / "x.rrd")
    content = (tmp_path / "x.rrd").read_bytes()
    for what in (b"/signals/joint.position", b"/cameras/cam", b"/events", b"RRF"):
        assert what in content
    with pytest.raises(InputError, match="cannot be written"):
        rerun.show(an_episode(), lambda _: tmp_path / "blob", name="x", save=tmp_path / "nowhere" / "x.rrd")


@needs_rerun
def test_without_a_display_nothing_is_started(tmp_path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(NotPossible, match="no display"):
        rerun.show(an_episode(), lambda _: tmp_path, name="x")


def test_without_rerun_one_line_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(NotPossible, match=r"pip install 'flyball\[rerun\]'"):
        rerun.show(an_episode(), lambda _: tmp_path, name="x", save=tmp_path / "x.rrd")
