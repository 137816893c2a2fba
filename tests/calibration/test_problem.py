import numpy as np
import pytest

from flyball.base import InputError, Missing, Unsupported
from flyball.calibration.problem import ReplayProblem
from flyball.calibration.rigs.servo import ServoPendulum
from flyball.calibration.testing import TRUTH

RIG = ServoPendulum()


def problem(episodes, paths=tuple(TRUTH), **options):
    return ReplayProblem(RIG.scene, RIG.compared, [RIG.replay(e) for e in episodes], paths, engine="servo", **options)


def test_the_truth_leaves_no_more_than_the_noise(bench):
    p = problem(bench)
    errors = p.errors(np.array([list(TRUTH.values())]))
    assert errors.shape == (1, len(bench)) and errors.max() < 0.0012  # quantum 1.5 mrad, noise 0.5 mrad
    assert p.errors(np.array([[q.nominal for q in p.parameters]])).mean() > 0.05


def test_vectors_in_a_batch_are_the_vectors_alone(bench):
    rng = np.random.default_rng(0)
    x = np.array(list(TRUTH.values())) * rng.uniform(0.7, 1.3, (5, len(TRUTH)))
    together = problem(bench).residuals(x)
    np.testing.assert_array_equal(together, problem(bench, worlds=len(bench)).residuals(x))
    np.testing.assert_array_equal(together[3:4], problem(bench).residuals(x[3:4]))


def test_a_second_call_forgets_the_first(bench):
    p = problem(bench)
    x = np.array([list(TRUTH.values())])
    first = p.residuals(x)
    p.residuals(x * 1.3)
    np.testing.assert_array_equal(first, p.residuals(x))


def test_groups_label_every_residual(bench):
    p = problem(bench, stride=4)
    r = p.residuals(np.array([list(TRUTH.values())]))[0]
    for kind in ("episode", "regime"):
        assert p.groups[kind].shape == r.shape
    assert set(p.groups["regime"]) == {"kp 100", "kp 200", "kp 400", "kp 800"}


def test_delay_and_offset_act_on_command_and_sensor(bench):
    p = problem(bench[:1], ("servo.delay_s", "servo.offset"))
    none, late, shifted = p.predict(np.array([[0.0, 0.0], [0.02, 0.0], [0.0, 0.05]]))[..., 0]
    t = RIG.replay(bench[0]).t
    # A delay shifts the motion once the start has been forgotten.
    settled = t > 1.5
    np.testing.assert_allclose(late[settled], np.interp(t - 0.02, t, none)[settled], atol=0.01)
    assert not np.allclose(late[settled], none[settled], atol=0.01)
    assert shifted[0] == pytest.approx(none[0])  # the start is where the sensor says
    assert np.mean(np.abs(shifted - none)) > 0.01


def test_gain_of_the_firmware_comes_from_the_recording(bench):
    p = problem(bench, ("servo.gain",))
    by_kp = [np.ptp(p.predict(np.array([[0.0029]]))[0][p._episode == i]) for i in (0, 6)]  # sweeps at kp 100 and 800
    assert by_kp[1] > 1.5 * by_kp[0]


def test_an_engine_without_a_field_refuses_its_parameter_but_not_its_absence(bench):
    replays = [RIG.replay(bench[0])]
    fine = ReplayProblem(RIG.scene, RIG.compared, replays, ["servo.gain"], engine="mujoco")
    assert np.isfinite(fine.residuals(np.array([[0.003]]))).all()
    odd = ReplayProblem(RIG.scene, RIG.compared, replays, ["servo.load_friction"], engine="mujoco")
    with pytest.raises(Unsupported, match=r"servo\.load_friction"):
        odd.residuals(np.array([[0.2]]))


def test_engines_agree_on_the_bench(bench):
    replays = [RIG.replay(e) for e in bench]
    x = np.array([list(TRUTH.values())])
    a, b = (
        ReplayProblem(RIG.scene, RIG.compared, replays, tuple(TRUTH), engine=e).predict(x) for e in ("mujoco", "servo")
    )
    assert np.abs(a - b).mean() < 0.01


def test_unknown_parameters_and_no_recordings_are_refused(bench):
    with pytest.raises(Missing, match=r"servo\.gian"):
        problem(bench, ("servo.gian",))
    with pytest.raises(InputError, match="no recordings"):
        problem([])
