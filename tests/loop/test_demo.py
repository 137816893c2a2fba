"""Two whole turns on a tiny budget, through real processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flyball.apps.web.report import render
from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.evaluation.report import EvaluationReport
from flyball.releases.signing import Repository
from flyball.tasks import tasks

TINY = Path(__file__).with_name("tiny.py")
ROBOTS = ["robot-01", "robot-02"]


def test_the_document_is_complete_json(undisturbed):
    d = undisturbed.document
    json.dumps(d, allow_nan=False)
    assert (d["control"], d["seed"], d["robots"]) == (None, 0, ROBOTS) and d["seconds"] > 0
    assert [t["turn"] for t in d["turns"]] == [0, 1]
    task = tasks.load(d["task"])
    for t in d["turns"]:
        fleet = t["fleet"]
        assert fleet["trials"] == 8 and fleet["low"] <= fleet["success"] <= fleet["high"]
        assert fleet["successes"] == sum(r["successes"] for r in t["by_robot"].values())
        assert set(task.groups) <= set(t["failures"])
        assert sum(t["failures"].values()) == fleet["trials"] - fleet["successes"]
        assert t["gap"] > 0 and t["reproduced"]["n"] <= t["reproduced"]["of"]
        assert {"robots", "calibrate", "reproduce", "demonstrate", "train", "evaluate", "gate"} <= set(t["seconds"])
        assert t["steps"]["gradient"] == 150 and t["steps"]["simulated"] > 0
        assert t["verdict"] and isinstance(t["released"], bool)
        assert t["drift"] == [] and t["maintenance"] == []
    assert d["steps"]["gradient"] == 3 * 150, "the first policy's training counts as well"
    assert d["steps"]["simulated"] > sum(t["steps"]["simulated"] for t in d["turns"])


def test_parameters_stand_beside_the_truth(undisturbed):
    d = undisturbed.document
    task = tasks.load(d["task"])
    paths = [p.path for p in task.scene.parameters] + [x.path for x in task.derived]
    hidden = json.loads((undisturbed.workspace / "hidden" / "reality.json").read_text())
    for robot in hidden["robots"]:
        rows = {p["path"]: p for p in d["parameters"] if p["robot"] == robot["name"]}
        assert sorted(rows) == sorted(paths)
        for path, value in robot["parameters"].items():
            assert rows[path]["truth"] == pytest.approx(value)
        assert all(r["low"] <= r["high"] and isinstance(r["identified"], bool) for r in rows.values())


def test_the_report_shows_every_figure(undisturbed):
    html = render(undisturbed.document)
    assert html.count("<svg") >= 6 and "object.mass" in html and "robot-02" in html
    assert "http://" not in html.replace("http://www.w3.org", "") and "<script" not in html


def test_failures_are_judged_with_a_reason(undisturbed):
    catalogue = Catalogue(Workspace(undisturbed.workspace).store)
    rows = catalogue.query("outcome = 'failure'")
    groups = set(tasks.load(undisturbed.document["task"]).groups)
    assert rows and {r.grp for r in rows} <= groups
    assert not catalogue.query("outcome = 'unknown'")


def test_a_release_is_signed_proven_and_on_every_robot(undisturbed):
    turns = undisturbed.document["turns"]
    released = [t for t in turns if t["released"]]
    assert released, "the seed of this test is one whose policies improve"
    w = Workspace(undisturbed.workspace)
    last = turns[-1]["deployed"]
    assert last in Repository(undisturbed.workspace).releases()
    assert last.startswith(f"turn-{released[-1]['turn']:03d}")
    for robot in ROBOTS:
        status = json.loads((w.path / "fleet" / "status" / f"{robot}.json").read_text())
        assert status["installed"] == last and not status["refused"]
        told = json.loads(next((w.path / "robots" / robot / "slots").glob("*/calibrations.json")).read_text())
        assert set(told) <= {*ROBOTS, "*"}
    artifact = next(a for a in w.store.find("release") if a.labels["name"] == last)
    report, policy = (next(a for a in w.store.lineage(artifact.digest) if a.kind == k) for k in ("report", "policy"))
    proof = EvaluationReport.from_json(json.loads(w.store.get(report.digest)))
    assert proof.policy == policy.digest and proof.comparison["verdict"] in ("better", "not_worse")
    events = [e["event"] for e in undisturbed.document["rollout"] if e["turn"] == released[-1]["turn"]]
    assert events[0].startswith("canary") and any(e.startswith("done") for e in events)


def test_the_row_says_whether_a_release_carries_a_new_policy(undisturbed):
    store = Workspace(undisturbed.workspace).store
    carried = {a.labels["name"]: json.loads(store.get(a.digest))["policy"] for a in store.find("release")}
    before = "first"
    for row in undisturbed.document["turns"]:
        assert row["trained"] in (True, False), "every turn of this run has failures, so every turn trains"
        if row["released"]:
            assert (carried[row["deployed"]] != carried[before]) == row["trained"]
        before = row["deployed"]


def test_the_page_shows_what_the_loop_found(undisturbed):
    turns = undisturbed.document["turns"]
    page = render(undisturbed.document)
    assert all({"changed", "verdict", "released", "deployed"} <= set(t) for t in turns)
    assert ("the world changed" in page) == any(t["changed"] for t in turns)


def test_garbled_logs_are_quarantined_and_the_loop_goes_on(undisturbed):
    kept = sorted((undisturbed.workspace / "quarantine").glob("*.reason.txt"))
    turns = undisturbed.document["turns"]
    times = len(turns) + sum(t["released"] for t in turns)
    assert len(kept) == 3 * times, "three whenever the fleet attempts the task: in each turn, and after each release"
    assert all(len(k.read_text().strip().splitlines()) == 1 for k in kept)
    assert sum("quarantined" in line for line in undisturbed.notes) == 3 * times
    assert not list((undisturbed.workspace / "inbox").iterdir())


def test_another_run_is_refused_in_its_workspace(undisturbed):
    out = undisturbed.workspace.parent / "other.json"
    arguments = [sys.executable, str(TINY), str(undisturbed.workspace), str(out), "--seed", "5"]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2 and not out.exists()
    assert "holds another run (other seed)" in done.stderr.strip().splitlines()[-1]


def test_the_same_command_again_answers_without_new_work(undisturbed):
    before = {p: p.stat().st_mtime_ns for p in (undisturbed.workspace / "store").rglob("*") if p.is_file()}
    out = undisturbed.workspace.parent / "again.json"
    done = subprocess.run([sys.executable, str(TINY), str(undisturbed.workspace), str(out)], capture_output=True)
    assert done.returncode == 0
    again = json.loads(out.read_text())
    assert {**again, "seconds": 0} == {**undisturbed.document, "seconds": 0}
    after = {p: p.stat().st_mtime_ns for p in (undisturbed.workspace / "store").rglob("*") if p.is_file()}
    assert {p: t for p, t in after.items() if "tmp" not in p.parts} == {
        p: t for p, t in before.items() if "tmp" not in p.parts
    }
