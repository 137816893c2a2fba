import json

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.base.workspace import Workspace
from flyball.calibration.card import Card
from flyball.calibration.learning import Budget
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record
from flyball.episodes.catalogue import Catalogue

TINY = Budget(starts=1, iterations=3, scouting=0, refits=1, members=8, tracks=6)


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    """Two gains of the planted bench; a budget and a ladder that a test can afford."""
    place = Workspace(tmp_path / "w")
    catalogue = Catalogue(place.store)
    for e in record(TRUTH, gains=(100, 400), seconds=1.2):
        catalogue.add(e, producer="test")
    monkeypatch.setattr(ServoPendulum, "levels", ServoPendulum.levels[:1])
    monkeypatch.setattr(ServoPendulum, "stride", 8)
    monkeypatch.setattr("flyball.calibration.recordings.Budget", lambda: TINY)
    return place.path


def test_out_writes_card_overlay_and_page_that_say_what_was_printed(workspace, tmp_path, capsys):
    folder = tmp_path / "out"
    code = main(["calibrate", "--workspace", str(workspace), "--out", str(folder), "--json"])
    answer = json.loads(capsys.readouterr().out)
    (c,) = answer["calibrations"]
    assert code == (0 if c["verdict"] == "improved" else 1)
    names = {p.name for p in folder.iterdir()}
    assert {p.rpartition("/")[2] for p in answer["files"]} == names
    assert {"servo-pendulum.card.json", "servo-pendulum.html", "servo-pendulum.calibrated.xml"} <= names
    card = Card.read(folder / "servo-pendulum.card.json")
    assert card.calibration.digest == c["digest"] and card.calibration.verdict == c["verdict"]
    page = (folder / "servo-pendulum.html").read_text()
    assert "Worst of the held-out recordings" in page and "Median of the held-out recordings" in page

    # asked again, it is the same, and without --out nothing is written
    before = {p: p.read_bytes() for p in folder.iterdir()}
    assert main(["calibrate", "--workspace", str(workspace), "--out", str(folder)]) == code
    assert "wrote" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in folder.iterdir()} == before
    samples = np.array(c["samples"])
    assert main(["variations", str(folder / "servo-pendulum.variations.toml"), "--worlds", "4", "--json"]) == 0
    drawn = json.loads(capsys.readouterr().out)["values"]
    assert set(drawn[c["paths"][0]]) <= set(samples[:, 0])


def test_a_folder_that_cannot_be_made_is_one_line(workspace, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["calibrate", "--workspace", str(workspace), "--out", str(tmp_path / "file" / "x")]) == 2
    err = capsys.readouterr().err
    assert "file" in err.splitlines()[-1] and "Traceback" not in err
