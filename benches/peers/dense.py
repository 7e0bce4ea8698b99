"""Dense matrices and tensors: for packages that know no lists, and for what a small problem costs."""

import numpy as np

from problems import Problem, needs, scaled_start


def make_dense_nmf(options, folder, module, title, runner, euclid=False):
    """A planted NMF of skewed factors, and a little uniform noise."""
    needs(module, f"{title} is not installed")
    rows, columns, rank = (200, 100, 5) if options.quick else (2000, 1000, 20)
    random = np.random.default_rng(6)
    matrix = random.gamma(0.5, 1.0, (rows, rank)) @ random.gamma(0.5, 1.0, (rank, columns))
    matrix = (matrix + 0.1 * random.random((rows, columns))).astype(np.float32)
    np.save(folder / "matrix.npy", matrix)
    ranks = {"r": rank}
    return Problem(
        title=f"NMF, {'Euclid' if euclid else 'KL'}, dense {rows} × {columns}, rank {rank}",
        model="ir,jr->ij", ranks=ranks, loss=["--loss", "euclidean" if euclid else "kl"], alpha=1.0,
        beta=float(euclid), data=str(folder / "matrix.npy"),
        init=scaled_start(folder, random, [(rows, rank), (columns, rank)], matrix.mean(), ranks),
        runner=runner, goals=(10, 40) if euclid else (50, 200), sweeps=60, tensor=lambda: matrix)


def make_dense_counts(options, folder, module, title, runner, shape, rank, goals):
    """Counts of a planted CP of three modes, drawn cell by cell."""
    needs(module, f"{title} is not installed")
    if options.quick:
        shape, rank = (12, 10, 8), 3
    random = np.random.default_rng(7)
    truth = [random.gamma(0.5, 1.0, (size, rank)) for size in shape]
    tensor = random.poisson(np.einsum("ir,jr,kr->ijk", *truth, optimize=True)).astype(np.float32)
    np.save(folder / "counts.npy", tensor)
    ranks = {"r": rank}
    return Problem(
        title=f"nonnegative CP, KL, dense {' × '.join(map(str, shape))} counts, rank {rank}",
        model="ir,jr,kr->ijk", ranks=ranks, loss=["--loss", "kl"], alpha=1.0, beta=0.0,
        data=str(folder / "counts.npy"),
        init=scaled_start(folder, random, [(size, rank) for size in shape], tensor.mean(), ranks),
        runner=runner, goals=goals, sweeps=60, tensor=lambda: tensor)
