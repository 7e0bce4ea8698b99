"""The problems: data, start, model and loss, in files that both sides read.

Each `make_…` takes the options and an empty folder, and returns a `Problem`, or raises `Absent`
with a line that says what is missing.
"""

import csv
import importlib.util
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


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
    arguments: list = field(default_factory=list)  # more for `nneinfact fit`
    settings: dict = field(default_factory=dict)  # for the runner
    points: tuple = ()  # iterations at which the peer is looked at besides the goals
    curve: dict = None  # {"iteration": […], "loss": […]} of the peer, recorded once
    curve_from: str = ""
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


def make_sklearn_nmf(options, folder, solver="mu"):
    """Words in texts: a text is of three topics, topics and texts are of uneven size. By multiplicative
    updates it is KL, by coordinate descent Euclid, whose rank is smaller."""
    needs("sklearn", "scikit-learn is not installed")
    import scipy.sparse

    rows, columns, nonzeros, rank = (
        (300, 200, 4000, 5) if options.quick else (20_000, 10_000, 2_000_000, 50))
    random = np.random.default_rng(1)
    descent = solver == "cd"
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
    scipy.sparse.save_npz(folder / "matrix.npz", matrix.tocsr())
    with open(folder / "matrix.tns", "w") as out:
        out.writelines(f"{cell // columns + 1} {cell % columns + 1} {count}\n"
                       for cell, count in zip(cells.tolist(), counts.tolist()))
    if descent:
        rank = min(rank, 20)
    ranks = {"r": rank}
    loss = "Euclid, coordinate descent" if descent else "KL"
    return Problem(
        title=f"NMF, {loss}, sparse {rows} × {columns} with {len(cells)} nonzeros, rank {rank}",
        model="ir,jr->ij", ranks=ranks, loss=["--loss", "euclidean" if descent else "kl"], alpha=1.0,
        beta=float(descent),
        data=str(folder / "matrix.tns"), arguments=["--shape", f"{rows},{columns}"],
        init=scaled_start(folder, random, [(rows, rank), (columns, rank)],
                          counts.sum() / (rows * columns), ranks),
        runner="sklearn_nmf", settings={"matrix": str(folder / "matrix.npz"), "solver": solver},
        points=(10, 20), sweeps=100, tensor=lambda: matrix)


def make_pyttb_apr(options, folder):
    """Counts of a planted CP of three modes, drawn event by event, as a list."""
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
    with open(folder / "list.tns", "w") as out:
        out.writelines(f"{i + 1} {j + 1} {k + 1} {count}\n"
                       for i, j, k, count in zip(*(axis.tolist() for axis in coordinates), counts.tolist()))
    ranks = {"r": rank}
    return Problem(
        title=f"nonnegative CP, KL, sparse {size} × {size} × {size} with {len(cells)} nonzeros, rank {rank}",
        model="ir,jr,kr->ijk", ranks=ranks, loss=["--loss", "kl"], alpha=1.0, beta=0.0,
        data=str(folder / "list.tns"), arguments=["--shape", f"{size},{size},{size}"],
        init=scaled_start(folder, random, [(size, rank)] * 3, counts.sum() / size**3, ranks),
        runner="pyttb_apr", settings={"list": str(folder / "list.npz"), "shape": [size] * 3},
        sweeps=100, tensor=lambda: tensor)


def make_tensorly_cp(options, folder):
    """A planted nonnegative CP, and noise of a tenth of its spread, cut off at zero."""
    needs("tensorly", "tensorly is not installed")
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
        runner="tensorly_hals", points=(1, 2, 3, 5, 7, 10, 15, 20, 30, 40, 75, 150), sweeps=100,
        tensor=lambda: tensor)


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


def read_curve(path):
    """A recorded curve: comments, then columns of which `iteration` and `loss` are taken."""
    with open(path) as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return {"iteration": [int(row["iteration"]) for row in rows],
            "loss": [float(row["loss"]) for row in rows]}


def draw_splits(folder, shape):
    """Withholds a tenth of all cells, and a twentieth of the others for validation, as the authors'
    experiments do: the same cells on both sides. Returns the arguments of `nneinfact fit`, the files for
    the peer, and which cells are trained on."""
    random = np.random.default_rng(11)
    held_out = random.random(shape, np.float32) < 0.1
    validation = (random.random(shape, np.float32) < 0.05) & ~held_out
    files = {"held_out": str(folder / "held_out.npy"), "validation": str(folder / "validation.npy")}
    np.save(files["held_out"], held_out)
    np.save(files["validation"], validation)
    # The peer tells its own validation cells by chance, ours are told by their coordinates.
    coordinates = folder / "validation.tns"
    with open(coordinates, "w") as out:
        for slab, cells in enumerate(validation, 1):
            out.writelines(f"{slab} {' '.join(map(str, cell))}\n"
                           for cell in (np.argwhere(cells) + 1).tolist())
    arguments = ["--heldout-mask", files["held_out"], "--validation-coordinates", str(coordinates)]
    return arguments, files, ~(held_out | validation)


