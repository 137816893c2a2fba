"""The choice of a backend, and what a machine that lacks one is told."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from flyball.base import Missing, NotPossible
from flyball.engines.rendering import backends
from flyball.engines.rendering.backends import Found


@pytest.fixture
def nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine on which nothing draws but ray casts."""
    bare = {n: Found(n, n == "rays", "" if n == "rays" else f"no {n}") for n in backends.ORDER}
    monkeypatch.setattr(backends, "tried", lambda name: bare[name])
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.delenv(backends.WISH, raising=False)
    yield


def test_a_bare_machine_is_told_the_packages_in_one_line(nothing: None) -> None:
    with pytest.raises(NotPossible) as err:
        backends.choose()
    line = err.value.line()
    for package in ("libegl1", "libopengl0", "libgl1", "libgl1-mesa-dri", "flyball[newton]"):
        assert package in line
    assert "\n" not in line


def test_a_bare_machine_still_has_labels(nothing: None) -> None:
    assert backends.choose(rgb=False) == "rays"


def test_the_wish_comes_before_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "tried", lambda name: Found(name, True, ""))
    assert backends.wished({"MUJOCO_GL": "osmesa"}) == "osmesa"
    assert backends.wished({"MUJOCO_GL": "osmesa", "FLYBALL_RENDERER": "warp"}) == "warp"
    assert backends.wished({"MUJOCO_GL": "glfw"}) == ""
    monkeypatch.setenv(backends.WISH, "osmesa")
    assert backends.choose() == "osmesa" and backends.choose("egl") == "egl"


def test_a_wish_that_fails_is_not_replaced(nothing: None) -> None:
    with pytest.raises(NotPossible, match="libosmesa6"):
        backends.choose("osmesa")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(Missing, match="rays"):
        backends.tried("vulkan")


OBSCURE = "Traceback\n  File egl_ext.py\nAttributeError: 'NoneType' object has no attribute 'eglQueryString'\n"


@pytest.mark.parametrize(
    ("stderr", "code", "expected"),
    [
        (OBSCURE, 1, "libEGL or libOpenGL is not installed"),
        ("", -11, "exit code -11"),
        ("x\nbad driver\n", 1, "bad driver"),
    ],
)
def test_obscure_failures_are_explained(monkeypatch: pytest.MonkeyPatch, stderr: str, code: int, expected: str) -> None:
    done = SimpleNamespace(stdout="", stderr=stderr, returncode=code)
    monkeypatch.setattr(backends.subprocess, "run", lambda *a, **k: done)
    monkeypatch.delenv("PYOPENGL_PLATFORM", raising=False)
    found = backends._try_opengl.__wrapped__("egl")
    assert not found.works and found.what == expected


def test_a_platform_that_is_fixed_already_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYOPENGL_PLATFORM", "osmesa")
    assert "PYOPENGL_PLATFORM" in backends.tried("egl").what


def run(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    return subprocess.run([sys.executable, "-c", code], env=clean | env, capture_output=True, text=True, check=False)


def test_importing_touches_no_opengl() -> None:
    done = run(
        "import sys; import flyball.engines.rendering, flyball.engines.sensors\n"
        "assert not {m.split('.')[0] for m in sys.modules} & {'OpenGL', 'warp'}"
    )
    assert done.returncode == 0, done.stderr


def test_a_mujoco_gl_with_which_mujoco_does_not_load_is_explained() -> None:
    code = (
        "from flyball.base import NotPossible\ntry:\n"
        " import flyball.engines.rendering\nexcept NotPossible as err:\n print(err)"
    )
    done = run(code, MUJOCO_GL="metal")
    assert "MUJOCO_GL" in done.stdout and "unset" in done.stdout, done.stderr
