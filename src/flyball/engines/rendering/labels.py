"""Normals and optical flow. In: depth and geom ids of one picture, poses. Out: more labels of the same pixels.

Both start from the same points, so they agree with depth and segmentation pixel by pixel, whatever drew those.
"""

from __future__ import annotations

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
    """Points seen, in the world, (h, w, 3) [m]; NaN where nothing is seen."""
    z = np.where(np.isfinite(depth), depth, np.nan).astype(float)
    return (rays * z[..., None]) @ poses.camera_rotation[i].T + poses.camera_position[i]


def normals(
    m: mujoco.MjModel, d: mujoco.MjData, points: Array, geom: NDArray[np.int32], poses: Poses, i: int
) -> NDArray[np.float32]:
    """Outward unit normals in C, (h, w, 3); zero where nothing is seen.

    Primitives: gradient of the surface's equation at the point. Meshes and height fields: the face that a ray cast
    through the pixel meets, or, where that meets another geom, and for soft bodies: the slope of the depth picture.

    Args:
      m, d: the model and data of world i.
      points: (h, w, 3), in the world [m].
      geom: ids, (h, w).
    """
    out = np.zeros((*geom.shape, 3))
    rest = np.zeros(geom.shape, bool)
    for g in np.unique(geom[geom >= 0]):
        here = geom == g
        n = None
        if g < m.ngeom:
            r = poses.geom_rotation[i, g]
            n = _outward(int(m.geom_type[g]), m.geom_size[g], (points[here] - poses.geom_position[i, g]) @ r)
        if n is None:
            rest |= here
        else:
            out[here] = n @ r.T
    if rest.any():
        out[rest] = _slopes(points, geom)[rest]
        eye = poses.camera_position[i]
        _, hit, met = cast(m, d, eye, points[rest] - eye)
        same = hit == geom[rest]
        found = out[rest]
        found[same] = met[same]
        out[rest] = found
        toward = np.einsum("...k,...k", out, eye - np.nan_to_num(points)) < 0
        out[rest & toward] *= -1
    return (out @ poses.camera_rotation[i]).astype(np.float32)


def _outward(kind: int, size: Array, p: Array) -> Array | None:
    """Unit normals of a primitive in its own frame at points on it, (k, 3); None: it is no primitive."""
    if kind == _T.mjGEOM_PLANE:
        return np.broadcast_to([0.0, 0.0, 1.0], p.shape)
    if kind in (_T.mjGEOM_SPHERE, _T.mjGEOM_ELLIPSOID):
        n = p if kind == _T.mjGEOM_SPHERE else p / size**2
    elif kind == _T.mjGEOM_CAPSULE:
        n = p - np.stack([0 * p[:, 0], 0 * p[:, 0], np.clip(p[:, 2], -size[1], size[1])], axis=1)
    elif kind == _T.mjGEOM_CYLINDER:
        side = np.hypot(p[:, 0], p[:, 1]) - size[0] > np.abs(p[:, 2]) - size[1]
        n = np.where(side[:, None], p * (1, 1, 0), np.sign(p) * (0, 0, 1))
    elif kind == _T.mjGEOM_BOX:
        axis = np.argmax(np.abs(p) - size, axis=1)
        n = np.zeros_like(p)
        rows = np.arange(len(p))
        n[rows, axis] = np.sign(p[rows, axis])
    else:
        return None
    return n / np.maximum(np.linalg.norm(n, axis=1, keepdims=True), 1e-12)


def _slopes(points: Array, geom: NDArray[np.int32]) -> Array:
    """Normals from differences to neighbours on the same geom, (h, w, 3); zero where there are none."""
    steps = []
    for axis in (1, 0):
        ahead = np.diff(points, axis=axis)
        same = np.diff(geom, axis=axis) == 0
        ahead[~same] = np.nan
        pad = np.full_like(np.take(points, [0], axis=axis), np.nan)
        both = np.stack([np.concatenate([ahead, pad], axis=axis), np.concatenate([pad, ahead], axis=axis)])
        there = np.isfinite(both)
        steps.append(np.where(there, both, 0).sum(axis=0) / np.maximum(there.sum(axis=0), 1))
    n = np.cross(steps[1], steps[0])
    return n / np.maximum(np.linalg.norm(n, axis=-1, keepdims=True), 1e-12)


