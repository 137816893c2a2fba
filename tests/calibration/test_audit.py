import json
import re
from dataclasses import replace

import numpy as np
import pytest

from flyball.apps.cli.main import main
from flyball.base import InputError
from flyball.base.workspace import Workspace
from flyball.calibration.audit import audit, quantum
from flyball.calibration.audit_setups import audit_episode, audit_setup
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import servo_episode
from flyball.episodes.catalogue import Catalogue

STEP = 2 * np.pi / 4096
TURN = 2 * np.pi


def wave(t, joint=0):
    """Smooth motion between 0.5 and 3 Hz; another for every joint."""
    t, f = np.asarray(t), 1 + 0.17 * joint
    return 0.7 * np.sin(3.1 * f * t + joint) + 0.25 * np.sin(11 * f * t) + 0.05 * np.sin(19 * f * t + 2 * joint)


def clock(seconds=8.0, period=0.005, jitter=0.0, seed=0):
    t = np.arange(0, seconds, period)
    return t + np.random.default_rng(seed).uniform(-jitter, jitter, len(t)) if jitter else t


def encoded(q):
    return np.round(q / STEP) * STEP


def levels(found, what):
    return {f.where: f.level for f in found.findings if f.what == what}


@pytest.mark.parametrize("delay", [0.0, 0.0123, 0.047, 0.151])
@pytest.mark.parametrize("jitter", [0.0, 0.001])
def test_a_planted_delay_is_found_between_samples_and_within_its_uncertainty(delay, jitter):
    t, tu = clock(jitter=jitter), clock(jitter=jitter, seed=1)
    found = audit((tu, wave(tu)), (t, encoded(wave(t - delay))))
    error, unsure = found.number("response delay") - delay, found.number("delay uncertainty")
    # A fifth of a sample: what a parabola through a smooth peak can do, and the quantum leaves.
    assert abs(error) < 0.001
    assert abs(error) <= unsure < 0.005
    assert not found.refused


def test_a_slow_drive_shows_as_a_delay_that_depends_on_the_motion():
    t = clock(10.0)
    u, q = np.sin(0.8 * t**2), np.zeros(len(t))
    v = 0.0
    for i in range(1, len(t)):
        v += 0.005 * (225 * (u[i - 1] - q[i - 1]) - 30 * v)
        q[i] = q[i - 1] + 0.005 * v
    slow, pure = audit((t, u), (t, q)), audit((t, u), (t, np.interp(t - 0.1, t, u)))
    assert slow.number("response delay") > 0.05
    assert slow.number("delay uncertainty") > 5 * pure.number("delay uncertainty")


def test_commands_of_a_slow_sender_make_the_delay_less_certain():
    t, tu = clock(), clock(period=0.05)
    held = wave(tu[np.searchsorted(tu, t - 0.03, side="right") - 1])
    found = audit((tu, wave(tu)), (t, held))
    assert abs(found.number("response delay") - 0.03) <= found.number("delay uncertainty") < 0.04


@pytest.mark.parametrize("step", [STEP, 360 / 4096, 1e-4, 1.0])
def test_the_quantum_is_found(step):
    q = np.round(60 * step * wave(clock()) / step) * step
    assert quantum(q) == pytest.approx(step, rel=1e-6)


def test_the_quantum_is_the_common_step_and_not_the_smallest_difference():
    assert quantum(0.1 * np.cumsum([2, 3, 2, 5, 3, 3, 2, 7, 2, 3])) == pytest.approx(0.1, rel=1e-6)
    assert quantum(wave(clock())) == 0
    assert quantum(np.ones(50)) == 0


def test_jitter_is_measured_and_a_change_of_rate_is_none():
    calm = audit(None, (clock(jitter=0.0005), wave(clock())))
    assert calm.number("jitter", "measured") == pytest.approx(0.0006, rel=0.3)  # of a difference of uniforms
    assert levels(calm, "jitter") == {"measured": "ok"}
    wild = audit(None, (clock(jitter=0.0024), wave(clock())))
    assert levels(wild, "jitter") == {"measured": "warning"}
    switched = np.cumsum(np.where(np.arange(1000) < 400, 0.003, 0.006))
    found = audit(None, (switched, wave(switched)))
    assert levels(found, "jitter") == {"measured": "ok"}
    assert found.number("slowest period") == pytest.approx(0.006)


def test_gaps_and_a_clock_that_jumps():
    t = clock()
    lost = audit((t, wave(t)), (np.delete(t, slice(500, 540)), wave(np.delete(t, slice(500, 540)))))
    gap = next(f for f in lost.findings if f.what == "gap")
    assert (gap.level, gap.where) == ("warning", "measured")
    assert gap.number == pytest.approx(0.205)
    assert "2.5 s" in gap.text or "2.49 s" in gap.text
    assert not lost.refused
    for jump in (3.0, -0.5):
        shifted = t + jump * (t > 4)
        found = audit((shifted, wave(t)), (shifted, wave(t)))
        assert found.refused
        assert found.number("clock jump", "measured") == pytest.approx(jump + 0.005)


