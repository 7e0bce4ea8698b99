#!/usr/bin/env python3
"""What every process of a fit takes at most (VmHWM), for each kind of data that is read in parts.

    python3 memory.py --program ../../target/release/nneinfact [--quick] [--only KIND] [--out memory.md]

The program has to be built with --features mpi. Data are made in a folder that is removed: a dense array of single
precision (.npy, .npz as numpy.savez and numpy.savez_compressed write it), and lists of counts: .tns, .mtx, scipy's
.npz (csr and csc, compressed or not, and coo), the program's own .npz, and a table in 8 files. The program on one
process tells by itself; with mpirun it prints a table at its end. Takes some minutes and 1 GB of disk. Needs numpy
and scipy.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import scipy.sparse

ROW = re.compile(r"^(\d+)\s+\S+ \S+\s+\d+\s+\S+ s\s+([\d.]+) (\w+)$")
UNITS = {"B": 2**-20, "KiB": 2**-10, "MiB": 1, "GiB": 2**10}


def lines(path, columns, header=None, between=" "):
    """Integers as text, one row after another, in parts: much faster than numpy.savetxt."""
    with open(path, "w") as file:
        if header:
            file.write(header + "\n")
        for first in range(0, len(columns[0]), 10**6):
            rows = zip(*(column[first : first + 10**6].tolist() for column in columns))
            file.write("".join([between.join(map(str, row)) + "\n" for row in rows]))


def dense(folder, quick, kind):
    shape = (2000, 1000) if quick else (10_000, 4000)
    values = np.random.default_rng(1).random(shape, np.float32)
    path = folder / f"y.{'npy' if kind == 'npy' else 'npz'}"
    if kind == "npy":
        np.save(path, values)
    else:
        (np.savez if kind == "npz" else np.savez_compressed)(path, y=values)
    return path, values.nbytes, ["--model", "ir,jr->ij", *(["--no-stream"] if kind == "npy" else [])]


def matrix(folder, quick, kind):
    shape, entries = (20_000, 30_000), 200_000 if quick else 4_000_000
    rng = np.random.default_rng(2)
    rows, columns = (rng.integers(0, n, entries) for n in shape)
    values = rng.integers(1, 9, entries)
    if kind == "mtx":
        path = folder / "y.mtx"
        lines(path, [rows + 1, columns + 1, values],
              f"%%MatrixMarket matrix coordinate integer general\n{shape[0]} {shape[1]} {entries}")
    else:
        path = folder / "y.npz"
        name, _, packed = kind.partition(", ")
        made = scipy.sparse.coo_matrix((values, (rows, columns)), shape)
        scipy.sparse.save_npz(path, getattr(made, "to" + name)(), compressed=packed == "compressed")
    # Indices and a value of one byte.
    return path, 9 * entries, ["--model", "ir,jr->ij"]


def tensor(folder, quick, kind):
    shape, entries = (20_000, 3000, 500), 200_000 if quick else 4_000_000
    rng = np.random.default_rng(3)
    indices = [rng.integers(0, n, entries) for n in shape]
    values = rng.integers(1, 9, entries)
    more = ["--model", "ir,jr,kr->ijk"]
    if kind == "tns":
        path = folder / "y.tns"
        lines(path, [*(index + 1 for index in indices), values])
        more += ["--shape", ",".join(map(str, shape))]
    elif kind == "coords":
        path = folder / "y.npz"
        np.savez(path, coords=np.stack(indices), values=values, shape=np.array(shape))
    else:
        path = folder / "y-*.csv"
        for part in range(8):
            own = slice(part * entries // 8, (part + 1) * entries // 8)
            lines(folder / f"y-{part}.csv", [index[own] for index in indices], "a,b,c", ",")
        more += ["--modes", "i=a,j=b,k=c", "--count"]
    return path, 13 * entries, more


KINDS = {
    ".npy": (dense, "npy"), ".npz": (dense, "npz"), ".npz, compressed": (dense, "packed"),
    ".tns": (tensor, "tns"), ".npz, coordinates": (tensor, "coords"), "table in 8 files": (tensor, "table"),
    ".mtx": (matrix, "mtx"), "scipy csr": (matrix, "csr"), "scipy csr, compressed": (matrix, "csr, compressed"),
    "scipy csc": (matrix, "csc"), "scipy coo": (matrix, "coo"),
}


def peaks(options, processes, path, more):
    """MiB of each process; of one process by what the system says of it."""
    fit = [options.program, "fit", str(path), *more, "--rank", "r=5", "--max-iter", "2", "--tol", "0", "--device", "cpu",
           "--threads", "1"]
    if processes == 0:
        return [alone(fit)]
    if processes == 1:
        return [alone([*fit, "--slabs", "8", "--mpi"])]
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "--bind-to", "none", "-n", str(processes), *fit, "--mpi"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = [match.groups() for match in map(ROW.match, done.stdout.splitlines()) if match]
    if len(found) != processes:
        raise SystemExit(f"{processes} processes, and {len(found)} told:\n{done.stdout}{done.stderr}")
    return [float(size) * UNITS[unit] for _, size, unit in found]


def alone(command):
    """Of a child of a child, as a process keeps the peak of all its children."""
    code = ("import resource, subprocess, sys; "
            "done = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL); "
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(done.returncode)")
    done = subprocess.run([sys.executable, "-c", code, *command], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stdout) / 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, type=os.path.abspath)
    parser.add_argument("--only", choices=KINDS, action="append")
    parser.add_argument("--most", type=int, default=8, help="processes")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    counts = [count for count in (0, 1, 2, 4, 8) if count <= options.most]
    text = "| MiB of a process | data | " + " | ".join("without slabs" if not p else str(p) for p in counts) + " |\n"
    text += "| --- | ---: |" + " ---: |" * len(counts) + "\n"
    for name in options.only or KINDS:
        make, kind = KINDS[name]
        with tempfile.TemporaryDirectory() as folder:
            path, size, more = make(Path(folder), options.quick, kind)
            found = [peaks(options, count, path, more) for count in counts]
        cells = [f"{min(one):.0f}" if max(one) - min(one) < 1 else f"{min(one):.0f} to {max(one):.0f}" for one in found]
        text += f"| {name} | {size / 2**20:.0f} | {' | '.join(cells)} |\n"
        print(text.splitlines()[-1], file=sys.stderr, flush=True)
    if options.out:
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
