"""Which signals become which columns of a table, and at which rate.

In: a dataset's headers and episodes, and the user's wishes. Out: a ``Layout``: features in the words of LeRobot
(``observation.state``, ``action``, ``observation.images.<camera>``), each with the signals it is made of.

Unless told otherwise, the action is what is named ``action``, ``command``, ``target``, ``setpoint`` or ``cmd`` (any of
the words between the dots), the state is every other scalar or vector of floating point numbers, and what remains
keeps its name. Nothing is left out without being listed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, SignalSpec
from flyball.base.store import Store
from flyball.episodes.dataset import Dataset
from flyball.episodes.datasets.stored import open_episode, pictures, read_header
from flyball.episodes.datasets.versions import check_compatible
from flyball.episodes.episode import Episode

Rule = Literal["last", "nearest"]
Kind = Literal["numbers", "video", "image"]
Images = Literal["video", "png", "none"]
T = TypeVar("T")

STATE, ACTION, IMAGES = "observation.state", "action", "observation.images."
RESERVED = ("timestamp", "frame_index", "episode_index", "index", "task_index")
COMMANDS = frozenset({"action", "actions", "command", "commands", "target", "targets", "setpoint", "setpoints", "cmd"})
CODECS = ("h264", "av1")
DEPTH = ("raw:mono16", "raw:32FC1")
UNWANTED = ("not wanted", "pictures are not wanted")
"""Why something is left out that the user asked to leave out."""
MAX_FPS = 1000
MAX_SIZE = 1 << 16
"""Elements of a sample that may become a column."""
NEAR = 0.02
"""A rate that is this near to a whole number is that number."""
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-\[\]]{0,126}[A-Za-z0-9_\]]")


@dataclass(frozen=True)
class TableOptions:
    """What the user wishes; every default is stated in the module's first paragraphs.

    Attributes:
      fps: rows per second; None for the rate at which actions were recorded (without actions: the state, the cameras).
      rule: which sample a row gets. ``last``: the newest that is not later than the row's time plus 1 % of a period;
        ``nearest``: the nearest in time.
      max_age_s: refuse rows whose sample is further away [s]; None: report only.
      state, action: signals, in this order; empty for the default.
      without: signals and cameras to leave out.
      images: cameras become ``video`` or ``png``, or are left out (``none``).
      codec: of videos: ``h264`` or ``av1``.
      crf: quality of videos (smaller is better); None for 23 (h264) and 30 (av1).
      keep_dtype: do not narrow float64 to float32.
    """

    fps: int | None = None
    rule: Rule = "last"
    max_age_s: float | None = None
    state: tuple[str, ...] = ()
    action: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    images: Images = "video"
    codec: str = "h264"
    crf: int | None = None
    keep_dtype: bool = False


@dataclass(frozen=True)
class Feature:
    """One column.

    Attributes:
      key: its name.
      kind: numbers, or pictures as video or as images.
      dtype: numpy name of what is stored ("uint8" for pictures).
      shape: of one row; (height, width, 3) for pictures.
      names: of the elements of a vector.
      signals: what it is made of: specifications of signals, laid end to end; of a camera, its name alone.
    """

    key: str
    kind: Kind
    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...] = ()
    signals: tuple[SignalSpec, ...] = ()

    @property
    def required(self) -> bool:
        """Whether an episode's table ends where this ends."""
        return self.kind != "numbers" or self.key in (STATE, ACTION)


@dataclass(frozen=True)
class Layout:
    """How a dataset's episodes become tables.

    Attributes:
      fps: rows per second.
      features: in order.
      options: what was asked for.
      left_out: (signal or camera, why).
    """

    fps: int
    features: tuple[Feature, ...]
    options: TableOptions
    left_out: tuple[tuple[str, str], ...] = ()

    @property
    def cameras(self) -> tuple[Feature, ...]:
        """Features that are pictures."""
        return tuple(f for f in self.features if f.kind != "numbers")


