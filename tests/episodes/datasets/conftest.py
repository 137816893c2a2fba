"""A catalogue of small episodes with signals at several rates, two cameras and two instructions."""

from __future__ import annotations

import numpy as np
import pytest

from flyball.base import SignalSpec, Timed
from flyball.base.store import Store
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.episode import Frames
from flyball.episodes.frames import encode_frames

START = 1_700_000_000_000_000_000
FPS = 20


def stamps(n, rate, start=START):
    """n times at a rate [ns]."""
    return start + (np.arange(n, dtype=np.int64) * 10**9 + rate // 2) // rate


def scene(i, seed, size=32):
    """A picture that is smooth, so that codecs keep it, and that tells its number."""
    y, x = np.mgrid[0:size, 0:size] / size
    rgb = np.stack([x * 0 + (i * 61 + seed * 40) % 200 / 200, x, 0.5 + 0.5 * np.sin(6.3 * (y + i / 30))], axis=-1)
    return (rgb * 255).astype(np.uint8)


def make_frames(store, name, n, rate, seed, encoding="jpeg", size=32):
    """A camera of n pictures, its blob in the store."""
    made = list(encode_frames((scene(i, seed, size) for i in range(n)), encoding, key_every=10, rate=rate))
    (blob,) = store.keep(b"".join(data for data, _ in made))
    stop = np.cumsum([len(data) for data, _ in made]).astype(np.int64)
    key = np.array([key for _, key in made])
    return Frames(name, encoding, size, size, blob, stamps(n, rate), np.append([0], stop[:-1]), stop, key)


def make_episode(store, seed, *, n=30, cameras=(), instruction="", body="two-joints", unit="rad", **facts):
    """Joints, command and a flag at FPS, force at five times that, cameras at FPS."""
    rng = np.random.default_rng(seed)
    t, fast = stamps(n, FPS), stamps(5 * n, 5 * FPS)

    def signal(name, values, t, **spec):
        return Timed(SignalSpec(name, values.shape[1:], values.dtype.name, **spec), t, values)

    signals = [
        signal("joint.position", rng.normal(size=(n, 2)), t, unit=unit, rate_hz=FPS),
        signal("command.joint", rng.normal(size=(n, 2)).astype(np.float32), t, unit=unit, rate_hz=FPS),
        signal("gripper.force", rng.normal(size=5 * n).astype(np.float32), fast, unit="N", rate_hz=5 * FPS),
        signal("gripper.closed", rng.random(n) < 0.5, t),
        signal("tactile.grid", rng.integers(0, 1000, (n, 2, 3)).astype(np.int32), t),
    ]
    frames = [
        make_frames(store, f"camera.{name}", n, FPS, seed + k, encoding) for k, (name, encoding) in enumerate(cameras)
    ]
    facts = {"robot": f"r{seed % 3}", "task": "wave-v1", "seed": seed, "outcome": "success", **facts}
    return Episode(
        body,
        instruction=instruction,
        signals={s.spec.name: s for s in signals},
        frames={f.name: f for f in frames},
        **facts,
    )


@pytest.fixture
def catalogue(tmp_path):
    """An empty catalogue."""
    root = tmp_path / "space"
    root.mkdir()
    return Catalogue(Store(root, clock_ns=lambda: START))


@pytest.fixture
def fill(catalogue):
    """``fill(count, **facts)`` adds episodes with seeds 0, 1, ... and returns their digests."""

    def add(count, *, first=0, **facts):
        made = [make_episode(catalogue.store, seed, n=30 + seed, **facts) for seed in range(first, first + count)]
        digests = []
        for e in made:
            for f in e.frames.values():
                catalogue.store.register("frames", f.blob, producer="test")
            digests.append(catalogue.add(e, producer="test").digest)
        return digests

    return add
