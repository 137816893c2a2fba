"""Is a model fit for use? What its physics says, element by element.

In: a found model. Out: ``Check``: what it is made of, and findings, each with its element: an ``error`` is something no
robot can have, a ``warning`` something that most probably is a mistake or will surprise, a ``note`` worth knowing.
Needs MuJoCo, as the judge of the model, not as the engine it will run on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from flyball.base import NotPossible
from flyball.robots.zoo.found import FoundModel

if TYPE_CHECKING:
    from flyball.robots.models import Imported, ReadOptions

Level = Literal["error", "warning", "note"]

LIGHTEST, HEAVIEST = 1e-5, 5000.0
"""Bodies outside are hardly meant [kg]; 5 t is the heaviest that industrial arms and their loads get."""
DEPTH = 1e-3
"""Overlap that counts as a collision [m]: ten times what resting contacts of a light robot sink in."""
SECONDS = 0.5
GAIN = 0.05
"""Energy that a model at rest may gain when let go, over weight times size; overlaps that push apart give some."""


@dataclass(frozen=True)
class Finding:
    """One thing to know of one element.

    Attributes:
      element: kind and name, e.g. ``joint elbow``; ``model`` for the whole.
      text: what it is, with numbers and units.
    """

    level: Level
    element: str
    text: str


@dataclass(frozen=True)
class Check:
    """What was found of a model.

    Attributes:
      name: of the model.
      facts: counts, mass [kg], extent [m].
      findings: errors first.
      mended: what import changed because no body can have it; see ``Imported.mended``.
    """

    name: str
    facts: dict[str, Any]
    findings: tuple[Finding, ...]
    mended: tuple[str, ...] = ()

    @property
    def sound(self) -> bool:
        """No errors."""
        return all(f.level != "error" for f in self.findings)


def check(
    found: FoundModel, options: ReadOptions | None = None, also: Callable[[Imported], None] | None = None
) -> Check:
    """Import (see ``FoundModel.load``), compile and judge a model.

    Args:
      also: looks at the imported model first, and may refuse it.

    Raises:
      InputError: it does not import; names the element.
      NotPossible: MuJoCo or the format's library is not installed.
    """
    try:
        import mujoco  # noqa: F401
    except ModuleNotFoundError as err:
        raise NotPossible("checking a model needs MuJoCo", run_next="pip install 'flyball[sim]'") from err
    from flyball.robots.models.plausibility import suspicions

    imported = found.load(options)
    if also is not None:
        also(imported)
    suspected = set(suspicions(imported.model))
    findings = [Finding("warning", "import", text) for text in imported.losses]
    findings += [Finding("note", "import", text) for text in imported.notes if text not in suspected]
    findings += [_suspicion(text) for text in sorted(suspected)]
    facts, judged = judge(imported.compile())
    order = ("error", "warning", "note")
    findings = sorted([*judged, *findings], key=lambda f: order.index(f.level))
    return Check(found.name, {**facts, "base": imported.base}, tuple(findings), imported.mended)


def _suspicion(text: str) -> Finding:
    """A mix-up of units, said as ``body NAME: ...`` or of the whole model."""
    element, colon, rest = text.partition(": ")
    return Finding("warning", element, rest) if colon and " " in element else Finding("warning", "model", text)


def judge(model: Any) -> tuple[dict[str, Any], list[Finding]]:
    """Facts and findings of a compiled ``mujoco.MjModel``."""
    import mujoco

    data = mujoco.MjData(model)
    if model.nkey:
        mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    extent = _extent(model, data)
    facts = {
        "bodies": int(model.nbody - 1),
        "joints": int(model.njnt),
        "dof": int(model.nv),
        "actuators": int(model.nu),
        "meshes": int(model.nmesh),
        "mass": float(model.body_mass[1:].sum()),
        "extent": extent,
    }
    findings = [*_bodies(model), *_joints(model, data), *_actuators(model, data), *_overlaps(model, data)]
    if not model.nbody > 1:
        findings.append(Finding("error", "model", "has no bodies"))
    findings += _let_go(model, data, extent) if model.nv else []
    return facts, findings


def _name(model: Any, kind: str, i: int) -> str:
    own = getattr(model, kind)(i).name
    if not own and kind == "geom":
        return f"geom {i} of {_name(model, 'body', int(model.geom_bodyid[i]))}"
    return f"{kind} {own or i}"


def _extent(model: Any, data: Any) -> float:
    """Diagonal of the box around all bodies' shapes [m]."""
    own = (model.geom_bodyid > 0) & (model.geom_rbound > 0)
    if not own.any():
        return float(np.linalg.norm(np.ptp(data.xpos[1:], axis=0))) if model.nbody > 1 else 0.0
    p, r = data.geom_xpos[own], model.geom_rbound[own][:, None]
    return float(np.linalg.norm((p + r).max(0) - (p - r).min(0)))


