"""A robot model calibrated from the recordings of a workspace.

In: a model's file, a workspace, a condition on its episodes. Out: one ``Calibration`` per robot that has recordings,
and one of their kind when there are several, stored as artifacts.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flyball.base import InputError, Missing
from flyball.base.steps import json_of, step
from flyball.base.workspace import Workspace
from flyball.calibration.audit import Audit, Finding
from flyball.calibration.audit_setups import SetupAudit, audit_setup
from flyball.calibration.calibration import Calibration
from flyball.calibration.fit import Progress, Silent
from flyball.calibration.learning import Budget
from flyball.calibration.models.calibrate import Usable, calibrate_robots, prepared, read_model, rig_of
from flyball.calibration.models.learning import BUDGET
from flyball.calibration.models.rig import ModelRig
from flyball.calibration.models.settings import read_settings
from flyball.calibration.tracks import Track
from flyball.engines import engines
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.query import select

VERSION = 1
_PRODUCER = "flyball.calibration.models"


@dataclass(frozen=True)
class Recordings:
    """A model's rig and the episodes of a workspace that were asked for.

    Attributes:
      digests: of the episodes.
    """

    rig: ModelRig
    episodes: tuple[Episode, ...]
    digests: tuple[str, ...]

    def audit(self) -> SetupAudit:
        """What the recordings are worth."""
        audits = []
        for episode in self.episodes:
            try:
                audits.append(self.rig.audit(episode))
            except InputError as err:
                finding = Finding("warning", "left out", "-", 0.0, "", err.line())
                audits.append(Audit(err.where or "recording", (finding,)))
        return audit_setup(self.rig.name, audits)


@dataclass(frozen=True)
class Answer:
    """What a model's recordings gave.

    Attributes:
      calibrations: of the kind and of each robot, or of the one robot.
      tracks: replays of held-out recordings to look at.
      left_out: recordings that took no part, and why.
      timestep: that they were replayed with [s].
    """

    calibrations: tuple[Calibration, ...]
    tracks: tuple[Track, ...]
    left_out: tuple[str, ...]
    timestep: float


def recordings_of(
    workspace: Workspace | Path | str,
    model: Path | str,
    *,
    parameters: Path | str | None = None,
    where: str = "",
    engine: str = "mujoco",
) -> Recordings:
    """The recordings of a robot model in a workspace.

    Args:
      model: its file.
      parameters: a TOML file; see ``settings``.
      where: a condition on episodes, see ``flyball.episodes.query.select``; those that were simulated or rejected are
        left out unless it says otherwise.

    Raises:
      Missing: no such episodes or engine.
      InputError: the model, the parameters or all recordings are bad.
    """
    settings = read_settings(parameters)
    if engine not in engines.names():
        raise Missing.named("engine", engine, engines.names())
    imported = read_model(model)
    place = workspace if isinstance(workspace, Workspace) else Workspace(workspace, create=False)
    catalogue = Catalogue(place.store)
    usual = "origin != 'simulation' AND verdict != 'rejected'"
    rows = select(catalogue, f"({where}) AND {usual}" if where.strip() and "origin" not in where else where or usual)
    if not rows:
        raise Missing(
            f"no episodes{f' where {where}' if where else ''}", where=str(place.path),
            run_next=f"flyball ingest DIR --workspace {place.path}",
        )  # fmt: skip
    episodes = [catalogue.load(row.digest) for row in rows]
    rig = rig_of(imported, episodes, engine=engine, parameters=settings)
    return Recordings(rig, tuple(episodes), tuple(row.digest for row in rows))


def calibrate_found(
    workspace: Workspace,
    found: Recordings,
    *,
    seed: int = 0,
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Answer:
    """Calibrate a robot model from a workspace's recordings of it; see ``recordings_of``.

    Repeating it costs nothing: the answer for the same episodes, model, parameters, seed and budget is stored.

    Raises:
      InputError: no motion, or fewer than two recordings that can be used.
    """
    budget, progress = budget or BUDGET, progress or Silent()
    usable = prepared(found.rig, found.episodes, found.digests)
    for text in usable.left_out:
        progress.note(text)
    rig = found.rig
    inputs = {
        "rig": rig.name, "scene": rig.scene.digest, "levels": rig.levels, "engine": _engine(rig.engine),
        "episodes": sorted(usable.data), "seed": seed, "budget": replace(budget, threads=1),
    }  # fmt: skip
    made = functools.partial(_made, rig, usable, seed, budget, progress)
    labels = {"rig": rig.name, "seed": seed}
    whole = step(workspace.store, f"{_PRODUCER}.fit", VERSION, inputs, made, kind="calibrations", labels=labels)
    document = json_of(workspace.store, whole)
    out = []
    for robot, one in document["robots"].items():
        artifact = step(
            workspace.store, _PRODUCER, VERSION, {**inputs, "robot": robot}, functools.partial(dict, one),
            kind="calibration", labels={**labels, "robot": robot},
        )  # fmt: skip
        out.append(Calibration.from_json(json_of(workspace.store, artifact), where=artifact.digest[:12]))
    tracks = tuple(Track.from_json(t) for t in document["tracks"])
    return Answer(tuple(out), tracks, usable.left_out, float(document["timestep"]))


def _made(rig: ModelRig, usable: Usable, seed: int, budget: Budget, progress: Progress) -> dict[str, Any]:
    found = calibrate_robots(
        rig, usable.replays, data=usable.data, notes=usable.left_out, seed=seed, budget=budget, progress=progress
    )
    robots = {robot: c.to_json() for robot, c in found.calibrations.items()}
    return {"robots": robots, "tracks": [t.to_json() for t in found.tracks], "timestep": found.timestep}


def _engine(name: str) -> str:
    return f"{name} {engines.load(name)().version}"
