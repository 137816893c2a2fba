"""Lidar. In: beams, where they are mounted, joint positions of n worlds of any engine. Out: ranges.

Beams meet the true surfaces of what is drawn (geom groups 0 to 2); the body that carries the lidar is not seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.engines.rendering.worlds import GROUPS, Worlds
from flyball.scenes import Scene

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Lidar:
    """A lidar at rest while it scans.

    Attributes:
      name: for messages.
      azimuths: angles about the lidar's z, from its x [rad].
      elevations: angles above its xy plane [rad]; there is a beam per pair.
      max_range, min_range: what is beyond or nearer is a miss [m].
      parent: ``body:NAME``, ``site:NAME`` or "" for the world.
      position, quat: of the lidar in the parent's frame [m], wxyz.
    """

    name: str
    azimuths: tuple[float, ...]
    elevations: tuple[float, ...] = (0.0,)
    max_range: float = 30.0
    min_range: float = 0.0
    parent: str = ""
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not (0 <= self.min_range < self.max_range) or not self.azimuths or not self.elevations:
            raise InputError(
                f"{len(self.azimuths)} x {len(self.elevations)} beams from {self.min_range:g} to {self.max_range:g} m",
                where=f"lidar {self.name}",
                allowed="at least one beam, 0 <= min_range < max_range",
            )

    @property
    def beams(self) -> Array:
        """Unit directions in the lidar's frame, (elevations, azimuths, 3)."""
        e, a = np.meshgrid(self.elevations, self.azimuths, indexing="ij")
        return np.stack([np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)], axis=-1)


class LidarScanner:
    """Scans worlds of one model.

    Args:
      scene: or the MJCF of a model alone.
      threads: CPU threads (0: all); ranges are the same for any number.
    """

    def __init__(self, scene: Scene | str, *, assets: Mapping[str, bytes] | None = None, threads: int = 0) -> None:
        self._worlds, self._threads = Worlds(scene, assets), threads
        self._worlds.rigid_only("lidar", "rigid bodies")

    def scan(
        self, positions: Array, lidar: Lidar, *, vary: Mapping[str, Array] | None = None
    ) -> dict[str, NDArray[np.float32] | NDArray[np.int32]]:
        """Ranges in n worlds.

        Args:
          positions: joint positions as in MuJoCo's qpos, (n, nq).
          vary: fields that differ between worlds, as in ``Renderer.render``.

        Returns:
          ``range`` (n, elevations, azimuths) float32 [m], inf for a miss; ``geom`` likewise, int32, -1 for a miss.

        Raises:
          InputError, Missing, Unsupported: positions, the parent or a field do not fit the model.
        """
        w, where = self._worlds, f"lidar {lidar.name}"
        w.load(positions, vary or {})
        own = np.zeros(9)
        mujoco.mju_quat2Mat(own, np.asarray(lidar.quat) / np.linalg.norm(lidar.quat))
        beams = lidar.beams
        origin, directions = [], []
        for i in range(w.n):
            w.at(i)
            p, r = w.mounted(lidar.parent, np.asarray(lidar.position, float), own.reshape(3, 3), where=where)
            origin.append(np.array(p))
            directions.append(beams.reshape(-1, 3) @ r.T)
        points = np.repeat(np.stack(origin)[:, None], beams.shape[0] * beams.shape[1], axis=1)
        rays = w.batch(self._threads).ray
        distance, geom = rays(points, np.stack(directions), geomgroup=GROUPS, bodyexclude=self._carrier(lidar))[:2]
        hit = (geom >= 0) & (distance >= lidar.min_range) & (distance <= lidar.max_range)
        shape = (w.n, *beams.shape[:2])
        return {
            "range": np.where(hit, distance, np.inf).astype(np.float32).reshape(shape),
            "geom": np.where(hit, geom, -1).astype(np.int32).reshape(shape),
        }

    def _carrier(self, lidar: Lidar) -> int:
        """Body that carries it; -1 for the world, which is seen."""
        kind, _, item = lidar.parent.partition(":")
        m = self._worlds.model
        body = {"body": lambda: m.body(item).id, "site": lambda: m.site(item).bodyid[0]}.get(kind, lambda: -1)()
        return int(body) or -1
