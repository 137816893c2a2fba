"""A first estimate without simulation: the equation of motion as a linear regression.

In: replays of a robot model. Out: values of gains, offsets, frictions, armatures, payload and delay, good enough to
begin a fit of replays with. With the delay given, every joint's equation is linear in what is unknown,

    M(q) dv/dt + c(q, v) = k (u - q + offset) - d v - f sign(v) - a dv/dt - m payload(q, v, dv/dt)

(the left side from the model; a motor's or velocity servo's drive term instead of the first). Positions are smoothed
and differentiated by local polynomials, commands smoothed alike; samples near standstill, where dry friction takes any
value, do not count; the delay is the one that leaves least. Noise makes these estimates somewhat too small (errors in
variables), which does not matter for a start. The method is that of Gautier (1997), "Dynamic identification of robots
with power model".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import lsq_linear
from scipy.signal import savgol_filter

from flyball.calibration.models.parameters import DELAY, PAYLOAD, Driven, last_link
from flyball.calibration.models.rig import ModelRig
from flyball.calibration.problem import Replay
from flyball.robots.models.facts import facts
from flyball.robots.models.guard import compile_guarded

Array = NDArray[np.float64]

_WINDOW_S = 0.11
"""Of the local polynomials."""
_SLOW = 0.08
"""Share of a joint's peak speed below which it may stick."""
_LEAST = 0.03
"""A joint that is never faster says nothing [rad/s or m/s]."""
_DELAYS = np.arange(0.0, 0.0601, 0.004)
_ROWS = 600


def regressed(rig: ModelRig, replays: Sequence[Replay]) -> dict[str, float]:
    """Path -> value, of those parameters that the recordings say anything about."""
    import mujoco

    model = compile_guarded(rig.scene.model, rig.scene.assets, where=rig.name).model
    model.dof_armature[:] = 0
    tip = last_link(facts(model), [d.joint for d in rig.driven])
    heavy = model.__copy__()
    if model.body(tip).mass[0] > 0:
        ratio = 1 + 1 / model.body_mass[model.body(tip).id]
        heavy.body_mass[heavy.body(tip).id] *= ratio
        heavy.body_inertia[heavy.body(tip).id] *= ratio
    motions = [_Motion(mujoco, model, heavy, rig, r) for r in replays]
    best: tuple[float, dict[str, float]] | None = None
    for delay in _DELAYS:
        total, found = 0.0, {DELAY: float(delay)}
        payloads = []
        for i, d in enumerate(rig.driven):
            fit = _joint(rig, i, d, motions, float(delay))
            if fit is not None:
                total += fit[0]
                found |= fit[1]
                payloads.append(fit[2])
        if payloads:
            weight = np.array([w for _, w in payloads])
            found[PAYLOAD] = float(np.average([m for m, _ in payloads], weights=weight + 1e-12))
        if best is None or total < best[0]:
            best = total, found
    assert best is not None
    return {} if len(best[1]) == 1 else best[1]


