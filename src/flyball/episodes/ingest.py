"""Logs become episodes: each once, whatever happens in between.

In: files, folders, or the workspace's inbox. Out: raw logs kept as they came (artifacts of kind ``log``), episodes
derived from them in the catalogue, and a report. A log is read by its format, its signals get the body's names
(``channels``), its clocks are put right (``timeline``), it is cut into episodes (``boundaries``), each is judged, and
all bytes are made durable: that can happen in several processes. One process takes the results in the order of the
logs, in small batches: everything about a batch becomes visible in one transaction, after its bytes are on disk; a file
leaves the inbox only after that. Killed at any moment and run again, nothing is lost and nothing is there twice. The
result does not depend on the number of processes. A file that cannot be read never stops the others.
"""

from __future__ import annotations

import errno
import mmap
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from flyball.base import Damaged, FlyballError, InputError, NotPossible
from flyball.base.durable import make_folder, move_durably, sync_folder, write_durably
from flyball.base.store import Store
from flyball.base.workspace import Workspace
from flyball.episodes import boundaries, channels, codec, timeline
from flyball.episodes.arrivals import Arrival, Content, arrivals, content, files_of, manifest
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.channels import ChannelMap, ChannelMaps, MapConflict, Profile, Resolution
from flyball.episodes.episode import Episode, Outcome
from flyball.episodes.formats import format_for, suffix_of
from flyball.episodes.intake import Intake, Note
from flyball.episodes.readers import Died, Readers
from flyball.episodes.summaries import Summary, summarise
from flyball.robots import Embodiment

PRODUCER = "flyball.episodes.ingest@2"
BATCH_FILES, BATCH_BYTES = 64, 64 << 20  # what becomes visible in one transaction: syncing is what costs
GROUP_FILES, GROUP_BYTES = 16, 4 << 20  # logs that are read together, so that folders are synced once for them
SMALL = 16 << 20  # bytes of an encoded episode that are made in memory; a larger one goes through a file
BUSY = 48 << 20, 128  # bytes, or logs, from which on starting processes pays
TABLES = "channels/tables"
"""Folder of a workspace with the maps of tables' columns."""
_CHANGED = "changed while it was read; it is taken the next time"
SUPERSEDED = "superseded: its log was read anew"

Judge: TypeAlias = Callable[[Episode], tuple[Outcome, str, dict[str, Any]]]
"""(outcome, group, further labels) of an episode."""


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


@dataclass(frozen=True)
class Setting:
    """How logs are read; goes to the reading processes.

    Attributes:
      workspace: its folder.
      judge: see ``ingest``.
      salvage: take the intact part of damaged logs.
      again: read logs that are known, too.
      options: of formats.
    """

    workspace: Path
    judge: Judge | None = None
    salvage: bool = False
    again: bool = False
    options: Mapping[str, str] = field(default_factory=dict)


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
        episode, complaint = _judged(catalogue.load(row.digest), judge)
        if complaint:
            failed.append((row.digest, complaint))
        else:
            catalogue.set_outcome(row.digest, episode.outcome, episode.group, reason=reason)
    return tuple(failed)


# ---- reading: in any process, changes nothing but blobs


@dataclass(frozen=True)
class Maps:
    """The channel maps as they were when a log was read.

    Attributes:
      maps: by what their logs call the body.
      broken: file name -> why it cannot be used.
      tables: maps of tables' columns, file name -> content; see ``formats.table``.
    """

    maps: Mapping[str, ChannelMap] = field(default_factory=dict)
    broken: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """An episode whose bytes are durable.

    Attributes:
      digest: of the bytes.
      summary: for the catalogue.
      complaint: of the judge, "" for none.
    """

    digest: str
    summary: Summary
    complaint: str = ""


@dataclass(frozen=True)
class Taken:
    """What reading one log gave.

    Attributes:
      arrival: which.
      status: ``read``, ``known``, ``bad``, ``held`` or ``gone``.
      content: its digest and size, None when it could not be opened.
      reason: why it is bad or held.
      episodes: those it holds, or those known.
      mapping: how its episodes were mapped, each with what that depended on.
      rule: how it was cut.
      notes: for the report.
      tables: maps of tables' columns that reading it made.
    """

    arrival: Arrival
    status: str
    content: Content | None = None
    reason: str = ""
    episodes: tuple[Kept, ...] = ()
    known: tuple[str, ...] = ()
    mapping: tuple[tuple[Profile, Resolution], ...] = ()
    rule: str = ""
    notes: tuple[Note, ...] = ()
    tables: tuple[tuple[str, bytes], ...] = ()


def take(workspace: Workspace, setting: Setting, group: Iterable[Arrival], maps: Maps) -> list[Taken]:
    """Read logs and make their episodes' bytes, and their own, durable together.

    Raises:
      NotPossible: the disk is full or fails.
    """
    with workspace.store.scratch() as folder, workspace.store.batch():
        return [_take(workspace, setting, a, maps, folder / str(i)) for i, a in enumerate(group)]


