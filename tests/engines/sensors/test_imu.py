"""The IMU by definition, against motions in closed form and against MuJoCo's own sensors."""

from __future__ import annotations

import numpy as np
import pytest

from flyball.base import InputError
from flyball.engines.mujoco import MujocoEngine
from flyball.engines.sensors import imu
from flyball.scenes import Scene

G = 9.81


def still(n: int) -> tuple[np.ndarray, np.ndarray]:
    return np.tile([1.0, 0, 0, 0], (n, 1)), np.zeros((n, 6))


def test_at_rest_it_feels_what_holds_it_up() -> None:
    read = imu(*still(5), 0.01)
    assert np.allclose(read["specific_force"], (0, 0, G)) and np.allclose(read["angular_rate"], 0)


def test_in_free_fall_it_feels_nothing() -> None:
    quat, velocity = still(5)
    velocity[:, 2] = -G * 0.01 * np.arange(5)
    assert np.allclose(imu(quat, velocity, 0.01)["specific_force"], 0)


def test_mounted_on_its_side_and_tilted() -> None:
    """Body turned 90 degrees about x: world up is its -z x x ... = +y; the sensor on it turned 90 degrees about z."""
    h = np.sqrt(0.5)
    quat, velocity = np.tile([h, h, 0, 0], (3, 1)), np.zeros((3, 6))
    assert np.allclose(imu(quat, velocity, 0.01)["specific_force"], (0, G, 0))
    assert np.allclose(imu(quat, velocity, 0.01, mount=(h, 0, 0, h))["specific_force"], (G, 0, 0))


@pytest.mark.parametrize("sign", [1, -1])
def test_on_a_turntable_it_feels_the_centre(sign: int) -> None:
    """Mounted at radius r on a table that turns at w: -w^2 r outward, w about the axis; q and -q are the same."""
    w, r, dt = 3.0, 0.4, 1e-3
    t = dt * np.arange(2001)
    quat = np.stack([np.cos(w * t / 2), 0 * t, 0 * t, np.sin(w * t / 2)], axis=1)
    quat[::2] *= sign
    velocity = np.tile([0, 0, 0, 0, 0, w], (len(t), 1))
    read = imu(quat, velocity, dt, position=(r, 0, 0))
    # the mean over an interval falls short by (w dt)^2 / 24 of it
    assert np.abs(read["specific_force"] - (-w * w * r, 0, G)).max() < 1e-5
    assert np.abs(read["angular_rate"] - (0, 0, w)).max() < 1e-9


PENDULUM = """<mujoco><option timestep="{dt}" integrator="RK4"/><worldbody><body name="rod">
 <joint name="rod" axis="0 1 .3"/><geom type="capsule" size=".02" fromto="0 0 0 .1 0 -.5"/>
 <site name="s" pos=".05 .02 -.4" quat=".9 .1 .3 .2"/></body></worldbody>
 <sensor><accelerometer name="a" site="s"/><gyro name="g" site="s"/></sensor></mujoco>"""


def error(dt: float) -> float:
    """Largest difference to the mean of MuJoCo's readings at both ends of an interval, over 0.4 s of a swing."""
    simulation = MujocoEngine().open(Scene("p", PENDULUM.format(dt=dt), ()), 1)
    simulation.place("rod", np.array([[1.2]]))
    fields = ("body:rod.quat", "body:rod.velocity", "sensor:a", "sensor:g")
    rows = [simulation.read(fields)]
    for _ in range(round(0.4 / dt)):
        simulation.step(np.zeros((1, 1, 0)))
        rows.append(simulation.read(fields))
    quat, velocity, a, g = (np.stack([r[f][0] for r in rows]) for f in fields)
    mount = np.array([0.9, 0.1, 0.3, 0.2])
    read = imu(quat, velocity, dt, position=(0.05, 0.02, -0.4), mount=mount)
    return float(
        max(
            np.abs(read["specific_force"] - (a[1:] + a[:-1]) / 2).max(),
            np.abs(read["angular_rate"] - (g[1:] + g[:-1]) / 2).max(),
        )
    )


def test_it_agrees_with_mujocos_sensors_to_second_order() -> None:
    coarse, fine = error(4e-3), error(2e-3)
    assert coarse < 0.01  # of some 15 m/s^2
    assert 3 < coarse / fine < 5  # a second-order error falls by 4


def test_bad_shapes_are_refused() -> None:
    quat, velocity = still(3)
    for q, v, dt in ((quat[:1], velocity[:1], 0.1), (quat, velocity[:2], 0.1), (quat, velocity, 0.0)):
        with pytest.raises(InputError):
            imu(q, v, dt)
