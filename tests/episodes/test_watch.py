"""Watched folders: what is complete is taken soon, what is still being written is waited for."""

import shutil
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from flyball.base.workspace import Workspace
from flyball.episodes import watch
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.watch import Watcher

from .foreign import START, number, write_log


class Clock:
    """Time that passes when it is told to."""

    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def w(tmp_path):
    return Workspace(tmp_path / "w")


@pytest.fixture
def watcher(w):
    return Watcher(w, settle_s=2, patience_s=60, clock=Clock())


def test_a_file_is_ready_when_it_has_not_changed_for_a_while(watcher, w, record, tmp_path):
    blob = record(tmp_path / "a.mcap", n=5).read_bytes()
    path = w.inbox / "a.mcap"
    path.write_bytes(blob[:100])
    assert watcher.ready() == []
    watcher.clock.now += 1.5
    path.write_bytes(blob)
    assert watcher.ready() == []  # it changed: the time begins anew
    watcher.clock.now += 1.9
    assert watcher.ready() == []
    watcher.clock.now += 0.1
    assert watcher.ready() == [path]
    watcher.clock.now += 10
    assert watcher.ready() == []  # not twice
    path.write_bytes(blob + b" ")
    watcher.ready()
    watcher.clock.now += 100
    assert watcher.ready() == [path]  # but again when it has changed


def test_a_file_without_its_end_is_waited_for_longer(watcher, w, record, tmp_path):
    blob = record(tmp_path / "a.mcap", n=5).read_bytes()
    path = w.inbox / "a.mcap"
    path.write_bytes(blob[:-20])
    watcher.ready()
    watcher.clock.now += 30  # the writer pauses
    assert watcher.ready() == []
    watcher.clock.now += 30  # or it was killed
    assert watcher.ready() == [path]


def test_partial_names_and_hidden_ones_are_left_alone_whatever_their_age(watcher, w):
    for name in ("a.mcap.part", ".a.mcap", "b.bag.active", "c.tmp"):
        (w.inbox / name).write_bytes(b"x")
    watcher.ready()
    watcher.clock.now += 1e6
    assert watcher.ready() == []


def test_folders_that_vanish_and_come_back(w, record, tmp_path):
    further = tmp_path / "stick"
    watcher = Watcher(w, [further], settle_s=0, clock=Clock())
    assert watcher.ready() == []
    path = record(further / "a.mcap", n=3) if further.mkdir() is None else None
    assert watcher.ready() == [path]
    shutil.rmtree(further)
    assert watcher.ready() == []
    further.mkdir()
    record(further / "b.mcap", n=4)
    assert watcher.ready() == [further / "b.mcap"]


@contextmanager
def running(watcher):
    reports, failures = [], []

    def run():
        try:
            watcher.run(reports.append)
        except BaseException as err:
            failures.append(err)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield reports
    finally:
        watcher.stop.set()
        thread.join(20)
    assert not thread.is_alive() and not failures


def until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


@pytest.mark.parametrize("how", ["inotify", "polling"])
def test_what_comes_is_ingested_bad_ones_put_aside_and_the_watch_goes_on(w, record, tmp_path, how, monkeypatch):
    if how == "polling":
        monkeypatch.setattr(watch, "_events", lambda *a: None)
    else:
        pytest.importorskip("watchfiles")
    further = tmp_path / "further"
    further.mkdir()
    (further / "bad.mcap").write_bytes(b"no log")
    catalogue = Catalogue(w.store)
    watcher = Watcher(w, [further], settle_s=0.05, patience_s=0.2, poll_s=0.1)
    with running(watcher) as reports:
        record(tmp_path / "a.mcap", n=3, seed=1).rename(w.inbox / "a.mcap")
        until(lambda: len(catalogue.query()) == 1)
        (w.inbox / "junk.bin").write_bytes(b"junk")
        until(lambda: len(list(w.quarantine.iterdir())) == 2)
        shutil.rmtree(further)
        record(tmp_path / "b.mcap", n=3, seed=2).rename(w.inbox / "b.mcap")
        until(lambda: len(catalogue.query()) == 2)
        further.mkdir()
        write_log(further / "c.mcap", [(START + i, "/q", number(i)) for i in range(3)])
        until(lambda: len(catalogue.query()) == 3)
    assert (further / "c.mcap").exists() and not list(w.inbox.iterdir())
    assert sum(Path(p).name == "bad.mcap" for r in reports for p, _ in r.quarantined) == 1, "said once, not for ever"


def test_network_file_systems_are_polled(tmp_path, monkeypatch):
    table = f"/dev/a / ext4 rw 0 0\nserver:/x {tmp_path} nfs4 rw 0 0\n"
    monkeypatch.setattr(Path, "read_text", lambda self, *a: table)
    assert watch.remote(tmp_path / "inner") and not watch.remote(Path("/tmp"))


def test_without_watchfiles_there_is_polling(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "watchfiles", None)
    assert watch._events([tmp_path], threading.Event(), 0.1) is None
