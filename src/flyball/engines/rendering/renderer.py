"""The renderer. In: a scene's MJCF, joint positions of n worlds, a camera, kinds. Out: one array per kind.

renderer = Renderer(scene)
seen = renderer.render(positions, Camera.looking(...), ("rgb", "depth"))     # or renderer.see(simulation, ...)
seen["rgb"]                                                                  # (n, height, width, 3) uint8
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, Unsupported
from flyball.engines.engine import Simulation
from flyball.engines.rendering import backends, labels
from flyball.engines.rendering.skins import Skins
from flyball.engines.rendering.worlds import CLOSED, FIELDS, GROUPS, VIEW, Worlds
from flyball.scenes import Camera, Scene

Array = NDArray[np.float64]
Kind = Literal["rgb", "depth", "segmentation", "normals", "flow"]
KINDS: tuple[Kind, ...] = get_args(Kind)
PRESETS = ("fast", "quality")


class Renderer:
    """Pictures of worlds of one model.

    A picture of world i has the same bits alone and in any batch. Not for several threads at once: an OpenGL context
    belongs to the thread that makes its first picture.

    Args:
      scene: or the MJCF of a model alone.
      backend: ``egl``, ``osmesa``, ``warp``, ``rays`` or ``auto``: $FLYBALL_RENDERER or $MUJOCO_GL where set, else the
        first that works and gives what is asked for.
      preset: ``fast`` (no shadows, reflections or multisampling) or ``quality``.
      assets: files that the model names, name -> bytes; a scene brings its own.

    Raises:
      InputError: the model does not compile.
      NotPossible: the named backend does not work here; says what to install.
    """

    def __init__(
        self,
        scene: Scene | str,
        *,
        backend: str = "auto",
        preset: str = "fast",
        assets: Mapping[str, bytes] | None = None,
    ) -> None:
        if preset not in PRESETS:
            raise Missing.named("preset", preset, PRESETS, where="rendering")
        self._worlds = Worlds(scene, assets)
        self._wish, self._preset = backend, preset
        self._backends: dict[str, Any] = {}
        if backend != "auto":
            backends.choose(backend)

    @property
    def model(self) -> mujoco.MjModel:
        """The compiled model, with one camera more than the authored one; not to be changed."""
        return self._worlds.model

    @property
    def geoms(self) -> list[str]:
        """Name table of the first number of ``segmentation``: geoms by id ("" where unnamed), then flexes."""
        m = self._worlds.model
        flexes = [mujoco.mj_id2name(m, mujoco.mjtObj.mjOBJ_FLEX, i) or "" for i in range(m.nflex)]
        return self._worlds.names("geom") + flexes

    @property
    def bodies(self) -> list[str]:
        """Name table of the second number of ``segmentation``: bodies by id; 0 is the world."""
        return self._worlds.names("body")

    def backend(self, rgb: bool = True) -> str:
        """Name of the backend that draws."""
        return backends.choose(self._wish, rgb=rgb)

    def render(
        self,
        positions: Array,
        camera: Camera,
        kinds: Sequence[Kind] = ("rgb",),
        *,
        vary: Mapping[str, Array] | None = None,
        after: Array | None = None,
        vary_after: Mapping[str, Array] | None = None,
        particles: Mapping[str, Array] | None = None,
        particles_after: Mapping[str, Array] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """Pictures of n worlds in order, without noise (``Camera.observe`` adds it).

        Args:
          positions: joint positions as in MuJoCo's qpos, (n, nq).
          kinds: what is wanted.
          vary: fields that differ between worlds, field -> (n,) or (n, k); see ``worlds.VARIABLE``.
          after: the second state of ``flow``, (n, nq).
          vary_after: fields in the second state (default: as in the first).
          particles: where the scene's deformables are, as engines read it: ``cloth|soft|granular:NAME.positions`` ->
            (n, k, 3) [m]. What is left out lies as authored.
          particles_after: in the second state (default: as in the first).

        Returns:
          ``rgb`` (n, h, w, 3) uint8;
          ``depth`` (n, h, w) float32, along the optical axis [m], inf where nothing is seen;
          ``segmentation`` (n, h, w, 2) int32, geom and body id (tables ``geoms``, ``bodies``), -1 where nothing is;
          ``normals`` (n, h, w, 3) float32, outward, in the camera's frame, 0 where nothing is;
          ``flow`` (n, h, w, 2) float32 [px per step from positions to after] with ``occluded`` (n, h, w) bool.

        Raises:
          InputError, Missing: positions, a field or the camera do not fit the model.
          Unsupported: a kind that the backend cannot draw, or a field that cannot vary.
          NotPossible: nothing on this machine draws it; says what to install.
        """
        wanted = set(kinds)
        for kind in wanted:
            if kind not in KINDS:
                raise Missing.named("kind of picture", kind, KINDS, where="rendering")
        if ("flow" in wanted) != (after is not None):
            raise InputError("flow goes with a second state", where="rendering", allowed="kind flow and after, or none")
        rgb, label = "rgb" in wanted, bool(wanted - {"rgb"})
        drawer = self._drawer(rgb)
        worlds, m = self._worlds, self._worlds.model
        end, poses_end = None, None
        if after is not None:
            if np.shape(after) != np.shape(positions):
                raise InputError(
                    f"after of shape {np.shape(after)}", where="rendering", allowed=f"{np.shape(positions)}"
                )
            moved = particles if particles_after is None else particles_after
            worlds.load(after, (vary if vary_after is None else vary_after) or {}, camera, moved)
            poses_end = worlds.poses(camera)
            end = drawer.draw(poses_end, camera, False, True)
        worlds.load(positions, vary or {}, camera, particles)
        if worlds.n == 0:
            raise InputError("no worlds", where="rendering", allowed="positions (n >= 1, nq)")
        poses = worlds.poses(camera)
        drawn = drawer.draw(poses, camera, rgb, label)
        out: dict[str, NDArray[Any]] = {k: drawn[k] for k in ("rgb", "depth") if k in wanted}
        if "segmentation" in wanted:
            body = np.append(m.geom_bodyid, np.full(m.nflex + 1, -1)).astype(np.int32)
            out["segmentation"] = np.stack([drawn["geom"], body[drawn["geom"]]], axis=-1)
        if wanted & {"normals", "flow"}:
            out |= self._more(wanted, camera, drawn, (poses, poses_end), end)
        return out

    def _more(
        self,
        wanted: set[Kind],
        camera: Camera,
        drawn: Mapping[str, NDArray[Any]],
        poses: tuple[Any, Any],
        end: Mapping[str, NDArray[Any]] | None,
    ) -> dict[str, NDArray[Any]]:
        """Normals and flow, from what was drawn."""
        h, w = camera.height, camera.width
        rays = np.ascontiguousarray(camera.rays().reshape(-1, 3).T)
        found: dict[str, list[NDArray[Any]]] = {"normals": [], "flow": [], "occluded": []}
        for i in range(self._worlds.n):
            points = labels.world_points(drawn["depth"][i], rays, poses[0], i)
            geom = drawn["geom"][i]
            normal = labels.normals(self._worlds.model, self._worlds.at(i), points, geom, poses[0], i)
            if "normals" in wanted:
                found["normals"].append(normal.T.astype(np.float32).reshape(h, w, 3))
            if end is not None:
                f, o = labels.flow(camera, rays, points, normal, geom, poses, i, (end["depth"][i], end["geom"][i]))
                found["flow"].append(f)
                found["occluded"].append(o)
        return {k: np.stack(v) for k, v in found.items() if v}

    def see(
        self,
        simulation: Simulation,
        camera: Camera,
        kinds: Sequence[Kind] = ("rgb",),
        *,
        vary: Mapping[str, Array] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """``render`` the current state of any engine's worlds, with the fields that were set in them and can be seen.

        Raises:
          InputError: a joint without a name: engines are asked by name.
        """
        fields = self.fields_of(simulation) | dict(vary or {})
        positions, particles = self.state(simulation.read(self.reads(simulation)), simulation.n)
        return self.render(positions, camera, kinds, vary=fields, particles=particles)

    def reads(self, simulation: Simulation) -> list[str]:
        """Fields of an engine that say where everything is, for ``state``.

        Raises:
          InputError: a joint without a name: engines are asked by name.
          Unsupported: deformables of which this renderer was not told.
        """
        m = self._worlds.model
        names = [m.joint(j).name for j in range(m.njnt)]
        if not all(names):
            raise InputError(f"joint {names.index('')} has no name", where="rendering", allowed="named joints")
        known = self._worlds.skins.reads
        for read in Skins(getattr(getattr(simulation, "scene", None), "deformables", ())).reads:
            if read not in known:
                raise Unsupported(
                    f"{read.rpartition('.')[0]} is not drawn", where="rendering", allowed="Renderer(scene)"
                )
        return [*(f"joint:{name}.position" for name in names), *known]

    def state(self, read: Mapping[str, Array], n: int) -> tuple[Array, dict[str, Array]]:
        """Positions (n, nq) and particles, of ``reads``."""
        joints = [x for name, x in read.items() if name.startswith("joint:")]
        particles = {k: np.asarray(read[k], float).reshape(n, -1, 3) for k in self._worlds.skins.reads}
        return np.concatenate([np.zeros((n, 0)), *joints], axis=1), particles

    def overview(
        self,
        positions: Array,
        width: int = 320,
        height: int = 240,
        *,
        particles: Mapping[str, Array] | None = None,
    ) -> Camera:
        """A camera for people: sees all of the first world but floors and height fields, from its front left.

        Args:
          positions: (n, nq).
          particles: as for ``render``.
        """
        m, worlds = self._worlds.model, self._worlds
        worlds.load(positions, {}, particles=particles)
        d = worlds.at(0)
        thing = (m.geom_rbound > 0) & np.isin(m.geom_group, np.flatnonzero(GROUPS))  # a plane has no bound
        centre, radius = np.asarray(m.stat.center, float), float(m.stat.extent)
        p, r = d.geom_xpos[thing], m.geom_rbound[thing, None]
        bounds = [*zip(p - r, p + r, strict=True), *worlds.skins.bounds()]
        if bounds:
            low, high = np.min([a for a, _ in bounds], axis=0), np.max([b for _, b in bounds], axis=0)
            centre, radius = (low + high) / 2, float(np.linalg.norm(high - low)) / 2
        away = np.array([0.61, -0.61, 0.5])
        if min(width, height) < 1:
            raise InputError(f"{width} x {height} px", where="overview", allowed="1 or more")
        fovy = 40.0
        narrow = np.arctan(np.tan(np.radians(fovy / 2)) * min(1, width / height))
        from_ = centre + away / np.linalg.norm(away) * radius / np.sin(narrow)
        return Camera.looking("overview", width, height, fovy, at=centre.tolist(), from_=from_.tolist())

    def own(self, name: str, n: int = 1) -> Array:
        """The model's own value of a field that can vary, (n, k): what variations scale or add to."""
        return np.repeat(self._worlds.own(name)[None], n, axis=0)

    def start(self, joints: Mapping[str, Any] | None = None, n: int = 1) -> Array:
        """The model's start positions, (n, nq), with named joints put elsewhere.

        Raises:
          Missing: no such joint.
        """
        m = self._worlds.model
        q = np.repeat(m.qpos0[None], n, axis=0)
        for name, value in (joints or {}).items():
            j = mujoco.mj_name2id(m, mujoco.mjtObj.mjOBJ_JOINT, name)
            if j < 0:
                raise Missing.named("joint", name, [m.joint(k).name for k in range(m.njnt)], where="rendering")
            at = int(m.jnt_qposadr[j])
            q[:, at : at + np.shape(value)[-1]] = value
        return q

    def fields_of(self, simulation: Simulation) -> dict[str, Array]:
        """Fields that can be seen and differ from the model's in an engine's worlds, for ``vary``."""
        m, out = self._worlds.model, {}
        for pattern in set(simulation.settable()) & set(FIELDS):
            kind, _, field = pattern.partition(":NAME.")
            for i, item in enumerate(self._worlds.names(kind)):
                if not item or (field == "size_scale" and int(m.geom_type[i]) not in CLOSED):
                    continue
                name = f"{kind}:{item}.{field}"
                values = simulation.get(name)
                if np.any(values != self._worlds.own(name)):
                    out[name] = values
        return out

    def close(self) -> None:
        """Free contexts; the next picture makes new ones."""
        for backend in self._backends.values():
            backend.close()
        self._backends.clear()

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _drawer(self, rgb: bool) -> Any:
        name = self.backend(rgb)
        if rgb and name == "rays":
            raise Unsupported("the backend rays draws no rgb", where="rendering", allowed="egl, osmesa or warp")
        if name not in self._backends:
            if name in ("egl", "osmesa"):
                from flyball.engines.rendering.gl import Rasterizer

                self._backends[name] = Rasterizer(self._worlds, name, self._preset)
            elif name == "warp":
                from flyball.engines.rendering.warp import RayTracer

                self._backends[name] = RayTracer(self._worlds, self._preset)
            else:
                from flyball.engines.rendering.rays import RayCaster

                self._backends[name] = RayCaster(self._worlds)
        return self._backends[name]


