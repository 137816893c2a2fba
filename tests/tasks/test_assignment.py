"""A scene's variations hold in a task's world: engine, observation, pictures; what cannot hold is refused by name."""

from dataclasses import replace

import numpy as np
import pytest

from flyball.base import FlyballError, Unsupported
from flyball.scenes import Bind, Camera, Choice, Constant, Parameter, Ramp, Uniform, Vary
from flyball.tasks import tasks
from flyball.tasks.gymnasium import TaskEnv, TaskVectorEnv
from flyball.tasks.task import varied
from flyball.tasks.world import World

LIFT = tasks.load("lift-fragile-v1")
ABOVE = Camera.looking("above", 16, 12, 50, at=(0.42, 0, 0), from_=(0.42, 0, 1.0), up=(1, 0, 0))


def steps(world, count, seeds=(1, 2)):
    """Observations while the joints are sent to and fro, signal -> (n, count, size)."""
    seen = [world.reset({}, seeds)]
    for k in range(count - 1):
        action = LIFT.rest_action(world.values)
        action[:, :3] += 0.05 * np.sin(k)
        seen.append(world.step(action))
    return {name: np.stack([o[name] for o in seen], axis=1) for name in seen[0]}


def world(*variations, n=2, **rest):
    return World(varied(LIFT, variations), n, **rest)


def test_fields_of_the_engine_follow_parameters_and_how():
    w = world(
        Uniform("object.friction", 0.3, 0.9),
        Vary("geom:box.friction[0]", Choice((2.0, 3.0)), "scale"),
        Vary("geom:box.friction[1]", Choice((0.25,)), "add"),
        Constant("body:box.mass", 0.2),
        n=8,
    )
    w.reset({}, range(8))
    got, v = w.simulation.get("geom:box.friction"), w.values
    np.testing.assert_array_equal(got[:, 0], v["object.friction"] * v["geom:box.friction[0]"])
    np.testing.assert_allclose(got[:, 1], 0.255)
    np.testing.assert_allclose(got[:, 2], 1e-4)
    assert len(set(v["object.friction"])) == 8 and set(v["geom:box.friction[0]"]) == {2.0, 3.0}
    np.testing.assert_array_equal(w.simulation.get("body:box.mass")[:, 0], 0.2)
    w.reset({"geom:box.friction[0]": np.ones(8)}, range(8))
    np.testing.assert_array_equal(w.simulation.get("geom:box.friction")[:, 0], w.values["object.friction"])


def test_worlds_come_from_their_seeds_in_any_batch():
    own = (Uniform("object.mass", 0.2, 0.6), Uniform("sensor:object.pose.walk", 0.001, 0.01))
    both, one = world(*own), world(*own, n=1)
    together, alone = steps(both, 6), steps(one, 6, seeds=[2])
    assert both.values["object.mass"][1] == one.values["object.mass"][0] != both.values["object.mass"][0]
    assert all(np.array_equal(together[name][1], alone[name][0]) for name in alone)


def test_a_curriculum_widens():
    w = world(Vary("object.mass", Ramp(0.35, 0.7)))
    for progress, mass in ((0.0, 0.35), (1.0, 0.7)):
        w.reset({}, [1, 2], progress=progress)
        np.testing.assert_array_equal(w.values["object.mass"], mass)


def test_a_signal_arrives_late():
    plain, late = steps(world(), 9), steps(world(Constant("sensor:joint.position.delay", 0.08)), 9)
    np.testing.assert_array_equal(late["joint.position"][:, 2:], plain["joint.position"][:, :-2])
    np.testing.assert_array_equal(late["joint.position"][:, :2], plain["joint.position"][:, :1].repeat(2, axis=1))
    np.testing.assert_array_equal(late["object.pose"], plain["object.pose"])


def test_noise_and_bias_that_are_named_replace_the_tasks_own():
    own = LIFT.noise["joint.position"]
    assert min(own) > 0
    seen = steps(world(Constant("sensor:joint.position.noise", 0.0)), 4)["joint.position"]
    assert not np.array_equal(seen, steps(world(), 4)["joint.position"])
    again = steps(world(Constant("sensor:joint.position.noise", 0.0)), 4, seeds=(3, 4))["joint.position"]
    np.testing.assert_array_equal(seen, again)  # nothing random is left, and the arm starts alike
    noisy = np.stack([steps(world(Constant("sensor:joint.position.noise[0]", 0.02), n=40), 2, range(40))
                      ["joint.position"][:, 0, i] for i in (0, 1)])  # fmt: skip
    assert 0.012 < noisy[0].std() < 0.03 and noisy[1].std() < 5 * own[1]
    first = {"tracker.noise_m": np.zeros(1), "tracker.bias_m.x": np.full(1, 0.005)}
    w = World(varied(LIFT, [Constant("sensor:object.pose.bias[0]", -0.003)]), 1)
    seen = w.reset(first, [1])["object.pose"]
    np.testing.assert_allclose(seen[0, 0] - w.starts["box"][0, 0], -0.003, atol=1e-9)


