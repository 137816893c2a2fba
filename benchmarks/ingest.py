"""How fast logs come in: ``python benchmarks/ingest.py [--large] [--json]``.

Reading: recordings of small messages and of 60 kB pictures, by our reader (every CRC checked) and by the ``mcap``
package's, in one run, turn by turn, so that the ratios do not depend on the machine; seconds of the processor, medians,
and the spread of the ratio over the repeats. Ingest: a recording of many small signals becomes an episode, durably;
many short attempts; the same logs with one and with two reading processes, by the clock on the wall. ``--large``: a
recording of 4 GB, read and then made an episode, each in a child process whose peak memory is reported. One process and
one core unless it says otherwise.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import foxglove
import numpy as np
from foxglove.mcap import MCAPCompression, MCAPWriteOptions

from flyball.base import SignalSpec
from flyball.base.workspace import Workspace
from flyball.episodes.codec import encode
from flyball.episodes.formats import read_one
from flyball.episodes.formats.mcap import McapFile
from flyball.episodes.ingest import ingest
from flyball.episodes.recorder import Recorder
from flyball.robots import Embodiment

SIGNALS = 6
PICTURE = 60_000  # bytes
ZSTD, LZ4 = MCAPCompression.Zstd, MCAPCompression.Lz4
IMAGE = (
    "std_msgs/Header header\nstring format\nuint8[] data\n" + "=" * 80 + "\nMSG: std_msgs/Header\n"
    "builtin_interfaces/Time stamp\nstring frame_id\n"
    + "=" * 80
    + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec"
)

# name -> (messages, bytes of one, whether sizes vary, bytes of a chunk, compression)
CASES: dict[str, tuple[int, int, bool, int, MCAPCompression | None]] = {
    "small_zstd": (300_000, 80, False, 1 << 20, ZSTD),
    "small_lz4": (300_000, 80, False, 1 << 20, LZ4),
    "small_of_varying_size": (300_000, 80, True, 1 << 20, ZSTD),
    "small_in_64_kB_chunks": (300_000, 80, False, 64 << 10, ZSTD),
    "pictures_zstd": (4_000, PICTURE, False, 1 << 20, ZSTD),
    "pictures_uncompressed": (4_000, PICTURE, False, 1 << 20, None),
}


# ---- reading


def write(path: Path, n: int, size: int, vary: bool, chunk: int, compression: MCAPCompression | None) -> None:
    """A recording of six topics: small messages are a random walk, large ones noise, as compressed pictures are."""
    context = foxglove.Context()
    options = MCAPWriteOptions(chunk_size=chunk, compression=compression)
    writer = foxglove.open_mcap(path, context=context, writer_options=options)
    schema = foxglove.Schema(name="pkg/Raw", encoding="ros2msg", data=b"uint8[] data")
    topics = [
        foxglove.Channel(f"/t{i}", schema=schema, message_encoding="cdr", context=context) for i in range(SIGNALS)
    ]
    rng = np.random.default_rng(0)
    if size < 1000:
        body = np.cumsum(rng.normal(size=n * size // 8)).round(3).tobytes()
        places = [i * size for i in range(n)]
    else:
        body, places = rng.bytes(size * 1000), [i * size % (size * 1000) for i in range(n)]
    for i, at in enumerate(places):
        length = size - (i * 7) % (size // 3) if vary else size
        topics[i % SIGNALS].log(body[at : at + length], log_time=i * 1_000_000)
    writer.close()


def package(path: Path, validate: bool) -> int:
    """All messages through the ``mcap`` package, in file order."""
    from mcap.reader import make_reader

    with open(path, "rb") as f:
        return sum(1 for _ in make_reader(f, validate_crcs=validate).iter_messages(log_time_order=False))


def package_stream(path: Path) -> int:
    """The same, through its reader that checks the CRC of the data section too."""
    from mcap.reader import NonSeekingReader

    with open(path, "rb") as f:
        return sum(1 for _ in NonSeekingReader(f, validate_crcs=True).iter_messages(log_time_order=False))


def readers(path: Path) -> dict[str, Callable[[], int]]:
    """What is compared, by name."""
    out: dict[str, Callable[[], int]] = {
        "columns": lambda: sum(len(b) for b in McapFile(path).blocks()),
        "messages": lambda: sum(1 for _ in McapFile(path).messages()),
    }
    try:
        import mcap.reader  # noqa: F401
    except ImportError:
        return out
    out["package"] = lambda: package(path, False)
    out["package_with_chunk_crcs"] = lambda: package(path, True)
    out["package_with_all_crcs"] = lambda: package_stream(path)
    return out


def turns(
    functions: dict[str, Callable[[], Any]], repeats: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each, turn by turn, so that what else the machine does hits all alike; the first does not count."""
    out: dict[str, list[float]] = {name: [] for name in functions}
    for i in range(repeats + 1):
        for name, f in functions.items():
            begin = clock()
            f()
            if i:
                out[name].append(clock() - begin)
    return out


