"""The ensemble update, against what a linear law with normal noise has in closed form."""

import numpy as np
import pytest

from flyball.calibration.explain.posterior import TEMPER, tempered, updated

NOISE = 0.05


def replays(rng, k, slope, prior):
    units = rng.multivariate_normal(prior[0], prior[1], size=k)
    return units, units @ slope + NOISE * rng.standard_normal((k, slope.shape[1]))


def test_a_linear_law_gives_the_posterior_of_the_textbook():
    rng = np.random.default_rng(0)
    prior = np.array([0.4, 0.6, 0.5]), np.diag([0.2, 0.03, 0.03]) ** 2
    slope = rng.standard_normal((3, 20))
    units, sims = replays(rng, 400, slope, prior)
    truth = np.array([0.7, 0.61, 0.47])
    real = truth @ slope + NOISE * rng.standard_normal(20)
    mean, cov = updated(units, sims, real, np.full(400, 1 / 400), np.full(20, NOISE), prior)
    exact = np.linalg.inv(np.linalg.inv(prior[1]) + TEMPER * slope @ slope.T / NOISE**2)
    assert np.abs(mean - truth).max() < 4 * np.sqrt(exact.diagonal()).max()
    np.testing.assert_allclose(np.sqrt(cov.diagonal()), np.sqrt(exact.diagonal()), rtol=0.3)


def test_what_no_summary_shows_keeps_its_prior():
    rng = np.random.default_rng(1)
    prior = np.array([0.5, 0.3]), np.diag([0.2, 0.1]) ** 2
    slope = np.array([[1.0, 2.0, -1.0], [0.0, 0.0, 0.0]])
    units, sims = replays(rng, 300, slope, prior)
    mean, cov = updated(units, sims, np.array([0.6, 1.2, -0.6]), np.full(300, 1 / 300), np.full(3, NOISE), prior)
    assert mean[1] == pytest.approx(0.3, abs=0.02) and np.sqrt(cov[1, 1]) == pytest.approx(0.1, rel=0.1)
    assert mean[0] == pytest.approx(0.6, abs=0.05) and np.sqrt(cov[0, 0]) < 0.05


def test_one_summary_that_the_scene_cannot_give_does_not_decide():
    rng = np.random.default_rng(2)
    prior = np.array([0.5]), np.array([[0.2**2]])
    slope = np.ones((1, 12))
    units, sims = replays(rng, 200, slope, prior)
    real = np.full(12, 0.6)
    real[3] = 3.0  # 48 standard deviations off
    mean, _ = updated(units, sims, real, np.full(200, 1 / 200), np.full(12, NOISE), prior)
    assert mean[0] == pytest.approx(0.6, abs=0.06)


def test_weights_are_tempered_until_enough_candidates_count():
    log = -(np.arange(50.0) ** 2)
    for least in (2, 10, 30):
        w = tempered(log, least)
        assert w.sum() == pytest.approx(1) and 1 / (w**2).sum() >= least and np.argmax(w) == 0
    assert 1 / (tempered(np.zeros(8), 4) ** 2).sum() == pytest.approx(8)
