"""``lift-fragile-v1``: lift a box 0.15 m and hold it 1 s without dropping or crushing it.

In: the Flyarm, a box of unknown mass, friction and fragility, a biased tracker. Out: the task with its scene,
judgement, informed expert, scripted baselines and policy features. The window of good grip forces is narrow and
differs from robot to robot: the lower end is set by mass over friction, the upper by what the box bears.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from flyball.engines.engine import Reduce
from flyball.robots import Observation
from flyball.robots.zoo import flyarm
from flyball.scenes import Bind, Parameter, Scene
from flyball.tasks.task import Controller, Derived, EventRule, Judgement, Values

HALF = np.array([0.025, 0.022, 0.03])
"""Half size of the nominal box [m]; the gripper closes along the second axis."""
MODEL = f"""<mujoco model="lift-fragile"><compiler angle="radian"/>
<option timestep=".0025" integrator="implicitfast" cone="elliptic" impratio="10" iterations="30" tolerance="1e-6"/>
{flyarm.DEFAULTS}
<worldbody>
 <geom name="table" type="plane" size="2 2 .1" contype="1" conaffinity="0" solref=".005 1" friction="1"
  rgba=".8 .8 .78 1"/>
 {flyarm.ARM}
 <body name="box" pos=".42 0 {HALF[2]}"><freejoint name="box"/>
  <geom name="box" type="box" size="{HALF[0]} {HALF[1]} {HALF[2]}" mass=".35" contype="1" conaffinity="3" priority="1"
   condim="3" friction=".5 .005 .0001" solref=".005 1" rgba=".85 .45 .15 1"/></body>
</worldbody>
<equality>{flyarm.EQUALITY}</equality><tendon>{flyarm.TENDON}</tendon>
<actuator>{flyarm.ACTUATORS}</actuator><sensor>{flyarm.SENSORS}</sensor>
</mujoco>"""

PARAMETERS = (
    Parameter("object.mass", "kg", 0.35, 0.12, 0.9, "log", "robot", (Bind("body:box.mass"),), "mass of the box"),
    Parameter(
        "object.friction", "", 0.5, 0.2, 1.0, "log", "robot", (Bind("geom:box.friction"),), "sliding friction"
    ),
    Parameter(
        "object.crush_force", "N", 15.0, 2.0, 80.0, "log", "robot", (Bind("event:crushed.threshold"),),
        "normal force on a pad, low-passed at 10 ms, above which the box breaks",
    ),
    Parameter(
        "object.size_scale", "", 1.0, 0.75, 1.35, "log", "robot", (Bind("geom:box.size_scale"),), "size over nominal"
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
        "arm.backlash_rad", "rad", 0.002, 0.0, 0.012, "linear", "robot", (Bind("command.play"),), "play of each joint"
    ),
    Parameter(
        "tracker.noise_m", "m", 0.001, 0.0, 0.004, "linear", "robot",
        tuple(Bind("sensor:object.pose.noise", index=i) for i in range(3)), "standard deviation of the position",
    ),
    *(
        Parameter(
            f"tracker.bias_m.{axis}", "m", 0.0, -0.006, 0.006, "linear", "robot",
            (Bind("sensor:object.pose.bias", index=i),), f"constant error of the tracked {axis}",
        )
        for i, axis in enumerate("xyz")
    ),
    Parameter("start.x", "m", 0.42, 0.34, 0.48, "linear", "robot", (Bind("start:box"),), "where boxes are put, mean x"),
    Parameter("start.y", "m", 0.0, -0.12, 0.12, "linear", "robot", (Bind("start:box"),), "where boxes are put, mean y"),
    Parameter("start.yaw", "rad", 0.0, -0.9, 0.9, "linear", "robot", (Bind("start:box"),), "how boxes lie, mean yaw"),
)  # fmt: skip
SCATTER = np.array([0.015, 0.015, 0.12])
"""Half width of the scatter of x, y [m] and yaw [rad] around their means from attempt to attempt."""

HOME = np.array([0.40, 0.0, 0.17, 0.0])
"""Where the hand waits: x, y, z [m], yaw [rad]."""
SLIP_MARGIN = 1.3
"""Least force that lifts, over the static minimum m g / (2 mu), at this task's lift speed."""
PEAK = 1.08
"""Highest over commanded force when closing softly."""
LIFT, HOLD_S, SLIP = 0.15, 1.0, 0.01
SPEED, LIFT_SPEED, TOP = 0.35, 0.22, 0.212
"""Approach and lift speed [m/s], height of the hand at which it holds [m]."""
OPEN = -6.0
"""Grip command that opens [N]."""
UNTOUCHED = 5
"""Control periods at the start in which the hand cannot have reached the box yet, wherever it lies."""

