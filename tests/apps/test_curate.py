"""``flyball curate`` as a user meets it."""

import json

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.base.store import Store
from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.curation.defects import DEFECTS, arm


@pytest.fixture
def space(tmp_path):
    catalogue = Catalogue(Workspace(tmp_path / "w").store)
    for i in range(7):
        x = arm(i, camera=False)
        if i == 2:
            x = next(d for d in DEFECTS if d.kind == "gap").plant(x, 1.0, np.random.default_rng(0))
        catalogue.add(x.episode, producer="tests@1")
    return tmp_path / "w"


def call(capsys, *argv):
    code = main(["curate", *map(str, argv)])
    text = capsys.readouterr()
    return code, text.out, text.err


def test_table_names_the_worst_and_why(capsys, space):
    code, out, err = call(capsys, "--workspace", space)
    assert code == 0
    lines = {line.split()[0]: line for line in out.splitlines()}
    bad = Catalogue(Store(space)).query("seed = 2")[0].digest[:12]
    assert bad in lines["drops"] and "a gap of" in lines["drops"]
    assert lines["finite"].split()[1:6] == ["1", "-", "-", "7", "-"]
    assert "no measure of what an episode is worth" in err and "cells of state" in err


def test_json_is_one_document_and_again_adds_nothing(capsys, space):
    code, out, _ = call(capsys, "--workspace", space, "--json")
    document = json.loads(out)
    assert code == 0 and document["episodes"] == 7
    by_name = {c["check"]: c for c in document["checks"]}
    assert by_name["drops"]["counts"] == {"flag": 1, "pass": 6} and by_name["drops"]["added"] == 7
    assert by_name["drops"]["worst"][0]["findings"][0]["excess"] > 1
    _, out, _ = call(capsys, "--workspace", space, "--json")
    assert sum(c["added"] for c in json.loads(out)["checks"]) == 0


def test_where_check_and_other_limits(capsys, space):
    arguments = ("--where", "seed > 1", "--check", "drops", "idle", "--set", "drops.gap=10000", "drops.missing=0.9")
    code, out, _ = call(capsys, "--workspace", space, *arguments, "--json")
    checks = {c["check"]: c for c in json.loads(out)["checks"]}
    assert code == 0 and set(checks) == {"drops", "idle"}
    assert checks["drops"]["counts"] == {"pass": 5} and checks["drops"]["version"] == "1 gap=10000 missing=0.9"


def test_verdicts_are_taken_back(capsys, space):
    call(capsys, "--workspace", space, "--check", "drops", "finite")
    code, out, _ = call(capsys, "--workspace", space, "--forget", "drops")
    assert code == 0 and out.startswith("7 verdicts of drops taken back")
    code, out, _ = call(capsys, "--workspace", space, "--undo", "--json")
    assert json.loads(out)["taken_back"] == 7
    catalogue = Catalogue(Store(space))
    assert catalogue.verdicts() == [] and len(catalogue.verdicts(current=False)) == 28


def test_verdicts_can_be_asked_for_and_asked_with(capsys, space):
    call(capsys, "--workspace", space, "--check", "drops")
    code, out, _ = call(capsys, "--workspace", space, "--where", "verdict.drops = 'flag'", "--check", "idle", "--json")
    assert code == 0 and json.loads(out)["episodes"] == 1


def test_list_states_rules_and_reasons(capsys):
    code, out, _ = call(capsys, "--list", "--check", "offset")
    assert code == 0 and "0.03 rad" in out and "offset.angle = 0.03: 1.7 degrees" in out


def test_an_empty_workspace_says_what_to_do(capsys, tmp_path):
    Workspace(tmp_path / "w")
    code, out, _ = call(capsys, "--workspace", tmp_path / "w")
    assert code == 0 and out == "no episodes; try: flyball ingest PATH\n"


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        (("--check", "frozn"), ["no check named 'frozn'", "did you mean 'frozen'?"]),
        (("--set", "drops.gapp=3"), ["check drops", "did you mean 'gap'?"]),
        (("--set", "drops.gap=many"), ["--set 'drops.gap=many'", "CHECK.NAME=NUMBER"]),
        (("--set", "drops.gap=nan"), ["CHECK.NAME=NUMBER"]),
        (("--check", "idle", "--set", "drops.gap=3"), ["no check named 'drops'", "idle"]),
        (("--forget", "nonsense"), ["no check named 'nonsense'"]),
        (("--where", "colour = 'red'"), ["colour", "flyball episodes --columns"]),
    ],
)
def test_refusals_are_one_line(capsys, space, argv, names):
    code, out, err = call(capsys, "--workspace", space, *argv)
    assert code == 2 and out == ""
    assert all(n in err for n in names), err
    assert err.count("\n") == 1
