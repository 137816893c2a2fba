"""A scene: a world as data.

A parameter is a named number with a range. Its bindings say what it does: to an engine field (``body:box.mass``), to
the command path (``command.delay``, ``command.play``), to a sensor (``sensor:object.pose.bias``), to an event
(``event:crushed.threshold``) or to the start state (``start:box``). Engines apply the first kind and refuse what they
do not know; ``flyball.tasks.World`` applies the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported, digest_of
from flyball.scenes.camera import Camera
from flyball.scenes.deformable import KINDS, RUN_NEXT, Deformable
from flyball.scenes.drawing import Variation, draw_worlds
from flyball.scenes.streams import Worlds
from flyball.scenes.targets import field_of


@dataclass(frozen=True)
class Bind:
    """What a parameter does.

    Attributes:
      target: ``kind:name.field``; see the module's text.
      how: ``set`` writes the value, ``scale`` multiplies the model's own value, ``add`` adds to it.
      index: element of a vector-valued target.
    """

    target: str
    how: Literal["set", "scale", "add"] = "set"
    index: int = 0


@dataclass(frozen=True)
class Parameter:
    """A named number.

    Attributes:
      path: e.g. ``object.mass``.
      unit: SI unit, "" when dimensionless.
      nominal: what the authored model assumes.
      low, high: allowed range; also the prior's support.
      scale: ``log`` when positive and judged by ratio, else ``linear``. The prior is uniform on this scale.
      owner: ``robot`` (every robot its own), ``shared`` (one value for the fleet), ``episode`` (differs per attempt).
      binds: what it does.
      text: one line for people.
    """

    path: str
    unit: str
    nominal: float
    low: float
    high: float
    scale: Literal["linear", "log"] = "linear"
    owner: Literal["robot", "shared", "episode"] = "robot"
    binds: tuple[Bind, ...] = ()
    text: str = ""

    def to_unit(self, x: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Values mapped to [0, 1] on the parameter's scale."""
        v = np.asarray(x, float)
        if self.scale == "log":
            return np.log(v / self.low) / np.log(self.high / self.low)
        return (v - self.low) / (self.high - self.low)

    def from_unit(self, u: NDArray[np.float64] | float) -> NDArray[np.float64]:
        """Inverse of ``to_unit``."""
        v = np.asarray(u, float)
        if self.scale == "log":
            return self.low * np.exp(v * np.log(self.high / self.low))
        return self.low + v * (self.high - self.low)


@dataclass(frozen=True)
class Scene:
    """A world as data.

    Attributes:
      name: e.g. ``lift-fragile``.
      model: MJCF text; the authored truth.
      parameters: everything that may vary.
      variations: distributions over parameters, in order; later ones override. Empty: everything nominal.
      assumptions: engine settings the scene was authored for, e.g. ``{"timestep": 0.002}``.
      deformables: cloth, soft bodies, grains; most engines refuse them.
      cameras: what watches it, besides the cameras of the model.
      assets: files that the model names (meshes, textures), name -> bytes.
    """

    name: str
    model: str
    parameters: tuple[Parameter, ...]
    variations: tuple[Variation, ...] = ()
    assumptions: Mapping[str, float | str] = field(default_factory=dict)
    deformables: tuple[Deformable, ...] = ()
    cameras: tuple[Camera, ...] = ()
    assets: Mapping[str, bytes] = field(default_factory=dict)

    def rigid_only(self, where: str) -> None:
        """For engines that have nothing else.

        Raises:
          Unsupported: naming the first deformable.
        """
        for d in self.deformables:
            raise Unsupported(f"{KINDS[type(d)]} {d.name!r}", where=where, allowed="rigid bodies", run_next=RUN_NEXT)

    def parameter(self, path: str) -> Parameter:
        """The parameter of that name.

        Raises:
          Missing: naming those there are.
        """
        for p in self.parameters:
            if p.path == path:
                return p
        raise Missing.named("parameter", path, [p.path for p in self.parameters], where=f"scene {self.name}")

    def nominal(self, n: int) -> dict[str, NDArray[np.float64]]:
        """Nominal values of all parameters: path -> (n,)."""
        return {p.path: np.full(n, p.nominal) for p in self.parameters}

    def draw(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """n worlds: nominal values overridden by the scene's variations; path -> (n,)."""
        out = self.nominal(n)
        for v in self.variations:
            for path, x in v.draw(rng, n).items():
                self.parameter(path)
                out[path] = x
        return out

    def draw_worlds(
        self, run_seed: int, worlds: Worlds, *, progress: float | NDArray[np.float64] = 1.0
    ) -> dict[str, NDArray[np.float64]]:
        """Any worlds of a run: nominal values overridden by the scene's variations; path -> (n,).

        World i is the same on any engine, thread count, machine and batch split. Variations may also name fields
        (``geom:box.friction[0]``); they follow the parameters.

        Raises:
          InputError: a parameter outside its range, naming the world.
          Missing: no such parameter.
        """
        owned = {p.path: p for p in self.parameters}
        nominal = {p.path: p.nominal for p in self.parameters}
        drawn = draw_worlds(self.variations, run_seed, worlds, progress=progress, given=nominal)
        for path, x in drawn.items():
            if path not in owned:
                if field_of(path) is None:
                    self.parameter(path)
                continue
            p = owned[path]
            bad = np.flatnonzero(~((x >= p.low) & (x <= p.high)))
            if len(bad):
                allowed = f"[{p.low:g}, {p.high:g}] {p.unit}".strip() + ", e.g. by Truncated"
                raise InputError(
                    f"{path} = {x[bad[0]]:g} in world {worlds[int(bad[0])]}",
                    where=f"scene {self.name}",
                    allowed=allowed,
                )
        return self.nominal(len(worlds)) | drawn

    def check(self, path: str, value: float, *, where: str = "") -> None:
        """Refuse a value outside the parameter's range.

        Raises:
          InputError, Missing: naming path and range.
        """
        p = self.parameter(path)
        if not (np.isfinite(value) and p.low <= value <= p.high):
            raise InputError(
                f"{path} = {value:g} is out of range", where=where, allowed=f"[{p.low:g}, {p.high:g}] {p.unit}".strip()
            )

    @property
    def digest(self) -> str:
        """Identity of the scene."""
        return digest_of(self)
