"""A cube tossed onto a board (ContactNets, Pfrommer, Halm and Posa 2020).

In: episodes with the tracked pose of the cube. Out: replays of whole tosses. Nothing drives the cube: its start state
decides everything, so that is not taken from one noisy frame but from a ballistic fit of all frames before contact.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from flyball.base import InputError
from flyball.calibration.problem import Compared, Replay
from flyball.calibration.rigs.rig import Fold
from flyball.episodes import Episode
from flyball.scenes import Bind, Parameter, Scene

Array = NDArray[np.float64]

WIDTH = 0.1048
_HALF, _GRAVITY = WIDTH / 2, np.array([0.0, 0.0, -9.81])
_CLEARANCE = 0.002  # lowest corner above the board by more than this: in flight [m]

# The step is a quarter of the tracker's period. The cube's contact parameters rule (priority), so they are the pair's.
MODEL = f"""
<mujoco model="tossed-cube">
  <option timestep="{1 / 592:.17g}" cone="elliptic"/>
  <worldbody>
    <geom name="board" type="plane" size="5 5 1"/>
    <body name="cube">
      <freejoint name="cube"/>
      <geom name="cube" type="box" size="{_HALF} {_HALF} {_HALF}" mass="0.37" priority="1"/>
    </body>
  </worldbody>
