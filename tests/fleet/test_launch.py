"""A whole fleet of processes on this machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flyball.base import InputError, NotPossible
from flyball.base.workspace import Workspace
from flyball.fleet.launch import Fleet, RobotSpec
from flyball.fleet.orders import Order, read_status, write_order
from flyball.fleet.testing import fake_release
from flyball.releases.signing import Repository

ROBOTS = [RobotSpec(f"robot-{i:02}", "fake") for i in range(3)]


def wait_for(what, fleet=None, timeout_s=60.0):
    until = time.monotonic() + timeout_s
    while not (found := what()):
        assert time.monotonic() < until, "nothing came"
        if fleet:
            fleet.tend()
        time.sleep(0.02)
    return found


def listening(pid):
    """(address in hex) of every listening TCP socket of a process, version 4 and 6."""
    inodes = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    out = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):
                out.append(fields[1].split(":")[0])
    return out


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_processes_are_killed_and_the_order_is_done_all_the_same(tmp_path):
    workspace = Workspace(tmp_path / "w").path
    with Fleet(workspace, ROBOTS, poll_s=0.02) as fleet:
        Repository(workspace).publish(*fake_release())
        for spec in ROBOTS:
            write_order(workspace, spec.name, Order("o-1", "turn-000", attempts=30, steps=20))

        wait_for(lambda: len(read_status(workspace)) == 3, fleet)
        pids = fleet.pids()
        assert set(pids) == {"", *(s.name for s in ROBOTS)}
        assert listening(pids[""]) == ["0100007F"], "the hub listens on 127.0.0.1 and nowhere else"
        assert not any(listening(pid) for name, pid in pids.items() if name), "an agent listens nowhere"
        for name, pid in pids.items():
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda name=name, pid=pid: fleet.pids().get(name, pid) != pid, fleet)
        assert fleet.url == f"http://127.0.0.1:{fleet.url.rsplit(':', 1)[1]}"

        def done():
            found = read_status(workspace)
            return all(s["acknowledged"] == 30 for s in found.values())

        wait_for(done, fleet)
        names = [p.name for p in (workspace / "inbox").iterdir()]
        assert len(names) == len(set(names)) == 90
        pids = fleet.pids()
    assert not any(alive(pid) for pid in pids.values())


def test_everything_ends_with_a_parent_that_is_killed(tmp_path):
    workspace = Workspace(tmp_path / "w").path
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom flyball.fleet.launch import Fleet, RobotSpec\n"
        "fleet = Fleet(Path(sys.argv[1]), [RobotSpec('robot-01', 'fake')])\nfleet.start()\n"
        "print(*fleet.pids().values(), flush=True)\ntime.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(workspace)], stdout=subprocess.PIPE, text=True)
    pids = [int(x) for x in parent.stdout.readline().split()]
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    wait_for(lambda: read_status(workspace))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not any(alive(pid) for pid in pids))
    with Fleet(workspace, ROBOTS[:1]) as fleet:  # the same again, at once
        assert len(fleet.pids()) == 2


def test_a_hub_that_cannot_start_says_why(tmp_path):
    (tmp_path / "w" / "hub.json").mkdir(parents=True)
    (tmp_path / "w" / "flyball.toml").write_text("")
    fleet = Fleet(tmp_path / "w", [])
    with pytest.raises(NotPossible, match="the hub does not start: .*hub"):
        fleet.start()
    assert fleet.pids() == {}
    with pytest.raises(InputError, match="not a Flyball workspace"):
        Fleet(tmp_path, []).start()


def test_a_process_that_dies_at_once_is_started_less_and_less_often(tmp_path):
    workspace = Workspace(tmp_path / "w").path
    with Fleet(workspace, [RobotSpec("robot-01", "fake", {"speed": 3})]) as fleet:
        started = []
        until = time.monotonic() + 3.0
        while time.monotonic() < until and len(started) < 10:
            started += [time.monotonic()] * ("robot-01" in fleet.tend())
            time.sleep(0.01)
        assert 1 <= len(started) <= 4
    log = (workspace / "robots" / "robot-01" / "agent.log").read_text()
    assert "no key named 'speed'" in log
