"""Simulated arms whose parameters are known, and a recorder: planted truth for tests of calibration.

In: how many joints, true values. Out: the MJCF that the arm's owner has, and episodes as ingest makes them of its log.
Reality is simulated with a quarter of the owner's time step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, Timed
from flyball.episodes import Episode

Array = NDArray[np.float64]

STEP, RATE = 0.004, 100.0
NOISE = 2e-4
SAID = {"gain": 120.0, "friction": 0.6, "damping": 1.0, "armature": 0.04}
"""What the owner's model says of every joint."""


def arm(joints: int = 2) -> str:
    """MJCF of an arm with pitch joints ``j0``, ``j1``, ... one after the other."""
    body = ""
    for i in reversed(range(joints)):
        body = (
            f'<body name="link{i}" pos="0 0 {0.2 if i else 0.1}">'
            f'<joint name="j{i}" axis="{"0 1 0" if i % 2 == 0 else "1 0 0"}" damping="{SAID["damping"]}"'
            f' frictionloss="{SAID["friction"]}" armature="{SAID["armature"]}"/>'
            f'<inertial pos="0 0 .1" mass="{2 * 0.7**i}" diaginertia=".01 .01 .005"/>{body}</body>'
        )
    drives = "".join(f'<position name="j{i}" joint="j{i}" kp="{SAID["gain"]}" kv="6"/>' for i in range(joints))
    return (
        f'<mujoco model="arm"><option timestep="{STEP}" integrator="implicitfast"/>'
        f"<worldbody>{body}</worldbody><actuator>{drives}</actuator></mujoco>"
    )


def record(
    truth: Mapping[str, float], *, joints: int = 2, episodes: int = 4, seconds: float = 3.0, seed: int = 0,
    still: Sequence[int] = (), robot: str = "",
) -> list[Episode]:  # fmt: skip
    """Episodes of an arm with these parameters; the others are as its owner says.

    Args:
      truth: ``jN.gain|friction|damping|armature|offset`` and ``command.delay`` -> value.
      still: joints that are never moved.
      seed: of motions and noise.
    """
    model = mujoco.MjModel.from_xml_string(arm(joints).replace(f'timestep="{STEP}"', f'timestep="{STEP / 4}"'))
    for i in range(joints):
        for kind, field in (("friction", "frictionloss"), ("damping", "damping"), ("armature", "armature")):
            getattr(model, f"dof_{field}")[i] = truth.get(f"j{i}.{kind}", SAID[kind])
        ratio = truth.get(f"j{i}.gain", SAID["gain"]) / SAID["gain"]
        model.actuator_gainprm[i, 0] *= ratio
        model.actuator_biasprm[i, 1:3] *= ratio
    mujoco.mj_setConst(model, mujoco.MjData(model))
    offset = [truth.get(f"j{i}.offset", 0.0) for i in range(joints)]
    return [
        _episode(model, seed * 100 + e, joints, seconds, still, truth.get("command.delay", 0.0), offset, robot)
        for e in range(episodes)
    ]


def _episode(
    model: mujoco.MjModel, seed: int, joints: int, seconds: float, still: Sequence[int], delay: float,
    offset: Sequence[float], robot: str,
) -> Episode:  # fmt: skip
    rng, t = np.random.default_rng(seed), np.arange(int(seconds * RATE)) / RATE
    command = np.zeros((len(t), joints))
    for j in set(range(joints)) - set(still):
        for hertz in rng.uniform(0.15, 1.3, 3):
            command[:, j] += rng.uniform(0.1, 0.45) * np.sin(2 * np.pi * hertz * t) * np.minimum(1, t)
    data, dt = mujoco.MjData(model), float(model.opt.timestep)
    track, per = np.empty((len(t), joints)), round(1 / RATE / dt)
    for k in range(len(t) * per):
        if k % per == 0:
            track[k // per] = data.qpos
        # held until the next one; a delay is a whole number of steps
        data.ctrl[:] = command[max((k - round(delay / dt)) // per, 0)]
        mujoco.mj_step(model, data)
    seen = track + offset + rng.normal(0, NOISE, track.shape)
    t_ns, names = (t * 1e9).astype(np.int64) + 1_700_000_000_000_000_000, [f"j{i}" for i in range(joints)]
    signals = {
        f"{topic}.position": Timed(SignalSpec(f"{topic}.position", (joints,), unit="rad"), t_ns, values)
        for topic, values in (("joint_states", seen), ("joint_commands", command))
    }
    labels = {"file": f"{robot}run{seed}", "joint_states.name": names, "joint_commands.name": names}
    return Episode("arm", robot=robot, signals=signals, labels=labels)
