"""``flyball episodes``: ask the catalogue, look at one episode, find more like a window of it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.base import FlyballError, InputError

if TYPE_CHECKING:
    from flyball.base.workspace import Workspace
    from flyball.episodes import Episode
    from flyball.episodes.catalogue import Catalogue, EpisodeRow

PICTURES, PICTURE_HEIGHT = 10, 120
PICTURE_BYTES = 1_500_000  # of all cameras together

_HELP = """
  flyball episodes                       list them (--where, --order, --limit)
  flyball episodes ID                    what is known of one; the beginning of its digest is enough
  flyball episodes show ID               write a page with its plots, pictures, verdicts (or --rerun)
  flyball episodes like ID --signal NAME --from S --to S
                                         windows in which that signal moves as it does there

columns for --where, --order and --sql, besides those of the catalogue (--columns lists them all):
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which episodes, and what about them."""
    from flyball.episodes.query import GRAMMAR, TABLES

    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    grammar = "".join(f"  {name}\n      {text}\n" for name, text in GRAMMAR.items())
    tables = "".join(f"  {name}({columns})\n" for name, columns in TABLES.items())
    parser.description = f"{parser.description}\n{_HELP}{grammar}tables for --sql, besides episodes:\n{tables}"
    parser.add_argument("action", nargs="?", metavar="ID | show ID | like ID", help="nothing: the list")
    parser.add_argument("id", nargs="?", metavar="", help=argparse.SUPPRESS)
    parser.add_argument(
        "--where",
        default="",
        metavar="SQL",
        help="a condition, e.g. \"outcome = 'failure' AND labels.turn >= 2 AND joint.position[2].max > 1.5\"",
    )
    parser.add_argument("--order", default="", metavar="SQL", help='an ordering, e.g. "gripper.force.max DESC"')
    parser.add_argument("--limit", type=int, default=50, metavar="N", help="lines of the table (default: %(default)s)")
    parser.add_argument(
        "--sql", metavar="SQL", help='a query, e.g. "SELECT robot, count(*) FROM episodes GROUP BY robot"'
    )
    parser.add_argument("--columns", action="store_true", help="list the columns that there are")
    parser.add_argument("--parquet", type=Path, metavar="FILE", help="write the catalogue with all its columns")
    parser.add_argument("--reindex", action="store_true", help="summarise the contents of all episodes anew")
    one = parser.add_argument_group("show ID")
    one.add_argument("--html", type=Path, metavar="FILE", help="where to (default: in the workspace's reports)")
    one.add_argument("--rerun", action="store_true", help="open it in Rerun instead (pip install 'flyball[rerun]')")
    one.add_argument("--save", type=Path, metavar="FILE", help="with --rerun: write FILE.rrd, open nothing")
    more = parser.add_argument_group("like ID (also within --where)")
    more.add_argument("--signal", metavar="NAME", help="e.g. joint.position, or one element: joint.position[2]")
    more.add_argument("--from", dest="start_s", type=float, metavar="S", help="start of the window (default: 0)")
    more.add_argument("--to", dest="end_s", type=float, metavar="S", help="its end (default: the episode's end)")
    more.add_argument(
        "--by",
        choices=("shape", "motion", "values"),
        default="shape",
        help="what counts: only the shape; shape and amplitude; the values themselves (default: %(default)s)",
    )
    more.add_argument(
        "--stretch", type=float, default=1.0, metavar="F", help="also up to this factor slower or faster (default: 1)"
    )
    more.add_argument("--top", type=int, default=10, metavar="N", help="how many (default: %(default)s)")


def run(args: argparse.Namespace, out: Output) -> int:
    """One of the questions; exit code 3 when episodes were left out because their bytes are not sound."""
    from flyball.base.workspace import Workspace
    from flyball.episodes.catalogue import Catalogue

    space = Workspace(args.workspace, create=False)
    catalogue = Catalogue(space.store)
    action, given = (args.action, args.id) if args.action in ("show", "like") else ("", args.action)
    if not action and args.id:
        raise InputError(f"{args.action!r} is nothing to do with an episode", allowed="show ID, like ID, or ID alone")
    if action and not given:
        raise InputError("which episode?", where=f"episodes {action}", run_next="flyball episodes, for their IDs")
    asked = [f"--{x}" for x in ("sql", "columns", "parquet", "reindex") if getattr(args, x)]
    if len(asked) + bool(given) > 1:
        raise InputError(f"{', '.join([*asked, *([given] if given else [])])} at once", allowed="one at a time")
    if given:
        digest = catalogue.resolve(given)
        if action == "show":
            return _show(space, catalogue, digest, args, out)
        if action == "like":
            return _like(catalogue, digest, args, out)
        _tell(catalogue, digest, out)
        return 0
    if args.reindex:
        return _reindex(catalogue, out)
    if args.sql:
        return _sql(catalogue, args, out)
    if args.columns:
        return _columns(catalogue, out)
    if args.parquet:
        return _parquet(catalogue, args.parquet, out)
    return _list(catalogue, args, out)


# -- many -----------------------------------------------------------------------------------------------------------


def _list(catalogue: Catalogue, args: argparse.Namespace, out: Output) -> int:
    from flyball.episodes.query import select

    with _indexing() as told:
        found = select(catalogue, args.where, order=args.order, progress=told)
    most = max(args.limit, 0)
    # Without an order the newest are at the end; with one the first come first.
    shown = found[:most] if args.order else found[len(found) - min(most, len(found)) :]
    columns = ("episode", "robot", "task", "origin", "outcome", "length", "labels")
    empty = "no episodes meet this condition" if args.where else "no episodes; try: flyball ingest PATH"
    out.table({"episodes": [vars(r) for r in found]}, columns, [_line(r) for r in shown], empty)
    if shown and not out.as_json:
        out.note(f"{len(shown)} of {len(found)} shown" if len(shown) < len(found) else f"{len(found)} episodes")
    return 0


def _line(r: EpisodeRow) -> tuple[object, ...]:
    outcome = r.outcome + (f" ({r.grp})" if r.grp else "")
    about = (r.digest[:12], r.robot or r.embodiment, r.task or "-", r.origin, outcome)
    return (*about, f"{r.duration_s:.2f} s", _labels(r.labels))


def _labels(labels: Mapping[str, Any], most: int = 5) -> str:
    """The first few labels that are short enough for a table."""
    short = [
        (k, f"{v:.3g}" if isinstance(v, float) else str(v))
        for k, v in labels.items()
        if not isinstance(v, (list, dict))
    ]
    return " ".join(f"{k}={v}" for k, v in short[:most]) + (" ..." if len(short) > most else "")


def _sql(catalogue: Catalogue, args: argparse.Namespace, out: Output) -> int:
    from flyball.episodes.query import ask

    with _indexing() as told:
        answer = ask(catalogue, args.sql, progress=told)
    shown = answer.rows if out.as_json else answer.rows[: max(args.limit, 0)]
    rows = [dict(zip(answer.columns, map(_plain, row), strict=True)) for row in answer.rows]
    cells = [[f"{v:.6g}" if isinstance(v, float) else "" if v is None else v for v in row] for row in shown]
    out.table({"columns": list(answer.columns), "rows": rows}, answer.columns, cells, "no rows")
    if len(shown) < len(answer.rows) or not answer.complete:
        out.note(f"{len(shown)} of {len(answer.rows)}{'' if answer.complete else ' and more'} rows shown")
    return 0


def _plain(value: Any) -> Any:
    return value if isinstance(value, (str, int, float, bool, list, dict, type(None))) else str(value)


def _columns(catalogue: Catalogue, out: Output) -> int:
    from flyball.episodes.query import columns

    with _indexing() as told:
        catalogue.reindex(progress=told)
    found = columns(catalogue)
    out.table({"columns": found}, ("column", "of"), list(found.items()), "")
    return 0


def _parquet(catalogue: Catalogue, path: Path, out: Output) -> int:
    from flyball.episodes.query import export

    with _indexing() as told:
        rows, columns = export(catalogue, path, progress=told)
    out.result({"file": str(path), "rows": rows, "columns": columns}, [f"{path}: {rows} episodes, {columns} columns"])
    return 0


def _reindex(catalogue: Catalogue, out: Output) -> int:
    with _indexing() as told:
        failed = catalogue.reindex(anew=True, progress=told)
    for digest, reason in failed:
        out.note(f"not summarised: {digest[:12]}: {reason}")
    done = len(catalogue.query()) - len(failed)
    document = {"summarised": done, "failed": [{"episode": d, "reason": r} for d, r in failed]}
    out.result(document, [f"{done} episodes summarised, {len(failed)} could not be"])
    return 3 if failed else 0


@contextmanager
def _indexing() -> Any:
    """Progress that only shows when episodes have to be read first."""
    display: list[Any] = []

    def told(done: int, total: int) -> None:
        if not display:
            display.append(progress())
            display[0].__enter__()
            display[0].stage("index episodes")
        display[0].at(done, total)

    try:
        yield told
    finally:
        if display:
            display[0].__exit__(None, None, None)


# -- one ------------------------------------------------------------------------------------------------------------


def _tell(catalogue: Catalogue, digest: str, out: Output) -> None:
    row, episode = catalogue.row(digest), catalogue.load(digest)
    signals = [
        {**s.spec.to_json(), "samples": len(s.t_ns), "start_ns": int(s.t_ns[0]), "end_ns": int(s.t_ns[-1])}
        if len(s.t_ns)
        else {**s.spec.to_json(), "samples": 0}
        for s in episode.signals.values()
    ]
    frames = [
        {"name": n, "encoding": f.encoding, "height": f.height, "width": f.width, "pictures": len(f.t_ns)}
        for n, f in episode.frames.items()
    ]
    verdicts = _verdicts(catalogue, digest)
    document = {
        **vars(row),
        "instruction": episode.instruction,
        "signals": signals,
        "frames": frames,
        "events": [vars(e) for e in episode.events],
        "verdicts": verdicts,
        "history": catalogue.history(digest),
        "parents": [{"kind": a.kind, "digest": a.digest} for a in catalogue.store.lineage(digest)],
    }
    lines = [f"{k}: {v}" for k, v in vars(row).items() if v not in ("", -1, None)]
    lines += [f"signal {s['name']} {tuple(s['shape'])} [{s['unit'] or '-'}]: {s['samples']} samples" for s in signals]
    lines += [f"camera {f['name']} {f['width']} x {f['height']} {f['encoding']}: {f['pictures']}" for f in frames]
    lines += [f"event {e.name} at {(e.t_ns - row.start_ns) * 1e-9:.3f} s {e.text}".rstrip() for e in episode.events]
    lines += [f"check {v['check']}: {v['verdict']}: {v['reason']}" for v in verdicts if v["current"]]
    lines += [f"made from {p['kind']} {p['digest'][:12]}" for p in document["parents"]]
    out.result(document, lines)


def _show(space: Workspace, catalogue: Catalogue, digest: str, args: argparse.Namespace, out: Output) -> int:
    episode = catalogue.load(digest)
    if args.rerun:
        from flyball.episodes.rerun import show

        if args.save is not None and args.save.suffix != ".rrd":
            raise InputError("not a Rerun recording", where=str(args.save), allowed="a name that ends in .rrd")
        show(episode, catalogue.store.path, name=digest, save=args.save)
        saved = f"{args.save}: {args.save.stat().st_size / 1e6:.1f} MB" if args.save else "opened in Rerun"
        out.result({"episode": digest, "rerun": None if args.save is None else str(args.save)}, [saved])
        return 0
    if args.save is not None:
        raise InputError("--save is for --rerun", allowed="--html FILE, or --rerun --save FILE.rrd")
    from flyball.apps.web.episode import render
    from flyball.base.durable import write_durably

    lost: list[str] = []
    page = render(
        episode,
        vars(catalogue.row(digest)),
        history=[{**h, "at": _when(h["at_ns"])} for h in catalogue.history(digest)],
        verdicts=_verdicts(catalogue, digest),
        lineage=_lineage(catalogue, digest),
        pictures=_pictures(catalogue, episode, lost),
    ).encode()
    path = args.html or space.reports / f"episode-{digest[:12]}.html"
    write_durably(path, page)
    for line in lost:
        out.note(line)
    document = {"episode": digest, "html": str(path), "bytes": len(page), "lost": lost}
    out.result(document, [f"{path} ({len(page) / 1e6:.2f} MB)"])
    return 3 if lost else 0


def _verdicts(catalogue: Catalogue, digest: str) -> list[dict[str, Any]]:
    current = set(catalogue.verdicts(digest))
    return [
        {**vars(v), "current": v in current, "at": _when(v.at_ns)} for v in catalogue.verdicts(digest, current=False)
    ]


def _lineage(catalogue: Catalogue, digest: str) -> list[dict[str, Any]]:
    store = catalogue.store
    return [
        {"direction": name, "kind": a.kind, "digest": a.digest, "what": str(a.labels.get("name") or a.producer)}
        for name, direction in (("made from", "parents"), ("went into", "children"))
        for a in store.lineage(digest, direction)[:100]  # type: ignore[arg-type]
    ]


def _pictures(catalogue: Catalogue, episode: Episode, lost: list[str]) -> dict[str, Any]:
    from flyball.apps.web.episode import Picture, thumbnails
    from flyball.episodes.codec import span_ns

    begin, _ = span_ns(episode)
    made: dict[str, Any] = {}
    for name, f in episode.frames.items():
        try:
            room = PICTURE_BYTES // len(episode.frames)
            found = thumbnails(f, catalogue.store.path(f.blob), PICTURES, PICTURE_HEIGHT, room)
            made[name] = [Picture((int(f.t_ns[i]) - begin) * 1e-9, data) for i, data in found]
        except (FlyballError, OSError) as err:
            made[name] = err.line() if isinstance(err, FlyballError) else f"pictures of {name}: {err.strerror}"
            lost.append(made[name])
    return made


def _like(catalogue: Catalogue, digest: str, args: argparse.Namespace, out: Output) -> int:
    from flyball.episodes.query import select
    from flyball.episodes.similarity import like

    if not args.signal:
        names = catalogue.load(digest).signals
        raise InputError("which signal?", where="episodes like", allowed="--signal with one of " + ", ".join(names))
    if args.top < 1:
        raise InputError(f"--top {args.top}", allowed="1 and more")
    with _indexing() as told:
        among = {r.digest for r in select(catalogue, args.where, progress=told)} if args.where else None
        found = like(
            catalogue,
            digest,
            args.signal,
            args.start_s or 0.0,
            args.end_s,
            by=args.by,
            stretch=args.stretch,
            top=args.top,
            among=among,
            progress=told,
        )
    rows = []
    for m in found:
        r = catalogue.row(m.digest)
        outcome = r.outcome + (f" ({r.grp})" if r.grp else "")
        rows.append((m.digest[:12], f"{m.start_s:.3f}", f"{m.end_s:.3f}", f"{m.distance:.4g}", r.robot, outcome))
    columns = ("episode", "from [s]", "to [s]", "distance", "robot", "outcome")
    out.table({"matches": [vars(m) for m in found]}, columns, rows, "nothing like it")
    return 0


def _when(at_ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_ns * 1e-9))
