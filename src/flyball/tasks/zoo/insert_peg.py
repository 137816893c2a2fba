"""``insert-peg-v1``: put a peg that the gripper holds into a socket and press it home until the socket's switch clicks.

In: the Flyarm with a peg between its pads, a socket of unknown stiffness and a fixture marker that sits some
millimetres off the hole. Out: the task with its scene, judgement, informed expert, baselines and policy features. Two
things must be known: where the hole is relative to the marker, which only contact shows, and how hard to press: more
than the socket asks for, less than what makes the peg slip through the fingers.

Four ways to fail, each with reasons of its own: ``jammed`` on the funnel or the rim (the hole is not where the marker
says), ``loose`` (pressed too softly for this socket), ``slipped`` (pressed harder than this grip bears, or gripped too
weakly), ``missed`` (the hand never came down, as with servos much softer than believed).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec
from flyball.engines.engine import Reduce
from flyball.robots import Observation
from flyball.robots.zoo import flyarm
from flyball.scenes import Bind, Parameter, Scene
from flyball.tasks.task import Controller, Derived, EventRule, Judgement, Values

PEG, TIP = 0.008, 0.040
"""Radius of the peg and how far the centre of its round tip lies below the pads [m]."""
HALF = np.array([0.012, 0.010, 0.010])
"""Half size of the peg's head, which the gripper holds along the second axis [m]."""
PEG_MASS = 0.15
HOLE, SEAT_Z, RIM_Z = 0.0086, 0.012, 0.030
"""Half width of the square hole, heights of its bottom and of its upper edge [m]."""
SLOPE, PLATE = np.deg2rad(25.0), 0.016
"""Slope of the funnel [rad], and length of its four plates [m]."""


def _socket() -> str:
    """Four walls, a bottom and a funnel of four sloping plates."""
    out, thick = [], 0.004
    for k in range(4):
        turn = k * np.pi / 2
        direction = np.array([np.cos(turn), np.sin(turn)])
        wall = (HOLE + 0.008) * direction
        # a plate's upper face begins at the hole's edge; the middle of the box lies half its thickness below it
        plate = (HOLE + np.cos(SLOPE) * PLATE / 2 + np.sin(SLOPE) * thick) * direction
        up = RIM_Z + np.sin(SLOPE) * PLATE / 2 - np.cos(SLOPE) * thick
        c, s, sc, ss = np.cos(turn / 2), np.sin(turn / 2), np.cos(SLOPE / 2), -np.sin(SLOPE / 2)
        for at, z, size, quat in (
            (wall, RIM_Z / 2, (0.008, 0.024, RIM_Z / 2), (c, 0, 0, s)),
            (plate, up, (PLATE / 2, 0.024, thick), (c * sc, -s * ss, c * ss, s * sc)),
        ):
            out.append(
                f'<geom class="socket" type="box" size="{_text(size)}" pos="{_text((*at, z))}" quat="{_text(quat)}"/>'
            )
    out.append(f'<geom class="socket" type="box" size=".012 .012 .004" pos="0 0 {SEAT_Z - 0.004}" solref=".02 1"/>')
    return "\n  ".join(out)


def _text(x: Sequence[float]) -> str:
    return " ".join(f"{v:.6f}" for v in x)


