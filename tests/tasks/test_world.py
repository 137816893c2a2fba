"""The simulated cell: command delay, backlash, sensors, the inspection station, replay."""

import numpy as np
import pytest

from flyball.base import InputError
from flyball.tasks import tasks
from flyball.tasks.world import Unmodelled, World

LIFT = tasks.load("lift-fragile-v1")
SLIDE = tasks.load("slide-puck-v1")


class Tap:
    """An engine's simulation that writes down its controls, and whose reads can be overridden."""

    def __init__(self, simulation, override=None):
        self.simulation, self.override, self.controls = simulation, override, []

    def __getattr__(self, name):
        return getattr(self.simulation, name)

    def step(self, controls, reads=None):
        self.controls.append(controls.copy())
        out = self.simulation.step(controls, reads)
        return out if self.override is None else self.override(out)

    def rollout(self, controls, every, reads):
        self.controls.append(controls.copy())
        return self.simulation.rollout(controls, every, reads)


def tapped(task, n, override=None, **more):
    world = World(task, n, **more)
    world.simulation = Tap(world.simulation, override)
    return world


def quiet(task):
    """The task with perfect sensors."""
    return type("Quiet", (type(task),), {"noise": {}})()


def without_noise(task, n, **values):
    return task.scene.nominal(n) | {"tracker.noise_m": np.zeros(n)} | {k: np.asarray(v) for k, v in values.items()}


@pytest.mark.parametrize("timestep", [0.002, 0.001])
def test_commands_arrive_after_the_delay_to_a_fraction_of_a_substep(timestep):
    delays = np.array([0.0, 0.0073, 0.02, 0.0415, 0.08])
    world = tapped(LIFT, 5, unmodelled=Unmodelled(timestep=timestep))
    world.reset(LIFT.scene.nominal(5) | {"arm.delay_s": delays, "arm.backlash_rad": np.zeros(5)}, range(5))
    rest = LIFT.rest_action(world.values)
    jump = rest.copy()
    jump[:, 0] += 0.1
    for _ in range(3):
        world.step(rest)
    for _ in range(4):
        world.step(jump)
    share = (np.concatenate(world.simulation.controls, axis=1)[:, :, 0] - rest[:, :1]) / 0.1
    assert (np.diff(share, axis=1) >= -1e-12).all() and (share[:, -1] > 0.999).all()
    arrived = (1 - share).sum(axis=1) * timestep
    np.testing.assert_allclose(arrived, 3 * world.dt + delays, atol=1e-9)


def test_delayed_commands_are_the_same_stepped_and_replayed():
    rng = np.random.default_rng(0)
    values = LIFT.scene.nominal(3) | {"arm.delay_s": np.array([0.0, 0.033, 0.08])}
    world = tapped(LIFT, 3)
    world.reset(values, range(3))
    actions = LIFT.rest_action(world.values)[:, None] + 0.02 * rng.standard_normal((3, 12, 6))
    for k in range(12):
        world.step(actions[:, k])
    stepped = np.concatenate(world.simulation.controls, axis=1)
    world.simulation.controls.clear()
    world.replay(values, actions, world.starts)
    np.testing.assert_array_equal(world.simulation.controls[0], stepped)


def test_backlash_swallows_reversals():
    play = 0.02
    world = tapped(SLIDE, 1, unmodelled=Unmodelled(backlash_rad=play))
    world.reset(without_noise(SLIDE, 1, **{"arm.delay_s": np.zeros(1)}), [0])
    rest = SLIDE.rest_action(world.values)
    for offset in (0.1, 0.2, 0.19, 0.18, 0.15):
        action = rest.copy()
        action[:, 0] += offset
        world.step(action)
    arrived = np.array([c[0, -1, 0] for c in world.simulation.controls]) - rest[0, 0]
    np.testing.assert_allclose(arrived, [0.09, 0.19, 0.19, 0.19, 0.16], atol=1e-12)


