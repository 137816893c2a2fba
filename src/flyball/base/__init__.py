"""The ground floor: what every package needs and that needs nothing itself.

In: bytes, arrays, plain dataclasses. Out: digests, artifacts in a content-addressed store, one error tree,
signal specifications, plug-in tables. Nothing here imports another flyball package, a simulator or a trainer.
"""

from flyball.base.artifact import Artifact, digest_of
from flyball.base.errors import (
    Conflict,
    Damaged,
    FlyballError,
    InputError,
    Missing,
    NotPossible,
    Refused,
    Unsupported,
)
from flyball.base.plugins import PluginTable
from flyball.base.signals import SignalSpec, Timed

__all__ = [
    "Artifact",
    "Conflict",
    "Damaged",
    "FlyballError",
    "InputError",
    "Missing",
    "NotPossible",
    "PluginTable",
    "Refused",
    "SignalSpec",
    "Timed",
    "Unsupported",
    "digest_of",
]
