import json
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
    workspace: Path
    document: dict
    notes: list
    report: dict


def garbled(good: bytes) -> dict[str, bytes]:
    """What may fall into an inbox, none of it a log."""
    return {"cut.mcap": good[: len(good) * 2 // 3], "noise.mcap": bytes(range(256)) * 40, "empty.mcap": b""}


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """Two turns of two robots; while they run, garbled logs are dropped into the inbox."""
    folder = tmp_path_factory.mktemp("undisturbed")
    workspace, out = folder / "w", folder / "out.json"
    process = subprocess.Popen(
        [sys.executable, str(HERE / "tiny.py"), str(workspace), str(out)], stderr=subprocess.PIPE, text=True
    )
    lines = []

    def read():
        for line in process.stderr:
            lines.append(line.strip())
            if line.strip() == "stage robots":
                for name, blob in garbled(b"\x89MCAP0\r\n" + b"\x01" * 900).items():
                    path = workspace / "inbox" / f"{lines.count('stage robots')}-{name}"
                    path.with_suffix(".part").write_bytes(blob)
                    path.with_suffix(".part").rename(path)

    reader = threading.Thread(target=read)
    reader.start()
    assert process.wait() == 0, "\n".join(lines)
    reader.join()
    return Run(workspace, json.loads(out.read_text()), lines, {})


@pytest.fixture(scope="session")
def killed(tmp_path_factory):
    """The same run, killed at ten points."""
    folder = tmp_path_factory.mktemp("killed")
    workspace, out = folder / "w", folder / "out.json"
    done = subprocess.run(
        [sys.executable, str(HERE / "kills.py"), str(workspace), str(out), PLAN], capture_output=True, text=True
    )
    report = json.loads(done.stdout)
    assert report["exit"] == 0, done.stderr
    return Run(workspace, json.loads(out.read_text()), done.stderr.splitlines(), report)
