"""Which geoms touch, and how: MuJoCo's rules for pairs, in numbers of single shapes.

In: geoms. Out: coefficients of shapes that give MuJoCo's coefficient for every pair that may touch, or a refusal.
MuJoCo takes the greater of two, or that of the geom of higher priority; Newton's solvers mix the two of a pair. So a
geom that meets others on different terms is several shapes at one place, of which each meets its own partners only: one
for where its coefficient counts, one for where it does not, and one for each pair that is of a kind by itself.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import Unsupported
from flyball.engines.newton.solvers import Solver

Array = NDArray[np.float64]


def contact_pairs(m: mujoco.MjModel) -> list[tuple[int, int]]:
    """Geoms that MuJoCo lets touch: by bits, not within a body nor with a parent (the world aside), not excluded."""
    excluded = {(int(s) >> 16, int(s) & 0xFFFF) for s in m.exclude_signature}
    weld = m.body_weldid
    parent = weld[m.body_parentid[weld]]
    out = []
    for a in range(m.ngeom):
        for b in range(a + 1, m.ngeom):
            bits = (m.geom_contype[a] & m.geom_conaffinity[b]) | (m.geom_contype[b] & m.geom_conaffinity[a])
            i, j = int(m.geom_bodyid[a]), int(m.geom_bodyid[b])
            wi, wj = weld[i], weld[j]
            related = wi and wj and (wi == parent[j] or wj == parent[i])
            if bits and wi != wj and not related and not {(i, j), (j, i)} & excluded:
                out.append((a, b))
    return out


class Meetings(NamedTuple):
    """Shapes that stand for geoms, and which may touch.

    Attributes:
      geoms: geom of each shape; the first are the geoms themselves, in their order, then copies.
      pairs: shapes that may touch, (p, 2): one pair for each two geoms that may.
    """

    geoms: NDArray[np.int64]
    pairs: NDArray[np.int64]


def meetings(m: mujoco.MjModel, solver: Solver) -> Meetings:
    """Which shapes a model needs for its contacts to have their own coefficients."""
    geoms, known = list(range(m.ngeom)), dict[tuple[int, object], int]()

    def copy(geom: int, kind: object) -> int:
        if (geom, kind) not in known:
            known[geom, kind] = len(geoms)
            geoms.append(geom)
        return known[geom, kind]

    out = []
    for a, b in contact_pairs(m):
        first, second = (a, b) if m.geom_priority[a] >= m.geom_priority[b] else (b, a)
        alike = m.geom_priority[a] == m.geom_priority[b]
        if solver.friction != "mean" or (alike and m.geom_friction[a, 0] == m.geom_friction[b, 0]):
            out.append((a, b))
        else:
            out.append((copy(first, second if alike else "counts"), copy(second, "does not count")))
    return Meetings(np.asarray(geoms, np.int64), np.asarray(out, np.int64).reshape(-1, 2))


def friction(m: mujoco.MjModel, met: Meetings, sliding: Array, solver: Solver) -> Array:
    """Coefficients of the shapes from those of the geoms.

    Raises:
      Unsupported: no coefficients fit all pairs.
    """
    a, b = met.geoms[met.pairs].T
    rank = m.geom_priority
    want = np.where(
        rank[a] > rank[b], sliding[a], np.where(rank[b] > rank[a], sliding[b], np.maximum(sliding[a], sliding[b]))
    )
    want = np.where(np.maximum(m.geom_condim[a], m.geom_condim[b]) == 1, 0.0, want)
    return _of_shapes(m, met, np.asarray(sliding, float), want, solver, "friction")


def restitution(m: mujoco.MjModel, met: Meetings, own: Array, solver: Solver) -> Array:
    """Coefficients of the shapes; of two geoms the one that bounces more counts.

    Raises:
      Unsupported: no coefficients fit all pairs.
    """
    a, b = met.geoms[met.pairs].T
    return _of_shapes(m, met, np.asarray(own, float), np.maximum(own[a], own[b]), solver, "restitution")


def _of_shapes(m: mujoco.MjModel, met: Meetings, own: Array, want: Array, solver: Solver, what: str) -> Array:
    """What each shape must have so that the mix of two is what the pair should have."""
    from scipy.optimize import nnls

    a, b = met.pairs.T
    out = own[met.geoms]
    if not len(a):
        return out
    used = np.unique(np.concatenate([a, b]))
    i, j = np.searchsorted(used, a), np.searchsorted(used, b)
    matrix = np.zeros((len(a), len(used)))
    matrix[np.arange(len(a)), i] += 0.5
    matrix[np.arange(len(a)), j] += 0.5
    if solver.friction == "mean" or what == "restitution":
        found = np.linalg.lstsq(matrix, want, rcond=None)[0]  # evenly between two, where there is a choice
        if found.min() < -1e-9:
            found, _ = nnls(matrix, want)
        found = np.maximum(found, 0.0)
        made = matrix @ found
    else:
        found = np.exp(np.linalg.lstsq(matrix, np.log(np.maximum(want, 1e-9)), rcond=None)[0])
        made = np.sqrt(found[i] * found[j])
    off = np.abs(made - want)
    if off.max() > 1e-6:
        k = int(off.argmax())
        pair = met.geoms[met.pairs[k]]
        names = " and ".join(m.geom(int(g)).name or f"number {g}" for g in pair)
        raise Unsupported(
            f"{what} {want[k]:g} of the geoms {names}: the solver takes the {solver.friction} of two coefficients, "
            f"and none fit all pairs (nearest {made[k]:g})",
            where=f"engine newton-{solver.name}",
            run_next=f"give geoms that touch the same {what}, or the engine mujoco",
        )
    out[used] = found
    return out


def springs(b: Any, m: mujoco.MjModel, geoms: NDArray[np.int64], shapes: NDArray[np.int64]) -> None:
    """Contacts as springs that an explicit step bears.

    Four corners of a box, each with stiffness k, damping c and friction slope f, turn it with 12 times the rate c / m:
    c = m / T and f = m / 8 dt stay below the limit of 2 / dt for T >= 10 dt. k = m / T^2 makes it critically damped on
    four. T is MuJoCo's time constant of the contact; m the lightest of what may touch.

    Args:
      geoms: of each of the shapes.
    """
    pairs = contact_pairs(m)
    mass = np.where(m.body_weldid[m.geom_bodyid] == 0, np.inf, m.body_mass[m.geom_bodyid])
    lightest = mass.copy()
    for i, j in pairs:
        lightest[i], lightest[j] = min(lightest[i], mass[j]), min(lightest[j], mass[i])
    dt = m.opt.timestep
    for g, shape in zip(geoms, shapes, strict=True):
        if np.isfinite(lightest[g]):
            t = max(abs(float(m.geom_solref[g, 0])), 10 * dt)
            b.shape_material_ke[shape], b.shape_material_kd[shape] = lightest[g] / t**2, lightest[g] / t
            b.shape_material_kf[shape], b.shape_material_ka[shape] = lightest[g] / (8 * dt), 0.0
