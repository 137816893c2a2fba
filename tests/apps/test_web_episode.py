"""The page of an episode: self-contained, complete, small, and honest about what it leaves out."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from flyball.apps.web import episode as page
from flyball.apps.web.episode import Picture, render, thumbnails
from flyball.base import SignalSpec, Timed
from flyball.episodes import Episode, Event
from flyball.episodes.episode import Frames

T0 = 1_700_000_000 * 10**9


def timed(name, values, hz=100, **spec):
    values = np.asarray(values)
    t = T0 + np.arange(len(values), dtype=np.int64) * (10**9 // hz)
    return Timed(SignalSpec(name, values.shape[1:], **spec), t, values)


def whole(text):
    """Parses, with every tag closed that must be, draws at numbers, and fetches nothing."""
    depth = []

    class Checker(HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in ("meta", "img", "br"):
                depth.append(tag)
            for key, value in attrs:
                assert key not in ("src", "href") or value.startswith("data:")
                if key in ("x", "y", "x1", "x2", "y1", "y2", "points"):
                    assert all(math.isfinite(float(x)) for x in re.split("[ ,]", value)), (key, value)

        def handle_startendtag(self, tag, attrs):
            self.handle_starttag(tag, attrs)
            depth.pop()

        def handle_endtag(self, tag):
            assert depth.pop() == tag

    Checker().feed(text)
    assert depth == [] and "<script" not in text
    return text


def points(text, cls="l0"):
    return [
        [tuple(map(float, p.split(","))) for p in m.split()]
        for m in re.findall(rf'<polyline points="([^"]+)" class="{cls}"', text)
    ]


def test_everything_is_on_the_page_and_escaped():
    e = Episode(
        "arm",
        robot="r<1>",
        task="lift",
        instruction="put <b>it</b> down",
        outcome="failure",
        group="slipped",
        signals={"joint.position": timed("joint.position", np.ones((5, 2)), unit="rad"), "none": timed("none", [])},
        events=(Event(T0 + 20_000_000, "slip & fall", "<i>"),),
    )
    text = whole(
        render(
            e,
            {"digest": "ab" * 32, "labels": {"kp": "<100>"}, "verdict": "rejected"},
            history=[{"column": "outcome", "was": "", "became": "failure", "reason": "v2", "at": "today"}],
            verdicts=[{"check": "blur", "verdict": "", "reason": "r<", "version": "3", "at": "now", "current": False}],
            lineage=[{"direction": "made from", "kind": "log", "digest": "c" * 64, "what": "a.mcap"}],
        )
    )
    for what in ("r&lt;1&gt;", "&lt;b&gt;it", "slip &amp; fall", "0.020 s", "&lt;100&gt;", "taken back", "a.mcap",
                 "rejected", "joint.position", "no samples", "failure (slipped)", "today"):  # fmt: skip
        assert what in text, what
    assert "<b>it" not in text


def test_gaps_break_the_curve_and_are_marked():
    values = np.sin(np.arange(300) / 20)
    values[100:150] = np.nan
    values[200] = np.inf
    text = whole(render(Episode("arm", signals={"q": timed("q", values)}), {}))
    drawn = points(text)
    assert [len(p) for p in drawn] == [100, 50, 99]
    assert "51 values NaN or infinite" in text and 'class="gone"' in text


@pytest.mark.parametrize("n", [2_000, 300_000])
def test_long_signals_are_thinned_without_losing_a_peak(n):
    values = np.zeros(n)
    peak = n // 3
    values[peak] = 7.0
    values[peak + 1] = -5.0
    text = render(Episode("arm", signals={"q": timed("q", values, hz=1000)}), {})
    (curve,) = points(text)
    assert len(curve) <= 4 * page.WIDTH + 2 and [x for x, _ in curve] == sorted(x for x, _ in curve)
    ys = [y for _, y in curve]
    assert min(ys) == page.TOP and max(ys) == page.BASE
    assert curve[ys.index(min(ys))][0] == pytest.approx(
        page.LEFT + peak / (n - 1) * (page.WIDTH - page.LEFT - 12), abs=0.6
    )


def test_many_long_signals_stay_within_five_megabytes_and_what_is_left_out_is_said():
    t = T0 + np.arange(1_000, dtype=np.int64) * 10**6
    values = np.random.default_rng(0).normal(size=(1_000, 8))
    signals = {f"s{i:03d}": Timed(SignalSpec(f"s{i:03d}", (8,)), t, values) for i in range(200)}
    text = render(Episode("arm", signals=signals), {})
    assert len(text) < 5_000_000 and "13 further signals are not drawn" in text
    assert len(points(text)) == 187


def test_wide_signals_and_mixed_units_are_split():
    wide = timed("wide", np.random.default_rng(0).normal(size=(9, 40)))
    pose = timed("pose", np.ones((9, 4)), unit="m m 1 1")
    text = whole(render(Episode("arm", signals={"wide": wide, "pose": pose}), {}))
    assert "32 of 40 elements are drawn" in text
    assert text.count("<svg") == 4 + 2


@pytest.mark.parametrize(
    "values", [np.zeros(0), np.full(4, np.nan), np.full(4, 1e308), [1e308, -1e308], [True, False], [5], [0, 2**62]]
)
def test_odd_values_are_drawn_all_the_same(values):
    whole(render(Episode("arm", signals={"q": timed("q", values, low=(-1.0,), high=(1.0,))}), {}))


def test_pictures_become_small_ones_within_the_room(tmp_path):
    pytest.importorskip("av", reason="av is of the extra `logs`")
    pixels = np.random.default_rng(0).integers(0, 255, (20, 100, 150, 3), np.uint8)
    (tmp_path / "blob").write_bytes(pixels.tobytes())
    at = np.arange(20, dtype=np.int64)
    f = Frames("cam", "raw:rgb8", 100, 150, "", at, at * 45_000, (at + 1) * 45_000, np.ones(20, bool))
    found = thumbnails(f, tmp_path / "blob", 6, 50, 10**6)
    assert [i for i, _ in found] == [0, 4, 8, 11, 15, 19] and all(d.startswith(b"\xff\xd8") for _, d in found)
    fewer = thumbnails(f, tmp_path / "blob", 6, 50, sum(len(d) for _, d in found) - 1)
    assert [i for i, _ in fewer] == [0, 8, 15]
    depth = np.full((2, 40, 60), np.nan, "<f4")
    depth[:, 10:] = 1.5
    (tmp_path / "depth").write_bytes(depth.tobytes())
    g = Frames("depth", "raw:32FC1", 40, 60, "", at[:2], at[:2] * 9600, (at[:2] + 1) * 9600, np.ones(2, bool))
    assert len(thumbnails(g, tmp_path / "depth", 6, 50, 10**6)) == 2
    e = Episode("arm", frames={"cam": f, "depth": g})
    text = whole(render(e, {}, pictures={"cam": [Picture(0.5, d) for _, d in found], "depth": "it broke"}))
    assert text.count("data:image/jpeg;base64,") == 6 and "it broke" in text
