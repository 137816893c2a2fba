"""Export: a dataset as a LeRobotDataset folder, v3.0 or v2.1, that anybody's LeRobot loads.

In: a dataset version, a layout. Out: a folder that appears whole or not at all, and never over another one. v3.0 holds
one row group per episode, exact statistics over all rows, videos at exactly i/fps, and in ``meta/episodes`` what we
know beyond LeRobot: outcome, group, verdict, origin, robot, log. ``meta/flyball.json`` says how the folder was made and
the digest of each file, so that ``verify`` can prove it against the episodes. The format's facts were read from lerobot
0.4.4 (``lerobot/datasets``, Apache-2.0); lerobot itself is not needed.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, NotPossible
from flyball.base.durable import sync_folder
from flyball.base.store import Store, locked
from flyball.episodes.codec import labels_json
from flyball.episodes.dataset import Dataset, Judgement
from flyball.episodes.datasets.layout import Feature, Layout
from flyball.episodes.datasets.statistics import ColumnFile, PictureStats, Stats, column_stats
from flyball.episodes.datasets.stored import open_episode, pictures
from flyball.episodes.datasets.table import Resampling, Sampler, Table
from flyball.episodes.datasets.video import VideoFile, encoded, packets
from flyball.episodes.episode import Episode
from flyball.episodes.frames import encode_frames

VERSIONS = ("v3.0", "v2.1")
MANIFEST = "meta/flyball.json"
FILES_PER_CHUNK = 1000
DATA_MB, VIDEO_MB = 100, 200
VIDEO_S = 1000
"""Longest mp4 [s]: readers find frames by float32 seconds to within 1e-4 s, which float32 holds up to 1024 s."""
DEFAULTS = {"timestamp": "float32", "frame_index": "int64", "episode_index": "int64", "index": "int64"}
DEFAULTS |= {"task_index": "int64"}
TEXT: tuple[str, ...] = (
    "episode_digest", "outcome", "group", "verdict", "origin", "robot", "task_name", "log_digest", "release", "scene",
    "labels", "checks",
)  # fmt: skip
"""Columns of text that we add to an episode's row; ``seed`` and ``start_ns`` are integers."""

DATA_V3 = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_V3 = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_V3 = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
DATA_V2 = "data/chunk-{episode_chunk:03d}/episode_{episode_index:06d}.parquet"
VIDEO_V2 = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
      folder: where.
      version: of the format.
      fps: rows per second.
      episodes, frames: how many.
      features: key -> what resampling did to it.
      left_out: (signal or camera, why).
      notes: what else the user should know.
      manifest: content of ``meta/flyball.json``.
    """

    folder: Path
    version: str
    fps: int
    episodes: int
    frames: int
    features: Mapping[str, Resampling]
    left_out: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    manifest: bytes = field(repr=False, default=b"")


def export(
    store: Store,
    dataset: Dataset,
    layout: Layout,
    folder: Path,
    *,
    version: str = "v3.0",
    progress: Callable[[int, int], None] | None = None,
) -> ExportReport:
    """Write a dataset as a LeRobotDataset.

    Args:
      store: where the episodes are.
      dataset: what to write; with splits, episodes go in the order of the splits.
      layout: see ``plan``.
      folder: the folder to make; must not exist.
      version: ``v3.0`` or ``v2.1``.
      progress: called with (episodes done, episodes in all).

    Raises:
      InputError: the folder exists or cannot be made, an unknown version, an episode that the layout does not fit.
      Damaged: an episode or a picture that is not sound.
      NotPossible: a library is missing, or the disk is full.
    """
    if version not in VERSIONS:
        raise InputError(f"unknown version {version!r}", where="--format", allowed=", ".join(VERSIONS))
    folder = folder.absolute()
    if folder.exists() or folder.is_symlink():
        raise _exists(folder)
    if not folder.parent.is_dir():
        raise InputError("no such folder", where=str(folder.parent), run_next=f"mkdir -p {folder.parent}")
    part = folder.parent / f".{folder.name}.part"
    try:
        with locked(folder.parent / f".{folder.name}.lock"):
            shutil.rmtree(part, ignore_errors=True)  # left by a process that was killed
            part.mkdir()
            try:
                writer = (_WriterV3 if version == "v3.0" else _WriterV2)(store, dataset, layout, part)
                report = writer.write(folder, progress)
                _sync(part)
                if folder.exists():
                    raise _exists(folder)
                os.rename(part, folder)
                sync_folder(folder.parent)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as err:
        raise NotPossible(f"cannot be written ({err.strerror or err})", where=str(folder)) from err
    return report


def _exists(folder: Path) -> InputError:
    return InputError("exists; nothing is ever overwritten", where=str(folder), run_next="another folder")


def order_of(dataset: Dataset) -> tuple[list[str], dict[str, str]]:
    """(episodes in the order of the splits, split -> "from:to")."""
    if not dataset.splits:
        return list(dataset.episodes), {"train": f"0:{len(dataset.episodes)}"}
    order: list[str] = []
    ranges = {}
    for name, members in dataset.splits.items():
        ranges[name] = f"{len(order)}:{len(order) + len(members)}"
        order += members
    return order, ranges


def arrow() -> tuple[Any, Any]:
    """pyarrow and pyarrow.parquet.

    Raises:
      NotPossible: not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as err:
        raise NotPossible("datasets need the Python package 'pyarrow'", run_next="pip install 'flyball[logs]'") from err
    return pa, pq


