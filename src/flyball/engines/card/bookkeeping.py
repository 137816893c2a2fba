"""Laws of the interface: the same bits again, in any company, after a restore; reads at their time; one algebra."""

from __future__ import annotations

import numpy as np

from flyball.base import InputError
from flyball.engines.card.card import Finding, Law
from flyball.engines.card.contact import STARS, tangle
from flyball.engines.card.scenes import BOX, PENDULUM, Array, check, floor, free, open_scene
from flyball.engines.engine import Engine, Simulation

_MIXED = floor(0.5) + free(BOX, 0.3) + PENDULUM.replace('pos="0 0 2"', 'pos="3 0 2"')
_LOOSE = floor(0.5) + free(BOX, 0.3) + free('<geom size=".1" mass="2"/>', 2, "p").replace('pos="0 0', 'pos="3 0')
"""For engines without joints: the pendulum is a ball that falls."""
_READS = ["body:b.position", "body:b.quat", "joint:p.position"]


def _scene(engine: Engine) -> str:
    return _LOOSE if engine.capabilities.get("articulation", "unsupported") == "unsupported" else _MIXED


def _mixed(engine: Engine, n: int, threads: int = 1) -> Simulation:
    """A box thrown onto a floor beside a pendulum, in n worlds that differ."""
    sim = open_scene(engine, _scene(engine), n=n, threads=threads)
    sim.push("b", np.tile([1.0, 0.3, 0, 2, 1, 3], (n, 1)) * (1 + 0.1 * np.arange(n)[:, None]))
    return sim


def _end(sim: Simulation, steps: int = 600) -> Array:
    sim.step(np.zeros((sim.n, steps, 0)))
    check(sim)
    return np.concatenate([x.reshape(sim.n, -1) for x in sim.read(_READS).values()], axis=1)


def _bits(same: bool, says: str) -> Finding:
    return Finding(0.0, says) if same else Finding(1.0, "bits differ")


def _determinism(engine: Engine) -> Finding:
    first, again, threaded = (_end(_mixed(engine, 4, threads)) for threads in (1, 1, 2))
    same = np.array_equal(first, again) and np.array_equal(first, threaded)
    return _bits(same, "equal bits twice, on one thread and on two")


def _alone(engine: Engine) -> Finding:
    same = np.array_equal(_end(_mixed(engine, 4))[:1], _end(_mixed(engine, 1)))
    return _bits(same, "a world alone has the bits it has among four")


def _resumes(engine: Engine) -> Finding:
    sim = _mixed(engine, 1)
    sim.step(np.zeros((1, 300, 0)))
    kept = sim.save()
    first = _end(sim, 300)
    sim.restore(kept)
    return _bits(np.array_equal(first, _end(sim, 300)), "goes on bit for bit")


def _reading(engine: Engine) -> Finding:
    quiet, read = _mixed(engine, 2), _mixed(engine, 2)
    for _ in range(6):
        quiet.step(np.zeros((2, 100, 0)))
        read.step(np.zeros((2, 100, 0)))
        read.read(_READS)
    return _bits(np.array_equal(_end(quiet, 100), _end(read, 100)), "goes on bit for bit after reads")


def _stamps(engine: Engine) -> Finding:
    """A body's position is read two ways, as a pose and as its joint's: they must be of the same instant."""
    sim = open_scene(engine, free('<geom size=".05" mass="1"/>', 10))
    sim.push("b", np.array([[5.0, 0, 0, 0, 0, 0]]))
    names = ["body:b.position", "joint:b.position", "time"]
    seen = sim.rollout(np.zeros((1, 40, 0)), 4, dict.fromkeys(names, "all"))
    gap = float(np.abs(seen["body:b.position"] - seen["joint:b.position"][..., :3]).max())
    clock = np.abs(np.diff(seen["time"].ravel()) - sim.timestep).max()
    now = sim.read(names)
    gap = max(gap, float(np.abs(now["body:b.position"] - now["joint:b.position"][..., :3]).max()))
    error = gap / (5.0 * sim.timestep)
    note = f"pose and joint are {error:.2g} steps apart"
    return Finding(max(error, float(clock / sim.timestep)), note)


