#!/usr/bin/env python3
"""What withheld cells cost the program, from the file and from Python: all cells observed, a tenth held out, and
a twentieth of the others for validation besides. Prints a table.

    python holdouts.py --program target/release/nneinfact --data uber.npz --key Y [--python PYTHON]
    python holdouts.py --program target/release/nneinfact --quick

Every fit is made with two numbers of sweeps; the difference is what sweeps cost, by the clock and by the processor.
The three kinds take turns, so that what else the machine does meets all of them alike. `--python` is an
interpreter that has the package `nneinfact` of the same sources: it fits the same from `numpy.load` on.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent
KINDS = {
    "all observed": {},
    "10 % held out": {"heldout": 0.1},
    "10 % held out, 5 % for validation": {"heldout": 0.1, "validation": 0.05},
}
LOSSES = {"kl": ["--loss", "kl"], "αβ(0.7, 0)": ["--loss", "alpha-beta", "--alpha", "0.7", "--beta", "0"]}

FROM_PYTHON = """
import json, sys
import numpy as np, nneinfact as nn
path, key, model, ranks, loss, sweeps, threads, kind = json.loads(sys.argv[1])
fit = nn.fit(model, np.load(path), ranks, key=key, loss=nn.alpha_beta(0.7, 0.0) if "αβ" in loss else loss,
             max_iter=sweeps, tol=0, threads=threads, device="cpu", progress=False, seed=0, **kind)
print(json.dumps({"loss": fit.loss}))
"""


def measured(command, folder):
    """Seconds, processor seconds and peak memory of a process, and what it prints."""
    usage = Path(folder) / "usage.json"
    done = subprocess.run([sys.executable, str(HERE / "measure.py"), str(usage), *map(str, command)],
                          stdout=subprocess.PIPE, text=True)
    found = json.loads(usage.read_text())
    if found["status"] != 0:
        raise SystemExit(f"failed with {found['status']}: {shlex.join(map(str, command))}")
    return found, done.stdout


def by_program(options, folder, loss, kind, sweeps):
    history = Path(folder) / "history.json"
    ranks = ",".join(f"{letter}={size}" for letter, size in options.ranks.items())
    given = [word for name, value in kind.items() for word in (f"--{name}", value)]
    found, _ = measured(
        [options.program, "fit", options.data, "--key", options.key, "--model", options.model, "--rank", ranks,
         *LOSSES[loss], *given, "--max-iter", sweeps, "--tol", 0, "--threads", options.threads, "--device", "cpu",
         "--seed", 0, "--history", history, "--out", Path(folder) / "out.npz", "--quiet"], folder)
    told = json.loads(history.read_text())
    return found | {"first": told["seconds"][0], "last": told["seconds"][-1], "loss": told["loss"][-1]}


def by_python(options, folder, loss, kind, sweeps):
    given = json.dumps([options.data, options.key, options.model, options.ranks, loss, sweeps, options.threads,
                        kind])
    found, printed = measured([options.python, "-c", FROM_PYTHON, given], folder)
    return found | json.loads(printed)


def row(loss, name, runs, whole):
    """Medians over the turns of one kind; `whole` are the medians with all cells observed, if known."""
    middle = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    times = [f" ({middle[key] / whole[key]:.1f})" if whole else "" for key in ("sweep", "cpu_sweep")]
    python = f"{middle['python']:.2f}" if "python" in middle else "-"
    print(f"| {loss} | {name} | {middle['first']:.2f} | {1000 * middle['sweep']:.2f}{times[0]} "
          f"| {1000 * middle['cpu_sweep']:.1f}{times[1]} | {middle['program']:.2f} | {python} "
          f"| {middle['mib']:.0f} |", flush=True)
    return middle


def turn(options, folder, loss, kind, sweeps):
    short = by_program(options, folder, loss, kind, 2)
    long = by_program(options, folder, loss, kind, sweeps)
    more = sweeps - 2
    found = {"first": long["first"], "sweep": (long["last"] - long["first"]) / sweeps,
             "cpu_sweep": (long["cpu_seconds"] - short["cpu_seconds"]) / more, "program": long["seconds"],
             "mib": long["mib"]}
    if options.python:
        fit = by_python(options, folder, loss, kind, sweeps)
        if fit["loss"] != long["loss"]:
            raise SystemExit(f"{loss}: from Python {fit['loss']!r}, from the program {long['loss']!r}")
        found["python"] = fit["seconds"]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", required=True, help="the nneinfact binary")
    parser.add_argument("--data", help="an .npz with a tensor of five modes, as the Uber pickups")
    parser.add_argument("--key", default="Y", help="the array in it [default: Y]")
    parser.add_argument("--model", default="wr,hr,dr,ikr,jkr->whdij")
    parser.add_argument("--loss", action="append", choices=list(LOSSES), help="may be repeated [default: all]")
    parser.add_argument("--sweeps", type=int, default=40, help="of the long fit [default: 40]")
    parser.add_argument("--turns", type=int, default=3, help="[default: 3]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="[default: all]")
    parser.add_argument("--python", help="an interpreter with the package nneinfact")
    parser.add_argument("--quick", action="store_true", help="a small tensor: shows that all runs")
    options = parser.parse_args()
    options.ranks = {"r": 10, "k": 6}
    with tempfile.TemporaryDirectory() as folder:
        if options.quick:
            options.data, options.turns, options.sweeps = str(Path(folder) / "quick.npz"), 1, 10
            np.savez(options.data, Y=np.random.default_rng(0).poisson(0.1, (6, 7, 5, 20, 18)))
        elif not options.data:
            parser.error("--data, or --quick")
        print(f"{options.sweeps} sweeps, {options.threads} threads, medians of {options.turns}, load "
              f"{os.getloadavg()[0]:.1f} at the start\n")
        print("| loss | cells | until the start's loss is known, s | a sweep, ms (times) | processor, ms (times) "
              "| the whole program, s | from Python, s | peak MiB |\n" + "| --- " * 8 + "|")
        for loss in options.loss or LOSSES:
            runs = {name: [] for name in KINDS}
            for _ in range(options.turns):
                for name, kind in KINDS.items():
                    runs[name].append(turn(options, folder, loss, kind, options.sweeps))
            whole = None
            for name in KINDS:
                middle = row(loss, name, runs[name], whole)
                whole = whole or middle
        print(f"\nload {os.getloadavg()[0]:.1f} at the end")


if __name__ == "__main__":
    main()
