"""A sample of the durability campaigns; ``python benchmarks/durability.py`` runs them in full."""

import errno
import os
import random
import tempfile
from pathlib import Path

import crashdisk
import durability
import pytest

from flyball.base.workspace import Workspace
from flyball.episodes.formats import mcap_records
from flyball.episodes.ingest import ingest


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    found = crashdisk.compiled(tmp_path_factory.mktemp("shim"))
    if found is None:
        pytest.skip("the campaigns need Linux and a C compiler")
    return found


@pytest.fixture(scope="module")
def memory():
    """A folder in memory where there is one: syncing is free there."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def place(memory):
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def started(shim, memory):
    (memory / "campaigns").mkdir()
    with durability.Campaigns(shim, memory / "campaigns") as c:
        yield c


@pytest.fixture
def campaigns(started):
    started.outcomes.clear()
    started.failures.clear()
    return started


def test_kill_9_at_any_moment_and_again_while_recovering(campaigns):
    campaigns.kills(18, random.Random(1))
    assert campaigns.failures == []
    assert campaigns.outcomes["kills"] >= 18


def test_kill_9_where_there_is_no_compiler(place):
    with durability.Campaigns(None, place) as c:
        c.kills(10, random.Random(1))
    assert c.failures == []


def test_a_power_cut_at_any_moment(campaigns):
    campaigns.states(60, random.Random(2))
    assert campaigns.failures == []
    assert campaigns.outcomes["workspaces looked at"] == 60


def test_any_call_may_fail(campaigns):
    campaigns.faults(random.Random(3), share=0.01)
    assert campaigns.failures == []
    assert campaigns.outcomes["said in one line"] >= 10


def test_disks_that_fill_up(campaigns):
    if skipped := campaigns.full_disks(6, random.Random(4)):
        pytest.skip(skipped)
    assert campaigns.failures == []
    assert campaigns.outcomes["full disks"] >= 3


CARELESS = {
    "names of blobs are not synced": "store.sync_folder = lambda folder: None",
    "contents of blobs are not synced": "store.sync_file = lambda path: None",
    "a file is put aside before its content is synced": "durable.sync_file = lambda path: None",
    "a commit does not wait for the disk": (
        "real = store.sqlite3.connect\n"
        "class Hasty(store.sqlite3.Connection):\n"
        "    def execute(self, sql, *args):\n"
        "        return super().execute(sql.replace('synchronous = EXTRA', 'synchronous = OFF'), *args)\n"
        "store.sqlite3.connect = lambda *a, **k: real(*a, factory=Hasty, **k)"
    ),
}


@pytest.mark.parametrize("fault", CARELESS)
def test_a_careless_program_is_found_out(shim, place, fault):
    """The campaigns can fail: each of these slips loses data after a power cut."""
    text = "from durability import work\nfrom flyball.base import durable, store\n"
    (place / "careless.py").write_text(text + CARELESS[fault])
    with durability.Campaigns(shim, place, work="careless:work", path=[place]) as c:
        c.states(80, random.Random(5), until_lost=True)
    assert any("Lost" in line for line in c.failures)


def test_a_log_that_cannot_be_opened_this_moment_is_not_put_aside_as_bad(tmp_path, record, monkeypatch):
    w = Workspace(tmp_path / "w")
    record(w.inbox / "a.mcap")

    def fail(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as m:
        m.setattr(mcap_records, "open", fail, raising=False)
        report = ingest(w)
    assert report.quarantined == () and "Input/output error" in report.held[0][1]
    assert len(ingest(w).added) == 1
