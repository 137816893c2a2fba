"""What ``placement`` must solve: where things may lie, what holds, by how much it does not, and where to move them.

In: objects, relations, world numbers. Out: drawn states, the excess of each relation in a state, poses.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing
from flyball.scenes import portable, streams
from flyball.scenes.footprints import Box, Placed, Shape, containment, gap, length, unit
from flyball.scenes.portable import Array
from flyball.scenes.relations import DIRECTIONS, EVERYTHING, Relation

FLOOR = "floor"
EXACT = 1e-4
"""Within this exact gaps [m] and headings [rad] hold."""
_SLACK = 1e-5
"""Projections go this much further than they must [m], to arrive."""

Reach = Callable[[Array], NDArray[np.bool_]]
"""Poses x, y, z [m], yaw [rad] of an object's origin, (m, 4) -> which are within reach, (m,)."""


@dataclass(frozen=True)
class Object:
    """Something to place, or that stands already.

    Attributes:
      name: of the object.
      shape: its outer shape.
      pose: x, y, z [m], yaw [rad] of its origin when it stands already; None: to be placed.
      inner: the space inside a container, in which others may lie; None: it is none.
      yaw: range of yaws to draw from [rad].
    """

    name: str
    shape: Shape
    pose: tuple[float, float, float, float] | None = None
    inner: Shape | None = None
    yaw: tuple[float, float] = (-float(np.pi), float(np.pi))


@dataclass
class State:
    """Footprint centres and headings of all objects, (n, k) each."""

    x: Array
    y: Array
    c: Array
    s: Array

    def rows(self, at: NDArray) -> State:
        return State(self.x[at], self.y[at], self.c[at], self.s[at])


