"""The report card of engines as one self-contained HTML page. In: cards as JSON (``Card.to_json``). Out: the page."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from flyball.apps.web.plots import dot, line, number, svg, text, ticks
from flyball.apps.web.style import STYLE

_EXTRA = (
    "td{vertical-align:top} td.figure{text-align:left} td.text{white-space:normal} "
    "td.failed{color:#b3261e;font-weight:700} td.passed{color:#1b7f4d} td.unsupported{color:#777} "
    "h3{margin:22px 0 0;font-size:15px} "
    "td table{margin:4px 0 0;min-width:0} td table td,td table th{padding:1px 10px 1px 0;border:0} "
    ".law{fill:none;stroke:var(--truth);stroke-width:1.4;stroke-dasharray:5 3} td svg{margin-top:6px;min-width:290px} "
    ".overview{margin:20px 0 0;padding:0 4px}"
)
_SIGNS = {"passed": "✓", "failed": "✗ FAILED", "unsupported": "–"}
_WIDTH, _HEIGHT = 300.0, 132.0


def render(cards: Sequence[Mapping[str, Any]]) -> str:
    """The page."""
    title = "Flyball: report card of physics engines"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{STYLE}{_EXTRA}</style></head><body><main>",
            "<header><p>Flyball report card</p><h1>What physics engines make of mechanics</h1>",
            "<p>Each law was run through the engine's own interface. Tolerances were declared beforehand, with a "
            "reason; a law that an engine cannot be asked about is no failure.</p></header>",
            _overview(cards) if len(cards) > 1 else "",
            *(_section(card) for card in cards),
            "</main></body></html>\n",
        ]
    )


def _overview(cards: Sequence[Mapping[str, Any]]) -> str:
    """Laws by engines, one sign each."""
    laws = list(dict.fromkeys(m["law"] for card in cards for m in card["marks"]))
    results = [{m["law"]: m["result"] for m in card["marks"]} for card in cards]
    head = "".join(f"<th class=text>{escape(c['engine'])}</th>" for c in cards)
    rows = "".join(
        f"<tr><td class=text>{escape(law)}</td>"
        + "".join(f"<td class='text {r.get(law, '')}'>{_SIGNS.get(r.get(law, ''), '')}</td>" for r in results)
        + "</tr>"
        for law in laws
    )
    return (
        "<div class=overview><h2>All engines</h2><p class=says>✓ within the tolerance, – cannot be asked</p>"
        f"<div class=scroll><table><thead><tr><th class=text>law</th>{head}</tr></thead><tbody>{rows}</tbody></table>"
        "</div></div>"
    )


def _section(card: Mapping[str, Any]) -> str:
    marks = card["marks"]
    counts = {r: sum(m["result"] == r for m in marks) for r in ("passed", "failed", "unsupported")}
    says = ", ".join(f"{n} {r}" for r, n in counts.items() if n)
    levels = ("exact", "approximate", "unsupported")
    able = {level: ", ".join(k for k, v in card["capabilities"].items() if v == level) for level in levels}
    declared = "<br>".join(escape(f"{level}: {features}") for level, features in able.items() if features)
    families = list(dict.fromkeys(m["family"] for m in marks))
    tables = (_family(f, [m for m in marks if m["family"] == f]) for f in families)
    kind = f"formulation: {card['formulation']}, {card['precision']} precision"
    return (
        f"<section><h2>{escape(card['engine'])} {escape(card['version'])}</h2><p class=says>{says}<br>"
        f"{escape(kind)}<br>{declared}</p>{''.join(tables)}</section>"
    )


def _family(name: str, marks: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th class=text>{c}</th>" for c in ("law", "result", "off by", "at most", "measured", "reason"))
    return (
        f"<h3>{escape(name)}</h3><div class=scroll><table><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(map(_row, marks))}</tbody></table></div>"
    )


def _row(m: Mapping[str, Any]) -> str:
    error = "–" if m["error"] is None else f"{m['error']:.2g}"
    law = f"<b>{escape(m['law'])}</b><br>{escape(m['says'])}"
    figures = (error, f"{m['tolerance']:.2g}")
    cells = (escape(m["note"]) + _behind(m), escape(m["why"]))
    return (
        f"<tr><td class=text>{law}</td><td class='text {m['result']}'>{m['result']}</td>"
        + "".join(f"<td class=figure>{c}</td>" for c in figures)
        + "".join(f"<td class=text>{c}</td>" for c in cells)
        + "</tr>"
    )


def _behind(m: Mapping[str, Any]) -> str:
    """What lies behind a mark: a sweep and a course as drawings, anything else as a small table."""
    data: Mapping[str, Sequence[float | None]] = m["data"]
    if not data:
        return ""
    columns = list(data)
    numbers = {k: [x for x in v if x is not None] for k, v in data.items()}
    whole = all(len(numbers[k]) == len(data[k]) > 1 for k in columns)
    if whole and columns[0].startswith("step") and all(x > 0 for v in numbers.values() for x in v):
        return _plot(numbers, m["law"], logarithmic=True)
    if whole and columns[0].startswith("t "):
        return _plot(numbers, m["law"], logarithmic=False)
    head = "".join(f"<th class=text>{escape(k)}</th>" for k in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{number(x)}</td>" for x in row) + "</tr>" for row in zip(*data.values(), strict=True)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"


def _plot(data: Mapping[str, Sequence[float]], name: str, *, logarithmic: bool) -> str:
    """The second column over the first with dots, a third one, the law's, as a line."""
    left, right, up, base = 58.0, 10.0, 10.0, _HEIGHT - 30
    (x_name, xs), (y_name, ys), *law = data.items()
    span = math.log10 if logarithmic else float
    x_low, x_high = span(min(xs)), span(max(xs))
    every = [*ys, *(v for _, values in law for v in values)]
    y_low, y_high = span(min(every)), span(max(every))
    if logarithmic:
        y_low, y_high = math.floor(y_low), math.ceil(y_high)
    if x_high <= x_low or y_high <= y_low:
        return ""

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (span(x) - x_low) / (x_high - x_low) * (_WIDTH - left - right - 10),
            base - (span(y) - y_low) / (y_high - y_low) * (base - up),
        )

    marks = [10.0**k for k in range(int(y_low), int(y_high) + 1)] if logarithmic else ticks(y_low, y_high, 3)
    out = []
    for v in marks[:: max(1, len(marks) // 4)]:
        y = at(xs[0], v)[1]
        out += [line(left, y, _WIDTH - right, y, "grid"), text(left - 6, y + 4, number(v), "tick", "end")]
    for v in xs if logarithmic else ticks(x_low, x_high, 4):
        out.append(text(at(v, ys[0])[0], base + 15, number(v), "tick", "middle"))
    for _, values in law:
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(at, xs, values))
        out.append(f'<polyline points="{path}" class="law"/>')
    out += [dot(*at(x, y), "mark", 3.5, f"{number(x)}: {number(y)}") for x, y in zip(xs, ys, strict=True)]
    axes = f"{y_name} over {x_name}" + (", the law dashed" if law else "")
    out.append(text(_WIDTH - right, base + 29, axes, "tick", "end"))
    return svg(_WIDTH, _HEIGHT, out, f"{name}: {axes}")
