"""``flyball explain EPISODE ...``: why attempts failed, what would have held, and a crash test of each."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.apps.cli.progress import progress
from flyball.base import FlyballError, InputError, Missing

if TYPE_CHECKING:
    from flyball.base.workspace import Workspace
    from flyball.calibration.explain import Explanation
    from flyball.calibration.explain.sources import Sources
    from flyball.episodes import Episode

NOT_EXPLAINED, DONE_WITH_LOSSES = 1, 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which failures, and what is not in the workspace."""
    parser.add_argument("episode", nargs="*", metavar="EPISODE", help="digest (its beginning is enough) or log file")
    parser.add_argument(
        "--where", default="", metavar="SQL", help="all failures that meet a condition, grouped by cause"
    )
    parser.add_argument("--check", type=Path, metavar="FILE", help="try a crash test again instead; exit code 0 or 1")
    parser.add_argument("--policy", metavar="FILE", help="the policy that acted, or: expert (default: the release's)")
    parser.add_argument("--execute", type=int, default=1, metavar="N", help="actions of its chunks that are executed")
    parser.add_argument("--told", type=Path, metavar="FILE", help="JSON of what it was told, {name: value}")
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE",
        help='JSON of the robot\'s joint samples, {"paths": [...], "samples": [...]} (default: its newest one here)',
    )  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="DIR", help="where pages, crash tests and ranges go")
    parser.add_argument("--no-map", action="store_true", help="without the margin map, which costs some seconds")
    parser.add_argument("--seed", type=int, default=0, help="decides everything random (default: %(default)s)")


def run(args: argparse.Namespace, out: Output) -> int:
    """Explain; exit code 1 when nothing could be explained, 3 when some episodes could not be read."""
    if args.seed < 0 or args.execute < 1:
        raise InputError(f"--seed {args.seed} --execute {args.execute}", where="flyball explain",
                         allowed="--seed 0 or more, --execute 1 or more")  # fmt: skip
    space = _workspace(args.workspace, needed=bool(args.where))
    sources = _sources(args, space)
    if args.check:
        return _check(args.check, sources, out)
    names = _chosen(args, space)
    folder = args.out or (space.reports if space else Path("."))
    from flyball.calibration.explain import explain

    done: list[tuple[str, Explanation]] = []
    lost: list[tuple[str, str]] = []
    with progress() as shown:
        shown.stage("explaining", len(names))
        for k, name in enumerate(names):
            try:
                case, acted = sources.case(_episode(name, space), seed=args.seed)
                found = explain(
                    case, draw_map=not args.no_map, policy_digest=acted.digest, execute=acted.execute
                )  # fmt: skip
            except FlyballError as err:
                if len(names) == 1:
                    raise
                lost.append((name, err.line()))
            else:
                done.append((name, found))
            shown.at(k + 1, len(names))
    documents = [_written(folder, name, found) for name, found in done]
    groups = _groups(done)
    lines = [line for (name, found), d in zip(done, documents, strict=True) for line in _lines(name, found, d)]
    if len(names) > 1:
        lines += ["", *_summary(groups)]
    out.result(
        {
            "explanations": documents,
            "groups": [{"task": t, "cause": c, "episodes": v, "says": s} for (t, c), (v, s) in groups.items()],
            "lost": [{"episode": n, "reason": r} for n, r in lost],
        },
        lines,
    )
    for name, why in lost:
        out.note(f"{name}: {why}")
    if lost:
        return DONE_WITH_LOSSES
    return 0 if any(found.verdict == "explained" for _, found in done) else NOT_EXPLAINED


def _workspace(path: Path, *, needed: bool) -> Workspace | None:
    from flyball.base.workspace import Workspace

    if not needed and not (path / "flyball.toml").exists():
        return None
    return Workspace(path, create=False)


def _sources(args: argparse.Namespace, space: Workspace | None) -> Sources:
    from flyball.calibration.explain.sources import EXPERT, Sources, read_json, samples_of

    policy = args.policy if args.policy in (None, EXPERT) else Path(args.policy)
    told = read_json(args.told) if args.told else None
    if told is not None and not isinstance(told, dict):
        raise InputError("is no JSON object", where=str(args.told), allowed="{name: value}")
    samples = samples_of(read_json(args.calibration), str(args.calibration)) if args.calibration else None
    targets = space.tuf / "repository" / "targets" if space else None
    return Sources(space.store if space else None, targets, policy, told, samples, args.execute)


