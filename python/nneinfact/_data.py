"""Data as they are, as what a fit is given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile

from . import _check
from . import _nneinfact as _rust


class Dataset:
    """Data with the names of their modes and indices. Made by :func:`nneinfact.from_table` and
    :func:`nneinfact.open_data`, and by :func:`nneinfact.fit` of whatever it is given.

    Attributes
    ----------
    shape : tuple of int
        The length of each mode.
    names : list of str or None
        What each mode is called; None where nothing is known.
    labels : list of (list of str or None)
        What the indices of each mode are called.
    letters : list of str or None
        The letters of the modes, where they were given.
    columns, values : list of arrays, array
        The stored entries, of data that are given so: an array of indices for each mode, and values.
    """

    def __init__(
        self,
        *,
        array: Any = None,
        columns: Any = None,
        values: Any = None,
        shape: Any = None,
        opened: Any = None,
        mask: Any = None,
        names: Any = None,
        labels: Any = None,
        letters: Any = None,
        kinds: Any = None,
        implicit_missing: bool = False,
        counts: Any = None,
    ) -> None:
        self._array, self.columns, self.values, self._opened = array, columns, values, opened
        self._mask = mask
        if array is not None:
            shape = array.shape
        elif opened is not None:
            shape = opened.shape
            implicit_missing = opened.is_implicit_missing
            letters = opened.letters if None not in opened.letters else None
            if opened.labels:
                names, labels, kinds = _apart(opened.labels)
        self.shape: tuple[int, ...] = tuple(int(n) for n in shape)
        self.names = names
        self.labels = labels if labels is not None else [None] * len(self.shape)
        self.letters = letters
        self._kinds = kinds if kinds is not None else [("text", [])] * len(self.shape)
        self.implicit_missing = implicit_missing
        self.counts = counts

    @property
    def is_sparse(self) -> bool:
        """Whether entries are stored, and what is not is a zero or missing."""
        return self._opened.is_sparse if self._opened is not None else self.columns is not None

    def to_dense(self) -> np.ndarray:
        """All entries, as an array; what is not stored is 0, or NaN where it is missing.

        Examples
        --------
        >>> import nneinfact as nn
        >>> t = nn.from_table({"who": ["a", "b", "a"], "what": ["x", "x", "y"]}, ["who", "what"])
        >>> t.to_dense()
        array([[1., 1.],
               [1., 0.]])
        """
        if self._array is not None:
            return np.asarray(self._array)
        if self.columns is None:
            raise ValueError("the data stay in their file: numpy.load reads them")
        dense = np.full(self.shape, np.nan if self.implicit_missing else 0.0)
        dense[tuple(self.columns)] = 0.0
        np.add.at(dense, tuple(self.columns), self.values)
        return dense

    def transposed(self, order: Sequence[int]) -> Dataset:
        """With the modes in this order."""
        if self._opened is not None:
            return Dataset(opened=self._opened.arranged([self.letters[i] for i in order]))

        def pick(things: Any) -> Any:
            return None if things is None else [things[i] for i in order]
        array = None if self._array is None else self._array.transpose(order)
        mask = None if self._mask is None else self._mask.transpose(order)
        return Dataset(
            array=array, mask=mask, columns=pick(self.columns), values=self.values,
            shape=pick(self.shape), names=pick(self.names), labels=pick(self.labels),
            letters=pick(self.letters), kinds=pick(self._kinds), implicit_missing=self.implicit_missing, counts=self.counts,
        )

    def _open(self) -> Any:
        """The values, as the library has them."""
        if self._opened is not None:
            return self._opened
        if self._array is not None:
            opened = _rust.Observations.dense(self._array)
        else:
            opened = _rust.Observations.coordinates(list(self.shape), self.columns, self.values)
        if self.names is None and all(labels is None for labels in self.labels):
            return opened
        names = self.names or [None] * len(self.shape)
        return opened.with_labels(
            [(*each, *kind) for *each, kind in zip(names, self.labels, self._kinds)]
        )

    def __repr__(self) -> str:
        names = self.names or ["?"] * len(self.shape)
        modes = ", ".join(f"{name}: {n}" for name, n in zip(names, self.shape))
        if self.columns is not None:
            rest = "missing" if self.implicit_missing else "zeros"
            return f"<Dataset ({modes}), {len(self.values)} entries, the others {rest}>"
        return f"<Dataset ({modes})>"


def _apart(fields: Any) -> tuple[Any, Any, Any]:
    """Names, labels and kinds of the library's labels."""
    names = [name for name, _, _, _ in fields]
    labels = [labels for _, labels, _, _ in fields]
    return names, labels, [(kind, edges) for _, _, kind, edges in fields]


