"""Recordings of a robot: which signals hold positions and commands, whose columns are which joints.

In: an episode and the names of a model's joints. Out: ``Layout``; times, commands and positions on one clock; where
and how fast every joint starts, estimated from several samples. What cannot be of this robot is refused in one line.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from math import comb

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Timed
from flyball.calibration.audit import Audit, Finding, audit, quantum
from flyball.calibration.models.parameters import Drive, Driven
from flyball.episodes import Episode

Array = NDArray[np.float64]

POSITIONS = ("joint_states.position", "joint.position", "observation.state")
COMMANDS = ("joint_commands.position", "command.joint", "joint_commands.effort", "joint_commands.velocity", "action")
"""Signals looked for, in this order."""
ENABLE = "servo.torque_enable"
"""Whether the drives give torque; without it they always do."""
START_S = 0.08
"""The state at the start is estimated from this much of a recording [s]."""

REST_S = 0.4
SHORTEST_S = 0.5
"""Less than this says nothing [s]."""


@dataclass(frozen=True)
class Layout:
    """Where recordings of a robot hold what.

    Attributes:
      position, command: names of the signals.
      joints: measured joints, in the order of the comparison; columns: theirs in the signal.
      commands: joints that are commanded, in the order of the command's columns.
      actuators: all actuators of the model, in the order of its controls.
    """

    position: str
    command: str
    joints: tuple[str, ...]
    columns: tuple[int, ...]
    commands: tuple[str, ...]
    actuators: tuple[str, ...] = ()


def layout_of(
    episode: Episode, joints: Sequence[str], driven: Collection[str], *, position: str = "", command: str = "",
    where: str = "",
) -> Layout:  # fmt: skip
    """How an episode names what a model's joints did.

    Args:
      joints: hinges and slides of the model, in its order.
      driven: those with an actuator; all of them when none has.
      position, command: signals to use instead of the usual ones.

    Raises:
      Missing: no such signal.
      InputError: joints of another robot.
    """
    seen = _signal(episode, (position,) if position else POSITIONS, "position", where)
    sent = _signal(episode, (command,) if command else COMMANDS, "command", where)
    names = joint_names(episode, seen, joints, driven, where)
    ordered = tuple(n for n in joints if n in names)
    commanded = joint_names(episode, sent, ordered, [n for n in driven if n in names], where)
    return Layout(seen.spec.name, sent.spec.name, ordered, tuple(names.index(n) for n in ordered), commanded)


def joint_names(
    episode: Episode, signal: Timed, joints: Sequence[str], driven: Collection[str], where: str
) -> tuple[str, ...]:
    """Names of a signal's columns: as recorded, else the model's own when there are as many.

    Raises:
      InputError: the names are of another robot, or the number of columns is.
    """
    labels, name, width = episode.labels, signal.spec.name, signal.spec.size or 1
    found = labels.get(f"{name.rpartition('.')[0]}.name") or (labels.get("names") or {}).get(name)
    if found is None:
        for known in (tuple(joints), tuple(j for j in joints if j in driven)):
            if len(known) == width:
                return known
        raise InputError(
            f"{name} has {width} columns without names, the model {len(joints)} joints: another robot?",
            where=where, allowed=", ".join(joints),
        )  # fmt: skip
    names = tuple(str(n) for n in ([found] if isinstance(found, str) else found))
    if len(names) != width:
        raise InputError(f"{name} has {width} columns and {len(names)} names", where=where)
    strange, absent = [n for n in names if n not in joints], [n for n in driven if n not in names]
    if len(strange) == len(names) or (strange and absent):
        raise InputError(f"{name} is of {_listed(names)}, the model has {_listed(joints)}: another robot?", where=where)
    return names


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def drive_of_signal(signal: Timed) -> Drive:
    """What a command signal holds, by its unit or name; positions unless it says otherwise."""
    unit, name = signal.spec.unit.split(" ")[0] if "N" not in signal.spec.unit else "N", signal.spec.name
    if unit == "N" or name.endswith((".effort", ".torque")):
        return "effort"
    return "velocity" if unit in ("rad/s", "m/s", "deg/s") or name.endswith(".velocity") else "position"


def _in_si(signal: Timed) -> Array:
    """Values with angles in radians, (n, size)."""
    values = np.asarray(signal.values, float).reshape(len(signal.t_ns), -1)
    units = signal.spec.unit.split()
    each = units if len(units) == values.shape[1] else units[:1] * values.shape[1]
    return values * np.array([np.pi / 180 if u.startswith("deg") else 1.0 for u in each] or [1.0])


def tracks(episode: Episode, layout: Layout, name: str) -> tuple[Array, Array, Array, Array]:
    """Times and values of commands (m, c) and positions (n, joints), time 0 where both have begun and drives are on.

    Raises:
      InputError: not finite, or too short.
    """
    seen, sent = episode.signal(layout.position), episode.signal(layout.command)
    if not (len(seen.t_ns) and len(sent.t_ns)):
        raise InputError("no positions or no commands", where=name)
    on, off = drives_on(episode)
    keep = (seen.t_ns >= max(seen.t_ns[0], sent.t_ns[0], on)) & (seen.t_ns < off)
    if not keep.any() or (seen.t_ns[keep][-1] - seen.t_ns[keep][0]) * 1e-9 < SHORTEST_S:
        raise InputError(
            "too little of it has commands and drives that are on", where=name, allowed=f"{SHORTEST_S:g} s"
        )
    t = (seen.t_ns[keep] - seen.t_ns[keep][0]) * 1e-9
    control_t = (sent.t_ns - seen.t_ns[keep][0]) * 1e-9
    measured, commands = _in_si(seen)[keep][:, list(layout.columns)], _in_si(sent)
    if not (np.isfinite(measured).all() and np.isfinite(commands).all()):
        raise InputError("positions or commands are not finite", where=name)
    if len(t) < 8:
        raise InputError(f"{len(t)} positions after the first command", where=name, allowed="8 or more")
    once = np.concatenate([[True], np.diff(t) > 0])
    fresh = np.concatenate([np.diff(control_t) > 0, [True]])
    return control_t[fresh], commands[fresh], t[once], measured[once]


def drives_on(episode: Episode) -> tuple[float, float]:
    """When all drives are first on, and first off after that [ns].

    An engine's controls cannot switch a drive off: what follows is another experiment.
    """
    if ENABLE not in episode.signals or not len(episode.signals[ENABLE].t_ns):
        return -np.inf, np.inf
    switch = episode.signals[ENABLE]
    on: NDArray[np.bool_] = np.min(np.asarray(switch.values, float).reshape(len(switch.t_ns), -1), axis=1) > 0
    if not on.any():
        return np.inf, np.inf
    first = int(np.argmax(on))
    off = switch.t_ns[first:][~on[first:]]
    begin = -np.inf if first == 0 else float(switch.t_ns[first])
    return begin, float(off[0]) if len(off) else np.inf


def joint_start(t: Array, q: Array) -> tuple[Array, Array]:
    """Position and velocity at time 0, (1,) each: a parabola through the first samples, unless it stands still.

    Args:
      t: times [s], (n,), from 0; q: positions, (n,).
    """
    k = int(np.clip(np.searchsorted(t, START_S), 8, len(t)))
    x, y = t[:k], q[:k]
    if k < 8:
        return q[:1].copy(), np.zeros(1)
    design = np.stack([np.ones(k), x, x**2], axis=1)
    c, *_ = np.linalg.lstsq(design, y, rcond=None)
    spread = float(np.sqrt(np.mean((y - design @ c) ** 2) * k / (k - 3)))
    error = spread * np.sqrt(np.linalg.inv(design.T @ design)[1, 1])
    if abs(c[1]) <= 4 * error + 1e-3:
        return np.array([float(np.mean(_at_rest(t, q, spread)))]), np.zeros(1)
    return np.array([float(c[0])]), np.array([float(c[1])])


def _at_rest(t: Array, q: Array, spread: float) -> Array:
    """The first samples, for as long as they stay where they were, but not for longer than ``REST_S``."""
    most = int(np.searchsorted(t, REST_S))
    low, high = np.minimum.accumulate(q[:most]), np.maximum.accumulate(q[:most])
    return q[: max(3, int(np.searchsorted(high - low > 6 * spread + 1e-9, True)))]


def noise_of(q: Array) -> float:
    """Standard deviation of a sensor's noise in q, (n,), steps of its encoder included.

    The motion drops out of differences of high order, which multiply the variance of white noise by a binomial.
    """
    if len(q) < 16:
        return 0.0
    rough = min(1.4826 * float(np.median(np.abs(np.diff(q, k)))) / np.sqrt(comb(2 * k, k)) for k in range(3, 8))
    return float(max(rough, quantum(q) / np.sqrt(12)))


def _signal(episode: Episode, names: Sequence[str], what: str, where: str) -> Timed:
    for name in names:
        if name in episode.signals:
            return episode.signals[name]
    raise Missing(
        f"no {what} signal ({', '.join(names)})", where=where or "episode", allowed=", ".join(sorted(episode.signals))
    )


_DEGREES = 3.0
"""Angles so many times beyond a joint's range are no angles in radians."""


