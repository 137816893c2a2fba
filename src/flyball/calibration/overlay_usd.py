"""A calibration as a USD layer.

In: an overlay. Out: the scene's model as a USD file, untouched, and a layer above it: it sublayers that file and holds
an ``over`` for every prim that the calibration changes, with those attributes alone. Both models are written by the
same exporter and compared attribute by attribute, so the layer says exactly what the export of the calibrated model
would have said: drives beside actuators, all digits beside single precision, and whatever else belongs together.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pxr import Sdf

from flyball.base import Unsupported
from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported
from flyball.robots.models.mjcf import file_stem
from flyball.scenes.usd.write import author, write

if TYPE_CHECKING:
    from flyball.calibration.overlay import Overlay


def write_layer(made: Overlay, folder: Path) -> tuple[list[Path], list[str]]:
    """Write ``NAME.usda`` and ``NAME.calibrated.usda`` into an existing folder.

    Returns:
      Both files, and what of the model USD does not carry.

    Raises:
      Unsupported: the calibration changes which prims there are.
    """
    name = file_stem(made.name)
    base, above = folder / f"{name}.usda", folder / f"{name}.calibrated.usda"
    models = [_imported(made, text) for text in (made.scene.model, made.mjcf)]
    losses = write(models[0], base)
    stages = [author(m.compile(), m, m.name)[0] for m in models]
    before, after = (s.GetRootLayer() for s in stages)
    layer = Sdf.Layer.CreateAnonymous(".usda")
    layer.subLayerPaths[:] = [f"./{base.name}"]
    for key in ("defaultPrim", "metersPerUnit", "kilogramsPerUnit", "upAxis"):  # of the strongest layer alone
        if before.pseudoRoot.HasInfo(key):
            layer.pseudoRoot.SetInfo(key, before.pseudoRoot.GetInfo(key))
    layer.comment = f"calibration {made.calibration[:12]}: values over {base.name}"
    _over(before, after, layer, before.pseudoRoot, after.pseudoRoot)
    layer.Export(str(above))
    return [base, above], losses


def _imported(made: Overlay, mjcf: str) -> Imported:
    import mujoco

    assets = dict(made.scene.assets)
    compiled = mujoco.MjSpec.from_string(mjcf, assets=assets).compile()
    return Imported(made.scene.name, mjcf, assets, facts(compiled))


def _over(before: Any, after: Any, layer: Any, one: Any, two: Any) -> None:
    """Overs for the attributes in which two prims and those below them differ."""
    children = {p.name: p for p in two.nameChildren}
    if [p.name for p in one.nameChildren] != [*children]:
        raise Unsupported("the calibration adds or removes prims", where=str(one.path), allowed="changes of numbers")
    for prim in one.nameChildren:
        _attributes(before, after, layer, prim, children[prim.name])
        _over(before, after, layer, prim, children[prim.name])


def _attributes(before: Any, after: Any, layer: Any, one: Any, two: Any) -> None:
    old: dict[str, Any] = {a.name: a for a in one.attributes}
    new: dict[str, Any] = {a.name: a for a in two.attributes}
    for name in {**old, **new}:
        a, b = old.get(name), new.get(name)
        if a is not None and b is not None and _equal(a.default, b.default):
            continue
        prim = Sdf.CreatePrimInLayer(layer, one.path)
        like: Any = a if b is None else b
        made = Sdf.AttributeSpec(prim, name, like.typeName, like.variability, declaresCustom=like.custom)
        made.default = b.default if b is not None else Sdf.ValueBlock()
    schemas = [p.GetInfo("apiSchemas") if p.HasInfo("apiSchemas") else None for p in (one, two)]
    if str(schemas[0]) != str(schemas[1]):
        Sdf.CreatePrimInLayer(layer, one.path).SetInfo("apiSchemas", schemas[1])


def _equal(a: Any, b: Any) -> bool:
    if hasattr(a, "__len__") and not isinstance(a, str):
        return len(a) == len(b) and all(x == y for x, y in zip(a, b, strict=True))
    return bool(a == b)