TOLD = (
    "grip.force",
    "gripper.force_scale",
    "object.mass",
    "arm.gain_scale",
    "arm.delay_s",
    *(f"tracker.bias_m.{a}" for a in "xyz"),
)


def least_force(v: Values) -> NDArray[np.float64]:
    """Static minimum of the pad force that holds the box [N]: m g / (2 mu)."""
    return np.asarray(v["object.mass"]) * flyarm.GRAVITY / (2 * np.asarray(v["object.friction"]))


class LiftFragile:
    """The task; see the module's text and ``flyball.tasks.Task``."""

    name = "lift-fragile-v1"
    instruction = "lift the box and hold it without breaking it"
    embodiment = flyarm.FLYARM
    scene = Scene("lift-fragile", MODEL, PARAMETERS, assumptions={"timestep": 0.0025, "cone": "elliptic"})
    horizon_s = 3.6
    control_hz = flyarm.CONTROL_HZ
    groups = ("slipped", "crushed", "missed", "late")
    conditioning = TOLD
    derived = (
        Derived("friction/mass", "1/kg", lambda v: v["object.friction"] / v["object.mass"]),
        Derived("least_force/force_scale", "N", lambda v: least_force(v) / v["gripper.force_scale"]),
    )
    reads: Mapping[str, Reduce] = {
        **{name: "mean" if name.startswith("sensor:") else "last" for name in flyarm.READS},
        "joint:box.position": "last",
    }
    noise: Mapping[str, tuple[float, ...]] = flyarm.NOISE
    event_rules = (EventRule("crushed", ("sensor:pad_left", "sensor:pad_right"), 0.01),)

    # the cell ---------------------------------------------------------------------------------------------

    def sense(self, raw: Mapping[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        """Encoders, gripper width, pad force, tracked box."""
        return flyarm.sense(raw, raw["joint:box.position"])

    def control(self, actions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Joint targets and grip force are the actuators' own inputs."""
        return actions

    def rest_action(self, values: Values) -> NDArray[np.float64]:
        """Waiting at home with the gripper open."""
        return np.tile(flyarm.hold(HOME, OPEN), (len(values["object.mass"]), 1))

    def starts(self, values: Values, rng: Sequence[np.random.Generator]) -> dict[str, NDArray[np.float64]]:
        """The arm at rest under its own weight, the box scattered around where boxes are put."""
        n = len(rng)
        draw = np.stack([r.uniform(-1, 1, 3) for r in rng]) * SCATTER
        x, y, yaw = (values[f"start.{k}"] + draw[:, i] for i, k in enumerate(("x", "y", "yaw")))
        z, zero = HALF[2] * values["object.size_scale"], np.zeros(n)
        box = np.stack([x, y, z, np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=1)
        return flyarm.at_rest(HOME, values["arm.gain_scale"]) | {"box": box}

    def seen_starts(self, signals: Mapping[str, NDArray[np.float64]], values: Values) -> dict[str, NDArray[np.float64]]:
        """Start of a logged attempt as its first third of a second shows it, corrected by the tracker's bias.

        Args:
          signals: (n, T, size) each.
          values: path -> (n,).
        """
        pose = np.median(signals["object.pose"][:, :8], axis=1)
        bias = np.stack([values[f"tracker.bias_m.{a}"] for a in "xy"], axis=1)
        x, y = (pose[:, :2] - bias).T
        zero, yaw = np.zeros(len(pose)), pose[:, 3]
        rest = self.starts(values, [np.random.Generator(np.random.Philox(key=0))] * len(pose))
        z = HALF[2] * values["object.size_scale"]
        return rest | {"box": np.stack([x, y, z, np.cos(yaw / 2), zero, zero, np.sin(yaw / 2)], axis=1)}

    # judgement --------------------------------------------------------------------------------------------

    def judge(self, signals: Mapping[str, NDArray[np.float64]], events: Sequence[str]) -> Judgement:
        """Slip, crush, miss or success, from joint angles, tracked pose, gripper width and the station's events."""
        hand = flyarm.forward(signals["joint.position"])[:, :3]
        box = _smooth(signals["object.pose"][:, :3])
        width = signals["gripper.width"][:, 0]
        height = box[:, 2] - np.median(signals["object.pose"][:8, 2])
        hold = round(HOLD_S * self.control_hz)
        up = np.convolve(height >= LIFT, np.ones(hold), "valid") if len(height) >= hold else np.zeros(1)
        progress = float(np.clip(height.max() / LIFT, 0, 1)) * (0.5 + 0.5 * float(up.max()) / hold)
        closed = width < np.median(width[:5]) - 0.01
        between = closed & (np.linalg.norm(hand - box, axis=1) < 0.03)
        if "crushed" in events and between.any():
            return Judgement("failure", "crushed", 0.2 + 0.3 * progress)
        low = np.minimum.accumulate(hand[:, 2])
        lifted = np.flatnonzero(closed & (hand[:, 2] > low + 0.015))
        if "crushed" in events or len(lifted) == 0 or width[lifted[0]] < 0.02:
            return Judgement("failure", "missed", 0.1 * progress)
        k = lifted[0]
        gap = (hand - box)[k:]
        if np.linalg.norm(gap - gap[0], axis=1).max() > SLIP:
            return Judgement("failure", "slipped", 0.2 + 0.3 * progress)
        if up.max() < hold:
            return Judgement("failure", "late", 0.5 + 0.4 * progress)
        return Judgement("success", "", 1.0)

    # realities --------------------------------------------------------------------------------------------

    def draw_reality(self, rng: np.random.Generator, n: int) -> dict[str, NDArray[np.float64]]:
        """Fragility given mass and friction: a good grip exists; half of the cells put boxes elsewhere, turned."""
        mass = np.exp(rng.uniform(np.log(0.2), np.log(0.6), n))
        friction = np.exp(rng.uniform(np.log(0.3), np.log(0.8), n))
        out = {"object.mass": mass, "object.friction": friction}
        out["object.crush_force"] = SLIP_MARGIN * least_force(out) * rng.uniform(1.7, 2.5, n)
        out["gripper.force_scale"] = rng.uniform(0.7, 1.3, n)
        out["arm.gain_scale"] = rng.uniform(0.6, 1.2, n)
        out["arm.delay_s"] = rng.uniform(0.0, 0.06, n)
        out["arm.backlash_rad"] = rng.uniform(0.0, 0.004, n)
        out["tracker.noise_m"] = rng.uniform(0.0005, 0.003, n)
        for a in "xyz":
            out[f"tracker.bias_m.{a}"] = rng.uniform(-0.004, 0.004, n)
        odd = rng.permutation(n) < (n + 1) // 2
        side = rng.choice([-1.0, 1.0], (2, n))
        big = rng.random(n) < 0.5
        size = np.where(big, rng.uniform(1.15, 1.3, n), rng.uniform(0.78, 0.88, n))
        out["object.size_scale"] = np.where(odd, size, 1.0)
        out["start.yaw"] = np.where(odd, rng.uniform(0.5, 0.85, n) * side[0], 0.0)
        out["start.x"] = np.where(odd, rng.uniform(0.35, 0.47, n), 0.42)
        out["start.y"] = np.where(odd, rng.uniform(0.05, 0.11, n) * side[1], 0.0)
        return out

    # what logs say ----------------------------------------------------------------------------------------

    def summaries(
        self, signals: Mapping[str, NDArray[np.float64]], actions: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Tracking errors, closing, squeezing and sag under load (averaged); how the box follows the hand (apart)."""
        q, width, felt = signals["joint.position"], signals["gripper.width"][..., 0], signals["gripper.force"][..., 0]
        hand, box = flyarm.forward(q), signals["object.pose"]
        n, steps = actions.shape[:2]
        grip, aim = actions[..., 5], flyarm.forward(actions[..., :5])[..., 2]
        shut = np.where((grip > 0).any(axis=1), np.argmax(grip > 0, axis=1), steps)
        means, apart = [], []
        for i in range(n):
            c = int(shut[i])
            above = aim[i, c + 3 :] > np.minimum.accumulate(aim[i, c:])[3:] + 0.02
            rising = np.flatnonzero(above)
            up = c + 3 + int(rising[0]) if len(rising) else steps
            yaw = hand[i, :, 3]
            gap = box[i, :, :3] - hand[i, :, :3]
            across = -np.sin(yaw) * gap[:, 0] + np.cos(yaw) * gap[:, 1]
            at = (2, 3, 4, 5, 6, 8, 10, 13, 16)
            part = [(q[i, k] - q[i, 0]) * 100 if k < min(c, steps) else np.zeros(5) for k in at]
            part += [q[i, :1].ravel() * 100]
            part += [
                np.array([_mean(width[i], c + k, c + k + 1, up) * 300 for k in (2, 3, 4, 5, 6, 7, 8, 10)]),
                np.array([_mean(felt[i], c + k, c + k + 2, up) for k in (5, 7, 9, 11)]),
                np.array([_mean(width[i], up - 3, up, steps) * 1000, _mean(felt[i], up - 2, up, steps)]),
                np.array([_mean(across, up - 3, up + 1, steps) * 1000, box[i, :8, 2].mean() * 1000]),
            ]
            lag = (q[i, :, 1:4] - actions[i, :, 1:4]) * 300
            follow = gap[:, 2] - _mean(gap[:, 2], up - 4, up, steps)
            spans = ((-4, -1), (-1, 2), (2, 4), (4, 6), (6, 9), (9, 17), (17, 25), (25, 33))
            part += [np.array([_mean(x, up + a, up + b, steps) for x in lag.T]) for a, b in spans]
            means.append(np.concatenate(part))
            follow = np.clip(follow, -0.04, 0.04) * 300
            apart.append(np.array([_mean(follow, up + k, up + k + 4, steps) for k in (0, 2, 4, 8, 16, 26)]))
        return np.stack(means), np.stack(apart)

    def plausible(self, values: Values) -> NDArray[np.float64]:
        """A box that can be lifted but is worth the care: it breaks at 1.2 to 4 times the force that lifts it."""
        ratio = np.log(np.asarray(values["object.crush_force"]) / (SLIP_MARGIN * least_force(values)))
        return 1 / (1 + np.exp(-(ratio - np.log(1.3)) / 0.08)) / (1 + np.exp((ratio - np.log(3.5)) / 0.15))

    def observed(
        self, signals: Mapping[str, NDArray[np.float64]], samples: Values, rng: np.random.Generator
    ) -> dict[str, NDArray[np.float64]]:
        """Where boxes are put, and the tracker's noise, from the periods before anything can touch the box."""
        pose = signals["object.pose"][:, :UNTOUCHED]
        n, m = len(pose), len(samples["object.mass"])
        out = {}
        for column, path, scatter in zip((0, 1, 3), ("x", "y", "yaw"), SCATTER, strict=True):
            centre = pose[:, :, column].mean() + scatter / np.sqrt(3 * n) * rng.standard_normal(m)
            out[f"start.{path}"] = centre - samples.get(f"tracker.bias_m.{path}", np.zeros(m))
        residual = (pose - pose.mean(axis=1, keepdims=True))[..., :3]
        dof = n * (UNTOUCHED - 1) * 3
        out["tracker.noise_m"] = np.sqrt((residual**2).sum() / rng.chisquare(dof, m))
        return {k: np.clip(v, self.scene.parameter(k).low, self.scene.parameter(k).high) for k, v in out.items()}

    # what a learned policy sees and says ------------------------------------------------------------------

    def features(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        """The box as seen from the hand, the hand, the grip relative to the one that is told, joint speeds."""
        q, qd = observation["joint.position"], observation["joint.velocity"]
        hand = flyarm.forward(q)
        error = observation["object.pose"] - hand[:, :4]
        error[:, :3] -= told[:, 5:8]
        c, s = np.cos(hand[:, 3]), np.sin(hand[:, 3])
        dx, dy = c * error[:, 0] + s * error[:, 1], -s * error[:, 0] + c * error[:, 1]
        share = observation["gripper.force"][:, 0] / (told[:, 0] * told[:, 1])
        width = observation["gripper.width"][:, 0]
        near = np.stack([dx, dy, error[:, 2]], axis=1)
        return np.concatenate(
            [
                near / 0.05,
                np.tanh(near / 0.012),
                error[:, 3:4] / 0.3,
                np.tanh(error[:, 3:4] / 0.05),
                (hand[:, 2:3] - 0.1) / 0.06,
                np.tanh((hand[:, 2:3] - 0.055) / 0.01),
                hand[:, :2] / 0.2 - np.array([2.1, 0.0]),
                hand[:, 3:4],
                hand[:, 4:5] / 0.01,
                q[:, 1:4] - np.array([0.5, 1.3, 1.3]),
                qd / np.array([0.6, 0.6, 0.8, 0.8, 1.2]),
                (width / 0.02 - 2.5)[:, None],
                np.clip(share, -0.5, 1.5)[:, None],
                (told[:, 2:3] - 0.35) / 0.15,
                (told[:, 3:4] - 0.9) / 0.2,
                (told[:, 4:5] - 0.03) / 0.02,
            ],
            axis=1,
        )

    def encode(
        self, observation: Observation, told: NDArray[np.float64], actions: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Joint targets relative to the joints and their sag, grip relative to the one that is told; -1 is open."""
        joints = (actions[..., :5] - self._reference(observation, told)[:, None]) / 0.1
        grip = np.where(actions[..., 5:] < 0, -1.0, actions[..., 5:] / told[:, None, :1])
        return np.concatenate([joints, grip], axis=-1)

    def decode(
        self, observation: Observation, told: NDArray[np.float64], code: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Inverse of ``encode``; a grip code below -0.3 means open."""
        joints = code[..., :5] * 0.1 + self._reference(observation, told)[:, None]
        grip = np.where(code[..., 5:] < -0.3, OPEN, np.clip(code[..., 5:], 0.0, 1.0) * told[:, None, :1])
        return np.concatenate([joints, grip], axis=-1)

    def _reference(self, observation: Observation, told: NDArray[np.float64]) -> NDArray[np.float64]:
        q = observation["joint.position"]
        return q + flyarm.gravity_torque(q, 0.0) / (flyarm.KP * told[:, 3:4])

    # control ----------------------------------------------------------------------------------------------

    def told(self, values: Values) -> NDArray[np.float64]:
        """What somebody who knows the parameters would tell a policy, (n, len(conditioning))."""
        low, high = SLIP_MARGIN * least_force(values), values["object.crush_force"] / PEAK
        force = np.minimum(np.sqrt(low * np.maximum(high, low)) / values["gripper.force_scale"], flyarm.MAX_GRIP)
        return np.stack([force, *(np.asarray(values[p]) for p in TOLD[1:])], axis=1)

    def tell(self, samples: Values) -> NDArray[np.float64]:
        """What joint posterior samples (m,) tell a policy, (c,): the grip most likely to be good, else means."""
        scale = samples["gripper.force_scale"]
        low = SLIP_MARGIN * least_force(samples) / scale
        high = samples["object.crush_force"] / PEAK / scale
        grid = np.exp(np.linspace(np.log(low.min()), np.log(max(high.max(), low.max())), 200))[:, None]
        # soft edges keep the answer off the boundaries, which this rule of thumb knows to about 8 %
        good = 1 / (1 + np.exp(-np.log(grid / low) / 0.08)) / (1 + np.exp(-np.log(high / grid) / 0.05))
        force = min(grid[np.argmax(good.mean(axis=1)), 0], flyarm.MAX_GRIP)
        return np.array([force, *(float(np.mean(samples[p])) for p in TOLD[1:])])

    def expert(self, told: NDArray[np.float64]) -> Controller:
        """Above the box, down, close softly, ramp, lift; a function of observation and ``told`` alone."""
        return lambda obs: act(obs, told)

    def baselines(self) -> Mapping[str, Callable[[int], Controller]]:
        """``fixed-grip-F`` (forces on a grid) and ``slip-feedback`` (raise the force until the box comes along)."""
        nominal = self.told(self.scene.nominal(1))

        def fixed(force: float, n: int) -> Controller:
            told = np.repeat(nominal, n, axis=0)
            told[:, 0] = force
            return self.expert(told)

        out: dict[str, Callable[[int], Controller]] = {
            f"fixed-grip-{f:.1f}": lambda n, f=f: fixed(f, n)  # type: ignore[misc]
            for f in np.exp(np.linspace(np.log(3.0), np.log(18.0), 12))
        }
        out["slip-feedback"] = lambda n: _SlipFeedback(np.repeat(nominal, n, axis=0))
        return out


def act(obs: Observation, told: NDArray[np.float64], force: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """The lifting law, without memory: funnel down onto the box, close softly, ramp the grip, lift, hold.

    Args:
      obs: batched observation.
      told: (n, len(TOLD)).
      force: commanded grip force [N], (n,); None: the one that is told.

    Returns:
      Actions (n, 6).
    """
    grip, scale, mass, gain, delay = (told[:, i] for i in range(5))
    force = grip if force is None else force
    q, felt, width = obs["joint.position"], obs["gripper.force"][:, 0], obs["gripper.width"][:, 0]
    box = obs["object.pose"][:, :4].copy()
    box[:, :3] -= told[:, 5:8]
    hand = flyarm.forward(q)
    share = felt / (force * scale)
    gripping = (share > 0.2) & (width < flyarm.OPEN_WIDTH - 0.01)
    error = box - hand[:, :4]
    away = np.hypot(error[:, 0], error[:, 1]) + 0.05 * np.abs(error[:, 3])
    low = hand[:, 2] < np.maximum(box[:, 2], 0.02) + 0.007
    lifting = gripping & ((share > 0.8) | (hand[:, 2] > 0.055))
    goal = box.copy()
    goal[:, 2] = np.maximum(box[:, 2], 0.018) + np.clip(6 * (away - 0.012), 0, 0.08)
    v = 5.0 * (goal - hand[:, :4])
    v[gripping] = 0.0
    v[lifting, 2] = np.clip(5.0 * (TOP - hand[lifting, 2]), -LIFT_SPEED, LIFT_SPEED)
    speed = np.linalg.norm(v[:, :3], axis=1)
    v[:, :3] *= np.minimum(1.0, SPEED / np.maximum(speed, 1e-9))[:, None]
    v[:, 3] = np.clip(v[:, 3], -1.5, 1.5)
    pose = hand[:, :4].copy()
    ahead = flyarm.inverse(pose + v * (flyarm.SERVO_S + delay + 0.02)[:, None])
    carried = np.where(lifting, mass * np.clip((hand[:, 2] - 0.03) / 0.02, 0, 1), 0.0)
    joints = ahead + flyarm.gravity_torque(q, carried) / (flyarm.KP * gain[:, None])
    soft = np.maximum(0.4, np.minimum(0.8, 1.5 / (force * scale)))
    ramp = force * np.clip(share + 0.3, soft, 1.0)
    close = gripping | (low & (away < 0.016))
    return np.concatenate([joints, np.where(close, ramp, OPEN)[:, None]], axis=1)


class _SlipFeedback:
    """The reactive script: one attempt of n worlds, without calibration.

    It closes softly, then pulls slowly and raises the force period by period until the filtered box comes along; a
    hand that has slipped 20 mm goes back and pulls again. Then it adds a margin, lifts, and raises the force whenever
    the box falls behind. The scatter of the box at rest tells it how noisy the tracker is, and the servos' sag is
    learned as it goes; everything else is believed to be nominal.

    The constants were tuned on 96 drawn cells.

    Args:
      told: what is believed, (n, len(TOLD)).
    """

    CLOSE, TOUCH = 3.4, 1.0  # N
    GROW, MARGIN, GROW_SLIPPING = 1.06, 1.27, 1.09  # factors on the force
    PULL, BACK, ROOM = 0.03, 0.18, 0.020  # m/s, m/s, m
    SURE, LEAST = 1.35, 0.001  # standard deviations, m: what counts as the box coming along
    BEHIND = 0.003  # m: what counts as slipping, with SURE standard deviations on top
    SMOOTH_RISE, SMOOTH_LAG, SMOOTH_SAG = 0.5, 0.28, (0.2, 0.02)  # shares of the newest sample; sag free, held
    SPEED, ACCELERATION = 0.23, 0.93  # m/s, m/s^2

    def __init__(self, told: NDArray[np.float64]) -> None:
        n = len(told)
        self._told, self._k = told, 0
        self._force = np.full(n, self.CLOSE)
        self._held, self._lifting, self._back = (np.zeros(n, bool) for _ in range(3))
        self._sag, self._speed = np.zeros((n, 5)), np.zeros(n)
        self._aim, self._grasp_z, self._lag_then = np.zeros((n, 4)), np.zeros(n), np.zeros(n)

    def __call__(self, obs: Observation) -> NDArray[np.float64]:
        q, felt, width = obs["joint.position"], obs["gripper.force"][:, 0], obs["gripper.width"][:, 0]
        hand, height = flyarm.forward(q), obs["object.pose"][:, 2]
        weight = flyarm.gravity_torque(q, 0.0) / flyarm.KP
        self._filter(obs, hand[:, 2], weight)
        touch = ~self._held & (felt > self.TOUCH) & (width < flyarm.OPEN_WIDTH - 0.01)
        self._aim[touch], self._grasp_z[touch] = hand[touch, :4], hand[touch, 2]
        self._held |= touch
        self._regulate(hand[:, 2])

        dt = 1.0 / flyarm.CONTROL_HZ
        pull = np.where(self._back, -self.BACK, self.PULL)
        up = np.clip(5.0 * (TOP - self._aim[:, 2]), -self.SPEED, self.SPEED)
        up = np.clip(up, self._speed - 2 * self.ACCELERATION * dt, self._speed + self.ACCELERATION * dt)
        self._speed = np.where(self._held, np.where(self._lifting, up, pull), 0.0)
        self._aim[:, 2] += self._speed * dt
        goal = self._aim.copy()
        goal[:, 2] += self._speed * (flyarm.SERVO_S + self._told[:, 4])
        goal[:, 2] += 0.5 * np.clip(self._aim[:, 2] - hand[:, 2], -0.02, 0.02)
        free = act(obs, self._told, self._force)
        held = self._held[:, None]
        self._sent = np.where(held, flyarm.inverse(goal) + weight, free[:, :5]) + self._sag
        self._force = np.minimum(self._force, flyarm.MAX_GRIP)
        grip = np.where(self._held | (free[:, 5] > 0), self._force, OPEN)
        self._height = height
        self._k += 1
        return np.concatenate([self._sent, grip[:, None]], axis=1)

    def _filter(self, obs: Observation, hand: NDArray[np.float64], weight: NDArray[np.float64]) -> None:
        """Smoothed height of the box and its lag behind the hand; while it rests, its true height and its scatter."""
        q, qd, height = obs["joint.position"], obs["joint.velocity"], obs["object.pose"][:, 2]
        if self._k == 0:
            self._rest, self._smooth, self._lag = height.copy(), height.copy(), hand - height
            self._variance = np.full(len(height), 1e-6)
            return
        slow = np.where(self._held, self.SMOOTH_SAG[1], self.SMOOTH_SAG[0])[:, None]
        slow = slow / (1 + np.abs(qd).max(axis=1, keepdims=True) / 0.3)  # delays blur it while the arm moves
        self._sag += slow * (self._sent - q - flyarm.SERVO_S * qd - weight - self._sag)
        resting = ~self._held
        scatter = (height - self._height) ** 2 / 2
        self._variance += np.where(resting, (scatter - self._variance) / min(self._k + 1, 20), 0.0)
        self._rest += np.where(resting, (height - self._rest) / min(self._k + 1, 40), 0.0)
        self._smooth += self.SMOOTH_RISE * (height - self._smooth)
        self._lag += self.SMOOTH_LAG * (hand - height - self._lag)

    def _regulate(self, hand: NDArray[np.float64]) -> None:
        """Force and phase of every world."""
        doubt = self.SURE * np.sqrt(self._variance * self.SMOOTH_RISE / (2 - self.SMOOTH_RISE))
        comes = (self._smooth - self._rest > np.maximum(self.LEAST, doubt)) & (hand - self._grasp_z > self.LEAST)
        new = self._held & ~self._lifting & comes
        self._lifting |= new
        self._force = np.where(new, self.MARGIN * self._force, self._force)
        self._lag_then = np.where(new, self._lag, self._lag_then)
        doubt = self.SURE * np.sqrt(self._variance * self.SMOOTH_LAG / (2 - self.SMOOTH_LAG))
        behind = self._lag - self._lag_then
        slipping = self._lifting & (behind > self.BEHIND + doubt)
        self._force = np.where(slipping, self.GROW_SLIPPING * self._force, self._force)
        self._lag_then = np.where(slipping, self._lag_then + 0.3 * behind, self._lag_then)
        pulling = self._held & ~self._lifting
        way = self._aim[:, 2] - self._grasp_z
        self._back = pulling & ((way > self.ROOM) | (self._back & (way > 0.001)))
        self._force = np.where(pulling & ~self._back, self.GROW * self._force, self._force)


LIFT_FRAGILE = LiftFragile()


def _mean(x: NDArray[np.float64], start: int, stop: int, end: int) -> float:
    """Mean of x[start:stop]; 0 when the window does not lie before ``end``."""
    return float(x[max(start, 0) : stop].mean()) if start >= 0 and stop <= end and start < stop else 0.0


def _smooth(x: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred mean of five samples along the first axis, edges repeated."""
    padded = np.concatenate([np.repeat(x[:1], 2, axis=0), x, np.repeat(x[-1:], 2, axis=0)])
    return np.mean([padded[i : i + len(x)] for i in range(5)], axis=0)
