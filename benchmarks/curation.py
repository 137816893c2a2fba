"""What the checks find and what they miss: ``python benchmarks/curation.py [--tune] [--trials N] [--out FILE]``.

Defects of every kind, in every severity, are planted one at a time into clean recordings, and the check that is
responsible looks at them among the clean ones. Recordings: synthetic arms (signals with units; one packed vector; long
ones), two simulated tasks by their experts, and real ones (a servo, tossed cubes) where they lie in ../shared/realdata
(``--data``). Thresholds were fixed on ``--tune``: other tasks, other seeds, other real recordings than without it.
Prints, as Markdown and with 95 % intervals (Clopper-Pearson): recall by kind and severity, false alarms by check and
recordings, recall where a third of the group is spoilt, and for tier 1 how well failures are told from successes by
state and by commands alone, and what lengthening does to the scores. Takes some minutes.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flyball.base import Timed
from flyball.episodes import Episode
from flyball.episodes.curation import Check, Seen, checks
from flyball.episodes.curation.check import Findings
from flyball.episodes.curation.defects import DEFECTS, START_NS, Defect, Specimen, arm, with_camera
from flyball.episodes.curation.motion import commands
from flyball.episodes.curation.tracks import track
from flyball.episodes.curation.trajectories import departures, novelties
from flyball.episodes.formats import read_one
from flyball.evaluation.statistics import clopper_pearson

GROUP = 24
"""Clean recordings of a group: what a spoilt one is compared with."""
CROWD = 1 / 3
"""Share of a group that is spoilt alike, in the third table."""


# recordings ----------------------------------------------------------------------------------------------------


def synthetic(tune: bool, *, packed: bool = False, poses: int = 0) -> list[list[Specimen]]:
    """Attempts of an arm at two tasks."""
    tasks, first = ((0, 1), 0) if tune else ((12, 13), 900)
    n = GROUP // 2 if poses else GROUP
    return [[arm(first + i, task=t, packed=packed, poses=poses) for i in range(n)] for t in tasks]


def attempts(name: str, n: int, seed: int, *, misled: bool) -> list[Episode]:
    """Attempts of a task's expert in drawn realities; a misled one takes every object for the nominal one."""
    from flyball.tasks import tasks
    from flyball.tasks.world import World

    task = tasks.load(name)
    nominal = task.scene.nominal(n)
    values = nominal | task.draw_reality(np.random.default_rng([seed, 3]), n)
    told = task.told(nominal if misled else values)
    done = World(task, n).run(task.expert(told), values, seeds=range(seed, seed + n))
    specs = {s.name: s for s in (*task.embodiment.observations, *task.embodiment.actions)}
    out = []
    for i, judged in enumerate(done.judge(task)):
        one = done.one(i)
        t = START_NS + i * 10**12 + (np.arange(len(next(iter(one.values())))) * 1e9 / task.control_hz).astype(np.int64)
        signals = {n: Timed(specs[n], t, x.reshape(len(t), *specs[n].shape)) for n, x in one.items()}
        facts: dict[str, Any] = {"task": name, "outcome": judged.outcome, "group": judged.group, "seed": i}
        out.append(Episode(task.embodiment.name, signals=signals, **facts))
    return out


def simulated(name: str, tune: bool) -> list[list[Specimen]]:
    """Attempts of a task's informed expert, with a camera beside."""
    seed, out = (0 if tune else 7000), []
    for i, e in enumerate(attempts(name, GROUP, seed, misled=False)):
        joints = e.signals["joint.position"]
        rng = np.random.default_rng([seed, i])
        out.append(with_camera(Specimen(e), "camera.side", joints.values, joints.t_ns, 12.5, rng))
    return [out]


def real(folder: Path, tune: bool) -> list[list[Specimen]]:
    """Every other recording, the rest being for the other phase."""
    found = [Specimen(read_one(p)) for p in sorted(folder.glob("*.mcap"))[0 if tune else 1 :: 2][: 2 * GROUP]]
    return [found[a : a + GROUP] for a in range(0, len(found), GROUP)]


