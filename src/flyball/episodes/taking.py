"""One log is read: what becomes of it is decided here, and nothing but blobs is changed.

A log is read by its format, its signals get the body's names (``channels``), its clocks are put right (``timeline``),
it is cut into episodes (``boundaries``), each is judged, and all bytes are made durable.

In: where a log lies, the channel maps as they are, how to read. Out: ``Taken``: the episodes whose bytes are now
durable, or why there are none. Any number of processes may do this at once; ``ingest`` registers what they give.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from flyball.base import Damaged, FlyballError, InputError, NotPossible
from flyball.base.store import Store
from flyball.base.workspace import Workspace
from flyball.episodes import boundaries, channels, codec, timeline
from flyball.episodes.arrivals import Arrival, Content, content, manifest
from flyball.episodes.channels import ChannelMap, MapConflict, Profile, Resolution
from flyball.episodes.episode import Episode, Outcome
from flyball.episodes.formats import format_for, suffix_of
from flyball.episodes.intake import Intake, Note
from flyball.episodes.summaries import Summary, summarise
from flyball.robots import Embodiment

SMALL = 16 << 20  # bytes of an encoded episode that are made in memory; a larger one goes through a file
TABLES = "channels/tables"
"""Folder of a workspace with the maps of tables' columns."""
_CHANGED = "changed while it was read; it is taken the next time"

Judge: TypeAlias = Callable[[Episode], tuple[Outcome, str, dict[str, Any]]]
"""(outcome, group, further labels) of an episode."""


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
            kept.append(_keep(workspace, *judged(piece, setting.judge), intake))
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


def judged(episode: Episode, judge: Judge | None) -> tuple[Episode, str]:
    """The episode with the judge's verdict, and why there is none ("" when there is one)."""
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
