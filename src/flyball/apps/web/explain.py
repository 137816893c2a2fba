"""An explanation of a failure as one self-contained HTML page. In: the explanation's JSON. Out: the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from flyball.apps.web.plots import WIDTH, dot, line, number, rect, svg, text
from flyball.apps.web.style import STYLE

_EXTRA = (
    "".join(f".m{k}{{fill:color-mix(in srgb,var(--s2) {25 * k}%,var(--s7))}}" for k in range(5))
    + ".here{fill:var(--ink);stroke:var(--card);stroke-width:2}"
)


def render(document: Mapping[str, Any]) -> str:
    """The page.

    Args:
      document: ``Explanation.to_json()`` with ``episode`` and ``files``.
    """
    d = document
    title = f"{d['task']}: {d['failure']['group']} at {d['failure']['at_s']:.2f} s"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}{_EXTRA}</style></head><body><main>",
        f"<header><p class=eyebrow>Flyball explains episode {escape(str(d['episode'])[:24])}</p>",
        f"<h1>{escape(title)}</h1><p class=facts><b>{escape(d['verdict'])}</b>: {escape(d['sentence'])}</p></header>",
        _tiles(d),
    ]
    if d["margin"]:
        parts.append(_margin(d["margin"]))
    if d["causes"]:
        parts.append(_causes(d["causes"]))
    if d["changes"]:
        parts.append(_changes(d["changes"], d["retold"], d["others"]))
    files = "".join(f"<li>{escape(k.replace('_', ' '))}: {escape(v)}</li>" for k, v in d["files"].items())
    parts.append(
        f"<footer><p>{d['attempts']} simulated attempts, {d['steps']} control periods, {d['seconds']:.0f} s. Shares "
        "are Shapley's values over posterior samples; bands are 90 %, over the same samples.</p>"
        f"<ul>{files}</ul></footer></main></body></html>\n"
    )
    return "\n".join(parts)


def _tiles(d: Mapping[str, Any]) -> str:
    tiles = [
        ("replays fail alike", _share(d["alike"]), "80 % are needed"),
        ("off the log's course", number(d["misfit"]), "1 is allowed"),
        ("the policy fails again", _share(d["fails"]), "in closed loop"),
        ("commands not the policy's", _share(d["foreign"]), "of the control periods"),
    ]
    return (
        "<dl class=tiles>"
        + "".join(f"<div><dt>{a}</dt><dd>{b}<small>{c}</small></dd></div>" for a, b, c in tiles)
        + "</dl>"
    )


def _share(x: float | None) -> str:
    return "–" if x is None or x != x else f"{100 * x:.0f} %"


def _margin(m: Mapping[str, Any]) -> str:
    """Success over two levers, one cell per simulated pair."""
    x, y, share = m["x"], m["y"], m["share"]
    left, top, base, right = 96.0, 26.0, 342.0, 40.0
    nx, ny = len(x["values"]), len(y["values"])
    w, h = (WIDTH - left - right) / nx, (base - top) / ny
    out = []
    for j in range(ny):
        for i in range(nx):
            tip = f"{x['path']} {number(x['values'][i])}, {y['path']} {number(y['values'][j])}: {_share(share[j][i])}"
            cls = f"m{round(4 * share[j][i])}"
            out.append(rect(left + i * w, base - (j + 1) * h, w - 1.5, h - 1.5, cls, tip, 2))
    for i in range(0, nx, 2):
        out.append(text(left + (i + 0.5) * w, base + 17, number(x["values"][i]), "tick", "middle"))
    for j in range(0, ny, 2):
        out.append(text(left - 8, base - (j + 0.5) * h + 4, number(y["values"][j]), "tick", "end"))
    px = left + (_place(m["at"][0], x) + 0.5) * w
    py = base - (_place(m["at"][1], y) + 0.5) * h
    out += [line(px, top, px, base, "event"), line(left, py, WIDTH - right, py, "event")]
    out.append(dot(px, py, "here", 7, f"the attempt: {number(m['at'][0])}, {number(m['at'][1])}"))
    out.append(text(WIDTH - right, base + 36, _axis(x), "tick", "end"))
    out.append(text(8, top - 12, _axis(y), "tick"))
    picture = svg(WIDTH, base + 44, out, f"Success over {x['path']} and {y['path']}")
    return (
        "<section><h2>Margin</h2><p class=says>Where the policy succeeds (green) and fails (red) around the attempt "
        f"(the dot), everything else as in the failure.</p><figure>{picture}</figure></section>"
    )


def _place(value: float, axis: Mapping[str, Any]) -> float:
    """A value's place among an axis's values, in steps."""
    import math

    f = math.log if axis["scale"] == "log" else float
    first, last = f(axis["values"][0]), f(axis["values"][-1])
    at = (f(value) - first) / (last - first) * (len(axis["values"]) - 1) if last > first else 0.0
    return min(max(at, 0.0), len(axis["values"]) - 1.0)


def _axis(a: Mapping[str, Any]) -> str:
    return f"{a['path']}" + (f" [{a['unit']}]" if a["unit"] else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: Sequence[int] = (0,)) -> str:
    """A table; columns of words are set left, numbers right."""
    kinds = [" class=text" if k in words else "" for k in range(len(head))]
    th = "".join(f"<th{kind}>{escape(c)}</th>" for kind, c in zip(kinds, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(c)}</td>" for kind, c in zip(kinds, r, strict=True)) + "</tr>"
        for r in rows
    )
    return f"<div class=scroll><table><thead><tr>{th}</tr></thead><tbody>{body}</tbody></table></div>"


def _causes(causes: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        (c["path"], _share(c["share"]), number(c["believed"]), number(c["actual"]), number(c["sigma"]), c["label"])
        for c in causes
    ]
    head = ("what deviates", "share", "believed", "was", "sigma", "what it is")
    table = _table(head, rows, (0, 5))
    return f"<section><h2>Causes</h2><p class=says>What putting each back brings.</p>{table}</section>"


def _changes(changes: Sequence[Mapping[str, Any]], retold: float, others: Mapping[str, float]) -> str:
    rows = [
        (c["path"], c["text"], number(c["before"]), number(c["after"]), _share(c["flips"]),
         "can be acted on" if c["actionable"] else "given")
        for c in changes
    ]  # fmt: skip
    head = ("lever", "least change", "before", "after", "flips", "")
    more = [f"Told what these worlds are like, the policy succeeds in {_share(retold)}."]
    more += [f"Instead, {escape(name)} succeeds in {_share(share)}." for name, share in others.items()]
    return (
        "<section><h2>What would have held</h2><p class=says>The policy tried again in closed loop, one thing changed. "
        f"{' '.join(more)}</p>{_table(head, rows, (0, 5))}</section>"
    )
