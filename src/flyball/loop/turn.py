"""One turn: attempts, logs, failures, drift, calibration, reproduction, demonstrations, training, evaluation, gate,
rollout.

In: a workspace, a fleet that runs, the standing of the loop after the turn before. Out: the turn's row and the new
standing, both in the workspace. Every piece of work goes through the step cache, so a turn that was killed goes on
where it was. Each stage is a function of its own, in a module beside this one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from flyball.episodes import Episode
from flyball.loop import attempts, fitting, improvement, proof, rollout, upkeep
from flyball.loop.stages import Stages, Standing


class Turn(Stages):
    """One turn of the loop; ``run`` does it."""

    def run(self, number: int, standing: Standing) -> tuple[dict[str, Any], Standing]:
        """Do the turn.

        Returns:
          The turn's row (see the demo's document) and the standing after it.
        """
        self.number = number
        began = time.monotonic()
        episodes = self.attempt(standing)
        row = attempts.count(self, episodes)
        gap = fitting.gap(self, episodes, standing)
        sick, changed = attempts.triage(self, episodes, standing)
        kept = upkeep.upkeep(self, standing, changed)
        standing = kept.standing
        sick = attempts.known(self, list(dict.fromkeys([*sick, *kept.again, *kept.anew])), standing)
        row |= {
            "turn": number,
            "gap": gap,
            "released": False,
            "verdict": "nothing to learn",
            "reproduced": {"n": 0, "of": 0},
            "changed": sorted(changed),
            "drift": list(kept.alarms),
            "maintenance": [a["robot"] for a in upkeep.maintenance(self, standing)],
            "release": standing.release,
            "kept_demonstrations": 0,
            "trained": None,
        }
        since = {r: number if r in changed else standing.since.get(r, 0) for r in self.operator.robots}
        standing = replace(standing, since=since, success=row.pop("success_by_robot"))
        if sick:
            standing = self.learn(episodes, sick, [*changed, *kept.anew], standing, row)
        row["deployed"] = standing.release
        row["seconds"] = {k: round(v, 2) for k, v in self.seconds.items()}
        row["seconds"]["overhead"] = round(time.monotonic() - began - sum(self.seconds.values()), 2)
        row["steps"] = dict(self.steps)
        return row, standing

    def attempt(self, standing: Standing) -> list[Episode]:
        """Attempts with what is deployed."""
        return attempts.attempts(self, standing, self.operator.robots, self.budget.attempts)

    def learn(
        self,
        episodes: Sequence[Episode],
        sick: Sequence[str],
        changed: Sequence[str],
        standing: Standing,
        row: dict[str, Any],
    ) -> Standing:
        """From failures to a release, or to the reason why there is none; writes into the turn's row.

        All robots then try what they were given. One attempt that let the box slip shows a least grip and no greatest,
        so a first guess may be wrong; and a policy that was trained on may do less well where all was well. Who fails
        is learned from once more, within the turn.
        """
        standing = self.revise(episodes, sick, changed, standing, row)
        if not row["released"]:
            return standing
        self.again = True
        tried = attempts.attempts(self, standing, self.operator.robots, self.budget.canary)
        still = attempts.unhealed(tried, self.operator.robots)
        if still:
            self.display.note(f"turn {self.number}: {', '.join(still)} fail with the release and are looked at again")
            second: dict[str, Any] = {"released": False, "changed": [], "rollout": row["rollout"]}
            standing = self.revise(tried, still, [], standing, second)
            row["again"] = {"robots": still, **{k: second[k] for k in ("released", "verdict", "held_out")}}
            row["changed"] = sorted({*row["changed"], *second["changed"]})
            counted = second.get("reproduced", {})
            row["reproduced"] = {k: n + counted.get(k, 0) for k, n in row["reproduced"].items()}
        self.again = False
        return standing

    def revise(
        self,
        episodes: Sequence[Episode],
        sick: Sequence[str],
        changed: Sequence[str],
        standing: Standing,
        row: dict[str, Any],
    ) -> Standing:
        """Calibrate, reproduce, train, prove, release: one look at robots that fail; writes into ``row``.

        Where the deployed policy does as well as the newly trained one once it is told the new calibrations, it stays.
        A second look trains nothing: what was believed of the robots was wrong, not what the policy can do.
        """
        fits, row["held_out"] = fitting.calibrate(self, sick, changed, standing)
        standing = replace(standing, fits={**standing.fits, **fits})
        if not standing.fits:
            row["verdict"] = "no complete attempt to learn from"
            return standing
        shares = fitting.reproduce(self, episodes, standing)
        again = fitting.doubt(self, fits, shares, standing)
        if again:
            since = {r: self.number if r in again else standing.since[r] for r in standing.since}
            standing = replace(standing, fits={**standing.fits, **again}, since=since)
            shares |= fitting.reproduce(self, [e for e in episodes if e.robot in again], standing)
            row["changed"] = sorted({*row["changed"], *again})
        row["reproduced"] = fitting.counted(shares)
        told = {**standing.told, **{r: fitting.tell(self, standing, r) for r in fits}}
        told |= attempts.unsettled(self, episodes)
        policy, state = standing.policy, standing.state
        if not self.again:
            trained, trained_state, row["kept_demonstrations"] = improvement.improve(self, standing)
            row["trained"] = proof.preferred(self, standing, trained, told)
            if row["trained"]:
                policy, state = trained, trained_state
        report, proven, decision = proof.prove(self, standing, policy, told)
        row["comparison"] = report.comparison
        row["gate"] = decision
        row["verdict"] = "refused by the gate: " + "; ".join(decision["reasons"])
        if decision["allowed"]:
            standing = rollout.release(self, standing, policy, state, told, report, proven, row)
        return standing
