"""What a calibration changes in the model, as files that other tools read.

In: a calibration and the scene it was fitted to. Out: an ``Overlay``: the model with the best fit in it as MJCF, every
changed attribute by name, a USD layer with ``over``s on the prims of the exported model, the joint samples as a file
of variations, and a list of what no model format has a place for (delays, biases of sensors, laws that only one engine
knows). The choice of formats is argued in ``docs/adr/0016-overlays-of-calibrations.md``.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Refused, Unsupported
from flyball.base.durable import write_durably
from flyball.calibration.calibration import Calibration, scene_digest
from flyball.calibration.overlay_mjcf import Change, patch
from flyball.engines import Simulation, engines
from flyball.robots.models.markup import parse
from flyball.robots.models.mjcf import file_stem
from flyball.scenes import Scene
from flyball.scenes.targets import ENGINE_KINDS
from flyball.scenes.variation_files import dump_variations

Array = NDArray[np.float64]

SCHEMA = 1
"""Of the JSON file."""
_TOLERANCE = 1e-12
"""Relative, on fields read back: MJCF texts keep every digit, scaled numbers are rounded once."""
_NOTHING = {"scale": 1.0, "add": 0.0}


@dataclass(frozen=True)
class Unplaced:
    """A parameter's effect that stands in no model file; whoever replays must apply it.

    Attributes:
      parameter, value, unit: what was fitted, or held at its nominal value.
      target, how: what it does, as in ``Bind``.
      reason: why it has no place.
    """

    parameter: str
    value: float
    unit: str
    target: str
    how: str
    reason: str


@dataclass(frozen=True)
class Overlay:
    """What a calibration changes in a model.

    Attributes:
      name: of what was calibrated.
      scene: the scene that was calibrated.
      calibration: digest of the calibration.
      values: every parameter of the scene: fitted ones at the best fit, others nominal.
      fields: engine fields in the model, ``kind:NAME.field`` -> (k,).
      mjcf: the whole model with these values.
      changes: attributes that differ from the scene's model.
      unplaced: effects that are not in it.
      samples: the joint samples, as TOML that ``flyball variations`` and ``load_variations`` read.
    """

    name: str
    scene: Scene
    calibration: str
    values: Mapping[str, float]
    fields: Mapping[str, Array]
    mjcf: str
    changes: tuple[Change, ...]
    unplaced: tuple[Unplaced, ...]
    samples: str

    def lines(self) -> list[str]:
        """Changes and what is not in the model, one line each."""
        out = [f"{c.element}: {c.attribute} {c.before or '(none)'} -> {c.after or '(none)'}" for c in self.changes]
        return out + [
            f"not in the model: {u.parameter} = {u.value:.6g} {u.unit}".rstrip() + f" ({u.target}): {u.reason}"
            for u in self.unplaced
        ]

    def to_json(self) -> dict[str, Any]:
        """The list of changes, JSON-able."""
        return {
            "flyball_overlay": SCHEMA,
            "scene": scene_digest(self.scene),
            "calibration": self.calibration,
            "values": dict(self.values),
            "fields": {k: v.tolist() for k, v in self.fields.items()},
            "changes": [asdict(c) for c in self.changes],
            "not_in_the_model": [asdict(u) for u in self.unplaced],
        }


def overlay(calibration: Calibration, scene: Scene, *, timestep: float = 0.0) -> Overlay:
    """The best fit, written into the scene's model and read back out of it.

    Args:
      timestep: that the recordings were replayed with, where it is not the model's own [s]: with another one, the same
        numbers mean another motion.

    Raises:
      Refused: the calibration was fitted to another scene.
      NotPossible: MuJoCo is not installed.
    """
    if scene_digest(scene) != calibration.scene:
        raise Refused(
            f"the calibration of {calibration.rig} was fitted to another scene", where=f"scene {scene.name}",
            allowed=calibration.scene[:12], run_next="flyball calibrate",
        )  # fmt: skip
    values = {p.path: float(p.nominal) for p in scene.parameters}
    values |= {path: float(x) for path, x in zip(calibration.paths, calibration.best, strict=True)}
    sim = _open(scene, scene.model)
    fields, unplaced = _bound(scene, values, sim)
    reasons: dict[str, str] = {}
    for k, v in fields.items():
        try:
            sim.set({k: v[None]})
        except Unsupported as err:  # the model has the number and does not look at it
            reasons[k] = err.what
    patched = patch(scene.model, scene.assets, {k: v for k, v in fields.items() if k not in reasons}, timestep)
    reasons |= patched.refused
    while True:
        again = _open(scene, patched.mjcf)
        # What the compiler changes afterwards (a total mass it enforces, a limit it derives) is not claimed.
        wrong = [k for k in fields if k not in reasons and not _same(k, sim, again)]
        if not wrong:
            break
        reasons |= dict.fromkeys(wrong, "the model's compiler overrides it")
        kept = {k: v for k, v in fields.items() if k not in reasons}
        patched = patch(scene.model, scene.assets, kept, timestep)
    for p in scene.parameters:
        for b in p.binds:
            if b.target in reasons:
                unplaced.append(Unplaced(p.path, values[p.path], p.unit, b.target, b.how, reasons[b.target]))
    kept = {k: v for k, v in fields.items() if k not in reasons}
    samples = dump_variations([calibration.variation])
    return Overlay(
        calibration.rig, scene, calibration.digest, values, kept, patched.mjcf, patched.changes, tuple(unplaced),
        samples,
    )  # fmt: skip


def write_overlay(made: Overlay, folder: Path) -> list[Path]:
    """Write an overlay's files; ``NAME`` is that of what was calibrated.

    ``NAME.xml`` the model as it was, ``NAME.calibrated.xml`` the model with the best fit, ``NAME.patch`` their
    difference line by line, ``NAME.usda`` the model as USD and ``NAME.calibrated.usda`` the layer over it (left out
    where OpenUSD is missing), ``NAME.overlay.json`` what changed and what is not in the model,
    ``NAME.variations.toml`` the joint samples.

    Returns:
      The files, in that order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem, scene = file_stem(made.name), made.scene
    for name, data in scene.assets.items():
        place = folder / "assets" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        write_durably(place, data)
    before, after = (_in_folder(text, bool(scene.assets)) for text in (scene.model, made.mjcf))
    files = {f"{stem}.xml": before, f"{stem}.calibrated.xml": after}
    rows = difflib.unified_diff(
        before.splitlines(True), after.splitlines(True), f"{stem}.xml", f"{stem}.calibrated.xml", n=1
    )
    files[f"{stem}.patch"] = "".join(rows)
    out = []
    for name, text in files.items():
        write_durably(folder / name, text.encode())
        out.append(folder / name)
    document = made.to_json()
    try:
        from flyball.calibration.overlay_usd import write_layer

        usd, losses = write_layer(made, folder)
        out += usd
        document["usd"] = {"files": [p.name for p in usd], "not_carried": losses}
    except ImportError:
        document["usd"] = {"files": [], "not_carried": ["everything: OpenUSD is not installed (flyball[usd])"]}
    for name, text in (
        (f"{stem}.overlay.json", json.dumps(document, indent=1) + "\n"),
        (f"{stem}.variations.toml", made.samples),
    ):
        write_durably(folder / name, text.encode())
        out.append(folder / name)
    return out


