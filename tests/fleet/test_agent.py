"""The edge agent, one round at a time, with a fake robot and a real hub."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from flyball.episodes.formats import read_one
from flyball.fleet.agent import Agent, main
from flyball.fleet.orders import Order, read_incidents, read_status, write_order
from flyball.robots.testing import FAKE_BODY, FakeRobot

ORDER = Order(
    "o-1", "turn-000", "fake-v1", "reach the goal", attempts=3, steps=20, seed0=40, turn=2, labels={"why": "x"}
)


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def make(site):
    def agent(robot=None, name="robot-01", **more):
        return Agent(name, site.url, site.home(name), robot or FakeRobot(), clock_s=Clock(), **more)

    return agent


def rounds(agent, n=8):
    for _ in range(n):
        agent.step()
        agent.clock_s.now += 100.0


def status(site, robot="robot-01"):
    return read_status(site.workspace)[robot]


def episode_of(path):
    return read_one(path)


def logs(site):
    return sorted((site.workspace / "inbox").iterdir())


def test_without_an_order_or_a_release_it_waits_and_says_so(site, make):
    robot = FakeRobot()
    agent = make(robot)
    agent.step()
    assert status(site)["state"] == "waiting" and status(site)["spec_hash"] == FAKE_BODY.spec_hash()
    write_order(site.workspace, "robot-01", dataclasses.replace(ORDER, release=""))
    rounds(agent)
    assert status(site)["state"] == "waiting" and status(site)["order"] == "o-1"
    assert robot.sent == [] and logs(site) == []


def test_an_order_becomes_logs_at_the_hub(site, make):
    release = site.publish("turn-000")
    write_order(site.workspace, "robot-01", ORDER)
    robot = FakeRobot()
    rounds(make(robot))
    assert status(site) | {"received_ns": 0} == status(site) | {
        "received_ns": 0,
        "state": "idle",
        "done": 3,
        "acknowledged": 3,
        "of": 3,
        "release": "turn-000",
        "refused": {},
    }
    assert robot.prepared == [(40, 2), (41, 2), (42, 2)]
    found = {}
    for path in logs(site):
        episode = episode_of(path)
        found[episode.labels["index"]] = episode
    assert sorted(found) == [0, 1, 2]
    episode = found[1]
    assert (episode.robot, episode.task, episode.seed, episode.release) == ("robot-01", "fake-v1", 41, release.digest)
    assert episode.labels["turn"] == 2 and episode.labels["order"] == "o-1" and episode.labels["why"] == "x"
    assert episode.labels["release"] == "turn-000" and episode.labels["steps"] == 20
    sent = np.array(robot.sent[20:40])
    np.testing.assert_array_equal(episode.signal("turn.target").values[:, 0], sent[:, 0])
    assert len(episode.signal("goal").t_ns) == 20
    assert found[2].signal("goal").t_ns[0] > episode.signal("goal").t_ns[-1]


def test_the_same_attempt_gives_the_same_bytes(site, make):
    site.publish("turn-000")
    for name in ("robot-01", "robot-02"):
        write_order(site.workspace, name, ORDER)
    rounds(make())
    first = {p.name for p in logs(site)}
    other = site.folder / "again"
    site.folder = other
    rounds(make())
    assert {p.name for p in logs(site)} == first, "a repeat is the same log"


def test_an_order_is_done_once_also_after_a_restart(site, make):
    site.publish("turn-000")
    write_order(site.workspace, "robot-01", ORDER)
    rounds(make(), 2)
    before = len(logs(site))
    robot = FakeRobot()
    rounds(make(robot))
    assert before == 2 and len(logs(site)) == 3 and len(robot.prepared) == 1
    rounds(make(robot))
    assert len(robot.prepared) == 1


def test_while_the_hub_is_away_it_works_on_and_sends_later(site, make):
    site.publish("turn-000")
    write_order(site.workspace, "robot-01", ORDER)
    agent = make()
    agent.step()
    port = site.server.server_address[1]
    site.close()
    rounds(agent)
    rounds(make())  # even started anew
    assert len(logs(site)) == 1 and len(agent.spool.pending()) == 2
    site.open(port)
    rounds(agent)
    assert len(logs(site)) == 3 and agent.spool.pending() == []


def test_a_new_release_is_taken_up_between_two_attempts(site, make):
    site.publish("turn-000")
    site.publish("turn-001", "0.5")
    write_order(site.workspace, "robot-01", ORDER)
    agent = make()
    agent.step()
    write_order(site.workspace, "robot-01", dataclasses.replace(ORDER, id="o-2", release="turn-001"))
    rounds(agent)
    names = [episode_of(p).labels["release"] for p in logs(site)]
    assert sorted(names) == ["turn-000", "turn-001", "turn-001", "turn-001"]


def test_a_refused_release_is_an_incident_and_the_old_one_goes_on(site, make, capsys):
    site.publish("turn-000")
    site.publish("turn-001", body=dataclasses.replace(FAKE_BODY, name="other"))
    write_order(site.workspace, "robot-01", ORDER)
    agent = make()
    rounds(agent)
    write_order(site.workspace, "robot-01", dataclasses.replace(ORDER, id="o-2", release="turn-001"))
    rounds(agent)
    assert status(site)["release"] == "turn-000" and "is for embodiment other" in status(site)["refused"]["turn-001"]
    assert status(site)["done"] == 3, "it did the order with what it has"
    (incident,) = read_incidents(site.workspace)
    assert incident["kind"] == "refused" and incident["running"] == "turn-000" and incident["release"] == "turn-001"
    assert all(episode_of(p).labels["release"] == "turn-000" for p in logs(site))
    assert capsys.readouterr().err.count("is for embodiment other") == 1, "said once, tried again quietly"


def test_a_policy_that_is_changed_on_the_disk_is_not_run(site, make):
    site.publish("turn-000")
    write_order(site.workspace, "robot-01", ORDER)
    agent = make()
    agent.step()
    (agent.home / "slots" / agent.updater.slots.active / "policy.txt").write_bytes(b"7.0")
    write_order(site.workspace, "robot-01", dataclasses.replace(ORDER, id="o-2"))
    rounds(agent)  # refused, fetched anew, run
    assert status(site)["done"] == 3
    (incident,) = read_incidents(site.workspace)
    assert "policy.txt is not what was signed" in incident["reason"]


def test_a_stop_is_an_incident_that_names_its_log_and_keeps_the_seconds_before(site, make):
    site.publish("turn-000", "30.0")  # far beyond the limits
    write_order(site.workspace, "robot-01", ORDER)
    robot = FakeRobot()
    rounds(make(robot))
    low, high = FAKE_BODY.action_limits()
    assert all(((a >= low) & (a <= high)).all() for a in robot.sent)
    incidents = read_incidents(site.workspace)
    assert len(incidents) == 3 and len(logs(site)) == 3
    for incident in incidents:
        assert incident["kind"] == "supervisor" and "limits" in incident["reason"] and incident["recent"]
        (path,) = [p for p in logs(site) if incident["log"] in p.name]
        episode = episode_of(path)
        assert "supervisor.stop" in [e.name for e in episode.events]
        assert episode.labels["stopped"] == incident["reason"] and episode.labels["index"] == incident["index"]


def test_a_driver_that_fails_is_an_incident_and_the_attempt_is_made_again(site, make):
    class Shaky(FakeRobot):
        fails = 2

        def act(self, action):
            if self.fails and len(self.sent) == 5:
                self.fails -= 1
                self.sent.clear()
                raise OSError("bus off")
            return super().act(action)

    site.publish("turn-000")
    write_order(site.workspace, "robot-01", ORDER)
    robot = Shaky()
    rounds(make(robot), 10)
    assert status(site)["done"] == 3 and len(logs(site)) == 3
    assert {i["reason"] for i in read_incidents(site.workspace)} == {"OSError: bus off"}
    assert list((site.home("robot-01") / "recording").iterdir()) == []


def test_a_garbled_order_is_an_incident(site, make):
    write_order(site.workspace, "robot-01", ORDER)
    path = site.workspace / "fleet" / "orders" / "robot-01.json"
    path.write_text('{"id": "o-1", "releese": "x"}')
    make().step()
    (incident,) = read_incidents(site.workspace)
    assert "did you mean 'release'" in incident["reason"]


def test_the_agent_loads_no_simulator_and_no_trainer():
    code = (
        "import sys, flyball.fleet.agent, flyball.fleet.hub\n"
        "print(sorted({m.split('.')[0] for m in sys.modules} & {'torch', 'mujoco', 'scipy', 'ray', 'warp', 'pxr'}))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_bad_arguments_are_one_line(tmp_path, capsys):
    base = ["--robot", "robot-01", "--home", str(tmp_path / "home"), "--driver"]
    url = ["--hub", "http://127.0.0.1:9"]
    (tmp_path / "bad.json").write_text("{")
    for argv in (
        [*base, "fak", *url],
        [*base, "fake", "--hub", "ftp://x"],
        [*base, "fake", *url, "--driver-config", str(tmp_path / "bad.json")],
        [*base, "fake", *url, "--driver-config", str(tmp_path / "none.json")],
    ):
        assert main(argv) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and err.startswith("flyball agent: ")
