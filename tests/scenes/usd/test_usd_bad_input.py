# ruff: noqa: E501 - imports after the library is known to be there; files as they come
"""Bad files: one line that names the prim, nothing half done."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("pxr")
pytest.importorskip("mujoco")

from flyball.base import Damaged, InputError
from flyball.robots.models import load
from flyball.scenes.usd import guard, package, read_guarded, stage
from flyball.scenes.usd.child import read_here

HEAD = '#usda 1.0\n(\n defaultPrim = "R"\n metersPerUnit = 1\n upAxis = "Z"\n)\n'


def rigid(inside: str = "", attributes: str = "float physics:mass = 1") -> str:
    apis = '"PhysicsRigidBodyAPI", "PhysicsMassAPI"'
    return f'{HEAD}def Xform "R"\n{{\ndef Xform "b" (\n prepend apiSchemas = [{apis}]\n)\n{{\n{attributes}\n{inside}\n}}\n}}\n'


def collider(kind: str, inside: str) -> str:
    return rigid(f'def {kind} "g" (\n prepend apiSchemas = ["PhysicsCollisionAPI"]\n)\n{{\n{inside}\n}}\n')


BAD = {
    "malformed": (HEAD + 'def Xform "R" {', "line 7:16"),
    "not text": (b"#usda 1.0\n\xff\xfe def", "."),
    "not usd": (b"hello", "not a valid usda layer"),
    "NaN inertia": (rigid(attributes="float physics:mass = 1\nfloat3 physics:diagonalInertia = (nan, 1, 1)"), "/R/b: physics:diagonalInertia is not finite"),
    "impossible inertia": (rigid(attributes="float physics:mass = 1\nfloat3 physics:diagonalInertia = (9, 1, 1)"), "/R/b: moments of inertia 9 1 1 belong to no body"),
    "negative inertia": (rigid(attributes="float physics:mass = 1\nfloat3 physics:diagonalInertia = (-1, 1, 1)"), "/R/b: moments of inertia -1 1 1"),
    "negative mass": (rigid(attributes="float physics:mass = -1"), "/R/b: physics:mass = -1"),
    "infinite mass": (rigid(attributes="float physics:mass = inf"), "/R/b: physics:mass = inf"),
    "text for a number": (rigid(attributes='string newton:inertia = "x"'), "/R/b: newton:inertia is a str"),
    "NaN place": (rigid(attributes='double3 xformOp:translate = (nan, 0, 0)\nuniform token[] xformOpOrder = ["xformOp:translate"]'), "/R/b: its transform is not finite"),
    "flat scale": (rigid(attributes='double3 xformOp:scale = (0, 1, 1)\nuniform token[] xformOpOrder = ["xformOp:scale"]'), "/R/b: its transform has a scale of zero"),
    "negative size": (collider("Sphere", "double radius = -1"), "/R/b/g: radius = -1"),
    "size beyond numbers": (collider("Sphere", "double radius = 1e300"), "/R/b/g: too large for a volume"),
    "no axis": (collider("Capsule", 'uniform token axis = ""'), "/R/b/g: axis = ''"),
    "an axis of a cone": (collider("Cone", 'uniform token axis = "W"'), "/R/b/g: axis = 'W'"),
    "an axis of a joint": (rigid('def PhysicsRevoluteJoint "j"\n{\nrel physics:body1 = </R/b>\nuniform token physics:axis = "XY"\n}'), "/R/b/j: physics:axis = 'XY'"),
    "bad face": (collider("Mesh", "point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]\nint[] faceVertexCounts = [3]\nint[] faceVertexIndices = [0, 1, 9]"), "/R/b/g: a face names point 9 of 4"),
    "short faces": (collider("Mesh", "point3f[] points = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]\nint[] faceVertexCounts = [3, 3]\nint[] faceVertexIndices = [0, 1, 2]"), "/R/b/g: 2 faces ask for 6 of 3 indices"),
    "missing reference": (HEAD + 'def Xform "R" (\n references = @nothing.usda@\n)\n{\n}\n', "/R: Could not open asset @nothing.usda@"),
    "missing target": (rigid('def PhysicsRevoluteJoint "j"\n{\nrel physics:body1 = </R/none>\n}'), "/R/b/j: physics:body1 names /R/none, which does not exist"),
    "cyclic reference": (HEAD + 'def Xform "R"\n{\ndef Xform "a" (\n references = </R>\n)\n{\n}\n}\n', "/R/a: cyclic reference"),
    "cyclic sublayers": (HEAD.replace("metersPerUnit", "subLayers = [@./f.usda@]\n metersPerUnit") + 'def Xform "R"\n{\n}\n', "cyclic reference"),
    "newer schema": (HEAD + 'def Xform "R" (\n customData = {\n dictionary flyball = {\n int version = 9\n }\n }\n)\n{\n}\n', "/R: flyball:version 9; allowed: 1 to 1"),
    "deep nesting": (HEAD + 'def "R" {\n' * 300 + "}\n" * 300, "nest too deeply"),
    "units": (HEAD.replace("metersPerUnit = 1", "metersPerUnit = -1") + 'def Xform "R"\n{\n}\n', "metersPerUnit = -1"),
    "limits": (rigid('def PhysicsRevoluteJoint "j"\n{\nrel physics:body1 = </R/b>\nfloat physics:lowerLimit = 9\nfloat physics:upperLimit = -9\n}'), "/R/b/j: limits 9 > -9"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_line_that_names_the_prim(case: str, tmp_path: Path) -> None:
    text, says = BAD[case]
    path = tmp_path / "f.usda"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as caught:
        read_here(path)
    line = caught.value.line()
    assert says in line and str(path) in line and "\n" not in line, line


def test_a_mass_of_nothing_is_refused_at_its_prim(tmp_path: Path) -> None:
    """MuJoCo's own refusal, in USD's terms, through the door that users take."""
    path = tmp_path / "f.usda"
    path.write_text(rigid(attributes=""))
    with pytest.raises(InputError, match=r"f\.usda /R/b: mass and inertia of moving bodies"):
        load(path)


def test_packages_are_looked_at_before_they_are_opened(tmp_path: Path) -> None:
    path = tmp_path / "f.usdz"
    layer = (HEAD + 'def Xform "R"\n{\n}\n').encode()

    def packed(name: str, data: bytes, how: int = zipfile.ZIP_STORED) -> None:
        with zipfile.ZipFile(path, "w", how) as z:
            z.writestr("a.usda", layer, zipfile.ZIP_STORED)
            z.writestr(name, data)

    packed("../../escape.usda", b"x")
    with pytest.raises(InputError, match=r"escape\.usda\]: the name leads out"):
        read_here(path)
    packed("/etc/x.usda", b"x")
    with pytest.raises(InputError, match="the name leads out"):
        read_here(path)
    packed("bomb.usda", b"0" * 10_000_000, zipfile.ZIP_DEFLATED)
    with pytest.raises(InputError, match=r"bomb\.usda\]: compressed, \d+ to 10000000 bytes"):
        read_here(path)
    packed("inner.usdz", b"x")
    with pytest.raises(InputError, match="a package within a package"):
        read_here(path)
    packed("b.png", b"x" * 5000)
    assert package.check(path, 1 << 20) == ["a.usda", "b.png"]
    with pytest.raises(InputError, match="more than 5"):
        package.check(path, 5000)
    path.write_bytes(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, 0, 0, 0, 0, 0))
    with pytest.raises(Damaged, match="the first entry is no USD layer"):
        read_here(path)


def test_a_package_whose_directory_lies(tmp_path: Path) -> None:
    path = tmp_path / "f.usdz"
    with zipfile.ZipFile(path, "w") as z:
        z.writestr("a.usda", b"#usda 1.0\n")
    data = path.read_bytes()
    at = data.index(b"PK\x01\x02")
    path.write_bytes(data[: at + 20] + struct.pack("<II", 2_000_000_000, 2_000_000_000) + data[at + 28 :])
    with pytest.raises(InputError, match="bytes"):
        read_here(path)


def test_size_is_looked_at_before_reading(tmp_path: Path) -> None:
    """Ten gigabytes that take no room on the disk: refused at once, by the root and by what it refers to."""
    big = tmp_path / "big.usda"
    with big.open("wb") as f:
        f.truncate(10 << 30)
    with pytest.raises(InputError, match="10737418240 bytes"):
        read_here(big)
    small = tmp_path / "small.usda"
    small.write_text(HEAD + 'def Xform "R" (\n payload = @./big.usda@\n)\n{\n}\n')
    with pytest.raises(InputError, match=r"big\.usda: 10737418240 bytes"):
        read_here(small)


def test_layers_outside_the_folder_are_refused_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "out.usda").write_text(HEAD + 'def Xform "R"\n{\n}\n')
    inner = tmp_path / "in"
    inner.mkdir()
    (inner / "f.usda").write_text(HEAD + 'def Xform "R" (\n references = @../out.usda@\n)\n{\n}\n')
    assert read_here(inner / "f.usda").layers
    with pytest.raises(InputError, match=r"out\.usda: lies outside"):
        read_here(inner / "f.usda", root=inner)


def test_references_that_multiply_end_with_the_process_that_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every level refers ten times to the next: a billion prims in one kilobyte."""
    lines = [HEAD]
    for level in range(9):
        inner = "".join(f'def Xform "x{k}" (\n references = </L{level + 1}>\n)\n{{\n}}\n' for k in range(10))
        lines.append(f'def Xform "{"R" if level == 0 else f"L{level}"}"\n{{\n{inner}}}\n')
    path = tmp_path / "f.usda"
    path.write_text("".join(lines) + 'def Xform "L9"\n{\n}\n')
    monkeypatch.setattr(guard, "CPU_S", 2)
    with pytest.raises(InputError, match=rf"{path}: it takes more than 2 s of CPU time"):
        read_guarded(path)


def test_too_many_prims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f.usda"
    path.write_text(HEAD + 'def Xform "R"\n{\n' + "".join(f'def "p{k}"\n{{\n}}\n' for k in range(50)) + "}\n")
    monkeypatch.setattr(stage, "MOST_PRIMS", 20)
    with pytest.raises(InputError, match="more than 20 prims"):
        read_here(path)


def test_without_openusd_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flyball.base import NotPossible

    monkeypatch.setattr(guard, "find_spec", lambda name: None)
    with pytest.raises(NotPossible, match=r"pip install 'flyball\[usd\]'"):
        read_guarded(tmp_path / "f.usda")
