"""Reads tables with pyarrow, piece by piece; for the rules see ``formats.table``.

In: a CSV or Parquet file. Out: episodes. A file becomes a ``_Source``, which knows its columns; a ``TableMap`` says
what they are; ``_Building`` collects one episode.
"""

from __future__ import annotations

import codecs
import csv
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, SignalSpec, Timed
from flyball.episodes.episode import Episode, Event
from flyball.episodes.formats import foreign
from flyball.episodes.formats.clocks import forwards, rate_hz
from flyball.episodes.formats.messages import Contents
from flyball.episodes.formats.table_map import (
    NS,
    Sample,
    SignalColumns,
    TableMap,
    clean,
    infer,
    load,
    save,
    says_time,
    unit_by_magnitude,
)
from flyball.episodes.intake import Column, FramesWriter, Intake

PIECE = 1 << 20  # bytes of a CSV that are parsed at once; no line may be longer
SAMPLE_ROWS = 1000
MAX_COLUMNS = 10_000
MAX_EVENTS = 100_000
MAX_NS = 2**63 - 1
_NULLS = ["", "NULL", "null", "None", "NA", "N/A", "#N/A"]
_KINDS = {"double": "numbers", "int64": "whole numbers", "bool": "true and false"}
_TRUTH = {"true", "false"}
_PICTURES = {b"\xff\xd8\xff": "jpeg", b"\x89PN": "png"}
_ARROW = (pa.ArrowException, csv.Error, OSError, ValueError, TypeError, OverflowError, MemoryError)


def read(path: Path, intake: Intake) -> Iterator[Episode]:
    """The episodes of a table.

    Raises:
      InputError: it is none, or says nothing; names the row and column.
    """
    try:
        source: _Source = _Parquet(path) if path.name.lower().endswith(".parquet") else _Csv(path, intake)
        yield from _episodes(source, path, intake)
    except InputError as err:
        if err.where:
            raise
        raise type(err)(err.what, where=str(path), allowed=err.allowed, run_next=err.run_next) from err
    except _ARROW as err:
        raise Damaged(_reason(str(err)), where=str(path)) from err


def _reason(text: str) -> str:
    """What a library says is wrong with a table, in our words where they are clearer."""
    text = re.sub(r"\s+", " ", text).strip()
    if "straddl" in text:
        return f"a line longer than {PIECE} bytes"
    if match := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", text):
        return f"row {match[1]} has {match[3]} cells where the header has {match[2]}"
    return f"not a sound table ({text[:160]})"


class _Source(Protocol):
    """A table of some format."""

    columns: dict[str, Sample]
    first_row: int  # what a user calls the first row of data

    def batches(self, names: list[str], texts: tuple[str, ...] = ()) -> Iterator[dict[str, pa.Array]]:
        """The columns of these names, piece by piece; those of ``texts`` are text, whatever they look like."""


