"""Lidar against a room in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from flyball.base import InputError, Missing
from flyball.engines.sensors import Lidar, LidarScanner

ROOM = """<mujoco><worldbody>
 <geom name="floor" type="plane" size="20 20 .1"/>
 <geom name="east" type="box" size=".1 5 2" pos="4.1 0 2"/>
 <geom name="north" type="box" size="5 .1 2" pos="0 3.1 2"/>
 <body name="cart" pos="0 0 .5"><joint name="x" type="slide" axis="1 0 0"/><joint name="yaw" axis="0 0 1"/>
  <geom name="cart" type="box" size=".3 .3 .3"/></body>
</worldbody></mujoco>"""
AZIMUTHS = tuple(np.linspace(-np.pi, np.pi, 73)[:-1])
LIDAR = Lidar("top", AZIMUTHS, (0.0, -0.3), max_range=6.0, parent="body:cart", position=(0.2, 0, 0.1))


@pytest.fixture(scope="module")
def scanner() -> LidarScanner:
    return LidarScanner(ROOM)


def expected(x: float, yaw: float) -> np.ndarray:
    """Walls at x = 4 and y = 3 (each 5 m to both sides), the floor 0.6 m below."""
    px, py = x + 0.2 * np.cos(yaw), 0.2 * np.sin(yaw)
    e, a = np.meshgrid(LIDAR.elevations, np.array(AZIMUTHS) + yaw, indexing="ij")
    dx, dy, dz = np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)
    with np.errstate(divide="ignore", invalid="ignore"):
        east, north, floor = (4 - px) / dx, (3 - py) / dy, -0.6 / dz
        east = np.where((east > 0) & (abs(py + east * dy) < 5), east, np.inf)
        north = np.where((north > 0) & (abs(px + north * dx) < 5), north, np.inf)
    floor = np.where(floor > 0, floor, np.inf)
    nearest = np.minimum(np.minimum(east, north), floor)
    return np.where(nearest <= 6.0, nearest, np.inf)


def test_ranges_are_those_of_the_room(scanner: LidarScanner) -> None:
    """In two worlds; the cart that carries the lidar is not seen. 1e-5: float32."""
    seen = scanner.scan(np.array([[0.0, 0.0], [-0.7, 0.63]]), LIDAR)["range"]
    for i, (x, yaw) in enumerate(((0.0, 0.0), (-0.7, 0.63))):
        truth = expected(x, yaw)
        assert np.isinf(truth).sum() > 10 and np.isfinite(truth).sum() > 60
        assert np.array_equal(np.isinf(seen[i]), np.isinf(truth))
        assert np.allclose(seen[i][np.isfinite(truth)], truth[np.isfinite(truth)], rtol=1e-5)


def test_what_is_hit_has_a_name_and_misses_have_none(scanner: LidarScanner) -> None:
    geom = scanner.scan(np.zeros((1, 2)), LIDAR)["geom"][0]
    assert geom[0, 36] == 1 and geom[0, 54] == 2 and geom[0, 0] == -1  # ahead, left, behind
    assert 0 in geom[1] and 3 not in geom


def test_a_world_alone_is_the_world_in_a_batch_and_threads_change_nothing(scanner: LidarScanner) -> None:
    positions = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 2))
    batch = scanner.scan(positions, LIDAR)["range"]
    assert np.array_equal(scanner.scan(positions[3:4], LIDAR)["range"][0], batch[3])
    assert np.array_equal(LidarScanner(ROOM, threads=1).scan(positions, LIDAR)["range"], batch)


def test_what_varies_between_worlds_is_met_where_it_is(scanner: LidarScanner) -> None:
    nearer = np.array([[4.1, 0, 2], [3.1, 0, 2.0]])
    seen = scanner.scan(np.zeros((2, 2)), LIDAR, vary={"geom:east.position": nearer})["range"]
    assert np.allclose(seen[:, 0, 36], (3.8, 2.8), atol=1e-5)
    assert np.isclose(scanner.scan(np.zeros((1, 2)), LIDAR)["range"][0, 0, 36], 3.8, atol=1e-5)


def test_what_is_too_near_is_a_miss(scanner: LidarScanner) -> None:
    near = Lidar("near", (0.0,), min_range=3.9, parent="body:cart", position=(0.2, 0, 0.1))
    assert np.isinf(scanner.scan(np.zeros((1, 2)), near)["range"]).all()


def test_bad_lidars_are_refused(scanner: LidarScanner) -> None:
    with pytest.raises(InputError, match="range"):
        Lidar("l", (0.0,), max_range=-1)
    with pytest.raises(Missing, match="cart"):
        scanner.scan(np.zeros((1, 2)), Lidar("l", (0.0,), parent="body:car"))
    with pytest.raises(InputError):
        scanner.scan(np.zeros((1, 3)), LIDAR)
