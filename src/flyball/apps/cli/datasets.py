"""``flyball datasets``: versions of lists of episodes; LeRobot folders out and in."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.base import InputError, Missing

if TYPE_CHECKING:
    from flyball.base.workspace import Workspace
    from flyball.episodes.datasets.lerobot import ExportReport
    from flyball.episodes.datasets.versions import Datasets, Version

_EPILOG = "DATASET is a name (its newest version), NAME@2, or the beginning of a digest"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to do, and with which dataset."""
    what = parser.add_subparsers(dest="what", metavar="WHAT", title="what", required=True, parser_class=type(parser))

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        p = what.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".", epilog=_EPILOG)
        p.add_argument("--workspace", type=Path, default=argparse.SUPPRESS, metavar="DIR", help="see flyball datasets")
        p.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document on stdout")
        return p

    p = verb("list", "list datasets and their versions")
    p = verb("show", "show one version: how it was made, what is in it")
    p.add_argument("dataset", metavar="DATASET")

    p = verb("build", "make a version from the episodes that meet a condition now")
    p.add_argument("name", metavar="NAME")
    p.add_argument("--where", metavar="SQL", help="as for flyball episodes; none: all, or the newest version's query")
    p.add_argument("--with-rejected", action="store_true", help="also episodes whose verdict is 'rejected'")

    p = verb("merge", "make a version of everything that is in any of some datasets")
    p.add_argument("name", metavar="NAME")
    p.add_argument("datasets", metavar="DATASET", nargs="+")

    p = verb("split", "divide a dataset; episodes added later move none that are there")
    p.add_argument("dataset", metavar="DATASET")
    p.add_argument("--fractions", default="train=0.8,val=0.1,test=0.1", metavar="A=F,...", help="default: %(default)s")
    p.add_argument(
        "--by",
        default="episode",
        metavar="KEY",
        help="what stays together: episode (or hash), robot, log, task, scene, seed",
    )
    p.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    p.add_argument("--name", metavar="NAME", help="of the result (default: a further version of the same)")

    p = verb("diff", "what distinguishes two versions; exit code 1 when they differ")
    p.add_argument("before", metavar="DATASET")
    p.add_argument("after", metavar="DATASET")
    p.add_argument("--no-statistics", action="store_true", help="compare lists and specifications alone")

    p = verb("verify", "check digests and lineage, or an exported folder against its episodes; exit code 1 when wrong")
    p.add_argument("dataset", metavar="DATASET|FOLDER")

    p = verb("export", "write a LeRobotDataset folder")
    p.add_argument("dataset", metavar="DATASET")
    p.add_argument("folder", type=Path, metavar="FOLDER", help="to be made; nothing is ever overwritten")
    p.add_argument("--format", default="v3.0", metavar="V", help="v3.0 or v2.1 (default: %(default)s)")
    p.add_argument("--fps", type=int, metavar="N", help="rows per second (default: the rate of the actions)")
    p.add_argument("--rule", default="last", help="the sample a row gets: last (not later than the row) or nearest")
    p.add_argument("--max-age", type=float, metavar="S", help="refuse samples further away than this")
    p.add_argument("--state", action="append", default=[], metavar="SIGNAL", help="part of observation.state; repeat")
    p.add_argument("--action", action="append", default=[], metavar="SIGNAL", help="part of action; repeat")
    p.add_argument("--without", action="append", default=[], metavar="SIGNAL", help="leave this signal or camera out")
    p.add_argument("--images", default="video", help="cameras as video, png, or none (default: %(default)s)")
    p.add_argument("--codec", default="h264", help="of videos: h264 or av1 (default: %(default)s)")
    p.add_argument("--crf", type=int, metavar="N", help="quality of videos, 0 is best (default: 23; av1: 30)")
    p.add_argument("--keep-dtype", action="store_true", help="float64 stays float64")

    p = verb("import", "ingest a LeRobotDataset folder and make a version of its episodes")
    p.add_argument("folder", type=Path, metavar="FOLDER")
    p.add_argument("name", metavar="NAME", nargs="?", help="default: the folder's name")


def run(args: argparse.Namespace, out: Output) -> int:
    """One of them; see each one's help for exit codes."""
    from flyball.base.workspace import Workspace
    from flyball.episodes.catalogue import Catalogue
    from flyball.episodes.datasets.versions import Datasets

    if args.what == "verify" and ("/" in args.dataset or Path(args.dataset).is_dir()):
        return _verify_folder(args, out)
    space = Workspace(args.workspace, create=args.what == "import")
    return _ACTIONS[args.what](args, out, space, Datasets(Catalogue(space.store)))


