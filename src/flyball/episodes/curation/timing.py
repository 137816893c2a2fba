"""Checks on time: stamps that run backwards or on another clock, gaps, repetitions, cameras that drift.

In: an episode's time stamps. Out: findings. Nothing is repaired here; ingest repairs and says so.
"""

from __future__ import annotations

import numpy as np

from flyball.episodes.curation.check import Finding, Findings, Parameter, check
from flyball.episodes.curation.motion import numbers, period_ns, states
from flyball.episodes.episode import Episode


@check(
    "time",
    1,
    "stamps never decrease, none lies more than {years:g} years from the others, signals overlap for at least "
    "{overlap:.0%} of the shorter one and none begins and ends more than {shift_s:g} s after, or before, the rest, and "
    "no silence makes up more than {silence:.0%} of the episode",
    years=Parameter(0.1, "a clock that was set in the middle jumps by years; no attempt lasts a month"),
    overlap=Parameter(0.5, "signals of one attempt are recorded together; another clock moves one of them away"),
    shift_s=Parameter(0.3, "topics start late one by one, but a recording ends for all of them at once"),
    silence=Parameter(0.5, "longer than any drop worth calling one: a jump of the clock, or two episodes in one"),
)
def time(episode: Episode, *, years: float, overlap: float, shift_s: float, silence: float) -> Findings:
    """Time stamps of signals and cameras, each and among each other."""
    stamps = {**{n: s.t_ns for n, s in episode.signals.items()}, **{n: f.t_ns for n, f in episode.frames.items()}}
    stamps = {n: np.asarray(t) for n, t in stamps.items() if len(t) >= 2}
    if not stamps:
        return None
    found = []
    limit = years * 365.25 * 86400e9
    middle = float(np.median([np.median(t) for t in stamps.values()]))
    for name, t in stamps.items():
        steps = np.diff(t)
        if (steps < 0).any():
            i = int(np.argmin(steps))
            text = f"{(steps < 0).sum()} stamps run backwards, the worst by {-steps[i] * 1e-9:.6g} s"
            found.append(Finding(text, name, float((steps < 0).sum()), int(t[i])))
        far = np.abs(t - middle) > limit
        if far.any():
            text = f"{far.sum()} of {len(t)} stamps lie {np.abs(t[far] - middle).max() / 31557600e9:.3g} years away"
            found.append(Finding(text, name, float(np.abs(t[far] - middle).max() / limit), int(t[np.argmax(far)])))
            continue
        gap, i = int(steps.max()), int(np.argmax(steps))
        if len(t) >= 8 and gap > silence * (t.max() - t.min()):
            text = f"nothing for {gap * 1e-9:.3g} s of {(t.max() - t.min()) * 1e-9:.3g} s"
            found.append(Finding(text, name, gap / (silence * (t.max() - t.min())), int(t[i])))
    if len(stamps) >= 2 and not found:
        begin = {n: int(t.min()) for n, t in stamps.items()}
        end = {n: int(t.max()) for n, t in stamps.items()}
        # The reference is where most signals are: medians, so that one signal off does not move it.
        a, b = float(np.median(list(begin.values()))), float(np.median(list(end.values())))
        for name in stamps:
            common = min(b, end[name]) - max(a, begin[name])
            shorter = min(b - a, end[name] - begin[name])
            if shorter > 0 and common < overlap * shorter:
                text = f"overlaps the other signals for {max(common, 0) * 1e-9:.3g} of {shorter * 1e-9:.3g} s"
                found.append(Finding(text, name, 2.0 - common / (overlap * shorter), begin[name]))
                continue
            first, last = (begin[name] - a) * 1e-9, (end[name] - b) * 1e-9
            both = min(abs(first), abs(last)) if first * last > 0 else 0.0
            if both > shift_s + 2e-9 * period_ns(stamps[name]):
                text = f"begins and ends {both:.3g} s {'after' if first > 0 else 'before'} the other signals"
                found.append(Finding(text, name, both / shift_s, begin[name]))
    return found


@check(
    "drops",
    1,
    "no gap longer than {gap:g} usual periods and {least_s:g} s, and less than {missing:.1%} of the samples missing",
    gap=Parameter(4.0, "a loaded scheduler delays a sample by up to two periods; more means samples were lost"),
    least_s=Parameter(0.02, "shorter gaps than this matter to no policy or plot, whatever the rate"),
    missing=Parameter(0.03, "what single losses add up to; an interpolating loader hides fewer than that"),
)
def drops(episode: Episode, *, gap: float, least_s: float, missing: float) -> Findings:
    """Gaps against the nominal rate where there is one that fits, else against the median period."""
    streams = [(n, s.t_ns, s.spec.rate_hz) for n, s in episode.signals.items()]
    streams += [(n, f.t_ns, 0.0) for n, f in episode.frames.items()]
    found, applies = [], False
    for name, stamps, rate_hz in streams:
        t = np.asarray(stamps)
        period = period_ns(t)
        if len(t) < 16 or not np.isfinite(period):
            continue
        steps = np.diff(t).astype(float)
        if (steps[steps > 0] < 0.2 * period).mean() > 0.2 or np.percentile(steps, 75) > 3 * period:
            continue  # irregular by nature: events, bursts
        applies = True
        nominal = 1e9 / rate_hz if rate_hz > 0 else np.nan
        usual = nominal if 0.5 * period < nominal < 1.5 * period else period
        i = int(np.argmax(steps))
        if steps[i] > gap * usual and steps[i] > least_s * 1e9:
            text = f"a gap of {steps[i] * 1e-9:.3g} s where {usual * 1e-9:.3g} s are usual"
            found.append(Finding(text, name, steps[i] / (gap * usual), int(t[i])))
            continue
        lost = float(np.maximum(np.floor(steps / usual - 0.75), 0).sum())  # 1.7 periods are another rate
        share = lost / (lost + len(t))
        if lost >= 3 and share > missing:
            text = f"{lost:.0f} of {lost + len(t):.0f} samples missing ({share:.1%})"
            found.append(Finding(text, name, share / missing))
    return found if applies else None


