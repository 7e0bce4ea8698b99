#!/usr/bin/env python3
"""nneinfact against what a user would run instead: see README.md beside this file."""

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CHECKPOINTS = (50, 100, 200)


def child(function, *arguments):
    """Runs a function of this file in a process of its own; returns its result and peak MiB."""
    code = (
        "import sys, json, importlib.util as u, resource\n"
        "s = u.spec_from_file_location('compare', sys.argv[1]); m = u.module_from_spec(s)\n"
        "s.loader.exec_module(m)\n"
        "r = getattr(m, sys.argv[2])(*json.loads(sys.argv[3]))\n"
        "k = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\n"
        "print('RESULT', json.dumps([r, k]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, __file__, function.__name__, json.dumps(arguments)],
        stdout=subprocess.PIPE, text=True, check=True,
    )
    line = [l for l in done.stdout.splitlines() if l.startswith("RESULT ")][-1]
    return json.loads(line[len("RESULT "):])


def ours(program, data, model, rank, loss, init, threads, folder, sweeps=400):
    """Fits with this library's program; the history, whole seconds and peak MiB."""
    history = Path(folder) / "history.json"
    command = [program, "fit", data, "--model", model, "--rank", rank, *loss, "--init", init,
               "--tol", "0", "--max-iter", str(sweeps), "--threads", str(threads),
               "--device", "cpu", "--history", str(history), "--quiet"]
    began = time.time()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    whole = time.time() - began
    if status != 0:
        raise SystemExit(f"nneinfact failed: {' '.join(map(str, command))}")
    found = json.loads(history.read_text())
    return found["loss"], found["seconds"], whole, usage.ru_maxrss / 1024


def first_below(losses, seconds, goal):
    """The seconds at which a loss is first reached, if it is."""
    return next((s for l, s in zip(losses, seconds) if l <= goal), None)


# ---- the peers: each returns [[iterations, seconds, loss], …]


def kl_sparse(matrix, w, h):
    """Mean generalised KL divergence of a sparse matrix from W H, zeros included."""
    import numpy as np
    coo = matrix.tocoo()
    predicted = np.empty(coo.nnz)
    for at in range(0, coo.nnz, 1 << 18):
        part = slice(at, at + (1 << 18))
        predicted[part] = np.einsum("nr,nr->n", w[coo.row[part]], h.T[coo.col[part]])
    x = coo.data
    total = (x * np.log(x / np.maximum(predicted, 1e-300)) - x).sum() + w.sum(0) @ h.sum(1)
    return float(total / (matrix.shape[0] * matrix.shape[1]))


def sklearn_nmf(folder, rank, checkpoints):
    import numpy as np
    import scipy.sparse as sp
    from sklearn.decomposition import NMF
    from threadpoolctl import threadpool_limits
    matrix = sp.load_npz(Path(folder) / "matrix.npz").astype(np.float64).tocsr()
    start = np.load(Path(folder) / "init.npz")
    found = []
    with threadpool_limits(int(os.environ["OMP_NUM_THREADS"])):
        for iterations in checkpoints:
            nmf = NMF(rank, init="custom", solver="mu", beta_loss="kullback-leibler", tol=0,
                      max_iter=iterations)
            began = time.time()
            w = nmf.fit_transform(matrix, W=start["theta_1"].copy(), H=start["theta_2"].T.copy())
            seconds = time.time() - began
            found.append([iterations, seconds, kl_sparse(matrix, w, nmf.components_)])
    return found


def tensorly_hals(folder, rank, checkpoints):
    import numpy as np
    import tensorly
    from tensorly.cp_tensor import CPTensor
    from tensorly.decomposition import non_negative_parafac_hals
    tensor = np.load(Path(folder) / "tensor.npy").astype(np.float64)
    start = np.load(Path(folder) / "init.npz")
    found = []
    for iterations in checkpoints:
        init = CPTensor((np.ones(rank), [start[f"theta_{i}"].copy() for i in (1, 2, 3)]))
        began = time.time()
        cp = non_negative_parafac_hals(tensor, rank, n_iter_max=iterations, init=init, tol=0)
        seconds = time.time() - began
        error = tensor - tensorly.cp_to_tensor(cp)
        found.append([iterations, seconds, float(0.5 * np.mean(error * error))])
    return found


