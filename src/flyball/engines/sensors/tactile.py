"""Tactile pads. In: MJCF and where a pad's face is. Out: MJCF with a contact sensor, normal forces per cell.

The model's sensor lists the pad's contacts with their forces; they are put into cells here, each into exactly one, so
the cells sum to the pad's force. Contacts without force weigh nothing, whoever lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.engines.engine import Simulation
from flyball.engines.sensors.declared import body_of, declare
from flyball.engines.sensors.imu import _matrix

Array = NDArray[np.float64]

_MOST = 64
"""Contacts of one pad that are told apart; the strongest come first."""
_WIDTH = 7
"""found, force in the contact's frame (3), point in the world (3)."""


@dataclass(frozen=True)
class TactilePad:
    """A rectangular array of cells on a body.

    Attributes:
      name: unique in the model.
      body: whose contacts are felt.
      position: centre of the face in the body's frame [m].
      quat: orientation of the face in the body's frame, wxyz: rows along its x, columns along its y.
      size: length and width of the face [m].
      shape: rows and columns.
    """

    name: str
    body: str
    position: tuple[float, float, float]
    quat: tuple[float, float, float, float]
    size: tuple[float, float]
    shape: tuple[int, int]

    def __post_init__(self) -> None:
        if min(self.size) <= 0 or min(self.shape) < 1:
            raise InputError(f"size {self.size}, shape {self.shape}", where=f"pad {self.name}", allowed="positive")

    @property
    def fields(self) -> tuple[str, str, str]:
        """What to ask an engine for; ``cells`` takes them in this order."""
        return f"sensor:{self.name}", f"body:{self.body}.position", f"body:{self.body}.quat"

    def read(self, simulation: Simulation) -> Array:
        """Current normal forces in every world, (n, rows, columns) [N]."""
        read = simulation.read(self.fields)
        return self.cells(*(read[f] for f in self.fields))

    def cells(self, contacts: Array, position: Array, quat: Array) -> Array:
        """Normal forces per cell.

        Args:
          contacts: the sensor's values, (..., 64 * 7).
          position: of the body in the world [m], (..., 3).
          quat: of the body in the world, (..., 4).

        Returns:
          (..., rows, columns) [N]. A contact beyond the edge of the face counts for the cell nearest to it.
        """
        listed = contacts.reshape(*contacts.shape[:-1], _MOST, _WIDTH)
        force = np.where(listed[..., 0] > 0, np.maximum(listed[..., 1], 0), 0)
        in_body = np.einsum("...ji,...kj->...ki", _matrix(quat), listed[..., 4:7] - position[..., None, :])
        face = (in_body - self.position) @ _matrix(np.asarray(self.quat, float))
        share = face[..., :2] / self.size + 0.5
        k = np.clip(np.floor(share * self.shape), 0, np.subtract(self.shape, 1)).astype(np.intp)
        rows, columns = self.shape
        cell = k[..., 0] * columns + k[..., 1]
        flat, f = cell.reshape(-1, _MOST), force.reshape(-1, _MOST)
        out = np.zeros((len(f), rows * columns))
        np.add.at(out, (np.arange(len(f))[:, None], flat), f)
        return out.reshape(*contacts.shape[:-1], rows, columns)


def declare_pads(mjcf: str, pads: Sequence[TactilePad], *, assets: Mapping[str, bytes] | None = None) -> str:
    """The model with a sensor ``NAME`` of every pad.

    Raises:
      Missing: no such body.
      InputError: a name is taken.
    """

    def add(spec: mujoco.MjSpec) -> None:
        for pad in pads:
            body_of(spec, pad.body, f"pad {pad.name}")
            sensor = spec.add_sensor(
                name=pad.name,
                type=mujoco.mjtSensor.mjSENS_CONTACT,
                objtype=mujoco.mjtObj.mjOBJ_BODY,
                objname=pad.body,
            )
            bits = mujoco.mjtConDataField
            data = sum(1 << int(k) for k in (bits.mjCONDATA_FOUND, bits.mjCONDATA_FORCE, bits.mjCONDATA_POS))
            strongest_first = 2
            sensor.intprm[:3] = [data, strongest_first, _MOST]

    return declare(mjcf, add, assets, "tactile pad")
