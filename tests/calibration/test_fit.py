import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flyball.base import InputError
from flyball.calibration.fit import (
    bootstrap_minima,
    cma_es,
    from_unit,
    jackknife,
    least_squares,
    starts,
    to_unit,
    weights,
)
from flyball.scenes import Parameter

GAIN = Parameter("gain", "", 1.0, 0.1, 10.0, "log")
RATE = Parameter("rate", "1/s", 1.0, 0.0, 5.0)


class Decay:
    """gain exp(-rate t) on four recordings; the last is of another body."""

    parameters = (GAIN, RATE)

    def __init__(self, gain=3.0, rate=2.0, odd=0.0):
        self.t = np.tile(np.linspace(0, 1, 25), 4)
        self.groups = {"episode": np.repeat(np.array(["a", "b", "c", "odd"]), 25)}
        self.y = gain * np.exp(-rate * self.t) + odd * (self.groups["episode"] == "odd")
        self.calls = 0

    def residuals(self, values):
        self.calls += len(values)
        return values[:, :1] * np.exp(-values[:, 1:] * self.t) - self.y

    def errors(self, values):
        return np.abs(self.residuals(values)).reshape(len(values), 4, 25).mean(axis=2)


@settings(max_examples=15, deadline=None)
@given(gain=st.floats(0.3, 8.0), rate=st.floats(0.2, 4.5), seed=st.integers(0, 1000))
def test_least_squares_finds_what_made_the_data(gain, rate, seed):
    problem = Decay(gain, rate)
    (fit,) = least_squares(problem, weights(problem, [()]), seed=seed, starts_per_row=3)
    np.testing.assert_allclose(fit.best, [gain, rate], rtol=1e-3, atol=1e-3)
    assert fit.costs[0] == fit.costs.min() < 1e-5
    assert fit.evaluations == problem.calls


def test_rows_are_fitted_without_what_they_leave_out():
    problem = Decay(odd=2.0)
    everything, without = least_squares(problem, weights(problem, [(), ("odd",)]), seed=0, starts_per_row=2)
    np.testing.assert_allclose(without.best, [3.0, 2.0], rtol=1e-3)
    assert abs(everything.best[0] - 3.0) > 0.05


def test_an_optimum_outside_the_range_is_met_on_its_bound():
    problem = Decay(gain=14.0, rate=2.0)
    (fit,) = least_squares(problem, weights(problem, [()]), seed=0, starts_per_row=2)
    assert fit.best[0] == pytest.approx(GAIN.high)


def test_the_same_seed_gives_the_same_bits():
    runs = []
    for _ in range(2):
        problem = Decay(odd=1.0)
        fit, losses = cma_es(problem, seed=3, generations=5)
        (smooth,) = least_squares(problem, weights(problem, [()]), seed=3, starts_per_row=4)
        runs.append((fit.values, losses, smooth.values))
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_cma_es_ranks_everything_it_saw_and_stays_in_range():
    problem = Decay()
    fit, losses = cma_es(problem, seed=0, generations=25)
    np.testing.assert_allclose(fit.best, [3.0, 2.0], rtol=0.05)
    assert (np.diff(fit.costs) >= 0).all() and losses.shape == (len(fit.values), 4)
    assert (fit.values >= [0.1, 0.0]).all() and (fit.values <= [10.0, 5.0]).all()


def test_bootstrap_moves_with_the_recordings_that_disagree():
    candidates = np.array([[0.0], [1.0]])
    losses = np.array([[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 0.0, 0.0]])
    share = bootstrap_minima(candidates, losses, draws=2000, seed=0).mean()
    # A tie of two against two (3/8) goes to the first candidate: P(more of the second) = 5/16.
    assert share == pytest.approx(5 / 16, abs=0.03)


def test_weights_count_recordings_not_samples():
    class Uneven:
        groups = {"episode": np.array(["long"] * 9 + ["short"])}  # noqa: RUF012

    rows = weights(Uneven(), [(), ("long",)])
    assert rows[0, :9].sum() == pytest.approx(0.5) and rows[0, 9] == pytest.approx(0.5)
    assert rows[1].tolist() == [0.0] * 9 + [1.0]
    with pytest.raises(InputError, match="nothing is left"):
        weights(Uneven(), [("long", "short")])


def test_starts_begin_at_the_nominal_and_never_on_a_bound():
    u = starts((GAIN, RATE), 8, seed=1)
    assert u.shape == (8, 2)
    np.testing.assert_allclose(from_unit((GAIN, RATE), u[0]), [1.0, 1.0])
    assert (u > 0).all() and (u < 1).all()
    np.testing.assert_allclose(to_unit((GAIN, RATE), from_unit((GAIN, RATE), u)), u)


def test_the_jackknife_moves_a_mean_by_its_standard_error():
    class Mean:
        """A constant seen in eight recordings, each with an offset of its own."""

        parameters = (Parameter("level", "m", 0.5, 0.0, 1.0),)
        offsets = np.random.default_rng(3).normal(0, 0.02, 8)
        groups = {"episode": np.repeat([f"r{i}" for i in range(8)], 5)}  # noqa: RUF012

        def residuals(self, values):
            return values[:, :1] - 0.4 - np.repeat(self.offsets, 5)

    problem = Mean()
    (fit,) = least_squares(problem, weights(problem, [()]), seed=0, starts_per_row=1)
    moves = jackknife(problem, fit, [f"r{i}" for i in range(8)])
    assert moves.shape == (8, 1)
    assert np.std(moves) == pytest.approx(np.std(problem.offsets, ddof=1) / np.sqrt(8), rel=0.02)
    assert not jackknife(problem, fit, ["r0"]).any()
