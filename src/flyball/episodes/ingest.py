"""Logs become episodes: each once, whatever happens in between.

In: files, folders, or the workspace's inbox. Out: raw logs kept as they came (artifacts of kind ``log``), episodes
derived from them in the catalogue, and a report. Logs are read in any number of processes (``taking``, ``readers``).
One process takes the results in the order of the logs, in small batches: everything about a batch becomes visible in
one transaction, after its bytes are on disk; a file leaves the inbox only after that. Killed at any moment and run
again, nothing is lost and nothing is there twice. The result does not depend on the number of processes. A file that
cannot be read never stops the others.
"""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flyball.base import InputError
from flyball.base.durable import make_folder, move_durably, sync_folder, write_durably
from flyball.base.workspace import Workspace
from flyball.episodes import channels, codec
from flyball.episodes.arrivals import Arrival, arrivals, files_of
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.channels import ChannelMaps, MapConflict, Resolution
from flyball.episodes.episode import Episode
from flyball.episodes.intake import Note
from flyball.episodes.readers import Died, Readers
from flyball.episodes.taking import TABLES, Judge, Maps, Setting, Taken, embodiments, episodes_of, judged, take

PRODUCER = "flyball.episodes.ingest@2"
BATCH_FILES, BATCH_BYTES = 64, 64 << 20  # what becomes visible in one transaction: syncing is what costs
GROUP_FILES, GROUP_BYTES = 16, 4 << 20  # logs that are read together, so that folders are synced once for them
BUSY = 48 << 20, 128  # bytes, or logs, from which on starting processes pays
SUPERSEDED = "superseded: its log was read anew"


@dataclass(frozen=True)
class LogReport:
    """What became of one log.

    Attributes:
      path: as given.
      status: ``added``, ``known`` (its content was there before), ``quarantined`` (it holds no episode, or is damaged),
        or ``held`` (not its own fault: a library or a permission is missing, the map file is broken; it stays).
      digest: of the log, "" when it could not be read.
      episodes: digests, in order.
      rule: how it was cut: ``record``, ``events``, ``idle`` or ``file``; see ``boundaries``.
      reason: why it was quarantined or held.
      notes: what else is worth knowing.
    """

    path: str
    status: str
    digest: str = ""
    episodes: tuple[str, ...] = ()
    rule: str = ""
    reason: str = ""
    notes: tuple[Note, ...] = ()


@dataclass(frozen=True)
class IngestReport:
    """What became of the files.

    Attributes:
      added: digests of new episodes.
      known: digests of episodes that were there before.
      quarantined: (path as given, reason) of files that hold no episode; those of the inbox now lie in ``quarantine/``.
      unjudged: (episode digest, reason) where the judge failed; the outcome is ``unknown`` there.
      held: (path, reason) of files that could not be read now, and are where they were.
      salvaged: (path, what was lost) of damaged files of which the intact part was taken.
      superseded: digests of episodes that a log read anew no longer gives.
      logs: every log, in order.
      maps: channel maps that were written.
    """

    added: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    quarantined: tuple[tuple[str, str], ...] = ()
    unjudged: tuple[tuple[str, str], ...] = ()
    held: tuple[tuple[str, str], ...] = ()
    salvaged: tuple[tuple[str, str], ...] = ()
    superseded: tuple[str, ...] = ()
    logs: tuple[LogReport, ...] = ()
    maps: tuple[str, ...] = ()

    @property
    def losses(self) -> bool:
        """Whether something could not be taken, or not whole."""
        return bool(self.quarantined or self.unjudged or self.held or self.salvaged)


