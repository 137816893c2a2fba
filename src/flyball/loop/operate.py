"""The loop's hands on the fleet. In: releases, orders. Out: judged episodes, a rolled-out or rolled-back release.

Everything is written down before it is asked for, so that a loop that was killed goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flyball.base import NotPossible, digest_of
from flyball.base.workspace import Workspace
from flyball.episodes import Episode
from flyball.episodes.catalogue import Catalogue
from flyball.episodes.ingest import ingest
from flyball.evaluation.verdicts import CanaryVerdict
from flyball.fleet.launch import Fleet
from flyball.fleet.orders import Order, read_status, write_order
from flyball.fleet.rollout import Rollout
from flyball.loop.logs import judge
from flyball.releases.release import Release, release_for
from flyball.releases.signing import Repository
from flyball.tasks import Task

EPOCH_NS = 1_767_225_600_000_000_000
"""Start of the virtual robots' clock: 2026-01-01 UTC [ns]."""
DAY_NS, HOUR_NS = 86_400_000_000_000, 3_600_000_000_000
PATIENCE_S = 120.0
"""A robot that says nothing new for this long is not waited for any longer [s]."""


@dataclass
class Operator:
    """Runs orders and rollouts on a fleet.

    Attributes:
      workspace: shared with the hub.
      fleet: the running processes.
      task: what is attempted.
      say: told what is worth knowing.
      tick: called while waiting with (attempts acknowledged, of how many).
    """

    workspace: Workspace
    fleet: Fleet
    task: Task
    say: Callable[[str], None]
    tick: Callable[[int, int], None]

    @property
    def robots(self) -> list[str]:
        """Names, in order."""
        return [r.name for r in self.fleet.robots]

    def order(self, id_: str, release: Mapping[str, str], turn: int, attempts: int, hour: int = 0) -> None:
        """Write one order for every robot in ``release`` (robot -> release name)."""
        for robot, name in release.items():
            order = Order(
                id=id_,
                release=name,
                task=self.task.name,
                instruction=self.task.instruction,
                attempts=attempts,
                steps=round(self.task.horizon_s * self.task.control_hz),
                seed0=int(digest_of([id_, turn])[:8], 16),
                turn=turn,
                started_ns=EPOCH_NS + turn * DAY_NS + hour * HOUR_NS,
            )
            write_order(self.workspace.path, robot, order)

    def wait(self, id_: str, robots: list[str]) -> dict[str, dict[str, Any]]:
        """Wait until these robots have done an order and everything they logged is durable here; ingests meanwhile."""
        last, since = None, time.monotonic()
        while True:
            self.fleet.tend()
            status = read_status(self.workspace.path)
            mine = {r: s for r in robots if (s := status.get(r)) and s["order"] == id_}
            done = sum(s["acknowledged"] for s in mine.values())
            total = sum(s["of"] for s in mine.values()) if len(mine) == len(robots) else 0
            ready = [r for r, s in mine.items() if s["acknowledged"] >= s["of"] and s["state"] in ("idle", "waiting")]
            self.ingest()
            if total:
                self.tick(done, total)
            if len(ready) == len(robots):
                return mine
            now = (done, len(ready), len(mine))
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE_S:
                missing = sorted(set(robots) - set(ready))
                self.say(f"no news from {', '.join(missing)} for {PATIENCE_S:.0f} s: going on without them")
                return mine
            time.sleep(0.05)

    def ingest(self) -> None:
        """Bring in whatever lies in the inbox."""
        if any(self.workspace.inbox.iterdir()):
            report = ingest(self.workspace, None, judge)
            for path, why in report.quarantined:
                self.say(f"quarantined {path}: {why}")

    def episodes(self, id_: str) -> list[Episode]:
        """The judged episodes of an order, by robot and time; the order in which logs came home is chance."""
        catalogue = Catalogue(self.workspace.store)
        rows = catalogue.query(f"labels.order = '{id_}'", order="robot, start_ns")
        return [catalogue.load(r.digest) for r in rows]

    def publish(self, name: str, files: Mapping[str, bytes], reports: tuple[str, ...], **rest: Any) -> Release:
        """Sign a release and put it into the store with what it was made from."""
        release = release_for(
            self.task.embodiment,
            files,
            "policy.onnx" if "policy.onnx" in files else "policy.json",
            name=name,
            task=self.task.name,
            control_hz=self.task.control_hz,
            reports=reports,
            **rest,
        )
        Repository(self.workspace.path).publish(release, files)
        parents = [d for d in (release.policy, *reports) if self.workspace.store.has(d)]
        self.workspace.store.put(
            "release",
            json.dumps(release.to_json(), sort_keys=True).encode(),
            parents=parents,
            producer="flyball.loop.operate@1",
            labels={"name": name, "task": self.task.name},
        )
        return release

    def install(self, id_: str, release: str, turn: int) -> None:
        """Put the first release on every robot; nothing was there before, so there is nothing to compare with."""
        self.order(id_, dict.fromkeys(self.robots, release), turn, 0)
        status = self.wait(id_, self.robots)
        refused = {r: s["refused"][release] for r, s in status.items() if release in s["refused"]}
        if refused:
            robot, why = next(iter(refused.items()))
            raise NotPossible(f"{len(refused)} robots refuse the first release: {why}", where=robot)

    def roll_out(self, release: str, previous: str, canary: str, test: CanaryVerdict, turn: int, batch: int) -> Rollout:
        """Canary, verdict, then all robots or none."""
        store, key = self.workspace.store, f"rollout-{release}"
        kept = store.row("rollout", key)
        rollout = (
            Rollout.from_json(kept["state"]) if kept else Rollout(release, previous, tuple(self.robots), (canary,))
        )
        rollout.resume(test)
        rollout = rollout.start()
        n = 0
        while not rollout.ended:
            store.put_row("rollout", key, {"turn": turn, "state": rollout.to_json(), "test": test.to_json()})
            n += 1
            trying = rollout.phase == "canary"
            id_ = f"{release}-canary-{n:02d}" if trying else f"{release}-install-{rollout.phase}"
            wanted = {canary: release} if trying else rollout.wanted
            self.order(id_, wanted, turn, batch if trying else 0, hour=n)
            status = self.wait(id_, list(wanted))
            for robot, s in status.items():
                if release in s["refused"]:
                    rollout = rollout.refuse(robot, s["refused"][release])
                rollout = rollout.report(robot, s["release"] or s["installed"])
            if trying:
                for e in self.episodes(id_):
                    aborted = e.outcome == "aborted"
                    success = e.outcome == "success"
                    rollout = rollout.outcome(
                        test, e.robot, e.log_digest, str(e.labels.get("release", "")), success, incident=aborted
                    )
            elif set(rollout.lagging) and set(rollout.lagging) <= set(self.robots) - set(status):
                break  # a robot that is away: it converges when it comes back, its order stands
        store.put_row("rollout", key, {"turn": turn, "state": rollout.to_json(), "test": test.to_json()})
        return rollout
