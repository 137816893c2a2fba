"""Planted truths: clean synthetic recordings, and defects to plant into any recording.

In: a seed; or a recording, a kind of defect and how bad it is to be. Out: a recording with exactly that defect. Tests
and the benchmark ask of the checks that they find what was planted and nothing else. Nothing here is used on real data
but to spoil copies of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flyball.base import SignalSpec, Timed
from flyball.episodes.curation.check import Pictures
from flyball.episodes.curation.glance import Glance, glance
from flyball.episodes.curation.motion import activity, is_command, noise, numbers, pairs, period_ns, states
from flyball.episodes.curation.values import limits
from flyball.episodes.episode import Episode, Frames

Array = NDArray[np.float64]
Images = NDArray[Any]
START_NS = 1_790_000_000_000_000_000


@dataclass(frozen=True)
class Specimen:
    """An episode with its pictures at hand.

    Attributes:
      episode: its cameras index no blob.
      images: camera -> pictures, (n, H, W, C), as decoded.
    """

    episode: Episode
    images: Mapping[str, Images] = field(default_factory=dict)

    @property
    def pictures(self) -> Pictures:
        """What checks look at."""
        seen: dict[str, Glance] = {}

        def look(name: str) -> Glance:
            if name not in seen:
                seen[name] = glance(self.images[name])
            return seen[name]

        return look


# clean recordings ----------------------------------------------------------------------------------------------


def arm(
    seed: int,
    *,
    task: int = 0,
    packed: bool = False,
    camera: bool = True,
    wander: float = 0.05,
    slow: float = 1.0,
    poses: int = 0,
) -> Specimen:
    """A six-joint arm with a gripper that does what a position-controlled arm does.

    It moves between poses of its task by minimum-jerk paths and pauses there; servos follow late and sag under load;
    encoders have noise and resolution; stamps have jitter; a camera sees the arm from the side, with noise.

    Args:
      seed: of this attempt.
      task: which task; attempts of one task differ by ``wander``.
      packed: one vector ``observation.state`` and one ``action``, float32 without units, as LeRobot records; else
        signals of their own, with units and limits.
      camera: with pictures of 48 x 64 pixels, 15 per second.
      wander: standard deviation of poses between attempts [rad].
      slow: how many times as long everything takes; the way is the same.
      poses: how many it goes to; 0: four to six, by the task, which takes 4 to 9 s.
    """
    body, own = np.random.default_rng([11, task]), np.random.default_rng([12, task, seed])
    hz, fps = (30.0, 15.0) if packed else (50.0, 15.0)
    n_poses = poses or int(body.integers(4, 7))
    base = body.uniform(-0.9, 0.9, (n_poses, 6)) * [1, 0.8, 0.8, 0.6, 0.6, 1]
    stops = base + own.normal(0, wander, base.shape)
    speed = body.uniform(0.7, 1.3) * own.uniform(0.85, 1.2)
    t_knots, q_knots, shut = [0.0], [stops[0]], [0.0]
    for k in range(1, n_poses):
        move = max(0.6, float(np.abs(stops[k] - stops[k - 1]).max()) / speed)
        pause = own.uniform(0.1, 0.7)
        t_knots += [t_knots[-1] + slow * move, t_knots[-1] + slow * (move + pause)]
        q_knots += [stops[k], stops[k]]
        shut += [shut[-1], 1.0 if k % 2 else 0.0]
    n = int((t_knots[-1] + 0.4) * hz)  # somebody stops the recording a moment after
    t = np.arange(n) / hz
    sent = _minimum_jerk(t, np.array(t_knots), np.array(q_knots))
    grip = np.interp(t, t_knots, shut) * 0.06
    lag = body.uniform(0.05, 0.12)
    done = _first_order(np.column_stack([sent, grip]), 1 / (hz * lag))
    load = own.uniform(0.8, 1.2) * np.array([0, 0.012, 0.009, 0.004, 0.001, 0.0])
    q = done[:, :6] - load * np.cos(np.cumsum(done[:, :6], axis=1)) + own.normal(0, 6e-4, (n, 6))
    q = np.round(q / 0.0015) * 0.0015
    width = np.round((done[:, 6:] + own.normal(0, 1e-4, (n, 1))) / 1e-4) * 1e-4
    force = own.normal(0, 0.15, (n, 1)) + 8.0 * np.clip(done[:, 6:] - 0.045, 0, 1) / 0.015
    start = START_NS + seed * 3_600_000_000_000
    stamps = start + np.round(t * 1e9 + own.normal(0, 0.04e9 / hz, n)).astype(np.int64)
    stamps = np.maximum.accumulate(stamps)
    late = stamps + own.integers(0, int(0.1e9 / hz), n)
    if packed:
        signals = {
            "observation.state": _timed("observation.state", stamps, np.hstack([q, width]).astype(np.float32)),
            "action": _timed("action", stamps, np.column_stack([sent, grip]).astype(np.float32)),
        }
    else:
        low, high = (-1.6,) * 6, (1.6,) * 6
        velocity = np.gradient(done[:, :6], axis=0) * hz + own.normal(0, 0.01, (n, 6))
        signals = {
            "joint.position": _timed("joint.position", stamps, q, "rad", hz),
            "joint.velocity": _timed("joint.velocity", stamps, velocity, "rad/s", hz),
            "gripper.width": _timed("gripper.width", late, width, "m", hz),
            "gripper.force": _timed("gripper.force", late, force, "N", hz),
            "command.joint": _timed("command.joint", stamps, sent, "rad", hz, low, high),
            "command.width": _timed("command.width", stamps, grip[:, None], "m", hz, (0.0,), (0.08,)),
        }
    out = Specimen(
        Episode(
            "arm-packed" if packed else "arm-6", robot=f"r{seed % 4}", task=f"reach-{task}", outcome="success",
            origin="teleoperation", seed=seed, signals=signals,
        )
    )  # fmt: skip
    return with_camera(out, "camera.side", q, stamps, fps, own) if camera else out


def with_camera(x: Specimen, name: str, angles: Array, t_ns: NDArray[np.int64], fps: float, rng: Any) -> Specimen:
    """Add a camera that sees an arm of these joint angles, (n, j) [rad], from the side, with noise and 40 ms delay."""
    t = np.arange(int(t_ns[0]), int(t_ns[-1]), round(1e9 / fps))
    jitter = rng.normal(0, 0.02e9 / fps, len(t)).astype(np.int64)
    seen = np.stack([np.interp(t - 40_000_000, t_ns, a) for a in angles.T], axis=1)
    clean = draw(seen, rng)
    images = np.clip(clean + rng.normal(0, 2.0, clean.shape), 0, 255).astype(np.uint8)[..., None]
    return _with_images(x, name, np.maximum.accumulate(t + jitter), images)


def draw(angles: Array, rng: Any, height: int = 48, width: int = 64) -> Array:
    """A chain of links over a wall with a gradient, (n, j) -> (n, height, width)."""
    rows, columns = np.mgrid[0:height, 0:width].astype(float)
    wall = 90 + 40 * columns / width + 20 * rows / height + rng.normal(0, 4, (height, width))
    turn = np.cumsum(angles[:, : min(5, angles.shape[1])], axis=1)
    length = 0.8 * height / turn.shape[1]
    ends = np.cumsum(np.stack([np.sin(turn), -np.cos(turn)], axis=-1) * length, axis=1)
    base = np.array([width / 2, height * 0.95])
    joints = base + np.concatenate([np.zeros((len(turn), 1, 2)), ends], axis=1)
    out = np.repeat(wall[None], len(turn), axis=0)
    for a, b in zip(np.moveaxis(joints[:, :-1], 1, 0), np.moveaxis(joints[:, 1:], 1, 0), strict=True):
        along = b - a
        px, py = columns[None] - a[:, 0, None, None], rows[None] - a[:, 1, None, None]
        s = (px * along[:, 0, None, None] + py * along[:, 1, None, None]) / length**2
        s = np.clip(s, 0, 1)
        far = np.hypot(px - s * along[:, 0, None, None], py - s * along[:, 1, None, None])
        out = np.where(far < 2.2, 30.0, out)
    return np.asarray(out)


def _minimum_jerk(t: Array, knots: Array, poses: Array) -> Array:
    i = np.clip(np.searchsorted(knots, t, side="right") - 1, 0, len(knots) - 2)
    s = np.clip((t - knots[i]) / (knots[i + 1] - knots[i]), 0, 1)[:, None]
    return np.asarray(poses[i] + (poses[i + 1] - poses[i]) * (10 * s**3 - 15 * s**4 + 6 * s**5))


def _first_order(x: Array, share: float) -> Array:
    out = np.empty_like(x)
    here = x[0]
    for i, want in enumerate(x):
        here = here + min(1.0, share) * (want - here)
        out[i] = here
    return out


def _timed(
    name: str, t: Any, x: Any, unit: str = "", hz: float = 0.0, low: Any = None, high: Any = None, frame: str = ""
) -> Timed:
    return Timed(SignalSpec(name, x.shape[1:], str(x.dtype), unit, hz, frame, low, high), t, x)


def _with_images(x: Specimen, name: str, t: NDArray[np.int64], images: Images) -> Specimen:
    n, h, w = images.shape[:3]
    at = np.arange(n + 1, dtype=np.int64) * (h * w)
    f = Frames(name, "raw:mono8", h, w, "", t, at[:-1], at[1:], np.ones(n, bool))
    return Specimen(replace(x.episode, frames={**x.episode.frames, name: f}), {**x.images, name: images})


# defects -------------------------------------------------------------------------------------------------------

Plant = Callable[[Specimen, float, np.random.Generator], "Specimen | None"]


@dataclass(frozen=True)
class Defect:
    """A way in which recordings are spoilt.

    Attributes:
      kind: its name.
      check: the check that is to find it.
      unit: what a severity counts.
      severities: how bad, from hard to find to obvious.
      plant: (clean, severity, rng) -> spoilt; None where the recording has nothing that could be spoilt this way.
    """

    kind: str
    check: str
    unit: str
    severities: tuple[float, ...]
    plant: Plant


def _signal(x: Specimen, name: str, **changes: Any) -> Specimen:
    s = replace(x.episode.signals[name], **changes)
    return replace(x, episode=replace(x.episode, signals={**x.episode.signals, name: s}))


def _some(rng: np.random.Generator, names: Any) -> str | None:
    names = sorted(names)
    return str(rng.choice(names)) if names else None


def _moving_element(x: Specimen, rng: np.random.Generator, least: float = 30.0) -> tuple[str, int] | None:
    """A measured element that moves well above its noise."""
    found = []
    for name, s in states(x.episode).items():
        v = numbers(s)
        wide = np.ptp(v, axis=0) > least * np.maximum(noise(v), 1e-12)
        found += [(name, int(j)) for j in np.flatnonzero(wide)]
    return found[int(rng.integers(len(found)))] if found else None


def _put(x: Specimen, name: str, column: int, v: Array) -> Specimen:
    s = x.episode.signals[name]
    values = numbers(s)
    values[:, column] = v
    return _signal(x, name, values=values.reshape(np.shape(s.values)).astype(np.asarray(s.values).dtype))


def _missing(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _some(rng, states(x.episode))
    if name is None or len(x.episode.signals) < 2:
        return None
    return replace(x, episode=replace(x.episode, signals={n: s for n, s in x.episode.signals.items() if n != name}))


def _element_lost(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _some(rng, [n for n, s in x.episode.signals.items() if len(s.spec.shape) == 1 and s.spec.size > 1])
    if name is None:
        return None
    s = x.episode.signals[name]
    return _signal(
        x, name, spec=replace(s.spec, shape=(s.spec.size - 1,), low=None, high=None), values=s.values[:, :-1]
    )


def _other_unit(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _some(rng, [n for n, s in states(x.episode).items() if np.abs(numbers(s)).max() > 1e-6])
    return None if name is None else _signal(x, name, values=x.episode.signals[name].values * severity)


def _backwards(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _some(rng, [n for n, s in x.episode.signals.items() if len(s.t_ns) > 40])
    if name is None:
        return None
    t = x.episode.signals[name].t_ns.copy()
    at = rng.choice(len(t) - 1, int(severity), replace=False)
    t[at], t[at + 1] = t[at + 1], t[at].copy()
    return _signal(x, name, t_ns=t)


def _clock_jump(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    cut = np.median([np.median(s.t_ns) for s in x.episode.signals.values()])
    out = x
    for name, s in x.episode.signals.items():
        out = _signal(out, name, t_ns=np.where(s.t_ns > cut, s.t_ns + int(severity * 1e9), s.t_ns))
    frames = {n: replace(f, t_ns=np.where(f.t_ns > cut, f.t_ns + int(severity * 1e9), f.t_ns))
              for n, f in x.episode.frames.items()}  # fmt: skip
    return replace(out, episode=replace(out.episode, frames=frames))


def _other_clock(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    if len(x.episode.signals) + len(x.episode.frames) < 3:
        return None
    name = _some(rng, x.episode.signals)
    return None if name is None else _signal(x, name, t_ns=x.episode.signals[name].t_ns + int(severity * 1e9))


def _gap(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _some(rng, [n for n, s in x.episode.signals.items() if len(s.t_ns) > 40])
    if name is None:
        return None
    s = x.episode.signals[name]
    margin = 3 * period_ns(s.t_ns)
    first, last = float(s.t_ns[0]) + margin, float(s.t_ns[-1]) - severity * 1e9 - margin
    if last <= first:
        return None
    begin = rng.uniform(first, last)
    keep = (s.t_ns < begin) | (s.t_ns > begin + severity * 1e9)
    return _signal(x, name, t_ns=s.t_ns[keep], values=s.values[keep])


def _losses(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _some(rng, [n for n, s in x.episode.signals.items() if len(s.t_ns) > 40])
    if name is None:
        return None
    s = x.episode.signals[name]
    keep = rng.random(len(s.t_ns)) > severity
    keep[[0, -1]] = True
    return _signal(x, name, t_ns=s.t_ns[keep], values=s.values[keep])


def _twice(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _some(rng, [n for n, s in x.episode.signals.items() if len(s.t_ns) > 40])
    if name is None:
        return None
    s = x.episode.signals[name]
    again = np.sort(np.concatenate([np.arange(len(s.t_ns)), np.flatnonzero(rng.random(len(s.t_ns)) < severity)]))
    return _signal(x, name, t_ns=s.t_ns[again], values=s.values[again])


def _held(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    """A sensor that measures more slowly than it is asked: ``severity`` of the samples repeat the one before."""
    found = _moving_element(x, rng)
    if found is None:
        return None
    s = x.episode.signals[found[0]]
    fresh = rng.random(len(s.t_ns)) >= severity
    fresh[0] = True
    return _signal(x, found[0], values=s.values[np.maximum.accumulate(np.where(fresh, np.arange(len(fresh)), 0))])


def _not_finite(value: float) -> Plant:
    def plant(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
        name = _some(rng, [n for n, s in x.episode.signals.items() if np.asarray(s.values).dtype.kind == "f"])
        if name is None:
            return None
        values = x.episode.signals[name].values.copy()
        values.reshape(-1)[rng.choice(values.size, min(int(severity), values.size), replace=False)] = value
        return _signal(x, name, values=values)

    return plant


def _constant(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    found = _moving_element(x, rng)
    if found is None:
        return None
    name, j = found
    return _put(x, name, j, np.full(len(x.episode.signals[name].t_ns), numbers(x.episode.signals[name])[0, j]))


def _followers(x: Specimen, units: tuple[str, ...] | None = None) -> list[tuple[str, int]]:
    """Measured elements that follow a command which moves."""
    return [
        (p.state, p.element)
        for p in pairs(x.episode)
        if np.ptp(p.sent) > 60 * float(noise(p.measured[:, None])[0])
        and len(np.unique(p.sent)) > 3
        and (units is None or p.unit in units)
    ]


def _dead(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    """From some moment on, for a share of the episode, a joint stays where it was; its encoder still has noise."""
    found = _followers(x)
    if not found:
        return None
    name, j = found[int(rng.integers(len(found)))]
    v = numbers(x.episode.signals[name])[:, j]
    n = round(severity * len(v))
    level = float(noise(v[:, None])[0])
    for _ in range(20):  # where it moves, or nobody could tell
        begin = int(rng.integers(0, len(v) - n + 1))
        if np.ptp(v[begin : begin + n]) > 0.3 * np.ptp(v):
            break
    else:
        return None
    out = v.copy()
    out[begin : begin + n] = v[begin] + np.round(rng.normal(0, 1, n)) * level
    return _put(x, name, j, out)


def _clipped(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    """Cut off at one end, by ``severity`` of its range."""
    found = _moving_element(x, rng, 60.0)
    if found is None:
        return None
    name, j = found
    v = numbers(x.episode.signals[name])[:, j]
    cut = severity * np.ptp(v)
    return _put(x, name, j, np.minimum(v, v.max() - cut) if rng.random() < 0.5 else np.maximum(v, v.min() + cut))


def _saturated(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    found = []
    for name, s in x.episode.signals.items():
        low, high = limits(s) if s.spec.low is not None and s.spec.high is not None else (np.zeros(0), np.zeros(0))
        v = numbers(s)
        found += [(name, j, low[j], high[j]) for j in range(len(low)) if np.ptp(v[:, j]) > 0]
    if not found:
        return None
    name, j, low_j, high_j = found[int(rng.integers(len(found)))]
    v = numbers(x.episode.signals[name])[:, j].copy()
    n = round(severity * len(v))
    begin = int(rng.integers(0, len(v) - n + 1))
    v[begin : begin + n] = high_j if rng.random() < 0.5 else low_j
    return _put(x, name, j, v)


def _offset(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    found = _followers(x, ("rad", ""))
    found = [(n, j) for n, j in found if np.ptp(numbers(x.episode.signals[n])[:, j]) > 0.2]  # an angle, by its range
    if not found:
        return None
    name, j = found[int(rng.integers(len(found)))]
    v = numbers(x.episode.signals[name])[:, j]
    return _put(x, name, j, v + np.deg2rad(severity) * rng.choice([-1, 1]))


def _idle(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    """Everything stays for ``severity`` seconds, with each signal's noise; pictures repeat with fresh noise."""
    begin = max(int(s.t_ns[0]) for s in x.episode.signals.values())
    end = min(int(s.t_ns[-1]) for s in x.episode.signals.values())
    at = int(rng.uniform(begin + 0.1 * (end - begin), begin + 0.9 * (end - begin)))
    pause = int(severity * 1e9)
    out = x
    for name, s in x.episode.signals.items():
        i = int(np.searchsorted(s.t_ns, at, side="right"))
        period = period_ns(s.t_ns)
        n = max(1, int(pause / period))
        v = numbers(s)
        still = np.zeros_like(v[i - 1]) if "/s" in s.spec.unit else v[i - 1]
        moving_noise = np.zeros_like(still) if is_command(name) else noise(v)
        hold = still + moving_noise * rng.normal(0, 1, (n, v.shape[1]))
        held = hold.reshape(n, *s.spec.shape).astype(np.asarray(s.values).dtype)
        t = np.concatenate(
            [s.t_ns[:i], s.t_ns[i - 1] + (np.arange(1, n + 1) * period).astype(np.int64), s.t_ns[i:] + pause]
        )
        out = _signal(
            out, name, t_ns=np.maximum.accumulate(t), values=np.concatenate([s.values[:i], held, s.values[i:]])
        )
    for name, f in x.episode.frames.items():
        i = int(np.searchsorted(f.t_ns, at, side="right"))
        n = max(1, int(pause / period_ns(f.t_ns)))
        one = x.images[name][max(i - 1, 0)].astype(float)
        images = np.clip(one + rng.normal(0, 2, (n, *one.shape)), 0, 255).astype(np.uint8)
        steps = (np.arange(1, n + 1) * period_ns(f.t_ns)).astype(np.int64)
        t = np.concatenate([f.t_ns[:i], f.t_ns[max(i - 1, 0)] + steps, f.t_ns[i:] + pause])
        out = _with_images(
            out, name, np.maximum.accumulate(t), np.concatenate([x.images[name][:i], images, x.images[name][i:]])
        )
    return out


