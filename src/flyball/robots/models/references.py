"""Files that a model refers to.

In: a reference as it stands in a model (relative path, ``package://``, ``model://``, ``file://``). Out: the bytes of a
regular file inside the permitted folder, its size looked at before it is read, or one line that names the element.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import unquote
from xml.etree.ElementTree import Element

from flyball.base import InputError
from flyball.robots.models.imported import ReadOptions

_MARKS = ("package.xml", "LICENSE", "LICENSE.txt", "LICENSE.md", "COPYING", ".git", "pyproject.toml", "setup.py")
LARGEST_SUM = 2 << 30
"""Of all files of one model [bytes]."""


class Files:
    """What one model may read.

    Args:
      model: the model's file.
      options: permitted folder, packages and largest file.
    """

    def __init__(self, model: Path, options: ReadOptions) -> None:
        self.options = options
        self.folder = model.resolve().parent
        self.root = options.root.resolve() if options.root else package_root(self.folder)
        self.used: dict[Path, str] = {}
        self.assets: dict[str, bytes] = {}
        self.included: dict[Element, Path] = {}
        """Element of an included file -> that file's folder."""
        self._sum = 0

    def find(self, reference: str, folders: Sequence[Path], where: str) -> Path:
        """The file that a reference means; relative ones are looked for in each of ``folders``, in order.

        Raises:
          InputError: none there, not a regular file, outside the permitted folder, or too large.
        """
        if not reference.strip() or "\0" in reference:
            raise InputError("an empty file name", where=where)
        tried = []
        for candidate, root in self._candidates(reference, folders, where):
            try:
                real = candidate.resolve()
                inside = real.is_relative_to(root)
                if not inside:
                    tried.append(f"{candidate} lies outside {root}")
                    continue
                found = os.stat(real)
            except (FileNotFoundError, NotADirectoryError):
                tried.append(str(candidate))
                continue
            except (OSError, RuntimeError, ValueError) as err:  # a loop of links, a name that is too long
                raise InputError(f"{reference[:200]!r} cannot be opened: {err}", where=where) from err
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{reference!r} is not a regular file", where=where)
            if found.st_size > self.options.largest_file:
                size, most = found.st_size / 1e6, self.options.largest_file / 1e6
                raise InputError(f"{reference!r} has {size:.0f} MB", where=where, allowed=f"up to {most:.0f} MB a file")
            return real
        if tried and all("outside" in t for t in tried):
            again = "--root DIR names a wider folder, if you trust the model"
            raise InputError(f"{reference!r}: {tried[0]}", where=where, allowed="files inside it", run_next=again)
        raise InputError(f"no file {reference!r} (looked at {', '.join(tried[:3])})", where=where)

    def read(self, path: Path, where: str) -> bytes:
        """The bytes of a file that ``find`` returned."""
        try:
            data = path.read_bytes()
        except OSError as err:
            raise InputError(f"{path.name} cannot be read: {err.strerror}", where=where) from err
        self._sum += len(data)
        if self._sum > LARGEST_SUM:
            raise InputError(f"more than {LARGEST_SUM >> 20} MB of files", where=where, allowed="less in one model")
        return data

    def keep(self, path: Path, where: str, suffix: str = "", data: bytes | None = None, variant: str = "") -> str:
        """Take a file into the model's assets, once; returns its name there."""
        key = Path(f"{path}{variant}")
        if key in self.used:
            return self.used[key]
        stem = re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem) or "file"
        suffix = suffix or path.suffix
        taken = {name.lower() for name in self.assets}
        name, n = f"{stem}{suffix}", 2
        while name.lower() in taken:
            name, n = f"{stem}_{n}{suffix}", n + 1
        self.assets[name] = self.read(path, where) if data is None else data
        self.used[key] = name
        return name

    def _candidates(self, reference: str, folders: Sequence[Path], where: str) -> list[tuple[Path, Path]]:
        """Where a reference may lie, each with the folder it has to stay in."""
        scheme, found, rest = reference.partition("://")
        if not found:
            text = reference.replace("\\", "/")
            path = Path(text)
            if path.is_absolute():
                return [(path, self.root)]
            return [(folder / path, self.root) for folder in folders]
        rest = unquote(rest)
        if scheme == "file":
            path = Path(rest if rest.startswith("/") else f"/{rest}")
            return [(path, self.root)]
        if scheme not in ("package", "model"):
            raise InputError(f"{reference!r}: nothing is fetched over {scheme}", where=where, allowed="files on disk")
        package, _, inner = rest.lstrip("/").partition("/")
        if package in ("", ".", ".."):
            raise InputError(f"{reference!r} names no package", where=where)
        places = _packages(package, self.folder, self.options.packages, self.options.elsewhere)
        if not places:
            again = f"--package {package}=DIR"
            raise InputError(f"package {package!r} was not found", where=where, run_next=again)
        return [(place / inner, place.resolve()) for place in places]


def _packages(name: str, folder: Path, known: Mapping[str, Path], elsewhere: Mapping[str, Path]) -> list[Path]:
    """Folders of a ROS package: as told; one above the model that says so; as the environment has it; or by name."""
    if name in known:
        return [known[name]]
    above = [folder, *folder.parents][:6]
    own = [p for p in above if (p / "package.xml").is_file() and package_name(p) == name]
    if own or name in elsewhere:
        return own[:1] or [elsewhere[name]]
    return [p for a in above for p in (a if a.name == name else None, a / name) if p is not None and p.is_dir()]


def package_name(folder: Path) -> str:
    """The name that a ROS package states in its ``package.xml``, else its folder's."""
    with (folder / "package.xml").open("rb") as f:
        text = f.read(1 << 16).decode("utf-8", "replace")
    stated = re.search(r"<name>\s*([\w-]+)\s*</name>", text)
    return stated[1] if stated else folder.name


def package_root(folder: Path) -> Path:
    """The nearest folder that looks like a package's own, else the one above the model's."""
    for above in [folder, *folder.parents][:5]:
        if any((above / mark).exists() for mark in _MARKS):
            return above
    return folder.parent
