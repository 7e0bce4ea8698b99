"""The paper's tensor, for the authors' code: all cells observed, or withheld as their experiments do."""

import csv
from pathlib import Path

import numpy as np

from problems import Absent, Problem, needs

HERE = Path(__file__).resolve().parent
MODEL = "wr,hr,dr,ikr,jkr->whdij"


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


def start_recording(path, options, alpha, beta, splits):
    """An empty curve, which the peer fills as it goes."""
    cells = ("a tenth of the cells held out and a twentieth of the others for validation, drawn by uber.py"
             if splits else "all cells observed (their random 5 % validation split disabled)")
    path.write_text(
        f"# authors' einfact.py (PyTorch, {options.device}, {options.threads} threads), Uber tensor, {MODEL}, "
        f"r=10, k=6, alpha={alpha:g}, beta={beta:g}, {cells}, the start of the curves beside this one\n"
        "# loss: the divergence, mean over the cells that are trained on, from what that code logs (before "
        "the last factor's update of the iteration)\n"
        "iteration,seconds,loss\n")
    return str(path)


def find_curve(options, name, beside):
    """A curve of the peer's in the places where they are looked for; else one that was replayed before."""
    places = [options.curves, HERE / "data", beside]
    found = next((path for place in places if place
                  for path in [Path(place) / f"{name}.csv"] if path.is_file()), None)
    replayed = Path(options.out) / f"{name}_replayed.csv"
    return found or (replayed if replayed.is_file() else None)


def recorded_problem(options, name):
    """The tensor's file, the start of the recorded curves, and the curve of that name if there is one."""
    if not options.uber:
        raise Absent("the Uber tensor: give --uber, an .npz with the array Y")
    if not Path(options.uber).is_file():
        raise Absent(f"the Uber tensor: there is no {options.uber}")
    data = str(Path(options.uber).resolve())
    # The curves are of the recorded start and of no other.
    init = options.start or Path(data).parent / "reference_uber_kl_init.npz"
    if not Path(init).is_file():
        raise Absent(f"the start of the recorded curves: give --start; there is no {init}")
    curve = None if options.record else find_curve(options, name, Path(data).parent)
    return data, str(Path(init).resolve()), curve


def small_problem(folder):
    """Made-up counts, and a start as einfact.py has it: uniform, not scaled."""
    random = np.random.default_rng(3)
    tensor = random.poisson(0.3, (4, 5, 6, 9, 8))
    np.savez(folder / "counts.npz", Y=tensor)
    ranks = {"r": 4, "k": 3}
    sizes = dict(zip("whdij", tensor.shape), **ranks)
    start = {f"theta_{n + 1}": random.uniform(0, 1, [sizes[letter] for letter in factor])
             for n, factor in enumerate(MODEL.split("->")[0].split(","))}
    init = str(folder / "init.npz")
    np.savez(init, **{key: array.astype(np.float32) for key, array in start.items()})
    return str(folder / "counts.npz"), init, ranks


def make_uber(options, folder, alpha, beta, splits=False):
    """The spatial model on the paper's tensor. Where a curve is recorded from the same start, a few
    iterations of the authors' code are timed; with --record it runs to its last goal, and its curve is
    recorded beside the results as it grows; else the curve is replayed (see compare.py)."""
    if not options.einfact:
        raise Absent("einfact.py: give --einfact, the file of github.com/jhood3/einfact")
    if not Path(options.einfact).is_file():
        raise Absent(f"einfact.py: there is no {options.einfact}")
    needs("torch", "torch is not installed")
    needs("opt_einsum", "opt_einsum is not installed")
    loss = "kl" if (alpha, beta) == (1, 0) else f"ab_{alpha:g}_{beta:g}"
    name = f"reference_uber_{loss}{'_splits' if splits else ''}"
    curve = record = None
    if options.quick:
        data, init, ranks = small_problem(folder)
    else:
        ranks = {"r": 10, "k": 6}
        data, init, curve = recorded_problem(options, name)
        if options.record:
            record = start_recording(Path(options.out).resolve() / f"{name}.csv", options, alpha, beta, splits)
    tensor = np.load(data)["Y"]
    arguments, files, training = draw_splits(folder, tensor.shape) if splits else ([], None, None)
    return Problem(
        title=f"the spatial model, {'KL' if loss == 'kl' else f'αβ({alpha:g}, {beta:g})'}, "
              f"{' × '.join(map(str, tensor.shape))} counts, rank {ranks['r']} and {ranks['k']}, "
              f"{'10 % + 5 % withheld' if splits else 'all observed'}",
        model=MODEL, ranks=ranks,
        loss=["--loss", "alpha-beta", "--alpha", f"{alpha:g}", "--beta", f"{beta:g}"],
        alpha=alpha, beta=beta, data=data, arguments=["--key", "Y", *arguments], init=init,
        runner="einfact", training=training,
        settings={"path": str(Path(options.einfact).resolve()), "key": "Y", "alpha": alpha,
                  "beta": beta, "record": record, "splits": files},
        sweeps=80 if loss == "kl" else 50, goals=(50, 100, 170) if loss == "kl" else (50, 100),
        curve=read_curve(curve) if curve else None, curve_from=curve.name if curve else "",
        replayed=bool(curve) and curve.name.endswith("_replayed.csv"), curve_name=name,
        tensor=lambda: tensor)
