"""Cuts processes short, and rebuilds the disks that a power cut may leave.

In: a function that works on files below one folder. Out: its end by ``kill -9`` or by a failing call at any point
(``Trials``), or the trace of every change it made (``crashdisk.c``, loaded with LD_PRELOAD, so that SQLite's own writes
are seen too); and from a trace, disks as a power cut at any moment may leave them (``disks``).

The model, more pessimistic than ext4 (data=ordered), XFS or btrfs: what POSIX promises and no more.

- Contents: an fsync that returned makes durable what was written to that file before it began. Of later writes, each
  sector (512 B or 4 KiB) holds any of its versions since, independently of other sectors; the file has any of its
  sizes since; what was never written reads as zeros.
- Names: an fsync of a folder makes durable what changed in it before. Of later changes, three ways: any prefix per
  folder, folders being independent of each other (so a rename into another folder may be half done); any version per
  name; or any prefix of all changes of the disk (a journal). An fsync of a file makes none of its names durable.
- A file whose name is durable may be empty, and a folder whose name is not loses all that is in it.
"""

from __future__ import annotations

import copy
import ctypes
import json
import mmap
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

OPEN, CREATE, WRITE, SYNC, RENAME, UNLINK = (1 << i for i in range(6))
SPACE = CREATE | WRITE | SYNC | RENAME  # the kinds of call that a full disk makes fail
EVERY = SPACE | OPEN | UNLINK

_SETTINGS = struct.Struct("=4Q4i4096s4096s")
_RECORD = struct.Struct("=7Q")


