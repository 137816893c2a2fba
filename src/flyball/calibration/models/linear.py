"""Replays and their derivatives: what every recording says about the parameters, near one vector of them.

In: a ``ReplayProblem``, who owns which parameter, vectors on the unit cube of the parameters' scales. Out: per
recording the gradient and the Gauss-Newton Hessian of a robust cost. All perturbed models are worlds of one rollout,
and one that changes a parameter of a recording or of a robot changes it for every recording and robot at once.

Three coordinate systems: ``values`` in the parameters' units; ``local``, the unit cube of one recording's p parameters;
``u``, all unknowns, (P,): parameters of the type first, then how far each robot is from its type, then those of single
recordings. A recording's local vector is linear in u.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.fit import STEP, from_unit
from flyball.calibration.problem import Replay, ReplayProblem
from flyball.scenes import Parameter

Array = NDArray[np.float64]

ROBUST = 4.0
"""Residuals of so many standard deviations begin to count less (pseudo-Huber)."""
PRIOR_SD = 0.29
"""Of a uniform distribution on [0, 1]."""
TAU = 0.1
"""How far robots of a kind are from one another before anything is known, on the unit cube."""
_COARSEST = 0.0101
_CONTRACTION = 0.5


@dataclass
class Owners:
    """Who owns which parameter.

    Attributes:
      design: unknowns -> a recording's local vector, (e, p, P).
      centre, precision: of the prior, (P,).
      names: of every unknown: path, robot, recording; "" where it is not one's own.
    """

    design: Array
    centre: Array
    precision: Array
    names: tuple[tuple[str, str, str], ...]

    def local(self, u: Array) -> Array:
        """Local vectors within the cube, (..., P) -> (..., e, p)."""
        return np.clip(np.einsum("epg,...g->...ep", self.design, u), 0.0, 1.0)

    @property
    def deviations(self) -> NDArray[np.bool_]:
        """Which unknowns are deviations of a robot from its type, (P,)."""
        return np.array([bool(robot) for _, robot, _ in self.names])


def owners(parameters: Sequence[Parameter], replays: Sequence[Replay], centre: Array) -> Owners:
    """Unknowns of these recordings.

    Args:
      centre: of the prior of each parameter, on the unit cube, (p,).
    """
    robots = list(dict.fromkeys(r.robot for r in replays))
    names: list[tuple[str, str, str]] = []
    names += [(p.path, "", "") for p in parameters if p.owner != "episode"]
    if len(robots) > 1:
        names += [(p.path, robot, "") for robot in robots for p in parameters if p.owner == "robot"]
    names += [(p.path, "", r.name) for r in replays for p in parameters if p.owner == "episode"]
    design = np.zeros((len(replays), len(parameters), len(names)))
    at = {p.path: j for j, p in enumerate(parameters)}
    middle, precision = np.zeros(len(names)), np.full(len(names), PRIOR_SD**-2)
    for g, (path, robot, recording) in enumerate(names):
        mine = [(not robot or r.robot == robot) and (not recording or r.name == recording) for r in replays]
        design[mine, at[path], g] = 1.0
        middle[g] = 0.0 if robot else centre[at[path]]
        if robot:
            precision[g] = TAU**-2
    return Owners(design, middle, precision, tuple(names))


@dataclass(frozen=True)
class Linear:
    """Everything at one vector of unknowns.

    Attributes:
      u: (P,).
      predicted: (samples, size).
      slope: derivative of the prediction by a recording's own local vector, (samples, size, p).
      hessian, gradient: of each cluster's cost by u, (c, P, P), (c, P); the prior is not in them.
      scale: standard deviation of what is left, per element of the signal, (size,).
      cost: of all recordings, without the prior.
    """

    u: Array
    predicted: Array
    slope: Array
    hessian: Array
    gradient: Array
    scale: Array
    cost: float


class Replays:
    """Recordings to linearise.

    Args:
      problem: with the step of the model.
      cluster: of every sample, (samples,): samples of one may err together.
    """

    def __init__(self, problem: ReplayProblem, own: Owners, cluster: NDArray[np.int_]) -> None:
        self.problem, self.own, self.cluster = problem, own, cluster
        self.parameters = problem.parameters
        self.episode = problem.episode
        self.weight = once_each(problem.measured, problem.episode)
        self._factor = 1
        self._problems = {1: problem}

    def values(self, u: Array) -> Array:
        """Parameter values of every recording, (..., e, p)."""
        return from_unit(self.parameters, self.own.local(u))

    def predict(self, u: Array) -> Array:
        """Predictions of k vectors of unknowns, (k, P) -> (k, samples, size)."""
        return self.problem.predict(self.values(np.atleast_2d(u)))

    def coarsen(self, u: Array) -> None:
        """Take derivatives with the largest step that still leads to the optimum of the model's own step.

        With derivatives J of the residuals but J' of the model, Gauss-Newton shrinks an error e to
        (J'^T J' + P)^-1 J'^T (J' - J) e, P the prior in units of what is left; the norm of that must not exceed
        ``_CONTRACTION``. Judged by the first recording.
        """
        problem = replace(self.problem, replays=self.problem.replays[:1])
        local = self.own.local(u)[:1]
        predicted = problem.predict(from_unit(self.parameters, local[None]))[0]
        left = np.nan_to_num(predicted - problem.measured, nan=1e3)
        scale = np.maximum(1.4826 * np.median(np.abs(left), axis=0), problem.compared.noise)
        exact = (_slope(problem, self.parameters, local) / scale[:, None]).reshape(-1, local.shape[1])
        self.problem.steps, problem.steps = self.problem.steps + problem.steps, 0
        self._factor = 1
        for factor in self._factors():
            coarse = replace(problem, timestep=factor * self.problem.step_s)
            j = (_slope(coarse, self.parameters, local) / scale[:, None]).reshape(exact.shape)
            self.problem.steps += coarse.steps
            prior = PRIOR_SD**-2 / len(self.problem.replays)
            root = np.linalg.inv(np.linalg.cholesky(j.T @ j + prior * np.eye(j.shape[1])))
            if np.linalg.norm(root @ (j.T @ (j - exact)) @ root.T, 2) <= _CONTRACTION:
                self._factor = factor
                return

    def refine(self) -> bool:
        """Halve the step of the derivatives; whether that was possible."""
        possible = self._factor > 1
        self._factor = max(1, self._factor // 2)
        return possible

    def predict_roughly(self, u: Array) -> Array:
        """``predict`` with the largest step."""
        return self._coarse(np.atleast_2d(u), (*self._factors(), 1)[0])

    def climbs(self, at: Linear, step: float) -> Array:
        """By how much the cost rises when one unknown is moved by a step down and up, the others kept, (2, P).

        Infinite where there is no room. The largest step of the engine tells what changes.
        """
        n = len(at.u)
        moved = np.concatenate([at.u + sign * step * np.eye(n) for sign in (-1, 1)])
        room = (moved >= np.where(self.own.deviations, -1.0, 0.0)) & (moved <= 1)
        tracks = self.predict_roughly(np.concatenate([at.u[None], moved]))
        costs = self.cost(at.predicted + tracks[1:] - tracks[0], at.scale) - at.cost
        return np.asarray(np.where(room.all(axis=1), costs, np.inf).reshape(2, n))

    def _factors(self) -> list[int]:
        return [f for f in (16, 8, 4, 2) if f * self.problem.step_s <= _COARSEST]

    def _coarse(self, u: Array, factor: int) -> Array:
        """Predictions of unknowns with a multiple of the step."""
        problem = self._at(factor)
        out = problem.predict(self.values(u))
        self._count(problem)
        return out

    def _at(self, factor: int) -> ReplayProblem:
        """The problem with a multiple of its step."""
        if factor not in self._problems:
            self._problems[factor] = replace(self.problem, timestep=factor * self.problem.step_s)
        return self._problems[factor]

    def _count(self, problem: ReplayProblem) -> None:
        if problem is not self.problem:
            self.problem.steps, problem.steps = self.problem.steps + problem.steps, 0

    def scale(self, predicted: Array) -> Array:
        """Spread of what is left, per element, not below the sensor's noise, (size,)."""
        left = np.abs(predicted - self.problem.measured)
        return np.maximum(1.4826 * np.median(left, axis=0), 0.8 * self.problem.compared.noise)

    def cost(self, predicted: Array, scale: Array) -> Array:
        """Robust cost of predictions, (k, samples, size) -> (k,)."""
        x = (np.nan_to_num(predicted, nan=1e3) - self.problem.measured) / (scale * ROBUST)
        return np.asarray((self.weight * ROBUST**2 * (np.sqrt(1 + np.minimum(x * x, 1e12)) - 1)).sum(axis=(1, 2)))

    def linearise(self, u: Array, predicted: Array) -> Linear:
        """Derivatives at u, whose predictions are known, (samples, size)."""
        problem = self._at(self._factor)
        slope = _slope(problem, self.parameters, self.own.local(u))
        self._count(problem)
        return self.weigh(u, predicted, slope)

    @property
    def worth(self) -> int:
        """So many steps may be tried with the same derivatives: they cost a quarter of new ones."""
        return max(1, len(self.parameters) // (4 * self._factor))

    def secant(self, at: Linear, u: Array, predicted: Array) -> Array:
        """The slopes, changed as little as explains the predictions at another vector (Broyden's update)."""
        moved = (self.own.local(u) - self.own.local(at.u))[self.episode]
        length = np.maximum((moved**2).sum(axis=1), 1e-12)
        change = np.nan_to_num(predicted, nan=1e3) - at.predicted - np.einsum("nsp,np->ns", at.slope, moved)
        return np.asarray(at.slope + np.einsum("ns,np->nsp", change, moved / length[:, None]))

    def weigh(self, u: Array, predicted: Array, slope: Array) -> Linear:
        """Gradient and Hessian of every cluster."""
        scale = self.scale(predicted)
        left = (np.nan_to_num(predicted, nan=1e3) - self.problem.measured) / scale
        weight = self.weight / np.sqrt(1 + (left / ROBUST) ** 2)
        own, n = self.own, int(self.cluster.max()) + 1
        unknowns = own.design.shape[2]
        hessian, gradient = np.zeros((n, unknowns, unknowns)), np.zeros((n, unknowns))
        for c in range(n):
            rows = self.cluster == c
            design = own.design[self.episode[rows][0]]
            j = (slope[rows] / scale[:, None]).reshape(-1, design.shape[0])
            w, r = weight[rows].ravel(), left[rows].ravel()
            hessian[c] = design.T @ ((j * w[:, None]).T @ j) @ design
            gradient[c] = design.T @ (j.T @ (w * r))
        return Linear(u, predicted, slope, hessian, gradient, scale, float(self.cost(predicted[None], scale)[0]))


def once_each(measured: Array, episode: NDArray[np.int64]) -> Array:
    """Weights by which equal readings in a row count once, (samples, size).

    What the steps of an encoder hide of a joint that stands still is the same in every sample.
    """
    out = np.empty(measured.shape)
    for j, x in enumerate(measured.T):
        starts = np.concatenate([[True], (np.diff(x) != 0) | (np.diff(episode) != 0)])
        run = np.cumsum(starts) - 1
        out[:, j] = 1 / np.bincount(run)[run]
    return out


def _slope(problem: ReplayProblem, parameters: Sequence[Parameter], local: Array) -> Array:
    """Derivative of predictions by every recording's local vector (e, p), (samples, size, p)."""
    p = local.shape[1]
    sign = np.where(local + STEP <= 1, STEP, -STEP)
    moved = np.repeat(local[None], p + 1, axis=0)
    moved[1 + np.arange(p), :, np.arange(p)] += sign.T
    tracks = problem.predict(from_unit(parameters, moved))
    slope = np.ascontiguousarray(np.moveaxis(tracks[1:] - tracks[0], 0, -1)) / sign[problem.episode][:, None, :]
    return np.asarray(np.nan_to_num(slope, nan=0.0, posinf=0.0, neginf=0.0))


def clusters(problem: ReplayProblem, least: int = 8) -> NDArray[np.int_]:
    """Which samples may err together, (samples,): those of a recording, or of a stretch where recordings are few."""
    e = len(problem.replays)
    parts = max(1, int(np.ceil(least / e)))
    ends = np.array([r.t[-1] for r in problem.replays])[problem.episode]
    part = np.minimum((parts * problem.elapsed / np.maximum(ends, 1e-9)).astype(int), parts - 1)
    return np.asarray(np.unique(problem.episode * parts + part, return_inverse=True)[1])
