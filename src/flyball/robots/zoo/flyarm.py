"""The Flyarm: five joints, a parallel gripper, primitive geometry, position servos.

In: nothing. Out: the MJCF elements of the arm, its embodiment, and closed-form kinematics and gravity torques in numpy.
Angles: yaw about the vertical, then three pitches measured from straight up, then roll about the hand's own axis. The
hand points down when the pitches add up to pi.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, digest_of
from flyball.robots.embodiment import Embodiment, Joint

CONTROL_HZ = 25.0
SERVOS = ("yaw", "shoulder", "elbow", "pitch", "roll")
"""Joints and their actuators, in order."""
SHOULDER_Z = 0.28
UPPER, FORE, HAND = 0.30, 0.28, 0.14
"""Link lengths [m]: shoulder to elbow, elbow to wrist, wrist to the centre of the pads."""
MASSES = (1.2, 0.9, 0.5)
"""Masses [kg] of upper arm, forearm and hand with fingers; each acts at the middle of its link."""
KP = np.array([300.0, 500.0, 400.0, 150.0, 40.0])
"""Servo stiffness at gain scale 1 [N m/rad]."""
SERVO_S = 0.08
"""Servo damping over stiffness [s]: a ramp is followed this much late."""
GRAVITY = 9.81
MAX_GRIP = 40.0
OPEN_WIDTH = 0.09

ARM = f"""
<body name="base"><geom type="cylinder" size=".05 .12" pos="0 0 .12" contype="0" conaffinity="0"/>
 <body name="turret" pos="0 0 {SHOULDER_Z}">
  <inertial pos="0 0 0" mass="1" diaginertia=".004 .004 .004"/>
  <joint name="yaw" axis="0 0 1" range="-2.5 2.5" armature=".12"/>
  <body name="upper">
   <inertial pos="0 0 {UPPER / 2}" mass="{MASSES[0]}" diaginertia=".009 .009 .002"/>
   <joint name="shoulder" axis="0 1 0" range="-.6 2" armature=".12"/>
   <geom type="capsule" fromto="0 0 0 0 0 {UPPER}" size=".035" contype="0" conaffinity="0"/>
   <body name="fore" pos="0 0 {UPPER}">
    <inertial pos="0 0 {FORE / 2}" mass="{MASSES[1]}" diaginertia=".006 .006 .001"/>
    <joint name="elbow" axis="0 1 0" range="0 2.8" armature=".08"/>
    <geom type="capsule" fromto="0 0 0 0 0 {FORE}" size=".03" contype="0" conaffinity="0"/>
    <body name="wrist" pos="0 0 {FORE}">
     <inertial pos="0 0 .02" mass=".1" diaginertia=".0002 .0002 .0002"/>
     <joint name="pitch" axis="0 1 0" range="-2 2.5" armature=".03"/>
     <body name="hand">
      <inertial pos="0 0 {HAND / 2 + 0.0125}" mass=".3" diaginertia=".0006 .0006 .0003"/>
      <joint name="roll" axis="0 0 1" range="-2.5 2.5" armature=".01"/>
      <geom name="palm" type="box" size=".02 .05 .012" pos="0 0 .075" contype="2" conaffinity="1"/>
      <body name="finger_left" pos="0 0 {HAND}">
       <inertial pos="0 0 -.03" mass=".05" diaginertia=".00002 .00002 .00001"/>
       <joint name="left" type="slide" axis="0 1 0" range="0 {OPEN_WIDTH / 2}" damping="25"/>
       <geom type="box" size=".012 .004 .03" pos="0 .010 -.02" contype="2" conaffinity="1"/>
       <geom class="pad" pos="-.008 .006 0"/><geom class="pad" pos=".008 .006 0"/>
       <site name="pad_left" type="box" size=".016 .004 .007" pos="0 .002 0"/>
      </body>
      <body name="finger_right" pos="0 0 {HAND}">
       <inertial pos="0 0 -.03" mass=".05" diaginertia=".00002 .00002 .00001"/>
       <joint name="right" type="slide" axis="0 -1 0" range="0 {OPEN_WIDTH / 2}" damping="25"/>
       <geom type="box" size=".012 .004 .03" pos="0 -.010 -.02" contype="2" conaffinity="1"/>
       <geom class="pad" pos="-.008 -.006 0"/><geom class="pad" pos=".008 -.006 0"/>
       <site name="pad_right" type="box" size=".016 .004 .007" pos="0 -.002 0"/>
      </body>
     </body>
    </body>
   </body>
  </body>
 </body>
