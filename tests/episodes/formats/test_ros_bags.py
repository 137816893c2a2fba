"""ROS 1 and ROS 2 bags: what the library rosbags writes is read back, and hostile or broken bags are refused."""

import shutil
import sqlite3
import struct

import numpy as np
import pytest
import zstandard
from rosbags import rosbag1, rosbag2
from rosbags.rosbag2.enums import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.typesys import Stores, get_typestore

from flyball.base import Damaged, InputError, Missing, Unsupported
from flyball.episodes.episode import Event
from flyball.episodes.formats import folder_format, formats, ros1_bag, ros2_bag
from flyball.episodes.intake import Intake
from flyball.episodes.testing import check_format

START = 1_700_000_000 * 10**9
ROS1, ROS2 = get_typestore(Stores.ROS1_NOETIC), get_typestore(Stores.ROS2_HUMBLE)
JPEG = b"\xff\xd8\xff\xe0 a picture"


def messages(store, n):
    """(topic, type, time, message) of an arm, a camera and a voice."""
    t, types = START, store.types
    Header, Time = types["std_msgs/msg/Header"], types["builtin_interfaces/msg/Time"]
    Joints, Text = types["sensor_msgs/msg/JointState"], types["std_msgs/msg/String"]
    Picture = types["sensor_msgs/msg/CompressedImage"]
    for i in range(n):
        t = START + i * 10_000_000
        stamp = Time(t // 10**9, t % 10**9)
        header = Header(i, stamp, "base") if store is ROS1 else Header(stamp, "base")
        joints = Joints(header, ["a", "b"], np.array([i, -i / 3]), np.array([0.5, i]), np.zeros(0))
        yield "/joint_states", "sensor_msgs/msg/JointState", t + 1000, joints
        if i % 10 == 0:
            pixels = np.frombuffer(JPEG + bytes([i]), np.uint8)
            picture = Picture(header, "jpeg", pixels)
            yield "/camera/image/compressed", "sensor_msgs/msg/CompressedImage", t + 2000, picture
        if i % 25 == 0:
            yield "/said", "std_msgs/msg/String", t + 3000, Text(f"step {i}")


def fill(writer, store, n, serialize):
    connections = {}
    for topic, kind, t, message in messages(store, n):
        if topic not in connections:
            connections[topic] = writer.add_connection(topic, kind, typestore=store)
        writer.write(connections[topic], t, serialize(message, kind))


def bag1(path, n=60, compression=None, chunk=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = rosbag1.Writer(path)
    if compression:
        writer.set_compression(rosbag1.Writer.CompressionFormat[compression])
    if chunk:
        writer.chunk_threshold = chunk
    with writer:
        fill(writer, ROS1, n, ROS1.serialize_ros1)
    return path


def bag2(folder, n=60, storage="SQLITE3", mode=None, **custom):
    folder.parent.mkdir(parents=True, exist_ok=True)
    writer = rosbag2.Writer(folder, version=9, storage_plugin=StoragePlugin[storage])
    if mode:
        writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    for key, value in custom.items():
        writer.set_custom_data(key, value)
    with writer:
        fill(writer, ROS2, n, ROS2.serialize_cdr)
    return folder


def read(log_format, path, tmp, **settings):
    intake = Intake(tmp / "intake", **settings)
    intake.folder.mkdir(exist_ok=True)
    (episode,) = log_format.read(path, intake)
    return episode, intake


def notes(intake, kind):
    return [n.text for n in intake.notes if n.kind == kind]


def check_contents(e, intake, n=60):
    i = np.arange(n)
    position = e.signals["joint_states.position"]
    np.testing.assert_array_equal(position.values, np.stack([i, -i / 3], 1))
    np.testing.assert_array_equal(position.t_ns, START + i * 10_000_000)
    np.testing.assert_array_equal(e.signals["joint_states.velocity"].values[:, 1], i)
    assert position.spec.rate_hz == 100 and position.spec.frame == "base"
    (frames,) = e.frames.values()
    blob = intake.blobs[frames.blob].read_bytes()
    assert [blob[a:b] for a, b in zip(frames.start, frames.stop, strict=True)] == [
        JPEG + bytes([k]) for k in range(0, n, 10)
    ]
    assert frames.t_ns.tolist() == [START + k * 10_000_000 for k in range(0, n, 10)]
    assert [x for x in e.events if x.name == "said"] == [
        Event(START + k * 10_000_000 + 3000, "said", f"step {k}") for k in range(0, n, 25)
    ]
    assert e.labels["joint_states.name"] == ["a", "b"] and e.embodiment == "arm"


@pytest.mark.parametrize("compression", [None, "BZ2", "LZ4"])
def test_a_ros_1_bag(tmp_path, compression):
    path = bag1(tmp_path / "arm" / "toss_012.bag", compression=compression, chunk=2000)
    e, intake = read(formats.load("ros1_bag"), path, tmp_path)
    check_contents(e, intake)
    assert e.labels["toss"] == 12 and not notes(intake, "salvaged") + notes(intake, "unmapped")


@pytest.mark.parametrize("compression", [None, "BZ2"])
def test_the_contract_of_ros_1_bags(tmp_path, compression):
    path = bag1(tmp_path / "arm" / "x.bag", 12, compression, chunk=900)
    check_format(ros1_bag.FORMAT, path, checksummed=False)


def chunk_offsets(path):
    with rosbag1.Reader(path) as reader:
        return sorted(reader.chunks)


def flipped(path, at):
    blob = bytearray(path.read_bytes())
    blob[at] ^= 1
    path.write_bytes(blob)


def test_a_message_head_that_its_index_contradicts_is_caught(tmp_path):
    path = bag1(tmp_path / "x.bag", 12, chunk=900)
    blob = path.read_bytes()
    at = blob.index(b"time=", chunk_offsets(path)[1]) + 5
    flipped(path, at)
    with pytest.raises(Damaged, match=r"x\.bag: offset \d+: the index of the chunk at offset \d+ contradicts it"):
        read(ros1_bag.FORMAT, path, tmp_path)


def test_salvage_of_a_ros_1_bag_keeps_every_other_chunk(tmp_path):
    path = bag1(tmp_path / "arm" / "x.bag", 40, "BZ2", chunk=900)
    chunks = chunk_offsets(path)
    assert len(chunks) > 5
    with rosbag1.Reader(path) as reader:
        counts = {c.pos: sum(c.connection_counts.values()) for c in reader.chunk_infos}
    flipped(path, chunks[2] + 100)  # within the compressed data
    flipped(path, chunks[4] + 2)  # the length of a record's header
    with pytest.raises(Damaged, match=rf"offset {chunks[2]}: "):
        read(ros1_bag.FORMAT, path, tmp_path)
    e, intake = read(ros1_bag.FORMAT, path, tmp_path, salvage=True)
    whole = sum(counts.values()) - counts[chunks[2]] - counts[chunks[4]]
    said = len(e.events) or int("said" in e.labels)  # a text that was said once only is a label
    got = len(e.signals["joint_states.position"].t_ns) + said + sum(len(f.t_ns) for f in e.frames.values())
    assert got == whole
    assert any(f"offset {chunks[4]}: " in n and f"up to offset {chunks[5]}" in n for n in notes(intake, "salvaged"))


def test_a_ros_1_recording_that_was_cut_off_yields_its_whole_chunks(tmp_path):
    path = bag1(tmp_path / "arm" / "x.bag", 40, chunk=900)
    chunks = chunk_offsets(path)
    blob = bytearray(path.read_bytes())
    at = blob.index(b"index_pos=") + 10
    blob[at : at + 8] = bytes(8)
    assert ros1_bag.FORMAT.complete(path)
    path.write_bytes(blob[: chunks[3] + 50])
    assert not ros1_bag.FORMAT.complete(path)
    with pytest.raises(Damaged, match="the recording was not finished"):
        read(ros1_bag.FORMAT, path, tmp_path)
    e, intake = read(ros1_bag.FORMAT, path, tmp_path, salvage=True)
    n = len(e.signals["joint_states.position"].t_ns)
    assert 0 < n < 40 and e.signals["joint_states.position"].values[:, 0].tolist() == list(range(n))


def record1(fields, data=b""):
    head = b"".join(struct.pack("<I", len(k) + 1 + len(v)) + k + b"=" + v for k, v in fields.items())
    return struct.pack("<I", len(head)) + head + struct.pack("<I", len(data)) + data


def u32(n):
    return struct.pack("<I", n)


BAG1 = b"#ROSBAG V2.0\n"
HEAD1 = BAG1 + record1(
    {b"op": b"\3", b"index_pos": struct.pack("<Q", 9), b"conn_count": u32(0), b"chunk_count": u32(1)}
)


def chunk1(data, size=None, codec=b"none"):
    size = len(data) if size is None else size
    return record1({b"op": b"\5", b"compression": codec, b"size": u32(size)}, data)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a ROS 1 bag"),
        (b"#ROSBAG V1.2\n", "bag of version 1.2"),
        (BAG1, "holds no records"),
        (BAG1 + b"\xff\xff\xff\xff", "a header of 4294967295 bytes"),
        (BAG1 + chunk1(b""), "the bag's header is not its first record"),
        (BAG1 + record1({b"op": b"\3", b"encryptor": b"x", b"index_pos": bytes(8)}), "an encrypted bag"),
        (HEAD1, "ends after 0 of 1 chunks"),
        (HEAD1 + chunk1(b"", size=2**31), "a chunk of 2147483648 bytes"),
        (HEAD1 + chunk1(b"", codec=b"rar"), "compressed with b'rar'"),
        (HEAD1 + chunk1(b"nonsense", codec=b"lz4"), "does not decompress"),
        (HEAD1 + chunk1(bytes(7)), "a chunk ends within a record"),
        (HEAD1 + chunk1(b"\xff" * 20), "reaches beyond it"),
        (HEAD1 + chunk1(record1({b"op": b"\2", b"conn": u32(3), b"time": bytes(8)})), "which nothing announced"),
        (HEAD1 + chunk1(record1({b"op": b"\2"})), "without connection or time"),
        (HEAD1 + record1({b"op": b"\4", b"conn": u32(0), b"count": u32(0), b"ver": u32(1)}), "belongs to no chunk"),
        (HEAD1 + record1({b"op": b"\7"}), "the index begins here"),
        (HEAD1 + record1({b"op": b"\x63"}), "a record of type 99 outside of a chunk"),
    ],
)  # fmt: skip
def test_ros_1_bags_that_are_refused(tmp_path, content, says):
    path = tmp_path / "x.bag"
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read(ros1_bag.FORMAT, path, tmp_path)
    assert says in caught.value.line() and str(path) in caught.value.line()


