"""LeRobotDataset folders, v2.0, v2.1 and v3.0, as logs.

In: a folder with ``meta/info.json``. Out: one episode per episode: features become signals of the same name, the task
becomes the instruction, pictures become ``Frames`` with the packets as they are (nothing is encoded again). A folder
that Flyball exported gives back the signals, units and facts that went in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, SignalSpec, Timed
from flyball.episodes.datasets.folder import INFO, TOLERANCE_S, Entry, LeRobotFolder
from flyball.episodes.datasets.layout import IMAGES, RESERVED
from flyball.episodes.episode import Episode, Event, Frames, Origin, Outcome
from flyball.episodes.frames import encode_frames
from flyball.episodes.intake import Column, FramesWriter, Intake

_TEXTS = {"group": "group", "robot": "robot", "task_name": "task", "release": "release", "scene": "scene"}


class LeRobot:
    """The format; see the module."""

    suffixes: tuple[str, ...] = ()

    def claims(self, folder: Path) -> bool:
        """Whether there is a ``meta/info.json``."""
        return (folder / INFO).is_file()

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """The episodes, in order; see ``LogFormat.read``.

        Raises:
          Damaged: files that contradict each other or the format.
        """
        intake.whole = True
        folder = LeRobotFolder(path)
        entries = {e.index: e for e in folder.entries}
        if not entries:
            raise InputError("holds no episode", where=str(path))
        left = [k for k, c in folder.columns.items() if c.dtype == "string"]
        if left:
            intake.note("unmapped", f"text of {', '.join(left)} stays in the folder")
        reading: _Reading | None = None
        seen: set[int] = set()
        for index, piece in folder.rows():
            if reading is None or index != reading.entry.index:
                if reading is not None:
                    yield reading.episode()
                if index in seen or index not in entries:
                    what = "in two places" if index in seen else "not among the folder's episodes"
                    raise Damaged(f"rows of episode {index} are {what}", where=str(path))
                seen.add(index)
                reading = _Reading(folder, entries[index], intake)
            reading.add(piece)
        if reading is not None:
            yield reading.episode()
        if len(seen) != len(entries):
            missing = sorted(set(entries) - seen)
            text = f"{len(missing)} episodes have no rows, e.g. {missing[0]}"
            if not intake.salvage:
                raise Damaged(text, where=str(path))
            intake.note("salvaged", text)


FORMAT = LeRobot()


class _Reading:
    """One episode on its way in."""

    def __init__(self, folder: LeRobotFolder, entry: Entry, intake: Intake) -> None:
        self.folder, self.entry, self.intake = folder, entry, intake
        self.where = f"{folder.path}: episode {entry.index}"
        self.signals: dict[str, Column] = {}
        self.images: dict[str, FramesWriter] = {}
        self.length = 0
        start = entry.extra.get("start_ns")
        self.start_ns = start if isinstance(start, int) and 0 <= start < 2**62 else 0
        self.times: list[NDArray[np.int64]] = []
        self.tasks: list[NDArray[np.int64]] = []
        for key, c in folder.columns.items():
            if c.dtype == "image":
                self.images[key] = intake.frames(_camera(key), "png", c.shape[0], c.shape[1])
            elif c.dtype not in ("video", "string") and key not in RESERVED:
                self.signals[key] = intake.column(c.dtype, c.shape)

    def add(self, piece: Mapping[str, Any]) -> None:
        """More rows."""
        t_ns = self._times(piece["timestamp"].reshape(-1), piece["frame_index"].reshape(-1))
        self.times.append(t_ns)
        if "task_index" in piece:
            self.tasks.append(piece["task_index"].reshape(-1))
        for key, column in self.signals.items():
            column.append(piece[key])
        for key, writer in self.images.items():
            for t, data in zip(t_ns.tolist(), piece[key], strict=True):
                if data is None:
                    raise Damaged(f"a row of {key} has no picture", where=self.where)
                if data[:2] == b"\xff\xd8":
                    writer.encoding = "jpeg"
                writer.append(t, data)
        self.length += len(t_ns)

    def episode(self) -> Episode:
        """The episode, when all rows are in."""
        entry, folder = self.entry, self.folder
        if self.length != entry.length:
            text = f"{self.length} rows where {entry.length} were announced"
            if not self.intake.salvage:
                raise Damaged(text, where=self.where)
            self.intake.note("salvaged", f"{self.where}: {text}")
        t_ns = np.concatenate(self.times)
        if (np.diff(t_ns) < 0).any():
            self.intake.note("clock", f"{self.where}: time runs backwards, and was held")
            t_ns = np.maximum.accumulate(t_ns)
        frames = {w.name: w.close() for w in self.images.values()}
        for key in entry.videos:
            made = self._video(key)
            frames[made.name] = made
        signals: dict[str, Timed] = {}
        for key, column in self.signals.items():
            signals |= {s.spec.name: s for s in self._split(key, t_ns, column.array())}
        extra = entry.extra
        outcome, origin = extra.get("outcome"), extra.get("origin")
        if outcome not in get_args(Outcome):
            success = extra.get("success", extra.get("is_success"))
            outcome = (
                {True: "success", False: "failure"}.get(success, "unknown") if isinstance(success, bool) else "unknown"
            )
        tasks, events = self._instruction(t_ns)
        texts = {ours: str(extra[theirs]) for theirs, ours in _TEXTS.items() if isinstance(extra.get(theirs), str)}
        seed = extra.get("seed")
        return Episode(
            embodiment=folder.robot_type or "unknown",
            instruction=tasks,
            origin=cast(Origin, origin if origin in get_args(Origin) else "teleoperation"),
            outcome=cast(Outcome, outcome),
            seed=seed if isinstance(seed, int) and -1 <= seed < 2**63 else -1,
            signals=signals,
            frames=frames,
            events=events,
            labels=self._labels(),
            **texts,
        )

    def _times(self, stamps: NDArray[Any], index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Times of rows [ns]: at i/fps when the stamps say so to a millisecond, else as they are."""
        if not np.isfinite(stamps).all() or (np.abs(stamps) > 1e8).any():
            raise Damaged("absurd time stamps", where=self.where)
        nominal = index / self.folder.fps
        if (np.abs(stamps - nominal) <= TOLERANCE_S + np.abs(nominal) * 1e-7).all():
            seconds = nominal
        else:
            self.intake.note("clock", f"{self.folder.path}: time stamps are not i/fps, and were kept")
            seconds = stamps.astype(np.float64)
        return self.start_ns + np.round(seconds * 1e9).astype(np.int64)

    def _video(self, key: str) -> Frames:
        """A camera's packets, as they are; encoded anew only where they are stored out of order."""
        span, fps = self.entry.videos[key], self.folder.fps
        encoding, height, width = self.folder.video_facts(span.path)
        packets = self.folder.packets(span)
        if not self.folder.in_order(span.path):
            self.intake.note("skipped", f"{span.path}: stored out of order (B-frames); encoded anew as h264")
            encoding, rate = "h264", max(1, round(fps))
            anew = encode_frames(self.folder.pictures(span), encoding, key_every=2, rate=rate)
            packets = ((data, is_key, k / fps) for k, (data, is_key) in enumerate(anew))
        writer = self.intake.frames(_camera(key), encoding, height, width)
        moved, count = 0, 0
        for data, is_key, t in packets:
            step = round(t * fps)
            late = abs(t - step / fps) > TOLERANCE_S
            moved += late
            writer.append(self.start_ns + round((t if late else step / fps) * 1e9), data, key=is_key)
            count += 1
        if moved:
            self.intake.note("clock", f"{self.where}: {moved} pictures of {key} are not at i/fps")
        if count != self.length:
            self.intake.note("clock", f"{self.where}: {count} pictures of {key} for {self.length} rows")
        return writer.close()

    def _split(self, key: str, t_ns: NDArray[np.int64], values: NDArray[Any]) -> list[Timed]:
        """The signals that a feature was made of, if we made it; else the feature as a signal."""
        c, rate = self.folder.columns[key], self.folder.fps
        try:
            known = self.folder.manifest["features"][key]
            specs = [SignalSpec.from_json(s) for s in known]
            if sum(s.size for s in specs) != c.size or not all(isinstance(s.name, str) for s in specs):
                raise ValueError
        except (KeyError, TypeError, ValueError, AttributeError):
            shape = () if c.shape == (1,) else c.shape
            return [Timed(SignalSpec(key, shape, c.dtype, rate_hz=rate), t_ns, values.reshape(len(t_ns), *shape))]
        flat, at, out = values.reshape(len(t_ns), -1), 0, []
        for s in specs:
            part = flat[:, at : at + s.size].reshape(len(t_ns), *s.shape)
            out.append(Timed(replace(s, dtype=c.dtype, rate_hz=rate), t_ns, part))
            at += s.size
        return out

    def _instruction(self, t_ns: NDArray[np.int64]) -> tuple[str, tuple[Event, ...]]:
        """What was asked first, and an event for every change."""
        if not self.tasks:
            return (self.entry.tasks or ("",))[0], ()
        numbers = np.concatenate(self.tasks)
        for n in np.unique(numbers).tolist():
            if n not in self.folder.tasks:
                raise Damaged(f"task {n} has no text", where=self.where)
        changes = np.flatnonzero(np.diff(numbers)) + 1
        events = tuple(Event(int(t_ns[i]), "instruction", self.folder.tasks[int(numbers[i])]) for i in changes)
        return self.folder.tasks[int(numbers[0])], events

    def _labels(self) -> dict[str, Any]:
        extra, labels = self.entry.extra, {}
        if isinstance(extra.get("labels"), str):
            try:
                labels = dict(json.loads(extra["labels"]))
            except (ValueError, TypeError, RecursionError):
                self.intake.note("unmapped", f"{self.where}: labels are not JSON")
        else:
            names = {k: list(self.folder.columns[k].names) for k in self.signals if self.folder.columns[k].names}
            labels = {"episode_index": self.entry.index} | ({"names": names} if names else {})
        for theirs, ours in (("episode_digest", "imported_episode"), ("log_digest", "imported_log")):
            if isinstance(extra.get(theirs), str) and extra[theirs]:
                labels[ours] = extra[theirs]
        if extra.get("verdict"):
            labels["imported_verdict"] = str(extra["verdict"])
        return labels


def _camera(key: str) -> str:
    return "camera." + key.removeprefix(IMAGES)