@pytest.mark.parametrize("timestep", [0.002, 0.001])
def test_the_station_reports_the_first_crossing_of_the_filtered_force(timestep):
    """A pad force that jumps to 20 N passes a limit L after -tau ln(1 - L/20): a 10 ms low-pass."""
    at, limits = 2 * 0.04 + 0.012, np.array([5.0, 10.0, 19.0, 25.0])
    every = round(0.04 / timestep)
    calls = iter(range(100))

    def force(out):
        t = (next(calls) * every + np.arange(every) + 1) * timestep
        for pad in ("sensor:pad_left", "sensor:pad_right"):
            jump = 20.0 * (t > at + 1e-9) if pad == "sensor:pad_right" else 0.0 * t
            out[pad] = np.broadcast_to(jump[None, :, None], out[pad].shape).copy()
        return out

    world = tapped(LIFT, 4, force, unmodelled=Unmodelled(timestep=timestep))
    world.reset(LIFT.scene.nominal(4) | {"object.crush_force": limits}, range(4))
    rest = LIFT.rest_action(world.values)
    for _ in range(8):
        world.step(rest)
    assert [[name for _, name in e] for e in world.events] == [["crushed"]] * 3 + [[]]
    measured = np.array([e[0][0] for e in world.events[:3]])
    np.testing.assert_allclose(measured, at - 0.01 * np.log(1 - limits[:3] / 20), atol=2.5 * timestep)


def test_sensors_are_biased_and_noisy_as_the_parameters_say():
    n = 4
    noise, bias = np.array([0.0, 0.001, 0.002, 0.004]), np.array([0.0, 0.003, -0.004, 0.006])
    values = LIFT.scene.nominal(n) | {"tracker.noise_m": noise, "tracker.bias_m.y": bias}
    world = World(LIFT, n)
    first = world.reset(values, [5, 6, 7, 8])
    rest = LIFT.rest_action(world.values)
    seen = np.array([first["object.pose"], *(world.step(rest)["object.pose"] for _ in range(world.steps))])
    true = world.starts["box"][:, :3]
    error = seen[..., :3] - true  # nothing touches the box
    tolerance = 4 * noise / np.sqrt(len(seen)) + 2e-5
    assert (np.abs(error.mean(axis=0)[:, 1] - bias) < tolerance).all()
    assert (np.abs(error.mean(axis=0)[:, 0]) < tolerance).all()
    np.testing.assert_allclose(error.std(axis=0)[:, :2], np.column_stack([noise, noise]), rtol=0.25, atol=2e-5)


def test_noise_depends_on_the_seed_alone():
    world = World(SLIDE, 3)
    seen = world.reset(SLIDE.scene.nominal(3), [4, 9, 4])["joint.position"]
    assert (seen[0] == seen[2]).all() and (seen[0] != seen[1]).all()


@pytest.mark.parametrize("name", ["lift-fragile-v1", "slide-puck-v1"])
def test_replaying_its_own_actions_reproduces_an_attempt(name):
    task, n = quiet(tasks.load(name)), 6
    drawn = task.draw_reality(np.random.default_rng(1), n)
    if "object.crush_force" in drawn:
        drawn["object.crush_force"][:2] *= 0.4  # some break
    values = without_noise(task, n, **{k: v for k, v in drawn.items() if k != "tracker.noise_m"})
    world = World(task, n)
    done = world.run(task.expert(task.told(task.scene.nominal(n) | drawn)), values, range(n))
    actions = np.concatenate([done.signals[s.name] for s in task.embodiment.actions], axis=2)
    again = world.replay(values, actions, world.starts)
    for signal, x in done.signals.items():
        np.testing.assert_array_equal(again.signals[signal], x, err_msg=signal)
    assert again.events == done.events
    if "object.crush_force" in drawn:
        assert any(done.events)


def test_parameters_of_an_earlier_attempt_leave_no_trace():
    """Scaled parameters are applied to the model's own value, not to what the last reset left."""
    world = World(SLIDE, 2)
    heavy = SLIDE.scene.nominal(2) | {"arm.gain_scale": np.array([0.5, 1.4]), "object.mass": np.array([0.8, 0.1])}
    controller = SLIDE.expert(SLIDE.told(SLIDE.scene.nominal(2)))
    fresh = world.run(controller, SLIDE.scene.nominal(2), [1, 2])
    world.run(controller, heavy, [1, 2])
    again = world.run(controller, SLIDE.scene.nominal(2), [1, 2])
    assert all((fresh.signals[k] == again.signals[k]).all() for k in fresh.signals)


def test_a_time_step_that_does_not_divide_the_control_period_is_refused():
    with pytest.raises(InputError, match=r"0\.003.*0\.04"):
        World(LIFT, 1, unmodelled=Unmodelled(timestep=0.003))
