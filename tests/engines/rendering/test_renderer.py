"""Pictures of many worlds: order, sameness alone and in batch, what varies, presets, any engine's states."""

from __future__ import annotations

import numpy as np
import pytest

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.mujoco import MujocoEngine
from flyball.engines.rendering import Renderer, model_cameras
from flyball.engines.rendering.picture import png, viewable
from flyball.scenes import Scene
from flyball.scenes.camera import Camera

MODEL = """<mujoco><worldbody>
 <light name="sun" pos="0 0 3"/>
 <geom name="floor" type="plane" size="4 4 .1" rgba=".6 .7 .8 1"/>
 <body name="ball" pos="0 0 .5"><freejoint name="ball"/><geom name="ball" size=".2" rgba="1 0 0 1"/></body>
 <body name="mast" pos="0 0 0"><joint name="mast" axis="0 0 1"/><geom size=".01" pos="-3 -3 0" rgba="0 0 1 1"/>
  <camera name="eye" pos="0 -2 1" xyaxes="1 0 0 0 .4 1" fovy="50" resolution="64 48"/></body>
</worldbody></mujoco>"""
CAMERA = Camera.looking("c", 64, 48, 50, at=(0, 0, 0.4), from_=(0.5, -1.5, 1.1))
SEEN = ("rgb", "depth", "segmentation")


def worlds(n: int) -> np.ndarray:
    """The ball further right in every world."""
    return np.array([[0.15 * i - 0.3, 0, 0.5, 1, 0, 0, 0, 0] for i in range(n)])


@pytest.fixture(scope="module")
def renderer(painter: str) -> Renderer:
    return Renderer(MODEL, backend=painter)


def test_worlds_come_in_order_and_look_the_same_alone(renderer: Renderer) -> None:
    batch = renderer.render(worlds(5), CAMERA, SEEN)
    columns = [np.nonzero(ids == 1)[1].mean() for ids in batch["segmentation"][..., 0]]
    assert np.all(np.diff(columns) > 3)
    for i in (0, 3):
        alone = renderer.render(worlds(5)[i : i + 1], CAMERA, SEEN)
        for kind in SEEN:
            assert np.array_equal(alone[kind][0], batch[kind][i]), kind


def test_the_ball_is_red_where_the_labels_say_ball(renderer: Renderer) -> None:
    seen = renderer.render(worlds(1), CAMERA, SEEN)
    rgb, ball = seen["rgb"][0].astype(int), seen["segmentation"][0, ..., 0] == 1
    red = (rgb[..., 0] > 40) & (rgb[..., 0] > 2 * rgb[..., 2])
    # rgb and labels come from passes of their own; they may part at the rim
    assert (red != ball).mean() < 0.002
    assert rgb.dtype != np.uint8 and seen["rgb"].dtype == np.uint8


def test_fields_vary_between_worlds_and_leave_no_trace(renderer: Renderer) -> None:
    plain = renderer.render(worlds(3), CAMERA, SEEN)
    colours = np.array([[1, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1.0]])
    scale, eye = np.array([1, 1, 1.5]), np.repeat(np.array(CAMERA.position)[None], 3, axis=0)
    eye[2] += (0, 0, 0.3)
    vary = {"geom:ball.rgba": colours, "geom:ball.size_scale": scale}
    varied = renderer.render(worlds(3), CAMERA, SEEN, vary=vary)
    for i in range(3):
        on_ball = varied["rgb"][i][plain["segmentation"][i, ..., 0] == 1].mean(axis=0)
        assert np.argmax(on_ball) == i
    areas = [(ids == 1).sum() for ids in varied["segmentation"][..., 0]]
    assert areas[2] > 1.8 * areas[1]
    moved = renderer.render(worlds(3), CAMERA, SEEN, vary={"camera:c.position": eye})
    assert np.array_equal(moved["rgb"][1], plain["rgb"][1]) and not np.array_equal(moved["rgb"][2], plain["rgb"][2])
    lit = renderer.render(worlds(3), CAMERA, ("rgb",), vary={"light:sun.diffuse": np.outer([1, 0.5, 0], np.ones(3))})
    brightness = lit["rgb"][:, -1].mean(axis=(1, 2))  # floor in front of the ball
    assert brightness[0] > brightness[1] > brightness[2]
    again = renderer.render(worlds(3), CAMERA, SEEN)
    assert all(np.array_equal(again[k], plain[k]) for k in SEEN)


