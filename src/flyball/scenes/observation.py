"""What befalls an observation between the world and the policy: noise, bias, drift, quantisation, delay, drop-out.

In: true signals per control step, name -> (n, size). Out: what arrives, same names and shapes. It depends on no engine:
the same run seed and world give the same disturbance wherever the truth was computed, in any batch.

In the order in which it happens: the sensor adds a bias, a random walk (drift) and white noise and rounds to its
quantum; the sample travels for the delay, or is lost. Noise belongs to the sample, so a sample that arrives late brings
the noise it was taken with. With ``hold`` a receiver sees the newest sample that has arrived (a delay of 1.5 periods
shows after 2); with ``linear`` it sees the signal as it was one delay ago, interpolated between samples. A lost sample
leaves the last one standing, or NaN. Before the first sample arrives, the first one stands.

Randomness is a function of (run seed, signal, effect, world, step, element), see ``streams``; nothing is consumed in
order. The state that remains is the memory a delay and a drift need: ``reset`` clears it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing
from flyball.scenes import streams
from flyball.scenes.streams import Worlds
from flyball.scenes.targets import EFFECTS, field_of

Array = NDArray[np.float64]
_CHUNK = 4096
"""Random numbers made at a time per world and signal; no effect on their values."""
_MOST_DELAY = 10_000
"""Steps that a delay may span."""


@dataclass(frozen=True)
class Effects:
    """What befalls one signal, per world; zeros: nothing.

    Attributes:
      delay: [s], (n,).
      noise: standard deviation of white noise [unit], (n, size).
      bias: constant error [unit], (n, size).
      walk: standard deviation of a random walk after one second [unit / sqrt(s)], (n, size). It starts at 0.
      dropout: probability that a sample is lost, (n,).
      quantum: step of the reading [unit], 0: continuous, (n, size).
      between: what is seen between samples: the newest that arrived (``hold``), or ``linear`` interpolation.
      lost: what stands for a lost sample: the last one received (``hold``), or ``nan``.
    """

    delay: Array
    noise: Array
    bias: Array
    walk: Array
    dropout: Array
    quantum: Array
    between: Literal["hold", "linear"] = "hold"
    lost: Literal["hold", "nan"] = "hold"

    @classmethod
    def none(cls, n: int, size: int) -> Effects:
        """Nothing befalls it."""
        per_world, per_element = np.zeros(n), np.zeros((n, size))
        return cls(per_world, per_element, per_element, per_element, per_world, per_element)


def effects(
    sizes: Mapping[str, int],
    values: Mapping[str, Array],
    n: int,
    *,
    between: Literal["hold", "linear"] = "hold",
    lost: Literal["hold", "nan"] = "hold",
) -> dict[str, Effects]:
    """Effects per signal from drawn values.

    Args:
      sizes: signal -> number of elements.
      values: ``sensor:SIGNAL.effect``, or ``sensor:SIGNAL.effect[i]`` for one element -> (n,); ``Routed.observation``.
        What names one element overrides what names all.

    Raises:
      Missing: no such signal or effect.
      InputError: an element that the signal does not have, a negative value, a dropout above 1.
    """
    found: dict[str, dict[str, Array]] = {
        name: {e: np.zeros((n, 1 if e in ("delay", "dropout") else size)) for e in EFFECTS}
        for name, size in sizes.items()
    }
    for path, x in sorted(values.items(), key=lambda item: "[" in item[0]):
        field = field_of(path)
        if field is None or field.kind != "sensor":
            raise InputError(f"path {path!r}", where="observation", allowed="sensor:SIGNAL.effect")
        if field.name not in found:
            raise Missing.named("signal", field.name, found, where=path)
        v, into = np.asarray(x, float), found[field.name][field.field]
        if field.index is not None and field.index >= into.shape[1]:
            allowed = f"0 to {into.shape[1] - 1}" if into.shape[1] > 1 else "no index"
            raise InputError(f"element {field.index}", where=path, allowed=allowed)
        most = {"dropout": 1.0}.get(field.field, np.inf)
        bad = ~np.isfinite(v) | (v > most) | ((v < 0) & (field.field != "bias"))
        if bad.any():
            allowed = "finite" if field.field == "bias" else "[0, 1]" if most == 1 else ">= 0"
            raise InputError(f"{field.field} = {v[bad][0]:g} in row {int(np.argmax(bad))}", where=path, allowed=allowed)
        into[:, slice(None) if field.index is None else slice(field.index, field.index + 1)] = v[:, None]
    return {
        name: Effects(
            f["delay"][:, 0], f["noise"], f["bias"], f["walk"], f["dropout"][:, 0], f["quantum"], between, lost
        )
        for name, f in found.items()
    }


class _Source:
    """Random numbers of one effect on one signal by step, kept a chunk at a time."""

    def __init__(self, seed: int, name: str, size: int) -> None:
        self.seed, self.name, self.size = seed, name, size
        self.steps = max(1, min(64, _CHUNK // size))

    def reset(self, worlds: NDArray[np.int64], rows: NDArray[np.int64], n: int) -> None:
        if not hasattr(self, "_worlds"):
            self._worlds, self._at = np.zeros(n, np.int64), np.full(n, -1)
            self._words = np.zeros((n, self.steps * self.size), np.uint64)
        self._worlds[rows], self._at[rows] = worlds, -1

    def words(self, step: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Of every row at its own step, (n, size)."""
        chunk, within = step // self.steps, step % self.steps
        for c in np.unique(chunk[chunk != self._at]):
            rows = np.flatnonzero((chunk == c) & (self._at != c))
            width = self._words.shape[1]
            self._words[rows] = streams.series(self.seed, self.name, self._worlds[rows], int(c) * width, width)
            self._at[rows] = c
        return self._words[np.arange(len(step))[:, None], within[:, None] * self.size + np.arange(self.size)]


