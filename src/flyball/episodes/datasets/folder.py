"""A LeRobotDataset folder as it lies on disk, v2.0, v2.1 or v3.0.

In: a folder that somebody else may have made. Out: its features, episodes and rows in pieces, and its videos' packets.
Every number, name and path in it is taken for a claim: paths must stay inside the folder, shapes must fit the data, and
what does not hold is an error that names the file.
"""

from __future__ import annotations

import json
import math
import re
import string
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, Missing, NotPossible, Unsupported
from flyball.episodes.datasets.lerobot import MANIFEST, arrow

INFO = "meta/info.json"
ENCODINGS = {
    "h264": "h264",
    "hevc": "h265",
    "vp9": "vp9",
    "av1": "av1",
    "libdav1d": "av1",
    "mjpeg": "jpeg",
    "png": "png",
}
TOLERANCE_S = 1e-3
"""A picture or row that is this near to i/fps is at i/fps."""
_SCALING = "AREA"
_MAX_JSON = 256 << 20
_NUMBER = re.compile(r"bool|u?int(8|16|32|64)|float(16|32|64)")


@dataclass(frozen=True)
class Column:
    """A feature as the folder declares it.

    Attributes:
      dtype: numpy name, or ``video``, ``image``, ``string``.
      shape: of one row.
      names: of its elements, as far as they are a list of text.
    """

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Elements of one row."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Span:
    """Where an episode's pictures are: a file, and from when to when in it [s]."""

    path: Path
    begin_s: float = 0.0
    end_s: float = math.inf


@dataclass(frozen=True)
class Entry:
    """An episode of the folder.

    Attributes:
      index: its number.
      length: rows.
      tasks: what was asked for.
      videos: camera -> where its pictures are.
      extra: further columns of its row.
    """

    index: int
    length: int
    tasks: tuple[str, ...]
    videos: Mapping[str, Span] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


