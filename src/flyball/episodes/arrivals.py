"""What arrives: the logs among files and folders, and what identifies each.

In: paths as a user or a watcher gives them. Out: ``Arrival``s in a fixed order, each one log (a file, or a folder that
a format claims as a whole), or something that is none with the reason; and the digest of a log's content. Nothing is
opened that could block: pipes, sockets and devices are refused by a look at the file system.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from flyball.base import InputError, Missing
from flyball.base.workspace import Workspace
from flyball.episodes.formats import file_format, folder_format

Place: TypeAlias = Literal["inbox", "quarantine", "store", ""]

UNFINISHED = (".part", ".tmp", ".active", ".crdownload", ".filepart", ".swp")
"""Endings of names of what is still being written."""
MOST_FILES = 1_000_000
"""Files that one folder may have as one log."""

_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class Arrival:
    """A log on its way in.

    Attributes:
      path: the file or folder.
      place: where it lies: in the workspace's ``inbox`` or ``quarantine`` (it moves on when it is done), in its
        ``store`` (``path`` is a stand-in for its name), or elsewhere ("": it is left alone).
      objection: why it is not even opened, "" when it is.
      digest: of a log in the store, "" for others.
    """

    path: Path
    place: Place = ""
    objection: str = ""
    digest: str = ""


@dataclass(frozen=True)
class Content:
    """What identifies a log.

    Attributes:
      digest: sha256 of the file, or of a folder's ``manifest``.
      size: in bytes.
      files: of a folder: (relative path, bytes, sha256) of each, in order of name; None for a file.
    """

    digest: str
    size: int
    files: tuple[tuple[str, int, str], ...] | None = None


def arrivals(workspace: Workspace, paths: Iterable[Path] | None) -> list[Arrival]:
    """Every log among some paths once, in order of the paths and, within folders, of names.

    Args:
      workspace: whose inbox and quarantine are special.
      paths: files, or folders searched for names that a format reads; None for the inbox, in which every name counts.

    Raises:
      Missing: a path does not exist.
      InputError: it cannot be looked at.
    """
    seen: set[Path] = set()
    found = []
    for path in [workspace.inbox] if paths is None else paths:
        for a in _arrivals(workspace, path):
            key = a.path.parent.resolve() / a.path.name
            if key not in seen:
                seen.add(key)
                found.append(a)
    return found


def place_of(workspace: Workspace, path: Path) -> Place:
    """Where in the workspace a path lies; a link lies where it is, not where it leads."""
    here = path.parent.resolve() / path.name
    if here.is_relative_to(workspace.inbox.resolve()):
        return "inbox"
    return "quarantine" if here.is_relative_to(workspace.quarantine.resolve()) else ""


def _arrivals(workspace: Workspace, path: Path) -> Iterator[Arrival]:
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError) as err:
        raise Missing("no such file or folder", where=str(path)) from err
    except (OSError, ValueError) as err:
        raise InputError(f"cannot be read ({getattr(err, 'strerror', err)})", where=str(path)) from err
    place = place_of(workspace, path)
    roots = [p.resolve() for p in (workspace.inbox, workspace.quarantine)]
    if not stat.S_ISDIR(status.st_mode):
        yield _looked_at(path, place)
    elif path.resolve() not in roots and folder_format(path) is not None:
        yield Arrival(path, place)
    else:
        yield from _walk(path, place)


def _walk(folder: Path, place: Place) -> Iterator[Arrival]:
    try:
        entries = sorted(folder.iterdir())
    except FileNotFoundError:
        return  # it vanished
    except OSError as err:
        yield Arrival(folder, place, f"cannot be read ({err.strerror})")
        return
    for path in entries:
        if path.name.startswith(".") or path.suffix.lower() in UNFINISHED:
            continue
        if path.is_dir() and not path.is_symlink():
            if _claimed(path):
                yield Arrival(path, place)
            else:
                yield from _walk(path, place)
        elif place == "inbox" or file_format(path) is not None:
            yield _looked_at(path, place)


def _claimed(folder: Path) -> bool:
    try:
        return folder_format(folder) is not None
    except OSError:
        return False  # walking it says what is wrong


def _looked_at(path: Path, place: Place) -> Arrival:
    """An arrival that is not a folder, with an objection unless it is a plain file."""
    try:
        if place == "inbox" and path.is_symlink():
            return Arrival(path, place, "a symbolic link; allowed: files and folders that lie in the inbox themselves")
        kind = stat.S_IFMT(path.stat().st_mode)
    except OSError as err:
        return Arrival(path, place, f"cannot be read ({err.strerror})")
    if kind != stat.S_IFREG:
        text = f"{_KINDS.get(kind, 'not a file')}; allowed: files, and folders of files"
        return Arrival(path, place, text)
    return Arrival(path, place)


# ---- content


def content(path: Path) -> Content:
    """What identifies a log.

    Raises:
      InputError: a folder with a link that leads out of it, or with something else than files and folders.
      OSError: it vanished, or cannot be read.
    """
    if not path.is_dir():
        with open(path, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
            return Content(digest, os.fstat(f.fileno()).st_size)
    files = []
    for inner in _inside(path):
        with open(inner, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
            files.append((inner.relative_to(path).as_posix(), os.fstat(f.fileno()).st_size, digest))
    listed = tuple(sorted(files))
    return Content(hashlib.sha256(manifest(listed)).hexdigest(), sum(size for _, size, _ in listed), listed)


def manifest(files: Iterable[tuple[str, int, str]]) -> bytes:
    """What the store keeps of a folder beside its files."""
    return json.dumps({"files": [list(f) for f in files]}, separators=(",", ":")).encode()


def files_of(blob: bytes) -> list[tuple[str, int, str]]:
    """Inverse of ``manifest``.

    Raises:
      InputError: not a manifest, or with a path that leads out of the folder.
    """
    try:
        found = [(str(name), int(size), str(digest)) for name, size, digest in json.loads(blob)["files"]]
    except (ValueError, KeyError, TypeError) as err:
        raise InputError(f"not the manifest of a folder ({err})") from err
    for name, _, _ in found:
        if name.startswith("/") or ".." in name.split("/"):
            raise InputError(f"{name!r} leads out of the folder", where="manifest")
    return found


def _inside(folder: Path) -> Iterator[Path]:
    """The files of a folder."""
    root, count = folder.resolve(), 0
    waiting = [folder]
    while waiting:
        for path in sorted(waiting.pop().iterdir()):
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise InputError(
                    f"{path.relative_to(folder)} is a symbolic link out of the folder",
                    where=str(folder),
                    allowed="files that lie in the folder themselves",
                )
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                if path.is_symlink():
                    raise InputError(
                        f"{path.relative_to(folder)} is a symbolic link to a folder",
                        where=str(folder),
                        allowed="folders themselves",
                    )
                waiting.append(path)
            elif stat.S_ISREG(mode):
                count += 1
                if count > MOST_FILES:
                    raise InputError(f"more than {MOST_FILES} files", where=str(folder), allowed="several folders")
                yield path
            else:
                kind = _KINDS.get(stat.S_IFMT(mode), "not a file")
                raise InputError(
                    f"{path.relative_to(folder)} is {kind}", where=str(folder), allowed="files and folders"
                )