</body>"""

DEFAULTS = """<default><default class="pad">
 <geom type="sphere" size=".006" contype="2" conaffinity="1" condim="3" solref=".005 1" friction="1 .005 .0001"/>
</default></default>"""

EQUALITY = '<joint joint1="left" joint2="right" solref=".005 1"/>'
TENDON = '<fixed name="grip"><joint joint="left" coef="1"/><joint joint="right" coef="1"/></fixed>'
ACTUATORS = (
    "".join(
        f'<position name="{name}" joint="{name}" kp="{kp}" kv="{kp * SERVO_S}" inheritrange="1"/>'
        for name, kp in zip(SERVOS, KP, strict=True)
    )
    + f'<motor name="grip" tendon="grip" gear="-1" ctrlrange="-{MAX_GRIP} {MAX_GRIP}"/>'
)
SENSORS = '<touch name="pad_left" site="pad_left"/><touch name="pad_right" site="pad_right"/>'


def mjcf() -> str:
    """The arm alone as a whole model, fixed to the world."""
    return f"""<mujoco model="flyarm"><compiler angle="radian"/>
<option timestep=".004" integrator="implicitfast" cone="elliptic" impratio="10"/>
{DEFAULTS}<worldbody>{ARM}</worldbody>
<equality>{EQUALITY}</equality><tendon>{TENDON}</tendon>
<actuator>{ACTUATORS}</actuator><sensor>{SENSORS}</sensor></mujoco>"""


_JOINTS = (
    Joint("yaw", "revolute", -2.5, 2.5, 2.0, 150.0),
    Joint("shoulder", "revolute", -0.6, 2.0, 2.0, 150.0),
    Joint("elbow", "revolute", 0.0, 2.8, 2.0, 120.0),
    Joint("pitch", "revolute", -2.0, 2.5, 4.0, 60.0),
    Joint("roll", "revolute", -2.5, 2.5, 4.0, 20.0),
)
_LOW, _HIGH = tuple(j.low for j in _JOINTS), tuple(j.high for j in _JOINTS)

READS = (
    *(f"joint:{j}.{f}" for j in SERVOS for f in ("position", "velocity")),
    "joint:left.position",
    "joint:right.position",
    "sensor:pad_left",
    "sensor:pad_right",
)
"""What ``sense`` needs of a simulation."""
NOISE = {
    "joint.position": (3e-4,) * 5,
    "joint.velocity": (5e-3,) * 5,
    "gripper.width": (1e-4,),
    "gripper.force": (0.2,),
    "object.pose": (1e-3, 1e-3, 1e-3, 5e-3),
}
"""Standard deviations of what is observed, in the signals' units."""

FLYARM = Embodiment(
    name="flyarm-5",
    joints=_JOINTS,
    observations=(
        SignalSpec("joint.position", (5,), unit="rad", rate_hz=CONTROL_HZ),
        SignalSpec("joint.velocity", (5,), unit="rad/s", rate_hz=CONTROL_HZ),
        SignalSpec("gripper.width", (1,), unit="m", rate_hz=CONTROL_HZ),
        SignalSpec("gripper.force", (1,), unit="N", rate_hz=CONTROL_HZ),
        SignalSpec("object.pose", (4,), unit="m m m rad", rate_hz=CONTROL_HZ, frame="base"),
    ),
    actions=(
        SignalSpec("command.joint", (5,), unit="rad", rate_hz=CONTROL_HZ, low=_LOW, high=_HIGH),
        SignalSpec("command.grip", (1,), unit="N", rate_hz=CONTROL_HZ, low=(-MAX_GRIP,), high=(MAX_GRIP,)),
    ),
    model_digest=digest_of((ARM + ACTUATORS).encode()),
    safe_action=(float("nan"),) * 5 + (0.0,),
)


def forward(q: NDArray[np.float64]) -> NDArray[np.float64]:
    """Hand pose from joint angles.

    Args:
      q: [rad], shape (..., 5).

    Returns:
      Centre of the pads and yaw of the closing axis in the base frame: x, y, z [m], yaw [rad], tilt from straight down
      [rad], shape (..., 5).
    """
    a1 = q[..., 1]
    a2 = a1 + q[..., 2]
    a3 = a2 + q[..., 3]
    r = UPPER * np.sin(a1) + FORE * np.sin(a2) + HAND * np.sin(a3)
    z = SHOULDER_Z + UPPER * np.cos(a1) + FORE * np.cos(a2) + HAND * np.cos(a3)
    yaw = q[..., 0] - q[..., 4]
    return np.stack([r * np.cos(q[..., 0]), r * np.sin(q[..., 0]), z, yaw, a3 - np.pi], axis=-1)


