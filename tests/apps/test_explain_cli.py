"""``flyball explain``: from a log file to a sentence, a page, a crash test and a range; errors in one line."""

import functools
import json
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.base.workspace import Workspace
from flyball.calibration import explain as package
from flyball.calibration.explain.causes import Search
from flyball.calibration.explain.counterfactual import Budget
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.formats import read_one
from flyball.episodes.recorder import Recorder
from flyball.scenes import load_variations
from flyball.tasks import tasks
from flyball.tasks.world import World

TASK = tasks.load("slide-puck-v1")
LESS = {
    "search": Search(base=8, strata=6, rounds=(12,), keep=1, draws=8),
    "budget": Budget(first=2, grid=8, samples=8, halvings=3),
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A log of a puck that went too far, what the policy was told, and the robot's calibration."""
    folder = tmp_path_factory.mktemp("explain")
    nominal = TASK.scene.nominal(1)
    told = TASK.told(nominal)
    done = World(TASK, 1).run(TASK.expert(told), {"object.friction": np.array([0.034])}, [5])
    assert done.judge(TASK)[0].group == "long"
    recorder = Recorder(folder / "long.mcap", TASK.embodiment, {"robot": "robot-01", "task": TASK.name, "seed": 5})
    for k in range(75):
        for name, x in done.signals.items():
            recorder.write(name, k * 40_000_000, x[0, k])
    recorder.close()
    (folder / "told.json").write_text(json.dumps(dict(zip(TASK.conditioning, told[0].tolist(), strict=True))))
    rng = np.random.default_rng(0)
    paths = [p.path for p in TASK.scene.parameters if p.scale == "log"]
    samples = [[float(nominal[p][0] * np.exp(0.03 * rng.standard_normal())) for p in paths] for _ in range(40)]
    (folder / "calibration.json").write_text(json.dumps({"paths": paths, "samples": samples}))
    return folder


@pytest.fixture
def less(monkeypatch):
    monkeypatch.setattr(package, "explain", functools.partial(package.explain, **LESS))


def options(inputs):
    return ["--policy", "expert", "--told", str(inputs / "told.json"), "--calibration",
            str(inputs / "calibration.json"), "--workspace", str(inputs / "none")]  # fmt: skip


def test_a_log_is_explained_and_its_crash_test_holds(inputs, less, capsys):
    out = inputs / "out"
    assert main(["explain", str(inputs / "long.mcap"), *options(inputs), "--out", str(out), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["explanations"]
    assert found["cause"] == "object.friction" and "would have held" in found["sentence"]
    page = (out / "explain-long.html").read_text()
    ElementTree.fromstring("<svg " + page.split("<svg ", 1)[1].split("</svg>")[0] + "</svg>")
    assert "http" not in page and page.count("<rect") >= 81, "nothing is loaded; one cell per pair"
    assert "Margin" in page and "object.friction" in page
    varied = {p for v in load_variations(out / "explain-long.toml") for p in v.paths}
    assert "object.friction" in varied
    crash = str(out / "explain-long.crash.json")
    assert main(["explain", "--check", crash, "--workspace", str(inputs / "none")]) == 0
    assert capsys.readouterr().out.startswith("holds: fails in ")
    data = json.loads((out / "explain-long.crash.json").read_text())
    data["before"]["fails"] = 0.2
    (out / "other.json").write_text(json.dumps(data))
    assert main(["explain", "--check", str(out / "other.json"), "--workspace", str(inputs / "none")]) == 1


def test_a_days_failures_are_grouped_and_what_cannot_be_read_is_listed(inputs, monkeypatch, capsys):
    space = Workspace(inputs / "space")
    episode = read_one(inputs / "long.mcap")
    catalogue = Catalogue(space.store)
    for seed in (1, 2):
        catalogue.add(replace(episode, outcome="failure", seed=seed), producer="test")
    short = replace(episode, outcome="failure", seed=3, signals={k: v for k, v in episode.signals.items() if "g" in k})
    catalogue.add(short, producer="test")
    told = json.loads((inputs / "told.json").read_text()) | {"object.friction": 0.09}
    (inputs / "odd.json").write_text(json.dumps(told))  # not what acted: answered without a simulation
    argv = ["explain", "--where", "task = 'slide-puck-v1'", "--policy", "expert", "--told", str(inputs / "odd.json")]
    assert main([*argv, "--workspace", str(space.path)]) == 3
    said = capsys.readouterr()
    assert "2 x slide-puck-v1: cannot tell" in said.out and "no signal named" in said.err
    assert len(list(space.reports.glob("explain-*.html"))) == 2


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "no episode"),
        (["nope.mcap"], "no file nope.mcap"),
        (["{log}"], "which policy acted is not known"),
        (["{log}", "--policy", "expert", "--told", "{bad}"], "no value to tell a policy named 'grip'"),
        (["{log}", "--policy", "{log}"], "no policy file"),
        (["{log}", "--policy", "expert", "--calibration", "{bad}"], "holds no joint samples"),
        (["{log}", "--policy", "expert", "--calibration", "{unknown}"], "no parameter named 'object.colour'"),
        (["--check", "{log}"], "is not JSON"),
        (["--check", "{bad}"], "is no crash test"),
        (["--where", "outcome"], "no workspace here"),
        (["{log}", "--seed", "-1"], "--seed -1"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(inputs, argv, says, capsys):
    (inputs / "bad.json").write_text('{"grip": 3}')
    (inputs / "unknown.json").write_text('{"paths": ["object.colour"], "samples": [[1.0]]}')
    names = {"log": inputs / "long.mcap", "bad": inputs / "bad.json", "unknown": inputs / "unknown.json"}
    filled = [a.format(**names) for a in argv]
    assert main(["explain", *filled, "--workspace", str(inputs / "none")]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("flyball")]
    assert len(lines) == 1 and says in lines[0]
