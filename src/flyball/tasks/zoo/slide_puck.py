"""``slide-puck-v1``: push a puck so that it slides to rest on a mark beyond the arm's reach.

In: the Flyarm with its fingers spread, a puck of unknown friction and mass on a smooth table, a tracker that sees puck
and mark with the same bias. Out: the task with its scene, judgement, informed expert, baselines and policy features.
Once the puck has left the fingers nothing can be corrected: the release speed must be right, friction decides which one
is, and servo gain and command delay decide whether the hand has it.
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

RADIUS, HEIGHT = 0.075, 0.04
"""Of the puck [m]."""
MODEL = f"""<mujoco model="slide-puck"><compiler angle="radian"/>
<option timestep=".004" integrator="implicitfast" cone="elliptic" impratio="10" iterations="30" tolerance="1e-6"/>
{flyarm.DEFAULTS}
<worldbody>
 <geom name="table" type="plane" size="2 2 .1" contype="1" conaffinity="0" solref=".008 1" friction="1"
  rgba=".8 .8 .78 1"/>
 {flyarm.ARM}
 <body name="puck" pos=".45 -.15 {HEIGHT / 2}"><freejoint name="puck"/>
  <geom name="rim" type="cylinder" size="{RADIUS} .015" mass=".3" contype="1" conaffinity="0" priority="1"
   friction=".1 .005 .0001" solref=".02 1" rgba=".85 .45 .15 1"/>
  {
    "".join(
        f'<geom name="foot_{k}" type="sphere" size=".005" mass="0" contype="0" conaffinity="1" priority="1" condim="3" '
        f'pos="{0.05 * np.cos(a):.5f} {0.05 * np.sin(a):.5f} {0.005 - HEIGHT / 2}" friction=".05 .005 .0001" '
        f'solref=".008 1"/>'
        for k, a in enumerate(np.array([0, 2, 4]) * np.pi / 3)
    )
}</body>
 <body name="mark"><inertial pos="0 0 0" mass=".01" diaginertia="1e-5 1e-5 1e-5"/>
  <joint name="mark_x" type="slide" axis="1 0 0"/><joint name="mark_y" type="slide" axis="0 1 0"/>
  <geom type="cylinder" size=".035 .0005" contype="0" conaffinity="0" mass="0"
   rgba=".2 .55 .3 1"/></body>
