#!/usr/bin/env python3
"""What a sweep of several processes takes, measured so that every term of the model can be told from the others.

    sudo python3 time_model.py --program ../../target/release/nneinfact [--quick] [--out time_model.md]
                               [--keep rows.json]
    python3 time_model.py --again rows.json

The program has to be built with --features mpi. The model of the time of a sweep is

    seconds = (entries · c  +  factor entries · h) / min(P, cores)  +  near · n  +  far · w  +  far · delay · k
              +  late · s  +  bytes near · b  +  bytes far · f

where near messages go between processes of one machine, and far ones between two network namespaces, on a link that
delays (see namespaces.py, which needs root). Factor entries are those of all slabs, each of which makes sums of its own
as long as the factors without the mode that is cut. Of P processes half are in each namespace, so that of the log2 P levels of the tree one is far. Late messages are far ones that are
waited for longer than 2 ms: after that a process looks for them now and then, and leaves its core to others in between.

An agreement goes to one process and back. It counts as one message and a half of each level, as between an exchange and
the next one: who has an answer first, sends first. (Two processes that exchange, agree, exchange, agree and exchange in
a sweep are done with it after six delays.)

- Hardly any entries and sums, with delays of 0 to 20 ms: n, w, s and k, which is 1 where messages are counted rightly.
- Long sums, near and far, and on one process: b, f and h.
- Many entries on one and two processes: c.

All are fitted at once by least squares, where a row is known to 3 % and 0.2 ms; how well they are follows from what is left. Rows
that are not fitted are predicted: long sums on a link that delays, where MPI asks before it sends; and without a delay
more processes than cores, which take turns, with the link's own program among them. A sweep takes the median of those of
a fit; messages are counted by a longer fit less a shorter one, bytes by the formula of the guide. Needs numpy.
"""

import argparse
import json
import math
import os
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import namespaces

TERMS = {"entries / min(P, cores)": "ns", "factor entries of slabs / min(P, cores)": "ns", "near messages": "µs",
         "far messages": "µs", "far messages · delay": "", "late messages": "µs", "bytes near": "ns", "bytes far": "ns"}
SCALES = {"ns": 1e9, "µs": 1e6, "": 1.0}
# An agreement in messages of each level.
AGREEMENT = 1.5
# What MPI sends at once by TCP; of more it sends the beginning and waits for an answer, which is two messages more.
EAGER = 64 * 1024
SLABS = 8
ROW = re.compile(r"^(\d+)\s+\S+ \S+\s+(\d+)\s+\S+ s\s+[\d.]+ \w+$")


class Problem:
    """NMF of counts: an array in a file, and how it is fitted."""

    def __init__(self, name, folder, rows, columns, rank, sweeps):
        self.name, self.rows, self.columns, self.rank, self.sweeps = name, rows, columns, rank, sweeps
        self.path = Path(folder) / f"{name.replace(' ', '_')}.npy"
        np.save(self.path, np.random.default_rng(1).poisson(2.0, (rows, columns)).astype(np.uint8))

    def sent(self, processes):
        """Bytes that each process sends in a sweep."""
        levels = math.ceil(math.log2(processes)) if processes > 1 else 0
        return levels * 16 * self.columns * self.rank + (1 - 1 / processes) * 8 * self.rows * self.rank


def fit(options, problem, processes, sweeps, far):
    """The median seconds of a sweep, and how many messages a process sent in all."""
    with tempfile.TemporaryDirectory() as folder:
        history = f"{folder}/history.json"
        command = ["mpirun", "--bind-to", "none", "-n", str(processes), options.program, "fit", problem.path,
                   "--model", "ir,jr->ij", "--rank", f"r={problem.rank}", "--mpi", "--slabs", SLABS, "--max-iter", sweeps,
                   "--tol", "0", "--device", "cpu", "--threads", "1", "--history", history]
        command = [str(word) for word in command]
        command = namespaces.started(command, folder) if far else [
            command[0], "--allow-run-as-root", "--oversubscribe", *command[1:]]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
        found = [int(match[2]) for match in map(ROW.match, done.stdout.splitlines()) if match]
        seconds = np.array(json.loads(Path(history).read_text())["seconds"])
        return float(np.median(np.diff(seconds)[1:])), max(found, default=0)


def row(options, problem, processes, delay=None, fitted=True):
    """What a sweep takes and sends; `delay` in milliseconds, one way, between two namespaces."""
    far = delay is not None
    _, few = fit(options, problem, processes, 3, far)
    seconds, many = fit(options, problem, processes, 3 + problem.sweeps, far)
    print(f"{problem.name}: {processes} processes, delay {delay}: {seconds * 1000:.2f} ms", flush=True)
    return {"name": problem.name, "P": processes, "delay": delay, "seconds": seconds, "fitted": fitted,
            "messages": (many - few) / problem.sweeps, "bytes": problem.sent(processes), "rows": problem.rows,
            "columns": problem.columns, "rank": problem.rank, "cores": options.cores, "agreements": options.agreements}


def terms(row):
    """What the terms of the model are multiplied with."""
    levels, busy = round(math.log2(row["P"])), min(row["P"], row["cores"])
    entries = row["rows"] * row["columns"]
    # Of the factor with the mode that is cut a slab has its rows.
    own = (row["rows"] + SLABS * row["columns"]) * row["rank"]
    chain = row["messages"] + AGREEMENT * row["agreements"] * levels
    far = row["delay"] is not None and levels > 0
    across, size = (chain / levels, row["bytes"] / levels) if far else (0, 0)
    near, seconds = chain - across, (row["delay"] or 0) / 1000
    if far and 16 * row["columns"] * row["rank"] > EAGER:
        across += 2
    late = across if seconds >= 0.002 else 0
    return [entries / busy, own / busy, near, across, across * seconds, late, row["bytes"] - size, size]


