"""Windows for learning: history, action chunks and pictures, gathered a batch at a time.

In: sources (rows of episodes end to end), and which rows around "now" each key wants, in steps or in seconds. Out:
batches as dictionaries of arrays, with a mask where a window reaches beyond its episode. The order depends on seed and
epoch alone; ranks share it without overlap. Needs numpy only.

Rows are kept with each episode's first and last row repeated at its ends, so that a window is one run of bytes and a
batch one gather. Pictures are decoded once, into a file that further runs map (``FrameCache``).
"""

from __future__ import annotations

import bisect
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, Missing, digest_of
from flyball.base.durable import make_folder, write_durably
from flyball.base.store import locked

Batch: TypeAlias = dict[str, NDArray[Any]]
"""For each key (b, k, *shape), k the number of its offsets, and ``KEY_is_pad`` (b, k) bool; besides ``index`` (b,),
number of the window among all, ``episode_index`` (b,), counted over all sources, and ``frame_index`` (b,)."""

PAD = "_is_pad"
FACTS = ("index", "episode_index", "frame_index")


@dataclass(frozen=True)
class Source:
    """Rows to make windows of.

    Attributes:
      name: for messages.
      fps: rows per second.
      lengths: rows of each episode, (episodes,).
      columns: key -> rows of all episodes, end to end, (n, *shape).
      cameras: key -> (height, width) of its pictures.
      decode: (camera, first episode, height, width) -> (episode, picture (height, width, 3) uint8), one per row, in
        order.
      identity: camera -> a digest that changes when its pictures do.
    """

    name: str
    fps: float
    lengths: NDArray[np.int64]
    columns: Mapping[str, NDArray[Any]]
    cameras: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    decode: Callable[[str, int, int, int], Iterator[tuple[int, NDArray[np.uint8]]]] | None = None
    identity: Callable[[str], str] | None = None