def recordings(tune: bool, data: Path) -> dict[str, list[list[Specimen]]]:
    out = {
        "arm": synthetic(tune),
        "packed": synthetic(tune, packed=True),
        "long": synthetic(tune, poses=20),
        "lift": simulated("lift-fragile-v1", tune),
        "slide": simulated("slide-puck-v1", tune),
    }
    for name, folder in (("servo (real)", "servo_xl330"), ("cube (real)", "cube_tosses")):
        if (data / folder).is_dir():
            out[name] = real(data / folder, tune)
    return out


# tier 0 --------------------------------------------------------------------------------------------------------


class Clean:
    """A clean group, and what each check keeps of it, looked at once."""

    def __init__(self, group: Sequence[Specimen]) -> None:
        self.group = group
        self._seen: dict[str, dict[int, Seen]] = {}
        self._flagged: dict[str, set[int]] = {}

    def seen(self, check: Check) -> dict[int, Seen]:
        if check.name not in self._seen:
            found = {i: kept(check, x, str(i)) for i, x in enumerate(self.group)}
            self._seen[check.name] = {i: s for i, s in found.items() if s is not None}
        return self._seen[check.name]

    def flagged(self, check: Check) -> set[int]:
        """Which of them the check finds fault with, clean as they are."""
        if check.name not in self._flagged:
            seen = self.seen(check)
            said = check.judged(list(seen.values())) if seen else {}
            self._flagged[check.name] = {i for i in seen if said[str(i)]}
        return self._flagged[check.name]

    def verdict(self, check: Check, i: int, spoilt: Specimen, *, beside: bool) -> Findings:
        """What the check says of a spoilt recording in the place of clean number i, or beside it."""
        mine = kept(check, spoilt, "spoilt")
        if mine is None:
            return None
        others = [s for k, s in self.seen(check).items() if beside or k != i]
        return check.judged([*others, mine])["spoilt"]


def kept(check: Check, x: Specimen, digest: str) -> Seen | None:
    look = check.look_at(x.episode, x.pictures if x.images else None)
    return None if look is None else Seen(digest, (x.episode.embodiment, x.episode.task), x.episode.outcome, look)


def plantings(
    clean: Clean, defect: Defect, severity: float, table: Mapping[str, Check], trials: int, seed: int
) -> dict[str, int]:
    """How often a defect was planted, found by its own check, and found by that or any other."""
    out = {"n": 0, "hits": 0, "any": 0}
    flagged = {name: clean.flagged(c) for name, c in table.items()}
    for k in range(trials):
        rng = np.random.default_rng([seed, k])
        i = int(rng.integers(len(clean.group)))
        # What a check says of the clean one already cannot count as found.
        spoilt = None if i in flagged[defect.check] else defect.plant(clean.group[i], severity, rng)
        if spoilt is None:
            continue
        beside = defect.check == "copies"
        hit = bool(clean.verdict(table[defect.check], i, spoilt, beside=beside))
        out["n"] += 1
        out["hits"] += hit
        rest = [c for name, c in table.items() if name != "copies" and i not in flagged[name]]
        out["any"] += hit or any(clean.verdict(c, i, spoilt, beside=beside) for c in rest)
    return out


def crowded(clean: Clean, defect: Defect, check: Check, seed: int) -> dict[str, int]:
    """The same when a share of the group has the defect, as bad as it gets."""
    rng = np.random.default_rng([seed, 7])
    seen, bad = dict(clean.seen(check)), []
    for i in rng.choice(len(clean.group), round(CROWD * len(clean.group)), replace=False).tolist():
        x = defect.plant(clean.group[i], defect.severities[-1], rng)
        mine = None if x is None else kept(check, x, str(i))
        if mine is not None:
            seen[i] = mine
            bad.append(str(i))
    found = check.judged(list(seen.values())) if seen else {}
    return {"n": len(bad), "hits": sum(bool(found[d]) for d in bad)}


