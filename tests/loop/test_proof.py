"""The choice between the deployed policy and a newly trained one, both told the same."""

from types import SimpleNamespace

import pytest

from flyball.evaluation.verdicts import ComparisonRule
from flyball.loop import proof
from flyball.loop.attempts import unhealed
from flyball.loop.stages import Stages, Standing


def stages(notes):
    made = Stages.__new__(Stages)
    made.budget = SimpleNamespace(rule=ComparisonRule(n_max=320), pairs=64)
    made.display = SimpleNamespace(stage=lambda *a: None, at=lambda *a: None, note=notes.append)
    made.seconds, made.number, made.again = {}, 2, False
    made.task = SimpleNamespace(name="some-task-v1")
    return made


def pairs(wins, losses, both, neither):
    """One batch of trials with these counts, the trained policy's first."""
    counts = [(True, False)] * wins + [(False, True)] * losses + [(True, True)] * both + [(False, False)] * neither
    sides = [[{"outcome": "success" if pair[side] else "failure"} for pair in counts] for side in (0, 1)]
    return ["robot-01"] * len(counts), list(range(len(counts))), sides


@pytest.mark.parametrize(
    ("wins", "losses", "taken"),
    [(31, 2, True), (8, 1, True), (2, 6, False), (6, 4, False), (0, 0, False), (1, 0, False), (2, 0, True)],
)
def test_a_new_policy_is_taken_only_when_it_is_better(monkeypatch, wins, losses, taken):
    batches = [pairs(wins, losses, 50, 3)]
    sides = []
    monkeypatch.setattr(proof, "_paired", lambda *a: (sides.append(a[-1]), iter(batches))[1])
    told = {"robot-01": (4.0, 6.0)}
    notes = []
    assert proof.preferred(stages(notes), Standing("turn-001", "deployed"), "trained", told) == taken
    assert sides == [(("trained", told), ("deployed", told))], "both are told the same"
    assert ("the deployed one stays" in notes[0]) != taken


def test_once_it_is_clear_no_more_pairs_are_simulated(monkeypatch):
    seen = []

    def batches(*_):
        for _ in range(5):
            seen.append(64)
            yield pairs(30, 1, 30, 3)

    monkeypatch.setattr(proof, "_paired", batches)
    assert proof.preferred(stages([]), Standing("turn-001", "deployed"), "trained", {})
    assert len(seen) == 1


def tried(robot, successes, failures):
    outcomes = ["success"] * successes + ["failure"] * (failures - 1) + ["aborted"] * (failures > 0)
    return [SimpleNamespace(robot=robot, outcome=o) for o in outcomes]


def test_who_fails_in_more_than_a_quarter_of_its_attempts_is_looked_at_again():
    episodes = tried("a", 8, 0) + tried("b", 6, 2) + tried("c", 5, 3) + tried("d", 0, 8)
    assert unhealed(episodes, ["a", "b", "c", "d", "silent"]) == ["c", "d"]
