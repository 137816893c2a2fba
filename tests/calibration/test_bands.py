import numpy as np
import pytest

from flyball.base import InputError
from flyball.calibration.bands import LeftOut, learn_bands


def group(rng, n=400, error=0.0, spread=0.01, centre=0.0, drift=0.0):
    """A recording of zeros: predictions of 30 samples around a centre that is off by ``error``, growing with time."""
    elapsed = np.linspace(0, 10, n)
    members, wrong = rng.normal(0, spread, (30, 1, 1)), rng.normal(0, 1, (n, 1)) * (error + drift * elapsed[:, None])
    return LeftOut(lambda factor: np.repeat(centre + factor * members, n, axis=1), wrong, elapsed)


def test_bands_of_a_right_model_are_those_of_its_samples_and_the_sensor():
    rng = np.random.default_rng(0)
    bands = learn_bands([group(rng, error=0.001, spread=0.01) for _ in range(4)], noise=0.001)
    assert bands.widened == 1.0 and max(bands.discrepancy) == 0.0


def test_model_error_between_groups_is_added_until_ninety_percent_lie_within():
    rng = np.random.default_rng(1)
    groups = [group(rng, error=0.05, spread=0.001) for _ in range(6)]
    bands = learn_bands(groups[:5], noise=0.001)
    assert bands.inner_coverage == pytest.approx(0.9, abs=0.005)
    last = groups[5]
    share = bands.inside(last.predict(bands.widened), last.measured, last.elapsed).mean()
    assert share == pytest.approx(0.9, abs=0.04)


def test_errors_that_add_up_widen_the_bands_with_time():
    rng = np.random.default_rng(2)
    bands = learn_bands([group(rng, spread=1e-4, drift=0.01) for _ in range(5)], noise=0.001)
    assert (np.diff(bands.discrepancy) > 0).all()
    low, high = bands.limits(np.zeros((3, 2, 1)), np.array([0.5, 99.0]))
    assert (high - low)[1] > 2 * (high - low)[0]


def test_every_group_counts_the_same_however_long():
    rng = np.random.default_rng(3)
    short = [group(rng, n=50, error=0.1, spread=1e-4) for _ in range(3)]
    long = group(rng, n=5000, error=0.001, spread=1e-4)
    bands = learn_bands([*short, long], noise=0.0)
    assert max(bands.discrepancy) > 0.05


def test_samples_are_spread_where_that_makes_narrower_bands():
    """Predictions whose own spread is too small by half, largest where they are most wrong."""
    rng = np.random.default_rng(4)
    n = 600
    scale = np.where(np.arange(n) < n / 2, 0.001, 0.1)[:, None]
    groups = []
    for _ in range(5):
        members = rng.normal(0, 1, (60, 1, 1)) * scale
        elapsed = rng.permutation(np.linspace(0, 1, n))  # no block of time has it all
        groups.append(LeftOut(lambda f, m=members: f * m, 2 * scale * rng.normal(0, 1, (n, 1)), elapsed))
    bands = learn_bands(groups, noise=0.0)
    assert bands.widened >= 1.5
    assert bands.inner_coverage >= 0.88


def test_nothing_left_out_is_refused():
    with pytest.raises(InputError, match="left out"):
        learn_bands([], 0.1)


def test_what_was_fitted_narrows_bands_of_refits_that_know_less():
    rng = np.random.default_rng(5)
    left = [group(rng, error=0.08, spread=1e-4) for _ in range(3)]
    plain = learn_bands(left, noise=0.0)
    both = learn_bands(left, noise=0.0, fitted=group(rng, error=0.02, spread=1e-4))
    # 0.632 F(x / 0.08) + 0.368 F(x / 0.02) = 0.9 at x = 0.113 for the half-normal F; the left out alone: 0.132.
    assert np.mean(plain.discrepancy) == pytest.approx(0.132, rel=0.06)
    assert np.mean(both.discrepancy) == pytest.approx(0.113, rel=0.06)
