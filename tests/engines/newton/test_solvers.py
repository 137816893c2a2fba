"""Every solver keeps what it declares. With FLYBALL_NEWTON=1: compiling all of them takes minutes of CPU.

``python benchmarks/newton_solvers.py`` runs the whole report card.
"""

import os

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("FLYBALL_NEWTON"), reason="compiles for long; FLYBALL_NEWTON=1")

from flyball.base import Unsupported  # noqa: E402
from flyball.engines import testing  # noqa: E402
from flyball.engines.card import LAWS, examine  # noqa: E402
from flyball.engines.derivatives import jacobian  # noqa: E402
from flyball.engines.mujoco import MujocoEngine  # noqa: E402
from flyball.engines.newton.engine import MujocoWarpEngine, NewtonEngine  # noqa: E402
from flyball.evaluation.agreement import try_on  # noqa: E402
from flyball.scenes import Scene  # noqa: E402
from flyball.tasks import tasks  # noqa: E402

KNOWN = {  # see docs/adr/0014
    "featherstone": {"ramp", "stack", "tangle"},
    "semi-implicit": {"ramp", "stack"},
    "xpbd": {"resting force", "contact wrench", "contacts by force", "pile"},
    "steel": {"torque-free precession", "floating base", "order, torque-free body"},
}
ARM = """<mujoco><option timestep="0.002"/><worldbody><body name="a" pos="0 0 1">
<joint name="a" axis="0 1 0" damping=".2" armature=".01"/><inertial pos=".2 0 0" mass="1" diaginertia=".01 .02 .02"/>
<body name="b" pos=".4 0 0"><joint name="b" axis="0 1 0" damping=".1" stiffness="1" springref=".2"/>
<inertial pos=".15 0 0" mass=".5" diaginertia=".005 .01 .01"/></body></body></worldbody>
<actuator><position name="a" joint="a" kp="20" kv="1"/><motor name="b" joint="b"/></actuator></mujoco>"""


FALLING = Scene("two", testing._MIXED[: testing._MIXED.index('  <body name="arm"')] + """
<body name="ball" pos="1 0 .5"><freejoint name="ball"/><geom name="ball" size=".05" mass=".2"/></body>
</worldbody></mujoco>""", ())  # fmt: skip
LOOSE = testing.Case(FALLING, ("joint:box.position", "joint:ball.position"), "body:box.mass", (0.2, 0.9),
                     "body:box.colour", 0)  # fmt: skip


def test_mujoco_warp_keeps_the_contract():
    assert set(testing.check_engine(MujocoWarpEngine())) == {"check_derivatives"}


@pytest.mark.parametrize(
    ("name", "case", "left"),
    [
        ("steel", None, {"check_derivatives"}),
        ("featherstone", None, {"check_wrench", "check_resting_force"}),
        ("semi-implicit", LOOSE,
         {"check_failure", "check_wrench", "check_derivatives", "check_resting_force", "check_mass_carries_inertia"}),
    ],
)  # fmt: skip
def test_solvers_of_rigid_bodies_keep_the_contract(name, case, left):
    assert set(testing.check_engine(NewtonEngine(name), case)) == left


def test_xpbd_keeps_the_contract_but_for_the_forces_of_an_impact():
    """In those steps the forces that it reports are not those that change the momentum; see docs/adr/0014."""
    engine = NewtonEngine("xpbd")
    with pytest.raises(AssertionError, match="forces do not make the motion"):
        testing.check_wrench(engine)
    testing.check_resting_force(engine)
    engine.capabilities = {**engine.capabilities, "contact_wrench": "unsupported"}
    assert set(testing.check_engine(engine, LOOSE)) == {
        "check_failure", "check_wrench", "check_derivatives", "check_resting_force", "check_mass_carries_inertia"
    }  # fmt: skip


def test_room_for_contacts_grows():
    """A heap of boxes has more contacts than MuJoCo Warp makes room for by itself; none may be left out."""
    box = '<body pos="0 0 {}"><freejoint/><geom type="box" size=".05 .05 .05" mass=".1"/></body>'
    heap = '<geom type="plane" size="1 1 1"/>' + "".join(box.format(0.05 + 0.1 * k) for k in range(8))
    model = f'<mujoco><option timestep="0.002"/><worldbody>{heap}</worldbody></mujoco>'
    sim = MujocoWarpEngine().open(Scene("heap", model, ()), 1)
    sim._batch._room = {"nconmax": 4, "njmax": 16}
    sim._batch._build(sim.model, {})
    seen = sim.step(np.zeros((1, 300, 0)), {"time": "last"})
    assert sim.status().all() and seen["time"][0, 0] == pytest.approx(0.6)
    assert sim._batch._d.njmax > 16 and (sim._batch.bind("qpos")[0, 2::7] > 0.04).all()


@pytest.mark.parametrize("name", sorted(KNOWN))
def test_no_law_breaks_that_is_not_known_to(name):
    card = examine(NewtonEngine(name), LAWS)
    broken = {m.law: m.note for m in card.marks if m.result == "failed" and m.law not in KNOWN[name]}
    assert broken == {}


def test_mujoco_warp_keeps_every_law():
    assert {m.law: m.note for m in examine(MujocoWarpEngine(), LAWS).marks if m.result == "failed"} == {}


