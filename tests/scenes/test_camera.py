"""Cameras as data: geometry, timing, noise, plain data."""

from __future__ import annotations

import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError
from flyball.scenes.camera import Camera, Noise

WIDE = Camera.with_fov("wide", 160, 120, 75, distortion=(-0.25, 0.06, 0.001, -0.002, -0.005))


def coefficient(limit: float) -> st.SearchStrategy[float]:
    return st.floats(-limit, limit)


@settings(max_examples=50, deadline=None)
@given(st.tuples(*map(coefficient, (0.1, 0.02, 0.005, 0.005, 0.002))), st.floats(30, 70))
def test_project_undoes_unproject(distortion: tuple[float, ...], fovy: float) -> None:
    camera = Camera.with_fov("c", 64, 48, fovy, distortion=distortion)
    pixels = np.random.default_rng(0).uniform((-0.5, -0.5), (63.5, 47.5), (200, 2))
    rays = camera.unproject(pixels)
    # Newton stops at 1e-13 on z = 1; 1e-7 px leaves room for its conditioning
    assert np.abs(camera.project(rays * 3.7) - pixels).max() < 1e-7


def test_distortion_is_the_plumb_bob() -> None:
    """Worked out by hand from OpenCV's formula at x = 0.5, y = 0.2 (r2 = 0.29)."""
    camera = Camera("c", 10, 10, 1, 1, 0, 0, distortion=(0.1, 0.01, 0.02, 0.03, 0.001))
    radial = 1 + 0.1 * 0.29 + 0.01 * 0.29**2 + 0.001 * 0.29**3
    u = 0.5 * radial + 2 * 0.02 * 0.1 + 0.03 * (0.29 + 0.5)
    v = 0.2 * radial + 0.02 * (0.29 + 0.08) + 2 * 0.03 * 0.1
    assert np.allclose(camera.project(np.array([1.0, 0.4, 2.0])), (u, v), atol=1e-12)


def test_a_distortion_that_folds_the_picture_is_refused() -> None:
    with pytest.raises(InputError, match="no inverse at pixel"):
        Camera.with_fov("c", 160, 120, 90, distortion=(-0.6, 0, 0, 0, 0)).rays()


def test_looking_puts_its_target_in_the_middle_and_up_upward() -> None:
    camera = Camera.looking("c", 101, 81, 40, at=(1, 2, 0.5), from_=(-1, 0, 2))
    above = np.array([[1, 2, 0.5], [1, 2, 0.6]])
    uv = camera.project((above - camera.position) @ camera.rotation)
    assert np.allclose(uv[0], (50, 40))
    assert uv[1, 1] < 40 and abs(uv[1, 0] - 50) < 1e-9


def test_what_is_behind_has_no_pixel() -> None:
    assert np.isnan(WIDE.project(np.array([0.1, 0.1, -1.0]))).all()


def test_resizing_keeps_the_edges_of_the_view() -> None:
    big = WIDE.resized(480, 240)
    corner, same = WIDE.unproject(np.array([-0.5, 119.5])), big.unproject(np.array([-0.5, 239.5]))
    assert np.allclose(corner, same)


def test_frames_come_at_their_rate_and_late() -> None:
    camera = Camera.with_fov("c", 8, 8, 50, rate_hz=10, delay_s=0.05)
    # the frame of 0.1 s can be read from 0.15 s on
    newest = [camera.newest(t, 0.02) for t in (0.04, 0.05, 0.149, 0.15, 0.3)]
    assert newest == [-1, 0, 0, 1, 2]
    assert [camera.taken_s(k, 0.02) for k in newest] == pytest.approx([-0.1, 0, 0, 0.1, 0.2])
    free = Camera.with_fov("c", 8, 8, 50, delay_s=0.03)
    assert free.newest(0.12, 0.02) == 6 and free.taken_s(6, 0.02) == pytest.approx(0.09)


@given(st.integers(1, 200), st.integers(0, 1000), st.integers(0, 4000))
def test_frames_are_those_of_exact_arithmetic(rate: int, delay_ms: int, now_ms: int) -> None:
    camera = Camera.with_fov("c", 8, 8, 50, rate_hz=rate, delay_s=delay_ms / 1000)
    newest = int(camera.newest(now_ms / 1000, 0.02))
    assert newest == Fraction(now_ms - delay_ms, 1000) * rate // 1
    assert float(camera.taken_s(newest, 0.02)) == pytest.approx(newest / rate)


def test_noise_is_shot_and_read_noise() -> None:
    """Standard deviation of 120,000 draws: within 2 % (their own spread is 0.2 %, rounding adds 1/12 count^2)."""
    camera = Camera.with_fov("c", 200, 200, 50, noise=Noise(shot=0.3, read=2.0))
    for level in (40, 160):
        flat = {"rgb": np.full((1, 200, 200, 3), level, np.uint8)}
        seen = camera.observe(flat, [np.random.default_rng(1)])["rgb"].astype(float)
        assert abs(seen.mean() - level) < 0.1
        assert abs(seen.std() / np.sqrt(4 + 0.3 * level + 1 / 12) - 1) < 0.02


def test_depth_noise_grows_with_the_square_and_misses_stay_misses() -> None:
    camera = Camera.with_fov("c", 100, 100, 50, noise=Noise(depth=0.002))
    z = np.full((1, 100, 100), 3.0, np.float32)
    z[:, 0] = np.inf
    seen = camera.observe({"depth": z}, [np.random.default_rng(0)])["depth"]
    assert np.isinf(seen[:, 0]).all()
    assert abs(seen[:, 1:].std() / 0.018 - 1) < 0.03


def test_noise_of_a_world_does_not_depend_on_the_batch() -> None:
    camera = Camera.with_fov("c", 16, 12, 50, noise=Noise(read=3))
    rgb = np.random.default_rng(0).integers(0, 255, (3, 12, 16, 3), np.uint8)
    batch = camera.observe({"rgb": rgb}, [np.random.default_rng(i) for i in range(3)])["rgb"]
    alone = camera.observe({"rgb": rgb[2:]}, [np.random.default_rng(2)])["rgb"]
    assert np.array_equal(batch[2:], alone)


def test_plain_data_comes_back() -> None:
    camera = Camera.looking(
        "c", 64, 48, 50, (0, 0, 0), (1, 1, 1), parent="body:hand", noise=Noise(0.1, 1), delay_s=0.03
    )
    assert Camera.from_json(json.loads(json.dumps(camera.to_json()))) == camera


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"fx": -1.0}, "fx"),
        ({"width": 0}, "width"),
        ({"width": 10**6}, "width"),
        ({"quat": [0, 0, 0, 0]}, "quat"),
        ({"distortion": [1, 2]}, "distortion"),
        ({"noise": {"dark": 1}}, "dark"),
        ({"parent": "joint:x"}, "parent"),
        ({"focal": 3}, "focal"),
        ({"delay_s": float("nan")}, "delay_s"),
        ({"position": "here"}, "position"),
    ],
)
def test_bad_data_is_one_line(change: dict[str, object], named: str) -> None:
    data = Camera.with_fov("front", 64, 48, 50).to_json() | change
    with pytest.raises(InputError, match=named) as err:
        Camera.from_json(data)
    assert "front" in err.value.line() and "\n" not in err.value.line()
