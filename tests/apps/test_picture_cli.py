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
        (["lift-fragile-v1"], "--out"),
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
