"""The Flycell: two Flyarms that face each other across a table.

In: nothing. Out: MJCF, embodiment, and the same closed forms as the Flyarm's, per arm. Signals and actions are those of
the left arm, then of the right. The arms' bases stand ``SPAN`` apart; the table's top is their base plane, so both
reach everything in the middle third. Hands collide with each other, with the table and with things; links do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, digest_of
from flyball.robots.embodiment import Embodiment
from flyball.robots.zoo import flyarm

ARMS = ("left", "right")
SPAN = 0.9
"""Between the bases [m]."""
TABLE = (0.75, 0.45, 0.02)
"""Half sizes of the table top [m]."""
HOME = np.array([0.35, 0.0, 0.25, 0.0])
"""Where each hand waits, in its own arm's frame: x, y, z [m], yaw [rad]."""
SERVOS = tuple(f"{arm}_{joint}" for arm in ARMS for joint in flyarm.SERVOS)
"""Joints and their actuators, in order."""
_PLACES = {
    "left": f'pos="{-SPAN / 2} 0 0"',
    "right": f'pos="{SPAN / 2} 0 0" euler="0 0 {np.pi:.9f}"',
}
_TOUCH = {"left": ("2", "5"), "right": ("4", "3")}
"""contype and conaffinity of hands: bit 0 the world's, bits 1 and 2 the arms'; a hand does not touch itself."""


def _of(arm: str, text: str) -> str:
    """MJCF of the Flyarm, its names made those of one arm."""
    text = re.sub(r'\b(name|class|joint|joint1|joint2|tendon|site)="(\w+)"', rf'\1="{arm}_\2"', text)
    contype, conaffinity = _TOUCH[arm]
    return text.replace('contype="2" conaffinity="1"', f'contype="{contype}" conaffinity="{conaffinity}"')


def mjcf() -> str:
    """The cell as a whole model; it is fixed to the world, the table top at z = 0."""
    x, y, z = TABLE
    arms = "".join(f'<body name="{arm}" {_PLACES[arm]}>{_of(arm, flyarm.ARM)}</body>' for arm in ARMS)
    both = {part: "".join(_of(arm, text) for arm in ARMS) for part, text in _PARTS.items()}
    return f"""<mujoco model="flycell"><compiler angle="radian"/>
<option timestep=".004" integrator="implicitfast" cone="elliptic" impratio="10"/>
{both["defaults"]}
<worldbody><geom name="table" type="box" size="{x} {y} {z}" pos="0 0 {-z}" contype="1" conaffinity="0"/>
{arms}</worldbody>
<equality>{both["equality"]}</equality><tendon>{both["tendon"]}</tendon>
<actuator>{both["actuator"]}</actuator><sensor>{both["sensor"]}</sensor>
</mujoco>"""


_PARTS = {
    "defaults": flyarm.DEFAULTS,
    "equality": flyarm.EQUALITY,
    "tendon": flyarm.TENDON,
    "actuator": flyarm.ACTUATORS,
    "sensor": flyarm.SENSORS,
}
READS = tuple(re.sub(r":", f":{arm}_", name) for arm in ARMS for name in flyarm.READS)
"""What ``sense`` needs of a simulation."""


def _twice(spec: SignalSpec, arm: str) -> SignalSpec:
    return replace(spec, name=f"{arm}.{spec.name}")


FLYCELL = Embodiment(
    name="flycell-10",
    joints=tuple(replace(j, name=f"{arm}_{j.name}") for arm in ARMS for j in flyarm.FLYARM.joints),
    observations=tuple(
        _twice(s, arm) for arm in ARMS for s in flyarm.FLYARM.observations if not s.name.startswith("object")
    ),
    actions=tuple(_twice(s, arm) for arm in ARMS for s in flyarm.FLYARM.actions),
    model_digest=digest_of(mjcf().encode()),
    safe_action=flyarm.FLYARM.safe_action * 2,
)


def hold(left: NDArray[np.float64], right: NDArray[np.float64], grip: float) -> NDArray[np.float64]:
    """The action under which both arms wait at poses given in their own frames, (12,).

    Args:
      left, right: x, y, z [m], yaw [rad], (4,).
      grip: grip command of both [N].
    """
    return np.concatenate([flyarm.hold(left, grip), flyarm.hold(right, grip)])


def at_rest(left: NDArray[np.float64], right: NDArray[np.float64], n: int) -> dict[str, NDArray[np.float64]]:
    """Joint positions under ``hold``, grippers open: joint -> (n, 1)."""
    return {
        f"{arm}_{joint}": q
        for arm, pose in zip(ARMS, (left, right), strict=True)
        for joint, q in flyarm.at_rest(pose, np.ones(n)).items()
    }


def sense(raw: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The embodiment's observations from the signals of ``READS``: signal -> (n, size)."""
    out = {}
    for arm in ARMS:
        own = {name.replace(f":{arm}_", ":"): x for name, x in raw.items() if f":{arm}_" in name}
        nothing = np.tile([0.0, 0, 0, 1, 0, 0, 0], (len(next(iter(own.values()))), 1))
        seen = flyarm.sense(own, nothing)
        out.update({f"{arm}.{name}": x for name, x in seen.items() if not name.startswith("object")})
    return out
