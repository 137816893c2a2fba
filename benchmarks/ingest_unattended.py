"""Ingest as a whole, durably: ``python benchmarks/ingest_unattended.py [scale] [many] [memory] [--json]``.

- ``scale``: the same recordings through one reading process and through two (and through none); MB/s of file, durable.
- ``many``: a thousand logs in the inbox, one in twenty damaged, unattended; then the same delivered again.
- ``memory``: one recording far larger than the memory it may take.

Ratios come from one run; rounds alternate, so that a machine that is busy with something else is so for all.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import foxglove
import numpy as np
from foxglove.mcap import MCAPWriteOptions

from flyball.base import SignalSpec
from flyball.base.workspace import Workspace
from flyball.episodes import ingest as module
from flyball.episodes.ingest import ingest
from flyball.episodes.readers import Readers
from flyball.episodes.recorder import Recorder
from flyball.episodes.taking import Setting
from flyball.robots import Embodiment

SPECS = tuple(SignalSpec(f"signal.{i}", (8,), rate_hz=1000) for i in range(6))
BODY = Embodiment("bench", (), SPECS, (), "0" * 64, ())


def record(path: Path, steps: int, seed: int) -> None:
    """Write steps x 6 messages of 8 float64."""
    walk = np.cumsum(np.random.default_rng(seed).normal(size=(steps, 8)), axis=0)
    with Recorder(path, BODY, {"seed": seed}) as r:
        for i in range(steps):
            for spec in SPECS:
                r.write(spec.name, i * 1_000_000, walk[i])


def scale(folder: Path, logs: int, steps: int, rounds: int) -> dict[str, Any]:
    """Seconds with 0, 1 and 2 processes, the fastest of some rounds; starting the processes is not counted."""
    recordings = folder / "scale"
    recordings.mkdir()
    for i in range(logs):
        record(recordings / f"{i}.mcap", steps, i)
    size = sum(p.stat().st_size for p in recordings.iterdir()) / 1e6
    best: dict[int, float] = {}
    for n in range(rounds):
        for workers in (0, 1, 2):
            with tempfile.TemporaryDirectory(dir=folder) as place:
                w = Workspace(Path(place) / "w")
                readers = Readers(workers, Setting(w.path))
                (Path(place) / "first").mkdir()
                for k in range(4):  # until all processes have imported what they need
                    record(Path(place) / "first" / f"{k}.mcap", 10, 10**6 + 10 * n + k)
                assert len(ingest(w, [Path(place) / "first"], readers=readers).added) == 4
                begin = time.perf_counter()
                assert len(ingest(w, [recordings], readers=readers).added) == logs
                seconds = time.perf_counter() - begin
                readers.close()
                w.store.close()
            best[workers] = min(best.get(workers, np.inf), seconds)
    return {
        "files": logs,
        "file_MB": round(size, 1),
        "messages_per_s_one_process": round(logs * steps * len(SPECS) / best[1]),
        "durable_MB_per_s_inline": round(size / best[0], 1),
        "durable_MB_per_s_one_process": round(size / best[1], 1),
        "durable_MB_per_s_two_processes": round(size / best[2], 1),
        "two_over_one": round(best[1] / best[2], 2),
    }


def many(folder: Path, logs: int, workers: int) -> dict[str, Any]:
    """A full inbox, some of it damaged; what became of it."""
    w = Workspace(folder / "many")
    rng, bad = np.random.default_rng(0), 0
    for i in range(logs):
        path = w.inbox / f"{i:05}.mcap"
        record(path, 40, i)
        if i % 20 == 7:
            blob = bytearray(path.read_bytes())
            kind = ("cut", "flip", "empty", "garbage")[bad % 4]
            blob[len(blob) // 2] ^= 1 << rng.integers(8)
            path.write_bytes(
                {"cut": blob[: len(blob) // 2], "flip": blob, "empty": b"", "garbage": rng.bytes(500)}[kind]
            )
            bad += 1
    copies = {p.name: p.read_bytes() for p in w.inbox.iterdir()}
    begin = time.perf_counter()
    report = ingest(w, workers=workers)
    seconds = time.perf_counter() - begin
    for name, blob in copies.items():
        (w.inbox / name).write_bytes(blob)
    begin = time.perf_counter()
    again = ingest(w, workers=workers)
    assert len(report.added) == logs - bad and not again.added and len(again.known) == logs - bad
    assert len(report.quarantined) == bad == len(again.quarantined) and not list(w.inbox.iterdir())
    return {
        "logs": logs,
        "damaged": bad,
        "added": len(report.added),
        "quarantined": len(report.quarantined),
        "logs_per_s": round(logs / seconds, 1),
        "known_logs_per_s": round(logs / (time.perf_counter() - begin), 1),
    }


CHILD = """
import sys
from flyball.base.workspace import Workspace
from flyball.episodes.ingest import ingest
report = ingest(Workspace(sys.argv[1]), [sys.argv[2]])
assert len(report.added) == 1 and report.logs[0].rule == "file", report
print(next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def memory(folder: Path, gigabytes: float) -> dict[str, Any]:
    """Peak memory of a process that ingests a large foreign log, mapped files included, beside that of a small one."""
    out: dict[str, Any] = {}
    for name, size in (("small", 1 << 20), ("large", int(gigabytes * 2**30))):
        path = folder / f"{name}.mcap"
        context = foxglove.Context()
        options = MCAPWriteOptions(compression=None, profile="ros2")
        writer = foxglove.open_mcap(path, context=context, writer_options=options)
        schema = foxglove.Schema(name="pkg/msg/Wide", encoding="ros2msg", data=b"float64[4096] q")
        topic = foxglove.Channel("/wide", schema=schema, message_encoding="cdr", context=context)
        rng = np.random.default_rng(0)
        for i in range(max(1, size // (8 * 4096))):
            topic.log(b"\0\1\0\0" + rng.normal(size=4096).tobytes(), log_time=i * 10_000_000)
        writer.close()
        begin = time.perf_counter()
        run = [sys.executable, "-c", CHILD, str(folder / f"w-{name}"), str(path)]
        done = subprocess.run(run, capture_output=True, text=True, check=True)
        seconds = time.perf_counter() - begin
        out[f"{name}_file_MB"] = round(path.stat().st_size / 1e6)
        out[f"{name}_peak_MB"] = round(int(done.stdout) / 1000)
        out[f"{name}_seconds"] = round(seconds, 1)
        path.unlink()
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", default=["scale", "many", "memory"], help="default: all three")
    parser.add_argument("--logs", type=int, default=24, help="of scale")
    parser.add_argument("--steps", type=int, default=12_000, help="of each log of scale, 6 messages each")
    parser.add_argument("--rounds", type=int, default=3, help="of scale")
    parser.add_argument("--many", type=int, default=1000, help="logs of many")
    parser.add_argument("--workers", type=int, default=2, help="of many")
    parser.add_argument("--gigabytes", type=float, default=4.0, help="of memory")
    parser.add_argument("--folder", type=Path, help="where to write (default: the system's temporary folder)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    module.BUSY = (0, 0)
    out: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=args.folder) as place:
        folder = Path(place)
        for what in args.what:
            out[what] = {
                "scale": lambda: scale(folder, args.logs, args.steps, args.rounds),
                "many": lambda: many(folder, args.many, args.workers),
                "memory": lambda: memory(folder, args.gigabytes),
            }[what]()
    out["peak_MB_of_this_process"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
    if args.json:
        print(json.dumps(out))
    else:
        for what, figures in out.items():
            for key, value in figures.items() if isinstance(figures, dict) else [("", figures)]:
                print(f"{what:8} {key:34} {value!s:>12}")


if __name__ == "__main__":
    main()
