"""The calibration of a scene: what recordings say about its parameters, and how far that can be trusted.

In: joint samples, held-out errors. Out: one document, to and from JSON, and the scene that carries the samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, cast, get_args

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, Refused, digest_of
from flyball.base.config import from_plain
from flyball.scenes import JointSamples, Parameter, Scene, Variation

Array = NDArray[np.float64]
Verdict = Literal["improved", "no improvement", "not identifiable", "wrong model"]

IDENTIFIED = 1 / 3
"""A parameter is identified when its 90 % band is at most this share of its prior's width, on its own scale."""
GAIN = 0.05
"""Held-out error must fall by at least this share to count as improved, and may rise by no more in any fold."""


@dataclass(frozen=True)
class ParameterRow:
    """What is known of one parameter.

    Attributes:
      path, unit: of the parameter.
      mean, low, high: mean and 90 % band of the joint samples.
      prior_low, prior_high: range before any recording.
      identified: by the rule ``IDENTIFIED``.
      note: why not, or what to mind.
    """

    path: str
    unit: str
    mean: float
    low: float
    high: float
    prior_low: float
    prior_high: float
    identified: bool
    note: str = ""


@dataclass(frozen=True)
class FoldError:
    """Error on one held-out group of recordings.

    Attributes:
      name: what was held out.
      before: with nominal parameters.
      after: fitted to the other recordings.
      train: on those other recordings.
      coverage: share of the held-out samples within 90 % bands that those other recordings gave.
    """

    name: str
    before: float
    after: float
    train: float
    coverage: float = 0.0


@dataclass(frozen=True)
class HeldOut:
    """Held-out error, open-loop replay of whole recordings.

    Attributes:
      unit: of all errors.
      folds: one per held-out group.
      before, after: means over folds.
      low, high: 90 % interval of ``after``, bootstrap over recordings.
      coverage: share of held-out samples within the 90 % bands of their fold.
      widened: factor on the spread of the joint samples of the answer.
      discrepancy: what the bands add to that on either side, mean over time: error that no parameter explains.
      noise_floor: error of a perfect model, from the noise of the sensor alone.
    """

    unit: str
    folds: tuple[FoldError, ...]
    before: float
    after: float
    low: float
    high: float
    coverage: float
    widened: float
    discrepancy: float
    noise_floor: float = 0.0


