"""Plots as inline SVG. In: numbers and labels. Out: SVG text that takes its colours from the page's style sheet.

Marks carry classes, not colours, so that light, dark and printed pages need one drawing. Text sizes are in the same
units as lengths; drawings are laid out for the width they are shown at and shrink with narrow windows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH = 880
SERIES = 8  # number of categorical colours in the style sheet


def svg(width: float, height: float, body: Sequence[str], label: str) -> str:
    """A drawing with an accessible label."""
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{escape(label, quote=True)}">{"".join(body)}</svg>'
    )


def text(x: float, y: float, s: str, cls: str = "", anchor: str = "start") -> str:
    """One line of text; ``y`` is its baseline."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" class="{cls}">{escape(s)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, cls: str) -> str:
    """A straight line."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{cls}"/>'


def rect(x: float, y: float, w: float, h: float, cls: str, title: str = "", r: float = 0) -> str:
    """A rectangle with an optional tooltip."""
    tip = f"<title>{escape(title)}</title>" if title else ""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="{max(w, 0):.1f}" height="{max(h, 0):.1f}" rx="{r}" class="{cls}">'
        f"{tip}</rect>"
    )


def dot(x: float, y: float, cls: str, r: float = 4, title: str = "") -> str:
    """A filled circle."""
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r}" class="{cls}"><title>{escape(title)}</title></circle>'


def diamond(x: float, y: float, cls: str, r: float = 5, title: str = "") -> str:
    """A diamond: the truth."""
    points = f"{x:.1f},{y - r:.1f} {x + r:.1f},{y:.1f} {x:.1f},{y + r:.1f} {x - r:.1f},{y:.1f}"
    return f'<polygon points="{points}" class="{cls}"><title>{escape(title)}</title></polygon>'


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers within [low, high], about ``count`` of them."""
    if not high > low:
        return [low]
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= raw * 0.75)
    first = math.ceil(low / step - 1e-9)
    return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def number(x: float | None) -> str:
    """A number for people, three significant digits."""
    if x is None or not math.isfinite(x):
        return "–"
    if x == 0:
        return "0"
    if 1e-4 <= abs(x) < 1e6:
        digits = max(0, 2 - math.floor(math.log10(abs(x))))
        out = f"{x:.{digits}f}"
        out = out.rstrip("0").rstrip(".") if "." in out else out
    else:
        out = f"{x:.2g}"
    return out.replace("-", "−")


@dataclass(frozen=True)
class Point:
    """One turn of a curve: value with an optional interval, and what is written at the point."""

    x: int
    y: float
    low: float | None = None
    high: float | None = None
    label: str = ""


