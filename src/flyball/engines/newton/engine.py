"""MuJoCo Warp and Newton's solvers as engines. In: a scene. Out: n worlds of it on a CPU or a GPU.

Nothing of them is imported before a scene is opened: to list engines takes no more than their versions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from flyball.base import Unsupported
from flyball.engines.engine import Level, Precision
from flyball.engines.mujoco import MujocoEngine
from flyball.engines.newton import runtime
from flyball.engines.newton.solvers import SOLVERS
from flyball.scenes import Scene

if TYPE_CHECKING:
    from flyball.engines.newton.simulation import NewtonSimulation
    from flyball.engines.newton.warp_batch import MujocoWarpSimulation


class MujocoWarpEngine:
    """MuJoCo's formulation in single precision, on all worlds at once: one vote with MuJoCo, not a second."""

    name = "mujoco-warp"
    formulation = MujocoEngine.formulation
    precision: Precision = "single"
    warm_up = runtime.WARM_UP
    capabilities: Mapping[str, Level] = {
        **MujocoEngine.capabilities,
        "gradient": "unsupported",
    }

    def __init__(self) -> None:
        self.version = runtime.versions("mujoco-warp", "warp-lang")

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> MujocoWarpSimulation:
        """Build n worlds; see ``flyball.engines.Engine.open``.

        Args:
          threads: has no meaning here: Warp takes one thread of a CPU, or a GPU.
          options: those of the engine ``mujoco``, and ``device``: auto | cpu | cuda:0.
        """
        from flyball.engines.newton.warp_batch import MujocoWarpSimulation

        scene.rigid_only(f"engine {self.name}")
        rest = dict(options or {})
        device = rest.pop("device", "auto")
        spec = MujocoEngine().open(scene, 1, threads=1, options=rest)._spec
        return MujocoWarpSimulation(spec, n, device)


class NewtonEngine:
    """One of Newton's solvers; what it can do is declared in ``newton.solvers``.

    Args:
      solver: its name there.
    """

    precision: Precision = "single"
    warm_up = runtime.WARM_UP

    def __init__(self, solver: str) -> None:
        self.solver = SOLVERS[solver]
        self.name = f"newton-{solver}"
        self.formulation = self.solver.formulation
        self.version = runtime.versions("newton", "warp-lang")
        self.capabilities = self.solver.capabilities

    def open(
        self, scene: Scene, n: int, *, threads: int = 0, options: Mapping[str, float | str] | None = None
    ) -> NewtonSimulation:
        """Build n worlds; see ``flyball.engines.Engine.open``.

        Args:
          threads: has no meaning here: Warp takes one thread of a CPU, or a GPU.
          options: ``timestep`` [s], ``device``: auto | cpu | cuda:0.
        """
        from flyball.engines.newton.simulation import NewtonSimulation

        rest = dict(options or {})
        device = rest.pop("device", "auto")
        for key, value in rest.items():
            if key != "timestep":
                where = f"engine {self.name}"
                raise Unsupported(f"option {key} = {value!r}", where=where, allowed="timestep (0, 0.1] s, device")
        model = MujocoEngine().open(replace(scene, deformables=()), 1, threads=1, options=rest).model
        return NewtonSimulation(model, scene, self.solver, n, device)


featherstone = partial(NewtonEngine, "featherstone")
semi_implicit = partial(NewtonEngine, "semi-implicit")
xpbd = partial(NewtonEngine, "xpbd")
steel = partial(NewtonEngine, "steel")
vbd = partial(NewtonEngine, "vbd")
mpm = partial(NewtonEngine, "mpm")
