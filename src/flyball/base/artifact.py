"""Artifacts: everything stored is one. Identity, cache key, lineage and "why was this released" are one mechanism."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


def _plain(x: Any) -> Any:
    """x as JSON-able data, deterministically."""
    if dataclasses.is_dataclass(x) and not isinstance(x, type):
        return {f.name: _plain(getattr(x, f.name)) for f in dataclasses.fields(x)}
    if isinstance(x, Mapping):
        return {str(k): _plain(v) for k, v in x.items()}
    if isinstance(x, (list, tuple)):
        return [_plain(v) for v in x]
    if isinstance(x, (set, frozenset)):
        return sorted(_plain(v) for v in x)
    if isinstance(x, np.ndarray):
        body = hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()
        return {"dtype": x.dtype.str, "shape": list(x.shape), "sha256": body}
    if isinstance(x, np.generic):
        return x.item()
    if isinstance(x, bytes):
        return {"sha256": hashlib.sha256(x).hexdigest()}
    if isinstance(x, Path):
        return str(x)
    return x


def digest_of(x: Any) -> str:
    """sha256 (hex) of bytes as they are, or of any plain data in canonical JSON.

    Arrays enter by dtype, shape and content; dataclasses by their fields.
    """
    if isinstance(x, (bytes, bytearray, memoryview)):
        return hashlib.sha256(x).hexdigest()
    text = json.dumps(_plain(x), sort_keys=True, separators=(",", ":"), allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Artifact:
    """A stored thing.

    Attributes:
      kind: ``log``, ``episode``, ``dataset``, ``calibration``, ``policy``, ``report``, ``release``, ...
      digest: sha256 of the blob (hex).
      parents: digests of what it was made from.
      producer: ``flyball.learning.flow@1``: code path and declared version.
      created_ns: wall clock at registration [ns].
      labels: small searchable facts.
    """

    kind: str
    digest: str
    parents: tuple[str, ...] = ()
    producer: str = ""
    created_ns: int = 0
    labels: Mapping[str, Any] = field(default_factory=dict)
