"""Cameras over an attempt: which frame a real camera would have delivered by when, its stamp, its losses, its noise."""

import warnings
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.rendering.backends import tried
from flyball.scenes import Camera, Choice, Noise
from flyball.tasks import tasks
from flyball.tasks.feeds import Feeds
from flyball.tasks.gymnasium import TaskEnv, TaskVectorEnv
from flyball.tasks.task import varied
from flyball.tasks.world import World

PERIOD, H = 0.02, 0.002
EVERY = round(PERIOD / H)
LIFT = tasks.load("lift-fragile-v1")


class Counter:
    """Stands for a renderer: a picture's pixels say which substep it shows, its third channel is 100."""

    def __init__(self):
        self.drawn = 0

    def reads(self, simulation):
        return ["joint:clock.position"]

    def state(self, read, n):
        return read["joint:clock.position"].reshape(n, -1), {}

    def render(self, positions, camera, kinds, vary, particles):
        self.drawn += len(positions)
        substep = positions[:, 0].astype(int)
        pixels = np.stack([substep // 256, substep % 256, np.full_like(substep, 100)], axis=-1).astype(np.uint8)
        return {"rgb": np.tile(pixels[:, None, None], (1, camera.height, camera.width, 1))}


def watch(camera, periods, worlds=(0,), noisy=True, **timing):
    """(substep shown (n, periods + 1), stamps, pictures, number drawn), read at times 0, 0.02, ..."""
    counter, n = Counter(), len(worlds)
    views = SimpleNamespace(
        renderer=counter, camera=lambda c: c, fields=lambda simulation, c: {}, timed=lambda watching: None,
        timing=lambda c, key: np.broadcast_to(timing.get(key, getattr(c, key)), n),
    )  # fmt: skip
    feeds = Feeds(views, [camera], ("rgb",), PERIOD, H)
    clock = SimpleNamespace(n=n, read=lambda names: {names[0]: np.zeros((n, 1))})
    feeds.begin(clock, np.asarray(worlds), noisy=noisy)
    pictures, stamps = [feeds.read()["pixels/c"]], [feeds.stamps["c"]]
    for k in range(periods):
        now = k * EVERY + np.arange(1, EVERY + 1.0)
        feeds.advance({"joint:clock.position": np.tile(now[None, :, None], (n, 1, 1))})
        pictures.append(feeds.read()["pixels/c"])
        stamps.append(feeds.stamps["c"])
    seen = np.stack(pictures, axis=1)
    return seen[..., 0, 0, 0].astype(int) * 256 + seen[..., 0, 0, 1], np.stack(stamps, axis=1), seen, counter.drawn


def camera(rate, delay, **rest):
    return Camera.with_fov("c", 4, 3, 50, rate_hz=rate, delay_s=delay, **rest)


@pytest.mark.parametrize(("rate", "delay"), [(15, 0.04), (30, 0.1), (60, 0.0), (120, 0.011), (7, 0.5), (50, 0.02)])
def test_a_frame_arrives_one_delay_after_it_was_taken(rate, delay):
    shown, stamps, _, _ = watch(camera(rate, delay), 60)
    taken = np.arange(-int(delay * rate) - 2, 200) / rate
    for k in range(61):
        arrived = taken[taken + delay <= k * PERIOD + 1e-9]
        assert abs(stamps[0, k] - arrived[-1]) <= H / 2 + 1e-12
        assert shown[0, k] == max(0, round(stamps[0, k] / H)), "a picture from before the attempt shows the start"


def test_the_case_of_15_hz_and_40_ms_by_hand():
    """Frames are taken at 0, 66.7, 133.3 ms and arrive at 40, 106.7, 173.3 ms."""
    shown, stamps, _, _ = watch(camera(15, 0.04), 9)
    np.testing.assert_allclose(stamps[0], [-0.066, -0.066, 0, 0, 0, 0, 0.066, 0.066, 0.066, 0.134], atol=1e-12)
    assert shown[0].tolist() == [0, 0, 0, 0, 0, 0, 33, 33, 33, 67]


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.03])
def test_without_a_rate_there_is_a_frame_per_control_period(delay):
    shown, stamps, _, drawn = watch(camera(0, delay), 20)
    np.testing.assert_allclose(stamps[0], np.arange(21) * PERIOD - delay, atol=H / 2)
    np.testing.assert_array_equal(shown[0], np.maximum(np.rint(stamps[0] / H), 0))
    assert drawn == 21


