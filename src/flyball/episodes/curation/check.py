"""What a check is: a stated rule with a version, from an episode to findings.

In: episodes. Out: ``Finding`` objects. A check looks at one episode at a time and keeps little of it; where a rule
compares episodes, it judges what was kept of all of them together. Nothing here changes or removes anything.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from flyball.base import Missing, PluginTable
from flyball.episodes.curation.glance import Glance
from flyball.episodes.episode import Episode
from flyball.robots import Embodiment

Pictures: TypeAlias = Callable[[str], Glance]
"""Name of a camera -> a glance at its pictures."""

Meaning: TypeAlias = Literal["flag", "note"]


@dataclass(frozen=True)
class Finding:
    """Something a check found in an episode.

    Attributes:
      what: one line with the figures it rests on.
      signal: the signal or camera concerned, "" for the episode as a whole.
      excess: the measured figure over the check's limit; puts the findings of one check in order. It says nothing about
        what an episode is worth.
      t_ns: where it begins [ns]; None when it has no place.
    """

    what: str
    signal: str = ""
    excess: float = 1.0
    t_ns: int | None = None

    def __str__(self) -> str:
        return f"{self.signal}: {self.what}" if self.signal else self.what


Findings: TypeAlias = "list[Finding] | None"
"""What was found; None when the episode lacks what the rule is about, so that nothing can be said."""


@dataclass(frozen=True)
class Parameter:
    """A number that a rule rests on.

    Attributes:
      value: the number.
      why: why this value.
    """

    value: float
    why: str


@dataclass(frozen=True)
class Seen:
    """What was kept of one episode for a comparison.

    Attributes:
      digest: of the episode.
      group: episodes that are compared with one another: embodiment and task.
      outcome: of the episode.
      kept: what the check's ``look`` returned; never None.
    """

    digest: str
    group: tuple[str, str]
    outcome: str
    kept: Any


Look: TypeAlias = Callable[..., Any]
Judge: TypeAlias = Callable[..., Mapping[str, list[Finding]]]
"""Everything kept in one group -> findings by digest; one that is left out is one of which nothing can be said."""


@dataclass(frozen=True)
class Check:
    """A rule, ready to be applied.

    Attributes:
      name: e.g. ``drops``.
      version: raised by hand whenever the rule would answer differently.
      tier: 0: mechanical, about the recording. 1: about behaviour.
      rule: in words, with the parameters' names in braces.
      parameters: name -> number and reason.
      look: (episode, [pictures,] [body,] parameters by name) -> findings; what to keep, when there is a ``judge``.
      judge: (everything kept in one group, parameters by name) -> findings by digest; None when episodes are judged
        one by one.
      meaning: ``flag``: something is wrong or missing. ``note``: worth knowing.
    """

    name: str
    version: int
    tier: int
    rule: str
    look: Look
    judge: Judge | None = None
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    meaning: Meaning = "flag"

    @property
    def compares(self) -> bool:
        """Whether episodes are judged together."""
        return self.judge is not None

    @property
    def sees(self) -> bool:
        """Whether pictures are looked at."""
        return "pictures" in inspect.signature(self.look).parameters

    @property
    def stamp(self) -> str:
        """Version, with the parameters that are not the usual ones."""
        usual = checks_shipped.get(self.name, {})
        changed = [f"{n}={p.value:g}" for n, p in self.parameters.items() if usual.get(n, p.value) != p.value]
        return " ".join([str(self.version), *changed])

    def stated(self) -> str:
        """The rule with its numbers."""
        return self.rule.format(**{n: p.value for n, p in self.parameters.items()})

    def with_parameters(self, **values: float) -> Check:
        """The same rule with other numbers.

        Raises:
          Missing: no such parameter.
        """
        for name in values:
            if name not in self.parameters:
                raise Missing.named("parameter", name, self.parameters, where=f"check {self.name}")
        changed = {n: replace(self.parameters[n], value=float(v)) for n, v in values.items()}
        return replace(self, parameters={**self.parameters, **changed})

    def look_at(self, episode: Episode, pictures: Pictures | None = None, body: Embodiment | None = None) -> Any:
        """Apply ``look``: findings, or what is kept for ``judged``; None when the rule does not apply."""
        given: dict[str, Any] = {"pictures": pictures, "body": body}
        if self.sees and (pictures is None or not episode.frames):
            return None
        return self.look(episode, **_wanted(self.look, {**given, **self._numbers()}))

    def judged(self, seen: list[Seen]) -> dict[str, Findings]:
        """Findings by digest of what ``look_at`` kept of the episodes of one group."""
        if self.judge is None:
            return {s.digest: s.kept for s in seen}
        found = self.judge(seen, **_wanted(self.judge, self._numbers()))
        return {s.digest: found.get(s.digest) for s in seen}

    @property
    def looks_at(self) -> tuple[Look, tuple[tuple[str, float], ...]]:
        """What ``look_at`` depends on besides the episode: checks with the same one keep the same."""
        return self.look, tuple(sorted(_wanted(self.look, self._numbers()).items()))

    def _numbers(self) -> dict[str, float]:
        return {n: p.value for n, p in self.parameters.items()}


checks_shipped: dict[str, dict[str, float]] = {}
"""Usual parameters by check, so that a verdict's version says which were changed."""


def check(
    name: str,
    version: int,
    rule: str,
    *,
    tier: int = 0,
    judge: Judge | None = None,
    meaning: Meaning = "flag",
    **parameters: Parameter,
) -> Callable[[Look], Check]:
    """Make a ``Check`` of a function; see its attributes."""
    checks_shipped[name] = {n: p.value for n, p in parameters.items()}
    return lambda look: Check(name, version, tier, rule, look, judge, parameters, meaning)


def _wanted(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    return {n: given[n] for n in inspect.signature(function).parameters if n in given}


_HERE = "flyball.episodes.curation"
checks = PluginTable(
    "check",
    "flyball.checks",
    {
        "schema": f"{_HERE}.schema:schema",
        "time": f"{_HERE}.timing:time",
        "drops": f"{_HERE}.timing:drops",
        "duplicates": f"{_HERE}.timing:duplicates",
        "drift": f"{_HERE}.timing:drift",
        "finite": f"{_HERE}.values:finite",
        "constant": f"{_HERE}.values:constant",
        "dead": f"{_HERE}.values:dead",
        "clipped": f"{_HERE}.values:clipped",
        "saturation": f"{_HERE}.values:saturation",
        "offset": f"{_HERE}.values:offset",
        "idle": f"{_HERE}.values:idle",
        "black": f"{_HERE}.pictures:black",
        "frozen": f"{_HERE}.pictures:frozen",
        "sync": f"{_HERE}.pictures:sync",
        "copies": f"{_HERE}.copies:copies",
        "outcome": f"{_HERE}.trajectories:outcome",
        "departure": f"{_HERE}.trajectories:departure",
        "novelty": f"{_HERE}.trajectories:novelty",
    },
)
"""All checks; one outside the tree registers under ``flyball.checks`` and passes ``testing.check_check``."""
