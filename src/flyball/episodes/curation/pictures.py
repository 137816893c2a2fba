"""Checks on pictures: black, frozen, or showing another moment than their stamps say.

In: glances at a camera's pictures beside the measured signals. Out: findings. Whether a picture should change is taken
from the signals: a camera that looks at nothing that moves is no defect while nothing moves.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flyball.episodes.curation.check import Finding, Findings, Parameter, Pictures, check
from flyball.episodes.curation.glance import Glance
from flyball.episodes.curation.motion import activity, noise, numbers, period_ns, runs, spread, states
from flyball.episodes.episode import Episode


@check(
    "black",
    1,
    "fewer than {fewest:g} pictures of a camera are darker than {level:g} of 255 or show nothing (blocks that differ "
    "by less than {contrast:g})",
    fewest=Parameter(3, "a camera that has just started may give a dark picture or two"),
    level=Parameter(8.0, "black in video is 0 after conversion; sensor noise adds a few"),
    contrast=Parameter(0.7, "a covered lens or a lost link gives one colour; a wall still has a gradient"),
)
def black(episode: Episode, pictures: Pictures, *, fewest: float, level: float, contrast: float) -> Findings:
    """Pictures that show nothing."""
    found = []
    for name, f in episode.frames.items():
        seen = pictures(name)
        flat = seen.blocks.reshape(len(seen.blocks), -1)
        if flat.shape[1] < 2:
            continue
        dark, blank = flat.max(axis=1) < 4 * level, flat.std(axis=1) < contrast
        dark &= flat.mean(axis=1) < level
        bad = dark | blank
        if bad.sum() >= fewest:
            word = "black" if dark.sum() >= blank.sum() - dark.sum() else "blank"
            text = f"{bad.sum()} of {len(bad)} pictures are {word}"
            found.append(Finding(text, name, float(bad.sum()) / fewest, int(f.t_ns[int(np.argmax(bad))])))
    return found


def _moves_at(episode: Episode, t_ns: NDArray[np.int64]) -> NDArray[np.bool_] | None:
    """Whether a measured signal moves at each of these times; None without signals."""
    seen = activity(episode, 0.5)
    if seen is None or len(seen[0]) < 2:
        return None
    t, busy = seen
    inside = (t_ns >= t[0]) & (t_ns <= t[-1])
    return np.asarray(inside & busy[np.clip(np.searchsorted(t, t_ns), 0, len(t) - 1)])


@check(
    "frozen",
    1,
    "while a measured signal moves, a camera's pictures do not stay the same (mean change of a pixel below {same:g} of "
    "255) for {longest_s:g} s and 4 pictures on end, nor in more than {share:.0%} of the pictures",
    same=Parameter(
        0.05, "noise of any real sensor changes more; a repeated picture through a video codec changes less"
    ),
    longest_s=Parameter(0.4, "a hiccup of a camera lasts a few pictures and shows as a gap instead"),
    share=Parameter(0.25, "single repeats come from converting one frame rate to another"),
)
def frozen(episode: Episode, pictures: Pictures, *, same: float, longest_s: float, share: float) -> Findings:
    """Pictures that repeat although something moves."""
    found, applies = [], False
    for name, f in episode.frames.items():
        t = np.asarray(f.t_ns)
        moves = _moves_at(episode, t)
        if moves is None or len(t) < 8 or moves.sum() < 4:
            continue
        applies = True
        repeats = (pictures(name).change < same) & moves
        longest = max(runs(repeats), key=lambda r: int(t[r[1] - 1] - t[max(r[0] - 1, 0)]), default=(0, 0))
        held = float(t[longest[1] - 1] - t[max(longest[0] - 1, 0)]) * 1e-9 if longest[1] else 0.0
        if held >= longest_s and longest[1] - longest[0] >= 4:
            text = f"the same picture for {held:.2g} s while signals move"
            found.append(Finding(text, name, held / longest_s, int(t[longest[0]])))
        elif repeats.sum() >= 4 and repeats.sum() > share * moves.sum():
            text = f"{repeats.sum()} of {moves.sum()} pictures taken while signals move repeat the one before"
            found.append(Finding(text, name, float(repeats.sum() / moves.sum() / share), int(t[np.argmax(repeats)])))
    return found if applies else None


@check(
    "sync",
    1,
    "the change between pictures follows the speed of the measured signals with a lag of less than {lag_s:g} s, where "
    "the two are alike at all (correlation of {alike:g}, and {better:g} better than without the lag)",
    lag_s=Parameter(0.2, "exposure, transport and compression delay a picture by up to 0.15 s"),
    alike=Parameter(0.6, "below that the pictures show something else, and no lag can be told"),
    better=Parameter(0.15, "periodic movements look alike at several lags"),
    most_s=Parameter(1.5, "how far is searched"),
)
def sync(episode: Episode, pictures: Pictures, *, lag_s: float, alike: float, better: float, most_s: float) -> Findings:
    """Whether pictures show what the signals say at that time: over the whole episode, and in each half of it."""
    found, applies = [], False
    for name, f in episode.frames.items():
        t = np.asarray(f.t_ns)
        period = period_ns(t)
        if len(t) < 24 or not np.isfinite(period):
            continue
        lags = np.arange(-round(most_s * 1e9 / period), round(most_s * 1e9 / period) + 1)
        middle = int(len(t) // 2)
        shown = _shown(pictures(name))
        parts = [(slice(0, len(t)), "")]
        if len(t) >= 4 * len(lags):
            parts += [(slice(0, middle), " in the first half"), (slice(middle, len(t)), " in the second half")]
        for part, where in parts:
            like = _alikeness(episode, t[part], shown[part], period, lags)
            if like is None or np.nanmax(like) < alike:
                continue
            applies = True
            best = int(lags[int(np.nanargmax(like))])
            zero = like[np.abs(lags) * period <= 0.5 * lag_s * 1e9]
            off = best * period * 1e-9
            if abs(off) > lag_s and np.nanmax(like) - np.nanmax(zero) > better:
                text = f"shows what the signals say {abs(off):.2g} s {'earlier' if off > 0 else 'later'}{where}"
                found.append(Finding(text, name, abs(off) / lag_s, int(t[part][0])))
                break
    return found if applies else None


def _shown(seen: Glance) -> NDArray[np.float64]:
    """How much each picture changed from the one before, without the share of noise, (n,)."""
    step = np.abs(np.diff(seen.blocks, axis=0)).mean(axis=(1, 2)).astype(float)
    return np.concatenate([[np.nan], step])


def _alikeness(
    episode: Episode, t: NDArray[np.int64], shown: NDArray[np.float64], period: float, lags: NDArray[np.int64]
) -> NDArray[np.float64] | None:
    """Correlation of change in pictures with speed of signals that many pictures earlier, per lag."""
    mid = t.astype(float) - period / 2
    fast = np.zeros(len(t))
    for s in states(episode).values():
        x = np.nan_to_num(numbers(s))
        width = spread(x)
        use = width > 8 * noise(x)
        if not use.any() or "/s" in s.spec.unit:
            continue
        stamps = s.t_ns.astype(float)
        at = np.stack(
            [np.interp(mid + d, stamps, x[:, j]) for j in np.flatnonzero(use) for d in (-period / 2, period / 2)]
        )
        speed = np.abs(at[1::2] - at[::2]) / width[use, None]
        fast += speed.mean(axis=0)
    if not fast.any():
        return None
    a, b = np.sqrt(np.nan_to_num(shown)), np.sqrt(fast)
    out = np.full(len(lags), np.nan)
    for i, k in enumerate(lags):
        x, y = (a[k:], b[: len(b) - k]) if k >= 0 else (a[:k], b[-k:])
        x, y = x[1:], y[1:]
        if len(x) >= 16 and x.std() > 0 and y.std() > 0:
            out[i] = float(np.corrcoef(x, y)[0, 1])
    return out if np.isfinite(out).any() else None
