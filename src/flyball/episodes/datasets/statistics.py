"""Statistics of columns and pictures, exact over all rows.

In: columns piece by piece, and pictures. Out: the ``min max mean std count q01 q10 q50 q90 q99`` of LeRobot's
``stats.json``. Quantiles are those of all values (linear interpolation between the two nearest ranks), not a mean of
the episodes' quantiles. Values that are not finite do not count. Pictures are scaled to 0 ... 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
Stats = dict[str, Any]
"""Nested lists, as JSON holds them."""


def column_stats(column: NDArray[Any]) -> Stats:
    """Statistics of a column over its rows.

    Args:
      column: (n, *shape), n >= 1.

    Returns:
      Lists of shape ``shape``; ``count`` has one element. An element without any finite value is 0 throughout.
    """
    shape = column.shape[1:]
    flat = column.reshape(len(column), -1)
    out: dict[str, NDArray[np.float64]] = {
        k: np.zeros(flat.shape[1]) for k in ("min", "max", "mean", "std", *QUANTILES)
    }
    for i in range(flat.shape[1]):
        x = np.asarray(flat[:, i], np.float64)
        x = x[np.isfinite(x)]
        if not len(x):
            continue
        quantiles = np.quantile(x, list(QUANTILES.values()))
        for key, value in zip(QUANTILES, quantiles, strict=True):
            out[key][i] = value
        out["min"][i], out["max"][i], out["mean"][i], out["std"][i] = x.min(), x.max(), x.mean(), x.std()
    return {**{k: v.reshape(shape).tolist() for k, v in out.items()}, "count": [len(column)]}


class PictureStats:
    """Statistics per channel, from histograms: pictures have 256 values, so these are exact too."""

    def __init__(self) -> None:
        self.histogram = np.zeros((3, 256), np.int64)
        self.count = 0

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Count a picture, (height, width, 3)."""
        for c in range(3):
            self.histogram[c] += np.bincount(picture[..., c].ravel(), minlength=256)
        self.count += 1

    def merge(self, other: PictureStats) -> None:
        """Count what another has counted."""
        self.histogram += other.histogram
        self.count += other.count

    def stats(self) -> Stats:
        """Lists of shape (3, 1, 1); ``count`` is the number of pictures."""
        value = np.arange(256) / 255
        out: dict[str, list[Any]] = {}
        rows: list[dict[str, float]] = []
        for h in self.histogram:
            n, above = int(h.sum()), np.cumsum(h)
            mean = float(h @ value) / n
            row = {"min": value[h > 0].min(), "max": value[h > 0].max(), "mean": mean}
            row["std"] = float(np.sqrt(h @ (value - mean) ** 2 / n))
            for key, q in QUANTILES.items():
                rank = q * (n - 1)
                low, part = int(rank), rank - int(rank)
                a, b = (value[np.searchsorted(above, k, "right")] for k in (low, min(low + 1, n - 1)))
                row[key] = a + (b - a) * part
            rows.append(row)
        for key in rows[0]:
            out[key] = [[[float(row[key])]] for row in rows]
        return {**out, "count": [self.count]}


class ColumnFile:
    """A column of a whole dataset, kept in a file until its statistics are made."""

    def __init__(self, path: Path, dtype: str, shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, np.dtype(dtype), shape
        self._file: BinaryIO = open(path, "wb")  # noqa: SIM115 - closed by stats()

    def add(self, column: NDArray[Any]) -> None:
        """Append rows."""
        self._file.write(np.ascontiguousarray(column, self.dtype).data)

    def stats(self) -> Stats:
        """Statistics of all rows; the file is removed."""
        self._file.close()
        found = column_stats(np.memmap(self.path, self.dtype, "r").reshape(-1, *self.shape))
        self.path.unlink()
        return found
