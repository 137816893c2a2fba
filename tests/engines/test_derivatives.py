"""Derivatives: against closed forms, against each other, for engines with a gradient of their own and without."""

import numpy as np
import pytest

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.derivatives import check_gradient, jacobian, step_of
from flyball.engines.mujoco import MujocoEngine, MujocoSimulation
from flyball.engines.servo import ServoEngine
from flyball.scenes import Scene

H = 0.001
INERTIA = 0.02 + 0.25
PENDULUM = Scene(
    "pendulum",
    f'<mujoco><option timestep="{H}"/><worldbody><body name="p"><joint name="p" type="hinge" axis="0 1 0"/>'
    '<inertial pos="0 0 -.5" mass="1" diaginertia=".02 .02 .02"/></body></worldbody>'
    '<actuator><motor name="p" joint="p"/></actuator></mujoco>',
    (),
)
BALL = Scene(
    "ball",
    f'<mujoco><option timestep="{H}"/><worldbody><geom type="plane" size="5 5 1"/>'
    '<body name="b" pos="0 0 .247"><freejoint name="b"/><geom size=".05" mass="1"/></body></worldbody></mujoco>',
    (),
)
ARM = Scene(
    "arm",
    f'<mujoco><option timestep="{H}"/><worldbody><body name="a"><joint name="a" type="ball"/>'
    '<geom type="capsule" size=".03" fromto="0 0 0 .3 0 0" mass="1"/><body name="c" pos=".3 0 0">'
    '<joint name="c" type="hinge" axis="0 1 0" damping=".1"/>'
    '<geom type="capsule" size=".03" fromto="0 0 0 .3 0 0" mass=".5"/></body></body>'
    '<body name="f" pos="0 2 5"><freejoint name="f"/><geom type="box" size=".1 .2 .3" mass="2"/></body></worldbody>'
    '<actuator><motor name="c" joint="c"/></actuator></mujoco>',
    (),
)
METHODS = pytest.mark.parametrize("method", ["best", "finite differences"])


def start(scene, engine=MujocoEngine, **moves):
    """A saved state, with joints pushed."""
    sim = engine().open(scene, 1, threads=1)
    for joint, velocity in moves.items():
        sim.push(joint, np.array([velocity], float))
    return sim.save()[0]


@METHODS
def test_a_fall_has_the_derivatives_of_its_parabola(method):
    k = 150
    found = jacobian(MujocoEngine(), BALL, start(BALL, b=[1, 0, 0, 0, 0, 3]), np.zeros((k, 0)), "state", method=method)
    assert found.method == ("mjd_transitionFD" if method == "best" else method)
    want = np.eye(12)
    want[:6, 6:] = k * H * np.eye(6)
    # a spin of 3 rad/s turns the axes in which a start's other rotations are counted
    smooth = [0, 1, 2, 5, 6, 7, 8, 11]
    np.testing.assert_allclose(found.values[np.ix_(smooth, smooth)], want[np.ix_(smooth, smooth)], atol=1e-7)
    assert found.columns[2] == "joint:b.position[2]" and found.columns[11] == "joint:b.velocity[5]"


@METHODS
def test_a_pendulum_has_the_derivatives_of_its_difference_equation(method):
    k, w2 = 200, 9.81 * 0.5 / INERTIA
    step = np.array([[1 - H**2 * w2, H], [-H * w2, 1]])  # v += h (u / I - w2 q), q += h v, at the bottom
    push = np.array([H**2, H]) / INERTIA
    by_state = jacobian(MujocoEngine(), PENDULUM, start(PENDULUM), np.zeros((k, 1)), "state", method=method)
    np.testing.assert_allclose(by_state.values, np.linalg.matrix_power(step, k), atol=1e-7)
    by_control = jacobian(MujocoEngine(), PENDULUM, start(PENDULUM), np.zeros((k, 1)), "control", method=method)
    want = np.array([np.linalg.matrix_power(step, k - 1 - i) @ push for i in range(k)]).T
    np.testing.assert_allclose(by_control.values, want, atol=1e-8)
    assert by_control.columns[:2] == ("actuator:p[0]", "actuator:p[1]")


def test_by_a_parameter():
    k, damping, v = 100, 0.3, 2.0
    scene = Scene("spin", PENDULUM.model.replace("<option ", '<option gravity="0 0 0" '), ())
    params = {"joint:p.damping": damping}
    found = jacobian(MujocoEngine(), scene, start(scene, p=[v]), np.zeros((k, 1)), "params", params=params)
    # damping is implicit: each step leaves I / (I + h d) of the speed
    left = INERTIA / (INERTIA + H * damping)
    assert found.columns == ("joint:p.damping",) and found.method == "finite differences"
    assert np.isclose(found.values[1, 0], -v * k * left ** (k + 1) * H / INERTIA, rtol=1e-6)