def _take(workspace: Workspace, setting: Setting, arrival: Arrival, maps: Maps, folder: Path) -> Taken:
    path = arrival.path
    if arrival.objection:
        return Taken(arrival, "bad", reason=arrival.objection)
    found: Content | None = None
    stamp = _stamp(path)
    try:
        found = content(path)
        if not setting.again and (known := episodes_of(workspace.store, found.digest)) is not None:
            return Taken(arrival, "known", found, known=tuple(known))
        folder.mkdir()
        return _read(workspace, setting, arrival, found, maps, folder)
    except FileNotFoundError:
        if not os.path.lexists(path):
            return Taken(arrival, "gone")  # another process was faster
        return Taken(arrival, "held", found, _CHANGED)
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NotPossible("no space left on the disk", where=str(path), run_next="free space") from err
        return Taken(arrival, "held", found, f"cannot be read ({err.strerror})")
    except (_Held, MapConflict) as err:
        return Taken(arrival, "held", found, str(err))
    except InputError as err:
        if _stamp(path) != stamp:
            return Taken(arrival, "held", found, _CHANGED)
        if not isinstance(err, Damaged):
            return Taken(arrival, "bad", found, err.line())
        saved = "" if setting.salvage else _saveable(workspace, setting, path)
        reason = FlyballError(err.what, where=err.where, allowed=err.allowed).line() if saved else err.line()
        return Taken(arrival, "bad", found, reason, notes=(Note("salvaged", saved),) if saved else ())


def _stamp(path: Path) -> tuple[int, int]:
    """Changes when somebody writes to the file."""
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


class _Held(Exception):
    """A log that cannot be read here and now, through no fault of its own."""


def _read(workspace: Workspace, setting: Setting, arrival: Arrival, found: Content, maps: Maps, folder: Path) -> Taken:
    tables = _tables(setting, arrival.path, maps, folder)
    options = {**setting.options, "table.map": str(tables)} if tables else setting.options
    intake = Intake(folder, salvage=setting.salvage, options=options)
    bodies = embodiments()
    kept: list[Kept] = []
    mapping: list[tuple[Profile, Resolution]] = []
    rule = ""
    for raw in _episodes(arrival.path, intake, tables, workspace.path / TABLES):
        episode = replace(_sound(raw), log_digest=found.digest)
        if arrival.place == "quarantine" and episode.embodiment == workspace.quarantine.name:
            episode = replace(episode, embodiment="unknown")  # a folder's name that says nothing of the body
        pieces: tuple[Episode, ...]
        if intake.named:
            pieces, rule = (timeline.repaired(episode, intake),), "record"
        else:
            pieces, rule = _mapped(episode, intake, maps, bodies, mapping)
        for piece in pieces:
            if any(n.kind == "salvaged" for n in intake.notes):
                piece = replace(piece, labels={**piece.labels, "salvaged": True})
            kept.append(_keep(workspace, *_judged(piece, setting.judge), intake))
    for digest, blob in intake.blobs.items():
        workspace.store.keep_file(blob, digest=digest, move=True)
    _keep_log(workspace, arrival, found)
    made = [(p.name, p.read_bytes()) for p in sorted(tables.iterdir()) if p.name not in maps.tables] if tables else []
    return Taken(
        arrival, "read", found, episodes=tuple(kept), mapping=tuple(mapping), rule=rule, notes=tuple(intake.notes),
        tables=tuple(made),
    )  # fmt: skip


def _tables(setting: Setting, path: Path, maps: Maps, folder: Path) -> Path | None:
    """A folder with the maps of tables, where a log is one: what is inferred is added there, and taken over later."""
    if suffix_of(path) not in (".csv", ".tsv", ".csv.gz", ".parquet") or "table.map" in setting.options:
        return None
    tables = folder / "tables"
    tables.mkdir()
    for name, content_ in maps.tables.items():
        (tables / name).write_bytes(content_)
    return tables


def _mapped(
    episode: Episode,
    intake: Intake,
    maps: Maps,
    bodies: Mapping[str, Embodiment],
    mapping: list[tuple[Profile, Resolution]],
) -> tuple[tuple[Episode, ...], str]:
    """The episodes in what a foreign log holds, under the body's names, and the rule by which it was cut."""
    log = channels.profile(episode)
    if line := maps.broken.get(channels.file_name(log.embodiment)):
        raise _Held(line)
    how = channels.resolve(log, maps.maps, bodies)
    mapping.append((log, how))
    for remark in how.remarks:
        intake.note("unmapped", remark)
    shifts = {c.source: c.clock_s for c in how.used if c.clock_s}
    episode = timeline.repaired(episode, intake, shifts)
    episode = channels.mapped(episode, how, bodies, intake)
    if intake.whole:
        return (episode,), "record"
    cut = boundaries.cut(episode, how.episodes)
    if cut.left_out_s:
        intake.note("skipped", f"{cut.left_out_s:g} s belong to no episode (rule: {cut.rule})")
    return cut.episodes, cut.rule


