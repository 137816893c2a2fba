"""From a scene to a policy: an informed expert in many drawn worlds, a flow-matching policy over action chunks, ONNX.

    python examples/04_demonstrate_and_train.py [--demonstrations N] [--steps N] [--out FILE]

The defaults take about half a minute on one core and are a tenth of what a turn of the loop spends.
"""

import argparse
from pathlib import Path

import numpy as np

from flyball.datagen.demonstrations import DemonstrationConfig, demonstrate
from flyball.learning.flow import FlowConfig, train
from flyball.policies.batched import Batched
from flyball.policies.learned import LearnedPolicy
from flyball.tasks import tasks
from flyball.tasks.world import World


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--demonstrations", type=int, default=64)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    task = tasks.load("lift-fragile-v1")

    # Worlds that an informed expert can solve; everything else is nominal.
    def worlds(n: int, seed: int) -> dict[str, np.ndarray]:
        return task.scene.nominal(n) | task.draw_reality(np.random.default_rng(seed), n)

    values = worlds(args.demonstrations, seed=1)
    seeds = list(range(args.demonstrations))
    shown = demonstrate(task, values, task.told(values), seeds, DemonstrationConfig(threads=1))
    print(f"{shown.kept} of {shown.attempts} demonstrations succeeded: {len(shown.features)} windows")

    config = FlowConfig(steps=args.steps)
    made = train(
        shown.features, shown.codes, config, seed=0, told=task.conditioning, spec_hash=task.embodiment.spec_hash()
    )
    print(f"loss {made.loss[0][1]:.3f} -> {made.loss[-1][1]:.3f}; policy {made.digest[:12]}, {len(made.onnx)} bytes")
    if args.out:
        args.out.write_bytes(made.onnx)

    # Worlds it has not seen, told what a perfect calibration would tell.
    fresh = worlds(32, seed=2)
    policy = LearnedPolicy.load(made.onnx, task, task.told(fresh), expected_digest=made.digest)
    policy.reset(task.instruction, seed=0)
    done = World(task, 32).run(Batched(policy, execute=4), fresh, range(1000, 1032)).judge(task)
    print(f"the policy alone: {sum(j.outcome == 'success' for j in done)} of 32 succeed")


if __name__ == "__main__":
    main()
