"""The intake: columns may outgrow the memory, pictures lie in files, time that runs backwards is told."""

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.episodes.intake import Intake


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=40),
    st.sampled_from([1 << 62, 4096, 0]),
)
def test_columns_hold_what_was_appended_in_memory_or_not(tmp_path_factory, parts, memory):
    intake = Intake(tmp_path_factory.mktemp("intake"), memory=memory)
    kinds = [(np.float64, (3,)), (np.int64, ()), (np.uint8, (2, 2))]
    columns = [intake.column(dtype, shape) for dtype, shape in kinds]
    expected = [[np.zeros((0, *shape), dtype)] for dtype, shape in kinds]
    for k, (which, n) in enumerate(parts):
        dtype, shape = kinds[which]
        block = np.full((n, *shape), k % 100, dtype)
        columns[which].append(block)
        expected[which].append(block.copy())
        block += 1
    for column, blocks in zip(columns, expected, strict=True):
        whole = np.concatenate(blocks)
        assert column.length == len(whole)
        np.testing.assert_array_equal(column.array(), whole)
        assert column.array().dtype == whole.dtype
    assert sum(c.held for c in columns) <= memory


def test_still_pictures_are_put_in_order_and_a_videos_order_stays(tmp_path):
    intake = Intake(tmp_path)
    stills, video = intake.frames("a", "jpeg", 2, 2), intake.frames("b", "h264")
    for t, text in ((30, b"three"), (10, b""), (20, b"two")):
        stills.append(t, text)
        video.append(t, text, key=t == 30)
    a, b = stills.close(), video.close()
    bytes_of = {f.name: intake.blobs[f.blob].read_bytes() for f in (a, b)}
    assert [bytes_of["a"][i:j] for i, j in zip(a.start, a.stop, strict=True)] == [b"", b"two", b"three"]
    assert [bytes_of["b"][i:j] for i, j in zip(b.start, b.stop, strict=True)] == [b"three", b"", b"two"]
    assert (
        a.t_ns.tolist() == [10, 20, 30] and b.t_ns.tolist() == [30, 30, 30] and b.key.tolist() == [True, False, False]
    )
    assert hashlib.sha256(b"threetwo").hexdigest() == b.blob
    assert [n.text for n in intake.notes] == ["a: 1 time stamps ran backwards", "b: 1 time stamps ran backwards"]
