"""``flyball variations FILE``: worlds drawn from a file of variations, to look at before anything is simulated."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flyball.apps.cli.output import Output
from flyball.base import InputError

_MOST_WORLDS = 100_000
_FORMAT = """Draw worlds from a file of variations. A file is TOML, a table per thing that varies:

  [object.mass]                   # a parameter of the task's scene
  kind = "uniform"
  low = 0.2
  high = 0.6

  ["geom:box.friction[0]"]        # a field: body, geom, joint, actuator, tendon, world; light, material, camera
  kind = "log_normal"
  median = 1.0
  sigma = 0.1
  how = "scale"                   # set (the default) | scale | add

  ["sensor:object.pose.delay"]    # what befalls a signal: delay, noise, bias, walk, dropout, quantum
  kind = "choice"
  values = [0.0, 0.04]

kinds: constant, uniform, log_uniform, normal, log_normal, truncated, choice, mixture, ramp (over a curriculum),
formula, conditional, arithmetic, correlated, joint (samples)
used by: flyball evaluate TASK --vary FILE, flyball picture TASK --vary FILE"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and which worlds of which run."""
    parser.formatter_class, parser.description = argparse.RawDescriptionHelpFormatter, _FORMAT
    parser.add_argument("file", type=Path, metavar="FILE", help="TOML file of variations")
    parser.add_argument("--worlds", type=int, default=5, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the run (default: %(default)s)")
    parser.add_argument(
        "--progress", type=float, default=1.0, metavar="P", help="of the curriculum, 0 to 1 (default: %(default)s)"
    )
    parser.add_argument("--task", metavar="NAME", help="check against this task's scene: paths, ranges, elements")
    parser.add_argument(
        "--engine", metavar="NAME", default="mujoco", help="which must be able to set the fields (default: %(default)s)"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the values that the worlds have; the same numbers wherever and however they are drawn again."""
    from flyball.scenes import draw_worlds, load_variations

    if not 0 < args.worlds <= _MOST_WORLDS:
        raise InputError(f"--worlds {args.worlds}", where="flyball variations", allowed=f"1 to {_MOST_WORLDS}")
    if args.first < 0:
        raise InputError(f"--first {args.first}", where="flyball variations", allowed="0 or more")
    variations = load_variations(args.file)
    worlds = range(args.first, args.first + args.worlds)
    if args.task:
        from flyball.tasks.task import tasks, varied
        from flyball.tasks.world import World

        task = varied(tasks.load(args.task), variations)
        everything = task.scene.draw_worlds(args.seed, worlds, progress=args.progress)
        drawn = {p: everything[p] for v in variations for p in v.paths}
        World(task, 1, engine=args.engine).reset({p: x[:1] for p, x in drawn.items()}, [args.first])
    else:
        drawn = draw_worlds(variations, args.seed, worlds, progress=args.progress)
    document: dict[str, Any] = {
        "file": str(args.file),
        "seed": args.seed,
        "first": args.first,
        "progress": args.progress,
        "values": {path: x.tolist() for path, x in drawn.items()},
    }
    shown = range(min(len(worlds), 8))
    columns = ("what varies", *(f"world {worlds[k]}" for k in shown), *(["..."] if len(worlds) > len(shown) else []))
    rows = [
        (path, *(f"{x[k]:.5g}" for k in shown), *([""] if len(worlds) > len(shown) else []))
        for path, x in drawn.items()
    ]
    out.table(document, columns, rows, "nothing varies")
    return 0
