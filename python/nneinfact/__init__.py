"""Fits any nonnegative tensor factorization that can be written as an einsum string.

A model is written ``f_1,f_2,...->out``: every factor and the data by the letters of its axes. Letters
after the arrow are the modes of the data, the others are latent and take a rank. So ``ir,jr->ij`` is
NMF, ``ir,jr,kr->ijk`` nonnegative CP, ``ia,jb,kc,abc->ijk`` Tucker.

>>> import numpy as np
>>> import nneinfact as nn
>>> rng = np.random.default_rng(0)
>>> y = rng.poisson(rng.gamma(1, 1, (30, 3)) @ rng.gamma(1, 1, (3, 20)))
>>> fit = nn.fit("ir,jr->ij", y, ranks={"r": 3}, seed=1)
>>> fit["ir"].shape
(30, 3)
>>> bool(fit.loss < fit.history.loss[0])
True

What to start with: :func:`fit`, :func:`from_table`, :func:`compare`, :func:`explain`,
:mod:`nneinfact.sklearn`, :mod:`nneinfact.density`.
"""

try:
    from . import _nneinfact
except ImportError as error:
    import os as _os

    if any(name.startswith("_nneinfact.") and not name.endswith(".pyi") for name in _os.listdir(__path__[0])):
        raise
    raise ImportError(
        f"the compiled part of nneinfact is not in {__path__[0]}, which Python found first: these are its "
        "sources. Run Python from another folder, where `pip install` has installed the package, or build it "
        "here with `maturin develop`"
    ) from error
from . import density, parallel
from ._compare import Study, compare
from ._coupled import CoupledFit, Part, fit_coupled
from ._data import Dataset, open_data
from ._device import Device, devices
from ._errors import FitError, NNEinFactWarning
from ._fit import Fit, History, Sweep, explain, fit, gradient, load
from ._nneinfact import version as _version
from ._penalties import Penalty, l1, l2
from ._structure import Smooth, Splines
from ._table import (
    Mode,
    bins,
    date,
    from_table,
    hour,
    minute,
    month,
    rounded,
    top,
    week,
    weekday,
    year,
)
from .losses import (
    Expression,
    Loss,
    alpha,
    alpha_beta,
    beta,
    binomial,
    exp,
    log,
    loss,
    negative_binomial,
    parameter,
    sqrt,
    where_positive,
    x,
    y,
)

__version__ = _version()

__all__ = [
    "CoupledFit", "Dataset", "Device", "Expression", "Fit", "FitError", "History", "Loss", "Mode",
    "NNEinFactWarning", "Part", "Penalty", "Smooth", "Splines", "Study", "Sweep", "alpha", "alpha_beta", "beta", "binomial",
    "bins", "compare", "date", "density", "devices", "exp", "explain", "fit", "fit_coupled", "from_table",
    "gradient", "hour", "l1", "l2", "load", "log", "loss", "minute", "month", "negative_binomial",
    "open_data", "parallel", "parameter", "rounded", "sqrt", "top", "week", "weekday", "where_positive", "x",
    "y", "year",
]
