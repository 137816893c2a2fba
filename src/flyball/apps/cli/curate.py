"""``flyball curate``: checks on episodes, their verdicts kept as rows that can be taken back."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output

if TYPE_CHECKING:
    from flyball.episodes.curation import Check, Tally

WORST = 3
DONE_WITH_LOSSES = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which episodes and checks."""
    parser.add_argument(
        "--where",
        default="",
        metavar="SQL",
        help="which episodes, and what they are compared with, as for flyball episodes (default: all)",
    )
    parser.add_argument("--check", nargs="+", default=[], metavar="NAME", help="only these checks (default: all)")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="CHECK.NAME=N", help="other limits, e.g. offset.angle=0.05; see --list"
    )
    parser.add_argument("--list", action="store_true", help="state every rule with its limits and their reasons")
    parser.add_argument(
        "--forget", nargs="+", default=[], metavar="CHECK", help="take back what these checks said, by further rows"
    )
    parser.add_argument("--undo", action="store_true", help="take back what all checks said, by further rows")


def run(args: argparse.Namespace, out: Output) -> int:
    """Apply the checks, write what they say, print counts and the furthest beyond each limit."""
    chosen = _chosen(args.check, args.set)
    if args.list:
        _list(chosen, out)
        return 0
    from flyball.apps.cli.progress import progress
    from flyball.base.workspace import Workspace
    from flyball.episodes.catalogue import Catalogue
    from flyball.episodes.curation import curate, take_back

    catalogue = Catalogue(Workspace(args.workspace, create=False).store)
    if args.forget or args.undo:
        names = args.forget or args.check
        _known(names, catalogue)
        n = take_back(catalogue, names, args.where)
        what = " ".join(names) or "all checks"
        out.result({"taken_back": n, "checks": names}, [f"{n} verdicts of {what} taken back; nothing was deleted"])
        return 0
    with progress() as shown:

        def at(done: int, total: int) -> None:
            if done == 1:
                shown.stage("checking episodes", total)
            shown.at(done, total)

        done = curate(catalogue, chosen, args.where, bodies=_bodies(), progress=at)
    document = {
        "episodes": done.episodes,
        "unread": [{"digest": d, "reason": r} for d, r in done.unread],
        "checks": [_tally(t) for t in done.tallies],
        "coverage": [{"embodiment": e, "task": t, **vars(c)} for (e, t), c in done.coverage.items()],
    }
    rows = [(t.check.name, *_cells(t), *_worst(t)) for t in done.tallies]
    columns = ("check", "version", "flag", "note", "pass", "silent", "new", "worst", "why")
    if not done.episodes:
        out.result(document, ["no episodes; try: flyball ingest PATH"])
        return 0
    out.table(document, columns, rows, "")
    failed = [(t.check.name, d, why) for t in done.tallies for d, why in t.failed]
    if not out.as_json:
        for (_, task), c in done.coverage.items():
            text = f"{c.episodes} episodes reach {c.cells} cells of state, {c.once} of them only once"
            out.note(f"{task or 'no task'}: {text}; {c.enough} episodes reach nine in ten")
        out.note(
            f"{done.episodes} episodes; 'worst' is furthest beyond the rule's limit, no measure of what an episode is "
            "worth; rules: flyball curate --list"
        )
    for digest, why in done.unread:
        out.note(f"episode {digest[:12]} could not be read: {why}")
    for name, digest, why in failed[:10]:
        out.note(f"{name} could not be applied to {digest[:12]}: {why}")
    if len(failed) > 10:
        out.note(f"... and {len(failed) - 10} more of this kind")
    return DONE_WITH_LOSSES if failed or done.unread else 0


def _chosen(names: list[str], settings: list[str]) -> list[Check]:
    from flyball.base import InputError, Missing
    from flyball.episodes.curation import checks

    chosen = {name: checks.load(name) for name in names or checks.names()}
    for text in settings:
        target, equals, value = text.partition("=")
        name, dot, parameter = target.partition(".")
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if not (equals and dot and number == number and abs(number) != float("inf")):
            raise InputError(f"--set {text!r}", allowed="CHECK.NAME=NUMBER", run_next="flyball curate --list")
        if name not in chosen:
            raise Missing.named("check", name, chosen, where=f"--set {text}", run_next="flyball curate --list")
        chosen[name] = chosen[name].with_parameters(**{parameter: number})
    return sorted(chosen.values(), key=lambda c: (c.tier, c.name))


def _known(names: list[str], catalogue: Any) -> None:
    """Names of checks that said something, also of ones that are no longer installed."""
    from flyball.base import Missing
    from flyball.episodes.curation import checks

    said = {v.check for v in catalogue.verdicts(current=False)} if names else set()
    for name in names:
        if name not in said | set(checks.names()):
            raise Missing.named("check", name, said | set(checks.names()), run_next="flyball curate --list")


def _bodies() -> dict[str, Any]:
    """The embodiments that tasks name, where the tasks' library is installed."""
    from flyball.base import NotPossible
    from flyball.tasks.task import tasks

    found: dict[str, Any] = {}
    for name in tasks.names():
        try:
            body = tasks.load(name).embodiment
        except NotPossible:
            continue
        found[body.name] = None if body.name in found and found[body.name] != body else body
    return {name: body for name, body in found.items() if body is not None}


def _list(chosen: list[Check], out: Output) -> None:
    document = [
        {
            "check": c.name,
            "tier": c.tier,
            "version": c.stamp,
            "meaning": c.meaning,
            "rule": c.stated(),
            "parameters": {n: vars(p) for n, p in c.parameters.items()},
        }
        for c in chosen
    ]
    lines = []
    for c in chosen:
        lines.append(f"{c.name} (tier {c.tier}, version {c.stamp}, {c.meaning}): {c.stated()}")
        lines += [f"    {c.name}.{n} = {p.value:g}: {p.why}" for n, p in c.parameters.items()]
    out.result(document, lines)


def _cells(t: Tally) -> tuple[Any, ...]:
    return (t.check.stamp, *(t.counts.get(k, 0) or "-" for k in ("flag", "note", "pass", "silent")), t.added)


def _worst(t: Tally) -> tuple[str, str]:
    if not t.found:
        return "-", ""
    digest, findings = t.found[0]
    why = str(findings[0])
    return digest[:12], why if len(why) <= 100 else why[:97] + "..."


def _tally(t: Tally) -> dict[str, Any]:
    return {
        "check": t.check.name,
        "version": t.check.stamp,
        "counts": t.counts,
        "added": t.added,
        "worst": [{"digest": d, "findings": [vars(f) for f in fs]} for d, fs in t.found[:WORST]],
        "failed": [{"digest": d, "reason": why} for d, why in t.failed],
    }
