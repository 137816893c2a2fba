"""What a scene has besides rigid bodies: cloth, soft bodies, grains.

In: sizes and material constants in SI units. Out: points, triangles or tetrahedra as arrays, which an engine takes as
they are, so that a cloth is the same mesh everywhere. An engine that lacks a kind refuses the scene (``Unsupported``).

    Scene("flag", "<mujoco/>", (), deformables=(Cloth("flag", size=(0.3, 0.2), cells=(6, 4), pinned="top"),))
    simulation.read(["cloth:flag.positions"])["cloth:flag.positions"]     # (n, 35, 3) [m]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_CUBE = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)])
# five tetrahedra in a cube, with positive volume; every second cube is mirrored so that the faces match
_FIVE = np.array([[0, 1, 3, 5], [0, 3, 2, 6], [0, 5, 6, 4], [3, 6, 5, 7], [0, 3, 6, 5]])


@dataclass(frozen=True)
class Cloth:
    """A rectangular sheet. Lies in its own x-y plane, one corner at ``position``.

    Attributes:
      name: for reads, ``cloth:NAME.positions|velocities``.
      position: of its first corner [m].
      quat: orientation, w x y z.
      size: [m].
      cells: along x and y; points are one more.
      density: [kg/m^2].
      stiffness: in-plane, Young's modulus times thickness [N/m]; Poisson's ratio is 1/4.
      bending: [N m].
      damping: of stretching, as a time over which a strain rate counts as strain [s].
      radius: distance that its points keep from other things [m].
      pinned: points that stay where they are: those with the greatest y, or the two corners there.
    """

    name: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    size: tuple[float, float] = (0.2, 0.2)
    cells: tuple[int, int] = (4, 4)
    density: float = 0.2
    stiffness: float = 500.0
    bending: float = 1e-4
    damping: float = 1e-3
    radius: float = 0.005
    pinned: Literal["none", "top", "corners"] = "none"

    def __post_init__(self) -> None:
        _check(self.name, self.size, self.cells, self.density, self.stiffness, self.radius)

    def mesh(self) -> tuple[Array, Indices]:
        """Points in the world (k, 3) [m], x running fastest, and triangles (t, 3)."""
        nx, ny = self.cells
        points = _grid((self.size[0], self.size[1], 0.0), (nx, ny, 0))
        corner = (np.arange(ny)[:, None] * (nx + 1) + np.arange(nx)).ravel()
        a, b, c, d = corner, corner + 1, corner + nx + 2, corner + nx + 1
        triangles = np.concatenate([np.stack([a, b, d], 1), np.stack([b, c, d], 1)])
        return _place(points, self.position, self.quat), triangles

    def fixed(self) -> Indices:
        """Indices of the pinned points."""
        nx, ny = self.cells
        top = np.arange((nx + 1) * ny, (nx + 1) * (ny + 1))
        return {"none": top[:0], "top": top, "corners": top[[0, -1]]}[self.pinned]


@dataclass(frozen=True)
class Soft:
    """An elastic block (Neo-Hookean), one corner at ``position``.

    Attributes:
      name: for reads, ``soft:NAME.positions|velocities``.
      position: of its lowest corner [m].
      quat: orientation, w x y z.
      size: [m].
      cells: along x, y, z; points are one more, every cell has five tetrahedra.
      density: [kg/m^3].
      young: Young's modulus [Pa].
      poisson: Poisson's ratio, below 1/2.
      damping: of the strain rate [Pa s].
      radius: distance that its points keep from other things [m].
      pinned: points that stay where they are: those with the least z.
    """

    name: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    size: tuple[float, float, float] = (0.1, 0.1, 0.1)
    cells: tuple[int, int, int] = (2, 2, 2)
    density: float = 1000.0
    young: float = 5e4
    poisson: float = 0.25
    damping: float = 10.0
    radius: float = 0.005
    pinned: Literal["none", "bottom"] = "none"

    def __post_init__(self) -> None:
        _check(self.name, self.size, self.cells, self.density, self.young, self.radius)
        if not 0 <= self.poisson < 0.5:
            raise InputError(f"Poisson's ratio {self.poisson:g}", where=f"soft body {self.name}", allowed="[0, 0.5)")

    @property
    def lame(self) -> tuple[float, float]:
        """Lame's constants mu and lambda [Pa]."""
        e, nu = self.young, self.poisson
        return e / (2 * (1 + nu)), e * nu / ((1 + nu) * (1 - 2 * nu))

    def mesh(self) -> tuple[Array, Indices]:
        """Points in the world (k, 3) [m], x running fastest, and tetrahedra (t, 4) of positive volume."""
        nx, ny, nz = self.cells
        points = _grid(self.size, self.cells)
        tets = []
        for z, y, x in np.ndindex(nz, ny, nx):
            corners = _CUBE.copy()
            odd = (x + y + z) % 2 == 1
            if odd:
                corners[:, 0] = 1 - corners[:, 0]
            at = corners + np.array([x, y, z])
            index = (at[:, 2] * (ny + 1) + at[:, 1]) * (nx + 1) + at[:, 0]
            five = index[_FIVE]
            tets.append(five[:, [1, 0, 2, 3]] if odd else five)
        return _place(points, self.position, self.quat), np.concatenate(tets)

    def fixed(self) -> Indices:
        """Indices of the pinned points."""
        nx, ny, _ = self.cells
        return np.arange((nx + 1) * (ny + 1) if self.pinned == "bottom" else 0)


