"""What is said of each parameter: the rows of the report.

In: a fitted level with its posterior. Out: one ``ParameterRow`` per parameter, and those that the fit left on a bound.
"""

from __future__ import annotations

import numpy as np

from flyball.calibration.calibration import ParameterRow
from flyball.calibration.models.learning import Level
from flyball.calibration.models.posterior import WIDEST

_TAIL = 1.645
_PRESSED = 3.0
"""A bound is pressed when the cost falls beyond it by more than so many standard deviations' worth of noise."""
_ABSENT, _LITTLE = ("friction", "damping", "armature", "drive_damping", "delay", "mass"), 0.01
"""What may be absent from a robot is so at a lower bound of this share of the upper, which no wider range mends."""


def rows_of(level: Level, robot: str = "") -> tuple[ParameterRow, ...]:
    """One row per parameter, of a robot or of the type; of those of single recordings, of the first."""
    own, post = level.replays.own, level.posterior
    first = {path: g for g, (path, _, _) in reversed(list(enumerate(own.names)))}
    among = list(first.values())
    rows = []
    for p in level.replays.parameters:
        g = first[p.path]
        deviation = [k for k, name in enumerate(own.names) if name == (p.path, robot, "")] if robot else []
        each = [g, *deviation]
        at = float(np.clip(post.u[each].sum(), 0, 1))
        sd = float(np.sqrt(post.covariance[np.ix_(each, each)].sum()))
        low, high = np.clip([at - _TAIL * sd, at + _TAIL * sd], 0, 1)
        identified, note = bool(sd <= WIDEST and not post.open[g]), ""
        if not identified:
            if post.open[g] and sd <= WIDEST:
                note = "not excited: the recordings bound it on one side only"
            elif post.hidden(g):
                note = "not told: the model's own error hides it"
            elif not post.excited(g):
                note = "not excited: the recordings do not react to it"
            else:
                with_ = [own.names[k][0] for k in post.partners(g, among)]
                note = f"only in combination with {', '.join(with_)}" if with_ else "not identified by these recordings"
        elif low <= 0.01 or high >= 0.99:
            note = "at the bound of its prior"
        best, lowest, highest = (float(p.from_unit(x)) for x in (at, low, high))
        rows.append(ParameterRow(p.path, p.unit, best, lowest, highest, p.low, p.high, identified, note))
    return tuple(rows)


def pressed(level: Level) -> list[str]:
    """Parameters that the fit left on a bound which the recordings want to leave."""
    own, post, at = level.replays.own, level.posterior, level.fitted.at
    gradient = at.gradient.sum(axis=0)
    spread = np.sqrt(np.maximum(np.diag(at.hessian.sum(axis=0)), 1e-12))
    out = []
    absent = {
        p.path
        for p in level.replays.parameters
        if p.path.rpartition(".")[2] in _ABSENT and 0 <= p.low <= _LITTLE * p.high
    }
    for g, (path, _, _) in enumerate(own.names):
        if path in absent and gradient[g] > 0:
            continue
        if not level.fitted.free[g] and post.excited(g) and abs(gradient[g]) > _PRESSED * spread[g]:
            out.append(path)
    return list(dict.fromkeys(out))
