"""Planted truth: what was put into simulated arms comes out, and what their recordings cannot show is said."""

from dataclasses import replace

import numpy as np
import pytest

from flyball.base import InputError, Missing, SignalSpec, Timed
from flyball.calibration.calibration import Calibration
from flyball.calibration.models import calibrate_model
from flyball.calibration.models.calibrate import calibrate_robots, prepared, read_model, rig_of
from flyball.calibration.models.testing import SAID, arm, record

ONE = {
    "j0.gain": 165.0, "j0.friction": 0.9, "j0.damping": 1.7, "j0.armature": 0.07, "j0.offset": -0.02,
    "command.delay": 0.014,
}  # fmt: skip
TWO = ONE | {"j1.gain": 85.0, "j1.offset": 0.03}
KNOWN = 'fit = ["torque_scale"]\nleave = ["payload"]\n[parameters."j1.torque_scale"]\nfixed = 1.0\n'


@pytest.fixture(scope="module")
def one():
    return calibrate_model(arm(1), record(ONE, joints=1), parameters='leave = ["payload"]', seed=0)


@pytest.fixture(scope="module")
def two():
    """The second joint never moves; the first one's gain and torque scale act only together."""
    episodes = record(TWO, still=[1])
    return calibrate_model(arm(2), episodes, parameters=KNOWN, seed=0)


def row(c: Calibration, path: str):
    return next(r for r in c.parameters if r.path == path)


def test_planted_values_lie_within_their_bands(one):
    assert one.verdict == "improved"
    assert {r.path for r in one.parameters} == set(ONE)
    assert all(r.identified for r in one.parameters), one.lines()
    inside = {r.path: r.low <= ONE[r.path] <= r.high for r in one.parameters}
    # Of six 90 % bands two or more miss once in nine times; three or more once in sixty.
    assert sum(inside.values()) >= 4, (inside, one.lines())
    for r in one.parameters:
        assert r.mean == pytest.approx(ONE[r.path], rel=0.15), r


def test_held_out_error_falls_to_the_noise_and_the_bands_hold(one):
    h = one.held_out
    assert h.after < 0.1 * h.before
    assert h.after == pytest.approx(h.noise_floor, rel=0.25)
    assert 0.8 <= h.coverage <= 0.99
    assert one.samples.shape[1] == len(one.paths)


def test_the_same_seed_gives_the_same_answer(one):
    again = calibrate_model(arm(1), record(ONE, joints=1), parameters='leave = ["payload"]', seed=0)
    assert again.digest == one.digest


def test_a_joint_that_never_moves_is_not_identified(two):
    for kind in ("friction", "damping", "armature"):
        found = row(two, f"j1.{kind}")
        assert not found.identified, found
        assert found.note, found
    assert any("j1.armature" in line and "not" in line for line in two.lines())


def test_what_acts_only_together_is_said(two):
    gain, scale = row(two, "j0.gain"), row(two, "j0.torque_scale")
    assert not gain.identified and not scale.identified
    assert gain.note == "only in combination with j0.torque_scale"
    assert scale.note == "only in combination with j0.gain"
    product = two.best[two.paths.index("j0.gain")] * two.best[two.paths.index("j0.torque_scale")]
    assert product == pytest.approx(TWO["j0.gain"], rel=0.03)
    assert row(two, "j0.friction").identified


def test_robots_of_a_kind_share_what_they_share():
    truth = {"a": 140.0, "b": 150.0, "c": 160.0}
    episodes = [
        e for k, (name, gain) in enumerate(truth.items())
        for e in record(ONE | {"j0.gain": gain}, joints=1, episodes=2, seconds=2, seed=k, robot=name)
    ]  # fmt: skip
    settings = 'leave = ["payload"]\n[parameters."command.delay"]\nowner = "shared"\n'
    rig = rig_of(read_model(arm(1)), episodes, parameters=settings)
    found = calibrate_robots(rig, prepared(rig, episodes).replays).calibrations
    assert list(found) == ["", "a", "b", "c"]
    for name, gain in truth.items():
        assert found[name].best[found[name].paths.index("j0.gain")] == pytest.approx(gain, rel=0.03)
    kind, own = found[""], found["a"]
    at = kind.paths.index("j0.gain")
    assert np.std(kind.samples[:, at]) > 2 * np.std(own.samples[:, at])  # a robot that nobody recorded is less known
    delays = {c.best[c.paths.index("command.delay")] for c in found.values()}
    assert len(delays) == 1


