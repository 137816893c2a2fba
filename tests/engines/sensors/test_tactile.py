"""Tactile pads: the cells sum to the force on the pad, and say where it acts."""

from __future__ import annotations

import numpy as np
import pytest

from flyball.base import InputError
from flyball.engines.mujoco import MujocoEngine
from flyball.engines.sensors import TactilePad, declare_pads
from flyball.scenes import Scene

G = 9.81
TABLE = """<mujoco><option timestep=".002"/><worldbody>
 <body name="pad" pos=".3 .2 .5" euler="0 0 90"><geom name="pad" type="box" size=".05 .05 .01" friction="1"/></body>
 <body name="box" pos=".3 .2 .53"><freejoint name="box"/>
  <geom name="box" type="box" size=".012 .012 .02" mass=".4"/></body>
</worldbody></mujoco>"""
PAD = TactilePad("skin", "pad", (0, 0, 0.01), (1, 0, 0, 0), (0.1, 0.1), (4, 5))


def settled(x: float, y: float, masses: tuple[float, ...] = (0.4,)):
    """A box put on the pad at (x, y) in the pad's frame, after 2 s."""
    n = len(masses)
    simulation = MujocoEngine().open(Scene("t", declare_pads(TABLE, [PAD]), ()), n)
    simulation.set({"body:box.mass": np.array(masses)})
    # the pad is turned by 90 degrees about z: its x is the world's y
    simulation.place("box", np.tile([0.3 - y, 0.2 + x, 0.53, 1, 0, 0, 0], (n, 1)))
    simulation.step(np.zeros((n, 1000, 0)))
    return simulation


def test_cells_sum_to_the_weight_in_every_world() -> None:
    cells = PAD.read(settled(0.0, 0.0, (0.4, 0.8)))
    assert cells.shape == (2, 4, 5) and (cells >= 0).all()
    # at rest to 1e-3: the soft contact creeps
    assert np.allclose(cells.sum(axis=(1, 2)), G * np.array([0.4, 0.8]), rtol=1e-3)


@pytest.mark.parametrize(("x", "y", "cell"), [(-0.0375, 0.0, (0, 2)), (0.0375, -0.04, (3, 0)), (0.0125, 0.04, (2, 4))])
def test_force_is_felt_where_it_acts(x: float, y: float, cell: tuple[int, int]) -> None:
    """The box, 24 mm wide, stands inside one cell of 25 mm along x and on at most three of 20 mm along y."""
    cells = PAD.read(settled(x, y))[0]
    rows, columns = np.nonzero(cells)
    assert set(rows) == {cell[0]} and abs(columns - cell[1]).max() <= 1
    middle = (cells.sum(axis=0) * (np.arange(5) - 2) * 0.02).sum() / cells.sum()
    assert abs(middle - y) < 0.01


def test_nothing_touches_nothing_is_felt() -> None:
    simulation = settled(0, 0)
    simulation.place("box", np.array([[0.3, 0.2, 0.9, 1, 0, 0, 0]]))
    assert not PAD.read(simulation).any()


def test_every_substep_can_be_felt() -> None:
    """A falling box: the peak over substeps exceeds its weight, and the pad's own sum says when it landed."""
    simulation = MujocoEngine().open(Scene("t", declare_pads(TABLE, [PAD]), ()), 1)
    simulation.place("box", np.array([[0.3, 0.2, 0.56, 1, 0, 0, 0]]))
    reads = simulation.rollout(np.zeros((1, 200, 0)), 1, dict.fromkeys(PAD.fields, "last"))
    force = PAD.cells(*(reads[f] for f in PAD.fields)).sum(axis=(2, 3))[0]
    landing = np.sqrt(2 * 0.03 / G)
    first = 0.002 * (np.argmax(force > 0) + 1)
    assert abs(first - landing) < 0.006
    assert force.max() > 3 * 0.4 * G


def test_bad_pads_are_refused() -> None:
    with pytest.raises(InputError, match="skin"):
        TactilePad("skin", "pad", (0, 0, 0), (1, 0, 0, 0), (0.1, 0.1), (0, 3))
    with pytest.raises(InputError):
        declare_pads(TABLE, [TactilePad("s", "palm", (0, 0, 0), (1, 0, 0, 0), (0.1, 0.1), (1, 1))])
