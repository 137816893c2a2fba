"""The audit of recordings before anything is fitted to them.

In: times, commands and measurements of one recording. Out: findings with a number, and what to record or do next.
Nothing is simulated and nothing is fitted: what is said here holds for any model. A finding
of level ``refuse`` means that a fit would explain an error of the recording with the robot's parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError

Array = NDArray[np.float64]
Level = Literal["ok", "warning", "refuse"]

JITTER = 0.25
"""Intervals between samples may scatter by this share of their median (half of the 5 to 95 % range)."""
GAP = 3.0
"""An interval longer than this many medians is a gap."""
INTERRUPTED = 0.5
"""A gap longer than this is no lost message: the clock jumped or the recording was interrupted [s]."""
FOLLOWS = 0.6
"""Least correlation of the speeds of command and response at which a delay means anything."""
REVERSALS = 4
"""Fewer changes of direction leave friction and offset to be told apart by too little."""
RECORD = "record 10 s of commanded motion over most of the range, slow and fast, with 4 or more reversals"
RECORD_FREE = "record it moving, and hitting what it is to touch"

_LAGS = (-0.1, 0.4)  # searched [s]
_BAND = 0.015  # least width of the low-pass before correlating [s]
_WINDOWS = 4
_TURN = {"rad": 2 * np.pi, "deg": 360.0}
_FACTORS = {"degrees for radians": 180 / np.pi, "millimetres for metres": 1000.0}
_ASKED = 0.02  # a command that changes by less may drown in friction and play [rad, m]
_IMPACT = 4  # speeds before and after an impact are taken over this many samples


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
      level: ``ok``, ``warning``: fit, and mind it; ``refuse``: do not fit.
      what: e.g. ``delay``, ``gap``, ``motion``.
      where: joint or clock it is about.
      number: how much, in ``unit``.
      unit: SI, "" for shares and counts.
      text: what it means, and what to record or do next; "" when there is nothing to do.
    """

    level: Level
    what: str
    where: str
    number: float
    unit: str = ""
    text: str = ""


@dataclass(frozen=True)
class Audit:
    """What one recording is worth.

    Attributes:
      name: of the recording.
      findings: in the order clock, encoder, excitation, response.
    """

    name: str
    findings: tuple[Finding, ...]

    @property
    def refused(self) -> bool:
        """Whether a fit to it would be wrong."""
        return any(f.level == "refuse" for f in self.findings)

    def number(self, what: str, where: str = "") -> float:
        """The number of the first such finding; NaN when there is none."""
        return next((f.number for f in self.findings if f.what == what and where in ("", f.where)), float("nan"))

    def lines(self) -> list[str]:
        """Every finding, one line each."""
        return [line(self.name, f) for f in self.findings]

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return {"name": self.name, "refused": self.refused, "findings": [asdict(f) for f in self.findings]}


def audit(
    commands: tuple[Array, Array] | None,
    measured: tuple[Array, Array],
    *,
    unit: str = "rad",
    name: str = "recording",
    joints: Sequence[str] = (),
    limits: Array | None = None,
    enabled: tuple[Array, Array] | None = None,
    effort: tuple[Array, float] | None = None,
    noise: float = 0.0,
) -> Audit:
    """Audit one recording.

    Args:
      commands: times [s] (m,) and commanded positions (m, j); None when nothing drives what is measured.
      measured: times [s] (n,) on the same clock and positions (n, j).
      unit: of both.
      joints: names, (j,); numbers when empty.
      limits: lowest and highest command, (j, 2): how much of the time it is at one of them.
      enabled: times [s] (e,) and whether the drive was on (e,); responses are compared only while it was.
      effort: of the drive at any times (k,) or (k, j), and the most it can give: how much of the time it gives that.
      noise: of the sensor; less than ten times that is no motion.

    Raises:
      InputError: shapes do not fit, or fewer than 8 samples, or values that are not finite.
    """
    t, q = _checked(name, "measured", *measured)
    joints = tuple(joints) or tuple(f"joint {j}" for j in range(q.shape[1]))
    found = _clock("measured", t)
    u = tu = None
    if commands is not None:
        tu, u = _checked(name, "commands", *commands)
        if u.shape[1] != q.shape[1] or len(joints) != q.shape[1]:
            raise InputError(f"{u.shape[1]} commands, {q.shape[1]} positions, {len(joints)} names", where=name)
        found += _clock("commands", tu)
    # From here on time must increase; what came late or twice was reported above.
    t, q = _increasing(t, q)
    steps = [quantum(q[:, j]) for j in range(q.shape[1])]
    q = np.stack([_wraps(q[:, j], unit, joints[j], found) for j in range(q.shape[1])], axis=1)
    moves = []
    for j, joint in enumerate(joints):
        found.append(Finding("ok", "quantum", joint, steps[j], unit))
        if unit == "rad" and np.ptp(q[:, j]) > 2 * np.pi and _power_of_two(360 / max(steps[j], 1e-9)):
            text = "steps as of an encoder in degrees: correct the unit in the channel map"
            found.append(Finding("refuse", "unit", joint, steps[j], "", text))
        moves.append(_excitation(t, q[:, j], joint, unit, max(10 * noise, 5 * steps[j], 1e-9), u is not None, found))
    if u is not None and tu is not None:
        tu, u = _increasing(tu, u)
        found += _response(t, q, tu, u, joints, unit, steps, moves, limits, enabled)
    elif any(moves):
        found.append(Finding("ok", "impacts", "object", float(_impacts(t, q))))
    if effort is not None:
        given = np.abs(np.asarray(effort[0], float))
        for j, joint in enumerate(joints):
            share = float(np.mean(given.reshape(len(given), -1)[:, j] >= 0.999 * effort[1]))
            found.append(Finding("ok", "saturated", joint, share))
    return Audit(name, tuple(found))


