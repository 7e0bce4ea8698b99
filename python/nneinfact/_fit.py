"""Fits."""

from __future__ import annotations

import difflib
import inspect
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from . import _check, _html, interop
from . import _nneinfact as _rust
from ._data import dataset_of, dense_array, observations
from ._device import device_of
from ._errors import FitError, warn
from ._history import History
from ._penalties import penalties_of
from ._structure import bases_of, simplex_of, smooth_of, ties_of
from ._progress import progress_of
from ._shared import shared_of
from .losses import NAMES, Loss, loss_of


class Sweep(NamedTuple):
    """What a callback is told after every sweep, and once before the first."""

    iteration: int
    """The number of completed sweeps."""
    max_iter: int
    """The most sweeps that the fit may take."""
    loss: float
    """The weighted mean loss over the training entries."""
    validation_loss: float | None
    """Over the validation entries, where there are any."""
    heldout_loss: float | None
    """Over the held-out entries, where there are any."""
    seconds: float
    """Since the start of the fit."""
    device_memory: int | None
    """Bytes on a device with memory of its own."""
    failed_checkpoints: int
    """How many checkpoints in a row could not be written."""


class Fit:
    """A fitted model: factors, history, predictions. Never changed: methods give new ones.

    Fits are made by :func:`nneinfact.fit`, :func:`nneinfact.load` and :meth:`from_factors`; they can
    be pickled and copied.

    Examples
    --------
    >>> import numpy as np
    >>> import nneinfact as nn
    >>> fit = nn.fit("ir,jr->ij", np.outer([1, 2, 3], [4, 5]), ranks={"r": 1})
    >>> fit
    <Fit of ir,jr->ij, (3, 2), r=1: kl loss ...>
    >>> fit["ir"].shape, fit.ranks
    ((3, 1), {'r': 1})
    >>> fit.predict([[0, 0], [2, 1]]).round(3)
    array([ 4., 15.])
    """

    def __init__(self, saved: Any, warnings: Sequence[str] = ()) -> None:
        self._saved = saved
        self._record: dict[str, Any] = json.loads(saved.record())
        self.warnings: tuple[str, ...] = tuple(warnings)
        self._factors: tuple[np.ndarray, ...] | None = None
        fields = list(zip(saved.letters()[1], saved.labels()))
        self._names: dict[str, str] = {x: f[0] for x, f in fields if f[0] is not None}
        self._labels: dict[str, list[str]] = {x: f[1] for x, f in fields if f[1] is not None}

    # What it is of.

    @property
    def model(self) -> str:
        """The model string."""
        return self._record["model"]

    @property
    def letters(self) -> list[str]:
        """The letters of each factor, in the model's order."""
        return self._saved.letters()[0]

    @property
    def modes(self) -> str:
        """The letters of the data."""
        return self._saved.letters()[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the data."""
        return tuple(self._record["shape"])

    @property
    def ranks(self) -> dict[str, int]:
        """The rank of each latent letter."""
        return dict(self._record["ranks"])

    @property
    def names(self) -> dict[str, str]:
        """What the modes are called, by their letters; those that are called something."""
        return dict(self._names)

    @property
    def labels(self) -> dict[str, list[str]]:
        """What the indices of the modes are called, by the letters of the modes."""
        return {letter: list(labels) for letter, labels in self._labels.items()}

    # What came out.

    @property
    def factors(self) -> tuple[np.ndarray, ...]:
        """The factors, in the model's order; the axes of each are its letters. They are read-only:
        copy what is to be changed."""
        if self._factors is None:
            factors = self._saved.factors()
            for factor in factors:
                factor.flags.writeable = False
            self._factors = tuple(factors)
        return self._factors

    def __getitem__(self, factor: str | int) -> np.ndarray:
        """A factor, by its letters, as ``theta_2``, or by its place from 0."""
        if not isinstance(factor, str):
            return self.factors[factor]
        try:
            return self.factors[self._saved.factor_named(factor)]
        except ValueError as error:
            raise KeyError(str(error)) from None

    @property
    def weights(self) -> np.ndarray | None:
        """What terms are multiplied with beside normalised factors, over all latent letters in the
        order A–Z, a–z; None where the factors are the whole model."""
        return self._saved.weights()

    @property
    def history(self) -> History:
        """The losses sweep by sweep; without elements where the fit is from elsewhere."""
        return History(self._record.get("history") or {})

    @property
    def loss_name(self) -> str | None:
        """The loss with its parameters; None where it is not known."""
        name = self.history.loss_name
        record = self._record.get("loss")
        return name or (record["name"] if record else None)

    def _loss_of(self, which: str) -> float | None:
        history = self.history
        losses = getattr(history, which)
        return float(losses[history.returned]) if len(losses) > history.returned else None

    @property
    def loss(self) -> float | None:
        """The training loss of the factors: a weighted mean."""
        return self._loss_of("loss")

    @property
    def heldout_loss(self) -> float | None:
        """The loss of the held-out entries, where there are any."""
        return self._loss_of("heldout_loss")

    @property
    def validation_loss(self) -> float | None:
        """The loss of the validation entries, where there are any."""
        return self._loss_of("validation_loss")

    @property
    def stopped_by(self) -> str:
        """Why it stopped: see :class:`History`."""
        return self.history.stopped_by

    # Predictions.

    def predict(self, indices: Any) -> np.ndarray:
        """The model's value at some entries: ``(n,)`` of indices of shape ``(n, modes)``.

        One index alone gives a number.
        """
        array = np.asarray(indices)
        modes = len(self.shape)
        if array.size and array.dtype.kind not in "iu":
            raise TypeError(f"indices are of type {array.dtype}; expected whole numbers")
        if array.ndim == 1 and array.shape == (modes,):
            return self.predict(array[None, :])[0]
        if array.ndim != 2 or array.shape[1] != modes:
            raise ValueError(
                f"indices have shape {array.shape}; expected (n, {modes}), an index for each mode of "
                f"{self.modes} in each row"
            )
        return self._saved.predict(np.ascontiguousarray(array, dtype=np.int64))

    def slice(self, **fixed: int) -> np.ndarray:
        """The model's values with some modes fixed, as in ``fit.slice(w=3)``: over the other modes, in
        the order of the data."""
        modes = self.modes
        for letter in fixed:
            if letter not in modes:
                raise ValueError(f"{letter!r} is no mode of {self.model}: its modes are {modes}")
        at = [None if x not in fixed else _check.whole(f"index {x}", fixed[x]) for x in modes]
        return self._saved.slice(at)

    def reconstruct(self) -> np.ndarray:
        """The model's value at every entry of the data."""
        return self.slice()

    # Questions, answered from the factors: nothing is expanded.

    def _places(self, fixed: Mapping[str, Any]) -> list[tuple[str, int]]:
        """Indices of modes, which may be named by their labels."""
        found = []
        for letter, value in fixed.items():
            if letter not in self.modes:
                raise ValueError(f"{letter!r} is no mode of {self.model}: its modes are {self.modes}")
            if isinstance(value, str):
                labels = self._labels.get(letter, [])
                if value not in labels:
                    raise ValueError(f"the mode {letter} has no label {value!r}")
                value = labels.index(value)
            found.append((letter, _check.whole(f"index {letter}", value)))
        return found

    def total(self) -> float:
        """The sum of the model's values over all entries."""
        return self._saved.total()

    def marginal(self, modes: str) -> np.ndarray:
        """The sums of the model's values over all modes but these, with axes in their order.

        Examples
        --------
        >>> import numpy as np
        >>> import nneinfact as nn
        >>> fit = nn.fit("ir,jr->ij", np.outer([1, 2, 3], [4, 5]), ranks={"r": 1})
        >>> fit.marginal("i").round(2)
        array([ 9., 18., 27.])
        """
        return self._saved.marginal(modes)

    def top(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The largest values of the model: indices (count, modes), and the values."""
        indices, values = self._saved.top(_check.whole("count", count))
        return np.array(indices, dtype=np.int64).reshape(-1, len(self.shape)), np.array(values)

    def sample(self, count: int, seed: int = 0) -> np.ndarray:
        """Indices (count, modes) drawn with probabilities in proportion to the model's values."""
        found = self._saved.sample(_check.whole("count", count), _check.seed_of("seed", seed))
        return np.array(found, dtype=np.int64).reshape(-1, len(self.shape))

    def given(self, **fixed: Any) -> Fit:
        """The model of the other modes where some have these indices or labels, as in
        ``fit.given(h=8)``."""
        return Fit(self._saved.given(self._places(fixed), False))

    def conditional(self, **fixed: Any) -> Fit:
        """As :meth:`given`, with values that are probabilities: their sum is 1."""
        return Fit(self._saved.given(self._places(fixed), True))

    def expectation(self, **functions: Sequence[float]) -> float:
        """The expectation of a product of functions of single modes, each given by its values at the
        indices, where entries have probabilities in proportion to the model's values."""
        return self._saved.expectation([(x, [float(v) for v in f]) for x, f in functions.items()])

    def distance(self, other: Fit) -> float:
        """The Euclidean distance of the model's values to those of another fit of the same shape."""
        return self._saved.distance(other._saved)

    def match(self, other: Fit, factor: str | None = None) -> dict[str, Any]:
        """Which component of another fit is which of this one: of the same model or of another that has
        modes in common. With ``factor`` its columns are compared in place of the parts of the model's
        values.

        Gives a dict of ``indices``, for each latent letter with ``pairs`` (``first``, ``second``,
        ``cosine``, shares), ``mean_cosine`` and ``factor_match_score``.
        """
        return json.loads(self._saved.matching(other._saved, factor))

    # The same in another form.

    def _changed(self, saved: Any) -> Fit:
        return Fit(saved, self.warnings)

    def normalize(self, norm: str = "l1", into: str | None = None) -> Fit:
        """With columns of norm 1: ``"l1"`` (sums), ``"l2"`` (lengths) or ``"max"``.

        Their scales become :attr:`weights`, or go into the factor of that name, which has to have all
        latent letters.
        """
        return self._changed(self._saved.normalize(norm, into))

    def sort(self) -> Fit:
        """With the components of each latent letter in the order of what they add to the sum of the
        predictions, most first."""
        return self._changed(self._saved.sorted())

    def drop_empty(self, threshold: float = 1e-12) -> Fit:
        """Without components that add less to the sum of the predictions than this share of what the
        letter's first adds."""
        return self._changed(self._saved.without_empty(_check.real("threshold", threshold)))

    def component_weights(self, letter: str) -> np.ndarray:
        """What each value of a latent letter adds to the sum of the predictions."""
        return self._saved.component_weights(_check.letter("letter", letter))

    def transform(self, data: Any, modes: str, **settings: Any) -> Fit:
        """A fit of the same model to other data, which may be of any length in some modes: factors
        without one of these modes stay as they are.

        Takes the settings of :func:`nneinfact.fit`; the loss is that of this fit where it can be made
        again.

        Examples
        --------
        >>> import numpy as np
        >>> import nneinfact as nn
        >>> y = np.outer([1, 2, 3], [4, 5, 6, 7])
        >>> fit = nn.fit("ir,jr->ij", y[:, :3], ranks={"r": 1})
        >>> fit.transform(y[:, 3:], "j")["jr"].shape
        (1, 1)
        """
        for letter in modes:
            if letter not in self.modes:
                raise ValueError(f"{letter!r} is no mode of {self.model}: its modes are {self.modes}")
        if self.weights is not None:
            raise ValueError(
                "the scales of the fit are in weights beside its factors: gather them into a factor, "
                "with normalize(into=...)"
            )
        fixed = {
            f"theta_{n + 1}": self.factors[n]
            for n, letters in enumerate(self.letters)
            if not set(letters) & set(modes)
        }
        if settings.get("loss") is None:
            settings["loss"] = self._loss_again()
        return fit(self.model, data, ranks=self.ranks, fixed=fixed, **settings)

    def _loss_again(self) -> Loss:
        """The loss by what the fit knows of it."""
        record = self._record.get("loss") or {"name": self.loss_name or "kl"}
        given = {}
        for key, value in record.items():
            if key != "name":
                given[key] = value.get("number") if isinstance(value, dict) else value
        if record["name"] not in NAMES or any(isinstance(v, str) or v is None for v in given.values()):
            raise ValueError(
                f"the loss {self.loss_name} cannot be made again from what the fit knows of it: give it "
                "with loss="
            )
        return Loss(record["name"], given)

    def with_labels(
        self,
        labels: Mapping[str, Sequence[Any]] | None = None,
        names: Mapping[str, str] | None = None,
    ) -> Fit:
        """With what indices and modes are called, by the letters of the modes.

        Examples
        --------
        >>> import numpy as np
        >>> import nneinfact as nn
        >>> fit = nn.fit("ir,jr->ij", np.outer([1, 2], [4, 5, 6]), ranks={"r": 1})
        >>> fit.with_labels({"i": ["a", "b"]}, {"i": "who"}).frame("ir").index
        Index(['a', 'b'], dtype=..., name='who')
        """
        for letter in [*(labels or {}), *(names or {})]:
            if letter not in self.modes:
                raise ValueError(f"{letter!r} is no mode of {self.model}: its modes are {self.modes}")
        fields = []
        for letter, (name, known, kind, edges) in zip(self.modes, self._saved.labels()):
            if labels is not None and letter in labels:
                known, kind, edges = _html._texts(labels[letter]), "text", []
            fields.append(((names or {}).get(letter, name), known, kind, edges))
        return self._changed(self._saved.with_labels(fields))

    # Files, other packages, pages.

    @staticmethod
    def from_factors(model: str, factors: Sequence[Any]) -> Fit:
        """Factors of a model that come from elsewhere, with nothing known of their fit."""
        return Fit(_rust.Saved.from_factors(model, [_floats("a factor", f) for f in factors]))

    def save(self, path: Any) -> None:
        """Writes an ``.npz`` that :func:`nneinfact.load` and the program read: the arrays
        ``theta_1``, ``theta_2``, ... and what is known of the fit."""
        self._saved.save(os.fspath(path))

    def to_bytes(self) -> bytes:
        """The bytes of the file that :meth:`save` writes."""
        return self._saved.write()

    @staticmethod
    def from_bytes(data: bytes) -> Fit:
        """A fit of the bytes of its file."""
        return Fit(_rust.Saved.read(bytes(data)))

    def frame(self, factor: str | int) -> Any:
        """A factor as a pandas DataFrame: a row for each index of its modes, by their labels, and a
        column for each component."""
        return interop.frame(self, factor)

    def to_xarray(self) -> Any:
        """All factors as an xarray.Dataset, with the labels as coordinates."""
        return interop.to_xarray(self)

    def to_tensorly(self) -> Any:
        """A tensorly CPTensor, TuckerTensor or TTTensor, where the model is one of these."""
        return interop.to_tensorly(self)

    def to_pyttb(self) -> Any:
        """A pyttb ktensor or ttensor, where the model is CP or Tucker."""
        return interop.to_pyttb(self)

    def report(
        self,
        path: Any = None,
        data: Any = None,
        *,
        loss: Any = None,
        title: str | None = None,
        names: Mapping[str, str] | None = None,
        labels: Mapping[str, Sequence[Any]] | None = None,
        upwards: str = "",
        **roles: Any,
    ) -> Any:
        """The report: a page with the losses, the components, and what the fit leaves over.

        Parameters
        ----------
        path : path, optional
            Where to write it: ``.html``, or ``.svg`` for a figure. Without one, what is given shows it
            in a notebook.
        data : optional
            The data that were fitted, for residuals; with the masks and splits of the fit as further
            arguments.
        loss : optional
            The loss, where it is one of one's own.
        title : str, optional
            What stands above.
        names, labels : dict, optional
            What modes and their indices are called, by the letters of the modes.
        upwards : str
            Modes that are drawn with their first index at the bottom, as latitudes.
        """
        appearance = _html.appearance(self, title, names, labels, upwards)
        if path is not None and os.fspath(path).lower().endswith(".svg"):
            text = self._saved.svg(appearance)
        else:
            seen = None
            if data is not None:
                seen = observations(dataset_of(data, self.model), **roles)
            elif roles:
                raise TypeError(f"{', '.join(roles)} are for a report with data")
            known = None if loss is None else loss_of(loss)._rust
            text = self._saved.html(appearance, seen, known)
        if path is None:
            return _html.Page(text)
        with open(path, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        return None

    def _repr_html_(self) -> str:
        return _html.of_fit(self)

    def __repr__(self) -> str:
        ranks = ", ".join(f"{letter}={rank}" for letter, rank in self.ranks.items())
        loss = self.loss
        rest = "" if loss is None else (
            f": {self.loss_name} loss {loss:.6g} after {self.history.iterations} sweeps"
        )
        return f"<Fit of {self.model}, {self.shape}, {ranks or 'no ranks'}{rest}>"

    def __reduce__(self) -> Any:
        return _made_again, (self.to_bytes(), self.warnings)

    def __copy__(self) -> Fit:
        return self

    def __deepcopy__(self, memo: Any) -> Fit:
        return self


def _made_again(data: bytes, warnings: Sequence[str]) -> Fit:
    return Fit(_rust.Saved.read(data), warnings)


def load(path: Any, model: str | None = None) -> Fit:
    """Reads a fit that :meth:`Fit.save` or ``nneinfact fit --out`` wrote.

    Of an ``.npz`` of arrays ``theta_1``, ``theta_2``, ... that another program wrote, the model has to
    be said.
    """
    return Fit(_rust.Saved.load(os.fspath(path), model))


def _floats(name: str, value: Any) -> np.ndarray:
    """An array of doubles, in C order, without a copy where it is one."""
    array = dense_array(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(f"{name} is an array of type {array.dtype}; expected real numbers")
    return np.asarray(array, dtype=np.float64, order="C")


def _start(init: Any) -> tuple[str, float | None, list[np.ndarray]]:
    expected = (
        "expected 'random', 'gamma', ('gamma', shape), 'svd', a Fit, a list of factors in the model's "
        "order, or ('grow', fit)"
    )
    if isinstance(init, str):
        return _check.word("init", init, ("random", "gamma", "svd")), None, []
    if isinstance(init, Fit):
        return "factors", None, _whole_factors(init)
    if isinstance(init, tuple) and len(init) == 2 and init[0] == "gamma":
        return "gamma", _check.real("the shape of a gamma start", init[1]), []
    if isinstance(init, tuple) and len(init) == 2 and isinstance(init[0], str) and init[0] == "grow":
        small = init[1]
        factors = _whole_factors(small) if isinstance(small, Fit) else list(small)
        return "grown", None, [_floats("a factor of init", f) for f in factors]
    if isinstance(init, Sequence):
        return "factors", None, [_floats("a factor of init", f) for f in init]
    raise TypeError(f"init is {init!r}; {expected}")


def _whole_factors(fit: Fit) -> list[np.ndarray]:
    if fit.weights is not None:
        raise ValueError(
            "the scales of the fit are in weights beside its factors: start from one that is not "
            "normalised, or gather them into a factor with normalize(into=...)"
        )
    return list(fit.factors)


def _bounds(bounds: Any) -> list[tuple[str, float, float]]:
    if bounds is None:
        return []
    found = []
    for factor, pair in _check.mapping("bounds", bounds, "{'ir': (0, 1)}").items():
        try:
            lower, upper = pair
        except (TypeError, ValueError):
            raise TypeError(
                f"the bounds of {factor!r} are {pair!r}; expected two numbers, as (0, 1)"
            ) from None
        lower = _check.real(f"the lower bound of {factor}", 0.0 if lower is None else lower)
        upper = _check.real(f"the upper bound of {factor}", np.inf if upper is None else upper)
        found.append((str(factor), lower, upper))
    return found


def _settings(
    model: Any,
    ranks: Any,
    *,
    penalty: Any = None,
    bounds: Any = None,
    fixed: Any = None,
    tie: Any = None,
    smooth: Any = None,
    simplex: Any = None,
    basis: Any = None,
    balance: str | None = None,
    init: Any = "random",
    starts: int = 1,
    algorithm: str = "accelerated",
    learning_rate: float | None = None,
    max_iter: int = 500,
    tol: float = 1e-6,
    early_stopping: bool = False,
    eval_every: int = 1,
    kkt_residual: bool = True,
    inner_cycles: int = 1,
    prediction_floor: float | None = None,
    factor_floor: float = 1e-16,
    precision: str = "f32",
    memory_limit: int | None = None,
    data_as: str = "auto",
    seed: int = 0,
    checkpoint: Any = None,
    checkpoint_sweeps: int | None = None,
    checkpoint_seconds: float | None = None,
    resume: bool = False,
    slabs: int | None = None,
    **unknown: Any,
) -> dict[str, Any]:
    """All that the library asks for but data, loss and device."""
    for name in unknown:
        known = list(inspect.signature(fit).parameters)
        near = difflib.get_close_matches(name, known, 1)
        raise TypeError(f"there is no argument {name!r}" + (f": did you mean {near[0]!r}?" if near else ""))
    if not isinstance(model, str):
        raise TypeError(f"model is {model!r}; expected an einsum string, as 'ir,jr->ij'")
    held = {} if fixed is None else _check.mapping("fixed", fixed, "{'hr': H}")
    saved = None
    if checkpoint is not None:
        sweeps = _check.optional(_check.whole, "checkpoint_sweeps", checkpoint_sweeps, 1)
        seconds = _check.optional(_check.real, "checkpoint_seconds", checkpoint_seconds)
        saved = (os.fspath(checkpoint), sweeps, seconds, bool(resume))
    elif resume or checkpoint_sweeps is not None or checkpoint_seconds is not None:
        raise ValueError("resume and checkpoint_... go with checkpoint, the file to save the fit in")
    return {
        "model": model,
        "ranks": _check.ranks_of(ranks),
        "algorithm": algorithm,
        "precision": "f32" if precision is None else str(precision),
        "learning_rate": _check.optional(_check.real, "learning_rate", learning_rate),
        "start": _start(init),
        "penalties": penalties_of(penalty),
        "fixed": [(str(f), _floats(f"the fixed factor {f}", v)) for f, v in held.items()],
        "bounds": _bounds(bounds),
        "ties": ties_of(tie),
        "smooth": smooth_of(smooth),
        "simplex": simplex_of(simplex),
        "bases": bases_of(basis),
        "balance": balance,
        "seed": _check.seed_of("seed", seed),
        "starts": _check.whole("starts", starts),
        "max_iter": _check.whole("max_iter", max_iter),
        "tolerance": _check.real("tol", tol),
        "early_stopping": bool(early_stopping),
        "prediction_floor": _check.optional(_check.real, "prediction_floor", prediction_floor),
        "factor_floor": _check.real("factor_floor", factor_floor),
        "inner_cycles": _check.whole("inner_cycles", inner_cycles),
        "eval_every": _check.whole("eval_every", eval_every),
        "kkt_residual": bool(kkt_residual),
        "memory_limit": _check.optional(_check.whole, "memory_limit", memory_limit),
        "data_as": data_as,
        "checkpoint": saved,
        "slabs": _check.optional(_check.whole, "slabs", slabs, 1),
    }


_SETTINGS = {
    name: parameter for name, parameter in inspect.signature(_settings).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}

_Function = TypeVar("_Function", bound=Callable[..., Any])


def with_settings(function: _Function) -> _Function:
    """The function with all settings in its signature, in place of ``**settings``, as help and notebooks
    show it."""
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    more = [p for name, p in _SETTINGS.items() if name not in signature.parameters]
    vars(function)["__signature__"] = signature.replace(parameters=[*own, *more])
    return function


@with_settings
def fit(
    model: str,
    data: Any,
    ranks: Mapping[str, int] | None = None,
    *,
    loss: Any = "kl",
    mask: Any = None,
    weights: Any = None,
    missing: Any = None,
    implicit: str | None = None,
    heldout: Any = None,
    validation: Any = None,
    heldout_as: str = "auto",
    zeros_per_nonzero: float | None = None,
    split_seed: int = 0,
    key: str | None = None,
    device: Any = "auto",
    threads: int | None = None,
    progress: bool | None = None,
    callback: Callable[[Sweep], Any] | None = None,
    on_interrupt: str = "raise",
    shared_by: Any = None,
    part: Any = None,
    **settings: Any,
) -> Fit:
    """Fits a model to data.

    Parameters
    ----------
    model : str
        An einsum string: the letters of each factor, ``->``, the letters of the data's axes, as in
        ``"wr,hr,dr,ikr,jkr->whdij"``.
    data : array, sparse array, DataArray, Dataset or path
        Nonnegative data: numpy arrays of any numeric type and order, and whatever has the array
        protocol or DLPack (torch, jax) on the CPU; scipy.sparse, pydata sparse; pandas and polars
        frames as matrices; xarray.DataArray, whose dimensions and coordinates become names and labels;
        what :func:`nneinfact.from_table` gives; the path of an ``.npy``, ``.npz`` or ``.tns``, or what
        ``numpy.load`` gives of an ``.npz``. The order of memory is kept: the same numbers in C and in
        Fortran order are fitted by different plans, whose results agree up to rounding at first and not
        to the bit.
    ranks : dict
        The size of each latent letter.
    loss : str or Loss
        ``"kl"``, ``"euclidean"``, ... (``nn.losses.NAMES``), or one with parameters, as
        ``nn.alpha_beta(0.7, 0)``.
    mask : array of bool, optional
        Which entries are observed: True is observed.
    weights : array, optional
        The weight of each entry's loss; 0 is missing.
    missing : "nan" or array of int, optional
        NaN means missing; or the indices of missing entries, of shape (n, modes). (Without it, NaN in
        an observed entry is an error.)
    implicit : "zero" or "missing", optional
        What entries are that sparse data do not store. "zero" where the data do not say it.
    heldout, validation : float or array, optional
        The fraction of the observed entries that is withheld at random, an array of booleans, or the
        indices of entries (n, modes): held-out entries are only reported on, validation entries decide
        when to stop.
    heldout_as : "auto", "cells" or "strata"
        How fractions are withheld: every entry by itself; or, of sparse data, stored entries by
        themselves and a few zeros drawn from all others, each of which counts for many, so that the
        reported losses estimate the means over all entries without bias. "auto" takes strata where
        there are more than 10⁹ entries; the history says what was taken.
    zeros_per_nonzero : float, optional
        By strata, how many zeros are drawn beside each stored entry that is withheld; 1 by default.
    split_seed : int
        The seed of random splits.
    key : str, optional
        The array in an ``.npz``.
    device : str or Device
        ``"auto"``, ``"cpu"``, ``"gpu"``, or part of a name: see :func:`nneinfact.devices`.
    threads : int, optional
        How many threads to use. Results do not depend on it.
    progress : bool, optional
        Whether a bar is shown; by default where a person looks (a terminal, a notebook).
    callback : callable, optional
        Called with a :class:`Sweep` after every sweep, in this thread; a true result stops the fit. An
        exception ends it and is raised.
    on_interrupt : "raise" or "return"
        On Ctrl-C: raise KeyboardInterrupt, whose attribute ``fit`` is the fit so far, or return it.
    early_stopping : bool
        Stop after five rises of the validation loss, with the factors at its lowest.
    penalty : Penalty or dict, optional
        ``nn.l1(0.1)`` on all factors, or on some: ``{"ikr": nn.l1(0.1)}``.
    bounds : dict, optional
        The least and the largest entry of factors: ``{"wr": (0, 1)}``.
    fixed : dict, optional
        Factors that are known and not updated: ``{"hr": H}``.
    tie : str or list, optional
        Factors that are one and the same, letter by letter: ``"ir=jr"`` for symmetric tables.
    smooth : dict, optional
        Penalties on differences along modes: ``{"hr": 0.1}``, or ``{"hr": nn.Smooth(0.1, cyclic=True)}``.
    simplex : str, list or dict, optional
        Factors whose rows add up to 1: ``"wr"`` over its latent letters, ``"wr:w"`` over w.
    basis : dict, optional
        Modes whose factor is a sum of B-splines: ``{"h": nn.Splines(12, cyclic=True)}``.
    balance : "never", "start" or "sweep", optional
        When penalised factors are rescaled among each other.
    init : str, tuple, Fit or list of arrays
        ``"random"``, ``"gamma"`` or ``("gamma", shape)``, ``"svd"``; factors in the model's order; a
        Fit of the same ranks; or ``("grow", fit)`` of smaller ones.
    starts : int
        Try so many random starts for ten sweeps each, and fit from the best.
    algorithm : "accelerated", "grouped", "block" or "adam"
        How a sweep goes over the factors; ``learning_rate`` is for adam.
    max_iter, tol : int, float
        The most sweeps; stop when three sweeps in a row lower the loss by less than this fraction.
    kkt_residual : bool
        Whether to find out at the end how far the factors are from a point where no small change helps
        (``history.kkt_residual``), at the cost of one more pass for each group of factors.
    eval_every, inner_cycles, prediction_floor, factor_floor, memory_limit, data_as
        As in the program: ``nneinfact fit --help``.
    precision : "f32" or "f64"
        The type of number that passes over the data compute with.
    seed : int
        The seed of a random start. The same input, seed and device give the same bits.
    shared_by : object, optional
        Fit together with other processes, which all make the same call: whatever has ``rank``, ``size``,
        ``exchange`` and ``agree``, such as :func:`nneinfact.parallel.mpi` and
        :func:`nneinfact.parallel.torch` give. The fit has the same bits for any number of processes.
    part : nneinfact.parallel.Part, optional
        With ``shared_by``: the data are this part of the whole. Without it every process gives all data,
        and takes its part.
    slabs : int, optional
        Cut the data into so many slabs, whose sums are added in a fixed order; 8 where the fit is shared.
        The result depends on it in its last digits.
    checkpoint : path, optional
        Save the fit there now and then (every ``checkpoint_sweeps``, every ``checkpoint_seconds``; by
        default every minute); with ``resume=True`` it goes on from there if the file is there.

    Returns
    -------
    Fit

    Raises
    ------
    ValueError, TypeError
        Where an argument cannot be used: the message says what is expected.
    MemoryError
        Where it would take more memory than there is, before it is taken.
    FitError
        Where it broke in its middle; its attribute ``fit`` is what it had reached.

    Examples
    --------
    >>> import numpy as np
    >>> import nneinfact as nn
    >>> y = np.random.default_rng(0).poisson(3.0, (8, 7, 6))
    >>> fit = nn.fit("ir,jr,kr->ijk", y, {"r": 2}, loss="kl", heldout=0.1, max_iter=20)
    >>> [factor.shape for factor in fit.factors]
    [(8, 2), (7, 2), (6, 2)]
    >>> fit.stopped_by
    'max_iter'
    """
    words = _check.word("on_interrupt", on_interrupt, ("raise", "return"))
    if callback is not None and not callable(callback):
        raise TypeError(f"callback is {callback!r}; expected a function of a Sweep")
    asked = _settings(model, ranks, **settings)
    made = loss_of(loss)
    shared = shared_of(shared_by, part)
    # Process 0 shows what all do.
    bar = progress_of(progress if shared is None or shared[1] == 0 else False, "sweep")
    found = dataset_of(data, model, key)
    seen = observations(
        found, mask=mask, weights=weights, missing=missing, implicit=implicit, heldout=heldout,
        validation=validation, heldout_as=heldout_as, zeros_per_nonzero=zeros_per_nonzero,
        split_seed=split_seed,
    )
    opened = device_of(device, threads)

    def told(*fields: Any) -> bool:
        sweep = Sweep(*fields)
        if bar is not None:
            bar.tell(sweep.iteration, sweep.max_iter, f"loss {sweep.loss:.6g}")
        return bool(callback(sweep)) if callback is not None else False

    watched = told if bar is not None or callback is not None else None
    try:
        saved, warnings, broke, raised = _rust.fit(
            asked, seen, made._rust, opened, watched, shared
        )
    finally:
        if bar is not None:
            bar.close()
    for text in warnings:
        warn(text, 2)
    result = None if saved is None else Fit(saved, warnings)
    if raised is not None:
        if isinstance(raised, KeyboardInterrupt):
            if words == "return" and result is not None:
                return result
            vars(raised)["fit"] = result
        raise raised
    if broke is not None:
        error = FitError(broke)
        error.fit = result
        raise error
    assert result is not None
    return result


@with_settings
def gradient(
    model: str,
    data: Any,
    ranks: Mapping[str, int] | None = None,
    *,
    loss: Any = "kl",
    device: Any = "auto",
    threads: int | None = None,
    mask: Any = None,
    weights: Any = None,
    missing: Any = None,
    implicit: str | None = None,
    heldout: Any = None,
    validation: Any = None,
    heldout_as: str = "auto",
    zeros_per_nonzero: float | None = None,
    split_seed: int = 0,
    **settings: Any,
) -> list[np.ndarray]:
    """The gradient of what a fit lowers, at its start: of the mean loss, by the logarithm of every
    entry of every factor.

    Give the factors of a fit as ``init`` to see how far it is from stationary.

    Examples
    --------
    >>> import numpy as np
    >>> import nneinfact as nn
    >>> y = np.outer([1, 2, 3], [4, 5])
    >>> fit = nn.fit("ir,jr->ij", y, {"r": 1}, precision="f64")
    >>> slopes = nn.gradient("ir,jr->ij", y, {"r": 1}, init=fit, precision="f64")
    >>> bool(max(abs(slope).max() for slope in slopes) < 1e-3)
    True
    """
    asked = _settings(model, ranks, **settings)
    seen = observations(
        dataset_of(data, model), mask=mask, weights=weights, missing=missing, implicit=implicit,
        heldout=heldout, validation=validation, heldout_as=heldout_as,
        zeros_per_nonzero=zeros_per_nonzero, split_seed=split_seed,
    )
    return _rust.gradient(asked, seen, loss_of(loss)._rust, device_of(device, threads))


@with_settings
def explain(
    model: str,
    shape: Sequence[int],
    ranks: Mapping[str, int] | None = None,
    *,
    loss: Any = "kl",
    nonzeros: int | None = None,
    value_bytes: int = 4,
    **settings: Any,
) -> str:
    """What a fit to data of this shape will do and what that costs, before the data are there.

    Parameters
    ----------
    model, ranks, loss
        As in :func:`nneinfact.fit`, whose settings it takes too.
    shape : sequence of int
        The shape of the data.
    nonzeros : int, optional
        Plan for sparse data of so many entries that are not zero.
    value_bytes : 1, 2, 4 or 8
        Bytes that a value of dense data takes in memory.

    Examples
    --------
    >>> import nneinfact as nn
    >>> print(nn.explain("ir,jr->ij", (1000, 500), {"r": 10}))
    ir,jr->ij: 500.0 k entries, 15.0 k parameters
    ...
    """
    if value_bytes not in (1, 2, 4, 8):
        raise ValueError(f"value_bytes is {value_bytes!r}; expected 1, 2, 4 or 8")
    lengths = [_check.whole("a length of shape", n) for n in shape]
    asked = _settings(model, ranks, **settings)
    nonzeros = _check.optional(_check.whole, "nonzeros", nonzeros)
    return _rust.explain(asked, loss_of(loss)._rust, lengths, value_bytes, nonzeros)