def copied(x: Specimen, how: float, rng: np.random.Generator) -> Specimen:
    """A copy of an episode under another name.

    Args:
      x: the original.
      how: 0 as it is; 1 without its first and last fifth; 2 with every number off by its noise; 3 taking a quarter
        longer at the same rate.
      rng: draws the noise.
    """
    out = replace(x, episode=replace(x.episode, robot="another", seed=x.episode.seed + 1_000_000))
    for name, s in x.episode.signals.items():
        t, v = s.t_ns, np.asarray(s.values)
        if how == 1:
            inside = (t >= np.quantile(t, 0.2)) & (t <= np.quantile(t, 0.8))
            out = _signal(out, name, t_ns=t[inside], values=v[inside])
        elif how == 2 and v.dtype.kind == "f":
            level = noise(numbers(s)).reshape(s.spec.shape)
            out = _signal(out, name, values=(v + level * rng.normal(0, 1, v.shape)).astype(v.dtype))
        elif how == 3 and v.dtype.kind == "f" and len(t) > 8:
            new = np.arange(t[0], t[0] + 1.25 * (t[-1] - t[0]), period_ns(t))
            old = t[0] + 1.25 * (t - t[0]).astype(float)
            w = np.stack([np.interp(new, old, c) for c in numbers(s).T], axis=1)
            out = _signal(
                out, name, t_ns=new.astype(np.int64), values=w.reshape(len(new), *s.spec.shape).astype(v.dtype)
            )
    return out


