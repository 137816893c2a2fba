"""MuJoCo through its native batch interface. In: a scene's MJCF. Out: a ``Simulation`` of n worlds."""

import os

from flyball.base import NotPossible

try:
    import mujoco  # noqa: F401
except (AttributeError, ImportError, RuntimeError) as _err:
    if isinstance(_err, ModuleNotFoundError):
        raise
    # MuJoCo imports the library that MUJOCO_GL names, and fails in the middle of PyOpenGL when it is not there
    raise NotPossible(
        f"MuJoCo does not load with MUJOCO_GL={os.environ.get('MUJOCO_GL', '')!r}: {_err}",
        where="engine mujoco",
        run_next="unset MUJOCO_GL (Flyball chooses), or apt install libegl1 libopengl0 libgl1 libgl1-mesa-dri",
    ) from _err

from flyball.engines.mujoco.simulation import MujocoEngine, MujocoSimulation

__all__ = ["MujocoEngine", "MujocoSimulation"]