def _episodes(path: Path, intake: Intake, tables: Path | None = None, shown: Path | None = None) -> Iterator[Episode]:
    try:
        yield from format_for(path).read(path, intake)
    except InputError as err:
        if tables is not None and str(tables) in err.line():  # the map is to blame, not the log
            raise _Held(err.line().replace(str(tables), str(shown))) from err
        if (disk := _passing(err)) is not None:
            raise disk from err
        raise
    except NotPossible as err:  # a library; a full disk shows as OSError
        raise _Held(err.line()) from err
    except FlyballError:
        raise
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.ENOENT, errno.EIO, errno.EACCES):
            raise
        raise Damaged(f"the reader failed: {err}", where=str(path)) from err
    except Exception as err:  # formats are plug-ins: whatever one throws must not stop the files behind this one
        raise Damaged(f"the reader failed: {type(err).__name__}: {err}", where=str(path)) from err


def _passing(err: BaseException | None) -> OSError | None:
    """What the machine did while a log was read, if that is behind an error: it is not the log's fault."""
    while err is not None:
        if isinstance(err, OSError) and err.errno in (errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            return err
        err = err.__cause__ or err.__context__
    return None


def _sound(episode: Episode) -> Episode:
    """Without what is no text in its texts: names of files may be any bytes."""
    texts = {k: getattr(episode, k) for k in ("embodiment", "robot", "task", "instruction", "group")}
    mended = {k: v.encode("utf-8", "backslashreplace").decode() for k, v in texts.items()}
    return episode if mended == texts else replace(episode, **mended)


def _keep(workspace: Workspace, episode: Episode, complaint: str, intake: Intake) -> Kept:
    """Make an episode's bytes durable; a large one through a file, so that memory stays bounded."""
    arrays = sum(s.t_ns.nbytes + s.values.nbytes for s in episode.signals.values())
    if arrays <= SMALL:
        (digest,) = workspace.store.keep(codec.encode(episode))
    else:
        file = intake.file()
        with open(file, "wb") as f:
            codec.write(episode, f)
        digest = workspace.store.keep_file(file, move=True)
    return Kept(digest, summarise(episode), complaint)


def _keep_log(workspace: Workspace, arrival: Arrival, found: Content) -> None:
    if arrival.place == "store":
        return
    try:
        _keep_files(workspace, arrival, found)
    except InputError as err:
        raise _Held(err.line()) from err


def _keep_files(workspace: Workspace, arrival: Arrival, found: Content) -> None:
    if found.files is None:
        workspace.store.keep_file(arrival.path, digest=found.digest)
        return
    for name, _, digest in found.files:
        workspace.store.keep_file(arrival.path / name, digest=digest)
    workspace.store.keep(manifest(found.files))


def _judged(episode: Episode, judge: Judge | None) -> tuple[Episode, str]:
    if judge is None:
        return episode, ""
    try:
        outcome, group, labels = judge(episode)
    except Exception as err:  # e.g. a signal that this log lacks; the recording is sound, and others wait behind it
        reason = err.line() if isinstance(err, FlyballError) else f"the judge failed: {type(err).__name__}: {err}"
        return replace(episode, labels={**episode.labels, "unjudged": reason}), reason
    return replace(episode, outcome=outcome, group=group, labels={**episode.labels, **labels}), ""


def _saveable(workspace: Workspace, setting: Setting, path: Path) -> str:
    """What of a damaged log could be saved, "" for nothing."""
    try:
        with workspace.store.scratch() as folder:
            intake = Intake(folder, salvage=True, options=setting.options)
            samples = [
                sum(len(s.t_ns) for s in e.signals.values()) + sum(len(f.t_ns) for f in e.frames.values())
                for e in _episodes(path, intake)
            ]
    except (FlyballError, OSError, _Held):
        return ""
    return f"{sum(samples)} samples in {len(samples)} episodes can be saved" if sum(samples) else ""


def embodiments() -> dict[str, Embodiment]:
    """The embodiments there are, by name; those whose package cannot be loaded are left out."""
    from flyball.robots.zoo import embodiments as table

    found = {}
    for name in table.names():
        try:
            found[name] = table.load(name)
        except NotPossible:
            continue
    return found


def episodes_of(store: Store, log: str) -> list[str] | None:
    """Digests of the episodes cut from a log, None when the log is not registered."""
    if not store.read("SELECT 1 FROM artifacts WHERE digest = ? AND kind = 'log'", (log,)):
        return None
    return [r[0] for r in store.read("SELECT digest FROM episodes WHERE log_digest = ? ORDER BY rowid", (log,))]


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
