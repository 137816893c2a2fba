import json
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from flyball.apps.web.calibration import render, write_calibration
from flyball.base import Refused
from flyball.calibration.calibration import Calibration, FoldError, HeldOut, describe, scene_digest
from flyball.calibration.card import Card
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH
from flyball.calibration.tracks import Track

SCENE = ServoPendulum.scene
VOID = ("meta", "br", "line", "rect", "circle", "polyline", "polygon")


class Page(HTMLParser):
    """Text, tags and what would be fetched; complains about tags that do not close."""

    def __init__(self, html):
        super().__init__()
        self.text, self.open, self.tags, self.fetched = "", [], [], []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.fetched += [v for k, v in attrs if k in ("src", "href")]
        if tag not in VOID and tag not in ("dt", "dd", "li", "p"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID and tag not in ("dt", "dd", "li", "p"):
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def calibration():
    rng = np.random.default_rng(0)
    paths = (*TRUTH, "servo.drive_friction")
    best = np.array([*TRUTH.values(), 0.3])
    ps = [SCENE.parameter(p) for p in paths]
    unit = np.stack([p.to_unit(x) for p, x in zip(ps, best, strict=True)]) + rng.uniform(-0.02, 0.02, (30, len(ps)))
    unit[:, -1] = rng.uniform(0.1, 0.9, 30)
    samples = np.stack([p.from_unit(u) for p, u in zip(ps, np.clip(unit, 0, 1).T, strict=True)], axis=1)
    rows = describe(ps, samples, silent=["servo.damping"])
    folds = (FoldError("kp 100", 0.2, 0.05, 0.04, 0.88), FoldError("kp <b>", 0.3, 0.06, 0.05, 0.93))
    held = HeldOut("rad", folds, 0.25, 0.055, 0.05, 0.06, 0.91, 1.5, 0.01, 0.0005)
    notes = ("a note", "left out: bag7: no motion")
    return Calibration("servo-pendulum", scene_digest(SCENE), paths, samples, best, rows, held, "improved", notes, 3,
                       "servo 1", 2_500_000, ("ab12", "cd34"))  # fmt: skip


def track(rank="worst"):
    t = np.linspace(0, 3, 40)
    q = np.sin(t)
    return Track(
        f"sweep & {rank}", rank, "kp 100", "joint_states.position", "rad", 0.05, 0.9, t, q, q + 0.05, q - 0.1, q + 0.1
    )


def test_card_page_and_overlay_lie_in_one_folder_and_agree(tmp_path):
    c = calibration()
    written = write_calibration(
        c, SCENE, [track(), track("median")], tmp_path / "new", left_out=["left out: bag7: no motion"]
    )
    assert all(p.is_file() for p in written)
    names = [p.name for p in written]
    for name in ("card.json", "html", "calibrated.xml", "patch", "overlay.json", "variations.toml"):
        assert f"servo-pendulum.{name}" in names
    card = Card.read(written[0])
    assert card.calibration.digest == c.digest and card.left_out == ("bag7: no motion",)
    outside = json.loads((tmp_path / "new/servo-pendulum.overlay.json").read_text())["not_in_the_model"]
    assert len(card.not_in_the_model) == len(outside) == 3  # delay, offset and friction of the drive
    page = Page(written[1].read_text())
    assert "script" not in page.tags and not page.fetched
    for name in names:
        assert name in page.text or name.endswith(".html")


def test_the_page_says_what_a_reader_needs(tmp_path):
    written = write_calibration(calibration(), SCENE, [track()], tmp_path)
    text = Page(written[1].read_text()).text
    for said in (
        "4.5 times less error", "0.25 → 0.055 rad", "noise floor", "91 %", "kp 100", "kp <b>",
        "Worst of the held-out recordings: sweep & worst", "not excited", "drive_friction", "identified",
        "bag7: no motion",
        "Fast and slow motion at constant speed: would tell servo.damping (not excited)",
        "servo.delay_s = 0.011 s (command.delay)", "servo 1", "2.5 million", "ab12", "cd34", "a note",
    ):  # fmt: skip
        assert said in text, said


def test_bands_prior_and_floor_are_drawn_where_they_are(tmp_path):
    html = write_calibration(calibration(), SCENE, None, tmp_path)[1].read_text()
    assert "Measured and predicted" not in html
    assert html.count('class="prior"') == 9 and html.count('class="best"') == 9
    assert html.count('class="unfit"') == 2  # not excited, and too wide
    assert html.count('class="floor"') == 1 and html.count('class="change"') == 2


@pytest.mark.parametrize("verdict", ["no improvement", "not identifiable", "wrong model"])
def test_other_verdicts_are_not_dressed_up(verdict):
    c = replace(calibration(), verdict=verdict)
    text = Page(render(Card(c, "servo").to_json())).text
    assert verdict.capitalize() in text and "less error" not in text


def test_a_calibration_of_another_scene_writes_nothing(tmp_path):
    with pytest.raises(Refused, match="another scene"):
        write_calibration(calibration(), replace(SCENE, name="other"), None, tmp_path / "x")
    assert not (tmp_path / "x").exists()
