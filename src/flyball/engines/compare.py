"""Do two models of one robot move alike?

In: two models (anything that compiles to a ``mujoco.MjModel``), such as a robot before and after a conversion. Out: how
far their joints part, matched by name, in a passive second and in the response to a step of every actuator. Both are
stepped by MuJoCo with the first one's time step, so that a difference is one of the models, not of engines. Both start
off their reference pose, or a model that stands still would hide what it is made of.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError

Array = NDArray[np.float64]

OFFSET = 0.05
"""Start off the reference pose, as a share of a joint's range, or in rad and m where it has none."""
STEP = 0.2
"""Height of a control step, as a share of half the control's range, or in its own unit where it has none."""


class Compilable(Protocol):
    """A model that compiles, e.g. ``flyball.robots.models.Imported``."""

    def compile(self) -> Any:
        """A fresh ``mujoco.MjModel``."""


@dataclass(frozen=True)
class Motion:
    """How far two models' joints part in one experiment.

    Attributes:
      largest: joint -> largest deviation over time [rad or m]; of a free joint the larger of angle and distance.
      final: joint -> deviation at the end.
      moved: joint -> how far the first model's joint went, to judge the deviation by.
    """

    largest: Mapping[str, float]
    final: Mapping[str, float]
    moved: Mapping[str, float]

    @property
    def worst(self) -> tuple[str, float]:
        """The joint that parts most, and by how much; ("", 0) without joints."""
        return max(self.largest.items(), key=lambda x: x[1], default=("", 0.0))


@dataclass(frozen=True)
class Comparison:
    """Two models, compared by what they do.

    Attributes:
      passive: one second with the actuators switched off.
      step: a step of every actuator that both have; None when they share none.
      unmatched: joints and actuators that only one of them has.
    """

    passive: Motion
    step: Motion | None
    unmatched: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """The comparison as plain data."""
        return {
            "passive": vars(self.passive),
            "step": None if self.step is None else vars(self.step),
            "unmatched": list(self.unmatched),
        }

    def lines(self) -> list[str]:
        """For people: the worst joint of each experiment."""
        out = []
        for name, motion in (("passive", self.passive), ("step response", self.step)):
            if motion is None:
                out.append(f"{name}: no actuators in common")
            elif not motion.largest:
                out.append(f"{name}: no joints in common")
            else:
                joint, most = motion.worst
                final, moved = motion.final[joint], motion.moved[joint]
                out.append(
                    f"{name}: joint {joint} parts most, {most:.2g} rad or m (at the end {final:.2g}, moved {moved:.2g})"
                )
        return out + [f"only one of them has {name}" for name in self.unmatched]


def compare(a: Compilable, b: Compilable, *, seconds: float = 1.0) -> Comparison:
    """Step two models side by side.

    Raises:
      InputError: one does not compile, or the first one's time step does not divide into ``seconds`` at all.
    """
    one, two = _compiled(a), _compiled(b)
    two.opt.timestep = one.opt.timestep
    if not 0 < one.opt.timestep <= seconds:
        raise InputError(f"time step {one.opt.timestep} s", where="compare", allowed=f"up to {seconds} s")
    here, there = _names(one, "joint"), _names(two, "joint")
    joints = {name: (i, there[name]) for name, i in here.items() if name in there}
    joints = {name: (i, j) for name, (i, j) in joints.items() if one.jnt_type[i] == two.jnt_type[j]}
    drives = [name for name in _names(one, "actuator") if name in _names(two, "actuator")]
    unmatched = [
        f"{kind} {name}"
        for kind, same in (("joint", joints), ("actuator", drives))
        for name in sorted({*_names(one, kind)} ^ {*_names(two, kind)} | ({*_names(one, kind)} - {*same}))
    ]
    steps = round(seconds / one.opt.timestep)
    step = _run(one, two, joints, _controls(one, drives), steps) if drives else None
    for m in (one, two):  # or servos would hold it
        m.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
    passive = _run(one, two, joints, {}, steps)
    return Comparison(passive, step, tuple(unmatched))


def _compiled(model: Compilable) -> Any:
    try:
        return model.compile()
    except ValueError as err:
        raise InputError(f"the model does not compile: {err}", where="compare") from err


