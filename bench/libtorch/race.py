#!/usr/bin/env python3
"""race.py - runs the two programs of the comparison with LibTorch in alternation, keeps the record and writes the table.

  bench/libtorch/race.py --build build/libtorch            results.json there, the tables on stdout
  --quick           two rounds instead of five, Q1 with a tenth of its steps (no quality is claimed then)
  --threads 1,2     thread counts; a process is pinned to as many cores (--cores 0,1 names them)
  --clock cpu       the processor time of the process instead of the time on the wall: for a machine that others use too
                    (one thread only: a second thread that waits would count as work)
  --only S1,S2      some workloads
  --q1-seeds 10     seeds of the run to quality, 0 for none; --q1-steps N
  --write-readme    also puts the table between its marks into README.md
  --tables          only writes the tables of an earlier results.json

A round takes the workloads in turn and for each the three sides, each in a process of its own, beginning with another side every
time. A process warms up with one run and times a few; the table shows the median of all and half the distance of the 10th and the
90th percentile. Standard library only.
SPDX-License-Identifier: MIT
"""
import argparse
import datetime
import json
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys

SIDES = ["tweedie", "best", "eager"]
NAMES = {"tweedie": "tweedie", "best": "LibTorch at its best", "eager": "LibTorch as written"}
WHAT = {
    "T1": "training step, width 256, batch 128",
    "T2": "training step, width 256, batch 4096",
    "T3/128": "training step, width 128, batch 512",
    "T3/64": "training step, width 64, batch 512",
    "S1": "annealed Langevin step, 16384 particles",
    "S1/bf16": "the same in bf16, state and normals in fp32",
    "S2": "annealed Langevin step, 256 particles",
    "S3": "annealed Langevin step, one particle",
    "S4/64": "EDM Heun evaluation, D = 64, width 512, 6 layers, 256 rows",
    "S4/784": "EDM Heun evaluation, D = 784, width 512, 6 layers, 256 rows",
    "L1": "log-density of a row, exact trace, RK45 1e-5, fp64",
    "N/2": "normal number, rows of 2",
    "N/64": "normal number, rows of 64",
}
MARKS = ("<!-- compare_libtorch: begin -->", "<!-- compare_libtorch: end -->")