def tier_0(groups: Mapping[str, list[list[Specimen]]], trials: int, only: Sequence[str]) -> dict[str, Any]:
    loaded = [checks.load(n) for n in checks.names()]
    table = {c.name: c for c in loaded if c.tier == 0}
    out: dict[str, Any] = {"recall": [], "alarms": [], "crowd": []}
    for where, found in groups.items():
        for g, group in enumerate(found):
            clean = Clean(group)
            for c in table.values():
                seen = list(clean.seen(c).values())
                said = c.judged(seen) if seen else {}
                judged = [f for f in said.values() if f is not None]
                why = [str(f[0]) for f in judged if f]
                out["alarms"].append(
                    {"check": c.name, "where": where, "alarms": len(why), "n": len(judged), "why": why}
                )
            for d in (d for d in DEFECTS if not only or d.check in only):
                for severity in d.severities:
                    seed = zlib.crc32(repr((where, g, d.kind, severity)).encode())
                    row = plantings(clean, d, severity, table, trials, seed)
                    out["recall"].append({"kind": d.kind, "severity": severity, "where": where, **row})
                if table[d.check].compares and d.check != "copies":
                    out["crowd"].append({"kind": d.kind, "where": where, **crowded(clean, d, table[d.check], g)})
        print(f"{where} done", flush=True)
    return out


# tier 1 --------------------------------------------------------------------------------------------------------


def tracked(episodes: Sequence[Episode]) -> list[Seen]:
    return [Seen(str(i), ("", ""), e.outcome, track(e)) for i, e in enumerate(episodes)]


def commands_alone(e: Episode) -> Episode:
    """What a look at actions alone has: the commands, as if they were the state."""
    sent = {f"sent.{i}": replace(s, spec=replace(s.spec, name=f"sent.{i}")) for i, s in enumerate(commands(e).values())}
    return replace(e, signals=sent)


def tier_1(tune: bool) -> dict[str, Any]:
    seed, out = (100 if tune else 8000), {"failures": [], "length": []}
    for name in ("lift-fragile-v1", "slide-puck-v1"):
        episodes = attempts(name, 40, seed, misled=False) + attempts(name, 40, seed + 800, misled=True)
        good = np.array([e.outcome == "success" for e in episodes])
        for what, mine in (("state", episodes), ("commands alone", [commands_alone(e) for e in episodes])):
            score = np.array([d.score for d in departures(tracked(mine))[0]])
            for kind in ("all", *sorted({e.group for e in episodes if e.group})):
                bad = ~good & np.array([kind in ("all", e.group) for e in episodes])
                area = float(np.mean(score[bad][:, None] > score[good][None]))
                hits = {"hits": int((score[bad] > 1.25).sum()), "n": int(bad.sum())}
                alarms = {"alarms": int((score[good] > 1.25).sum()), "successes": int(good.sum())}
                out["failures"].append({"task": name, "by": what, "kind": kind, "auc": area, **hits, **alarms})
    waiting = next(d for d in DEFECTS if d.kind == "idle")
    for t in (0, 1) if tune else (12, 13):
        first = seed
        base = tracked([arm(first + i, task=t, camera=False).episode for i in range(GROUP)])
        scores, new = np.array([d.score for d in departures(base)[0]]), np.array(novelties(base))
        for how in ("0.7 x", "2 x", "4 x", "+ 3 s", "+ 10 s"):
            moved, fresh = [], []
            for i in range(GROUP):
                longer = arm(first + i, task=t, camera=False, slow=float(how.split()[0])) if how[-1] == "x" else None
                if longer is None:
                    x = arm(first + i, task=t, camera=False)
                    longer = waiting.plant(x, float(how.split()[1]), np.random.default_rng(i))
                assert longer is not None
                mixed = [*base[:i], replace(base[i], kept=track(longer.episode)), *base[i + 1 :]]
                moved.append(departures(mixed)[0][i].score - scores[i])
                fresh.append(novelties(mixed)[i] - new[i])
            longer_wins = float(np.mean((scores + moved)[:, None] > scores[None]) + 0.5 * np.mean(
                (scores + moved)[:, None] == scores[None]))  # fmt: skip
            row = {"task": t, "how": how, "mean": float(np.mean(moved)), "most": float(np.abs(moved).max())}
            out["length"].append(
                row | {"auc": longer_wins, "spread": float(scores.std()), "novelty": float(np.mean(fresh))}
            )
    return out


