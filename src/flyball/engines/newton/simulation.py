"""n worlds stepped by one of Newton's solvers.

In: a scene, per-world fields, controls per substep. Out: stepped worlds and reduced reads. Joint and body fields belong
to the end of a substep; forces are those that acted during it. Actuators are MuJoCo's own law, computed before each
substep from its start (``kernels.drive``), so that gains mean the same in every engine. One substep is recorded once as
a graph and replayed, on a CPU too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines import portable
from flyball.engines.engine import Reduce
from flyball.engines.mujoco import names
from flyball.engines.mujoco.parameters import FACTS, Parameters
from flyball.engines.newton import fields, runtime
from flyball.engines.newton.drives import Drives
from flyball.engines.newton.materials import friction, restitution
from flyball.engines.newton.model import build, inertia_of
from flyball.engines.newton.solvers import Solver
from flyball.engines.portable import PortableState
from flyball.scenes import Scene

Array = NDArray[np.float64]
Rows = NDArray[np.int64] | None

_EXTENTS = ("shape_scale", "shape_collision_radius", "shape_collision_aabb_lower", "shape_collision_aabb_upper")
"""How large a shape is, in Newton's model."""
_SPEED, _DISTANCE = 1e3, 1e3
"""A world has exploded when something in it is faster [m/s] or further away [m]: finite numbers are not enough."""


