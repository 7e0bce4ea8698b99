"""The peers, each run in a process of its own: runners.py NAME SETTINGS.json

Settings are what `problems.py` gives, with the folder, the number of threads and the iterations to
stop at. Written into the folder: `peer.json` with the seconds at those iterations, and with the
loss where the peer logs one; where it does not, the factors as `peer_N.npz`, so that the loss is
computed outside, where it costs the peer neither time nor memory. All get single precision, and what
computes in double precision alone turns it into that. Reading files and importing are on nobody's clock.
"""

import contextlib
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

import numpy as np


class Watch:
    """Sums up the clock's seconds and the processor's of what is done under it."""

    def __init__(self):
        self.seconds, self.processor = [], []
        self.sums = [0.0, 0.0]

    def __enter__(self):
        self.began = time.perf_counter(), time.process_time()

    def __exit__(self, *_):
        self.sums[0] += time.perf_counter() - self.began[0]
        self.sums[1] += time.process_time() - self.began[1]

    def note(self, anew=False):
        """Keeps the sums so far, as those of the next number of iterations; `anew` begins at nothing again."""
        self.seconds.append(self.sums[0])
        self.processor.append(self.sums[1])
        if anew:
            self.sums = [0.0, 0.0]

    def found(self, version, **more):
        return {"version": version, "seconds": self.seconds, "processor": self.processor, **more}


def start_factors(settings):
    """The start, in the order of the model."""
    with np.load(settings["init"]) as start:
        return [start[f"theta_{n + 1}"].astype(np.float32) for n in range(len(start.files))]


def save(settings, iterations, factors):
    """Keeps the factors after some iterations, in the order of the model."""
    arrays = {f"theta_{n + 1}": np.asarray(factor) for n, factor in enumerate(factors)}
    np.savez(Path(settings["folder"]) / f"peer_{iterations}.npz", **arrays)


def sklearn_nmf(settings):
    """scikit-learn's NMF, by multiplicative updates or coordinate descent. It cannot be watched, but it keeps nothing but
    the factors from one iteration to the next: a run which goes on where another ended is the same
    run, and two evaluations of the loss, which every run of it makes."""
    import scipy.sparse
    import sklearn
    from sklearn.decomposition import NMF

    matrix = scipy.sparse.load_npz(settings["matrix"]).astype(np.float32).tocsr()
    w, h = start_factors(settings)
    h = h.T.copy()
    watch, done = Watch(), 0
    for iterations in settings["iterations"]:
        loss = "kullback-leibler" if settings["solver"] == "mu" else "frobenius"
        nmf = NMF(w.shape[1], init="custom", solver=settings["solver"], beta_loss=loss, tol=0,
                  max_iter=iterations - done)
        with watch:
            w = nmf.fit_transform(matrix, W=w, H=h)
        h, done = nmf.components_, iterations
        watch.note()
        save(settings, iterations, [w, h.T])
    updates = "multiplicative updates" if settings["solver"] == "mu" else "coordinate descent"
    return watch.found(f"scikit-learn {sklearn.__version__}, {updates}")


def rcppml(settings):
    """RcppML, from R: alternating nonnegative least squares in double precision, timed in R around the call."""
    from problems import run_rcppml

    folder, points = Path(settings["folder"]), settings["iterations"]
    done = run_rcppml(folder, settings["shape"], settings["ranks"]["r"], settings["seed"], settings["threads"],
                      points)
    if done.returncode != 0:
        raise SystemExit(done.stderr)
    for n in points:
        w, d, h = (np.fromfile(folder / f"{name}_{n}.bin") for name in "wdh")
        # R keeps matrices a column after another: w is rows × rank, h is rank × columns.
        save(settings, n, [w.reshape(len(d), -1).T * d, h.reshape(-1, len(d))])
    version, of_r, *times = (folder / "seconds.txt").read_text().split()
    times = [float(number) for number in times]
    return {"version": f"RcppML {version} (R {of_r})", "seconds": times[: len(points)],
            "processor": times[len(points) :]}


