"""Tables as episodes: CSV files and Parquet files with a column for the time.

In: a ``.csv``, ``.tsv``, ``.csv.gz`` or ``.parquet`` file. Out: one ``Episode``, or one per value of an ``episode``
column. Which columns are which signals is said by a ``TableMap``, see ``formats.table_map``. Options:

- ``table.map=FILE.toml``: the map to use. ``table.map=FOLDER``: maps live there, one for each set of columns; a missing
  one is inferred and written there. Without it the map is inferred and not kept.
- ``table.time=COLUMN``, ``table.unit=ns``: when rows were. ``table.hz=50``: rows have no times, but a rate.

An empty cell is no sample; ``nan`` is one that is not a number. Rows whose time runs backwards are put in order, noted.
Text is UTF-8 or UTF-16 (by its mark), else Latin-1, noted. Lines before the header that begin with ``#`` are comments.
Neither CSV nor Parquet as it is usually written has checksums (``.gz`` has). A cut within a row is refused; a CSV that
ends between two rows cannot be told from a whole one.

Tables are read in pieces; a Parquet file should have row groups of a reasonable size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from flyball.base import NotPossible
from flyball.episodes.episode import Episode
from flyball.episodes.intake import Intake


class Table:
    """The log format ``table``."""

    suffixes = (".csv", ".tsv", ".csv.gz", ".parquet")

    def claims(self, folder: Path) -> bool:
        """See ``LogFormat.claims``."""
        return False

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """See ``LogFormat.read``; options ``table.map``, ``table.time``, ``table.unit``, ``table.hz``."""
        try:
            from flyball.episodes.formats import table_columns
        except ModuleNotFoundError as err:
            if (err.name or "").startswith("flyball"):
                raise
            raise NotPossible(
                f"tables need the Python package {err.name!r}", where=str(path), run_next="pip install 'flyball[logs]'"
            ) from err
        yield from table_columns.read(path, intake)


FORMAT = Table()
