"""The edge agent: the process at the robot.

In: orders from the hub, a driver. Out: attempts, run through the runner under the supervisor and recorded; their logs,
spooled and sent until acknowledged; statuses and incidents. ``kill -9`` at any moment, started again, it goes on: an
attempt is (order id, index), and it is done when its log is in the spool. Loads no simulator (a virtual robot's driver
does) and no trainer.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

from flyball.base import FlyballError, InputError, Refused, digest_of
from flyball.base.durable import make_folder, only_holder, read_json, remove_durably, write_json
from flyball.fleet.client import HubClient, Unreachable
from flyball.fleet.lifeline import end_with_parent
from flyball.fleet.orders import Order
from flyball.fleet.spool import Spool
from flyball.fleet.updater import ReleaseUpdater
from flyball.policies import Policy
from flyball.policies.runner import AttemptResult, DeadlinePolicy, Sink, run_attempt
from flyball.policies.supervisor import Supervisor
from flyball.releases.release import Release, check_name
from flyball.robots import Embodiment, Robot
from flyball.robots.drivers import Preparable, drivers

HEARTBEAT_S = 5.0
RETRY_S = (1.0, 60.0)  # first and longest pause after a refusal or a failure


class ClosableSink(Sink, Protocol):
    """A sink that is durable once closed."""

    def close(self, labels: Mapping[str, Any] | None = None) -> Any:
        """Finish the log, durably, with labels known only now."""


def open_recorder(path: Path, embodiment: Embodiment, metadata: Mapping[str, Any]) -> ClosableSink:
    """The recorder of MCAP logs."""
    from flyball.episodes.recorder import Recorder

    return Recorder(path, embodiment, dict(metadata))


class Agent:
    """One robot's agent. ``step`` is one round of its loop.

    Args:
      name: of the robot.
      hub: the hub's URL.
      home: the robot's folder; everything durable is in it.
      robot: an open driver.
      record: opens the log of an attempt: (path, embodiment, metadata) -> sink.
      clock_s: monotonic clock for pauses [s].
    """

    def __init__(
        self,
        name: str,
        hub: str,
        home: Path,
        robot: Robot,
        *,
        record: Callable[[Path, Embodiment, Mapping[str, Any]], ClosableSink] = open_recorder,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.home, self.robot, self.record, self.clock_s = (
            check_name("robot", name),
            home,
            robot,
            record,
            clock_s,
        )
        self.hub = HubClient(hub)
        self.spool = Spool(home)
        self.updater = ReleaseUpdater(home, self.hub.url, name, robot.embodiment)
        self.refused: dict[str, str] = {}
        self._incidents = make_folder(home / "incidents")
        self._told: set[str] = set()  # incidents written since the start
        self._order = self._kept_order()
        self._loaded: tuple[str, Release, Policy] | None = None  # order id, release, policy
        self._retry: dict[str, tuple[float, float]] = {}  # what -> (not before [s], pause [s])
        self._reported: tuple[float, Any] = (float("-inf"), None)

    def step(self) -> bool:
        """One round: order, update, one attempt, uploads, status. Returns whether there is more to do at once."""
        self._read_order()
        self._update()
        ran = self._attempt()
        self._upload()
        self._report()
        return ran

    def run(self, poll_s: float = 0.2) -> None:
        """Step for ever."""
        while True:
            if not self.step():
                time.sleep(poll_s)

    # ---- the order

    def _kept_order(self) -> Order | None:
        try:
            data = read_json(self.home / "order.json")
            return None if data is None else Order.from_json(data)
        except InputError:
            return None

    def _read_order(self) -> None:
        """The newest order; the last known one while the hub is away."""
        try:
            data = self.hub.order(self.name)
            order = None if data is None else Order.from_json(data, where=f"order of {self.name}")
        except Unreachable:
            return
        except InputError as err:
            self._incident("order", {"reason": err.line()})
            return
        if order is not None and order != self._order:
            write_json(self.home / "order.json", order.to_json())
            self._order = order

    # ---- the release

    def _update(self) -> None:
        order = self._order
        if order is None or not order.release or not self._due(f"release {order.release}"):
            return
        active = self.updater.active()
        if active is not None and active.name == order.release:
            return
        try:
            self.updater.update(order.release, self.robot.observe())
            self.refused.pop(order.release, None)
            self._retry.pop(f"release {order.release}", None)
        except Unreachable:
            return  # the next round asks again
        except Refused as err:
            self._later(f"release {order.release}")
            self.refused[order.release] = err.what
            now = self.updater.active()
            self._incident(
                "refused", {"release": order.release, "reason": err.line(), "running": now.name if now else ""}
            )

    def _policy(self, order: Order) -> tuple[Release, Policy] | None:
        """The policy to run, loaded (and hashed) anew for each order and each release."""
        active = self.updater.active()
        if active is None:
            return None
        if self._loaded is None or self._loaded[:2] != (order.id, active):
            self._loaded = None
            try:
                loaded = self.updater.load()
            except Refused as err:
                self._incident("refused", {"release": active.name, "reason": err.line(), "running": ""})
                return self._policy(order)
            if loaded is None:
                return None
            self._loaded = (order.id, *loaded)
        return self._loaded[1:]

    # ---- attempts

    def _attempt(self) -> bool:
        order = self._order
        if order is None or not order.release or not self._due("robot"):
            return False
        active = self.updater.active()
        if (active is None or active.name != order.release) and order.release not in self.refused:
            return False  # the hub was lost between order and update; its answer is worth waiting for
        done = self.spool.done(order.id)
        index = next((i for i in range(order.attempts) if i not in done), None)
        if index is None:
            return False
        found = self._policy(order)
        if found is None:
            return False
        release, policy = found
        try:
            self._run(order, index, release, policy)
            self._retry.pop("robot", None)
        except Exception as err:  # the driver failed: the robot was stopped; say so and try again later
            why = err.line() if isinstance(err, FlyballError) else f"{type(err).__name__}: {err}"
            self._incident("robot", {"order": order.id, "index": index, "reason": why})
            self._later("robot")
            return False
        return True

    def _run(self, order: Order, index: int, release: Release, policy: Policy) -> AttemptResult:
        seed = order.seed0 + index
        period = 1 / release.control_hz
        live = bool(getattr(self.robot, "realtime", False))
        started = time.time_ns() if live else order.started_ns + index * (round(order.steps * period * 1e9) + 10**9)
        metadata = {
            "robot": self.name,
            "task": order.task,
            "instruction": order.instruction,
            "origin": "fleet",
            "release": release.digest,
            "seed": seed,
            "labels": {
                **order.labels,
                "turn": order.turn,
                "order": order.id,
                "index": index,
                "release": release.name,
            },
        }
        if isinstance(self.robot, Preparable):
            self.robot.prepare(seed, order.turn)
        path = self.spool.recording(order.id, index)
        log = self.record(path, self.robot.embodiment, metadata)
        try:
            result = run_attempt(
                self.robot,
                DeadlinePolicy(policy, release.envelope.deadline_s) if live else policy,
                Supervisor(self.robot.embodiment, period, release.envelope),
                steps=order.steps,
                instruction=order.instruction,
                seed=seed,
                execute=release.execute,
                record=log,
                started_ns=started,
            )
        except BaseException:
            log.close()
            path.unlink(missing_ok=True)  # not an attempt: the driver failed, not the policy
            raise
        log.close({"steps": result.steps, "clamps": result.clamps, "holds": result.holds, "stopped": result.stopped})
        if result.incident is not None:
            facts = {"order": order.id, "index": index, "release": release.name, "log": digest_of(path.read_bytes())}
            self._incident("supervisor", {**facts, **result.incident.to_json()})
        self.spool.finish(order.id, index, path)
        return result

    # ---- to the hub

    def _upload(self) -> None:
        for log in self.spool.pending():
            try:
                self.hub.send_log(self.name, log.digest, log.path)
            except Unreachable:
                return
            self.spool.acknowledged(log)

    def _incident(self, kind: str, facts: Mapping[str, Any]) -> None:
        """Keep an incident until the hub has it. The same incident twice is one."""
        incident = {"kind": kind, "robot": self.name, **facts}
        id_ = digest_of(incident)
        if id_ in self._told:
            return
        self._told.add(id_)
        write_json(self._incidents / f"{id_}.json", {**incident, "id": id_})
        print(f"flyball agent {self.name}: {kind}: {facts.get('reason', '')}", file=sys.stderr, flush=True)

    def status(self) -> dict[str, Any]:
        """What the robot is doing."""
        order, active = self._order, self.updater.active()
        done = len(self.spool.done(order.id)) if order else 0
        of = order.attempts if order else 0
        waiting = order is None or not order.release or active is None
        return {
            "robot": self.name,
            "order": order.id if order else "",
            "done": done,
            "acknowledged": done - len([s for s in self.spool.pending() if order and s.order == order.id]),
            "of": of,
            "release": active.name if active and not waiting else "",
            "installed": active.name if active else "",
            "installed_digest": active.digest if active else "",
            "state": "waiting" if waiting else "running" if done < of else "idle",
            "refused": dict(self.refused),
            "embodiment": self.robot.embodiment.name,
            "spec_hash": self.robot.embodiment.spec_hash(),
            "version": version("flyball"),
        }

    def _report(self) -> None:
        """Send the status when it changed, and now and then."""
        status = self.status()
        files = sorted(self._incidents.glob("[!.]*.json"))[:20]
        at, before = self._reported
        if status == before and not files and self.clock_s() - at < HEARTBEAT_S:
            return
        try:
            taken = self.hub.send_status(self.name, {**status, "incidents": [read_json(f) for f in files]})
        except Unreachable:
            return
        self._reported = (self.clock_s(), status)
        for id_ in taken:
            remove_durably(self._incidents / f"{check_name('incident', id_)}.json")

    # ---- patience

    def _due(self, what: str) -> bool:
        return self.clock_s() >= self._retry.get(what, (0.0, 0.0))[0]

    def _later(self, what: str) -> None:
        """Leave something alone for a while, each time for longer."""
        pause = min(max(2 * self._retry.get(what, (0.0, 0.0))[1], RETRY_S[0]), RETRY_S[1])
        self._retry[what] = (self.clock_s() + pause, pause)


def main(argv: list[str] | None = None) -> int:
    """Run an agent until it is told to end."""
    parser = argparse.ArgumentParser(prog="flyball agent", description="the edge agent: the process at the robot")
    parser.add_argument("--robot", required=True, help="name of the robot")
    parser.add_argument("--hub", required=True, help="URL of the hub")
    parser.add_argument("--home", type=Path, required=True, help="folder of this robot")
    parser.add_argument("--driver", required=True, help="name of the driver")
    parser.add_argument("--driver-config", type=Path, help="the driver's settings (JSON)")
    parser.add_argument("--poll", type=float, default=0.2, help="pause between two looks for an order [s]")
    parser.add_argument("--parent", type=int, default=0, help="end when this process ends")
    args = parser.parse_args(argv)
    end_with_parent(args.parent)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # as an exception, so that the robot is stopped
    try:
        with only_holder(make_folder(args.home) / "lock", wait_s=10):
            config: Any = {}
            if args.driver_config is not None:
                try:
                    config = json.loads(args.driver_config.read_bytes())
                except (OSError, ValueError) as err:
                    raise InputError(f"no readable settings ({err})", where=str(args.driver_config)) from err
            robot = drivers.load(args.driver)(config, args.robot, make_folder(args.home / "driver"))
            try:
                Agent(args.robot, args.hub, args.home, robot).run(args.poll)
            finally:
                robot.stop()
    except FlyballError as err:
        print(f"flyball agent: {err.line()}", file=sys.stderr)
        return err.exit_code
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
