"""Normals and optical flow. In: depth and geom ids of one picture, poses. Out: more labels of the same pixels.

Both start from the same points, so they agree with depth and segmentation pixel by pixel, whatever drew those. Vectors
of all k = h * w pixels are held as (3, k): products with rotations are then fast.
"""

from __future__ import annotations

from collections.abc import Iterator

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.engines.rendering.rays import cast
from flyball.engines.rendering.worlds import Poses
from flyball.scenes.camera import Camera

Array = NDArray[np.float64]

_T = mujoco.mjtGeom
_SLACK = 1e-3
"""Relative depth by which a point may lie behind the surface that is seen there and still count as seen: depth buffers
hold 24 bits or a float, and curved surfaces are drawn in facets."""


def world_points(depth: NDArray[np.float32], rays: Array, poses: Poses, i: int) -> Array:
    """Points seen, in the world, (3, k) [m]; NaN where nothing is seen.

    Args:
      rays: (x, y, 1) in C, (3, k).
    """
    z = np.where(np.isfinite(depth), depth, np.nan).astype(float).ravel()
    points: Array = poses.camera_rotation[i] @ (rays * z) + poses.camera_position[i][:, None]
    return points


def by_geom(geom: NDArray[np.int32]) -> Iterator[tuple[int, NDArray[np.intp]]]:
    """(id, indices of its pixels) of everything that is seen."""
    flat = geom.ravel()
    short = flat.astype(np.int16) if flat.max(initial=0) < 2**15 else flat  # sorted many times faster
    order = np.argsort(short, kind="stable")
    ids, begin = np.unique(flat[order], return_index=True)
    for g, here in zip(ids, np.split(order, begin[1:]), strict=True):
        if g >= 0:
            yield int(g), here


def normals(m: mujoco.MjModel, d: mujoco.MjData, points: Array, geom: NDArray[np.int32], poses: Poses, i: int) -> Array:
    """Outward unit normals in C, (3, k); zero where nothing is seen.

    Primitives: gradient of the surface's equation at the point. Meshes and height fields: the face that a ray cast
    through the pixel meets, or, where that meets another geom, and for soft bodies: the slope of the depth picture.

    Args:
      m, d: the model and data of world i.
      points: in the world, (3, k) [m].
      geom: ids, (h, w).
    """
    out = np.zeros((3, geom.size))
    rest = np.zeros(geom.size, bool)
    for g, here in by_geom(geom):
        n = None
        if g < m.ngeom:
            r = poses.geom_rotation[i, g]
            local = r.T @ (points.take(here, axis=1) - poses.geom_position[i, g][:, None])
            n = _outward(int(m.geom_type[g]), m.geom_size[g], local)
        if n is None:
            rest[here] = True
        else:
            out[:, here] = poses.camera_rotation[i].T @ r @ n
    if rest.any():
        eye = poses.camera_position[i]
        view = points[:, rest] - eye[:, None]
        found = _slopes(points, geom)[:, rest]
        _, hit, met = cast(m, d, eye, view.T)
        same = hit == geom.ravel()[rest]
        found[:, same] = met[same].T
        facing = np.where((found * view).sum(axis=0) > 0, -found, found)
        out[:, rest] = poses.camera_rotation[i].T @ facing
    return out


def _outward(kind: int, size: Array, p: Array) -> Array | None:
    """Unit normals of a primitive in its own frame at points on it, (3, k); None: it is no primitive."""
    if kind == _T.mjGEOM_PLANE:
        return np.repeat([[0.0], [0.0], [1.0]], p.shape[1], axis=1)
    if kind == _T.mjGEOM_SPHERE:
        n = p.copy()
    elif kind == _T.mjGEOM_ELLIPSOID:
        n = p / size[:, None] ** 2
    elif kind == _T.mjGEOM_CAPSULE:
        n = p.copy()
        n[2] -= np.clip(p[2], -size[1], size[1])
    elif kind == _T.mjGEOM_CYLINDER:
        side = np.hypot(p[0], p[1]) - size[0] > np.abs(p[2]) - size[1]
        n = np.where(side, p * [[1], [1], [0]], np.sign(p) * [[0], [0], [1]])
    elif kind == _T.mjGEOM_BOX:
        axis = np.argmax(np.abs(p) - size[:, None], axis=0)
        n = np.where(np.arange(3)[:, None] == axis, np.sign(p), 0.0)
    else:
        return None
    n /= np.maximum(np.sqrt((n * n).sum(axis=0)), 1e-12)
    return n


