"""Drawing with MuJoCo Warp's ray tracer. In: worlds, a camera. Out: rgb, depth and geom ids of a batch of worlds.

Needs no OpenGL; runs on a GPU where there is one. Kinematics stay with MuJoCo, so only the renderer's kernels compile.
Rays are our own, so distortion is exact.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import NotPossible, Unsupported
from flyball.engines.rendering.backends import WARP
from flyball.engines.rendering.worlds import GROUPS, Poses, Worlds
from flyball.scenes.camera import Camera

_CHUNK = 64
"""Worlds per launch: what bounds the memory."""
_SUBPIXELS = 2
"""Rays per pixel and axis of the quality preset."""
_PER_WORLD = ("geom_rgba", "geom_size", "mat_rgba", "mat_specular", "mat_shininess", "mat_emission")
_LIGHTS = ("light_diffuse", "light_ambient", "light_specular")


class RayTracer:
    """Ray-traced pictures of one model.

    Args:
      worlds: what is drawn.
      preset: ``fast`` (no shadows, one ray per pixel) or ``quality`` (shadows, four rays per pixel).
    """

    kinds = frozenset({"rgb", "depth", "segmentation", "normals", "flow"})

    def __init__(self, worlds: Worlds, preset: str) -> None:
        try:
            import warp
        except ModuleNotFoundError as err:
            raise NotPossible(f"no {err.name}", where="renderer warp", run_next=WARP) from err
        warp.config.log_level = warp.LOG_ERROR  # its notes go to stdout
        try:
            import mujoco_warp
        except ModuleNotFoundError as err:
            raise NotPossible(f"no {err.name}", where="renderer warp", run_next=WARP) from err
        self._warp, self._mjw = warp, mujoco_warp
        self._worlds, self._quality = worlds, preset == "quality"
        try:
            self._model = mujoco_warp.put_model(worlds.model)
        except (NotImplementedError, ValueError) as err:
            raise Unsupported(f"MuJoCo Warp: {err}", where="renderer warp", allowed="egl, osmesa or rays") from err
        self._data: dict[int, Any] = {}
        self._contexts: dict[tuple[Any, ...], Any] = {}

    def draw(self, poses: Poses, camera: Camera, rgb: bool, labels: bool) -> dict[str, NDArray[Any]]:
        """As ``Rasterizer.draw``."""
        n = self._worlds.n
        parts = []
        for begin in range(0, n, _CHUNK):
            index = np.arange(begin, min(begin + _CHUNK, n))
            size = 1 if n == 1 else min(_CHUNK, 1 << int(n - 1).bit_length())  # few sizes, so few contexts
            parts.append(self._chunk(poses, camera, rgb, labels, np.resize(index, size), len(index)))
        return {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}

    def close(self) -> None:
        """Drop the contexts."""
        self._contexts.clear()
        self._data.clear()

    def _chunk(
        self, poses: Poses, camera: Camera, rgb: bool, labels: bool, index: NDArray[np.intp], count: int
    ) -> dict[str, NDArray[Any]]:
        n, h, w = len(index), camera.height, camera.width
        data = self._load(poses, index)
        # labels come from the middle of a pixel, so supersampled colours are a pass of their own
        passes = [(True, False), (False, True)] if self._quality and rgb and labels else [(rgb, labels)]
        out: dict[str, NDArray[Any]] = {}
        for colours, ids in passes:
            context = self._context(camera, n, colours, ids)
            self._mjw.refit_bvh(self._model, data, context)
            self._mjw.render(self._model, data, context)
            if colours:
                packed = context.rgb_data.numpy()[:count].reshape(count, h, w)
                out["rgb"] = np.stack([packed >> 16 & 255, packed >> 8 & 255, packed & 255], axis=-1).astype(np.uint8)
            if ids:
                depth = context.depth_data.numpy()[:count].reshape(count, h, w)
                what = context.seg_data.numpy()[:count].reshape(count, h, w, 2)
                flex = what[..., 1] == int(self._mjw.ObjType.FLEX)
                geom = np.where(flex, what[..., 0] + self._worlds.model.ngeom, what[..., 0])
                out["geom"] = geom.astype(np.int32)
                out["depth"] = np.where(geom >= 0, depth, np.inf).astype(np.float32)
        return out

    def _load(self, poses: Poses, index: NDArray[np.intp]) -> Any:
        """Upload where things are and how they look."""
        n, worlds, wp = len(index), self._worlds, self._warp
        if n not in self._data:
            self._data[n] = self._mjw.make_data(worlds.model, nworld=n)
        data = self._data[n]
        data.geom_xpos.assign(poses.geom_position[index].astype(np.float32))
        data.geom_xmat.assign(poses.geom_rotation[index].astype(np.float32))
        view = worlds.view
        places, turns = data.cam_xpos.numpy(), data.cam_xmat.numpy().reshape(n, -1, 3, 3)
        places[:, view] = poses.camera_position[index]
        turns[:, view] = poses.camera_rotation[index] * (1, -1, -1)
        data.cam_xpos.assign(places)
        data.cam_xmat.assign(turns)
        if worlds.model.nlight:
            data.light_xpos.assign(poses.light_position[index].astype(np.float32))
            data.light_xdir.assign(poses.light_direction[index].astype(np.float32))
        if worlds.model.nflex:
            data.flexvert_xpos.assign(np.stack([worlds.at(i).flexvert_xpos.copy() for i in index]).astype(np.float32))
        for field in (*_PER_WORLD, *_LIGHTS):
            values = worlds.varied(field)
            mine = values[index] if len(values) > 1 else values
            if mine.shape[1]:
                old = getattr(self._model, field)
                setattr(self._model, field, wp.array(mine.astype(np.float32), dtype=old.dtype, device=old.device))
        return data

    def _context(self, camera: Camera, n: int, rgb: bool, labels: bool) -> Any:
        supersampled = _SUBPIXELS if self._quality and rgb else 1
        key = (
            n,
            camera.width,
            camera.height,
            camera.fx,
            camera.fy,
            camera.cx,
            camera.cy,
            camera.distortion,
            rgb,
            labels,
        )
        if key not in self._contexts:
            context = self._mjw.create_render_context(
                self._worlds.model,
                nworld=n,
                cam_res=[(camera.width, camera.height)],
                cam_active=[self._worlds.view],
                render_rgb=[rgb],
                render_depth=[labels],
                render_seg=[labels],
                # what is compiled in is the same whatever is wanted, so that one kernel serves a model
                use_textures=True,
                render_skybox=True,
                use_shadows=self._quality,
                use_fast_math=False,
                enabled_geom_groups=[int(g) for g in np.flatnonzero(GROUPS)],
                samples_per_pixel=supersampled,
            )
            context.ray.assign(_rays(camera, supersampled).astype(np.float32))
            self._contexts[key] = context
        return self._contexts[key]


def _rays(camera: Camera, per_axis: int) -> NDArray[np.float64]:
    """Unit rays in MuJoCo's camera frame, one pass of the picture after the other, (passes * h * w, 3)."""
    v, u = np.meshgrid(np.arange(camera.height), np.arange(camera.width), indexing="ij")
    middle = np.stack([u, v], axis=-1).astype(float)
    offsets = (np.arange(per_axis) + 0.5) / per_axis - 0.5
    rays = [camera.unproject(middle + np.array([a, b])) for b in offsets for a in offsets]
    r = np.stack(rays).reshape(-1, 3) * (1, -1, -1)
    return r / np.linalg.norm(r, axis=1, keepdims=True)
