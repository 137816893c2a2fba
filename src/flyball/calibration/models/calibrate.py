"""From a robot model and episodes to a calibration.

In: a model's file or text, episodes, optionally a file of parameters. Out: one ``Calibration``. A recording that cannot
be used is left out and said; it does not keep the others from being used.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flyball.base import InputError
from flyball.calibration.audit import line
from flyball.calibration.calibration import Calibration
from flyball.calibration.fit import Progress
from flyball.calibration.learning import Budget
from flyball.calibration.models.drives import with_drives
from flyball.calibration.models.learning import BUDGET, teach
from flyball.calibration.models.recording import drive_of_signal, layout_of
from flyball.calibration.models.rig import ModelRig, measured_by, model_rig, name_of
from flyball.calibration.models.settings import Settings, read_settings
from flyball.calibration.models.table import pressed, rows_of
from flyball.calibration.problem import Replay
from flyball.calibration.recordings import checked_folds, report, tracks_of
from flyball.calibration.tracks import Track
from flyball.episodes import Episode
from flyball.robots.models import Imported, load

_SKIPPED = "friction that grows with the load and Stribeck's are not in this ladder: no engine for arms has them"


def calibrate_model(
    model: Path | str | Imported,
    episodes: Sequence[Episode],
    *,
    parameters: Path | str | Settings | None = None,
    seed: int = 0,
    engine: str = "mujoco",
    data: Sequence[str] = (),
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit a robot model to episodes of it.

    Episodes of several robots (by ``Episode.robot``) give the calibration of their kind.

    Args:
      model: a file, MJCF or URDF text, or a model that was read.
      episodes: two or more, with commands and joint positions.
      parameters: a TOML file, or its text: ranges, fixed values, what else to fit; see ``settings``.
      seed: of everything random.
      engine: name in ``flyball.engines``.
      data: digests of the episodes, for the record.

    Raises:
      InputError: the model, the parameters or all recordings are bad; names which.
    """
    rig = rig_of(read_model(model), episodes, engine=engine, parameters=parameters)
    usable = prepared(rig, episodes, data)
    return calibrate_rig(
        rig, usable.replays, data=usable.data, notes=usable.left_out, seed=seed, budget=budget or BUDGET,
        progress=progress,
    )  # fmt: skip


@dataclass(frozen=True)
class Usable:
    """Recordings that can be fitted.

    Attributes:
      replays: prepared.
      data: digests of their episodes.
      left_out: why others cannot, one line each.
    """

    replays: tuple[Replay, ...]
    data: tuple[str, ...]
    left_out: tuple[str, ...]


def prepared(rig: ModelRig, episodes: Sequence[Episode], data: Sequence[str] = ()) -> Usable:
    """Audit and prepare episodes.

    Raises:
      InputError: fewer than two can be used; says why the first cannot.
    """
    replays: list[Replay] = []
    kept, left_out = list[str](), list[str]()
    for i, episode in enumerate(episodes):
        try:
            audit = rig.audit(episode)
            if audit.refused:
                raise InputError(next(line(audit.name, f) for f in audit.findings if f.level == "refuse"))
            replay = rig.replay(episode)
        except InputError as err:
            left_out.append(f"left out: {err.line().removeprefix('refuse: ')}")
            continue
        if replay.name in {r.name for r in replays}:
            replay = _renamed(replay, {r.name for r in replays})
        replays.append(replay)
        kept += data[i : i + 1]
    if len(replays) < 2:
        why = left_out[0].removeprefix("left out: ") if left_out else f"{len(episodes)} recordings"
        more = f" (and {len(left_out) - 1} more)" if len(left_out) > 1 else ""
        raise InputError(f"{why}{more}", where=rig.name, allowed="two recordings or more that can be used")
    return Usable(tuple(replays), tuple(kept), tuple(left_out))


def _renamed(replay: Replay, names: set[str]) -> Replay:
    k = 2
    while f"{replay.name} ({k})" in names:
        k += 1
    return replace(replay, name=f"{replay.name} ({k})")


