#!/usr/bin/env python3
"""Trains against others, in one run on one machine: the barrier Newton method against an oracle in numpy,
and cross interpolation against teneva (PyPI: `pip install numpy teneva`).

    cargo build --release
    cargo run --release --example trains -- --save TARGETS
    benches/trains.py --program target/release/nneinfact --targets TARGETS --oracle ORACLE.py

ORACLE.py has `warm_start`, `fit_newton`, `fit_mu`, `tt_normalise`, `tt_rel2` with the meaning of
`ntt_prototype.py`. Without it, or without teneva, that part is left out. Seconds are of one thread of the
oracle, and of all threads of the program (`--threads`).
"""

import argparse
import importlib.util
import json
import math
import pathlib
import subprocess
import tempfile
import time

import numpy as np

RANKS = {"ginzburg_landau": 8, "gibbs_kernel": 6, "heavy_tail": 8, "periodic_ising": 8, "heisenberg": 8}
VARIANTS = [
    ("adaptive + direct", dict(schedule="adaptive", line="slice"), ["--schedule", "adaptive", "--solver", "direct"]),
    ("hybrid + direct", dict(schedule="hybrid", line="slice"), ["--schedule", "hybrid", "--solver", "direct"]),
    ("adaptive + Jacobi", dict(schedule="adaptive", line="slice", solver="jacobi"),
     ["--schedule", "adaptive", "--solver", "jacobi"]),
    ("multiplicative", None, ["--method", "multiplicative"]),
]


def read_train(path):
    with np.load(path) as file:
        cores = [file[f"core_{k}"] for k in range(1, 1 + sum(name.startswith("core_") for name in file.files))]
        scale = float(file["log_scale"]) if "log_scale" in file.files else 0.0
    return [core * math.exp(scale / len(cores)) for core in cores]


def write_train(path, cores):
    np.savez(path, **{f"core_{k}": core for k, core in enumerate(cores, 1)})


def fits(oracle, program, targets, sweeps, threads, folder):
    print(f"\n{sweeps} sweeps from the same start: seconds and squared relative distance")
    print(f"{'target':18} {'variant':20} {'oracle, s':>10} {'here, s':>10} {'ratio':>7} {'oracle':>9} {'here':>9}")
    for name, rank in RANKS.items():
        path = targets / f"{name}.npz"
        if not path.exists():
            continue
        target, _ = oracle.tt_normalise(read_train(path))
        sizes = [core.shape[1] for core in target]
        start = oracle.warm_start(target, sizes, rank, np.random.default_rng(2))
        write_train(folder / "target.npz", target)
        write_train(folder / "start.npz", start)
        for variant, options, arguments in VARIANTS:
            began = time.perf_counter()
            if options is None:
                model, _ = oracle.fit_mu(target, start, sweeps=sweeps)
            else:
                model, _ = oracle.fit_newton(target, start, sweeps=sweeps, **options)
            theirs = time.perf_counter() - began
            subprocess.run(
                [program, "density", "fit", folder / "target.npz", "--init", folder / "start.npz",
                 "--sweeps", str(sweeps), "--target-error", "0", "--out", folder / "ntt.npz", "--history",
                 folder / "history.json", "--quiet", "--threads", str(threads), *arguments], check=True)
            history = json.loads((folder / "history.json").read_text())
            ours = history["seconds"][-1]
            print(f"{name:18} {variant:20} {theirs:10.3f} {ours:10.4f} {theirs / ours:7.0f} "
                  f"{oracle.tt_rel2(target, model):9.1e} {history['error'][-1]:9.1e}", flush=True)


def functions():
    def ginzburg_landau(i):
        x = 4 * i / 15 - 2
        bonds = (np.diff(np.pad(x, ((0, 0), (1, 1))), axis=1) ** 2).sum(1)
        return -(0.25 * bonds + ((1 - x * x) ** 2).sum(1) / 2)

    def gibbs_kernel(i):
        return -((np.diff(2 * i / 15 - 1, axis=1)) ** 2).sum(1)

    def heavy_tail(i):
        x = 2 * i / 15 - 1
        return -0.5 * (2 + i.shape[1]) * np.log1p((x * x).sum(1) / 2)

    return [("ginzburg_landau", 16, 8, ginzburg_landau), ("gibbs_kernel", 12, 4, gibbs_kernel),
            ("heavy_tail", 16, 8, heavy_tail)]


def peer(teneva):
    print("\nteneva.cross: ranks grow by at most one a sweep, up to the rank of the example")
    print(f"{'function':18} {'rank':>5} {'evaluations':>12} {'seconds':>8} {'mean error, uniform':>20}")
    for name, d, rank, log_f in functions():
        sizes = [16] * d
        top = max(float(log_f(np.full((1, d), i)).item()) for i in range(16))
        f = lambda i: np.exp(log_f(np.asarray(i, dtype=float)) - top)  # noqa: E731
        info = {}
        began = time.perf_counter()
        train = teneva.cross(f, teneva.rand(sizes, 2, seed=1), nswp=rank, dr_min=1, dr_max=1, info=info)
        train = teneva.truncate(train, 1e-10, r=rank)
        seconds = time.perf_counter() - began
        check = np.random.default_rng(3).integers(0, 16, (10_000, d))
        want, got = f(check), teneva.get_many(train, check)
        error = float(np.mean(np.abs(got / want - 1)))
        print(f"{name:18} {int(max(teneva.ranks(train))):5} {info['m']:12} {seconds:8.2f} {error:20.1e}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/nneinfact")
    parser.add_argument("--targets", type=pathlib.Path)
    parser.add_argument("--oracle", type=pathlib.Path)
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.oracle and options.targets:
        spec = importlib.util.spec_from_file_location("oracle", options.oracle)
        oracle = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(oracle)
        with tempfile.TemporaryDirectory() as folder:
            fits(oracle, options.program, options.targets, options.sweeps, options.threads, pathlib.Path(folder))
    else:
        print("no oracle: --oracle and --targets say where")
    try:
        import teneva
    except ImportError:
        print("no teneva: pip install teneva")
    else:
        peer(teneva)


if __name__ == "__main__":
    main()
