#!/usr/bin/env python3
"""One report of scripts/gpu_check.sh's parts: gpu_report.py FOLDER writes FOLDER/../gpu_report.json and gpu_report.md.

FOLDER holds steps.tsv (step, state, seconds, remark), machine.json, and, where they were run, tweedie.json and torch.json.
"""

import json
import os
import sys


def load(path):
    try:
        with open(path) as file:
            return json.load(file)
    except (OSError, ValueError):
        return None


def step_table(steps):
    lines = ["| step | result | seconds | remark |", "|---|---|---|---|"]
    return lines + [f"| {s['step']} | {s['state']} | {s['seconds']} | {s['remark']} |" for s in steps]


def per_step(row, clock):
    return tuple(1e3 * row[f"{clock}_ms{part}"] / row["steps"] for part in ("", "_min", "_max"))


def time_table(sides):
    """Microseconds a step, all sides and ways of one workload under each other."""
    rows = [(side["side"], row) for side in sides for row in side["rows"]]
    order = {"bf16": 0, "tf32": 1, "bf16x3": 2, "fp32": 3}
    key = lambda r: (r[1]["workload"], r[1]["particles"], order[r[1]["precision"]], per_step(r[1], "device")[0])
    lines = ["| workload | rows | precision | side | how | us a step (events: median, spread) | host clock | TFLOP/s | error |",
             "|---|---|---|---|---|---|---|---|---|"]
    for side, row in sorted(rows, key=key):
        device, host = per_step(row, "device"), per_step(row, "host")
        error = f"{row['error']:.2g}" if "error" in row else ""
        tflops = f"{row['tflops']:.3g}" if "tflops" in row else ""
        lines.append(f"| {row['workload']} | {row['particles']} | {row['precision']} | {side} | {row['how']} | "
                     f"{device[0]:.4g} ({device[1]:.4g} to {device[2]:.4g}) | {host[0]:.4g} | {tflops} | {error} |")
    return lines


def main():
    folder = sys.argv[1]
    machine = load(os.path.join(folder, "machine.json"))
    with open(os.path.join(folder, "steps.tsv")) as file:
        steps = [dict(zip(("step", "state", "seconds", "remark"), line.rstrip("\n").split("\t"))) for line in file]
    sides = [side for side in (load(os.path.join(folder, name)) for name in ("tweedie.json", "torch.json")) if side]
    report = {"machine": machine, "steps": steps, "sides": sides}
    target = os.path.join(folder, os.pardir, "gpu_report")
    with open(target + ".json", "w") as file:
        json.dump(report, file, indent=1)
    lines = ["# GPU check", "", ", ".join(f"{k}: {v}" for k, v in machine.items()), ""] + step_table(steps)
    if sides:
        lines += ["", "## Times", "", f"Medians of {sides[0]['repeats']} runs.", ""] + time_table(sides)
    failed = [f for side in sides for f in side.get("failed", [])]
    if failed:
        lines += ["", "## Ways that PyTorch did not go", ""]
        lines += [f"- {f['workload']}, {f['particles']} rows, {f['precision']}, {f['how']}: {f['why']}" for f in failed]
    with open(target + ".md", "w") as file:
        file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
