"""Sensors written into a model. In: MJCF and what to add. Out: MJCF."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import mujoco

from flyball.base import InputError, Missing


def declare(mjcf: str, add: Callable[[mujoco.MjSpec], None], assets: Mapping[str, bytes] | None, where: str) -> str:
    """Add elements to a model, and see that it still compiles.

    Raises:
      InputError: it does not compile, before or after (a name that is taken).
    """
    try:
        spec = mujoco.MjSpec.from_string(mjcf, assets=dict(assets or {}))
        add(spec)
        spec.compile()
        return str(spec.to_xml())
    except ValueError as err:
        raise InputError(f"the model does not compile: {err}", where=where) from err


def body_of(spec: mujoco.MjSpec, name: str, where: str) -> mujoco.MjsBody:
    """A body by name.

    Raises:
      Missing: naming those there are.
    """
    body = spec.body(name)
    if body is None:
        raise Missing.named("body", name, (b.name for b in spec.bodies if b.name), where=where)
    return body
