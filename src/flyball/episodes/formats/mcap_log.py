"""MCAP logs as episodes: our own recordings, and logs of ROS, Foxglove and others from anywhere.

In: a file. Out: one ``Episode``; one file is one episode. The rules for logs that are not ours:

- Metadata records become labels, numbers as numbers, and so does a file name like ``sweep_kp100`` (``kp``: 100) or
  ``toss_012`` (``toss``: 12). The embodiment is the metadata's ``embodiment``, else the name of the folder
  (``unknown`` for files that lie in the inbox itself).
- The rest is as for every log of messages: see ``formats.messages``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from flyball.base import Damaged, InputError
from flyball.episodes.episode import Episode, Origin
from flyball.episodes.formats import OURS
from flyball.episodes.formats.mcap import Block, Channel, McapFile
from flyball.episodes.formats.messages import Messages
from flyball.episodes.intake import Intake


class McapLog:
    """The log format ``mcap``."""

    suffixes = (".mcap",)

    def claims(self, folder: Path) -> bool:
        """See ``LogFormat.claims``."""
        return False

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """See ``LogFormat.read``."""
        file = McapFile(path)
        messages = Messages(intake, str(path))
        for block in file.blocks():
            for channel, rows in _by_channel(file, block):
                if messages.wanted(channel):
                    spans = zip(block.start[rows].tolist(), block.stop[rows].tolist(), strict=True)
                    data = block.data
                    bodies = [data[a:b] for a, b in spans]
                    messages.add(channel, block.log_ns[rows], block.publish_ns[rows], bodies)
        found = messages.finish()
        labels = found.labels
        if found.undecoded:
            labels["undecoded"] = sorted(set(found.undecoded))
        ours = _our_record(file, path)
        if ours is None and not (found.signals or found.events or found.frames):
            raise InputError(
                "holds no messages"
                if not found.undecoded
                else f"nothing that can be decoded ({'; '.join(labels['undecoded'])})",
                where=str(path),
            )
        facts = ours if ours is not None else _foreign_facts(file, path, labels)
        yield replace(
            facts,
            signals=dict(sorted(found.signals.items())),
            frames=dict(sorted(found.frames.items())),
            events=tuple(found.events),
            labels={**labels, **facts.labels},
        )


FORMAT = McapLog()


def _by_channel(file: McapFile, block: Block) -> Iterator[tuple[Channel, Any]]:
    """The channels of a block, and which of its messages are theirs, in order."""
    if (block.channel == block.channel[0]).all():
        yield file.channels[int(block.channel[0])], slice(None)
        return
    order = np.argsort(block.channel, kind="stable")
    ids = block.channel[order]
    cuts = np.flatnonzero(np.diff(ids)) + 1
    for rows in np.split(order, cuts):
        yield file.channels[int(block.channel[rows[0]])], rows


def _our_record(file: McapFile, path: Path) -> Episode | None:
    facts: dict[str, Any] = {}
    for name, record in file.metadata:
        if name == OURS:
            try:
                facts |= json.loads(record["json"])
            except (ValueError, KeyError, TypeError) as err:
                raise Damaged(f"the metadata record {OURS!r} is not JSON ({err})", where=str(path)) from err
    if not facts:
        return None
    try:
        origin = facts.get("origin", "fleet")
        if origin not in get_args(Origin):
            raise ValueError(f"origin {origin!r}")
        return Episode(
            embodiment=str(facts["embodiment"]),
            robot=str(facts.get("robot", "")),
            task=str(facts.get("task", "")),
            instruction=str(facts.get("instruction", "")),
            origin=cast(Origin, origin),
            release=str(facts.get("release", "")),
            scene=str(facts.get("scene", "")),
            seed=int(facts.get("seed", -1)),
            labels=dict(facts.get("labels", {})),
        )
    except (ValueError, KeyError, TypeError) as err:
        raise Damaged(f"the metadata record {OURS!r} does not describe an episode ({err})", where=str(path)) from err


def _foreign_facts(file: McapFile, path: Path, decoded: dict[str, Any]) -> Episode:
    labels: dict[str, Any] = {"file": path.stem}
    for word in path.stem.split("_"):
        if match := re.fullmatch(r"([A-Za-z]+)(\d+)", word):
            labels[match[1]] = int(match[2])
    if match := re.search(r"([A-Za-z]+)_(\d+)$", path.stem):
        labels[match[1]] = int(match[2])
    for _, record in file.metadata:
        labels |= {key: _number(text) for key, text in record.items()}
    folder = path.absolute().parent.name
    embodiment = str(labels.get("embodiment") or ("unknown" if folder == "inbox" else folder))
    return Episode(embodiment=embodiment, robot=str(labels.get("robot", "")), labels=labels)


def _number(text: str) -> Any:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, (bool, int)) or (isinstance(value, float) and math.isfinite(value)) else text
