"""The channel map: which signal of a log is which signal of the body.

In: an episode as its format read it, and the map for logs of its kind, a file ``channels/NAME.toml`` of the workspace.
Out: the episode with the body's names, columns and units. What the file does not know yet is inferred, with a reason,
and appended to it; nothing in it is ever rewritten, so that what a person changes there stays. The rules:

- The body is the one the log names; where a map file says otherwise, that; where no body has that name, the one
  whose joints the log names. Logs of a body that nobody knows get a map in which every signal keeps its name.
- A signal is inferred from what its name says (quantity, part, command or not), its size, its unit and the names of
  its columns. Two that fit equally well are not mapped, and listed. Columns follow the body's order of joints.
- Of several entries for one name, the first whose signal a log has is taken; the others keep the log's name, noted.
- A unit of the file beats the log's, noted; units that cannot be converted and sizes that do not fit are refused.
- What is not mapped keeps the log's name.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Missing, SignalSpec, Timed, digest_of
from flyball.base.config import from_plain
from flyball.base.durable import make_folder, write_durably
from flyball.base.store import locked
from flyball.episodes.boundaries import Boundaries
from flyball.episodes.episode import Episode
from flyball.episodes.intake import Intake, release
from flyball.robots import Embodiment

LAYOUT = 1
SURE, CLEAR = 0.6, 0.05  # least confidence of an inferred entry, and by how much it must beat the next
PIECE = 16 << 20  # bytes of an array that are converted at once

TO_SI = {
    "deg": (math.pi / 180, "rad"), "degree": (math.pi / 180, "rad"), "degrees": (math.pi / 180, "rad"),
    "deg/s": (math.pi / 180, "rad/s"), "rpm": (math.pi / 30, "rad/s"), "rev": (2 * math.pi, "rad"),
    "mm": (1e-3, "m"), "cm": (1e-2, "m"), "um": (1e-6, "m"), "inch": (0.0254, "m"),
    "mm/s": (1e-3, "m/s"), "cm/s": (1e-2, "m/s"), "km/h": (1 / 3.6, "m/s"), "g": (9.80665, "m/s^2"),
    "mN": (1e-3, "N"), "kN": (1e3, "N"), "mNm": (1e-3, "N m"), "N*m": (1.0, "N m"), "Nm": (1.0, "N m"),
    "mA": (1e-3, "A"), "mV": (1e-3, "V"), "ms": (1e-3, "s"), "us": (1e-6, "s"), "g0": (9.80665, "m/s^2"),
}  # fmt: skip
"""Unit -> (factor, SI unit)."""

_WORDS = {
    "position": "positions pos qpos q angle angles width opening aperture",
    "velocity": "velocities vel qvel qd dq speed",
    "effort": "efforts torque torques tau force forces load",
    "command": "commands cmd cmds commanded target targets goal goals desired setpoint reference action actions ctrl",
    "joint": "joints jnt",
    "gripper": "grip grippers hand finger fingers jaw",
    "": "state states status measured actual feedback observation observations data value values robot arm msg raw",
}
_MEANING = {word: meaning for meaning, words in _WORDS.items() for word in words.split()}
_QUANTITY = {"rad": "position", "m": "position", "rad/s": "velocity", "m/s": "velocity", "N": "effort", "N m": "effort"}


class MapConflict(InputError):
    """The map file, not the log, is to blame: the log stays where it is until the file is mended."""


@dataclass(frozen=True)
class Channel:
    """One entry ``[[signal]]`` of a map file.

    Attributes:
      name: the body's signal; "" leaves the log's signal out of the episodes.
      source: the log's signal or camera (key ``from``).
      columns: of the log's signal, by number or by name, in the body's order; empty for all.
      unit: what the log's values are in; "" for what the log says, or else the body's unit.
      scale, offset: the value in that unit is ``scale * logged + offset``.
      clock_s: added to its time stamps [s].
      why: the reason for an inferred entry, a comment in the file.
    """

    name: str
    source: str
    columns: tuple[Any, ...] = ()
    unit: str = ""
    scale: float = 1.0
    offset: float = 0.0
    clock_s: float = 0.0
    why: str = field(default="", compare=False)


@dataclass(frozen=True)
class ChannelMap:
    """One map file.

    Attributes:
      logs: what the logs call their body.
      embodiment: what it is called here.
      episodes: how a log is cut.
      signals: entries, in the file's order.
      unmapped: signals of logs for which nothing was found -> why.
    """

    logs: str
    embodiment: str
    episodes: Boundaries = field(default_factory=Boundaries)
    signals: tuple[Channel, ...] = ()
    unmapped: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """What of an episode its mapping depends on: small, and cheap to send between processes.

    Attributes:
      embodiment: as the log says.
      signals: (specification, largest absolute value) of each.
      cameras: their names.
      columns: prefix of signals -> names of their columns, e.g. ``joint_states`` -> joint names.
    """

    embodiment: str
    signals: tuple[tuple[SignalSpec, float], ...] = ()
    cameras: tuple[str, ...] = ()
    columns: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class Resolution:
    """How one log is mapped.

    Attributes:
      logs: name of the map.
      embodiment: name of the body.
      episodes: how it is cut.
      used: entries that apply, each to one signal of the log.
      inferred: those of them that the file lacks.
      unmapped: signals the file lacks, without entry -> why.
      missing: signals of the body that the log does not have.
      remarks: for the user.
    """

    logs: str
    embodiment: str
    episodes: Boundaries = field(default_factory=Boundaries)
    used: tuple[Channel, ...] = ()
    inferred: tuple[Channel, ...] = ()
    unmapped: tuple[tuple[str, str], ...] = ()
    missing: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def effect(self) -> object:
        """Equal for two that make the same of a log, whether an entry was in the file already or is inferred."""
        return self.logs, self.embodiment, self.episodes, frozenset(self.used), self.remarks


# ---- inference


def profile(episode: Episode) -> Profile:
    """What the mapping of an episode depends on."""
    columns = tuple(
        (key.rpartition(".")[0], tuple(names))
        for key, names in sorted(episode.labels.items())
        if isinstance(names, (list, tuple)) and names and all(isinstance(n, str) for n in names)
    )
    signals = tuple((replace(s.spec, name=name), _largest(s.values)) for name, s in sorted(episode.signals.items()))
    return Profile(episode.embodiment, signals, tuple(sorted(episode.frames)), columns)


def resolve(log: Profile, maps: Mapping[str, ChannelMap], bodies: Mapping[str, Embodiment]) -> Resolution:
    """How a log is mapped; depends on nothing but the arguments.

    Args:
      log: the log's profile.
      maps: map files by what their logs call the body.
      bodies: the embodiments there are.

    Raises:
      MapConflict: a map file contradicts itself or this log.
    """
    name = log.embodiment
    known = maps.get(name)
    if name not in bodies and (known is None or known.embodiment == name):
        named = {n for _, columns in log.columns for n in columns}
        fitting = [b.name for b in bodies.values() if b.joints and {j.name for j in b.joints} <= named]
        name = fitting[0] if len(fitting) == 1 else name
        known = maps.get(name)
    known = known or ChannelMap(name, name)
    body = bodies.get(known.embodiment)
    wanted = {s.name: s for s in (*body.observations, *body.actions)} if body else {}
    specs = {spec.name: spec for spec, _ in log.signals}
    there = {*specs, *log.cameras}
    file = f"channels/{file_name(known.logs)}"

    taken: dict[str, Channel] = {}
    spoken: set[str] = set()
    dropped: list[Channel] = []
    remarks: list[str] = []
    for entry in known.signals:
        if entry.source not in there:
            continue
        spoken.add(entry.source)
        if not entry.name:
            dropped.append(entry)
        elif entry.name in taken:
            remarks.append(f"{entry.source} keeps its name: {entry.name} is {taken[entry.name].source} ({file})")
        else:
            remarks += _verify(entry, specs.get(entry.source), wanted.get(entry.name), log, file)
            taken[entry.name] = entry
    rest = [n for n in sorted(there) if n not in spoken and n not in known.unmapped]
    if body is None:
        inferred = [Channel(n, n, why="as the log names it") for n in rest if n not in taken]
        unmapped: dict[str, str] = {}
    else:
        open_ = {n: s for n, s in wanted.items() if n not in taken}
        inferred, unmapped = _infer(rest, open_, body, log)
        for camera in log.cameras:
            if unmapped.pop(camera, None) is not None:
                inferred.append(Channel(camera, camera, why="a camera, as the log names it"))
    taken |= {c.name: c for c in inferred}
    used = (*taken.values(), *dropped)
    for name_ in there - {c.source for c in used}:
        if name_ in taken:
            raise MapConflict(
                f"{taken[name_].source} is to be called {name_}, and the log has another signal of that name",
                where=file,
                allowed=f'an entry with from = "{name_}" and another name, or name = "" to leave it out',
            )
    loose = sorted(there - {c.source for c in used} - {e.source for e in known.signals})
    missing = tuple(n for n in wanted if n not in taken)
    if loose:
        remarks.append(f"kept under the log's name: {', '.join(loose)} ({file})")
    if missing:
        remarks.append(f"not in the log: {', '.join(missing)}")
    return Resolution(
        known.logs, known.embodiment, known.episodes, used, tuple(inferred), tuple(unmapped.items()), missing,
        tuple(remarks),
    )  # fmt: skip


def _infer(
    rest: list[str], wanted: Mapping[str, SignalSpec], body: Embodiment, log: Profile
) -> tuple[list[Channel], dict[str, str]]:
    """Entries for signals that the map does not know, and why others get none."""
    specs = {spec.name: (spec, largest) for spec, largest in log.signals}
    found: dict[str, list[tuple[float, Channel]]] = {}
    why: dict[str, str] = {n: "nothing of the body fits" for n in rest}
    for source in rest:
        if source not in specs:
            continue
        spec, largest = specs[source]
        for target in wanted.values():
            for score, entry, objection in _candidates(spec, largest, target, body, log):
                if objection:
                    why[source] = f"{target.name}: {objection}"
                elif score >= SURE:
                    found.setdefault(target.name, []).append((score, entry))
    entries: list[Channel] = []
    for target_name, candidates in found.items():
        candidates.sort(key=lambda c: (-c[0], c[1].source))
        best = [c for s, c in candidates if s > candidates[0][0] - CLEAR]
        if len(best) == 1:
            entries.append(replace(best[0], why=f"{candidates[0][0]:.2f}: {best[0].why}"))
        else:
            for c in best:
                why[c.source] = f"{target_name}: {', '.join(b.source for b in best)} fit equally well"
    mapped = {e.source for e in entries}
    return entries, {n: text for n, text in why.items() if n not in mapped}


def _candidates(
    spec: SignalSpec, largest: float, target: SignalSpec, body: Embodiment, log: Profile
) -> Iterable[tuple[float, Channel, str]]:
    """(confidence, entry, objection) for a log's signal as a body's."""
    if spec.name == target.name and spec.size == target.size:
        yield 1.0, Channel(target.name, spec.name, why="the same name"), ""
        return
    names = _column_names(spec.name, log, spec.size)
    joints = [j.name for j in body.joints]
    ours, theirs = _tokens(target.name, target.unit), _tokens(spec.name, spec.unit)
    if joints and set(joints) <= set(names):
        theirs.add("joint")
    alike = _alike(ours, theirs)
    if names and target.size == 1 and spec.size > 1:  # one column of many, e.g. the gripper among the joints
        for column in names:
            if column not in joints:
                score = _alike(ours, _tokens(column, "") | (theirs - {"joint"}))
                if score >= SURE and _factor(spec.unit, target.unit) is not None:
                    yield score, Channel(target.name, spec.name, (column,), why=f"column {column}"), ""
        return
    if alike < SURE:
        return
    reasons = [f"name like {target.name}"]
    columns: tuple[Any, ...] = ()
    if target.size == len(joints) > 0 and set(joints) <= set(names):
        alike = max(alike, 0.9)
        reasons.append("columns have the joints' names")
        columns = () if list(names) == joints else tuple(joints)
    elif spec.size != target.size:
        yield 0.0, Channel("", spec.name), f"{spec.size} columns, {target.size} wanted"
        return
    elif names and target.size == len(joints) > 1:
        alike *= 0.85
        reasons.append(f"columns {' '.join(names)} taken for {' '.join(joints)}, in this order")
    if _factor(spec.unit, target.unit) is None:
        yield 0.0, Channel("", spec.name), f"unit {spec.unit}, {target.unit} wanted"
        return
    if not spec.unit and target.unit:
        limits = [abs(x) for j in body.joints for x in (j.low, j.high)]
        limit = max(limits, default=math.inf)
        if "position" in ours and target.unit == "rad" and largest > 2 * limit and math.radians(largest) <= 1.2 * limit:
            text = f'values up to {largest:.3g} look like degrees; if they are, map it with unit = "deg"'
            yield 0.0, Channel("", spec.name), text
            return
        alike *= 0.95
        reasons.append(f"no unit in the log, {target.unit} assumed")
    elif spec.unit != target.unit:
        reasons.append(f"{spec.unit} to {target.unit}")
    yield alike, Channel(target.name, spec.name, columns, why=", ".join(reasons)), ""


def _tokens(name: str, unit: str) -> set[str]:
    """What a name says: quantity, part, and whether it is a command."""
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", ".", name).lower())
    found = {_MEANING.get(w, w) for w in words} - {""}
    quantity = _QUANTITY.get(TO_SI.get(unit, (1.0, unit))[1])
    if quantity and not found & set(_QUANTITY.values()):
        found.add(quantity)
    return found


def _alike(a: set[str], b: set[str]) -> float:
    """How much two sets of words have in common, 0 to 1; 0 for a command and what is none."""
    if ("command" in a) != ("command" in b) or not a or not b:
        return 0.0
    return 2 * len(a & b) / (len(a) + len(b))


def _column_names(signal: str, log: Profile, size: int) -> tuple[str, ...]:
    prefix = signal.rpartition(".")[0]
    return next((names for p, names in log.columns if p in (prefix, signal) and len(names) == size), ())


def _factor(unit: str, wanted: str) -> float | None:
    """By what to multiply, None when there is no way. Units per element convert only when they are the same."""
    if not unit or not wanted or unit == wanted:
        return 1.0
    a, b = TO_SI.get(unit, (1.0, unit)), TO_SI.get(wanted, (1.0, wanted))
    return a[0] / b[0] if a[1] == b[1] else None


def _verify(entry: Channel, spec: SignalSpec | None, target: SignalSpec | None, log: Profile, file: str) -> list[str]:
    """Whether an entry fits this log; remarks."""
    if spec is None:  # a camera
        return []
    columns = _indices(entry, spec, _column_names(spec.name, log, spec.size), file)
    size = len(columns) if columns is not None else spec.size
    if target is not None and size != target.size:
        raise MapConflict(
            f"{spec.name} gives {size} columns, {target.name} has {target.size}",
            where=file,
            allowed=f"columns = [...] with {target.size} of them",
        )
    unit = entry.unit or spec.unit
    if target is not None and _factor(unit, target.unit) is None:
        raise MapConflict(
            f"{spec.name} is in {unit}, {target.name} in {target.unit}",
            where=file,
            allowed="a unit that converts, or a scale",
        )
    if entry.unit and spec.unit and entry.unit != spec.unit:
        return [f"{spec.name}: taken as {entry.unit} ({file}), though the log says {spec.unit}"]
    return []


def _indices(entry: Channel, spec: SignalSpec, names: tuple[str, ...], file: str) -> list[int] | None:
    """Columns by number, None for all as they are."""
    if not entry.columns:
        return None
    found = []
    for c in entry.columns:
        if isinstance(c, str) and c in names:
            found.append(names.index(c))
        elif isinstance(c, int) and not isinstance(c, bool) and 0 <= c < spec.size:
            found.append(c)
        else:
            numbers = f"0 to {spec.size - 1}"
            allowed = f"{', '.join(names)}; {numbers}" if names else numbers
            raise MapConflict(f"{spec.name} has no column {c!r}", where=file, allowed=allowed)
    return found


# ---- application


def mapped(episode: Episode, how: Resolution, bodies: Mapping[str, Embodiment], intake: Intake) -> Episode:
    """The episode with the body's signals; values are shared where nothing changes.

    Raises:
      MapConflict: an entry does not fit.
    """
    body = bodies.get(how.embodiment)
    wanted = {s.name: s for s in (*body.observations, *body.actions)} if body else {}
    log = profile_columns(episode)
    signals, frames = {}, {}
    plan = {source: [c for c in how.used if c.source == source] for source in {c.source for c in how.used}}
    for name, signal in episode.signals.items():
        for entry in plan.get(name, [Channel(name, name)]):
            if entry.name:
                signals[entry.name] = _converted(signal, entry, wanted.get(entry.name), log, intake)
    for name, stream in episode.frames.items():
        for entry in plan.get(name, [Channel(name, name)]):
            if entry.name:
                t_ns = stream.t_ns + round(entry.clock_s * 1e9) if entry.clock_s else stream.t_ns
                frames[entry.name] = replace(stream, name=entry.name, t_ns=t_ns)
    return replace(
        episode, embodiment=how.embodiment, signals=dict(sorted(signals.items())), frames=dict(sorted(frames.items()))
    )


def profile_columns(episode: Episode) -> Profile:
    """A profile with nothing but the names of columns."""
    return profile(replace(episode, signals={}, frames={}))


def _converted(signal: Timed, entry: Channel, target: SignalSpec | None, log: Profile, intake: Intake) -> Timed:
    spec = signal.spec
    file = f"channels of {log.embodiment}"
    pick = _indices(entry, spec, _column_names(entry.source, log, spec.size), file)
    unit = entry.unit or spec.unit or (target.unit if target else "")
    factor = _factor(unit, target.unit if target else unit)
    assert factor is not None, "resolve has verified the units"
    scale, offset = entry.scale * factor, entry.offset * factor
    shape = target.shape if target else (spec.shape if pick is None else (len(pick),))
    t_ns = signal.t_ns + round(entry.clock_s * 1e9) if entry.clock_s else signal.t_ns
    values = signal.values
    if pick is None and scale == 1 and offset == 0:
        values = values.reshape(len(values), *shape)
    else:
        values = _rewritten(values, pick, scale, offset, shape, intake)
    made = SignalSpec(
        entry.name, shape, values.dtype.name, target.unit if target else unit, spec.rate_hz, spec.frame,
        target.low if target else None, target.high if target else None,
    )  # fmt: skip
    return Timed(made, t_ns, values)


def _rewritten(
    values: NDArray[Any], pick: list[int] | None, scale: float, offset: float, shape: tuple[int, ...], intake: Intake
) -> NDArray[Any]:
    """Columns picked and values converted, piece by piece: they may be larger than the memory."""
    linear = scale != 1 or offset != 0
    dtype = values.dtype if not linear or values.dtype.kind == "f" else np.dtype(np.float64)
    out = intake.column(dtype, shape)
    rows = max(1, PIECE // max(1, values.dtype.itemsize * int(np.prod(values.shape[1:], dtype=int))))
    for at in range(0, len(values), rows):
        part = values[at : at + rows]
        part = part.reshape(len(part), -1)
        part = part if pick is None else part[:, pick]
        part = (part * dtype.type(scale) + dtype.type(offset)).astype(dtype) if linear else part
        out.append(part.reshape(-1, *shape))
        release(values)
    return out.array()


def _largest(values: NDArray[Any]) -> float:
    if values.dtype.kind not in "fiu" or not values.size:
        return 0.0
    rows, top = max(1, PIECE // max(1, values.nbytes // len(values))), 0.0
    for at in range(0, len(values), rows):
        part = np.abs(np.asarray(values[at : at + rows], np.float64))
        top = max(top, float(part.max(where=np.isfinite(part), initial=0.0)))
        release(values)
    return top


# ---- files


def file_name(logs: str) -> str:
    """Name of the map file for logs of this name; any text is allowed there."""
    plain = quote(logs or "unknown", safe=" ", errors="backslashreplace").replace("%2C", ",")
    plain = "%2E" + plain[1:] if plain.startswith(".") else plain
    return f"{plain if len(plain) <= 120 else plain[:100] + digest_of(logs)[:12]}.toml"


class ChannelMaps:
    """The map files of a workspace.

    Args:
      folder: where they lie; made when there is something to write.

    Attributes:
      maps: those read or made so far, by what their logs call the body.
      broken: name -> why its file cannot be used.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.maps: dict[str, ChannelMap] = {}
        self.broken: dict[str, str] = {}
        self._new: dict[str, list[Resolution]] = {}
        for path in sorted(folder.glob("*.toml")) if folder.is_dir() else []:
            try:
                found = read_map(path)
                if found.logs in self.maps:
                    raise MapConflict(f"a second map for logs of {found.logs!r}", where=str(path))
                self.maps[found.logs] = found
            except InputError as err:
                self.broken[path.name] = err.line()

    def refuse_broken(self, log: Profile) -> None:
        """Raise what is wrong with the file that this log would go by.

        Raises:
          MapConflict: that file cannot be used.
        """
        if line := self.broken.get(file_name(log.embodiment)):
            raise MapConflict(line)

    def learn(self, how: Resolution) -> None:
        """Take over what a log taught; ``save`` writes it down."""
        if not (how.inferred or how.unmapped):
            return
        old = self.maps.get(how.logs) or ChannelMap(how.logs, how.embodiment)
        self.maps[how.logs] = replace(
            old, signals=old.signals + how.inferred, unmapped={**old.unmapped, **dict(how.unmapped)}
        )
        self._new.setdefault(how.logs, []).append(how)

    def save(self) -> list[Path]:
        """Append to the files what is new, durably; returns those written."""
        written = []
        for logs, news in self._new.items():
            path = make_folder(self.folder) / file_name(logs)
            with locked(self.folder / f".{file_name(logs)}.lock"):
                there = read_map(path) if path.exists() else None
                text = path.read_text() if there else _head(logs, news[0].embodiment)
                has = {c.source for c in there.signals} | set(there.unmapped) if there else set()
                # Several entries may have one source: only sources that the file had before are left out.
                entries = [c for how in news for c in how.inferred if c.source not in has]
                loose = [(n, why) for how in news for n, why in how.unmapped if n not in has]
                added = "".join(map(_entry, entries)) + "".join(_loose(n, why) for n, why in loose)
                if added or not there:
                    write_durably(path, (text.rstrip("\n") + "\n" + added).encode("utf-8", "backslashreplace"))
                    written.append(path)
        self._new.clear()
        return written


