"""Every kind of bad model, as a user meets it: exit code 2, one line that names the element, nothing written."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from flyball.apps.cli.main import main

pytest.importorskip("mujoco")

ARM = """<robot name="r"><link name="base"/><link name="arm"><inertial><mass value="{mass}"/>
<inertia ixx="{i}" iyy="{i}" izz="{i}" ixy="0" ixz="0" iyz="0"/></inertial>
<visual><geometry><mesh filename="{mesh}" scale="{scale} {scale} {scale}"/></geometry></visual></link>
<joint name="j" type="revolute"><parent link="base"/><child link="arm"/><axis xyz="0 0 1"/>
<limit lower="-1" upper="1" effort="1" velocity="1"/></joint></robot>"""
USDA = """#usda 1.0
(
 defaultPrim = "R"
 metersPerUnit = 1
 upAxis = "Z"
)
def Xform "R"
{
 def Xform "b" (prepend apiSchemas = ["PhysicsRigidBodyAPI", "PhysicsMassAPI"])
 {
  float physics:mass = 1
  float3 physics:diagonalInertia = (nan, 1, 1)
 }
}
"""


def urdf(folder: Path, *, mass: str = "1", i: str = ".01", mesh: str = "package://arm/m.obj", scale: str = "1") -> Path:
    """An arm in a ROS package, 0.1 m long."""
    (folder / "package.xml").write_text("<package><name>arm</name></package>")
    (folder / "m.obj").write_text("v 0 0 0\nv .1 0 0\nv 0 .1 0\nv 0 0 .1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    (folder / "r.urdf").write_text(ARM.format(mass=mass, i=i, mesh=mesh, scale=scale))
    return folder / "r.urdf"


def mjcf(folder: Path, text: str, inside: bool = True) -> Path:
    body = f'<worldbody><body name="b"><joint name="j"/>{text}</body></worldbody>' if inside else text
    (folder / "r.xml").write_text(f'<mujoco model="m">{body}</mujoco>')
    return folder / "r.xml"


def circle(folder: Path) -> Path:
    (folder / "other.xml").write_text('<mujoco><include file="r.xml"/></mujoco>')
    return mjcf(folder, '<include file="other.xml"/>', inside=False)


def sidecar(folder: Path) -> Path:
    path = mjcf(folder, '<geom size=".1"/>')
    path.with_name("r.xml.flyball.json").write_text('{"flyball_sidecar": 9}')
    return path


def huge(folder: Path) -> Path:
    """Ten gigabytes that take no room on the disk."""
    (folder / "huge.stl").touch()
    os.truncate(folder / "huge.stl", 10 << 30)
    return mjcf(folder, '<asset><mesh name="m" file="huge.stl"/></asset>', inside=False)


def bomb(folder: Path) -> Path:
    pytest.importorskip("pxr")
    with zipfile.ZipFile(folder / "r.usdz", "w") as z:
        z.writestr("a.usda", USDA, zipfile.ZIP_STORED)
        z.writestr("b.usda", b"\0" * (8 << 20), zipfile.ZIP_DEFLATED)
    return folder / "r.usdz"


def usda(folder: Path) -> Path:
    pytest.importorskip("pxr")
    (folder / "r.usda").write_text(USDA)
    return folder / "r.usda"


BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "mm as m": (lambda f: urdf(f, scale="1000"), "body arm: its shapes are 1.41e+03 times the size its inertia"),
    "NaN inertia": (lambda f: urdf(f, i="nan"), "robot[r]/link[arm]/inertial/inertia@ixx: ixx='nan' is not finite"),
    "negative mass": (lambda f: urdf(f, mass="-1"), "robot[r]/link[arm]/inertial/mass@value: mass = -1 kg"),
    "missing mesh": (lambda f: urdf(f, mesh="package://arm/n.obj"), "geometry/mesh@filename: no file 'package://arm/n"),
    "negative mass in MJCF": (
        lambda f: mjcf(f, '<inertial pos="0 0 0" mass="-1" diaginertia="1 1 1"/>'),
        "worldbody/body[b]/inertial@mass: mass = -1 kg; allowed: >= 0",
    ),
    "missing mesh in MJCF": (
        lambda f: mjcf(f, '<asset><mesh name="m" file="gone.stl"/></asset>', inside=False),
        "mujoco/asset/mesh[m]@file: no file 'gone.stl'",
    ),
    "malformed": (lambda f: mjcf(f, "<geom"), "XML is not well-formed"),
    "cyclic include": (
        circle,
        "other.xml:1 mujoco/include@file: files include each other: r.xml -> other.xml -> r.xml",
    ),
    "unknown schema version": (sidecar, "r.xml.flyball.json: sidecar schema 9; allowed: 1"),
    "10 GB mesh": (huge, "mujoco/asset/mesh[m]@file: 'huge.stl' has 10737 MB; allowed: up to 268 MB a file"),
    "zip bomb": (bomb, "r.usdz[b.usda]: compressed, "),
    "NaN inertia in USD": (usda, "r.usda /R/b: physics:diagonalInertia is not finite"),
    "a folder": (lambda f: f, ": a folder; allowed: models; try: flyball robots --path "),
}


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the model, and nothing of this machine's own robots."""
    for name in ("FLYBALL_ROBOTS", "ROS_PACKAGE_PATH", "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ROBOT_DESCRIPTIONS_CACHE", str(tmp_path / "none"))
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "model"


@pytest.mark.parametrize("case", BAD)
def test_bad_model(case: str, alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make, says = BAD[case]
    path = make(alone)
    assert main(["robots", "import", str(path), "--out", "out"]) == 2
    told = capsys.readouterr()
    assert says in told.err and told.err.count("\n") == 1 and told.out == "", told.err
    assert not Path("out").exists()


def test_units_that_are_mixed_up_are_taken_when_asked(alone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(urdf(alone, scale="1000"))
    assert main(["robots", "check", path]) == 2
    assert "units are mixed up: body arm" in capsys.readouterr().err
    assert main(["robots", "check", path, "--as-it-is"]) == 0
    assert "warning body arm: its shapes are" in capsys.readouterr().out
    assert main(["robots", "check", str(urdf(alone))]) == 0, "the same arm in metres"
