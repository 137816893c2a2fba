"""What became of a model: every element compared.

In: facts of two models. Out: ``DiffReport``: per body, joint, geom, actuator, tendon, sensor, ...: equal, changed
(from, to), lost or added. Tolerances: numbers are equal within ``RELATIVE`` of the larger or of their field's scale,
which is what six printed digits (the fewest of any writer in use, MuJoCo's) and single precision meshes leave; poses
within ``POSE``; meshes when their vertices are within 1e-5 of their size. Nothing is compared by order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

import numpy as np

from flyball.robots.models.model import KINDS, Mesh, Model

RELATIVE = 2e-6
POSE = 2e-6
_MESH = 1e-5
_SCALES = {"inertia": None, "rgba": 1.0, "range": 1.0, "axis": 1.0, "data": 1.0}
"""Fields whose numbers are judged against a fixed scale, or (None) against the largest of their own."""
_IGNORED = {("meshes", "name"), ("meshes", "digest")}


@dataclass(frozen=True)
class Change:
    """One element that is not equal.

    Attributes:
      kind: body, joint, geom, ...; name: of the element.
      what: changed | lost | added.
      field: of a changed one; before, after: its values as texts.
    """

    kind: str
    name: str
    what: Literal["changed", "lost", "added"]
    field: str = ""
    before: str = ""
    after: str = ""

    def line(self) -> str:
        """One line for people."""
        if self.what != "changed":
            return f"{self.kind} {self.name}: {self.what}"
        return f"{self.kind} {self.name}: {self.field} {self.before} -> {self.after}".replace(" : ", ": ")


@dataclass(frozen=True)
class DiffReport:
    """A comparison.

    Attributes:
      changes: everything that is not equal, by kind.
      counts: kind -> {equal, changed, lost, added}: numbers of elements.
    """

    changes: tuple[Change, ...]
    counts: Mapping[str, Mapping[str, int]]

    @property
    def equal(self) -> bool:
        """Nothing changed."""
        return not self.changes

    def to_json(self) -> dict[str, Any]:
        """The report as plain data."""
        return {"equal": self.equal, "counts": dict(self.counts), "changes": [vars(c) for c in self.changes]}

    def rows(self) -> list[tuple[str, int, int, int, int]]:
        """(kind, equal, changed, lost, added) of every kind that there is."""
        keys = ("equal", "changed", "lost", "added")
        return [(kind, *(n[k] for k in keys)) for kind, n in self.counts.items()]  # type: ignore[misc]


def diff(a: Model, b: Model) -> DiffReport:
    """Compare two models, ``a`` before, ``b`` after."""
    changes: list[Change] = []
    counts: dict[str, dict[str, int]] = {}
    for kind in KINDS:
        before, after = _keyed(kind, a), _keyed(kind, b)
        if not before and not after:
            continue
        word = _singular(kind)
        tally = counts[word] = {"equal": 0, "changed": 0, "lost": 0, "added": 0}
        for name, element in before.items():
            if name not in after:
                tally["lost"] += 1
                changes.append(Change(word, name, "lost"))
                continue
            found = [*_changed(kind, element, after[name], a, b), *_further(kind, element.name, after[name].name, a, b)]
            tally["changed" if found else "equal"] += 1
            changes += [Change(word, name, "changed", f, _text(x), _text(y)) for f, x, y in found]
        for name in after:
            if name not in before:
                tally["added"] += 1
                changes.append(Change(word, name, "added"))
    for name in sorted({*a.option} & {*b.option}):
        if not _same(name, a.option[name], b.option[name]):
            changes.append(Change("option", name, "changed", "value", _text(a.option[name]), _text(b.option[name])))
    for kind in {**a.rest, **b.rest}:
        if kind not in KINDS:
            changes += _beside(kind, a.rest.get(kind, {}), b.rest.get(kind, {}))
    return DiffReport(tuple(changes), counts)


def _further(kind: str, before: str, after: str, a: Model, b: Model) -> list[tuple[str, Any, Any]]:
    """What differs in the rest of an element."""
    x, y = (model.rest.get(kind, {}).get(name, {}) for model, name in ((a, before), (b, after)))
    return [(k, x[k], y[k]) for k in x if k in y and not _same(k, x[k], y[k])]


def _beside(kind: str, x: Mapping[str, Mapping[str, Any]], y: Mapping[str, Mapping[str, Any]]) -> list[Change]:
    """Changes of a kind that has no table."""
    word = _singular(kind)
    out = [Change(word, name, "lost") for name in x if name not in y]
    for name in x.keys() & y.keys():
        out += [
            Change(word, name, "changed", k, _text(v), _text(y[name].get(k)))
            for k, v in x[name].items()
            if not _same(k, v, y[name].get(k))
        ]
    return out + [Change(word, name, "added") for name in y if name not in x]


def _keyed(kind: str, model: Model) -> dict[str, Any]:
    """Elements by what identifies them; constraints by what they tie together, meshes only where geoms show them."""
    table = getattr(model, kind)
    if kind == "meshes":
        return {}
    if kind != "equalities":
        return dict(table)
    out: dict[str, Any] = {}
    for e in table.values():
        key, n = f"{e.kind}:{e.first}|{e.second}", 2
        while key in out:
            key, n = f"{e.kind}:{e.first}|{e.second}#{n}", n + 1
        out[key] = e
    return out


def _singular(kind: str) -> str:
    irregular = {"bodies": "body", "meshes": "mesh", "equalities": "equality", "flexes": "flex"}
    whole = ("visual", "size")
    return irregular.get(kind, kind if kind in whole else kind[:-1])


def _changed(kind: str, x: Any, y: Any, a: Model, b: Model) -> list[tuple[str, Any, Any]]:
    out: list[tuple[str, Any, Any]] = []
    for f in fields(x):
        before, after = getattr(x, f.name), getattr(y, f.name)
        if (kind, f.name) in _IGNORED or f.name == "name":
            continue
        if kind == "geoms" and f.name == "mesh":
            if before in a.meshes and after in b.meshes:
                if not _same_mesh(a.meshes[before], b.meshes[after]):
                    out.append((f.name, _mesh_text(a.meshes[before]), _mesh_text(b.meshes[after])))
                continue
        elif kind == "keyframes" and isinstance(before, Mapping):
            out += [
                (f"{f.name}[{name}]", before.get(name), after.get(name))
                for name in {**before, **after}
                if not (name in before and name in after and _same(f.name, before[name], after[name]))
            ]
            continue
        if kind == "equalities" and f.name == "data" and x.kind == "weld":
            # position, turn (a quaternion and its negative are one), torque scale
            parts = [("data", slice(0, 6)), ("quat", slice(6, 10)), ("data", slice(10, 11))]
            if all(_same(name, before[part], after[part]) for name, part in parts):
                continue
        elif _same(f.name, before, after):
            continue
        out.append((f.name, before, after))
    return out


def _same(field: str, x: Any, y: Any) -> bool:
    if isinstance(x, tuple):  # a tendon's path
        return len(x) == len(y) and all(
            p[:2] == q[:2] and _same("", np.array(p[2]), np.array(q[2])) for p, q in zip(x, y, strict=True)
        )
    if isinstance(x, str | bool) or isinstance(y, str | bool):
        return bool(x == y)
    p, q = np.asarray(x, float), np.asarray(y, float)
    if p.shape != q.shape:
        return False
    if field == "quat":
        return bool(min(np.abs(p - q).max(), np.abs(p + q).max()) <= POSE)
    finite = np.isfinite(p)
    if not np.array_equal(finite, np.isfinite(q)) or not np.array_equal(p[~finite], q[~finite]):
        return False
    p, q = p[finite], q[finite]
    if not p.size:
        return True
    largest = np.maximum(np.abs(p), np.abs(q))
    if field in ("pos", "com", "anchor", "size"):
        return bool((np.abs(p - q) <= POSE * np.maximum(1.0, largest)).all())
    scale = _SCALES.get(field, 0.0)
    floor = largest.max() if scale is None else scale
    return bool((np.abs(p - q) <= RELATIVE * np.maximum(largest, floor)).all())


def _same_mesh(x: Mesh, y: Mesh) -> bool:
    if x.digest == y.digest:
        return True
    if not len(x.vertices) or not len(y.vertices):
        return len(x.vertices) == len(y.vertices)
    size = float(np.ptp(x.vertices, axis=0).max())
    if x.vertices.shape == y.vertices.shape and np.abs(x.vertices - y.vertices).max() <= _MESH * size:
        return True
    # the same surface in another order of vertices: each has a partner in the other
    p, q = (np.unique(np.round(m.vertices / (10 * _MESH * size)), axis=0) for m in (x, y))
    return bool(np.array_equal(p, q))


def _mesh_text(mesh: Mesh) -> str:
    size = np.ptp(mesh.vertices, axis=0) if len(mesh.vertices) else np.zeros(3)
    return f"{len(mesh.vertices)} vertices {size[0]:.4g} x {size[1]:.4g} x {size[2]:.4g} m"


def _text(x: Any) -> str:
    if isinstance(x, np.ndarray):
        return "[" + " ".join(f"{float(v):.6g}" for v in np.ravel(x)[:12]) + ("]" if x.size <= 12 else " ...]")
    return f"{x:.6g}" if isinstance(x, float) else str(x)
