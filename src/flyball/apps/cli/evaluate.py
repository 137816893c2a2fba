"""``flyball evaluate TASK``: policies on the same worlds in several physics engines, and how far the engines agree."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.base import InputError, Missing

if TYPE_CHECKING:
    from flyball.evaluation.agreement import Agreement, MakePolicy
    from flyball.tasks import Task
    from flyball.tasks.task import Values


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to try, where, how often."""
    parser.add_argument("task", help="see flyball tasks")
    parser.add_argument(
        "--policy", action="append", dest="policies", metavar="NAME", default=[],
        help="expert (told the truth), nominal (the expert, told nominal values), one of the task's baselines, or a "
        "policy file (.onnx, told the truth); may be given several times (default: expert, nominal)",
    )  # fmt: skip
    parser.add_argument(
        "--engine", action="append", dest="engines", metavar="NAME", default=[],
        help="see flyball engines; may be given several times (default: mujoco)",
    )  # fmt: skip
    parser.add_argument("--trials", type=int, default=32, metavar="N", help="worlds (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="decides the worlds (default: %(default)s)")
    parser.add_argument(
        "--vary", type=Path, metavar="FILE",
        help="TOML file of variations that hold on top of the drawn worlds: parameters, fields, sensors (see flyball "
        "variations)",
    )  # fmt: skip
    parser.add_argument("--execute", type=int, default=4, metavar="K", help="actions of a chunk that are executed")


def run(args: argparse.Namespace, out: Output) -> int:
    """Print success by policy and engine, and the engines' agreement where there are several."""
    import numpy as np

    from flyball.apps.cli.progress import progress
    from flyball.evaluation.agreement import agreement, try_on
    from flyball.evaluation.protocol import Protocol
    from flyball.evaluation.statistics import clopper_pearson
    from flyball.scenes import load_variations
    from flyball.tasks.task import tasks, varied

    if args.trials < 1:
        raise InputError(f"--trials {args.trials}", allowed="1 or more", where="flyball evaluate")
    if args.seed < 0:
        raise InputError(f"--seed {args.seed}", allowed="0 or more", where="flyball evaluate")
    task = varied(tasks.load(args.task), load_variations(args.vary) if args.vary else ())
    engines = list(dict.fromkeys(args.engines or ["mujoco"]))
    rng = np.random.default_rng(args.seed)
    own = task.scene.draw_worlds(args.seed, range(args.trials))
    values = task.draw_reality(rng, args.trials)
    values |= {p: own[p] for v in task.scene.variations for p in v.paths}
    seeds = Protocol(task.name, (str(args.seed),), tuple(engines), "drawn realities").seeds(args.trials)
    names = list(dict.fromkeys(args.policies or ["expert", "nominal"]))
    policies = {n: _policy(task, n, values, args.execute) for n in names}
    with progress() as p:
        tried = try_on(task, policies, engines, values, seeds, p.stage)
    held = f", {len(task.scene.variations)} variations of {args.vary}" if args.vary else ""
    lines = [f"{task.name}: {args.trials} drawn worlds, seed {args.seed}{held}"]
    for t in tried:
        rate = clopper_pearson(int(t.successes.sum()), args.trials)
        lines.append(f"  {t.engine:<20}{t.policy:<24}{rate.mean:6.1%} [{rate.low:.1%}, {rate.high:.1%}]")
    if len(engines) == 1:
        document: dict[str, Any] = {
            "trials": args.trials,
            "engines": [{"engine": t.engine, "policy": t.policy, "outcomes": list(t.groups)} for t in tried],
        }
    else:
        found = agreement(tried)
        document = found.to_json()
        lines += _agreement(found, names)
        if len(names) >= 2:
            document["better"] = {f"{names[0]} or {n}": found.better(names[0], n) for n in names[1:]}
    out.result({"task": task.name, "seed": args.seed, **document}, lines)
    return 0


def _agreement(found: Agreement, policies: list[str]) -> list[str]:
    lines = []
    for p in found.pairs:
        kappa = "undefined, all end alike" if p.kappa != p.kappa else f"{p.kappa:.2f}"
        rest = "" if p.rank != p.rank else f", rank correlation of the policies {p.rank:+.2f}"
        kind = "" if p.independent else " (one formulation, one vote)"
        lines.append(
            f"{' and '.join(p.engines)}{kind}: {p.alike.mean:.1%} of trials end alike "
            f"[{p.alike.low:.1%}, {p.alike.high:.1%}], kappa {kappa}{rest}"
        )
    if len(found.pairs) > 1:
        lines.append(
            f"all {len({t.engine for t in found.tried})} engines: {found.unanimous.mean:.1%} of trials end alike"
        )
    votes = "; ".join(k if v == (k,) else f"{k} ({' and '.join(v)})" for k, v in found.votes.items())
    lines.append(f"{len(found.votes)} vote{'s' if len(found.votes) > 1 else ''}: {votes}")
    for other in policies[1:]:
        said = found.better(policies[0], other)
        lines.append(f"{policies[0]} or {other}: " + ", ".join(f"{k} says {v}" for k, v in said.items()))
    return lines


def _policy(task: Task, name: str, values: Values, execute: int) -> MakePolicy:
    """By name; what is told is the truth of each world, but for ``nominal``."""
    from flyball.policies.batched import Batched
    from flyball.policies.learned import LearnedPolicy

    told = task.told(task.scene.nominal(len(next(iter(values.values())))) | dict(values))
    if name == "expert":
        return lambda n: task.expert(told)
    if name == "nominal":
        return lambda n: task.expert(task.told(task.scene.nominal(n)))
    if name in task.baselines():
        return task.baselines()[name]
    if not name.endswith(".onnx"):
        raise Missing.named("policy", name, ["expert", "nominal", *task.baselines(), "FILE.onnx"], where=task.name)
    if not Path(name).is_file():
        raise InputError("no such policy file", where=name, allowed="an .onnx file")
    blob = Path(name).read_bytes()

    def learned(n: int) -> Batched:
        policy = LearnedPolicy.load(blob, task, told)
        policy.reset(task.instruction, 0)
        return Batched(policy, execute)

    return learned
