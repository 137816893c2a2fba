"""From a robot model and episodes to a calibration.

In: a model's file or text, episodes, optionally a file of parameters. Out: one ``Calibration``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from flyball.base import InputError
from flyball.calibration.calibration import Calibration
from flyball.calibration.fit import Progress
from flyball.calibration.learning import Budget
from flyball.calibration.models.learning import BUDGET, teach
from flyball.calibration.models.recording import Layout, layout_of
from flyball.calibration.models.rig import ModelRig, measured_by, model_rig
from flyball.calibration.models.table import pressed, rows_of
from flyball.calibration.problem import Replay
from flyball.calibration.recordings import checked_folds, report
from flyball.episodes import Episode
from flyball.robots.models import Imported, load


def calibrate_model(
    model: Path | str | Imported,
    episodes: Sequence[Episode],
    *,
    parameters: Path | str | None = None,
    seed: int = 0,
    engine: str = "mujoco",
    budget: Budget | None = None,
    progress: Progress | None = None,
) -> Calibration:
    """Fit a robot model to episodes of it.

    Args:
      model: a file, MJCF or URDF text, or a model that was read.
      episodes: two or more, with commands and joint positions.
      parameters: a TOML file, or its text: ranges, fixed values, what else to fit.
      seed: of everything random.
      engine: name in ``flyball.engines``.

    Raises:
      InputError: the model, the parameters or the recordings are bad; names which.
    """
    rig = rig_of(read_model(model), episodes, engine=engine)
    replays = [rig.replay(e) for e in episodes]
    return calibrate_rig(rig, replays, seed=seed, budget=budget or BUDGET, progress=progress)


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
    """Fit a rig to replays of it; see ``flyball.calibration.recordings.calibrate``."""
    rig = measured_by(rig, replays)
    taught = teach(rig, replays, checked_folds(rig, replays), seed=seed, budget=budget, progress=progress)
    return report(
        rig, taught.learned, taught.scores, taught.steps, tuple(data), seed, budget,
        rows=rows_of(taught.level), bounded=pressed(taught.level), notes=notes,
    )  # fmt: skip


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


def rig_of(imported: Imported, episodes: Sequence[Episode], *, engine: str = "mujoco") -> ModelRig:
    """The rig of a model whose recordings are laid out as the first of these episodes."""
    if not episodes:
        raise InputError("no episodes", where=imported.name)
    joints = [j.name for j in imported.model.joints.values() if j.kind in ("hinge", "slide")]
    layout = layout_of(episodes[0], joints, where=imported.name)
    layout = Layout(**{**vars(layout), "actuators": tuple(imported.model.actuators)})
    return model_rig(imported, layout, engine=engine)
