"""The rollout: its invariants under any order of events, and whole stories."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from flyball.base import InputError
from flyball.evaluation import CanaryVerdict
from flyball.fleet.rollout import Rollout

OLD, NEW = "turn-000", "turn-001"


class After:
    """Decides after n outcomes: more failures than allowed abort, an incident aborts at once."""

    def __init__(self, n=4, allowed=1):
        self.n, self.allowed, self.seen = n, allowed, []

    def update(self, success, *, incident=False):
        self.seen.append(success)
        if incident or self.seen.count(False) > self.allowed:
            return "abort"
        return "promote" if len(self.seen) >= self.n else "continue"


class Fleet(RuleBasedStateMachine):
    """Robots that lag, repeat themselves, refuse, join late; a driver that dies and resumes from JSON."""

    @initialize(n=st.integers(1, 5), k=st.integers(1, 3), first=st.booleans())
    def begin(self, n, k, first):
        self.old = "" if first else OLD
        names = tuple(f"robot-{i}" for i in range(n))
        self.rollout = Rollout(NEW, self.old, names, names[: min(k, n)])
        self.k = len(self.rollout.canaries)
        self.really = dict.fromkeys(names, self.old)  # what runs on each robot
        self.fetched = dict.fromkeys(names, self.old)  # the newest order each robot has read
        self.mail = []  # messages that may come late, twice, or in another order
        self.attempts = 0
        self.test = After()
        self.promoted = False

    def robot(self, data):
        return data.draw(st.sampled_from(sorted(self.really)))

    @rule()
    def start(self):
        self.rollout = self.rollout.start()

    @rule(data=st.data())
    def fetch(self, data):
        robot = self.robot(data)
        self.fetched[robot] = self.rollout.wanted[robot]

    @rule(data=st.data())
    def install(self, data):
        robot = self.robot(data)
        self.really[robot] = self.fetched[robot]
        self.mail.append(("report", robot, self.really[robot]))

    @rule(data=st.data(), success=st.booleans(), incident=st.integers(0, 9))
    def attempt(self, data, success, incident):
        robot = self.robot(data)
        self.attempts += 1
        self.mail.append(("outcome", robot, f"log-{self.attempts}", self.really[robot], success, incident == 0))

    @rule(data=st.data())
    def refuse(self, data):
        robot = self.robot(data)
        if self.fetched[robot] == NEW != self.really[robot]:
            self.mail.append(("refuse", robot, "another body"))

    @rule(n=st.integers(5, 7))
    def join(self, n):
        if f"robot-{n}" not in self.really:
            self.really[f"robot-{n}"] = self.fetched[f"robot-{n}"] = self.old
            self.rollout = self.rollout.report(f"robot-{n}", self.old)

    @precondition(lambda self: self.mail)
    @rule(data=st.data(), keep=st.booleans())
    def deliver(self, data, keep):
        i = data.draw(st.integers(0, len(self.mail) - 1))
        message = self.mail[i] if keep else self.mail.pop(i)
        before = self.rollout
        if message[0] == "report":
            # Reports of one robot arrive in order (a status replaces the one before): drop the stale.
            if message[2] == self.really[message[1]]:
                self.rollout = self.rollout.report(*message[1:])
        elif message[0] == "refuse":
            self.rollout = self.rollout.refuse(*message[1:])
        else:
            *args, incident = message[1:]
            self.rollout = self.rollout.outcome(self.test, *args, incident=incident)
        if self.rollout != before:
            assert len(self.rollout.rows) > len(before.rows), "every change leaves a row"

    @rule()
    def kill_and_resume(self):
        self.rollout = Rollout.from_json(json.loads(json.dumps(self.rollout.to_json())))
        self.test = self.rollout.resume(After())

    @rule(p=st.integers(0, 9))
    def abandon(self, p):
        if p == 0:
            self.rollout = self.rollout.abandon("the operator says so")

    @invariant()
    def never_more_than_the_canaries_on_an_unproven_release(self):
        if not hasattr(self, "rollout"):
            return
        kinds = {row.kind for row in self.rollout.rows}
        if "promoting" not in kinds:
            new = [r for r, release in self.really.items() if release == NEW]
            asked = [r for r, release in self.rollout.wanted.items() if release == NEW]
            assert len(new) <= self.k and len(asked) <= self.k
            assert set(new) | set(asked) <= set(self.rollout.canaries)

    @invariant()
    def every_robot_is_asked_for_the_old_release_or_the_new(self):
        if hasattr(self, "rollout"):
            assert set(self.rollout.wanted.values()) <= {self.old, NEW}
            assert set(self.rollout.wanted) == set(self.rollout.robots)

    @invariant()
    def each_attempt_counts_once_and_only_on_a_canary_with_the_new_release(self):
        if hasattr(self, "rollout"):
            counted = [row.attempt for row in self.rollout.counted]
            assert len(counted) == len(set(counted))
            assert self.test.seen == [row.success for row in self.rollout.counted]
            assert {row.robot for row in self.rollout.counted} <= set(self.rollout.canaries)

    def teardown(self):
        if not hasattr(self, "rollout"):
            return
        r = self.rollout
        if r.phase in ("candidate", "canary"):
            r = r.abandon("nothing more comes")
        for robot in self.really:  # everyone reads the newest order, installs, reports
            self.really[robot] = r.wanted.get(robot, self.old)
            r = r.report(robot, self.really[robot])
        for robot in self.really:  # robots that joined on the way were told later
            self.really[robot] = r.wanted[robot]
            r = r.report(robot, self.really[robot])
        assert r.ended and not r.lagging
        if r.phase == "rolled_back":
            assert set(self.really.values()) == {self.old}
        else:
            assert all(self.really[x] == (self.old if x in r.refusals else NEW) for x in self.really)


TestFleet = Fleet.TestCase
TestFleet.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def canary(n=6, k=1):
    names = tuple(f"robot-{i}" for i in range(n))
    r = Rollout(NEW, OLD, names, names[:k])
    for name in names:
        r = r.report(name, OLD)
    return r.start()


def test_a_good_release_goes_to_everyone():
    r, test = canary(), After()
    assert [x for x, release in r.wanted.items() if release == NEW] == ["robot-0"]
    r = r.report("robot-0", NEW)
    for i in range(4):
        r = r.outcome(test, "robot-0", f"log-{i}", NEW, True)
    assert r.phase == "promoting" and set(r.wanted.values()) == {NEW} and len(r.lagging) == 5
    for name in r.robots:
        r = r.report(name, NEW)
    assert r.phase == "done" and r.ended
    assert [row.kind for row in r.rows if row.kind in ("canary", "promoting", "done")] == [
        "canary",
        "promoting",
        "done",
    ]
    assert "4 of 4" in next(row.text for row in r.rows if row.kind == "promoting")
    late = r.report("robot-9", OLD)
    assert late.wanted["robot-9"] == NEW, "who joins later gets it too"


@pytest.mark.parametrize("how", ["failures", "incident", "refusal", "abandoned", "stray"])
def test_whatever_speaks_against_it_brings_everyone_back(how):
    r, test = canary(), After()
    r = r.report("robot-0", NEW)
    if how == "failures":
        for i in range(2):
            r = r.outcome(test, "robot-0", f"log-{i}", NEW, False)
    elif how == "incident":
        r = r.outcome(test, "robot-0", "log-0", NEW, True, incident=True)
    elif how == "refusal":
        r = r.refuse("robot-0", "other embodiment")
    elif how == "abandoned":
        r = r.abandon("took too long")
    else:
        r = r.report("robot-4", NEW)
    assert r.phase == "rolling_back" and set(r.wanted.values()) == {OLD}
    back = r.report("robot-0", OLD).report("robot-4", OLD)
    assert back.phase == "rolled_back" and back.ended
    frozen = back.outcome(test, "robot-0", "log-9", NEW, True).refuse("robot-0", "late").abandon("late").start()
    assert frozen == back


def test_what_does_not_belong_to_the_canary_does_not_count():
    r, test = canary(), After()
    for robot, release in (("robot-1", NEW), ("robot-0", OLD), ("robot-9", NEW)):
        assert r.outcome(test, robot, "log", release, False) == r
    once = r.outcome(test, "robot-0", "log", NEW, False)
    assert once.outcome(test, "robot-0", "log", NEW, False) == once and test.seen == [False]


def test_a_robot_that_refuses_after_the_verdict_stays_on_the_old():
    r, test = canary(n=3), After()
    for i in range(4):
        r = r.outcome(test, "robot-0", f"log-{i}", NEW, True)
    r = r.report("robot-0", NEW).report("robot-1", NEW).refuse("robot-2", "other embodiment")
    assert r.phase == "done" and r.wanted["robot-2"] == OLD and "robot-2" in r.rows[-1].text


@settings(max_examples=40, deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=80))
def test_the_verdict_of_the_evaluation_package_drives_it_and_survives_a_kill_at_any_moment(outcomes):
    def fresh():
        return CanaryVerdict(0.9, 0.5)

    r, test = canary(), fresh()
    s = r
    for i, success in enumerate(outcomes):
        r = r.outcome(test, "robot-0", str(i), NEW, success)
        s = s.outcome(s.resume(fresh()), "robot-0", str(i), NEW, success)
    assert r == s
    assert r.phase == {"continue": "canary", "promote": "promoting", "abort": "rolling_back"}[test.verdict]


@pytest.mark.parametrize(
    ("release", "robots", "canaries"),
    [(OLD, ("a",), ("a",)), ("", ("a",), ("a",)), (NEW, ("a",), ()), (NEW, ("a",), ("b",))],
)
def test_a_senseless_plan_is_refused(release, robots, canaries):
    with pytest.raises(InputError, match="rollout"):
        Rollout(release, OLD, robots, canaries)
