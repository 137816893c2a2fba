"""Asking the catalogue by everything that is known of the episodes, through DuckDB.

In: a catalogue, and SQL that a stranger may have written. Out: rows. The text sees tables in memory that hold what it
asks for and nothing else: no file, no extension, no setting can be reached, and it is stopped when it takes too long.
Without DuckDB, conditions over the catalogue's own columns and labels still work (SQLite).

Besides ``COLUMNS``, an episode has the columns below; their names may be written plainly, or in double quotes where
they hold other characters than letters, digits, dots and brackets. What an episode lacks is NULL.
"""

from __future__ import annotations

import difflib
import json
import math
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, NotPossible
from flyball.base.durable import write_durably
from flyball.episodes.catalogue import COLUMNS, Catalogue, EpisodeRow, row_of
from flyball.episodes.summaries import STATISTICS, WHOLE, elements

INSTALL = "pip install 'flyball[logs]'"
LIMIT_S = 60.0
MEMORY = "1GB"

GRAMMAR = {
    "labels.KEY": "a label",
    "SIGNAL[i].STATISTIC": f"of element i (from 0) of a signal: {', '.join(STATISTICS)}; without [i] for a scalar",
    "SIGNAL.STATISTIC": f"of all elements of a signal together: {', '.join(WHOLE)}",
    "event.NAME.count, .first, .last": "how often, and when [s since the episode's start]",
    "frames.CAMERA.count, .rate, .width, .height, .encoding, .bytes": "of a camera's pictures",
    "verdict.CHECK": "what a check says now; verdict.CHECK.reason, verdict.CHECK.version",
}
"""Columns of an episode besides ``COLUMNS``, and what they mean."""

TABLES = {
    "signals": "digest, signal, element, unit, " + ", ".join(STATISTICS),
    "events": "digest, name, count, first, last",
    "frames": "digest, camera, encoding, height, width, count, rate, bytes",
    "verdicts": "digest, check_name, verdict, reason, version, inputs, at_ns, current",
}
"""Tables beside ``episodes``, and their columns."""

_EVENT = ("count", "first", "last")
_FRAMES = ("encoding", "height", "width", "count", "rate", "bytes")
_VERDICT = ("", ".reason", ".version")
_FUNCTIONS = {"range", "generate_series", "unnest", "json_each", "json_tree"}
_TEXT = {"labels": "labels", "signals": "", "events": "event", "frames": "frames", "verdicts": "verdict"}

# Quoted text, comments, quoted names, and names with dots or indices: the only places where a column's name can be.
_TOKEN = re.compile(
    r"""('(?:[^']|'')*'|--[^\n]*|/\*.*?\*/)|"((?:[^"]|"")*)"|((?<![\w.])[A-Za-z_]\w*(?:\s?\[\d+(?:,\s?\d+)*\]|\.\w+)+)""",
    re.DOTALL,
)


@dataclass(frozen=True)
class Answer:
    """Rows of a query.

    Attributes:
      columns: their names.
      rows: at most as many as were asked for.
      complete: False when there were more.
    """

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    complete: bool


def select(
    catalogue: Catalogue, where: str = "", *, order: str = "", progress: Callable[[int, int], None] | None = None
) -> list[EpisodeRow]:
    """Episodes that meet a condition, in order of registration.

    Args:
      catalogue: which.
      where: an SQL condition over ``COLUMNS`` and ``GRAMMAR``; empty for all. Example:
        ``outcome = 'failure' AND joint.velocity[2].max > 1.5 AND event.crushed.count > 0``.
      order: an SQL ordering, e.g. ``gripper.force.max DESC``; empty for the order of registration.
      progress: told of episodes whose contents are summarised first, because nobody has yet: (done, all).

    Raises:
      InputError: not a condition.
      NotPossible: it asks for contents, and DuckDB is not installed.
    """
    if not (where.strip() or order.strip()):
        return catalogue.query()
    if not _installed():
        return _plain(catalogue, where, order)
    with _session(catalogue, where, order, progress=progress) as s:
        import duckdb

        found = s.db.view("episodes")
        if where.strip():
            s.check(f"SELECT 1 WHERE ({s.rewritten(where)}\n)")
            found = found.filter(duckdb.SQLExpression(s.rewritten(where)))
        found = found.order(s.rewritten(order)) if order.strip() else found
        return [row_of(s.rows[i]) for (i,) in found.project('"#"').fetchall()]


