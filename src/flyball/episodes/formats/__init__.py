"""Log formats: one file per format, found by the suffix of a file's name.

In: the bytes of a log. Out: an ``Episode``. A format outside the tree registers in the entry-point group
``flyball.formats`` and passes ``flyball.episodes.testing.check_format``.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Protocol

from flyball.base import NotPossible, PluginTable, Unsupported
from flyball.episodes.episode import Episode

formats = PluginTable("log format", "flyball.formats", {"mcap": "flyball.episodes.formats.mcap_log:FORMAT"})

OURS = "flyball"
"""Name of the metadata record, and of the channel metadata key, by which a log says that ``Recorder`` wrote it."""


class LogFormat(Protocol):
    """How logs of one kind become episodes."""

    suffixes: tuple[str, ...]
    """Lower-case endings of file names, with the dot."""

    def read(self, blob: bytes, path: Path) -> Episode:
        """The episode in a log; the same bytes and path give the same episode.

        Args:
          blob: the whole file.
          path: where it came from: its name and folder may say what the content does not.

        Raises:
          Damaged: the bytes are not what they claim to be; says the offset and what was intact before it.
          InputError: a sound file that holds no episode.
        """


@cache
def formats_by_suffix() -> dict[str, LogFormat]:
    """File name suffix -> format; formats whose library is not installed are left out."""
    found: dict[str, LogFormat] = {}
    for name in formats.names():
        with suppress(NotPossible):
            log_format: LogFormat = formats.load(name)
            found.update(dict.fromkeys(log_format.suffixes, log_format))
    return found


def format_for(path: Path) -> LogFormat:
    """The format that reads files of this name.

    Raises:
      Unsupported: none does; says which suffixes are read.
    """
    found = formats_by_suffix().get(path.suffix.lower())
    if found is None:
        raise Unsupported(
            f"no format reads {path.suffix or 'files without a suffix'}",
            where=str(path),
            allowed=", ".join(sorted(formats_by_suffix())),
        )
    return found
