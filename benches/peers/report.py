"""The table, the plot and one JSON of all cases, from the JSON of each."""

import json
import sys


def number(value, digits=3):
    return f"{value:.{digits}g}" if value < 10 ** digits else f"{value:.0f}"


def table(results):
    lines = ["| problem | peer | its iterations | its loss | its seconds | our seconds to that loss "
             "| our sweeps | ratio | processor seconds, its and ours | ratio | peak MiB, its and ours |",
             "| --- " * 11 + "|"]
    for result in results:
        peer, ours = result["peer"], result["ours"]
        memory = f"{peer['mib']:.0f}, {max(run['mib'] for run in ours):.0f}"
        for goal in result["goals"]:
            if "ratio" in goal:
                ratio = f"{number(goal['ratio'])}×"
                if result["pairs"] > 1:
                    ratio += f" ({' to '.join(map(number, goal['ratios']))})"
                mine = f"{number(goal['our_seconds'])} | {goal['our_sweeps']} | {ratio}"
            else:
                run = min(ours, key=lambda run: run["loss"][-1])
                above = run["loss"][-1] / goal["loss"] - 1
                mine = (f"not reached | {len(run['loss']) - 1} | {100 * above:.2g} % above it "
                        f"after {number(run['seconds'][-1])} s")
            processor = "- | -"
            if "our_processor" in goal:
                its, our = goal["peer_processor"], goal["our_processor"]
                processor = f"{number(its)}, {number(our)} | {number(its / our)}×"
            lines.append(f"| {result['title']} | {peer['version']} | {goal['iterations']} | "
                         f"{goal['loss']:.7g} | {number(goal['peer_seconds'])} | {mine} | "
                         f"{processor} | {memory} |")
    return lines


def beside(results):
    """What is withheld beside what is all observed: the ratios of the cases that have both."""
    found = {result["case"]: result for result in results}
    lines = []
    for name, whole in found.items():
        split = found.get(f"{name}-splits")
        for goal in whole["goals"] if split else []:
            other = next((one for one in split["goals"] if one["iterations"] == goal["iterations"]), None)
            if other and "ratio" in goal and "ratio" in other:
                cells = (f"{number(one['peer_seconds'])} and {number(one['our_seconds'])} s | "
                         f"{number(one['ratio'])}×" for one in (goal, other))
                lines.append(f"| `{name}`, {goal['iterations']} | {' | '.join(cells)} |")
    head = ["| case, its iterations | all observed: its and our time | ratio | 10 % + 5 % withheld: its and our "
            "time | ratio |", "| --- | --- | --- | --- | --- |"]
    return [*head, *lines, ""] if lines else []


def notes(result):
    """What the table has no room for, and whether what it says holds together."""
    peer, ours = result["peer"], result["ours"]
    lines = [f"- `{result['case']}`{' (--quick: says nothing about speed)' if result['quick'] else ''}"
             f": {result['machine']}, {result['threads']} threads, {result['date']}, "
             f"{result['program']}, `{result['model']}`. Load of "
             f"the machine: {result['load'][0]:.1f} before, {result['load'][1]:.1f} after the peer; "
             "what exceeds its cores was others' and makes seconds worth less."]
    lines.append(f"  Processor seconds of the whole processes: {number(peer['cpu_seconds'])} of the "
                 f"peer, {number(ours[0]['cpu_seconds'])} and {number(ours[-1]['cpu_seconds'])} of "
                 "ours.")
    if "recorded" in peer:
        timed = peer["timed"]
        source = ("those of our `--algorithm block`, the same updates" if peer["replayed"] else
                  f"recorded ({peer['recorded']})")
        lines.append(
            f"  Its losses are {source}; its own of this run's timed iterations ({len(timed['seconds'])}) differ "
            f"from them by {peer['recorded_apart']:.1g} at most. Its seconds are "
            f"{number(peer['seconds_each'])} an iteration in this run.")
    if "told" in peer:
        lines.append(f"  The peer: {peer['told']}.")
    for run in ours:
        sweeps = len(run["loss"]) - 1
        each = (run["seconds"][-1] - run["seconds"][0]) / max(sweeps, 1)
        lines.append(
            f"  Ours ({run['algorithm']}): {number(run['seconds'][0])} s until the start's loss is "
            f"known, then {sweeps} sweeps of {number(1000 * each)} ms to {run['loss'][-1]:.7g}"
            + (f" ({run['loss_recomputed']:.7g} recomputed in double precision)"
               if run["loss_recomputed"] is not None else "")
            + f"; the whole process {number(run['process_seconds'])} s.")
    if "loss_recomputed" in peer:
        when = "its last timed iteration" if "recorded" in peer else "its last iteration"
        logged = peer["timed"]["loss"][-1] if "recorded" in peer else peer["loss"][-1]
        lines.append(f"  After {when} it logs {logged:.7g}; its factors give "
                     f"{peer['loss_recomputed']:.7g}.")
    return lines


def plot(results, out):
    try:
        import matplotlib
    except ImportError:
        print("no matplotlib: no plot", file=sys.stderr)
        return
    matplotlib.use("svg")
    import matplotlib.pyplot as pyplot

    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    figure, axes = pyplot.subplots(rows, columns, figsize=(5 * columns, 4 * rows), squeeze=False)
    for axis in axes.flat[len(results):]:
        axis.remove()
    for axis, result in zip(axes.flat, results):
        peer, run = result["peer"], result["ours"][-1]
        name = peer["version"].split(" (")[0]
        axis.plot(peer["seconds"], peer["loss"], "o-", markersize=3, label=name)
        axis.plot(run["seconds"], run["loss"], label="nneinfact")
        # From the first iteration on: where they start is far above.
        highest = max(peer["loss"][0], run["loss"][min(2, len(run["loss"]) - 1)])
        lowest = min(*peer["loss"], *run["loss"])
        axis.set(xscale="log", yscale="log", xlabel="seconds", ylabel="mean loss")
        axis.set_ylim(lowest * 0.97, highest * 1.1)
        axis.set_title(result["title"].replace(", ", "\n", 1).replace(", rank", "\nrank"),
                       fontsize=9)
        axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(out / "results.svg")
    figure.savefig(out / "results.png", dpi=120)
    pyplot.close(figure)


def write(out, order):
    """Writes results.md, results.json, results.svg and results.png; returns the Markdown."""
    results = [json.loads((out / f"{name}.json").read_text()) for name in order
               if (out / f"{name}.json").exists()]
    if not results:
        return "no results"
    lines = [*table(results), "", *beside(results)]
    for result in results:
        lines += [*notes(result), f"  `{result['command']}`"]
    text = "\n".join(lines) + "\n"
    (out / "results.md").write_text(text)
    (out / "results.json").write_text(json.dumps(results, indent=1))
    plot(results, out)
    return text
