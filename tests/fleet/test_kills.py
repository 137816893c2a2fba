"""kill -9 of hub and agent, again and again: nothing acknowledged is lost or doubled.

Processes are forked and kill themselves (SIGKILL) at a numbered fsync or rename, so each run meets the same moments.
"""

import hashlib
import itertools
import os
import random
import secrets
import signal
import sys
import time
import traceback

import pytest

from flyball.base.durable import Ledger
from flyball.base.workspace import Workspace
from flyball.episodes.formats import read_one
from flyball.fleet.agent import Agent, open_recorder
from flyball.fleet.hub import hub_url, serve
from flyball.fleet.orders import Order, read_status, write_order
from flyball.fleet.testing import fake_release
from flyball.fleet.updater import enrol
from flyball.releases.signing import Repository
from flyball.robots.testing import FakeRobot

ATTEMPTS = 30


def forked(work, kill_at=0):
    """Run work in a child that dies at its ``kill_at``-th fsync or rename, before or after doing it (0: never)."""
    pid = os.fork()
    if pid:
        return pid
    try:
        count = itertools.count(1)

        def deadly(real):
            def call(*args, **more):
                n = next(count)
                if n == kill_at and kill_at % 2:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = real(*args, **more)
                if n == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call

        if kill_at:
            os.fsync, os.replace = deadly(os.fsync), deadly(os.replace)
        work()
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        os._exit(1)


def distinct(path, embodiment, metadata):
    """A recorder whose logs all differ, so that an attempt that is made and sent twice would show as two."""
    labels = {**metadata["labels"], "nonce": secrets.token_hex(8)}
    return open_recorder(path, embodiment, {**metadata, "labels": labels})


@pytest.mark.parametrize("seed", range(2))
def test_every_acknowledged_log_exists_exactly_once(tmp_path, seed):
    rng = random.Random(seed)
    workspace = Workspace(tmp_path / "workspace").path
    repository = Repository(workspace)
    for i in range(3):
        repository.publish(*fake_release(f"turn-00{i}"))
    home = tmp_path / "robot-01"
    enrol(repository.root(), home)
    work = {
        "hub": lambda: serve(workspace, port),
        "agent": lambda: Agent("robot-01", url, home, FakeRobot(), record=distinct).run(0.002),
    }
    port = 0
    children = {"hub": forked(work["hub"])}
    until = time.monotonic() + 120
    while not (url := hub_url(workspace)):
        assert time.monotonic() < until
        time.sleep(0.005)
    port = int(url.rsplit(":", 1)[1])
    children["agent"] = forked(work["agent"], 5)

    ingested, releases, kills = {}, set(), 0
    for turn in range(3):
        order = Order(f"o-{turn}", f"turn-00{turn}", attempts=ATTEMPTS, steps=3, seed0=100 * turn, turn=turn)
        write_order(workspace, "robot-01", order)
        while True:
            assert time.monotonic() < until, read_status(workspace)
            for path in (workspace / "inbox").iterdir():  # ingest takes every log out of the inbox
                blob = path.read_bytes()
                robot, digest, _ = path.name.split(".")
                assert hashlib.sha256(blob).hexdigest() == digest and robot == "robot-01", "never half a log"
                ingested[digest] = read_one(path).labels
                path.unlink()
            for name, pid in children.items():
                if os.waitpid(pid, os.WNOHANG)[0]:
                    kills += 1
                    children[name] = forked(work[name], rng.randrange(1, 50))
            now = read_status(workspace).get("robot-01", {})
            if now.get("order") == order.id and now["acknowledged"] == ATTEMPTS:
                releases.add(now["release"])
                break
            time.sleep(0.002)
    for pid in children.values():
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for path in (workspace / "inbox").iterdir():
        ingested[path.name.split(".")[1]] = read_one(path).labels

    rows = Ledger(home / "acknowledged.jsonl").rows
    attempts = [(f"o-{turn}", i) for turn in range(3) for i in range(ATTEMPTS)]
    assert sorted((r["order"], r["index"]) for r in rows) == attempts, "each attempt is acknowledged once"
    assert {r["sha256"] for r in rows} == set(ingested), "what was acknowledged is there, and nothing else"
    assert sorted((x["order"], x["index"]) for x in ingested.values()) == attempts, "each attempt is there once"
    assert not list((home / "spool").iterdir()) and not list((workspace / "fleet" / "incoming").iterdir())
    assert releases == {"turn-000", "turn-001", "turn-002"}, "and the updates went through"
    assert kills >= 25, f"only {kills} kills"
