"""One explanation. In: a case. Out: an ``Explanation``: verdict, causes with shares, least changes, one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flyball.calibration.explain.case import FOREIGN, Case, Variant
from flyball.calibration.explain.causes import Found, Search, find
from flyball.calibration.explain.counterfactual import (
    Budget,
    Change,
    least_changes,
    margin_map,
    retold,
    shapley,
)
from flyball.calibration.explain.crash import FORMAT, CrashTest, around_boundary
from flyball.calibration.explain.explanation import POLICY, REST, START, Cause, Explanation
from flyball.calibration.explain.levers import Lever, levers_of, parameter_lever
from flyball.calibration.explain.replays import placed
from flyball.scenes import Variation

REPRODUCED = 0.8
"""Share of replays that must fail alike."""
EDGE = 0.3
"""Share of replays from which on a failure may have been a matter of chance."""
HELPS = 0.5
"""Share of the worlds that must succeed once what deviates is put back; else the cause is none of it."""
FAR = 0.5
"""A start further outside of the usual ones than this share of their range is unusual."""
TOLD_APART = 0.02
"""What is told differs when it is this share of its range off what the calibration would tell."""
MOST_PLAYERS = 6
COALITIONS = 384
"""Of who is put back, over all samples: more players are judged in fewer of them."""


def explain(
    case: Case, *, search: Search | None = None, budget: Budget | None = None, draw_map: bool = True,
    policy_digest: str = "expert", execute: int = 1,
) -> Explanation:  # fmt: skip
    """Explain one failure.

    Args:
      case: the failure.
      search, budget: how much is simulated.
      draw_map: simulate the margin map.
      policy_digest, execute: written into the crash test.
    """
    begin = time.perf_counter()
    out = _Explainer(case, search, budget or Budget()).explained(draw_map, policy_digest, execute)
    steps = round(case.task.horizon_s * case.task.control_hz)
    return replace(out, attempts=case.attempts, steps=case.attempts * steps, seconds=time.perf_counter() - begin)


class _Explainer:
    def __init__(self, case: Case, search: Search | None, budget: Budget) -> None:
        self.case, self.task, self.search, self.budget = case, case.task, search, budget
        self.rng = np.random.default_rng([case.seed, 2])

    def explained(self, draw_map: bool, policy_digest: str, execute: int) -> Explanation:
        case = self.case
        bare = Explanation(self.task.name, case.failure, "cannot tell", "")
        foreign = case.foreign()
        if foreign > FOREIGN:
            says = (
                f"cannot tell: in {foreign:.0%} of the control periods the command is not what this policy answers to "
                "what was logged; it saw something else, or something else acted"
            )
            return replace(bare, sentence=says, foreign=foreign)
        found = find(case, self.search)
        bare = replace(bare, foreign=foreign, alike=found.alike, misfit=found.misfit, parted_s=found.parted_s)
        if found.alike < REPRODUCED or found.misfit > 1:
            return replace(bare, verdict="not reproduced", sentence=self._unreproduced(found))
        return self._causes(bare, found, draw_map, policy_digest, execute)

    def _unreproduced(self, found: Found) -> str:
        share = f"{found.alike:.0%} of the replays fail like this, {REPRODUCED:.0%} are needed"
        if found.misfit > 1:
            also = "replays fail alike, but" if found.alike >= REPRODUCED else f"{share}; and"
            return (
                f"not reproduced: {also} the log takes another course from {found.parted_s:.2f} s on; something acted "
                "that the scene does not describe"
            )
        if found.alike >= EDGE:
            return f"not reproduced: on the log's own course {share}; it was on the edge, where chance decides"
        return f"not reproduced: with the logged commands {share}; the scene lacks what made it fail"

    # causes -----------------------------------------------------------------------------------------------

    def _causes(self, bare: Explanation, found: Found, draw_map: bool, policy_digest: str, execute: int) -> Explanation:
        case = self.case
        n = len(found.deviating)
        seeds = self.rng.integers(2**62, size=n).tolist()
        usual_told = self._usual_told()
        told_off = [f"told:{self.task.conditioning[j]}" for j in self._told_apart(usual_told)]
        odd = [START] if self._odd_start(found) else []
        players = [tuple([*h, *told_off, *odd][:MOST_PLAYERS]) for h in found.deviating]
        usual_starts = self._usual_starts(found) if odd else {}

        def variant(jobs: Sequence[tuple[int, frozenset[str]]]) -> Variant:
            rows = np.array([s for s, _ in jobs])
            values = {k: np.asarray(v)[rows].copy() for k, v in found.values.items()}
            seen = {k: np.asarray(v)[rows] for k, v in found.values.items()}
            told = np.tile(case.told, (len(jobs), 1))
            for i, (s, back) in enumerate(jobs):
                for path in back:
                    if path.startswith("told:"):
                        told[i, self.task.conditioning.index(path[5:])] = usual_told[
                            self.task.conditioning.index(path[5:])
                        ]
                    elif path == REST:
                        for other in found.usual:
                            if other not in found.deviating[s]:
                                values[other][i] = found.usual[other][s]
                    elif path != START:
                        values[path][i] = found.believed[path][s]
            v = case.variant(values, seen, told, [seeds[s] for s in rows])
            if usual_starts:
                back_at = np.array([START in back for _, back in jobs])
                starts = {
                    k: np.where(back_at[:, None], usual_starts[k][rows], x) if k in usual_starts else x
                    for k, x in v.starts.items()
                }
                v = replace(v, starts=starts)
            return v

        def tries(jobs: Sequence[tuple[int, frozenset[str]]]) -> NDArray[np.float64]:
            return case.succeeds(variant(jobs)).astype(float)

        shares, fails, helped = self._shares(players, tries)
        if fails.mean() >= HELPS and helped < HELPS and self.case.believed is None:
            # without a calibration, what follows from several parameters (a grip force) is judged by this attempt's own
            usual_told = self._derived_told(found)
            told_off = [f"told:{self.task.conditioning[j]}" for j in self._told_apart(usual_told)]
            players = [tuple([*told_off, *own][:MOST_PLAYERS]) for own in players]
            shares, fails, helped = self._shares(players, tries)
        if fails.mean() >= HELPS and helped < HELPS:
            # what deviates is not enough: all the rest is off, too, each by no more than the calibration allows
            shares, fails, helped = self._shares([(*own[: MOST_PLAYERS - 1], REST) for own in players], tries)
        bare = replace(bare, fails=float(fails.mean()))
        if bare.fails < HELPS:
            says = (
                f"cannot tell: tried again in the same worlds, the policy fails in {bare.fails:.0%}: a matter of chance"
            )
            return replace(bare, sentence=says)
        ranked = sorted((self._cause(p, s, found, usual_told) for p, s in shares.items()), key=lambda c: -c.share)
        rows = np.flatnonzero(fails)
        failed = variant([(int(s), frozenset()) for s in rows])
        others = {name: float(case.succeeds(failed, maker).mean()) for name, maker in case.policies.items()}
        bare = replace(bare, others=others)
        if helped < HELPS or not ranked:
            better = [name for name, share in others.items() if share >= HELPS]
            if not better:
                says = (
                    "cannot tell: the policy fails in the world as it was believed, too; nothing that deviates "
                    "turns the failure into a success"
                )
                return replace(bare, sentence=says, causes=tuple(ranked))
            ranked = [Cause(POLICY, f"the policy ({better[0]} succeeds)", others[better[0]]), *ranked]
        return self._changes(bare, found, failed, rows, ranked, draw_map, policy_digest, execute)

    @staticmethod
    def _shares(
        players: Sequence[tuple[str, ...]], tries: Callable[[Sequence[tuple[int, frozenset[str]]]], NDArray[np.float64]]
    ) -> tuple[dict[str, float], NDArray[np.bool_], float]:
        """Shapley's values over as many samples as ``COALITIONS`` allow; who fails (s,), how many of them it helps."""
        n = len(players)
        m = min(n, max(6, COALITIONS >> max(len(own) for own in players)))
        some = np.unique(np.linspace(0, n - 1, m).round().astype(int))
        rest = np.setdiff1d(np.arange(n), some)
        shares, nobody, everybody = shapley(
            [players[i] for i in some], lambda jobs: tries([(int(some[k]), back) for k, back in jobs])
        )
        fails = np.zeros(n, bool)
        fails[some] = nobody == 0
        if len(rest):
            fails[rest] = tries([(int(i), frozenset()) for i in rest]) == 0
        return shares, fails, float(everybody[nobody == 0].mean()) if (nobody == 0).any() else 0.0

    def _cause(self, path: str, share: float, found: Found, usual_told: NDArray[np.float64]) -> Cause:
        if path == START:
            return Cause(path, "where the attempt began", share)
        if path == REST:
            each = (
                "each no larger than the calibration allows" if self.case.believed is not None else "none of them clear"
            )
            return Cause(path, f"several deviations at once, {each}", share)
        if path.startswith("told:"):
            j = self.task.conditioning.index(path[5:])
            return Cause(path, f"{path[5:]} as told", share, float(self.case.told[j]), float(usual_told[j]),
                         relative=bool(self.case.told[j] > 0 and usual_told[j] > 0))  # fmt: skip
        p = self.task.scene.parameter(path)
        mine = [i for i, h in enumerate(found.deviating) if path in h]
        actual, believed = (float(np.median(np.asarray(x[path])[mine])) for x in (found.values, found.believed))
        own = (self.case.believed or {}).get(path)
        spread = float(np.std(p.to_unit(np.asarray(own)))) if own is not None else float("nan")
        off = abs(float(p.to_unit(actual) - p.to_unit(believed)))
        return Cause(path, p.text or path, share, actual, believed, off / spread if spread > 0 else float("nan"),
                     p.scale == "log")  # fmt: skip

    def _usual_told(self) -> NDArray[np.float64]:
        """What a calibrated policy would be told."""
        if self.case.believed is None:
            return self.case.told
        m = len(next(iter(self.case.believed.values())))
        return self.task.tell(self.task.scene.nominal(m) | dict(self.case.believed))

    def _derived_told(self, found: Found) -> NDArray[np.float64]:
        """What was told, but for what is no parameter of the scene: that as of the worlds in which it failed."""
        own = {p.path for p in self.task.scene.parameters}
        better = self.task.tell(found.values)
        return np.where([name in own for name in self.task.conditioning], self.case.told, better)

    def _told_apart(self, usual: NDArray[np.float64]) -> list[int]:
        """Places in which what was told differs from that."""
        out = []
        for j, lever in enumerate(levers_of(self.case)[: len(usual)]):
            if abs(float(lever.to_unit(self.case.told[j]) - lever.to_unit(usual[j]))) > TOLD_APART:
                out.append(j)
        return out

    def _usual_starts(self, found: Found) -> dict[str, NDArray[np.float64]]:
        n = len(found.deviating)
        if self.case.believed is not None:
            samples = self.case.believed
            rows = self.rng.integers(len(next(iter(samples.values()))), size=n)
            put = {k: np.asarray(v)[rows] for k, v in samples.items()}
        else:
            put = {}
        places = {p.path for p in self.task.scene.parameters if placed(p)}
        nominal = self.task.scene.nominal(n)
        values = dict(found.values) | {k: put.get(k, nominal[k]) for k in places}
        rngs = [np.random.Generator(np.random.Philox(key=int(s))) for s in self.rng.integers(2**62, size=n)]
        return self.task.starts(values, rngs)

    def _odd_start(self, found: Found) -> bool:
        """Whether the attempt began where attempts do not begin."""
        usual, own = self._usual_starts(found), self.case.starts(found.values, range(len(found.deviating)))
        for joint, x in own.items():
            low, high = usual[joint].min(axis=0), usual[joint].max(axis=0)
            reach = np.maximum(high - low, 0.01)  # [m, rad]: less is no odd start
            at = np.median(x, axis=0)
            if (np.maximum(low - at, at - high) / reach > FAR).any():
                return True
        return False

    # changes ----------------------------------------------------------------------------------------------

    def _changes(
        self, bare: Explanation, found: Found, failed: Variant, rows: NDArray[np.int64], ranked: Sequence[Cause],
        draw_map: bool, policy_digest: str, execute: int,
    ) -> Explanation:  # fmt: skip
        case, task = self.case, self.task
        levers = levers_of(case)
        known = {lever.path for lever in levers}
        own = {p.path: p for p in task.scene.parameters}
        first = ranked[0].path
        if first in own and first not in known:
            levers.append(parameter_lever(case, own[first]))
        informed = task.told(failed.values)
        guesses = [self._guess(lever, found, rows, informed) for lever in levers]
        changes = least_changes(case, failed, levers, guesses, self.budget, always=(first,))
        # what is told can be changed at once, settings of the robot with more effort, what is given not at all
        changes.sort(key=lambda c: (not c.actionable, not c.path.startswith("told:"), c.size))
        retold_share = float(case.succeeds(retold(failed, informed)).mean())
        acted = next((c for c in changes if c.actionable), None)
        of_cause = next((c for c in changes if c.path == first), None)
        best = acted or of_cause
        out = replace(
            bare, verdict="explained", causes=tuple(ranked), changes=tuple(changes), retold=retold_share,
            sentence=self._sentence(ranked, best, retold_share),
        )  # fmt: skip
        by_path = {lever.path: lever for lever in levers}
        if draw_map and best is not None:
            x = by_path[best.path]
            # against what deviates most and is given; else against the next best lever
            given = [by_path.get(c.path) or parameter_lever(case, own[c.path]) for c in ranked if c.path in own]
            known_levers = [*given, *(by_path[c.path] for c in changes), *levers]
            y = next(lever for lever in known_levers if lever.path != x.path)
            out = replace(out, margin=margin_map(case, failed, x, y))
        variations: tuple[Variation, ...] = ()
        if first in own:
            c = of_cause
            ends = (ranked[0].actual, c.after if c else ranked[0].believed)
            variations = around_boundary(task, failed.values, first, ends)
        return replace(
            out, variations=variations,
            crash=self._crash(out, failed, by_path, best, informed, policy_digest, execute),
        )  # fmt: skip

    def _guess(
        self, lever: Lever, found: Found, rows: NDArray[np.int64], informed: NDArray[np.float64]
    ) -> NDArray[np.float64] | None:
        """Where a lever probably helps: told what is so, or as it was believed."""
        if lever.path.startswith("told:"):
            return informed[:, self.task.conditioning.index(lever.path[5:])]
        return np.asarray(found.believed[lever.path])[rows] if lever.path in found.believed else None

    def _sentence(self, ranked: Sequence[Cause], best: Change | None, told: float) -> str:
        why = ranked[0].text()
        also = [f"{c.path} {c.share:.0%}" for c in ranked[1:] if c.share >= 0.2]
        why += f" (or {', '.join(also)})" if also else ""
        if best is None:
            end = "no single change would have held"
            return f"{why}; {end}" + (f", telling the policy so would have, in {told:.0%}" if told >= HELPS else "")
        if best.actionable and best.path != ranked[0].path:
            side = "low" if best.change > 0 else "high"
            size = f"{abs(best.change) / (1 + best.change):.0%}" if best.relative else ""
            return f"{best.label} {size} too {side} for this: {why}; {best.text()} would have held".replace("  ", " ")
        return f"{why}; {best.text()} would have held"

    def _crash(
        self, out: Explanation, failed: Variant, by_path: Mapping[str, Lever], best: Change | None,
        informed: NDArray[np.float64], policy_digest: str, execute: int,
    ) -> CrashTest:  # fmt: skip
        case = self.case
        v = failed.take(np.arange(min(8, len(failed.seeds))))
        alike = float(np.mean([j.outcome == "failure" for j in case.run(v).judge(self.task)]))
        told = informed[: len(v.seeds)]
        share = float(case.succeeds(retold(v, told)).mean())
        if best is not None and best.path.startswith("told:") and share < 1:
            lever = by_path[best.path]
            span = lever.to_unit(best.before) + 1.3 * (lever.to_unit(best.after) - lever.to_unit(best.before))
            other = lever.write(v, np.full(len(v.seeds), float(lever.from_unit(np.clip(span, 0, 1))))).told
            better = float(case.succeeds(retold(v, other)).mean())
            told, share = (other, better) if better > share else (told, share)
        return CrashTest(
            FORMAT, self.task.name, self.task.scene.digest, policy_digest, execute,
            {k: np.asarray(x).tolist() for k, x in v.values.items()}, {k: x.tolist() for k, x in v.starts.items()},
            list(v.seeds), case.failure.group, {"told": case.told.tolist(), "fails": alike},
            {"told": told.tolist(), "succeeds": share} if share >= HELPS else None, out.sentence,
        )  # fmt: skip
