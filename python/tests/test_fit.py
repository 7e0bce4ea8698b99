"""fit, Fit, callbacks, interrupts, pickles."""

import copy
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings

import numpy as np
import pytest
from conftest import Running, run_python

import nneinfact as nn

CP = "ir,jr,kr->ijk"


def bits(fit):
    return [factor.tobytes() for factor in fit.factors]


def test_a_fit_lowers_the_loss_and_predicts(counts):
    fit = nn.fit(CP, counts, {"r": 3}, max_iter=50)
    assert fit.loss < 0.5 * fit.history.loss[0]
    assert [f.shape for f in fit.factors] == [(12, 3), (10, 3), (8, 3)]
    whole = fit.reconstruct()
    np.testing.assert_allclose(whole, np.einsum(CP, *fit.factors))
    np.testing.assert_allclose(fit.slice(j=4), whole[:, 4])
    where = np.array([[0, 1, 2], [11, 9, 7]])
    np.testing.assert_allclose(fit.predict(where), whole[tuple(where.T)])
    assert fit.predict([0, 1, 2]) == pytest.approx(whole[0, 1, 2])
    assert fit["jr"] is fit[1] is fit["theta_2"]
    assert not fit["jr"].flags.writeable
    assert fit.model == CP and fit.ranks == {"r": 3} and fit.shape == (12, 10, 8)
    assert np.all(np.diff(fit.history.loss) <= 1e-9)


@pytest.mark.parametrize(
    "dtype", ["f8", "f4", "f2", "i8", "i4", "i2", "u1", "u2", "u4", "u8", ">f8", ">i4", "g", "b1"]
)
def test_all_types_of_the_same_numbers_give_the_same_bits(counts, dtype):
    data = counts > 1 if dtype == "b1" else counts
    wanted = nn.fit(CP, data.astype("f8"), {"r": 2}, max_iter=5)
    assert bits(nn.fit(CP, data.astype(dtype), {"r": 2}, max_iter=5)) == bits(wanted)


def test_strides_and_orders(counts):
    wanted = bits(nn.fit(CP, counts, {"r": 2}, max_iter=5))
    strided = np.zeros((24, 10, 16), dtype=np.int64)[::2, :, ::2]
    strided[:] = counts
    assert bits(nn.fit(CP, strided, {"r": 2}, max_iter=5)) == wanted
    reversed_ = counts[::-1, :, ::-1].copy()[::-1, :, ::-1]
    assert bits(nn.fit(CP, reversed_, {"r": 2}, max_iter=5)) == wanted
    unaligned = np.frombuffer(b"x" + counts.tobytes(), dtype=np.uint8)[1:].view(np.int64)
    assert bits(nn.fit(CP, unaligned.reshape(counts.shape), {"r": 2}, max_iter=5)) == wanted
    fortran = nn.fit(CP, np.asfortranarray(counts), {"r": 2}, max_iter=200)
    assert fortran.loss == pytest.approx(nn.fit(CP, counts, {"r": 2}, max_iter=200).loss, rel=0.05)


def test_threads_give_the_same_bits(counts):
    one = nn.fit(CP, counts, {"r": 3}, threads=1, max_iter=20)
    assert bits(one) == bits(nn.fit(CP, counts, {"r": 3}, threads=2, max_iter=20))
    device = nn.Device("cpu", threads=2)
    assert bits(one) == bits(nn.fit(CP, counts, {"r": 3}, device=device, max_iter=20))


def test_a_callback_is_called_in_this_thread_and_stops(counts):
    seen = []

    def callback(sweep):
        assert threading.current_thread() is threading.main_thread()
        seen.append(sweep)
        return sweep.iteration == 3

    fit = nn.fit(CP, counts, {"r": 2}, callback=callback, heldout=0.2, tol=0)
    assert [sweep.iteration for sweep in seen] == [0, 1, 2, 3]
    assert fit.stopped_by == "observer" and fit.history.iterations == 3
    assert seen[-1].loss == fit.loss and seen[-1].heldout_loss == fit.heldout_loss