def open_data(
    path: Any, *, key: str | None = None, shape: Sequence[int] | None = None, stream: bool = False
) -> Dataset:
    """Data in a file, read as the program reads them: ``.npy``, ``.npz`` (of numbers, of
    scipy.sparse, or of ``nneinfact table``), ``.tns``, ``.mtx``, a folder of 10x.

    Parameters
    ----------
    path : path
        The file.
    key : str, optional
        The array in an ``.npz``; the only one by default.
    shape : sequence of int, optional
        The shape of a ``.tns``; by default the largest indices.
    stream : bool
        Leave the values in their ``.npy`` and read them from there in every pass, a slab at a time,
        with the same results.
    """
    shape = None if shape is None else [_check.whole("a length of shape", n, 1) for n in shape]
    return Dataset(opened=_rust.Observations.file(os.fspath(path), key, shape, bool(stream)))


def numeric(array: Any, what: str = "the data") -> np.ndarray:
    """An array of a type that the library reads, of the same values."""
    array = np.asarray(array)
    kind, size = array.dtype.kind, array.dtype.itemsize
    if array.dtype.name == "bfloat16":
        # As jax's arrays have it: numpy itself does not know it.
        return array.astype(np.float32, order="K")
    if kind not in "biuf":
        hint = ""
        if kind == "O":
            hint = "; convert them with .astype(float)"
        elif kind == "c":
            hint = "; their absolute values or squares are"
        raise TypeError(f"{what} are of type {array.dtype}, but real numbers are expected{hint}")
    if kind == "f" and size == 2:
        array = array.astype(np.float32, order="K")
    elif kind == "f" and size > 8:
        narrow = array.astype(np.float64, order="K")
        if not np.array_equal(narrow, array, equal_nan=True):
            raise TypeError(
                f"{what} are of type {array.dtype}, and not all of them are numbers of double "
                "precision: round them with .astype(float)"
            )
        array = narrow
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="), order="K")
    return array if array.flags.aligned else array.copy(order="K")


def _package(data: Any) -> str:
    return type(data).__module__.partition(".")[0]


def dataset_of(data: Any, model: str | None = None, key: str | None = None) -> Dataset:
    """Data of any kind. The modes come in the order of the model where they have its letters."""
    if key is not None and not isinstance(data, (str, os.PathLike, NpzFile)):
        raise ValueError("key is for data in a file: it names the array of an .npz")
    found = _dataset(data, key)
    output = model.rpartition("->")[2].replace(" ", "") if isinstance(model, str) else ""
    letters = found.letters
    if letters is None and found.names is not None and all(
        isinstance(name, str) and len(name) == 1 for name in found.names
    ) and set(found.names) == set(output):
        letters = found.names
    if not letters or not output or any(x is None for x in letters) or list(output) == list(letters):
        return found
    if sorted(letters) != sorted(output):
        raise ValueError(
            f"the modes of the data are {', '.join(letters)}, but those of the model {model} are "
            f"{', '.join(output)}: expected the same letters, in any order"
        )
    return found.transposed([letters.index(x) for x in output])


def _dataset(data: Any, key: str | None) -> Dataset:
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (str, os.PathLike)):
        return open_data(data, key=key)
    if isinstance(data, NpzFile):
        return _npz(data, key)
    package = _package(data)
    if package == "xarray":
        return _xarray(data)
    if package in ("pandas", "polars", "pyarrow") or type(data).__name__ == "DataFrame":
        return _frame(data)
    if package == "sparse":
        return _pydata(data)
    if package == "torch" and str(data.layout) != "torch.strided":
        return _torch_sparse(data)
    if package == "jax" and hasattr(data, "indices") and hasattr(data, "sum_duplicates"):
        return _stored(list(np.asarray(data.indices).T), np.asarray(data.data), data.shape)
    if hasattr(data, "tocoo") and hasattr(data, "shape"):
        return _scipy(data)
    if isinstance(data, np.ma.MaskedArray):
        mask = ~np.ma.getmaskarray(data)
        return Dataset(array=numeric(np.ma.getdata(data)), mask=mask)
    return Dataset(array=numeric(dense_array(data)))


def _npz(data: Any, key: str | None) -> Dataset:
    """What ``numpy.load`` gives of an ``.npz`` before an array of it is read: where its file has a name,
    the library reads it from there, which takes a fraction of numpy's time and no array in between."""
    path = getattr(data.zip, "filename", None) if data.zip is not None else None
    if path is not None and os.path.isfile(path):
        return open_data(path, key=key)
    if key is None:
        if len(data.files) != 1:
            raise ValueError(f"the .npz has the arrays {', '.join(data.files)}; expected key= to name one")
        key = data.files[0]
    if key not in data.files:
        raise ValueError(f"the .npz has no array {key!r}; it has {', '.join(data.files)}")
    return Dataset(array=numeric(data[key]))


