"""The command line as a user meets it: exit codes, one-line errors, help, one JSON document."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flyball.apps.cli import main as cli
from flyball.apps.cli.main import VERBS, main

ROOT = Path(__file__).parents[2]


def call(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    text = capsys.readouterr()
    return code, text.out, text.err


REFUSALS = [
    # what is typed -> exit code, and what the one line must name
    (("frobnicate",), 2, ["no verb named 'frobnicate'", "demo", "try: flyball --help"]),
    (("engine",), 2, ["did you mean 'engines'?"]),
    ((), 2, ["VERB", "try: flyball --help"]),
    (("demo", "--colour", "red"), 2, ["unrecognized arguments: --colour red"]),
    (("demo", "--robots", "many"), 2, ["--robots", "'many'"]),
    (("demo", "--robots", "0"), 2, ["--robots 0", "allowed: 1 or more"]),
    (("demo", "--turns", "-1"), 2, ["--turns -1", "allowed: 1 or more"]),
    (("demo", "--seed", "-3"), 2, ["--seed -3", "allowed: 0 or more"]),
    (("tasks", "lift-fragile"), 2, ["no task named 'lift-fragile'", "did you mean 'lift-fragile-v1'?"]),
    (("evaluate", "lift-fragile-v1", "--policy", "bogus"), 2, ["no policy named 'bogus'", "expert", "FILE.onnx"]),
    (("evaluate", "lift-fragile-v1", "--policy", "none.onnx"), 2, ["none.onnx", "no such policy file"]),
    (("evaluate", "lift-fragile-v1", "--engine", "mujoko"), 2, ["no engine named 'mujoko'", "did you mean 'mujoco'?"]),
    (("evaluate", "lift-fragile-v1", "--engine", "servo"), 2, ["engine servo", "more than one hinge"]),
    (("evaluate", "lift-fragile-v1", "--trials", "0"), 2, ["--trials 0", "allowed: 1 or more"]),
    (("episodes", "--workspace", "/nowhere/at/all"), 2, ["/nowhere/at/all", "no workspace here"]),
    (("reports", "--workspace", "/nowhere/at/all"), 2, ["/nowhere/at/all", "no workspace here"]),
]


@pytest.mark.parametrize("argv, code, names", REFUSALS, ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_refusal_is_one_line_and_an_exit_code(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], code: int, names: list[str]
) -> None:
    got, out, err = call(capsys, *argv)
    assert got == code
    assert out == ""
    assert err.count("\n") == 1 and err.endswith("\n") and "Traceback" not in err
    for name in names:
        assert name in err


@pytest.mark.parametrize("argv, code, names", REFUSALS[1:], ids=lambda x: " ".join(x) if isinstance(x, tuple) else "")
def test_refusal_under_json_is_one_document(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], code: int, names: list[str]
) -> None:
    got, out, err = call(capsys, *argv, *(["--json"] if argv else []))
    assert got == code and err.count("\n") == 1
    if argv:
        assert json.loads(out)["error"]["exit_code"] == code


def test_help_names_every_verb_and_each_verb_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(capsys, "--help")
    assert code == 0
    for verb in VERBS:
        assert f"\n    {verb}" in out
        code, text, _ = call(capsys, verb, "--help")
        assert code == 0
        assert "--workspace DIR" in text and "--json" in text and "exit codes" in text


def test_policies_are_tried_on_the_same_worlds(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ("evaluate", "slide-puck-v1", "--trials", "3", "--policy", "expert", "--policy", "nominal")
    code, out, err = call(capsys, *argv, "--json")
    first = json.loads(out)
    assert code == 0 and "mujoco: nominal" in err and first["trials"] == 3
    assert [e["policy"] for e in first["engines"]] == ["expert", "nominal"]
    assert json.loads(call(capsys, *argv, "--json")[1]) == first, "the seed decides everything"
    code, out, _ = call(capsys, *argv)
    assert "expert" in out and "[" in out


def test_engines_of_one_formulation_are_one_vote(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port of MuJoCo agrees with it; on the moon pucks glide further, and that is another physics."""
    from flyball.engines import engines
    from flyball.engines.mujoco import MujocoEngine

    class Moon(MujocoEngine):
        formulation = "moon"

        def open(self, scene: Any, n: int, **settings: Any) -> Any:
            sim = super().open(scene, n, **settings)
            change = sim.set
            weak = {"world:gravity": np.tile([0, 0, -1.62], (n, 1))}
            monkeypatch.setattr(sim, "set", lambda values: change({**values, **weak}))
            return sim

    monkeypatch.setitem(sys.modules, "engines_of_a_test", SimpleNamespace(Port=MujocoEngine, Moon=Moon))
    for name in ("port", "moon"):
        monkeypatch.setitem(engines._entries, name, f"engines_of_a_test:{name.title()}")
    argv = ["evaluate", "slide-puck-v1", "--trials", "6", "--policy", "expert", "--policy", "nominal"]
    argv += [x for name in ("mujoco", "port", "moon") for x in ("--engine", name)]
    code, out, _ = call(capsys, *argv)
    assert code == 0 and "mujoco and port (one formulation, one vote): 100.0% of trials end alike" in out
    assert "2 votes: mujoco (mujoco and port); moon\n" in out and "all 3 engines: " in out
    assert out.splitlines()[-1].startswith("expert or nominal: mujoco says ") and "nan" not in out
    document = json.loads(call(capsys, *argv, "--json")[1])
    assert document["votes"] == {"mujoco": ["mujoco", "port"], "moon": ["moon"]}
    assert [p["independent"] for p in document["pairs"]] == [False, True, True]
    assert set(document["better"]["expert or nominal"]) == {"mujoco", "moon"}
    ours, port, moon = (
        [e["outcomes"] for e in document["engines"] if e["engine"] == name] for name in ("mujoco", "port", "moon")
    )
    assert ours == port != moon and len(document["engines"]) == 6


