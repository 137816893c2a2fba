"""Robot models that are on this machine, found by looking, not by importing anybody's code.

In: where to look (installed packages, another ``site-packages``, folders) and who knows how (the table ``sources``).
Out: ``FoundModel``: a name such as ``robosuite/panda``, the file, its format, its licence, and a way to load it.
Flyball ships none of these models and downloads none.
"""

from __future__ import annotations

import difflib
import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TypeAlias

from flyball.base import InputError, Missing, NotPossible, PluginTable
from flyball.robots import licences
from flyball.robots.licences import Licence
from flyball.robots.models.references import package_root

if TYPE_CHECKING:
    from flyball.robots.models import Imported, ReadOptions

FORMATS = {".urdf": "urdf", ".xml": "mjcf", ".mjcf": "mjcf", ".sdf": "sdf"} | dict.fromkeys(
    (".usd", ".usda", ".usdc", ".usdz"), "usd"
)
"""Suffix -> format. SDF is listed although it is not imported: that a robot exists is worth knowing."""
_GENERIC = {
    "assets",
    "description",
    "envs",
    "mjcf",
    "model",
    "models",
    "robot",
    "robots",
    "tasks",
    "urdf",
    "xml",
    "xmls",
}
"""Words of a path that tell models apart for nobody."""
MOST_NEAR = 5
"""Names that an error lists."""
_ENOUGH = 16 << 20
"""Of a file's text to see whether it is a model [bytes]; the largest published one has less than 3 MB."""


@dataclass(frozen=True)
class FoundModel:
    """A model on disk, or one that Flyball builds.

    Attributes:
      name: ``package/model``; unique within a search.
      format: mjcf | urdf | usd | sdf.
      file: where it is; of a model that is built, a name that no file has.
      version: of the package, "" when unknown.
      licence: as found.
      packages: name -> folder, for the ``package://name/...`` of its meshes.
      root: the folder outside which the model needs nothing.
      mjcf: text of a model that is built.
    """

    name: str
    format: str
    file: Path
    version: str = ""
    licence: Licence = field(default_factory=Licence)
    packages: Mapping[str, Path] = field(default_factory=dict)
    root: Path | None = None
    mjcf: str = ""

    @property
    def package(self) -> str:
        """First part of the name."""
        return self.name.partition("/")[0]

    def load(self, options: ReadOptions | None = None) -> Imported:
        """Import it.

        Args:
          options: how to read; its packages and root go before those found.

        Raises:
          InputError: naming the element.
          NotPossible: the format's library is not installed.
        """
        from flyball.robots.models import ReadOptions, load

        how = options or ReadOptions()
        if self.mjcf:
            with tempfile.TemporaryDirectory(prefix="flyball-") as folder:
                file = Path(folder, self.file.name)
                file.write_text(self.mjcf)
                imported = load(file, how)
        else:
            packages = {**self.packages, **how.packages}
            imported = load(self.file, replace(how, packages=packages, root=how.root or self.root))
        return imported if imported.licence else replace(imported, licence=self.licence.name)


@dataclass(frozen=True)
class NotInstalled:
    """A package that ships models and is not there.

    Attributes:
      package: first part of its models' names.
      about: what it holds, its licence and size, in a few words.
      get: the command that gets it.
    """

    package: str
    about: str
    get: str


@dataclass(frozen=True)
class Search:
    """Where to look.

    Attributes:
      site: folder that packages were installed into, or an environment; None: this Python's own packages.
      folders: folders with models.
      environment: environment variables (``ROS_PACKAGE_PATH``, ``AMENT_PREFIX_PATH``, ...).
    """

    site: Path | None = None
    folders: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))


Source: TypeAlias = Callable[[Search], Iterable["FoundModel | NotInstalled"]]
sources = PluginTable(
    "source of models",
    "flyball.zoo",
    {
        "flyball": "flyball.robots.zoo.own:own",
        "packages": "flyball.robots.zoo.packages:installed",
        "folders": "flyball.robots.zoo.folders:folders",
    },
)
"""Name -> a ``Source``; packages add theirs through the entry-point group ``flyball.zoo``."""