def measured(options, folder):
    quick = options.quick
    counts = [count for count in (2, 4, 8) if count <= options.most]
    little = Problem("little", folder, 64, 32, 2, 8 if quick else 20)
    long = Problem("long sums", folder, 64, 2_000 if quick else 20_000, 10, 4 if quick else 8)
    many = Problem("entries", folder, 1_000 if quick else 8_000, 500, 10, 6 if quick else 12)
    found = [row(options, many, count) for count in (1, 2)]
    found += [row(options, little, count) for count in counts]
    found += [row(options, long, count) for count in (1, *counts[:2])]
    for delay in (0, 5) if quick else (0, 2, 5, 10, 20):
        with namespaces.nodes(delay * 1000):
            crowded = lambda count: delay == 0 and count > options.cores
            found += [row(options, little, count, delay, not crowded(count)) for count in counts]
            if delay in (0, 2):
                found.append(row(options, long, 2, delay, fitted=delay == 0))
    return found


def model(found):
    """The coefficients, none of which is below 0, and how well they are known."""
    fitted = [row for row in found if row["fitted"]]
    seconds = np.array([row["seconds"] for row in fitted])
    known = 0.03 * seconds + 0.2e-3
    columns = np.array([terms(row) for row in fitted]) / known[:, None]
    free = list(range(len(TERMS)))
    while True:
        scale = np.abs(columns[:, free]).max(axis=0)
        scaled = columns[:, free] / scale
        answer, *_ = np.linalg.lstsq(scaled, seconds / known, rcond=None)
        if (answer >= 0).all():
            break
        free.pop(int(np.argmin(answer)))
    rest = scaled @ answer - seconds / known
    spread = (rest @ rest) / max(1, len(fitted) - len(free)) * np.linalg.inv(scaled.T @ scaled)
    coefficients, errors = np.zeros(len(TERMS)), np.zeros(len(TERMS))
    coefficients[free], errors[free] = answer / scale, np.sqrt(np.diag(spread)) / scale
    return coefficients, errors


def report(found):
    coefficients, errors = model(found)
    lines = [f"{found[0]['cores']} cores\n", "| what | processes | delay, ms | messages | kB sent | ms a sweep | by the model | off by |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for one in found:
        expected = float(np.dot(coefficients, terms(one)))
        delay = "one machine" if one["delay"] is None else one["delay"]
        name = one["name"] if one["fitted"] else f"{one['name']} (predicted)"
        lines.append(f"| {name} | {one['P']} | {delay} | {one['messages']:.1f} | {one['bytes'] / 1000:.1f} | "
                     f"{1000 * one['seconds']:.2f} | {1000 * expected:.2f} | "
                     f"{100 * (expected / one['seconds'] - 1):+.0f} % |")
    lines += ["", "| term | each | known to |", "| --- | --- | --- |"]
    for (name, unit), value, error in zip(TERMS.items(), coefficients, errors):
        lines.append(f"| {name} | {value * SCALES[unit]:.3g} {unit} | ± {error * SCALES[unit]:.1g} |")
    lines += ["", "On paper, three passes a sweep whose sums have 200 kB each:", "", *extrapolated(coefficients)]
    return "\n".join(lines) + "\n"


def extrapolated(coefficients):
    """The model with what an entry takes here, on other networks."""
    networks = {"InfiniBand: 2 µs, 12 GB/s": (2e-6, 12e9), "Ethernet: 50 µs, 1.2 GB/s": (50e-6, 1.2e9)}
    lines = ["| entries | nodes of 64 cores | network | compute, s | own sums, s | messages, s | bytes, s | efficiency |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    # Those of the model whose sums have 200 kB, in one slab a node, on one core of it.
    own = 12_580 * coefficients[1]
    for entries in (1e10, 1e12):
        for nodes in (10, 100):
            levels = math.ceil(math.log2(nodes))
            compute = entries * coefficients[0] / (64 * nodes)
            for name, (latency, bandwidth) in networks.items():
                # Three sums and the losses, and agreements there and back; sums are long.
                messages = (4 + 3 * 2 + AGREEMENT * 3) * levels * latency
                sizes = 3 * 200e3 * levels / bandwidth
                share = compute / (compute + own + messages + sizes)
                lines.append(f"| 10^{round(math.log10(entries))} | {nodes} | {name} | {compute:.2g} | {own:.2g} | {messages:.2g} | "
                             f"{sizes:.2g} | {100 * share:.0f} % |")
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=os.path.abspath)
    parser.add_argument("--again", type=Path, help="rows that were measured before")
    parser.add_argument("--keep", type=Path, help="where to keep the rows")
    parser.add_argument("--most", type=int, default=8, help="processes")
    parser.add_argument("--agreements", type=int, default=2, help="of a sweep: one, and one between groups")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.cores = len(os.sched_getaffinity(0))
    if options.again:
        found = json.loads(options.again.read_text())
    elif options.program:
        with tempfile.TemporaryDirectory() as folder:
            found = measured(options, folder)
    else:
        parser.error("--program is measured, or rows are given --again")
    if options.keep:
        options.keep.write_text(json.dumps(found, indent=1))
    text = report(found)
    if options.out:
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