def test_wrap_around_is_refused_and_seen_through():
    t = clock()
    q = wave(t) + np.pi - 0.1
    found = audit((t, q), (t, encoded((q + np.pi) % TURN - np.pi)))
    assert found.refused
    assert found.number("wrap-around") >= 4
    assert found.number("motion") == pytest.approx(np.ptp(q), abs=2 * STEP)
    assert audit(None, (t, np.degrees(q + np.pi) % 360), unit="deg").refused


def test_swapped_joints_are_named():
    t = clock()
    u = np.stack([wave(t, j) for j in range(6)], axis=1)
    q = np.stack([encoded(wave(t - 0.02, j)) for j in range(6)], axis=1)
    right = audit((t, u), (t, q))
    assert not right.refused
    assert [f.where for f in right.findings if f.what == "response delay"] == [f"joint {j}" for j in range(6)]
    swapped = audit((t, u), (t, q[:, [0, 1, 4, 3, 2, 5]]), joints=list("abcdef"))
    assert levels(swapped, "joint order") == {"c": "refuse", "e": "refuse"}
    assert any("e" in f.text for f in swapped.findings if f.what == "joint order" and f.where == "c")


def test_joints_that_move_alike_are_not_called_swapped():
    t = clock()
    found = audit((t, np.stack([wave(t)] * 2, axis=1)), (t, np.stack([wave(t - 0.02)] * 2, axis=1)))
    assert not found.refused


@pytest.mark.parametrize(
    ("command", "response", "said"),
    [
        (1, 180 / np.pi, "degrees"),
        (180 / np.pi, 1, "degrees"),
        (0.1, 100.0, "millimetres"),
        (180 / np.pi, 0.5, "degrees"),
    ],
)
def test_wrong_units_are_refused(command, response, said):
    t = clock()
    found = audit((t, command * wave(t)), (t, response * wave(t - 0.02)), unit="m" if said[0] == "m" else "rad")
    assert found.refused
    assert [said in f.text for f in found.findings if f.what == "unit"] == [True]


def test_a_soft_drive_is_no_wrong_unit_but_degrees_on_both_sides_are():
    t = clock()
    assert not audit((t, wave(t)), (t, 0.1 * wave(t - 0.02))).refused
    q = np.round(np.degrees(wave(t - 0.02)) / (360 / 4096)) * (360 / 4096)
    assert audit((t, np.degrees(wave(t))), (t, q)).refused
    assert not audit((t, np.degrees(wave(t))), (t, q), unit="deg").refused


def test_a_wrong_sign_and_a_clock_of_its_own_are_refused():
    t = clock()
    against = audit((t, wave(t)), (t, -wave(t - 0.02)))
    assert levels(against, "sign") == {"joint 0": "refuse"}
    early = audit((t, wave(t)), (t, wave(t + 0.06)))
    assert levels(early, "response delay") == {"joint 0": "refuse"}
    apart = audit((t + 1e4, wave(t)), (t, wave(t)))
    assert levels(apart, "overlap") == {"commands": "refuse"}


def test_what_does_not_follow_has_no_delay():
    t = clock()
    found = audit((t, wave(t)), (t, wave(t, joint=5)))
    assert levels(found, "correlation") == {"joint 0": "warning"}
    assert np.isnan(found.number("response delay"))


def test_responses_count_only_while_the_drive_is_on():
    t = clock()
    on = t < 5
    q = np.where(on, wave(t - 0.02), 3 * np.sin(5 * t))
    assert audit((t, wave(t)), (t, q), enabled=(t, on)).number("response delay") == pytest.approx(0.02, abs=0.001)
    off = audit((t, wave(t)), (t, np.zeros(len(t))), enabled=(t, np.zeros(len(t))))
    assert levels(off, "enabled") == {"drive": "warning"}
    assert not off.refused


def test_excitation():
    t = clock(10.0)
    found = audit((t, np.sin(TURN * t)), (t, np.sin(TURN * t)), limits=np.array([[-0.5, 0.5]]))
    assert found.number("motion") == pytest.approx(2, rel=1e-3)
    # The low-pass of 15 ms takes 0.4 % off at 1 Hz.
    assert found.number("peak speed") == pytest.approx(TURN, rel=0.01)
    assert found.number("rms speed") == pytest.approx(TURN / np.sqrt(2), rel=0.01)
    assert found.number("reversals") == 20
    assert found.number("command at limit") == pytest.approx(2 / 3, abs=0.01)  # |sin| > 1/2
    clipped = audit((t, wave(t)), (t, wave(t)), effort=(np.clip(2 * np.sin(TURN * t), -1, 1), 1.0))
    assert clipped.number("saturated") == pytest.approx(2 / 3, abs=0.01)
    once = audit((t, np.minimum(t, 1)), (t, np.minimum(t, 1)))
    assert levels(once, "reversals") == {"joint 0": "warning"}
    assert levels(once, "at rest") == {"joint 0": "warning"}
    assert any("4 or more reversals" in line for line in once.lines())


