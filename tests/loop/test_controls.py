"""Controls are honest: within the budget, without the hidden truth, the same attempts as the loop's."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from flyball.base import InputError, Missing
from flyball.base.workspace import Workspace
from flyball.calibration.fleet import ReplayConfig
from flyball.datagen.demonstrations import DemonstrationConfig, demonstrate
from flyball.episodes import Episode
from flyball.evaluation.verdicts import ComparisonRule
from flyball.fleet.updater import load_script
from flyball.learning.flow import FlowConfig, train
from flyball.loop import attempts, controls
from flyball.loop.config import Budget, DemoConfig
from flyball.loop.demo import run_demo
from flyball.loop.executors import LocalExecutor
from flyball.loop.operate import Operator
from flyball.loop.stages import Stages
from flyball.policies.batched import Batched, Supervised
from flyball.policies.learned import LearnedPolicy
from flyball.policies.runner import run_attempt
from flyball.policies.scripted import Scripted
from flyball.policies.supervisor import Supervisor
from flyball.tasks import tasks
from flyball.tasks.reality import attempt_seed, draw_reality
from flyball.tasks.virtual import VirtualRobot
from flyball.tasks.world import World

LIFT = tasks.load("lift-fragile-v1")
LEARN = FlowConfig(steps=20, width=16, depth=1, batch=64, warm_up=5)
TINY = Budget(
    attempts=2,
    replay=ReplayConfig(candidates=(16, 16), attempts=(1, 1), threads=1),
    demonstrations=8,
    windows=DemonstrationConfig(threads=1),
    first=LEARN,
    later=LEARN,
    rule=ComparisonRule(n_max=16, margin=0.3),
    workers=1,
)


class Silent:
    def __init__(self) -> None:
        self.notes: list[str] = []

    def stage(self, name: str, total: int = 0) -> None:
        pass

    def at(self, done: int, total: int) -> None:
        pass

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("controls")
    executor = LocalExecutor(1)
    operator = Operator(Workspace(folder), None, LIFT, print, print)  # type: ignore[arg-type]
    yield Stages(DemoConfig(folder, budget=TINY), operator, executor, Silent())
    executor.shutdown()


def test_slip_feedback_is_no_straw_man() -> None:
    n = 32
    values = LIFT.scene.nominal(n) | LIFT.draw_reality(np.random.default_rng(31), n)
    seeds = [310_000 + i for i in range(n)]

    def success(name: str) -> float:
        judged = World(LIFT, n).run(LIFT.baselines()[name](n), values, seeds).judge(LIFT)
        return float(np.mean([j.outcome == "success" for j in judged]))

    reactive = success("slip-feedback")
    assert reactive > 0.55
    fixed = [name for name in LIFT.baselines() if name.startswith("fixed-grip-")]
    assert reactive > max(success(name) for name in fixed[3:-2:3])


def test_every_cell_of_a_batch_is_regulated_on_its_own() -> None:
    values = LIFT.draw_reality(np.random.default_rng(5), 3)
    both = World(LIFT, 3).run(LIFT.baselines()["slip-feedback"](3), values, [7, 8, 9])
    one = World(LIFT, 1).run(LIFT.baselines()["slip-feedback"](1), {k: x[1:2] for k, x in values.items()}, [8])
    assert np.array_equal(both.signals["command.grip"][1], one.signals["command.grip"][0])


def test_broad_worlds_are_what_is_plausible_before_any_log() -> None:
    drawn = controls.broad(LIFT, 400, np.random.default_rng(0))
    for p in LIFT.scene.parameters:
        assert drawn[p.path].shape == (400,)
        assert drawn[p.path].min() >= p.low and drawn[p.path].max() <= p.high
        assert np.ptp(p.to_unit(drawn[p.path])) > 0.5  # the whole range, not the hidden distribution
    blind = {p.path: p.from_unit(np.random.default_rng(1).random(400)) for p in LIFT.scene.parameters}
    assert np.mean(LIFT.plausible(drawn)) > 2 * np.mean(LIFT.plausible(blind))


def test_what_can_be_told_is_told_apart_from_what_must_be_seen() -> None:
    told = controls.tellable(LIFT)
    assert {"object.mass", "object.friction", "arm.gain_scale", "tracker.bias_m.z"} <= set(told)
    assert not {"object.size_scale", "start.x", "start.yaw"} & set(told)


def test_what_the_blind_policy_is_told_lets_it_say_what_the_script_does() -> None:
    told = controls.blind(LIFT, "slip-feedback")
    assert np.sum(told != LIFT.told(LIFT.scene.nominal(1))[0]) == 1
    values = LIFT.draw_reality(np.random.default_rng(6), 8)
    done = World(LIFT, 8).run(LIFT.baselines()["slip-feedback"](8), values, list(range(8)))
    good = [j.outcome == "success" for j in done.judge(LIFT)]
    grip = done.signals["command.grip"][good].max()
    assert grip > LIFT.told(LIFT.scene.nominal(1))[0, 0]  # what the nominal codes could not say
    seen = {k: x[:, 60] for k, x in done.signals.items()}
    rows, action = np.repeat(told[None], 8, axis=0), np.zeros((8, 1, 6))
    action[..., 5] = grip
    assert np.allclose(LIFT.decode(seen, rows, LIFT.encode(seen, rows, action))[..., 5], grip)


def test_controls_spend_no_more_than_a_loop_that_always_learns(stages: Stages) -> None:
    may = controls.allowance(TINY, 2, 3, stages.length)
    assert may["gradient"] == 20 + 3 * 20
    assert may["attempts"] == 8 + 3 * (2 * (2 * (32 + 24 + 18) + 32) + 8)
    for name in controls.controls(LIFT):
        before = dict(stages.steps)
        prepared = controls.prepare(stages, name, 2, 3)
        spent = {k: stages.steps[k] - before[k] for k in before}
        assert spent["simulated"] <= may["simulated"]
        learns = prepared.format == "onnx"
        assert spent["gradient"] == (may["gradient"] if learns else 0)
        assert stages.store.has(prepared.policy)
    assert json.loads(stages.store.get(controls.prepare(stages, "expert", 2, 3).policy)) == {"controller": "expert"}


def test_a_history_is_stacked_as_the_policy_looks() -> None:
    # a policy that repeats the oldest features it is shown would give them away; so compare what both see
    config = DemonstrationConfig(chunk=4, disturbance=0.0, history=2, stride=4, threads=1)
    n, seeds = 1, [3]
    told = LIFT.told(LIFT.scene.nominal(n))
    shown = demonstrate(LIFT, LIFT.scene.nominal(n), told, seeds, config)
    made = train(shown.features, shown.codes, replace(LEARN, steps=5), seed=0, told=LIFT.conditioning, history=2,
                 spec_hash=LIFT.embodiment.spec_hash())  # fmt: skip
    policy = LearnedPolicy.load(made.onnx, LIFT, told)
    stacked: list[np.ndarray] = []
    original = policy._stacked

    def spy(features: np.ndarray) -> np.ndarray:
        stacked.append(original(features))
        return stacked[-1]

    policy._stacked = spy  # type: ignore[method-assign]
    expert, batched = LIFT.expert(told), Batched(policy, 4)

    def both(obs):
        batched(obs)
        return expert(obs)

    World(LIFT, n).run(both, LIFT.scene.nominal(n), seeds)
    assert len(stacked) == -(-round(LIFT.horizon_s * LIFT.control_hz) // 4)
    for look, seen in enumerate(stacked):
        assert np.allclose(seen[0], shown.features[4 * look], atol=1e-5)


def test_a_script_forgets_between_attempts(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"controller": "slip-feedback"}')
    policy = load_script(file, LIFT, {})
    world = World(LIFT, 1)
    logs = []
    for _ in range(2):
        policy.reset("", 0)
        logs.append(world.run(lambda o: policy.act({k: x[0] for k, x in o.items()}).actions, {}, [4]))
    assert np.array_equal(logs[0].signals["command.grip"], logs[1].signals["command.grip"])


def test_scripts_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text('{"controller": "magic"}')
    with pytest.raises(Missing, match="slip-feedback"):
        load_script(file, LIFT, {})
    file.write_text("[]")
    with pytest.raises(InputError, match="controller"):
        load_script(file, LIFT, {})
    with pytest.raises(InputError, match="calibration-only"):
        controls.check(LIFT, "magic")


@pytest.mark.parametrize("control", ["expert", "calibration-only"])
def test_a_control_runs_on_the_fleet_and_writes_the_loops_rows(tmp_path: Path, control: str) -> None:
    display = Silent()
    budget = replace(TINY, attempts=2 if control == "expert" else 5)  # so that failures of one kind are certain
    config = DemoConfig(tmp_path, seed=5, robots=2, turns=2, control=control, budget=budget)
    document = run_demo(config, display)
    assert document["control"] == control
    first, last = document["turns"]
    assert first["fleet"]["trials"] == last["fleet"]["trials"] == 2 * budget.attempts
    assert {"gap", "failures", "reproduced", "seconds", "steps", "verdict"} <= set(first)
    may = controls.allowance(TINY, 2, 2, round(LIFT.horizon_s * LIFT.control_hz))
    assert document["steps"]["gradient"] == (0 if control == "expert" else may["gradient"])
    if control == "expert":
        assert last["fleet"]["successes"] == 4
        assert [t["release"] for t in document["turns"]] == ["expert-000", "expert-001"]
        assert not document["parameters"]
    else:
        assert first["released"] and document["parameters"]  # calibrations went out
        assert last["release"] == "turn-000"
        with pytest.raises(InputError, match="control"):
            run_demo(replace(config, control="expert"), display)


def test_supervised_batches_are_what_robots_do_to_the_bit() -> None:
    reality = draw_reality(LIFT, 5, 2, 1)
    period, steps = 1.0 / LIFT.control_hz, round(LIFT.horizon_s * LIFT.control_hz)
    wild = Scripted(lambda: lambda o: np.full((1, 6), 60.0), period)  # refused, held, then stopped

    def reactive() -> Scripted:
        return Scripted(lambda: LIFT.baselines()["slip-feedback"](1), period)

    policies = [reactive(), wild]
    drive = Supervised(policies, [Supervisor(LIFT.embodiment, period) for _ in policies], 1)
    values = {
        p.path: np.array([reality.at(r.name, 0)[0][p.path] for r in reality.robots]) for p in LIFT.scene.parameters
    }
    batch = World(LIFT, 2).run(drive, values, [attempt_seed(r.seed, 9, 0) for r in reality.robots])
    assert drive.stopped[0] == "" and "limits" in drive.stopped[1]

    for i, robot in enumerate(reality.robots):
        alone = Log()
        body = VirtualRobot(reality, robot.name)
        body.prepare(9, 0)
        policy = reactive() if i == 0 else wild
        supervisor = Supervisor(LIFT.embodiment, period)
        run_attempt(body, policy, supervisor, steps=steps, instruction="", seed=9, execute=1, record=alone)
        sent = np.array(alone.rows["command.joint"])
        assert len(sent) == steps if i == 0 else 0 < len(sent) < steps
        assert np.array_equal(sent, batch.signals["command.joint"][i, : len(sent)])


class Log:
    """Keeps what a runner records."""

    def __init__(self) -> None:
        self.rows: dict[str, list[np.ndarray]] = {}

    def write(self, name: str, t_ns: int, values: np.ndarray) -> None:
        self.rows.setdefault(name, []).append(np.array(values))

    def event(self, t_ns: int, name: str, text: str = "") -> None:
        pass


def test_a_robot_that_completes_no_attempt_is_told_nominal_values_again() -> None:
    shown = Silent()
    robots = ["robot-01", "robot-02", "robot-03"]
    fleet: Any = SimpleNamespace(operator=SimpleNamespace(robots=robots), task=LIFT, display=shown)
    outcomes = {"robot-01": ["aborted", "aborted"], "robot-02": ["aborted", "failure"]}
    episodes = [Episode("arm", robot=r, outcome=o) for r, mine in outcomes.items() for o in mine]  # type: ignore[arg-type]
    told = attempts.unsettled(fleet, episodes)
    assert told == {"robot-01": tuple(LIFT.told(LIFT.scene.nominal(1))[0])}
    assert "robot-01 completed no attempt" in shown.notes[-1]
