"""``flyball picture FILE|ROBOT|TASK``: what a camera sees of a model or a task's start, also in a world that varies."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flyball.apps.cli.output import Output
from flyball.base import InputError, Missing
from flyball.scenes import Camera

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flyball.engines.rendering import Kind, Renderer
    from flyball.scenes import Scene

_CAMERA = """Draw what a camera sees of a model, of a task's start, or of a world that varies. A camera may be a
TOML file:

  width = 640
  height = 480
  fovy_deg = 55                   # or fx, fy, cx, cy [px]
  position = [0.9, -0.5, 0.6]     # in the frame of parent = "body:NAME", "site:NAME" or "" (the world)
  at = [0.4, 0.0, 0.05]           # what it looks at; or quat
  distortion = [-0.2, 0.05, 0, 0, 0]         # k1 k2 p1 p2 k3
  noise = { shot = 0.2, read = 2.0 }         # of rgb in counts; depth = [1/m]"""
_KINDS = ("rgb", "depth", "segmentation", "normals")
_SIZE = (640, 480)
_LARGEST = 8192


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What to look at, and how."""
    parser.formatter_class, parser.description = argparse.RawDescriptionHelpFormatter, _CAMERA
    parser.add_argument(
        "what",
        metavar="FILE|ROBOT|TASK",
        help="a model (MJCF, URDF, USD), or a name that flyball robots or tasks lists",
    )
    parser.add_argument("--out", type=Path, metavar="FILE.png", required=True, help="where to write the picture")
    parser.add_argument(
        "--camera", metavar="NAME|FILE.toml",
        help="a camera of the model or scene, overview, or a file that describes one: lens, distortion, noise, place "
        "(default: the first there is, else overview)",
    )  # fmt: skip
    parser.add_argument("--kind", default="rgb", metavar="KIND", help=f"{' | '.join(_KINDS)} (default: %(default)s)")
    parser.add_argument(
        "--preset", default="fast", metavar="PRESET",
        help="fast | quality: shadows, reflections, smooth edges (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--size", metavar="WxH", help="in pixels (default: the camera's own, else 640x480)")
    parser.add_argument("--renderer", default="auto", metavar="NAME", help="egl, osmesa, warp or rays (chosen for you)")
    parser.add_argument("--vary", type=Path, metavar="FILE.toml", help="variations that hold; see flyball variations")
    parser.add_argument("--world", type=int, default=0, metavar="I", help="which of them (default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="S", help="of the run, and of the camera's noise (default: %(default)s)"
    )


def run(args: argparse.Namespace, out: Output) -> int:
    """Draw one picture of the start state."""
    size = _size(args.size)
    if args.kind not in _KINDS:
        raise Missing.named("kind of picture", args.kind, _KINDS, where="--kind")
    if args.out.suffix.lower() != ".png" or args.out.is_dir():
        raise InputError(f"--out {args.out}", where="flyball picture", allowed="a file name that ends in .png")
    if args.seed < 0 or args.world < 0:
        raise InputError(f"--seed {args.seed} --world {args.world}", where="flyball picture", allowed="0 or more")
    from flyball.engines.rendering import write_png
    from flyball.scenes import load_camera

    given = (load_camera(args.camera),) if args.camera and args.camera.endswith(".toml") else ()
    picture, camera, renderer = (_varied if args.vary else _start)(args, size, given)
    write_png(args.out, args.kind, picture)
    document = {"picture": args.out, "kind": args.kind, "camera": camera.name, "renderer": renderer}
    document["size"] = [camera.width, camera.height]
    line = f"{args.out}: {args.kind}, camera {camera.name}, {camera.width} x {camera.height}, drawn by {renderer}"
    out.result(document, [line])
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    try:
        width, height = (int(x) for x in text.lower().split("x"))
    except ValueError:
        width = height = 0
    if not (1 <= width <= _LARGEST and 1 <= height <= _LARGEST):
        allowed = f"WxH, e.g. 640x480, each 1 to {_LARGEST}"
        raise InputError(f"--size {text}", where="flyball picture", allowed=allowed)
    return width, height


def _start(
    args: argparse.Namespace, size: tuple[int, int] | None, given: tuple[Camera, ...]
) -> tuple[NDArray[Any], Camera, str]:
    """The model or the task's scene as it starts."""
    from flyball.engines.rendering import Renderer

    scene, start = _scene(args.what)
    with Renderer(scene, backend=args.renderer, preset=args.preset) as renderer:
        at = renderer.start(start)
        camera = _camera(args, size, renderer, at, (*given, *scene.cameras))
        kinds: tuple[Kind, ...] = (args.kind,)
        return _read(args, camera, renderer.render(at, camera, kinds)), camera, renderer.backend(args.kind == "rgb")


