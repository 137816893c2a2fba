"""Which columns of a table are which signals: inferred from their names, and kept in a file that can be edited.

In: the names of a table's columns and their first values. Out: a ``TableMap``, the content of a TOML file. The rules:

- Time is the column called ``time``, ``t``, ``timestamp``, ``stamp``, ... (with a unit behind it or not), or the pair
  of columns ``...sec`` and ``...nanosec``; of several, one that does not decrease; without one, the first column when
  it increases and does not count rows. Its unit is the one in its name, else what its magnitude allows: times since
  1970 by their size, others by their step.
- A unit stands behind a name: ``joint_0_deg``, ``force [N]``, ``gap (mm)``. Values are converted to SI units.
- Names that differ in one number that counts up from 0 or 1 (``joint_0``, ``joint_1``; ``q1``, ``q2``) are one signal,
  so are ``x y z`` and ``x y z w`` behind one name; quaternions become wxyz.
- Numbers become signals, texts labels or events. A column ``episode``, ``episode_index``, ``trial``, ... cuts a table.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import Damaged, InputError
from flyball.base.config import from_plain
from flyball.base.durable import make_folder, write_durably

_YEAR_2000, _YEAR_2100 = 946_684_800, 4_102_444_800  # since 1970 [s]
NS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9}
_NS_NAMES = {
    **dict.fromkeys(("ns", "nsec", "nsecs", "nanos", "nanosec", "nanosecs", "nanoseconds"), "ns"),
    **dict.fromkeys(("us", "usec", "usecs", "micros", "microsec", "microseconds"), "us"),
    **dict.fromkeys(("ms", "msec", "msecs", "millis", "millisec", "milliseconds"), "ms"),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), "s"),
}
_TIME_NAMES = (
    "timestamp", "time_stamp", "time", "t", "stamp", "ts", "datetime", "date_time", "date", "clock", "epoch",
    "elapsed", "elapsed_time", "rel_time", "relative_time", "sim_time", "simtime", "ros_time", "log_time", "unix_time",
)  # fmt: skip
_EPISODES = ("episode", "episode_index", "episode_id", "episode_number", "trial", "trial_id", "trajectory", "demo")
_COUNTERS = ("index", "idx", "frame", "frame_index", "frame_id", "step", "seq", "count", "row", "id", "n", "i", "line")

_DEG = math.pi / 180
_UNITS: dict[str, tuple[str, float]] = {
    **{u: (u, 1.0) for u in ("rad", "m", "s", "kg", "N", "A", "V", "W", "Hz", "K", "Pa", "rad/s", "m/s", "T")},
    "m/s^2": ("m/s^2", 1.0), "rad/s^2": ("rad/s^2", 1.0), "N*m": ("N*m", 1.0), "1": ("", 1.0),
    "deg": ("rad", _DEG), "deg/s": ("rad/s", _DEG), "deg/s^2": ("rad/s^2", _DEG), "rpm": ("rad/s", math.pi / 30),
    "mm": ("m", 1e-3), "cm": ("m", 1e-2), "um": ("m", 1e-6), "km": ("m", 1e3), "mm/s": ("m/s", 1e-3),
    "cm/s": ("m/s", 1e-2), "km/h": ("m/s", 1 / 3.6), "mm/s^2": ("m/s^2", 1e-3), "mN": ("N", 1e-3), "kN": ("N", 1e3),
    "mN*m": ("N*m", 1e-3), "mA": ("A", 1e-3), "mV": ("V", 1e-3), "mW": ("W", 1e-3), "kW": ("W", 1e3),
    "kHz": ("Hz", 1e3), "kPa": ("Pa", 1e3), "hPa": ("Pa", 1e2), "bar": ("Pa", 1e5), "mbar": ("Pa", 1e2),
    "ms": ("s", 1e-3), "us": ("s", 1e-6), "ns": ("s", 1e-9), "uT": ("T", 1e-6), "percent": ("", 1e-2),
}  # fmt: skip
"""Unit -> (SI unit, factor). No unit with an offset, and none with two meanings (g, nm, c)."""
_SPELLED = {
    "radian": "rad", "radians": "rad", "degree": "deg", "degrees": "deg", "°": "deg", "Nm": "N*m", "N.m": "N*m",
    "N m": "N*m", "mNm": "mN*m", "rad s^-1": "rad/s", "m s^-1": "m/s", "m s^-2": "m/s^2", "rad s^-2": "rad/s^2",
    "m/s2": "m/s^2", "m/s²": "m/s^2", "rad/s2": "rad/s^2", "°/s": "deg/s", "%": "percent", "pct": "percent",
    "RPM": "rpm", "Deg": "deg", "Rad": "rad", "meter": "m", "meters": "m", "sec": "s", "-": "1", "": "1",
    "rad_s": "rad/s", "m_s": "m/s", "deg_s": "deg/s", "mm_s": "mm/s", "rad_per_s": "rad/s", "m_per_s": "m/s",
    "deg_per_s": "deg/s", "m_s2": "m/s^2", "rad_s2": "rad/s^2", "mps": "m/s", "mps2": "m/s^2", "dps": "deg/s",
    "radps": "rad/s", "degps": "deg/s",
}  # fmt: skip
_BEHIND = sorted(
    (u for u in {*_UNITS, *_SPELLED} if re.fullmatch(r"[A-Za-z_0-9]{1,12}", u) and u not in ("1", "T")), key=len
)


@dataclass(frozen=True)
class TimeColumn:
    """When a row was.

    Attributes:
      column: name of the column; "" for none.
      nanoseconds: a second column, which adds to it; "" for none.
      unit: ``s``, ``ms``, ``us``, ``ns``; ``date`` for dates; "" to go by the magnitude.
      hz: rows per second where there is no column [Hz].
    """

    column: str = ""
    nanoseconds: str = ""
    unit: str = ""
    hz: float = 0.0


@dataclass(frozen=True)
class SignalColumns:
    """A signal and its columns.

    Attributes:
      name: of the signal.
      columns: one for a signal of single numbers, else in order.
      unit: that the table has; one for all columns, or one each, separated by spaces.
    """

    name: str
    columns: tuple[str, ...]
    unit: str = ""

    def to_si(self, where: str) -> tuple[str, NDArray[np.float64]]:
        """(SI unit or units, factor per column).

        Raises:
          InputError: a unit that is not known.
        """
        told = self.unit.split() or [""]
        if len(told) not in (1, len(self.columns)):
            raise InputError(f"signal {self.name!r} has {len(self.columns)} columns and {len(told)} units", where=where)
        units = told * len(self.columns) if len(told) == 1 else told
        if unknown := [u for u in units if u and _known(u) is None]:
            allowed = ", ".join(sorted(u for u in _UNITS if u != "1"))
            raise InputError(f"signal {self.name!r}: the unit {unknown[0]!r}", where=where, allowed=allowed)
        pairs = [_known(u) or ("", 1.0) if u else ("", 1.0) for u in units]
        names = [si for si, _ in pairs]
        text = names[0] if len(set(names)) == 1 else " ".join(n or "1" for n in names)
        return text, np.array([factor for _, factor in pairs])


@dataclass(frozen=True)
class TableMap:
    """How a table is read.

    Attributes:
      time: when a row was.
      signals: which columns are signals.
      texts: columns that become labels, or events when they change.
      episode: a column; where its value changes another episode begins. "" for none.
    """

    time: TimeColumn
    signals: tuple[SignalColumns, ...] = ()
    texts: tuple[str, ...] = ()
    episode: str = ""

    def columns(self) -> list[str]:
        """Every column that it names."""
        heads = [self.time.column, self.time.nanoseconds, self.episode]
        named = [*heads, *self.texts, *(c for s in self.signals for c in s.columns)]
        return [c for c in dict.fromkeys(named) if c]

    def to_toml(self) -> str:
        """The map as the text of a TOML file; ``load`` reads it."""

        def q(text: str) -> str:  # a basic string of TOML is one of JSON, but for one character
            return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")

        lines = ["# How tables with these columns are read. Inferred from their names; edit what is wrong."]
        lines += [f"episode = {q(self.episode)}  # a column; another episode begins where its value changes"]
        lines += [f"texts = [{', '.join(map(q, self.texts))}]", "", "[time]"]
        if self.time.column:
            lines += [f"column = {q(self.time.column)}"]
            lines += [f"nanoseconds = {q(self.time.nanoseconds)}"] if self.time.nanoseconds else []
            lines += [f"unit = {q(self.time.unit)}  # s, ms, us, ns, date; empty: by its magnitude"]
        else:
            lines += [f"hz = {self.time.hz!r}"]
        for s in self.signals:
            lines += ["", "[[signals]]", f"name = {q(s.name)}", f"columns = [{', '.join(map(q, s.columns))}]"]
            lines += [f"unit = {q(s.unit)}"]
        return "\n".join(lines) + "\n"


def load(path: Path) -> TableMap:
    """The map in a file.

    Raises:
      InputError: it is not one.
    """
    try:
        plain = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as err:
        raise InputError(f"cannot be read ({err})", where=str(path), allowed="a map of a table's columns") from err
    made = from_plain(TableMap, plain, where=str(path))
    if made.time.unit not in ("", "date", *NS):
        raise InputError(f"the unit of time {made.time.unit!r}", where=str(path), allowed="s, ms, us, ns, date")
    if bool(made.time.column) == bool(made.time.hz):
        raise InputError("time has neither a column nor a rate hz, or both", where=str(path))
    names = [s.name for s in made.signals]
    if twice := {n for n in names if names.count(n) > 1}:
        raise InputError(f"two signals named {min(twice)!r}", where=str(path))
    if empty := [s.name for s in made.signals if not s.columns]:
        raise InputError(f"signal {empty[0]!r} has no columns", where=str(path))
    return made


def save(made: TableMap, path: Path) -> None:
    """Write a map to a file."""
    make_folder(path.parent)
    write_durably(path, made.to_toml().encode())


@dataclass(frozen=True)
class Sample:
    """The beginning of a column.

    Attributes:
      kind: ``number``, ``text``, ``date``, ``pictures`` or "" for what is not read.
      values: the first ones, shape (n,); empty for what are no numbers.
      size: numbers in one cell, 0 for a single number.
    """

    kind: str
    values: NDArray[Any]
    size: int = 0


def infer(columns: Mapping[str, Sample], time: str, hz: float, where: str) -> TableMap:
    """The map of a table.

    Args:
      columns: name -> its beginning, in the table's order.
      time: name of the time column where it is known.
      hz: rows per second where there is no time column, 0 when unknown [Hz].
      where: the table, for error messages.

    Raises:
      InputError: no column says when, and ``hz`` is 0.
    """
    when = TimeColumn(hz=hz) if hz else _time(columns, time, where)
    rest = [c for c in columns if c not in (when.column, when.nanoseconds)]
    episode = next((c for c in rest if c.lower().strip() in _EPISODES and not columns[c].size), "")
    rest = [c for c in rest if c != episode]
    numbers = [c for c in rest if columns[c].kind in ("number", "pictures")]
    texts = tuple(c for c in rest if columns[c].kind == "text")
    return TableMap(when, tuple(_grouped(numbers, columns)), texts, episode)


def _time(columns: Mapping[str, Sample], asked: str, where: str) -> TimeColumn:
    if asked:
        if asked not in columns or columns[asked].kind not in ("number", "date") or columns[asked].size:
            allowed = ", ".join(c for c in columns if columns[c].kind in ("number", "date"))
            raise InputError(f"no column of times named {asked!r}", where=where, allowed=allowed)
        return TimeColumn(asked, unit="date" if columns[asked].kind == "date" else _time_name(asked)[1])
    found: list[tuple[bool, int, int, TimeColumn]] = []
    for i, (name, sample) in enumerate(columns.items()):
        if sample.kind not in ("number", "date") or sample.size:
            continue
        rank, unit = _time_name(name)
        if sample.kind == "date":
            rank, unit = min(rank, len(_TIME_NAMES)), "date"
        backwards = bool((np.diff(sample.values) < 0).any()) if sample.kind == "number" else False
        if rank <= len(_TIME_NAMES):
            found.append((backwards, rank, i, TimeColumn(name, unit=unit)))
        elif (second := _nanoseconds(name, columns)) is not None:
            found.append((backwards, rank, i, TimeColumn(name, second, "s")))
    if not found and (first := next(iter(columns), "")) and first.lower().strip() not in _COUNTERS:
        sample = columns[first]
        steps = np.diff(sample.values) if sample.kind == "number" and not sample.size else np.zeros(0)
        if len(steps) and (steps > 0).all() and not (steps == 1).all():
            return TimeColumn(first)
    if not found:
        raise InputError(
            "no column says when a row was",
            where=where,
            allowed="a column named time, t, timestamp, ... or the option table.time=COLUMN or table.hz=RATE",
        )
    return min(found, key=lambda f: f[:3])[3]


def says_time(name: str) -> bool:
    """Whether a column's name is one of a time."""
    return _time_name(name)[0] <= len(_TIME_NAMES)


