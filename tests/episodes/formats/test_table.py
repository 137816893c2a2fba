"""Tables: what people write into CSV and Parquet files becomes signals; what cannot be trusted is refused."""

import gzip
import math
import tomllib

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import Damaged, InputError
from flyball.episodes.episode import Event
from flyball.episodes.formats import format_for, formats, table_columns
from flyball.episodes.formats.table import FORMAT
from flyball.episodes.formats.table_map import Sample, infer, load, save, split_unit, unit_by_magnitude
from flyball.episodes.intake import Intake
from flyball.episodes.testing import check_format


def write(tmp, content, name="run_3.csv"):
    path = tmp / "arm" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read_all(path, tmp, **settings):
    intake = Intake(tmp / "intake", **settings)
    intake.folder.mkdir(exist_ok=True)
    return list(FORMAT.read(path, intake)), intake


def read(path, tmp, **settings):
    (episode,), intake = read_all(path, tmp, **settings)
    return episode, intake


def texts(intake, kind=None):
    return [n.text for n in intake.notes if kind in (None, n.kind)]


def ms(signal):
    return (signal.t_ns / 1e6).tolist()


TABLE = (
    "time_s,joint_0_deg,joint_1_deg,tool.x,tool.y,tool.z,gap_mm,force [N],phase,operator,held\n"
    + "".join(f"{i / 50},{10 * i},{-10 * i},{i},{i + 1},{i + 2},{i},0.5,{'reach' if i < 3 else 'lift'},ada,"
              f"{'true' if i % 2 else 'false'}\n" for i in range(6))
)  # fmt: skip


def test_a_table(tmp_path):
    path = write(tmp_path, TABLE)
    assert format_for(path) is formats.load("table")
    e, intake = read(path, tmp_path)
    i = np.arange(6)
    joint = e.signals["joint"]
    assert joint.spec.unit == "rad" and joint.spec.rate_hz == 50 and ms(joint) == (20 * i).tolist()
    np.testing.assert_allclose(joint.values, np.stack([i, -i], 1) * math.pi / 18)
    np.testing.assert_array_equal(e.signals["tool"].values, np.stack([i, i + 1, i + 2], 1))
    np.testing.assert_allclose(e.signals["gap"].values, i * 1e-3)
    assert (e.signals["gap"].spec.unit, e.signals["force"].spec.unit) == ("m", "N")
    assert e.signals["held"].values.tolist() == [False, True] * 3 and e.signals["held"].values.dtype == bool
    assert e.events == (Event(0, "phase", "reach"), Event(60_000_000, "phase", "lift"))
    assert e.labels == {"operator": "ada", "file": "run_3", "run": 3} and e.embodiment == "arm"
    assert texts(intake) == ["joint_0_deg, joint_1_deg: from deg to rad", "gap_mm: from mm to m"]


@pytest.mark.parametrize("piece", [64, 200])
def test_pieces_of_any_size_give_the_same(tmp_path, monkeypatch, piece):
    rows = "".join(f"{i},{i * i},{'a' if i < 50 else 'b'}\n" for i in range(100))
    path = write(tmp_path, "t_ms,x,word\n" + rows)
    whole, _ = read(path, tmp_path)
    monkeypatch.setattr(table_columns, "PIECE", piece)
    parts, _ = read(path, tmp_path, memory=0)
    assert parts.events == whole.events
    np.testing.assert_array_equal(parts.signals["x"].values, whole.signals["x"].values)


def test_the_contract_of_csv(tmp_path):
    check_format(FORMAT, write(tmp_path, TABLE), checksummed=False, ends=False)


def test_the_contract_of_zipped_csv(tmp_path):
    path = write(tmp_path, gzip.compress(TABLE.encode() * 1, mtime=0), "run.csv.gz")
    assert format_for(path) is FORMAT
    assert read(path, tmp_path)[0].labels["file"] == "run"
    check_format(FORMAT, path, checksummed=False)
    blob = bytearray(path.read_bytes())
    blob[-8] ^= 1  # its CRC
    path.write_bytes(blob)
    with pytest.raises(Damaged, match=r"run\.csv\.gz: not a sound table"):
        read(path, tmp_path)


