"""Salvage: everything that is intact, nothing that is not, and an account of both."""

import importlib.util
import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from flyball.apps.cli.main import main
from flyball.base import InputError
from flyball.episodes.formats.mcap import MAGIC, McapFile
from flyball.episodes.formats.mcap_salvage import SalvagedMcap, write_salvaged

ROOT = Path(__file__).parents[3]


def load(path):
    """A module that is no part of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


damage = load(ROOT / "benchmarks/damage.py")
parts = load(Path(__file__).parent / "test_mcap.py")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return {r.name: r for r in damage.recordings(tmp_path_factory.mktemp("recordings"))}


def saved(blob, **options):
    file = SalvagedMcap(blob, "f.mcap", **options)
    return Counter(damage.contents(file)), file.report


def flipped(blob, at):
    return blob[:at] + bytes([blob[at] ^ 4]) + blob[at + 1 :]


def test_damaged_files_give_an_error_or_what_was_written_and_salvage_only_what_was_written(tmp_path):
    result = damage.campaign(200, 7, tmp_path, bombs=False)
    assert result["wrong"] == [] and result["crashes"] == result["hangs"] == 0
    kinds = result["by_kind"]
    assert sum(k["files"] for k in kinds.values()) == 200
    assert {k.__name__ for k in damage.KINDS} - {"bomb"} <= kinds.keys()
    for kind in ("truncate", "drop", "insert", "splice", "overwrite"):
        assert kinds[kind]["recovered"] > 0 and kinds[kind]["error"] > 0.5 * kinds[kind]["files"], kind


def test_the_campaign_notices_a_reader_that_checks_nothing(tmp_path, monkeypatch):
    import flyball.episodes.formats.mcap_salvage as salvage

    real = salvage.unpack
    monkeypatch.setattr(salvage, "unpack", lambda head, *rest: real(replace(head, crc=0), *rest))
    wrong = damage.campaign(40, 7, tmp_path, bombs=False)["wrong"]
    assert any("messages that were never written" in line for line in wrong)


def test_bombs_are_not_unpacked(tmp_path, recordings):
    for claim, packed in ((1000, 1), (1000, 2), (1000, 3), (1 << 60, 1)):
        made = damage._bomb(40 << 20, b"\0" * 22)
        body = damage.struct.pack("<QQQI", 0, 0, claim, made[0]) + damage.text("zstd" if packed != 2 else "lz4")
        body += damage.struct.pack("<Q", len(made[packed])) + made[packed]
        r = recordings["zstd"]
        at = r.chunks[3][0]
        messages, report = saved(r.blob[:at] + damage.record(6, body) + r.blob[at:], max_chunk_bytes=1 << 20)
        assert messages == Counter(r.messages) and not report.complete and report.discarded["chunks"] == 1


def test_a_sound_file_is_read_as_it_is(recordings):
    for r in recordings.values():
        messages, report = saved(r.blob)
        assert messages == Counter(r.messages) and report.sound and report.complete and report.complaint == ""
        assert report.recovered["chunks"] == len(r.chunks) and report.recovered["messages"] == len(r.messages)


@pytest.mark.parametrize("name", ["zstd", "lz4", "none", "no data CRC", "pictures"])
def test_every_intact_chunk_is_saved_also_behind_the_damage(recordings, name):
    r = recordings[name]
    for begin, end, held in r.chunks:
        middle = (begin + end) // 2
        for blob in (
            flipped(r.blob, middle),
            r.blob[:middle] + r.blob[middle + 20 :],
            r.blob[:begin] + bytes(end - begin) + r.blob[end:],
        ):
            messages, report = saved(blob)
            assert messages == Counter(r.messages) - held
            assert report.discarded["chunks"] == 1 and report.discarded["messages"] == held.total()
            assert not report.complete and "lost" in report.line()
        messages, _ = saved(flipped(r.blob, begin + 2))  # the length of the record
        assert Counter(r.messages) - held <= messages <= Counter(r.messages)


def test_channels_defined_in_a_lost_chunk_come_from_the_summary(recordings):
    r = recordings["no data CRC"]
    begin, end, held = r.chunks[0]
    messages, report = saved(flipped(r.blob, end - 1))
    assert messages == Counter(r.messages) - held
    assert report.recovered["channels"] == 5


def test_without_a_summary_a_broken_order_of_records_ends_the_meaning_of_ids(recordings):
    r = recordings["no data CRC, no summary"]
    begin, end, held = r.chunks[7]  # all channels are defined before it
    messages, report = saved(r.blob[:begin] + r.blob[begin + 100 :])
    before = sum((h for _, b, h in r.chunks if b <= begin), Counter())
    assert before <= messages <= Counter(r.messages) and report.withheld > 0
    everything, report = saved(r.blob[:begin] + r.blob[begin + 100 :], unverified=True)
    assert everything == Counter(r.messages) - held


def test_two_recordings_in_one_file_keep_their_own_topics(recordings):
    a, b = recordings["none"], recordings["twin"]
    at = a.chunks[5][0] + 77
    messages, report = saved(a.blob[:at] + b.blob[at + 1000 :])
    head = sum((held for _, end, held in a.chunks if end <= at), Counter())
    tail = sum((held for begin, _, held in b.chunks if begin >= at + 1000), Counter())
    assert messages == head + tail
    assert report.mixed and not report.complete and "two recordings" in report.line()
    at = a.chunks[5][0]  # cut where a record begins, in both
    messages, report = saved(a.blob[:at] + b.blob[at:])
    assert messages <= Counter(b.messages) and report.discarded["chunks"] >= 5 and not report.complete


def test_an_id_with_two_meanings_has_none():
    chunks = [parts.chunk(parts.HEAD + parts.ONE), parts.chunk(parts.ONE)]
    same = parts.mcap(*chunks, data_crc=7, summary=parts.HEAD)
    messages, report = saved(same)
    assert messages.total() == 2 and report.recovered["channels"] == 1
    other = parts.mcap(*chunks, data_crc=7, summary=parts.schema(1) + parts.channel(1, "/y"))
    messages, report = saved(other)
    assert not messages and report.withheld == 2 and not report.complete


def test_a_chunk_is_taken_once(recordings):
    r = recordings["no data CRC"]
    begin, end, held = r.chunks[4]
    messages, report = saved(r.blob[:end] + b"garbage" + r.blob[begin:])
    assert messages == Counter(r.messages) and not report.complete


def test_what_no_checksum_covers_is_believed_only_where_the_file_just_stops(recordings):
    r = recordings["no chunks, no checksum"]
    ends = [b for op, _, b in r.records if op == 5]
    messages, report = saved(r.blob[: ends[100] + 5])
    assert messages == Counter(r.messages[:100])  # not the last: what follows it cannot confirm its length
    assert report.unverified["messages"] == 100 and report.withheld == 1
    hole = r.blob[: ends[50]] + bytes(100) + r.blob[ends[50] + 100 :]
    messages, report = saved(hole)
    assert not messages and report.withheld > 0 and "no checksum covers" in report.line()
    messages, report = saved(hole, unverified=True)
    assert Counter(r.messages[:51]) <= messages and report.unverified["messages"] == messages.total()


def test_chunks_without_a_crc_are_believed_where_the_file_just_stops(recordings):
    r = recordings["no checksum"]
    for at in (r.chunks[5][1], r.chunks[5][1] + 5, r.chunks[6][1] - 3, r.records[-6][1], r.records[-6][1] + 3):
        messages, report = saved(r.blob[:at])
        assert messages == sum((held for _, end, held in r.chunks if end <= at), Counter())
        assert report.unverified["messages"] == messages.total() and report.withheld == 0
    messages, report = saved(r.blob[: r.chunks[5][0]] + bytes(50) + r.blob[r.chunks[5][0] + 50 :])
    assert not messages and report.withheld > 0


def test_messages_outside_chunks_are_believed_if_the_data_crc_is_right(recordings):
    r = recordings["no chunks"]
    messages, report = saved(flipped(r.blob, len(r.blob) - 3))  # the closing mark
    assert messages == Counter(r.messages) and report.complete
    messages, report = saved(flipped(r.blob, r.records[20][2] - 1))
    assert not messages and report.withheld == len(r.messages)


def test_a_summary_is_found_where_missing_bytes_have_moved_it(recordings):
    r = recordings["zstd"]
    begin, _, held = r.chunks[1]
    messages, report = saved(r.blob[:8] + r.blob[begin + 50 :])
    lost = sum((h for _, _, h in r.chunks[:2]), Counter())
    assert messages == Counter(r.messages) - lost and report.discarded["messages"] == lost.total()


def test_attachments_and_metadata(recordings):
    r = recordings["zstd"]
    file = SalvagedMcap(flipped(r.blob, r.chunks[0][0] + 60), "f.mcap")
    assert damage.extras(file) == r.extras and file.report.unverified["metadata"] == 2
    begin = next(a for op, a, _ in r.records if op == 9)
    file = SalvagedMcap(flipped(r.blob, begin + 500), "f.mcap")
    assert file.attachments == [] and file.report.discarded["attachments"] == 1


def test_the_file_that_is_written_is_sound_and_complete(recordings, tmp_path):
    r = recordings["lz4"]
    bad = tmp_path / "bad.mcap"
    bad.write_bytes(flipped(r.blob, r.chunks[2][1] - 1))
    file = SalvagedMcap(bad)
    out = tmp_path / "out.mcap"
    write_salvaged(file, out)
    made = McapFile(out)
    assert damage.contents(made) == [m for m in r.messages if m not in r.chunks[2][2]]
    assert damage.extras(made) == r.extras and made.unchecked == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad.mcap", "out.mcap"]
    with pytest.raises(InputError, match="exists already"):
        write_salvaged(file, out)


def test_pages_that_the_disk_does_not_give_are_damage(recordings, tmp_path, monkeypatch):
    import flyball.episodes.formats.mcap_records as records

    r = recordings["zstd"]
    path = tmp_path / "bad.mcap"
    path.write_bytes(r.blob)
    page = range(8192, 12288)

    def pread(fd, n, at):
        if at < page.stop and at + n > page.start:
            raise OSError(5, "Input/output error")
        return real(fd, n, at)

    real = records.os.pread
    monkeypatch.setattr(records.os, "pread", pread)
    with pytest.raises(InputError, match="cannot be read"):
        list(McapFile(path).blocks())
    messages = Counter(damage.contents(SalvagedMcap(path)))
    assert messages == Counter(r.messages) - sum(
        (held for a, b, held in r.chunks if a < page.stop and b > page.start), Counter()
    )


# ---- flyball salvage


def run(capsys, *argv):
    code = main(["salvage", *map(str, argv)])
    out, err = capsys.readouterr()
    return code, out, err


def test_the_verb_saves_and_counts(recordings, tmp_path, capsys):
    r = recordings["zstd"]
    bad = tmp_path / "bad.mcap"
    begin, end, held = r.chunks[3]
    bad.write_bytes(flipped(r.blob, (begin + end) // 2))
    code, out, err = run(capsys, bad)
    assert code == 3 and f"at byte {begin}" in err
    assert out.splitlines() == [
        f"{len(r.messages) - held.total()} messages, {len(r.chunks) - 1} chunks, 5 channels, 1 attachment, 2 metadata "
        f"recovered, at least {held.total()} messages, 1 chunk lost; no checksum covers 2 metadata of these",
        f"written to {tmp_path / 'bad.salvaged.mcap'}",
    ]
    assert Counter(damage.contents(McapFile(tmp_path / "bad.salvaged.mcap"))) == Counter(r.messages) - held
    assert bad.read_bytes() == flipped(r.blob, (begin + end) // 2)
    code, out, err = run(capsys, bad)
    assert code == 2 and "exists already" in err
    code, out, err = run(capsys, bad, "-o", tmp_path / "other.mcap", "--json")
    document = json.loads(out)
    assert code == 3 and document["discarded"]["messages"] == held.total() and not document["complete"]


def test_the_verb_on_files_with_nothing_lost(recordings, tmp_path, capsys):
    r = recordings["zstd"]
    path = tmp_path / "a.mcap"
    path.write_bytes(r.blob)
    code, out, err = run(capsys, path)
    assert code == 0 and "sound" in err and list(tmp_path.iterdir()) == [path]
    path.write_bytes(r.blob[:-5])  # only the closing mark is cut off
    code, out, err = run(capsys, path)
    assert code == 0 and "nothing lost" in out and (tmp_path / "a.salvaged.mcap").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "nothing can be saved"),
        (b"no log at all" * 100, "nothing can be saved"),
        (MAGIC + bytes(1000), "nothing can be saved"),
        (None, "no such file"),
    ],
)
def test_the_verb_on_files_with_nothing_to_save(tmp_path, capsys, content, says):
    path = tmp_path / "a.mcap"
    if content is not None:
        path.write_bytes(content)
    code, out, err = run(capsys, path)
    assert code == 2 and says in err and "a.mcap" in err and len(err.splitlines()) == 1 and out == ""
    assert [p.name for p in tmp_path.iterdir()] == (["a.mcap"] if content is not None else [])


def test_the_verb_names_the_way_to_what_cannot_be_verified(recordings, tmp_path, capsys):
    r = recordings["no chunks, no checksum"]
    path = tmp_path / "a b.mcap"
    bare = [x for x in r.records if x[0] == 5]
    path.write_bytes(r.blob[: bare[30][2]] + bytes(3) + b"\xff" * 40 + r.blob[bare[32][2] : bare[60][2]])
    code, out, err = run(capsys, path)
    if code == 2:
        assert "--unverified" in err
    code, out, err = run(capsys, path, "--unverified", "-o", tmp_path / "out.mcap")
    assert code == 3 and "no checksum covers" in out
