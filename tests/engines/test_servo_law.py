import numpy as np
import pytest

from flyball.calibration.rigs.servo import MODEL
from flyball.engines.servo import ServoEngine
from flyball.scenes import Scene

SCENE = Scene("servo", MODEL, ())


def first_step(fields, command, *, speed=0.0, back=0.0):
    """Velocity after one step of a hanging pendulum, per world, and its step over inertia."""
    n = len(next(iter(fields.values())))
    sim = ServoEngine().open(SCENE, n)
    zero = {f"joint:servo.{f}": np.zeros(n) for f in ("damping", "frictionloss")}
    sim.set(zero | fields)
    sim.push("servo", np.full((n, 1), speed))
    controls = np.tile(np.array([command, -1.0, back]), (n, 1, 1))
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
        "actuator:feedback.position_gain": np.array([1.0, 2.0]),
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


def test_a_warm_winding_pulls_less_and_brakes_less():
    cold_warm = {"joint:servo.heating": np.array([0.0, 0.25])}
    v, gain = first_step(cold_warm, 0.5)
    np.testing.assert_allclose(v / gain, [0.5, 0.4], rtol=1e-6)
    # Implicit in velocity: v1 = v0 / (1 + gain * back_emf) without other torque.
    v, gain = first_step(
        cold_warm | {"actuator:back_emf.velocity_gain": np.array([-0.1, -0.1])}, 0.0, speed=1.0, back=1.0
    )
    np.testing.assert_allclose(v, [1 / (1 + gain * 0.1), 1 / (1 + gain * 0.08)], rtol=1e-6)


def test_what_is_in_series_with_the_supply_counts_with_the_square_of_the_duty():
    source = {"joint:servo.source_resistance": np.array([0.0, 0.5, 0.5])}
    half, gain = first_step(source, 0.5)  # of the limit of 1 N m
    np.testing.assert_allclose(half / gain, [0.5, 0.5 / 1.125, 0.5 / 1.125], rtol=1e-6)
    full, _ = first_step(source, 7.0)
    np.testing.assert_allclose(full / gain, [1.0, 1 / 1.5, 1 / 1.5], rtol=1e-6)


def test_gears_are_loaded_by_what_back_emf_leaves_of_the_torque():
    fields = {
        "joint:servo.drive_friction": np.array([0.4, 0.4]),
        "actuator:back_emf.velocity_gain": np.array([0.0, -0.25]),
    }
    v, gain = first_step(fields, 0.5, speed=2.0, back=1.0)
    # Without back-EMF friction takes 0.4 of 0.5; with it the motor pulls nothing at 2 rad/s, and the gears run free.
    np.testing.assert_allclose(v, [2 + gain * 0.3, (2 + gain * 0.5) / (1 + gain * 0.25)], rtol=1e-6)