@check(
    "duplicates",
    1,
    "less than {stamps:.1%} of the stamps repeat the one before, and of the samples taken while a signal moves less "
    "than {samples:.0%} repeat the one before in every element",
    stamps=Parameter(0.005, "a clean recording repeats none; one in 200 leaves room for a stamp rounded to 1 ms"),
    samples=Parameter(0.1, "measured while moving by several steps of the encoder per sample, equal twice is chance"),
)
def duplicates(episode: Episode, *, stamps: float, samples: float) -> Findings:
    """Messages recorded twice, and sensors polled faster than they measure."""
    found, applies = [], False
    for name, s in episode.signals.items():
        t = np.asarray(s.t_ns)
        if len(t) < 16:
            continue
        applies = True
        same = np.diff(t) == 0
        if same.sum() >= 2 and same.mean() > stamps:
            text = f"{same.sum()} of {len(t)} stamps repeat the one before"
            found.append(Finding(text, name, float(same.mean()) / stamps, int(t[np.argmax(same)])))
    for name, s in states(episode).items():
        x, t = numbers(s), np.asarray(s.t_ns)
        fresh = np.concatenate([[True], np.diff(t) > 0])
        x, t = x[fresh], t[fresh]
        if len(t) < 16:
            continue
        step = np.abs(np.diff(x, axis=0))
        some = np.where(step > 0, step, np.inf).min(axis=0)
        # A sample counts where an element goes on, before and after, by more than a few steps of its resolution.
        wide = np.abs(x[4:] - x[:-4])
        travels = ((wide > 16 * some) & (wide > 0.02 * np.ptp(x, axis=0))).any(axis=1)
        repeated = (step[2:-1] == 0).all(axis=1)[: len(travels)]
        counted = int(travels.sum())
        again = int((repeated & travels).sum())
        if counted >= 10 and again > samples * counted:
            text = f"{again} of {counted} samples taken while it moved repeat the one before"
            found.append(Finding(text, name, again / counted / samples, int(t[2 + int(np.argmax(repeated & travels))])))
    return found if applies else None


@check(
    "drift",
    1,
    "a camera begins and ends within {edge_s:g} s and a period of the signals, however long the episode, and its "
    "stamps stay within {wander:g} periods of a steady rate",
    edge_s=Parameter(0.25, "cameras start and stop apart from the rest by up to a few frames"),
    wander=Parameter(4.0, "jitter and a dropped frame stay within; a rate that changes midway does not"),
)
def drift(episode: Episode, *, edge_s: float, wander: float) -> Findings:
    """Whether each camera's stamps run along with the signals' stamps. What the pictures show is for ``sync``."""
    spans = [(int(s.t_ns[0]), int(s.t_ns[-1])) for s in episode.signals.values() if len(s.t_ns) >= 8]
    cameras = {n: np.asarray(f.t_ns) for n, f in episode.frames.items() if len(f.t_ns) >= 8}
    if not spans or not cameras:
        return None
    begin, end = (float(np.median(x)) for x in zip(*spans, strict=True))
    found = []
    for name, t in cameras.items():
        period = period_ns(t)
        limit = edge_s * 1e9 + period
        for what, off, where in (("begins", t[0] - begin, t[0]), ("ends", t[-1] - end, t[-1])):
            if abs(off) > limit:
                text = f"{what} {abs(off) * 1e-9:.3g} s {'after' if off > 0 else 'before'} the signals"
                found.append(Finding(text, name, abs(off) / limit, int(where)))
        steps = np.diff(t)
        # Frames that were dropped leave the others in place: count periods, then look how far stamps stray from a line.
        count = np.concatenate([[0.0], np.cumsum(np.maximum(np.rint(steps / period), 1))])
        line = np.polynomial.Polynomial.fit(count, (t - t[0]) / period, 1)
        stray = float(np.abs((t - t[0]) / period - line(count)).max())
        if stray > wander:
            text = f"stamps stray by {stray:.1f} periods from a steady rate"
            found.append(Finding(text, name, stray / wander))
    return found
