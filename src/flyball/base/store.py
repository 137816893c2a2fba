"""The durable memory: content-addressed blobs beside one SQLite file.

In: bytes with a kind, parents and labels. Out: ``Artifact`` rows that name them, lineage in both directions, named
pointers ("deployed") and small JSON rows. Several processes may use one store at once; ``kill -9`` or a power cut at
any moment leaves either the old state or the new one. What a method of ``Store`` has returned is on disk.
"""

from __future__ import annotations

import fcntl
import hashlib
import itertools
import json
import os
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from flyball.base.artifact import Artifact
from flyball.base.durable import disk_errors, is_still, make_folder, sync_file, sync_folder
from flyball.base.errors import Conflict, Damaged, InputError, Missing, NotPossible

BUSY_S = 30.0  # how long a writer waits for another process before it gives up
STALE_S = 86_400.0  # temporary files that nobody locks are removed when older than this
VERSION = 1
_PIECE = 1 << 19
_HELD = "held-"  # folders of temporary files, locked by the process that uses them

_SCHEMA = """
CREATE TABLE artifacts (
  seq INTEGER PRIMARY KEY, digest TEXT NOT NULL, kind TEXT NOT NULL, producer TEXT NOT NULL,
  created_ns INTEGER NOT NULL, labels TEXT NOT NULL, UNIQUE (digest, kind));
CREATE INDEX artifacts_kind ON artifacts (kind);
CREATE TABLE parents (child TEXT NOT NULL, parent TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (child, parent));
CREATE INDEX parents_parent ON parents (parent);
CREATE TABLE names (name TEXT PRIMARY KEY, digest TEXT NOT NULL);
CREATE TABLE facts (
  seq INTEGER PRIMARY KEY, kind TEXT NOT NULL, key TEXT NOT NULL, json TEXT NOT NULL, UNIQUE (kind, key));
CREATE TABLE steps (key TEXT PRIMARY KEY, digest TEXT NOT NULL, kind TEXT NOT NULL);
"""


@dataclass
class _Batch:
    """What ``keep`` and ``keep_file`` have taken and not named yet."""

    folder: Path
    waiting: dict[str, Path] = field(default_factory=dict)  # digest -> file that gets its name
    held: set[str] = field(default_factory=set)  # digests that the store had before
    done_with: list[Path] = field(default_factory=list)  # files to remove at the end