class _Channel:
    """One signal's effects with their memory."""

    def __init__(self, name: str, effects: Effects, period_s: float, seed: int) -> None:
        self.effects, self.name = effects, name
        n, size = effects.noise.shape
        lag = np.round(effects.delay / period_s, 9)
        if len(lag) and lag.max() > _MOST_DELAY:
            raise InputError(
                f"delay {effects.delay.max():g} s", where=f"sensor:{name}", allowed=f"{_MOST_DELAY} control periods"
            )
        self.late = np.ceil(lag).astype(np.int64)
        self.share = np.where(effects.between == "linear", self.late - lag, 0.0)[:, None]  # of the sample after
        self.root = float(np.sqrt(period_s))
        self.noisy, self.drifts = bool(effects.noise.any()), bool(effects.walk.any())
        self.rounds, self.loses = bool(effects.quantum.any()), bool(effects.dropout.any())
        depth = int(self.late.max(initial=0)) + 1
        self.memory = np.zeros((n, depth, size))
        self.drift, self.last = np.zeros((n, size)), np.zeros((n, size))
        self.step = np.zeros(n, np.int64)
        self.noise, self.walk = _Source(seed, f"sensor:{name}.noise", size), _Source(seed, f"sensor:{name}.walk", size)
        self.loss = _Source(seed, f"sensor:{name}.dropout", 1)

    def reset(self, worlds: NDArray[np.int64], rows: NDArray[np.int64]) -> None:
        for source in (self.noise, self.walk, self.loss):
            source.reset(worlds, rows, len(self.step))
        self.step[rows], self.drift[rows] = 0, 0.0

    def __call__(self, truth: Array) -> tuple[Array, NDArray[np.bool_]]:
        """What arrives at this step and whether it is fresh, of the truth (n, size); then on to the next step."""
        e, rows, k, depth = self.effects, np.arange(len(truth)), self.step, self.memory.shape[1]
        x = truth + e.bias
        if self.drifts:
            step = e.walk * self.root * streams.normal(self.walk.words(k))
            self.drift = np.where(k[:, None] > 0, self.drift + step, 0.0)
            x = x + self.drift
        if self.noisy:
            x = x + e.noise * streams.normal(self.noise.words(k))
        if self.rounds:
            q = np.where(e.quantum > 0, e.quantum, 1.0)
            x = np.where(e.quantum > 0, np.rint(x / q) * q, x)
        self.memory[rows, k % depth] = x
        at = np.maximum(k - self.late, 0)
        seen = self.memory[rows, at % depth]
        if self.share.any():
            after = self.memory[rows, np.minimum(at + 1, k) % depth]
            waiting = (k < self.late)[:, None]
            seen = np.where(waiting, seen, (1 - self.share) * seen + self.share * after)
        fresh = np.ones(len(truth), bool)
        if self.loses:
            fresh = (at == 0) | ~(streams.uniform(self.loss.words(at))[:, 0] < e.dropout)
            kept = self.last if e.lost == "hold" else np.full_like(seen, np.nan)
            seen = np.where(fresh[:, None], seen, kept)
        self.last = seen
        self.step = k + 1
        return seen, fresh


class Observer:
    """What arrives of n worlds' signals, step by step.

    Args:
      effects: signal -> what befalls it; signals left out pass unchanged.
      period_s: control period [s].
      run_seed: of the run.
      worlds: world numbers of the rows, (n,).
    """

    def __init__(self, effects: Mapping[str, Effects], period_s: float, run_seed: int, worlds: Worlds) -> None:
        if not period_s > 0:
            raise InputError(f"control period {period_s} s", where="observer", allowed="> 0")
        self.worlds = streams.world_numbers(worlds)
        for name, e in effects.items():
            if len(e.delay) != len(self.worlds):
                raise InputError(
                    f"effects of {len(e.delay)} worlds", where=f"sensor:{name}", allowed=str(len(self.worlds))
                )
        self._channels = {name: _Channel(name, e, period_s, run_seed) for name, e in effects.items()}
        self.fresh: dict[str, NDArray[np.bool_]] = {}
        self.reset()

    def reset(self, rows: NDArray[np.int64] | None = None, worlds: Worlds | None = None) -> None:
        """Forget; some rows only, when given, which then stand for other worlds, when given."""
        at = np.arange(len(self.worlds)) if rows is None else np.asarray(rows)
        if worlds is not None:
            self.worlds[at] = streams.world_numbers(worlds)
        for channel in self._channels.values():
            channel.reset(self.worlds[at], at)

    def __call__(self, truth: Mapping[str, Array]) -> dict[str, Array]:
        """What arrives at this step; ``fresh`` then says of each signal whether its newest sample did, (n,).

        Args:
          truth: signal -> (n, size).
        """
        out = {}
        for name, x in truth.items():
            if name in self._channels:
                out[name], self.fresh[name] = self._channels[name](np.asarray(x, float))
            else:
                out[name], self.fresh[name] = x, np.ones(len(x), bool)
        return out


def observe(
    truth: Mapping[str, Array], effects: Mapping[str, Effects], period_s: float, run_seed: int, worlds: Worlds
) -> dict[str, Array]:
    """What arrives of whole attempts: signal -> (n, T, size), the same bits as step by step.

    Args:
      truth: signal -> (n, T, size).
    """
    observer = Observer(effects, period_s, run_seed, worlds)
    steps = max((x.shape[1] for x in truth.values()), default=0)
    seen = [observer({name: x[:, k] for name, x in truth.items()}) for k in range(steps)]
    return {name: np.stack([s[name] for s in seen], axis=1) if steps else x for name, x in truth.items()}
