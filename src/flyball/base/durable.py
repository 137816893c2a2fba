"""Files that survive a kill: written to a temporary name, fsynced, renamed, and the folder fsynced.

In: bytes and plain rows. Out: files of which a reader sees the old or the new content, never a half-written one, and
append-only ledgers whose torn last line (a kill in the middle of a write) is dropped when they are opened.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flyball.base.errors import Conflict, Damaged


def sync_folder(folder: Path) -> None:
    """Make renames and deletions within a folder durable."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path, mode: int = 0o777) -> Path:
    """Create a folder and its parents, durably."""
    if not folder.is_dir():
        make_folder(folder.parent)
        folder.mkdir(mode=mode, exist_ok=True)
        sync_folder(folder.parent)
    return folder


def move_durably(source: Path, target: Path) -> None:
    """Rename an already fsynced file over ``target`` (same file system) and make that durable."""
    os.replace(source, target)
    sync_folder(target.parent)
    if source.parent != target.parent:
        sync_folder(source.parent)


def write_durably(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that a kill leaves the old content or the new, never a mixture."""
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(fd, "wb") as f:
        f.write(data)
        f.flush()
        os.fsync(f.fileno())
    move_durably(temporary, path)


def write_json(path: Path, data: Any) -> None:
    """``write_durably`` of one JSON document."""
    write_durably(path, json.dumps(data, sort_keys=True).encode())


def read_json(path: Path, default: Any = None) -> Any:
    """The JSON document at ``path``; ``default`` when there is no such file.

    Raises:
      Damaged: the file is not JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return default
    except ValueError as err:
        raise Damaged(f"not JSON ({err})", where=str(path)) from err


def remove_durably(path: Path) -> None:
    """Delete a file, if it is there, and make that durable."""
    if path.exists():
        path.unlink(missing_ok=True)
        sync_folder(path.parent)


class Ledger:
    """An append-only file of JSON rows, one writer, each row durable when ``append`` returns."""

    def __init__(self, path: Path) -> None:
        """Open or create; drops a torn last line.

        Raises:
          Damaged: a complete line is not JSON.
        """
        make_folder(path.parent)
        existed = path.exists()
        self.path = path
        self._file = open(path, "a+b")  # noqa: SIM115 - lives as long as the ledger
        self._file.seek(0)
        data = self._file.read()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            self._file.truncate(whole)
        try:
            self.rows: list[Any] = [json.loads(line) for line in data[:whole].splitlines()]
        except ValueError as err:
            raise Damaged(f"a row is not JSON ({err})", where=str(path)) from err
        if not existed:
            sync_folder(path.parent)

    def append(self, row: Any) -> None:
        """Add a row."""
        self._file.write(json.dumps(row, sort_keys=True).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.rows.append(row)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


@contextmanager
def only_holder(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an exclusive lock on ``path`` (created if need be); the system frees it when the process dies.

    Raises:
      Conflict: somebody else still holds it after ``wait_s``.
    """
    make_folder(path.parent)
    until = time.monotonic() + wait_s
    with open(path, "a") as f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as err:
                if time.monotonic() >= until:
                    raise Conflict("another process holds this lock", where=str(path)) from err
                time.sleep(0.02)
        yield
