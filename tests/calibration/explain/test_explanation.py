"""Failures of the puck explained: planted causes are named, what the scene cannot make is not explained away."""

import json

import numpy as np
import pytest

from flyball.base import InputError, Missing, Refused
from flyball.calibration.explain import Case, CrashTest, explain
from flyball.calibration.explain.causes import Search
from flyball.calibration.explain.counterfactual import Budget
from flyball.calibration.explain.levers import levers_of
from flyball.scenes import dump_variations
from flyball.scenes.variation_files import read_variations
from flyball.tasks import tasks
from flyball.tasks.world import Attempts, World

TASK = tasks.load("slide-puck-v1")
LIFT = tasks.load("lift-fragile-v1")
BELIEVED = {"object.friction": 0.05, "arm.gain_scale": 0.9, "arm.delay_s": 0.03}
SLICK = {**BELIEVED, "object.friction": 0.036}
SEARCH = Search(base=16, strata=8, rounds=(16,), keep=2, draws=10)
BUDGET = Budget(first=2, grid=9, samples=10, halvings=3)
LITTLE = Budget(first=2, grid=6, samples=4, near=4, halvings=1)  # where only the cause is looked at


def stacked(cell):
    return {k: np.array([v]) for k, v in cell.items()}


def told_of(cell):
    return TASK.told(TASK.scene.nominal(1) | stacked(cell))[0]


def calibration(cell, m=64):
    rng = np.random.default_rng(0)
    values = TASK.scene.nominal(m) | {k: np.full(m, v) for k, v in cell.items()}
    return {p.path: values[p.path] * (np.exp(0.04 * rng.standard_normal(m)) if p.scale == "log" else 1.0)
            for p in TASK.scene.parameters}  # fmt: skip


def log(cell, told, seed=5, policy=TASK.expert):
    return World(TASK, 1).run(policy(told[None]), stacked(cell), [seed])


def case_of(logged, told, believed=BELIEVED):
    return Case(TASK, logged, told, TASK.expert, calibration(believed), seed=2, threads=1)


@pytest.fixture(scope="module")
def slick():
    told = told_of(BELIEVED)
    case = case_of(log(SLICK, told), told)
    return case, explain(case, search=SEARCH, budget=BUDGET)


def test_a_slick_table_is_named_and_what_to_tell_the_policy(slick):
    case, found = slick
    assert (found.failure.group, found.verdict, found.cause) == ("long", "explained", "object.friction")
    assert found.alike >= 0.8 and found.misfit <= 1 and found.foreign == 0
    cause = found.causes[0]
    assert cause.share > 0.7 and cause.actual == pytest.approx(0.036, rel=0.1) and cause.believed > 0.045
    lever = next(c for c in found.changes if c.path == "told:object.friction")
    assert lever.high > -0.3 and lever.low < -0.15, "told 0.036 to 0.042 it comes to rest on the mark"
    assert "object.friction" in found.sentence and "would have held" in found.sentence
    assert found.retold >= 0.5


def test_an_explanation_is_plain_data_with_a_map_and_counts(slick):
    _, found = slick
    document = json.loads(json.dumps(found.to_json()))
    assert document["cause"] == "object.friction" and len(document["margin"]["share"]) == 9
    shares = np.array(found.margin.share)
    assert shares.min() == 0 and shares.max() == 1, "a boundary runs through it"
    assert found.attempts > 300 and found.steps == found.attempts * 75


def test_the_range_to_train_on_spans_the_boundary_and_reads_back(slick):
    _, found = slick
    again = read_variations(dump_variations(found.variations))
    law = next(v for v in again if v.paths == ("object.friction",)).by
    assert law.low < 0.036 < 0.04 < law.high


def test_a_crash_test_holds_until_something_else_acts(slick, tmp_path):
    _, found = slick
    path = tmp_path / "a.crash.json"
    found.crash.save(path)
    test = CrashTest.load(path)
    assert test.check(TASK.expert, threads=1)["holds"]
    cured = test.check(lambda told: TASK.expert(np.array(test.after["told"])), threads=1)
    assert not cured["holds"] and cured["before"] < 0.5, "it does not fail any more: no crash test of this policy"


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (lambda d: d.update(format="x"), InputError, "is no crash test"),
        (lambda d: d.update(scene="0" * 64), Refused, "the scene of"),
        (lambda d: d.update(seeds=[1]), InputError, "one each"),
        (lambda d: d.update(task="nope"), Missing, "no task named"),
        (lambda d: d["values"].update({"object.colour": d["values"]["object.mass"]}), Missing, "object.colour"),
        (lambda d: d["before"].update(told=[1.0]), InputError, "wrong shape"),
        (lambda d: d["values"].update({"object.mass": ["x"] * len(d["seeds"])}), InputError, "cannot be read"),
    ],
)
def test_a_crash_test_that_was_tampered_with_is_refused_in_a_line(slick, tmp_path, change, error, says):
    path = tmp_path / "a.json"
    slick[1].crash.save(path)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(error, match=says) as err:
        CrashTest.load(path)
    assert "\n" not in err.value.line()