def curve(
    points: Sequence[Point],
    *,
    top: float,
    percent: bool,
    marks: Mapping[int, str],
    released: Mapping[int, str],
    name: str,
) -> str:
    """A value by turn, with its interval as a band and every value written.

    Args:
      points: one per turn, in order.
      top: upper end of the axis, which starts at 0.
      percent: label the axis in percent.
      marks: turn -> what happened to the world there.
      released: turn -> what the loop did at the end of that turn, written below the axis.
      name: what a screen reader is told.
    """
    left, right, up, base = 52.0, 40.0, 30.0, 262.0
    first, last = points[0].x, points[-1].x
    span = max(last - first, 1)
    roomy = len(points) <= 10

    def px(turn: float) -> float:
        if first == last:
            return (left + WIDTH - right) / 2
        return left + 40 + (turn - first) / span * (WIDTH - left - right - 80)

    def py(v: float) -> float:
        return base - v / top * (base - up)

    out = []
    for v in ticks(0, top, 4):
        out += [line(left, py(v), WIDTH - right, py(v), "grid")]
        out += [text(left - 8, py(v) + 4, f"{100 * v:.0f} %" if percent else number(v), "tick", "end")]
    for turn, what in marks.items():
        if first <= turn <= last:
            out += [line(px(turn), up - 8, px(turn), base, "event"), text(px(turn), up - 14, what, "note", "middle")]
    banded = [p for p in points if p.low is not None and p.high is not None]
    if len(banded) > 1:
        upper = [f"{px(p.x):.1f},{py(p.high or 0):.1f}" for p in banded]
        lower = [f"{px(p.x):.1f},{py(p.low or 0):.1f}" for p in reversed(banded)]
        out += [f'<polygon points="{" ".join(upper + lower)}" class="band"/>']
    path = " ".join(f"{px(p.x):.1f},{py(p.y):.1f}" for p in points)
    out += [f'<polyline points="{path}" class="curve"/>']
    for i, p in enumerate(points):
        x, y = px(p.x), py(p.y)
        if p.low is not None and p.high is not None:
            out += [line(x, py(p.low), x, py(p.high), "whisker")]
            out += [line(x - 5, py(e), x + 5, py(e), "whisker") for e in (p.low, p.high)]
        out += [dot(x, y, "mark", 4.5, f"turn {p.x}: {p.label}")]
        # Above the interval; below it in a valley or where the axis ends. A halo keeps the curve out of the digits.
        around = [q.y for q in points[max(i - 1, 0) : i + 2] if q is not p]
        above = py(p.high if p.high is not None else p.y) - 9
        below = py(p.low if p.low is not None else p.y) + 19
        valley = bool(around) and p.y < min(around) and below < base - 4
        out += [text(x, below if valley or above < up + 4 else above, p.label, "value halo", "middle")]
        out += [text(x, base + 20, f"turn {p.x}" if roomy else f"{p.x}", "tick", "middle")]
        if p.x in released and roomy:
            out += [text(x, base + 37, released[p.x], "note", "middle")]
    return svg(WIDTH, base + 48, out, name)


def stacked(rows: Sequence[tuple[str, Mapping[str, float]]], order: Sequence[str], name: str) -> str:
    """Counts per group as horizontal stacked bars, one per turn, each part labelled.

    Args:
      rows: (label, group -> count).
      order: groups, in the order of their colours.
      name: what a screen reader is told.
    """
    left, right, pitch, thick = 64.0, 60.0, 34.0, 22.0
    most = max((sum(r.values()) for _, r in rows), default=0) or 1
    scale = (WIDTH - left - right) / most
    out: list[str] = []
    x = left
    for i, g in enumerate(order):
        out += [rect(x, 4, 11, 11, f"s{i % SERIES}", r=2), text(x + 16, 14, g, "legend")]
        x += 34 + 7.2 * len(g)
    y = 30.0
    for label, counts in rows:
        out += [text(left - 10, y + 15, label, "tick", "end")]
        x = left
        for i, g in enumerate(order):
            n = counts.get(g, 0)
            if not n:
                continue
            w = n * scale
            out += [rect(x, y, w - 1.5, thick, f"s{i % SERIES}", f"{label}: {n:g} {g}", 2)]
            if w > 26:
                out += [text(x + w / 2, y + 15.5, f"{n:g}", f"on{i % SERIES}", "middle")]
            x += w
        total = sum(counts.values())
        out += [text(x + 7, y + 15.5, f"{total:g}" if total else "none", "value")]
        y += pitch
    return svg(WIDTH, y + 2, out, name)


@dataclass(frozen=True)
class Band:
    """One robot's value of a parameter: the fitted band and the truth, when it is known."""

    robot: str
    mean: float | None
    low: float | None
    high: float | None
    identified: bool
    truth: float | None


def bands(title: str, unit: str, rows: Sequence[Band], span: tuple[float, float], label: str) -> str:
    """One parameter over all robots: bands against the truth, on the allowed range."""
    width, left, right, head, pitch = 282.0, 66.0, 12.0, 30.0, 17.0
    low, high = span
    base = head + pitch * len(rows) + 4

    def px(v: float) -> float:
        share = (v - low) / (high - low) if high > low else 0.5
        return left + min(max(share, 0.0), 1.0) * (width - left - right)

    out = [text(0, 14, title, "panel"), text(width - right, 14, unit, "tick", "end")]
    for v in ticks(low, high, 3):
        out += [line(px(v), head - 8, px(v), base, "grid"), text(px(v), base + 14, number(v), "tick small", "middle")]
    out += [line(left, base, width - right, base, "axis")]
    for i, r in enumerate(rows):
        y = head + pitch * (i + 0.5)
        tip = f"{r.robot}: {number(r.mean)} [{number(r.low)}, {number(r.high)}], truth {number(r.truth)}"
        out += [text(left - 8, y + 4, r.robot, "tick small", "end")]
        if r.low is not None and r.high is not None:
            w = max(px(r.high) - px(r.low), 2)
            out += [rect(px(r.low), y - 4, w, 8, "fit" if r.identified else "unfit", tip, 2)]
        if r.mean is not None:
            out += [line(px(r.mean), y - 4, px(r.mean), y + 4, "centre" if r.identified else "centre faint")]
        if r.truth is not None:
            out += [diamond(px(r.truth), y, "truth", 4.5, tip)]
    return svg(width, base + 20, out, label)