@pytest.mark.parametrize("wrt", ["state", "control"])
def test_mujoco_agrees_with_finite_differences_of_whole_courses(wrt):
    sim = MujocoEngine().open(ARM, 1, threads=1)
    turned = np.array([0.5, -0.1, 0.7, 0.5]) / np.linalg.norm([0.5, -0.1, 0.7, 0.5])
    sim.place("a", turned[None])
    sim.place("f", np.array([[0, 2, 5, *turned]]))
    for joint, velocity in {"a": [0.5, -1, 2], "c": [1.0], "f": [1, 2, 3, 1, -2, 0.5]}.items():
        sim.push(joint, np.array([velocity]))
    state = sim.save()[0]
    controls = 0.2 * np.sin(np.arange(60))[:, None]
    # rounding of 1e-16 over a step of 6e-6, over 60 substeps, with rates of change of the order of 10
    assert check_gradient(MujocoEngine(), ARM, state, controls, wrt) < 1e-6


def test_a_wrong_gradient_is_noticed():
    class Wrong(MujocoSimulation):
        def gradient(self, controls, wrt, step):
            values, _ = super().gradient(controls, wrt, step)
            return 1.01 * values, "by hand"

    class Engine(MujocoEngine):
        def open(self, scene, n, **settings):
            sim = super().open(scene, n, **settings)
            sim.__class__ = Wrong
            return sim

    assert check_gradient(Engine(), PENDULUM, start(PENDULUM), np.full((50, 1), 0.1), "control") > 0.009


def test_an_engine_without_a_gradient_is_differenced():
    model = PENDULUM.model.replace('axis="0 1 0"/>', 'axis="0 1 0" damping=".05"/>')
    scene = Scene("servo", model, ())
    controls = np.full((100, 1), 0.2)
    found = jacobian(ServoEngine(), scene, start(scene, ServoEngine, p=[0.5]), controls, "state")
    want = jacobian(MujocoEngine(), scene, start(scene, p=[0.5]), controls, "state")
    assert found.method == "finite differences"
    np.testing.assert_allclose(found.values, want.values, atol=1e-5)


def test_through_a_contact_both_methods_agree_and_are_both_wrong():
    k = 230
    controls = np.zeros((k, 0))
    both = [jacobian(MujocoEngine(), BALL, start(BALL), controls, "state", method=m).values[2, 2]
            for m in ("best", "finite differences")]  # fmt: skip
    sim = MujocoEngine().open(BALL, 2, threads=1)
    heights = np.array([0.245, 0.249])
    sim.place("b", np.array([[0, 0, z, 1, 0, 0, 0] for z in heights]))
    ends = sim.step(np.zeros((2, k, 0)), {"joint:b.position": "last"})["joint:b.position"][:, 2]
    really = np.diff(ends)[0] / np.diff(heights)[0]
    assert abs(both[0] - both[1]) < 1e-4
    assert both[0] > 0.3 and really < -0.05


def test_bad_input():
    with pytest.raises(Missing, match="derivative"):
        jacobian(MujocoEngine(), PENDULUM, start(PENDULUM), np.zeros((3, 1)), "time")
    with pytest.raises(InputError, match="no parameters"):
        jacobian(MujocoEngine(), PENDULUM, start(PENDULUM), np.zeros((3, 1)), "params")
    with pytest.raises(Unsupported, match="colour"):
        jacobian(MujocoEngine(), PENDULUM, start(PENDULUM), np.zeros((3, 1)), "params", params={"body:p.colour": 1.0})
    with pytest.raises(InputError, match="controls"):
        jacobian(MujocoEngine(), PENDULUM, start(PENDULUM), np.zeros((3, 2)), "state")
    with pytest.raises(InputError, match="finite"):
        jacobian(MujocoEngine(), PENDULUM, start(PENDULUM), np.full((3, 1), np.nan), "state")


def test_differences_of_an_engine_of_single_precision_take_a_step_that_it_resolves():
    class Single(MujocoEngine):
        precision = "single"

        def open(self, *args, **settings):
            sim = super().open(*args, **settings)
            rollout, read = sim.rollout, sim.read
            sim.rollout = lambda *a: {k: x.astype(np.float32).astype(float) for k, x in rollout(*a).items()}
            sim.read = lambda *a: {k: x.astype(np.float32).astype(float) for k, x in read(*a).items()}
            return sim

    state, controls = start(PENDULUM, p=[1.0]), np.full((100, 1), 0.2)
    want = jacobian(MujocoEngine(), PENDULUM, state, controls, "state").values
    found = [
        jacobian(Single(), PENDULUM, state, controls, "state", method="finite differences", step=step).values
        for step in (None, step_of(MujocoEngine()))
    ]
    off = [float(np.abs(x - want).max()) for x in found]
    assert off[0] < 1e-4 < 1e-3 < off[1], off
