"""The catalogue: one searchable row per episode.

In: episodes, and verdicts about them. Out: rows by condition, and the episodes themselves. An episode's bytes never
change; what is judged later (outcome, group, verdict) lives in the row, each change kept with its reason. Beside the
rows lie summaries of what the episodes hold, and the verdicts of named checks; ``episodes.query`` asks all of it.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

from flyball.base import Artifact, FlyballError, InputError, Missing
from flyball.base.store import Store
from flyball.episodes import codec, summaries
from flyball.episodes.episode import Episode, Outcome
from flyball.episodes.summaries import Summary, summarise

COLUMNS = (
    "digest", "embodiment", "robot", "task", "instruction", "origin", "outcome", "grp", "verdict", "release", "scene",
    "seed", "log_digest", "start_ns", "duration_s", "labels", "added_ns",
)  # fmt: skip

_SCHEMA = """
CREATE TABLE episodes (
  digest TEXT PRIMARY KEY, embodiment TEXT NOT NULL, robot TEXT NOT NULL, task TEXT NOT NULL,
  instruction TEXT NOT NULL, origin TEXT NOT NULL, outcome TEXT NOT NULL, grp TEXT NOT NULL, verdict TEXT NOT NULL,
  release TEXT NOT NULL, scene TEXT NOT NULL, seed INTEGER NOT NULL, log_digest TEXT NOT NULL,
  start_ns INTEGER NOT NULL, duration_s REAL NOT NULL, labels TEXT NOT NULL, added_ns INTEGER NOT NULL);
CREATE INDEX episodes_log ON episodes (log_digest);
CREATE TABLE judgements (
  digest TEXT NOT NULL, column_name TEXT NOT NULL, was TEXT NOT NULL, became TEXT NOT NULL, reason TEXT NOT NULL,
  at_ns INTEGER NOT NULL)
"""

_VERDICTS = """
CREATE TABLE verdicts (
  seq INTEGER PRIMARY KEY, digest TEXT NOT NULL, check_name TEXT NOT NULL, verdict TEXT NOT NULL, reason TEXT NOT NULL,
  version TEXT NOT NULL, inputs TEXT NOT NULL, at_ns INTEGER NOT NULL);
CREATE INDEX verdicts_current ON verdicts (check_name, digest, seq);
CREATE INDEX verdicts_digest ON verdicts (digest)
"""

_SUMMARIES = """
CREATE TABLE layouts (id INTEGER PRIMARY KEY, layout TEXT NOT NULL UNIQUE);
CREATE TABLE summaries (
  digest TEXT PRIMARY KEY, version INTEGER NOT NULL, layout INTEGER NOT NULL, facts TEXT NOT NULL, stats BLOB NOT NULL);