def ask(
    catalogue: Catalogue, sql: str, *, most: int = 100_000, progress: Callable[[int, int], None] | None = None
) -> Answer:
    """Answer one SELECT over the tables ``episodes`` and ``TABLES``.

    Args:
      catalogue: which.
      sql: e.g. ``SELECT robot, count(*) FROM episodes GROUP BY robot``. ``SELECT *`` gives ``COLUMNS`` and those
        further columns that the text names.
      most: rows to return.
      progress: see ``select``.

    Raises:
      InputError: not one sound SELECT over these tables, or it takes too long.
      NotPossible: DuckDB is not installed.
    """
    if not _installed():
        raise NotPossible("DuckDB is not installed", where="--sql", run_next=INSTALL)
    with _session(catalogue, sql, progress=progress, hidden=False) as s:
        text = s.rewritten(sql)
        s.check(text)
        result = s.db.execute(text)
        rows = result.fetchmany(most + 1)
        return Answer(tuple(d[0] for d in result.description), rows[:most], len(rows) <= most)


def columns(catalogue: Catalogue) -> dict[str, str]:
    """All columns of ``episodes``, with the kind of each: ``catalogue``, ``labels``, ``signals``, ``events``, ..."""
    known = _Known(catalogue)
    return {**dict.fromkeys(COLUMNS, "catalogue"), **{name: c.kind for name, c in known.all().items()}}


