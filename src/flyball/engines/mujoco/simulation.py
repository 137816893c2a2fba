"""A thin shell over ``mujoco.batch.Batch``.

In: MJCF text, per-world fields, controls per substep. Out: stepped worlds and reduced reads, each at its defined time
(see ``flyball.engines.Simulation``): MuJoCo's derived fields lag one substep after a step, so that the value at the end
of a substep is the one that the next substep begins with, and the last comes from the first stages of a further step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
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
_BAD_CONTROL = int(mujoco.mjtWarning.mjWARN_BADCTRL)
_RECORDED_BYTES = 2**26
"""A rollout records whole arrays; longer ones go in pieces of this size."""


class MujocoEngine:
    """The default engine."""

    name = "mujoco"
    version = mujoco.__version__
    formulation = "mujoco"
    capabilities: Mapping[str, Level] = {
        "rigid": "exact",
        "articulation": "exact",
        "contact": "approximate",
        "contact_wrench": "exact",
        "restitution": "approximate",
        "armature": "exact",
        "equality": "approximate",
        "frictionloss": "approximate",
        "ball_joints": "exact",
        "tendon_springs": "exact",
        "actuator_dynamics": "exact",
        "torsional_friction": "approximate",
        "fluid": "approximate",
        "per_world_parameters": "exact",
        "save_restore": "exact",
        "gradient": "approximate",
        "cloth": "unsupported",
        "soft": "unsupported",
        "granular": "unsupported",
    }

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> MujocoSimulation:
        """Build n worlds; see ``flyball.engines.Engine.open``."""
        scene.rigid_only("engine mujoco")
        try:
            spec = mujoco.MjSpec.from_string(scene.model, assets=dict(scene.assets))
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
        self._plans: dict[tuple[tuple[str, Reduce], ...], _Plan] = {}
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
        k = controls.shape[1] if controls.ndim == 3 else 0
        if not reads:
            return self.rollout(controls, k, {})
        plan = self._plan(tuple(reads.items()))
        out = self.rollout(controls, k, plan.rest)
        state = self._batch.state[:, plan.columns]
        return {name: state[:, plan.places[name]] if name in plan.places else out[name][:, 0] for name in reads}

    def _plan(self, reads: tuple[tuple[str, Reduce], ...]) -> _Plan:
        """How to get at these: what MuJoCo keeps in its state needs no record."""
        if reads not in self._plans:
            self._prepare([name for name, _ in reads])
            state, places = self._batch.state, {}
            columns: list[int] = []
            for name, reduce in reads:
                field = self._fields[name]
                if field.of == "state" and reduce == "last":
                    (array,) = field.arrays
                    view = self._batch.bind(array).reshape(self.n, -1)
                    start = (view.ctypes.data - state.ctypes.data) // state.itemsize
                    own = field.value(np.arange(start, start + view.shape[1]))
                    places[name] = slice(len(columns), len(columns) + len(own))
                    columns.extend(own.tolist())
            rest = {name: reduce for name, reduce in reads if name not in places}
            self._plans[reads] = _Plan(np.array(columns, int), places, rest)
        return self._plans[reads]

    def rollout(self, controls: Array, every: int, reads: Mapping[str, Reduce]) -> dict[str, Array]:
        shape = controls.shape
        if (
            len(shape) != 3
            or shape[0] != self.n
            or every < 1
            or not shape[1]
            or shape[1] % every
            or shape[2] != self.model.nu
        ):
            allowed = f"({self.n}, a multiple of {max(every, 1)}, {self.model.nu})"
            raise InputError(f"controls of shape {shape}", allowed=allowed, where="rollout")
        self._prepare(reads)
        batch, steps = self._batch, shape[1]
        before = batch.state.copy()
        # a sum is finite only where all is, and cheaper to ask
        if not isfinite(np.add.reduce(controls, axis=None)):
            unfit = np.array([not np.isfinite(c).all() for c in controls])
            batch.warning[unfit, _BAD_CONTROL, 1] += 1
            controls = np.where(unfit[:, None, None], 0.0, controls)
        arrays = sorted({a for name in reads for a in self._fields[name].arrays})
        if arrays:
            width = sum(8 * batch.bind(a)[0].size for a in arrays) * self.n * every
            groups = max(1, _RECORDED_BYTES // width) * every
            pieces = [self._advance(controls[:, k : k + groups], every, reads, arrays) for k in range(0, steps, groups)]
            out = {name: _join([p[name] for p in pieces]) for name in reads}
        else:
            self._record(controls, ())
            out = {}
        if batch.warning.any():
            self._hold(before, out)
        return out

    def _hold(self, before: Array, out: dict[str, Array]) -> None:
        """Put failed worlds back to where they were before this call, also in what was read of them."""
        bad = self._batch.warning[:, :, 1].any(axis=1)
        self._failed |= bad
        self._batch.state[bad] = before[bad]
        kept = self.read(list(out))
        for name, x in out.items():
            x[bad] = kept[name][bad].reshape(-1, *([1] * (x.ndim - 2)), x.shape[-1])

    def _record(self, controls: Array, arrays: Sequence[str]) -> dict[str, Array]:
        """Advance, recording arrays: array -> (n, steps, size)."""
        # the batch records at least one: the smallest there is
        items = {a: mujoco.mjtState.mjSTATE_TIME if a == "time" else a for a in arrays} or {"": "ncon"}
        try:
            raw = self._batch.rollout(controls.shape[1], controls, record=list(items.values()))
        except SimulationError as err:  # those worlds kept their state; what was recorded of them is held below
            self._batch.warning[err.ids, 0, 1] += 1
            raw = {k: np.zeros((*controls.shape[:2], self._batch.bind(a)[0].size)) for a, k in items.items() if a}
        return {a: raw[k].reshape(*controls.shape[:2], -1) for a, k in items.items() if a}

    def _advance(
        self, controls: Array, every: int, reads: Mapping[str, Reduce], arrays: Sequence[str]
    ) -> dict[str, Array]:
        """One piece of a rollout."""
        n, steps, _ = controls.shape
        raw = self._record(controls, arrays)
        last = {}
        if any(self._fields[name].of == "pose" for name in reads):
            self._batch.forward(stage=mujoco.mjtStage.mjSTAGE_VEL)
            last = {a: self._batch.bind(a).reshape(n, 1, -1) for a in arrays if a != "time"}
        out = {}
        for name, reduce in reads.items():
            field = self._fields[name]
            parts = [raw[a] for a in field.arrays]
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


@dataclass(frozen=True)
class _Plan:
    """Reads at the end of a call.

    Attributes:
      columns: of the batch's state, gathered at once.
      places: field -> where it then is.
      rest: what must be recorded.
    """

    columns: NDArray[np.int64]
    places: Mapping[str, slice]
    rest: Mapping[str, Reduce]


def _join(pieces: Sequence[Array]) -> Array:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces, axis=1)


def _reduce(parts: list[Array], value: Callable[..., Array], reduce: Reduce) -> Array:
    """Arrays of shape (n, groups, every, size) to the field's values, (n, groups, [every,] k)."""
    if reduce == "last":
        return np.array(value(*(x[:, :, -1] for x in parts)))
    x = value(*parts)
    if reduce == "all":
        return np.array(x)
    # the ufuncs that the methods of arrays end in, without what these cost
    if reduce == "mean":
        return np.asarray(np.add.reduce(x, axis=2) / x.shape[2])
    return np.asarray((np.maximum if reduce == "max" else np.minimum).reduce(x, axis=2))


def _number(x: object) -> bool:
    return isinstance(x, (int, float)) and not isinstance(x, bool)