class _Writer:
    """What both versions share: the rows, the statistics, the account of what was done."""

    version = ""

    def __init__(self, store: Store, dataset: Dataset, layout: Layout, root: Path) -> None:
        self.store, self.dataset, self.layout, self.root = store, dataset, layout, root
        self.pa, self.pq = arrow()
        self.order, self.splits = order_of(dataset)
        self.sampler = Sampler(layout)
        self.tasks: dict[str, int] = {}
        self.frames = 0
        self.notes: list[str] = []
        self.picture_stats = {f.key: PictureStats() for f in layout.cameras}
        (root / "meta").mkdir()
        (root / "columns.tmp").mkdir()
        numbers = {f.key: (f.dtype, f.shape) for f in layout.features if f.kind == "numbers"}
        numbers |= {key: (dtype, (1,)) for key, dtype in DEFAULTS.items()}
        self.columns = {
            key: ColumnFile(root / "columns.tmp" / str(i), dtype, shape)
            for i, (key, (dtype, shape)) in enumerate(numbers.items())
        }
        self.schema = self._schema()

    def write(self, target: Path, progress: Callable[[int, int], None] | None) -> ExportReport:
        """Write everything below ``root``."""
        lengths = []
        judged = dict(zip(self.dataset.episodes, self.dataset.judged, strict=True)) if self.dataset.judged else {}
        robot_type = ""
        for i, digest in enumerate(self.order):
            judgement = judged.get(digest, Judgement())
            episode = open_episode(self.store, digest, judgement if judged else None)
            table = self.sampler.table(episode, where=f"episode {digest[:12]}")
            robot_type = episode.embodiment
            self._episode(i, digest, episode, judgement, table)
            self.frames += table.length
            lengths.append(table.length)
            if progress is not None:
                progress(i + 1, len(self.order))
        self._finish()
        stats = {key: column.stats() for key, column in self.columns.items()}
        stats |= {key: s.stats() for key, s in self.picture_stats.items()}
        shutil.rmtree(self.root / "columns.tmp")
        self._stats(stats)
        _write_json(self.root / "meta/info.json", self._info(robot_type))
        manifest = self._manifest(lengths)
        self._tell(stats, lengths)
        return ExportReport(
            target,
            self.version,
            self.layout.fps,
            len(self.order),
            self.frames,
            self.sampler.done,
            self.layout.left_out,
            tuple(self.notes),
            manifest,
        )

    # ---- rows

    def _columns(self, i: int, episode: Episode, table: Table) -> dict[str, NDArray[Any]]:
        """All columns of an episode that are numbers, in order."""
        n, fps = table.length, self.layout.fps
        task = self.tasks.setdefault(episode.instruction or episode.task, len(self.tasks))
        frame = np.arange(n, dtype=np.int64)
        return {
            **table.columns,
            "timestamp": (frame / fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(n, i, np.int64),
            "index": frame + self.frames,
            "task_index": np.full(n, task, np.int64),
        }

    def _schema(self) -> Any:
        pa = self.pa
        fields = []
        for f in self.layout.features:
            if f.kind == "image":
                fields.append(pa.field(f.key, pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
            elif f.kind == "numbers":
                kind = pa.from_numpy_dtype(np.dtype(f.dtype))
                if len(f.shape) == 1 and f.shape != (1,):
                    kind = pa.list_(kind, f.shape[0])
                elif len(f.shape) > 1:
                    for _ in f.shape:
                        kind = pa.list_(kind)
                fields.append(pa.field(f.key, kind))
        fields += [pa.field(k, pa.from_numpy_dtype(np.dtype(d))) for k, d in DEFAULTS.items()]
        # LeRobot before 0.4 knows a picture by what the ``datasets`` library notes here.
        known = {f.key: _hub_type(f) for f in self.layout.features if f.kind != "video"}
        known |= {k: {"dtype": d, "_type": "Value"} for k, d in DEFAULTS.items()}
        return pa.schema(fields, {"huggingface": json.dumps({"info": {"features": known}})})

    def _arrow(self, columns: Mapping[str, NDArray[Any]], images: Mapping[str, list[bytes]]) -> Any:
        """The rows of an episode as an arrow table."""
        pa = self.pa
        arrays = []
        for f in self.schema:
            if f.name in images:
                made = [{"bytes": b, "path": f"frame-{k:06d}.png"} for k, b in enumerate(images[f.name])]
                arrays.append(pa.array(made, f.type))
                continue
            column = np.ascontiguousarray(columns[f.name])
            array = pa.array(column.reshape(-1))
            if pa.types.is_fixed_size_list(f.type):
                array = pa.FixedSizeListArray.from_arrays(array, column.shape[1])
            elif column.ndim > 2:
                for k in range(column.ndim - 1, 0, -1):
                    count = int(np.prod(column.shape[:k]))
                    offsets = pa.array(np.arange(count + 1, dtype=np.int32) * column.shape[k])
                    array = pa.ListArray.from_arrays(offsets, array)
            arrays.append(array)
        return pa.table(arrays, schema=self.schema)

    def _seen(self, f: Feature, episode: Episode, table: Table, seen: PictureStats) -> Iterator[NDArray[np.uint8]]:
        """The pictures of an episode, counted as they pass."""
        frames = episode.frames[f.signals[0].name]
        for picture in pictures(self.store, frames, table.pictures[f.key]):
            if picture.shape != f.shape:
                raise InputError(
                    f"a picture of {picture.shape[1]} x {picture.shape[0]}",
                    where=f"camera {frames.name}",
                    allowed=f"{f.shape[1]} x {f.shape[0]}, as in the first episode",
                    run_next=f"--without {frames.name}",
                )
            seen.add(picture)
            yield picture

    def _pictures(
        self, episode: Episode, table: Table, video: Callable[[Feature, Iterator[tuple[bytes, bool]]], None]
    ) -> tuple[dict[str, list[bytes]], dict[str, Stats]]:
        """Encode an episode's pictures: images come back, packets of videos go to ``video``."""
        images: dict[str, list[bytes]] = {}
        stats: dict[str, Stats] = {}
        options = self.layout.options
        for f in self.layout.cameras:
            seen = PictureStats()
            passing = self._seen(f, episode, table, seen)
            if f.kind == "image":
                images[f.key] = [data for data, _ in encode_frames(passing, "png")]
            else:
                frames = episode.frames[f.signals[0].name]
                own = packets(frames, self.store.path(frames.blob), table.pictures[f.key], options.codec)
                if own is None:
                    video(f, encoded(passing, options.codec, self.layout.fps, options.crf))
                else:
                    for _ in passing:  # they are in the right form already; only to be counted
                        pass
                    video(f, own)
            self.picture_stats[f.key].merge(seen)
            stats[f.key] = seen.stats()
        return images, stats

    def _facts(self, digest: str, episode: Episode, judgement: Judgement, begin_ns: int) -> dict[str, Any]:
        """What we know of an episode beyond LeRobot."""
        e = episode
        text = (
            digest, e.outcome, e.group, judgement.verdict, e.origin, e.robot, e.task, e.log_digest, e.release, e.scene,
            labels_json(e), json.dumps(dict(judgement.checks), sort_keys=True),
        )  # fmt: skip
        return {**dict(zip(TEXT, text, strict=True)), "seed": int(episode.seed), "start_ns": int(begin_ns)}

    # ---- what the versions do differently

    def _episode(self, i: int, digest: str, episode: Episode, judgement: Judgement, table: Table) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _stats(self, stats: dict[str, Stats]) -> None:
        raise NotImplementedError

    # ---- documents

    def _info(self, robot_type: str) -> dict[str, Any]:
        features: dict[str, Any] = {}
        for f in self.layout.features:
            if f.kind == "numbers":
                features[f.key] = {"dtype": f.dtype, "shape": list(f.shape), "names": list(f.names) or None}
                continue
            features[f.key] = {"dtype": f.kind, "shape": list(f.shape), "names": ["height", "width", "channels"]}
            if f.kind == "video":
                features[f.key]["info"] = {
                    "video.height": f.shape[0],
                    "video.width": f.shape[1],
                    "video.codec": self.layout.options.codec,
                    "video.pix_fmt": "yuv420p",
                    "video.is_depth_map": False,
                    "video.fps": self.layout.fps,
                    "video.channels": 3,
                    "has_audio": False,
                }
        features |= {key: {"dtype": dtype, "shape": [1], "names": None} for key, dtype in DEFAULTS.items()}
        return {
            "codebase_version": self.version,
            "robot_type": robot_type or None,
            "total_episodes": len(self.order),
            "total_frames": self.frames,
            "total_tasks": len(self.tasks),
            "chunks_size": FILES_PER_CHUNK,
            "fps": self.layout.fps,
            "splits": self.splits,
            **self._paths(any(f.kind == "video" for f in self.layout.features)),
            "features": features,
        }

    def _paths(self, videos: bool) -> dict[str, Any]:
        raise NotImplementedError

    def _manifest(self, lengths: list[int]) -> bytes:
        files = sorted(p for p in self.root.rglob("*") if p.is_file())
        document = {
            "format": 1,
            "lerobot": self.version,
            "dataset": self.dataset.digest,
            "options": asdict(self.layout.options) | {"fps": self.layout.fps},
            "features": {f.key: [s.to_json() for s in f.signals] for f in self.layout.features},
            "resampling": {key: asdict(r) for key, r in self.sampler.done.items()},
            "left_out": [list(x) for x in self.layout.left_out],
            "episodes": [{"digest": d, "length": n} for d, n in zip(self.order, lengths, strict=True)],
            "files": {str(p.relative_to(self.root)): _digest(p) for p in files},
        }
        blob = json.dumps(document, indent=1, sort_keys=True).encode()
        (self.root / MANIFEST).write_bytes(blob)
        return blob

    def _tell(self, stats: Mapping[str, Stats], lengths: list[int]) -> None:
        for f in self.layout.features:
            if f.kind != "numbers":
                continue
            constant = [
                i
                for i, (a, b) in enumerate(zip(*(np.ravel(stats[f.key][k]) for k in ("min", "max")), strict=True))
                if a == b
            ]
            if constant and f.required:
                self.notes.append(f"{f.key}: elements {constant} never change; do not divide by their deviation")
            if self.sampler.done[f.key].not_finite:
                self.notes.append(f"{f.key}: {self.sampler.done[f.key].not_finite} values are not finite")
            if any(s.dtype == "float64" for s in f.signals) and f.dtype == "float32":
                self.notes.append(f"{f.key}: float64 is stored as float32")
        longest = max(lengths) / self.layout.fps
        if longest > VIDEO_S and any(f.kind == "video" for f in self.layout.features):
            self.notes.append(f"an episode lasts {longest:.0f} s: some readers lose single frames beyond {VIDEO_S} s")


class _WriterV3(_Writer):
    """Many episodes to a file."""

    version = "v3.0"

    def __init__(self, store: Store, dataset: Dataset, layout: Layout, root: Path) -> None:
        super().__init__(store, dataset, layout, root)
        self.data: Any = None
        self.data_file = -1
        self.data_path = root
        self.videos: dict[str, tuple[int, VideoFile]] = {}
        self.rows: list[dict[str, Any]] = []
        self.meta: Any = None

    def _episode(self, i: int, digest: str, episode: Episode, judgement: Judgement, table: Table) -> None:
        where: dict[str, Any] = {}

        def video(f: Feature, packets: Iterator[tuple[bytes, bool]]) -> None:
            number, file = self._video(f, table.length)
            begin = file.count
            for data, key in packets:
                file.add(data, key)
            where[f"videos/{f.key}/chunk_index"], where[f"videos/{f.key}/file_index"] = divmod(number, FILES_PER_CHUNK)
            where[f"videos/{f.key}/from_timestamp"] = begin / self.layout.fps
            where[f"videos/{f.key}/to_timestamp"] = file.count / self.layout.fps

        columns = self._columns(i, episode, table)
        images, stats = self._pictures(episode, table, video)
        if self.data is None or self.data_path.stat().st_size >= DATA_MB << 20:
            self._next_data_file()
        self.data.write_table(self._arrow(columns, images), row_group_size=table.length)
        for key, column in columns.items():
            column = column.reshape(table.length, *self.columns[key].shape)
            self.columns[key].add(column)
            stats[key] = column_stats(column)
        chunk, file_index = divmod(self.data_file, FILES_PER_CHUNK)
        self.rows.append(
            {
                "episode_index": i,
                "tasks": [episode.instruction or episode.task],
                "length": table.length,
                "data/chunk_index": chunk,
                "data/file_index": file_index,
                "dataset_from_index": self.frames,
                "dataset_to_index": self.frames + table.length,
                **where,
                "meta/episodes/chunk_index": 0,
                "meta/episodes/file_index": 0,
                **self._facts(digest, episode, judgement, table.begin_ns),
                **{f"stats/{key}/{name}": value for key, s in stats.items() for name, value in s.items()},
            }
        )
        if len(self.rows) >= 500:
            self._flush()

    def _next_data_file(self) -> None:
        if self.data is not None:
            self.data.close()
        self.data_file += 1
        chunk, file_index = divmod(self.data_file, FILES_PER_CHUNK)
        self.data_path = self.root / DATA_V3.format(chunk_index=chunk, file_index=file_index)
        self.data_path.parent.mkdir(parents=True, exist_ok=True)
        self.data = self.pq.ParquetWriter(self.data_path, self.schema, compression="snappy", write_page_checksum=True)

    def _video(self, f: Feature, length: int) -> tuple[int, VideoFile]:
        """The mp4 that takes the next ``length`` pictures of a camera."""
        number, file = self.videos.get(f.key, (-1, None))
        if file is not None:
            full = file.size >= VIDEO_MB << 20 or (file.count + length) / self.layout.fps > VIDEO_S
            if not full:
                return number, file
            file.close()
        chunk, file_index = divmod(number + 1, FILES_PER_CHUNK)
        path = self.root / VIDEO_V3.format(video_key=f.key, chunk_index=chunk, file_index=file_index)
        file = VideoFile(path, self.layout.options.codec, self.layout.fps, f.shape[0], f.shape[1])
        self.videos[f.key] = (number + 1, file)
        return self.videos[f.key]

    def _flush(self) -> None:
        table = self.pa.Table.from_pylist(self.rows, schema=None if self.meta is None else self.meta.schema)
        if self.meta is None:
            path = self.root / EPISODES_V3.format(chunk_index=0, file_index=0)
            path.parent.mkdir(parents=True)
            self.meta = self.pq.ParquetWriter(path, table.schema, compression="snappy", write_page_checksum=True)
        self.meta.write_table(table)
        self.rows = []

    def _finish(self) -> None:
        if self.rows:
            self._flush()
        self.data.close()
        self.meta.close()
        for _, file in self.videos.values():
            file.close()
        pa = self.pa
        # LeRobot looks tasks up by a pandas index; this is how pandas finds one in a file.
        index = "__index_level_0__"
        described = {"field_name": index, "metadata": None, "name": None, "numpy_type": "object"}
        columns = [{**described, "pandas_type": "unicode"}]
        columns.insert(
            0,
            {
                "field_name": "task_index",
                "metadata": None,
                "name": "task_index",
                "numpy_type": "int64",
                "pandas_type": "int64",
            },
        )
        names = [{**described, "field_name": None, "metadata": {"encoding": "UTF-8"}, "pandas_type": "unicode"}]
        facts = {"index_columns": [index], "column_indexes": names, "columns": columns}
        facts |= {"creator": {"library": "pyarrow", "version": pa.__version__}, "pandas_version": "2.0.0"}
        table = pa.table(
            {"task_index": pa.array(self.tasks.values(), pa.int64()), index: pa.array(self.tasks, pa.string())}
        )
        table = table.replace_schema_metadata({"pandas": json.dumps(facts)})
        self.pq.write_table(table, self.root / "meta/tasks.parquet")

    def _stats(self, stats: dict[str, Stats]) -> None:
        _write_json(self.root / "meta/stats.json", stats)

    def _paths(self, videos: bool) -> dict[str, Any]:
        sizes = {"data_files_size_in_mb": DATA_MB, "video_files_size_in_mb": VIDEO_MB}
        return {**sizes, "data_path": DATA_V3, "video_path": VIDEO_V3 if videos else None}


class _WriterV2(_Writer):
    """One file per episode."""

    version = "v2.1"

    def _episode(self, i: int, digest: str, episode: Episode, judgement: Judgement, table: Table) -> None:
        def path(template: str, key: str = "") -> Path:
            text = template.format(episode_chunk=i // FILES_PER_CHUNK, episode_index=i, video_key=key)
            (self.root / text).parent.mkdir(parents=True, exist_ok=True)
            return self.root / text

        def video(f: Feature, packets: Iterator[tuple[bytes, bool]]) -> None:
            codec, fps = self.layout.options.codec, self.layout.fps
            with VideoFile(path(VIDEO_V2, f.key), codec, fps, f.shape[0], f.shape[1]) as file:
                for data, key in packets:
                    file.add(data, key)

        columns = self._columns(i, episode, table)
        images, stats = self._pictures(episode, table, video)
        kept = {"compression": "snappy", "write_page_checksum": True}
        self.pq.write_table(self._arrow(columns, images), path(DATA_V2), row_group_size=table.length, **kept)
        for key, column in columns.items():
            column = column.reshape(table.length, *self.columns[key].shape)
            self.columns[key].add(column)
            stats[key] = column_stats(column)
        task = episode.instruction or episode.task
        facts = self._facts(digest, episode, judgement, table.begin_ns)
        self._line("episodes", {"episode_index": i, "tasks": [task], "length": table.length, **facts})
        self._line("episodes_stats", {"episode_index": i, "stats": stats})

    def _finish(self) -> None:
        for task, number in self.tasks.items():
            self._line("tasks", {"task_index": number, "task": task})

    def _stats(self, stats: dict[str, Stats]) -> None:
        """v2.1 keeps statistics per episode; readers of v2.0 look here."""
        _write_json(self.root / "meta/stats.json", stats)

    def _line(self, name: str, row: Mapping[str, Any]) -> None:
        with open(self.root / f"meta/{name}.jsonl", "a", encoding="utf-8") as f:
            f.write(json.dumps(row, ensure_ascii=False) + "\n")

    def _paths(self, videos: bool) -> dict[str, Any]:
        count = len(self.order) * sum(f.kind == "video" for f in self.layout.features)
        totals = {"total_videos": count, "total_chunks": -(-len(self.order) // FILES_PER_CHUNK)}
        return {**totals, "data_path": DATA_V2, "video_path": VIDEO_V2 if videos else None}


def _hub_type(f: Feature) -> dict[str, Any]:
    """A column in the words of the ``datasets`` library."""
    if f.kind == "image":
        return {"_type": "Image"}
    if f.shape == (1,):
        return {"dtype": f.dtype, "_type": "Value"}
    if len(f.shape) == 1:
        return {"feature": {"dtype": f.dtype, "_type": "Value"}, "length": f.shape[0], "_type": "Sequence"}
    return {"shape": list(f.shape), "dtype": f.dtype, "_type": f"Array{len(f.shape)}D"}


def _write_json(path: Path, document: Any) -> None:
    path.write_text(json.dumps(document, indent=4, ensure_ascii=False), encoding="utf-8")


def _digest(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _sync(root: Path) -> None:
    """Make everything below a folder durable."""
    for folder, _, names in os.walk(root, topdown=False):
        for name in names:
            with open(Path(folder) / name, "rb") as f:
                os.fsync(f.fileno())
        sync_folder(Path(folder))
