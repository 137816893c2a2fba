"""A sample of ``benchmarks/zoo.py``: what it counts, and that a reason without an element is called one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import zoo

from flyball.base import InputError
from flyball.robots.models import Imported
from flyball.robots.models.mjcf import MjcfFormat
from flyball.robots.zoo.found import FoundModel, Search, search

ARM = '<mujoco><worldbody><body name="b"><joint name="j"/><geom size=".1"/></body></worldbody></mujoco>'


def test_table_and_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "arm.xml").write_text(ARM)
    (mine / "bad.xml").write_text(ARM.replace('size=".1"', 'size="wide"'))
    (tmp_path / "site").mkdir()
    argv = ["--site", str(tmp_path / "site"), "--path", str(mine), "--only", "mine/"]
    assert zoo.main(argv) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].split() == ["mine", "not", "stated", "2", "1", "1", "0", "0"]
    assert any(line.startswith("mine/bad: ") and "bad.xml:1" in line and "geom" in line for line in out)
    assert zoo.main([*argv, "--check", "--json"]) == 0
    verdicts = {o["name"]: o["verdict"] for o in json.loads(capsys.readouterr().out)}
    assert verdicts == {"mine/arm": "sound", "mine/bad": ""}


def test_a_loss_that_a_writer_does_not_list_is_a_defect(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "arm.xml").write_text(ARM.replace("<joint", '<joint damping=".5"'))
    argv = ["--site", str(tmp_path), "--path", str(tmp_path / "mine"), "--only", "mine/", "--to", "mjcf"]
    assert zoo.main(argv) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[-5:] == ["1", "0", "0", "0", "0"]
    whole = MjcfFormat.write

    def careless(self: MjcfFormat, imported: Imported, folder: Path) -> tuple[Path, list[str]]:
        return whole(self, replace(imported, mjcf=imported.mjcf.replace(' damping=".5"', "")), folder)

    monkeypatch.setattr(MjcfFormat, "write", careless)
    assert zoo.main(argv) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[1].split()[-5:] == ["0", "0", "0", "1", "0"]
    assert "mine/arm: silent: joint j: damping 0.5 -> 0" in out


@pytest.mark.parametrize(
    ("error", "named"),
    [
        (InputError("something is wrong"), False),
        (InputError("negative mass", where="arm.urdf:12 robot/link[hand]/inertial"), True),
        (ValueError("geom 'hand' has no size"), False),  # not a clean refusal, whatever it says
    ],
)
def test_a_reason_without_an_element_is_told(
    error: Exception, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: FoundModel, options: object) -> None:
        raise error

    monkeypatch.setattr(FoundModel, "load", fail)
    outcome = zoo.tried(FoundModel("a/b", "mjcf", Path("b.xml")), False, zoo.ReadOptions())
    site = ["--site", str(tmp_path), "--only", "flyball/flyarm"]
    assert zoo.main(site) == (0 if named else 1)
    assert (outcome.result, outcome.named) == ("refused" if isinstance(error, InputError) else "crashed", named)


def test_published_models_that_are_here_import() -> None:
    """Gymnasium's, where it is installed; the campaign over all packages is run by hand."""
    here = {m.name: m for m in search(Search(environment={}))[0]}
    sample = [here[n] for n in ("gymnasium/ant", "gymnasium/humanoid", "gymnasium/reacher") if n in here]
    if not sample:
        pytest.skip("gymnasium is not installed")
    outcomes = [zoo.tried(m, True, zoo.ReadOptions()) for m in sample]
    assert {(o.result, o.verdict) for o in outcomes} == {("imported", "sound")}