class Store:
    """A content-addressed store: blobs in ``root/store/ab/cdef...``, rows in ``root/flyball.db``.

    Usable from several threads and processes. Methods that write return after the data are on disk.

    Who takes something in and then forgets its source (ingest empties its inbox, the hub tells a robot to delete) must
    keep to this order; then nothing is lost, nothing is there twice, and nothing is there by half, whatever happens:

    1. ``keep``/``keep_file``: the blobs become durable. A blob is written under a temporary name, fsynced, renamed, and
       the folders above it are fsynced. What a crash leaves now is blobs without rows, which nobody sees; they are
       found again by their digest.
    2. One ``transaction`` holds all rows that belong together: the log, its frames, its episodes, their parents.
       ``register`` refuses a digest without a blob and a parent without a row. COMMIT returns after the fsync of the
       database's log (``synchronous = EXTRA``). Look inside the transaction whether another process was faster.
    3. Only after the transaction has ended, the source is unlinked (and its folder fsynced), progress is reported, an
       acknowledgement is sent. A crash between 2 and 3 leaves a source that is known already.

    Many small blobs go faster inside ``batch``, temporary files of one's own belong into ``scratch``.

    Args:
      root: an existing, writable folder.
      clock_ns: the wall clock for ``created_ns`` [ns].
    """

    def __init__(self, root: Path | str, *, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self.root = Path(root)
        self.clock_ns = clock_ns
        self.blobs = self.root / "store"
        self.db = self.root / "flyball.db"
        self._temporary = self.blobs / "tmp"
        self._connections: dict[tuple[int, int], sqlite3.Connection] = {}
        self._local = threading.local()
        self._counter = itertools.count()
        with _foreign(self.root):
            make_folder(self._temporary)
            self._sweep()
        with _foreign(self.db):
            self._create()

    # ---- blobs

    def keep(self, *blobs: bytes) -> list[str]:
        """Make blobs durable without naming them in rows; returns their digests. ``put`` does both.

        Raises:
          NotPossible: the disk is full or fails. Nothing is visible then.
          InputError: the disk is not writable.
        """
        digests = [hashlib.sha256(blob).hexdigest() for blob in blobs]
        with self.batch(), disk_errors(self.blobs):
            for digest, blob in zip(digests, blobs, strict=True):
                if not self._known(digest):
                    temporary = self._batch.folder / digest
                    temporary.write_bytes(blob)
                    self._batch.waiting[digest] = temporary
        return digests

    def keep_file(self, source: Path, *, digest: str = "", move: bool = False) -> str:
        """Make the content of a file durable without naming it in a row; returns its digest. Memory stays bounded.

        Args:
          source: the file. It may change or vanish meanwhile: what is kept is what was read, under the digest of that.
          digest: its sha256, if the caller knows it; when the store holds that already, nothing is copied.
          move: the file itself becomes the blob if it lies on the store's file system, and is gone afterwards (when the
            batch ends). For files of the caller's own, such as those of ``scratch``: somebody who still writes to it
            would write to the store. A known digest is then believed.

        Raises:
          NotPossible: the disk is full or fails. The source is there still.
          InputError: the content is not that of ``digest``, or the disk is not writable.
        """
        with self.batch(), disk_errors(self.blobs):
            if move and not digest:
                digest = _digest_of(source)
            if digest and self._known(digest):
                if move and self._batch.waiting.get(digest) != source:
                    self._batch.done_with.append(source)
                return digest
            if move and source.stat().st_dev == self._batch.folder.stat().st_dev:
                self._batch.waiting[digest] = source
                return digest
            temporary = self._batch.folder / f"copy-{next(self._counter)}"
            found = _copied(source, temporary)
            if digest not in ("", found):
                temporary.unlink()
                raise InputError("changed while it was read", where=str(source), run_next="the same again")
            if digest or not self._known(found):
                self._batch.waiting[found] = temporary
            if move:
                self._batch.done_with.append(source)
        return found

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Make what this thread keeps meanwhile durable together, at the end: folders are then synced once.

        Until then the digests have no blobs, so ``register`` refuses them. An inner batch joins the outer. When it is
        left by an exception, nothing of it is kept.
        """
        if getattr(self._local, "batch", None) is not None:
            yield
            return
        with self.scratch() as folder:
            batch = self._local.batch = _Batch(folder)
            try:
                yield
                with disk_errors(self.blobs):
                    self._name(batch)
            finally:
                self._local.batch = None

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder for temporary files on the store's disk; removed at the end, after a kill when the store is opened.

        Raises:
          NotPossible: the disk is full or fails.
        """
        with disk_errors(self.blobs):
            while True:
                folder = self._temporary / f"{_HELD}{os.getpid()}-{threading.get_ident()}-{next(self._counter)}"
                try:
                    folder.mkdir()
                    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
                except (FileExistsError, FileNotFoundError):
                    continue  # one of a killed process; or swept before we locked it
                if _lock_at_once(fd) and is_still(folder, fd):
                    break
                os.close(fd)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(fd)

    @property
    def _batch(self) -> _Batch:
        batch: _Batch = self._local.batch
        return batch

    def _known(self, digest: str) -> bool:
        """Whether the batch or the store has a digest, whole."""
        if digest in self._batch.waiting or digest in self._batch.held:
            return True
        try:
            if _digest_of(self.path(digest)) != digest:
                return False
        except FileNotFoundError:
            return False
        self._batch.held.add(digest)
        return True

    def _name(self, batch: _Batch) -> None:
        """Give blobs their names, durably: contents first, then names, then the folders that hold them."""
        for source in batch.waiting.values():
            sync_file(source)
        for digest, source in batch.waiting.items():
            path = self.path(digest)
            path.parent.mkdir(exist_ok=True)
            os.replace(source, path)
        # Also for blobs that were there: their writer may not have come as far as this yet.
        folders = sorted({self.path(digest).parent for digest in (*batch.waiting, *batch.held)})
        for folder in folders:
            sync_folder(folder)
        if folders:
            sync_folder(self.blobs)
        for source in batch.done_with:
            source.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where the blob of a digest lives, whether it exists or not.

        Raises:
          InputError: not a sha256 in hex.
        """
        if len(digest) != 64 or not set(digest) <= set("0123456789abcdef"):
            raise InputError(f"{digest!r} is not a digest", allowed="64 hexadecimal digits")
        return self.blobs / digest[:2] / digest[2:]

    def get(self, digest: str) -> bytes:
        """The blob of a digest, its hash verified.

        Raises:
          Missing: no such blob.
          Damaged: the bytes on disk are not what was stored.
        """
        path = self.path(digest)
        with _foreign(path):
            try:
                blob = path.read_bytes()
            except FileNotFoundError:
                raise Missing(f"no blob with digest {digest[:12]}", where=str(self.root)) from None
        if hashlib.sha256(blob).hexdigest() != digest:
            raise Damaged("the stored bytes do not match their digest", where=str(path), run_next="restore the file")
        return blob

    # ---- artifacts

    def put(
        self,
        kind: str,
        blob: bytes,
        *,
        parents: Iterable[str] = (),
        producer: str,
        labels: Mapping[str, Any] | None = None,
        now_ns: int | None = None,
    ) -> Artifact:
        """Store a blob and register it. Idempotent by (digest, kind).

        Putting the same bytes again adds new parents and keeps the first producer, labels and time.

        Args:
          kind: ``log``, ``episode``, ``policy``, ...
          blob: the content.
          parents: digests it was made from; they must be registered.
          producer: code path and declared version, ``flyball.learning.flow@1``.
          labels: small JSON-able facts to search by.
          now_ns: wall clock [ns]; the store's clock when None.

        Raises:
          Missing: a parent is not registered.
          NotPossible: the disk is full or not writable.
        """
        (digest,) = self.keep(blob)
        return self.register(kind, digest, parents=parents, producer=producer, labels=labels, now_ns=now_ns)

    def register(
        self,
        kind: str,
        digest: str,
        *,
        parents: Iterable[str] = (),
        producer: str,
        labels: Mapping[str, Any] | None = None,
        now_ns: int | None = None,
    ) -> Artifact:
        """Name a kept blob in a row; joins the surrounding ``transaction``. See ``put``."""
        now = self.clock_ns() if now_ns is None else int(now_ns)
        text = _json(labels or {}, where=f"labels of a {kind}")
        with self.transaction() as db:
            if not self.path(digest).exists():
                raise Missing(f"no blob with digest {digest[:12]}", where=str(self.root))
            db.execute(
                "INSERT OR IGNORE INTO artifacts (digest, kind, producer, created_ns, labels) VALUES (?, ?, ?, ?, ?)",
                (digest, kind, producer, now, text),
            )
            for i, parent in enumerate(dict.fromkeys(parents)):
                if not self.has(parent):
                    raise Missing(f"parent {parent[:12]} is not in the store", where=f"{kind} {digest[:12]}")
                if parent != digest:
                    db.execute("INSERT OR IGNORE INTO parents VALUES (?, ?, ?)", (digest, parent, i))
            return self.artifact(digest, kind)

    def has(self, digest: str) -> bool:
        """Whether an artifact of that digest is registered."""
        return bool(self.read("SELECT 1 FROM artifacts WHERE digest = ? LIMIT 1", (digest,)))

    def artifact(self, digest: str, kind: str | None = None) -> Artifact:
        """The artifact of a digest (the first registered when several kinds share the bytes).

        Raises:
          Missing: not registered.
        """
        found = self._artifacts("digest = ? AND (? IS NULL OR kind = ?)", (digest, kind, kind))
        if not found:
            raise Missing(f"no {kind or 'artifact'} with digest {digest[:12]}", where=str(self.root))
        return found[0]

    def find(self, kind: str, **labels: Any) -> list[Artifact]:
        """Artifacts of a kind whose labels have these values, oldest registration first."""
        where = ["kind = ?"]
        values: list[Any] = [kind]
        for key, value in labels.items():
            if value is not None and not isinstance(value, (str, int, float, bool)):
                raise InputError(f"cannot search label {key!r} by {value!r}", allowed="text, numbers, true, false")
            where.append("json_extract(labels, ?) IS ?")
            values += ['$."' + key.replace('"', "") + '"', value]
        return self._artifacts(" AND ".join(where), values)

    def lineage(self, digest: str, direction: Literal["parents", "children"] = "parents") -> list[Artifact]:
        """Everything a digest was made from (``parents``) or that was made from it (``children``), nearest first.

        Raises:
          Missing: the digest is not registered.
          InputError: unknown direction.
        """
        if direction not in ("parents", "children"):
            raise InputError(f"unknown direction {direction!r}", allowed="parents, children")
        self.artifact(digest)
        ours, theirs = ("child", "parent") if direction == "parents" else ("parent", "child")
        found: dict[str, None] = {digest: None}
        front = [digest]
        while front:
            reached: dict[str, None] = {}
            for d in front:
                rows = self.read(f"SELECT {theirs} FROM parents WHERE {ours} = ? ORDER BY seq, rowid", (d,))
                reached.update((row[0], None) for row in rows if row[0] not in found)
            found.update(reached)
            front = list(reached)
        return [a for d in list(found)[1:] for a in self._artifacts("digest = ?", (d,))]

    def resolve(self, prefix: str) -> str:
        """The full digest of an abbreviated one.

        Raises:
          Missing: nothing begins like this.
          InputError: several digests do.
        """
        rows = self.read(
            "SELECT DISTINCT digest FROM artifacts WHERE substr(digest, 1, ?) = ? LIMIT 5", (len(prefix), prefix)
        )
        if not prefix or not rows:
            raise Missing(f"no artifact whose digest begins with {prefix!r}", where=str(self.root))
        if len(rows) > 1:
            raise InputError(f"{prefix!r} is ambiguous", allowed=", ".join(row[0][:16] for row in rows))
        return rows[0][0]

    def _artifacts(self, where: str, values: Iterable[Any]) -> list[Artifact]:
        rows = self.read(
            f"SELECT kind, digest, producer, created_ns, labels FROM artifacts WHERE {where} ORDER BY seq", values
        )
        if not rows:
            return []
        marks = ", ".join("?" * len(rows)) if len(rows) <= 500 else "SELECT digest FROM artifacts"
        above: dict[str, list[str]] = {}
        for child, parent in self.read(
            f"SELECT child, parent FROM parents WHERE child IN ({marks}) ORDER BY seq, rowid",
            [r[1] for r in rows] if len(rows) <= 500 else (),
        ):
            above.setdefault(child, []).append(parent)
        return [Artifact(k, d, tuple(above.get(d, ())), p, t, json.loads(text)) for k, d, p, t, text in rows]

    # ---- names and facts

    def set_name(self, name: str, digest: str) -> None:
        """Point a name (for example ``deployed``) at a registered artifact.

        Raises:
          Missing: the digest is not registered.
        """
        with self.transaction() as db:
            self.artifact(digest)
            db.execute(
                "INSERT INTO names VALUES (?, ?) ON CONFLICT DO UPDATE SET digest = excluded.digest", (name, digest)
            )

    def name(self, name: str) -> str | None:
        """The digest a name points at, None when it was never set."""
        rows = self.read("SELECT digest FROM names WHERE name = ?", (name,))
        return rows[0][0] if rows else None

    def put_row(self, kind: str, key: str, row: Mapping[str, Any]) -> None:
        """Write a small JSON row (a rollout, an incident, a turn); replaces the row of the same kind and key."""
        text = _json(row, where=f"{kind} {key}")
        with self.transaction() as db:
            db.execute(
                "INSERT INTO facts (kind, key, json) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, key) DO UPDATE SET json = excluded.json",
                (kind, key, text),
            )

    def row(self, kind: str, key: str) -> dict[str, Any] | None:
        """One JSON row, None when there is none."""
        rows = self.read("SELECT json FROM facts WHERE kind = ? AND key = ?", (kind, key))
        return json.loads(rows[0][0]) if rows else None

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """All JSON rows of a kind, in the order in which their keys first appeared."""
        return [json.loads(r[0]) for r in self.read("SELECT json FROM facts WHERE kind = ? ORDER BY seq", (kind,))]

    # ---- the database

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """One write transaction (BEGIN IMMEDIATE); an inner one joins the outer. Rolled back on any exception.

        Raises:
          Conflict: another process held the database for longer than 30 s.
          NotPossible: the disk is full or read-only.
          Damaged: the database file is not one.
        """
        db = self._connection()
        depth = getattr(self._local, "depth", 0)
        with _foreign(self.db):
            if depth == 0:
                db.execute("BEGIN IMMEDIATE")
            self._local.depth = depth + 1
            try:
                yield db
            except BaseException:
                self._local.depth = depth
                if depth == 0 and db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            self._local.depth = depth
            if depth == 0:
                try:
                    db.execute("COMMIT")
                except sqlite3.Error:
                    if db.in_transaction:
                        db.execute("ROLLBACK")
                    raise

    def read(self, sql: str, values: Iterable[Any] = ()) -> list[tuple[Any, ...]]:
        """Rows of a query; inside a transaction it sees what that has written."""
        with _foreign(self.db):
            return self._connection().execute(sql, tuple(values)).fetchall()

    def ensure(self, table: str, schema: str) -> None:
        """Create a table (and its indices) of a package above, once, however many processes race."""
        exists = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if not self.read(exists, (table,)):
            with self.transaction() as db:
                if not db.execute(exists, (table,)).fetchall():
                    for statement in filter(str.strip, schema.split(";")):
                        db.execute(statement)

    def close(self) -> None:
        """Close this process's database connections; the store reopens them when used again."""
        for key in [k for k in self._connections if k[0] == os.getpid()]:
            self._connections.pop(key).close()

    def _connection(self) -> sqlite3.Connection:
        # One connection per thread. A forked child must not touch its parent's: closing one there would drop
        # the parent's file locks, so inherited connections stay referenced and unused.
        key = (os.getpid(), threading.get_ident())
        if key not in self._connections:
            db = sqlite3.connect(self.db, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            db.execute("PRAGMA synchronous = EXTRA")  # as FULL, also where the file system knows no WAL
            self._connections[key] = db
        return self._connections[key]

    def _create(self) -> None:
        with locked(self._temporary / "create.lock"):  # a busy timeout does not cover the switch to WAL
            db = self._connection()
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > VERSION:
                raise InputError(
                    f"made by a newer Flyball (layout {version}, this one knows {VERSION})",
                    where=str(self.db),
                    run_next="pip install --upgrade flyball",
                )
            if version == 0:
                db.execute("PRAGMA journal_mode = WAL")
                sync_folder(self.root)  # the file's name is durable before anybody can see the version
                with self.transaction():
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {VERSION}")

    def _sweep(self) -> None:
        """Remove what writers left that were killed."""
        now = time.time()
        for path in self._temporary.iterdir():
            try:
                if path.name.startswith(_HELD):
                    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
                    try:
                        if _lock_at_once(fd):
                            shutil.rmtree(path, ignore_errors=True)
                    finally:
                        os.close(fd)
                elif path.suffix != ".lock" and now - path.stat().st_mtime > STALE_S:
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
            except FileNotFoundError:
                continue


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between threads and processes; the kernel frees it when the holder dies."""
    while True:
        with disk_errors(path):
            fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        if is_still(path, fd):
            break
        os.close(fd)  # the former holder removed the file while we waited
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _lock_at_once(fd: int) -> bool:
    """Lock an open file or folder unless somebody holds it."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _digest_of(path: Path) -> str:
    with open(path, "rb", buffering=0) as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _copied(source: Path, target: Path) -> str:
    """Copy a file; returns the digest of what was copied."""
    digest = hashlib.sha256()
    piece = memoryview(bytearray(_PIECE))
    with open(source, "rb", buffering=0) as given, open(target, "wb", buffering=0) as f:
        while n := given.readinto(piece):
            digest.update(piece[:n])
            at = 0
            while at < n:
                at += f.write(piece[at:n])
            if hasattr(os, "posix_fadvise"):  # the disk begins now, so that the fsync has less to wait for
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return digest.hexdigest()


def _json(data: Any, *, where: str) -> str:
    try:
        return json.dumps(data, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as err:
        raise InputError(f"cannot be written as JSON ({err})", where=where) from err


@contextmanager
def _foreign(where: Path) -> Iterator[None]:
    """Wrap what SQLite and the file system raise."""
    try:
        with disk_errors(where):
            yield
    except sqlite3.OperationalError as err:
        text = str(err)
        if "locked" in text or "busy" in text:
            raise Conflict(f"another process holds the database ({text})", where=str(where), run_next="again") from err
        if "full" in text or "readonly" in text or "unable to open" in text or "disk I/O" in text:
            raise NotPossible(f"the database cannot be written ({text})", where=str(where)) from err
        raise
    except sqlite3.DatabaseError as err:
        if type(err) is sqlite3.DatabaseError:
            raise Damaged(f"not a usable database ({err})", where=str(where), run_next="restore the file") from err
        raise
