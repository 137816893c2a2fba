"""What cameras see of simulated cells.

In: a scene, fields that vary what is seen, states of the cells. Out: pictures of the present. Lights, materials and
camera poses that vary are checked here even when nobody asks for a picture; OpenGL is touched when somebody does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Missing, Unsupported
from flyball.engines import Simulation
from flyball.scenes import Camera, Scene

if TYPE_CHECKING:
    from flyball.engines.rendering import Kind, Renderer

Array = NDArray[np.float64]


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
        parent, so that its pose is an offset from where the model has it.

        Raises:
          Missing: no such element. Unsupported: no such field.
        """
        kind, _, rest = target.partition(":")
        name, _, field = rest.rpartition(".")
        if kind != "camera":
            return self.renderer.own(target, self.n)
        if field not in ("position", "quat"):
            raise Unsupported(f"cannot vary {target!r}", where="rendering", allowed="camera:NAME.position, .quat")
        return np.tile(np.asarray(getattr(self.camera(name), field), float), (self.n, 1))

    def vary(self, visual: Mapping[str, Array]) -> None:
        """What differs between the cells from now on, ``kind:NAME.field`` -> (n, k)."""
        self._visual = dict(visual)

    def fields(self, simulation: Simulation, camera: Camera) -> dict[str, Array]:
        """Everything that differs between the cells and that this camera shows, as set or varied."""
        own = f"camera:{camera.name}"
        mine = {k: x for k, x in self._visual.items() if not k.startswith("camera:") or k.rpartition(".")[0] == own}
        return self.renderer.fields_of(simulation) | mine

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