# ---- bad input


def changed(episode, **signals):
    """An episode with other values, times or names."""
    made = dict(episode.signals)
    for name, change in signals.items():
        key = f"joint_{name}.position"
        made[key] = change(made[key])
    return replace(episode, signals=made)


def refused(episodes, model=None, parameters=None) -> str:
    with pytest.raises(InputError) as info:
        calibrate_model(model or arm(2), episodes, parameters=parameters)
    text = info.value.line()
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def sound():
    return record(ONE, episodes=2, seconds=2.0)


def test_commands_in_another_order_are_recognised(sound):
    swapped = [changed(e, commands=lambda s: replace(s, values=s.values[:, ::-1])) for e in sound]
    assert "its command moves j" in refused(swapped)


def test_degrees_for_radians_are_recognised(sound):
    degrees = [changed(e, states=lambda s: replace(s, values=np.degrees(s.values))) for e in sound]
    assert "degrees for radians" in refused(degrees)


def test_degrees_that_are_declared_are_converted(sound):
    def declared(s):
        return replace(s, spec=replace(s.spec, unit="deg"), values=np.degrees(s.values))

    rig = rig_of(read_model(arm(2)), sound)
    other = rig.replay(changed(sound[0], states=declared, commands=declared))
    assert np.allclose(other.measured, rig.replay(sound[0]).measured)
    assert np.allclose(other.controls, rig.replay(sound[0]).controls)


def test_a_clock_that_jumps_is_refused(sound):
    late = [
        changed(e, states=lambda s: replace(s, t_ns=s.t_ns + 2 * 10**9 * (np.arange(len(s.t_ns)) > 99))) for e in sound
    ]
    assert "clock jump" in refused(late)


def test_recordings_without_motion_are_refused(sound):
    still = [
        changed(e, **dict.fromkeys(("states", "commands"), lambda s: replace(s, values=0 * s.values))) for e in sound
    ]
    assert "no motion" in refused(still)


def test_another_robot_is_refused(sound):
    names = ["shoulder", "elbow"]
    others = [replace(e, labels={"joint_states.name": names, "joint_commands.name": names}) for e in sound]
    assert "another robot" in refused(others)
    unnamed = [replace(e, labels={}) for e in sound]
    assert "2 columns without names, the model 3 joints" in refused(unnamed, arm(3))


def test_missing_signals_are_named(sound):
    blind = [replace(e, signals={"joint_states.position": e.signals["joint_states.position"]}) for e in sound]
    assert "no command signal" in refused(blind)


def test_one_bad_recording_does_not_keep_the_others_from_being_used(sound):
    bad = changed(sound[0], states=lambda s: replace(s, values=np.degrees(s.values)))
    rig = rig_of(read_model(arm(2)), [*sound, bad])
    usable = prepared(rig, [*sound, bad], ["x", "y", "z"])
    assert len(usable.replays) == 2
    assert usable.data == ("x", "y")
    assert "degrees for radians" in usable.left_out[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[parameters."j0.frction"]\nlow = 1.0', "did you mean 'j0.friction'"),
        ('[parameters."j0.friction"]\nlow = 2.0\nhigh = 1.0', "bounds the wrong way round"),
        ('[parameters."j0.friction"]\nnominal = 100.0', "nominal = 100"),
        ('[parameters."j0.friction"]\nlowest = 1.0', "no key named 'lowest'"),
        ('[parameters."j0.friction"]\nowner = "me"', "robot, shared, episode"),
        ('fit = ["magic"]', "no kind of parameter named 'magic'"),
        ('[parts]\nj9 = "XL330"', "no joint named 'j9'"),
        ("low = [", "not TOML"),
    ],
)
def test_a_bad_file_of_parameters_is_one_line(sound, text, said):
    assert said in refused(sound, parameters=text + "\n")