def read_map(path: Path) -> ChannelMap:
    """One map file.

    Raises:
      MapConflict: not TOML, unknown or missing keys, or values that make no sense; names file and place.
    """
    where = str(path)
    try:
        data = tomllib.loads(path.read_text())
    except (OSError, ValueError) as err:
        raise MapConflict(f"not valid TOML ({err})", where=where, run_next=f"mend or delete {where}") from err
    try:
        if data.pop("layout", LAYOUT) != LAYOUT:
            raise InputError("made by a newer Flyball", where=where, run_next="pip install --upgrade flyball")
        allowed = ("layout", "logs", "embodiment", "episodes", "signal", "unmapped")
        for key in data:
            if key not in allowed:
                raise Missing.named("key", key, allowed, where=where)
        logs = data.get("logs")
        if not isinstance(logs, str):
            raise InputError("key 'logs' is missing", where=where, allowed="what the logs call their body")
        entries = []
        for i, entry in enumerate(_tables(data, "signal", where)):
            spot = f"{where}: signal {i + 1}"
            if "source" in entry:
                raise Missing.named("key", "source", ["from", *(f.name for f in fields(Channel)[2:-1])], where=spot)
            plain = {"source" if k == "from" else k: v for k, v in entry.items()}
            entries.append(from_plain(Channel, plain, where=spot))
            if not math.isfinite(entries[-1].scale + entries[-1].offset + entries[-1].clock_s):
                raise InputError("not a finite number", where=spot)
        loose = {str(u.get("from", "")): str(u.get("why", "")) for u in _tables(data, "unmapped", where)}
        episodes = from_plain(Boundaries, data.get("episodes", {}), where=f"{where}: episodes")
        return ChannelMap(logs, str(data.get("embodiment") or logs), episodes.checked(where), tuple(entries), loose)
    except MapConflict:
        raise
    except InputError as err:
        raise MapConflict(err.what, where=err.where, allowed=err.allowed, run_next=err.run_next) from err


