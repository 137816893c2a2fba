"""What a user gets wrong, as a table: one line that names file, place, what is allowed and what to run next; exit code
2, or 3 where the rest of the work was done; and nothing is lost or half done."""

import os
import shutil
import socket
import sqlite3
import struct

import numpy as np
import pytest

from flyball.apps.cli import ingest as verb
from flyball.apps.cli.main import main
from flyball.base.workspace import Workspace
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.ingest import ingest

from .conftest import record_attempt
from .foreign import START, arm_log, joints, text, write_log

MCAP = b"\x89MCAP0\r\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with two episodes, and a sound log beside it."""
    folder = tmp_path_factory.mktemp("made")
    w = Workspace(folder / "w")
    (folder / "logs").mkdir()
    for i in range(2):
        record_attempt(folder / "logs" / f"{i}.mcap", n=5, seed=i)
    ingest(w, [folder / "logs"])
    w.store.close()
    arm_log(folder / "arm.mcap", n=60, embodiment="flyarm-5")
    return folder


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    """The current folder, with the workspace ``w`` and ``good.mcap``."""
    shutil.copytree(made / "w", tmp_path / "w")
    shutil.copy(made / "arm.mcap", tmp_path / "good.mcap")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verb, "_cores", lambda: 1)
    return tmp_path


def state(folder):
    """Everything a refusal must leave as it was."""
    w = Workspace(folder / "w")
    rows = [r.digest for r in Catalogue(w.store).query()]
    artifacts = w.store.read("SELECT kind, digest FROM artifacts ORDER BY seq")
    w.store.close()
    files = {
        str(p.relative_to(folder)): p.lstat().st_size
        for p in sorted(folder.rglob("*"))
        if not p.name.startswith("flyball.db") and "channels" not in p.parts
    }
    return rows, artifacts, files


def write(name, content):
    def make(here):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).write_bytes(content if isinstance(content, bytes) else content(here))

    return make


def record(opcode, body):
    return bytes([opcode]) + len(body).to_bytes(8, "little") + body


def string(s):
    raw = s if isinstance(s, bytes) else s.encode()
    return struct.pack("<I", len(raw)) + raw


def hand_made(*records, encoding="ros2msg", schema=b"float64 data", name="pkg/msg/X", message="cdr", log_ns=(1, 2)):
    """An MCAP file without chunks and checksums."""
    body = record(1, string("") + string(""))
    body += record(3, struct.pack("<H", 1) + string(name) + string(encoding) + string(schema))
    body += record(4, struct.pack("<HH", 1, 1) + string("/q") + string(message) + struct.pack("<I", 0))
    for t in log_ns:
        body += record(5, struct.pack("<HIQQ", 1, 0, t, t) + b"\0\1\0\0" + struct.pack("<d", 1.5))
    for r in records:
        body += r
    return MCAP + body + record(15, struct.pack("<I", 0)) + record(2, struct.pack("<QQI", 0, 0, 0)) + MCAP


SNAPPY = record(6, struct.pack("<QQQI", 0, 9, 4, 0) + string("snappy") + struct.pack("<Q", 4) + b"abcd")


