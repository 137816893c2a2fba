"""Checks on pictures: black, frozen, or showing another moment than their stamps say.

In: glances at a camera's pictures beside the measured signals. Out: findings. Whether a picture should change is taken
from the signals: a camera that looks at nothing that moves is no defect while nothing moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.episodes.curation.check import Finding, Findings, Parameter, Pictures, Seen, check
from flyball.episodes.curation.motion import activity, is_rate, noise, numbers, period_ns, runs, spread, states
from flyball.episodes.episode import Episode

MOST_LAG_S = 1.5
"""How far a lag between pictures and signals is searched for [s]."""


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
        if len(seen.blocks) < fewest or seen.blocks[0].size < 2:
            continue
        flat = seen.blocks.reshape(len(seen.blocks), -1).astype(float)
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
    share=Parameter(0.2, "single repeats come from converting one frame rate to another"),
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


@dataclass(frozen=True)
class _Likeness:
    period_s: float
    t_ns: tuple[int, ...]
    """Where each part of the episode begins: the whole, and its halves where it is long enough."""
    lags: NDArray[np.int64]
    by_signal: dict[str, NDArray[np.float64]]
    """Correlation per part and lag, (parts, lags)."""


def _judge_sync(seen: list[Seen], *, lag_s: float, alike: float, better: float) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {}
    for camera in sorted({c for s in seen for c in s.kept}):
        rows = [(s.digest, s.kept[camera]) for s in seen if camera in s.kept]
        # What a camera looks at is what its pictures follow at once in most episodes, if there is such a signal.
        names = {n for _, r in rows for n in r.by_signal}
        near = {n: [_near(r, lag_s, n).max() for _, r in rows if n in r.by_signal] for n in names}
        typical = {n: float(np.median(v)) for n, v in near.items() if len(v) >= 0.8 * len(rows)}
        best = max(sorted(typical), key=lambda n: typical[n], default="")
        if not best or typical[best] < alike:
            continue
        for digest, r in rows:
            out = found.setdefault(digest, [])
            for part, begin in enumerate(r.t_ns if best in r.by_signal else ()):
                like = r.by_signal[best][part]
                i = int(np.argmax(like))
                off = float(r.lags[i]) * r.period_s
                # A peak at the edge of what was searched, or hardly above the rest, is no peak.
                inside = 0 < i < len(like) - 1
                if inside and abs(off) > lag_s and like[i] > alike and like[i] - _near(r, lag_s, best)[part] > better:
                    where = ("", " in the first half", " in the second half")[part]
                    text = f"shows what {best} says {abs(off):.2g} s {'earlier' if off > 0 else 'later'}{where}"
                    out.append(Finding(text, camera, abs(off) / lag_s, begin))
                    break
    return found


def _near(r: _Likeness, lag_s: float, signal: str) -> NDArray[np.float64]:
    """Best correlation within half the allowed lag, per part."""
    near = np.abs(r.lags) * r.period_s <= max(0.5 * lag_s, r.period_s)
    return np.asarray(r.by_signal[signal][:, near].max(axis=1))


@check(
    "sync",
    1,
    "the change between a camera's pictures follows the speed of the signal it resembles most in this group (if there "
    "is one: correlation of {alike:g} in half of the episodes) with a lag of less than {lag_s:g} s; a larger one must "
    "fit better by {better:g}",
    judge=_judge_sync,
    lag_s=Parameter(0.2, "exposure, transport and compression delay a picture by up to 0.15 s"),
    alike=Parameter(0.5, "below that the pictures show something else, and no lag can be told"),
    better=Parameter(0.15, "periodic movements look alike at several lags"),
)
def sync(episode: Episode, pictures: Pictures) -> dict[str, _Likeness] | None:
    """Whether pictures show what the signals say at that time: over the whole episode, and in each half of it."""
    kept = {}
    for name, f in episode.frames.items():
        t = np.asarray(f.t_ns)
        period = period_ns(t)
        if len(t) < 24 or not np.isfinite(period):
            continue
        most = round(min(MOST_LAG_S * 1e9, float(t[-1] - t[0]) / 4) / period)
        lags = np.arange(-most, most + 1)
        parts = [slice(0, len(t))]
        if len(t) >= 12 * len(lags):
            parts += [slice(0, len(t) // 2), slice(len(t) // 2, len(t))]
        step = np.abs(np.diff(pictures(name).blocks.astype(np.float32), axis=0)).mean(axis=(1, 2)).astype(float)
        shown = np.sqrt(np.nan_to_num(np.concatenate([step[:1], step])))
        by_signal = {}
        for signal, fast in _speeds(episode, t, period).items():
            by_signal[signal] = np.stack([_correlation(shown[p], fast[p], lags) for p in parts])
        if by_signal:
            kept[name] = _Likeness(period * 1e-9, tuple(int(t[p][0]) for p in parts), lags, by_signal)
    return kept or None


def _speeds(episode: Episode, t: NDArray[np.int64], period: float) -> dict[str, NDArray[np.float64]]:
    """Root of the speed of each measured signal, as a share of its range, around the middle between two pictures."""
    out = {}
    for name, s in states(episode).items():
        x = numbers(s)
        width = spread(x)
        use = np.flatnonzero(width > 8 * noise(x))
        if not len(use) or is_rate(name, s):
            continue
        stamps = s.t_ns.astype(float)
        ends = [[np.interp(t - period / 2 + d, stamps, x[:, j]) for j in use] for d in (-period, period)]
        fast = (np.abs(np.array(ends[1]) - np.array(ends[0])) / width[use, None]).mean(axis=0)
        if fast.std() > 0:
            out[name] = np.sqrt(fast)
    return out


def _correlation(a: NDArray[np.float64], b: NDArray[np.float64], lags: NDArray[np.int64]) -> NDArray[np.float64]:
    """Correlation of a with b that many samples earlier, 0 where one of them is constant."""
    out = np.zeros(len(lags))
    for i, k in enumerate(lags):
        x, y = (a[k:], b[: len(b) - k]) if k >= 0 else (a[:k], b[-k:])
        if len(x) >= 16 and x.std() > 0 and y.std() > 0:
            out[i] = float(np.corrcoef(x, y)[0, 1])
    return out