def test_quality_has_shadows(painter: str) -> None:
    if painter == "warp":
        pytest.skip("its kernel with shadows is another one, and takes seconds to compile")
    with Renderer(MODEL, backend=painter) as fast, Renderer(MODEL, backend=painter, preset="quality") as quality:
        a, b = (r.render(worlds(1), CAMERA, SEEN) for r in (fast, quality))
    floor = a["segmentation"][0, ..., 0] == 0
    darker = (b["rgb"][0].astype(int).sum(-1) < 0.8 * a["rgb"][0].astype(int).sum(-1)) & floor
    assert 30 < darker.sum() < 0.5 * floor.sum()


def test_a_simulations_state_and_sizes_are_what_is_drawn() -> None:
    scene = Scene("balls", MODEL, ())
    simulation = MujocoEngine().open(scene, 2)
    simulation.set({"geom:ball.size_scale": np.array([1.0, 1.4])})
    simulation.place("ball", np.array([[0.1, 0, 0.6, 1, 0, 0, 0], [0.1, 0, 0.6, 1, 0, 0, 0]]))
    with Renderer(MODEL, backend="rays") as renderer:
        seen = renderer.see(simulation, CAMERA, ("segmentation",))
        same = renderer.render(
            np.array([[0.1, 0, 0.6, 1, 0, 0, 0, 0]] * 2), CAMERA, ("segmentation",),
            vary={"geom:ball.size_scale": np.array([1.0, 1.4])},
        )  # fmt: skip
    assert np.array_equal(seen["segmentation"], same["segmentation"])
    areas = [(ids == 1).sum() for ids in seen["segmentation"][..., 0]]
    assert areas[1] > 1.5 * areas[0]


def test_the_models_own_camera_sees_what_mujocos_would() -> None:
    """Its rays by MuJoCo's own convention: x right, y up, z backward, the field of view over the picture's height."""
    import mujoco

    with Renderer(MODEL, backend="rays") as renderer:
        (camera,) = model_cameras(renderer.model)
        q = worlds(1)
        q[0, -1] = 0.3
        depth = renderer.render(q, camera, ("depth",))["depth"][0]
    m = mujoco.MjModel.from_xml_string(MODEL)
    d = mujoco.MjData(m)
    d.qpos[:] = q[0]
    mujoco.mj_forward(m, d)
    assert (camera.width, camera.height) == (64, 48)
    for row, column in ((0, 0), (30, 20), (47, 63), (24, 33)):
        x, y = (column + 0.5 - 32) / 24, (24 - row - 0.5) / 24
        ray = (
            d.cam_xmat[0].reshape(3, 3) @ np.array([x, y, 0]) * np.tan(np.radians(25))
            - d.cam_xmat[0].reshape(3, 3)[:, 2]
        )
        distance = mujoco.mj_ray(m, d, d.cam_xpos[0], ray, None, 1, -1, np.zeros(1, np.int32))
        assert np.isclose(depth[row, column], distance if distance >= 0 else np.inf, rtol=1e-5)


def test_a_camera_with_a_sensor_has_mujocos_frustum() -> None:
    """MuJoCo's abstract renderer needs no OpenGL: its frustum's edges are the edges of the outermost pixels."""
    import mujoco

    lens = 'resolution="64 48" sensorsize=".0064 .0048" focal=".005 .006" principal=".0004 .0003"'
    m = mujoco.MjModel.from_xml_string(f'<mujoco><worldbody><camera name="a" {lens}/></worldbody></mujoco>')
    d = mujoco.MjData(m)
    mujoco.mj_forward(m, d)
    scene, fixed = mujoco.MjvScene(m, 10), mujoco.MjvCamera()
    fixed.type, fixed.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, 0
    mujoco.mjv_updateScene(m, d, mujoco.MjvOption(), None, fixed, mujoco.mjtCatBit.mjCAT_ALL, scene)
    eye = scene.camera[0]
    (camera,) = model_cameras(m)
    left_top, right_bottom = camera.unproject(np.array([[-0.5, -0.5], [63.5, 47.5]]))
    middle, half = eye.frustum_center / eye.frustum_near, eye.frustum_width / eye.frustum_near
    assert np.allclose((left_top[0], right_bottom[0]), (middle - half, middle + half), atol=1e-6)
    ends = np.array([eye.frustum_top, eye.frustum_bottom]) / eye.frustum_near
    assert np.allclose((-left_top[1], -right_bottom[1]), ends, atol=1e-6)


