"""Exports, byte by byte where LeRobot cares: schema, row groups, documents, exact statistics, exact times of pictures.

What lerobot 0.4.4 itself makes of such folders is checked by ``benchmarks/lerobot_oracle.py``.
"""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flyball.base import Damaged, InputError
from flyball.episodes import Dataset
from flyball.episodes.datasets import lerobot
from flyball.episodes.datasets.layout import TableOptions, plan
from flyball.episodes.datasets.lerobot import export
from flyball.episodes.datasets.stored import open_episode
from flyball.episodes.datasets.table import Sampler
from flyball.episodes.datasets.testing import START_NS, picture, planted_episode, planted_frames

CAMERAS = ("observation.images.front", "observation.images.wrist")
LENGTHS = [30, 31, 32]


def tables(exported, folder_options):
    """What the episodes give, computed apart from the export."""
    layout = plan(exported.store, exported.dataset, TableOptions(**folder_options))
    sampler = Sampler(layout)
    return [sampler.table(open_episode(exported.store, d), where=d) for d in exported.dataset.episodes]


def test_info(exported):
    folder, report = exported.folder()
    info = json.loads((folder / "meta/info.json").read_text())
    features = info.pop("features")
    assert info == {
        "codebase_version": "v3.0",
        "robot_type": "two-joints",
        "total_episodes": 3,
        "total_frames": sum(LENGTHS),
        "total_tasks": 2,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": 20,
        "splits": {"train": "0:3"},
        "data_path": "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet",
        "video_path": "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4",
    }
    assert features["observation.state"] == {
        "dtype": "float32",
        "shape": [3],
        "names": ["gripper.force", "joint.position.0", "joint.position.1"],
    }
    assert features["observation.tactile.grid"] == {"dtype": "int32", "shape": [2, 3], "names": None}
    assert features[CAMERAS[0]]["dtype"] == "video" and features[CAMERAS[0]]["shape"] == [32, 32, 3]
    assert features[CAMERAS[0]]["info"]["video.fps"] == 20 and features[CAMERAS[0]]["info"]["video.codec"] == "h264"
    assert features["timestamp"] == {"dtype": "float32", "shape": [1], "names": None}
    assert list(features)[-5:] == ["timestamp", "frame_index", "episode_index", "index", "task_index"]
    assert (report.episodes, report.frames, report.fps) == (3, sum(LENGTHS), 20)


def test_rows(exported):
    folder, _ = exported.folder()
    (path,) = (folder / "data").glob("*/*.parquet")
    file = pq.ParquetFile(path)
    assert [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)] == LENGTHS
    types = {f.name: f.type for f in file.schema_arrow}
    assert types["observation.state"] == pa.list_(pa.float32(), 3)
    assert types["observation.tactile.grid"] == pa.list_(pa.list_(pa.int32()))
    assert types["observation.gripper.closed"] == pa.bool_()
    assert types["timestamp"] == pa.float32() and types["index"] == pa.int64()
    assert not set(CAMERAS) & set(types)
    hub = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert hub["observation.tactile.grid"] == {"shape": [2, 3], "dtype": "int32", "_type": "Array2D"}
    assert hub["action"] == {"feature": {"dtype": "float32", "_type": "Value"}, "length": 2, "_type": "Sequence"}
    assert set(hub) == set(types)
    rows = file.read().to_pydict()
    made = tables(exported, {})
    for key in ("observation.state", "action", "observation.tactile.grid"):
        assert np.array_equal(
            np.array(rows[key], made[0].columns[key].dtype), np.concatenate([t.columns[key] for t in made])
        )
    assert rows["index"] == list(range(sum(LENGTHS)))
    assert rows["episode_index"] == [0] * 30 + [1] * 31 + [2] * 32
    assert rows["frame_index"] == [*range(30), *range(31), *range(32)]
    assert rows["task_index"] == [0] * 30 + [1] * 31 + [0] * 32
    assert rows["timestamp"] == [float(np.float32(i / 20)) for n in LENGTHS for i in range(n)]