def _camera(x: Specimen, rng: np.random.Generator) -> str | None:
    return _some(rng, x.images)


def _images(x: Specimen, name: str, images: Images) -> Specimen:
    return replace(x, images={**x.images, name: images})


def _black(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _camera(x, rng)
    if name is None:
        return None
    images = x.images[name].copy()
    at = rng.choice(len(images), min(int(severity), len(images)), replace=False)
    images[at] = np.clip(rng.normal(1.0, 1.0, images[at].shape), 0, 255).astype(np.uint8)
    return _images(x, name, images)


def _frozen(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    """The camera repeats a picture for ``severity`` seconds, beginning while something moves."""
    name, seen = _camera(x, rng), activity(x.episode, 0.5)
    if name is None or seen is None:
        return None
    t = x.episode.frames[name].t_ns
    busy = np.flatnonzero(np.interp(t, seen[0], seen[1]) > 0.5)
    busy = busy[t[busy] < t[-1] - severity * 1e9]
    if not len(busy):
        return None
    i = int(rng.choice(busy))
    j = int(np.searchsorted(t, t[i] + severity * 1e9, side="right"))
    images = x.images[name].copy()
    images[i:j] = images[i]
    return _images(x, name, images)


def _repeated(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    """Every so-many-th picture repeats the one before, as after converting the rate."""
    name = _camera(x, rng)
    if name is None:
        return None
    i = np.arange(len(x.images[name]))
    return _images(x, name, x.images[name][np.where(i % int(severity) == 1, i - 1, i)])


def _late_camera(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _camera(x, rng)
    if name is None:
        return None
    f = x.episode.frames[name]
    moved = replace(f, t_ns=f.t_ns + int(severity * 1e9) * int(rng.choice([-1, 1])))
    return replace(x, episode=replace(x.episode, frames={**x.episode.frames, name: moved}))


def _camera_rate(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    name = _camera(x, rng)
    if name is None:
        return None
    f = x.episode.frames[name]
    t = f.t_ns[0] + np.round((f.t_ns - f.t_ns[0]) * (1 + severity * rng.choice([-1, 1]))).astype(np.int64)
    return replace(x, episode=replace(x.episode, frames={**x.episode.frames, name: replace(f, t_ns=t)}))


def _shifted_content(x: Specimen, severity: float, rng: np.random.Generator) -> Specimen | None:
    """Pictures of another moment under unchanged stamps; both ends are cut, so that nothing else is wrong."""
    name = _camera(x, rng)
    if name is None:
        return None
    f = x.episode.frames[name]
    k = round(severity * 1e9 / period_ns(f.t_ns))
    n = len(f.t_ns) - k
    if n < 24:
        return None
    late = bool(rng.random() < 0.5)
    t, images = (f.t_ns[k:], x.images[name][:n]) if late else (f.t_ns[:n], x.images[name][k:])
    out = _with_images(x, name, t, images)
    for other, s in x.episode.signals.items():
        keep = (s.t_ns >= t[0]) & (s.t_ns <= t[-1])
        out = _signal(out, other, t_ns=s.t_ns[keep], values=s.values[keep])
    for other, g in x.episode.frames.items():
        if other != name:
            inside = (g.t_ns >= t[0]) & (g.t_ns <= t[-1])
            out = _with_images(out, other, g.t_ns[inside], x.images[other][inside])
    return out


DEFECTS = (
    Defect("signal missing", "schema", "", (1,), _missing),
    Defect("element missing", "schema", "", (1,), _element_lost),
    Defect("another unit", "schema", "times", (0.1, 57.3, 1000), _other_unit),
    Defect("time runs backwards", "time", "stamps", (1, 5, 20), _backwards),
    Defect("clock set midway", "time", "s", (2, 60, 3e8), _clock_jump),
    Defect("another clock", "time", "s", (1, 3600, 3e8), _other_clock),
    Defect("gap", "drops", "s", (0.1, 0.3, 1.0), _gap),
    Defect("single losses", "drops", "share", (0.02, 0.05, 0.2), _losses),
    Defect("recorded twice", "duplicates", "share", (0.005, 0.02, 0.1), _twice),
    Defect("stale samples", "duplicates", "share", (0.1, 0.25, 0.5), _held),
    Defect("NaN", "finite", "numbers", (1, 10), _not_finite(np.nan)),
    Defect("infinite", "finite", "numbers", (1, 10), _not_finite(np.inf)),
    Defect("zero variance", "constant", "", (1,), _constant),
    Defect("dead joint", "dead", "share", (0.25, 0.5, 1.0), _dead),
    Defect("clipped", "clipped", "range", (0.05, 0.15, 0.4), _clipped),
    Defect("saturated", "saturation", "share", (0.15, 0.3, 0.6), _saturated),
    Defect("offset", "offset", "deg", (1, 2, 5, 10, 17), _offset),
    Defect("idle", "idle", "s", (2, 4, 8), _idle),
    Defect("copy", "copies", "how", (0, 1, 2, 3), copied),
    Defect("black pictures", "black", "pictures", (3, 10), _black),
    Defect("frozen pictures", "frozen", "s", (0.3, 0.6, 1.5), _frozen),
    Defect("repeated pictures", "frozen", "every", (4, 2), _repeated),
    Defect("camera late", "drift", "s", (0.1, 0.4, 1.0), _late_camera),
    Defect("camera too fast", "drift", "share", (0.01, 0.05, 0.15), _camera_rate),
    Defect("pictures of another moment", "sync", "s", (0.15, 0.4, 0.8), _shifted_content),
)
"""Every kind. A copy stands beside its original; the others take the place of the clean recording."""