def _time_name(name: str) -> tuple[int, str]:
    """(rank among names of time columns, more than the last when it is none; unit in the name)."""
    text, unit = name.strip().lstrip("%# ").lower(), ""
    if match := re.fullmatch(r"(.*?)\s*[\[(]\s*(\w+)\s*[\])]", text):
        text, unit = match[1], _NS_NAMES.get(match[2], "")
    last = re.split(r"[./]", text)[-1]
    if last not in _TIME_NAMES and (match := re.fullmatch(r"(.+?)[_ ]?(since_boot_)?([a-z]+)", last)) is not None:
        base, ending = last.rpartition("_")[0], last.rpartition("_")[2]
        if ending in _NS_NAMES and base:
            last, unit = base.removesuffix("_since_boot"), _NS_NAMES[ending]
    if last in _NS_NAMES and text == last and last not in _TIME_NAMES:  # ``seconds`` alone
        return len(_TIME_NAMES) - 1, _NS_NAMES[last]
    rank = _TIME_NAMES.index(last) if last in _TIME_NAMES else len(_TIME_NAMES) + 1
    return rank, unit


def _nanoseconds(name: str, columns: Mapping[str, Sample]) -> str | None:
    """The column of nanoseconds beside one of seconds."""
    match = re.fullmatch(r"(.*[._/ ])(secs?)", name, re.IGNORECASE)
    if match is None:
        return None
    return next((match[1] + n for n in ("nanosec", "nsecs", "nsec", "nanosecs") if match[1] + n in columns), None)


