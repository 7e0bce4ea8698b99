"""Fits to several tensors that share factors."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from . import _check
from . import _nneinfact as _rust
from ._data import dataset_of, observations
from ._device import device_of
from ._errors import warn
from ._fit import Fit, Sweep, _settings, with_settings
from ._history import History
from ._progress import progress_of
from .losses import loss_of


class Part:
    """A tensor of a coupled fit: its model, data, loss, the weight of its loss, and the roles of its
    entries as in :func:`nneinfact.fit` (``mask``, ``weights``, ``missing``, ``heldout``, ...)."""

    def __init__(
        self, model: str, data: Any, *, loss: Any = "kl", weight: float = 1.0, **roles: Any
    ) -> None:
        if not isinstance(model, str):
            raise TypeError(f"model is {model!r}; expected an einsum string, as 'ir,jr->ij'")
        self.model = model
        self.loss = loss_of(loss)
        self.weight = _check.real("weight", weight)
        self._observations = observations(dataset_of(data, model), **roles)

    def __repr__(self) -> str:
        return f"<Part {self.model}, {tuple(self._observations.shape)}, {self.loss.name}>"


class CoupledFit:
    """Fits of several tensors that share factors, in their order: see :func:`nneinfact.fit_coupled`.

    Attributes
    ----------
    parts : tuple of Fit
        The fit of each tensor.
    history : History
        The weighted losses of all of them together, sweep by sweep.
    """

    def __init__(self, parts: Sequence[Fit], history: History) -> None:
        self.parts, self.history = tuple(parts), history

    def __getitem__(self, factor: str) -> np.ndarray:
        """A factor by its letters: of the first tensor that has it."""
        for part in self.parts:
            if factor in part.letters:
                return part[factor]
        known = dict.fromkeys(x for part in self.parts for x in part.letters)
        raise KeyError(f"no factor is {factor!r}: the factors are {', '.join(known)}")

    @property
    def loss(self) -> float:
        """The weighted loss of all tensors together."""
        return float(self.history.loss[self.history.returned])

    def __repr__(self) -> str:
        return f"<CoupledFit of {', '.join(part.model for part in self.parts)}: loss {self.loss:.6g}>"


@with_settings
def fit_coupled(
    parts: Sequence[Part],
    ranks: Mapping[str, int] | None = None,
    *,
    device: Any = "auto",
    threads: int | None = None,
    progress: bool | None = None,
    callback: Callable[[Sweep], Any] | None = None,
    on_interrupt: str = "raise",
    **settings: Any,
) -> CoupledFit:
    """Fits several tensors that share factors: those of the same letters are one.

    Takes the settings of :func:`nneinfact.fit`; penalties, bounds and known factors are named by their
    letters. A letter is the same mode in all parts, by its labels where it has any: every part gets the
    labels of all, and at those that it had not a list has zeros (or nothing, with
    ``implicit="missing"``), and an array is missing.

    Examples
    --------
    >>> import numpy as np
    >>> import nneinfact as nn
    >>> people, items, traits = np.arange(1, 7), np.arange(1, 5), np.arange(2, 5)
    >>> found = nn.fit_coupled([
    ...     nn.Part("ir,jr->ij", np.outer(people, items)),
    ...     nn.Part("ir,kr->ik", np.outer(people, traits), loss="euclidean", weight=0.5),
    ... ], {"r": 1})
    >>> found["ir"].shape, [part.shape for part in found.parts]
    ((6, 1), [(6, 4), (6, 3)])
    """
    words = _check.word("on_interrupt", on_interrupt, ("raise", "return"))
    parts = list(parts)
    for part in parts:
        if not isinstance(part, Part):
            raise TypeError(f"a part is {part!r}; expected nn.Part(model, data)")
    asked = _settings(parts[0].model if parts else "", ranks, **settings)
    bar = progress_of(progress, "sweep")

    def told(*fields: Any) -> bool:
        sweep = Sweep(*fields)
        if bar is not None:
            bar.tell(sweep.iteration, sweep.max_iter, f"loss {sweep.loss:.6g}")
        return bool(callback(sweep)) if callback is not None else False

    watched = told if bar is not None or callback is not None else None
    given = [(part.model, part._observations, part.loss._rust, part.weight) for part in parts]
    try:
        saved, history, warnings, raised = _rust.fit_coupled(
            asked, given, device_of(device, threads), watched
        )
    finally:
        if bar is not None:
            bar.close()
    for text in warnings:
        warn(text, 2)
    found = None if saved is None else CoupledFit(
        [Fit(one) for one in saved], History(json.loads(history))
    )
    if raised is not None:
        if isinstance(raised, KeyboardInterrupt):
            if words == "return" and found is not None:
                return found
            vars(raised)["fit"] = found
        raise raised
    assert found is not None
    return found
