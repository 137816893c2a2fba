"""ROS 2 bags as episodes: folders of rosbag2 with SQLite or MCAP files, and single ``.db3`` files.

In: a folder with ``metadata.yaml`` (its files are one log, in the order given there), or a ``.db3`` file. Out: one
``Episode``; what its messages mean is decided in ``formats.messages``. The rules:

- ``custom_data`` of ``metadata.yaml`` become labels. Compression by file and by message is undone, with bounded sizes.
- Files written before ROS 2 Iron hold no message definitions. Those that the ROS distribution ships are then taken from
  ``rosbags`` (option ``ros2.distro``, else what the bag says, else Humble), with a note.
- A database is a stranger's program to SQLite: it is opened read-only and immutable, its schema is not trusted, only
  the tables of a bag are read, and its structure is checked first. SQLite has no checksums: a changed byte within a
  payload cannot be told. A recording that was not finished (``-wal`` beside the file) is refused.

Format: github.com/ros2/rosbag2, docs/storage formats and ``rosbag2_storage_sqlite3``, schema versions 1 to 4.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
import zstandard
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, Missing, NotPossible, Unsupported
from flyball.episodes.episode import Episode
from flyball.episodes.formats import foreign
from flyball.episodes.formats.mcap import MAX_CHUNK_BYTES, Channel, McapFile, Schema
from flyball.episodes.formats.mcap_log import by_channel
from flyball.episodes.formats.mcap_salvage import SalvagedMcap
from flyball.episodes.formats.messages import Messages
from flyball.episodes.formats.payloads.packed import packed
from flyball.episodes.intake import Intake

DISTRO = "humble"
MAX_METADATA = 1 << 20  # of YAML, which is slow to parse; real ones have about 100 kB
MAX_RATIO = 1000  # how much larger than itself a compressed file may become
MAX_MESSAGE = MAX_CHUNK_BYTES
BATCH = 4 << 20  # bytes of payload handed on together
_TABLES = {"messages": "id, topic_id, timestamp, data", "topics": "id, name, type, serialization_format"}
_DEFINITIONS = "topic_type, encoding, encoded_message_definition"
_SUFFIXES = (".db3", ".mcap", ".db3.zstd", ".mcap.zstd")


class Ros2Bag:
    """The log format ``ros2_bag``."""

    suffixes = (".db3",)

    def claims(self, folder: Path) -> bool:
        """See ``LogFormat.claims``: it holds ``metadata.yaml`` and files of a bag."""
        return (folder / "metadata.yaml").is_file() and any(p.name.endswith(_SUFFIXES) for p in folder.iterdir())

    def complete(self, path: Path) -> bool:
        """Whether nobody records into it any more (a folder gets its metadata last); for ``episodes.watch``."""
        return path.is_dir() or not any(_unwritten(path))

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """See ``LogFormat.read``; option ``ros2.distro``."""
        messages = Messages(intake, str(path))
        about = _about(path, intake) if path.is_dir() else _About((path.name,))
        count = 0
        for name in about.files:
            part = path / name if path.is_dir() else path
            try:
                count += _add_part(part, about, messages, intake)
            except Damaged as err:
                if not (intake.salvage and path.is_dir()):
                    raise
                intake.note("salvaged", f"{err.line()}; the messages before it are kept")
        if about.count is not None and about.count != count:
            intake.note("skipped", f"{path}: metadata.yaml speaks of {about.count} messages, {count} are there")
        yield foreign.episode(messages.finish(), path, about.custom)


FORMAT = Ros2Bag()


@dataclass(frozen=True)
class _About:
    """What ``metadata.yaml`` says."""

    files: tuple[str, ...]
    compression: str = ""  # file, message
    count: int | None = None
    distro: str = ""
    custom: Mapping[str, str] = field(default_factory=dict)


def _about(folder: Path, intake: Intake) -> _About:
    path = folder / "metadata.yaml"
    try:
        from ruamel.yaml import YAML, YAMLError
    except ModuleNotFoundError as err:
        raise NotPossible(
            "folders of rosbag2 need the Python package 'rosbags'", run_next="pip install 'flyball[logs]'"
        ) from err
    if path.stat().st_size > MAX_METADATA:
        raise Damaged(f"larger than {MAX_METADATA >> 20} MiB", where=str(path))
    try:
        told = YAML(typ="safe", pure=True).load(path.read_text())["rosbag2_bagfile_information"]
        if told["version"] > 9:
            raise Unsupported(f"version {told['version']} of the format", where=str(path), allowed="1 to 9")
        files = tuple(_name(str(p), folder) for p in told["relative_file_paths"])
        mode = str(told.get("compression_mode") or "").lower()
        codec = str(told.get("compression_format") or "")
        custom = {str(k): str(v) for k, v in (told.get("custom_data") or {}).items()}
        made = _About(
            files=files,
            compression="" if mode in ("", "none") else mode,
            count=int(told["message_count"]),
            distro=str(told.get("ros_distro") or ""),
            custom=custom,
        )
    except (YAMLError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as err:
        reason = str(err).strip().splitlines()
        raise Damaged(
            f"not the metadata of a bag ({type(err).__name__}: {reason[0][:100] if reason else ''})", where=str(path)
        ) from err
    if made.compression not in ("", "file", "message") or (made.compression and codec != "zstd"):
        raise Unsupported(f"compression {codec} by {mode}", where=str(path), allowed="zstd by file or message")
    there = {p.name for p in folder.iterdir() if p.name.endswith(_SUFFIXES)}
    for name in sorted(there - set(files)):
        intake.note("skipped", f"{folder}: {name} is not named in metadata.yaml")
    if lost := [name for name in files if name not in there]:
        if not intake.salvage:
            raise Missing(f"the bag's file {lost[0]} is not there", where=str(folder))
        intake.note("salvaged", f"{folder}: not there: {', '.join(lost)}")
    return made if not lost else _About(
        tuple(n for n in files if n in there), made.compression, None, made.distro, custom
    )  # fmt: skip


def _name(told: str, folder: Path) -> str:
    """The file that ``metadata.yaml`` names; old versions put the folder's name before it."""
    parts = PurePosixPath(told).parts
    if not parts or ".." in parts or PurePosixPath(told).is_absolute() or len(parts) > 2:
        raise InputError(f"the file {told!r} lies outside of the bag", where=str(folder / "metadata.yaml"))
    if not parts[-1].endswith(_SUFFIXES):
        raise Unsupported(f"the file {told!r}", where=str(folder / "metadata.yaml"), allowed=", ".join(_SUFFIXES))
    path = folder / parts[-1]
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        raise InputError("leads out of the bag", where=str(path), allowed="files inside of it")
    return parts[-1]


