#!/usr/bin/env python3
"""study_tables.py - the program on real tables: five random splits each of Old Faithful, white wine and handwritten digits.

  bench/study_tables.py --program build/release/cli/tweedie --data ../shared/data [--splits 5] [--only faithful] [-- TRAIN OPTIONS]

For each split a quarter of the rows is held out; `tweedie train` sees the rest. Printed per table: the energy distance of samples
to the held-out rows as a multiple of the training rows' own (1: as good as real rows), for ten times as many samples as training
rows (at most 10,000), which shows the model, and for equally many, whose own scatter adds a quarter even to a perfect model (rows
drawn again from the training rows have 1.25 on average: 2/n + 1/m against 1/n + 1/m at m = n/3); and the nearest-neighbour ratio
with the closeness to training rows (well below 1: copies). Options after -- replace a table's own. Standard library only.
SPDX-License-Identifier: MIT
"""
import argparse
import csv
import gzip
import json
import pathlib
import random
import statistics
import subprocess
import tempfile

TABLES = {
    "faithful": ("points2d/faithful.csv", ",", ["eruptions", "waiting"], []),
    "wine": ("uci_density/winequality-white.csv.gz", ",", None, ["--scaling", "quantile"]),
    "digits": ("sklearn/digits.csv.gz", ",", range(64), ["--scaling", "quantile", "--net", "residual", "--width", "192"]),
}


def read(path, delimiter, columns):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", newline="") as f:
        rows = list(csv.reader(f, delimiter=delimiter))
    try:
        [float(cell) for cell in rows[0]]
        header = None
    except ValueError:
        header = rows.pop(0)
    if columns is None:
        columns = range(len(rows[0]))
    keep = [header.index(c) if isinstance(c, str) else c for c in columns]
    return [header[i] for i in keep] if header else None, [[row[i] for i in keep] for row in rows]


def write(path, header, rows):
    with open(path, "w", newline="") as f:
        w = csv.writer(f, lineterminator="\n")
        if header:
            w.writerow(header)
        w.writerows(rows)


def run(*command):
    return json.loads(subprocess.run([*command, "--json", "-q"], check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/release/cli/tweedie")
    parser.add_argument("--data", type=pathlib.Path, default=pathlib.Path("../shared/data"))
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--only", choices=TABLES)
    parser.add_argument("train", nargs="*", help="further options of `tweedie train`, after --")
    a = parser.parse_args()
    for name, (file, delimiter, columns, options) in TABLES.items():
        if a.only not in (None, name):
            continue
        if not (a.data / file).exists():
            print(f"{name}: skipped, {a.data / file} is not there")
            continue
        header, rows = read(a.data / file, delimiter, columns)
        ratios, equal, copies, closest, seconds = [], [], [], [], []
        with tempfile.TemporaryDirectory() as folder:
            train, test, model = (f"{folder}/{f}" for f in ("train.csv", "test.csv", "model.safetensors"))
            for split in range(1, a.splits + 1):
                shuffled = random.Random(split).sample(rows, len(rows))
                cut = len(rows) * 3 // 4
                write(train, header, shuffled[:cut])
                write(test, header, shuffled[cut:])
                seconds.append(run(a.program, "train", train, "-o", model, *(a.train or options))["seconds"])
                for n, found in ((cut, equal), (min(10 * cut, 10000), ratios)):
                    result = run(a.program, "eval", model, test, "--train", train, "-n", str(n), "--metrics", "distances")
                    found.append(result["energy_ratio"])
                copies.append(result["copies"]["nearest_neighbour_ratio"])
                closest.append(result["copies"]["closest_row_ratio"])
        listed = " ".join(f"{r:.2f}" for r in ratios)
        print(f"{name} ({len(rows)} x {len(rows[0])}): energy ratio {listed} (mean {statistics.mean(ratios):.2f}, goal <= 1.25), "
              f"equally many samples {' '.join(f'{r:.2f}' for r in equal)} (mean {statistics.mean(equal):.2f}), nearest-neighbour ratio {min(copies):.2f} to {max(copies):.2f}, closest-row ratio {min(closest):.2f} to {max(closest):.2f}, "
              f"{statistics.mean(seconds):.0f} s of training", flush=True)


if __name__ == "__main__":
    main()