def test_episodes_and_tasks(exported):
    folder, _ = exported.folder()
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    first = {k: v for k, v in rows[1].items() if not k.startswith("stats/")}
    episode = exported.dataset.episodes[1]
    at = {f"videos/{c}/{k}": v for c in CAMERAS for k, v in (("chunk_index", 0), ("file_index", 0))}
    at |= {f"videos/{c}/{k}": v for c in CAMERAS for k, v in (("from_timestamp", 1.5), ("to_timestamp", 61 / 20))}
    assert first == at | {
        "episode_index": 1,
        "tasks": ["wave"],
        "length": 31,
        "data/chunk_index": 0,
        "data/file_index": 0,
        "dataset_from_index": 30,
        "dataset_to_index": 61,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
        "episode_digest": episode,
        "outcome": "success",
        "group": "",
        "verdict": "",
        "checks": "{}",
        "origin": "fleet",
        "robot": "r1",
        "task_name": "wave-v1",
        "log_digest": "",
        "release": "",
        "scene": "",
        "labels": '{"kp": 1.5}',
        "seed": 1,
        "start_ns": START_NS,
    }
    made = tables(exported, {})[1].columns["action"].astype(float)
    assert rows[1]["stats/action/q10"] == np.quantile(made, 0.1, axis=0).tolist()
    assert np.shape(rows[1][f"stats/{CAMERAS[0]}/mean"]) == (3, 1, 1)
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1], "__index_level_0__": ["pick the box", "wave"]}
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["__index_level_0__"]


def test_statistics_are_exact_over_all_rows(exported):
    folder, _ = exported.folder(images="png")
    stats = json.loads((folder / "meta/stats.json").read_text())
    made = tables(exported, {"images": "png"})
    for key in ("observation.state", "action"):
        x = np.concatenate([t.columns[key] for t in made]).astype(np.float64)
        for name, q in (("q01", 0.01), ("q50", 0.5), ("q99", 0.99)):
            assert stats[key][name] == np.quantile(x, q, axis=0).tolist()
        assert stats[key]["count"] == [len(x)] and np.allclose(stats[key]["std"], x.std(0), rtol=1e-12)
    assert set(stats) >= {"timestamp", "index", "task_index", *CAMERAS}
    rows = pq.read_table(next((folder / "data").glob("*/*.parquet"))).column(CAMERAS[0]).to_pylist()
    pixels = np.stack([decode_png(r["bytes"]) for r in rows]).reshape(-1, 3) / 255
    assert np.allclose(np.ravel(stats[CAMERAS[0]]["q10"]), np.quantile(pixels, 0.1, axis=0), atol=1e-12)
    assert np.allclose(np.ravel(stats[CAMERAS[0]]["mean"]), pixels.mean(0), rtol=1e-9)
    schema = pq.read_schema(next((folder / "data").glob("*/*.parquet")))
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"][CAMERAS[0]] == {"_type": "Image"}
    assert stats[CAMERAS[0]]["count"] == [sum(LENGTHS)] and np.shape(stats[CAMERAS[0]]["mean"]) == (3, 1, 1)


def decode_png(data):
    context = av.codec.CodecContext.create("png", "r")
    return [*context.decode(av.Packet(data)), *context.decode(None)][0].to_ndarray(format="rgb24")


@pytest.mark.parametrize("codec", ["h264", "av1"])
def test_pictures_are_at_exactly_i_over_fps(exported, codec):
    folder, _ = exported.folder(codec=codec)
    for k, camera in enumerate(CAMERAS):
        with av.open(str(folder / f"videos/{camera}/chunk-000/file-000.mp4")) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name.removeprefix("lib").replace("dav1d", "av1"), stream.average_rate) == (
                codec,
                20,
            )
            frames = list(container.decode(stream))
        assert [f.pts * f.time_base for f in frames] == [Fraction(i, 20) for i in range(sum(LENGTHS))]
        keys = [i for i, f in enumerate(frames) if f.key_frame]
        starts = np.cumsum([0, *LENGTHS[:-1]])
        assert set(starts) <= set(keys) and max(np.diff([*keys, len(frames)])) <= 2
        for seed, start in enumerate(starts):
            for i in (0, 1, 17, 29):
                got = frames[start + i].to_ndarray(format="rgb24").astype(float)
                assert psnr(got, picture(i, seed + k)) > 25 > psnr(got, picture(i + 1, seed + k))


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a.astype(float) - b) ** 2))


