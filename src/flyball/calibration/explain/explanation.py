"""What is answered. In: what the explainer found. Out: an ``Explanation``, as plain data and as lines of text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flyball.calibration.explain.case import Failure
from flyball.calibration.explain.counterfactual import Change, MarginMap
from flyball.calibration.explain.crash import CrashTest
from flyball.scenes import Variation

START, POLICY, REST = "start", "policy", "calibration"
"""Causes that are no parameter: where it began, which policy acted, many small deviations together."""


@dataclass(frozen=True)
class Cause:
    """One deviation and its part in the failure.

    Attributes:
      path: a parameter of the scene, ``told:NAME``, ``start``, ``policy`` or ``calibration``.
      label: for people.
      share: Shapley's value: how much success putting it back brings, averaged over the posterior.
      actual, believed: medians (NaN where it is no single number).
      sigma: size of the deviation over the calibration's own spread (NaN where there is none).
      relative: whether it is judged by ratio.
    """

    path: str
    label: str
    share: float
    actual: float = float("nan")
    believed: float = float("nan")
    sigma: float = float("nan")
    relative: bool = False

    def text(self) -> str:
        """E.g. ``object.friction 34% below what was believed (0.5 -> 0.33)``."""
        if not np.isfinite(self.actual):
            return self.label
        side = "below" if self.actual < self.believed else "above"
        off = self.actual / self.believed - 1 if self.relative else self.actual - self.believed
        size = f"{abs(off):.0%}" if self.relative else f"{abs(off):.3g}"
        values = f"({self.believed:.3g} -> {self.actual:.3g})"
        if self.path.startswith("told:"):
            return f"{self.label} {size} too {'low' if side == 'below' else 'high'} {values}"
        return f"{self.path} {size} {side} what was believed {values}"


@dataclass(frozen=True)
class Explanation:
    """Why an attempt failed.

    Attributes:
      task, failure: what failed, how and when.
      verdict: ``explained``, ``not reproduced`` or ``cannot tell``.
      sentence: the answer.
      alike: share of replays that fail alike; misfit, parted_s: see ``causes.Found``.
      foreign: share of control periods with commands that are not the policy's.
      fails: share of the worlds in which the policy fails again in closed loop.
      causes: by share, greatest first.
      changes: least changes, what can be acted on first, each by size.
      retold: share of the worlds in which the policy succeeds when told what these worlds are like.
      others: other policy -> share of the worlds in which it succeeds.
      margin: success over the best lever and the cause; None when not drawn.
      crash: the failure as a file; None unless explained.
      variations: where to train.
      attempts: simulated attempts; steps: simulated control periods; seconds: spent.
    """

    task: str
    failure: Failure
    verdict: str
    sentence: str
    alike: float = float("nan")
    misfit: float = float("nan")
    parted_s: float = float("nan")
    foreign: float = 0.0
    fails: float = float("nan")
    causes: tuple[Cause, ...] = ()
    changes: tuple[Change, ...] = ()
    retold: float = float("nan")
    others: Mapping[str, float] = field(default_factory=dict)
    margin: MarginMap | None = None
    crash: CrashTest | None = None
    variations: tuple[Variation, ...] = ()
    attempts: int = 0
    steps: int = 0
    seconds: float = 0.0

    @property
    def cause(self) -> str:
        """The first-named cause; the verdict where there is none."""
        return self.causes[0].path if self.verdict == "explained" and self.causes else self.verdict

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict."""
        m = self.margin
        shown = m and {
            "x": {"path": m.x.path, "label": m.x.label, "unit": m.x.unit, "scale": m.x.scale, "values": m.xs.tolist()},
            "y": {"path": m.y.path, "label": m.y.label, "unit": m.y.unit, "scale": m.y.scale, "values": m.ys.tolist()},
            "share": m.share.tolist(),
            "at": list(m.at),
        }
        plain = {k: v for k, v in vars(self).items() if k not in ("margin", "crash", "variations")}
        return plain | {
            "failure": vars(self.failure),
            "cause": self.cause,
            "causes": [vars(c) for c in self.causes],
            "changes": [{**vars(c), "text": c.text()} for c in self.changes],
            "margin": shown,
        }

    def lines(self) -> list[str]:
        """For a terminal."""
        first = f" ({self.failure.first} first)" if self.failure.first != self.failure.group else ""
        out = [f"{self.failure.group}{first} at {self.failure.at_s:.2f} s: {self.sentence}"]
        if np.isfinite(self.alike):
            out.append(
                f"  replays that fail alike {self.alike:.0%}, course of the log {self.misfit:.2f} of what is allowed"
            )
        for c in self.causes:
            out.append(f"  share {c.share:5.0%}  {c.text()}")
        for x in self.changes:
            mark = "" if x.actionable else "  (given)"
            out.append(
                f"  {x.text():>24}  {x.path}: {x.before:.4g} -> {x.after:.4g} {x.unit}, flips {x.flips:.0%}{mark}"
            )
        if np.isfinite(self.retold):
            out.append(f"  told what these worlds are like, it succeeds in {self.retold:.0%}")
        out += [f"  {name} succeeds in {share:.0%}" for name, share in self.others.items()]
        out.append(f"  {self.attempts} simulated attempts, {self.steps} control periods, {self.seconds:.0f} s")
        return out