def reading(path: Path, n: int, repeats: int) -> dict[str, Any]:
    """Rates of our reader, and how many times faster than the package's it is: median (lowest to highest)."""
    functions = readers(path)
    assert all(f() == n for f in functions.values())
    took = turns(functions, repeats, time.process_time)
    payload = sum(int((b.stop - b.start).sum()) for b in McapFile(path).blocks()) / 1e6
    out: dict[str, Any] = {
        "messages": n,
        "payload_MB": round(payload, 1),
        "file_MB": round(path.stat().st_size / 1e6, 1),
    }
    for ours in ("columns", "messages"):
        seconds = statistics.median(took[ours])
        out[f"{ours}_per_s"] = round(n / seconds)
        out[f"{ours}_payload_MB_per_s"] = round(payload / seconds)
        for theirs in took.keys() - {"columns", "messages"}:
            ratios = sorted(b / a for a, b in zip(took[ours], took[theirs], strict=True))
            middle = statistics.median(ratios)
            out[f"{ours}_times_{theirs}"] = f"{middle:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"
    return dict(sorted(out.items()))


# ---- ingest


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


def ingesting(root: Path, steps: int, width: int, attempts: int, repeats: int) -> dict[str, Any]:
    """Our own recordings, to episodes and into the store."""
    n = steps * SIGNALS
    long = root / "long.mcap"
    recording = record(long, steps, width, 0)
    payload = sum(int((b.stop - b.start).sum()) for b in McapFile(long).blocks()) / 1e6
    took = turns({"episode": lambda: read_one(long), "encoded": lambda: encode(read_one(long))}, repeats)
    episode, encoded = (statistics.median(took[k]) for k in ("episode", "encoded"))
    w = Workspace(root / "w")
    begin = time.perf_counter()
    assert len(ingest(w, [long]).added) == 1
    whole = time.perf_counter() - begin
    for i in range(attempts):
        record(w.inbox / f"{i}.mcap", 250, width, i + 1)
    begin = time.perf_counter()
    assert len(ingest(w).added) == attempts
    many = time.perf_counter() - begin
    return {
        "messages": n,
        "payload_MB": round(payload, 1),
        "record_messages_per_s": round(n / recording),
        "episode_messages_per_s": round(n / episode),
        "episode_payload_MB_per_s": round(payload / episode),
        "encoded_messages_per_s": round(n / encoded),
        "durable_ingest_messages_per_s": round(n / whole),
        "durable_ingest_payload_MB_per_s": round(payload / whole),
        "durable_attempts_per_s": round(attempts / many, 1),
    }


def two_processes(root: Path, logs: int, steps: int, width: int, repeats: int) -> dict[str, Any]:
    """The same logs ingested by one reading process and by two; and read, not stored, by one and by two."""
    folder = root / "logs"
    folder.mkdir()
    for i in range(logs):
        record(folder / f"{i}.mcap", steps, width, i)
    made = iter(range(10_000))

    def taken(workers: int) -> None:
        assert len(ingest(Workspace(root / f"scale-{next(made)}"), [folder], workers=workers).added) == logs

    def read(processes: int) -> None:
        code = "import sys\nfrom flyball.episodes.formats import read_one\nfrom pathlib import Path\n"
        code += "input()\nfor p in sys.argv[1:]: read_one(Path(p))\nprint()"
        paths = [str(folder / f"{i}.mcap") for i in range(logs)]
        children = [
            subprocess.Popen([sys.executable, "-c", code, *paths[k::processes]], stdin=-1, stdout=-1)
            for k in range(processes)
        ]
        time.sleep(1.0 * (len(children) > 0))  # until all have imported what they need
        begin = time.perf_counter()
        for c in children:
            assert c.stdin is not None
            c.stdin.write(b"\n")
            c.stdin.flush()
        for c in children:
            assert c.wait() == 0
        seconds.append(time.perf_counter() - begin)

    took = turns({"one": lambda: taken(1), "two": lambda: taken(2)}, repeats)
    ratios = sorted(a / b for a, b in zip(took["one"], took["two"], strict=True))
    seconds: list[float] = []
    for _ in range(repeats):
        read(1)
        read(2)
    pure = sorted(a / b for a, b in zip(seconds[::2], seconds[1::2], strict=True))
    return {
        "logs": logs,
        "two_times_one_ingest": f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})",
        "two_times_one_reading": f"{statistics.median(pure):.2f} ({pure[0]:.2f} to {pure[-1]:.2f})",
    }