def audited(episode: Episode, layout: Layout, driven: Sequence[Driven], name: str) -> Audit:
    """What a recording is worth for these joints; see ``flyball.calibration.audit``.

    Raises:
      InputError: not finite, too short.
    """
    seen, sent = episode.signal(layout.position), episode.signal(layout.command)
    start = seen.t_ns[0] if len(seen.t_ns) else 0
    measured, commands = _in_si(seen)[:, list(layout.columns)], _in_si(sent)
    both = [i for i, d in enumerate(driven) if d.joint in layout.commands and d.drive == "position"]
    asked = measured[:1].repeat(len(commands), axis=0)  # of what is not commanded nothing is asked
    asked[:, both] = commands[:, [layout.commands.index(driven[i].joint) for i in both]]
    found = audit(
        ((sent.t_ns - start) * 1e-9, asked) if both else None, ((seen.t_ns - start) * 1e-9, measured), name=name,
        joints=layout.joints, noise=max((noise_of(q) for q in measured.T), default=0.0),
    )  # fmt: skip
    wrong = []
    for d, q in zip(driven, measured.T, strict=True):
        most = max(abs(d.low), abs(d.high))
        if d.hinge and np.isfinite(most) and np.abs(q).max() > max(_DEGREES * most, 2 * np.pi):
            text = f"beyond the joint's range of {most:.3g} rad: degrees for radians? correct the channel map"
            wrong.append(Finding("refuse", "unit", d.joint, float(np.abs(q).max()), "rad", text))
    return replace(found, findings=(*wrong, *found.findings))
