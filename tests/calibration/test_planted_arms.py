import json
import sys
from dataclasses import replace

import arm_generator as arms
import mujoco
import numpy as np
import planted_arms
import pytest

from flyball.calibration.models.calibrate import read_model, rig_of
from flyball.calibration.recordings import problem_of
from flyball.engines.mujoco import MujocoEngine
from flyball.scenes import Parameter, Scene


@pytest.fixture(scope="module")
def arm():
    return arms.draw_arm(0, finer=1)


@pytest.fixture(scope="module")
def episodes(arm):
    return arms.record(arm)


def test_an_arm_is_the_same_whatever_else_is_drawn(arm):
    arms.draw_arm(5)
    assert arms.draw_arm(0, finer=1) == arm
    assert arms.draw_arm(1).mjcf != arm.mjcf and arms.draw_arm(0, seed=1).truth != arm.truth


def test_truths_lie_within_what_the_calibration_thinks_possible_and_off_what_the_owner_has(arm, episodes):
    for number, made in ((0, episodes), (1, None)):
        one = arms.draw_arm(number)
        asked = {"parameters": one.parameters} if one.parameters else {}
        scene = rig_of(read_model(one.mjcf), made or arms.record(one)[:1], **asked).scene
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


def test_the_truth_in_the_owners_model_moves_as_the_recordings_do(arm, episodes):
    rig = rig_of(read_model(arm.mjcf), episodes)
    problem = problem_of(rig, [rig.replay(e) for e in episodes[:2]], list(arm.truth))
    nominal = {p: rig.scene.parameter(p).nominal for p in arm.truth}
    truth, before = problem.errors(np.array([list(arm.truth.values()), list(nominal.values())])).mean(axis=1)
    assert truth < 5e-4 + arm.step  # noise, rounding and the start read off an encoder
    assert before > 20 * truth


def test_payload_and_gain_change_what_the_engine_changes_with_them(arm):
    own = mujoco.MjModel.from_xml_string(arm.mjcf)
    changed = arms._with(own, arm.truth)
    sim = MujocoEngine().open(Scene("arm", arm.mjcf, ()), 1, threads=1)
    mass = own.body("hand").mass + arm.truth["payload.mass"]
    sim.set({"body:hand.mass": mass, "actuator:elbow.gain": np.array([arm.truth["elbow.gain"]])})
    moments = np.sort(sim.get("body:hand.inertia")[0, :3])
    np.testing.assert_allclose(np.sort(changed.body("hand").inertia), moments, rtol=1e-9)
    elbow = changed.actuator("elbow")
    np.testing.assert_allclose(elbow.gainprm[0], sim.get("actuator:elbow.gain")[0])
    ratio = elbow.gainprm[0] / own.actuator("elbow").gainprm[0]
    np.testing.assert_allclose(elbow.biasprm[1:3], own.actuator("elbow").biasprm[1:3] * ratio)


def test_a_joint_that_is_not_moved_stays_and_the_others_move(arm, episodes):
    q = np.stack([e.signal("joint_states.position").values for e in episodes])
    span = np.ptp(q, axis=1).max(axis=0)
    for joint, kind in arm.motion.items():
        moved = span[arms.JOINTS.index(joint)]
        assert moved < 0.1 if kind == "held" else moved > 0.15, (joint, kind)


def test_information_of_an_offset_is_that_of_a_mean_and_of_a_braked_joint_there_is_none(arm):
    held = next(j for j, kind in arm.motion.items() if kind == "held")
    arm = replace(arm, truth={**arm.truth, f"{held}.friction": 10 * arm.truth[f"{held}.friction"]})  # no load turns it
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
    cautious, best = width[f"{moved}.offset"]
    assert cautious == pytest.approx(2 * 1.645 * sigma / np.sqrt(samples), rel=0.2)
    noise = np.hypot(arm.noise, arm.step / np.sqrt(12)) / 2000
    every = arms.EPISODES * arms.SECONDS * arm.sample_hz
    assert best == pytest.approx(2 * 1.645 * noise / np.sqrt(every), rel=0.2)
    assert arms.rule(*width[f"{held}.friction"]) == "unidentifiable"
    assert arms.rule(*width[f"{moved}.damping"]) == "identifiable"
    assert arms.rule(0.4, 0.3) == "between"


def row(number, rule, inside, identified, fitted=True):
    found = {"truth": 1.0, "width": 0.1, "rule": rule, "fitted": fitted, "inside": inside, "identified": identified}
    found |= {"band": 0.2, "error": -0.1} if fitted else {}
    return {
        "version": planted_arms.VERSION, "arm": number, "seed": 0, "finer": 4, "verdict": "improved", "cpu_s": 10.0,
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


def test_damping_in_the_joint_and_in_the_drive_cannot_be_told_apart():
    arm = next(a for a in map(arms.draw_arm, range(50)) if a.pairs and "full" in a.motion.values())
    joint = next(j for j, kind in arm.motion.items() if kind == "full")
    both = [f"{joint}.damping", f"{joint}.{arms.PAIR}"]
    ranges = [Parameter(p, "", arm.truth[p], arm.truth[p] / 10, arm.truth[p] * 10, "log") for p in both]
    together, alone = arms.information(arm, ranges), arms.information(arm, ranges[:1])
    assert alone[both[0]][0] < arms.IDENTIFIABLE
    assert together[both[0]][1] > 10 * alone[both[0]][0]  # even at best


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
