"""``flyball variations FILE``: worlds drawn from a file of variations, to look at before anything is simulated."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flyball.apps.cli.output import Output
from flyball.base import InputError

_MOST_WORLDS = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The file, and which worlds of which run."""
    parser.add_argument("file", type=Path, metavar="FILE", help="TOML file of variations")
    parser.add_argument("--worlds", type=int, default=5, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="I", help="number of the first (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="of the run (default: %(default)s)")
    parser.add_argument(
        "--progress", type=float, default=1.0, metavar="P", help="of the curriculum, 0 to 1 (default: %(default)s)"
    )
    parser.add_argument("--task", metavar="NAME", help="check paths and ranges against this task's scene")


def run(args: argparse.Namespace, out: Output) -> int:
    """Print the values that the worlds have; the same numbers wherever and however they are drawn again."""
    from dataclasses import replace

    from flyball.scenes import draw_worlds, load_variations

    if not 0 < args.worlds <= _MOST_WORLDS:
        raise InputError(f"--worlds {args.worlds}", where="flyball variations", allowed=f"1 to {_MOST_WORLDS}")
    variations = load_variations(args.file)
    worlds = range(args.first, args.first + args.worlds)
    if args.task:
        from flyball.tasks.task import tasks

        scene = replace(tasks.load(args.task).scene, variations=variations)
        everything = scene.draw_worlds(args.seed, worlds, progress=args.progress)
        drawn = {p: everything[p] for v in variations for p in v.paths}
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
