"""The store: what is acknowledged stays, what is damaged is noticed, many may write at once."""

import errno
import hashlib
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from flyball.base import Conflict, Damaged, FlyballError, InputError, Missing, NotPossible
from flyball.base import store as store_module
from flyball.base.store import Store

BY = "tests@1"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, clock_ns=lambda: 42)


def test_what_is_put_can_be_read_by_another_process_that_opens_the_folder(store, tmp_path):
    a = store.put("log", b"hello", producer=BY, labels={"robot": "r1"})
    again = Store(tmp_path)
    assert again.get(a.digest) == b"hello"
    assert again.artifact(a.digest) == a
    assert (a.kind, a.created_ns, a.labels) == ("log", 42, {"robot": "r1"})


def test_putting_twice_is_one_artifact_and_keeps_the_first_facts(store):
    parent = store.put("log", b"p", producer=BY)
    first = store.put("log", b"x", producer=BY, labels={"n": 1}, now_ns=1)
    second = store.put("log", b"x", producer="other@2", labels={"n": 2}, now_ns=2, parents=[parent.digest])
    assert len(store.find("log")) == 2
    assert (second.producer, second.labels, second.created_ns) == (BY, {"n": 1}, 1)
    assert first.parents == () and second.parents == (parent.digest,)


def test_the_same_bytes_may_be_of_two_kinds(store):
    a, b = store.put("calibration", b"{}", producer=BY), store.put("report", b"{}", producer=BY)
    assert a.digest == b.digest
    assert store.find("calibration") == [a] and store.find("report") == [b]


def test_a_flipped_bit_on_disk_is_noticed_and_the_next_put_heals_it(store):
    a = store.put("log", b"hello", producer=BY)
    store.path(a.digest).write_bytes(b"hellp")
    with pytest.raises(Damaged, match=str(store.path(a.digest))):
        store.get(a.digest)
    store.put("log", b"hello", producer=BY)
    assert store.get(a.digest) == b"hello"


def test_what_is_not_there_is_said_in_one_line(store):
    for call in (
        lambda: store.get("0" * 64),
        lambda: store.artifact("0" * 64),
        lambda: store.lineage("0" * 64),
        lambda: store.set_name("deployed", "0" * 64),
        lambda: store.put("x", b"", producer=BY, parents=["0" * 64]),
        lambda: store.register("x", "0" * 64, producer=BY),
        lambda: store.resolve("0"),
    ):
        with pytest.raises(Missing):
            call()
    assert not store.has("0" * 64)
    assert store.find("x") == []
    for bad in ("../../etc/passwd", "", "A" * 64):
        with pytest.raises(InputError, match="not a digest"):
            store.get(bad)


def test_find_by_labels(store):
    for i in range(5):
        store.put("policy", bytes([i]), producer=BY, labels={"turn": i % 2, "final": i == 4, "robot arm's": "ä"})
    assert [store.get(a.digest)[0] for a in store.find("policy", turn=0)] == [0, 2, 4]
    assert [store.get(a.digest)[0] for a in store.find("policy", turn=0, final=True)] == [4]
    assert len(store.find("policy", **{"robot arm's": "ä"})) == 5
    assert store.find("policy", turn="0") == [] and store.find("policy", absent=1) == []
    assert len(store.find("policy", absent=None)) == 5
    with pytest.raises(InputError, match="'turn'"):
        store.find("policy", turn=[0])


def test_lineage_leads_from_a_log_to_the_release_and_back(store):
    logs = [store.put("log", bytes([i]), producer=BY) for i in range(3)]
    episodes = [store.put("episode", b"e" + bytes([i]), parents=[a.digest], producer=BY) for i, a in enumerate(logs)]
    data = store.put("dataset", b"d", parents=[e.digest for e in episodes], producer=BY)
    # A diamond: the release names the dataset directly too.
    policy = store.put("policy", b"p", parents=[data.digest], producer=BY)
    release = store.put("release", b"r", parents=[policy.digest, data.digest], producer=BY)
    assert store.lineage(release.digest) == [policy, data, *episodes, *logs]
    assert store.lineage(logs[1].digest, "children") == [episodes[1], data, policy, release]
    with pytest.raises(InputError, match="parents, children"):
        store.lineage(release.digest, "sideways")


def test_many_artifacts_keep_their_parents(store, monkeypatch):
    root = store.put("log", b"root", producer=BY)
    monkeypatch.setattr(os, "fsync", lambda _: None)  # 600 of them take seconds
    with store.transaction():
        for i in range(600):
            store.put("episode", str(i).encode(), parents=[root.digest], producer=BY)
    found = store.find("episode")
    assert len(found) == 600 and all(a.parents == (root.digest,) for a in found)


