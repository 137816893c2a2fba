"""Variations as a TOML file, and back without a bit lost.

In: a path or text. Out: variations; or the other way. Every variation is a table named by what it varies::

    ["object.mass"]                       # or [object.mass]
    kind = "uniform"
    low = 0.2
    high = { kind = "ramp", start = 0.3, end = 0.9 }     # widens with the curriculum's progress

    ["geom:box.friction[0]"]              # a field of the engine; set, scale or add
    how = "scale"
    kind = "truncated"
    of = { kind = "normal", mean = 1.0, std = 0.2 }
    low = 0.5

    ["object.inertia"]
    kind = "formula"                      # arithmetic over other paths
    text = "0.4 * object.mass * object.radius ** 2"

    ["sensor:object.pose.delay"]          # what befalls the observation
    kind = "constant"
    value = 0.04

    ["object.density, object.radius"]     # several together
    kind = "correlated"
    marginals = [{ kind = "uniform", low = 300, high = 900 }, { kind = "log_normal", median = 0.03, sigma = 0.1 }]
    correlation = [[1, -0.5], [-0.5, 1]]

    ["arm.gain, arm.friction"]
    kind = "joint"                        # rows drawn with replacement
    samples = [[1.0, 0.11], [0.9, 0.14]]
    jitter = [0.01, 0.02]

Kinds of a number: ``constant`` (value), ``uniform`` and ``log_uniform`` (low, high), ``normal`` (mean, std),
``log_normal`` (median, sigma), ``truncated`` (of, low, high), ``choice`` (values, weights), ``mixture`` (of, weights),
``ramp`` (start, end, begin, finish), ``formula`` (text), ``conditional`` (on, cases = [[when, number], ...],
otherwise), ``arithmetic`` (op, left, right). Wherever one takes a number it takes a table of such a kind, and a bare
string there is a formula. Each path stands once in a file, so the order of tables means nothing.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np

from flyball.base import InputError, Missing
from flyball.scenes.compositions import KINDS, Formula, Mixture
from flyball.scenes.expressions import Distribution, Number
from flyball.scenes.targets import check_path
from flyball.scenes.variation import Constant, Correlated, JointSamples, Variation, Vary

_MOST_BYTES = 64 << 20
_JOINT = {"correlated": ("marginals", "correlation"), "joint": ("samples", "jitter")}


# reading --------------------------------------------------------------------------------------------------


def load_variations(path: Path | str) -> tuple[Variation, ...]:
    """Variations of a file.

    Raises:
      InputError: the file cannot be read; naming file, table and key.
    """
    p = Path(path)
    try:
        if p.stat().st_size > _MOST_BYTES:
            raise InputError(f"{p.stat().st_size} bytes", where=str(p), allowed=f"at most {_MOST_BYTES}")
        text = p.read_text("utf-8")
    except OSError as err:
        raise InputError(err.strerror or "cannot be read", where=str(p), allowed="a TOML file of variations") from err
    except UnicodeDecodeError as err:
        raise InputError("is not UTF-8 text", where=str(p), allowed="a TOML file of variations") from err
    return read_variations(text, where=str(p))


def read_variations(text: str, *, where: str = "variations") -> tuple[Variation, ...]:
    """Variations of a TOML text; the inverse of ``dump_variations``.

    Raises:
      InputError: naming ``where``, table and key.
    """
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as err:  # ValueError: integers of 5000 digits
        raise InputError(f"is not TOML: {err}", where=where) from err
    out: list[Variation] = []
    seen: set[str] = set()
    for name, table in _tables(data, "", where, 0):
        place = f"{where}: [{name}]"
        try:
            variation = _variation(name, table)
        except InputError as err:
            raise type(err)(err.what, where=_join(place, err.where), allowed=err.allowed) from err
        for path in variation.paths:
            if path in seen:
                raise InputError(f"{path} is varied twice", where=place, allowed="each path once")
            seen.add(path)
        out.append(variation)
    return tuple(out)


def _join(place: str, inner: str) -> str:
    """The place in the file, and where inside the table; what the inner place repeats of the table is left out."""
    inner = inner.strip()
    if inner.startswith("[") and "]" in inner:
        inner = inner[inner.index("]") + 1 :].strip()
    return f"{place} {inner}" if inner and inner != "variation" else place


def _tables(data: Mapping[str, Any], before: str, where: str, depth: int) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Leaf tables, with dotted names joined."""
    for key, x in data.items():
        name = f"{before}.{key}" if before else key
        if isinstance(x, Mapping) and not isinstance(x.get("kind"), str) and x and depth < 30:
            if any(not isinstance(y, Mapping) for y in x.values()):
                raise InputError("key 'kind' is missing", where=f"{where}: [{name}]", allowed=", ".join(_all_kinds()))
            yield from _tables(x, name, where, depth + 1)
        elif isinstance(x, Mapping):
            yield name, x
        else:
            raise InputError(
                f"{name} = {x!r} stands alone", where=where, allowed=f"a table: [{name}] with kind and its keys"
            )


