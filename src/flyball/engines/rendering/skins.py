"""What is drawn of cloth, soft bodies and grains.

In: a scene's deformables, positions of their points in n worlds. Out: triangles that every renderer of MuJoCo models
draws: each deformable becomes a flex of the model that nothing moves but the positions given. Cloth is its own mesh, a
soft body its outer faces, a grain a sphere of 80 triangles (20 where there are very many) as wide as its spacing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing
from flyball.scenes.deformable import KINDS, Cloth, Deformable, Soft

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

ANCHOR = "flyball:anchor"
"""Name of a body without mass that is added to a model with deformables."""
_COLOURS = ((0.16, 0.45, 0.70, 1), (0.75, 0.40, 0.18, 1), (0.30, 0.58, 0.31, 1), (0.58, 0.35, 0.62, 1))
_MANY = 1000
"""Grains above which spheres are coarse."""
_THIN = 1e-5
"""Half thickness that the model gives to triangles [m]."""


@dataclass(frozen=True)
class Skin:
    """A deformable as triangles.

    Attributes:
      read: the field that says where its points are, e.g. ``cloth:flag.positions``.
      rest: its points as authored, (k, 3) [m].
      triangles: (t, 3).
      ball: corners of a grain about its centre, (v, 3) [m]; None: points are corners.
    """

    read: str
    rest: Array
    triangles: Indices
    ball: Array | None = None

    @property
    def name(self) -> str:
        """``cloth:flag``."""
        return self.read.rpartition(".")[0]

    def corners(self, points: Array) -> Array:
        """Corners of the triangles, (..., v, 3), of points (..., k, 3)."""
        if self.ball is None:
            return points
        return (points[..., :, None, :] + self.ball).reshape(*points.shape[:-2], -1, 3)


def skin(of: Deformable) -> Skin:
    """What is drawn of it."""
    read = f"{KINDS[type(of)]}:{of.name}.positions"
    if isinstance(of, Cloth):
        return Skin(read, *of.mesh())
    if isinstance(of, Soft):
        points, tets = of.mesh()
        return Skin(read, points, _outer(tets))
    centres = of.points()
    ball, faces = _sphere(finer=len(centres) <= _MANY)
    return Skin(read, centres, _repeated(faces, len(ball), len(centres)), ball * of.spacing / 2)


class Skins:
    """All deformables of a scene.

    Args:
      deformables: of the scene.
    """

    def __init__(self, deformables: Sequence[Deformable]) -> None:
        self.skins = tuple(skin(d) for d in deformables)
        self._corners: list[Array] = []
        self._rows: list[slice] = []

    @property
    def reads(self) -> tuple[str, ...]:
        """Fields that say where everything is."""
        return tuple(s.read for s in self.skins)

    def add(self, spec: mujoco.MjSpec) -> None:
        """Make them part of a model."""
        if self.skins:  # on two bodies that never move: MuJoCo Warp takes no flex of a single one
            spec.worldbody.add_body(name=ANCHOR)
        for k, s in enumerate(self.skins):
            flex = spec.add_flex(
                name=s.name,
                dim=2,
                radius=_THIN,
                contype=0,
                conaffinity=0,
                rgba=_COLOURS[k % len(_COLOURS)],
                edgedamping=1.0,  # never stepped; MuJoCo warns of one without forces
            )
            corners = s.corners(s.rest)
            flex.vert, flex.vertbody = corners.ravel(), [ANCHOR, *["world"] * (len(corners) - 1)]
            flex.elem = s.triangles.ravel().tolist()

    def find(self, model: mujoco.MjModel) -> None:
        """Where they are in the compiled model."""
        for s in self.skins:
            i = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_FLEX, s.name)
            first = int(model.flex_vertadr[i])
            self._rows.append(slice(first, first + int(model.flex_vertnum[i])))

    def load(self, particles: Mapping[str, Array] | None, n: int) -> None:
        """Take positions of n worlds, read -> (n, k, 3) [m]; those left out lie as authored.

        Raises:
          Missing: a deformable that the scene lacks. InputError: of another size, or not finite.
        """
        given = dict(particles or {})
        self._corners = []
        for s in self.skins:
            x = np.asarray(given.pop(s.read, np.broadcast_to(s.rest, (n, *s.rest.shape))), float)
            if x.shape != (n, *s.rest.shape) or not np.isfinite(x).all():
                allowed = f"finite, {(n, *s.rest.shape)}"
                raise InputError(f"{s.read} of shape {x.shape}", where="rendering", allowed=allowed)
            self._corners.append(s.corners(x))
        for name in given:
            raise Missing.named("deformable", name, self.reads, where="rendering")

    def put(self, data: mujoco.MjData, i: int) -> None:
        """World i's points into MuJoCo's data."""
        for rows, x in zip(self._rows, self._corners, strict=True):
            data.flexvert_xpos[rows] = x[i]

    def bounds(self) -> list[tuple[Array, Array]]:
        """Lowest and highest corner in the first world."""
        return [(x[0].min(axis=0), x[0].max(axis=0)) for x in self._corners]


def _outer(tets: Indices) -> Indices:
    """Faces that belong to one tetrahedron only, seen from outside counterclockwise."""
    faces = np.concatenate([tets[:, [1, 2, 3]], tets[:, [0, 3, 2]], tets[:, [0, 1, 3]], tets[:, [0, 2, 1]]])
    _, first, count = np.unique(np.sort(faces, axis=1), axis=0, return_index=True, return_counts=True)
    return np.asarray(faces[np.sort(first[count == 1])])


def _sphere(finer: bool) -> tuple[Array, Indices]:
    """An icosahedron of radius 1, each face cut in four where it is to be finer."""
    g = (1 + 5**0.5) / 2
    corners = np.array([[0, a, b] for a in (-1, 1) for b in (-g, g)])
    points = np.concatenate([corners, np.roll(corners, 1, axis=1), np.roll(corners, 2, axis=1)])
    apart = np.linalg.norm(points[:, None] - points, axis=2)
    near = (apart > 0) & (apart < 2.1)
    faces = [
        (i, j, k) for i in range(12) for j in range(i) for k in range(j) if near[i, j] and near[j, k] and near[i, k]
    ]
    points, triangles = points / np.linalg.norm(points[0]), np.array(faces)
    if finer:
        edges = np.sort(np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]]), axis=1)
        pairs, of = np.unique(edges, axis=0, return_inverse=True)
        a, b, c = triangles.T
        ab, bc, ca = (of.reshape(3, -1) + len(points)).astype(int)
        middle = points[pairs].mean(axis=1)
        points = np.concatenate([points, middle / np.linalg.norm(middle, axis=1, keepdims=True)])
        triangles = np.concatenate([np.stack(t, 1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    p = points[triangles]
    inward = (np.cross(p[:, 1] - p[:, 0], p[:, 2] - p[:, 0]) * p[:, 0]).sum(axis=1) < 0
    triangles[inward] = triangles[inward][:, ::-1]
    return points, triangles


def _repeated(triangles: Indices, corners: int, times: int) -> Indices:
    """The same triangles, over and over, each time on corners of their own."""
    return (triangles + corners * np.arange(times)[:, None, None]).reshape(-1, 3)