def _portable(engine: Engine) -> Finding:
    sim = _mixed(engine, 1)
    sim.step(np.zeros((1, 300, 0)))
    state, dropped = sim.portable()
    other = open_scene(engine, _scene(engine))
    lost = other.place_portable(state)
    names = [*_READS, "joint:b.velocity", "joint:p.velocity"]
    mine, theirs = sim.read(names), other.read(names)
    error = max(float(np.abs(mine[k] - theirs[k]).max()) for k in names)
    says = f"leaves out: {', '.join(dropped)}" if dropped else "leaves nothing out"
    return Finding(error if not lost else float("inf"), f"poses and speeds off by {error:.2g}; {says}")


def _failing(engine: Engine) -> Finding:
    """A control that is not a number fails its world, and no other."""
    extra = '<actuator><motor name="p" joint="p"/></actuator>'
    sims = [open_scene(engine, PENDULUM, n=3, extra=extra) for _ in range(2)]
    controls = np.full((3, 20, 1), 0.1)
    for sim in sims:
        sim.step(controls)
    before = sims[0].read(["joint:p.position"])["joint:p.position"]
    bad = controls.copy()
    bad[1, 7] = np.nan
    try:
        sims[0].step(bad)
    except InputError:
        return Finding(1.0, "the call was refused for all worlds")
    sims[1].step(controls)
    after, want = (sim.read(["joint:p.position"])["joint:p.position"] for sim in sims)
    told = sims[0].status().tolist() == [True, False, True]
    same = np.array_equal(after[[0, 2]], want[[0, 2]]) and np.array_equal(after[1], before[1])
    note = "the world is reported and keeps its state, the others go on"
    return Finding(0.0 if told and same else 1.0, note if told and same else f"reported: {told}, states kept: {same}")


def _one_step(sim: Simulation, names: list[str]) -> Array:
    seen = sim.step(np.zeros((1, 1, 0)), dict.fromkeys(names, "last"))
    check(sim)
    return np.concatenate(list(seen.values()))


def _algebra(engine: Engine) -> Finding:
    """A tangle falls for a while, then takes one step from the same state by dense and by sparse algebra."""
    sims = [
        open_scene(engine, tangle(), step=0.002, options={"jacobian": kind}) for kind in ("dense", "sparse")
    ]  # fmt: skip
    names = [f"joint:b{k}.velocity" for k in range(STARS)]
    worst, contacts = 0.0, 0
    for _ in range(125):
        before = np.concatenate([x for x in sims[0].read(names).values()])
        sims[1].restore(sims[0].save())
        after = [_one_step(sim, names) for sim in sims]
        # the impulse of gravity sets the scale
        change = np.abs(after[0] - before).max()
        contacts += change > 2 * 9.81 * 0.002
        worst = max(worst, float(np.abs(after[0] - after[1]).max() / max(change, 9.81 * 0.002)))
        sims[0].step(np.zeros((1, 3, 0)))
    note = f"one step of {STARS} jointed stars differs by {worst:.2g} of the change at most, 125 states"
    return Finding(worst if contacts else float("inf"), note)


_BITS = "bit for bit"
_FAMILY = "Interface"
LAWS = (
    Law(_FAMILY, "determinism", "the same start ends in the same bits", 0.0, "on any number of threads", _determinism),
    Law(_FAMILY, "batch", "worlds do not influence each other", 0.0, _BITS, _alone),
    Law(_FAMILY, "save and restore", "a saved world goes on as it would have", 0.0, _BITS, _resumes),
    Law(_FAMILY, "reading", "a world that is looked at goes on as it would have", 0.0, _BITS, _reading),
    Law(_FAMILY, "time of reads", "all that is read of a state belongs to one instant [steps]", 1e-3,
        "no part of a step; single precision at 10 m", _stamps),
    Law(_FAMILY, "portable state", "poses and speeds placed by name read as they were", 1e-6,
        "rounding of a quaternion, single precision", _portable),
    Law(_FAMILY, "failing world", "a control that is not a number fails its world alone", 0.0, "no other may notice",
        _failing),
    Law(_FAMILY, "dense against sparse", "the same step by dense and by sparse algebra", 1e-4,
        "the same equations, solved to 1e-8 of their scale", _algebra),
)  # fmt: skip
