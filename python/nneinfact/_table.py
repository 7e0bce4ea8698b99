"""Tables of events as tensors with names."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from . import _check
from . import _nneinfact as _rust
from ._data import Dataset, _apart
from ._errors import warn


class Mode:
    """How a column becomes a mode of the tensor: made by :func:`nneinfact.hour` and the like."""

    __slots__ = ("_function", "_rest", "column")

    def __init__(self, column: str, function: str = "", rest: str = "") -> None:
        if not isinstance(column, str):
            raise TypeError(f"a column is {column!r}; expected its name")
        self.column, self._function, self._rest = column, function, rest

    def __str__(self) -> str:
        column = '"' + self.column.replace('"', '""') + '"'
        return f"{self._function}({column}{self._rest})" if self._function else column

    def __repr__(self) -> str:
        return f"<Mode {self}>"

    @property
    def is_of_time(self) -> bool:
        """Whether the column is read as a time."""
        return self._function in _OF_TIME


_OF_TIME = ("year", "month", "week", "date", "weekday", "hour", "minute")


def year(column: str) -> Mode:
    """The year of a time, from the first to the last without gaps."""
    return Mode(column, "year")


def month(column: str) -> Mode:
    """The month of a time: always twelve."""
    return Mode(column, "month")


def week(column: str) -> Mode:
    """The ISO week of a time (``2014-W14``), from the first to the last without gaps."""
    return Mode(column, "week")


def date(column: str) -> Mode:
    """The day of a time, from the first to the last without gaps."""
    return Mode(column, "date")


def weekday(column: str) -> Mode:
    """The weekday of a time: always seven, from Monday."""
    return Mode(column, "weekday")


def hour(column: str) -> Mode:
    """The hour of a time: always 24."""
    return Mode(column, "hour")


def minute(column: str) -> Mode:
    """The minute within the hour of a time: always 60."""
    return Mode(column, "minute")


def bins(
    column: str,
    count: int | None = None,
    *,
    start: float | None = None,
    stop: float | None = None,
    step: float | None = None,
) -> Mode:
    """Bins of equal width: so many from the smallest value to the largest, as ``numpy.histogram``, or
    from ``start`` to ``stop`` by ``step``, where what lies outside is dropped and counted."""
    if count is not None and start is None and stop is None and step is None:
        return Mode(column, "bin", f",{_check.whole('the number of bins', count, 1)}")
    if count is None and None not in (start, stop, step):
        numbers = [_check.real("a bound of bins", x) for x in (start, stop, step)]
        return Mode(column, "bin", "," + ":".join(repr(x) for x in numbers))
    raise TypeError("bins take a number, or start, stop and step")


def top(column: str, count: int, *, other: bool = False) -> Mode:
    """The most frequent values; the others are dropped, or one label more with ``other``."""
    number = _check.whole("the number of values", count, 1)
    return Mode(column, "top", f",{number},other" if other else f",{number}")


def rounded(column: str, digits: int = 0) -> Mode:
    """Numbers, rounded to so many digits after the point (before it, if negative)."""
    if isinstance(digits, bool) or not isinstance(digits, int):
        raise TypeError(f"digits is {digits!r}; expected a whole number")
    return Mode(column, "round", f",{digits}")


def _modes(modes: Any) -> tuple[str, list[str] | None]:
    """The modes as the library reads them, and the columns where they are known."""
    if isinstance(modes, str):
        return modes, None
    pairs: list[tuple[str | None, Any]]
    if isinstance(modes, Mapping):
        pairs = [(_check.letter("a letter of modes", x), mode) for x, mode in modes.items()]
    elif isinstance(modes, Sequence):
        pairs = [(None, mode) for mode in modes]
    else:
        raise TypeError(
            f"modes is {modes!r}; expected names of columns, a dict of letters, as "
            "{'w': 'week', 'h': nn.hour('time')}, or a text as of the program"
        )
    texts, columns = [], []
    for letter, mode in pairs:
        mode = mode if isinstance(mode, Mode) else Mode(mode)
        columns.append(mode.column)
        texts.append(f"{letter}={mode}" if letter else str(mode))
    return ",".join(texts), columns


def from_table(
    table: Any,
    modes: Any,
    values: str | None = None,
    *,
    aggregate: str | None = None,
    filter: str | None = None,
    implicit: str | None = None,
    order: Mapping[str, Sequence[Any]] | None = None,
    skip_bad: bool = False,
    missing: Sequence[str] | None = None,
    time_format: str | None = None,
    time_zone: str | None = None,
    header: bool = True,
    separator: str | None = None,
    memory_limit: int | None = None,
) -> Dataset:
    """A table of events, one in each row, as a tensor with the names of its indices.

    Rows of frames are read as the program reads a file of them: the same tensor, to the bit.

    Parameters
    ----------
    table : frame, dict of columns, or path
        A frame of pandas, polars, pyarrow or another that narwhals knows; a dict of columns; or the
        path of a ``.csv``, ``.tsv`` (packed by gzip too), or several.
    modes : list, dict or str
        What the modes are: names of columns, or functions of them as ``nn.hour("time")``,
        ``nn.bins("lat", 100)``, ``nn.top("station", 50)``. With a dict, their letters in the model:
        ``{"w": "week", "h": nn.hour("time")}``. Or a text, as ``"w=week,h=hour(time)"``.
    values : str, optional
        The column of the values; without it, rows are counted.
    aggregate : "sum", "mean" or "max"
        What becomes of the values of several rows of an entry; the sum by default.
    filter : str, optional
        Which rows count, as ``"fare > 0, borough = Queens"``.
    implicit : "zero" or "missing", optional
        What entries without a row are: zeros of counts and sums, else missing.
    order : dict, optional
        The labels of modes, all of them, in their order.
    skip_bad : bool
        Skip rows that cannot be read, with a warning, instead of raising.
    missing : list of str, optional
        The texts that stand for a missing value, beside an empty cell.
    time_format, time_zone : str, optional
        How times are written, and the zone they are shown in: see the guide.
    header, separator : bool, str
        Of files: whether the first row names the columns, and what stands between cells.
    memory_limit : int, optional
        The most bytes that entries and labels may take.

    Returns
    -------
    Dataset

    Examples
    --------
    >>> import nneinfact as nn
    >>> rides = {"time": ["2014-04-01 00:11", "2014-04-02 00:17", "2014-04-02 07:21"],
    ...          "who": ["b", "a", "a"]}
    >>> t = nn.from_table(rides, {"h": nn.hour("time"), "w": "who"})
    >>> t
    <Dataset (hour(time): 24, who: 2), 3 entries, the others zeros>
    >>> t.labels[1]
    ['a', 'b']
    >>> nn.fit("hr,wr->hw", t, {"r": 1}).frame("wr").index.tolist()
    ['a', 'b']
    """
    text, columns = _modes(modes)
    paths = _paths(table)
    if aggregate is None:
        how = "count" if values is None else "sum"
    else:
        how = _check.word("aggregate", aggregate, ("sum", "mean", "max"))
        if values is None:
            raise ValueError(f"aggregate is {aggregate!r}, but values names no column to aggregate")
    orders = [
        (str(mode), [_cell(label) for label in labels])
        for mode, labels in _check.mapping("order", order or {}, "{'d': ['Mon', 'Tue']}").items()
    ]
    wanted = None
    if columns is not None and filter is None:
        wanted = list(dict.fromkeys([*columns, *([values] if values is not None else [])]))
    found = _rust.read_table(
        {
            "paths": paths or [],
            "text": None if paths is not None else _csv(table, wanted),
            "modes": text,
            "values": (how, values),
            "implicit": implicit,
            "filter": filter,
            "orders": orders,
            "header": bool(header),
            "separator": separator,
            "skip_bad": bool(skip_bad),
            "missing": None if missing is None else [str(x) for x in missing],
            "time_format": time_format,
            "time_zone": time_zone,
            "memory_limit": _check.optional(_check.whole, "memory_limit", memory_limit),
        }
    )
    return _dataset(*found)


def _dataset(columns: Any, values: Any, modes: Any, missing: bool, counts: Any) -> Dataset:
    rows, filtered, bad, outside, rare, first_bad = counts
    if bad:
        plural = "s were" if bad > 1 else " was"
        warn(f"{bad} row{plural} skipped, of {rows}: {first_bad}", 3)
    letters = [letter for letter, _ in modes]
    names, labels, kinds = _apart([fields for _, fields in modes])
    return Dataset(
        columns=list(columns),
        values=values,
        shape=[len(each) for each in labels],
        names=names,
        labels=labels,
        kinds=kinds,
        letters=None if None in letters else letters,
        implicit_missing=missing,
        counts={
            "rows": rows, "filtered": filtered, "bad": bad, "outside": outside, "rare": rare,
        },
    )


def _paths(table: Any) -> list[str] | None:
    if isinstance(table, (str, os.PathLike)):
        return [os.fspath(table)]
    if isinstance(table, (list, tuple)) and table and all(
        isinstance(path, (str, os.PathLike)) for path in table
    ):
        return [os.fspath(path) for path in table]
    return None


def _cell(value: Any) -> str:
    """A value as a file has it."""
    if value is None:
        return ""
    if isinstance(value, (np.bool_, bool)):
        return "true" if value else "false"
    if isinstance(value, (np.floating, float)):
        number = float(value)
        if number != number:
            return ""
        # Whole numbers that a missing one among them made floats.
        return str(int(number)) if number.is_integer() and abs(number) < 2**53 else repr(number)
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    return str(value)


def _csv(table: Any, wanted: list[str] | None) -> bytes:
    """The table as text: what the program would read of it."""
    columns = _columns(table, wanted)
    lengths = {name: len(cells) for name, cells in columns.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"the columns of the table have different lengths: {lengths}")
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    if len(columns) == 1:
        # An empty line is none: a cell in quotes is one.
        writer = csv.writer(out, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerows(zip(*columns.values()))
    return out.getvalue().encode()


def _columns(table: Any, wanted: list[str] | None) -> dict[str, list[str]]:
    if isinstance(table, Mapping):
        names = list(table)
        _known(names, wanted)
        kept = {name: table[name] for name in (wanted or names)}
        return {str(name): _cells(np.asarray(cells, dtype=None)) for name, cells in kept.items()}
    import narwhals as nw

    try:
        frame = nw.from_native(table)
    except TypeError:
        raise TypeError(
            f"the table is a {type(table).__qualname__}; expected a frame (pandas, polars, pyarrow), a "
            "dict of columns, or the path of a .csv"
        ) from None
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    names = [str(name) for name in frame.columns]
    _known(names, wanted)
    out = {}
    for name in wanted or names:
        series = frame[name]
        if series.dtype == nw.Datetime or series.dtype == nw.Date:
            out[name] = ["" if t is None else _time(t) for t in series.to_list()]
        elif series.dtype.is_float():
            out[name] = _cells(series.to_numpy())
        else:
            out[name] = [_cell(value) for value in series.to_list()]
    return out


def _time(value: Any) -> str:
    text = str(value.isoformat()) if value == value else ""
    return "" if text == "NaT" else text


def _known(names: list[str], wanted: list[str] | None) -> None:
    for name in wanted or ():
        if name not in names:
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            raise ValueError(f"the table has no column {name!r}: its columns are {shown}")


def _cells(array: np.ndarray) -> list[str]:
    if array.dtype.kind == "M":
        return ["" if text == "NaT" else str(text) for text in np.datetime_as_string(array)]
    return [_cell(value) for value in array.tolist()]
