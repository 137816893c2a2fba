"""Ingest: log files become episodes, once, durably, whatever happens in between.

In: files, folders, or the workspace's inbox. Out: raw logs kept as they came (artifacts of kind ``log``), episodes
derived from them in the catalogue, and a report. Files go in small batches: everything about them becomes visible in
one transaction, after their bytes are on disk; a file leaves the inbox only after that. Killed at any moment and run
again, nothing is lost and nothing is there twice. A file that cannot be read never stops the others.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from flyball.base import Damaged, FlyballError, InputError, Missing
from flyball.base.durable import move_durably, sync_folder, write_durably
from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.episode import Episode, Outcome
from flyball.episodes.formats import format_for, formats_by_suffix
from flyball.episodes.intake import Intake

PRODUCER = "flyball.episodes.ingest@1"
BATCH_FILES, BATCH_BYTES = 64, 64 << 20  # what becomes visible in one transaction: syncing is what costs
UNFINISHED = (".part", ".tmp")  # names of files that are still being written

Judge: TypeAlias = Callable[[Episode], tuple[Outcome, str, dict[str, Any]]]
"""(outcome, group, further labels) of an episode."""


@dataclass(frozen=True)
class IngestReport:
    """What became of the files.

    Attributes:
      added: digests of new episodes.
      known: digests of episodes that were there before.
      quarantined: (path as given, reason) of files that hold no episode; those of the inbox now lie in ``quarantine/``.
      unjudged: (episode digest, reason) where the judge failed; the outcome is ``unknown`` there.
    """

    added: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    quarantined: tuple[tuple[str, str], ...] = ()
    unjudged: tuple[tuple[str, str], ...] = ()


def ingest(
    workspace: Workspace,
    paths: Iterable[Path | str] | None = None,
    judge: Judge | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> IngestReport:
    """Bring logs into the workspace.

    Args:
      workspace: where to.
      paths: files, or folders searched for names that a format reads; None for the inbox.
      judge: decides outcome, group and further labels; without one the outcome is ``unknown``.
      progress: called with (files done, files in all) once what these files hold is durable.

    Raises:
      Missing: a path does not exist. (Before anything is done.)
      NotPossible: the disk is full. (What was added before stays.)
    """
    files = list(_files(workspace, [workspace.inbox] if paths is None else [Path(p) for p in paths]))
    catalogue = Catalogue(workspace.store)
    tally = _Tally()
    batch: list[_Log] = []
    told = 0
    for i, path in enumerate(files):
        log = _take(workspace, catalogue, path, judge, tally)
        if log is not None:
            batch.append(log)
        if i + 1 == len(files) or len(batch) >= BATCH_FILES or sum(x.size for x in batch) >= BATCH_BYTES:
            _finish(workspace, catalogue, batch, tally)
            batch = []
            while progress is not None and told <= i:
                told += 1
                progress(told, len(files))
    known = tuple(d for d in tally.known if d not in tally.added)
    return IngestReport(tuple(tally.added), known, tuple(tally.quarantined), tuple(tally.unjudged))


def rejudge(catalogue: Catalogue, judge: Judge, where: str = "", *, reason: str) -> tuple[tuple[str, str], ...]:
    """Judge episodes that are there already anew, for example after a task has changed.

    Args:
      catalogue: where they are.
      judge: decides outcome and group; the labels it adds are not kept, an episode's bytes never change.
      where: which, see ``Catalogue.query``.
      reason: kept in each episode's history.

    Returns:
      (episode digest, reason) where the judge failed; those keep their outcome.
    """
    failed = []
    for row in catalogue.query(where):
        episode, complaint = _judged(catalogue.load(row.digest), judge)
        if complaint:
            failed.append((row.digest, complaint))
        else:
            catalogue.set_outcome(row.digest, episode.outcome, episode.group, reason=reason)
    return tuple(failed)


@dataclass
class _Tally:
    added: dict[str, None] = field(default_factory=dict)
    known: dict[str, None] = field(default_factory=dict)
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    unjudged: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Log:
    """A file on its way in; without episodes when the log is registered already."""

    path: Path
    digest: str
    size: int = 0
    episodes: tuple[tuple[str, Episode, str], ...] = ()
    """(digest, episode, complaint of the judge) of each; their bytes are in the store."""


def _take(workspace: Workspace, catalogue: Catalogue, path: Path, judge: Judge | None, tally: _Tally) -> _Log | None:
    """Read one file; None when it holds no episode and has been put aside."""
    try:
        with open(path, "rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        size = path.stat().st_size
    except FileNotFoundError:
        return None  # another process was faster
    except OSError as err:
        tally.quarantined.append((str(path), f"cannot be read ({err.strerror})"))
        return None
    known = _episodes_of(catalogue, digest)
    if known is not None:
        tally.known.update(dict.fromkeys(known))
        return _Log(path, digest)
    try:
        with tempfile.TemporaryDirectory(dir=workspace.store.blobs / "tmp") as folder:
            intake = Intake(Path(folder))
            made = []
            for found in _read(path, intake, digest):
                episode, complaint = _judged(found, judge)
                made.append((catalogue.keep(episode), episode, complaint))
            if workspace.store.keep_file(path) != digest:
                raise InputError("changed while it was read", where=str(path), run_next="flyball ingest, once more")
            for blob in intake.blobs.values():
                workspace.store.keep_file(blob)
        return _Log(path, digest, size, tuple(made))
    except InputError as err:
        tally.quarantined.append((str(path), err.line()))
        if _within(path, workspace.inbox):
            _quarantine(workspace, path, digest, err.line())
        return None


def _finish(workspace: Workspace, catalogue: Catalogue, batch: list[_Log], tally: _Tally) -> None:
    """Make logs and episodes durable, register them in one transaction, then empty the inbox of them."""
    store = catalogue.store
    new = [x for x in batch if x.episodes]
    if new:
        with store.transaction():
            for x in new:
                there = _episodes_of(catalogue, x.digest)
                if there is not None:  # another process brought the same log in since we looked
                    tally.known.update(dict.fromkeys(there))
                    continue
                store.register("log", x.digest, producer=PRODUCER, labels={"name": x.path.name, "bytes": x.size})
                for digest, episode, complaint in x.episodes:
                    for f in episode.frames.values():
                        store.register("frames", f.blob, producer=PRODUCER, parents=(x.digest,))
                    catalogue.register(digest, episode, producer=PRODUCER, parents=(x.digest,))
                    tally.added[digest] = None
                    if complaint:
                        tally.unjudged.append((digest, complaint))
    delivered = [x.path for x in batch if _within(x.path, workspace.inbox)]
    for path in delivered:
        path.unlink(missing_ok=True)
    for folder in sorted({path.parent for path in delivered}):
        sync_folder(folder)


def _files(workspace: Workspace, paths: list[Path]) -> Iterator[Path]:
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            inbox = _within(path, workspace.inbox)  # what is in the inbox was meant for us, whatever its name
            found = sorted(
                p
                for p in path.rglob("*")
                if p.is_file()
                and not p.name.startswith(".")
                and (p.suffix.lower() not in UNFINISHED if inbox else p.suffix.lower() in formats_by_suffix())
            )
        elif path.exists():
            found = [path]
        else:
            raise Missing("no such file or folder", where=str(path))
        for p in found:
            if p.resolve() not in seen:
                seen.add(p.resolve())
                yield p


def _episodes_of(catalogue: Catalogue, log: str) -> list[str] | None:
    """Digests of the episodes cut from a log, None when the log is not registered."""
    if not catalogue.store.read("SELECT 1 FROM artifacts WHERE digest = ? AND kind = 'log'", (log,)):
        return None
    return [
        r[0] for r in catalogue.store.read("SELECT digest FROM episodes WHERE log_digest = ? ORDER BY rowid", (log,))
    ]


def _read(path: Path, intake: Intake, log: str) -> Iterator[Episode]:
    try:
        for episode in format_for(path).read(path, intake):
            yield replace(episode, log_digest=log)
    except FlyballError:
        raise
    except Exception as err:  # formats are plug-ins: whatever one throws must not stop the files behind this one
        raise Damaged(f"the reader failed: {type(err).__name__}: {err}", where=str(path)) from err


def _judged(episode: Episode, judge: Judge | None) -> tuple[Episode, str]:
    if judge is None:
        return episode, ""
    try:
        outcome, group, labels = judge(episode)
    except Exception as err:  # e.g. a signal that this log lacks; the recording is sound, and others wait behind it
        reason = err.line() if isinstance(err, FlyballError) else f"the judge failed: {type(err).__name__}: {err}"
        return replace(episode, labels={**episode.labels, "unjudged": reason}), reason
    return replace(episode, outcome=outcome, group=group, labels={**episode.labels, **labels}), ""


def _quarantine(workspace: Workspace, path: Path, log: str, reason: str) -> None:
    target = workspace.quarantine / f"{log[:12]}-{path.name}"
    write_durably(target.with_name(target.name + ".reason.txt"), (reason + "\n").encode())
    move_durably(path, target)


def _within(path: Path, folder: Path) -> bool:
    return os.path.commonpath([path.resolve(), folder.resolve()]) == str(folder.resolve())
