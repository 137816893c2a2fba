"""``kill -9`` at any moment of ingest: nothing is lost, nothing is there twice, nothing is half there."""

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.ingest import ingest

DRIVER = Path(__file__).with_name("kill_driver.py")
GOOD = {"attempt-0.mcap", "attempt-1.mcap", "attempt-2.mcap"}
BAD = "garbled.mcap"
# Forks one child per kill point, so that imports are paid for once.
MANY = f"""
import os, sys
sys.path.insert(0, {str(DRIVER.parent)!r})
import kill_driver
from pathlib import Path
for line in sys.stdin:
    path, last, acknowledged = line.split()
    child = os.fork()
    if child == 0:
        kill_driver.run(Path(path), int(last), Path(acknowledged))
        os._exit(0)
    print(os.waitpid(child, 0)[1], flush=True)
"""


def put_into_inbox(template, path):
    shutil.copytree(template, path / "inbox")
    (path / "flyball.toml").write_text("layout = 1\n")


@pytest.fixture
def place():
    """A folder in memory where there is one: a kill, unlike a power cut, cannot tell, and fsync is free there."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def template(tmp_path, record):
    folder = tmp_path / "template"
    folder.mkdir()
    for i in range(3):
        record(folder / f"attempt-{i}.mcap", n=3, seed=i)
    (folder / BAD).write_bytes((folder / "attempt-0.mcap").read_bytes()[:-40])
    return folder


def check_sound(w, originals, acknowledged):
    """What must hold at any moment, however the last process ended."""
    for blob in w.store.blobs.glob("??/*"):
        assert hashlib.sha256(blob.read_bytes()).hexdigest() == blob.parent.name + blob.name, "half a blob has a name"
    catalogue = Catalogue(w.store)
    rows = catalogue.query()
    logs = {a.digest for a in w.store.find("log")}
    assert {r.log_digest for r in rows} == logs, "a log without its episode, or an episode without its log"
    assert len(rows) == len(logs) == len(w.store.find("episode")), "an episode is there twice, or half there"
    for row in rows:
        catalogue.load(row.digest)
        assert w.store.get(row.log_digest) in originals.values()
    kept = {p.name.partition("-")[2]: p.read_bytes() for p in w.quarantine.glob("*.mcap")}
    waiting = {p.name: p.read_bytes() for p in w.inbox.iterdir()}
    for name, blob in originals.items():
        registered = hashlib.sha256(blob).hexdigest() in logs
        assert registered or waiting.get(name) == blob or kept.get(name) == blob, f"{name} is lost"
        if name in acknowledged:
            assert registered if name in GOOD else kept.get(name) == blob, f"{name} was acknowledged"
    for name in kept:
        assert name == BAD and list(w.quarantine.glob(f"*-{name}.reason.txt"))


def check_complete(w, originals):
    check_sound(w, originals, set(originals))
    assert len(Catalogue(w.store).query()) == len(GOOD)
    assert list(w.inbox.iterdir()) == []
    assert sorted(p.name.partition("-")[2] for p in w.quarantine.glob("[!.]*")) == [BAD, f"{BAD}.reason.txt"]


def test_kill_at_every_durable_operation_and_again_while_recovering(place, template):
    originals = {p.name: p.read_bytes() for p in template.iterdir()}
    put_into_inbox(template, place / "whole")
    counted = subprocess.run(
        [sys.executable, str(DRIVER), str(place / "whole"), "0", str(place / "ack")],
        capture_output=True,
        text=True,
    )
    points = int(counted.stdout)
    assert points >= 100, "the driver no longer sees the operations"
    check_complete(Workspace(place / "whole"), originals)

    rng = random.Random(0)
    killed = 0
    with subprocess.Popen(
        [sys.executable, "-c", MANY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as many:
        assert many.stdin is not None and many.stdout is not None
        for k in sorted({*rng.sample(range(1, points + 1), 70), 1, points}):
            path, ack = place / f"w{k}", place / f"ack{k}"
            put_into_inbox(template, path)
            for last in (k, rng.randrange(1, points)):  # the second process may be killed as well
                many.stdin.write(f"{path} {last} {ack}\n")
                many.stdin.flush()
                status = int(many.stdout.readline())
                assert status == 0 or os.WTERMSIG(status) == 9, f"point {last}: status {status}"
                killed += status != 0
                w = Workspace(path)
                check_sound(w, originals, set(ack.read_text().split()) if ack.exists() else set())
                w.store.close()
            ingest(w)
            check_complete(w, originals)
            w.store.close()
            shutil.rmtree(path)
        many.stdin.close()
    assert killed >= 72
