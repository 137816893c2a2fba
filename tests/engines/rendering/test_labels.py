"""Depth, segmentation, normals and flow of a ball over a floor, against closed form, on every backend.

Declared tolerances, relative to the distance: ray casts are exact to float32, 1e-5. Warp computes in float32 and is
held to 1e-3. OpenGL draws a ball of 28 slices: its facets lie up to R (1 - cos(pi / 28)) = 0.63 % of the radius inside,
which the slant of the view divides by n.v; pixels where n.v < 0.3 are left out. On planes it is held to 1e-4.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.rendering import Renderer
from flyball.scenes.camera import Camera

Array = NDArray[np.float64]

R = 0.2
MODEL = f"""<mujoco><worldbody>
 <light pos="0 0 3"/>
 <geom name="floor" type="plane" size="4 4 .1" rgba=".6 .7 .8 1"/>
 <body name="ball" pos="0 0 .5"><freejoint name="ball"/><geom name="ball" size="{R}" rgba="1 0 0 1"/></body>
 <body name="mast" pos="0 0 0"><joint name="mast" axis="0 0 1"/><geom size=".01" pos="-3 -3 0" rgba="0 0 1 1"/></body>
</worldbody></mujoco>"""
CAMERA = Camera.looking("c", 80, 60, 50, at=(0, 0, 0.4), from_=(0.5, -1.5, 1.1))
BENT = Camera.looking(
    "bent", 80, 60, 60, at=(0, 0, 0.4), from_=(0.5, -1.5, 1.1), distortion=(-0.2, 0.05, 0.002, -0.003, 0)
)
KINDS = ("depth", "segmentation", "normals")


@dataclass(frozen=True)
class Tolerance:
    plane: float
    ball: float
    normal: float
    pixels: float


TOLERANCES = {
    "rays": Tolerance(1e-5, 1e-5, 1e-4, 1e-3),
    "warp": Tolerance(1e-3, 1e-3, 1e-2, 2e-2),
    "egl": Tolerance(1e-4, 0.0063 * R / 0.3, 0.12, 0.1),
    "osmesa": Tolerance(1e-4, 0.0063 * R / 0.3, 0.12, 0.1),
}


def at(*places: tuple[float, float, float], turn: float = 0.0, mast: float = 0.0) -> Array:
    """Positions of worlds with the ball at places, turned about the vertical."""
    quat = (np.cos(turn / 2), 0, 0, np.sin(turn / 2))
    return np.array([[*p, *quat, mast] for p in places])


@dataclass(frozen=True)
class Truth:
    """What a camera in the world sees, by closed form."""

    depth: Array
    geom: NDArray[np.int64]
    normal: Array
    point: Array
    slant: Array


def truth(camera: Camera, ball: Array, place: Array | None = None, turn: Array | None = None) -> Truth:
    """Ray against plane and sphere; ``place`` and ``turn`` are the camera's pose in the world."""
    turn = camera.rotation if turn is None else turn
    origin = np.array(camera.position if place is None else place)
    d = camera.rays() @ turn.T
    with np.errstate(invalid="ignore", divide="ignore"):
        floor = np.where(d[..., 2] < 0, -origin[2] / d[..., 2], np.inf)
        hit = origin + floor[..., None] * d
        floor = np.where((np.abs(hit[..., :2]) <= 4).all(-1), floor, np.inf)
        a, b = (d * d).sum(-1), ((origin - ball) * d).sum(-1)
        c = ((origin - ball) ** 2).sum() - R * R
        sphere = (-b - np.sqrt(b * b - a * c)) / a
    sphere = np.where(np.isfinite(sphere) & (sphere > 0), sphere, np.inf)
    depth = np.minimum(floor, sphere)
    geom = np.where(np.isinf(depth), -1, np.where(sphere < floor, 1, 0))
    point = origin + np.where(np.isinf(depth), 0, depth)[..., None] * d
    normal = np.where((geom == 1)[..., None], (point - ball) / R, np.where((geom == 0)[..., None], (0, 0, 1.0), 0))
    slant = -(normal * d).sum(-1) / np.sqrt(a)
    return Truth(depth, geom, normal, point, slant)


