"""``flyball variations``: the same worlds wherever they are drawn, the format in its help, and early refusals."""

import json
import re
from pathlib import Path

import pytest

from flyball.apps.cli.main import main
from flyball.apps.cli.variations import _FORMAT
from flyball.scenes.compositions import KINDS
from flyball.scenes.variation_files import read_variations
from flyball.tasks import tasks
from flyball.tasks.task import varied
from flyball.tasks.world import World

LIFT = tasks.load("lift-fragile-v1")


def example() -> str:
    return "\n".join(line for line in _FORMAT.splitlines() if line.startswith("  "))


def test_the_example_of_the_help_draws_and_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "vary.toml"
    file.write_text(example())
    command = ["variations", str(file), "--task", "lift-fragile-v1", "--seed", "7", "--json"]
    assert main([*command, "--worlds", "4"]) == 0
    values = json.loads(capsys.readouterr().out)["values"]
    assert main([*command, "--worlds", "1", "--first", "2"]) == 0
    assert json.loads(capsys.readouterr().out)["values"] == {path: [x[2]] for path, x in values.items()}
    scene = varied(LIFT, read_variations(example())).scene
    assert {p: x.tolist() for p, x in scene.draw_worlds(7, range(4)).items() if p in values} == values
    World(varied(LIFT, read_variations(example())), 1).reset({}, [0])


def test_the_help_names_every_kind() -> None:
    told = set(re.findall(r"\w+", _FORMAT.partition("kinds:")[2]))
    assert {*KINDS, "constant", "correlated", "joint"} <= told


@pytest.mark.parametrize(
    ("table", "more", "says"),
    [
        ('["light:sun.diffuse[0]"]', [], "no light named 'sun'"),
        ('["geom:box.colour"]', [], "cannot get 'geom:box.colour'"),
        ('["sensor:object.pse.delay"]', [], "object.pose"),
        ("[object.mas]", [], "did you mean 'object.mass'"),
        ("[object.mass]", [], "object.mass = 5 in world 3"),
        ("[object.mass]", ["--first", "-1"], "--first -1"),
        ("[object.mass]", ["--engine", "bullet"], "no engine named 'bullet'"),
    ],
)
def test_what_a_task_cannot_do_is_told_before_anything_is_simulated(
    table: str, more: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "vary.toml"
    value = 5.0 if "5" in says else 0.5
    file.write_text(f'{table}\nkind = "constant"\nvalue = {value}\n')
    assert main(["variations", str(file), "--task", "lift-fragile-v1", "--first", "3", *more]) == 2
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
