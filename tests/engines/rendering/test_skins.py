"""Cloth, soft bodies and grains in pictures, seen from straight above, where closed forms are short.

Declared tolerances: flat faces 1e-4 m (the depth buffer at 1 m, and 1e-5 m of drawn thickness). A grain is drawn as a
sphere of 80 triangles, which lie up to 5.9 % of the radius inside (a face's circumradius is 0.34 radii, so its middle
is at sqrt(1 - 0.34^2)), and whose outline is as large as a circle within 12 %.
"""

from types import SimpleNamespace

import numpy as np
import pytest

from flyball.base import FlyballError, Unsupported
from flyball.engines.rendering import Renderer
from flyball.engines.sensors.lidar import LidarScanner
from flyball.scenes import Camera, Scene
from flyball.scenes.deformable import Cloth, Granular, Soft

MODEL = """<mujoco><worldbody><light pos="0 0 3"/><geom name="floor" type="plane" size="4 4 .1"/>
<body name="slab" pos="0 -.4 .1"><joint name="slab" type="slide"/><geom name="slab" type="box" size=".05 .05 .05"/>
</body></worldbody></mujoco>"""
FLAG = Cloth("flag", position=(-0.4, 0.1, 0.3), size=(0.3, 0.2), cells=(6, 4))
BLOCK = Soft("block", position=(0.1, 0.1, 0.0), size=(0.2, 0.2, 0.15))
BALL = Granular("ball", position=(-0.1, -0.2, 0.0), size=(0.2, 0.2, 0.2), spacing=0.2, jitter=0.0)
SCENE = Scene("soft", MODEL, (), deformables=(FLAG, BLOCK, BALL))
HEIGHT = 1.0
CAMERA = Camera.looking("above", 120, 120, 60, at=(0, 0, 0), from_=(0, 0, HEIGHT), up=(0, 1, 0))
READ = "cloth:flag.positions"


@pytest.fixture(scope="module")
def renderer(painter):
    with Renderer(SCENE, backend=painter) as r:
        yield r


def pixel(x, y, z):
    """(row, column) of a point."""
    u, v = CAMERA.project(np.array([x, -y, HEIGHT - z]))
    return round(v), round(u)


def at(picture, *point):
    return picture[(0, *pixel(*point))]


def test_deformables_have_depth_and_names(renderer):
    seen = renderer.render(renderer.start(), CAMERA, ("depth", "segmentation", "normals"))
    what = {
        "cloth:flag": ((-0.25, 0.2, 0.3), 1e-4),
        "soft:block": ((0.2, 0.2, 0.15), 1e-4),
        "granular:ball": ((0.0, -0.1, 0.2), 0.059 * 0.1),
        "slab": ((0.0, -0.4, 0.15), 1e-4),
        "floor": ((0.4, -0.4, 0.0), 1e-4),
    }
    for name, (point, within) in what.items():
        assert renderer.geoms[at(seen["segmentation"], *point)[0]] == name
        assert at(seen["depth"], *point) == pytest.approx(HEIGHT - point[2], abs=within), name
    for name in ("cloth:flag", "soft:block"):
        np.testing.assert_allclose(at(seen["normals"], *what[name][0]), (0, 0, -1), atol=1e-3)
    body = seen["segmentation"][0, ..., 1]
    assert renderer.bodies[body[pixel(0, -0.4, 0.15)]] == "slab" and body[pixel(*what["cloth:flag"][0])] == -1


def test_their_pixels_are_as_many_as_their_area(renderer):
    geom = renderer.render(renderer.start(), CAMERA, ("segmentation",))["segmentation"][0, ..., 0]
    per = CAMERA.fx**2
    count = {name: int((geom == renderer.geoms.index(name)).sum()) for name in ("cloth:flag", "granular:ball")}
    assert count["cloth:flag"] == pytest.approx(0.3 * 0.2 * per / 0.7**2, rel=0.05)
    assert count["granular:ball"] == pytest.approx(np.pi * 0.1**2 * per / 0.9**2, rel=0.12)


