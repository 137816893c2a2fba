"""The parameters of a robot model: what a calibration may say about each joint, drive and link.

In: a compiled model's facts. Out: scene parameters bound to engine fields, each with a range around what the model
says; where it says nothing, with a range from the size of the mechanism: its inertia about the joint, the stiffness and
the limits of its drive. Names are ``JOINT.gain`` and so on; see ``KINDS``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyball.robots.models import Model
from flyball.robots.models.model import Actuator
from flyball.scenes import Bind, Parameter

Array = NDArray[np.float64]
Drive = Literal["position", "velocity", "effort"]

KINDS = {
    "gain": "of the drive: torque per error or command",
    "offset": "zero of the encoder",
    "friction": "dry friction",
    "damping": "viscous friction",
    "armature": "inertia of rotor and gears at the joint",
    "torque_limit": "the most that the drive gives",
    "torque_scale": "torque of the drive over what it is set to, limit included",
    "drive_damping": "damping that the drive adds",
    "mass": "of a link over the model's",
    "delay": "from command to motor",
    "payload": "mass carried by the last link, at its centre of mass",
}
"""Kinds of parameters. ``command.delay``, ``payload.mass``, ``LINK.mass``; all others are ``JOINT.kind``."""
LEVELS: tuple[tuple[str, ...], ...] = (
    ("gain", "offset", "delay", "payload"),
    ("friction", "damping", "armature"),
)
"""The ladder by kind; what is not here is fitted only when asked for."""
DELAY = "command.delay"
PAYLOAD = "payload.mass"

SPREAD = 30.0
"""The gain of a drive that nobody described is taken to be known within this factor."""
_CONFIGURATIONS = 64
_ERROR = 0.2
"""Position error at which a drive without a torque limit is taken to be at home [rad or m]."""


@dataclass(frozen=True)
class Driven:
    """A joint that is measured, and what drives it.

    Attributes:
      joint: name.
      hinge: else it slides.
      actuator: name, "" when nothing drives it.
      drive: what its control means.
      inertia: about the joint, the largest over configurations [kg m^2 or kg].
      load: torque of gravity, the largest over configurations [N m or N].
      gain, drive_damping: of the actuator [N m/rad, N m s/rad].
      limit: of the drive's torque or force; infinite when unlimited.
      friction, damping, armature: what the model says.
      low, high: range of motion, infinite when unlimited.
    """

    joint: str
    hinge: bool
    actuator: str
    drive: Drive
    inertia: float
    load: float
    gain: float
    drive_damping: float
    limit: float
    friction: float
    damping: float
    armature: float
    low: float
    high: float

    @property
    def torque(self) -> float:
        """A torque of this drive's size [N m or N]."""
        own = self.gain * _ERROR if self.drive == "position" else self.load + 2 * self.inertia
        return float(min(self.limit, max(own, self.load)))

    @property
    def rate(self) -> float:
        """How fast it answers [rad/s]."""
        inertia = self.inertia + self.armature
        return float(np.sqrt(self.gain / inertia)) if self.drive == "position" else 10.0


def drive_of(a: Actuator) -> Drive:
    """What the control of an actuator means."""
    if a.bias_prm[1] != 0:
        return "position"
    return "velocity" if a.bias_prm[2] != 0 and a.gain_prm[0] > 0 and a.bias == "affine" else "effort"


def mechanism(model: Model, compiled: Any, joints: Sequence[str]) -> list[Driven]:
    """Facts of these joints, from the model and from its mass matrix and gravity torque in many configurations.

    Args:
      compiled: the ``mujoco.MjModel``.
      joints: hinges and slides, in the order of the measurement.
    """
    import mujoco

    data, rng = mujoco.MjData(compiled), np.random.default_rng(0)
    limited = np.array(compiled.jnt_limited, bool)
    low = np.where(limited, compiled.jnt_range[:, 0], -np.pi / 2)
    high = np.where(limited, compiled.jnt_range[:, 1], np.pi / 2)
    scalar = np.isin(compiled.jnt_type, (int(mujoco.mjtJoint.mjJNT_HINGE), int(mujoco.mjtJoint.mjJNT_SLIDE)))
    full = np.zeros((compiled.nv, compiled.nv))
    inertia, load = np.zeros(compiled.nv), np.zeros(compiled.nv)
    for _ in range(_CONFIGURATIONS):
        data.qpos[:] = compiled.qpos0
        data.qpos[compiled.jnt_qposadr[scalar]] = rng.uniform(low, high)[scalar]
        mujoco.mj_forward(compiled, data)
        mujoco.mj_fullM(compiled, data, full)
        inertia = np.maximum(inertia, np.diag(full) - compiled.dof_armature)
        load = np.maximum(load, np.abs(data.qfrc_bias))
    found = []
    for name in joints:
        j, dof = model.joints[name], int(compiled.joint(name).dofadr[0])
        driving = [a for a in model.actuators.values() if a.target_kind == "joint" and a.target == name]
        a = driving[0] if driving else None
        drive: Drive = drive_of(a) if a else "effort"
        limit = min(float(j.effort[1]), float(a.forcerange[1]) * abs(float(a.gear[0]))) if a else np.inf
        damping = -float(a.bias_prm[2]) if a else 0.0
        found.append(
            Driven(
                name, j.kind == "hinge", a.name if a else "", drive, float(max(inertia[dof], 1e-9)), float(load[dof]),
                float(abs(a.gain_prm[0])) if a else 0.0, damping, limit, j.frictionloss, j.damping, j.armature,
                float(j.range[0]), float(j.range[1]),
            )
        )  # fmt: skip
    return found