class Problem:
    """The objects and relations of some worlds.

    Args:
      objects: free ones and those that stand already.
      given: relations as told; ``rules`` has also those that go without saying.
      number: world numbers, (n,).
      region: x and y ranges of the floor [m].
      scale: sizes relative to the given shapes, object -> (n,).
      reach: robot -> what it reaches.
      seed: of the run.

    Raises:
      InputError, Missing: unknown names, something on or inside two things, a circle of supports.
    """

    def __init__(
        self,
        objects: Sequence[Object],
        given: tuple[Relation, ...],
        number: NDArray[np.int64],
        region: tuple[tuple[float, float], tuple[float, float]],
        scale: Mapping[str, Array],
        reach: Mapping[str, Reach],
        seed: int,
    ) -> None:
        (x0, x1), (y0, y1) = region
        floor = Object(
            FLOOR, Box(((x1 - x0) / 2, (y1 - y0) / 2, 0.5), (0.0, 0.0, -0.5)), ((x0 + x1) / 2, (y0 + y1) / 2, 0.0, 0.0)
        )
        self.objects = [*objects, floor]
        self.number, self.reach, self.seed = number, reach, seed
        names = [o.name for o in self.objects]
        self.at = {name: i for i, name in enumerate(names)}
        if len(self.at) < len(names):
            raise InputError(f"two objects are named {max(names, key=names.count)!r}", where="placement")
        self.free = [i for i, o in enumerate(self.objects) if o.pose is None]
        self.free_names = tuple(names[i] for i in self.free)
        for name in scale:
            self._index(name)
        n, k = len(number), len(names)
        factor = np.ones((n, k))
        for name, x in scale.items():
            factor[:, self.at[name]] = x
        if not np.all(np.isfinite(factor) & (factor > 0)):
            raise InputError("a scale is not > 0", where="placement")
        self.half = np.stack([np.outer(np.ones(n), o.shape.half) for o in self.objects], axis=1) * factor[..., None]
        self.offset = np.stack([np.outer(np.ones(n), o.shape.centre) for o in self.objects], axis=1) * factor[..., None]
        self.factor = factor
        self._supports(given)
        self._heights()
        self.rules = self._complete(given)

    def _index(self, name: str, where: str = "placement") -> int:
        if name not in self.at:
            raise Missing.named("object", name, self.at, where=where)
        return self.at[name]

    def _supports(self, given: tuple[Relation, ...]) -> None:
        """What each object stands on, and whether it is inside it."""
        self.support: dict[int, tuple[int, bool]] = {}
        for r in given:
            i = self._index(r.item, f"relation {r}")
            if r.kind == "reachable by":
                if r.other not in self.reach:
                    raise Missing.named("robot", r.other, self.reach, where=f"relation {r}")
                continue
            j = self._index(r.other, f"relation {r}") if r.other != EVERYTHING else -1
            if r.kind in ("on", "inside"):
                if i in self.support:
                    raise InputError(f"{r.item} stands on two things", where=f"relation {r}", allowed="one support")
                if self.objects[i].pose is not None:
                    raise InputError(f"{r.item} stands already", where=f"relation {r}", allowed="a free object")
                if r.kind == "inside" and self.objects[j].inner is None:
                    raise InputError(
                        f"{r.other} is no container", where=f"relation {r}", allowed="an object with inner"
                    )
                self.support[i] = (j, r.kind == "inside")
        self.unsupported = [i for i in self.free if i not in self.support]
        for i in self.unsupported:
            self.support[i] = (self.at[FLOOR], False)

    def _heights(self) -> None:
        """Heights of all objects, which follow from what they stand on, and an order in which supports come first."""
        n = len(self.number)
        self.bottom = np.zeros((n, len(self.objects)))
        done = [i for i, o in enumerate(self.objects) if o.pose is not None]
        for i in done:
            pose = self.objects[i].pose
            assert pose is not None
            self.bottom[:, i] = pose[2] + self.offset[:, i, 2] - self.half[:, i, 2]
        self.order: list[int] = []
        while len(self.order) < len(self.free):
            ready = [i for i in self.free if i not in done and self.support[i][0] in done]
            if not ready:
                left = ", ".join(self.objects[i].name for i in self.free if i not in done)
                raise InputError(f"{left} stand on each other in a circle", where="placement")
            for i in ready:
                j, inside = self.support[i]
                inner = self.objects[j].inner
                if inside and inner is not None:
                    base = self.bottom[:, j] + self.half[:, j, 2] - self.offset[:, j, 2]  # z of its origin
                    self.bottom[:, i] = base + (inner.centre[2] - inner.half[2]) * self.factor[:, j]
                else:
                    self.bottom[:, i] = self.bottom[:, j] + 2 * self.half[:, j, 2]
            done += ready
            self.order += ready
        self.top = self.bottom + 2 * self.half[:, :, 2]

    def _complete(self, given: tuple[Relation, ...]) -> tuple[Relation, ...]:
        """The relations with what goes without saying: the floor, and that nothing overlaps."""
        names = [o.name for o in self.objects]
        out: list[Relation] = []
        for r in given:
            if r.other != EVERYTHING:
                out.append(r)
                continue
            under, i = {self.at[FLOOR], self.at[r.item]}, self.at[r.item]
            while i in self.support:
                i = self.support[i][0]
                under.add(i)
            upon = {names[k] for k, (j, _) in self.support.items() if j == self.at[r.item]}
            out += [
                Relation(r.item, "clear of", x, r.distance) for x in names if self.at[x] not in under and x not in upon
            ]
        out += [Relation(names[i], "on", FLOOR) for i in self.unsupported]
        said = {frozenset((r.item, r.other)) for r in out if r.kind == "clear of"}
        for a, i in enumerate(self.free):
            for j in range(len(names)):
                pair = frozenset((names[i], names[j]))
                if j in self.free[: a + 1] or j == i or pair in said or names[j] == FLOOR:
                    continue
                apart = (self.bottom[:, i] >= self.top[:, j] - 1e-9) | (self.bottom[:, j] >= self.top[:, i] - 1e-9)
                if not apart.all() and self.support[i] != (j, True) and self.support.get(j) != (i, True):
                    out.append(Relation(names[i], "clear of", names[j]))
        return tuple(dict.fromkeys(out))

    # one attempt ------------------------------------------------------------------------------------------

    def _region(self, state: State, i: int, rows: NDArray) -> Placed:
        """Where object i may lie: the top of what it stands on, or the floor inside it."""
        j, inside = self.support[i]
        inner = self.objects[j].inner
        if not inside or inner is None:
            return self._placed(state, j, rows)
        p, f = self._placed(state, j, rows), self.factor[rows, j]
        outer = self.objects[j].shape.centre
        dx, dy = p.turned((inner.centre[0] - outer[0]) * f, (inner.centre[1] - outer[1]) * f)
        hx, hy = inner.half[0] * f, inner.half[1] * f
        return Placed(p.x + dx, p.y + dy, p.c, p.s, hx, hy, not isinstance(inner, Box))

    def _placed(self, state: State, i: int, rows: NDArray) -> Placed:
        h = self.half[rows, i]
        rounded = not isinstance(self.objects[i].shape, Box)
        return Placed(state.x[:, i], state.y[:, i], state.c[:, i], state.s[:, i], h[:, 0], h[:, 1], rounded)

    def start(self, rows: NDArray, attempt: int) -> State:
        """Positions within the supports and yaws, drawn from each object's own streams."""
        shape, number = (len(rows), len(self.objects)), self.number[rows]
        state = State(np.zeros(shape), np.zeros(shape), np.ones(shape), np.zeros(shape))
        for i, o in enumerate(self.objects):
            if o.pose is not None:
                s, c = portable.sincos(np.full(len(rows), o.pose[3]))
                off = self.offset[rows, i]
                state.x[:, i] = o.pose[0] + c * off[:, 0] - s * off[:, 1]
                state.y[:, i] = o.pose[1] + s * off[:, 0] + c * off[:, 1]
                state.c[:, i], state.s[:, i] = c, s
        for i in self.order:
            o = self.objects[i]
            u = [streams.uniform(streams.words(self.seed, f"place:{o.name}.{a}", number, attempt)) for a in "xyw"]
            state.s[:, i], state.c[:, i] = portable.sincos(o.yaw[0] + (o.yaw[1] - o.yaw[0]) * u[2])
            region, h = self._region(state, i, rows), self.half[rows, i]
            inset = np.minimum(h[:, 0], h[:, 1])
            if region.round:
                r = np.maximum(region.hx - inset, 0) * np.sqrt(u[0])
                s, c = portable.sincos(2 * np.pi * u[1])
                x, y = r * c, r * s
            else:
                x = np.maximum(region.hx - inset, 0) * (2 * u[0] - 1)
                y = np.maximum(region.hy - inset, 0) * (2 * u[1] - 1)
            dx, dy = region.turned(x, y)
            state.x[:, i], state.y[:, i] = region.x + dx, region.y + dy
        return state

    def apply(self, r: Relation, state: State, rows: NDArray, move: bool) -> Array:
        """How far a relation is from holding, in units of its tolerance-free excess [m], (n,); moves things if asked.

        Gauss-Seidel: the state changes in place, each free partner taking its share.
        """
        i = self.at[r.item]
        a = self._placed(state, i, rows)
        if r.kind == "reachable by":
            pose = self._pose(state, i, rows)
            yaw = np.arctan2(state.s[:, i], state.c[:, i])
            good = np.asarray(self.reach[r.other](np.column_stack([pose[:, :3], yaw])), bool)
            return np.where(good, 0.0, np.inf)
        j = self.at[r.other]
        if r.kind in ("on", "inside"):
            excess, sx, sy = containment(a, self._region(state, i, rows), r.distance + (_SLACK if move else 0.0))
            if move:
                state.x[:, i] += sx
                state.y[:, i] += sy
            return excess
        b = self._placed(state, j, rows)
        if r.kind == "facing":
            ux, uy = unit(b.x - a.x, b.y - a.y)
            off = length(a.c - ux, a.s - uy) - EXACT
            if move and i in self.free:
                state.c[:, i], state.s[:, i] = ux, uy
            return off
        if r.kind == "near":
            off = length(a.x - b.x, a.y - b.y) - r.distance
            ux, uy = unit(a.x - b.x, a.y - b.y)
            self._push(state, i, j, -(off + _SLACK) * (off > 0), ux, uy, move)
            return off
        if r.kind == "clear of":
            upright = np.maximum(self.bottom[rows, i] - self.top[rows, j], self.bottom[rows, j] - self.top[rows, i])
            over = upright >= r.distance - 1e-9  # one above the other
            d, nx, ny = gap(a, b, r.distance)
            off = np.where(over, -np.inf, r.distance - d)
            self._push(state, i, j, (off + _SLACK) * (off > 0), nx, ny, move)
            return off
        return self._beside(r, state, (i, j), (a, b), move)

    def _beside(self, r: Relation, state: State, at: tuple[int, int], of: tuple[Placed, Placed], move: bool) -> Array:
        """As ``apply``, of a relation with a direction."""
        (i, j), (a, b) = at, of
        ax, ay = DIRECTIONS[r.kind]
        between = (a.x - b.x) * ax + (a.y - b.y) * ay - a.extent(ax, ay) - b.extent(ax, ay)
        lacks = r.distance - between
        if not r.exact:
            self._push(state, i, j, (lacks + _SLACK) * (lacks > 0), ax, ay, move)
            return lacks
        aside = (a.x - b.x) * abs(ay) + (a.y - b.y) * abs(ax)
        across = np.abs(aside) - a.extent(ay, ax) - b.extent(ay, ax)
        self._push(state, i, j, lacks, ax, ay, move)
        back = -np.where(aside < 0, -1.0, 1.0) * (across + _SLACK) * (across > 0)
        self._push(state, i, j, back, abs(ay), abs(ax), move)
        return np.maximum(np.abs(lacks) - EXACT, across)

    def _push(self, state: State, i: int, j: int, by: Array, nx: Array | float, ny: Array | float, move: bool) -> None:
        """Move i away from j along n; each free partner takes half, or the only free one all."""
        if not move:
            return
        both = [k for k in (i, j) if k in self.free]
        for k in both:
            sign = (1.0 if k == i else -1.0) / len(both)
            state.x[:, k] += sign * by * nx
            state.y[:, k] += sign * by * ny

    # results ----------------------------------------------------------------------------------------------

    def _pose(self, state: State, i: int, rows: NDArray) -> Array:
        """Pose of object i's origin, (n, 7)."""
        c, s, off = state.c[:, i], state.s[:, i], self.offset[rows, i]
        x = state.x[:, i] - (c * off[:, 0] - s * off[:, 1])
        y = state.y[:, i] - (s * off[:, 0] + c * off[:, 1])
        z = self.bottom[rows, i] + self.half[rows, i, 2] - off[:, 2]
        # half the angle, without trigonometry
        w, q = np.sqrt(np.maximum(1 + c, 0) / 2), np.sqrt(np.maximum(1 - c, 0) / 2) * np.where(s < 0, -1.0, 1.0)
        zero = np.zeros(len(rows))
        return np.stack([x, y, z, w, zero, zero, q], axis=1)

    def poses(self, state: State, rows: NDArray | None = None) -> Array:
        """Poses of the free objects, (n, k, 7)."""
        at = np.arange(len(self.number)) if rows is None else rows
        if not self.free:
            return np.zeros((len(at), 0, 7))
        return np.stack([self._pose(state, i, at) for i in self.free], axis=1)
