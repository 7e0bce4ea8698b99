"""Many fits to the same data."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import _check
from . import _nneinfact as _rust
from ._data import SPLIT_KINDS, dataset_of, observations
from ._device import device_of
from ._fit import Fit, load
from ._penalties import penalties_of
from ._progress import progress_of
from .losses import loss_of


class Study:
    """What came out of :func:`nneinfact.compare`: a row for every setup, the best first.

    Losses of different kinds cannot be compared, so rows are grouped by loss; inside a group they are
    sorted by the mean held-out loss (validation loss, training loss where there is none).

    Attributes
    ----------
    rows : list of dict
        What is known of each setup, with every run.
    best : Fit
        The best fit of the first row.
    fits : list of (Fit or None)
        The best fit of each row.
    notes : list of str
        What one should know about models or data.
    complete : bool
        Whether every run is over.
    """

    def __init__(self, json_text: str, csv: str, text: str, fits: list[Fit | None]) -> None:
        self._json, self._csv, self._text = json_text, csv, text
        record = json.loads(json_text)
        self.rows: list[dict[str, Any]] = record["rows"]
        self.notes: list[str] = record["notes"]
        self.complete: bool = record["complete"]
        self.fits = fits

    @property
    def best(self) -> Fit:
        """The best fit of the first row."""
        for fit in self.fits:
            if fit is not None:
                return fit
        raise ValueError("no run of the study came to an end")

    def frame(self) -> Any:
        """The table as a pandas DataFrame."""
        import io

        import pandas

        return pandas.read_csv(io.StringIO(self._csv))

    def to_csv(self) -> str:
        """The table as comma-separated values."""
        return self._csv

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return f"<Study of {len(self.rows)} setups>\n{self._text}"

    def _repr_html_(self) -> str:
        import html

        return f"<pre>{html.escape(self._text)}</pre>"


def _models(models: Any, ranks: Any) -> list[tuple[str, str, list[tuple[str, list[int]]], list[str]]]:
    """The models by name, each with the ranks of its own latent letters."""
    if isinstance(models, str):
        models = [models]
    named = models.items() if isinstance(models, Mapping) else [(model, model) for model in models]
    grid: dict[str, list[int]] = {}
    for letter, tried in _check.mapping("ranks", ranks or {}, "{'r': [5, 10]}").items():
        tried = tried if isinstance(tried, Sequence) or hasattr(tried, "__iter__") else [tried]
        grid[_check.letter("a letter of ranks", letter)] = [
            _check.whole(f"a rank of {letter}", n, 1) for n in tried
        ]
    found: list[tuple[str, str, list[tuple[str, list[int]]], list[str]]] = []
    for name, model in named:
        if not isinstance(model, str):
            raise TypeError(f"a model is {model!r}; expected an einsum string, as 'ir,jr->ij'")
        factors, _, output = model.partition("->")
        latent = [x for x in grid if x in factors and x not in output]
        found.append((str(name), model, [(x, grid[x]) for x in latent], []))
    unused = [x for x in grid if not any(x in dict(m[2]) for m in found)]
    if unused:
        raise ValueError(f"{unused[0]!r} of ranks is a latent letter of none of the models")
    return found


def compare(
    data: Any,
    models: Any,
    ranks: Mapping[str, Any] | None = None,
    *,
    losses: Any = "kl",
    penalties: Any = None,
    algorithms: Any = "accelerated",
    heldout: float = 0.1,
    validation: float = 0.0,
    heldout_as: str = "auto",
    zeros_per_nonzero: float | None = None,
    splits: int = 1,
    starts: int = 1,
    split_seed: int = 0,
    seed: int = 0,
    max_iter: int = 500,
    tol: float = 1e-6,
    early_stopping: bool = False,
    precision: str = "f32",
    memory_limit: int | None = None,
    data_as: str = "auto",
    match_parameters: Any = (),
    score: str | None = "auto",
    folder: Any = None,
    mask: Any = None,
    weights: Any = None,
    missing: Any = None,
    implicit: str | None = None,
    device: Any = "auto",
    threads: int | None = None,
    progress: bool | None = None,
    callback: Callable[..., Any] | None = None,
    on_interrupt: str = "raise",
) -> Study:
    """Fits many models to the same data and compares how well they predict what was held out.

    Parameters
    ----------
    data
        As in :func:`nneinfact.fit`, with ``mask``, ``weights``, ``missing``, ``implicit``.
    models : list or dict of str
        Einsum strings, or a dict of names.
    ranks : dict
        For each latent letter a rank or several: all combinations are tried, of each model those of its
        own letters.
    losses, penalties, algorithms
        One or a list of each: a loss or its name; None, a penalty, or a dict of penalties of factors.
    heldout, validation : float
        The fractions that every split withholds.
    heldout_as, zeros_per_nonzero
        How they are withheld, as in :func:`nneinfact.fit`.
    splits, starts : int
        How many random splits, and from how many starts every setup is fitted to each.
    match_parameters : int or list
        Choose ranks, in the proportions given, for this number of parameters.
    score : "auto", "poisson", "rmse", "mae" or None
        A score of held-out entries that can be compared between losses.
    folder : path, optional
        Keep finished runs there, and take them from there.
    callback : callable, optional
        Called as ``callback(run, runs, label, seconds_left)`` after every run; a true result stops.

    Returns
    -------
    Study

    Examples
    --------
    >>> import numpy as np
    >>> import nneinfact as nn
    >>> rng = np.random.default_rng(0)
    >>> y = rng.poisson(rng.gamma(1, 1, (30, 2)) @ rng.gamma(1, 2, (2, 20)))
    >>> study = nn.compare(y, ["ir,jr->ij"], {"r": [1, 2]}, max_iter=30)
    >>> len(study), study.best.ranks
    (2, {'r': 2})
    """
    words = _check.word("on_interrupt", on_interrupt, ("raise", "return"))
    made = [loss_of(loss) for loss in _listed(losses)]
    made_models = _models(models, ranks)
    found = dataset_of(data, made_models[0][1] if made_models else None)
    seen = observations(found, mask=mask, weights=weights, missing=missing, implicit=implicit)
    parameters = [match_parameters] if not hasattr(match_parameters, "__iter__") else match_parameters
    bar = progress_of(progress, "run")

    def told(run: int, runs: int, label: str, left: float | None) -> bool:
        if bar is not None:
            bar.tell(run, runs, label)
        return bool(callback(run, runs, label, left)) if callback is not None else False

    with tempfile.TemporaryDirectory(prefix="nneinfact-") as scratch:
        # Runs are kept in files: the best fits are read from there.
        kept = os.path.join(scratch, "study") if folder is None else os.fspath(folder)
        settings = {
            "models": made_models,
            "penalties": [penalties_of(penalty) for penalty in _listed(penalties)],
            "algorithms": [str(name) for name in _listed(algorithms)],
            "precision": str(precision),
            "max_iter": _check.whole("max_iter", max_iter),
            "tolerance": _check.real("tol", tol),
            "early_stopping": bool(early_stopping),
            "memory_limit": _check.optional(_check.whole, "memory_limit", memory_limit),
            "data_as": data_as,
            "heldout": _check.real("heldout", heldout),
            "validation": _check.real("validation", validation),
            "heldout_as": _check.word("heldout_as", heldout_as, SPLIT_KINDS),
            "zeros_per_nonzero": _check.optional(
                _check.real, "zeros_per_nonzero", zeros_per_nonzero
            ),
            "splits": _check.whole("splits", splits, 1),
            "starts": _check.whole("starts", starts, 1),
            "split_seed": _check.seed_of("split_seed", split_seed),
            "seed": _check.seed_of("seed", seed),
            "match_parameters": [_check.whole("match_parameters", n, 1) for n in parameters],
            "score": "none" if score is None else str(score),
            "folder": kept,
        }
        watched = told if bar is not None or callback is not None else None
        try:
            tables, raised = _rust.compare(
                settings, seen, [loss._rust for loss in made], device_of(device, threads), watched
            )
        finally:
            if bar is not None:
                bar.close()
        study = None
        if tables is not None:
            fits: list[Fit | None] = []
            for row in json.loads(tables[0])["rows"]:
                file = (row.get("best") or {}).get("file")
                fits.append(None if file is None else load(os.path.join(kept, file)))
            study = Study(*tables, fits)
    if raised is not None:
        if isinstance(raised, KeyboardInterrupt) and words == "return" and study is not None:
            return study
        if isinstance(raised, KeyboardInterrupt):
            vars(raised)["study"] = study
        raise raised
    assert study is not None
    return study


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) and not hasattr(value, "_fields") else [value]
