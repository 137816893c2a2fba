"""What cameras see of simulated cells.

In: a scene, fields that vary what is seen, states of the cells. Out: pictures of the present. Lights, materials and
camera poses that vary are checked here even when nobody asks for a picture; OpenGL is touched when somebody does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.engines import Simulation
from flyball.scenes import Camera, Scene

if TYPE_CHECKING:
    from flyball.engines.rendering import Kind, Renderer

Array = NDArray[np.float64]

TIMING = ("delay_s", "dropout")
"""Fields of a camera that say when its frames arrive."""
_POSE = ("position", "quat")


class Views:
    """Pictures of n cells of one scene.

    Args:
      scene: what is drawn.
      n: cells.
      cameras: known by name besides the scene's and the model's own.
      backend, preset: as for ``Renderer``.
    """

    def __init__(
        self, scene: Scene, n: int, cameras: Sequence[Camera] = (), *, backend: str = "auto", preset: str = "fast"
    ) -> None:
        self.scene, self.n = scene, n
        self._given, self._backend, self._preset = tuple(cameras), backend, preset
        self._renderer: Renderer | None = None
        self._cameras: dict[str, Camera] = {}
        self._visual: dict[str, Array] = {}

    @property
    def renderer(self) -> Renderer:
        """Made when first asked for: the model is compiled once more for drawing."""
        if self._renderer is None:
            from flyball.engines.rendering import Renderer

            self._renderer = Renderer(self.scene, backend=self._backend, preset=self._preset)
        return self._renderer

    @property
    def cameras(self) -> dict[str, Camera]:
        """All that have a name: those given, the scene's, the model's."""
        if not self._cameras:
            from flyball.engines.rendering import model_cameras

            every = (*model_cameras(self.renderer.model), *self.scene.cameras, *self._given)
            self._cameras = {c.name: c for c in every}
        return self._cameras

    def camera(self, camera: Camera | str) -> Camera:
        """A camera by name; a camera as it is.

        Raises:
          Missing: naming those there are.
        """
        if isinstance(camera, Camera):
            return camera
        if camera not in self.cameras:
            raise Missing.named("camera", camera, self.cameras, where=f"scene {self.scene.name}")
        return self.cameras[camera]

    def own(self, target: str) -> Array:
        """The model's own value of a field that only pictures show, (n, k).

        ``camera:NAME.position|quat`` is a pose in the frame of the camera's parent; a camera of the model is its own
        parent, so that its pose is an offset from where the model has it. ``camera:NAME.delay_s|dropout`` are when its
        frames arrive and how many are lost.

        Raises:
          Missing: no such element. Unsupported: no such field.
        """
        kind, _, rest = target.partition(":")
        name, _, field = rest.rpartition(".")
        if kind != "camera":
            return self.renderer.own(target, self.n)
        if field not in (*_POSE, *TIMING):
            allowed = ", ".join(f"camera:NAME.{key}" for key in (*_POSE, *TIMING))
            raise Unsupported(f"cannot vary {target!r}", where="rendering", allowed=allowed)
        return np.tile(np.asarray(getattr(self.camera(name), field), float), (self.n, 1))

    def vary(self, visual: Mapping[str, Array]) -> None:
        """What differs between the cells from now on, ``kind:NAME.field`` -> (n, k)."""
        self._visual = dict(visual)

    def fields(self, simulation: Simulation, camera: Camera) -> dict[str, Array]:
        """Everything that differs between the cells and that this camera shows, as set or varied."""
        shown = {f"camera:{camera.name}.{key}" for key in _POSE}
        mine = {k: x for k, x in self._visual.items() if not k.startswith("camera:") or k in shown}
        return self.renderer.fields_of(simulation) | mine

    def timing(self, camera: Camera, key: str) -> Array:
        """One of ``TIMING`` of a camera in every cell, (n,).

        Raises:
          InputError: an impossible value.
        """
        name = f"camera:{camera.name}.{key}"
        x = self._visual[name][:, 0] if name in self._visual else np.full(self.n, getattr(camera, key))
        most = 1.0 if key == "dropout" else np.inf
        if not (np.isfinite(x) & (x >= 0) & (x <= most)).all():
            raise InputError(f"{name} = {x[~((x >= 0) & (x <= most))][:1]}", allowed=f"0 to {most:g}", where="cameras")
        return x

    def timed(self, watching: Sequence[str]) -> None:
        """Refuse variations of when a camera's frames arrive, where none do.

        Raises:
          Unsupported: naming the field.
        """
        for path in self._visual:
            kind, _, rest = path.partition(":")
            name, _, key = rest.rpartition(".")
            if kind == "camera" and key in TIMING and name not in watching:
                allowed = f"World(..., cameras=[{name!r}])"
                raise Unsupported(f"{path} varies, but the camera does not watch", where="cameras", allowed=allowed)

    def see(
        self, simulation: Simulation, camera: Camera | str | None, kinds: Sequence[Kind]
    ) -> dict[str, NDArray[Any]]:
        """Pictures of the present, without delay and noise; see ``Renderer.render``. None: an overview of world 0."""
        if camera is None:
            state, particles = self.renderer.state(simulation.read(self.renderer.reads(simulation)), self.n)
            camera = self.renderer.overview(state[:1], particles={k: x[:1] for k, x in particles.items()})
        c = self.camera(camera)
        return self.renderer.see(simulation, c, kinds, vary=self.fields(simulation, c))

    def close(self) -> None:
        """Free what drawing holds; the next picture makes it anew."""
        if self._renderer is not None:
            self._renderer.close()
