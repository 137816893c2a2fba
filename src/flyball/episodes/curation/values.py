"""Checks on values: not finite, constant, dead, clipped, saturated, offset, idle.

In: an episode's signals. Out: findings. What is normal for one body and task (a gripper that is commanded to its
limit all day, an arm that sags under its weight) is taken from the episodes that are compared with one another;
a defect that most of them share is therefore found only where the rule says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flyball.base import Timed
from flyball.episodes.curation.check import Finding, Findings, Parameter, Seen, check
from flyball.episodes.curation.motion import (
    Pair,
    activity,
    continuous,
    is_command,
    lag_s,
    moving,
    noise,
    numbers,
    pairs,
    period_ns,
    runs,
    spread,
    states,
)
from flyball.episodes.episode import Episode


@check("finite", 1, "every number is finite")
def finite(episode: Episode) -> Findings:
    """NaN and infinity."""
    found = []
    for name, s in episode.signals.items():
        x = np.asarray(s.values)
        if x.dtype.kind != "f" or not len(x):
            continue
        bad = ~np.isfinite(x.reshape(len(x), -1))
        if bad.any():
            first = int(np.argmax(bad.any(axis=1)))
            kinds = [k for k, hit in (("NaN", np.isnan(x).any()), ("infinite", np.isinf(x).any())) if hit]
            text = f"{bad.sum()} of {bad.size} numbers {' or '.join(kinds)}"
            found.append(Finding(text, name, float(bad.sum()), int(s.t_ns[first])))
    return found if any(np.asarray(s.values).dtype.kind == "f" for s in episode.signals.values()) else None


PLACES = ("rad", "m", "deg", "")
"""Units in which a measurement follows its command; a force need not, nor a voltage."""

_ENOUGH = Parameter(5, "with fewer episodes to compare with, 'usual' would be a matter of two or three")
_MOST = Parameter(0.8, "four of five others, so that a few defective ones do not hide each other")


def _judge_constant(seen: list[Seen], *, enough: float, most: float) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {s.digest: [] for s in seen}
    for name in {n for s in seen for n in s.kept}:
        rows = [(s.digest, s.kept[name]) for s in seen if name in s.kept]
        size = max(len(x) for _, x in rows)
        rows = [(d, x) for d, x in rows if len(x) == size]
        flat = np.stack([x for _, x in rows])
        for i, (digest, mine) in enumerate(rows):
            others = np.delete(flat, i, axis=0)
            if len(others) >= enough:
                odd = mine & ((~others).mean(axis=0) >= most)
                if odd.any():
                    text = f"{_elements(odd)} never changes; it does in {(~others[:, odd]).mean():.0%} of the others"
                    found[digest].append(Finding(text, name, float(odd.sum())))
    return found


@check(
    "constant",
    1,
    "no element of a floating-point signal keeps one value throughout where it changes in {most:.0%} of the other "
    "episodes of this body and task (given at least {enough:g}), and no measured signal does in every element",
    judge=lambda seen, enough, most: _whole_constants(seen, _judge_constant(seen, enough=enough, most=most)),
    enough=_ENOUGH,
    most=_MOST,
)
def constant(episode: Episode) -> dict[str, NDArray[np.bool_]] | None:
    """Which elements have zero variance."""
    return {n: np.ptp(numbers(s), axis=0) == 0 for n, s in continuous(episode).items()} or None


def _whole_constants(seen: list[Seen], found: dict[str, list[Finding]]) -> dict[str, list[Finding]]:
    for s in seen:
        for name, flat in s.kept.items():
            if flat.all() and flat.size > 1 and not is_command(name) and all(f.signal != name for f in found[s.digest]):
                found[s.digest].append(Finding("no element ever changes", name, float(flat.size)))
    return found


@check(
    "dead",
    1,
    "a measured element moves by at least {follows:.0%} of what its command moves, where the command moves by at least "
    "{sent:g} times the noise of either and a hundredth of its greatest value; and none stops for {stuck_s:g} s "
    "while its command goes on moving",
    follows=Parameter(0.1, "a weak or heavily loaded joint still follows by more; a dead one shows noise"),
    sent=Parameter(20.0, "below that, a measurement that does not follow cannot be told from noise"),
    stuck_s=Parameter(0.5, "static friction holds a joint for a few tenths of a second"),
)
def dead(episode: Episode, *, follows: float, sent: float, stuck_s: float) -> Findings:
    """Joints that do not do what they are told, and sensors that stand still."""
    applies, found = False, []
    for pair in pairs(episode):
        if pair.unit not in PLACES:
            continue
        level = max(float(noise(x[:, None])[0]) for x in (pair.sent, pair.measured))
        wanted, done = (float(spread(x[:, None])[0]) for x in (pair.sent, pair.measured))
        if wanted < sent * level or wanted < 0.01 * np.abs(pair.sent).max() or wanted == 0 or _switches(pair.sent):
            continue
        applies = True
        if done < follows * wanted:
            text = f"element {pair.element} moved by {done:.3g} {pair.unit} where {wanted:.3g} were commanded"
            found.append(Finding(text, pair.state, follows * wanted / max(done, 1e-3 * wanted)))
            continue
        stuck = _stuck(pair, stuck_s)
        if stuck is not None:
            begin, end = stuck
            text = f"element {pair.element} stood still for {pair.t[end] - pair.t[begin]:.2g} s of commanded movement"
            t0 = max(int(episode.signals[n].t_ns[0]) for n in (pair.command, pair.state))
            found.append(
                Finding(text, pair.state, (pair.t[end] - pair.t[begin]) / stuck_s, t0 + round(pair.t[begin] * 1e9))
            )
    return found if applies else None


def _switches(x: NDArray[np.float64]) -> bool:
    """Whether a command takes only a few values, as for a gripper that is open or shut: it may then move nothing."""
    return len(np.unique(x)) <= 3


def _stuck(pair: Pair, stuck_s: float) -> tuple[int, int] | None:
    """The longest stretch in which only noise is measured while the command moves, if long enough.

    Static friction swallows small movements: it must be more than half the command's range, or a fifth one way.
    """
    dt = float(pair.t[1] - pair.t[0])
    still = ~moving(pair.measured[:, None], max(4, round(0.5 * stuck_s / dt)))[:, 0]
    wanted = float(spread(pair.sent[:, None])[0])
    best = None
    for a, b in runs(still):
        if (b - a) * dt >= stuck_s and np.ptp(pair.sent[a:b]) > 0.2 * wanted:
            moved = abs(pair.sent[b - 1] - pair.sent[a])
            steady = moved > 0.8 * np.ptp(pair.sent[a:b])
            if (steady or np.ptp(pair.sent[a:b]) > 0.5 * wanted) and (best is None or b - a > best[1] - best[0]):
                best = (a, b - 1)
    return best


@check(
    "clipped",
    1,
    "no measured element stays exactly at its greatest or smallest value for {share:.1%} of the episode and "
    "{samples:g} samples after reaching it, while other signals move, at more than {speed:.0%} of its usual speed; "
    "nor, whatever its speed, where its noise never lets it repeat a value otherwise",
    share=Parameter(0.02, "a turning point lasts a few samples"),
    samples=Parameter(6, "a quantised signal repeats its extreme a few times at every turn"),
    speed=Parameter(0.5, "what comes to rest slows down first; what is cut off does not"),
)
def clipped(episode: Episode, *, share: float, samples: float, speed: float) -> Findings:
    """Flat tops: an amplifier, an encoder or a joint at its stop."""
    found, applies = [], False
    for name, s in states(episode).items():
        x = numbers(s)
        if len(x) < 32:
            continue
        level, width = noise(x), spread(x)
        elsewhere = _others_move(episode, name, s)
        for j in range(x.shape[1]):
            v = x[:, j]
            if width[j] <= 12 * level[j]:
                continue
            applies = True
            worst, where, text = 0.0, 0, ""
            for word, end in (("greatest", v.max()), ("smallest", v.min())):
                flat = [
                    (a, b)
                    for a, b in runs(v == end)
                    if b - a >= 3 and (_cut_short(v, a, b, speed, level[j], elsewhere) or _never_repeats(v, end))
                ]
                held = sum(b - a for a, b in flat)
                if held >= samples and held / len(v) > share and held / len(v) / share > worst:
                    worst, where = held / len(v) / share, flat[0][0]
                    text = f"element {j} is cut off at its {word} value {end:.4g} for {held} samples"
            if worst:
                found.append(Finding(text, name, worst, int(s.t_ns[where])))
    return found if applies else None


def _cut_short(
    v: NDArray[np.float64], a: int, b: int, speed: float, level: float, elsewhere: NDArray[np.bool_] | None
) -> bool:
    """Whether the stretch a to b is entered or left at speed, while something else moves."""
    step = np.abs(np.diff(v))
    if not (step > 2 * level).any() or (elsewhere is not None and elsewhere[a:b].mean() <= 0.5):
        return False
    usual = float(np.median(step[step > 2 * level]))
    return max(step[a - 1] if a else 0.0, step[b - 1] if b < len(v) else 0.0) > speed * usual


def _never_repeats(v: NDArray[np.float64], end: float) -> bool:
    """Whether a signal, away from an extreme, has noise (it goes up and down) that is finer than its resolution."""
    step = np.diff(v)[(v[1:] != end) & (v[:-1] != end)]
    turns = (step[1:] * step[:-1] < 0).mean() if len(step) >= 20 else 0.0
    return bool(turns > 0.2 and (step == 0).mean() < 0.02)


def _others_move(episode: Episode, name: str, s: Timed) -> NDArray[np.bool_] | None:
    """Whether any other signal, or command, moves at each sample of this one; None when there is no other."""
    rest = {n: o for n, o in continuous(episode).items() if n != name}
    if not rest:
        return None
    out = np.zeros(len(s.t_ns), bool)
    for o in rest.values():
        busy = np.asarray(moving(numbers(o), round(0.3e9 / period_ns(o.t_ns))).any(axis=1))
        out |= busy[np.clip(np.searchsorted(o.t_ns, s.t_ns), 0, len(busy) - 1)]
    return out


def _judge_saturation(seen: list[Seen], *, share: float, enough: float) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {s.digest: [] for s in seen}
    for name in {n for s in seen for n in s.kept}:
        rows = [(s.digest, s.kept[name]) for s in seen if name in s.kept]
        size = max(len(x) for _, x in rows)
        rows = [(d, x) for d, x in rows if len(x) == size]
        every = np.stack([x for _, x in rows])
        for i, (digest, mine) in enumerate(rows):
            others = np.delete(every, i, axis=0)
            usual = np.median(others, axis=0) if len(others) >= enough else np.zeros(size)
            wide = np.median(np.abs(others - usual), axis=0) * 1.48 if len(others) >= enough else np.zeros(size)
            limit = share + usual + 4 * wide
            over = mine > limit
            if over.any():
                j = int(np.argmax(mine / limit))
                text = f"element {j} is at its limit for {mine[j]:.0%} of the samples, usual is {usual[j]:.0%}"
                found[digest].append(Finding(text, name, float(mine[j] / limit[j])))
    return found


@check(
    "saturation",
    1,
    "no element with specified limits is at or beyond one of them for {share:.0%} of the samples more than is usual "
    "among the other episodes of this body and task (zero where there are fewer than {enough:g})",
    judge=_judge_saturation,
    share=Parameter(0.1, "touching a limit is normal; being held there for a tenth of the time is not"),
    enough=_ENOUGH,
)
def saturation(episode: Episode) -> dict[str, NDArray[np.float64]] | None:
    """Share of samples at or beyond the specified limits."""
    kept = {}
    for name, s in episode.signals.items():
        if (s.spec.low is None and s.spec.high is None) or not len(s.t_ns):
            continue
        low, high = limits(s)
        x = numbers(s)
        near = 1e-3 * np.where(np.isfinite(high - low), high - low, np.maximum(np.abs(low), np.abs(high)))
        near = np.where(np.isfinite(near), near, 0.0)
        kept[name] = ((x <= low + near) | (x >= high - near)).mean(axis=0)
    return kept or None


def limits(s: Timed) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(low, high) of a signal's elements, each (e,); infinite where unbounded."""
    low = np.broadcast_to(-np.inf if s.spec.low is None else np.array(s.spec.low), s.spec.shape).ravel()
    high = np.broadcast_to(np.inf if s.spec.high is None else np.array(s.spec.high), s.spec.shape).ravel()
    return low.astype(float), high.astype(float)


