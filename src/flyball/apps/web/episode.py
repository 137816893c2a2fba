"""One episode as a self-contained page.

In: an episode, its row, its history, and small pictures of its cameras. Out: HTML with inline SVG: no script, nothing
fetched; light, dark and printed. Every signal is drawn over the same seconds, with the events as marks; long signals
are thinned so that every extreme stays visible. What does not fit is said, not dropped silently.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.apps.web.plots import WIDTH, dot, line, number, svg, text, ticks
from flyball.apps.web.style import STYLE
from flyball.episodes.codec import span_ns
from flyball.episodes.episode import Episode, Frames
from flyball.episodes.frames import decoded, encode_frames

MOST_BYTES = 3_000_000
"""Of all curves together."""
MOST_LINES = 1500
"""Elements that are drawn, of all signals together."""
PER_PLOT = 8
"""Elements in one drawing: as many as there are colours."""
MOST_EVENTS = 200
"""Rows of the table of events, and marks in each drawing."""

LEFT, RIGHT, TOP, BASE = 62.0, 12.0, 16.0, 150.0

_EXTRA = (
    """
svg .name{font-weight:600;font-size:13px}
.mark-line{stroke:var(--truth);stroke-dasharray:2 3;stroke-width:1}
svg .mark-text{fill:var(--truth);font-size:11px}
.limit{stroke:var(--s7);stroke-dasharray:6 4;stroke-width:1}
.gone{fill:var(--s7)}
.plot{margin:0 0 18px}.plot .key{margin:2px 0 0;padding-left:62px}
.plot .swatch{margin-left:6px}.plot .key span.item{margin-right:8px}
.strip{display:flex;flex-wrap:wrap;gap:8px;padding:6px 0 10px}
.strip figure{flex:none;overflow:visible;font-size:12px;color:var(--soft)}
.strip img{display:block;height:120px;width:auto;border-radius:4px;image-rendering:auto;background:var(--grid)}
h3{margin:14px 0 0;font-size:14px;font-weight:600}h3 small{font-weight:400;color:var(--soft)}
code{font-size:12.5px}td.wrap{white-space:normal;min-width:220px;overflow-wrap:anywhere}
"""
    + "".join(f".l{i}{{fill:none;stroke:var(--s{i});stroke-width:1.4;stroke-linejoin:round}}" for i in range(PER_PLOT))
    + "".join(f".swatch.b{i}{{background:var(--s{i});height:4px}}" for i in range(PER_PLOT))
)


@dataclass(frozen=True)
class Picture:
    """A small picture of a camera.

    Attributes:
      t_s: when, since the episode's start [s].
      data: encoded, JPEG or PNG.
    """

    t_s: float
    data: bytes


def thumbnails(frames: Frames, blob: Path, most: int, height: int, room: int) -> list[tuple[int, bytes]]:
    """Small JPEG pictures of a camera at even intervals.

    Args:
      frames, blob: see ``flyball.episodes.frames.read_frames``.
      most: how many.
      height: of each [pixels].
      room: bytes of all together; fewer pictures are made when they need more.

    Returns:
      (number of the picture, JPEG) of each. Depth is spread over black to white.

    Raises:
      FlyballError: see ``read_frames``.
    """
    n = len(frames.t_ns)
    which = np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(int)).tolist() if n else []
    made: list[tuple[int, bytes]] = []
    size: dict[str, int] = {}  # scaled well where the size is known beforehand, else picked
    if frames.height > height and frames.width:
        size = {"height": height, "width": max(1, round(frames.width * height / frames.height))}
    for i, picture in decoded(frames, blob, which, **size):
        tall = min(height, picture.shape[0])
        wide = max(1, round(picture.shape[1] * tall / picture.shape[0]))
        rows = (np.arange(tall) * 2 + 1) * picture.shape[0] // (2 * tall)
        columns = (np.arange(wide) * 2 + 1) * picture.shape[1] // (2 * wide)
        small = picture[rows][:, columns, :3]
        if small.dtype != np.uint8:
            depth = np.where(np.isfinite(small), small, 0).astype(np.float64)
            small = (255 * depth / (depth.max() or 1.0)).astype(np.uint8)
        small = np.repeat(small, 3, axis=2) if small.shape[2] == 1 else small
        ((data, _),) = encode_frames([small], "jpeg", qmin="4", qmax="6")
        made.append((i, data))
    while sum(len(d) for _, d in made) > room:
        made = made[::2] if len(made) > 1 else []
    return made


def render(
    episode: Episode,
    facts: Mapping[str, Any],
    *,
    history: Sequence[Mapping[str, Any]] = (),
    verdicts: Sequence[Mapping[str, Any]] = (),
    lineage: Sequence[Mapping[str, Any]] = (),
    pictures: Mapping[str, Sequence[Picture] | str] | None = None,
) -> str:
    """The page.

    Args:
      episode: what is drawn.
      facts: digest and what else the catalogue knows of it, by name.
      history: column, was, became, reason, at (text) of each change.
      verdicts: check, verdict, reason, version, at (text), current of each.
      lineage: direction, kind, digest, what of artifacts above and below.
      pictures: camera -> pictures, or a text that says why there are none.
    """
    begin, end = span_ns(episode)
    span = max((end - begin) * 1e-9, 1e-9)
    who = episode.robot or episode.embodiment
    title = f"Episode {str(facts.get('digest', ''))[:12]} of {who}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}{_EXTRA}</style></head><body><main>",
        _head(episode, facts, title, span),
        _frames(episode, pictures or {}),
        _signals(episode, begin, span),
        _events(episode, begin),
        _section("Verdicts", ("check", "verdict", "version", "when", "holds", "reason"), verdicts, _verdict_row),
        _section("History", ("column", "was", "became", "when", "reason"), history, _history_row),
        _section("Lineage", ("direction", "kind", "digest", "what"), lineage, _lineage_row),
        _facts(facts),
        "<footer><p>Signals, events and pictures are the episode's; outcome and verdicts the catalogue's.</p></footer>",
        "</main></body></html>\n",
    ]
    return "\n".join(p for p in parts if p)


def _head(episode: Episode, facts: Mapping[str, Any], title: str, span: float) -> str:
    outcome = episode.outcome + (f" ({episode.group})" if episode.group else "")
    told = [
        ("task", episode.task),
        ("robot", episode.robot),
        ("body", episode.embodiment),
        ("origin", episode.origin),
        ("digest", str(facts.get("digest", ""))[:24]),
    ]
    said = " · ".join(f"{k} <b>{escape(v)}</b>" for k, v in told if v)
    samples = sum(len(s.t_ns) for s in episode.signals.values())
    tiles = [
        ("outcome", outcome, escape(str(facts.get("verdict") or ""))),
        ("length", f"{number(span)} s", ""),
        ("signals", str(len(episode.signals)), f"{samples:,} samples"),
        ("cameras", str(len(episode.frames)), f"{sum(len(f.t_ns) for f in episode.frames.values()):,} pictures"),
        ("events", str(len(episode.events)), ""),
    ]
    cells = "".join(f"<div><dt>{k}</dt><dd>{escape(v)}<small>{s}</small></dd></div>" for k, v, s in tiles)
    instruction = f"<p class=says>“{escape(episode.instruction)}”</p>" if episode.instruction else ""
    return (
        f"<header><p class=eyebrow>Flyball episode</p><h1>{escape(title)}</h1><p class=facts>{said}</p>"
        f"{instruction}<dl class=tiles>{cells}</dl></header>"
    )


# -- signals --------------------------------------------------------------------------------------------------------


def _signals(episode: Episode, begin: int, span: float) -> str:
    if not episode.signals:
        return ""
    lines = {name: min(s.spec.size, 4 * PER_PLOT) for name, s in episode.signals.items()}
    shown: list[str] = []
    left = MOST_LINES
    for name in sorted(lines):
        if lines[name] <= left:
            shown.append(name)
            left -= lines[name]
    columns = max(60, min(int(WIDTH), MOST_BYTES // (24 * max(sum(lines[n] for n in shown), 1))))
    plots = "".join(_signal(episode, name, begin, span, columns) for name in shown)
    missing = len(lines) - len(shown)
    note = f" {missing} further signals are not drawn: there are too many for one page." if missing else ""
    return (
        "<section><h2>Signals</h2><p class=says>Seconds since the episode began. Dashed: events, and across "
        f"limits that are near. Red at the foot: NaN or infinite.{note}</p>{plots}</section>"
    )


def _signal(episode: Episode, name: str, begin: int, span: float, columns: int) -> str:
    s = episode.signals[name]
    t = np.multiply(np.asarray(s.t_ns) - begin, 1e-9, dtype=np.float64)
    flat = np.asarray(s.values).reshape(len(t), s.spec.size)
    units = s.spec.unit.split()
    labels = [f"[{','.join(map(str, i))}]" for i in np.ndindex(*s.spec.shape)] if s.spec.shape else [""]
    size = min(s.spec.size, 4 * PER_PLOT)
    if len(t) == 0 or size == 0:
        return f"<div class=plot><h3>{escape(name)} <small>no samples</small></h3></div>"
    rate = (len(t) - 1) / (t[-1] - t[0]) if len(t) > 1 and t[-1] > t[0] else math.nan
    bad = int((~np.isfinite(flat[:, :size].astype(np.float64))).sum())
    about = [f"{len(t):,} samples", f"{number(rate)} Hz" if math.isfinite(rate) else ""]
    about += [f"{bad:,} values NaN or infinite" if bad else ""]
    about += [f"{size} of {s.spec.size} elements are drawn" if size < s.spec.size else ""]
    out = [f"<h3>{escape(name)} <small>{escape(' · '.join(x for x in about if x))}</small></h3>"]
    groups = _groups(size, units)
    for group in groups:
        unit = units[group[0]] if len(units) == s.spec.size > 1 else s.spec.unit if len(units) < 2 else ""
        limits = _limits(s.spec, group)
        label = f"{name} over time" + (f" [{unit}]" if unit else "")
        out.append(
            _plot(t, flat[:, group].astype(np.float64), span, unit, limits, _marks(episode, begin), columns, label)
        )
        if s.spec.shape:
            keys = "".join(
                f'<span class="swatch b{k}"></span><span class=item>{escape(labels[e])}</span>'
                for k, e in enumerate(group)
            )
            out.append(f"<p class=key>{keys}</p>")
    return f"<div class=plot>{''.join(out)}</div>"


def _groups(size: int, units: Sequence[str]) -> list[list[int]]:
    """Elements that share a drawing: of one unit, and no more than there are colours."""
    by_unit: dict[str, list[int]] = {}
    for e in range(size):
        by_unit.setdefault(units[e] if len(units) > 1 and e < len(units) else "", []).append(e)
    return [g[i : i + PER_PLOT] for g in by_unit.values() for i in range(0, len(g), PER_PLOT)]


def _limits(spec: Any, group: Sequence[int]) -> list[float]:
    found = []
    for bound in (spec.low, spec.high):
        if bound is not None:
            values = (
                np.broadcast_to(np.asarray(bound, float).reshape(-1), spec.size) if len(bound) in (1, spec.size) else ()
            )
            found += [float(values[e]) for e in group if len(values) and math.isfinite(values[e])]
    return sorted(set(found))


def _marks(episode: Episode, begin: int) -> list[tuple[float, str]]:
    return [((e.t_ns - begin) * 1e-9, e.name) for e in episode.events[:MOST_EVENTS]]


def _plot(
    t: NDArray[np.float64],
    values: NDArray[np.float64],
    span: float,
    unit: str,
    limits: Sequence[float],
    marks: Sequence[tuple[float, str]],
    columns: int,
    label: str,
) -> str:
    """Curves over time, (n,) and (n, curves)."""
    finite = values[np.isfinite(values)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    near = [x for x in limits if low - 0.3 * (high - low) <= x <= high + 0.3 * (high - low) and high > low]
    low, high = min([low, *near]), max([high, *near])
    if not math.isfinite(high - low):  # the span of the values exceeds what a float can hold
        low, high = low / 4, high / 4
    if high - low <= 1e-12 * max(abs(low), abs(high)):
        pad = 0.05 * abs(high) or 1.0
        low, high = low - pad, high + pad

    def px(x: Any) -> Any:
        return LEFT + x / span * (WIDTH - LEFT - RIGHT)

    def py(y: Any) -> Any:
        return BASE - (y - low) / (high - low) * (BASE - TOP)

    out = []
    for v in ticks(low, high, 3):
        out += [line(LEFT, py(v), WIDTH - RIGHT, py(v), "grid"), text(LEFT - 7, py(v) + 4, number(v), "tick", "end")]
    for v in ticks(0, span, 8):
        out += [text(px(v), BASE + 16, f"{v:g}" + (" s" if v == 0 else ""), "tick", "middle")]
    out += [line(LEFT, BASE, WIDTH - RIGHT, BASE, "axis"), text(LEFT - 7, TOP - 5, unit, "tick", "end")]
    out += [line(LEFT, py(v), WIDTH - RIGHT, py(v), "limit") for v in near]
    last = -1e9
    for at, name in marks:
        out += [line(px(at), TOP, px(at), BASE, "mark-line")]
        if px(at) - last > 7 + 5.5 * len(name):
            after = px(at) < WIDTH - 6 * len(name) - RIGHT
            out += [text(px(at) + (3 if after else -3), TOP - 4, name, "mark-text", "start" if after else "end")]
            last = px(at)
    for k in range(values.shape[1]):
        for xs, ys in _pieces(px(t), py(values[:, k]), columns):
            if len(xs) == 1:
                out += [dot(xs[0], ys[0], f"s{k}", 1.8)]
            else:
                path = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
                out += [f'<polyline points="{path}" class="l{k}"/>']
    gone = np.unique(np.round(px(t[~np.isfinite(values).all(axis=1)])))
    out += [f'<rect x="{x:.0f}" y="{BASE - 3:.0f}" width="1.5" height="6" class="gone"/>' for x in gone[:500]]
    return f"<figure>{svg(WIDTH, BASE + 22, out, label)}</figure>"


def _pieces(
    x: NDArray[np.float64], y: NDArray[np.float64], columns: int
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """A curve in unbroken pieces: broken where it is not a number, thinned to extremes of each column of pixels."""
    sound = np.isfinite(y)
    if not sound.any():
        return []
    out = []
    for piece in np.split(np.arange(len(y)), np.flatnonzero(np.diff(sound.astype(np.int8))) + 1):
        if not sound[piece[0]]:
            continue
        px, py = x[piece], y[piece]
        if len(piece) > 2 * columns:
            column = np.floor(px / WIDTH * columns).astype(np.int64)
            starts = np.flatnonzero(np.concatenate([[True], np.diff(column) != 0]))
            sizes = np.diff(np.append(starts, len(px)))
            owner = np.repeat(np.arange(len(starts)), sizes)
            order = np.lexsort((py, owner))
            ends = np.cumsum(sizes) - 1
            keep = np.unique(np.concatenate([[0, len(px) - 1], order[starts], order[ends]]))
            px, py = px[keep], py[keep]
        out.append((px, py))
    return out


# -- the rest -------------------------------------------------------------------------------------------------------


def _frames(episode: Episode, pictures: Mapping[str, Sequence[Picture] | str]) -> str:
    if not episode.frames:
        return ""
    out = ["<section><h2>Cameras</h2><p class=says>Pictures at even intervals.</p>"]
    for name, f in sorted(episode.frames.items()):
        size = f"{f.width} × {f.height}" if f.width else ""
        about = " · ".join(x for x in (f"{len(f.t_ns):,} pictures", f.encoding, size) if x)
        out.append(f"<h3>{escape(name)} <small>{escape(about)}</small></h3>")
        found = pictures.get(name, "no pictures")
        if isinstance(found, str):
            out.append(f"<p class=says>{escape(found)}</p>")
            continue
        cells = "".join(
            f'<figure><img alt="{escape(name, quote=True)} at {p.t_s:.2f} s" src="data:{_kind(p.data)};base64,'
            f'{base64.b64encode(p.data).decode()}">{p.t_s:.2f} s</figure>'
            for p in found
        )
        out.append(f"<div class=strip>{cells}</div>")
    return "".join(out) + "</section>"


def _kind(data: bytes) -> str:
    return "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"


def _events(episode: Episode, begin: int) -> str:
    if not episode.events:
        return ""
    rows = [(f"{(e.t_ns - begin) * 1e-9:.3f} s", e.name, e.text) for e in episode.events[:MOST_EVENTS]]
    more = len(episode.events) - len(rows)
    note = f"<p class=says>The first {len(rows)} of {len(episode.events)}.</p>" if more else ""
    return f"<section><h2>Events</h2>{note}{_table(('time', 'event', 'what'), rows)}</section>"


def _section(title: str, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], row: Any) -> str:
    return f"<section><h2>{title}</h2>{_table(columns, [row(r) for r in rows])}</section>" if rows else ""


def _verdict_row(v: Mapping[str, Any]) -> tuple[str, ...]:
    said = v["verdict"] or "taken back"
    return (v["check"], said, v["version"], v["at"], "yes" if v["current"] else "no", v["reason"])


def _history_row(h: Mapping[str, Any]) -> tuple[str, ...]:
    return (h["column"], h["was"] or "–", h["became"] or "–", h["at"], h["reason"])


def _lineage_row(a: Mapping[str, Any]) -> tuple[str, ...]:
    return (a["direction"], a["kind"], str(a["digest"])[:16], a["what"])


def _facts(facts: Mapping[str, Any]) -> str:
    labels = facts.get("labels") or {}
    rows = [(k, v) for k, v in facts.items() if k != "labels" and v not in ("", None, -1)]
    rows += [(f"labels.{k}", v) for k, v in labels.items()]
    return f"<section><h2>Facts</h2>{_table(('name', 'value'), [(k, _short(v)) for k, v in rows])}</section>"


def _short(value: Any, most: int = 400) -> str:
    said = str(value)
    return said if len(said) <= most else f"{said[:most]} … ({len(said):,} characters)"


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    head = "".join(f"<th class=text>{escape(c)}</th>" for c in columns)
    body = "".join(
        "<tr>"
        + "".join(f'<td class="text{" wrap" if len(str(c)) > 40 else ""}">{escape(str(c))}</td>' for c in row)
        + "</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