# report --------------------------------------------------------------------------------------------------------


def rate(hits: int, n: int) -> str:
    if not n:
        return "-"
    c = clopper_pearson(hits, n)
    return f"{c.mean:.0%} ({c.low:.0%}-{c.high:.0%})"


def tables(found: dict[str, Any]) -> list[str]:
    lines = ["| kind | check | severity | recall of the check | by any check | planted | where the worst is missed |"]
    lines.append("|---" * 7 + "|")
    for d in DEFECTS:
        for s in d.severities:
            rows = [r for r in found["recall"] if r["kind"] == d.kind and r["severity"] == s]
            n, hits, other = (sum(r[k] for r in rows) for k in ("n", "hits", "any"))
            missed = []
            for where in dict.fromkeys(r["where"] for r in rows) if s == d.severities[-1] else ():
                a, b = (sum(r[k] for r in rows if r["where"] == where) for k in ("hits", "n"))
                missed += [f"{where} {b - a}/{b}"] if a < b else []
            if n:
                cells = (f"{s:g} {d.unit}".strip(), rate(hits, n), rate(other, n), n, ", ".join(missed))
                lines.append(f"| {d.kind} | {d.check} | {' | '.join(map(str, cells))} |")
    places = list(dict.fromkeys(r["where"] for r in found["alarms"]))
    lines += ["", f"| false alarms of | {' | '.join(places)} | all | all but servo |", "|---" * (len(places) + 3) + "|"]
    for name in dict.fromkeys(r["check"] for r in found["alarms"]):
        mine = [r for r in found["alarms"] if r["check"] == name]
        cells = []
        for where in places:
            a, n = (sum(r[k] for r in mine if r["where"] == where) for k in ("alarms", "n"))
            cells.append(f"{a}/{n}" if n else "-")
        for rows in (mine, [r for r in mine if r["where"] != "servo (real)"]):
            cells.append(rate(sum(r["alarms"] for r in rows), sum(r["n"] for r in rows)))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| kind, a third of the group spoilt | recall |", "|---|---|"]
    for kind in dict.fromkeys(r["kind"] for r in found["crowd"]):
        mine = [r for r in found["crowd"] if r["kind"] == kind]
        lines.append(f"| {kind} | {rate(sum(r['hits'] for r in mine), sum(r['n'] for r in mine))} |")
    return lines


def tier_1_tables(found: dict[str, Any]) -> list[str]:
    lines = ["", "| failures of | kind | by | area under curve | noted | successes noted |", "|---" * 6 + "|"]
    for r in found["failures"]:
        cells = (r["task"], r["kind"], r["by"], f"{r['auc']:.2f}", rate(r["hits"], r["n"]))
        lines.append(f"| {' | '.join(cells)} | {rate(r['alarms'], r['successes'])} |")
    heads = ("made longer by", "change of departure: mean, most", "spread between attempts", "P(longer scores higher)")
    lines += ["", f"| {' | '.join(heads)} | change of novelty |", "|---" * 5 + "|"]
    for how in dict.fromkeys(r["how"] for r in found["length"]):
        rows = [r for r in found["length"] if r["how"] == how]
        mean, spread, area, new = (float(np.mean([r[k] for r in rows])) for k in ("mean", "spread", "auc", "novelty"))
        most = max(r["most"] for r in rows)
        lines.append(f"| {how} | {mean:+.2f}, {most:.2f} | {spread:.2f} | {area:.2f} | {new:+.3f} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true", help="the recordings that thresholds were fixed on")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="plantings per group, kind and severity")
    parser.add_argument("--check", nargs="*", default=(), metavar="NAME", help="only these checks' kinds; no tier 1")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "realdata")
    parser.add_argument("--out", type=Path, metavar="FILE", help="all counts as JSON")
    args = parser.parse_args()
    found = tier_0(recordings(args.tune, args.data), args.trials, args.check)
    lines = tables(found)
    if not args.check:
        found["tier 1"] = tier_1(args.tune)
        lines += tier_1_tables(found["tier 1"])
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
