"""All laws, and how an engine is put to them. In: an engine. Out: its card."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flyball.base import InputError, NotPossible, Unsupported
from flyball.engines.card.bookkeeping import LAWS as _BOOKKEEPING
from flyball.engines.card.card import Card, Finding, Law, Mark, Result
from flyball.engines.card.contact import LAWS as _CONTACT
from flyball.engines.card.mechanism import LAWS as _MECHANISM
from flyball.engines.card.motion import LAWS as _MOTION
from flyball.engines.engine import Engine, traits

LAWS: tuple[Law, ...] = (*_MOTION, *_CONTACT, *_MECHANISM, *_BOOKKEEPING)
"""The laws, in the order of the card."""


def examine(engine: Engine, laws: Sequence[Law] = LAWS, tell: Callable[[Mark], None] | None = None) -> Card:
    """Put an engine to laws.

    Args:
      tell: is told of every mark as soon as it is made.
    """
    marks = []
    for law in laws:
        marks.append(_mark(engine, law))
        if tell is not None:
            tell(marks[-1])
    kind = traits(engine)
    return Card(engine.name, engine.version, kind.formulation, kind.precision, dict(engine.capabilities), tuple(marks))


def _mark(engine: Engine, law: Law) -> Mark:
    tolerance = law.tolerance_at(traits(engine).epsilon)
    try:
        found = law.test(engine)
        # not a number is no pass
        result: Result = "passed" if found.error <= tolerance else "failed"
    except Unsupported as err:
        found, result = Finding(float("nan"), err.what), "unsupported"
    except (InputError, NotPossible) as err:
        found, result = Finding(float("inf"), err.line()), "failed"
    data = {column: [float(x) for x in values] for column, values in found.data.items()}
    return Mark(law.family, law.name, law.says, result, float(found.error), tolerance, law.why, found.note, data)