def test_only_frames_that_are_read_are_drawn():
    assert watch(camera(500, 0.0), 10)[3] == 11
    assert watch(camera(5, 0.0), 50)[3] == 6


def test_a_lost_frame_leaves_the_one_before_it():
    whole, _, _, _ = watch(camera(100, 0.0), 400)
    shown, stamps, _, _ = watch(camera(100, 0.0, dropout=0.3), 400, worlds=(3, 8))
    fresh = shown == whole
    assert 0.6 < fresh.mean() < 0.8 and (shown[0] != shown[1]).any()
    np.testing.assert_allclose(shown * H, stamps, atol=1e-12)
    late = (whole - shown)[:, 1:]
    assert (late >= 0).all() and (np.diff(shown, axis=1) >= 0).all()
    # two frames a period: where only the second is lost the first is seen, which was taken 10 ms before
    assert (late == round(0.01 / H)).mean() == pytest.approx(0.3 * 0.7, abs=0.05)
    alone = watch(camera(100, 0.0, dropout=0.3), 400, worlds=(8,))[0]
    np.testing.assert_array_equal(alone[0], shown[1])
    np.testing.assert_array_equal(watch(camera(100, 0.0, dropout=0.3), 400, noisy=False)[0], whole)


@pytest.mark.parametrize("rate", [15, 0])
def test_delays_and_losses_may_differ_between_the_cells(rate):
    delay, dropout = np.array([0.0, 0.013, 0.3]), np.array([0.0, 0.5, 0.0])
    shown, stamps, _, _ = watch(camera(rate, 9.0), 60, worlds=(4, 5, 6), delay_s=delay, dropout=dropout)
    for i, world in enumerate((4, 5, 6)):
        own = camera(rate, delay[i], dropout=dropout[i])
        alone, stamped, _, _ = watch(own, 60, worlds=(world,))
        np.testing.assert_array_equal(shown[i], alone[0])
        np.testing.assert_array_equal(stamps[i], stamped[0])


def test_noise_belongs_to_the_frame():
    noisy = camera(10, 0.0, noise=Noise(read=5.0))
    _, stamps, seen, _ = watch(noisy, 20, worlds=(1, 2))
    third = seen[..., 2].astype(int)
    for k in range(20):
        stands = stamps[0, k] == stamps[0, k + 1]
        assert stands == np.array_equal(third[0, k], third[0, k + 1])
    assert not np.array_equal(third[0], third[1]) and 3 < (third - 100).std() < 7
    np.testing.assert_array_equal(watch(noisy, 20, worlds=(2,))[2][0], seen[1])


# in a task's world ----------------------------------------------------------------------------------------

painted = pytest.mark.skipif(not (tried("egl").works or tried("osmesa").works), reason="no OpenGL")
VIEW = Camera.looking("view", 32, 24, 50, at=(0.42, 0, 0.05), from_=(0.9, -0.5, 0.5))


def run(cameras, steps=6, **rest):
    """(world, pictures by camera, what was there to be seen)."""
    world = World(LIFT, 2, cameras=cameras, **rest)
    seen, truth = [world.reset({}, [1, 2])], [world.see(VIEW)["rgb"]]
    for k in range(steps):
        action = LIFT.rest_action(world.values)
        action[:, :3] += 0.3 * (k + 1)
        seen.append(world.step(action))
        truth.append(world.see(VIEW)["rgb"])
    return world, {n: np.stack([o[f"pixels/{n}"] for o in seen], 1) for n in world.feeds.stamps}, np.stack(truth, 1)


@painted
def test_a_world_shows_what_there_is_to_see():
    late = replace(VIEW, name="late", delay_s=0.08)
    _, seen, truth = run([VIEW, late])
    np.testing.assert_array_equal(seen["view"], truth)
    np.testing.assert_array_equal(seen["late"][:, 2:], truth[:, :-2])
    assert (truth[:, 1:] != truth[:, :-1]).any(axis=(2, 3, 4)).all(), "the arm moves, or nothing was tested"


