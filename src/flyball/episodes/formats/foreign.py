"""Logs that do not say which episode they are: what their file, folder and metadata tell.

In: what the messages of a log held, and where it lies. Out: an ``Episode``. Metadata become labels, numbers as numbers,
and so does a file name like ``sweep_kp100`` (``kp``: 100) or ``toss_012`` (``toss``: 12). The embodiment is the
metadata's ``embodiment``, else the name of the folder (``unknown`` for what lies in the inbox itself).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flyball.base import InputError
from flyball.episodes.episode import Episode
from flyball.episodes.formats import suffix_of
from flyball.episodes.formats.messages import Contents


def episode(found: Contents, path: Path, metadata: Mapping[str, str]) -> Episode:
    """The episode in a log.

    Args:
      found: what its messages held.
      path: the file or folder.
      metadata: what the log says of itself.

    Raises:
      InputError: the log holds nothing that can be decoded.
    """
    undecoded = sorted(set(found.undecoded))
    if not (found.signals or found.events or found.frames):
        reason = f"nothing that can be decoded ({'; '.join(undecoded)})" if undecoded else "holds no messages"
        raise InputError(reason, where=str(path))
    name = path.name if path.is_dir() else path.name[: len(path.name) - len(suffix_of(path))]
    facts: dict[str, Any] = {"file": name}
    for word in name.split("_"):
        if match := re.fullmatch(r"([A-Za-z]+)(\d+)", word):
            facts[match[1]] = int(match[2])
    if match := re.search(r"([A-Za-z]+)_(\d+)$", name):
        facts[match[1]] = int(match[2])
    facts |= {key: number(text) for key, text in metadata.items()}
    folder = path.absolute().parent.name
    return Episode(
        embodiment=str(facts.get("embodiment") or ("unknown" if folder == "inbox" else folder)),
        robot=str(facts.get("robot", "")),
        signals=dict(sorted(found.signals.items())),
        frames=dict(sorted(found.frames.items())),
        events=tuple(found.events),
        labels={**found.labels, **({"undecoded": undecoded} if undecoded else {}), **facts},
    )


def number(text: str) -> Any:
    """The number or truth value that a text is, else the text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return value if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)) else text
