"""Drake behind the engine interface: n worlds, stepped one after the other.

In: MJCF text, per-world fields, controls per substep. Out: stepped worlds and reduced reads. Worlds with equal fields
share a diagram, each has a context of its own; setting a field builds new diagrams (milliseconds each), so that a
parameter acts exactly as if the model had been authored with it. Meant for evaluation on a few worlds, not for
throughput.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from flyball.base import InputError, Unsupported
from flyball.engines import portable
from flyball.engines.drake import reads as fields
from flyball.engines.drake.build import IGNORABLE, Built, Refusals, build, from_mujoco, to_mujoco
from flyball.engines.drake.parameters import SETTABLE, WHERE, Parameters
from flyball.engines.engine import Level, Reduce
from flyball.engines.mujoco import names
from flyball.engines.mujoco.parameters import FACTS
from flyball.engines.portable import PortableState
from flyball.scenes import Scene

Array = NDArray[np.float64]
Worlds = NDArray[np.int64] | None

_LOG = logging.getLogger(__name__)
_SCHEMES = ("lagged", "similar", "sap")
"""Drake's discrete contact approximations. The first is Drake's default and this adapter's: under the others a body
that slides hops, and its normal force comes in bursts."""


class DrakeEngine:
    """The independent third engine: its own multibody code, contact model and solver."""

    name = "drake"
    version = version("drake")
    formulation = "drake"
    capabilities: Mapping[str, Level] = {
        "rigid": "exact",
        "articulation": "exact",
        "contact": "approximate",
        "contact_wrench": "exact",
        "restitution": "unsupported",
        "armature": "exact",
        "equality": "exact",
        "frictionloss": "approximate",
        "per_world_parameters": "exact",
        "save_restore": "exact",
        "ball_joints": "unsupported",
        "tendon_springs": "unsupported",
        "actuator_dynamics": "unsupported",
        "torsional_friction": "unsupported",
        "fluid": "unsupported",
        "gradient": "unsupported",
        "cloth": "unsupported",
        "soft": "unsupported",
        "granular": "unsupported",
    }

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> DrakeSimulation:
        """Build n worlds; see ``flyball.engines.Engine.open``. ``threads`` has no effect.

        Besides ``timestep`` and ``cone`` (elliptic only, whatever the model says), options are ``contact`` (Drake's
        discrete approximation: lagged | similar | sap) and ``ignore`` (features that Drake lacks and the user does
        without, see ``build.IGNORABLE``, comma-separated).
        """
        scene.rigid_only("engine drake")
        try:
            assets = dict(scene.assets)
            model = mujoco.MjSpec.from_string(scene.model, assets=assets).compile()
        except ValueError as err:
            raise InputError(f"the model does not compile: {err}", where=f"scene {scene.name}") from err
        scheme, ignored = "lagged", frozenset[str]()
        for key, value in (options or {}).items():
            if key == "timestep" and isinstance(value, (int, float)) and 0 < value <= 0.1:
                model.opt.timestep = value
            elif key == "cone" and value == "elliptic":
                pass  # Drake's friction cone is round
            elif key == "contact" and value in _SCHEMES:
                scheme = str(value)
            elif key == "ignore" and {w.strip() for w in str(value).split(",")} <= set(IGNORABLE):
                ignored = frozenset(w.strip() for w in str(value).split(","))
            else:
                allowed = "timestep (0, 0.1] s, cone elliptic, contact " + " | ".join(_SCHEMES)
                allowed += ", ignore " + ", ".join(IGNORABLE)
                raise Unsupported(f"option {key} = {value!r}", where=WHERE, allowed=allowed)
        return DrakeSimulation(model, n, Refusals(scene.name, ignored), scheme)


class _World:
    """One context of a diagram."""

    def __init__(self, built: Built) -> None:
        self.built = built
        self.context = built.diagram.CreateDefaultContext()
        self.plant_context = built.plant.GetMyMutableContextFromRoot(self.context)
        self._targets = [built.plant.get_desired_state_input_port(k) for k in built.instances]
        self._forces = built.plant.get_applied_generalized_force_input_port()
        self._told: Array | None = None

    def write(self, x: Array) -> None:
        self.context.SetDiscreteState(0, x)

    def state(self) -> Array:
        return np.array(self.context.get_discrete_state(0).value())

    def drive(self, inputs: tuple[list[Array], Array], k: int) -> None:
        """Row k of ``Built.inputs``."""
        told = np.concatenate([*(targets[k] for targets in inputs[0]), inputs[1][k]])
        if self._told is not None and np.array_equal(told, self._told):
            return  # what has not changed is not computed again
        self._told = told
        for port, targets in zip(self._targets, inputs[0], strict=True):
            port.FixValue(self.plant_context, targets[k])
        self._forces.FixValue(self.plant_context, inputs[1][k])

    def step(self) -> None:
        self.context.SetDiscreteState(self.built.diagram.EvalUniquePeriodicDiscreteUpdate(self.context))


class DrakeSimulation:
    """n worlds of one model; see ``flyball.engines.Simulation`` for the contract."""

    def __init__(self, model: Any, n: int, refusals: Refusals, scheme: str) -> None:
        self.model, self.n, self.timestep = model, n, float(model.opt.timestep)
        self.layout = names.layout(model)
        self._refusals, self._scheme = refusals, scheme
        self._parameters = Parameters(model, n)
        self._built: dict[bytes, Built] = {}
        self._fields: dict[str, fields.Read] = {}
        self._worlds = self._make(self._parameters)
        self._nx = len(self._worlds[0].built.start) if n else 0
        self.reset()

    # state ------------------------------------------------------------------------------------------------

    def reset(self, worlds: Worlds = None) -> None:
        if worlds is None:
            self._time, self._controls = np.zeros(self.n), np.zeros((self.n, self.model.nu))
            self._failed = np.zeros(self.n, bool)
        rows = self._rows(worlds)
        self._time[rows], self._controls[rows], self._failed[rows] = 0.0, 0.0, False
        for i in rows:
            self._worlds[i].write(self._worlds[i].built.start)

    def place(self, joint: str, position: Array, worlds: Worlds = None) -> None:
        self._write(joint, "position", position, worlds)

    def push(self, joint: str, velocity: Array, worlds: Worlds = None) -> None:
        self._write(joint, "velocity", velocity, worlds)

    def _write(self, joint: str, field: str, values: Array, worlds: Worlds) -> None:
        array, start, size = fields.joint_slice(self.model, joint, field)
        rows = self._rows(worlds)
        try:
            v = np.broadcast_to(np.asarray(values, float), (len(rows), size))
        except ValueError:
            v = np.full((len(rows), size), np.nan)
        if not np.isfinite(v).all():
            allowed = f"finite, ({len(rows)}, {size})"
            raise InputError(f"joint:{joint}: values of shape {np.shape(values)}", where=WHERE, allowed=allowed)
        for i, row in zip(rows, v, strict=True):
            world = self._worlds[i]
            parts = dict(zip(("qpos", "qvel"), to_mujoco(world.built, world.state()), strict=True))
            parts[array][start : start + size] = row
            world.write(from_mujoco(world.built, parts["qpos"], parts["qvel"]))

    def save(self) -> Array:
        states = np.stack([w.state() for w in self._worlds])
        return np.concatenate([states, self._time[:, None], self._controls], axis=1)

    def restore(self, state: Array, worlds: Worlds = None) -> None:
        rows, size = self._rows(worlds), self._nx + 1 + self.model.nu
        if np.shape(state) != (len(rows), size):
            allowed = f"({len(rows)}, {size})"
            raise InputError(f"a state of shape {np.shape(state)}", allowed=allowed, where="restore")
        for i, row in zip(rows, np.asarray(state, float), strict=True):
            self._worlds[i].write(row[: self._nx])
            self._time[i], self._controls[i] = row[self._nx], row[self._nx + 1 :]
            self._failed[i] = False

    def portable(self) -> tuple[PortableState, list[str]]:
        return portable.take(self), [*portable.unnamed(names.unnamed_joints(self.model)), "controls applied last"]

    def place_portable(self, state: PortableState, worlds: Worlds = None) -> list[str]:
        return portable.put(self, state, worlds)

    def status(self) -> NDArray[np.bool_]:
        return ~self._failed

    # stepping ---------------------------------------------------------------------------------------------

    def step(self, controls: Array, reads: Mapping[str, Reduce] | None = None) -> dict[str, Array]:
        out = self.rollout(controls, controls.shape[1], reads or {})
        return {name: x[:, 0] for name, x in out.items()}

    def rollout(self, controls: Array, every: int, reads: Mapping[str, Reduce]) -> dict[str, Array]:
        shape = np.shape(controls)
        fits = len(shape) == 3 and every >= 1 and shape[1] and not shape[1] % every
        if not fits or (shape[0], shape[2]) != (self.n, self.model.nu):
            allowed = f"({self.n}, a multiple of {max(every, 1)}, {self.model.nu})"
            raise InputError(f"controls of shape {shape}", allowed=allowed, where="rollout")
        controls = np.asarray(controls, float)
        wanted = {name: self._field(name) for name in reads}
        rows: dict[str, list[Array]] = {name: [] for name in reads}
        for i in range(self.n):
            for name, x in self._advance(i, controls[i], every, wanted, reads).items():
                rows[name].append(x)
        return {name: np.stack(x) for name, x in rows.items()}

    def _advance(
        self, i: int, controls: Array, every: int, wanted: Mapping[str, fields.Read], reads: Mapping[str, Reduce]
    ) -> dict[str, Array]:
        """One world through all its substeps: field -> (groups, [every,] k)."""
        world, before = self._worlds[i], (self._worlds[i].state(), self._time[i], self._controls[i].copy())
        groups = len(controls) // every
        seen: dict[str, list[Array]] = {name: [] for name in wanted}
        contact = any(f.contact for f in wanted.values())
        failed = bool(self._failed[i]) or not np.isfinite(controls).all()
        if not failed:
            inputs = world.built.inputs(controls)
            try:
                for k in range(len(controls)):
                    world.drive(inputs, k)
                    self._controls[i] = controls[k]
                    last = (k + 1) % every == 0
                    now = [name for name in wanted if last or reads[name] != "last"]
                    if contact and any(wanted[name].contact for name in now):
                        begin = self._moment(i, contact=True)
                        for name in now:
                            if wanted[name].contact:
                                seen[name].append(wanted[name].value(begin))
                    world.step()
                    self._time[i] += self.timestep
                    if any(not wanted[name].contact for name in now):
                        end = self._moment(i)
                        for name in now:
                            if not wanted[name].contact:
                                seen[name].append(wanted[name].value(end))
                failed = not np.isfinite(world.state()).all()
            except RuntimeError as err:  # the solver gives up
                failed = True
                _LOG.warning("world %d stands still: %s", i, str(err).strip().splitlines()[0])
        if failed:
            self._failed[i] = True
            world.write(before[0])
            self._time[i], self._controls[i] = before[1], before[2]
            still = self._moment(i, contact=contact)
            seen = {
                name: [f.value(still)] * (groups if reads[name] == "last" else len(controls))
                for name, f in wanted.items()
            }
        out = {}
        for name, values in seen.items():
            how, x = reads[name], np.array(values)
            if how != "last":
                x = x.reshape(groups, every, -1)
                x = x if how == "all" else getattr(x, how)(axis=1)
            out[name] = x
        return out

    def _moment(self, i: int, *, contact: bool = False) -> fields.Moment:
        world = self._worlds[i]
        qpos, qvel = to_mujoco(world.built, world.state())
        contacts = fields.contacts_of(world.built, world.plant_context) if contact else []
        return fields.Moment(
            world.built, world.plant_context, float(self._time[i]), qpos, qvel, self._controls[i], contacts
        )

    def read(self, names: Sequence[str]) -> dict[str, Array]:
        wanted = {name: self._field(name) for name in names}
        contact = any(f.contact for f in wanted.values())
        rows: dict[str, list[Array]] = {name: [] for name in wanted}
        for i, world in enumerate(self._worlds):
            if contact:
                world.drive(world.built.inputs(self._controls[i : i + 1]), 0)
            moment = self._moment(i, contact=contact)
            for name, f in wanted.items():
                rows[name].append(np.array(f.value(moment)))
        return {name: np.stack(x) for name, x in rows.items()}

    def lag(self, name: str) -> float:
        return self.timestep if self._field(name).contact else 0.0

    def _field(self, name: str) -> fields.Read:
        if name not in self._fields:
            self._fields[name] = fields.find(self.model, name)
        return self._fields[name]

    # parameters -------------------------------------------------------------------------------------------

    def settable(self) -> list[str]:
        return list(SETTABLE)

    def facts(self) -> list[str]:
        return list(FACTS)

    def get(self, name: str) -> Array:
        return self._parameters.get(name)

    def set(self, values: Mapping[str, Array]) -> None:
        new = self._parameters.copy()
        new.set(values)
        if not values:
            return
        worlds = self._make(new)  # refuses what Drake does not accept, before anything is changed
        for old, world in zip(self._worlds, worlds, strict=True):
            world.write(old.state())
        self._parameters, self._worlds = new, worlds

    def _make(self, parameters: Parameters) -> list[_World]:
        """A world each; those with equal fields share a diagram."""
        kept: dict[bytes, Built] = {}
        out = []
        for i in range(self.n):
            key = parameters.key(i)
            if key not in kept:
                known = self._built.get(key)
                kept[key] = known or build(parameters.world_model(i), self._refusals, self._scheme)
            out.append(_World(kept[key]))
        self._built = kept
        return out

    def _rows(self, worlds: Worlds) -> list[int]:
        return list(range(self.n)) if worlds is None else [int(i) for i in worlds]
