"""A position-controlled hobby servo that swings a pendulum (Dynamixel XL330, bench of the Rhoban BAM project).

In: episodes with measured and commanded position, the firmware gain kp and, where recorded, the temperature. Out:
replays in a one-joint scene. The drive is

    duty   = clip(gain kp (command - q), -1, 1)                             while the torque is enabled, else 0
    torque = (stall duty - back_emf qd) / (1 + heating (T - 25 deg C) + source_resistance duty^2)

with q as the encoder says and T at the start of the recording. In MJCF: two actuators with a common force limit on a
tendon make the clipped part, the enable signal is their control, and a third actuator is the back-EMF; the engine
``servo`` adds what is in the denominator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from flyball.base import InputError
from flyball.calibration.problem import Compared, Replay
from flyball.calibration.rigs.rig import Fold
from flyball.episodes import Episode
from flyball.scenes import Bind, Parameter, Scene

MODEL = """
<mujoco model="servo-pendulum">
  <option timestep="0.005" integrator="implicitfast"><flag contact="disable"/></option>
  <worldbody>
    <body name="pendulum">
      <joint name="servo" type="hinge" axis="0 1 0" damping="0.001" armature="0.0001" frictionloss="0.003"/>
      <inertial pos="0 0 -0.1" mass="0.49" diaginertia="1e-6 1e-6 1e-6"/>
      <geom type="capsule" size="0.005" fromto="0 0 0 0 0 -0.1" mass="0"/>
      <geom type="sphere" size="0.02" pos="0 0 -0.1" mass="0"/>
    </body>
  </worldbody>
  <tendon>
    <fixed name="drive" actuatorfrcrange="-1 1"><joint joint="servo" coef="1"/></fixed>
  </tendon>
  <actuator>
    <general name="command" tendon="drive" gainprm="1"/>
    <general name="feedback" tendon="drive" gaintype="affine" gainprm="0 1 0"/>
    <general name="back_emf" joint="servo" gaintype="affine" gainprm="0 0 -1"/>
  </actuator>