@pytest.mark.parametrize(
    ("header", "values", "expected_ms", "note"),
    [
        ("t", [0, 0.02, 0.04], [0, 20, 40], None),
        ("time [us]", [0, 500, 1000], [0, 0.5, 1], None),
        ("Timestamp (ms)", [5, 6, 7], [5, 6, 7], None),
        ("time_ns", [10**6, 2 * 10**6, 3 * 10**6], [1, 2, 3], None),
        ("%time", [1700000000123456789 + k * 10**7 for k in range(3)], None, None),
        ("#timestamp", [1700000000.25, 1700000000.5, 1700000001.0], None, None),
        ("stamp", [1700000000250, 1700000000500, 1700000001000], None, None),
        ("time", [0, 20, 40], [0, 20, 40], "the unit of 'time' is not in its name; by its steps it is ms"),
        ("seconds", [1, 2, 3], [1000, 2000, 3000], None),
        ("elapsed", ["2026-11-20 12:00:00.25", "2026-11-20 12:00:00.5", "2026-11-20T12:00:01"], None, None),
    ],
)
def test_units_of_time(tmp_path, header, values, expected_ms, note):
    path = write(tmp_path, f"{header},x\n" + "".join(f"{v},1\n" for v in values))
    e, intake = read(path, tmp_path)
    if expected_ms is not None:
        assert ms(e.signals["x"]) == expected_ms
    elif header == "%time":
        assert e.signals["x"].t_ns.tolist() == values  # to the nanosecond
    else:
        first = {"elapsed": 1795176000}.get(header, 1700000000) * 10**9
        assert (e.signals["x"].t_ns - first).tolist() == [25 * 10**7, 5 * 10**8, 10**9]
    assert any(note in t for t in texts(intake, "clock")) if note else not texts(intake, "clock")


def test_seconds_and_nanoseconds_in_two_columns(tmp_path):
    path = write(tmp_path, "header.stamp.sec,header.stamp.nanosec,x\n1700000000,999999999,1\n1700000001,5,2\n")
    e, _ = read(path, tmp_path)
    assert e.signals["x"].t_ns.tolist() == [1700000000999999999, 1700000001000000005]
    assert list(e.signals) == ["x"]


def test_a_time_that_has_no_name_is_told_by_what_it_does(tmp_path):
    e, intake = read(write(tmp_path, "when,x\n0.5,1\n0.75,2\n1.0,3\n"), tmp_path)
    assert ms(e.signals["x"]) == [500, 750, 1000] and any("'when' increases" in t for t in texts(intake, "clock"))
    with pytest.raises(InputError, match=r"no column says when.*table\.time=COLUMN or table\.hz=RATE"):
        read(write(tmp_path, "frame,x\n0,1\n1,2\n2,3\n"), tmp_path)
    e, _ = read(tmp_path / "arm" / "run_3.csv", tmp_path, options={"table.hz": "50"})
    assert ms(e.signals["x"]) == [0, 20, 40]
    e, _ = read(tmp_path / "arm" / "run_3.csv", tmp_path, options={"table.time": "x", "table.unit": "s"})
    assert ms(e.signals["frame"]) == [1000, 2000, 3000]


def test_time_that_runs_backwards_is_put_in_order_and_told(tmp_path):
    e, intake = read(write(tmp_path, "t,x\n0.1,1\n0.3,3\n0.2,2\n"), tmp_path)
    assert e.signals["x"].values.tolist() == [1, 2, 3] and ms(e.signals["x"]) == [100, 200, 300]
    assert any("run_3.csv: 1 of 3 rows run backwards in time, put in order" in t for t in texts(intake, "clock"))


def test_an_empty_cell_is_no_sample_and_nan_is_one(tmp_path):
    e, _ = read(write(tmp_path, "t,slow,q0,q1,fast\n0.1,1,1,2,1\n0.2,,,,nan\n0.3,3,,4,NaN\n"), tmp_path)
    assert ms(e.signals["slow"]) == [100, 300] and e.signals["slow"].values.tolist() == [1, 3]
    np.testing.assert_array_equal(e.signals["q"].values, [[1, 2], [np.nan, 4]])
    np.testing.assert_array_equal(e.signals["fast"].values, [1, np.nan, np.nan])


