"""Newton's solvers and MuJoCo Warp: laws of mechanics, cost of compiling, speed against MuJoCo. Prints tables.

    python benchmarks/newton_solvers.py                       # everything on this machine's device; minutes on a CPU
    python benchmarks/newton_solvers.py newton-steel --laws   # one engine's report card

Speed is in world steps a second of CPU time (of wall time on a GPU), as a ratio to MuJoCo's on one thread in the same
run, on scenes that the solver takes. Compiling is measured in a process of its own with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np

from flyball.base import Unsupported
from flyball.engines import engines
from flyball.engines.card import examine
from flyball.engines.engine import Simulation
from flyball.scenes import Scene
from flyball.scenes.deformable import Cloth, Granular, Soft

ENGINES = ("mujoco-warp", "newton-featherstone", "newton-steel", "newton-xpbd", "newton-semi-implicit", "newton-vbd",
           "newton-mpm")  # fmt: skip
_FLOOR = '<geom name="floor" type="plane" size="2 2 1"/>'
_BOX = '<body pos="{0} 0 .05"><freejoint/><geom type="box" size=".05 .05 .05" mass=".4"/></body>'
_LINK = ('<body pos="{0} 0 0"><joint type="hinge" axis="0 1 0" damping=".2"/><geom type="capsule" size=".02" mass=".4" '
         'fromto="0 0 0 .2 0 0" contype="0" conaffinity="0"/>')  # fmt: skip


def _scene(body: str, step: float = 0.002, **more: object) -> Scene:
    return Scene("bench", f'<mujoco><option timestep="{step}"/><worldbody>{body}</worldbody></mujoco>', (), **more)  # type: ignore[arg-type]


SCENES = {
    "six joints": _scene(_LINK.format(0).replace('pos="0 0 0"', 'pos="0 0 2"')
                         + "".join(_LINK.format(0.2) for _ in range(5)) + "</body>" * 6),
    "three boxes": _scene(_FLOOR + "".join(_BOX.format(0.2 * k) for k in range(3))),
    "cloth, 169 points": _scene("", 0.005, deformables=(Cloth("c", position=(0, 0, 1), cells=(12, 12), pinned="top"),)),
    "soft, 125 points": _scene("", 0.0005, deformables=(Soft("s", cells=(4, 4, 4), pinned="bottom"),)),
    "grains, 512": _scene(_FLOOR, 0.005, deformables=(Granular("g", size=(0.16, 0.16, 0.16), spacing=0.02),)),
}  # fmt: skip


def speed(sim: Simulation, steps: int, clock: Callable[[], float]) -> float:
    """World steps a second, the better of two runs."""
    controls = np.zeros((sim.n, steps, 0))
    best = 0.0
    for _ in range(2):
        begun = clock()
        sim.step(controls)
        best = max(best, sim.n * steps / max(clock() - begun, 1e-9))
    return best


def speeds(name: str, steps: int, device: str) -> list[tuple[str, int, float, float]]:
    """(scene, worlds, steps a second, ratio to MuJoCo or NaN) for every scene that the engine takes."""
    clock = time.process_time if device == "cpu" else time.perf_counter
    out = []
    for label, scene in SCENES.items():
        for n in (1, 64) if not scene.deformables else (1,):
            try:
                sim = engines.load(name)().open(scene, n, threads=1, options={"device": device})
            except Unsupported:
                break
            count = steps if not scene.deformables else max(steps // 10, 2)
            sim.step(np.zeros((n, 3, 0)))  # compiled, recorded
            own, other = speed(sim, count, clock), float("nan")
            if not scene.deformables:
                other = speed(engines.load("mujoco")().open(scene, n, threads=1), steps, time.process_time)
            out.append((label, n, own, own / other))
    return out


def compile_cost(name: str) -> float:
    """CPU seconds until the first steps of the first scene that the engine takes are done, with an empty cache."""
    with tempfile.TemporaryDirectory() as cache:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", __file__, name, "--first-step"], capture_output=True, text=True,
            env={**os.environ, "WARP_CACHE_PATH": cache}, check=True,
        )  # fmt: skip
    return float(done.stdout.splitlines()[-1])


def first_step(name: str) -> float:
    """See ``compile_cost``; in this process."""
    for scene in SCENES.values():
        try:
            engines.load(name)().open(scene, 1).step(np.zeros((1, 3, 0)))
        except Unsupported:
            continue
        return time.process_time()
    raise SystemExit(f"{name} takes no scene")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="ENGINE", default=ENGINES)
    parser.add_argument("--steps", type=int, default=500, help="steps of a measurement")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--laws", action="store_true", help="only the laws")
    parser.add_argument("--speed", action="store_true", help="only speed and compiling")
    parser.add_argument("--first-step", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.first_step:
        print(first_step(args.names[0]))
        return
    if not args.laws:
        print("| engine | scene | worlds | world steps/s | of MuJoCo on one thread |\n|---|---|---|---|---|")
        for name in args.names:
            for label, n, own, ratio in speeds(name, args.steps, args.device):
                print(
                    f"| {name} | {label} | {n} | {own:,.0f} | {'-' if ratio != ratio else f'{ratio:.2f}'} |", flush=True
                )
        print("\n| engine | compiling, CPU s |\n|---|---|")
        for name in args.names:
            print(f"| {name} | {compile_cost(name):.0f} |", flush=True)
    if not args.speed:
        print("\n| engine | passed | unsupported | failed |\n|---|---|---|---|")
        for name in args.names:
            marks = examine(engines.load(name)()).marks
            count = {k: sum(m.result == k for m in marks) for k in ("passed", "unsupported")}
            failed = "; ".join(f"{m.law}: {m.note}" for m in marks if m.result == "failed") or "none"
            print(f"| {name} | {count['passed']} | {count['unsupported']} | {failed} |", flush=True)


if __name__ == "__main__":
    main()
