"""A signed release, and a robot that takes nothing else.

    python examples/06_release_and_verify.py [FOLDER]

A hub, a robot and its updater in one process, with a fake policy; takes seconds.
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from flyball.base import Refused
from flyball.fleet.testing import Site
from flyball.robots.testing import FAKE_BODY, FakeRobot


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", nargs="?", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        site = Site(args.folder or Path(temporary))  # a workspace with keys, and a hub on 127.0.0.1
        seen = FakeRobot().observe()
        robot = site.updater("robot-01")  # enrolled: it has the hub's root of trust

        first = site.publish("turn-000", reports=("0" * 64,))
        robot.update("turn-000", seen)
        print(f"runs {robot.active().name}, proven by report {first.reports[0][:12]}")

        def attempt(name: str, what: str) -> None:
            try:
                robot.update(name, seen)
                print(f"{what}: runs {robot.active().name}")
            except Refused as err:
                print(f"{what}: refused ({err.what}); still runs {robot.active().name}")

        attempt("turn-001", "a release that nobody signed")
        site.publish("turn-002", gain="0.9")
        for path in (site.workspace / "tuf" / "repository" / "targets" / "turn-002").glob("*policy.txt"):
            path.write_bytes(b"9.9")
        attempt("turn-002", "a policy that was changed after signing")
        site.publish("turn-003", body=replace(FAKE_BODY, name="another-body"))
        attempt("turn-003", "a release for another body")
        site.publish("turn-004", gain="not a number")
        attempt("turn-004", "a signed policy that fails its trial")
        site.publish("turn-005", gain="0.8")
        attempt("turn-005", "a good one")
        site.close()


if __name__ == "__main__":
    main()
