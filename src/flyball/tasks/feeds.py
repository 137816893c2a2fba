"""Cameras that watch simulated cells: which picture has arrived by when.

In: cameras, where everything is after each substep. Out: per control period the newest picture that a real camera would
have delivered, and when it was taken.

A camera takes its frame k at k / rate from the beginning of an attempt, wherever that falls in a control period, and
the frame can be read one delay later; with rate 0 there is a frame per control period, taken one delay before it is
read. A lost frame leaves the one before it standing. The cells stand still before an attempt and their cameras run, so
the first picture shows the start and was taken before it. A frame shows the substep that is nearest to its time, and
that substep's time is its stamp; before the attempt, the nearest multiple of a substep.

Only frames that are read are drawn. Noise and losses are functions of (world, camera, frame).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.engines import Simulation
from flyball.engines.engine import Reduce
from flyball.scenes import Camera, streams
from flyball.tasks.views import Views

Array = NDArray[np.float64]


@dataclass
class _Feed:
    """One camera's state.

    Attributes:
      seen: number of the newest frame that could have arrived.
      frame: number of the frame that stands, (n,).
      pixels: it, (n, h, w, 3).
    """

    camera: Camera
    seen: int = 0
    frame: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    pixels: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))


class Feeds:
    """What n cells' cameras deliver, control period by control period.

    Args:
      views: of the cells.
      cameras: or names of the scene's or the model's; sizes are theirs.
      period_s: control period [s].
      timestep: length of a substep [s].

    Raises:
      Missing: no such camera. InputError: two of one name.
    """

    def __init__(self, views: Views, cameras: Sequence[Camera | str], period_s: float, timestep: float) -> None:
        self._views, self._period, self._timestep = views, period_s, timestep
        self._feeds = [_Feed(views.camera(c)) for c in cameras]
        names = [f.camera.name for f in self._feeds]
        if len(set(names)) < len(names):
            raise InputError(f"cameras {', '.join(names)}", where="cameras", allowed="names of their own")
        self._now = 0
        self._past: list[tuple[int, Array, dict[str, Array]]] = []

    @property
    def cameras(self) -> list[Camera]:
        """Those that watch."""
        return [f.camera for f in self._feeds]

    def reads(self, simulation: Simulation) -> dict[str, Reduce]:
        """What must be read of the engine after every substep, for ``advance``."""
        return dict.fromkeys(self._views.renderer.reads(simulation), "all") if self._feeds else {}

    def begin(self, simulation: Simulation, worlds: NDArray[np.int64], *, noisy: bool = True) -> None:
        """Begin an attempt in the engine's present state.

        Args:
          worlds: numbers that decide noise and losses, (n,).
          noisy: whether there are any.
        """
        if not self._feeds:
            return
        renderer = self._views.renderer
        self._worlds, self._noisy, self._now = worlds, noisy, 0
        self._reads = renderer.reads(simulation)
        state = renderer.state(simulation.read(self._reads), simulation.n)
        self._past = [(0, state[0][:, None], {k: x[:, None] for k, x in state[1].items()})]
        self._fields = {f.camera.name: self._views.fields(simulation, f.camera) for f in self._feeds}
        for f in self._feeds:
            c = f.camera
            f.seen = self._newest(c)
            f.frame = np.full(simulation.n, f.seen)
            f.pixels = np.zeros((simulation.n, c.height, c.width, 3), np.uint8)
            self._draw(f, f.seen, np.arange(simulation.n))

    def advance(self, read: Mapping[str, Array]) -> None:
        """Take the substeps of a control period, field -> (n, substeps, ...)."""
        if not self._feeds:
            return
        renderer = self._views.renderer
        n, every = len(self._worlds), round(self._period / self._timestep)
        flat = {k: read[k].reshape(n * every, *read[k].shape[2:]) for k in self._reads}
        positions, particles = renderer.state(flat, n * every)
        self._past.append((
            self._now + 1,
            positions.reshape(n, every, -1),
            {k: x.reshape(n, every, *x.shape[1:]) for k, x in particles.items()},
        ))  # fmt: skip
        self._now += every

    def read(self) -> dict[str, NDArray[Any]]:
        """What can be read now: ``pixels/NAME`` -> (n, height, width, 3) uint8."""
        for f in self._feeds:
            newest = self._newest(f.camera)
            target = f.frame.copy()
            for k in range(f.seen + 1, newest + 1):
                target[~self._lost(f.camera, k)] = k
            for k in np.unique(target[target > f.seen]):
                self._draw(f, int(k), np.flatnonzero(target == k))
            f.seen, f.frame = newest, target
        needed = min((self._substep(f.camera, f.seen + 1) for f in self._feeds), default=0)
        self._past = [p for p in self._past if p[0] + p[1].shape[1] > needed]
        return {f"pixels/{f.camera.name}": f.pixels.copy() for f in self._feeds}

    @property
    def stamps(self) -> dict[str, Array]:
        """When the pictures that were read last were taken, camera -> (n,) [s] since the beginning of the attempt."""
        return {
            f.camera.name: np.array([self._substep(f.camera, k) * self._timestep for k in f.frame.tolist()])
            for f in self._feeds
        }

    # frames -----------------------------------------------------------------------------------------------

    def _newest(self, c: Camera) -> int:
        """Number of the newest frame that has arrived."""
        return c.newest(self._now * self._timestep, self._period)

    def _substep(self, c: Camera, frame: int) -> int:
        """The substep nearest to a frame's time."""
        return round(c.taken_s(frame, self._period) / self._timestep)

    def _lost(self, c: Camera, frame: int) -> NDArray[np.bool_]:
        """In which worlds a frame is lost, (n,)."""
        if not (c.dropout and self._noisy):
            return np.zeros(len(self._worlds), bool)
        words = streams.words(0, f"camera:{c.name}.dropout/{frame}", self._worlds)
        return np.asarray(streams.uniform(words) < c.dropout)

    def _draw(self, f: _Feed, frame: int, rows: NDArray[np.intp]) -> None:
        """A frame of some worlds."""
        at, c = max(0, self._substep(f.camera, frame)), f.camera
        first, positions, particles = next(p for p in reversed(self._past) if p[0] <= at)
        k = at - first
        seen = self._views.renderer.render(
            positions[rows, k],
            c,
            ("rgb",),
            vary={name: x[rows] for name, x in self._fields[c.name].items()},
            particles={name: x[rows, k] for name, x in particles.items()},
        )
        if self._noisy:
            keys = [streams.key_of(int(w), f"camera:{c.name}.noise/{frame}") for w in self._worlds[rows]]
            seen = c.observe(seen, [np.random.Generator(np.random.Philox(key=np.array(k, np.uint64))) for k in keys])
        f.pixels[rows] = seen["rgb"]
