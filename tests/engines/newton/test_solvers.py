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
from flyball.scenes import Scene  # noqa: E402
from flyball.tasks import tasks  # noqa: E402

KNOWN = {  # see docs/adr/0014
    "featherstone": {"momentum", "ramp", "stack", "tangle"},
    "semi-implicit": {"ramp", "stack"},
    "xpbd": {"resting force", "contact wrench", "contacts by force", "pile"},
    "steel": {"torque-free precession", "floating base", "order, torque-free body", "pile"},
}
ARM = """<mujoco><option timestep="0.002"/><worldbody><body name="a" pos="0 0 1">
<joint name="a" axis="0 1 0" damping=".2" armature=".01"/><inertial pos=".2 0 0" mass="1" diaginertia=".01 .02 .02"/>
<body name="b" pos=".4 0 0"><joint name="b" axis="0 1 0" damping=".1" stiffness="1" springref=".2"/>
<inertial pos=".15 0 0" mass=".5" diaginertia=".005 .01 .01"/></body></body></worldbody>
<actuator><position name="a" joint="a" kp="20" kv="1"/><motor name="b" joint="b"/></actuator></mujoco>"""


def test_mujoco_warp_keeps_the_contract():
    testing.check_engine(MujocoWarpEngine())


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
    with pytest.raises(Unsupported, match="size_scale"):
        sim.set({"geom:box.size_scale": np.ones(2)})


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
