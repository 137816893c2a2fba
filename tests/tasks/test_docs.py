"""docs/scenes.md: what it shows runs as it stands."""

import re
from pathlib import Path

import pytest

TEXT = (Path(__file__).parents[2] / "docs" / "scenes.md").read_text()


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FLYBALL_RENDERER", "rays")
    blocks = re.findall(r"```(\w+)\n(.*?)```", TEXT, re.DOTALL)
    assert [kind for kind, _ in blocks] == ["toml", "python", "python", "python"]
    (tmp_path / "vary.toml").write_text(blocks[0][1])
    names: dict = {}
    for _, code in blocks[1:]:
        exec(compile(code, "docs/scenes.md", "exec"), names)
    assert (tmp_path / "depth.png").stat().st_size > 1000
    assert capsys.readouterr().out.startswith("(48, 64) {'gate': -0.0")
    assert len(set(names["world"].values["body:box.mass"])) == 16
