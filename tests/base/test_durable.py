"""Files that survive a kill."""

import errno
import os
import threading

import pytest

from flyball.base import Conflict, Damaged, InputError, NotPossible, durable
from flyball.base.durable import (
    Ledger,
    disk_errors,
    make_folder,
    move_durably,
    only_holder,
    read_json,
    remove_durably,
    write_durably,
    write_json,
)


@pytest.fixture
def synced(monkeypatch):
    """Paths in the order of their fsyncs."""
    out = []
    real = os.fsync

    def fsync(fd):
        out.append(os.readlink(f"/proc/self/fd/{fd}"))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    return out


class Killed(BaseException):
    pass


def test_a_kill_at_any_point_leaves_the_old_file_or_the_new(tmp_path, monkeypatch):
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    seen = set()
    for point in range(20):
        path = tmp_path / f"{point}" / "x.json"
        write_json(path, "old")
        count = 0

        def deadly(name, point=point):
            def call(*args):
                nonlocal count
                count += 1
                if count == point + 1:
                    raise Killed
                return real[name](*args)

            return call

        for name in real:
            monkeypatch.setattr(os, name, deadly(name))
        try:
            write_json(path, "new")
            finished = True
        except Killed:
            finished = False
        monkeypatch.undo()
        seen.add(read_json(path))
        if finished:
            assert read_json(path) == "new"
            break
    assert seen == {"old", "new"} and point > 2


def test_a_ledger_keeps_whole_rows_and_drops_a_torn_one(tmp_path):
    path = tmp_path / "rows.jsonl"
    ledger = Ledger(path)
    ledger.append({"n": 1})
    ledger.append({"n": 2})
    ledger.close()
    whole = path.read_bytes()
    for cut in range(len(whole) - 9, len(whole)):
        path.write_bytes(whole[:cut])
        again = Ledger(path)
        assert again.rows == [{"n": 1}]
        again.append({"n": 3})
        again.close()
        assert Ledger(path).rows == [{"n": 1}, {"n": 3}]
    path.write_bytes(b"{]\n" + whole)
    with pytest.raises(Damaged, match=r"rows\.jsonl"):
        Ledger(path)


def test_a_last_row_of_which_sectors_are_missing_is_dropped(tmp_path):
    """After a power cut the file may have its new size while some of its sectors were never written."""
    path = tmp_path / "rows.jsonl"
    first, last = b'{"n": 1}\n', b'{"text": "' + b"x" * 1000 + b'"}\n'
    for cut in (slice(0, 100), slice(100, 600), slice(0, len(last))):
        torn = bytearray(last)
        torn[cut] = bytes(len(torn[cut]))
        path.write_bytes(first + torn)
        ledger = Ledger(path)
        ledger.append({"n": 2})
        ledger.close()
        assert path.read_bytes() == first + b'{"n": 2}\n'
    path.write_bytes(first + b"\0{}\n" + first)
    with pytest.raises(Damaged):
        Ledger(path)


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_row_that_could_not_be_written_leaves_nothing_behind(tmp_path, monkeypatch, call):
    ledger = Ledger(tmp_path / "rows.jsonl")
    ledger.append({"n": 1})

    def fail(*args):
        if call == "write":
            os.write(ledger._file.fileno(), args[0][:3])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as m:
        if call == "fsync":
            m.setattr(os, "fsync", fail)
        else:
            m.setattr(ledger, "_file", Refusing(ledger._file, fail))
        with pytest.raises(NotPossible, match=r"rows\.jsonl: no space left"):
            ledger.append({"n": 2})
    ledger.append({"n": 3})
    ledger.close()
    assert Ledger(tmp_path / "rows.jsonl").rows == [{"n": 1}, {"n": 3}]


