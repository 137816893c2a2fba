"""Drawing with MuJoCo's own ray casts. In: worlds, a camera. Out: depth and geom ids; no colours.

Needs nothing beyond MuJoCo, bends rays exactly as the lens does, and meets true surfaces where OpenGL draws facets: the
reference that the other backends are held to. Soft bodies are not seen.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import Unsupported
from flyball.engines.rendering.worlds import GROUPS, Poses, Worlds
from flyball.scenes.camera import Camera


class RayCaster:
    """Labels of one model by ray casts."""

    kinds = frozenset({"depth", "segmentation", "normals", "flow"})

    def __init__(self, worlds: Worlds) -> None:
        self._worlds = worlds
        worlds.rigid_only("rendering", "egl, osmesa or warp")

    def draw(self, poses: Poses, camera: Camera, rgb: bool, labels: bool) -> dict[str, NDArray[Any]]:
        """``depth`` (n, h, w) float32 [m], inf where nothing is; ``geom`` (n, h, w) int32, -1 where nothing is."""
        if rgb:
            raise Unsupported("ray casts give no rgb", where="rendering", allowed="egl, osmesa or warp")
        n, h, w = self._worlds.n, camera.height, camera.width
        rays = camera.rays().reshape(-1, 3)
        depth, geom = np.empty((n, h, w), np.float32), np.empty((n, h, w), np.int32)
        m = self._worlds.model
        far = float(m.vis.map.zfar * m.stat.extent)
        for i in range(n):
            d = self._worlds.at(i)
            z, g, _ = cast(m, d, poses.camera_position[i], rays @ poses.camera_rotation[i].T)
            seen = z <= far
            depth[i], geom[i] = np.where(seen, z, np.inf).reshape(h, w), np.where(seen, g, -1).reshape(h, w)
        return {"depth": depth, "geom": geom}

    def close(self) -> None:
        """Nothing to free."""


def cast(
    m: mujoco.MjModel, d: mujoco.MjData, origin: NDArray[np.float64], directions: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.float64]]:
    """Cast rays from one point at the outer faces of what is drawn.

    Args:
      origin: (3,) [m].
      directions: (k, 3), of any length.

    Returns:
      How many lengths of its direction each ray goes, (k,), inf for a miss; geom ids, -1 for a miss; unit normals.
    """
    k = len(directions)
    length = np.linalg.norm(directions, axis=1)
    unit = np.ascontiguousarray(directions / length[:, None])
    geom, distance, normal = np.empty(k, np.int32), np.empty(k), np.empty((k, 3))
    own = m.geom_group.copy()
    try:
        while True:
            normal[:] = 0
            mujoco.mj_multiRay(
                m, d, np.ascontiguousarray(origin), unit.reshape(-1), GROUPS, 1, -1, geom, distance, normal.reshape(-1),
                k, mujoco.mjMAXVAL,
            )  # fmt: skip
            # a camera inside a convex geom looks out through it, as it does in OpenGL
            inner = (geom >= 0) & (np.einsum("ij,ij->i", normal, unit) > 0)
            if not inner.any():
                break
            m.geom_group[np.unique(geom[inner])] = len(GROUPS) - 1
    finally:
        m.geom_group[:] = own
    hit = (geom >= 0) & (distance >= 0)
    return np.where(hit, distance / length, np.inf), np.where(hit, geom, -1), normal