</mujoco>
"""

_POSITION = "joint_states.position"
_DRIVE = ("actuator:command.gain", "actuator:feedback.position_gain", "actuator:feedback.gain")
_SCALE = tuple(Bind(field, "scale") for field in _DRIVE)
_ROOM, _WARM = (
    25.0,
    1.0,
)  # temperature of the data sheet [deg C], and how much warmer a bench is that nobody measured [K]

# Nominal values are the data sheet of the XL330-M288-T: 0.52 N m and 1.47 A stalled at 5 V, hence 0.354 N m/A and
# 3.4 ohm; at 7.4 V 0.77 N m and kt^2/R = 0.037 N m s. Gain: 4096 steps a turn, kp / 256 steps of 885 PWM steps; the
# recorded PWM says 256, to 0.2 %, at every gain (the manual says 128). No data sheet tells friction, armature, zero.
# The offset comes before what scales the drive: the firmware compares the command with what its encoder says.
PARAMETERS = (
    Parameter(
        "servo.offset", "rad", 0.0, -0.08, 0.08, binds=(Bind(f"sensor:{_POSITION}.bias"), Bind(_DRIVE[2], "add")),
        text="zero of the encoder",
    ),
    Parameter(
        "servo.gain", "1/rad", 652.0 / 256 / 885, 0.0015, 0.008, "log", binds=_SCALE,
        text="duty per rad of error and unit of kp",
    ),
    Parameter(
        "servo.stall_torque", "N m", 0.77, 0.1, 2.0, "log",
        binds=(*_SCALE, Bind("tendon:drive.force_limit", "scale")), text="torque at full duty and standstill",
    ),
    Parameter(
        "firmware.kp", "", 400.0, 1.0, 16383.0, "log", "episode", binds=_SCALE, text="position gain set in the firmware"
    ),
    Parameter(
        "servo.back_emf", "N m s/rad", 0.037, 0.0005, 0.2, "log",
        binds=(Bind("actuator:back_emf.velocity_gain", "scale"),), text="damping while the drive is on",
    ),
    Parameter(
        "servo.source_resistance", "", 0.0, 0.0, 1.5, binds=(Bind("joint:servo.source_resistance", "add"),),
        text="of supply, cable and bridge, over the winding's",
    ),
    Parameter(
        "servo.heating", "1/K", 0.0, 0.0, 0.06, binds=(Bind("joint:servo.heating", "add"),),
        text="resistance of the winding per degree of its surroundings",
    ),
    Parameter(
        "servo.warmth", "K", _WARM, -40.0, 80.0, "linear", "episode", binds=(Bind("joint:servo.heating", "scale"),),
        text="above 25 deg C, at the start",
    ),
    Parameter(
        "servo.damping", "N m s/rad", 0.001, 0.001, 0.1, "log", binds=(Bind("joint:servo.damping"),),
        text="viscous friction, drive on or off",
    ),
    Parameter(
        "servo.friction", "N m", 0.003, 0.003, 0.2, "log", binds=(Bind("joint:servo.frictionloss"),),
        text="Coulomb friction without load",
    ),
    Parameter(
        "servo.armature", "kg m^2", 0.0001, 0.0001, 0.01, "log", binds=(Bind("joint:servo.armature"),),
        text="inertia of rotor and gears at the output",
    ),
    Parameter("servo.delay_s", "s", 0.0, 0.0, 0.03, binds=(Bind("command.delay"),), text="command to motor"),
    Parameter(
        "servo.drive_friction", "", 0.0, 0.0, 0.9, binds=(Bind("joint:servo.drive_friction", "add"),),
        text="friction per torque of the motor",
    ),
    Parameter(
        "servo.load_friction", "", 0.0, 0.0, 0.9, binds=(Bind("joint:servo.load_friction", "add"),),
        text="friction per torque of the load",
    ),
    Parameter(
        "servo.exponent", "", 1.0, 0.4, 1.6, "log", binds=(Bind("tendon:drive.error_exponent", "scale"),),
        text="duty goes as this power of the error",
    ),
    Parameter(
        "servo.stribeck", "", 0.0, 0.0, 2.0, binds=(Bind("joint:servo.stribeck", "add"),),
        text="excess of static over sliding friction",
    ),
)  # fmt: skip

_BASIC = (
    "servo.stall_torque", "servo.back_emf", "servo.damping", "servo.friction", "servo.armature", "servo.delay_s",
    "servo.offset",
)  # fmt: skip
_LOADED = ("servo.drive_friction", "servo.load_friction")
_CIRCUIT = ("servo.source_resistance", "servo.heating")


class ServoPendulum:
    """The rig of the XL330 recordings; see ``flyball.calibration.rigs.Rig``."""

    name = "servo-pendulum"
    scene = Scene("servo-pendulum", MODEL, PARAMETERS, assumptions={"timestep": 0.005})
    engine = "servo"
    levels = (
        _BASIC,
        (*_BASIC, *_LOADED),
        (*_BASIC, *_LOADED, *_CIRCUIT),
        (*_BASIC, *_LOADED, *_CIRCUIT, "servo.stribeck"),
    )  # no rung for a non-linear gain: the recorded PWM is linear in the error
    # Motors differ from their data sheet by some 15 %. Copper gains 0.39 % of resistance per kelvin, and the winding
    # warms once to three times as much as the board that the sensor is on. A bridge and a cable have some 0.7 ohm.
    priors: Mapping[str, tuple[float, float]] = {
        "servo.stall_torque": (0.77, 0.15),
        "servo.back_emf": (0.037, 0.15),
        "servo.heating": (0.008, 0.005),
        "servo.source_resistance": (0.2, 0.15),
    }
    method = "least-squares"
    compared = Compared(_POSITION, "joint:servo.position", 1, scale=0.05, noise=0.0007)  # encoder step 1.5 mrad
    unit, unit_size = "rad", 1.0
    stride = 3

    def matches(self, episode: Episode) -> bool:
        labels = episode.labels
        pendulum = (labels.get("pendulum_mass_kg"), labels.get("pendulum_length_m"))
        return pendulum == (0.49, 0.1) and "position_gain_kp" in labels and _POSITION in episode.signals

    def replay(self, episode: Episode) -> Replay:
        measured, command = episode.signal(_POSITION), episode.signal("joint_commands.position")
        start = measured.t_ns[0]
        t, control_t = (measured.t_ns - start) * 1e-9, (command.t_ns - start) * 1e-9
        position = np.asarray(measured.values, float).reshape(len(t), -1)[:, :1]
        target = np.asarray(command.values, float).reshape(len(control_t), -1)[:, 0]
        enabled = np.ones(len(control_t))
        if "servo.torque_enable" in episode.signals:
            s = episode.signal("servo.torque_enable")
            last = np.searchsorted(s.t_ns, command.t_ns, side="right") - 1
            enabled = np.asarray(s.values, float).reshape(-1)[np.maximum(last, 0)]
        settings = {"firmware.kp": float(episode.labels["position_gain_kp"])}
        if "servo.temperature" in episode.signals:
            settings["servo.warmth"] = float(np.ravel(episode.signal("servo.temperature").values)[0]) - _ROOM
        name = str(episode.labels.get("file") or episode.log_digest[:12])
        if not (np.isfinite(position).all() and np.isfinite(target).all()):
            raise InputError("positions or commands are not finite", where=name)
        return Replay(
            name, f"kp {settings['firmware.kp']:g}", {"servo": (position[0], np.zeros(1))}, control_t,
            np.stack([enabled * target, -enabled, enabled], axis=1), settings, t, position,
        )  # fmt: skip

    def folds(self, replays: Sequence[Replay]) -> list[Fold]:
        """One fold per firmware gain, held out whole: the law must carry over to gains that were not recorded."""
        regimes = sorted({r.regime for r in replays}, key=lambda s: float(s.split()[1]))
        return [
            Fold(
                g,
                tuple(r.name for r in replays if r.regime != g),
                tuple(r.name for r in replays if r.regime == g),
            )
            for g in regimes
        ]
