"""Pictures in logs become frames that decode, in every message type; what is no picture is named."""

import base64
import json
import struct

import foxglove
import numpy as np
import pytest
from foxglove import messages as fox

from flyball.base import Damaged, InputError, Unsupported
from flyball.episodes.formats.clocks import Clock
from flyball.episodes.formats.mcap_log import FORMAT
from flyball.episodes.formats.pictures import Pictures, nal_units
from flyball.episodes.frames import encode_frames, read_frames
from flyball.episodes.intake import Intake

pytest.importorskip("av", reason="av is not installed")
typesys = pytest.importorskip("rosbags.typesys", reason="rosbags is not installed")
ROS2 = typesys.get_typestore(typesys.Stores.ROS2_HUMBLE)
START, STEP = 1_760_000_000_000_000_000, 40_000_000
H, W, N = 32, 48, 12


def scene():
    y, x = np.mgrid[:H, :W]
    return [
        np.stack([60 + 3 * x, 80 + 4 * y, np.where((x - 3 * i - 6) ** 2 + (y - 15) ** 2 < 60, 220, 40)], -1).astype(
            "u1"
        )
        for i in range(N)
    ]


SCENE = scene()


def log(tmp_path, messages, topic="/cam", salvage=False):
    """(episode, notes, blob of a camera) of a log of (schema, encoding, payload, log time) messages."""
    path = tmp_path / "log.mcap"
    context = foxglove.Context()
    writer = foxglove.open_mcap(path, context=context)
    channel = None
    for (name, encoding, data), message_encoding, payload, log_ns in messages:
        if channel is None:
            schema = foxglove.Schema(name=name, encoding=encoding, data=data)
            channel = foxglove.Channel(topic, schema=schema, message_encoding=message_encoding, context=context)
        channel.log(payload, log_time=log_ns)
    writer.close()
    room = tmp_path / "room"
    room.mkdir()
    intake = Intake(room, salvage=salvage)
    (episode,) = FORMAT.read(path, intake)
    return episode, [(n.kind, n.text) for n in intake.notes], lambda frames: intake.blobs[frames.blob]


