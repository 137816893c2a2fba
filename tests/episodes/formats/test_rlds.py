"""RLDS: records as tensorflow-datasets lays them out, written here with protobuf's own encoder, are read back."""

import json
import zlib

import numpy as np
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import Damaged, InputError, Unsupported
from flyball.episodes.episode import Event
from flyball.episodes.formats import format_for, formats
from flyball.episodes.formats.rlds import FORMAT
from flyball.episodes.formats.tfrecord import crc32c, masked
from flyball.episodes.intake import Intake
from flyball.episodes.testing import check_format

JPEG = b"\xff\xd8\xff\xe0"
T = 5


def protos():
    """tensorflow/core/example/{feature,example}.proto."""
    file = descriptor_pb2.FileDescriptorProto(name="example.proto", package="tf", syntax="proto3")
    F = descriptor_pb2.FieldDescriptorProto

    def message(name, *fields, parent=None):
        m = parent.nested_type.add(name=name) if parent else file.message_type.add(name=name)
        for number, (field, kind, label, of) in enumerate(fields, 1):
            m.field.add(name=field, number=number, type=kind, label=label, type_name=of or None)
        return m

    def mapping(name, field, of):
        m = message(name, (field, F.TYPE_MESSAGE, F.LABEL_REPEATED, f".tf.{name}.Entry"))
        entry = message("Entry", ("key", F.TYPE_STRING, 1, ""), ("value", F.TYPE_MESSAGE, 1, of), parent=m)
        entry.options.map_entry = True

    message("BytesList", ("value", F.TYPE_BYTES, F.LABEL_REPEATED, ""))
    message("FloatList", ("value", F.TYPE_FLOAT, F.LABEL_REPEATED, ""))
    message("Int64List", ("value", F.TYPE_INT64, F.LABEL_REPEATED, ""))
    kinds = [("bytes_list", "BytesList"), ("float_list", "FloatList"), ("int64_list", "Int64List")]
    message("Feature", *[(n, F.TYPE_MESSAGE, F.LABEL_OPTIONAL, f".tf.{of}") for n, of in kinds])
    mapping("Features", "feature", ".tf.Feature")
    message("FeatureList", ("feature", F.TYPE_MESSAGE, F.LABEL_REPEATED, ".tf.Feature"))
    mapping("FeatureLists", "feature_list", ".tf.FeatureList")
    message("Example", ("features", F.TYPE_MESSAGE, 1, ".tf.Features"))
    message("SequenceExample", ("context", F.TYPE_MESSAGE, 1, ".tf.Features"),
            ("feature_lists", F.TYPE_MESSAGE, 1, ".tf.FeatureLists"))  # fmt: skip
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {n: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"tf.{n}"))
            for n in ("Example", "SequenceExample")}  # fmt: skip


PROTOS = protos()


def fill(feature, values):
    if isinstance(values, list):
        feature.bytes_list.value.extend(values)
    elif np.asarray(values).dtype.kind == "f":
        feature.float_list.value.extend(np.ravel(values).tolist())
    else:
        feature.int64_list.value.extend(np.ravel(values).astype(np.int64).tolist())


def example(features):
    """A record: bytes are a list, numbers an array; arrays are flattened as TFDS does."""
    message = PROTOS["Example"]()
    for name, values in features.items():
        fill(message.features.feature[name], values)
    return message.SerializeToString()


def tfrecord(*payloads):
    out = b""
    for p in payloads:
        head = len(p).to_bytes(8, "little")
        out += head + masked(crc32c(head)).to_bytes(4, "little") + p + masked(crc32c(p)).to_bytes(4, "little")
    return out


def tensor(dtype, *shape, encoding="none"):
    return {"tensor": {"shape": {"dimensions": [str(n) for n in shape]}, "dtype": dtype, "encoding": encoding}}


def group(**features):
    return {"pythonClassName": "FeaturesDict", "featuresDict": {"features": features}}


def sequence(feature):
    return {"pythonClassName": "Dataset", "sequence": {"feature": feature, "length": "-1"}}


IMAGE = {"image": {"shape": {"dimensions": ["48", "64", "3"]}, "dtype": "uint8", "encodingFormat": "jpeg"}}
FEATURES = group(
    steps=sequence(
        group(
            observation=group(
                state=tensor("float32", 7),
                wrist=IMAGE,
                depth=tensor("float32", 40, 50, 1),
                jacobian=tensor("float64", 2, 3),
                touched=sequence(tensor("int32")),
                contacts=sequence(tensor("float32", 3)),
                packed=tensor("uint16", 2, encoding="zlib"),
            ),
            action=group(world_vector=tensor("float32", 3), open=tensor("bool")),
            language_instruction={"text": {}},
            phase={"text": {}},
            reward=tensor("float32"),
            is_first=tensor("bool"),
            is_last=tensor("bool"),
            is_terminal=tensor("bool"),
        )
    ),
    episode_metadata=group(file_path={"text": {}}, control_frequency=tensor("int32")),
)


def record(rng, n=T, hz=5, **changes):
    def last(k):
        return np.arange(n) == n - 1 - k

    features = {
        "steps/observation/state": rng.normal(size=(n, 7)),
        "steps/observation/wrist": [JPEG + rng.bytes(20 + i) for i in range(n)],
        "steps/observation/depth": rng.normal(size=(n, 40, 50, 1)),
        "steps/observation/jacobian": rng.normal(size=(n, 2, 3)),
        "steps/observation/touched/ragged_flat_values": np.arange(n * 2) - 3,
        "steps/observation/touched/ragged_row_lengths_0": np.full(n, 2),
        "steps/observation/contacts/ragged_flat_values": np.zeros((n - 1, 3)),
        "steps/observation/contacts/ragged_row_lengths_0": np.r_[0, np.ones(n - 1)].astype(int),
        "steps/observation/packed": [zlib.compress(np.array([i, 7], "<u2").tobytes()) for i in range(n)],
        "steps/action/world_vector": rng.normal(size=(n, 3)),
        "steps/action/open": np.arange(n) % 2,
        "steps/language_instruction": [b"pick the can"] * n,
        "steps/phase": [b"reach"] * 2 + [b"lift"] * (n - 2),
        "steps/reward": last(0).astype(np.float32),
        "steps/is_first": np.arange(n) == 0,
        "steps/is_last": last(0),
        "steps/is_terminal": last(0),
        "episode_metadata/file_path": [b"/data/traj_7"],
        "episode_metadata/control_frequency": np.array([hz]),
    }
    return features | changes


def dataset(folder, shards, features=FEATURES, info=True):
    """A folder as TFDS prepares it; ``shards``: lists of records."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "features.json").write_text(json.dumps(features))
    for i, shard in enumerate(shards):
        name = f"pour-train.tfrecord-{i:05d}-of-{len(shards):05d}"
        (folder / name).write_bytes(tfrecord(*[example(r) for r in shard]))
    if info:
        split = {"name": "train", "shardLengths": [str(len(s)) for s in shards]}
        (folder / "dataset_info.json").write_text(json.dumps({"name": "pour", "splits": [split]}))
    return folder


def read(path, tmp, **settings):
    intake = Intake(tmp / "intake", **settings)
    intake.folder.mkdir(exist_ok=True)
    return list(FORMAT.read(path, intake)), intake


def texts(intake):
    return [n.text for n in intake.notes]


def pictures(frames, intake):
    blob = intake.blobs[frames.blob].read_bytes()
    return [blob[a:b] for a, b in zip(frames.start, frames.stop, strict=True)]


def test_a_tfds_folder_gives_an_episode_per_record(tmp_path):
    rng = np.random.default_rng(0)
    made = [record(rng), record(rng, n=3), record(rng)]
    folder = dataset(tmp_path / "pour" / "0.1.0", [made[:2], made[2:]])
    assert format_for(folder) is formats.load("rlds")
    episodes, intake = read(folder, tmp_path)
    assert [len(e.signals["action.open"].t_ns) for e in episodes] == [T, 3, T]
    for features, e in zip(made, episodes, strict=True):
        for name, shape, dtype in [
            ("observation.state", (7,), "float32"),
            ("observation.jacobian", (2, 3), "float64"),
            ("action.world_vector", (3,), "float32"),
            ("action.open", (), "bool"),
            ("reward", (), "float32"),
        ]:
            got = e.signals[name]
            want = np.asarray(features["steps/" + name.replace(".", "/")], np.float32)
            assert (got.spec.shape, got.spec.dtype) == (shape, dtype) and got.values.dtype == dtype
            np.testing.assert_array_equal(got.values.astype(np.float32), want)
            assert got.t_ns.tolist() == [i * 200_000_000 for i in range(len(want))] and got.spec.rate_hz == 5
        touched = e.signals["observation.touched"].values
        np.testing.assert_array_equal(touched.ravel(), np.arange(touched.size) - 3)
        assert e.signals["observation.packed"].values.tolist() == [[i, 7] for i in range(len(touched))]
        wrist, depth = e.frames["observation.wrist"], e.frames["observation.depth"]
        assert (wrist.encoding, wrist.height, wrist.width) == ("jpeg", 48, 64)
        assert pictures(wrist, intake) == features["steps/observation/wrist"]
        assert (depth.encoding, depth.height, depth.width) == ("raw:32FC1", 40, 50)
        assert b"".join(pictures(depth, intake)) == features["steps/observation/depth"].astype("<f4").tobytes()
        assert e.instruction == "pick the can" and e.embodiment == "pour"
        assert e.events == (Event(0, "phase", "reach"), Event(400_000_000, "phase", "lift"))
        assert e.labels["is_terminal"] is True and e.labels["return"] == e.labels["reward_last"] == 1.0
        assert e.labels["file_path"] == "/data/traj_7" and e.labels["split"] == "train" and e.outcome == "unknown"
    assert texts(intake) == ["observation/contacts: a list of another length in each step"]


def test_without_a_control_frequency_the_assumption_is_stated_and_an_option_overrides(tmp_path):
    one = record(np.random.default_rng(0))
    folder = dataset(tmp_path / "d", [[{k: v for k, v in one.items() if "control" not in k}]])
    (e,), intake = read(folder, tmp_path)
    assert e.signals["reward"].t_ns[1] == 100_000_000
    assert any("no control frequency; steps are taken to be 0.1 s apart" in t for t in texts(intake))
    (e,), intake = read(folder, tmp_path, options={"rlds.hz": "3", "rlds.embodiment": "arm"})
    assert e.signals["reward"].t_ns.tolist() == [0, 333333333, 666666667, 10**9, 1333333333]
    assert e.embodiment == "arm" and not any("hz" in t for t in texts(intake))
    with pytest.raises(InputError, match=r"rlds\.hz is '-1'"):
        read(folder, tmp_path, options={"rlds.hz": "-1"})


def test_a_shard_alone_is_understood_from_its_values(tmp_path):
    features = record(np.random.default_rng(1))
    path = tmp_path / "arm" / "some.tfrecord"
    path.parent.mkdir()
    path.write_bytes(tfrecord(example(features)))
    (e,), intake = read(path, tmp_path)
    np.testing.assert_array_equal(
        e.signals["observation.state"].values, features["steps/observation/state"].astype("f4")
    )
    assert e.signals["is_last"].values.tolist() == [False] * 4 + [True]
    assert e.frames["observation.wrist"].encoding == "jpeg" and e.embodiment == "arm"
    assert e.instruction == "pick the can" and e.labels["return"] == 1.0


def test_sequence_examples(tmp_path):
    message = PROTOS["SequenceExample"]()
    fill(message.context.feature["task"], [b"stack"])
    for i in range(4):
        fill(message.feature_lists.feature_list["joints"].feature.add(), np.array([i, -i, 0.5]))
        fill(message.feature_lists.feature_list["count"].feature.add(), np.array([-i * 10**12]))
        fill(message.feature_lists.feature_list["image"].feature.add(), [JPEG + bytes([i])])
    path = tmp_path / "s.tfrecord"
    path.write_bytes(tfrecord(message.SerializeToString()))
    (e,), intake = read(path, tmp_path)
    assert e.signals["joints"].values.tolist() == [[i, -i, 0.5] for i in range(4)]
    assert e.signals["count"].values.tolist() == [-i * 10**12 for i in range(4)]
    assert len(pictures(e.frames["image"], intake)) == 4 and e.labels["task"] == "stack"


def test_the_contract_every_byte_is_under_a_checksum(tmp_path):
    rng = np.random.default_rng(2)
    path = tmp_path / "arm" / "some.tfrecord"
    path.parent.mkdir()
    small = {k: v for k, v in record(rng).items() if "depth" not in k}
    path.write_bytes(tfrecord(example(small), example(small | {"steps/reward": np.zeros(T, np.float32)})))
    assert len(check_format(FORMAT, path, checksummed=True)) == 2


def test_salvage_keeps_the_records_around_the_damage(tmp_path):
    rng = np.random.default_rng(3)
    blobs = [tfrecord(example({k: v for k, v in record(rng, n=2 + i).items() if "depth" not in k})) for i in range(5)]
    ends = np.cumsum([len(b) for b in blobs])
    whole = bytearray(b"".join(blobs))
    whole[ends[0] + 3] ^= 1  # the length of the second record
    whole[ends[2] + 100] ^= 1  # within the fourth
    path = tmp_path / "x.tfrecord"
    path.write_bytes(whole[:-7])
    with pytest.raises(Damaged, match=rf"x.tfrecord: offset {ends[0]}: the checksum of a record's length"):
        read(path, tmp_path)
    episodes, intake = read(path, tmp_path, salvage=True)
    assert [e.labels["steps"] for e in episodes] == [2, 4]
    kinds = [n for n in intake.notes if n.kind == "salvaged"]
    assert len(kinds) == 3 and f"left out up to offset {ends[1]}" in kinds[0].text


def test_a_shard_that_ends_between_records_is_caught_by_the_folders_counts(tmp_path):
    rng = np.random.default_rng(4)
    records = [record(rng), record(rng)]
    folder = dataset(tmp_path / "d", [records])
    shard = folder / "pour-train.tfrecord-00000-of-00001"
    shard.write_bytes(tfrecord(example(records[0])))
    with pytest.raises(Damaged, match=r"holds 1 records where dataset_info.json says 2"):
        read(folder, tmp_path)
    assert len(read(folder, tmp_path, salvage=True)[0]) == 1


def test_missing_shards_are_told(tmp_path):
    rng = np.random.default_rng(5)
    folder = dataset(tmp_path / "d", [[record(rng)], [record(rng)]])
    (folder / "pour-train.tfrecord-00000-of-00002").unlink()
    episodes, intake = read(folder, tmp_path)
    assert len(episodes) == 1 and any("split train: 1 of 2 shards" in t for t in texts(intake))


@pytest.mark.parametrize(
    ("spoil", "error", "says"),
    [
        (lambda d: (d / "features.json").write_text("{"), Damaged, "features.json: not JSON"),
        (lambda d: (d / "features.json").write_text('{"featuresDict": []}'), Damaged, "not a description of features"),
        (lambda d: (d / "features.json").write_text("[" * 100_000), Damaged, "features.json: not JSON"),
        (lambda d: (d / "features.json").write_text(json.dumps(group(x=tensor("int8")))), Unsupported, "no episodes"),
        (lambda d: (d / "pour-train.tfrecord-00000-of-00001").write_bytes(b""), InputError, "holds 0 records"),
        (lambda d: (d / "pour-train.tfrecord-00000-of-00001").rename(d / "pour-train.array_record-00000-of-00001"),
         Unsupported, "shards of kind array_record"),
        (lambda d: dataset(d, [[{"steps/reward": np.zeros(0, np.float32)}]]), Damaged, "a record without steps"),
        (lambda d: dataset(d, [[record(np.random.default_rng(0)) | {"steps/reward": np.zeros(4, np.float32)}]]),
         Damaged, "feature 'reward': 4 numbers for 5 steps of 1"),
        (lambda d: dataset(d, [[record(np.random.default_rng(0)) | {"steps/observation/wrist": [JPEG] * 4 + [b"?"]}]]),
         Damaged, "picture 4 is no jpeg"),
        (lambda d: dataset(d, [[record(np.random.default_rng(0)) | {"steps/observation/packed":
            [zlib.compress(bytes(10**7))] * T}]]), Damaged, "value 0 is not 4 bytes long"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, spoil, error, says):
    folder = dataset(tmp_path / "d", [[record(np.random.default_rng(0))]], info=True)
    spoil(folder)
    with pytest.raises(error) as caught:
        read(folder, tmp_path)
    assert says in caught.value.line() and str(tmp_path) in caught.value.line()


def test_links_out_of_the_folder_are_refused(tmp_path):
    folder = dataset(tmp_path / "d", [[record(np.random.default_rng(0))]])
    outside = dataset(tmp_path / "elsewhere", [[record(np.random.default_rng(0))]])
    shard = folder / "pour-train.tfrecord-00000-of-00001"
    shard.unlink()
    shard.symlink_to(outside / shard.name)
    with pytest.raises(InputError, match="leads out of the folder"):
        read(folder, tmp_path)


def test_an_example_that_is_no_example(tmp_path):
    path = tmp_path / "x.tfrecord"
    for payload in (b"\x1a\x00", b"\xff" * 30, b"\x0a\x05\x0a", example(record(np.random.default_rng(0)))[:-9]):
        path.write_bytes(tfrecord(payload))
        with pytest.raises(Damaged, match=r"x\.tfrecord: offset \d+: .*record at offset 12"):
            read(path, tmp_path)


def test_crc32c_gives_the_published_values():
    # RFC 3720, appendix B.4
    assert crc32c(bytes(32)) == 0x8A9136AA and crc32c(b"\xff" * 32) == 0x62A8AB43
    assert crc32c(bytes(range(32))) == 0x46DD794E and crc32c(b"123456789") == 0xE3069283


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_crc32c_equals_its_definition_and_can_be_continued(data, cut):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    assert crc32c(data) == crc ^ 0xFFFFFFFF == crc32c(data[cut:], crc32c(data[:cut]))
