"""The report card of an engine: closed-form mechanics, run through the engine's own interface.

In: an engine. Out: one ``Mark`` per law: what was measured, the tolerance that was declared beforehand with its reason,
and passed, failed or unsupported. A law that an engine cannot be asked about (it lacks a feature) is no failure.

The laws are textbook mechanics; the scenes are a few lines of MJCF each. Errors of the integrator are part of what is
measured: where a tolerance follows from the time step, it says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines.engine import Engine, Simulation
from flyball.scenes import Scene

GRAVITY = 9.81
STEP_S = 0.001
"""Time step of all scenes [s]."""


@dataclass(frozen=True)
class Mark:
    """What an engine made of one law.

    Attributes:
      law: name.
      says: the law in words, with its formula.
      result: ``passed``, ``failed`` or ``unsupported``.
      error: how far off, relative unless the law says otherwise; NaN when unsupported.
      tolerance: greatest error that passes.
      why: reason for the tolerance.
      note: what was measured, or what is missing.
    """

    law: str
    says: str
    result: Literal["passed", "failed", "unsupported"]
    error: float
    tolerance: float
    why: str
    note: str = ""


@dataclass(frozen=True)
class Law:
    """A law and how to put an engine to it; ``test`` gives (error, what was measured)."""

    name: str
    says: str
    tolerance: float
    why: str
    test: Callable[[Engine], tuple[float, str]]


@dataclass(frozen=True)
class Card:
    """All marks of an engine."""

    engine: str
    version: str
    marks: tuple[Mark, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what is unsupported does not count."""
        return all(m.result != "failed" for m in self.marks)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; errors that are no numbers are None."""
        marks = [{k: None if v != v else v for k, v in asdict(m).items()} for m in self.marks]
        return {"engine": self.engine, "version": self.version, "passed": self.passed, "marks": marks}


def examine(engine: Engine, laws: Sequence[Law] | None = None) -> Card:
    """Put an engine to every law (default: ``LAWS``)."""
    marks = []
    for law in LAWS if laws is None else laws:
        try:
            error, note = law.test(engine)
            # not a number is no pass
            result: Literal["passed", "failed", "unsupported"] = "passed" if error <= law.tolerance else "failed"
        except Unsupported as err:
            error, note, result = float("nan"), err.what, "unsupported"
        except InputError as err:
            error, note, result = float("inf"), err.line(), "failed"
        marks.append(Mark(law.name, law.says, result, float(error), law.tolerance, law.why, note))
    return Card(engine.name, engine.version, tuple(marks))


# scenes ---------------------------------------------------------------------------------------------------


def _open(engine: Engine, body: str, *, n: int = 1, option: str = "", extra: str = "", step: float = STEP_S,
          threads: int = 1) -> Simulation:  # fmt: skip
    model = (
        f'<mujoco><compiler angle="radian"/><option timestep="{step}" {option}/>'
        f"<worldbody>{body}</worldbody>{extra}</mujoco>"
    )
    return engine.open(Scene("card", model, ()), n, threads=threads)


def _run(sim: Simulation, seconds: float, reads: Sequence[str], control: Sequence[float] = (), every: int = 1) -> dict[
    str, NDArray[np.float64]
]:  # fmt: skip
    """Fields of world 0 at every ``every``-th step, (T, *shape)."""
    steps = round(seconds / sim.timestep / every) * every
    controls = np.tile(np.asarray(control, float), (sim.n, steps, 1)).reshape(sim.n, steps, len(control))
    out = sim.rollout(controls, every, {name: "last" for name in reads})
    return {name: x[0] for name, x in out.items()}


def _free(geom: str, height: float = 0.0) -> str:
    return f'<body name="b" pos="0 0 {height}"><freejoint name="b"/>{geom}</body>'


def _tilted(angle: float) -> str:
    """A horizontal plane under tilted gravity is a ramp that goes down along x."""
    return f'gravity="{GRAVITY * np.sin(angle):.9f} 0 {-GRAVITY * np.cos(angle):.9f}" cone="elliptic" impratio="10"'


def _floor(mu: float) -> str:
    return f'<geom name="floor" type="plane" size="20 20 1" friction="{mu} .005 .0001" priority="1" solref=".004 1"/>'


_BOX = '<geom name="g" type="box" size=".1 .1 .05" mass="1"/>'
_PENDULUM = (
    '<body name="p" pos="0 0 2"><joint name="p" type="hinge" axis="0 1 0"/>'
    '<inertial pos="0 0 -.5" mass="1" diaginertia=".02 .02 .02"/></body>'
)
_INERTIA = 0.02 + 0.5**2
"""Of the pendulum about its hinge [kg m^2]."""


# laws -----------------------------------------------------------------------------------------------------


def _fall(engine: Engine) -> tuple[float, str]:
    sim = _open(engine, _free('<geom size=".05" mass="2"/>', 10))
    sim.push("b", np.array([[3.0, 0, 4, 0, 0, 0]]))
    end = _run(sim, 1.0, ["body:b.position"])["body:b.position"][-1]
    want = np.array([3.0, 0.0, 10 + 4 - GRAVITY / 2])
    return float(np.linalg.norm(end - want) / (GRAVITY / 2)), f"{end[2]:.5f} m high after 1 s, law {want[2]:.5f}"


def _period(step: float) -> Callable[[Engine], tuple[float, str]]:
    def test(engine: Engine) -> tuple[float, str]:
        sim = _open(engine, _PENDULUM, step=step)
        sim.place("p", np.array([[0.02]]))
        q = _run(sim, 10.0, ["joint:p.position"])["joint:p.position"][:, 0]
        t = (np.arange(len(q)) + 1) * sim.timestep
        down = np.flatnonzero((q[:-1] > 0) & (q[1:] <= 0))
        cross = t[down] + sim.timestep * q[down] / (q[down] - q[down + 1])
        found = float(np.diff(cross).mean()) if len(cross) > 1 else float("nan")
        want = 2 * np.pi * np.sqrt(_INERTIA / (GRAVITY * 0.5))
        return abs(found / want - 1), f"{found:.5f} s, law {want:.5f} s"

    return test


def _energy(engine: Engine) -> tuple[float, str]:
    sim = _open(engine, _PENDULUM)
    sim.place("p", np.array([[1.5]]))
    done = _run(sim, 10.0, ["joint:p.position", "joint:p.velocity"])
    q, v = done["joint:p.position"][:, 0], done["joint:p.velocity"][:, 0]
    energy = _INERTIA * v**2 / 2 - GRAVITY * 0.5 * np.cos(q)
    swing = GRAVITY * 0.5 * (1 - np.cos(1.5))
    # the mean over a period: a symplectic step lets the energy oscillate, drift is what counts
    third = len(energy) // 3
    drift = abs(energy[-third:].mean() - energy[:third].mean()) / swing
    return float(drift), f"{100 * drift:.4f} % of the swing's energy gone in 10 s"


def _momentum(engine: Engine) -> tuple[float, str]:
    balls = "".join(
        f'<body name="{k}" pos="{x} {y} 0"><freejoint name="{k}"/><geom size=".1" mass="{m}"/></body>'
        for k, x, y, m in (("a", -0.5, 0.05, 1.0), ("b", 0.5, 0.0, 3.0))
    )
    sim = _open(engine, balls, option='gravity="0 0 0"')
    sim.push("a", np.array([[2.0, 0, 0, 0, 0, 0]]))
    done = _run(sim, 1.0, ["joint:a.velocity", "joint:b.velocity"])
    after = done["joint:a.velocity"][-1, :3] + 3 * done["joint:b.velocity"][-1, :3]
    hit = float(np.linalg.norm(done["joint:b.velocity"][-1, :3]))
    error = float(np.linalg.norm(after - np.array([2.0, 0, 0])) / 2)
    return (error if hit > 0.1 else float("inf")), f"off by {error:.2g} of it; the struck ball moves {hit:.2f} m/s"


def _precession(engine: Engine) -> tuple[float, str]:
    inertia = np.array([0.010, 0.018, 0.025])
    body = _free(f'<inertial pos="0 0 0" mass="1" diaginertia="{inertia[0]} {inertia[1]} {inertia[2]}"/>')
    sim = _open(engine, body, option='gravity="0 0 0"')
    sim.push("b", np.array([[0.0, 0, 0, 3.0, 0.2, 2.0]]))
    start = inertia * np.array([3.0, 0.2, 2.0])
    done = _run(sim, 2.0, ["joint:b.velocity", "body:b.quat"])
    w, x, y, z = done["body:b.quat"].T
    local = inertia * done["joint:b.velocity"][:, 3:]
    u = np.stack([x, y, z], axis=1)
    world = local + 2 * np.cross(u, np.cross(u, local) + w[:, None] * local)
    error = float(np.linalg.norm(world - start, axis=1).max() / np.linalg.norm(start))
    turned = float(np.abs(done["joint:b.velocity"][:, 3:] - np.array([3.0, 0.2, 2.0])).max())
    return (error if turned > 0.5 else float("inf")), f"angular momentum off by {100 * error:.2f} % at most in 2 s"


def _slip(engine: Engine) -> tuple[float, str]:
    wrong = []
    for mu in (0.2, 0.5, 0.8):
        for share in (0.8, 0.95, 1.05, 1.3):
            angle = float(np.arctan(mu * share))
            sim = _open(engine, _floor(mu) + _free(_BOX, 0.05), option=_tilted(angle))
            x = _run(sim, 1.0, ["body:b.position"], every=10)["body:b.position"][:, 0]
            slips = x[-1] - x[len(x) // 5] > 0.01
            if slips != (share > 1):
                wrong.append(f"mu {mu}, tan {mu * share:.2f}")
    return len(wrong) / 12, f"{len(wrong)} of 12 wrong" + (f": {'; '.join(wrong)}" if wrong else "")


def _stopping(engine: Engine) -> tuple[float, str]:
    mu, v = 0.4, 2.0
    sim = _open(engine, _floor(mu) + _free(_BOX, 0.05), option='cone="elliptic" impratio="10"')
    _run(sim, 0.2, ["time"])
    start = sim.read(["body:b.position"])["body:b.position"][0, 0]
    sim.push("b", np.array([[v, 0, 0, 0, 0, 0]]))
    x = _run(sim, 2.0, ["body:b.position"], every=10)["body:b.position"][:, 0]
    found, want = float(x[-1] - start), v**2 / (2 * mu * GRAVITY)
    return abs(found / want - 1), f"{found:.4f} m, law {want:.4f} m"


def _rolling(engine: Engine) -> tuple[float, str]:
    angle = 0.2
    ball = _free('<geom name="g" type="sphere" size=".1" mass="1"/>', 0.1)
    sim = _open(engine, _floor(0.8) + ball, option=_tilted(angle))
    x = _run(sim, 1.0, ["joint:b.velocity"])["joint:b.velocity"][:, 0]
    found, want = float((x[-1] - x[300]) / (STEP_S * (len(x) - 301))), 5 / 7 * GRAVITY * np.sin(angle)
    return abs(found / want - 1), f"{found:.4f} m/s^2, law {want:.4f}"


def _resting(engine: Engine) -> tuple[float, str]:
    site = '<site name="s" type="box" size=".12 .12 .07"/>'
    body = f'<geom name="floor" type="plane" size="5 5 1"/>{_free(_BOX + site, 0.05)}'
    sim = _open(engine, body, extra='<sensor><touch name="s" site="s"/></sensor>')
    force = _run(sim, 2.0, ["sensor:s"])["sensor:s"][-500:].mean()
    return abs(float(force) / GRAVITY - 1), f"{force:.4f} N under 1 kg, law {GRAVITY} N"


def _stack(engine: Engine) -> tuple[float, str]:
    boxes = "".join(
        f'<body name="b{k}" pos="0 0 {0.05 + 0.1 * k}"><freejoint name="b{k}"/>'
        f'<geom type="box" size=".05 .05 .05" mass=".5" solref=".004 1"/></body>'
        for k in range(4)
    )
    option = 'cone="elliptic" impratio="10"'
    sim = _open(engine, '<geom type="plane" size="5 5 1" solref=".004 1"/>' + boxes, option=option)
    names = [f"body:b{k}.position" for k in range(4)]
    done = _run(sim, 6.0, names, every=100)
    moved = max(float(np.linalg.norm(done[name][-1] - done[name][9])) for name in names)
    sunk = float(0.35 - done["body:b3.position"][-1, 2])
    return max(moved, sunk), f"creeps {1000 * moved:.3f} mm in 5 s, stands {1000 * sunk:.3f} mm too low"


def _servo(engine: Engine) -> tuple[float, str]:
    kp, kv, goal = 20.0, 2.0, 0.5
    rod = (
        '<body name="r"><joint name="r" type="hinge" axis="0 0 1"/>'
        '<inertial pos="0 0 0" mass="1" diaginertia="1 1 .1"/></body>'
    )
    extra = f'<actuator><position name="r" joint="r" kp="{kp}" kv="{kv}"/></actuator>'
    sim = _open(engine, rod, option='gravity="0 0 0"', extra=extra)
    q = _run(sim, 1.0, ["joint:r.position"], [goal])["joint:r.position"][:, 0]
    t = (np.arange(len(q)) + 1) * sim.timestep
    w, decay = np.sqrt(kp / 0.1), kv / 0.1 / 2
    damped = np.sqrt(w**2 - decay**2)
    want = goal * (1 - np.exp(-decay * t) * (np.cos(damped * t) + decay / damped * np.sin(damped * t)))
    error = float(np.abs(q - want).max() / goal)
    return error, f"off by {100 * error:.2f} % of the step at most; overshoot {100 * (q.max() / goal - 1):.1f} %"


def _sag(engine: Engine) -> tuple[float, str]:
    kp = 50.0
    arm = (
        '<body name="r" pos="0 0 1"><joint name="r" type="hinge" axis="0 1 0" damping="2"/>'
        '<inertial pos=".3 0 0" mass="2" diaginertia=".01 .01 .01"/></body>'
    )
    extra = f'<actuator><position name="r" joint="r" kp="{kp}"/></actuator>'
    sim = _open(engine, arm, extra=extra)
    q = float(_run(sim, 10.0, ["joint:r.position"], [0.0], every=100)["joint:r.position"][-1, 0])
    torque, want = kp * q, 2 * GRAVITY * 0.3 * np.cos(q)
    return abs(torque / want - 1), f"the servo holds {torque:.4f} N m, law {want:.4f}"


def _floats(engine: Engine) -> tuple[float, str]:
    fixed = '<body name="base" pos="0 0 1"><inertial pos="0 0 0" mass="1" diaginertia=".1 .1 .1"/>' + (
        '<body name="r"><joint name="r" type="hinge" axis="0 0 1"/>'
        '<inertial pos="0 0 0" mass="1" diaginertia=".1 .1 .1"/></body></body>'
    )
    z = _run(_open(engine, fixed), 1.0, ["body:base.position"], every=10)["body:base.position"][:, 2]
    return float(np.abs(z - 1).max()), f"a base without a joint moves {np.abs(z - 1).max():.2g} m in 1 s"


_MIXED = _floor(0.5) + _free(_BOX, 0.3) + _PENDULUM.replace('pos="0 0 2"', 'pos="3 0 2"')


def _state(engine: Engine, n: int, threads: int) -> NDArray[np.float64]:
    sim = _open(engine, _MIXED, n=n, threads=threads)
    sim.push("b", np.tile([1.0, 0.3, 0, 2, 1, 3], (n, 1)) * (1 + 0.1 * np.arange(n)[:, None]))
    sim.step(np.zeros((n, 600, 0)))
    fields = sim.read(["body:b.position", "body:b.quat", "joint:p.position"])
    return np.concatenate([x.reshape(n, -1) for x in fields.values()], axis=1)


def _determinism(engine: Engine) -> tuple[float, str]:
    first, again, threaded = _state(engine, 4, 1), _state(engine, 4, 1), _state(engine, 4, 2)
    same = np.array_equal(first, again) and np.array_equal(first, threaded)
    return (0.0 if same else 1.0), "equal bits twice, on one thread and on two" if same else "bits differ"


def _alone(engine: Engine) -> tuple[float, str]:
    same = np.array_equal(_state(engine, 4, 1)[:1], _state(engine, 1, 1))
    return (0.0 if same else 1.0), "a world alone has the bits it has among four" if same else "bits differ"


def _resumes(engine: Engine) -> tuple[float, str]:
    sim = _open(engine, _MIXED)
    sim.push("b", np.array([[1.0, 0.3, 0, 2, 1, 3]]))
    sim.step(np.zeros((1, 300, 0)))
    kept = sim.save()
    ends = []
    for _ in range(2):
        sim.restore(kept)
        sim.step(np.zeros((1, 300, 0)))
        ends.append(sim.read(["body:b.position", "body:b.quat"]))
    same = all(np.array_equal(ends[0][k], ends[1][k]) for k in ends[0])
    return (0.0 if same else 1.0), "goes on bit for bit" if same else "bits differ"


def _order(engine: Engine) -> tuple[float, str]:
    steps = (0.008, 0.004, 0.002, 0.001)
    errors = []
    for step in steps:
        sim = _open(engine, _PENDULUM, step=step)
        sim.place("p", np.array([[1.0]]))
        errors.append(float(_run(sim, 0.8, ["joint:p.position"])["joint:p.position"][-1, 0]))
    gaps = np.abs(np.diff(errors))
    order = float(np.polyfit(np.log(steps[:-1]), np.log(np.maximum(gaps, 1e-15)), 1)[0])
    return max(0.0, 1 - order), f"halving the step divides the error by {2**order:.1f}: order {order:.2f}"


FIRST_ORDER = "a first-order step is off by g t dt / 2, which is dt of the way"
LAWS = (
    Law("free fall", "thrown, a body falls g t^2 / 2", 1.05 * STEP_S, FIRST_ORDER, _fall),
    Law("pendulum, period", "small swings take 2 pi sqrt(I / m g l)", 2e-4, "0.02 rad adds 3e-5", _period(STEP_S)),
    Law("pendulum, energy", "a free swing keeps its energy", 1e-3, "per 10 s, of the swing's energy", _energy),
    Law("order of accuracy", "the error vanishes with the step", 0.1, "1 minus the order", _order),
    Law("momentum", "a collision keeps the momentum", 1e-6, "contact forces are equal and opposite", _momentum),
    Law("torque-free precession", "without torque the angular momentum stays", 0.02, "2 s at 3 rad/s, first-order step",
        _precession),
    Law("ramp", "a box slips where tan a > mu", 0.0, "12 ramps, none nearer than 5 % to the edge", _slip),
    Law("stopping distance", "a box stops after v^2 / 2 mu g", 0.02, "contacts give way a little", _stopping),
    Law("rolling", "a ball rolls down with 5/7 g sin a", 0.01, "contacts give way a little", _rolling),
    Law("resting force", "what rests presses with m g", 1e-3, "after 1.5 s", _resting),
    Law("stack", "four boxes stand still [m]", 1e-3, "1 mm in 5 s, also into each other", _stack),
    Law("servo, step", "a servo answers as stiffness, damping, inertia say", 0.02, "dt over the rise: 0.01", _servo),
    Law("servo, gravity", "a servo sags until it holds the weight's torque", 1e-3, "after 10 s", _sag),
    Law("fixed base", "what has no joint does not move [m]", 1e-9, "nothing may move it", _floats),
    Law("determinism", "the same start ends in the same bits", 0.0, "on any number of threads", _determinism),
    Law("batch", "worlds do not influence each other", 0.0, "bit for bit", _alone),
    Law("save and restore", "a saved world goes on as it would have", 0.0, "bit for bit", _resumes),
)  # fmt: skip
"""The laws, in the order of the card."""
