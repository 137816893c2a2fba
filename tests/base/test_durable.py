"""Files that survive a kill."""

import os

import pytest

from flyball.base import Conflict, Damaged
from flyball.base.durable import Ledger, only_holder, read_json, write_json


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


def test_a_lock_has_one_holder(tmp_path):
    with only_holder(tmp_path / "lock"), pytest.raises(Conflict, match="lock"), only_holder(tmp_path / "lock"):
        pass
    with only_holder(tmp_path / "lock"):
        pass