def compiled(folder: Path) -> Path | None:
    """Build the shim in a folder; None where there is no C compiler or no LD_PRELOAD."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    target = folder / "crashdisk.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", str(target), str(source)], check=True)
    return target


def mark(text: str, ledger: str = "") -> None:
    """Write down that something was acknowledged: in the trace, and in a file for those who only get killed."""
    if ledger:
        with open(ledger, "a") as f:
            f.write(text + "\n")
    shim = ctypes.CDLL(None)
    if hasattr(shim, "crashdisk_mark"):
        shim.crashdisk_mark(text.encode())


# ---- running


class End(NamedTuple):
    """How a trial ended: signal (0: none), calls counted, calls that were made to fail, what the work returned."""

    signal: int
    calls: int
    failed: int
    result: Any


class Trials:
    """A process that has loaded everything once and forks a child per trial.

    Args:
      shim: what ``compiled`` gave. Without one only kills are possible, and only at calls that Python makes.
      work: "module:function" of JSON-able arguments; its result or error comes back.
      path: folders to import from.
    """

    def __init__(self, shim: Path | None, work: str, path: list[Path]) -> None:
        self._place = tempfile.TemporaryDirectory()
        code = f"import sys; sys.path[:0] = {[str(p) for p in path]!r}; import crashdisk; crashdisk.serve({work!r})"
        self._process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "ignore"} | ({"LD_PRELOAD": str(shim)} if shim else {}),
        )

    def __enter__(self) -> Trials:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()
        self._place.cleanup()

    def warm(self, arguments: dict[str, Any]) -> None:
        """Do the work once, unwatched, in the process that forks: children need not import again what it imports."""
        self._ask({"arguments": arguments})

    def _ask(self, order: dict[str, Any]) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())

    def run(
        self,
        root: Path,
        arguments: dict[str, Any],
        *,
        trace: Path | None = None,
        kill_at: int = 0,
        kill_after_s: float = 0.0,
        fail_at: int = 0,
        error: int = 0,
        kinds: int = EVERY,
        lasting: bool = False,
    ) -> End:
        """Do the work once in a child whose changes below ``root`` are watched."""
        settings = Path(self._place.name) / "settings"
        texts = str(root.resolve()).encode(), str(trace or "").encode()
        settings.write_bytes(_SETTINGS.pack(0, kill_at, fail_at, 0, error, kinds, lasting, 0, *texts))
        result = Path(self._place.name) / "result"
        result.unlink(missing_ok=True)
        status = self._ask(
            {"settings": str(settings), "result": str(result), "after_s": kill_after_s, "arguments": arguments}
        )
        calls, _, _, failed, *_ = _SETTINGS.unpack(settings.read_bytes())
        end = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if end not in (0, signal.SIGKILL):
            raise RuntimeError(f"a trial died by signal {end}")
        return End(end, calls, failed, json.loads(result.read_bytes()) if not end else None)


def serve(work: str) -> None:
    """The other side of ``Trials``."""
    module, _, name = work.partition(":")
    do: Callable[..., Any] = getattr(__import__(module), name)
    for line in sys.stdin:
        order = json.loads(line)
        if "settings" not in order:
            do(**order["arguments"])
            print(0, flush=True)
            continue
        child = os.fork()
        if child == 0:
            os._exit(_child(order, do))
        if order["after_s"]:
            time.sleep(order["after_s"])
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        try:
            while True:  # processes that it started end by themselves once it is gone
                os.killpg(child, 0)
                time.sleep(0.01)
        except ProcessLookupError:
            print(status, flush=True)


def _child(order: dict[str, Any], do: Callable[..., Any]) -> int:
    os.dup2(2, 1)
    os.setpgid(0, 0)
    settings = order["settings"]
    with open(settings, "r+b") as f:
        f.seek(_SETTINGS.size - 2 * 4096 - 4)
        f.write(struct.pack("=i", os.getpid()))
    os.environ["CRASHDISK"] = settings  # for processes that the work starts
    shim = ctypes.CDLL(None)
    if not hasattr(shim, "crashdisk_arm"):
        _watch_from_python(settings)
    elif shim.crashdisk_arm(settings.encode()):
        return 1
    try:
        result: Any = do(**order["arguments"])
    except Exception as err:
        line = err.line() if hasattr(err, "line") else ""  # type: ignore[attr-defined]
        result = {"error": type(err).__name__, "line": line, "traceback": traceback.format_exc()}
    with open(order["result"], "w") as f:
        json.dump(result, f)
    return 0


def _watch_from_python(settings: str) -> None:
    """What the shim does, as far as it can be done without one: counts Python's own calls and SQLite's statements."""
    with open(settings, "r+b") as f:
        shared = mmap.mmap(f.fileno(), _SETTINGS.size)

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            count, kill_at = struct.unpack_from("=2Q", shared)
            struct.pack_into("=Q", shared, 0, count + 1)
            if count + 1 == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    for name in ("open", "fsync", "replace", "unlink", "mkdir", "rmdir", "stat"):
        setattr(os, name, counted(getattr(os, name)))  # pathlib calls these too

    class Connection(sqlite3.Connection):
        execute = counted(sqlite3.Connection.execute)

    connect = sqlite3.connect
    sqlite3.connect = lambda *a, **k: connect(*a, **{"factory": Connection, **k})  # type: ignore[assignment,misc]


# ---- power cuts


class Event(NamedTuple):
    """One change, or a mark.

    Attributes:
      op: first letter of Create, Write, Truncate, Sync begins, sync ended, Rename, Link, Unlink, Directory made, Mark.
      thread: who did it.
      inode: what was changed; of a rename the folder it came from.
      other: the folder of the name; of a rename the folder it went to.
      offset: of a write; new size of a truncate; of a rename what was renamed.
      data: what was written, the name, or both names.
    """

    op: str
    thread: int
    inode: int
    other: int
    offset: int
    data: bytes


def read_trace(path: Path) -> list[Event]:
    """The events of a trace, in order."""
    blob, at, out = path.read_bytes(), 0, []
    while at < len(blob):
        op, thread, inode, other, offset, a, b = _RECORD.unpack_from(blob, at)
        at += _RECORD.size + a + b
        out.append(Event(chr(op), thread, inode, other, offset, blob[at - a - b : at]))
    return out


@dataclass(eq=False)
class _File:
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)  # (offset, data), or (new size, None)
    settled: int = 0  # changes that are durable by now
    begun: dict[int, int] = field(default_factory=dict)  # thread -> changes before the fsync it is in

    def settle(self, upto: int) -> None:
        n = max(upto - self.settled, 0)
        self.durable = _applied(self.durable, self.pending[:n])
        self.pending = self.pending[n:]
        self.settled += n


@dataclass(eq=False)
class _Folder:
    durable: dict[str, _File | _Folder] = field(default_factory=dict)
    pending: list[tuple[int, list[tuple[str, _File | _Folder | None]]]] = field(default_factory=list)
    settled: int = 0
    begun: dict[int, int] = field(default_factory=dict)

    def settle(self, upto: int) -> None:
        n = max(upto - self.settled, 0)
        for _, changes in self.pending[:n]:
            _change(self.durable, changes)
        self.pending = self.pending[n:]
        self.settled += n


def _change(names: dict[str, Any], changes: list[tuple[str, Any]]) -> None:
    for name, thing in changes:
        if thing is None:
            names.pop(name, None)
        else:
            names[name] = thing


def _applied(data: bytes, changes: list[tuple[int, bytes | None]]) -> bytes:
    out = bytearray(data)
    for offset, piece in changes:
        if piece is None:
            out = out[:offset] + bytes(max(offset - len(out), 0))
        else:
            out += bytes(max(offset - len(out), 0))
            out[offset : offset + len(piece)] = piece
    return bytes(out)


class Disk:
    """What lies below a folder, and how durable it is. Made from the folder before the work; fed with its events."""

    def __init__(self, root: Path) -> None:
        self._inodes: dict[int, _File | _Folder] = {}
        self.root = self._read(root)
        self._n = 0

    def _read(self, folder: Path) -> _Folder:
        made = _Folder()
        self._inodes[folder.stat().st_ino] = made
        for path in folder.iterdir():
            inode = path.stat().st_ino
            if path.is_dir():
                made.durable[path.name] = self._read(path)
            else:
                made.durable[path.name] = self._inodes.setdefault(inode, _File(path.read_bytes()))
        return made

    def feed(self, e: Event) -> None:
        """Take one event."""
        self._n += 1
        if e.op in "CD":
            self._inodes[e.inode] = _File() if e.op == "C" else _Folder()
        if e.op in "CDL":
            self._name(e.other, (e.data.decode(), self._inodes[e.inode]))
        elif e.op == "U":
            self._name(e.other, (e.data.decode(), None))
        elif e.op == "R":
            a, b = e.data.decode().split("/")
            thing = self._inodes[e.offset]
            if e.inode == e.other:
                self._name(e.inode, (a, None), (b, thing))
            else:
                self._name(e.other, (b, thing))
                self._name(e.inode, (a, None))
        elif e.op in "WT":
            file = self._inodes[e.inode]
            assert isinstance(file, _File)
            file.pending.append((e.offset, e.data if e.op == "W" else None))
        elif e.op == "S":
            thing = self._inodes[e.inode]
            thing.begun[e.thread] = thing.settled + len(thing.pending)
        elif e.op == "s":
            thing = self._inodes[e.inode]
            thing.settle(thing.begun.pop(e.thread))

    def _name(self, folder: int, *changes: tuple[str, _File | _Folder | None]) -> None:
        f = self._inodes[folder]
        assert isinstance(f, _Folder)
        f.pending.append((self._n, list(changes)))

    def crashed(self, rng: random.Random) -> dict[str, Any]:
        """One disk that a power cut may leave now: name -> content, or dict for a folder."""
        way = rng.choice(("folders", "names", "journal"))
        journal = rng.randrange(self._n + 1)
        thrift = rng.choice((0.0, 0.5, 1.0))  # extremes are where errors sit: nothing unsynced reached the disk, or all
        contents: dict[int, bytes] = {}

        def look(thing: _File | _Folder, above: tuple[int, ...] = ()) -> Any:
            if isinstance(thing, _File):
                if id(thing) not in contents:
                    contents[id(thing)] = _torn(thing, rng)
                return contents[id(thing)]
            names = dict(thing.durable)
            changes = thing.pending
            if way == "journal":
                changes = [c for c in changes if c[0] <= journal]
            elif way == "folders":
                changes = changes[: _upto(len(changes), thrift, rng)]
            else:
                single = [(name, to) for _, changed in changes for name, to in changed]
                left = {name: _upto(sum(n == name for n, _ in single), thrift, rng) for name, _ in single}
                changes = []
                for name, to in single:
                    if left[name] > 0:
                        left[name] -= 1
                        changes.append((0, [(name, to)]))
            for _, changed in changes:
                _change(names, changed)
            return {n: look(t, (*above, id(thing))) for n, t in sorted(names.items()) if id(t) not in above}

        return look(self.root)


def _upto(n: int, thrift: float, rng: random.Random) -> int:
    """How many of n changes happened: none, all, or any number."""
    return rng.randint(0, n) if rng.random() < 0.5 else round(thrift * n)


def _torn(file: _File, rng: random.Random) -> bytes:
    """A legal content after a power cut."""
    n = len(file.pending)
    way = rng.choice(("none", "all", "prefix", "sectors", "sectors")) if n else "none"
    if way in ("none", "all"):
        return _applied(file.durable, file.pending if way == "all" else [])
    sector = rng.choice((512, 4096))
    if way == "prefix":
        whole = rng.randrange(n)
        offset, data = file.pending[whole]
        if data is not None:
            cut = rng.randint(offset // sector, (offset + len(data)) // sector) * sector - offset
            data = data[: max(cut, 0)]
        return _applied(file.durable, file.pending[:whole] + ([(offset, data)] if data else []))
    sizes = [len(file.durable)]
    for offset, data in file.pending:
        sizes.append(offset if data is None else max(sizes[-1], offset + len(data)))
    out = bytearray(file.durable.ljust(max(sizes), b"\0"))
    pieces: dict[int, list[tuple[int, bytes]]] = {}
    for offset, data in file.pending:
        data = bytes(max(sizes) - offset) if data is None else data
        at = 0
        while at < len(data):
            k = (offset + at) // sector
            piece = data[at : (k + 1) * sector - offset]
            pieces.setdefault(k, []).append((offset + at, piece))
            at += len(piece)
    for history in pieces.values():
        for start, piece in history[: rng.randint(0, len(history))]:
            out[start : start + len(piece)] = piece
    return bytes(out[: rng.choice((max(sizes), sizes[-1], *sizes))])


class Crash(NamedTuple):
    """A disk after a power cut, how many events came before it, and the marks among them."""

    disk: dict[str, Any]
    after: int
    marks: tuple[str, ...]


def disks(before: Disk, events: list[Event], count: int, rng: random.Random) -> Iterator[Crash]:
    """Different disks that power cuts at random moments of a trace may leave.

    Args:
      before: the watched folder before the work; taken as durable.
      events: what ``read_trace`` gave.
      count: how many; fewer come when so many cannot be found.
      rng: chooses.
    """
    seen: set[int] = set()
    dry = 0
    while len(seen) < count and dry < 5:
        disk, marks = copy.deepcopy(before), []
        fresh = 0
        for k in sorted(rng.randint(0, len(events)) for _ in range(min(count, 200))):
            for e in events[disk._n : k]:
                disk.feed(e)
                if e.op == "M":
                    marks.append(e.data.decode())
            made = disk.crashed(rng)
            key = hash((_frozen(made), tuple(marks)))
            if key not in seen and len(seen) < count:
                seen.add(key)
                fresh += 1
                yield Crash(made, k, tuple(marks))
        dry = 0 if fresh else dry + 1


def _frozen(tree: Any) -> Any:
    return tuple((k, _frozen(v)) for k, v in tree.items()) if isinstance(tree, dict) else tree


def lay(disk: dict[str, Any], folder: Path) -> None:
    """Write a disk into an empty folder."""
    for name, thing in disk.items():
        if isinstance(thing, dict):
            (folder / name).mkdir()
            lay(thing, folder / name)
        else:
            (folder / name).write_bytes(thing)
