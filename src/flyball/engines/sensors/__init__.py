"""Sensors beyond pictures: IMU, force and torque at a mount, tactile pads, lidar.

In: what a ``Simulation`` reads, and where a sensor is mounted. Out: what an ideal one measures, (n, ...). Noise, bias,
delay and drop-outs befall the observation (``flyball.scenes``), never the truth. IMU and lidar need only positions and
velocities, of any engine; wrenches and tactile pads are sensors declared in the model, for engines that have them.
"""

from flyball.engines import mujoco as _mujoco  # noqa: F401  explains a MUJOCO_GL that does not work
from flyball.engines.sensors.imu import imu
from flyball.engines.sensors.lidar import Lidar, LidarScanner
from flyball.engines.sensors.tactile import TactilePad, declare_pads
from flyball.engines.sensors.wrench import Mount, declare_mounts, read_wrench

__all__ = [
    "Lidar",
    "LidarScanner",
    "Mount",
    "TactilePad",
    "declare_mounts",
    "declare_pads",
    "imu",
    "read_wrench",
]
