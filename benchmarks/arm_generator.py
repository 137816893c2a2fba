"""Simulated six-joint arms whose parameters are known, and the recorder that watches them.

In: a seed and a number. Out: ``Arm``: the MJCF that its owner has, wrong in gains, friction, damping and armature and
without its payload; the truth; episodes as ingest makes them of a robot's log. And ``information``: what those episodes
could tell about every parameter at best, from the truth alone.

Nothing here is shared with the calibration: geometry, motion, delay, encoder and simulation are this module's own, with
MuJoCo's C loop at a quarter of the owner's time step. That is an error of the owner's model that no parameter stands
for: between 2 ms and 1 ms the numbers that fit best already move by more than half the band that the recordings allow,
for 62 % of an arm's parameters. ``finer`` = 1 takes it away.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mujoco
import mujoco.rollout
import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, Timed
from flyball.episodes import Episode
from flyball.scenes import Parameter

Array = NDArray[np.float64]

JOINTS = ("yaw", "shoulder", "elbow", "roll", "pitch", "spin")
_AXES = ("0 0 1", "0 1 0", "0 1 0", "0 0 1", "0 1 0", "0 0 1")
EPISODES, SECONDS = 8, 5.0
OWNER_DT = 0.004
"""Time step of the owner's model [s]."""
DELAY, PAYLOAD = "command.delay", "payload.mass"
KINDS = ("gain", "offset", "friction", "damping", "armature")
PAIR = "drive_damping"
"""Damping in the drive, which no recording can tell from damping in the joint: fitted where ``Arm.pairs``."""
_TIP = "hand"

# The rule of what can be told, stated before any calibration: see ``information``.
CORRELATED_S = 0.048
IDENTIFIABLE, UNIDENTIFIABLE = 1 / 6, 1 / 2


@dataclass(frozen=True)
class Arm:
    """A planted arm.

    Attributes:
      mjcf: what its owner has.
      truth: parameter -> value, in the names and units of ``flyball.calibration.models``.
      pairs: whether damping is to be told apart from the drive's own, which cannot be.
      motion: joint -> ``full``, ``slow`` or ``held``.
      command_hz, sample_hz: of the recorder.
      step: of the encoders [rad]; noise: standard deviation before rounding [rad].
      seed: of motions, sampling and noise.
      dt: time step of the simulated reality [s].
    """

    mjcf: str
    truth: Mapping[str, float]
    pairs: bool
    motion: Mapping[str, str]
    command_hz: float
    sample_hz: float
    step: float
    noise: float
    seed: int
    dt: float = OWNER_DT / 4

    @property
    def parameters(self) -> str:
        """What its owner asks for besides the usual, as a file of parameters."""
        return f'fit = ["{PAIR}"]' if self.pairs else ""


def draw_arm(number: int, seed: int = 0, finer: int = 4) -> Arm:
    """Arm of a number; arms of other numbers do not change it.

    Args:
      finer: steps of reality per step of the owner's model.
    """
    rng = np.random.default_rng([seed, number])
    upper, fore, hand = rng.uniform(0.2, 0.4), rng.uniform(0.18, 0.35), rng.uniform(0.08, 0.15)
    lengths = (rng.uniform(0.08, 0.15), upper, fore / 2, fore / 2, hand / 2, hand / 2)
    masses = rng.uniform(0.6, 1.2, 6) * np.array([1.5, 2.0, 0.9, 0.7, 0.4, 0.3]) * rng.uniform(0.6, 1.5)
    bare = _mjcf(lengths, masses, *np.zeros((5, 6)))
    inertia, load = _sizes(bare)
    # One joint in four is not moved and its gear holds it, one in six moves only slowly.
    motion = {j: str(rng.choice(["full", "slow", "held"], p=[7 / 12, 2 / 12, 3 / 12])) for j in JOINTS}
    if "full" not in motion.values():
        motion[JOINTS[int(rng.integers(6))]] = "full"
    # Geared drives as a designer sizes them: a few hertz, a few hundredths of a radian of sag, rotors that weigh as
    # much as small links once they are geared, friction that holds a light joint.
    rate = 2 * np.pi * rng.uniform(3.0, 6.0, 6)
    armature = inertia * rng.uniform(0.15, 0.6, 6) + rng.uniform(1e-3, 3e-3, 6)
    kp = np.maximum((inertia + armature) * rate**2, load / rng.uniform(0.03, 0.08, 6))
    kv = 2 * rng.uniform(0.4, 0.8, 6) * np.sqrt(kp * (inertia + armature))
    torque = np.maximum(load, 0.15 * kp)
    friction = torque * np.where(
        [motion[j] == "held" for j in JOINTS], rng.uniform(0.8, 1.5, 6), rng.uniform(0.05, 0.2, 6)
    )
    damping = kv * rng.uniform(0.1, 0.4, 6)
    mjcf = _mjcf(lengths, masses, kp, kv, friction, damping, armature)
    truth: dict[str, float] = {}
    for i, joint in enumerate(JOINTS):
        truth[f"{joint}.gain"] = kp[i] * np.exp(rng.uniform(np.log(0.6), np.log(1.6)))
        truth[f"{joint}.offset"] = rng.uniform(-0.05, 0.05)
        for kind, said in (("friction", friction), ("damping", damping), ("armature", armature)):
            least = 1.0 if kind == "friction" and motion[joint] == "held" else 0.35
            truth[f"{joint}.{kind}"] = said[i] * np.exp(rng.uniform(np.log(least), np.log(2.5)))
    pairs = bool(rng.random() < 0.25)
    for i, joint in enumerate(JOINTS if pairs else ()):
        truth[f"{joint}.{PAIR}"] = kv[i] * np.exp(rng.uniform(np.log(0.5), np.log(2.0)))
    truth[DELAY] = rng.uniform(0.003, 0.035)
    truth[PAYLOAD] = rng.uniform(0.02, 0.08) * masses.sum()
    step = 2 * np.pi / float(rng.choice([4096, 16384]))
    return Arm(
        mjcf, {k: float(v) for k, v in truth.items()}, pairs, motion, float(rng.choice([100.0, 200.0])),
        float(rng.choice([100.0, 200.0])), step, float(rng.uniform(1e-4, 4e-4)), int(rng.integers(1 << 31)),
        OWNER_DT / finer,
    )  # fmt: skip