@pytest.mark.parametrize("storage", ["SQLITE3", "MCAP"])
@pytest.mark.parametrize("mode", [None, "FILE", "MESSAGE"])
def test_a_ros_2_bag(tmp_path, storage, mode):
    folder = bag2(tmp_path / "arm" / "rosbag2_7", storage=storage, mode=mode, operator="ada", speed="0.5")
    assert folder_format(folder) is formats.load("ros2_bag")
    e, intake = read(ros2_bag.FORMAT, folder, tmp_path)
    check_contents(e, intake)
    assert e.labels["operator"] == "ada" and e.labels["speed"] == 0.5 and not notes(intake, "unmapped")


def test_a_database_alone(tmp_path):
    path = tmp_path / "arm" / "x.db3"
    folder = bag2(tmp_path / "bag")
    path.parent.mkdir()
    shutil.copy(folder / "bag.db3", path)
    e, intake = read(ros2_bag.FORMAT, path, tmp_path)
    check_contents(e, intake)


def test_the_contract_of_databases(tmp_path):
    path = tmp_path / "arm" / "x.db3"
    path.parent.mkdir()
    shutil.copy(bag2(tmp_path / "bag", 12) / "bag.db3", path)
    check_format(ros2_bag.FORMAT, path, checksummed=False)


