"""``flyball scenes``: what a user sees."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pxr")
pytest.importorskip("mujoco")

from flyball.apps.cli.main import main

PIECE = '<mujoco model="{0}"><worldbody><body name="{0}"><freejoint/><geom size=".0{1}"/></body></worldbody></mujoco>'


def test_import_compose_show_validate_export(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, size in (("small", 2), ("large", 4)):
        (tmp_path / f"{name}.xml").write_text(PIECE.format(name, size))
        assert main(["scenes", "import", str(tmp_path / f"{name}.xml"), "--to", str(tmp_path / f"{name}.usda")]) == 0
    cell = str(tmp_path / "cell.usda")
    options = [x for n in ("small", "large") for x in ("--option", f"piece/{n}={tmp_path}/{n}.usda@0,0,1,90")]
    assert main(["scenes", "compose", cell, *options]) == 0
    capsys.readouterr()
    assert main(["scenes", "show", cell, "--variant", "piece=large", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["bodies"] == 1 and shown["mass_kg"] == pytest.approx(0.268, abs=1e-3)
    assert shown["variants"] == {"/cell.piece": {"selected": "large", "choices": ["large", "small"]}}
    assert main(["scenes", "validate", cell]) == 0
    assert "0 errors, 0 warnings" in capsys.readouterr().out
    assert main(["scenes", "export", cell, "--to", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "cell.xml").is_file()
    report = json.loads((tmp_path / "out" / "cell.xml.report.json").read_text())
    assert report["diff"]["equal"] and report["motion"]["passive"] is not None


def test_losses_are_listed_and_bad_words_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "m.xml").write_text('<mujoco><custom><numeric name="n" data="1"/></custom></mujoco>')
    assert main(["scenes", "import", str(tmp_path / "m.xml"), "--to", str(tmp_path / "m.usda")]) == 3
    err = capsys.readouterr().err
    assert err.startswith("lost: ") and "custom number" in err
    for words, says in (
        (["scenes", "fly", "x"], "allowed: show, validate, compose, import, export"),
        (["scenes", "show", str(tmp_path / "m.usda"), "--variant", "x"], "allowed: SET=CHOICE"),
        (["scenes", "import", str(tmp_path / "m.xml")], "--to PATH"),
        (["scenes", "import", str(tmp_path / "m.xml"), "--to", "m.fbx"], "allowed: .usda .usdc .usd .usdz"),
        (["scenes", "compose", str(tmp_path / "c.usda"), "--part", "a=b.usda@1,x,2"], "FILE@x,y,z,yaw"),
        (["scenes", "export", str(tmp_path / "m.usda"), "--to", str(tmp_path), "--as", "fbx"], "no model format"),
    ):
        assert main(words) == 2
        err = capsys.readouterr().err
        assert says in err and err.count("\n") == 1, err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "arm.xml"], "try: flyball scenes import arm.xml --to arm.usda"),
        (["validate", "picture.png"], "allowed: .usda, .usdc, .usd, .usdz"),
        (["compose", "cell.txt"], "cell.txt is no USD file by its name"),
        (["show", "none.usda"], "none.usda: no such file"),
    ],
)
def test_what_is_no_usd_file_is_told_by_its_name(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scenes", *words]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
