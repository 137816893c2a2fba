"""Laws of contact: collisions, friction, rebound, rest, piles, and how contacts are counted."""

from __future__ import annotations

import numpy as np

from flyball.engines.card.card import Finding, Law
from flyball.engines.card.scenes import (
    BOX,
    GRAVITY,
    STEP_S,
    WEIGHTLESS,
    check,
    floor,
    free,
    open_scene,
    rotate,
    run,
    tilted,
)
from flyball.engines.engine import Engine

_STIFF = 'cone="elliptic" impratio="10"'


def _momentum(engine: Engine) -> Finding:
    balls = "".join(
        f'<body name="{k}" pos="{x} {y} 0"><freejoint name="{k}"/><geom size=".1" mass="{m}"/></body>'
        for k, x, y, m in (("a", -0.5, 0.05, 1.0), ("b", 0.5, 0.0, 3.0))
    )
    sim = open_scene(engine, balls, option=WEIGHTLESS)
    sim.push("a", np.array([[2.0, 0, 0, 0, 0, 0]]))
    done = run(sim, 1.0, ["joint:a.velocity", "joint:b.velocity"])
    after = done["joint:a.velocity"][-1, :3] + 3 * done["joint:b.velocity"][-1, :3]
    hit = float(np.linalg.norm(done["joint:b.velocity"][-1, :3]))
    error = float(np.linalg.norm(after - np.array([2.0, 0, 0])) / 2)
    return Finding(
        error if hit > 0.1 else float("inf"), f"off by {error:.2g} of it; the struck ball moves {hit:.2f} m/s"
    )


def _rebound(engine: Engine, e: float, height: float = 0.5) -> tuple[float, float]:
    """How high a ball dropped from ``height`` rises again, and the law's e^2 h [m]."""
    ball = free('<geom name="g" size=".05" mass="1"/>', 0.05 + height)
    sim = open_scene(engine, '<geom type="plane" size="5 5 1"/>' + ball, step=STEP_S / 4)
    sim.set({"geom:g.restitution": np.array([e])})
    sim.reset()
    z = run(sim, 1.0, ["body:b.position"])["body:b.position"][:, 2] - 0.05
    first = int(np.argmax(z < 0))
    bottom = first + int(np.argmin(z[first : first + 400]))
    return float(z[bottom:].max()), e**2 * height


def _restitution(engine: Engine) -> Finding:
    coefficients = (0.3, 0.6, 0.9)
    found = [_rebound(engine, e) for e in coefficients]
    error = max(abs(np.sqrt(max(h, 0) / want) - 1) for h, want in found)
    note = "; ".join(f"e {e}: {h:.4f} m, law {want:.4f} m" for e, (h, want) in zip(coefficients, found, strict=True))
    data = {"e": coefficients, "rebound [m]": [h for h, _ in found], "law [m]": [want for _, want in found]}
    return Finding(float(error), note, data)


def _no_rebound(engine: Engine) -> Finding:
    height, _ = _rebound(engine, 0.0)
    return Finding(max(height, 0.0) / 0.5, f"rises {1000 * max(height, 0.0):.2f} mm after a fall of 0.5 m")