def test_points_are_where_the_engine_says_in_each_world(renderer):
    rest, _ = FLAG.mesh()
    moved = np.stack([rest, rest + np.array([0, 0, 0.2]), rest + (0.1, 0, 0.05) + 0.1 * rest[:, :1] * (0, 0, 1)])
    q = renderer.start(n=3)
    both = renderer.render(q, CAMERA, ("rgb", "depth", "segmentation"), particles={READ: moved})
    for i, z in enumerate((0.3, 0.5, 0.3 + 0.05 + 0.1 * -0.25)):
        x = -0.25 + (0.1 if i == 2 else 0.0)
        assert both["depth"][i][pixel(x, 0.2, z)] == pytest.approx(HEIGHT - z, abs=2e-3 if i == 2 else 1e-4)
        alone = renderer.render(q[:1], CAMERA, ("rgb", "depth", "segmentation"), particles={READ: moved[i : i + 1]})
        assert all(np.array_equal(alone[kind][0], both[kind][i]) for kind in both)
    at_rest = renderer.render(q[:1], CAMERA, ("depth",))["depth"]
    np.testing.assert_array_equal(at_rest[0], both["depth"][0])


def fake(scene, **reads):
    """A simulation at the start of a scene."""
    given = {"joint:slab.position": np.zeros((1, 1))} | reads
    return SimpleNamespace(
        n=1, scene=scene, settable=list, get=None, read=lambda names: {name: given[name] for name in names}
    )


def test_an_engines_worlds_are_seen_with_their_deformables(renderer):
    reads = {f"{k}.positions": x[None] for k, x in (
        ("cloth:flag", FLAG.mesh()[0] + (0, 0, 0.1)), ("soft:block", BLOCK.mesh()[0]), ("granular:ball", BALL.points())
    )}  # fmt: skip
    depth = renderer.see(fake(SCENE, **reads), CAMERA, ("depth",))["depth"]
    assert at(depth, -0.25, 0.2, 0.4) == pytest.approx(0.6, abs=1e-4)


def test_a_renderer_that_was_not_told_of_them_says_so():
    with Renderer(MODEL) as plain, pytest.raises(Unsupported, match=r"cloth:flag is not drawn.*Renderer\(scene\)"):
        plain.see(fake(SCENE), CAMERA, ("depth",))


def test_rays_do_not_see_them_and_say_so():
    with Renderer(SCENE, backend="rays") as rays, pytest.raises(Unsupported, match="do not see cloth:flag.*egl"):
        rays.render(rays.start(), CAMERA, ("depth",))
    with pytest.raises(Unsupported, match="do not see cloth:flag"):
        LidarScanner(SCENE)


@pytest.mark.parametrize(
    ("particles", "says"),
    [
        ({READ: np.zeros((1, 3, 3))}, r"cloth:flag.positions of shape \(1, 3, 3\).*\(1, 35, 3\)"),
        ({READ: np.full((1, 35, 3), np.nan)}, "finite"),
        ({"cloth:flga.positions": np.zeros((1, 35, 3))}, "cloth:flga.positions.*did you mean"),
    ],
)
def test_particles_that_do_not_fit_are_refused(particles, says):
    with Renderer(SCENE) as r, pytest.raises(FlyballError, match=says):
        r.render(r.start(), CAMERA, ("depth",), particles=particles)


def test_an_overview_sees_all_of_them(renderer):
    far = Scene("far", MODEL, (), deformables=(Cloth("flag", position=(3.0, 0.0, 1.0)),))
    with Renderer(far, backend=renderer.backend()) as r:
        camera = r.overview(r.start())
        points, _ = far.deformables[0].mesh()
        pixels = camera.project((points - camera.position) @ camera.rotation)
    assert ((pixels > 0) & (pixels < (camera.width, camera.height))).all()
