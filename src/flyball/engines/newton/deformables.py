"""A scene's deformables in a Newton builder. In: meshes and constants. Out: particles, and which rows each has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flyball.base import InputError
from flyball.engines.newton import runtime
from flyball.scenes.deformable import KINDS, Cloth, Deformable, Granular, Soft


def kind(d: Deformable) -> str:
    """cloth, soft or granular."""
    return KINDS[type(d)]


def add(builder: Any, deformables: Sequence[Deformable], nt: Any) -> dict[str, slice]:
    """Add them to a builder of one world.

    Returns:
      ``kind:name`` -> rows of its particles.

    Raises:
      InputError: two have the same name.
    """
    out: dict[str, slice] = {}
    for d in deformables:
        start = builder.particle_count
        if isinstance(d, Cloth):
            _cloth(builder, d)
        elif isinstance(d, Soft):
            _soft(builder, d)
        else:
            _granular(builder, d)
        if not isinstance(d, Granular):
            for i in start + d.fixed():
                builder.particle_mass[i] = 0.0
                builder.particle_flags[i] = int(builder.particle_flags[i]) & ~int(nt.ParticleFlags.ACTIVE)
        name = f"{kind(d)}:{d.name}"
        if name in out:
            raise InputError(f"two are named {d.name!r}", where="deformables", allowed="names of their own")
        out[name] = slice(start, builder.particle_count)
    return out


def _cloth(builder: Any, d: Cloth) -> None:
    points, triangles = d.mesh()
    # Newton's membrane is Neo-Hookean with mu = tri_ke and lambda = tri_ka, both times the thickness: in the plane
    # E = mu (3 lambda + 2 mu) / (lambda + mu), which for Poisson's ratio 1/4 is 5/2 mu with lambda = mu
    mu = d.stiffness / 2.5
    builder.add_cloth_mesh(
        **_at_origin(), vertices=_vectors(points), indices=triangles.ravel().tolist(), density=d.density, tri_ke=mu,
        tri_ka=mu, tri_kd=mu * d.damping, edge_ke=d.bending, edge_kd=d.bending * d.damping, particle_radius=d.radius,
    )  # fmt: skip


def _soft(builder: Any, d: Soft) -> None:
    points, tets = d.mesh()
    mu, lam = d.lame
    lam = max(lam, 1e-3 * mu)  # a solver divides by it: Poisson's ratio 0 becomes 0.0005
    builder.add_soft_mesh(
        **_at_origin(), vertices=_vectors(points), indices=tets.ravel().tolist(), density=d.density, k_mu=mu,
        k_lambda=lam, k_damp=d.damping, particle_radius=d.radius,
    )  # fmt: skip


def _granular(builder: Any, d: Granular) -> None:
    points = d.points()
    builder.add_particles(
        pos=points.tolist(), vel=np.zeros_like(points).tolist(), mass=[d.density * d.spacing**3] * len(points),
        radius=[d.spacing / 2] * len(points),
        custom_attributes={"mpm:friction": [d.friction] * len(points)},
    )  # fmt: skip


def _at_origin() -> dict[str, Any]:
    """The mesh is in place already."""
    wp = runtime.warp()
    return {"pos": wp.vec3(0.0), "rot": wp.quat_identity(), "scale": 1.0, "vel": wp.vec3(0.0)}


def _vectors(points: Any) -> list[Any]:
    wp = runtime.warp()
    return [wp.vec3(*p) for p in points.tolist()]