def unit_by_magnitude(values: NDArray[Any]) -> tuple[str, bool]:
    """(unit of a time column by its first values, whether its size leaves no doubt)."""
    numbers = np.asarray(values, np.float64)
    steps = np.diff(numbers)
    step = float(np.median(steps[steps > 0])) if (steps > 0).any() else 0.0
    for unit, ns in NS.items():
        seconds = ns / 1e9
        if len(numbers) and _YEAR_2000 < numbers[0] * seconds < _YEAR_2100 and step * seconds < 3600:
            return unit, True
    if (numbers != np.floor(numbers)).any() or step < 1:
        return "s", True
    return next((unit for unit, least in (("ns", 1e5), ("us", 1e2), ("ms", 1.0)) if step >= least), "s"), False


def split_unit(name: str) -> tuple[str, str]:
    """(name without its unit, unit as ``SignalColumns`` takes it) of a column."""
    if match := re.fullmatch(r"(.*?)\s*[\[(]\s*([^\[\]()]*?)\s*[\])]\s*", name):
        unit = _SPELLED.get(match[2], match[2])
        if unit in _UNITS and match[1] and not match[2].isdigit():
            return match[1], "" if unit == "1" else unit
        return name, ""
    for ending in reversed(_BEHIND):
        if name.endswith("_" + ending) and len(name) > len(ending) + 1:
            unit = _SPELLED.get(ending, ending)
            return name[: -len(ending) - 1], "" if unit == "1" else unit
    return name, ""