def quantum(values: Array) -> float:
    """The greatest common step of the differences between values (n,): the encoder's; 0 when there is none."""
    distinct = np.unique(values)
    if len(distinct) < 2:
        return 0.0
    gaps = np.diff(distinct)
    gaps = gaps[gaps > 1e-7 * np.ptp(distinct)]  # equal but for rounding
    # Two steps may be the smallest difference seen when others are of three; of few differences that proves nothing.
    for divisor in range(1, 6 if len(gaps) >= 6 else 2):
        step = float(gaps.min()) / divisor
        for _ in range(3):
            counts = np.round(gaps / step)
            step = float(gaps @ counts / (counts @ counts))
        # Of numbers without a common step the remainders are uniform: 0.29.
        if np.sqrt(np.mean((gaps / step - np.round(gaps / step)) ** 2)) < 0.05:
            return step
    return 0.0


def _checked(name: str, which: str, t: Array, values: Array) -> tuple[Array, Array]:
    t, values = np.asarray(t, float).ravel(), np.asarray(values, float)
    values = values.reshape(len(values), -1)
    if len(t) != len(values) or len(t) < 8:
        raise InputError(f"{which}: {len(t)} times, {len(values)} samples", where=name, allowed="8 or more of each")
    if not (np.isfinite(t).all() and np.isfinite(values).all()):
        raise InputError(f"{which}: values that are not finite", where=name)
    return t, values


def _increasing(t: Array, values: Array) -> tuple[Array, Array]:
    keep = np.concatenate([[True], t[1:] > np.maximum.accumulate(t)[:-1]])
    return t[keep], values[keep]


