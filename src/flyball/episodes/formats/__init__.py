"""Log formats: one file per format, found by the suffix of a file's name or by a look at a folder.

In: a log, which is a file or (for some formats) a folder. Out: its episodes, one by one. A format outside the tree
registers in the entry-point group ``flyball.formats`` and passes ``flyball.episodes.testing.check_format``.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Protocol

from flyball.base import InputError, NotPossible, PluginTable, Unsupported
from flyball.episodes.episode import Episode
from flyball.episodes.intake import Intake

formats = PluginTable(
    "log format",
    "flyball.formats",
    {
        "mcap": "flyball.episodes.formats.mcap_log:FORMAT",
        "lerobot": "flyball.episodes.formats.lerobot:FORMAT",
        "rlds": "flyball.episodes.formats.rlds:FORMAT",
        "ros1_bag": "flyball.episodes.formats.ros1_bag:FORMAT",
        "ros2_bag": "flyball.episodes.formats.ros2_bag:FORMAT",
        "table": "flyball.episodes.formats.table:FORMAT",
        "ulog": "flyball.episodes.formats.ulog:FORMAT",
    },
)

OURS = "flyball"
"""Name of the metadata record, and of the channel metadata key, by which a log says that ``Recorder`` wrote it."""


class LogFormat(Protocol):
    """How logs of one kind become episodes.

    A format may also have ``complete(path) -> bool``: whether a file has its end, for files that are watched while they
    are written.
    """

    suffixes: tuple[str, ...]
    """Lower-case endings of file names, with the dot; empty for a format whose logs are folders only."""

    def claims(self, folder: Path) -> bool:
        """Whether a folder as a whole is one log of this format. Cheap: a look at names, not at contents."""

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """The episodes in a log, in order; the same bytes, path and options give the same episodes.

        Memory stays bounded whatever the size of the log: arrays grow in ``intake.column``, pictures in
        ``intake.frames``. An episode that was yielded may be used until ``intake.folder`` is removed.

        Args:
          path: the file, or a folder that the format claims. Its name may say what the content does not.
          intake: room, options and reports.

        Raises:
          Damaged: the bytes are not what they claim to be; says the offset and what was intact before it.
          InputError: a sound log that holds no episode.
        """


@cache
def formats_by_suffix() -> dict[str, LogFormat]:
    """File name suffix -> format; formats whose library is not installed are left out."""
    return {suffix: f for f in _installed() for suffix in f.suffixes}


def suffix_of(path: Path) -> str:
    """The part of a file's name by which its format is found, in lower case: the longest that some format reads."""
    name = path.name.lower()
    known = [s for s in formats_by_suffix() if name.endswith(s) and len(name) > len(s)]
    return max(known, key=len) if known else path.suffix.lower()


@cache
def _installed() -> tuple[LogFormat, ...]:
    found: list[LogFormat] = []
    for name in formats.names():
        with suppress(NotPossible):
            found.append(formats.load(name))
    return tuple(found)


def format_for(path: Path) -> LogFormat:
    """The format that reads a path: by the suffix of a file's name, or the one that claims a folder.

    Raises:
      Unsupported: none does; says which suffixes are read.
    """
    found = folder_format(path) if path.is_dir() else file_format(path)
    if found is None:
        raise Unsupported(
            f"no format reads {path.suffix or 'files without a suffix'}" if not path.is_dir() else "not a log",
            where=str(path),
            allowed=", ".join(sorted(formats_by_suffix())),
        )
    return found


def file_format(path: Path) -> LogFormat | None:
    """The format that reads a file, by the longest ending of its name that one has; None when none does.

    The number of a shard (``x.tfrecord-00003-of-00064``) does not count.
    """
    name = re.sub(r"-\d{5,}-of-\d{5,}$", "", path.name.lower())
    endings = (name[i:] for i, letter in enumerate(name) if letter == ".")
    return next((formats_by_suffix()[e] for e in endings if e in formats_by_suffix()), None)


def folder_format(path: Path) -> LogFormat | None:
    """The format that claims a folder as one log, None when it is an ordinary folder."""
    return next((f for f in _installed() if f.claims(path)), None)


@contextmanager
def opened(path: Path, **options: str) -> Iterator[list[Episode]]:
    """The episodes of a log outside of any workspace; large arrays live as long as the context.

    Raises:
      InputError: see ``LogFormat.read``.
    """
    with tempfile.TemporaryDirectory(prefix="flyball-") as folder:
        yield list(format_for(path).read(path, Intake(Path(folder), options=options)))


def read_one(path: Path) -> Episode:
    """The one episode of a small log, all of it in memory.

    Raises:
      InputError: see ``LogFormat.read``; also when the log holds several.
    """
    with tempfile.TemporaryDirectory(prefix="flyball-") as folder:
        found = list(format_for(path).read(path, Intake(Path(folder), memory=1 << 62)))
    if len(found) != 1:
        raise InputError(f"holds {len(found)} episodes where one is expected", where=str(path))
    return found[0]
