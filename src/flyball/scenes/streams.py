"""Counter-based random streams: world i of run S is the same on any engine, thread count, machine and batch split.

In: a run's seed, the name of what is drawn, world numbers. Out: random words that are a pure function of these three.

A sequential generator hands its numbers out in the order of asking: drawing worlds in two halves, in another order or
with one more parameter changes every later number, and a resumed or distributed run draws different worlds. A
counter-based generator (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) has no order: word =
f(key, counter). Here the key is a digest of (seed, name) and the counter holds the world's number, so that a draw
depends on nothing else. The function is Philox4x64-10, as in ``numpy.random.Philox``; numpy's own is used where the
counters follow each other, and the same function in array form where they do not.

Words become numbers through ``portable``, because numpy's exp and log differ in the last bit between processors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError
from flyball.scenes.portable import Array, normal_quantile

Words: TypeAlias = NDArray[np.uint64]
Worlds: TypeAlias = range | Sequence[int] | NDArray[np.integer]
"""World numbers, each in [0, 2^62)."""

_VERSION = "flyball.scenes.streams/1"  # part of every key: another mapping of counters is another version
_MULTIPLIERS = (np.uint64(0xD2E7470EE14C6C93), np.uint64(0xCA5A826395121157))
_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
_MASK = (1 << 64) - 1
_LOW32, _32 = np.uint64(0xFFFFFFFF), np.uint64(32)


def key_of(seed: int, name: str) -> tuple[int, int]:
    """The 128-bit key of a named stream of a run.

    Raises:
      InputError: a seed that is no integer >= 0.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed {seed!r}", where="random stream", allowed="an integer >= 0")
    digest = hashlib.sha256(f"{_VERSION}\n{int(seed)}\n{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:16], "little")


def world_numbers(worlds: Worlds) -> NDArray[np.int64]:
    """World numbers as an array, (n,).

    Raises:
      InputError: not one-dimensional, not integers, or negative.
    """
    if isinstance(worlds, range):
        out = np.arange(worlds.start, worlds.stop, worlds.step, dtype=np.int64)
    else:
        given = np.asarray(worlds)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise InputError(
                f"world numbers of shape {given.shape} and type {given.dtype}",
                where="random stream",
                allowed="integers, (n,)",
            )
        out = given.astype(np.int64)
    if len(out) and (out.min() < 0 or out.max() >= 1 << 62):
        raise InputError(
            f"world number {out.min() if out.min() < 0 else out.max()}", where="random stream", allowed="[0, 2^62)"
        )
    return out


def _high(a: Words, b: np.uint64) -> Words:
    """Upper 64 bits of the 128-bit product."""
    a0, a1, b0, b1 = a & _LOW32, a >> _32, b & _LOW32, b >> _32
    middle = a1 * b0 + ((a0 * b0) >> _32)
    return a1 * b1 + (middle >> _32) + ((a0 * b1 + (middle & _LOW32)) >> _32)


def philox(key: tuple[int, int], counter: Words) -> Words:
    """Philox4x64-10 of every counter.

    Args:
      key: 128 bits.
      counter: 256 bits each, least significant word first, (n, 4).

    Returns:
      (n, 4) words.
    """
    c0, c1, c2, c3 = (counter[:, i].copy() for i in range(4))
    k0, k1 = key
    for _ in range(10):
        h0, l0 = _high(c0, _MULTIPLIERS[0]), c0 * _MULTIPLIERS[0]
        h1, l1 = _high(c2, _MULTIPLIERS[1]), c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = h1 ^ c1 ^ np.uint64(k0), l1, h0 ^ c3 ^ np.uint64(k1), l0
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return np.stack([c0, c1, c2, c3], axis=1)


def _run(generator: np.random.Philox, key: tuple[int, int], counter: Sequence[int], blocks: int) -> Words:
    """Words of ``blocks`` counters that follow each other, from ``counter`` on."""
    before = (sum(c << (64 * i) for i, c in enumerate(counter)) - 1) % (1 << 256)  # numpy counts up first
    generator.state = {
        "bit_generator": "Philox",
        "state": {
            "counter": np.array([(before >> (64 * i)) & _MASK for i in range(4)], np.uint64),
            "key": np.array(key, np.uint64),
        },
        "buffer": np.zeros(4, np.uint64),
        "buffer_pos": 4,
        "has_uint32": 0,
        "uinteger": 0,
    }
    return generator.random_raw(4 * blocks)


def words(seed: int, name: str, worlds: Worlds, lane: int = 0) -> Words:
    """One random word per world, (n,).

    World i is word i mod 4 of the block with counter (i div 4, lane, 0, 0).

    Args:
      lane: tells several words of one name and world apart.
    """
    i, key = world_numbers(worlds), key_of(seed, name)
    if not len(i):
        return np.zeros(0, np.uint64)
    first = int(i[0])
    if np.array_equal(i, np.arange(first, first + len(i))):
        blocks = (int(i[-1]) >> 2) - (first >> 2) + 1
        return _run(np.random.Philox(0), key, (first >> 2, lane, 0, 0), blocks)[first & 3 :][: len(i)]
    counter = np.zeros((len(i), 4), np.uint64)
    counter[:, 0], counter[:, 1] = i >> 2, lane
    return philox(key, counter)[np.arange(len(i)), i & 3]


def series(seed: int, name: str, worlds: Worlds, start: int, count: int) -> Words:
    """Words start, start + 1, ... of each world's own sequence, (n, count): for what goes on in time.

    Word k of world i is word k mod 4 of the block with counter (k div 4, i, 0, 1).
    """
    i, key = world_numbers(worlds), key_of(seed, name)
    blocks = ((start + count - 1) >> 2) - (start >> 2) + 1 if count else 0
    out = np.empty((len(i), 4 * blocks), np.uint64)
    generator = np.random.Philox(0)
    for row, world in enumerate(i.tolist()):
        out[row] = _run(generator, key, (start >> 2, world, 0, 1), blocks)
    return out[:, start & 3 :][:, :count]


def uniform(w: Words) -> Array:
    """Words as numbers strictly between 0 and 1: the middles of 2^52 equal cells, so that no quantile is infinite."""
    return ((w >> np.uint64(12)).astype(float) + 0.5) * 2.0**-52


def normal(w: Words) -> Array:
    """Words as standard normal numbers."""
    return normal_quantile(uniform(w))
