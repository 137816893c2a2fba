"""Laws, marks and cards. In: what a law measured. Out: a mark per law, all of an engine's as a JSON-able card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from flyball.engines.engine import Engine, Level, Precision

Result = Literal["passed", "failed", "unsupported"]


class Finding(NamedTuple):
    """What a law measured.

    Attributes:
      error: how far off, relative unless the law says otherwise.
      note: the measured value beside the law's, in words.
      data: what lies behind it, for the card: column -> values, all of one length.
    """

    error: float
    note: str
    data: Mapping[str, Sequence[float]] = {}


@dataclass(frozen=True)
class Law:
    """A law and how to put an engine to it.

    Attributes:
      family: heading on the card.
      name: unique.
      says: the law in words, with its formula.
      tolerance: greatest error that passes, declared before anything was measured.
      why: reason for the tolerance.
      test: puts an engine to it; raises ``Unsupported`` when the engine cannot be asked.
      roundings: how many roundings of the state add up in the error, in the error's unit, if all go the same way.
    """

    family: str
    name: str
    says: str
    tolerance: float
    why: str
    test: Callable[[Engine], Finding]
    roundings: float = 0.0

    def tolerance_at(self, epsilon: float) -> float:
        """Greatest error that passes where numbers are rounded to half of ``epsilon``, their machine epsilon."""
        return self.tolerance + self.roundings * epsilon / 2


@dataclass(frozen=True)
class Mark:
    """What an engine made of one law.

    Attributes:
      family, law, says, tolerance, why: the law's.
      result: ``passed``, ``failed`` or ``unsupported``.
      error: how far off; NaN when unsupported.
      note: what was measured, or what is missing.
      data: see ``Finding``.
    """

    family: str
    law: str
    says: str
    result: Result
    error: float
    tolerance: float
    why: str
    note: str = ""
    data: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Card:
    """All marks of an engine, beside what it declares of itself."""

    engine: str
    version: str
    formulation: str
    precision: Precision
    capabilities: Mapping[str, Level]
    marks: tuple[Mark, ...]

    @property
    def passed(self) -> bool:
        """Whether nothing failed; what is unsupported does not count."""
        return all(m.result != "failed" for m in self.marks)

    def to_json(self) -> dict[str, Any]:
        """A JSON-able dict; errors that are no finite numbers are None."""
        marks = [{k: _finite(v) for k, v in asdict(m).items()} for m in self.marks]
        return {
            "engine": self.engine,
            "version": self.version,
            "formulation": self.formulation,
            "precision": self.precision,
            "passed": self.passed,
            "capabilities": dict(self.capabilities),
            "marks": marks,
        }


def _finite(x: Any) -> Any:
    if isinstance(x, dict):
        return {k: [_finite(v) for v in values] for k, values in x.items()}
    return None if isinstance(x, float) and not abs(x) < float("inf") else x
