"""RLDS episodes in TFRecord files, as Open X-Embodiment ships them, read without TensorFlow.

In: a folder as tensorflow-datasets writes it (``features.json``, ``dataset_info.json``, shards such as
``bridge-train.tfrecord-00000-of-01024``), or one such file. Out: one ``Episode`` per record. The rules:

- What lies under ``steps`` has one value per step. ``steps/observation/state`` gives the signal ``observation.state``,
  ``steps/action`` the signal ``action``; JPEG and PNG pictures, and tensors that are pictures, give frames.
- Text that never changes is a label, ``language_instruction`` is the episode's instruction; text that does change gives
  events. Features of the episode as a whole are labels.
- RLDS has no time stamps: steps are ``1 / hz`` apart, with ``hz`` from the option ``rlds.hz``, or from the episode's
  metadata (``control_frequency``, ``fps``, ...), else an assumed 10 Hz, which is noted.
- Success is not judged here. The labels ``is_terminal`` (the last step says so), ``return`` (the sum of rewards) and
  ``reward_last`` are what the data say. The embodiment is the option ``rlds.embodiment``, else the data set.
- A file by itself has no ``features.json``: shapes beyond one axis and types smaller than int64 are then unknown.

Formats: RLDS (arXiv:2111.02767); tensorflow_datasets/core/example_serializer.py (nested features are joined by ``/``,
tensors flattened, sequences in sequences stored as ``ragged_flat_values`` and ``ragged_row_lengths_0``, ...).
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError, SignalSpec, Timed, Unsupported
from flyball.episodes.episode import Episode, Event, Frames
from flyball.episodes.formats.tfrecord import Feature, Span, example, records
from flyball.episodes.intake import Intake

ASSUMED_HZ = 10.0
LARGE = 64 << 10  # bytes of one step's tensor beyond which it is no signal
MAX_INTEGERS = 8 << 20  # integers of one feature: they are stored with 1 to 10 bytes each and cannot be read in pieces
SMALL_PICTURE = 32  # pixels: a tensor with fewer rows or columns is a matrix, not a picture

_SHARD = re.compile(r"(?P<set>.+?)-(?P<split>[^-]+)\.(?P<kind>\w+)-(?P<shard>\d{5,})-of-(?P<of>\d{5,})")
_INSTRUCTION = ("language_instruction", "natural_language_instruction", "instruction")
_RATE = ("control_frequency", "control_freq", "control_hz", "frequency", "fps", "hz")
_PICTURES = {b"\xff\xd8\xff": "jpeg", b"\x89PN": "png"}
_RAW = {("uint8", 3): "rgb8", ("uint8", 4): "rgba8", ("uint8", 1): "mono8", ("uint16", 1): "mono16"}


@dataclass(frozen=True)
class Leaf:
    """What ``features.json`` says of one feature.

    Attributes:
      kind: ``tensor``, ``image`` or ``text``; "" when this reader does not know its class.
      shape: of one value; None for an extent that varies.
      dtype: numpy type name.
      encoding: of a tensor: ``none``, or how its bytes are kept: ``bytes``, ``zlib``.
      rank: how many sequences it lies in, that of the steps included.
    """

    kind: str
    shape: tuple[int | None, ...] = ()
    dtype: str = ""
    encoding: str = "none"
    rank: int = 0


class Rlds:
    """The log format ``rlds``."""

    suffixes = (".tfrecord",)

    def claims(self, folder: Path) -> bool:
        """See ``LogFormat.claims``: it holds ``features.json`` and shards."""
        return (folder / "features.json").is_file() and any(_SHARD.fullmatch(p.name) for p in folder.iterdir())

    def read(self, path: Path, intake: Intake) -> Iterator[Episode]:
        """See ``LogFormat.read``; options ``rlds.hz``, ``rlds.embodiment``."""
        intake.whole = True
        folder = path.is_dir()
        leaves = _features(_json(path, "features.json"), path) if folder else None
        count = 0
        for shard, expected in _shards(path, intake) if folder else [(path, None)]:
            match = _SHARD.fullmatch(shard.name)
            facts: dict[str, Any] = {"file": shard.name}
            if match:
                facts |= {"dataset": match["set"], "split": match["split"]}
            n = 0
            with open(shard, "rb") as file:
                for span in records(file, str(shard), intake):
                    try:
                        yield _episode(span, leaves, {**facts, "record": n}, path, intake)
                    except Damaged as err:
                        if not intake.salvage:
                            raise
                        intake.note("salvaged", f"{err.line()}; this record is left out")
                    n += 1
            if expected is not None and n != expected and not intake.salvage:
                raise Damaged(f"holds {n} records where dataset_info.json says {expected}", where=str(shard))
            count += n
        if not count:
            raise InputError("holds no record", where=str(path))


FORMAT = Rlds()


def _json(folder: Path, name: str) -> Any:
    path = _inside(folder, name)
    try:
        if path.stat().st_size > 64 << 20:
            raise Damaged("larger than 64 MiB", where=str(path))
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as err:
        raise Damaged(f"not JSON ({err})", where=str(path)) from err
    except OSError as err:
        raise Damaged(f"cannot be read ({err.strerror})", where=str(path)) from err


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InputError("leads out of the folder", where=str(path), allowed="files inside of it")
    return path


def _shards(folder: Path, intake: Intake) -> list[tuple[Path, int | None]]:
    """The shards of a folder in order, with the number of records that ``dataset_info.json`` promises of each."""
    promised: dict[str, list[int]] = {}
    if (folder / "dataset_info.json").is_file():
        info = _json(folder, "dataset_info.json")
        with suppress(KeyError, TypeError, ValueError, AttributeError):  # counts are a check, not a need
            promised = {s["name"]: [int(n) for n in s["shardLengths"]] for s in info["splits"]}
    found: dict[tuple[str, str, int], dict[int, Path]] = {}
    for path in sorted(folder.iterdir()):
        if match := _SHARD.fullmatch(path.name):
            if match["kind"] != "tfrecord":
                raise Unsupported(f"shards of kind {match['kind']}", where=str(path), allowed="tfrecord")
            key = (match["set"], match["split"], int(match["of"]))
            found.setdefault(key, {})[int(match["shard"])] = _inside(folder, path.name)
    result: list[tuple[Path, int | None]] = []
    for (_, split, of), shards in sorted(found.items()):
        if len(shards) < of:
            intake.note("skipped", f"{folder}: split {split}: {of - len(shards)} of {of} shards are not in the folder")
        counts = promised.get(split, [])
        result += [(path, counts[i] if len(counts) == of else None) for i, path in sorted(shards.items())]
    return result


def _features(tree: Any, path: Path) -> dict[str, Leaf]:
    """Path of a feature in a record, without ``ragged_...`` -> what ``features.json`` says of it."""
    found: dict[str, Leaf] = {}

    def walk(node: Any, name: str, rank: int) -> None:
        if "featuresDict" in node:
            for key, child in node["featuresDict"]["features"].items():
                walk(child, f"{name}/{key}" if name else key, rank)
        elif "sequence" in node:
            walk(node["sequence"]["feature"], name, rank + 1)
        elif "image" in node:
            found[name] = Leaf("image", _shape(node["image"]), node["image"].get("dtype", "uint8"), rank=rank)
        elif "text" in node:
            found[name] = Leaf("text", rank=rank)
        elif "classLabel" in node:
            found[name] = Leaf("tensor", dtype="int64", rank=rank)
        elif "tensor" in node:
            tensor = node["tensor"]
            dtype, encoding = str(tensor["dtype"]), str(tensor.get("encoding", "none")).lower()
            if dtype in ("string", "object", "str"):
                found[name] = Leaf("text" if not _shape(tensor) else "", _shape(tensor), rank=rank)
            else:
                known = re.fullmatch(r"bool|u?int(8|16|32|64)|float(16|32|64)", dtype)
                kind = "tensor" if known and encoding in ("none", "bytes", "zlib") else ""
                found[name] = Leaf(kind, _shape(tensor), dtype, encoding, rank)
        else:
            found[name] = Leaf("", rank=rank)

    try:
        walk(tree, "", 0)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as err:
        raise Damaged(f"not a description of features ({err!r})", where=str(path / "features.json")) from err
    if not any(name.startswith("steps/") for name in found):
        raise Unsupported("these are no episodes", where=str(path / "features.json"), allowed="features with steps")
    return found


def _shape(node: Any) -> tuple[int | None, ...]:
    sizes = [int(n) for n in (node.get("shape") or {}).get("dimensions", ())]
    return tuple(None if n < 0 else n for n in sizes)


class _Record:
    """One record on its way to an episode."""

    def __init__(self, span: Span, intake: Intake) -> None:
        self.span, self.intake = span, intake
        self.signals: dict[str, NDArray[Any]] = {}
        self.pictures: list[tuple[str, str, int, int, Iterator[bytes]]] = []
        self.texts: dict[str, list[str]] = {}
        self.labels: dict[str, Any] = {}
        self.steps = 0

    def unmapped(self, name: str, why: str) -> None:
        self.intake.note("unmapped", f"{name}: {why}")

    def step_feature(self, name: str, leaf: Leaf, feature: Feature) -> None:
        """A feature with a value for each step; ``name`` begins behind ``steps/``."""
        signal, n = name.replace("/", "."), self.steps
        if feature.kind == "bytes":
            if len(feature.parts) != n:
                raise self.damaged(feature, name, f"{len(feature.parts)} values for {n} steps")
            if leaf.kind == "image":
                self._pictures(signal, leaf, feature)
            elif leaf.kind == "text":
                self.texts[signal] = [blob.decode(errors="replace") for blob in feature.blobs()]
            elif leaf.kind == "tensor" and leaf.encoding != "none" and None not in leaf.shape:
                self._packed(signal, leaf, feature)
            else:
                self.unmapped(name, "bytes of an unknown kind")
            return
        if leaf.kind != "tensor" or None in leaf.shape:
            self.unmapped(name, "no fixed shape")
            return
        size = math.prod(k for k in leaf.shape if k is not None)
        dtype = np.dtype(leaf.dtype)
        raw = _raw_encoding(leaf)
        if size * dtype.itemsize > LARGE and not raw:
            self.unmapped(name, f"{size} numbers per step")
        elif feature.kind == "float" and raw == "32FC1" and len(feature.parts) == 1:
            start, stop = feature.parts[0]
            if stop - start != 4 * size * n:
                raise self.damaged(feature, name, f"{stop - start} bytes for {n} pictures of {4 * size}")
            pieces = (feature.span.read(at, 4 * size) for at in range(start, stop, 4 * size))
            self.pictures.append((signal, "raw:32FC1", *_extent(leaf), pieces))
        elif sum(b - a for a, b in feature.parts) > MAX_INTEGERS and feature.kind == "int":
            self.unmapped(name, f"more than {MAX_INTEGERS} integers")
        else:
            values = feature.numbers() if feature.kind else np.zeros(0)
            if len(values) != size * n:
                raise self.damaged(feature, name, f"{len(values)} numbers for {n} steps of {size}")
            values = values.astype(dtype).reshape(n, *leaf.shape)
            if raw:
                self.pictures.append((signal, f"raw:{raw}", *_extent(leaf), (v.tobytes() for v in values)))
            elif size:
                self.signals[signal] = values

    def _pictures(self, signal: str, leaf: Leaf, feature: Feature) -> None:
        first = next(feature.blobs(), b"")
        encoding = _PICTURES.get(first[:3])
        if encoding is None:
            self.unmapped(signal, "pictures that are neither JPEG nor PNG")
            return

        def checked() -> Iterator[bytes]:
            for i, blob in enumerate(feature.blobs()):
                if _PICTURES.get(blob[:3]) != encoding:
                    raise self.damaged(feature, signal, f"picture {i} is no {encoding}")
                yield blob

        self.pictures.append((signal, encoding, *_extent(leaf), checked()))

    def _packed(self, signal: str, leaf: Leaf, feature: Feature) -> None:
        """A tensor kept as its bytes, perhaps compressed."""
        dtype, shape = np.dtype(leaf.dtype).newbyteorder("<"), tuple(k or 0 for k in leaf.shape)
        size = math.prod(shape) * dtype.itemsize
        raw = _raw_encoding(leaf)
        if size > LARGE and not raw:
            self.unmapped(signal, f"{size} bytes per step")
            return

        def unpacked() -> Iterator[bytes]:
            for i, blob in enumerate(feature.blobs()):
                if leaf.encoding == "zlib":
                    try:
                        blob = zlib.decompressobj().decompress(blob, size + 1)
                    except zlib.error as err:
                        raise self.damaged(feature, signal, f"value {i}: {err}") from err
                if len(blob) != size:
                    raise self.damaged(feature, signal, f"value {i} is not {size} bytes long")
                yield blob

        if raw:
            self.pictures.append((signal, f"raw:{raw}", *_extent(leaf), unpacked()))
        else:
            values = np.frombuffer(b"".join(unpacked()), dtype).reshape(self.steps, *shape)
            self.signals[signal] = values.astype(leaf.dtype)

    def damaged(self, feature: Feature, name: str, what: str) -> Damaged:
        at = feature.parts[0][0] if feature.parts else self.span.start
        return self.span.damaged(at, f"feature {name!r}: {what}")

    def context_feature(self, name: str, leaf: Leaf, feature: Feature) -> None:
        """A feature of the episode as a whole."""
        label = name.removeprefix("episode_metadata/").replace("/", ".")
        if feature.kind == "bytes":
            texts = [blob.decode(errors="replace") for blob in feature.blobs() if len(blob) <= 1024]
            if leaf.kind in ("text", "") and len(texts) == 1 and texts[0].isprintable():
                self.labels[label] = texts[0]
            return
        if feature.kind and sum(b - a for a, b in feature.parts) <= 256:
            values = feature.numbers()
            if leaf.dtype == "bool":
                values = values.astype(bool)
            self.labels[label] = values.tolist()[0] if len(values) == 1 and not leaf.shape else values.tolist()


def _raw_encoding(leaf: Leaf) -> str:
    """Pixel format of a tensor that is a picture, "" when it is none."""
    shape = leaf.shape
    if len(shape) not in (2, 3) or min(shape[0] or 0, shape[1] or 0) < SMALL_PICTURE:
        return ""
    channels = 1 if len(shape) == 2 else shape[2] or 0
    return "32FC1" if (leaf.dtype, channels) == ("float32", 1) else _RAW.get((leaf.dtype, channels), "")


def _extent(leaf: Leaf) -> tuple[int, int]:
    shape = (*leaf.shape, 0, 0) if len(leaf.shape) < 2 else leaf.shape
    return int(shape[0] or 0), int(shape[1] or 0)


def _episode(span: Span, leaves: dict[str, Leaf] | None, facts: dict[str, Any], path: Path, intake: Intake) -> Episode:
    features = example(span)
    record = _Record(span, intake)
    known = _guessed(features) if leaves is None else _joined(features, leaves, record)
    lengths = {
        name: len(f.parts) if f.kind == "bytes" else len(f.numbers())
        for name, (leaf, f) in known.items()
        if name.startswith("steps/") and leaf.rank == 1 and leaf.kind in ("tensor", "text", "image") and not leaf.shape
    } or {name: len(f.parts) for name, (leaf, f) in known.items() if name.startswith("steps/") and f.kind == "bytes"}
    record.steps = max(lengths.values(), default=0)
    if not record.steps:
        raise Damaged(f"offset {span.start}: a record without steps", where=span.name)
    for name, (leaf, feature) in sorted(known.items()):
        if name.startswith("steps/"):
            if feature.kind:
                record.step_feature(name.removeprefix("steps/"), leaf, feature)
        else:
            record.context_feature(name, leaf, feature)
    return _built(record, facts, path, intake)


def _joined(features: dict[str, Feature], leaves: dict[str, Leaf], record: _Record) -> dict[str, tuple[Leaf, Feature]]:
    """What ``features.json`` names, with what the record holds of it."""
    known: dict[str, tuple[Leaf, Feature]] = {}
    for name, leaf in leaves.items():
        if name in features:
            known[name] = (leaf, features[name])
        elif leaf.rank == 2 and f"{name}/ragged_flat_values" in features:
            rows = features.get(f"{name}/ragged_row_lengths_0")
            lengths = np.unique(rows.numbers()) if rows is not None and rows.kind == "int" else np.zeros(0, int)
            if len(lengths) == 1 and lengths[0] and leaf.kind == "tensor":
                shape = (int(lengths[0]), *leaf.shape)
                known[name] = (
                    Leaf("tensor", shape, leaf.dtype, leaf.encoding, 1),
                    features[f"{name}/ragged_flat_values"],
                )
            else:
                record.unmapped(name.removeprefix("steps/"), "a list of another length in each step")
        else:
            record.unmapped(name.removeprefix("steps/"), "of a kind that is not read, or not in the records")
    return known


def _guessed(features: dict[str, Feature]) -> dict[str, tuple[Leaf, Feature]]:
    """What can be told of features from their values alone."""
    listed = any(f.rows for f in features.values())
    steps = {n: f for n, f in features.items() if (f.rows if listed else n.startswith("steps/"))}
    count = {n: len(f.parts) if f.kind == "bytes" else len(f.numbers()) for n, f in steps.items() if f.kind}
    flags = [n for n in count if n.rpartition("/")[2] in ("is_first", "is_last", "is_terminal", "reward", "discount")]
    length = max((count[n] for n in flags), default=0) or min(count.values(), default=0)
    if listed:
        length = max((len(f.rows) for f in steps.values()), default=0)
    known: dict[str, tuple[Leaf, Feature]] = {}
    for name, f in features.items():
        if name not in steps:
            known[name] = (Leaf("", rank=0), f)
            continue
        full = name if name.startswith("steps/") else f"steps/{name}"
        if f.kind == "bytes":
            first = next(f.blobs(), b"")
            kind = "image" if first[:3] in _PICTURES else "text" if _is_text(first) else ""
            known[full] = (Leaf(kind, (None, None, 3) if kind == "image" else (), rank=1), f)
        elif f.kind:
            each, left = divmod(count[name], max(1, length))
            shape: tuple[int | None, ...] = (None,) if left or not each else () if each == 1 else (each,)
            flag = name.rpartition("/")[2].startswith("is_")
            known[full] = (
                Leaf("tensor", shape, "bool" if flag else "float32" if f.kind == "float" else "int64", rank=1),
                f,
            )
    return known


def _is_text(blob: bytes) -> bool:
    try:
        return blob.decode().isprintable()
    except UnicodeDecodeError:
        return False


def _built(record: _Record, facts: dict[str, Any], path: Path, intake: Intake) -> Episode:
    texts = dict(record.texts)
    labels = {**facts, **record.labels, "steps": record.steps}
    hz = _rate(intake, labels, str(path))
    t_ns = np.round(np.arange(record.steps) * (1e9 / hz)).astype(np.int64)
    events: list[Event] = []
    instruction = ""
    for name, values in texts.items():
        if len(set(values)) == 1:
            if name.rpartition(".")[2] in _INSTRUCTION and not instruction:
                instruction = values[0]
            elif values[0]:
                labels[name] = values[0]
            continue
        before = None
        for t, text in zip(t_ns.tolist(), values, strict=True):
            if text != before:
                events.append(Event(t, name, text))
            before = text
    if "is_terminal" in record.signals:
        labels["is_terminal"] = bool(record.signals["is_terminal"][-1])
    if "reward" in record.signals and record.signals["reward"].ndim == 1:
        reward = record.signals["reward"].astype(np.float64)
        if np.isfinite(reward).all():
            labels |= {"return": float(reward.sum()), "reward_last": float(reward[-1])}
    frames: dict[str, Frames] = {}
    for name, encoding, height, width, pictures in record.pictures:
        writer = intake.frames(name, encoding, height, width)
        try:
            for t, picture in zip(t_ns.tolist(), pictures, strict=True):
                writer.append(t, picture)
        finally:
            made = writer.close()
        frames[name] = made
    embodiment = intake.options.get("rlds.embodiment") or str(labels.get("dataset") or path.absolute().parent.name)
    return Episode(
        embodiment=embodiment,
        instruction=instruction,
        origin="teleoperation",
        signals={
            name: Timed(SignalSpec(name, v.shape[1:], v.dtype.name, rate_hz=hz), t_ns, v)
            for name, v in record.signals.items()
        },
        frames=frames,
        events=tuple(sorted(events, key=lambda e: e.t_ns)),
        labels=labels,
    )


def _rate(intake: Intake, labels: dict[str, Any], where: str) -> float:
    text = intake.options.get("rlds.hz", "")
    if text:
        with suppress(ValueError):
            if 0 < float(text) < 1e6:
                return float(text)
        raise InputError(f"option rlds.hz is {text!r}", where=where, allowed="a rate [Hz] above 0")
    for key, value in labels.items():
        if key.rpartition(".")[2] in _RATE and isinstance(value, (int, float)) and 0 < value < 1e6:
            return float(value)
    intake.note("clock", f"{where}: no time stamps and no control frequency; steps are taken to be "
                f"{1 / ASSUMED_HZ:g} s apart (option rlds.hz)")  # fmt: skip
    return ASSUMED_HZ
