"""Exceptions and warnings of this package; all others are Python's own."""

from __future__ import annotations

import warnings
from typing import Any


class NNEinFactWarning(UserWarning):
    """Something that is legal but probably not meant, or went wrong without stopping a fit."""


class FitError(RuntimeError):
    """A fit broke in its middle: the device failed, or a value was not finite.

    Attributes
    ----------
    fit : Fit or None
        The fit after its last completed sweep.
    """

    fit: Any = None


def warn(text: str, depth: int = 3) -> None:
    """Warns where the user called."""
    warnings.warn(text, NNEinFactWarning, stacklevel=depth + 1)