@painted
def test_replayed_pictures_are_those_that_were_seen():
    world, seen, _ = run([replace(VIEW, rate_hz=15, delay_s=0.04, noise=Noise(read=2))])
    rest = LIFT.rest_action(world.values)[:, None]
    actions = np.repeat(rest, 7, axis=1)
    actions[:, :, :3] += 0.3 * (np.arange(7) + 1)[:, None]
    again = world.replay({}, actions, world.starts, [1, 2])
    np.testing.assert_array_equal(again.signals["pixels/view"], seen["view"])


@painted
def test_an_environment_with_pixels_passes_gymnasiums_checker():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", message=".*(infinity|not symmetric|normalized|spec).*")
        env = TaskEnv(LIFT, cameras=[replace(VIEW, width=40, height=36)], render_mode="rgb_array")
        check_env(env, skip_render_check=True)
    picture = env.render()
    assert picture.shape == (240, 320, 3) and picture.dtype == np.uint8 and picture.std() > 10
    env.close()
    with pytest.raises(InputError, match="rgb_array"):
        TaskEnv(LIFT, render_mode="human")


@painted
def test_many_environments_see_what_single_ones_see():
    cameras = [replace(VIEW, rate_hz=15, delay_s=0.04, dropout=0.3, noise=Noise(read=2))]
    many, one = TaskVectorEnv(LIFT, 2, threads=1, cameras=cameras), TaskEnv(LIFT, cameras=cameras)
    (together, info), (alone, info_alone) = many.reset(seed=3), one.reset(seed=4)
    action = np.zeros((2, LIFT.embodiment.action_size))
    for _ in range(8):
        assert np.array_equal(together["pixels/view"][1], alone["pixels/view"])
        assert info["captured_s"]["view"][1] == info_alone["captured_s"]["view"]
        assert many.observation_space.contains(together)
        (together, *_, info), (alone, *_, info_alone) = many.step(action), one.step(action[0])
    assert 0 <= info_alone["captured_s"]["view"] <= 8 / LIFT.control_hz - 0.04


def test_cameras_of_the_scene_are_known_by_name():
    task = varied(LIFT, ())
    task.scene = replace(LIFT.scene, cameras=(VIEW,))
    assert World(task, 1, cameras=["view"]).feeds.signals == {"pixels/view": (VIEW, "rgb")}
    with pytest.raises(Missing, match="no camera named 'wrist'.*view"):
        World(task, 1, cameras=["wrist"])
    with pytest.raises(InputError, match="names of their own"):
        World(task, 1, cameras=["view", VIEW])


def test_labels_need_no_opengl(monkeypatch):
    monkeypatch.setenv("FLYBALL_RENDERER", "rays")
    env = TaskVectorEnv(LIFT, 2, threads=1, cameras=[VIEW], pictures=("depth", "segmentation"))
    observation, _ = env.reset(seed=1)
    assert env.observation_space.contains(observation)
    assert observation["depth/view"].shape == (2, 24, 32) and np.isfinite(observation["depth/view"]).any()
    assert observation["segmentation/view"].shape == (2, 24, 32, 2)
    with pytest.raises(Unsupported, match="two states"):
        World(LIFT, 1, cameras=[VIEW], pictures=("flow",))


def test_variations_of_delay_and_losses_hold_where_the_camera_watches(monkeypatch):
    monkeypatch.setenv("FLYBALL_RENDERER", "rays")
    task = varied(LIFT, [Choice("camera:view.delay_s", (0.0, 0.1))])
    world = World(task, 6, cameras=[VIEW], pictures=("depth",))
    world.reset({}, range(6))
    late = world.values["camera:view.delay_s"]
    assert set(late) == {0.0, 0.1}
    for _ in range(5):
        world.step(LIFT.rest_action(world.values))
    np.testing.assert_allclose(world.feeds.stamps["view"], 5 / LIFT.control_hz - late)
    with pytest.raises(Unsupported, match=r"camera:view\.delay_s varies, but the camera does not watch"):
        blind = varied(task, ())
        blind.scene = replace(task.scene, cameras=(VIEW,))
        World(blind, 1).reset({}, [0])
    with pytest.raises(InputError, match=r"camera:view\.dropout = .*0 to 1"):
        World(LIFT, 1, cameras=[VIEW], pictures=("depth",)).reset({"camera:view.dropout": np.array([1.5])}, [0])
