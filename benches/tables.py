#!/usr/bin/env python3
"""A table of events to a tensor: `nneinfact table` against pandas, in alternating pairs on one machine.

    cargo build --release
    pip install numpy pandas
    benches/tables.py --program target/release/nneinfact [--rows 1000000,10000000] [--gzip] [--pairs 5] [--keep FOLDER]

Made-up rides (a time and a place each, half a year) become counts over week, weekday, hour and a grid of 100 × 100
places. Both read the same file; what they make is compared entry by entry. Seconds are of the whole command or
call, from the file to the tensor in memory (pandas) or in a file (the program); memory is the process's peak. Files
that were made are kept for the next time where a folder is named.
"""

import argparse
import gzip
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

MODES = "week(time),weekday(time),hour(time),bin(lat,40.6:40.9:0.003),bin(lon,-74.1:-73.7:0.004)"

# Run in a process of its own, so that its peak memory is pandas' alone.
PANDAS = """
import json, sys, time, resource
import numpy as np, pandas as pd
began = time.perf_counter()
table = pd.read_csv(sys.argv[1])
when = pd.to_datetime(table["time"])
iso = when.dt.isocalendar()
week = pd.factorize(iso["year"].astype("int64") * 100 + iso["week"].astype("int64"), sort=True)[0]
def bins(column, low, high, n):
    return pd.cut(table[column], np.linspace(low, high, n + 1), right=False, labels=False)
frame = pd.DataFrame({"w": week, "d": when.dt.weekday, "h": when.dt.hour,
                      "i": bins("lat", 40.6, 40.9, 100), "j": bins("lon", -74.1, -73.7, 100)}).dropna()
counts = frame.groupby(["w", "d", "h", "i", "j"], sort=True).size()
seconds = time.perf_counter() - began
used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
if sys.argv[2] != "-":
    coords = np.array([counts.index.get_level_values(k) for k in range(5)]).astype(np.int64)
    np.savez(sys.argv[2], coords=coords, values=counts.to_numpy())
print(json.dumps({"seconds": seconds, "mib": peak, "used": used}))
"""


def make(path, rows, zipped):
    """Places of a few centres, six decimals: values on an edge of a bin are as rare as in real tables."""
    rng = np.random.default_rng(1)
    start = np.datetime64("2014-04-01T00:00:00")
    write = gzip.open(path, "wt", compresslevel=3) if zipped else open(path, "w")
    with write as file:
        file.write("time,lat,lon,base\n")
        left = rows
        while left:
            n = min(left, 500_000)
            times = start + rng.integers(0, 183 * 86400, n).astype("timedelta64[s]")
            centre = rng.integers(0, 8, n)
            lat = 40.65 + 0.02 * centre + 0.01 * rng.standard_normal(n)
            lon = -74.05 + 0.03 * centre + 0.02 * rng.standard_normal(n)
            for t, a, o in zip(times.astype(str), lat, lon):
                file.write(f"{t},{a:.6f},{o:.6f},B02512\n")
            left -= n


def ours(program, path, out):
    began = time.perf_counter()
    child = subprocess.Popen([program, "table", path, "--modes", MODES, "--count", "--out", out],
                             stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        sys.exit(f"nneinfact table ended with {status}")
    return time.perf_counter() - began, usage.ru_maxrss / 1024, usage.ru_utime + usage.ru_stime


def theirs(path, out):
    done = subprocess.run([sys.executable, "-c", PANDAS, path, out], check=True, capture_output=True, text=True)
    found = json.loads(done.stdout)
    return found["seconds"], found["mib"], found["used"]


def entries(path):
    """Coordinates and values, in the order of the coordinates."""
    with np.load(path) as file:
        coords, values = file["coords"].astype(np.int64), file["values"].astype(float)
    order = np.lexsort(coords[::-1])
    return np.vstack([coords[:, order], values[order]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--program", required=True)
    parser.add_argument("--rows", default="1000000")
    parser.add_argument("--gzip", action="store_true")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--keep", type=pathlib.Path)
    args = parser.parse_args()
    print(f"{'rows':>10} {'here, s':>8} {'rows/s':>9} {'cpu, s':>7} {'MiB':>6} "
          f"{'pandas, s':>10} {'rows/s':>9} {'cpu, s':>7} {'MiB':>6} {'ratio':>6}")
    for rows in map(int, args.rows.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder)
            made = (args.keep or folder) / f"rides-{rows}.csv{'.gz' if args.gzip else ''}"
            if not made.exists():
                make(made, rows, args.gzip)
            path = str(made)
            pairs = []
            for pair in range(args.pairs):
                a = ours(args.program, path, str(folder / "ours.npz"))
                b = theirs(path, str(folder / "theirs.npz") if pair == 0 else "-")
                pairs.append((a, b))
            if not np.array_equal(entries(folder / "ours.npz"), entries(folder / "theirs.npz")):
                sys.exit(f"{rows} rows: the tensors differ")
            ratio = statistics.median(b[0] / a[0] for a, b in pairs)
            mid = lambda k, j: statistics.median(pair[k][j] for pair in pairs)
            speed = lambda k: f"{rows / mid(k, 0):9.2e} {mid(k, 2):7.2f} {mid(k, 1):6.0f}"
            print(f"{rows:10} {mid(0, 0):8.2f} {speed(0)} {mid(1, 0):10.2f} {speed(1)} {ratio:6.2f}", flush=True)


if __name__ == "__main__":
    main()