def flipped(here):
    blob = bytearray((here / "good.mcap").read_bytes())
    blob[len(blob) // 3] ^= 4
    return bytes(blob)


def cut(here):
    blob = (here / "good.mcap").read_bytes()
    return blob[: len(blob) // 2]


def fifo(here):
    os.mkfifo(here / "x.mcap")


def unix_socket(here):
    s = socket.socket(socket.AF_UNIX)
    s.bind("x.mcap")  # relative: such names are short
    s.close()


def folder_with(**files):
    def make(here):
        for name, content in files.items():
            path = here / "log" / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    return make


def bag_folder(path_inside):
    info = f"""rosbag2_bagfile_information:
  version: 5
  storage_identifier: sqlite3
  relative_file_paths: [{path_inside}]
  duration: {{nanoseconds: 1}}
  starting_time: {{nanoseconds_since_epoch: 1}}
  message_count: 1
  topics_with_message_count: []
  compression_format: ""
  compression_mode: ""
  files: []
"""
    return folder_with(**{"metadata.yaml": info.encode()})


def link_out(here):
    bag_folder("a.db3")(here)
    (here / "secret").write_bytes(b"not for you")
    (here / "log" / "a.db3").symlink_to(here / "secret")


def database(name, *statements):
    def make(here):
        db = sqlite3.connect(here / name)
        for s in statements:
            db.execute(s)
        db.commit()
        db.close()

    return make


def parquet(columns):
    def make(here):
        pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        pq.write_table(pa.table(columns), here / "x.parquet")

    return make


def channel_map(body):
    def make(here):
        (here / "w" / "channels").mkdir(exist_ok=True)
        (here / "w" / "channels" / "flyarm-5.toml").write_text(body)

    return make


ENTRY = 'logs = "flyarm-5"\n[[signal]]\nname = "joint.position"\nfrom = "joint_states.position"\n'


def rows(make):
    return lambda here: write_log(here / "x.mcap", make())


def still(here):
    write_log(here / "x.mcap", [(START + i, "/t", text("the same")) for i in range(3)])


def lerobot(info):
    return folder_with(meta__info_json=b"") if info is None else folder_with(**{"meta__info.json": info})


# what is there -> what is typed after `flyball ingest`, and what the one line names
REFUSED = {
    # ---- no file at all
    "missing": (None, ["nowhere.mcap"], ["nowhere.mcap", "no such file or folder"]),
    "missing among good ones": (None, ["good.mcap", "nowhere.mcap"], ["nowhere.mcap", "no such file or folder"]),
    "a name that is too long": (None, ["x" * 300 + ".mcap"], ["File name too long"]),
    "a file taken for a folder": (None, ["good.mcap/x.mcap"], ["good.mcap/x.mcap", "no such file or folder"]),
    "dangling link": (lambda h: (h / "x.mcap").symlink_to("gone"), ["x.mcap"], ["x.mcap", "no such file"]),
    "link to itself": (lambda h: (h / "x.mcap").symlink_to("x.mcap"), ["x.mcap"], ["x.mcap"]),
    "pipe": (fifo, ["x.mcap"], ["x.mcap", "a pipe", "allowed: files"]),
    "socket": (unix_socket, ["x.mcap"], ["x.mcap", "a socket", "allowed: files"]),
    "device": (lambda h: (h / "x.mcap").symlink_to("/dev/zero"), ["x.mcap"], ["x.mcap", "a device", "allowed: files"]),
    "folder without logs": (write("docs/a.txt", b"x"), ["docs"], ["docs", "no log found", "allowed:", ".mcap"]),
    "empty folder": (lambda h: (h / "log").mkdir(), ["log"], ["log", "no log found"]),
    "folder called like a file": (lambda h: (h / "x.mcap").mkdir(), ["x.mcap"], ["x.mcap", "no log found"]),
    # ---- no log
    "suffix without format": (
        write("a.docx", b"x"), ["a.docx"], ["a.docx", "no format reads .docx", "allowed:", ".bag"],
    ),
    "no suffix": (write("log", b"x"), ["log"], ["log", "files without a suffix", "allowed:"]),
    "empty file": (write("x.mcap", b""), ["x.mcap"], ["x.mcap", "at byte 0"]),
    "wrong magic": (write("x.mcap", b"PK\3\4" + bytes(100)), ["x.mcap"], ["x.mcap at byte 0", "not an MCAP file"]),
    "magic and nothing else": (write("x.mcap", MCAP), ["x.mcap"], ["x.mcap at byte"]),
    "truncated": (write("x.mcap", cut), ["x.mcap"], ["x.mcap at byte", "truncated", "--salvage x.mcap"]),
    "a flipped bit": (write("x.mcap", flipped), ["x.mcap"], ["x.mcap at byte", "salvage"]),
    "oversized length": (
        write("x.mcap", MCAP + b"\6" + b"\xff" * 7 + b"\x7f" + bytes(50)), ["x.mcap"], ["x.mcap at byte 8"],
    ),
    "unknown compression": (
        write("x.mcap", hand_made(SNAPPY)),
        ["x.mcap"], ["x.mcap", "snappy", "allowed"],
    ),
    "zero messages": (write("x.mcap", hand_made(log_ns=())), ["x.mcap"], ["x.mcap", "holds no messages"]),
    "text that never changes": (still, ["x.mcap"], ["x.mcap", "holds no messages"]),
    "unknown schema": (
        write("x.mcap", hand_made(encoding="asn1", message="ber")), ["x.mcap"], ["x.mcap", "/q", "ber/asn1"],
    ),
    "no schema text": (write("x.mcap", hand_made(schema=b"\xff\xfe")), ["x.mcap"], ["x.mcap", "/q"]),
    "cyclic message definition": (
        write("x.mcap", hand_made(schema=b"pkg/Y y\n" + b"=" * 80 + b"\nMSG: pkg/Y\npkg/X x\n")), ["x.mcap"],
        ["x.mcap", "/q"],
    ),
    "a type that is not defined": (write("x.mcap", hand_made(schema=b"pkg/Y y")), ["x.mcap"], ["x.mcap", "pkg/Y"]),
    "messages that do not fit": (write("x.mcap", hand_made(schema=b"float64[9] data")), ["x.mcap"], ["x.mcap", "/q"]),
    "absurd time stamps": (write("x.mcap", hand_made(log_ns=(2**64 - 2, 2**64 - 1))), ["x.mcap"], ["x.mcap", "2262"]),
    "our record, but no JSON": (
        write("x.mcap", hand_made(record(12, string("flyball") + string(string("json") + string("{"))))), ["x.mcap"],
        ["x.mcap", "not JSON"],
    ),
    "our record of two bodies": (
        write("x.mcap", hand_made(record(12, string("flyball") + string(string("json") + string('{"robot": "r"}'))))),
        ["x.mcap"], ["x.mcap", "embodiment"],
    ),
    # ---- tables
    "0-byte parquet": (write("x.parquet", b""), ["x.parquet"], ["x.parquet"]),
    "no parquet": (write("x.parquet", b"PAR1" + bytes(40) + b"PAR1"), ["x.parquet"], ["x.parquet"]),
    "parquet without time": (parquet({"a": [2.0, 1.0, 3.0]}), ["x.parquet"], ["x.parquet", "table.time"]),
    "empty csv": (write("x.csv", b""), ["x.csv"], ["x.csv"]),
    "csv with a header alone": (write("x.csv", b"t,a\n"), ["x.csv"], ["x.csv"]),
    "ragged csv": (write("x.csv", b"t,a\n0,1\n1,2,3\n2\n"), ["x.csv"], ["x.csv", "row"]),
    "csv with one name twice": (
        write("x.csv", b"t,a,a\n0,1,1\n1,2,2\n"), ["x.csv"], ["x.csv", "two columns named 'a'"],
    ),
    "NaN times": (write("x.csv", b"t,a\nnan,1\nnan,2\n"), ["x.csv"], ["x.csv"]),
    "times that are no numbers": (write("x.csv", b"t,a\nsoon,1\nlater,2\n"), ["x.csv"], ["x.csv"]),
    "unknown unit of time": (
        write("x.csv", b"t,a\n0,1\n1,2\n"), ["x.csv", "--option", "table.unit=parsec"],
        ["x.csv", "parsec", "allowed: ns"],
    ),
    "a rate that is none": (
        write("x.csv", b"a\n0\n1\n"), ["x.csv", "--option", "table.hz=fast"],
        ["x.csv", "table.hz", "'fast'", "allowed:"],
    ),
    # ---- other formats
    "not a database": (write("x.db3", b"x" * 100), ["x.db3"], ["x.db3"]),
    "a database of something else": (database("x.db3", "CREATE TABLE a (b)"), ["x.db3"], ["x.db3"]),
    "wrong magic of a bag": (write("x.bag", b"#ROSBAG V9.9\n" + bytes(50)), ["x.bag"], ["x.bag"]),
    "empty bag": (write("x.bag", b""), ["x.bag"], ["x.bag"]),
    "wrong magic of a flight log": (write("x.ulg", b"y" * 50), ["x.ulg"], ["x.ulg"]),
    "wrong checksum of a record": (write("x.tfrecord", b"\5" + bytes(30)), ["x.tfrecord"], ["x.tfrecord"]),
    "bag folder that leads out": (bag_folder("../../w/flyball.db"), ["log"], ["log"]),
    "bag folder with an absolute path": (bag_folder("/etc/passwd"), ["log"], ["log"]),
    "bag folder with a link out": (link_out, ["log"], ["log", "symbolic link out of the folder", "allowed:"]),
    "bag folder without its files": (bag_folder("a.db3"), ["log"], ["log", "no log found"]),
    "dataset folder with broken facts": (lerobot(b"{"), ["log"], ["log"]),
    "dataset folder of an unknown version": (lerobot(b'{"codebase_version": "v9.0"}'), ["log"], ["log"]),
    # ---- channel maps
    "map that is no TOML": (channel_map("logs = ["), ["good.mcap"], ["flyarm-5.toml", "not valid TOML", "at end"]),
    "map with an unknown key": (
        channel_map(ENTRY + "scal = 2\n"), ["good.mcap"], ["flyarm-5.toml: signal 1", "'scale'"],
    ),
    "map with a unit that does not convert": (
        channel_map(ENTRY + 'unit = "V"\n'), ["good.mcap"], ["flyarm-5.toml", "is in V", "in rad", "allowed:"],
    ),
    "map with a wrong number of columns": (
        channel_map(ENTRY + "columns = [0, 1]\n"), ["good.mcap"], ["flyarm-5.toml", "2 columns", "has 5", "allowed:"],
    ),
    "map with a column that is not there": (
        channel_map(ENTRY + 'columns = ["yaw", "pitsch", "roll", "elbow", "pitch"]\n'), ["good.mcap"],
        ["flyarm-5.toml", "'pitsch'", "allowed: roll, yaw"],
    ),
    "map that makes two signals one": (
        channel_map(ENTRY.replace("joint.position", "motor.temperature")), ["good.mcap"],
        ["flyarm-5.toml", "another signal of that name"],
    ),
    "map with an unknown rule": (
        channel_map('logs = "flyarm-5"\n[episodes]\nrule = "now"\n'), ["good.mcap"],
        ["flyarm-5.toml: episodes", "allowed: auto"],
    ),
    "map that demands events": (
        channel_map('logs = "flyarm-5"\n[episodes]\nrule = "events"\n'), ["good.mcap"],
        ["good.mcap", "allowed: episode.start"],
    ),
    # ---- what is typed
    "unknown option": (None, ["good.mcap", "--wrokers", "2"], ["--wrokers", "try: flyball"]),
    "no processes": (None, ["good.mcap", "--workers", "0"], ["--workers 0", "allowed: 1 or more"]),
    "processes that are no number": (None, ["good.mcap", "--workers", "two"], ["--workers", "'two'"]),
    "a setting without value": (None, ["good.mcap", "--option", "table.time"], ["--option table.time", "KEY=VALUE"]),
    "two modes at once": (None, ["--watch", "--again"], ["--watch", "--again", "allowed: one of them"]),
    # ---- the workspace
    "workspace is a file": (None, ["good.mcap", "--workspace", "good.mcap"], ["good.mcap", "not a folder", "allowed:"]),
    "workspace below a file": (None, ["good.mcap", "--workspace", "good.mcap/w"], ["good.mcap/w"]),
    "workspace is somebody else's": (
        write("home/a.txt", b"x"), ["good.mcap", "--workspace", "home"],
        ["home", "not a Flyball workspace", "allowed:"],
    ),
    "no workspace to look into": (None, ["--workspace", "new"], ["new", "no workspace here", "try: flyball ingest"]),
    "settings that are no TOML": (
        write("other/flyball.toml", b"layout = "), ["good.mcap", "--workspace", "other"],
        ["other/flyball.toml", "TOML"],
    ),
    "options that are no table": (
        write("w/flyball.toml", b"layout = 1\n[ingest]\noptions = 3\n"), ["good.mcap"],
        ["flyball.toml", "[ingest.options]"],
    ),
    "store that is no database": (
        lambda h: [(h / "w" / f"flyball.db{s}").write_bytes(b"x" * 5000) for s in ("", "-wal")], ["good.mcap"],
        ["flyball.db", "not a usable database"],
    ),
}  # fmt: skip


def run(capsys, *argv):
    code = main(list(argv))
    out, err = capsys.readouterr()
    return code, out, err


def one_line(err, names):
    assert err.count("\n") == 1 and err.endswith("\n"), f"not one line: {err!r}"
    assert "Traceback" not in err and "details:" not in err and "defect" not in err, err
    for name in names:
        assert name in err, f"{name!r} is not in: {err}"


@pytest.mark.parametrize("what", REFUSED)
def test_ingest_refuses_in_one_line_and_changes_nothing(place, capsys, what):
    make, argv, names = REFUSED[what]
    if make is not None:
        make(place)
    before = None if what == "store that is no database" or "options" in what else state(place)
    argv = argv if "--workspace" in argv else [*argv, "--workspace", "w"]
    code, out, err = run(capsys, "ingest", *argv)
    one_line(err, names)
    assert (code, out) == (2, "")
    if before is not None:
        assert state(place) == before
    assert not (place / "new").exists()


@pytest.mark.parametrize("what", ["truncated", "pipe", "unknown option", "map that is no TOML"])
def test_a_refusal_under_json_is_one_document(place, capsys, what):
    import json

    make, argv, names = REFUSED[what]
    if make is not None:
        make(place)
    code, out, err = run(capsys, "ingest", *argv, "--workspace", "w", "--json")
    assert code == 2 and err.count("\n") == 1
    found = json.loads(out)["error"]
    assert found["exit_code"] == 2 and all(n in found["line"] for n in names)


# ---- the inbox: bad ones are put aside with the reason, good ones go on


def link_in_inbox(here):
    (here / "w" / "inbox" / "x.mcap").symlink_to(here / "good.mcap")


INBOX = {
    "garbage": (write("w/inbox/x.mcap", b"garbage"), "x.mcap", ["not an MCAP file"]),
    "empty": (write("w/inbox/x.mcap", b""), "x.mcap", ["at byte 0"]),
    "truncated": (write("w/inbox/x.mcap", cut), "x.mcap", ["truncated", "can be saved", "--salvage w/quarantine/"]),
    "no log at all": (write("w/inbox/photo.jpg", b"\xff\xd8"), "photo.jpg", ["no format reads .jpg", "allowed:"]),
    "in a folder": (write("w/inbox/robot-7/x.mcap", b"garbage"), "x.mcap", ["not an MCAP file"]),
    "link": (link_in_inbox, "x.mcap", ["a symbolic link", "allowed:"]),
    "pipe": (lambda h: os.mkfifo(h / "w" / "inbox" / "x.mcap"), "x.mcap", ["a pipe", "allowed:"]),
    "a name of two lines": (write("w/inbox/a\nb.mcap", b"garbage"), "a\nb.mcap", ["not an MCAP file"]),
    "a name that is no text": (
        lambda h: open(os.fsencode(h / "w" / "inbox") + b"/\xff\xfe.mcap", "wb").close(), "\udcff\udcfe.mcap",
        ["at byte 0"],
    ),
    "a name as long as names may be": (
        write("w/inbox/" + "n" * 250 + ".mcap", b"garbage"), "n" * 175 + ".mcap", ["not an MCAP file"],
    ),
    "quotes and blanks": (write("w/inbox/it's \"one\" .mcap", b"garbage"), "it's \"one\" .mcap", ["not an MCAP file"]),
}  # fmt: skip


@pytest.mark.parametrize("what", INBOX)
def test_the_inbox_goes_on_without_the_bad_one(place, capsys, what):
    make, name, names = INBOX[what]
    make(place)
    shutil.copy(place / "good.mcap", place / "w" / "inbox" / "good.mcap")
    code, out, err = run(capsys, "ingest", "--workspace", "w")
    losses = [line for line in err.splitlines() if line.startswith("quarantined: ")]
    assert code == 3 and len(losses) == 1 and "1 episodes added" in out and "1 files quarantined" in out
    assert all(n in losses[0] for n in names), losses[0]
    kept = [p.name for p in (place / "w" / "quarantine").iterdir()]
    assert len(kept) == 2 and any(k.endswith(f"-{name}") for k in kept) and any(k.endswith(".reason.txt") for k in kept)
    reason = next((place / "w" / "quarantine").glob("*.reason.txt")).read_text()
    assert reason.count("\n") == 1 and all(n in reason for n in names)
    assert not [p for p in (place / "w" / "inbox").rglob("*") if not p.is_dir()]
    code, out, err = run(capsys, "ingest", "--workspace", "w")
    assert (code, err) == (0, "") and "0 episodes added" in out


def test_what_was_put_aside_can_be_salvaged_later(place, capsys):
    blob = arm_log(place / "long.mcap", n=400, embodiment="flyarm-5") is not None and (place / "long.mcap").read_bytes()
    (place / "w" / "inbox" / "x.mcap").write_bytes(blob[: len(blob) // 2])
    _, _, err = run(capsys, "ingest", "--workspace", "w")
    command = err.splitlines()[0].partition("try: flyball ")[2].split()
    code, out, err = run(capsys, *command, "--workspace", "w")
    assert code == 3 and "1 episodes added" in out and "salvaged: w/quarantine/" in err
    assert not list((place / "w" / "quarantine").iterdir()), "it is in the store now"
    catalogue = Catalogue(Workspace(place / "w").store)
    (row,) = catalogue.query("labels.salvaged")
    assert row.embodiment == "flyarm-5" and 0 < len(catalogue.load(row.digest).signal("joint.position").t_ns) < 400


@pytest.mark.parametrize("seen", ["whole", "damaged"])
def test_a_file_that_grows_is_left_for_the_next_time(place, capsys, monkeypatch, seen):
    from flyball.base import Damaged
    from flyball.episodes.formats.mcap_log import McapLog

    path, read = place / "w" / "inbox" / "x.mcap", McapLog.read
    shutil.copy(place / "good.mcap", path)

    def growing(self, p, intake):
        yield from read(self, p, intake)
        with open(path, "ab") as f:
            f.write(b"more")
        if seen == "damaged":
            raise Damaged("ends in the middle", where=str(path))

    monkeypatch.setattr(McapLog, "read", growing)
    code, _, err = run(capsys, "ingest", "--workspace", "w")
    assert code == 3 and "held back" in err and path.exists() and not list((place / "w" / "quarantine").iterdir())


def test_a_log_that_may_not_be_read_stays(place, capsys, monkeypatch):
    from flyball.episodes import arrivals

    shutil.copy(place / "good.mcap", place / "w" / "inbox" / "x.mcap")

    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(arrivals.hashlib, "file_digest", refuse)
    code, _, err = run(capsys, "ingest", "--workspace", "w")
    assert code == 3 and "Permission denied" in err and (place / "w" / "inbox" / "x.mcap").exists()
    code, _, err = run(capsys, "ingest", "good.mcap", "--workspace", "w")
    one_line(err, ["good.mcap", "Permission denied"])
    assert code == 2


def test_an_inbox_that_cannot_be_emptied_loses_nothing(place, capsys, monkeypatch):
    from pathlib import Path

    shutil.copy(place / "good.mcap", place / "w" / "inbox" / "x.mcap")
    (place / "w" / "inbox" / "bad.mcap").write_bytes(b"bad")
    real, move = Path.unlink, os.replace
    refused = OSError(30, "Read-only file system")

    def unlink(self, **rest):
        if self.parent.name == "inbox":
            raise refused
        return real(self, **rest)

    def replace(a, b, **rest):
        if "inbox" in str(a):
            raise refused
        return move(a, b, **rest)

    monkeypatch.setattr(Path, "unlink", unlink)
    monkeypatch.setattr(os, "replace", replace)
    code, out, err = run(capsys, "ingest", "--workspace", "w")
    assert code == 3 and "1 episodes added" in out and err.count("Read-only") + err.count("not writable") >= 2
    assert len(list((place / "w" / "inbox").iterdir())) == 2
    monkeypatch.undo()


def test_a_full_disk_stops_with_one_line_and_the_same_command_goes_on(place, capsys, monkeypatch):
    from flyball.base import store

    monkeypatch.chdir(place)
    before, sync = state(place), store.sync_file

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "sync_file", full)
    shutil.copy(place / "good.mcap", place / "w" / "inbox" / "x.mcap")
    code, out, err = run(capsys, "ingest", "--workspace", "w")
    one_line(err, ["no space left", "try:"])
    assert (code, out) == (2, "") and (place / "w" / "inbox" / "x.mcap").exists()
    monkeypatch.setattr(store, "sync_file", sync)
    (place / "w" / "inbox" / "x.mcap").rename(place / "x.mcap")
    assert state(place)[:2] == before[:2]
    assert run(capsys, "ingest", "x.mcap", "--workspace", "w")[0] == 0


def test_a_format_whose_library_is_missing_holds_its_logs_back(place, capsys, monkeypatch):
    from flyball.base import NotPossible
    from flyball.episodes.formats.mcap_log import McapLog

    def missing(*_):
        raise NotPossible("log format 'mcap' needs the Python package 'x'", run_next="pip install 'flyball[logs]'")
        yield

    monkeypatch.setattr(McapLog, "read", missing)
    shutil.copy(place / "good.mcap", place / "w" / "inbox" / "x.mcap")
    code, _, err = run(capsys, "ingest", "--workspace", "w")
    assert code == 3 and "held back" in err and "pip install" in err and (place / "w" / "inbox" / "x.mcap").exists()
    code, _, err = run(capsys, "ingest", "good.mcap", "--workspace", "w")
    one_line(err, ["good.mcap", "pip install 'flyball[logs]'"])
    assert code == 2


def test_logs_of_two_bodies_do_not_mix(place, capsys):
    """Two robots' logs in one folder: each goes by its own map, and a dataset of both is refused."""
    arm_log(place / "lab" / "arm.mcap", n=30, embodiment="flyarm-5")
    write_log(
        place / "lab" / "other.mcap",
        [(START + i * 10**7, "/joint_states", joints(START + i * 10**7, ["x", "y"], [0, 1])) for i in range(30)],
        {"embodiment": "gantry"},
    )
    code, _, err = run(capsys, "ingest", "lab", "--workspace", "w")
    assert code == 0 and "gantry.toml" in err and "flyarm-5.toml" in err
    rows = Catalogue(Workspace(place / "w").store).query("embodiment in ('gantry', 'flyarm-5')")
    assert sorted(r.embodiment for r in rows) == ["flyarm-5", "gantry"]
    run(capsys, "datasets", "build", "both", "--where", "embodiment in ('gantry', 'flyarm-5')", "--workspace", "w")
    code, _, err = run(capsys, "datasets", "export", "both", "out", "--workspace", "w")
    assert code == 2 and err.count("\n") == 1 and not (place / "out").exists()


def test_one_bad_file_among_good_ones_costs_only_itself(place, capsys):
    (place / "bad.mcap").write_bytes(b"bad")
    code, out, err = run(capsys, "ingest", "good.mcap", "bad.mcap", "--workspace", "w")
    assert code == 3 and "1 episodes added" in out and "not taken: bad.mcap" in err and (place / "bad.mcap").exists()


def test_a_unit_that_the_log_does_not_state_is_not_guessed(place, capsys):
    degrees = np.degrees([0.1, 0.2, 0.3, 1.4, 0.5])
    names = ("yaw", "shoulder", "elbow", "pitch", "roll")
    times = [START + i * 10**7 for i in range(5)]
    write_log(
        place / "x.mcap", [(t, "/joint_states", joints(t, names, degrees)) for t in times], {"embodiment": "flyarm-5"}
    )
    code, _, err = run(capsys, "ingest", "x.mcap", "--workspace", "w")
    assert code == 0 and "joint_states.position" in err and "kept under the log's name" in err
    file = place / "w" / "channels" / "flyarm-5.toml"
    assert "look like degrees" in file.read_text()
    # as the reason says
    file.write_text(file.read_text() + ENTRY.partition("\n")[2] + 'unit = "deg"\n')
    assert run(capsys, "ingest", "--again", "x.mcap", "--workspace", "w")[0] == 0
    w = Workspace(place / "w")
    (row,) = Catalogue(w.store).query("embodiment = 'flyarm-5' AND verdict = ''")
    np.testing.assert_allclose(
        Catalogue(w.store).load(row.digest).signal("joint.position").values[0], np.radians(degrees)
    )


# ---- the other verbs

OTHERS = {
    "curate without workspace": (None, ["curate", "--workspace", "new"], ["new", "no workspace here", "try:"]),
    "curate by an unknown check": (None, ["curate", "--check", "gaps"], ["gaps", "allowed:"]),
    "curate by half a limit": (None, ["curate", "--set", "offset.angle"], ["offset.angle"]),
    "curate by a limit that is no number": (None, ["curate", "--set", "offset.angle=wide"], ["offset.angle"]),
    "curate by no condition": (None, ["curate", "--where", "outcome ="], ["outcome ="]),
    "curate, and forget what was never said": (None, ["curate", "--forget", "gaps"], ["gaps"]),
    "episodes without workspace": (None, ["episodes", "--workspace", "new"], ["new", "no workspace here"]),
    "episodes by no condition": (None, ["episodes", "--where", "robot ="], ["robot ="]),
    "episodes by an unknown column": (None, ["episodes", "--where", "robbot = 'r1'"], ["robbot", "allowed:"]),
    "episodes by a command": (None, ["episodes", "--where", "1; DROP TABLE episodes"], ["DROP TABLE"]),
    "episodes from a file": (None, ["episodes", "--sql", "SELECT * FROM read_csv('/etc/passwd')"], ["/etc/passwd"]),
    "episodes in no order": (None, ["episodes", "--order", "sideways up"], ["sideways"]),
    "an unknown episode": (None, ["episodes", "show", "feedbeef"], ["feedbeef"]),
    "no episode named": (None, ["episodes", "show"], ["show"]),
    "like nothing": (None, ["episodes", "like", "feedbeef", "--signal", "a", "--from", "0", "--to", "1"], ["feedbeef"]),
    "an unknown dataset": (None, ["datasets", "show", "picks"], ["picks"]),
    "a dataset by no condition": (None, ["datasets", "build", "picks", "--where", "x ="], ["x ="]),
    "a dataset of nothing": (None, ["datasets", "build", "picks", "--where", "robot = 'nobody'"], ["robot = 'nobody'"]),
    "a dataset with a path for a name": (None, ["datasets", "build", "../picks"], ["../picks"]),
    "a dataset merged with nothing": (None, ["datasets", "merge", "all", "picks"], ["picks"]),
    "a dataset imported from nowhere": (None, ["datasets", "import", "nowhere"], ["nowhere"]),
    "a dataset imported from a file": (None, ["datasets", "import", "good.mcap"], ["good.mcap"]),
    "what is done with datasets": (None, ["datasets", "frobnicate"], ["frobnicate"]),
    "salvage from nowhere": (None, ["salvage", "nowhere.mcap"], ["nowhere.mcap"]),
    "salvage from a folder": (lambda h: (h / "log").mkdir(), ["salvage", "log"], ["log"]),
    "salvage from a pipe": (fifo, ["salvage", "x.mcap"], ["x.mcap"]),
    "salvage from nothing": (write("x.mcap", b""), ["salvage", "x.mcap"], ["x.mcap", "nothing can be saved"]),
    "salvage from garbage": (write("x.mcap", b"garbage" * 99), ["salvage", "x.mcap"], ["x.mcap"]),
    "salvage to nowhere": (
        write("x.mcap", cut), ["salvage", "x.mcap", "-o", "no/such/folder.mcap"], ["no/such/folder.mcap"],
    ),
    "salvage onto itself": (write("x.mcap", cut), ["salvage", "x.mcap", "-o", "x.mcap"], ["x.mcap"]),
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_other_verbs_refuse_in_one_line_and_change_nothing(place, capsys, what):
    make, argv, names = OTHERS[what]
    if make is not None:
        make(place)
    before = state(place)
    if argv[0] != "salvage" and "--workspace" not in argv:
        argv = [*argv, "--workspace", "w"]
    code, out, err = run(capsys, *argv)
    one_line(err, names)
    assert (code, out) == (2, "")
    assert state(place) == before and not (place / "new").exists()


def test_there_are_many():
    assert len(REFUSED) + len(INBOX) + len(OTHERS) >= 100