def sure(geom: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Pixels whose neighbours show the same: an edge may fall on either side of a pixel's centre."""
    padded = np.pad(geom, 1, mode="edge")
    h, w = geom.shape
    around = [padded[i : i + h, j : j + w] == geom for i in range(3) for j in range(3)]
    return np.logical_and.reduce(around)


@pytest.fixture(scope="module")
def renderer(backend: str) -> Renderer:
    return Renderer(MODEL, backend=backend)


@pytest.mark.parametrize("camera", [CAMERA, BENT], ids=["straight", "bent"])
def test_depth_segments_and_normals_are_those_of_geometry(renderer: Renderer, backend: str, camera: Camera) -> None:
    ball = np.array([0.1, 0.05, 0.45])
    seen = renderer.render(at(tuple(ball)), camera, KINDS)
    t, tolerance = truth(camera, ball), TOLERANCES[backend]
    inner = sure(t.geom)
    assert {*np.unique(t.geom[inner])} == {-1, 0, 1}, "the view shows sky, floor and ball"
    assert np.array_equal(seen["segmentation"][0, ..., 0][inner], t.geom[inner])
    body = np.array([0, 1, -1])[t.geom]  # floor: world, ball: its body, nothing
    assert np.array_equal(seen["segmentation"][0, ..., 1][inner], body[inner])
    depth = seen["depth"][0]
    assert depth.dtype == np.float32 and np.isinf(depth[inner & (t.geom == -1)]).all()
    for geom, limit in ((0, tolerance.plane), (1, tolerance.ball)):
        here = inner & (t.geom == geom) & (t.slant > 0.3 if geom else True)
        assert here.sum() > 50
        assert (
            np.abs(depth[here] - t.depth[here]).max()
            < limit * np.linalg.norm(t.point[here] - camera.position, axis=-1).max()
        )
    normals = seen["normals"][0] @ camera.rotation.T
    here = inner & (t.geom >= 0) & (t.slant > 0.3)
    assert np.abs(normals[here] - t.normal[here]).max() < tolerance.normal
    assert np.allclose(np.linalg.norm(normals[inner & (t.geom >= 0)], axis=-1), 1, atol=1e-5)
    assert not seen["normals"][0][inner & (t.geom == -1)].any()


def test_flow_of_a_moved_and_turned_ball(renderer: Renderer, backend: str) -> None:
    ball, moved, turn = np.array([0.0, 0, 0.5]), np.array([0.2, -0.1, 0.46]), 0.3
    seen = renderer.render(at(tuple(ball)), CAMERA, ("flow",), after=at(tuple(moved), turn=turn))
    t, end, tolerance = truth(CAMERA, ball), truth(CAMERA, moved), TOLERANCES[backend]
    c, s = np.cos(turn), np.sin(turn)
    spun = (t.point - ball) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T + moved
    target = np.where((t.geom == 1)[..., None], spun, t.point)
    uv = CAMERA.project((target - np.array(CAMERA.position)) @ CAMERA.rotation)
    v, u = np.meshgrid(np.arange(60), np.arange(80), indexing="ij")
    expected = uv - np.stack([u, v], axis=-1)
    here = sure(t.geom) & (t.slant > 0.3)
    assert np.abs(seen["flow"][0][here & (t.geom == 1)]).max() > 3, "something moves"
    assert np.abs(seen["flow"][0][here] - expected[here]).max() < tolerance.pixels
    # hidden: the floor where the ball is in the second picture
    floor = here & (t.geom == 0) & sure(end.geom)
    assert np.array_equal(seen["occluded"][0][floor], end.geom[floor] == 1)
    assert (end.geom[floor] == 1).sum() > 20
    ahead = spun - np.array(CAMERA.position)
    normal = (spun - moved) / R
    facing = -(normal * ahead).sum(-1) / np.linalg.norm(ahead, axis=-1)
    ball_pixels = sure(t.geom) & (t.geom == 1)
    assert not seen["occluded"][0][ball_pixels & (facing > 0.4)].any()


def test_what_turns_away_is_occluded(renderer: Renderer) -> None:
    ball = np.array([0.0, 0, 0.5])
    seen = renderer.render(at(tuple(ball)), CAMERA, ("flow",), after=at(tuple(ball), turn=1.5))
    t = truth(CAMERA, ball)
    c, s = np.cos(1.5), np.sin(1.5)
    spun = (t.point - ball) @ np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]).T
    to_eye = np.array(CAMERA.position) - (spun + ball)
    facing = (spun * to_eye).sum(-1) / R / np.linalg.norm(to_eye, axis=-1)
    here = sure(t.geom) & (t.geom == 1)
    assert (here & (facing < -0.2)).sum() > 20
    assert seen["occluded"][0][here & (facing < -0.2)].all()
    assert not seen["occluded"][0][here & (facing > 0.4)].any()


