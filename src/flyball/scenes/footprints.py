"""Footprints: what upright objects cover of the plane, and how far apart, inside or beside each other they are.

In: shapes and poses of n worlds. Out: distances and directions, elementwise over worlds, with operations that every
machine rounds alike. A pose here is the centre of the footprint and the cosine and sine of its yaw.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from flyball.base import InputError
from flyball.scenes.portable import Array


@dataclass(frozen=True)
class Box:
    """A box of half sizes (x, y, z) [m] around ``centre``, given from the object's origin [m]."""

    half: tuple[float, float, float]
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        h = np.asarray(self.half, float)
        if h.shape != (3,) or not np.all(np.isfinite(h)) or np.any(h <= 0) or np.shape(self.centre) != (3,):
            raise InputError(f"half sizes {self.half}", where="footprint", allowed="three numbers > 0 [m]")

    @classmethod
    def around(cls, points: ArrayLike) -> Box:
        """The box, along the object's own axes, around a convex mesh's vertices (v, 3) [m]."""
        p = np.asarray(points, float)
        if p.ndim != 2 or p.shape[1] != 3 or len(p) < 4 or not np.all(np.isfinite(p)):
            raise InputError(f"vertices of shape {p.shape}", where="footprint", allowed="finite, (v >= 4, 3)")
        low, high = p.min(axis=0), p.max(axis=0)
        half, centre = (high - low) / 2, (high + low) / 2
        return cls((half[0], half[1], half[2]), (centre[0], centre[1], centre[2]))


@dataclass(frozen=True)
class Cylinder:
    """An upright cylinder [m] around ``centre``, given from the object's origin [m]."""

    radius: float
    half_height: float
    centre: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if not (
            np.isfinite(self.radius) and self.radius > 0 and np.isfinite(self.half_height) and self.half_height > 0
        ):
            raise InputError(f"cylinder {self.radius} x {self.half_height}", where="footprint", allowed="> 0 [m]")

    @property
    def half(self) -> tuple[float, float, float]:
        """Half sizes of the box around it."""
        return (self.radius, self.radius, self.half_height)


Shape = Box | Cylinder


