"""The contract of an engine, as checks.

In: an engine and, where it cannot simulate the default scene, a ``Case`` of its own. Out: nothing, or an
``AssertionError`` that says which promise is broken. A new engine proves itself in three lines:

    from flyball.engines.testing import check_engine
    def test_contract():
        check_engine(MyEngine())
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from flyball.base import FlyballError, InputError, Unsupported
from flyball.engines.derivatives import By, check_gradient, jacobian
from flyball.engines.engine import Engine, Reduce, Simulation, traits
from flyball.engines.portable import PortableState
from flyball.scenes import Scene

Array = NDArray[np.float64]

_GRAVITY = 9.81

_FALLING = """
<mujoco><option timestep="0.001"/><worldbody>
  <body name="ball" pos="0 0 10"><freejoint name="ball"/><geom name="ball" size="0.1" mass="0.3"/></body>
</worldbody></mujoco>
"""
_RESTING = """
<mujoco><option timestep="0.002"/><worldbody>
  <geom name="floor" type="plane" size="1 1 1"/>
  <body name="box" pos="0 0 0.05"><freejoint name="box"/><geom name="box" type="box" size=".05 .05 .05" mass="0.4"/>
    <site name="box" type="box" size=".06 .06 .06"/></body>
</worldbody><sensor><touch name="box" site="box"/></sensor></mujoco>
"""
_TURNING = """
<mujoco><option timestep="0.002" gravity="0 0 0"/><worldbody>
  <body name="rod"><joint name="rod" type="hinge" axis="0 0 1"/><geom name="rod" type="box" size=".3 .02 .02" mass="1"/>
  </body></worldbody><actuator><motor name="rod" joint="rod"/></actuator></mujoco>
"""
_MIXED = """
<mujoco><option timestep="0.002"/><worldbody>
  <geom name="floor" type="plane" size="1 1 1"/>
  <body name="box" pos=".3 0 .2"><freejoint name="box"/>
    <geom name="box" type="box" size=".05 .04 .03" mass="0.4"/></body>
  <body name="arm" pos="0 0 .5"><joint name="arm" type="hinge" axis="0 1 0" damping=".1"/>
    <geom name="arm" type="capsule" size=".02" fromto="0 0 0 .4 0 0" mass=".5"/></body>
