"""Recording on the robot: signals and events of one attempt into one MCAP file.

In: samples by name. Out: a complete, fsynced file under its final name, or, after a kill, only ``NAME.part``. Needs
numpy and foxglove-sdk. Every signal is a topic of its own, a stamped array in CDR that Foxglove can plot and that
``formats.mcap_log`` reads back without loss; its ``SignalSpec`` travels in the channel's metadata.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, get_args

import foxglove.channel
import numpy as np
from foxglove import Channel, Context, MCAPWriter, Schema, open_mcap
from foxglove.mcap import MCAPWriteOptions
from numpy.typing import ArrayLike

from flyball.base import Conflict, InputError, NotPossible, SignalSpec
from flyball.base.durable import move_durably
from flyball.episodes.episode import Origin
from flyball.episodes.formats import OURS
from flyball.robots import Embodiment

FIELDS = ("robot", "task", "instruction", "origin", "release", "scene", "seed", "labels")
CHUNK_BYTES = 64 << 10  # small, so that little is lost with the last chunk of an attempt that a power cut ended
MAX_T_NS = (2**31 - 1) * 10**9  # ROS 2 stamps hold 31 bits of seconds

_STAMP = "\n" + "=" * 80 + "\nMSG: builtin_interfaces/Time\nint32 sec\nuint32 nanosec"
_ROS_TYPES = ("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")
_LOG = (
    "builtin_interfaces/Time stamp\nuint8 level\nstring name\nstring msg\nstring file\nstring function\nuint32 line"
    + _STAMP
)
_INFO = 20


class Recorder:
    """Records one attempt.

    Args:
      path: the file to make, ``*.mcap``; it appears on ``close``.
      embodiment: its observations and actions are recorded under their own specifications.
      metadata: any of ``robot, task, instruction, origin, release, scene, seed, labels`` (see ``Episode``).
      signals: specifications of further signals; a name that nobody specified is taken as float64 of the shape of its
        first sample.

    Raises:
      InputError: unknown metadata, or the folder cannot be written.
      Conflict: the file exists.
    """

    def __init__(
        self,
        path: Path | str,
        embodiment: Embodiment,
        metadata: Mapping[str, Any] | None = None,
        *,
        signals: Iterable[SignalSpec] = (),
    ) -> None:
        self.path = Path(path)
        self._facts: dict[str, Any] = dict(metadata or {})
        unknown = sorted(set(self._facts) - set(FIELDS))
        if unknown:
            raise InputError(f"unknown metadata {unknown[0]!r}", where=str(self.path), allowed=", ".join(FIELDS))
        if self._facts.get("origin", "fleet") not in get_args(Origin):
            raise InputError(
                f"unknown origin {self._facts['origin']!r}", where=str(self.path), allowed=", ".join(get_args(Origin))
            )
        self._specs = {s.name: s for s in (*embodiment.observations, *embodiment.actions, *signals)}
        self._facts |= {"embodiment": embodiment.name, "spec_hash": embodiment.spec_hash()}
        self._facts["signals"] = [s.to_json() for s in self._specs.values()]
        record = self._encoded()
        self._part = self.path.with_name(self.path.name + ".part")
        self._context = Context()
        self._channels: dict[str, Channel] = {}
        self._written: dict[str, tuple[SignalSpec, np.dtype[Any]]] = {}
        if self.path.exists():
            raise Conflict("a recording of this name exists", where=str(self.path))
        options = MCAPWriteOptions(chunk_size=CHUNK_BYTES, compression_threads=0, profile="ros2")
        try:
            self._writer: MCAPWriter | None = open_mcap(
                self._part, allow_overwrite=True, context=self._context, writer_options=options
            )
        except Exception as err:
            raise InputError(f"cannot record here ({err})", where=str(self.path)) from err
        self._write_metadata(record)  # at the beginning too, so that an unfinished file says what it is

    def write(self, name: str, t_ns: int, values: ArrayLike) -> None:
        """One sample.

        Args:
          name: signal name.
          t_ns: time stamp, 0 up to the year 2038 [ns].
          values: of the signal's shape.

        Raises:
          InputError: another shape than specified, or a time out of range; nothing is written then.
        """
        if name not in self._written:
            self._open_signal(name, values)
        spec, dtype = self._written[name]
        array = np.asarray(values)
        fits = array.shape == spec.shape and array.dtype.kind in "biuf"
        if fits:
            with np.errstate(invalid="ignore"):
                sent = array.astype(dtype, copy=False)
            fits = dtype.kind == "f" or bool((sent == array).all())
        if not fits:
            raise InputError(
                f"a sample of shape {array.shape}, {array.dtype}", where=name, allowed=f"{spec.shape}, {spec.dtype}"
            )
        body = sent.tobytes()
        # CDR: sec, nanosec, count (12 bytes), then the elements, aligned to their size.
        gap = b"\0\0\0\0" if dtype.itemsize == 8 and body else b""
        head = b"\0\1\0\0" + self._stamp(t_ns, name) + array.size.to_bytes(4, "little")
        self._channels[name].log(head + gap + body, log_time=int(t_ns))

    def event(self, t_ns: int, name: str, text: str = "") -> None:
        """Something that happened: ``crushed``, ``supervisor.stop``, ... Shown by Foxglove's log panel."""
        if self._writer is None:
            raise InputError("the recording is closed", where=str(self.path))
        if "" not in self._channels:
            self._open_channel("", "/events", "rcl_interfaces/msg/Log", _LOG, "events")
        out = bytearray(b"\0\1\0\0" + self._stamp(t_ns, name) + bytes([_INFO]))
        for part in (name, text, "", ""):
            raw = part.encode().replace(b"\0", b"") + b"\0"
            out += b"\0" * (-(len(out) - 4) % 4) + len(raw).to_bytes(4, "little") + raw
        out += b"\0" * (-(len(out) - 4) % 4) + (0).to_bytes(4, "little")
        self._channels[""].log(bytes(out), log_time=int(t_ns))

    def close(self, labels: Mapping[str, Any] | None = None) -> Path:
        """Finish: the complete file is on disk under its final name. Safe to call twice.

        Args:
          labels: further labels, known only now.

        Raises:
          NotPossible: the disk is full.
        """
        if self._writer is not None:
            self._facts["labels"] = {**self._facts.get("labels", {}), **(labels or {})}
            known = {s["name"] for s in self._facts["signals"]}
            self._facts["signals"] += [s.to_json() for n, (s, _) in self._written.items() if n not in known]
            self._write_metadata(self._encoded())
            writer, self._writer = self._writer, None
            try:
                writer.close()
                with open(self._part, "rb") as f:
                    os.fsync(f.fileno())
            except Exception as err:
                raise NotPossible(f"the recording could not be finished ({err})", where=str(self.path)) from err
            for channel in self._channels.values():
                channel.close()
                # foxglove-sdk keeps every channel ever made; a robot makes some for each attempt.
                getattr(foxglove.channel, "_channels_by_id", {}).pop(channel.id(), None)
            move_durably(self._part, self.path)
        return self.path

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, err: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open_signal(self, name: str, values: ArrayLike) -> None:
        if self._writer is None:
            raise InputError("the recording is closed", where=str(self.path))
        spec = self._specs.get(name) or SignalSpec(name, np.shape(values))
        if spec.dtype not in _ROS_TYPES:
            raise InputError(f"cannot record {spec.dtype}", where=name, allowed=", ".join(_ROS_TYPES))
        definition = f"builtin_interfaces/Time stamp\n{spec.dtype}[] values{_STAMP}"
        schema = f"flyball/msg/{spec.dtype.capitalize()}Signal"
        self._open_channel(name, "/" + name.replace(".", "/"), schema, definition, spec.to_json())
        self._written[name] = spec, np.dtype(spec.dtype).newbyteorder("<")

    def _open_channel(self, key: str, topic: str, schema: str, definition: str, what: Any) -> None:
        self._channels[key] = Channel(
            topic,
            schema=Schema(name=schema, encoding="ros2msg", data=definition.encode()),
            message_encoding="cdr",
            context=self._context,
            metadata={OURS: json.dumps(what)},
        )

    def _stamp(self, t_ns: int, name: str) -> bytes:
        if self._writer is None:
            raise InputError("the recording is closed", where=str(self.path))
        if not 0 <= t_ns <= MAX_T_NS:
            raise InputError(f"time {t_ns} ns", where=name, allowed=f"0 to {MAX_T_NS}")
        seconds, nanos = divmod(int(t_ns), 10**9)
        return seconds.to_bytes(4, "little") + nanos.to_bytes(4, "little")

    def _encoded(self) -> str:
        try:
            return json.dumps(self._facts, sort_keys=True)
        except (TypeError, ValueError) as err:
            raise InputError(f"metadata that JSON cannot hold ({err})", where=str(self.path)) from err

    def _write_metadata(self, record: str) -> None:
        assert self._writer is not None
        self._writer.write_metadata(OURS, {"json": record})
