"""Inputs as they are: sparse, labelled, of other packages; and outputs for them."""

import io

import numpy as np
import pytest

import nneinfact as nn

NMF = "ir,jr->ij"


def bits(fit):
    return [factor.tobytes() for factor in fit.factors]


@pytest.fixture
def sparse_matrix(matrix):
    return np.where(matrix > 2, matrix, 0)


def test_scipy_sparse_of_all_formats(sparse_matrix):
    scipy = pytest.importorskip("scipy.sparse")
    wanted = nn.fit(NMF, scipy.coo_array(sparse_matrix), {"r": 2}, max_iter=10)
    dense = nn.fit(NMF, sparse_matrix, {"r": 2}, max_iter=10)
    assert wanted.loss == pytest.approx(dense.loss, rel=1e-4)
    for format in ("csr", "csc", "coo", "lil", "dok", "bsr", "dia"):
        for make in (scipy.coo_array, scipy.coo_matrix):
            data = make(sparse_matrix).asformat(format)
            assert bits(nn.fit(NMF, data, {"r": 2}, max_iter=10)) == bits(wanted), format
    narrow = scipy.coo_array((sparse_matrix.ravel()[None, :] * 1.0).reshape(30, 20))
    narrow.coords = tuple(c.astype(np.int16) for c in narrow.coords)
    assert bits(nn.fit(NMF, narrow, {"r": 2}, max_iter=10)) == bits(wanted)


def test_scipy_of_three_modes(counts):
    scipy = pytest.importorskip("scipy.sparse")
    where = np.nonzero(counts)
    data = scipy.coo_array((counts[where], where), shape=counts.shape)
    fit = nn.fit("ir,jr,kr->ijk", data, {"r": 2}, max_iter=5)
    dense = nn.fit("ir,jr,kr->ijk", counts, {"r": 2}, max_iter=5)
    assert fit.loss == pytest.approx(dense.loss, rel=1e-4)


def test_pydata_sparse(counts):
    sparse = pytest.importorskip("sparse")
    data = sparse.COO.from_numpy(counts)
    fit = nn.fit("ir,jr,kr->ijk", data, {"r": 2}, max_iter=5)
    assert bits(nn.fit("ir,jr,kr->ijk", sparse.GCXS(data), {"r": 2}, max_iter=5)) == bits(fit)
    missing = nn.fit("ir,jr,kr->ijk", data, {"r": 2}, implicit="missing", max_iter=5)
    assert missing.loss != fit.loss
    nan = sparse.COO(data.coords, data.data * 1.0, shape=data.shape, fill_value=np.nan)
    assert bits(nn.fit("ir,jr,kr->ijk", nan, {"r": 2}, max_iter=5)) == bits(missing)
    with pytest.raises(ValueError, match="fill value 1"):
        nn.fit("ir,jr,kr->ijk", sparse.COO(data.coords, data.data, shape=data.shape, fill_value=1), {"r": 2})


def test_implicit_is_for_sparse_data(matrix):
    with pytest.raises(ValueError, match="implicit is for sparse data"):
        nn.fit(NMF, matrix, {"r": 1}, implicit="missing")


def test_xarray_in_and_out(counts):
    xarray = pytest.importorskip("xarray")
    days = np.array(["2020-01-01", "2020-01-02"], dtype="M8[ns]").repeat(5)
    data = xarray.DataArray(counts, dims=["who", "day", "k"], coords={"day": days})
    fit = nn.fit("ir,jr,kr->ijk", data, {"r": 2}, max_iter=5)
    assert fit.names == {"i": "who", "j": "day", "k": "k"}
    assert fit.labels["j"][0] == "2020-01-01"
    out = fit.to_xarray()
    assert out["jr"].dims == ("day", "r") and out["jr"].coords["day"].values[9] == "2020-01-02"
    # Dimensions that are the model's letters come in its order.
    by_letter = xarray.DataArray(counts, dims=["i", "j", "k"]).transpose("k", "i", "j")
    wanted = nn.fit("ir,jr,kr->ijk", counts, {"r": 2}, max_iter=5)
    assert bits(nn.fit("ir,jr,kr->ijk", by_letter, {"r": 2}, max_iter=5)) == bits(wanted)


