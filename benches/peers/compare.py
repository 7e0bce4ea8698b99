#!/usr/bin/env python3
"""nneinfact against what a user would run instead: see README.md beside this file."""

import argparse
import datetime
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import report
from problems import CASES, WITH_SPLITS, Absent

# What ours has not reached in so many times the peer's time is told as not reached.
PATIENCE = 10


def measured(command, folder, threads):
    """Runs a command with so many threads; its seconds and peak MiB."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    usage = Path(folder) / "usage.json"
    process = subprocess.Popen(
        [sys.executable, str(HERE / "measure.py"), str(usage), *map(str, command)],
        start_new_session=True, env={**os.environ, **{name: str(threads) for name in names}})
    try:
        process.wait()
    except BaseException:
        # Interrupted: what is measured must not go on alone.
        os.killpg(process.pid, signal.SIGKILL)
        raise
    found = json.loads(usage.read_text())
    if found["status"] != 0:
        raise SystemExit(f"failed with {found['status']}: {shlex.join(map(str, command))}")
    return found


def run_ours(options, problem, folder, sweeps):
    """A fit by the program; its history, and the loss of its factors as this script computes it."""
    import numpy as np

    history, factors = Path(folder) / "history.json", Path(folder) / "factors.npz"
    ranks = ",".join(f"{letter}={size}" for letter, size in problem.ranks.items())
    usage = measured(
        [options.program, "fit", problem.data, "--model", problem.model, "--rank", ranks,
         *problem.loss, *problem.arguments, "--init", problem.init, "--tol", "0", "--max-iter",
         sweeps, "--threads", options.threads, "--device", options.device, "--history", history, "--out",
         factors, "--quiet", *options.extra], folder, options.threads)
    found = json.loads(history.read_text())
    with np.load(factors) as kept:
        count = problem.model.count(",") + 1
        loss = problem.evaluate([kept[f"theta_{n + 1}"] for n in range(count)])
    return {"loss": found["loss"], "seconds": found["seconds"], "loss_recomputed": loss,
            "process_seconds": usage["seconds"], "cpu_seconds": usage["cpu_seconds"],
            "heldout_loss": found.get("heldout_loss"), "mib": usage["mib"], "device": found["device"],
            "algorithm": found["algorithm"]}


def run_peer(options, problem, folder):
    """The peer's curve in our convention of the loss; where one is recorded, with its losses, and
    with the seconds that its iterations take now."""
    import numpy as np

    points = sorted({*options.goals, *(n for n in problem.points if n < options.goals[-1])})
    if problem.curve:
        points = [options.iterations]
    settings = {**problem.settings, "data": problem.data, "init": problem.init,
                "model": problem.model, "ranks": problem.ranks, "folder": str(folder),
                "threads": options.threads, "iterations": points,
                "device": "cpu" if options.device == "cpu" else "cuda"}
    (Path(folder) / "settings.json").write_text(json.dumps(settings))
    usage = measured([sys.executable, HERE / "runners.py", problem.runner,
                      Path(folder) / "settings.json"], folder, options.threads)
    found = json.loads((Path(folder) / "peer.json").read_text())
    found |= {"mib": usage["mib"], "process_seconds": usage["seconds"],
              "cpu_seconds": usage["cpu_seconds"]}

    def evaluated(iterations):
        with np.load(Path(folder) / f"peer_{iterations}.npz") as kept:
            return problem.evaluate([kept[f"theta_{n + 1}"] for n in range(len(kept.files))])

    if "loss" in found:
        found["loss_recomputed"] = evaluated(found["iterations"][-1])
    else:
        found["loss"] = [evaluated(iterations) for iterations in found["iterations"]]
    if problem.curve:
        recorded = dict(zip(problem.curve["iteration"], problem.curve["loss"]))
        apart = max(abs(loss / recorded[iteration] - 1)
                    for iteration, loss in zip(found["iterations"], found["loss"]))
        # The first iteration logs no loss within its time, so it is left out where there are more.
        times = found["seconds"]
        each = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else times[0]
        found |= {"timed": {"iterations": found["iterations"], "seconds": times,
                            "loss": found["loss"]},
                  "seconds_each": each, "recorded": problem.curve_from,
                  "recorded_apart": apart, "iterations": problem.curve["iteration"],
                  "loss": problem.curve["loss"],
                  "seconds": [each * n for n in problem.curve["iteration"]]}
    return found


def reached(run, goal):
    """The seconds and sweeps after which a loss is first reached, if it is."""
    return next(((seconds, sweep) for sweep, (loss, seconds)
                 in enumerate(zip(run["loss"], run["seconds"])) if loss <= goal), None)


def compare(options, name, folder):
    if options.splits and name not in WITH_SPLITS:
        raise Absent("--splits: this peer leaves no cells out")
    problem = CASES[name](options, folder)
    if options.device != "cpu" and problem.runner != "einfact":
        raise Absent(f"--device {options.device}: this peer runs on the CPU alone")
    print(f"{name}: {problem.title}", file=sys.stderr, flush=True)
    load = [os.getloadavg()[0]]
    # Ours runs before and after the peer, and the slower of the two counts.
    sweeps = options.sweeps or problem.sweeps
    before = run_ours(options, problem, folder, sweeps)
    peer = run_peer(options, problem, folder)
    last = peer["iterations"][-1]
    wanted = sorted({*(n for n in options.goals if n <= last), last})
    goals = [{"iterations": n, "loss": peer["loss"][peer["iterations"].index(n)],
              "peer_seconds": peer["seconds"][peer["iterations"].index(n)]} for n in wanted]
    after = run_ours(options, problem, folder, sweeps)
    load.append(os.getloadavg()[0])
    lowest = min(goal["loss"] for goal in goals)
    while not options.sweeps and min(after["loss"]) > lowest:
        affordable = PATIENCE * peer["seconds"][-1] / after["seconds"][-1] * sweeps
        if affordable < 1.1 * sweeps:
            break
        sweeps = int(min(2 * sweeps, affordable))
        after = run_ours(options, problem, folder, sweeps)
    for goal in goals:
        runs = [found for found in (reached(run, goal["loss"]) for run in (before, after)) if found]
        if runs:
            seconds, sweep = max(runs)
            goal |= {"our_seconds": seconds, "our_sweeps": sweep,
                     "ratio": goal["peer_seconds"] / seconds}
    return {"case": name, "title": problem.title, "model": problem.model, "machine": machine(),
            "device": options.device, "threads": options.threads, "load": load, "date": datetime.date.today().isoformat(),
            "quick": options.quick, "splits": options.splits, "command": shlex.join(["compare.py", *sys.argv[1:]]),
            "program": version(options.program), "peer": peer, "ours": [before, after],
            "goals": goals}


def version(program):
    return subprocess.run([program, "--version"], stdout=subprocess.PIPE, text=True,
                          check=True).stdout.strip()


def machine():
    model = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo")
                 if line.startswith("model name")]
        model = names[0] if names else model
    return f"{model}, {os.cpu_count()} cores, {platform.system()}"


def numbers(text):
    found = tuple(sorted({int(part) for part in text.split(",")}))
    if found[0] < 1:
        raise ValueError("iterations are counted from 1")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", help="the nneinfact binary")
    parser.add_argument("--only", default=",".join(CASES), metavar="CASE,…",
                        help=f"the cases to run: {', '.join(CASES)} [default: all]")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="[default: all]")
    parser.add_argument("--device", default="cpu", metavar="NAME",
                        help="what `nneinfact fit` runs on; with anything but cpu, einfact.py runs "
                             "on CUDA's first device and the other peers are left out "
                             "[default: cpu]")
    parser.add_argument("--einfact", metavar="PATH", help="the authors' einfact.py")
    parser.add_argument("--comm", metavar="FOLDER", help="a checkout of CoMM")
    parser.add_argument("--uber", metavar="FILE.npz", help="the Uber tensor, as its array Y")
    parser.add_argument("--start", metavar="FILE.npz",
                        help="the start of the recorded curves, as theta_1 to theta_5 [default: "
                             "reference_uber_kl_init.npz beside the tensor]")
    parser.add_argument("--curves", metavar="FOLDER",
                        help="recorded curves of einfact.py, as reference_uber_LOSS.csv [default: "
                             "data beside this script, then beside the tensor]")
    parser.add_argument("--iterations", type=int, default=3, metavar="N",
                        help="how many iterations to time where a curve is recorded [default: 3]")
    parser.add_argument("--goals", type=numbers, metavar="N,…",
                        help="the peer's iterations whose loss is the goal [default: 50,100,200, "
                             "with --quick 5,10,20]")
    parser.add_argument("--sweeps", type=int, metavar="N",
                        help="run so many sweeps of ours [default: as many as reach the last goal]")
    parser.add_argument("--extra", type=shlex.split, default=[], metavar="ARGUMENTS",
                        help="more arguments for `nneinfact fit`, as one string")
    parser.add_argument("--splits", action="store_true",
                        help="withhold a tenth of the cells, and a twentieth of the others for "
                             "validation, on both sides; peers that cannot are left out, and results "
                             "stand beside those with all cells observed")
    parser.add_argument("--quick", action="store_true",
                        help="small problems: shows that all runs, says nothing about speed")
    parser.add_argument("--out", default="peers", metavar="FOLDER",
                        help="where results go; those of earlier runs in it stay in the table "
                             "[default: peers]")
    options = parser.parse_args()
    options.goals = options.goals or ((5, 10, 20) if options.quick else (50, 100, 200))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    absent = False
    if options.program:
        options.program = str(Path(options.program).resolve())
        names = options.only.split(",")
        unknown = [name for name in names if name not in CASES]
        if unknown:
            parser.error(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
        for name in names:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    found = compare(options, name, Path(folder))
            except Absent as missing:
                absent = True
                print(f"{name}: not run. {missing}", file=sys.stderr, flush=True)
                continue
            file = f"{name}-splits.json" if options.splits else f"{name}.json"
            (out / file).write_text(json.dumps(found, indent=1))
    elif not list(out.glob("*.json")):
        parser.error("give --program, the nneinfact binary (without it, the table and the plot of "
                     "what is in --out are written again, and nothing is there)")
    print(report.write(out, [kind for name in CASES for kind in (name, f"{name}-splits")]))
    return 2 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
