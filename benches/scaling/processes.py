#!/usr/bin/env python3
"""One fit on several processes: time, messages, bytes and memory, and a model of the time of a sweep.

    python3 processes.py --program ../../target/release/nneinfact --example ../../target/release/examples/processes
                         [--mpirun "mpirun --oversubscribe"] [--namespaces] [--most 8] [--quick] [--out processes.md]

Strong scaling (one problem on more processes), weak scaling (a problem that grows with them), messages that
take longer, and peak memory by process. The first three make their data in place, by the example
`processes`, whose processes are threads or, with --mpirun, what mpirun starts. The memory is that of the
program under mpirun (built with --features mpi); without --mpirun it is left out. With --namespaces (as root,
see namespaces.py) two processes under mpirun stand in two network namespaces, with a link that delays. Where the
example was not built with MPI, `--example "python3 processes_mpi4py.py"` does the same by way of mpi4py.

The model is   seconds = compute / P + messages · latency + bytes / bandwidth,   fitted by least squares to
all rows; then it is extrapolated, on paper, to other sizes and networks. Times mean something only where
there are at least as many cores as processes, and nothing else runs. Needs numpy.
"""

import argparse
import math
import os
import platform
import re
import shlex
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import namespaces

TOLD = re.compile(r"process (\d+) with (\d+) rows: ([\d.]+) s, of which ([\d.]+) s in the transport; "
                  r"(\d+) messages, (\d+) agreements, (\d+) bytes; bits (\w+)")


def launcher(options, processes):
    return [*options.mpirun.split(), "--allow-run-as-root", "-n", str(processes)] if options.mpirun else []


def run(options, processes, rows, sweeps, delay=0, wire=None):
    """What a sweep costs: the difference of a longer and a shorter fit, of the slowest process. With `wire` between
    two namespaces, on a link that delays by so many microseconds."""
    def once(count):
        asked = ["--rows", rows, "--columns", 500, "--rank", 10, "--sweeps", count, "--slabs", 16, "--delay", delay]
        how = ["--mpi"] if options.mpirun else ["--processes", processes]
        example = [*shlex.split(options.example), *map(str, [*how, *asked])]
        command = [*launcher(options, processes), *example]
        if wire is not None:
            with namespaces.nodes(wire), tempfile.TemporaryDirectory() as folder:
                plain = ["mpirun", "--bind-to", "none", "-n", str(processes), *example]
                return told(namespaces.started(plain, folder))
        return told(command)

    def told(command):
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        found = [match.groups() for match in map(TOLD.match, done.stdout.splitlines()) if match]
        if len(found) != processes:
            raise SystemExit(f"{processes} processes, but {len(found)} told something:\n{done.stdout}{done.stderr}")
        if len({row[7] for row in found}) != 1:
            raise SystemExit("processes have different bits")
        return np.array([[float(x) for x in row[2:7]] for row in found]), found[0][7]

    def best(count):
        """Of two runs the one whose slowest process took less."""
        return min((once(count) for _ in range(2)), key=lambda run: run[0][:, 0].max())

    (few, _), (many, bits) = best(2), best(2 + sweeps)
    seconds, waited, messages, agreements, size = ((many - few) / sweeps).max(axis=0)
    waiting = ((many - few) / sweeps)[:, 1].mean()
    return {"P": processes, "rows": rows, "delay": delay if wire is None else wire, "seconds": seconds, "waiting": waiting,
            "messages": messages, "agreements": agreements, "bytes": size, "bits": bits}


