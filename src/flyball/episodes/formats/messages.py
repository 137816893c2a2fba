"""What the messages of a log mean: topics become signals, pictures, transforms, events and labels.

In: channels with their definitions, and the payloads of each, piece by piece. Out: ``Contents``. It is the same for
every container (MCAP, ROS bags); memory is bounded by ``PENDING`` and by the intake. The rules:

- A signal is named after its topic and field: ``/joint_states`` gives ``joint_states.position``, ... A message with one
  field besides its header takes the topic's name: a PoseStamped on ``/cube/pose`` is the signal ``cube.pose``.
- Poses are x y z qw qx qy qz; twists and wrenches have 6 elements, the linear part first. A transform to the frame
  ``hand`` on ``/tf`` is the signal ``tf.hand``.
- Text that never changes becomes a label (the header's frame: the signal's frame). Text that does becomes events: one
  per change; one per message where a message holds nothing but text. Log messages (rosout) are events.
- Pictures become frames, see ``formats.pictures``.
- Time is the stamp in the header, or in a field ``timestamp`` or ``stamp``, unless it is absurd (see
  ``formats.clocks``); else the log time.
- What has no fixed shape over the whole log, is a run of more than ``MAX_BYTES`` bytes, belongs to a message larger
  than ``LARGE``, or cannot be decoded, stays in the raw log alone: a note, and the label ``undecoded``, name it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, SignalSpec, Timed, Unsupported
from flyball.episodes.episode import Event, Frames
from flyball.episodes.formats import OURS
from flyball.episodes.formats.clocks import Clock, Times, rate_hz, stamp_ns
from flyball.episodes.formats.mcap import Channel
from flyball.episodes.formats.payloads import MAX_ELEMENTS, Column, Decoder, Path, decoder
from flyball.episodes.formats.payloads.packed import joined, sizes
from flyball.episodes.formats.pictures import PICTURES, Pictures
from flyball.episodes.formats.ros2 import VECTORS
from flyball.episodes.intake import Column as Growing
from flyball.episodes.intake import Intake

LARGE = 64 << 10  # bytes of a message beyond which it is media, not a signal
MAX_BYTES = 64  # uint8 in one field beyond which they are data of some kind, not numbers
MAX_EVENTS = 200_000  # of one log
PENDING = 24 << 20  # bytes of payload that wait to be decoded together, over all topics
_TOPIC_PENDING = 4 << 20
_LOGS = ("rcl_interfaces/Log", "rosgraph_msgs/Log", "foxglove.Log")
_TRANSFORMS = ("tf2_msgs/TFMessage", "tf/tfMessage", "foxglove.FrameTransforms", "foxglove.FrameTransform")
_STAMPS: tuple[Path, ...] = (("header", "stamp"), ("timestamp",), ("stamp",))
_HEADS = {head[0] for head in _STAMPS}


@dataclass
class Contents:
    """What a log holds; see ``Episode`` for the first four.

    Attributes:
      undecoded: what stays in the raw log alone, one line each.
    """

    signals: dict[str, Timed] = field(default_factory=dict)
    frames: dict[str, Frames] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    labels: dict[str, Any] = field(default_factory=dict)
    undecoded: list[str] = field(default_factory=list)


class Messages:
    """Collects the messages of one log.

    Args:
      intake: room and reports; with ``salvage``, messages that do not fit their definition are left out and counted.
      where: the file, for error messages.
    """

    def __init__(self, intake: Intake, where: str) -> None:
        self._intake, self._where = intake, where
        self._topics: dict[Any, _Topic] = {}
        self._refused: dict[Any, str] = {}
        self._by_channel: dict[int, tuple[Channel, Any]] = {}

    def wanted(self, channel: Channel) -> bool:
        """False once it is known that nothing can be made of a channel: its payloads need not be read."""
        return self._key(channel) not in self._refused

    def add(self, channel: Channel, log_ns: NDArray[Any], publish_ns: NDArray[Any], payloads: Sequence[bytes]) -> None:
        """Further messages of a channel, in the order of the log.

        Args:
          channel: topic, encoding and definition; channels that differ in nothing else are one topic.
          log_ns, publish_ns: time stamps [ns], shape (n,).
          payloads: n of them.

        Raises:
          Damaged: they do not fit the definition, or a log time lies beyond the year 2262.
          NotPossible: the library that decodes them is missing.
        """
        key = self._key(channel)
        if not len(payloads) or key in self._refused:
            return
        with self._guarded(key):
            if key not in self._topics:
                self._topics[key] = _made(channel, self._intake)
            if int(log_ns.max()) >= 1 << 63:
                if not self._intake.salvage:
                    raise Damaged("a time stamp beyond the year 2262")
                self._intake.note("salvaged", f"{channel.topic}: messages of a time beyond the year 2262, left out")
                sound = np.flatnonzero(log_ns < np.uint64(1 << 63))
                log_ns, publish_ns, payloads = log_ns[sound], publish_ns[sound], [payloads[i] for i in sound.tolist()]
            if len(payloads):
                self._topics[key].add(log_ns.astype(np.int64), publish_ns, payloads)
        if sum(t.waiting for t in self._topics.values()) > PENDING:
            for other, topic in list(self._topics.items()):
                with self._guarded(other):
                    topic.flush()

    def finish(self) -> Contents:
        """Everything that was added.

        Raises:
          Damaged: see ``add``.
        """
        out = Contents()
        for key, topic in sorted(self._topics.items(), key=lambda item: (item[1].channel.topic, item[1].channel.id)):
            with self._guarded(key):
                topic.flush()
                topic.finish(out)
        out.undecoded += self._refused.values()
        out.events.sort(key=lambda e: e.t_ns)
        if len(out.events) > MAX_EVENTS:
            self._intake.note("skipped", f"{len(out.events) - MAX_EVENTS} events beyond the first {MAX_EVENTS}")
            del out.events[MAX_EVENTS:]
        for line in sorted(set(out.undecoded)):
            self._intake.note("unmapped", line)
        return out

    def _key(self, channel: Channel) -> Any:
        known = self._by_channel.get(channel.id)
        if known is None or known[0] is not channel:
            known = (channel, (channel.topic, channel.message_encoding, channel.schema, channel.metadata.get(OURS)))
            self._by_channel[channel.id] = known
        return known[1]

    @contextmanager
    def _guarded(self, key: Any) -> Iterator[None]:
        """Errors get the topic's name; what is not supported is reported, and the topic forgotten."""
        try:
            yield
        except Unsupported as err:
            self._topics.pop(key, None)
            self._refused[key] = f"{key[0]}: {err.what}" + (f" ({err.where})" if err.where else "")
        except Damaged as err:
            raise Damaged(f"{key[0]}: {err.what}", where=self._where, allowed=err.allowed) from err


