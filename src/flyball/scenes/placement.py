"""Placement: where objects stand so that their relations hold, in n worlds at once, or why they cannot.

In: objects with footprints, relations, a run's seed and world numbers. Out: poses (n, k, 7), which worlds succeeded,
and for the others the smallest sets of relations that were found to exclude each other.

How. Each attempt draws positions within the supports and yaws from counter-based streams, so that a world's placement
depends on nothing but the seed and its number. Early attempts only bring what is exact into place (gaps, headings) and
reject the rest, which leaves the accepted positions spread as they were drawn; later attempts also push objects out of
each other and back into their supports, relation by relation (projection), until all hold. Objects stand upright; their
heights follow from what they stand on. Inequalities hold to 1e-9 m, exact gaps and headings to 1e-4 (m, rad).

A conflict is what this search could not satisfy: it is evidence, not proof, and says after how many attempts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing
from flyball.scenes import streams
from flyball.scenes.footprints import Box, Cylinder, Shape
from flyball.scenes.placement_problem import Object, Problem, Reach
from flyball.scenes.placement_search import Conflict, Search
from flyball.scenes.portable import Array
from flyball.scenes.relations import Relation, relations
from flyball.scenes.streams import Worlds

Settle = Callable[[Array, NDArray[np.int64]], Array]
"""Poses (m, k, 7) of the free objects and their world numbers -> how far each moved when let go [m], (m, k)."""


@dataclass(frozen=True)
class Placement:
    """Where things stand.

    Attributes:
      names: of the free objects, in order.
      poses: position [m] and quaternion (wxyz) of their origins, (n, k, 7); NaN where it failed.
      success: (n,).
      conflicts: why the others failed; empty when all succeeded.
      moved: how far each moved when let go [m], (n, k); NaN without a check by physics.
    """

    names: tuple[str, ...]
    poses: Array
    success: NDArray[np.bool_]
    conflicts: tuple[Conflict, ...] = ()
    moved: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def of(self, name: str) -> Array:
        """Poses of one object, (n, 7)."""
        if name not in self.names:
            raise Missing.named("placed object", name, self.names)
        return self.poses[:, self.names.index(name)]

    def require(self) -> Placement:
        """This, or an error that says why.

        Raises:
          InputError: some world failed; with the first conflict.
        """
        if self.success.all():
            return self
        what = str(self.conflicts[0]) if self.conflicts else "objects do not stay where they are put"
        raise InputError(
            f"{int((~self.success).sum())} of {len(self.success)} worlds failed: {what}", where="placement"
        )


def place(
    objects: Sequence[Object],
    rules: Iterable[str | Relation],
    run_seed: int,
    worlds: Worlds,
    *,
    region: tuple[tuple[float, float], tuple[float, float]] = ((-1.0, 1.0), (-1.0, 1.0)),
    scale: Mapping[str, Array] | None = None,
    reach: Mapping[str, Reach] | None = None,
    settle: Settle | None = None,
    settled_m: float = 0.005,
    attempts: int = 32,
    explain: bool = True,
) -> Placement:
    """Place objects in any worlds of a run.

    Args:
      objects: free ones and those that stand already.
      rules: relations, or sentences as ``relations.parse`` takes them. Unless they say otherwise, objects stand on the
        floor within ``region``; none overlap.
      run_seed, worlds: as for ``draw_worlds``.
      region: x and y ranges of the floor [m]; it lies at z = 0.
      scale: sizes relative to the given shape, object -> (n,).
      reach: robot -> what it reaches, for ``reachable by``.
      settle: lets objects go in a physics engine, see ``flyball.engines.settling``; worlds where one moves more than
        ``settled_m`` [m] are placed anew, three times at most.
      attempts: at most, per world.
      explain: find out which relations conflict where it failed.

    Raises:
      InputError, Missing: unknown names, something on or inside two things, a circle of supports.
    """
    number = streams.world_numbers(worlds)
    problem = Problem(objects, relations(rules), number, region, scale or {}, reach or {}, run_seed)
    search = Search(problem, attempts)
    state, ok, _ = search.solve(problem.rules, np.arange(len(number)))
    poses, solved = problem.poses(state), ok.copy()
    moved = np.full(poses.shape[:2], np.nan)
    for again in range(4 if settle else 0):
        rows = np.flatnonzero(ok & ~(np.nan_to_num(moved, nan=np.inf) <= settled_m).all(axis=1))
        if not len(rows):
            break
        if again:
            fresh, ok[rows], _ = search.solve(problem.rules, rows, first=again * attempts)
            poses[rows] = problem.poses(fresh, rows)
            rows = rows[ok[rows]]
        if settle is not None and len(rows):
            moved[rows] = np.asarray(settle(poses[rows], number[rows]), float).reshape(len(rows), -1)
    if settle is not None:
        ok &= (np.nan_to_num(moved, nan=np.inf) <= settled_m).all(axis=1)
    poses[~ok] = np.nan
    conflicts = search.conflicts(np.flatnonzero(~solved)) if explain and not solved.all() else ()
    return Placement(problem.free_names, poses, ok, conflicts, moved)


def reachable_by(
    inverse: Callable[[Array], Array],
    forward: Callable[[Array], Array],
    low: Sequence[float],
    high: Sequence[float],
    *,
    base: tuple[float, float, float] = (0.0, 0.0, 0.0),
    tolerance: float = 1e-3,
) -> Reach:
    """What a robot reaches, from its kinematics: where the inverse stays within the limits and leads to the pose.

    Args:
      inverse: x, y, z [m], yaw [rad], (m, 4) -> joint positions, (m, j).
      forward: joint positions -> a pose whose first four columns are x, y, z, yaw, (m, >= 4).
      low, high: joint limits.
      base: where the robot stands [m].
      tolerance: greatest distance of the pose reached from the one asked for [m].
    """

    def reach(pose: Array) -> NDArray[np.bool_]:
        local = np.asarray(pose, float).copy()
        local[:, :3] -= np.asarray(base)
        q = inverse(local)
        at = forward(q)
        within = np.all((q >= np.asarray(low)) & (q <= np.asarray(high)), axis=1)
        return within & (np.linalg.norm(at[:, :3] - local[:, :3], axis=1) <= tolerance)

    return reach


__all__ = [
    "Box", "Conflict", "Cylinder", "Object", "Placement", "Reach", "Relation", "Settle", "Shape", "place",
    "reachable_by",
]  # fmt: skip