def test_flow_of_a_moving_camera(renderer: Renderer, backend: str) -> None:
    """Mounted on a mast that turns: the floor flows, and so does the sky, as far as the camera turns."""
    camera = Camera.looking("m", 80, 60, 60, at=(0, 0, 0.8), from_=(-2.0, 0, 1.0), parent="body:mast")
    ball, angle = np.array([0.0, 0, 0.5]), 0.05
    seen = renderer.render(at(tuple(ball)), camera, ("flow",), after=at(tuple(ball), mast=angle))
    t = truth(camera, ball)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    place = turn @ np.array(camera.position)
    far = camera.rays() @ camera.rotation.T
    target = np.where((t.geom < 0)[..., None], far @ turn, (t.point - place) @ turn)
    uv = camera.project(target @ camera.rotation)
    v, u = np.meshgrid(np.arange(60), np.arange(80), indexing="ij")
    expected = uv - np.stack([u, v], axis=-1)
    here = sure(t.geom) & ((t.geom < 0) | (t.slant > 0.3))
    assert {*np.unique(t.geom[here])} == {-1, 0, 1}
    assert np.abs(seen["flow"][0][here] - expected[here]).max() < TOLERANCES[backend].pixels
    out = (uv < -0.5).any(-1) | (uv[..., 0] > 79.5) | (uv[..., 1] > 59.5)
    assert out.any() and seen["occluded"][0][out & here].all()


def test_planted_balls_appear_where_the_lens_puts_them(quick: str) -> None:
    """Centroids of small balls in a bent picture: within 0.25 px of where ``project`` puts their centres.

    A ball of 10 px has some 80 pixels, so its centroid is good to 0.1 px; OpenGL picks the label 1/6 px beside.
    """
    places = np.array([[x, y, z] for x in (-0.5, 0, 0.5) for y, z in ((0.1, 0.2), (-0.2, 0.8))])
    geoms = "".join(f'<geom size=".1" pos="{x} {y} {z}"/>' for x, y, z in places)
    camera = Camera.looking("b", 160, 120, 60, (0, 0, 0.5), (0, -2, 0.5), distortion=(-0.25, 0.07, 0.003, -0.004, 0))
    with Renderer(f"<mujoco><worldbody>{geoms}</worldbody></mujoco>", backend=quick) as renderer:
        ids = renderer.render(np.zeros((1, 0)), camera, ("segmentation",))["segmentation"][0, ..., 0]
    expected = camera.project((places - np.array(camera.position)) @ camera.rotation)
    for g, uv in enumerate(expected):
        v, u = np.nonzero(ids == g)
        assert len(u) > 15
        assert np.abs((u.mean() - uv[0], v.mean() - uv[1])).max() < 0.25


