"""Which shapes meet in a model, with which friction and softness, as Drake's geometry and filters.

In: a compiled MuJoCo model. Out: collision geometry on the bodies of a plant, and filters that let exactly the pairs
collide that MuJoCo would let collide. Drake gives a geometry one friction and combines two of them by a rule of its
own, MuJoCo has a friction for every pair; so a geometry that meets others with different frictions is registered once
for each, and only copies with the same friction meet. A pair's friction is thereby exact.

Softness is not: MuJoCo's ``solref`` is a stiffness per mass k, and a contact of impedance d yields under a load as if
it were k / (1 - d). Here it is a spring and a damper with that stiffness and the same damping ratio, for the mass that
the model has at its start (``body_invweight0``). A sphere or an ellipsoid touches in a point; boxes, cylinders,
capsules and meshes touch in a patch (hydroelastic), which in MuJoCo are up to four points.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, NamedTuple

import mujoco
import numpy as np
from pydrake.common.eigen_geometry import Quaternion
from pydrake.geometry import (
    AddCompliantHydroelasticProperties,
    AddContactMaterial,
    AddRigidHydroelasticProperties,
    Box,
    Capsule,
    CollisionFilterDeclaration,
    Convex,
    Cylinder,
    Ellipsoid,
    GeometrySet,
    HalfSpace,
    ProximityProperties,
    Sphere,
)
from pydrake.math import RigidTransform, RotationMatrix
from pydrake.multibody.plant import CoulombFriction

from flyball.base import Unsupported

_GEOM = mujoco.mjtGeom
_POINT = (_GEOM.mjGEOM_SPHERE, _GEOM.mjGEOM_ELLIPSOID)
_CORNERS = 4
"""Contact points of a face in MuJoCo: how much stiffer than a point a face is."""
_GRAVITY = 9.81
_RIGID = 1e12
"""Stiffness of what is fixed to the world [N/m]."""


class Surface(NamedTuple):
    """How a pair touches: sliding friction, natural frequency under load [1/s] and damping ratio."""

    friction: float
    frequency: float
    damping: float


class Pair(NamedTuple):
    """Two geoms that may collide."""

    first: int
    second: int
    surface: Surface


def find_pairs(m: Any, refuse: Callable[[str, str], None]) -> list[Pair]:
    """All pairs that may collide, by MuJoCo's rules: masks, same and neighbouring bodies, excludes, explicit pairs.

    Args:
      m: MjModel.
      refuse: told of what cannot be had, (feature, where).
    """
    if m.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_CONTACT:
        return []
    neighbours = not m.opt.disableflags & mujoco.mjtDisableBit.mjDSBL_FILTERPARENT
    excluded = {(int(s) >> 16, int(s) & 0xFFFF) for s in m.exclude_signature}
    explicit = {frozenset((int(a), int(b))): k for k, (a, b) in enumerate(zip(m.pair_geom1, m.pair_geom2, strict=True))}
    weld, bodies = m.body_weldid, m.geom_bodyid
    above = weld[m.body_parentid[weld]]
    out = []
    for a in range(m.ngeom):
        for b in range(a + 1, m.ngeom):
            k = explicit.get(frozenset((a, b)))
            if k is None:
                p, q = (int(bodies[g]) for g in (a, b))
                w, x = weld[p], weld[q]
                if not (m.geom_contype[a] & m.geom_conaffinity[b] or m.geom_contype[b] & m.geom_conaffinity[a]):
                    continue
                if w == x or (neighbours and w and x and (above[p] == x or above[q] == w)):
                    continue
                if (
                    (p, q) in excluded
                    or (q, p) in excluded
                    or m.geom_type[a] == m.geom_type[b] == int(_GEOM.mjGEOM_PLANE)
                ):
                    continue
            out.append(Pair(a, b, _surface(m, a, b, k, refuse)))
    return out


def _surface(m: Any, a: int, b: int, pair: int | None, refuse: Callable[[str, str], None]) -> Surface:
    """MuJoCo's mixing: the higher priority decides, else the greater friction and the mean of the softness."""
    where = f"geoms {_name(m, a)} and {_name(m, b)}"
    first, second = m.geom_priority[a], m.geom_priority[b]
    if pair is not None:
        dim, friction = int(m.pair_dim[pair]), m.pair_friction[pair]
        solref, solimp = m.pair_solref[pair], m.pair_solimp[pair]
        margin = m.pair_margin[pair] - m.pair_gap[pair]
        if friction[0] != friction[1]:
            refuse("anisotropic friction", where)
        friction = friction[[0, 2, 3]]
    elif first != second:
        g = a if first > second else b
        dim, friction, solref, solimp = int(m.geom_condim[g]), m.geom_friction[g], m.geom_solref[g], m.geom_solimp[g]
        margin = max(m.geom_margin[a] - m.geom_gap[a], m.geom_margin[b] - m.geom_gap[b])
    else:
        dim = max(int(m.geom_condim[a]), int(m.geom_condim[b]))
        friction = np.maximum(m.geom_friction[a], m.geom_friction[b])
        mix = m.geom_solmix[a] + m.geom_solmix[b]
        share = m.geom_solmix[a] / mix if mix > 0 else 0.5
        solref, solimp = (share * x[a] + (1 - share) * x[b] for x in (m.geom_solref, m.geom_solimp))
        if min(m.geom_solref[a, 0], m.geom_solref[b, 0]) <= 0:  # stiffness and damping themselves: the stiffer counts
            solref = np.minimum(m.geom_solref[a], m.geom_solref[b])
        margin = max(m.geom_margin[a] - m.geom_gap[a], m.geom_margin[b] - m.geom_gap[b])
    if dim > 3:
        refuse("condim", f"{where}: condim {dim}")
    if margin > 0:
        refuse("margin", f"{where}: margin {margin:g} m")
    return Surface(0.0 if dim == 1 else float(friction[0]), *softness(solref, float(solimp[1]), m.opt.timestep))


