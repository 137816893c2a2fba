"""Log formats: one file per format, found by the suffix of a file's name.

In: the bytes of a log. Out: an ``Episode``. A format outside the tree registers in the entry-point group
``flyball.formats`` and passes ``flyball.episodes.testing.check_format``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from flyball.base import PluginTable, Unsupported
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


def format_for(path: Path) -> LogFormat:
    """The format that reads files of this name.

    Raises:
      Unsupported: none does; says which suffixes are read.
    """
    known: list[str] = []
    for name in formats.names():
        found: LogFormat = formats.load(name)
        if path.suffix.lower() in found.suffixes:
            return found
        known += found.suffixes
    raise Unsupported(f"no format reads {path.suffix or 'files without a suffix'}", allowed=", ".join(known))