def dense_array(data: Any) -> np.ndarray:
    """numpy's array of whatever has its protocols: without a copy where there are memory's."""
    if isinstance(data, (np.ndarray, np.generic, list, tuple)):
        return np.asarray(data)
    if hasattr(data, "__dlpack_device__"):
        kind = int(data.__dlpack_device__()[0])
        # 1 is the CPU, 3 and 11 memory of the CPU that a GPU can read.
        if kind not in (1, 3, 11):
            raise ValueError(
                "the data are on a GPU: give them as they are on the CPU, as data.cpu(), and choose "
                "where to fit with device="
            )
        if getattr(data, "requires_grad", False):
            data = data.detach()
        if str(getattr(data, "dtype", "")) == "torch.bfloat16":
            data = data.float()
        try:
            return np.from_dlpack(data)
        except (AttributeError, BufferError, RuntimeError, TypeError, ValueError):
            pass  # Read-only memory, types that numpy does not have: the other protocol may do.
    array = np.asarray(data)
    if array.dtype.kind == "O" and array.ndim == 0:
        raise TypeError(
            f"the data are a {type(data).__qualname__}; expected an array, a sparse array, an "
            "xarray.DataArray, nn.from_table(...), or the path of a file"
        )
    return array


def _stored(columns: Sequence[Any], values: Any, shape: Any) -> Dataset:
    kept = []
    for column in columns:
        column = np.asarray(column)
        if column.dtype.kind not in "iu":
            raise TypeError(f"indices are of type {column.dtype}, but whole numbers are expected")
        if column.dtype.itemsize < 4:
            column = column.astype(np.int32)
        if not column.dtype.isnative:
            column = column.astype(column.dtype.newbyteorder("="))
        kept.append(np.ascontiguousarray(column))
    values = np.ascontiguousarray(numeric(values, "the values"))
    return Dataset(columns=kept, values=values, shape=shape)


def _scipy(data: Any) -> Dataset:
    coo = data.tocoo()
    columns = coo.coords if hasattr(coo, "coords") else (coo.row, coo.col)
    return _stored(columns, coo.data, coo.shape)


def _torch_sparse(data: Any) -> Dataset:
    if data.requires_grad:
        data = data.detach()
    # Added up at once, so that the library need not warn of entries at the same place.
    data = (data if data.is_sparse else data.to_sparse()).coalesce()
    if data.dense_dim():
        raise ValueError(
            f"the sparse tensor has {data.dense_dim()} dense dimensions; expected none: every entry is "
            "stored by itself"
        )
    return _stored(list(dense_array(data.indices())), dense_array(data.values()), data.shape)


def _pydata(data: Any) -> Dataset:
    if hasattr(data, "tocoo"):
        data = data.tocoo()
    elif hasattr(data, "to_coo"):
        data = data.to_coo()
    fill = np.asarray(data.fill_value)
    if np.isnan(fill):
        found = _stored(list(data.coords), data.data, data.shape)
        found.implicit_missing = True
        return found
    if fill != 0:
        raise ValueError(
            f"the sparse array has the fill value {fill}; expected 0, or NaN where what is not "
            "stored is missing"
        )
    return _stored(list(data.coords), data.data, data.shape)


def _texts(labels: Any) -> list[str]:
    array = np.asarray(labels)
    if array.dtype.kind == "M":
        texts = np.datetime_as_string(array)
        # Midnights are days.
        days = [text[:10] for text in texts]
        return days if all(set(text[10:]) <= set("T00:.") for text in texts) else [str(t) for t in texts]
    return [str(label) for label in labels]


def _frame(data: Any) -> Dataset:
    """A frame as a matrix: rows by the index, columns by their names."""
    package = _package(data)
    if package == "pandas" and hasattr(data, "columns"):
        found = _pandas(data)
        found.names = [str(data.index.name or "row"), str(data.columns.name or "column")]
        default = type(data.index).__name__ == "RangeIndex"
        found.labels = [None if default else _texts(data.index), _texts(data.columns)]
        return found
    if package == "pyarrow" and hasattr(data, "column_names"):
        columns = [_of_column(name, column.to_numpy()) for name, column in
                   zip(data.column_names, data.columns)]
        array = np.column_stack(columns) if columns else np.zeros((data.num_rows, 0))
        found = Dataset(array=numeric(array), names=["row", "column"])
        found.labels = [None, [str(name) for name in data.column_names]]
        return found
    if hasattr(data, "columns"):
        found = Dataset(array=numeric(data.to_numpy()), names=["row", "column"])
        found.labels = [None, [str(name) for name in data.columns]]
        return found
    return Dataset(array=numeric(np.asarray(data)))


def _of_column(name: Any, column: np.ndarray) -> np.ndarray:
    """A column, if it has numbers."""
    if column.dtype.kind not in "biuf":
        raise TypeError(
            f"the column {name!r} is of type {column.dtype}, but real numbers are expected: leave it "
            "out, or make a tensor of events with nn.from_table"
        )
    return column


