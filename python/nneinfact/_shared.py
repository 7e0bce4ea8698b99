"""What a fit over several processes asks of the object that connects them."""

from __future__ import annotations

from typing import Any

from . import _check


def shared_of(shared_by: Any, part: Any) -> tuple[Any, int, int, tuple[int, int, int, int] | None] | None:
    """The object with its rank and size, and the part of the data that is here."""
    if shared_by is None:
        if part is not None:
            raise ValueError("part goes with shared_by: the other processes have the rest of the data")
        return None
    expected = (
        "expected rank, size, exchange(with, send, receive) and agree(word), as "
        "nneinfact.parallel.mpi(comm) has them"
    )
    for name in ("rank", "size", "exchange", "agree"):
        if not hasattr(shared_by, name):
            raise TypeError(f"shared_by is {shared_by!r}, which has no {name}; {expected}")
    for name in ("exchange", "agree"):
        if not callable(getattr(shared_by, name)):
            raise TypeError(f"{name} of shared_by is no function; {expected}")
    rank, size = (_number(shared_by, name) for name in ("rank", "size"))
    if rank >= size:
        raise ValueError(f"shared_by is process {rank} of {size}; ranks count from 0")
    return shared_by, rank, size, None if part is None else _part(part)


def _number(shared_by: Any, name: str) -> int:
    """An attribute, or what a method gives."""
    value = getattr(shared_by, name)
    return _check.whole(f"{name} of shared_by", value() if callable(value) else value)


def _part(part: Any) -> tuple[int, int, int, int]:
    expected = "expected an nneinfact.parallel.Part(axis, start, stop, whole)"
    try:
        axis, start, stop, whole = part
    except (TypeError, ValueError):
        raise TypeError(f"part is {part!r}; {expected}") from None
    numbers = [_check.whole(f"part.{name}", value) for name, value in
               zip(("axis", "start", "stop", "whole"), (axis, start, stop, whole))]
    if not numbers[1] <= numbers[2] <= numbers[3]:
        raise ValueError(f"part is {part!r}, which is no part of {numbers[3]} indices; {expected}")
    return numbers[0], numbers[1], numbers[2], numbers[3]