def export(catalogue: Catalogue, path: Path, *, progress: Callable[[int, int], None] | None = None) -> tuple[int, int]:
    """Write the catalogue with all its columns as one Parquet file; returns (rows, columns).

    Raises:
      NotPossible: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as err:
        raise NotPossible("pyarrow is not installed", where=str(path), run_next=INSTALL) from err
    catalogue.reindex(progress=progress)
    known = _Known(catalogue)
    rows = _base_rows(catalogue)
    table = _episodes(rows, known.values(list(known.all().values()), rows))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    write_durably(path, sink.getvalue())
    return table.num_rows, table.num_columns


# ---- what columns there are


@dataclass(frozen=True)
class _Column:
    """A column beside those of the catalogue: its kind, and what in it."""

    name: str
    kind: str
    key: str
    what: str = ""


class _Known:
    """The further columns of a catalogue, by name, found out only for kinds that are asked for."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._read = catalogue.store.read
        self._kinds: dict[str, dict[str, _Column]] = {}
        self._of: dict[str, dict[str, Any]] | None = None

    def all(self) -> dict[str, _Column]:
        """Every column. Where two have the same name, the one of the earlier kind counts."""
        found: dict[str, _Column] = {}
        for kind in _TEXT:
            found = {**self.kind(kind), **found}
        return found

    def within(self, text: str) -> dict[str, _Column]:
        """Columns of the kinds whose first word occurs in a text."""
        found: dict[str, _Column] = {}
        for kind, word in _TEXT.items():
            if f"{word}." in text.lower():
                found = {**self.kind(kind), **found}
        return found

    def kind(self, kind: str) -> dict[str, _Column]:
        """Columns of one kind."""
        if kind not in self._kinds:
            self._kinds[kind] = {c.name: c for c in getattr(self, f"_{kind}")()}
        return self._kinds[kind]

    def _labels(self) -> Iterator[_Column]:
        for key in sorted({key for labels in self._all_labels().values() for key in labels}):
            yield _Column(f"labels.{key}", "labels", key)

    def _signals(self) -> Iterator[_Column]:
        for name, shape in dict.fromkeys((x[0], tuple(x[1])) for layout in self._layouts().values() for x in layout):
            for element in elements(shape):
                for what in STATISTICS if element or not shape else WHOLE:
                    yield _Column(f"{name}{element}.{what}", "signals", name, what)
            if elements(shape) != [""]:
                yield from (_Column(f"{name}.{what}", "signals", name, what) for what in WHOLE)

    def _events(self) -> Iterator[_Column]:
        for name in self._facts("events"):
            yield from (_Column(f"event.{name}.{what}", "events", name, what) for what in _EVENT)

    def _frames(self) -> Iterator[_Column]:
        for name in self._facts("frames"):
            yield from (_Column(f"frames.{name}.{what}", "frames", name, what) for what in _FRAMES)

    def _verdicts(self) -> Iterator[_Column]:
        for (name,) in self._read("SELECT DISTINCT check_name FROM verdicts ORDER BY 1"):
            yield from (_Column(f"verdict.{name}{what}", "verdicts", name, what) for what in _VERDICT)

    def _all_labels(self) -> dict[str, dict[str, Any]]:
        if self._of is None:
            self._of = {d: json.loads(text) for d, text in self._read("SELECT digest, labels FROM episodes")}
        return self._of

    def _facts(self, kind: str) -> list[str]:
        sql = f"SELECT DISTINCT j.key FROM summaries s, json_each(s.facts, '$.{kind}') j ORDER BY 1"
        return [row[0] for row in self._read(sql)]

    def _layouts(self) -> dict[int, list[Any]]:
        used = "SELECT id, layout FROM layouts WHERE id IN (SELECT layout FROM summaries)"
        return {i: json.loads(text) for i, text in self._read(used)}

    # -- and what they hold

    def values(self, wanted: Sequence[_Column], rows: Sequence[tuple[Any, ...]]) -> dict[str, Sequence[Any]]:
        """Column name -> a value for each row of the catalogue."""
        at = {row[0]: i for i, row in enumerate(rows)}
        made: dict[str, Sequence[Any]] = {}
        for kind in _TEXT:
            mine = [c for c in wanted if c.kind == kind]
            if mine:
                made |= getattr(self, f"_{kind}_of")(mine, at)
        return {c.name: made[c.name] for c in wanted}

    def _labels_of(self, wanted: list[_Column], at: Mapping[str, int]) -> dict[str, Sequence[Any]]:
        made: dict[str, list[Any]] = {c.name: [None] * len(at) for c in wanted}
        for digest, labels in self._all_labels().items():
            for c in wanted:
                if digest in at:
                    made[c.name][at[digest]] = labels.get(c.key)
        return {name: _one_type(values) for name, values in made.items()}

    def _signals_of(self, wanted: list[_Column], at: Mapping[str, int]) -> dict[str, Sequence[Any]]:
        made: dict[str, Any] = {c.name: np.full(len(at), np.nan) for c in wanted}
        names = list(STATISTICS)
        for id_, layout in self._layouts().items():
            places = {x[0]: (x[1], start) for x, start in zip(layout, _starts(layout), strict=True)}
            mine = [c for c in wanted if c.key in places]
            if not mine:
                continue
            blobs = self._read("SELECT digest, stats FROM summaries WHERE layout = ?", (id_,))
            blobs = [b for b in blobs if b[0] in at]
            stats = np.frombuffer(b"".join(b[1] for b in blobs), "<f8").reshape(len(blobs), -1, len(names))
            index = np.array([at[b[0]] for b in blobs], int)
            for c in mine:
                shape, start = places[c.key]
                element = c.name[len(c.key) : -len(c.what) - 1]
                suffixes = elements(shape)
                if element in suffixes:
                    made[c.name][index] = stats[:, start + suffixes.index(element), names.index(c.what)]
                elif not element:
                    own = stats[:, start : start + len(suffixes), names.index(c.what)]
                    made[c.name][index] = _together(c.what, own)
        return dict(made)

    def _events_of(self, wanted: list[_Column], at: Mapping[str, int]) -> dict[str, Sequence[Any]]:
        return self._facts_of("events", _EVENT, wanted, at)

    def _frames_of(self, wanted: list[_Column], at: Mapping[str, int]) -> dict[str, Sequence[Any]]:
        return self._facts_of("frames", _FRAMES, wanted, at)

    def _facts_of(
        self, kind: str, names: tuple[str, ...], wanted: list[_Column], at: Mapping[str, int]
    ) -> dict[str, Sequence[Any]]:
        made: dict[str, list[Any]] = {
            c.name: [0 if (c.kind, c.what) == ("events", "count") else None] * len(at) for c in wanted
        }
        for digest, text in self._read("SELECT digest, facts FROM summaries"):
            facts = json.loads(text)[kind]
            for c in wanted:
                if c.key in facts and digest in at:
                    made[c.name][at[digest]] = facts[c.key][names.index(c.what)]
        return dict(made)

    def _verdicts_of(self, wanted: list[_Column], at: Mapping[str, int]) -> dict[str, Sequence[Any]]:
        made: dict[str, list[Any]] = {c.name: [None] * len(at) for c in wanted}
        for check in {c.key for c in wanted}:
            # In order of time, so that the newest stays; "" takes a verdict back.
            sql = "SELECT digest, verdict, reason, version FROM verdicts WHERE check_name = ? ORDER BY digest, seq"
            for digest, *said in self._read(sql, (check,)):
                for c in wanted:
                    if c.key == check and digest in at:
                        made[c.name][at[digest]] = said[_VERDICT.index(c.what)] if said[0] else None
        return dict(made)