def _pandas(data: Any) -> Dataset:
    if len(data.columns) and all(str(kind).startswith("Sparse[") for kind in data.dtypes):
        return _scipy(data.sparse.to_coo())
    array = data.to_numpy()
    if array.dtype.kind == "O":
        # Numbers that may be missing, as Int64, become floats with NaN; a column of texts is named.
        for name, kind in data.dtypes.items():
            if getattr(kind, "kind", "O") not in "biuf":
                _of_column(name, np.empty(0, dtype=object))
        array = data.to_numpy(dtype=np.float64, na_value=np.nan)
    return Dataset(array=numeric(array))


def _xarray(data: Any) -> Dataset:
    if not hasattr(data, "dims") or not hasattr(data, "coords") or hasattr(data, "data_vars"):
        raise TypeError(
            f"the data are a {type(data).__qualname__} of xarray; expected a DataArray, as one of "
            "its variables"
        )
    inner = data.data
    found = _pydata(inner) if _package(inner) == "sparse" else Dataset(array=numeric(data.values))
    found.names = [str(dim) for dim in data.dims]
    found.labels = [
        _texts(data.coords[dim].values) if dim in data.coords else None for dim in data.dims
    ]
    return found


def _mask(name: str, value: Any, names: Any) -> np.ndarray:
    if _package(value) == "xarray":
        # By its dimensions, where they are those of the data.
        same = names is not None and sorted(map(str, value.dims)) == sorted(map(str, names))
        value = (value.transpose(*names) if same else value).values
    array = dense_array(value)
    if array.dtype != np.bool_:
        raise TypeError(f"{name} is of type {array.dtype}; expected booleans, as from .astype(bool)")
    return array


def _rows(name: str, value: np.ndarray, modes: int) -> np.ndarray:
    if value.ndim != 2 or value.shape[1] != modes or value.dtype.kind not in "iu":
        raise ValueError(
            f"{name} is an array of type {value.dtype} and shape {value.shape}; expected a fraction, "
            f"booleans of the shape of the data, or whole numbers of shape (n, {modes}), an entry's "
            "index in each row"
        )
    return np.ascontiguousarray(value, dtype=np.int64)


# How entries are withheld at random.
SPLIT_KINDS = ("auto", "cells", "strata")


def observations(
    data: Dataset,
    *,
    mask: Any = None,
    weights: Any = None,
    missing: Any = None,
    implicit: Any = None,
    heldout: Any = None,
    validation: Any = None,
    heldout_as: str = "auto",
    zeros_per_nonzero: float | None = None,
    split_seed: int = 0,
) -> Any:
    """The data with the role of every entry."""
    opened = data._open()
    modes = len(data.shape)
    roles: dict[str, Any] = dict.fromkeys(
        ("mask", "weights", "missing_at", "heldout", "heldout_mask", "heldout_at", "validation",
         "validation_at")
    )
    roles["nan_missing"] = False
    if isinstance(missing, str):
        roles["nan_missing"] = _check.word("missing", missing, ("nan",)) == "nan"
    elif missing is not None:
        roles["missing_at"] = _rows("missing", np.asarray(missing), modes)
    if mask is not None:
        roles["mask"] = _mask("mask", mask, data.names)
    if data._mask is not None:
        both = data._mask
        if roles["mask"] is not None and roles["mask"].shape == both.shape:
            both = both & roles["mask"]
        roles["mask"] = both
    if weights is not None:
        roles["weights"] = numeric(dense_array(weights), "the weights")
    if implicit is None:
        roles["unlisted_missing"] = data.implicit_missing
    else:
        roles["unlisted_missing"] = _check.word("implicit", implicit, ("zero", "missing")) == "missing"
        if not data.is_sparse:
            raise ValueError("implicit is for sparse data; these have a value for every entry")
    for name, value in (("heldout", heldout), ("validation", validation)):
        if value is None:
            continue
        if np.ndim(value) == 0:
            roles[name] = _check.real(name, value)
            continue
        array = np.asarray(value)
        if array.dtype != np.bool_:
            roles[f"{name}_at"] = _rows(name, array, modes)
        elif name == "heldout":
            roles["heldout_mask"] = array
        elif array.shape == data.shape:
            roles["validation_at"] = np.argwhere(array).astype(np.int64)
        else:
            raise ValueError(
                f"validation is an array of booleans of shape {array.shape}; expected {data.shape}, "
                "the shape of the data"
            )
    roles["heldout_as"] = _check.word("heldout_as", heldout_as, SPLIT_KINDS)
    roles["zeros_per_nonzero"] = _check.optional(
        _check.real, "zeros_per_nonzero", zeros_per_nonzero
    )
    roles["split_seed"] = _check.seed_of("split_seed", split_seed)
    return opened.with_roles(roles)
