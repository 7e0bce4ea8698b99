"""Penalties on factors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from . import _check


class Penalty(NamedTuple):
    """A penalty on a factor: ``weight`` times the sum of its entries to the ``power``.

    It is added to the *sum* of the losses. ``power`` is at least 1.

    Examples
    --------
    >>> import nneinfact as nn
    >>> nn.l1(0.1)
    Penalty(weight=0.1, power=1.0)
    """

    weight: float
    power: float


def l1(weight: float) -> Penalty:
    """``weight`` times the sum of the entries: sparse factors."""
    return Penalty(_check.real("the weight of l1", weight), 1.0)


def l2(weight: float) -> Penalty:
    """``weight`` times the sum of the squared entries: it prunes components."""
    return Penalty(_check.real("the weight of l2", weight), 2.0)


def penalties_of(value: Any) -> list[tuple[str | None, float, float]]:
    """The argument ``penalty``: nothing, one for all factors, or one each for some."""
    if value is None:
        return []
    if isinstance(value, Penalty):
        return [(None, *value)]
    if not isinstance(value, Mapping):
        raise TypeError(
            f"penalty is {value!r}; expected nn.l1(0.1) or nn.l2(0.1) for all factors, "
            "or a dict of factors, as {'ir': nn.l1(0.1)}"
        )
    found: list[tuple[str | None, float, float]] = []
    for factor, penalty in value.items():
        if not isinstance(penalty, Penalty):
            raise TypeError(
                f"the penalty of {factor!r} is {penalty!r}; expected nn.l1(0.1), nn.l2(0.1) or "
                "nn.Penalty(weight, power)"
            )
        found.append((str(factor), *penalty))
    return found