def test_every_verb_has_its_module_and_every_module_its_verb() -> None:
    shared = {"__init__", "main", "output", "progress", "robot_models"}  # the last: words of the verb robots
    assert {p.stem for p in Path(cli.__file__).parent.glob("*.py")} - shared == set(VERBS)


def test_a_defect_is_one_line_and_leaves_its_traceback_in_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def explode(args: object, out: object) -> int:
        raise ValueError("two\nlines")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr("flyball.apps.cli.doctor.run", explode)
    code, out, err = call(capsys, "doctor")
    assert (code, out) == (70, "")
    assert err.count("\n") == 1 and "unexpected ValueError: two lines" in err
    kept = Path(err.strip().rsplit(" ", 1)[1])
    assert kept.parent == tmp_path and "explode" in kept.read_text()


def test_interrupt_is_one_line(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(args: object, out: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("flyball.apps.cli.doctor.run", stop)
    code, _, err = call(capsys, "doctor")
    assert code == 130 and err == "flyball: interrupted; the same command goes on from here\n"


@pytest.mark.parametrize("argv", [("engines",), ("tasks",), ("robots",), ("demo", "--list-parameters")], ids=" ".join)
def test_listings_print_valid_json_and_readable_text(capsys: pytest.CaptureFixture[str], argv: tuple[str, ...]) -> None:
    code, out, err = call(capsys, *argv, "--json")
    assert code == 0 and json.loads(out) and err == ""
    code, text, err = call(capsys, *argv)
    assert code == 0 and len(text.splitlines()) >= 2 and err == ""


def test_parameters_state_unit_nominal_and_range(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = call(capsys, "demo", "--list-parameters", "--json")
    parameters = json.loads(out)["parameters"]
    assert {"object.mass", "object.friction", "object.crush_force"} <= {p["path"] for p in parameters}
    for p in parameters:
        assert p["range"][0] <= p["nominal"] <= p["range"][1], p["path"]
        assert isinstance(p["unit"], str)
    _, text, _ = call(capsys, "demo", "--list-parameters")
    assert all(p["path"] in text for p in parameters)


def test_doctor_answers_no_when_something_is_wrong(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, out, _ = call(capsys, "doctor", "--workspace", str(tmp_path / "new"), "--json")
    assert code == 0 and all(c["ok"] for c in json.loads(out))
    monkeypatch.setitem(sys.modules["flyball.apps.cli.doctor"].__dict__["_NEEDED"], "edge agent", ("no-such-package",))
    code, out, _ = call(capsys, "doctor", "--workspace", str(tmp_path / "new"))
    assert code == 1 and "missing no-such-package" in out


def test_the_installed_command_keeps_its_streams_apart(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flyball.apps.cli.main", "engines", "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0 and done.stderr == ""
    assert any(e["name"] == "mujoco" for e in json.loads(done.stdout))


def test_a_reader_that_leaves_is_no_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m flyball.apps.cli.main demo --list-parameters --json | head -c 1 >/dev/null;"
        " echo ${PIPESTATUS[0]}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "" and done.stdout.strip() == "0"


def test_what_the_edge_agent_lacks_is_named_with_the_command_that_brings_it(tmp_path):
    code = f"""
import sys
sys.modules["scipy"] = None
from flyball.apps.cli.main import main
sys.exit(main(["demo", "--workspace", {str(tmp_path / "w")!r}]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 2 and not (tmp_path / "w").exists()
    assert len(done.stderr.strip().splitlines()) == 1 and "pip install 'flyball[demo]'" in done.stderr
