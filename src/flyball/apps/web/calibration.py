"""A calibration as one self-contained HTML page, and all files of a calibration in one folder.

In: a calibration, the scene it was fitted to, replays to show. Out: a page without scripts: the verdict in a sentence,
held-out errors against the noise floor, measured against predicted, what the recordings say of each parameter, what to
record next, where everything came from. ``write_calibration`` writes it beside the card and the overlay.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from flyball.apps.web.plots import WIDTH, dot, line, number, rect, svg, text, ticks
from flyball.apps.web.style import STYLE
from flyball.base.durable import write_durably
from flyball.calibration.calibration import Calibration
from flyball.calibration.card import Card, record_next
from flyball.calibration.overlay import overlay, write_overlay
from flyball.calibration.tracks import Track
from flyball.robots.models.mjcf import file_stem
from flyball.scenes import Scene

_EXTRA = """
.before{fill:var(--card);stroke:var(--faint);stroke-width:2}.change{stroke:var(--faint);stroke-width:2}
.floor{stroke:var(--truth);stroke-dasharray:5 3;stroke-width:1.4}svg .floorname{fill:var(--truth);font-size:12px}
.seen{fill:none;stroke:var(--faint);stroke-width:3.4;stroke-linejoin:round}
.told{fill:none;stroke:var(--accent);stroke-width:1.4;stroke-linejoin:round}
.prior{fill:var(--grid)}.nominal{stroke:var(--faint);stroke-width:1.5}.best{stroke:var(--ink);stroke-width:2}
td svg{min-width:0;margin:0}.is.no{color:var(--soft)}table.fitted td{vertical-align:top}table.fitted th,
table.fitted td{padding:5px 8px}table.fitted td:last-child{white-space:normal;min-width:150px}
h3{margin:18px 0 6px;font-size:14px;font-weight:600}.mono{font-family:ui-monospace,monospace;font-size:12px}
ul.plain{margin:6px 0 0;padding-left:18px}.legend-seen{background:var(--faint)!important;height:4px!important}
.legend-told{background:var(--accent)!important;height:2px!important}.legend-band{background:var(--band)!important}
"""
_LEFT_OUT = "left out: "  # how notes of a calibration begin that say so of a recording
_WIDE = 120.0  # of the bar of a parameter


def write_calibration(
    calibration: Calibration,
    scene: Scene,
    tracks: Sequence[Track] | None,
    directory: Path,
    *,
    left_out: Sequence[str] = (),
    timestep: float = 0.0,
) -> list[Path]:
    """Write card, overlay and page of a calibration; ``NAME`` is ``Calibration.rig``.

    Args:
      scene: the one it was fitted to.
      tracks: replays of held-out recordings to show; None when there are none.
      directory: is made where it is missing; files of the same names are replaced.
      left_out: recordings that took no part, and why; those in the calibration's notes are known.
      timestep: that they were replayed with, where it is not the scene's own [s].

    Returns:
      The files: ``NAME.card.json``, ``NAME.html``, then those of ``write_overlay``.

    Raises:
      Refused: the calibration was fitted to another scene.
    """
    made = overlay(calibration, scene, timestep=timestep)
    outside = tuple(x.removeprefix("not in the model: ") for x in made.lines() if x.startswith("not in the model: "))
    said = (*left_out, *(n for n in calibration.notes if n.startswith(_LEFT_OUT)))
    without = tuple(dict.fromkeys(n.removeprefix(_LEFT_OUT) for n in said))
    card = Card(calibration, calibration.rig, record_next(calibration, scene), without, outside)
    files = write_overlay(made, directory)
    stem = file_stem(calibration.rig)
    places = directory / f"{stem}.card.json", directory / f"{stem}.html"
    card.write(places[0])
    document = {
        "tracks": [t.to_json() for t in tracks or ()],
        "changes": [vars(c) for c in made.changes],
        "parameters": {p.path: {"scale": p.scale, "nominal": p.nominal, "text": p.text} for p in scene.parameters},
        "files": [p.name for p in (places[0], *files)],
    }
    write_durably(places[1], render(card.to_json(), document).encode())
    return [*places, *files]


def render(card: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> str:
    """The page.

    Args:
      card: ``Card.to_json()``.
      more: ``tracks`` (``Track.to_json()``), ``changes`` of the model, ``parameters`` (path -> scale, nominal, text),
        ``files``; a key that is missing leaves its figure out.
    """
    more, c = more or {}, card["calibration"]
    title = f"{card['name']}: {c['verdict']}"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{STYLE}{_EXTRA}</style></head><body><main>",
        f"<header><p class=eyebrow>Flyball calibration of {escape(card['name'])}</p>",
        f"<h1>{escape(_headline(card))}</h1>",
        f"<p class=facts>{escape(_first_upper(card['sentence']).replace('->', '→'))}</p></header>",
        _tiles(c),
        _folds(c["held_out"]),
        _replays(more.get("tracks") or ()),
        _parameters(card, more.get("parameters") or {}),
        _next(card["record_next"], card["left_out"]),
        _changes(more.get("changes") or (), card["not_in_the_model"]),
        _provenance(card, more.get("files") or ()),
        "</main></body></html>\n",
    ]
    return "\n".join(p for p in parts if p)


def _headline(card: Mapping[str, Any]) -> str:
    h = card["calibration"]["held_out"]
    if card["verdict"] == "improved" and h["after"] > 0:
        return f"Improved: {h['before'] / h['after']:.1f} times less error on recordings it has not seen"
    return _first_upper(card["verdict"])


def _first_upper(s: str) -> str:
    return s[:1].upper() + s[1:]


def _percent(x: float) -> str:
    return f"{100 * x:.0f} %"


def _tiles(c: Mapping[str, Any]) -> str:
    h, unit = c["held_out"], c["held_out"]["unit"]
    known = sum(r["identified"] for r in c["parameters"])
    tiles = (
        (f"held-out error [{unit}]", number(h["after"]), f"90 %: {number(h['low'])} to {number(h['high'])}"),
        ("before", number(h["before"]), "with nominal parameters"),
        ("noise floor", number(h["noise_floor"]), "of a perfect model"),
        ("within 90 % bands", _percent(h["coverage"]), "of held-out samples"),
        ("parameters identified", f"{known} of {len(c['parameters'])}", "band at most a third of the range"),
    )
    cells = "".join(f"<div><dt>{escape(a)}</dt><dd>{b}<small>{s}</small></dd></div>" for a, b, s in tiles)
    return f"<dl class=tiles>{cells}</dl>"


def _section(title: str, says: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2><p class=says>{escape(says)}</p>{body}</section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: Sequence[int] = (0,), cls: str = "") -> str:
    """A table; cells are HTML already."""

    def cell(tag: str, k: int, s: str) -> str:
        return f"<{tag}{' class=text' if k in texts else ''}>{s}</{tag}>"

    th = "".join(cell("th", k, escape(s)) for k, s in enumerate(head))
    body = "".join("<tr>" + "".join(cell("td", k, s) for k, s in enumerate(r)) + "</tr>" for r in rows)
    return f'<div class=scroll><table class="{cls}"><thead><tr>{th}</tr></thead><tbody>{body}</tbody></table></div>'


def _folds(h: Mapping[str, Any]) -> str:
    """Error before and after, one row per fold; the noise floor is a line."""
    folds, floor, unit = h["folds"], h["noise_floor"], h["unit"]
    left, right, pitch, top = 190.0, 150.0, 30.0, 30.0
    most = max([floor, *(max(f["before"], f["after"]) for f in folds)]) * 1.05 or 1.0
    base = top + pitch * len(folds)

    def px(v: float) -> float:
        return left + v / most * (WIDTH - left - right)

    out = [dot(left + 6, 8, "before", 5), text(left + 17, 12, "before", "legend")]
    out += [dot(left + 92, 8, "mark", 6), text(left + 103, 12, "after", "legend")]
    out.append(text(WIDTH, 12, "within the 90 % band", "tick", "end"))
    for v in ticks(0, most, 6):
        out += [line(px(v), top - 4, px(v), base, "grid"), text(px(v), base + 16, number(v), "tick", "middle")]
    out.append(text(px(most), base + 32, f"mean error [{unit}]", "tick", "end"))
    for k, f in enumerate(folds):
        y = top + pitch * (k + 0.5)
        tip = f"{f['name']}: {number(f['before'])} -> {number(f['after'])} {unit}, fitted ones {number(f['train'])}"
        out.append(text(left - 12, y + 4, _cut(f["name"], 26), "tick", "end"))
        out += [line(px(f["before"]), y, px(f["after"]), y, "change")]
        out += [dot(px(f["before"]), y, "before", 5, tip), dot(px(f["after"]), y, "mark", 6, tip)]
        out.append(text(WIDTH, y + 4, _percent(f["coverage"]), "value", "end"))
    if floor > 0:
        out += [line(px(floor), top - 4, px(floor), base, "floor")]
        out.append(text(px(floor), base + 32, "noise floor", "floorname", "middle"))
    rows = [
        (escape(f["name"]), *(number(f[k]) for k in ("before", "after", "train")), _percent(f["coverage"]))
        for f in [*folds, {"name": "mean", "train": math.nan, **{k: h[k] for k in ("before", "after", "coverage")}}]
    ]
    numbers = _table((f"held out [{unit}]", "before", "after", "on those fitted", "within the band"), rows)
    says = (
        "Each row's recordings were held out whole: neither fitted, nor used to choose the model or the width of the "
        "bands. Open-loop replay from the commands alone, from the first sample to the last."
    )
    figure = f"<figure>{svg(WIDTH, base + 40, out, 'Held-out error before and after, by what was held out')}</figure>"
    return _section(
        "Recordings it has not seen", says, figure + f"<details><summary>Numbers</summary>{numbers}</details>"
    )


def _list(items: Iterable[str], cls: str = "") -> str:
    return "<ul class=plain>" + "".join(f'<li class="{cls}">{escape(x)}</li>' for x in items) + "</ul>"


def _cut(s: str, most: int) -> str:
    return s if len(s) <= most else s[: most - 1] + "…"


def _replays(tracks: Sequence[Mapping[str, Any]]) -> str:
    if not tracks:
        return ""
    key = (
        '<p class=key><span class="swatch legend-seen"></span>measured<span class="swatch legend-told"></span>'
        'predicted<span class="swatch legend-band"></span>90 % band</p>'
    )
    body = "".join(
        f"<h3>{escape(_first_upper(t['rank']))} of the held-out recordings: {escape(t['name'])} "
        f"(held out: {escape(t['fold'])})</h3><p class=says>{escape(t['signal'])}; mean error {number(t['error'])}, "
        f"{_percent(t['inside'])} of its samples within the band.</p><figure>{_track(t)}</figure>"
        for t in tracks
    )
    says = "Nothing of a recording but its commands and its first moment enters its prediction."
    return _section("Measured and predicted", says, key + body)


def _track(t: Mapping[str, Any]) -> str:
    left, right, up, base = 58.0, 14.0, 10.0, 250.0
    time = [float(x) for x in t["t"]]
    every = [float(x) for k in ("measured", "predicted", "low", "high") for x in t[k]]
    low, high = min(every), max(every)
    pad = 0.04 * (high - low) or 1.0
    low, high, end = low - pad, high + pad, time[-1] or 1.0

    def at(x: float, y: float) -> str:
        return f"{left + x / end * (WIDTH - left - right):.1f},{base - (y - low) / (high - low) * (base - up):.1f}"

    out = []
    marks = ticks(low, high, 5)
    digits = max(0, -math.floor(math.log10(marks[1] - marks[0]) + 1e-9)) if len(marks) > 1 else 2
    for v in marks:
        y = base - (v - low) / (high - low) * (base - up)
        label = f"{v:.{digits}f}".replace("-", "−")
        out += [line(left, y, WIDTH - right, y, "grid"), text(left - 8, y + 4, label, "tick", "end")]
    for v in ticks(0, end, 8):
        x = left + v / end * (WIDTH - left - right)
        out.append(text(x, base + 17, f"{number(v)} s", "tick", "middle"))
    upper = [at(x, y) for x, y in zip(time, t["high"], strict=True)]
    lower = [at(x, y) for x, y in zip(time, t["low"], strict=True)]
    out.append(f'<polygon points="{" ".join(upper + lower[::-1])}" class="band"/>')
    for cls, values in (("seen", t["measured"]), ("told", t["predicted"])):
        points = " ".join(at(x, y) for x, y in zip(time, values, strict=True))
        out.append(f'<polyline points="{points}" class="{cls}"/>')
    if t["unit"]:
        out.append(text(left - 8, up - 0.5, t["unit"], "tick", "end"))
    return svg(WIDTH, base + 24, out, f"{t['signal']} of {t['name']}, measured and predicted")


def _parameters(card: Mapping[str, Any], facts: Mapping[str, Mapping[str, Any]]) -> str:
    c = card["calibration"]
    rows = []
    for row, best in zip(c["parameters"], c["best"], strict=True):
        fact, kind = facts.get(row["path"], {}), card["profile"][row["path"]]
        says = kind["is"] + (f" with {kind['with']}" if kind["with"] else "")
        cls = "is" if kind["is"] == "identified" else "is no"
        more = f"<br><small>{escape(fact['text'])}</small>" if fact.get("text") else ""
        note = row["note"] if kind["is"] in ("identified", "not identified") else ""
        rows.append(
            (
                f"{escape(row['path'])}{more}", _bar(row, best, fact), f"{number(best)} {escape(row['unit'])}",
                f"{number(row['low'])} … {number(row['high'])}"
                f"<br><small>of {number(row['prior_low'])} … {number(row['prior_high'])}</small>",
                f'<span class="{cls}">{escape(says)}</span>' + (f"<br><small>{escape(note)}</small>" if note else ""),
            )
        )  # fmt: skip
    says = (
        "Grey: the range before any recording, with the nominal value. Coloured: the 90 % band of the joint samples, "
        "dashed where the recordings do not settle the parameter. Black: the best fit."
    )
    head = ("parameter", "range and band", "best", "90 % band", "the recordings say")
    return _section("Parameters", says, _table(head, rows, (0, 1, 4), "fitted"))


def _bar(row: Mapping[str, Any], best: float, fact: Mapping[str, Any]) -> str:
    low, high = row["prior_low"], row["prior_high"]
    log = fact.get("scale", "log" if low > 0 else "linear") == "log"

    def px(v: float) -> float:
        if log:
            v = max(v, low)
            share = math.log(v / low) / math.log(high / low)
        else:
            share = (v - low) / (high - low)
        return 2 + min(max(share, 0.0), 1.0) * (_WIDE - 4)

    a, b = px(row["low"]), px(row["high"])
    out = [rect(2, 8, _WIDE - 4, 6, "prior", r=3)]
    out.append(rect(a, 6, max(b - a, 2.5), 10, "fit" if row["identified"] else "unfit", r=2))
    if "nominal" in fact:
        out.append(line(px(fact["nominal"]), 4, px(fact["nominal"]), 18, "nominal"))
    out.append(line(px(best), 3, px(best), 19, "best"))
    return svg(_WIDE, 22, out, f"{row['path']}: band {number(row['low'])} to {number(row['high'])}")


def _next(motions: Sequence[str], left_out: Sequence[str]) -> str:
    if not motions and not left_out:
        return ""
    body = (
        "<ul class=plain>" + "".join(f"<li>{escape(_first_upper(m))}</li>" for m in motions) + "</ul>"
        if motions
        else ""
    )
    if left_out:
        body += "<h3>Left out</h3><ul class=plain>" + "".join(f"<li>{escape(x)}</li>" for x in left_out) + "</ul>"
    says = "Motions that these recordings lack, and what they would tell." if motions else "Every parameter is settled."
    return _section("What to record next", says, body)


def _changes(changes: Sequence[Mapping[str, str]], outside: Sequence[str]) -> str:
    if not changes and not outside:
        return ""
    rows = [[escape(x[k] or "–") for k in ("element", "attribute", "before", "after")] for x in changes]
    rows = [[r[0], r[1], *(_rounded(x) for x in r[2:])] for r in rows]
    body = _table(("element", "attribute", "before", "after"), rows, (0, 1)) if rows else ""
    if outside:
        body += "<h3>Not in the model files</h3>" + _list(outside)
    says = "The best fit in MJCF; the USD layer says the same. What no model format has a place for is listed below."
    return _section("What changes in the model", says, body)


def _rounded(s: str) -> str:
    words = s.split()
    try:
        return " ".join(number(float(w)) for w in words)
    except ValueError:
        return s


def _provenance(card: Mapping[str, Any], files: Sequence[str]) -> str:
    c = card["calibration"]
    facts = [
        ("calibration", f"<span class=mono>{escape(card['digest'][:24])}</span>"),
        ("scene", f"<span class=mono>{escape(c['scene'][:24])}</span>"),
        ("engine", escape(c["engine"])),
        ("flyball", escape(card["software"]["flyball"])),
        ("seed", str(c["seed"])),
        ("substeps simulated", f"{c['steps'] / 1e6:.1f} million"),
        ("joint samples", str(len(c["samples"]))),
        ("recordings", str(len(c["data"])) if c["data"] else "not named"),
    ]
    body = _table(("", ""), [(k, v) for k, v in facts], (0, 1))
    body += "<h3>Notes</h3>" + _list(c["notes"]) if c["notes"] else ""
    if c["data"]:
        body += f"<details><summary>Digests of the recordings</summary>{_list(c['data'], 'mono')}</details>"
    if files:
        body += "<h3>Files beside this page</h3>" + _list(files)
    return _section("Where it came from", "The same inputs and seed give the same numbers.", body)
