"""Pictures as files. In: an array of one kind. Out: an 8-bit PNG that people can look at."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base.durable import write_durably


def png(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG (ISO/IEC 15948) of (h, w) grey or (h, w, 3) rgb."""
    h, w = pixels.shape[:2]
    colour = 2 if pixels.ndim == 3 else 0
    rows = np.concatenate([np.zeros((h, 1), np.uint8), pixels.astype(np.uint8).reshape(h, -1)], axis=1)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", w, h, 8, colour, 0, 0, 0)
    body = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def viewable(kind: str, picture: NDArray[Any]) -> NDArray[np.uint8]:
    """One picture as 8 bit: rgb as it is; depth near is bright; a colour per geom; normals and flow as colours."""
    if kind == "depth":
        seen = np.isfinite(picture)
        low, high = (picture[seen].min(), picture[seen].max()) if seen.any() else (0.0, 1.0)
        near = 1 - (np.where(seen, picture, high) - low) / max(high - low, 1e-9)
        return np.where(seen, 40 + 215 * near, 0).astype(np.uint8)
    if kind == "segmentation":
        geom = picture[..., 0]
        # golden-ratio hues: neighbouring ids look different
        hue = (geom * 0.61803398875) % 1
        rgb = np.clip(np.abs((hue[..., None] * 6 + np.array([0, 4, 2])) % 6 - 3) - 1, 0, 1)
        return np.where(geom[..., None] < 0, 0, 75 + 180 * rgb).astype(np.uint8)
    if kind == "normals":
        return np.where((picture != 0).any(-1, keepdims=True), 127.5 * (picture + 1), 0).astype(np.uint8)
    if kind == "flow":
        largest = max(float(np.nanmax(np.abs(picture), initial=0)), 1e-9)
        x, y = np.moveaxis(np.nan_to_num(picture) / largest, -1, 0)
        return (127.5 * (1 + np.stack([x, y, -(x + y) / 2], axis=-1))).clip(0, 255).astype(np.uint8)
    return picture.astype(np.uint8)


def write_png(path: Path | str, kind: str, picture: NDArray[Any]) -> None:
    """Write one picture of a kind, (h, w, ...); see ``viewable``."""
    write_durably(Path(path), png(viewable(kind, picture)))