def _tables(data: Mapping[str, Any], key: str, where: str) -> list[dict[str, Any]]:
    found = data.get(key, [])
    if not isinstance(found, list) or not all(isinstance(x, dict) for x in found):
        raise InputError(f"{key!r} is not a list of tables", where=where, allowed=f"[[{key}]]")
    return found


def _head(logs: str, embodiment: str) -> str:
    known = Boundaries()
    return f"""\
# Which signal of a log is which signal of the body, for logs whose body is called {_quoted(logs)}.
# Flyball appends what it finds in new logs and rewrites nothing: change what you like, it stays.
# In [[signal]]: name (of the body; "" leaves it out), from (of the log), and if need be columns = [...] (names or
# numbers, in the body's order), unit (of the log's values), scale, offset, clock_s (added to its time stamps).
layout = 1
logs = {_quoted(logs)}
embodiment = {_quoted(embodiment)}

# Where episodes begin and end. Rules: auto (the first of events, idle, file that applies), events, idle, file.
[episodes]
rule = {_quoted(known.rule)}
start = {_list(known.start)}  # events that begin one: a name, or name=text
stop = {_list(known.stop)}
gap_s = {known.gap_s}  # idle: so long without any message
still_s = {known.still_s}  # or so long without motion; 0: does not matter
shortest_s = {known.shortest_s}  # what is shorter is left out
"""


def _entry(c: Channel) -> str:
    why = "".join(x if x.isprintable() else " " for x in c.why)
    lines = [f"\n[[signal]]  # {why}" if why else "\n[[signal]]"]
    lines += [f"name = {_quoted(c.name)}", f"from = {_quoted(c.source)}"]
    if c.columns:
        lines.append(f"columns = {_list(c.columns)}")
    return "\n".join(lines) + "\n"


def _loose(name: str, why: str) -> str:
    return f"\n[[unmapped]]  # it keeps the log's name\nfrom = {_quoted(name)}\nwhy = {_quoted(why)}\n"


def _list(items: Iterable[Any]) -> str:
    return f"[{', '.join(_quoted(x) if isinstance(x, str) else str(x) for x in items)}]"


def _quoted(text: str) -> str:
    """A TOML string: JSON's escapes are TOML's, but for DEL and what is no character."""
    sound = text.encode("utf-8", "replace").decode()
    return json.dumps(sound, ensure_ascii=False).replace("\x7f", "\\u007f")
