"""A demo document of plausible shape, drawn from a seed: for tests of the page, and to look at it without a run.

In: a seed. Out: a document as ``flyball demo --json`` prints it; its figures mean nothing.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flyball.evaluation.statistics import wilson

_RANGES = {
    "object.mass": ("kg", 0.2, 0.6),
    "object.friction": ("", 0.3, 0.8),
    "object.crush_force": ("N", 4.0, 40.0),
    "gripper.force_scale": ("", 0.7, 1.3),
    "arm.gain_scale": ("", 0.6, 1.2),
    "arm.delay_s": ("s", 0.0, 0.06),
    "tracker.bias_y_m": ("m", -0.004, 0.004),
}
_STAGES = {"attempt": 14, "ingest": 1.2, "explain": 0.4, "calibrate": 38, "reproduce": 6, "generate": 17, "train": 31,
           "evaluate": 12, "release": 0.3, "rollout": 9, "overhead": 0.8}  # fmt: skip


def sample_document(seed: int = 3, turns: int = 4, robots: int = 6) -> dict[str, Any]:
    """A document as ``flyball demo --json`` prints it."""
    rng = np.random.default_rng(seed)
    names = [f"robot-{i + 1:02d}" for i in range(robots)]
    rows, rollout, clock = [], [], 0.0
    for turn in range(turns):
        rate = (0.44, 0.96, 0.74, 0.97)[turn % 4]
        n = 20 * robots
        s = int(rng.binomial(n, rate))
        band = wilson(s, n)
        split = rng.multinomial(n - s, [0.5, 0.2, 0.3])
        seconds = {k: float(v * rng.uniform(0.8, 1.2)) for k, v in _STAGES.items()}
        clock += sum(seconds.values())
        verdict = ("promoted", "rolled back", "promoted", "promoted")[turn % 4]
        canary = [names[turn % robots]]
        rollout.append({"turn": turn, "t": clock - 10, "event": "signed", "robots": []})
        rollout.append({"turn": turn, "t": clock - 8, "event": "canary", "robots": canary})
        done = verdict == "promoted"
        rollout.append({"turn": turn, "t": clock - 2, "event": verdict, "robots": names if done else canary})
        rows.append(
            {
                "turn": turn,
                "fleet": {"trials": n, "successes": s, "success": s / n, "low": band.low, "high": band.high},
                "gap": float((0.021, 0.006, 0.011, 0.005)[turn % 4]),
                "released": done,
                "verdict": verdict,
                "failures": dict(zip(("slipped", "crushed", "missed"), map(int, split), strict=True)),
                "reproduced": {"n": int(0.86 * (n - s)), "of": n - s},
                "seconds": seconds,
                "changed": [names[1 % robots]] if turn == 2 else [],
                "again": {"robots": [names[-1]], "released": True, "verdict": "promoted"} if turn == 3 else None,
                "trained": turn < 2,
            }
        )
    parameters = []
    for robot in names:
        for path, (unit, low, high) in _RANGES.items():
            truth = rng.uniform(low, high)
            identified = bool(rng.random() < 0.8)
            width = (high - low) * (rng.uniform(0.02, 0.12) if identified else rng.uniform(0.3, 0.45))
            mean = float(np.clip(truth + 0.6 * width * rng.standard_normal(), low, high))
            parameters.append(
                {
                    "robot": robot,
                    "path": path,
                    "unit": unit,
                    "range": [low, high],
                    "mean": mean,
                    "low": max(low, mean - width),
                    "high": min(high, mean + width),
                    "identified": identified,
                    "truth": float(truth),
                }
            )
    return {
        "control": "loop",
        "task": "lift-fragile-v1",
        "seed": seed,
        "seconds": clock,
        "steps": {"simulated": 48_200_000, "gradient": 9_000},
        "robots": names,
        "turns": rows,
        "parameters": parameters,
        "rollout": rollout,
        "warnings": ["robot-04: even the informed expert reaches only 81 % here"],
        "environment": {"python": "3.11.7", "mujoco": "3.17.0"},
    }