def _bodies(model: Any) -> Iterator[Finding]:
    for b in range(1, model.nbody):
        mass, inertia, element = float(model.body_mass[b]), np.sort(model.body_inertia[b]), _name(model, "body", b)
        if model.body_weldid[b] == 0:
            continue  # fixed to the world: its mass does nothing
        if mass == 0:
            continue  # MuJoCo refuses a joint without mass; this one is welded to a body that has some
        if not np.isfinite([mass, *inertia]).all() or mass < 0 or (inertia < 0).any():
            yield Finding("error", element, f"mass {mass:g} kg, principal inertia {inertia} kg m^2")
            continue
        if not LIGHTEST <= mass <= HEAVIEST:
            yield Finding("warning", element, f"mass of {mass:.3g} kg")
        if inertia[0] + inertia[1] < inertia[2] * (1 - 1e-6):
            text = f"principal inertia {inertia} kg m^2 breaks the triangle inequality: no mass distribution has it"
            yield Finding("error", element, text)


def _joints(model: Any, data: Any) -> Iterator[Finding]:
    import mujoco

    driven = {int(i) for i, t in zip(model.actuator_trnid[:, 0], model.actuator_trntype, strict=True) if t == 0}
    for j in range(model.njnt):
        element, hinge = _name(model, "joint", j), model.jnt_type[j] == int(mujoco.mjtJoint.mjJNT_HINGE)
        if not hinge and model.jnt_type[j] != int(mujoco.mjtJoint.mjJNT_SLIDE):
            continue
        q, (low, high) = data.qpos[model.jnt_qposadr[j]], model.jnt_range[j]
        unit = "rad" if hinge else "m"
        if not model.jnt_limited[j]:
            level: Level = "note" if hinge else "warning"
            yield Finding(level, element, "has no position limits" + ("" if j in driven else " and no actuator"))
        else:
            if not low - 1e-6 <= q <= high + 1e-6:
                text = f"stands at {q:.3g} {unit} in the reference pose, outside its limits [{low:.3g}, {high:.3g}]"
                yield Finding("warning", element, text)
        dof = model.jnt_dofadr[j]
        for what, value in (("damping", model.dof_damping[dof]), ("armature", model.dof_armature[dof])):
            if value < 0:
                yield Finding("error", element, f"has a negative {what} of {value:g}")


