"""Drives for models that have none: a URDF says how joints move, not what moves them.

In: a model whose commanded joints have no actuator, and what is commanded. Out: the model with an actuator of that kind
on each, of a size that fits the mechanism; a calibration then finds out what it really is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from xml.sax.saxutils import quoteattr

import numpy as np

from flyball.base import InputError
from flyball.calibration.models.parameters import Drive, mechanism
from flyball.robots.models import Imported
from flyball.robots.models.facts import facts
from flyball.robots.models.guard import compile_guarded

RATE = 2 * np.pi * 3
"""Of a position servo that nobody described: a few hertz [rad/s]."""
SAG = 0.05
"""It holds the load with this error at most [rad or m]."""


def with_drives(imported: Imported, joints: Sequence[str], drive: Drive) -> tuple[Imported, tuple[str, ...]]:
    """The model with an actuator on each of these joints that has none, and those joints.

    Raises:
      InputError: an actuator of the model takes commands of another kind than were recorded.
    """
    found = mechanism(imported.model, imported.compile(), joints)
    for d in found:
        if d.actuator and d.drive != drive:
            raise InputError(
                f"actuator {d.actuator} takes {d.drive} commands, the recordings hold {drive} commands",
                where=imported.name, allowed=f"recordings of {d.drive} commands, or a model with {drive} actuators",
            )  # fmt: skip
    missing = [d for d in found if not d.actuator]
    if not missing:
        return imported, ()
    lines = []
    for d in missing:
        kp = max((d.inertia + d.armature) * RATE**2, d.load / SAG)
        gain = {"position": f'kp="{kp:.6g}"', "velocity": f'kv="{kp / RATE:.6g}"', "effort": 'gear="1"'}[drive]
        tag = {"position": "position", "velocity": "velocity", "effort": "motor"}[drive]
        lines.append(f"<{tag} name={quoteattr(d.joint)} joint={quoteattr(d.joint)} {gain}/>")
    head, end, tail = imported.mjcf.rpartition("</mujoco>")
    mjcf = f"{head}<actuator>{''.join(lines)}</actuator>{end}{tail}"
    compiled = compile_guarded(mjcf, imported.assets, where=imported.name)
    return replace(imported, mjcf=mjcf, model=facts(compiled.model)), tuple(d.joint for d in missing)