def _chosen(args: argparse.Namespace, space: Workspace | None) -> list[str]:
    """Names of the episodes: paths, and digests."""
    names = list(args.episode)
    if args.where:
        from flyball.episodes.catalogue import Catalogue

        assert space is not None
        rows = Catalogue(space.store).query(f"({args.where}) AND outcome = 'failure'", order="start_ns")
        names += [r.digest for r in rows]
        if not names:
            raise Missing("no failure meets the condition", where="--where", run_next="flyball episodes --where ...")
    if not names:
        raise InputError("no episode", where="flyball explain", allowed="EPISODE ..., --where SQL or --check FILE")
    return names


def _episode(name: str, space: Workspace | None) -> Episode:
    path = Path(name)
    if path.exists():
        from flyball.episodes.formats import read_one

        return read_one(path)
    if space is None:
        raise Missing(f"no file {name}, and no workspace whose catalogue has it", allowed="a log, or --workspace DIR")
    from flyball.episodes.catalogue import Catalogue

    catalogue = Catalogue(space.store)
    return catalogue.load(catalogue.resolve(name))


def _written(folder: Path, name: str, found: Explanation) -> dict[str, Any]:
    """Page, crash test and range of one explanation; the document, with their paths."""
    from flyball.apps.web.explain import render
    from flyball.base.durable import make_folder, write_durably
    from flyball.scenes import dump_variations

    make_folder(folder)
    stem = "explain-" + (Path(name).stem if Path(name).exists() else name[:12])
    document: dict[str, Any] = {"episode": name, **found.to_json(), "files": {}}
    if found.crash:
        document["files"]["crash_test"] = str(folder / f"{stem}.crash.json")
        found.crash.save(folder / f"{stem}.crash.json")
    if found.variations:
        document["files"]["variations"] = str(folder / f"{stem}.toml")
        write_durably(folder / f"{stem}.toml", dump_variations(found.variations).encode())
    document["files"]["page"] = str(folder / f"{stem}.html")
    write_durably(folder / f"{stem}.html", render(document).encode())
    return document


def _lines(name: str, found: Explanation, document: dict[str, Any]) -> list[str]:
    first, *rest = found.lines()
    files = [f"  {what.replace('_', ' ')}: {path}" for what, path in document["files"].items()]
    return [f"{Path(name).name if Path(name).exists() else name[:12]}: {first}", *rest, *files]


def _groups(done: Sequence[tuple[str, Explanation]]) -> dict[tuple[str, str], tuple[list[str], str]]:
    """Failures by first-named cause, the most frequent first; with the sentence of the first of them."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for name, e in done:
        found.setdefault((e.task, e.cause), []).append((name, e.sentence))
    order = sorted(found.items(), key=lambda kv: -len(kv[1]))
    return {key: ([n for n, _ in mine], mine[0][1]) for key, mine in order}


def _summary(groups: Mapping[tuple[str, str], tuple[list[str], str]]) -> list[str]:
    """One line per group."""
    return [
        f"{len(v)} x {task}: {says if says.startswith(cause) else f'{cause}, e.g. {says}'}"
        for (task, cause), (v, says) in groups.items()
    ]


def _check(path: Path, sources: Sources, out: Output) -> int:
    from flyball.calibration.explain import CrashTest

    test = CrashTest.load(path)
    task = test.examine(str(path))
    found = test.check(sources.maker(task, test.policy, test.execute))
    before = f"fails in {found['before']:.0%} (was {test.before['fails']:.0%})"
    after = (
        f", told better it succeeds in {found['after']:.0%} (was {test.after['succeeds']:.0%})" if test.after else ""
    )
    verdict = "holds" if found["holds"] else "does not hold"
    out.result({"file": str(path), **found, "says": test.says}, [f"{verdict}: {before}{after}", f"  {test.says}"])
    return 0 if found["holds"] else 1