class _Motion:
    """One recording: smoothed motion and the torque that it needs, (n, joints) each."""

    def __init__(self, mujoco: object, model: object, heavy: object, rig: ModelRig, replay: Replay) -> None:
        self.replay = replay
        dt = float(np.median(np.diff(replay.t)))
        self.t = np.arange(0.0, replay.t[-1], dt)
        q = np.stack([np.interp(self.t, replay.t, c) for c in replay.measured.T], axis=1)
        window = max(7, 2 * int(_WINDOW_S / dt / 2) + 1)
        self._window = min(window, 2 * ((len(self.t) - 1) // 2) - 1)
        self.q, self.v, self.a = (savgol_filter(q, self._window, 3, deriv=k, delta=dt, axis=0) for k in (0, 1, 2))
        self.rows = np.arange(self._window, len(self.t) - self._window, max(1, len(self.t) // _ROWS))
        self.torque = _inverse(mujoco, model, rig, self)
        self.payload = _inverse(mujoco, heavy, rig, self) - self.torque

    def commands(self, actuator: int, delay: float) -> Array:
        """A held command, late and smoothed like the motion, (n,)."""
        r = self.replay
        last = np.clip(np.searchsorted(r.control_t, self.t - delay, side="right") - 1, 0, len(r.control_t) - 1)
        return np.asarray(savgol_filter(r.controls[last, actuator], self._window, 3))


def _inverse(mujoco: object, model: object, rig: ModelRig, m: _Motion) -> Array:
    """Torque of inertia, gravity and velocity at the rows, (rows, joints)."""
    data = mujoco.MjData(model)  # type: ignore[attr-defined]
    positions = [int(model.joint(d.joint).qposadr[0]) for d in rig.driven]  # type: ignore[attr-defined]
    dofs = [int(model.joint(d.joint).dofadr[0]) for d in rig.driven]  # type: ignore[attr-defined]
    out, result = np.empty((len(m.rows), len(dofs))), np.zeros(model.nv)  # type: ignore[attr-defined]
    for k, row in enumerate(m.rows):
        data.qpos[positions], data.qvel[dofs], data.qacc[dofs] = m.q[row], m.v[row], m.a[row]
        mujoco.mj_fwdPosition(model, data)  # type: ignore[attr-defined]
        mujoco.mj_fwdVelocity(model, data)  # type: ignore[attr-defined]
        mujoco.mj_rne(model, data, 1, result)  # type: ignore[attr-defined]
        out[k] = result[dofs]
    return out


def _joint(
    rig: ModelRig, i: int, d: Driven, motions: Sequence[_Motion], delay: float
) -> tuple[float, dict[str, float], tuple[float, float]] | None:
    """What one joint's equation leaves unexplained (share of its torque), values, payload and its weight."""
    if not d.actuator:
        return None
    actuator = rig.layout.actuators.index(d.actuator)
    rows, sides = [], []
    for m in motions:
        at = m.rows
        v, u = m.v[at, i], m.commands(actuator, delay)[at]
        drive = {"position": u - m.q[at, i], "velocity": u - v, "effort": u}[d.drive]
        one = np.ones(len(at)) * (d.drive == "position")
        rows.append(np.stack([drive, one, -v, -np.sign(v), -m.a[at, i], -m.payload[:, i]], axis=1))
        sides.append(m.torque[:, i])
    x, y = np.concatenate(rows), np.concatenate(sides)
    speed = np.abs(x[:, 2])
    moving = speed > max(_SLOW * float(np.quantile(speed, 0.99)), _LEAST)
    if moving.sum() < 50:
        return None
    x, y = x[moving], y[moving]
    names = [f"{d.joint}.{k}" for k in ("gain", "", "damping", "friction", "armature")] + [PAYLOAD]
    used = [k for k, n in enumerate(names) if k in (0, 2) or (k == 1 and d.drive == "position") or _has(rig, n)]
    high = {k: _high(rig, names[k], x[:, k], y) for k in used}
    low = [0.0 if k != 1 else -high[1] for k in used]
    scale = np.maximum(np.abs(x[:, used]).max(axis=0), 1e-9)
    c = lsq_linear(x[:, used] * (1 / scale), y, (np.array(low) * scale, np.array([high[k] for k in used]) * scale)).x
    values = dict(zip(used, c / scale, strict=True))
    left = float(np.mean((x[:, used] @ (c / scale) - y) ** 2) / max(float(np.mean(y**2)), 1e-12))
    gain = max(values[0], 1e-9)
    out = {names[0]: gain, names[2]: values[2] - d.drive_damping * gain / max(d.gain, 1e-9)}
    out |= {names[k]: values[k] for k in (3, 4) if k in values}
    if 1 in values:
        out[f"{d.joint}.offset"] = values[1] / gain
    weight = float(np.sum(x[:, 5] ** 2))
    return left, out, (values.get(5, 0.0), weight)


def _has(rig: ModelRig, path: str) -> bool:
    return any(p.path == path for p in rig.scene.parameters)


def _high(rig: ModelRig, path: str, column: Array, y: Array) -> float:
    """The most that a coefficient may be."""
    most: Mapping[str, float] = {p.path: p.high for p in rig.scene.parameters}
    return float(most.get(path, 100 * np.abs(y).max() / max(float(np.abs(column).max()), 1e-9))) + 1e-9
