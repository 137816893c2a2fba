"""The report card: sound engines pass it, and each planted fault breaks the law that it should break."""

import json
import re

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.apps.web.card import render
from flyball.base import Unsupported
from flyball.engines.card import LAWS, examine
from flyball.engines.engine import engines
from flyball.scenes import Scene

MUJOCO = engines.load("mujoco")


class Faulty:
    """MuJoCo, with models as a careless importer would write them."""

    name, version, capabilities = "faulty", "0", MUJOCO().capabilities

    def __init__(self, pattern, replacement):
        self.pattern, self.replacement = pattern, replacement

    def open(self, scene, n, **settings):
        model = re.sub(self.pattern, self.replacement, scene.model)
        return MUJOCO().open(Scene(scene.name, model, ()), n, **settings)


class Forgetful:
    """MuJoCo, whose worlds share something: the last one is pushed by how many there are."""

    name, version, capabilities = "forgetful", "0", MUJOCO().capabilities

    def open(self, scene, n, **settings):
        sim = MUJOCO().open(scene, n, **settings)
        push = sim.push
        sim.push = lambda joint, velocity, worlds=None: push(joint, velocity * (1 + 1e-12 * n), worlds)
        return sim


@pytest.fixture(scope="module")
def card():
    return examine(MUJOCO())


def test_mujoco_keeps_every_law(card):
    assert [m.law for m in card.marks] == [law.name for law in LAWS]
    assert {m.law: m.note for m in card.marks if m.result != "passed"} == {} and card.passed


def test_the_step_is_of_first_order_and_says_so(card):
    note = next(m.note for m in card.marks if m.law == "order, pendulum")
    assert 0.9 < float(note.rpartition(" ")[2]) < 1.2


@pytest.mark.parametrize(
    ("what", "pattern", "replacement", "law"),
    [
        ("actuator damping read as 0", r'kv="[\d.]+"', 'kv="0"', "servo, step"),
        ("stiffness off by 1 %", r'kp="50.0"', 'kp="50.5"', "servo, gravity"),
        ("a floating base", r'(<body name="base" pos="0 0 1">)', r'\1<freejoint/>', "fixed base"),
        ("friction lost", r'friction="[\d. ]+"', "", "ramp"),
        ("no gravity along x", r'gravity="[\d.]+ 0', 'gravity="0 0', "rolling"),
        ("inertia lost", r'diaginertia="[\d. ]+"', 'diaginertia=".02 .02 .02"', "torque-free precession"),
        ("joint damping added", r'(<joint name="p" type="hinge")', r'\1 damping=".01"', "pendulum, energy"),
        ("mass of the pendulum shifted", r'pos="0 0 -.5"', 'pos="0 0 -.45"', "pendulum, period"),
        ("soft contacts", r'solref=".004 1"', 'solref=".1 1"', "stack"),
        ("air", r"<option ", '<option density="50" viscosity="1" ', "free fall"),
    ],
)  # fmt: skip
def test_a_planted_fault_breaks_its_law(what, pattern, replacement, law):
    failed = {m.law for m in examine(Faulty(pattern, replacement)).marks if m.result == "failed"}
    assert law in failed, what


def test_worlds_that_depend_on_their_number_are_noticed():
    failed = {m.law for m in examine(Forgetful()).marks if m.result == "failed"}
    assert failed == {"batch"}


def test_what_an_engine_cannot_do_is_no_failure():
    card = examine(engines.load("servo")())
    results = {m.law: m.result for m in card.marks}
    assert card.passed and results["servo, step"] == "passed" and results["stack"] == "unsupported"

    class Nothing(Faulty):
        def open(self, scene, n, **settings):
            raise Unsupported("no worlds here", where="nothing")

    none = examine(Nothing("", ""))
    assert none.passed and all(m.result == "unsupported" and m.note == "no worlds here" for m in none.marks)
    assert json.loads(json.dumps(none.to_json(), allow_nan=False))["marks"][0]["error"] is None


def test_not_a_number_is_no_pass():
    class Broken(Faulty):
        def open(self, scene, n, **settings):
            sim = MUJOCO().open(scene, n, **settings)
            rollout = sim.rollout
            sim.rollout = lambda *a: {k: np.full_like(v, np.nan) for k, v in rollout(*a).items()}
            return sim

    results = {m.law: m.result for m in examine(Broken("", "")).marks}
    assert results["free fall"] == results["servo, step"] == results["resting force"] == "failed"


def test_the_page(card, tmp_path, capsys):
    failed = examine(Faulty(r'kv="[\d.]+"', 'kv="0"'))
    page = render([card.to_json(), failed.to_json()])
    assert page.count("<section>") == 2 and f"{len(LAWS)} passed" in page and "http" not in page
    assert "<b>servo, step</b>" in page and page.count("class='text failed'") == sum(
        m.result == "failed" for m in failed.marks
    )
    assert main(["engines", "check", "servo", "--html", str(tmp_path / "card.html")]) == 0
    assert "servo, gravity" in (tmp_path / "card.html").read_text()


def test_the_verb(capsys):
    assert main(["engines", "check", "servo", "--json"]) == 0
    (card,) = json.loads(capsys.readouterr().out)
    assert card["engine"] == "servo" and card["passed"] and len(card["marks"]) == len(LAWS)
    assert main(["engines", "check", "nope"]) == 2
    assert main(["engines", "chek"]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 2 and "no engine named 'nope'" in lines[0] and "allowed: check" in lines[1]


def test_a_step_may_read_nothing_and_time_like_any_field():
    sim = MUJOCO().open(
        Scene("x", '<mujoco><worldbody><body><freejoint/><geom size=".1"/></body></worldbody></mujoco>', ()), 2
    )
    assert sim.step(np.zeros((2, 3, 0))) == {}
    times = sim.rollout(np.zeros((2, 4, 0)), 2, {"time": "last"})["time"]
    np.testing.assert_allclose(times[0, :, 0], [5 * sim.timestep, 7 * sim.timestep])
    np.testing.assert_allclose(sim.read(["time"])["time"][:, 0], 7 * sim.timestep)
