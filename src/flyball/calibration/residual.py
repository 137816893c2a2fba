"""What one more episode says about a calibrated robot: signed numbers that are sensitive to wear, for ``drift``.

In: a calibration, and an episode of a recorded set-up or logged attempts of a task's robot. Out: per parameter its
one-step shift, per joint that of all its friction together, and the replay error for everything that is no parameter.

Method: the episode is replayed open loop at the calibrated values and with every parameter a little up and down. The
shift is one Gauss-Newton step of all parameters together, on the unit cube of their scales, towards a prior as wide as
their ranges. All together, because wear of one parameter is felt in all others that act alike: alone, 20 % more
friction looks like other damping, torque and delay, and their ordinary scatter hides it. What the model has wrong
appears as an offset that is the same before and after a change; only the change counts.

Where motions differ from episode to episode that offset differs too, and hides a change. So the commonest wear has a
matched filter of its own: all friction of a joint (Coulomb, of the drive, of the load) grows by one factor, all else
stays. One direction that moves much, instead of many that trade with each other: on 16 recordings of a real servo in
four motions it scatters by 12 % of the friction within a gain, the shift of the Coulomb friction alone by 110 %
(``benchmarks/drift.py real``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Refused
from flyball.calibration.calibration import Calibration, scene_digest
from flyball.calibration.fit import from_unit, to_unit
from flyball.calibration.fleet import Fitted
from flyball.calibration.problem import Replay, ReplayProblem
from flyball.calibration.rigs import Rig
from flyball.scenes import Parameter
from flyball.tasks import Task
from flyball.tasks.task import Values
from flyball.tasks.world import Attempts, World

Array = NDArray[np.float64]

REPLAY_ERROR = "replay error"
"""Name of the stream that is no parameter: logarithm of the error of the replay at the calibrated values."""
RISE = 1.2
"""Factor on a joint's friction whose effect is looked for."""
STEP = 0.02
"""Step of the differences on the unit cube, about the change that is looked for: friction is rough on smaller ones."""
MODEL = 0.01
"""What a task's scene is trusted to explain of a signal, but for this share of its spread."""
PRIOR = 12**-0.5
"""Standard deviation of the prior on the unit cube: that of the uniform distribution."""


@dataclass(frozen=True)
class Residual:
    """Of one episode.

    Attributes:
      streams: the parameters' paths, joints' friction (see ``frictions``), and ``REPLAY_ERROR`` last.
      values: shifts of parameters on the unit cube, logarithms of the factors on friction and of the replay error,
        (streams,).
      duration_s: of the episode [s].
      regime: what it may be compared with.
    """

    streams: tuple[str, ...]
    values: Array
    duration_s: float
    regime: str


def recording_residuals(
    rig: Rig, calibration: Calibration, replays: Sequence[Replay], *, threads: int = 1
) -> list[Residual]:
    """Residuals of recordings of a set-up under its calibration, one each.

    Raises:
      Refused: the calibration is of another scene.
    """
    if calibration.scene != scene_digest(rig.scene):
        raise Refused(
            f"the calibration of {calibration.rig} was fitted to another scene", where=rig.name,
            allowed=calibration.scene[:12], run_next="flyball calibrate",
        )  # fmt: skip
    problem = ReplayProblem(
        rig.scene, rig.compared, replays, calibration.paths, engine=rig.engine, threads=threads, stride=rig.stride,
        unit_size=rig.unit_size,
    )  # fmt: skip
    ps = problem.parameters
    together = frictions(calibration.paths)
    rubbed = np.repeat(calibration.best[None], len(together), axis=0)
    for row, members in zip(rubbed, together.values(), strict=True):
        row[[calibration.paths.index(p) for p in members]] *= RISE
    around = from_unit(ps, _around(to_unit(ps, calibration.best)))
    residuals = problem.residuals(np.concatenate([around, rubbed]))
    episode = problem.groups["episode"]
    steps = _steps(ps, to_unit(ps, calibration.best))
    out = []
    for replay in replays:
        r = residuals[:, episode == replay.name]
        found = _residual(calibration.paths, r[: len(around)], steps, float(replay.t[-1]), replay.regime)
        factors = [_factor(r[0], worse) for worse in r[len(around) :]]
        streams = (*calibration.paths, *together, REPLAY_ERROR)
        out.append(replace(found, streams=streams, values=np.insert(found.values, len(ps), factors)))
    return out