CREATE INDEX summaries_layout ON summaries (layout)
"""

_NEWEST = "seq IN (SELECT max(seq) FROM verdicts GROUP BY check_name, digest)"


@dataclass(frozen=True)
class EpisodeRow:
    """What the catalogue knows of an episode; see ``Episode`` for most fields.

    Attributes:
      grp: the episode's ``group``.
      verdict: quality verdict, "" for none, e.g. ``rejected``.
      start_ns: first time stamp [ns].
      duration_s: from the first to the last time stamp [s].
      added_ns: wall clock at registration [ns].
    """

    digest: str
    embodiment: str
    robot: str
    task: str
    instruction: str
    origin: str
    outcome: str
    grp: str
    verdict: str
    release: str
    scene: str
    seed: int
    log_digest: str
    start_ns: int
    duration_s: float
    labels: Mapping[str, Any]
    added_ns: int


@dataclass(frozen=True)
class Verdict:
    """What one check says of one episode. The newest of a check is the one that holds.

    Attributes:
      digest: the episode.
      check: name of the check, e.g. ``frozen-frames``.
      verdict: e.g. ``keep``, ``drop``, ``undecided``; "" takes back what the check said before.
      reason: one line for people.
      version: of the check.
      inputs: digests of what the check looked at besides the episode.
      at_ns: wall clock [ns].
    """

    digest: str
    check: str
    verdict: str
    reason: str
    version: str
    inputs: tuple[str, ...]
    at_ns: int


class Catalogue:
    """The episodes of a store. Cheap to make; several processes may use one at once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        store.ensure("episodes", _SCHEMA)
        store.ensure("verdicts", _VERDICTS)
        store.ensure("summaries", _SUMMARIES)

    def add(
        self, episode: Episode, *, producer: str, parents: Iterable[str] = (), now_ns: int | None = None
    ) -> Artifact:
        """Store an episode and its row in one transaction; idempotent by content.

        Args:
          episode: what to add.
          producer: code path and version of what made it.
          parents: digests of what it was made from.
          now_ns: wall clock [ns]; the store's clock when None.
        """
        return self.register(self.keep(episode), episode, producer=producer, parents=parents, now_ns=now_ns)

    def keep(self, episode: Episode) -> str:
        """Make an episode's bytes durable without a row; returns its digest. ``register`` makes it visible."""
        (digest,) = self.store.keep(codec.encode(episode))
        return digest

    def register(
        self,
        digest: str,
        episode: Episode,
        *,
        producer: str,
        parents: Iterable[str] = (),
        now_ns: int | None = None,
        summary: Summary | None = None,
    ) -> Artifact:
        """The row of an episode whose encoded bytes the store already keeps; joins a surrounding transaction.

        Args:
          digest: of the encoded episode.
          episode: the same, decoded.
          producer, parents, now_ns: see ``add``.
          summary: ``summarise(episode)``, when another process has computed it already.
        """
        now = self.store.clock_ns() if now_ns is None else int(now_ns)
        begin, end = codec.span_ns(episode)
        e = episode
        row = (
            digest, e.embodiment, e.robot, e.task, e.instruction, e.origin, e.outcome, e.group, "", e.release, e.scene,
            int(e.seed), e.log_digest, begin, (end - begin) * 1e-9, codec.labels_json(e), now,
        )  # fmt: skip
        summary = summary or summarise(episode)
        with self.store.transaction() as db:
            artifact = self.store.register("episode", digest, parents=parents, producer=producer, now_ns=now)
            db.execute(f"INSERT OR IGNORE INTO episodes VALUES ({', '.join('?' * len(row))})", row)
            _put_summary(db, digest, summary)
        return artifact

    def query(self, where: str = "", *, order: str = "rowid") -> list[EpisodeRow]:
        """Rows that meet a condition, in order of registration.

        Args:
          where: an SQL condition over ``COLUMNS``; labels as ``labels.kp``. Empty for all. Example:
            ``task = 'lift-fragile-v1' AND outcome = 'failure' AND labels.turn >= 2``.
          order: an SQL ordering.

        Raises:
          InputError: not a condition; names the columns.
        """
        condition = _with_labels(where.strip() or "1")
        # A connection of its own that can only read, and only this table: a condition is a stranger's text.
        db = sqlite3.connect(f"{self.store.db.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
        try:
            db.set_authorizer(_only_episodes)
            sql = f"SELECT {', '.join(COLUMNS)} FROM episodes WHERE ({condition}\n) ORDER BY {order}"
            rows = db.execute(sql).fetchall()
        except (sqlite3.Error, sqlite3.Warning, ValueError) as err:
            raise InputError(
                f"not a condition: {where!r} ({err})", where="episodes", allowed=f"SQL over {', '.join(COLUMNS)}"
            ) from err
        finally:
            db.close()
        return [row_of(r) for r in rows]

    def row(self, digest: str) -> EpisodeRow:
        """One row.

        Raises:
          Missing: no such episode.
        """
        rows = self.store.read(f"SELECT {', '.join(COLUMNS)} FROM episodes WHERE digest = ?", (digest,))
        if not rows:
            raise Missing(f"no episode with digest {digest[:12]}", where=str(self.store.root))
        return row_of(rows[0])

    def resolve(self, prefix: str) -> str:
        """The digest of the one episode whose digest begins like this.

        Raises:
          Missing: there is none.
          InputError: there are several.
        """
        sql = "SELECT digest FROM episodes WHERE substr(digest, 1, ?) = ? ORDER BY rowid LIMIT 5"
        found = [row[0] for row in self.store.read(sql, (len(prefix), prefix))] if prefix else []
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{prefix!r} is ambiguous", allowed=", ".join(d[:16] for d in found))
        raise Missing(f"no episode whose digest begins with {prefix!r}", where=str(self.store.root))

    def load(self, digest: str) -> Episode:
        """The episode, with the outcome and group of its row.

        Raises:
          Missing: no such episode.
          Damaged: its stored bytes are not sound.
        """
        row = self.row(digest)
        episode = codec.decode(self.store.get(digest), where=f"episode {digest[:12]}")
        return replace(episode, outcome=cast(Outcome, row.outcome), group=row.grp)

    def set_outcome(self, digest: str, outcome: str, group: str = "", *, reason: str) -> None:
        """Judge an episode anew. The old value stays in ``history``.

        Raises:
          InputError: unknown outcome.
          Missing: no such episode.
        """
        if outcome not in get_args(Outcome):
            raise InputError(f"unknown outcome {outcome!r}", allowed=", ".join(get_args(Outcome)))
        self._change(digest, {"outcome": outcome, "grp": group}, reason)

    def set_verdict(self, digest: str, verdict: str, *, reason: str) -> None:
        """A reversible verdict on quality, e.g. ``rejected``; "" takes it back. Nothing is ever deleted."""
        self._change(digest, {"verdict": verdict}, reason)

    def add_verdict(
        self, digest: str, check: str, verdict: str, reason: str, version: str, inputs: Iterable[str] = ()
    ) -> bool:
        """Say what a check found; joins a surrounding transaction. Rows are added, never changed or deleted.

        Args:
          digest: the episode.
          check, verdict, reason, version, inputs: see ``Verdict``.

        Returns:
          False when the check's newest row says the same already; nothing is added then.

        Raises:
          Missing: no such episode.
          InputError: the check has no name.
        """
        if not check:
            raise InputError("a verdict needs the name of its check", where=f"episode {digest[:12]}")
        row = (digest, check, verdict, reason, version, json.dumps(list(inputs)))
        with self.store.transaction() as db:
            if not db.execute("SELECT 1 FROM episodes WHERE digest = ?", (digest,)).fetchall():
                raise Missing(f"no episode with digest {digest[:12]}", where=str(self.store.root))
            newest = db.execute(
                "SELECT digest, check_name, verdict, reason, version, inputs FROM verdicts"
                " WHERE check_name = ? AND digest = ? ORDER BY seq DESC LIMIT 1",
                (check, digest),
            ).fetchone()
            if newest == row:
                return False
            db.execute(
                "INSERT INTO verdicts (digest, check_name, verdict, reason, version, inputs, at_ns)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (*row, self.store.clock_ns()),
            )
        return True

    def verdicts(self, digest: str | None = None, *, current: bool = True) -> list[Verdict]:
        """What checks say, of one episode or of all, oldest first.

        Args:
          digest: the episode; None for all.
          current: only what holds now (the newest of each check, unless it was taken back); else everything ever said.
        """
        sql = "SELECT digest, check_name, verdict, reason, version, inputs, at_ns FROM verdicts WHERE 1"
        if current:
            newest = _NEWEST if digest is None else _NEWEST.replace("GROUP", "WHERE digest = ? GROUP")
            sql += f" AND {newest} AND verdict != ''"
        if digest is not None:
            sql += " AND digest = ?"
        values = () if digest is None else (digest,) * (1 + current)
        return [
            Verdict(of, check, verdict, reason, version, tuple(json.loads(inputs)), at_ns)
            for of, check, verdict, reason, version, inputs, at_ns in self.store.read(f"{sql} ORDER BY seq", values)
        ]

    def unsummarised(self) -> list[str]:
        """Digests of episodes without a summary of today's kind, in order of registration."""
        sql = (
            "SELECT digest FROM episodes WHERE NOT EXISTS"
            " (SELECT 1 FROM summaries s WHERE s.digest = episodes.digest AND s.version = ?) ORDER BY rowid"
        )
        return [row[0] for row in self.store.read(sql, (summaries.VERSION,))]

    def reindex(
        self, *, anew: bool = False, progress: Callable[[int, int], None] | None = None
    ) -> tuple[tuple[str, str], ...]:
        """Summarise the episodes that have no summary; with ``anew`` all of them.

        Returns:
          (episode digest, reason) where that failed; the others are done.
        """
        digests = [r[0] for r in self.store.read("SELECT digest FROM episodes")] if anew else self.unsummarised()
        failed = []
        for at in range(0, len(digests), 256):
            done = []
            for digest in digests[at : at + 256]:
                try:
                    done.append((digest, summarise(self.load(digest))))
                except FlyballError as err:
                    failed.append((digest, err.line()))
            with self.store.transaction() as db:
                for digest, summary in done:
                    _put_summary(db, digest, summary)
            if progress is not None:
                progress(min(at + 256, len(digests)), len(digests))
        return tuple(failed)

    def history(self, digest: str) -> list[dict[str, Any]]:
        """Every change of outcome, group and verdict: column, was, became, reason, at_ns; oldest first."""
        names = ("column", "was", "became", "reason", "at_ns")
        sql = "SELECT column_name, was, became, reason, at_ns FROM judgements WHERE digest = ? ORDER BY rowid"
        return [dict(zip(names, row, strict=True)) for row in self.store.read(sql, (digest,))]

    def _change(self, digest: str, values: Mapping[str, str], reason: str) -> None:
        with self.store.transaction() as db:
            row = self.row(digest)
            for column, became in values.items():
                was = getattr(row, column)
                if was != became:
                    db.execute(f"UPDATE episodes SET {column} = ? WHERE digest = ?", (became, digest))
                    db.execute(
                        "INSERT INTO judgements VALUES (?, ?, ?, ?, ?, ?)",
                        (digest, column, was, became, reason, self.store.clock_ns()),
                    )


def _put_summary(db: sqlite3.Connection, digest: str, summary: Summary) -> None:
    db.execute("INSERT OR IGNORE INTO layouts (layout) VALUES (?)", (summary.layout,))
    db.execute(
        "INSERT OR REPLACE INTO summaries SELECT ?, ?, id, ?, ? FROM layouts WHERE layout = ?",
        (digest, summaries.VERSION, summary.facts, summary.stats, summary.layout),
    )


def row_of(values: tuple[Any, ...]) -> EpisodeRow:
    """A row from its values in the order of ``COLUMNS``."""
    return EpisodeRow(
        **{**dict(zip(COLUMNS, values, strict=True)), "labels": json.loads(values[COLUMNS.index("labels")])}
    )


def _with_labels(condition: str) -> str:
    """``labels.kp`` as the JSON access that SQLite understands, outside of quoted text."""
    return re.sub(
        r"('(?:[^']|'')*')|\blabels\.(\w+)",
        lambda m: m[1] or f"json_extract(labels, '$.\"{m[2]}\"')",
        condition,
    )


def _only_episodes(action: int, a: str | None, b: str | None, database: str | None, trigger: str | None) -> int:
    if action in (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION) or (
        action == sqlite3.SQLITE_READ and a == "episodes"
    ):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY
