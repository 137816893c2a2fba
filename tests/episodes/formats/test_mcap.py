"""The MCAP reader: reads what is sound, whoever wrote it, and says where what is not."""

import random
import struct
import tracemalloc
import zlib

import foxglove
import lz4.frame
import numpy as np
import pytest
import zstandard
from foxglove.mcap import MCAPCompression, MCAPWriteOptions
from hypothesis import given
from hypothesis import strategies as st

from flyball.base import Damaged, InputError, Missing, Unsupported
from flyball.episodes.formats.mcap import MAGIC, McapFile
from flyball.episodes.formats.mcap_records import BLOCK_MESSAGES, chain


def rec(op, body):
    """One MCAP record."""
    return struct.pack("<BQ", op, len(body)) + body


def text(s):
    """One MCAP string."""
    return struct.pack("<I", len(s)) + s.encode()


def schema(i, name="std_msgs/msg/Float64", data="float64 data", encoding="ros2msg"):
    """A schema record."""
    return rec(3, struct.pack("<H", i) + text(name) + text(encoding) + text(data))


def channel(i, topic="/x", schema_id=1, encoding="cdr", metadata=b""):
    """A channel record."""
    return rec(
        4, struct.pack("<HH", i, schema_id) + text(topic) + text(encoding) + struct.pack("<I", len(metadata)) + metadata
    )


def message(i, t, payload, sequence=0):
    """A message record."""
    return rec(5, struct.pack("<HIQQ", i, sequence, t, t) + payload)


def chunk(records, codec="", packed=None, size=None, crc=None):
    """A chunk record; the claims about its content can be made wrong."""
    packed = records if packed is None else packed
    size = len(records) if size is None else size
    crc = zlib.crc32(records) if crc is None else crc
    return rec(6, struct.pack("<QQQI", 0, 0, size, crc) + text(codec) + struct.pack("<Q", len(packed)) + packed)


def mcap(*records, data_crc=None, summary=b""):
    """A complete file of these records."""
    data = MAGIC + rec(1, text("ros2") + text("tests")) + b"".join(records)
    crc = zlib.crc32(data) if data_crc is None else data_crc
    data += rec(15, struct.pack("<I", crc))
    start = len(data) if summary else 0
    foot = summary + struct.pack("<BQQQ", 2, 20, start, 0)
    return data + foot + struct.pack("<I", zlib.crc32(foot)) + MAGIC


def written(tmp_path, n=2000, **options):
    """A file by the SDK: two topics, metadata, an attachment; returns (bytes, expected messages)."""
    context, path = foxglove.Context(), tmp_path / "f.mcap"
    writer = foxglove.open_mcap(
        path, context=context, allow_overwrite=True, writer_options=MCAPWriteOptions(chunk_size=16384, **options)
    )
    schema = foxglove.Schema(name="pkg/Raw", encoding="ros2msg", data=b"uint8[] data")
    topics = [foxglove.Channel(t, schema=schema, message_encoding="cdr", context=context) for t in ("/a", "/b")]
    rng, sent = random.Random(0), []
    for i in range(n):
        payload = rng.randbytes(rng.randrange(1, 80))
        topics[i % 2].log(payload, log_time=1000 + i)
        sent.append((("/a", "/b")[i % 2], 1000 + i, payload))
    writer.write_metadata("rig", {"kp": "100", "ü": "é"})
    writer.attach(log_time=1, create_time=2, name="a.txt", media_type="text/plain", data=b"attached")
    writer.close()
    return path.read_bytes(), sent


def read(blob):
    return [(c.topic, t, bytes(data)) for c, t, _, data in McapFile(blob, "f.mcap").messages()]


@pytest.mark.parametrize(
    "options",
    [
        {"compression": MCAPCompression.Zstd},
        {"compression": MCAPCompression.Lz4},
        {"compression": None},
        {"use_chunks": False},
        {"emit_statistics": False, "emit_summary_offsets": False, "repeat_channels": False, "repeat_schemas": False},
        {"calculate_chunk_crcs": False, "calculate_data_section_crc": False, "calculate_summary_section_crc": False},
    ],
)
def test_everything_the_sdk_writes_is_read(tmp_path, options):
    blob, sent = written(tmp_path, **options)
    assert read(blob) == sent
    file = McapFile(blob)
    assert file.metadata == [("rig", {"kp": "100", "ü": "é"})]
    assert [(a.name, a.media_type, a.data, a.log_ns, a.create_ns) for a in file.attachments] == [
        ("a.txt", "text/plain", b"attached", 1, 2)
    ]
    assert {c.topic for c in file.channels.values()} == {"/a", "/b"} or options.get("use_chunks", True)


