"""What messages mean: one recording in every encoding is one episode; nothing is lost without being named."""

import json
from contextlib import contextmanager

import foxglove
import numpy as np
import pytest
from foxglove import messages as fox
from foxglove.mcap import MCAPWriteOptions

from flyball.base import Damaged, InputError, NotPossible
from flyball.episodes.codec import encode
from flyball.episodes.formats import messages as module
from flyball.episodes.formats import read_one
from flyball.episodes.formats.mcap_log import FORMAT
from flyball.episodes.intake import Intake

typesys = pytest.importorskip("rosbags.typesys", reason="rosbags is not installed")
pytest.importorskip("google.protobuf", reason="protobuf is not installed")
ROS1, ROS2 = typesys.get_typestore(typesys.Stores.ROS1_NOETIC), typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
START = 1_760_000_000_000_000_000
STEP = 10_000_000


@contextmanager
def writing(path, **options):
    """``write(topic, schema (name, encoding, data) or None, message encoding, payload, log time)``."""
    context = foxglove.Context()
    writer = foxglove.open_mcap(path, context=context, writer_options=MCAPWriteOptions(chunk_size=4096, **options))
    channels = {}

    def write(topic, schema, encoding, payload, log_ns):
        key = (topic, schema)
        if key not in channels:
            made = foxglove.Schema(name=schema[0], encoding=schema[1], data=schema[2]) if schema else None
            channels[key] = foxglove.Channel(topic, schema=made, message_encoding=encoding, context=context)
        channels[key].log(payload, log_time=log_ns)

    yield write
    writer.close()


def msg2(name):
    return name, "ros2msg", ROS2.generate_msgdef(name, ros_version=2)[0].encode()


def ros2(name, /, **fields):
    return bytes(ROS2.serialize_cdr(ROS2.types[name](**fields), name))


def make(store, name, /, **fields):
    return store.types[name](**fields)