def _slip(engine: Engine) -> Finding:
    wrong = []
    for mu in (0.2, 0.5, 0.8):
        for share in (0.8, 0.95, 1.05, 1.3):
            angle = float(np.arctan(mu * share))
            sim = open_scene(engine, floor(mu) + free(BOX, 0.05), option=tilted(angle))
            x = run(sim, 1.0, ["body:b.position"], every=10)["body:b.position"][:, 0]
            slips = x[-1] - x[len(x) // 5] > 0.01
            if slips != (share > 1):
                wrong.append(f"mu {mu}, tan {mu * share:.2f}")
    return Finding(len(wrong) / 12, f"{len(wrong)} of 12 wrong" + (f": {'; '.join(wrong)}" if wrong else ""))


def _sliding(engine: Engine) -> Finding:
    mu, angle = 0.3, 0.5
    sim = open_scene(engine, floor(mu) + free(BOX, 0.05), option=tilted(angle))
    end = run(sim, 1.0, ["body:b.position"])["body:b.position"][-1]
    want = GRAVITY * (np.sin(angle) - mu * np.cos(angle)) / 2
    return Finding(abs(end[0] / want - 1), f"{end[0]:.4f} m in 1 s, law {want:.4f} m")


def _stopping(engine: Engine) -> Finding:
    mu, v = 0.4, 2.0
    sim = open_scene(engine, floor(mu) + free(BOX, 0.05), option=_STIFF)
    run(sim, 0.2, ["time"])
    start = sim.read(["body:b.position"])["body:b.position"][0, 0]
    sim.push("b", np.array([[v, 0, 0, 0, 0, 0]]))
    x = run(sim, 2.0, ["body:b.position"], every=10)["body:b.position"][:, 0]
    found, want = float(x[-1] - start), v**2 / (2 * mu * GRAVITY)
    return Finding(abs(found / want - 1), f"{found:.4f} m, law {want:.4f} m")


def _rolling(engine: Engine) -> Finding:
    angle = 0.2
    ball = free('<geom name="g" type="sphere" size=".1" mass="1"/>', 0.1)
    sim = open_scene(engine, floor(0.8) + ball, option=tilted(angle))
    x = run(sim, 1.0, ["joint:b.velocity"])["joint:b.velocity"][:, 0]
    found, want = float((x[-1] - x[300]) / (STEP_S * (len(x) - 301))), 5 / 7 * GRAVITY * np.sin(angle)
    return Finding(abs(found / want - 1), f"{found:.4f} m/s^2, law {want:.4f}")


def _resting(engine: Engine) -> Finding:
    site = '<site name="s" type="box" size=".12 .12 .07"/>'
    body = f'<geom name="floor" type="plane" size="5 5 1"/>{free(BOX + site, 0.05)}'
    sim = open_scene(engine, body, extra='<sensor><touch name="s" site="s"/></sensor>')
    force = run(sim, 2.0, ["sensor:s"])["sensor:s"][-500:].mean()
    return Finding(abs(float(force) / GRAVITY - 1), f"{force:.4f} N under 1 kg, law {GRAVITY} N")


def _wrench(engine: Engine) -> Finding:
    """A box pushed down off its middle by another: the floor's wrench balances both weights and their moment."""
    upper = '<geom type="box" size=".02 .02 .02" mass="0.5"/>'
    bodies = free(BOX, 0.05) + f'<body name="u" pos=".06 0 .12"><freejoint name="u"/>{upper}</body>'
    sim = open_scene(engine, floor(0.5) + bodies, option=_STIFF)
    names = ["contact:world|b.wrench", "contact:u|b.wrench", "body:u.position", "body:b.position"]
    done = {k: x[-500:].mean(axis=0) for k, x in run(sim, 2.0, names).items()}
    below, above = done["contact:world|b.wrench"], done["contact:u|b.wrench"]
    lever = done["body:u.position"][0] - done["body:b.position"][0]
    weight, load = GRAVITY, 0.5 * GRAVITY
    want_below = np.array([0, 0, weight + load, 0, -lever * load, 0])
    want_above = np.array([0, 0, -load, 0, lever * load, 0])
    scale = np.array([weight] * 3 + [weight * 0.1] * 3)
    error = max(np.abs((below - want_below) / scale).max(), np.abs((above - want_above) / scale).max())
    note = f"floor {below[2]:.4f} N and {below[4]:.4f} N m, law {want_below[2]:.4f} and {want_below[4]:.4f}"
    return Finding(float(error), note)


def _counted(engine: Engine) -> Finding:
    """A ball hovers within the reach of contact detection: the engine may list a contact, but no force acts."""
    bodies = '<geom name="floor" type="plane" size="5 5 1" gap=".05"/>' + "".join(
        f'<body name="{k}" pos="{x} 0 {z}"><freejoint name="{k}"/><geom size=".1" mass="1" gap=".05"/>{{}}</body>'
        for k, x, z in (("near", 0, 0.12), ("down", 1, 0.1))
    )
    sim = open_scene(engine, bodies.replace("{}", ""))
    names = ["contact:world|near.wrench", "contact:world|down.wrench"]
    # the first ball is put back at rest before every step: it begins each one 2 cm above the floor
    seen = []
    for _ in range(50):
        sim.place("near", np.array([[0, 0, 0.12, 1, 0, 0, 0]]))
        sim.push("near", np.zeros((1, 6)))
        seen.append(np.concatenate(list(sim.step(np.zeros((1, 20, 0)), dict.fromkeys(names, "mean")).values()), axis=1))
    check(sim)
    hover, rest = np.abs(np.array(seen)[:, 0, :6]).max(), np.array(seen)[25:, 0, 8].mean()
    error = max(hover, abs(rest - GRAVITY)) / GRAVITY
    return Finding(float(error), f"{hover:.4g} N at 2 cm above the floor, {rest:.4f} N at rest, law {GRAVITY} N")


def _stack(engine: Engine) -> Finding:
    boxes = "".join(
        f'<body name="b{k}" pos="0 0 {0.05 + 0.1 * k}"><freejoint name="b{k}"/>'
        f'<geom type="box" size=".05 .05 .05" mass=".5" solref=".004 1"/></body>'
        for k in range(4)
    )
    sim = open_scene(engine, '<geom type="plane" size="5 5 1" solref=".004 1"/>' + boxes, option=_STIFF)
    names = [f"body:b{k}.position" for k in range(4)]
    done = run(sim, 6.0, names, every=100)
    moved = max(float(np.linalg.norm(done[name][-1] - done[name][9])) for name in names)
    sunk = float(0.35 - done["body:b3.position"][-1, 2])
    return Finding(max(moved, sunk), f"creeps {1000 * moved:.3f} mm in 5 s, stands {1000 * sunk:.3f} mm too low")


def _bin(half: float) -> str:
    """A floor within four walls, ``half`` from the middle [m]."""
    return '<geom name="floor" type="plane" size="5 5 1"/>' + "".join(
        f'<geom type="box" pos="{x * (half + 0.05)} {y * (half + 0.05)} .3" '
        f'size="{0.05 if x else half + 0.1} {0.05 if y else half + 0.1} .3"/>'
        for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))
    )