def _actuators(model: Any, data: Any) -> Iterator[Finding]:
    import mujoco

    if not model.nu:
        yield Finding("note", "model", "has no actuators")
        return
    inertia = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, inertia)
    joints = int(mujoco.mjtTrn.mjTRN_JOINT), int(mujoco.mjtTrn.mjTRN_JOINTINPARENT)
    for a in range(model.nactuator):
        c, (gear, *_) = int(model.actuator_ctrladr[a]), model.actuator_gear[model.actuator_outadr[a]]
        element, on_joint = _name(model, "actuator", a), int(model.actuator_trntype[a]) in joints
        j = int(model.actuator_trnid[a, 0])
        bounded = model.actuator_forcelimited[a] or (on_joint and model.jnt_actfrclimited[j])
        if not bounded and not (model.actuator_ctrllimited[c] and model.actuator_biastype[a] == 0):
            yield Finding("note", element, "has no force limit")
        if not model.actuator_gear[model.actuator_outadr[a]].any():
            yield Finding("error", element, "has gear 0: it moves nothing")
        stiffness = -float(model.actuator_biasprm[a, 1]) if model.actuator_biastype[a] == 1 else 0.0
        if not (on_joint and stiffness > 0 and model.jnt_type[j] >= 2):
            continue
        if model.actuator_ctrllimited[c] and model.jnt_limited[j] and gear:
            low, high = model.jnt_range[j]
            low_c, high_c = sorted(model.actuator_ctrlrange[c] / gear)
            if low_c < low - 1e-3 or high_c > high + 1e-3:
                text = f"accepts targets in [{low_c:.3g}, {high_c:.3g}], its joint moves in [{low:.3g}, {high:.3g}]"
                yield Finding("note", element, text)
        dof = int(model.jnt_dofadr[j])
        beat = np.sqrt(stiffness / inertia[dof, dof]) * model.opt.timestep
        if beat > 2:  # where the explicit integration of a spring diverges
            text = f"is too stiff for a time step of {model.opt.timestep:g} s: {beat:.1f} rad of its own swing per step"
            yield Finding("warning", element, text)


def _overlaps(model: Any, data: Any) -> Iterator[Finding]:
    """Pairs of the robot's own bodies that overlap in the reference pose, the deepest of each."""
    deepest: dict[tuple[int, int], float] = {}
    for c in range(data.ncon):
        contact = data.contact[c]
        bodies = model.body_weldid[model.geom_bodyid[contact.geom]]
        if contact.dist < -DEPTH and bodies.all() and bodies[0] != bodies[1]:
            pair = (int(bodies.min()), int(bodies.max()))
            deepest[pair] = min(deepest.get(pair, 0.0), float(contact.dist))
    for (one, other), dist in sorted(deepest.items(), key=lambda item: item[1]):
        element = f"{_name(model, 'body', one)} and {_name(model, 'body', other)[5:]}"
        yield Finding("warning", element, f"overlap by {-dist * 1000:.1f} mm in the reference pose")


def _let_go(model: Any, data: Any, extent: float) -> Iterator[Finding]:
    """Simulate with nothing driven; the model is left as it was."""
    import mujoco

    flags = model.opt.disableflags, model.opt.enableflags
    model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_ACTUATION | mujoco.mjtDisableBit.mjDSBL_AUTORESET
    model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
    mujoco.mj_forward(model, data)
    begun, most = float(data.energy.sum()), 0.0
    steps = int(np.ceil(SECONDS / model.opt.timestep))
    bad = (mujoco.mjtWarning.mjWARN_BADQPOS, mujoco.mjtWarning.mjWARN_BADQVEL, mujoco.mjtWarning.mjWARN_BADQACC)
    for k in range(steps):
        mujoco.mj_step(model, data)
        if any(data.warning[w].number for w in bad) or not np.isfinite(data.qvel).all():
            worst = int(np.argmax(np.nan_to_num(np.abs(data.qacc), nan=np.inf)))
            element = _name(model, "joint", int(model.dof_jntid[worst]))
            yield Finding(
                "error", element, f"diverges after {(k + 1) * model.opt.timestep:.3f} s of simulation, undriven"
            )
            break
        most = max(most, float(data.energy.sum()) - begun)
    else:
        scale = float(model.body_mass.sum()) * 9.81 * extent
        if most > GAIN * scale > 0:
            text = f"gains {most:.3g} J within {SECONDS} s, undriven: {most / scale:.0%} of its weight times its size"
            yield Finding("warning", "model", text)
    model.opt.disableflags, model.opt.enableflags = flags
