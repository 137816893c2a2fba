"""Runs tiny.py, kills processes of it with SIGKILL, and gives the same command again until it is done.

Usage: kills.py WORKSPACE OUT PLAN [more arguments of tiny.py]. PLAN is either ``STAGE.N:VICTIM,...``: kill VICTIM
(loop, hub, agent, worker) some moments after the N-th time STAGE begins, counted from 0 over all turns; or
``random.N.SEED``: N kills of anything at any moment, for example

    python tests/loop/kills.py /tmp/w /tmp/w.json random.50.1

Prints one JSON document: kills {victim: n}, runs, exit code of the last. Every process is killed by its id.
"""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

TINY = Path(__file__).with_name("tiny.py")


def children(pid: int) -> dict[str, list[int]]:
    """Processes below the loop, by what they are."""
    out: dict[str, list[int]] = {"loop": [pid], "hub": [], "agent": [], "worker": []}
    try:
        text = "".join(t.read_text() for t in Path(f"/proc/{pid}/task").glob("*/children"))
        for child in map(int, text.split()):
            line = Path(f"/proc/{child}/cmdline").read_bytes().decode(errors="replace")
            for kind, mark in (("hub", "fleet.hub"), ("agent", "fleet.agent"), ("worker", "spawn_main")):
                if mark in line:
                    out[kind].append(child)
    except (FileNotFoundError, ProcessLookupError):
        pass  # it ended meanwhile
    return out


def kill(process: subprocess.Popen, victim: str, rng: random.Random) -> bool:
    """Kill one process of that kind, if there is one."""
    found = children(process.pid)[victim]
    if not found or process.poll() is not None:
        return False
    try:
        os.kill(rng.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    if victim == "loop":
        process.wait()
    return True


def main() -> int:
    plan, rng, kills = sys.argv[3], random.Random(0), Counter()
    at: dict[tuple[str, int], str] = {}
    left = 0
    if plan.startswith("random."):
        _, n, seed = plan.split(".")
        left, rng = int(n), random.Random(int(seed))
    else:
        for item in plan.split(","):
            where, victim = item.split(":")
            stage, n = where.split(".")
            at[stage, int(n)] = victim
    begun: Counter[str] = Counter()
    runs = 0
    while True:
        runs += 1
        process = subprocess.Popen(
            [sys.executable, str(TINY), sys.argv[1], sys.argv[2], *sys.argv[4:]], stderr=subprocess.PIPE, text=True
        )
        lines: queue.Queue[str] = queue.Queue()
        reader = threading.Thread(target=lambda p=process, q=lines: [q.put(x) for x in p.stderr], daemon=True)
        reader.start()
        while process.poll() is None:
            try:
                line = lines.get(timeout=rng.uniform(0.1, 3.0) if left else 0.2).strip()
            except queue.Empty:
                if left:
                    victim = rng.choice(["loop", "loop", "hub", "agent", "worker"])
                    done = kill(process, victim, rng)
                    kills[victim], left = kills[victim] + done, left - done
                continue
            print(f"run {runs}: {line}", file=sys.stderr, flush=True)
            if line.startswith("stage "):
                stage = line.removeprefix("stage ")
                victim = at.pop((stage, begun[stage]), "")
                begun[stage] += 1
                if victim:
                    time.sleep(rng.uniform(0.0, 0.6))
                    kills[victim] += kill(process, victim, rng)
        reader.join(2)
        while not lines.empty():
            print(f"run {runs}: {lines.get().strip()}", file=sys.stderr, flush=True)
        if process.returncode != -signal.SIGKILL:
            break
    print(json.dumps({"kills": dict(kills), "left": sorted(at.values()), "runs": runs, "exit": process.returncode}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