def edit(path, *statements):
    with sqlite3.connect(path) as db:
        for statement in statements:
            db.execute(statement)
    db.close()
    return path


def splits(folder):
    """A bag in two files, as a recorder that splits leaves it."""
    first = folder / f"{folder.name}.db3"
    second = folder / f"{folder.name}_1.db3"
    shutil.copy(first, second)
    edit(first, "DELETE FROM messages WHERE id > 30")
    edit(second, "DELETE FROM messages WHERE id <= 30")
    about = folder / "metadata.yaml"
    about.write_text(about.read_text().replace(f"- {first.name}\n", f"- {first.name}\n  - {second.name}\n", 1))
    return folder


def test_several_files_are_one_log(tmp_path):
    folder = splits(bag2(tmp_path / "arm" / "rosbag2"))
    e, intake = read(ros2_bag.FORMAT, folder, tmp_path)
    check_contents(e, intake)
    (folder / "rosbag2_1.db3").unlink()
    with pytest.raises(Missing, match=r"rosbag2_1\.db3 is not there"):
        read(ros2_bag.FORMAT, folder, tmp_path)
    e, intake = read(ros2_bag.FORMAT, folder, tmp_path, salvage=True)
    assert 20 < len(e.signals["joint_states.position"].t_ns) < 31