def inverse(pose: NDArray[np.float64]) -> NDArray[np.float64]:
    """Joint angles for a hand that points straight down, elbow up.

    Args:
      pose: x, y, z [m], yaw [rad], shape (..., 4). Out-of-reach points are pulled in to the reach.

    Returns:
      Joint angles [rad], shape (..., 5).
    """
    x, y, z, yaw = (pose[..., i] for i in range(4))
    r, h = np.hypot(x, y), z + HAND - SHOULDER_Z
    d = np.clip(np.hypot(r, h), abs(UPPER - FORE) + 1e-3, UPPER + FORE - 1e-3)
    elbow = np.pi - np.arccos(np.clip((UPPER**2 + FORE**2 - d**2) / (2 * UPPER * FORE), -1, 1))
    inner = np.arccos(np.clip((UPPER**2 + d**2 - FORE**2) / (2 * UPPER * d), -1, 1))
    shoulder = np.arctan2(r, h) - inner
    base = np.arctan2(y, x)
    return np.stack([base, shoulder, elbow, np.pi - shoulder - elbow, base - yaw], axis=-1)


def gravity_torque(q: NDArray[np.float64], payload: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Torque that holds the arm still.

    Args:
      q: joint angles [rad], shape (..., 5).
      payload: mass held at the pads [kg], shape (...).

    Returns:
      Holding torques [N m], shape (..., 5).
    """
    a1 = q[..., 1]
    a2 = a1 + q[..., 2]
    a3 = a2 + q[..., 3]
    m1, m2, m3 = MASSES
    hand = (m3 * HAND / 2 + payload * HAND) * np.sin(a3)
    fore = (m2 * FORE / 2 + (m3 + payload) * FORE) * np.sin(a2)
    upper = (m1 * UPPER / 2 + (m2 + m3 + payload) * UPPER) * np.sin(a1)
    zero = np.zeros_like(hand)
    return -GRAVITY * np.stack([zero, upper + fore + hand, fore + hand, hand, zero], axis=-1)


def sense(raw: Mapping[str, NDArray[np.float64]], seen: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The embodiment's observations from a simulation's state.

    Args:
      raw: the signals of ``READS``, (n, size) each.
      seen: position [m] and quaternion (wxyz) of the tracked object, (n, 7).

    Returns:
      Signal -> (n, size).
    """
    w, x, y, z = (seen[:, 3 + i] for i in range(4))
    yaw = np.arctan2(2 * (w * z + x * y), 1 - 2 * (y * y + z * z))
    return {
        "joint.position": np.concatenate([raw[f"joint:{j}.position"] for j in SERVOS], axis=1),
        "joint.velocity": np.concatenate([raw[f"joint:{j}.velocity"] for j in SERVOS], axis=1),
        "gripper.width": raw["joint:left.position"] + raw["joint:right.position"],
        "gripper.force": (raw["sensor:pad_left"] + raw["sensor:pad_right"]) / 2,
        "object.pose": np.concatenate([seen[:, :3], yaw[:, None]], axis=1),
    }


def hold(pose: NDArray[np.float64], grip: float) -> NDArray[np.float64]:
    """The action under which a nominal arm waits at a pose, (6,).

    Args:
      pose: x, y, z [m], yaw [rad], (4,).
      grip: grip command [N].
    """
    q = inverse(pose)
    return np.append(q + gravity_torque(q, 0.0) / KP, grip)


def at_rest(pose: NDArray[np.float64], gain_scale: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Joint positions where arms of these stiffnesses come to rest under ``hold``, the gripper open.

    Args:
      pose: as in ``hold``.
      gain_scale: real over nominal stiffness, (n,).

    Returns:
      Joint -> (n, 1).
    """
    n = len(gain_scale)
    command, q = np.tile(hold(pose, 0.0)[:5], (n, 1)), np.tile(inverse(pose), (n, 1))
    for _ in range(6):  # where the servos' sag and the weight balance
        q = command - gravity_torque(q, 0.0) / (KP * gain_scale[:, None])
    wide = np.full((n, 1), OPEN_WIDTH / 2)
    return {j: q[:, i : i + 1] for i, j in enumerate(SERVOS)} | {"left": wide, "right": wide}
