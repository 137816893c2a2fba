import numpy as np
import pytest

from flyball.base import Unsupported
from flyball.calibration.rigs.servo import MODEL
from flyball.engines import engines, traits
from flyball.engines.mujoco import MujocoEngine
from flyball.engines.servo import ServoEngine
from flyball.engines.testing import Case, check_engine, check_mass_carries_inertia, check_resting_force
from flyball.scenes import Scene

PENDULUM = Scene("pendulum", MODEL, ())
SERVO = Case(
    PENDULUM,
    ("joint:servo.position", "joint:servo.velocity", "actuator:command.force"),
    "joint:servo.frictionloss",
    (0.0, 0.1),
    "body:pendulum.mass",
    3,
)


def test_mujoco_keeps_the_contract():
    assert check_engine(MujocoEngine()) == {}


def test_mujoco_keeps_the_contract_with_tendon_driven_actuators():
    check_engine(MujocoEngine(), Case(**{**vars(SERVO), "refused": "body:pendulum.colour"}))


def test_servo_keeps_the_contract_as_far_as_it_can_be_asked():
    left = check_engine(ServoEngine(), SERVO)
    assert set(left) == {
        "check_wrench", "check_derivatives", "check_free_fall", "check_resting_force", "check_mass_carries_inertia"
    }  # fmt: skip
    assert left["check_resting_force"] == "contact, contact_wrench: declared unsupported"


class Other(MujocoEngine):
    """MuJoCo that says other things of itself."""

    def __init__(self, precision="double", **capabilities):
        self.precision = precision
        self.capabilities = {**MujocoEngine.capabilities, **capabilities}


def test_what_is_declared_unsupported_is_not_asked_and_told():
    with pytest.raises(Unsupported, match="contact_wrench: declared unsupported"):
        check_resting_force(Other(contact_wrench="unsupported"))

    class Lies(Other):
        def open(self, *args, **settings):
            raise Unsupported("no worlds here", where="lies")

    with pytest.raises(Unsupported, match="no worlds here"):  # declared, and then refused
        check_engine(Lies())


class Rounding(Other):
    """Speeds off by so many parts of themselves, as after so many roundings to single precision."""

    off = 0.0

    def open(self, *args, **settings):
        sim = super().open(*args, **settings)
        step = sim.step
        sim.step = lambda *a: {k: x * (1 + np.arange(sim.n)[:, None] * self.off) for k, x in step(*a).items()}
        return sim


@pytest.mark.parametrize(
    ("precision", "off", "passes"),
    [("single", 5e-6, True), ("single", 1e-4, False), ("double", 5e-6, False), ("double", 1e-7, True)],
)
def test_a_tolerance_follows_from_the_precision_that_an_engine_declares(precision, off, passes):
    engine = Rounding(precision)
    engine.off = off
    if passes:
        check_mass_carries_inertia(engine)
    else:
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            check_mass_carries_inertia(engine)


def test_what_an_engine_is():
    assert [t.formulation for t in map(traits, (MujocoEngine(), ServoEngine()))] == ["mujoco", "servo"]
    assert traits(Other()).epsilon == 2**-52 and traits(Other("single")).epsilon == 2**-23


def shifted(sim):
    """Poses of the substep before."""
    rollout = sim.rollout

    def late(controls, every, reads):
        out = rollout(controls, every, reads)
        for name in out:
            if name.startswith("joint:"):
                out[name][:, 1:] = out[name][:, :-1].copy()
        return out

    sim.rollout = late


def unmoved(sim):
    """Velocities are not placed."""
    push = sim.push
    sim.push = lambda joint, velocity, worlds=None: push(joint, 0 * velocity, worlds)


def deaf(sim):
    """Failures are not reported."""
    sim.status = lambda: np.ones(sim.n, bool)


def stirred(sim):
    """Reading makes a step."""
    read = sim.read

    def moving(names):
        out = read(names)
        sim.step(np.zeros((sim.n, 1, sim.layout.nu)))
        return out

    sim.read = moving


def reversed_wrench(sim):
    """The wrench on A instead of on B."""
    rollout = sim.rollout
    sim.rollout = lambda c, e, r: {k: -x if k.startswith("contact:") else x for k, x in rollout(c, e, r).items()}


def silent(sim):
    """What does not carry over goes unsaid."""
    place = sim.place_portable
    sim.place_portable = lambda state, worlds=None: place(state, worlds) and []


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (shifted, "after a call"),
        (unmoved, "placed by name"),
        (deaf, "the failed world is not reported"),
        (stirred, "reading changes the course"),
        (reversed_wrench, "forces do not make the motion"),
        (silent, "goes unsaid"),
    ],
)
def test_the_contract_notices(fault, says):
    class Faulty(MujocoEngine):
        def open(self, *args, **settings):
            sim = super().open(*args, **settings)
            fault(sim)
            return sim

    with pytest.raises(AssertionError, match=says):
        check_engine(Faulty())