def test_lost_messages_and_files_that_are_not_named_are_told(tmp_path):
    folder = bag2(tmp_path / "arm" / "rosbag2")
    shutil.copy(folder / "rosbag2.db3", folder / "other.db3")
    edit(folder / "rosbag2.db3", "DELETE FROM messages WHERE id = 30")
    _, intake = read(ros2_bag.FORMAT, folder, tmp_path)
    told = notes(intake, "skipped")
    assert any("other.db3 is not named" in t for t in told)
    assert any("speaks of 69 messages, 68 are there" in t for t in told)


def test_definitions_that_a_bag_lacks_are_those_of_a_distribution(tmp_path):
    folder = bag2(tmp_path / "arm" / "rosbag2")
    edit(
        folder / "rosbag2.db3",
        "DROP TABLE message_definitions",
        "UPDATE topics SET type = 'own/msg/Thing' WHERE name = '/said'",
    )
    e, intake = read(ros2_bag.FORMAT, folder, tmp_path, options={"ros2.distro": "Jazzy"})
    assert len(e.signals["joint_states.position"].t_ns) == 60
    told = notes(intake, "unmapped")
    assert any("those of ROS 2 jazzy are taken" in t for t in told) and any(t.startswith("/said") for t in told)
    with pytest.raises(Missing, match=r"no distribution of ROS 2 named 'jazy'.*did you mean 'jazzy'"):
        read(ros2_bag.FORMAT, folder, tmp_path, options={"ros2.distro": "jazy"})


def test_salvage_of_a_ros_2_bag_keeps_its_sound_files(tmp_path):
    folder = bag2(tmp_path / "arm" / "rosbag2", storage="MCAP")
    whole = (folder / "rosbag2.mcap").read_bytes()
    (folder / "rosbag2_1.mcap").write_bytes(whole[: len(whole) // 2])
    about = folder / "metadata.yaml"
    about.write_text(about.read_text().replace("- rosbag2.mcap\n", "- rosbag2.mcap\n  - rosbag2_1.mcap\n", 1))
    with pytest.raises(Damaged, match=r"rosbag2_1\.mcap"):
        read(ros2_bag.FORMAT, folder, tmp_path)
    e, intake = read(ros2_bag.FORMAT, folder, tmp_path, salvage=True)
    check_contents(e, intake)
    assert any(t.startswith("rosbag2_1.mcap: ") for t in notes(intake, "salvaged"))


def yaml_bomb():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 30)]
    return "\n".join(lines) + "\nrosbag2_bagfile_information: *a29\n"


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        ("- rosbag2.db3", "- ../elsewhere/rosbag2.db3", InputError, "lies outside of the bag"),
        ("- rosbag2.db3", "- /etc/rosbag2.db3", InputError, "lies outside of the bag"),
        ("- rosbag2.db3", "- rosbag2.txt", Unsupported, "the file 'rosbag2.txt'"),
        ("version: 9", "version: 10", Unsupported, "version 10 of the format"),
        (
            "compression_format: ''",
            "compression_format: rar\n  compression_mode: FILE",
            Damaged,
            "not the metadata of a bag",
        ),
        (None, "", Damaged, "not the metadata of a bag"),
        (None, "[" * 5000, Damaged, "not the metadata of a bag"),
        (None, "rosbag2_bagfile_information: !!python/object/apply:os.getcwd []", Damaged, "not the metadata of a bag"),
        (None, yaml_bomb(), Damaged, "not the metadata of a bag"),
    ],
)
def test_metadata_that_are_refused(tmp_path, old, new, error, says):
    folder = bag2(tmp_path / "arm" / "rosbag2", 3)
    about = folder / "metadata.yaml"
    text = about.read_text()
    assert old is None or old in text
    about.write_text(new if old is None else text.replace(old, new))
    with pytest.raises(error) as caught:
        read(ros2_bag.FORMAT, folder, tmp_path)
    assert says in caught.value.line() and "metadata.yaml" in caught.value.line()


