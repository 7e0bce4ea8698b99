"""Distributions over many discrete variables, as nonnegative tensor trains.

A density over many variables has exponentially many entries. As a train of nonnegative cores it has a
few thousand numbers, and answers any question about itself exactly: normalisation, marginals,
conditionals, moments, samples, likelihoods. The way there has two stages (Tang, Dwaraknath & Ying 2025,
arXiv 2507.21519): a train without signs, by :func:`cross` from a function or by :func:`sketch` from
samples; and a nonnegative one fitted to it. :func:`from_function` and :func:`from_samples` do both.

>>> import numpy as np
>>> from nneinfact import density
>>> grid = np.linspace(-1, 1, 8)
>>> def log_f(i):                       # a chain of 10 variables, each near its neighbours
...     x = grid[i]
...     return -((x[:, 1:] - x[:, :-1]) ** 2).sum(axis=1)
>>> chain = density.from_function(log_f, [8] * 10, log=True, tol=1e-6, rank=6, sweeps=20)
>>> chain
<Density over 10 variables of 8 values, ranks up to 6>
>>> chain.sample(3, seed=1).shape
(3, 10)
>>> float(chain.marginal([0]).sum().round(12))
1.0
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _check
from . import _nneinfact as _rust
from ._errors import warn

__all__ = ["Density", "Train", "cross", "from_function", "from_samples", "nonnegative", "sketch"]


def _tuples(name: str, values: Any, modes: int) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 2 or array.shape[1] != modes or array.dtype.kind not in "iu":
        raise ValueError(
            f"{name} are an array of type {array.dtype} and shape {array.shape}; expected whole numbers "
            f"of shape (n, {modes})"
        )
    return np.ascontiguousarray(array, dtype=np.int64)


def _weights(weights: Any) -> np.ndarray | None:
    return None if weights is None else np.ascontiguousarray(weights, dtype=np.float64)


def _lengths(shape: Sequence[int]) -> list[int]:
    return [_check.whole("a length of shape", n, 1) for n in shape]


def _cores(cores: Sequence[Any]) -> list[np.ndarray]:
    return [np.ascontiguousarray(core, dtype=np.float64) for core in cores]


def _sizes(shape: Sequence[int]) -> str:
    each = f"{shape[0]} values" if len(set(shape)) == 1 else f"{min(shape)} to {max(shape)} values"
    return f"{len(shape)} variables of {each}"


class Train:
    """A tensor train of any sign: cores of shape (rank, length, rank), times ``exp(log_scale)``.

    Its ``notices`` say what one may want to know of how it was made, as ranks that were lowered.
    """

    def __init__(self, cores: Sequence[Any], log_scale: float = 0.0) -> None:
        self._rust = _rust.Train(_cores(cores), _check.real("log_scale", log_scale))
        self.notices: list[str] = []

    @classmethod
    def _of(cls, made: Any, notices: Sequence[str]) -> Train:
        train = cls.__new__(cls)
        train._rust, train.notices = made, list(notices)
        return train

    @property
    def cores(self) -> list[np.ndarray]:
        """The cores."""
        return self._rust.cores()

    @property
    def log_scale(self) -> float:
        """The logarithm of what the cores' product is multiplied with."""
        return self._rust.log_scale

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each mode."""
        return tuple(core.shape[1] for core in self.cores)

    @property
    def ranks(self) -> list[int]:
        """The rank of each bond."""
        return self._rust.ranks

    def entries(self, indices: Any) -> np.ndarray:
        """The values at index tuples, of shape (n, modes)."""
        return self._rust.entries(_tuples("the indices", indices, len(self.ranks) + 1))

    def __repr__(self) -> str:
        return f"<Train over {_sizes(self.shape)}, ranks up to {max(self.ranks, default=1)}>"

    def __reduce__(self) -> Any:
        return Train, (self.cores, self.log_scale)


class Density:
    """A distribution over index tuples. Made by :func:`from_function`, :func:`from_samples`,
    :func:`nonnegative`, or of nonnegative cores of shape (rank, length, rank), whatever their sum is.

    Examples
    --------
    >>> from nneinfact.density import Density
    >>> coin = Density([[[[1.0], [3.0]]]])
    >>> coin.prob([[0], [1]])
    array([0.25, 0.75])
    """

    def __init__(self, cores: Sequence[Any], log_scale: float = 0.0) -> None:
        self._rust = _rust.Density(_cores(cores), _check.real("log_scale", log_scale))
        self.notices: list[str] = []
        self.history: np.ndarray | None = None
        self.relative_squared_distance: float | None = None

    @classmethod
    def _of(cls, made: Any) -> Density:
        density = cls.__new__(cls)
        density._rust, density.notices = made, []
        density.history = density.relative_squared_distance = None
        return density

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of values of each variable."""
        return tuple(self._rust.shape)

    @property
    def ranks(self) -> list[int]:
        """The numbers of states between neighbours."""
        return self._rust.ranks

    @property
    def cores(self) -> list[np.ndarray]:
        """The cores of the probabilities."""
        return self._rust.cores()

    @property
    def log_partition(self) -> float:
        """The logarithm of the sum over all tuples of what it was made of."""
        return self._rust.log_partition

    def log_prob(self, indices: Any) -> np.ndarray:
        """The logarithms of the probabilities of index tuples (n, variables); −inf where impossible."""
        return self._rust.log_probabilities(_tuples("the indices", indices, len(self.shape)))

    def prob(self, indices: Any) -> np.ndarray:
        """The probabilities of index tuples (n, variables)."""
        return np.exp(self.log_prob(indices))

    def marginal(self, modes: Sequence[int]) -> np.ndarray:
        """The joint probabilities of some variables, an axis for each."""
        return self._rust.marginal([_check.whole("a mode", m) for m in modes])

    def conditional(self, given: Mapping[int, int]) -> Density:
        """The distribution given the values of some variables, which stay with one value each."""
        pairs = _check.mapping("given", given, "{0: 3}").items()
        found, _ = self._rust.conditional(
            [(_check.whole("a mode", m), _check.whole("a value", v)) for m, v in pairs]
        )
        return Density._of(found)

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Index tuples (count, variables) drawn from it: a function of the seed."""
        return self._rust.sample(_check.whole("count", count), _check.seed_of("seed", seed))

    def moments(self, values: Sequence[Sequence[float]]) -> tuple[np.ndarray, np.ndarray]:
        """The mean of each variable, which takes these values, and the covariance of them all."""
        return self._rust.moments([[float(x) for x in each] for each in values])

    def expectation(self, functions: Sequence[Sequence[float] | None]) -> float:
        """The expectation of a product of functions of single variables, given by their values; None
        for 1."""
        return self._rust.expectation(
            [None if each is None else [float(x) for x in each] for each in functions]
        )

    def mutual_information(self) -> np.ndarray:
        """The mutual information of every pair of variables, in nats."""
        return self._rust.mutual_information()

    def nll(self, samples: Any, weights: Any = None) -> float:
        """The mean negative log-likelihood of samples, in nats: infinite if one is impossible."""
        rows = _tuples("the samples", samples, len(self.shape))
        return self._rust.nll(rows, _weights(weights))[0]

    def fit_samples(
        self, samples: Any, weights: Any = None, *, sweeps: int = 50, tol: float = 0.0
    ) -> Density:
        """With a higher likelihood of samples, by expectation maximisation from here. Its ``history``
        is the mean negative log-likelihood, sweep by sweep."""
        rows = _tuples("the samples", samples, len(self.shape))
        made, nll, _ = _rust.maximise_likelihood(
            self._rust, rows, _weights(weights), _check.whole("sweeps", sweeps),
            _check.real("tol", tol),
        )
        found = Density._of(made)
        found.history = np.array(nll)
        return found

    def __repr__(self) -> str:
        return f"<Density over {_sizes(self.shape)}, ranks up to {max(self.ranks, default=1)}>"

    def __reduce__(self) -> Any:
        return _made_again, (self.cores, self.history, self.relative_squared_distance)


def _made_again(cores: Any, history: Any, distance: Any) -> Density:
    density = Density(cores)
    density.history, density.relative_squared_distance = history, distance
    return density


def cross(
    function: Callable[[np.ndarray], Any],
    shape: Sequence[int],
    *,
    log: bool = False,
    tol: float = 1e-8,
    max_rank: int = 64,
    max_sweeps: int = 8,
    max_evaluations: int | None = None,
    seed: int = 0,
    starts: Any = None,
    round: bool = False,
) -> Train:
    """The train of a function, interpolated from a few of its values.

    Parameters
    ----------
    function : callable
        Takes index tuples, an array (n, modes) of int64 with n up to 1024, and gives n values. Called in
        this thread.
    shape : sequence of int
        The length of each mode.
    log : bool
        Whether the function gives logarithms.
    tol : float
        The relative error to reach on random check points.
    max_rank, max_sweeps, max_evaluations, seed
        What ends it, and where it starts.
    starts : array of int, optional
        Points (n, modes) to start from, where the function is not zero.
    round : bool
        Round the train to the tolerance at the end.

    Examples
    --------
    >>> from nneinfact import density
    >>> density.cross(lambda i: 1.0 + i.sum(axis=1), [4] * 6).ranks
    [2, 2, 2, 2, 2]
    """
    lengths = _lengths(shape)
    if not callable(function):
        raise TypeError(f"function is {function!r}; expected a function of index tuples (n, modes)")

    def values(tuples: np.ndarray) -> np.ndarray:
        found = np.asarray(function(tuples))
        if found.shape != (len(tuples),):
            raise ValueError(
                f"the function gave shape {found.shape} for {len(tuples)} index tuples; expected "
                f"({len(tuples)},), a value for each"
            )
        return np.ascontiguousarray(found, dtype=np.float64)

    settings = {
        "shape": lengths,
        "log": bool(log),
        "tol": _check.real("tol", tol),
        "max_rank": _check.whole("max_rank", max_rank),
        "max_sweeps": _check.whole("max_sweeps", max_sweeps),
        "max_evaluations": _check.optional(_check.whole, "max_evaluations", max_evaluations),
        "seed": _check.seed_of("seed", seed),
        "starts": None if starts is None else _tuples("starts", starts, len(lengths)),
        "round": bool(round),
    }
    train, evaluations, error, converged, notices = _rust.cross(settings, values)
    if not converged:
        warn(f"the tolerance {tol} was not reached: the error is {error:.2g}", 2)
    return Train._of(train, notices)


def sketch(
    samples: Any,
    shape: Sequence[int],
    weights: Any = None,
    *,
    rank: int | None = None,
    near: int = 2,
    degree: int = 1,
    tol: float = 0.0,
) -> Train:
    """The train of the distribution of samples, from their moments.

    ``near`` and ``degree`` say which moments: polynomials of each mode up to the degree, and products of
    two modes of which one is among the ``near`` next to the cut. For categories use the degree n − 1.
    """
    lengths = _lengths(shape)
    train, notices = _rust.sketch(
        {
            "shape": lengths,
            "rank": _check.optional(_check.whole, "rank", rank, 1),
            "near": _check.whole("near", near),
            "degree": _check.whole("degree", degree),
            "tol": _check.real("tol", tol),
        },
        _tuples("the samples", samples, len(lengths)),
        _weights(weights),
    )
    return Train._of(train, notices)


def nonnegative(
    train: Train,
    *,
    rank: int | None = None,
    sweeps: int = 50,
    target_error: float | None = None,
    time_limit: float | None = None,
    seed: int = 0,
) -> Density:
    """The nonnegative train nearest to a train, as a distribution.

    Its ``history`` is the squared distance relative to that of the train, sweep by sweep, and
    ``relative_squared_distance`` the last one.
    """
    if not isinstance(train, Train):
        raise TypeError(f"train is {train!r}; expected a Train, as density.cross gives it")
    settings = {
        "rank": _check.optional(_check.whole, "rank", rank, 1),
        "sweeps": _check.whole("sweeps", sweeps),
        "target_error": _check.optional(_check.real, "target_error", target_error),
        "time_limit": _check.optional(_check.real, "time_limit", time_limit),
        "seed": _check.seed_of("seed", seed),
    }
    made, distance, errors, _, notices = _rust.fit_train(train._rust, settings)
    found = Density._of(made)
    found.notices = list(notices)
    found.history, found.relative_squared_distance = np.array(errors), distance
    return found


def from_function(
    function: Callable[[np.ndarray], Any],
    shape: Sequence[int],
    *,
    log: bool = False,
    tol: float = 1e-8,
    max_rank: int = 64,
    rank: int | None = None,
    sweeps: int = 50,
    target_error: float | None = None,
    seed: int = 0,
    **settings: Any,
) -> Density:
    """The distribution in proportion to a function: :func:`cross`, then :func:`nonnegative`."""
    train = cross(function, shape, log=log, tol=tol, max_rank=max_rank, seed=seed, **settings)
    return nonnegative(train, rank=rank, sweeps=sweeps, target_error=target_error, seed=seed)


def from_samples(
    samples: Any,
    shape: Sequence[int] | None = None,
    weights: Any = None,
    *,
    rank: int | None = None,
    near: int = 2,
    degree: int = 1,
    sweeps: int = 50,
    likelihood_sweeps: int = 50,
    seed: int = 0,
) -> Density:
    """The distribution of samples (n, variables): :func:`sketch`, :func:`nonnegative`, and expectation
    maximisation.

    Without a shape, each variable takes the values from 0 to its largest.

    Examples
    --------
    >>> import numpy as np
    >>> from nneinfact import density
    >>> samples = np.random.default_rng(0).integers(0, 3, (500, 4))
    >>> density.from_samples(samples, rank=2, likelihood_sweeps=5).shape
    (3, 3, 3, 3)
    """
    rows = np.asarray(samples)
    if shape is None:
        if rows.ndim != 2 or not len(rows):
            raise ValueError(f"the samples have shape {rows.shape}; expected (n, variables)")
        shape = [int(n) + 1 for n in rows.max(axis=0)]
    train = sketch(rows, shape, weights, rank=rank, near=near, degree=degree)
    found = nonnegative(train, rank=rank, sweeps=sweeps, seed=seed)
    if likelihood_sweeps:
        found = found.fit_samples(rows, weights, sweeps=likelihood_sweeps)
    return found
