"""``flyball episodes [DIGEST]``: the catalogue, or one episode with its signals, events and lineage."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output

if TYPE_CHECKING:
    from flyball.episodes.catalogue import Catalogue


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which episodes."""
    parser.add_argument("digest", nargs="?", help="show this one (the beginning of its digest is enough)")
    parser.add_argument(
        "--where", default="", metavar="SQL", help="a condition, e.g. \"outcome = 'failure' AND labels.turn >= 2\""
    )
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="lines of the table (default: %(default)s)")


def run(args: argparse.Namespace, out: Output) -> int:
    """List episodes, newest last, or show one."""
    from flyball.base.workspace import Workspace
    from flyball.episodes.catalogue import Catalogue

    space = Workspace(args.workspace, create=False)
    catalogue = Catalogue(space.store)
    if args.digest:
        _show(catalogue, space.store.resolve(args.digest), out)
        return 0
    found = catalogue.query(args.where)
    shown = found[-max(args.limit, 0) :] if args.limit else []
    rows = [
        (
            r.digest[:12],
            r.robot or r.embodiment,
            r.task or "-",
            r.origin,
            r.outcome + (f" ({r.grp})" if r.grp else ""),
            f"{r.duration_s:.2f} s",
            _labels(r.labels),
        )
        for r in shown
    ]
    columns = ("episode", "robot", "task", "origin", "outcome", "length", "labels")
    out.table({"episodes": [vars(r) for r in found]}, columns, rows, "no episodes; try: flyball ingest PATH")
    if rows and not out.as_json:
        out.note(f"{len(shown)} of {len(found)} shown" if len(shown) < len(found) else f"{len(found)} episodes")
    return 0


def _labels(labels: Mapping[str, Any], most: int = 5) -> str:
    """The first few labels that are short enough for a table."""
    short = [(k, f"{v:.3g}" if isinstance(v, float) else str(v)) for k, v in labels.items() if not isinstance(v, list)]
    return " ".join(f"{k}={v}" for k, v in short[:most]) + (" ..." if len(short) > most else "")


def _show(catalogue: Catalogue, digest: str, out: Output) -> None:
    row, episode = catalogue.row(digest), catalogue.load(digest)
    signals = [
        {**s.spec.to_json(), "samples": len(s.t_ns), "start_ns": int(s.t_ns[0]), "end_ns": int(s.t_ns[-1])}
        if len(s.t_ns)
        else {**s.spec.to_json(), "samples": 0}
        for s in episode.signals.values()
    ]
    document = {
        **vars(row),
        "instruction": episode.instruction,
        "signals": signals,
        "events": [vars(e) for e in episode.events],
        "history": catalogue.history(digest),
        "parents": [{"kind": a.kind, "digest": a.digest} for a in catalogue.store.lineage(digest)],
    }
    lines = [f"{k}: {v}" for k, v in vars(row).items() if v not in ("", -1, None)]
    lines += [f"signal {s['name']} {tuple(s['shape'])} [{s['unit'] or '-'}]: {s['samples']} samples" for s in signals]
    lines += [f"event {e.name} at {(e.t_ns - row.start_ns) * 1e-9:.3f} s {e.text}".rstrip() for e in episode.events]
    lines += [f"made from {p['kind']} {p['digest'][:12]}" for p in document["parents"]]
    out.result(document, lines)
