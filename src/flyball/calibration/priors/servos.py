"""Servos by part number.

In: a part number as makers write it. Out: ``ServoPrior``: torque and speed from the data sheet, published
identifications, and ranges for parameters that either allows. The table is ``servos.toml``.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np

from flyball.base import InputError, Missing

KGF_CM = 0.0980665
"""One kgf cm [N m]: standard gravity times a hundredth."""
FIT_SPREAD = 3.0
"""Either way of a published identification: refits of the same servo move friction and armature by 30 to 100 %, and
other specimens and loads by more."""
SHEET_SPREAD = 2.0
"""Either way of a data sheet's value, which is of a new servo, cold, at its voltage."""


@dataclass(frozen=True)
class OperatingPoint:
    """What a data sheet says at one supply voltage; NaN for what it does not say.

    Attributes:
      volts: [V].
      torque: at stall [N m]; most: the highest published one [N m].
      amperes: at stall [A].
      speed: without load [rad/s].
    """

    volts: float
    torque: float
    most: float
    amperes: float
    speed: float


@dataclass(frozen=True)
class PublishedFit:
    """An identification that somebody published, at the output.

    Attributes:
      armature: [kg m^2]; friction: Coulomb [N m]; damping: viscous [N m s/rad].
      torque_constant: [N m/A]; resistance: [ohm]; known better as a quotient than each.
      source: document and revision.
    """

    armature: float
    friction: float
    damping: float
    torque_constant: float
    resistance: float
    source: str


@dataclass(frozen=True)
class Range:
    """A prior for one parameter.

    Attributes:
      low, nominal, high: in ``unit``; all positive.
      source: where the nominal value is from.
    """

    low: float
    nominal: float
    high: float
    unit: str
    source: str


@dataclass(frozen=True)
class ServoPrior:
    """Facts about a servo.

    Attributes:
      part: number; also: other names; maker.
      gear_ratio, steps_per_turn, mass_kg: NaN or 0 where no source says.
      points: of the data sheet, by voltage.
      fits: published identifications.
      source, note: document that the facts are from; what to mind.
    """

    part: str
    maker: str
    also: tuple[str, ...]
    gear_ratio: float
    steps_per_turn: int
    mass_kg: float
    points: tuple[OperatingPoint, ...]
    fits: tuple[PublishedFit, ...]
    source: str
    note: str

    @property
    def encoder_step(self) -> float:
        """[rad]; NaN where no source says."""
        return 2 * np.pi / self.steps_per_turn if self.steps_per_turn else float("nan")

    def at(self, volts: float) -> OperatingPoint:
        """The data sheet at a voltage: between points linear, beyond them in proportion to the voltage, as for a motor
        with permanent magnets.

        Raises:
          InputError: no data sheet, or a voltage further from it than by a factor of 2.
        """
        if not self.points:
            raise InputError(f"no data sheet values of {self.part}", where="priors", allowed="its published fits")
        known = [p.volts for p in self.points]
        if not known[0] / 2 <= volts <= known[-1] * 2:
            allowed = f"{known[0] / 2:g} to {known[-1] * 2:g} V"
            raise InputError(f"{self.part} at {volts:g} V", where="priors", allowed=allowed)
        inside = float(np.clip(volts, known[0], known[-1]))
        keys = ("torque", "most", "amperes", "speed")
        torque, most, amperes, speed = (
            float(np.interp(inside, known, [getattr(p, k) for p in self.points])) * (volts / inside) for k in keys
        )
        return OperatingPoint(volts, torque, most, amperes, speed)

    def ranges(self, volts: float | None = None) -> dict[str, Range]:
        """Ranges by kind of parameter, for those that a source allows.

        ``torque_limit`` [N m] and ``drive_damping`` [N m s/rad] (stall torque over speed without load: the back-EMF of
        a drive that is fed a voltage) from the data sheet, twice either way; ``friction`` [N m], ``damping``
        [N m s/rad], ``armature`` [kg m^2] from published identifications, three times either way of their span.

        Args:
          volts: supply [V]; None: the highest in the data sheet.
        """
        out: dict[str, Range] = {}
        if self.points:
            p = self.at(self.points[-1].volts if volts is None else volts)
            out["torque_limit"] = _range(p.torque, p.most, SHEET_SPREAD, "N m", self.source)
            if np.isfinite(p.speed):
                slope = p.torque / p.speed
                out["drive_damping"] = _range(slope, p.most / p.speed, SHEET_SPREAD, "N m s/rad", self.source)
        for kind, unit in (("friction", "N m"), ("damping", "N m s/rad"), ("armature", "kg m^2")):
            values = [getattr(f, kind) for f in self.fits]
            if values:
                source = "; ".join(f.source for f in self.fits)
                out[kind] = _range(min(values), max(values), FIT_SPREAD, unit, source)
        return out


def prior(part: str) -> ServoPrior:
    """The servo of that part number; spaces, hyphens and case do not matter.

    Raises:
      Missing: naming the nearest ones.
    """
    table = _table()
    found = {_plain(name): p for p in table.values() for name in (p.part, *p.also)}.get(_plain(part))
    if found is None:
        raise Missing.named("servo", part, sorted(table), where="priors")
    return found


def parts() -> list[str]:
    """Every part number there is."""
    return sorted(_table())


def _plain(part: str) -> str:
    return re.sub(r"[\s_-]", "", part).casefold()


def _range(low: float, high: float, spread: float, unit: str, source: str) -> Range:
    return Range(low / spread, float(np.sqrt(low * high)), high * spread, unit, source)


@functools.cache
def _table() -> dict[str, ServoPrior]:
    text = files(__package__).joinpath("servos.toml").read_text("utf-8")
    return {part: _servo(part, row) for part, row in tomllib.loads(text).items()}


def _servo(part: str, row: Mapping[str, Any]) -> ServoPrior:
    points: Sequence[Mapping[str, float]] = row.get("points", [])
    return ServoPrior(
        part, row["maker"], tuple(row.get("also", ())), float(row.get("gear_ratio", "nan")),
        int(row.get("steps_per_turn", 0)), float(row.get("mass_kg", "nan")), tuple(map(_point, points)),
        tuple(PublishedFit(**f) for f in row.get("fits", [])), row["source"], row.get("note", ""),
    )  # fmt: skip


def _point(p: Mapping[str, float]) -> OperatingPoint:
    torque = p["torque"] if "torque" in p else p["torque_kgf_cm"] * KGF_CM
    speed = float("nan")
    if "rev_per_min" in p:
        speed = p["rev_per_min"] * 2 * np.pi / 60
    elif "s_per_60_deg" in p:
        speed = np.pi / 3 / p["s_per_60_deg"]
    most = p["most_kgf_cm"] * KGF_CM if "most_kgf_cm" in p else torque
    return OperatingPoint(float(p["volts"]), float(torque), float(most), float(p.get("amperes", "nan")), float(speed))
