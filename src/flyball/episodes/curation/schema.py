"""Check on form: the signals an episode has, their shapes, types, units and magnitudes.

In: episodes of one body and task, and the body's own specification where it is known. Out: findings where one differs
from what is specified, or from what most of the others have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from flyball.episodes.curation.check import Finding, Parameter, Seen, check
from flyball.episodes.curation.motion import numbers
from flyball.episodes.curation.values import limits
from flyball.episodes.episode import Episode
from flyball.robots import Embodiment


@dataclass(frozen=True)
class _Form:
    shape: tuple[int, ...]
    kind: str
    unit: str
    size: float


@dataclass(frozen=True)
class _Kept:
    forms: dict[str, _Form]
    against_body: list[Finding] | None


def _judge(seen: list[Seen], *, most: float, enough: float, factor: float) -> dict[str, list[Finding]]:
    if len(seen) - 1 < enough:
        return {s.digest: s.kept.against_body for s in seen if s.kept.against_body is not None}
    found = {s.digest: list(s.kept.against_body or ()) for s in seen}
    names = Counter(n for s in seen for n in s.kept.forms)
    usual = {n for n, k in names.items() if k >= most * len(seen)}
    for s in seen:
        out = found[s.digest]
        told = {f.signal for f in out}
        for name in sorted((usual - set(s.kept.forms)) - told):
            out.append(Finding(f"missing; {names[name]} of {len(seen)} episodes have it", name))
        for name in sorted(n for n in s.kept.forms if names[n] < (1 - most) * len(seen)):
            out.append(Finding(f"only {names[name]} of {len(seen)} episodes have it", name))
    facts: tuple[tuple[str, Callable[[_Form], object]], ...] = (
        ("shape", lambda f: f.shape),
        ("type", lambda f: f.kind),
        ("unit", lambda f: f.unit),
    )
    for name in usual:
        rows = [(s.digest, s.kept.forms[name]) for s in seen if name in s.kept.forms]
        for word, of in facts:
            value, k = Counter(of(f) for _, f in rows).most_common(1)[0]
            for digest, f in rows:
                if k >= most * len(rows) and of(f) != value:
                    text = f"{word} {of(f)!r}; {k} of {len(rows)} episodes have {value!r}"
                    found[digest].append(Finding(text, name))
        sizes = np.array([f.size for _, f in rows])
        for i, (digest, f) in enumerate(rows):
            others = np.delete(sizes, i)
            others = others[others > 0]
            if len(others) < enough or f.size <= 0:
                continue
            middle = float(np.median(np.log(others)))
            # Where the others do not agree on a magnitude, a different one says little about units.
            wide = 4 * 1.48 * float(np.median(np.abs(np.log(others) - middle)))
            off = abs(np.log(f.size) - middle)
            if off > np.log(factor) + wide:
                text = f"values {f.size / np.exp(middle):.3g} times as large as usual, as in another unit"
                found[digest].append(Finding(text, name, float(np.exp(off - wide)) / factor))
    return found


@check(
    "schema",
    1,
    "signals, shapes, types and units are those of the body's specification, where it is known, and of {most:.0%} of "
    "the episodes of this body and task (given at least {enough:g} others); values are within {factor:g} times their "
    "usual magnitude",
    judge=_judge,
    most=Parameter(0.6, "a clear majority is the rule, so that a third may be spoilt alike; below that it is optional"),
    enough=Parameter(5, "with fewer episodes to compare with, 'usual' would be a matter of two or three"),
    factor=Parameter(10.0, "degrees for radians are 57 times as large, millimetres for metres 1000 times"),
)
def schema(episode: Episode, body: Embodiment | None) -> _Kept:
    """Names, shapes, kinds of numbers, units, magnitudes."""
    forms = {}
    for name, s in episode.signals.items():
        x = numbers(s)
        size = float(np.percentile(np.abs(x), 95)) if x.size else 0.0
        forms[name] = _Form(s.spec.shape, np.asarray(s.values).dtype.kind, s.spec.unit, size)
    for name, f in episode.frames.items():
        forms[name] = _Form((f.height, f.width), f.encoding, "picture", 0.0)
    return _Kept(forms, None if body is None else _against(episode, body))


def _against(episode: Episode, body: Embodiment) -> list[Finding]:
    found = []
    for spec in (*body.observations, *body.actions):
        s = episode.signals.get(spec.name)
        if s is None:
            found.append(Finding(f"missing; {body.name} specifies it", spec.name))
            continue
        for word, has, wants in (("shape", s.spec.shape, spec.shape), ("unit", s.spec.unit, spec.unit)):
            if has != wants:
                found.append(Finding(f"{word} {has!r}; {body.name} specifies {wants!r}", spec.name))
        if s.spec.shape == spec.shape and spec.low is not None and spec.high is not None and len(s.t_ns):
            low, high = limits(s)
            slack = 0.1 * (high - low)
            x = numbers(s)
            outside = float(((x < low - slack) | (x > high + slack)).any(axis=1).mean())
            if outside > 0:
                found.append(Finding(f"beyond its specified limits in {outside:.1%} of the samples", spec.name))
    return found