def test_a_joint_that_does_not_move_says_what_to_record():
    t = clock()
    still = audit((t, np.zeros(len(t))), (t, STEP * np.round(np.sin(t))))
    assert levels(still, "motion") == {"joint 0": "warning"}
    assert any("record" in line for line in still.lines())
    stuck = audit((t, wave(t)), (t, np.zeros(len(t))))
    assert levels(stuck, "response") == {"joint 0": "refuse"}


def test_impacts_of_what_nothing_drives():
    t = clock(2.0, 1 / 148)
    phase = t % 0.5
    bounce = 9.81 / 2 * phase * (0.5 - phase)  # four parabolas: three bounces
    rng = np.random.default_rng(0)
    found = audit(None, (t, np.stack([bounce, 0.2 * t], axis=1) + rng.normal(0, 0.0003, (len(t), 2))), unit="m")
    assert found.number("impacts") == 3
    free = audit(None, (t[:70], (2 * t - 4.905 * t**2)[:70]), unit="m")
    assert free.number("impacts") == 0
    assert any("not excited" in line for line in audit_setup("cube", [free]).lines())


def test_bad_input_is_one_line():
    t = clock()
    for measured in ((t, np.full(len(t), np.nan)), (t[:3], wave(t[:3])), (t[:-1], wave(t)), (t, np.zeros((len(t), 2)))):
        with pytest.raises(InputError) as caught:
            audit((t, wave(t)), measured)
        assert "\n" not in str(caught.value)


def episodes(still=False, kps=(100, 200)):
    t = clock(4.0)
    move = 0.0 if still else 1.0
    return [servo_episode(f"r{kp}", kp, t, move * wave(t), move * encoded(wave(t - 0.02))) for kp in kps]


def test_one_recording_without_motion_does_not_refuse_a_set_up_but_all_do():
    rig = ServoPendulum()
    move, still = (audit_episode(episodes(s, (100,))[0], rig) for s in (False, True))
    assert not audit_setup("bench", [move, still]).refusals
    refusals = audit_setup("bench", [still, still]).refusals
    assert len(refusals) == 1
    assert "no motion" in refusals[0]
    assert "record" in refusals[0]


def stored(path, made):
    space = Workspace(path)
    catalogue = Catalogue(space.store)
    for e in made:
        catalogue.add(replace(e, labels=e.labels | {"joint_states.name": ["servo"]}), producer="test")
    return space


def test_the_verb_prints_the_audit_and_stops(tmp_path, capsys):
    stored(tmp_path / "w", episodes())
    assert main(["calibrate", "--audit", "--workspace", str(tmp_path / "w")]) == 0
    said = capsys.readouterr().out
    assert "servo-pendulum: 2 recordings, can be fitted" in said
    assert "0.00153 rad" in said
    assert re.search(r"20(\.\d+)? \+- 0\.\d+ ms", said)
    assert main(["calibrate", "--audit", "--json", "--workspace", str(tmp_path / "w")]) == 0
    document = json.loads(capsys.readouterr().out)
    assert [r["name"] for r in document["audits"][0]["recordings"]] == ["r100", "r200"]


def test_the_verb_refuses_recordings_without_motion(tmp_path, capsys):
    stored(tmp_path / "w", episodes(still=True))
    assert main(["calibrate", "--audit", "--workspace", str(tmp_path / "w")]) == 1
    assert "no motion" in capsys.readouterr().out
    assert main(["calibrate", "--workspace", str(tmp_path / "w")]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1
    assert "no motion" in error[0]
    assert "record 10 s" in error[0]


def test_real_servo_recordings(realdata, tmp_path, capsys):
    where = ["--workspace", str(tmp_path / "w")]
    assert main(["ingest", str(realdata / "servo_xl330"), *where]) == 0
    capsys.readouterr()
    assert main(["calibrate", "--audit", "--json", *where]) == 0
    recordings = json.loads(capsys.readouterr().out)["audits"][0]["recordings"]
    assert len(recordings) == 16
    steps = [f["number"] for r in recordings for f in r["findings"] if f["what"] == "quantum"]
    assert steps == pytest.approx([STEP] * 16, rel=1e-6)
    delays = [f["number"] for r in recordings for f in r["findings"] if f["what"] == "response delay"]
    # Fits say 5 to 14 ms; the soft drive's own lag comes on top.
    assert delays
    assert min(delays) > 0.005
