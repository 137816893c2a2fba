"""``flyball picture``: a PNG of a task's start or of a model, and one-line refusals."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from flyball.apps.cli.main import main

MODEL = """<mujoco><worldbody><camera name="front" pos="0 -2 1" xyaxes="1 0 0 0 .4 1"/>
 <geom type="plane" size="2 2 .1"/><geom size=".2" pos="0 0 .2"/></worldbody></mujoco>"""
RAYS = ["--renderer", "rays", "--size", "64x48"]


def size_of(png: Path) -> tuple[int, ...]:
    data = png.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_depth_of_a_task(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "lift.png"
    assert main(["picture", "lift-fragile-v1", "--out", str(out), "--kind", "depth", *RAYS, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["renderer"] == "rays" and said["camera"] == "overview"
    assert size_of(out) == (64, 48)


def test_a_robot_is_found_by_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "quad.png"
    assert main(["picture", "flyball/flyquad", "--out", str(out), "--kind", "segmentation", *RAYS]) == 0
    assert size_of(out) == (64, 48)


def test_a_models_camera_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = tmp_path / "model.xml", tmp_path / "model.png"
    model.write_text(MODEL)
    assert main(["picture", str(model), "--out", str(out), "--kind", "normals", *RAYS]) == 0
    assert "camera front" in capsys.readouterr().out and size_of(out) == (64, 48)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["lift-fragile-v2", "--out", "x.png"], "lift-fragile-v1"),
        (["lift-fragile-v1", "--out", "x.png", "--kind", "thermal"], "thermal"),
        (["lift-fragile-v1", "--out", "x.png", "--size", "big"], "640x480"),
        (["lift-fragile-v1", "--out", "x.png", "--camera", "wrist", "--kind", "depth", "--renderer", "rays"], "wrist"),
        (["lift-fragile-v1", "--out", "x.png", "--renderer", "rays"], "rgb"),
        (["nosuch", "--out", "x.png"], "flyball tasks, flyball robots"),
        (["nosuch.xml", "--out", "x.png"], "nosuch.xml: no such file"),
        (["lift-fragile-v1"], "--out"),
        (["lift-fragile-v1", "--out", "x.jpg"], "ends in .png"),
        (["lift-fragile-v1", "--out", "x.png", "--size", "0x4"], "--size 0x4"),
        (["lift-fragile-v1", "--out", "x.png", "--size", "4x99999"], "8192"),
        (["lift-fragile-v1", "--out", "x.png", "--renderer", "vulkan"], "vulkan"),
        (["lift-fragile-v1", "--out", "x.png", "--camera", "no.toml"], "no.toml"),
        (["lift-fragile-v1", "--out", "x.png", "--seed", "-1"], "--seed -1"),
        (["model.xml", "--out", "x.png", "--vary", "vary.toml"], "lift-fragile-v1"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["picture", *arguments]) == 2
    err = capsys.readouterr().err
    assert named in err and err.count("\n") == 1
    assert not (tmp_path / "x.png").exists()


GATE = """width = 64
height = 48
fovy_deg = 55
position = [0.42, 0.0, 1.0]
at = [0.42, 0.0, 0.0]
up = [1.0, 0.0, 0.0]
"""


def picture(folder: Path, *more: str) -> bytes:
    """The PNG of a depth picture of the lift by the camera of gate.toml."""
    out = folder / "seen.png"
    command = ["picture", "lift-fragile-v1", "--out", str(out), "--camera", str(folder / "gate.toml")]
    assert main([*command, "--kind", "depth", "--renderer", "rays", *more]) == 0
    return out.read_bytes()


def test_a_camera_may_come_from_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def seen(extra: str, *more: str) -> bytes:
        (tmp_path / "gate.toml").write_text(GATE + extra)
        return picture(tmp_path, *more)

    plain = seen("")
    assert "camera gate, 64 x 48" in capsys.readouterr().out
    assert plain == seen("") != seen("distortion = [-0.3, 0.05, 0, 0, 0]\n")
    noisy = "noise = { depth = 0.05 }\n"
    assert seen(noisy) == seen(noisy) != plain and seen(noisy, "--seed", "1") != seen(noisy)


def test_a_world_that_varies_is_seen(tmp_path: Path) -> None:
    (tmp_path / "gate.toml").write_text(GATE)
    file = tmp_path / "vary.toml"
    file.write_text('[object.size_scale]\nkind = "uniform"\nlow = 0.8\nhigh = 1.3\n')
    held = ["--vary", str(file), "--world"]
    third, again, fourth = (picture(tmp_path, *held, i) for i in ("3", "3", "4"))
    assert third == again != fourth
    file.write_text('["camera:gate.position[2]"]\nkind = "constant"\nhow = "add"\nvalue = 0.3\n')
    assert picture(tmp_path, *held, "3") != third
    file.write_text('["camera:gaet.position[2]"]\nkind = "constant"\nvalue = 0.3\n')
    assert main(["picture", "lift-fragile-v1", "--out", str(tmp_path / "x.png"), *held, "0"]) == 2
