"""Drift of the robots of a workspace, through the verb."""

import json
import threading
from dataclasses import asdict

import numpy as np
import pytest

from flyball.apps.cli import drift as verb
from flyball.apps.cli.main import main
from flyball.apps.cli.output import Output
from flyball.base import SignalSpec, Timed
from flyball.base.workspace import Workspace
from flyball.calibration import residual
from flyball.calibration.calibration import Calibration, HeldOut, scene_digest
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH, record
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.loop import drift
from flyball.loop.drift import Watched
from flyball.loop.stages import Standing
from flyball.tasks import tasks
from flyball.tasks.world import World

BASELINE = 10
RATE = "1 per 1 h"  # found within few episodes, which keeps the test short
SOUND, WORN = 12, 12


def call(capsys, space, *argv):
    code = main(["drift", "--workspace", str(space), "--baseline", str(BASELINE), "--rate", RATE, *argv])
    text = capsys.readouterr()
    return code, text.out, text.err


def add(space, friction, numbers):
    """One recording of 1.5 s per number; friction times a factor."""
    catalogue, out = Catalogue(Workspace(space).store), []
    for i in numbers:
        truth = TRUTH | {"servo.friction": TRUTH["servo.friction"] * friction}
        (episode, *_) = record(truth, gains=(400,), seconds=1.5, seed=i)
        out.append(catalogue.add(Episode(**{**vars(episode), "seed": i}), producer="tests@1").digest)
    return out


def calibrate(space, data):
    """What ``flyball calibrate`` would have stored."""
    rig, best = ServoPendulum(), np.array(list(TRUTH.values()))
    held, scene, paths = HeldOut("rad", (), 0.0, 0.0, 0.0, 0.0, 0.9, 1.0, 0.0), scene_digest(rig.scene), tuple(TRUTH)
    c = Calibration(rig.name, scene, paths, best[None], best, (), held, "improved", (), 0, "", 0, tuple(data))
    blob = json.dumps(c.to_json()).encode()
    return Workspace(space).store.put("calibration", blob, producer="tests@1", labels={"rig": rig.name}).digest


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    """A workspace with a calibration and sound recordings after it."""
    space = tmp_path_factory.mktemp("drift") / "w"
    calibrate(space, add(space, 1.0, range(100, 102)))
    add(space, 1.0, range(SOUND))
    return space


def test_a_robot_wears_and_is_calibrated_again(capsys, calibrated, monkeypatch):
    space = calibrated
    code, out, _ = call(capsys, space)
    assert code == 0 and out.startswith("servo-pendulum (servo-pendulum): quiet for 12 episodes")

    worn = add(space, 1.2, range(200, 200 + WORN))
    code, out, _ = call(capsys, space)
    assert code == 1 and "drifting since episode 1" in out and "flyball calibrate --rig servo-pendulum" in out
    code, out, _ = call(capsys, space, "--json")
    (robot,) = json.loads(out)["robots"]
    assert code == 1 and robot["state"] == "drifting" and abs(robot["since"] - (SOUND + 1)) <= 2
    assert robot["moved"][0]["path"] == robot["stream"] == "servo.friction" and len(robot["moved"]) == 1
    assert 1.1 < robot["moved"][0]["now"] / robot["moved"][0]["calibrated"] < 1.3
    assert robot["since_digest"] in {r.digest for r in Catalogue(Workspace(space).store).query()}

    # Everything is known: nothing is replayed again, whatever rate is asked for.
    monkeypatch.setattr(drift, "recording_residuals", lambda *a, **k: pytest.fail("replayed again"))
    code, out, _ = call(capsys, space)
    assert code == 1 and len(Workspace(space).store.rows("drift")) == 1
    code, out, _ = call(capsys, space, "--rate", "1 per 1e9 h")
    assert code == 0 and "quiet for 24 episodes" in out

    calibrate(space, worn)
    code, out, _ = call(capsys, space)
    assert code == 0 and "not enough episodes: 0 since its calibration, watched after 10" in out
    assert len(Workspace(space).store.rows("drift")) == 2


def test_an_episode_that_cannot_be_replayed_is_listed_once_and_left_out(capsys, calibrated, tmp_path):
    calibrate(tmp_path, add(tmp_path, 1.0, [100]))
    (bad, *_) = record(TRUTH, gains=(400,), seconds=1.5)
    x = bad.signals["joint_states.position"]
    lost = Timed(x.spec, x.t_ns, np.full_like(x.values, np.nan))
    broken = Episode(**{**vars(bad), "signals": {**bad.signals, "joint_states.position": lost}})
    Catalogue(Workspace(tmp_path).store).add(broken, producer="tests@1")
    add(tmp_path, 1.0, [1])
    for _ in range(2):
        code, out, err = call(capsys, tmp_path)
        assert code == 3 and "1 since its calibration" in out and "not finite" in err
    (row,) = Workspace(tmp_path).store.rows("drift")
    assert len(row["test"]["episodes"]) == 1 and len(row["unreadable"]) == 1


