"""Cloth and soft bodies against closed forms; those whose kernels compile for long only with FLYBALL_NEWTON=1."""

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


def scene(*deformables, step):
    model = f'<mujoco><option timestep="{step}"/></mujoco>'
    return Scene("deformable", model, (), deformables=deformables)


def run(sim, seconds):
    sim.step(np.zeros((sim.n, round(seconds / sim.timestep), 0)))
    assert sim.status().all()


@pytest.fixture(scope="module")
def hanging():
    cloth = Cloth("flag", position=(0, 0, 1), quat=UPRIGHT, size=(0.05, 0.3), cells=(1, 6), pinned="top", density=0.3,
                  stiffness=200.0)  # fmt: skip
    sim = NewtonEngine("vbd").open(scene(cloth, step=0.002), 1)
    start = sim.read(["cloth:flag.positions"])["cloth:flag.positions"]
    run(sim, 0.24)
    return cloth, sim, start, sim.read(["cloth:flag.positions"])["cloth:flag.positions"]


def test_a_hanging_cloth_stretches_by_its_own_weight_and_no_more(hanging):
    cloth, _, start, points = hanging
    assert points.shape == (1, 14, 3)
    fixed = cloth.fixed()
    np.testing.assert_allclose(points[0, fixed], start[0, fixed], atol=1e-6)  # single precision
    rows = points[0].reshape(7, 2, 3)
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
        sim = NewtonEngine("vbd").open(scene(cloth, step=0.002), 1)
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
