import numpy as np
import pytest

from flyball.calibration.rigs.servo import MODEL
from flyball.engines.servo import ServoEngine
from flyball.scenes import Scene

SCENE = Scene("servo", MODEL, ())


def first_step(fields, command, *, speed=0.0):
    """Velocity after one step of a hanging pendulum, per world, and its step over inertia."""
    n = len(next(iter(fields.values())))
    sim = ServoEngine().open(SCENE, n)
    zero = {f"joint:servo.{f}": np.zeros(n) for f in ("damping", "frictionloss")}
    sim.set(zero | fields)
    sim.push("servo", np.full((n, 1), speed))
    controls = np.tile(np.array([command, 1.0, 0.0]), (n, 1, 1))
    sim.step(controls)
    inertia = 0.49 * 0.01 + 1e-6 + 1e-4
    return sim.read(["joint:servo.velocity"])["joint:servo.velocity"][:, 0], sim.timestep / inertia


def test_a_drive_goes_as_a_power_of_the_error():
    exponent = {"tendon:drive.error_exponent": np.array([1.0, 0.5, 2.0])}
    v, gain = first_step(exponent, 0.4)  # stiffness 1 N m/rad: linear up to the limit of 1 N m
    np.testing.assert_allclose(v / gain, [0.4, 0.2, 1.0], rtol=1e-6)
    same, _ = first_step(exponent, 0.1)
    np.testing.assert_allclose(same / gain, 0.1, rtol=1e-6)
    saturated, _ = first_step(exponent, -300.0)
    np.testing.assert_allclose(saturated / gain, -1.0, rtol=1e-6)


def test_a_stiffer_servo_pulls_more_by_its_stiffness_alone():
    fields = {
        "tendon:drive.error_exponent": np.array([0.5, 0.5]),
        "actuator:command.gain": np.array([1.0, 2.0]),
        "actuator:feedback.position_gain": np.array([-1.0, -2.0]),
    }
    v, _ = first_step(fields, 0.2)
    assert v[1] == pytest.approx(2 * v[0], rel=1e-6)


def test_a_small_exponent_does_not_make_an_infinite_gain():
    v, gain = first_step({"tendon:drive.error_exponent": np.array([0.5])}, 1e-8)
    assert 0 < v[0] / gain <= 1e-7 + 1e-12


def test_friction_falls_once_it_slides():
    fields = {"joint:servo.stribeck": np.array([0.0, 1.0]), "joint:servo.frictionloss": np.array([0.1, 0.1])}
    still, gain = first_step(fields, 0.15)
    np.testing.assert_allclose(still / gain, [0.05, 0.0], atol=1e-9)
    fast, _ = first_step(fields, 0.15, speed=5.0)
    assert fast[0] == pytest.approx(fast[1], rel=1e-6)