def _all_kinds() -> list[str]:
    return ["constant", *KINDS, *_JOINT]


def _variation(name: str, table: Mapping[str, Any]) -> Variation:
    kind = table.get("kind")
    if kind is None:
        raise InputError("key 'kind' is missing", allowed=", ".join(_all_kinds()))
    if kind not in _all_kinds():
        raise Missing.named("kind", str(kind), _all_kinds())
    if kind in _JOINT:
        paths = tuple(p.strip() for p in name.split(","))
        return _joint(kind, paths, table)
    how = table.get("how", "set")
    inner = {k: x for k, x in table.items() if k != "how"}
    if kind == "constant" and how == "set":
        _keys(inner, ("value",), ("value",), "kind", "how")
        check_path(name)
        return Constant(name, _plain(inner["value"], "value"))
    return Vary(name, _number(inner, ""), how)


def _keys(table: Mapping[str, Any], allowed: Iterable[str], needed: Iterable[str], *more: str, where: str = "") -> None:
    allowed = list(allowed)
    for key in table:
        if key not in (*allowed, "kind"):
            raise Missing.named("key", key, dict.fromkeys([*allowed, *more]), where=where)
    for key in needed:
        if key not in table:
            raise InputError(f"key {key!r} is missing", where=where, allowed=", ".join(dict.fromkeys(allowed)))


def _joint(kind: str, paths: tuple[str, ...], table: Mapping[str, Any]) -> Variation:
    for p in paths:
        check_path(p)
    _keys(table, _JOINT[kind], _JOINT[kind] if kind == "correlated" else ("samples",))
    if kind == "correlated":
        marginals = _list(table["marginals"], "marginals")
        rows = [_list(row, f"correlation[{i}]") for i, row in enumerate(_list(table["correlation"], "correlation"))]
        return Correlated(
            paths,
            tuple(_number(x, f"marginals[{i}]") for i, x in enumerate(marginals)),
            tuple(tuple(_plain(x, f"correlation[{i}][{j}]") for j, x in enumerate(r)) for i, r in enumerate(rows)),
        )
    rows = [_list(row, f"samples[{i}]") for i, row in enumerate(_list(table["samples"], "samples"))]
    for i, row in enumerate(rows):
        if len(row) != len(paths):
            raise InputError(f"samples[{i}] has {len(row)} numbers", allowed=str(len(paths)))
    if not rows:
        raise InputError("samples is empty", allowed="one row or more")
    samples = np.array([[_plain(x, f"samples[{i}][{j}]") for j, x in enumerate(r)] for i, r in enumerate(rows)])
    jitter = tuple(_plain(x, f"jitter[{j}]") for j, x in enumerate(_list(table.get("jitter", []), "jitter")))
    if len(jitter) not in (0, len(paths)):
        raise InputError(f"jitter has {len(jitter)} numbers", allowed=str(len(paths)))
    return JointSamples(paths, samples, jitter)


def _list(x: Any, key: str) -> list[Any]:
    if not isinstance(x, list):
        raise InputError(f"{key} = {x!r}", allowed="a list")
    return x


def _plain(x: Any, key: str) -> float:
    """A TOML number as a float."""
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        raise InputError(f"{key} = {x!r}", allowed="a number")
    try:
        out = float(x)
    except OverflowError:
        out = np.inf
    if not np.isfinite(out):
        raise InputError(f"{key} = {out}", allowed="a finite number")
    return out