MODEL = f"""<mujoco model="insert-peg"><compiler angle="radian"/>
<option timestep=".0025" integrator="implicitfast" cone="elliptic" impratio="10" iterations="30" tolerance="1e-6"/>
<default>
 {flyarm.DEFAULTS.removeprefix("<default>").removesuffix("</default>")}
 <default class="tip"><geom type="sphere" size="{PEG}" mass="0" contype="4" conaffinity="5" priority="1" condim="3"
  friction=".2 .005 .0001" solref=".008 1" rgba=".75 .78 .82 1"/></default>
 <default class="socket"><geom contype="4" conaffinity="4" mass="0" rgba=".25 .35 .55 1"/></default>
</default>
<worldbody>
 <geom name="table" type="plane" size="2 2 .1" contype="1" conaffinity="0" solref=".005 1" friction="1"
  rgba=".8 .8 .78 1"/>
 {flyarm.ARM}
 <body name="peg" pos=".45 0 .15"><freejoint name="peg"/>
  <geom name="head" type="box" size="{HALF[0]} {HALF[1]} {HALF[2]}" mass="{PEG_MASS}" contype="1" conaffinity="3"
   priority="1" condim="3" friction=".5 .005 .0001" solref=".005 1" rgba=".85 .45 .15 1"/>
  <geom type="cylinder" size="{PEG} {TIP / 2}" pos="0 0 {-TIP / 2}" mass="0" contype="0" conaffinity="0"
   rgba=".75 .78 .82 1"/>
  <geom name="tip_0" class="tip" pos="0 0 {-TIP}"/><geom name="tip_1" class="tip" pos="0 0 {-TIP + 0.01}"/></body>
 <body name="socket"><inertial pos="0 0 0" mass="20" diaginertia=".1 .1 .1"/>
  <joint name="socket_x" type="slide" axis="1 0 0" damping="1e5"/>
  <joint name="socket_y" type="slide" axis="0 1 0" damping="1e5"/>
  {_socket()}
  <site name="seat" type="box" size=".012 .012 .003" pos="0 0 {SEAT_Z}"/></body>
</worldbody>
<equality>{flyarm.EQUALITY}</equality><tendon>{flyarm.TENDON}</tendon>
<actuator>{flyarm.ACTUATORS}</actuator><sensor>{flyarm.SENSORS}<touch name="seat" site="seat"/></sensor>
</mujoco>"""

PARAMETERS = (
    Parameter(
        "object.seat_force", "N", 9.0, 2.0, 40.0, "log", "robot", (Bind("event:seated.threshold"),),
        "force on the bottom of the socket, low-passed at 20 ms, at which its switch clicks",
    ),
    Parameter(
        "object.friction", "", 0.5, 0.15, 1.0, "log", "robot", (Bind("geom:head.friction"),),
        "sliding friction between the peg's head and the pads",
    ),
    Parameter(
        "socket.friction", "", 0.2, 0.08, 0.45, "log", "robot",
        tuple(Bind(f"geom:tip_{k}.friction") for k in range(2)), "sliding friction between peg and socket",
    ),
    Parameter(
        "gripper.force_scale", "", 1.0, 0.6, 1.5, "log", "robot", (Bind("actuator:grip.gain", "scale"),),
        "real over commanded grip force",
    ),
    Parameter(
        "arm.gain_scale", "", 1.0, 0.5, 1.4, "log", "robot",
        tuple(Bind(f"actuator:{a}.gain", "scale") for a in flyarm.SERVOS), "real over nominal servo stiffness",
    ),
    Parameter("arm.delay_s", "s", 0.02, 0.0, 0.08, "linear", "robot", (Bind("command.delay"),), "command to motor"),
    Parameter(
        "tracker.noise_m", "m", 0.001, 0.0, 0.003, "linear", "robot",
        (*(Bind("sensor:object.pose.noise", index=i) for i in range(3)),
         *(Bind("sensor:socket.position.noise", index=i) for i in range(2))), "standard deviation of tracked positions",
    ),
    *(
        Parameter(
            f"marker.offset_m.{axis}", "m", 0.0, -0.014, 0.014, "linear", "robot",
            (Bind("sensor:socket.position.bias", index=i),), f"how far the marker sits from the hole, {axis}",
        )
        for i, axis in enumerate("xy")
    ),
    Parameter("start.x", "m", 0.45, 0.38, 0.50, "linear", "robot", (Bind("start:socket_x"),), "mean place, x"),
    Parameter("start.y", "m", 0.0, -0.10, 0.10, "linear", "robot", (Bind("start:socket_y"),), "mean place, y"),
)  # fmt: skip
SCATTER = 0.015
"""Half width of the scatter of sockets around their mean place from attempt to attempt [m]."""

HOME = np.array([0.45, 0.0, 0.13, 0.0])
"""Where the hand waits with the peg: x, y, z [m], yaw [rad]."""
GRIP = 22.0
"""Grip command [N]; the same for all pegs."""
HOME_Z = SEAT_Z + PEG + TIP
"""Height of the hand when the peg touches the bottom [m]."""
CLEAR_Z = RIM_Z + 0.012 + PEG + TIP
"""Height of the hand from which on the tip is over the funnel [m]."""
SPEED, DOWN, FEEL, CREEP = 0.25, 0.12, 0.02, 0.06
"""Speeds of the hand through the air, down, in the funnel and in the hole [m/s]."""
PRESS_FROM = 0.006
"""The pressing force grows over this height above the bottom [m]."""
CLICK, HOLD = 1.08, 0.78
"""Commanded over the socket's force that clicks surely, and over the grip's capacity that surely does not slip."""
SINK = 0.012
"""How far the hand may go below where it should be while the peg slips through it [m]."""
DEEP, SLIP = 0.004, 0.007
"""How far above its seat an inserted peg may be, and how far it may shift in the hand [m]."""
LEAST_PRESS, MOST_PRESS = 2.0, 40.0