def test_a_column_that_is_empty_later_on_keeps_the_times_of_its_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(table_columns, "PIECE", 64)
    rows = [f"{i / 10},{i if i < 20 or i % 5 == 0 else ''},{i}\n" for i in range(60)]
    e, _ = read(write(tmp_path, "t,slow,fast\n" + "".join(rows)), tmp_path)
    kept = [i for i in range(60) if i < 20 or i % 5 == 0]
    assert e.signals["slow"].values.tolist() == kept and ms(e.signals["slow"]) == [100 * i for i in kept]
    assert ms(e.signals["fast"]) == [100 * i for i in range(60)]


def test_quaternions_become_wxyz(tmp_path):
    e, _ = read(write(tmp_path, "t,qx,qy,qz,qw,px,py,pz\n0.1,1,2,3,4,5,6,7\n"), tmp_path)
    assert e.signals["q"].values.tolist() == [[4, 1, 2, 3]] and e.signals["p"].values.tolist() == [[5, 6, 7]]


def test_a_column_of_episodes_cuts_the_table(tmp_path):
    rows = [(0, 0.0), (0, 0.1), (0, 0.2), (1, 0.0), (1, 0.1), (5, 0.0), (5, 0.1)]
    path = write(tmp_path, "episode_index,timestamp,x\n" + "".join(f"{k},{t},{i}\n" for i, (k, t) in enumerate(rows)))
    episodes, intake = read_all(path, tmp_path)
    assert [e.signals["x"].values.tolist() for e in episodes] == [[0, 1, 2], [3, 4], [5, 6]]
    assert [e.labels["episode_index"] for e in episodes] == [0, 1, 5] and intake.whole
    assert not texts(intake, "clock")


EUROC = (
    "#timestamp [ns],w_RS_S_x [rad s^-1],w_RS_S_y [rad s^-1],w_RS_S_z [rad s^-1],"
    "a_RS_S_x [m s^-2],a_RS_S_y [m s^-2],a_RS_S_z [m s^-2]\r\n"
)