def header(store, t_ns, frame="base", **more):
    stamp = make(store, "builtin_interfaces/msg/Time", sec=t_ns // 10**9, nanosec=t_ns % 10**9)
    return make(store, "std_msgs/msg/Header", stamp=stamp, frame_id=frame, **more)


def read(path, tmp_path, **options):
    """The episode, and what was noted, as (kind, text)."""
    folder = tmp_path / f"room-{len(list(tmp_path.iterdir()))}"
    folder.mkdir()
    intake = Intake(folder, **options)
    (episode,) = FORMAT.read(path, intake)
    return episode, [(n.kind, n.text) for n in intake.notes]


# ---- encodings


def pose_stamped(store, i, t_ns):
    more = {"seq": i} if store is ROS1 else {}
    point = make(store, "geometry_msgs/msg/Point", x=float(i), y=2.0, z=3.0)
    turn = make(store, "geometry_msgs/msg/Quaternion", x=0.1, y=0.2, z=0.3, w=0.9)
    pose = make(store, "geometry_msgs/msg/Pose", position=point, orientation=turn)
    return make(store, "geometry_msgs/msg/PoseStamped", header=header(store, t_ns, **more), pose=pose)


def as_ros2(i, t_ns):
    name = "geometry_msgs/msg/PoseStamped"
    return msg2(name), "cdr", bytes(ROS2.serialize_cdr(pose_stamped(ROS2, i, t_ns), name))


def as_ros1(i, t_ns):
    name = "geometry_msgs/msg/PoseStamped"
    text, _ = ROS1.generate_msgdef(name, ros_version=1)
    schema = (name.replace("/msg/", "/"), "ros1msg", text.encode())
    return schema, "ros1", bytes(ROS1.serialize_ros1(pose_stamped(ROS1, i, t_ns), name))


def as_protobuf(i, t_ns):
    made = fox.PoseInFrame(
        timestamp=fox.Timestamp(sec=t_ns // 10**9, nsec=t_ns % 10**9),
        frame_id="base",
        pose=fox.Pose(position=fox.Vector3(x=i, y=2, z=3), orientation=fox.Quaternion(x=0.1, y=0.2, z=0.3, w=0.9)),
    )
    schema = fox.PoseInFrame.get_schema()
    return (schema.name, schema.encoding, schema.data), "protobuf", made.encode()


def as_json(i, t_ns):
    made = {
        "timestamp": {"sec": t_ns // 10**9, "nsec": t_ns % 10**9},
        "frame_id": "base",
        "pose": {
            "position": {"x": i, "y": 2, "z": 3},
            "orientation": {"x": 0.1, "y": 0.2, "z": 0.3, "w": 0.9},
        },
    }
    schema = {"properties": {"timestamp": {"type": "object"}, "frame_id": {"type": "string"}, "pose": {}}}
    return ("foxglove.PoseInFrame", "jsonschema", json.dumps(schema).encode()), "json", json.dumps(made).encode()


@pytest.mark.parametrize("write_as", [as_ros2, as_ros1, as_protobuf, as_json], ids=lambda f: f.__name__)
def test_a_pose_is_the_same_signal_in_every_encoding(tmp_path, write_as):
    path = tmp_path / "log.mcap"
    with writing(path) as write:
        for i in range(200):
            t_ns = START + i * STEP
            schema, encoding, payload = write_as(i, t_ns)
            write("/cube/pose", schema, encoding, payload, t_ns + 2_000_000)
    episode, notes = read(path, tmp_path)
    (pose,) = episode.signals.values()
    assert pose.spec.name == "cube.pose" and pose.spec.frame == "base" and pose.spec.rate_hz == 100
    assert pose.spec.unit == "m m m 1 1 1 1"
    np.testing.assert_array_equal(pose.t_ns, START + np.arange(200) * STEP)
    np.testing.assert_array_equal(pose.values, [[i, 2, 3, 0.9, 0.1, 0.2, 0.3] for i in range(200)])
    assert episode.labels["clocks"] == {"/cube/pose": {"clock": "header", "header_ms": [-2.0, 0.0]}}
    assert notes == [] and "undecoded" not in episode.labels and episode.events == ()


# ---- text


def test_text_that_never_changes_is_a_label_and_text_that_does_is_events(tmp_path):
    path = tmp_path / "log.mcap"
    text, joints = msg2("std_msgs/msg/String"), msg2("sensor_msgs/msg/JointState")
    with writing(path) as write:
        for i in range(100):
            t_ns = START + i * STEP
            write("/robot_type", text, "cdr", ros2("std_msgs/msg/String", data="arm"), t_ns)
            write("/speech", text, "cdr", ros2("std_msgs/msg/String", data="stop" if i in (5, 6) else "go"), t_ns)
            state = {"mode": "run" if 10 <= i < 20 else "idle", "x": i}
            write("/state", None, "json", json.dumps(state).encode(), t_ns)
            q = ros2(
                "sensor_msgs/msg/JointState", header=header(ROS2, t_ns), name=["hip", "knee"], position=np.ones(2),
                velocity=np.zeros(2), effort=np.zeros(0),
            )  # fmt: skip
            write("/joints", joints, "cdr", q, t_ns)
    episode, _ = read(path, tmp_path)
    assert episode.labels["robot_type"] == "arm" and episode.labels["joints.name"] == ["hip", "knee"]
    assert set(episode.signals) == {"joints.position", "joints.velocity", "state.x"}
    speech = [e for e in episode.events if e.name == "speech"]
    assert len(speech) == 100 and [e.text for e in speech[4:8]] == ["go", "stop", "stop", "go"]
    mode = [(e.t_ns - START, e.text) for e in episode.events if e.name == "state.mode"]
    assert mode == [(0, "idle"), (10 * STEP, "run"), (20 * STEP, "idle")]
    assert [e.t_ns for e in episode.events] == sorted(e.t_ns for e in episode.events)


def test_log_messages_are_events(tmp_path):
    path = tmp_path / "log.mcap"
    stamp = make(ROS2, "builtin_interfaces/msg/Time", sec=START // 10**9, nanosec=0)
    schema = fox.Log.get_schema()
    with writing(path) as write:
        for i in range(3):
            said = {
                "stamp": stamp,
                "level": 20,
                "name": "arm",
                "msg": f"step {i}",
                "file": "",
                "function": "",
                "line": 1,
            }
            write("/rosout", msg2("rcl_interfaces/msg/Log"), "cdr", ros2("rcl_interfaces/msg/Log", **said), START + i)
        said = fox.Log(timestamp=fox.Timestamp(sec=START // 10**9, nsec=9), name="cam", message="dropped")
        write("/log", (schema.name, schema.encoding, schema.data), "protobuf", said.encode(), START + 9)
    episode, _ = read(path, tmp_path)
    said = [(e.name, e.text) for e in episode.events]
    assert sorted(said) == [("arm", "step 0"), ("arm", "step 1"), ("arm", "step 2"), ("cam", "dropped")]
    assert episode.signals == {}


# ---- transforms


def transform(i, child, parent="world", t_ns=START):
    move = make(ROS2, "geometry_msgs/msg/Vector3", x=float(i), y=0.0, z=0.0)
    turn = make(ROS2, "geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    made = make(ROS2, "geometry_msgs/msg/Transform", translation=move, rotation=turn)
    name = "geometry_msgs/msg/TransformStamped"
    return make(ROS2, name, header=header(ROS2, t_ns, parent), child_frame_id=child, transform=made)


@pytest.mark.parametrize("encoding", ["ros2", "protobuf"])
def test_transforms_are_a_signal_per_frame_however_they_are_grouped(tmp_path, encoding):
    path = tmp_path / "log.mcap"
    schema = fox.FrameTransforms.get_schema()
    with writing(path) as write:
        for i in range(60):
            t_ns = START + i * STEP
            children = ["hand", "cube"][: 1 + i % 2] if i < 40 else ["cube"]
            if encoding == "ros2":
                some = [transform(i, c, "base" if c == "hand" else "world", t_ns) for c in children]
                write(
                    "/tf", msg2("tf2_msgs/msg/TFMessage"), "cdr", ros2("tf2_msgs/msg/TFMessage", transforms=some), t_ns
                )
            else:
                some = [
                    fox.FrameTransform(
                        timestamp=fox.Timestamp(sec=t_ns // 10**9, nsec=t_ns % 10**9), child_frame_id=c,
                        parent_frame_id="base" if c == "hand" else "world",
                        translation=fox.Vector3(x=i, y=0, z=0), rotation=fox.Quaternion(x=0, y=0, z=0, w=1),
                    )
                    for c in children
                ]  # fmt: skip
                made = fox.FrameTransforms(transforms=some).encode()
                write("/tf", (schema.name, schema.encoding, schema.data), "protobuf", made, t_ns)
    episode, notes = read(path, tmp_path)
    assert set(episode.signals) == {"tf.hand", "tf.cube"} and notes == []
    hand, cube = episode.signal("tf.hand"), episode.signal("tf.cube")
    assert hand.spec.frame == "base" and cube.spec.frame == "world"
    assert hand.values[:, 0].tolist() == list(range(40)) and hand.values[0].tolist() == [0, 0, 0, 1, 0, 0, 0]
    assert cube.values[:, 0].tolist() == [*range(1, 40, 2), *range(40, 60)]
    assert cube.t_ns[0] == START + STEP


def test_more_frames_than_anybody_has_are_refused(tmp_path):
    path = tmp_path / "log.mcap"
    with writing(path) as write:
        for i in range(20):
            some = [transform(i, f"f{i}-{k}") for k in range(20)]
            write(
                "/tf", msg2("tf2_msgs/msg/TFMessage"), "cdr", ros2("tf2_msgs/msg/TFMessage", transforms=some), START + i
            )
    with pytest.raises(InputError, match="/tf: more than 256 frames"):
        read_one(path)


# ---- what stays in the raw log


def test_what_is_not_understood_is_named_and_hides_nothing_else(tmp_path):
    path = tmp_path / "log.mcap"
    joints, cloud = msg2("sensor_msgs/msg/JointState"), msg2("std_msgs/msg/UInt8MultiArray")
    layout = make(ROS2, "std_msgs/msg/MultiArrayLayout", dim=[], data_offset=0)
    with writing(path) as write:
        for i in range(50):
            t_ns = START + i * STEP
            q = ros2(
                "sensor_msgs/msg/JointState", header=header(ROS2, t_ns), name=[], position=np.ones(2),
                velocity=np.ones(1 if i < 40 else 2), effort=np.zeros(0),
            )  # fmt: skip
            write("/joints", joints, "cdr", q, t_ns)
            data = np.zeros(200, np.uint8)
            write("/scan", cloud, "cdr", ros2("std_msgs/msg/UInt8MultiArray", layout=layout, data=data), t_ns)
            big = np.zeros(70_000 if i == 30 else 10, np.uint8)
            write("/map", cloud, "cdr", ros2("std_msgs/msg/UInt8MultiArray", layout=layout, data=big), t_ns)
            write("/vendor", ("v", "x-lang", b"-"), "x-vendor", b"??", t_ns)
    episode, notes = read(path, tmp_path)
    assert set(episode.signals) == {"joints.position", "scan.layout.data_offset"}
    named = [
        "/joints: velocity has no fixed shape",
        "/map: messages larger than 64 KiB",
        "/scan: data is 200 bytes, not numbers",
        "/vendor: encoding x-vendor/x-lang",
    ]
    assert episode.labels["undecoded"] == named
    assert [text for kind, text in notes if kind == "unmapped"] == named


def test_a_log_of_nothing_but_the_unknown_is_refused_with_what_there_is(tmp_path):
    path = tmp_path / "log.mcap"
    with writing(path) as write:
        write("/vendor", ("v", "x-lang", b"-"), "x-vendor", b"??", START)
    with pytest.raises(InputError, match=r"nothing that can be decoded \(/vendor: encoding x-vendor/x-lang"):
        read_one(path)


def test_two_types_under_one_topic(tmp_path):
    path = tmp_path / "log.mcap"
    with writing(path) as write:
        for i in range(4):
            write("/x", msg2("std_msgs/msg/Float64"), "cdr", ros2("std_msgs/msg/Float64", data=float(i)), START + 2 * i)
            write("/x", msg2("std_msgs/msg/Int32"), "cdr", ros2("std_msgs/msg/Int32", data=i), START + 2 * i + 1)
            old = ("std_msgs/msg/Float64", "ros2msg", b"float64 data # as before the restart")
            write("/y", msg2("std_msgs/msg/Float64"), "cdr", ros2("std_msgs/msg/Float64", data=float(i)), START + 2 * i)
            write("/y", old, "cdr", ros2("std_msgs/msg/Float64", data=-1.0), START + 2 * i + 1)
    episode, notes = read(path, tmp_path)
    assert len(episode.signal("x").values) == 4
    assert ("unmapped", "/x: a second type or shape under the name x") in notes
    assert episode.signal("y").values.tolist() == [0, -1, 1, -1, 2, -1, 3, -1]


# ---- bounds and damage


def mixed(path, n=400):
    with writing(path) as write:
        for i in range(n):
            t_ns = START + i * STEP
            frame = "base" if i < 300 else "map"
            q = ros2(
                "sensor_msgs/msg/JointState", header=header(ROS2, t_ns, frame), name=["a"], position=np.full(1, i / 2),
                velocity=np.ones(1 if i < 390 else 2), effort=np.zeros(0),
            )  # fmt: skip
            write("/joints", msg2("sensor_msgs/msg/JointState"), "cdr", q, t_ns + 300)
            state = {
                "mode": f"m{i // 50}",
                "x": i,
                "on": i > 7,
                **({"gone": 1, "said": "a"} if i < 350 else {"late": 1}),
            }
            write("/state", None, "json", json.dumps(state).encode(), t_ns)
            tf = ros2("tf2_msgs/msg/TFMessage", transforms=[transform(i, c) for c in "ab"[: 1 + i % 2]])
            write("/tf", msg2("tf2_msgs/msg/TFMessage"), "cdr", tf, t_ns)


def test_the_episode_does_not_depend_on_how_much_is_decoded_at_once(tmp_path, monkeypatch):
    path = tmp_path / "log.mcap"
    mixed(path)
    whole, notes = read(path, tmp_path)
    monkeypatch.setattr(module, "PENDING", 3000)
    monkeypatch.setattr(module, "_TOPIC_PENDING", 1000)
    pieces, noted = read(path, tmp_path, memory=1 << 12)
    assert encode(pieces) == encode(whole) and noted == notes
    assert whole.labels["undecoded"] == [
        "/joints: velocity has no fixed shape",
        *(f"/state: {name} has no fixed shape" for name in ("gone", "late", "said")),
    ]
    assert isinstance(pieces.signal("joints.position").values, np.memmap)


def test_a_message_that_does_not_fit_its_definition(tmp_path):
    path = tmp_path / "log.mcap"
    with writing(path) as write:
        for i in range(20):
            payload = ros2("std_msgs/msg/Float64", data=float(i))
            write("/x", msg2("std_msgs/msg/Float64"), "cdr", payload[:6] if i == 3 else payload, START + i)
    with pytest.raises(Damaged, match=r"log\.mcap: /x: a payload is shorter than its definition says"):
        read_one(path)
    episode, notes = read(path, tmp_path, salvage=True)
    assert episode.signal("x").values.tolist() == [float(i) for i in range(20) if i != 3]
    assert ("salvaged", "/x: 1 messages do not fit their definition, left out") in notes


def test_salvage_gives_what_is_intact_with_the_counts(tmp_path):
    path = tmp_path / "log.mcap"
    mixed(path)
    blob = bytearray(path.read_bytes())
    blob[blob.index(b"\x28\xb5\x2f\xfd", len(blob) // 2) + 100] ^= 1  # within a compressed chunk
    path.write_bytes(blob)
    with pytest.raises(Damaged):
        read_one(path)
    episode, notes = read(path, tmp_path, salvage=True)
    lost = episode.labels["salvaged"]["discarded"]["messages"]
    assert episode.labels["salvaged"]["recovered"]["messages"] + lost == 1200 and 0 < lost < 100
    assert 300 < len(episode.signal("joints.position").values) < 400
    assert any(kind == "salvaged" and f"{lost} messages" in text for kind, text in notes)


def test_without_the_library_the_user_is_told_what_to_install(tmp_path, monkeypatch):
    path = tmp_path / "log.mcap"
    with writing(path) as write:
        schema, encoding, payload = as_protobuf(0, START)
        write("/pose", schema, encoding, payload, START)
    monkeypatch.setitem(__import__("sys").modules, "google.protobuf", None)
    with pytest.raises(NotPossible, match=r"flyball\[logs\]"):
        read_one(path)


def test_log_times_beyond_2262_are_refused(tmp_path):
    path = tmp_path / "log.mcap"
    with writing(path) as write:
        for i, t_ns in enumerate([START, 2**63 + 5, START + 1]):
            write("/x", msg2("std_msgs/msg/Float64"), "cdr", ros2("std_msgs/msg/Float64", data=float(i)), t_ns)
    with pytest.raises(Damaged, match="/x: a time stamp beyond the year 2262"):
        read_one(path)
    episode, notes = read(path, tmp_path, salvage=True)
    assert episode.signal("x").values.tolist() == [0, 2]
    assert notes == [("salvaged", "/x: messages of a time beyond the year 2262, left out")]