def _number(x: Any, key: str, depth: int = 0) -> Number:
    """A number from data: a plain one, a formula as a string, or a table with a kind."""
    if depth > 30:
        raise InputError("distributions nested more than 30 deep", where=key)
    if isinstance(x, str):
        return _made(Formula, {"text": x}, key)
    if not isinstance(x, Mapping):
        return _plain(x, key)
    kind = x.get("kind")
    if kind == "constant":
        _keys(x, ("value",), ("value",), where=key)
        return _plain(x["value"], "value")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Missing.named("kind", str(kind), [*KINDS, "constant"], where=key)
    cls = KINDS[kind]
    known = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    _keys(x, known, (k for k, f in known.items() if f.default is MISSING), *(() if key else ("how",)), where=key)
    got: dict[str, Any] = {}
    for k, y in x.items():
        if k == "kind":
            continue
        place = f"{key}.{k}" if key else k
        if k in ("text", "op", "on"):
            if not isinstance(y, str):
                raise InputError(f"{k} = {y!r}", where=key, allowed="a text")
            got[k] = y
        elif k in ("weights", "values"):
            got[k] = tuple(_plain(v, f"{place}[{i}]") for i, v in enumerate(_list(y, place)))
        elif k == "of" and cls is Mixture:
            got[k] = tuple(_number(v, f"{place}[{i}]", depth + 1) for i, v in enumerate(_list(y, place)))
        elif k == "cases":
            pairs = [_list(pair, f"{place}[{i}]") for i, pair in enumerate(_list(y, place))]
            if any(len(pair) != 2 for pair in pairs):
                raise InputError(f"{place} = {y!r}", allowed="a list of pairs [value, number]")
            got[k] = tuple(
                (_plain(a, f"{place}[{i}][0]"), _number(b, f"{place}[{i}][1]", depth + 1))
                for i, (a, b) in enumerate(pairs)
            )
        else:
            got[k] = _number(y, place, depth + 1)
    return _made(cls, got, key)


def _made(cls: type[Distribution], got: Mapping[str, Any], key: str) -> Distribution:
    """The distribution; its refusals name the key where it stands."""
    try:
        return cls(**got)
    except InputError as err:
        inner = err.where if err.where not in ("", cls.kind) else ""
        raise type(err)(err.what, where=" ".join(filter(None, (key, inner))), allowed=err.allowed) from err


# writing --------------------------------------------------------------------------------------------------


def dump_variations(variations: Iterable[Variation]) -> str:
    """TOML text of variations; ``read_variations`` gives back equal ones.

    Raises:
      InputError: a path that is varied twice, or a variation of a foreign class.
    """
    blocks: list[str] = []
    seen: set[str] = set()
    for v in variations:
        name = ", ".join(v.paths)
        for p in v.paths:
            if p in seen:
                raise InputError(f"{p} is varied twice", where=f"[{name}]", allowed="each path once in a file")
            seen.add(p)
        blocks.append("\n".join([f"[{_text(name)}]", *(f"{k} = {x}" for k, x in _rows(v, name))]))
    return "\n\n".join(blocks) + ("\n" if blocks else "")


def _rows(v: Variation, name: str) -> list[tuple[str, str]]:
    if isinstance(v, Constant):
        return [("kind", '"constant"'), ("value", _write(v.value))]
    if isinstance(v, Correlated):
        marginals = ", ".join(_write(m) for m in v.marginals)
        rows = [("marginals", f"[{marginals}]"), ("correlation", _write(v.correlation))]
        return [("kind", '"correlated"'), *rows]
    if isinstance(v, JointSamples):
        rows = [("samples", "[\n" + "".join(f"  {_write(tuple(r))},\n" for r in v.samples.tolist()) + "]")]
        return [("kind", '"joint"'), *rows, *([("jitter", _write(v.jitter))] if v.jitter else [])]
    if isinstance(v, Vary):
        how = [("how", _text(v.how))] if v.how != "set" else []
        rows = _table(v.by) if isinstance(v.by, Distribution) else [("kind", '"constant"'), ("value", _write(v.by))]
        return [*how, *rows]
    raise InputError(f"a {type(v).__name__} has no form in a file", where=f"[{name}]")


def _table(d: Distribution) -> list[tuple[str, str]]:
    rows = [("kind", _text(d.kind))]
    for f in fields(d):  # type: ignore[arg-type]
        x = getattr(d, f.name)
        if f.default is MISSING or x != f.default:
            rows.append((f.name, _text(x) if isinstance(x, str) else _write(x)))
    return rows


def _write(x: Any) -> str:
    if isinstance(x, Distribution):
        return "{ " + ", ".join(f"{k} = {y}" for k, y in _table(x)) + " }"
    if isinstance(x, tuple):
        return "[" + ", ".join(_write(y) for y in x) + "]"
    return repr(_plain(x, "a number"))


def _text(x: str) -> str:
    """A TOML basic string."""
    escaped = x.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