def _starts(layout: list[Any]) -> list[int]:
    """Where each signal's elements begin in the statistics."""
    sizes = [len(elements(shape)) for _, shape, *_ in layout]
    return [0, *np.cumsum(sizes)[:-1].tolist()] if sizes else []


def _together(what: str, own: NDArray[np.float64]) -> NDArray[np.float64]:
    """A statistic of a whole signal from those of its elements, (episodes, elements)."""
    if what == "min":
        return np.fmin.reduce(own, axis=1)
    if what == "max":
        return np.fmax.reduce(own, axis=1)
    return own.sum(axis=1) if what == "nan" else own[:, 0]


def _one_type(values: list[Any]) -> list[Any]:
    """Labels as one column: numbers stay numbers where all are, anything else becomes text."""
    # What is not a number is NULL, as in ``_numbers``; what 64 bits do not hold is a float.
    values = [None if isinstance(v, float) and not math.isfinite(v) else v for v in values]
    values = [float(v) if isinstance(v, int) and not -(2**63) <= v < 2**63 else v for v in values]
    kinds = {type(v) for v in values if v is not None}
    if kinds <= {int, float} or kinds <= {bool} or kinds <= {str}:
        return [float(v) if v is not None and float in kinds else v for v in values]
    return [v if v is None or isinstance(v, str) else json.dumps(v) for v in values]


# ---- DuckDB