def table(title, rows):
    lines = [f"\n### {title}\n", "| processes | rows | added delay, µs | ms a sweep | of it not waiting | messages | "
             "agreements | kB sent |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in rows:
        busy = 1000 * (row["seconds"] - row["waiting"])
        lines.append(f"| {row['P']} | {row['rows']} | {row['delay']} | {1000 * row['seconds']:.1f} | {busy:.1f} | "
                     f"{row['messages']:.1f} | {row['agreements']:.1f} | {row['bytes'] / 1000:.1f} |")
    return lines


def model(rows):
    """Seconds of a row of data and sweep on one process, of a message, and of a byte; none below 0."""
    def tree(row):
        return row["messages"] + row["agreements"] * math.ceil(math.log2(row["P"]))
    columns = np.array([[row["rows"] / row["P"], tree(row), row["bytes"]] for row in rows])
    extra = np.array([tree(row) * row["delay"] * 1e-6 for row in rows])
    seconds = np.array([row["seconds"] for row in rows]) - extra
    scale = columns.max(axis=0)
    free = list(range(3))
    while True:
        found, *_ = np.linalg.lstsq(columns[:, free] / scale[free], seconds, rcond=None)
        if (found >= 0).all():
            break
        free.pop(int(np.argmin(found)))
    answer = np.zeros(3)
    answer[free] = found / scale[free]
    return answer


def extrapolated(per_entry):
    """On paper: MTTKRP at `per_entry` seconds an entry, sweep and core, sums of 200 kB a pass, three passes a sweep."""
    lines = ["| entries | nodes of 64 cores | network | compute, s | messages, s | bytes, s | s a sweep | efficiency |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    networks = {"InfiniBand: 2 µs, 12 GB/s": (2e-6, 12e9), "Ethernet: 50 µs, 1.2 GB/s": (50e-6, 1.2e9)}
    for entries in (1e10, 1e12):
        for nodes in (1, 10, 100):
            for name, (latency, bandwidth) in networks.items():
                compute = entries * per_entry / (64 * nodes)
                levels = math.ceil(math.log2(nodes)) if nodes > 1 else 0
                messages, sizes = 6 * levels * latency, 3 * 200e3 * levels / bandwidth
                whole = compute + messages + sizes
                lines.append(f"| 10^{round(math.log10(entries))} | {nodes} | {name} | {compute:.3g} | {messages:.2g} | "
                             f"{sizes:.2g} | {whole:.3g} | {100 * compute / whole:.1f} % |")
    return lines


def memory(options, folder):
    """The table of the program's own: what every process took at most."""
    data = folder / "data.npy"
    shape = (2000, 2000) if options.quick else (20000, 4000)
    values = np.lib.format.open_memmap(data, "w+", np.float32, shape)
    rng = np.random.default_rng(1)
    for rows in np.array_split(np.arange(shape[0]), 20):
        values[rows] = rng.poisson(2.0, (len(rows), shape[1]))
    del values
    lines = [f"\n### Peak memory: {shape[0]} × {shape[1]} f32, {data.stat().st_size / 2**20:.0f} MiB, whole numbers\n"]
    for processes in (1, 2, 4):
        command = [*launcher(options, processes), options.program, "fit", data, "--model", "ir,jr->ij", "--rank", "r=10",
                   "--max-iter", "3", "--tol", "0", "--device", "cpu", "--threads", "1", "--mpi", "--no-stream"]
        done = subprocess.run([str(part) for part in command], check=True, capture_output=True, text=True)
        found = done.stdout.partition("\nprocess  ")
        lines += [f"\n{processes} processes:\n", "```text", (found[1] + found[2]).strip() or done.stdout.strip(), "```"]
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program")
    parser.add_argument("--example", required=True)
    parser.add_argument("--mpirun", default="")
    parser.add_argument("--namespaces", action="store_true")
    parser.add_argument("--most", type=int, default=8, help="processes")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()
    rows, sweeps = (800, 4) if options.quick else (20000, 20)
    counts = [count for count in (1, 2, 4, 8) if count <= options.most]
    strong = [run(options, p, rows, sweeps) for p in counts]
    if len({row["bits"] for row in strong}) != 1:
        raise SystemExit("the bits depend on the number of processes")
    weak = [run(options, p, rows // 4 * p, sweeps) for p in counts]
    delayed = [run(options, p, rows, sweeps, delay) for p in counts[1:] for delay in (200, 2000)]
    wired = [run(options, 2, rows, sweeps, wire=delay) for delay in (0, 500, 2000)] if options.namespaces else []
    if {row["bits"] for row in wired} - {row["bits"] for row in strong}:
        raise SystemExit("the bits depend on the network")
    entry, message, byte = model(strong + weak + delayed + wired)
    cores = len(os.sched_getaffinity(0))
    lines = [f"{platform.processor() or platform.machine()}, {cores} cores; "
             f"{'processes of ' + options.mpirun if options.mpirun else 'threads'}; × 500 columns, rank 10, 16 slabs; "
             f"load {os.getloadavg()[0]:.1f} at the end."]
    lines += table("Strong scaling", strong) + table("Weak scaling", weak) + table("Messages that take longer", delayed)
    lines += table("Two network namespaces, Open MPI over TCP", wired) if wired else []
    lines += ["\n### Model\n", f"{entry / 500 * 1e9:.3g} ns an entry and sweep on one process, {message * 1e6:.3g} µs a "
              f"message, {byte * 1e9:.3g} ns a byte. (Where there are fewer cores than processes, the first term does "
              "not fall any more, and the fit is of little worth.)\n", *extrapolated(entry / 500)]
    if options.program and options.mpirun:
        with tempfile.TemporaryDirectory() as folder:
            lines += memory(options, Path(folder))
    text = "\n".join(lines) + "\n"
    if options.out:
        Path(options.out).write_text(text)
    else:
        print(text)


if __name__ == "__main__":
    main()