@dataclass
class Placed:
    """A footprint in n worlds.

    Attributes:
      x, y: its centre [m], (n,).
      c, s: cosine and sine of its yaw, (n,).
      hx, hy: half sizes along its own axes [m], (n,).
      round: a disc of radius ``hx``.
    """

    x: Array
    y: Array
    c: Array
    s: Array
    hx: Array
    hy: Array
    round: bool

    def extent(self, ax: Array | float, ay: Array | float) -> Array:
        """Half width along a unit direction."""
        if self.round:
            return self.hx * 1.0
        return np.abs(ax * self.c + ay * self.s) * self.hx + np.abs(ay * self.c - ax * self.s) * self.hy

    def into(self, x: Array, y: Array) -> tuple[Array, Array]:
        """World points in this footprint's frame."""
        dx, dy = x - self.x, y - self.y
        return dx * self.c + dy * self.s, dy * self.c - dx * self.s

    def turned(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Directions of this footprint's frame in the world's."""
        return x * self.c - y * self.s, x * self.s + y * self.c

    def corners(self) -> list[tuple[Array, Array]]:
        """The four corners in the world."""
        out = []
        for i, j in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            dx, dy = self.turned(i * self.hx, j * self.hy)
            out.append((self.x + dx, self.y + dy))
        return out


def length(x: Array, y: Array) -> Array:
    """Of vectors."""
    return np.sqrt(x * x + y * y)


def unit(x: Array, y: Array) -> tuple[Array, Array]:
    """Directions; along x where there is none."""
    d = length(x, y)
    some = d > 1e-12
    safe = np.where(some, d, 1.0)
    return np.where(some, x / safe, 1.0), np.where(some, y / safe, 0.0)


def gap(a: Placed, b: Placed, wanted: float) -> tuple[Array, Array, Array]:
    """Distance between two footprints and the direction from b to a; negative: how far they overlap.

    Exact for discs, and for boxes wherever it is less than ``wanted`` and not negative; elsewhere a lower bound, so
    that "at least wanted" is answered right.

    Returns:
      distance [m], direction x, direction y, (n,) each.
    """
    if a.round and b.round:
        nx, ny = unit(a.x - b.x, a.y - b.y)
        return length(a.x - b.x, a.y - b.y) - a.hx - b.hx, nx, ny
    if b.round:
        d, nx, ny = gap(b, a, wanted)
        return d, -nx, -ny
    if a.round:
        d, nx, ny = _to_box(a.x, a.y, b)
        return d - a.hx, nx, ny
    dx, dy = a.x - b.x, a.y - b.y
    bx, by = np.ones(dx.shape), np.zeros(dx.shape)
    best: Array = np.full(dx.shape, -np.inf)
    for ax, ay in ((a.c, a.s), (-a.s, a.c), (b.c, b.s), (-b.s, b.c)):  # separating axes
        along = ax * dx + ay * dy
        sep = np.abs(along) - a.extent(ax, ay) - b.extent(ax, ay)
        better, sign = sep > best, np.where(along < 0, -1.0, 1.0)
        best = np.where(better, sep, best)
        bx, by = np.where(better, sign * ax, bx), np.where(better, sign * ay, by)
    close = (best > 0) & (best < wanted)
    if close.any():  # corner to corner is farther than any axis tells
        ex, ey = bx, by
        exact: Array = np.full(dx.shape, np.inf)
        for one, other, side in ((a, b, 1.0), (b, a, -1.0)):
            for x, y in one.corners():
                d, nx, ny = _to_box(x, y, other)
                nearer = d < exact
                exact = np.where(nearer, d, exact)
                ex, ey = np.where(nearer, side * nx, ex), np.where(nearer, side * ny, ey)
        best, bx, by = np.where(close, exact, best), np.where(close, ex, bx), np.where(close, ey, by)
    return best, bx, by


def _to_box(x: Array, y: Array, box: Placed) -> tuple[Array, Array, Array]:
    """Distance of points from a box, negative inside, and the direction out of it."""
    qx, qy = box.into(x, y)
    ox, oy = qx - np.clip(qx, -box.hx, box.hx), qy - np.clip(qy, -box.hy, box.hy)
    outside = length(ox, oy)
    mx, my = box.hx - np.abs(qx), box.hy - np.abs(qy)  # depth inside
    sx, sy = np.where(qx < 0, -1.0, 1.0), np.where(qy < 0, -1.0, 1.0)
    ux, uy = unit(ox, oy)
    within = outside <= 1e-12
    nx = np.where(within, np.where(mx <= my, sx, 0.0), ux)
    ny = np.where(within, np.where(mx <= my, 0.0, sy), uy)
    nx, ny = box.turned(nx, ny)
    return np.where(within, -np.minimum(mx, my), outside), nx, ny


def containment(a: Placed, region: Placed, margin: float) -> tuple[Array, Array, Array]:
    """How far a sticks out of a region shrunk by a margin, and the shift that brings it back.

    Returns:
      excess [m] (<= 0: inside), shift x, shift y [m], (n,) each. Where a does not fit, the shift leads to the middle.
    """
    qx, qy = region.into(a.x, a.y)
    if not region.round:
        cx, cy = a.c * region.c + a.s * region.s, a.s * region.c - a.c * region.s  # a's heading in the region's frame
        ex = a.hx if a.round else np.abs(cx) * a.hx + np.abs(cy) * a.hy
        ey = a.hx if a.round else np.abs(cy) * a.hx + np.abs(cx) * a.hy
        fx, fy = region.hx - margin - ex, region.hy - margin - ey
        excess = np.maximum(np.abs(qx) - fx, np.abs(qy) - fy)
        tx = np.clip(qx, -np.maximum(fx, 0), np.maximum(fx, 0))
        ty = np.clip(qy, -np.maximum(fy, 0), np.maximum(fy, 0))
    else:
        d = length(qx, qy)
        if a.round:
            excess = d + a.hx - (region.hx - margin)
        else:
            ux, uy = a.into(region.x, region.y)
            excess = length(np.abs(ux) + a.hx, np.abs(uy) + a.hy) - (region.hx - margin)
        keep = np.clip(1 - np.maximum(excess, 0) / np.maximum(d, 1e-12), 0, 1)
        tx, ty = qx * keep, qy * keep
    sx, sy = region.turned(tx - qx, ty - qy)
    return excess, sx, sy