class LeRobotFolder:
    """Open a folder.

    Attributes:
      version: e.g. ``v3.0``.
      fps: rows per second.
      robot_type: "" when unknown.
      columns: key -> feature.
      tasks: number -> text.
      splits: name -> (first episode, last episode + 1).
      entries: episodes in order.
      manifest: content of ``meta/flyball.json``, {} when there is none.

    Raises:
      Missing: no LeRobotDataset here.
      Unsupported: of another version.
      Damaged: its documents contradict themselves or the format.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        info = self._json(INFO)
        where = str(self.path / INFO)
        with _shaped(where):
            self.version = str(info["codebase_version"])
            if not re.fullmatch(r"v(2\.[01]|3\.\d+)", self.version):
                raise Unsupported(f"LeRobotDataset {self.version[:20]}", where=where, allowed="v2.0, v2.1, v3.0")
            self.fps = float(info["fps"])
            if not 0 < self.fps <= 1e4:
                raise ValueError(f"fps {self.fps}")
            self.robot_type = str(info.get("robot_type") or "")
            self.columns = {str(k): _column(str(k), f) for k, f in info["features"].items()}
            self._data, self._video = str(info["data_path"]), info.get("video_path")
            self._chunk = int(info.get("chunks_size") or 1000)
            for key in ("episode_index", "frame_index", "timestamp"):
                if key not in self.columns:
                    raise ValueError(f"no feature {key!r}")
            self.splits: dict[str, tuple[int, int]] = {}
            for name, text in dict(info.get("splits") or {}).items():
                begin, colon, end = str(text).partition(":")
                if colon:
                    self.splits[str(name)] = (int(begin), int(end))
            if self._chunk < 1:
                raise ValueError(f"chunks_size {self._chunk}")
        manifest = self._json(MANIFEST) if (self.path / MANIFEST).is_file() else {}
        self.manifest: dict[str, Any] = manifest if isinstance(manifest, dict) else {}
        self.tasks: dict[int, str] = {}
        self.entries = list(self._entries_v2() if self.version < "v3" else self._entries_v3())

    @property
    def cameras(self) -> list[str]:
        """Keys of features that are pictures."""
        return [k for k, c in self.columns.items() if c.dtype in ("video", "image")]

    def files(self) -> list[Path]:
        """Every file that holds rows, in order of rows."""
        if self.version < "v3":
            return [self._data_v2(e.index) for e in self.entries]
        found = sorted((self.path / "data").glob("*/*.parquet"))
        if not found:
            raise Damaged("no data", where=str(self.path / "data"))
        return [self._inside(str(p.relative_to(self.path))) for p in found]

    def rows(self, keys: list[str] | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Rows in pieces, each of one episode.

        Args:
          keys: columns to read; None for all that the folder holds (videos are not in it).

        Yields:
          (episode, {key: (n, *shape), or a list of encoded pictures (None where there is none), or of text}).

        Raises:
          Damaged: a file that is not sound, or rows that do not fit their feature.
        """
        _, pq = arrow()
        wanted = [k for k, c in self.columns.items() if c.dtype != "video" and (keys is None or k in keys)]
        if "episode_index" not in wanted:
            wanted.append("episode_index")
        heavy = any(self.columns[k].dtype == "image" or self.columns[k].size > 4096 for k in wanted)
        for path in self.files():
            with _parquet(path), pq.ParquetFile(path, page_checksum_verification=True) as file:
                missing = [k for k in wanted if k not in file.schema_arrow.names]
                if missing:
                    raise Damaged(f"no column {missing[0]!r}", where=str(path))
                for batch in file.iter_batches(batch_size=64 if heavy else 16384, columns=wanted):
                    values = {k: _values(batch.column(k), self.columns[k], f"{path}: {k}") for k in wanted}
                    episodes = values["episode_index"].reshape(-1)
                    cuts = [0, *(np.flatnonzero(np.diff(episodes)) + 1).tolist(), len(episodes)]
                    for a, b in pairwise(cuts):
                        if b > a:
                            yield int(episodes[a]), {k: v[a:b] for k, v in values.items()}

    def packets(self, span: Span) -> Iterator[tuple[bytes, bool, float]]:
        """The packets of an episode's pictures, as ``Frames`` holds them.

        Yields:
          (packet, whether it can be decoded alone, seconds since the episode began); what comes before the episode,
          because its first picture cannot be decoded alone, has negative times.

        Raises:
          Damaged: not a video, or one whose pictures are stored out of order.
        """
        av = _av()
        with _video(av, span.path), av.open(str(span.path)) as container:
            stream = container.streams.video[0]
            base = float(stream.time_base)
            half = 0.5 / self.fps
            change = {"h264": "h264_mp4toannexb", "hevc": "hevc_mp4toannexb"}.get(stream.codec_context.name)
            filtered = av.bitstream.BitStreamFilterContext(change, stream) if change else None
            container.seek(max(0, int((span.begin_s - half) / base)), stream=stream, backward=True)
            held: list[tuple[bytes, bool, float]] = []
            begun = False
            for packet in container.demux(stream):
                for p in filtered.filter(packet) if filtered else ([packet] if packet.size else []):
                    if p.pts is None:
                        continue
                    t, key = p.pts * base - span.begin_s, bool(p.is_keyframe)
                    if t >= span.end_s - span.begin_s - half:
                        if key:
                            yield from held if not begun else ()
                            return
                        continue
                    if key and not begun:
                        held = []
                    if not begun and t < -half:
                        held.append((bytes(p), key, t))
                        continue
                    yield from held
                    held, begun = [], True
                    yield bytes(p), key, t

    def pictures(
        self, span: Span, *, height: int | None = None, width: int | None = None
    ) -> Iterator[NDArray[np.uint8]]:
        """The decoded pictures of an episode, in order of time, (height, width, 3).

        Raises:
          Damaged: not a sound video.
        """
        av = _av()
        with _video(av, span.path), av.open(str(span.path)) as container:
            stream = container.streams.video[0]
            base, half = float(stream.time_base), 0.5 / self.fps
            container.seek(max(0, int((span.begin_s - half) / base)), stream=stream, backward=True)
            for frame in container.decode(stream):
                t = frame.pts * base
                if t >= span.end_s - half:
                    break
                if t >= span.begin_s - half:
                    yield frame.to_ndarray(width=width, height=height, format="rgb24", interpolation=_SCALING)

    def images(
        self, encoded: list[bytes | None], *, height: int | None = None, width: int | None = None
    ) -> Iterator[NDArray[np.uint8]]:
        """The decoded pictures of rows that hold one each, (height, width, 3).

        Raises:
          Damaged: one is missing, or no sound PNG or JPEG.
        """
        av = _av()
        with _video(av, self.path):
            for data in encoded:
                if not data:
                    raise Damaged("a row without a picture", where=str(self.path))
                context = av.codec.CodecContext.create("mjpeg" if data[:2] == b"\xff\xd8" else "png", "r")
                frame = [*context.decode(av.Packet(data)), *context.decode(None)][0]
                yield frame.to_ndarray(width=width, height=height, format="rgb24", interpolation=_SCALING)

    def in_order(self, path: Path) -> bool:
        """Whether a video's pictures are stored in the order in which they are shown (no B-frames)."""
        av = _av()
        with _video(av, path), av.open(str(path)) as container:
            times = [p.pts for p in container.demux(container.streams.video[0]) if p.pts is not None]
            return times == sorted(times)

    def video_facts(self, path: Path) -> tuple[str, int, int]:
        """(encoding as in ``Frames``, height, width) of a video.

        Raises:
          Unsupported: an encoding that ``Frames`` has no name for.
        """
        av = _av()
        with _video(av, path), av.open(str(path)) as container:
            context = container.streams.video[0].codec_context
            if context.name not in ENCODINGS:
                raise Unsupported(f"video codec {context.name}", where=str(path), allowed=", ".join(ENCODINGS))
            return ENCODINGS[context.name], context.height, context.width

    # ---- documents

    def _entries_v3(self) -> Iterator[Entry]:
        _, pq = arrow()
        path = self._inside("meta/tasks.parquet")
        with _parquet(path), _shaped(str(path)):
            table = pq.read_table(path).to_pydict()
            names = next((v for k, v in table.items() if k in ("__index_level_0__", "task")), None)
            self.tasks = {int(i): str(t) for i, t in zip(table["task_index"], names or [], strict=True)}
        found = sorted((self.path / "meta/episodes").glob("*/*.parquet"))
        if not found:
            raise Damaged("no episodes", where=str(self.path / "meta/episodes"))
        videos = [k for k, c in self.columns.items() if c.dtype == "video"]
        for path in found:
            path = self._inside(str(path.relative_to(self.path)))
            with _parquet(path), _shaped(str(path)), pq.ParquetFile(path, page_checksum_verification=True) as file:
                wanted = [c for c in file.schema_arrow.names if not c.startswith("stats/")]
                for batch in file.iter_batches(batch_size=4096, columns=wanted):
                    for row in batch.to_pylist():
                        spans = {k: self._span(row, k) for k in videos}
                        extra = {k: v for k, v in row.items() if "/" not in k}
                        yield _entry(row, spans, extra)

    def _span(self, row: Mapping[str, Any], key: str) -> Span:
        at = f"videos/{key}/"
        path = self._fill(
            self._video, video_key=key, chunk_index=int(row[at + "chunk_index"]), file_index=int(row[at + "file_index"])
        )
        begin, end = float(row[at + "from_timestamp"]), float(row[at + "to_timestamp"])
        if not 0 <= begin <= end < math.inf:
            raise ValueError(f"{key} from {begin} s to {end} s")
        return Span(path, begin, end)

    def _entries_v2(self) -> Iterator[Entry]:
        self.tasks = {
            int(r["task_index"]): str(r["task"]) for r in self._lines("meta/tasks.jsonl", ("task_index", "task"))
        }
        videos = [k for k, c in self.columns.items() if c.dtype == "video"]
        for row in self._lines("meta/episodes.jsonl", ("episode_index", "length")):
            with _shaped(str(self.path / "meta/episodes.jsonl")):
                i = int(row["episode_index"])
                chunk = i // self._chunk
                spans = {
                    k: Span(self._fill(self._video, video_key=k, episode_chunk=chunk, episode_index=i)) for k in videos
                }
                yield _entry(row, spans, row)

    def _data_v2(self, i: int) -> Path:
        return self._fill(self._data, episode_chunk=i // self._chunk, episode_index=i)

    def _fill(self, template: Any, **values: Any) -> Path:
        """A path from a template that a stranger wrote: names alone, no attributes, no huge widths."""
        where = str(self.path / INFO)
        try:
            for _, name, spec, conversion in string.Formatter().parse(str(template)):
                if name is not None and (
                    name not in values or conversion or not re.fullmatch(r"(0?\d)?d?", spec or "")
                ):
                    raise ValueError(f"field {name!r}")
            text = str(template).format(**values)
        except (ValueError, KeyError, IndexError) as err:
            raise Damaged(f"path {str(template)[:80]!r} ({err})", where=where) from err
        return self._inside(text)

    def _inside(self, text: str) -> Path:
        """A file of the folder; refused when it leads outside, also by a link."""
        path = self.path / text
        if not path.resolve().is_relative_to(self.path.resolve()):
            raise Damaged(f"leads outside of the folder: {text[:120]!r}", where=str(self.path))
        if not path.is_file():
            raise Missing("no such file", where=str(path))
        return path

    def _json(self, name: str) -> Any:
        if not (self.path / INFO).is_file():
            raise Missing("no LeRobotDataset", where=str(self.path), allowed=f"a folder with {INFO}")
        path = self._inside(name)
        if path.stat().st_size > _MAX_JSON:
            raise Damaged(f"{path.stat().st_size} bytes of JSON", where=str(path))
        try:
            return json.loads(path.read_bytes())
        except (ValueError, RecursionError) as err:
            raise Damaged(f"not JSON ({err})", where=str(path)) from err

    def _lines(self, name: str, keys: tuple[str, ...]) -> Iterator[dict[str, Any]]:
        path = self._inside(name)
        with open(path, "rb") as f:
            for number, line in enumerate(f, 1):
                try:
                    row = json.loads(line)
                    for key in keys:
                        row[key]
                except (ValueError, RecursionError, TypeError, KeyError, IndexError) as err:
                    raise Damaged(f"line {number} is not a row with {', '.join(keys)}", where=str(path)) from err
                yield row


def _entry(row: Mapping[str, Any], videos: Mapping[str, Span], extra: Mapping[str, Any]) -> Entry:
    index, length = int(row["episode_index"]), int(row["length"])
    if index < 0 or length < 1:
        raise ValueError(f"episode {index} of {length} rows")
    tasks = row.get("tasks") or []
    own = ("episode_index", "length", "tasks", "dataset_from_index", "dataset_to_index", "stats")
    return Entry(index, length, tuple(map(str, tasks)), videos, {k: v for k, v in extra.items() if k not in own})


def _column(key: str, f: Mapping[str, Any]) -> Column:
    dtype, shape = str(f["dtype"]), tuple(int(n) for n in f["shape"])
    if dtype not in ("video", "image", "string") and not _NUMBER.fullmatch(dtype):
        raise ValueError(f"feature {key!r} of type {dtype[:40]!r}")
    if "/" in key or ".." in key or not key or "\0" in key or not key.isprintable():
        raise ValueError(f"feature named {key[:80]!r}")
    if any(n < 1 for n in shape) or len(shape) > 5 or math.prod(shape) > 1 << 28:
        raise ValueError(f"feature {key!r} of shape {shape}")
    if dtype in ("video", "image") and len(shape) != 3:
        raise ValueError(f"pictures {key!r} of shape {shape}")
    names = f.get("names")
    if isinstance(names, dict):  # {"motors": [...]}, as in early datasets
        names = next((v for v in names.values() if isinstance(v, list)), None)
    sound = isinstance(names, list) and len(names) == math.prod(shape) and all(isinstance(n, str) for n in names)
    return Column(dtype, shape, tuple(names) if sound and names else ())


def _values(array: Any, column: Column, where: str) -> Any:
    """An arrow column as (n, *shape), or as a list."""
    if array.null_count and column.dtype != "image":
        raise Damaged(f"{array.null_count} rows without a value", where=where)
    if column.dtype == "image":
        pictures = [(x or {}).get("bytes") if isinstance(x, dict) or x is None else x for x in array.to_pylist()]
        return pictures
    if column.dtype == "string":
        return [str(x) for x in array.to_pylist()]
    flat = array
    if hasattr(flat, "storage"):
        flat = flat.storage
    while hasattr(flat, "flatten") and hasattr(flat.type, "value_type"):
        flat = flat.flatten()
    if len(flat) != len(array) * column.size or flat.null_count:
        raise Damaged(f"{len(flat)} elements in {len(array)} rows of shape {column.shape}", where=where)
    try:
        found: NDArray[Any] = flat.to_numpy(zero_copy_only=False)
        if found.dtype.kind not in "biuf":
            raise ValueError(str(flat.type))
    except (ValueError, TypeError, NotImplementedError) as err:
        raise Damaged(f"not numbers ({err})", where=where) from err
    return found.astype(column.dtype, copy=False).reshape(len(array), *column.shape)


@contextmanager
def _shaped(where: str) -> Iterator[None]:
    """Wrap what a document of the wrong shape raises."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as err:
        what = f"no {err}" if isinstance(err, KeyError) else str(err)
        raise Damaged(f"not as LeRobot writes it ({what})", where=where) from err


@contextmanager
def _parquet(path: Path) -> Iterator[None]:
    """Wrap what pyarrow raises on a damaged file."""
    pa, _ = arrow()
    try:
        yield
    except (pa.ArrowException, OSError, MemoryError, ValueError, KeyError) as err:
        text = " ".join(str(err).split())[:160]
        raise Damaged(f"not sound Parquet ({text})", where=str(path)) from err


@contextmanager
def _video(av: Any, path: Path) -> Iterator[None]:
    """Wrap what FFmpeg raises on a damaged file."""
    try:
        yield
    except (av.error.FFmpegError, IndexError, ValueError, OSError) as err:
        if isinstance(err, InputError):
            raise
        raise Damaged(f"not a sound video ({err})", where=str(path)) from err


def _av() -> Any:
    try:
        import av
    except ModuleNotFoundError as err:
        raise NotPossible("videos need the Python package 'av'", run_next="pip install 'flyball[logs]'") from err
    return av