def record(arm: Arm) -> list[Episode]:
    """What the recorder logs of the arm."""
    rng = np.random.default_rng(arm.seed)
    sent = [_commands(arm, rng) for _ in range(EPISODES)]
    tracks = simulate(arm, [arm.truth], sent)[0]
    episodes = []
    for k, ((command_t, commands), track) in enumerate(zip(sent, tracks, strict=True)):
        n = int(SECONDS * arm.sample_hz)
        t = np.sort((np.arange(n) + rng.uniform(-0.1, 0.1, n)) / arm.sample_hz).clip(0)
        at = np.arange(len(track)) * arm.dt
        q = np.stack([np.interp(t, at, track[:, i]) for i in range(6)], axis=1)
        q += [arm.truth[f"{j}.offset"] for j in JOINTS]
        seen = np.round((q + rng.normal(0, arm.noise, q.shape)) / arm.step) * arm.step
        start = 1_700_000_000_000_000_000 + k * 60_000_000_000
        signals = {
            name: Timed(SignalSpec(name, (6,), unit="rad"), start + (times * 1e9).astype(np.int64), values)
            for name, times, values in (
                ("joint_states.position", t, seen), ("joint_commands.position", command_t, commands)
            )
        }  # fmt: skip
        labels = {"file": f"episode{k}", "joint_states.name": list(JOINTS), "joint_commands.name": list(JOINTS)}
        episodes.append(Episode("planted-arm", robot="arm", signals=signals, labels=labels))
    return episodes


def simulate(arm: Arm, values: Sequence[Mapping[str, float]], sent: Sequence[tuple[Array, Array]]) -> Array:
    """Joint angles of arms with these parameters under these commands, (values, episodes, steps + 1, 6), every dt."""
    dt = arm.dt
    steps = round(SECONDS / dt)
    own = mujoco.MjModel.from_xml_string(arm.mjcf)
    own.opt.timestep = dt
    models, controls, starts = [], [], []
    for v in values:
        model = _with(own, v)
        for times, commands in sent:
            models.append(model)
            controls.append(_held(times, commands, v[DELAY], steps, dt))
            starts.append(_at_rest(model, commands[0]))
    data = [mujoco.MjData(own)]
    state, _ = mujoco.rollout.rollout(models, data, np.stack(starts), np.stack(controls))
    q = np.concatenate([np.stack(starts)[:, None, 1:7], state[:, :, 1:7]], axis=1)
    return q.reshape(len(values), len(sent), steps + 1, 6)