class _Csv:
    """A CSV file, opened: its columns are known, and what kind of values each holds."""

    def __init__(self, path: Path, intake: Intake) -> None:
        self.path, self.intake = path, intake
        self.gzipped = path.name.lower().endswith(".gz")
        with self._open() as file:
            head = file.read(PIECE)
        self.encoding = self._encoding(head)
        text = codecs.getincrementaldecoder(self.encoding)("replace").decode(head)
        self.cut = len(head) == PIECE
        lines = text.splitlines()
        if self.cut and len(lines) > 1:
            lines.pop()
        rows, self.skipped, self.delimiter = _layout(lines, path)
        names = [c.strip() for c in rows[0]]
        if len(names) > MAX_COLUMNS:
            raise Damaged(f"{len(names)} columns, allowed are {MAX_COLUMNS}", where=str(path))
        if twice := sorted({n for n in names if n and names.count(n) > 1}):
            raise Damaged(f"two columns named {twice[0]!r}", where=str(path), allowed="a name of its own for each")
        self.names = [n or f"\0{i}" for i, n in enumerate(names)]  # columns without a name are not read
        self.first_row = self.skipped
        body = [r for r in rows[1 : SAMPLE_ROWS + 1] if r]
        self.decimal = "," if self.delimiter == ";" and _decimal_comma(body) else "."
        cells = {n: [r[i].strip() for r in body if i < len(r)] for i, n in enumerate(self.names)}
        self.types = {n: _csv_type(cells[n], self.decimal) for n in self.names}
        self.columns = {n: self._sample(cells[n], self.types[n]) for n in self.names if not n.startswith("\0")}
        if nameless := len(self.names) - len(self.columns):
            intake.note("skipped", f"{path}: {nameless} columns without a name")
        if not body:
            raise InputError(f"a line longer than {PIECE} bytes" if self.cut else "holds no rows", where=str(path))
        self._ends()

    def _open(self) -> Any:
        return pa.input_stream(str(self.path), compression="gzip" if self.gzipped else None)

    def _encoding(self, head: bytes) -> str:
        if not head:
            raise InputError("empty", where=str(self.path))
        for mark, name in (
            (codecs.BOM_UTF8, "utf-8"),
            (codecs.BOM_UTF16_LE, "utf-16"),
            (codecs.BOM_UTF16_BE, "utf-16"),
        ):
            if head.startswith(mark):
                return name
        if b"\0" in head:
            raise Damaged("not text (it has bytes 0)", where=str(self.path))
        with suppress(UnicodeDecodeError):
            codecs.getincrementaldecoder("utf-8")().decode(head)
            return "utf-8"
        self.intake.note("converted", f"{self.path}: not UTF-8, read as Latin-1")
        return "latin-1"

    def _ends(self) -> None:
        """Refuse a file whose last line has no end while the others have: its last number may be cut."""
        if self.gzipped or self.encoding == "utf-16":
            return
        with open(self.path, "rb") as file:
            file.seek(-1, 2)
            if file.read(1) not in (b"\n", b"\r"):
                raise Damaged("the last line has no end, it may be cut off", where=str(self.path),
                              run_next="add a line break if it is whole")  # fmt: skip

    def _sample(self, cells: list[str], kind: pa.DataType) -> Sample:
        if pa.types.is_floating(kind) or pa.types.is_integer(kind):
            values = [c.replace(",", ".") if self.decimal == "," else c for c in cells if c not in _NULLS]
            return Sample("number", np.array([float(v) for v in values if _is_number(v)], np.float64))
        if pa.types.is_timestamp(kind):
            return Sample("date", np.zeros(0))
        return Sample("number" if pa.types.is_boolean(kind) else "text", np.zeros(0))

    def batches(self, names: list[str], texts: tuple[str, ...] = ()) -> Iterator[dict[str, pa.Array]]:
        """See ``_Source``."""
        self.types |= dict.fromkeys(texts, pa.string())
        try:
            reader = pacsv.open_csv(
                self._open(),
                read_options=pacsv.ReadOptions(
                    use_threads=False, block_size=PIECE, encoding=self.encoding, column_names=self.names,
                    skip_rows=self.skipped,
                ),
                parse_options=pacsv.ParseOptions(delimiter=self.delimiter),
                convert_options=pacsv.ConvertOptions(
                    column_types=self.types, include_columns=names, null_values=_NULLS, strings_can_be_null=False,
                    decimal_point=self.decimal, true_values=["true", "True", "TRUE", "1"],
                    false_values=["false", "False", "FALSE", "0"],
                ),
            )  # fmt: skip
            for batch in reader:
                yield {n: batch.column(n) for n in names}
        except pa.ArrowInvalid as err:
            match = re.search(r"In CSV column #(\d+): (.*)", str(err), re.DOTALL)
            if match is None:
                raise
            told = self.names[int(match[1])] if int(match[1]) < len(self.names) else match[1]
            what = re.sub(r"CSV conversion error to \w+(\[\w+\])?: ", "", match[2].splitlines()[0])[:120]
            what = re.sub(r"Row #", "row ", what)
            wanted = "text" if pa.types.is_string(self.types[told]) else _KINDS.get(str(self.types[told]), "times")
            raise Damaged(f"column {told!r}, {what}", where=str(self.path), allowed=wanted) from err


