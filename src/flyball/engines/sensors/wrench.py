"""Force and torque at a mount. In: MJCF and where the sensor sits. Out: MJCF with the sensor declared, its readings.

The sensor sits where a body is mounted on its parent and feels all that hangs on that body: weight, inertia, contacts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.engines.engine import Simulation
from flyball.engines.sensors.declared import body_of, declare


@dataclass(frozen=True)
class Mount:
    """A six-axis force/torque sensor.

    Attributes:
      name: unique in the model.
      body: what is mounted on it; the sensor is between this body and its parent.
      position: of the sensor's frame S in the body's frame [m]; torques are about its origin.
      quat: orientation of S in the body's frame, wxyz.
    """

    name: str
    body: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)


def declare_mounts(mjcf: str, mounts: Sequence[Mount], *, assets: Mapping[str, bytes] | None = None) -> str:
    """The model with the sensors ``NAME.force`` and ``NAME.torque`` of every mount.

    Raises:
      Missing: no such body.
      InputError: a name is taken.
    """

    def add(spec: mujoco.MjSpec) -> None:
        for mount in mounts:
            body_of(spec, mount.body, f"mount {mount.name}").add_site(
                name=mount.name, pos=mount.position, quat=mount.quat, size=[1e-3] * 3, group=5
            )
            for field, kind in (("force", mujoco.mjtSensor.mjSENS_FORCE), ("torque", mujoco.mjtSensor.mjSENS_TORQUE)):
                spec.add_sensor(
                    name=f"{mount.name}.{field}", type=kind, objtype=mujoco.mjtObj.mjOBJ_SITE, objname=mount.name
                )

    return declare(mjcf, add, assets, "force/torque sensor")


def fields(mount: Mount) -> tuple[str, str]:
    """The two fields to ask ``Simulation.step`` or ``rollout`` for; give both parts to ``wrench_of``."""
    return f"sensor:{mount.name}.force", f"sensor:{mount.name}.torque"


def wrench_of(force: NDArray[np.float64], torque: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., 6): force [N] and torque [N m], in S, that what hangs on the mount exerts on it.

    MuJoCo's convention is the opposite: what the parent gives the child.
    """
    return -np.concatenate([force, torque], axis=-1)


def read_wrench(simulation: Simulation, mount: Mount) -> NDArray[np.float64]:
    """The current wrench in every world, (n, 6); see ``wrench_of``."""
    read = simulation.read(fields(mount))
    force, torque = fields(mount)
    return wrench_of(read[force], read[torque])
