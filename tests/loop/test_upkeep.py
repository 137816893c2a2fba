"""What a turn does about drift: nothing, a new calibration, or a call for maintenance."""

import json
from concurrent.futures import Future
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.base import SignalSpec, Timed
from flyball.base.steps import json_of
from flyball.base.workspace import Workspace
from flyball.calibration.drift import DriftTest
from flyball.calibration.fleet import ReplayConfig
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.loop import fitting, turn, upkeep
from flyball.loop.config import Budget, DemoConfig
from flyball.loop.stages import Standing
from flyball.tasks import tasks
from flyball.tasks.world import World

TASK = tasks.load("lift-fragile-v1")
ROBOT = "robot-01"
PER_TURN, SOUND, WORN = 8, 5, 2
"""Attempts a turn; turns since the calibration in turn 0, before and after the change."""
LAST = SOUND + WORN
SOFT = 0.8
"""Of the stiffness is left after the change."""
BUDGET = Budget(replay=ReplayConfig(candidates=(32, 32), attempts=(1, 3), threads=1), workers=1)


class Inline:
    """Runs work where it is asked for."""

    def submit(self, fn, /, *args):
        out = Future()
        out.set_result(fn(*args))
        return out


class Silent:
    def __init__(self):
        self.notes = []

    def stage(self, name, total=0):
        pass

    def at(self, done, total):
        pass

    def note(self, text):
        self.notes.append(text)


@pytest.fixture(scope="module")
def logged():
    """Attempts of a sound arm, and of the same one with servos gone soft."""
    n = PER_TURN
    nominal = TASK.scene.nominal(n)
    world = World(TASK, n)
    out = []
    for gain in (1.0, SOFT):
        values = nominal | {"arm.gain_scale": np.full(n, gain)}
        out.append(world.run(TASK.expert(TASK.told(values)), values, range(n)))
    return out


@pytest.fixture
def fleet(tmp_path, logged):
    """``fleet(worn)``: stages of the last turn of a fleet of one robot, calibrated in turn 0; and its standing."""

    def make(worn):
        space = Workspace(tmp_path / "w")
        store, logs = space.store, []
        for number in range(1 + LAST):
            source = logged[1 if worn and number > SOUND else 0]
            for i in range(PER_TURN):
                log = store.put("log", b"%d %d" % (number, i), producer="tests@1").digest
                logs.append(log)
                Catalogue(store).add(episode(source, i, number, log), producer="tests@1", parents=[log])
        paths = [p.path for p in TASK.scene.parameters]
        fit = {"paths": paths, "samples": [[p.nominal for p in TASK.scene.parameters]] * 4, "replays": 0}
        made = store.put("calibration", json.dumps(fit).encode(), parents=logs[:PER_TURN], producer="tests@1")
        standing = Standing("first", "", fits={ROBOT: made.digest}, since={ROBOT: 0})
        operator = SimpleNamespace(workspace=space, task=TASK, robots=[ROBOT])
        stages = turn.Turn(DemoConfig(space.path, budget=BUDGET), operator, Inline(), Silent())
        stages.number, stages.fresh = LAST, logged[0]
        return stages, standing

    return make


def episode(source, i, number, log):
    steps = round(TASK.horizon_s * TASK.control_hz)
    t_ns = (np.arange(steps) * 1e9 / TASK.control_hz).astype(np.int64) + (number * 100 + i) * 10**10
    signals = {
        s.name: Timed(SignalSpec(s.name, s.shape, unit=s.unit), t_ns, source.signals[s.name][i].reshape(-1, *s.shape))
        for s in (*TASK.embodiment.observations, *TASK.embodiment.actions)
    }
    labels = {"turn": number, "order": f"turn-{number:03d}"}
    return Episode(
        "flyarm", robot=ROBOT, task=TASK.name, signals=signals, log_digest=log, release="ab" * 32, labels=labels
    )


@pytest.fixture
def shifts(monkeypatch):
    """Residuals without replays: noise, and from the change on the arm's stiffness moves."""

    def residuals(task, logged, fit, regimes):
        x = np.random.default_rng(1).standard_normal((len(regimes), 11)) * 0.01
        x[SOUND * PER_TURN :, 4] -= 0.2
        return x.tolist()

    monkeypatch.setattr(upkeep.work, "residuals", residuals)


@pytest.fixture
def refit(monkeypatch):
    """``refit(before, after)``: no fit is made; the new calibration replays held-out logs with this error."""

    def answer(before, after, fits=None):
        monkeypatch.setattr(fitting, "calibrate", lambda stages, robots, changed, s: (dict(fits or s.fits), {}))
        monkeypatch.setattr(upkeep.work, "compare_replays", lambda *a: [before, after])

    return answer