def nmf_rs(settings):
    """nmf-rs's multiplicative updates of KL, in double precision, watched as scikit-learn is."""
    import nmf_rs
    from importlib.metadata import version

    matrix = np.load(settings["data"]).astype(np.float64)
    w, h = start_factors(settings)
    w, h = w.astype(np.float64), h.T.astype(np.float64).copy()
    watch, done = Watch(), 0
    for iterations in settings["iterations"]:
        with watch:
            found = nmf_rs.nmf(matrix, w.shape[1], method="brunet", W0=w, H0=h, max_iter=iterations - done,
                               stop="max_iter", num_threads=settings["threads"])
        w, h, done = found.W, found.H, iterations
        watch.note()
        save(settings, iterations, [w, h.T])
    return watch.found(f"nmf-rs {version('nmf-rs')}, brunet")


def nnfac_nmf(settings):
    """nn-fac's multiplicative updates of KL, watched as scikit-learn is; it computes a loss every iteration."""
    from importlib.metadata import version

    from nn_fac.nmf import nmf

    matrix = np.load(settings["data"])
    w, h = start_factors(settings)
    h = h.T.copy()
    watch, done = Watch(), 0
    for iterations in settings["iterations"]:
        with watch:
            # A negative tolerance, as iterations that leave the loss as it is are none to stop at here.
            w, h = nmf(matrix, w.shape[1], init="custom", U_0=w, V_0=h, n_iter_max=iterations - done, tol=-1.0,
                       update_rule="mu", beta=1)
        done = iterations
        watch.note()
        save(settings, iterations, [w, h.T])
    return watch.found(f"nn-fac {version('nn-fac')}, mu (numpy {np.__version__})")


def nnfac_ntf(settings):
    """nn-fac's HALS for CP, watched in the same way; going on costs it the unfoldings of the tensor."""
    from importlib.metadata import version

    from nn_fac.ntf import ntf

    tensor = np.load(settings["data"]).astype(np.float32, copy=False)
    factors = start_factors(settings)
    watch, done = Watch(), 0
    for iterations in settings["iterations"]:
        with watch:
            factors = ntf(tensor, factors[0].shape[1], init="custom", factors_0=factors,
                          n_iter_max=iterations - done, tol=-1.0, update_rule="hals",
                          sparsity_coefficients=[None] * 3, normalize=[False] * 3)
        done = iterations
        watch.note()
        save(settings, iterations, factors)
    return watch.found(f"nn-fac {version('nn-fac')}, hals (numpy {np.__version__})")


def nmf_torch(settings):
    """nmf-torch's default, HALS with inner iterations, from our start, watched in the same way."""
    import torch
    from importlib.metadata import version

    from nmf.nmf_models import NMFBatchHALS

    class OurStart(NMFBatchHALS):
        def _initialize_H_W(self, eps=1e-6):
            self.H, self.W = (torch.from_numpy(factor.copy()) for factor in (w, h))

        def _is_converged(self, *_):
            return False

    matrix = np.load(settings["data"]).astype(np.float32, copy=False)
    w, h = start_factors(settings)
    h = h.T
    watch, done = Watch(), 0
    for iterations in settings["iterations"]:
        model = OurStart(n_components=w.shape[1], init="random", beta_loss=2.0, tol=0.0, random_state=0,
                         alpha_W=0.0, l1_ratio_W=0.0, alpha_H=0.0, l1_ratio_H=0.0, fp_precision="float",
                         device_type="cpu", n_jobs=settings["threads"], max_iter=iterations - done)
        with watch:
            # What it tells on the way is not for the table.
            with contextlib.redirect_stdout(None):
                model.fit(matrix)
        w, h, done = model.H.numpy(), model.W.numpy(), iterations
        watch.note()
        save(settings, iterations, [w, h.T])
    return watch.found(f"nmf-torch {version('nmf-torch')}, halsvar (torch {torch.__version__})")