@pytest.mark.parametrize("name", ["steel", "xpbd"])
def test_contact_forces_are_counted_by_force(name):
    """A floor bears a resting box, whatever it weighs; a box in the air presses on nothing."""
    engine = NewtonEngine(name)
    testing.check_resting_force(engine)
    sim = engine.open(Scene("falling", testing._RESTING.replace('pos="0 0 0.05"', 'pos="0 0 0.2"'), ()), 1)
    seen = sim.step(np.zeros((1, 20, 0)), {"contact:world|box.wrench": "max", "sensor:box": "max"})
    assert not seen["contact:world|box.wrench"].any() and not seen["sensor:box"].any()


def test_the_task_of_lifting_runs_on_another_formulation():
    scene = tasks.load("lift-fragile-v1").scene
    sim = NewtonEngine("steel").open(scene, 2)
    sim.step(np.zeros((2, 50, sim.layout.nu)))
    assert sim.status().all() and sim.read(["sensor:pad_left"])["sensor:pad_left"].shape == (2, 1)


@pytest.mark.parametrize("name", ["steel", "xpbd", "semi-implicit"])
def test_a_box_of_another_size_rests_at_its_own_height(name):
    sim = NewtonEngine(name).open(Scene("resting", testing._RESTING, ()), 3)
    sim.set({"geom:box.size_scale": np.array([0.5, 1.0, 2.0])})
    sim.reset()
    sim.place("box", np.array([[0, 0, z, 1, 0, 0, 0] for z in (0.027, 0.052, 0.102)]))
    z = sim.step(np.zeros((3, 500, 0)), {"body:box.position": "last"})["body:box.position"][:, 2]
    np.testing.assert_allclose(z, [0.025, 0.05, 0.1], atol=1e-3)
    with pytest.raises(Unsupported, match=r"size_scale: a plane"):
        sim.set({"geom:floor.size_scale": np.ones(3)})


@pytest.mark.parametrize("name", ["steel", "featherstone"])
def test_a_box_slides_by_the_friction_of_each_pair(name):
    """On a rough and on a smooth floor, beside one another, which the box's own friction outranks on one alone."""
    floors = ('<geom name="smooth" type="plane" size="1 1 1" friction=".1" priority="1"/>'
              '<geom name="block" type="box" pos="3 0 0" size="1 1 .2" friction=".9"/>')  # fmt: skip
    box = ('<body name="{0}" pos="{1} 0 {2}"><freejoint name="{0}"/>'
           '<geom type="box" size=".1 .1 .05" mass="1" friction="{3}"/></body>')  # fmt: skip
    model = (
        f'<mujoco><option timestep=".001"/><worldbody>{floors}{box.format("a", 0, 0.05, 0.5)}'
        f"{box.format('b', 3, 0.25, 0.2)}</worldbody></mujoco>"
    )
    sim = NewtonEngine(name).open(Scene("floors", model, ()), 1)
    start = {k: sim.read([f"body:{k}.position"])[f"body:{k}.position"][0, 0] for k in "ab"}
    for k in "ab":
        sim.push(k, np.array([[0.7, 0, 0, 0, 0, 0]]))
    end = sim.step(np.zeros((1, 1000, 0)), {f"body:{k}.position": "last" for k in "ab"})
    for k, mu in (("a", 0.1), ("b", 0.9)):
        t = min(1.0, 0.7 / (mu * 9.81))
        want = 0.7 * t - mu * 9.81 * t**2 / 2
        assert end[f"body:{k}.position"][0, 0] - start[k] == pytest.approx(want, rel=0.05)


def test_gradients_through_featherstone_are_right():
    """Against differences of the same engine (their step in single precision: 1e-3), and MuJoCo's to first order."""
    engine, scene = NewtonEngine("featherstone"), Scene("arm", ARM, ())
    controls = np.random.default_rng(0).uniform(-1, 1, (40, 2))
    states = []
    for e in (engine, MujocoEngine()):
        sim = e.open(scene, 1)
        sim.place("a", np.array([[0.3]]))
        sim.push("b", np.array([[1.0]]))
        states.append(sim.save())
    for wrt in ("state", "control"):
        own = jacobian(engine, scene, states[0], controls, wrt)
        plain = jacobian(engine, scene, states[0], controls, wrt, method="finite differences", step=1e-2)
        other = jacobian(MujocoEngine(), scene, states[1], controls, wrt)
        assert own.method == "reverse mode"
        size = np.abs(plain.values).max()
        np.testing.assert_allclose(own.values, plain.values, atol=1e-3 * size)
        np.testing.assert_allclose(own.values, other.values, atol=0.03 * size)


def test_gradients_through_contact_are_refused_and_differences_taken():
    engine = NewtonEngine("featherstone")
    scene = Scene("box", testing._FALLING.replace("<worldbody>", '<worldbody><geom type="plane" size="1 1 1"/>'), ())
    state = engine.open(scene, 1).save()
    assert jacobian(engine, scene, state, np.zeros((2, 0)), "state", step=1e-2).method == "finite differences"
    with pytest.raises(Unsupported, match="free or ball"):
        engine.open(scene, 1).gradient(np.zeros((2, 0)), "state", 1e-2)


def test_tasks_end_on_steel_as_on_mujoco():
    """Slide and lift: the same worlds, and a box that four hard points hold does not slip."""
    for name in ("lift-fragile-v1", "slide-puck-v1"):
        task = tasks.load(name)
        values = task.draw_reality(np.random.default_rng(0), 4)
        told = task.told(task.scene.nominal(4) | values)
        rows = try_on(task, {"expert": lambda n: task.expert(told)}, ["mujoco", "newton-steel"], values, range(4))  # noqa: B023
        assert [t.groups for t in rows] == [("",) * 4] * 2, name