@dataclass(frozen=True)
class _Following:
    unit: str
    offset: float
    lag_s: float
    certain: float


def _judge_offset(
    seen: list[Seen], *, angle: float, length: float, deviations: float, enough: float
) -> dict[str, list[Finding]]:
    found: dict[str, list[Finding]] = {s.digest: [] for s in seen}
    for key in sorted({k for s in seen for k in s.kept}):
        rows = [(s.digest, s.kept[key]) for s in seen if key in s.kept]
        offsets = np.array([f.offset for _, f in rows])
        for i, (digest, mine) in enumerate(rows):
            least = length if mine.unit == "m" else angle
            others = np.delete(offsets, i)
            if len(others) >= enough:
                usual = float(np.median(others))
                limit = max(least, deviations * 1.48 * float(np.median(np.abs(others - usual))))
            else:
                usual, limit = 0.0, 3 * least
            off = mine.offset - usual
            if abs(off) > limit + 3 * mine.certain:
                command, state, j = key
                text = (
                    f"element {j} rests {mine.offset:+.3g} {mine.unit} from {command} after a lag of "
                    f"{mine.lag_s:.2g} s, usual is {usual:+.3g}"
                )
                found[digest].append(Finding(text, state, abs(off) / limit))
    return found


@check(
    "offset",
    1,
    "at rest and after removing the lag, a measured angle or length differs from its command by no more than {angle:g} "
    "rad or {length:g} m, and {deviations:g} robust standard deviations, from what is usual among the other episodes "
    "of this body and task; by three times as much from zero where there are fewer than {enough:g}",
    judge=_judge_offset,
    angle=Parameter(
        0.03, "1.7 degrees: 2 cm at the end of a 0.6 m arm; a re-seated horn is off by a tooth, 10 or more"
    ),
    length=Parameter(0.004, "what a parallel gripper shows when its zero has moved"),
    deviations=Parameter(5.0, "load and gain change the sag from attempt to attempt; this is measured, not assumed"),
    enough=_ENOUGH,
)
def offset(episode: Episode, *, most_lag_s: float = 0.5) -> dict[tuple[str, str, int], _Following] | None:
    """Static offset between what was commanded and what was measured: calibration drift."""
    kept = {}
    for pair in pairs(episode):
        if pair.unit not in PLACES:
            continue
        lag = lag_s(pair, most_lag_s)
        dt = float(pair.t[1] - pair.t[0])
        k = round(lag / dt)
        sent, measured = pair.sent[: len(pair.sent) - k], pair.measured[k:]
        window = max(3, round(0.2 / dt))
        quiet = ~(moving(sent[:, None], window)[:, 0] | moving(measured[:, None], window)[:, 0])
        if quiet.sum() < 5:
            quiet = np.ones(len(sent), bool)  # it never rests: the mean over the movement, which goes both ways
        rest = (measured - sent)[quiet]
        # Samples at rest repeat one another; the error of the median comes from about one in a window.
        certain = 1.25 * float(np.std(rest)) / np.sqrt(max(1.0, quiet.sum() / window))
        kept[(pair.command, pair.state, pair.element)] = _Following(pair.unit, float(np.median(rest)), lag, certain)
    return kept or None