def test_styles_that_are_found_in_the_field(tmp_path):
    e, _ = read(
        write(tmp_path, EUROC + "1403636579758555392,1,2,3,4,5,6\r\n1403636579763555392,1,2,3,4,5,6\r\n"), tmp_path
    )
    assert {n: (s.spec.unit, s.spec.shape) for n, s in e.signals.items()} == {
        "w_RS_S": ("rad/s", (3,)), "a_RS_S": ("m/s^2", (3,))}  # fmt: skip
    assert e.signals["a_RS_S"].t_ns[1] == 1403636579763555392
    e, _ = read(write(tmp_path, "# recorded with x\n# t; p\nt;p\n0,5;1,5\n1,0;2,5\n"), tmp_path)
    assert e.signals["p"].values.tolist() == [1.5, 2.5] and ms(e.signals["p"]) == [500, 1000]
    e, _ = read(write(tmp_path, "# kept by hand\n# t, p\n0.5,1\n1.0,2\n"), tmp_path)
    assert e.signals["p"].values.tolist() == [1, 2] and ms(e.signals["p"]) == [500, 1000]
    e, _ = read(write(tmp_path, "t\tp\n0.5\t1\n", "x.tsv"), tmp_path)
    assert e.signals["p"].values.tolist() == [1]
    e, _ = read(write(tmp_path, '"t","p"\n"0.5","1"\n'), tmp_path)
    assert e.signals["p"].values.tolist() == [1]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_encodings(tmp_path, encoding):
    e, intake = read(write(tmp_path, "t,Öffnung,wo\n0.5,1,Köln\n1,2,Köln\n".encode(encoding)), tmp_path)
    assert e.signals["Öffnung"].values.tolist() == [1, 2] and e.labels["wo"] == "Köln"
    assert [t for t in texts(intake, "converted") if "Latin-1" in t] == (
        [f"{tmp_path}/arm/run_3.csv: not UTF-8, read as Latin-1"] if encoding == "latin-1" else []
    )


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "empty"),
        ("\n\n", "holds no rows"),
        ("t,x\n", "holds no rows"),
        ("# nothing\n", "holds no rows"),
        ("0,1\n1,2\n", "the first line has no names of columns"),
        ("t,x,x\n0.1,2,3\n", "two columns named 'x'"),
        ("t,x\n0.1,1\n0.2\n", "row 3 has 1 cells where the header has 2"),
        ("t,x\n0.1,1\n0.2,2,3\n", "row 3 has 3 cells where the header has 2"),
        ("t,x\n" + "0.1,1\n" * 2000 + "0.1,oops\n", "column 'x', row 2002: invalid value 'oops'; allowed: numbers"),
        ("t,x\n0.1,1\n0.2,2\n0.3,none yet\n", "column 'x', row 4: invalid value 'none yet'; allowed: numbers"),
        ("t,x\n0.1,1\nlater,2\n0.3,4\n", "column 't', row 3: invalid value 'later'"),
        ("t,x,b\n" + "0.1,1,true\n" * 2000 + "0.1,1,7\n", "column 'b', row 2002: invalid value '7'"),
        ("t,x\n0.1,1\n,2\n", "row 3: no time"),
        ("t,x\n0.1,1\nnan,2\n", "row 3: a time that is none"),
        ("t,x\n0.1,1\n0.2,2\n1e30,2\n", "row 4: a time beyond the year 2262"),
        ("t,x\n0.1,1\n0.2,2", "the last line has no end"),
        ("t,x\n0.1,\0\n", "not text"),
        ("t," + "x" * 300 + "\n0.1,1\n", "300 characters"),
        ("t," + ",".join(f"x{i}y{i}" for i in range(10_001)) + "\n", "10002 columns"),
        ("t,x\n0.1,1" + "0" * (3 << 20) + "\n", "a line longer than"),
        ("t,word\n0.1,\n0.2,\n", "holds no messages"),
    ],
)
def test_what_is_refused(tmp_path, content, says):
    path = write(tmp_path, content)
    with pytest.raises(InputError) as caught:
        read(path, tmp_path)
    assert says in caught.value.line() and str(path) in caught.value.line()


def test_names_that_say_little_are_told(tmp_path):
    e, intake = read(write(tmp_path, "t,,a b/c?,x_mm,x_m\n0.1,9,1,5,6\n0.2,9,2,5,6\n"), tmp_path)
    assert set(e.signals) == {"a_b.c", "x_mm", "x_m"}
    assert e.signals["x_mm"].values.tolist() == [0.005, 0.005] and e.signals["x_m"].values.tolist() == [6, 6]
    assert f"{tmp_path}/arm/run_3.csv: 1 columns without a name" in texts(intake, "skipped")


def parquet(tmp, columns, name="run.parquet", **settings):
    path = tmp / "arm" / name
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.table(columns), path, **settings)
    return path


def recording(n=40):
    i = np.arange(n)
    return {
        "timestamp": pa.array((i / 10).astype(np.float32)),
        "observation.state": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(3.0 * n)), 3),
        "force": pa.array([[k, k + 0.5] for k in i.tolist()], pa.list_(pa.float32())),
        "pose": pa.array([{"x": float(k), "y": 0.0, "z": -1.0} for k in i.tolist()]),
        "count": pa.array(i * 10**10),
        "held": pa.array(i % 2 == 0),
        "phase": pa.array(["a" if k < 20 else "b" for k in i.tolist()]).dictionary_encode(),
        "camera": pa.array([{"bytes": b"\xff\xd8\xff" + bytes([k]), "path": None} for k in i.tolist()]),
        "ragged": pa.array([[1.0] * (k % 3) for k in i.tolist()]),
        "sometimes": pa.array([k if k % 4 == 0 else None for k in i.tolist()]),
    }


