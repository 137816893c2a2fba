"""``flyball doctor``: is this machine fit, is this workspace whole."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from flyball.apps.cli.output import Output
from flyball.base import FlyballError, NotPossible

_NEEDED = {
    "edge agent": (
        "numpy",
        "onnxruntime",
        "foxglove-sdk",
        "zstandard",
        "lz4",
        "tuf",
        "securesystemslib",
        "cryptography",
    ),
    "simulation": ("mujoco", "scipy", "cma"),
    "training": ("torch", "onnx"),
}
_LEAST_FREE = 2 * 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """No arguments of its own."""


def run(args: argparse.Namespace, out: Output) -> int:
    """Run every check; exit code 1 when one fails."""
    checks: list[dict[str, object]] = []

    def check(name: str, do: Callable[[], tuple[bool, str]]) -> None:
        try:
            ok, text = do()
        except FlyballError as err:
            ok, text = False, err.line()
        checks.append({"check": name, "ok": ok, "found": text})

    check("python", lambda: (sys.version_info >= (3, 11), platform.python_version()))
    check("system", lambda: (os.name == "posix", f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs"))
    for part, names in _NEEDED.items():
        check(part, lambda names=names: _installed(names))  # type: ignore[misc]
    check("rendering", _rendering)
    check("loopback", _loopback)
    check("disk", lambda: _disk(args.workspace))
    check("workspace", lambda: _workspace(args.workspace))
    rows = [("ok" if c["ok"] else "FAILED", c["check"], c["found"]) for c in checks]
    out.table(checks, ("", "check", "found"), rows, "")
    return 0 if all(c["ok"] for c in checks) else 1


def _installed(names: tuple[str, ...]) -> tuple[bool, str]:
    found, missing = [], []
    for name in names:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    if missing:
        return False, f"missing {', '.join(missing)}; try: pip install 'flyball[demo]'"
    return True, ", ".join(found)


def _rendering() -> tuple[bool, str]:
    """What draws colours. Nothing that does is no failure: the loop runs without pictures."""
    try:
        from flyball.engines.rendering.backends import choose, tried
    except ModuleNotFoundError as err:
        return True, f"no pictures: {err.name} is not installed; try: pip install 'flyball[demo]'"
    try:
        name = choose()
    except NotPossible as err:
        return True, f"no colours, labels only: {err.line()}"
    found = tried(name)
    return True, f"{name}: {found.what}" + ("" if found.hardware else " (no GPU)")


def _loopback() -> tuple[bool, str]:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            return True, f"127.0.0.1 can be listened on (tried port {server.getsockname()[1]})"
    except OSError as err:
        return False, f"nothing can listen on 127.0.0.1: {err.strerror}"


def _disk(path: Path) -> tuple[bool, str]:
    there = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    return free >= _LEAST_FREE, f"{free / 2**30:.1f} GiB free at {there} (at least {_LEAST_FREE / 2**30:.0f} wanted)"


def _workspace(path: Path) -> tuple[bool, str]:
    if not path.exists():
        return True, f"none at {path} yet; the first verb that needs one makes it"
    from flyball.base.workspace import Workspace

    space = Workspace(path, create=False)
    rows = space.store.read("SELECT digest FROM artifacts")
    lost = sum(not space.store.path(r[0]).exists() for r in rows)
    held = sum(1 for p in space.quarantine.iterdir() if p.is_file())
    return lost == 0, f"{path}: {len(rows)} artifacts, {lost} without content, {held} files in quarantine"
