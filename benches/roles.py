#!/usr/bin/env python3
"""What a hold-out costs a dense pass, under every loss: roles.py PROGRAM

Made-up counts of 200 x 200 x 200 entries, CP of rank 10, grouped sweeps of one thread, data as dense:
processor seconds of a sweep with all entries observed, and with a tenth held out, by the difference of a
long run and a short one, the best of three of each in alternation. The aim is a ratio of at most 1.3.
"""

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

import numpy as np

SHORT, LONG = 2, 8
LOSSES = {
    "kl": [], "euclidean": [], "itakura-saito": [], "hellinger": [], "reverse-kl": [], "neyman": [],
    "pearson": [], "jensen-shannon": [], "alpha": ["--alpha", "0.4"], "beta": ["--beta", "1.5"],
    "alpha-beta (0.7, 0)": ["--alpha", "0.7", "--beta", "0"],
    "alpha-beta (1.3, 1)": ["--alpha", "1.3", "--beta", "1"],
    "negative-binomial": ["--dispersion", "2"], "geometric": [], "bernoulli": [], "binomial": ["--trials", "1"],
}
# Those whose data have to be above 0.
POSITIVE = ("itakura-saito", "reverse-kl", "neyman")


def processor_seconds(command):
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    problem = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(map(str, command))}\n{problem}")
    return usage.ru_utime


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("program", help="the nneinfact binary")
    parser.add_argument("--only", default="", help="a part of the names of losses")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    random = np.random.default_rng(1)
    rates = np.einsum("ir,jr,kr->ijk", *[random.gamma(0.5, 1.0, (200, 4)) for _ in range(3)])
    counts = random.poisson(rates).clip(0, 200).astype(np.uint8)
    print("| loss | all observed | a tenth held out | ratio |\n| --- | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder:
        data = {"counts": counts, "positive": counts.clip(1), "bits": counts.clip(0, 1)}
        for name, array in data.items():
            np.save(Path(folder) / f"{name}.npy", array)
        for label, parameters in LOSSES.items():
            if options.only not in label:
                continue
            loss = label.split(" ")[0]
            kind = ("bits" if loss in ("bernoulli", "binomial") else
                    "positive" if loss in POSITIVE else "counts")
            command = [options.program, "fit", Path(folder) / f"{kind}.npy", "--model", "ir,jr,kr->ijk",
                       "--rank", "r=10", "--loss", loss, *parameters, "--algorithm", "grouped",
                       "--data-as", "dense", "--device", "cpu", "--threads", "1", "--tol", "0", "--quiet",
                       "--out", Path(folder) / "out.npz"]
            best = {}
            for _ in range(options.repeats):
                for held_out in ([], ["--heldout", "0.1"]):
                    for sweeps in (SHORT, LONG):
                        key = (bool(held_out), sweeps)
                        seconds = processor_seconds([*command, *held_out, "--max-iter", str(sweeps)])
                        best[key] = min(seconds, best.get(key, seconds))
            sweep = [(best[held_out, LONG] - best[held_out, SHORT]) / (LONG - SHORT)
                     for held_out in (False, True)]
            print(f"| {label} | {1e3 * sweep[0]:.1f} ms | {1e3 * sweep[1]:.1f} ms | "
                  f"{sweep[1] / sweep[0]:.2f} |", flush=True)


if __name__ == "__main__":
    main()
