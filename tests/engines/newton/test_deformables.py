"""Cloth, soft bodies and grains against closed forms.

Kernels of grains and of the explicit soft body take long to compile: FLYBALL_NEWTON=1 runs those tests too.
"""

import os

import numpy as np
import pytest

from flyball.base import InputError, Unsupported
from flyball.engines.newton.engine import NewtonEngine
from flyball.scenes import Scene
from flyball.scenes.deformable import Cloth, Granular, Soft

pytestmark = pytest.mark.usefixtures("quickly_compiled")
everything = pytest.mark.skipif(not os.environ.get("FLYBALL_NEWTON"), reason="compiles for long; FLYBALL_NEWTON=1")
G = 9.81
UPRIGHT = (np.sqrt(0.5), np.sqrt(0.5), 0.0, 0.0)


def scene(*deformables, step, floor=False):
    plane = '<geom name="floor" type="plane" size="2 2 1" friction="1"/>' if floor else ""
    model = f'<mujoco><option timestep="{step}"/><worldbody>{plane}</worldbody></mujoco>'
    return Scene("deformable", model, (), deformables=deformables)


def run(sim, seconds):
    sim.step(np.zeros((sim.n, round(seconds / sim.timestep), 0)))
    assert sim.status().all()


@pytest.fixture(scope="module")
def hanging():
    cloth = Cloth("flag", position=(0, 0, 1), quat=UPRIGHT, size=(0.1, 0.3), cells=(2, 6), pinned="top", density=0.3,
                  stiffness=200.0)  # fmt: skip
    sim = NewtonEngine("vbd").open(scene(cloth, step=0.005), 1)
    start = sim.read(["cloth:flag.positions"])["cloth:flag.positions"]
    run(sim, 0.3)
    return cloth, sim, start, sim.read(["cloth:flag.positions"])["cloth:flag.positions"]


def test_a_hanging_cloth_stretches_by_its_own_weight_and_no_more(hanging):
    cloth, _, start, points = hanging
    assert points.shape == (1, 21, 3)
    fixed = cloth.fixed()
    np.testing.assert_allclose(points[0, fixed], start[0, fixed], atol=1e-6)  # single precision
    rows = points[0].reshape(7, 3, 3)
    strain = np.linalg.norm(np.diff(rows, axis=0), axis=-1).mean(axis=1) / 0.05 - 1
    # a cell bears what hangs below its middle; 10 %: cells of a sixth, the law is of a strip that may narrow
    below = np.arange(6) * 0.05 + 0.025
    np.testing.assert_allclose(strain, cloth.density * G * below / cloth.stiffness, rtol=0.1, atol=2e-4)
    across = np.linalg.norm(np.diff(rows, axis=1), axis=-1) / 0.05 - 1
    assert np.abs(across).max() < strain.max()
    assert np.abs(rows[..., 1]).max() < 0.01  # it hangs in its plane


@everything
def test_the_same_cloth_moves_in_the_same_bits(hanging):
    cloth = hanging[0]
    seen = []
    for _ in range(2):
        sim = NewtonEngine("vbd").open(scene(cloth, step=0.005), 1)
        run(sim, 0.05)
        seen.append(sim.read(["cloth:flag.positions"])["cloth:flag.positions"])
    np.testing.assert_array_equal(*seen)


def test_a_cloth_is_reset_and_restored(hanging):
    _, sim, start, points = hanging
    kept = sim.save()
    sim.reset()
    np.testing.assert_array_equal(sim.read(["cloth:flag.positions"])["cloth:flag.positions"], start)
    sim.restore(kept)
    np.testing.assert_array_equal(sim.read(["cloth:flag.positions"])["cloth:flag.positions"], points)


def compressed(name, step, seconds, damping=10.0):
    block = Soft("block", size=(0.1, 0.1, 0.2), cells=(1, 1, 2), young=2e4, poisson=0.25, density=1000.0,
                 pinned="bottom", damping=damping)  # fmt: skip
    sim = NewtonEngine(name).open(scene(block, step=step), 1)
    run(sim, seconds)
    seen = sim.read(["soft:block.positions", "soft:block.velocities"])
    return 0.2 - seen["soft:block.positions"][0, -4:, 2].mean(), np.abs(seen["soft:block.velocities"]).max()


def test_a_soft_block_sinks_as_far_as_its_weight_says():
    """rho g h^2 / 2 E for a free column. A glued foot and two layers make it stiffer: 30 %, not another size."""
    sunk, speed = compressed("vbd", 0.01, 0.7)
    assert sunk == pytest.approx(1000 * G * 0.2**2 / (2 * 2e4), rel=0.3)
    assert speed < 0.01


def test_solvers_take_only_what_they_have():
    with pytest.raises(Unsupported, match="cloth .cloth 'c'"):
        NewtonEngine("xpbd").open(scene(Cloth("c"), step=0.01), 1)
    with pytest.raises(Unsupported, match="granular"):
        NewtonEngine("vbd").open(scene(Granular("g"), step=0.01), 1)
    with pytest.raises(InputError, match="two are named 'c'"):
        NewtonEngine("vbd").open(scene(Cloth("c"), Cloth("c"), step=0.01), 1)
    sim = NewtonEngine("vbd").open(scene(Cloth("c"), step=0.01), 1)
    with pytest.raises(InputError, match="no cloth named 'flag'"):
        sim.read(["cloth:flag.positions"])


@everything
def test_the_explicit_solver_sinks_as_far():
    sunk, _ = compressed("semi-implicit", 0.0005, 3.0, damping=200.0)
    assert sunk == pytest.approx(1000 * G * 0.2**2 / (2 * 2e4), rel=0.5)


def pile(friction):
    """Radii and heights of grains that were a block, once they have come to rest."""
    grains = Granular("sand", position=(-0.08, -0.08, 0), size=(0.16, 0.16, 0.16), spacing=0.02, friction=friction)
    sim = NewtonEngine("mpm").open(scene(grains, step=0.005, floor=True), 1)
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


@everything
def test_grains_make_a_pile_and_rough_ones_a_steeper_one():
    """No slope is steeper than internal friction; a block that collapses spreads further than one poured slowly."""
    (smooth_r, smooth_h), (rough_r, rough_h) = pile(0.3), pile(0.9)
    smooth, rough = slope(smooth_r, smooth_h), slope(rough_r, rough_h)
    assert 0.1 < smooth <= 0.3 and 0.2 < rough <= 0.9
    assert rough > 1.2 * smooth and rough_h.max() > smooth_h.max()


@everything
def test_grains_cannot_be_saved_and_say_so():
    sim = NewtonEngine("mpm").open(scene(Granular("g"), step=0.005, floor=True), 2)
    run(sim, 0.02)
    with pytest.raises(Unsupported, match="save"):
        sim.save()
