"""What looks like a mix-up of units.

In: facts of a model. Out: sentences, one per finding; nothing is rescaled. Rules compare lengths that belong together:
a solid body's radius of gyration is 0.3 to 1 times the distance its shapes reach from their centre, its density lies
between that of cork and of gold. Millimetres for metres put such ratios off by 1,000 (inertia in kg mm^2 by the same,
in g m^2 by 32), so a finding needs a ratio beyond 31, which is the geometric middle between right and a thousandfold.
"""

from __future__ import annotations

import math

import numpy as np

from flyball.robots.models.facts import rotation
from flyball.robots.models.model import Array, Geom, Model

OFF = 31.0
"""A ratio that no plausible robot has and no mix-up of units stays below."""
_DENSITY = (0.1, 2e6)
"""[kg/m^3], far outside cork (120) to gold (19,300): shells, dummies and point-like inertias are common."""
_LARGE, _SMALL = 100.0, 0.002
"""Reach of a whole robot [m] that is said."""


def suspicions(model: Model) -> list[str]:
    """Findings, most telling first."""
    return [*_sizes(model), *_bodies(model), *_joints(model)]


def mixed_up(model: Model) -> str:
    """What leaves no doubt that units are mixed up, "" when nothing does: two findings that say so by different rules.

    One alone is common in published models: placeholder inertias, shells, dummies of a gram.
    """
    of: dict[str, list[str]] = {}
    for text in _bodies(model):
        of.setdefault(text.partition(":")[0], []).append(text)
    for body, texts in of.items():
        if len(texts) > 1:
            return f"{body}: {'; '.join(t.partition(': ')[2] for t in texts)}"
    sizes = [text for text in _sizes(model) if "millimetres for metres" in text]
    return f"{sizes[0]} ({next(iter(of.values()))[0]})" if sizes and of else ""


def half_extent(geom: Geom, model: Model) -> Array:
    """Half lengths of a geom's box in its own frame [m], (3,); of planes and height fields zero."""
    r, h, d = (float(x) for x in geom.size)
    if geom.kind in ("mesh", "sdf"):
        v = model.meshes[geom.mesh].vertices if geom.mesh in model.meshes else np.zeros((0, 3))
        return np.ptp(v, axis=0) / 2 if len(v) else np.zeros(3)
    return {
        "sphere": np.array([r, r, r]),
        "capsule": np.array([r, r, h + r]),
        "cylinder": np.array([r, r, h]),
        "box": np.array([r, h, d]),
        "ellipsoid": np.array([r, h, d]),
    }.get(geom.kind, np.zeros(3))


def centre(geom: Geom, model: Model) -> Array:
    """Middle of a geom's box in the body frame [m], (3,)."""
    if geom.kind in ("mesh", "sdf") and geom.mesh in model.meshes and len(model.meshes[geom.mesh].vertices):
        v = model.meshes[geom.mesh].vertices
        return geom.pos + rotation(geom.quat) @ ((v.min(axis=0) + v.max(axis=0)) / 2)
    return geom.pos


def _sizes(model: Model) -> list[str]:
    out = []
    reach = max((float(np.linalg.norm(b.pos)) for b in model.bodies.values()), default=0.0)
    solids = [g for g in model.geoms.values() if g.kind not in ("plane", "hfield") and g.body in model.bodies]
    sizes = [(half_extent(g, model), g.name) for g in solids]
    thick = [(float(np.linalg.norm(h)), name) for h, name in sizes if h.min() > 0.1 * h.max()]  # the ground is none
    largest = max(thick, default=(0.0, ""))
    if largest[0] > _LARGE / 2:
        out.append(f"geom {largest[1]} measures {2 * largest[0]:.4g} m: millimetres for metres?")
    if reach > _LARGE:
        far = max(model.bodies.values(), key=lambda b: float(np.linalg.norm(b.pos))).name
        out.append(f"body {far} lies {reach:.4g} m from its parent: millimetres for metres?")
    if thick and 0 < 2 * largest[0] < _SMALL and reach < _SMALL:
        out.append(f"the whole model measures {2 * largest[0] * 1e3:.3g} mm: metres for millimetres?")
    for body in model.bodies:
        seen = {
            touching: max(
                (float(half_extent(g, model).max()) for g in model.geoms_of(body) if g.collides is touching),
                default=0.0,
            )
            for touching in (True, False)
        }
        if seen[True] > 0 and seen[False] > 0 and not 1 / OFF < seen[True] / seen[False] < OFF:
            ratio = seen[True] / seen[False]
            out.append(f"body {body}: its collision shapes are {ratio:.3g} times the size of its visual ones: units?")
    return out


def _bodies(model: Model) -> list[str]:
    out = []
    for body in model.bodies.values():
        geoms = [g for g in model.geoms_of(body.name) if g.kind not in ("plane", "hfield")]
        if not geoms or body.mass < 1e-6:  # a placeholder
            continue
        reach = max(
            float(np.linalg.norm(centre(g, model) - body.com) + np.linalg.norm(half_extent(g, model))) for g in geoms
        )
        extent = max(float(half_extent(g, model).max()) for g in geoms)
        gyration = math.sqrt(max(float(np.trace(body.inertia)), 0.0) / 2 / body.mass)
        offset = min(float(np.linalg.norm(centre(g, model) - body.com)) for g in geoms)
        if extent > 0 and offset > OFF * extent and offset > 0.05:
            out.append(
                f"body {body.name}: its centre of mass is {offset:.3g} m from its shapes: millimetres for metres?"
            )
        elif reach > 0 and gyration > OFF * reach:
            ratio = gyration / reach
            out.append(
                f"body {body.name}: its inertia is that of a body {ratio:.3g} times its size: kg mm^2 for kg m^2, "
                "or grams for kilograms?"
            )
        elif gyration > 0 and reach > OFF * 10 * gyration:
            ratio = reach / gyration
            out.append(f"body {body.name}: its shapes are {ratio:.3g} times the size its inertia stands for: units?")
        boxes = [2 * half_extent(g, model) for g in geoms]
        volume = max(float(np.prod(np.maximum(box, 0.01 * box.max()))) for box in boxes)  # sheets have some thickness
        density = body.mass / volume if volume > 0 else math.inf
        if extent > 1e-3 and not _DENSITY[0] < density < _DENSITY[1]:
            out.append(f"body {body.name}: its density would be {density:.2g} kg/m^3: units of mass or length?")
    return out


def _joints(model: Model) -> list[str]:
    out = []
    for joint in model.joints.values():
        low, high = joint.range
        if not np.isfinite(joint.range).all():
            continue
        if joint.kind == "slide" and max(abs(low), abs(high)) > _LARGE / 2:
            out.append(f"joint {joint.name}: slides from {low:g} to {high:g} m: millimetres for metres?")
        if joint.kind == "hinge" and 30 <= max(abs(low), abs(high)) <= 720 and max(abs(low), abs(high)) % 5 < 1e-9:
            out.append(f"joint {joint.name}: turns from {low:g} to {high:g} rad: degrees for radians?")
    return out