def test_what_a_callback_raises_is_raised(counts):
    class Mine(Exception):
        pass

    error = Mine("mine")

    def callback(sweep):
        if sweep.iteration == 2:
            raise error

    with pytest.raises(Mine) as caught:
        nn.fit(CP, counts, {"r": 2}, callback=callback)
    assert caught.value is error


def test_other_threads_run_while_it_fits(counts):
    ticks = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(1)
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    big = np.tile(counts, (8, 8, 4))
    before = len(ticks)
    nn.fit(CP, big, {"r": 8}, max_iter=20, tol=0)
    after = len(ticks)
    done.set()
    thread.join()
    assert after > before


INTERRUPTED = """
import numpy as np, nneinfact as nn, sys
y = np.random.default_rng(0).poisson(2.0, (60, 50, 40))
def callback(sweep):
    if sweep.iteration == 3:
        print("running")
try:
    fit = nn.fit("ir,jr,kr->ijk", y, {"r": 20}, tol=0, max_iter=10**9, callback=callback, ARGS)
    print("fit", fit.stopped_by, fit.history.iterations >= 3)
except KeyboardInterrupt as interrupt:
    print("raised", interrupt.fit.stopped_by, interrupt.fit.history.iterations >= 3)
"""


@pytest.mark.parametrize("words, wanted", [("", "raised"), ("on_interrupt='return'", "fit")])
def test_ctrl_c_keeps_what_there_is(words, wanted):
    process = run_python(INTERRUPTED.replace("ARGS", words))
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert out == f"{wanted} interrupted True\n", err


def test_pickles_copies_and_files(counts, tmp_path):
    data = nn.Dataset(array=counts, names=["a", "b", "c"], labels=[None, list("0123456789"), None])
    fit = nn.fit(CP, data, {"r": 2}, max_iter=10)
    assert fit.names == {"i": "a", "j": "b", "k": "c"}
    fit.save(tmp_path / "fit.npz")
    for again in (
        pickle.loads(pickle.dumps(fit)), copy.deepcopy(fit), copy.copy(fit),
        nn.load(tmp_path / "fit.npz"), nn.Fit.from_bytes(fit.to_bytes()),
    ):
        assert bits(again) == bits(fit)
        assert again.names == fit.names and again.labels == fit.labels
        assert again.history.loss.tobytes() == fit.history.loss.tobytes()
        assert repr(again) == repr(fit)
    with np.load(tmp_path / "fit.npz") as arrays:
        np.testing.assert_array_equal(arrays["theta_1"], fit["ir"])
    for thing in (nn.beta(1.5), nn.negative_binomial(np.ones((2, 2))), nn.l1(0.1), nn.Device("cpu")):
        assert repr(pickle.loads(pickle.dumps(thing))) == repr(thing)
    custom = nn.loss("mine", a=nn.x / nn.y, b=1, loss=nn.y - nn.x * nn.log(nn.y),
                     majorizer=("power", -1, 0))
    assert pickle.loads(pickle.dumps(custom)) == custom == copy.deepcopy(custom)
    formula = (nn.x - nn.y) ** 2 / nn.sqrt(nn.y)
    assert repr(pickle.loads(pickle.dumps(formula))) == repr(formula)


def test_components(counts):
    fit = nn.fit(CP, counts, {"r": 3}, max_iter=30)
    whole = fit.reconstruct()
    unit = fit.normalize("l1").sort()
    assert unit.weights.shape == (3,) and np.all(np.diff(unit.weights) <= 0)
    np.testing.assert_allclose(unit["ir"].sum(axis=0), 1)
    np.testing.assert_allclose(unit.reconstruct(), whole)
    np.testing.assert_allclose(unit.predict([[1, 2, 3]]), whole[1, 2, 3])
    np.testing.assert_allclose(fit.component_weights("r").sum(), whole.sum())
    into = fit.normalize("max", into="kr")
    assert into.weights is None
    np.testing.assert_allclose(into.reconstruct(), whole)
    assert fit.drop_empty().ranks == {"r": 3}
    assert unit.loss == fit.loss and unit.history.stopped_by == fit.stopped_by