class Refusing:
    """A file whose writes fail."""

    def __init__(self, file, write):
        self._file, self.write = file, write

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_what_a_killed_process_made_is_synced_by_the_next(tmp_path, synced):
    """A ledger, a folder, a deletion: found as they are wanted, but perhaps not on the disk yet."""
    (tmp_path / "rows.jsonl").write_bytes(b'{"n": 1}\n')
    Ledger(tmp_path / "rows.jsonl").close()
    assert synced[-2:] == [str(tmp_path / "rows.jsonl"), str(tmp_path)]
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").mkdir()
    del synced[:]
    make_folder(tmp_path / "a" / "b")
    assert synced == [str(tmp_path), str(tmp_path / "a")]
    make_folder(tmp_path / "a" / "b")
    assert len(synced) == 2, "once per process is enough"
    remove_durably(tmp_path / "a" / "gone")
    assert synced[2:] == [str(tmp_path / "a")]


def test_a_folder_made_anew_is_synced_anew(tmp_path, synced):
    make_folder(tmp_path / "a")
    os.rename(tmp_path / "a", tmp_path / "b")
    del synced[:]
    make_folder(tmp_path / "a")
    assert synced == [str(tmp_path)]


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "a").write_text("")
    for path in (tmp_path / "a", tmp_path / "a" / "b"):
        with pytest.raises((FileExistsError, NotADirectoryError)):
            make_folder(path)


def test_a_file_is_synced_before_it_moves(tmp_path, synced):
    (tmp_path / "f").mkdir()
    (tmp_path / "a").write_bytes(b"x")
    move_durably(tmp_path / "a", tmp_path / "f" / "b")
    assert synced == [str(tmp_path / "a"), str(tmp_path / "f"), str(tmp_path)]
    assert (tmp_path / "f" / "b").read_bytes() == b"x"


def test_threads_that_write_one_file_do_not_mix(tmp_path):
    path = tmp_path / "x"
    errors: list[BaseException] = []

    def work(k):
        try:
            for _ in range(20):
                write_durably(path, bytes([k]) * 50_000)
                assert len(set(path.read_bytes())) == 1
        except BaseException as err:
            errors.append(err)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert errors == []
    assert len(path.read_bytes()) == 50_000
    assert os.listdir(tmp_path) == ["x"], "no temporary file is left"


def test_what_a_killed_writer_left_is_taken_away_by_the_next(tmp_path):
    secret = tmp_path / "key"
    child = os.fork()
    if child == 0:
        durable.os.replace = lambda *_: os._exit(9)  # only in the child
        write_durably(secret, b"half")
    os.waitpid(child, 0)
    assert os.listdir(tmp_path) == [".key.tmp"]
    os.chmod(tmp_path / ".key.tmp", 0o666)
    write_durably(secret, b"whole", mode=0o600)
    assert os.listdir(tmp_path) == ["key"] and secret.read_bytes() == b"whole"
    assert secret.stat().st_mode & 0o777 == 0o600, "not the mode of what was left"


def test_names_as_long_as_they_may_be(tmp_path):
    write_durably(tmp_path / ("n" * 255), b"x")
    assert os.listdir(tmp_path) == ["n" * 255]


@pytest.mark.parametrize("failure", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_fails_leaves_the_old_content_and_no_rubbish(tmp_path, monkeypatch, failure):
    write_durably(tmp_path / "x", b"old")

    def fail(*_):
        raise OSError(failure, os.strerror(failure))

    with monkeypatch.context() as m, pytest.raises(NotPossible, match="x: .*; try: .*the same again"):
        m.setattr(os, "fsync", fail)
        write_durably(tmp_path / "x", b"new")
    assert os.listdir(tmp_path) == ["x"] and (tmp_path / "x").read_bytes() == b"old"


def test_errors_of_a_disk_are_one_clear_line(tmp_path):
    def raised(number):
        with disk_errors(tmp_path):
            raise OSError(number, os.strerror(number))

    for number in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
        with pytest.raises(NotPossible):
            raised(number)
    for number in (errno.EACCES, errno.EROFS):
        with pytest.raises(InputError, match="not writable"):
            raised(number)
    with pytest.raises(IsADirectoryError):
        raised(errno.EISDIR)


def test_a_lock_has_one_holder(tmp_path):
    with only_holder(tmp_path / "lock"), pytest.raises(Conflict, match="lock"), only_holder(tmp_path / "lock"):
        pass
    with only_holder(tmp_path / "lock"):
        pass
