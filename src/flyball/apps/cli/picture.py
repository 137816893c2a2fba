"""``flyball picture FILE|TASK``: what a camera sees of a model or of a task's start."""

from __future__ import annotations

import argparse
from pathlib import Path

from flyball.apps.cli.output import Output
from flyball.base import InputError, Missing
from flyball.scenes import Camera


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at, and how."""
    parser.add_argument("what", metavar="FILE|TASK", help="a model (MJCF, URDF, USD), or the name of a task")
    parser.add_argument("--out", type=Path, metavar="PNG", required=True, help="where to write the picture")
    parser.add_argument("--camera", metavar="NAME", help="a camera of the model (default: its first, else an overview)")
    parser.add_argument(
        "--kind", default="rgb", metavar="KIND", help="rgb | depth | segmentation | normals (%(default)s)"
    )
    parser.add_argument("--preset", default="fast", metavar="PRESET", help="fast | quality: shadows (%(default)s)")
    parser.add_argument("--size", default="640x480", metavar="WxH", help="in pixels (%(default)s)")
    parser.add_argument("--renderer", default="auto", metavar="NAME", help="egl, osmesa, warp or rays (chosen for you)")


def run(args: argparse.Namespace, out: Output) -> int:
    """Draw one picture of the start state."""
    try:
        width, height = (int(x) for x in args.size.lower().split("x"))
    except ValueError as err:
        raise InputError(f"--size {args.size}", where="flyball picture", allowed="WxH, e.g. 640x480") from err
    kinds = ("rgb", "depth", "segmentation", "normals")
    if args.kind not in kinds:
        raise Missing.named("kind of picture", args.kind, kinds, where="--kind")
    from flyball.engines.rendering import Renderer, model_cameras, write_png

    mjcf, assets, start, cameras = _model(args.what)
    with Renderer(mjcf, backend=args.renderer, preset=args.preset, assets=assets) as renderer:
        own = {c.name: c for c in (*cameras, *model_cameras(renderer.model))}
        wanted = args.camera or next(iter(own), "overview")
        if wanted != "overview" and wanted not in own:
            raise Missing.named("camera", wanted, [*own, "overview"], where=args.what)
        at = renderer.start(start)
        camera = own[wanted].resized(width, height) if wanted in own else renderer.overview(at, width, height)
        seen = renderer.render(at, camera, (args.kind,))[args.kind]
        write_png(args.out, args.kind, seen[0])
        with_ = renderer.backend(args.kind == "rgb")
    document = {"picture": args.out, "kind": args.kind, "camera": wanted, "renderer": with_, "size": [width, height]}
    out.result(document, [f"{args.out}: {args.kind}, camera {wanted}, {width} x {height}, drawn by {with_}"])
    return 0


def _model(what: str) -> tuple[str, dict[str, bytes], dict[str, object], tuple[Camera, ...]]:
    """MJCF, its files, joint positions of the start by name, the scene's cameras."""
    from flyball.tasks.task import tasks

    if what in tasks.names():
        import numpy as np

        task = tasks.load(what)
        start = task.starts(task.scene.nominal(1), [np.random.default_rng(0)])
        return task.scene.model, {}, {k: v[0] for k, v in start.items()}, task.scene.cameras
    path = Path(what)
    if not path.exists():
        raise Missing.named("task or file", what, tasks.names(), where="flyball picture", run_next="flyball tasks")
    from flyball.robots.models import load

    imported = load(path)
    return imported.mjcf, dict(imported.assets), {}, ()