def ingest(
    workspace: Workspace,
    paths: Iterable[Path | str] | None = None,
    judge: Judge | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
    salvage: bool = False,
    again: bool = False,
    options: Mapping[str, str] | None = None,
    stop: Callable[[], bool] | None = None,
    readers: Readers | None = None,
) -> IngestReport:
    """Bring logs into the workspace.

    Args:
      workspace: where to.
      paths: files, or folders searched for names that a format reads; None for the inbox.
      judge: decides outcome, group and further labels; without one the outcome is ``unknown``. One that cannot be
        pickled is called in this process, which then reads alone.
      progress: called with (logs done, logs in all) once what these logs hold is durable.
      workers: processes that read; 0: this one. They are started when there is enough to do.
      salvage: take the intact part of damaged logs, and say what was lost.
      again: read known logs anew, with today's channel maps; without paths, all that the store has. Episodes that
        come out otherwise are added, and those they replace get the verdict ``rejected``.
      options: of formats, over those in ``flyball.toml`` (``[ingest.options]``).
      stop: asked between logs; when it says yes, what was begun is finished and the rest is left.
      readers: processes to use, already running; the caller ends them.

    Raises:
      Missing: a path does not exist. (Before anything is done.)
      InputError: a path cannot be looked at. (Before anything is done.)
      NotPossible: the disk is full. (What was added before stays.)
    """
    with ExitStack() as ends:
        if again and paths is None:
            todo = _stored(workspace, ends.enter_context(workspace.store.scratch()))
        else:
            todo = arrivals(workspace, None if paths is None else [Path(p) for p in paths])
        setting = Setting(workspace.path, judge, salvage, again, {**_options(workspace), **(options or {})})
        if readers is None:
            readers = Readers(workers if _busy(todo) else 0, setting)
            ends.callback(readers.close)
        register = _Register(workspace, setting)
        register.run(todo, readers, progress, stop)
    return register.report()


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
        episode, complaint = judged(catalogue.load(row.digest), judge)
        if complaint:
            failed.append((row.digest, complaint))
        else:
            catalogue.set_outcome(row.digest, episode.outcome, episode.group, reason=reason)
    return tuple(failed)


# ---- registering: in one process, in the order of the logs