def pygenten_sgd(settings):
    """pygenten's generalized CP by stochastic gradients with its defaults, in double precision; an iteration is
    one of its epochs. It remembers former steps, so it runs from the start anew for each number of epochs."""
    # As it recommends; it is read when the library is loaded.
    os.environ.update(OMP_PROC_BIND="spread", OMP_PLACES="threads")
    from importlib.metadata import version

    import pygenten
    import pyttb

    tensor, watch = pyttb_list(settings), Watch()
    for iterations in settings["iterations"]:
        start = pyttb.ktensor([factor.astype(float) for factor in start_factors(settings)])
        # The start is ours as it is: by itself it would scale it.
        with watch:
            found, _, _ = pygenten.gcp_sgd(tensor, init=start, maxiters=iterations, type="poisson",
                                           scale_guess_by_norm_x=False, gcp_tol=0.0, printitn=0)
        watch.note(anew=True)
        factors = [factor.copy() for factor in found.factor_matrices]
        factors[0] *= found.weights
        save(settings, iterations, factors)
    return watch.found(f"pygenten {version('pygenten')}, gcp_sgd (pyttb {pyttb.__version__})")


def pyttb_list(settings):
    """The data as pyttb has lists."""
    import pyttb

    with np.load(settings["list"]) as kept:
        coordinates, counts = kept["coordinates"], kept["counts"].astype(float)[:, None]
    return pyttb.sptensor(np.ascontiguousarray(coordinates), counts, tuple(settings["shape"]))


def pyttb_apr(settings):
    """pyttb's CP-APR, by multiplicative updates, watched in the same way. An iteration has up to ten
    inner ones for each mode. Going on costs it the order of its components."""
    import pyttb

    if "list" in settings:
        tensor = pyttb_list(settings)
    else:
        tensor = pyttb.tensor(np.load(settings["data"]).astype(float))
    fitted = pyttb.ktensor([factor.astype(float) for factor in start_factors(settings)])
    watch, done, inner = Watch(), 0, 0
    for iterations in settings["iterations"]:
        rank = fitted.ncomponents
        with watch:
            fitted, _, told = pyttb.cp_apr(tensor, rank, init=fitted, maxiters=iterations - done, stoptol=0.0,
                                           printitn=0)
        done = iterations
        inner += int(np.sum(told["nInnerIters"]))
        watch.note()
        factors = [factor.copy() for factor in fitted.factor_matrices]
        factors[0] *= fitted.weights
        save(settings, iterations, factors)
    return watch.found(f"pyttb {pyttb.__version__}, cp_apr (numpy {np.__version__})",
                       told=f"{inner} inner iterations in {done} iterations")


def tensorly_hals(settings):
    """tensorly's HALS, watched in the same way; going on costs it a norm of the tensor."""
    import tensorly
    from tensorly.cp_tensor import CPTensor
    from tensorly.decomposition import non_negative_parafac_hals

    tensor = np.load(settings["data"]).astype(np.float32, copy=False)
    factors = start_factors(settings)
    rank = factors[0].shape[1]
    watch, done = Watch(), 0
    for iterations in settings["iterations"]:
        init = CPTensor((np.ones(rank, np.float32), [factor.copy() for factor in factors]))
        with watch:
            fitted = non_negative_parafac_hals(tensor, rank, n_iter_max=iterations - done, init=init,
                                               tol=0)
        done = iterations
        # The weights are ones, since nothing is normalised.
        factors = fitted.factors
        watch.note()
        save(settings, iterations, factors)
    return watch.found(f"tensorly {tensorly.__version__}, HALS (numpy {np.__version__})")


