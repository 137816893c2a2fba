"""Prims, names and attributes: the few calls that writing is made of.

In: a stage and values in SI units. Out: prims whose names are valid in USD and unique among their siblings, with the
model's own name as display name where it differs, and attributes of the type that their schema declares. Schemas are
named, not loaded: a file reads the same whether or not the Newton and MuJoCo schemas are installed beside USD.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from pxr import Gf, Sdf, Tf, Usd, UsdGeom

from flyball.robots.models.model import Array
from flyball.scenes.usd.vocabulary import ARRAYS, Rule, same, single

IDENTITY = np.array([1.0, 0.0, 0.0, 0.0])


class Author:
    """Writes prims below one root.

    Attributes:
      paths: (kind, name in the model) -> path of its prim.
    """

    def __init__(self, stage: Usd.Stage, root: Sdf.Path) -> None:
        self.stage, self.root = stage, root
        self.paths: dict[tuple[str, str], Sdf.Path] = {("body", "world"): root}

    def path(self, parent: Sdf.Path, name: str) -> Sdf.Path:
        """A free path below a parent for an element of that name."""
        base = Tf.MakeValidIdentifier(name.rsplit("/", 1)[-1] or "unnamed")
        chosen, n = base, 2
        while self.stage.GetPrimAtPath(parent.AppendChild(chosen)):
            chosen, n = f"{base}_{n}", n + 1
        return parent.AppendChild(chosen)

    def define(self, parent: Sdf.Path, name: str, type_name: str, kind: str = "") -> Usd.Prim:
        """A new prim for a named element; found again under (kind, name)."""
        prim = self.stage.DefinePrim(self.path(parent, name), type_name)
        if prim.GetName() != name:
            prim.SetDisplayName(name)
        if kind:
            self.paths[kind, name] = prim.GetPath()
        return prim

    def scope(self, name: str) -> Sdf.Path:
        """The scope of that name below the root, made when it is first asked for."""
        path = self.paths.get(("scope", name))
        if path is None:
            path = self.stage.DefinePrim(self.path(self.root, name), "Scope").GetPath()
            self.paths["scope", name] = path
        return path

    def rules(self, prim: Usd.Prim, rules: Iterable[Rule], element: Any) -> None:
        """Write those facts of an element (or mapping) that are not what everybody assumes."""
        for rule in rules:
            value = element.get(rule.fact) if isinstance(element, dict) else getattr(element, rule.fact)
            if value is None or same(value, rule.default):
                continue
            if rule.kind == "Range":
                put(prim, f"{rule.usd}:min", "Double", value[0])
                put(prim, f"{rule.usd}:max", "Double", value[1])
            else:
                put(prim, rule.usd, rule.kind, value)
                if rule.kind == "Float":
                    exact(prim, rule.usd, value)

    def targets(self, prim: Usd.Prim, relation: str, kind: str, names: Sequence[str]) -> None:
        """A relationship to named elements, in order."""
        made = prim.CreateRelationship(relation, custom=False)
        made.SetTargets([self.paths[kind, n] for n in names])


def apply(prim: Usd.Prim, *schemas: str) -> None:
    """Name applied schemas, whether or not they are installed."""
    for schema in schemas:
        if schema not in prim.GetPrimTypeInfo().GetAppliedAPISchemas():
            prim.AddAppliedSchema(schema)


def put(prim: Usd.Prim, name: str, kind: str, value: Any) -> None:
    """Write one attribute. MuJoCo's schemas declare theirs uniform, ours and Newton's may vary."""
    variability = Sdf.VariabilityUniform if name.startswith("mjc:") else Sdf.VariabilityVarying
    custom = name.startswith("flyball:")
    attribute = prim.CreateAttribute(name, getattr(Sdf.ValueTypeNames, kind), custom, variability)
    attribute.Set(_value(kind, value))


def exact(prim: Usd.Prim, name: str, value: Any, recovered: bool = False) -> None:
    """All digits of what a schema stores in single precision, beside it and in its unit.

    A reader takes them as long as they round to what is stored: the schema's own attribute is the one that counts.
    """
    numbers = [float(x) for x in np.ravel(value)]
    if not recovered and any(single(x) != x for x in numbers):
        put(prim, f"flyball:exact:{name}", "DoubleArray", numbers)


def _value(kind: str, value: Any) -> Any:
    if kind in ARRAYS:
        return [ARRAYS[kind](x) for x in np.ravel(value)]
    if kind == "Double3":
        return Gf.Vec3d(*[float(x) for x in np.ravel(value)])
    if kind in ("Float3", "Point3f"):
        return Gf.Vec3f(*[float(x) for x in np.ravel(value)])
    if kind in ("Float", "Double"):
        return float(np.ravel(value)[0])
    return {"Int": int, "Bool": bool, "Token": str, "String": str}[kind](value)


def pose(prim: Usd.Prim, pos: Array, quat: Array = IDENTITY, scale: Array | None = None) -> None:
    """Translation, orientation and scale of a prim in its parent's frame, in double precision."""
    x = UsdGeom.Xformable(prim)
    if np.any(pos):
        x.AddTranslateOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Vec3d(*map(float, pos)))
    if not np.array_equal(quat, IDENTITY):
        x.AddOrientOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Quatd(*map(float, quat)))
    if scale is not None:
        x.AddScaleOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Vec3d(*map(float, scale)))


def quatf(quat: Array) -> Gf.Quatf:
    """A wxyz quaternion in single precision."""
    return Gf.Quatf(*[float(x) for x in quat])


def vec3f(x: Array) -> Gf.Vec3f:
    """Three numbers in single precision."""
    return Gf.Vec3f(*[float(v) for v in x])
