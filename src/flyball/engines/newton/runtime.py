"""Warp and Newton, loaded when the first simulation is opened.

In: the name of a device. Out: the loaded packages and a Warp device. Loading takes about two seconds of CPU; kernels
are compiled once for each device and kept in Warp's cache (``WARP_CACHE_PATH``, else ``~/.cache/warp``).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flyball.base import NotPossible, Unsupported

WARM_UP = "its kernels compile for 10 to 35 s of CPU, once; on a CPU its card then takes minutes"
_INSTALL = "pip install 'flyball[newton]'"


def versions(*packages: str) -> str:
    """Versions of installed packages, in words.

    Raises:
      NotPossible: one is not installed.
    """
    try:
        return ", ".join(f"{p} {version(p)}" for p in packages)
    except PackageNotFoundError as err:
        raise NotPossible(f"the package {err.name!r} is not installed", run_next=_INSTALL) from err


def warp() -> Any:
    """Warp, silent: what it says on standard output would end up in the middle of ``--json``."""
    wp = _load("warp")
    wp.config.log_level = wp.LOG_ERROR
    wp.init()
    return wp


def newton() -> Any:
    """Newton, its kernels without their derivatives unless somebody asks for these: half the compile time."""
    with _forward_only():
        return _load("newton")


def mujoco_warp() -> Any:
    """MuJoCo Warp."""
    with _forward_only():
        return _load("mujoco_warp")


def device(name: object) -> Any:
    """The Warp device of that name; ``auto``: the first GPU, else the CPU.

    Raises:
      Unsupported: there is no such device.
    """
    wp = warp()
    found = [d.alias for d in wp.get_devices()]
    if name == "auto":
        return wp.get_device("cuda:0" if "cuda:0" in found else "cpu")
    if name not in found:
        raise Unsupported(f"device {name!r}", where="engine", allowed=", ".join(["auto", *found]))
    return wp.get_device(name)


@contextmanager
def _forward_only() -> Iterator[None]:
    config = warp().config
    before = config.enable_backward
    config.enable_backward = False  # a module takes this when it is imported
    try:
        yield
    finally:
        config.enable_backward = before


def _load(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as err:
        raise NotPossible(f"the Python package {err.name!r} is not installed", run_next=_INSTALL) from err