def frictions(paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Streams of all friction of a joint: name -> its parameters, which are 0 without friction."""
    found: dict[str, list[str]] = {}
    for path in paths:
        joint, _, kind = path.rpartition(".")
        if kind.endswith("friction"):
            found.setdefault(f"{joint}: all friction", []).append(path)
    return {name: tuple(members) for name, members in found.items()}


def attempt_residuals(
    task: Task, fitted: Fitted, logged: Attempts, *, regimes: Sequence[str] | None = None, threads: int = 1
) -> list[Residual]:
    """Residuals of logged attempts of a task's robot under its calibration, one each.

    Where something slips in the log and holds in the replay, the two part for good. So every sample counts the less the
    further any of the replays has been from the log so far: 1 / (1 + r^2), r in spreads of the signal.

    Args:
      fitted: the robot's calibration; its marginal medians are replayed.
      logged: complete attempts.
      regimes: per attempt, what it may be compared with, e.g. the release; the task's name when None.
    """
    ps = tuple(task.scene.parameter(p) for p in watched_paths(task, fitted))
    if not ps:
        raise InputError("the calibration has no parameter that moves a replay", where=task.name)
    samples = fitted.values()
    centre = np.array([float(np.median(p.to_unit(samples[p.path]))) for p in ps])
    units = _around(centre)
    full = task.scene.nominal(len(units)) | {k: np.full(len(units), np.median(v)) for k, v in samples.items()}
    full |= {p.path: cast(Array, p.from_unit(units[:, j])) for j, p in enumerate(ps)}
    world, steps = World(task, len(units), threads=threads), _steps(ps, centre)
    paths = tuple(p.path for p in ps)
    out = []
    for i in range(len(logged.events)):
        r = _weighed(task, world, full, {k: x[i : i + 1] for k, x in logged.signals.items()})
        out.append(_residual(paths, r, steps, task.horizon_s, task.name if regimes is None else regimes[i]))
    return out


def replay_errors(task: Task, fits: Sequence[Fitted], logged: Attempts, *, threads: int = 1) -> Array:
    """How well each of some calibrations of a robot replays its logged attempts, at its marginal medians.

    Returns:
      Root mean squares of scaled residuals, (fits, attempts); see ``attempt_residuals``. 1: sensor noise alone.
    """
    full = task.scene.nominal(len(fits))
    for i, fitted in enumerate(fits):
        for path, x in fitted.values().items():
            full[path][i] = np.median(x)
    world = World(task, len(fits), threads=threads)
    logs = ({k: x[i : i + 1] for k, x in logged.signals.items()} for i in range(len(logged.events)))
    return np.stack([np.sqrt((_weighed(task, world, full, real) ** 2).mean(axis=1)) for real in logs], axis=1)


def _weighed(task: Task, world: World, values: Values, real: Mapping[str, Array]) -> Array:
    """Scaled differences of replays with values (k,) from one log, signals (1, T, size), weighted as told above."""
    tiled = {k: np.repeat(x, world.n, axis=0) for k, x in real.items()}
    actions = np.concatenate([tiled[s.name] for s in task.embodiment.actions], axis=-1)
    replay = world.replay(values, actions, task.seen_starts(tiled, values))
    columns, off = [], np.zeros(actions.shape[1])
    for spec in task.embodiment.observations:
        y = real[spec.name][0]
        spread = y.std(axis=0)
        # A sensor says no more than its noise lets it, a model no more than a share of what there is to explain.
        scale = np.hypot(np.asarray(task.noise[spec.name]), MODEL * spread)
        apart = np.nan_to_num(replay.signals[spec.name] - y, nan=1e3, posinf=1e3, neginf=-1e3)
        columns.append(apart / np.maximum(scale, 1e-9))
        usual = np.maximum(spread, 5 * np.asarray(task.noise[spec.name]))
        off = np.maximum(off, ((apart / np.maximum(usual, 1e-9)) ** 2).mean(axis=2).max(axis=0))
    weight = 1 / np.sqrt(1 + np.maximum.accumulate(off))
    return (np.concatenate(columns, axis=2) * weight[:, None]).reshape(world.n, -1)


def watched_paths(task: Task, fitted: Fitted) -> tuple[str, ...]:
    """Parameters that move a replay: not thresholds of events, places where things start, or sensors' noise."""

    def moves(p: Parameter) -> bool:
        return any(not b.target.startswith(("event:", "start:")) and not b.target.endswith(".noise") for b in p.binds)

    return tuple(p for p in fitted.paths if moves(task.scene.parameter(p)))


def shifted(parameter: Parameter, calibrated: float, shift: float) -> float:
    """The value that a shift on the unit cube leads to from the calibrated one."""
    return float(parameter.from_unit(np.clip(parameter.to_unit(calibrated) + shift, 0.0, 1.0)))


def _around(centre: Array) -> Array:
    """The centre (p,), then every coordinate up, then down, on the unit cube, (1 + 2 p, p)."""
    moved = STEP * np.eye(len(centre))
    return np.clip(np.concatenate([centre[None], centre + moved, centre - moved]), 0.0, 1.0)


def _steps(parameters: Sequence[Parameter], centre: Array) -> Array:
    """Distance between up and down: less than 2 steps for a parameter on its bound, (p,)."""
    p = len(parameters)
    units = _around(centre)
    return np.einsum("jj->j", units[1 : 1 + p] - units[1 + p :]).copy()


def _residual(paths: Sequence[str], r: Array, steps: Array, duration_s: float, regime: str) -> Residual:
    """From scaled residuals r (1 + 2 p, m) at centre, up, down."""
    p = len(steps)
    slopes = (r[1 : 1 + p] - r[1 + p :]) / steps[:, None]
    variance = float(np.mean(r[0] ** 2)) + 1e-12
    # Most probable shift: noise as large as the residuals are, and a prior as wide as the parameter's range.
    shift = -np.linalg.solve(slopes @ slopes.T + variance / PRIOR**2 * np.eye(p), slopes @ r[0])
    return Residual((*paths, REPLAY_ERROR), np.append(shift, 0.5 * np.log(variance)), duration_s, regime)


def _factor(r: Array, worse: Array) -> float:
    """Logarithm of the factor on friction, one step, from scaled residuals (m,) as calibrated and at ``RISE``."""
    slope = (worse - r) / np.log(RISE)
    return -float(slope @ r / (slope @ slope + np.mean(r**2) + 1e-12))
