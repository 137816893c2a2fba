"""Models in local folders: MuJoCo Menagerie, ROS workspaces, or any folder.

In: folders named by the user, by ``FLYBALL_ROBOTS`` (as in PATH), by ROS (``ROS_PACKAGE_PATH``, ``AMENT_PREFIX_PATH``),
and the places where ``robot_descriptions`` and MuJoCo Playground put their checkouts. Out: their models, named after
the folder or the ROS package. Links are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from flyball.base import InputError
from flyball.robots.licences import Licence, beside
from flyball.robots.models.references import package_name
from flyball.robots.zoo.found import FORMATS, FoundModel, NotInstalled, Search, is_model, named

MOST = 50_000
"""Files looked at in one folder."""
DEEPEST = 10
_SKIPPED = {"__pycache__", "node_modules", "site-packages", "build", "log"}


def folders(where: Search) -> Iterator[FoundModel | NotInstalled]:
    """The models of all folders; see the module's text.

    Raises:
      InputError: a folder with too many files.
    """
    env = where.environment
    said = [Path(p) for p in env.get("FLYBALL_ROBOTS", "").split(os.pathsep) if p]
    cache = Path(env.get("ROBOT_DESCRIPTIONS_CACHE") or Path(env.get("HOME", "/"), ".cache", "robot_descriptions"))
    known = [*said, *(sorted(cache.iterdir()) if cache.is_dir() else [])]
    ros = ros_packages(env)
    for folder in (*where.folders, *(p for p in known if p.is_dir())):
        folder = folder.resolve()
        yield from in_folder(folder, folder.name, ros)
    for name, folder in sorted(ros.items()):
        yield from in_folder(folder, name, ros)
    if not any("menagerie" in p.name for p in (*where.folders, *known)):
        yield NotInstalled(
            "mujoco_menagerie",
            "curated MJCF models, each with its own licence",
            "git clone https://github.com/google-deepmind/mujoco_menagerie, then --path mujoco_menagerie",
        )


def ros_packages(environment: Mapping[str, str]) -> dict[str, Path]:
    """ROS packages of ``$ROS_PACKAGE_PATH`` and ``$AMENT_PREFIX_PATH``: name -> folder."""
    return {name: folder for top in _ros_tops(environment) for name, folder in _ros_packages(top)}


def in_folder(top: Path, name: str, ros: dict[str, Path]) -> Iterator[FoundModel]:
    """The models below a folder.

    Args:
      top: the folder.
      name: what its models' names begin with.
      ros: further ROS packages, name -> folder, that meshes may lie in.
    """
    packages = {**ros, **dict(_ros_packages(top))}
    for short, file in named(list(_models(top)), top):
        licence = beside(file, top) or Licence()
        yield FoundModel(
            f"{name}/{short}", FORMATS[file.suffix.lower()], file, "", licence, packages, _reach(packages, top)
        )


def _models(top: Path) -> Iterator[Path]:
    count = 0
    for folder, inner, files in os.walk(top):
        depth = len(Path(folder).relative_to(top).parts)
        inner[:] = sorted(d for d in inner if not d.startswith(".") and d not in _SKIPPED and depth < DEEPEST)
        count += len(files)
        if count > MOST:
            raise InputError(f"more than {MOST} files", where=str(top), run_next="name a folder further down")
        for name in sorted(files):
            file = Path(folder, name)
            if file.suffix.lower() in FORMATS and is_model(file):
                yield file


def _ros_tops(env: Mapping[str, str]) -> Iterator[Path]:
    yield from (Path(p) for p in env.get("ROS_PACKAGE_PATH", "").split(os.pathsep) if p)
    yield from (Path(p, "share") for p in env.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if p)


def _ros_packages(top: Path) -> Iterator[tuple[str, Path]]:
    """ROS packages at or below a folder: name -> folder with ``package.xml``; the name is the one it states."""
    for folder, inner, files in os.walk(top):
        depth = len(Path(folder).relative_to(top).parts)
        inner[:] = sorted(d for d in inner if not d.startswith(".") and d not in _SKIPPED and depth < 4)
        if "package.xml" in files:
            inner.clear()
            yield package_name(Path(folder)), Path(folder)


def _reach(packages: dict[str, Path], top: Path) -> Path:
    """The folder that holds ``top`` and all packages its meshes may lie in."""
    return Path(os.path.commonpath([top.resolve(), *(p.resolve() for p in packages.values())]))
