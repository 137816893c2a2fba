"""The calibration card: one JSON document that says what was fitted to what, by what, and how far it can be trusted.

In: a calibration. Out: ``Card``, to and from JSON. It holds the calibration whole (data digests, engine and version,
seed, joint samples, held-out errors before and after, noise floor, verdict) and what is derived from it for readers
that are not Flyball: the profile of each parameter in one word, what to record next, what was left out, what no model
format has a place for. ``docs/calibration_card.md`` describes every key.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flyball import __version__
from flyball.base import Damaged, InputError, Unsupported
from flyball.base.durable import write_durably
from flyball.calibration.calibration import Calibration, ParameterRow
from flyball.scenes import Parameter, Scene

SCHEMA = 1
KEY = "flyball_calibration_card"
Profile = Literal["identified", "only in combination", "not excited", "not identified"]
_TOGETHER = "only in combination with "
_NEXT = {
    "frictionloss": "slow motion with many reversals",
    "damping": "fast and slow motion at constant speed",
    "armature": "quick reversals, as abrupt as the robot allows",
    "gain": "holding still against gravity, in several poses",
    "force_limit": "a swing fast or heavy enough that the drive saturates",
    "velocity_gain": "fast motion with the drive on and off",
    "mass": "motion across gravity with and without a known mass",
    "friction": "pushing with and without sliding",
    "delay": "steps and reversals of the command",
    "bias": "holding still against gravity on both sides of the vertical",
    "solref": "impacts at several speeds",
    "drive_friction": "lifting and lowering loads of several sizes",
    "load_friction": "lifting and lowering loads of several sizes",
    "error_exponent": "small and large position errors",
    "stribeck": "creeping through standstill",
}
"""Field that a parameter changes -> the motion that shows it."""


@dataclass(frozen=True)
class Card:
    """A calibration with what a reader needs to judge it.

    Attributes:
      calibration: the document itself.
      name: of what was calibrated: a set-up, a robot model, one robot.
      record_next: recordings that would tell what these could not.
      left_out: recordings that took no part, and why.
      not_in_the_model: effects that the overlay's model files do not hold.
      software: version of Flyball that wrote it.
    """

    calibration: Calibration
    name: str
    record_next: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    not_in_the_model: tuple[str, ...] = ()
    software: str = __version__

    @property
    def sentence(self) -> str:
        """The verdict for people, in one sentence."""
        c, h = self.calibration, self.calibration.held_out
        tells = {
            "improved": "the calibrated scene predicts recordings that it has not seen better than the model as it was",
            "no improvement": "what was fitted does not carry over to recordings held out; keep the model as it was",
            "not identifiable": "the recordings cannot tell any parameter; see what to record next",
            "wrong model": "no setting of these parameters explains even the recordings that were fitted",
        }[c.verdict]
        if c.verdict == "wrong model" and any("on a bound" in note for note in c.notes):
            tells = (
                "what would fit best lies outside the ranges that were allowed: they are too narrow, or it is the model"
            )
        change = f"held-out error {h.before:.3g} -> {h.after:.3g} {h.unit} ({_percent(h.before, h.after)})"
        return f"{c.verdict}: {tells}; {change}, noise floor {h.noise_floor:.3g} {h.unit}."

    def to_json(self) -> dict[str, Any]:
        """JSON-able data; ``from_json`` is the inverse."""
        engine, _, version = self.calibration.engine.partition(" ")
        return {
            KEY: SCHEMA,
            "software": {"flyball": self.software, engine: version},
            "name": self.name,
            "verdict": self.calibration.verdict,
            "sentence": self.sentence,
            "profile": {
                r.path: dict(zip(("is", "with"), profile(r), strict=True)) for r in self.calibration.parameters
            },
            "record_next": list(self.record_next),
            "left_out": list(self.left_out),
            "not_in_the_model": list(self.not_in_the_model),
            "digest": self.calibration.digest,
            "calibration": self.calibration.to_json(),
        }

    @classmethod
    def from_json(cls, data: Any, *, where: str = "calibration card") -> Card:
        """Inverse of ``to_json``; what is derived is derived again.

        Raises:
          Unsupported: a schema of another version.
          Damaged: not a card, or its calibration is not the one whose digest it names.
        """
        if not isinstance(data, Mapping) or KEY not in data:
            raise Damaged("not a calibration card", where=where, allowed=f"a JSON object with {KEY!r}")
        if data[KEY] != SCHEMA or isinstance(data[KEY], bool):
            raise Unsupported(f"calibration card of schema {data[KEY]!r}", where=where, allowed=str(SCHEMA))
        try:
            calibration = Calibration.from_json(data["calibration"], where=where)
            software, digest, name = data["software"]["flyball"], data["digest"], data["name"]
            lists = {k: tuple(map(str, data[k])) for k in ("record_next", "left_out", "not_in_the_model")}
        except (KeyError, TypeError) as err:
            raise Damaged(f"not a calibration card ({err})", where=where) from err
        if calibration.digest != digest:
            raise Damaged("the calibration was changed after the card was written", where=where, allowed=str(digest))
        return cls(calibration, str(name), **lists, software=str(software))

    def write(self, path: Path) -> None:
        """Write the card."""
        write_durably(path, (json.dumps(self.to_json(), indent=1) + "\n").encode())

    @classmethod
    def read(cls, path: Path) -> Card:
        """A card from a file.

        Raises:
          InputError: no such file, or no card; see ``from_json``.
        """
        try:
            return cls.from_json(json.loads(path.read_bytes()), where=str(path))
        except OSError as err:
            raise InputError(err.strerror or "cannot be read", where=str(path)) from err
        except (ValueError, RecursionError) as err:
            raise Damaged(f"not JSON ({err})", where=str(path)) from err


def profile(row: ParameterRow) -> tuple[Profile, str]:
    """What the recordings say of a parameter, and the other one it is only known with ("" for none)."""
    if row.note.startswith("not excited"):
        return "not excited", ""
    if row.identified:
        return "identified", ""
    if row.note.startswith(_TOGETHER):
        return "only in combination", row.note.removeprefix(_TOGETHER)
    return "not identified", ""


def record_next(calibration: Calibration, scene: Scene) -> tuple[str, ...]:
    """Recordings that would tell what these could not, one sentence per kind of motion."""
    motions: dict[str, list[str]] = {}
    for row in calibration.parameters:
        kind, partner = profile(row)
        if kind == "identified":
            continue
        parameter = scene.parameter(row.path)
        reason = {"not excited": "not excited", "not identified": "known too roughly"}.get(
            kind, f"known only together with {partner}"
        )
        motions.setdefault(_motion(parameter), []).append(f"{row.path} ({reason})")
    return tuple(f"{motion}: would tell {_some(paths)}" for motion, paths in motions.items())


def _motion(p: Parameter) -> str:
    for bind in p.binds:
        field = bind.target.rpartition(".")[2]
        if field in _NEXT:
            return _NEXT[field]
    return "motions in which it matters, and matters alone"


def _some(paths: Sequence[str], most: int = 6) -> str:
    return ", ".join(paths[:most]) + (f" and {len(paths) - most} more" if len(paths) > most else "")


def _percent(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.0f} %" if before > 0 else "-"