def test_names_point_at_what_exists_and_move(store):
    a, b = store.put("release", b"a", producer=BY), store.put("release", b"b", producer=BY)
    assert store.name("deployed") is None
    store.set_name("deployed", a.digest)
    store.set_name("deployed", b.digest)
    assert store.name("deployed") == b.digest


def test_rows_keep_the_order_of_first_writing(store):
    for key, n in (("b", 1), ("a", 2), ("b", 3)):
        store.put_row("turn", key, {"n": n})
    assert store.rows("turn") == [{"n": 3}, {"n": 2}]
    assert store.row("turn", "a") == {"n": 2} and store.row("turn", "c") is None and store.rows("incident") == []
    with pytest.raises(InputError, match="turn c"):
        store.put_row("turn", "c", {"x": object()})


def test_abbreviated_digests(store):
    digests = [store.put("log", str(i).encode(), producer=BY).digest for i in range(40)]
    assert store.resolve(digests[0][:12]) == digests[0]
    twice = next(d[0] for d in digests if sum(e[0] == d[0] for e in digests) > 1)
    with pytest.raises(InputError, match="ambiguous"):
        store.resolve(twice)


def test_a_transaction_is_all_or_nothing(store):
    with pytest.raises(RuntimeError), store.transaction():
        store.put("log", b"x", producer=BY)
        store.put_row("turn", "1", {})
        raise RuntimeError
    assert store.find("log") == [] and store.rows("turn") == []
    store.put("log", b"x", producer=BY)  # and the store goes on
    assert len(store.find("log")) == 1


def test_bytes_are_on_disk_before_a_row_names_them(store, monkeypatch):
    """Order of a durable write: content, name, folders; the row's commit comes last."""
    done = []
    real_sync, real_replace = os.fsync, os.replace

    def sync(fd):
        target = os.readlink(f"/proc/self/fd/{fd}")
        done.append("sync folder" if os.path.isdir(target) else "sync file")
        real_sync(fd)

    def replace(a, b):
        done.append("rename")
        real_replace(a, b)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", replace)
    store._connection().set_trace_callback(lambda sql: done.append(sql) if sql in ("BEGIN IMMEDIATE", "COMMIT") else 0)
    store.put("log", b"x", producer=BY)
    assert done == ["sync file", "rename", "sync folder", "sync folder", "BEGIN IMMEDIATE", "COMMIT"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_is_said_and_leaves_nothing_visible(store, monkeypatch, call):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(NotPossible, match="no space left"):
        store.put("log", b"x", producer=BY)
    monkeypatch.undo()
    assert store.find("log") == []
    assert not store.path(hashlib.sha256(b"x").hexdigest()).exists(), "a name appeared before its content was durable"
    assert store.get(store.put("log", b"x", producer=BY).digest) == b"x"


def test_a_database_that_is_none_and_one_from_the_future(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "flyball.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Damaged, match=r"flyball\.db"):
        Store(tmp_path / "a")
    (tmp_path / "b").mkdir()
    Store(tmp_path / "b").close()
    db = sqlite3.connect(tmp_path / "b" / "flyball.db")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(InputError, match="newer Flyball"):
        Store(tmp_path / "b")


def test_a_writer_that_never_lets_go_is_reported(store, monkeypatch):
    monkeypatch.setattr(store_module, "BUSY_S", 0.05)
    other = Store(store.root)
    with store.transaction(), pytest.raises(Conflict, match="another process"):
        other.put("log", b"x", producer=BY)


def test_leftovers_of_writers_killed_long_ago_are_swept(store, tmp_path):
    old, young = store.blobs / "tmp" / "1-1-1", store.blobs / "tmp" / "2-2-2"
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    Store(tmp_path)
    assert not old.exists() and young.exists()


def test_folders_of_killed_writers_are_swept_at_once_and_those_of_living_ones_are_left(store, tmp_path):
    child = os.fork()
    if child == 0:
        with store.scratch() as folder:
            (folder / "spilled").write_bytes(b"half")
            os._exit(9)
    os.waitpid(child, 0)
    tmp = store.blobs / "tmp"
    assert len(list(tmp.glob("held-*/spilled"))) == 1
    with store.scratch() as mine:
        (mine / "a").write_bytes(b"x")
        Store(tmp_path)
        assert list(tmp.glob("held-*")) == [mine] and (mine / "a").exists()
    assert list(tmp.iterdir()) == []


def test_a_folder_left_by_others_long_ago_does_not_stop_the_store(store, tmp_path):
    old = store.blobs / "tmp" / "tmpabc"
    old.mkdir()
    (old / "part").write_bytes(b"x")
    os.utime(old, (0, 0))
    Store(tmp_path)
    assert not old.exists()


def test_a_batch_becomes_visible_at_its_end_and_syncs_each_folder_once(store, monkeypatch):
    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.readlink(f"/proc/self/fd/{fd}")), real(fd)))
    blobs = [bytes([i]) for i in range(60)]
    with store.batch():
        digests = [store.keep(b)[0] for b in blobs] + store.keep(blobs[0], blobs[1])
        assert not any(store.path(d).exists() for d in digests)
        with pytest.raises(Missing):
            store.register("log", digests[0], producer=BY)
    assert all(store.get(d) == b for d, b in zip(digests, blobs, strict=False))
    folders = [p for p in synced if os.path.isdir(p)]
    assert len(folders) == len(set(folders)) == len({d[:2] for d in digests}) + 1
    assert len(synced) == len(folders) + 60


