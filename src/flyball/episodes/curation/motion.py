"""Motion as sampled signals show it: which are commands, how noisy they are, what stands still, what follows what.

In: recorded signals. Out: arrays and pairs that checks reason with. Every scale is taken from the data (noise, steps
of an encoder, range of movement), so that no rule depends on a unit.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from flyball.base import Timed
from flyball.episodes.episode import Episode

Array = NDArray[np.float64]

COMMAND_WORDS = {"command", "commands", "cmd", "cmds", "action", "actions", "target", "desired", "setpoint", "goal"}
RATES = {"velocity", "vel", "speed", "twist", "acceleration", "accel", "effort_rate"}
SUPPLIES = {"temperature", "voltage", "current", "battery", "power"}
"""Words of signals that change without anything moving."""
MOST_TIMES = 100_000
"""Points of a time axis: clocks that are off may make an episode years long."""


def words(name: str) -> set[str]:
    """The words of a signal's name."""
    return {w for w in re.split(r"[^a-z0-9]+", name.lower()) if w}


def is_command(name: str) -> bool:
    """Whether a signal is something that was sent, by its name."""
    return bool(words(name) & COMMAND_WORDS)


def is_rate(name: str, s: Timed) -> bool:
    """Whether a signal says how fast something changes, by its unit or name."""
    return "/s" in s.spec.unit or bool(words(name) & RATES)


def numbers(signal: Timed) -> Array:
    """Samples as (n, elements) float64; what is not finite takes the value before it, 0 at the beginning."""
    x = np.asarray(signal.values).reshape(len(signal.t_ns), signal.spec.size).astype(float)
    bad = ~np.isfinite(x)
    if bad.any():
        last = np.maximum.accumulate(np.where(bad, 0, np.arange(len(x))[:, None]), axis=0)
        x = np.nan_to_num(np.take_along_axis(x, last, axis=0), posinf=0.0, neginf=0.0)
    return x


def continuous(episode: Episode) -> dict[str, Timed]:
    """Signals that can be reasoned about as movement: floating point, at least 8 samples, stamps that run forward.

    One with more than a tenth of its numbers not finite is left to the check on that.
    """
    return {name: s for name, s in episode.signals.items() if _is_continuous(s)}


def _is_continuous(s: Timed) -> bool:
    x, t = np.asarray(s.values), np.asarray(s.t_ns)
    if x.dtype.kind != "f" or len(t) < 8 or not s.spec.size or t[-1] <= t[0] or (t[1:] < t[:-1]).any():
        return False
    return bool(np.isfinite(x).mean() > 0.9)


def states(episode: Episode) -> dict[str, Timed]:
    """The continuous signals that were measured."""
    return {name: s for name, s in continuous(episode).items() if not is_command(name)}


def commands(episode: Episode) -> dict[str, Timed]:
    """The continuous signals that were sent."""
    return {name: s for name, s in continuous(episode).items() if is_command(name)}


def period_ns(t_ns: NDArray[np.int64]) -> float:
    """Median time between stamps that differ [ns]; nan with fewer than two."""
    steps = np.diff(t_ns)
    steps = steps[steps > 0]
    return float(np.median(steps)) if len(steps) else np.nan


def noise(x: Array) -> Array:
    """Standard deviation of what changes from sample to sample without direction, per element, (n, e) -> (e,).

    From the median absolute second difference (for white noise of unit variance its scale is sqrt 6), and no less than
    half the smallest step that occurs: an encoder's resolution.
    """
    if len(x) < 3:
        return np.zeros(x.shape[1])
    second = np.abs(np.diff(x, 2, axis=0))
    white = np.median(second, axis=0) / (0.6745 * np.sqrt(6.0))
    step = np.abs(np.diff(x, axis=0))
    smallest = np.where(step > 0, step, np.inf).min(axis=0)
    smallest = np.where(np.isfinite(smallest) & (smallest > 1e-9 * np.abs(x).max(axis=0)), smallest, 0.0)
    return np.maximum(white, smallest / 2)


def spread(x: Array) -> Array:
    """Range without the most extreme percent on either side, (n, e) -> (e,)."""
    if not len(x):
        return np.zeros(x.shape[1])
    low, high = np.percentile(x, [1, 99], axis=0)
    return high - low


