"""The Flybase: a differential drive on two wheels and two ball casters.

In: nothing. Out: MJCF, embodiment, and the kinematics between wheels and twist. x is forward, z up, the origin on the
axle's middle at axle height. Wheels are velocity servos with a torque limit, their tyres crowned: a tyre touches the
ground at one point, so that ``TRACK`` is what it turns by. Casters are balls without friction.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, digest_of
from flyball.robots.embodiment import Embodiment, Joint

CONTROL_HZ = 25.0
RADIUS, WIDTH, TRACK = 0.08, 0.03, 0.36
"""Of the wheels [m]: radius, width, and the distance between their middle planes."""
CHASSIS = (0.22, 0.15, 0.05)
"""Half sizes [m]."""
MASS, WHEEL_MASS, CASTER_MASS = 12.0, 0.8, 0.1
"""[kg]: of the chassis, of a wheel, of a caster."""
CASTER, CASTER_X = 0.03, 0.17
"""Radius of the casters and their distance from the axle [m]."""
KV, TORQUE = 4.0, 6.0
"""Of a wheel's servo: gain [N m s/rad] and limit [N m]."""
MAX_SPEED = 12.0
"""Of a wheel [rad/s]: 0.96 m/s over ground."""
SERVOS = ("left", "right")
"""Wheels and their actuators, in order."""
CLEARANCE = 0.03
"""Between the chassis and the ground [m]."""


def mjcf(*, floor: bool = False) -> str:
    """The base as a whole model, resting on z = 0.

    Args:
      floor: with a ground plane.
    """
    x, y, z = CHASSIS
    wheels = "".join(
        f'<body name="{name}_wheel" pos="0 {side * TRACK / 2} 0"><joint name="{name}" axis="0 1 0" armature=".005"/>'
        f'<geom type="ellipsoid" size="{RADIUS} {WIDTH / 2} {RADIUS}" mass="{WHEEL_MASS}" '
        'friction="1 .005 .0001"/></body>'
        for name, side in (("left", 1), ("right", -1))
    )
    casters = "".join(
        f'<geom name="caster_{end}" type="sphere" size="{CASTER}" pos="{side * CASTER_X} 0 {CASTER - RADIUS}" '
        f'mass="{CASTER_MASS}" friction="0 0 0" condim="1" priority="1"/>'
        for end, side in (("front", 1), ("rear", -1))
    )
    ground = '<geom name="floor" type="plane" size="0 0 .1"/>' if floor else ""
    servos = "".join(
        f'<velocity name="{name}" joint="{name}" kv="{KV}" ctrlrange="-{MAX_SPEED} {MAX_SPEED}" '
        f'forcerange="-{TORQUE} {TORQUE}"/>'
        for name in SERVOS
    )
    return f"""<mujoco model="flybase"><compiler angle="radian"/>
<option timestep=".002" integrator="implicitfast" cone="elliptic" impratio="10"/>
<worldbody>{ground}<body name="base" pos="0 0 {RADIUS}"><freejoint name="base"/>
 <geom name="chassis" type="box" size="{x} {y} {z}" pos="0 0 {z + CLEARANCE - RADIUS}" mass="{MASS}"/>
 {casters}{wheels}</body></worldbody>
<contact><exclude body1="base" body2="left_wheel"/><exclude body1="base" body2="right_wheel"/></contact>
<actuator>{servos}</actuator></mujoco>"""


READS = (*(f"joint:{j}.{f}" for j in SERVOS for f in ("position", "velocity")), "body:base.position", "body:base.quat")
"""What ``sense`` needs of a simulation."""

FLYBASE = Embodiment(
    name="flybase-2",
    joints=tuple(Joint(name, "revolute", -np.inf, np.inf, MAX_SPEED, TORQUE) for name in SERVOS),
    observations=(
        SignalSpec("wheel.position", (2,), unit="rad", rate_hz=CONTROL_HZ),
        SignalSpec("wheel.velocity", (2,), unit="rad/s", rate_hz=CONTROL_HZ),
        SignalSpec("base.pose", (3,), unit="m m rad", rate_hz=CONTROL_HZ, frame="world"),
    ),
    actions=(
        SignalSpec(
            "command.wheel", (2,), unit="rad/s", rate_hz=CONTROL_HZ, low=(-MAX_SPEED,) * 2, high=(MAX_SPEED,) * 2
        ),
    ),
    model_digest=digest_of(mjcf().encode()),
    safe_action=(0.0, 0.0),
)


def wheel_speeds(twist: NDArray[np.float64]) -> NDArray[np.float64]:
    """Wheel speeds of a twist.

    Args:
      twist: forward [m/s] and turning [rad/s], shape (..., 2).

    Returns:
      Left and right [rad/s], shape (..., 2).
    """
    v, w = twist[..., 0], twist[..., 1]
    return np.stack([v - w * TRACK / 2, v + w * TRACK / 2], axis=-1) / RADIUS


def twist(speeds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of ``wheel_speeds``: (..., 2) [rad/s] to (..., 2) [m/s, rad/s]."""
    left, right = speeds[..., 0] * RADIUS, speeds[..., 1] * RADIUS
    return np.stack([(left + right) / 2, (right - left) / TRACK], axis=-1)


def sense(raw: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The embodiment's observations from the signals of ``READS``: signal -> (n, size)."""
    w, x, y, z = np.moveaxis(raw["body:base.quat"], -1, 0)
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return {
        "wheel.position": np.concatenate([raw[f"joint:{j}.position"] for j in SERVOS], axis=1),
        "wheel.velocity": np.concatenate([raw[f"joint:{j}.velocity"] for j in SERVOS], axis=1),
        "base.pose": np.concatenate([raw["body:base.position"][:, :2], yaw[:, None]], axis=1),
    }