class _Register:
    """Takes what was read, in order, and makes it visible."""

    def __init__(self, workspace: Workspace, setting: Setting) -> None:
        self.workspace, self.setting = workspace, setting
        self.catalogue = Catalogue(workspace.store)
        self.maps = ChannelMaps(workspace.path / "channels")
        folder = workspace.path / TABLES
        self.tables = {p.name: p.read_bytes() for p in sorted(folder.glob("*.toml"))} if folder.is_dir() else {}
        self.new_tables: dict[str, bytes] = {}
        self.bodies = embodiments()
        self.added: dict[str, None] = {}
        self.known: dict[str, None] = {}
        self.unjudged: list[tuple[str, str]] = []
        self.salvaged: list[tuple[str, str]] = []
        self.superseded: dict[str, None] = {}
        self.written: dict[str, None] = {}
        self.logs: dict[int, LogReport] = {}

    def run(
        self,
        todo: list[Arrival],
        readers: Readers,
        progress: Callable[[int, int], None] | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        batch: list[tuple[int, Taken]] = []
        told = 0
        groups = grouped(todo, max(1, min(GROUP_FILES, BATCH_FILES, len(todo) // (4 * max(1, readers.workers)))))
        for i, result in enumerate(readers.in_order(groups, self.current, self.workspace, stop)):
            taken = self._as_if_alone(todo[i], result)
            if taken.status == "bad":
                self._put_aside(i, taken)
            elif taken.status in ("held", "gone"):
                self._leave(i, taken)
            else:
                batch.append((i, taken))
            size = sum(t.content.size for _, t in batch if t.content)
            if i + 1 == len(todo) or len(batch) >= BATCH_FILES or size >= BATCH_BYTES:
                self._finish(batch)
                batch = []
                while progress is not None and told <= i:
                    told += 1
                    progress(told, len(todo))
        self._finish(batch)  # when it was stopped

    def current(self) -> Maps:
        """The maps as they are now."""
        return Maps(dict(self.maps.maps), dict(self.maps.broken), dict(self.tables))

    def report(self) -> IngestReport:
        logs = tuple(self.logs[i] for i in sorted(self.logs))
        return IngestReport(
            tuple(self.added),
            tuple(d for d in self.known if d not in self.added),
            tuple((x.path, x.reason) for x in logs if x.status == "quarantined"),
            tuple(self.unjudged),
            tuple((x.path, x.reason) for x in logs if x.status == "held"),
            tuple(self.salvaged),
            tuple(self.superseded),
            logs,
            tuple(self.written),
        )

    def _as_if_alone(self, arrival: Arrival, result: Taken | Died) -> Taken:
        """The result as it would be had the logs been read one after the other.

        Logs that were read side by side may teach the channel maps different things about one signal; where the maps
        would now give another answer than the one that was used, the log is read again.
        """
        if isinstance(result, Died):
            why = "the reading process died (out of memory, or a defect in a library)"
            return Taken(arrival, "bad", reason=f"{arrival.path}: {why}")
        learnt: list[Resolution] = []
        for log, how in result.mapping:
            try:
                now = channels.resolve(log, self.maps.maps, self.bodies)
            except MapConflict as err:
                return Taken(arrival, "held", result.content, str(err))
            if now.effect != how.effect:
                (again,) = take(self.workspace, self.setting, [arrival], self.current())
                return self._as_if_alone(arrival, again)
            learnt.append(now)
        if any(name in self.tables for name, _ in result.tables):
            (again,) = take(self.workspace, self.setting, [arrival], self.current())
            return self._as_if_alone(arrival, again)
        for how in learnt:
            self.maps.learn(how)
        self.tables.update(result.tables)
        self.new_tables.update(result.tables)
        return result

    def _leave(self, i: int, taken: Taken) -> None:
        if taken.status == "held":
            path, reason = str(taken.arrival.path), taken.reason
            digest = taken.content.digest if taken.content else ""
            self.logs[i] = LogReport(path, "held", digest, reason=reason, notes=taken.notes)

    def _put_aside(self, i: int, taken: Taken) -> None:
        """A log that holds no episode: out of the inbox, with the reason beside it."""
        path, place = taken.arrival.path, taken.arrival.place
        digest = taken.content.digest if taken.content else ""
        prefix = digest[:12] or "0" * 12
        target = self.workspace.quarantine / f"{prefix}-{_short(path.name)}"
        at = target if place == "inbox" else path
        before, tried, command = taken.reason.partition("; try: ")
        reason = before + tried + command.replace(str(path), str(at))
        for note in taken.notes:
            reason += f"; {note.text}; try: flyball ingest --salvage {at}"
        reason = " ".join(reason.split())
        notes: tuple[Note, ...] = ()
        if place == "inbox":
            try:
                self._quarantine(path, target, reason)
            except (OSError, InputError) as err:
                notes = (Note("skipped", f"it could not be put aside ({err})"),)
        self.logs[i] = LogReport(str(path), "quarantined", digest, reason=reason, notes=notes)

    def _quarantine(self, path: Path, target: Path, reason: str) -> None:
        write_durably(
            target.with_name(target.name + ".reason.txt"), (reason + "\n").encode("utf-8", "backslashreplace")
        )
        if path.is_dir() and target.exists():  # the same folder was put aside before
            shutil.rmtree(path)
            sync_folder(path.parent)
        elif path.is_file() and not path.is_symlink():
            move_durably(path, target)
        else:  # a pipe or a link has no content to be made durable
            os.replace(path, target)
            sync_folder(target.parent)
            sync_folder(path.parent)

    def _finish(self, batch: list[tuple[int, Taken]]) -> None:
        """Write down the maps, register logs and episodes in one transaction, then empty the inbox of them."""
        self.written.update(dict.fromkeys(str(p) for p in self.maps.save()))
        for name, text in self.new_tables.items():
            write_durably(self.workspace.path / TABLES / name, text)
            self.written[str(self.workspace.path / TABLES / name)] = None
        self.new_tables.clear()
        if any(taken.status == "read" for _, taken in batch):
            with self.workspace.store.transaction():
                for i, taken in batch:
                    self._register(i, taken)
        else:
            for i, taken in batch:
                self._register(i, taken)
        done = [taken for _, taken in batch if taken.arrival.place in ("inbox", "quarantine")]
        folders: set[Path] = set()
        for i, taken in batch:
            if taken in done:
                try:
                    self._remove(taken)
                    folders.add(taken.arrival.path.parent)
                except OSError as err:
                    note = Note("skipped", f"it could not be removed from the inbox ({err.strerror})")
                    self.logs[i] = replace(self.logs[i], notes=(*self.logs[i].notes, note))
        for folder in sorted(folders):
            sync_folder(folder)

    def _register(self, i: int, taken: Taken) -> None:
        log = taken.content
        assert log is not None
        path = taken.arrival.path
        if taken.status == "known":
            self.known.update(dict.fromkeys(taken.known))
            self.logs[i] = LogReport(str(path), "known", log.digest, taken.known)
            return
        store = self.workspace.store
        there = episodes_of(store, log.digest)
        digests = tuple(e.digest for e in taken.episodes)
        if there is not None and not self.setting.again:  # brought in since we looked: as if it had been known then
            self.known.update(dict.fromkeys(there))
            self.logs[i] = LogReport(str(path), "known", log.digest, tuple(there))
            return
        status = "added" if there is None else "known"
        self.logs[i] = LogReport(str(path), status, log.digest, digests, taken.rule, notes=taken.notes)
        if there is None:
            labels: dict[str, Any] = {"name": path.name, "folder": path.absolute().parent.name, "bytes": log.size}
            if taken.arrival.place == "inbox" and path.parent.resolve() == self.workspace.inbox.resolve():
                labels["folder"] = "inbox"
            if taken.notes:
                labels["notes"] = [f"{n.kind}: {n.text}" for n in taken.notes]
            if log.files is not None:
                labels["files"] = len(log.files)
                for name, size, digest in log.files:
                    store.register("file", digest, producer=PRODUCER, labels={"name": name, "bytes": size})
            parents = dict.fromkeys(d for _, _, d in log.files or ())
            store.register("log", log.digest, producer=PRODUCER, labels=labels, parents=parents)
        for kept in taken.episodes:
            if there is not None and kept.digest in there:
                self.known[kept.digest] = None
                if self.catalogue.row(kept.digest).verdict == "rejected":
                    self._restore(kept.digest)
                continue
            episode = _stored_episode(self.workspace, kept.digest)
            for f in episode.frames.values():
                store.register("frames", f.blob, producer=PRODUCER, parents=(log.digest,))
            self.catalogue.register(
                kept.digest, episode, producer=PRODUCER, parents=(log.digest,), summary=kept.summary
            )
            self.added[kept.digest] = None
            if kept.complaint:
                self.unjudged.append((kept.digest, kept.complaint))
        for digest in there or ():
            if digest not in digests:
                self.catalogue.set_verdict(digest, "rejected", reason=SUPERSEDED)
                self.superseded[digest] = None
        self.salvaged += [(str(path), n.text) for n in taken.notes if n.kind == "salvaged"]

    def _restore(self, digest: str) -> None:
        history = self.catalogue.history(digest)
        if history and history[-1]["reason"] == SUPERSEDED:
            self.catalogue.set_verdict(digest, "", reason="its log gives it again")

    def _remove(self, taken: Taken) -> None:
        """A log that is in the store leaves the inbox, or the quarantine with its reason."""
        path, files = taken.arrival.path, taken.content.files if taken.content else None
        if files is None:
            path.unlink(missing_ok=True)
        else:  # exactly the files that were kept; what came later stays
            for name, _, _ in files:
                (path / name).unlink(missing_ok=True)
            for inner in sorted((p for p in path.rglob("*") if p.is_dir()), reverse=True):
                if not any(inner.iterdir()):
                    inner.rmdir()
            if not any(path.iterdir()):
                path.rmdir()
        if taken.arrival.place == "quarantine":
            path.with_name(path.name + ".reason.txt").unlink(missing_ok=True)


def _stored_episode(workspace: Workspace, digest: str) -> Episode:
    """An episode of the store whose arrays are read when they are looked at."""
    with open(workspace.store.path(digest), "rb") as f:
        view: Any = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)  # lives as long as the arrays that look into it
    return codec.decode(view, where=f"episode {digest[:12]}")


def _short(name: str, most: int = 180) -> str:
    """A file name that leaves room for a prefix and a suffix; its own suffix stays."""
    raw = os.fsencode(name)
    return name if len(raw) <= most else os.fsdecode(raw[-most:]).lstrip(".")


def _options(workspace: Workspace) -> dict[str, str]:
    section = workspace.settings.get("ingest", {})
    found = section.get("options", {}) if isinstance(section, dict) else None
    if not isinstance(found, dict):
        where = str(workspace.path / "flyball.toml")
        raise InputError("[ingest.options] is not a table", where=where, allowed='lines like "csv.time" = "t"')
    return {str(k): str(v) for k, v in found.items()}


def grouped(todo: list[Arrival], most: int) -> list[list[Arrival]]:
    """Neighbours that are small enough to be made durable together."""
    groups: list[list[Arrival]] = []
    held = 0
    for a in todo:
        try:
            size = a.path.stat().st_size if a.path.is_file() else GROUP_BYTES
        except OSError:
            size = 0
        if groups and len(groups[-1]) < most and held + size <= GROUP_BYTES:
            groups[-1].append(a)
            held += size
        else:
            groups.append([a])
            held = size
    return groups


def _busy(todo: list[Arrival]) -> bool:
    size = 0
    for a in todo:
        try:
            size += a.path.stat().st_size if a.path.is_file() else BUSY[0]
        except OSError:
            continue
    return len(todo) > 1 and (size >= BUSY[0] or len(todo) >= BUSY[1])


def _stored(workspace: Workspace, folder: Path) -> list[Arrival]:
    """All logs of the store, each under the name it came with: formats and rules look at names."""
    found = []
    store = workspace.store
    for i, artifact in enumerate(store.find("log")):
        parent = str(artifact.labels.get("folder") or "inbox")
        path = make_folder(folder / str(i) / parent) / str(artifact.labels["name"])
        if "files" in artifact.labels:
            for name, _, digest in files_of(store.get(artifact.digest)):
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                os.link(store.path(digest), path / name)
        else:
            os.link(store.path(artifact.digest), path)
        found.append(Arrival(path, "store", digest=artifact.digest))
    return found
