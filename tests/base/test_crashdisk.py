"""The model of what a power cut leaves: everything legal can come out, nothing else does."""

import random

from crashdisk import Disk, Event, disks, lay


def events(*steps):
    """Events as a trace has them, by one thread: ("W", inode, offset, data), ("C", inode, folder, name), ..."""
    out = []
    for op, inode, *rest in steps:
        other, offset, data = 0, 0, b""
        if op == "W":
            offset, data = rest
        elif op == "T":
            (offset,) = rest
        elif op in "CDUL":
            other, data = rest[0], rest[1].encode()
        elif op == "R":
            other, offset, data = rest[0], rest[1], rest[2].encode()
        elif op == "M":
            data = rest[0].encode()
        out.append(Event(op, 1, inode, other, offset, data))
    return out


def outcomes(tmp_path, *steps, count=400):
    """(disk, marks) of many power cuts; inode 0 is the empty folder."""
    root = tmp_path / "empty"
    root.mkdir(exist_ok=True)
    inode = root.stat().st_ino
    made = [
        e._replace(
            inode=inode if e.op in "SsR" and e.inode == 0 else e.inode,
            other=inode if e.op in "CDULR" and e.other == 0 else e.other,
        )
        for e in events(*steps)
    ]
    return [(c.disk, c.marks) for c in disks(Disk(root), made, count, random.Random(0))]


def test_nothing_is_durable_without_fsync(tmp_path):
    seen = outcomes(tmp_path, ("C", 1, 0, "a"), ("W", 1, 0, b"x" * 1024), ("M", 0, "done"))
    after = [d for d, marks in seen if marks]
    assert {} in after and {"a": b""} in after and {"a": b"x" * 1024} in after
    assert any(d.get("a") == bytes(512) + b"x" * 512 for d in after), "a sector may come before the one before it"
    assert all(set(d) <= {"a"} and set(d.get("a", b"")) <= {0, ord("x")} for d in after)


def test_an_fsync_of_the_file_keeps_its_content_and_one_of_the_folder_its_name(tmp_path):
    written = ("C", 1, 0, "a"), ("W", 1, 0, b"x" * 9), ("S", 1), ("s", 1)
    content = [d for d, marks in outcomes(tmp_path, *written, ("M", 0, "m")) if marks]
    assert {} in content and all(d.get("a", b"x" * 9) == b"x" * 9 for d in content)
    both = [d for d, marks in outcomes(tmp_path, *written, ("S", 0), ("s", 0), ("M", 0, "m")) if marks]
    assert both == [{"a": b"x" * 9}]
    name = outcomes(tmp_path, ("C", 1, 0, "a"), ("W", 1, 0, b"x" * 9), ("S", 0), ("s", 0), ("M", 0, "m"))
    assert {"a": b""} in [d for d, marks in name if marks]


def test_what_is_written_while_an_fsync_runs_is_not_covered_by_it(tmp_path):
    steps = ("C", 1, 0, "a"), ("S", 0), ("s", 0), ("S", 1), ("W", 1, 0, b"late"), ("s", 1), ("M", 0, "m")
    assert {"a": b""} in [d for d, marks in outcomes(tmp_path, *steps) if marks]


def test_a_rename_into_another_folder_may_be_half_done(tmp_path):
    steps = (
        ("D", 2, 0, "f"),
        ("S", 0),
        ("s", 0),
        ("C", 1, 0, "a"),
        ("S", 0),
        ("s", 0),
        ("R", 0, 2, 1, "a/b"),
        ("M", 0, "m"),
    )
    after = [d for d, marks in outcomes(tmp_path, *steps) if marks]
    for state in ({"a": b"", "f": {}}, {"f": {"b": b""}}, {"a": b"", "f": {"b": b""}}, {"f": {}}):
        assert state in after


def test_overwriting_leaves_each_sector_old_or_new(tmp_path):
    old, new = b"o" * 2048, b"n" * 2048
    steps = ("C", 1, 0, "a"), ("W", 1, 0, old), ("S", 1), ("s", 1), ("S", 0), ("s", 0), ("M", 0, "m"), ("W", 1, 0, new)
    after = {d["a"] for d, marks in outcomes(tmp_path, *steps) if marks}
    assert {old, new} < after and len(after) > 6
    for blob in after:
        assert all(blob[i : i + 512] in (old[:512], new[:512]) for i in range(0, 2048, 512))


def test_shrinking_and_growing_again_never_shows_what_was_never_there(tmp_path):
    steps = (
        ("C", 1, 0, "a"),
        ("W", 1, 0, b"o" * 700),
        ("S", 1),
        ("s", 1),
        ("S", 0),
        ("s", 0),
        ("M", 0, "m"),
        ("T", 1, 0),
    )
    after = {d["a"] for d, marks in outcomes(tmp_path, *steps, ("W", 1, 0, b"n" * 600)) if marks}
    assert {b"o" * 700, b"", b"n" * 600} <= after
    assert all(set(blob) <= {0, ord("o"), ord("n")} and len(blob) <= 700 for blob in after)


def test_a_disk_can_be_laid_out(tmp_path):
    disk = {"a": b"1", "f": {"g": {}, "b": b"2"}}
    lay(disk, tmp_path)
    assert (tmp_path / "a").read_bytes() == b"1" and (tmp_path / "f" / "b").read_bytes() == b"2"
    assert list((tmp_path / "f" / "g").iterdir()) == []
