"""Estimators."""

import warnings

import numpy as np
import pytest

sklearn = pytest.importorskip("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

import nneinfact as nn  # noqa: E402
from nneinfact.sklearn import NMF, NNEinFact  # noqa: E402


@parametrize_with_checks([NMF(random_state=0, tol=1e-3, device="cpu")])
def test_estimator_checks(estimator, check):
    check(estimator)


def test_nmf(matrix):
    X = matrix.astype(float)
    model = NMF(n_components=3, loss="kl", random_state=0, max_iter=300)
    W = model.fit_transform(X)
    assert W.shape == (30, 3) and model.components_.shape == (3, 20)
    np.testing.assert_allclose(model.transform(X), W)
    np.testing.assert_allclose(model.inverse_transform(W), W @ model.components_)
    assert list(model.get_feature_names_out()) == ["nmf0", "nmf1", "nmf2"]
    again = clone(model).fit(X)
    np.testing.assert_array_equal(again.components_, model.components_)


def test_nmf_says_what_scikit_learn_says(matrix):
    from sklearn.decomposition import NMF as Theirs

    X = matrix.astype(float)
    ours = NMF(n_components=3, random_state=0, tol=1e-6, max_iter=500).fit(X)
    theirs = Theirs(n_components=3, random_state=0, init="nndsvda", max_iter=500).fit(X)
    assert ours.reconstruction_err_ <= 1.05 * theirs.reconstruction_err_
    W = ours.transform(X)
    assert ours.reconstruction_err_ == pytest.approx(np.linalg.norm(X - W @ ours.components_), rel=1e-4)
    sparse = NMF(n_components=3, random_state=0, alpha_W=0.02, l1_ratio=1.0).fit(X)
    assert len(sparse.fit_.history.penalty) > 1
    with pytest.raises(ValueError, match="l1_ratio is 0.5; expected 0 or 1"):
        NMF(n_components=3, alpha_W=0.1, l1_ratio=0.5).fit(X)
    with pytest.raises(ValueError, match="beta_loss"):
        NMF(n_components=3, beta_loss="kl").fit(X)


def test_missing_sparse_and_frames(matrix):
    import scipy.sparse

    X = matrix.astype(float)
    X[3, 4] = np.nan
    model = NMF(n_components=2, missing="nan", random_state=0).fit(X)
    assert np.isfinite(model.components_).all()
    with pytest.raises(ValueError, match="NaN"):
        NMF(n_components=2).fit(X)
    NMF(n_components=2, loss="kl", random_state=0).fit(scipy.sparse.csr_array(matrix.astype(float)))
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(matrix, columns=[f"g{j}" for j in range(20)])
    out = NMF(n_components=2, random_state=0).set_output(transform="pandas").fit_transform(frame)
    assert list(out.columns) == ["nmf0", "nmf1"]


def test_a_start_of_ones_own(matrix):
    from sklearn.decomposition import NMF as Theirs

    X = matrix.astype(float)
    rng = np.random.default_rng(0)
    W, H = rng.random((30, 3)), rng.random((3, 20))
    ours = NMF(n_components=3, init="custom", beta_loss="kullback-leibler", max_iter=300, tol=1e-6)
    ours.fit(X, W=W, H=H)
    theirs = Theirs(3, init="custom", solver="mu", beta_loss="kullback-leibler", max_iter=300, tol=0)
    theirs.fit_transform(X, W=W.copy(), H=H.copy())
    assert ours.reconstruction_err_ <= 1.01 * theirs.reconstruction_err_
    assert ours.set_params(n_components="auto").fit(X, W=W, H=H).n_components_ == 3
    with pytest.raises(ValueError, match="W is not given: expected an array of shape"):
        ours.fit(X, H=H)
    with pytest.raises(ValueError, match=r"H has shape \(20, 3\); expected \(3, 20\)"):
        ours.set_params(n_components=3).fit(X, W=W, H=H.T)
    with pytest.raises(ValueError, match="factors must be finite and at least 0"):
        ours.fit(X, W=-W, H=H)
    with pytest.raises(ValueError, match="W and H are the start of init='custom'"):
        NMF(3).fit(X, W=W, H=H)


@pytest.mark.parametrize("penalty", [{}, {"alpha_W": 0.02}, {"alpha_W": 0.02, "l1_ratio": 1.0}])
def test_transform_under_euclid_is_the_least_squares_solution(matrix, penalty):
    import scipy.sparse

    X = matrix.astype(float)
    model = NMF(n_components=3, random_state=0, **penalty).fit(X)
    W, H = model.transform(X), model.components_
    weight = X.shape[1] * model.alpha_W
    gradient = (W @ H - X) @ H.T + (weight if model.l1_ratio == 1 else weight * W)
    # What Karush, Kuhn and Tucker ask for: no slope where W is positive, none downwards where it is 0.
    scale = np.abs(X @ H.T).max()
    assert np.abs(gradient[W > 0]).max() < 1e-8 * scale and gradient[W == 0].min(initial=0) > -1e-8 * scale
    np.testing.assert_allclose(model.transform(scipy.sparse.csr_array(X)), W, atol=1e-9)
    np.testing.assert_allclose(model.transform(X[3:5]), W[3:5], atol=1e-9)
    sparse = clone(model).fit(scipy.sparse.csr_array(X))
    whole = sparse.transform(X) @ sparse.components_
    assert sparse.reconstruction_err_ == pytest.approx(np.linalg.norm(X - whole), rel=1e-6)


def test_defaults_come_as_far_as_scikit_learns():
    from sklearn.decomposition import NMF as Theirs

    rng = np.random.default_rng(0)
    X = rng.gamma(0.5, 1, (150, 8)) @ rng.gamma(0.5, 1, (8, 100)) + 0.1 * rng.random((150, 100))
    for loss, solver in (("frobenius", "cd"), ("kullback-leibler", "mu")):
        ours = NMF(8, beta_loss=loss, random_state=0)
        theirs = Theirs(8, beta_loss=loss, solver=solver, init="random", random_state=0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ours.fit(X), theirs.fit(X)
        assert ours.reconstruction_err_ <= 1.005 * theirs.reconstruction_err_, loss


def test_sparse_with_missing_values(matrix):
    import scipy.sparse

    X = scipy.sparse.csr_array(matrix.astype(float))
    X.data[5] = np.nan
    sparse = NMF(n_components=2, missing="nan", random_state=0).fit(X)
    dense = NMF(n_components=2, missing="nan", random_state=0).fit(X.toarray())
    assert sparse.reconstruction_err_ == pytest.approx(dense.reconstruction_err_, rel=1e-3)


def test_what_is_given_back(matrix):
    pandas = pytest.importorskip("pandas")
    model = NMF(n_components=2, random_state=0).fit(matrix.astype(float))
    W = model.transform(matrix.astype(float))
    whole = model.inverse_transform(W)
    np.testing.assert_allclose(whole, W @ model.components_)
    np.testing.assert_array_equal(model.inverse_transform(pandas.DataFrame(W)), whole)
    with pytest.raises(ValueError, match="W has 1 columns; expected 2"):
        model.inverse_transform(W[:, :1])


def test_tensors(counts):
    from sklearn.model_selection import GridSearchCV

    estimator = NNEinFact("ir,jr,kr->ijk", {"r": 2}, random_state=0, max_iter=20).fit(counts)
    assert [f.shape for f in estimator.factors_] == [(12, 2), (10, 2), (8, 2)]
    assert clone(estimator).get_params()["ranks"] == {"r": 2}
    search = GridSearchCV(estimator, {"ranks": [{"r": 1}, {"r": 3}]}, cv=3).fit(counts)
    assert search.best_params_ == {"ranks": {"r": 3}}
    custom = nn.loss("half", a=nn.x, b=nn.y, loss=(nn.x - nn.y) ** 2 / 2, majorizer=("power", 0, 1))
    assert clone(NNEinFact(loss=custom)).loss is custom


def test_the_authors_lines(counts, capsys):
    from nneinfact.einfact import NNEinFact as Theirs

    Y = counts
    model_str = "ik,jk,tk->ijt"
    shape_dict = {**dict(zip(model_str.split("->")[-1], Y.shape)), "k": 3}
    model = Theirs(model_str=model_str, alpha=0.5, beta=0.5, shape_dict=shape_dict, device="cuda")
    model.fit(Y, max_iter=30)
    factors = model.get_params()
    assert [f.shape for f in factors] == [(12, 3), (10, 3), (8, 3)]
    assert "iteration" in capsys.readouterr().out
    np.random.seed(3)
    a = Theirs(model_str, shape_dict)
    a.fit(Y, max_iter=5, verbose=False, mask=np.random.rand(*Y.shape) < 0.9)
    assert len(a.history["heldout_loss"]) == 6
    with pytest.raises(ValueError, match="shape_dict has no 'k'"):
        Theirs(model_str, dict(zip("ijt", Y.shape)))
