"""What the checks find and what they miss: ``python benchmarks/curation.py [--tune] [--trials N] [--markdown]``.

Defects of every kind, in every severity, are planted one at a time into clean recordings, and the check that is
responsible looks at them among the clean ones. Recordings: synthetic arms (signals with units; one packed vector), two
simulated tasks by their experts, and real ones (a servo, tossed cubes) where they lie in ../shared/realdata
(``--data``). Thresholds were fixed on ``--tune`` (other tasks, other seeds, other real recordings than without it).
Prints recall by kind and severity and false alarms by check and recordings, with 95 % intervals (Clopper-Pearson).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flyball.base import Timed
from flyball.episodes import Episode
from flyball.episodes.curation import Check, Seen, checks
from flyball.episodes.curation.defects import DEFECTS, START_NS, Defect, Specimen, arm, with_camera
from flyball.episodes.formats import read_one
from flyball.evaluation.statistics import clopper_pearson

GROUP = 24
"""Clean recordings of a group; those a spoilt one is compared with."""


def synthetic(packed: bool, tune: bool) -> list[list[Specimen]]:
    """Two tasks of an arm."""
    tasks, first = ((0, 1), 0) if tune else ((10, 11), 500)
    return [[arm(first + i, task=t, packed=packed) for i in range(GROUP)] for t in tasks]


def simulated(name: str, tune: bool) -> list[list[Specimen]]:
    """Attempts of a task's expert in drawn realities, with a camera beside."""
    from flyball.tasks import tasks
    from flyball.tasks.world import World

    task, first = tasks.load(name), 0 if tune else 5000
    values = task.scene.nominal(GROUP) | task.draw_reality(np.random.default_rng([first, 3]), GROUP)
    done = World(task, GROUP).run(task.expert(task.told(values)), values, seeds=range(first, first + GROUP))
    specs = {s.name: s for s in (*task.embodiment.observations, *task.embodiment.actions)}
    out = []
    for i, judged in enumerate(done.judge(task)):
        one = done.one(i)
        t = START_NS + i * 10**12 + (np.arange(len(next(iter(one.values())))) * 1e9 / task.control_hz).astype(np.int64)
        signals = {n: Timed(specs[n], t, x.reshape(len(t), *specs[n].shape)) for n, x in one.items()}
        e = Episode(
            task.embodiment.name, task=name, outcome=judged.outcome, group=judged.group, signals=signals, seed=i
        )
        rng = np.random.default_rng([first, i])
        out.append(with_camera(Specimen(e), "camera.side", one["joint.position"], t, 12.5, rng))
    return [out]


def real(folder: Path, tune: bool) -> list[list[Specimen]]:
    """Every other recording, the rest being for the other phase; groups of at most ``GROUP``."""
    paths = sorted(folder.glob("*.mcap"))[0 if tune else 1 :: 2][: 2 * GROUP]
    found = [Specimen(read_one(p)) for p in paths]
    return [found[a : a + GROUP] for a in range(0, len(found), GROUP)]


def kept(check: Check, x: Specimen, digest: str) -> Seen | None:
    look = check.look_at(x.episode, x.pictures if x.images else None)
    return None if look is None else Seen(digest, (x.episode.embodiment, x.episode.task), x.episode.outcome, look)


def looked_at(check: Check, group: Sequence[Specimen]) -> list[Seen]:
    found = [kept(check, x, str(i)) for i, x in enumerate(group)]
    return [s for s in found if s is not None]


def recall(
    check: Check, defect: Defect, severity: float, group: list[Specimen], clean: list[Seen], trials: int, seed: int
) -> tuple[int, int]:
    """(found, planted) of one kind in one group."""
    hits = planted = 0
    for k in range(trials):
        rng = np.random.default_rng([seed, k])
        i = int(rng.integers(len(group)))
        spoilt = defect.plant(group[i], severity, rng)
        if spoilt is None:
            continue
        mine = kept(check, spoilt, "spoilt")
        if mine is None:
            continue
        if defect.check == "copies":
            seen = [*clean, mine]
        else:
            seen = [s if s.digest != str(i) else mine for s in clean]
            if mine not in seen:
                seen.append(mine)
        planted += 1
        hits += bool(check.judged(seen)["spoilt"])
    return hits, planted


def crowd(
    check: Check, defect: Defect, severity: float, group: list[Specimen], share: float, seed: int
) -> tuple[int, int]:
    """(found, planted) when a share of the group has the same kind of defect."""
    rng = np.random.default_rng([seed, 7])
    which = set(rng.choice(len(group), round(share * len(group)), replace=False).tolist())
    mixed, bad = [], []
    for i, x in enumerate(group):
        y = defect.plant(x, severity, rng) if i in which else None
        mixed.append(x if y is None else y)
        bad += [str(i)] if y is not None else []
    found = check.judged(looked_at(check, mixed))
    return sum(bool(found.get(d)) for d in bad), len(bad)


