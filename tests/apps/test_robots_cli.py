"""``flyball robots``: what a user sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyball.apps.cli.main import main

ARM = """<mujoco><worldbody><body name="link"><joint name="hinge" range="-90 90"/><geom size=".1"/></body></worldbody>
<actuator><motor name="hinge" joint="hinge" ctrlrange="-1 1"/></actuator></mujoco>"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that keep this machine's own packages and folders out."""
    for name in ("FLYBALL_ROBOTS", "ROS_PACKAGE_PATH", "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROBOT_DESCRIPTIONS_CACHE", str(tmp_path / "none"))
    (tmp_path / "site").mkdir()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "arm.xml").write_text(ARM)
    (mine / "LICENSE").write_text("Permission is hereby granted, free of charge, to any person")
    return ["--site", str(tmp_path / "site"), "--path", str(mine)]


def test_list_names_embodiments_models_licences_and_what_is_not_here(
    place: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["robots", *place]) == 0
    out = capsys.readouterr().out
    for body in ("flyarm-5 ", "flybase-2 ", "flycell-10 ", "flyquad-12 "):
        assert body in out
    assert [line.split() for line in out.splitlines() if "mine/arm" in line] == [["mine/arm", "mjcf", "MIT", "-"]]
    assert any(
        "robosuite" in line and "pip install --no-deps --target DIR robosuite" in line for line in out.splitlines()
    )


def test_list_as_json_and_by_words(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robots", "list", "quad", *place, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [m["name"] for m in document["models"]] == ["flyball/flyquad"]
    assert {"embodiments", "not_installed"} < set(document)


def test_check_says_sound_and_every_finding(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["robots", "check", "mine/arm", *place]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mine/arm: sound (1 dof, 1 actuators, 1 bodies") and "licence MIT (beside the model" in out


def test_check_of_an_unsound_model_is_a_no(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    file = Path(place[3], "arm.xml")
    file.write_text(ARM.replace('joint="hinge"', 'joint="hinge" gear="0"'))
    assert main(["robots", "check", str(file), *place, "--json"]) == 1
    (report,) = json.loads(capsys.readouterr().out)
    assert not report["sound"]
    assert {"level": "error", "element": "actuator hinge", "text": "has gear 0: it moves nothing"} in report["findings"]


def test_check_of_what_does_not_import_is_one_line(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(place[3], "arm.xml").write_text(ARM.replace('name="hinge" range', 'nam="hinge" range'))
    assert main(["robots", "check", "mine/arm", *place]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "arm.xml" in err and "joint" in err and "nam" in err


def test_check_all_goes_on_after_one_that_does_not_import(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path(place[3], "broken.xml").write_text(ARM.replace('joint="hinge"', 'joint="gone"'))
    assert main(["robots", "check", "--all", *place]) == 2
    lines = {line.partition(":")[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "does not import" in lines["mine/broken"] and "gone" in lines["mine/broken"]
    assert ": sound" in lines["mine/arm"] and ": sound" in lines["flyball/flyquad"]


def test_check_reads_as_it_is_told(place: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """An inertia that no body has is refused with the option that mends it, and with that option it is a warning."""
    urdf = (
        '<robot name="r"><link name="b"><inertial><mass value="1"/>'
        '<inertia ixx=".1" ixy="0" ixz="0" iyy=".1" iyz="0" izz=".1"/></inertial></link>'
        '<link name="a"><inertial><mass value="1"/>'
        '<inertia ixx=".001" ixy="0" ixz="0" iyy=".001" iyz="0" izz=".01"/></inertial></link>'
        '<joint name="j" type="revolute"><parent link="b"/><child link="a"/><axis xyz="0 0 1"/>'
        '<limit lower="-1" upper="1" effort="1" velocity="1"/></joint></robot>'
    )
    file = Path(place[3], "arm.urdf")
    file.write_text(urdf)
    assert main(["robots", "check", str(file)]) == 2
    err = capsys.readouterr().err
    assert "link[a]" in err and "--mend" in err
    assert main(["robots", "check", str(file), "--mend", "--base", "floating"]) == 0
    out = capsys.readouterr().out
    assert "base floating" in out and "warning import: link a" in out
    assert "  mended: 1 inertia, listed below" in out
    assert main(["robots", "check", "flyarm"]) == 0
    assert "  mended: nothing" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check"], "allowed: NAME ... or --all"),
        (["check", "mine/am"], "did you mean 'mine/arm'?"),
        (["check", "gym-hil/panda"], "pip install --no-deps --target DIR gym-hil"),
        (["check", "flyarm", "--package", "arm"], "NAME=DIR"),
        (["check", "flyarm", "--root", "/nowhere"], "no such folder"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    place: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["robots", *words, *(place if words[0] == "check" else [])]) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1
