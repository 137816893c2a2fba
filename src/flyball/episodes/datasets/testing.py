"""Planted episodes: signals at several rates, a flag, a grid, cameras whose pictures tell their number.

In: a store, a seed. Out: an episode that datasets, exports and loaders can be tried on without any log.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, Timed
from flyball.base.store import Store
from flyball.episodes.episode import Episode, Frames
from flyball.episodes.frames import encode_frames

START_NS = 1_700_000_000_000_000_000
FPS = 20


def stamps(n: int, rate: float, start_ns: int = START_NS) -> NDArray[np.int64]:
    """n times at a rate [ns]."""
    return start_ns + np.round(np.arange(n) / rate * 1e9).astype(np.int64)


def picture(i: int, seed: int, size: int = 32) -> NDArray[np.uint8]:
    """Picture i: smooth, so that codecs keep it to 30 dB; its neighbours are 15 dB away. (size, size, 3)."""
    y, x = np.mgrid[0:size, 0:size] / size
    red = np.full_like(x, (i * 61 + seed * 40) % 200 / 200)
    return (np.stack([red, x, 0.5 + 0.5 * np.sin(6.3 * (y + i / 30))], axis=-1) * 255).astype(np.uint8)


def planted_frames(
    store: Store,
    name: str,
    n: int,
    rate: float,
    seed: int,
    encoding: str = "jpeg",
    size: int = 32,
    key_every: int = 10,
) -> Frames:
    """A camera of n pictures; its blob is kept."""
    pictures = (picture(i, seed, size) for i in range(n))
    made = list(encode_frames(pictures, encoding, key_every=key_every, rate=max(1, round(rate))))
    (blob,) = store.keep(b"".join(data for data, _ in made))
    stop = np.cumsum([len(data) for data, _ in made]).astype(np.int64)
    key = np.array([key for _, key in made])
    return Frames(name, encoding, size, size, blob, stamps(n, rate), np.append([0], stop[:-1]), stop, key)


def planted_episode(
    store: Store,
    seed: int,
    *,
    n: int = 30,
    cameras: Sequence[tuple[str, str]] = (),
    embodiment: str = "two-joints",
    unit: str = "rad",
    **facts: Any,
) -> Episode:
    """An episode of n rows at ``FPS``.

    Args:
      store: keeps the pictures.
      seed: draws the values.
      n: samples of the joints; the force has five times as many.
      cameras: (name, encoding) of each.
      embodiment, unit: of the body and of its joints.
      facts: further fields of ``Episode``.
    """
    rng = np.random.default_rng(seed)
    t, fast = stamps(n, FPS), stamps(5 * n, 5 * FPS)

    def signal(name: str, values: NDArray[Any], t: NDArray[np.int64], **spec: Any) -> Timed:
        return Timed(SignalSpec(name, values.shape[1:], values.dtype.name, **spec), t, values)

    signals = [
        signal("joint.position", rng.normal(size=(n, 2)), t, unit=unit, rate_hz=FPS),
        signal("command.joint", rng.normal(size=(n, 2)).astype(np.float32), t, unit=unit, rate_hz=FPS),
        signal("gripper.force", rng.normal(size=5 * n).astype(np.float32), fast, unit="N", rate_hz=5 * FPS),
        signal("gripper.closed", rng.random(n) < 0.5, t),
        signal("tactile.grid", rng.integers(0, 1000, (n, 2, 3)).astype(np.int32), t),
    ]
    frames = [
        planted_frames(store, f"camera.{name}", n, FPS, seed + k, encoding)
        for k, (name, encoding) in enumerate(cameras)
    ]
    known = {"robot": f"r{seed % 3}", "task": "wave-v1", "seed": seed, "outcome": "success", **facts}
    return Episode(embodiment, signals={s.spec.name: s for s in signals}, frames={f.name: f for f in frames}, **known)