@check(
    "idle",
    1,
    "no measured signal moves for {longest_s:g} s on end, nor for {share:.0%} of the episode and {longest_s:g} s in "
    "all",
    longest_s=Parameter(3.0, "waiting for a gripper or for vision to settle takes a second or two"),
    share=Parameter(0.6, "more rest than work: what is learned from it is to wait"),
)
def idle(episode: Episode, *, longest_s: float, share: float) -> Findings:
    """Stretches in which nothing happens."""
    seen = activity(episode, 0.5)
    if seen is None or len(seen[0]) < 2:
        return None
    t, busy = seen
    stretches = [(int(t[a]), int(t[b - 1])) for a, b in runs(~busy)]
    lengths = [(b - a) * 1e-9 for a, b in stretches]
    if not lengths:
        return []
    span, i = float(t[-1] - t[0]) * 1e-9, int(np.argmax(lengths))
    if lengths[i] >= longest_s:
        text = f"nothing moves for {lengths[i]:.3g} s of {span:.3g} s"
        return [Finding(text, "", lengths[i] / longest_s, stretches[i][0])]
    if sum(lengths) > share * span and sum(lengths) >= longest_s:
        text = f"nothing moves for {sum(lengths):.3g} s of {span:.3g} s, in {len(lengths)} stretches"
        return [Finding(text, "", sum(lengths) / span / share, stretches[0][0])]
    return []


def _elements(which: NDArray[np.bool_]) -> str:
    named = ", ".join(str(i) for i in np.flatnonzero(which)[:6])
    return f"element{'s' if which.sum() > 1 else ''} {named}" + (" ..." if which.sum() > 6 else "")