def test_fixed_values_and_ranges_are_kept(sound):
    text = '[parameters."j0.friction"]\nfixed = 0.9\n[parameters."j1.gain"]\nlow = 60.0\nhigh = 90.0\n'
    rig = rig_of(read_model(arm(2)), sound, parameters=text)
    assert all("j0.friction" not in level for level in rig.levels)
    assert rig.scene.parameter("j0.friction").nominal == 0.9
    gain = rig.scene.parameter("j1.gain")
    assert (gain.low, gain.nominal, gain.high) == (60.0, 90.0, 90.0)  # what the model says is not in the range
    assert gain.nominal != SAID["gain"]


def test_part_numbers_give_ranges(sound):
    rig = rig_of(read_model(arm(2)), sound, parameters='[parts]\nj0 = "XL330-M288-T"\n')
    assert rig.scene.parameter("j0.friction").high < SAID["friction"]


def test_a_urdf_without_drives_gets_some(sound):
    urdf = """<robot name="arm"><link name="base"/>
    <link name="l0"><inertial><origin xyz="0 0 .1"/><mass value="2"/>
      <inertia ixx=".01" iyy=".01" izz=".005" ixy="0" ixz="0" iyz="0"/></inertial></link>
    <link name="l1"><inertial><origin xyz="0 0 .1"/><mass value="1.4"/>
      <inertia ixx=".01" iyy=".01" izz=".005" ixy="0" ixz="0" iyz="0"/></inertial></link>
    <joint name="j0" type="continuous"><parent link="base"/><child link="l0"/><axis xyz="0 1 0"/></joint>
    <joint name="j1" type="continuous"><parent link="l0"/><child link="l1"/><origin xyz="0 0 .2"/><axis xyz="1 0 0"/>
    </joint></robot>"""
    rig = rig_of(read_model(urdf), sound)
    assert rig.layout.actuators == ("j0", "j1")
    assert any("no drive" in note for note in rig.notes)
    assert rig.scene.parameter("j0.gain").high / rig.scene.parameter("j0.gain").low > 100


def test_commands_of_another_kind_are_refused(sound):
    motors = arm(2).replace("<position", "<motor").replace(' kp="120.0" kv="6"', "")
    assert "takes effort commands, the recordings hold position commands" in refused(sound, motors)


def test_an_unknown_episode_signal_map_is_said(sound):
    with pytest.raises(Missing, match="no position signal"):
        rig_of(read_model(arm(2)), sound, parameters='[signals]\nposition = "arm.q"\n')


# ---- a drive that is switched off


def with_drive(episode, on_s: float, off_s: float):
    """The episode, with the drive on in that time only, and the arm somewhere else in the other."""
    made = dict(episode.signals)
    seen = made["joint_states.position"]
    t = (seen.t_ns - seen.t_ns[0]) * 1e-9
    on = (t >= on_s) & (t < off_s)
    values = np.array(seen.values)
    values[~on] -= 0.7
    made["joint_states.position"] = replace(seen, values=values)
    made["servo.torque_enable"] = Timed(SignalSpec("servo.torque_enable", (), "bool"), seen.t_ns, on)
    return replace(episode, signals=made)


def test_only_what_the_drive_did_takes_part():
    whole = record(ONE, joints=1, episodes=3, seconds=2)
    rig = rig_of(read_model(arm(1)), whole)
    full = rig.replay(whole[0])
    early, late = rig.replay(with_drive(whole[0], 0.0, 1.2)), rig.replay(with_drive(whole[0], 0.8, 9.0))
    n = len(early.t)
    assert early.t[-1] < 1.2 <= full.t[n] and np.array_equal(early.measured, full.measured[:n])
    assert late.t[0] == 0 and np.array_equal(late.measured, full.measured[-len(late.t) :])
    assert full.t[-1] - late.t[-1] == pytest.approx(0.8, abs=0.011)


def test_a_recording_with_the_drive_off_is_left_out_and_said():
    whole = record(ONE, joints=1, episodes=3, seconds=2)
    rig = rig_of(read_model(arm(1)), whole)
    ready = prepared(rig, [*whole[1:], with_drive(whole[0], 0.0, 0.3)])
    assert [r.name for r in ready.replays] == ["run1", "run2"]
    assert any("run0" in note and "drives that are on" in note for note in ready.left_out), ready.left_out
