"""Closed-loop success of a cloned policy against gradient steps and seconds, on one core, beside its expert.

    python benchmarks/learning.py [--task lift-fragile-v1] [--demos 384] [--trials 192] [--steps 250,500,1000,1500]

Demonstrations are made in worlds drawn broadly, with the truth told; trials are other drawn worlds. Every row is a
training of its own: its schedule ends at its number of steps. Seconds are CPU seconds of this process.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from flyball.datagen.demonstrations import DemonstrationConfig, demonstrate
from flyball.evaluation.statistics import wilson
from flyball.learning.flow import FlowConfig, train
from flyball.policies.learned import LearnedPolicy
from flyball.tasks import tasks
from flyball.tasks.world import World

EXECUTE = 4


def cells(task, n, seed):
    """n drawn worlds: parameters, what a policy is told, seeds."""
    values = task.scene.nominal(n) | task.draw_reality(np.random.default_rng([seed, 0]), n)
    return values, task.told(values), [seed * 1_000_000 + i for i in range(n)]


def chunked(policy, execute=EXECUTE):
    """A controller that asks the policy for a chunk and executes the first actions of it."""
    rest = []

    def control(observation):
        if not rest:
            rest.extend(policy.act(observation).actions.transpose(1, 0, 2)[:execute])
        return rest.pop(0)

    return control


def successes(task, controller, world, drawn):
    values, _, seeds = drawn
    return sum(j.outcome == "success" for j in world.run(controller, values, seeds).judge(task))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="lift-fragile-v1")
    parser.add_argument("--demos", type=int, default=384)
    parser.add_argument("--trials", type=int, default=192)
    parser.add_argument("--steps", default="250,500,1000,1500")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    task, clock = tasks.load(args.task), time.process_time
    say = (lambda *a: None) if args.json else lambda *a: print(*a, flush=True)

    started = clock()
    values, told, seeds = cells(task, args.demos, 100 + args.seed)
    data = demonstrate(task, values, told, seeds, DemonstrationConfig(threads=1))
    made_s = clock() - started
    drawn, world = cells(task, args.trials, 900 + args.seed), World(task, args.trials)
    expert = successes(task, task.expert(drawn[1]), world, drawn)
    out = {
        "task": args.task,
        "demonstrations": {"attempts": data.attempts, "kept": data.kept, "frames": len(data.features), "cpu_s": made_s},
        "expert": {"successes": expert, "trials": args.trials},
        "rows": [],
    }
    say(f"{args.task}: {data.kept} of {data.attempts} demonstrations, {len(data.features)} frames, {made_s:.1f} CPU s")
    say(f"expert told the truth: {expert}/{args.trials}")
    say(f"{'method':<12}{'steps':>6}{'CPU s':>7}{'steps/s':>9}{'success, zero start [95 %]':>30}{'drawn start':>13}")
    body = {"told": task.conditioning, "spec_hash": task.embodiment.spec_hash()}
    for method in ("flow", "regression"):
        for steps in map(int, args.steps.split(",")):
            started = clock()
            made = train(data.features, data.codes, FlowConfig(method=method, steps=steps), seed=args.seed, **body)
            cpu = clock() - started
            wins = []
            for noise in (False, True) if method == "flow" else (False,):
                policy = LearnedPolicy.load(made.onnx, task, drawn[1], expected_digest=made.digest, seed_noise=noise)
                policy.reset(task.instruction, 1)
                wins.append(successes(task, chunked(policy), world, drawn))
            band = wilson(wins[0], args.trials)
            row = {
                "method": method,
                "steps": steps,
                "cpu_s": cpu,
                "zero_start": wins[0],
                "low": band.low,
                "high": band.high,
            }
            out["rows"].append(row | {"drawn_start": wins[1] if len(wins) > 1 else None})
            zero = f"{wins[0] / args.trials:.3f} [{band.low:.3f}, {band.high:.3f}]"
            sampled = f"{wins[1] / args.trials:.3f}" if len(wins) > 1 else "-"
            say(f"{method:<12}{steps:>6}{cpu:>7.1f}{steps / cpu:>9.0f}{zero:>30}{sampled:>13}")
        policy = LearnedPolicy.load(made.onnx, task, drawn[1][0])
        observation = {k: v[0] for k, v in world.reset(drawn[0], drawn[2]).items()}
        times = []
        for _ in range(1000):
            t = time.perf_counter()
            policy.act(observation)
            times.append(1e3 * (time.perf_counter() - t))
        p50, p99 = np.percentile(times[50:], [50, 99])
        out[f"{method}_act_ms"] = {"p50": p50, "p99": p99}
        say(f"one robot, one chunk, features and decoding included: p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    if args.json:
        print(json.dumps(out))


if __name__ == "__main__":
    main()
