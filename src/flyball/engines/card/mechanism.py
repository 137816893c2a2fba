"""Laws of joints and drives: servos, gravity torque, mass matrix, loops, bases, and what an import made of a model."""

from __future__ import annotations

import numpy as np

from flyball.base import Unsupported
from flyball.engines.card.card import Finding, Law
from flyball.engines.card.scenes import GRAVITY, WEIGHTLESS, Array, check, open_scene, rotate, run
from flyball.engines.engine import Engine, Simulation

# servos ---------------------------------------------------------------------------------------------------

_KP, _KV, _GOAL = 20.0, 2.0, 0.5


def _step_response(engine: Engine) -> tuple[Array, Array, Array]:
    """Time [s], position and the law's position [rad] of a servo after a step of its goal."""
    rod = (
        '<body name="r"><joint name="r" type="hinge" axis="0 0 1"/>'
        '<inertial pos="0 0 0" mass="1" diaginertia="1 1 .1"/></body>'
    )
    extra = f'<actuator><position name="r" joint="r" kp="{_KP}" kv="{_KV}"/></actuator>'
    sim = open_scene(engine, rod, option=WEIGHTLESS, extra=extra)
    q = run(sim, 1.0, ["joint:r.position"], [_GOAL])["joint:r.position"][:, 0]
    t = np.asarray((np.arange(len(q)) + 1) * sim.timestep)
    w, decay = np.sqrt(_KP / 0.1), _KV / 0.1 / 2
    damped = np.sqrt(w**2 - decay**2)
    law = _GOAL * (1 - np.exp(-decay * t) * (np.cos(damped * t) + decay / damped * np.sin(damped * t)))
    return t, q, law


def _servo(engine: Engine) -> Finding:
    t, q, want = _step_response(engine)
    error = float(np.abs(q - want).max() / _GOAL)
    note = f"off by {100 * error:.2f} % of the step at most; overshoot {100 * (q.max() / _GOAL - 1):.1f} %"
    some = slice(9, None, 50)
    columns = {"t [s]": t, "q [rad]": q, "law [rad]": want}
    return Finding(error, note, {k: x[some].tolist() for k, x in columns.items()})


def _settling(engine: Engine) -> Finding:
    t, q, want = _step_response(engine)

    def settled(x: Array) -> float:
        outside = np.flatnonzero(np.abs(x / _GOAL - 1) > 0.02)
        return float(t[outside[-1]]) if len(outside) else 0.0

    found, law = settled(q), settled(want)
    return Finding(abs(found / law - 1), f"within 2 % after {found:.3f} s, law {law:.3f} s")


def _sag(engine: Engine) -> Finding:
    kp = 50.0
    arm = (
        '<body name="r" pos="0 0 1"><joint name="r" type="hinge" axis="0 1 0" damping="2"/>'
        '<inertial pos=".3 0 0" mass="2" diaginertia=".01 .01 .01"/></body>'
    )
    extra = f'<actuator><position name="r" joint="r" kp="{kp}"/></actuator>'
    sim = open_scene(engine, arm, extra=extra)
    q = float(run(sim, 10.0, ["joint:r.position"], [0.0], every=100)["joint:r.position"][-1, 0])
    torque, want = kp * q, 2 * GRAVITY * 0.3 * np.cos(q)
    return Finding(abs(torque / want - 1), f"the servo holds {torque:.4f} N m, law {want:.4f}")


# an arm of three hinges, and its equations of motion ------------------------------------------------------

_LINKS: tuple[tuple[Array, Array, Array, float, Array], ...] = (
    # where its hinge sits in the link before [m], axis, centre of mass [m], mass [kg], principal inertia [kg m^2]
    (np.array([0, 0, 0.4]), np.array([0.0, 0, 1]), np.array([0.02, 0.01, 0.05]), 3.0, np.array([0.02, 0.025, 0.01])),
    (np.array([0.05, 0, 0.1]), np.array([0.0, 1, 0]), np.array([0.15, 0, 0.01]), 2.0, np.array([0.003, 0.02, 0.021])),
    (np.array([0.3, 0, 0]), np.array([0.0, 1, 0]), np.array([0.1, 0.03, 0]), 1.0, np.array([0.001, 0.006, 0.007])),
)
_POSES = np.random.default_rng(5).uniform(-2, 2, (8, len(_LINKS)))
"""Joint positions at which the arm is asked [rad]."""


