import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from flyball.base import InputError, Missing, SignalSpec, Timed
from flyball.calibration.learning import Budget
from flyball.calibration.problem import ReplayProblem
from flyball.calibration.recordings import calibrate
from flyball.calibration.rigs import rig_for, rigs
from flyball.calibration.rigs.cube import WIDTH, SpringCube, TossedCube
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.episodes import Episode
from flyball.episodes.formats import read_one

PERIOD = 1 / 148


def toss(number, t, pose, twist):
    t_ns = (np.asarray(t) * 1e9).astype(np.int64)
    signals = {
        "cube.pose": Timed(SignalSpec("cube.pose", (7,)), t_ns, pose),
        "cube.twist": Timed(SignalSpec("cube.twist", (6,)), t_ns, twist),
    }
    return Episode("cube_tosses", signals=signals, labels={"toss": number})


def flight(seed, frames=60, height=3.0, noise=0.0):
    """A cube in free flight: the episode, its start position, velocity, rotation and body-frame spin."""
    rng = np.random.default_rng(seed)
    t = np.arange(frames) * PERIOD
    p0, v, w = np.array([0.1, -0.2, height]), rng.normal(0, 1, 3), rng.normal(0, 6, 3)
    r0 = Rotation.random(rng=rng)
    p = p0 + t[:, None] * v + 0.5 * np.array([0, 0, -9.81]) * t[:, None] ** 2 + rng.normal(0, noise, (frames, 3))
    r = r0 * Rotation.from_rotvec(t[:, None] * w) * Rotation.from_rotvec(rng.normal(0, 3 * noise, (frames, 3)))
    twist = np.concatenate([np.tile(v, (frames, 1)), np.tile(w, (frames, 1))], axis=1)
    twist += rng.normal(0, 100 * noise, twist.shape)
    return toss(seed, t, np.concatenate([p, r.as_quat(scalar_first=True)], axis=1), twist), p0, v, r0, w


def test_every_rig_is_found_by_name_and_names_itself():
    for name in rigs.names():
        assert rigs.load(name)().name == name


def test_which_rig_is_asked_of_the_episode(bench):
    cube = flight(0)[0]
    assert rig_for(bench[0]) == "servo-pendulum" and rig_for(cube) == "tossed-cube"
    assert rig_for(Episode("arm")) == ""
    assert rig_for(cube, ["servo-pendulum"]) == ""
    with pytest.raises(Missing, match="tossed-cube"):
        rig_for(cube, ["tosed-cube"])


@pytest.mark.parametrize("seed", range(4))
def test_the_start_of_a_toss_is_that_of_its_flight(seed):
    episode, p, v, r, w = flight(seed)
    position, velocity = TossedCube().replay(episode).start["cube"]
    np.testing.assert_allclose(position[:3], p, atol=1e-9)
    np.testing.assert_allclose(velocity, np.concatenate([v, w]), atol=1e-6)
    assert (Rotation.from_quat(position[3:], scalar_first=True).inv() * r).magnitude() < 1e-6


def test_noise_of_the_tracker_is_averaged_out_of_the_start():
    episode, p, v, _, w = flight(5, noise=0.001)
    position, velocity = TossedCube().replay(episode).start["cube"]
    assert np.abs(position[:3] - p).max() < 0.001
    assert np.abs(velocity[:3] - v).max() < 0.005 and np.abs(velocity[3:] - w).max() < 0.02


def test_a_replayed_flight_is_the_flight():
    """The engine takes body-frame spin and world-frame velocity as the recordings give them."""
    rig, (episode, *_) = TossedCube(), flight(1)
    problem = ReplayProblem(rig.scene, rig.compared, [rig.replay(episode)], rig.levels[0])
    nominal = np.array([[p.nominal for p in problem.parameters]])
    assert problem.errors(nominal)[0, 0] < 0.01


def test_frames_after_the_first_touch_do_not_enter_the_start():
    episode, _, v, _, _ = flight(2, height=0.6, frames=60)
    pose = episode.signals["cube.pose"].values
    landed = int(np.argmax(pose[:, 2] < WIDTH / 2))
    assert 8 < landed < 59
    pose[landed:, :3] = pose[landed, :3]
    _, velocity = TossedCube().replay(episode).start["cube"]
    np.testing.assert_allclose(velocity[:3], v, atol=1e-6)


def test_a_toss_too_short_is_refused():
    with pytest.raises(InputError, match="8 finite frames"):
        TossedCube().replay(flight(0, frames=5)[0])


def test_the_split_of_tosses_is_the_published_one():
    rig = TossedCube()
    replays = [rig.replay(flight(0, frames=8)[0])] * 570
    replays = [type(r)(**{**vars(r), "name": f"toss {i}"}) for i, r in enumerate(replays)]
    (fold,) = rig.folds(replays[::-1])
    order = np.random.default_rng(0).permutation(570)
    assert fold.train == tuple(f"toss {i}" for i in order[:60])
    assert fold.test == tuple(f"toss {i}" for i in order[60:260])


