"""What can be changed before the next attempt, and what is given.

In: a task. Out: ``Lever``s: one number each, with a range and what changing it does to a variant. What can be acted on:
what the policy is told (grip force, believed friction, delays, biases), the speed of its commands, and the scene's
parameters that are settings of an actuator or of the command path. Every other parameter of the scene is given:
friction, mass, offsets. A task adds levers of its own by an attribute ``levers``: a sequence of ``Lever``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.explain.case import Case, Variant
from flyball.scenes import Parameter
from flyball.tasks import Task

SETTINGS = ("actuator", "command")
"""Kinds of bindings that somebody can set: drive gains, effort scales, the command path."""
WEAR = ("command.play",)
"""Bindings of these kinds that nobody sets."""
SLOWEST = 0.15
"""The speed lever goes down to this share of the speed at which the policy moved."""


@dataclass(frozen=True)
class Lever:
    """One number that may be changed.

    Attributes:
      path: e.g. ``told:grip.force``, ``object.friction``, ``speed``.
      label: for people.
      unit: SI unit.
      low, high, scale: its range; ``log`` where changes are ratios.
      actionable: somebody can change it before the next attempt.
      read: its present value in a variant, (n,).
      write: a variant with other values (n,).
    """

    path: str
    label: str
    unit: str
    low: float
    high: float
    scale: str
    actionable: bool
    read: Callable[[Variant], NDArray[np.float64]]
    write: Callable[[Variant, NDArray[np.float64]], Variant]

    def to_unit(self, x: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Values as a share of the range."""
        return Parameter("", "", self.low, self.low, self.high, self.scale).to_unit(x)  # type: ignore[arg-type]

    def from_unit(self, u: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Inverse of ``to_unit``."""
        return Parameter("", "", self.low, self.low, self.high, self.scale).from_unit(u)  # type: ignore[arg-type]

    def change(self, before: NDArray[np.float64], after: NDArray[np.float64]) -> NDArray[np.float64]:
        """Size of a change: a ratio minus one on a log scale, else a difference."""
        return after / before - 1 if self.scale == "log" else after - before


def levers_of(case: Case) -> list[Lever]:
    """What can be acted on in a case."""
    task = case.task
    out = [_told(task, j, case) for j in range(len(task.conditioning))]
    out += [parameter_lever(case, p) for p in task.scene.parameters if is_setting(p)]
    speed = speed_lever(case)
    return [*out, *([speed] if speed else []), *getattr(task, "levers", ())]


def is_setting(p: Parameter) -> bool:
    """Whether somebody can set a scene's parameter."""
    return bool(p.binds) and all(
        (b.target.partition(":")[0] if ":" in b.target else b.target.partition(".")[0]) in SETTINGS
        and b.target not in WEAR
        for b in p.binds
    )


def parameter_lever(case: Case, p: Parameter) -> Lever:
    """A parameter of the scene as a lever; given ones too: 'friction would have had to be ...'."""

    def write(v: Variant, x: NDArray[np.float64]) -> Variant:
        other = case.variant(dict(v.values) | {p.path: x}, dict(v.values) | dict(v.seen), v.told, v.seeds)
        return replace(other, speed=v.speed)

    return Lever(
        p.path, p.path, p.unit, p.low, p.high, p.scale, is_setting(p), lambda v: np.asarray(v.values[p.path]),
        write,
    )  # fmt: skip


def _told(task: Task, j: int, case: Case) -> Lever:
    """What the policy is told of one thing."""
    name = task.conditioning[j]
    own = {p.path: p for p in task.scene.parameters}
    if name in own:
        low, high, scale, unit = own[name].low, own[name].high, own[name].scale, own[name].unit
    else:
        # what would be told over the whole scene says how far it makes sense to go
        rng = np.random.default_rng(0)
        drawn = {p.path: p.from_unit(rng.random(512)) for p in task.scene.parameters}
        kept = rng.random(512) < task.plausible(drawn)
        x = task.told({k: v[kept] for k, v in drawn.items()})[:, j]
        low, high = float(min(x.min(), case.told[j])), float(max(x.max(), case.told[j]))
        scale, unit = ("log" if low > 0 else "linear"), ""
        if not high > low:
            low, high = case.told[j] - 1.0, case.told[j] + 1.0

    def write(v: Variant, x: NDArray[np.float64]) -> Variant:
        told = v.told.copy()
        told[:, j] = x
        return replace(v, told=told)

    return Lever(f"told:{name}", f"{name} as told", unit, low, high, scale, True, lambda v: v.told[:, j], write)


def speed_lever(case: Case) -> Lever | None:
    """The greatest speed of the commands, as a share of the joints' limits; None where none is commanded."""
    from flyball.policies.supervisor import joint_of_action

    joint = joint_of_action(case.task.embodiment)
    moved = joint >= 0
    if not moved.any() or case.actions.shape[1] < 3:
        return None
    limit = np.array([j.velocity for j in case.task.embodiment.joints])[joint[moved]]
    steps = np.abs(np.diff(case.actions[0][:, moved], axis=0)) * case.task.control_hz / limit
    fastest = float(np.quantile(steps.max(axis=1), 0.98))
    if not 1e-3 < fastest < np.inf:
        return None
    return Lever(
        "speed", "speed of the commands", "", SLOWEST * fastest, fastest, "log", True,
        lambda v: np.where(np.isfinite(v.speed), v.speed, fastest), lambda v, x: replace(v, speed=x),
    )  # fmt: skip
