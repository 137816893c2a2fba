"""MuJoCo Warp behind the calls of ``mujoco.batch.Batch``.

In: a compiled MuJoCo model, controls per substep. Out: recorded fields. The state lives in a batch of MuJoCo's own, in
double precision; every call copies it to the device, in single precision, and back, so that saving, placing, setting
parameters and names are those of the engine ``mujoco``, and only stepping and computing is done by Warp. One substep is
recorded once as a graph and replayed: on a CPU this is 50 times as fast as launching its 100 kernels from Python.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from numpy.typing import NDArray

from flyball.base import Unsupported
from flyball.engines.mujoco.simulation import MujocoSimulation
from flyball.engines.newton import runtime

Array = NDArray[np.float64]

_STATE = ("qpos", "qvel", "act", "qacc_warmstart", "ctrl", "qfrc_applied", "xfrc_applied", "mocap_pos", "mocap_quat",
          "eq_active")  # fmt: skip
_PER_WORLD = ("body_mass", "body_inertia", "body_subtreemass", "body_invweight0", "dof_invweight0", "dof_damping",
              "dof_armature", "dof_frictionloss", "geom_friction", "geom_size", "geom_rbound", "geom_aabb",
              "geom_solref", "actuator_gainprm", "actuator_biasprm", "actuator_forcerange", "actuator_acc0",
              "tendon_actfrcrange", "tendon_invweight0")  # fmt: skip
"""Model fields that a parameter changes, or that are derived from one."""
_SPEED = 1e4
"""A world with a joint faster than this has exploded [rad/s, m/s]."""
_MOST_ROWS = 2**14
"""Constraint rows of a world beyond which it is given up."""


class MujocoWarpSimulation(MujocoSimulation):
    """n worlds of one model, stepped by MuJoCo Warp; see ``flyball.engines.Simulation`` for the contract."""

    def __init__(self, spec: mujoco.MjSpec, n: int, device: object) -> None:
        self._device = runtime.device(device)
        super().__init__(spec, n, 1)

    def _new_batch(self) -> Any:
        return WarpBatch(self.model, self.n, self._device)


class WarpBatch:
    """The part of ``mujoco.batch.Batch`` that a simulation uses.

    Raises:
      Unsupported: MuJoCo Warp lacks something that the model has; names it.
    """

    def __init__(self, model: mujoco.MjModel, n: int, device: Any) -> None:
        self._model, self._n, self._device = model, n, device
        self._wp, self._mjw = runtime.warp(), runtime.mujoco_warp()
        self._host = Batch(model, n, 1, False)
        self.nstate, self.state, self.warning = self._host.nstate, self._host.state, self._host.warning
        self._data = self._host._data  # shapes of the fields
        self._out: dict[str, Array] = {}
        self._own_values = False
        self._room: dict[str, int] = {}
        if model.nhistory:
            raise Unsupported("delayed sensors or actuators", where="engine mujoco-warp", allowed="none in the model")
        self._build(model, {})

    def _build(self, model: mujoco.MjModel, batch_sizes: dict[str, int]) -> None:
        with self._wp.ScopedDevice(self._device):
            try:
                self._m = self._mjw.put_model(model, batch_sizes=batch_sizes)
                self._d = self._mjw.make_data(model, nworld=self._n, **self._room)
            except (NotImplementedError, ValueError) as err:
                what = str(err).rstrip(".")
                raise Unsupported(what, where="engine mujoco-warp", run_next="the engine mujoco") from err
        self._m.opt.warn_overflow = 0  # seen by ``_grow``, not printed at every step
        self._graphs: dict[str, Any] = {}
        self._stale = False

    def _grow(self) -> bool:
        """Whether contacts or constraints were left out for want of room; there is twice as much now."""
        if not self._d.overflow.numpy().any() or self._d.njmax >= _MOST_ROWS:
            return False
        self._room = {"nconmax": 2 * (self._d.naconmax // self._n), "njmax": 2 * self._d.njmax}
        with self._wp.ScopedDevice(self._device):
            self._d = self._mjw.make_data(self._model, nworld=self._n, **self._room)
        self._graphs = {}
        return True

    # the host's own -----------------------------------------------------------------------------------------

    def reset(self, ids: NDArray[np.int64] | None = None) -> None:
        self._host.reset(ids, stage=mujoco.mjtStage.mjSTAGE_NONE)

    def expand(self, name: str) -> Array:
        return self._host.expand(name)

    def set_const(self) -> None:
        """Derived constants are MuJoCo's own, in double precision; the device takes them before its next step."""
        self._host.set_const()
        self._stale = True

    def get_model(self, world: int) -> mujoco.MjModel:
        return self._host.get_model(world)

    def get_data(self, world: int) -> mujoco.MjData:
        return self._host.get_data(world)

    def bind(self, name: str) -> Array:
        """A field of the state, live; any other as the last call computed it."""
        if name in _STATE or name == "time":
            return self._host.bind(name)
        if name not in self._out:
            self._out[name] = np.zeros((self._n, *np.shape(getattr(self._data, name))))
        return self._out[name]

    # on the device ------------------------------------------------------------------------------------------

    def forward(self, stage: object = None) -> None:
        """Compute all fields of the current state."""
        self._upload()
        self._launch("forward")
        while self._grow():
            self._upload()
            self._launch("forward")
        for name, x in self._out.items():
            x[:] = getattr(self._d, name).numpy().reshape(x.shape)

    def rollout(self, nstep: int, control: Array, record: Sequence[Any]) -> dict[Any, Array]:
        """Advance by substeps, recording after each; see ``mujoco.batch.Batch.rollout``."""
        out = self._run(nstep, control, record)
        while self._grow():
            out = self._run(nstep, control, record)
        self._download(self._host.bind("time").reshape(self._n, 1) + self._model.opt.timestep * nstep)
        return out

    def _run(self, nstep: int, control: Array, record: Sequence[Any]) -> dict[Any, Array]:
        """From the host's state, which stays as it is."""
        self._upload()
        wp, n = self._wp, self._n
        names = [r for r in record if isinstance(r, str) and r != "ncon"]
        out: dict[Any, Array] = {r: np.zeros((n, nstep)) for r in record if r not in names}
        begun = self._host.bind("time").reshape(n, 1).copy()
        for r in out:
            if r != "ncon":  # the state's time
                out[r] = (begun + self._model.opt.timestep * np.arange(1, nstep + 1))[..., None]
        u = wp.array(np.ascontiguousarray(control.transpose(1, 0, 2), np.float32), device=self._device)
        kept = {r: wp.empty((nstep, *getattr(self._d, r).shape), dtype=getattr(self._d, r).dtype, device=self._device)
                for r in names}  # fmt: skip
        for k in range(nstep):
            if u.size:
                wp.copy(self._d.ctrl, u[k])
            self._launch("step")
            for r, x in kept.items():
                wp.copy(x[k], getattr(self._d, r))
        for r, x in kept.items():
            shape = np.shape(getattr(self._data, r))
            out[r] = x.numpy().reshape(nstep, n, *shape).swapaxes(0, 1).astype(float)
        return out

    def _upload(self) -> None:
        if self._stale:
            self._take_parameters()
        for name in _STATE:
            x = getattr(self._d, name)
            if x.size:
                _assign(x, self._host.bind(name))
        self._d.time.assign(self._host.bind("time").reshape(-1).astype(np.float32))
        self._d.overflow.zero_()

    def _download(self, time: Array) -> None:
        for name in _STATE:
            x = getattr(self._d, name)
            if x.size:
                own = self._host.bind(name)
                own[:] = x.numpy().reshape(own.shape)
        self._host.bind("time").reshape(self._n, 1)[:] = time
        q, v = (self._host.bind(name).reshape(self._n, -1) for name in ("qpos", "qvel"))
        with np.errstate(invalid="ignore"):
            bad = ~(np.isfinite(q).all(axis=1) & (np.abs(v) < _SPEED).all(axis=1))
        self.warning[bad, int(mujoco.mjtWarning.mjWARN_BADQPOS), 1] += 1
        self.warning[self._d.overflow.numpy() != 0, int(mujoco.mjtWarning.mjWARN_CONTACTFULL), 1] += 1

    def _launch(self, what: str) -> None:
        """``step`` or ``forward``, the first time from Python, so that all kernels are there, then as a graph."""
        call = getattr(self._mjw, what)
        wp = self._wp
        with wp.ScopedDevice(self._device):
            if what not in self._graphs:
                self._graphs[what] = None
                call(self._m, self._d)
                return
            if self._graphs[what] is None:
                with wp.ScopedCapture(device=self._device) as capture:
                    call(self._m, self._d)
                self._graphs[what] = capture.graph
            wp.capture_launch(self._graphs[what])

    def _take_parameters(self) -> None:
        """Per-world fields from the host; the first time the model is built anew with room for them."""
        values = {name: self._host.expand(name) for name in _PER_WORLD if np.size(getattr(self._model, name))}
        if not self._own_values:
            self._build(self._model, dict.fromkeys(values, self._n))
            self._own_values = True
        for name, x in values.items():
            _assign(getattr(self._m, name), x)
        gravity = np.broadcast_to(self._host.expand("opt.gravity"), (self._n, 3))
        if not np.array_equal(gravity, np.broadcast_to(self._m.opt.gravity.numpy(), (self._n, 3)).astype(float)):
            self._m.opt.gravity = self._wp.array(gravity.astype(np.float32), dtype=self._wp.vec3, device=self._device)
            self._graphs = {}
        self._stale = False


def _assign(target: Any, values: Array) -> None:
    """Numbers into a device array, whose vector types are further axes to numpy."""
    like = target.numpy()
    target.assign(np.ascontiguousarray(values.reshape(like.shape), like.dtype))
