"""MuJoCo through its native batch interface. In: a scene's MJCF. Out: a ``Simulation`` of n worlds."""

from flyball.engines.mujoco.simulation import MujocoEngine, MujocoSimulation

__all__ = ["MujocoEngine", "MujocoSimulation"]
