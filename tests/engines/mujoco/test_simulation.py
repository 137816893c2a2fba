"""What MuJoCo's worlds read and take, beyond the contract of all engines."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flyball.base import FlyballError, InputError, Missing, Unsupported
from flyball.engines.mujoco import MujocoEngine, simulation
from flyball.engines.testing import MIXED
from flyball.scenes import Scene

SENSED = Scene(
    "sensed",
    '<mujoco><compiler angle="radian"/><option timestep="0.002"/><worldbody>'
    '<geom name="floor" type="plane" size="5 5 1"/>'
    '<body name="box" pos="0 0 .1"><freejoint/><geom name="box" type="box" size=".1 .1 .1" mass="2"/>'
    '<site name="imu" pos=".05 0 0"/></body>'
    '<body name="arm" pos="2 0 1"><joint name="arm" type="hinge" axis="0 1 0" range="-1 1" limited="true"/>'
    '<geom name="arm" type="capsule" size=".03" fromto="0 0 0 .4 0 0" mass="1"/>'
    '<body name="rod" pos=".4 0 0"><joint type="slide" axis="1 0 0"/><geom name="rod" size=".05" mass=".3"/></body>'
    '</body></worldbody><tendon><fixed name="cable"><joint joint="arm" coef="0.5"/></fixed></tendon>'
    '<actuator><position name="arm" joint="arm" kp="40" kv="3"/>'
    '<general name="slow" joint="arm" dyntype="filter" dynprm=".1" gainprm="0.1"/></actuator>'
    '<sensor><accelerometer name="acc" site="imu"/><gyro name="gyro" site="imu"/><jointpos name="angle" joint="arm"/>'
    '<framelinvel name="v" objtype="xbody" objname="rod"/><frameangvel name="w" objtype="xbody" objname="rod"/>'
    "</sensor></mujoco>",
    (),
)


def opened(scene=SENSED, n=1, **settings):
    return MujocoEngine().open(scene, n, threads=1, **settings)


def test_an_imu_at_rest_feels_gravity_and_in_a_spin_the_rate():
    sim = opened()
    sim.step(np.zeros((1, 1000, 2)))
    np.testing.assert_allclose(sim.read(["sensor:acc"])["sensor:acc"], [[0, 0, 9.81]], atol=1e-6)
    sim.place("box", np.array([[0, 0, 3.0, 1, 0, 0, 0]]))
    sim.push("box", np.array([[0, 0, 0, 0, 0, 4.0]]))
    seen = sim.read(["sensor:gyro", "sensor:acc"])
    np.testing.assert_allclose(seen["sensor:gyro"], [[0, 0, 4.0]], atol=1e-9)
    np.testing.assert_allclose(seen["sensor:acc"], [[-(4.0**2) * 0.05, 0, 0]], atol=1e-9)  # falling: only w^2 r


def test_velocities_of_bodies_are_those_of_their_frames_in_world_axes():
    sim = opened()
    names = ["body:rod.velocity", "sensor:v", "sensor:w", "body:rod.position", "time"]
    seen = sim.rollout(np.tile([0.7, 3.0], (1, 200, 1)), 1, dict.fromkeys(names, "last"))
    linear, angular = np.split(seen["body:rod.velocity"][0], 2, axis=1)
    np.testing.assert_allclose(linear, seen["sensor:v"][0], atol=1e-12)
    np.testing.assert_allclose(angular, seen["sensor:w"][0], atol=1e-12)
    moved = np.gradient(seen["body:rod.position"][0], sim.timestep, axis=0)
    assert np.abs(moved[20:-1] - linear[20:-1]).max() < 0.02 * np.abs(linear).max()


def test_every_read_is_of_its_time():
    sim = opened()
    reads = dict.fromkeys(["sensor:angle", "joint:arm.position", "tendon:cable.length", "actuator:arm.force"], "all")
    seen = {k: x[0, :, 0, 0] for k, x in sim.rollout(np.tile([0.7, 0.0], (1, 50, 1)), 1, reads).items()}
    q = seen["joint:arm.position"]
    np.testing.assert_array_equal(seen["sensor:angle"], q)  # of the end of the substep, as the joint itself
    np.testing.assert_allclose(seen["tendon:cable.length"], 0.5 * q, rtol=1e-15)
    assert [sim.lag(f) for f in reads] == [0, 0, 0, sim.timestep]
    # the force acted during the substep: it is that of the position and speed at its start
    v = np.concatenate([[0], np.diff(np.concatenate([[0], q])) / sim.timestep])[:-1]
    np.testing.assert_allclose(
        seen["actuator:arm.force"], 40 * (0.7 - np.concatenate([[0], q[:-1]])) - 3 * v, atol=1e-9
    )
    # and in a read, that of the state now
    now = sim.read(["actuator:arm.force", "joint:arm.velocity"])
    want = 40 * (0.7 - q[-1]) - 3 * now["joint:arm.velocity"][0, 0]
    np.testing.assert_allclose(now["actuator:arm.force"][0, 0], want, atol=1e-9)


def test_asking_for_contacts_changes_no_bits_and_keeps_parameters():
    mass = np.array([1.0, 3.0])
    asked, plain = (opened(n=2) for _ in range(2))
    for sim in (asked, plain):
        sim.set({"body:box.mass": mass, "world:gravity": np.array([[0, 0, -9.81], [0, 0, -5.0]])})
        sim.reset()
        sim.step(np.zeros((2, 10, 2)))
    asked.read(["contact:world|box.wrench", "contact:box|arm.wrench"])
    both = [
        sim.step(np.zeros((2, 600, 2)), {"joint:box.position": "all"})["joint:box.position"] for sim in (asked, plain)
    ]
    np.testing.assert_array_equal(*both)
    np.testing.assert_array_equal(asked.save(), plain.save())
    force = asked.read(["contact:world|box.wrench"])["contact:world|box.wrench"]
    np.testing.assert_allclose(force[:, 2], mass * [9.81, 5.0], rtol=1e-6)
    np.testing.assert_array_equal(asked.get("body:box.mass")[:, 0], mass)


def test_long_rollouts_go_in_pieces_with_the_same_bits(monkeypatch):
    reads = {"body:rod.position": "all", "sensor:angle": "mean", "time": "last", "actuator:slow.force": "max"}
    controls = np.random.default_rng(3).uniform(-1, 1, (2, 120, 2))
    whole = opened(n=2).rollout(controls, 4, reads)
    monkeypatch.setattr(simulation, "_RECORDED_BYTES", 5000)
    pieces = opened(n=2).rollout(controls, 4, reads)
    for name in reads:
        np.testing.assert_array_equal(whole[name], pieces[name], name)


def test_a_portable_state_says_what_it_leaves_out():
    sim = opened()
    sim.step(np.tile([0.5, 1.0], (1, 50, 1)))
    state, dropped = sim.portable()
    assert set(state.positions) == {"arm"} and set(state.bases) == {"box"}  # the base by its body's name
    assert any("without a name" in text and "slide" in text for text in dropped)
    assert any("activation" in text for text in dropped) and any("warm start" in text for text in dropped)
    other = Scene("other", SENSED.model.replace('name="arm" type="hinge"', 'name="elbow" type="hinge"')
                  .replace('joint="arm"', 'joint="elbow"'), ())  # fmt: skip
    lost = opened(other).place_portable(state)
    assert lost == ["joint arm: not in this scene", "joint elbow: not in the state, left as it was"]


def test_the_layout_names_what_there_is():
    layout = opened().layout
    assert [(j.name, j.kind, j.body, j.nq, j.nv) for j in layout.joints] == [
        ("box", "free", "box", 7, 6),
        ("arm", "hinge", "arm", 1, 1),
    ]
    assert (layout.actuators, layout.bodies, layout.tendons) == (("arm", "slow"), ("box", "arm", "rod"), ("cable",))
    assert layout.sensors == {"acc": 3, "gyro": 3, "angle": 1, "v": 3, "w": 3} and layout.nu == 2


def test_facts_of_the_model_are_read_and_not_set():
    sim = opened(n=2)
    np.testing.assert_allclose(sim.get("body:box.inertia")[0], [2 * 0.04 / 6] * 3 + [0] * 3, atol=1e-12)
    np.testing.assert_array_equal(sim.get("joint:arm.limits"), [[-1, 1]] * 2)
    assert sim.get("actuator:arm.gain")[0, 0] == 40 and sim.get("actuator:arm.damping")[0, 0] == 3
    sim.set({"body:box.mass": np.array([1.0, 4.0])})
    np.testing.assert_allclose(sim.get("body:box.inertia")[:, 0] / (0.04 / 6), [1, 4])
    for fact in sim.facts():
        with pytest.raises(Unsupported, match="cannot set"):
            sim.set({fact.replace("NAME", "box" if fact.startswith("body") else "arm"): np.zeros(2)})


def test_a_damping_of_its_own_outlives_a_change_of_the_gain():
    def settled(**fields):
        sim = opened(n=1)
        for values in fields.values():
            sim.set({k: np.array([v]) for k, v in values.items()})
        return sim.step(np.tile([0.5, 0.0], (1, 100, 1)), {"joint:arm.velocity": "all"})["joint:arm.velocity"]

    gain, damping = {"actuator:arm.gain": 60.0}, {"actuator:arm.damping": 1.0}
    np.testing.assert_array_equal(settled(a=gain, b=damping), settled(a=damping, b=gain))
    assert not np.array_equal(settled(a=gain), settled(a=gain, b=damping))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"geom:box.restitution": np.array([1.2])}, r"\[0, 0.99\]"),
        ({"body:box.mass": np.array([0.0])}, "more than 0"),
        ({"geom:box.size_scale": np.ones((1, 3))}, r"finite, \(1,\)"),
        ({"geom:floor.size_scale": np.ones(1), "body:box.mass": np.ones(1)}, "size_scale: a plane"),
        ({"world:gravity": np.zeros((1, 2))}, r"\(1, 3\)"),
        ({"body:box.mass": np.array([2.0]), "body:nobody.mass": np.array([1.0])}, "no body named 'nobody'"),
    ],
)
def test_values_that_make_no_sense_are_refused_and_nothing_is_set(values, says):
    sim = opened()
    with pytest.raises(InputError, match=says):
        sim.set(values)
    assert sim.get("body:box.mass")[0, 0] == 2


def test_positions_that_do_not_fit_are_refused():
    sim = opened(n=2)
    before = sim.save()
    for value in (np.zeros((2, 6)), np.full((2, 7), np.inf), np.zeros((3, 7))):
        with pytest.raises(InputError, match="joint:box"):
            sim.place("box", value)
    with pytest.raises(Missing, match="did you mean 'box'"):
        sim.place("bax", np.zeros((2, 7)))
    np.testing.assert_array_equal(sim.save(), before)


KINDS = st.sampled_from(
    ["joint", "body", "site", "geom", "sensor", "tendon", "actuator", "contact", "world", "time", ""]
)
ITEMS = st.sampled_from(["box", "arm", "", "imu", "cable", "world|box", "box|box", "|", "acc", "nobody"])
FIELDS = st.sampled_from(
    ["position", "velocity", "quat", "wrench", "mass", "force", "length", "damping", "gravity", ""]
)
NAMES = st.one_of(st.builds("{}:{}.{}".format, KINDS, ITEMS, FIELDS), st.text(max_size=12))
SIM = opened(MIXED.scene)


@given(NAMES)
def test_any_name_reads_or_is_refused_in_one_line(name):
    calls = (
        lambda: SIM.read([name]),
        lambda: SIM.get(name),
        lambda: SIM.set({name: np.ones(1)}),
        lambda: SIM.lag(name),
    )
    for call in calls:
        try:
            call()
        except FlyballError as err:
            assert "\n" not in err.line() and err.what


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("actuator:m.force_limit", "no limit"),
        ("actuator:m.damping", "bias is not affine"),
        ("actuator:m.velocity_gain", "gain is not affine"),
        ("tendon:t.force_limit", "no limit"),
    ],
)
def test_a_field_that_the_model_does_not_look_at_is_refused(field, reason):
    model = """<mujoco><worldbody><body><joint name="j"/><geom size=".1"/></body></worldbody>
    <tendon><fixed name="t"><joint joint="j" coef="1"/></fixed></tendon>
    <actuator><motor name="m" joint="j"/></actuator></mujoco>"""
    sim = MujocoEngine().open(Scene("idle", model, ()), 2)
    own = sim.get(field)
    sim.set({field: own})  # nothing changes, as is asked for
    with pytest.raises(Unsupported, match=f"would change nothing: .*{reason}"):
        sim.set({field: own + 0.5})
    assert np.array_equal(sim.get(field), own)
