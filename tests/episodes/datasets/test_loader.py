"""Windows: what is in them, in which order they come, and pictures that are decoded once."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import Damaged, InputError, Missing
from flyball.episodes.datasets.layout import TableOptions, plan
from flyball.episodes.datasets.lerobot import export
from flyball.episodes.datasets.loader import FrameCache, Loader, Source
from flyball.episodes.datasets.sources import dataset_source, folder_source
from flyball.episodes.datasets.testing import picture

FRONT = "observation.images.front"


def source(lengths, *, fps=10.0, width=3, first=0, name="s"):
    """Rows that tell who they are: (source's first number + row) in every element but the last, the episode in that."""
    lengths = np.asarray(lengths)
    n = int(lengths.sum())
    episode = np.repeat(np.arange(len(lengths)), lengths)
    rows = np.repeat((first + np.arange(n))[:, None], width, axis=1).astype(np.float32)
    return Source(name, fps, lengths, {"x": rows, "flag": (np.arange(n) % 2 == 0)[:, None], "e": episode[:, None]})


def brute(s, offsets, i):
    """A window, the slow way: (rows, mask)."""
    edges = np.cumsum([0, *s.lengths])
    e = int(np.searchsorted(edges, i, "right")) - 1
    want = [i + o for o in offsets]
    rows = [min(max(j, edges[e]), edges[e + 1] - 1) for j in want]
    return rows, [not edges[e] <= j < edges[e + 1] for j in want], e, i - edges[e]


@settings(max_examples=80, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    x=st.lists(st.integers(-12, 12), min_size=1, max_size=5),
    run=st.integers(-3, 3),
    count=st.integers(1, 8),
    batch=st.integers(1, 20),
)
def test_windows_are_what_the_slow_way_gives(lengths, x, run, count, batch):
    s = source(lengths)
    windows = {"x": x, "flag": range(run, run + count), "e": (0,)}
    loader = Loader([s], windows, batch=batch, seed=1)
    seen = []
    for b in loader.epoch(0):
        for row, i in enumerate(b["index"].tolist()):
            seen.append(i)
            for key, offsets in windows.items():
                rows, mask, e, frame = brute(s, list(offsets), i)
                assert np.array_equal(b[key][row], s.columns[key][rows])
                assert b[key + "_is_pad"][row].tolist() == mask
                assert (b["episode_index"][row], b["frame_index"][row]) == (e, frame)
    assert sorted(seen) == list(range(sum(lengths))) and len(loader) == -(-sum(lengths) // batch)


@settings(max_examples=40, deadline=None)
@given(n=st.integers(1, 60), world=st.integers(1, 5), batch=st.integers(1, 7), seed=st.integers(0, 99))
def test_ranks_share_an_epoch_without_overlap(n, world, batch, seed):
    def mine(rank, **options):
        loader = Loader([source([n])], {"x": (0,)}, batch=batch, seed=seed, rank=rank, world=world, **options)
        found = [b["index"].copy() for b in loader.epoch(3)]
        assert len(found) == len(loader)
        return found

    shares = [np.concatenate([*mine(r), np.zeros(0, int)]) for r in range(world)]
    assert sorted(np.concatenate(shares).tolist()) == list(range(n))
    even = [mine(r, drop_last=True) for r in range(world)]
    assert len({len(x) for x in even}) == 1 and all(len(b) == batch for x in even for b in x)
    taken = [i for x in even for b in x for i in b.tolist()]
    assert len(set(taken)) == len(taken)


def test_the_order_is_decided_by_seed_and_epoch_alone():
    def order(seed=0, epoch=0, **options):
        return Loader([source([50, 50])], {"x": (0,)}, batch=16, seed=seed, **options).order(epoch).tolist()

    assert order() == order() and order(seed=1) != order() and order(epoch=1) != order()
    assert order(shuffle=False) == list(range(100))
    loader = Loader([source([50, 50])], {"x": (0,)}, batch=16)
    whole = [b["index"].tolist() for b in loader.epoch(2)]
    assert [b["index"].tolist() for b in loader.epoch(2, start=3)] == whole[3:]


def test_whole_windows_alone():
    loader = Loader([source([5, 2, 4])], {"x": (-1, 0), "flag": range(3)}, batch=9, whole=True, shuffle=False)
    (b,) = loader.epoch()
    assert b["index"].tolist() == [1, 2, 8] and not b["x_is_pad"].any() and not b["flag_is_pad"].any()


def test_seconds_are_rows_of_each_source_s_own_rate():
    slow, fast = source([20], fps=10, name="slow"), source([40], fps=20, first=1000, name="fast")
    loader = Loader([slow, fast], {"x": (-0.1, 0.0, 0.3)}, batch=60, shuffle=False)
    (b,) = loader.epoch()
    assert b["x"][5, :, 0].tolist() == [4, 5, 8]
    assert b["x"][20 + 10, :, 0].tolist() == [1008, 1010, 1016]
    assert b["episode_index"][[0, 19, 20]].tolist() == [0, 0, 1]
    with pytest.raises(InputError, match="x: no row at 0.05 s in slow; allowed: multiples of 1/10 s"):
        Loader([slow, fast], {"x": (0.05,)})
    assert Loader([slow, fast], {"x": (0.06,)}, tolerance_s=0.05).offsets["x"][0].tolist() == [1]


def test_both_sources_give_the_same_windows(exported, tmp_path):
    folder, _ = exported.folder(images="png")
    layout = plan(exported.store, exported.dataset, TableOptions(images="png"))
    windows = {"observation.state": (-1, 0), "action": range(4), "observation.tactile.grid": (0,), FRONT: (-2, 0)}
    loaders = [
        Loader([s], windows, batch=32, cache=tmp_path)
        for s in (folder_source(folder), dataset_source(exported.store, exported.dataset, layout))
    ]
    for one, other in zip(*(loader.epoch(1) for loader in loaders), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            assert one[key].dtype == other[key].dtype and np.array_equal(one[key], other[key])


def test_pictures_are_those_of_their_rows(exported, tmp_path):
    folder, _ = exported.folder()
    loader = Loader([folder_source(folder)], {FRONT: (-1, 0, 1)}, batch=93, shuffle=False, cache=tmp_path)
    (b,) = loader.epoch()
    assert b[FRONT].shape == (93, 3, 32, 32, 3) and b[FRONT].dtype == np.uint8
    for seed, start in ((0, 0), (1, 30), (2, 61)):
        for i in (0, 4, 29):
            for k, j in enumerate((max(i - 1, 0), i, min(i + 1, 29 + seed))):
                assert psnr(b[FRONT][start + i, k], picture(j, seed)) > 25


def psnr(a, b):
    return 10 * np.log10(255**2 / max(1e-9, np.mean((a.astype(float) - b) ** 2)))


def test_pictures_are_scaled_when_asked(exported, tmp_path):
    folder, _ = exported.folder(images="png")
    loader = Loader(
        [folder_source(folder)], {FRONT: (0,)}, batch=4, shuffle=False, cache=tmp_path, sizes={FRONT: (16, 8)}
    )
    got = next(loader.epoch())[FRONT]
    assert got.shape == (4, 1, 16, 8, 3)
    means = picture(2, 0).reshape(16, 2, 8, 4, 3).astype(float).mean((1, 3))
    assert np.abs(got[2, 0] - means).mean() < 3


def test_a_split_is_read_alone(exported, tmp_path):
    a, b, c = exported.dataset.episodes
    d = replace(exported.dataset, splits={"train": (c, a), "test": (b,)})
    layout = plan(exported.store, d, TableOptions())
    export(exported.store, d, layout, tmp_path / "out")
    sources = [folder_source(tmp_path / "out", split="test"), dataset_source(exported.store, d, layout, split="test")]
    for s in sources:
        assert s.lengths.tolist() == [31]
    batches = [
        next(Loader([s], {"action": (0,), FRONT: (0,)}, batch=31, shuffle=False, cache=tmp_path).epoch())
        for s in sources
    ]
    assert np.array_equal(batches[0]["action"], batches[1]["action"])
    assert psnr(batches[0][FRONT][3], batches[1][FRONT][3]) > 25
    for open_split in (
        lambda: folder_source(tmp_path / "out", split="val"),
        lambda: dataset_source(exported.store, d, layout, split="val"),
    ):
        with pytest.raises(Missing, match="no split named 'val'; allowed: .*test, train"):
            open_split()


# ---- decoded once


class Camera:
    """A source of pictures that counts how often it is asked, and may fail once."""

    def __init__(self, lengths, fail_at=-1):
        self.lengths, self.fail_at, self.decoded = lengths, fail_at, []
        self.source = Source(
            "cam", 10.0, np.array(lengths), {}, {"c": (4, 6)}, self.decode, lambda camera: "id-" + camera
        )

    def decode(self, camera, first, height, width):
        for e in range(first, len(self.lengths)):
            for i in range(self.lengths[e]):
                if len(self.decoded) == self.fail_at:
                    self.fail_at = -1
                    raise KeyboardInterrupt
                self.decoded.append((e, i))
                yield e, np.full((height, width, 3), 10 * e + i, np.uint8)


def test_pictures_are_decoded_once_and_go_on_where_they_were_interrupted(tmp_path):
    camera = Camera([3, 4, 2], fail_at=5)
    cache = FrameCache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        cache.pictures(camera.source, "c", (4, 6))
    camera.decoded.clear()
    got = cache.pictures(camera.source, "c", (4, 6))
    assert camera.decoded[0] == (1, 0) and len(camera.decoded) == 6  # the first episode was done
    assert got[:, 0, 0, 0].tolist() == [0, 1, 2, 10, 11, 12, 13, 20, 21] and got.shape == (9, 4, 6, 3)
    camera.decoded.clear()
    again = FrameCache(tmp_path).pictures(camera.source, "c", (4, 6))
    assert camera.decoded == [] and np.array_equal(again, got)
    with pytest.raises(ValueError, match="read-only"):
        again[0] = 0
    assert FrameCache(tmp_path).pictures(camera.source, "c", (2, 2)).shape == (9, 2, 2, 3)  # another size, another file
    changed = Camera([3, 4, 2])
    FrameCache(tmp_path).pictures(replace(changed.source, identity=lambda camera: "other pictures"), "c", (4, 6))
    assert len(changed.decoded) == 9


@pytest.mark.parametrize("images", ["video", "png"])
def test_sources_decode_from_any_episode_on(exported, images):
    folder, _ = exported.folder(images=images)
    layout = plan(exported.store, exported.dataset, TableOptions(images=images))
    for s in (folder_source(folder), dataset_source(exported.store, exported.dataset, layout)):
        found = list(s.decode(FRONT, 1, 32, 32))
        assert [e for e, _ in found] == [1] * 31 + [2] * 32
        assert psnr(found[3][1], picture(3, 1)) > 25 and psnr(found[31 + 3][1], picture(3, 2)) > 25


def test_a_cache_file_that_is_not_whole_is_made_anew(tmp_path):
    camera = Camera([3, 2])
    want = FrameCache(tmp_path).pictures(camera.source, "c", (4, 6)).copy()
    (path,) = tmp_path.glob("*.rgb")
    path.write_bytes(path.read_bytes()[:-1])
    assert np.array_equal(FrameCache(tmp_path).pictures(camera.source, "c", (4, 6)), want)
    (state,) = tmp_path.glob("*.json")
    for text in ("", "{}", json.dumps({"done": "x"})):
        state.write_text(text)
        assert np.array_equal(FrameCache(tmp_path).pictures(camera.source, "c", (4, 6)), want)


@pytest.mark.parametrize(
    "drawn, line", [([2, 2], "c has not one picture per row around episode 1"), ([3, 1], "c has 4 pictures for 5 rows")]
)
def test_a_camera_with_too_few_pictures_is_refused(tmp_path, drawn, line):
    camera = Camera(drawn)
    short = Source("cam", 10.0, np.array([3, 2]), {}, {"c": (4, 6)}, camera.decode, lambda c: "x")
    with pytest.raises(Damaged, match=line):
        FrameCache(tmp_path).pictures(short, "c", (4, 6))


def test_batches_that_are_kept_are_not_written_over(tmp_path):
    """Large arrays are filled again, but never one that somebody still refers to, even by a view."""
    camera = Camera([40, 40])
    loader = Loader([camera.source], {"c": (0,)}, batch=8, cache=tmp_path, sizes={"c": (256, 256)}, seed=4)
    kept, places = [], []
    for b in loader.epoch():
        kept.append((b["c"][:, 0, 0, 0, 0], b["index"].copy()))
        places.append(b["c"].ctypes.data)
    for view, index in kept:
        assert view.tolist() == [i % 40 + 10 * (i // 40) for i in index.tolist()]
    del kept, view, b
    places = [b["c"].__array_interface__["data"][0] for b in loader.epoch()]
    assert len(set(places)) <= 3


# ---- refusals


@pytest.mark.parametrize(
    "make, line",
    [
        (lambda: Loader([], {"x": (0,)}), "loader: nothing to load"),
        (lambda: Loader([source([5])], {}), "loader: nothing to load"),
        (lambda: Loader([source([5])], {"y": (0,)}), "s: no key named 'y'; allowed: .*flag, x"),
        (lambda: Loader([source([5])], {"x": ()}), "x: no offset; allowed: steps"),
        (lambda: Loader([source([5])], {"x": (float("nan"),)}), "x: an offset that is not finite"),
        (lambda: Loader([source([5])], {"x": (0,)}, batch=0), "batch 0"),
        (lambda: Loader([source([5])], {"x": (0,)}, rank=2, world=2), "rank 2 of 2"),
        (lambda: Loader([source([5]), source([5], width=4, name="t")], {"x": (0,)}), r"x is float32 \(4,\) in t"),
        (lambda: Loader([Camera([3]).source], {"c": (0,)}), "cameras need a folder for decoded pictures"),
    ],
    ids=lambda x: "" if callable(x) else x[:20],
)  # fmt: skip
def test_wishes_that_cannot_be_met(make, line):
    with pytest.raises(InputError, match=line):
        make()


def test_columns_that_a_folder_lacks(exported):
    with pytest.raises(Missing, match="no column named 'observation.velocity'"):
        folder_source(exported.folder()[0], keys=["observation.velocity"])
    assert list(folder_source(exported.folder()[0], keys=["action"]).columns) == ["action"]