def _words(x: Array) -> str:
    return " ".join(f"{v:g}" for v in x)


def _arm() -> str:
    text = ""
    for k, (at, axis, com, mass, inertia) in reversed(list(enumerate(_LINKS))):
        text = (
            f'<body name="l{k}" pos="{_words(at)}"><joint name="j{k}" type="hinge" axis="{_words(axis)}"/>'
            f'<inertial pos="{_words(com)}" mass="{mass}" diaginertia="{_words(inertia)}"/>{text}</body>'
        )
    return text


def _motors() -> str:
    return "<actuator>" + "".join(f'<motor name="m{k}" joint="j{k}"/>' for k in range(len(_LINKS))) + "</actuator>"


def _mass_and_gravity(q: Array) -> tuple[Array, Array]:
    """M(q) (3, 3) and the torques that hold the arm against gravity (3,), from the bodies' Jacobians."""
    n = len(_LINKS)
    turn, origin = np.eye(3), np.zeros(3)
    axes, hinges = np.empty((n, 3)), np.empty((n, 3))
    mass_matrix, hold = np.zeros((n, n)), np.zeros(n)
    for i, (at, axis, com, mass, inertia) in enumerate(_LINKS):
        origin = origin + turn @ at
        axes[i], hinges[i] = turn @ axis, origin
        x, y, z = axis
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        turn = turn @ (np.eye(3) + np.sin(q[i]) * cross + (1 - np.cos(q[i])) * cross @ cross)
        linear, angular = np.zeros((3, n)), np.zeros((3, n))
        linear[:, : i + 1] = np.cross(axes[: i + 1], origin + turn @ com - hinges[: i + 1]).T
        angular[:, : i + 1] = axes[: i + 1].T
        mass_matrix += mass * linear.T @ linear + angular.T @ turn @ np.diag(inertia) @ turn.T @ angular
        hold += mass * GRAVITY * linear[2]
    return mass_matrix, hold


def _accelerations(sim: Simulation, poses: Array, torques: Array) -> Array:
    """Joint accelerations from rest under torques, (n, 3): the speed after one step over that step."""
    for k in range(len(_LINKS)):
        sim.place(f"j{k}", poses[:, k : k + 1])
    names = [f"joint:j{k}.velocity" for k in range(len(_LINKS))]
    seen = sim.step(torques[:, None], dict.fromkeys(names, "last"))
    check(sim)
    return np.concatenate([seen[name] for name in names], axis=1) / sim.timestep


def _gravity(engine: Engine) -> Finding:
    hold = np.array([_mass_and_gravity(q)[1] for q in _POSES])
    poses, torques = np.concatenate([_POSES, _POSES]), np.concatenate([hold, np.zeros_like(hold)])
    sim = open_scene(engine, _arm(), n=len(poses), extra=_motors())
    held, falling = np.split(_accelerations(sim, poses, torques), 2)
    error = float((np.linalg.norm(held, axis=1) / np.linalg.norm(falling, axis=1)).max())
    note = f"the law's torques leave {error:.2g} of the acceleration of a free fall, at {len(hold)} poses"
    return Finding(error, note)


def _mass_matrix(engine: Engine) -> Finding:
    n = len(_LINKS)
    poses, torques = np.repeat(_POSES, n, axis=0), np.tile(np.eye(n), (len(_POSES), 1))
    sim = open_scene(engine, _arm(), n=len(poses), option=WEIGHTLESS, extra=_motors())
    answers = _accelerations(sim, poses, torques).reshape(len(_POSES), n, n).transpose(0, 2, 1)
    products = np.array([_mass_and_gravity(q)[0] @ a for q, a in zip(_POSES, answers, strict=True)])
    error = float(np.abs(products - np.eye(n)).max())
    return Finding(error, f"M(q) times the answers to unit torques is 1 up to {error:.2g}, at {len(_POSES)} poses")


# loops and bases ------------------------------------------------------------------------------------------


