"""``flyball robots import | export | diff`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flyball.apps.cli.main import main

ARM = """<robot name="arm"><link name="base"/><link name="upper"><inertial><mass value="1"/>
<inertia ixx=".01" iyy=".01" izz=".01" ixy="0" ixz="0" iyz="0"/></inertial></link>
<joint name="j1" type="revolute"><parent link="base"/><child link="upper"/><axis xyz="0 1 0"/>
<limit lower="-1" upper="1" effort="10" velocity="3"/></joint>{}</robot>"""
MJCF = """<mujoco model="bot"><worldbody><body name="a"><joint name="j" axis="0 1 0" armature=".1"/>
<geom type="box" size=".1 .1 .1" pos=".1 0 0"/></body></worldbody>
<actuator><position name="p" joint="j" kp="10"/></actuator>{}</mujoco>"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("FLYBALL_ROBOTS", "ROS_PACKAGE_PATH", "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROBOT_DESCRIPTIONS_CACHE", str(tmp_path / "none"))
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "arm.urdf").write_text(ARM.format(""))
    (tmp_path / "in" / "bot.xml").write_text(MJCF.format(""))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(["robots", *argv])
    text = capsys.readouterr()
    return code, text.out, text.err


def test_import_keeps_the_model_and_says_what_it_assumed(here, capsys):
    code, out, err = call(capsys, "import", "in/arm.urdf")
    assert code == 0 and "arm/arm.xml written (fixed base, 1 kg)" in out.splitlines()[0]
    assert "note: URDF does not say whether the base is fixed" in err
    assert "passive: joint j1 parts most, 0 rad or m" in out
    report = json.loads((here / "arm" / "arm.xml.report.json").read_text())
    assert report["diff"]["equal"] is True and report["losses"] == []
    assert json.loads((here / "arm" / "arm.xml.flyball.json").read_text())["velocity_limits"] == {"j1": 3.0}


def test_losses_are_listed_and_are_exit_code_3(here, capsys):
    (here / "in" / "arm.urdf").write_text(ARM.format("<gazebo/>"))
    code, _, err = call(capsys, "import", "in/arm.urdf", "--base", "fixed", "--out", "out")
    assert code == 3 and "warning: lost: 1 <gazebo> element" in err and "note:" not in err


def test_export_lists_what_only_the_sidecar_holds(here, capsys):
    code, out, err = call(capsys, "export", "in/bot.xml", "--to", "urdf", "--out", "out")
    assert code == 0 and "out/bot.urdf written" in out
    assert "warning: only in bot.urdf.flyball.json: joint: armature" in err
    assert "step response: joint j parts most, 0 rad or m" in out
    code, out, _ = call(capsys, "diff", "in/bot.xml", "out/bot.urdf")
    assert code == 0 and "actuator  1      0        0     0" in out


def test_diff_names_what_changed(here, capsys):
    (here / "in" / "other.xml").write_text(MJCF.format("").replace('armature=".1"', 'armature=".2"'))
    code, out, _ = call(capsys, "diff", "in/bot.xml", "in/other.xml", "--no-motion")
    assert code == 1 and "joint j: armature 0.1 -> 0.2" in out
    code, out, _ = call(capsys, "diff", "in/bot.xml", "in/other.xml", "--json")
    document = json.loads(out)
    assert document["changes"][0]["field"] == "armature" and document["motion"]["passive"]["largest"]["j"] > 0


def test_names_of_the_zoo_are_as_good_as_files(here, capsys):
    code, out, _ = call(capsys, "import", "flyball/flybase", "--no-motion")
    assert code == 0 and "flybase/flybase.xml written" in out and "licence: Apache-2.0" in out
    code, out, _ = call(capsys, "diff", "flybase", "flybase/flybase.xml", "--no-motion")
    assert code == 0 and "joint" in out
    code, _, err = call(capsys, "export", "flyball/flybse", "--to", "urdf", "--out", "out")
    assert (
        code == 2 and "did you mean 'flyball/flybase'?" in err and err.count("\n") == 1 and not (here / "out").exists()
    )


BALL = (
    '<robot name="r"><link name="a"><inertial><mass value="1"/><inertia ixx="1" iyy="1" izz="1"/>'
    '</inertial><visual><geometry><mesh filename="package://arm_description/m.obj"/></geometry></visual></link></robot>'
)
CORNERS = [(0, 0, 0), (1, 0, 0), (0, 1, 0)]


def tetrahedron(height: float) -> str:
    return (
        "\n".join(f"v {x} {y} {z}" for x, y, z in [*CORNERS, (0, 0, height)]) + "\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    )


def ros_package(folder: Path, height: float) -> None:
    folder.mkdir(parents=True)
    (folder / "package.xml").write_text("<package><name>arm_description</name></package>")
    (folder / "m.obj").write_text(tetrahedron(height))


def test_packages_are_told_then_the_model_s_own_then_the_environment_s(here, capsys, monkeypatch):
    monkeypatch.setenv("ROS_PACKAGE_PATH", str(here / "ros"))
    ros_package(here / "ros" / "arm", 1.0)
    ros_package(here / "own", 2.0)
    ros_package(here / "told", 3.0)
    (here / "own" / "urdf").mkdir()
    (here / "own" / "urdf" / "r.urdf").write_text(BALL)
    (here / "in" / "r.urdf").write_text(BALL)
    told = ("--package", "arm_description=told")
    for argv, height in ((("in/r.urdf",), 1.0), (("own/urdf/r.urdf",), 2.0), (("own/urdf/r.urdf", *told), 3.0)):
        assert call(capsys, "import", *argv, "--base", "fixed", "--out", "out", "--no-motion")[0] == 0
        assert tetrahedron(height).splitlines()[3] in (here / "out" / "assets" / "m.obj").read_text()
    monkeypatch.delenv("ROS_PACKAGE_PATH")
    code, _, err = call(capsys, "import", "in/r.urdf")
    assert (
        code == 2
        and "mesh@filename: package 'arm_description' was not found; try: --package arm_description=DIR" in err
    )


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (("import", "gone.urdf"), "gone.urdf: no such file"),
        (("diff", "in/bot.xml", "nowhere/arm"), "no model named 'nowhere/arm'"),
        (("export", "in/bot.xml", "--to", "step", "--out", "x"), "no model format named 'step'"),
        (("export", "in/bot.xml", "--to", "mjcf", "--out", "in"), "the model's own folder"),
        (("import", "in/arm.urdf", "--package", "x"), "--package 'x'"),
        (("import", "in/bad.urdf"), "bad.urdf:1 robot[r]/link[a]/inertial/mass@value: mass = -1 kg"),
        (("export", "in/bot.xml", "--out", "x"), "--to"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(here, capsys, argv, text):
    bad = '<robot name="r"><link name="a"><inertial><mass value="-1"/></inertial></link></robot>'
    (here / "in" / "bad.urdf").write_text(bad)
    code, out, err = call(capsys, *argv)
    assert code == 2 and out == "" and text in err and len(err.splitlines()) == 1
