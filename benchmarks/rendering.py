"""Frames per second of every way to draw: ``python benchmarks/rendering.py [--seconds S] [--worlds N] [--json FILE]``.

One scene (``lift-fragile-v1`` at its start, the boxes scattered), one camera, all in one run: backend, preset, size,
kind. A frame is one picture of one world, kinematics included. CPU-seconds count every thread of the process: Mesa and
the ray tracer may use several. Compiling, contexts and a first picture come before the clock. Each backend has a
process of its own; those that do not work here are named with the reason.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from flyball.engines.rendering import Renderer
from flyball.engines.rendering.backends import ORDER, tried
from flyball.tasks.task import tasks

SIZES = ((128, 128), (640, 480))
KINDS = (("rgb",), ("depth",), ("segmentation",), ("normals",), ("flow",), ("rgb", "depth"))
TASK = "lift-fragile-v1"


def measure(
    renderer: Renderer, positions: np.ndarray, size: tuple[int, int], kinds: tuple[str, ...], seconds: float
) -> dict[str, float]:
    """Frames per CPU-second and per second."""
    camera = renderer.overview(positions, *size)
    after = {"after": positions[::-1]} if "flow" in kinds else {}
    renderer.render(positions, camera, kinds, **after)  # type: ignore[arg-type]
    frames, cpu, wall = 0, time.process_time(), time.perf_counter()
    while frames == 0 or time.perf_counter() - wall < seconds:
        renderer.render(positions, camera, kinds, **after)  # type: ignore[arg-type]
        frames += len(positions)
    return {"per_cpu_s": frames / (time.process_time() - cpu), "per_s": frames / (time.perf_counter() - wall)}


def table(name: str, presets: Sequence[str], worlds: int, seconds: float) -> list[dict[str, Any]]:
    """All rows of one backend; labels do not depend on the preset and are measured once."""
    task = tasks.load(TASK)
    start = task.starts(task.scene.nominal(worlds), [np.random.default_rng(i) for i in range(worlds)])
    rows: list[dict[str, Any]] = []
    for k, preset in enumerate(presets):
        with Renderer(task.scene, backend=name, preset=preset) as renderer:
            positions = np.concatenate([renderer.start({j: x[i] for j, x in start.items()}) for i in range(worlds)])
            for size, kinds in itertools.product(SIZES, KINDS):
                if (name == "rays" and "rgb" in kinds) or (k > 0 and "rgb" not in kinds):
                    continue
                row = {"backend": name, "preset": preset, "size": "{}x{}".format(*size), "kind": "+".join(kinds)}
                row |= measure(renderer, positions, size, kinds, seconds)
                rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=2.0, help="least time per row (%(default)s)")
    parser.add_argument("--worlds", type=int, default=16, help="worlds per call (%(default)s)")
    parser.add_argument("--presets", nargs="*", default=["fast", "quality"])
    parser.add_argument("--backends", nargs="*", default=list(ORDER))
    parser.add_argument("--json", type=Path, help="write all rows here")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(table(args.backends[0], args.presets, args.worlds, args.seconds)))
        return
    print(f"$ python {' '.join(sys.argv)}")
    load = os.getloadavg()[0]
    print(f"{platform.machine()}, {os.cpu_count()} CPUs, load {load:.1f}; mujoco {mujoco.__version__}", flush=True)
    rows: list[dict[str, Any]] = []
    for found in map(tried, args.backends):
        print(f"{found.name}: {found.what if found.works else 'does not work here: ' + found.what}", flush=True)
        if found.works:  # a process can draw with one kind of OpenGL only
            child = [sys.executable, __file__, "--child", "--backends", found.name, "--presets", *args.presets]
            child += ["--worlds", str(args.worlds), "--seconds", str(args.seconds)]
            done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
            found_rows = json.loads(done.stdout.splitlines()[-1])
            for r in found_rows:
                head = f"  {r['backend']:<7}{r['preset']:<9}{r['size']:<9}{r['kind']:<13}"
                print(f"{head}{r['per_cpu_s']:8.1f} /CPU-s {r['per_s']:8.1f} /s", flush=True)
            rows += found_rows
    if args.json:
        args.json.write_text(json.dumps({"load": load, "worlds": args.worlds, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
