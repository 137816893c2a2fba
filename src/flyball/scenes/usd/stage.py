"""Opening USD files that may be anything.

In: a path, chosen variants. Out: a composed stage, its units, and what was chosen; or one line that names the prim.
Sizes are looked at before a layer is opened, every layer that composition would pull in is visited once, and what
USD says on its way goes into the error instead of onto the terminal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flyball.base import Damaged, InputError, Missing
from flyball.scenes.usd import package

LARGEST_FILE = 256 << 20
"""Of one layer [bytes]."""
LARGEST = 1 << 30
"""Of all layers of a scene together [bytes]."""
MOST_LAYERS = 1000
MOST_PRIMS = 300_000
"""Of a composed scene; the largest published robot has fewer than 5,000."""
DEEPEST = 200
"""Braces in a text layer; the parser recurses."""


@dataclass(frozen=True)
class Opened:
    """A composed stage.

    Attributes:
      stage: a ``Usd.Stage``.
      layers: the files it is made of, the root first.
      selected: prim path -> set -> choice, of every variant set there is.
      diagnostics: what USD said while composing.
    """

    stage: Any
    layers: tuple[str, ...]
    selected: Mapping[str, Mapping[str, str]]
    diagnostics: tuple[str, ...]


def open_stage(
    path: Path,
    variants: Mapping[str, str] | None = None,
    largest_file: int = LARGEST_FILE,
    root: Path | None = None,
) -> Opened:
    """Open and compose a file.

    Args:
      variants: set -> choice, or ``/prim/path.set`` -> choice where several prims have a set of that name.
      root: folder that no layer may lie outside of; None for anywhere.

    Raises:
      Damaged: not a USD file.
      InputError: too large, a missing or cyclic reference, or a newer ``flyball:version``.
      Missing: no such variant set or choice.
    """
    from pxr import Usd

    if not path.is_file():
        raise InputError("no such file" if not path.exists() else "not a file", where=str(path))
    with quiet() as said, foreign(path):
        layers = _visit(path, largest_file, root)
        stage = Usd.Stage.Open(str(path))
        if stage is None:
            raise Damaged("USD cannot open it", where=str(path))
        _select(stage, variants or {}, path)
        for error in stage.GetCompositionErrors():
            raise InputError(
                _composition(error), where=f"{path} {_site(error)}", run_next=f"flyball scenes validate {path}"
            )
        count = sum(1 for _ in zip(Usd.PrimRange.Stage(stage), range(MOST_PRIMS + 1), strict=False))
        if count > MOST_PRIMS:
            raise InputError(f"more than {MOST_PRIMS} prims", where=str(path), allowed=f"{MOST_PRIMS}")
        _version(stage, path)
        selected = variant_sets(stage)
    return Opened(stage, tuple(layers), selected, tuple(said))


@contextmanager
def foreign(path: Path | str, at: Callable[[], str] = str) -> Iterator[None]:
    """Turn what OpenUSD raises into ``Damaged``; at: says where it was, if that is known."""
    from pxr import Tf

    try:
        yield
    except (Tf.ErrorException, RuntimeError) as err:
        if isinstance(err, RecursionError):
            raise
        raise Damaged(_reason(err, Path(path)), where=f"{path} {at()}".strip()) from err
    except UnicodeDecodeError as err:
        raise Damaged("text that is not UTF-8", where=f"{path} {at()}".strip()) from err


@contextmanager
def quiet() -> Iterator[list[str]]:
    """Collect what USD would print; the list is filled when the block ends, and lines as USD says them before."""
    from pxr import UsdUtils

    delegate = UsdUtils.CoalescingDiagnosticDelegate()
    said: list[str] = []
    try:
        yield said
    finally:
        for diagnostic in delegate.TakeUncoalescedDiagnostics():
            said.append(_spoken(lambda d=diagnostic: d.commentary))  # type: ignore[misc]
        del delegate


def variant_sets(stage: Any) -> dict[str, dict[str, str]]:
    """Prim path -> set -> selected choice ("" when none)."""
    out: dict[str, dict[str, str]] = {}
    for prim in stage.TraverseAll():
        if prim.HasVariantSets():
            sets = prim.GetVariantSets()
            out[str(prim.GetPath())] = {n: sets.GetVariantSelection(n) for n in sets.GetNames()}
    return out


def _visit(path: Path, largest_file: int, root: Path | None) -> list[str]:
    """Open every layer that composition may need, each after a look at its size."""
    from pxr import Ar, Sdf

    todo, seen, total = [str(path)], dict[str, None](), 0
    resolver = Ar.GetResolver()
    while todo:
        name = todo.pop(0)
        if name in seen:
            continue
        seen[name] = None
        if len(seen) > MOST_LAYERS:
            raise InputError(f"more than {MOST_LAYERS} layers", where=str(path), allowed=f"{MOST_LAYERS}")
        outer = Path(Ar.SplitPackageRelativePathOuter(name)[0]) if Ar.IsPackageRelativePath(name) else Path(name)
        if outer.is_file() and not Ar.IsPackageRelativePath(name):
            if root is not None and not outer.resolve().is_relative_to(root.resolve()):
                raise InputError("lies outside the model's folder", where=str(outer), allowed=f"files in {root}")
            size = outer.stat().st_size
            total += size
            if size > largest_file or total > LARGEST:
                limit = f"{largest_file} a file, {LARGEST} together"
                raise InputError(f"{size} bytes", where=str(outer), allowed=limit)
            if outer.suffix.lower() == ".usdz":
                package.check(outer, largest_file)
            else:
                _shallow(outer)
        if len(seen) > 1 and Sdf.FileFormat.FindByExtension(name) is None:
            continue  # composition says so, and where
        layer = Sdf.Layer.FindOrOpen(name)
        if layer is None:
            if len(seen) == 1:
                raise Damaged("USD cannot open it", where=str(path))
            continue  # composition says where it is missing
        layer.Reload()
        for asset in sorted(layer.GetCompositionAssetDependencies()):
            if asset:
                found = str(resolver.Resolve(layer.ComputeAbsolutePath(asset)))
                if found:
                    todo.append(found)
    return [*seen]


def _shallow(path: Path) -> None:
    """Refuse text that nests deeper than any scene does: the parser recurses once per brace."""
    with path.open("rb") as f:
        if f.read(8) == b"PXR-USDC":
            return
        f.seek(0)
        depth = 0
        while block := f.read(1 << 20):
            for bracket in re.findall(rb"[{}()\[\]]", block):
                depth += 1 if bracket in b"{([" else -1
                if depth > DEEPEST:
                    raise InputError("prims or values nest too deeply", where=str(path), allowed=f"{DEEPEST} levels")


def _select(stage: Any, variants: Mapping[str, str], path: Path) -> None:
    if not variants:
        return
    from pxr import Usd

    for key, choice in variants.items():
        at, _, name = key.rpartition(".")
        # a choice may bring the prims on which the next set stands
        sets = {p: s for p, s in variant_sets(stage).items() if name in s and (not at or p == at)}
        if not sets:
            raise Missing.named("variant set", key, _keys(stage), where=str(path))
        if len(sets) > 1:
            places = ", ".join(f"{p}.{name}" for p in sets)
            raise InputError(f"{len(sets)} prims have a variant set {name!r}", where=str(path), allowed=places)
        prim = stage.GetPrimAtPath(next(iter(sets)))
        choices = prim.GetVariantSet(name).GetVariantNames()
        if choice not in choices:
            raise Missing.named(f"choice of {name}", choice, choices, where=f"{path} {prim.GetPath()}")
        with Usd.EditContext(stage, stage.GetSessionLayer()):
            prim.GetVariantSet(name).SetVariantSelection(choice)


def _keys(stage: Any) -> list[str]:
    found = variant_sets(stage)
    names = [n for sets in found.values() for n in sets]
    return [n if names.count(n) == 1 else f"{p}.{n}" for p, sets in found.items() for n in sets]


def _version(stage: Any, path: Path) -> None:
    from flyball.scenes.usd.vocabulary import VERSION

    for prim in stage.TraverseAll():
        version = prim.GetCustomDataByKey("flyball:version") if prim.HasAuthoredCustomData() else None
        if version is not None and (not isinstance(version, int) or not 1 <= version <= VERSION):
            where = f"{path} {prim.GetPath()}"
            raise InputError(f"flyball:version {version!r}", where=where, allowed=f"1 to {VERSION}")


def _composition(error: Any) -> str:
    text = _spoken(lambda: error)
    text = re.sub(r",?@anon:[^@]*@", "", text)
    kind = type(error).__name__.removeprefix("Error")
    if "Cycle" in kind:
        return f"cyclic reference: {text[:300]}"
    return text[:300]


def _site(error: Any) -> str:
    found = re.search(r"<([^>]*)>", _spoken(lambda: error.rootSite))
    return found.group(1) if found else "/"


def _spoken(say: Callable[[], Any]) -> str:
    """What OpenUSD says, in one line; it may quote bytes of a broken file."""
    try:
        return " ".join(str(say()).split())
    except UnicodeDecodeError:
        return "text that is not UTF-8"


def _reason(err: Exception, path: Path) -> str:
    text = _spoken(lambda: err).replace("pxrInternal_v0_26_8__pxrReserved__::", "")
    found = re.search(r": '(.*)'$", text) or re.search(r"Error in '[^']*'[^:]*: (.*)$", text)
    reason = found.group(1) if found else text
    return reason.removeprefix("Failed verification: ").replace(f"{path.resolve()}:", "line ").strip("' ")[:300]
