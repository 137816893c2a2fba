"""Cameras as files. In: a TOML file. Out: a ``Camera``, or a line that names the key.

The keys are those of ``Camera``; in place of ``fx fy cx cy`` there may be ``fovy_deg``, and in place of ``quat`` there
may be ``at``, the point that it looks at, with ``up``.

    name = "gate"                        # all but size and lens may be left out
    width = 640
    height = 480
    fovy_deg = 55                        # or fx, fy, cx, cy [px]
    position = [0.9, -0.5, 0.6]          # in the frame of parent: "body:NAME", "site:NAME", "camera:NAME", "" the world
    at = [0.4, 0.0, 0.05]
    distortion = [-0.2, 0.05, 0.0, 0.0, 0.0]
    noise = { shot = 0.2, read = 2.0 }
    rate_hz = 15
    delay_s = 0.04
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyball.base import InputError
from flyball.scenes.camera import Camera

_MOST_BYTES = 1 << 20


def load_camera(path: Path | str) -> Camera:
    """The camera of a file.

    Raises:
      InputError: the file cannot be read, or is no camera; names file and key.
    """
    p = Path(path)
    try:
        data = p.read_bytes() if p.stat().st_size <= _MOST_BYTES else b"\xff"
        return camera_of({"name": p.stem} | tomllib.loads(data.decode()))
    except OSError as err:
        raise InputError(err.strerror or "cannot be read", where=str(p), allowed="a TOML file of a camera") from err
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as err:
        raise InputError(f"is not TOML: {err}", where=str(p), allowed="a TOML file of a camera") from err
    except InputError as err:
        raise type(err)(err.what, where=f"{p}: {err.where}", allowed=err.allowed) from err


def camera_of(data: Mapping[str, Any]) -> Camera:
    """A camera from plain data; see the module's text.

    Raises:
      InputError: naming the key.
    """
    rest, where = dict(data), f"camera {data.get('name', '?')}"
    view = {key: rest.pop(key) for key in ("fovy_deg", "at", "up") if key in rest}
    for key, x in view.items():
        many, numbers = key != "fovy_deg", x if isinstance(x, list | tuple) else [x]
        plain = all(isinstance(v, int | float) and not isinstance(v, bool) for v in numbers)
        if isinstance(x, list | tuple) != many or len(numbers) != (3 if many else 1) or not plain:
            allowed = "three numbers" if many else "a number [deg]"
            raise InputError(f"{key} = {x!r}", where=where, allowed=allowed)
    for other, short in (
        ("fx", "fovy_deg"),
        ("fy", "fovy_deg"),
        ("cx", "fovy_deg"),
        ("cy", "fovy_deg"),
        ("quat", "at"),
    ):
        if other in rest and short in view:
            raise InputError(f"{other} and {short} are both given", where=where, allowed="one of them")
    if "fovy_deg" in view:
        for side in ("width", "height"):
            if not isinstance(rest.get(side), int) or rest[side] < 1:
                raise InputError(f"{side} = {rest.get(side)}", where=where, allowed="whole pixels, 1 or more")
        lens = Camera.with_fov(where, rest["width"], rest["height"], float(view["fovy_deg"]))
        rest |= {key: getattr(lens, key) for key in ("fx", "fy", "cx", "cy")}
    if "at" in view:
        stands = Camera.looking(
            where, 1, 1, 50, view["at"], rest.get("position", (0, 0, 0)), view.get("up", (0.0, 0.0, 1.0))
        )
        rest["quat"] = stands.quat
    return Camera.from_json(rest)