</mujoco>
"""

PARAMETERS = (
    Parameter(
        "contact.friction", "", 1.0, 0.05, 1.5, "log", "shared", (Bind("geom:cube.friction"),), "cube on board, sliding"
    ),
    Parameter(
        "contact.time_constant", "s", 0.02, 0.0035, 0.1, "log", "shared", (Bind("geom:cube.solref"),),
        "how fast penetration is resolved",
    ),
    Parameter(
        "contact.damping_ratio", "", 1.0, 0.1, 2.0, "log", "shared", (Bind("geom:cube.solref", index=1),),
        "1: no rebound, less: the cube bounces",
    ),
)  # fmt: skip

# The same contact said as a spring and a damper per mass. Engines differ in what they make of a time constant and a
# damping ratio, and some in the range that a time constant may have. Nominal values are those of the parameters above.
SPRING_MODEL = MODEL.replace('priority="1"', 'priority="1" solref="-1 -1"')
SPRING = (
    PARAMETERS[0],
    Parameter(
        "contact.stiffness", "1/s^2", 2500.0, 1e2, 1e6, "log", "shared", (Bind("geom:cube.solref", "scale"),),
        "stiffness per mass",
    ),
    Parameter(
        "contact.damping", "1/s", 100.0, 0.1, 1e4, "log", "shared", (Bind("geom:cube.solref", "scale", 1),),
        "damping per mass",
    ),
)  # fmt: skip


class TossedCube:
    """The rig of the cube recordings; see ``flyball.calibration.rigs.Rig``."""

    name = "tossed-cube"
    scene = Scene("tossed-cube", MODEL, PARAMETERS, assumptions={"timestep": 1 / 592, "cone": "elliptic"})
    engine = "mujoco"
    levels = (tuple(p.path for p in PARAMETERS),)
    priors: Mapping[str, tuple[float, float]] = {}
    method = "cma-es"
    compared = Compared("cube.pose", "joint:cube.position", 3, scale=0.01, noise=0.001)
    unit, unit_size = "cube widths", WIDTH
    stride = 1

    def matches(self, episode: Episode) -> bool:
        return "toss" in episode.labels and {"cube.pose", "cube.twist"} <= set(episode.signals)

    def replay(self, episode: Episode) -> Replay:
        name = f"toss {episode.labels['toss']}"
        pose, twist = episode.signal("cube.pose"), episode.signal("cube.twist")
        t = (pose.t_ns - pose.t_ns[0]) * 1e-9
        p = np.asarray(pose.values[:, :3], float)
        if len(t) < 8 or len(twist.values) != len(t) or not np.isfinite(pose.values).all():
            raise InputError("needs at least 8 finite frames of pose and twist", where=name)
        r = Rotation.from_quat(pose.values[:, 3:], scalar_first=True)
        flight = _flight(p, r)
        position, velocity = _ballistic(t[:flight], p[:flight])
        if flight < 3:
            velocity = np.asarray(twist.values[0, :3], float)
        quat, spin = _tumble(t[:flight], r[:flight], np.asarray(twist.values[: max(flight, 1), 3:], float))
        start = {"cube": (np.concatenate([position, quat]), np.concatenate([velocity, spin]))}
        return Replay(name, "toss", start, np.zeros(1), np.zeros((1, 0)), {}, t, p)

    def folds(self, replays: Sequence[Replay]) -> list[Fold]:
        """60 tosses to fit and 200 others to score, drawn by number; fewer recordings are split in proportion."""
        by_number = sorted(replays, key=lambda r: int(r.name.split()[1]))
        order = [by_number[i].name for i in np.random.default_rng(0).permutation(len(by_number))]
        train = min(60, max(1, round(len(order) * 0.25)))
        return [Fold("other tosses", tuple(order[:train]), tuple(order[train : train + 200]))]


class SpringCube(TossedCube):
    """The same recordings with the contact as a spring and a damper; for fits on other engines."""

    name = "tossed-cube-spring"
    scene = Scene("tossed-cube", SPRING_MODEL, SPRING, assumptions={"timestep": 1 / 592, "cone": "elliptic"})
    levels = (tuple(p.path for p in SPRING),)


def _flight(p: Array, r: Rotation) -> int:
    """Number of leading frames without contact; at least 1."""
    corners = _HALF * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    lowest = np.einsum("nj,cj->nc", r.as_matrix()[:, 2], corners).min(axis=1) + p[:, 2]
    touching = np.flatnonzero(lowest < _CLEARANCE)
    return max(1, int(touching[0]) if len(touching) else len(p))


def _ballistic(t: Array, p: Array) -> tuple[Array, Array]:
    """Position and velocity at time 0 of the parabola through p, each (3,); zero velocity when too few frames."""
    if len(t) < 3:
        return p[0], np.zeros(3)
    fall = p - 0.5 * _GRAVITY * t[:, None] ** 2
    x, *_ = np.linalg.lstsq(np.stack([np.ones_like(t), t], axis=1), fall, rcond=None)
    return x[0], x[1]


def _tumble(t: Array, r: Rotation, spin: Array) -> tuple[Array, Array]:
    """Orientation (wxyz) at time 0 and angular velocity in the body frame of the steady tumble through r.

    A cube's inertia is isotropic, so its angular velocity is constant in flight: R(t) = R0 exp(w t). Gauss-Newton on
    the rotation vectors between model and measurement.
    """
    r0, w = r[0], np.median(spin[1:] if len(spin) > 1 else spin, axis=0)
    for _ in range(8 if len(t) >= 3 else 0):
        turned = t[:, None] * w
        steady = Rotation.from_rotvec(turned)
        # The error in the frame of R0 is d0 + J(w t) t dw, with J the left Jacobian of the exponential map.
        error = steady.apply(((r0 * steady).inv() * r).as_rotvec())
        design = np.concatenate([np.tile(np.eye(3), (len(t), 1, 1)), t[:, None, None] * _jacobian(turned)], axis=2)
        x, *_ = np.linalg.lstsq(design.reshape(-1, 6), error.ravel(), rcond=None)
        r0, w = r0 * Rotation.from_rotvec(x[:3]), w + x[3:]
    return r0.as_quat(scalar_first=True), w


def _jacobian(v: Array) -> Array:
    """Left Jacobian of the exponential map at rotation vectors v (n, 3): (n, 3, 3)."""
    angle = np.maximum(np.linalg.norm(v, axis=1), 1e-6)[:, None, None]
    cross = np.zeros((len(v), 3, 3))
    cross[:, [2, 0, 1], [1, 2, 0]], cross[:, [1, 2, 0], [2, 0, 1]] = v, -v
    return np.eye(3) + (1 - np.cos(angle)) / angle**2 * cross + (angle - np.sin(angle)) / angle**3 * cross @ cross