_PILE = 12


def _boxes() -> str:
    """Four columns of three boxes, askew, above a floor within four walls."""
    return _bin(0.2) + "".join(
        f'<body name="b{k}" pos="{0.11 * (k % 2) - 0.05} {0.11 * (k // 2 % 2) - 0.06} {0.06 + 0.11 * (k // 4)}" '
        f'euler="0 {0.1 + 0.05 * k} {0.3 * k}"><freejoint name="b{k}"/>'
        f'<geom type="box" size=".05 .04 .03" mass=".2"/></body>'
        for k in range(_PILE)
    )


def _pile(engine: Engine) -> Finding:
    sim = open_scene(engine, _boxes(), step=0.002)
    bodies = range(_PILE)
    names = [f"contact:world|b{k}.wrench" for k in bodies] + [f"joint:b{k}.velocity" for k in bodies]
    done = run(sim, 3.0, names)
    carried = float(sum(done[f"contact:world|b{k}.wrench"][-250:, 2].mean() for k in bodies))
    speed = max(float(np.abs(done[f"joint:b{k}.velocity"][-250:, :3]).max()) for k in bodies)
    fastest = max(float(np.abs(done[f"joint:b{k}.velocity"][:, :3]).max()) for k in bodies)
    weight = _PILE * 0.2 * GRAVITY
    # falling 0.4 m gives 2.8 m/s; a pile that throws its boxes up has taken energy from nowhere
    bound = np.sqrt(2 * GRAVITY * 0.45)
    error = max(abs(carried / weight - 1), speed, max(0.0, fastest / bound - 1))
    note = f"floor and walls carry {carried:.3f} N, law {weight:.3f} N; after 3 s at most {1000 * speed:.2f} mm/s"
    return Finding(error, f"{note}; never above {fastest:.2f} m/s")


STARS = 7
"""Bodies of the tangle, with three jointed limbs each: 84 degrees of freedom, where an engine may turn to sparse
algebra, in trees that branch, which is where such an algebra was once wrong (MuJoCo 4.0.0, issue 3767)."""
_HUB, _LIMB, _REACH = 0.2, 0.1, 0.025
"""Masses of a hub and of each of its six limbs [kg], and where along a limb its centre of mass is [m]."""
_LIMB_INERTIA = np.array([1.1e-5, 4e-5, 4e-5])
_LIMBS = tuple(f"{kind}{i}" for i in range(3) for kind in "ul")


def tangle() -> str:
    """Stars of a ball and three limbs of two links each, that fall into a bin one after another."""
    limb = (
        f'<inertial pos="{_REACH} 0 0" mass="{_LIMB}" diaginertia="{_LIMB_INERTIA[0]} {_LIMB_INERTIA[1]} '
        f'{_LIMB_INERTIA[2]}"/><geom type="capsule" size=".015" fromto="0 0 0 {2 * _REACH} 0 0"/>'
    )
    hinge = '<joint type="hinge" axis="0 1 0" damping=".01"/>'
    stars = ""
    for k in range(STARS):
        limbs = "".join(
            f'<body name="b{k}u{i}" pos="{0.035 * np.cos(2.1 * i):.5f} {0.035 * np.sin(2.1 * i):.5f} 0" '
            f'euler="0 0 {2.1 * i:.4f}">{hinge}{limb}<body name="b{k}l{i}" pos="{2 * _REACH} 0 0">{hinge}{limb}'
            "</body></body>"
            for i in range(3)
        )
        stars += (
            f'<body name="b{k}" pos="{0.06 * (k % 2) - 0.03} {0.04 * (k // 2 % 2) - 0.02} {0.15 + 0.2 * k}" '
            f'euler="{0.5 * k} {0.3 * k} {0.7 * k}"><freejoint name="b{k}"/>'
            f'<geom size=".03" mass="{_HUB}"/>{limbs}</body>'
        )
    return _bin(0.15) + stars