def einfact_fit(path, folder, alpha, beta, ranks, iterations):
    """The authors' code, every cell observed, from our start; its own clock and loss."""
    import numpy as np
    import torch
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    spec = importlib.util.spec_from_file_location("einfact", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    y = torch.tensor(np.load(Path(folder) / "tensor.npy").astype(np.float32))
    start = np.load(Path(folder) / "init.npz")
    model = "wr,hr,dr,ikr,jkr->whdij"
    sizes = dict(zip(model.split("->")[-1], y.shape)) | ranks
    theirs = module.NNEinFact(model_str=model, shape_dict=sizes, alpha=alpha, beta=beta,
                              device="cpu")
    names = [name for name in sorted(start.files)]
    arrays = [torch.tensor(start[name].astype(np.float32)) for name in names]
    for attribute, value in vars(theirs).items():
        if isinstance(value, list) and len(value) == len(arrays) and all(
            torch.is_tensor(v) and v.shape == a.shape for v, a in zip(value, arrays)
        ):
            setattr(theirs, attribute, arrays)
            break
    else:
        raise SystemExit("this version of einfact.py keeps its factors where they are not expected")
    theirs.fit(y, max_iter=iterations)
    scale = 1.0 / alpha**2 if beta == 0 else (0.5 if (alpha, beta) == (1, 1) else 1.0)
    history = theirs.history
    return [[i, float(s), float(l) * scale]
            for i, (s, l) in enumerate(zip(history["time"], history["loss"]))][1:]


# ---- the problems


def case_sklearn(options, folder):
    import numpy as np
    import scipy.sparse as sp
    rows, columns, nonzeros, rank = (300, 200, 4000, 5) if options.quick else (20_000, 10_000, 2_000_000, 50)
    random = np.random.default_rng(1)
    # A few topics over uneven rows and columns, as counts of words in texts have.
    topics = random.integers(0, rank, nonzeros)
    row = (rows * random.beta(0.6, 1.5, nonzeros)).astype(int) % rows
    row = (row // rank * rank + topics) % rows
    column = ((columns * random.beta(0.5, 2.0, nonzeros)).astype(int) + topics * (columns // rank)) % columns
    matrix = sp.coo_matrix((1.0 + random.poisson(1.0, nonzeros), (row, column)), (rows, columns)).tocsr()
    matrix.sum_duplicates()
    sp.save_npz(folder / "matrix.npz", matrix)
    coo = matrix.tocoo()
    with open(folder / "matrix.tns", "w") as out:
        np.savetxt(out, np.column_stack([coo.row + 1, coo.col + 1, coo.data]), fmt="%d")
        # The last cell gives the shape where it is zero.
    scale = np.sqrt(matrix.mean() / rank)
    np.savez(folder / "init.npz", theta_1=scale * random.uniform(0.5, 1.5, (rows, rank)),
             theta_2=scale * random.uniform(0.5, 1.5, (columns, rank)))
    peer, memory = child(sklearn_nmf, str(folder), rank, options.checkpoints)
    mine = ours(options.program, str(folder / "matrix.tns"), "ir,jr->ij", f"r={rank}",
                ["--loss", "kl", "--shape", f"{rows},{columns}"], str(folder / "init.npz"),
                options.threads, folder)
    name = f"scikit-learn NMF, KL, {rows} × {columns}, {matrix.nnz} nonzeros, rank {rank}"
    return [(name, peer, memory, mine)]


def case_tensorly(options, folder):
    import numpy as np
    size, rank = (20, 4) if options.quick else (300, 20)
    random = np.random.default_rng(2)
    truth = [random.gamma(0.5, 1.0, (size, rank)) for _ in range(3)]
    tensor = np.einsum("ir,jr,kr->ijk", *truth, optimize=True)
    tensor += 0.1 * tensor.mean() * random.uniform(0.0, 1.0, tensor.shape)
    np.save(folder / "tensor.npy", tensor.astype(np.float32))
    scale = (tensor.mean() / rank) ** (1 / 3)
    np.savez(folder / "init.npz", **{f"theta_{i}": scale * random.uniform(0.5, 1.5, (size, rank)) for i in (1, 2, 3)})
    peer, memory = child(tensorly_hals, str(folder), rank, options.checkpoints)
    mine = ours(options.program, str(folder / "tensor.npy"), "ir,jr,kr->ijk", f"r={rank}",
                ["--loss", "euclidean"], str(folder / "init.npz"), options.threads, folder)
    return [(f"tensorly HALS, Euclid, {size}³ dense, rank {rank}", peer, memory, mine)]


def case_einfact(options, folder):
    import numpy as np
    if not options.einfact:
        raise SystemExit("einfact needs --einfact PATH/TO/einfact.py")
    if options.data:
        loaded = np.load(options.data)
        tensor = loaded[loaded.files[0]] if "Y" not in loaded.files else loaded["Y"]
        ranks = {"r": 10, "k": 6}
    else:
        random = np.random.default_rng(3)
        tensor = random.poisson(0.05, (6, 8, 7, 20, 20))
        ranks = {"r": 4, "k": 3}
    np.save(folder / "tensor.npy", tensor.astype(np.uint16))
    random = np.random.default_rng(4)
    w, h, d, i, j = tensor.shape
    r, k = ranks["r"], ranks["k"]
    shapes = [(w, r), (h, r), (d, r), (i, k, r), (j, k, r)]
    start = {f"theta_{n + 1}": random.uniform(0, 1, s).astype(np.float32) for n, s in enumerate(shapes)}
    np.savez(folder / "init.npz", **start)
    results = []
    for alpha, beta in ((1.0, 0.0), (0.7, 0.0)):
        peer, memory = child(einfact_fit, options.einfact, str(folder), alpha, beta, ranks,
                             options.checkpoints[-1])
        loss = ["--loss", "alpha-beta", "--alpha", str(alpha), "--beta", str(beta)]
        mine = ours(options.program, str(folder / "tensor.npy"), "wr,hr,dr,ikr,jkr->whdij",
                    f"r={r},k={k}", loss, str(folder / "init.npz"), options.threads, folder)
        results.append((f"einfact.py, αβ({alpha:g}, {beta:g}), {'×'.join(map(str, tensor.shape))}", peer, memory, mine))
    return results


def machine():
    model = next((l.split(":")[1].strip() for l in Path("/proc/cpuinfo").read_text().splitlines()
                  if l.startswith("model name")), platform.processor()) if Path("/proc/cpuinfo").exists() else platform.processor()
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("peers", nargs="+", choices=["sklearn", "tensorly", "einfact"])
    parser.add_argument("--program", required=True, help="the nneinfact binary")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--einfact", help="the authors' einfact.py")
    parser.add_argument("--data", help="an .npz with the tensor for einfact")
    parser.add_argument("--iterations", type=lambda t: tuple(int(n) for n in t.split(",")), dest="checkpoints", default=CHECKPOINTS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", default=".", help="where results.md and results.svg go")
    options = parser.parse_args()
    options.program = str(Path(options.program).resolve())
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    results = []
    for peer in options.peers:
        with tempfile.TemporaryDirectory() as folder:
            results += globals()[f"case_{peer}"](options, Path(folder))
    lines = [f"{machine()}; {options.threads} threads; `{' '.join(sys.argv)}`", "",
             "| peer and problem | its iterations | its loss | its seconds | ours to that loss | ratio | peak MiB, its and ours |",
             "| --- | --- | --- | --- | --- | --- | --- |"]
    for name, peer, memory, (losses, seconds, whole, mib) in results:
        for iterations, theirs, loss in peer:
            if iterations not in options.checkpoints:
                continue
            reached = first_below(losses, seconds, loss)
            ratio = f"{theirs / reached:.1f}×" if reached else "not reached"
            lines.append(f"| {name} | {iterations} | {loss:.6g} | {theirs:.3g} | "
                         f"{f'{reached:.3g}' if reached else '-'} | {ratio} | {memory:.0f}, {mib:.0f} |")
        lines.append(f"| {name} | all of ours | {losses[-1]:.6g} | | {seconds[-1]:.3g} (process {whole:.3g}) | | |")
    text = "\n".join(lines) + "\n"
    print(text)
    out = Path(options.out)
    (out / "results.md").write_text(text)
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib: no plot", file=sys.stderr)
        return
    matplotlib.use("svg")
    import matplotlib.pyplot as plot
    figure, axes = plot.subplots(1, len(results), figsize=(5 * len(results), 4), squeeze=False)
    for axis, (name, peer, _, (losses, seconds, *_rest)) in zip(axes[0], results):
        axis.plot([p[1] for p in peer], [p[2] for p in peer], "o-", label="peer")
        axis.plot(seconds, losses, label="nneinfact")
        axis.set(xscale="log", yscale="log", xlabel="seconds", ylabel="loss", title=name[:60])
        axis.legend()
    figure.tight_layout()
    figure.savefig(out / "results.svg")


if __name__ == "__main__":
    main()
