"""Rotations as unit quaternions wxyz and as matrices.

In: quaternions, (4,). Out: their product, inverse, and matrix (3, 3).
"""

from __future__ import annotations

import numpy as np

from flyball.robots.models.model import Array


def rotation(quat: Array) -> Array:
    """Rotation matrix (3, 3) of a quaternion wxyz (4,); it need not be normalised."""
    w, x, y, z = np.asarray(quat, float) / np.linalg.norm(quat)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def multiply(a: Array, b: Array) -> Array:
    """Product of two quaternions wxyz, (4,)."""
    w, v = a[0] * b[0] - a[1:] @ b[1:], a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
    return np.concatenate([[w], v])


def conjugate(quat: Array) -> Array:
    """Inverse of a unit quaternion wxyz, (4,)."""
    return np.asarray(quat, float) * np.array([1.0, -1.0, -1.0, -1.0])
