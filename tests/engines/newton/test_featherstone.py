"""Newton's Featherstone keeps the engine contract, closed forms, and agrees with MuJoCo on the same file."""

import numpy as np
import pytest

from flyball.base import InputError, Missing, Unsupported
from flyball.engines import testing
from flyball.engines.mujoco import MujocoEngine
from flyball.engines.newton import model as importer
from flyball.engines.newton.engine import NewtonEngine
from flyball.scenes import Scene

pytestmark = pytest.mark.usefixtures("quickly_compiled")

# nothing touches: the kernels of contacts take as long to compile as all others; tests/engines/newton/test_solvers.py
FREE = testing._MIXED.replace("<geom ", '<geom contype="0" conaffinity="0" ')
CASE = testing.Case(
    Scene("free", FREE, ()), ("joint:box.position", "joint:arm.position", "joint:arm.velocity"), "body:box.mass",
    (0.2, 0.9), "body:box.colour", 1,
)  # fmt: skip
# a body with three joints, a ball, a tendon, a limit, masses off their frames
ZOO = """<mujoco><option timestep="0.001" gravity="0 1 -9.81"/><worldbody>
<body name="cart" pos="0 0 1" euler="0 0 30"><joint name="x" type="slide" axis="1 0 0"/>
 <joint name="y" type="slide" axis="0 1 0"/><joint name="turn" type="hinge" axis="0 0 1"/>
 <inertial pos=".02 .01 .03" quat="1 .2 .1 0" mass="2" diaginertia=".02 .03 .04"/>
 <body name="ball" pos=".1 0 .2" euler="20 0 0"><joint name="ball" type="ball" damping=".05"/>
  <inertial pos=".1 .02 -.1" mass="1" diaginertia=".01 .02 .025"/><site name="tip" pos=".2 0 0"/></body></body>
<body name="arm" pos="1 0 1"><joint name="arm" axis="0 1 0" damping=".3" armature=".02" stiffness="2" springref=".4"/>
 <inertial pos=".2 0 0" mass=".7" diaginertia=".01 .01 .01"/></body>
<body name="free" pos="0 2 1"><freejoint name="free"/>
 <inertial pos=".05 -.02 .01" mass=".5" diaginertia=".002 .003 .004"/></body>
</worldbody>
<tendon><fixed name="t"><joint joint="x" coef=".5"/><joint joint="arm" coef="-1"/></fixed></tendon>
<actuator><position name="p" joint="turn" kp="15" kv="1"/><motor name="m" tendon="t" gear="2" ctrlrange="-1 1"/>
<motor name="limited" joint="y" gear="3" forcerange="-.5 .5"/></actuator></mujoco>"""
JOINTS = ("x", "y", "turn", "ball", "arm", "free")


@pytest.fixture(scope="module")
def engine():
    return NewtonEngine("featherstone")


def test_it_keeps_the_contract(engine):
    testing.check_alone(engine, CASE)
    testing.check_save_restore(engine, CASE)
    testing.check_parameters(engine, CASE)
    testing.check_reductions(engine, CASE)
    testing.check_refusals(engine, CASE)
    testing.check_free_fall(engine)


def both(engine):
    """The same start in MuJoCo and in Newton: everything turned and moving."""
    sims = [e.open(Scene("zoo", ZOO, ()), 2, threads=1) for e in (MujocoEngine(), engine)]
    rng = np.random.default_rng(3)
    for joint in JOINTS:
        layout = sims[0].layout.joint(joint)
        q, v = rng.normal(0, 0.3, (2, layout.nq)), rng.normal(0, 1, (2, layout.nv))
        if layout.kind in ("ball", "free"):
            quat = q[:, -4:]
            q[:, -4:] = quat / np.linalg.norm(quat, axis=1, keepdims=True)
        for sim in sims:
            sim.place(joint, q)
            sim.push(joint, v)
    return sims


def test_coordinates_mean_what_they_mean_in_mujoco(engine):
    mujoco, newton = both(engine)
    names = [f"joint:{j}.{f}" for j in JOINTS for f in ("position", "velocity")]
    names += [f"body:{b}.{f}" for b in ("cart", "ball", "arm", "free") for f in ("position", "quat", "velocity")]
    names += ["site:tip.position", "tendon:t.length", "tendon:t.velocity", "actuator:p.force", "actuator:m.force"]
    want, found = mujoco.read(names), newton.read(names)
    for name in names:
        sign = np.sign((want[name] * found[name]).sum(axis=1, keepdims=True)) if name.endswith("quat") else 1
        np.testing.assert_allclose(found[name] * sign, want[name], atol=2e-5, err_msg=name)


def test_the_same_file_moves_as_in_mujoco(engine):
    """To first order in the step: both integrate semi-implicitly, but damp in another order (0.1 s, 1 rad/s)."""
    sims = both(engine)
    controls = np.random.default_rng(1).uniform(-2, 2, (2, 100, 3))
    names = {f"joint:{j}.position": "last" for j in JOINTS} | {"actuator:limited.force": "all"}
    want, found = (sim.step(controls, names) for sim in sims)
    assert np.abs(found["actuator:limited.force"]).max() == 0.5
    for name, x in want.items():
        np.testing.assert_allclose(found[name], x, atol=3e-3, err_msg=name)