def test_a_policy_that_was_told_something_wrong_is_the_cause_not_the_table():
    told = told_of({**BELIEVED, "object.friction": 0.07})
    found = explain(case_of(log(BELIEVED, told), told), search=SEARCH, budget=LITTLE, draw_map=False)
    assert found.cause == "told:object.friction" and "as told 40% too high" in found.sentence, found.sentence


def test_without_a_calibration_the_log_itself_shows_what_was_told_wrong():
    told = told_of(BELIEVED)
    case = Case(TASK, log(SLICK, told), told, TASK.expert, None, seed=2, threads=1)
    found = explain(case, search=SEARCH, budget=LITTLE, draw_map=False)
    assert (found.verdict, found.cause) == ("explained", "object.friction"), found.sentence
    assert found.causes[0].actual == pytest.approx(0.036, rel=0.1) and found.causes[0].believed == pytest.approx(0.05)


def test_commands_that_are_not_the_policys_are_seen_without_a_simulation():
    told = told_of(BELIEVED)
    wrong = told_of({**BELIEVED, "object.friction": 0.08})

    def other(t):
        return TASK.expert(np.repeat(wrong[None], len(t), axis=0))

    case = case_of(log(BELIEVED, told, policy=other), told)
    found = explain(case)
    assert found.verdict == "cannot tell" and found.foreign > 0.1 and case.attempts < 20


def test_an_arm_that_stands_still_is_not_reproduced():
    told = told_of(BELIEVED)
    done = log(BELIEVED, told)
    still = dict(done.signals)
    for name in ("joint.position", "joint.velocity", "object.pose"):
        still[name] = np.repeat(done.signals[name][:, :1], 75, axis=1)
    found = explain(case_of(Attempts(_acted(still, told), [[]]), told), search=SEARCH, budget=BUDGET)
    assert found.verdict == "not reproduced" and found.causes == ()


def _acted(signals, told):
    """The same observations with the commands that the policy answers to them."""
    controller = TASK.expert(told[None])
    names = [s.name for s in TASK.embodiment.observations]
    low, high = TASK.embodiment.action_limits()
    rows = [np.clip(controller({n: signals[n][:, k] for n in names}), low, high) for k in range(75)]
    return signals | World(TASK, 1).action_signals(np.stack(rows, axis=1))


def test_a_success_has_nothing_to_explain_and_told_must_fit():
    told = told_of(BELIEVED)
    good = log(BELIEVED, told)
    assert good.judge(TASK)[0].outcome == "success"
    with pytest.raises(InputError, match="is a success"):
        case_of(good, told)
    with pytest.raises(InputError, match="told has shape"):
        Case(TASK, log(SLICK, told), told[:2], TASK.expert)


def test_what_can_be_acted_on_follows_from_what_parameters_are_bound_to(slick):
    own = {lever.path: lever for lever in levers_of(slick[0])}
    assert {"told:object.friction", "arm.gain_scale", "arm.delay_s", "speed"} <= set(own)
    assert not {"object.friction", "object.mass", "tracker.bias_m.x"} & set(own), "given"


def test_a_crushed_box_slipped_first():
    told = LIFT.told(LIFT.scene.nominal(1))
    cells = {"object.friction": np.array([0.22, 0.5]), "object.crush_force": np.array([15.0, 6.0])}
    done = World(LIFT, 2).run(LIFT.expert(np.repeat(told, 2, axis=0)), cells, [3, 4])
    firsts = []
    for i in range(2):
        one = Attempts({k: x[i : i + 1] for k, x in done.signals.items()}, [done.events[i]])
        firsts.append(Case(LIFT, one, told[0], LIFT.expert, threads=1).failure)
    assert [f.first for f in firsts] == ["slipped", "crushed"]
    assert firsts[1].at_s == pytest.approx(done.events[1][0][0], abs=0.15)