class Race:
    def __init__(self, options):
        self.options = options
        self.programs = pathlib.Path(options.build) / "bench" / "libtorch"
        self.models = pathlib.Path(options.build) / "models"
        self.cores = options.cores.split(",") if options.cores else [str(c) for c in sorted(os.sched_getaffinity(0))]

    def call(self, side, command, threads, **values):
        """One process, pinned to `threads` cores; its line of JSON."""
        line = ["taskset", "-c", ",".join(self.cores[:threads])]
        line.append(str(self.programs / ("compare_tweedie" if side == "tweedie" else "compare_libtorch")))
        line += [command, "--threads", str(threads)]
        if side != "tweedie":
            line += ["--style", side]
        for name, value in values.items():
            line += ["--" + name, str(value)]
        done = subprocess.run(line, capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(f"{' '.join(line)}\nexit code {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def agree(self):
        done = subprocess.run([str(self.programs / "compare_libtorch"), "agree", "--threads", "1", "--models", str(self.models)],
                              capture_output=True, text=True)
        print(done.stdout, flush=True)
        if done.returncode != 0:
            sys.exit("the two sides do not compute the same; nothing is timed " + done.stderr)
        return done.stdout.splitlines()

    def measure(self, workloads):
        """After each round: how many are done, and all records so far."""
        records = {}
        for round_number in range(self.options.rounds):
            for threads in self.options.threads:
                for workload in workloads:
                    if threads > 1 and (workload.startswith("N/") or workload == "S3"):
                        continue  # a draw per core; one particle has no second thread's work
                    for turn in range(len(SIDES)):
                        side = SIDES[(turn + round_number) % len(SIDES)]
                        result = self.call(side, "time", threads, workload=workload, repeats=self.options.repeats, models=self.models)
                        record = records.setdefault((threads, workload, side), {"wall": [], "cpu": [], "how": []})
                        record["wall"] += result["wall"]
                        record["cpu"] += result["cpu"]
                        record["nfe"], record["unit"] = result["nfe"], result["unit"]
                        if result["how"] not in record["how"]:
                            record["how"].append(result["how"])
            print(f"round {round_number + 1} of {self.options.rounds}", file=sys.stderr, flush=True)
            yield round_number + 1, records

    def quality(self):
        """Time to quality: seconds of training per seed and side, the KL of what came out by our likelihood."""
        runs = []
        for seed in range(1, self.options.q1_seeds + 1):
            for turn in range(len(SIDES)):
                side = SIDES[(turn + seed) % len(SIDES)]
                out = self.models / f"q1_{side}.safetensors"
                trained = self.call(side, "q1", 1, seed=seed, steps=self.options.q1_steps, models=self.models, out=out)
                kl = self.call("tweedie", "kl", 1, model=out, rows=2000 if self.options.quick else 10000)
                out.unlink()
                runs.append({"seed": seed, "side": side, **trained, **kl})
                print(f"Q1 seed {seed} {side}: {trained['seconds']:.1f} s, KL {kl['kl']:.4f} +- {kl['standard_error']:.4f}",
                      file=sys.stderr, flush=True)
        return runs


def machine():
    with open("/proc/cpuinfo", encoding="utf8") as f:
        info = dict(re.findall(r"^(vendor_id|model name|cpu family|model|stepping)\s*: (.*)$", f.read(), re.M))
    return {"cpu": info.get("model name", "unknown"), "family": info.get("cpu family"), "model": info.get("model"),
            "cores": os.cpu_count()}


def library_sizes(build, torch_lib):
    """Bytes: our archive stripped, a whole static program, and LibTorch's shared libraries."""
    build = pathlib.Path(build)
    stripped = build / "libtweedie_stripped.a"
    shutil.copy(build / "libtweedie.a", stripped)
    subprocess.run(["strip", "--strip-unneeded", str(stripped)], check=True)
    names = ["libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libtorch.so"]
    return {"libtweedie.a, stripped": stripped.stat().st_size,
            "minimal_sampler, static and stripped": (build / "bench/libtorch/minimal_sampler").stat().st_size,
            **{n: (pathlib.Path(torch_lib) / n).stat().st_size for n in names if (pathlib.Path(torch_lib) / n).exists()}}


def seconds(value):
    for unit, scale in (("s", 1), ("ms", 1e-3), ("us", 1e-6), ("ns", 1e-9)):
        if value >= scale or unit == "ns":
            return f"{value / scale:.3g} {unit}"


def summary(times):
    ordered = sorted(times)
    quantile = lambda q: ordered[round(q * (len(ordered) - 1))]
    median = statistics.median(ordered)
    return median, (quantile(.9) - quantile(.1)) / 2 / median


def rows_of(results, threads):
    """Lines of one table: workload, the three sides' times, the two ratios, the errors."""
    clock = results["clock"]
    timed = {(m["threads"], m["workload"], m["side"]): m for m in results["measurements"]}
    for workload, text in WHAT.items():
        if (threads, workload, "tweedie") not in timed:
            continue
        medians, cells = {}, []
        for side in SIDES:
            median, spread = summary(timed[threads, workload, side][clock])
            medians[side] = median
            cells.append(f"{seconds(median)} ± {100 * spread:.0f}%")
        ratios = [f"{medians[side] / medians['tweedie']:.2f}" for side in ("best", "eager")]
        errors = [results["errors"].get(f"{workload} {side}") for side in SIDES]
        shown = "-" if None in errors else " / ".join(f"{e:.1e}" for e in errors)
        yield [workload, text, *cells, *ratios, shown]


def quality_row(results):
    runs = results["q1"]
    by_side = {side: [r for r in runs if r["side"] == side] for side in SIDES}
    if not runs or results["quick"]:
        return None
    clock = "seconds" if results["clock"] == "wall" else "cpu"
    medians = {side: statistics.median(r[clock] for r in by_side[side]) for side in SIDES}
    kl = " / ".join(f"{statistics.mean(r['kl'] for r in by_side[side]):.4f}" for side in SIDES)
    steps = runs[0]["steps"]
    return ["Q1", f"from nothing to KL {kl} nats, {steps} steps, {len(by_side['tweedie'])} seed(s)",
            *(seconds(medians[s]) for s in SIDES), *(f"{medians[s] / medians['tweedie']:.2f}" for s in ("best", "eager")), "-"]


def evaluations_line(results):
    """Network evaluations a sample or row, which are equal where both sides take the same steps."""
    nfe = {}
    for m in results["measurements"]:
        if m["nfe"] > 1:
            nfe.setdefault(m["workload"], {})[m["side"]] = m["nfe"]
    parts = []
    for workload, sides in nfe.items():
        same = len(set(sides.values())) == 1
        parts.append(f"{workload} {sides['tweedie']:.0f} on both sides" if same else
                     f"{workload} " + ", ".join(f"{sides[side]:.0f} ({NAMES[side]})" for side in SIDES))
    return "Network evaluations a sample in one timed run: " + "; ".join(parts) + "." if parts else ""


def tables(results):
    m, torch = results["machine"], results["libtorch"]
    lines = [f"{m['cpu']} (family {m['family']}, model {m['model']}), {m['cores']} cores, {results['tweedie']['peak_gflops_of_a_core']:.0f} GFLOP/s of {results['tweedie']['target']} "
             f"fp32 multiply-adds each; LibTorch {torch['version']} from the wheel "
             f"({torch['capability']}), {results['date']}. Median ± half the 10-90% distance of {results['repeats']} runs, "
             + ("time on the wall" if results["clock"] == "wall" else "processor time")
             + "; both sides pinned, in alternation, random numbers inside the loop. fp32 unless said."
             + (" A quick run, to be repeated." if results["quick"] else "")]
    for threads in results["thread_counts"]:
        lines += ["", f"**{threads} thread{'s' if threads > 1 else ''}**", "",
                  "| | what | tweedie | LibTorch at its best | LibTorch as written | best / ours | written / ours | error against fp64: ours / best / written |",
                  "|---|---|---|---|---|---|---|---|"]
        lines += ["| " + " | ".join(row) + " |" for row in rows_of(results, threads)]
        if threads == 1 and quality_row(results):
            lines.append("| " + " | ".join(quality_row(results)) + " |")
    if evaluations_line(results):
        lines += ["", evaluations_line(results)]
    sizes = results["sizes"]
    mib = lambda n: f"{n / 2**20:.1f} MiB"
    if sizes:
        lines += ["", "Sizes: " + ", ".join(f"`{name}` {mib(size)}" for name, size in sizes.items()) + "."]
    return lines


def write_readme(path, lines):
    text = path.read_text(encoding="utf8")
    if text.count(MARKS[0]) != 1 or text.count(MARKS[1]) != 1:
        sys.exit(f"{path}: the marks '{MARKS[0]}' and '{MARKS[1]}' must stand there once each")
    head, rest = text.split(MARKS[0])
    tail = rest.split(MARKS[1])[1]
    path.write_text(head + MARKS[0] + "\n" + "\n".join(lines) + "\n" + MARKS[1] + tail, encoding="utf8")


def main():
    parser = argparse.ArgumentParser(description="tweedie against LibTorch; see the head of this file")
    parser.add_argument("--build", default="build/libtorch")
    parser.add_argument("--torch-lib", default="", help="folder of libtorch_cpu.so, for the sizes")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--cores", default="")
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--q1-seeds", type=int, default=1)
    parser.add_argument("--q1-steps", type=int, default=6000)
    parser.add_argument("--write-readme", action="store_true")
    parser.add_argument("--tables", action="store_true")
    options = parser.parse_args()
    out = pathlib.Path(options.build) / "results.json"
    readme = pathlib.Path(__file__).resolve().parents[2] / "README.md"
    if not options.tables:
        race(options, out)
    lines = tables(json.loads(out.read_text(encoding="utf8")))
    print("\n".join(lines))
    if options.write_readme:
        write_readme(readme, lines)


def race(options, out):
    options.threads = [int(t) for t in options.threads.split(",")]
    if options.clock == "cpu" and options.threads != [1]:
        sys.exit("--clock cpu measures one thread only: add --threads 1")
    if options.quick:
        options.rounds, options.repeats, options.q1_steps = 2, 3, options.q1_steps // 10
    workloads = options.only.split(",") if options.only else list(WHAT)
    unknown = [w for w in workloads if w not in WHAT]
    if unknown:
        sys.exit(f"--only: {', '.join(unknown)} unknown; there are {', '.join(WHAT)}")
    r = Race(options)
    if len(r.cores) < max(options.threads):
        sys.exit(f"--threads {max(options.threads)}: only the cores {','.join(r.cores)} may be used")
    if not (r.models / "edm_784.safetensors").exists():  # the last that is written
        r.models.mkdir(parents=True, exist_ok=True)
        subprocess.run([str(r.programs / "compare_tweedie"), "models", "--models", str(r.models), "--threads", "1"], check=True)
    tweedie, info = (json.loads(subprocess.run([str(r.programs / name), "info"], capture_output=True, text=True, check=True).stdout)
                     for name in ("compare_tweedie", "compare_libtorch"))
    agreement = r.agree()
    errors = {f"{w} {side}": r.call(side, "error", 1, workload=w, models=r.models)["error"]
              for w in workloads if not w.startswith("N/") for side in SIDES}
    results = {
        "date": datetime.date.today().isoformat(), "machine": machine(), "tweedie": tweedie, "libtorch": info, "clock": options.clock,
        "quick": options.quick, "thread_counts": options.threads, "agreement": agreement, "errors": errors, "q1": [],
        "sizes": library_sizes(options.build, options.torch_lib) if options.torch_lib else {},
    }

    def save():
        out.write_text(json.dumps(results, indent=1), encoding="utf8")

    for rounds, records in r.measure(workloads):  # kept after each round, so that a run that is stopped leaves what it has
        results["repeats"] = rounds * options.repeats
        results["measurements"] = [{"threads": t, "workload": w, "side": s, **record} for (t, w, s), record in records.items()]
        save()
    results["q1"] = r.quality()
    save()


main()
