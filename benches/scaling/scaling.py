#!/usr/bin/env python3
"""Seconds per sweep against the size of the problem, through the command line.

    python3 scaling.py --program ../../target/release/nneinfact [--quick] [--threads 2] [--only K]

Four series, one thing growing in each: entries of dense data, nonzeros of sparse data, the inner
size K, and the number of modes. Prints a Markdown table, with the seconds per sweep divided by what
they should be proportional to in the last column: it stays level, or falls while fixed costs fade.
Needs numpy.
"""

import argparse
import json
import os
import platform
import subprocess
import tempfile
from pathlib import Path

import numpy as np


def fit(options, folder, data, model, rank, loss, sweeps, extra=()):
    """Seconds per sweep: the median of the differences in the history, the first left out."""
    history = folder / "history.json"
    command = [options.program, "fit", data, "--model", model, "--rank", rank, "--loss", loss,
               "--tol", "0", "--max-iter", str(sweeps), "--algorithm", "grouped", "--seed", "1",
               "--device", "cpu", "--threads", str(options.threads), "--history", history, "--quiet", *extra]
    subprocess.run([str(c) for c in command], check=True)
    seconds = np.array(json.loads(history.read_text())["seconds"])
    return float(np.median(np.diff(seconds)[1:]))


def counts(random, shape):
    return random.poisson(1.5, shape).astype(np.uint8)


def entries(options, folder, random):
    for total in [10**5, 10**6] if options.quick else [10**5, 10**6, 10**7, 10**8]:
        side = round((total / 10) ** 0.5)
        data = folder / "data.npy"
        np.save(data, counts(random, (10, side, side)))
        sweeps = max(4, min(60, 10**8 // total))
        found = fit(options, folder, data, "ar,ir,jr->aij", "r=8", "kl", sweeps, ["--data-as", "dense"])
        yield f"{10 * side * side:,} entries", found, 10 * side * side


def nonzeros(options, folder, random):
    for total in [10**4, 10**5] if options.quick else [10**4, 10**5, 10**6, 10**7]:
        shape = (10_000, 10_000, 1000)
        cells = np.stack([random.integers(1, n + 1, total) for n in shape] + [random.poisson(2, total) + 1])
        data = folder / "data.tns"
        np.savetxt(data, cells.T, fmt="%d")
        size = ["--shape", ",".join(map(str, shape))]
        sweeps = max(4, min(60, 10**7 // total))
        found = fit(options, folder, data, "ir,jr,kr->ijk", "r=8", "kl", sweeps, size)
        yield f"{total:,} nonzeros", found, total
        data.unlink()


def inner(options, folder, random):
    data = folder / "data.npy"
    side = 300 if options.quick else 2000
    np.save(data, counts(random, (side, side)))
    for k in [4, 16] if options.quick else [4, 8, 16, 32, 64, 128, 256]:
        found = fit(options, folder, data, "ir,jr->ij", f"r={k}", "kl", 8, ["--data-as", "dense"])
        yield f"K = {k}", found, k


def modes(options, folder, random):
    letters = "abcdefgh"
    total = 10**5 if options.quick else 16**6
    for count in [2, 4] if options.quick else [2, 3, 4, 6, 8]:
        side = round(total ** (1 / count))
        data = folder / "data.npy"
        np.save(data, counts(random, (side,) * count))
        used = letters[:count]
        model = ",".join(f"{c}r" for c in used) + "->" + used
        found = fit(options, folder, data, model, "r=8", "kl", 8, ["--data-as", "dense"])
        yield f"{count} modes of {side}", found, side**count


SERIES = {"entries": entries, "nonzeros": nonzeros, "K": inner, "modes": modes}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True, type=os.path.abspath)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=SERIES)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    options = parser.parse_args()
    print(f"{options.threads} threads, {platform.machine()}; grouped sweeps, KL, f32\n")
    for name, series in SERIES.items():
        if options.only not in (None, name):
            continue
        print(f"| {name} | seconds per sweep | per unit (ns) |\n| --- | ---: | ---: |")
        with tempfile.TemporaryDirectory() as folder:
            for what, seconds, units in series(options, Path(folder), np.random.default_rng(1)):
                print(f"| {what} | {seconds:.2g} | {seconds / units * 1e9:.3g} |", flush=True)
        print()


if __name__ == "__main__":
    main()
