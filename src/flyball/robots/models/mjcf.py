"""MJCF in and out.

In: an MJCF file with its includes, meshes, textures, height fields and attached models. Out: one MJCF text whose files
are assets held in memory, numbers and defaults as authored; and back into a folder. Includes are put in place and
every file is found, bounded and taken in before MuJoCo sees the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from flyball.base import InputError, Unsupported
from flyball.base.durable import write_durably
from flyball.robots import licences
from flyball.robots.models import sidecar
from flyball.robots.models.facts import facts
from flyball.robots.models.guard import Compiled, CompileError, compile_guarded
from flyball.robots.models.imported import Imported, ReadOptions
from flyball.robots.models.markup import Document, parse
from flyball.robots.models.plausibility import suspicions
from flyball.robots.models.references import Files

_MESHES = "mesh"
_TEXTURES = "texture"
_FILES = {  # tag -> (attributes, kind of folder)
    "mesh": (("file",), _MESHES),
    "skin": (("file",), _MESHES),
    "flexcomp": (("file",), _MESHES),
    "hfield": (("file",), _MESHES),
    "texture": (
        ("file", "fileright", "fileleft", "fileup", "filedown", "filefront", "fileback"),
        _TEXTURES,
    ),
}
_NAMED_AFTER_FILE = ("mesh", "texture", "hfield", "skin")
_COUNTS = {  # what a model may ask for, far above any published one
    ("replicate", "count"): 20_000,
    ("texture", "width"): 16_384,
    ("texture", "height"): 100_000,
    ("hfield", "nrow"): 10_000,
    ("hfield", "ncol"): 10_000,
    ("size", "nkey"): 100_000,
    ("size", "njmax"): 10_000_000,
    ("size", "nconmax"): 10_000_000,
    ("size", "nuserdata"): 10_000_000,
    ("flexcomp", "count"): 1_000_000,
    ("composite", "count"): 100_000,
}
_MOST_COPIES = 50_000
"""Elements that nested ``replicate`` may make."""
HUGE = 1e12
"""Beyond any robot's masses and lengths in SI units, and far from what overflows when multiplied."""
_BOUNDED = (  # what of the compiled model has to be finite and below it
    ("body", ("body_mass", "body_inertia", "body_pos", "body_quat", "body_ipos", "body_iquat"), "body"),
    ("joint", ("jnt_pos", "jnt_axis"), "jnt"),
    ("geom", ("geom_pos", "geom_quat", "geom_size"), "geom"),
    ("site", ("site_pos", "site_quat", "site_size"), "site"),
    ("mesh", ("mesh_pos", "mesh_quat"), "mesh"),
)
ROUNDED = "it attaches other models, which MuJoCo writes out with six digits: its numbers are rounded to those"
_WORD_ATTRIBUTES = ("name", "class", "childclass", "prefix")


class MjcfFormat:
    """MJCF; see ``flyball.robots.models.ModelFormat``."""

    name = "mjcf"
    suffixes: tuple[str, ...] = (".xml", ".mjcf")

    def read(self, path: Path, options: ReadOptions) -> Imported:
        """Read a model; see ``ModelFormat.read``."""
        files = Files(path, options)
        document = _open(path, files, [])
        include: dict[str, bytes] = {}
        _gather(document, files, include, [path.resolve()])
        extra = sidecar.read_beside(path)
        text, compiled, losses = compile_document(document, files.assets, include, extra)
        model = facts(compiled.model)
        return Imported(
            name=document.root.get("model") or path.stem,
            mjcf=text,
            assets=files.assets,
            model=model,
            sidecar=extra,
            notes=(*((ROUNDED,) if compiled.rounded else ()), *compiled.notes, *suspicions(model)),
            losses=tuple(losses),
            format=self.name,
            source=path,
            licence=licences.near(path, document.comments, files.root),
        )

    def write(self, imported: Imported, folder: Path) -> tuple[Path, list[str]]:
        """Write the text as it is, its assets beside it, and a sidecar for what MJCF cannot say."""
        root = parse(imported.mjcf.encode(), imported.name)
        if imported.assets:
            compiler = root.root.find("compiler")
            if compiler is None:
                compiler = Element("compiler")
                root.root.insert(0, compiler)
            compiler.set("meshdir", "assets")
            compiler.set("texturedir", "assets")
            (folder / "assets").mkdir(exist_ok=True)
            for name, data in imported.assets.items():
                write_durably(folder / "assets" / name, data)
        path = folder / f"{file_stem(imported.name)}.xml"
        write_durably(path, root.text()[0].encode())
        sidecar.write_beside(path, {k: v for k, v in imported.sidecar.items() if k in sidecar.NOT_MJCF})
        return path, []


