"""Cameras from TOML: what they are, and one line for what is none."""

import re
from pathlib import Path

import numpy as np
import pytest

from flyball.base import InputError
from flyball.scenes import Camera, Noise, load_camera
from flyball.scenes.camera_files import __doc__ as FORMAT

SHORT = "width = 640\nheight = 480\nfovy_deg = 55\n"


def load(folder: Path, text: str) -> Camera:
    file = folder / "gate.toml"
    file.write_text(text)
    return load_camera(file)


def test_the_example_of_the_text_is_a_camera(tmp_path: Path) -> None:
    example = "\n".join(line[4:] for line in FORMAT.splitlines() if line.startswith("    "))
    want = Camera.looking(
        "gate", 640, 480, 55, (0.4, 0, 0.05), (0.9, -0.5, 0.6), distortion=(-0.2, 0.05, 0, 0, 0),
        noise=Noise(shot=0.2, read=2), rate_hz=15, delay_s=0.04,
    )  # fmt: skip
    got = load(tmp_path, example)
    assert got == want


def test_every_field_can_be_written(tmp_path: Path) -> None:
    text = """name = "wrist"
width = 32
height = 24
fx = 30
fy = 31
cx = 15
cy = 11
parent = "body:hand"
position = [0, 0, 0.1]
quat = [0, 1, 0, 0]
distortion = [0.1, 0, 0, 0, 0]
rate_hz = 30
delay_s = 0.02
dropout = 0.1
noise = { shot = 0.1, read = 1, depth = 0.01 }
"""
    got = load(tmp_path, text)
    assert got == Camera(
        "wrist", 32, 24, 30, 31, 15, 11, "body:hand", (0, 0, 0.1), (0, 1, 0, 0), (0.1, 0, 0, 0, 0), 30, 0.02,
        Noise(0.1, 1, 0.01), 0.1,
    )  # fmt: skip
    assert load(tmp_path, SHORT).name == "gate", "the file's name, where none is given"
    np.testing.assert_allclose(load(tmp_path, SHORT + "at = [1, 0, 0]\n").rotation[:, 2], (1, 0, 0), atol=1e-12)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("width = 640\nheight = 480\n", "not a camera"),
        (SHORT + "fx = 3\n", "fx and fovy_deg are both given"),
        (SHORT + "at = [0, 0, 1]\nquat = [1, 0, 0, 0]\n", "quat and at"),
        (SHORT + "at = [0, 0, 1]\n", "own up direction"),
        (SHORT + "at = [0, 0]\n", "at = .*three numbers"),
        (SHORT + "at = [nan, 0, 0]\n", "finite"),
        (SHORT + "colour = 3\n", "unknown key 'colour'.*distortion"),
        (SHORT + "dropout = 2\n", r"dropout = 2.*\[0, 1\]"),
        (SHORT + "noise = { shoot = 1 }\n", "shoot"),
        (SHORT + "position = 3\n", "position"),
        (SHORT.replace("640", '"wide"'), "width = wide"),
        (SHORT.replace("55", "true"), "fovy_deg = True"),
        (SHORT.replace("55", "[1, 2]"), "fovy_deg = .*number"),
        ("width = ", "is not TOML"),
        ("\x00", "is not TOML"),
    ],
)
def test_what_is_no_camera_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    line = caught.value.line()
    assert "gate.toml" in line and re.search(says, line) and "\n" not in line


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.toml"):
        load_camera(tmp_path / "no.toml")
