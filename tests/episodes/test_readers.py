"""Reading processes: the same results for any number of them, and a log that kills its process harms no other."""

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from flyball.base.workspace import Workspace
from flyball.episodes import ingest as module
from flyball.episodes.arrivals import arrivals
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.ingest import grouped, ingest
from flyball.episodes.readers import Readers

from .foreign import START, arm_log, number, write_log


def a_judge(episode):
    """One that can be sent to other processes."""
    return "success", "", {"signals": len(episode.signals)}


@pytest.fixture(autouse=True)
def usual(monkeypatch):
    """Bounds as they are, whatever other tests of this process have made of them."""
    monkeypatch.setattr(module, "BUSY", (48 << 20, 128))
    monkeypatch.setattr(module, "BATCH_FILES", 64)


@pytest.fixture
def eager(monkeypatch):
    """Processes for any amount of work."""
    monkeypatch.setattr(module, "BUSY", (0, 0))


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    """Foreign logs, some alike, some not, one twice, one damaged: their maps depend on each other."""
    from .conftest import record_attempt

    folder = tmp_path_factory.mktemp("logs")
    for i in range(6):
        arm_log(folder / f"arm_{i}.mcap", n=8, seed=i, embodiment="flyarm-5")
        record_attempt(folder / f"own_{i}.mcap", n=4, seed=i)
    for i in range(3):  # two signals that fit equally well; the first log has but one of them
        rows = [
            (START + k * 10**7, t, number(k + i))
            for k in range(5)
            for t in ("/gripper/opening", "/gripper/aperture")[: i + 1]
        ]
        write_log(folder / f"grip_{i}.mcap", rows, {"embodiment": "flyarm-5"})
    (folder / "again.mcap").write_bytes((folder / "arm_0.mcap").read_bytes())
    (folder / "cut.mcap").write_bytes((folder / "arm_1.mcap").read_bytes()[:3000])
    return folder


def outcome(workers, logs, path):
    w = Workspace(path)
    report = ingest(w, [logs], a_judge, workers=workers)
    strip = {m: m.removeprefix(str(w.path)) for m in report.maps}
    catalogue = Catalogue(w.store)
    found = (
        report.added, report.known, report.quarantined, report.logs, tuple(strip.values()),
        [r.digest for r in catalogue.query()], [a.digest for a in w.store.find("log")],
        {p.name: p.read_text() for p in (path / "channels").iterdir()},
        w.store.read("SELECT kind, digest, labels FROM artifacts ORDER BY seq"),
    )  # fmt: skip
    w.store.close()
    return found


def test_results_and_their_order_do_not_depend_on_the_number_of_processes(logs, tmp_path, eager, monkeypatch):
    monkeypatch.setattr(module, "BATCH_FILES", 1)  # the same log again may be known, or still on its way
    alone = outcome(0, logs, tmp_path / "w0")
    assert len(alone[0]) == 15 and len(alone[2]) == 1 and alone[1] == ()
    catalogue = Catalogue(Workspace(tmp_path / "w0").store)
    gripping = [catalogue.load(r.digest) for r in catalogue.query("labels.grip >= 0")]
    assert [set(e.signals) for e in gripping] == [{"gripper.width"}, *[{"gripper.width", "gripper.aperture"}] * 2]
    for n in (1, 3):
        assert outcome(n, logs, tmp_path / f"w{n}") == alone


def test_a_judge_that_cannot_travel_is_called_here(logs, tmp_path, eager):
    here = []
    report = ingest(
        Workspace(tmp_path), [logs / "own_0.mcap", logs / "own_1.mcap"],
        lambda e: (here.append(os.getpid()), ("success", "", {}))[1], workers=2,
    )  # fmt: skip
    assert here == [os.getpid()] * 2 and len(report.added) == 2


def test_little_to_do_starts_no_process(logs, tmp_path, monkeypatch):
    monkeypatch.setattr(Readers, "_submit", lambda *a: pytest.fail("a process was started"))
    assert len(ingest(Workspace(tmp_path), [logs], workers=2).added) == 15


def test_a_log_that_kills_its_process_is_put_aside_and_the_others_go_on(logs, tmp_path, eager, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent("""
        import os, signal
        from flyball.episodes.formats.mcap_log import McapLog
        read = McapLog.read
        def killing(self, path, intake):
            if path.name == "arm_3.mcap":
                os.kill(os.getpid(), signal.SIGKILL)
            return read(self, path, intake)
        McapLog.read = killing
        """)
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # of the processes, not of this one
    w = Workspace(tmp_path / "w")
    for p in logs.iterdir():
        (w.inbox / p.name).write_bytes(p.read_bytes())
    report = ingest(w, workers=2)
    assert {Path(p).name for p, _ in report.quarantined} == {"arm_3.mcap", "cut.mcap"}
    assert any("the reading process died" in why for _, why in report.quarantined)
    assert len(report.added) == 14 and not list(w.inbox.iterdir())
    assert (w.quarantine / "000000000000-arm_3.mcap").read_bytes() == (logs / "arm_3.mcap").read_bytes()


def test_processes_end_with_a_parent_that_is_killed(logs, tmp_path):
    code = f"""
import sys, time
from flyball.base.workspace import Workspace
from flyball.episodes.arrivals import arrivals
from flyball.episodes.taking import Setting, Maps
from flyball.episodes.readers import Readers
if __name__ == "__main__":
    w = Workspace({str(tmp_path / "w")!r})
    readers = Readers(2, Setting(w.path))
    groups = [[a] for a in arrivals(w, [__import__("pathlib").Path({str(logs)!r})])]
    for n, _ in enumerate(readers.in_order(groups, Maps, w, None)):
        if n == 3:
            print(*readers._pool._processes, flush=True)
            time.sleep(60)
"""
    script = tmp_path / "parent.py"
    script.write_text(code)
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        children = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(children) == 2
    until = time.monotonic() + 20
    while any(
        Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split()[2]
        for pid in children
    ):
        assert time.monotonic() < until, "processes outlive their parent"
        time.sleep(0.05)


def alive(pid):
    """Whether a process runs; one that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stopping_finishes_what_was_begun_and_leaves_the_rest(logs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "GROUP_FILES", 1)
    w = Workspace(tmp_path)
    for i in range(6):
        (w.inbox / f"{i}.mcap").write_bytes((logs / f"own_{i}.mcap").read_bytes())
    asked = []
    report = ingest(w, stop=lambda: asked.append(1) or len(asked) > 3)
    assert len(report.added) == 3 == len(list(w.inbox.iterdir())) == len(Catalogue(w.store).query())
    assert len(ingest(w).added) == 3


def test_groups_keep_order_and_bounds(tmp_path):
    sizes = [1, 2, 3 << 20, 2 << 20, 5 << 20, 1, 1, 1]
    w = Workspace(tmp_path)
    for i, size in enumerate(sizes):
        with open(w.inbox / f"{i}.mcap", "wb") as f:
            f.truncate(size)
    groups = grouped(arrivals(w, None), 3)
    assert [[int(a.path.stem) for a in g] for g in groups] == [[0, 1, 2], [3], [4], [5, 6, 7]]
