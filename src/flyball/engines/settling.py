"""Letting go: whether what was placed stays where it was put, by physics.

In: an engine, a scene whose objects hang on free joints, poses. Out: how far each object moved within a second, for
``flyball.scenes.placement.place(settle=...)``. The scene packages know no engine; the caller hands this in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.engines.engine import Engine, Simulation
from flyball.scenes import Scene

Array = NDArray[np.float64]


def settling(
    engine: Engine,
    scene: Scene,
    joints: Sequence[str],
    *,
    seconds: float = 1.0,
    control: Sequence[float] = (),
    prepare: Callable[[Simulation, NDArray[np.int64]], None] | None = None,
    threads: int = 1,
) -> Callable[[Array, NDArray[np.int64]], Array]:
    """A function that lets objects go.

    Args:
      joints: free joint of each placed object, in the order of ``Placement.names``.
      seconds: how long to watch.
      control: held meanwhile, (nu,).
      prepare: sets a simulation's fields for these worlds (masses, sizes), before anything is placed.

    Returns:
      poses (m, k, 7) and world numbers (m,) -> distance [m] that each object moved, (m, k); infinite where a world
      failed. World i moves the same in any batch if the engine's worlds do not influence each other.
    """

    def settle(poses: Array, worlds: NDArray[np.int64]) -> Array:
        if poses.ndim != 3 or poses.shape[1:] != (len(joints), 7):
            raise InputError(f"poses of shape {poses.shape}", where="settling", allowed=f"(m, {len(joints)}, 7)")
        m = len(poses)
        sim = engine.open(scene, m, threads=threads)
        if prepare is not None:
            prepare(sim, worlds)
        for k, joint in enumerate(joints):
            sim.place(joint, poses[:, k])
        steps = max(1, round(seconds / sim.timestep))
        controls = np.tile(np.asarray(control, float), (m, steps, 1)).reshape(m, steps, len(control))
        fields = [f"joint:{joint}.position" for joint in joints]
        end = sim.step(controls, {f: "last" for f in fields})
        moved = np.stack([np.linalg.norm(end[f][:, :3] - poses[:, k, :3], axis=1) for k, f in enumerate(fields)], 1)
        moved[~sim.status() | ~np.isfinite(moved).all(axis=1)] = np.inf
        return moved

    return settle