def file_stem(name: str) -> str:
    """A model's name as a file name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).strip(".") or "model"


def compile_document(
    document: Document,
    assets: dict[str, bytes],
    include: dict[str, bytes] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> tuple[str, Compiled, list[str]]:
    """Compile a document; a refusal names the element that MuJoCo complains about.

    Args:
      extra: a sidecar to apply first.

    Returns:
      The text, the compiled model, and what of the sidecar found no place.

    Raises:
      InputError: it does not compile.
    """
    check(document)
    losses = sidecar.apply(document, extra or {})
    shells: dict[str, InputError] = {}
    while True:
        text, starts = document.text()
        try:
            compiled = compile_guarded(text, assets, include, where=document.where)
            break
        except CompileError as err:
            named = _complained_about(err, document, starts)
            where = document.where if named is None else document.at(named)
            refusal = InputError(_plain(err.what), where=where)
            if (
                named is None
                or named.tag != "mesh"
                or "volume is too small" not in err.what
                or "inertia" in named.attrib
            ):
                raise refusal from err
            named.set("inertia", "shell")
            shells[named.get("name", "")] = refusal
    _only_seen(compiled.model, document, shells)
    _check_compiled(compiled.model, document)
    said = tuple(f"mesh {name} is too small or flat to have a volume: taken as a shell" for name in shells)
    return compiled.flat or text, replace(compiled, notes=said), losses


def _only_seen(model: Any, document: Document, shells: Mapping[str, InputError]) -> None:
    """Refuse a mesh without volume after all where it is touched and gives its body mass.

    Raises:
      InputError: MuJoCo's own refusal of the mesh.
    """
    if any(e.get("inertiafromgeom") == "false" for e in document.root.iter("compiler")):
        return
    for name, refusal in shells.items():
        geoms = np.flatnonzero((model.geom_dataid == model.mesh(name).id) & (model.geom_type == _MESH_GEOM))
        if np.any(model.geom_contype[geoms] | model.geom_conaffinity[geoms]):
            raise refusal


_MESH_GEOM = 7
"""``mjGEOM_MESH``."""


def _check_compiled(model: Any, document: Document) -> None:
    """Refuse what MuJoCo compiles although its numbers overflowed.

    Raises:
      InputError: naming the element, where it has a name.
    """
    for kind, arrays, count in _BOUNDED:
        n = int(getattr(model, f"n{count}"))
        for array in arrays if n else ():
            values = np.asarray(getattr(model, array), float).reshape(n, -1)
            bad = np.flatnonzero(~(np.abs(values) < HUGE).all(axis=1))
            if not len(bad):
                continue
            name = getattr(model, kind)(int(bad[0])).name
            e = next((e for e in document.root.iter(kind) if name and e.get("name") == name), None)
            where = f"{document.where} {kind} {name or int(bad[0])}" if e is None else document.at(e)
            what = array.split("_", 1)[1]
            raise InputError(f"its {what} comes to {values[bad[0]][:3]}", where=where, allowed=f"below {HUGE:g}")


def check(document: Document) -> None:
    """Refuse what MuJoCo would hang on, crash on, or silently take: huge counts, ``%`` in names, copies of copies.

    Raises:
      InputError: naming the element.
    """
    for e in document.root:
        if e.tag == "body":  # MuJoCo drops it in silence
            raise InputError("a body outside of <worldbody>", where=document.at(e), allowed="bodies inside <worldbody>")
    for e in document.root.iter():
        for key in _WORD_ATTRIBUTES:
            if "%" in e.get(key, ""):  # MuJoCo 3.17 takes some for format strings
                raise InputError(f"{key}={e.get(key)!r} holds a '%'", where=document.at(e, key))
        if e.tag in ("inertial", "geom") and _number(e.get("mass", "1")) < 0:
            raise InputError(f"mass = {e.get('mass', '')[:40]} kg", where=document.at(e, "mass"), allowed=">= 0")
        for (tag, key), most in _COUNTS.items():
            if e.tag != tag or key not in e.attrib:
                continue
            product = 1.0
            for word in e.attrib[key].split():
                product *= max(abs(_number(word)), 1.0)
            if product > most:
                raise InputError(f"{key}={e.attrib[key][:40]!r}", where=document.at(e, key), allowed=f"up to {most}")
    _count_copies(document, document.root, 1)


def _count_copies(document: Document, e: Element, times: float) -> float:
    if e.tag == "replicate":
        times *= max(_number(e.get("count", "1")), 1.0)
    made = times + sum(_count_copies(document, child, times) for child in e)
    if e.tag == "replicate" and made > _MOST_COPIES:
        raise InputError(
            f"makes {made:.0f} elements", where=document.at(e, "count"), allowed=f"{_MOST_COPIES} by replication"
        )
    return made


def _number(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return 1.0


def _open(path: Path, files: Files, stack: list[Path], where: str = "") -> Document:
    """Parse a file and put its includes in place."""
    real = path.resolve()
    if real in stack:
        circle = " -> ".join(p.name for p in [*stack[stack.index(real) :], real])
        raise InputError(f"files include each other: {circle}", where=where)
    document = parse(files.read(path, where or path.name), path.name)
    if stack:
        files.included |= dict.fromkeys(document.root.iter(), real.parent)
    if not stack and document.root.tag != "mujoco":
        tag = document.root.tag
        raise InputError(f"the root element is <{tag[:60]}>", where=path.name, allowed="<mujoco>, or <robot> in URDF")
    changed = True
    while changed:
        changed = False
        for parent in list(document.root.iter()):
            for i, child in enumerate(parent):
                if child.tag != "include":
                    continue
                place = document.at(child, "file")
                target = files.find(child.get("file", ""), [files.folder, real.parent], place)
                document.adopt(_open(target, files, [*stack, real], place), parent, i)
                changed = True
                break
            if changed:
                break
    return document


def _gather(document: Document, files: Files, include: dict[str, bytes], stack: list[Path]) -> None:
    """Take every file in and let the document name it as an asset; folders are no longer needed."""
    compiler: dict[str, str] = {}
    for e in document.root.iter("compiler"):
        compiler |= e.attrib
        for key in ("meshdir", "texturedir", "assetdir", "strippath"):
            e.attrib.pop(key, None)
    strip = compiler.get("strippath") == "true"
    base = stack[-1].parent
    both = compiler.get("assetdir", "")
    folders = {
        _MESHES: base / compiler.get("meshdir", both),
        _TEXTURES: base / compiler.get("texturedir", both),
    }
    for e in document.root.iter():
        if e.tag == "model" and document.parent(e) is not None and "file" in e.attrib:
            _attach(document, e, files, include, stack)
            continue
        attributes, kind = _FILES.get(e.tag, ((), ""))
        for key in attributes:
            reference = e.get(key)
            if not reference:
                continue
            place = document.at(e, key)
            if strip:
                reference = re.split(r"[/\\]", reference)[-1]
            order = [folders[kind], *(f for f in folders.values() if f != folders[kind])]
            order = order if e.tag == "hfield" else order[:1]
            if e in files.included:  # MuJoCo looks beside the included file too
                order += [files.included[e]]
            path = files.find(reference, order, place)
            if e.tag in _NAMED_AFTER_FILE and "name" not in e.attrib and key == "file":
                e.set("name", Path(reference.replace("\\", "/")).stem)
            e.set(key, files.keep(path, place))


def _attach(document: Document, e: Element, files: Files, include: dict[str, bytes], stack: list[Path]) -> None:
    """Take in a model that is attached to this one."""
    place = document.at(e, "file")
    path = files.find(e.get("file", ""), [stack[-1].parent], place)
    if path in stack:
        raise InputError(f"the model attaches itself: {path.name}", where=place)
    if path.suffix.lower() not in (".xml", ".mjcf"):
        raise Unsupported(f"attaches {path.name}", where=place, allowed="MJCF files")
    child = _open(path, files, [], place)
    _gather(child, files, include, [*stack, path])
    check(child)
    name = f"{path.stem}_{len(include)}.xml"
    include[name] = child.text()[0].encode()
    if "name" not in e.attrib:
        e.set("name", child.root.get("model") or path.stem)
    e.set("file", name)


def _complained_about(err: CompileError, document: Document, starts: list[Element]) -> Element | None:
    """The element that a message of MuJoCo is about: by its line, else by a name it quotes."""
    if 0 < err.line_number <= len(starts):
        return starts[err.line_number - 1]
    for name in re.findall(r"name '([^']+)'|file '([^']+)'|'([^']+)'", err.what):
        quoted = next(x for x in name if x)
        for e in document.root.iter():
            if quoted in (e.get("name"), e.get("file")):
                return e
    return None


def _plain(message: str) -> str:
    """MuJoCo's message without its own idea of where."""
    text = re.sub(
        r",?\s*(Element ('[^']*'|name '[^']*')(, id \d+)?)?,?\s*line \d+\s*$", "", message, flags=re.IGNORECASE
    )
    text = re.sub(r"^(XML )?Error: (Error: )?", "", text.strip(), flags=re.IGNORECASE)
    return text.strip(" ,.") or message