def model_cameras(model: mujoco.MjModel) -> list[Camera]:
    """The cameras of a model; they follow the model's own, tracking modes included.

    Raises:
      Unsupported: an orthographic camera.
    """
    out = []
    for i in range(model.ncam):
        c = model.camera(i)
        if c.name in ("", VIEW):
            continue
        if model.cam_projection[i] != mujoco.mjtProjection.mjPROJ_PERSPECTIVE:
            raise Unsupported("orthographic", where=f"camera {c.name}", allowed="perspective cameras")
        width, height = (int(x) for x in model.cam_resolution[i])
        if width <= 1 or height <= 1:
            width, height = 320, 240
        flip: dict[str, Any] = {"parent": f"camera:{c.name}", "quat": (0.0, 1.0, 0.0, 0.0)}
        if model.cam_sensorsize[i].all():
            fx, fy, ox, oy = (float(x) for x in model.cam_intrinsic[i])
            sx, sy = (s / p for s, p in zip(model.cam_sensorsize[i].tolist(), (width, height), strict=True))
            # MuJoCo's principal point is an offset [m] by which the view is shifted right, and down
            middle = ((width - 1) / 2 - ox / sx, (height - 1) / 2 - oy / sy)
            out.append(Camera(c.name, width, height, fx / sx, fy / sy, *middle, **flip))
        else:
            out.append(Camera.with_fov(c.name, width, height, float(model.cam_fovy[i]), **flip))
    return out