def _tangle(engine: Engine) -> Finding:
    sim = open_scene(engine, tangle(), step=0.002)
    hubs = [f"b{k}" for k in range(STARS)]
    limbs = [hub + limb for hub in hubs for limb in _LIMBS]
    names = [f"body:{b}.{f}" for b in hubs + limbs for f in ("position", "quat", "velocity")]
    done = run(sim, 4.0, names, every=5)
    energy = np.zeros(len(done[names[0]]))
    for body in hubs + limbs:
        mass, reach, inertia = (_LIMB, _REACH, _LIMB_INERTIA) if body in limbs else (_HUB, 0.0, 0.4 * _HUB * 0.03**2)
        quat, velocity = done[f"body:{body}.quat"], done[f"body:{body}.velocity"]
        arm = rotate(quat, np.array([reach, 0, 0]))
        spin = rotate(quat * np.array([1, -1, -1, -1]), velocity[:, 3:])
        speed = velocity[:, :3] + np.cross(velocity[:, 3:], arm)
        energy += mass * GRAVITY * (done[f"body:{body}.position"] + arm)[:, 2]
        energy += (mass * (speed**2).sum(axis=1) + (inertia * spin**2).sum(axis=1)) / 2
    gain = energy - np.minimum.accumulate(energy)
    gained = float(gain.max() / energy[0])
    sunk = 0.03 - min(float(done[f"body:{b}.position"][-1, 2]) for b in hubs)
    note = f"of {energy[0]:.2f} J at most {gain.max():.2f} J come back; hubs rest {1000 * sunk:.2f} mm deep at most"
    return Finding(max(gained, sunk / 0.03 / 10), note)


_SOFT = "contacts give way a little"
_FAMILY = "Contact"
LAWS = (
    Law(_FAMILY, "momentum", "a collision keeps the momentum", 1e-6,
        "contact forces are equal and opposite; 1000 steps round momenta of twice the total at most",
        _momentum, roundings=2000),
    Law(_FAMILY, "restitution", "with steps of 0.25 ms a ball rebounds to e^2 h", 0.05,
        "of the speed; a compliant contact lasts some steps, while gravity acts", _restitution),
    Law(_FAMILY, "restitution, e = 0", "with steps of 0.25 ms a ball of e = 0 does not rebound", 0.01,
        "of the height it fell from", _no_rebound),
    Law(_FAMILY, "ramp", "a box slips where tan a > mu", 0.0, "12 ramps, none nearer than 5 % to the edge", _slip),
    Law(_FAMILY, "sliding", "from rest a box slides g (sin a - mu cos a) t^2 / 2", 0.01, _SOFT, _sliding),
    Law(_FAMILY, "stopping distance", "a box stops after v^2 / 2 mu g", 0.02, _SOFT, _stopping),
    Law(_FAMILY, "rolling", "a ball rolls down with 5/7 g sin a", 0.01, _SOFT, _rolling),
    Law(_FAMILY, "resting force", "what rests presses with m g", 1e-3, "after 1.5 s", _resting),
    Law(_FAMILY, "contact wrench", "force and moment between two bodies balance the weights", 1e-3,
        "after 1.5 s, of the weight and of its moment at 0.1 m", _wrench),
    Law(_FAMILY, "contacts by force", "bodies apart exert nothing on each other, though a list may name them", 1e-3,
        "the resting force's", _counted),
    Law(_FAMILY, "stack", "four boxes stand still [m]", 1e-3, "1 mm in 5 s, also into each other", _stack),
    Law(_FAMILY, "pile", "12 boxes in a bin come to rest, and press with their weight", 0.01,
        "1 % of the weight, 10 mm/s after 3 s, and no speed that a fall does not give", _pile),
    Law(_FAMILY, "tangle", "seven jointed stars that fall into a bin never gain energy", 0.02,
        "2 % of what they had: soft contacts give back a little; no hub rests deeper than a fifth of its radius",
        _tangle),
)  # fmt: skip
