"""How soon drift is found, and how often for nothing: ``python benchmarks/drift.py [servo|lift|real|null|loop ...]``.

servo  planted servo robots, friction +20 % after so many sound episodes: found within 30; and the same robots sound
lift   arms of the lift task, driven by an expert: servo stiffness -20 % after the baseline
real   recordings of a real servo, each under a calibration to the others: how far the friction of a robot scatters that
       did not change, beside what a rise of 20 % would move
loop   the whole loop on one virtual robot whose servos lose 15 % of their stiffness in turn 4 (not among the defaults)
null   residuals without change: mean hours to a false alarm at a small threshold, alarms at the stated rate

Servos are fitted to recordings of their own, arms' calibrations are off (``--off``); the servos' friction and damping
change from episode to episode by 5, 10 and 12 %. Residuals of the null are heavy-tailed, quantised and drawn, one
stream a robot; ranks do not care for anything else.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from bisect import insort
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binomtest

from flyball.apps.cli.progress import progress
from flyball.base.workspace import Workspace
from flyball.calibration.calibration import Calibration, HeldOut, scene_digest
from flyball.calibration.drift import BASELINE, Detector, DriftTest, p_value
from flyball.calibration.fit import knowledge, least_squares, weights
from flyball.calibration.fleet import Fitted
from flyball.calibration.problem import ReplayProblem
from flyball.calibration.residual import Residual, attempt_residuals, recording_residuals
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import STEP, TRUTH, servo_episode
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.ingest import ingest
from flyball.loop.config import DemoConfig
from flyball.loop.demo import run_demo
from flyball.tasks import Task, tasks
from flyball.tasks.world import Attempts, World

WITHIN = 30  # episodes after the change
RISE = 1.2
HOURS = 1000.0
SOUND = (30, 60, 100)  # episodes before the change
SCATTER = (0.05, 0.10, 0.12)  # of friction and damping from episode to episode; the last as in real recordings
RECORDINGS = Path(__file__).resolve().parents[2] / "shared" / "realdata" / "servo_xl330"


def bench_recordings(
    truth: dict[str, float], frictions: Sequence[float], scatter: float, rng: np.random.Generator
) -> list[Episode]:
    """Episodes of 3 s of one servo: friction times a factor each, friction and damping scattered, phases drawn."""
    rig, blanks, replays = ServoPendulum(), [], []
    for i, factor in enumerate(frictions):
        t = np.concatenate([[0.0], np.cumsum(rng.uniform(0.0045, 0.006, 570))])
        command = 1.3 * np.sin(2.2 * t + rng.uniform(0, 1)) + 0.25 * np.sin(9 * t + rng.uniform(0, 6))
        blank = servo_episode(f"episode-{i:03d}", 400, t, command, np.zeros(len(t)))
        own = dict(truth)
        own["servo.friction"] *= factor * np.exp(scatter * rng.standard_normal())
        own["servo.damping"] *= np.exp(scatter * rng.standard_normal())
        replay = rig.replay(blank)
        replay.settings.update(own)  # type: ignore[attr-defined]
        blanks.append((blank.labels["file"], t, command))
        replays.append(replay)
    problem = ReplayProblem(rig.scene, rig.compared, replays, ["servo.gain"], engine=rig.engine)
    track = problem.predict(np.array([[truth["servo.gain"]]]))[0, :, 0]
    out, at = [], 0
    for name, t, command in blanks:
        clean = track[at : at + len(t)]
        at += len(t)
        seen = np.round((clean + rng.normal(0, 0.0005, len(t))) / STEP) * STEP
        seen[0] = clean[0]
        out.append(servo_episode(name, 400, t, command, seen))
    return out


def calibrated(truth: dict[str, float], off: float, scatter: float, rng: np.random.Generator) -> Calibration:
    """The best fit to 8 recordings of the robot, from values that are off by this share each."""
    rig = ServoPendulum()
    replays = [rig.replay(e) for e in bench_recordings(truth, [1.0] * 8, scatter, rng)]
    problem = ReplayProblem(rig.scene, rig.compared, replays, list(truth), engine=rig.engine, stride=rig.stride)
    start = np.array([v * np.exp(off * rng.standard_normal()) for v in truth.values()])
    (fit,) = least_squares(problem, weights(problem, [()]), seed=0, initial=start[None], iterations=15)
    return as_calibration(tuple(truth), fit.best)


def as_calibration(paths: tuple[str, ...], best: np.ndarray) -> Calibration:
    """Fitted values as what ``recording_residuals`` takes."""
    rig, held = ServoPendulum(), HeldOut("rad", (), 0.0, 0.0, 0.0, 0.0, 0.9, 1.0, 0.0)
    scene = scene_digest(rig.scene)
    return Calibration(rig.name, scene, paths, best[None], best, (), held, "improved", (), 0, "", 0, ())


def take(test: DriftTest, found: Sequence[Residual]) -> DriftTest:
    """Feed residuals until the alarm."""
    for i, r in enumerate(found):
        if test.update(str(i), r.values.tolist(), duration_s=r.duration_s, regime=r.regime):
            break
    return test


def report(name: str, delays: Sequence[int], named: int, false: int, sound_h: float) -> dict[str, Any]:
    """Print and return the figures of one campaign; a delay of 0 is not found."""
    n, hits = len(delays), sum(0 < d <= WITHIN for d in delays)
    interval = binomtest(hits, n).proportion_ci(0.95, "wilson")
    q = np.quantile([d or np.inf for d in delays], [0.1, 0.5, 0.9, 1.0], method="inverted_cdf")
    print(
        f"{name}: {hits} of {n} found within {WITHIN} episodes ({hits / n:.0%}, 95 % Wilson {interval.low:.1%} to "
        f"{interval.high:.1%}); delay 10 % {q[0]:g}, median {q[1]:g}, 90 % {q[2]:g}, most {q[3]:g} episodes; "
        f"the parameter named is the one that moved in {named} of {sum(map(bool, delays))}; "
        f"{false} alarms in {sound_h:.1f} sound hours", flush=True,
    )  # fmt: skip
    return {
        "trials": n, "found": hits, "low": float(interval.low), "high": float(interval.high), "delays": list(delays),
        "named": named, "false": false, "sound_h": sound_h,
    }  # fmt: skip


def servo(trials: int, off: float, scatter: float, seed: int) -> list[dict[str, Any]]:
    """Planted servos, drawn as in ``benchmarks/calibration.py``; once for each number of sound episodes."""
    rig: Any = ServoPendulum()
    rng = np.random.default_rng(seed)
    delays: dict[int, list[int]] = {n: [] for n in SOUND}
    named, false, sound_s, most = dict.fromkeys(SOUND, 0), 0, 0.0, max(SOUND)
    for _ in range(trials):
        truth = {p: float(rig.scene.parameter(p).from_unit(rng.uniform(0.25, 0.75))) for p in TRUTH}
        c = calibrated(truth, off, scatter, rng)
        replays = [rig.replay(e) for e in bench_recordings(truth, [1.0] * most + [RISE] * WITHIN, scatter, rng)]
        found = recording_residuals(rig, c, replays)
        streams = found[0].streams
        false += take(DriftTest(streams, hours=HOURS), found[:most]).alarm is not None
        sound_s += sum(r.duration_s for r in found[BASELINE:most])
        for n in SOUND:
            worn = take(DriftTest(streams, hours=HOURS), found[most - n :])
            late = worn.alarm is not None and worn.alarm.episode >= n
            delays[n].append(worn.alarm.episode - n + 1 if worn.alarm and late else 0)
            named[n] += late and "friction" in worn.moves()[0].stream
    return [
        report(f"servo, friction +20 % after {n} sound episodes, scatter {scatter:.0%}", delays[n], named[n], false,
               sound_s / 3600) | {"scatter": scatter, "sound": n}
        for n in SOUND
    ]  # fmt: skip


def real(folder: Path) -> dict[str, Any]:
    """Recordings of a real servo, none twice the same motion with the same gain."""
    rig: Any = ServoPendulum()
    if not folder.is_dir():
        print(f"real: no recordings at {folder}")
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        space = Workspace(Path(scratch) / "w")
        ingest(space, [folder])
        catalogue = Catalogue(space.store)
        replays = [rig.replay(catalogue.load(r.digest)) for r in catalogue.query()]
    paths, found = rig.levels[-1], []
    problem = ReplayProblem(rig.scene, rig.compared, replays, paths, engine=rig.engine, stride=rig.stride)
    prior = knowledge(problem.parameters, rig.priors)
    (whole,) = least_squares(problem, weights(problem, [()]), prior=prior, seed=0)
    rows = weights(problem, [(r.name,) for r in replays])
    for out, fit in zip(
        replays, least_squares(problem, rows, prior=prior, seed=0, initial=whole.best[None], iterations=15), strict=True
    ):
        found += recording_residuals(rig, as_calibration(paths, fit.best), [out])
    gains = np.array([r.regime for r in found])
    x, streams = np.array([r.values for r in found]), found[0].streams
    p = rig.scene.parameter("servo.friction")
    out = {}
    for name, width in (("servo: all friction", 1.0), ("servo.friction", float(np.log(p.high / p.low)))):
        v = x[:, streams.index(name)] * width
        within = float(np.sqrt(np.mean([v[gains == g].var(ddof=1) for g in np.unique(gains)])))
        out[name] = {"all": float(v.std(ddof=1)), "within": within}
        print(f"real, {name}: scatter {within:.1%} within a gain ({len(v)} recordings, {len(np.unique(gains))} gains), "
              f"{v.std(ddof=1):.1%} over all; +20 % is {np.log(RISE) / within:.1f} deviations", flush=True)  # fmt: skip
    return out


def lift(trials: int, off: float, seed: int) -> dict[str, Any]:
    """Arms of the lift task."""
    task: Task = tasks.load("lift-fragile-v1")
    rng, path = np.random.default_rng(seed), "arm.gain_scale"
    realities = task.draw_reality(rng, trials)
    delays, named = [], 0
    for k in range(trials):
        truth = task.scene.nominal(1) | {p: v[k : k + 1] for p, v in realities.items()}
        n = BASELINE + WITHIN
        values = {p: np.repeat(v, n) for p, v in truth.items()}
        values[path] = np.where(np.arange(n) < BASELINE, 1.0, 0.8) * values[path]
        paths = tuple(p.path for p in task.scene.parameters)
        jitter = np.array([off * rng.standard_normal() * (0.2 if "bias" in p else 1.0) for p in paths])
        best = np.array(
            [float(q.from_unit(np.clip(q.to_unit(truth[q.path][0]) + off_ * 0.2, 0.0, 1.0)))
             for q, off_ in zip(task.scene.parameters, jitter, strict=True)]
        )  # fmt: skip
        logged = World(task, n).run(
            task.expert(np.repeat(task.told(truth), n, axis=0)), values, rng.integers(2**62, size=n).tolist()
        )
        test = DriftTest(("none",))
        for i in range(n):
            one = Attempts({s: x[i : i + 1] for s, x in logged.signals.items()}, logged.events[i : i + 1])
            (r,) = attempt_residuals(task, Fitted(paths, best[None], 0), one)
            test = DriftTest(r.streams, hours=HOURS) if i == 0 else test
            if test.update(str(i), r.values.tolist(), duration_s=r.duration_s, regime=r.regime):
                break
        delays.append(test.alarm.episode - BASELINE + 1 if test.alarm and test.alarm.episode >= BASELINE else 0)
        named += test.alarm is not None and test.moves()[0].stream == path
    return report("lift, stiffness -20 %", delays, named, 0, 0.0)


SOFTENS = {
    "name": "robot-01", "seed": 669354572,
    "parameters": {
        "object.mass": 0.218, "object.friction": 0.657, "object.crush_force": 4.18, "gripper.force_scale": 0.938,
        "arm.gain_scale": 1.0, "arm.delay_s": 0.02, "tracker.noise_m": 0.0024, "tracker.bias_m.x": 0.0027,
        "tracker.bias_m.y": -0.0014, "start.x": 0.42,
    },
    "changes": [{"turn": 4, "parameters": {"arm.gain_scale": 0.85}}],
}  # fmt: skip


def loop(seed: int) -> list[dict[str, Any]]:
    """What the loop says and does about it, turn by turn."""
    with tempfile.TemporaryDirectory() as scratch:
        reality = Path(scratch) / "reality.json"
        reality.write_text(json.dumps({"robots": [SOFTENS]}))
        with progress() as display:
            turns = run_demo(DemoConfig(Path(scratch) / "w", seed, turns=6, reality=reality), display)["turns"]
    for t in turns:
        did = "; ".join(a["text"] for a in t["drift"]) or "quiet"
        print(f"loop, turn {t['turn']}: {t['fleet']['successes']} of {t['fleet']['trials']} succeed; {did}", flush=True)
    return [{k: t[k] for k in ("turn", "fleet", "drift", "maintenance", "verdict")} for t in turns]


def null(small: float, runs: int, hours: float, seed: int) -> dict[str, Any]:
    """Sound robots side by side, one residual each, 5 s an episode."""
    rng, out = np.random.default_rng(seed), {}

    def residuals() -> list[float]:
        return np.round(rng.standard_t(2, runs), 2).tolist()  # heavy tails, many ties

    def alarms(threshold: float, episodes: int) -> tuple[int, float]:
        """Alarms, each robot's test beginning anew after its own, and mean episodes to the first (none: the end)."""
        count, first = 0, np.full(runs, episodes, float)
        tests, earlier = Detector(runs), [[] for _ in range(runs)]  # type: ignore[var-annotated]
        level = np.zeros(runs)
        for i in range(BASELINE + episodes):
            x, u = residuals(), rng.random(runs)
            p = np.array([p_value(v, e, d) for v, e, d in zip(x, earlier, u, strict=True)])
            for v, e in zip(x, earlier, strict=True):
                insort(e, v)
            if i >= BASELINE:
                tests.begin(i, 5.0)
                tests.bet(p, np.where(tests.starts < 0, 1.0, (i + 1 - tests.starts) / (i + 1)))
                over = tests.total >= threshold
                first = np.where(over & (first == episodes), i - BASELINE + 1, first)
                count += int(over.sum())
                tests.forget(over)
                level = np.maximum(level, tests.total)
        return count, float(first.mean())

    episodes = int(4 * small)
    count, first = alarms(5.0 * small, episodes)
    expected = runs * episodes / small
    low, high = binomtest(count, runs * episodes).proportion_ci(0.95, "wilson")
    print(
        f"null, threshold {small:g} episodes: {count} alarms in {runs} x {episodes} episodes, at most {expected:g} "
        f"promised; one per {runs * episodes / max(count, 1):.0f} episodes (95 % {1 / high:.0f} to {1 / low:.0f}); "
        f"first after {first:.0f} in the mean of {episodes} watched", flush=True,
    )  # fmt: skip
    out["small"] = {"threshold": small, "alarms": count, "run_episodes": runs * episodes, "first": first}
    each = int(hours * 720 / runs)
    count, _ = alarms(3600.0 * HOURS, each)
    print(f"null, 1 per {HOURS:g} h: {count} alarms in {runs * each / 720:.0f} h ({hours / HOURS:g} promised at most)")
    return out | {"stated": {"alarms": count, "hours": runs * each / 720}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", nargs="*", choices=["servo", "lift", "real", "null", "loop", []], default=[])
    parser.add_argument("--trials", type=int, default=100, help="servo robots; a tenth as many arms")
    parser.add_argument(
        "--off", type=float, default=0.1, help="error of the values that fits start from, and of arms' calibrations"
    )
    parser.add_argument("--hours", type=float, default=10_000.0, help="of null at the stated rate")
    parser.add_argument("--recordings", type=Path, default=RECORDINGS, help="of the real servo")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args()
    out: dict[str, Any] = {"seed": args.seed, "off": args.off}
    for what in args.what or ("real", "servo", "lift", "null"):
        begin = time.process_time()
        if what == "servo":
            out[what] = [row for s in SCATTER for row in servo(args.trials, args.off, s, args.seed)]
        elif what == "lift":
            out[what] = lift(max(1, args.trials // 10), args.off, args.seed)
        elif what == "loop":
            out[what] = loop(args.seed)
        elif what == "real":
            out[what] = real(args.recordings)
        else:
            out[what] = null(1000.0, 100, args.hours, args.seed)
        print(f"  {what}: seed {args.seed}, {time.process_time() - begin:.0f} CPU s", flush=True)
    if args.json:
        args.json.write_text(json.dumps(out, indent=1))


if __name__ == "__main__":
    main()
