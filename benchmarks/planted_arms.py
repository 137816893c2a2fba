"""Calibration of planted arms: ``python benchmarks/planted_arms.py --arms 100 --seed 0 --json arms.jsonl``.

Simulated six-joint arms with drawn truths (``arm_generator``) are recorded and calibrated from the model that their
owner has, with commands and encoders only. Counted are

coverage    identifiable truths within the calibration's 90 % band; a parameter that the calibration left out counts as
            missed. Wanted: 85 to 95 %.
declared    unidentifiable parameters that the calibration does not call identified. Wanted: 95 % or more.
missed      identifiable parameters that it calls not identified: how much is given away.

Which truths are identifiable is decided by Fisher's information of the truth itself (``arm_generator.information``),
not by the calibration's answer: identifiable when a cautious reading of the recordings allows a 90 % band of at most a
sixth of the range before, unidentifiable when even the best reading allows none below half of it; what lies between is
counted in neither. One arm in four is asked for damping in the drive besides damping in the joint, which no recording
tells apart; one joint in four is braked. Reality is simulated at a quarter of the owner's time step (``--finer``).
Every arm is one line of the file; a run that was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import arm_generator as arms
import numpy as np

from flyball.calibration.calibration import Calibration
from flyball.calibration.models import calibrate_model
from flyball.calibration.models.calibrate import read_model, rig_of
from flyball.scenes import Parameter

VERSION = 4


def run_arm(number: int, seed: int, finer: int = 4) -> dict[str, Any]:
    """Draw, record and calibrate one arm; a row of the file."""
    arm = arms.draw_arm(number, seed, finer)
    episodes = arms.record(arm)
    asked = {"parameters": arm.parameters} if arm.parameters else {}
    scene = rig_of(read_model(arm.mjcf), episodes, **asked).scene
    known = [p for p in scene.parameters if p.path in arm.truth]
    if missing := set(arm.truth) - {p.path for p in known}:
        raise SystemExit(f"the calibration has no parameters {sorted(missing)}")
    width = arms.information(arm, known)
    begin, cpu = time.perf_counter(), time.process_time()
    found = calibrate_model(arm.mjcf, episodes, seed=seed, **asked)
    cost = {"seconds": time.perf_counter() - begin, "cpu_s": time.process_time() - cpu, "steps": found.steps}
    rows = {p.path: _row(p, arm.truth[p.path], width[p.path], found) for p in known}
    h = found.held_out
    return {
        "version": VERSION, "arm": number, "seed": seed, "finer": finer, "engine": found.engine,
        "verdict": found.verdict, "motion": dict(arm.motion), "pairs": arm.pairs, "sample_hz": arm.sample_hz,
        "encoder_step": arm.step, **cost, "before": h.before, "after": h.after, "coverage": h.coverage,
        "parameters": rows,
    }  # fmt: skip


def _row(p: Parameter, truth: float, width: tuple[float, float], found: Calibration) -> dict[str, Any]:
    """What became of one parameter."""
    out: dict[str, Any] = {"truth": truth, "width": width[0], "best_width": width[1], "rule": arms.rule(*width)}
    out["fitted"] = p.path in found.paths
    if not out["fitted"]:
        return out | {"inside": False, "identified": False}
    k = found.paths.index(p.path)
    row, best = found.parameters[k], float(found.best[k])
    low, high, at, t = (float(p.to_unit(x)) for x in (row.low, row.high, best, truth))
    inside = low - 1e-9 <= t <= high + 1e-9
    return out | {"inside": inside, "identified": row.identified, "note": row.note, "band": high - low,
                  "error": at - t, "best": best, "low": row.low, "high": row.high}  # fmt: skip


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of a file, over all arms and by kind of parameter."""
    every = [(path.partition(".")[2], r) for row in rows for path, r in row["parameters"].items()]
    out: dict[str, Any] = {"arms": len(rows), **_shares([r for _, r in every])}
    out["kinds"] = {k: _shares([r for kind, r in every if kind == k]) for k in dict.fromkeys(k for k, _ in every)}
    out["verdicts"] = {v: sum(r["verdict"] == v for r in rows) for v in sorted({r["verdict"] for r in rows})}
    out |= {k: float(np.mean([r[k] for r in rows])) for k in ("cpu_s", "before", "after", "coverage")}
    return out


def _shares(rows: list[dict[str, Any]]) -> dict[str, Any]:
    yes = [r for r in rows if r["rule"] == "identifiable"]
    no = [r for r in rows if r["rule"] == "unidentifiable"]
    fitted = [r for r in yes if r["fitted"]]
    return {
        "identifiable": len(yes), "inside": sum(r["inside"] for r in yes),
        "left_out": len(yes) - len(fitted), "missed": sum(not r["identified"] for r in yes),
        "unidentifiable": len(no), "declared": sum(not r["identified"] for r in no),
        "band": float(np.median([r["band"] for r in fitted])) if fitted else float("nan"),
        "error": float(np.median([abs(r["error"]) for r in fitted])) if fitted else float("nan"),
        "allowed": float(np.median([r["width"] for r in yes])) if yes else float("nan"),
    }  # fmt: skip


def show(s: dict[str, Any]) -> None:
    """Print a summary."""
    print(f"{s['arms']} arms, {s['cpu_s']:.0f} CPU s each; held-out error {s['before']:.4f} -> {s['after']:.4f} rad, "
          f"{s['coverage']:.0%} of held-out samples within their bands; {s['verdicts']}")  # fmt: skip
    print(f"  {'':10}{'identifiable':>14}{'in 90 % band':>14}{'not called so':>15}{'left out':>10}"
          f"{'unidentifiable':>16}{'declared':>10}{'band':>8}{'error':>8}{'allowed':>9}")  # fmt: skip
    for name, k in {"all": s, **s["kinds"]}.items():
        inside = f"{k['inside'] / k['identifiable']:.0%}" if k["identifiable"] else "-"
        declared = f"{k['declared'] / k['unidentifiable']:.0%}" if k["unidentifiable"] else "-"
        counts = f"{k['identifiable']:14}{inside:>14}{k['missed']:15}{k['left_out']:10}"
        print(f"  {name:10}{counts}{k['unidentifiable']:16}{declared:>10}"
              f"{k['band']:8.3f}{k['error']:8.3f}{k['allowed']:9.3f}")  # fmt: skip
    print("  band, error, allowed: medians over identifiable ones, as shares of the range before")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arms", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--finer", type=int, default=4, help="steps of reality per step of the owner's model (default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="one line per arm; arms that are in it are not run again")
    args = parser.parse_args()
    done = [json.loads(x) for x in args.json.read_text().splitlines()] if args.json and args.json.exists() else []
    rows = {r["arm"]: r for r in done if (r["version"], r["seed"], r["finer"]) == (VERSION, args.seed, args.finer)}
    wanted = range(args.first, args.first + args.arms)
    for number in wanted:
        if number in rows:
            continue
        rows[number] = row = run_arm(number, args.seed, args.finer)
        s = _shares(list(row["parameters"].values()))
        inside, declared = (
            f"{s[a]} of {s[b]}" for a, b in (("inside", "identifiable"), ("declared", "unidentifiable"))
        )
        print(f"arm {number}: {row['verdict']}, {inside} identifiable truths in their bands, {declared} unidentifiable "
              f"ones declared, {row['cpu_s']:.0f} CPU s", flush=True)  # fmt: skip
        if args.json:
            with args.json.open("a") as f:
                f.write(json.dumps(row) + "\n")
    show(summary([rows[n] for n in wanted]))


if __name__ == "__main__":
    main()