def plan(store: Store, dataset: Dataset, options: TableOptions) -> Layout:
    """The layout of a dataset.

    Raises:
      InputError: episodes that do not go together, names that cannot be columns, or a rate that no signal has.
      Missing: a signal that is asked for or left out by name, and that no episode has.
    """
    _check(options)
    headers = {d: read_header(store, d) for d in dataset.episodes}
    check_compatible(headers, where="dataset")
    specs, left_out = _in_every({d: h.signals for d, h in headers.items()})
    cameras, left_too = _in_every({d: h.cameras for d, h in headers.items()})
    left_out += left_too
    for name in (*options.state, *options.action):
        if name not in specs:
            reason = dict(left_out).get(name)
            if reason:
                raise InputError(f"signal {name!r} is {reason}", where="dataset", run_next="flyball datasets build")
            raise Missing.named("signal", name, specs, where="dataset")
    for name in options.without:
        if name not in specs and name not in cameras and name not in dict(left_out):
            raise Missing.named("signal or camera", name, [*specs, *cameras], where="dataset")
        specs.pop(name, None)
        cameras.pop(name, None)
        left_out = [(n, why) for n, why in left_out if n != name] + [(name, UNWANTED[0])]
    state, action = _roles(specs, options)
    known = headers[dataset.episodes[0]].names
    features = [
        _numbers(key, [specs[n] for n in names], known, options)
        for key, names in ((STATE, state), (ACTION, action))
        if names
    ]
    for name in sorted(set(specs) - {*state, *action}):
        if not 0 < specs[name].size <= MAX_SIZE or len(specs[name].shape) > 5:
            left_out.append((name, f"samples of shape {specs[name].shape} make no column"))
            continue
        key = name if name.startswith(("observation.", "action.", "next.")) else f"observation.{name}"
        features.append(_numbers(key, [specs[name]], known, options))
    for name in sorted(cameras):
        encoding, height, width = cameras[name]
        if options.images == "none":
            left_out.append((name, UNWANTED[1]))
        elif encoding in DEPTH:
            left_out.append((name, f"{encoding} would lose precision in 8 bits"))
        else:
            features.append(_camera(store, dataset, name, (height, width), options))
    if not features:
        raise InputError("nothing is left to make a table of", where="dataset")
    keys = [f.key for f in features]
    for key in keys:
        if key in RESERVED or keys.count(key) > 1:
            raise InputError(f"two columns would be named {key!r}", where="dataset", run_next="--without SIGNAL")
    return Layout(_fps(store, dataset, features, options), tuple(features), options, tuple(left_out))


def rate_hz(t_ns: NDArray[np.int64]) -> float:
    """Samples per second by the median interval; 0 for fewer than two distinct times [Hz]."""
    step = float(np.median(np.diff(t_ns))) if len(t_ns) > 1 else 0.0
    return 1e9 / step if step > 0 else 0.0


def stream(episode: Episode, feature: Feature) -> list[NDArray[np.int64]]:
    """The time stamps of everything that a feature is made of [ns]."""
    if feature.kind != "numbers":
        return [episode.frames[feature.signals[0].name].t_ns]
    return [episode.signals[s.name].t_ns for s in feature.signals]


def _in_every(things: Mapping[str, Mapping[str, T]]) -> tuple[dict[str, T], list[tuple[str, str]]]:
    """What every episode has, by name, and the rest with the reason it is left out."""
    first: dict[str, T] = {}
    count: dict[str, int] = {}
    for present in things.values():
        for name, thing in present.items():
            first.setdefault(name, thing)
            count[name] = count.get(name, 0) + 1
    n = len(things)
    left = [(name, f"only in {count[name]} of {n} episodes") for name in sorted(count) if count[name] < n]
    return {name: thing for name, thing in sorted(first.items()) if count[name] == n}, left


def _roles(specs: Mapping[str, SignalSpec], options: TableOptions) -> tuple[list[str], list[str]]:
    """(signals of the state, signals of the action)."""
    named = {*options.state, *options.action}
    free = [n for n in specs if n not in named]
    commands = [n for n in free if COMMANDS & set(n.split(".")) and not n.startswith(("observation.", "next."))]
    action = list(options.action) or ([ACTION] if ACTION in commands else commands)
    plain = [
        n
        for n in free
        if n not in action
        and n not in commands
        and len(specs[n].shape) <= 1
        and 0 < specs[n].size <= MAX_SIZE
        and np.dtype(specs[n].dtype).kind == "f"
        and not n.startswith("next.")
    ]
    return list(options.state) or ([STATE] if STATE in plain else plain), action