def _list(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    versions = datasets.versions()
    newest = {v.name: v.number for v in versions}
    rows, document = [], []
    for v in versions:
        d = datasets.load(v)
        document.append({**asdict(v), "episodes": len(d.episodes), "made": dict(d.made), "query": d.query})
        splits = " ".join(f"{part}:{len(members)}" for part, members in d.splits.items())
        latest = "*" if newest[v.name] == v.number else ""
        rows.append((f"{v}{latest}", v.digest[:12], len(d.episodes), d.made.get("verb", "-"), splits or "-", d.query))
    columns = ("dataset", "digest", "episodes", "made by", "splits", "query")
    out.table({"datasets": document}, columns, rows, "no datasets; try: flyball datasets build NAME --where ...")
    return 0


def _show(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    version = datasets.find(args.dataset)
    d = datasets.load(version)
    headers = datasets.headers(d)
    first = next(iter(headers.values()))
    document = {**asdict(version), "digest": version.digest, **{k: v for k, v in asdict(d).items()}}
    counts: dict[str, int] = {}
    for j in d.judged:
        counts[j.outcome] = counts.get(j.outcome, 0) + 1
    parents = [a for a in space.store.lineage(version.digest) if a.kind != "episode"]
    lines = [
        f"dataset: {version}  {version.digest}",
        "made by: " + (", ".join(f"{k} {v}" for k, v in sorted(d.made.items(), reverse=True)) or "a generator"),
        f"query: {d.query or '-'}",
        f"episodes: {len(d.episodes)} of {first.embodiment or 'an unnamed body'}"
        + (f" ({', '.join(f'{n} {o}' for o, n in sorted(counts.items()))})" if counts else ""),
    ]
    lines += [f"split {part}: {len(members)}" for part, members in d.splits.items()]
    lines += [f"signal {n} {s.shape} {s.dtype} [{s.unit or '-'}]" for n, s in sorted(first.signals.items())]
    lines += [f"camera {n} {w} x {h} {e}" for n, (e, h, w) in sorted(first.cameras.items())]
    kinds: dict[str, int] = {}
    for a in parents:
        kinds[a.kind] = kinds.get(a.kind, 0) + 1
    lines += [f"made from: {n} of kind {kind}" for kind, n in sorted(kinds.items())]
    out.result(document, lines)
    return 0


def _build(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    known = args.where is None and datasets.versions(args.name)
    if known and not args.with_rejected:
        return _made(out, datasets, datasets.rebuild(args.name))
    return _made(out, datasets, datasets.build(args.name, args.where or "", with_rejected=args.with_rejected))


def _merge(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    return _made(out, datasets, datasets.merge(args.name, args.datasets))


def _split(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    from flyball.episodes.datasets.versions import shares

    name = args.name or datasets.find(args.dataset).name
    fractions = shares(args.fractions)
    return _made(out, datasets, datasets.split(args.dataset, name, fractions, by=args.by, seed=args.seed))


def _made(out: Output, datasets: Datasets, version: Version) -> int:
    d = datasets.load(version)
    splits = {part: len(members) for part, members in d.splits.items()}
    text = f"{version}: {len(d.episodes)} episodes" + "".join(f", {n} {part}" for part, n in splits.items())
    document = {**asdict(version), "episodes": len(d.episodes), "splits": splits, "query": d.query}
    out.result(document, [f"{text}  {version.digest[:12]}"])
    return 0


def _diff(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    from flyball.episodes.datasets.compare import difference

    before, after = datasets.find(args.before), datasets.find(args.after)
    found = difference(
        datasets.catalogue, datasets.load(before), datasets.load(after), statistics=not args.no_statistics
    )
    lines = [f"+ episode {d[:12]}" for d in found.added] + [f"- episode {d[:12]}" for d in found.removed]
    lines += [f"~ episode {a[:12]} -> {b[:12]}: the same part of the same log, made anew" for a, b in found.changed]
    for d, (a, b) in found.rejudged.items():
        was, now = asdict(a), asdict(b)
        lines.append(f"~ episode {d[:12]}: " + ", ".join(f"{k} {was[k]} -> {now[k]}" for k in was if was[k] != now[k]))
    lines += [f"~ episode {d[:12]}: split {a or '-'} -> {b or '-'}" for d, (a, b) in found.moved.items()]
    lines += [f"~ signal {name}: {a or 'absent'} -> {b or 'absent'}" for name, (a, b) in found.specs.items()]
    for name, s in sorted(found.statistics.items()):
        sides = [s.get(side) for side in ("before", "after")]
        text = [_brief(x) if x else "absent" for x in sides]
        if text[0] != text[1]:
            lines.append(f"  {name}: {text[0]} -> {text[1]}")
    out.result({"before": asdict(before), "after": asdict(after), **asdict(found)}, lines or ["no difference"])
    return 0 if found.empty else 1


def _brief(s: dict[str, Any]) -> str:
    values = ", ".join(f"{m:.4g}±{d:.2g}" for m, d in list(zip(s["mean"], s["std"], strict=True))[:4])
    return f"{s['count']} samples, {values}" + (" ..." if len(s["mean"]) > 4 else "")


def _verify(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    from flyball.episodes.datasets.verify import verify_version

    version = datasets.find(args.dataset)
    with progress() as display:
        display.stage("verify")
        proof = verify_version(space.store, version.digest, progress=display.at)
    good = f"{proof.episodes} episodes, {proof.cameras} cameras' pictures and {proof.logs} raw logs are what they were"
    out.result({**asdict(version), **asdict(proof)}, [*proof.problems, f"{version}: {good}"])
    return 1 if proof.problems else 0


def _verify_folder(args: argparse.Namespace, out: Output) -> int:
    from flyball.base.workspace import Workspace
    from flyball.episodes.datasets.verify import verify_folder

    store = Workspace(args.workspace, create=False).store if (args.workspace / "flyball.toml").exists() else None
    with progress() as display:
        display.stage("verify")
        proof = verify_folder(Path(args.dataset), store, progress=display.at)
    lines = [*proof.problems, f"{args.dataset}: {proof.files} files are as exported"]
    if store is None:
        out.note("no workspace here: files were checked, episodes were not; try: --workspace DIR")
    elif not proof.problems:
        worst = f", pictures at {proof.psnr_db:.1f} dB or better" if proof.psnr_db < float("inf") else ""
        lines.append(f"{proof.frames} rows of {proof.episodes} episodes are bit for bit those of the store{worst}")
    out.result({"folder": args.dataset, **asdict(proof)}, lines)
    return 1 if proof.problems else 0


def _export(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    from flyball.episodes.datasets.layout import UNWANTED, TableOptions, plan
    from flyball.episodes.datasets.lerobot import export
    from flyball.episodes.datasets.versions import PRODUCER

    version = datasets.find(args.dataset)
    options = TableOptions(
        fps=args.fps,
        rule=args.rule,
        max_age_s=args.max_age,
        state=tuple(args.state),
        action=tuple(args.action),
        without=tuple(args.without),
        images=args.images,
        codec=args.codec,
        crf=args.crf,
        keep_dtype=args.keep_dtype,
    )
    dataset = datasets.load(version)
    layout = plan(space.store, dataset, options)
    with progress() as display:
        display.stage("export")
        report = export(space.store, dataset, layout, args.folder, version=args.format, progress=display.at)
    labels = {"folder": str(report.folder), "format": report.version, "name": str(version)}
    space.store.put("export", report.manifest, parents=(version.digest,), producer=PRODUCER, labels=labels)
    out.result(_document(report, str(version)), _exported(report))
    return 3 if any(why not in UNWANTED for _, why in report.left_out) else 0


def _document(report: ExportReport, name: str) -> dict[str, Any]:
    found = {k: v for k, v in asdict(report).items() if k != "manifest"}
    return {**found, "dataset": name}


def _exported(report: ExportReport) -> list[str]:
    lines = [f"{report.folder}: {report.episodes} episodes, {report.frames} rows at {report.fps} Hz, {report.version}"]
    for key, r in report.features.items():
        text = f"oldest sample {r.age_s * 1e3:.1f} ms, {r.repeated} repeated, {r.skipped} skipped"
        cut = f", cut {r.begin_s:.2f} s at the start and {r.end_s:.2f} s at the end at most"
        lines.append(f"  {key}: {text}" + (cut if max(r.begin_s, r.end_s) * report.fps >= 1 else ""))
    lines += [f"left out: {name}: {why}" for name, why in report.left_out]
    return lines + [f"note: {text}" for text in report.notes]


def _import(args: argparse.Namespace, out: Output, space: Workspace, datasets: Datasets) -> int:
    from flyball.episodes.datasets.folder import INFO
    from flyball.episodes.datasets.versions import check_name
    from flyball.episodes.ingest import ingest

    name = check_name(args.name or args.folder.resolve().name)
    if not (args.folder / INFO).is_file():
        raise Missing("no LeRobotDataset", where=str(args.folder), allowed=f"a folder with {INFO}")
    with progress() as display:
        display.stage("import")
        report = ingest(space, [args.folder], progress=display.at)
    log = next(iter(report.logs), None)
    if log is None or not log.episodes:
        raise InputError(log.reason if log else "holds no episode", where=str(args.folder))
    for note in log.notes:
        out.note(f"{note.kind}: {note.text}")
    version = datasets.collect(name, log.episodes, made={"verb": "import", "log": log.digest})
    _made(out, datasets, version)
    return 3 if report.losses else 0


_ACTIONS: dict[str, Callable[[argparse.Namespace, Output, Workspace, Datasets], int]] = {
    "list": _list,
    "show": _show,
    "build": _build,
    "merge": _merge,
    "split": _split,
    "diff": _diff,
    "verify": _verify,
    "export": _export,
    "import": _import,
}