def test_roles_of_entries(counts):
    rng = np.random.default_rng(0)
    mask = rng.random(counts.shape) < 0.8
    holes = np.where(mask, counts, np.nan)
    masked = nn.fit(CP, counts, {"r": 2}, mask=mask, max_iter=10, data_as="dense")
    nan = nn.fit(CP, holes, {"r": 2}, missing="nan", max_iter=10, data_as="dense")
    assert masked.loss == pytest.approx(nan.loss, rel=1e-6)
    weighted = nn.fit(CP, counts, {"r": 2}, weights=mask.astype(float), max_iter=10, data_as="dense")
    assert weighted.loss == pytest.approx(masked.loss, rel=1e-6)
    listed = nn.fit(CP, counts, {"r": 2}, missing=np.argwhere(~mask), max_iter=10, data_as="dense")
    assert listed.loss == pytest.approx(masked.loss, rel=1e-6)
    ma = nn.fit(CP, np.ma.masked_array(counts, ~mask), {"r": 2}, max_iter=10, data_as="dense")
    assert bits(ma) == bits(masked)
    held = nn.fit(CP, counts, {"r": 2}, heldout=~mask, max_iter=10)
    rows = nn.fit(CP, counts, {"r": 2}, heldout=np.argwhere(~mask), max_iter=10)
    assert held.heldout_loss == pytest.approx(rows.heldout_loss, rel=1e-6)
    valid = nn.fit(CP, counts, {"r": 2}, validation=~mask, early_stopping=True)
    assert valid.validation_loss == min(valid.history.validation_loss)
    fraction = nn.fit(CP, counts, {"r": 2}, heldout=0.1, validation=0.1, split_seed=3, max_iter=5)
    assert fraction.heldout_loss > 0 and fraction.validation_loss > 0


def test_constraints_and_starts(counts):
    known = np.random.default_rng(0).random((10, 2))
    fit = nn.fit(CP, counts, {"r": 2}, fixed={"jr": known}, bounds={"ir": (0, 0.5)}, max_iter=20)
    np.testing.assert_array_equal(fit["jr"], known)
    assert fit["ir"].max() <= 0.5
    sparse = nn.fit(CP, counts, {"r": 2}, penalty=nn.l1(5.0), max_iter=20)
    assert len(sparse.history.penalty) == len(sparse.history.loss)
    with pytest.warns(nn.NNEinFactWarning, match="void"):
        nn.fit(CP, counts, {"r": 2}, penalty={"ir": nn.l2(0.1)}, max_iter=2)
    begun = nn.fit(CP, counts, {"r": 2}, max_iter=5)
    again = nn.fit(CP, counts, {"r": 2}, init=begun, max_iter=0)
    assert again.loss == pytest.approx(begun.loss, rel=1e-5)
    grown = nn.fit(CP, counts, {"r": 3}, init=("grow", begun), max_iter=0)
    assert grown.loss == pytest.approx(begun.loss, rel=0.05)
    for init in ("svd", "gamma", ("gamma", 0.5), list(begun.factors)):
        assert nn.fit(CP, counts, {"r": 2}, init=init, max_iter=1).loss > 0
    tried = nn.fit(CP, counts, {"r": 2}, starts=3, seed=5, max_iter=12)
    assert tried.history.seed in (5, 6, 7)
    more = begun.transform(counts[:4], "i", max_iter=10)
    np.testing.assert_array_equal(more["jr"], begun["jr"])
    assert more["ir"].shape == (4, 2)


