"""Mesh prims as mesh files for MuJoCo.

In: ``UsdGeom.Mesh`` prims with whatever scale stands above them. Out: OBJ files in metres, one per distinct shape, and
the volume of every shape. Polygons become fans of triangles; a mesh that says it is a height field becomes one again.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from pxr import Usd, UsdGeom, UsdPhysics

from flyball.robots.models.meshes import obj
from flyball.robots.models.model import Array
from flyball.scenes.usd.values import Values, word

FLAT = 1e-9
"""Volume over the cube of a mesh's size below which it counts as flat."""


class Meshes:
    """Collects mesh files.

    Attributes:
      entries: asset name -> its MJCF attributes, with its tag under ``tag``.
      files: file name -> content.
    """

    def __init__(self, values: Values) -> None:
        self.values = values
        self.entries: dict[str, dict[str, str]] = {}
        self.files: dict[str, bytes] = {}
        self.volumes: dict[str, float] = {}
        self._known: dict[str, str] = {}

    def shape(self, prim: Usd.Prim, scale: Array) -> dict[str, Any] | None:
        """``type`` and mesh or height field of a prim; None when nothing can be made of it."""
        grid = self.values.get(prim, "flyball:hfield:shape", "IntArray")
        points, faces = self._triangles(prim, scale)
        if grid is not None:
            return self._field(prim, points, grid)
        if len(points) < 4 or len(faces) < 1:
            return None
        return self._keep(prim, points, faces)

    def bounds(self, prim: Usd.Prim, scale: Array) -> tuple[Array, Array]:
        """Half sides and middle of the box around a mesh [m], (3,) each."""
        points, _ = self._triangles(prim, scale)
        if not len(points):
            raise self.values.bad(prim, "a mesh without points", "at least 4")
        low, high = points.min(axis=0), points.max(axis=0)
        return np.maximum((high - low) / 2, 1e-6), (high + low) / 2

    def cone(self, prim: Usd.Prim, scale: Array) -> dict[str, Any] | None:
        """A cone as a mesh."""
        cone, v = UsdGeom.Cone(prim), self.values
        radius, height = v.number(prim, cone.GetRadiusAttr()), v.number(prim, cone.GetHeightAttr())
        if not (radius and height and np.isfinite([radius, height]).all() and radius > 0 and height > 0):
            raise v.bad(prim, f"a cone of radius {radius} and height {height}", "positive numbers")
        n = 32
        around = np.arange(n) * 2 * np.pi / n
        base = np.stack([radius * np.cos(around), radius * np.sin(around), np.full(n, -height / 2)], axis=1)
        points = np.concatenate([base, [[0, 0, height / 2], [0, 0, -height / 2]]])
        order = {"X": (2, 0, 1), "Y": (1, 2, 0), "Z": (0, 1, 2)}[v.axis(prim, cone.GetAxisAttr())]
        faces = [f for k in range(n) for f in ((k, (k + 1) % n, n), ((k + 1) % n, k, n + 1))]
        return self._keep(prim, points[:, order] * scale, np.array(faces))

    def _triangles(self, prim: Usd.Prim, scale: Array) -> tuple[Array, Any]:
        mesh, v = UsdGeom.Mesh(prim), self.values
        raw = v.array(prim, mesh.GetPointsAttr(), 3)
        points = np.zeros((0, 3)) if raw is None else raw * scale
        faces_of = (mesh.GetFaceVertexCountsAttr(), mesh.GetFaceVertexIndicesAttr())
        counts, indices = (
            np.zeros(0, np.int64) if (x := v.array(prim, a, kind=np.int64)) is None else x for a in faces_of
        )
        if len(counts) and (counts.min() < 0 or counts.sum() != len(indices)):
            raise v.bad(prim, f"{len(counts)} faces ask for {counts.sum()} of {len(indices)} indices", "as many")
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(points)):
            raise v.bad(prim, f"a face names point {indices.max()} of {len(points)}", f"0 to {len(points) - 1}")
        faces = fans(counts, indices)
        left = mesh.GetOrientationAttr().Get() == UsdGeom.Tokens.leftHanded
        if left != bool(np.prod(scale) < 0):
            faces = faces[:, ::-1]
        return points, faces

    def _keep(self, prim: Usd.Prim, points: Array, faces: Any) -> dict[str, Any] | None:
        own = self.values.get(prim, "flyball:mesh", "String") or str(prim.GetName())
        hull = self.values.get(prim, "newton:maxHullVertices", "Int")
        small = points.astype(np.float32)
        key = hashlib.sha256(small.tobytes() + faces.astype(np.int32).tobytes() + str(hull).encode()).hexdigest()
        size = float(np.ptp(points, axis=0).max())
        rank = np.linalg.matrix_rank(points - points.mean(axis=0), tol=1e-6 * size) if size > 0 else 0
        # what is flat can be seen, and touched by nothing
        if rank < 2 or (rank < 3 and prim.HasAPI(UsdPhysics.CollisionAPI)):
            return None
        name = self._known.get(key)
        if name is None:
            name, n = own, 2
            while name in self.entries:
                name, n = f"{own}_{n}", n + 1
            self._known[key] = name
            file = f"{key[:16]}.obj"
            self.files[file] = obj(small.astype(float), faces)
            entry = {"tag": "mesh", "file": file}
            volume = _volume(points, faces)
            if hull is not None and hull >= 4:
                entry["maxhullvert"] = word(hull)
            if rank < 3:
                entry["inertia"], volume = "shell", 0.0
            elif volume < FLAT * size**3:
                # open or inside-out: its volume says nothing, its hull's does
                entry["inertia"] = "convex"
                volume = float(np.prod(np.ptp(points, axis=0))) / 2
            self.entries[name] = entry
            self.volumes[name] = volume
        return {"type": "mesh", "mesh": name}

    def _field(self, prim: Usd.Prim, points: Array, grid: Any) -> dict[str, Any]:
        size = self.values.get(prim, "flyball:hfield:size", "DoubleArray")
        name = self.values.get(prim, "flyball:hfield:name", "String") or str(prim.GetName())
        if len(grid) != 2 or size is None or len(size) != 4 or grid.min() < 2 or int(grid.prod()) != len(points):
            raise self.values.bad(prim, "its points are not the height field it says", "rows times columns")
        if name not in self.entries:
            heights = points[:, 2] / size[2] if size[2] else np.zeros(len(points))
            # MJCF lists rows from the far edge to the near one
            flat = heights.reshape(grid)[::-1].ravel()
            self.entries[name] = {
                "tag": "hfield",
                "nrow": word(grid[0]),
                "ncol": word(grid[1]),
                "size": word(size),
                "elevation": word(flat),
            }
        return {"type": "hfield", "hfield": name}


