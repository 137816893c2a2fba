"""MCAP logs as episodes: our own recordings, and logs of ROS, Foxglove and others from anywhere.

In: a file. Out: one ``Episode``; one file is one episode. What a log that is not ours says of itself, its metadata
records among it, is taken by the rules of ``formats.foreign``, its messages by those of ``formats.messages``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np

from flyball.base import Damaged
from flyball.episodes.episode import Episode, Origin
from flyball.episodes.formats import OURS, foreign
from flyball.episodes.formats.mcap import Block, Channel, McapFile
from flyball.episodes.formats.mcap_records import MAGIC
from flyball.episodes.formats.mcap_salvage import SalvagedMcap
from flyball.episodes.formats.messages import Messages
from flyball.episodes.formats.payloads.packed import packed
from flyball.episodes.intake import Intake


class McapLog:
    """The log format ``mcap``."""

    suffixes = (".mcap",)

    def claims(self, folder: Path) -> bool:
        """See ``LogFormat.claims``."""
        return False

    def complete(self, path: Path) -> bool:
        """Whether the file has its end, so that nobody writes to it any more; for ``episodes.watch``."""
        with open(path, "rb") as f:
            f.seek(max(0, path.stat().st_size - len(MAGIC)))
            return f.read() == MAGIC

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """See ``LogFormat.read``."""
        file = SalvagedMcap(path) if intake.salvage else McapFile(path)
        messages = Messages(intake, str(path))
        for block in file.blocks():
            for channel, rows in by_channel(file, block):
                if messages.wanted(channel):
                    bodies = packed(block.data, block.start[rows], block.stop[rows])
                    messages.add(channel, block.log_ns[rows], block.publish_ns[rows], bodies)
        found = messages.finish()
        if isinstance(file, SalvagedMcap) and not file.report.sound:
            intake.note("salvaged", f"{path.name}: {file.report.line()}")
            found.labels["salvaged"] = {
                "complaint": file.report.complaint.removeprefix(f"{path} ").partition("; ")[0],
                "recovered": dict(file.report.recovered),
                "discarded": dict(file.report.discarded),
                "unverified": dict(file.report.unverified),
                "withheld": file.report.withheld,
                "mixed": file.report.mixed,
            }
        try:
            ours = _our_record(file, path)
        except Damaged as err:
            if not intake.salvage:
                raise
            intake.note("salvaged", f"{path.name}: {err.what}; read as a log that is not ours")
            ours = None
        intake.named = intake.whole = ours is not None
        if ours is None:
            yield foreign.episode(found, path, {k: v for _, record in file.metadata for k, v in record.items()})
            return
        if found.undecoded:
            found.labels["undecoded"] = sorted(set(found.undecoded))
        yield replace(
            ours,
            signals=dict(sorted(found.signals.items())),
            frames=dict(sorted(found.frames.items())),
            events=tuple(found.events),
            labels={**found.labels, **ours.labels},
        )


FORMAT = McapLog()


def by_channel(file: McapFile | SalvagedMcap, block: Block) -> Iterator[tuple[Channel, Any]]:
    """The channels of a block, and which of its messages are theirs, in order."""
    if (block.channel == block.channel[0]).all():
        yield file.channels[int(block.channel[0])], slice(None)
        return
    order = np.argsort(block.channel, kind="stable")
    ids = block.channel[order]
    cuts = np.flatnonzero(np.diff(ids)) + 1
    for rows in np.split(order, cuts):
        yield file.channels[int(block.channel[rows[0]])], rows


def _our_record(file: McapFile | SalvagedMcap, path: Path) -> Episode | None:
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
