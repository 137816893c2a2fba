"""Cameras that watch simulated cells: which picture has arrived by when.

In: cameras, where everything is after each substep. Out: per control period the newest picture that a real camera would
have delivered, and when it was taken.

A camera takes its frame k at k / rate from the beginning of an attempt, wherever that falls in a control period, and
the frame can be read one delay later; with rate 0 there is a frame per control period, taken one delay before it is
read. A lost frame leaves the one before it standing. The cells stand still before an attempt and their cameras run, so
the first picture shows the start and was taken before it. A frame shows the substep that is nearest to its time, and
that substep's time is its stamp; before the attempt, the nearest multiple of a substep.

Only frames that are read are drawn. Noise and losses are functions of (world, camera, frame). Delays and the share of
losses may differ between the cells (``camera:NAME.delay_s``, ``camera:NAME.dropout``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines import Simulation
from flyball.engines.engine import Reduce
from flyball.scenes import Camera, streams
from flyball.tasks.views import TIMING, Views

if TYPE_CHECKING:
    from flyball.engines.rendering import Kind

Array = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass
class _Feed:
    """One camera's state.

    Attributes:
      delay_s, dropout: of each cell's, (n,).
      vary: what else differs between the cells, field -> (n, k).
      seen: number of the newest frame that could have arrived, (n,).
      frame: number of the frame that stands, (n,).
      pictures: it, kind -> (n, h, w, ...).
    """

    camera: Camera
    delay_s: Array = field(default_factory=lambda: np.zeros(0))
    dropout: Array = field(default_factory=lambda: np.zeros(0))
    vary: dict[str, Array] = field(default_factory=dict)
    seen: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    frame: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    pictures: dict[str, NDArray[Any]] = field(default_factory=dict)


class Feeds:
    """What n cells' cameras deliver, control period by control period.

    Args:
      views: of the cells.
      cameras: or names of the scene's or the model's; sizes are theirs.
      kinds: what they deliver, see ``Renderer.render``.
      period_s: control period [s].
      timestep: length of a substep [s].

    Raises:
      Missing: no such camera. InputError: two of one name.
    """

    def __init__(
        self, views: Views, cameras: Sequence[Camera | str], kinds: Sequence[Kind], period_s: float, timestep: float
    ) -> None:
        self._views, self._kinds, self._period, self._timestep = views, tuple(kinds), period_s, timestep
        self._feeds = [_Feed(views.camera(c)) for c in cameras]
        names = [f.camera.name for f in self._feeds]
        if len(set(names)) < len(names):
            raise InputError(f"cameras {', '.join(names)}", where="cameras", allowed="names of their own")
        if "flow" in self._kinds:
            raise Unsupported("flow goes with two states", where="cameras", allowed="rgb, depth, segmentation, normals")
        self._now = 0
        self._past: list[tuple[int, Array, dict[str, Array]]] = []

    @property
    def signals(self) -> dict[str, tuple[Camera, Kind]]:
        """What is delivered: ``pixels/NAME`` for rgb, else ``KIND/NAME``, in order."""
        return {
            f"{'pixels' if kind == 'rgb' else kind}/{f.camera.name}": (f.camera, kind)
            for f in self._feeds
            for kind in self._kinds
        }

    def reads(self, simulation: Simulation) -> dict[str, Reduce]:
        """What must be read of the engine after every substep, for ``advance``."""
        return dict.fromkeys(self._views.renderer.reads(simulation), "all") if self._feeds else {}

    def begin(self, simulation: Simulation, worlds: Ints, *, noisy: bool = True) -> None:
        """Begin an attempt in the engine's present state.

        Args:
          worlds: numbers that decide noise and losses, (n,).
          noisy: whether there are any.

        Raises:
          InputError: an impossible delay or share of losses.
          Unsupported: such a field of a camera that does not watch.
        """
        self._views.timed(tuple(f.camera.name for f in self._feeds))
        if not self._feeds:
            return
        renderer = self._views.renderer
        self._worlds, self._noisy, self._now = worlds, noisy, 0
        self._reads = renderer.reads(simulation)
        positions, particles = renderer.state(simulation.read(self._reads), len(worlds))
        self._past = [(0, positions[:, None], {k: x[:, None] for k, x in particles.items()})]
        for f in self._feeds:
            f.delay_s, f.dropout = (self._views.timing(f.camera, key) for key in TIMING)
            f.vary = self._views.fields(simulation, f.camera)
            f.seen = f.frame = self._newest(f)
            f.pictures = {}
            self._draw(f, np.arange(len(worlds)))

    def advance(self, read: Mapping[str, Array]) -> None:
        """Take the substeps of a control period, field -> (n, substeps, ...)."""
        if not self._feeds:
            return
        n, every = len(self._worlds), round(self._period / self._timestep)
        flat = {k: read[k].reshape(n * every, *read[k].shape[2:]) for k in self._reads}
        positions, particles = self._views.renderer.state(flat, n * every)
        apart = {k: x.reshape(n, every, *x.shape[1:]) for k, x in particles.items()}
        self._past.append((self._now + 1, positions.reshape(n, every, -1), apart))
        self._now += every

    def read(self) -> dict[str, NDArray[Any]]:
        """What can be read now, of each of ``signals``: (n, height, width, ...)."""
        for f in self._feeds:
            newest, stood = self._newest(f), f.frame
            f.frame = stood.copy()
            for k in range(int(f.seen.min()) + 1, int(newest.max()) + 1):
                f.frame[(f.seen < k) & (k <= newest) & ~self._lost(f, k)] = k
            f.seen = newest
            self._draw(f, np.flatnonzero(f.frame != stood))
        needed = min((int(self._substep(f, f.seen + 1).min()) for f in self._feeds), default=0)
        self._past = [p for p in self._past if p[0] + p[1].shape[1] > needed]
        pictures = {f.camera.name: f.pictures for f in self._feeds}
        return {signal: pictures[c.name][kind].copy() for signal, (c, kind) in self.signals.items()}

    @property
    def stamps(self) -> dict[str, Array]:
        """When the pictures that were read last were taken, camera -> (n,) [s] since the beginning of the attempt."""
        return {f.camera.name: np.asarray(self._timestep * self._substep(f, f.frame), float) for f in self._feeds}

    # frames -----------------------------------------------------------------------------------------------

    def _newest(self, f: _Feed) -> Ints:
        """Number of the newest frame that has arrived, (n,)."""
        return f.camera.newest(self._now * self._timestep, self._period, f.delay_s)

    def _substep(self, f: _Feed, frame: Ints) -> Ints:
        """The substep nearest to a frame's time, (n,)."""
        return np.rint(f.camera.taken_s(frame, self._period, f.delay_s) / self._timestep).astype(np.int64)

    def _lost(self, f: _Feed, frame: int) -> NDArray[np.bool_]:
        """In which worlds a frame is lost, (n,)."""
        if not (self._noisy and f.dropout.any()):
            return np.zeros(len(self._worlds), bool)
        words = streams.words(0, f"camera:{f.camera.name}.dropout/{frame}", self._worlds)
        return np.asarray(streams.uniform(words) < f.dropout)

    def _draw(self, f: _Feed, rows: NDArray[np.intp]) -> None:
        """The frames that stand, of some worlds."""
        if not len(rows):
            return
        c = f.camera
        positions, particles = self._state(np.maximum(self._substep(f, f.frame), 0)[rows], rows)
        vary = {name: x[rows] for name, x in f.vary.items()}
        seen = self._views.renderer.render(positions, c, self._kinds, vary=vary, particles=particles)
        if self._noisy:
            names = [f"camera:{c.name}.noise/{k}" for k in f.frame[rows].tolist()]
            keys = [streams.key_of(int(w), name) for w, name in zip(self._worlds[rows], names, strict=True)]
            seen = c.observe(seen, [np.random.Generator(np.random.Philox(key=np.array(k, np.uint64))) for k in keys])
        for kind in self._kinds:
            if kind not in f.pictures:
                f.pictures[kind] = np.zeros((len(self._worlds), *seen[kind].shape[1:]), seen[kind].dtype)
            f.pictures[kind][rows] = seen[kind]

    def _state(self, at: Ints, rows: NDArray[np.intp]) -> tuple[Array, dict[str, Array]]:
        """Where everything was in some worlds, each at its own substep."""
        positions: list[Array] = []
        particles: dict[str, list[Array]] = {}
        for substep, row in zip(at.tolist(), rows.tolist(), strict=True):
            first, q, points = next(p for p in reversed(self._past) if p[0] <= substep)
            positions.append(q[row, substep - first])
            for name, x in points.items():
                particles.setdefault(name, []).append(x[row, substep - first])
        return np.stack(positions), {name: np.stack(x) for name, x in particles.items()}
