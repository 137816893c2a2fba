"""Another task goes through the same code."""

import json
import re
import subprocess
import sys
from pathlib import Path

import flyball
from flyball.apps.web.report import render
from flyball.tasks import tasks

NAME = "slide-puck-v1"


def test_a_turn_of_it(tmp_path):
    out = tmp_path / "out.json"
    command = [sys.executable, str(Path(__file__).with_name("tiny.py")), str(tmp_path / "w"), str(out)]
    done = subprocess.run([*command, "--task", NAME, "--robots", "1", "--turns", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    document = json.loads(out.read_text())
    turn, task = document["turns"][0], tasks.load(NAME)
    assert document["task"] == NAME and turn["fleet"]["trials"] == 4 and set(task.groups) <= set(turn["failures"])
    assert {p["path"] for p in document["parameters"]} >= {p.path for p in task.scene.parameters}
    assert turn["verdict"] != "nothing to learn" and NAME in render(document)


def test_no_code_branches_on_a_task_s_name():
    package = Path(flyball.__file__).parent
    mentions = []
    for path in package.rglob("*.py"):
        if path.parent.name != "zoo":
            for line in path.read_text().splitlines():
                if re.search(r"(==|!=|\bin\b|\bif\b|case).*[\"'](lift-fragile|slide-puck)", line.partition("#")[0]):
                    mentions.append(f"{path.relative_to(package)}: {line.strip()}")
    assert [m for m in mentions if "task = 'lift-fragile-v1' AND" not in m] == []  # an SQL example in a docstring
