"""How fast worlds are stepped, as ratios taken in one run.

    python benchmarks/engines.py [--blocks 12] [--seconds 0.5] [--envpool PYTHON] [--json FILE]

- ``Simulation`` against bare ``mujoco.batch.Batch``: the lift scene, 10 substeps a call, at 1, 64 and 4,096 worlds, one
  thread, without reads and with the reads of the task; two threads against one.
- ``TaskVectorEnv`` against ``gymnasium.vector.AsyncVectorEnv`` of the same task, 8 worlds; CPU time of the children
  counts.
- With ``--envpool`` (a Python that has envpool): Ant-v4 without contact forces, 64 worlds, one thread, stepped through
  ``Simulation`` with observation, reward, termination and reset as envpool's, against envpool and against a plain loop
  over ``mj_step``.
- Memory per world.

Both sides of a ratio are timed in blocks that alternate, each block as long as ``--seconds``; what is printed is the
median of the blocks' ratios with its quartiles. CPU seconds where one thread works, so that a busy machine does little
harm; wall time for threads, which need an idle machine.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.vector import AsyncVectorEnv
from mujoco.batch import Batch

from flyball.engines import engines
from flyball.scenes import Scene
from flyball.tasks import tasks
from flyball.tasks.gymnasium import TaskEnv, TaskVectorEnv

SUBSTEPS = 10
TASK = "lift-fragile-v1"
ANT = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets" / "ant.xml"
ENVPOOL = """
import sys, time, numpy as np, envpool
n = int(sys.argv[1])
env = envpool.make("Ant-v4", env_type="gymnasium", num_envs=n, num_threads=1)
env.reset()
rng = np.random.default_rng(0)
for line in sys.stdin:
    calls = int(line)
    actions = rng.uniform(-1, 1, (calls, n, 8))
    start = time.process_time()
    for a in actions:
        env.step(a)
    print(time.process_time() - start, flush=True)