def softness(solref: Any, impedance: float, step: float) -> tuple[float, float]:
    """Natural frequency under load [1/s] and damping ratio of ``solref`` (MuJoCo's manual, "Solver parameters").

    Args:
      solref: time constant [s] and damping ratio, or minus stiffness and minus damping per mass.
      impedance: d, of ``solimp``.
      step: time step [s]; MuJoCo holds time constants to at least two of them.
    """
    yields = np.sqrt(1 - impedance)
    if solref[0] > 0:
        ratio = max(float(solref[1]), 1e-3)
        return float(1 / (max(float(solref[0]), 2 * step) * ratio * yields)), ratio
    natural = float(np.sqrt(max(-float(solref[0]), 1e-6)))
    return natural / yields, -float(solref[1]) / (2 * natural)


def register(plant: Any, bodies: list[Any], m: Any, pairs: list[Pair]) -> tuple[dict[Any, int], list[tuple]]:
    """Put the geometry on the bodies, before the plant is finalized.

    Returns:
      Drake's geometry id -> geom, and for each set of copies (ids of a geom, ids of those it meets).
    """
    meets: dict[tuple[int, Surface], set[int]] = defaultdict(set)
    for p in pairs:
        meets[p.first, p.surface].add(p.second)
        meets[p.second, p.surface].add(p.first)
    copies = {}
    for k, (g, surface) in enumerate(sorted(meets)):
        frame = RigidTransform(rotation(m.geom_quat[g]), m.geom_pos[g])
        body = bodies[m.geom_bodyid[g]]
        shape, properties = _shape(m, g, surface)
        copies[g, surface] = plant.RegisterCollisionGeometry(body, frame, shape, f"g{g}.{k}", properties)
    allowed = [(copies[key], [copies[h, key[1]] for h in sorted(others)]) for key, others in sorted(meets.items())]
    return {gid: g for (g, _), gid in copies.items()}, allowed


def let_collide(scene_graph: Any, allowed: list[tuple]) -> None:
    """Filter out every collision but those allowed, after the plant is finalized."""
    everything = GeometrySet([gid for gid, _ in allowed])
    manager = scene_graph.collision_filter_manager()
    manager.Apply(CollisionFilterDeclaration().ExcludeWithin(everything))
    for gid, others in allowed:
        manager.Apply(CollisionFilterDeclaration().AllowBetween(GeometrySet(gid), GeometrySet(others)))


def _shape(m: Any, g: int, surface: Surface) -> tuple[Any, ProximityProperties]:
    """Shape and contact properties of a geom."""
    kind, s = _GEOM(m.geom_type[g]), m.geom_size[g]
    sizes = np.sort(m.geom_aabb[g].reshape(2, 3)[1])
    if kind == _GEOM.mjGEOM_PLANE:
        shape: Any = HalfSpace()
    elif kind == _GEOM.mjGEOM_SPHERE:
        shape = Sphere(s[0])
    elif kind == _GEOM.mjGEOM_BOX:
        shape = Box(*(2 * s))
    elif kind == _GEOM.mjGEOM_CYLINDER:
        shape, sizes = Cylinder(s[0], 2 * s[1]), np.sort([s[0], s[0], s[1]])
    elif kind == _GEOM.mjGEOM_CAPSULE:
        shape, sizes = Capsule(s[0], 2 * s[1]), np.sort([s[0], s[0], s[1] + s[0]])
    elif kind == _GEOM.mjGEOM_ELLIPSOID:
        shape = Ellipsoid(*s)
    elif kind == _GEOM.mjGEOM_MESH:
        mesh = m.geom_dataid[g]
        vertices: Any = m.mesh_vert[m.mesh_vertadr[mesh] : m.mesh_vertadr[mesh] + m.mesh_vertnum[mesh]]
        shape = Convex(points=vertices.T.astype(float), label=f"g{g}")
    else:
        what = kind.name.removeprefix("mjGEOM_").lower()
        raise Unsupported(f"collisions of {what}", where=f"geom {_name(m, g)}", allowed="primitives and convex meshes")
    inverse = m.body_invweight0[m.geom_bodyid[g], 0]
    stiffness = surface.frequency**2 / inverse if inverse > 0 else _RIGID
    properties = ProximityProperties()
    friction = CoulombFriction(surface.friction, surface.friction)
    # damping that grows with depth, equal to the linear damping at the depth of a body at rest
    damping = 2 * surface.damping * surface.frequency / _GRAVITY
    AddContactMaterial(properties, point_stiffness=stiffness, dissipation=damping, friction=friction)
    # the linear damping, for the approximation that has it; relaxation times of a pair add up
    properties.AddProperty("material", "relaxation_time", surface.damping / surface.frequency)
    if kind not in _POINT:
        hint = max(2 * sizes[0], sizes[2] / 2)
        if inverse > 0 and kind != _GEOM.mjGEOM_PLANE:
            modulus = _CORNERS * stiffness * sizes[0] / (4 * sizes[1] * sizes[2])
            AddCompliantHydroelasticProperties(hint, modulus, properties)
        else:
            AddRigidHydroelasticProperties(hint, properties)
    return shape, properties


def rotation(quat: Any) -> RotationMatrix:
    """Drake's rotation of a quaternion wxyz."""
    return RotationMatrix(Quaternion(np.asarray(quat) / np.linalg.norm(quat)))


def _name(m: Any, g: int) -> str:
    return m.geom(g).name or f"{g} of body {m.body(int(m.geom_bodyid[g])).name!r}"