</worldbody><actuator><position name="arm" joint="arm" kp="20"/></actuator></mujoco>
"""


@dataclass(frozen=True)
class Case:
    """A scene in which an engine is put to the test.

    Attributes:
      scene: something moves, by itself or by its actuators.
      reads: fields whose course is compared.
      setting: a settable field that changes that course.
      values: two different values of it.
      refused: a field that is not settable.
      controls: number of actuators.
    """

    scene: Scene
    reads: tuple[str, ...]
    setting: str
    values: tuple[float, float]
    refused: str
    controls: int


MIXED = Case(
    Scene("mixed", _MIXED, ()),
    ("joint:box.position", "joint:arm.position", "joint:arm.velocity"),
    "body:box.mass",
    (0.2, 0.9),
    "body:box.colour",
    1,
)


def check_engine(engine: Engine, case: Case | None = None) -> dict[str, str]:
    """All promises that the engine does not declare unsupported.

    Args:
      engine: the engine.
      case: scene for the promises about batches; a box that falls on a floor beside an arm by default.

    Returns:
      What it was not asked: name of the check -> what it lacks for it.
    """
    case, left = case or MIXED, dict[str, str]()
    of_case = (
        check_threads, check_alone, check_save_restore, check_parameters, check_reductions, check_refusals,
        check_reading_is_harmless, check_times, check_portable, check_failure,
    )  # fmt: skip
    of_its_own = (check_wrench, check_derivatives, check_free_fall, check_resting_force, check_mass_carries_inertia)
    checks = [(c.__name__, partial(c, engine, case)) for c in of_case]
    for name, check in [*checks, *((c.__name__, partial(c, engine)) for c in of_its_own)]:
        try:
            check()
        except _Lacking as lacking:
            left[name] = lacking.what
    return left


class _Lacking(Unsupported):
    """The engine declares that it lacks what a check needs. Any other refusal breaks a promise."""


def _needs(engine: Engine, *features: str) -> None:
    lacking = [f for f in features if engine.capabilities.get(f, "unsupported") == "unsupported"]
    if lacking:
        raise _Lacking(f"{', '.join(lacking)}: declared unsupported", where=f"engine {engine.name}")


def check_threads(engine: Engine, case: Case) -> None:
    """The same bits for any number of threads, and when repeated."""
    values, controls = np.linspace(*case.values, 6), _controls(case, 6)
    first = _run(engine.open(case.scene, 6, threads=1), case, values, controls)
    for threads in (1, 2, 3):
        again = _run(engine.open(case.scene, 6, threads=threads), case, values, controls)
        _same(first, again, f"{threads} threads change the result")


def check_alone(engine: Engine, case: Case) -> None:
    """A world in a batch is the world alone, to the bit."""
    values, controls = np.linspace(*case.values, 5), _controls(case, 5)
    batch = _run(engine.open(case.scene, 5, threads=2), case, values, controls)
    for i in range(5):
        alone = _run(engine.open(case.scene, 1, threads=1), case, values[i : i + 1], controls[i : i + 1])
        _same({k: x[i : i + 1] for k, x in batch.items()}, alone, f"world {i} differs when it is alone")


def check_save_restore(engine: Engine, case: Case) -> None:
    """Restoring resumes bit-identically, in the same simulation and in another one, wholly and for some worlds."""
    _needs(engine, "save_restore")
    controls = _controls(case, 4)
    half = controls.shape[1] // 2
    sim = engine.open(case.scene, 4, threads=1)
    reads: dict[str, Reduce] = dict.fromkeys(case.reads, "last")
    sim.rollout(controls[:, :half], 1, reads)
    saved = sim.save()
    expected = sim.rollout(controls[:, half:], 1, reads)
    sim.restore(saved)
    _same(expected, sim.rollout(controls[:, half:], 1, reads), "restoring does not resume where it was saved")
    other = engine.open(case.scene, 4, threads=2)
    some = np.array([1, 3])
    other.restore(saved[some], some)
    resumed = other.rollout(controls[:, half:], 1, reads)
    _same(
        {k: x[some] for k, x in expected.items()},
        {k: x[some] for k, x in resumed.items()},
        "restoring some worlds of another simulation does not resume them",
    )
    _refused(InputError, "a state of the wrong size", lambda: sim.restore(saved[:, :-1]))


def check_parameters(engine: Engine, case: Case) -> None:
    """Per-world values are read back, act on their world alone, and outlive a reset."""
    sim = engine.open(case.scene, 3, threads=1)
    own = sim.get(case.setting)
    low, high = case.values
    sim.set({case.setting: np.array([low, high, own[2, 0]])})
    np.testing.assert_array_equal(sim.get(case.setting)[:, 0], [low, high, own[2, 0]], "read back")
    sim.reset()
    np.testing.assert_array_equal(sim.get(case.setting)[:, 0], [low, high, own[2, 0]], "kept by a reset")
    _refused(InputError, "a value that is not finite", lambda: sim.set({case.setting: np.array([low, np.nan, high])}))
    _refused(InputError, "values for two of three worlds", lambda: sim.set({case.setting: np.ones(2)}))


def check_reductions(engine: Engine, case: Case) -> None:
    """Reads over a group of substeps: last, max, min, mean agree with all of them."""
    name, controls = case.reads[-1], _controls(case, 2)
    every = 5
    kinds: tuple[Reduce, ...] = ("all", "last", "max", "min", "mean")
    out = {how: engine.open(case.scene, 2, threads=1).rollout(controls, every, {name: how})[name] for how in kinds}
    assert out["all"].shape[:3] == (2, controls.shape[1] // every, every), "the shape of a read of all substeps"
    np.testing.assert_array_equal(out["last"], out["all"][:, :, -1])
    np.testing.assert_array_equal(out["max"], out["all"].max(axis=2))
    np.testing.assert_array_equal(out["min"], out["all"].min(axis=2))
    np.testing.assert_allclose(out["mean"], out["all"].mean(axis=2), rtol=1e-12, atol=1e-12)


def check_refusals(engine: Engine, case: Case) -> None:
    """What cannot be done is refused by name, before anything is changed."""
    sim = engine.open(case.scene, 2, threads=1)
    before = sim.get(case.setting)
    both = {case.setting: np.full(2, case.values[0]), case.refused: np.ones(2)}
    _refused(Unsupported, case.refused, lambda: sim.set(both))
    try:
        sim.set(both)
    except Unsupported as err:
        assert case.refused in err.what and err.allowed, (
            f"the refusal names neither the field nor what can be set: {err}"
        )
    np.testing.assert_array_equal(sim.get(case.setting), before, "a refused call has set something")
    _refused(FlyballError, "joint:nobody", lambda: sim.read(["joint:nobody.position"]))
    _refused(Unsupported, "weather", lambda: engine.open(case.scene, 1, options={"weather": "rain"}))
    _refused(InputError, "MJCF that does not parse", lambda: engine.open(Scene("broken", "<mujoco><world", ()), 1))
    _refused(InputError, "controls of too many worlds", lambda: sim.step(_controls(case, 3)))


def check_reading_is_harmless(engine: Engine, case: Case) -> None:
    """Worlds that are read go on, to the bit, as worlds that are not."""
    _needs(engine, "save_restore")
    controls = _controls(case, 2)
    quiet, read = (engine.open(case.scene, 2, threads=1) for _ in range(2))
    names = [name for name in case.reads if not name.startswith("actuator:")]
    for k in range(0, controls.shape[1], 50):
        quiet.step(controls[:, k : k + 50])
        read.step(controls[:, k : k + 50])
        read.read(names)
    np.testing.assert_array_equal(quiet.save(), read.save(), "reading changes the course")


def check_times(engine: Engine, case: Case) -> None:
    """Every read has its time: the clock, the lag that is declared, and ``read`` after ``step`` agree."""
    sim, controls = engine.open(case.scene, 2, threads=1), _controls(case, 2)
    names = [name for name in case.reads if sim.lag(name) == 0]
    assert all(sim.lag(name) in (0.0, sim.timestep) for name in case.reads), "a lag that is neither nothing nor a step"
    assert names and sim.lag("time") == 0, "nothing that is compared belongs to the end of a substep"
    seen = sim.rollout(controls, 10, dict.fromkeys(["time", *names], "last"))
    want = sim.timestep * np.arange(10, controls.shape[1] + 1, 10)
    np.testing.assert_allclose(seen["time"][:, :, 0], np.repeat(want[None], 2, axis=0), rtol=1e-6)
    now = sim.read(["time", *names])
    for name in ("time", *names):
        np.testing.assert_allclose(now[name], seen[name][:, -1], rtol=1e-6, atol=1e-9, err_msg=f"{name} after a call")


def check_portable(engine: Engine, case: Case) -> None:
    """Positions and velocities placed by name in other worlds read as they were; what does not fit is told."""
    sim, controls = engine.open(case.scene, 3, threads=1), _controls(case, 3)
    sim.step(controls[:, :100])
    state, dropped = sim.portable()
    assert all(isinstance(text, str) and text for text in dropped), "what is left out is told in words"
    other = engine.open(case.scene, 3, threads=1)
    assert other.place_portable(state) == [], "something is lost between two simulations of one scene"
    names = [f"joint:{j.name}.{f}" for j in sim.layout.joints for f in ("position", "velocity")]
    mine, theirs = sim.read(names), other.read(names)
    for name in names:
        np.testing.assert_allclose(theirs[name], mine[name], rtol=1e-6, atol=1e-6, err_msg=f"{name} placed by name")
    some = np.array([2, 0])
    rows = [{k: x[some] for k, x in part.items()} for part in _parts(state)]
    picked = engine.open(case.scene, 3, threads=1)
    before = picked.read(names)
    picked.place_portable(PortableState(state.time[some], *rows), some)
    after = picked.read(names)
    for name in names:
        np.testing.assert_allclose(after[name][some], mine[name][some], rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_array_equal(after[name][1], before[name][1], f"{name} of a world that was not meant")
    stranger = PortableState(
        state.time, {**state.positions, "nobody": np.zeros((3, 1))}, {**state.velocities, "nobody": np.zeros((3, 1))},
        state.bases, state.twists,
    )  # fmt: skip
    assert any("nobody" in text for text in other.place_portable(stranger)), "a joint that is not there goes unsaid"
    _refused(
        InputError, "states of too few worlds", lambda: other.place_portable(PortableState(state.time[some], *rows))
    )


def check_failure(engine: Engine, case: Case) -> None:
    """A control that is not a number fails its world alone, which stands still until it is reset."""
    _needs(engine, "save_restore")
    if not case.controls:
        raise _Lacking("actuators: none in the case", where=f"engine {engine.name}")
    sound, sim = (engine.open(case.scene, 3, threads=1) for _ in range(2))
    controls = _controls(case, 3)
    reads: dict[str, Reduce] = dict.fromkeys(case.reads, "last")
    for world in (sound, sim):
        world.step(controls[:, :50])
    assert sim.status().all(), "healthy worlds are reported as failed"
    kept, bad = sim.save(), controls[:, 50:100].copy()
    bad[1, 20] = np.nan
    seen, want = sim.step(bad, reads), sound.step(controls[:, 50:100], reads)
    assert sim.status().tolist() == [True, False, True], "the failed world is not reported, or others are"
    np.testing.assert_array_equal(sim.save()[1], kept[1], "a failed world keeps the state it had")
    for again in range(2):
        for name, x in seen.items():
            np.testing.assert_array_equal(x[[0, 2]], want[name][[0, 2]], f"{name} of the worlds beside a failed one")
            assert np.isfinite(x).all(), f"{name} of a failed world is not finite"
        if not again:
            seen, want = (world.step(controls[:, 100:150], reads) for world in (sim, sound))
    np.testing.assert_array_equal(sim.save()[1], kept[1], "a failed world stands still")
    sim.reset(np.array([1]))
    assert sim.status().all(), "a reset does not heal a failed world"
    moving = sim.save()[1]
    sim.step(controls[:, 150:])
    assert not np.array_equal(sim.save()[1], moving), "a healed world does not move"


def check_wrench(engine: Engine) -> None:
    """Contact wrenches: none apart, action is reaction, and with the weight they make the motion."""
    _needs(engine, "contact_wrench")
    mass, n = 0.4, 2
    sim = engine.open(Scene("resting", _RESTING, ()), n, threads=1)
    start = np.array([[0.0, 0, 0.1, 1, 0, 0, 0], [0.1, 0.2, 0.052, 1, 0, 0, 0]])
    sim.place("box", start)
    sim.push("box", np.array([[0.5, 0.2, 0, 0, 0, 0]] * n))
    on, by = "contact:world|box.wrench", "contact:box|world.wrench"
    reads: dict[str, Reduce] = dict.fromkeys([on, by, "joint:box.velocity", "joint:box.position"], "all")
    seen = {name: x[:, 0] for name, x in sim.rollout(np.zeros((n, 400, 0)), 400, reads).items()}
    force, velocity = seen[on][..., :3], seen["joint:box.velocity"][..., :3]
    assert not force[0, :40].any(), "a box in the air is pushed"
    largest = np.abs(force).max()
    np.testing.assert_allclose(seen[by][..., :3], -force, atol=1e-6 * largest, err_msg="action is not reaction")
    gained = np.diff(velocity, axis=1) / sim.timestep
    want = mass * (gained + np.array([0, 0, _GRAVITY]))
    np.testing.assert_allclose(force[:, 1:], want, atol=1e-3 * largest, err_msg="forces do not make the motion")
    arm = seen["joint:box.position"][:, -1, :3]  # at rest: the same wrench, about the origin on one side
    about = -(seen[on][:, -1, 3:] + np.cross(arm, force[:, -1]))
    np.testing.assert_allclose(seen[by][:, -1, 3:], about, atol=1e-3, err_msg="the moments are not of one wrench")
    rest = sim.step(np.zeros((n, 600, 0)), {on: "mean"})[on]
    np.testing.assert_allclose(sim.read([on])[on][:, 2], mass * _GRAVITY, rtol=0.01, err_msg="at rest")
    assert rest.shape == (n, 6)
    _refused(FlyballError, "a body that is not there", lambda: sim.read(["contact:world|nobody.wrench"]))


def check_derivatives(engine: Engine) -> None:
    """Derivatives that an engine declares are its own, and those of finite differences."""
    _needs(engine, "gradient")
    scene, steps = Scene("turning", _TURNING, ()), 20
    sim = engine.open(scene, 1, threads=1)
    sim.push("rod", np.array([[0.3]]))
    state, controls = sim.save()[0], np.full((steps, 1), 0.01)
    kinds: tuple[By, ...] = ("state", "control")
    for wrt in kinds:
        own = jacobian(engine, scene, state, controls, wrt)
        assert own.method != "finite differences", f"a gradient is declared, and there is none by the {wrt}"
        error = check_gradient(engine, scene, state, controls, wrt)
        assert error < 1e-3, f"the derivative by the {wrt} is off by {error:.2g}"  # leaves room for single precision


def check_free_fall(engine: Engine) -> None:
    """A ball thrown falls on its parabola, to first order in the time step."""
    _needs(engine, "contact")  # who has none may have no free bodies
    sim = engine.open(Scene("falling", _FALLING, ()), 2, threads=1)
    velocity = np.array([[1.0, -2.0, 3.0], [0.0, 0.0, 0.0]])
    sim.push("ball", np.concatenate([velocity, np.zeros((2, 3))], axis=1))
    t = 0.5
    seen = sim.step(np.zeros((2, round(t / sim.timestep), 0)), {"joint:ball.position": "last"})["joint:ball.position"]
    expected = np.array([0.0, 0.0, 10.0]) + velocity * t - np.array([0.0, 0.0, _GRAVITY * t**2 / 2])
    np.testing.assert_allclose(seen[:, :3], expected, rtol=0, atol=_GRAVITY * sim.timestep * t)


def check_resting_force(engine: Engine) -> None:
    """A floor bears a resting box with the box's weight, whatever the box weighs.

    Raises:
      Unsupported: the engine declares that it has no contact forces.
    """
    _needs(engine, "contact", "contact_wrench")
    mass = np.array([0.1, 0.4, 2.0])
    sim = engine.open(Scene("resting", _RESTING, ()), 3, threads=1)
    sim.set({"body:box.mass": mass})
    sim.reset()
    force = sim.step(np.zeros((3, 1000, 0)), {"sensor:box": "last"})["sensor:box"]
    np.testing.assert_allclose(force[:, 0], mass * _GRAVITY, rtol=0.01)


def check_mass_carries_inertia(engine: Engine) -> None:
    """A rod twice as heavy turns half as fast under the same torque.

    Raises:
      Unsupported: the engine declares that it has no joints.
    """
    _needs(engine, "articulation")
    steps = 100
    # two speeds, each rounded at every step, at worst always the same way
    rtol = 1e-6 + 2 * steps * traits(engine).epsilon / 2
    sim = engine.open(Scene("turning", _TURNING, ()), 3, threads=1)
    sim.set({"body:rod.mass": np.array([0.5, 1.0, 2.0])})
    sim.reset()
    speed = sim.step(np.full((3, steps, 1), 0.01), {"joint:rod.velocity": "last"})["joint:rod.velocity"][:, 0]
    np.testing.assert_allclose(speed / speed[1], [2.0, 1.0, 0.5], rtol=rtol)


def _parts(state: PortableState) -> tuple[Mapping[str, Array], ...]:
    return state.positions, state.velocities, state.bases, state.twists


def _controls(case: Case, n: int) -> Array:
    """Random controls (n, 200, nu), the same in every call."""
    return np.random.default_rng(7).uniform(0, 1, (n, 200, case.controls))


def _run(sim: Simulation, case: Case, values: Array, controls: Array) -> dict[str, Array]:
    """The course of the reads from the start."""
    sim.set({case.setting: values})
    sim.reset()
    return sim.rollout(controls, 1, dict.fromkeys(case.reads, "last"))


def _same(a: dict[str, Array], b: dict[str, Array], text: str) -> None:
    for name, x in a.items():
        np.testing.assert_array_equal(x, b[name], f"{text}: {name}")


def _refused(kind: type[FlyballError], what: str, call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(f"not refused with {kind.__name__}: {what}")