def _varied(
    args: argparse.Namespace, size: tuple[int, int] | None, given: tuple[Camera, ...]
) -> tuple[NDArray[Any], Camera, str]:
    """World I of run S of a task whose scene varies."""
    from dataclasses import replace

    import numpy as np

    from flyball.scenes import load_variations
    from flyball.tasks.task import tasks, varied
    from flyball.tasks.world import World

    if args.what not in tasks.names():
        raise Missing.named("task", args.what, tasks.names(), where="flyball picture --vary")
    task = varied(tasks.load(args.what), load_variations(args.vary))
    task.scene = replace(task.scene, cameras=(*given, *task.scene.cameras))
    world = World(task, 1, backend=args.renderer, preset=args.preset)
    world.reset(task.scene.draw_worlds(args.seed, [args.world]), [args.world])
    renderer = world.views.renderer
    state, _ = renderer.state(world.simulation.read(renderer.reads(world.simulation)), 1)
    camera = _camera(args, size, renderer, np.asarray(state), task.scene.cameras)
    picture = _read(args, camera, world.see(camera, (args.kind,)))
    world.close()
    return picture, camera, renderer.backend(args.kind == "rgb")


def _read(args: argparse.Namespace, camera: Camera, seen: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The picture as the sensor reads it."""
    import numpy as np

    return camera.observe(seen, [np.random.default_rng([args.seed, args.world])])[args.kind][0]


def _camera(
    args: argparse.Namespace, size: tuple[int, int] | None, renderer: Renderer, at: NDArray[Any],
    cameras: tuple[Camera, ...],
) -> Camera:  # fmt: skip
    """The one that is asked for, in the size that is asked for."""
    from flyball.engines.rendering import model_cameras

    own = {c.name: c for c in (*cameras, *model_cameras(renderer.model))}
    if args.camera and args.camera.endswith(".toml"):
        found = cameras[0]
    elif (wanted := args.camera or next(iter(own), "overview")) in own:
        found = own[wanted]
    elif wanted == "overview":
        return renderer.overview(at, *(size or _SIZE))
    else:
        raise Missing.named("camera", wanted, [*own, "overview", "FILE.toml"], where=args.what)
    return found if size is None else found.resized(*size)


def _scene(what: str) -> tuple[Scene, dict[str, object]]:
    """A scene, and joint positions of its start by name."""
    from flyball.scenes import Scene
    from flyball.tasks.task import tasks

    if what in tasks.names():
        import numpy as np

        task = tasks.load(what)
        start = task.starts(task.scene.nominal(1), [np.random.default_rng(0)])
        return task.scene, {k: v[0] for k, v in start.items()}
    from flyball.robots.zoo.found import Search, find

    try:
        imported = find(what, Search()).load()
    except Missing as err:
        named = Missing.named("task, model or file", what, tasks.names(), where="flyball picture")
        named = named if "did you mean" in named.allowed else err
        raise Missing(
            named.what, where="flyball picture", allowed=named.allowed, run_next="flyball tasks, flyball robots"
        ) from err
    return Scene(imported.name, imported.mjcf, (), assets=dict(imported.assets)), {}