def last_link(model: Model, joints: Sequence[str]) -> str:
    """The body that the last of these joints moves, or the one at the end of what is fixed to it."""
    body = model.joints[joints[-1]].body
    return body if model.bodies[body].mass > 0 else next((b for b in model.children(body)), body)


def parameters(
    model: Model, driven: Sequence[Driven], signal: str, extra: Sequence[str] = (), guessed: Collection[str] = ()
) -> dict[str, tuple[Parameter, ...]]:
    """Kind -> its parameters.

    Args:
      driven: measured joints, in the order of the signal's elements.
      signal: the measured signal, for offsets.
      extra: kinds besides those of the ladder.
      guessed: joints whose drive nobody described.
    """
    wanted = {k for level in LEVELS for k in level} | set(extra)
    out: dict[str, list[Parameter]] = {kind: [] for kind in KINDS if kind in wanted}

    def add(kind: str, path: str, unit: str, nominal: float, low: float, high: float, binds: Sequence[Bind]) -> None:
        if kind in out:
            scale: Literal["log", "linear"] = "log" if low > 0 else "linear"
            out[kind].append(Parameter(path, unit, nominal, low, high, scale, "robot", tuple(binds), KINDS[kind]))

    for i, d in enumerate(driven):
        torque, angle = ("N m", "rad") if d.hinge else ("N", "m")
        add("offset", f"{d.joint}.offset", angle, 0.0, -0.1, 0.1, [Bind(f"sensor:{signal}.bias", index=i)])
        own = max(d.gain * _OVER_RATE / d.rate if d.drive == "position" else 0.1 * d.torque, 1e-9)
        for kind, field, said, size in (
            ("friction", "frictionloss", d.friction, 0.5 * d.torque),
            ("damping", "damping", d.damping, own),
            ("armature", "armature", d.armature, 3 * d.inertia),
        ):
            low, nominal, high = around(said, size)
            unit = {"friction": torque, "damping": f"{torque} s/{angle}"}.get(kind, "kg m^2" if d.hinge else "kg")
            add(kind, f"{d.joint}.{kind}", unit, nominal, low, high, [Bind(f"joint:{d.joint}.{field}")])
        if not d.actuator:
            continue
        field, gain = f"actuator:{d.actuator}.", max(d.gain, 1e-9)
        unit = {"position": f"{torque}/{angle}", "velocity": f"{torque} s/{angle}", "effort": ""}[d.drive]
        spread = SPREAD if d.joint in guessed else 5.0
        add("gain", f"{d.joint}.gain", unit, gain, gain / spread, gain * spread, [Bind(field + "gain")])
        limited = np.isfinite(model.actuators[d.actuator].forcerange[1])
        scaled = [Bind(field + "gain", "scale")] + ([Bind(field + "force_limit", "scale")] if limited else [])
        add("torque_scale", f"{d.joint}.torque_scale", "", 1.0, 0.2, 5.0, scaled)
        if limited:
            limit = float(model.actuators[d.actuator].forcerange[1])
            bind = Bind(field + "force_limit")
            add("torque_limit", f"{d.joint}.torque_limit", torque, limit, limit / 5, limit * 5, [bind])
        if d.drive == "position":
            low, nominal, high = around(d.drive_damping, own)
            bind = Bind(field + "damping")
            add("drive_damping", f"{d.joint}.drive_damping", f"{torque} s/{angle}", nominal, low, high, [bind])
    for body in dict.fromkeys(model.joints[d.joint].body for d in driven):
        if model.bodies[body].mass > 0:
            add("mass", f"{body}.mass", "", 1.0, 0.4, 2.5, [Bind(f"body:{body}.mass", "scale")])
    add("delay", DELAY, "s", 0.0, 0.0, 0.06, [Bind(DELAY)])
    tip = last_link(model, [d.joint for d in driven])
    moved = sum(model.bodies[b].mass for b in _below(model, model.joints[driven[0].joint].body))
    if model.bodies[tip].mass > 0:
        add("payload", PAYLOAD, "kg", 0.0, 0.0, max(0.3 * moved, 1e-3), [Bind(f"body:{tip}.mass", "add")])
    return {kind: tuple(ps) for kind, ps in out.items()}


_OVER_RATE = 4.0
"""Twice the damping that is critical, over stiffness and rate."""


def around(said: float, size: float) -> tuple[float, float, float]:
    """Low, nominal and high of what must be positive: ten times either way of what the model says.

    Where it says nothing: from a thousandth of the most that is plausible, which is as good as nothing, up to that.
    """
    if said > 0:
        return min(said / 10, size / 1000), said, max(said * 10, size)
    return size / 1000, size / 1000, size


def _below(model: Model, body: str) -> list[str]:
    """A body and everything that hangs on it."""
    return [body, *(b for child in model.children(body) for b in _below(model, child))]