def test_every_flipped_bit_of_a_file_with_all_checksums_is_noticed(tmp_path):
    blob, _ = written(tmp_path, n=300)
    rng = random.Random(1)
    for at in [*range(40), *range(len(blob) - 60, len(blob)), *(rng.randrange(len(blob)) for _ in range(400))]:
        bad = bytearray(blob)
        bad[at] ^= 1 << rng.randrange(8)
        with pytest.raises((Damaged, Unsupported), match=r"f\.mcap at byte \d+"):
            read(bytes(bad))


def test_every_truncation_is_noticed_and_counts_what_was_intact(tmp_path):
    blob, sent = written(tmp_path, n=1500)
    counts = set()
    for cut in range(0, len(blob), 997):
        with pytest.raises(Damaged) as caught:
            read(blob[:cut])
        if cut >= 8:
            counts.add(int(caught.value.what.split(" (")[-1].split()[0]))
            assert counts <= set(range(len(sent) + 1))
    assert min(counts) == 0 and max(counts) == len(sent) and len(counts) > 3


def test_a_bad_chunk_is_named_by_offset_with_the_messages_before_it():
    records = schema(1) + channel(1)
    first = chunk(records + message(1, 1, b"a") + message(1, 2, b"b"))
    bad = chunk(message(1, 3, b"c"), crc=12345)
    blob = mcap(first, bad)
    offset = blob.index(bad)
    with pytest.raises(Damaged) as caught:
        read(blob)
    assert caught.value.where == f"f.mcap at byte {offset}"
    assert "CRC of a chunk is wrong (2 messages before it are intact)" in caught.value.what


def attachment(crc):
    return rec(9, struct.pack("<QQ", 1, 1) + text("n") + text("m") + struct.pack("<QI", 0, crc))


def statistics(messages, metadata=0):
    return rec(11, struct.pack("<QHIIIIQQI", messages, 1, 1, 0, metadata, 0, 0, 0, 0))