def information(arm: Arm, parameters: Sequence[Parameter]) -> dict[str, tuple[float, float]]:
    """Widths of 90 % bands that the recordings allow, as shares of the range before: path -> (cautious, best).

    From the truth, without noise and without any fit: Fisher's information of the joint angles by central differences,
    and the range before any recording as a prior of the same variance (1/12 on a scale of 1; its band has 0.95).
    Cautious: an angle has an error of one encoder step, not less than 1 mrad, and counts once in ``CORRELATED_S``,
    since what a model leaves unexplained is not white. Best: every sample counts, with the recorder's own noise and
    rounding (Cramer and Rao: no unbiased estimate has a narrower band).

    A truth is identifiable when the cautious width is at most ``IDENTIFIABLE``, half of what a calibration calls
    identified; unidentifiable when even the best is at least ``UNIDENTIFIABLE``, half as much again. What lies between
    is counted in neither.
    """
    rng = np.random.default_rng(arm.seed)
    sent = [_commands(arm, rng) for _ in range(EPISODES)]
    coarse = replace(arm, dt=OWNER_DT)  # enough for derivatives
    # Joints stick and slip: larger differences are not derivatives, and tell apart what cannot be (at 2e-5 still).
    h, sides = 2e-6, []
    for p in parameters:
        u = float(p.to_unit(arm.truth[p.path]))
        for sign in (1, -1):
            sides.append({**arm.truth, p.path: float(p.from_unit(np.clip(u + sign * h, 0, 1)))})
    every = round(CORRELATED_S / coarse.dt)
    columns = []
    for k, p in enumerate(parameters):
        two = simulate(coarse, sides[2 * k : 2 * k + 2], sent)[:, :, ::every]
        joint, _, kind = p.path.partition(".")
        if kind == "offset":
            two[:, :, :, JOINTS.index(joint)] += np.array([s[p.path] for s in sides[2 * k : 2 * k + 2]])[:, None, None]
        wide = float(p.to_unit(sides[2 * k][p.path]) - p.to_unit(sides[2 * k + 1][p.path]))
        columns.append(((two[0] - two[1]) / wide).ravel())
    j = np.stack(columns, axis=1)
    white = arm.sample_hz * CORRELATED_S / (arm.noise**2 + arm.step**2 / 12)
    bands = []
    for weight in (1 / max(arm.step, 1e-3) ** 2, white):
        spread = np.linalg.inv(weight * j.T @ j + 12 * np.eye(len(parameters)))
        bands.append(2 * 1.645 * np.sqrt(np.diag(spread)))
    return {p.path: (float(a), float(b)) for p, a, b in zip(parameters, *bands, strict=True)}


def rule(cautious: float, best: float) -> str:
    """``identifiable``, ``unidentifiable`` or ``between``; see ``information``."""
    if cautious <= IDENTIFIABLE:
        return "identifiable"
    return "unidentifiable" if best >= UNIDENTIFIABLE else "between"


# parts ------------------------------------------------------------------------------------------------------


def _mjcf(
    lengths: Sequence[float], masses: Array, kp: Array, kv: Array, friction: Array, damping: Array, armature: Array
) -> str:
    names = ("turret", "upper", "fore", "cuff", "wrist", _TIP)
    body = ""
    for i in reversed(range(6)):
        length, mass = lengths[i], masses[i]
        slim, wide = mass * (length**2 / 12 + 0.02**2 / 4), mass * 0.03**2 / 2
        at = f"0 0 {lengths[i - 1] if i else 0.1:.6g}"
        body = (
            f'<body name="{names[i]}" pos="{at}">'
            f'<joint name="{JOINTS[i]}" axis="{_AXES[i]}" range="-2.6 2.6" damping="{damping[i]:.6g}" '
            f'frictionloss="{friction[i]:.6g}" armature="{armature[i]:.6g}"/>'
            f'<inertial pos="{0.01 if i == 5 else 0} 0 {length / 2:.6g}" mass="{mass:.6g}" '
            f'diaginertia="{slim:.6g} {slim:.6g} {wide:.6g}"/>{body}</body>'
        )
    drives = "".join(
        f'<position name="{j}" joint="{j}" kp="{kp[i]:.6g}" kv="{kv[i]:.6g}"/>' for i, j in enumerate(JOINTS)
    )
    return (
        f'<mujoco model="planted-arm"><compiler angle="radian"/>'
        f'<option timestep="{OWNER_DT}" integrator="implicitfast"><flag contact="disable"/></option>'
        f"<worldbody>{body}</worldbody><actuator>{drives}</actuator></mujoco>"
    )