def _add_part(path: Path, about: _About, messages: Messages, intake: Intake) -> int:
    """Add the messages of one file; returns how many."""
    file = path
    if about.compression == "file" and path.name.endswith(".zstd"):
        file = _unpacked(path, intake)
    plain = path.name.removesuffix(".zstd")
    found = _mcap(file, path, intake) if plain.endswith(".mcap") else _db3(file, path, about, intake)
    count = 0
    for channel, log_ns, publish_ns, payloads in found:
        count += len(payloads)
        if messages.wanted(channel):
            if about.compression == "message":
                payloads = [_unzstd(p, path) for p in payloads]
            messages.add(channel, log_ns, publish_ns, payloads)
    if file != path:
        file.unlink()
    return count


def _unpacked(path: Path, intake: Intake) -> Path:
    made, left = intake.file(), (1 << 30) + MAX_RATIO * path.stat().st_size
    try:
        with (
            open(path, "rb") as source,
            open(made, "wb") as out,
            zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(source) as reader,
        ):
            while data := reader.read(1 << 20):
                left -= len(data)
                if left < 0:
                    raise Damaged(f"becomes more than {MAX_RATIO} times as large when unpacked", where=str(path))
                out.write(data)
    except zstandard.ZstdError as err:
        raise Damaged(f"does not decompress ({str(err)[:80]})", where=str(path)) from err
    return made


def _unzstd(payload: bytes, path: Path) -> bytes:
    try:
        with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(payload) as reader:
            data = reader.read(MAX_MESSAGE + 1)
    except zstandard.ZstdError as err:
        raise Damaged(f"a message does not decompress ({str(err)[:80]})", where=str(path)) from err
    if len(data) > MAX_MESSAGE:
        raise Damaged(f"a message becomes larger than {MAX_MESSAGE >> 20} MiB when unpacked", where=str(path))
    return data


Part = tuple[Channel, NDArray[Any], NDArray[Any], Sequence[bytes]]


def _mcap(file: Path, path: Path, intake: Intake) -> Iterator[Part]:
    opened = SalvagedMcap(file, str(path)) if intake.salvage else McapFile(file, str(path))
    for block in opened.blocks():
        for channel, rows in by_channel(opened, block):
            bodies = packed(block.data, block.start[rows], block.stop[rows])
            yield channel, block.log_ns[rows], block.publish_ns[rows], bodies
    if isinstance(opened, SalvagedMcap) and not opened.report.sound:
        intake.note("salvaged", f"{path.name}: {opened.report.line()}")


def _db3(file: Path, path: Path, about: _About, intake: Intake) -> Iterator[Part]:
    for rest in _unwritten(path):
        raise InputError(
            f"the recording was not finished, {rest.name} lies beside it",
            where=str(path),
            run_next=f"sqlite3 {path.name} 'PRAGMA wal_checkpoint(TRUNCATE)'",
        )
    try:
        uri = f"file:{quote(str(file.absolute()))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(uri, uri=True)) as db:
            yield from _rows(db, path, about, intake)
    except sqlite3.Error as err:
        raise Damaged(f"not a sound database ({err})", where=str(path)) from err