def search(where: Search) -> tuple[list[FoundModel], list[NotInstalled]]:
    """Everything that all sources find.

    Raises:
      InputError: a folder that is none.
    """
    for folder in (*([where.site] if where.site else []), *where.folders):
        if not folder.is_dir():
            raise InputError("no such folder", where=str(folder))
    if where.site and (inner := sorted(where.site.glob("lib/python3*/site-packages"))):
        where = replace(where, site=inner[-1])
    models: dict[str, FoundModel] = {}
    missing: list[NotInstalled] = []
    for name in sources.names():
        for found in sources.load(name)(where):
            if isinstance(found, NotInstalled):
                missing.append(found)
            else:
                models.setdefault(found.name, found)
    return sorted(models.values(), key=lambda m: m.name), missing


def find(name: str, where: Search) -> FoundModel:
    """A model by its name, by the end of its name where that is unique, or by its file.

    Raises:
      InputError: what must be a file does not exist.
      Missing: no such model, or several.
      NotPossible: its package is not installed; says how to get it.
    """
    if (file := Path(name)).is_file():
        folder = file.resolve().parent
        found = licences.beside(file.resolve(), package_root(folder)) or Licence()
        return FoundModel(f"{folder.name}/{file.stem}", FORMATS.get(file.suffix.lower(), ""), file, "", found)
    models, missing = search(where)
    fits = [m for m in models if m.name == name] or [m for m in models if m.name.endswith(f"/{name}")]
    if len(fits) == 1:
        return fits[0]
    if fits:
        raise Missing(f"{len(fits)} models are named {name!r}", allowed=", ".join(m.name for m in fits))
    package = name.partition("/")[0]
    if absent := next((m for m in missing if m.package == package), None):
        raise NotPossible(f"{package} is not installed ({absent.about})", where=name, run_next=absent.get)
    if file.suffix.lower() in (*FORMATS, ".xacro"):
        raise InputError("no such file" if not file.exists() else "not a file", where=name, run_next="flyball robots")
    if file.is_dir():
        raise InputError("a folder", where=name, allowed="models", run_next=f"flyball robots --path {name}")
    of_package = [m.name for m in models if m.package == package]
    raise Missing.named("model", name, _near(name, of_package or [m.name for m in models]), run_next="flyball robots")


def _near(name: str, names: Sequence[str]) -> list[str]:
    """The names most like one, whole or by their ends; there may be hundreds."""
    ends = {end: full for full in names for end in (full, full.rpartition("/")[2])}
    close = difflib.get_close_matches(name.rpartition("/")[2], ends, n=MOST_NEAR, cutoff=0.5)
    close += [full for full in names if name.lower() in full.lower()]
    return [*dict.fromkeys(ends.get(c, c) for c in close)][:MOST_NEAR]


def is_model(file: Path) -> bool:
    """Whether a file is a whole model: no part that others include, no other XML. Only its text is looked at."""
    form = FORMATS.get(file.suffix.lower())
    if form in (None, "usd", "sdf"):
        return form is not None
    from flyball.robots.models.markup import root_tag

    try:
        tag = root_tag(file)
        with file.open("rb") as f:
            text = f.read(_ENOUGH)
    except OSError:  # not ours to read, or gone
        return False
    if tag == "robot":
        return b"<link" in text
    # bodies outside a worldbody are a part, meant to be included
    return tag == "mujoco" and ((b"<worldbody" in text and b"<body" in text) or b"<include" in text)


def named(files: Sequence[Path], top: Path) -> Iterator[tuple[str, Path]]:
    """Short names that tell the files apart: the end of each path without words that say nothing.

    Args:
      files: under ``top``.
    """
    parts = {}
    for file in files:
        words = PurePosixPath(file.relative_to(top).as_posix()).with_suffix("").parts
        parts[file] = tuple(w for w in words if w.lower() not in _GENERIC and not w.startswith("_")) or words[-1:]
    longest = max(map(len, parts.values()), default=0)
    counts = [Counter(p[-n:] for p in parts.values()) for n in range(1, longest + 1)]
    for file, words in parts.items():
        size = next((n for n in range(1, len(words) + 1) if counts[n - 1][words[-n:]] == 1), 0)
        yield "/".join(words[-size:]) if size else file.relative_to(top).as_posix(), file
