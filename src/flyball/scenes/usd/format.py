"""USD as one of the model formats, and USD files as scenes.

In: a USD file, alone or composed of many. Out: ``Imported`` or ``Scene``: MJCF that compiled, every conversion and
loss in words. The other way, an imported model becomes a .usda, .usdc or .usdz file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

from flyball.base import InputError
from flyball.robots import licences
from flyball.robots.models import sidecar
from flyball.robots.models.facts import facts
from flyball.robots.models.imported import Imported, ReadOptions
from flyball.robots.models.markup import parse
from flyball.robots.models.mjcf import compile_document, file_stem
from flyball.robots.models.plausibility import suspicions
from flyball.scenes.scene import Scene
from flyball.scenes.usd.guard import need_pxr, read_guarded
from flyball.scenes.usd.parsed import Parsed


class UsdFormat:
    """OpenUSD; see ``flyball.robots.models.ModelFormat``."""

    name = "usd"
    suffixes: tuple[str, ...] = (".usda", ".usdc", ".usd", ".usdz")

    def read(self, path: Path, options: ReadOptions, variants: Mapping[str, str] | None = None) -> Imported:
        """Read a model; see ``ModelFormat.read``.

        Args:
          variants: set -> choice; see ``flyball.scenes.usd.stage.open_stage``.
        """
        return look(path, variants, options)[0]

    def write(self, imported: Imported, folder: Path) -> tuple[Path, list[str]]:
        """Write a model as text; see ``ModelFormat.write``. Everything stands in the one file; it needs no sidecar."""
        need_pxr()
        from flyball.scenes.usd.write import write

        path = folder / f"{file_stem(imported.name)}.usda"
        losses = write(imported, path)
        return path, losses


def look(
    path: Path, variants: Mapping[str, str] | None = None, options: ReadOptions | None = None
) -> tuple[Imported, Parsed]:
    """A model, with the layers and variants of its file."""
    options = options or ReadOptions()
    parsed = read_guarded(path, variants, options.largest_file, options.root)
    extra = sidecar.read_beside(path)
    if parsed.velocity_limits:
        extra = {**extra, "velocity_limits": parsed.velocity_limits | extra.get("velocity_limits", {})}
    document = parse(parsed.mjcf.encode(), str(path))
    assets = dict(parsed.assets)
    try:
        text, compiled, losses = compile_document(document, assets, {}, extra)
    except InputError as err:
        raise _at_prim(err, parsed, path) from err
    model = facts(compiled.model)
    imported = Imported(
        name=parsed.name,
        mjcf=text,
        assets=assets,
        model=model,
        sidecar=extra,
        notes=(*parsed.notes, *compiled.notes, *suspicions(model)),
        losses=(*parsed.losses, *losses),
        format=UsdFormat.name,
        source=path,
        licence=licences.near(path, [], options.root or path.resolve().parent),
    )
    return imported, parsed


def read_scene(path: Path, variants: Mapping[str, str] | None = None) -> Scene:
    """A USD file as a scene without parameters.

    Args:
      variants: set -> choice; see ``flyball.scenes.usd.stage.open_stage``.

    Raises:
      InputError, NotPossible: see ``flyball.robots.models.load``.
    """
    imported = UsdFormat().read(Path(path), ReadOptions(), variants)
    return Scene(imported.name, self_contained(imported.mjcf, imported.assets), ())


def self_contained(mjcf: str, assets: Mapping[str, bytes]) -> str:
    """MJCF text with its OBJ meshes written into it, so that the text is the whole model."""
    root = ElementTree.fromstring(mjcf)
    for mesh in root.iter("mesh"):
        file = mesh.get("file") or ""
        if file in assets:
            rows = [line.split() for line in assets[file].decode().splitlines()]
            mesh.attrib.pop("file")
            mesh.set("vertex", " ".join(x for row in rows if row[0] == "v" for x in row[1:]))
            mesh.set("face", " ".join(str(int(x) - 1) for row in rows if row[0] == "f" for x in row[1:]))
    return ElementTree.tostring(root, encoding="unicode")


def _at_prim(err: InputError, parsed: Parsed, path: Path) -> InputError:
    """The same refusal at the prim that the MJCF element came from."""
    kinds = {"inertial": "body", "freejoint": "joint", "general": "actuator", "fixed": "tendon", "spatial": "tendon"}
    for tag, name in reversed(re.findall(r"(\w+)\[([^\]]*)\]", err.where)):
        place = parsed.places.get(f"{kinds.get(tag, tag)} {name}")
        if place:
            return InputError(err.what, where=f"{path} {place}", allowed=err.allowed, run_next=err.run_next)
    for name in re.findall(r"'([^']+)'", err.what):
        found = [p for k, p in parsed.places.items() if k.partition(" ")[2] == name]
        if found:
            return InputError(err.what, where=f"{path} {found[0]}", allowed=err.allowed, run_next=err.run_next)
    return InputError(err.what, where=str(path), allowed=err.allowed, run_next=err.run_next)