def test_a_geom_that_outgrows_its_body_is_seen_whole() -> None:
    """Bodies of several geoms have boxes around them, made for the sizes of the model."""
    model = """<mujoco><worldbody><body><geom name="g" size=".05"/><geom size=".05" pos=".3 0 0"/>
     <geom size=".05" pos="0 .3 0"/></body></worldbody></mujoco>"""
    camera = Camera.looking("d", 60, 60, 40, (0, 0, 0), (0, -0.01, 2))
    scales = np.array([3, 6.0])
    with Renderer(model, backend="rays") as renderer:
        ids = renderer.render(
            np.zeros((2, 0)), camera, ("segmentation",), vary={"geom:g.size_scale": scales}
        )["segmentation"][..., 0]  # fmt: skip
    for i, r in enumerate(0.05 * scales):
        disc = np.pi * (camera.fx * r / np.sqrt(4 - r * r)) ** 2
        assert abs((ids[i] == 0).sum() / disc - 1) < 0.05  # of 100 pixels and more


def test_a_model_without_light_is_not_dark(renderer: Renderer) -> None:
    dark = "<mujoco><worldbody><geom type='plane' size='3 3 .1'/></worldbody></mujoco>"
    if renderer.backend() == "warp":
        pytest.skip("one kernel is enough")
    with Renderer(dark, backend=renderer.backend()) as lamp:
        assert lamp.render(np.zeros((1, 0)), CAMERA)["rgb"][0, -1].mean() > 80


@pytest.mark.parametrize(
    ("vary", "error"),
    [
        ({"geom:ball.colour": np.ones((1, 4))}, Unsupported),
        ({"geom:bal.rgba": np.ones((1, 4))}, Missing),
        ({"geom:ball.rgba": np.ones((1, 3))}, InputError),
        ({"geom:ball.rgba": np.ones((2, 4))}, InputError),
        ({"geom:floor.size_scale": np.ones(1)}, Unsupported),
        ({"geom:ball.size_scale": np.zeros(1)}, Unsupported),
    ],
)
def test_what_cannot_vary_is_refused_by_name(vary: dict[str, np.ndarray], error: type) -> None:
    with Renderer(MODEL, backend="rays") as renderer, pytest.raises(error):
        renderer.render(worlds(1), CAMERA, ("depth",), vary=vary)


def test_a_model_that_does_not_compile_and_an_unknown_preset_are_one_line() -> None:
    with pytest.raises(InputError, match="does not compile"):
        Renderer("<mujoco><worldbody><geom/></worldbody></mujoco>", backend="rays")
    with pytest.raises(Missing, match="fast, quality"):
        Renderer(MODEL, backend="rays", preset="ultra")


def test_png_holds_the_pixels() -> None:
    """Taken apart by the format's own rules: signature, header, one zlib stream of rows that begin with filter 0."""
    import struct
    import zlib

    rgb = np.random.default_rng(0).integers(0, 255, (5, 7, 3), np.uint8)
    data = png(rgb)
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and struct.unpack(">II", data[16:24]) == (7, 5)
    size = struct.unpack(">I", data[33:37])[0]
    rows = np.frombuffer(zlib.decompress(data[41 : 41 + size]), np.uint8).reshape(5, 22)
    assert not rows[:, 0].any() and np.array_equal(rows[:, 1:].reshape(5, 7, 3), rgb)
    near = viewable("depth", np.array([[1.0, 2.0, np.inf]], np.float32))[0]
    assert near[0] > near[1] > near[2] == 0
    ids = viewable("segmentation", np.array([[[0, 0], [1, 0], [-1, -1]]]))[0]
    assert not np.array_equal(ids[0], ids[1]) and not ids[2].any()
