#!/usr/bin/env python3
"""Seconds per sweep against the size of the problem, through the command line.

    python3 scaling.py --program ../../target/release/nneinfact [--quick] [--threads 2] [--only K]
                       [--out scaling.md]

Four series, one thing growing in each: entries of dense data, nonzeros of sparse data, the inner
size K, and the number of modes. Writes Markdown tables, with the seconds per sweep divided by what
they should be proportional to, and that beside the largest problem of the series: it falls to 1
while fixed costs fade. In the series of modes the entries stay about the same, so it tells what a
mode costs at equal work. Takes some minutes on two cores, and 1 GB of memory and of disk. Needs
numpy.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
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
    """Poisson counts, made in parts: the generator's own type has eight bytes."""
    flat = np.empty(int(np.prod(shape)), np.uint8)
    for part in np.array_split(flat, 1 + flat.size // 10**7):
        part[:] = random.poisson(1.5, part.size)
    return flat.reshape(shape)


def lines(path, columns):
    """Integers as text, one row after another, in parts: much faster than numpy.savetxt."""
    with open(path, "w") as file:
        for first in range(0, len(columns[0]), 10**6):
            rows = zip(*(column[first : first + 10**6].tolist() for column in columns))
            file.write("".join([" ".join(map(str, row)) + "\n" for row in rows]))


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
        cells = [random.integers(1, n + 1, total) for n in shape]
        data = folder / "data.tns"
        lines(data, [*cells, random.poisson(2, total) + 1])
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
UNITS = {"entries": "entry", "nonzeros": "nonzero", "K": "unit of K", "modes": "entry"}


def processor():
    """Its name, where the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", required=True, type=os.path.abspath)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=SERIES)
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it works")
    parser.add_argument("--out", type=Path, help="write the tables to this file too")
    options = parser.parse_args()
    version = subprocess.run([options.program, "--version"], check=True, capture_output=True, text=True)
    text = (f"{version.stdout.strip()}, {options.threads} threads, {processor()}; "
            f"grouped sweeps, KL, f32{', --quick' if options.quick else ''}\n")
    print(text)
    for name, series in SERIES.items():
        if options.only not in (None, name):
            continue
        rows = []
        with tempfile.TemporaryDirectory() as folder:
            for what, seconds, units in series(options, Path(folder), np.random.default_rng(1)):
                print(f"{what}: {seconds:.2g} s", file=sys.stderr, flush=True)
                rows.append((what, seconds, seconds / units * 1e9))
        table = f"| {name} | seconds per sweep | per {UNITS[name]} (ns) | beside the last |\n"
        table += "| --- | ---: | ---: | ---: |\n"
        for what, seconds, each in rows:
            table += f"| {what} | {seconds:.2g} | {each:.3g} | {each / rows[-1][2]:.2f} |\n"
        print(table, flush=True)
        text += "\n" + table
    if options.out:
        options.out.write_text(text)


if __name__ == "__main__":
    main()