@dataclass(frozen=True)
class Happening:
    """One row of the rollout timeline: seconds since the start, what, and where ("" lane: the hub)."""

    turn: int
    t: float
    event: str
    robots: tuple[str, ...]


def timeline(events: Sequence[Happening], robots: Sequence[str], kinds: Sequence[str], name: str) -> str:
    """What happened on which robot and when; one lane per robot and one for the hub."""
    left, right, pitch = 82.0, 24.0, 22.0
    lanes = ["hub", *robots]
    t0, t1 = min(e.t for e in events), max(e.t for e in events)
    span = (t1 - t0) or 1.0
    t0, t1 = t0 - 0.02 * span, t1 + 0.02 * span

    def px(t: float) -> float:
        return left + (t - t0) / (t1 - t0) * (WIDTH - left - right)

    out: list[str] = []
    x, head = left, 14.0
    for i, k in enumerate(kinds):
        w = 34 + 7.2 * len(k)
        if x + w > WIDTH - right:
            x, head = left, head + 20
        out += [dot(x + 5, head - 4, f"s{i % SERIES}", 5), text(x + 16, head, k, "legend")]
        x += w
    top = head + 30
    base = top + pitch * len(lanes)
    for i, lane in enumerate(lanes):
        y = top + pitch * (i + 0.5)
        out += [line(left, y, WIDTH - right, y, "grid"), text(left - 10, y + 4, lane, "tick", "end")]
    last_x = -1e9
    for turn in sorted({e.turn for e in events}):
        x = px(min(e.t for e in events if e.turn == turn)) - 9
        out += [line(x, top - 6, x, base, "event")]
        if x - last_x > 44:
            out += [text(x + 4, top - 8, f"turn {turn}", "note")]
            last_x = x
    for e in events:
        for lane in e.robots or ("hub",):
            y = top + pitch * (lanes.index(lane) + 0.5)
            tip = f"turn {e.turn}, {number(e.t)} s, {lane}: {e.event}"
            out += [dot(px(e.t), y, f"s{kinds.index(e.event) % SERIES} ring", 5.5, tip)]
    for t in ticks(t0, t1, 6):
        if t >= 0:
            out += [text(px(t), base + 16, f"{t:g} s", "tick", "middle")]
    return svg(WIDTH, base + 26, out, name)


def bar_table(rows: Sequence[str], columns: Sequence[str], cell: Mapping[tuple[str, str], float], name: str) -> str:
    """A table of bars: one row per stage, one column per turn, every number written beside its bar."""
    left, pitch, gap = 132.0, 22.0, 12.0
    width = (WIDTH - left) / max(len(columns), 1)
    room = width - gap - 46
    most = max(cell.values(), default=0.0) or 1.0
    out = [text(left + j * width, 14, c, "tick") for j, c in enumerate(columns)]
    y = 24.0
    for r in rows:
        out += [text(left - 12, y + 14, r, "tick", "end")]
        for j, c in enumerate(columns):
            v = cell.get((r, c))
            if v is None:
                continue
            w = max(v / most * room, 1.0)
            out += [rect(left + j * width, y + 3, w, 14, "bar", f"{r}, {c}: {v:.1f} s", 2)]
            out += [text(left + j * width + w + 5, y + 14, f"{v:.1f}" if v < 99.95 else f"{v:.0f}", "value small")]
        y += pitch
    return svg(WIDTH, y + 4, out, name)
