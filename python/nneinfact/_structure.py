"""What holds within and among factors: ties, smooth modes, rows that add up to 1, bases."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import _check


class Smooth(NamedTuple):
    """A penalty on differences between neighbours along modes of a factor: ``weight`` times their
    squares, added to the *sum* of the losses.

    ``along`` names letters of the factor, by default those that are modes of the data; ``cyclic`` says
    that the last index is followed by the first; ``graph``, in place of that, is a square array with the
    weight of the edge between indices i and j, or a list of edges ``(i, j, weight)``.

    Examples
    --------
    >>> import nneinfact as nn
    >>> nn.Smooth(0.1, cyclic=True)
    Smooth(weight=0.1, along=None, cyclic=True, graph=None)
    """

    weight: float
    along: str | None = None
    cyclic: bool = False
    graph: Any = None


class Splines(NamedTuple):
    """B-splines along a mode: ``count`` of them, around a circle where ``cyclic``."""

    count: int  # type: ignore[assignment]
    cyclic: bool = False


def ties_of(value: Any) -> list[list[str]]:
    """The argument ``tie``: ``"ir=jr"``, or several of them, or sequences of names."""
    if value is None:
        return []
    if isinstance(value, str):
        value = [value]
    if not isinstance(value, Sequence):
        raise TypeError(f"tie is {value!r}; expected 'ir=jr', or a list of such")
    found = []
    for one in value:
        names = one.split("=") if isinstance(one, str) else list(one)
        if not all(isinstance(name, str) for name in names):
            raise TypeError(f"a tie is {one!r}; expected names of factors, as 'ir=jr'")
        found.append([name.strip() for name in names])
    return found


def _edges(factor: str, graph: Any) -> list[tuple[int, int, float]]:
    array = np.asarray(graph, dtype=float) if not isinstance(graph, list) else None
    if array is not None and array.ndim == 2 and array.shape[0] == array.shape[1]:
        both = np.maximum(array, array.T)
        both[np.isnan(array) | np.isnan(array.T)] = np.nan
        return [
            (int(i), int(j), float(both[i, j]))
            for i, j in zip(*np.nonzero(np.triu(both, 1)), strict=True)
        ]
    try:
        return [
            (_check.whole("an index", i), _check.whole("an index", j), _check.real("a weight", w))
            for i, j, w in graph
        ]
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the graph of {factor!r} is neither a square array of weights nor a list of edges "
            f"(i, j, weight): {error}"
        ) from None


def smooth_of(value: Any) -> list[tuple[str, float, str | None, bool, Any]]:
    """The argument ``smooth``: for some factors a weight or a Smooth, or a list of these."""
    if value is None:
        return []
    found: list[tuple[str, float, str | None, bool, Any]] = []
    for factor, given in _check.mapping("smooth", value, "{'hr': nn.Smooth(0.1)}").items():
        for one in given if isinstance(given, list) else [given]:
            smooth = one if isinstance(one, Smooth) else Smooth(_check.real("a weight", one))
            if smooth.cyclic and smooth.graph is not None:
                raise ValueError(f"the smoothness of {factor!r} is along a circle or along a graph")
            edges = None if smooth.graph is None else _edges(str(factor), smooth.graph)
            weight = _check.real(f"the weight of {factor!r}", smooth.weight)
            found.append((str(factor), weight, smooth.along, bool(smooth.cyclic), edges))
    return found


def simplex_of(value: Any) -> list[tuple[str, str | None]]:
    """The argument ``simplex``: ``"wr"``, ``"wr:w"``, a list of such, or ``{"wr": "w"}``."""
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [(str(f), None if over is None else str(over)) for f, over in value.items()]
    found = []
    for one in [value] if isinstance(value, str) else value:
        if not isinstance(one, str):
            raise TypeError(f"simplex is {value!r}; expected 'wr', 'wr:w' or a dict of factors")
        factor, colon, over = one.partition(":")
        found.append((factor.strip(), over.strip() if colon else None))
    return found


def bases_of(value: Any) -> list[tuple[str, int, bool]]:
    """The argument ``basis``: for some modes a number of splines or Splines."""
    if value is None:
        return []
    found = []
    for mode, given in _check.mapping("basis", value, "{'h': nn.Splines(12)}").items():
        splines = given if isinstance(given, Splines) else Splines(_check.whole("splines", given))
        count = _check.whole(f"the splines of {mode!r}", splines.count)
        found.append((_check.letter("a mode", mode), count, bool(splines.cyclic)))
    return found