def at(t_ns: NDArray[np.int64], x: Array, when: Array) -> Array:
    """Samples interpolated linearly to other times [ns], (n, e) -> (len(when), e); held beyond the ends."""
    t = t_ns.astype(float)
    return np.stack([np.interp(when, t, x[:, j]) for j in range(x.shape[1])], axis=1)


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Stretches of True as (start, stop)."""
    edge = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edge[::2].tolist(), edge[1::2].tolist(), strict=True))


def moving(x: Array, window: int, share: float = 0.02) -> NDArray[np.bool_]:
    """Whether each element moves around each sample, (n, e) -> (n, e).

    Its smoothed value must travel further within ``window`` samples than noise explains, and further than ``share`` of
    the element's whole range.
    """
    window = max(4, min(window, len(x)))
    block = window // 4
    total = np.cumsum(np.concatenate([np.zeros((1, x.shape[1])), x]), axis=0)
    smooth = (total[block:] - total[:-block]) / block
    before = (window - 1) // 2
    padded = np.pad(smooth, ((before, window - 1 - before + block - 1), (0, 0)), mode="edge")
    views = sliding_window_view(padded, window, axis=0)[: len(x)]
    limit = np.maximum(6.0 * noise(x) / np.sqrt(block), share * spread(x))
    return np.asarray(views.max(-1) - views.min(-1) > limit)


def places(episode: Episode) -> dict[str, Timed]:
    """The measured signals that say where something is, how fast, or how hard it is pressed."""
    return {n: s for n, s in states(episode).items() if not words(n) & SUPPLIES}


def activity(episode: Episode, window_s: float) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | None:
    """Times [ns], (n,), and whether any state moves around each, (n,); None without states.

    Temperatures and voltages wander without anything moving, and do not count.
    """
    found = places(episode)
    if not found:
        return None
    begin = min(int(s.t_ns[0]) for s in found.values())
    end = max(int(s.t_ns[-1]) for s in found.values())
    grid = np.arange(begin, end + 1, max(round(window_s * 1e9 / 8), (end - begin) // MOST_TIMES))
    busy = np.zeros(len(grid), bool)
    for s in found.values():
        window = round(window_s * 1e9 / period_ns(s.t_ns))
        any_moves = np.asarray(moving(numbers(s), window).any(axis=1))
        busy |= any_moves[np.clip(np.searchsorted(s.t_ns, grid), 0, len(any_moves) - 1)]
    return grid, busy


def whole_grid(signals: Iterable[Timed], hz: float) -> Array:
    """Times [ns] at a rate over the stretch in which all signals are there; empty when there is none."""
    spans = [(float(s.t_ns[0]), float(s.t_ns[-1])) for s in signals]
    begin, end = max(a for a, _ in spans), min(b for _, b in spans)
    return np.arange(begin, end + 1, max(1e9 / hz, (end - begin) / MOST_TIMES)) if end > begin else np.zeros(0)


@dataclass(frozen=True)
class Pair:
    """An element of a command and the element of a state that follows it.

    Attributes:
      command, state: names of the signals.
      element: index into both.
      unit: of both.
      t: times [s], (n,), from the first.
      sent, measured: values, (n,).
    """

    command: str
    state: str
    element: int
    unit: str
    t: Array
    sent: Array
    measured: Array


def pairs(episode: Episode) -> list[Pair]:
    """Which state follows which command: same size and unit, most words in common, then closest values."""
    found = []
    for name, sent in commands(episode).items():
        candidates = []
        for other, measured in states(episode).items():
            if sent.spec.shape == measured.spec.shape and sent.spec.unit == measured.spec.unit:
                common = len((words(name) & words(other)) - COMMAND_WORDS)
                x, y = numbers(sent), numbers(measured)
                far = float(np.median(np.abs(at(measured.t_ns, y, sent.t_ns.astype(float)) - x)))
                candidates.append((-common, far, other))
        if not candidates:
            continue
        other = min(candidates)[2]
        measured = episode.signals[other]
        hz = 1e9 / max(period_ns(sent.t_ns), period_ns(measured.t_ns))
        grid = whole_grid([sent, measured], hz)
        if len(grid) < 16:
            continue
        x, y = at(sent.t_ns, numbers(sent), grid), at(measured.t_ns, numbers(measured), grid)
        units = sent.spec.unit.split()
        for j in range(x.shape[1]):
            unit = units[j] if len(units) == x.shape[1] else " ".join(units)
            found.append(Pair(name, other, j, unit, (grid - grid[0]) * 1e-9, x[:, j], y[:, j]))
    return found


def lag_s(pair: Pair, most_s: float) -> float:
    """By how much the measured value follows the command [s], 0 to ``most_s``: where what remains varies least."""
    dt = float(pair.t[1] - pair.t[0])
    most = min(round(most_s / dt), len(pair.t) // 3)
    left = [float(np.std(pair.measured[k:] - pair.sent[: len(pair.sent) - k])) for k in range(most + 1)]
    return int(np.argmin(left)) * dt