def test_a_parquet_file(tmp_path):
    path = parquet(tmp_path, recording(), row_group_size=7)
    e, intake = read(path, tmp_path)
    i = np.arange(40)
    assert ms(e.signals["count"]) == pytest.approx((100 * i).tolist(), abs=1e-3)
    np.testing.assert_array_equal(e.signals["observation.state"].values, np.arange(120.0).reshape(40, 3))
    np.testing.assert_array_equal(e.signals["force"].values, np.stack([i, i + 0.5], 1))
    np.testing.assert_array_equal(e.signals["pose"].values, np.stack([i, 0 * i, 0 * i - 1], 1))
    assert e.signals["force"].values.dtype == np.float32 and e.signals["count"].values.dtype == np.int64
    assert e.signals["count"].values.tolist() == (i * 10**10).tolist()
    assert e.signals["held"].values.tolist() == (i % 2 == 0).tolist()
    assert e.signals["sometimes"].values.tolist() == list(range(0, 40, 4))
    assert [x.text for x in e.events] == ["a", "b"]
    camera = e.frames["camera"]
    blob = intake.blobs[camera.blob].read_bytes()
    assert [blob[a:b][3] for a, b in zip(camera.start, camera.stop, strict=True)] == i.tolist()
    assert camera.encoding == "jpeg" and texts(intake, "unmapped") == ["ragged: values of a kind that is not read"]


def test_the_contract_of_parquet(tmp_path):
    check_format(FORMAT, parquet(tmp_path, recording(), write_page_checksum=True), checksummed=False)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"t": pa.array([], pa.float64())}, "holds no rows"),
        ({"t": pa.array([0.1, None]), "x": pa.array([1, 2])}, "row 2: no time"),
        ({"t": pa.array(["soon", "late"]), "x": pa.array([1, 2])}, "no column says when"),
        ({"t": pa.array([0.1, 0.2]), "x": pa.array([[1.0], [1.0, 2.0]])}, "holds no messages"),
        ({"t_s": pa.array([1, 2**62]), "x": pa.array([1, 2])}, "row 2: a time beyond the year 2262"),
    ],
)
def test_parquet_that_is_refused(tmp_path, columns, says):
    path = parquet(tmp_path, columns)
    with pytest.raises(InputError) as caught:
        read(path, tmp_path)
    assert says in caught.value.line() and str(path) in caught.value.line()


def test_a_column_of_two_names_is_refused(tmp_path):
    table = pa.table([pa.array([0.1]), pa.array([1]), pa.array([2])], names=["t", "x", "x"])
    path = parquet(tmp_path, {"t": pa.array([0.1])})
    pq.write_table(table, path)
    with pytest.raises(Damaged, match="two columns named 'x'"):
        read(path, tmp_path)


def test_lists_that_change_their_size_later_are_refused(tmp_path):
    n = 3000
    path = parquet(tmp_path, {"t": np.arange(n) / 10, "x": pa.array([[1.0, 2.0]] * (n - 1) + [[1.0]])})
    with pytest.raises(Damaged, match=r"run\.parquet: column 'x'.*lists of 1 and of 2 numbers"):
        read(path, tmp_path)