</worldbody>
<equality>{flyarm.EQUALITY}</equality><tendon>{flyarm.TENDON}</tendon>
<actuator>{flyarm.ACTUATORS}</actuator><sensor>{flyarm.SENSORS}</sensor>
</mujoco>"""

PARAMETERS = (
    Parameter(
        "object.friction", "", 0.05, 0.025, 0.1, "log", "robot",
        tuple(Bind(f"geom:foot_{k}.friction") for k in range(3)), "sliding friction between puck and table",
    ),
    Parameter("object.mass", "kg", 0.3, 0.1, 0.8, "log", "robot", (Bind("body:puck.mass"),), "mass of the puck"),
    Parameter(
        "arm.gain_scale", "", 1.0, 0.5, 1.4, "log", "robot",
        tuple(Bind(f"actuator:{a}.gain", "scale") for a in flyarm.SERVOS), "real over nominal servo stiffness",
    ),
    Parameter("arm.delay_s", "s", 0.02, 0.0, 0.08, "linear", "robot", (Bind("command.delay"),), "command to motor"),
    Parameter(
        "tracker.noise_m", "m", 0.001, 0.0, 0.003, "linear", "robot",
        (*(Bind("sensor:object.pose.noise", index=i) for i in range(3)),
         *(Bind("sensor:mark.position.noise", index=i) for i in range(2))), "standard deviation of tracked positions",
    ),
    *(
        Parameter(
            f"tracker.bias_m.{axis}", "m", 0.0, -0.006, 0.006, "linear", "robot",
            (Bind("sensor:object.pose.bias", index=i), Bind("sensor:mark.position.bias", index=i)),
            f"constant error of the tracked {axis}",
        )
        for i, axis in enumerate("xy")
    ),
    Parameter("start.x", "m", 0.45, 0.40, 0.48, "linear", "robot", (Bind("start:puck"),), "mean place of pucks, x"),
    Parameter("start.y", "m", -0.15, -0.17, -0.10, "linear", "robot", (Bind("start:puck"),), "mean place of pucks, y"),
    Parameter("mark.x", "m", 0.45, 0.35, 0.55, "linear", "robot", (Bind("start:mark_x"),), "mean place of marks, x"),
    Parameter("mark.y", "m", 0.47, 0.42, 0.54, "linear", "robot", (Bind("start:mark_y"),), "mean place of marks, y"),
)  # fmt: skip
SCATTER = {"start.x": 0.015, "start.y": 0.01, "mark.x": 0.03, "mark.y": 0.02}
"""Half width of the scatter around their means from attempt to attempt [m]."""

HOME = np.array([0.45, -0.27, 0.03, -np.pi / 2])
"""Where the hand waits, fingers spread across the push: x, y, z [m], yaw [rad]."""
TOLERANCE = 0.045
"""How far from the mark the puck may rest [m]."""
MOVED, REST_SPEED = 0.05, 0.04
"""A puck that went less far [m] was missed; one that is slower [m/s] rests."""
CREEP, ACCELERATION, RISE_FROM = 0.2, 3.0, -0.21
"""Speed of the first touch [m/s], acceleration of the push [m/s^2] and where along y it begins [m]."""
LET_GO, STOP_AT = 0.05, 0.11
"""Where along y the hand brakes, and where it waits afterwards [m]."""
TOUCH = 0.085
"""Puck ahead of the hand by less than this touches the fingers [m]."""
EASE, SMOOTH = 0.97, 5.0
"""Aimed over wanted speed (the hand's ripples with the commands' steps, and the puck takes the peaks); how sharply the
push goes over from the rising to the sliding speed."""
INERTIA_S2 = 0.0008
"""Inertia over stiffness of the servos [s^2]: what an acceleration adds to their lag."""
SPREAD = -6.0
"""Grip command that keeps the fingers spread [N]."""
STILL = 3
"""Samples at the start of an attempt in which nothing touches the puck yet."""
CODE_SCALE = np.array([0.3, 0.1, 0.2, 0.1, 0.3])
"""About how far ahead of the joints their targets run [rad]."""

TOLD = ("object.friction", "arm.gain_scale", "arm.delay_s", "tracker.bias_m.x", "tracker.bias_m.y")
BODY = replace(
    flyarm.FLYARM,
    name="flyarm-5-mark",
    observations=(
        *flyarm.FLYARM.observations,
        SignalSpec("mark.position", (2,), unit="m", rate_hz=flyarm.CONTROL_HZ, frame="base"),
    ),
)
"""The Flyarm in a cell whose tracker also sees a mark."""


class SlidePuck:
    """The task; see the module's text and ``flyball.tasks.Task``."""

    name = "slide-puck-v1"
    instruction = "slide the puck onto the mark"
    embodiment = BODY
    scene = Scene("slide-puck", MODEL, PARAMETERS, assumptions={"timestep": 0.004, "cone": "elliptic"})
    horizon_s = 3.0
    control_hz = flyarm.CONTROL_HZ
    groups = ("short", "long", "wide", "missed")
    conditioning = TOLD
    derived = (Derived("stopping_distance", "m", lambda v: 0.5**2 / (2 * flyarm.GRAVITY * v["object.friction"])),)
    reads: Mapping[str, Reduce] = {
        **{name: "mean" if name.startswith("sensor:") else "last" for name in flyarm.READS},
        **{f"joint:{j}.position": "last" for j in ("puck", "mark_x", "mark_y")},
    }
    noise: Mapping[str, tuple[float, ...]] = {**flyarm.NOISE, "mark.position": (1e-3, 1e-3)}
    event_rules: tuple[EventRule, ...] = ()

    # the cell ---------------------------------------------------------------------------------------------

    def sense(self, raw: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Encoders, gripper width, pad force, tracked puck and mark."""
        mark = np.concatenate([raw["joint:mark_x.position"], raw["joint:mark_y.position"]], axis=1)
        return flyarm.sense(raw, raw["joint:puck.position"]) | {"mark.position": mark}

    def control(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint targets and grip force are the actuators' own inputs."""
        return actions

    def rest_action(self, values: Values) -> NDArray[np.float64]:
        """Waiting at home, fingers spread."""
        return np.tile(flyarm.hold(HOME, SPREAD), (len(values["object.mass"]), 1))

    def starts(self, values: Values, rng: Sequence[np.random.Generator]) -> dict[str, NDArray[np.float64]]:
        """The arm at rest under its own weight; puck and mark scattered around where they are put."""
        draw = np.stack([r.uniform(-1, 1, 4) for r in rng])
        at = np.stack([values[p] + draw[:, i] * half for i, (p, half) in enumerate(SCATTER.items())], axis=1)
        return flyarm.at_rest(HOME, values["arm.gain_scale"]) | _place(at)

    def seen_starts(self, signals: Mapping[str, NDArray[np.float64]], values: Values) -> dict[str, NDArray[np.float64]]:
        """Start of a logged attempt: puck and mark as first seen, corrected by the tracker's bias; see the protocol."""
        n = len(signals["object.pose"])
        bias = np.stack([values["tracker.bias_m.x"], values["tracker.bias_m.y"]], axis=1)
        puck = signals["object.pose"][:, :STILL, :2].mean(axis=1) - bias
        mark = signals["mark.position"].mean(axis=1) - bias
        rest = self.starts(values, [np.random.Generator(np.random.Philox(key=0))] * n)
        return rest | _place(np.concatenate([puck, mark], axis=1))

    # judgement --------------------------------------------------------------------------------------------

    def judge(self, signals: Mapping[str, NDArray[np.float64]], events: Sequence[str]) -> Judgement:
        """Where the puck rests relative to the mark, as the tracker saw both: its bias cancels."""
        puck, mark = signals["object.pose"][:, :2], signals["mark.position"].mean(axis=0)
        first, last = puck[:STILL].mean(axis=0), puck[-5:].mean(axis=0)
        before = puck[max(len(puck) - 10, 0) : max(len(puck) - 5, 1)].mean(axis=0)
        way = mark - first
        length = float(np.hypot(*way))
        error = last - mark
        miss = float(np.hypot(*error))
        along, across = float(error @ way) / length, float(way[0] * error[1] - way[1] * error[0]) / length
        progress = float(np.clip(1 - miss / length, 0, 1))
        rests = np.hypot(*(last - before)) * self.control_hz / 5 < REST_SPEED
        if miss <= TOLERANCE and rests:
            return Judgement("success", "", 1.0)
        if np.hypot(*(last - first)) < MOVED:
            return Judgement("failure", "missed", progress / 2)
        if abs(across) > max(abs(along), TOLERANCE / 2):
            return Judgement("failure", "wide", progress)
        return Judgement("failure", "short" if along < 0 else "long", progress)

    # realities --------------------------------------------------------------------------------------------

    def draw_reality(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """Pucks from slick to dull; about half the cells put puck and mark oddly."""
        out = {"object.friction": np.exp(rng.uniform(np.log(0.03), np.log(0.075), n))}
        out["object.mass"] = np.exp(rng.uniform(np.log(0.15), np.log(0.6), n))
        out["arm.gain_scale"] = rng.uniform(0.6, 1.2, n)
        out["arm.delay_s"] = rng.uniform(0.0, 0.06, n)
        out["tracker.noise_m"] = rng.uniform(0.0005, 0.002, n)
        for a in "xy":
            out[f"tracker.bias_m.{a}"] = rng.uniform(-0.004, 0.004, n)
        odd = rng.permutation(n) < (n + 1) // 2
        for path, low, high in (
            ("start.x", 0.42, 0.47),
            ("start.y", -0.16, -0.12),
            ("mark.x", 0.38, 0.52),
            ("mark.y", 0.43, 0.52),
        ):
            out[path] = np.where(odd, rng.uniform(low, high, n), self.scene.parameter(path).nominal)
        return out

    # what logs say ----------------------------------------------------------------------------------------

    def summaries(
        self, signals: Mapping[str, NDArray[np.float64]], actions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Servo lag and the puck's way around the moment of braking (averaged); how far it went (apart)."""
        q, puck = signals["joint.position"], signals["object.pose"][..., :2]
        n, steps = actions.shape[:2]
        aim = flyarm.forward(actions[..., :5])[..., 1]
        braked = aim[:, 1:] < np.maximum.accumulate(aim, axis=1)[:, :-1] - 0.02
        brake = np.where(braked.any(axis=1), braked.argmax(axis=1), aim.argmax(axis=1))

        def around(x: NDArray[np.float64], after: Sequence[int]) -> NDArray[np.float64]:
            at = np.clip(brake[:, None] + np.array(after), 0, steps - 1)
            return x[np.arange(n)[:, None], at].reshape(n, -1)

        way = puck - puck[:, :STILL].mean(axis=1, keepdims=True)
        lag = (q - actions[..., :5])[..., :3]
        means = [
            q[:, :3].mean(axis=1) * 300,
            around(lag, (-10, -8, -6, -4, -2, 0, 2, 4)) * 100,
            around(way[..., 1:], (-8, -6, -4, -2, 0, 2, 4, 6, 9, 12, 16, 20, 25, 30)) * 100,
            around(way[..., :1], (0, 6, 16, 30)) * 100,
        ]
        return np.concatenate(means, axis=1), way[:, -5:].mean(axis=1) * 20

    def plausible(self, values: Values) -> NDArray[np.float64]:
        """The parameters' ranges say it all."""
        return np.ones(len(values["object.friction"]))

    def observed(
        self, signals: Mapping[str, NDArray[np.float64]], samples: Values, rng: np.random.Generator
    ) -> dict[str, NDArray[np.float64]]:
        """Where pucks and marks are put, and the tracker's noise, from what stands still."""
        puck, mark = signals["object.pose"][:, :STILL, :2], signals["mark.position"]
        n, m = len(puck), len(samples["object.friction"])
        seen = np.concatenate([puck.mean(axis=1), mark.mean(axis=1)], axis=1).mean(axis=0)
        out = {}
        for i, (path, half) in enumerate(SCATTER.items()):
            bias = samples[f"tracker.bias_m.{path[-1]}"]
            out[path] = seen[i] - bias + half / np.sqrt(3 * n) * rng.standard_normal(m)
        residual = mark - mark.mean(axis=1, keepdims=True)
        out["tracker.noise_m"] = np.sqrt((residual**2).sum() / rng.chisquare(2 * n * (mark.shape[1] - 1), m))
        return {k: np.clip(v, self.scene.parameter(k).low, self.scene.parameter(k).high) for k, v in out.items()}

    # what a learned policy sees and says ------------------------------------------------------------------

    def features(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """Puck and mark as seen from the hand, the speed from which the puck slides there, the arm."""
        q, qd = observation["joint.position"], observation["joint.velocity"]
        hand = flyarm.forward(q)
        puck, mark = observation["object.pose"][:, :2] - told[:, 3:5], observation["mark.position"] - told[:, 3:5]
        left, u = _way(puck, mark)
        gap = puck - hand[:, :2]
        along, across = (gap * u).sum(axis=1), u[:, 0] * gap[:, 1] - u[:, 1] * gap[:, 0]
        y = hand[:, 1]
        near = [
            np.clip(along - 0.07, -0.05, 0.1) / 0.05,
            np.tanh((along - 0.075) / 0.01),
            np.clip(across, -0.06, 0.06) / 0.02,
            (left - 0.5) / 0.1,
            (np.sqrt(2 * told[:, 0] * flyarm.GRAVITY * left) - 0.6) / 0.15,
            np.clip(_turn(u, hand[:, 3]), -0.3, 0.3) / 0.1,
            (y + 0.1) / 0.1,
            np.tanh((y - RISE_FROM) / 0.02),
            np.tanh((y - LET_GO) / 0.02),
            (hand[:, 0] - 0.45) / 0.03,
            (hand[:, 2] - HOME[2]) / 0.005,
            (told[:, 1] - 0.9) / 0.2,
            (told[:, 2] - 0.03) / 0.02,
        ]
        arm = [
            (q - flyarm.inverse(HOME)) / np.array([0.4, 0.1, 0.2, 0.1, 0.4]),
            qd / np.array([1.0, 0.2, 0.5, 0.3, 1.0]),
        ]
        return np.concatenate([np.stack(near, axis=1), *arm], axis=1)

    def encode(
        self, observation: Observation, told: NDArray[np.float64], actions: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joint targets relative to the joints and their sag, grip relative to spread."""
        joints = (actions[..., :5] - self._reference(observation, told)[:, None]) / CODE_SCALE
        return np.concatenate([joints, (actions[..., 5:] - SPREAD) / flyarm.MAX_GRIP], axis=-1)

    def decode(
        self, observation: Observation, told: NDArray[np.float64], code: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Inverse of ``encode``."""
        joints = code[..., :5] * CODE_SCALE + self._reference(observation, told)[:, None]
        return np.concatenate([joints, code[..., 5:] * flyarm.MAX_GRIP + SPREAD], axis=-1)

    def _reference(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        q = observation["joint.position"]
        return q + flyarm.gravity_torque(q, 0.0) / (flyarm.KP * told[:, 1:2])

    # control ----------------------------------------------------------------------------------------------

    def told(self, values: Values) -> NDArray[np.float64]:
        """What somebody who knows the parameters would tell a policy, (n, len(conditioning))."""
        return np.stack([np.asarray(values[p], float) for p in TOLD], axis=1)

    def tell(self, samples: Values) -> NDArray[np.float64]:
        """What joint posterior samples (m,) tell a policy: the friction most likely within tolerance, else means."""
        friction = samples["object.friction"]
        grid = np.exp(np.linspace(np.log(friction.min()), np.log(friction.max()), 200))[:, None]
        off = np.log(grid / friction) / 0.06  # 6 % is what the tolerance forgives
        best = grid[np.argmax(np.exp(-(off**2)).mean(axis=1)), 0]
        return np.array([best, *(float(np.mean(samples[p])) for p in TOLD[1:])])

    def expert(self, told: NDArray[np.float64]) -> Controller:
        """Behind the puck, along the line to the mark at the speed from which it slides there, then let go."""
        return lambda obs: act(obs, told)

    def baselines(self) -> Mapping[str, Callable[[int], Controller]]:
        """``fixed-push-F``: pushes as if friction were F everywhere (a grid), all else nominal."""
        nominal = self.told(self.scene.nominal(1))

        def fixed(friction: float, n: int) -> Controller:
            told = np.repeat(nominal, n, axis=0)
            told[:, 0] = friction
            return self.expert(told)

        return {
            f"fixed-push-{f:.3f}": lambda n, f=f: fixed(f, n)  # type: ignore[misc]
            for f in np.exp(np.linspace(np.log(0.03), np.log(0.075), 10))
        }


def act(obs: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
    """The pushing law, without memory.

    A puck that is let go at speed v slides v^2 / (2 mu g). The hand follows exactly that speed for the way left,
    so that it does not matter where along the push the puck leaves the fingers.

    Args:
      obs: batched observation.
      told: (n, len(TOLD)).

    Returns:
      Actions (n, 6).
    """
    friction, gain, delay = (told[:, i] for i in range(3))
    q = obs["joint.position"]
    hand = flyarm.forward(q)[:, :4]
    later = (delay + 0.5 / flyarm.CONTROL_HZ)[:, None]  # when this action is half done
    puck, mark = obs["object.pose"][:, :2] - told[:, 3:5], obs["mark.position"] - told[:, 3:5]
    touching = np.hypot(*(puck - hand[:, :2]).T) < TOUCH
    # the measured speed would ripple with the commands' steps; the one that is wanted does not
    move = _field(hand, puck, mark, friction)[0] * later
    ahead = hand + move
    wanted, slope = _field(ahead, puck + np.where(touching[:, None], move[:, :2], 0.0), mark, friction)
    # the servos follow in joint space, where the straight push is a curve: its first and second derivative there
    q0, q1, q2 = (flyarm.inverse(ahead + wanted * e) for e in (0.0, 0.01, 0.02))
    accelerate = (q0 - 2 * q1 + q2) / 0.01**2 + (flyarm.inverse(ahead + 0.01 * slope) - q0) / 0.01
    joints = q0 + flyarm.SERVO_S * (4 * q1 - 3 * q0 - q2) / 0.02 + (INERTIA_S2 / gain)[:, None] * accelerate
    joints += flyarm.gravity_torque(q, 0.0) / (flyarm.KP * gain[:, None])
    return np.concatenate([joints, np.full((len(q), 1), SPREAD)], axis=1)


def _field(
    pose: NDArray[np.float64], puck: NDArray[np.float64], mark: NDArray[np.float64], friction: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Velocity wanted of the hand at a pose, and its acceleration along the push, (n, 4) each."""
    left, u = _way(puck, mark)
    slide = EASE * np.sqrt(2 * friction * flyarm.GRAVITY * left)
    rise = np.sqrt(CREEP**2 + 2 * ACCELERATION * np.clip(pose[:, 1] - RISE_FROM, 0, None))
    speed = (slide**-SMOOTH + rise**-SMOOTH) ** (-1 / SMOOTH)
    toward = (speed / slide) ** SMOOTH
    slope = -toward * friction * flyarm.GRAVITY * (speed / slide) ** 2
    slope += np.where(pose[:, 1] > RISE_FROM, (1 - toward) * ACCELERATION * (speed / rise) ** 2, 0.0)
    gap = puck - pose[:, :2]
    across = u[:, 0] * gap[:, 1] - u[:, 1] * gap[:, 0]
    turn = _turn(u, pose[:, 3])
    v = speed[:, None] * u + (4.0 * across)[:, None] * np.stack([-u[:, 1], u[:, 0]], axis=1)
    v = np.concatenate([v, 5.0 * (HOME[2] - pose[:, 2:3]), np.clip(5.0 * turn, -1.0, 1.0)[:, None]], axis=1)
    bend = np.concatenate([slope[:, None] * u, np.zeros((len(u), 2))], axis=1)
    done = pose[:, 1] > LET_GO
    v[done, 0] = v[done, 3] = 0.0
    v[done, 1] = np.clip(4.0 * (STOP_AT - pose[done, 1]), -0.2, 0.2)
    bend[done] = 0.0
    return v, bend


def _way(puck: NDArray[np.float64], mark: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance that is left [m], (n,), and the direction to the mark, (n, 2)."""
    way = mark - puck
    left = np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-3)
    return left, way / left[:, None]


def _turn(u: NDArray[np.float64], yaw: NDArray[np.float64]) -> NDArray[np.float64]:
    """Angle [rad] by which the hand must turn for its fingers to stand across the direction u, (n,)."""
    return (np.arctan2(u[:, 1], u[:, 0]) - yaw) % (2 * np.pi) - np.pi


def _place(at: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """Puck and mark at x, y, mark x, mark y [m], (n, 4)."""
    n = len(at)
    puck = np.concatenate([at[:, :2], np.tile([HEIGHT / 2, 1.0, 0.0, 0.0, 0.0], (n, 1))], axis=1)
    return {"puck": puck, "mark_x": at[:, 2:3], "mark_y": at[:, 3:4]}


SLIDE_PUCK = SlidePuck()