def test_a_gain_that_newton_loses_would_be_seen(engine, monkeypatch):
    """The trap of importers: a servo without its damping overshoots."""
    scene = Scene("servo", ZOO, ())
    sim = engine.open(scene, 1)
    controls = np.zeros((1, 400, 3))
    controls[..., 0] = 0.5
    own = sim.step(controls, {"joint:turn.position": "max"})["joint:turn.position"]
    sim.reset()
    sim.set({"actuator:p.damping": np.zeros(1)})
    assert sim.step(controls, {"joint:turn.position": "max"})["joint:turn.position"] > own + 0.05


def test_joints_that_newton_reads_differently_are_refused(engine):
    """It leaves out where a hinge is, once its body has slides too."""
    with pytest.raises(Unsupported, match="body cart differently"):
        engine.open(Scene("zoo", ZOO.replace('name="turn"', 'name="turn" pos=".05 0 0"'), ()), 1)


def test_kinematics_that_differ_are_refused(engine, monkeypatch):
    write = importer._write

    def shifted(b, m, *rest):
        write(b, m, *rest)
        b.joint_X_p[0] = type(b.joint_X_p[0])((0.0, 0.0, 1.01), b.joint_X_p[0].q)

    monkeypatch.setattr(importer, "_write", shifted)
    with pytest.raises(Unsupported, match="body cart differently"):
        engine.open(Scene("zoo", ZOO, ()), 1)


def test_parameters_act(engine):
    sim = engine.open(Scene("zoo", ZOO, ()), 3)
    sim.set({"world:gravity": np.array([[0, 0, -9.81], [0, 0, -1.62], [0, 0, 0.0]])})
    sim.set({"joint:arm.armature": np.array([0.02, 0.02, 0.02])})
    start = sim.read(["joint:free.position"])["joint:free.position"][:, 2]
    fall = start - sim.step(np.zeros((3, 100, 3)), {"joint:free.position": "last"})["joint:free.position"][:, 2]
    np.testing.assert_allclose(fall, [9.81 * 0.005, 1.62 * 0.005, 0], rtol=0.02, atol=1e-6)
    with pytest.raises(Unsupported, match="solref"):
        sim.set({"geom:x.solref": np.ones((3, 2))})


def test_shapes_are_scaled_per_world(engine):
    sim = engine.open(CASE.scene, 3)
    start = sim.worlds.model.shape_scale.numpy().reshape(3, -1, 3).copy()
    sim.set({"geom:box.size_scale": np.array([0.5, 1.0, 2.0])})
    ratio = sim.worlds.model.shape_scale.numpy().reshape(3, -1, 3)[:, :, 0] / np.where(start[..., 0], start[..., 0], 1)
    box = int(sim.worlds.shapes[sim.model.geom("box").id])
    np.testing.assert_allclose(ratio[:, box], [0.5, 1.0, 2.0])
    np.testing.assert_allclose(np.delete(ratio, box, axis=1).max(axis=1), 1.0)
    assert sim.worlds.model.shape_collision_radius.numpy().reshape(3, -1)[:, box] == pytest.approx(
        np.array([0.5, 1, 2]) * np.sqrt(0.05**2 + 0.04**2 + 0.03**2), rel=1e-5
    )


def test_a_world_that_explodes_is_reported_and_stands_still(engine):
    sim = engine.open(CASE.scene, 3)
    sim.push("box", np.array([[2e3, 0, 0, 0, 0, 0.0]]), np.array([1]))  # finite, and out of this world
    before = sim.read(["joint:box.position"])["joint:box.position"]
    after = sim.step(np.zeros((3, 10, 1)), {"joint:box.position": "last"})["joint:box.position"]
    assert sim.status().tolist() == [True, False, True]
    np.testing.assert_array_equal(after[1], before[1])
    assert (after[[0, 2], 2] < before[[0, 2], 2]).all()
    controls = np.zeros((3, 10, 1))
    controls[2, 3] = np.nan
    sim.step(controls)
    assert sim.status().tolist() == [True, False, False]
    sim.reset(np.array([1]))
    assert sim.status().tolist() == [True, True, False]


def test_bad_requests_are_named(engine):
    sim = engine.open(CASE.scene, 2)
    with pytest.raises(Missing, match="nobody"):
        sim.read(["body:nobody.position"])
    with pytest.raises(Unsupported, match="temperature"):
        sim.read(["body:box.temperature"])
    with pytest.raises(Unsupported, match="no contact forces"):
        sim.read(["contact:world|box.wrench"])
    with pytest.raises(InputError, match="finite"):
        sim.place("arm", np.array([[np.nan], [0.0]]))
    with pytest.raises(InputError, match="shape"):
        sim.restore(np.zeros((2, 3)))
    with pytest.raises(Unsupported, match="cuda:99"):
        engine.open(CASE.scene, 1, options={"device": "cuda:99"})