class _Session:
    """A DuckDB of its own in memory, with the tables and columns that a text names, and closed to everything else.

    Args:
      catalogue: what the tables are filled from.
      text: SQL that will be asked, in full or in part.
      progress: see ``select``.
      hidden: add a column ``"#"``, the number of the row.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        text: str,
        progress: Callable[[int, int], None] | None = None,
        *,
        hidden: bool = True,
    ) -> None:
        import duckdb
        import pyarrow as pa

        tables = [t for t in TABLES if re.search(rf"\b{t}\b", text, re.IGNORECASE)]
        self._text, self._known = text, _Known(catalogue)
        self._columns: dict[str, _Column] = {}  # by name, and by name in lower case
        if tables or any(not n.lower().startswith(("labels.", "verdict.")) for n in self._names(text)):
            catalogue.reindex(progress=progress)
        known = self._known.within(text)
        self._columns = {**{name.lower(): c for name, c in known.items()}, **known}
        wanted = {c.name: c for c in map(self._column, self._names(text)) if c is not None}
        if len({name.lower() for name in wanted}) < len(wanted):  # DuckDB would take one for the other
            raise InputError("columns whose names differ only in case", where="episodes", allowed="one of them at once")
        self.unknown = [n for n in self._names(text) if self._column(n) is None]
        self.rows = _base_rows(catalogue)
        episodes = _episodes(self.rows, self._known.values(list(wanted.values()), self.rows))
        if hidden:
            episodes = episodes.append_column("#", pa.array(range(len(self.rows)), pa.int64()))
        self.db = duckdb.connect(
            ":memory:",
            config={
                "enable_external_access": "false",
                "autoinstall_known_extensions": "false",
                "autoload_known_extensions": "false",
                "python_enable_replacements": "false",
                "memory_limit": MEMORY,
                "temp_directory": "",
            },
        )
        self.db.register("episodes", episodes)
        for name in tables:
            self.db.register(name, getattr(self, f"_table_{name}")(catalogue))
        self.db.execute("SET lock_configuration = true")

    def rewritten(self, text: str) -> str:
        """The text with columns that are named plainly as quoted names."""

        def quoted(m: re.Match[str]) -> str:
            if not m[3]:
                return m[0]
            name = re.sub(r"\s", "", m[3])
            if found := self._column(name):
                return f'"{found.name}"'
            alias, _, rest = name.partition(".")
            return f'{alias}."{found.name}"' if (found := self._column(rest)) else m[0]

        return _TOKEN.sub(quoted, text)

    def _column(self, name: str) -> _Column | None:
        """The further column of that name, as it is written or in another case."""
        return self._columns.get(name) or self._columns.get(name.lower())

    def check(self, text: str) -> None:
        """Refuse what is not one SELECT, or calls a table function that could reach outside.

        The settings of the session alone keep it from files; this holds should a setting ever fail.
        """
        (found,) = self.db.execute("SELECT json_serialize_sql(?)", [text]).fetchall()[0]
        tree = json.loads(found)
        if tree["error"]:
            raise InputError(_first(tree["error_message"]))
        if len(tree["statements"]) != 1:
            raise InputError("more than one statement")
        for node in _nodes(tree):
            if node.get("type") == "TABLE_FUNCTION":
                name = str(node.get("function", {}).get("function_name", "")).lower()
                if name not in _FUNCTIONS:
                    raise InputError(f"{name}() is not available here", allowed=", ".join(sorted(_FUNCTIONS)))

    def hint(self, message: str) -> str:
        """Columns and tables with a name like the one that DuckDB does not know."""
        unknown = re.search(r'"([^"]+)" (?:not found|does not exist)|name (\S+) does not exist', message)
        if unknown is None:
            return ""
        if unknown[1] and f'"{unknown[1]}"' in self._text:
            return f"text in single quotes: '{unknown[1]}'"
        names = [*COLUMNS, "episodes", *TABLES, *self._known.all()]
        tried = [n for n in self.unknown if re.split(r"[.\[]", n)[0] == unknown[1]] or [unknown[1] or unknown[2]]
        close = difflib.get_close_matches(tried[0], names, 3, 0.5)
        return f"did you mean {' or '.join(close)}?" if close else f"{', '.join(COLUMNS)}, and more"

    def _names(self, text: str) -> list[str]:
        """What may be names of columns: in double quotes, or with a dot or an index."""
        found = []
        for m in _TOKEN.finditer(text):
            if m[2] is not None:
                found.append(m[2].replace('""', '"'))
            elif m[3]:
                name = re.sub(r"\s", "", m[3])
                _, _, rest = name.partition(".")
                found.append(rest if self._column(name) is None and self._column(rest) else name)
        return found

    def _table_signals(self, catalogue: Catalogue) -> Any:
        import pyarrow as pa

        parts = []
        for id_, layout in self._known._layouts().items():
            labels = [(x[0], e, x[2]) for x in layout for e in elements(x[1])]
            blobs = catalogue.store.read("SELECT digest, stats FROM summaries WHERE layout = ?", (id_,))
            stats = np.frombuffer(b"".join(b[1] for b in blobs), "<f8").reshape(-1, len(STATISTICS))
            own = pa.array(np.repeat(np.arange(len(blobs), dtype=np.int32), len(labels)))
            parts.append(
                pa.table(
                    {
                        "digest": pa.array([b[0] for b in blobs], pa.string()).take(own),
                        **{
                            name: pa.array([x[i] for x in labels] * len(blobs), pa.string())
                            for i, name in enumerate(("signal", "element", "unit"))
                        },
                        **{name: _numbers(stats[:, i]) for i, name in enumerate(STATISTICS)},
                    }
                )
            )
        names = ("digest", "signal", "element", "unit", *STATISTICS)
        return pa.concat_tables(parts) if parts else _empty(names, set(STATISTICS))

    def _table_events(self, catalogue: Catalogue) -> Any:
        return self._table_of_facts(catalogue, "events", ("digest", "name", *_EVENT), set(_EVENT))

    def _table_frames(self, catalogue: Catalogue) -> Any:
        names = ("digest", "camera", *_FRAMES)
        return self._table_of_facts(catalogue, "frames", names, set(_FRAMES) - {"encoding"})

    def _table_of_facts(self, catalogue: Catalogue, kind: str, names: tuple[str, ...], numbers: set[str]) -> Any:
        import pyarrow as pa

        rows = [
            (digest, key, *values)
            for digest, text in catalogue.store.read("SELECT digest, facts FROM summaries")
            for key, values in json.loads(text)[kind].items()
        ]
        return pa.table(dict(zip(names, zip(*rows, strict=True), strict=True))) if rows else _empty(names, numbers)

    def _table_verdicts(self, catalogue: Catalogue) -> Any:
        import pyarrow as pa

        names = tuple(TABLES["verdicts"].split(", "))
        rows = catalogue.store.read(
            "SELECT digest, check_name, verdict, reason, version, inputs, at_ns,"
            " seq = max(seq) OVER (PARTITION BY check_name, digest) AND verdict != '' FROM verdicts ORDER BY seq"
        )
        if not rows:
            return _empty(names, {"at_ns"})
        data = dict(zip(names, zip(*rows, strict=True), strict=True))
        return pa.table({**data, "current": pa.array([bool(x) for x in data["current"]])})


def _episodes(rows: Sequence[tuple[Any, ...]], further: Mapping[str, Sequence[Any]]) -> Any:
    """The table ``episodes`` in Arrow."""
    import pyarrow as pa

    kinds = {"seed": pa.int64(), "start_ns": pa.int64(), "added_ns": pa.int64(), "duration_s": pa.float64()}
    data = zip(*rows, strict=True) if rows else [()] * len(COLUMNS)
    table = {c: pa.array(v, kinds.get(c, pa.string())) for c, v in zip(COLUMNS, data, strict=True)}
    for name, values in further.items():
        if name not in table:
            table[name] = _numbers(values) if isinstance(values, np.ndarray) else pa.array(values)
    return pa.table(table)


def _numbers(values: NDArray[np.float64]) -> Any:
    """Numbers in Arrow; what is not a number is NULL, since DuckDB holds NaN for the largest number."""
    import pyarrow as pa

    return pa.array(values, mask=~np.isfinite(values))


def _empty(names: Sequence[str], numbers: set[str]) -> Any:
    import pyarrow as pa

    return pa.table({n: pa.array([], pa.float64() if n in numbers else pa.string()) for n in names})


def _base_rows(catalogue: Catalogue) -> list[tuple[Any, ...]]:
    return catalogue.store.read(f"SELECT {', '.join(COLUMNS)} FROM episodes ORDER BY rowid")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for x in tree:
            yield from _nodes(x)


@contextmanager
def _session(
    catalogue: Catalogue, *texts: str, progress: Callable[[int, int], None] | None, hidden: bool = True
) -> Iterator[_Session]:
    """A session that is stopped after ``LIMIT_S``; whatever DuckDB says about the text becomes one line."""
    import duckdb

    said = next(t for t in texts if t.strip())
    session = _Session(catalogue, "\n".join(texts), progress, hidden=hidden)
    timer = threading.Timer(LIMIT_S, session.db.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield session
    except InputError as err:
        raise InputError(f"not understood: {said!r} ({err.what})", where="episodes", allowed=err.allowed) from err
    except duckdb.InterruptException as err:
        raise InputError(f"took longer than {LIMIT_S:g} s: {said!r}", where="episodes") from err
    except (duckdb.Error, RuntimeError, ValueError, OverflowError) as err:
        raise InputError(
            f"not understood: {said!r} ({_first(str(err))})",
            where="episodes",
            allowed=session.hint(str(err)),
            run_next="flyball episodes --columns",
        ) from err
    finally:
        timer.cancel()
        session.db.close()


def _first(message: str) -> str:
    return message.strip().split("\n")[0]


def _installed() -> bool:
    try:
        import duckdb  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError:
        return False
    return True


def _plain(catalogue: Catalogue, where: str, order: str) -> list[EpisodeRow]:
    """The same from SQLite, over the catalogue's own columns and labels."""
    more = f"{INSTALL}, for columns of signals, events, cameras and verdicts"
    for m in _TOKEN.finditer(f"{where}\n{order}"):
        # SQLite would take an unknown name in double quotes for a text.
        name = m[2] if m[2] is not None else m[3] or ""
        if name and name not in COLUMNS and not re.fullmatch(r"labels\.\w+", m[3] or ""):
            raise NotPossible(f"{name} cannot be asked for without DuckDB", where="episodes", run_next=more)
    try:
        return catalogue.query(where, order=order.strip() or "rowid")
    except InputError as err:
        raise InputError(err.what, where=err.where, allowed=err.allowed, run_next=more) from err