def _in_folder(mjcf: str, assets: bool) -> str:
    """One element per line, so that a difference by lines is one by elements; files are looked for in ``assets``."""
    document = parse(mjcf.encode(), "the model")
    if assets:
        compiler = document.root.find("compiler")
        if compiler is None:
            compiler = document.add(document.root, "compiler", {}, document.root)
        compiler.set("meshdir", "assets")
        compiler.set("texturedir", "assets")
    return document.text()[0]


def _open(scene: Scene, mjcf: str) -> Simulation:
    return engines.load("mujoco")().open(Scene(scene.name, mjcf, (), assets=scene.assets), 1, threads=1)


def _bound(scene: Scene, values: Mapping[str, float], sim: Simulation) -> tuple[dict[str, Array], list[Unplaced]]:
    """Engine fields that parameter values amount to, and effects that MuJoCo has no field for."""
    fields: dict[str, Array] = {}
    unplaced = []
    for p in scene.parameters:
        v = values[p.path]
        for b in p.binds:
            if v == _NOTHING.get(b.how) and b.target not in fields:
                continue
            reason = ""
            kind = b.target.partition(":")[0]
            if kind not in ENGINE_KINDS:
                reason = _ELSEWHERE.get(kind.partition(".")[0], "applied around the engine")
            elif b.target not in fields:
                try:
                    if _pattern(b.target) not in {_pattern(x) for x in sim.settable()}:
                        raise Unsupported("no such field")
                    fields[b.target] = sim.get(b.target)[0].copy()
                except Unsupported:
                    reason = "a law that MuJoCo's model does not have"
            if reason:
                if v or b.how == "set":
                    unplaced.append(Unplaced(p.path, v, p.unit, b.target, b.how, reason))
                continue
            x = fields[b.target]
            if b.index >= len(x):
                raise InputError(f"{b.target} has no element {b.index}", where=p.path, allowed=f"0 to {len(x) - 1}")
            x[b.index] = {"set": v, "scale": x[b.index] * v, "add": x[b.index] + v}[b.how]
    return fields, unplaced


_ELSEWHERE = {
    "command": "lies on the way of a command, outside the model",
    "sensor": "lies on the way of a measurement, outside the model",
    "start": "is a start state, which differs by episode",
    "event": "is what a task judges",
}


def _pattern(target: str) -> str:
    kind, _, rest = target.partition(":")
    return f"{kind}:{rest.rpartition('.')[2]}"


def _same(field: str, wanted: Simulation, found: Simulation) -> bool:
    """Whether a field, and the inertia that follows a mass, came through."""
    names = [field, field.replace(".mass", ".inertia")] if field.endswith(".mass") else [field]
    for name in names:
        a, b = wanted.get(name), found.get(name)
        size = float(np.abs(a).max())
        if not np.allclose(a, b, rtol=_TOLERANCE, atol=_TOLERANCE * size):
            return False
    return True