def test_a_batch_that_fails_keeps_nothing(store, tmp_path):
    mine, again = tmp_path / "mine", tmp_path / "again"
    mine.write_bytes(b"y")
    again.write_bytes(b"y")
    with pytest.raises(RuntimeError), store.batch():
        (digest,) = store.keep(b"x")
        store.keep_file(mine, move=True)
        store.keep_file(again, move=True)
        raise RuntimeError
    assert not store.path(digest).exists() and mine.read_bytes() == b"y" == again.read_bytes()
    assert list((store.blobs / "tmp").iterdir()) == []
    store.keep(b"x")
    assert store.path(digest).exists()


@pytest.mark.parametrize("move", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_files_are_kept_whole(store, tmp_path, move, named, known):
    source, content = tmp_path / "f", os.urandom(3_000_000)
    source.write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    if known:
        store.keep(content)
    assert store.keep_file(source, digest=digest if named else "", move=move) == digest
    assert store.get(digest) == content
    assert source.exists() != move
    assert list((store.blobs / "tmp").iterdir()) == []


def test_a_known_file_is_not_copied_again_but_a_damaged_blob_is_replaced(store, tmp_path, monkeypatch):
    source = tmp_path / "f"
    source.write_bytes(b"x" * 1000)
    digest = store.keep_file(source)
    with monkeypatch.context() as m:
        m.setattr(store_module, "_copied", None)
        assert store.keep_file(source, digest=digest) == digest
    store.path(digest).write_bytes(b"x" * 999)
    store.keep_file(source, digest=digest)
    assert store.get(digest) == b"x" * 1000


def test_a_file_that_is_not_what_was_said_is_not_kept(store, tmp_path):
    (tmp_path / "f").write_bytes(b"grown")
    digest = hashlib.sha256(b"gro").hexdigest()
    with store.batch(), pytest.raises(InputError, match="changed while it was read"):
        store.keep_file(tmp_path / "f", digest=digest)
    assert list(store.blobs.glob("??/*")) == [] and list((store.blobs / "tmp").iterdir()) == []


def test_a_file_of_another_file_system_is_copied_and_removed(store):
    try:
        other = tempfile.TemporaryDirectory(dir="/dev/shm")
    except OSError:
        pytest.skip("no second file system")
    with other as folder:
        source = Path(folder) / "f"
        source.write_bytes(b"x")
        if source.stat().st_dev == store.blobs.stat().st_dev:
            pytest.skip("no second file system")
        assert store.get(store.keep_file(source, move=True)) == b"x"
        assert not source.exists()


def test_threads_share_one_store(store):
    errors: list[BaseException] = []

    def work(k: int) -> None:
        try:
            for i in range(10):
                store.put("log", f"{k} {i}".encode(), producer=BY)
                store.put("log", f"shared {i}".encode(), producer=BY)
        except FlyballError as err:
            errors.append(err)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    assert len(store.find("log")) == 4 * 10 + 10


def test_processes_that_race_to_create_and_fill_one_store(tmp_path):
    code = (
        "import sys; from flyball.base.store import Store; s = Store(sys.argv[1]); sys.stdin.read(1)\n"
        "s.ensure('extra', 'CREATE TABLE extra (x)')\n"
        "for i in range(8): s.put('log', f'{i // 2}'.encode(), producer='p'); s.put_row('r', sys.argv[2] + str(i), {})"
    )
    for round_ in range(2):
        root = tmp_path / str(round_)
        root.mkdir()
        runs = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(root), str(k)], stdin=subprocess.PIPE, stderr=subprocess.PIPE
            )
            for k in range(4)
        ]
        failures = [err.decode() for r in runs if (err := r.communicate(b"g")[1])]
        assert failures == []
        assert len(Store(root).find("log")) == 4 and len(Store(root).rows("r")) == 32