def _unwritten(path: Path) -> Iterator[Path]:
    """Files beside a database with changes that are not in it."""
    for rest in (path.with_name(path.name + "-wal"), path.with_name(path.name + "-journal")):
        if rest.is_file() and rest.stat().st_size:
            yield rest


def _rows(db: sqlite3.Connection, path: Path, about: _About, intake: Intake) -> Iterator[Part]:
    db.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_MESSAGE)
    db.text_factory = lambda raw: raw.decode(errors="replace")
    for pragma in ("trusted_schema = OFF", "cell_size_check = ON", "query_only = ON", "mmap_size = 0"):
        db.execute(f"PRAGMA {pragma}")
    if not intake.salvage:
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Damaged(f"not a sound database ({str(verdict)[:100]})", where=str(path))
    tables = {
        name: sql
        for name, kind, sql in db.execute("SELECT name, type, sql FROM sqlite_master")
        if kind == "table" and sql and not sql.upper().startswith("CREATE VIRTUAL")
    }
    for name, columns in _TABLES.items():
        there = _columns(db, name) if name in tables else set()
        if lost := set(columns.split(", ")) - there:
            raise Damaged(f"not a bag: no table {name} with {', '.join(sorted(lost))}", where=str(path))
    channels = _channels(db, path, about, intake, tables)
    waiting: dict[int, list[tuple[int, bytes]]] = {}
    held = 0
    for number, topic, t_ns, data in db.execute(f"SELECT {_TABLES['messages']} FROM messages ORDER BY rowid"):
        if topic not in channels:
            raise Damaged(f"message {number} is of the topic {topic!r}, which is not there", where=str(path))
        if not isinstance(t_ns, int) or not isinstance(data, bytes) or t_ns < 0:
            raise Damaged(f"message {number} is not a time and bytes", where=str(path))
        waiting.setdefault(topic, []).append((t_ns, data))
        held += len(data) + 64
        if held > BATCH:
            yield from _batches(waiting, channels)
            waiting, held = {}, 0
    yield from _batches(waiting, channels)


def _batches(waiting: dict[int, list[tuple[int, bytes]]], channels: Mapping[int, Channel]) -> Iterable[Part]:
    for topic, rows in waiting.items():
        t_ns = np.array([t for t, _ in rows], np.int64)
        yield channels[topic], t_ns, t_ns, [data for _, data in rows]


def _columns(db: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in db.execute(f"PRAGMA table_info({table})")}


def _channels(
    db: sqlite3.Connection, path: Path, about: _About, intake: Intake, tables: Mapping[str, str]
) -> dict[int, Channel]:
    known: dict[str, Schema] = {}
    if "message_definitions" in tables and set(_DEFINITIONS.split(", ")) <= _columns(db, "message_definitions"):
        for kind, encoding, text in db.execute(f"SELECT {_DEFINITIONS} FROM message_definitions"):
            if text:
                known[str(kind)] = Schema(str(kind), str(encoding), str(text).encode())
    distro = about.distro
    if "schema" in tables and "ros_distro" in _columns(db, "schema"):
        (told,) = db.execute("SELECT ros_distro FROM schema LIMIT 1").fetchone() or ("",)
        distro = distro or str(told)
    shipped = _Shipped(intake.options.get("ros2.distro", ""), distro, str(path))
    channels: dict[int, Channel] = {}
    for number, topic, kind, encoding in db.execute(f"SELECT {_TABLES['topics']} FROM topics"):
        schema = known.get(str(kind)) or shipped.definition(str(kind), intake)
        channels[number] = Channel(int(number), str(topic), str(encoding), schema, {})
    return channels


class _Shipped:
    """Message definitions that come with a distribution of ROS 2, for bags that hold none."""

    def __init__(self, asked: str, told: str, where: str) -> None:
        self.asked, self.told, self.where = asked.lower(), told.lower(), where
        self._store: Any = None

    def definition(self, kind: str, intake: Intake) -> Schema | None:
        """The definition of a type; None when the distribution has none."""
        if self._store is None:
            self._store = self._load(intake)
        if kind not in self._store.fielddefs:
            return None
        text, _ = self._store.generate_msgdef(kind, ros_version=2)
        return Schema(kind, "ros2msg", text.encode())

    def _load(self, intake: Intake) -> Any:
        try:
            from rosbags.typesys import Stores, get_typestore
        except ModuleNotFoundError as err:
            raise NotPossible(
                "a bag without message definitions needs the Python package 'rosbags'",
                where=self.where,
                run_next="pip install 'flyball[logs]'",
            ) from err
        stores = {s.name.removeprefix("ROS2_").lower(): s for s in Stores if s.name.startswith("ROS2_")}
        if self.asked and self.asked not in stores:
            raise Missing.named("distribution of ROS 2", self.asked, stores, where="option ros2.distro")
        distro = self.asked or (self.told if self.told in stores else DISTRO)
        intake.note("unmapped", f"{self.where}: no message definitions, those of ROS 2 {distro} are taken "
                    "(option ros2.distro)")  # fmt: skip
        return get_typestore(stores[distro])
