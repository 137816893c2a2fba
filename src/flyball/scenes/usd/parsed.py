"""What reading a USD file gives, as plain data that crosses processes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Parsed:
    """What was read.

    Attributes:
      name: of the model.
      mjcf: MJCF text; file names in it are keys of ``assets``.
      assets: file name -> content.
      notes: what was converted or assumed.
      losses: what did not come through.
      places: ``kind name`` of an MJCF element -> path of the prim it came from.
      velocity_limits: joint -> [rad/s or m/s], which MJCF has no place for.
      layers: files the scene is made of, the root first.
      variants: ``/prim/path.set`` -> [selected, every choice, ...].
    """

    name: str
    mjcf: str
    assets: dict[str, bytes]
    notes: tuple[str, ...]
    losses: tuple[str, ...]
    places: dict[str, str]
    velocity_limits: dict[str, float] = field(default_factory=dict)
    layers: tuple[str, ...] = ()
    variants: dict[str, list[str]] = field(default_factory=dict)