def test_a_transform_has_the_loss_of_its_fit(counts, tmp_path):
    for loss in ("hellinger", nn.alpha_beta(0.7, 0.2), nn.negative_binomial(2.0)):
        fit = nn.fit(CP, counts, {"r": 2}, loss=loss, max_iter=5)
        fit.save(tmp_path / "fit.npz")
        for same in (fit, nn.load(tmp_path / "fit.npz")):
            more = same.transform(counts[:4], "i", max_iter=5)
            assert more.loss_name == fit.loss_name
            assert bits(more) == bits(fit.transform(counts[:4], "i", max_iter=5, loss=loss))
    per_entry = nn.fit(CP, counts, {"r": 2}, loss=nn.negative_binomial(np.full(counts.shape, 2.0)), max_iter=2)
    with pytest.raises(ValueError, match="cannot be made again .*: give it with loss="):
        per_entry.transform(counts[:4], "i")


def test_losses(counts):
    for name, parameters in nn.losses.NAMES.items():
        data = counts > 1 if name == "bernoulli" else counts + 1.0
        given = {"alpha": 0.7, "beta": 0.3, "dispersion": 2.0, "trials": 500.0, "power": 1.5}
        made = nn.loss(name, **{p: given[p] for p in parameters})
        fit = nn.fit(CP, data, {"r": 2}, loss=made, max_iter=5)
        assert fit.loss <= fit.history.loss[0], name
    per_entry = nn.negative_binomial(np.full(counts.shape, 2.0))
    one = nn.negative_binomial(2.0)
    a = nn.fit(CP, counts, {"r": 2}, loss=per_entry, max_iter=5, precision="f64")
    b = nn.fit(CP, counts, {"r": 2}, loss=one, max_iter=5, precision="f64")
    assert a.loss == pytest.approx(b.loss)
    x, y = nn.x, nn.y
    poisson = nn.loss("poisson", a=x / y, b=1, loss=y - x * nn.log(y), majorizer=("power", -1, 0))
    mine = nn.fit(CP, counts, {"r": 2}, loss=poisson, max_iter=10, precision="f64", algorithm="grouped")
    kl = nn.fit(CP, counts, {"r": 2}, loss="kl", max_iter=10, precision="f64", algorithm="grouped")
    np.testing.assert_allclose(mine.reconstruct(), kl.reconstruct(), rtol=1e-6)


def test_checkpoints(counts, tmp_path):
    path = tmp_path / "fit.checkpoint"
    settings = dict(ranks={"r": 2}, tol=0.0, checkpoint=path, checkpoint_sweeps=2)
    nn.fit(CP, counts, max_iter=5, **settings)
    with pytest.raises(ValueError, match="resume=True"):
        nn.fit(CP, counts, max_iter=9, **settings)
    resumed = nn.fit(CP, counts, max_iter=9, resume=True, **settings)
    assert bits(resumed) == bits(nn.fit(CP, counts, {"r": 2}, tol=0.0, max_iter=9))


def test_pages(counts, tmp_path):
    fit = nn.fit(CP, counts, {"r": 2}, max_iter=5, heldout=0.1)
    shown = fit._repr_html_()
    assert "ir,jr,kr" in shown and "srcdoc" in shown
    fit.report(tmp_path / "fit.html", counts, heldout=0.1, title="Mine", names={"i": "person"})
    page = (tmp_path / "fit.html").read_text(encoding="utf-8")
    assert "Mine" in page and "person" in page
    fit.report(tmp_path / "fit.svg")
    assert (tmp_path / "fit.svg").read_text(encoding="utf-8").startswith("<svg")
    assert "iframe" in fit.report()._repr_html_()
    assert CP in nn.explain(CP, counts.shape, {"r": 2})


def test_nothing_is_printed_where_nobody_looks(counts, capfd):
    nn.fit(CP, counts, {"r": 2}, max_iter=5)
    assert capfd.readouterr() == ("", "")
    nn.fit(CP, counts, {"r": 2}, max_iter=5, progress=True)
    assert capfd.readouterr().err != ""


