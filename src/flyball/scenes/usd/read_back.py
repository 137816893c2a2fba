"""What a USD file does not say of the model it was written from, found by reading it back.

In: a compiled model and the stage written from it. Out: sentences: every fact, setting and picture that comes back
different, so that nothing is lost in silence, also not what nobody thought of.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pxr import Usd

from flyball.robots.models.diff import diff
from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported
from flyball.robots.models.remainder import normals
from flyball.scenes.usd.read import read_stage

NORMAL = 1e-3
"""Difference of unit normals from which on shading is another; rounding leaves 1e-6."""
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
    after = mujoco.MjSpec.from_string(parsed.mjcf, assets=parsed.assets).compile()
    found: dict[tuple[str, str], list[str]] = {}
    for change in diff(facts(compiled), facts(after)).changes:
        known = f"{change.kind} {change.name}:"
        if change.what == "added" or any(text.startswith(known) for text in told):
            continue
        what = change.field if change.what == "changed" else ""
        found.setdefault((change.kind, what), []).append(change.name)
    out = [*parsed.losses]
    for (kind, what), names in found.items():
        why = (what and f"{what} is not carried") or _WHY.get(kind, "not carried")
        out.append(f"{several(names, kind)}: {why}")
    for k in range(min(compiled.nmesh, after.nmesh)):
        mesh = compiled.mesh(k).name
        same = after.mesh(mesh).id if mesh else -1
        if same >= 0 and not _same_normals(compiled, k, after, same):
            out.append(f"mesh {mesh}: its own normals (shading) are not carried")
    return out


def several(names: Sequence[str], kind: str) -> str:
    """``joint a and 3 more``."""
    return f"{kind} {names[0]}".strip() + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _same_normals(a: Any, i: int, b: Any, k: int) -> bool:
    x, y = normals(a, i), normals(b, k)
    return x.shape == y.shape and bool(np.abs(x - y).max(initial=0.0) < NORMAL)