@dataclass(frozen=True)
class Calibration:
    """A fitted scene.

    Attributes:
      rig: what was calibrated: name of a rig or a robot.
      scene: digest of the scene without variations.
      paths: parameters fitted.
      samples: joint samples, (m, len(paths)).
      best: the best fit to all training recordings, (len(paths),). Samples are wider on purpose.
      parameters: one row per path.
      held_out: error before and after.
      verdict: ``improved``; ``no improvement``: it does not carry over to held-out recordings; ``not identifiable``: no
        parameter is; ``wrong model``: no setting explains even the recordings that were fitted.
      notes: what to mind, and what to record next.
      seed: of everything random.
      engine: name and version.
      steps: substeps simulated.
      data: digests of the episodes.
    """

    rig: str
    scene: str
    paths: tuple[str, ...]
    samples: Array
    best: Array
    parameters: tuple[ParameterRow, ...]
    held_out: HeldOut
    verdict: Verdict
    notes: tuple[str, ...]
    seed: int
    engine: str
    steps: int
    data: tuple[str, ...]

    @property
    def variation(self) -> JointSamples:
        """The joint samples as a distribution."""
        return JointSamples(self.paths, self.samples)

    @property
    def digest(self) -> str:
        """Identity of the calibration."""
        return digest_of(self.to_json())

    def apply(self, scene: Scene) -> Scene:
        """The scene with the fitted distribution; it overrides earlier variations of the same parameters.

        Raises:
          Refused: it was fitted to another scene.
        """
        if scene_digest(scene) != self.scene:
            raise Refused(
                f"the calibration of {self.rig} was fitted to another scene",
                where=f"scene {scene.name}",
                allowed=self.scene[:12],
                run_next="flyball calibrate",
            )
        return replace(scene, variations=(*scene.variations, cast(Variation, self.variation)))

    def to_json(self) -> dict[str, Any]:
        """JSON-able data; ``from_json`` is the inverse."""
        return asdict(self) | {"samples": self.samples.tolist(), "best": self.best.tolist()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, where: str = "calibration") -> Calibration:
        """Inverse of ``to_json``.

        Raises:
          Damaged: not a calibration.
        """
        try:
            samples, best = np.array(data["samples"], float), np.array(data["best"], float)
            plain = {k: v for k, v in data.items() if k not in ("samples", "best", "parameters", "held_out")}
            out = cls(
                **plain
                | {
                    "paths": tuple(data["paths"]),
                    "notes": tuple(data["notes"]),
                    "data": tuple(data["data"]),
                    "samples": samples,
                    "best": best,
                    "parameters": tuple(from_plain(ParameterRow, r, where=where) for r in data["parameters"]),
                    "held_out": from_plain(HeldOut, data["held_out"], where=where),
                }
            )
        except (KeyError, TypeError, ValueError) as err:
            raise Damaged(f"not a calibration ({err})", where=where) from err
        if out.verdict not in get_args(Verdict) or samples.shape != (len(samples), len(out.paths)):
            raise Damaged("not a calibration", where=where, allowed=", ".join(get_args(Verdict)))
        return out

    def lines(self) -> list[str]:
        """The document for people: verdict, held-out error, table of parameters, notes."""
        h = self.held_out
        out = [
            f"{self.rig}: {self.verdict}",
            f"held-out error {_short(h.before)} -> {_short(h.after)} {h.unit}, "
            f"90 % interval {_short(h.low)} to {_short(h.high)}; noise floor {_short(h.noise_floor)}",
            *(
                f"  {f.name}: {_short(f.before)} -> {_short(f.after)} (fitted: {_short(f.train)}),"
                f" {f.coverage:.0%} within the bands"
                for f in h.folds
            ),
            f"  {h.coverage:.0%} of held-out samples lie within the 90 % bands, made without them"
            + (f"; samples widened {h.widened:g} times" if h.widened > 1 else "")
            + (f"; {_short(h.discrepancy)} {h.unit} added for the model's own error" if h.discrepancy > 0 else ""),
        ]
        cells = [("parameter", "best", "90 % band", "prior", "", "")]
        for row, best in zip(self.parameters, self.best, strict=True):
            cells.append(
                (
                    row.path,
                    _short(best),
                    f"{_short(row.low)} to {_short(row.high)}",
                    f"{_short(row.prior_low)} to {_short(row.prior_high)} {row.unit}".strip(),
                    "identified" if row.identified else "not identified",
                    row.note,
                )
            )
        width = [max(len(c[i]) for c in cells) for i in range(len(cells[0]))]
        out += ["  ".join(c.ljust(w) for c, w in zip(row, width, strict=True)).rstrip() for row in cells]
        return [*out, *self.notes]


def scene_digest(scene: Scene) -> str:
    """Identity of a scene apart from its variations."""
    return replace(scene, variations=()).digest


def describe(parameters: Sequence[Parameter], samples: Array, silent: Sequence[str] = ()) -> tuple[ParameterRow, ...]:
    """One row per parameter from joint samples.

    Args:
      parameters: one per column.
      samples: (m, p).
      silent: paths that the recordings do not react to.

    Returns:
      Rows with 5 % and 95 % quantiles, the identification rule and a note.
    """
    unit = np.stack([p.to_unit(samples[:, j]) for j, p in enumerate(parameters)], axis=1)
    low, high = np.quantile(unit, [0.05, 0.95], axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        related = np.nan_to_num(np.corrcoef(unit, rowvar=False).reshape(len(parameters), -1)) - np.eye(len(parameters))
    rows = []
    for j, p in enumerate(parameters):
        identified = bool(high[j] - low[j] <= IDENTIFIED) and p.path not in silent
        partner = int(np.argmax(np.abs(related[j])))
        note = ""
        if p.path in silent:
            note = "not excited: the recordings do not react to it"
        elif not identified and abs(related[j, partner]) >= 0.7:
            note = f"only in combination with {parameters[partner].path}"
        elif low[j] <= 0.01 or high[j] >= 0.99:
            note = "at the bound of its prior"
        a, b = float(p.from_unit(low[j])), float(p.from_unit(high[j]))
        mean = float(samples[:, j].mean())
        rows.append(ParameterRow(p.path, p.unit, mean, a, b, p.low, p.high, identified, note))
    return tuple(rows)


def _short(x: float) -> str:
    return f"{x:.3g}"