HEAD = schema(1) + channel(1)
ONE = message(1, 5, b"x")


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"", "wrong first bytes"),
        (b"\x89PNG\r\n\x1a\n" * 100, "wrong first bytes"),
        (mcap(HEAD, ONE) + b"more", "closing mark"),
        (MAGIC + rec(3, b""), "header is not the first"),
        (mcap(HEAD, rec(1, text("") + text(""))), "second header"),
        (mcap(channel(1)), "schema 1, which is not defined"),
        (mcap(HEAD, schema(1, data="int8 data")), "schema 1 is defined twice"),
        (mcap(HEAD, channel(1, "/y")), "channel 1 is defined twice"),
        (mcap(HEAD, message(2, 5, b"x")), "channel 2, which is not defined"),
        (mcap(HEAD, rec(5, b"short")), "shorter than its own head"),
        (mcap(HEAD, rec(2, b"")), "type 0x02 within the data"),
        (mcap(HEAD, rec(3, struct.pack("<HI", 2, 1 << 31))), "fields of a record do not fit"),
        (mcap(HEAD, rec(12, text("a") + struct.pack("<I", 4) + b"\xff\xff\xff\xff")), "fields of a record do not fit"),
        (mcap(rec(3, struct.pack("<HI", 2, 2) + b"\xff\xff" + text("") + text(""))), "not UTF-8"),
        (mcap(chunk(HEAD + ONE[:-3])), "do not end where it does"),
        (mcap(chunk(HEAD + rec(7, b""))), "type 0x07 within a chunk"),
        (mcap(chunk(HEAD + ONE, size=1)), "decompresses to"),
        (mcap(chunk(HEAD + ONE, "zstd")), "does not decompress"),
        (mcap(chunk(HEAD + ONE, "lz4")), "does not decompress"),
        (mcap(HEAD, ONE, data_crc=1), "CRC of the data section is wrong"),
        (mcap(HEAD, ONE, attachment(crc=7)), "attachment"),
        (mcap(HEAD, ONE, summary=statistics(messages=2)), "2 messages, the file holds 1"),
        (mcap(HEAD, ONE, summary=statistics(messages=1, metadata=3)), "3 metadata"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(blob, says):
    with pytest.raises(Damaged, match=says):
        read(blob)


def test_unknown_records_outside_chunks_are_skipped_as_the_format_demands():
    assert read(mcap(HEAD, rec(0x90, b"private"), rec(0x40, b"future"), ONE)) == [("/x", 5, b"x")]
    assert read(mcap(chunk(HEAD + rec(0x90, b"private") + ONE))) == [("/x", 5, b"x")]


def test_an_unknown_compression_is_unsupported_not_damage():
    with pytest.raises(Unsupported, match=r"brotli.*zstd, lz4"):
        read(mcap(chunk(HEAD + ONE, "brotli")))


def test_decompression_bombs_are_refused_before_they_go_off():
    big = bytes(300 << 20)
    frames = {
        "zstd": zstandard.compress(big),
        "lz4": lz4.frame.compress(big),
    }
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(big)
    del big
    tracemalloc.start()
    for codec, frame, claim in [
        ("zstd", frames["zstd"], 300 << 20),
        ("zstd", frames["zstd"], 1000),
        ("zstd", unsized, 1000),
        ("lz4", frames["lz4"], 1000),
        ("lz4", frames["lz4"], 1 << 60),
    ]:
        with pytest.raises(Damaged, match="claims|decompress"):
            read(mcap(chunk(b"", codec, frame, claim)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_zstd_chunks_without_a_content_size_or_of_several_frames():
    plain = HEAD + ONE + ONE
    pack = zstandard.ZstdCompressor(write_content_size=False).compress
    for packed in (pack(plain), pack(plain[:50]) + pack(plain[50:]), zstandard.compress(plain)):
        assert len(read(mcap(chunk(plain, "zstd", packed)))) == 2


def test_blocks_are_the_same_messages_as_columns(tmp_path):
    blob, sent = written(tmp_path)
    blocks = list(McapFile(blob).blocks())
    assert sum(len(b.start) for b in blocks) == len(sent) and len(blocks) > 3
    t = np.concatenate([b.log_ns for b in blocks])
    np.testing.assert_array_equal(t, [s[1] for s in sent])


# ---- from a file, piece by piece


def test_a_file_is_read_like_its_bytes(tmp_path):
    for options in ({}, {"use_chunks": False}, {"compression": None}):
        blob, sent = written(tmp_path, **options)
        file = McapFile(tmp_path / "f.mcap")
        assert [(c.topic, t, bytes(data)) for c, t, _, data in file.messages()] == sent == read(blob)
        assert file.attachments[0].data == b"attached" and list(file.attachments[0].pieces()) == [b"attached"]
        assert file.name == str(tmp_path / "f.mcap")


def test_memory_is_bounded_by_the_chunk_and_not_by_the_file(tmp_path):
    path = tmp_path / "long.mcap"
    piece = chunk(b"".join(message(1, i, bytes(100)) for i in range(2000)))
    bare = message(1, 1, bytes(1 << 20))
    with open(path, "wb") as f:
        f.write(MAGIC + rec(1, text("") + text("")) + HEAD)
        for _ in range(60):
            f.write(piece + bare)
        f.write(attachment_of(20 << 20) + rec(0x80, bytes(20 << 20)))
        f.write(rec(15, bytes(4)) + rec(2, bytes(20)) + MAGIC)
    tracemalloc.start()
    n = sum(len(b) for b in McapFile(path).blocks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n == 60 * 2001 and path.stat().st_size > 100 << 20 and peak < 8 << 20


def attachment_of(size):
    body = struct.pack("<QQ", 1, 1) + text("n") + text("m") + struct.pack("<Q", size) + bytes(size)
    return rec(9, body + struct.pack("<I", zlib.crc32(body)))


def test_a_chunk_of_tiny_messages_comes_in_several_blocks():
    n = 150_000
    records = HEAD + message(1, 7, b"") * n
    blocks = list(McapFile(mcap(chunk(records, "zstd", zstandard.compress(records)))).blocks())
    assert [len(b) for b in blocks[:2]] == [BLOCK_MESSAGES - 2, BLOCK_MESSAGES] and sum(map(len, blocks)) == n


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=12),
    st.lists(st.integers(0, 40), max_size=300),
    st.integers(0, 400),
    st.integers(0, 20),
    st.integers(1, 5000),
)
def test_records_are_found_as_if_they_were_walked(rhythm, rest, rounds, cut, most):
    data = b"".join(rec(5, bytes(n)) for n in rhythm * rounds + rest + rhythm * 70)
    data = data[: len(data) - cut]
    expected, at = [], 0
    while len(expected) < most and at + 9 <= len(data):
        n = 9 + struct.unpack_from("<Q", data, at + 1)[0]
        if at + n > len(data):
            break
        expected.append(at)
        at += n
    found, end = chain(data, 0, len(data), most)
    assert found.tolist() == expected and end == at


def test_absent_folders_and_files_are_said():
    with pytest.raises(Missing, match="nowhere"):
        McapFile("nowhere/a.mcap")
    with pytest.raises(InputError, match="directory"):
        McapFile("/")


# ---- what structure alone must notice, where the CRC of the data section is left out


def chunk_index(offset, length, size, codec=""):
    times = struct.pack("<QQQQ", 0, 0, offset, length)
    return rec(8, times + struct.pack("<IQ", 0, 0) + text(codec) + struct.pack("<QQ", size, size))


RECORDS = HEAD + ONE
CHUNK_AT = len(MAGIC + rec(1, text("ros2") + text("tests")))


def test_the_chunk_index_must_agree_with_the_chunks():
    one = chunk(RECORDS)
    right = chunk_index(CHUNK_AT, len(one), len(RECORDS))
    assert read(mcap(one, data_crc=0, summary=right)) == [("/x", 5, b"x")]
    for wrong in (
        chunk_index(CHUNK_AT, len(one), len(RECORDS) + 1),
        chunk_index(CHUNK_AT, len(one), len(RECORDS), "zstd"),
        chunk_index(CHUNK_AT + 1, len(one), len(RECORDS)),
        right + chunk_index(CHUNK_AT + len(one), len(one), len(RECORDS)),
    ):
        with pytest.raises(Damaged, match="chunk index"):
            read(mcap(one, data_crc=0, summary=wrong))


def test_a_definition_in_the_summary_must_agree_with_the_data():
    for summary in (schema(1, data="int8 data"), schema(1) + channel(1, "/y")):
        with pytest.raises(Damaged, match="defined twice, differently"):
            read(mcap(chunk(RECORDS), data_crc=0, summary=summary))


@pytest.mark.parametrize("op", [0x07, 0x0E, 0x04, 0x0C, 0x16, 0x46, 0x86])
def test_a_chunk_whose_type_is_wrong_does_not_vanish(op):
    one = bytearray(chunk(RECORDS))
    one[0] = op
    with pytest.raises(Damaged, match=rf"byte {CHUNK_AT}"):
        read(mcap(bytes(one), data_crc=0))


def test_a_chunk_without_a_crc_among_others_is_damage():
    chunks = [chunk(RECORDS), chunk(ONE, crc=0), chunk(ONE)]
    assert len(read(mcap(*chunks))) == 3  # the CRC of the data section speaks for it
    for order in (chunks, [chunk(RECORDS, crc=0), *chunks[1:]]):
        with pytest.raises(Damaged, match="no CRC where others have one"):
            read(mcap(*order, data_crc=0))


def test_a_chunk_head_of_zeros_is_no_empty_chunk():
    one = bytearray(chunk(RECORDS))
    one[9:60] = bytes(51)
    with pytest.raises(Damaged, match="fields of a chunk"):
        read(mcap(bytes(one), data_crc=0))


def test_messages_that_no_checksum_covers_are_counted():
    for blob, unchecked in (
        (mcap(HEAD, ONE, chunk(ONE)), 0),
        (mcap(HEAD, ONE, chunk(ONE), data_crc=0), 1),
        (mcap(chunk(RECORDS + ONE, crc=0), data_crc=0), 2),
    ):
        file = McapFile(blob)
        assert sum(map(len, file.blocks())) == 2 and file.unchecked == unchecked


def test_an_error_counts_apart_what_has_no_checksum_of_its_own():
    with pytest.raises(Damaged, match=r"\(1 messages before it are intact; 2 more have no checksum of their own\)"):
        read(mcap(HEAD, ONE, ONE, chunk(ONE), data_crc=5))


def test_a_channel_is_known_before_it_is_used():
    with pytest.raises(Damaged, match="channel 1, which is not defined"):
        read(mcap(ONE, HEAD, data_crc=0, summary=HEAD))


def test_records_larger_than_allowed_are_refused():
    with pytest.raises(Damaged, match="allowed are 1000"):
        list(McapFile(mcap(HEAD, message(1, 5, bytes(5000))), max_chunk_bytes=1000).blocks())
    with pytest.raises(Damaged, match="allowed are 1000"):
        McapFile(mcap(schema(1, data="x" * 300_000)), max_chunk_bytes=1000)


def test_a_schema_with_id_zero_is_ignored():
    assert read(mcap(schema(0), HEAD, ONE)) == [("/x", 5, b"x")]
