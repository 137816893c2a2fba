"""What every reader of robot models gives and every writer takes, and the table of both.

In: a model file of any format in the table. Out: ``Imported``: MJCF text that compiles in memory with its assets, the
facts of the compiled model, a sidecar for what the format cannot say, and every assumption and loss in words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from flyball.base import InputError, PluginTable, Unsupported
from flyball.robots.models.model import Model

model_formats = PluginTable(
    "model format",
    "flyball.model_formats",
    {
        "mjcf": "flyball.robots.models.mjcf:MjcfFormat",
        "urdf": "flyball.robots.models.urdf:UrdfFormat",
        "usd": "flyball.scenes.usd:UsdFormat",
    },
)
"""Name -> a ``ModelFormat`` class without constructor arguments."""

_SUFFIXES = {".usd": "usd", ".usda": "usd", ".usdc": "usd", ".usdz": "usd", ".urdf": "urdf", ".mjcf": "mjcf"}


@dataclass(frozen=True)
class ReadOptions:
    """How to read a model.

    Attributes:
      base: whether the root body is fixed to the world or floats, for formats that do not say (URDF); None takes the
        format's own convention and notes it.
      packages: name -> folder, for ``package://name/...``.
      elsewhere: packages that the environment knows; a folder above the model that says it is the package goes before.
      root: files outside this folder are refused; None: the nearest folder above the model that holds a
        ``package.xml``, a licence or a project file, else the folder above the model's own.
      mend: make inertias that no body can have just possible, and list them; else they are refused.
      largest_file: of one file [bytes]; it is looked at before reading.
    """

    base: Literal["fixed", "floating"] | None = None
    packages: Mapping[str, Path] = field(default_factory=dict)
    elsewhere: Mapping[str, Path] = field(default_factory=dict)
    root: Path | None = None
    mend: bool = False
    largest_file: int = 256 << 20


@dataclass(frozen=True, eq=False)
class Imported:
    """A robot, object or world model, read.

    Attributes:
      name: of the model.
      mjcf: MJCF text without includes or folders; file names in it are keys of ``assets``.
      assets: file name -> content.
      model: facts of the compiled model.
      sidecar: what the source format could not say and its sidecar said (see ``flyball.robots.models.sidecar``).
      notes: assumptions made, and what looks wrong (units).
      losses: what of the source did not come through.
      mended: numbers that were changed because no body can have them; each is among the notes or losses too.
      format: name of the source format.
      source: the file.
      licence: first line of the licence found beside the model, "" when none was.
      folder: the licence's or model's folder.
    """

    name: str
    mjcf: str
    assets: Mapping[str, bytes]
    model: Model
    sidecar: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    format: str = "mjcf"
    source: Path = Path()
    licence: str = ""

    @property
    def base(self) -> str:
        """``fixed``, ``floating``, ``mixed`` or ``none``; see ``Model.base``."""
        return self.model.base

    def compile(self) -> Any:
        """A fresh ``mujoco.MjModel``."""
        import mujoco

        return mujoco.MjSpec.from_string(self.mjcf, assets=dict(self.assets)).compile()


class ModelFormat(Protocol):
    """A reader and writer of one format."""

    name: str
    suffixes: tuple[str, ...]
    """File suffixes, with the dot; the first is written."""

    def read(self, path: Path, options: ReadOptions) -> Imported:
        """Read a model.

        Raises:
          InputError: naming the element.
          NotPossible: a library is missing.
        """

    def write(self, imported: Imported, folder: Path) -> tuple[Path, list[str]]:
        """Write a model with its meshes and sidecar into an existing folder.

        Returns:
          The model's file, and what this format or its sidecar could not carry.
        """


def load(path: Path, options: ReadOptions | None = None) -> Imported:
    """Read a robot, object or world model of any format.

    Raises:
      InputError: no such file, unknown format, or bad content; names the element.
      NotPossible: the format's library is not installed.
    """
    path = Path(path)
    return model_formats.load(format_of(path))().read(path, options or ReadOptions())


def format_of(path: Path) -> str:
    """Name of the format of a file, by its suffix; ``.xml`` and ``.urdf`` by their root element.

    Raises:
      InputError: no such file, or no format of ours.
    """
    if not path.is_file():
        raise InputError("no such file" if not path.exists() else "not a file", where=str(path))
    suffix = path.suffix.lower()
    if suffix == ".xacro":
        raise Unsupported("xacro is a macro language", where=str(path), run_next=f"xacro {path} > {path.stem}.urdf")
    if suffix == ".xml":
        from flyball.robots.models.markup import root_tag

        return "urdf" if root_tag(path) == "robot" else "mjcf"
    if suffix in _SUFFIXES:
        return _SUFFIXES[suffix]
    for name in model_formats.names():
        if name not in _SUFFIXES.values() and suffix in model_formats.load(name).suffixes:
            return name
    raise InputError(
        f"no model format has the suffix {suffix!r}", where=str(path), allowed=".xml " + " ".join(_SUFFIXES)
    )