def test_pandas_and_polars_matrices(matrix):
    pandas = pytest.importorskip("pandas")
    names = [f"g{j}" for j in range(20)]
    frame = pandas.DataFrame(matrix, columns=names, index=pandas.Index(range(30), name="cell"))
    fit = nn.fit(NMF, frame, {"r": 2}, max_iter=5)
    assert bits(fit) == bits(nn.fit(NMF, frame.to_numpy(), {"r": 2}, max_iter=5))
    table = fit.frame("jr")
    assert list(table.index) == names and table.shape == (20, 2)
    polars = pytest.importorskip("polars")
    fit = nn.fit(NMF, polars.DataFrame(matrix, schema=names, orient="row"), {"r": 2}, max_iter=5)
    assert fit.labels["j"] == names


class OnGpu:
    def __dlpack_device__(self):
        return (2, 0)


class Lent:
    """What has DLPack only, as torch's and jax's arrays."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **kwargs):
        return self._array.__dlpack__(**kwargs)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


def test_lists_are_split_by_strata():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    rng = np.random.default_rng(0)
    at = rng.integers(0, 100_000, (2, 3000))
    vast = scipy_sparse.coo_array((np.ones(3000), at), shape=(100_000, 100_000))
    fit = nn.fit(NMF, vast, {"r": 2}, max_iter=2, heldout=0.2, validation=0.1)
    assert fit.history.heldout_as == "strata" and fit.heldout_loss > 0
    small = scipy_sparse.coo_array((np.ones(3000), at % 100), shape=(100, 100))
    cells = nn.fit(NMF, small, {"r": 2}, max_iter=2, heldout=0.2)
    assert cells.history.heldout_as == "cells"
    strata = nn.fit(
        NMF, small, {"r": 2}, max_iter=2, heldout=0.2, heldout_as="strata", zeros_per_nonzero=2.0
    )
    assert strata.history.heldout_as == "strata"
    assert strata.heldout_loss == pytest.approx(cells.heldout_loss, rel=0.5)
    assert nn.fit(NMF, small, {"r": 2}, max_iter=2).history.heldout_as is None
    study = nn.compare(small, [NMF], {"r": [1]}, max_iter=2, heldout=0.2, heldout_as="strata")
    assert study.rows[0]["heldout_loss"]["mean"] > 0


def test_dlpack_and_the_array_protocol(matrix):
    wanted = bits(nn.fit(NMF, matrix, {"r": 2}, max_iter=5))
    assert bits(nn.fit(NMF, Lent(matrix), {"r": 2}, max_iter=5)) == wanted
    assert bits(nn.fit(NMF, matrix.tolist(), {"r": 2}, max_iter=5)) == wanted
    with pytest.raises(ValueError, match=r"data\.cpu\(\)"):
        nn.fit(NMF, OnGpu(), {"r": 2})


def test_torch(matrix):
    torch = pytest.importorskip("torch")
    wanted = bits(nn.fit(NMF, matrix, {"r": 2}, max_iter=5))
    for kind in (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.uint8, torch.int64):
        data = torch.tensor(matrix, dtype=kind)
        assert bits(nn.fit(NMF, data, {"r": 2}, max_iter=5)) == wanted, kind
    data = torch.tensor(matrix, dtype=torch.float32, requires_grad=True)
    assert bits(nn.fit(NMF, data, {"r": 2}, max_iter=5)) == wanted
    turned = torch.tensor(matrix.T.copy()).T
    assert bits(nn.fit(NMF, turned, {"r": 2}, max_iter=5)) == bits(
        nn.fit(NMF, np.asfortranarray(matrix), {"r": 2}, max_iter=5)
    )
    stored = torch.tensor(matrix).to_sparse()
    assert bits(nn.fit(NMF, stored, {"r": 2}, max_iter=5)) == bits(
        nn.fit(NMF, coo(matrix), {"r": 2}, max_iter=5)
    )
    mask = torch.tensor(matrix > 0)
    assert bits(nn.fit(NMF, matrix, {"r": 2}, mask=mask, max_iter=5)) == bits(
        nn.fit(NMF, matrix, {"r": 2}, mask=matrix > 0, max_iter=5)
    )
    known = torch.ones((20, 2))
    fit = nn.fit(NMF, matrix, {"r": 2}, fixed={"jr": known}, max_iter=5)
    assert (fit["jr"] == 1).all()


def test_jax(matrix):
    jax = pytest.importorskip("jax")
    wanted = bits(nn.fit(NMF, matrix, {"r": 2}, max_iter=5))
    for kind in ("float32", "float16", "bfloat16", "uint8", "int32"):
        data = jax.numpy.asarray(matrix, dtype=kind)
        assert bits(nn.fit(NMF, data, {"r": 2}, max_iter=5)) == wanted, kind
    from jax.experimental import sparse

    stored = sparse.BCOO.fromdense(jax.numpy.asarray(matrix))
    assert bits(nn.fit(NMF, stored, {"r": 2}, max_iter=5)) == bits(
        nn.fit(NMF, coo(matrix), {"r": 2}, max_iter=5)
    )


def coo(array):
    return pytest.importorskip("scipy.sparse").coo_array(array)


def test_anndata(matrix):
    anndata = pytest.importorskip("anndata")
    scipy = pytest.importorskip("scipy.sparse")
    for counts in (matrix.astype("f4"), scipy.csr_matrix(matrix.astype("f4"))):
        adata = anndata.AnnData(counts)
        adata.var_names = [f"g{j}" for j in range(20)]
        fit = nn.fit("cr,gr->cg", adata.X, {"r": 2}, loss=nn.negative_binomial(1.0), max_iter=5)
        fit = fit.with_labels({"g": adata.var_names, "c": adata.obs_names})
        adata.obsm["X_nneinfact"] = fit["cr"]
        adata.varm["nneinfact"] = fit["gr"]
        assert list(fit.frame("gr").index) == list(adata.var_names)
        np.testing.assert_array_equal(adata.obsm["X_nneinfact"], fit["cr"])


@pytest.mark.parametrize("order", ["C", "F", "K"])
@pytest.mark.parametrize("dtype", ["f8", "f4", "f2", "i8", "u2", "b1", ">i8", "g"])
def test_types_orders_and_strides_together(counts, dtype, order):
    data = np.minimum(counts, 1) if dtype == "b1" else counts
    if order == "K":
        # Every second entry of a larger array, one axis backwards.
        large = np.zeros((24, 10, 8), dtype=dtype)[::2, ::-1]
        large[:] = data
        data, plain = large, data
    else:
        data, plain = np.array(data, dtype=dtype, order=order), data.astype("f8", order=order)
    fit = nn.fit("ir,jr,kr->ijk", data, {"r": 2}, max_iter=5)
    assert bits(fit) == bits(nn.fit("ir,jr,kr->ijk", plain, {"r": 2}, max_iter=5))
    assert (data == plain).all()


def test_data_may_be_read_only(counts):
    data = counts.copy()
    data.flags.writeable = False
    wanted = bits(nn.fit("ir,jr,kr->ijk", counts, {"r": 2}, max_iter=5))
    assert bits(nn.fit("ir,jr,kr->ijk", data, {"r": 2}, max_iter=5)) == wanted


def test_arrow_tables_and_series_of_pandas(matrix):
    pandas = pytest.importorskip("pandas")
    arrow = pytest.importorskip("pyarrow")
    frame = pandas.DataFrame(matrix, columns=[f"g{j}" for j in range(20)])
    wanted = bits(nn.fit(NMF, frame, {"r": 2}, max_iter=5))
    fit = nn.fit(NMF, arrow.Table.from_pandas(frame), {"r": 2}, max_iter=5)
    assert bits(fit) == wanted or fit.loss == pytest.approx(nn.fit(NMF, matrix, {"r": 2}, max_iter=5).loss)
    assert fit.labels["j"][3] == "g3"
    # A column of names among the numbers is named in what is said.
    frame["name"] = "x"
    with pytest.raises(TypeError, match="real numbers are expected"):
        nn.fit(NMF, frame, {"r": 2})
    # Types of pandas with missing values of their own.
    nullable = frame.drop(columns="name").astype("Int64")
    nullable.iloc[3, 4] = pandas.NA
    fit = nn.fit(NMF, nullable, {"r": 2}, missing="nan", max_iter=5)
    holes = matrix.astype(float)
    holes[3, 4] = np.nan
    assert fit.loss == pytest.approx(nn.fit(NMF, holes, {"r": 2}, missing="nan", max_iter=5).loss, rel=1e-4)


def test_tensorly_and_pyttb(counts):
    cp = nn.fit("ir,jr,kr->ijk", counts, {"r": 2}, max_iter=5)
    tucker = nn.fit("ia,jb,kc,abc->ijk", counts, {"a": 2, "b": 3, "c": 2}, max_iter=5)
    train = nn.fit("ia,ajb,bk->ijk", counts, {"a": 2, "b": 3}, max_iter=5)
    tensorly = pytest.importorskip("tensorly")
    unit = cp.normalize("l2")
    for fit in (cp, unit, tucker, train):
        tensor = fit.to_tensorly()
        whole = {
            "CPTensor": tensorly.cp_to_tensor, "TuckerTensor": tensorly.tucker_to_tensor,
            "TTTensor": tensorly.tt_to_tensor,
        }[type(tensor).__name__](tensor)
        np.testing.assert_allclose(whole, fit.reconstruct(), rtol=1e-9)
    with pytest.raises(ValueError, match="is not a CP"):
        nn.fit("ikr,jr->ijk", counts, {"r": 2}, max_iter=1).to_tensorly()
    pyttb = pytest.importorskip("pyttb")
    assert pyttb
    for fit in (cp, tucker):
        tensor = fit.to_pyttb()
        whole = tensor.full().double() if hasattr(tensor, "full") else tensor.to_tensor().double()
        np.testing.assert_allclose(whole, fit.reconstruct(), rtol=1e-9)


def test_frames_of_factors(counts):
    pandas = pytest.importorskip("pandas")
    fit = nn.fit("ikr,jr->ijk", counts, {"r": 2}, max_iter=2)
    table = fit.frame("ikr")
    assert isinstance(table.index, pandas.MultiIndex) and table.shape == (12 * 8, 2)
    assert table.loc[(3, 5), 1] == fit["ikr"][3, 5, 1]
    assert len(fit.history.frame()) == len(fit.history)


def test_files(counts, sparse_matrix, tmp_path):
    np.savez(tmp_path / "two.npz", a=counts, b=counts[0])
    wanted = bits(nn.fit("ir,jr,kr->ijk", counts, {"r": 2}, max_iter=5))
    found = nn.fit("ir,jr,kr->ijk", tmp_path / "two.npz", {"r": 2}, key="a", max_iter=5)
    assert bits(found) == wanted
    with pytest.raises(ValueError, match="several arrays"):
        nn.fit("ir,jr,kr->ijk", tmp_path / "two.npz", {"r": 2})
    # What numpy.load gives, before and after an array of it is read.
    with np.load(tmp_path / "two.npz") as opened:
        assert bits(nn.fit("ir,jr,kr->ijk", opened, {"r": 2}, key="a", max_iter=5)) == wanted
        assert bits(nn.fit("ir,jr,kr->ijk", opened["a"], {"r": 2}, max_iter=5)) == wanted
        with pytest.raises(ValueError, match="several arrays"):
            nn.fit("ir,jr,kr->ijk", opened, {"r": 2})
    with np.load(io.BytesIO((tmp_path / "two.npz").read_bytes())) as opened:
        assert bits(nn.fit("ir,jr,kr->ijk", opened, {"r": 2}, key="a", max_iter=5)) == wanted
        with pytest.raises(ValueError, match="has the arrays a, b; expected key="):
            nn.fit("ir,jr,kr->ijk", opened, {"r": 2})
        with pytest.raises(ValueError, match="no array 'c'; it has a, b"):
            nn.fit("ir,jr,kr->ijk", opened, {"r": 2}, key="c")
    with pytest.raises(ValueError, match="key is for data in a file"):
        nn.fit("ir,jr,kr->ijk", counts, {"r": 2}, key="a")
    np.save(tmp_path / "one.npy", counts)
    mapped = np.load(tmp_path / "one.npy", mmap_mode="r")
    assert bits(nn.fit("ir,jr,kr->ijk", mapped, {"r": 2}, max_iter=5)) == wanted
    streamed = nn.open_data(tmp_path / "one.npy", stream=True)
    assert bits(nn.fit("ir,jr,kr->ijk", streamed, {"r": 2}, max_iter=5)) == wanted
    scipy = pytest.importorskip("scipy.sparse")
    scipy.save_npz(tmp_path / "sparse.npz", scipy.csr_array(sparse_matrix))
    there = nn.fit(NMF, tmp_path / "sparse.npz", {"r": 2}, max_iter=5)
    assert bits(there) == bits(nn.fit(NMF, scipy.csr_array(sparse_matrix), {"r": 2}, max_iter=5))
