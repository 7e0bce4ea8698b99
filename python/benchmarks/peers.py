"""Against scikit-learn, tensorly, pyttb and nmf-rs, from Python: the time to the loss that the peer reaches
with its default iterations, from the same start, on the same threads. Prints the tables of the README.

    python peers.py                      # on a quiet machine; some minutes
    python peers.py --small              # that it runs
    python peers.py --only sklearn       # peers whose name has this in it
    python peers.py --pool               # four fits in a pool of threads, against one after another
    python peers.py --file uber.npz      # from numpy.load to the fit, against the program

Times are wall-clock seconds of the whole call, the least of three, or of one that takes long. A fit of ours
ends with the first sweep whose loss is at most the peer's.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np

import nneinfact as nn

NMF, CP = "ir,rj->ij", "ir,jr,kr->ijk"


def best_of(work):
    """Seconds and result of the fastest run."""
    times, result = [], None
    while len(times) < 3 and sum(times) < 10:
        began = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began)
    return min(times), result


def to_loss(model, data, start, loss, wanted):
    """A fit that stops at a loss; its seconds include what the peer's do: all of the call."""
    return nn.fit(
        model, data, {"r": rank_of(start)}, loss=loss, init=start, tol=0, max_iter=5000,
        callback=lambda sweep: sweep.loss <= wanted,
    )


def rank_of(factors):
    # W (i, r) comes first in all models here.
    return factors[0].shape[1]


def mean_loss(model, data, factors, loss):
    """The mean loss of factors, in our units."""
    return nn.fit(model, data, {"r": rank_of(factors)}, loss=loss, init=factors, max_iter=0).loss


def events(rng, n, m, r, count):
    """A sparse matrix of counts: so many events of r topics, as words in documents."""
    import scipy.sparse

    topic = rng.choice(r, count, p=rng.dirichlet(np.ones(r)))
    rows, columns = np.empty(count, np.int64), np.empty(count, np.int64)
    for t in range(r):
        here = topic == t
        rows[here] = rng.choice(n, here.sum(), p=rng.dirichlet(np.full(n, 0.3)))
        columns[here] = rng.choice(m, here.sum(), p=rng.dirichlet(np.full(m, 0.3)))
    counts = scipy.sparse.coo_array((np.ones(count), (rows, columns)), shape=(n, m)).tocsr()
    counts.sum_duplicates()
    return counts


