"""Inertial measurement unit. In: orientation and velocity of a body over time. Out: specific force and angular rate.

By definition (Titterton & Weston, Strapdown Inertial Navigation Technology, ch. 2): the accelerometer measures
f = R_SW (a - g) at the sensor's origin, the gyroscope R_SW w. Both are means over a sampling interval, as the velocity
and angle increments that real units put out; numpy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError

Array = NDArray[np.float64]


def imu(
    quat: Array,
    velocity: Array,
    dt: float,
    *,
    position: Array | tuple[float, ...] = (0.0, 0.0, 0.0),
    mount: Array | tuple[float, ...] = (1.0, 0.0, 0.0, 0.0),
    gravity: Array | tuple[float, ...] = (0.0, 0.0, -9.81),
) -> dict[str, Array]:
    """Ideal readings from ``body:NAME.quat`` and ``body:NAME.velocity``.

    Args:
      quat: orientation of the body B in the world, wxyz, (..., T + 1, 4).
      velocity: of the body's origin [m/s] and angular [rad/s], both in world axes, (..., T + 1, 6).
      dt: time between samples [s].
      position: of the sensor S in B [m].
      mount: orientation of S in B, wxyz.
      gravity: in the world [m/s^2].

    Returns:
      ``specific_force`` (..., T, 3) [m/s^2] and ``angular_rate`` (..., T, 3) [rad/s], in S, means over the T intervals;
      each belongs to the middle of its interval, half a ``dt`` after its first sample. The error is of order dt^2.

    Raises:
      InputError: shapes that do not fit, fewer than two samples, or dt <= 0.
    """
    q, v = np.asarray(quat, float), np.asarray(velocity, float)
    if q.shape[-1:] != (4,) or v.shape != (*q.shape[:-1], 6) or q.ndim < 2 or q.shape[-2] < 2 or not dt > 0:
        raise InputError(
            f"quat {q.shape}, velocity {v.shape}, dt {dt:g}",
            where="imu",
            allowed="(..., T + 1, 4), (..., T + 1, 6) with T >= 1, dt > 0",
        )
    r = _matrix(_hemisphere(q))
    lever = np.einsum("...ij,j->...i", r, np.asarray(position, float))
    speed = v[..., :3] + np.cross(v[..., 3:], lever)
    acceleration = np.diff(speed, axis=-2) / dt
    middle = _hemisphere(q)
    middle = _matrix(middle[..., 1:, :] + middle[..., :-1, :]) @ _matrix(np.asarray(mount, float))
    force = acceleration - np.asarray(gravity, float)
    rate = (v[..., 1:, 3:] + v[..., :-1, 3:]) / 2
    return {
        "specific_force": np.einsum("...ji,...j->...i", middle, force),
        "angular_rate": np.einsum("...ji,...j->...i", middle, rate),
    }


def _hemisphere(q: Array) -> Array:
    """The same orientations without jumps of sign along time, so that neighbours can be averaged."""
    jumps = np.einsum("...k,...k", q[..., 1:, :], q[..., :-1, :]) < 0
    sign = np.where(np.cumsum(jumps, axis=-1) % 2 == 1, -1.0, 1.0)
    return np.concatenate([q[..., :1, :], q[..., 1:, :] * sign[..., None]], axis=-2)


def _matrix(q: Array) -> Array:
    """Rotation matrices of quaternions wxyz of any length, (..., 3, 3)."""
    w, x, y, z = np.moveaxis(q / np.linalg.norm(q, axis=-1, keepdims=True), -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