def flow(
    camera: Camera,
    points: Array,
    normal: NDArray[np.float32],
    geom: NDArray[np.int32],
    poses: tuple[Poses, Poses],
    i: int,
    after: tuple[NDArray[np.float32], NDArray[np.int32]],
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Where each pixel's point goes by the second state.

    The point moves with its geom; where nothing is seen, it is infinitely far and only the camera's turning moves it.

    Args:
      points: seen in the first state, (h, w, 3) [m].
      normal: there, in C, (h, w, 3).
      geom: ids in the first state, (h, w).
      poses: of the first and the second state.
      after: depth and ids of the second state's picture.

    Returns:
      flow (h, w, 2), (du, dv) [px], NaN on soft bodies and for what ends up behind the camera; occluded (h, w): the
      point is not seen in the second picture: turned away, hidden behind what is nearer, out of the picture, behind the
      camera, or of a soft body. Right but for pixels at the edges of things.
    """
    a, b = poses
    rigid = (geom >= 0) & (geom < a.geom_position.shape[1])
    k = np.where(rigid, geom, 0)
    # of each geom: from the world as it was to the world as it will be
    turn = b.geom_rotation[i] @ a.geom_rotation[i].transpose(0, 2, 1)
    shift = b.geom_position[i] - np.einsum("gij,gj->gi", turn, a.geom_position[i])
    moved = np.einsum("hwij,hwj->hwi", turn[k], points) + shift[k]
    seen_by = (moved - b.camera_position[i]) @ b.camera_rotation[i]
    outward = np.einsum("hwij,hwj->hwi", turn[k], normal @ a.camera_rotation[i].T) @ b.camera_rotation[i]
    away = np.einsum("hwk,hwk->hw", outward, seen_by) > 0
    h, w = geom.shape
    far = camera.rays() @ (b.camera_rotation[i].T @ a.camera_rotation[i]).T
    target = np.where(rigid[..., None], seen_by, far)
    v, u = np.meshgrid(np.arange(h), np.arange(w), indexing="ij")
    uv = camera.project(target)
    uv[geom >= a.geom_position.shape[1]] = np.nan
    depth, ids = after
    ok = np.asarray(np.isfinite(uv).all(axis=-1))
    at = np.rint(np.where(ok[..., None], uv, -1)).astype(np.intp)
    inside = ok & (at[..., 0] >= 0) & (at[..., 0] < w) & (at[..., 1] >= 0) & (at[..., 1] < h)
    row, column = np.where(inside, at[..., 1], 0), np.where(inside, at[..., 0], 0)
    same = np.asarray(ids[row, column] == geom)
    limit = np.where(np.isfinite(depth), depth, 0).astype(float)
    slack = _SLACK * limit + _spread(limit, ids)
    hidden = rigid & (away | (target[..., 2] > np.asarray(limit + slack)[row, column]))
    occluded = ~(inside & same) | hidden
    out = uv - np.stack([u, v], axis=-1)
    return out.astype(np.float32), occluded


def _spread(depth: Array, ids: NDArray[np.int32]) -> Array:
    """Largest difference of depth to a neighbour on the same geom, (h, w): what half a pixel's rounding can cost."""
    out = np.zeros_like(depth)
    for axis in (0, 1):
        step = np.where(np.diff(ids, axis=axis) == 0, np.abs(np.diff(depth, axis=axis)), 0)
        edge = np.zeros_like(np.take(depth, [0], axis=axis))
        out = np.maximum(out, np.concatenate([step, edge], axis=axis))
        out = np.maximum(out, np.concatenate([edge, step], axis=axis))
    return out
