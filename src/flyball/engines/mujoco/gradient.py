"""Derivatives of MuJoCo's step. In: one world's model and data, controls. Out: a Jacobian of the course."""

from __future__ import annotations

from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError

Array = NDArray[np.float64]


def gradient(
    model: mujoco.MjModel, data: mujoco.MjData, controls: Array, wrt: Literal["state", "control"], step: float
) -> Array:
    """dy_end/dy_start (2 nv, 2 nv) or dy_end/du (2 nv, k nu) over k substeps.

    ``mjd_transitionFD`` takes central differences of one step, here at every substep; the chain rule joins them. It
    reuses what a perturbation leaves unchanged, hence is some times faster than differences of whole courses.

    Args:
      data: at the start; advanced by the course.
      controls: (k, nu).

    Raises:
      InputError: the course leaves what is finite.
    """
    size, nu = 2 * model.nv + model.na, model.nu
    a, b = np.zeros((size, size)), np.zeros((size, max(nu, 1)))[:, :nu]
    by_state = np.eye(size)
    by_control = np.zeros((size, 0))
    for u in controls:
        data.ctrl[:] = u
        b = np.ascontiguousarray(b)
        mujoco.mjd_transitionFD(model, data, step, True, a, b if nu else None, None, None)
        by_state = a @ by_state
        by_control = np.concatenate([a @ by_control, b], axis=1)
        mujoco.mj_step(model, data)
    out = by_state[:, : 2 * model.nv] if wrt == "state" else by_control
    if not np.isfinite(out).all() or any(w.number for w in data.warning):
        raise InputError("a world fails within the course", where="jacobian")
    return np.asarray(out[: 2 * model.nv])