def _sizes(mjcf: str) -> tuple[Array, Array]:
    """Largest inertia about every joint [kg m^2] and largest torque of gravity [N m] over the range of motion, (6,)."""
    model = mujoco.MjModel.from_xml_string(mjcf)
    data, full, rng = mujoco.MjData(model), np.zeros((6, 6)), np.random.default_rng(0)
    inertia, load = np.zeros(6), np.zeros(6)
    for _ in range(100):
        data.qpos[:] = rng.uniform(-1.5, 1.5, 6)
        mujoco.mj_forward(model, data)
        mujoco.mj_fullM(model, data, full)
        inertia, load = np.maximum(inertia, np.diag(full)), np.maximum(load, np.abs(data.qfrc_bias))
    return inertia, load


def _with(own: mujoco.MjModel, values: Mapping[str, float]) -> mujoco.MjModel:
    """The model with these parameters; a drive's damping goes with its gain, a link's inertia with its mass."""
    model = own.__copy__()
    for i, j in enumerate(JOINTS):
        ratio = values[f"{j}.gain"] / own.actuator_gainprm[i, 0]
        model.actuator_gainprm[i, 0] *= ratio
        model.actuator_biasprm[i, 1:3] *= ratio
        if f"{j}.{PAIR}" in values:
            model.actuator_biasprm[i, 2] = -values[f"{j}.{PAIR}"]
        model.dof_frictionloss[i] = values[f"{j}.friction"]
        model.dof_damping[i] = values[f"{j}.damping"]
        model.dof_armature[i] = values[f"{j}.armature"]
    tip = model.body(_TIP).id
    ratio = 1 + values[PAYLOAD] / own.body_mass[tip]
    model.body_mass[tip] *= ratio
    model.body_inertia[tip] *= ratio
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model


def _at_rest(model: mujoco.MjModel, command: Array) -> Array:
    """Full physics state in which the arm has come to rest under a constant command."""
    data = mujoco.MjData(model)
    data.qpos[:], data.ctrl[:] = command, command
    for _ in range(1500):
        mujoco.mj_step(model, data)
    out = np.zeros(mujoco.mj_stateSize(model, mujoco.mjtState.mjSTATE_FULLPHYSICS))
    data.qvel[:], data.time = 0, 0
    mujoco.mj_getState(model, data, out, mujoco.mjtState.mjSTATE_FULLPHYSICS)
    return out


def _commands(arm: Arm, rng: np.random.Generator) -> tuple[Array, Array]:
    """Times and joint commands of one episode: half a second of rest, then sweeps and moves from point to point."""
    t = np.arange(int(SECONDS * arm.command_hz)) / arm.command_hz
    home = rng.uniform(-1, 1, 6) * np.array([1.0, 0.9, 0.9, 1.0, 0.9, 1.0])
    out = np.tile(home, (len(t), 1))
    ramp = np.clip((t - 0.5) / 0.3, 0, 1)
    for i, joint in enumerate(JOINTS):
        kind, sweep, phase = arm.motion[joint], rng.random() < 0.5, rng.uniform(0, 2 * np.pi, 4)
        hertz, size = rng.uniform([0.2, 0.6, 1.2, 2.0], [0.5, 1.1, 1.9, 3.2]), rng.uniform(0.6, 1.0, 4)
        corners = np.cumsum(rng.uniform(0.5, 0.9, 12)) + 0.5
        targets = rng.uniform(-0.7, 0.7, 12)
        if kind == "held":
            continue
        if kind == "slow":
            out[:, i] += ramp * 0.35 * size[0] * (np.sin(2 * np.pi * 0.12 * (t - 0.5) + phase[0]) - np.sin(phase[0]))
        elif sweep:
            waves = np.sin(2 * np.pi * np.outer(t - 0.5, hertz) + phase) - np.sin(phase)
            out[:, i] += ramp * (waves @ (size * np.array([0.35, 0.22, 0.12, 0.06])))
        else:
            for corner, target, before in zip(corners, targets, [0.0, *targets[:-1]], strict=True):
                s = np.clip((t - corner) / 0.25, 0, 1)
                out[:, i] += (target - before) * s**3 * (10 - 15 * s + 6 * s * s)
    return t, out


def _held(times: Array, commands: Array, delay: float, steps: int, dt: float) -> Array:
    """Mean over every step of commands that are held until the next and arrive late, (steps, 6)."""
    edges = np.arange(steps + 1) * dt - delay
    knots = np.concatenate([[min(edges[0], 0.0) - dt], times, [max(edges[-1], times[-1]) + dt]])
    values = np.concatenate([commands[:1], commands])
    area = np.concatenate([np.zeros((1, 6)), np.cumsum(values * np.diff(knots)[:, None], axis=0)])
    at = np.stack([np.interp(edges, knots, a) for a in area.T], axis=1)
    return np.diff(at, axis=0) / dt