def _made(channel: Channel, intake: Intake) -> _Topic:
    """Raises Unsupported, Damaged, NotPossible: see ``payloads.decoder``."""
    s = channel.schema
    made = decoder(channel.message_encoding, s.name if s else "", s.encoding if s else "", s.data if s else b"")
    kind = made.name.replace("foxglove_msgs/", "foxglove.")
    if OURS not in channel.metadata:
        if kind in PICTURES:
            return _PictureTopic(channel, made, intake)
        if kind in _TRANSFORMS:
            return _TransformTopic(channel, made, intake)
    return _Topic(channel, made, intake, kind)


class _Topic:
    """Messages of one topic that become signals, events and labels."""

    def __init__(self, channel: Channel, made: Decoder, intake: Intake, kind: str = "") -> None:
        self.channel, self.decoder, self.intake, self.kind = channel, made, intake, kind
        self.name = channel.topic.strip("/").replace("/", ".") or "root"
        self.clock = Clock(intake)
        self.waiting = 0
        self._pending: list[tuple[NDArray[np.int64], NDArray[Any], Sequence[bytes]]] = []
        self._growing: dict[Path, tuple[Growing, str]] = {}
        self._texts: dict[Path, _Text] = {}
        self._varying: dict[str, None] = {}
        self._left_out = 0

    def add(self, log_ns: NDArray[np.int64], publish_ns: NDArray[Any], payloads: Sequence[bytes]) -> None:
        bytes_ = sizes(payloads)
        size = int(bytes_.sum())
        if size > LARGE and bytes_.max() > LARGE and OURS not in self.channel.metadata:
            raise Unsupported(f"messages larger than {LARGE >> 10} KiB")
        self._pending.append((log_ns, publish_ns, payloads))
        self.waiting += size + 64 * len(payloads)
        if self.waiting > _TOPIC_PENDING:
            self.flush()

    def flush(self) -> None:
        """Decode what waits."""
        if not self._pending:
            return
        logs, publishes, bodies = zip(*self._pending, strict=True)
        self._pending, self.waiting = [], 0
        log_ns, publish_ns = np.concatenate(logs), np.concatenate(publishes)
        payloads = joined(bodies)
        try:
            self._take(log_ns, publish_ns, payloads)
        except Damaged:
            if not self.intake.salvage:
                raise
            sound = [i for i, p in enumerate(payloads) if self._fits(p)]
            self._left_out += len(payloads) - len(sound)
            if sound:
                self._take(log_ns[sound], publish_ns[sound], [payloads[i] for i in sound])

    def _fits(self, payload: bytes) -> bool:
        try:
            self.decoder.row(payload)
        except Damaged:
            return False
        return True

    def _take(self, log_ns: NDArray[np.int64], publish_ns: NDArray[Any], payloads: Sequence[bytes]) -> None:
        columns, varying = self.decoder.decode(payloads)
        by_path = {c.path: c for c in columns}
        first = self.clock.n == 0
        self._varying |= dict.fromkeys(varying)
        for path in [*self._growing, *self._texts]:
            if path not in by_path:
                self._vary(path)
        numbers = any(isinstance(c.values, np.ndarray) and c.path[0] not in _HEADS for c in columns)
        every = not numbers or self.kind in _LOGS or OURS in self.channel.metadata
        for path, column in by_path.items():
            self._append(path, column, first, every)
        self.clock.add(log_ns, publish_ns, self._stamps(by_path))

    def _append(self, path: Path, column: Column, first: bool, every: bool) -> None:
        """Add a column's samples; one that was not there from the beginning, or looks different now, varies."""
        if isinstance(column.values, list):
            if first:
                self._texts[path] = _Text(every)
            if path in self._texts:
                self._texts[path].add(column.values)
            else:
                self._vary(path)
            return
        if first:
            grown = self.intake.column(column.values.dtype, column.values.shape[1:])
            self._growing[path] = (grown, column.unit)
        known = self._growing.get(path)
        if known is None or known[0].shape != column.values.shape[1:] or known[0].dtype != column.values.dtype:
            self._vary(path)
        elif column.values.size:
            known[0].append(column.values)

    def _vary(self, path: Path) -> None:
        self._growing.pop(path, None)
        self._texts.pop(path, None)
        self._varying[".".join(path)] = None

    def _stamps(self, by_path: dict[Path, Column]) -> NDArray[np.int64] | None:
        for head in _STAMPS:
            parts = [by_path.get((*head, k)) for k in ("sec", "nanosec")]
            if all(p is not None and isinstance(p.values, np.ndarray) and p.values.ndim == 1 for p in parts):
                return stamp_ns(*(np.asarray(p.values) for p in parts if p is not None))
        return None

    def finish(self, out: Contents) -> None:
        """Put what there is into ``out``."""
        topic = self.channel.topic
        if self._left_out:
            self.intake.note("salvaged", f"{topic}: {self._left_out} messages do not fit their definition, left out")
        if not self.clock.n:
            return
        if OURS in self.channel.metadata:
            self._finish_ours(out)
            return
        times = self.clock.settle(topic)
        out.labels.setdefault("clocks", {})[topic] = times.facts
        if self.kind in _LOGS:
            self._log(times, out, "msg" if ("msg",) in self._texts else "message")
            return
        out.undecoded += [f"{topic}: {name} has no fixed shape" for name in self._varying]
        heads, frame = self._head()
        fields = self.decoder.fields or tuple(dict.fromkeys(p[0] for p in [*self._growing, *self._texts]))
        single = len([f for f in fields if f not in heads]) == 1
        for path, text in self._texts.items():
            if path[0] not in heads:
                self._text(".".join((self.name, *path[1 if single else 0 :])), times, text, out)
        t_ns = times.sorted_ns
        rate = rate_hz(t_ns)
        for path, known in self._growing.items():
            if path[0] in heads:
                continue
            grown, unit = known
            if grown.dtype == np.uint8 and grown.shape and np.prod(grown.shape) > MAX_BYTES:
                out.undecoded.append(f"{topic}: {'.'.join(path)} is {np.prod(grown.shape)} bytes, not numbers")
            elif np.prod(grown.shape):
                name = ".".join((self.name, *path[1 if single else 0 :]))
                spec = SignalSpec(name, grown.shape, grown.dtype.name, unit, rate, frame)
                _put(out, Timed(spec, t_ns, grown.ordered(times.order)), topic)

    def _head(self) -> tuple[set[str], str]:
        """The outermost fields that say when and in which frame, and that frame when there is one only."""
        heads: set[str] = set()
        for head in _STAMPS:
            if (*head, "sec") in self._growing:
                heads.add(head[0])
                break
        if not heads and ("header", "frame_id") in self._texts:
            heads.add("header")
        path = ("header", "frame_id") if "header" in heads else ("frame_id",)
        text = self._texts.get(path)
        if heads and path == ("frame_id",) and text is not None:
            heads.add("frame_id")
        return heads, text.only if heads and text is not None else ""

    def _finish_ours(self, out: Contents) -> None:
        topic = self.channel.topic
        times = self.clock.settle(topic, ours=True)
        try:
            spec = json.loads(self.channel.metadata[OURS])
            if spec == "events":
                self._log(times, out, "msg")
                return
            spec = SignalSpec.from_json(spec)
            grown, _ = self._growing[("values",)]
            values = grown.ordered(times.order).reshape(self.clock.n, *spec.shape)
        except (ValueError, KeyError, TypeError) as err:
            raise Damaged(f"its messages do not fit their specification ({err})") from err
        _put(out, Timed(spec, times.sorted_ns, values.astype(spec.dtype, copy=False)), topic)

    def _log(self, times: Times, out: Contents, message: str) -> None:
        names, texts = self._texts.get(("name",)), self._texts.get((message,))
        if names is None or texts is None:
            wrong = Damaged if OURS in self.channel.metadata else Unsupported
            raise wrong("log messages without name and text")
        rows = zip(names.at, names.said, texts.said, strict=True)
        out.events += [Event(int(times.t_ns[i]), name, text) for i, name, text in rows]
        self._cut(names)

    def _cut(self, text: _Text) -> None:
        if text.lost:
            self.intake.note("skipped", f"{self.channel.topic}: {text.lost} events beyond the first {MAX_EVENTS}")

    def _text(self, name: str, times: Times, text: _Text, out: Contents) -> None:
        if text.changes:
            self._cut(text)
            out.events += [Event(int(times.t_ns[i]), name, said) for i, said in zip(text.at, text.said, strict=True)]
        elif "[" in name:
            out.labels.setdefault(re.sub(r"\[\d+\]", "", name), []).append(text.only)
        elif text.only:
            out.labels[name] = text.only