def _layout(lines: list[str], path: Path) -> tuple[list[list[str]], int, str]:
    """(header and first rows, lines up to and with the header, delimiter)."""
    begin = next((i for i, line in enumerate(lines) if line.strip() and not line.lstrip().startswith("#")), None)
    if begin is None:
        raise InputError("holds no rows", where=str(path))
    first = lines[begin]
    tab = path.name.lower().endswith(".tsv") or first.count("\t") > first.count(",")
    delimiter = "\t" if tab else ";" if first.count(";") > first.count(",") else ","
    rows = list(csv.reader(lines[begin : begin + SAMPLE_ROWS + 1], delimiter=delimiter))
    if not all(_is_number(c) for c in rows[0]):
        return rows, begin + 1, delimiter
    before = [line for line in lines[:begin] if line.strip()]
    header = next(csv.reader([before[-1].lstrip().lstrip("#")], delimiter=delimiter)) if before else []
    if len(header) != len(rows[0]):
        raise InputError("the first line has no names of columns", where=str(path), allowed="a header")
    return [header, *rows], begin, delimiter


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _decimal_comma(rows: list[list[str]]) -> bool:
    cells = [c.strip() for r in rows for c in r]
    return any(re.fullmatch(r"-?\d+,\d+(e[-+]?\d+)?", c) for c in cells) and not any(
        re.fullmatch(r"-?\d+\.\d+", c) for c in cells
    )