"""


def blocks(
    one: Callable[[int], float], other: Callable[[int], float], seconds: float, count: int
) -> tuple[list[float], float]:
    """Ratios other/one of seconds per call, block by block, and the seconds per call of ``one``.

    Args:
      one, other: do so many calls, and say how many seconds they took.
    """
    sizes = []
    for side in (one, other):
        side(2)
        calls = 2
        while (took := side(calls)) < seconds / 4:
            calls *= 2
        sizes.append(max(1, round(calls * seconds / took)))
    ratios, own = [], []
    for k in range(count):
        order = ((one, 0), (other, 1)) if k % 2 else ((other, 1), (one, 0))
        each = {i: side(sizes[i]) / sizes[i] for side, i in order}
        ratios.append(each[1] / each[0])
        own.append(each[0])
    return ratios, float(np.median(own))


def timed(call: Callable[[], Any], clock: Callable[[], float] = time.process_time) -> Callable[[int], float]:
    def run(calls: int) -> float:
        start = clock()
        for _ in range(calls):
            call()
        return clock() - start

    return run


def against_batch(a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    task = tasks.load(TASK)
    rest = task.control(task.rest_action(task.scene.nominal(1)))
    reads = dict(task.reads)
    for n in (1, 64, 4096):
        sim = engines.load("mujoco")().open(task.scene, n, threads=1)
        bare = Batch(mujoco.MjModel.from_xml_string(task.scene.model), n, 1, True)
        control = np.tile(rest[:, None], (n, SUBSTEPS, 1))

        def plain(bare: Batch = bare, n: int = n) -> None:
            bare.bind("ctrl")[:] = rest
            bare.step(None, SUBSTEPS)

        for what, wanted in (("", {}), (" with the task's reads", reads)):
            step = timed(lambda s=sim, c=control, w=wanted: s.step(c, w))
            ratios, own = blocks(step, timed(plain), a.seconds, a.blocks)
            yield row(f"Simulation over bare Batch, {n} worlds{what}", ratios, f"{n * SUBSTEPS / own:,.0f} steps/CPU s")


def threads(a: argparse.Namespace) -> Iterator[dict[str, Any]]:
    task = tasks.load(TASK)
    rest = task.control(task.rest_action(task.scene.nominal(1)))
    for n in (64, 4096):
        control = np.tile(rest[:, None], (n, SUBSTEPS, 1))
        sims = [engines.load("mujoco")().open(task.scene, n, threads=k) for k in (2, 1)]
        two, one = (timed(lambda s=s, c=control: s.step(c), time.perf_counter) for s in sims)
        ratios, own = blocks(two, one, a.seconds, a.blocks)
        yield row(f"two threads over one, {n} worlds (wall)", ratios, f"{n * SUBSTEPS / own:,.0f} steps/s")


def against_processes(a: argparse.Namespace, n: int = 8) -> Iterator[dict[str, Any]]:
    task = tasks.load(TASK)
    own = TaskVectorEnv(task, n, threads=1)
    processes = AsyncVectorEnv([lambda: TaskEnv(TASK)] * n)
    action = np.tile(task.rest_action(task.scene.nominal(1)), (n, 1))
    children = [p.pid for p in processes.processes]

    def clock() -> float:
        ticks = 0
        for pid in children:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            ticks += int(fields[11]) + int(fields[12])
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")

    try:
        own.reset(seed=0)
        processes.reset(seed=0)
        long = max(a.seconds, 2.0)  # children's CPU time is counted in ticks of 10 ms
        ratios, each = blocks(timed(lambda: own.step(action)), timed(lambda: processes.step(action), clock), long,
                              max(3, a.blocks // 3))  # fmt: skip
    finally:
        processes.close()
    yield row(f"TaskVectorEnv over AsyncVectorEnv, {n} worlds (CPU)", ratios, f"{n / each:,.0f} periods/CPU s")


class Ant:
    """Ant-v4 without contact forces, as Gymnasium documents it: 5 substeps, healthy reward, reset when unhealthy."""

    def __init__(self, n: int) -> None:
        model = ANT.read_text()
        self.sim = engines.load("mujoco")().open(Scene("ant", model, ()), n, threads=1)
        self.model = mujoco.MjModel.from_xml_string(model)
        self.n, self.rng = n, np.random.default_rng(0)
        self.joints = [self.model.joint(i).name for i in range(self.model.njnt)]
        self.reads = {f"joint:{j}.{what}": "last" for what in ("position", "velocity") for j in self.joints}
        self.reset(np.arange(n))
        self.x = self.sim.read([f"joint:{self.joints[0]}.position"])[f"joint:{self.joints[0]}.position"][:, 0]

    def reset(self, worlds: np.ndarray) -> None:
        self.sim.reset(worlds)
        k = len(worlds)
        for i, j in enumerate(self.joints):
            start = self.model.qpos0[self.model.jnt_qposadr[i] :][: 7 if i == 0 else 1]
            self.sim.place(j, start + self.rng.uniform(-0.1, 0.1, (k, len(start))), worlds)
            self.sim.push(j, 0.1 * self.rng.standard_normal((k, 6 if i == 0 else 1)), worlds)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        out = self.sim.step(np.repeat(action[:, None], 5, axis=1), self.reads)
        q = np.concatenate([out[f"joint:{j}.position"] for j in self.joints], axis=1)
        v = np.concatenate([out[f"joint:{j}.velocity"] for j in self.joints], axis=1)
        healthy = np.isfinite(q).all(axis=1) & np.isfinite(v).all(axis=1) & (q[:, 2] >= 0.2) & (q[:, 2] <= 1.0)
        reward = (q[:, 0] - self.x) / 0.05 + healthy - 0.5 * (action**2).sum(axis=1)
        self.x = q[:, 0]
        if not healthy.all():
            self.reset(np.flatnonzero(~healthy))
        return np.concatenate([q[:, 2:], v], axis=1), reward, ~healthy


def against_envpool(a: argparse.Namespace, n: int = 64) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    ant = Ant(n)
    plan = rng.uniform(-1, 1, (64, n, 8))
    turns = itertools.count()
    own = timed(lambda: ant.step(plan[next(turns) % 64]))
    data = mujoco.MjData(ant.model)

    def loop(calls: int) -> float:
        start = time.process_time()
        for _ in range(calls):
            for i in range(n):
                data.ctrl[:] = plan[i % 64, i]
                mujoco.mj_step(ant.model, data, 5)
            if not 0.2 <= data.qpos[2] <= 1.0:
                mujoco.mj_resetData(ant.model, data)
        return time.process_time() - start

    other = subprocess.Popen(
        [a.envpool, "-c", ENVPOOL, str(n)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )

    def pool(calls: int) -> float:
        assert other.stdin and other.stdout
        other.stdin.write(f"{calls}\n")
        other.stdin.flush()
        return float(other.stdout.readline())

    try:
        ratios, each = blocks(own, pool, a.seconds, a.blocks)
    finally:
        other.communicate()
    yield row(f"Simulation over envpool, Ant-v4, {n} worlds", ratios, f"{n / each:,.0f} env steps/CPU s")
    ratios, _ = blocks(own, loop, a.seconds, a.blocks)
    yield row(f"Simulation over a loop of mj_step, Ant-v4, {n} worlds", ratios, "")


def memory(n: int = 4096) -> Iterator[dict[str, Any]]:
    code = (
        "from pathlib import Path; from flyball.engines import engines; from flyball.tasks import tasks;"
        f"t = tasks.load({TASK!r}); e = engines.load('mujoco')(); e.open(t.scene, 1, threads=1);"
        "r = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4; a = r();"
        f"s = e.open(t.scene, {n}, threads=1); s.reset(); c = t.control(t.rest_action(t.scene.nominal(1)));"
        f"s.step(c.reshape(1, 1, -1).repeat({n}, 0).repeat(10, 1), dict(t.reads)); print((r() - a) / {n})"
    )
    kib = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
    yield {"what": f"memory per world, {n} worlds", "median": None, "low": None, "high": None, "note": f"{kib:.0f} KiB"}


def row(what: str, ratios: list[float], note: str) -> dict[str, Any]:
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return {"what": what, "median": float(median), "low": float(low), "high": float(high), "note": note}


def main() -> None:
    parser = argparse.ArgumentParser(description="How fast worlds are stepped.")
    parser.add_argument("--blocks", type=int, default=12, metavar="N", help="pairs of blocks per ratio")
    parser.add_argument("--seconds", type=float, default=0.5, metavar="S", help="length of a block")
    parser.add_argument("--envpool", metavar="PYTHON", help="a Python that has envpool")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows there")
    a = parser.parse_args()
    print(f"mujoco {mujoco.__version__}; ratio of speeds, median [quartiles] of {a.blocks} blocks of {a.seconds:g} s")
    rows = []
    # processes first: 4,096 worlds of a bare batch reserve 59 GB of address space, and Linux will not fork that
    parts = [against_processes(a), against_batch(a), threads(a)]
    parts += [against_envpool(a)] if a.envpool else []
    for part in [*parts, memory()]:
        for r in part:
            rows.append(r)
            ratio = "" if r["median"] is None else f"{r['median']:.2f} [{r['low']:.2f}, {r['high']:.2f}]"
            print(f"{r['what']:<64}{ratio:<22}{r['note']}", flush=True)
    if a.json:
        a.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