@dataclass(frozen=True)
class Granular:
    """A block of grains without cohesion (Drucker-Prager), one corner at ``position``, its edges along the axes.

    Attributes:
      name: for reads, ``granular:NAME.positions|velocities``.
      position: of its lowest corner [m].
      size: [m].
      spacing: between grains [m]; a grain stands for a cube of this size.
      density: bulk density [kg/m^3].
      friction: tangent of the angle of internal friction.
      jitter: share of the spacing by which grains are out of line, drawn from ``seed``.
      seed: of the jitter.
    """

    name: str
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    size: tuple[float, float, float] = (0.1, 0.1, 0.1)
    spacing: float = 0.02
    density: float = 1500.0
    friction: float = 0.6
    jitter: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.name, self.size, (), self.density, self.spacing)
        if not (self.friction >= 0 and 0 <= self.jitter < 1):
            raise InputError(f"friction {self.friction:g}, jitter {self.jitter:g}", where=f"grains {self.name}",
                             allowed="friction >= 0, jitter in [0, 1)")  # fmt: skip

    @property
    def cells(self) -> tuple[int, int, int]:
        """Grains along x, y, z."""
        x, y, z = (max(1, round(s / self.spacing)) for s in self.size)
        return x, y, z

    def points(self) -> Array:
        """Centres of the grains in the world (k, 3) [m]."""
        at = np.stack(np.meshgrid(*(np.arange(c) for c in self.cells), indexing="ij"), axis=-1).reshape(-1, 3)
        off = np.random.default_rng(self.seed).uniform(-0.5, 0.5, at.shape) * self.jitter
        return (at + 0.5 + off) * self.spacing + np.asarray(self.position, float)


Deformable = Cloth | Soft | Granular
KINDS: dict[type, str] = {Cloth: "cloth", Soft: "soft", Granular: "granular"}
"""How reads address them."""
RUN_NEXT = "flyball engines, which says who has cloth, soft bodies or grains"


def _grid(size: tuple[float, float, float], cells: tuple[int, int, int]) -> Array:
    axes = [np.linspace(0, s, c + 1) for s, c in zip(size, cells, strict=True)]
    z, y, x = np.meshgrid(*axes[::-1], indexing="ij")
    return np.stack([x.ravel(), y.ravel(), z.ravel()], axis=1)


def _place(points: Array, position: tuple[float, float, float], quat: tuple[float, float, float, float]) -> Array:
    q = np.asarray(quat, float)
    w, u = q[0] / np.linalg.norm(q), q[1:] / np.linalg.norm(q)
    return np.asarray(points + 2 * np.cross(u, np.cross(u, points) + w * points) + np.asarray(position, float))


def _check(name: str, size: tuple[float, ...], cells: tuple[int, ...], *positive: float) -> None:
    if not name or not all(np.isfinite(x) and x > 0 for x in (*size, *cells, *positive)):
        raise InputError(f"size {size}, cells {cells}, constants {positive}", where=f"deformable {name!r}",
                         allowed="a name; sizes, cells and constants above 0")  # fmt: skip