def stamp(t_ns):
    return fox.Timestamp(sec=t_ns // 10**9, nsec=t_ns % 10**9)


def ros2(name, t_ns, **fields):
    made = ROS2.types["builtin_interfaces/msg/Time"](sec=t_ns // 10**9, nanosec=t_ns % 10**9)
    head = ROS2.types["std_msgs/msg/Header"](stamp=made, frame_id="optical")
    text, _ = ROS2.generate_msgdef(name, ros_version=2)
    payload = bytes(ROS2.serialize_cdr(ROS2.types[name](header=head, **fields), name))
    return (name, "ros2msg", text.encode()), "cdr", payload


def foxglove_proto(kind, t_ns, **fields):
    schema = kind.get_schema()
    return (schema.name, schema.encoding, schema.data), "protobuf", kind(timestamp=stamp(t_ns), **fields).encode()


def compressed_ros2(t_ns, data, format_):
    return ros2("sensor_msgs/msg/CompressedImage", t_ns, format=format_, data=np.frombuffer(data, np.uint8))


def compressed_proto(t_ns, data, format_):
    return foxglove_proto(fox.CompressedImage, t_ns, frame_id="optical", data=data, format=format_)


def compressed_json(t_ns, data, format_):
    body = {"timestamp": {"sec": t_ns // 10**9, "nsec": t_ns % 10**9}, "frame_id": "optical", "format": format_}
    body["data"] = base64.b64encode(data).decode()
    schema = {"properties": {"data": {"type": "string", "contentEncoding": "base64"}}}
    name = ("foxglove.CompressedImage", "jsonschema", json.dumps(schema).encode())
    return name, "json", json.dumps(body).encode()


FORMATS = {"jpeg": ["jpeg", "rgb8; jpeg compressed bgr8", "jpg"], "png": ["png", "bgr8; png compressed bgr8", ""]}


@pytest.mark.parametrize("message", [compressed_ros2, compressed_proto, compressed_json], ids=lambda f: f.__name__)
@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_compressed_images(tmp_path, message, encoding):
    packets = [p for p, _ in encode_frames(SCENE, encoding)]
    sent = []
    for i, packet in enumerate(packets):
        t_ns = START + i * STEP
        sent.append((*message(t_ns, packet, FORMATS[encoding][i % 3]), t_ns + 7_000_000))
    sent[3], sent[4] = sent[4], sent[3]  # late on the way
    episode, notes, blob = log(tmp_path, sent)
    frames = episode.frames["cam"]
    assert (frames.encoding, frames.height, frames.width) == (encoding, H, W) and frames.key.all()
    np.testing.assert_array_equal(frames.t_ns, START + np.arange(N) * STEP)
    error = np.abs(read_frames(frames, blob(frames)).astype(int) - SCENE)
    assert error.mean() < 2 if encoding == "jpeg" else error.max() == 0
    assert blob(frames).stat().st_size == sum(map(len, packets))
    assert episode.labels["clocks"]["/cam"]["header_ms"] == [-7.0, 0.0]
    assert [kind for kind, _ in notes] == ["clock"] and episode.signals == {}


@pytest.mark.parametrize("encoding", ["h264", "h265", "vp9", "av1"])
def test_compressed_video_is_decoded_from_its_key_pictures(tmp_path, encoding):
    packets = list(encode_frames(SCENE, encoding, key_every=5))
    sent = []
    for i, (packet, _) in enumerate(packets[2:]):  # recording began in the middle
        t_ns = START + (i + 2) * STEP
        sent.append((*foxglove_proto(fox.CompressedVideo, t_ns, frame_id="c", data=packet, format=encoding), t_ns))
    episode, notes, blob = log(tmp_path, sent)
    frames = episode.frames["cam"]
    assert frames.encoding == encoding and np.flatnonzero(frames.key).tolist() == [0, 5]
    np.testing.assert_array_equal(frames.t_ns, START + np.arange(5, N) * STEP)
    got = read_frames(frames, blob(frames))
    assert np.abs(got.astype(int) - SCENE[5:]).mean() < 10  # of which the coarser colours of video are most
    np.testing.assert_array_equal(read_frames(frames, blob(frames), [6, 1]), got[[6, 1]])
    assert notes == [("skipped", "cam: 3 pictures left out (before the first key picture)")]


@pytest.mark.parametrize("encoding", ["h264", "h265"])
def test_parameter_sets_sent_once_reach_every_key_picture(tmp_path, encoding):
    packets = [p for p, _ in encode_frames(SCENE, encoding, key_every=5)]
    sets = (32, 33, 34) if encoding == "h265" else (7, 8)

    def bare(packet):
        units = [packet[a:b] for kind, a, b in nal_units(packet, hevc=encoding == "h265") if kind not in sets]
        return b"".join(b"\0\0\0\1" + u for u in units)

    sent = []
    for i, packet in enumerate(packets):
        t_ns = START + i * STEP
        data = bare(packet) if i else packet
        sent.append((*foxglove_proto(fox.CompressedVideo, t_ns, frame_id="c", data=data, format=encoding), t_ns))
    episode, _, blob = log(tmp_path, sent)
    frames = episode.frames["cam"]
    whole = read_frames(frames, blob(frames))
    assert np.flatnonzero(frames.key).tolist() == [0, 5, 10]
    np.testing.assert_array_equal(read_frames(frames, blob(frames), [11, 7]), whole[[11, 7]])


def test_raw_images_lose_their_padding_and_big_ends(tmp_path):
    wide = np.zeros((H, W * 3 + 10), np.uint8)
    sent = []
    for i, picture in enumerate(SCENE):
        wide[:, : W * 3] = picture[..., ::-1].reshape(H, -1)
        fields = {"height": H, "width": W, "encoding": "bgr8", "is_bigendian": 0, "step": W * 3 + 10}
        t_ns = START + i * STEP
        sent.append((*ros2("sensor_msgs/msg/Image", t_ns, data=wide.ravel().copy(), **fields), t_ns))
    episode, notes, blob = log(tmp_path, sent)
    frames = episode.frames["cam"]
    assert frames.encoding == "raw:bgr8" and notes == []
    np.testing.assert_array_equal(read_frames(frames, blob(frames)), SCENE)

    depth = np.random.default_rng(0).integers(0, 65536, (3, H, W), np.uint16)
    fields = {"height": H, "width": W, "encoding": "16UC1", "is_bigendian": 1, "step": W * 2}
    sent = [
        (
            *ros2("sensor_msgs/msg/Image", START + i, data=np.frombuffer(d.astype(">u2").tobytes(), "u1"), **fields),
            START + i,
        )
        for i, d in enumerate(depth)
    ]
    (tmp_path / "second").mkdir()
    episode, _, blob = log(tmp_path / "second", sent)
    np.testing.assert_array_equal(read_frames(episode.frames["cam"], blob(episode.frames["cam"]))[..., 0], depth)


def test_foxglove_raw_images_and_depth_png(tmp_path):
    depth = np.random.default_rng(0).uniform(0, 5, (2, H, W)).astype("<f4")
    fields = {"frame_id": "c", "width": W, "height": H, "encoding": "32FC1", "step": W * 4}
    sent = [
        (*foxglove_proto(fox.RawImage, START + i, data=d.tobytes(), **fields), START + i) for i, d in enumerate(depth)
    ]
    episode, _, blob = log(tmp_path, sent)
    got = read_frames(episode.frames["cam"], blob(episode.frames["cam"]))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[..., 0], depth)

    millimetres = (depth * 1000).astype(np.uint16)[..., None]
    sent = [
        (*compressed_ros2(START + i, bytes(12) + p, "16UC1; compressedDepth png"), START + i)
        for i, (p, _) in enumerate(encode_frames(millimetres, "png"))
    ]
    (tmp_path / "second").mkdir()
    episode, _, blob = log(tmp_path / "second", sent)
    np.testing.assert_array_equal(read_frames(episode.frames["cam"], blob(episode.frames["cam"])), millimetres)


# ---- what is none


def row(data, **fields):
    return {("data",): memoryview(data), **{(k,): v for k, v in fields.items()}}


RAW = {"height": 2, "width": 2, "step": 6, "encoding": "rgb8"}


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ({("format",): "jpeg"}, "no data"),
        ({("format",): "jpeg", ("data",): "%"}, "data that are not base64"),
        (row(b"", format="jpeg"), "no data"),
        (row(b"RIFF....", format="webp"), "pictures of format 'webp'"),
        (row(b"\0\0\0\x0c" + bytes(20), format="jpeg"), "does not begin like one"),
        (row(bytes(40), format="32FC1; compressedDepth png"), "quantised from 32FC1"),
        (row(b"\0\0\0\x0f\x67" + bytes(14), format="h264"), "not in Annex B form"),
        (row(b"\0\0\0\1\x41" + bytes(14), format="h264"), "before the first key picture"),
        (row(b"\x00\x00", format="vp9"), "does not begin with a frame"),
        (row(b"\xff\xff", format="av1"), "low-overhead form"),
        (row(bytes(12), **RAW | {"encoding": "bayer_rggb8"}), "raw pictures of 'bayer_rggb8'"),
        (row(bytes(11), **RAW), "11 bytes are no 2 x 2 pixels of rgb8 in rows of 6 bytes"),
        (row(bytes(12), **RAW | {"step": 5}), "in rows of 5 bytes"),
        (row(bytes(12), **RAW | {"height": 2**31, "width": 2**31}), "pixels of rgb8"),
        (row(bytes(12), step=6), "without a size"),
    ],
)
def test_what_is_no_picture_is_left_out_and_a_camera_of_nothing_else_is_refused(tmp_path, made, says):
    intake = Intake(tmp_path)
    camera = Pictures("cam", intake)
    assert camera.add(made) is False
    with pytest.raises(Unsupported, match=says):
        camera.finish(Clock(intake))
    assert camera.add(row(bytes(12), **RAW)) is True
    clock = Clock(intake)
    clock.add(np.array([5]), np.array([5]), None)
    assert len(camera.finish(clock)[0].t_ns) == 1
    note = intake.notes[0]
    assert note.kind == "skipped" and says in note.text


def test_pictures_of_other_kinds_in_one_stream_are_left_out_and_counted(tmp_path):
    png, jpeg = (next(encode_frames(SCENE[:1], k))[0] for k in ("png", "jpeg"))
    sent = [(*compressed_ros2(START + i, d, ""), START + i) for i, d in enumerate([png, jpeg, png, b"", jpeg])]
    episode, notes, _ = log(tmp_path, sent)
    assert len(episode.frames["cam"].t_ns) == 2
    assert sorted(notes) == [
        ("skipped", "cam: 1 pictures left out (no data)"),
        ("skipped", f"cam: 2 pictures left out (jpeg of {W} x {H}, the others are png)"),
    ]


def test_a_damaged_picture_message_is_refused_or_counted(tmp_path):
    png = next(encode_frames(SCENE[:1], "png"))[0]
    sent = [(*compressed_ros2(START + i, png, "png"), START + i) for i in range(5)]
    schema, encoding, payload, t_ns = sent[2]
    at = payload.index(png) - 4
    sent[2] = (schema, encoding, payload[:at] + struct.pack("<I", 2**31) + payload[at + 4 :], t_ns)
    with pytest.raises(Damaged, match="/cam: a payload is shorter than its definition says"):
        log(tmp_path, sent)
    (tmp_path / "again").mkdir()
    episode, notes, _ = log(tmp_path / "again", sent, salvage=True)
    assert len(episode.frames["cam"].t_ns) == 4
    assert ("salvaged", "/cam: 1 pictures do not fit their definition, left out") in notes


def test_video_behind_a_hole_in_a_damaged_log_is_left_out_up_to_the_next_key_picture(tmp_path):
    packets = [p for p, _ in encode_frames(SCENE, "vp9", key_every=5)]
    sent = []
    for i, packet in enumerate(packets):
        t_ns = START + i * STEP
        sent.append((*foxglove_proto(fox.CompressedVideo, t_ns, frame_id="c", data=packet, format="vp9"), t_ns))
    del sent[6]
    episode, notes, blob = log(tmp_path, sent, salvage=True)
    frames = episode.frames["cam"]
    assert ((frames.t_ns - START) // STEP).tolist() == [0, 1, 2, 3, 4, 5, 10, 11]
    assert notes == [("salvaged", "cam: 3 pictures behind a gap, up to the next key picture, left out")]
    got = read_frames(frames, blob(frames))
    assert np.abs(got.astype(int) - np.array(SCENE)[[0, 1, 2, 3, 4, 5, 10, 11]]).mean() < 10


def test_images_that_cannot_be_read_stay_in_the_raw_log_by_name(tmp_path):
    fields = {"height": 4, "width": 4, "encoding": "yuv422", "is_bigendian": 0, "step": 8}
    sent = [
        (*ros2("sensor_msgs/msg/Image", START + i, data=np.zeros(32, np.uint8), **fields), START + i) for i in range(3)
    ]
    with pytest.raises(InputError, match="/cam: raw pictures of 'yuv422'"):
        log(tmp_path, sent)
