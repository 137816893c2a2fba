"""What a log format reads into: room for columns and pictures larger than the memory, and a list of what to report.

In: arrays and encoded pictures, piece by piece. Out: arrays (in memory, or mapped from temporary files once they are
many), ``Frames`` whose bytes lie in files that ingest takes into the store, and notes for the user.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyball.episodes.episode import Frames

MEMORY = 96 << 20
"""Bytes that one intake holds in memory before columns move into files."""

Kind = Literal["unmapped", "clock", "salvaged", "skipped", "converted"]


@dataclass(frozen=True)
class Note:
    """Something the user is told about a log that was read.

    Attributes:
      kind: ``unmapped`` (not understood, it stays in the raw log), ``clock`` (time was off or repaired), ``salvaged``
        (damaged; says what was saved and what was not), ``skipped`` (left out for another reason), ``converted`` (to
        other units).
      text: one line.
    """

    kind: Kind
    text: str


@dataclass
class Intake:
    """Room and reports for reading one log.

    Args:
      folder: an empty folder for temporary files; whoever made it removes it when the episodes are stored.
      salvage: read what is intact of a damaged log, with a note, instead of refusing it.
      memory: bytes of columns that stay in memory.
      options: settings of formats, e.g. ``{"table.time": "t"}``.

    Attributes:
      notes: what is to be reported.
      blobs: digest -> file of a camera's pictures, see ``FramesWriter``.
      named: set by a format whose log has the body's own names already (our recordings): no channel map applies.
      whole: set by a format whose log says itself where episodes begin and end: none is cut.
    """

    folder: Path
    salvage: bool = False
    memory: int = MEMORY
    options: Mapping[str, str] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    blobs: dict[str, Path] = field(default_factory=dict)
    named: bool = False
    whole: bool = False
    _columns: list[Column] = field(default_factory=list, repr=False)
    _files: int = 0

    def note(self, kind: Kind, text: str) -> None:
        """Report something, once."""
        note = Note(kind, text)
        if note not in self.notes:
            self.notes.append(note)

    def column(self, dtype: Any, shape: tuple[int, ...] = ()) -> Column:
        """An array that grows along its first axis; samples have this type and shape."""
        made = Column(self, np.dtype(dtype), shape)
        self._columns.append(made)
        return made

    def frames(self, name: str, encoding: str, height: int = 0, width: int = 0) -> FramesWriter:
        """A camera's pictures, to be appended one by one; see ``Frames`` for the arguments."""
        return FramesWriter(self, name, encoding, height, width)

    def file(self) -> Path:
        """A name for a temporary file."""
        self._files += 1
        return self.folder / f"{self._files}.part"

    def _relieve(self) -> None:
        """Move the largest columns into files until the rest fits."""
        held = sum(c.held for c in self._columns)
        for column in sorted(self._columns, key=lambda c: -c.held):
            if held <= self.memory:
                break
            held -= column.held
            column.spill()


class Column:
    """A growing array; see ``Intake.column``."""

    def __init__(self, intake: Intake, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self._intake, self.dtype, self.shape = intake, dtype, shape
        self._parts: list[NDArray[Any]] = []
        self._path: Path | None = None
        self._spilled = 0
        self.held = 0
        self.length = 0

    def append(self, samples: NDArray[Any]) -> None:
        """Add samples, shape (k, *shape); copied, so that views keep no larger buffer alive."""
        part = np.array(samples, self.dtype).reshape(-1, *self.shape)
        self._parts.append(part)
        self.length += len(part)
        self.held += part.nbytes
        if self.held > self._intake.memory // 16:
            self._intake._relieve()

    def spill(self) -> None:
        """Move what is in memory to the end of the file."""
        if self._path is None:
            self._path = self._intake.file()
        with open(self._path, "ab") as f:
            for part in self._parts:
                f.write(part.data)
        self._spilled += sum(len(p) for p in self._parts)
        self._parts, self.held = [], 0

    def array(self) -> NDArray[Any]:
        """All samples, (n, *shape): in memory when nothing was spilled, else mapped from the file, read-only."""
        if self._path is None:
            if len(self._parts) != 1:
                self._parts = [np.concatenate([np.zeros((0, *self.shape), self.dtype), *self._parts])]
            return self._parts[0]
        self.spill()
        return np.memmap(self._path, self.dtype, "r", shape=(self._spilled, *self.shape))

    def ordered(self, order: NDArray[np.int64] | None) -> NDArray[Any]:
        """All samples, (n, *shape), in another order, which is applied piece by piece; None for as they are."""
        if order is None:
            return self.array()
        values, out = self.array(), self._intake.column(self.dtype, self.shape)
        step = max(1, (4 << 20) // max(1, values[:1].nbytes))
        for at in range(0, len(order), step):
            out.append(values[order[at : at + step]])
        return out.array()


def release(*arrays: NDArray[Any]) -> None:
    """Give back the memory that reading mapped arrays took (their values stay in the file); others are left alone.

    What has been read of a mapped file counts as memory of the process, until the system needs it or this is called.
    """
    for array in arrays:
        base: Any = array
        while base is not None and not isinstance(base, mmap.mmap):
            base = getattr(base, "base", None)
        if base is not None:
            base.madvise(mmap.MADV_DONTNEED)


class FramesWriter:
    """Pictures of one camera on their way into a file of their own."""

    def __init__(self, intake: Intake, name: str, encoding: str, height: int, width: int) -> None:
        self._intake, self.name, self.encoding = intake, name, encoding
        self.height, self.width = height, width
        self._path = intake.file()
        self._file = open(self._path, "wb")  # noqa: SIM115 - closed by close()
        self._hash = hashlib.sha256()
        self._t_ns: list[int] = []
        self._stop: list[int] = []
        self._key: list[bool] = []
        self._size = 0

    def append(self, t_ns: int, picture: bytes | memoryview, *, key: bool = True) -> None:
        """Add an encoded picture; ``key`` when it can be decoded without those before it."""
        self._file.write(picture)
        self._hash.update(picture)
        self._size += len(picture)
        self._t_ns.append(t_ns)
        self._stop.append(self._size)
        self._key.append(key)

    def close(self) -> Frames:
        """The stream; a still-picture stream is put in order of time, a video keeps the order it was sent in.

        Time stamps of a video that run backwards are raised to the one before, with a note.
        """
        self._file.close()
        blob = self._hash.hexdigest()
        self._intake.blobs[blob] = self._path
        t_ns, stop = np.array(self._t_ns, np.int64), np.array(self._stop, np.int64)
        start, key = np.concatenate([np.zeros(1, np.int64), stop])[:-1], np.array(self._key, bool)
        back = int((t_ns[1:] < t_ns[:-1]).sum())
        if back and key.all():
            order = np.argsort(t_ns, kind="stable")
            t_ns, start, stop, key = t_ns[order], start[order], stop[order], key[order]
        elif back:
            t_ns = np.maximum.accumulate(t_ns)
        if back:
            self._intake.note("clock", f"{self.name}: {back} time stamps ran backwards")
        return Frames(self.name, self.encoding, self.height, self.width, blob, t_ns, start, stop, key)