def _check(options: TableOptions) -> None:
    if options.fps is not None and not 0 < options.fps <= MAX_FPS:
        raise InputError(f"{options.fps} frames per second", where="--fps", allowed=f"1 to {MAX_FPS}")
    for where, value, allowed in (
        ("--rule", options.rule, get_args(Rule)),
        ("--images", options.images, get_args(Images)),
        ("--codec", options.codec, CODECS),
    ):
        if value not in allowed:
            raise InputError(f"{value!r}", where=where, allowed=", ".join(allowed))
    if options.crf is not None and not 0 <= options.crf <= 63:
        raise InputError(f"quality {options.crf}", where="--crf", allowed="0 (best) to 63")
    if options.max_age_s is not None and not options.max_age_s >= 0:
        raise InputError(f"{options.max_age_s} s", where="--max-age", allowed="0 or more")
    named = [*options.state, *options.action]
    for name in named:
        if named.count(name) > 1:
            raise InputError(f"signal {name!r} is asked for twice", where="--state, --action")
        if name in options.without:
            raise InputError(f"signal {name!r} is asked for and left out", where="--without")


def _key(key: str, source: str) -> str:
    """A name that may be a column, and a folder below ``videos/``."""
    if not _KEY.fullmatch(key) or ".." in key:
        raise InputError(
            f"{source!r} cannot be a column: {key!r}",
            where="dataset",
            allowed="letters, digits, _ - . [ ]",
            run_next="--without, or ingest with a channel map that renames it",
        )
    return key


def _numbers(
    key: str, specs: Sequence[SignalSpec], known: Mapping[str, tuple[str, ...]], options: TableOptions
) -> Feature:
    whole = key in (STATE, ACTION)
    if whole:
        for s in specs:
            if len(s.shape) > 1 or not s.size:
                raise InputError(f"signal {s.name!r} has samples of shape {s.shape}", where=key, allowed="vectors")
        shape: tuple[int, ...] = (sum(s.size for s in specs),)
    else:
        shape = specs[0].shape or (1,)
    dtype = np.result_type(*(np.dtype(s.dtype) for s in specs))
    if dtype == np.float64 and not options.keep_dtype:
        dtype = np.dtype(np.float32)
    names: list[str] = []
    for s in specs if len(shape) == 1 else ():
        plain = (s.name,) if s.size == 1 else tuple(f"{s.name}.{i}" for i in range(s.size))
        names += known.get(s.name, ()) if len(known.get(s.name, ())) == s.size else plain
    return Feature(_key(key, specs[0].name), "numbers", dtype.name, shape, tuple(names), tuple(specs))


def _camera(store: Store, dataset: Dataset, name: str, size: tuple[int, int], options: TableOptions) -> Feature:
    """A camera's column; its size is that of its first picture."""
    if 0 in size:
        frames = open_episode(store, dataset.episodes[0], verified=False).frames[name]
        if not len(frames.t_ns):
            raise InputError("no picture", where=f"camera {name}", run_next=f"--without {name}")
        height, width = next(pictures(store, frames, np.zeros(1, np.int64))).shape[:2]
    else:
        height, width = size
    short = name.removeprefix(IMAGES).removeprefix("observation.").removeprefix("camera.").removeprefix("cameras.")
    if options.images == "video" and (height % 2 or width % 2):
        raise InputError(
            f"pictures of {width} x {height}", where=f"camera {name}", allowed="even sizes", run_next="--images png"
        )
    kind: Kind = "video" if options.images == "video" else "image"
    source = SignalSpec(name, (height, width, 3), "uint8")
    return Feature(_key(IMAGES + short, name), kind, "uint8", (height, width, 3), signals=(source,))


def _fps(store: Store, dataset: Dataset, features: Sequence[Feature], options: TableOptions) -> int:
    """The rate asked for, if something is that fast, or the one rate that the dataset has."""
    leading = next((f for k in (ACTION, STATE) for f in features if f.key == k), None)
    leading = leading or next((f for f in features if f.kind != "numbers"), features[0])
    rates: dict[str, float] = {}
    fastest = 0.0
    for digest in dataset.episodes:
        episode = open_episode(store, digest, verified=False)
        rates[digest] = max(rate_hz(t) for t in stream(episode, leading))
        fastest = max([fastest, *(rate_hz(t) for f in features for t in stream(episode, f))])
    if options.fps is not None:
        if fastest < options.fps * (1 - NEAR):
            raise InputError(
                f"nothing was recorded at {options.fps} Hz", where="--fps", allowed=f"at most {math.floor(fastest)}"
            )
        return options.fps
    middle = float(np.median(list(rates.values())))
    fps = max(1, round(middle))
    for digest, rate in rates.items():
        if abs(rate - fps) > NEAR * fps:
            raise InputError(
                f"{leading.key} was recorded at {rate:.4g} Hz in episode {digest[:12]}, at {middle:.4g} Hz in most",
                where="--fps",
                allowed="a rate for all",
                run_next=f"--fps {max(1, round(min(rates.values())))}",
            )
    return fps