class NewtonSimulation:
    """n worlds of one scene; see ``flyball.engines.Simulation`` for the contract.

    Attributes:
      model: the compiled MuJoCo model, the truth.
      scene: what it was opened with.
      worlds: Newton's model and where things are in it.
    """

    def __init__(self, model: mujoco.MjModel, scene: Scene, solver: Solver, n: int, device: object) -> None:
        self.model, self.scene, self.solver, self.n = model, scene, solver, n
        self.timestep = float(model.opt.timestep)
        self.layout = names.layout(model)
        self._engine = f"engine newton-{solver.name}"
        self._wp, self._nt = runtime.warp(), runtime.newton()
        self._device = runtime.device(device)
        with self._wp.ScopedDevice(self._device):
            self.worlds = build(model, scene, solver, n, self._device)
            self._open(scene)
        self._parameters, self._host = Parameters(model, n), Batch(model, n, 1, False)
        self._drives.take(self._host)
        self._bounce = np.zeros((n, model.ngeom))
        self._extents = {name: getattr(self.worlds.model, name).numpy() for name in _EXTENTS}
        self._fields: dict[str, fields.Field] = {}
        self._failed = np.zeros(n, bool)
        self._time = np.zeros(n)
        self.reset()

    def _open(self, scene: Scene) -> None:
        m, nt, solver = self.worlds.model, self._nt, self.solver
        kind = getattr(nt.solvers, solver.solver)
        arguments = dict(solver.arguments)
        if solver.name == "mpm":
            spacing = min(d.spacing for d in scene.deformables if hasattr(d, "spacing"))
            # two grains a cell and axis; a sparse grid of several worlds can only be built on a GPU
            arguments["config"] = kind.Config(
                voxel_size=2 * spacing, grid_type="dense", separate_worlds=self.n > 1, air_drag=0.0
            )
        try:
            self._solver = kind(m, **arguments)
        except (NotImplementedError, ValueError) as err:
            raise Unsupported(str(err), where=self._engine, run_next="the engine mujoco") from err
        self._now, self._next, self._control = m.state(), m.state(), m.control()
        self._drives = Drives(self.model, self.worlds, self.n, self._device)
        self._pipeline: Any = None
        self._contacts: Any = None
        self._observed: Any = None
        touching = len(self.worlds.met.pairs) > 0 or (m.particle_count and m.shape_count)
        if touching and solver.name != "mpm":
            shapes = self.worlds.shapes[self.worlds.met.pairs]
            pairs = np.concatenate([shapes + w * (m.shape_count // self.n) for w in range(self.n)])
            filtered = self._wp.array(pairs.astype(np.int32).reshape(-1, 2), dtype=self._wp.vec2i)
            self._pipeline = nt.CollisionPipeline(m, broad_phase="explicit", shape_pairs_filtered=filtered)
            self._contacts = self._pipeline.contacts()
            if solver.forces:
                kinds = {kind.ObservableKind.CONTACT_F}
                self._observed = self._solver.observables(kinds, contacts=self._contacts)
        self._tally = fields.Tally(self.model, self.n, self._device)
        self._state_arrays = [a for a in fields.STATE if getattr(self._now, a) is not None]
        self._graph: Any = None
        self._warm = False

    # state ------------------------------------------------------------------------------------------------

    def reset(self, worlds: Rows = None) -> None:
        rows = np.arange(self.n) if worlds is None else np.asarray(worlds)
        q, qd = self.worlds.joints.to_newton(np.tile(self.model.qpos0, (self.n, 1)), np.zeros((self.n, self.model.nv)))
        self._put("joint_q", q, rows)
        self._put("joint_qd", qd, rows)
        self._forward(rows)
        for array in ("particle_q", "particle_qd"):
            if array in self._state_arrays:
                self._put(array, getattr(self.worlds.model, array).numpy().reshape(self.n, -1), rows)
        self._drives.control[rows] = 0.0
        self._time[rows] = 0.0
        self._failed[rows] = False

    def place(self, joint: str, position: Array, worlds: Rows = None) -> None:
        self._write("position", joint, position, worlds)

    def push(self, joint: str, velocity: Array, worlds: Rows = None) -> None:
        self._write("velocity", joint, velocity, worlds)

    def _write(self, field: str, joint: str, values: Array, worlds: Rows) -> None:
        at = fields.joint_slice(self.model, joint, field)
        rows = np.arange(self.n) if worlds is None else np.asarray(worlds)
        size = at.stop - at.start
        try:
            v = np.broadcast_to(np.asarray(values, float), (len(rows), size))
        except ValueError:
            v = np.full((len(rows), size), np.nan)
        if not np.isfinite(v).all():
            raise InputError(f"joint:{joint}: values of shape {np.shape(values)}", where=self._engine,
                             allowed=f"finite, ({len(rows)}, {size})")  # fmt: skip
        where = self.worlds.joints
        qpos, qvel = where.from_newton(self._get("joint_q"), self._get("joint_qd"))
        (qpos if field == "position" else qvel)[rows, at] = v
        q, qd = where.to_newton(qpos, qvel)
        self._put("joint_q", q, rows)
        self._put("joint_qd", qd, rows)
        self._forward(rows)

    def _forward(self, rows: NDArray[np.int64]) -> None:
        """Body poses from joint coordinates, in these worlds."""
        if not self.worlds.model.body_count:
            return
        others = np.setdiff1d(np.arange(self.n), rows)
        kept = {a: self._get(a)[others] for a in ("body_q", "body_qd")} if len(others) else {}
        self._nt.eval_fk(self.worlds.model, self._now.joint_q, self._now.joint_qd, self._now)
        for array, x in kept.items():
            self._put(array, x, others)

    def save(self) -> Array:
        if self.solver.capabilities["save_restore"] == "unsupported":
            raise Unsupported("save: the solver keeps more than its state", where=self._engine)
        return self._snapshot()

    def _snapshot(self) -> Array:
        return np.concatenate([*map(self._get, self._state_arrays), self._drives.control, self._time[:, None]], axis=1)

    def restore(self, state: Array, worlds: Rows = None) -> None:
        rows = np.arange(self.n) if worlds is None else np.asarray(worlds)
        size = self._snapshot().shape[1]
        if np.shape(state) != (len(rows), size):
            raise InputError(f"a state of shape {np.shape(state)}", where="restore", allowed=f"({len(rows)}, {size})")
        at = 0
        for array in self._state_arrays:
            k = self._get(array).shape[1]
            self._put(array, state[:, at : at + k], rows)
            at += k
        self._drives.control[rows] = state[:, at : at + self.model.nu]
        self._time[rows] = state[:, -1]
        self._failed[rows] = False

    def portable(self) -> tuple[PortableState, list[str]]:
        left = portable.unnamed(names.unnamed_joints(self.model))
        left += [f"positions and velocities of {name}" for name in self.worlds.particles]
        if self.solver.coordinates == "body":
            left.append("how far joints are open, which are constraints here")
        return portable.take(self), left

    def place_portable(self, state: PortableState, worlds: Rows = None) -> list[str]:
        return portable.put(self, state, worlds)

    def status(self) -> NDArray[np.bool_]:
        return ~self._failed

    def _get(self, array: str) -> Array:
        """A state array, (n, k), a copy."""
        return fields.rows(getattr(self._now, array), self.n)

    def _put(self, array: str, values: Array, rows: NDArray[np.int64]) -> None:
        x = getattr(self._now, array)
        if x is not None and x.size:
            whole = fields.rows(x, self.n)
            whole[rows] = values[rows] if len(values) == self.n and len(rows) != self.n else values
            fields.assign(x, whole)

    # stepping ---------------------------------------------------------------------------------------------

    def step(self, controls: Array, reads: Mapping[str, Reduce] | None = None) -> dict[str, Array]:
        out = self.rollout(controls, controls.shape[1], reads or {})
        return {name: x[:, 0] for name, x in out.items()}

    def rollout(self, controls: Array, every: int, reads: Mapping[str, Reduce]) -> dict[str, Array]:
        n, steps, nu = np.shape(controls)
        if n != self.n or steps % every or nu != self.model.nu:
            allowed = f"({self.n}, a multiple of {every}, {self.model.nu})"
            raise InputError(f"controls of shape {np.shape(controls)}", allowed=allowed, where="rollout")
        self._prepare(reads)
        before, begun = self._snapshot(), self._time.copy()
        bad = self._failed | ~np.isfinite(controls).all(axis=(1, 2))
        controls = np.where(bad[:, None, None], 0.0, controls)
        arrays = {a for name in reads for a in self._fields[name].arrays} - {"time"}
        kept = {a: np.zeros((steps, self.n, self._raw(a).shape[1])) for a in arrays}
        for k in range(steps):
            self._substep(controls[:, k])
            for a, x in kept.items():
                x[k] = self._raw(a)
        self._time = begun + self.timestep * steps
        kept["time"] = (begun[None] + self.timestep * np.arange(1, steps + 1)[:, None])[..., None]
        out = {name: self._reduce(self._fields[name], kept, every, reduce) for name, reduce in reads.items()}
        bad |= ~self._healthy()
        if bad.any():
            self.restore(before[bad], np.flatnonzero(bad))
            self._failed = bad
            held = self.read(list(reads))
            for name, x in out.items():
                own = held[name][bad]
                x[bad] = own.reshape(len(own), *([1] * (x.ndim - own.ndim)), *own.shape[1:])
        return out

    def _reduce(self, field: fields.Field, kept: Mapping[str, Array], every: int, reduce: Reduce) -> Array:
        """(n, groups, [every,] *shape)."""
        parts = [kept[a].reshape(-1, every, *kept[a].shape[1:]) for a in field.arrays]
        if reduce == "last":
            return np.moveaxis(field.value(*(x[:, -1] for x in parts)), 1, 0)
        values = np.moveaxis(field.value(*parts), 2, 0)
        return values if reduce == "all" else np.asarray(getattr(values, reduce)(axis=2))

    def _raw(self, array: str) -> Array:
        if array == "force":
            return fields.rows(self._drives.force, self.n)
        if array == "tally":
            return self._tally.values()
        if array == "time":
            return self._time[:, None]
        return self._get(array)

    def _substep(self, control: Array) -> None:
        """One step of all worlds: the first from Python, so that every kernel is there, the others as a graph."""
        self._drives.apply(control)
        with self._wp.ScopedDevice(self._device):
            if not self.solver.graph or not self._warm:
                self._launch()
                self._warm = True
                return
            if self._graph is None:
                with self._wp.ScopedCapture(device=self._device) as capture:
                    self._launch()
                self._graph = capture.graph
            self._wp.capture_launch(self._graph)

    def _launch(self) -> None:
        now, after, m = self._now, self._next, self.worlds.model
        self._drives.launch(now, self._control)
        now.clear_forces()
        if self._pipeline is not None:
            self._pipeline.collide(now, self._contacts)
        observed = {"observables": self._observed} if self._observed is not None else {}
        self._solver.step(now, after, self._control, self._contacts, self.timestep, **observed)
        if self.solver.name == "mpm":
            self._solver.project_outside(after, after, self.timestep)
        for array in self._state_arrays:
            self._wp.copy(getattr(now, array), getattr(after, array))
        if self.solver.coordinates == "body" and m.joint_count:
            self._nt.eval_ik(m, now, now.joint_q, now.joint_qd)
        if self._tally.wanted:
            self._tally.launch(self._contacts, self._observed.contact_f, m, now)

    def _healthy(self) -> NDArray[np.bool_]:
        good = np.ones(self.n, bool)
        if (
            self._contacts is not None
            and self._contacts.rigid_contact_count.numpy()[0] > self._contacts.rigid_contact_max
        ):
            good[:] = False  # contacts were left out, and nobody knows whose
        lost = getattr(self._solver, "constraint_overflow", None)
        if lost is not None:
            flags = lost.numpy()
            good &= ~flags[: self.n] & ~flags[self.n :].any()
            lost.zero_()
        for array in self._state_arrays:
            x = self._get(array)
            with np.errstate(invalid="ignore"):
                good &= np.isfinite(x).all(axis=1)
                good &= (np.abs(x) < (_SPEED if array.endswith("qd") else _DISTANCE)).all(axis=1)
        return good

    def gradient(self, controls: Array, wrt: Literal["state", "control"], step: float) -> tuple[Array, str]:
        """See ``flyball.engines.derivatives.Differentiable``."""
        from flyball.engines.newton.gradients import rollout_gradient

        values = rollout_gradient(
            self.scene, self.solver, self.model, self.worlds, self._now, self._drives, np.asarray(controls, float), wrt
        )
        return values, "reverse mode"

    # reading ----------------------------------------------------------------------------------------------

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        self._prepare(names)
        if any(self._fields[name].of == "force" for name in names):
            before, held = self._snapshot(), self._failed.copy()
            self._substep(self._drives.control.copy())
            wanted = {a for name in names for a in self._fields[name].arrays}
            forces = {a: self._raw(a) for a in ("force", "tally") if a in wanted}
            self.restore(before)
            self._failed = held
        else:
            forces = {}
        return {
            name: np.array(f.value(*(forces[a] if a in forces else self._raw(a) for a in f.arrays)))
            for name, f in ((name, self._fields[name]) for name in names)
        }

    def lag(self, name: str) -> float:
        self._prepare([name])
        return self.timestep if self._fields[name].of == "force" else 0.0

    def _prepare(self, wanted: Sequence[str] | Mapping[str, Reduce]) -> None:
        for name in wanted:
            if name in self._fields:
                continue
            field = fields.find(self.model, self.worlds, name, self._engine, self._tally)
            if "tally" in field.arrays:
                if not self.solver.forces:
                    raise Unsupported(f"{name}: the solver reports no contact forces", where=self._engine,
                                      run_next="the engines newton-steel, newton-xpbd, mujoco-warp")  # fmt: skip
                self._graph, self._warm = None, False  # further columns
            self._fields[name] = field

    # parameters -------------------------------------------------------------------------------------------

    def settable(self) -> list[str]:
        return sorted(self.solver.settable)

    def facts(self) -> list[str]:
        return [f for f in FACTS if f.startswith("body:")]

    def get(self, name: str) -> Array:
        return self._parameters.get(name)

    def set(self, values: Mapping[str, Array]) -> None:
        for name in values:
            if fields.pattern(name) not in self.solver.settable:
                allowed = ", ".join(self.settable()) or "nothing"
                raise Unsupported(f"cannot set {name!r}", where=self._engine, allowed=allowed)
        if not values:
            return
        before, bounce = {name: self.get(name) for name in values}, self._bounce.copy()
        self._parameters.set(values, self._host)
        for name in values:
            if name.endswith(".restitution"):
                self._bounce[:, names.id_of(self.model, "geom", names.split(name)[1])] = self.get(name)[:, 0]
        try:
            self._materials()
        except Unsupported:  # then nothing is set
            self._parameters.set(before, self._host)
            self._bounce = bounce
            raise
        self._inertia()
        self._sizes()
        self._dofs()
        self._drives.take(self._host)
        gravity = np.broadcast_to(self._host.expand("opt.gravity"), (self.n, 3))
        self.worlds.model.set_gravity(np.asarray(gravity if self.n > 1 else gravity[0], np.float32))
        self._solver.notify_model_changed(self._nt.ModelFlags.ALL)
        self._graph, self._warm = None, False

    def _inertia(self) -> None:
        m = self.worlds.model
        mass, diagonal = self._host.expand("body_mass")[:, 1:], self._host.expand("body_inertia")[:, 1:]
        quat = self.model.body_iquat[1:]
        full = np.stack([np.stack([inertia_of(d, q) for d, q in zip(w, quat, strict=True)]) for w in diagonal])
        held = (self.model.body_weldid[1:] == 0) & (self.solver.coordinates == "body")
        inverse = np.where(held[None, :, None, None], 0.0, np.linalg.inv(full))
        fields.assign(m.body_mass, mass)
        fields.assign(m.body_inv_mass, np.where(held, 0.0, 1 / mass))
        fields.assign(m.body_inertia, full)
        fields.assign(m.body_inv_inertia, inverse)

    def _sizes(self) -> None:
        """Shapes as many times as large as the model's as MuJoCo's geoms are."""
        size, own = self._host.expand("geom_size")[:, :, 0], self.model.geom_size[:, 0]
        ratio = np.ones((self.n, self.worlds.model.shape_count // self.n))
        scale = np.divide(size, own, out=np.ones_like(size), where=own != 0)  # 0: a whole plane
        ratio[:, self.worlds.shapes] = scale[:, self.worlds.met.geoms]
        for name, x in self._extents.items():
            fields.assign(getattr(self.worlds.model, name), x * ratio.reshape(-1, *[1] * (x.ndim - 1)))

    def _dofs(self) -> None:
        m, at = self.worlds.model, self.worlds.joints.qd
        for ours, theirs in (("dof_armature", "joint_armature"), ("dof_damping", "joint_damping")):
            x = fields.rows(getattr(m, theirs), self.n)
            x[:, at] = self._host.expand(ours)
            fields.assign(getattr(m, theirs), x)

    def _materials(self) -> None:
        """Friction and restitution of the shapes; one solution for all worlds that have the same values."""
        m = self.worlds.model
        sliding = self._host.expand("geom_friction")[:, :, 0]
        for values, solve, array in ((sliding, friction, m.shape_material_mu),
                                     (self._bounce, restitution, m.shape_material_restitution)):  # fmt: skip
            whole = fields.rows(array, self.n)
            met = self.worlds.met
            solved = {tuple(row): solve(self.model, met, row, self.solver) for row in np.unique(values, axis=0)}
            for w, row in enumerate(values):
                whole[w, self.worlds.shapes] = solved[tuple(row)]
            fields.assign(array, whole)
