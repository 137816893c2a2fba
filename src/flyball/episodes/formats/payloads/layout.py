"""Binary messages decoded together: the first shows where each field lies, the others are checked to agree.

In: a function that walks one message and says what lies where, and many messages. Out: columns, sliced by numpy from
all messages of one layout at once. A layout is the message's length, and the bytes that led the walk (counts, tags,
offsets): they must be the same in every message of the group. What a walk may visit is bounded here, for all encodings.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Unsupported
from flyball.episodes.formats.payloads import MAX_DEPTH, MAX_ELEMENTS, MAX_FIELDS, Column, Path
from flyball.episodes.formats.payloads.packed import Packed, sizes

_VISITS = 64 * MAX_FIELDS


@dataclass(frozen=True)
class Leaf:
    """Where a field lies.

    Attributes:
      path: its name.
      kind: a numpy type with byte order; ``text``, ``ctext`` (ends at a NUL), ``bytes``; ``varint`` or ``zigzag``
        (protobuf); ``constant``, for a field that is absent and has ``value``; ``parts``.
      dtype: numpy type of the column, "" for text.
      begin: first byte.
      size: bytes.
      shape: of one value.
      order: of the elements along the last axis, () for as they are.
      unit: see ``Column``.
      value: of a constant.
      parts: leaves that are its elements, in order.
    """

    path: Path
    kind: str
    dtype: str
    begin: int = 0
    size: int = 0
    shape: tuple[int, ...] = ()
    order: tuple[int, ...] = ()
    unit: str = ""
    value: Any = 0
    parts: tuple[Leaf, ...] = ()


class Layout:
    """Where everything lies in one message; walks derive from it.

    Attributes:
      data: the message.
      leaves: fields that were found.
      fixed: (begin, end) of bytes that led the walk.
      high: places of bytes of which the highest bit did (those of protobuf's varints).
      skipped: paths of fields that are there and are not decoded.
    """

    def __init__(self, data: bytes, name: str) -> None:
        self.data, self.name = data, name
        self.leaves: list[Leaf] = []
        self.fixed: list[tuple[int, int]] = []
        self.high: list[int] = []
        self.skipped: list[Path] = []
        self.visits_left = _VISITS

    def visit(self, n: int = 1) -> None:
        """Count a step of the walk.

        Raises:
          Unsupported: too many.
        """
        self.visits_left -= n
        if self.visits_left < 0 or len(self.leaves) > MAX_FIELDS:
            raise Unsupported(f"more than {MAX_FIELDS} fields in one message", where=self.name)

    def alike(self, matrix: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which messages, rows of shape (n, length), have this layout; the first has."""
        same = np.ones(len(matrix), bool)
        if self.fixed:
            led = np.zeros(matrix.shape[1], bool)
            for begin, end in self.fixed:
                led[begin:end] = True
            places = np.flatnonzero(led)
            same &= (matrix[:, places] == matrix[0, places]).all(axis=1)
        if self.high:
            bits = matrix[:, self.high] & 0x80
            same &= (bits == bits[0]).all(axis=1)
        return same


def deeper(path: Path, name: str, i: int | str | None = None) -> Path:
    """The path of a field within, or of its element.

    Raises:
      Unsupported: too deep.
    """
    if len(path) >= MAX_DEPTH:
        raise Unsupported(f"messages within messages, more than {MAX_DEPTH} deep", where=path[0])
    return (*path, name if i is None else f"{name}[{i}]")


def limit(n: int, path: Path) -> None:
    """Raises Unsupported for more messages in an array than are decoded."""
    if n > MAX_ELEMENTS:
        raise Unsupported(f"{n} elements in one message", where=".".join(path))


def decode(walk: Callable[[bytes], Layout], payloads: Sequence[bytes]) -> tuple[list[Column], list[str]]:
    """All messages, see ``payloads.Decoder.decode``."""
    n = len(payloads)
    lengths = sizes(payloads)
    groups: list[tuple[NDArray[np.int64], Layout, NDArray[np.uint8]]] = []
    for length in np.unique(lengths).tolist():
        rest = np.flatnonzero(lengths == length)
        if isinstance(payloads, Packed):
            matrix = payloads.matrix
        else:
            picked = payloads if len(rest) == n else [payloads[i] for i in rest.tolist()]
            matrix = np.frombuffer(b"".join(picked), np.uint8).reshape(len(rest), length)
        while len(rest):
            layout = walk(payloads[int(rest[0])])
            same = layout.alike(matrix)
            if same.all():
                groups.append((rest, layout, matrix))
                break
            groups.append((rest[same], layout, matrix[same]))
            rest, matrix = rest[~same], matrix[~same]
    leaves = [{leaf.path: leaf for leaf in layout.leaves} for _, layout, _ in groups]
    skipped = {path for _, layout, _ in groups for path in layout.skipped}
    columns: list[Column] = []
    varying = [".".join(path) for path in sorted(skipped)]
    for path in dict.fromkeys(p for group in leaves for p in group):
        found = [group[path] for group in leaves if path in group]
        first = found[0]
        if path in skipped or len(found) < len(groups) or not all(_fits(leaf, first) for leaf in found):
            varying.append(".".join(path))
            continue
        parts = [values(leaf, matrix) for leaf, (_, _, matrix) in zip(found, groups, strict=True)]
        columns.append(Column(path, first.unit, _merged(parts, [rows for rows, _, _ in groups], n)))
    return columns, varying


def row(layout: Layout) -> dict[Path, Any]:
    """One message, see ``payloads.Decoder.row``."""
    matrix = np.frombuffer(layout.data, np.uint8)[None]
    out: dict[Path, Any] = {}
    for leaf in layout.leaves:
        if leaf.kind == "bytes":
            out[leaf.path] = memoryview(layout.data)[leaf.begin : leaf.begin + leaf.size]
        else:
            value = values(leaf, matrix)[0]
            out[leaf.path] = value if isinstance(value, str) or leaf.shape else value.item()
    return out


def values(leaf: Leaf, matrix: NDArray[np.uint8]) -> NDArray[Any] | list[str]:
    """The field in every message, rows of shape (n, length): shape (n, *leaf.shape), or texts."""
    n = len(matrix)
    if leaf.kind == "parts":
        parts = [np.asarray(values(part, matrix)).reshape(n, -1) for part in leaf.parts]
        return np.concatenate([np.zeros((n, 0), leaf.dtype), *parts], axis=1).reshape(n, *leaf.shape)
    if leaf.kind == "constant":
        return [leaf.value] * n if leaf.dtype == "" else np.full((n, *leaf.shape), leaf.value, leaf.dtype)
    raw = matrix[:, leaf.begin : leaf.begin + leaf.size]
    if leaf.kind in ("text", "ctext"):
        end = b"\0" if leaf.kind == "ctext" else None
        return [_text(raw[0], end)] * n if (raw == raw[0]).all() else [_text(r, end) for r in raw]
    if leaf.kind in ("varint", "zigzag"):
        return _varint(raw, leaf.kind).astype(leaf.dtype).reshape(n, *leaf.shape)
    kind = np.dtype("u1" if leaf.kind == "bytes" else leaf.kind)
    found = np.ascontiguousarray(raw).view(kind) if leaf.size else np.zeros((n, 0), kind)
    found = found.reshape(n, *leaf.shape)
    if leaf.dtype == "bool":
        return found != 0
    return (found[..., list(leaf.order)] if leaf.order else found).astype(leaf.dtype, copy=False)


def lifted(parts: Sequence[Leaf], path: Path, shape: tuple[int, ...], unit: str) -> Leaf:
    """One vector, or several, from the leaves of their elements."""
    return Leaf(path, "parts", "float64", shape=shape, unit=unit, parts=tuple(replace(p, path=path) for p in parts))


def _fits(leaf: Leaf, first: Leaf) -> bool:
    return leaf.dtype == first.dtype and (leaf.dtype == "" or leaf.shape == first.shape)


def _merged(parts: list[Any], rows: list[NDArray[np.int64]], n: int) -> NDArray[Any] | list[str]:
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], list):
        texts = [""] * n
        for at, part in zip(rows, parts, strict=True):
            for i, text in zip(at.tolist(), part, strict=True):
                texts[i] = text
        return texts
    out = np.empty((n, *parts[0].shape[1:]), parts[0].dtype)
    for at, part in zip(rows, parts, strict=True):
        out[at] = part
    return out


def _varint(raw: NDArray[np.uint8], kind: str) -> NDArray[Any]:
    out = np.zeros(len(raw), np.uint64)
    for i in range(raw.shape[1]):
        out |= (raw[:, i] & 0x7F).astype(np.uint64) << np.uint64(7 * i)
    if kind == "zigzag":
        return ((out >> np.uint64(1)) ^ (np.uint64(0) - (out & np.uint64(1)))).view(np.int64)
    return out


def _text(raw: NDArray[np.uint8], end: bytes | None) -> str:
    text = raw.tobytes()
    return (text if end is None else text.split(end)[0]).decode(errors="replace")