def test_nothing_happens_to_a_robot_that_is_sound(fleet, monkeypatch):
    stages, standing = fleet(worn=False)
    noise = np.random.default_rng(2).standard_normal((LAST * PER_TURN, 11))
    monkeypatch.setattr(upkeep.work, "residuals", lambda task, logged, fit, regimes: noise[: len(regimes)].tolist())
    assert upkeep.upkeep(stages, standing, []) == upkeep.Upkeep(standing)
    (row,) = stages.store.rows("drift")
    assert len(row["test"]["episodes"]) == LAST * PER_TURN and row["found"]["state"] == "quiet"


def test_an_arm_that_softens_is_calibrated_again_from_the_logs_since(fleet, shifts):
    stages, standing = fleet(worn=True)
    kept = upkeep.upkeep(stages, standing, [])
    (alarm,), after = kept.alarms, kept.standing
    assert (kept.again, kept.anew) == ((ROBOT,), ()) and alarm["action"] == "recalibrated" and alarm["robot"] == ROBOT
    assert alarm["since"] == SOUND * PER_TURN + 1 and alarm["moved"][0]["path"] == "arm.gain_scale"
    assert alarm["error"]["after"] <= 1.05 * alarm["error"]["before"]
    assert stages.display.notes[-1].endswith(alarm["text"])
    # The calibration that follows has only seen the arm as it is now.
    rows, _ = fitting.logs_of(stages, ROBOT, after)
    assert {r.labels["turn"] for r in rows} == {SOUND + 1, SOUND + 2}
    fits, _ = fitting.calibrate(stages, [ROBOT], [], after)
    fitted = json_of(stages.store, stages.store.artifact(fits[ROBOT]))
    gain = np.median(np.array(fitted["samples"])[:, fitted["paths"].index("arm.gain_scale")])
    assert abs(gain - SOFT) < abs(gain - 1)
    # What was decided before a crash is decided again; with the new calibration all is quiet.
    assert upkeep.upkeep(stages, standing, []) == kept
    renewed = replace(after, fits=fits)
    assert upkeep.upkeep(stages, renewed, []) == upkeep.Upkeep(renewed)


def test_a_change_that_no_calibration_explains_calls_for_maintenance_once(fleet, shifts, refit):
    stages, standing = fleet(worn=True)
    refit(1.5, 1.45)
    kept = upkeep.upkeep(stages, standing, [])
    (alarm,) = kept.alarms
    assert kept == upkeep.Upkeep(standing, alarms=(alarm,))
    assert alarm["action"] == "maintenance" and "look at the robot" in alarm["text"]
    assert [a["robot"] for a in upkeep.maintenance(stages, standing)] == [ROBOT]
    stages.number += 1
    assert upkeep.upkeep(stages, standing, []) == upkeep.Upkeep(standing)
    assert [a["robot"] for a in upkeep.maintenance(stages, standing)] == [ROBOT]
    assert upkeep.maintenance(stages, replace(standing, fits={ROBOT: "another"})) == []


@pytest.mark.parametrize(
    ("before", "after", "gain", "explains"),
    [(1.5, 1.4, 1.0, True), (1.1, 1.1, 0.85, True), (1.1, 1.1, 0.97, False), (1.1, 1.2, 0.8, False)],
)
def test_what_explains_a_change(fleet, shifts, refit, before, after, gain, explains):
    """Better replays do; replays as good as before, where the fit agrees with the test about what moved."""
    stages, standing = fleet(worn=True)
    paths = [p.path for p in TASK.scene.parameters]
    values = [gain if p.path == "arm.gain_scale" else p.nominal for p in TASK.scene.parameters]
    fit = {"paths": paths, "samples": [values] * 4, "replays": 0}
    made = stages.store.put("calibration", json.dumps(fit).encode(), producer="tests@1")
    refit(before, after, {ROBOT: made.digest})
    (alarm,) = upkeep.upkeep(stages, standing, []).alarms
    assert alarm["action"] == ("recalibrated" if explains else "maintenance")


def test_a_robot_that_is_calibrated_anyway_is_only_reported(fleet, shifts):
    stages, standing = fleet(worn=True)
    kept = upkeep.upkeep(stages, standing, [ROBOT])
    (alarm,) = kept.alarms
    assert kept == upkeep.Upkeep(standing, alarms=(alarm,)) and (alarm["action"], alarm["error"]) == (
        "recalibrated",
        None,
    )


