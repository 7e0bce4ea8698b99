"""Checks of arguments, with messages that name them."""

from __future__ import annotations

import numbers
import operator
from collections.abc import Mapping
from typing import Any


def whole(name: str, value: Any, least: int = 0) -> int:
    """A whole number of at least `least`."""
    if isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; expected a whole number")
    try:
        number = operator.index(value)
    except TypeError:
        if isinstance(value, numbers.Real) and float(value).is_integer():
            number = int(float(value))
        else:
            raise TypeError(f"{name} is {value!r}; expected a whole number") from None
    if number < least:
        raise ValueError(f"{name} is {number}; expected at least {least}")
    if number >= 2**63:
        raise ValueError(f"{name} is {number}; expected less than 2**63")
    return number


def seed_of(name: str, value: Any) -> int:
    """A seed: any whole number of 64 bits."""
    expected = f"{name} is {value!r}; expected a whole number from 0 to 2**64 - 1"
    try:
        number = -1 if isinstance(value, bool) else operator.index(value)
    except TypeError:
        raise TypeError(expected) from None
    if not 0 <= number < 2**64:
        raise ValueError(expected)
    return number


def real(name: str, value: Any) -> float:
    """A number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} is {value!r}; expected a number")
    return float(value)


def optional(check: Any, name: str, value: Any, *rest: Any) -> Any:
    """None, or what the check makes of it."""
    return None if value is None else check(name, value, *rest)


def word(name: str, value: Any, words: tuple[str, ...]) -> str:
    """One of some words."""
    if isinstance(value, str) and value in words:
        return value
    raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, words))}")


def letter(name: str, value: Any) -> str:
    """One letter."""
    if isinstance(value, str) and len(value) == 1:
        return value
    raise ValueError(f"{name} is {value!r}; expected one letter, as 'r'")


def mapping(name: str, value: Any, example: str) -> Mapping[Any, Any]:
    """A mapping."""
    if isinstance(value, Mapping):
        return value
    raise TypeError(f"{name} is {value!r}; expected a dict, as {example}")


def ranks_of(value: Any) -> list[tuple[str, int]]:
    """The ranks of letters."""
    if value is None:
        return []
    ranks = mapping("ranks", value, "{'r': 10}")
    return [
        (letter("a letter of ranks", r), whole(f"the rank of {r}", n, 1)) for r, n in ranks.items()
    ]
