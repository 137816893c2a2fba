"""Scenes composed of parts that were authored apart.

In: USD files of a robot, a workpiece, a fixture, sensors, and layers in which people wrote what they changed. Out: one
small text layer that refers to them and copies nothing, so that a part that changes later changes in the scene.
Opinions count in USD's own order: the scene's layer, then its sublayers as listed, then what references bring; a choice
of a variant is stronger than a reference and weaker than what stands beside it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flyball.base import InputError
from flyball.scenes.usd.guard import call, need_pxr

Arc = Literal["reference", "payload"]


@dataclass(frozen=True)
class Part:
    """A USD file put into a scene.

    Attributes:
      name: of the prim it becomes; a valid identifier.
      source: the file; its default prim is taken.
      pos, quat: where, in the frame of what it is under [m], wxyz.
      under: path of a prim below the scene's root, e.g. ``robot/base/hand``; "" for the root itself. What a part holds
        to its own root then moves with that prim.
      arc: ``reference``, or ``payload``, which a viewer may leave unloaded.
      variants: set -> choice, selected in the scene.
    """

    name: str
    source: Path
    pos: tuple[float, float, float] = (0.0, 0.0, 0.0)
    quat: tuple[float, float, float, float] = (1.0, 0.0, 0.0, 0.0)
    under: str = ""
    arc: Arc = "reference"
    variants: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class VariantSet:
    """Alternatives of which a scene has one.

    Attributes:
      name: e.g. ``gripper``.
      choices: choice -> the parts that it brings; the first is selected.
    """

    name: str
    choices: Mapping[str, Sequence[Part]]


def compose(
    out: Path, parts: Sequence[Part], *, variants: Sequence[VariantSet] = (), layers: Sequence[Path] = ()
) -> list[str]:
    """Write a scene of parts; nothing of the parts is changed or copied.

    Args:
      out: a .usda file.
      layers: sublayers, strongest first: what people say about prims of the scene.

    Returns:
      What to know: whose physics scene counts.

    Raises:
      InputError: a part is missing, has other units, no default prim, or a name that is taken; or the result does not
        compose. Nothing is written then.
      NotPossible: OpenUSD is not installed.
    """
    need_pxr()
    if out.suffix != ".usda":
        raise InputError(f"a composed scene is text, not {out.suffix!r}", where=str(out), allowed=".usda")
    order = {
        "out": str(out),
        "parts": [_plain(p) for p in parts],
        "variants": [{"name": v.name, "choices": {c: [_plain(p) for p in ps] for c, ps in v.choices.items()}}
                     for v in variants],
        "layers": [str(x) for x in layers],
    }  # fmt: skip
    answer, _ = call("compose", order, where=str(out))
    return [str(x) for x in answer["notes"]]


def _plain(part: Part) -> dict[str, Any]:
    return {**asdict(part), "source": str(part.source), "variants": dict(part.variants)}


def compose_here(order: Mapping[str, Any]) -> dict[str, Any]:
    """The work, in a process that may die of a part."""
    from pxr import Kind, Usd, UsdGeom, UsdPhysics

    out = Path(order["out"])
    parts = [_part(p) for p in order["parts"]]
    sets = [
        VariantSet(v["name"], {c: [_part(p) for p in ps] for c, ps in v["choices"].items()}) for v in order["variants"]
    ]
    every = [*parts, *(p for s in sets for ps in s.choices.values() for p in ps)]
    if not every and not order["layers"]:
        raise InputError("a scene of nothing", where=str(out), allowed="at least one part or layer")
    units = _units(every, out)
    stage = Usd.Stage.CreateInMemory()
    UsdGeom.SetStageMetersPerUnit(stage, units[0])
    UsdPhysics.SetStageKilogramsPerUnit(stage, units[1])
    UsdGeom.SetStageUpAxis(stage, units[2])
    root = UsdGeom.Xform.Define(stage, f"/{_identifier(out.stem)}").GetPrim()
    stage.SetDefaultPrim(root)
    Usd.ModelAPI(root).SetKind(Kind.Tokens.assembly)
    # references are resolved from where the file will lie: a temporary layer there, renamed when it composes
    draft = out.with_name(f".{out.stem}.draft.usda")
    notes: list[str] = []
    try:
        layer = stage.GetRootLayer()
        layer.subLayerPaths[:] = [_relative(Path(x), out) for x in order["layers"]]
        layer.Export(str(draft))
        stage = Usd.Stage.Open(str(draft))
        root = stage.GetDefaultPrim()
        for part in parts:
            _place(stage, root, part, out)
        for one in sets:
            _variant_set(stage, root, one, out)
        notes += _physics(stage, every, out)
        stage.GetRootLayer().Save()
        _check(draft, out)
        os.replace(draft, out)
    finally:
        draft.unlink(missing_ok=True)
    return {"notes": notes}


def _part(plain: Mapping[str, Any]) -> Part:
    return Part(**{**plain, "source": Path(plain["source"]), "pos": tuple(plain["pos"]), "quat": tuple(plain["quat"])})


def _identifier(name: str) -> str:
    from pxr import Tf

    return str(Tf.MakeValidIdentifier(name))


def _relative(source: Path, out: Path) -> str:
    if not source.is_file():
        raise InputError("no such file", where=str(source))
    path = os.path.relpath(source.resolve(), out.resolve().parent)
    return path if path.startswith("..") else f"./{path}"


def _units(parts: Sequence[Part], out: Path) -> tuple[float, float, str]:
    """The units that all parts share: a reference converts nothing."""
    from pxr import UsdGeom, UsdPhysics

    from flyball.scenes.usd.stage import open_stage

    found: dict[tuple[float, float, str], Part] = {}
    for part in parts:
        opened = open_stage(part.source)
        stage = opened.stage
        if out.resolve() in {Path(x).resolve() for x in opened.layers}:
            raise InputError(f"cyclic reference: {part.source} is made of the scene", where=str(out))
        if not stage.GetDefaultPrim():
            raise InputError("no default prim to refer to", where=str(part.source), allowed='defaultPrim = "NAME"')
        key = (UsdGeom.GetStageMetersPerUnit(stage), UsdPhysics.GetStageKilogramsPerUnit(stage),
               str(UsdGeom.GetStageUpAxis(stage)))  # fmt: skip
        found.setdefault(key, part)
    if len(found) > 1:
        (a, one), (b, two) = [*found.items()][:2]
        words = [f"{p.source.name}: {k[0]:g} m, {k[1]:g} kg, {k[2]} up" for k, p in ((a, one), (b, two))]
        raise InputError(
            "parts have different units, and a reference converts nothing",
            where=str(two.source),
            allowed="; ".join(words[:1]),
            run_next=f"flyball scenes import {two.source} --to {two.source.stem}_si.usda  # {words[1]}",
        )
    return next(iter(found), (1.0, 1.0, "Z"))


def _place(stage: Any, root: Any, part: Part, out: Path) -> None:
    from pxr import UsdGeom

    from flyball.scenes.usd.author import pose

    if part.name != _identifier(part.name):
        raise InputError(f"{part.name!r} is no name for a prim", where=str(out), allowed=_identifier(part.name))
    parent = root.GetPath()
    if part.under:
        parent = parent.AppendPath(part.under.strip("/"))
        if not stage.GetPrimAtPath(parent):
            raise InputError(f"{part.name} goes under {parent}, which does not exist", where=str(out))
    path = parent.AppendChild(part.name)
    there = stage.GetPrimAtPath(path)
    if there and there.IsDefined():  # what a layer says over a part defines nothing
        raise InputError(f"two parts at {path}", where=str(out), allowed="a name for each")
    if not (np.isfinite([*part.pos, *part.quat]).all() and abs(np.linalg.norm(part.quat) - 1) < 1e-3):
        raise InputError(
            f"{part.name} at {part.pos}, {part.quat}", where=str(out), allowed="metres and a unit quaternion"
        )
    prim = UsdGeom.Xform.Define(stage, path).GetPrim()
    arcs = prim.GetPayloads() if part.arc == "payload" else prim.GetReferences()
    (arcs.AddPayload if part.arc == "payload" else arcs.AddReference)(_relative(part.source, out))
    units = UsdGeom.GetStageMetersPerUnit(stage)
    if any(part.pos) or tuple(part.quat) != (1, 0, 0, 0):
        # the part's own root may have a place already; ours replaces it
        UsdGeom.Xformable(prim).ClearXformOpOrder()
        pose(prim, np.array(part.pos) / units, np.array(part.quat, float))
    for name, choice in part.variants.items():
        prim.GetVariantSets().SetSelection(name, choice)


def _variant_set(stage: Any, root: Any, one: VariantSet, out: Path) -> None:
    made = root.GetVariantSets().AddVariantSet(one.name)
    for choice in one.choices:
        if not made.AddVariant(choice):
            raise InputError(f"{choice!r} is no name for a choice of {one.name}", where=str(out))
    for choice, parts in one.choices.items():
        made.SetVariantSelection(choice)
        with made.GetVariantEditContext():
            for part in parts:
                _place(stage, root, part, out)
    made.SetVariantSelection(next(iter(one.choices)))


def _physics(stage: Any, parts: Sequence[Part], out: Path) -> list[str]:
    """Gravity and solver settings stand beside a part's default prim, where a reference to it does not reach."""
    from pxr import Usd, UsdPhysics

    found = []
    for part in parts:
        inner = Usd.Stage.Open(str(part.source))
        scenes = [p for p in inner.GetPseudoRoot().GetChildren() if p.IsA(UsdPhysics.Scene)]
        found += [(part, scenes[0])] if scenes else []
    if not found or any(p.IsA(UsdPhysics.Scene) for p in stage.Traverse()):
        return []
    part, scene = found[0]
    prim = UsdPhysics.Scene.Define(stage, "/PhysicsScene").GetPrim()
    prim.GetReferences().AddReference(_relative(part.source, out), scene.GetPath())
    others = [*dict.fromkeys(p.name for p, _ in found[1:])]
    more = f"; not those of {', '.join(others)}" if others else ""
    return [f"gravity, time step and solver are those of {part.name}{more}"]


def _check(draft: Path, out: Path) -> None:
    """It must compose under every choice."""
    from flyball.scenes.usd.stage import open_stage

    try:
        opened = open_stage(draft)
        for path, sets in opened.selected.items():
            prim = opened.stage.GetPrimAtPath(path)
            for name in sets:
                for choice in prim.GetVariantSet(name).GetVariantNames():
                    open_stage(draft, {f"{path}.{name}": choice})
    except InputError as err:
        where = err.where.replace(str(draft), str(out))
        raise type(err)(err.what.replace(draft.name, out.name), where=where, allowed=err.allowed) from err