def test_both_engines_are_found_by_name():
    assert {"mujoco", "servo"} <= set(engines.names())
    assert engines.load("servo") is ServoEngine


def pendulum(engine, n=1, **fields):
    sim = engine().open(PENDULUM, n, threads=1)
    sim.set({k: np.broadcast_to(np.asarray(v, float), (n,)) for k, v in fields.items()})
    return sim


FIELDS = {
    "joint:servo.damping": 0.004,
    "joint:servo.armature": 0.001,
    "joint:servo.frictionloss": 0.03,
    "actuator:command.gain": 1.4,
    "actuator:feedback.position_gain": -1.4,
    "actuator:back_emf.velocity_gain": -0.02,
    "tendon:drive.force_limit": 0.4,
}


def test_servo_agrees_with_mujoco_on_what_both_can_do():
    t = np.arange(800) * 0.005
    on = (t < 2.5).astype(float)
    controls = np.stack([on * 0.9 * np.sin(4 * t) * (1 + t), on, on], axis=1)[None]
    tracks = [
        pendulum(e, **FIELDS).rollout(controls, 1, {"joint:servo.position": "last"})["joint:servo.position"]
        for e in (MujocoEngine, ServoEngine)
    ]
    assert np.ptp(tracks[0]) > 0.5
    # MuJoCo's dry friction is a soft constraint, here it is exact: they part by creep while the joint sticks.
    assert np.abs(tracks[0] - tracks[1]).mean() < 0.005


def test_friction_of_the_load_holds_a_raised_pendulum_that_plain_friction_does_not():
    sim = pendulum(ServoEngine, 3, **{"joint:servo.frictionloss": 0.01, "joint:servo.damping": 0.0})
    sim.set({"joint:servo.load_friction": np.array([0.0, 0.9, 1.1])})
    sim.place("servo", np.full((3, 1), 1.0))
    q = sim.rollout(np.zeros((3, 400, 3)), 1, {"joint:servo.position": "last"})["joint:servo.position"][..., 0]
    assert q[0].min() < -0.5  # swings through
    # Friction eats 0.9 of gravity's work on the way down and adds 0.9 of it on the way up the other side.
    mgl, up = 0.49 * 9.81 * 0.1, -q[1, -1]
    assert np.ptp(q[1, -50:]) == 0
    assert np.isclose(0.1 * mgl * (1 - np.cos(1.0)) - 0.01, 1.9 * mgl * (1 - np.cos(up)) + 0.01 * up, rtol=0.1)
    assert (q[2] == 1.0).all()


def test_friction_of_the_drive_takes_its_share_of_the_torque():
    # Weightless at the bottom for an instant: the first step shows the net torque.
    sim = pendulum(ServoEngine, 2, **{"joint:servo.frictionloss": 0.0, "joint:servo.damping": 0.0})
    sim.set({"joint:servo.drive_friction": np.array([0.0, 0.3])})
    v = sim.step(np.tile([0.1, 0.0, 0.0], (2, 1, 1)), {"joint:servo.velocity": "last"})["joint:servo.velocity"][:, 0]
    assert v[0] > 0 and np.isclose(v[1] / v[0], 0.7)


def test_servo_refuses_a_model_with_two_joints():
    with pytest.raises(Unsupported, match="more than one hinge"):
        ServoEngine().open(
            Scene(
                "two",
                "<mujoco><worldbody><body><joint name='a'/><geom size='.1'/><body><joint name='b'/><geom size='.1'/>"
                "</body></body></worldbody></mujoco>",
                (),
            ),
            1,
        )


def test_mujoco_scales_the_stiffness_of_a_position_servo_with_its_gain():
    model = MODEL.replace(
        '<general name="back_emf" joint="servo" gaintype="affine" gainprm="0 0 -1"/>',
        '<position name="plain" joint="servo" kp="2"/>',
    )
    ends = []
    for engine in (MujocoEngine, ServoEngine):
        sim = engine().open(Scene("plain", model, ()), 2, threads=1)
        sim.set({"actuator:plain.gain": np.array([2.0, 20.0]), "joint:servo.damping": np.full(2, 0.2)})
        u = np.zeros((2, 2000, 3))
        u[..., 2] = 0.5
        ends.append(sim.step(u, {"joint:servo.position": "last"})["joint:servo.position"][:, 0])
    # At rest kp (u - q) = m g l sin q up to the dry friction of 0.003 N m.
    for kp, q in zip((2.0, 20.0), np.transpose(ends), strict=True):
        assert np.allclose(kp * (0.5 - q), 0.49 * 9.81 * 0.1 * np.sin(q), atol=0.0031)