def _csv_type(cells: list[str], decimal: str) -> pa.DataType:
    """The type of a column by its first cells. Whole numbers are read as such only where they may be times."""
    known = [c for c in cells if c not in _NULLS]
    plain = [c.replace(",", ".") for c in known] if decimal == "," else known
    if sum(map(_is_number, plain)) * 2 > len(plain):  # then the others are errors
        whole = all(re.fullmatch(r"[-+]?\d{1,18}|\d{19}", c) for c in plain)
        return pa.int64() if whole and max(len(c) for c in plain) >= 16 else pa.float64()
    if known and all(c.lower() in _TRUTH for c in known):
        return pa.bool_()
    if known and all(re.match(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d", c) for c in known):
        return pa.timestamp("ns", "UTC" if re.search(r"(Z|[-+]\d\d:?\d\d)$", known[0]) else None)
    return pa.string() if known else pa.float64()


class _Parquet:
    """A Parquet file, opened. Structs are taken apart: a field ``b`` of ``a`` is the column ``a.b``."""

    first_row = 0

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = pq.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=PIECE)
        if not self.file.metadata.num_rows:
            raise InputError("holds no rows", where=str(path))
        schema = self.file.schema_arrow
        if twice := sorted({n for n in schema.names if schema.names.count(n) > 1}):
            raise Damaged(f"two columns named {twice[0]!r}", where=str(path))
        if len(schema) > MAX_COLUMNS:
            raise Damaged(f"{len(schema)} columns, allowed are {MAX_COLUMNS}", where=str(path))
        about = self.file.metadata
        size = sum(about.row_group(i).total_byte_size for i in range(about.num_row_groups)) // about.num_rows
        self.rows = min(1 << 16, max(1, 4 * PIECE // max(1, size)))
        head = next(self._all(None, min(SAMPLE_ROWS, self.rows)), {})
        self.columns = {name: _sample(array) for name, array in head.items() if name}

    def _all(self, names: list[str] | None, rows: int) -> Iterator[dict[str, pa.Array]]:
        tops = (
            None
            if names is None
            else sorted({n if n in self.file.schema_arrow.names else n.split(".")[0] for n in names})
        )
        for batch in self.file.iter_batches(rows, columns=tops, use_threads=False):
            found: dict[str, pa.Array] = {}
            for name, array in zip(batch.schema.names, batch.columns, strict=True):
                _flatten(name, array, found)
            yield found

    def batches(self, names: list[str], texts: tuple[str, ...] = ()) -> Iterator[dict[str, pa.Array]]:
        """See ``_Source``."""
        told, found = self.file.metadata.num_rows, 0
        for batch in self._all(names, self.rows):
            found += len(next(iter(batch.values())))
            yield batch
        if found != told:
            raise Damaged(f"holds {found} rows where it says {told}", where=str(self.path))


def _flatten(name: str, array: pa.Array, into: dict[str, pa.Array]) -> None:
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if pa.types.is_struct(array.type):
        fields = [array.type.field(i).name for i in range(array.type.num_fields)]
        if set(fields) == {"bytes", "path"}:  # a picture, as Hugging Face's datasets keep it
            into[name] = pc.struct_field(array, "bytes")
            return
        for field in fields:
            _flatten(f"{name}.{field}", pc.struct_field(array, field), into)
    else:
        into[name] = array


def _sample(array: pa.Array) -> Sample:
    kind = array.type
    if pa.types.is_boolean(kind):
        return Sample("number", np.zeros(0))
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Sample("number", array.drop_null().cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
    if pa.types.is_timestamp(kind):
        return Sample("date", np.zeros(0))
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return Sample("text", np.zeros(0))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        first = next((v.as_py() for v in array if v.is_valid), b"")
        return Sample("pictures" if first[:3] in _PICTURES else "", np.zeros(0))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        inner = kind.value_type
        sizes = pc.unique(pc.list_value_length(array.drop_null())).to_pylist()
        if len(sizes) == 1 and sizes[0] and (pa.types.is_floating(inner) or pa.types.is_integer(inner)):
            return Sample("number", np.zeros(0), int(sizes[0]))
    return Sample("", np.zeros(0))


def _episodes(source: _Source, path: Path, intake: Intake) -> Iterator[Episode]:
    made, where = _table_map(source, path, intake)
    names = made.columns()
    if lost := [n for n in names if n not in source.columns]:
        there = ", ".join(list(source.columns)[:50])
        raise InputError(f"no column {lost[0]!r}, which {where} names", where=str(path), allowed=there)
    for name, sample in source.columns.items():
        if name not in names:
            what = "values of a kind that is not read" if not sample.kind else "not in the map"
            intake.note("unmapped", f"{name}: {what}")
    clock = _Times(made, source, path, intake)
    building: _Building | None = None
    current: Any = None
    row = 0
    for batch in source.batches(names, made.texts):
        n = len(next(iter(batch.values()))) if batch else 0
        t_ns = clock.of(batch, n, row)
        cuts, values = [0, n], [None]
        if made.episode:
            intake.whole = True
            keys = batch[made.episode].to_pylist()
            changes = [i for i in range(1, n) if keys[i] != keys[i - 1]]
            cuts = [0, *changes, n]
            values = [keys[i] for i in cuts[:-1]] if n else []
        for a, b, value in zip(cuts, cuts[1:], values, strict=False):
            if building is None or value != current:
                if building is not None:
                    yield building.episode(path, current)
                building, current = _Building(made, source, intake, where, str(path)), value
            building.add({k: v.slice(a, b - a) for k, v in batch.items()}, t_ns[a:b], row + a)
        row += n
    if building is None or not row:
        raise InputError("holds no rows", where=str(path))
    yield building.episode(path, current)


def _table_map(source: _Source, path: Path, intake: Intake) -> tuple[TableMap, str]:
    """(the map, what to call it)."""
    options = intake.options
    given = Path(options["table.map"]) if options.get("table.map") else None
    file = given
    if given is not None and (given.is_dir() or given.suffix != ".toml"):
        digest = hashlib.sha256("\n".join(sorted(source.columns)).encode()).hexdigest()
        file = given / f"table-{digest[:10]}.toml"
    if file is not None and file.exists():
        return load(file), str(file)
    hz, unit = _rate(options.get("table.hz", ""), path), options.get("table.unit", "")
    if unit and unit not in NS:
        raise InputError(f"option table.unit is {unit!r}", where=str(path), allowed=", ".join(NS))
    made = infer(source.columns, options.get("table.time", ""), hz, str(path))
    if unit:
        made = replace(made, time=replace(made.time, unit=unit))
    taken = made.time.column if not made.time.nanoseconds and made.time.unit != "date" else ""
    if taken and not options.get("table.time") and not says_time(taken):
        intake.note("clock", f"{path}: no column is called a time; {taken!r} increases and is taken")
    if file is not None:
        save(made, file)
    return made, "the inferred map"


def _rate(text: str, path: Path) -> float:
    with suppress(ValueError):
        if not text or 0 < float(text) < 1e6:
            return float(text or 0)
    raise InputError(f"option table.hz is {text!r}", where=str(path), allowed="a rate [Hz] above 0")


class _Times:
    """Turns the column of times, or the number of a row, into nanoseconds."""

    def __init__(self, made: TableMap, source: _Source, path: Path, intake: Intake) -> None:
        self.time, self.path, self.first_row = made.time, path, source.first_row
        self.unit = made.time.unit
        if made.time.column and not self.unit:
            self.unit, sure = unit_by_magnitude(source.columns[made.time.column].values)
            if not sure:
                intake.note("clock", f"{path}: the unit of {made.time.column!r} is not in its name; by its steps it is "
                            f"{self.unit} (option table.unit)")  # fmt: skip
        kind = source.columns[made.time.column].kind if made.time.column else ""
        if kind not in ("", "number", "date") or (kind == "date") != (self.unit == "date"):
            raise InputError(f"column {made.time.column!r} holds no times", where=str(path))

    def of(self, batch: dict[str, pa.Array], n: int, row: int) -> NDArray[np.int64]:
        """Times of rows [ns], shape (n,)."""
        if not self.time.column:
            return np.round(np.arange(row, row + n) * (1e9 / self.time.hz)).astype(np.int64)
        found = self._column(batch[self.time.column], self.unit, row)
        if self.time.nanoseconds:
            found = found + self._column(batch[self.time.nanoseconds], "ns", row)
        return found

    def _column(self, array: pa.Array, unit: str, row: int) -> NDArray[np.int64]:
        if array.null_count:
            raise self._bad(row + array.is_null().to_numpy(zero_copy_only=False).argmax(), "no time")
        if unit == "date":
            return array.cast(pa.timestamp("ns", array.type.tz)).cast(pa.int64()).to_numpy(zero_copy_only=False)
        scale = NS[unit]
        if pa.types.is_integer(array.type):
            whole = array.cast(pa.int64()).to_numpy(zero_copy_only=False)
            beyond = (whole > MAX_NS // scale) | (whole < -(MAX_NS // scale))
            if beyond.any():
                raise self._bad(row + int(beyond.argmax()), "a time beyond the year 2262")
            return whole * scale
        values = array.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        with np.errstate(invalid="ignore"):
            beyond = ~(np.abs(values) < MAX_NS / scale * 0.999)
        if beyond.any():
            at = int(beyond.argmax())
            raise self._bad(
                row + at, "a time beyond the year 2262" if np.isfinite(values[at]) else "a time that is none"
            )
        whole = np.floor(values)  # apart, so that a fraction of a second keeps its digits
        return whole.astype(np.int64) * scale + np.round((values - whole) * scale).astype(np.int64)

    def _bad(self, row: int, what: str) -> Damaged:
        return Damaged(f"row {row + self.first_row + 1}: {what}", where=str(self.path))


class _Clock:
    """Times of rows, which grow: one for all signals that have a sample in every row."""

    def __init__(self, intake: Intake, name: str) -> None:
        self.intake, self.name = intake, name
        self.column = intake.column(np.int64)
        self._settled: tuple[NDArray[np.int64], NDArray[np.int64] | None] | None = None

    def settle(self) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """(times in order, what puts rows in that order, None when they are)."""
        if self._settled is None:
            t_ns, order = forwards(self.intake, self.name, self.column.array(), "rows run backwards in time")
            self._settled = t_ns if order is None else t_ns[order], order
        return self._settled


class _Signal:
    """One signal that grows."""

    def __init__(self, told: SignalColumns, every: _Clock, intake: Intake, where: str) -> None:
        self.told, self.intake, self.clock, self.every = told, intake, every, every
        self.unit, self.factor = told.to_si(where)
        self.values: Column | None = None
        if (self.factor != 1).any():
            intake.note("converted", f"{', '.join(told.columns)}: from {told.unit} to {self.unit or '1'}")

    def add(self, arrays: list[pa.Array], t_ns: NDArray[np.int64], row: int) -> None:
        """Samples of these rows; a row in which all its cells are empty is none."""
        parts = [_numbers(a, c, row) for a, c in zip(arrays, self.told.columns, strict=True)]
        there = np.logical_or.reduce([p[1] for p in parts])
        values = parts[0][0] if len(parts) == 1 else np.stack([_floats(p) for p in parts], axis=1)
        if (self.factor != 1).any():
            values = _floats((values, np.ones(len(values), bool))) * (self.factor if len(parts) > 1 else self.factor[0])
        if not there.all():
            if self.clock is self.every:  # from now on it has times of its own
                self.clock = _Clock(self.intake, self.told.name)
                before = self.every.column.array()
                self.clock.column.append(before[: len(before) - len(t_ns)])
            values, t_ns = values[there], t_ns[there]
        if self.values is None:
            self.values = self.intake.column(values.dtype, values.shape[1:])
        elif values.shape[1:] != self.values.shape:
            raise Damaged(f"column {self.told.columns[0]!r} has cells of different size")
        if self.clock is not self.every:
            self.clock.column.append(t_ns)
        self.values.append(values)

    def finish(self) -> Timed | None:
        """The signal in order of time, None when it has no sample."""
        if self.values is None or not self.values.length:
            return None
        t_ns, order = self.clock.settle()
        values = self.values.ordered(order)
        spec = SignalSpec(self.told.name, values.shape[1:], values.dtype.name, self.unit, rate_hz(t_ns))
        return Timed(spec, t_ns, values)


def _numbers(array: pa.Array, name: str, row: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(values, which cells are not empty) of a column."""
    there = array.is_valid().to_numpy(zero_copy_only=False)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        sizes = pc.unique(pc.list_value_length(array.drop_null())).to_pylist()
        if len(sizes) > 1:
            raise Damaged(f"column {name!r}, from row {row + 1}: lists of {min(sizes)} and of {max(sizes)} numbers")
        flat = array.drop_null().flatten()
        if flat.null_count:
            flat = flat.cast(pa.float64())
        kept = flat.to_numpy(zero_copy_only=False).reshape(-1, *sizes[:1])
        values = np.zeros((len(array), *kept.shape[1:]), kept.dtype)
        values[there] = kept
        return values, there
    if pa.types.is_decimal(array.type):
        array = array.cast(pa.float64(), safe=False)
    if pa.types.is_floating(array.type):
        return array.to_numpy(zero_copy_only=False), there
    if not (pa.types.is_integer(array.type) or pa.types.is_boolean(array.type)):
        raise InputError(f"column {name!r} holds no numbers")
    if pa.types.is_boolean(array.type):
        return pc.fill_null(array, False).to_numpy(zero_copy_only=False).astype(bool), there
    return pc.fill_null(array, 0).to_numpy(zero_copy_only=False), there


def _floats(part: tuple[NDArray[Any], NDArray[np.bool_]]) -> NDArray[np.float64]:
    values, there = part
    found = values.astype(np.float64)
    found[~there] = np.nan
    return found


class _Pictures:
    """A column of encoded pictures."""

    def __init__(self, column: str, name: str, intake: Intake) -> None:
        self.column, self.name, self.intake = column, name, intake
        self.writer: FramesWriter | None = None
        self.encoding = ""

    def add(self, array: pa.Array, t_ns: NDArray[np.int64], row: int) -> None:
        for i, (t, cell) in enumerate(zip(t_ns.tolist(), array, strict=True)):
            if not cell.is_valid:
                continue
            picture = cell.as_py()
            encoding = _PICTURES.get(picture[:3], "")
            if self.writer is None:
                self.encoding, self.writer = encoding, self.intake.frames(self.name, encoding)
            if not encoding or encoding != self.encoding:
                raise Damaged(
                    f"column {self.column!r}, row {row + i + 1}: not a picture like the others ({self.encoding})"
                )
            self.writer.append(t, picture)


class _Text:
    """A column of text: where it changes."""

    def __init__(self, column: str) -> None:
        self.column = column
        self.changes: list[tuple[int, str]] = []
        self.lost = 0

    def add(self, array: pa.Array, t_ns: NDArray[np.int64]) -> None:
        if not pa.types.is_string(array.type) and not pa.types.is_large_string(array.type):
            array = array.cast(pa.string())
        texts = array.to_pylist()
        last = self.changes[-1][1] if self.changes else None
        for i, text in enumerate(texts):
            if text and text != last:  # an empty cell says nothing
                last = text
                if len(self.changes) < MAX_EVENTS:
                    self.changes.append((int(t_ns[i]), text))
                else:
                    self.lost += 1


class _Building:
    """One episode that grows."""

    def __init__(self, made: TableMap, source: _Source, intake: Intake, where: str, name: str) -> None:
        self.made, self.intake = made, intake
        kinds = {c: source.columns[c].kind for c in made.columns()}
        self.clock = _Clock(intake, name)
        self.signals = [
            _Signal(s, self.clock, intake, where) for s in made.signals if kinds[s.columns[0]] != "pictures"
        ]
        self.pictures = [
            _Pictures(s.columns[0], s.name, intake) for s in made.signals if kinds[s.columns[0]] == "pictures"
        ]
        self.texts = [_Text(c) for c in made.texts]
        for s in self.signals:
            sizes = [source.columns[c].size for c in s.told.columns]
            if any(kinds[c] != "number" for c in s.told.columns) or (len(sizes) > 1 and any(sizes)):
                raise InputError(f"signal {s.told.name!r}: its columns are not all numbers", where=where)

    def add(self, batch: dict[str, pa.Array], t_ns: NDArray[np.int64], row: int) -> None:
        self.clock.column.append(t_ns)
        for s in self.signals:
            s.add([batch[c] for c in s.told.columns], t_ns, row)
        for p in self.pictures:
            p.add(batch[p.column], t_ns, row)
        for x in self.texts:
            x.add(batch[x.column], t_ns)

    def episode(self, path: Path, key: Any) -> Episode:
        out = Contents()
        for s in self.signals:
            signal = s.finish()
            if signal is None:
                self.intake.note("skipped", f"{s.told.name}: has no values")
            else:
                out.signals[s.told.name] = signal
        for p in self.pictures:
            if p.writer is not None:
                out.frames[p.name] = p.writer.close()
        for x in self.texts:
            if len(x.changes) == 1:
                out.labels[clean(x.column)] = x.changes[0][1]
            else:
                out.events += [Event(t, clean(x.column), text) for t, text in x.changes]
            if x.lost:
                self.intake.note("skipped", f"{x.column}: {x.lost} events beyond the first {MAX_EVENTS}")
        out.events.sort(key=lambda e: e.t_ns)
        if key is not None:
            whole = isinstance(key, float) and key.is_integer()
            out.labels[clean(self.made.episode)] = int(key) if whole else key
        return foreign.episode(out, path, {})
