"""What the loader reads from: the rows of a LeRobot folder, or of a dataset in the store.

In: a folder that anybody wrote, or a dataset and a layout. Out: a ``Source``: columns of all episodes in memory, end to
end, and decoded pictures on demand. Both give the same numbers for the same dataset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, Missing, digest_of
from flyball.base.store import Store
from flyball.episodes.dataset import Dataset
from flyball.episodes.datasets.folder import LeRobotFolder
from flyball.episodes.datasets.layout import Layout
from flyball.episodes.datasets.lerobot import order_of
from flyball.episodes.datasets.loader import Source
from flyball.episodes.datasets.stored import open_episode, pictures
from flyball.episodes.datasets.table import Sampler, Table


def folder_source(path: Path, *, split: str = "", keys: Iterable[str] | None = None) -> Source:
    """The rows of a LeRobotDataset folder, v2.0 to v3.0.

    Args:
      path: the folder.
      split: only the episodes of this split; "" for all.
      keys: columns to read; None for all that are numbers.

    Raises:
      Missing: no such split, column or folder.
      Damaged: files that are not sound.
    """
    folder = LeRobotFolder(Path(path))
    begin, end = _range(folder, split)
    entries = {e.index: e for e in folder.entries[begin:end]}
    numbers = [k for k, c in folder.columns.items() if c.dtype not in ("video", "image", "string")]
    wanted = numbers if keys is None else [k for k in keys if k not in folder.cameras]
    for key in wanted:
        if key not in numbers:
            raise Missing.named("column", key, numbers, where=str(path))
    order: dict[int, list[dict[str, Any]]] = {}
    for index, piece in folder.rows([*wanted, "episode_index"]):
        if index in entries:
            order.setdefault(index, []).append(piece)
    lengths = [sum(len(p["episode_index"]) for p in order.get(i, ())) for i in entries]
    for e, n in zip(entries.values(), lengths, strict=True):
        if n != e.length:
            raise Damaged(f"episode {e.index} has {n} rows where {e.length} were announced", where=str(path))
    columns = {k: np.concatenate([p[k] for i in entries for p in order[i]]) for k in wanted}
    cameras = {k: (folder.columns[k].shape[0], folder.columns[k].shape[1]) for k in folder.cameras}
    numbered = list(entries)
    places = {index: i for i, index in enumerate(numbered)}

    def decode(camera: str, first: int, height: int, width: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        if folder.columns[camera].dtype == "video":
            for i, index in enumerate(numbered[first:], first):
                for picture in folder.pictures(entries[index].videos[camera], height=height, width=width):
                    yield i, picture
        else:
            for index, piece in folder.rows([camera, "episode_index"]):
                i = places.get(index, -1)
                if i >= first:
                    for picture in folder.images(piece[camera], height=height, width=width):
                        yield i, picture

    def identity(camera: str) -> str:
        files = {s.path for e in entries.values() for k, s in e.videos.items() if k == camera} or set(folder.files())
        known = folder.manifest.get("files", {})
        digests = [known.get(str(p.relative_to(folder.path))) or _sha256(p) for p in sorted(files)]
        spans = [(e.index, e.length, *_times(e.videos.get(camera))) for e in entries.values()]
        return digest_of({"files": digests, "episodes": spans, "camera": camera})

    return Source(str(path), folder.fps, np.array(lengths), columns, cameras, decode, identity)


def dataset_source(store: Store, dataset: Dataset, layout: Layout, *, split: str = "") -> Source:
    """The rows of a dataset in the store, without exporting it.

    Args:
      store: where the episodes are.
      dataset: which.
      layout: see ``plan``.
      split: only the episodes of this split; "" for all.

    Raises:
      Missing: no such split.
      InputError, Damaged: see ``Sampler.table`` and ``open_episode``.
    """
    order, _ = order_of(dataset)
    if split:
        if split not in dataset.splits:
            raise Missing.named("split", split, dataset.splits, where="dataset")
        order = list(dataset.splits[split])
    sampler = Sampler(layout)
    tables: list[Table] = []
    for digest in order:
        tables.append(sampler.table(open_episode(store, digest), where=f"episode {digest[:12]}"))
    numbers = [f.key for f in layout.features if f.kind == "numbers"]
    columns = {k: np.concatenate([t.columns[k] for t in tables]) for k in numbers}
    names = {f.key: f.signals[0].name for f in layout.cameras}

    def decode(camera: str, first: int, height: int, width: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        for i, digest in enumerate(order[first:], first):
            frames = open_episode(store, digest, verified=False).frames[names[camera]]
            for picture in pictures(store, frames, tables[i].pictures[camera], height=height, width=width):
                yield i, picture

    def identity(camera: str) -> str:
        rows = [digest_of(t.pictures[camera]) for t in tables]
        return digest_of({"episodes": order, "rows": rows, "camera": names[camera]})

    lengths = np.array([t.length for t in tables])
    cameras = {f.key: (f.shape[0], f.shape[1]) for f in layout.cameras}
    return Source(f"dataset {dataset.digest[:12]}", float(layout.fps), lengths, columns, cameras, decode, identity)


def _range(folder: LeRobotFolder, split: str) -> tuple[int, int]:
    if not split:
        return 0, len(folder.entries)
    if split not in folder.splits:
        raise Missing.named("split", split, folder.splits, where=str(folder.path))
    first, last = folder.splits[split]
    if not 0 <= first < last <= len(folder.entries):
        raise InputError(f"split {split!r} is {first}:{last} of {len(folder.entries)} episodes", where=str(folder.path))
    return first, last


def _times(span: Any) -> tuple[float, float]:
    return (span.begin_s, min(span.end_s, 1e18)) if span else (0.0, 0.0)


def _sha256(path: Path) -> str:
    with open(path, "rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