def test_a_serviced_robot_is_calibrated_again_from_its_next_attempts(fleet, shifts, refit, capsys):
    stages, standing = fleet(worn=True)
    refit(1.5, 1.45)
    upkeep.upkeep(stages, standing, [])
    space = stages.operator.workspace
    space.store.put_row("turn", "007", {"row": {}, "standing": asdict(standing)})
    code = main(["drift", "--workspace", str(space.path)])
    text = capsys.readouterr().out
    assert (
        code == 1 and "drifting since episode" in text and "turn 7: robot-01 drifts" in text and "maintenance" in text
    )
    assert main(["drift", "--workspace", str(space.path), "--serviced", "robot-9"]) == 2
    assert ROBOT in capsys.readouterr().err
    assert main(["drift", "--workspace", str(space.path), "--serviced", ROBOT]) == 0
    stages.number += 1
    assert upkeep.upkeep(stages, standing, []) == upkeep.Upkeep(standing), "nothing was logged since"
    log = space.store.put("log", b"after", producer="tests@1").digest
    added = episode(stages.fresh, 0, LAST + 1, log)
    Catalogue(space.store).add(added, producer="tests@1", parents=[log])
    kept = upkeep.upkeep(stages, standing, [])
    assert (kept.again, kept.anew, kept.alarms) == ((), (ROBOT,), ()) and kept.standing.since == {ROBOT: LAST + 1}
    assert {r.labels["turn"] for r in fitting.logs_of(stages, ROBOT, kept.standing)[0]} == {LAST + 1}


def test_attempts_of_a_release_on_trial_are_left_out(fleet, shifts):
    stages, standing = fleet(worn=True)
    before = upkeep.upkeep(stages, standing, [ROBOT]).alarms
    store = stages.store
    for name in (f"turn-{LAST:03d}-again", f"turn-{LAST:03d}-canary-01"):
        log = store.put("log", name.encode(), producer="tests@1").digest
        tried = episode(stages.fresh, 0, LAST, log)
        tried = replace(tried, labels={"turn": LAST, "order": name})
        Catalogue(store).add(tried, producer="tests@1", parents=[log])
    assert upkeep.upkeep(stages, standing, [ROBOT]).alarms == before
    (row,) = store.rows("drift")
    assert len(row["test"]["episodes"]) == LAST * PER_TURN


def test_residuals_wait_until_an_alarm_is_possible(fleet, monkeypatch):
    stages, standing = fleet(worn=True)
    stages.number = SOUND - 1  # as in a turn that is resumed: later logs are there, and not looked at
    monkeypatch.setattr(upkeep.work, "residuals", lambda *a: pytest.fail("replayed for nothing"))
    assert upkeep.upkeep(stages, standing, []) == upkeep.Upkeep(standing)
    assert stages.store.rows("drift") == [] and stages.steps["simulated"] == 0


def test_what_is_reachable_is_what_extreme_residuals_reach():
    """The bound is met: residuals that fall out of everything seen before raise the alarm where it allows one."""
    for regimes in (["a"] * 60, ["a"] * 20 + ["b"] * 60):
        n, least = len(regimes), None
        for k in range(n):
            if DriftTest.reachable(regimes[: k + 1], [4.0] * (k + 1), streams=1):
                least = k
                break
        test = DriftTest(("x",))
        for k, regime in enumerate(regimes):
            alarm = test.update(str(k), [0.0 if k < 30 else float(k)], duration_s=4.0, regime=regime)
            if alarm:
                break
        assert least is not None and least <= test.alarm.episode <= least + 4


def test_the_turn_learns_from_a_robot_that_drifts_though_it_does_not_fail(fleet, shifts, refit, monkeypatch):
    stages, standing = fleet(worn=True)
    refit(1.5, 1.4)
    seen = {}

    def learn(episodes, sick, changed, standing, row):
        seen.update(sick=sick, changed=changed, standing=standing)
        return standing

    won = Catalogue(stages.store).query(f"labels.turn = {LAST}")
    episodes = [replace(Catalogue(stages.store).load(r.digest), outcome="success") for r in won]
    monkeypatch.setattr(stages, "attempt", lambda standing: episodes)
    monkeypatch.setattr(stages, "learn", learn)
    monkeypatch.setattr(fitting, "gap", lambda *a: 0.1)
    row, after = stages.run(LAST, standing)
    assert row["fleet"]["success"] == 1.0 and row["changed"] == [] and row["maintenance"] == []
    assert seen["sick"] == [ROBOT] and seen["changed"] == []
    assert after.since == {ROBOT: SOUND + 1} and after.from_ns[ROBOT] > 0
    assert [a["action"] for a in row["drift"]] == ["recalibrated"]
    json.dumps(row | {"standing": asdict(after)}, allow_nan=False)
