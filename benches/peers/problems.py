"""The problems: data, start, model and loss, in files that both sides read.

Each `make_…` takes the options and an empty folder, and returns a `Problem`, or raises `Absent`
with a line that says what is missing.
"""

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np


class Absent(Exception):
    """A peer or a file is not there."""


@dataclass
class Problem:
    title: str
    model: str
    ranks: dict
    loss: list  # the arguments of the command line that choose the loss
    alpha: float
    beta: float
    data: str  # what `nneinfact fit` reads
    init: str
    runner: str  # the function in runners.py
    sweeps: int  # how many of ours are tried first
    goals: tuple = (50, 100, 200)  # the peer's iterations whose loss is the goal, by default
    quick_goals: tuple = (5, 10, 20)
    arguments: list = field(default_factory=list)  # more for `nneinfact fit`
    settings: dict = field(default_factory=dict)  # for the runner
    points: tuple = ()  # iterations at which the peer is looked at besides the goals
    curve: dict = None  # {"iteration": […], "loss": […]} of the peer, recorded once
    curve_from: str = ""
    replayed: bool = False  # the curve is of our own `--algorithm block`, which makes the same updates
    curve_name: str = ""  # of its file
    tensor: object = None  # returns the data, dense or sparse, for computing losses
    training: object = None  # which cells are trained on, where not all are

    def evaluate(self, factors):
        """The mean divergence of the cells that are trained on, zeros included, in double precision."""
        factors = [np.asarray(factor, np.float64) for factor in factors]
        data = self.tensor()
        if not isinstance(data, np.ndarray):
            return (sparse_euclidean if self.alpha == self.beta == 1 else sparse_kl)(data, *factors)
        names, out = self.model.split("->")
        names = names.split(",")
        total = 0.0
        for at in range(data.shape[0]):
            # A slab of the first mode, so that no prediction of the whole is held.
            parts = [factor.take([at], name.index(out[0])) if out[0] in name else factor
                     for name, factor in zip(names, factors)]
            predicted = np.einsum(self.model, *parts, optimize=True)
            losses = divergence(data[at : at + 1].astype(np.float64), predicted, self.alpha, self.beta)
            total += losses.sum() if self.training is None else losses[self.training[at : at + 1]].sum()
        return float(total / (data.size if self.training is None else self.training.sum()))


def divergence(x, y, alpha, beta):
    """The alpha-beta divergence of each entry, for alpha > 0 and alpha + beta > 0."""
    y = np.maximum(y, 1e-12 * max(float(x.mean()), 1e-300))
    if beta == 0:
        quotient = np.where(x > 0, x, 1.0) / y
        return (y**alpha - x**alpha + alpha * x**alpha * np.log(quotient)) / alpha**2
    both = alpha + beta
    return (alpha / both * x**both + beta / both * y**both - x**alpha * y**beta) / (alpha * beta)


def predictions(coordinates, factors):
    """What a CP of these factors predicts at the coordinates of some cells."""
    predicted = np.empty(len(coordinates[0]))
    for at in range(0, len(predicted), 1 << 18):
        part = slice(at, at + (1 << 18))
        rows = [factor[index[part]] for factor, index in zip(factors, coordinates)]
        predicted[part] = np.prod(rows, axis=0).sum(1)
    return predicted


def sparse_kl(data, *factors):
    """Mean KL divergence of a sparse tensor from a CP, zeros included."""
    data = data.tocoo()
    predicted = predictions(data.coords, factors)
    x = data.data.astype(np.float64)
    total = (x * np.log(x / np.maximum(predicted, 1e-300)) - x).sum()
    total += np.prod([factor.sum(0) for factor in factors], axis=0).sum()
    return float(total / np.prod([float(size) for size in data.shape]))


