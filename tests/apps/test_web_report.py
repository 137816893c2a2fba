"""The report page: whole, self-contained, honest about what it lacks."""

from __future__ import annotations

import copy
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from flyball.apps.web.plots import number, ticks
from flyball.apps.web.report import render
from flyball.apps.web.testing import sample_document


class Page(HTMLParser):
    """Checks that tags balance, and gathers text and headings."""

    VOID = frozenset({"meta", "br", "link", "img"})

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.headings: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "img", "iframe"), "the page must fetch and run nothing"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


def test_drift_is_a_section_of_its_own_where_there_was_any() -> None:
    document = sample_document()
    turn = document["turns"][-1]
    moved = {"path": "arm.gain_scale", "unit": "", "calibrated": 1.0, "now": 0.8, "text": "-20 %", "at_bound": False}
    alarm = {"turn": turn["turn"], "robot": "robot-<1>", "since": 33, "stream": "arm.gain_scale", "moved": [moved]}
    turn["drift"] = [
        alarm | {"action": "recalibrated", "error": {"before": 1.24, "after": 1.02}},
        alarm | {"action": "maintenance", "error": None, "moved": []},
    ]
    turn["maintenance"] = ["robot-<1>"]
    parsed = Page(render(document))
    assert parsed.headings[-2:] == ["Drift", "Time per stage"]
    assert "drift: 2, 1 of them answered with a new calibration. Waiting for maintenance: robot-<1>." in parsed.text
    assert "arm.gain_scale -20 %" in parsed.text and "1.24 to 1.02" in parsed.text
    turn["drift"], turn["maintenance"] = [], []
    assert "Drift" not in Page(render(document)).headings


def test_page_is_whole_and_fetches_nothing() -> None:
    page = render(sample_document())
    parsed = Page(page)
    assert parsed.headings == [
        "Success by turn",
        "Gap between simulation and robots",
        "What failed",
        "What was learned about each robot",
        "Rollout",
        "Time per stage",
    ]
    assert "http" not in page and "url(" not in page and "@import" not in page
    for drawing in re.findall(r"<svg.*?</svg>", page, re.S):
        ElementTree.fromstring(drawing)  # well-formed
    assert len(page) < 400_000


def test_every_number_of_the_document_is_on_the_page() -> None:
    document = sample_document()
    text = Page(render(document)).text
    for t in document["turns"]:
        f = t["fleet"]
        assert f"{100 * f['success']:.1f} %" in text
        assert f"{100 * f['low']:.1f} to {100 * f['high']:.1f} %" in text
        assert "{n} of {of}".format(**t["reproduced"]) in text
        for seconds in t["seconds"].values():
            assert f"{seconds:.2f}" in text
    for p in document["parameters"]:
        assert number(p["truth"]) in text and number(p["mean"]) in text
    assert document["warnings"][0] in text
    assert "the world changed" in text and "rolled back" in text


def test_coverage_sentence_counts_identified_truths_only() -> None:
    document = sample_document()
    p = dict(path="a", robot="r", mean=1.0, low=0.0, high=2.0, truth=1.0, identified=True)
    document["parameters"] = [p, {**p, "truth": 5.0}, {**p, "identified": False}, {**p, "truth": None}]
    assert "holds the truth in 1 of the 2 identified" in Page(render(document)).text


def test_heading_claims_a_rise_only_when_intervals_part() -> None:
    document = sample_document()
    assert "rose from" in render(document)
    document["turns"][-1]["fleet"].update(success=0.5, low=0.4, high=0.6)
    assert "rose from" not in render(document) and "the intervals overlap" in render(document)


@pytest.mark.parametrize(
    "key", ["parameters", "rollout", "warnings", "steps", "seconds", "robots", "environment", "task"]
)
def test_page_does_without_any_optional_key(key: str) -> None:
    document = sample_document()
    del document[key]
    Page(render(document))


def test_page_of_an_unfinished_run() -> None:
    assert "No turn was completed" in Page(render({"turns": []})).text
    document = sample_document(turns=1, robots=1)
    turn = document["turns"][0]
    turn.update(gap=None, failures={}, seconds={}, reproduced={"n": 0, "of": 0}, verdict=None)
    document["parameters"][0].update(mean=float("nan"), low=None, high=None, truth=None)
    text = Page(render(document)).text
    assert "nan" not in text.lower() and "None" not in text


def test_text_from_outside_is_escaped() -> None:
    document: dict[str, Any] = copy.deepcopy(sample_document())
    evil = "<script>alert(1)</script>"
    document["warnings"] = [evil]
    document["task"] = evil
    document["turns"][0]["failures"] = {evil: 3}
    document["turns"][1]["verdict"] = evil
    document["parameters"][0]["path"] = evil
    document["parameters"][0]["robot"] = evil
    document["rollout"][0]["event"] = evil
    assert evil not in render(document)
    Page(render(document))


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
@settings(max_examples=100, deadline=None)
def test_ticks_are_round_increasing_and_inside(low: float, width: float, count: int) -> None:
    assume(width > 1e-6 * abs(low))
    high = low + width
    t = ticks(low, high, count)
    assert t == sorted(t) and len(t) <= 2 * count + 2
    slack = 1e-6 * width
    assert all(low - slack <= v <= high + slack for v in t)


@pytest.mark.parametrize(
    "x, shown", [(0.005, "0.005"), (1234.5, "1234"), (0.30, "0.3"), (-2.0, "−2"), (None, "–"), (0, "0"), (100.0, "100")]
)
def test_numbers_for_people(x: float | None, shown: str) -> None:
    assert number(x) == shown
