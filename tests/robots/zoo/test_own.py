"""Our own robots hold, stand and drive as their documentation says, through the engine interface."""

from __future__ import annotations

from types import ModuleType

import mujoco
import numpy as np
import pytest

from flyball.engines import Simulation, engines
from flyball.robots.zoo import embodiments, flyarm, flybase, flycell, flyquad
from flyball.robots.zoo.check import judge
from flyball.robots.zoo.own import OWN
from flyball.scenes import Scene

ROBOTS: dict[str, ModuleType] = {"flyarm-5": flyarm, "flycell-10": flycell, "flybase-2": flybase, "flyquad-12": flyquad}


def opened(model: str) -> Simulation:
    simulation: Simulation = engines.load("mujoco")().open(Scene("own", model, ()), 1, threads=1)
    return simulation


def held(simulation: Simulation, action: np.ndarray, seconds: float) -> np.ndarray:
    """Controls that keep an action, (1, k, nu)."""
    return np.tile(action, (1, round(seconds / simulation.timestep), 1))


@pytest.mark.parametrize("name", OWN)
def test_nothing_is_wrong_with_our_own(name: str) -> None:
    facts, findings = judge(mujoco.MjModel.from_xml_string(OWN[name]()))
    assert [f for f in findings if f.level != "note"] == []
    assert facts["bodies"] > 0


@pytest.mark.parametrize("name", ROBOTS)
def test_embodiment_says_what_the_model_has(name: str) -> None:
    body, model = embodiments.load(name), mujoco.MjModel.from_xml_string(ROBOTS[name].mjcf())
    assert body.action_size == model.nu == len(body.safe_action)
    for joint in body.joints:
        j = model.joint(joint.name)
        low, high = j.range if model.jnt_limited[j.id] else (-np.inf, np.inf)
        assert (joint.low, joint.high) == (low, high), joint.name
        limit = model.actuator(joint.name)
        if model.actuator_forcelimited[limit.id]:
            assert joint.effort == limit.forcerange[1]


def test_sense_gives_what_the_embodiment_declares() -> None:
    for module, body in ((flycell, flycell.FLYCELL), (flybase, flybase.FLYBASE), (flyquad, flyquad.FLYQUAD)):
        seen = module.sense(opened(module.mjcf()).read(list(module.READS)))
        assert {s.name: s.shape for s in body.observations} == {k: v.shape[1:] for k, v in seen.items()}


def test_cell_holds_both_hands_where_it_was_told() -> None:
    left, right = np.array([0.40, 0.12, 0.15, 0.3]), np.array([0.35, -0.10, 0.20, -0.4])
    simulation = opened(flycell.mjcf())
    for joint, q in flycell.at_rest(flycell.HOME, flycell.HOME, 1).items():
        simulation.place(joint, q)
    action = flycell.hold(left, right, 0.0)
    simulation.step(held(simulation, action, 3.0))
    for arm, pose in (("left", left), ("right", right)):
        q = np.concatenate(
            [x[0] for x in simulation.read([f"joint:{arm}_{j}.position" for j in flyarm.SERVOS]).values()]
        )
        hand = flyarm.forward(q)
        # 2 mm: closed-form gravity leaves out the fingers' reach; 5 mrad: the same, in yaw and tilt
        assert np.abs(hand[:3] - pose[:3]).max() < 2e-3, arm
        assert abs(hand[3] - pose[3]) < 5e-3 and abs(hand[4]) < 5e-3


def test_arms_of_a_cell_face_each_other() -> None:
    """The same pose in both arms' frames is the same height, mirrored about the middle."""
    simulation = opened(flycell.mjcf())
    for joint, q in flycell.at_rest(flycell.HOME, flycell.HOME, 1).items():
        simulation.place(joint, q)
    left, right = (x[0] for x in simulation.read([f"body:{arm}_finger_left.position" for arm in flycell.ARMS]).values())
    np.testing.assert_allclose(left * [-1, -1, 1], right, atol=1e-9)
    assert left[0] == pytest.approx(-flycell.SPAN / 2 + flycell.HOME[0], abs=2e-3)


def test_hands_of_a_cell_meet_and_do_not_pass_through() -> None:
    """Both hands are told to go to the same place: they touch, and overlap by no more than 5 mm of 40."""
    model = mujoco.MjModel.from_xml_string(flycell.mjcf())
    data = mujoco.MjData(model)
    for joint, q in flycell.at_rest(flycell.HOME, flycell.HOME, 1).items():
        data.joint(joint).qpos = q
    middle = np.array([flycell.SPAN / 2, 0.0, 0.15, 0.0])
    data.ctrl = flycell.hold(middle, middle, 0.0)
    mujoco.mj_step(model, data, round(2 / model.opt.timestep))
    arms = [{model.body(model.geom_bodyid[g]).name.split("_")[0] for g in c.geom} for c in data.contact]
    depth = [-c.dist for c, names in zip(data.contact, arms, strict=True) if names == {"left", "right"}]
    assert depth and max(depth) < 0.005