def test_normals_of_every_shape_face_the_camera_and_match_ray_casts(quick: str) -> None:
    """Also of a mesh. Ray casts give normals by another way: MuJoCo's, not from depth."""
    import mujoco

    from flyball.engines.rendering.rays import cast

    shapes = (
        ("box", ".12 .1 .08"),
        ("cylinder", ".1 .12"),
        ("capsule", ".08 .1"),
        ("ellipsoid", ".15 .1 .08"),
        ("mesh", None),
    )
    geoms = "".join(
        f'<geom pos="{0.4 * i - 0.8} 0 0" euler="20 {30 * i} 10" type="{kind}" '
        + ('mesh="wedge"/>' if size is None else f'size="{size}"/>')
        for i, (kind, size) in enumerate(shapes)
    )
    mesh = '<mesh name="wedge" vertex="-.1 -.1 -.1 .1 -.1 -.1 .1 .1 -.1 -.1 .1 -.1 0 0 .15"/>'
    model = f"<mujoco><asset>{mesh}</asset><worldbody>{geoms}</worldbody></mujoco>"
    camera = Camera.looking("n", 160, 60, 40, (0, 0, 0), (0.2, -2.0, 0.9))
    with Renderer(model, backend=quick) as renderer:
        seen = renderer.render(np.zeros((1, 0)), camera, ("normals", "segmentation"))
        m = renderer.model
    d = mujoco.MjData(m)
    mujoco.mj_forward(m, d)
    rays = camera.rays().reshape(-1, 3) @ camera.rotation.T
    _, geom, normal = cast(m, d, np.array(camera.position), rays)
    geom, normal = geom.reshape(60, 160), normal.reshape(60, 160, 3) @ camera.rotation
    slant = -np.einsum("hwk,hwk->hw", normal, camera.rays())
    here = sure(geom) & (geom >= 0) & (seen["segmentation"][0, ..., 0] == geom) & (slant > 0.3)
    assert {*np.unique(geom[here])} == {0, 1, 2, 3, 4}
    error = np.linalg.norm(seen["normals"][0] - normal, axis=-1)[here]
    # an edge between two faces of one geom may fall on either side of a pixel's centre: 3 % of the pixels
    assert np.quantile(error, 0.97) < TOLERANCES[quick].normal


def test_a_camera_inside_a_geom_looks_out(quick: str) -> None:
    model = '<mujoco><worldbody><geom size=".3"/><geom type="box" size=".1 1 1" pos="2.1 0 0"/></worldbody></mujoco>'
    camera = Camera.looking("i", 16, 16, 30, (1, 0, 0), (0, 0, 0))
    with Renderer(model, backend=quick) as renderer:
        seen = renderer.render(np.zeros((1, 0)), camera, ("depth", "segmentation"))
    assert (seen["segmentation"][0, ..., 0] == 1).all()
    assert np.abs(seen["depth"] - 2.0).max() < 2e-3


def test_a_thin_plate_slid_over_the_floor_hides_it(quick: str) -> None:
    """A third of a millimetre thick: less than the slack in depth, so that only its id tells it from the floor."""
    model = """<mujoco><worldbody><geom type="plane" size="4 4 .1"/><body><joint type="slide" axis="1 0 0"/>
     <geom type="box" size=".2 .2 .00015" pos="0 0 .00015"/></body></worldbody></mujoco>"""
    camera = Camera.looking("d", 40, 40, 40, (0, 0, 0), (0, -0.01, 1.5))
    with Renderer(model, backend=quick) as renderer:
        seen = renderer.render(np.array([[-0.3]]), camera, ("flow", "segmentation"), after=np.array([[0.3]]))
    first, hidden = seen["segmentation"][0, ..., 0], seen["occluded"][0]
    assert (first == 1).sum() > 100 and not hidden[sure(first) & (first == 1)].any()
    covered = hidden & (first == 0)
    rows, columns = np.nonzero(covered)
    assert 0.8 < covered.sum() / (first == 1).sum() < 1.2
    # the plate's half width is 0.2 m of the 1.09 m that 40 pixels see
    assert abs(columns.mean() - 19.5 - 0.3 * 40 / 1.09) < 1 and abs(rows.mean() - 19.5) < 1


def test_flow_needs_a_second_state() -> None:
    with Renderer(MODEL, backend="rays") as renderer, pytest.raises(InputError, match="second state"):
        renderer.render(at((0, 0, 0.5)), CAMERA, ("flow",))


@pytest.mark.parametrize(
    ("positions", "camera", "kinds", "error"),
    [
        (np.zeros((1, 3)), CAMERA, ("depth",), InputError),
        (np.full((1, 8), np.nan), CAMERA, ("depth",), InputError),
        (np.zeros((0, 8)), CAMERA, ("depth",), InputError),
        (at((0, 0, 1)), CAMERA, ("colour",), Missing),
        (at((0, 0, 1)), CAMERA, ("rgb",), Unsupported),
        (at((0, 0, 1)), Camera.with_fov("x", 8, 8, 50, parent="body:nobody"), ("depth",), Missing),
    ],
)
def test_bad_requests_are_one_line(positions: Array, camera: Camera, kinds: tuple[str, ...], error: type) -> None:
    with Renderer(MODEL, backend="rays") as renderer, pytest.raises(error) as caught:
        renderer.render(positions, camera, kinds)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