def calibrate_rig(
    rig: ModelRig,
    replays: Sequence[Replay],
    *,
    data: Sequence[str] = (),
    notes: Sequence[str] = (),
    seed: int = 0,
    budget: Budget = BUDGET,
    progress: Progress | None = None,
) -> Calibration:
    """Fit a rig to replays of it; see ``flyball.calibration.recordings.calibrate``. Of several robots: their kind."""
    found = calibrate_robots(rig, replays, data=data, notes=notes, seed=seed, budget=budget, progress=progress)
    return next(iter(found.calibrations.values()))


@dataclass(frozen=True)
class Found:
    """Calibrations of one fit.

    Attributes:
      calibrations: robot -> its calibration; with several robots first that of their kind, named "".
      tracks: replays of held-out recordings to look at.
      timestep: that they were replayed with [s].
    """

    calibrations: Mapping[str, Calibration]
    tracks: tuple[Track, ...]
    timestep: float


def calibrate_robots(
    rig: ModelRig,
    replays: Sequence[Replay],
    *,
    data: Sequence[str] = (),
    notes: Sequence[str] = (),
    seed: int = 0,
    budget: Budget = BUDGET,
    progress: Progress | None = None,
) -> Found:
    """Calibrate a rig, and every robot if there are several.

    What a robot owns is drawn towards what its kind has, the more the less its recordings say and the more alike the
    robots are; samples of the kind are those of a robot that nobody has recorded yet.
    """
    rig = measured_by(rig, replays)
    taught = teach(rig, replays, checked_folds(rig, replays), seed=seed, budget=budget, progress=progress)
    robots = list(dict.fromkeys(r.robot for r in replays))
    out = {}
    for robot in ["", *robots] if len(robots) > 1 else robots:
        rows = rows_of(taught.level, robot if len(robots) > 1 else "")
        answer = taught.learned if len(robots) == 1 else taught.of(robot, seed, budget)
        mine = replace(rig, name=f"{rig.name} {robot}") if robot and len(robots) > 1 else rig
        out[robot] = report(
            mine, answer, taught.scores, taught.steps, tuple(data), seed, budget, rows=rows,
            bounded=pressed(taught.level), notes=(*rig.notes, _SKIPPED, *notes),
        )  # fmt: skip
    return Found(out, tuple(tracks_of(rig, taught.scores)), taught.learned.problem.step_s)


def read_model(model: Path | str | Imported) -> Imported:
    """A model from a file, from text or as it is."""
    if isinstance(model, Imported):
        return model
    if isinstance(model, str) and model.lstrip().startswith("<"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.xml"
            path.write_text(model)
            return load(path)
    return load(Path(model))


def rig_of(
    imported: Imported,
    episodes: Sequence[Episode],
    *,
    engine: str = "mujoco",
    parameters: Path | str | Settings | None = None,
) -> ModelRig:
    """The rig of a model, for recordings laid out as the first of these episodes that are of it.

    Raises:
      InputError: none is; says why not.
    """
    settings = parameters if isinstance(parameters, Settings) else read_settings(parameters)
    joints = [j.name for j in imported.model.joints.values() if j.kind in ("hinge", "slide")]
    if not joints:
        raise InputError("the model has no hinges or slides", where=imported.name)
    free = [j.name for j in imported.model.joints.values() if j.kind in ("free", "ball")]
    if free:
        raise InputError(
            f"joint {free[0]} is free or a ball: its start state is not in encoder recordings", where=imported.name,
            allowed="robots whose base is fixed", run_next="fix the base: a URDF's is fixed unless it says otherwise",
        )  # fmt: skip
    driven = [a.target for a in imported.model.actuators.values() if a.target_kind == "joint"]
    refused: InputError | None = None
    for episode in episodes:
        try:
            layout = layout_of(
                episode, joints, driven or joints, position=settings.signals.position,
                command=settings.signals.command, where=name_of(episode),
            )  # fmt: skip
        except InputError as err:
            refused = refused or err
            continue
        commanded = [j for j in layout.joints if j in layout.commands]
        made, guessed = with_drives(imported, commanded, drive_of_signal(episode.signal(layout.command)))
        return model_rig(made, layout, engine=engine, settings=settings, guessed=guessed)
    raise refused or InputError("no episodes", where=imported.name, run_next="flyball ingest DIR")
