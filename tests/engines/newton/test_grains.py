"""Grains: a pile keeps every grain, and stands no steeper than its friction lets it. FLYBALL_NEWTON=1 runs these."""

import os

import numpy as np
import pytest

pytestmark = pytest.mark.skipif(not os.environ.get("FLYBALL_NEWTON"), reason="compiles for long; FLYBALL_NEWTON=1")

from flyball.base import Unsupported  # noqa: E402
from flyball.engines.newton.engine import NewtonEngine  # noqa: E402
from flyball.scenes import Scene  # noqa: E402
from flyball.scenes.deformable import Granular  # noqa: E402

FLOOR = """<mujoco><option timestep="0.005"/><worldbody>
<geom name="floor" type="plane" size="2 2 1" friction="1"/></worldbody></mujoco>"""


def run(sim, seconds):
    sim.step(np.zeros((sim.n, round(seconds / sim.timestep), 0)))
    assert sim.status().all()


def pile(friction):
    """Radii and heights of grains that were a block, once they have come to rest."""
    grains = Granular("sand", position=(-0.08, -0.08, 0), size=(0.16, 0.16, 0.16), spacing=0.02, friction=friction)
    sim = NewtonEngine("mpm").open(Scene("pile", FLOOR, (), deformables=(grains,)), 1)
    mass = sim.worlds.model.particle_mass.numpy()
    assert mass.sum() == pytest.approx(grains.density * 0.16**3, rel=1e-5)
    run(sim, 1.0)
    seen = sim.read(["granular:sand.positions", "granular:sand.velocities"])
    points = seen["granular:sand.positions"][0]
    assert points.shape == grains.points().shape  # no grain is lost
    assert np.abs(seen["granular:sand.velocities"]).max() < 0.1
    assert points[:, 2].min() > 0
    return np.hypot(points[:, 0], points[:, 1]), points[:, 2]


def slope(radius, height):
    """Of the surface: the highest grain of each ring."""
    rings = np.linspace(0, np.quantile(radius, 0.97), 7)
    at = np.digitize(radius, rings)
    top = [height[at == k].max() for k in range(1, 7)]
    return -np.polyfit((rings[1:] + rings[:-1]) / 2, top, 1)[0]


def test_grains_make_a_pile_and_rough_ones_a_steeper_one():
    """No slope is steeper than internal friction; a block that collapses spreads further than one poured slowly."""
    (smooth_r, smooth_h), (rough_r, rough_h) = pile(0.3), pile(0.9)
    smooth, rough = slope(smooth_r, smooth_h), slope(rough_r, rough_h)
    assert 0.1 < smooth <= 0.3 and 0.2 < rough <= 0.9
    assert rough > 1.2 * smooth and rough_h.max() > smooth_h.max()


def test_grains_cannot_be_saved_and_say_so():
    sim = NewtonEngine("mpm").open(Scene("pile", FLOOR, (), deformables=(Granular("g"),)), 2)
    run(sim, 0.02)
    with pytest.raises(Unsupported, match="save"):
        sim.save()
