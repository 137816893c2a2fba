"""Which ways of drawing work here. In: nothing, or a wish. Out: a backend's name, or a line that says what to install.

OpenGL is tried in a process of its own: a missing library can end in an ``AttributeError`` deep inside PyOpenGL, or in
a crash, and PyOpenGL's platform can be chosen only once per process. ``MUJOCO_GL`` is honoured as a wish and otherwise
not needed: contexts are made directly, whatever MuJoCo chose when it was imported.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

from flyball.base import Missing, NotPossible

WISH = "FLYBALL_RENDERER"
"""Environment variable that names a backend."""
ORDER = ("egl", "osmesa", "warp", "rays")
PACKAGES = "apt install libegl1 libopengl0 libgl1 libgl1-mesa-dri"
WARP = "pip install 'flyball[newton]'"

_TRIAL = """
import json, sys
from mujoco.{name} import GLContext
context = GLContext(16, 16)
context.make_current()
import mujoco
model = mujoco.MjModel.from_xml_string("<mujoco><worldbody><geom size='1'/></worldbody></mujoco>")
drawing = mujoco.MjrContext(model, 100)
from OpenGL import GL
print(json.dumps([GL.glGetString(k).decode() for k in (GL.GL_RENDERER, GL.GL_VERSION)]))
drawing.free()
context.free()
"""
_SECONDS = 120
_SOFTWARE = ("llvmpipe", "softpipe", "swrast", "software")


@dataclass(frozen=True)
class Found:
    """What a trial found.

    Attributes:
      name: ``egl``, ``osmesa``, ``warp`` or ``rays``.
      works: whether it draws.
      what: the renderer, or why it does not work.
      hardware: whether a GPU draws.
    """

    name: str
    works: bool
    what: str
    hardware: bool = False


def tried(name: str) -> Found:
    """Try a backend; the answer is kept for this process.

    Raises:
      Missing: unknown name.
    """
    if name not in ORDER:
        raise Missing.named("renderer", name, ORDER, where="rendering")
    if name == "rays":
        return Found(name, True, "MuJoCo's ray casts: depth, segmentation, normals and flow, no rgb")
    if name == "warp":
        return _try_warp()
    fixed = os.environ.get("PYOPENGL_PLATFORM", "").lower()
    if fixed not in ("", name):  # set by the user, or by MuJoCo at the first context; PyOpenGL cannot change it
        return Found(name, False, f"this process draws with {fixed} (PYOPENGL_PLATFORM)")
    return _try_opengl(name)


@cache
def _try_opengl(name: str) -> Found:
    """Make a context in a process of its own."""
    env = {k: v for k, v in os.environ.items() if k not in ("MUJOCO_GL", "PYOPENGL_PLATFORM")}
    command = [sys.executable, "-c", _TRIAL.format(name=name)]
    try:
        done = subprocess.run(
            command, env=env | {"MUJOCO_GL": "disabled"}, capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return Found(name, False, f"making a context took more than {_SECONDS} s")
    try:
        renderer, version = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        return Found(name, False, _reason(name, done.stderr, done.returncode))
    hardware = not any(word in renderer.lower() for word in _SOFTWARE)
    return Found(name, True, f"{renderer}, OpenGL {version}", hardware)


def _reason(name: str, stderr: str, code: int) -> str:
    """The trial's last words, or what they mean."""
    last = next((line for line in reversed(stderr.splitlines()) if line.strip()), f"exit code {code}")
    if "NoneType" in last or "Unable to load" in last or "PlatformNotFound" in last or "cannot open shared" in last:
        library = "libEGL or libOpenGL" if name == "egl" else "libOSMesa"
        return f"{library} is not installed"
    return last.strip()


def _try_warp() -> Found:
    if find_spec("warp") is None or find_spec("mujoco_warp") is None:
        return Found("warp", False, "mujoco-warp is not installed")
    return Found("warp", True, "Warp ray tracer, no OpenGL; its kernels compile on first use")


def available() -> list[Found]:
    """Every backend, best first; tries those not tried yet."""
    return [tried(name) for name in ORDER]


def wished(environment: Mapping[str, str] | None = None) -> str:
    """The backend that the environment asks for, "" for none: FLYBALL_RENDERER, else MUJOCO_GL if it names one."""
    env = os.environ if environment is None else environment
    wish = env.get(WISH, "").strip().lower()
    gl = env.get("MUJOCO_GL", "").strip().lower()
    return wish or (gl if gl in ("egl", "osmesa") else "")


def choose(name: str = "auto", *, rgb: bool = True) -> str:
    """The backend to draw with: the one named, else the one wished for, else the first that works.

    Args:
      rgb: whether colours are wanted; ray casts give none.

    Raises:
      NotPossible: it does not work here; says why and what to install.
      Missing: unknown name.
    """
    named = name if name != "auto" else wished()
    if named:
        found = tried(named)
        if not found.works:
            raise NotPossible(f"{named} does not draw here: {found.what}", where="rendering", run_next=_remedy(named))
        return named
    failed = []
    for candidate in ORDER:
        if candidate == "rays" and rgb:
            continue
        found = tried(candidate)
        if found.works:
            return candidate
        failed.append(f"{candidate}: {found.what}")
    raise NotPossible(
        "nothing here draws colours (" + "; ".join(failed) + ")",
        where="rendering",
        run_next=f"{PACKAGES}, or {WARP}",
    )


def _remedy(name: str) -> str:
    return {"egl": PACKAGES, "osmesa": "apt install libosmesa6", "warp": WARP}[name]