def fans(counts: Any, indices: Any) -> Any:
    """Triangles of polygons, (n, 3)."""
    if not len(counts):
        return np.zeros((0, 3), np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])
    if np.all(counts == 3):
        return indices.reshape(-1, 3)
    parts = np.repeat(np.maximum(counts - 2, 0), 1)
    first = np.repeat(starts, parts)
    step = np.arange(int(parts.sum())) - np.repeat(np.cumsum(parts) - parts, parts)
    return np.stack([indices[first], indices[first + step + 1], indices[first + step + 2]], axis=1)


def _volume(points: Array, faces: Any) -> float:
    a, b, c = (points[faces[:, k]] for k in range(3))
    return float(np.einsum("ij,ij->i", a, np.cross(b, c)).sum() / 6)


def volume_of(shape: dict[str, Any], meshes: Meshes) -> float:
    """Volume of a geom [m^3]; 0 for planes and height fields."""
    kind = shape["type"]
    if kind == "mesh":
        return meshes.volumes[shape["mesh"]]
    size = np.ravel(np.asarray(shape.get("size", [0.0]), float))
    ball = 4 / 3 * np.pi
    with np.errstate(over="ignore"):  # infinite: the caller refuses it
        if kind == "sphere":
            return float(ball * size[0] ** 3)
        if kind == "box":
            return float(8 * np.prod(size))
        if kind == "ellipsoid":
            return float(ball * np.prod(size))
        if kind in ("capsule", "cylinder"):
            tube = 2 * np.pi * size[0] ** 2 * size[1]
            return float(tube + (ball * size[0] ** 3 if kind == "capsule" else 0.0))
    return 0.0
