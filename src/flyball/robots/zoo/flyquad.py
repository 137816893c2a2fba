"""The Flyquad: a quadruped of twelve joints with position servos.

In: nothing. Out: MJCF, embodiment, leg kinematics and the holding torques of standing in closed form. x is forward,
y left, z up. A leg hangs from the trunk by ``hip`` (about x), ``thigh`` and ``knee`` (about y); at zero it points
straight down, and a knee bends backward (negative). Legs: front left, front right, rear left, rear right.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, digest_of
from flyball.robots.embodiment import Embodiment, Joint

CONTROL_HZ = 50.0
LEGS = ("fl", "fr", "rl", "rr")
SERVOS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "thigh", "knee"))
"""Joints and their actuators, in order."""
TRUNK = (0.20, 0.07, 0.05)
"""Half sizes [m]."""
HIP_X, HIP_Y, OFFSET = 0.19, 0.06, 0.08
"""Hip axis before and beside the trunk's middle, and the leg's plane beside the hip axis [m]."""
THIGH, SHANK, FOOT = 0.20, 0.20, 0.02
"""Hip to knee, knee to the foot's middle, radius of the foot [m]."""
TRUNK_MASS, HIP_MASS, THIGH_MASS, SHANK_MASS = 6.0, 0.6, 0.8, 0.2
"""[kg]; a shank's mass includes the foot's."""
KP, KV = 120.0, 3.0
"""Of the servos [N m/rad], [N m s/rad]."""
TORQUE, SPEED = 30.0, 20.0
"""Limits of every joint [N m], [rad/s]."""
RANGES = {"hip": (-0.8, 0.8), "thigh": (-1.5, 2.5), "knee": (-2.6, -0.4)}
"""[rad]."""
STAND_HEIGHT = 0.30
"""Of the trunk's middle above ground in the nominal pose [m]."""
GRAVITY = 9.81


