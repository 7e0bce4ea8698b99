#!/usr/bin/env python3
"""Trains against others, in one run on one machine: the barrier Newton method against an oracle in numpy,
and cross interpolation against teneva and torchtt (PyPI: `pip install numpy teneva torch torchtt`).

    cargo build --release
    cargo run --release --example trains -- --save TARGETS
    benches/trains.py --program target/release/nneinfact --targets TARGETS --oracle ORACLE.py

ORACLE.py has `warm_start`, `fit_newton`, `fit_mu`, `tt_normalise`, `tt_rel2` with the meaning of
`ntt_prototype.py`. What is not installed is left out. `--cross EXAMPLE` runs `EXAMPLE cross` (the built example
`trains`) between the peers, so that the program's cross interpolation is measured in the same run, on the same entries.
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
# Name, options of the oracle (none: multiplicative updates), options of the program.
VARIANTS = [
    ("adaptive + direct", dict(schedule="adaptive", line="core"),
     ["--schedule", "adaptive", "--solver", "direct", "--line-search", "core"]),
    ("hybrid + direct, step per slice", dict(schedule="hybrid", line="slice"),
     ["--schedule", "hybrid", "--solver", "direct"]),
    ("adaptive + PCG", dict(schedule="adaptive", line="core", solver="pcg", pre_min=1e-12),
     ["--schedule", "adaptive", "--solver", "pcg", "--line-search", "core", "--pre-min", "1e-12"]),
    ("adaptive + Jacobi, step per slice", dict(schedule="adaptive", line="slice", solver="jacobi"),
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


def timed(run, repeats):
    """The result of the last run, and of all the least seconds by the clock and of the processor."""
    best = [math.inf, math.inf]
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        result = run()
        best = [min(best[0], time.perf_counter() - wall), min(best[1], time.process_time() - cpu)]
    return result, best


def program_fit(program, folder, arguments, sweeps, threads):
    """Seconds and error of the program: the sweeps alone, as it tells them in its history."""
    subprocess.run(
        [program, "density", "fit", folder / "target.npz", "--init", folder / "start.npz", "--sweeps", str(sweeps),
         "--target-error", "0", "--out", folder / "ntt.npz", "--history", folder / "history.json", "--quiet",
         "--threads", str(threads), *arguments], check=True)
    history = json.loads((folder / "history.json").read_text())
    return history["seconds"][-1], history["error"][-1]


def fits(oracle, program, targets, sweeps, threads, repeats, folder):
    print(f"\n{sweeps} sweeps from the same start, the least of {repeats} runs in alternation: milliseconds a sweep of "
          "the oracle by the clock (of its processor), of the program by the clock on "
          f"{' and '.join(map(str, threads))} threads; how many times fewer; errors")
    columns = "".join(f" {f'{t} thr.':>8} {'ratio':>6}" for t in threads)
    print(f"{'target':16} {'variant':34} {'oracle':>8} {'(cpu)':>8}{columns} {'oracle':>8} {'here':>8}")
    least = [math.inf] * len(threads)
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
            ours = [math.inf] * len(threads)
            theirs = [math.inf, math.inf]
            for _ in range(repeats):
                if options is None:
                    run = lambda: oracle.fit_mu(target, start, sweeps=sweeps)  # noqa: E731
                else:
                    run = lambda: oracle.fit_newton(target, start, sweeps=sweeps, **options)  # noqa: E731
                (model, _), best = timed(run, 1)
                theirs = [min(pair) for pair in zip(theirs, best)]
                for at, count in enumerate(threads):
                    seconds, error = program_fit(program, folder, arguments, sweeps, count)
                    ours[at] = min(ours[at], seconds)
            ratios = [theirs[0] / s for s in ours]
            least = [min(pair) for pair in zip(least, ratios)]
            shown = "".join(f" {1e3 * s / sweeps:8.3f} {r:6.1f}" for s, r in zip(ours, ratios))
            print(f"{name:16} {variant:34} {1e3 * theirs[0] / sweeps:8.2f} {1e3 * theirs[1] / sweeps:8.2f}{shown} "
                  f"{oracle.tt_rel2(target, model):8.1e} {error:8.1e}", flush=True)
    print(f"the least ratios: {', '.join(f'{r:.1f}' for r in least)}")


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


def spread(d, n, rows):
    """The tuples on which `trains cross` measures errors."""
    row, k = np.arange(rows, dtype=float)[:, None], np.arange(d, dtype=float)[None, :]
    u = (row * np.sqrt(k + 2) + k * 0.37) % 1.0
    return np.minimum((u * n).astype(int), n - 1)


def functions_to_interpolate():
    """Name, number of modes, the function without logarithm, entries to measure on, and its values there."""
    for name, d, _, log_f in functions():
        check = spread(d, 16, 10_000)
        want = log_f(check.astype(float))
        top = float(want.max())
        yield name, d, lambda i: np.exp(log_f(np.asarray(i, dtype=float)) - top), check, np.exp(want - top)  # noqa: B023


def show_cross(name, rank, sweeps, evaluations, cpu, got, want):
    error = np.linalg.norm(got - want) / np.linalg.norm(want)
    print(f"{name:18} {rank:5} {sweeps:7} {evaluations:12} {cpu:8.2f} {error:10.1e}", flush=True)


COLUMNS = f"{'function':18} {'rank':>5} {'sweeps':>7} {'evaluations':>12} {'seconds':>8} {'error':>10}"


def teneva_cross(teneva):
    print("\nteneva.cross: ranks grow by one a half-sweep, from 2 (seconds of the processor)")
    print(COLUMNS)
    for name, d, f, check, want in functions_to_interpolate():
        for sweeps in (1, 2, 3, 4, 5, 6, 7):
            info = {}
            began = time.process_time()
            train = teneva.cross(f, teneva.rand([16] * d, 2, seed=1), nswp=sweeps, dr_min=1, dr_max=1, info=info)
            cpu = time.process_time() - began
            show_cross(name, int(max(teneva.ranks(train))), sweeps, info["m"], cpu, teneva.get_many(train, check), want)


def torchtt_cross(torchtt, torch):
    print("\ntorchtt.interpolate.dmrg_cross, eps=1e-9: `rmax` is what its ranks are before its kick of 2")
    print(COLUMNS)
    for name, d, f, check, want in functions_to_interpolate():
        for rank in (4, 6, 8):
            evaluations = 0

            def counted(i, f=f):
                nonlocal evaluations
                evaluations += len(i)
                return torch.from_numpy(f(i.numpy()))

            torch.manual_seed(1)
            began = time.process_time()
            train = torchtt.interpolate.dmrg_cross(
                counted, [16] * d, eps=1e-9, nswp=4, rmax=rank, dtype=torch.float64, eval_vect=True)
            cpu = time.process_time() - began
            got = np.ones((len(check), 1))
            for k, core in enumerate(train.cores):
                got = np.einsum("ma,mab->mb", got, np.moveaxis(core.numpy(), 1, 0)[check[:, k]])
            show_cross(name, int(max(train.R)), 4, evaluations, cpu, got[:, 0], want)


def peers(example):
    try:
        import teneva
    except ImportError:
        print("no teneva: pip install teneva")
    else:
        teneva_cross(teneva)
    if example:
        print(f"\n{example} cross", flush=True)
        subprocess.run([example, "cross"], check=True)
    try:
        import torch
        import torchtt
    except ImportError:
        print("no torchtt: pip install torch torchtt")
    else:
        torchtt_cross(torchtt, torch)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="target/release/nneinfact")
    parser.add_argument("--targets", type=pathlib.Path)
    parser.add_argument("--oracle", type=pathlib.Path)
    parser.add_argument("--sweeps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--no-peer", action="store_true", help="leave cross interpolation out")
    parser.add_argument("--cross", metavar="EXAMPLE", help="the built example `trains`")
    options = parser.parse_args()
    if options.oracle and options.targets:
        spec = importlib.util.spec_from_file_location("oracle", options.oracle)
        oracle = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(oracle)
        with tempfile.TemporaryDirectory() as folder:
            fits(oracle, options.program, options.targets, options.sweeps, options.threads, options.repeats,
                 pathlib.Path(folder))
    else:
        print("no oracle: --oracle and --targets say where")
    if not options.no_peer:
        peers(options.cross)


if __name__ == "__main__":
    main()