def test_friction_of_simulated_tosses_is_recovered():
    rig, truth, tosses = TossedCube(), np.array([[0.25, 0.006, 0.9]]), []
    for seed in range(12):
        episode = flight(seed, frames=110, height=0.45)[0]
        problem = ReplayProblem(rig.scene, rig.compared, [rig.replay(episode)], rig.levels[0])
        track = problem.predict(truth)[0] + np.random.default_rng(seed).normal(0, 0.0005, (110, 3))
        episode.signals["cube.pose"].values[:, :3] = track
        tosses.append(rig.replay(episode))
        # The orientations are still those of a flight: keep the start that was simulated.
        tosses[-1].start["cube"] = problem.replays[0].start["cube"]  # type: ignore[index]
    c = calibrate(rig, tosses, seed=0, budget=Budget(population=8, generations=10, members=24))
    friction = c.parameters[c.paths.index("contact.friction")]
    assert c.verdict == "improved" and friction.identified
    assert friction.low <= 0.25 <= friction.high


def test_spring_and_damper_are_the_same_contact_said_otherwise():
    episode = flight(3, height=0.3, frames=60)[0]
    tracks = []
    for rig in (TossedCube(), SpringCube()):
        problem = ReplayProblem(rig.scene, rig.compared, [rig.replay(episode)], rig.levels[0])
        tracks.append(problem.predict(np.array([[p.nominal for p in problem.parameters]])))
    np.testing.assert_allclose(tracks[0], tracks[1], atol=1e-9)


def test_tosses_are_replayed_on_a_second_engine():
    pytest.importorskip("pydrake")
    rig, episode = SpringCube(), flight(3, height=0.3, frames=60)[0]
    problem = ReplayProblem(rig.scene, rig.compared, [rig.replay(episode)], rig.levels[0], engine="drake")
    # Friction and softness must both act: the cube lands after 40 frames.
    one, rough, soft = problem.predict(np.array([[0.2, 2500.0, 100.0], [0.8, 2500.0, 100.0], [0.2, 400.0, 10.0]]))
    assert np.isfinite(one).all() and one[-1, 2] > 0.02
    assert np.abs(one - rough).max() > 0.005 and np.abs(one - soft).max() > 0.005


def test_torque_off_reaches_the_drive(bench):
    rig = ServoPendulum()
    dropped = next(e for e in bench if e.labels["file"] == "drop_kp400")
    replay = rig.replay(dropped)
    off = ~dropped.signals["servo.torque_enable"].values
    assert off.any() and (replay.controls[off] == 0).all() and (replay.controls[~off, 1:] == (-1, 1)).all()


@pytest.mark.parametrize("where", ["joint_states.position", "joint_commands.position"])
def test_positions_that_are_not_finite_are_refused(bench, where):
    signal = bench[0].signals[where]
    spoilt = signal.values.copy()
    spoilt[7] = np.nan
    episode = type(bench[0])(
        **{**vars(bench[0]), "signals": {**bench[0].signals, where: Timed(signal.spec, signal.t_ns, spoilt)}}
    )
    with pytest.raises(InputError, match="not finite"):
        ServoPendulum().replay(episode)


def test_real_servo_recordings_are_replayed_as_published(realdata):
    rig = ServoPendulum()
    episodes = [read_one(p) for p in sorted((realdata / "servo_xl330").glob("*.mcap"))]
    assert len(episodes) == 16 and all(rig_for(e) == rig.name for e in episodes)
    problem = ReplayProblem(rig.scene, rig.compared, [rig.replay(e) for e in episodes], rig.levels[2], engine="servo")
    nominal = np.array([p.nominal for p in problem.parameters])
    # Rounded values of a fit to these recordings: far better than the data sheet on every one of the gains.
    fitted = np.array([0.83, 0.037, 0.003, 0.006, 0.0014, 0.0037, -0.017, 0.2, 0.2, 0.28, 0.01])
    before, after = problem.errors(np.stack([nominal, fitted]))
    assert 0.14 < before.mean() < 0.19
    assert after.mean() < 0.035


def test_real_tosses_are_replayed_as_published(realdata):
    rig = TossedCube()
    numbers = np.random.default_rng(0).permutation(570)[60:90]
    paths = [realdata / "cube_tosses" / f"toss_{i:03d}.mcap" for i in numbers]
    replays = [rig.replay(read_one(p)) for p in paths]
    problem = ReplayProblem(rig.scene, rig.compared, replays, rig.levels[0], unit_size=rig.unit_size)
    default, authors = problem.errors(np.array([[1.0, 0.02, 1.0], [0.18, 0.02, 1.0]])).mean(axis=1)
    # Published on 200 tosses: 0.956 and 0.137 cube widths.
    assert 0.8 < default < 1.2 and 0.1 < authors < 0.17