def test_a_link_out_of_the_bag_is_refused(tmp_path):
    folder = bag2(tmp_path / "arm" / "rosbag2", 3)
    (folder / "rosbag2.db3").rename(tmp_path / "away.db3")
    (folder / "rosbag2.db3").symlink_to(tmp_path / "away.db3")
    with pytest.raises(InputError, match="leads out of the bag"):
        read(ros2_bag.FORMAT, folder, tmp_path)


ENDLESS = (
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT i id, 1 topic_id, 1 timestamp, 'x' data FROM n"
)


@pytest.mark.parametrize(
    ("statements", "says"),
    [
        (["DROP TABLE messages"], "no table messages"),
        (["DROP TABLE messages", f"CREATE VIEW messages AS {ENDLESS}"], "no table messages"),
        (["DROP TABLE topics", "CREATE VIRTUAL TABLE topics USING fts5(id, name, type, serialization_format)"],
         "no table topics"),
        (["DROP TABLE messages", "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, "
          "data AS (zeroblob(1000000000)))"], "no table messages with data"),
        (["UPDATE messages SET timestamp = 'noon' WHERE id = 2"], "message 2 is not a time and bytes"),
        (["UPDATE messages SET timestamp = -1 WHERE id = 2"], "message 2 is not a time and bytes"),
        (["UPDATE messages SET data = 7 WHERE id = 3"], "message 3 is not a time and bytes"),
        (["UPDATE messages SET topic_id = 77 WHERE id = 1"], "the topic 77, which is not there"),
        (["UPDATE messages SET data = x'00010000ff' WHERE id = 1"], "/joint_states"),
        (["DELETE FROM messages"], "holds no messages"),
    ],
)  # fmt: skip
def test_databases_that_are_refused(tmp_path, statements, says):
    path = bag2(tmp_path / "arm" / "rosbag2", 3) / "rosbag2.db3"
    edit(path, *statements)
    with pytest.raises(InputError) as caught:
        read(ros2_bag.FORMAT, path, tmp_path)
    assert says in caught.value.line() and str(path) in caught.value.line()


def test_a_recording_that_was_not_finished_is_refused(tmp_path):
    path = bag2(tmp_path / "arm" / "rosbag2", 3) / "rosbag2.db3"
    assert ros2_bag.FORMAT.complete(path)
    path.with_name("rosbag2.db3-wal").write_bytes(b"more")
    assert not ros2_bag.FORMAT.complete(path)
    with pytest.raises(InputError, match=r"not finished, rosbag2\.db3-wal lies beside it.*wal_checkpoint"):
        read(ros2_bag.FORMAT, path, tmp_path)


def test_messages_and_files_that_unpack_without_bound_are_refused(tmp_path, monkeypatch):
    zeros = zstandard.compress(bytes(50 << 20))
    folder = bag2(tmp_path / "arm" / "rosbag2", 3, mode="MESSAGE")
    with sqlite3.connect(folder / "rosbag2.db3") as db:
        db.execute("UPDATE messages SET data = ? WHERE id = 2", (zeros,))
    db.close()
    monkeypatch.setattr(ros2_bag, "MAX_MESSAGE", 1 << 20)
    with pytest.raises(Damaged, match="larger than 1 MiB when unpacked"):
        read(ros2_bag.FORMAT, folder, tmp_path)