def _four_bar(engine: Engine) -> Finding:
    ground, crank, coupler, rocker = 0.5, 0.2, 0.5, 0.4
    b, d = np.array([0, crank]), np.array([ground, 0])  # in the plane x, z; the crank begins upright
    gap = np.linalg.norm(d - b)
    along = (coupler**2 - rocker**2 + gap**2) / (2 * gap)
    u = (d - b) / gap
    c = b + along * u + np.sqrt(coupler**2 - along**2) * np.array([-u[1], u[0]])
    tip_coupler, tip_rocker = c - b, c - d

    def link(tip: Array) -> str:
        return f'<inertial pos="{tip[0] / 2} 0 {tip[1] / 2}" mass=".5" diaginertia=".005 .005 .005"/>'

    bodies = (
        '<body name="crank" pos="0 0 1"><joint name="crank" type="hinge" axis="0 1 0" damping=".05"/>'
        f'{link(b)}<body name="coupler" pos="0 0 {crank}"><joint name="coupler" type="hinge" axis="0 1 0"/>'
        f'{link(tip_coupler)}</body></body><body name="rocker" pos="{ground} 0 1">'
        f'<joint name="rocker" type="hinge" axis="0 1 0"/>{link(tip_rocker)}</body>'
    )
    extra = (
        f'<equality><connect body1="coupler" body2="rocker" anchor="{tip_coupler[0]} 0 {tip_coupler[1]}" '
        'solref=".004 1"/></equality><actuator><motor name="m" joint="crank"/></actuator>'
    )
    sim = open_scene(engine, bodies, option=WEIGHTLESS, extra=extra)
    names = [f"body:{k}.{f}" for k in ("coupler", "rocker") for f in ("position", "quat")]
    done = run(sim, 5.0, [*names, "joint:crank.position"], [0.5])
    tips = [
        done[f"body:{k}.position"] + rotate(done[f"body:{k}.quat"], np.array([tip[0], 0, tip[1]]))
        for k, tip in (("coupler", tip_coupler), ("rocker", tip_rocker))
    ]
    drift = np.linalg.norm(tips[0] - tips[1], axis=1)
    turns = float(np.ptp(done["joint:crank.position"]) / (2 * np.pi))
    note = f"open by {1000 * drift.max():.4f} mm at most, {1000 * drift[-1]:.4f} mm after {turns:.1f} turns"
    return Finding(float(drift.max()) if turns > 1 else float("inf"), note)


def _fixed_base(engine: Engine) -> Finding:
    fixed = '<body name="base" pos="0 0 1"><inertial pos="0 0 0" mass="1" diaginertia=".1 .1 .1"/>' + (
        '<body name="r"><joint name="r" type="hinge" axis="0 0 1"/>'
        '<inertial pos="0 0 0" mass="1" diaginertia=".1 .1 .1"/></body></body>'
    )
    z = run(open_scene(engine, fixed), 1.0, ["body:base.position"], every=10)["body:base.position"][:, 2]
    moved = float(np.abs(z - 1).max())
    return Finding(moved, f"a base without a joint moves {moved:.2g} m in 1 s")


# import ---------------------------------------------------------------------------------------------------

_AUTHORED = (
    '<body name="a" pos="0 0 1"><joint name="a" type="hinge" axis="0 1 0" range="-1.1 .7" limited="true" '
    'damping=".3" armature=".02" frictionloss=".04"/>'
    '<inertial pos=".1 .02 -.03" mass="1.7" fullinertia=".012 .015 .017 .001 -.002 .0005"/>'
    '<body name="c" pos=".4 0 0"><joint name="c" type="slide" axis="1 0 0" damping="2.5"/>'
    '<geom name="c" type="box" size=".05 .04 .03" mass=".6" friction=".7 .01 .0002"/></body></body>'
)
_FACTS: dict[str, tuple[float, ...]] = {
    "body:a.mass": (1.7,),
    "body:a.inertia": (0.012, 0.015, 0.017, 0.001, -0.002, 0.0005),
    "body:a.center_of_mass": (0.1, 0.02, -0.03),
    "body:c.mass": (0.6,),
    "body:c.inertia": (*(0.2 * np.array([0.04**2 + 0.03**2, 0.05**2 + 0.03**2, 0.05**2 + 0.04**2])), 0, 0, 0),
    "joint:a.limits": (-1.1, 0.7),
    "joint:a.damping": (0.3,),
    "joint:a.armature": (0.02,),
    "joint:a.frictionloss": (0.04,),
    "joint:c.damping": (2.5,),
    "actuator:a.gain": (35.0,),
    "actuator:a.damping": (4.0,),
    "actuator:a.force_limit": (12.0,),
    "actuator:c.gain": (3.0,),
    "geom:c.friction": (0.7, 0.01, 0.0002),
    "world:gravity": (0.0, 0.0, -GRAVITY),
}
"""What the engine must make of the scene above, worked out by hand: field -> values."""