def measure(tune: bool, trials: int, data: Path, only: Sequence[str] = ()) -> dict[str, Any]:
    backgrounds = {
        "arm": synthetic(False, tune),
        "arm, packed": synthetic(True, tune),
        "lift (simulated)": simulated("lift-fragile-v1", tune),
        "slide (simulated)": simulated("slide-puck-v1", tune),
    }
    for name, folder in (("servo (real)", "servo_xl330"), ("cube (real)", "cube_tosses")):
        if (data / folder).is_dir():
            backgrounds[name] = real(data / folder, tune)
    recalls: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    crowded: list[dict[str, Any]] = []
    names = [n for n in checks.names() if checks.load(n).tier == 0 and (not only or n in only)]
    for name in names:
        check = checks.load(name)
        for where, groups in backgrounds.items():
            for g, group in enumerate(groups):
                clean = looked_at(check, group)
                found = check.judged(clean) if clean else {}
                raised = [str(f[0]) for f in found.values() if f]
                alarms.append(
                    {"check": name, "recordings": where, "alarms": len(raised), "n": len(clean), "what": raised}
                )
                for defect in (d for d in DEFECTS if d.check == name):
                    for severity in defect.severities:
                        seed = abs(hash_of(where, g, defect.kind, severity, tune))
                        hits, n = recall(check, defect, severity, group, clean, trials, seed)
                        row = {"kind": defect.kind, "check": name, "unit": defect.unit, "severity": severity}
                        recalls.append(row | {"recordings": where, "hits": hits, "n": n})
                    if check.compares and defect.check != "copies":
                        hits, n = crowd(check, defect, defect.severities[-1], group, 0.3, g)
                        crowded.append({"kind": defect.kind, "check": name, "hits": hits, "n": n})
        print(".", end="", flush=True)
    print()
    return {"recall": recalls, "alarms": alarms, "crowded": crowded}


def hash_of(*what: Any) -> int:
    import zlib

    return zlib.crc32(repr(what).encode())


def rate(hits: int, n: int) -> str:
    if not n:
        return "-"
    c = clopper_pearson(hits, n)
    return f"{c.mean:.0%} ({c.low:.0%}-{c.high:.0%})"


def tables(found: dict[str, Any]) -> list[str]:
    lines = ["| kind | check | severity: recall (95 % interval) | planted | not found in |", "|---|---|---|---|---|"]
    for d in DEFECTS:
        rows = [r for r in found["recall"] if r["kind"] == d.kind]
        cells, missed = [], []
        for s in d.severities:
            mine = [r for r in rows if r["severity"] == s]
            cells.append(
                f"{s:g} {d.unit}".strip() + ": " + rate(sum(r["hits"] for r in mine), sum(r["n"] for r in mine))
            )
        worst = [r for r in rows if r["severity"] == d.severities[-1]]
        for where in dict.fromkeys(r["recordings"] for r in worst):
            hits, n = (sum(r[k] for r in worst if r["recordings"] == where) for k in ("hits", "n"))
            if n and hits < n:
                missed.append(f"{where} {hits}/{n}")
        n = sum(r["n"] for r in rows)
        if rows:
            lines.append(f"| {d.kind} | {d.check} | {'; '.join(cells)} | {n} | {', '.join(missed) or '-'} |")
    places = list(dict.fromkeys(r["recordings"] for r in found["alarms"]))
    lines += ["", f"| check | {' | '.join(places)} | all (95 % interval) |", "|---" * (len(places) + 2) + "|"]
    for name in dict.fromkeys(r["check"] for r in found["alarms"]):
        mine = [r for r in found["alarms"] if r["check"] == name]
        cells = []
        for where in places:
            a, n = (sum(r[k] for r in mine if r["recordings"] == where) for k in ("alarms", "n"))
            cells.append(f"{a}/{n}" if n else "-")
        total = rate(sum(r["alarms"] for r in mine), sum(r["n"] for r in mine))
        lines.append(f"| {name} | {' | '.join(cells)} | {total} |")
    lines += ["", "| kind, in 30 % of the group | recall (95 % interval) |", "|---|---|"]
    for kind in dict.fromkeys(r["kind"] for r in found["crowded"]):
        mine = [r for r in found["crowded"] if r["kind"] == kind]
        lines.append(f"| {kind} | {rate(sum(r['hits'] for r in mine), sum(r['n'] for r in mine))} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tune", action="store_true", help="the recordings that thresholds were fixed on")
    parser.add_argument("--trials", type=int, default=20, metavar="N", help="plantings per group, kind and severity")
    parser.add_argument("--check", nargs="*", default=(), metavar="NAME", help="only these checks")
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "realdata")
    parser.add_argument("--out", type=Path, metavar="FILE", help="all counts as JSON")
    args = parser.parse_args()
    found = measure(args.tune, args.trials, args.data, args.check)
    if args.out:
        args.out.write_text(json.dumps(found, indent=1))
    print("\n".join(tables(found)))


if __name__ == "__main__":
    main()
