"""The recorder: what the robot writes is what ingest reads, and a file under its final name is complete."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from flyball.base import Conflict, InputError, SignalSpec
from flyball.episodes.formats import read_one
from flyball.episodes.formats.mcap import McapFile
from flyball.episodes.formats.mcap_log import FORMAT
from flyball.episodes.recorder import MAX_T_NS, Recorder
from flyball.episodes.testing import check_format

DTYPES = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20)


def read(path):
    return read_one(path)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_samples_come_back_bit_by_bit(data, body, tmp_path):
    path = tmp_path / "x.mcap"
    path.unlink(missing_ok=True)
    dtype = data.draw(st.sampled_from(DTYPES))
    shape = data.draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4))
    n = data.draw(st.integers(1, 20))
    values = data.draw(hnp.arrays(dtype, (n, *shape)))
    t_ns = sorted(data.draw(st.lists(st.integers(0, MAX_T_NS), min_size=n, max_size=n)))
    events = data.draw(st.lists(st.tuples(st.integers(0, MAX_T_NS), TEXT, TEXT), max_size=3))
    labels = data.draw(st.dictionaries(TEXT, st.integers() | TEXT, max_size=3))
    spec = SignalSpec("extra.signal", shape, dtype, "m", 10.0, "base")
    with Recorder(path, body, {"robot": "r", "labels": labels}, signals=[spec]) as r:
        for t, v in zip(t_ns, values, strict=True):
            r.write("extra.signal", t, v)
        for event in events:
            r.event(*event)
    episode = read(path)
    signal = episode.signal("extra.signal")
    assert signal.spec == spec and signal.t_ns.tolist() == t_ns
    assert signal.values.dtype == np.dtype(dtype) and signal.values.tobytes() == values.tobytes()
    assert [(e.t_ns, e.name, e.text) for e in episode.events] == sorted(events, key=lambda e: e[0])
    assert episode.labels == labels


def test_the_log_says_who_did_what_with_which_body(body, tmp_path, record):
    facts = {
        "instruction": "wave",
        "origin": "teleoperation",
        "release": "a" * 64,
        "scene": "b" * 64,
        "labels": {"turn": 2},
    }
    e = read(record(tmp_path / "a.mcap", seed=7, **facts))
    assert (e.embodiment, e.robot, e.task, e.seed) == ("two-joints", "r1", "wave-v1", 7)
    assert {k: getattr(e, k) for k in facts} == facts
    assert e.outcome == "unknown"
    assert e.signal("joint.target").spec == body.actions[0]
    assert e.signal("gripper.force").values.dtype == np.float32
    (name, raw), *_ = McapFile((tmp_path / "a.mcap").read_bytes()).metadata
    assert name == "flyball" and body.spec_hash() in raw["json"]


def test_labels_may_come_late(body, tmp_path):
    r = Recorder(tmp_path / "a.mcap", body, {"labels": {"turn": 2}})
    r.event(0, "start")
    assert r.close({"clamps": 3}) == r.close() == tmp_path / "a.mcap"
    assert read(tmp_path / "a.mcap").labels == {"turn": 2, "clamps": 3}


def test_an_attempt_of_events_alone_is_an_episode(body, tmp_path):
    with Recorder(tmp_path / "a.mcap", body) as r:
        r.event(5, "supervisor.stop", "the first observation was NaN")
    e = read(tmp_path / "a.mcap")
    assert [x.name for x in e.events] == ["supervisor.stop"] and not e.signals


def test_other_tools_can_read_what_we_write(tmp_path, record):
    """Schemas are real ROS 2 definitions: an independent decoder agrees with ours."""
    typesys = pytest.importorskip("rosbags.typesys", reason="rosbags is not installed")
    path = record(tmp_path / "a.mcap", n=5)
    episode = read(path)
    store = typesys.get_typestore(typesys.Stores.EMPTY)
    seen = {}
    for channel, log_ns, _, payload in McapFile(path.read_bytes()).messages():
        if channel.schema.name not in store.types:
            kinds = typesys.get_types_from_msg(channel.schema.data.decode(), channel.schema.name)
            store.register({k: v for k, v in kinds.items() if k not in store.types})
        m = store.deserialize_cdr(payload, channel.schema.name)
        assert m.stamp.sec * 10**9 + m.stamp.nanosec == log_ns
        seen.setdefault(channel.topic, []).append(m)
    assert sorted(seen) == ["/events", "/gripper/force", "/joint/position", "/joint/target"]
    np.testing.assert_array_equal([m.values for m in seen["/joint/position"]], episode.signal("joint.position").values)
    assert [(m.name, m.msg) for m in seen["/events"]] == [("done", "after 5 steps")]


@pytest.mark.parametrize(
    ("name", "t_ns", "values"),
    [
        ("joint.position", 0, [1.0]),
        ("joint.position", 0, 1.0),
        ("joint.position", 0, ["a", "b"]),
        ("joint.position", -1, [1.0, 2.0]),
        ("joint.position", MAX_T_NS + 1, [1.0, 2.0]),
        ("count", 0, 300),
        ("count", 0, 0.5),
        ("count", 0, float("nan")),
    ],
)
def test_samples_that_break_their_specification_are_not_written(body, tmp_path, name, t_ns, values):
    r = Recorder(tmp_path / "a.mcap", body, signals=[SignalSpec("count", (), "uint8")])
    r.write("joint.position", 0, [5.0, 6.0])
    with pytest.raises(InputError, match=name):
        r.write(name, t_ns, values)
    r.close()
    assert read(tmp_path / "a.mcap").signal("joint.position").values.tolist() == [[5.0, 6.0]]


def test_bad_beginnings_are_refused(body, tmp_path):
    for metadata, says in [
        ({"outcome": "success"}, "outcome"),
        ({"origin": "mars"}, "mars"),
        ({"labels": {"x": object()}}, "JSON"),
    ]:
        with pytest.raises(InputError, match=says):
            Recorder(tmp_path / "a.mcap", body, metadata)
    with pytest.raises(InputError, match="cannot record here"):
        Recorder(tmp_path / "no" / "a.mcap", body)
    (tmp_path / "b.mcap").write_bytes(b"evidence")
    with pytest.raises(Conflict):
        Recorder(tmp_path / "b.mcap", body)
    assert (tmp_path / "b.mcap").read_bytes() == b"evidence"
    r = Recorder(tmp_path / "c.mcap", body)
    r.close()
    with pytest.raises(InputError, match="closed"):
        r.write("joint.position", 0, [0.0, 0.0])


def test_a_robot_that_is_killed_leaves_no_file_that_looks_complete(tmp_path):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]); from conftest import BODY\n"
        "from flyball.episodes.recorder import Recorder\n"
        "r = Recorder(sys.argv[1] + '/a.mcap', BODY)\n"
        "for i in range(3000): r.write('joint.position', i, [i, i])\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)], check=False)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mcap.part"]


def test_our_logs_keep_the_contract_of_a_format(tmp_path, record):
    path = record(tmp_path / "a.mcap", n=30)
    check_format(FORMAT, path, checksummed=True)


def test_recording_needs_no_simulator_trainer_or_ros():
    code = (
        "import sys, flyball.episodes.recorder\n"
        "print([m for m in ('torch', 'mujoco', 'scipy', 'rosbags', 'ray') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"