def test_the_map_is_kept_edited_and_used_again(tmp_path):
    path = write(tmp_path, "t,a_deg,b,c\n0.1,90,2,3\n0.2,90,2,3\n")
    options = {"table.map": str(tmp_path / "tables")}
    read(path, tmp_path, options=options)
    (file,) = (tmp_path / "tables").iterdir()
    told = tomllib.loads(file.read_text())
    assert told["time"]["column"] == "t" and [s["name"] for s in told["signals"]] == ["a", "b", "c"]
    text = file.read_text().replace('name = "b"\ncolumns = ["b"]', 'name = "grip"\ncolumns = ["b", "c"]')
    text = text[: text.index('\n[[signals]]\nname = "c"')].replace('unit = ""  # s, ms', 'unit = "ms"  # s, ms')
    file.write_text(text)
    e, _ = read(path, tmp_path, options=options)
    assert e.signals["grip"].values.tolist() == [[2, 3], [2, 3]] and e.signals["grip"].t_ns.tolist() == [
        100_000,
        200_000,
    ]
    assert e.signals["a"].values.tolist() == pytest.approx([math.pi / 2] * 2) and file.read_text() == text
    file.write_text(text.replace("texts = []", 'texts = ["c"]').replace('"b", "c"', '"b"'))
    e, _ = read(path, tmp_path, options=options)
    assert e.labels["c"] == "3"  # a number that is a name
    other = write(tmp_path, "t,q\n0.1,90\n0.2,91\n", "other.csv")
    read(other, tmp_path, options=options)
    assert len(list((tmp_path / "tables").iterdir())) == 2


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[", "cannot be read"),
        ("[time]\nhz = 5\n[[signals]]\nname = 'x'\ncolumns = ['x']\nspeed = 2\n", "no key named 'speed'"),
        ("[time]\ncolumn = 't'\nhz = 5.0\n", "neither a column nor a rate"),
        ("[time]\ncolumn = 't'\nunit = 'h'\n", "the unit of time 'h'"),
        ("[time]\ncolumn = 't'\n[[signals]]\nname = 'x'\ncolumns = ['y']\n", "no column 'y', which"),
        ("[time]\ncolumn = 't'\n[[signals]]\nname = 'x'\ncolumns = ['x']\nunit = 'furlong'\n", "the unit 'furlong'"),
        ("[time]\ncolumn = 't'\n[[signals]]\nname = 'x'\ncolumns = ['x']\nunit = 'm m'\n", "1 columns and 2 units"),
        ("[time]\ncolumn = 't'\n[[signals]]\nname = 'x'\ncolumns = ['word']\n", "its columns are not all numbers"),
        ("[time]\ncolumn = 'word'\n", "'word' holds no times"),
        ("[time]\ncolumn = 't'\n" + "[[signals]]\nname = 'x'\ncolumns = ['x']\n" * 2, "two signals named 'x'"),
    ],
)
def test_maps_that_are_refused(tmp_path, text, says):
    path, file = write(tmp_path, "t,x,word\n0.1,1,a\n0.2,2,b\n"), tmp_path / "map.toml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read(path, tmp_path, options={"table.map": str(file)})
    assert says in caught.value.line() and str(file) in caught.value.line() + str(file) * ("no times" in says)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=12, unique=True))
def test_a_map_of_any_names_can_be_written_and_read(tmp_path_factory, names):
    columns = {"t": Sample("number", np.array([0.1, 0.2]))} | {n: Sample("number", np.zeros(2)) for n in names}
    made = infer(columns, "t", 0, "x.csv")
    file = tmp_path_factory.mktemp("map") / "map.toml"
    save(made, file)
    assert set(made.columns()) == set(columns)
    signals = [s.name for s in made.signals]
    if len(set(signals)) == len(signals):
        assert load(file) == made


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("elbow_deg", ("elbow", "deg")), ("elbow [deg]", ("elbow", "deg")), ("v_m_s", ("v", "m/s")),
        ("w (rad/s)", ("w", "rad/s")), ("torque_Nm", ("torque", "N*m")), ("torque_nm", ("torque_nm", "")),
        ("mass_g", ("mass_g", "")), ("deg", ("deg", "")), ("mode (enum)", ("mode (enum)", "")), ("x[0]", ("x[0]", "")),
        ("duty [%]", ("duty", "percent")),
    ],
)  # fmt: skip
def test_units_in_names(name, expected):
    assert split_unit(name) == expected


@pytest.mark.parametrize(
    ("first", "step", "unit", "sure"),
    [(1.7e18, 1e7, "ns", True), (1.7e15, 1e4, "us", True), (1.7e12, 10, "ms", True), (1.7e9, 0.01, "s", True),
     (2e12, 1e7, "ns", False), (0, 0.01, "s", True), (0, 1e7, "ns", False), (0, 1e4, "us", False),
     (0, 10, "ms", False)],
)  # fmt: skip
def test_units_of_times_by_their_size(first, step, unit, sure):
    assert unit_by_magnitude(first + step * np.arange(50)) == (unit, sure)