@pytest.mark.parametrize("fps, late", [(20, 0), (20, 2), (20, 1), (7, 0)])
def test_packets_that_are_right_already_are_not_encoded_again(catalogue, tmp_path, fps, late):
    """They pass as they are when they follow each other from a key picture on; else pictures are encoded anew."""
    e = planted_episode(catalogue.store, 0, n=20)
    frames = planted_frames(catalogue.store, "camera.a", 20, 20, 0, "h264", key_every=2)
    joint = e.signals["joint.position"]
    joint = replace(joint, t_ns=joint.t_ns[late:], values=joint.values[late:])
    e = replace(e, signals={**e.signals, "joint.position": joint}, frames={"camera.a": frames})
    d = Dataset((catalogue.add(e, producer="t").digest,))
    export(catalogue.store, d, plan(catalogue.store, d, TableOptions(fps=fps)), tmp_path / "out")
    blob = catalogue.store.path(frames.blob).read_bytes()
    path = next((tmp_path / "out").rglob("*.mp4"))
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        change = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        packets = b"".join(bytes(p) for packet in container.demux(stream) for p in change.filter(packet))
    assert (packets == blob[frames.start[late] :]) == (fps == 20 and late % 2 == 0)
    with av.open(str(path)) as container:
        got = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    assert len(got) == (20 - late if fps == 20 else 7)
    assert min(psnr(p, picture(late + i * 20 // fps, 0)) for i, p in enumerate(got)) > 25


def test_v21(exported):
    folder, report = exported.folder("v2.1")
    info = json.loads((folder / "meta/info.json").read_text())
    assert (info["codebase_version"], info["total_videos"], info["total_chunks"]) == ("v2.1", 6, 1)
    assert info["data_path"] == "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
    assert info["video_path"] == "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
    lines = {
        n: [json.loads(x) for x in (folder / f"meta/{n}.jsonl").read_text().splitlines()]
        for n in ("tasks", "episodes", "episodes_stats")
    }
    assert lines["tasks"] == [{"task_index": 0, "task": "pick the box"}, {"task_index": 1, "task": "wave"}]
    assert [(e["episode_index"], e["length"], e["tasks"]) for e in lines["episodes"]] == [
        (0, 30, ["pick the box"]), (1, 31, ["wave"]), (2, 32, ["pick the box"])
    ]  # fmt: skip
    assert lines["episodes"][0]["outcome"] == "success"
    assert lines["episodes_stats"][2]["stats"]["action"]["count"] == [32]
    made = tables(exported, {})
    for i, n in enumerate(LENGTHS):
        table = pq.read_table(folder / f"data/chunk-000/episode_{i:06d}.parquet")
        assert np.array_equal(np.array(table["action"].to_pylist(), np.float32), made[i].columns["action"])
        with av.open(str(folder / f"videos/chunk-000/{CAMERAS[1]}/episode_{i:06d}.mp4")) as container:
            assert [f.pts * f.time_base for f in container.decode(video=0)] == [Fraction(k, 20) for k in range(n)]
    assert report.version == "v2.1"


def test_splits_put_episodes_in_order(exported, tmp_path):
    a, b, c = exported.dataset.episodes
    d = replace(exported.dataset, splits={"train": (c, a), "test": (b,)})
    layout = plan(exported.store, d, TableOptions(images="none"))
    export(exported.store, d, layout, tmp_path / "out")
    assert json.loads((tmp_path / "out/meta/info.json").read_text())["splits"] == {"train": "0:2", "test": "2:3"}
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [r["episode_digest"] for r in rows] == [c, a, b]


def test_files_end_where_readers_need_them_to(exported, tmp_path, monkeypatch):
    monkeypatch.setattr(lerobot, "VIDEO_S", 3)
    monkeypatch.setattr(lerobot, "DATA_MB", 0)
    layout = plan(exported.store, exported.dataset, TableOptions())
    export(exported.store, exported.dataset, layout, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [r["data/file_index"] for r in rows] == [0, 1, 2]
    assert [r[f"videos/{CAMERAS[0]}/file_index"] for r in rows] == [0, 1, 2]
    assert [r[f"videos/{CAMERAS[0]}/from_timestamp"] for r in rows] == [0.0, 0.0, 0.0]
    assert len(list((tmp_path / "out/videos").rglob("*.mp4"))) == 6


def test_the_report_says_what_was_done(exported):
    _, report = exported.folder()
    assert report.features["observation.state"].skipped == 4 * sum(
        n - 1 for n in LENGTHS
    )  # the force, five times as fast
    assert report.features["action"].age_s == 0 and report.left_out == ()
    assert report.notes == ("observation.state: float64 is stored as float32",)


def test_constant_and_broken_values_are_told(catalogue, tmp_path):
    e = planted_episode(catalogue.store, 0)
    joint = e.signals["joint.position"]
    values = joint.values.copy()
    values[:, 1] = 2.5
    values[3, 0] = np.nan
    e = replace(e, signals={**e.signals, "joint.position": replace(joint, values=values)})
    d = Dataset((catalogue.add(e, producer="t").digest,))
    report = export(catalogue.store, d, plan(catalogue.store, d, TableOptions()), tmp_path / "out")
    text = "\n".join(report.notes)
    assert (
        "observation.state: elements [2] never change" in text and "observation.state: 1 values are not finite" in text
    )
    json.loads((tmp_path / "out/meta/stats.json").read_text(), parse_constant=lambda x: pytest.fail(f"{x} is not JSON"))


# ---- nothing half-done, nothing overwritten


def test_a_folder_that_exists_is_left_alone(exported, tmp_path):
    layout = plan(exported.store, exported.dataset, TableOptions(images="none"))
    (tmp_path / "out").mkdir()
    for kind in ("folder", "file", "link"):
        target = tmp_path / kind
        if kind == "folder":
            target.mkdir()
        elif kind == "file":
            target.write_text("mine")
        else:
            target.symlink_to(tmp_path / "nowhere")
        with pytest.raises(InputError, match="exists; nothing is ever overwritten; try: another folder") as caught:
            export(exported.store, exported.dataset, layout, target)
        assert caught.value.exit_code == 2
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(InputError, match="no such folder; try: mkdir"):
        export(exported.store, exported.dataset, layout, tmp_path / "not/there")
    with pytest.raises(InputError, match="unknown version 'v9'.*v3.0, v2.1"):
        export(exported.store, exported.dataset, layout, tmp_path / "x", version="v9")


def test_what_fails_in_the_middle_leaves_nothing_and_what_was_killed_is_cleared_away(exported, tmp_path, monkeypatch):
    layout = plan(exported.store, exported.dataset, TableOptions())
    calls = []

    def broken(*args, **kwargs):
        calls.append(1)
        if len(calls) > 1:
            raise Damaged("a picture", where="planted")
        return opened(*args, **kwargs)

    opened = lerobot.open_episode
    monkeypatch.setattr(lerobot, "open_episode", broken)
    with pytest.raises(Damaged, match="planted"):
        export(exported.store, exported.dataset, layout, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    (tmp_path / ".out.part").mkdir()
    (tmp_path / ".out.part/old").write_text("left by a killed process")
    export(exported.store, exported.dataset, layout, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and not list((tmp_path / "out").rglob("old"))


def test_an_episode_whose_bytes_changed_is_not_exported(catalogue, tmp_path, fill):
    (digest,) = fill(1)
    d = Dataset((digest,))
    layout = plan(catalogue.store, d, TableOptions())
    path = catalogue.store.path(digest)
    blob = bytearray(path.read_bytes())
    blob[-9] ^= 1
    path.write_bytes(blob)
    with pytest.raises(Damaged, match="do not match their digest"):
        export(catalogue.store, d, layout, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_pictures_of_two_sizes_are_refused(catalogue, tmp_path):
    digests = []
    for seed, size in ((0, 32), (1, 48)):
        e = planted_episode(catalogue.store, seed)
        frames = planted_frames(catalogue.store, "camera.a", 30, 20, 0, size=size)
        digests.append(catalogue.add(replace(e, frames={"camera.a": frames}), producer="t").digest)
    d = Dataset(tuple(digests))
    with pytest.raises(InputError, match="camera camera.a: a picture of 48 x 48; allowed: 32 x 32, as in the first"):
        export(catalogue.store, d, plan(catalogue.store, d, TableOptions()), tmp_path / "out")
    odd = planted_frames(catalogue.store, "camera.a", 30, 20, 0, size=31)
    d = Dataset(
        (catalogue.add(replace(planted_episode(catalogue.store, 3), frames={"camera.a": odd}), producer="t").digest,)
    )
    with pytest.raises(InputError, match="pictures of 31 x 31; allowed: even sizes; try: --images png"):
        plan(catalogue.store, d, TableOptions())
    export(catalogue.store, d, plan(catalogue.store, d, TableOptions(images="png")), tmp_path / "odd")


def test_features_without_time_in_common(catalogue, tmp_path):
    e = planted_episode(catalogue.store, 0)
    joint = e.signals["joint.position"]
    late = replace(joint, t_ns=joint.t_ns + 10**10)
    d = Dataset((catalogue.add(replace(e, signals={**e.signals, "joint.position": late}), producer="t").digest,))
    with pytest.raises(InputError, match=r"episode .*: its features share no time \(8.55\d s apart\)"):
        export(catalogue.store, d, plan(catalogue.store, d, TableOptions()), tmp_path / "out")
