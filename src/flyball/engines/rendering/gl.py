"""Drawing with OpenGL. In: worlds, a camera, what is wanted. Out: rgb, and depth with geom ids, from one context.

MuJoCo's rasterizer through EGL or OSMesa. Labels are drawn without multisampling: a blended id would be another geom's.
A context belongs to the thread that made it.
"""

from __future__ import annotations

import atexit
import weakref
from functools import cache
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, NotPossible
from flyball.engines.rendering.worlds import GROUPS, Poses, Worlds, put_view
from flyball.scenes.camera import Camera

_LARGEST = 8192
_MAX_GEOMS = 20_000
_FINER = 3
"""How much finer the straight picture is from which the labels of a bent one are taken: right to 1/6 px."""
_open: weakref.WeakSet[Rasterizer] = weakref.WeakSet()


class Rasterizer:
    """OpenGL pictures of one model.

    Args:
      worlds: what is drawn.
      platform: ``egl`` or ``osmesa``.
      preset: ``fast`` (no shadows, reflections or multisampling) or ``quality`` (all three, finer curved surfaces).
    """

    kinds = frozenset({"rgb", "depth", "segmentation", "normals", "flow"})

    def __init__(self, worlds: Worlds, platform: str, preset: str) -> None:
        self._worlds, self._preset, self._platform = worlds, preset, platform
        self._quality = preset == "quality"
        m = worlds.model
        self._samples = max(int(m.vis.quality.offsamples), 4) if self._quality else 0
        if self._quality:
            m.vis.quality.numslices, m.vis.quality.numstacks = 64, 32
        self._scene = mujoco.MjvScene(m, maxgeom=_MAX_GEOMS)
        self._option = mujoco.MjvOption()
        self._option.geomgroup[:] = GROUPS
        for group in ("site", "joint", "tendon", "actuator", "skin"):  # marks for people, which no camera sees
            getattr(self._option, f"{group}group")[:] = 0
        self._option.flags[mujoco.mjtVisFlag.mjVIS_RANGEFINDER] = 0
        self._camera = mujoco.MjvCamera()
        self._camera.type, self._camera.fixedcamid = mujoco.mjtCamera.mjCAMERA_FIXED, worlds.view
        self._context: Any = None
        self._drawing: dict[int, Any] = {}
        self._size = (0, 0)
        self._ids: dict[bytes, NDArray[np.int32]] = {}
        _open.add(self)

    def draw(self, poses: Poses, camera: Camera, rgb: bool, labels: bool) -> dict[str, NDArray[Any]]:
        """``rgb`` (n, h, w, 3) uint8; ``depth`` (n, h, w) float32 [m], inf: nothing; ``geom`` (n, h, w) int32, -1."""
        n, h, w = self._worlds.n, camera.height, camera.width
        out: dict[str, NDArray[Any]] = {}
        if rgb:
            out["rgb"] = np.empty((n, h, w, 3), np.uint8)
            straight, bend = _straight(camera, 1)
            self._make(straight.width, straight.height)
        if labels:
            out["depth"], out["geom"] = np.empty((n, h, w), np.float32), np.empty((n, h, w), np.int32)
            fine, find = _straight(camera, _FINER)
            self._make(fine.width, fine.height)
        self._context.make_current()
        for i in range(n):
            self._arrange(i, poses)
            if rgb:
                colour, _ = self._picture(straight, labels=False)
                out["rgb"][i] = colour if bend is None else bend.blend(colour)
            if labels:
                colour, window = self._picture(fine, labels=True)
                depth, geom = self._metres(window), self._geoms(colour)
                out["depth"][i], out["geom"][i] = (depth, geom) if find is None else find.labels(depth, geom)
        return out

    def _picture(self, camera: Camera, labels: bool) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Colours, and with labels window depths, of the world in the scene."""
        flags, flag = self._scene.flags, mujoco.mjtRndFlag
        flags[flag.mjRND_SHADOW] = flags[flag.mjRND_REFLECTION] = self._quality and not labels
        flags[flag.mjRND_SEGMENT] = flags[flag.mjRND_IDCOLOR] = labels
        for eye in self._scene.camera:
            near = eye.frustum_near
            left, right = (np.array([-0.5, camera.width - 0.5]) - camera.cx) / camera.fx * near
            top, bottom = (camera.cy - np.array([-0.5, camera.height - 0.5])) / camera.fy * near
            eye.frustum_center, eye.frustum_width = (left + right) / 2, (right - left) / 2
            eye.frustum_top, eye.frustum_bottom = top, bottom
        drawing = self._drawing[0 if labels else self._samples]
        rect = mujoco.MjrRect(0, 0, camera.width, camera.height)
        colour = np.empty((camera.height, camera.width, 3), np.uint8)
        window = np.empty((camera.height, camera.width) if labels else (0, 0), np.float32)
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, drawing)
        mujoco.mjr_render(rect, self._scene, drawing)
        mujoco.mjr_readPixels(colour, window if labels else None, rect, drawing)
        return colour[::-1], window[::-1]

    def close(self) -> None:
        """Free the context; drawing again makes a new one."""
        if self._context is not None:
            self._context.make_current()
            for drawing in self._drawing.values():
                drawing.free()
            self._context.free()
        self._context, self._drawing, self._size = None, {}, (0, 0)

    def _make(self, width: int, height: int) -> None:
        """A context with buffers that are large enough."""
        if self._context is not None and width <= self._size[0] and height <= self._size[1]:
            return
        size = (max(width, self._size[0]), max(height, self._size[1]))
        self.close()
        try:
            self._context = _gl_context(self._platform)(*size)
            _closing_at_exit()
            self._context.make_current()
            m = self._worlds.model
            m.vis.global_.offwidth, m.vis.global_.offheight = size
            for samples in {0, self._samples}:
                m.vis.quality.offsamples = samples
                drawing = mujoco.MjrContext(m, mujoco.mjtFontScale.mjFONTSCALE_100)
                drawing.readDepthMap = mujoco.mjtDepthMap.mjDEPTH_ZEROFAR
                self._drawing[samples] = drawing
        except (AttributeError, ImportError, RuntimeError, mujoco.FatalError) as err:
            raise NotPossible(
                f"OpenGL through {self._platform} fails: {err}", where="rendering", run_next="flyball doctor"
            ) from err
        self._size = size

    def _arrange(self, i: int, poses: Poses) -> None:
        """World i in the scene, seen from its camera."""
        d = self._worlds.at(i)
        put_view(d, self._worlds.view, poses.camera_position[i], poses.camera_rotation[i])
        everything = mujoco.mjtCatBit.mjCAT_ALL
        mujoco.mjv_updateScene(self._worlds.model, d, self._option, None, self._camera, everything, self._scene)
        if self._scene.ngeom >= _MAX_GEOMS:
            raise InputError(f"more than {_MAX_GEOMS} geoms", where="rendering", allowed="fewer")

    def _metres(self, window: NDArray[np.float32]) -> NDArray[np.float32]:
        """Window depth, reversed (1 near, 0 far), to metres: 1/z is linear in it."""
        near, far = self._scene.camera[0].frustum_near, self._scene.camera[0].frustum_far
        w = window.astype(np.float64)
        z = near * far / (near + w * (far - near))
        return np.where(w > 0, z, np.inf).astype(np.float32)

    def _geoms(self, colour: NDArray[np.uint8]) -> NDArray[np.int32]:
        """Colours to geom ids; -1 where nothing is, ngeom + k for soft body k."""
        m, s = self._worlds.model, self._scene
        # which geoms are listed depends on which are invisible
        key = np.append(m.geom_rgba[:, 3], m.mat_rgba[:, 3]).tobytes() + s.ngeom.to_bytes(4, "little")
        if key not in self._ids:
            table = np.full(s.ngeom + 1, -1, np.int32)
            for g in s.geoms[: s.ngeom]:
                if g.segid >= 0 and g.objtype == mujoco.mjtObj.mjOBJ_GEOM:
                    table[g.segid + 1] = g.objid
                elif g.segid >= 0 and g.objtype == mujoco.mjtObj.mjOBJ_FLEX:
                    table[g.segid + 1] = m.ngeom + g.objid
            self._ids[key] = table
        wide = colour.astype(np.int32)
        return self._ids[key][wide[..., 0] + (wide[..., 1] << 8) + (wide[..., 2] << 16)]


def _gl_context(platform: str) -> Any:
    if platform == "egl":
        from mujoco.egl import GLContext
    else:
        from mujoco.osmesa import GLContext
    return GLContext


class _Lookup:
    """Where the pixels of a bent picture lie in a wider straight one."""

    def __init__(self, u: NDArray[np.float64], v: NDArray[np.float64]) -> None:
        self._u, self._v = np.floor(u).astype(np.intp), np.floor(v).astype(np.intp)
        self._s, self._t = u - self._u, v - self._v
        self._near = (np.rint(v).astype(np.intp), np.rint(u).astype(np.intp))

    def _corners(self, x: NDArray[Any]) -> list[NDArray[Any]]:
        u, v = self._u, self._v
        return [x[v, u], x[v, u + 1], x[v + 1, u], x[v + 1, u + 1]]

    def _mix(self, corners: list[NDArray[Any]]) -> NDArray[Any]:
        s, t = (x.reshape(*x.shape, *([1] * (corners[0].ndim - 2))) for x in (self._s, self._t))
        a, b, c, d = corners
        return (a * (1 - s) + b * s) * (1 - t) + (c * (1 - s) + d * s) * t

    def blend(self, rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bilinear."""
        return np.rint(self._mix([c.astype(np.float32) for c in self._corners(rgb)])).astype(np.uint8)

    def labels(
        self, depth: NDArray[np.float32], geom: NDArray[np.int32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        """Ids of the nearest pixel; depth bilinear in 1/z within one geom (exact on planes), else of the nearest."""
        ids = self._corners(geom)
        whole = (ids[0] == ids[1]) & (ids[0] == ids[2]) & (ids[0] == ids[3]) & (ids[0] >= 0)
        z = depth[self._near]
        smooth = 1 / self._mix([1 / c.astype(np.float64) for c in self._corners(depth)])[whole]
        z[whole] = smooth
        return z, geom[self._near]


def _straight(camera: Camera, finer: int) -> tuple[Camera, _Lookup | None]:
    """A pinhole camera that sees all that a bent one sees, ``finer`` times as finely, and where its pixels lie."""
    if not camera.distorted:
        return camera, None
    rays = camera.rays()
    x, y = rays[..., 0], rays[..., 1]
    sharpest = [1 / float(np.diff(a, axis=k).min(initial=np.inf)) for a, k in ((x, 1), (y, 0))]
    fx, fy = (finer * max(own, f) for own, f in zip((camera.fx, camera.fy), sharpest, strict=True))
    # one pixel to spare on every side
    cx, cy = 1 - float(x.min()) * fx, 1 - float(y.min()) * fy
    width, height = int(np.ceil(x.max() * fx + cx)) + 2, int(np.ceil(y.max() * fy + cy)) + 2
    if max(width, height) > _LARGEST:
        if finer > 1:
            return _straight(camera, finer - 1)
        raise InputError(
            f"its distortion needs a straight picture of {width} x {height} px",
            where=f"camera {camera.name}",
            allowed=f"up to {_LARGEST} px; or the backends warp and rays, which bend their rays",
        )
    return Camera(camera.name, width, height, fx, fy, cx, cy), _Lookup(x * fx + cx, y * fy + cy)


@cache
def _closing_at_exit() -> None:
    """Free contexts before MuJoCo ends EGL, which it registers at the first context; PyOpenGL is half gone later."""

    def close_all() -> None:
        for rasterizer in list(_open):
            rasterizer.close()

    atexit.register(close_all)
