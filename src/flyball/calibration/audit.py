"""The audit of recordings before anything is fitted to them.

In: times, commands and measurements of one recording, or the episodes of a workspace. Out: findings with a number, and
what to record or do next. Nothing is simulated and nothing is fitted: what is said here holds for any model. A finding
of level ``refuse`` means that a fit would explain an error of the recording with the robot's parameters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing
from flyball.base.workspace import Workspace
from flyball.calibration.rigs import Rig, rig_for, rigs
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue

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

_LAGS = (-0.1, 0.4)  # searched [s]
_BAND = 0.015  # least width of the low-pass before correlating [s]
_WINDOWS = 4
_TURN = {"rad": 2 * np.pi, "deg": 360.0}
_FACTORS = {"degrees for radians": 180 / np.pi, "millimetres for metres": 1000.0}


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
        return [_line(self.name, f) for f in self.findings]

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
        moves.append(_excitation(t, q[:, j], joint, unit, steps[j], noise, found))
    if u is not None and tu is not None:
        tu, u = _increasing(tu, u)
        found += _response(t, q, tu, u, joints, unit, steps, moves, limits, enabled)
    return Audit(name, tuple(found))


def quantum(values: Array) -> float:
    """The greatest common step of the differences between values (n,): the encoder's; 0 when there is none."""
    distinct = np.unique(values)
    if len(distinct) < 2:
        return 0.0
    gaps = np.diff(distinct)
    gaps = gaps[gaps > 1e-7 * np.ptp(distinct)]  # equal but for rounding
    if len(gaps) < 4:
        return 0.0
    for divisor in range(1, 6):  # two steps may be the smallest difference seen when others are of three
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
    low, high = np.quantile(dt, [0.05, 0.95])
    jitter = float(high - low) / 2
    if jitter > JITTER * period:
        found.append(
            Finding(
                "warning", "jitter", where, jitter, "s", "stamp samples where they are taken, not where they arrive"
            )
        )
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
    kernel = -k * np.exp(-0.5 * (k / width) ** 2)
    kernel /= float(-(kernel @ k)) * period  # unit slope in, speed 1 out
    on_grid = np.stack([np.interp(grid, t, c) for c in x.T], axis=1)
    padded = np.pad(on_grid, ((len(k) // 2, len(k) // 2), (0, 0)), mode="edge")
    return np.stack([np.convolve(c, kernel, "valid") for c in padded.T], axis=1)


def _grid(t: Array) -> tuple[float, Array]:
    period = float(np.median(np.diff(t)))
    return period, t[0] + period * np.arange(min(int((t[-1] - t[0]) / period), 20 * len(t)) + 1)


def _excitation(t: Array, q: Array, joint: str, unit: str, step: float, noise: float, found: list[Finding]) -> bool:
    """Range, speeds, reversals and rest of one joint; whether it moves."""
    span, (period, grid) = float(np.ptp(q)), _grid(t)
    least = max(10 * noise, 5 * step, 1e-9)
    if span <= least:
        text = f"no motion (more than {least:.2g} {unit}): {RECORD}"
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
    few, idle = turns < REVERSALS, rest > 0.8
    found += [
        Finding("warning" if few else "ok", "reversals", joint, float(turns), "", f"{RECORD}" if few else ""),
        Finding("warning" if idle else "ok", "at rest", joint, rest, "", "mostly rest: cut it out" if idle else ""),
    ]
    return True


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
    vu, vq = _smooth_speed(tu, u, period, grid), _smooth_speed(t, q, period, grid)
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
            found.append(Finding("warning" if text else "ok", "saturated", joint, at, "", text))
        asked = float(np.ptp(u[:, j]))
        if not moves[j]:
            if asked > max(10 * steps[j], 1e-3):
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
        for ratio, which in ((moved / asked, "measurement"), (asked / moved, "command")):
            if factor / 3 < ratio < factor * 1.5:
                text = f"{ratio:.3g} times as large as it should be: {what} in the {which}? correct the channel map"
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
        text = "too slow a motion to tell a delay: add fast reversals"
        return [*found, Finding("warning", "excitation", joint, unsure, "s", text)]
    if lag < -(unsure + period) and rho.max() > 0.9:
        text = "responds before it is commanded: record commands and measurements with one clock"
        return [*found, Finding("refuse", "delay", joint, lag, "s", text)]
    text = (
        "" if unsure <= max(0.25 * lag, 2 * period) else "differs by motion: a slow drive, not a delay; an upper bound"
    )
    found += [Finding("ok", "delay", joint, lag, "s", text), Finding("ok", "delay uncertainty", joint, unsure, "s")]
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


@dataclass(frozen=True)
class SetupAudit:
    """What the recordings of one set-up are worth.

    Attributes:
      rig: name of the set-up.
      audits: one per recording.
      findings: about all of them together.
    """

    rig: str
    audits: tuple[Audit, ...]
    findings: tuple[Finding, ...]

    @property
    def refusals(self) -> list[str]:
        """Why not to fit, one line each."""
        everything = [(self.rig, f) for f in self.findings] + [(a.name, f) for a in self.audits for f in a.findings]
        return [_line(name, f) for name, f in everything if f.level == "refuse"]

    def lines(self) -> list[str]:
        """A table, then what to mind, the worst first."""
        columns = ("period", "jitter", "quantum", "motion", "peak speed", "reversals", "at rest", "delay")
        rows = [("recording", *columns)]
        for a in self.audits:
            cells = [_cell(a, c) for c in columns]
            rows.append((a.name, *cells))
        width = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
        table = ["  ".join(c.ljust(w) for c, w in zip(r, width, strict=True)).rstrip() for r in rows]
        if len(table) > 25:
            table = [*table[:21], f"... and {len(table) - 21} more"]
        groups: dict[tuple[str, str], list[tuple[str, Finding]]] = {}
        for a in self.audits:
            for f in a.findings:
                if f.level != "ok":
                    groups.setdefault((f.level, f.what), []).append((a.name, f))
        minded = [_line(self.rig, f) for f in self.findings]
        for (level, _), members in sorted(groups.items()):
            name, f = max(members, key=lambda m: abs(m[1].number))
            names = len({n for n, _ in members})
            of = f" [{names} of {len(self.audits)} recordings]" if names > 1 else ""
            minded.append(_line(name, f) + of)
            del level
        verdict = "refused" if self.refusals else "can be fitted"
        return [f"{self.rig}: {len(self.audits)} recordings, {verdict}", *table, *minded]

    def to_json(self) -> dict[str, Any]:
        """JSON-able data."""
        return {
            "rig": self.rig,
            "refused": bool(self.refusals),
            "findings": [asdict(f) for f in self.findings],
            "recordings": [a.to_json() for a in self.audits],
        }


def audit_episode(episode: Episode, rig: Rig) -> Audit:
    """Audit an episode of a set-up: the signal that it compares, and the commands to the joints if there are any.

    Raises:
      InputError, Missing: the signals are not there, or not finite.
    """
    seen = episode.signal(rig.compared.signal)
    start, size = seen.t_ns[0] if len(seen.t_ns) else 0, rig.compared.size
    label = episode.labels.get("file") or episode.labels.get("toss")
    commands = enabled = None
    if (sent := episode.signals.get("joint_commands.position")) is not None:
        commands = (sent.t_ns - start) * 1e-9, np.asarray(sent.values, float).reshape(len(sent.t_ns), -1)[:, :size]
    if (switch := episode.signals.get("servo.torque_enable")) is not None:
        enabled = (switch.t_ns - start) * 1e-9, np.asarray(switch.values, float).ravel()
    values = np.asarray(seen.values, float).reshape(len(seen.t_ns), -1)[:, :size]
    names = episode.labels.get("joint_states.name", ()) if commands else tuple("xyz"[:size])
    return audit(
        commands,
        ((seen.t_ns - start) * 1e-9, values),
        unit=seen.spec.unit or ("rad" if commands else "m"),
        name=str(episode.log_digest[:12] if label is None else label),
        joints=names if len(names) == size else (),
        enabled=enabled,
        noise=rig.compared.noise,
    )


def audit_setup(rig: str, audits: Sequence[Audit]) -> SetupAudit:
    """The audits of one set-up, and what holds for all of them."""
    moving = [any(f.what == "motion" and f.level == "ok" for f in a.findings) for a in audits]
    found = []
    if not any(moving):
        span = max((f.number for a in audits for f in a.findings if f.what == "motion"), default=0.0)
        unit = next((f.unit for a in audits for f in a.findings if f.what == "motion"), "")
        found.append(Finding("refuse", "no motion", f"{len(audits)} recordings", span, unit, RECORD))
    return SetupAudit(rig, tuple(audits), tuple(found))


def audit_recordings(workspace: Workspace | Path | str, *, rig: str | None = None) -> list[SetupAudit]:
    """Audit the recordings of every set-up in a workspace, those that ``calibrate_recordings`` would fit.

    Raises:
      Missing: no such set-up, or no recordings of one.
    """
    place = workspace if isinstance(workspace, Workspace) else Workspace(workspace, create=False)
    catalogue, found = Catalogue(place.store), dict[str, list[Audit]]()
    names = [rig] if rig is not None else rigs.names()
    for row in catalogue.query("origin != 'simulation' AND verdict != 'rejected'"):
        episode = catalogue.load(row.digest)
        if name := rig_for(episode, names):
            try:
                one = audit_episode(episode, rigs.load(name)())
            except InputError as err:
                one = Audit(row.digest[:12], (Finding("warning", "left out", "recording", 0.0, "", err.line()),))
            found.setdefault(name, []).append(one)
    if not found:
        raise Missing(
            f"no recordings of {rig or 'any rig'}",
            where=str(place.path),
            allowed=f"episodes of {', '.join(names)}",
            run_next=f"flyball ingest DIR --workspace {place.path}",
        )
    return [audit_setup(n, sorted(a, key=lambda x: x.name)) for n, a in found.items()]


def _line(name: str, f: Finding) -> str:
    amount = f"{f.number:.3g} {f.unit}".strip()
    return f"{f.level}: {name}, {f.where}: {f.what} {amount}" + (f": {f.text}" if f.text else "")


def _cell(a: Audit, what: str) -> str:
    """The number of the first joint, as short as can be read."""
    value = a.number(what)
    if not np.isfinite(value):
        return "-"
    unit = next(f.unit for f in a.findings if f.what == what)
    if unit == "s":
        unsure = a.number("delay uncertainty") if what == "delay" else float("nan")
        return f"{1e3 * value:.3g}" + (f" +- {1e3 * unsure:.2g} ms" if np.isfinite(unsure) else " ms")
    return f"{value:.0%}" if what == "at rest" else f"{value:.3g} {unit}".strip()
