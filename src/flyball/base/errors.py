"""The one error tree.

FlyballError                what, where, what is allowed, what to run next
 +- InputError              the user's input is bad: exit code 2
 |   +- Missing             a named thing does not exist; says what does
 |   +- Damaged             bytes that are not what they claim to be
 |   +- Unsupported         a capability that an engine, format or robot declares it lacks
 +- Refused                 the answer is no (gate, verification): exit code 1
 |   +- Conflict            somebody else holds it, or it changed underneath
 +- NotPossible             the environment lacks something (a library, disk space): exit code 2

Foreign exceptions are wrapped once, where they enter (``raise InputError(...) from err``).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FlyballError(Exception):
    """An error with one clear line for the user.

    Args:
      what: what is wrong, as a short sentence without a full stop.
      where: the file, key or element concerned.
      allowed: what would have been accepted.
      run_next: a command or action that helps.
    """

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", allowed: str = "", run_next: str = "") -> None:
        self.what, self.where, self.allowed, self.run_next = what, where, allowed, run_next
        super().__init__(self.line())

    def line(self) -> str:
        """The error as exactly one line."""
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.allowed:
            parts.append(f"allowed: {self.allowed}")
        if self.run_next:
            parts.append(f"try: {self.run_next}")
        return "; ".join(parts).replace("\n", " ")


class InputError(FlyballError):
    """The user's input is bad."""


class Missing(InputError):
    """A named thing does not exist."""

    @classmethod
    def named(cls, kind: str, name: str, existing: Iterable[str], *, where: str = "", run_next: str = "") -> Missing:
        """Build the error for an unknown name, with the nearest existing name first."""
        names = sorted(existing)
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return cls(f"no {kind} named {name!r}", where=where, allowed=hint + ", ".join(names), run_next=run_next)


class Damaged(InputError):
    """Bytes that are not what they claim to be."""


class Unsupported(InputError):
    """Something that an engine, format or robot declares it cannot do."""


class Refused(FlyballError):
    """The answer is no: a gate, a signature, a specification that does not match."""

    exit_code = 1


class Conflict(Refused):
    """Somebody else holds it, or it changed underneath."""


class NotPossible(FlyballError):
    """The environment lacks something that the user can install or free."""