def sklearn_rows(small):
    from sklearn.decomposition import NMF as Theirs

    rng = np.random.default_rng(0)
    n, m, r = (400, 200, 5) if small else (20_000, 10_000, 20)
    sparse = events(rng, n, m, r, n * m // 80)
    dense = rng.gamma(0.5, 1, (n // 10, r)) @ rng.gamma(0.5, 1, (r, m // 10)) + 0.1 * rng.random((n // 10, m // 10))
    multiplicative = {"solver": "mu", "beta_loss": "kullback-leibler"}
    cases = [
        (f"KL, sparse, {sparse.nnz / 1e6:.1f} M stored", sparse, "kl", multiplicative),
        ("KL, dense", dense, "kl", multiplicative),
        ("Euclid, dense", dense, "euclidean", {"solver": "cd"}),
        ("Euclid, sparse", sparse, "euclidean", {"solver": "cd"}),
    ]
    for name, X, loss, settings in cases:
        scale = np.sqrt(X.mean() / r)
        W, H = rng.random((X.shape[0], r)) * scale, rng.random((r, X.shape[1])) * scale
        peer = Theirs(r, init="custom", **settings)

        def work(peer=peer, X=X, W=W, H=H):
            return [peer.fit_transform(X, W=W.copy(), H=H.copy()), peer.components_], peer.n_iter_

        size = " × ".join(f"{k:,}" for k in X.shape)
        yield f"sklearn `NMF`: {name}, {size}, rank {r}", NMF, X, loss, [W, H], work


def nmf_rs_rows(small):
    import nmf_rs

    rng = np.random.default_rng(1)
    n, m, r = (200, 100, 5) if small else (1_000, 500, 20)
    X = rng.gamma(0.5, 1, (n, r)) @ rng.gamma(0.5, 1, (r, m)) + 0.1 * rng.random((n, m))
    scale = np.sqrt(X.mean() / r)
    W, H = rng.random((n, r)) * scale, rng.random((r, m)) * scale
    for method, loss in (("brunet", "kl"), ("hals", "euclidean")):

        def work(method=method):
            found = nmf_rs.nmf(X, r, method=method, W0=W.copy(), H0=H.copy())
            return [found.W, found.H], found.n_iter

        yield f"nmf-rs `{method}`: dense, {n:,} × {m:,}, rank {r}", NMF, X, loss, [W, H], work


def counts_of(rng, shape, r):
    factors = [rng.gamma(0.5, 1, (n, r)) for n in shape]
    return rng.poisson(np.einsum(CP, *factors)).astype(float), [rng.random((n, r)) for n in shape]


def tensorly_rows(small):
    from tensorly.decomposition import non_negative_parafac, non_negative_parafac_hals

    shape, r = ((12, 10, 8), 3) if small else ((200, 150, 100), 10)
    Y, start = counts_of(np.random.default_rng(2), shape, r)
    for peer in (non_negative_parafac_hals, non_negative_parafac):

        def work(peer=peer):
            begin = (np.ones(r), [f.copy() for f in start])
            (weights, found), errors = peer(Y, r, init=begin, return_errors=True)
            return [found[0] * weights, *found[1:]], len(errors)

        size = " × ".join(map(str, shape))
        yield f"tensorly `{peer.__name__}`: {size}, rank {r}", CP, Y, "euclidean", start, work


def pyttb_rows(small):
    import pyttb as ttb

    shape, r = ((12, 10, 8), 3) if small else ((40, 30, 20), 5)
    Y, start = counts_of(np.random.default_rng(3), shape, r)

    def work():
        begin = ttb.ktensor([np.asfortranarray(f) for f in start])
        found, _, told = ttb.cp_apr(ttb.tensor(Y), r, init=begin, printitn=0)
        weights, factors = found.weights, found.factor_matrices
        return [factors[0] * weights, *factors[1:]], len(told["nInnerIters"])

    yield f"pyttb `cp_apr`: KL, {' × '.join(map(str, shape))}, rank {r}", CP, Y, "kl", start, work


def peers(small, only):
    print("| peer | its iterations | its seconds | our sweeps | our seconds | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    # The first fit of a process finds out which devices there are; the peers have imported what they need.
    nn.fit(NMF, np.ones((3, 3)), {"r": 1}, max_iter=1)
    for rows in (sklearn_rows, nmf_rs_rows, tensorly_rows, pyttb_rows):
        if only and only not in rows.__name__:
            continue
        try:
            for name, model, data, loss, start, peer in rows(small):
                with warnings.catch_warnings():
                    # That it did not converge within its default iterations.
                    warnings.simplefilter("ignore")
                    theirs, (factors, sweeps) = best_of(peer)
                wanted = mean_loss(model, data, factors, loss)
                ours, fit = best_of(lambda: to_loss(model, data, start, loss, wanted))
                reached = "" if fit.loss <= wanted else " (not reached)"
                print(
                    f"| {name} | {sweeps} | {theirs:.2f} | {fit.history.iterations}{reached} | {ours:.2f} "
                    f"| {theirs / ours:.1f} |", flush=True,
                )
        except ImportError as error:
            print(f"skipped: {error}", file=sys.stderr)


def pool(small):
    """Four fits in a pool of threads at once, and one after another."""
    import joblib

    shape = (24, 20, 16) if small else (120, 100, 80)
    Y, _ = counts_of(np.random.default_rng(4), shape, 8)

    def one(seed):
        return nn.fit(CP, Y, {"r": 8}, seed=seed, max_iter=60, tol=0)

    one(0)
    rows = []
    for jobs in (1, 4, 1, 4, 1, 4):
        wall, cpu = time.perf_counter(), time.process_time()
        fits = joblib.Parallel(n_jobs=jobs, backend="threading")(joblib.delayed(one)(s) for s in range(4))
        rows.append((jobs, time.perf_counter() - wall, time.process_time() - cpu, [f.loss for f in fits]))
    assert all(row[3] == rows[0][3] for row in rows)
    print("| four fits | wall, s | processor, s |\n| --- | --- | --- |")
    for jobs, name in ((1, "one after another"), (4, "at once, in a pool of threads")):
        wall, cpu = (min(row[i] for row in rows if row[0] == jobs) for i in (1, 2))
        print(f"| {name} | {wall:.2f} | {cpu:.2f} |")


SPATIAL, RANKS = "wr,hr,dr,ikr,jkr->whdij", {"r": 10, "k": 6}

FROM_LOAD = """
import os, sys, time
import numpy as np, nneinfact as nn

def status(what):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(what)) / 1024

path, key, form = sys.argv[1:]
# A driver for GPUs that is found and not taken is no part of what the data need.
nn.Device("auto")
before = status("VmRSS")
began = time.perf_counter()
data = np.load(path)
if form == "array":
    data = data[key] if path.endswith(".npz") else data
loaded = time.perf_counter()
fit = nn.fit("wr,hr,dr,ikr,jkr->whdij", data, {"r": 10, "k": 6}, progress=False,
             key=key if form == "opened" else None)
ended = time.perf_counter()
print(loaded - began, ended - began, status("VmHWM") - before, fit.loss)
"""


def from_file(path, key, program):
    """From numpy.load to the fit, in a process of its own, against the program."""
    model = ["--model", SPATIAL, *(f"--rank={x}={n}" for x, n in RANKS.items())]
    with np.load(path) as arrays:
        Y = arrays[key]
    array, stored = Y.nbytes / 2**20, Y.size * np.min_scalar_type(Y.max()).itemsize / 2**20
    print(f"the array {array:.0f} MiB ({Y.dtype}), stored in {stored:.0f} MiB; up to 500 sweeps\n")
    print("| data | the program, s | from numpy.load to the fit, s | of it numpy.load | ratio | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        plain = os.path.join(folder, "y.npy")
        np.save(plain, Y)
        del Y
        for name, file, form in (
            ("`np.load(\"y.npy\")`", plain, "array"),
            (f"`np.load(\"y.npz\")[\"{key}\"]`", path, "array"),
            (f"`np.load(\"y.npz\")`, `key=\"{key}\"`", path, "opened"),
        ):
            theirs, ours, loads, peaks = [], [], [], []
            for _ in range(3):
                out = os.path.join(folder, "fit.npz")
                began = time.perf_counter()
                keyed = ["--key", key] if file.endswith(".npz") else []
                subprocess.run(
                    [program, "fit", file, *keyed, *model, "--out", out, "--quiet"], check=True,
                    stdin=subprocess.DEVNULL,
                )
                theirs.append(time.perf_counter() - began)
                done = subprocess.run(
                    [sys.executable, "-c", FROM_LOAD, file, key, form], check=True, capture_output=True,
                    text=True,
                )
                load, whole, peak, loss = map(float, done.stdout.split())
                assert loss == nn.load(out).loss
                ours.append(whole)
                loads.append(load)
                peaks.append(peak)
            held = array if form == "array" else 0.0
            more = f"the array + {(max(peaks) - held) / stored:.2f}" if held else f"{max(peaks) / stored:.2f}"
            print(
                f"| {name} | {min(theirs):.2f} | {min(ours):.2f} | {min(loads):.2f} "
                f"| {min(ours) / min(theirs):.2f} | {max(peaks):.0f} MiB: {more} × stored |", flush=True,
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to see that it runs")
    parser.add_argument("--only", default="", help="peers whose name has this in it")
    parser.add_argument("--pool", action="store_true", help="four fits in a pool of threads")
    parser.add_argument("--file", help="an .npz with a tensor of five modes, as the Uber pickups")
    parser.add_argument("--key", default="Y", help="the array in it")
    parser.add_argument("--program", default=shutil.which("nneinfact") or "nneinfact")
    asked = parser.parse_args()
    if asked.file:
        from_file(asked.file, asked.key, asked.program)
    elif asked.pool:
        pool(asked.small)
    else:
        peers(asked.small, asked.only)


if __name__ == "__main__":
    main()