def _clock(where: str, t: Array) -> list[Finding]:
    """Rate, jitter, gaps and jumps of one clock."""
    dt = np.diff(t)
    period = float(np.median(dt[dt > 0])) if (dt > 0).any() else float("nan")
    found = [Finding("ok", "period", where, period, "s")]
    # Around the median of each stretch: a rate that is switched is not jitter.
    parts = np.array_split(dt, max(1, len(dt) // 50))
    medians = np.array([np.median(d) for d in parts])
    low, high = np.quantile(np.concatenate([d - m for d, m in zip(parts, medians, strict=True)]), [0.05, 0.95])
    jitter = float(high - low) / 2
    if medians.max() > 1.25 * medians.min() > 0:
        found.append(Finding("ok", "slowest period", where, float(medians.max()), "s"))
    if jitter > JITTER * period:
        text = "stamp samples where they are taken, not where they arrive"
        found.append(Finding("warning", "jitter", where, jitter, "s", text))
    else:
        found.append(Finding("ok", "jitter", where, jitter, "s"))
    if (back := dt[dt < 0]).size:
        text = f"the clock goes back {back.size} times: record with a monotonic clock"
        found.append(Finding("refuse", "clock jump", where, float(back.min()), "s", text))
    if (same := int((dt == 0).sum())) > 0.01 * len(dt):
        text = "samples share a time stamp: stamp each where it is taken"
        found.append(Finding("warning", "repeated stamps", where, same / len(dt), "", text))
    gaps = np.flatnonzero(dt > GAP * period)
    if gaps.size:
        longest, at = float(dt[gaps].max()), float(t[gaps[np.argmax(dt[gaps])]] - t[0])
        if longest > max(INTERRUPTED, 20 * period):
            text = f"at {at:.3g} s the clock jumps or the recording was interrupted: cut it there, or record anew"
            found.append(Finding("refuse", "clock jump", where, longest, "s", text))
        else:
            text = f"{gaps.size} gaps, the longest at {at:.3g} s: look for lost messages"
            found.append(Finding("warning", "gap", where, longest, "s", text))
    return found


def _wraps(q: Array, unit: str, joint: str, found: list[Finding]) -> Array:
    """Positions (n,) without the jumps by a whole turn, which are reported."""
    turn = _TURN.get(unit)
    if turn is None:
        return q
    jumps = int((np.abs(np.abs(np.diff(q)) - turn) < 0.25 * turn).sum())
    if not jumps:
        return q
    text = "jumps by a whole turn: unwrap the angle, or record away from where it wraps"
    found.append(Finding("refuse", "wrap-around", joint, float(jumps), "", text))
    return np.unwrap(q, period=turn)


def _smooth_speed(t: Array, x: Array, period: float, grid: Array) -> Array:
    """Low-passed speed of x (n, j) at times t on the uniform grid: derivative of a Gaussian."""
    width = max(3.0, _BAND / period)  # samples
    k = np.arange(-int(4 * width), int(4 * width) + 1)
    bell = k * np.exp(-0.5 * (k / width) ** 2)
    kernel = -bell / (float(bell @ k) * period)  # unit slope in, speed 1 out
    on_grid = np.stack([np.interp(grid, t, c) for c in x.T], axis=1)
    padded = np.pad(on_grid, ((len(k) // 2, len(k) // 2), (0, 0)), mode="edge")
    return np.stack([np.convolve(c, kernel, "valid") for c in padded.T], axis=1)


def _grid(t: Array) -> tuple[float, Array]:
    period = float(np.median(np.diff(t)))
    return period, t[0] + period * np.arange(min(int((t[-1] - t[0]) / period), 20 * len(t)) + 1)


def _excitation(t: Array, q: Array, joint: str, unit: str, least: float, driven: bool, found: list[Finding]) -> bool:
    """Range, speeds, reversals and rest of one joint; whether it moves."""
    span, (period, grid) = float(np.ptp(q)), _grid(t)
    if span <= least:
        text = f"no motion (more than {least:.2g} {unit}): {RECORD if driven else RECORD_FREE}"
        found.append(Finding("warning", "motion", joint, span, unit, text))
        return False
    found.append(Finding("ok", "motion", joint, span, unit))
    speed = _smooth_speed(t, q[:, None], period, grid)[:, 0]
    peak, rms = float(np.abs(speed).max()), float(np.sqrt(np.mean(speed**2)))
    turns, rest = _reversals(q, max(0.02 * span, least)), float(np.mean(np.abs(speed) < 0.02 * peak))
    found += [
        Finding("ok", "peak speed", joint, peak, f"{unit}/s"),
        Finding("ok", "rms speed", joint, rms, f"{unit}/s"),
    ]
    few, idle = driven and turns < REVERSALS, rest > 0.8
    found += [
        Finding("warning" if few else "ok", "reversals", joint, float(turns), "", RECORD if few else ""),
        Finding("warning" if idle else "ok", "at rest", joint, rest, "", "mostly rest: cut it out" if idle else ""),
    ]
    return True


def _impacts(t: Array, q: Array) -> int:
    """How often the speed of what nothing drives, q (n, j), changes at once."""
    w = _IMPACT
    if len(t) < 4 * w:
        return 0
    speed = (q[w:] - q[:-w]) / (t[w:] - t[:-w])[:, None]
    change = speed[w:] - speed[:-w]
    size = np.linalg.norm(change - np.median(change, axis=0), axis=1)  # gravity is in the median
    high = size > 6 * max(float(np.median(size)), 1e-9)
    peak = np.array([high[i] and size[i] == size[max(0, i - w) : i + w + 1].max() for i in range(len(size))])
    return int(peak.sum())


def _power_of_two(x: float) -> bool:
    return 256 <= x <= 2**24 and abs(np.log2(x) - round(np.log2(x))) < 2e-3


def _reversals(q: Array, least: float) -> int:
    """How often the direction of q (n,) changes, swings below ``least`` apart."""
    turns, sign, extreme = 0, 0, q[0]
    for x in q:
        if sign == 0:
            if abs(x - extreme) > least:
                sign, extreme = (1 if x > extreme else -1), x
        elif (x - extreme) * sign > 0:
            extreme = x
        elif (extreme - x) * sign > least:
            turns, sign, extreme = turns + 1, -sign, x
    return turns


def _response(
    t: Array, q: Array, tu: Array, u: Array, joints: Sequence[str], unit: str, steps: Sequence[float],
    moves: Sequence[bool], limits: Array | None, enabled: tuple[Array, Array] | None,
) -> list[Finding]:  # fmt: skip
    """What ties responses to commands: common clock, order, sign, unit, delay, saturation."""
    found: list[Finding] = []
    shared = min(t[-1], tu[-1]) - max(t[0], tu[0])
    if shared < 0.5 * (t[-1] - t[0]):
        text = "commands and measurements hardly overlap: record both with one clock"
        return [Finding("refuse", "overlap", "commands", max(float(shared), 0.0), "s", text)]
    period, grid = _grid(t)
    grid = grid[(grid >= tu[0]) & (grid <= tu[-1])]
    on = np.ones(len(grid), bool)
    if enabled is not None:
        last = np.searchsorted(enabled[0], grid, side="right") - 1
        on = np.asarray(enabled[1]).astype(bool)[np.maximum(last, 0)]
        found.append(Finding("ok", "enabled", "drive", float(on.mean())))
        if on.mean() < 0.02:
            text = "the drive was off: no response to compare"
            return [*found, Finding("warning", "enabled", "drive", float(on.mean()), "", text)]
    vu, vq = _smooth_speed(tu, u, period, grid), _smooth_speed(t, q, period, grid)
    edge = int(2 * max(3.0, _BAND / period))  # where the low-pass sees beyond the recording
    on[:edge] = on[len(on) - edge :] = False
    lags = np.arange(int(np.floor(_LAGS[0] / period)), int(np.ceil(_LAGS[1] / period)) + 1)
    lags = lags[np.abs(lags) < len(grid) // 3]
    whole = _correlation(vu, vq, on, lags)  # (lags, commands, responses)
    strongest = np.abs(whole).max(axis=0)
    for j, joint in enumerate(joints):
        if limits is not None:
            low, high = np.asarray(limits, float)[j]
            edge = 1e-3 * (high - low)
            at = float(np.mean((u[:, j] <= low + edge) | (u[:, j] >= high - edge)))
            text = "" if at <= 0.5 else "the command is at its limit most of the time: record smaller motions"
            found.append(Finding("warning" if text else "ok", "command at limit", joint, at, "", text))
        asked = float(np.ptp(u[:, j]))
        if not moves[j]:
            if asked > max(20 * steps[j], _ASKED):
                text = "commanded, and nothing moved: is the drive on, the joint free, the signal the right one?"
                found.append(Finding("refuse", "response", joint, 0.0, unit, text))
            continue
        k = int(np.argmax(strongest[j]))
        if k != j and strongest[j, k] > max(0.8, strongest[j, j] + 0.15) and int(np.argmax(strongest[:, k])) == j:
            text = f"its command moves {joints[k]}: put the columns of commands and positions in the same order"
            found.append(Finding("refuse", "joint order", joint, float(strongest[j, k]), "", text))
            continue
        found += _one_response(
            vu[:, j], vq[:, j], on, lags, period, joint, asked, float(np.ptp(q[:, j])), float(np.median(np.diff(tu)))
        )
    return found


def _one_response(
    vu: Array, vq: Array, on: NDArray[np.bool_], lags: NDArray[np.int_], period: float, joint: str, asked: float,
    moved: float, command_period: float,
) -> list[Finding]:  # fmt: skip
    """Sign, unit and delay of one joint."""
    if asked == 0:
        return [Finding("warning", "command", joint, 0.0, "", "moved without a command: calibration needs commands")]
    rho = _correlation(vu[:, None], vq[:, None], on, lags)[:, 0, 0]
    if not len(rho) or np.abs(rho).max() < FOLLOWS:
        best = float(np.abs(rho).max()) if len(rho) else 0.0
        text = "does not follow its commands while the drive is on: no delay can be told; is it this joint's signal?"
        return [Finding("warning", "correlation", joint, best, "", text)]
    found = [Finding("ok", "correlation", joint, float(rho.max()))]
    if -rho.min() > rho.max() + 0.1:
        text = "moves against its commands: the sign of one of them is wrong"
        return [Finding("refuse", "sign", joint, float(rho.min()), "", text)]
    for what, factor in _FACTORS.items():
        # A drive falls short of its command rather than that it overshoots.
        for ratio, which, low, high in (
            (moved / asked, "measurement", factor / 3, factor * 1.5),
            (asked / moved, "command", factor / 1.5, factor * 3),
        ):
            if low < ratio < high:
                text = f"larger than the other by this: {what} in the {which}? correct the channel map"
                found.append(Finding("refuse", "unit", joint, ratio, "", text))
    lag, spread = _peak(rho, lags, period)
    each = []
    for part in np.array_split(np.flatnonzero(on), _WINDOWS):
        mask = np.zeros(len(on), bool)
        mask[part] = True
        r = _correlation(vu[:, None], vq[:, None], mask, lags)[:, 0, 0]
        if len(part) > 3 * len(lags) // 2 and r.max() >= FOLLOWS:
            each.append(_peak(r, lags, period)[0])
    half = float(np.ptp(each)) / 2 if len(each) > 1 else spread
    # A command held between sparse messages is, as a line between them, early by up to half a period.
    unsure = float(np.hypot(max(half, 0.1 * period), command_period / 2 if command_period > 1.5 * period else 0.0))
    if np.argmax(rho) in (0, len(rho) - 1) or unsure > lags[-1] * period / 4:
        text = "too little fast motion to tell a delay: add fast reversals"
        return [*found, Finding("warning", "excitation", joint, float(rho.max()), "", text)]
    if lag < -(unsure + period) and rho.max() > 0.9:
        text = "responds before it is commanded: record commands and measurements with one clock"
        return [*found, Finding("refuse", "response delay", joint, lag, "s", text)]
    # What a soft drive takes to respond is in it too, which only a fit can tell apart.
    text = "at most this is delay, the rest is the drive's own response"
    found += [
        Finding("ok", "response delay", joint, lag, "s", text),
        Finding("ok", "delay uncertainty", joint, unsure, "s"),
    ]
    return found


def _correlation(vu: Array, vq: Array, on: NDArray[np.bool_], lags: NDArray[np.int_]) -> Array:
    """Correlation of commands now with responses ``lag`` samples later, both while ``on``: (lags, j, j)."""
    out, n = np.zeros((len(lags), vu.shape[1], vq.shape[1])), len(on)
    for i, lag in enumerate(lags):
        a, b = slice(max(0, -lag), n - max(0, lag)), slice(max(0, lag), n - max(0, -lag))
        both = on[a] & on[b]
        if both.sum() < 16:
            continue
        x, y = vu[a][both], vq[b][both]
        norm = np.sqrt((x**2).sum(axis=0))[:, None] * np.sqrt((y**2).sum(axis=0))
        out[i] = np.divide(x.T @ y, norm, out=np.zeros_like(norm), where=norm > 0)
    return out


def _peak(rho: Array, lags: NDArray[np.int_], period: float) -> tuple[float, float]:
    """Lag of the highest correlation, between samples by a parabola, and how far off it may be [s]."""
    i = int(np.argmax(rho))
    if i in (0, len(rho) - 1):
        return float(lags[i] * period), float(period * len(lags))
    a, b, c = rho[i - 1 : i + 2]
    bend = a - 2 * b + c
    lag = (lags[i] + (0.5 * (a - c) / bend if bend < 0 else 0.0)) * period
    # Where the parabola has lost half of what the response leaves unexplained.
    return float(lag), float(period * np.sqrt(max(1 - b, 0) / max(-bend, 1e-9)))


def line(name: str, f: Finding) -> str:
    """A finding about a recording or a set-up of this name, as one line."""
    amount = f"{f.number:.3g} {f.unit}".strip()
    return f"{f.level}: {name}, {f.where}: {f.what} {amount}" + (f": {f.text}" if f.text else "")
