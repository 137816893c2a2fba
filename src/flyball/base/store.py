"""The durable memory: content-addressed blobs beside one SQLite file.

In: bytes with a kind, parents and labels. Out: ``Artifact`` rows that name them, lineage in both directions, named
pointers ("deployed") and small JSON rows. Several processes may use one store at once; ``kill -9`` at any moment
leaves either the old state or the new one. A blob is written under a temporary name, fsynced, renamed, its folders
fsynced, and only then does a row name it, so a row never points at half a blob.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from flyball.base.artifact import Artifact
from flyball.base.durable import sync_folder
from flyball.base.errors import Conflict, Damaged, InputError, Missing, NotPossible

BUSY_S = 30.0  # how long a writer waits for another process before it gives up
STALE_S = 86_400.0  # temporary files older than this belong to no living writer
VERSION = 1
_PIECE = 4 << 20

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


class Store:
    """A content-addressed store: blobs in ``root/store/ab/cdef...``, rows in ``root/flyball.db``.

    Usable from several threads and processes. Methods that write return after the data are on disk.

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
        self._depth = threading.local()
        self._counter = itertools.count()
        with _foreign(self.root):
            self._temporary.mkdir(parents=True, exist_ok=True)
            self._sweep()
        with _foreign(self.db):
            self._create()

    # ---- blobs

    def keep(self, *blobs: bytes) -> list[str]:
        """Make blobs durable without naming them in rows; returns their digests. ``put`` does both.

        Many at once are cheaper than one by one: folders are synced once.
        """
        digests = [hashlib.sha256(blob).hexdigest() for blob in blobs]
        with _foreign(self.blobs):
            new: list[tuple[Path, Path]] = []
            for digest, blob in dict(zip(digests, blobs, strict=True)).items():
                path = self.path(digest)
                if not _holds(path, digest):
                    path.parent.mkdir(exist_ok=True)
                    temporary = self._temporary / f"{os.getpid()}-{threading.get_ident()}-{next(self._counter)}"
                    with open(temporary, "wb") as f:
                        f.write(blob)
                        f.flush()
                        os.fsync(f.fileno())
                    new.append((temporary, path))
            for temporary, path in new:
                os.replace(temporary, path)
            # Also for blobs that were there: their writer may not have come as far as this yet.
            for folder in sorted({self.path(digest).parent for digest in digests}):
                sync_folder(folder)
            sync_folder(self.blobs)
        return digests

    def keep_file(self, source: Path) -> str:
        """Make a copy of a file durable without naming it in a row; returns its digest. Memory stays bounded.

        The file may change or vanish meanwhile: what is kept is what was read, under the digest of that.

        Raises:
          NotPossible: the disk is full or not writable.
        """
        temporary = self._temporary / f"{os.getpid()}-{threading.get_ident()}-{next(self._counter)}"
        with _foreign(self.blobs):
            digest = hashlib.sha256()
            with open(source, "rb") as given, open(temporary, "wb") as f:
                while piece := given.read(_PIECE):
                    digest.update(piece)
                    f.write(piece)
                f.flush()
                os.fsync(f.fileno())
            path = self.path(digest.hexdigest())
            path.parent.mkdir(exist_ok=True)
            os.replace(temporary, path)
            sync_folder(path.parent)
            sync_folder(self.blobs)
        return digest.hexdigest()

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
        depth = getattr(self._depth, "n", 0)
        with _foreign(self.db):
            if depth == 0:
                db.execute("BEGIN IMMEDIATE")
            self._depth.n = depth + 1
            try:
                yield db
            except BaseException:
                self._depth.n = depth
                if depth == 0 and db.in_transaction:
                    db.execute("ROLLBACK")
                raise
            self._depth.n = depth
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
            db.execute("PRAGMA synchronous = FULL")
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
                with self.transaction():
                    for statement in filter(str.strip, _SCHEMA.split(";")):
                        db.execute(statement)
                    db.execute(f"PRAGMA user_version = {VERSION}")
                sync_folder(self.root)

    def _sweep(self) -> None:
        """Remove what writers left that were killed long ago."""
        now = time.time()
        for path in self._temporary.iterdir():
            try:
                if path.suffix != ".lock" and now - path.stat().st_mtime > STALE_S:
                    path.unlink()
            except FileNotFoundError:
                continue


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between threads and processes; the kernel frees it when the holder dies."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(fd, fcntl.LOCK_EX)
        try:
            if os.fstat(fd).st_ino == os.stat(path).st_ino:
                break
        except FileNotFoundError:
            pass
        os.close(fd)  # the former holder removed the file while we waited
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(fd)


def _holds(path: Path, digest: str) -> bool:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == digest
    except FileNotFoundError:
        return False


def _json(data: Any, *, where: str) -> str:
    try:
        return json.dumps(data, sort_keys=True, separators=(",", ":"))
    except (TypeError, ValueError) as err:
        raise InputError(f"cannot be written as JSON ({err})", where=where) from err


@contextmanager
def _foreign(where: Path) -> Iterator[None]:
    """Wrap what SQLite and the file system raise."""
    try:
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
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotPossible("no space left on the disk", where=str(where), run_next="free space") from err
        if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise InputError("not writable", where=str(where), allowed="a folder you may write to") from err
        raise
