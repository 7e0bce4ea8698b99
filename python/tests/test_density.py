"""Distributions as trains."""

import pickle

import numpy as np
import pytest

from nneinfact import density


def chain(indices):
    x = np.linspace(-1, 1, 6)[indices]
    return -((x[:, 1:] - x[:, :-1]) ** 2).sum(axis=1)


def test_a_density_from_a_function():
    found = density.from_function(chain, [6] * 5, log=True, tol=1e-8, rank=5, sweeps=30)
    everything = np.indices([6] * 5).reshape(5, -1).T
    exact = np.exp(chain(everything))
    np.testing.assert_allclose(found.prob(everything), exact / exact.sum(), rtol=0.02)
    table = (exact / exact.sum()).reshape([6] * 5)
    np.testing.assert_allclose(found.marginal([1, 3]), table.sum(axis=(0, 2, 4)), rtol=0.02)
    given = found.conditional({0: 2})
    np.testing.assert_allclose(given.marginal([1]), table[2].sum(axis=(1, 2, 3)) / table[2].sum(), rtol=0.02)
    samples = found.sample(2000, seed=3)
    assert samples.shape == (2000, 5) and (samples == found.sample(2000, seed=3)).all()
    mean, covariance = found.moments([np.arange(6)] * 5)
    np.testing.assert_allclose(mean, 2.5, atol=0.05)
    assert covariance.shape == (5, 5) and found.mutual_information().shape == (5, 5)
    assert found.expectation([np.ones(6), None, None, None, None]) == pytest.approx(1)
    better = found.fit_samples(samples, sweeps=3)
    assert better.history[-1] <= better.history[0] and better.nll(samples) <= found.nll(samples)
    again = pickle.loads(pickle.dumps(found))
    np.testing.assert_allclose(again.prob(everything), found.prob(everything), rtol=1e-12)


def test_what_a_function_raises_is_raised():
    class Mine(Exception):
        pass

    def function(indices):
        raise Mine

    with pytest.raises(Mine):
        density.cross(function, [4, 4])
    with pytest.raises(ValueError, match="a value for each"):
        density.cross(lambda i: 1.0, [4, 4])


def test_trains():
    train = density.cross(lambda i: 1.0 + i.sum(axis=1), [4] * 4)
    assert train.ranks == [2, 2, 2] and train.shape == (4, 4, 4, 4)
    np.testing.assert_allclose(train.entries([[0, 1, 2, 3], [3, 3, 3, 3]]), [7, 13])
    again = pickle.loads(pickle.dumps(train))
    np.testing.assert_allclose(again.entries([[0, 1, 2, 3]]), 7)
    with pytest.raises(ValueError, match=r"shape \(n, 4\)"):
        train.entries([0, 1, 2, 3])


def test_samples():
    rng = np.random.default_rng(0)
    first = rng.integers(0, 3, 2000)
    samples = np.stack([first, (first + rng.integers(0, 2, 2000)) % 3, rng.integers(0, 3, 2000)], axis=1)
    found = density.from_samples(samples, rank=3, degree=2, sweeps=20, likelihood_sweeps=20)
    assert found.nll(samples) < np.log(3) + np.log(2) + np.log(3) + 0.05
