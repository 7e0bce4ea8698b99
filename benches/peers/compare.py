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
from cases import CASES
from problems import Absent
from uber import read_curve

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


def evaluated(problem, file):
    """The loss of the factors in a file, as these scripts compute it."""
    import numpy as np

    with np.load(file) as kept:
        return problem.evaluate([kept[f"theta_{n + 1}"] for n in range(problem.model.count(",") + 1)])


def run_ours(options, problem, folder, sweeps, *more, check=False):
    """A fit by the program; its history, and with `check` the loss of its factors as this script computes it."""
    history, factors = Path(folder) / "history.json", Path(folder) / "factors.npz"
    ranks = ",".join(f"{letter}={size}" for letter, size in problem.ranks.items())
    usage = measured(
        [options.program, "fit", problem.data, "--model", problem.model, "--rank", ranks,
         *problem.loss, *problem.arguments, "--init", problem.init, "--tol", "0", "--max-iter",
         sweeps, "--threads", options.threads, "--device", options.device, "--history", history, "--out",
         factors, "--quiet", *options.extra, *more], folder, options.threads)
    found = json.loads(history.read_text())
    return {"loss": found["loss"], "seconds": found["seconds"],
            "loss_recomputed": evaluated(problem, factors) if check else None, "process_seconds": usage["seconds"], "cpu_seconds": usage["cpu_seconds"],
            "heldout_loss": found.get("heldout_loss"), "mib": usage["mib"], "device": found["device"],
            "algorithm": found["algorithm"]}


def replay(options, problem, folder):
    """Makes the curve of the authors' code by our `--algorithm block`, whose updates are the same ones: it takes
    a minute where that code takes an hour. How far its timed iterations are from the curve is told."""
    run = run_ours(options, problem, folder, options.goals[-1], "--algorithm", "block")
    lines = [f"{n},{loss!r}" for n, loss in enumerate(run["loss"]) if n > 0]
    file = (Path(folder) if options.quick else Path(options.out)) / f"{problem.curve_name}_replayed.csv"
    file.write_text("\n".join([
        f"# our --algorithm block ({version(options.program)}), which makes the updates of the authors' code, "
        "from the same start; loss: after whole iterations", "iteration,loss", *lines, ""]))
    problem.curve, problem.curve_from, problem.replayed = read_curve(file), file.name, True


def run_peer(options, problem, folder):
    """The peer's curve in our convention of the loss; where one is recorded, with its losses, and
    with the seconds that its iterations take now."""
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
    if "loss" in found:
        last = found["iterations"][-1]
        found["loss_recomputed"] = evaluated(problem, Path(folder) / f"peer_{last}.npz")
    else:
        found["loss"] = [evaluated(problem, Path(folder) / f"peer_{n}.npz") for n in found["iterations"]]
    return along_curve(problem, found) if problem.curve else found


def along_curve(problem, found):
    """A few timed iterations, continued by the losses of the curve and the seconds that each takes."""
    recorded = dict(zip(problem.curve["iteration"], problem.curve["loss"]))
    losses = dict(zip(found["iterations"], found["loss"]))
    if problem.replayed:
        # It logs its loss within an iteration; the curve's are of whole ones.
        losses = {found["iterations"][-1]: found["loss_recomputed"]}
    apart = max(abs(loss / recorded[iteration] - 1) for iteration, loss in losses.items())
    # The first iteration logs no loss within its time, so it is left out where there are more.
    times = found["seconds"]
    each = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else times[0]
    if "processor" in found:
        used = found["processor"]
        used = (used[-1] - used[0]) / (len(used) - 1) if len(used) > 1 else used[0]
        found["processor"] = [used * n for n in problem.curve["iteration"]]
    return found | {
        "timed": {"iterations": found["iterations"], "seconds": times, "loss": found["loss"]},
        "seconds_each": each, "recorded": problem.curve_from, "replayed": problem.replayed,
        "recorded_apart": apart, "iterations": problem.curve["iteration"], "loss": problem.curve["loss"],
        "seconds": [each * n for n in problem.curve["iteration"]]}


def reached(run, goal):
    """The seconds and sweeps after which a loss is first reached, if it is."""
    return next(((seconds, sweep) for sweep, (loss, seconds)
                 in enumerate(zip(run["loss"], run["seconds"])) if loss <= goal), None)


def enough_sweeps(options, problem, folder, peer, goals, run, sweeps):
    """How many sweeps of ours reach the last goal, if any do in a multiple of the peer's time, found by trying."""
    lowest = min(goal["loss"] for goal in goals)
    while not options.sweeps and min(run["loss"]) > lowest:
        affordable = PATIENCE * peer["seconds"][-1] / run["seconds"][-1] * sweeps
        if affordable < 1.1 * sweeps:
            break
        sweeps = int(min(2 * sweeps, affordable))
        run = run_ours(options, problem, folder, sweeps)
    return sweeps, run