# ---- large files


def write_large(path: Path, size: int) -> int:
    """A recording of pictures and of small signals; returns the number of messages."""
    context = foxglove.Context()
    options = MCAPWriteOptions(compression=None, profile="ros2")
    writer = foxglove.open_mcap(path, context=context, writer_options=options)

    def topic(name: str, schema: str, text: str) -> foxglove.Channel:
        definition = foxglove.Schema(name=schema, encoding="ros2msg", data=text.encode())
        return foxglove.Channel(name, schema=definition, message_encoding="cdr", context=context)

    camera = topic("/camera/image/compressed", "sensor_msgs/msg/CompressedImage", IMAGE)
    joints = topic("/joints", "pkg/msg/Joints", "float64[7] position")
    noise = np.random.default_rng(0).bytes(PICTURE * 50)
    n = size // (PICTURE + 10 * 100)
    for i in range(n):
        sec, nanosec = divmod(i * 33_000_000, 10**9)
        head = b"\0\1\0\0" + sec.to_bytes(4, "little") + nanosec.to_bytes(4, "little") + b"\1\0\0\0\0\0\0\0"
        head += b"\5\0\0\0jpeg\0\0\0\0" + PICTURE.to_bytes(4, "little")
        at = i * 37 % (PICTURE * 49)
        camera.log(head + b"\xff\xd8\xff\xe0" + noise[at : at + PICTURE - 4], log_time=i * 33_000_000)
        for k in range(10):
            joints.log(b"\0\1\0\0" + bytes(56), log_time=i * 33_000_000 + k)
    writer.close()
    return 11 * n


CHILD = """
import sys, tempfile, time
from pathlib import Path
from flyball.episodes.formats import mcap_log
from flyball.episodes.formats.mcap import McapFile
from flyball.episodes.intake import Intake
path, what, folder = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
begin = time.perf_counter()
if what == "columns":
    n = sum(len(b) for b in McapFile(path).blocks())
else:
    with tempfile.TemporaryDirectory(dir=folder) as room:
        episode, = mcap_log.FORMAT.read(path, Intake(Path(room)))
        n = sum(len(s.t_ns) for s in (*episode.signals.values(), *episode.frames.values()))
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(n, peak / 1000, time.perf_counter() - begin)
"""


def large(root: Path, size: int) -> dict[str, Any]:
    """Peak memory and speed of reading one very large file."""
    path = root / "large.mcap"
    n = write_large(path, size)
    out: dict[str, Any] = {"file_MB": round(path.stat().st_size / 1e6), "messages": n}
    for what in ("columns", "episode"):
        run = [sys.executable, "-c", CHILD, str(path), what, str(root)]
        found, peak, seconds = map(float, subprocess.run(run, check=True, stdout=subprocess.PIPE).stdout.split())
        assert found == n, (what, found, n)
        out[f"{what}_peak_memory_MB"] = round(peak)
        out[f"{what}_file_MB_per_s"] = round(path.stat().st_size / 1e6 / seconds)
    return out


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All figures."""
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        root, out = Path(folder), {}
        for name, case in CASES.items():
            write(root / "case.mcap", *case)
            out[name] = reading(root / "case.mcap", case[0], args.repeats)
            (root / "case.mcap").unlink()
        out["ingest"] = ingesting(root, args.steps, args.width, args.attempts, args.repeats)
        out["two_processes"] = two_processes(root, 8, args.steps, args.width, args.repeats)
        if args.large:
            out["large"] = large(root, args.large_bytes)
        return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=50_000, help="of the long recording, 6 messages each")
    parser.add_argument("--width", type=int, default=8, help="float64 in a message")
    parser.add_argument("--attempts", type=int, default=50, help="short recordings of 250 steps")
    parser.add_argument("--repeats", type=int, default=5, help="of everything that is compared")
    parser.add_argument("--large", action="store_true", help="also a very large file")
    parser.add_argument("--large-bytes", type=int, default=4 << 30, help="its size")
    parser.add_argument("--folder", type=Path, help="where temporary files go")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    out = measure(args)
    if args.json:
        print(json.dumps(out))
        return
    for part, figures in out.items():
        print(part)
        for key, value in figures.items():
            print(f"  {key:44} {value!s:>24}")


if __name__ == "__main__":
    main()
