"""Is what was acknowledged still there? ``python benchmarks/durability.py [--kills N] [--states N] [--faults all]``.

A fleet's day in small: a workspace is made, a hub takes logs from robots, a person copies others into the inbox without
syncing them, one of them garbled, ingest runs, the store takes a file, a row and a name. Then, many times over:

- kills: SIGKILL at a random call (in the middle of it, if it is a write) or at a random time, and again while the next
  process recovers.
- states: disks that a power cut may leave (``crashdisk.py`` says by which model), also one during the recovery from
  another, and of two processes that ingest the same inbox.
- faults: at the k-th call, for every k, the disk fails (EIO) or is full (ENOSPC), once or from then on; and a small
  file system that really fills up, where one can be mounted.

After each, an independent look at the workspace: what was acknowledged is there once and whole, nothing is there by
half. Then ingest runs again over what is left and what robots and people deliver again, and must complete the set.
Needs Linux and a C compiler. Ends with 1 when anything was lost. ``--speed`` measures instead what durability costs:
``Store.keep_file`` beside ``cp`` and ``sync`` on the same disk.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import crashdisk
import numpy as np
from crashdisk import EVERY, SPACE, Trials, mark

from flyball.base import SignalSpec
from flyball.base.durable import disk_errors, write_durably
from flyball.base.store import Store
from flyball.base.workspace import Workspace
from flyball.episodes import ingest as ingest_module
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.ingest import ingest
from flyball.episodes.recorder import Recorder
from flyball.fleet.hub import Hub
from flyball.robots import Embodiment

HERE = Path(__file__).parent
ROBOTS, PEOPLE, GARBLED = ("r1.mcap", "r2.mcap"), ("a.mcap", "b.mcap"), "garbled.mcap"
LOST = "lost, there twice or by half"
PICTURES = b"pictures" * 3000  # stands for a camera's stream: a file that moves into the store


def originals(folder: Path) -> None:
    """Record the logs that arrive."""
    specs = (SignalSpec("joint.position", (2,), unit="rad", rate_hz=50), SignalSpec("force", (), unit="N", rate_hz=50))
    body = Embodiment("two-joints", (), specs, (), "0" * 64, ())
    for seed, name in enumerate((*ROBOTS, *PEOPLE)):
        rng = np.random.default_rng(seed)
        with Recorder(folder / name, body, {"robot": name, "task": "wave-v1", "seed": seed}) as r:
            for i in range(20 if seed else 400):
                r.write("joint.position", i * 20_000_000, rng.normal(size=2))
                r.write("force", i * 20_000_000, rng.normal())
    (folder / GARBLED).write_bytes((folder / ROBOTS[0]).read_bytes()[:-40])


# ---- the work that is cut short; runs in a child of Trials


def day(
    root: str, logs: str, ledger: str = "", *, deliver: bool = True, readers: int = 0, clutter: bool = False
) -> dict[str, Any]:
    """All of it, from whatever is there. What has been acknowledged is marked at once.

    Args:
      root: the disk; the workspace is a folder on it.
      logs: the original logs.
      ledger: file of what was acknowledged, see ``mark``.
      deliver: robots and people bring again what they do not know to be safe.
      readers: processes that read the logs.
      clutter: also a hundred files, to fill a small disk.
    """
    ingest_module.BATCH_FILES = 2  # so that five files make more than one batch
    ingest_module.BUSY = 0, 0  # and are worth the starting of processes
    w = Workspace(Path(root) / "w")
    blobs = {p.name: p.read_bytes() for p in Path(logs).iterdir()}
    if deliver:
        hub = Hub(w.path)
        for name in ROBOTS:
            digest = hashlib.sha256(blobs[name]).hexdigest()
            rest = memoryview(blobs[name])

            def read(n: int) -> bytes:
                nonlocal rest
                piece, rest = bytes(rest[:n]), rest[n:]
                return piece

            hub.receive("robot", digest, read, len(blobs[name]))
            mark(f"hub {name}", ledger)
        there = {a.digest for a in w.store.find("log")}
        for name in (*PEOPLE, GARBLED):
            if hashlib.sha256(blobs[name]).hexdigest() not in there and not any(w.quarantine.glob(f"*-{name}")):
                with disk_errors(w.inbox), open(w.inbox / name, "wb") as f:  # nobody syncs
                    f.write(blobs[name])
    report = ingest(w, progress=lambda done, _: mark(f"progress {done}", ledger), workers=readers)
    if deliver and not report.held:
        mark(f"ingested {len(blobs)}", ledger)
    with w.store.scratch() as folder:
        with disk_errors(folder):
            (folder / "camera").write_bytes(PICTURES)
        digest = w.store.keep_file(folder / "camera", move=True)
    w.store.register("frames", digest, producer="benchmark@1", labels={"of": "camera"})
    mark("pictures", ledger)
    w.store.set_name("newest", digest)
    mark("name", ledger)
    for text in ("new",) if (w.reports / "report.txt").exists() else ("old", "new"):
        write_durably(w.reports / "report.txt", text.encode() * 3000)
        mark(f"report {text}", ledger)
    w.store.put_row("turn", "1", {"n": 1})
    mark("row", ledger)
    if clutter:
        for i in range(100):
            w.store.put("clutter", os.urandom(100_000), producer="benchmark@1", labels={"i": i})
            mark(f"clutter {i}", ledger)
    w.store.close()
    return {"added": len(report.added), "quarantined": len(report.quarantined)}


def both(root: str, logs: str, ledger: str = "") -> None:
    """Deliver, then two processes that ingest at once."""
    w = Workspace(Path(root) / "w")
    for p in Path(logs).iterdir():
        shutil.copyfile(p, w.inbox / p.name)
    children = []
    for _ in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                day(root, logs, ledger, deliver=False)
                os._exit(0)
            finally:
                traceback.print_exc()
                os._exit(1)
    if any([os.waitpid(child, 0)[1] for child in children]):
        raise RuntimeError("one of two processes at the same inbox failed")


def work(do: str, **arguments: Any) -> Any:
    """What ``Trials`` calls."""
    return {"day": day, "both": both}[do](**arguments)


# ---- looking


class Lost(AssertionError):
    """What was acknowledged is not there, or something is there by half."""


def _must(holds: Any, what: str) -> None:
    if not holds:
        raise Lost(what)


@dataclass
class Truth:
    """What the logs hold, from a day on which nothing happened."""

    logs: dict[str, bytes]
    episodes: dict[str, set[str]] = field(default_factory=dict)  # digest of a log -> of its episodes

    def digest(self, name: str) -> str:
        return hashlib.sha256(self.logs[name]).hexdigest()


def look(w: Workspace, truth: Truth, acknowledged: list[str]) -> None:
    """What must hold at any moment, found out without the store's own code where that is possible."""
    blobs = w.store.blobs  # opened as any process would: that is what recovers
    db = sqlite3.connect(w.path / "flyball.db")
    _must(db.execute("PRAGMA integrity_check").fetchall() == [("ok",)], "the database is not sound")
    artifacts = db.execute("SELECT digest, kind FROM artifacts").fetchall()
    have = {d for d, _ in artifacts}
    by_kind = {k: [d for d, kind in artifacts if kind == k] for _, k in artifacts}
    logs, episodes = by_kind.get("log", []), by_kind.get("episode", [])
    for digest in have:
        _must((blobs / digest[:2] / digest[2:]).exists(), f"a row without its blob: {digest[:12]}")
    for blob in blobs.glob("??/*"):
        _must(hashlib.sha256(blob.read_bytes()).hexdigest() == blob.parent.name + blob.name, "half a blob has a name")
    for child, parent in db.execute("SELECT child, parent FROM parents"):
        _must({child, parent} <= have, "a parent is not registered")
    tables = {n for (n,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    rows = db.execute("SELECT digest, log_digest FROM episodes").fetchall() if "episodes" in tables else []
    db.close()
    _must(len(set(logs)) == len(logs) and len({d for d, _ in rows}) == len(rows), "something is there twice")
    _must({d for d, _ in rows} == set(episodes), "an episode without its row, or a row without its episode")
    for log in {*logs, *(log for _, log in rows)}:
        _must(log in logs and log in truth.episodes, "an episode without its log")
        _must({d for d, g in rows if g == log} == truth.episodes[log], "a log without its episodes")
    for digest in {d for d, _ in rows}:
        Catalogue(w.store).load(digest)

    kept = {p.name.partition("-")[2]: p for p in w.quarantine.glob("*.mcap")}

    def safe(name: str) -> bool:
        aside = kept.get(name)
        reason = aside is not None and aside.with_name(aside.name + ".reason.txt").exists()
        return truth.digest(name) in logs or (reason and aside.read_bytes() == truth.logs[name])

    for text in acknowledged:
        what, _, which = text.partition(" ")
        if what == "hub":
            there = [p for p in w.inbox.iterdir() if p.read_bytes() == truth.logs[which]]
            _must(there or truth.digest(which) in logs, f"{which} was acknowledged by the hub")
            known = [json.loads(x)["sha256"] for x in _lines(w.path / "fleet" / "acknowledged.jsonl")]
            _must(truth.digest(which) in known, f"the hub forgot {which}")
        elif what in ("progress", "ingested"):
            _must(sum(map(safe, truth.logs)) >= int(which), f"{text} was told, {sum(map(safe, truth.logs))} are safe")
        elif what == "pictures":
            _must(hashlib.sha256(PICTURES).hexdigest() in have, "the moved file is lost")
        elif what == "name":
            _must(w.store.name("newest"), "the name is lost")
        elif what == "row":
            _must(w.store.rows("turn") == [{"n": 1}], "the row is lost")
        elif what == "clutter":
            _must(len(w.store.find("clutter", i=int(which))) == 1, f"{text} is lost")
        elif what == "report":
            text = (w.reports / "report.txt").read_text()
            _must(text in ("old" * 3000, "new" * 3000), "the report is neither the old nor the new one")
            _must(which == "old" or text == "new" * 3000, "the new report is lost")


def _lines(path: Path) -> list[str]:
    return [x for x in path.read_text().splitlines() if "\0" not in x and x.endswith("}")]


def complete(root: Path, truth: Truth) -> None:
    """What must hold once a whole day has passed."""
    w = Workspace(root / "w", create=False)
    everything = [*(f"hub {n}" for n in ROBOTS), f"ingested {len(truth.logs)}", "pictures", "name", "report new", "row"]
    look(w, truth, everything)
    _must([p.name for p in w.inbox.iterdir()] == [], "the inbox was not emptied")
    _must({a.digest for a in w.store.find("log")} == set(truth.episodes), "not all logs are there")
    left = [p.name for p in (w.store.blobs / "tmp").iterdir() if p.name.startswith("held-")]
    _must(not left, f"temporary files were left: {left}")
    w.store.close()


# ---- campaigns


class Campaigns:
    """Trials on small disks in a folder, and what came of them.

    Attributes:
      outcomes: what happened -> how often.
      failures: one line for each trial after which not everything was as it must be.

    Args:
      shim: what ``crashdisk.compiled`` gave; without one only ``kills``.
      place: an empty folder.
      work: another function than ``work``, and where it is imported from.
    """

    def __init__(
        self, shim: Path | None, place: Path, *, work: str = "durability:work", path: Sequence[Path] = ()
    ) -> None:
        self.place, self.logs, self.root = place, place / "logs", place / "disk"
        self.logs.mkdir()
        originals(self.logs)
        self.outcomes: Counter[str] = Counter()
        self.outcomes[LOST] = 0
        self.failures: list[str] = []
        self.trials = Trials(shim, work, [HERE, *path])
        self.trials.warm({"do": "day", "root": str(place / "warm"), "logs": str(self.logs)})
        # What the logs hold, and how many calls a day takes, from a day on which nothing happens.
        self.truth = Truth({p.name: p.read_bytes() for p in self.logs.iterdir()})
        end = self._run(self._disk())
        self._told()
        if end.calls < 200 or "error" in end.result:
            raise RuntimeError(f"a day on which nothing happens: {end}")
        self.calls = end.calls
        w = Workspace(self.root / "w")
        for log, episode in w.store.read("SELECT log_digest, digest FROM episodes"):
            self.truth.episodes.setdefault(log, set()).add(episode)
        w.store.close()
        if set(self.truth.episodes) != {self.truth.digest(n) for n in (*ROBOTS, *PEOPLE)}:
            raise RuntimeError("ingest does not find the episodes even when nothing happens")
        complete(self.root, self.truth)

    def kills(self, count: int, rng: random.Random, *, readers: int = 0) -> None:
        """SIGKILL at random points, most of them at a call, the others at a time."""
        begin = time.perf_counter()
        calls = self._run(self._disk(), readers=readers).calls
        day_s = time.perf_counter() - begin
        self._told()
        while self.outcomes["kills"] < count:
            root, told = self._disk(), []
            for _ in range(rng.choice((1, 2))):  # the process that recovers may be killed as well
                if rng.random() < 0.8:
                    end = self._run(root, readers=readers, kill_at=rng.randint(1, calls))
                else:
                    end = self._run(root, readers=readers, kill_after_s=rng.uniform(0, day_s))
                self.outcomes["kills"] += end.signal != 0
                told += self._told()
            self._judge(f"killed after {len(told)} acknowledgements", told)

    def states(self, count: int, rng: random.Random, *, until_lost: bool = False) -> None:
        """Power cuts: in a day, in the day after another one's power cut, and with several processes at work."""
        kinds = dict.fromkeys(("recovery", "day of two ingests", "day with two readers"), count // 4)
        kinds = {"day": count - sum(kinds.values()), **kinds}
        start = self.place / "start"
        for kind, left in kinds.items():
            while left > 0:
                told: tuple[str, ...] = ()
                if kind == "recovery":
                    before, events = self._recorded(None, "day")
                    (first,) = crashdisk.disks(before, events, 1, rng)
                    told = first.marks
                    shutil.rmtree(start, ignore_errors=True)
                    start.mkdir()
                    crashdisk.lay(first.disk, start)
                before, events = self._recorded(
                    start if kind == "recovery" else None, "both" if "two" in kind else "day"
                )
                for crash in crashdisk.disks(before, events, min(left, 50 if kind == "recovery" else 500), rng):
                    left -= 1
                    self.outcomes[f"power cuts in a {kind}"] += 1
                    crashdisk.lay(crash.disk, self._disk())
                    self._judge(f"power cut in a {kind}, after event {crash.after}", [*told, *crash.marks])
                    if until_lost and self.failures:
                        return

    def faults(self, rng: random.Random, *, share: float = 1.0) -> None:
        """The k-th call fails, for every k (or a share of them): once, or as all later ones do."""
        for k in range(1, self.calls + 1):
            for error, kinds, lasting in (
                (EIO, EVERY, False),
                (EIO, EVERY, True),
                (ENOSPC, SPACE, False),
                (ENOSPC, SPACE, True),
            ):
                if rng.random() >= share:
                    continue
                end = self._run(self._disk(), fail_at=k, error=error, kinds=kinds, lasting=lasting)
                told = self._told()
                if not end.failed:
                    continue  # not a kind of call that fails so
                self.outcomes[f"{os.strerror(error)}, {'from then on' if lasting else 'once'}"] += 1
                self._judge_error(f"{os.strerror(error)} at call {k}{' and on' * lasting}", end, told)

    def full_disks(self, count: int, rng: random.Random) -> str:
        """Small file systems that fill up, in bytes or in inodes; returns why not when none can be mounted."""
        for _ in range(count):
            root = self._disk()
            limit = rng.choice((f"size={rng.randint(50, 3000)}k", f"size=64m,nr_inodes={rng.randint(5, 150)}"))
            tried = subprocess.run(
                ["mount", "-t", "tmpfs", "-o", limit, "none", str(root)], capture_output=True, text=True
            )
            if tried.returncode:
                return f"no file system can be mounted ({tried.stderr.strip()})"
            try:
                end = self._run(root, clutter=True)
                told = self._told()
                self.outcomes["full disks"] += "error" in end.result
                subprocess.run(["mount", "-o", "remount,size=64m,nr_inodes=10k", str(root)], check=True)
                self._judge_error(f"disk of {limit}", end, told)
            finally:
                subprocess.run(["umount", "--lazy", str(root)], check=True)
        return ""

    def __enter__(self) -> Campaigns:
        return self

    def __exit__(self, *_: object) -> None:
        self.trials.__exit__()

    def _disk(self) -> Path:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()
        return self.root

    def _run(
        self, root: Path, do: str = "day", *, readers: int = 0, clutter: bool = False, **how: Any
    ) -> crashdisk.End:
        arguments = {"do": do, "root": str(root), "logs": str(self.logs), "ledger": str(self.place / "ledger")}
        if do == "day":
            arguments |= {"readers": readers, "clutter": clutter}
        return self.trials.run(root, arguments, **how)

    def _told(self) -> list[str]:
        """What was acknowledged since the last time."""
        path = self.place / "ledger"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return lines

    def _recorded(self, start: Path | None, kind: str) -> tuple[crashdisk.Disk, list[crashdisk.Event]]:
        """Run to the end on a disk (an empty one when None); what was there before, and the events."""
        trace, root = self.place / "trace", self._disk()
        if start is not None:
            shutil.copytree(start, root, dirs_exist_ok=True)
        before = crashdisk.Disk(root)
        trace.unlink(missing_ok=True)
        do = "both" if "two ingests" in kind else "day"
        end = self._run(root, do, readers=2 if "readers" in kind else 0, trace=trace)
        self._told()
        if end.result and "error" in end.result:
            self.failures.append(f"{kind}, nothing cut: {end.result['traceback']}")
        return before, crashdisk.read_trace(trace)

    def _judge(self, what: str, told: list[str]) -> None:
        """Open what is there, look, do the day again, and look whether everything is there."""
        self.outcomes["workspaces looked at"] += 1
        try:
            if told or (self.root / "w" / "flyball.toml").exists():
                w = Workspace(self.root / "w", create=False)
                look(w, self.truth, told)
                w.store.close()
            day(str(self.root), str(self.logs))
            complete(self.root, self.truth)
        except Exception as err:  # whatever it is, the next process could not go on
            self.outcomes[LOST] += 1
            self.failures.append(f"{what}: {type(err).__name__}: {err}")

    def _judge_error(self, what: str, end: crashdisk.End, told: list[str]) -> None:
        """The same, and the error that was raised, if any, is one of ours and in one line."""
        error = end.result.get("error")
        self.outcomes["said in one line" if error else "tolerated"] += 1
        if error and not end.result["line"]:
            self.outcomes["error not in one line"] += 1
            self.failures.append(f"{what}: not a clear error: {end.result['traceback']}")
        # Progress also counts what could not be opened and stays in the inbox: no acknowledgement then.
        self._judge(what, [t for t in told if not t.startswith("progress")])


def speed(place: Path, rounds: int = 7) -> list[dict[str, Any]]:
    """Seconds of plain copying and of keeping, in turns, on the disk of a folder; the median of some rounds."""
    store = Store(place)
    rows = []
    for name, count, size in (("one file of 128 MB", 1, 128 << 20), ("200 files of 60 kB", 200, 60_000)):
        seconds: dict[str, list[float]] = {"cp, sync": [], "cp, sha256sum, sync": [], "keep_file": []}
        for i in range(rounds * len(seconds)):
            way = list(seconds)[i % len(seconds)]
            source, target = place / "source", place / "target"
            for folder in (source, target):
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
            for k in range(count):
                (source / str(k)).write_bytes(os.urandom(size))
            os.sync()
            begin = time.perf_counter()
            if way == "keep_file":
                with store.batch():
                    for path in source.iterdir():
                        store.keep_file(path)
            else:
                digest = "sha256sum source/* > /dev/null && " if "sha256sum" in way else ""
                command = f"cp source/* target && {digest}sync target/* target"
                subprocess.run(command, shell=True, check=True, cwd=place)
            seconds[way].append(time.perf_counter() - begin)
        median = {way: sorted(s)[rounds // 2] for way, s in seconds.items()}
        row = {way: f"{count * size / 1e6 / s:.0f} MB/s" for way, s in median.items()}
        ratio = {
            f"speed of {way!r} to keep_file": round(median["keep_file"] / median[way], 2) for way in list(median)[:2]
        }
        rows.append({"campaign": name, **row, **ratio})
    store.close()
    return rows


def show(row: dict[str, Any]) -> None:
    """Print a row as a part of a table."""
    for what, value in list(row.items())[1:]:
        print(f"{row['campaign']:20} {what:48} {value!s:>10}", flush=True)
    print(flush=True)


def _share(text: str) -> float:
    share = 1.0 if text == "all" else float(text)  # argparse turns a ValueError into a line
    if not 0 <= share <= 1:
        raise ValueError(text)
    return share


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0].replace("``", ""))
    parser.add_argument("--kills", type=int, default=2000, help="kill -9 at that many points (2000)")
    parser.add_argument("--states", type=int, default=2000, help="that many disks after a power cut (2000)")
    parser.add_argument("--faults", type=_share, default=1.0, help="share of the failing calls to try (0 to 1), or all")
    parser.add_argument("--full-disks", type=int, default=200, help="that many file systems that fill up (200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speed", type=Path, metavar="FOLDER", help="measure the speed on that disk instead")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.speed:
        with tempfile.TemporaryDirectory(dir=args.speed) as folder:
            measured = speed(Path(folder))
        if args.json:
            print(json.dumps(measured, indent=1))
        else:
            for row in measured:
                show(row)
        return 0
    rng = random.Random(args.seed)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # syncing is free there
    rows, failures = [], []
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        shim = crashdisk.compiled(Path(folder))
        if shim is None:
            print("durability: needs Linux and a C compiler (cc)", file=sys.stderr)
            return 2
        share = args.faults
        campaigns: list[tuple[str, Callable[[Campaigns], Any]]] = [
            ("kills", lambda c: c.kills(args.kills, rng)),
            ("kills of readers", lambda c: c.kills(args.kills // 40, rng, readers=2)),
            ("power cuts", lambda c: c.states(args.states, rng)),
            ("failing calls", lambda c: c.faults(rng, share=share)),
            ("full disks", lambda c: c.full_disks(args.full_disks, rng)),
        ]
        for name, campaign in campaigns:
            place = Path(folder) / name.replace(" ", "-")
            place.mkdir()
            begin = time.perf_counter()
            with Campaigns(shim, place) as c:
                skipped = campaign(c)
                row = {"campaign": name, "calls in a day": c.calls, **dict(sorted(c.outcomes.items()))}
            row |= {"seconds": round(time.perf_counter() - begin)} | ({"skipped": skipped} if skipped else {})
            rows.append(row)
            failures += c.failures
            if not args.json:
                show(row)
    if args.json:
        print(json.dumps({"campaigns": rows, "failures": failures}, indent=1))
    for line in failures[:20]:
        print(line, file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
