"""Estimators of scikit-learn: :class:`NMF` for matrices, :class:`NNEinFact` for tensors of any order.

>>> import numpy as np
>>> from nneinfact.sklearn import NMF
>>> X = np.random.default_rng(0).poisson(3.0, (30, 8)).astype(float)
>>> NMF(n_components=2, loss="kl", random_state=0).fit_transform(X).shape
(30, 2)
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_array, check_random_state
from sklearn.utils.validation import check_is_fitted, check_non_negative, validate_data

from . import losses
from ._fit import Fit, fit
from ._penalties import l1, l2

__all__ = ["NMF", "NNEinFact"]

_BETA = {"frobenius": "euclidean", "kullback-leibler": "kl", "itakura-saito": "itakura-saito"}


def _seed(random_state: Any) -> int:
    return int(check_random_state(random_state).randint(np.iinfo(np.int32).max))


def _values(X: Any) -> np.ndarray:
    """The values of a matrix, or those that a sparse one stores."""
    return X if isinstance(X, np.ndarray) else X.data


def _custom(name: str, value: Any, shape: tuple[int, int]) -> np.ndarray:
    """A factor of a start."""
    if value is None:
        raise ValueError(f"init is 'custom', but {name} is not given: expected an array of shape {shape}")
    array = check_array(value, dtype=np.float64, input_name=name)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}; expected {shape}")
    return array


class NMF(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Nonnegative matrix factorization, X ≈ W H, under any loss of this package.

    Parameters have the names and meanings of :class:`sklearn.decomposition.NMF` where both have them.

    Parameters
    ----------
    n_components : int, "auto" or None
        The number of components; that of the features by default.
    loss : str or Loss, optional
        Any loss of this package, in place of ``beta_loss``.
    init : None, "random", "svd", "nndsvd", "nndsvda", "nndsvdar" or "custom"
        Random factors; singular vectors of the data (all names of these mean the same here); or the
        ``W`` and ``H`` that :meth:`fit_transform` is given.
    beta_loss : "frobenius", "kullback-leibler", "itakura-saito" or float
        The loss as scikit-learn names it.
    tol, max_iter
        As in :func:`nneinfact.fit`: stop when three sweeps in a row lower the loss by less than this
        fraction. That is another test than scikit-learn's: its 1e-4 would stop much too early here, and
        by 1e-8 the loss is as low as there.
    random_state : int, RandomState or None
        The seed of a random start.
    alpha_W, alpha_H, l1_ratio
        Penalties as in scikit-learn, whose weights are multiplied with the number of features and of
        samples. ``l1_ratio`` is 0 (squares) or 1 (sums): no mixtures.
    transform_iter : int
        How many sweeps W takes with fixed components (under Euclid until it changes no more). Every row
        is found by itself, so that batches of rows give what all together give.
    missing : "nan" or None
        Whether NaN means missing.
    starts, algorithm, precision, device, threads, verbose
        As in :func:`nneinfact.fit`; ``verbose`` shows progress.

    Attributes
    ----------
    components_ : array of shape (n_components, n_features)
        H.
    n_components_, n_iter_, n_features_in_ : int
        The number of components, of sweeps, and of features.
    reconstruction_err_ : float
        The square root of twice the sum of the losses: under "frobenius" the norm of X − W H.
    fit_ : Fit
        The fit, before W was found again with fixed components.
    """

    def __init__(
        self,
        n_components: Any = "auto",
        *,
        loss: Any = None,
        init: Any = None,
        beta_loss: Any = "frobenius",
        tol: float = 1e-8,
        max_iter: int = 200,
        random_state: Any = None,
        alpha_W: float = 0.0,
        alpha_H: Any = "same",
        l1_ratio: float = 0.0,
        transform_iter: int = 200,
        missing: str | None = None,
        starts: int = 1,
        algorithm: str = "accelerated",
        precision: str = "f32",
        device: Any = "auto",
        threads: int | None = None,
        verbose: int = 0,
    ) -> None:
        self.n_components = n_components
        self.loss = loss
        self.init = init
        self.beta_loss = beta_loss
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.alpha_W = alpha_W
        self.alpha_H = alpha_H
        self.l1_ratio = l1_ratio
        self.transform_iter = transform_iter
        self.missing = missing
        self.starts = starts
        self.algorithm = algorithm
        self.precision = precision
        self.device = device
        self.threads = threads
        self.verbose = verbose

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.sparse = True
        tags.input_tags.allow_nan = self.missing == "nan"
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _checked(self, X: Any, *, reset: bool) -> Any:
        finite = "allow-nan" if self.missing == "nan" else True
        X = validate_data(
            self, X, reset=reset, accept_sparse=("csr", "csc", "coo"), dtype=[np.float64, np.float32],
            ensure_all_finite=finite,
        )
        check_non_negative(
            np.nan_to_num(X) if self.missing == "nan" and isinstance(X, np.ndarray) else X,
            "NMF (input X)",
        )
        return X

    def _loss(self) -> losses.Loss:
        if self.loss is not None:
            return losses.loss_of(self.loss)
        if isinstance(self.beta_loss, str):
            if self.beta_loss not in _BETA:
                raise ValueError(
                    f"beta_loss is {self.beta_loss!r}; expected {', '.join(map(repr, _BETA))}, or a "
                    "number. Other losses are given as loss="
                )
            return losses.loss(_BETA[self.beta_loss])
        return losses.beta(self.beta_loss)

    def _penalties(self, samples: int, features: int) -> dict[str, Any]:
        alpha_H = self.alpha_W if self.alpha_H == "same" else self.alpha_H
        weights = {"ir": features * self.alpha_W, "rj": samples * alpha_H}
        weights = {factor: weight for factor, weight in weights.items() if weight}
        if not weights:
            return {}
        if self.l1_ratio == 1:
            return {factor: l1(weight) for factor, weight in weights.items()}
        if self.l1_ratio == 0:
            return {factor: l2(0.5 * weight) for factor, weight in weights.items()}
        raise ValueError(
            f"l1_ratio is {self.l1_ratio}; expected 0 or 1: a factor has one penalty here, on its "
            "squares or on its sum"
        )

    def _init(self, W: Any, H: Any, shape: tuple[int, int], rank: Any) -> Any:
        if self.init == "custom":
            return [
                _custom("W", W, (shape[0], rank)),
                _custom("H", H, (rank, shape[1])),
            ]
        if W is not None or H is not None:
            raise ValueError(f"W and H are the start of init='custom', but init is {self.init!r}")
        if self.init is None or self.init == "random":
            return "random"
        if self.init in ("svd", "nndsvd", "nndsvda", "nndsvdar"):
            return "svd"
        raise ValueError(
            f"init is {self.init!r}; expected None, 'random', 'svd', 'nndsvd', 'nndsvda', 'nndsvdar' "
            "or 'custom'"
        )

    def _settings(self) -> dict[str, Any]:
        return {
            "loss": self._loss(),
            "missing": self.missing,
            "device": self.device,
            "threads": self.threads,
            "progress": bool(self.verbose),
        }

    def fit(self, X: Any, y: Any = None, W: Any = None, H: Any = None) -> NMF:
        """Learns the components of X (samples × features)."""
        self.fit_transform(X, W=W, H=H)
        return self

    def fit_transform(
        self, X: Any, y: Any = None, W: Any = None, H: Any = None
    ) -> np.ndarray:
        """Learns the components of X, and gives W: what :meth:`transform` gives.

        ``W`` (samples × components) and ``H`` (components × features) are the start of
        ``init="custom"``.
        """
        X = self._checked(X, reset=True)
        rank = self.n_components
        if rank in (None, "auto"):
            rank = X.shape[1] if self.init != "custom" or np.ndim(H) != 2 else np.shape(H)[0]
        found = fit(
            "ir,rj->ij", X, {"r": rank}, init=self._init(W, H, X.shape, rank),
            seed=_seed(self.random_state),
            starts=self.starts, tol=self.tol, max_iter=self.max_iter, algorithm=self.algorithm,
            precision=self.precision, penalty=self._penalties(*X.shape) or None, **self._settings(),
        )
        self.fit_ = found
        self.components_ = found["rj"].astype(X.dtype)
        self.n_components_ = self.components_.shape[0]
        self.n_iter_ = max(1, found.history.iterations)
        if found.stopped_by == "max_iter" and self.tol > 0:
            warnings.warn(
                f"{self.max_iter} sweeps were not enough to reach the tolerance {self.tol}: raise "
                "max_iter", ConvergenceWarning, stacklevel=2,
            )
        solved, loss = self._solve(X)
        missing = np.count_nonzero(np.isnan(_values(X))) if self.missing == "nan" else 0
        entries = float(X.shape[0]) * X.shape[1] - missing
        self.reconstruction_err_ = float(np.sqrt(2.0 * max(loss, 0.0) * entries))
        return solved

    def transform(self, X: Any) -> np.ndarray:
        """W of X, with the components as they are."""
        check_is_fitted(self)
        return self._solve(self._checked(X, reset=False))[0]

    def _solve(self, X: Any) -> tuple[np.ndarray, float]:
        """W with fixed components, and the mean loss."""
        H = np.asarray(self.components_, dtype=np.float64)
        loss = self._loss()
        if loss == losses.loss("euclidean") or loss == losses.beta(2.0):
            finite = self.missing != "nan" or not np.isnan(_values(X)).any()
            if finite:
                return self._least_squares(X, H)
        # The same for every row, so that a row does not depend on its place.
        size = float(np.sqrt(H.mean())) or 1.0
        start = [np.full((X.shape[0], H.shape[0]), size), H]
        penalty = self._penalties(X.shape[0], X.shape[1])
        penalty.pop("rj", None)
        with warnings.catch_warnings():
            # Of a penalty on the one factor that is free nothing is to be said.
            warnings.simplefilter("ignore", UserWarning)
            found = fit(
                "ir,rj->ij", X, {"r": H.shape[0]}, fixed={"rj": H}, init=start, tol=0.0,
                max_iter=self.transform_iter, algorithm="block", precision="f64",
                penalty=penalty or None, **{**self._settings(), "device": "cpu", "progress": False},
            )
        return found["ir"].astype(X.dtype), found.loss or 0.0

    def _least_squares(self, X: Any, H: np.ndarray) -> tuple[np.ndarray, float]:
        """The same under Euclid, where X is needed once: coordinate descent on the normal equations, for
        every row by itself, until no row changes any more."""
        weight = X.shape[1] * self.alpha_W
        l1, l2 = (weight, 0.0) if self.l1_ratio == 1 else (0.0, weight)
        gram, right = H @ H.T, np.asarray(X @ H.T, dtype=np.float64)
        W = np.zeros_like(right)
        used = np.flatnonzero(gram.diagonal() > 0)
        largest = np.abs(right).max(initial=0.0)
        for _ in range(10 * self.transform_iter):
            change = 0.0
            for k in used:
                step = (right[:, k] - l1 - l2 * W[:, k] - W @ gram[:, k]) / (gram[k, k] + l2)
                after = np.maximum(W[:, k] + step, 0.0)
                change = max(change, np.abs(after - W[:, k]).max(initial=0.0) * gram[k, k])
                W[:, k] = after
            if change <= 1e-12 * largest:
                break
        squares, rows = 0.0, max(1, 2**22 // max(1, X.shape[1]))
        if isinstance(X, np.ndarray):
            for start in range(0, X.shape[0], rows):
                part = slice(start, start + rows)
                squares += float(np.square(X[part] - W[part] @ H).sum())
        else:
            squares = float(np.square(X.data, dtype=np.float64).sum())
            squares += float(((W @ gram) * W).sum() - 2.0 * (W * right).sum())
        return W.astype(X.dtype), 0.5 * squares / max(1.0, float(X.shape[0]) * X.shape[1])

    def inverse_transform(self, X: Any) -> np.ndarray:
        """W H for W (samples × components)."""
        check_is_fitted(self)
        X = check_array(X, accept_sparse=("csr", "csc"), dtype=[np.float64, np.float32])
        if X.shape[1] != self.n_components_:
            raise ValueError(
                f"W has {X.shape[1]} columns; expected {self.n_components_}, one for each component"
            )
        return X @ self.components_

    @property
    def _n_features_out(self) -> int:
        return self.components_.shape[0]


class NNEinFact(BaseEstimator):
    """Any nonnegative tensor factorization, as an estimator: its first mode is that of the samples.

    Parameters
    ----------
    model, ranks, loss
        As in :func:`nneinfact.fit`.
    random_state : int, RandomState or None
        The seed of a random start.
    max_iter, tol, starts, algorithm, precision, heldout, validation, early_stopping, missing, device,
    threads
        As in :func:`nneinfact.fit`.
    options : dict, optional
        Further arguments of :func:`nneinfact.fit`.

    Attributes
    ----------
    fit_ : Fit
        The fit.
    factors_ : tuple of arrays
        Its factors, in the model's order.
    n_iter_ : int
        The number of sweeps.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.model_selection import GridSearchCV
    >>> from nneinfact.sklearn import NNEinFact
    >>> Y = np.random.default_rng(0).poisson(2.0, (12, 5, 4)).astype(float)
    >>> estimator = NNEinFact("ir,jr,kr->ijk", {"r": 2}, random_state=0, max_iter=20).fit(Y)
    >>> estimator.factors_[0].shape
    (12, 2)
    >>> search = GridSearchCV(estimator, {"ranks": [{"r": 1}, {"r": 2}]}, cv=2).fit(Y)
    >>> sorted(search.best_params_)
    ['ranks']
    """

    def __init__(
        self,
        model: str = "ir,jr->ij",
        ranks: Mapping[str, int] | None = None,
        *,
        loss: Any = "kl",
        random_state: Any = None,
        max_iter: int = 500,
        tol: float = 1e-6,
        starts: int = 1,
        algorithm: str = "accelerated",
        precision: str = "f32",
        heldout: Any = None,
        validation: Any = None,
        early_stopping: bool = False,
        missing: str | None = None,
        device: Any = "auto",
        threads: int | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.ranks = ranks
        self.loss = loss
        self.random_state = random_state
        self.max_iter = max_iter
        self.tol = tol
        self.starts = starts
        self.algorithm = algorithm
        self.precision = precision
        self.heldout = heldout
        self.validation = validation
        self.early_stopping = early_stopping
        self.missing = missing
        self.device = device
        self.threads = threads
        self.options = options

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.positive_only = True
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.allow_nan = self.missing == "nan"
        tags.target_tags.required = False
        return tags

    def _shared(self) -> dict[str, Any]:
        return {
            "loss": self.loss, "missing": self.missing, "device": self.device,
            "threads": self.threads, "max_iter": self.max_iter, "tol": self.tol,
            "algorithm": self.algorithm, "precision": self.precision, "progress": False,
        }

    def fit(self, Y: Any, y: Any = None) -> NNEinFact:
        """Fits the model to a tensor."""
        self.fit_ = fit(
            self.model, Y, self.ranks, seed=_seed(self.random_state), starts=self.starts,
            heldout=self.heldout, validation=self.validation, early_stopping=self.early_stopping,
            **{**self._shared(), **(self.options or {})},
        )
        self.factors_ = self.fit_.factors
        self.n_iter_ = self.fit_.history.iterations
        return self

    def transform(self, Y: Any) -> Fit:
        """The fit of other samples: factors without the first mode stay as they are."""
        check_is_fitted(self)
        return self.fit_.transform(Y, self.fit_.modes[0], **self._shared())

    def score(self, Y: Any, y: Any = None) -> float:
        """The negative mean loss of samples, with the factors of the other modes as they are."""
        loss = self.transform(Y).loss
        return -np.inf if loss is None else -loss