def test_samples_are_lost_and_rounded():
    lost = steps(world(Constant("sensor:joint.position.dropout", 1.0)), 6)["joint.position"]
    assert (lost == lost[:, :1]).all() and np.ptp(steps(world(), 6)["joint.position"], axis=1).max() > 0.01
    rounded = steps(world(Constant("sensor:joint.position.quantum", 0.01)), 6)["joint.position"]
    np.testing.assert_allclose(rounded, np.rint(rounded / 0.01) * 0.01, atol=1e-12)


def test_a_clean_replay_is_late_but_not_noisy():
    delayed = (Constant("sensor:joint.position.delay", 0.08), Constant("sensor:joint.position.noise", 0.01))
    clean, late = (World(varied(LIFT, v), 1) for v in ((), delayed))
    clean.reset({}, [1])
    rest = LIFT.rest_action(clean.values)
    actions = np.repeat(rest[:, None], 8, axis=1) + 0.05 * np.sin(np.arange(8))[:, None]
    a, b = (w.replay({}, actions, clean.starts).signals["joint.position"] for w in (clean, late))
    np.testing.assert_array_equal(b[:, 2:], a[:, :-2])


def test_a_parameter_may_be_bound_to_any_effect_on_a_signal():
    late = Parameter("encoder.delay_s", "s", 0.08, 0, 0.2, binds=(Bind("sensor:joint.position.delay"),))
    task = varied(LIFT, ())
    task.scene = replace(LIFT.scene, parameters=(*LIFT.scene.parameters, late))
    seen, plain = steps(World(task, 2), 6), steps(world(), 6)
    np.testing.assert_array_equal(seen["joint.position"][:, 2:], plain["joint.position"][:, :-2])


def test_camera_poses_vary_in_pictures():
    task = varied(LIFT, [Vary("camera:above.position[2]", Choice((0.0, 0.25)), "add")])
    task.scene = replace(task.scene, cameras=(ABOVE,))
    w = World(task, 6, backend="rays")
    w.reset({}, range(6))
    depth = w.see("above", ("depth",))["depth"]
    offset = w.values["camera:above.position[2]"]
    assert set(offset) == {0.0, 0.25}
    np.testing.assert_allclose(depth[:, 0, 0] - depth[offset == 0][0, 0, 0], offset, atol=1e-5)


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("geom:box.roughness[0]", "geom:box.roughness"),
        ("site:nowhere.position[0]", "site:nowhere.position"),
        ("equality:coupled.stiffness", "equality:coupled.stiffness"),
        ("geom:bix.friction[0]", "geom:bix.friction.*box"),
        ("light:sun.diffuse[0]", "light:sun.diffuse.*'sun'"),
        ("light:sun.colour[0]", "light:sun.colour"),
        ("camera:wrist.position[0]", "camera:wrist.position.*'wrist'"),
        ("camera:above.fovy", "camera:above.fovy"),
        ("sensor:object.pse.delay", "sensor:object.pse.delay.*object.pose"),
        ("body:box.inertia[0]", "body:box.inertia"),
    ],
)
def test_what_nobody_can_set_is_refused_by_its_path(path, says):
    with pytest.raises(FlyballError, match=says):
        task = varied(LIFT, [Constant(path, 1.0)])
        task.scene = replace(task.scene, cameras=(ABOVE,))
        World(task, 2).reset({}, [1, 2])


def test_a_binding_that_means_nothing_is_refused():
    task = varied(LIFT, ())
    bad = Parameter("arm.dealy_s", "s", 0.0, 0, 1, binds=(Bind("command.dealy"),))
    task.scene = replace(LIFT.scene, parameters=(*LIFT.scene.parameters, bad))
    with pytest.raises(Unsupported, match=r"arm\.dealy_s is bound to 'command\.dealy'"):
        World(task, 1).reset({}, [0])


def test_environments_vary_fields_and_sensors_too():
    vary = [Vary("body:box.mass", Uniform(0.5, 2.0), "scale"), Constant("sensor:joint.position.quantum", 0.5)]
    many, one = TaskVectorEnv(LIFT, 2, vary=vary, threads=1), TaskEnv(LIFT, vary=vary)
    together, alone = many.reset(seed=3)[0], one.reset(seed=4)[0]
    assert all(np.array_equal(together[name][1], alone[name]) for name in alone)
    assert not np.any(np.mod(alone["joint.position"], 0.5))
    mass = many._episodes.world.simulation.get("body:box.mass")[:, 0]
    assert (mass != 0.35).all() and mass[0] != mass[1]