def test_base_drives_a_metre_straight() -> None:
    """Within 2 % of what the wheels were told (servo lag, slip), 5 mm to the side, 10 mrad of heading."""
    simulation = opened(flybase.mjcf(floor=True))
    steps = round(0.2 / simulation.timestep)
    speed = np.concatenate([np.linspace(0, 0.5, steps), np.full(9 * steps, 0.5), np.linspace(0.5, 0, steps)])
    told = speed.sum() * simulation.timestep
    assert told == pytest.approx(1.0)
    wheels = flybase.wheel_speeds(np.stack([speed, np.zeros_like(speed)], axis=-1))
    simulation.step(held(simulation, np.zeros(2), 0.2))
    simulation.step(wheels[None])
    simulation.step(held(simulation, np.zeros(2), 0.3))
    x, y, yaw = flybase.sense(simulation.read(list(flybase.READS)))["base.pose"][0]
    assert abs(x - told) < 0.02 and abs(y) < 0.005 and abs(yaw) < 0.01


def test_base_turns_on_the_spot() -> None:
    """A right angle within 3 %, servo lag included; flat tyres, whose edges scrub, come out 8 % short."""
    simulation = opened(flybase.mjcf(floor=True))
    rate = 1.0
    wheels = flybase.wheel_speeds(np.array([0.0, rate]))
    simulation.step(held(simulation, wheels, np.pi / 2 / rate))
    simulation.step(held(simulation, np.zeros(2), 0.3))
    x, y, yaw = flybase.sense(simulation.read(list(flybase.READS)))["base.pose"][0]
    assert abs(yaw - np.pi / 2) < 0.03 * np.pi / 2 and np.hypot(x, y) < 0.01


def test_twist_inverts_wheel_speeds() -> None:
    given = np.random.default_rng(0).normal(size=(50, 2))
    np.testing.assert_allclose(flybase.twist(flybase.wheel_speeds(given)), given, atol=1e-12)


def test_quadruped_stands_for_five_seconds() -> None:
    """Trunk within 5 mm of the told height (contacts give a little), level within 1 degree, creep under 10 mm."""
    simulation = opened(flyquad.mjcf(floor=True))
    start = np.array([[0, 0, flyquad.STAND_HEIGHT, 1, 0, 0, 0]])
    simulation.place("trunk", start)
    for name, q in zip(flyquad.SERVOS, flyquad.STAND, strict=True):
        simulation.place(name, np.array([[q]]))
    reads = {"body:trunk.position": "all", "body:trunk.quat": "last"}
    out = simulation.step(held(simulation, flyquad.stand(), 5.0), reads)  # type: ignore[arg-type]
    place = out["body:trunk.position"][0]
    assert np.abs(place[:, 2] - flyquad.STAND_HEIGHT).max() < 0.005
    assert np.abs(place[-1, :2]).max() < 0.01
    up = flyquad.sense(simulation.read(list(flyquad.READS)))["trunk.up"][0]
    assert up[2] > np.cos(np.deg2rad(1))


def test_quadruped_crouches_when_told() -> None:
    simulation = opened(flyquad.mjcf(floor=True))
    simulation.place("trunk", np.array([[0, 0, flyquad.STAND_HEIGHT, 1, 0, 0, 0]]))
    for name, q in zip(flyquad.SERVOS, flyquad.STAND, strict=True):
        simulation.place(name, np.array([[q]]))
    simulation.step(held(simulation, flyquad.stand(0.22), 2.0))
    assert abs(simulation.read(["body:trunk.position"])["body:trunk.position"][0, 2] - 0.22) < 0.01


def test_leg_kinematics_agree_with_the_model() -> None:
    rng = np.random.default_rng(1)
    model = mujoco.MjModel.from_xml_string(flyquad.mjcf())
    data = mujoco.MjData(model)
    angles = rng.uniform([-0.6, -0.5, -2.3] * 4, [0.6, 1.3, -0.6] * 4, (20, 12))
    for q in angles:
        data.qpos[:7], data.qpos[7:] = [0, 0, 0, 1, 0, 0, 0], q
        mujoco.mj_kinematics(model, data)
        feet = np.array([data.geom(f"{leg}_foot").xpos for leg in flyquad.LEGS])
        np.testing.assert_allclose(flyquad.foot_points(q.reshape(4, 3)), feet, atol=1e-9)
        np.testing.assert_allclose(flyquad.leg_angles(feet).ravel(), q, atol=1e-9)


def test_holding_torque_is_what_statics_says() -> None:
    """Inverse dynamics at rest, a quarter of the weight on each foot."""
    model = mujoco.MjModel.from_xml_string(flyquad.mjcf())
    data = mujoco.MjData(model)
    q = flyquad.STAND + np.random.default_rng(2).uniform(-0.2, 0.2, 12)
    data.qpos[:7], data.qpos[7:] = [0, 0, 0, 1, 0, 0, 0], q
    mujoco.mj_forward(model, data)
    torque = data.qfrc_bias.copy()
    weight = model.body_mass.sum() * 9.81
    for leg in flyquad.LEGS:
        jacobian = np.zeros((3, model.nv))
        mujoco.mj_jacGeom(model, data, jacobian, None, model.geom(f"{leg}_foot").id)
        torque -= jacobian[2] * weight / 4
    np.testing.assert_allclose(flyquad.holding_torque(q), torque[6:], atol=1e-3)