def test_a_killed_call_loses_few_episodes(capsys, calibrated, tmp_path, monkeypatch):
    calibrate(tmp_path, add(tmp_path, 1.0, [100]))
    add(tmp_path, 1.0, range(6))
    monkeypatch.setattr(drift, "_TOGETHER", 2)
    real, calls = residual.recording_residuals, []

    def dies(*args, **kwargs):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(drift, "recording_residuals", dies)
    code, _, err = call(capsys, tmp_path)
    assert code == 130 and "goes on from here" in err
    code, out, _ = call(capsys, tmp_path)
    assert code == 0 and "6 since its calibration" in out and len(calls) == 6 + 2


def test_robots_of_the_loop_are_watched_under_their_last_calibration(capsys, tmp_path):
    task, n = tasks.load("lift-fragile-v1"), 4
    nominal = task.scene.nominal(n)
    logged = World(task, n).run(task.expert(task.told(nominal)), nominal, range(n))
    store = Workspace(tmp_path).store
    logs = [store.put("log", b"log %d" % i, producer="tests@1").digest for i in range(n)]
    specs = (*task.embodiment.observations, *task.embodiment.actions)
    for i, log in enumerate(logs):
        whole = round(task.horizon_s * task.control_hz)
        steps = 20 if i == 2 else whole  # the third was stopped early
        t_ns = (np.arange(steps) * 1e9 / task.control_hz).astype(np.int64) + i * 10**10
        signals = {
            s.name: Timed(SignalSpec(s.name, s.shape, unit=s.unit), t_ns,
                          logged.signals[s.name][i, :steps].reshape(steps, *s.shape))
            for s in specs
        }  # fmt: skip
        episode = Episode("flyarm", robot="robot-1", task=task.name, signals=signals, log_digest=log, release="ab" * 32)
        Catalogue(store).add(episode, producer="tests@1", parents=[log])
    paths = [p.path for p in task.scene.parameters]
    fit = {"paths": paths, "samples": [[float(nominal[p][0]) for p in paths]], "replays": 0}
    made = store.put("calibration", json.dumps(fit).encode(), parents=logs[:1], producer="tests@1")
    standing = Standing("first", "", fits={"robot-1": made.digest})
    store.put_row("turn", "000", {"row": {}, "standing": asdict(standing)})
    code, out, _ = call(capsys, tmp_path, "--json")
    (robot,) = json.loads(out)["robots"]
    assert code == 0 and (robot["robot"], robot["of"], robot["episodes"]) == ("robot-1", task.name, 2)
    (row,) = store.rows("drift")
    assert {e["regime"] for e in row["test"]["episodes"]} == {f"{task.name} {'ab' * 6}"}


def test_who_stays_is_told_when_a_robot_becomes_another(capsys):
    stop, looks = threading.Event(), []

    def look():
        looks.append(len(looks))
        if len(looks) == 5:
            stop.set()
        state = "drifting" if len(looks) > 3 else "quiet"
        return [Watched("r", "task", "digest", state, 40 + len(looks), 30, 1.0, 0.1, since=31, run_next="look")]

    (last,) = verb._stay(look, 0.001, Output(False), stop)
    said = capsys.readouterr().err.splitlines()
    assert last.state == "drifting" and len(looks) == 5
    assert [line.split(":")[1].split()[0] for line in said[1:]] == ["quiet", "drifting"]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--rate", "seldom"], "1 per 1000 h"),
        (["--baseline", "1"], "2 or more"),
        (["--rate", "1 per 0 h"], "1 per 1000 h"),
        (["--seed", "-1"], "0 or more"),
        (["--every", "0"], "more than 0 s"),
        (["--every", "nan"], "more than 0 s"),
        (["--watch", "--serviced", "robot-1"], "one of them"),
        (["--serviced", "robot-1"], "no robot named 'robot-1'"),
        ([], "flyball calibrate"),
    ],
)
def test_bad_input_is_one_line(capsys, tmp_path, argv, says):
    Workspace(tmp_path)
    code, out, err = call(capsys, tmp_path, *argv)
    assert code == 2 and out == "" and says in err and len(err.splitlines()) == 1
