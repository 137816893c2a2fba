"""Force and torque at a mount: weights at rest, a load on top, a turning arm."""

from __future__ import annotations

import numpy as np
import pytest

from flyball.base import InputError, Missing
from flyball.engines.mujoco import MujocoEngine
from flyball.engines.sensors import Mount, declare_mounts, read_wrench
from flyball.scenes import Scene

G = 9.81
HAND = """<mujoco><option timestep=".002"/><worldbody><body name="wrist" pos="0 0 1">
 <geom type="box" size=".05 .05 .01" mass="2"/>
 <body name="hand"><geom type="box" size=".1 .1 .02" pos=".1 0 0" mass=".5"/></body></body>
 <body name="load" pos=".1 0 1.04"><freejoint name="load"/><geom type="box" size=".02 .02 .02" mass=".3"/></body>
</worldbody></mujoco>"""
ARM = """<mujoco><option timestep=".0005" gravity="0 0 0"/><worldbody><body name="hub">
 <joint name="hub" axis="0 0 1"/><geom size=".05" mass="1"/>
 <body name="tip" pos=".4 0 0"><geom size=".02" mass=".25"/></body></body></worldbody></mujoco>"""


def opened(model: str, mount: Mount, n: int = 1):
    return MujocoEngine().open(Scene("m", declare_mounts(model, [mount]), ()), n)


def test_what_rests_on_it_weighs_on_it() -> None:
    """A hand whose centre is 0.1 m along x, and after the load has settled on it, both."""
    mount = Mount("ft", "hand")
    simulation = opened(HAND, mount)
    simulation.place("load", np.array([[3.0, 0, 5, 1, 0, 0, 0]]))
    assert np.allclose(read_wrench(simulation, mount)[0], (0, 0, -0.5 * G, 0, 0.05 * G, 0), atol=1e-9)
    simulation.reset()
    simulation.step(np.zeros((1, 1000, 0)))
    loaded = read_wrench(simulation, mount)[0]
    # 2 s after the touch, the soft contact rests to 1e-3
    assert np.allclose(loaded, (0, 0, -0.8 * G, 0, 0.08 * G, 0), atol=1e-3 * 0.8 * G)


def test_a_turned_and_shifted_frame() -> None:
    """S at (0.1, 0, 0) above the hand's centre, z of S along the hand's x: weight along S's -x, no torque."""
    mount = Mount("ft", "hand", position=(0.1, 0, 0), quat=(np.sqrt(0.5), 0, np.sqrt(0.5), 0))
    simulation = opened(HAND, mount)
    simulation.place("load", np.array([[3.0, 0, 5, 1, 0, 0, 0]]))
    wrench = read_wrench(simulation, mount)[0]
    assert np.allclose(wrench, (0.5 * G, 0, 0, 0, 0, 0), atol=1e-9)


def test_a_turning_arm_pulls_outward() -> None:
    """m w^2 r on the hub, per world."""
    mount = Mount("ft", "tip")
    simulation = opened(ARM, mount, 2)
    simulation.push("hub", np.array([[4.0], [8.0]]))
    assert np.allclose(read_wrench(simulation, mount)[:, 0], 0.25 * 0.4 * np.array([16, 64]), rtol=1e-6)


def test_names_are_checked() -> None:
    with pytest.raises(Missing, match="hand"):
        declare_mounts(HAND, [Mount("ft", "hnd")])
    with pytest.raises(InputError):
        declare_mounts(HAND, [Mount("ft", "hand"), Mount("ft", "wrist")])