def comm(settings):
    """J-CoMM of github.com/vleplat/CoMM, by the clock and the loss that it keeps itself."""
    sys.path.insert(0, str(Path(settings["path"]) / "src"))
    from comm.models.cp import cp_jcomm
    from comm.models.tucker import tucker_jcomm

    tensor = np.load(settings["data"]).astype(np.float32, copy=False)
    factors = start_factors(settings)
    common = {"beta": settings["beta"], "n_outer": settings["iterations"][-1],
              "n_inner": settings["inner"]}
    if settings["tucker"]:
        core, fitted, losses, seconds = tucker_jcomm(tensor, factors[-1], factors[:-1], **common)
        fitted = [*fitted, core]
    else:
        fitted, losses, seconds = cp_jcomm(tensor, factors, **common)
    save(settings, settings["iterations"][-1], fitted)
    # It sums where we take the mean.
    losses = np.asarray(losses, np.float64) / tensor.size
    return {"version": f"J-CoMM, n_inner={settings['inner']} (numpy {np.__version__})",
            "iterations": list(range(1, len(losses) + 1)),
            "seconds": [float(s) for s in seconds], "loss": [float(l) for l in losses]}


def einfact(settings):
    """The authors' einfact.py, from our start, and with every cell observed: it would withhold a
    random twentieth of them. With `splits` it withholds as it does by itself, but the cells that ours
    withholds, too. By the clock and the loss that it keeps itself."""
    import torch

    torch.set_num_threads(settings["threads"])
    spec = importlib.util.spec_from_file_location("einfact", settings["path"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    alpha, beta = settings["alpha"], settings["beta"]
    # Its loss is the divergence times alpha² where beta is 0, and twice it for Euclid.
    scale = 1 / alpha**2 if beta == 0 else 0.5 if (alpha, beta) == (1, 1) else 1.0

    class Log(list):
        """The last list that an iteration appends to: the curve so far goes to a file."""

        def append(self, value):
            super().append(value)
            times, losses = model.history["time"], model.history["loss"]
            if times and settings["record"]:
                with open(settings["record"], "a") as curve:
                    print(len(times) - 1, f"{times[-1]:.3f}", f"{losses[-1] * scale:.9g}", sep=",",
                          file=curve)

    processor = []

    class Clock:
        """Its clock, which it looks at when it begins and after each iteration; the processor's at the same times."""

        @staticmethod
        def time():
            processor.append(time.process_time())
            return time.time()

    module.time = Clock
    splits = settings["splits"] and {role: np.load(path)
                                     for role, path in settings["splits"].items()}

    class OurSplits(module.NNEinFact):
        def _initialize_params(self):
            self.P_params = start_factors(settings)

        def prepare_masks(self, *arguments, **named):
            # What it draws: below 0.05 is for validation.
            draw, torch.rand = torch.rand, torch.ones
            if splits:
                drawn = torch.from_numpy((~splits["validation"]).astype(np.float32))
                torch.rand = lambda *_, device=None, **__: drawn.to(device)
            try:
                super().prepare_masks(*arguments, **named)
            finally:
                torch.rand = draw

        @property
        def history(self):
            return self.kept

        @history.setter
        def history(self, lists):
            self.kept = lists and {**lists, "heldout_loss": Log()}

    data = np.load(settings["data"])
    tensor = (data[settings["key"]] if settings["key"] else data).astype(np.float32)
    del data
    model = OurSplits(settings["model"],
                      dict(zip(settings["model"].split("->")[1], tensor.shape),
                           **settings["ranks"]),
                      device=settings["device"], alpha=alpha, beta=beta)
    history = model.fit(tensor, max_iter=settings["iterations"][-1], verbose=False,
                        mask=~splits["held_out"] if splits else None)
    save(settings, len(history["time"]) - 1, model.get_params())
    return {"version": f"einfact.py (torch {torch.__version__})",
            "iterations": list(range(1, len(history["time"]))),
            "seconds": [float(s) for s in history["time"][1:]],
            "processor": [taken - processor[0] for taken in processor[1:]],
            "loss": [float(l) * scale for l in history["loss"][1:]],
            "heldout_loss": [float(l) * scale for l in history["heldout_loss"][1:]] if splits else None}


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[2]).read_text())
    found = {"iterations": given["iterations"], **globals()[sys.argv[1]](given)}
    (Path(given["folder"]) / "peer.json").write_text(json.dumps(found))