class _Text:
    """What a field of text said: ``said[i]`` in message ``at[i]``, where it changed or ``every`` one counts."""

    def __init__(self, every: bool) -> None:
        self.every = every
        self.at: list[int] = []
        self.said: list[str] = []
        self.changes = False
        self.lost = self._n = 0

    def add(self, texts: list[str]) -> None:
        last = self.said[-1] if self.said else None
        same = texts.count(texts[0]) == len(texts)
        if self.every:
            rows = list(range(len(texts)))
        elif same:
            rows = [0] if texts[0] != last else []
        else:
            rows = [i for i, text in enumerate(texts) if text != (texts[i - 1] if i else last)]
        self.changes = self.changes or not same or (last is not None and texts[0] != last)
        kept = rows[: max(0, MAX_EVENTS - len(self.at))]
        self.lost += len(rows) - len(kept)
        self.at += [self._n + i for i in kept]
        self.said += [texts[i] for i in kept]
        self._n += len(texts)

    @property
    def only(self) -> str:
        """The text, "" when there were several."""
        return "" if self.changes else self.said[0]


class _PictureTopic(_Topic):
    """Messages that are pictures: each goes straight into the blob."""

    def __init__(self, channel: Channel, made: Decoder, intake: Intake) -> None:
        super().__init__(channel, made, intake)
        self.pictures = Pictures(self.name, intake)

    def add(self, log_ns: NDArray[np.int64], publish_ns: NDArray[Any], payloads: Sequence[bytes]) -> None:
        kept, stamps = [], []
        for i, payload in enumerate(payloads):
            try:
                row = self.decoder.row(payload)
            except Damaged:
                if not self.intake.salvage:
                    raise
                self._left_out += 1
                continue
            if self.pictures.add(row):
                kept.append(i)
                stamps.append(next(((row[*h, "sec"], row[*h, "nanosec"]) for h in _STAMPS if (*h, "sec") in row), None))
        if kept:
            parts = np.array([s or (-1, 0) for s in stamps])
            stamp = stamp_ns(parts[:, 0], parts[:, 1]) if any(stamps) else None
            self.clock.add(log_ns[kept], publish_ns[kept], stamp)

    def finish(self, out: Contents) -> None:
        if self._left_out:
            said = f"{self.channel.topic}: {self._left_out} pictures do not fit their definition, left out"
            self.intake.note("salvaged", said)
        frames, times = self.pictures.finish(self.clock)
        if frames.name in out.frames:
            out.undecoded.append(f"{self.channel.topic}: pictures of a second type under the same name")
            return
        out.frames[frames.name] = frames
        out.labels.setdefault("clocks", {})[self.channel.topic] = times.facts


