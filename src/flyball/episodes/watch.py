"""Folders that ingest themselves. In: the inbox and further folders. Out: episodes, soon after a log is complete.

What wakes the watcher is inotify (through ``watchfiles``) where there is one, else the clock: on network file systems,
without that library, and for events that get lost. What is ready is decided by looking: a file whose size and time have
not changed for ``settle_s``, and whose end, where its format has one, is written; one that never gets an end is taken
after ``patience_s`` all the same. What lies in the inbox moves on when it is done; elsewhere files are left alone, and
those that were looked at are remembered until they change.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flyball.base import InputError, NotPossible
from flyball.base.workspace import Workspace
from flyball.episodes.arrivals import Arrival, arrivals
from flyball.episodes.formats import format_for
from flyball.episodes.ingest import IngestReport, ingest
from flyball.episodes.readers import Readers
from flyball.episodes.taking import Judge, Setting

SETTLE_S = 2.0
PATIENCE_S = 60.0
POLL_S = 5.0
REMOTE = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "fuse.s3fs", "ceph", "glusterfs", "lustre", "afs"}
"""File systems whose changes made elsewhere do not reach inotify."""

Stamp = tuple[int, int, int]


@dataclass
class Watcher:
    """Watches folders; ``run`` until ``stop`` is set.

    Args:
      workspace: whose inbox is watched first of all.
      folders: further ones; they may come and go.
      judge, salvage: see ``ingest``.
      workers: processes that read, see ``ingest``; they live as long as the watcher.
      settle_s: how long a file must have been unchanged [s].
      patience_s: how long a file without its end is waited for [s].
      poll_s: pause between looks when nothing wakes the watcher [s].
      clock: seconds, monotonic.
      stop: ends ``run``; what was begun is finished.
    """

    workspace: Workspace
    folders: Sequence[Path] = ()
    judge: Judge | None = None
    salvage: bool = False
    workers: int = 0
    settle_s: float = SETTLE_S
    patience_s: float = PATIENCE_S
    poll_s: float = POLL_S
    clock: Callable[[], float] = time.monotonic
    stop: threading.Event = field(default_factory=threading.Event)
    _seen: dict[Path, tuple[Stamp, float]] = field(default_factory=dict)
    _done: dict[Path, Stamp] = field(default_factory=dict)

    def run(self, each: Callable[[IngestReport], None], progress: Callable[[int, int], None] | None = None) -> None:
        """Ingest what gets ready until ``stop`` is set.

        Args:
          each: told what became of the logs, whenever there were some.
          progress: see ``ingest``.

        Raises:
          NotPossible: the disk is full or fails. Nothing is lost; what waits stays where it is.
        """
        setting = Setting(self.workspace.path, self.judge, self.salvage)
        readers = Readers(self.workers, setting)
        try:
            for _ in self._wakes():
                ready = self.ready()
                if ready:
                    report = ingest(
                        self.workspace, ready, self.judge, progress=progress, salvage=self.salvage,
                        stop=self.stop.is_set, readers=readers,
                    )  # fmt: skip
                    if report.logs:
                        each(report)
                if self.stop.is_set():
                    return
        finally:
            readers.close()

    def ready(self) -> list[Path]:
        """Logs that are complete and were not looked at before, in order."""
        now = self.clock()
        found = []
        here: dict[Path, tuple[Stamp, float]] = {}
        for arrival in self._there():
            path, stamp = arrival.path, _stamp(arrival.path)
            if stamp is None or self._done.get(path) == stamp:
                continue
            before, since = self._seen.get(path, (stamp, now))
            since = since if before == stamp else now
            here[path] = (stamp, since)
            age = now - since
            if age >= self.settle_s and (arrival.objection or age >= self.patience_s or _complete(path)):
                found.append(path)
                del here[path]
                self._done[path] = stamp
        self._seen = here
        self._done = {p: s for p, s in self._done.items() if p in found or os.path.lexists(p)}
        return found

    @property
    def unsettled(self) -> bool:
        """Whether something is there that is not complete yet."""
        return bool(self._seen)

    def _there(self) -> Iterator[Arrival]:
        for folder in (self.workspace.inbox, *self.folders):
            try:
                yield from arrivals(self.workspace, [folder])
            except (InputError, OSError):
                continue  # it vanished; it may come back

    def _wakes(self) -> Iterator[None]:
        """Once now, then whenever something may have changed."""
        yield
        while not self.stop.is_set():
            folders = [f for f in (self.workspace.inbox, *self.folders) if f.is_dir()]
            events = None if any(map(remote, folders)) else _events(folders, self.stop, min(self.poll_s, 1.0))
            if events is None:
                self.stop.wait(min(self.poll_s, max(0.05, self.settle_s / 2)) if self.unsettled else self.poll_s)
                yield
                continue
            identity, looked = _identity(folders), self.clock()
            for changed in events:
                if self.stop.is_set():
                    return
                if changed or self.unsettled or self.clock() - looked >= self.poll_s:
                    looked = self.clock()
                    yield
                if [f for f in (self.workspace.inbox, *self.folders) if f.is_dir()] != folders or (
                    _identity(folders) != identity
                ):
                    break  # a folder went, came, or is another one now: watch anew


def _events(folders: list[Path], stop: threading.Event, timeout_s: float) -> Iterator[bool] | None:
    """Whether something changed, every ``timeout_s`` at least; None where there is no inotify."""
    try:
        import watchfiles
    except ImportError:
        return None

    def wait() -> Iterator[bool]:
        try:
            yield from (
                bool(changes)
                for changes in watchfiles.watch(
                    *folders, stop_event=stop, debounce=100, step=20, rust_timeout=round(1000 * timeout_s),
                    yield_on_timeout=True, watch_filter=None, raise_interrupt=False,
                )
            )  # fmt: skip
        except (OSError, RuntimeError):  # no watches left, or a folder vanished this moment
            stop.wait(timeout_s)

    return wait()


def remote(folder: Path) -> bool:
    """Whether a folder lies on a network file system."""
    try:
        mounts = Path("/proc/mounts").read_text().splitlines()
        here = folder.resolve()
    except OSError:
        return False
    best, kind = "", ""
    for line in mounts:
        _, at, fs, *_ = line.split(" ")
        at = at.replace("\\040", " ")
        if here.is_relative_to(at) and len(at) >= len(best):
            best, kind = at, fs
    return kind in REMOTE


def _identity(folders: list[Path]) -> list[tuple[int, int] | None]:
    found: list[tuple[int, int] | None] = []
    for folder in folders:
        try:
            status = folder.stat()
            found.append((status.st_dev, status.st_ino))
        except OSError:
            found.append(None)
    return found


def _stamp(path: Path) -> Stamp | None:
    """(bytes, newest time, files) of a file or of all in a folder; changes while somebody writes."""
    try:
        if not path.is_dir() or path.is_symlink():
            status = path.lstat()
            return status.st_size, status.st_mtime_ns, status.st_ino
        inner = [p.lstat() for p in path.rglob("*")]
        return sum(s.st_size for s in inner), max((s.st_mtime_ns for s in inner), default=0), len(inner)
    except OSError:
        return None


def _complete(path: Path) -> bool:
    """Whether a log has its end; a format says so by a method ``complete(path)``, or everything is."""
    try:
        asked = getattr(format_for(path), "complete", None)
        return bool(asked(path)) if asked is not None else True
    except (InputError, NotPossible, OSError):
        return True  # reading it says what is wrong
