"""Is the candidate better than what is deployed? Equal seeds, looked at after every pair, with a stated error rate.

    python examples/05_compare.py [--pairs N]

Deployed: one grip for every robot. Candidate: the same law, told each robot's calibration. Takes a few seconds.
"""

import argparse

import numpy as np

from flyball.evaluation.statistics import wilson
from flyball.evaluation.verdicts import CanaryVerdict, ComparisonRule, PairedComparison
from flyball.tasks import tasks
from flyball.tasks.world import World


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=96)
    args = parser.parse_args()
    task = tasks.load("lift-fragile-v1")
    n = args.pairs
    values = task.scene.nominal(n) | task.draw_reality(np.random.default_rng(3), n)
    seeds = list(range(n))  # the same boxes, noise and starts for both

    def successes(told: np.ndarray) -> list[bool]:
        done = World(task, n).run(task.expert(told), values, seeds)
        return [j.outcome == "success" for j in done.judge(task)]

    candidate, deployed = successes(task.told(values)), successes(task.told(task.scene.nominal(n)))
    test = PairedComparison(ComparisonRule(margin=0.1, alpha=0.05, n_max=n, goal="better"))
    test.update_all(candidate, deployed)  # stops at the first pair that decides
    facts = test.to_json()
    print(f"candidate {facts['candidate']:.0%}, deployed {facts['deployed']:.0%} of {test.n} pairs: {test.verdict}")
    d = test.difference()
    print(f"difference {d.mean:.0%}, at any stopping time within [{d.low:.0%}, {d.high:.0%}]")

    # On the robot there is no pairing: a plan whose error rates are computed before the first attempt.
    canary = CanaryVerdict(good=0.9, bad=0.6)
    rates = canary.error_rates
    print("the canary's plan: " + ", ".join(f"{k} {v:.3f}" for k, v in rates.items()))
    for success in candidate:
        if (verdict := canary.update(success)) != "continue":
            break
    print(f"after {canary.n} attempts of the candidate: {verdict}")
    one = wilson(sum(candidate), n)
    print(f"all {n}: success {one.mean:.0%} [{one.low:.0%}, {one.high:.0%}]")


if __name__ == "__main__":
    main()
