"""Files that survive a kill and a power cut: fsynced under a temporary name, renamed, and the folder fsynced.

In: bytes and plain rows. Out: files of which a reader sees the old or the new content, never a half-written one, and
append-only ledgers whose torn last line (a kill in the middle of a write) is dropped when they are opened. What a disk
refuses becomes one clear line (``disk_errors``).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flyball.base.errors import Conflict, Damaged, InputError, NotPossible

_durable: dict[str, tuple[int, int]] = {}  # folders whose names this process knows to be on disk -> device, inode


@contextmanager
def disk_errors(where: Path) -> Iterator[None]:
    """Wrap what a disk refuses; other errors of the operating system pass.

    Raises:
      NotPossible: no space left, or the device fails.
      InputError: no permission, or mounted read-only.
    """
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            again = "free space, then the same again"
            raise NotPossible("no space left on the disk", where=str(where), run_next=again) from err
        if err.errno == errno.EIO:
            again = "look at the disk (dmesg), then the same again"
            raise NotPossible("the disk failed (input/output error)", where=str(where), run_next=again) from err
        if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError("not writable", where=str(where), allowed="a folder you may write to") from err
        raise


def sync_folder(folder: Path) -> None:
    """Make renames and deletions within a folder durable."""
    with disk_errors(folder):
        _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def sync_file(path: Path) -> None:
    """Make the content of a file durable, whoever wrote it; not its name."""
    with disk_errors(path):
        _sync(path, os.O_RDONLY)


def _sync(path: Path, flags: int) -> None:
    fd = os.open(path, flags)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folder(folder: Path, mode: int = 0o777) -> Path:
    """Create a folder and its parents, if need be. All their names are durable when it returns, whoever made them.

    For what is there already that costs one fsync per folder and process: its maker may have been killed before his.
    """
    here = folder.absolute()
    with disk_errors(here):
        try:
            found = here.stat()
        except FileNotFoundError:
            make_folder(here.parent)
            here.mkdir(mode=mode, exist_ok=True)
            found = here.stat()
        else:
            if _durable.get(str(here)) == (found.st_dev, found.st_ino):
                return folder
            above = here.parent.stat()
            if here == here.parent or above.st_dev != found.st_dev or not os.access(here.parent, os.W_OK):
                return folder  # a mount point, or in somebody else's folder: not made by a process like this one
            make_folder(here.parent)
            here.mkdir(exist_ok=True)  # complains when it is a file
        sync_folder(here.parent)
        _durable[str(here)] = (found.st_dev, found.st_ino)
    return folder


def move_durably(source: Path, target: Path) -> None:
    """Rename a file over ``target`` (same file system); content and name are durable when it returns."""
    with disk_errors(target):
        sync_file(source)
        os.replace(source, target)
        sync_folder(target.parent)
        if source.parent != target.parent:
            sync_folder(source.parent)


def write_durably(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write a file so that a kill leaves the old content or the new, never a mixture. Threads and processes may race.

    Raises:
      NotPossible: the disk is full or fails; the old content stays.
    """
    make_folder(path.parent)
    temporary = path.with_name(f".{path.name[:200]}.tmp")
    with disk_errors(path):
        fd = _claimed(temporary, mode)
        try:
            with os.fdopen(fd, "wb", closefd=False) as f:
                f.write(data)
                f.flush()
                os.fsync(fd)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(fd)
        sync_folder(path.parent)


def _claimed(path: Path, mode: int) -> int:
    """A new, empty, locked file; waits for another who has it, and takes it from one that was killed."""
    while True:
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            left = False
        except FileExistsError:
            try:
                fd = os.open(path, os.O_WRONLY)
            except FileNotFoundError:
                continue
            left = True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if is_still(path, fd):
                if not left:
                    return fd
                path.unlink()  # we hold the lock, so its writer is no more
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def is_still(path: Path, fd: int) -> bool:
    """Whether a path leads to the open file; not so when somebody renamed or removed it meanwhile."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


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
    with disk_errors(path):
        path.unlink(missing_ok=True)
        sync_folder(path.parent)  # also if it was gone: whoever deleted it may not have come as far as this


class Ledger:
    """An append-only file of JSON rows, one writer, each row durable when ``append`` returns."""

    def __init__(self, path: Path) -> None:
        """Open or create; drops a torn last line. The rows it finds are durable.

        Raises:
          Damaged: a complete line is not JSON.
          NotPossible: the disk is full or fails.
        """
        make_folder(path.parent)
        self.path = path
        with disk_errors(path):
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115 - lives as long as the ledger
            self._file.seek(0)
            data = self._file.read()
            lines = data.splitlines(keepends=True)
            # After a power cut, sectors of the last row that did not reach the disk read as zeros.
            while lines and (not lines[-1].endswith(b"\n") or b"\0" in lines[-1]):
                lines.pop()
            try:
                self.rows: list[Any] = [json.loads(line) for line in lines]
            except ValueError as err:
                self._file.close()
                raise Damaged(f"a row is not JSON ({err})", where=str(path)) from err
            self._size = sum(map(len, lines))
            self._torn = self._size < len(data)
            self._mend()
            os.fsync(self._file.fileno())
            sync_folder(path.parent)

    def append(self, row: Any) -> None:
        """Add a row.

        Raises:
          NotPossible: the disk is full or fails; the row is not there then.
        """
        data = json.dumps(row, sort_keys=True).encode() + b"\n"
        with disk_errors(self.path):
            self._mend()
            self._torn = True
            at = 0
            while at < len(data):
                at += self._file.write(data[at:])
            os.fsync(self._file.fileno())
        self._size += len(data)
        self._torn = False
        self.rows.append(row)

    def _mend(self) -> None:
        """Cut off what a failed write left."""
        if self._torn:
            self._file.truncate(self._size)
            self._torn = False

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
    with disk_errors(path):
        f = open(path, "a")  # noqa: SIM115 - closed below
    with f:
        while True:
            try:
                fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as err:
                if time.monotonic() >= until:
                    raise Conflict("another process holds this lock", where=str(path)) from err
                time.sleep(0.02)
        yield
