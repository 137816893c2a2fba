"""A thin shell over ``mujoco.batch.Batch``.

In: MJCF text, per-world fields, controls per substep. Out: stepped worlds and reduced reads, each at its defined time
(see ``flyball.engines.Simulation``): MuJoCo's derived fields lag one substep after a step, so that the value at the end
of a substep is the one that the next substep begins with, and the last comes from the first stages of a further step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import mujoco
import numpy as np
from mujoco.batch import Batch, SimulationError
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines import portable
from flyball.engines.engine import Level, Reduce
from flyball.engines.mujoco import fields, names
from flyball.engines.mujoco.gradient import gradient
from flyball.engines.mujoco.parameters import FACTS, SETTABLE, Parameters
from flyball.engines.portable import PortableState
from flyball.scenes import Scene

Array = NDArray[np.float64]
Worlds = NDArray[np.int64] | None

_CONES = {"pyramidal": mujoco.mjtCone.mjCONE_PYRAMIDAL, "elliptic": mujoco.mjtCone.mjCONE_ELLIPTIC}
_JACOBIANS = {"dense": mujoco.mjtJacobian.mjJAC_DENSE, "sparse": mujoco.mjtJacobian.mjJAC_SPARSE}
_OPTIONS: dict[str, Callable[[Any], object]] = {
    "timestep": lambda x: float(x) if _number(x) and 0 < x <= 0.1 else None,
    "impratio": lambda x: float(x) if _number(x) and x > 0 else None,
    "cone": lambda x: _CONES.get(x),
    "jacobian": lambda x: _JACOBIANS.get(x),
}
_ALLOWED = "timestep (0, 0.1] s, impratio > 0, cone pyramidal | elliptic, jacobian dense | sparse"
_RECORDED_BYTES = 2**26
"""A rollout records whole arrays; longer ones go in pieces of this size."""


class MujocoEngine:
    """The default engine."""

    name = "mujoco"
    version = mujoco.__version__
    capabilities: Mapping[str, Level] = {
        "rigid": "exact",
        "contact": "approximate",
        "contact_wrench": "exact",
        "restitution": "approximate",
        "per_world_parameters": "exact",
        "save_restore": "exact",
        "gradient": "approximate",
        "cloth": "unsupported",
        "granular": "unsupported",
    }

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> MujocoSimulation:
        """Build n worlds; see ``flyball.engines.Engine.open``."""
        try:
            spec = mujoco.MjSpec.from_string(scene.model, assets=dict(getattr(scene, "assets", None) or {}))
            spec.compile()
        except ValueError as err:
            raise InputError(f"the model does not compile: {err}", where=f"scene {scene.name}") from err
        for key, value in (options or {}).items():
            made = _OPTIONS[key](value) if key in _OPTIONS else None
            if made is None:
                raise Unsupported(f"option {key} = {value!r}", where="engine mujoco", allowed=_ALLOWED)
            setattr(spec.option, key, made)
        return MujocoSimulation(spec, n, threads)


class MujocoSimulation:
    """n worlds of one model; see ``flyball.engines.Simulation`` for the contract.

    Args:
      spec: the model; sensors of contacts are added to it when they are asked for.
    """

    def __init__(self, spec: mujoco.MjSpec, n: int, threads: int) -> None:
        self._spec, self.n, self._threads = spec, n, threads
        self.model: mujoco.MjModel = spec.compile()
        self.timestep = float(self.model.opt.timestep)
        self.layout = names.layout(self.model)
        self._parameters = Parameters(self.model, n)
        self._batch = self._new_batch()
        self._failed = np.zeros(n, bool)
        self._fields: dict[str, fields.Field] = {}
        self.reset()

    def _new_batch(self) -> Batch:
        # one MjData per world only where MuJoCo demands it: shared by the worlds of a thread, it stays in the cache
        sleeps = bool(self.model.opt.enableflags & mujoco.mjtEnableBit.mjENBL_SLEEP)
        return Batch(self.model, self.n, self._threads, sleeps)

    def native(self, world: int) -> tuple[mujoco.MjModel, mujoco.MjData]:
        """A copy of one world as MuJoCo's own objects, with everything computed for its current state."""
        model, data = self._batch.get_model(world), self._batch.get_data(world)
        mujoco.mj_forward(model, data)
        return model, data

    def gradient(self, controls: Array, wrt: Literal["state", "control"], step: float) -> tuple[Array, str]:
        """Derivative of the end state of the first world; see ``flyball.engines.derivatives.Differentiable``."""
        if names.unnamed_joints(self.model):
            raise Unsupported("derivatives of joints without names", where="engine mujoco")
        model, data = self._batch.get_model(0), self._batch.get_data(0)
        return gradient(model, data, controls, wrt, step), "mjd_transitionFD"

    # state ------------------------------------------------------------------------------------------------

    def reset(self, worlds: Worlds = None) -> None:
        self._batch.reset(worlds)
        self._revive(worlds)

    def place(self, joint: str, position: Array, worlds: Worlds = None) -> None:
        self._write("qpos", *fields.joint_slice(self.model, joint, "position"), f"joint:{joint}", position, worlds)

    def push(self, joint: str, velocity: Array, worlds: Worlds = None) -> None:
        self._write("qvel", *fields.joint_slice(self.model, joint, "velocity"), f"joint:{joint}", velocity, worlds)

    def _write(self, array: str, start: int, size: int, name: str, values: Array, worlds: Worlds) -> None:
        rows = self.n if worlds is None else len(worlds)
        try:
            v = np.broadcast_to(np.asarray(values, float), (rows, size))
        except ValueError:
            v = np.full((rows, size), np.nan)
        if not np.isfinite(v).all():
            raise InputError(
                f"{name}: values of shape {np.shape(values)}",
                where="engine mujoco",
                allowed=f"finite, ({rows}, {size})",
            )
        self._batch.bind(array)[slice(None) if worlds is None else worlds, start : start + size] = v

    def save(self) -> Array:
        return self._batch.state.copy()

    def restore(self, state: Array, worlds: Worlds = None) -> None:
        rows = self.n if worlds is None else len(worlds)
        if np.shape(state) != (rows, self._batch.nstate):
            raise InputError(
                f"a state of shape {np.shape(state)}", allowed=f"({rows}, {self._batch.nstate})", where="restore"
            )
        self._batch.state[slice(None) if worlds is None else worlds] = state
        self._revive(worlds)

    def _revive(self, worlds: Worlds) -> None:
        rows = slice(None) if worlds is None else worlds
        self._batch.warning[rows] = 0
        self._failed[rows] = False

    def portable(self) -> tuple[PortableState, list[str]]:
        m = self.model
        left = portable.unnamed(names.unnamed_joints(m))
        if m.na:
            left.append(f"activations of {m.na} actuator state(s)")
        for array, what in (("xfrc_applied", "forces on bodies"), ("qfrc_applied", "forces on joints")):
            if self._batch.bind(array).any():
                left.append(f"applied {what}")
        if m.nmocap:
            left.append(f"poses of {m.nmocap} mocap bodies")
        if m.nuserdata or m.npluginstate:
            left.append("user data and plugin state")
        if m.nhistory:
            left.append("history of delayed sensors and actuators")
        if m.neq and not np.array_equal(self._batch.bind("eq_active")[0], m.eq_active0):
            left.append("which equality constraints are active")
        return portable.take(self), [*left, "warm start of the constraint solver"]

    def place_portable(self, state: PortableState, worlds: Worlds = None) -> list[str]:
        return portable.put(self, state, worlds)

    def status(self) -> NDArray[np.bool_]:
        return ~self._failed

    # stepping ---------------------------------------------------------------------------------------------

    def step(self, controls: Array, reads: Mapping[str, Reduce] | None = None) -> dict[str, Array]:
        out = self.rollout(controls, controls.shape[1], reads or {})
        return {name: x[:, 0] for name, x in out.items()}

    def rollout(self, controls: Array, every: int, reads: Mapping[str, Reduce]) -> dict[str, Array]:
        n, steps, nu = controls.shape
        if n != self.n or steps % every or nu != self.model.nu:
            allowed = f"({self.n}, a multiple of {every}, {self.model.nu})"
            raise InputError(f"controls of shape {controls.shape}", allowed=allowed, where="rollout")
        self._prepare(reads)
        before = self._batch.state.copy()
        held = self._failed.any()
        if not np.isfinite(controls).all():
            unfit = np.array([not np.isfinite(c).all() for c in controls])
            self._batch.warning[unfit, int(mujoco.mjtWarning.mjWARN_BADCTRL), 1] += 1
            controls = np.where(unfit[:, None, None], 0.0, controls)
        arrays = {a for name in reads for a in self._fields[name].arrays}
        width = sum(8 * self._size(a) for a in arrays) * n * every or 1
        groups = max(1, _RECORDED_BYTES // width) * every
        pieces = [
            self._advance(controls[:, k : k + groups], every, reads, arrays) for k in range(0, steps, groups)
        ] or [{}]
        out = {name: np.concatenate([p[name] for p in pieces], axis=1) if len(pieces) > 1 else pieces[0][name]
               for name in reads}  # fmt: skip
        bad = self._batch.warning[:, :, 1].any(axis=1)
        if bad.any() and (held or (bad & ~self._failed).any()):
            self._failed |= bad
            self._batch.state[bad] = before[bad]
            kept = self.read(list(reads))
            for name, x in out.items():
                x[bad] = kept[name][bad].reshape(-1, *([1] * (x.ndim - 2)), x.shape[-1])
        return out

    def _advance(self, controls: Array, every: int, reads: Mapping[str, Reduce], arrays: set[str]) -> dict[str, Array]:
        """One piece of a rollout."""
        n, steps, _ = controls.shape
        # the batch records at least one array: the smallest there is
        record = {a: mujoco.mjtState.mjSTATE_TIME if a == "time" else a for a in sorted(arrays)} or {"": "ncon"}
        try:
            raw = self._batch.rollout(steps, controls, record=list(record.values()))
        except SimulationError as err:
            self._batch.warning[err.ids, 0, 1] += 1
            raw = self._batch.rollout(0, controls[:, :0], record=list(record.values()))
            raw = {k: np.zeros((n, steps, *x.shape[2:])) for k, x in raw.items()}
        last = {}
        if any(self._fields[name].of == "pose" for name in reads):
            self._batch.forward(stage=mujoco.mjtStage.mjSTAGE_VEL)
            last = {a: self._batch.bind(a).reshape(n, 1, -1) for a in arrays if a != "time"}
        out = {}
        for name, reduce in reads.items():
            field = self._fields[name]
            parts = [raw[record[a]].reshape(n, steps, -1) for a in field.arrays]
            if field.of == "pose":
                parts = [np.concatenate([x[:, 1:], last[a]], axis=1) for a, x in zip(field.arrays, parts, strict=True)]
            out[name] = _reduce([x.reshape(n, steps // every, every, -1) for x in parts], field.value, reduce)
        return out

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        self._prepare(names)
        of = {self._fields[name].of for name in names}
        if "force" in of:
            self._batch.forward()
        elif "pose" in of:
            self._batch.forward(stage=mujoco.mjtStage.mjSTAGE_VEL)
        return {name: self._current(self._fields[name]) for name in names}

    def _current(self, field: fields.Field) -> Array:
        return np.array(field.value(*(np.asarray(self._batch.bind(a)).reshape(self.n, -1) for a in field.arrays)))

    def lag(self, name: str) -> float:
        self._prepare([name])
        return self.timestep if self._fields[name].of == "force" else 0.0

    def _size(self, array: str) -> int:
        return 1 if array == "time" else int(np.prod(getattr(self._batch._data, array).shape))

    def _prepare(self, wanted: Iterable[str]) -> None:
        """Find fields not yet seen; those of contacts need a sensor each, which changes nothing else."""
        new = [name for name in wanted if name not in self._fields]
        if not new:
            return
        pairs = [p for name in new if (p := fields.bodies_in_contact(self.model, name))]
        missing = [p for p in dict.fromkeys(pairs) if not fields.has_contact_sensor(self.model, *p)]
        for pair in missing:
            fields.add_contact_sensor(self._spec, *pair)
        if missing:
            old = self._batch
            self.model = self._spec.compile()
            self._parameters.model = self.model
            self._batch = self._new_batch()
            self._batch.reset()
            self._parameters.write_all(self._batch)
            self._batch.state[:] = old.state
            self._batch.warning[:] = old.warning
            for array in {a for f in self._fields.values() for a in f.arrays}:
                self._batch.bind(array)
        for name in new:
            self._fields[name] = fields.find(self.model, name)
            for array in self._fields[name].arrays:
                self._batch.bind(array)  # filled by the calls that follow, not by those before

    # parameters -------------------------------------------------------------------------------------------

    def settable(self) -> list[str]:
        return list(SETTABLE)

    def facts(self) -> list[str]:
        return list(FACTS)

    def get(self, name: str) -> Array:
        return self._parameters.get(name)

    def set(self, values: Mapping[str, Array]) -> None:
        self._parameters.set(values, self._batch)


def _reduce(parts: list[Array], value: Callable[..., Array], reduce: Reduce) -> Array:
    """Arrays of shape (n, groups, every, size) to the field's values, (n, groups, [every,] k)."""
    if reduce == "last":
        return np.array(value(*(x[:, :, -1] for x in parts)))
    x = value(*parts)
    return np.array(x) if reduce == "all" else np.asarray(getattr(x, reduce)(axis=2))


def _number(x: object) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)