def _known(unit: str) -> tuple[str, float] | None:
    return _UNITS.get(_SPELLED.get(unit, unit))


def _grouped(names: list[str], columns: Mapping[str, Sample]) -> Iterable[SignalColumns]:
    """Signals of columns, in the order of the first column of each."""
    bare = {n: split_unit(n) for n in names}
    groups: dict[tuple[str, ...], dict[str, list[str]]] = {}
    for n in names:
        if columns[n].kind == "number" and not columns[n].size:
            for key, place in _places(bare[n][0]):
                groups.setdefault(key, {}).setdefault(place, []).append(n)
    of: dict[str, tuple[str, tuple[str, ...]]] = {}
    for key, members in groups.items():
        order = _order(key[0], members)
        if order and all(len(members[p]) == 1 for p in order) and not any(members[p][0] in of for p in order):
            picked = tuple(members[p][0] for p in order)
            joined = ".".join(part for part in (k.strip("_. -") for k in key[1:]) if part)
            name = joined or ("quaternion" if len(order) == 4 and key[0] == "axis" else "".join(order))
            of |= dict.fromkeys(picked, (name, picked))
    made: list[SignalColumns] = []
    taken: set[str] = set()
    for n in names:
        name, picked = of.get(n, (bare[n][0], (n,)))
        if n in taken:
            continue
        taken |= set(picked)
        units = [bare[p][1] for p in picked]
        unit = units[0] if len(set(units)) == 1 else " ".join(u or "1" for u in units)
        if "1" in unit.split() and len(picked) > 1 and all(u in ("", "1") for u in units):
            unit = ""
        made.append(SignalColumns(name, picked, unit))
    names_of = [clean(s.name) for s in made]
    for s, name in zip(made, names_of, strict=True):  # ``x_mm`` beside ``x_m``: both keep their whole names
        clash = names_of.count(name) > 1
        yield SignalColumns(clean(s.columns[0] if clash else s.name), s.columns, s.unit)