def _names(m: Any, kind: str) -> dict[str, int]:
    """Name -> index; those without a name are numbered within their body (joints) or the model."""
    out: dict[str, int] = {}
    if kind == "actuator":
        return {m.actuator(i).name or f"actuator{i}": i for i in range(m.nactuator)}
    count: dict[int, int] = {}
    for i in range(m.njnt):
        body = int(m.jnt_bodyid[i])
        name = m.joint(i).name
        if not name:
            name = f"{m.body(body).name}/joint{count.get(body, 0)}"
            count[body] = count.get(body, 0) + 1
        out[name] = i
    return out


def _controls(m: Any, drives: list[str]) -> dict[str, Array]:
    """Actuator -> its stepped control: from what zero is clipped to, by a share of the range."""
    names, out = _names(m, "actuator"), {}
    for name in drives:
        i = names[name]
        at, n = int(m.actuator_ctrladr[i]), int(m.actuator_ctrlnum[i])
        values = np.zeros(n)
        for k in range(n):
            low, high = np.ravel(m.actuator_ctrlrange[at + k])
            if m.actuator_ctrllimited[at + k]:
                values[k] = np.clip(np.clip(0.0, low, high) + STEP * (high - low) / 2, low, high)
            else:
                values[k] = STEP
        out[name] = values
    return out


def _run(
    one: Any, two: Any, joints: Mapping[str, tuple[int, int]], controls: Mapping[str, Array], steps: int
) -> Motion:
    """Step both and follow the joints."""
    data = [mujoco.MjData(m) for m in (one, two)]
    for side, (m, d) in enumerate(zip((one, two), data, strict=True)):
        for name, pair in joints.items():
            _start(one, m, d, name, pair[0], pair[side])
        names = _names(m, "actuator")
        for name, values in controls.items():
            at = int(m.actuator_ctrladr[names[name]])
            d.ctrl[at : at + len(values)] = values
    largest, final, moved = ({name: 0.0 for name in joints} for _ in range(3))
    begun = {name: _position(one, data[0], i) for name, (i, _) in joints.items()}
    for _ in range(steps):
        for m, d in zip((one, two), data, strict=True):
            mujoco.mj_step(m, d)
        for name, (i, j) in joints.items():
            p = _position(one, data[0], i)
            final[name] = _apart(p, _position(two, data[1], j))
            largest[name] = max(largest[name], final[name])
            moved[name] = max(moved[name], _apart(p, begun[name]))
    return Motion(largest, final, moved)


def _start(first: Any, m: Any, d: Any, name: str, i: int, j: int) -> None:
    """Put a joint off its reference by a share that its name decides, within the first model's limits."""
    kind = m.jnt_type[j]
    if kind not in (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE):
        return
    low, high = first.jnt_range[i] if first.jnt_limited[i] else (-1.0, 1.0)
    share = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little") / 2**32 * 2 - 1
    reference = float(first.qpos0[first.jnt_qposadr[i]])
    d.qpos[m.jnt_qposadr[j]] = np.clip(reference + OFFSET * share * (high - low), low, high)


def _position(m: Any, d: Any, joint: int) -> Array:
    at = int(m.jnt_qposadr[joint])
    size = {mujoco.mjtJoint.mjJNT_FREE: 7, mujoco.mjtJoint.mjJNT_BALL: 4}.get(mujoco.mjtJoint(m.jnt_type[joint]), 1)
    return d.qpos[at : at + size].copy()


def _apart(p: Array, q: Array) -> float:
    """Deviation of two positions of a joint [rad or m]; infinite when one is not finite."""
    if not (np.isfinite(p).all() and np.isfinite(q).all()):
        return float("inf")
    if len(p) == 1:
        return abs(float(p[0] - q[0]))
    angle = 2 * float(np.arccos(np.clip(abs(p[-4:] @ q[-4:]), 0.0, 1.0)))
    # near zero, arccos of a rounded cosine is no better than 1e-8; the chord is
    chord = float(min(np.linalg.norm(p[-4:] - q[-4:]), np.linalg.norm(p[-4:] + q[-4:])))
    angle = 2 * chord if chord < 1e-3 else angle
    return max(angle, float(np.linalg.norm(p[:-4] - q[:-4])) if len(p) == 7 else 0.0)
