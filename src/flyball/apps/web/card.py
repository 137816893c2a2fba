"""The report card of engines as one self-contained HTML page. In: cards as JSON (``Card.to_json``). Out: the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from flyball.apps.web.style import STYLE

_EXTRA = (
    "td.text{white-space:normal} td.failed{color:#b3261e;font-weight:700} td.passed{color:#1b7f4d} "
    "td.unsupported{color:#777}"
)


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
            *(_section(card) for card in cards),
            "</main></body></html>\n",
        ]
    )


def _section(card: Mapping[str, Any]) -> str:
    marks = card["marks"]
    counts = {r: sum(m["result"] == r for m in marks) for r in ("passed", "failed", "unsupported")}
    says = ", ".join(f"{n} {r}" for r, n in counts.items() if n)
    head = "".join(f"<th class=text>{c}</th>" for c in ("law", "result", "off by", "at most", "measured", "reason"))
    return (
        f"<section><h2>{escape(card['engine'])} {escape(card['version'])}</h2><p class=says>{says}</p>"
        f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{''.join(map(_row, marks))}</tbody></table>"
        "</div></section>"
    )


def _row(m: Mapping[str, Any]) -> str:
    error = "–" if m["error"] is None else f"{m['error']:.2g}"
    law = f"<b>{escape(m['law'])}</b><br>{escape(m['says'])}"
    cells = (error, f"{m['tolerance']:.2g}", escape(m["note"]), escape(m["why"]))
    return (
        f"<tr><td class=text>{law}</td><td class='text {m['result']}'>{m['result']}</td>"
        + "".join(f"<td class=text>{c}</td>" for c in cells)
        + "</tr>"
    )
