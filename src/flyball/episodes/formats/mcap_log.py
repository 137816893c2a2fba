"""MCAP logs as episodes: our own recordings, and ROS 2 logs from anywhere.

In: the bytes of a file. Out: one ``Episode``; one file is one episode. The rules for logs that are not ours:

- A signal is named after its topic and field: ``/joint_states`` gives ``joint_states.position``, ... A message with one
  field besides its header takes the topic's name: a PoseStamped on ``/cube/pose`` is the signal ``cube.pose``.
- Poses are x y z qw qx qy qz; twists and wrenches have 6 elements, the linear part first.
- Time is the header's stamp where messages have one within 10 s of the log time, else the log time.
- Text that never changes becomes a label (the header's frame: the signal's frame); text that does becomes events.
- Metadata records become labels, numbers as numbers, and so does a file name like ``sweep_kp100`` (``kp``: 100) or
  ``toss_012`` (``toss``: 12). The embodiment is the metadata's ``embodiment``, else the name of the folder
  (``unknown`` for files that lie in the inbox itself).
- What has no fixed shape, is larger than 64 KiB or is not CDR stays in the raw log alone; the label ``undecoded``
  names the topics.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, SignalSpec, Timed, Unsupported
from flyball.episodes.episode import Episode, Event, Origin
from flyball.episodes.formats import OURS, ros2
from flyball.episodes.formats.mcap import Channel, McapFile
from flyball.episodes.intake import Intake

LARGE = 64 << 10  # bytes of a message beyond which it is media, not a signal
MAX_KEPT = 2 << 30  # bytes of payload that one episode may hold in memory
STAMP_NEAR_NS = 10 * 10**9


class McapLog:
    """The log format ``mcap``."""

    suffixes = (".mcap",)

    def claims(self, folder: Path) -> bool:
        """See ``LogFormat.claims``."""
        return False

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """See ``LogFormat.read``."""
        file = McapFile(path.read_bytes(), str(path))
        signals: dict[str, Timed] = {}
        events: list[Event] = []
        labels: dict[str, Any] = {}
        undecoded: list[str] = []
        for channel, times, payloads in _payloads(file, undecoded):
            try:
                part = _Part(channel, times, payloads)
            except Unsupported as err:
                undecoded.append(f"{channel.topic}: {err.what}")
                continue
            except Damaged as err:
                raise Damaged(f"{channel.topic}: {err.what}", where=str(path)) from err
            for signal in part.signals:
                old = signals.get(signal.spec.name)
                signals[signal.spec.name] = signal if old is None else _merged(old, signal)
            events += part.events
            labels |= part.labels
            undecoded += part.undecoded
        if undecoded:
            labels["undecoded"] = sorted(set(undecoded))
        ours = _our_record(file, path)
        if ours is None and not signals and not events:
            raise InputError(
                "holds no messages" if not undecoded else f"nothing that can be decoded ({'; '.join(undecoded)})",
                where=str(path),
            )
        facts = ours if ours is not None else _foreign_facts(file, path, labels)
        yield replace(
            facts,
            signals=dict(sorted(signals.items())),
            events=tuple(sorted(events, key=lambda e: e.t_ns)),
            labels={**labels, **facts.labels},
        )


FORMAT = McapLog()


class _Part:
    """What one channel contributes."""

    def __init__(self, channel: Channel, log_ns: NDArray[np.int64], payloads: list[bytes]) -> None:
        self.signals: list[Timed] = []
        self.events: list[Event] = []
        self.labels: dict[str, Any] = {}
        self.undecoded: list[str] = []
        schema = channel.schema
        if channel.message_encoding != "cdr" or schema is None or schema.encoding != "ros2msg":
            described = f"{channel.message_encoding or 'unknown'}/{schema.encoding if schema else 'no schema'}"
            raise Unsupported(f"encoding {described}", allowed="cdr/ros2msg")
        try:
            types = ros2.parse(schema.name, schema.data.decode())
        except UnicodeDecodeError as err:
            raise Damaged("the schema is not text") from err
        root = ros2.plain(schema.name)
        columns, varying = ros2.decode(types, root, payloads)
        if OURS in channel.metadata:
            self._ours(channel, log_ns, columns)
        elif root == "rcl_interfaces/Log":
            texts = {c.path: c.values for c in columns}
            self._log(log_ns, texts)
        else:
            self._foreign(channel, log_ns, columns, varying, len(types[root]))

    def _ours(self, channel: Channel, log_ns: NDArray[np.int64], columns: list[ros2.Column]) -> None:
        try:
            spec = json.loads(channel.metadata[OURS])
            if spec == "events":
                self._log(log_ns, {c.path: c.values for c in columns})
                return
            spec = SignalSpec.from_json(spec)
            values = next(c.values for c in columns if c.path == ("values",))
            values = np.asarray(values).reshape(len(log_ns), *spec.shape)
        except (ValueError, KeyError, TypeError, StopIteration) as err:
            raise Damaged(f"its messages do not fit their specification ({err})") from err
        self._add(spec, log_ns, values.astype(spec.dtype, copy=False))

    def _log(self, log_ns: NDArray[np.int64], texts: dict[tuple[str, ...], Any]) -> None:
        if ("name",) not in texts or ("msg",) not in texts:
            raise Damaged("log messages without name and msg")
        rows = zip(log_ns.tolist(), texts[("name",)], texts[("msg",)], strict=True)
        self.events += [Event(t, name, text) for t, name, text in rows]

    def _foreign(
        self, channel: Channel, log_ns: NDArray[np.int64], columns: list[ros2.Column], varying: list[str], fields: int
    ) -> None:
        by_path = {c.path: c.values for c in columns}
        head = next((c.path[:-1] for c in columns if c.path[-2:] == ("header", "frame_id")), None)
        if head != ("header",):  # only the outermost header speaks for the whole message
            head = None
        t_ns = log_ns
        frame = ""
        if head:
            seconds, nanos = (np.asarray(by_path[("header", "stamp", k)]).astype(np.int64) for k in ("sec", "nanosec"))
            stamp = seconds * 10**9 + nanos
            if np.median(np.abs(stamp - log_ns)) < STAMP_NEAR_NS:
                t_ns = stamp
            frames = set(by_path[("header", "frame_id")])
            frame = frames.pop() if len(frames) == 1 else ""
        topic = channel.topic.strip("/").replace("/", ".") or "root"
        single = fields - bool(head) == 1
        self.undecoded += [f"{channel.topic}: {name} has no fixed shape" for name in varying]
        for column in columns:
            if head and column.path[0] == "header":
                continue
            name = ".".join((topic, *column.path[1 if single else 0 :]))
            if isinstance(column.values, list):
                self._text(name, t_ns, column.values)
                continue
            values = column.values
            if values[0].size:
                spec = SignalSpec(name, values.shape[1:], values.dtype.name, column.unit, _rate_hz(t_ns), frame)
                self._add(spec, t_ns, values)

    def _text(self, name: str, t_ns: NDArray[np.int64], texts: list[str]) -> None:
        if len(set(texts)) > 1:
            self.events += [Event(t, name, text) for t, text in zip(t_ns.tolist(), texts, strict=True)]
        elif "[" in name:
            self.labels.setdefault(re.sub(r"\[\d+\]", "", name), []).append(texts[0])
        elif texts[0]:
            self.labels[name] = texts[0]

    def _add(self, spec: SignalSpec, t_ns: NDArray[np.int64], values: NDArray[Any]) -> None:
        order = np.argsort(t_ns, kind="stable")
        self.signals.append(Timed(spec, t_ns[order], values[order]))


def _payloads(file: McapFile, undecoded: list[str]) -> Iterable[tuple[Channel, NDArray[np.int64], list[bytes]]]:
    """Per channel, in order of topic: the log times [ns] and payloads of its messages."""
    times: dict[int, list[NDArray[np.uint64]]] = {}
    bodies: dict[int, list[bytes]] = {}
    large: set[int] = set()
    kept = 0
    for block in file.blocks():
        size = block.stop - block.start
        too_large = size > LARGE
        large |= set(np.unique(block.channel[too_large]).tolist())
        kept += int(size[~too_large].sum())
        if kept > MAX_KEPT:
            raise Unsupported(f"more than {MAX_KEPT >> 30} GiB of messages in one file", where=file.name)
        for c in np.unique(block.channel).tolist():
            if c in large:
                continue
            rows = block.channel == c
            times.setdefault(c, []).append(block.log_ns[rows])
            spans = zip(block.start[rows].tolist(), block.stop[rows].tolist(), strict=True)
            bodies.setdefault(c, []).extend([block.data[a:b] for a, b in spans])
    undecoded += [f"{file.channels[c].topic}: messages larger than {LARGE >> 10} KiB" for c in sorted(large)]
    for c in sorted(set(bodies) - large, key=lambda c: (file.channels[c].topic, c)):
        log = np.concatenate(times[c])
        if int(log.max()) >= 1 << 63:
            raise Damaged(f"{file.channels[c].topic}: a time stamp beyond the year 2262", where=file.name)
        yield file.channels[c], log.astype(np.int64), bodies[c]


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


def _rate_hz(t_ns: NDArray[np.int64]) -> float:
    """The rate of a regular signal; 0 where the median period is missed by more than 5 %."""
    if len(t_ns) < 3:
        return 0.0
    steps = np.diff(np.sort(t_ns)).astype(np.float64)
    period = float(np.median(steps))
    return round(1e9 / period, 3) if period > 0 and np.abs(steps - period).max() <= 0.05 * period else 0.0


def _merged(a: Timed, b: Timed) -> Timed:
    """Two stretches of one signal, e.g. from before and after a publisher restarted."""
    if a.spec.shape != b.spec.shape or a.spec.dtype != b.spec.dtype:
        raise Unsupported("two shapes or types under one name", where=a.spec.name)
    t_ns = np.concatenate([a.t_ns, b.t_ns])
    order = np.argsort(t_ns, kind="stable")
    return Timed(a.spec, t_ns[order], np.concatenate([a.values, b.values])[order])
