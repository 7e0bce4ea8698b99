"""Fits as objects of other packages: pandas, xarray, tensorly, pyttb."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["frame", "to_pyttb", "to_tensorly", "to_xarray"]


def _place(fit: Any, factor: str | int) -> int:
    if isinstance(factor, str):
        return fit._saved.factor_named(factor)
    return range(len(fit.factors))[factor]


def frame(fit: Any, factor: str | int) -> Any:
    """A factor as a pandas DataFrame: see :meth:`nneinfact.Fit.frame`."""
    import pandas

    place = _place(fit, factor)
    array, letters = fit.factors[place], fit.letters[place]
    modes = [i for i, x in enumerate(letters) if x in fit.modes]
    latent = [i for i, x in enumerate(letters) if x not in fit.modes]

    def index(axes: list[int]) -> Any:
        levels = [fit._labels.get(letters[i], range(array.shape[i])) for i in axes]
        names = [fit._names.get(letters[i], letters[i]) for i in axes]
        if len(axes) == 1:
            return pandas.Index(levels[0], name=names[0])
        if not axes:
            return pandas.RangeIndex(1)
        return pandas.MultiIndex.from_product(levels, names=names)

    rows = int(np.prod([array.shape[i] for i in modes], dtype=np.int64))
    flat = array.transpose(modes + latent).reshape(rows, -1)
    return pandas.DataFrame(flat.copy(), index=index(modes), columns=index(latent))


def to_xarray(fit: Any) -> Any:
    """All factors as an xarray.Dataset: see :meth:`nneinfact.Fit.to_xarray`."""
    import xarray

    def dim(letter: str) -> str:
        return fit._names.get(letter, letter)

    variables = {}
    for n, (letters, array) in enumerate(zip(fit.letters, fit.factors)):
        name = letters if fit.letters.count(letters) == 1 and letters else f"theta_{n + 1}"
        variables[name] = ([dim(x) for x in letters], array.copy())
    weights = fit.weights
    if weights is not None:
        variables["weights"] = ([dim(x) for x in sorted(fit.ranks)], weights)
    coordinates = {dim(x): labels for x, labels in fit._labels.items()}
    attributes = {"model": fit.model}
    if fit.loss is not None:
        attributes.update(loss=fit.loss_name, training_loss=fit.loss)
    return xarray.Dataset(variables, coords=coordinates, attrs=attributes)


def _refuse(fit: Any, wanted: str) -> ValueError:
    return ValueError(f"{fit.model} is not {wanted}")


def _cp(fit: Any) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """Weights and factors (mode, component) of a CP model, in the order of the data."""
    if len(fit.ranks) != 1 or len(fit.letters) != len(fit.modes):
        return None
    ((latent, rank),) = fit.ranks.items()
    found: dict[str, np.ndarray] = {}
    for letters, array in zip(fit.letters, fit.factors):
        if len(letters) != 2 or latent not in letters:
            return None
        mode = letters.replace(latent, "")
        found[mode] = array if letters[1] == latent else array.T
    if sorted(found) != sorted(fit.modes):
        return None
    weights = fit.weights
    weights = np.ones(rank) if weights is None else weights
    return weights, [found[mode].copy() for mode in fit.modes]


def _tucker(fit: Any) -> tuple[np.ndarray, list[np.ndarray]] | None:
    """The core and factors (mode, latent) of a Tucker model, in the order of the data."""
    cores = [i for i, letters in enumerate(fit.letters) if not set(letters) & set(fit.modes)]
    if len(cores) != 1 or len(fit.letters) != len(fit.modes) + 1 or fit.weights is not None:
        return None
    core = fit.letters[cores[0]]
    found: dict[str, tuple[str, np.ndarray]] = {}
    for i, (letters, array) in enumerate(zip(fit.letters, fit.factors)):
        if i == cores[0]:
            continue
        if len(letters) != 2 or not set(letters) & set(core) or not set(letters) & set(fit.modes):
            return None
        first_is_mode = letters[0] in fit.modes
        mode, latent = letters if first_is_mode else letters[::-1]
        found[mode] = (latent, array if first_is_mode else array.T)
    if sorted(found) != sorted(fit.modes) or sorted(x for x, _ in found.values()) != sorted(core):
        return None
    order = [core.index(found[mode][0]) for mode in fit.modes]
    return fit.factors[cores[0]].transpose(order).copy(), [found[m][1].copy() for m in fit.modes]


def _train(fit: Any) -> list[np.ndarray] | None:
    """The cores (left, mode, right) of a tensor train, in the order of the data."""
    if len(fit.letters) != len(fit.modes) or fit.weights is not None:
        return None
    by_mode = {}
    for letters, array in zip(fit.letters, fit.factors):
        modes = [x for x in letters if x in fit.modes]
        if len(modes) != 1:
            return None
        by_mode[modes[0]] = (letters, array)
    if sorted(by_mode) != sorted(fit.modes):
        return None
    cores, left = [], ""
    for n, mode in enumerate(fit.modes):
        letters, array = by_mode[mode]
        latent = letters.replace(mode, "")
        right = latent.replace(left, "", 1) if left else latent
        last = n == len(fit.modes) - 1
        if left not in latent or len(right) != (0 if last else 1):
            return None
        core = array.transpose([letters.index(x) for x in left + mode + right])
        core = core if left else core[None]
        cores.append((core[..., None] if last else core).copy())
        left = right
    return cores


def to_tensorly(fit: Any) -> Any:
    """tensorly's form of the model: see :meth:`nneinfact.Fit.to_tensorly`."""
    cp = _cp(fit)
    if cp is not None:
        from tensorly.cp_tensor import CPTensor

        return CPTensor(cp)
    tucker = _tucker(fit)
    if tucker is not None:
        from tensorly.tucker_tensor import TuckerTensor

        return TuckerTensor(tucker)
    train = _train(fit)
    if train is not None:
        from tensorly.tt_tensor import TTTensor

        return TTTensor(train)
    raise _refuse(fit, "a CP, Tucker or tensor train model (or its scales are in weights)")


def to_pyttb(fit: Any) -> Any:
    """pyttb's form of the model: see :meth:`nneinfact.Fit.to_pyttb`."""
    import pyttb

    cp = _cp(fit)
    if cp is not None:
        weights, factors = cp
        return pyttb.ktensor([np.asfortranarray(f) for f in factors], weights)
    tucker = _tucker(fit)
    if tucker is not None:
        core, factors = tucker
        return pyttb.ttensor(pyttb.tensor(core), factors)
    raise _refuse(fit, "a CP or Tucker model (or its scales are in weights)")
