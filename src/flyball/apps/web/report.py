"""The report of a demo run as one self-contained page.

In: the document that ``flyball demo --json`` prints. Out: HTML with inline SVG: no script, nothing fetched; light, dark
and printed. Every figure says in one sentence what it shows and has its numbers in a table below. Keys that a document
lacks leave their figure out; nothing is made up.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from flyball.apps.web.plots import Band, Happening, Point, bands, bar_table, curve, number, stacked, timeline
from flyball.apps.web.style import STYLE


def render(document: Mapping[str, Any]) -> str:
    """The page.

    Args:
      document: ``turns[]`` and, where there are any, ``parameters[]``, ``rollout[]``, ``warnings[]``, ``control``,
        ``seed``, ``seconds``, ``steps``, ``task``. A parameter may carry ``unit`` and ``range`` [low, high]; a turn may
        carry ``changed``, the robots whose world the loop found changed, and ``again``, who was looked at twice.
        ``gap_text`` and ``gap_unit`` say what the gap is.
    """
    turns = list(document.get("turns", ()))
    figures = [
        _success(turns),
        _gap(document, turns),
        _failures(turns),
        _parameters(document),
        _rollout(document),
        _drift(turns),
        _time(turns),
    ]
    title = "Flyball: one run of the loop"
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title><style>{STYLE}</style></head><body><main>",
            _head(document, turns),
            *(f for f in figures if f),
            _foot(document),
            "</main></body></html>\n",
        ]
    )


# -- parts of the page ----------------------------------------------------------------------------------------------


def _head(document: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> str:
    control = document.get("control") or "loop"
    facts = [
        ("task", document.get("task")),
        ("control", control),
        ("seed", document.get("seed")),
        ("robots", len(_robots(document)) or None),
        ("time", None if document.get("seconds") is None else _duration(document["seconds"])),
    ]
    line = " · ".join(f"{k} <b>{escape(str(v))}</b>" for k, v in facts if v is not None)
    out = [f"<header><p class=eyebrow>Flyball report</p><h1>{escape(_finding(turns))}</h1><p class=facts>{line}</p>"]
    if turns:
        first, last = turns[0], turns[-1]
        releases = sum(bool(t.get("released")) for t in turns)
        reproduced = [t["reproduced"] for t in turns if t.get("reproduced") and t["reproduced"].get("of")]
        tiles = [
            ("fleet success, last turn", _percent(last["fleet"]["success"]), _interval(last["fleet"])),
            ("fleet success, first turn", _percent(first["fleet"]["success"]), _interval(first["fleet"])),
            ("gap to simulation", number(last.get("gap")), f"from {number(first.get('gap'))}"),
            ("releases promoted", str(releases), f"in {len(turns)} turns"),
        ]
        if reproduced:
            n, of = sum(r["n"] for r in reproduced), sum(r["of"] for r in reproduced)
            tiles.append(("failures reproduced", f"{n} of {of}", "in the calibrated scene"))
        cells = "".join(f"<div><dt>{k}</dt><dd>{v}<small>{s}</small></dd></div>" for k, v, s in tiles)
        out.append(f"<dl class=tiles>{cells}</dl>")
    warnings = document.get("warnings") or ()
    if warnings:
        items = "".join(f"<li>{escape(str(w))}</li>" for w in warnings)
        out.append(f"<aside><h3>Warnings</h3><ul>{items}</ul></aside>")
    return "".join(out) + "</header>"


def _finding(turns: Sequence[Mapping[str, Any]]) -> str:
    if not turns:
        return "No turn was completed"
    first, last = turns[0]["fleet"], turns[-1]["fleet"]
    if len(turns) == 1:
        return f"The fleet succeeds in {_percent(last['success'])} of its trials"
    if last["low"] > first["high"]:
        how = "rose"
    elif last["high"] < first["low"]:
        how = "fell"
    else:
        how = "went"
    tail = "; the intervals overlap" if how == "went" else ""
    return f"Fleet success {how} from {_percent(first['success'])} to {_percent(last['success'])}{tail}"


def _foot(document: Mapping[str, Any]) -> str:
    steps = document.get("steps") or {}
    counted = ", ".join(f"{int(v):,} {k} steps" for k, v in steps.items()).replace(",", "\u202f", 0)
    parts = [f"Work done: {counted}." if counted else ""]
    environment = document.get("environment") or {}
    if environment:
        parts.append("Made with " + ", ".join(f"{k} {v}" for k, v in environment.items()) + ".")
    parts.append(
        "The fleet is virtual: its hidden physics was opened only by the robots' processes and for this page. "
        "Figures say nothing about hardware, and supervision is no certification."
    )
    return f"<footer><p>{escape(' '.join(p for p in parts if p))}</p></footer>"


def _figure(title: str, sentence: str, picture: str, table: str) -> str:
    return (
        f"<section><h2>{escape(title)}</h2><p class=says>{escape(sentence)}</p>"
        f"<figure>{picture}</figure><details open><summary>Table</summary>{table}</details></section>"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table; columns of numbers to the right, columns with words to the left."""
    words = [any(len(str(row[j])) > 1 and str(row[j])[0].isalpha() for row in rows) for j in range(len(columns))]
    kind = [" class=text" if w else "" for w in words]
    head = "".join(f"<th{k}>{escape(c)}</th>" for k, c in zip(kind, columns, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{k}>{escape(str(c))}</td>" for k, c in zip(kind, row, strict=True)) + "</tr>"
        for row in rows
    )
    return f"<div class=scroll><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"


# -- figures --------------------------------------------------------------------------------------------------------


def _success(turns: Sequence[Mapping[str, Any]]) -> str:
    if not turns:
        return ""
    points = [
        Point(t["turn"], f["success"], f["low"], f["high"], _percent(f["success"])) for t in turns for f in [t["fleet"]]
    ]
    last = turns[-1]["fleet"]
    sentence = (
        f"In the last turn {last['successes']} of {last['trials']} trials succeeded; "
        f"with 95 % confidence the fleet's rate lies between {_percent(last['low'])} and {_percent(last['high'])}."
    )
    verdicts = {t["turn"]: _did(t) for t in turns}
    picture = curve(points, top=1.0, percent=True, marks=_changes(turns), released=verdicts, name=sentence)
    rows = [
        (
            t["turn"],
            f["trials"],
            f["successes"],
            _percent(f["success"]),
            _interval(f),
            t.get("verdict") or "–",
            "{n} of {of}".format(**t["reproduced"]) if t.get("reproduced") else "–",
            _text(t.get("changed")) or "–",
            _text((t.get("again") or {}).get("robots")) or "–",
            {True: "new", False: "kept", None: "–"}[t.get("trained")],
        )
        for t in turns
        for f in [t["fleet"]]
    ]
    columns = (
        "turn",
        "trials",
        "successes",
        "rate",
        "95 % interval",
        "verdict",
        "reproduced",
        "world changed",
        "twice",
        "policy",
    )
    return _figure("Success by turn", sentence, picture, _table(columns, rows))


def _gap(document: Mapping[str, Any], turns: Sequence[Mapping[str, Any]]) -> str:
    known = [t for t in turns if _known(t.get("gap"))]
    if not known:
        return ""
    top = max(t["gap"] for t in known) * 1.15 or 1.0
    first, last = known[0]["gap"], known[-1]["gap"]
    change = f"{100 * (1 - last / first):.0f} % less than at first" if 0 < last < first else f"{number(first)} at first"
    meaning = _text(document.get("gap_text")) or "Simulation and robots differ by"
    unit = _text(document.get("gap_unit"))
    sentence = f"{meaning} {number(last)}{' ' + unit if unit else ''} in the last turn, {change}."
    points = [Point(t["turn"], t["gap"], label=number(t["gap"])) for t in known]
    picture = curve(points, top=top, percent=False, marks=_changes(turns), released={}, name=sentence)
    return _figure(
        "Gap between simulation and robots",
        sentence,
        picture,
        _table(("turn", f"gap [{unit}]" if unit else "gap"), [(p.x, p.label) for p in points]),
    )


def _failures(turns: Sequence[Mapping[str, Any]]) -> str:
    totals: dict[str, int] = {}
    for t in turns:
        for g, n in t.get("failures", {}).items():
            totals[g] = totals.get(g, 0) + n
    if not totals:
        return ""
    order = sorted(totals, key=lambda g: (-totals[g], g))
    rows = [(f"turn {t['turn']}", t.get("failures", {})) for t in turns]
    counts = [sum(r.values()) for _, r in rows]
    sentence = (
        f"Most failures were of the kind “{order[0]}” ({totals[order[0]]} of {sum(totals.values())}); "
        f"the first turn had {counts[0]} failures, the last {counts[-1]}."
    )
    table = _table(
        ("turn", *order, "all"),
        [(t["turn"], *(t["failures"].get(g, 0) for g in order), n) for t, n in zip(turns, counts, strict=True)],
    )
    return _figure("What failed", sentence, stacked(rows, order, sentence), table)


def _parameters(document: Mapping[str, Any]) -> str:
    found = list(document.get("parameters") or ())
    if not found:
        return ""
    paths = list(dict.fromkeys(p["path"] for p in found))
    told = [p for p in found if p.get("identified") and _known(p.get("truth")) and _known(p.get("low"))]
    inside = sum(p["low"] <= p["truth"] <= p["high"] for p in told)
    sentence = (
        f"Of {len(found)} parameters the logs identify {sum(bool(p.get('identified')) for p in found)}; "
        f"the 90 % band holds the truth in {inside} of the {len(told)} identified ones with a known truth."
    )
    panels = []
    for path in paths:
        mine = [p for p in found if p["path"] == path]
        rows = [
            Band(
                p["robot"] or "fleet",
                _or_none(p.get("mean")),
                _or_none(p.get("low")),
                _or_none(p.get("high")),
                bool(p.get("identified")),
                _or_none(p.get("truth")),
            )
            for p in mine
        ]
        label = f"{path}: fitted bands and true values by robot"
        panels.append(bands(path, mine[0].get("unit", ""), rows, _span(mine), label))
    key = (
        '<p class=key><span class="swatch fit"></span>90 % band, identified'
        '<span class="swatch unfit"></span>not identified by these logs'
        '<span class="swatch diamond"></span>truth, revealed only here</p>'
    )
    table = _table(
        ("robot", "parameter", "unit", "mean", "90 % band", "identified", "truth"),
        [
            (
                p["robot"] or "fleet",
                p["path"],
                p.get("unit", ""),
                number(_or_none(p.get("mean"))),
                f"{number(_or_none(p.get('low')))} to {number(_or_none(p.get('high')))}",
                "yes" if p.get("identified") else "no",
                number(_or_none(p.get("truth"))),
            )
            for p in found
        ],
    )
    picture = f"{key}<div class=panels>{''.join(panels)}</div>"
    return _figure("What was learned about each robot", sentence, picture, table)


def _rollout(document: Mapping[str, Any]) -> str:
    rows = [r for r in document.get("rollout") or () if _known(r.get("t"))]
    if not rows:
        return ""
    events = [Happening(r["turn"], r["t"], r["event"], tuple(r.get("robots") or ())) for r in rows]
    robots = sorted({x for e in events for x in e.robots} | set(_robots(document)))
    kinds = list(dict.fromkeys(e.event for e in events))
    counted = [(k, sum(e.event == k for e in events)) for k in kinds]
    sentence = "Over the run: " + ", ".join(f"{k} {n}×" for k, n in counted) + "."
    everyone = f"all {len(robots)} robots" if len(robots) > 1 else robots[0] if robots else "hub"
    table = _table(
        ("turn", "time", "event", "where"),
        [
            (
                e.turn,
                f"{e.t:.1f} s",
                e.event,
                everyone if len(e.robots) == len(robots) else ", ".join(e.robots) or "hub",
            )
            for e in events
        ],
    )
    return _figure("Rollout", sentence, timeline(events, robots, kinds, sentence), table)


def _drift(turns: Sequence[Mapping[str, Any]]) -> str:
    """Alarms of the drift test; nothing while there are none."""
    alarms = [a for t in turns for a in t.get("drift") or ()]
    waiting = turns[-1].get("maintenance") or [] if turns else []
    if not alarms and not waiting:
        return ""
    solved = sum(a["action"] == "recalibrated" for a in alarms)
    sentence = f"Alarms of drift: {len(alarms)}, {solved} of them answered with a new calibration."
    sentence += f" Waiting for maintenance: {', '.join(waiting)}." if waiting else " No robot waits for maintenance."
    rows = [
        (
            a["turn"],
            a["robot"],
            a["since"],
            ", ".join(f"{m['path']} {m['text']}" for m in a["moved"]) or a["stream"],
            "{before:.3g} to {after:.3g}".format(**a["error"]) if a.get("error") else "–",
            a["action"],
        )
        for a in alarms
    ]
    table = _table(("turn", "robot", "since attempt", "what moved", "held-out error", "done"), rows)
    return f"<section><h2>Drift</h2><p class=says>{escape(sentence)}</p>{table}</section>"


def _time(turns: Sequence[Mapping[str, Any]]) -> str:
    stages = list(dict.fromkeys(s for t in turns for s in t.get("seconds", {})))
    if not stages:
        return ""
    columns = [f"turn {t['turn']}" for t in turns]
    cell = {(s, c): t["seconds"][s] for c, t in zip(columns, turns, strict=True) for s in stages if s in t["seconds"]}
    total = {s: sum(v for (r, _), v in cell.items() if r == s) for s in stages}
    longest = max(stages, key=lambda s: total[s])
    everything = sum(total.values())
    sentence = (
        f"The stages took {_duration(everything)} in all; the longest was “{longest}” with {_duration(total[longest])} "
        f"({100 * total[longest] / everything:.0f} %)."
        if everything > 0
        else "No stage took measurable time."
    )
    rows = [(s, *(f"{cell[s, c]:.2f}" if (s, c) in cell else "–" for c in columns), f"{total[s]:.2f}") for s in stages]
    sums = [sum(v for (_, col), v in cell.items() if col == c) for c in columns]
    rows.append(("all", *(f"{v:.2f}" for v in sums), f"{everything:.2f}"))
    table = _table(("stage [s]", *columns, "all"), rows)
    return _figure("Time per stage", sentence, bar_table(stages, columns, cell, sentence), table)


# -- small things ---------------------------------------------------------------------------------------------------


def _known(x: Any) -> bool:
    return isinstance(x, (int, float)) and math.isfinite(x)


def _or_none(x: Any) -> float | None:
    return float(x) if _known(x) else None


def _percent(x: float) -> str:
    return f"{100 * x:.1f} %" if _known(x) else "–"


def _interval(fleet: Mapping[str, Any]) -> str:
    return f"{100 * fleet['low']:.1f} to {100 * fleet['high']:.1f} %"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def _text(x: Any) -> str:
    if isinstance(x, Mapping):
        return ", ".join(f"{k} {v}" for k, v in x.items())
    return ", ".join(_text(v) for v in x) if isinstance(x, (list, tuple)) else str(x or "")


def _did(turn: Mapping[str, Any]) -> str:
    if turn.get("released"):
        return "released"
    return "rolled back" if turn.get("verdict") == "rolled back" else "not released"


def _changes(turns: Sequence[Mapping[str, Any]]) -> dict[int, str]:
    return {t["turn"]: "the world changed" for t in turns if t.get("changed")}


def _robots(document: Mapping[str, Any]) -> list[str]:
    named = document.get("robots")
    if isinstance(named, (list, tuple)):
        return [r if isinstance(r, str) else str(r["name"]) for r in named]
    return sorted({p["robot"] for p in document.get("parameters") or () if p.get("robot")})


def _span(rows: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """The allowed range where the document states it, else what the values cover."""
    for p in rows:
        if p.get("range"):
            return float(p["range"][0]), float(p["range"][1])
    values = [p[k] for p in rows for k in ("mean", "low", "high", "truth") if _known(p.get(k))]
    low, high = min(values, default=0.0), max(values, default=1.0)
    pad = 0.05 * (high - low) or 0.5 * abs(high) or 0.5
    return low - pad, high + pad
