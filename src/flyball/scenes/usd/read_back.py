"""What a USD file does not say of the model it was written from, found by reading it back.

In: a compiled model and the stage written from it. Out: sentences: every fact, setting and picture that comes back
different, so that nothing is lost in silence, also not what nobody thought of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
from pxr import Usd

from flyball.robots.models.diff import diff
from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported
from flyball.robots.models.remainder import normals
from flyball.scenes.usd.read import read_stage

NORMAL = 1e-3
"""Difference of unit normals from which on shading is another; rounding leaves 1e-6."""
FEW = 0.01
"""Share of normals that may differ: of triangles without area they are anything."""
_WHY = {
    "texture": "colours are carried, pictures are not",
    "material": "carried as a colour",
    "custom number": "not carried",
    "custom text": "not carried",
    "tuple": "not carried",
    "flex": "OpenUSD has no schema for deformable bodies of MuJoCo",
    "skin": "OpenUSD has no schema for it",
    "plug-in": "not carried",
}


def untold(compiled: Any, imported: Imported, stage: Usd.Stage, told: list[str]) -> list[str]:
    """What reading a stage back shows to be different from its model and nobody told: one sentence per kind."""
    import mujoco

    parsed = read_stage(stage, imported.name, imported.name)
    try:
        after = mujoco.MjSpec.from_string(parsed.mjcf, assets=parsed.assets).compile()
    except ValueError as err:
        return [*parsed.losses, f"what was written does not compile again: {' '.join(str(err).split())[:200]}"]
    found: dict[tuple[str, str], list[str]] = {}
    for change in diff(facts(compiled), facts(after)).changes:
        known = f"{change.kind} {change.name}:"
        if change.what == "added" or any(text.startswith(known) for text in told):
            continue
        if change.field == "material":
            continue  # it is told as one that is lost, once
        what = change.field if change.what == "changed" else ""
        found.setdefault((change.kind, what), []).append(change.name)
    out = [*parsed.losses]
    for (kind, what), names in found.items():
        why = (what and f"{what} is not carried") or _WHY.get(kind, "not carried")
        out.append(f"{several(names, kind)}: {why}")
    shaded = [name for name in _with_normals(imported) if not _same_normals(name, compiled, after)]
    return out + ([f"{several(shaded, 'mesh')}: normals of its own (shading) are not carried"] if shaded else [])


def several(names: Sequence[str], kind: str) -> str:
    """``joint a and 3 more``."""
    return f"{kind} {names[0]}".strip() + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _with_normals(imported: Imported) -> list[str]:
    """Meshes whose author gave normals; those that MuJoCo computes depend on the last digits of flat triangles."""
    meshes = fromstring(imported.mjcf).iterfind("asset/mesh")
    stated = [m for m in meshes if m.get("normal") or b"\nvn " in imported.assets.get(m.get("file", ""), b"")]
    return [m.get("name", "") for m in stated]


def _same_normals(mesh: str, a: Any, b: Any) -> bool:
    """Whether a mesh is shaded alike, as far as it is there: unused ones are told of, twins share one."""
    there = [[m.mesh(k).name for k in range(m.nmesh)] for m in (a, b)]
    if not all(mesh in names for names in there):
        return True
    x, y = (normals(m, names.index(mesh)) for m, names in zip((a, b), there, strict=True))
    return x.shape == y.shape and float((np.abs(x - y) > NORMAL).any(axis=1).mean()) < FEW