def test_a_bar_without_tqdm(counts, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    nn.fit(CP, counts, {"r": 2}, max_iter=5, progress=True)
    err = capfd.readouterr().err
    assert "5/5 sweeps, loss" in err and err.endswith("\r\x1b[K")


def test_there_may_be_no_standard_error(counts, monkeypatch):
    # As under pythonw, or in some notebooks.
    monkeypatch.setattr(sys, "stderr", None)
    nn.fit(CP, counts, {"r": 2}, max_iter=2)


def test_ctrl_c_during_a_callback_of_a_study_or_a_density(counts):
    def interrupted(*_):
        raise KeyboardInterrupt

    # So much work that it is not all done before the first run is told of.
    work = dict(ranks={"r": [4, 5]}, starts=200, max_iter=200, tol=0.0, callback=interrupted)
    with pytest.raises(KeyboardInterrupt) as caught:
        nn.compare(counts, [CP], **work)
    assert not caught.value.study.complete
    assert not nn.compare(counts, [CP], on_interrupt="return", **work).complete
    with pytest.raises(KeyboardInterrupt):
        nn.density.cross(interrupted, [4, 4, 4])
    kept = nn.fit(CP, counts, {"r": 2}, on_interrupt="return",
                  callback=lambda sweep: interrupted() if sweep.iteration == 2 else None)
    assert kept.stopped_by == "interrupted" and kept.history.iterations == 2


def test_four_fits_at_once(counts):
    joblib = pytest.importorskip("joblib")
    wanted = [bits(nn.fit(CP, counts, {"r": 3}, seed=s, max_iter=20)) for s in range(4)]

    def one(seed):
        return bits(nn.fit(CP, counts, {"r": 3}, seed=seed, max_iter=20))

    found = joblib.Parallel(n_jobs=4, backend="threading")(joblib.delayed(one)(s) for s in range(4))
    assert found == wanted


FORKED = """
import os, sys, warnings
warnings.simplefilter("ignore", DeprecationWarning)
import numpy as np, nneinfact as nn
y = np.random.default_rng(0).poisson(2.0, (30, 20, 10))
device = nn.Device("cpu")
fit = lambda **kw: nn.fit("ir,jr,kr->ijk", y, {"r": 3}, max_iter=10, **kw)["ir"].tobytes()
wanted = fit()
child = os.fork()
if child == 0:
    same = fit() == fit(threads=2) == fit(device=device) == wanted
    try:
        nn.Device("gpu")
    except RuntimeError as error:
        same = same and "spawn" in str(error)
    os._exit(0 if same else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_fork_after_a_fit_fits_and_says_what_is_not_possible():
    process = run_python(FORKED)
    out, err = process.communicate(timeout=120)
    assert out == "0\n", err


POOLS = """
import multiprocessing, sys, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np, nneinfact as nn
warnings.simplefilter("ignore", DeprecationWarning)
y = np.random.default_rng(0).poisson(2.0, (30, 20, 10))

def one(seed):
    return nn.fit("ir,jr,kr->ijk", y, {"r": 3}, max_iter=10, seed=seed)["ir"].tobytes()

def study(_):
    return len(nn.compare(y, ["ir,jr,kr->ijk"], {"r": [1, 2]}, max_iter=3))

def train(_):
    return nn.density.from_samples(y[:, :5, 0] % 3, rank=2).shape

if __name__ == "__main__":
    wanted = [one(seed) for seed in range(4)]
    for method in ("fork", "forkserver", "spawn"):
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(2, mp_context=context) as pool:
            print(method, list(pool.map(one, range(4))) == wanted, flush=True)
            if method == "fork":
                print(list(pool.map(study, [0])), list(pool.map(train, [0])), flush=True)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        print("pool", pool.map(one, range(4)) == wanted, flush=True)
"""


def test_processes_of_every_start_method_fit(tmp_path):
    script = tmp_path / "pools.py"
    script.write_text(POOLS)
    process = Running(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    out, err = process.communicate(timeout=240)
    assert out.splitlines() == [
        "fork True", "[2] [(3, 3, 3, 3, 3)]", "forkserver True", "spawn True", "pool True",
    ], err


def test_a_fit_that_breaks_is_not_lost():
    assert issubclass(nn.FitError, RuntimeError) and nn.FitError("x").fit is None


def test_warnings_name_the_line_of_the_caller(counts):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        nn.fit(CP, counts, {"r": 2}, penalty={"ir": nn.l2(0.1)}, max_iter=1)
    assert caught[0].filename == __file__


def test_signatures_name_every_setting():
    import inspect

    for function in (nn.fit, nn.explain, nn.gradient, nn.fit_coupled):
        parameters = inspect.signature(function).parameters
        assert {"max_iter", "penalty", "smooth", "checkpoint", "seed"} <= set(parameters)
        assert all(p.kind is not p.VAR_KEYWORD for p in parameters.values())
    assert inspect.signature(nn.fit).parameters["max_iter"].default == 500
    # Each of them is described.
    for name in inspect.signature(nn.fit).parameters:
        assert name in nn.fit.__doc__, name


def test_devices():
    assert nn.devices()[0].auto
    assert "thread" in nn.Device("cpu").description


def test_coupled_tensors(counts):
    traits = counts.sum(axis=(1, 2))[:, None] * np.ones((1, 4))
    parts = [nn.Part(CP, counts), nn.Part("ir,mr->im", traits, loss="euclidean", weight=0.1)]
    found = nn.fit_coupled(parts, {"r": 2}, max_iter=20)
    assert found["ir"].tobytes() == found.parts[1]["ir"].tobytes()
    assert found.loss < found.history.loss[0] and found["mr"].shape == (4, 2)
    stopped = nn.fit_coupled(parts, {"r": 2}, callback=lambda sweep: sweep.iteration == 2)
    assert stopped.history.stopped_by == "observer"
    with pytest.raises(KeyError, match="no factor is 'xr'"):
        found["xr"]
    with pytest.raises(TypeError, match="expected nn.Part"):
        nn.fit_coupled([counts], {"r": 2})


def test_questions(counts):
    data = nn.Dataset(array=counts, names=["a", "b", "c"], labels=[None, list("0123456789"), None])
    fit = nn.fit(CP, data, {"r": 3}, max_iter=30)
    for form in (fit, fit.normalize()):
        whole = fit.reconstruct()
        assert form.total() == pytest.approx(whole.sum())
        np.testing.assert_allclose(form.marginal("ki"), whole.sum(axis=1).T)
        indices, values = form.top(4)
        np.testing.assert_allclose(values, np.sort(whole.ravel())[::-1][:4])
        np.testing.assert_allclose(whole[tuple(indices.T)], values)
        np.testing.assert_allclose(form.given(j=3).reconstruct(), whole[:, 3])
        np.testing.assert_allclose(form.given(j="3").reconstruct(), whole[:, 3])
        np.testing.assert_allclose(
            form.conditional(i=2).reconstruct(), whole[2] / whole[2].sum()
        )
        k = np.arange(8.0)
        assert form.expectation(k=k) == pytest.approx((whole * k).sum() / whole.sum())
    assert fit.given(i=2).labels == {"j": list("0123456789")}
    drawn = fit.sample(500, seed=1)
    assert drawn.shape == (500, 3) and (drawn == fit.sample(500, seed=1)).all()
    assert (drawn < np.array(counts.shape)).all()
    other = nn.fit(CP, data, {"r": 3}, max_iter=30, seed=4)
    assert fit.distance(other) == pytest.approx(np.linalg.norm(whole - other.reconstruct()))
    pairs = fit.match(fit.sort())["indices"][0]["pairs"]
    assert all(pair["cosine"] == pytest.approx(1) for pair in pairs) and len(pairs) == 3
    with pytest.raises(ValueError, match="has no label 'x'"):
        fit.given(j="x")
