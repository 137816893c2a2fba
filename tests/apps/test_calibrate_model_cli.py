import json
from dataclasses import replace

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.base.workspace import Workspace
from flyball.calibration.models.testing import arm, record
from flyball.episodes.catalogue import Catalogue

TRUTH = {"j0.gain": 165.0, "j0.friction": 0.9, "j0.offset": -0.02, "command.delay": 0.014}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A workspace with three sound recordings of an arm and one in degrees, its model and a file of parameters."""
    folder = tmp_path_factory.mktemp("arm")
    space = Workspace(folder / "space")
    episodes = record(TRUTH, joints=1, episodes=4, seconds=2.0, robot="arm-7")
    bad = episodes[3].signals["joint_states.position"]
    signals = dict(episodes[3].signals) | {bad.spec.name: replace(bad, values=np.degrees(bad.values))}
    for episode in (*episodes[:3], replace(episodes[3], signals=signals)):
        Catalogue(space.store).add(episode, producer="test")
    (folder / "arm.xml").write_text(arm(1))
    (folder / "two.xml").write_text(arm(2).replace("j0", "shoulder").replace("j1", "elbow"))
    (folder / "parameters.toml").write_text('leave = ["payload", "armature", "damping"]\n')
    return folder


def calibrate(place, *more, model="arm.xml"):
    given = ["--workspace", str(place / "space"), "--model", str(place / model)]
    return main(["calibrate", *given, "--parameters", str(place / "parameters.toml"), *more])


def test_a_model_is_calibrated_and_stored(place, capsys):
    assert calibrate(place, "--json", "--out", str(place / "out")) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    (found,) = document["calibrations"]
    assert found["verdict"] == "improved"
    assert found["best"][found["paths"].index("j0.gain")] == pytest.approx(TRUTH["j0.gain"], rel=0.1)
    assert "left out" in said.err
    assert "degrees for radians" in said.err
    assert any("degrees for radians" in note for note in found["notes"])
    assert len(found["data"]) == 3
    store = Workspace(place / "space").store
    (artifact,) = store.find("calibration", rig="arm", robot="arm-7")
    assert artifact.labels["seed"] == 0
    assert {p.rpartition("/")[2] for p in document["files"]} >= {"arm.card.json", "arm.html"}
    # the same again is read from the store
    assert calibrate(place) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "arm: improved"
    assert any("j0.friction" in line for line in lines)
    assert len(store.find("calibration", rig="arm")) == 1


def test_the_audit_of_a_model_fits_nothing(place, capsys):
    assert calibrate(place, "--audit") == 1  # one recording would be left out
    text = capsys.readouterr().out
    assert "can be fitted without 1 of them" in text
    assert "degrees for radians" in text


@pytest.mark.parametrize(
    ("more", "model", "said"),
    [
        ((), "two.xml", "another robot?"),
        ((), "none.xml", "no such file"),
        (("--engine", "bullet"), "arm.xml", "no engine named 'bullet'"),
        (("--episodes", "robot = 'arm-8'"), "arm.xml", "no episodes where robot = 'arm-8'"),
        (("--episodes", "robt = 'arm-7'"), "arm.xml", "robt"),
    ],
)
def test_bad_input_is_one_line(place, capsys, more, model, said):
    assert calibrate(place, *more, model=model) == 2
    err = capsys.readouterr().err.strip()
    assert said in err
    assert "\n" not in err


def test_options_of_a_model_need_one(place, capsys):
    assert main(["calibrate", "--workspace", str(place / "space"), "--engine", "mujoco"]) == 2
    assert "with --model FILE" in capsys.readouterr().err
    assert main(["calibrate", "--workspace", str(place / "space"), "--rig", "x", "--model", "y"]) == 2