def _places(name: str) -> Iterable[tuple[tuple[str, ...], str]]:
    """(group, place in it) that a name without unit may have: by a number in it, by an axis at its end."""
    if match := re.fullmatch(r"(.*?)(\d+)(\D*)", name):
        before, number, behind = match.groups()
        if (before or behind) and len(number) <= 3:
            yield ("number", before.rstrip("[("), behind.lstrip("])")), str(int(number))
    if match := re.fullmatch(r"(.*?)([xyzw])", name):
        yield ("axis", match[1]), match[2]


def _order(kind: str, members: Iterable[str]) -> list[str]:
    """The places of a group in order; none when they are not a whole one."""
    places = set(members)
    if kind == "axis":
        if places == set("wxyz"):
            return list("wxyz")
        return list("xyz") if places == set("xyz") else list("xy") if places == set("xy") else []
    numbers = sorted(map(int, places))
    whole = len(numbers) > 1 and numbers[0] in (0, 1) and numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    return [str(n) for n in numbers] if whole else []


def clean(name: str) -> str:
    """A signal's name: letters, digits and ``_ . - [ ]``."""
    made = re.sub(r"[^\w.\-\[\]]+", "_", name.strip().strip("/%#").replace("/", ".")).strip("_.")
    if len(made) > 200:
        raise Damaged(f"a column whose name has {len(made)} characters")
    return made or "unnamed"
