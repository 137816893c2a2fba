"""Two runs that the tests of this folder look at, each made once, whichever worker asks first."""

import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PLAN = (
    "demonstrate.0:loop,train.0:worker,robots.0:agent,gap.0:hub,calibrate.0:loop,evaluate.0:loop,"
    "rollout.0:hub,rollout.1:loop,robots.2:agent,calibrate.2:worker"
)
"""Where the killed run is killed: stage.occurrence:victim, occurrences counted over all its processes."""


@dataclass
class Run:
    """A run that ended: its workspace, its document, what it said, and what kills.py reports."""

    workspace: Path
    document: dict
    notes: list
    report: dict


GARBLED = {"cut.mcap": b"\x89MCAP0\r\n" + b"\x01" * 600, "noise.mcap": bytes(range(256)) * 40, "empty.mcap": b""}
"""What may fall into an inbox, none of it a log."""


def once(factory, name, make):
    """The run of that name; made by ``make(workspace, out) -> (notes, report)``, shared between test workers."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"loop-{name}"
    workspace, out, kept = folder / "w", folder / "out.json", folder / "run.json"
    with open(folder.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            kept.write_text(json.dumps(make(workspace, out)))
    return Run(workspace, json.loads(out.read_text()), *json.loads(kept.read_text()))


def run_undisturbed(workspace, out):
    command = [sys.executable, str(HERE / "tiny.py"), str(workspace), str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    lines = []

    def read():
        for line in process.stderr:
            lines.append(line.strip())
            if line.strip() == "stage robots":
                for name, blob in GARBLED.items():
                    path = workspace / "inbox" / f"{lines.count('stage robots')}-{name}"
                    path.with_suffix(".part").write_bytes(blob)
                    path.with_suffix(".part").rename(path)

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait()
    reader.join()
    assert code == 0, "\n".join(lines)
    return lines, {}


def run_killed(workspace, out):
    command = [sys.executable, str(HERE / "kills.py"), str(workspace), str(out), PLAN]
    done = subprocess.run(command, capture_output=True, text=True)
    report = json.loads(done.stdout)
    assert report["exit"] == 0, done.stderr
    return done.stderr.splitlines(), report


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Two turns of two robots; while they run, garbled logs are dropped into the inbox."""
    return once(tmp_path_factory, "undisturbed", run_undisturbed)


@pytest.fixture(scope="session")
def killed(tmp_path_factory):
    """The same run, killed at ten points."""
    return once(tmp_path_factory, "killed", run_killed)