def _slopes(points: Array, geom: NDArray[np.int32]) -> Array:
    """Normals from differences to neighbours on the same geom, (3, k), of either sign; zero where there are none."""
    grid = points.reshape(3, *geom.shape)
    steps = []
    for axis in (1, 0):
        ahead = np.where(np.diff(geom, axis=axis) == 0, np.diff(grid, axis=axis + 1), np.nan)
        edge = np.full_like(grid.take([0], axis=axis + 1), np.nan)
        both = np.stack([np.concatenate(pair, axis=axis + 1) for pair in ((ahead, edge), (edge, ahead))])
        there = np.isfinite(both)
        steps.append(np.where(there, both, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1))
    n = np.cross(steps[1], steps[0], axis=0)
    return (n / np.maximum(np.linalg.norm(n, axis=0), 1e-12)).reshape(3, -1)


def flow(
    camera: Camera,
    rays: Array,
    points: Array,
    normal: Array,
    geom: NDArray[np.int32],
    poses: tuple[Poses, Poses],
    i: int,
    after: tuple[NDArray[np.float32], NDArray[np.int32]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel's point goes by the second state.

    The point moves with its geom; where nothing is seen, it is infinitely far and only the camera's turning moves it.

    Args:
      rays: of the camera, in C, (3, k).
      points: seen in the first state, in the world, (3, k) [m].
      normal: there, in C, (3, k).
      geom: ids in the first state, (h, w).
      poses: of the first and the second state.
      after: depth and ids of the second state's picture.

    Returns:
      flow (h, w, 2), (du, dv) [px], NaN on soft bodies and for what ends up behind the camera; occluded (h, w): the
      point is not seen in the second picture: turned away, hidden behind what is nearer, out of the picture, behind the
      camera, or of a soft body. Right but for pixels at the edges of things.
    """
    a, b = poses
    h, w = geom.shape
    bodies, into = a.geom_position.shape[1], b.camera_rotation[i].T
    target = into @ a.camera_rotation[i] @ rays  # what is infinitely far turns with the camera
    away = np.zeros(geom.size, bool)
    for g, here in by_geom(geom):
        if g < bodies:
            # of the geom: from the world as it was to the camera as it will be
            turn = into @ b.geom_rotation[i, g] @ a.geom_rotation[i, g].T
            shift = into @ (b.geom_position[i, g] - b.camera_position[i]) - turn @ a.geom_position[i, g]
            moved = turn @ points.take(here, axis=1) + shift[:, None]
            target[:, here] = moved
            away[here] = (turn @ a.camera_rotation[i] @ normal.take(here, axis=1) * moved).sum(axis=0) > 0
    uv = camera.project(np.ascontiguousarray(target.T)).reshape(h, w, 2)
    uv[geom >= bodies] = np.nan
    depth, ids = after
    ok = np.asarray(np.isfinite(uv).all(axis=-1))
    at = np.rint(np.where(ok[..., None], uv, -1)).astype(np.intp)
    inside = ok & (at[..., 0] >= 0) & (at[..., 0] < w) & (at[..., 1] >= 0) & (at[..., 1] < h)
    there = np.where(inside, at[..., 1] * w + at[..., 0], 0)
    same = ids.ravel()[there] == geom
    limit = np.where(np.isfinite(depth), depth, 0).astype(float)
    limit += _SLACK * limit + _spread(limit, ids)
    behind = target[2].reshape(h, w) > limit.ravel()[there]
    hidden = (geom >= 0) & (away.reshape(h, w) | behind)
    v, u = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    out = uv - np.stack([u, v], axis=-1)
    return out.astype(np.float32), ~(inside & same) | hidden


def _spread(depth: Array, ids: NDArray[np.int32]) -> Array:
    """Largest difference of depth to a neighbour on the same geom, (h, w): what half a pixel's rounding can cost."""
    out = np.zeros_like(depth)
    for axis in (0, 1):
        step = np.where(np.diff(ids, axis=axis) == 0, np.abs(np.diff(depth, axis=axis)), 0)
        edge = np.zeros_like(np.take(depth, [0], axis=axis))
        out = np.maximum(out, np.concatenate([step, edge], axis=axis))
        out = np.maximum(out, np.concatenate([edge, step], axis=axis))
    return out