def judge(goal, peers, ours):
    """The median of the ratios of all pairs, and what belongs to it. A run of the peer stands between two of
    ours, of which the slower counts."""
    pairs = []
    for at, peer in enumerate(peers):
        runs = [found for found in (reached(run, goal["loss"]) for run in ours[at : at + 2]) if found]
        if runs:
            seconds, sweep = max(runs)
            its = peer["seconds"][peer["iterations"].index(goal["iterations"])]
            pairs.append((its / seconds, its, seconds, sweep))
    if pairs:
        ratios = sorted(pair[0] for pair in pairs)
        middle = sorted(pairs)[(len(pairs) - 1) // 2]
        goal |= {"ratio": middle[0], "peer_seconds": middle[1], "our_seconds": middle[2],
                 "our_sweeps": middle[3], "ratios": [ratios[0], ratios[-1]]}


def compare(options, name, folder):
    problem = CASES[name](options, folder)
    if options.device != "cpu" and problem.runner != "einfact":
        raise Absent(f"--device {options.device}: this peer runs on the CPU alone")
    options.goals = options.given_goals or (problem.quick_goals if options.quick else problem.goals)
    print(f"{name}: {problem.title}", file=sys.stderr, flush=True)
    if problem.runner == "einfact" and not problem.curve and not options.record:
        replay(options, problem, folder)
    if options.prepare:
        return None
    load = [os.getloadavg()[0]]
    sweeps = options.sweeps or (min(problem.sweeps, 30) if options.quick else problem.sweeps)
    ours, peers = [run_ours(options, problem, folder, sweeps, check=True)], []
    for _ in range(options.pairs):
        peers.append(run_peer(options, problem, folder))
        ours.append(run_ours(options, problem, folder, sweeps))
        if len(peers) == 1:
            peer = peers[0]
            last = peer["iterations"][-1]
            wanted = sorted({*(n for n in options.goals if n <= last), min(last, options.goals[-1])})
            goals = [{"iterations": n, "loss": peer["loss"][peer["iterations"].index(n)],
                      "peer_seconds": peer["seconds"][peer["iterations"].index(n)]} for n in wanted]
            sweeps, ours[-1] = enough_sweeps(options, problem, folder, peer, goals, ours[-1], sweeps)
    load.append(os.getloadavg()[0])
    for goal in goals:
        judge(goal, peers, ours)
        if "ratio" in goal and "processor" in peer:
            goal["peer_processor"] = peer["processor"][peer["iterations"].index(goal["iterations"])]
            goal["our_processor"] = run_ours(options, problem, folder, goal["our_sweeps"])["cpu_seconds"]
    return {"case": name, "title": problem.title, "model": problem.model, "machine": machine(),
            "device": options.device, "threads": options.threads, "load": load, "date": datetime.date.today().isoformat(),
            "quick": options.quick, "splits": name.endswith("-splits"), "pairs": options.pairs,
            "command": shlex.join(["compare.py", *sys.argv[1:]]), "program": version(options.program),
            "peer": peer, "ours": ours, "goals": goals}


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


def chosen(options):
    """The cases that are asked for; with --splits those of them with cells withheld, and no others."""
    names = options.only.split(",") if options.only else list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise ValueError(f"no case {', '.join(unknown)}; there are {', '.join(CASES)}")
    if options.splits:
        names = [name if name.endswith("-splits") else f"{name}-splits" for name in names]
        names = list(dict.fromkeys(name for name in names if name in CASES))
        if not names:
            raise ValueError("--splits: the peers of these cases leave no cells out")
    return names


def numbers(text):
    found = tuple(sorted({int(part) for part in text.split(",")}))
    if found[0] < 1:
        raise ValueError("iterations are counted from 1")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", help="the nneinfact binary")
    parser.add_argument("--only", metavar="CASE,…",
                        help=f"the cases to run: {', '.join(CASES)} [default: all]")
    parser.add_argument("--pairs", type=int, default=1, metavar="N",
                        help="run the peer so many times, and ours before it, between and after; the table has "
                             "the median of the ratios, and their range [default: 1]")
    parser.add_argument("--prepare", action="store_true",
                        help="make the curves that are not recorded, and measure nothing: before the machine is "
                             "quiet")
    parser.add_argument("--record", action="store_true",
                        help="run einfact.py to the last goal, and record its curve in --out: an hour or more")
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
                        help="recorded curves of einfact.py, as reference_uber_LOSS.csv or "
                             "reference_uber_LOSS_splits.csv [default: data beside this script, then beside the "
                             "tensor; else our --algorithm block makes one, in --out]")
    parser.add_argument("--iterations", type=int, default=3, metavar="N",
                        help="how many iterations of einfact.py to time, unless --record [default: 3]")
    parser.add_argument("--goals", type=numbers, metavar="N,…",
                        help="the peer's iterations whose loss is the goal [default: the case's own]")
    parser.add_argument("--sweeps", type=int, metavar="N",
                        help="run so many sweeps of ours [default: as many as reach the last goal]")
    parser.add_argument("--extra", type=shlex.split, default=[], metavar="ARGUMENTS",
                        help="more arguments for `nneinfact fit`, as one string")
    parser.add_argument("--splits", action="store_true",
                        help="of the cases only those that withhold a tenth of the cells, and a twentieth of the "
                             "others for validation, on both sides (uber-kl-splits for uber-kl)")
    parser.add_argument("--quick", action="store_true",
                        help="small problems: shows that all runs, says nothing about speed")
    parser.add_argument("--out", default="peers", metavar="FOLDER",
                        help="where results go; those of earlier runs in it stay in the table "
                             "[default: peers]")
    options = parser.parse_args()
    options.given_goals = options.goals
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    absent = False
    if options.program:
        options.program = str(Path(options.program).resolve())
        try:
            names = chosen(options)
        except ValueError as error:
            parser.error(str(error))
        if options.pairs < 1:
            parser.error("--pairs: at least 1")
        for name in names:
            try:
                with tempfile.TemporaryDirectory() as folder:
                    found = compare(options, name, Path(folder))
            except Absent as missing:
                absent = True
                print(f"{name}: not run. {missing}", file=sys.stderr, flush=True)
                continue
            if found:
                (out / f"{name}.json").write_text(json.dumps(found, indent=1))
    elif not list(out.glob("*.json")):
        parser.error("give --program, the nneinfact binary (without it, the table and the plot of "
                     "what is in --out are written again, and nothing is there)")
    print(report.write(out, CASES))
    return 2 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