def _imported(engine: Engine) -> Finding:
    extra = (
        '<actuator><position name="a" joint="a" kp="35" kv="4.0" forcerange="-12 12"/>'
        '<motor name="c" joint="c" gear="1"/></actuator>'
    ).replace('<motor name="c" joint="c" gear="1"/>', '<general name="c" joint="c" gainprm="3"/>')
    sim = open_scene(engine, _AUTHORED, extra=extra)
    wrong, unknown, worst = [], [], 0.0
    for name, want in _FACTS.items():
        try:
            found = sim.get(name)[0]
        except Unsupported:
            unknown.append(name)
            continue
        size = max(float(np.abs(want).max()), 1e-12)
        off = float(np.abs(found[: len(want)] - want[: len(found)]).max()) / size
        if not off <= _IMPORT:
            wrong.append(f"{name} reads {np.round(found, 6).tolist()}, authored {list(want)}")
        worst = max(worst, off) if off == off else float("inf")
    if len(unknown) == len(_FACTS):
        raise Unsupported("no fact of the model can be read back", where=f"engine {engine.name}")
    known = len(_FACTS) - len(unknown)
    note = "; ".join([f"{known - len(wrong)} of {known} as authored", *wrong])
    return Finding(worst, note + (f"; cannot be asked: {', '.join(unknown)}" if unknown else ""))


def _limit(engine: Engine) -> Finding:
    """A joint driven against its limit."""
    rod = (
        '<body name="r"><joint name="r" type="hinge" axis="0 0 1" range="-.5 .5" limited="true" damping=".5" '
        'solreflimit=".004 1"/><inertial pos="0 0 0" mass="1" diaginertia=".1 .1 .1"/></body>'
    )
    sim = open_scene(engine, rod, option=WEIGHTLESS, extra='<actuator><motor name="r" joint="r"/></actuator>')
    q = run(sim, 3.0, ["joint:r.position"], [1.0])["joint:r.position"][:, 0]
    error = float(max(abs(q[-1] - 0.5), q.max() - 0.5))
    return Finding(error, f"1 N m holds it at {q[-1]:.5f} rad, limit 0.5; at most {q.max():.5f}")


_IMPORT = 1e-5
_ONE_STEP = "one step from rest adds nothing but dt; leaves room for single precision"
_FAMILY = "Mechanism"
LAWS = (
    Law(_FAMILY, "servo, step", "a servo answers as stiffness, damping, inertia say", 0.02, "dt over the rise: 0.01",
        _servo),
    Law(_FAMILY, "servo, settling", "it settles within 2 % when the law does", 0.02,
        "a step of 1 ms in 0.4 s, first-order lag", _settling),
    Law(_FAMILY, "servo, gravity", "a servo sags until it holds the weight's torque", 1e-3, "after 10 s", _sag),
    Law(_FAMILY, "gravity torque", "the torques sum m g dz/dq hold an arm still", 1e-3, _ONE_STEP, _gravity),
    Law(_FAMILY, "mass matrix", "unit torques are answered by the columns of the inverse of M(q)", 1e-3, _ONE_STEP,
        _mass_matrix),
    Law(_FAMILY, "four-bar", "a closed loop stays closed [m]", 1e-3,
        "loops are held by soft constraints in some engines: 1 mm of bars of 0.2 to 0.5 m", _four_bar),
    Law(_FAMILY, "joint limit", "a joint driven against its limit stops there [rad]", 0.01,
        "limits are soft in some engines: 1 N m may press 0.01 rad", _limit),
    Law(_FAMILY, "fixed base", "what has no joint does not move [m]", 1e-9, "nothing may move it", _fixed_base),
    Law(_FAMILY, "import", "masses, inertias, limits, gains read back as authored", _IMPORT,
        "an import copies numbers; single precision keeps 7 digits", _imported),
)  # fmt: skip
