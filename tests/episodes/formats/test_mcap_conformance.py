"""Every way the MCAP format can lay a recording out is read alike, and written files have all there is to have."""

import hashlib
import importlib.util
import io
import sys
from pathlib import Path

import pytest

from flyball.episodes.formats.mcap import McapFile
from flyball.episodes.formats.mcap_writer import McapWriter

ROOT = Path(__file__).parents[3]


def load(path):
    """A module that is no part of a package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    sys.modules[path.stem] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


mcap_variants = load(Path(__file__).parent / "mcap_variants.py")
suite = load(ROOT / "benchmarks/mcap_conformance.py")
VARIANTS = {name: (blob, found) for name, blob, found in mcap_variants.variants()}


def listed(found):
    """Records as the suite writes them down."""
    out = []
    for r in found:
        values = {n: v for n, _, v in r.fields if n != "crc"}
        out.append({"type": r.kind, "fields": [[n, suite.written(values[n])] for n in sorted(values)]})
    return out


def test_the_variants_are_the_files_of_the_conformance_suite():
    lines = "".join(f"{n} {hashlib.sha256(blob).hexdigest()}\n" for n, (blob, _) in sorted(VARIANTS.items()))
    assert len(VARIANTS) == 416 and hashlib.sha256(lines.encode()).hexdigest() == mcap_variants.DIGEST


@pytest.mark.parametrize("recording", mcap_variants.RECORDINGS)
def test_every_variant_is_read_identically(recording):
    names = [n for n in VARIANTS if n.split("-")[0] == recording]
    assert len(names) >= 6
    for name in names:
        blob, found = VARIANTS[name]
        want = listed(found)
        assert list(suite.records(blob)) == want, name
        assert suite.through_the_reader(blob) == suite.expected(want), name


@pytest.mark.parametrize("codec", ["", "zstd", "lz4"])
def test_what_is_written_from_a_variant_reads_the_same(codec):
    for name in ("TenMessages-ch-mx", "OneSchemalessMessage", "OneAttachment-ax", "OneMetadata-mdx", "NoData"):
        file, out = McapFile(VARIANTS[name][0]), io.BytesIO()
        writer = McapWriter(out, codec=codec)
        for record in file.metadata:
            writer.metadata(*record)
        for block in file.blocks():
            writer.write(block, file.channels)
        for attachment in file.attachments:
            writer.attach(attachment)
        writer.close()
        before = [r for r in suite.through_the_reader(VARIANTS[name][0]) if r[0] not in ("Header", "Statistics")]
        after = [r for r in suite.through_the_reader(out.getvalue()) if r[0] not in ("Header", "Statistics")]
        assert after == before, name
        written = McapFile(out.getvalue())
        assert sum(map(len, written.blocks())) == written.statistics.messages and written.unchecked == 0


def test_another_implementation_reads_what_is_written():
    reader = pytest.importorskip("mcap.reader")
    file, out = McapFile(VARIANTS["TenMessages"][0]), io.BytesIO()
    writer = McapWriter(out)
    writer.metadata("a", {"b": "c"})
    for block in file.blocks():
        writer.write(block, file.channels)
    writer.close()
    out.seek(0)
    theirs = reader.make_reader(out, validate_crcs=True)
    found = [(s.name, c.topic, m.log_time, m.sequence, m.data) for s, c, m in theirs.iter_messages()]
    times = [(0, 0), (1, 2), (2, 1), (3, 3), (3, 4), (4, 6), (5, 5), (7, 7), (8, 8), (9, 9)]
    assert found == [("Example", "example", t, i, b"\1\2\3") for t, i in times]
    summary = theirs.get_summary()
    assert summary.statistics.message_count == 10 and len(summary.chunk_indexes) == 1
    assert [(m.name, m.metadata) for m in theirs.iter_metadata()] == [("a", {"b": "c"})]
