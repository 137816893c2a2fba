import json
import sys

import arm_generator as arms
import numpy as np
import planted_arms
import pytest

from flyball.calibration.models.calibrate import read_model, rig_of
from flyball.scenes import Parameter


@pytest.fixture(scope="module")
def arm():
    return arms.draw_arm(0)


@pytest.fixture(scope="module")
def episodes(arm):
    return arms.record(arm)


def test_an_arm_is_the_same_whatever_else_is_drawn(arm):
    arms.draw_arm(5)
    assert arms.draw_arm(0) == arm
    assert arms.draw_arm(1).mjcf != arm.mjcf and arms.draw_arm(0, seed=1).truth != arm.truth


def test_truths_lie_within_what_the_calibration_thinks_possible_and_off_what_the_owner_has(arm, episodes):
    for number, made in ((0, episodes), (1, None)):
        one = arms.draw_arm(number)
        scene = rig_of(read_model(one.mjcf), made or arms.record(one)[:1]).scene
        for path, truth in one.truth.items():
            p = scene.parameter(path)
            assert p.low < truth < p.high, path
            assert abs(truth - p.nominal) > 1e-4 * (p.high - p.low), path


def test_the_recorder_counts_encoder_steps_and_is_late(arm, episodes):
    assert len(episodes) == arms.EPISODES
    for e in episodes:
        seen, sent = e.signal("joint_states.position"), e.signal("joint_commands.position")
        steps = seen.values / arm.step
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-6)
        assert np.diff(seen.t_ns).min() > 0 and sent.values.shape[1] == 6
        hz = 1e9 * (len(seen.t_ns) - 1) / (seen.t_ns[-1] - seen.t_ns[0])
        assert hz == pytest.approx(arm.sample_hz, rel=0.01)


def test_a_joint_that_is_not_moved_stays_and_the_others_move(arm, episodes):
    q = np.stack([e.signal("joint_states.position").values for e in episodes])
    span = np.ptp(q, axis=1).max(axis=0)
    for joint, kind in arm.motion.items():
        moved = span[arms.JOINTS.index(joint)]
        assert moved < 0.1 if kind == "held" else moved > 0.15, (joint, kind)


def test_information_of_an_offset_is_that_of_a_mean_and_of_a_braked_joint_there_is_none(arm):
    held = next(j for j, kind in arm.motion.items() if kind == "held")
    moved = next(j for j, kind in arm.motion.items() if kind == "full")
    said = {k: arm.truth[f"{held}.{k}"] for k in ("friction", "damping")}
    width = arms.information(
        arm,
        [
            Parameter(f"{moved}.offset", "rad", 0.0, -1000.0, 1000.0),
            *(Parameter(f"{held}.{k}", "", x, x / 10, x * 10, "log") for k, x in said.items()),
            Parameter(f"{moved}.damping", "", 1.0, arm.truth[f"{moved}.damping"] / 10, 10.0, "log"),
        ],
    )
    samples = arms.EPISODES * (1 + int(arms.SECONDS / arms.CORRELATED_S))
    sigma = max(arm.step, 1e-3) / 2000
    assert width[f"{moved}.offset"] == pytest.approx(2 * 1.645 * sigma / np.sqrt(samples), rel=0.2)
    assert width[f"{held}.damping"] >= arms.UNIDENTIFIABLE
    assert width[f"{moved}.damping"] <= arms.IDENTIFIABLE


def row(number, rule, inside, identified, fitted=True):
    found = {"truth": 1.0, "width": 0.1, "rule": rule, "fitted": fitted, "inside": inside, "identified": identified}
    found |= {"band": 0.2, "error": -0.1} if fitted else {}
    return {
        "version": planted_arms.VERSION, "arm": number, "seed": 0, "finer": 1, "verdict": "improved", "cpu_s": 10.0,
        "before": 0.1, "after": 0.01, "coverage": 0.9, "parameters": {"elbow.gain": found},
    }  # fmt: skip


def test_what_is_left_out_counts_as_missed_and_what_lies_between_in_neither():
    rows = [
        row(0, "identifiable", True, True), row(1, "identifiable", False, False, fitted=False),
        row(2, "unidentifiable", True, False), row(3, "unidentifiable", True, True), row(4, "between", False, True),
    ]  # fmt: skip
    s = planted_arms.summary(rows)
    assert (s["identifiable"], s["inside"], s["left_out"], s["missed"]) == (2, 1, 1, 1)
    assert (s["unidentifiable"], s["declared"]) == (2, 1)
    assert s["kinds"]["gain"]["identifiable"] == 2 and s["arms"] == 5


def test_a_run_goes_on_where_it_was_stopped(monkeypatch, tmp_path, capsys):
    run = []
    monkeypatch.setattr(
        planted_arms, "run_arm", lambda n, seed, finer: run.append(n) or row(n, "identifiable", True, True)
    )
    file = tmp_path / "arms.jsonl"
    for arms_wanted in ("2", "4"):
        monkeypatch.setattr(sys, "argv", ["planted_arms.py", "--arms", arms_wanted, "--json", str(file)])
        planted_arms.main()
    assert run == [0, 1, 2, 3]
    assert [json.loads(x)["arm"] for x in file.read_text().splitlines()] == [0, 1, 2, 3]
    assert "4 arms" in capsys.readouterr().out
