"""How fast logs come in: ``python benchmarks/ingest.py [--json]``.

One process, one core. A recording of many small signals is written by our recorder and read back: raw iteration, as
columns, as an episode; beside it the same file through rosbags, so that the ratio does not depend on the machine.
Then durable ingest of many short attempts (which fsync decides) and of one long one.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from flyball.base import SignalSpec
from flyball.base.workspace import Workspace
from flyball.episodes.codec import encode
from flyball.episodes.formats import read_one
from flyball.episodes.formats.mcap import McapFile
from flyball.episodes.ingest import ingest
from flyball.episodes.recorder import Recorder
from flyball.robots import Embodiment

SIGNALS = 6


def record(path: Path, steps: int, width: int, seed: int) -> float:
    """Write steps x 6 messages of ``width`` float64; returns the seconds it took."""
    specs = tuple(SignalSpec(f"signal.{i}", (width,), rate_hz=100) for i in range(SIGNALS))
    walk = np.cumsum(np.random.default_rng(seed).normal(size=(steps, width)), axis=0)
    begin = time.perf_counter()
    with Recorder(path, Embodiment("bench", (), specs, (), "0" * 64, ()), {"seed": seed}) as r:
        for i in range(steps):
            for spec in specs:
                r.write(spec.name, i * 10_000_000, walk[i])
    return time.perf_counter() - begin


def best(f: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the fastest of some runs."""
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        f()
        times.append(time.perf_counter() - begin)
    return min(times)


def rosbags_messages(path: Path) -> int:
    """The same messages through rosbags, undecoded."""
    from rosbags.rosbag2.storage_mcap import McapReader

    reader = McapReader(path)
    reader.open()
    n = sum(1 for _ in reader.messages(reader.connections))
    reader.close()
    return n


def measure(steps: int, width: int, attempts: int) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        n = steps * SIGNALS
        long = root / "long.mcap"
        recording = record(long, steps, width, 0)
        blob = long.read_bytes()
        payload = sum(int((b.stop - b.start).sum()) for b in McapFile(blob).blocks()) / 1e6
        raw = best(lambda: sum(1 for _ in McapFile(blob).messages()))
        columns = best(lambda: sum(len(b.start) for b in McapFile(blob).blocks()))
        decoded = best(lambda: read_one(long))
        encoded = best(lambda: encode(read_one(long)))
        w = Workspace(root / "w")
        begin = time.perf_counter()
        assert len(ingest(w, [long]).added) == 1
        whole = time.perf_counter() - begin
        for i in range(attempts):
            record(w.inbox / f"{i}.mcap", 250, width, i + 1)
        begin = time.perf_counter()
        assert len(ingest(w).added) == attempts
        many = time.perf_counter() - begin
        out = {
            "messages": n,
            "payload_MB": round(payload, 1),
            "record_messages_per_s": round(n / recording),
            "raw_messages_per_s": round(n / raw),
            "column_messages_per_s": round(n / columns),
            "episode_messages_per_s": round(n / decoded),
            "episode_MB_per_s": round(payload / decoded),
            "encoded_messages_per_s": round(n / encoded),
            "durable_ingest_messages_per_s": round(n / whole),
            "durable_ingest_MB_per_s": round(payload / whole),
            "durable_attempts_per_s": round(attempts / many, 1),
        }
        try:
            assert rosbags_messages(long) == n
            out["raw_times_rosbags"] = round(best(lambda: rosbags_messages(long)) / raw, 1)
        except ImportError:
            out["raw_times_rosbags"] = None
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50_000, help="of the long recording, 6 messages each")
    parser.add_argument("--width", type=int, default=8, help="float64 in a message")
    parser.add_argument("--attempts", type=int, default=50, help="short recordings of 250 steps")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    out = measure(args.steps, args.width, args.attempts)
    if args.json:
        print(json.dumps(out))
    else:
        for key, value in out.items():
            print(f"{key:32} {value!s:>12}")


if __name__ == "__main__":
    main()