class Loader:
    """Batches of windows.

    Args:
      sources: where rows come from; they must agree on the keys that are asked for.
      windows: key -> offsets from now, whole numbers are steps, other numbers seconds; e.g. ``{"observation.state":
        (-1, 0), "action": range(16), "observation.images.front": (0,)}``.
      batch: windows in a batch.
      cache: folder of decoded pictures; needed when cameras are asked for.
      sizes: camera -> (height, width) to scale its pictures to when they are decoded.
      seed: decides the order.
      shuffle: False for the order of the rows.
      rank, world: this reader's number and how many there are; each window goes to one of them.
      drop_last: leave out a last batch that is not full, and windows that not every rank has a counterpart of.
      whole: leave out windows that reach beyond their episode.
      tolerance_s: how far a row may be from an offset in seconds.

    Raises:
      InputError: offsets that are no rows, sources that disagree, or numbers out of range.
      Missing: a key that a source lacks.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        windows: Mapping[str, Sequence[int | float]],
        *,
        batch: int = 256,
        cache: Path | None = None,
        sizes: Mapping[str, tuple[int, int]] | None = None,
        seed: int = 0,
        shuffle: bool = True,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
        whole: bool = False,
        tolerance_s: float = 1e-4,
    ) -> None:
        if not sources or not windows:
            raise InputError("nothing to load", where="loader", allowed="one source and one key, or more")
        if batch < 1 or not 0 <= rank < world:
            raise InputError(
                f"batch {batch}, rank {rank} of {world}", where="loader", allowed="batch >= 1, rank < world"
            )
        self.batch, self.seed, self.shuffle, self.rank, self.world = batch, seed, shuffle, rank, world
        self.drop_last = drop_last
        self.offsets = {key: [_steps(key, w, s, tolerance_s) for s in sources] for key, w in windows.items()}
        _check_shapes(sources, windows, sizes or {})
        self._parts: list[_Part] = []
        first = 0
        for i, s in enumerate(sources):
            offsets = {key: o[i] for key, o in self.offsets.items()}
            self._parts.append(_Part(s, offsets, cache, sizes or {}, first))
            first += len(s.lengths)
        counts = np.cumsum([0, *(len(p.frame) for p in self._parts)])
        self._edges = counts
        self._windows = np.arange(counts[-1])
        if whole:
            self._windows = self._windows[np.concatenate([p.whole() for p in self._parts])]
        self._rooms = _Rooms()

    @property
    def count(self) -> int:
        """Windows of all ranks."""
        return len(self._windows)

    def __len__(self) -> int:
        """Batches of an epoch, for this rank."""
        mine = self.count // self.world if self.drop_last else len(range(self.rank, self.count, self.world))
        return mine // self.batch if self.drop_last else math.ceil(mine / self.batch)

    def order(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of this rank's windows in an epoch, in order."""
        order = self._windows
        if self.shuffle:
            order = np.random.default_rng([self.seed, epoch]).permutation(order)
        return order[self.rank :: self.world]

    def epoch(self, epoch: int = 0, *, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, from batch ``start`` on."""
        order = self.order(epoch)
        for i in range(start, len(self)):
            yield self.gather(order[i * self.batch : (i + 1) * self.batch])

    def gather(self, index: NDArray[np.int64]) -> Batch:
        """The windows of some numbers, (b,)."""
        if len(self._parts) == 1:
            found = self._parts[0].gather(index, self._rooms)
        else:
            where = np.searchsorted(self._edges, index, "right") - 1
            found = {}
            for k, part in enumerate(self._parts):
                rows = np.flatnonzero(where == k)
                if not len(rows):
                    continue
                for key, values in part.gather(index[rows] - self._edges[k], self._rooms).items():
                    if key not in found:
                        found[key] = self._rooms.take((len(index), *values.shape[1:]), values.dtype)
                    found[key][rows] = values
        found["index"] = index
        return found


class _Part:
    """One source, ready to be gathered from."""

    def __init__(
        self,
        source: Source,
        offsets: Mapping[str, NDArray[np.int64]],
        cache: Path | None,
        sizes: Mapping[str, tuple[int, int]],
        first: int,
    ) -> None:
        lengths = np.asarray(source.lengths, np.int64)
        starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
        self.episode = np.repeat(np.arange(len(lengths)), lengths)
        self.frame = np.arange(int(lengths.sum())) - starts[self.episode]
        self._length, self._number = lengths[self.episode], (self.episode + first).astype(np.int64)
        self._offsets = offsets
        self._runs: dict[str, _Run] = {}
        self._masks: dict[tuple[int, ...], _Run] = {}
        self._pictures: dict[str, NDArray[np.uint8]] = {}
        self._start = starts[self.episode]
        padded: dict[tuple[int, int], tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]] = {}
        for key, steps in offsets.items():
            ends = (max(0, -int(steps.min())), max(0, int(steps.max())))
            if ends not in padded:
                padded[ends] = _padded(lengths, starts, *ends)
            rows, now, pad = padded[ends]
            if tuple(steps) not in self._masks:
                self._masks[tuple(steps)] = _Run(pad, now, steps)
            if key in source.cameras:
                self._pictures[key] = _decoded(source, key, sizes.get(key, source.cameras[key]), cache)
            else:
                self._runs[key] = _Run(np.ascontiguousarray(source.columns[key])[rows], now, steps)

    def whole(self) -> NDArray[np.bool_]:
        """Which windows stay within their episode."""
        every = np.concatenate(list(self._offsets.values()))
        return (self.frame + every.min() >= 0) & (self.frame + every.max() < self._length)

    def gather(self, index: NDArray[np.int64], rooms: _Rooms) -> Batch:
        """Windows of this source."""
        out: Batch = {}
        masks: dict[tuple[int, ...], NDArray[Any]] = {}
        for key, steps in self._offsets.items():
            kind = tuple(steps)
            if kind not in masks:
                masks[kind] = self._masks[kind].gather(index)
            out[key + PAD] = masks[kind]
            if key in self._runs:
                out[key] = self._runs[key].gather(index)
                continue
            pictures = self._pictures[key]
            rows = self.frame[index][:, None] + steps
            np.clip(rows, 0, (self._length[index] - 1)[:, None], out=rows)
            rows += self._start[index][:, None]
            room = rooms.take((*rows.shape, *pictures.shape[1:]), pictures.dtype)
            np.take(pictures, rows, axis=0, out=room, mode="clip")
            out[key] = room
        out["episode_index"], out["frame_index"] = self._number[index], self.frame[index]
        return out


class _Run:
    """A column with repeated ends, from which windows are cut.

    Args:
      rows: (p, *shape).
      now: place of each window's row 0 in it, (n,).
      steps: offsets, (k,).
    """

    def __init__(self, rows: NDArray[Any], now: NDArray[np.int64], steps: NDArray[np.int64]) -> None:
        self._rows, self._shape, self._count = rows, rows.shape[1:], len(steps)
        self._steps = steps
        width = rows.dtype.itemsize * math.prod(self._shape)
        self._view: NDArray[Any] | None = None
        self._at = now + steps[0]
        if len(steps) > 0 and (np.diff(steps) == 1).all() and width:
            # Neighbouring rows lie side by side: a window is one item of an array whose items overlap.
            item = np.dtype((np.void, width * len(steps)))
            places = max(0, len(rows) - len(steps) + 1)
            self._view = np.ndarray((places,), item, rows, strides=(width,))
        else:
            self._at = now

    def gather(self, index: NDArray[np.int64]) -> NDArray[Any]:
        """Windows, (b, k, *shape)."""
        at = self._at[index]
        if self._view is not None:
            return self._view[at].view(self._rows.dtype).reshape(len(index), self._count, *self._shape)
        return self._rows[at[:, None] + self._steps]


class FrameCache:
    """Decoded pictures in files, made once.

    A file is named by the digest of what it was decoded from; pictures are added episode by episode, and decoding goes
    on where it was interrupted. Several processes may ask for the same one.

    Args:
      folder: where the files are; may be deleted at any time.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = make_folder(Path(folder))

    def pictures(
        self,
        source: Source,
        camera: str,
        size: tuple[int, int],
        progress: Callable[[int, int], None] | None = None,
    ) -> NDArray[np.uint8]:
        """All pictures of a camera, (n, height, width, 3), mapped read-only.

        Raises:
          Damaged: a camera that has not one picture per row.
        """
        assert source.decode is not None and source.identity is not None
        height, width = size
        key = digest_of({"pictures": source.identity(camera), "size": [height, width], "version": 1})
        total = int(np.sum(source.lengths))
        path, state = self.folder / f"{key}.rgb", self.folder / f"{key}.json"
        shape = (total, height, width, 3)
        if not total:
            return np.zeros(shape, np.uint8)
        with locked(self.folder / f"{key}.lock"):
            done = _state(state, path, math.prod(shape))
            if done < total:
                room = np.memmap(path, np.uint8, "r+" if done else "w+", shape=shape)
                self._fill(room, source, camera, size, done, state, progress)
                del room
        return np.asarray(np.memmap(path, np.uint8, "r", shape=shape))

    def _fill(
        self,
        room: Any,
        source: Source,
        camera: str,
        size: tuple[int, int],
        done: int,
        state: Path,
        progress: Callable[[int, int], None] | None,
    ) -> None:
        assert source.decode is not None
        ends = np.cumsum(source.lengths).tolist()
        begun = bisect.bisect_right(ends, done)  # whole episodes are done
        at = ends[begun - 1] if begun else 0
        for episode, picture in source.decode(camera, begun, *size):
            first = ends[episode] - int(source.lengths[episode])
            if at < first or at >= ends[episode]:
                raise Damaged(
                    f"{camera} has not one picture per row around episode {episode}",
                    where=source.name,
                    run_next="flyball curate",
                )
            room[at] = picture
            at += 1
            if at == ends[episode]:
                room.flush()
                write_durably(state, json.dumps({"done": at}).encode())
                if progress is not None:
                    progress(at, len(room))
        if at != len(room):
            raise Damaged(f"{camera} has {at} pictures for {len(room)} rows", where=source.name)


def _decoded(source: Source, camera: str, size: tuple[int, int], cache: Path | None) -> NDArray[np.uint8]:
    if cache is None:
        raise InputError("cameras need a folder for decoded pictures", where="loader", run_next="cache=FOLDER")
    return FrameCache(cache).pictures(source, camera, size)


def _state(state: Path, path: Path, size: int) -> int:
    """How many pictures are in a file; 0 when it is not what it should be."""
    try:
        done = int(json.loads(state.read_bytes())["done"])
        return done if path.stat().st_size == size else 0
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _padded(
    lengths: NDArray[np.int64], starts: NDArray[np.int64], before: int, after: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Rows with ends repeated: (which row is where (p,), where each row is (n,), what is repeated (p,))."""
    wide = lengths + before + after
    begins = np.concatenate([[0], np.cumsum(wide)[:-1]])
    place = np.arange(int(wide.sum())) - np.repeat(begins, wide) - before
    last = np.repeat(lengths - 1, wide)
    rows = np.repeat(starts, wide) + np.clip(place, 0, last)
    now = np.arange(int(lengths.sum())) + np.repeat(begins - starts, lengths) + before
    return rows, now, (place < 0) | (place > last)


def _steps(key: str, offsets: Sequence[int | float], source: Source, tolerance_s: float) -> NDArray[np.int64]:
    """Offsets in rows of a source."""
    if not len(offsets):
        raise InputError("no offset", where=key, allowed="steps (whole numbers) or seconds")
    if all(isinstance(o, (int, np.integer)) for o in offsets):
        return np.array(offsets, np.int64)
    seconds = np.array(offsets, np.float64)
    if not np.isfinite(seconds).all():
        raise InputError("an offset that is not finite", where=key)
    steps = np.round(seconds * source.fps)
    off = np.abs(steps / source.fps - seconds)
    if (off > tolerance_s).any():
        worst = float(seconds[off.argmax()])
        raise InputError(
            f"no row at {worst:g} s in {source.name}",
            where=key,
            allowed=f"multiples of 1/{source.fps:g} s, or a larger tolerance_s",
        )
    return steps.astype(np.int64)


def _check_shapes(sources: Sequence[Source], keys: Mapping[str, Any], sizes: Mapping[str, tuple[int, int]]) -> None:
    for key in keys:
        shapes = []
        for s in sources:
            if key not in s.columns and key not in s.cameras:
                raise Missing.named("key", key, [*s.columns, *s.cameras], where=s.name)
            camera = key in s.cameras
            shapes.append(
                ("uint8", (*sizes.get(key, s.cameras[key]), 3))
                if camera
                else (s.columns[key].dtype.name, s.columns[key].shape[1:])
            )
            if s.columns and not camera and len(s.columns[key]) != int(np.sum(s.lengths)):
                raise InputError(f"{key} has {len(s.columns[key])} rows", where=s.name)
        for s, shape in zip(sources, shapes, strict=True):
            if shape != shapes[0]:
                raise InputError(
                    f"{key} is {shape[0]} {shape[1]} in {s.name}, {shapes[0][0]} {shapes[0][1]} in {sources[0].name}",
                    where="loader",
                    run_next="sizes={camera: (height, width)}" if key in s.cameras else "",
                )


class _Rooms:
    """Large arrays that are filled again once nobody refers to them any more: fresh memory costs more than a copy."""

    MOST = 8
    LEAST = 1 << 20
    """Bytes from which on it pays."""

    def __init__(self) -> None:
        self._held: dict[Any, list[NDArray[Any]]] = {}
        self._unused = self._references([np.empty(0)])[0]

    def take(self, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """An array to fill; its contents are anything."""
        if math.prod(shape) * np.dtype(dtype).itemsize < self.LEAST:
            return np.empty(shape, dtype)
        held = self._held.setdefault((shape[1:], np.dtype(dtype)), [])
        for i, references in enumerate(self._references(held)):
            if references == self._unused and len(held[i]) >= shape[0]:
                return held[i][: shape[0]]
        made = np.empty(shape, dtype)
        if len(held) < self.MOST:
            held.append(made)
        return made[:]  # a view: whoever holds it, or a view of it, holds a reference to what we keep

    @staticmethod
    def _references(arrays: list[NDArray[Any]]) -> list[int]:
        """How often each is referred to. Views of views refer to the array itself."""
        return [sys.getrefcount(a) for a in arrays]