TOLD = ("press.force", "marker.offset_m.x", "marker.offset_m.y", "arm.gain_scale", "arm.delay_s")
CODE_SCALE = np.array([0.06, 0.06, 0.1, 0.06, 0.06])
"""About how far ahead of the joints their targets run [rad]."""
BODY = replace(
    flyarm.FLYARM,
    name="flyarm-5-socket",
    observations=(
        *flyarm.FLYARM.observations,
        SignalSpec("socket.position", (2,), unit="m", rate_hz=flyarm.CONTROL_HZ, frame="base"),
    ),
)
"""The Flyarm in a cell whose tracker also sees the marker of a fixture."""


def capacity(v: Values) -> NDArray[np.float64]:
    """Axial force at which the peg slips through the pads [N]: 2 mu F."""
    return 2 * np.asarray(v["object.friction"]) * np.asarray(v["gripper.force_scale"]) * GRIP


class InsertPeg:
    """The task; see the module's text and ``flyball.tasks.Task``."""

    name = "insert-peg-v1"
    instruction = "put the peg into the socket and press until it clicks"
    embodiment = BODY
    scene = Scene("insert-peg", MODEL, PARAMETERS, assumptions={"timestep": 0.0025, "cone": "elliptic"})
    horizon_s = 4.0
    control_hz = flyarm.CONTROL_HZ
    groups = ("jammed", "loose", "slipped", "missed")
    conditioning = TOLD
    derived = (Derived("grip_capacity", "N", capacity),)
    reads: Mapping[str, Reduce] = {
        **{name: "mean" if name.startswith("sensor:") else "last" for name in flyarm.READS},
        **{f"joint:{j}.position": "last" for j in ("peg", "socket_x", "socket_y")},
    }
    noise: Mapping[str, tuple[float, ...]] = {**flyarm.NOISE, "socket.position": (1e-3, 1e-3)}
    event_rules = (EventRule("seated", ("sensor:seat",), 0.02),)

    # the cell ---------------------------------------------------------------------------------------------

    def sense(self, raw: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Encoders, gripper width, pad force, tracked peg and fixture marker."""
        socket = np.concatenate([raw["joint:socket_x.position"], raw["joint:socket_y.position"]], axis=1)
        return flyarm.sense(raw, raw["joint:peg.position"]) | {"socket.position": socket}

    def control(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint targets and grip force are the actuators' own inputs."""
        return actions

    def rest_action(self, values: Values) -> NDArray[np.float64]:
        """Waiting at home, the peg held."""
        return np.tile(flyarm.hold(HOME, GRIP), (len(values["object.friction"]), 1))

    def starts(self, values: Values, rng: Sequence[np.random.Generator]) -> dict[str, NDArray[np.float64]]:
        """The arm at rest under its own weight with the peg upright between its pads; sockets scattered."""
        draw = np.stack([r.uniform(-1, 1, 2) for r in rng]) * SCATTER
        return _place(values["arm.gain_scale"], np.stack([values["start.x"], values["start.y"]], axis=1) + draw)

    def seen_starts(self, signals: Mapping[str, NDArray[np.float64]], values: Values) -> dict[str, NDArray[np.float64]]:
        """Start of a logged attempt: the socket as its marker was seen, less the believed offset; see the protocol."""
        return _place(values["arm.gain_scale"], signals["socket.position"].mean(axis=1) - _offset(values))

    # judgement --------------------------------------------------------------------------------------------

    def judge(self, signals: Mapping[str, NDArray[np.float64]], events: Sequence[str]) -> Judgement:
        """Whether the peg sits in the socket, was held all the time, and the switch clicked."""
        hand, peg = flyarm.forward(signals["joint.position"])[:, :3], signals["object.pose"][:, :3]
        n = min(5, len(peg))
        shift = np.linalg.norm((peg - hand)[-n:].mean(axis=0) - (peg - hand)[:n].mean(axis=0))
        above = float(peg[-n:, 2].mean()) - HOME_Z
        fall = HOME[2] - HOME_Z
        progress = float(np.clip(1 - above / fall, 0, 1))
        touched = len(peg) > 10 and above < CLEAR_Z - HOME_Z and np.ptp(peg[-n:, 2]) < 0.03
        if shift > SLIP:
            return Judgement("failure", "slipped", 0.2 + 0.3 * progress)
        if above > DEEP or len(peg) <= 10:
            return Judgement("failure", "jammed" if touched else "missed", (0.4 if touched else 0.1) * progress)
        if "seated" not in events:
            return Judgement("failure", "loose", 0.6 + 0.3 * progress)
        return Judgement("success", "", 1.0)

    # realities --------------------------------------------------------------------------------------------

    def draw_reality(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """Sockets from easy to stiff, grips that bear 1.7 to 2.2 times their force, markers 6 to 11 mm off."""
        seat = np.exp(rng.uniform(np.log(3.0), np.log(18.0), n))
        out = {"object.seat_force": seat, "gripper.force_scale": rng.uniform(0.8, 1.25, n)}
        out["object.friction"] = seat * rng.uniform(1.7, 2.2, n) / (2 * GRIP * out["gripper.force_scale"])
        out["object.friction"] = np.clip(out["object.friction"], 0.16, 0.95)
        out["socket.friction"] = np.exp(rng.uniform(np.log(0.15), np.log(0.3), n))
        out["arm.gain_scale"] = rng.uniform(0.6, 1.2, n)
        out["arm.delay_s"] = rng.uniform(0.0, 0.06, n)
        out["tracker.noise_m"] = rng.uniform(0.0005, 0.002, n)
        off = rng.uniform(-1, 1, (2, n))
        off *= rng.uniform(0.006, 0.011, n) / np.abs(off).max(axis=0)
        out["marker.offset_m.x"], out["marker.offset_m.y"] = off
        odd = rng.permutation(n) < (n + 1) // 2
        out["start.x"] = np.where(odd, rng.uniform(0.40, 0.48, n), 0.45)
        out["start.y"] = np.where(odd, rng.uniform(-0.08, 0.08, n), 0.0)
        return out

    # what logs say ----------------------------------------------------------------------------------------

    def summaries(
        self, signals: Mapping[str, NDArray[np.float64]], actions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Servo lag and pad force (averaged); where hand and peg came to stand (apart).

        The hand's place is kept apart and weighs much: a peg that jammed says on which side the hole is and at least
        how far, which only replays that jam in the same place can tell.
        """
        q, peg, felt = signals["joint.position"], signals["object.pose"][..., :3], signals["gripper.force"]
        steps = actions.shape[1]
        aim = flyarm.forward(actions[..., :5])[..., 2]
        low = aim < CLEAR_Z
        down = np.where(low.any(axis=1), low.argmax(axis=1), steps - 1)[:, None]
        after = np.arange(steps) - down

        def window(x: NDArray[np.float64], begin: int, end: int) -> NDArray[np.float64]:
            inside = ((after >= begin) & (after < end)).astype(float)
            return np.einsum("nt,nts->ns", inside, x) / np.maximum(inside.sum(axis=1), 1.0)[:, None]

        hand = flyarm.forward(q)[..., :3]
        lag = (q - actions[..., :5])[..., :4]
        gap = peg - hand
        gap = gap - gap[:, :5].mean(axis=1, keepdims=True)
        late = ((16, 24), (24, 32), (32, steps))
        means = [q[:, 0, :4] * 100, q[:, 1:6, :4].mean(axis=1) * 100, felt[:, 2:].mean(axis=1)]
        means += [window(lag, k, k + 2) * 100 for k in (-10, -8, -6, -4, -2, 0, 2)]
        means += [window(lag, *span) * 300 for span in ((6, 10), (10, 16), *late)]
        apart = [window(hand, *span) * 2000 for span in late] + [window(gap, *span) * 500 for span in late[1:]]
        return np.concatenate(means, axis=1), np.concatenate(apart, axis=1)

    def plausible(self, values: Values) -> NDArray[np.float64]:
        """A cell that was made to work: the grip bears 1.3 to 3.5 times what the socket asks for."""
        ratio = np.log(capacity(values) / np.asarray(values["object.seat_force"]))
        return 1 / (1 + np.exp(-(ratio - np.log(1.5)) / 0.08)) / (1 + np.exp((ratio - np.log(3.4)) / 0.12))

    def observed(
        self, signals: Mapping[str, NDArray[np.float64]], samples: Values, rng: np.random.Generator
    ) -> dict[str, NDArray[np.float64]]:
        """Where sockets are put, and the tracker's noise, from the marker, which stands still."""
        seen = signals["socket.position"]
        n, m = len(seen), len(samples["object.friction"])
        centre, out = seen.mean(axis=(0, 1)), {}
        for i, a in enumerate("xy"):
            spread = SCATTER / np.sqrt(3 * n) * rng.standard_normal(m)
            out[f"start.{a}"] = centre[i] + spread - samples.get(f"marker.offset_m.{a}", np.zeros(m))
        residual = seen - seen.mean(axis=1, keepdims=True)
        out["tracker.noise_m"] = np.sqrt((residual**2).sum() / rng.chisquare(2 * n * (seen.shape[1] - 1), m))
        return {k: np.clip(v, self.scene.parameter(k).low, self.scene.parameter(k).high) for k, v in out.items()}

    # what a learned policy sees and says ------------------------------------------------------------------

    def features(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The hole as seen from the hand, the hand's height in three zooms, the pressing force, the arm."""
        q, qd = observation["joint.position"], observation["joint.velocity"]
        hand = flyarm.forward(q)
        error = observation["socket.position"] - told[:, 1:3] - hand[:, :2]
        z = hand[:, 2:3] - HOME_Z
        return np.concatenate(
            [
                error / 0.03,
                np.tanh(error / 0.006),
                (z - 0.03) / 0.03,
                np.tanh((z - 0.03) / 0.01),
                np.tanh((z - 0.004) / 0.004),
                hand[:, :2] / 0.05 - np.array([9.0, 0.0]),
                hand[:, 3:5] / 0.02,
                (observation["object.pose"][:, :3] - hand[:, :3]) / 0.005,
                q[:, 1:4] / 0.1 - flyarm.inverse(HOME)[1:4] / 0.1,
                qd / np.array([0.4, 0.2, 0.3, 0.3, 0.4]),
                observation["gripper.width"] / 0.002 - HALF[1] * 2 / 0.002,
                observation["gripper.force"] / 10 - GRIP / 10,
                told[:, :1] / 8 - 1.5,
                (told[:, 3:4] - 0.9) / 0.2,
                (told[:, 4:5] - 0.03) / 0.02,
                told[:, :1] / told[:, 3:4] / 8 - 1.5,
            ],
            axis=1,
        )

    def encode(
        self, observation: Observation, told: NDArray[np.float64], actions: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joint targets relative to the joints and their sag, grip relative to the usual one."""
        joints = (actions[..., :5] - self._reference(observation, told)[:, None]) / CODE_SCALE
        return np.concatenate([joints, actions[..., 5:] / GRIP - 1], axis=-1)

    def decode(
        self, observation: Observation, told: NDArray[np.float64], code: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Inverse of ``encode``."""
        joints = code[..., :5] * CODE_SCALE + self._reference(observation, told)[:, None]
        return np.concatenate([joints, (code[..., 5:] + 1) * GRIP], axis=-1)

    def _reference(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        q = observation["joint.position"]
        return q + flyarm.gravity_torque(q, PEG_MASS) / (flyarm.KP * told[:, 3:4])

    # control ----------------------------------------------------------------------------------------------

    def told(self, values: Values) -> NDArray[np.float64]:
        """What somebody who knows the parameters would tell a policy, (n, len(conditioning))."""
        low, high = CLICK * np.asarray(values["object.seat_force"]), HOLD * capacity(values)
        press = np.clip(np.sqrt(low * np.maximum(high, low)), LEAST_PRESS, MOST_PRESS)
        return np.stack([press, *(np.asarray(values[p], float) for p in TOLD[1:])], axis=1)

    def tell(self, samples: Values) -> NDArray[np.float64]:
        """What joint posterior samples (m,) tell a policy: the press most likely to be good, else means."""
        low, high = CLICK * np.asarray(samples["object.seat_force"]), HOLD * capacity(samples)
        grid = np.exp(np.linspace(np.log(low.min()), np.log(max(high.max(), low.max())), 200))[:, None]
        # soft edges keep the answer off the boundaries, which this rule of thumb knows to about 8 %
        good = 1 / (1 + np.exp(-np.log(grid / low) / 0.08)) / (1 + np.exp(-np.log(high / grid) / 0.08))
        press = float(np.clip(grid[np.argmax(good.mean(axis=1)), 0], LEAST_PRESS, MOST_PRESS))
        return np.array([press, *(float(np.mean(samples[p])) for p in TOLD[1:])])

    def expert(self, told: NDArray[np.float64]) -> Controller:
        """Over the hole, down, press; a function of observation and ``told`` alone."""
        return lambda obs: act(obs, told)

    def baselines(self) -> Mapping[str, Callable[[int], Controller]]:
        """``fixed-press-F``: presses everywhere with force F (a grid), all else nominal."""
        nominal = self.told(self.scene.nominal(1))

        def fixed(force: float, n: int) -> Controller:
            told = np.repeat(nominal, n, axis=0)
            told[:, 0] = force
            return self.expert(told)

        return {
            f"fixed-press-{f:.1f}": lambda n, f=f: fixed(f, n)  # type: ignore[misc]
            for f in np.exp(np.linspace(np.log(5.0), np.log(30.0), 10))
        }


def act(obs: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
    """The inserting law, without memory: funnel down onto the hole, creep to the bottom, press with the force told.

    Args:
      obs: batched observation.
      told: (n, len(TOLD)).

    Returns:
      Actions (n, 6).
    """
    press, gain, delay = told[:, 0], told[:, 3:4], told[:, 4]
    q = obs["joint.position"]
    hand = flyarm.forward(q)[:, :4]
    error = obs["socket.position"] - told[:, 1:3] - hand[:, :2]
    away, z = np.hypot(error[:, 0], error[:, 1]), hand[:, 2] - HOME_Z
    inside = hand[:, 2] < CLEAR_Z
    v = np.zeros_like(hand)
    v[:, :2] = 6.0 * error
    v[:, :2] *= np.minimum(1.0, SPEED / np.maximum(np.hypot(v[:, 0], v[:, 1]), 1e-9))[:, None]
    # above the funnel it waits until the peg is over the hole; inside, it goes on in any case
    stay = np.where(inside, 0.0, CLEAR_Z + 0.008 - HOME_Z + np.clip(6 * (away - 0.004), -0.02, 0.06))
    stay = np.where(away < 0.004, 0.0, stay)
    # in the funnel softly: a peg that misses the hole must not be forced, it would only slip through the fingers
    fastest = np.where(z < RIM_Z - SEAT_Z - 0.002, CREEP, np.clip(FEEL + 3.0 * (hand[:, 2] - CLEAR_Z), FEEL, DOWN))
    way = np.where(z < 0.0, np.minimum(z + SINK, 0.0), z - np.maximum(stay, 0.0))  # while it presses, force alone acts
    v[:, 2] = np.clip(-5.0 * way, -fastest, 0.1)
    v[:, 3] = np.clip(-5.0 * hand[:, 3], -1.0, 1.0)
    share = np.clip(1.0 - z / PRESS_FROM, 0.0, 1.0)
    ahead = flyarm.inverse(hand + v * (flyarm.SERVO_S + delay + 0.02)[:, None])
    joints = ahead + flyarm.gravity_torque(q, PEG_MASS - share * press / flyarm.GRAVITY) / (flyarm.KP * gain)
    return np.concatenate([joints, np.full((len(q), 1), GRIP)], axis=1)


def _offset(values: Values) -> NDArray[np.float64]:
    """Marker relative to the hole [m], (n, 2)."""
    return np.stack([values["marker.offset_m.x"], values["marker.offset_m.y"]], axis=1)


def _place(gain_scale: NDArray[np.float64], socket: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The arm at home holding the peg, and sockets at x, y [m], (n, 2)."""
    n = len(socket)
    arm = flyarm.at_rest(HOME, np.asarray(gain_scale))
    hand = flyarm.forward(np.concatenate([arm[j] for j in flyarm.SERVOS], axis=1))
    upright = np.tile([1.0, 0.0, 0.0, 0.0], (n, 1))
    upright[:, 0], upright[:, 3] = np.cos(hand[:, 3] / 2), np.sin(hand[:, 3] / 2)
    closed = np.full((n, 1), HALF[1] - 2e-4)
    peg = np.concatenate([hand[:, :3], upright], axis=1)
    return arm | {"left": closed, "right": closed, "peg": peg, "socket_x": socket[:, :1], "socket_y": socket[:, 1:]}


INSERT_PEG = InsertPeg()
