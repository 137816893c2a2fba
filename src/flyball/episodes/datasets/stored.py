"""Episodes and pictures as the store holds them, larger than memory.

In: digests. Out: headers read without the arrays, episodes whose arrays are mapped from the store's files after their
digest was checked, and decoded pictures in pieces.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, Missing, SignalSpec
from flyball.base.store import Store
from flyball.episodes import codec
from flyball.episodes.dataset import Judgement
from flyball.episodes.episode import Episode, Frames, Outcome
from flyball.episodes.frames import decoded


@dataclass(frozen=True)
class Header:
    """What an episode holds, without its samples.

    Attributes:
      embodiment, robot, log_digest: see ``Episode``.
      signals: name -> specification.
      cameras: name -> (encoding, height, width).
      names: signal -> names of its elements, where the log gave them (label ``names``).
    """

    embodiment: str
    robot: str
    log_digest: str
    signals: dict[str, SignalSpec]
    cameras: dict[str, tuple[str, int, int]]
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_header(store: Store, digest: str) -> Header:
    """The header of a stored episode.

    Raises:
      Missing: no such blob.
      Damaged: not an episode.
    """
    where = f"episode {digest[:12]}"
    try:
        with open(store.path(digest), "rb") as f:
            h = codec.header(f, where=where)
    except FileNotFoundError as err:
        raise Missing(f"no blob with digest {digest[:12]}", where=str(store.root)) from err
    try:
        return Header(
            str(h["embodiment"]),
            str(h["robot"]),
            str(h["log_digest"]),
            {str(s["key"]): SignalSpec.from_json(s["spec"]) for s in h["signals"]},
            {str(c["key"]): (str(c["encoding"]), int(c["height"]), int(c["width"])) for c in h["frames"]},
            _names(h["labels"].get("names")),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as err:
        raise Damaged(f"not a sound episode ({err})", where=where) from err


def _names(label: Any) -> dict[str, tuple[str, ...]]:
    """The label ``names``, as far as it is what it should be: anybody may write labels."""
    if not isinstance(label, dict):
        return {}
    return {k: tuple(v) for k, v in label.items() if isinstance(v, list) and all(isinstance(n, str) for n in v)}


def open_episode(store: Store, digest: str, judged: Judgement | None = None, *, verified: bool = True) -> Episode:
    """A stored episode, its arrays mapped from the file.

    Args:
      store: where it is.
      digest: which.
      judged: outcome and group to give it, those of a dataset; None for those it was recorded with.
      verified: check the digest first.

    Raises:
      Missing: no such blob.
      Damaged: the bytes are not what was stored.
    """
    where = f"episode {digest[:12]}"
    try:
        with open(store.path(digest), "rb") as f:
            if verified and hashlib.file_digest(f, "sha256").hexdigest() != digest:
                raise Damaged("the stored bytes do not match their digest", where=where, run_next="restore the file")
            mapped = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ)
    except FileNotFoundError as err:
        raise Missing(f"no blob with digest {digest[:12]}", where=str(store.root)) from err
    except ValueError as err:
        raise Damaged("empty", where=where) from err
    episode = codec.decode(cast(bytes, mapped), where=where)  # a map reads like bytes
    if judged is None:
        return episode
    return replace(episode, outcome=cast(Outcome, judged.outcome), group=judged.group)


def pictures(
    store: Store, frames: Frames, which: NDArray[np.int64], *, height: int | None = None, width: int | None = None
) -> Iterator[NDArray[np.uint8]]:
    """Decoded pictures of a camera, one by one, as RGB.

    Args:
      store: where their blob is.
      frames: the camera.
      which: numbers of pictures, non-decreasing, repeats allowed.
      height, width: scale to this size [pixels]; None for the size they have.

    Yields:
      (height, width, 3) uint8.

    Raises:
      Missing: no such blob.
      Damaged: a picture cannot be decoded.
    """
    path = store.path(frames.blob)
    if not path.exists():
        raise Missing(f"no blob with digest {frames.blob[:12]}", where=f"camera {frames.name}")
    numbers, times = np.unique(which, return_counts=True)
    found = decoded(frames, path, numbers.tolist(), height=height, width=width)
    for (_, picture), repeats in zip(found, times.tolist(), strict=True):
        rgb = np.repeat(picture, 3, axis=-1) if picture.shape[-1] == 1 else picture[..., :3]
        for _ in range(repeats):
            yield rgb
