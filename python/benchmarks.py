"""Against scikit-learn, tensorly and pyttb, from Python: the time to the loss that the peer reaches with its
default iterations, from the same start, on the same threads. Prints the table of the README.

    python benchmarks.py            # on a quiet machine
    python benchmarks.py --small    # that it runs

Times are the best of three. A fit of ours ends with the first sweep whose loss is at most the peer's.
"""

import argparse
import time

import numpy as np

import nneinfact as nn

RNG = np.random.default_rng(0)


def best_of(runs, work):
    times, result = [], None
    for _ in range(runs):
        began = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - began)
    return min(times), result


def to_loss(model, data, ranks, start, loss, wanted):
    """A fit that stops at a loss; its seconds include what the peer's do: all of the call."""
    return nn.fit(
        model, data, ranks, loss=loss, init=start, tol=0, max_iter=5000,
        callback=lambda sweep: sweep.loss <= wanted,
    )


def mean_loss(model, data, factors, loss):
    """The mean loss of factors, in our units."""
    return nn.fit(model, data, {"r": factors[0].shape[-1]}, loss=loss, init=factors, max_iter=0).loss


def sklearn_rows(small):
    import scipy.sparse
    from sklearn.decomposition import NMF

    n, m, r = (400, 200, 5) if small else (20_000, 10_000, 20)
    sparse = scipy.sparse.random_array((n, m), density=0.01, rng=RNG, format="csr")
    sparse.data = np.ceil(5 * sparse.data)
    dense = RNG.gamma(0.5, 1, (n // 10, r)) @ RNG.gamma(0.5, 1, (r, m // 10)) + 0.1 * RNG.random((n // 10, m // 10))
    cases = [
        ("sklearn NMF, KL, sparse", sparse, "kl", {"solver": "mu", "beta_loss": "kullback-leibler"}),
        ("sklearn NMF, Euclid, dense", dense, "euclidean", {"solver": "cd"}),
    ]
    for name, X, loss, settings in cases:
        W = RNG.random((X.shape[0], r)) * np.sqrt(X.mean() / r)
        H = RNG.random((r, X.shape[1])) * np.sqrt(X.mean() / r)
        peer = NMF(r, init="custom", **settings)
        yield name, "ir,rj->ij", X, loss, [W, H], lambda: [
            peer.fit_transform(X, W=W.copy(), H=H.copy()), peer.components_
        ]


def tensor_rows(small):
    shape, r = ((12, 10, 8), 3) if small else ((200, 150, 100), 10)
    factors = [RNG.gamma(0.5, 1, (n, r)) for n in shape]
    Y = RNG.poisson(np.einsum("ir,jr,kr->ijk", *factors)).astype(float)
    start = [RNG.random((n, r)) for n in shape]
    model = "ir,jr,kr->ijk"

    def tensorly():
        from tensorly.decomposition import non_negative_parafac_hals

        weights, found = non_negative_parafac_hals(Y, r, init=(np.ones(r), [f.copy() for f in start]))
        return [found[0] * weights, *found[1:]]

    def pyttb():
        import pyttb as ttb

        begin = ttb.ktensor([np.asfortranarray(f) for f in start])
        found, _, _ = ttb.cp_apr(ttb.tensor(Y), r, init=begin, printitn=0)
        return [found.factor_matrices[0] * found.weights, *found.factor_matrices[1:]]

    yield "tensorly non_negative_parafac_hals", model, Y, "euclidean", start, tensorly
    yield "pyttb cp_apr, KL", model, Y, "kl", start, pyttb


def main():
    small = argparse.ArgumentParser(description=__doc__)
    small.add_argument("--small", action="store_true")
    small = small.parse_args().small
    print("| peer | its seconds | ours | ratio |\n| --- | --- | --- | --- |")
    for rows in (sklearn_rows(small), tensor_rows(small)):
        for name, model, data, loss, start, peer in rows:
            theirs, factors = best_of(1 if small else 3, peer)
            wanted = mean_loss(model, data, factors, loss)
            rank = {"r": start[0].shape[-1]}
            ours, fit = best_of(1 if small else 3, lambda: to_loss(model, data, rank, start, loss, wanted))
            reached = "" if fit.loss <= wanted else " (not reached)"
            print(f"| {name} | {theirs:.2f} | {ours:.2f}{reached} | {theirs / ours:.1f} |", flush=True)


if __name__ == "__main__":
    main()