class _TransformTopic(_Topic):
    """Messages that hold transforms between frames, any number at a time: one signal per child frame."""

    def __init__(self, channel: Channel, made: Decoder, intake: Intake) -> None:
        super().__init__(channel, made, intake, made.name)
        self._links: dict[tuple[str, str], tuple[Clock, Growing]] = {}

    def _take(self, log_ns: NDArray[np.int64], publish_ns: NDArray[Any], payloads: Sequence[bytes]) -> None:
        columns, varying = self.decoder.decode(payloads)
        if not varying and not any(isinstance(c.values, list) and len(set(c.values)) > 1 for c in columns):
            by_path = {c.path: c.values for c in columns}
            for prefix in _transforms(by_path):
                self._link(
                    prefix,
                    {p: v if isinstance(v, np.ndarray) else v[0] for p, v in by_path.items()},
                    log_ns,
                    publish_ns,
                )
            return
        for i, payload in enumerate(payloads):
            row = self.decoder.row(payload)
            lifted = {p: v if isinstance(v, str) else np.asarray(v)[None] for p, v in row.items()}
            for prefix in _transforms(row):
                self._link(prefix, lifted, log_ns[i : i + 1], publish_ns[i : i + 1])

    def _link(self, prefix: Path, values: dict[Path, Any], log_ns: NDArray[np.int64], publish_ns: NDArray[Any]) -> None:
        parent = next((values[p] for p in _at(prefix, ("header", "frame_id"), ("parent_frame_id",)) if p in values), "")
        whole = values.get((*prefix, "transform"))
        if whole is None:
            whole = np.concatenate([values[(*prefix, "translation")], values[(*prefix, "rotation")]], axis=-1)
        key = (parent, values[(*prefix, "child_frame_id")])
        if key not in self._links:
            if len(self._links) >= MAX_ELEMENTS:
                raise Unsupported(f"more than {MAX_ELEMENTS} frames")
            self._links[key] = (Clock(self.intake), self.intake.column(np.float64, (7,)))
        clock, grown = self._links[key]
        grown.append(whole)
        head = next((p for p in _at(prefix, *_STAMPS) if (*p, "sec") in values), None)
        stamp = None if head is None else stamp_ns(values[*head, "sec"], values[*head, "nanosec"])
        clock.add(log_ns, publish_ns, stamp)

    def finish(self, out: Contents) -> None:
        topic = self.channel.topic
        if self._left_out:
            self.intake.note("salvaged", f"{topic}: {self._left_out} messages do not fit their definition, left out")
        for (parent, child), (clock, grown) in self._links.items():
            times = clock.settle(f"{topic} {child}")
            t_ns = times.sorted_ns
            spec = SignalSpec(
                f"{self.name}.{child}", (7,), "float64", VECTORS["geometry_msgs/Transform"][1], rate_hz(t_ns), parent
            )
            if spec.name in out.signals:
                out.undecoded.append(f"{topic}: {child} has a second parent, {parent}")
                continue
            _put(out, Timed(spec, t_ns, grown.ordered(times.order)), topic)
            out.labels.setdefault("clocks", {})[f"{topic} {child}"] = times.facts


def _transforms(paths: Iterable[Path]) -> list[Path]:
    """Where transforms lie in a message: the paths of the fields above ``child_frame_id``."""
    return [p[:-1] for p in paths if p[-1] == "child_frame_id"]


def _at(prefix: Path, *paths: Path) -> list[Path]:
    return [(*prefix, *p) for p in paths]


def _put(out: Contents, signal: Timed, topic: str) -> None:
    """Add a signal; a second one of that name continues it, as after a restart with another definition."""
    name = signal.spec.name
    old = out.signals.get(name)
    if old is not None:
        if old.spec.shape != signal.spec.shape or old.spec.dtype != signal.spec.dtype:
            out.undecoded.append(f"{topic}: a second type or shape under the name {name}")
            return
        t_ns = np.concatenate([old.t_ns, signal.t_ns])
        order = np.argsort(t_ns, kind="stable")
        signal = Timed(old.spec, t_ns[order], np.concatenate([old.values, signal.values])[order])
    out.signals[name] = signal