def leg_angles(feet: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joint angles that put feet at points.

    Args:
      feet: middle of each foot relative to the trunk's middle [m], shape (..., 4, 3); pulled in where out of reach.

    Returns:
      hip, thigh, knee of each leg [rad], shape (..., 4, 3).
    """
    side, front = _signs()
    x = feet[..., 0] - front * HIP_X
    y, z = feet[..., 1] - side * HIP_Y, feet[..., 2]
    down = np.sqrt(np.maximum(y * y + z * z - OFFSET**2, 1e-12))  # length of the leg in its own plane, along z
    hip = np.arctan2(z, y) - np.arctan2(-down, side * OFFSET)
    hip = (hip + np.pi) % (2 * np.pi) - np.pi
    d = np.clip(np.hypot(x, down), abs(THIGH - SHANK) + 1e-6, THIGH + SHANK - 1e-6)
    knee = -(np.pi - np.arccos(np.clip((THIGH**2 + SHANK**2 - d * d) / (2 * THIGH * SHANK), -1, 1)))
    inner = np.arccos(np.clip((THIGH**2 + d * d - SHANK**2) / (2 * THIGH * d), -1, 1))
    return np.stack([hip, np.arctan2(-x, down) + inner, knee], axis=-1)


def foot_points(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of ``leg_angles``: (..., 4, 3) [rad] to (..., 4, 3) [m]."""
    side, front = _signs()
    hip, a1, a2 = angles[..., 0], angles[..., 1], angles[..., 1] + angles[..., 2]
    x = -THIGH * np.sin(a1) - SHANK * np.sin(a2)
    down = THIGH * np.cos(a1) + SHANK * np.cos(a2)
    y = side * OFFSET * np.cos(hip) + down * np.sin(hip)
    z = side * OFFSET * np.sin(hip) - down * np.cos(hip)
    return np.stack([x + front * HIP_X, y + side * HIP_Y, z], axis=-1)


def _signs() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(left or right, front or rear) of each leg as +1 or -1, (4,) each."""
    return np.array([1.0, -1, 1, -1]), np.array([1.0, 1, -1, -1])


def _nominal() -> NDArray[np.float64]:
    side, front = _signs()
    feet = np.stack([front * HIP_X, side * (HIP_Y + OFFSET), np.full(4, FOOT - STAND_HEIGHT)], axis=-1)
    return leg_angles(feet).ravel()


STAND = _nominal()
"""Joint angles of standing with the feet below the hips [rad], (12,)."""


def mjcf(*, floor: bool = False) -> str:
    """The quadruped as a whole model; its key frame ``stand`` is the nominal pose.

    Args:
      floor: with a ground plane.
    """
    side, front = _signs()
    legs = ""
    for i, leg in enumerate(LEGS):
        s, f = side[i], front[i]
        legs += f"""
 <body name="{leg}_hip" pos="{f * HIP_X} {s * HIP_Y} 0"><joint name="{leg}_hip" class="hip"/>
  <geom type="capsule" fromto="0 0 0 0 {s * OFFSET} 0" size=".035" mass="{HIP_MASS}"/>
  <body name="{leg}_thigh" pos="0 {s * OFFSET} 0"><joint name="{leg}_thigh" class="thigh"/>
   <geom type="capsule" fromto="0 0 0 0 0 -{THIGH}" size=".022" mass="{THIGH_MASS}"/>
   <body name="{leg}_shank" pos="0 0 -{THIGH}"><joint name="{leg}_knee" class="knee"/>
    <geom type="capsule" fromto="0 0 -.02 0 0 -{SHANK - FOOT}" size=".012" mass="{SHANK_MASS * 0.75}"/>
    <geom name="{leg}_foot" type="sphere" size="{FOOT}" pos="0 0 -{SHANK}" mass="{SHANK_MASS * 0.25}"
     friction="1 .02 .001" condim="4" priority="1"/>
   </body></body></body>"""
    classes = "".join(
        f'<default class="{kind}"><joint axis="{axis}" range="{RANGES[kind][0]} {RANGES[kind][1]}"/></default>'
        for kind, axis in (("hip", "1 0 0"), ("thigh", "0 1 0"), ("knee", "0 1 0"))
    )
    servos = "".join(
        f'<position name="{j}" joint="{j}" kp="{KP}" kv="{KV}" inheritrange="1" forcerange="-{TORQUE} {TORQUE}"/>'
        for j in SERVOS
    )
    ground = '<geom name="floor" type="plane" size="0 0 .1"/>' if floor else ""
    q = " ".join(f"{x:.9g}" for x in STAND)
    x, y, z = TRUNK
    return f"""<mujoco model="flyquad"><compiler angle="radian"/>
<option timestep=".002" integrator="implicitfast" cone="elliptic" impratio="10"/>
<default><joint armature=".01"/>{classes}</default>
<worldbody>{ground}<body name="trunk" pos="0 0 {STAND_HEIGHT}"><freejoint name="trunk"/>
 <geom name="trunk" type="box" size="{x} {y} {z}" mass="{TRUNK_MASS}"/>
 <site name="imu"/>{legs}</body></worldbody>
<actuator>{servos}</actuator>
<sensor><gyro name="gyro" site="imu"/><accelerometer name="accelerometer" site="imu"/></sensor>
<keyframe><key name="stand" qpos="0 0 {STAND_HEIGHT} 1 0 0 0 {q}" ctrl="{q}"/></keyframe></mujoco>"""


def _limits(index: int) -> tuple[float, ...]:
    return tuple(RANGES[name.split("_")[1]][index] for name in SERVOS)


READS = (
    *(f"joint:{j}.{f}" for f in ("position", "velocity") for j in SERVOS),
    "body:trunk.quat",
    "sensor:gyro",
)
"""What ``sense`` needs of a simulation."""

FLYQUAD = Embodiment(
    name="flyquad-12",
    joints=tuple(
        Joint(name, "revolute", low, high, SPEED, TORQUE)
        for name, low, high in zip(SERVOS, _limits(0), _limits(1), strict=True)
    ),
    observations=(
        SignalSpec("joint.position", (12,), unit="rad", rate_hz=CONTROL_HZ),
        SignalSpec("joint.velocity", (12,), unit="rad/s", rate_hz=CONTROL_HZ),
        SignalSpec("trunk.up", (3,), rate_hz=CONTROL_HZ, frame="trunk"),
        SignalSpec("trunk.turning", (3,), unit="rad/s", rate_hz=CONTROL_HZ, frame="trunk"),
    ),
    actions=(SignalSpec("command.joint", (12,), unit="rad", rate_hz=CONTROL_HZ, low=_limits(0), high=_limits(1)),),
    model_digest=digest_of(mjcf().encode()),
    safe_action=(float("nan"),) * 12,
)


def holding_torque(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Torques that hold a level trunk when each foot carries a quarter of the weight straight up.

    By virtual work: the foot's force through the leg's Jacobian, less what the leg's own links weigh.

    Args:
      angles: [rad], shape (12,).

    Returns:
      [N m], shape (12,).
    """
    total = TRUNK_MASS + 4 * (HIP_MASS + THIGH_MASS + SHANK_MASS)
    step = 1e-6
    torque = np.zeros(12)
    for j in range(12):
        up, low = angles.copy(), angles.copy()
        up[j], low[j] = up[j] + step, low[j] - step
        torque[j] = (_potential(up, total) - _potential(low, total)) / (2 * step)
    return torque


def _potential(angles: NDArray[np.float64], total: float) -> float:
    """Of the legs' masses and of the feet's forces, the trunk held still [J]."""
    q = angles.reshape(4, 3)
    side, _ = _signs()
    hip, a1, a2 = q[:, 0], q[:, 1], q[:, 1] + q[:, 2]

    def height(down: NDArray[np.float64], reach: float) -> NDArray[np.float64]:
        return reach * side * np.sin(hip) - down * np.cos(hip)

    foot = THIGH * np.cos(a1) + SHANK * np.cos(a2)
    rod = THIGH * np.cos(a1) + (0.02 + SHANK - FOOT) / 2 * np.cos(a2)
    weights = (
        HIP_MASS * height(np.zeros(4), OFFSET / 2)
        + THIGH_MASS * height(THIGH / 2 * np.cos(a1), OFFSET)
        + SHANK_MASS * (0.75 * height(rod, OFFSET) + 0.25 * height(foot, OFFSET))
    )
    return float(GRAVITY * (weights - total / 4 * height(foot, OFFSET)).sum())


def stand(height: float = STAND_HEIGHT) -> NDArray[np.float64]:
    """The action under which it stands with its trunk at a height [m] and its feet below the hips, (12,)."""
    side, front = _signs()
    feet = np.stack([front * HIP_X, side * (HIP_Y + OFFSET), np.full(4, FOOT - height)], axis=-1)
    q = leg_angles(feet).ravel()
    return np.asarray(np.clip(q + holding_torque(q) / KP, _limits(0), _limits(1)))


def sense(raw: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
    """The embodiment's observations from the signals of ``READS``: signal -> (n, size)."""
    w, x, y, z = np.moveaxis(raw["body:trunk.quat"], -1, 0)
    return {
        "joint.position": np.concatenate([raw[f"joint:{j}.position"] for j in SERVOS], axis=1),
        "joint.velocity": np.concatenate([raw[f"joint:{j}.velocity"] for j in SERVOS], axis=1),
        # the world's up axis as the trunk sees it: the last row of its rotation matrix
        "trunk.up": np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1),
        "trunk.turning": raw["sensor:gyro"],
    }
