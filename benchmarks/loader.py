"""How fast windows are made: ``python benchmarks/loader.py [--folder FOLDER] [--lerobot PYTHON] [--json]``.

One process, one core. A dataset of the size of PushT (206 episodes, 26.5 k rows, two cameras of 96 pixels) is planted
and exported, or a folder is given. Measured in rounds that take turns, so that the machine's load falls on all alike:
windows of numbers (state now, 16 actions ahead), and the same with a picture of each camera, at random places. With
``--lerobot`` (the Python of an environment as ``benchmarks/lerobot_oracle.py`` describes) lerobot 0.4.4's own class
reads the same folder in between; its pictures are float32, ours uint8 unless the row says so. Ratios are medians over
the rounds, with the smallest and largest.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

STATE, ACTION = "observation.state", "action"
AHEAD = 16


def plant(folder: Path, episodes: int, rows: int, size: int) -> Path:
    """Export a dataset of random walks with two cameras."""
    from flyball.base import SignalSpec, Timed
    from flyball.base.store import Store
    from flyball.episodes import Episode
    from flyball.episodes.catalogue import Catalogue
    from flyball.episodes.datasets.layout import TableOptions, plan
    from flyball.episodes.datasets.lerobot import export
    from flyball.episodes.datasets.versions import Datasets
    from flyball.episodes.episode import Frames

    (folder / "space").mkdir(parents=True)
    catalogue = Catalogue(Store(folder / "space"))
    rng = np.random.default_rng(0)
    t = np.arange(rows, dtype=np.int64) * 100_000_000
    picture = size * size * 3
    tile = np.kron(rng.integers(0, 255, (size // 8, size // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    for seed in range(episodes):
        signals, frames = {}, {}
        for name, n in (("joint.position", 2), ("command.joint", 2)):
            walk = np.cumsum(rng.normal(size=(rows, n)), axis=0).astype(np.float32)
            signals[name] = Timed(SignalSpec(name, (n,), "float32", unit="rad", rate_hz=10), t, walk)
        for k, name in enumerate(("camera.front", "camera.wrist")):
            moved = np.stack([np.roll(tile, (i + seed, k * i), (0, 1)) for i in range(rows)])
            (blob,) = catalogue.store.keep(moved.tobytes())
            stop = np.arange(1, rows + 1, dtype=np.int64) * picture
            key = np.ones(rows, bool)
            frames[name] = Frames(name, "raw:rgb8", size, size, blob, t, stop - picture, stop, key)
        episode = Episode("bench", task="bench-v1", seed=seed, signals=signals, frames=frames)
        catalogue.add(episode, producer="benchmark")
    datasets = Datasets(catalogue)
    dataset = datasets.load(datasets.build("bench"))
    target = folder / "exported"
    export(catalogue.store, dataset, plan(catalogue.store, dataset, TableOptions()), target)
    return target


def rate(step: Any, batch: int, seconds: float) -> float:
    """Windows per second of a function that makes one batch."""
    step()
    done, begin = 0, time.perf_counter()
    while time.perf_counter() - begin < seconds:
        step()
        done += batch
    return done / (time.perf_counter() - begin)


def batches(loader: Any) -> Any:
    """A function that makes the next batch, epoch after epoch."""

    def endless() -> Any:
        epoch = 0
        while True:
            yield from loader.epoch(epoch)
            epoch += 1

    stream = endless()
    return lambda: next(stream)


def lerobot_worker(folder: Path) -> None:
    """Answer "numbers N" and "pictures N" on stdin with windows per second of lerobot's class, item by item."""
    sys.path.insert(0, str(Path(__file__).parent))
    from lerobot_oracle import open_with_lerobot

    info = json.loads((folder / "meta/info.json").read_text())
    ahead = {ACTION: [k / info["fps"] for k in range(AHEAD)]}
    pictures = open_with_lerobot(folder, delta_timestamps=ahead)
    numbers = open_with_lerobot(folder, delta_timestamps=ahead)
    numbers.meta.info["features"] = {k: v for k, v in info["features"].items() if v["dtype"] != "video"}
    rng = np.random.default_rng(0)
    print("ready", flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        ds = numbers if kind == "numbers" else pictures
        which = rng.integers(0, len(ds), int(count)).tolist()
        begin = time.perf_counter()
        for i in which:
            ds[i]
        print(int(count) / (time.perf_counter() - begin), flush=True)


def measure(folder: Path, rounds: int, seconds: float, batch: int, lerobot: str) -> dict[str, Any]:
    """Windows per second of each kind, round by round."""
    from flyball.episodes.datasets.loader import Loader
    from flyball.episodes.datasets.sources import folder_source

    source = folder_source(folder)
    numbers = {STATE: (0,), ACTION: range(AHEAD)}
    cameras = {key: (0,) for key in source.cameras}
    rows: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as cache:
        begin = time.perf_counter()
        low = Loader([source], numbers, batch=4096)
        made = time.perf_counter() - begin
        steps = {"numbers": (batches(low), 4096)}
        if cameras:
            begin = time.perf_counter()
            both = Loader([source], {**numbers, **cameras}, batch=batch, cache=Path(cache))
            decoding = time.perf_counter() - begin
            steps["pictures"] = (batches(both), batch)
            room = {key: np.empty((batch, 1, 3, *source.cameras[key]), np.float32) for key in cameras}
            stream = batches(both)

            def as_float() -> None:
                found = stream()
                for key, out in room.items():
                    n = len(found[key])
                    np.multiply(found[key].transpose(0, 1, 4, 2, 3), np.float32(1 / 255), out=out[:n], dtype=np.float32)

            steps["pictures as float32, channels first"] = (as_float, batch)
        worker = None
        if lerobot:
            argv = [lerobot, __file__, "--worker", str(folder)]
            worker = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )
            while (line := worker.stdout.readline()) and line.strip() != "ready":
                pass
        for _ in range(rounds):
            for name, (step, size) in steps.items():
                rows.setdefault(name, []).append(rate(step, size, seconds))
            for kind in ("numbers", "pictures") if worker else ():
                worker.stdin.write(f"{kind} {int(150 * seconds)}\n")
                worker.stdin.flush()
                rows.setdefault(f"lerobot {kind}", []).append(float(worker.stdout.readline()))
        if worker:
            worker.stdin.close()
            worker.wait()
    out: dict[str, Any] = {"windows": low.count, "batch": batch, "opened_s": round(made, 3)}
    if cameras:
        out["decoded_once_s"] = round(decoding, 2)
    for name, found in rows.items():
        out[name] = {"median": statistics.median(found), "min": min(found), "max": max(found)}
    for name in ("numbers", "pictures", "pictures as float32, channels first"):
        base = rows.get("lerobot numbers" if name == "numbers" else "lerobot pictures")
        if name in rows and base:
            ratios = [a / b for a, b in zip(rows[name], base, strict=True)]
            out[f"{name}: times lerobot"] = {
                "median": statistics.median(ratios),
                "min": min(ratios),
                "max": max(ratios),
            }
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, help="a LeRobotDataset; none: one is planted")
    parser.add_argument("--episodes", type=int, default=206)
    parser.add_argument("--rows", type=int, default=129, help="of an episode")
    parser.add_argument("--size", type=int, default=96, help="of a picture [pixels]")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each kind in each round")
    parser.add_argument("--lerobot", default="", metavar="PYTHON", help="of an environment with lerobot 0.4.4")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.worker:
        lerobot_worker(args.worker)
        return
    with tempfile.TemporaryDirectory() as made:
        folder = args.folder or plant(Path(made), args.episodes, args.rows, args.size)
        out = measure(folder.absolute(), args.rounds, args.seconds, args.batch, args.lerobot)
    if args.json:
        print(json.dumps(out))
        return
    for name, value in out.items():
        if isinstance(value, dict):
            print(f"{name:52} {value['median']:12,.0f}   ({value['min']:,.0f} to {value['max']:,.0f})")
        else:
            print(f"{name:52} {value!s:>12}")


if __name__ == "__main__":
    main()
