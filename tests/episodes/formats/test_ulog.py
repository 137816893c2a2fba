"""ULog: files written by the published layout; pyulog reads the same values."""

import struct

import numpy as np
import pytest
from pyulog import ULog

from flyball.base import Damaged, InputError, Unsupported
from flyball.episodes.episode import Event
from flyball.episodes.formats import ulog
from flyball.episodes.formats.ulog import FORMAT, SYNC
from flyball.episodes.intake import Intake
from flyball.episodes.testing import check_format


def message(kind, data):
    return struct.pack("<HB", len(data), ord(kind)) + data


def info(kind, name, data):
    key = f"{kind} {name}".encode()
    return bytes([len(key)]) + key + data


HEAD = b"ULog\x01\x12\x35\x01" + struct.pack("<Q", 5_000_000)
FLAGS = message("B", bytes(40))
FORMATS = b"".join(
    message("F", text.encode())
    for text in (
        "attitude:uint64_t timestamp;float[4] q;bool armed;uint8_t[7] _padding0;",
        "esc:float rpm;int16_t[2] code;",
        "motors:uint64_t timestamp;esc[2] esc;char[6] mode;char[6] maker;int8_t _padding0;double x;",
    )
)
DEFINITIONS = (
    HEAD + FLAGS + FORMATS
    + message("I", info("char[3]", "sys_name", b"PX4"))
    + message("I", info("uint32_t", "ver", struct.pack("<I", 77)))
    + message("M", b"\0" + info("char[2]", "boot", b"ok"))
    + message("P", info("float", "ROLL_P", struct.pack("<f", 6.5)))
    + message("P", info("int32_t", "MODE", struct.pack("<i", -3)))
    + message("Q", b"\1" + info("float", "ROLL_P", struct.pack("<f", 1)))
)  # fmt: skip
ADDS = (
    message("A", struct.pack("<BH", 0, 1) + b"attitude")
    + message("A", struct.pack("<BH", 1, 2) + b"attitude")
    + message("A", struct.pack("<BH", 0, 3) + b"motors")
)


def attitude(number, i, padding=True):
    body = struct.pack("<HQ4f?", number, 5_000_000 + 1000 * i, i, 0.5, -i, number, i % 2)
    return message("D", body + bytes(7 * padding))


def motors(i, mode=b"hover"):
    rows = struct.pack("<Qfhhfhh", 5_000_000 + 2000 * i, 10 * i, i, -i, 20 * i, 3, 4)
    return message(
        "D", struct.pack("<H", 3) + rows + mode.ljust(6, b"\0") + b"acme\0\0" + b"\7" + struct.pack("<d", i / 3)
    )


def flight(n=30, padding=True):
    out = DEFINITIONS + ADDS
    for i in range(n):
        out += attitude(1, i, padding) + attitude(2, i, padding=False)
        out += motors(i, b"hover" if i < 10 else b"land")
        if i == 12:
            out += message("L", b"4" + struct.pack("<Q", 5_012_000) + b"low battery")
            out += message("C", b"6" + struct.pack("<HQ", 9, 5_013_000) + b"tagged")
            out += message("O", struct.pack("<H", 40)) + message("S", SYNC)
            out += message("P", info("int32_t", "MODE", struct.pack("<i", 8)))
    return out


def write(folder, content, name="flight.ulg"):
    path = folder / "quad" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def read(path, tmp, **settings):
    intake = Intake(tmp, **settings)
    (episode,) = FORMAT.read(path, intake)
    return episode, [f"{n.kind}: {n.text}" for n in intake.notes]


def test_a_flight(tmp_path):
    path = write(tmp_path, flight())
    e, notes = read(path, tmp_path)
    i = np.arange(30)
    q = e.signals["attitude.q"]
    assert q.spec.shape == (4,) and q.spec.dtype == "float32" and e.embodiment == "PX4"
    np.testing.assert_array_equal(q.values, np.stack([i, 0 * i + 0.5, -i, 0 * i + 1], 1))
    np.testing.assert_array_equal(q.t_ns, (5_000_000 + 1000 * i) * 1000)
    assert e.signals["attitude[1].q"].values[:, 3].tolist() == [2] * 30
    assert e.signals["attitude.armed"].values.tolist() == [bool(k % 2) for k in i]
    np.testing.assert_array_equal(e.signals["motors.esc[1].rpm"].values, 20 * i)
    np.testing.assert_array_equal(e.signals["motors.esc[0].code"].values, np.stack([i, -i], 1))
    assert not any("padding" in name or "timestamp" in name for name in e.signals)
    assert e.labels == {"file": "flight", "sys_name": "PX4", "ver": 77, "parameter.ROLL_P": 6.5,
                        "parameter.MODE": -3, "motors.maker": "acme"}  # fmt: skip
    assert e.events == (
        Event(5_000_000_000, "motors.mode", "hover"),
        Event(5_012_000_000, "log.warning", "low battery"),
        Event(5_013_000_000, "log.info", "tagged"),
        Event(5_020_000_000, "motors.mode", "land"),
        Event(5_024_000_000, "dropout", "40 ms"),
        Event(5_024_000_000, "parameter.MODE", "8"),
    )
    assert notes == [f"skipped: {path}: 1 dropouts of 40 ms together, lost while recording",
                     "unmapped: boot: information in 1 parts"]  # fmt: skip