def sparse_euclidean(data, *factors):
    """Mean of half the squared distance of a sparse tensor from a CP, zeros included."""
    data = data.tocoo()
    predicted = predictions(data.coords, factors)
    x = data.data.astype(np.float64)
    squares = np.prod([factor.T @ factor for factor in factors], axis=0).sum()
    total = (x @ x - 2 * x @ predicted + squares) / 2
    return float(total / np.prod([float(size) for size in data.shape]))


def needs(module, why):
    if importlib.util.find_spec(module) is None:
        raise Absent(f"{why}: python -m pip install -r benches/peers/requirements.txt")


def scaled_start(folder, random, shapes, mean, ranks, low=0.5, high=1.5):
    """Uniform factors, away from zero, whose predictions have about the mean of the data where
    `low` and `high` are around 1."""
    scale = (mean / np.prod(list(ranks.values()))) ** (1 / len(shapes))
    start = {f"theta_{n + 1}": (scale * random.uniform(low, high, shape)).astype(np.float32)
             for n, shape in enumerate(shapes)}
    np.savez(folder / "init.npz", **start)
    return str(folder / "init.npz")


def words_in_texts(options):
    """A sparse matrix of counts: a text is of three topics, topics and texts are of uneven size. Its
    rank, and the random numbers that go on after it."""
    import scipy.sparse

    rows, columns, nonzeros, rank = (
        (300, 200, 4000, 5) if options.quick else (20_000, 10_000, 2_000_000, 50))
    random = np.random.default_rng(1)
    topics = random.integers(0, rank, (rows, 3))
    length = np.cumsum(random.lognormal(0.0, 0.7, rows))
    words = np.array([random.permutation(columns) for _ in range(rank)])
    cells, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    while len(cells) < nonzeros:
        row = np.searchsorted(length, random.uniform(0, length[-1], nonzeros)).clip(0, rows - 1)
        topic = topics[row, random.integers(0, 3, nonzeros)]
        word = words[topic, (columns * random.uniform(0, 1, nonzeros) ** 3).astype(int)]
        more, times = np.unique(row * columns + word, return_counts=True)
        cells, inverse = np.unique(np.concatenate([cells, more]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([counts, times])).astype(np.int64)
    keep = np.sort(random.permutation(len(cells))[:nonzeros])
    cells, counts = cells[keep], counts[keep]
    matrix = scipy.sparse.coo_array((counts, (cells // columns, cells % columns)), (rows, columns))
    return matrix, rank, random


def write_list(path, coordinates, counts):
    """A `.tns`: coordinates from 1, and the value."""
    columns = [*(axis.tolist() for axis in coordinates), np.asarray(counts).tolist()]
    with open(path, "w") as out:
        out.writelines(f"{' '.join(str(at + 1) for at in entry[:-1])} {entry[-1]}\n"
                       for entry in zip(*columns))


def make_sparse_nmf(options, folder, solver):
    """Words in texts: by scikit-learn's multiplicative updates under KL; by its coordinate descent, and by
    RcppML, under Euclid, whose rank is smaller."""
    matrix, rank, random = words_in_texts(options)
    (rows, columns), mean = matrix.shape, matrix.sum() / np.prod(matrix.shape)
    euclid = solver != "mu"
    if euclid:
        rank = min(rank, 20)
    write_list(folder / "matrix.tns", matrix.coords, matrix.data)
    ranks = {"r": rank}
    init = scaled_start(folder, random, [(rows, rank), (columns, rank)], mean, ranks)
    problem = Problem(
        title=f"NMF, {'Euclid' if euclid else 'KL'}, sparse {rows} × {columns} with {matrix.nnz} nonzeros, "
              f"rank {rank}",
        model="ir,jr->ij", ranks=ranks, loss=["--loss", "euclidean" if euclid else "kl"], alpha=1.0,
        beta=float(euclid), data=str(folder / "matrix.tns"), arguments=["--shape", f"{rows},{columns}"],
        init=init, runner="rcppml" if solver == "rcppml" else "sklearn_nmf",
        settings={"solver": solver}, points=(10, 20), sweeps=15, tensor=lambda: matrix,
        goals={"mu": (10, 20), "cd": (10, 30, 60), "rcppml": (5, 20)}[solver])
    if solver == "rcppml":
        start_of_rcppml(problem, folder, matrix)
    else:
        import scipy.sparse

        needs("sklearn", "scikit-learn is not installed")
        scipy.sparse.save_npz(folder / "matrix.npz", matrix.tocsr())
        problem.settings["matrix"] = str(folder / "matrix.npz")
    return problem


def start_of_rcppml(problem, folder, matrix):
    """RcppML takes no start, but a seed, from which R draws the rows' factor. The columns' factor is computed
    from that one before anything else, so ours gets the drawn one and any for the columns."""
    if shutil.which("Rscript") is None:
        raise Absent("RcppML: there is no Rscript; Debian has r-base-core and r-cran-rcppml")
    columns = matrix.tocsc()
    columns.indptr.astype(np.int32).tofile(folder / "p.bin")
    columns.indices.astype(np.int32).tofile(folder / "i.bin")
    columns.data.astype(np.float64).tofile(folder / "x.bin")
    rank = problem.ranks["r"]
    problem.settings |= {"shape": list(matrix.shape), "seed": 7}
    drawn = run_rcppml(folder, matrix.shape, rank, 7, 0, [])
    if drawn.returncode != 0:
        raise Absent(f"RcppML: {drawn.stderr.strip()}")
    with np.load(problem.init) as start:
        others = {name: start[name] for name in start.files}
    uniform = np.fromfile(folder / "start.bin").reshape(rank, -1).T
    scale = others["theta_1"].mean() / uniform.mean()
    np.savez(problem.init, **{**others, "theta_1": (scale * uniform).astype(np.float32)})


def run_rcppml(folder, shape, rank, seed, threads, points):
    """`rcppml.R` with what lies in a folder; without points it draws the start."""
    return subprocess.run(
        ["Rscript", "--vanilla", str(Path(__file__).resolve().parent / "rcppml.R"), str(folder),
         *map(str, [*shape, rank, seed, threads, *points])], capture_output=True, text=True)


def make_counts_list(options, folder, module, runner, goals):
    """Counts of a planted CP of three modes, drawn event by event, as a list."""
    needs(module, f"{module} is not installed")
    needs("pyttb", "pyttb is not installed")
    from scipy.sparse import coo_array

    size, events, rank = (20, 2000, 3) if options.quick else (300, 200_000, 10)
    random = np.random.default_rng(4)
    weights = [random.dirichlet(np.full(size, 0.2), rank) for _ in range(3)]
    component = random.integers(0, rank, events)
    drawn = [np.array([random.choice(size, p=mode[r]) for r in component]) if options.quick else
             (np.cumsum(mode, 1)[component] < random.random((events, 1))).sum(1).clip(0, size - 1)
             for mode in weights]
    cells, counts = np.unique(np.ravel_multi_index(drawn, (size,) * 3), return_counts=True)
    coordinates = np.unravel_index(cells, (size,) * 3)
    tensor = coo_array((counts, coordinates), shape=(size,) * 3)
    np.savez(folder / "list.npz", coordinates=np.stack(coordinates, 1), counts=counts)
    write_list(folder / "list.tns", coordinates, counts)
    ranks = {"r": rank}
    return Problem(
        title=f"nonnegative CP, KL, sparse {size} × {size} × {size} with {len(cells)} nonzeros, rank {rank}",
        model="ir,jr,kr->ijk", ranks=ranks, loss=["--loss", "kl"], alpha=1.0, beta=0.0,
        data=str(folder / "list.tns"), arguments=["--shape", f"{size},{size},{size}"],
        init=scaled_start(folder, random, [(size, rank)] * 3, counts.sum() / size**3, ranks),
        runner=runner, settings={"list": str(folder / "list.npz"), "shape": [size] * 3},
        sweeps=60, goals=goals, quick_goals=(2, 5), tensor=lambda: tensor)


def make_dense_cp(options, folder, module, title, runner):
    """A planted nonnegative CP, and noise of a tenth of its spread, cut off at zero."""
    needs(module, f"{title} is not installed")
    size, rank = (20, 4) if options.quick else (300, 20)
    random = np.random.default_rng(2)
    truth = [random.gamma(0.5, 1.0, (size, rank)) for _ in range(3)]
    tensor = np.einsum("ir,jr,kr->ijk", *truth, optimize=True)
    tensor += 0.1 * tensor.std() * random.standard_normal(tensor.shape)
    tensor = np.maximum(tensor, 0.0).astype(np.float32)
    np.save(folder / "tensor.npy", tensor)
    ranks = {"r": rank}
    return Problem(
        title=f"nonnegative CP, Euclid, dense {size} × {size} × {size}, rank {rank}",
        model="ir,jr,kr->ijk", ranks=ranks, loss=["--loss", "euclidean"], alpha=1.0, beta=1.0,
        data=str(folder / "tensor.npy"),
        init=scaled_start(folder, random, [(size, rank)] * 3, tensor.mean(), ranks),
        runner=runner, points=(1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 75, 150), sweeps=40,
        goals=(5, 20, 100), tensor=lambda: tensor)


def comm_path(options):
    if not options.comm:
        raise Absent("J-CoMM: give --comm, a checkout of github.com/vleplat/CoMM")
    if not (Path(options.comm) / "src" / "comm" / "core.py").exists():
        raise Absent(f"J-CoMM: there is no src/comm/core.py in {options.comm}")
    needs("opt_einsum", "opt_einsum is not installed")
    return str(Path(options.comm).resolve())


def make_comm(options, folder, tucker):
    """A planted tensor of the size that CoMM's own benchmarks have, with gamma noise. J-CoMM is
    run as they run it: one inner sweep."""
    path = comm_path(options)
    if tucker:
        shape, rank = ((9, 8, 7, 6), (3, 3, 2, 2)) if options.quick else (
            (60, 52, 44, 36), (8, 7, 6, 5))
        model, ranks, beta = "ia,jb,kc,ld,abcd->ijkl", dict(zip("abcd", rank)), 1.5
        shapes = [*zip(shape, rank), rank]
    else:
        shape, rank = ((9, 8, 7, 6), 3) if options.quick else ((60, 52, 44, 36), 8)
        model, ranks, beta = "ir,jr,kr,lr->ijkl", {"r": rank}, 1.0
        shapes = [(size, rank) for size in shape]
    random = np.random.default_rng(5)
    truth = [random.gamma(0.5, 1.0, shape) for shape in shapes]
    tensor = np.einsum(model, *truth, optimize=True)
    tensor = (tensor * random.gamma(10.0, 0.1, tensor.shape)).astype(np.float32)
    np.save(folder / "tensor.npy", tensor)
    size = " × ".join(map(str, shape))
    sizes = " × ".join(map(str, rank)) if tucker else rank
    # The start is as uneven as theirs: from a flatter one J-CoMM stays on a plateau for long.
    return Problem(
        title=f"nonnegative {'Tucker' if tucker else 'CP'}, β-divergence {beta:g}, dense {size}, "
              f"rank {sizes}",
        model=model, ranks=ranks, loss=["--loss", "beta", "--beta", f"{beta:g}"], alpha=1.0,
        beta=beta - 1.0, data=str(folder / "tensor.npy"),
        init=scaled_start(folder, random, shapes, tensor.mean(), ranks, 0.002, 2.002),
        runner="comm",
        settings={"path": path, "beta": beta, "inner": 1, "tucker": tucker}, sweeps=200,
        tensor=lambda: tensor)