def make_uber(options, folder, alpha, beta):
    """The spatial model on the paper's tensor. Where a curve of the authors' code is recorded from
    the same start, a few of its iterations are timed; where none is, it runs to its last goal, and
    its curve is recorded beside the results as it grows."""
    if not options.einfact:
        raise Absent("einfact.py: give --einfact, the file of github.com/jhood3/einfact")
    if not Path(options.einfact).is_file():
        raise Absent(f"einfact.py: there is no {options.einfact}")
    needs("torch", "torch is not installed")
    needs("opt_einsum", "opt_einsum is not installed")
    name = "kl" if (alpha, beta) == (1, 0) else f"ab_{alpha:g}_{beta:g}"
    curve = init = record = None
    if options.quick:
        random = np.random.default_rng(3)
        tensor = random.poisson(0.3, (4, 5, 6, 9, 8))
        np.savez(folder / "counts.npz", Y=tensor)
        data, ranks = str(folder / "counts.npz"), {"r": 4, "k": 3}
    else:
        if not options.uber:
            raise Absent("the Uber tensor: give --uber, an .npz with the array Y")
        if not Path(options.uber).is_file():
            raise Absent(f"the Uber tensor: there is no {options.uber}")
        data, ranks = str(Path(options.uber).resolve()), {"r": 10, "k": 6}
        tensor = np.load(data)["Y"]
        # The curves are of the recorded start and of no other.
        init = options.start or Path(data).parent / "reference_uber_kl_init.npz"
        if not Path(init).is_file():
            raise Absent(f"the start of the recorded curves: give --start; there is no {init}")
        init = str(Path(init).resolve())
        places = [options.curves, HERE / "data", Path(data).parent]
        # With cells withheld the iterations are others than the recorded ones.
        curve = None if options.splits else next(
            (path for place in places if place
             for path in [Path(place) / f"reference_uber_{name}.csv"] if path.is_file()), None)
        if curve is None and not options.splits:
            record = Path(options.out).resolve() / f"reference_uber_{name}.csv"
            record.write_text(
                f"# authors' einfact.py (PyTorch, {options.device}, {options.threads} threads), "
                "Uber tensor, "
                f"wr,hr,dr,ikr,jkr->whdij, r=10, k=6, alpha={alpha:g}, beta={beta:g}, all cells "
                "observed (their random 5 % validation split disabled), the start of the curves "
                "beside this one\n"
                "# loss: the divergence, mean over cells, from what that code logs (before the last "
                "factor's update of the iteration)\n"
                "iteration,seconds,loss\n")
    if init is None:
        # As einfact.py starts: uniform, not scaled.
        sizes = dict(zip("whdij", tensor.shape), **ranks)
        start = {f"theta_{n + 1}": random.uniform(0, 1, [sizes[letter] for letter in factor])
                 for n, factor in enumerate("wr,hr,dr,ikr,jkr".split(","))}
        init = str(folder / "init.npz")
        np.savez(init, **{key: array.astype(np.float32) for key, array in start.items()})
    arguments, splits, training = (
        draw_splits(folder, tensor.shape) if options.splits else ([], None, None))
    return Problem(
        title=f"the spatial model, {'KL' if name == 'kl' else f'αβ({alpha:g}, {beta:g})'}, "
              f"{' × '.join(map(str, tensor.shape))} counts, rank {ranks['r']} and {ranks['k']}"
              f"{', 10 % + 5 % withheld' if options.splits else ''}",
        model="wr,hr,dr,ikr,jkr->whdij", ranks=ranks,
        loss=["--loss", "alpha-beta", "--alpha", f"{alpha:g}", "--beta", f"{beta:g}"],
        alpha=alpha, beta=beta, data=data, arguments=["--key", "Y", *arguments], init=init,
        runner="einfact", training=training,
        settings={"path": str(Path(options.einfact).resolve()), "key": "Y", "alpha": alpha,
                  "beta": beta, "record": record and str(record), "splits": splits},
        sweeps=150, curve=read_curve(curve) if curve else None,
        curve_from=curve.name if curve else "", tensor=lambda: tensor)


# Those whose peer can leave cells out.
WITH_SPLITS = ("uber-kl", "uber-0.7-0", "uber-1.3-1")

CASES = {
    "uber-kl": partial(make_uber, alpha=1.0, beta=0.0),
    "uber-0.7-0": partial(make_uber, alpha=0.7, beta=0.0),
    "uber-1.3-1": partial(make_uber, alpha=1.3, beta=1.0),
    "sklearn-nmf": make_sklearn_nmf,
    "sklearn-cd": partial(make_sklearn_nmf, solver="cd"),
    "pyttb-apr": make_pyttb_apr,
    "tensorly-cp": make_tensorly_cp,
    "comm-tucker": partial(make_comm, tucker=True),
    "comm-cp": partial(make_comm, tucker=False),
}