def test_pyulog_reads_the_same(tmp_path):
    path = write(tmp_path, flight(padding=False))  # pyulog 1.3 takes padding at the end of a message for damage
    e, _ = read(path, tmp_path)
    oracle = ULog(str(path))
    assert not oracle.file_corruption
    compared = 0
    for data in oracle.data_list:
        topic = data.name if not data.multi_id else f"{data.name}[{data.multi_id}]"
        for field, values in data.data.items():
            got = e.signals.get(f"{topic}.{field}") or e.signals.get(f"{topic}.{field.rpartition('[')[0]}")
            if field == "timestamp" or got is None:
                continue
            np.testing.assert_array_equal(got.t_ns, data.data["timestamp"].astype(np.int64) * 1000)
            mine = got.values if got.values.ndim == 1 else got.values[:, int(field.rpartition("[")[2][:-1])]
            np.testing.assert_array_equal(mine, values)
            compared += 1
    assert compared == 2 * 5 + 6 + 1
    assert oracle.msg_info_dict["ver"] == e.labels["ver"] and oracle.initial_parameters["ROLL_P"] == 6.5
    assert [m.message for m in oracle.logged_messages] == ["low battery"]
    assert [(t, n, v) for t, n, v in oracle.changed_parameters] == [(5_024_000, "MODE", 8)]


def test_the_contract(tmp_path):
    check_format(FORMAT, write(tmp_path, flight()), checksummed=False)


def test_pieces_of_any_size_give_the_same(tmp_path, monkeypatch):
    path = write(tmp_path, flight())
    whole, _ = read(path, tmp_path)
    monkeypatch.setattr(ulog, "PIECE", 300)
    parts, _ = read(path, tmp_path, memory=0)
    assert parts.events == whole.events and parts.labels == whole.labels
    for name, s in whole.signals.items():
        np.testing.assert_array_equal(parts.signals[name].values, s.values)
        np.testing.assert_array_equal(parts.signals[name].t_ns, s.t_ns)


def test_salvage_goes_on_at_the_next_synchronisation_mark(tmp_path):
    sound = flight(20)
    at = len(sound)
    bad = message("D", struct.pack("<HQ", 99, 1)) + attitude(1, 20)
    path = write(tmp_path, sound + bad + message("S", SYNC) + attitude(1, 21) + attitude(1, 22)[:-4])
    with pytest.raises(
        Damaged, match=rf"flight.ulg: offset {at}: data with the message id 99, which nothing announced"
    ):
        read(path, tmp_path)
    e, notes = read(path, tmp_path, salvage=True)
    assert e.signals["attitude.q"].values[:, 0].tolist() == [*range(20), 21]
    assert sum("salvaged" in n for n in notes) == 2 and "ends within a message" in notes[1]


def test_data_appended_after_a_crash_is_read_and_what_it_cut_is_told(tmp_path):
    start = flight(10)
    cut = start[:-5]
    flags = message("B", bytes(8) + b"\1" + bytes(7) + struct.pack("<3Q", len(cut), 0, 0))
    whole = cut + attitude(1, 99)
    path = write(tmp_path, whole.replace(FLAGS, flags))
    e, notes = read(path, tmp_path)
    assert e.signals["attitude.q"].values[-1, 0] == 99 and len(e.signals["motors.x"].values) == 9
    assert any("bytes of an unfinished message before appended data" in n for n in notes)


def test_time_that_runs_backwards_is_put_in_order_and_told(tmp_path):
    path = write(tmp_path, DEFINITIONS + ADDS + attitude(1, 3) + attitude(1, 1) + attitude(1, 2))
    e, notes = read(path, tmp_path)
    assert e.signals["attitude.q"].values[:, 0].tolist() == [1, 2, 3]
    assert "clock: attitude: 1 of 3 messages run backwards in time, put in order" in notes


def cyclic(name="a"):
    return message("F", b"a:uint64_t timestamp;b b;") + message("F", b"b:a a;")


BOMB = b"".join(message("F", f"f{i}:f{i + 1}[1000] x;".encode()) for i in range(9)) + message(
    "F", b"f9:int8_t[1000] x;"
)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a ULog"),
        (b"ULog\x01\x12\x36" + bytes(9), "not a ULog"),
        (DEFINITIONS + ADDS, "holds no messages"),
        (HEAD + message("F", b"nonsense"), "offset 16: cannot read" ),
        (HEAD + message("F", b"a:float[70000] x;"), "cannot read the field"),
        (HEAD + cyclic() + message("A", b"\0\1\0a"), "more than 16 deep"),
        (HEAD + BOMB + message("A", b"\0\1\0f0"), "more than 4096 fields"),
        (HEAD + message("F", b"a:float x;") + message("A", b"\0\1\0a"), "no timestamp"),
        (HEAD + message("A", b"\0\1\0a"), "'a' is used and not defined"),
        (DEFINITIONS + ADDS + message("D", b"\1"), "data without a message id"),
        (DEFINITIONS + ADDS + message("D", b"\1\0" + bytes(99)), "99 bytes of data for attitude, which has 25"),
        (DEFINITIONS + ADDS + message("D", b"\1\0" + b"\xff" * 25), "a time stamp of 18446744073709551615 us"),
        (DEFINITIONS + ADDS + message("L", b"4" + b"\xff" * 8), "a time stamp of"),
        (DEFINITIONS + ADDS + message("O", b"1"), "not a sound message of type 'O'"),
        (DEFINITIONS + message("I", b"\xff"), "information without a name"),
        (DEFINITIONS + message("I", info("uint32_t", "x", b"1")), "type 'I'"),
        (DEFINITIONS + b"\0\0\0", "no message begins with the type 0"),
        (DEFINITIONS + message("S", b"x"), "synchronisation mark"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, content, says):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read(path, tmp_path)
    assert says in caught.value.line() and str(path) in caught.value.line()


def test_unknown_incompatible_flags_are_refused(tmp_path):
    with pytest.raises(Unsupported, match="incompatible flags"):
        read(write(tmp_path, HEAD + message("B", bytes(8) + b"\2" + bytes(31))), tmp_path)
