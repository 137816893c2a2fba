"""A glance at a camera's pictures: enough to see that one is black, and that the next one is the same.

In: decoded pictures, one by one. Out: a ``Glance`` of some kilobytes per picture. Pictures are decoded once for all
checks, and never all in memory.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ROWS, COLUMNS = 24, 32


@dataclass(frozen=True)
class Glance:
    """What is kept of a stream of pictures.

    Attributes:
      blocks: mean brightness of each of at most 24 x 32 blocks, 0 to 255, (n, h, w), float16.
      change: mean absolute difference of the pixels from the picture before, 0 to 255, (n,); the first is nan, and so
        is one after a picture of another size.
    """

    blocks: NDArray[np.float16]
    change: NDArray[np.float32]

    def to_bytes(self) -> bytes:
        """The three sizes (int64), blocks, changes, little endian; ``from_bytes`` is the inverse."""
        sizes = np.array(self.blocks.shape, "<i8")
        return sizes.tobytes() + self.blocks.astype("<f2").tobytes() + self.change.astype("<f4").tobytes()

    @classmethod
    def from_bytes(cls, blob: bytes) -> Glance:
        """Inverse of ``to_bytes``."""
        n, h, w = np.frombuffer(blob, "<i8", 3).tolist()
        blocks = np.frombuffer(blob, "<f2", n * h * w, 24).reshape(n, h, w)
        return cls(blocks, np.frombuffer(blob, "<f4", n, 24 + blocks.nbytes))


def glance(pictures: Iterable[NDArray[Any]]) -> Glance:
    """Look at pictures, each (H, W, C), uint8, or anything else with brighter meaning more; see ``read_frames``."""
    blocks, change = [], []
    before: NDArray[np.float32] | None = None
    scale = 0.0
    for picture in pictures:
        grey = np.nan_to_num(np.asarray(picture, np.float32)[..., :3].mean(axis=-1))
        if picture.dtype != np.uint8:  # depth: its own range is what counts
            scale = scale or 255.0 / max(float(np.abs(grey).max()), 1e-9)
            grey = grey * np.float32(scale)
        same = before is not None and before.shape == grey.shape
        change.append(float(np.abs(grey - before).mean()) if same and before is not None else np.nan)
        blocks.append(_blocks(grey))
        before = grey
    shapes = {b.shape for b in blocks}
    if len(shapes) > 1:  # pictures of several sizes: only their brightness can be compared
        blocks = [np.full((1, 1), b.mean(), np.float32) for b in blocks]
    stacked = np.stack(blocks) if blocks else np.zeros((0, 1, 1), np.float32)
    return Glance(stacked.astype(np.float16), np.array(change, np.float32))


def _blocks(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    h, w = min(ROWS, grey.shape[0]), min(COLUMNS, grey.shape[1])
    rows, columns = (np.arange(n) * size // n for n, size in ((h, grey.shape[0]), (w, grey.shape[1])))
    total = np.add.reduceat(np.add.reduceat(grey, rows, axis=0), columns, axis=1)
    height, width = np.diff(np.append(rows, grey.shape[0])), np.diff(np.append(columns, grey.shape[1]))
    return np.asarray(total / np.outer(height, width), np.float32)
