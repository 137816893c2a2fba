"""Payloads without a Python object for each: where they have one length, a matrix.

In: a buffer, and where payloads lie in it. Out: a sequence of payloads that decoders can take as any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Packed(Sequence[bytes]):
    """Payloads of one length.

    Attributes:
      matrix: one per row, shape (n, length).
    """

    def __init__(self, matrix: NDArray[np.uint8]) -> None:
        self.matrix = matrix

    def __len__(self) -> int:
        return len(self.matrix)

    def __getitem__(self, i: Any) -> Any:
        return Packed(self.matrix[i]) if isinstance(i, slice) else self.matrix[i].tobytes()


def packed(data: bytes, start: NDArray[np.int64], stop: NDArray[np.int64]) -> Sequence[bytes]:
    """Copies of ``data[start[i]:stop[i]]``."""
    length = int(stop[0] - start[0])
    if length and len(start) > 1 and (stop - start == length).all():
        windows = np.ndarray((len(data) - length + 1, length), np.uint8, data, 0, (1, 1))
        return Packed(windows[start])
    return [data[a:b] for a, b in zip(start.tolist(), stop.tolist(), strict=True)]


def joined(parts: Sequence[Sequence[bytes]]) -> Sequence[bytes]:
    """All payloads of several sequences."""
    if len(parts) == 1:
        return parts[0]
    matrices = [p.matrix for p in parts if isinstance(p, Packed)]
    if len(matrices) == len(parts) and len({m.shape[1] for m in matrices}) == 1:
        return Packed(np.concatenate(matrices))
    return [payload for part in parts for payload in part]


def sizes(payloads: Sequence[bytes]) -> NDArray[np.int64]:
    """Bytes of each, shape (n,)."""
    if isinstance(payloads, Packed):
        return np.full(len(payloads), payloads.matrix.shape[1])
    return np.fromiter(map(len, payloads), np.int64, len(payloads))
